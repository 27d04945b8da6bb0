//! JSON, one object per line.

use std::io::{self, Write};

use serde::Serialize;

use crate::analysis::model::InputAccount;
use crate::diagnosis::incident::{Incident, Summary, Verdict};
use crate::doctor::Doctor;
use crate::exposure::check::Check;
use crate::ports::model::Report;
use crate::report::pods::ProbeLine;
use crate::serve::exposure::ExposureChange;
use crate::serve::lines::Repeats;

/// Writes one incident as one line. A false alarm (verdict `none`) is not written: the summary counts it.
/// Returns whether a line was written.
pub fn write_incident(out: &mut impl Write, incident: &Incident) -> io::Result<bool> {
    if incident.verdict == Verdict::None {
        return Ok(false);
    }
    write_line(out, incident).map(|()| true)
}

/// Writes what was read of one input as one line.
pub fn write_input(out: &mut impl Write, input: &InputAccount) -> io::Result<()> {
    write_line(out, input)
}

/// Writes the summary as one line.
pub fn write_summary(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    write_line(out, summary)
}

/// Writes what the doctor found as one line.
pub fn write_doctor(out: &mut impl Write, doctor: &Doctor) -> io::Result<()> {
    write_line(out, doctor)
}

/// Writes what the check found as one line.
pub fn write_check(out: &mut impl Write, check: &Check) -> io::Result<()> {
    write_line(out, check)
}

/// Writes the rows of `portclash ports`, one a line, and its summary.
pub fn write_ports(out: &mut impl Write, report: &Report) -> io::Result<()> {
    report.rows.iter().try_for_each(|row| write_line(out, row))?;
    write_line(out, &report.summary)
}

/// Writes a change of the exposure as one line.
pub fn write_exposure(out: &mut impl Write, change: &ExposureChange) -> io::Result<()> {
    write_line(out, change)
}

/// Writes one probe as one line.
pub fn write_probe(out: &mut impl Write, probe: &ProbeLine) -> io::Result<()> {
    write_line(out, probe)
}

/// Writes what was counted instead of told as one line.
pub fn write_repeats(out: &mut impl Write, repeats: &Repeats) -> io::Result<()> {
    write_line(out, repeats)
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    // In one piece, so that a reader never sees half a line followed by another program's output.
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
