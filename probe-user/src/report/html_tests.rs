use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;

use super::*;
use crate::report::analysis_samples as samples;
use crate::report::samples as incidents;

const GENERATED: Option<&str> = Some("2022-09-16T08:00:00Z");

/// `UPDATE_STYLE=1 cargo test -p probe-user style_sheet` writes the checksum anew.
#[test]
fn the_policy_names_the_style_sheet() {
    let digest = ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes());
    let expected = base64::engine::general_purpose::STANDARD.encode(digest);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/html/style.sha256");
    if std::env::var_os("UPDATE_STYLE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == expected, "style.sha256 is out of date: run with UPDATE_STYLE=1");
}

#[test]
fn pages() {
    for (name, analysis) in samples::all() {
        // The style sheet has its own file.
        let page =
            page(&analysis, GENERATED).replace(STYLE, "…").replace(include_str!("html/style.sha256"), "…");
        let page = page.replace(concat!("portclash ", env!("CARGO_PKG_VERSION")), "portclash VERSION");
        insta::assert_snapshot!(name, page);
    }
}

/// `HTML_SAMPLES=DIR cargo test -p probe-user sample_pages` writes the pages, to be looked at in a browser.
#[test]
fn sample_pages_are_whole() {
    let folder = std::env::var_os("HTML_SAMPLES");
    let live = Analysis {
        incidents: vec![Analysed {
            incident: incidents::named(),
            timeline: Vec::new(),
            ladder: crate::analysis::model::Ladder::default(),
            packets: Vec::new(),
        }],
        ..Analysis::default()
    };
    for (name, analysis) in samples::all().into_iter().chain([("live", live)]) {
        let page = page(&analysis, None);
        if let Some(folder) = &folder {
            std::fs::write(Path::new(folder).join(format!("{name}.html")), &page).unwrap();
        }
        balanced(&page);
        assert!(!page.contains("http://") || name != "nothing", "nothing is loaded");
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains(" style="), "{name}");
        let links = page.matches("href=\"").count();
        assert_eq!(links, page.matches("href=\"#").count(), "no link leaves the page");
    }
}

/// Every element that is opened is closed, in order.
fn balanced(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let page = page.replace(STYLE, "");
    for part in page.split('<').skip(1) {
        let tag = part.split(['>', ' ']).next().unwrap();
        match tag.strip_prefix('/') {
            Some(tag) => assert_eq!(open.pop(), Some(tag)),
            None if matches!(tag, "meta" | "br" | "!DOCTYPE") => {}
            None => open.push(tag),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_live_incident_without_packets_has_a_ladder_and_a_timeline() {
    let mut analysis = samples::proven();
    analysis.incidents.truncate(1);
    analysis.incidents[0].timeline.clear();
    analysis.incidents[0].ladder = crate::analysis::model::Ladder::default();
    let page = page(&analysis, None);
    assert!(page.contains("SYN-ACK ack 4142039475 (not seen)"));
    assert!(page.contains("tcp_v4_send_reset (fentry)"));
}

/// Puts `text` wherever something from outside can stand.
fn everywhere(text: &str) -> Analysis {
    let mut analysis = samples::proven();
    analysis.ports = samples::seed().ports;
    for list in [&mut analysis.clocks, &mut analysis.notes, &mut analysis.summary.incomplete] {
        list.push(text.to_owned());
    }
    for input in &mut analysis.inputs {
        input.name = text.to_owned();
        input.kind = Some(text.to_owned());
        input.sha256 = Some(text.to_owned());
        input.read = text.to_owned();
        input.skipped = vec![text.to_owned()];
    }
    let mut other = Analysed::of_incident(incidents::unknown_owner());
    other.incident.connection.remote = Some(text.to_owned());
    analysis.incidents.push(other);
    for analysed in &mut analysis.incidents {
        for moment in &mut analysed.timeline {
            moment.text = text.to_owned();
            moment.source = text.to_owned();
        }
        for party in &mut analysed.ladder.parties {
            party.title = text.to_owned();
            party.address = Some(text.to_owned());
        }
        for arrow in &mut analysed.ladder.arrows {
            arrow.label = text.to_owned();
            arrow.place = text.to_owned();
        }
        let incident = &mut analysed.incident;
        for field in [&mut incident.id, &mut incident.started_at] {
            *field = text.to_owned();
        }
        for field in [&mut incident.owner.comm, &mut incident.owner.cmdline, &mut incident.connection.local] {
            *field = Some(text.to_owned());
        }
        for line in &mut incident.log_lines {
            (line.text, line.file) = (text.to_owned(), text.to_owned());
        }
        if let Some(service) = &mut incident.service {
            (service.name, service.kind) = (Some(text.to_owned()), Some(text.to_owned()));
        }
        for evidence in &mut incident.evidence {
            evidence.text = text.to_owned();
        }
        for advice in Arc::make_mut(&mut incident.advice) {
            (advice.why, advice.command, advice.persist) =
                (text.to_owned(), Some(text.to_owned()), Some(text.to_owned()));
        }
    }
    analysis
}

#[test]
fn nothing_from_outside_becomes_markup() {
    let evil =
        "</title></style><script>alert(1)</script><img src=x onerror='a'\" onload=\"x&lt;\u{202e}\u{0}";
    let page = page(&everywhere(evil), Some(evil));
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(!page.contains('\u{202e}') && !page.contains('\0'));
    balanced(&page);
    // As many elements as with harmless text of the same length.
    let harmless = "x".repeat(evil.chars().count());
    let plain = super::page(&everywhere(&harmless), Some(&harmless));
    assert_eq!(page.matches("<td").count(), plain.matches("<td").count());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
    #[test]
    fn whatever_stands_in_the_inputs(text in "[<>&\"'a/ =\\-!\\PC]{0,24}") {
        let page = page(&everywhere(&text), Some(&text));
        balanced(&page);
        proptest::prop_assert!(!page.contains("<script"));
    }
}

/// Colours of one block of the style sheet.
fn colours(block: &str) -> std::collections::BTreeMap<&str, [f64; 3]> {
    let mut all = std::collections::BTreeMap::new();
    for part in block.split(';') {
        let Some((name, value)) = part.rsplit('\n').next().unwrap().trim().split_once(": #") else {
            continue;
        };
        let channel = |at: usize| f64::from(u8::from_str_radix(&value[at..at + 2], 16).unwrap()) / 255.0;
        all.insert(name, [channel(0), channel(2), channel(4)]);
    }
    all
}

/// Contrast of two colours (WCAG 2.2).
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
    let luminance = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn every_text_has_contrast_in_both_themes_and_on_paper() {
    let blocks: Vec<&str> =
        STYLE.split(":root {").skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
    assert_eq!(blocks.len(), 3, "light, dark, print");
    for block in blocks {
        let block = block.replace("; --", ";\n  --");
        let colours = colours(&block);
        for text in ["--text", "--soft", "--link", "--bad", "--warn", "--good", "--node"] {
            for back in ["--page", "--card"] {
                let contrast = contrast(colours[text], colours[back]);
                assert!(contrast >= 4.5, "{text} on {back}: {contrast:.2}");
            }
        }
        for text in ["--text", "--soft", "--link"] {
            assert!(contrast(colours[text], colours["--bad-back"]) >= 4.5, "{text} in a marked row");
        }
    }
}
