use super::*;
use crate::exposure::samples;

fn everything(check: &Check) -> String {
    let mut out = String::new();
    for (width, colour) in [(80, false), (120, false), (80, true)] {
        out += &format!("===== {width} columns{}\n", if colour { ", colour" } else { "" });
        out += &page(check, TextStyle { colour, width }).replace('\u{1b}', "ESC");
    }
    out
}

#[test]
fn pages() {
    for (name, check) in samples::reports() {
        insta::assert_snapshot!(name.replace([' ', '\'', ','], "_"), everything(&check));
    }
}

#[test]
fn json_has_the_words_of_the_contract() {
    let lines: Vec<String> = samples::reports()
        .into_iter()
        .filter(|(name, _)| name.starts_with("the incident") || name.starts_with("ranges"))
        .map(|(_, check)| serde_json::to_string_pretty(&check).unwrap())
        .collect();
    insta::assert_snapshot!("json", lines.join("\n"));
}

#[test]
fn no_line_is_wider_than_the_terminal_but_for_commands() {
    for (_, check) in samples::reports() {
        for width in [80, 100, 120] {
            for line in page(&check, TextStyle { colour: false, width }).lines() {
                let command = line.starts_with("    sysctl -w ")
                    || line.starts_with("    echo ")
                    || line.starts_with("    r=$(");
                assert!(command || line.chars().count() <= width, "{width}: {line}");
                assert_eq!(line.trim_end(), line, "no trailing blanks");
            }
        }
    }
}

#[test]
fn names_from_outside_cannot_steer_the_terminal() {
    let mut node = samples::seed();
    let evil = "\u{1b}]0;owned\u{7}\n";
    for service in node.services.iter_mut().flatten() {
        service.name = evil.to_owned();
    }
    node.what = evil.to_owned();
    node.kernel = Some(evil.to_owned());
    node.ephemeral.source = evil.to_owned();
    node.incomplete.push(evil.to_owned());
    let check = crate::exposure::check::judge(&node);
    let text = page(&check, TextStyle { colour: false, width: 80 });
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(crate::report::check_script::script(&check).chars().all(|c| c == '\n' || !c.is_control()));
}
