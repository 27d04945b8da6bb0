use super::*;
use crate::report::samples;

fn line(incident: &Incident) -> String {
    let mut out = Vec::new();
    assert!(write_incident(&mut out, incident).unwrap());
    String::from_utf8(out).unwrap()
}

#[test]
fn one_incident_is_one_line_whatever_its_strings_hold() {
    let mut incident = samples::hijacked();
    incident.owner.comm = Some("two\nlines\u{2028}\r".to_owned());
    let line = line(&incident);
    assert_eq!(line.matches('\n').count(), 1);
    assert!(line.ends_with("}\n"));
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["owner"]["comm"], "two\nlines\u{2028}\r");
}

#[test]
fn the_words_of_the_contract() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&samples::hijacked()).unwrap());
}

#[test]
fn unknown_is_null_and_never_left_out() {
    let line = line(&samples::exhaustion());
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    for path in ["/connection/local", "/connection/isn", "/service", "/probe", "/hijack", "/owner/pod"] {
        assert_eq!(parsed.pointer(path), Some(&serde_json::Value::Null), "{path}");
    }
}

#[test]
fn a_false_alarm_is_not_written() {
    let mut out = Vec::new();
    assert!(!write_incident(&mut out, &samples::none()).unwrap());
    assert!(out.is_empty());
}

#[test]
fn the_summary_is_one_line_with_its_verdicts_by_name() {
    let mut out = Vec::new();
    write_summary(&mut out, &samples::summary()).unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(parsed["schema"], "portclash.summary/v1");
    assert_eq!(parsed["verdicts"], serde_json::json!({"collision": 3, "other_reset": 1, "none": 2}));
    assert_eq!(parsed["incomplete"], serde_json::json!([]));
    assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1));
}
