//! Packets of captures and listings, into a tracker.

use std::io::{self, Read};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::offline::{Options, Progress};
use super::pipe;
use crate::analysis::model::InputAccount;
use crate::capture::listing::{self, Listed, ListedTime, ListingForm};
use crate::capture::{self, Decoded, Undecoded};
use crate::handshakes::{Sight, Tracker};
use crate::inputs::{Found, Kind};
use crate::ipvs::table::Unreadable;
use crate::observation::Nanos;

const SECOND: Nanos = 1_000_000_000;
const DAY: Nanos = 86_400 * SECOND;
/// Rows that are shown of those that could not be read.
const SHOWN: usize = 3;
/// How often progress is told, bytes.
const STEP: u64 = 4 << 20;

pub(super) struct PacketReader<'a, 'b> {
    pub(super) options: &'b Options,
    pub(super) tracker: Tracker<'a>,
    pub(super) progress: &'b mut dyn Progress,
    /// Its times have a date: those of a listing may have been guessed from when its file was written.
    pub(super) dated: bool,
    /// JSON that was in captures.
    pub(super) attached: Vec<Vec<u8>>,
}

impl PacketReader<'_, '_> {
    /// Reads one input to its end. Returns the names of its interfaces.
    pub(super) fn read(
        &mut self,
        kind: Kind,
        found: &mut Found<'_>,
        account: &mut InputAccount,
        incomplete: &mut Vec<String>,
    ) -> Vec<Option<String>> {
        self.progress.begin(found.name, found.size);
        let before = account.skipped.len();
        let interfaces = match kind {
            Kind::PacketListing(form) => self.listing(form, found, account),
            _ => self.capture(found, account),
        };
        // What a capture lost is lost evidence.
        let lost = account.skipped.iter().skip(before);
        incomplete.extend(lost.map(|sentence| format!("{}: {sentence}", account.name)));
        interfaces
    }

    fn capture(&mut self, found: &mut Found<'_>, account: &mut InputAccount) -> Vec<Option<String>> {
        let Self { tracker, progress, attached, .. } = self;
        let mut watched = Watched { reader: &mut *found.content, progress: &mut **progress, unsaid: 0 };
        let read = pipe::through(&mut watched, |input| {
            capture::read_pieces(input, &mut |frame| tracker.frame(&frame))
        });
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                "nothing".clone_into(&mut account.read);
                account.skipped.push(error.to_string());
                return Vec::new();
            }
        };
        let links: std::collections::BTreeSet<String> =
            read.interfaces.iter().map(|interface| interface.link.to_string()).collect();
        account.read = format!(
            "{} packets on {} ({})",
            read.frames,
            plural(read.interfaces.len(), "interface"),
            links.into_iter().collect::<Vec<_>>().join(", ")
        );
        if !read.attached.is_empty() {
            account.read += &format!(", {} from portclash", plural(read.attached.len(), "JSON object"));
            attached.extend(read.attached);
        }
        account.skipped.extend(read.notes.clone());
        if read.damaged > read.notes.len() as u64 {
            account.skipped.push(format!("{} damaged records in all", read.damaged));
        }
        let dropped: u64 = read.interfaces.iter().filter_map(|interface| interface.dropped).sum();
        if dropped > 0 {
            account.skipped.push(format!("the program that captured says that it lost {dropped} packets"));
        }
        account.skipped.extend(undecoded(&tracker.counts().undecoded, &read.interfaces));
        read.interfaces.into_iter().map(|interface| interface.name).collect()
    }

    fn listing(
        &mut self,
        form: ListingForm,
        found: &mut Found<'_>,
        account: &mut InputAccount,
    ) -> Vec<Option<String>> {
        let mut times = Times::new(self.options, found.modified);
        let mut interfaces: Vec<Option<Arc<str>>> = Vec::new();
        let (mut relative, tracker) = (0_u64, &mut self.tracker);
        let read = listing::read(&mut *found.content, form, &mut |listed: Listed| {
            let known = interfaces.iter().position(|name| *name == listed.interface);
            let place = known.unwrap_or_else(|| {
                interfaces.push(listed.interface.clone());
                interfaces.len() - 1
            });
            let at = times.of(listed.time, listed.line);
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            relative += u64::from(!listed.absolute);
            let sight = Sight { at, place, number: listed.line };
            let packet = Decoded::from(listed.packet);
            if listed.absolute {
                tracker.listed(sight, &packet);
            } else {
                tracker.listed_relative(sight, &packet);
            }
        });
        account.read = format!("{} packets in {} lines", read.packets, read.lines);
        account.skipped.extend(rows(&read.unreadable));
        account.skipped.extend(read.notes);
        account.skipped.extend(read.cut);
        account.read += &times.sentence();
        self.dated = times.dated;
        if relative > 0 {
            account.read += &format!(
                "; {relative} with relative sequence numbers, which tell nothing across inputs (tcpdump -S; Wireshark: switch off \
                 relative sequence numbers)"
            );
        }
        interfaces.into_iter().map(|name| name.map(|name| name.to_string())).collect()
    }
}

fn undecoded(
    counts: &std::collections::BTreeMap<Undecoded, u64>,
    interfaces: &[capture::Interface],
) -> Vec<String> {
    let unknown: std::collections::BTreeSet<String> = interfaces
        .iter()
        .filter(|interface| interface.link.name().is_none())
        .map(|interface| interface.link.to_string())
        .collect();
    counts
        .iter()
        .map(|(reason, count)| match reason {
            Undecoded::LinkType => format!(
                "{count} packets are of a link type that is not read here ({}): nothing is known of them",
                unknown.iter().cloned().collect::<Vec<_>>().join(", ")
            ),
            Undecoded::Cut => format!(
                "{count} packets were cut before their TCP flags: capture with a larger snap length (tcpdump -s 128)"
            ),
            Undecoded::Fragment => format!("{count} packets are later fragments, without a TCP header"),
            Undecoded::Malformed => format!("{count} packets have headers that contradict themselves"),
        })
        .collect()
}

/// The first rows that could not be read, and how many more there are.
pub(super) fn rows(unreadable: &[Unreadable]) -> Vec<String> {
    let shown = unreadable.iter().take(SHOWN);
    let mut texts: Vec<String> =
        shown.map(|row| format!("line {}: {}: \"{}\"", row.line, row.reason, row.text)).collect();
    let more = unreadable.len().saturating_sub(SHOWN);
    if more > 0 {
        texts.push(format!("{more} more rows could not be read"));
    }
    texts
}

pub(super) fn plural(count: usize, what: &str) -> String {
    match (count, what.ends_with('s')) {
        (1, _) => format!("1 {what}"),
        (_, true) => format!("{count} {what}es"),
        (_, false) => format!("{count} {what}s"),
    }
}

/// From what a listing says to a time.
struct Times<'a> {
    zone: Option<&'a TimeZone>,
    /// When the listing was written.
    modified: Nanos,
    /// Something other than full times was met, and which.
    guessed: Option<&'static str>,
    /// Every time had a date.
    dated: bool,
    last: Nanos,
}

impl<'a> Times<'a> {
    fn new(options: &'a Options, modified: Option<Nanos>) -> Self {
        let modified = modified.unwrap_or(options.now);
        Self { zone: options.zone.as_ref(), modified, guessed: None, dated: true, last: modified }
    }

    fn of(&mut self, time: ListedTime, line: u64) -> Nanos {
        self.dated &= matches!(time, ListedTime::Full(_) | ListedTime::Local(_));
        self.last = match time {
            ListedTime::Full(at) => at,
            ListedTime::Local(local) => {
                self.guess("without a time zone");
                self.utc(local)
            }
            ListedTime::TimeOfDay(of_day) => {
                self.guess("without date and time zone, taken as of the day on which the file was written");
                let midnight = self.modified.div_euclid(DAY) * DAY;
                self.utc(midnight.saturating_add(of_day))
            }
            ListedTime::Relative(since) => {
                self.guess("since its first packet, counted from when the file was written");
                self.modified.saturating_add(since)
            }
            ListedTime::Unknown => {
                self.guess("missing: only the order of its packets is known");
                self.modified.saturating_add(i64::try_from(line).unwrap_or(0) * 1000)
            }
        };
        self.last
    }

    fn guess(&mut self, what: &'static str) {
        self.guessed.get_or_insert(what);
    }

    fn utc(&self, local: Nanos) -> Nanos {
        let Some(zone) = self.zone else { return local };
        let Ok(stamp) = jiff::Timestamp::from_nanosecond(i128::from(local)) else { return local };
        let civil = TimeZone::UTC.to_datetime(stamp);
        let utc = zone.to_ambiguous_timestamp(civil).compatible();
        utc.ok().and_then(|utc| Nanos::try_from(utc.as_nanosecond()).ok()).unwrap_or(local)
    }

    fn sentence(&self) -> String {
        let Some(what) = self.guessed else { return String::new() };
        let zone = match (self.zone, what.contains("zone")) {
            (None, true) => "; read as UTC (--zone)",
            _ => "",
        };
        format!(", times {what}{zone}")
    }
}

/// Tells progress of what is read.
struct Watched<'a> {
    reader: &'a mut dyn Read,
    progress: &'a mut dyn Progress,
    unsaid: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        self.unsaid += count as u64;
        if self.unsaid >= STEP || count == 0 {
            self.progress.advance(self.unsaid);
            self.unsaid = 0;
        }
        Ok(count)
    }
}
