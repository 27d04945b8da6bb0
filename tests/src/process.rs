//! Runs the lab's tools; a failed one is shown as it was run.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::host;

/// Runs a command line, split at blanks, and returns its standard output.
pub fn run(line: &str) -> Result<String> {
    run_with_input(line, "")
}

/// Runs a command line, split at blanks, feeds it `input`, and returns its standard output.
pub fn run_with_input(line: &str, input: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start: {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input may close it; its status tells whether it failed.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for: {line}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {line}\n{}", output.status, errors.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a kernel setting, named by its path below /proc/sys.
pub fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    // Without the line end, an empty value would be no write at all, and the old one would stay.
    std::fs::write(&path, format!("{value}\n")).with_context(|| format!("cannot write {value} to {path}"))
}

/// Runs a command and shows its output (standard error as well) as it comes, each line also to
/// `each`. Returns its status.
pub fn stream(command: &[String], mut each: impl FnMut(&str)) -> Result<u8> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let (reader, writer) = std::io::pipe()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start: {}", command.join(" ")))?;
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        host::say(&line);
        each(&line);
    }
    let status = child.wait()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
