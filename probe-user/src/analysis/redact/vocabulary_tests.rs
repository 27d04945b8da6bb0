use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::shape::is_number;
use super::text::BETWEEN;

/// Folders whose sentences can stand in an analysis.
const FOLDERS: [&str; 11] = [
    "analysis",
    "capture",
    "diagnosis",
    "inputs",
    "ipvs",
    "kernel",
    "kubelet_log",
    "kubernetes",
    "node",
    "pods",
    "sources",
];
/// Why the kernel says it resets (`enum sk_rst_reason`, include/net/rstreason.h).
const REASONS: [&str; 22] = [
    "NOT_SPECIFIED",
    "NO_SOCKET",
    "TCP_INVALID_ACK_SEQUENCE",
    "TCP_RFC7323_PAWS",
    "TCP_TOO_OLD_ACK",
    "TCP_ACK_UNSENT_DATA",
    "TCP_FLAGS",
    "TCP_OLD_ACK",
    "TCP_ABORT_ON_DATA",
    "TCP_TIMEOUT_SOCKET",
    "INVALID_SYN",
    "TCP_ABORT_ON_CLOSE",
    "TCP_ABORT_ON_LINGER",
    "TCP_ABORT_ON_MEMORY",
    "TCP_STATE",
    "TCP_KEEPALIVE_TIMEOUT",
    "TCP_DISCONNECT_WITH_DATA",
    "MPTCP_RST_EUNSPEC",
    "MPTCP_RST_EMPTCP",
    "MPTCP_RST_ERESOURCE",
    "MPTCP_RST_EPROHIBIT",
    "ERROR",
];
/// Words that sentences are joined with, whether or not a literal has them just now.
const COMMON: [&str; 24] = [
    "r:+$r",
    "echo",
    "access",
    "added",
    "ahead",
    "behind",
    "covers",
    "cut",
    "fit",
    "image",
    "interfaces",
    "lines",
    "off",
    "other",
    "packet",
    "packets",
    "requests",
    "rhythm",
    "rows",
    "runs",
    "utc",
    "were",
    "written",
    "yields",
];

/// `UPDATE_VOCABULARY=1 cargo test -p probe-user vocabulary` writes it anew; look at what is added: none of it is ever
/// taken for a name.
#[test]
fn the_vocabulary_is_that_of_the_programs_own_sentences() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut words = BTreeSet::new();
    for folder in FOLDERS {
        for file in files(&source.join(folder)) {
            let text = std::fs::read_to_string(&file).unwrap();
            for literal in literals(&text) {
                collect(&literal, &mut words);
            }
        }
    }
    words.extend(REASONS.map(str::to_lowercase));
    words.extend(COMMON.map(str::to_owned));
    let path = source.join("analysis/redact/vocabulary.txt");
    let text: String = words.iter().flat_map(|word| [word.as_str(), "\n"]).collect();
    if std::env::var_os("UPDATE_VOCABULARY").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "vocabulary.txt is out of date: run with UPDATE_VOCABULARY=1");
}

/// Sources without tests and samples.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !matches!(name, "tests" | "redact" | "clients" | "snapshots") {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !name.contains("tests")
            && !name.contains("samples")
        {
            all.push(path);
        }
    }
    all
}

/// Text of string literals, up to the tests of the file.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut all = Vec::new();
    for line in join_continued(source).lines() {
        let line = line.trim_start();
        if line.starts_with("//") || line.starts_with("#[") {
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find('"') {
            // The character `'"'` begins no string.
            if rest[..at].ends_with('\'') {
                rest = &rest[at + 1..];
                continue;
            }
            let (literal, after) = until_quote(&rest[at + 1..]);
            all.push(literal);
            rest = after;
        }
    }
    all
}

fn join_continued(source: &str) -> String {
    let mut out = String::new();
    for line in source.lines() {
        match line.strip_suffix('\\') {
            Some(line) => out += &(line.trim_end().to_owned() + " "),
            None => out += &(line.to_owned() + "\n"),
        }
    }
    out
}

fn until_quote(text: &str) -> (String, &str) {
    let mut literal = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (literal, &text[at + 1..]),
            '\\' => literal.push(
                characters.next().map_or(' ', |(_, c)| if matches!(c, 'n' | 't' | 'r') { ' ' } else { c }),
            ),
            c => literal.push(c),
        }
    }
    (literal, "")
}

/// Words of a literal without its placeholders.
fn collect(literal: &str, words: &mut BTreeSet<String>) {
    let mut text = String::new();
    let mut depth = 0;
    for c in literal.chars() {
        match c {
            '{' => depth += 1,
            // What joins a placeholder is no word.
            '}' => {
                depth = (depth - 1).max(0);
                text.push(' ');
            }
            c if depth == 0 => text.push(c),
            _ => {}
        }
    }
    for word in text.split(BETWEEN) {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric() && !matches!(c, '/' | '_' | '-'));
        let word = word.trim_start_matches('-').trim_end_matches(['/', '-', '_']);
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
        // A hash in an example is no word.
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let hash = digits > 1 && word.len() >= 8 && !word.contains(['_', '/', '.']);
        if plain
            && !hash
            && word.chars().any(|c| c.is_ascii_alphabetic())
            && !is_number(word)
            && word.len() > 1
        {
            words.insert(word.to_lowercase());
        }
    }
}
