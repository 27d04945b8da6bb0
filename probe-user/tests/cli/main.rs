//! The `portclash` command as a user runs it: messages, exit statuses, faults. What loads programs into the kernel
//! runs only where `portclash doctor` says that it can, and says so where it does not run.

// Helpers of tests may fail as tests do.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod analyze;
mod check;
mod live;
mod packets;
mod ports;
mod serve;
mod serve_end;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn portclash(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portclash"));
    command.args(args).env("NO_COLOR", "1").env_remove("PORTCLASH_LOG").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    portclash(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Status 2 and one message of one paragraph that holds every one of `words`.
fn refused(output: &Output, words: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty(), "results although it failed");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.starts_with("portclash: "), "{message}");
    for word in words {
        assert!(message.contains(word), "\"{word}\" is not in: {message}");
    }
}

#[test]
fn wrong_arguments_are_named_with_what_would_be_right() {
    let cases: &[(&[&str], &str)] = &[
        (&["trace", "--duration", "5x"], "500ms, 30s, 10m or 2h"),
        (&["trace", "--port", "0"], "--port"),
        (&["trace", "--port", "70000"], "--port"),
        (&["trace", "--count", "0"], "--count"),
        (&["trace", "--remote", "node-a"], "10.0.0.1:80"),
        (&["trace", "--netns", "0"], "/run/netns/NAME"),
        (&["trace", "--hooks", "magic"], "stable"),
        (&["trace", "--write", "x.pcapng", "--write-size", "5X"], "500K, 10M or 1G"),
        (&["trace", "--write-size", "5M"], "--write"),
        (&["trace", "--write", "x.pcapng", "--write-files", "2"], "--write-size"),
        (&["doctor", "--output", "yaml"], "json"),
        (&["trase"], "trace"),
        (&[], "trace"),
    ];
    for (args, words) in cases {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_names_every_command_and_the_exit_statuses() {
    let output = run(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for word in ["trace", "ports", "doctor", "completions", "Exit status"] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn a_file_for_packets_that_cannot_be_made_is_named() {
    refused(&run(&["trace", "--write", "/nowhere/x.pcapng"]), &["/nowhere/x.pcapng", "No such file"]);
}

#[test]
fn a_namespace_that_cannot_be_used_is_named() {
    refused(&run(&["trace", "--netns", "/nowhere"]), &["/nowhere", "No such file", "/run/netns/NAME"]);
    refused(&run(&["trace", "--netns", "/etc/passwd"]), &["/etc/passwd is not a namespace", "process id"]);
}

/// A kernel without type information: an empty folder in place of the real one, in a mount namespace of its own.
#[test]
fn without_type_information_trace_says_what_kernel_is_needed() {
    let mut command = Command::new("unshare");
    let script =
        "mount -t tmpfs none /sys/kernel/btf || exit 77; exec \"$0\" trace --netns /proc/self/ns/net";
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_portclash")]);
    match command.output() {
        Ok(output) if matches!(output.status.code(), Some(1 | 77)) => {
            println!("skipped: no mount namespace may be made here");
        }
        Ok(output) => refused(&output, &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y"]),
        Err(error) => println!("skipped: unshare cannot be run: {error}"),
    }
}

/// As another user, so without any capability.
#[test]
fn without_privileges_the_missing_ones_are_named() {
    // Where the build put it, nobody else may reach it.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("portclash");
    // Not copied by this process: a child of another test's could hold the file open for writing (ETXTBSY).
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_portclash")).arg(&program).status().unwrap();
    assert!(copied.success());
    for path in [folder.path(), &program] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new(&program);
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command.args(args).output().unwrap()
    };
    refused(
        &as_nobody(&["trace", "--netns", "/proc/self/ns/net"]),
        &["Operation not permitted", "not permitted without CAP_BPF and CAP_PERFMON", "portclash doctor"],
    );
    let doctor = as_nobody(&["doctor", "-o", "json"]);
    assert_eq!(doctor.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(report["status"], "missing");
    assert!(report["failure"].as_str().unwrap().contains("not permitted"));
    let connect = &report["needs"][0];
    assert_eq!((&connect["need"], &connect["way"]), (&"connect".into(), &Value::Null));
    assert!(connect["get"].as_str().unwrap().contains("CAP_BPF"));
    let missing: Vec<_> =
        report["findings"].as_array().unwrap().iter().filter(|f| f["status"] == "missing").collect();
    assert!(missing.iter().any(|finding| finding["name"] == "CAP_PERFMON"), "{missing:?}");
}

#[test]
fn doctor_says_the_same_in_its_status_its_text_and_its_json() {
    let json = run(&["doctor", "-o", "json"]);
    let text = run(&["doctor"]);
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    let (status, tag) = match report["status"].as_str().unwrap() {
        "ok" => (0, "ok "),
        "reduced" => (3, "REDUCED "),
        "missing" => (2, "MISSING "),
        other => panic!("{other}"),
    };
    assert_eq!(json.status.code(), Some(status));
    assert_eq!(text.status.code(), Some(status));
    assert!(String::from_utf8(text.stdout).unwrap().starts_with(tag));
    assert!(json.stderr.is_empty() && text.stderr.is_empty());
}

#[test]
fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
    for args in [&["doctor"][..], &["man"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = portclash(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(stderr(&output), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output =
            portclash(args).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        refused(&output, &["No space left on device", "write to standard output"]);
    }
}

#[path = "pods.rs"]
mod pods;
