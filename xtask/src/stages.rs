//! Counts what passed and what failed, and says so line by line.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Results so far.
#[derive(Default)]
pub(crate) struct Tally {
    passed: u32,
    failed: Vec<String>,
}

impl Tally {
    /// Runs a stage under a heading of its own and counts it; a failure is shown and does not end the run.
    pub(crate) fn stage(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        println!("== {name}");
        let start = Instant::now();
        let outcome = work();
        if let Err(error) = &outcome {
            println!("{error:#}");
        }
        let passed = outcome.is_ok();
        println!("{name} ... {} ({})", word(passed), seconds(start.elapsed()));
        self.count(name, passed);
    }

    /// Counts one result that was shown elsewhere.
    pub(crate) fn count(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed.push(name.to_owned());
        }
    }

    /// Names what failed; the last line is `N passed, M failed`.
    pub(crate) fn finish(&self) -> ExitCode {
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("{}", self.total());
        ExitCode::from(u8::from(!self.failed.is_empty()))
    }

    fn total(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed.len())
    }
}

/// `ok` or `FAILED`.
pub(crate) fn word(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_stage_does_not_end_the_run_and_is_counted() {
        let mut tally = Tally::default();
        tally.stage("first", || anyhow::bail!("broken"));
        tally.stage("second", || Ok(()));
        assert_eq!(tally.total(), "1 passed, 1 failed");
        assert_eq!(tally.failed, ["first"]);
    }
}
