use super::*;
use crate::report::analysis_samples as samples;

fn print(analysis: &Analysis, width: usize, colour: bool, signs: Signs) -> String {
    report(analysis, TextStyle { colour, width }, signs).replace('\u{1b}', "ESC")
}

fn everything(analysis: &Analysis) -> String {
    let views = [
        ("80 columns", 80, false, Signs::Unicode),
        ("120 columns", 120, false, Signs::Unicode),
        ("80 columns, ASCII", 80, false, Signs::Ascii),
        ("80 columns, colour", 80, true, Signs::Unicode),
        ("50 columns", 50, false, Signs::Unicode),
    ];
    let view =
        |(title, width, colour, signs)| format!("===== {title}\n{}", print(analysis, width, colour, signs));
    views.map(view).concat()
}

macro_rules! snapshots {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(everything(&samples::$name()));
        }
    )*};
}
snapshots!(seed proven other_reset nothing);

#[test]
fn ascii_is_ascii_whatever_comes_from_outside() {
    let mut analysis = samples::proven();
    analysis.notes.push("Grüße, 世界 \u{1b}[31m".to_owned());
    analysis.incidents[0].ladder.parties[0].title = "プローブ".to_owned();
    let text = print(&analysis, 80, false, Signs::Ascii);
    assert!(text.is_ascii());
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn drawings_fit_the_terminal() {
    for (_, analysis) in samples::all() {
        for width in [60, 80, 120] {
            let text = print(&analysis, width, false, Signs::Unicode);
            let drawn = text.lines().filter(|line| line.contains(['│', '▶', '◀', '⋮']));
            for line in drawn {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn a_terminal_cannot_be_steered_from_any_field() {
    let evil = "\u{1b}[2J\u{202e}x\n".to_owned();
    let mut analysis = samples::seed();
    analysis.notes.push(evil.clone());
    analysis.clocks.push(evil.clone());
    analysis.inputs[0].name.clone_from(&evil);
    analysis.inputs[1].skipped.push(evil.clone());
    let first = &mut analysis.incidents[0];
    first.timeline[0].text.clone_from(&evil);
    first.timeline[1].source.clone_from(&evil);
    first.ladder.arrows[0].label.clone_from(&evil);
    first.ladder.parties[0].title.clone_from(&evil);
    first.ladder.parties[0].address = Some(evil);
    let text = report(&analysis, TextStyle { colour: false, width: 80 }, Signs::Unicode);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(!text.contains('\u{202e}'));
}
