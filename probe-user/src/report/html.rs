//! One self-contained page: no network, no script, readable in light and dark, on a phone and on paper.

use super::analysis_gaps::{groups, missing};
use super::html_build::Html;
use super::html_incident::incident_section;
use super::html_parts::{clocks_and_notes, glossary, inputs};
use super::html_ports::port_section;
use super::text::{counted, grouped};
use super::text_words as words;
use crate::analysis::model::{Analysed, Analysis};
use crate::diagnosis::incident::{Confidence, Verdict};

pub(super) const STYLE: &str = include_str!("html/style.css");
/// What a browser may load and run: nothing but the style sheet with this checksum.
pub(crate) const POLICY: &str = concat!(
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-",
    include_str!("html/style.sha256"),
    "'"
);
/// Bytes of a text that fit a card.
const MAX_CARD: usize = 80;
/// Kinds of incidents that have a section of their own.
const MAX_KINDS: usize = 200;

/// The whole page. `generated` says when it was made, in words or as RFC 3339; it is printed as it is.
pub fn page(analysis: &Analysis, generated: Option<&str>) -> String {
    let groups = groups(analysis);
    let mut html = Html::default();
    html.literal("<!DOCTYPE html>\n");
    html.within("html", &[("lang", "en")], |html| {
        html.within("head", &[], |html| {
            html.literal("<meta charset=\"utf-8\">\n");
            html.open("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
            html.open("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
            html.open("meta", &[("name", "referrer"), ("content", "no-referrer")]);
            html.element("title", &[], &format!("portclash: {}", sentence(analysis)));
            html.literal("<style>");
            html.literal(STYLE);
            html.close("style");
        });
        html.within("body", &[], |html| {
            html.within("header", &[], |html| header(html, analysis, &groups));
            html.within("main", &[], |html| {
                for (number, group) in groups.iter().take(MAX_KINDS).enumerate() {
                    incident_section(html, number + 1, group);
                }
                left_out(html, analysis, groups.len());
                if groups.is_empty() {
                    nothing(html, analysis);
                }
                port_section(html, analysis);
                clocks_and_notes(html, analysis);
                inputs(html, &analysis.inputs);
                glossary(html);
            });
            html.within("footer", &[], |html| footer(html, generated));
        });
    });
    html.finish()
}

/// The verdict in one sentence.
fn sentence(analysis: &Analysis) -> String {
    match analysis.incidents.as_slice() {
        [] if analysis.summary.incomplete.is_empty() => "nothing was found".to_owned(),
        [] => "nothing was found, but the evidence is incomplete".to_owned(),
        [only] => words::headline(&only.incident),
        [first, ..] if groups(analysis).len() == 1 => {
            let count = analysis.incidents.len() as u64 + analysis.left_out;
            format!("{}; {} times the same", words::headline(&first.incident), grouped(count))
        }
        _ => {
            let found = found(analysis).join(", ");
            format!("{found}, the first on {} UTC", first_time(analysis))
        }
    }
}

fn first_time(analysis: &Analysis) -> String {
    let first = analysis.incidents.iter().map(|analysed| analysed.incident.started_at.as_str()).min();
    first.and_then(|at| at.get(..19)).unwrap_or("an unknown day").replacen('T', " at ", 1)
}

/// How many of what: of the summary, or counted where that says nothing.
fn found(analysis: &Analysis) -> Vec<String> {
    let said = analysis.summary.verdicts.clone();
    let mut verdicts = said;
    if verdicts.is_empty() {
        for analysed in &analysis.incidents {
            *verdicts.entry(analysed.incident.verdict).or_default() += 1;
        }
    }
    verdicts.iter().filter_map(|(verdict, count)| counted(*verdict, *count)).collect()
}

fn header(html: &mut Html, analysis: &Analysis, groups: &[Vec<&Analysed>]) {
    html.element("h1", &[], "portclash report");
    let sentence = sentence(analysis);
    let mut letters = sentence.chars();
    let sentence: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    html.element("p", &[("class", "verdict")], &format!("{sentence}."));
    cards(html, analysis, groups.len());
    if groups.len() > 1 {
        html.within("nav", &[("aria-label", "Incidents")], |html| {
            html.within("ol", &[], |html| {
                for (number, group) in groups.iter().take(MAX_KINDS).enumerate() {
                    let Some(first) = group.first() else { continue };
                    let times =
                        if group.len() > 1 { format!(" ({} times)", group.len()) } else { String::new() };
                    html.within("li", &[], |html| {
                        let target = format!("#incident-{}", number + 1);
                        html.element("a", &[("href", &target)], &words::headline(&first.incident));
                        html.text(&times);
                    });
                }
            });
        });
    }
}

/// How sure the gravest verdict is: that a port was closed is certain says nothing of a collision.
fn confidence(analysis: &Analysis) -> (&'static str, &'static str) {
    let told = || analysis.incidents.iter().map(|analysed| &analysed.incident);
    let gravest = told().map(|incident| incident.verdict).filter(|verdict| *verdict != Verdict::None).min();
    let sure =
        told().filter(|incident| Some(incident.verdict) == gravest).map(|incident| incident.confidence).max();
    match sure {
        Some(Confidence::Proven) => ("proven", "the deciding step itself was seen"),
        Some(Confidence::Likely) if gravest == Some(Verdict::OtherReset) => {
            ("likely", "the packets themselves show why")
        }
        Some(Confidence::Likely) => ("likely", "all but the deciding step was seen"),
        Some(Confidence::Possible) => ("possible", "some evidence is missing"),
        None => ("nothing to judge", "no incident"),
    }
}

fn cards(html: &mut Html, analysis: &Analysis, kinds: usize) {
    let found = found(analysis);
    let bad = analysis.incidents.iter().any(|analysed| words::is_failure(&analysed.incident));
    let total = analysis.incidents.len() as u64 + analysis.left_out;
    let verdicts = if found.is_empty() { "nothing found".to_owned() } else { found.join(", ") };
    let looked =
        analysis.summary.incomplete.is_empty() && analysis.inputs.iter().any(|input| input.kind.is_some());
    let class = match (found.is_empty(), bad) {
        (true, _) if looked => "good",
        (false, true) => "bad",
        _ => "warn",
    };
    let sure = confidence(analysis);
    let incidents = match (total, kinds) {
        (1, _) => "one incident".to_owned(),
        (total, 1) => format!("{} incidents of one kind", grouped(total)),
        (total, kinds) => format!("{} incidents of {kinds} kinds", grouped(total)),
    };
    let incomplete = &analysis.summary.incomplete;
    let (complete, complete_class) = match incomplete.len() {
        0 => ("complete", "good"),
        _ => ("INCOMPLETE", "warn"),
    };
    let skipped = analysis.inputs.iter().any(|input| !input.skipped.is_empty());
    let lacks = match (incomplete.is_empty(), skipped) {
        (false, _) if incomplete.len() == 1 && incomplete.iter().all(|text| text.len() < MAX_CARD) => {
            incomplete.join(" ")
        }
        (false, _) => "what it lacks is said below".to_owned(),
        (true, true) => "what was skipped is said below, under Inputs".to_owned(),
        (true, false) => "nothing was lost or skipped".to_owned(),
    };
    html.within("ul", &[("class", "cards")], |html| {
        card(html, "Verdict", (&verdicts, class), if total == 0 { "" } else { &incidents });
        card(html, "Confidence", (sure.0, ""), sure.1);
        card(html, "Evidence", (complete, complete_class), &lacks);
        let kinds = analysis.inputs.iter().filter(|input| input.kind.is_some()).count();
        if !analysis.inputs.is_empty() {
            let read = format!("{kinds} of {} read", analysis.inputs.len());
            card(html, "Inputs", (&read, ""), "with their checksums below");
        }
    });
}

pub(super) fn card(html: &mut Html, label: &str, (value, class): (&str, &str), more: &str) {
    html.within("li", &[("class", "card")], |html| {
        html.element("span", &[], label);
        html.element("b", &[("class", class)], value);
        html.element("span", &[], more);
    });
}

fn left_out(html: &mut Html, analysis: &Analysis, kinds: usize) {
    let hidden = kinds.saturating_sub(MAX_KINDS);
    if hidden > 0 {
        html.element(
            "p",
            &[],
            &format!("{hidden} more kinds of incidents are not shown; the JSON output has them."),
        );
    }
    if analysis.left_out > 0 {
        let text = format!("{} more incidents were found and not kept.", grouped(analysis.left_out));
        html.element("p", &[], &text);
    }
}

fn nothing(html: &mut Html, analysis: &Analysis) {
    html.within("section", &[], |html| {
        html.element("h2", &[], "What was missing to find more");
        let missing = missing(analysis);
        if missing.is_empty() {
            html.element("p", &[], "Every kind of input that is of use was given.");
            return;
        }
        html.within("ul", &[], |html| {
            for text in missing {
                html.element("li", &[], text);
            }
        });
    });
}

fn footer(html: &mut Html, generated: Option<&str>) {
    let at = generated.map_or_else(String::new, |at| format!(", {at}"));
    html.element(
        "p",
        &[],
        &format!("Made by portclash {}{at}. All times are UTC.", env!("CARGO_PKG_VERSION")),
    );
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
