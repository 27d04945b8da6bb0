use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::ports::samples;

fn drawn(screen: &mut Screen, report: &Report, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame, report)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width)).map(|cells| {
        cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn press(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            key => KeyCode::Char(key),
        };
        assert_eq!(screen.key(KeyEvent::new(code, KeyModifiers::NONE)), After::Draw);
    }
}

#[test]
fn at_80_columns() {
    insta::assert_snapshot!(drawn(&mut Screen::default(), &samples::report(), 80, 24));
}

#[test]
fn at_120_columns() {
    insta::assert_snapshot!(drawn(&mut Screen::default(), &samples::report(), 120, 40));
}

#[test]
fn at_160_columns() {
    insta::assert_snapshot!(drawn(&mut Screen::default(), &samples::report(), 160, 12));
}

#[test]
fn a_terminal_that_is_too_small_says_so_and_panics_at_no_size() {
    let small = drawn(&mut Screen::default(), &samples::report(), 60, 5);
    let words = small.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("needs 80 columns and 6 lines; this terminal has 60 and 5"), "{small}");
    for width in [1, 2, 40, 79, 80, 81, 113, 114, 128, 137, 150, 200] {
        for height in [1, 2, 5, 6, 7, 50] {
            drawn(&mut Screen::default(), &samples::report(), width, height);
        }
    }
}

#[test]
fn keys_sort_and_the_sorted_row_comes_first() {
    let report = samples::report();
    let mut screen = Screen::default();
    let first = |screen: &mut Screen| drawn(screen, &report, 120, 24).lines().nth(3).unwrap().to_owned();
    assert!(first(&mut screen).contains("10.0.0.5:443"), "the highest rate");
    press(&mut screen, "SS");
    assert_eq!(screen.sort, Sort::Collisions);
    assert!(first(&mut screen).contains("kubelet"));
    press(&mut screen, "s");
    assert_eq!(screen.sort, Sort::Failed);
    press(&mut screen, "s");
    assert_eq!(screen.sort, Sort::Rate, "around");
}

#[test]
fn a_filter_is_typed_corrected_kept_and_cleared() {
    let report = samples::report();
    let mut screen = Screen::default();
    press(&mut screen, "/NODE-x\u{8}");
    let text = drawn(&mut screen, &report, 80, 24);
    assert!(text.contains("rows: 1 of 6  filter: NODE-_"), "{text}");
    assert!(text.contains("169.254.20.10:8080") && !text.contains("kubelet"), "{text}");
    press(&mut screen, "\n");
    assert!(drawn(&mut screen, &report, 80, 24).contains("filter: NODE-\n"));
    press(&mut screen, "\u{1b}");
    assert!(drawn(&mut screen, &report, 80, 24).contains("rows: 6\n"));
    press(&mut screen, "/900\n");
    assert!(drawn(&mut screen, &report, 80, 24).contains("kubelet"), "a pid");
    press(&mut screen, "/zzz\n");
    assert!(drawn(&mut screen, &report, 80, 24).contains("no row matches"));
}

#[test]
fn q_and_the_interrupt_key_leave_and_in_a_filter_q_is_a_letter() {
    let mut screen = Screen::default();
    assert_eq!(screen.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)), After::Quit);
    press(&mut screen, "/q");
    assert_eq!(screen.filter, "q");
    assert_eq!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), After::Quit);
}

#[test]
fn scrolling_stays_within_the_rows_whatever_is_resized() {
    let report = samples::report();
    let mut screen = Screen::default();
    press(&mut screen, "jjjjjjjjjj");
    let text = drawn(&mut screen, &report, 80, 7);
    assert_eq!(screen.top, 4, "the last two rows and the pod of the first of them take three lines");
    assert!(text.lines().nth(4).unwrap().contains("pod default/evil"), "{text}");
    assert!(text.lines().nth(5).unwrap().contains("10.0.0.7:9100"), "{text}");
    let text = drawn(&mut screen, &report, 80, 6);
    assert!(text.contains("10.0.0.8:6379") && !text.contains("10.0.0.7:9100"), "it is not moved:\n{text}");
    drawn(&mut screen, &report, 80, 40);
    assert_eq!(screen.top, 0, "all fit");
}

#[test]
fn pages_are_as_long_as_the_rows_that_fit_with_their_pods() {
    let report = samples::report();
    let mut screen = Screen::default();
    let page = |screen: &mut Screen, code| {
        assert_eq!(screen.key(KeyEvent::new(code, KeyModifiers::NONE)), After::Draw);
        drawn(screen, &report, 80, 7)
    };
    let text = drawn(&mut screen, &report, 80, 7);
    assert!(
        text.contains("pod shop/web-0") && text.contains("evil\\u") && !text.contains("kubelet"),
        "{text}"
    );
    let text = page(&mut screen, KeyCode::PageDown);
    assert_eq!(screen.top, 2);
    assert!(text.contains("kubelet") && text.contains("pod kube-system/node-local-dns-x7k2p"), "{text}");
    page(&mut screen, KeyCode::PageUp);
    assert_eq!(screen.top, 0);
}

#[test]
fn a_pod_is_filtered_by_its_name_and_namespace() {
    let report = samples::report();
    for filter in ["X7K2P", "kube-system/node-local"] {
        let mut screen = Screen::default();
        press(&mut screen, &format!("/{filter}\n"));
        let text = drawn(&mut screen, &report, 80, 24);
        assert!(text.contains("rows: 1 of 6") && text.contains("169.254.20.10:8080"), "{filter}: {text}");
    }
}

#[test]
fn why_pods_are_not_named_is_on_the_screen() {
    let mut report = samples::report();
    report.unnamed_pods = Some("kubelet: \u{1b}401".into());
    let text = drawn(&mut Screen::default(), &report, 80, 24);
    assert!(text.contains("rows: 6  PODS NOT NAMED: kubelet: \\u{1b}401"), "{text}");
}

#[test]
fn the_name_of_a_pod_that_is_longer_than_the_screen_keeps_its_end() {
    let mut report = samples::report();
    let name = format!("{}-2x4vq", "a".repeat(200));
    let owner = report.rows[1].owner.as_mut().unwrap();
    owner.pod.as_mut().unwrap().name = name;
    let text = drawn(&mut Screen::default(), &report, 80, 24);
    let line = text.lines().find(|line| line.contains("pod kube-system/aaa")).unwrap();
    assert!(line.contains('…') && line.ends_with("a-2x4vq") && line.chars().count() == 80, "{line}");
}

#[test]
fn what_is_incomplete_is_on_the_screen() {
    let mut report = samples::report();
    report.summary.incomplete = vec!["ports: 12 lost (evicted)".into(), "other".into()];
    let text = drawn(&mut Screen::default(), &report, 80, 24);
    assert!(text.contains("INCOMPLETE (+1): ports: 12 lost (evicted)"), "{text}");
}

#[test]
fn names_from_outside_cannot_steer_the_terminal() {
    let text = drawn(&mut Screen::default(), &samples::report(), 120, 40);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(text.contains("evil\\u{1b}[31m") || text.contains("evil\\u{1b}"), "{text}");
}
