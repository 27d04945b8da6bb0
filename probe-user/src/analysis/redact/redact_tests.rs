use std::sync::Arc;

use super::*;
use crate::report::analysis_samples as samples;
use crate::report::analysis_text::{Signs, report};
use crate::report::html;
use crate::report::text::TextStyle;

/// Everything that is told of an analysis.
fn outputs(analysis: &Analysis) -> String {
    let style = TextStyle { colour: false, width: 120 };
    let mut json = Vec::new();
    for analysed in &analysis.incidents {
        crate::report::json::write_incident(&mut json, &analysed.incident).unwrap();
    }
    for input in &analysis.inputs {
        json.extend(serde_json::to_vec(input).unwrap());
    }
    crate::report::json::write_summary(&mut json, &analysis.summary).unwrap();
    [
        report(analysis, style, Signs::Unicode),
        html::page(analysis, None),
        String::from_utf8(json).unwrap(),
        format!("{analysis:?}"),
    ]
    .concat()
}

fn redacted(mut analysis: Analysis) -> Analysis {
    Redactor::new([7; 32]).redact(&mut analysis);
    analysis
}

/// Names and addresses of the samples.
const SECRETS: [&str; 20] = [
    "10.23.77.129",
    "10.23.77.138",
    "10.23.77.139",
    "10.23.77",
    "nginx-5dfb7c896c",
    "x2q2w",
    "kube-system",
    "kubernetes-dashboard",
    "dashboard",
    "3daea6ef",
    "default/",
    "pod.pcapng",
    "backend.pcapng",
    "node.pcapng",
    "sosreport",
    "holiday",
    "capture.txt",
    "/var/lib",
    "context deadline",
    "9f86d081",
];

#[test]
fn none_of_the_names_and_addresses_is_in_any_output() {
    for (name, analysis) in samples::all() {
        let text = outputs(&redacted(analysis));
        for secret in SECRETS {
            assert!(!text.contains(secret), "{name}: {secret} in …{}…", around(&text, secret));
        }
    }
}

fn around<'a>(text: &'a str, word: &str) -> &'a str {
    let at = text.find(word).unwrap();
    let start = (0..=at.saturating_sub(80)).rev().find(|at| text.is_char_boundary(*at)).unwrap();
    let end = (at + 80..text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
    &text[start..end]
}

#[test]
fn what_stays_still_tells_the_story() {
    for (name, analysis) in samples::all() {
        let analysis = redacted(analysis);
        let style = TextStyle { colour: false, width: 100 };
        insta::assert_snapshot!(name, report(&analysis, style, Signs::Unicode));
    }
}

#[test]
fn the_same_key_and_order_give_the_same_report() {
    let text = || outputs(&redacted(samples::proven()));
    assert_eq!(text(), text());
    let mut other = samples::proven();
    Redactor::new([8; 32]).redact(&mut other);
    assert_ne!(text(), outputs(&other));
}

#[test]
fn one_name_has_one_alias_in_all_outputs_of_a_run() {
    let mut redactor = Redactor::new([7; 32]);
    let (mut first, mut second) = (samples::seed(), samples::proven());
    redactor.redact(&mut first);
    redactor.redact(&mut second);
    let pod = |analysis: &Analysis| analysis.incidents[0].incident.probe.as_ref().unwrap().pod.clone();
    assert_eq!(pod(&first), pod(&second));
    let remote = |analysis: &Analysis| analysis.incidents[0].incident.connection.remote.clone();
    assert_eq!(remote(&first), remote(&second));
    // Ports are the point.
    assert!(remote(&first).unwrap().ends_with(":80"));
}

#[test]
fn a_kubelets_line_is_told_anew_and_any_other_is_rewritten() {
    let mut redactor = Redactor::new([7; 32]);
    let line = samples::seed().incidents[0].incident.log_lines[0].text.clone();
    assert_eq!(
        redactor.line(&line).split(" target").next().unwrap(),
        "Probe failed: readiness pod namespace-1/pod-1 container container-1"
    );
    let other = redactor.line(
        r#"10.1.2.3 - - [15/Sep/2022:11:08:42 +0000] "GET /acme HTTP/1.1" 200 615 "-" "kube-probe/1.23""#,
    );
    assert!(other.ends_with(r#"- - [15/Sep/2022:11:08:42 +0000] "…" 200 615 "…" "…""#), "{other}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn names_from_anywhere_are_in_no_output(
        name in "[bcdfghjklmnpqrstvwxz]{8,12}",
        host in 1_u8..250,
        net in 1_u8..250,
    ) {
        let address = format!("10.{net}.77.{host}");
        let text = format!("{name} at {address}:80 (pod acme/{name}-0, \"{name}\") {name}.log");
        let mut analysis = samples::proven();
        for list in [&mut analysis.clocks, &mut analysis.notes, &mut analysis.summary.incomplete] {
            list.push(text.clone());
        }
        for input in &mut analysis.inputs {
            input.name = format!("dir of {name}/{name}.pcap");
            input.read.clone_from(&text);
            input.skipped = vec![text.clone()];
        }
        for analysed in &mut analysis.incidents {
            let first = analysed.timeline.first_mut().unwrap();
            (first.text, first.source) = (text.clone(), format!("dir of {name}/{name}.pcap, packet 3"));
            analysed.ladder.parties[0].title.clone_from(&text);
            analysed.ladder.arrows[0].place = format!("{name}.pcap eth0");
            let incident = &mut analysed.incident;
            incident.connection.local = Some(format!("{address}:36704"));
            incident.owner.comm = Some(name.clone());
            incident.owner.exe = Some(format!("/opt/{name}/bin/{name}"));
            incident.owner.cmdline = Some(format!("/opt/{name}/bin/{name} --host={address}"));
            incident.owner.cgroup = Some(format!("/system.slice/{name}.service"));
            incident.evidence[0].text.clone_from(&text);
            incident.resets[0].reason = Some(text.clone());
            incident.service.as_mut().unwrap().name = Some(format!("acme/{name}:{name}"));
            for line in &mut incident.log_lines {
                (line.text, line.file) = (text.clone(), format!("/var/log/{name}.log"));
            }
            Arc::make_mut(&mut incident.advice)[0].command = Some(format!("ss -Htan dst {address} dport = :80"));
        }
        let analysis = redacted(analysis);
        let out = outputs(&analysis);
        proptest::prop_assert!(!out.contains(&name), "…{}…", around(&out, &name));
        proptest::prop_assume!(analysis.incidents[0].incident.connection.local != Some(format!("{address}:36704")));
        let told = out.contains(&(address.clone() + ":")) || out.contains(&(address + " "));
        proptest::prop_assert!(!told);
    }
}

struct Silent;

impl crate::sources::offline::Progress for Silent {
    fn begin(&mut self, _: &str, _: Option<u64>) {}
    fn at(&mut self, _: u64) {}
}

/// The files of the incident that was published, through the whole analysis.
#[test]
fn what_was_published_can_be_given_away() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seed");
    let options = crate::sources::offline::Options {
        zone: Some(jiff::tz::TimeZone::fixed(jiff::tz::offset(8))),
        limits: crate::inputs::Limits::default(),
        now: 1_700_000_000_000_000_000,
    };
    let read = crate::sources::offline::read(&[folder], &options, &mut Silent).unwrap();
    let mut analysis = crate::analysis::conclude(&read.material, &read.packets);
    analysis.inputs = read.inputs;
    assert!(!analysis.incidents.is_empty());
    let analysis = redacted(analysis);
    let text = outputs(&analysis);
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in …{}…", around(&text, secret));
    }
    let text = report(&analysis, TextStyle { colour: false, width: 100 }, Signs::Unicode);
    assert!(text.contains("NodePort namespace-2/service-1:443"), "{text}");
    assert!(text.contains("readiness probe of namespace-1/pod-1, container container-1"), "{text}");
    // No word of the program's own sentences was taken for a name.
    assert!(!text.contains("name-"), "{text}");
}

#[test]
fn advice_of_this_program_stays_but_for_addresses_and_that_of_others_does_not() {
    use crate::report::samples as incidents;
    let all = [
        incidents::hijacked(),
        incidents::survived(),
        incidents::pending(),
        incidents::unknown_owner(),
        incidents::exhaustion(),
    ];
    for before in all {
        let mut after = before.clone();
        Redactor::new([7; 32]).incident(&mut after);
        let address = after.connection.remote.clone().unwrap();
        let address = address.split(':').next().unwrap();
        for (before, after) in before.advice.iter().zip(after.advice.iter()) {
            let before = format!("{before:?}").replace("10.23.77.138", address);
            assert_eq!(before, format!("{after:?}"));
        }
    }
    let mut foreign = incidents::hijacked();
    Arc::make_mut(&mut foreign.advice)[0].command =
        Some("ssh \"root@db.acme.example\" -- systemctl restart acme".to_owned());
    foreign.started_at = "acme".to_owned();
    foreign.probe.as_mut().unwrap().handler = "acme".to_owned();
    foreign.service.as_mut().unwrap().protocol = "acme".to_owned();
    Redactor::new([7; 32]).incident(&mut foreign);
    assert!(!format!("{foreign:?}").contains("acme"), "{foreign:?}");
}
