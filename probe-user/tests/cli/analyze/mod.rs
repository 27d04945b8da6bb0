//! `portclash analyze` on what people bring.

mod captures;
mod faults;
mod outputs;
mod seed;

use std::path::PathBuf;

use serde_json::Value;

use super::*;

/// What an analysis printed as JSON.
struct Found {
    incidents: Vec<Value>,
    inputs: Vec<Value>,
    summary: Value,
    status: i32,
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Paths of files of a folder below `tests`.
fn files(name: &str, files: &[&str]) -> Vec<String> {
    files.iter().map(|file| folder(name).join(file).display().to_string()).collect()
}

fn analyze(args: &[String]) -> Found {
    let output = portclash(&["analyze", "-o", "json"]).args(args).output().unwrap();
    let status = output.status.code().unwrap();
    assert!(status != 2, "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |schema: &str| lines.iter().filter(|line| line["schema"] == schema).cloned().collect::<Vec<_>>();
    let summary = of("portclash.summary/v1");
    assert_eq!(lines.last(), summary.first(), "the summary is the last line");
    Found {
        incidents: of("portclash.incident/v1"),
        inputs: of("portclash.input/v1"),
        summary: summary[0].clone(),
        status,
    }
}

impl Found {
    fn only(&self) -> &Value {
        assert_eq!(self.incidents.len(), 1, "{:#?}", self.incidents);
        &self.incidents[0]
    }

    fn judged(&self) -> [&str; 3] {
        ["verdict", "outcome", "confidence"].map(|field| self.only()[field].as_str().unwrap())
    }
}
