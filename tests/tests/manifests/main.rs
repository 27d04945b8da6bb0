//! The manifests of `deploy/kubernetes`: every field is one that Kubernetes knows, and they say what docs/deploy.md and
//! docs/security.md say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod kinds;
mod says;

use std::path::{Path, PathBuf};

use portclash_lab::yaml;
use serde_json::Value;

/// `deploy/kubernetes`.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes").canonicalize().unwrap()
}

/// Every YAML file below, with its documents.
fn files() -> Vec<(PathBuf, Vec<Value>)> {
    let mut found = Vec::new();
    let mut waiting = vec![folder()];
    while let Some(below) = waiting.pop() {
        for entry in std::fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push((path.clone(), documents(&path)));
            }
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(found.len() > 10, "only {} files", found.len());
    found
}

fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    yaml::documents(&text).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()))
}

/// The only document of a file below `deploy/kubernetes`.
fn document(name: &str) -> Value {
    let mut documents = documents(&folder().join(name));
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}
