//! `portclash doctor` for people: first the answer, then the needs of tracing, then what they depend on.

use anstyle::Style;

use super::text::TextStyle;
use super::text_escape::escape_all;
use super::text_page::{BOLD, CYAN, DIM, GREEN, PLAIN, Page, RED, YELLOW};
use crate::doctor::{Area, Doctor, Finding, NeedReport, Status};

/// Cells of the status and of the name in front of a text.
const STATUS: usize = 9;
const NAME: usize = 19;
/// Cells of the labels inside a text.
const LABEL: usize = 8;

/// The whole report.
pub fn page(doctor: &Doctor, style: TextStyle) -> String {
    let Doctor { schema: _, version, status, failure, hooks, needs, findings } = doctor;
    let mut page = Page::new(style.colour, style.width);
    let (tag, colour) = tag(*status);
    let count = |wanted| needs.iter().filter(|need| need.status == wanted).count();
    let answer = match (status, count(Status::Missing) + count(Status::Reduced)) {
        (Status::Ok, _) => "Everything that portclash traces can be traced here.".to_owned(),
        (Status::Missing, _) => "Nothing can be traced here.".to_owned(),
        (Status::Reduced, 0) => "Tracing works; what is marked below makes it less than complete.".to_owned(),
        (Status::Reduced, short) => {
            format!("Tracing works with less evidence: {short} of {} needs are not fully met.", needs.len())
        }
    };
    page.row(0, &[(tag, colour, STATUS)], (&answer, BOLD));
    if let Some(failure) = failure {
        page.row(0, &[("", PLAIN, STATUS)], (&escape_all(failure), PLAIN));
    }
    let restricted =
        if hooks == "auto" { String::new() } else { format!(", with --hooks {}", escape_all(hooks)) };
    page.row(0, &[("", PLAIN, STATUS)], (&format!("portclash {}{restricted}", escape_all(version)), DIM));
    page.blank();
    page.verbatim(0, BOLD, "What tracing needs, and the hook that serves it");
    let mut told = None;
    for need in needs {
        write_need(&mut page, need, failure.as_deref(), &mut told);
    }
    for (area, title) in [
        (Area::Kernel, "Kernel"),
        (Area::Privileges, "Privileges"),
        (Area::Node, "Node"),
        (Area::Ipvs, "IPVS"),
    ] {
        page.blank();
        page.verbatim(0, BOLD, title);
        findings
            .iter()
            .filter(|finding| finding.area == area)
            .for_each(|finding| write_finding(&mut page, finding));
    }
    page.finish()
}

fn tag(status: Status) -> (&'static str, Style) {
    match status {
        Status::Ok => ("ok", GREEN),
        Status::Reduced => ("REDUCED", YELLOW),
        Status::Missing => ("MISSING", RED),
    }
}

/// A need: its way and what for; then what it lacks, why better ways do not work, and what helps. A remedy that the
/// need before had as well is not repeated, nor is the reason why nothing could be loaded.
fn write_need(page: &mut Page, need: &NeedReport, failure: Option<&str>, told: &mut Option<String>) {
    let NeedReport { need: name, status, purpose, way, limit, refused, get } = need;
    let (tag, colour) = tag(*status);
    let served = match way {
        Some(way) => format!("by {}: {}", escape_all(way), escape_all(purpose)),
        None => format!("by nothing: {}", escape_all(purpose)),
    };
    page.row(2, &[(tag, colour, STATUS), (&escape_all(name), BOLD, NAME)], (&served, PLAIN));
    if let Some(limit) = limit {
        detail(page, "but", YELLOW, limit);
    }
    for refusal in refused.iter().filter(|refusal| failure != Some(refusal.why.as_str())) {
        detail(page, "not", DIM, &format!("{}: {}", refusal.way, refusal.why));
    }
    if let Some(get) = get
        && told.as_ref() != Some(get)
    {
        detail(page, "to do", CYAN, get);
        *told = Some(get.clone());
    }
}

/// What is in order takes one line; the rest is explained.
fn write_finding(page: &mut Page, finding: &Finding) {
    let Finding { area: _, name, value, status, why, get } = finding;
    let (tag, colour) = tag(*status);
    let known = value.is_some();
    let value = value.as_deref().map_or_else(|| "not known".to_owned(), escape_all);
    page.row(2, &[(tag, colour, STATUS), (&escape_all(name), BOLD, NAME)], (&value, PLAIN));
    if *status != Status::Ok || !known {
        detail(page, "why", DIM, why);
    }
    if let Some(get) = get {
        detail(page, "to do", CYAN, get);
    }
}

fn detail(page: &mut Page, label: &str, style: Style, text: &str) {
    page.row(2 + STATUS + NAME, &[(label, style, LABEL)], (&escape_all(text), PLAIN));
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
