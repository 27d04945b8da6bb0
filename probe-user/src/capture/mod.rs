//! Captures: pcap and pcapng, compressed or not, to frames, and frames to what TCP and ICMP say in them.
//!
//! The container formats are read here and not by a library, because what matters most is what libraries get wrong:
//! time resolutions of powers of two, offsets in big-endian files, several link types in one file, and going on after
//! a block that is damaged. Reading is streaming: memory does not grow with the file.

mod decompress;
mod glance;
mod link;
pub mod listing;
mod packet;
mod pcap;
mod pcapng;
mod window;

use std::io::Read;

pub use decompress::{Compression, plain};
pub use glance::{Glance, glance};
pub use link::LinkType;
pub use packet::{Decoded, Flags, Segment, Undecoded, Unreachable, decode};

use crate::observation::Nanos;
pub use window::{HEADROOM, Pieces, read_piece};
use window::{Plain, Window};

/// Type of the pcapng block that holds our JSON: a custom block that programs which do not know it may copy.
pub const CUSTOM: u32 = 0x0000_0bad;

/// The Private Enterprise Number in our custom blocks. portclash has none of its own: this is the one that IANA keeps
/// for examples (RFC 5612), so it claims no vendor's name, and nobody may rely on it alone. What tells our blocks is
/// the `schema` of the JSON in them. The alternative, a block type of the range for local use, is no clearer and is not
/// copied by other programs.
pub const ENTERPRISE: u32 = 32_473;

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it was captured, nanoseconds since the Unix epoch; `None` in a pcapng Simple Packet Block.
    pub at: Option<Nanos>,
    /// Number of the interface in this file, counted over all sections.
    pub interface: u32,
    /// How its first header is to be read.
    pub link: LinkType,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was on the wire; at least as long as `bytes`, except in files that contradict themselves.
    pub original: u32,
}

/// An interface that a capture was made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its link type.
    pub link: LinkType,
    /// `if_name`, if the file has it.
    pub name: Option<String>,
    /// Packets that the capturing program lost (`isb_ifdrop` + `isb_osdrop`), if the file says so.
    pub dropped: Option<u64>,
}

/// Format of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// pcap (libpcap's file format).
    Pcap,
    /// pcapng.
    Pcapng,
}

/// What a capture was found to be, after it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Frames handed out.
    pub frames: u64,
    /// Interfaces in the order of their numbers.
    pub interfaces: Vec<Interface>,
    /// Records or blocks that are damaged and were skipped, and the first few of them in words.
    pub damaged: u64,
    /// What is to be said about the file, the first few: with the offset in the decompressed file.
    pub notes: Vec<String>,
    /// JSON that portclash put into the file beside its packets, one object each.
    pub attached: Vec<Vec<u8>>,
    /// Whether the file ends in the middle of a record, or reading had to stop before its end.
    pub cut: bool,
}

/// Notes that are kept of one file.
const MAX_NOTES: usize = 8;

impl Account {
    fn note(&mut self, text: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(text);
        }
    }

    fn damage(&mut self, text: String) {
        self.damaged += 1;
        self.note(text);
    }

    fn cut(&mut self, text: String) {
        self.cut = true;
        self.note(text);
    }
}

/// Why a capture could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The first bytes are of neither format.
    #[error("this is no pcap or pcapng file: it begins with {0}")]
    Unknown(String),
    /// Reading or decompressing failed before the first record.
    #[error("read the capture: {0}")]
    Read(#[from] std::io::Error),
}

/// Which format the first bytes of a decompressed file show; four are enough.
pub fn recognise(first: &[u8]) -> Option<Format> {
    match first.first_chunk::<4>()? {
        [0x0a, 0x0d, 0x0d, 0x0a] => Some(Format::Pcapng),
        magic if pcap::Order::of(*magic).is_some() => Some(Format::Pcap),
        _ => None,
    }
}

/// Reads a whole capture and hands every frame to `sink`. What comes before a damaged place is always handed out.
pub fn read(input: impl Read, sink: &mut dyn FnMut(Frame<'_>)) -> Result<Account, CaptureError> {
    read_pieces(Plain(plain(input)?), sink)
}

/// [`read`] for a stream that is decompressed and comes in pieces.
pub fn read_pieces<F: FnMut(Frame<'_>) + ?Sized>(
    input: impl Pieces,
    sink: &mut F,
) -> Result<Account, CaptureError> {
    let mut window = Window::new(input);
    let first = window.want(4)?.first_chunk::<4>().copied();
    let format = first.and_then(|first| recognise(&first));
    let mut account = Account::default();
    match format {
        Some(Format::Pcap) => pcap::read(&mut window, &mut account, sink),
        Some(Format::Pcapng) => pcapng::read(&mut window, &mut account, &mut |frame| sink(frame)),
        None => {
            let first = window.want(4)?;
            let shown: Vec<String> = first.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            let shown = if shown.is_empty() { "nothing: it is empty".to_owned() } else { shown.join(" ") };
            return Err(CaptureError::Unknown(shown));
        }
    }
    Ok(account)
}

#[cfg(test)]
mod tests;
