//! The notices of everything that is linked into the program, for the image: most licences ask for no more than that they
//! go along.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{build, command, workspace};

/// Whose dependencies are in the program: the user side's, and the kernel side's, whose object is embedded.
const PARTS: [(&str, &str); 2] =
    [("probe-user", "x86_64-unknown-linux-gnu"), ("probe-ebpf", "bpfel-unknown-none")];
/// How files with notices begin.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "copyright", "unlicense"];

const HEAD: &str = "\
portclash is linked statically. Besides the crates below, each with its notices, it contains parts of
  the Rust standard library    MIT or Apache-2.0    https://www.rust-lang.org/policies/licenses
  the GNU C Library            LGPL-2.1-or-later    https://www.gnu.org/software/libc/
The source of portclash is free, so that it can be linked with another version of these libraries: docs/building.md.
";

/// One text with all notices; crates with the same notice share it.
pub(super) fn collect() -> Result<String> {
    let mut crates = BTreeSet::new();
    for (package, target) in PARTS {
        let mut cargo = workspace::cargo();
        cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform", target]);
        cargo.args(["--features", build::FEATURES]);
        let metadata = serde_json::from_str(&command::output(&mut cargo)?).context("cargo's metadata")?;
        crates.extend(linked(&metadata, package));
    }
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, manifest) in &crates {
        for text in notices(Path::new(manifest))? {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    Ok(written(&texts))
}

/// Name with version and manifest of every foreign crate that `package` needs at run time.
fn linked(metadata: &Value, package: &str) -> BTreeSet<(String, String)> {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(metadata, "packages").into_iter().map(|package| (text(&package, "id"), package)).collect();
    let nodes: BTreeMap<String, Value> = metadata
        .get("resolve")
        .map(|resolve| list(resolve, "nodes"))
        .unwrap_or_default()
        .into_iter()
        .map(|node| (text(&node, "id"), node))
        .collect();
    let mut waiting: Vec<String> =
        packages.iter().filter(|(_, each)| text(each, "name") == package).map(|(id, _)| id.clone()).collect();
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        if let Some(package) = packages.get(&id).filter(|package| !package["source"].is_null()) {
            let name = format!("{} {}", text(package, "name"), text(package, "version"));
            found.insert((name, text(package, "manifest_path")));
        }
        for dependency in nodes.get(&id).map(|node| list(node, "deps")).unwrap_or_default() {
            // Those of build scripts and tests have a kind.
            if list(&dependency, "dep_kinds").iter().any(|kind| kind["kind"].is_null()) {
                waiting.push(text(&dependency, "pkg"));
            }
        }
    }
    found
}

/// The notices beside a manifest, in the order of their names.
fn notices(manifest: &Path) -> Result<Vec<String>> {
    let folder = manifest.parent().context("a manifest without a folder")?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        if path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|path| Ok(String::from_utf8_lossy(&std::fs::read(path)?).trim().to_owned())).collect()
}

fn written(texts: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut parts: Vec<String> = texts
        .iter()
        .map(|(text, crates)| {
            let names: Vec<&str> = crates.iter().map(String::as_str).collect();
            format!("\n{}\n{}\n\n{text}\n", "=".repeat(80), names.join(", "))
        })
        .collect();
    parts.sort();
    format!("{HEAD}{}", parts.concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_linked_counts() {
        let package = |name: &str, source: Value| json!({"id": name, "name": name, "version": "1.0.0", "source": source, "manifest_path": format!("/{name}/Cargo.toml")});
        let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [
                package("probe-user", Value::Null), package("a", json!("registry")), package("b", json!("registry")),
                package("builds", json!("registry")), package("tests", json!("registry")), package("other", json!("registry")),
            ],
            "resolve": {"nodes": [
                {"id": "probe-user", "deps": [needs("a", Value::Null), needs("tests", json!("dev"))]},
                {"id": "a", "deps": [needs("b", Value::Null), needs("builds", json!("build"))]},
            ]},
        });
        let names: Vec<String> = linked(&metadata, "probe-user").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a 1.0.0", "b 1.0.0"]);
    }

    #[test]
    fn the_same_notice_is_there_once() {
        let both = BTreeSet::from(["a 1".to_owned(), "b 2".to_owned()]);
        let text = written(&BTreeMap::from([("MIT".to_owned(), both)]));
        assert_eq!(text.matches("MIT\n").count(), 1, "{text}");
        assert!(text.contains("\na 1, b 2\n\nMIT\n"), "{text}");
    }

    #[test]
    fn notices_are_found_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("LICENSE-MIT", "m\n"), ("COPYING", "c"), ("README.md", "r"), ("license.rs.txt", "l")]
        {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(notices(&folder.path().join("Cargo.toml")).unwrap(), ["c", "m", "l"]);
    }
}
