//! The kinds of files that people bring for an analysis.

use std::io::Read;

use crate::capture::listing::{self, ListingForm};
use crate::capture::{self, Decoded, decode};
use crate::inputs::{Limits, SAMPLE, Sources, incidents, looks_like, recognise, settings};
use crate::ipvs::{self, Content};
use crate::kubernetes::pod_text;
use crate::node::conntrack_text;
use crate::{access_log, ipvs::MAX_UNREADABLE};

/// Hands out a few bytes at a time: where a stream is cut must decide nothing.
struct Slowly<'a>(&'a [u8]);

impl Read for Slowly<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = into.len().min(7);
        let (now, later) = self.0.split_at_checked(count).unwrap_or((self.0, &[]));
        self.0 = later;
        (&*now).read(into)
    }
}

/// Any bytes as a capture. The same frames come out however the stream is cut.
pub fn capture(bytes: &[u8]) {
    let read = |input: &mut dyn Read| {
        let (mut frames, mut decoded, mut taken) = (0_u64, Vec::new(), 0);
        let account = capture::read(input, &mut |frame| {
            taken += frame.bytes.len();
            frames += 1;
            decoded.push(decode(frame.link, frame.bytes));
        });
        if let Ok(account) = &account {
            assert_eq!(account.frames, frames);
        }
        (account.ok(), decoded, taken)
    };
    let (account, decoded, taken) = read(&mut &*bytes);
    let compressed = capture::Compression::recognise(bytes).is_some();
    if !compressed {
        assert!(taken <= bytes.len(), "frames overlap");
        assert_eq!(read(&mut Slowly(bytes)), (account, decoded.clone(), taken));
    }
    for packet in decoded.into_iter().flatten() {
        if let Decoded::Tcp(segment) = packet {
            assert!(segment.source.is_ipv4() == segment.destination.is_ipv4());
        }
    }
}

/// Any bytes as a listing of packets, in either form.
pub fn packet_listing(bytes: &[u8]) {
    for form in [ListingForm::Tcpdump, ListingForm::Wireshark] {
        let read = |input: &mut dyn Read| {
            let mut packets = Vec::new();
            let account = listing::read(input, form, &mut |listed| packets.push(listed));
            (account, packets)
        };
        let (account, packets) = read(&mut &*bytes);
        assert_eq!(account.packets, packets.len() as u64);
        let counted = account.packets + account.other + account.unreadable.len() as u64;
        assert!(counted <= account.lines + 1, "{counted} packets in {} lines", account.lines);
        assert!(packets.iter().all(|packet| (1..=account.lines).contains(&packet.line)));
        assert_eq!(read(&mut Slowly(bytes)), (account, packets));
    }
}

/// Any bytes as a connection tracking table.
pub fn conntrack(bytes: &[u8]) {
    let mut rows = Vec::new();
    let account = conntrack_text::read(bytes, &mut |row| rows.push(row));
    let counted = account.rows + account.other_protocols + account.unreadable.len() as u64;
    assert!(counted <= account.lines + 1);
    assert!(rows.iter().all(|row| row.state.as_ref().is_none_or(|state| state.len() <= 128)));
}

/// Any bytes as an access log. No query is kept.
pub fn access_log(bytes: &[u8]) {
    let mut requests = Vec::new();
    let account = access_log::read(bytes, &mut |request| requests.push(request));
    assert!(account.requests + account.other + account.unreadable.len() as u64 <= account.lines + 1);
    assert!(requests.iter().all(|request| !request.path.contains(['?', '#'])));
}

/// Any bytes as a file of an unknown kind, or an archive of such files: nothing is read beyond its limit.
pub fn inputs(bytes: &[u8]) {
    const LIMIT: u64 = 1 << 20;
    let limits = Limits { files: 100, unpacked: LIMIT, text: 1 << 16, ..Limits::default() };
    let (mut sum, mut files) = (0, 0);
    let walked = Sources::of_bytes("in", bytes, limits).visit(&mut |found| {
        assert!(!found.name.chars().any(char::is_control), "{:?}", found.name);
        let mut content = Vec::new();
        let _ = found.content.read_to_end(&mut content);
        if content.len() < SAMPLE / 2 {
            assert_eq!(found.kind, recognise(&content), "what is read is what was recognised");
        }
        sum += content.len() as u64;
        files += 1;
    });
    assert!(sum <= LIMIT.max(bytes.len() as u64) && files <= 100 && walked.files <= 101);
    looks_like(bytes);
    pod_text::parse(bytes);
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let read = settings::parse(bytes);
    assert!(read.invalid.iter().all(|row| row.line <= lines));
    let mut records = 0;
    let account = incidents::read(bytes, &mut |_| records += 1);
    assert_eq!(account.incidents + account.summaries, records);
    assert!(account.unreadable.len() <= MAX_UNREADABLE + 1);
    if let Ok(parsed) = ipvs::parse_services(bytes)
        && let Content::Services(table) = parsed.content
    {
        ipvs::cut_short(&table, ipvs::last_address(bytes));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{mutate, steps};
    use super::*;

    const LISTINGS: [&str; 2] = [
        include_str!("../../tests/seed/capture-listing.txt"),
        include_str!("../../tests/seed/tcpdump-lo.txt"),
    ];
    const LOG: &str = include_str!("../../tests/seed/nginx-access.log");
    const TABLE: &str = "[1663268942.533940]\t    [NEW] ipv4 2 tcp 6 120 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=46128 dport=80 \
         [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=80 dport=46128 mark=0 use=1\nicmp 1 29 src=10.0.0.1 dst=10.0.0.2 \
         type=8 code=0 id=7 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7\n";

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for text in [LISTINGS[0], LOG, TABLE, include_str!("../../tests/seed/ipvsadm.txt")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, "a".repeat(120), text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn arbitrary_files(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            capture(&bytes);
            packet_listing(&bytes);
            conntrack(&bytes);
            access_log(&bytes);
            inputs(&bytes);
        }

        #[test]
        fn mutated_listings(seed in 0..LISTINGS.len(), steps in steps()) {
            packet_listing(&mutate(LISTINGS[seed].as_bytes().to_vec(), &steps));
        }

        #[test]
        fn mutated_rows(steps in steps()) {
            conntrack(&mutate(TABLE.as_bytes().to_vec(), &steps));
            access_log(&mutate(LOG.as_bytes().to_vec(), &steps));
        }

        #[test]
        fn mutated_archives(steps in steps()) {
            inputs(&mutate(archive(), &steps));
        }
    }
}
