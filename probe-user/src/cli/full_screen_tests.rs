use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::tcgetattr;
use ratatui::crossterm::terminal::is_raw_mode_enabled;

use super::*;

const OTHER: &str = "the end of another thread";
const OWN: &str = "the end of the view";

#[test]
#[ignore = "needs a terminal that it may leave in any state; the test below gives it one"]
fn a_view_that_panics() {
    let mut screen = FullScreen::take().unwrap();
    screen.terminal().draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
    assert!(is_raw_mode_enabled().unwrap() && is_taken());
    thread::spawn(|| panic!("{OTHER}")).join().unwrap_err();
    assert!(is_raw_mode_enabled().unwrap() && is_taken(), "the view goes on");
    panic!("{OWN}");
}

#[test]
fn a_panic_gives_the_terminal_back_and_is_told_after_the_view() {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let test = format!("{}::a_view_that_panics", module_path!().split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--ignored", "--nocapture"])
        .env("RUST_BACKTRACE", "0")
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    let mut master = File::from(pty.master);
    let reader = thread::spawn(move || {
        let mut written = Vec::new();
        // Ends with an error when nobody has the other end any more.
        let _ = master.read_to_end(&mut written);
        String::from_utf8(written).unwrap()
    });
    child.wait().unwrap();
    let after = tcgetattr(&pty.slave).unwrap();
    drop(pty.slave);
    let written = reader.join().unwrap();
    assert_eq!(after, before, "raw mode is off");
    let place = |what: &str| written.rfind(what).unwrap_or_else(|| panic!("{what:?} is not in {written:?}"));
    let left = place("\u{1b}[?1049l");
    assert!(place("\u{1b}[?1049h") < place("drawn") && place("drawn") < left, "{written:?}");
    let shown = written.find("\u{1b}[?25h").unwrap_or_else(|| panic!("no cursor in {written:?}"));
    assert!(place("\u{1b}[?25l") < shown, "{written:?}");
    assert!(left.max(shown) < place(OTHER).min(place(OWN)), "{written:?}");
}
