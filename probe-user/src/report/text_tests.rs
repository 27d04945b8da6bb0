use std::sync::Arc;

use super::*;
use crate::report::samples;

const STYLES: [(usize, bool); 3] = [(80, false), (120, false), (80, true)];

fn title(width: usize, colour: bool) -> String {
    format!("===== {width} columns{}\n", if colour { ", colour" } else { "" })
}

/// Everything that can be printed about an incident, at both widths, plain; then once more in colour.
fn everything(incident: &Incident) -> String {
    let print = |(width, colour)| {
        let style = TextStyle { colour, width };
        let parts =
            [began_line(incident, style), verdict_block(incident, style), concluded_line(incident, style)];
        title(width, colour) + &parts.join("-----\n").replace('\u{1b}', "ESC")
    };
    STYLES.map(print).concat()
}

macro_rules! snapshots {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(everything(&samples::$name()));
        }
    )*};
}
snapshots!(
    hijacked logged no_backend survived failed pending exhaustion other_reset none unknown_owner ipv6 named ambiguous
);
// What a build without it can ask is less, and so is what it says.
#[cfg(feature = "kube")]
snapshots!(no_sources);

#[test]
fn summary_of_a_complete_and_of_an_incomplete_trace() {
    let print = |summary: &Summary| {
        let print = |(width, colour)| {
            title(width, colour)
                + &summary_block(summary, TextStyle { colour, width }).replace('\u{1b}', "ESC")
        };
        STYLES.map(print).concat()
    };
    insta::assert_snapshot!([samples::summary(), samples::summary_incomplete()].map(|s| print(&s)).concat());
}

#[test]
fn nothing_found_is_said_differently_where_evidence_is_missing() {
    let style = TextStyle { colour: false, width: 80 };
    let mut summary = samples::summary();
    summary.verdicts.clear();
    assert!(summary_block(&summary, style).starts_with("Summary     nothing found; 41,208 connects seen\n"));
    summary.incomplete.push("x".to_owned());
    assert!(summary_block(&summary, style).contains("nothing found, but the evidence is incomplete"));
}

#[test]
fn no_line_is_wider_than_the_terminal_but_for_commands_which_are_never_broken() {
    let incident = samples::hijacked();
    for width in [60, 80, 100, 120] {
        let text = verdict_block(&incident, TextStyle { colour: false, width });
        for line in text.lines() {
            let command = line.starts_with("    sysctl -w ") || line.starts_with("    echo ");
            assert!(command || line.chars().count() <= width, "{width}: {line}");
            assert_eq!(line.trim_end(), line, "no trailing blanks");
        }
        let command = incident.advice[0].command.as_deref().unwrap();
        assert!(text.lines().any(|line| line.trim_start() == command), "{width}");
    }
}

#[test]
fn names_from_outside_cannot_steer_the_terminal() {
    let mut incident = samples::ipv6();
    let evil = "\u{1b}]0;owned\u{7}\n\u{202e}".repeat(100);
    incident.owner.comm = Some(evil.clone());
    incident.owner.cmdline = Some(evil.clone());
    incident.owner.container_id = Some(evil.clone());
    incident.owner.pod.as_mut().unwrap().name.clone_from(&evil);
    incident.probe = samples::hijacked().probe;
    incident.probe.as_mut().unwrap().container.clone_from(&evil);
    incident.service.as_mut().unwrap().name = Some(evil.clone());
    incident.evidence[0].text.clone_from(&evil);
    let advice = Arc::make_mut(&mut incident.advice);
    advice[0].why.clone_from(&evil);
    advice[0].command = Some(evil);
    let style = TextStyle { colour: false, width: 80 };
    let all =
        began_line(&incident, style) + &verdict_block(&incident, style) + &concluded_line(&incident, style);
    assert!(all.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(!all.contains('\u{202e}'));
    assert!(all.lines().count() < 200);
}

#[test]
fn numbers_and_times() {
    assert_eq!(grouped(7), "7");
    assert_eq!(grouped(1_234_567), "1,234,567");
    assert_eq!(grouped(123_456), "123,456");
    assert_eq!(seconds(2001), "2.001 s");
    assert_eq!(relative("2022-09-15T19:09:02.5Z", "2022-09-15T19:09:03.564712Z"), "+1.064 s");
    assert_eq!(relative("2022-09-15T19:09:02.5Z", "2022-09-15T19:09:02.4Z"), "-0.100 s");
    assert_eq!(relative("?", "2022-09-15T19:09:02.4Z"), "2022-09-15T19:09:02.4Z");
}
