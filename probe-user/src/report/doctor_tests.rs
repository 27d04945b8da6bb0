use super::*;
use crate::doctor::samples;

fn everything(doctor: &Doctor) -> String {
    let mut out = String::new();
    for (width, colour) in [(80, false), (120, false), (80, true)] {
        out += &format!("===== {width} columns{}\n", if colour { ", colour" } else { "" });
        out += &page(doctor, TextStyle { colour, width }).replace('\u{1b}', "ESC");
    }
    out
}

#[test]
fn everything_works() {
    insta::assert_snapshot!(everything(&samples::complete()));
}

#[test]
fn reduced() {
    insta::assert_snapshot!(everything(&samples::reduced()));
}

#[test]
fn nothing_can_be_loaded() {
    insta::assert_snapshot!(everything(&samples::impossible()));
}

#[test]
fn unknown_is_null_in_json_and_never_left_out() {
    let mut line = Vec::new();
    crate::report::json::write_doctor(&mut line, &samples::impossible()).unwrap();
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(parsed["schema"], "portclash.doctor/v1");
    assert_eq!(parsed["status"], "missing");
    assert_eq!(parsed["needs"][0]["way"], serde_json::Value::Null);
    let lockdown =
        parsed["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == "lockdown");
    assert_eq!(lockdown.unwrap()["value"], serde_json::Value::Null);
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for doctor in [samples::complete(), samples::reduced(), samples::impossible()] {
        for width in [80, 100, 120] {
            for line in page(&doctor, TextStyle { colour: false, width }).lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
                assert_eq!(line.trim_end(), line, "no trailing blanks");
            }
        }
    }
}

#[test]
fn what_the_kernel_says_cannot_steer_the_terminal() {
    let mut doctor = samples::reduced();
    let evil = "\u{1b}]0;owned\u{7}\n".to_owned();
    doctor.failure = Some(evil.clone());
    doctor.needs[0].refused[0].why.clone_from(&evil);
    doctor.findings[0].value = Some(evil);
    let text = page(&doctor, TextStyle { colour: false, width: 80 });
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
}
