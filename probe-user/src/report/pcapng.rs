//! pcapng, written (draft-ietf-opsawg-pcapng): little-endian, nanoseconds, one call of `write_all` per block, so that a
//! file whose writer was killed ends after a whole block.

use std::io::{self, Write};

use crate::capture::{CUSTOM, ENTERPRISE, LinkType};
use crate::observation::Nanos;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const COMMENT: u16 = 1;
/// Longest value of an option.
const MAX_OPTION: usize = 65_535;

/// Who writes a section.
#[derive(Clone, Copy, Debug, Default)]
pub struct Section<'a> {
    /// `shb_hardware`
    pub hardware: &'a str,
    /// `shb_os`
    pub os: &'a str,
    /// `shb_userappl`
    pub application: &'a str,
    /// Comments on the whole section.
    pub comments: &'a [String],
}

/// An interface that packets were seen on.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceDescription<'a> {
    /// `if_name`
    pub name: &'a str,
    /// `if_description`; empty = none.
    pub description: &'a str,
    /// How the first header of its packets is to be read.
    pub link: LinkType,
    /// Most bytes of a packet that were kept; 0 = all.
    pub snap_len: u32,
}

/// Which way a packet went at its interface. The numbers are those of `epb_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// It came in.
    Inbound = 1,
    /// It went out.
    Outbound = 2,
}

/// A packet, or what was kept of it.
#[derive(Clone, Copy, Debug)]
pub struct PacketRecord<'a> {
    /// Number of its interface in this file.
    pub interface: u32,
    /// When it was seen.
    pub at: Nanos,
    /// What was kept.
    pub bytes: &'a [u8],
    /// Its length on the wire.
    pub original: u32,
    /// Which way it went, if that is known.
    pub direction: Option<Direction>,
    /// What is to be said about it.
    pub comments: &'a [String],
}

/// What an interface saw from the beginning of the capture on.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    /// Beginning of the capture.
    pub start: Nanos,
    /// When these numbers were taken.
    pub at: Nanos,
    /// Packets that were wanted (`isb_filteraccept`), those that were lost included.
    pub accepted: u64,
    /// Of them those that were lost (`isb_osdrop`).
    pub dropped: u64,
}

/// Writes one section.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    interfaces: u32,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn new(out: W, section: &Section<'_>) -> io::Result<Self> {
        let mut body = Body::default();
        body.u32(0x1a2b_3c4d).u16(1).u16(0).u64(u64::MAX);
        for comment in section.comments {
            body.text(COMMENT, comment);
        }
        body.text(2, section.hardware).text(3, section.os).text(4, section.application).end_of_options();
        let mut writer = Self { out, interfaces: 0, bytes: 0 };
        writer.block(SECTION, &body)?;
        Ok(writer)
    }

    /// Describes an interface and returns its number.
    pub fn interface(&mut self, interface: &InterfaceDescription<'_>) -> io::Result<u32> {
        let link = u16::try_from(interface.link.0).map_err(io::Error::other)?;
        let mut body = Body::default();
        body.u16(link).u16(0).u32(interface.snap_len);
        body.text(2, interface.name).text(3, interface.description).option(9, &[9]).end_of_options();
        self.block(INTERFACE, &body)?;
        let number = self.interfaces;
        self.interfaces += 1;
        Ok(number)
    }

    /// Writes a packet.
    pub fn packet(&mut self, packet: &PacketRecord<'_>) -> io::Result<()> {
        let captured = u32::try_from(packet.bytes.len()).map_err(io::Error::other)?;
        let mut body = Body::default();
        body.u32(packet.interface).time(packet.at).u32(captured).u32(packet.original.max(captured));
        body.padded(packet.bytes);
        for comment in packet.comments {
            body.text(COMMENT, comment);
        }
        if let Some(direction) = packet.direction {
            body.option(2, &(direction as u32).to_le_bytes());
        }
        body.end_of_options();
        self.block(ENHANCED_PACKET, &body)
    }

    /// Writes one JSON object of ours in a custom block, see [`ENTERPRISE`].
    pub fn custom_json(&mut self, json: &[u8]) -> io::Result<()> {
        let mut body = Body::default();
        // Whatever comes after the number is the enterprise's: the text, and blanks up to a whole word, which are no
        // part of a JSON object and save its length.
        body.u32(ENTERPRISE).bytes(json);
        body.0.resize(body.0.len().next_multiple_of(4), b' ');
        self.block(CUSTOM, &body)
    }

    /// Says what an interface saw and lost.
    pub fn statistics(&mut self, interface: u32, statistics: &Statistics) -> io::Result<()> {
        let mut body = Body::default();
        body.u32(interface).time(statistics.at);
        for (code, at) in [(2, statistics.start), (3, statistics.at)] {
            let mut time = Body::default();
            body.option(code, &time.time(at).0);
        }
        body.option(6, &statistics.accepted.to_le_bytes()).option(7, &statistics.dropped.to_le_bytes());
        body.option(8, &statistics.accepted.saturating_sub(statistics.dropped).to_le_bytes());
        body.end_of_options();
        self.block(STATISTICS, &body)
    }

    /// Bytes of whole blocks written so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    fn block(&mut self, kind: u32, body: &Body) -> io::Result<()> {
        let length = u32::try_from(body.0.len() + 12).map_err(io::Error::other)?;
        let mut block = Body::default();
        block.u32(kind).u32(length).bytes(&body.0).u32(length);
        self.out.write_all(&block.0)?;
        self.bytes += u64::from(length);
        Ok(())
    }
}

/// A block under construction.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(&mut self, number: u16) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Nanoseconds since the Unix epoch in two words, the upper one first. Times before it do not exist in pcapng.
    fn time(&mut self, at: Nanos) -> &mut Self {
        let at = u64::try_from(at).unwrap_or(0).to_le_bytes();
        let (low, high) = at.split_at(4);
        self.bytes(high).bytes(low)
    }

    fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        let value = value.get(..MAX_OPTION).unwrap_or(value);
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.u16(code).u16(length).padded(value)
    }

    /// UTF-8 text, cut between characters; nothing if it is empty.
    fn text(&mut self, code: u16, text: &str) -> &mut Self {
        let cut = text.get(..text.floor_char_boundary(MAX_OPTION)).unwrap_or_default();
        if cut.is_empty() { self } else { self.option(code, cut.as_bytes()) }
    }

    /// `opt_endofopt`
    fn end_of_options(&mut self) -> &mut Self {
        self.u16(0).u16(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture;

    fn record<'a>(bytes: &'a [u8], comments: &'a [String]) -> PacketRecord<'a> {
        PacketRecord {
            interface: 0,
            at: 1_700_000_000_123_456_789,
            bytes,
            original: 1500,
            direction: Some(Direction::Outbound),
            comments,
        }
    }

    fn written() -> Vec<u8> {
        let section =
            Section { hardware: "x86_64", os: "Linux 6.1", application: "portclash", comments: &[] };
        let mut writer = Writer::new(Vec::new(), &section).unwrap();
        let interface = InterfaceDescription {
            name: "eth0@4026532000",
            description: "a pod's",
            link: LinkType::ETHERNET,
            snap_len: 256,
        };
        assert_eq!(writer.interface(&interface).unwrap(), 0);
        assert_eq!(writer.interface(&InterfaceDescription { link: LinkType::RAW, ..interface }).unwrap(), 1);
        writer.packet(&record(b"five!", &["who".to_owned(), "why".to_owned()])).unwrap();
        writer.custom_json(br#"{"schema":"x/v1"}"#).unwrap();
        let statistics = Statistics { start: 1, at: 2, accepted: 7, dropped: 3 };
        writer.statistics(0, &statistics).unwrap();
        assert_eq!(writer.bytes(), writer.get_mut().len() as u64);
        std::mem::take(writer.get_mut())
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut frames = Vec::new();
        let account = capture::read(&*written(), &mut |frame| {
            frames.push((frame.at, frame.interface, frame.link, frame.bytes.to_vec(), frame.original));
        })
        .unwrap();
        assert_eq!(
            frames,
            [(Some(1_700_000_000_123_456_789), 0, LinkType::ETHERNET, b"five!".to_vec(), 1500)]
        );
        assert_eq!((account.damaged, account.cut, &*account.notes), (0, false, &[][..]));
        let [first, second] = &*account.interfaces else { panic!("{:?}", account.interfaces) };
        assert_eq!((first.name.as_deref(), first.dropped), (Some("eth0@4026532000"), Some(3)));
        assert_eq!((second.link, second.dropped), (LinkType::RAW, None));
    }

    #[test]
    fn json_is_found_whole_in_a_custom_block() {
        let file = written();
        let mut rest = &*file;
        let mut found = Vec::new();
        while let Some((head, _)) = rest.split_first_chunk::<8>() {
            let kind = u32::from_le_bytes(*head.first_chunk().unwrap());
            let length = u32::from_le_bytes(*head.last_chunk().unwrap()) as usize;
            assert_eq!(rest[length - 4..length], head[4..], "the length at both ends");
            if kind == CUSTOM {
                assert_eq!(rest[8..12], ENTERPRISE.to_le_bytes());
                found.push(serde_json::from_slice::<serde_json::Value>(&rest[12..length - 4]).unwrap());
            }
            rest = &rest[length..];
        }
        assert_eq!(found, [serde_json::json!({"schema": "x/v1"})]);
    }

    #[test]
    fn every_block_is_one_write() {
        struct Counting(usize, usize);
        impl Write for Counting {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                self.1 += bytes.len();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = Writer::new(Counting(0, 0), &Section::default()).unwrap();
        writer.packet(&record(b"", &[])).unwrap();
        assert_eq!(writer.get_mut().0, 2);
    }

    #[test]
    fn a_comment_is_cut_between_characters() {
        let mut writer = Writer::new(Vec::new(), &Section::default()).unwrap();
        writer.packet(&record(b"", &["€".repeat(40_000)])).unwrap();
        let file = std::mem::take(writer.get_mut());
        let at = file.windows(3).position(|three| three == "€".as_bytes()).unwrap();
        let length = usize::from(u16::from_le_bytes([file[at - 2], file[at - 1]]));
        assert_eq!(length, 65_535);
        assert!(std::str::from_utf8(&file[at..at + length]).is_ok());
    }

    /// Wireshark's own reader, where it is installed; nothing else here needs it.
    #[test]
    fn tshark_reads_it_without_complaint() {
        use std::process::Command;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("written.pcapng");
        std::fs::write(&path, written()).unwrap();
        let fields = [
            "-n",
            "-T",
            "fields",
            "-e",
            "frame.comment",
            "-e",
            "frame.interface_name",
            "-e",
            "frame.time_epoch",
        ];
        let Ok(output) = Command::new("tshark").arg("-r").arg(&path).args(fields).output() else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        let complaints = said.lines().filter(|line| !line.starts_with("Running as user"));
        assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
        let text = String::from_utf8_lossy(&output.stdout);
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(first, "who,why\teth0@4026532000\t1700000000.123456789");
    }
}
