//! `cargo xtask bench captures`: how fast captures are analysed, next to tcpdump's filter for SYN and RST, and tshark's.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{machine, table};
use crate::vm::find_program;
use crate::{build, setup, workspace};

/// What the captures are read with besides.
const READERS: &[(&str, &str)] = &[("tcpdump", "tcpdump"), ("tshark", "tshark")];
/// tshark keeps a connection in memory and takes a hundred times as long: it gets so much of the same traffic.
const TSHARK_BYTES: u64 = 32 << 20;
/// Data packets of one connection.
const DATA: u32 = 60;
/// One connection of so many is a collision.
const COLLISIONS: u32 = 1000;

#[derive(clap::Args)]
pub(super) struct Captures {
    /// Size of each capture, MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    size: u64,
    /// How often each program reads each capture; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Runs the bench, prints a table, and keeps the numbers in target/bench/captures.json.
pub(super) fn run(arguments: &Captures) -> Result<ExitCode> {
    setup::ensure_programs(READERS)?;
    let portclash = build::static_binaries(&["probe-user"])?.join("portclash");
    let folder = workspace::set_up("bench");
    fs::create_dir_all(&folder)?;
    let mut rows = Vec::new();
    for length in [100, 1470] {
        let capture = folder.join(format!("packets-{length}.pcap"));
        let sample = folder.join(format!("packets-{length}-sample.pcap"));
        let packets = make(&capture, length, arguments.size << 20)?;
        make(&sample, length, TSHARK_BYTES)?;
        rows.extend(measure(&portclash, &capture, &sample, (length, packets), arguments.rounds)?);
        fs::remove_file(&capture)?;
        fs::remove_file(&sample)?;
    }
    let result = json!({ "programs": rows, "machine": machine(false) });
    print!("{}", text(&result));
    let path = folder.join("captures.json");
    fs::write(&path, format!("{result:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn measure(
    portclash: &Path,
    capture: &Path,
    sample: &Path,
    (length, packets): (usize, u64),
    rounds: u32,
) -> Result<Vec<Value>> {
    let found = |name| find_program(name).with_context(|| format!("{name} is not installed"));
    let (tcpdump, tshark) = (found("tcpdump")?, found("tshark")?);
    let filter = "tcp[tcpflags] & (tcp-syn|tcp-rst) != 0";
    let programs: [(&str, PathBuf, &Path, Vec<&str>); 3] = [
        ("portclash analyze", portclash.to_owned(), capture, vec!["analyze", "-o", "json"]),
        ("tcpdump, SYN or RST", tcpdump, capture, vec!["-w", "/dev/null", filter, "-r"]),
        ("tshark, RST", tshark, sample, vec!["-Y", "tcp.flags.reset==1", "-r"]),
    ];
    let mut times: Vec<(Vec<f64>, u64)> = vec![(Vec::new(), 0); programs.len()];
    // The first round only brings the file into the page cache.
    for round in 0..=rounds {
        for ((_, program, file, args), (times, memory)) in programs.iter().zip(&mut times) {
            let (seconds, kib) = time(program, args, file)?;
            if round > 0 {
                times.push(seconds);
                *memory = kib.max(*memory);
            }
        }
    }
    let mut rows = Vec::new();
    let mut first = None;
    for ((name, _, file, _), (mut times, memory)) in programs.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        let median = times.get(times.len() / 2).copied().context("no rounds")?;
        #[allow(clippy::cast_precision_loss, reason = "a number of bytes that is printed with three digits")]
        let speed = fs::metadata(file)?.len() as f64 / median / 1e6;
        let own = *first.get_or_insert(speed);
        rows.push(json!({
            "name": name, "packet_bytes": length, "packets": packets, "seconds": median, "mb_per_s": speed,
            "times_as_fast": own / speed, "resident_mib": memory / 1024,
        }));
    }
    Ok(rows)
}

/// Runs a program to its end; how long it took, and the most memory it was seen with, KiB.
fn time(program: &Path, args: &[&str], file: &Path) -> Result<(f64, u64)> {
    let begin = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        memory = peak(&status).unwrap_or(memory);
        std::thread::sleep(Duration::from_millis(2));
    };
    ensure!(ended.code().is_some_and(|code| code < 2), "{} ended with {ended}", program.display());
    Ok((begin.elapsed().as_secs_f64(), memory))
}

fn peak(status: &str) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// Writes connections until the file has its size; returns the number of packets.
fn make(path: &Path, length: usize, bytes: u64) -> Result<u64> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut traffic =
        Traffic { out: BufWriter::with_capacity(1 << 20, file), packets: 0, bytes: 24, at: 0, length };
    traffic
        .out
        .write_all(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0])?;
    let mut number = 0;
    while traffic.bytes < bytes {
        traffic.connection(number)?;
        number += 1;
    }
    traffic.out.flush()?;
    Ok(traffic.packets)
}

struct Traffic {
    out: BufWriter<File>,
    packets: u64,
    bytes: u64,
    /// Microseconds.
    at: u64,
    length: usize,
}

impl Traffic {
    fn connection(&mut self, number: u32) -> Result<()> {
        let isn = number.wrapping_mul(2_654_435_761);
        let (client, server) = ((0x0a17_4d81, port(number)), (0x0a17_4d8a, 80));
        self.packet(client, server, (isn, 0), 0x02, 0)?;
        self.packet(server, client, (!isn, isn.wrapping_add(1)), 0x12, 0)?;
        if number % COLLISIONS == COLLISIONS - 1 {
            return self.packet(client, server, (isn.wrapping_add(1), 0), 0x04, 0);
        }
        self.packet(client, server, (isn.wrapping_add(1), (!isn).wrapping_add(1)), 0x10, 0)?;
        let payload = u32::try_from(self.length.saturating_sub(54))?;
        for n in 0..DATA {
            let sequence = (!isn).wrapping_add(1).wrapping_add(n.wrapping_mul(payload));
            self.packet(server, client, (sequence, isn.wrapping_add(1)), 0x18, payload as usize)?;
        }
        Ok(())
    }

    fn packet(
        &mut self,
        from: (u32, u16),
        to: (u32, u16),
        (sequence, acknowledgement): (u32, u32),
        flags: u8,
        payload: usize,
    ) -> Result<()> {
        let mut frame = vec![0_u8; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(u16::try_from(40 + payload)?.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(from.0.to_be_bytes());
        frame.extend(to.0.to_be_bytes());
        frame.extend(from.1.to_be_bytes());
        frame.extend(to.1.to_be_bytes());
        frame.extend(sequence.to_be_bytes());
        frame.extend(acknowledgement.to_be_bytes());
        frame.extend([0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        frame.resize(frame.len() + payload, b'x');
        self.at += 10;
        let seconds = u32::try_from(1_700_000_000 + self.at / 1_000_000)?;
        let micros = u32::try_from(self.at % 1_000_000)?;
        let size = u32::try_from(frame.len())?;
        for word in [seconds, micros, size, size] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(&frame)?;
        self.packets += 1;
        self.bytes += 16 + u64::from(size);
        Ok(())
    }
}

/// Source ports in turns, as a kernel gives them.
fn port(number: u32) -> u16 {
    u16::try_from(32_768 + number % 28_000).unwrap_or(u16::MAX)
}

/// One line per program and capture.
fn text(result: &Value) -> String {
    let mut text = format!(
        "\n{:<26}{:>14}{:>10}{:>12}{:>18}{:>10}\n",
        "", "packet bytes", "s", "MB/s", "portclash / it", "MiB"
    );
    for row in table::rows(result, "programs") {
        let _ = writeln!(
            text,
            "{:<26}{:>14}{:>10}{:>12}{:>18}{:>10}",
            table::plain(row, "name"),
            table::plain(row, "packet_bytes"),
            table::decimals(row, "seconds", 3),
            table::decimals(row, "mb_per_s", 0),
            table::decimals(row, "times_as_fast", 2),
            table::plain(row, "resident_mib"),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_one_line() {
        let row = json!({"name": "x", "packet_bytes": 100, "seconds": 0.5, "mb_per_s": 2000.4, "times_as_fast": 3.25,
                         "resident_mib": 12});
        let text = text(&json!({ "programs": [row] }));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.last().unwrap(), &["x", "100", "0.500", "2000", "3.25", "12"]);
    }
}
