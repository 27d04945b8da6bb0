//! Reads everything that an analysis is given: first tables and lists, which tell what is a service; then packets; then
//! logs, whose lines often leave the year out, which the packets have.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::offline_packets::PacketReader;
use super::offline_texts::TextReader;
use crate::analysis::material::Material;
use crate::analysis::model::{INPUT_SCHEMA, InputAccount};
use crate::analysis::{PacketInput, Packets};
use crate::handshakes::{MAX_KEPT_PACKETS, Tracker, join};
use crate::inputs::{Found, InputError, Kind, Limits, Sources, Walked};
use crate::observation::{Nanos, Tuple};

/// How to read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Zone of times that are written without one; `None` = UTC is assumed, and said.
    pub zone: Option<TimeZone>,
    /// Bounds.
    pub limits: Limits,
    /// Now, nanoseconds since the Unix epoch: for what has no time of its own and is in no file.
    pub now: Nanos,
}

/// All that was read.
pub struct Read {
    /// Everything but packets.
    pub material: Material,
    /// The packets' handshakes.
    pub packets: Packets,
    /// Every file, in the order in which they were given.
    pub inputs: Vec<InputAccount>,
    /// To read them again.
    pub sources: Sources,
}

/// What is being read, for a progress bar.
pub trait Progress {
    /// A file with packets begins; its size in bytes as stored, if that is known.
    fn begin(&mut self, name: &str, size: Option<u64>);
    /// So many bytes of it, as stored, were read so far.
    fn at(&mut self, bytes: u64);
}

/// Reads every input.
pub fn read(paths: &[PathBuf], options: &Options, progress: &mut dyn Progress) -> Result<Read, InputError> {
    let sources = Sources::open(paths, options.limits)?;
    let mut texts = TextReader::new(options);
    let mut inputs: Vec<InputAccount> = Vec::new();
    let mut kinds = Vec::new();
    let walked = sources.visit(&mut |mut found| {
        let mut account = account(&found);
        kinds.extend(found.kind);
        match found.kind {
            Some(kind) if !is_later(kind) => texts.table(kind, &mut found, &mut account),
            Some(_) => {}
            None => account.skipped.push(format!("not recognised: it looks like {}", found.looks_like)),
        }
        note_stored(&found, &mut account);
        inputs.push(account);
    });
    skipped(walked, &mut inputs, &mut texts.material);
    let coverage = texts.material.coverage();
    let is_service = |tuple: Tuple| coverage.is_service(tuple.local);
    let (mut packets, mut trackers, mut dated) = (Vec::new(), Vec::new(), Vec::new());
    let mut room = MAX_KEPT_PACKETS;
    if kinds.iter().any(|kind| is_packets(*kind)) {
        sources.visit(&mut |mut found| {
            let Some(kind) = found.kind.filter(|kind| is_packets(*kind)) else { return };
            let number = u32::try_from(trackers.len()).unwrap_or(u32::MAX);
            let tracker = Tracker::new(number, &is_service).with_room(room);
            let mut reader = PacketReader { options, tracker, progress, dated: true, attached: Vec::new() };
            let mut account = account(&found);
            let interfaces = reader.read(kind, &mut found, &mut account, &mut texts.material.incomplete);
            note_stored(&found, &mut account);
            texts.attached(&reader.attached, &found);
            packets.push((Arc::<str>::from(found.name), interfaces, unit(kind)));
            reader.tracker.end();
            room = reader.tracker.room();
            trackers.push(reader.tracker);
            dated.push(reader.dated);
            replace(&mut inputs, account);
        });
    }
    let (joined, counts) = join(trackers);
    let packets: Vec<PacketInput> = packets
        .into_iter()
        .zip(counts)
        .map(|((name, interfaces, unit), counts)| PacketInput { name, interfaces, unit, counts })
        .collect();
    // A date that was guessed tells nothing about the year of a log.
    let spans =
        packets.iter().zip(&dated).filter(|(_, dated)| **dated).filter_map(|(input, _)| input.counts.span);
    let latest = spans.map(|(_, last)| last).max();
    if kinds.iter().any(|kind| is_log(*kind)) {
        sources.visit(&mut |mut found| {
            if found.kind.is_some_and(is_log) {
                let mut account = account(&found);
                texts.log(&mut found, &mut account, latest);
                note_stored(&found, &mut account);
                replace(&mut inputs, account);
            }
        });
    }
    let material = texts.finish();
    Ok(Read { material, packets: Packets { inputs: packets, joined }, inputs, sources })
}

const fn is_packets(kind: Kind) -> bool {
    matches!(kind, Kind::Capture(_) | Kind::PacketListing(_))
}

const fn is_log(kind: Kind) -> bool {
    matches!(kind, Kind::KubeletLog)
}

const fn is_later(kind: Kind) -> bool {
    is_packets(kind) || is_log(kind)
}

const fn unit(kind: Kind) -> &'static str {
    match kind {
        Kind::PacketListing(_) => "line",
        _ => "packet",
    }
}

fn account(found: &Found<'_>) -> InputAccount {
    InputAccount {
        schema: INPUT_SCHEMA,
        name: found.name.to_owned(),
        kind: found.kind.map(|kind| kind.to_string()),
        bytes: found.size,
        sha256: None,
        read: String::new(),
        skipped: Vec::new(),
    }
}

fn note_stored(found: &Found<'_>, account: &mut InputAccount) {
    if let Some(stored) = found.stored() {
        account.bytes = Some(stored.bytes);
        account.sha256 = stored.sha256;
    }
}

/// What a later walk found takes the place of what the first one noted.
fn replace(inputs: &mut [InputAccount], account: InputAccount) {
    if let Some(known) = inputs.iter_mut().find(|known| known.name == account.name && known.read.is_empty()) {
        *known = account;
    }
}

fn skipped(walked: Walked, inputs: &mut [InputAccount], material: &mut Material) {
    for skipped in walked.skipped {
        let sentence = skipped.why.clone();
        if skipped.lost {
            material.incomplete.push(format!("{}: {sentence}", skipped.name));
        }
        match inputs.iter_mut().find(|input| input.name == skipped.name) {
            Some(input) => input.skipped.push(sentence),
            None if skipped.lost => {}
            None => material.notes.push(format!("{}: {sentence}", skipped.name)),
        }
    }
    if walked.more_skipped > 0 {
        let sentence = format!("{} more inputs were left out", walked.more_skipped);
        let list = if walked.more_lost > 0 { &mut material.incomplete } else { &mut material.notes };
        list.push(sentence);
    }
}
