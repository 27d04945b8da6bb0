//! The virtual machine: a Debian kernel under emulation, whose PID 1 is the lab's own program.
//!
//! Console output goes to a log file. What the guest has to say comes line by line over a second serial port:
//! `| TEXT` is for people, `= NAME ok|failed SECONDS` is the result of a scenario, `! STATUS` is the last line.

pub(crate) mod cli;
mod image;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::setup::kernels::Kernel;
pub(crate) use image::{Cgroups, Guest, Kind};

/// A line from the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Output for people.
    Text(String),
    /// A scenario is over.
    Result { name: String, passed: bool, seconds: String },
    /// The guest is done.
    End(i32),
}

impl Line {
    /// `None` for a line that is not of this form: the firmware and the kernel may write to the port as well.
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end_matches(['\n', '\r']);
        let (kind, rest) = line.split_at_checked(1)?;
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match kind {
            "|" => Some(Self::Text(rest.to_owned())),
            "!" => rest.parse().ok().map(Self::End),
            "=" => {
                let mut words = rest.split(' ');
                let (name, verdict, seconds) = (words.next()?, words.next()?, words.next()?);
                let passed = verdict == "ok";
                Some(Self::Result { name: name.to_owned(), passed, seconds: seconds.to_owned() })
            }
            _ => None,
        }
    }
}

/// Boots the guest and hands each of its lines to `each`. Returns the status that the guest ended with; a guest that
/// ends without one (PID 1 died, the deadline passed) is an error that shows the end of its console.
pub(crate) fn boot(
    kernel: &Kernel,
    guest: &Guest,
    deadline: Duration,
    mut each: impl FnMut(&Line) -> Result<()>,
) -> Result<i32> {
    let console =
        crate::workspace::set_up("lab").join(format!("console-{}{}.log", kernel.name, guest.kind.suffix()));
    let image = image::write(kernel, guest)?;
    let end = Instant::now() + deadline;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut machine = start(&kernel.image()?, &image, &console, guest.kind)?;
        let output = machine.0.stdout.take().context("the machine has no output")?;
        let lines = read_lines(output);
        let mut any = false;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Line::End(status)) => return Ok(status),
                Ok(line) => each(&line)?,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the guest was not done after {} s\n{}", deadline.as_secs(), tail(&console));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) if !any && attempt < BOOTS => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the guest died\n{}", tail(&console)),
            }
            any = true;
        }
        eprintln!("the guest died before its first word; booting it again\n{}", tail(&console));
    }
}

/// A kernel that patches itself while it boots (jump labels, alternatives) now and then trips over its own breakpoint under
/// emulation with several processors, and panics within the first seconds, before anything of ours runs.
const BOOTS: u32 = 3;

/// A machine that is gone when this value is.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(kernel: &Path, image: &Path, console: &Path, kind: Kind) -> Result<Machine> {
    let size = std::fs::metadata(image).with_context(|| format!("cannot read {}", image.display()))?.len();
    let memory = kind.memory(size).to_string();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi", "-smp", "2", "-m", &memory]);
    qemu.args(["-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    // no_timer_check: on a busy host the emulated timer may miss what the kernel counts at boot, and it would panic.
    // softlockup_panic: a guest that is stuck ends, and shows where, instead of running until its deadline.
    let words = format!(
        "console=ttyS0 panic=-1 softlockup_panic=1 watchdog_thresh=60 quiet loglevel=5 no_timer_check rdinit=/init{}",
        kind.boot_words()
    );
    qemu.arg("-append").arg(words);
    qemu.args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"]);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: prctl(PR_SET_PDEATHSIG) takes two numbers, touches no memory and is async-signal-safe.
    unsafe {
        qemu.pre_exec(|| {
            // The machine must not outlive this program, however that one ends.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let child = qemu.spawn().with_context(|| format!("cannot start: {}", command::shown(&qemu)))?;
    Ok(Machine(child))
}

fn read_lines(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            if let Some(line) = Line::parse(&String::from_utf8_lossy(&line))
                && sender.send(line).is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// The last lines of the console, for an error message.
fn tail(console: &Path) -> String {
    let text = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(40);
    let last = lines.get(from..).unwrap_or_default().join("\n");
    format!("end of {}:\n{last}", console.display())
}

/// A program of this machine, looked for in the usual places whatever PATH says.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_guest_are_told_from_noise() {
        assert_eq!(Line::parse("| two  words\r\n"), Some(Line::Text("two  words".into())));
        assert_eq!(Line::parse("|"), Some(Line::Text(String::new())));
        assert_eq!(Line::parse("! 3"), Some(Line::End(3)));
        let result = Line::Result { name: "seed".into(), passed: false, seconds: "2.1".into() };
        assert_eq!(Line::parse("= seed failed 2.1"), Some(result));
        assert_eq!(Line::parse("SeaBIOS (version 1.16)"), None);
        assert_eq!(Line::parse(""), None);
        assert_eq!(Line::parse("é"), None);
    }
}
