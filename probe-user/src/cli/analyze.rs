//! `portclash analyze`: from files to incidents, after the fact.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use ring::rand::{SecureRandom, SystemRandom};

use super::output::{Common, Format, WRITE, width};
use super::progress::Bar;
use super::status;
use crate::analysis::conclude;
use crate::analysis::model::Analysis;
use crate::analysis::redact::Redactor;
use crate::diagnosis::incident::Verdict;
use crate::diagnosis::time::rfc3339;
use crate::inputs::{Limits, Sources};
use crate::report::analysis_text::{self, Signs};
use crate::report::{html, incident_packets, json, text};
use crate::sources::offline::{self, Options};
use crate::sources::offline_frames;

/// Find what happened in captures, IPVS dumps, lists and logs; nothing is read from this machine but these files
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Files, directories, archives (tar, gzip, zstd), or - for standard input; what each is, is told by its content
    #[arg(value_name = "FILE|DIR|-", required = true)]
    inputs: Vec<PathBuf>,
    /// Time zone of times that are written without one, such as +08:00 or Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    zone: Option<TimeZone>,
    /// Write the packets of the incidents, and only those, to this pcapng file, with comments that say whose they are
    #[arg(long, value_name = "FILE.pcapng")]
    write: Option<PathBuf>,
    /// Replace names and addresses in every output, so that it can leave the company: the same name always by the same
    /// alias, addresses by others that share as many leading bits
    #[arg(long)]
    redact: bool,
    /// Draw with ASCII only [default: where the locale is not UTF-8]
    #[arg(long)]
    ascii: bool,
}

const EXAMPLES: &str = "\
Examples:
  portclash analyze pod.pcap ipvsadm.txt kubelet.log        what one node's files show
  portclash analyze sosreport.tar.gz -o html > report.html  a report to attach to a ticket
  portclash analyze captures/ --write incidents.pcapng      everything below a directory; its packets for Wireshark
  portclash analyze captures/ --redact -o html > out.html   a report without names and addresses
  kubectl get svc -A | portclash analyze pod.pcap -         names of Services from standard input

Read: pcap and pcapng; tcpdump -nn and Wireshark as text; ipvsadm -Ln, -Sn, -Lnc, --stats, /proc/net/ip_vs and
ip_vs_conn; kubectl get svc and pods; kubelet and kube-proxy logs; access logs of probed servers; ss, netstat, lsof;
conntrack; sysctls. What is not recognised is listed.
Exit status: 0 nothing found, 1 found, 2 could not read what was given, 3 nothing found, but something was cut,
damaged or unreadable.";

/// `+08:00`, `UTC`, `Europe/Berlin`
fn zone(text: &str) -> Result<TimeZone, String> {
    let wrong = || format!("\"{text}\" is no time zone; write it like +08:00 or Europe/Berlin");
    let sign = match text.as_bytes().first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ if text == "UTC" || text == "Z" => return Ok(TimeZone::UTC),
        _ => return TimeZone::get(text).map_err(|_| wrong()),
    };
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) = match digits.len() {
        2 => (digits.parse::<i32>().ok(), Some(0)),
        4 => (
            digits.get(..2).and_then(|part| part.parse().ok()),
            digits.get(2..).and_then(|part| part.parse().ok()),
        ),
        _ => return Err(wrong()),
    };
    let (Some(hours), Some(minutes @ 0..60)) = (hours, minutes) else { return Err(wrong()) };
    let offset = jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| wrong())?;
    Ok(TimeZone::fixed(offset))
}

/// Runs the command; the result is the exit status.
pub(super) fn run(args: &Args, common: &Common) -> Result<u8> {
    let now = jiff::Timestamp::now();
    let options = Options {
        zone: args.zone.clone(),
        limits: Limits { hash: common.output == Format::Html, ..Limits::default() },
        now: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
    };
    let mut bar = Bar::new();
    let read = offline::read(&args.inputs, &options, &mut bar)?;
    bar.finish();
    let mut analysis = conclude(&read.material, &read.packets);
    analysis.inputs = read.inputs;
    let mut redactor = args.redact.then(|| new_redactor().map(Redactor::new)).transpose()?;
    let names: Vec<String> = read.packets.inputs.iter().map(|input| input.name.to_string()).collect();
    if let Some(redactor) = &mut redactor {
        redactor.redact(&mut analysis);
    }
    if let Some(path) = &args.write {
        write_packets(path, &mut analysis, &read.sources, names, redactor.as_mut())?;
    }
    write(&analysis, args, common, &rfc3339(options.now)).context(WRITE)?;
    let found = analysis.incidents.iter().any(|found| found.incident.verdict != Verdict::None);
    Ok(match (found, analysis.summary.incomplete.is_empty()) {
        (true, _) => status::FOUND,
        (false, true) => status::NOTHING,
        (false, false) => status::INCOMPLETE,
    })
}

/// A key that nobody has: the same addresses are replaced by others the next time.
fn new_redactor() -> Result<[u8; 32]> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).ok().context("get random numbers for --redact")?;
    Ok(key)
}

fn write_packets(
    path: &Path,
    analysis: &mut Analysis,
    sources: &Sources,
    mut names: Vec<String>,
    mut redactor: Option<&mut Redactor>,
) -> Result<()> {
    let wanted = analysis.incidents.iter().flat_map(|found| found.packets.iter().copied()).collect();
    let (frames, left_out) = offline_frames::take(sources, &wanted);
    if let Some(redactor) = redactor.as_deref_mut() {
        for name in &mut names {
            *name = redactor.file_name(name);
        }
    }
    let failed = || format!("write packets to {}", path.display());
    let mut out = io::BufWriter::new(File::create(path).with_context(failed)?);
    let unsafe_frames =
        incident_packets::write(&mut out, analysis, &frames, &names, redactor).with_context(failed)?;
    out.flush().with_context(failed)?;
    for (count, why) in [(left_out, "too many"), (unsafe_frames, "not known how to make them safe")] {
        if count > 0 {
            analysis.notes.push(format!("{count} packets of incidents were not written: {why}"));
        }
    }
    Ok(())
}

fn write(analysis: &Analysis, args: &Args, common: &Common, now: &str) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match common.output {
        Format::Text => {
            let style = text::TextStyle { colour: common.colour(), width: width() };
            let signs = if args.ascii || !is_utf8() { Signs::Ascii } else { Signs::Unicode };
            out.write_all(analysis_text::report(analysis, style, signs).as_bytes())?;
        }
        Format::Json => {
            for found in &analysis.incidents {
                json::write_incident(&mut out, &found.incident)?;
            }
            for input in &analysis.inputs {
                json::write_input(&mut out, input)?;
            }
            json::write_summary(&mut out, &analysis.summary)?;
        }
        Format::Html => out.write_all(html::page(analysis, Some(now)).as_bytes())?,
    }
    out.flush()
}

/// Whether the locale has the characters that drawings are made of.
fn is_utf8() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_offsets_or_names() {
        let seconds = |text: &str| zone(text).unwrap().to_offset(jiff::Timestamp::UNIX_EPOCH).seconds();
        assert_eq!(seconds("+08:00"), 8 * 3600);
        assert_eq!(seconds("-0330"), -(3 * 3600 + 1800));
        assert_eq!(seconds("+02"), 2 * 3600);
        assert_eq!(seconds("UTC"), 0);
        for wrong in ["", "+8", "+08:75", "Nowhere/Atall", "+99:00"] {
            assert!(zone(wrong).unwrap_err().contains("+08:00"), "{wrong}");
        }
    }
}
