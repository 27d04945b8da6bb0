//! A kubelet's log of 100 MB, scanned for failed probes, next to `grep -c "Probe failed"` on the same file.
//!
//! `cargo xtask bench log` runs it. Arguments: rounds, and where to keep the files. Prints one object of JSON per file.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use nix::sys::resource::{UsageWho, getrusage};
use probe_user::kubelet_log::{LineParser, Times, YearRule, scan_reader};
use serde_json::{Value, json};

const SIZE: usize = 100_000_000;

/// What every 50th line is, or every line.
const FAILED: &str = "prober.go:107] \"Probe failed\" probeType=\"Readiness\" pod=\"default/nginx-5dfb7c896c-x2q2w\" \
    podUID=\"3daea6ef-f286-43f2-8825-51edaa3994d3\" containerName=\"nginx\" probeResult=\"failure\" output=\"Get \\\"http://10.23.77.138:80/\\\": \
    context deadline exceeded (Client.Timeout exceeded while awaiting headers)\"";
const OTHERS: [&str; 3] = [
    "kubelet.go:2453] \"SyncLoop (PLEG): event for pod\" pod=\"default/web-0\" event={\"ID\":\"92d60c48-6b22-11e7-a1ec-0a58ac1f0a2c\",\"Type\":\
     \"ContainerStarted\",\"Data\":\"0f3c8c9d6c2b7d1e5a4f3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e\"}",
    "reconciler_common.go:258] \"operationExecutor.VerifyControllerAttachedVolume started for volume \\\"kube-api-access-x2q2w\\\" \
     (UniqueName: \\\"kubernetes.io/projected/92d60c48-6b22-11e7-a1ec-0a58ac1f0a2c-kube-api-access\\\") pod \\\"web-0\\\"\"",
    "scope.go:117] \"RemoveContainer\" containerID=\"0f3c8c9d6c2b7d1e5a4f3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e\"",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [rounds, folder] = arguments.as_slice() else {
        eprintln!("arguments: ROUNDS FOLDER");
        return;
    };
    let rounds: usize = rounds.parse().unwrap();
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, wrap, every) in [
        ("plain", plain as fn(&str) -> String, 50),
        ("CRI", cri, 50),
        ("docker json-file", docker, 50),
        ("journalctl -o json", journal, 50),
        ("plain, every line a failed probe", plain, 1),
    ] {
        let path = folder.join("kubelet.log");
        let lines = write(&path, wrap, every);
        println!("{}", measure(name, &path, rounds, lines));
        std::fs::remove_file(path).unwrap();
    }
}

fn plain(line: &str) -> String {
    line.to_owned()
}

fn cri(line: &str) -> String {
    format!("2022-09-15T19:09:04.534948123Z stderr F {line}")
}

fn docker(line: &str) -> String {
    json!({"log": format!("{line}\n"), "stream": "stderr", "time": "2022-09-15T19:09:04.534948123Z"})
        .to_string()
}

fn journal(line: &str) -> String {
    json!({
        "__CURSOR": "s=0639c7becbc9430fa4bb2a1f2a0c5ad7;i=1b4e;b=5ef9b1d8f0c94e2c8a1f;m=2d1f8e1;t=5e8bb7f3a1c2d;x=9e1f",
        "__REALTIME_TIMESTAMP": "1663268944534948", "__MONOTONIC_TIMESTAMP": "47315169", "PRIORITY": "6",
        "_BOOT_ID": "5ef9b1d8f0c94e2c8a1f6b7d8e9f0a1b", "_MACHINE_ID": "0639c7becbc9430fa4bb2a1f2a0c5ad7", "_HOSTNAME": "node-a",
        "_TRANSPORT": "stdout", "SYSLOG_FACILITY": "3", "SYSLOG_IDENTIFIER": "kubelet", "_PID": "607529", "_UID": "0", "_GID": "0",
        "_COMM": "kubelet", "_EXE": "/usr/bin/kubelet", "_SYSTEMD_CGROUP": "/system.slice/kubelet.service",
        "_SYSTEMD_UNIT": "kubelet.service", "_SYSTEMD_SLICE": "system.slice", "MESSAGE": line,
    })
    .to_string()
}

/// Writes the log and returns how many lines it has.
fn write(path: &Path, wrap: fn(&str) -> String, every: usize) -> usize {
    let wrapped: Vec<String> = OTHERS
        .iter()
        .chain([&FAILED])
        .map(|text| wrap(&format!("I0915 19:09:04.534948  607529 {text}")) + "\n")
        .collect();
    let (failed, others) = wrapped.split_last().unwrap();
    let mut out = BufWriter::new(File::create(path).unwrap());
    let (mut size, mut lines) = (0, 0);
    while size < SIZE {
        let line = if lines % every == 0 { failed } else { others.get(lines % others.len()).unwrap() };
        out.write_all(line.as_bytes()).unwrap();
        size += line.len();
        lines += 1;
    }
    out.flush().unwrap();
    lines
}

/// The two in turns, so that both see the same machine.
fn measure(name: &str, path: &Path, rounds: usize, lines: usize) -> Value {
    let (mut scans, mut greps) = (Vec::new(), Vec::new());
    let mut found = 0;
    for _ in 0..=rounds {
        let begin = Spent::now(UsageWho::RUSAGE_SELF);
        found = scan(path);
        scans.push(begin.elapsed(UsageWho::RUSAGE_SELF));
        let begin = Spent::now(UsageWho::RUSAGE_CHILDREN);
        let output =
            Command::new("grep").args(["-c", "Probe failed"]).arg(path).env("LC_ALL", "C").output().unwrap();
        greps.push(begin.elapsed(UsageWho::RUSAGE_CHILDREN));
        let counted: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        assert_eq!(found, counted, "{name}: every failure is found");
    }
    // The first round warms the file.
    let (scan, grep) = (median(scans.split_off(1)), median(greps.split_off(1)));
    json!({
        "log": name, "bytes": SIZE, "lines": lines, "failures": found,
        "scan_ms": scan.wall.as_secs_f64() * 1000.0, "grep_ms": grep.wall.as_secs_f64() * 1000.0,
        "scan_cpu_ms": scan.cpu.as_secs_f64() * 1000.0, "grep_cpu_ms": grep.cpu.as_secs_f64() * 1000.0,
    })
}

fn scan(path: &Path) -> usize {
    let times = Times { zone: Some(TimeZone::UTC), year: YearRule::From(2022) };
    let parser = LineParser::new(Arc::from("kubelet.log"), times);
    scan_reader(File::open(path).unwrap(), "kubelet.log", parser).unwrap().0.len()
}

/// Time on the wall, and of the processor: other work on the machine changes the one more than the other.
#[derive(Clone, Copy)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

struct Began {
    wall: Instant,
    cpu: Duration,
}

impl Spent {
    fn now(who: UsageWho) -> Began {
        Began { wall: Instant::now(), cpu: cpu(who) }
    }
}

impl Began {
    fn elapsed(&self, who: UsageWho) -> Spent {
        Spent { wall: self.wall.elapsed(), cpu: cpu(who).saturating_sub(self.cpu) }
    }
}

fn cpu(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let micros =
        [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Duration::from_micros(u64::try_from(micros.iter().sum::<i64>()).unwrap())
}

/// Each median on its own.
fn median(all: Vec<Spent>) -> Spent {
    let middle = |of: fn(&Spent) -> Duration| {
        let mut times: Vec<Duration> = all.iter().map(of).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    Spent { wall: middle(|spent| spent.wall), cpu: middle(|spent| spent.cpu) }
}
