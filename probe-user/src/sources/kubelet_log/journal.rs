//! systemd's journal, through `journalctl`: its files have no other reader that is kept up to date.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::{IDLE, KubeletLogError, Outlet, now, scanner};
use crate::kubelet_log::Scanner;
use crate::serve::privileges::renounce_in_child;

/// Units that a kubelet runs in. journalctl takes them all, whether they exist or not.
const UNITS: [&str; 7] = [
    "kubelet",
    "k3s",
    "k3s-agent",
    "rke2-server",
    "rke2-agent",
    "snap.kubelet-eks.daemon",
    "snap.microk8s.daemon-kubelite",
];
const BLOCK: usize = 64 * 1024;
/// Longest time for the question whether there is anything.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to start journalctl again: the first wait, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// A journalctl that follows.
pub(super) struct Journal {
    unit: Option<String>,
    root: PathBuf,
    child: Child,
    scanner: Scanner,
}

impl Journal {
    pub(super) fn start(
        unit: Option<String>,
        root: &Path,
        zone: Option<TimeZone>,
    ) -> Result<Self, KubeletLogError> {
        let child = follow(unit.as_deref(), root).spawn().map_err(KubeletLogError::Journalctl)?;
        let scanner = scanner(&name(unit.as_deref()), zone);
        Ok(Self { unit, root: root.to_owned(), child, scanner })
    }

    pub(super) fn name(&self) -> String {
        name(self.unit.as_deref())
    }

    /// Follows until the task is ended, which ends the child too.
    pub(super) async fn run(mut self, out: Outlet) {
        let mut wait = BACKOFF.0;
        let mut said = false;
        loop {
            if self.read(&out).await {
                wait = BACKOFF.0;
            }
            let ended = self.ended().await;
            if !said {
                said = true;
                out.trouble(ended).await;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
            if let Ok(child) = follow(self.unit.as_deref(), &self.root).spawn() {
                self.child = child;
            }
        }
    }

    /// Reads until the child closes its output. Returns whether anything came.
    async fn read(&mut self, out: &Outlet) -> bool {
        let Some(mut stdout) = self.child.stdout.take() else { return false };
        read_all(&mut stdout, &mut self.scanner, out).await
    }

    /// Why it ended, for people.
    async fn ended(&mut self) -> String {
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = tokio::time::timeout(PATIENCE, stderr.take(1000).read_to_end(&mut said)).await;
        }
        let _ = self.child.start_kill();
        let status =
            self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = String::from_utf8_lossy(&said);
        let said = said.lines().next().map_or_else(String::new, |line| format!(" ({line})"));
        format!(
            "journalctl ended: {status}{said}; it is started again, the kubelet's lines are missing meanwhile. Give the log's file \
             with --kubelet-log PATH, or none with --kubelet-log none"
        )
    }
}

/// Feeds what comes to the scanner until the end.
async fn read_all(from: &mut (impl AsyncRead + Unpin), scanner: &mut Scanner, out: &Outlet) -> bool {
    let mut block = vec![0; BLOCK];
    let mut found = Vec::new();
    let mut any = false;
    loop {
        match tokio::time::timeout(IDLE, from.read(&mut block)).await {
            Ok(Ok(0) | Err(_)) => {
                scanner.restart(&mut found);
                out.put(&mut found);
                return any;
            }
            Ok(Ok(length)) => {
                any = true;
                scanner.not_after(now());
                scanner.feed(block.get(..length).unwrap_or_default(), &mut found);
            }
            // Nothing more belongs to the last record.
            Err(_) => scanner.flush(&mut found),
        }
        out.put(&mut found);
    }
}

fn name(unit: Option<&str>) -> String {
    unit.map_or_else(|| "journal".to_owned(), |unit| format!("journal:{unit}"))
}

/// Whether the journal has anything of a kubelet.
pub(super) async fn has_kubelet(root: &Path) -> bool {
    let mut command = journalctl(None, root);
    command.args(["-n", "1"]).stderr(Stdio::null());
    let answer = tokio::time::timeout(PATIENCE, command.output()).await;
    answer.is_ok_and(|output| output.is_ok_and(|output| output.stdout.starts_with(b"{")))
}

fn follow(unit: Option<&str>, root: &Path) -> Command {
    let mut command = journalctl(unit, root);
    command.args(["-f", "-n", "0"]).stderr(Stdio::piped());
    command
}

/// `-a`: long messages too. The child ends with this process, or at the latest with the next line.
fn journalctl(unit: Option<&str>, root: &Path) -> Command {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "-q", "-a", "-o", "json"]);
    let units = unit.map_or_else(|| UNITS.to_vec(), |unit| vec![unit]);
    for unit in units {
        command.args(["-u", unit]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    if root != Path::new("/") {
        run_in(&mut command, root.to_owned());
    }
    // Its files belong to root or to a group of the caller's; it needs none of the tracer's capabilities.
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated unless one fails.
    unsafe { command.pre_exec(renounce_in_child) };
    command
}

/// The node's own journalctl, which is sure to read the node's journal; an image need not have one.
fn run_in(command: &mut Command, root: PathBuf) {
    let change = move || {
        nix::unistd::chroot(&root)?;
        nix::unistd::chdir("/")?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made, chroot(2) and chdir(2), on a path that was
    // allocated before; nix makes a C string of it on the stack.
    unsafe { command.pre_exec(change) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_and_the_given_one() {
        let arguments = |unit| {
            let command = follow(unit, Path::new("/"));
            command
                .as_std()
                .get_args()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(arguments(Some("k3s")), "--no-pager -q -a -o json -u k3s -f -n 0");
        assert!(arguments(None).contains("-u kubelet -u k3s -u k3s-agent"));
    }
}
