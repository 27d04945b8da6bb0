//! What the guest tells the machine it runs on, line by line over the second serial port: `| TEXT` for people,
//! `= NAME ok|failed SECONDS` for a scenario, `! STATUS` as the last line. `xtask/src/vm` reads it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

const PORT: &str = "/dev/ttyS1";

/// Shows lines to people.
pub fn say(text: &str) {
    let mut lines = String::new();
    for line in text.split('\n') {
        lines.push_str("| ");
        lines.push_str(line);
        lines.push('\n');
    }
    send(&lines);
}

/// Reports the result of a scenario.
pub fn result(name: &str, passed: bool, took: Duration) {
    let verdict = if passed { "ok" } else { "failed" };
    send(&format!("= {name} {verdict} {:.1}\n", took.as_secs_f64()));
}

/// The last line: nothing is read after it.
pub fn end(status: i32) {
    send(&format!("! {status}\n"));
}

fn send(lines: &str) {
    static PORT: OnceLock<Mutex<File>> = OnceLock::new();
    let port = PORT.get_or_init(|| Mutex::new(open()));
    let mut port = port.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // There is nobody left to tell if this fails; the machine outside sees that the end line is missing.
    let _ = port.write_all(lines.as_bytes());
    let _ = nix::sys::termios::tcdrain(&*port);
}

/// The serial port without the terminal's changes to line ends; standard error (the console) without a port.
fn open() -> File {
    let port = OpenOptions::new().write(true).read(true).open(PORT);
    let Ok(port) = port else { return File::from(stderr_copy()) };
    if let Ok(mut settings) = tcgetattr(&port) {
        cfmakeraw(&mut settings);
        let _ = tcsetattr(&port, SetArg::TCSANOW, &settings);
    }
    port
}

fn stderr_copy() -> std::os::fd::OwnedFd {
    use std::os::fd::AsFd;
    std::io::stderr().as_fd().try_clone_to_owned().unwrap_or_else(|_| std::process::exit(1))
}
