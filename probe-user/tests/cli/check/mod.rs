//! `portclash check` on nodes that options and files describe; each test is a case from the field.

mod ports;
mod ranges;
mod script;
mod seed;
mod services;

use std::fs;

use serde_json::Value;

use super::{portclash, refused, run, stderr};

const SEED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seed/");

fn seed(name: &str) -> String {
    format!("{SEED}{name}")
}

/// A folder with files, and their paths.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Runs `portclash check -o json` and gives the report with the exit status.
fn check(args: &[&str]) -> (Value, i32) {
    let output = run(&[&["check", "-o", "json"], args].concat());
    let status = output.status.code().unwrap();
    assert!(status != 2, "{args:?}: {}", stderr(&output));
    let lines: Vec<&[u8]> =
        output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1);
    (serde_json::from_slice(lines[0]).unwrap(), status)
}

fn text(args: &[&str]) -> String {
    let output = portclash(&[&["check"], args].concat()).env("COLUMNS", "100").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn findings(report: &Value, severity: &str) -> String {
    let all = report["findings"].as_array().unwrap().iter();
    let texts = all
        .filter(|finding| finding["severity"] == severity)
        .map(|finding| finding["text"].as_str().unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

fn near(value: &Value, expected: f64) -> bool {
    (value.as_f64().unwrap() - expected).abs() <= expected.abs() * 0.005
}

/// Verdict, ports in both ranges, and ports of these that are not reserved.
fn overlap(args: &[&str]) -> (String, i32, u64, u64) {
    let (report, status) = check(args);
    let number = |name: &str| report[name].as_u64().unwrap();
    (
        report["status"].as_str().unwrap().to_owned(),
        status,
        number("overlap_count"),
        number("overlap_unreserved"),
    )
}

fn seed_node(sockets: &str) -> Vec<String> {
    let args = [
        "--local-port-range",
        "1024 65000",
        "--reserved-ports",
        "",
        "--node-port-range",
        "20000-40000",
        "--kernel",
        "5.10.262",
    ];
    let mut args: Vec<String> = args.map(str::to_owned).to_vec();
    for (option, file) in [("--ipvs", "ipvsadm.txt"), ("--services", "services.txt"), ("--sockets", sockets)]
    {
        args.extend([option.to_owned(), seed(file)]);
    }
    args
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}
