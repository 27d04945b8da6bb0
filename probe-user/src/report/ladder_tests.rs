use super::*;

fn round(n: i64) -> Vec<Arrow> {
    let arrow = |at, from, to, kind| Arrow {
        at: Some(at),
        from,
        to,
        kind,
        label: format!("at {at}"),
        place: "a.pcap".to_owned(),
    };
    let start = n * 1_000_000_000;
    vec![
        arrow(start, Role::Client, Role::Server, ArrowKind::Syn),
        arrow(start + 1000, Role::Server, Role::Client, ArrowKind::SynAck),
        arrow(start + 2000, Role::Client, Role::Server, ArrowKind::Reset),
    ]
}

fn ladder(rounds: i64) -> Ladder {
    let party = |role| Party { role, title: String::new(), address: None };
    Ladder {
        parties: [Role::Client, Role::Ipvs, Role::Server].map(party).into(),
        arrows: (0..rounds).flat_map(round).collect(),
    }
}

fn notes(layout: &Layout) -> Vec<&str> {
    let mut notes = Vec::new();
    for row in &layout.rows {
        if let Row::Note(text) = row {
            notes.push(text.as_str());
        }
    }
    notes
}

#[test]
fn two_rounds_are_drawn_and_of_more_the_first_and_the_last() {
    assert_eq!(Layout::of(&ladder(2)).rows.len(), 6);
    let layout = Layout::of(&ladder(3));
    assert_eq!((layout.rows.len(), notes(&layout)), (7, vec!["the same once more, the last at +1.000000 s"]));
    let layout = Layout::of(&ladder(500));
    assert_eq!(
        (layout.rows.len(), notes(&layout)),
        (7, vec!["the same 498 times more, the last at +498.000000 s"])
    );
}

#[test]
fn rounds_that_differ_are_all_drawn_until_there_are_too_many() {
    let mut ladder = ladder(100);
    // Every second one lacks its reset.
    ladder.arrows =
        ladder.arrows.into_iter().enumerate().filter(|(n, _)| n % 6 != 5).map(|(_, arrow)| arrow).collect();
    let layout = Layout::of(&ladder);
    assert_eq!(layout.rows.len(), MAX_ROWS + 1);
    assert_eq!(notes(&layout), ["190 more packets are not drawn"]);
}

#[test]
fn an_arrow_without_a_column_is_counted() {
    let mut ladder = ladder(1);
    ladder.arrows[1].to = Role::Backend;
    let layout = Layout::of(&ladder);
    assert_eq!(notes(&layout), ["1 packets of unknown parties are not drawn"]);
    assert!(Layout::of(&Ladder::default()).is_empty());
}

#[test]
fn what_form_and_colour_say_is_said_in_words_too() {
    let mut ladder = ladder(1);
    ladder.arrows[1].at = None;
    let labels: Vec<String> = Layout::of(&ladder)
        .rows
        .into_iter()
        .filter_map(|row| match row {
            Row::Arrow { label, .. } => Some(label),
            Row::Note(_) => None,
        })
        .collect();
    assert_eq!(labels, ["at 0", "at 1000 (not seen)", "RESET: at 2000"]);
}

#[test]
fn offsets_are_exact_to_the_microsecond() {
    assert_eq!(offset_text(263_999), "+0.000263 s");
    assert_eq!(offset_text(-1_500_000_000), "-1.500000 s");
    assert_eq!(offset_text(i64::MIN), "-9223372036.854775 s");
}
