//! `cargo xtask bench sockets`: how long it takes to count the sockets in TIME-WAIT, next to `ss -tan | awk`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{machine, table};
use crate::{command, workspace};

#[derive(clap::Args)]
pub(super) struct Sockets {
    /// How many sockets
    #[arg(long, value_name = "N", default_value_t = 65_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    count: u32,
    /// How often each way is measured, in turns; all of it must end within the 60 s that TIME-WAIT lasts
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
}

/// Runs the bench, prints a table, and keeps the numbers in target/bench/sockets.json.
pub(super) fn run(arguments: &Sockets) -> Result<ExitCode> {
    let mut cargo = workspace::cargo();
    let (count, rounds) = (arguments.count.to_string(), arguments.rounds.to_string());
    cargo.args(["bench", "--package", "probe-user", "--bench", "sockets", "--", &count, &rounds]);
    let output = command::output(&mut cargo)?;
    let line = output.lines().find(|line| line.starts_with('{')).context("the bench gave no result")?;
    let mut result: Value = serde_json::from_str(line).context("the result is no JSON")?;
    print!("{}", text(&result));
    if let Some(fields) = result.as_object_mut() {
        fields.insert("machine".to_owned(), machine(false));
    }
    let folder = workspace::set_up("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("sockets.json");
    std::fs::write(&path, format!("{result:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// One line per way.
fn text(result: &Value) -> String {
    let count = table::plain(result, "sockets");
    let mut text =
        format!("\n{:<46}{:>10}{:>12}\n", format!("{count} sockets in TIME-WAIT"), "ms", "of ss | awk");
    for way in table::rows(result, "ways") {
        let (name, time) = (table::plain(way, "name"), table::decimals(way, "ms", 1));
        let _ = writeln!(text, "{name:<46}{time:>10}{:>12}", table::decimals(way, "ratio", 3));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_way_is_one_line() {
        let text = text(&json!({"sockets": 5, "ways": [{"name": "inet_diag", "ms": 20.04, "ratio": 0.25}]}));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.last().unwrap(), &["inet_diag", "20.0", "0.250"]);
    }
}
