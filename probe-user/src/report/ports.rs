//! `portclash ports` for people: one table, and what it says.

use std::collections::BTreeSet;

use super::ports_table::{Placed, below, columns};
use super::text::{TextStyle, grouped};
use super::text_escape::{escape, escape_all};
use super::text_page::{BOLD, GREEN, PLAIN, Page, RED, YELLOW};
use crate::ports::model::{Outlook, Report, Row, Summary};

/// Column where the texts below the table begin.
const COLUMN: usize = 12;

/// The whole report.
pub fn page(report: &Report, style: TextStyle) -> String {
    let mut page = Page::new(style.colour, style.width);
    if report.rows.is_empty() {
        page.verbatim(0, PLAIN, "nobody connected");
    } else {
        let columns = columns(style.width);
        page.verbatim(0, BOLD, headings(&columns).trim_end());
        for row in &report.rows {
            page.verbatim(0, colour(row), line(row, &columns).trim_end());
            if let Some((indent, pod)) = below(row, &columns, style.width) {
                page.verbatim(indent, colour(row), &pod);
            }
        }
    }
    page.blank();
    summary(&mut page, &report.summary, report.unnamed_pods.as_deref());
    advice(&mut page, report);
    page.finish()
}

fn headings(columns: &[Placed]) -> String {
    columns.iter().map(Placed::heading).collect::<Vec<_>>().join(" ")
}

/// One row. Its last column is never cut: it is what a reader wants to copy.
fn line(row: &Row, columns: &[Placed]) -> String {
    let cell = |placed: &Placed| if placed.is_last() { placed.whole(row) } else { placed.cell(row) };
    columns.iter().map(cell).collect::<Vec<_>>().join(" ")
}

fn colour(row: &Row) -> anstyle::Style {
    match row.outlook {
        Outlook::UsedUp => RED,
        Outlook::RunningOut => YELLOW,
        Outlook::Lasts | Outlook::Unknown => PLAIN,
    }
}

fn summary(page: &mut Page, summary: &Summary, unnamed_pods: Option<&str>) {
    let Summary { seconds, connects, unavailable, time_wait, time_wait_unattributed, .. } = summary;
    let complete = summary.incomplete.is_empty();
    let mut row = |label: &str, style, text: &str| page.field(0, (label, style), COLUMN, (text, PLAIN));
    let connects = match connects {
        1 => "1 connect".to_owned(),
        connects => format!("{} connects", grouped(*connects)),
    };
    let failed = match unavailable {
        0 => "none failed for want of a source port".to_owned(),
        count => format!("{} failed for want of a source port (EADDRNOTAVAIL)", grouped(*count)),
    };
    let label = if *unavailable > 0 { RED } else { BOLD };
    row("Summary", label, &format!("{connects} in {seconds:.1} s; {failed}"));
    let range = summary.local_port_range.as_deref().unwrap_or("of unknown extent");
    let usable = summary.usable_ports.map_or_else(|| "an unknown number".to_owned(), grouped);
    row("Ports", BOLD, &format!("range {}, {usable} of them usable per destination", escape(range)));
    match (time_wait, time_wait_unattributed) {
        (Some(all), Some(0) | None) => {
            row("TIME-WAIT", BOLD, &format!("{} sockets of this node's own connects", grouped(*all)));
        }
        (Some(all), Some(unknown)) => row(
            "TIME-WAIT",
            BOLD,
            &format!(
                "{} sockets of this node's own connects; {} of them by nobody who was seen to connect (they last 60 s)",
                grouped(*all),
                grouped(*unknown)
            ),
        ),
        (None, _) => row("TIME-WAIT", YELLOW, "not known"),
    }
    if let Some(trouble) = unnamed_pods {
        row("Pods", YELLOW, &format!("some are not named: {}", escape_all(trouble)));
    }
    for sentence in &summary.incomplete {
        row("INCOMPLETE", YELLOW, &escape_all(sentence));
    }
    if complete {
        row("Evidence", BOLD, "complete: no count was lost");
    }
    for (n, (need, rung)) in summary.hooks.iter().enumerate() {
        row(if n == 0 { "Hooks" } else { "" }, BOLD, &format!("{}: {}", escape(need), escape(rung)));
    }
}

/// What to do about it.
fn advice(page: &mut Page, report: &Report) {
    let short: BTreeSet<&str> = report
        .rows
        .iter()
        .filter(|row| matches!(row.outlook, Outlook::UsedUp | Outlook::RunningOut))
        .map(|row| row.destination.as_str())
        .collect();
    if !short.is_empty() {
        let named: Vec<String> = short.iter().take(3).map(|destination| escape(destination)).collect();
        let more = short.len().saturating_sub(named.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        page.blank();
        page.paragraph(
            0,
            &format!(
                "Source ports run out towards {}{more}. Let the client keep its connections open (HTTP keep-alive, a \
                 pool), or give it more ports; this says what the range is and what is kept out of it:",
                named.join(", ")
            ),
        );
        page.verbatim(4, GREEN, "sysctl net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports");
    }
    if report.summary.expected_collisions_per_hour.is_some_and(|expected| expected > 0.0) {
        page.blank();
        page.paragraph(
            0,
            "Some connects will get a source port that is an IPVS service, and die. This says which ports these are, and \
             what to set:",
        );
        page.verbatim(4, GREEN, "portclash check");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::samples;

    fn style(width: usize) -> TextStyle {
        TextStyle { colour: false, width }
    }

    #[test]
    fn everything() {
        let mut out = String::new();
        for (width, colour) in [(80, false), (120, false), (150, false), (80, true)] {
            out += &format!("===== {width} columns{}\n", if colour { ", colour" } else { "" });
            out += &page(&samples::report(), TextStyle { colour, width }).replace('\u{1b}', "ESC");
        }
        insta::assert_snapshot!(out);
    }

    #[test]
    fn incomplete_and_nothing() {
        let mut report = samples::report();
        report.rows.clear();
        report.summary.connects = 0;
        report.summary.unavailable = 0;
        report.summary.time_wait = None;
        report.summary.usable_ports = None;
        report.summary.local_port_range = None;
        report.summary.incomplete = vec!["ports: 12 lost (evicted)".into()];
        report.unnamed_pods = Some("kubelet: 401 Unauthorized".into());
        insta::assert_snapshot!(page(&report, style(80)));
    }

    #[test]
    fn a_terminal_cannot_be_steered_and_only_a_long_destination_is_wider_than_it() {
        for width in [80, 114, 128, 150] {
            let text = page(&samples::report(), style(width));
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
            for line in text.lines().filter(|line| !line.contains("fd00:")) {
                assert!(line.chars().count() <= width, "{width}: {line}");
                assert_eq!(line.trim_end(), line);
            }
        }
    }
}
