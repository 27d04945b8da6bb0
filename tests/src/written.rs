//! A capture that `portclash trace --write` made, read back: by the reader of captures for what everybody sees, and block
//! by block for comments, directions and our own JSON.

use anyhow::{Context, Result, ensure};
use probe_user::capture::{self, Account, Decoded, LinkType};
use probe_user::capture::{CUSTOM, ENTERPRISE};
use probe_user::report::pcapng::Direction;
use serde_json::Value;

/// One packet.
#[derive(Debug)]
pub struct Packet {
    /// Nanoseconds since the Unix epoch.
    pub at: i64,
    /// Name of its interface.
    pub interface: String,
    /// Which way it went there.
    pub direction: Option<Direction>,
    /// What is said about it.
    pub comments: Vec<String>,
    /// What it is.
    pub decoded: Decoded,
    /// Bytes that were kept, and its length on the wire.
    pub lengths: (usize, u32),
}

/// A whole file.
#[derive(Debug)]
pub struct Written {
    /// What the reader says about it.
    pub account: Account,
    /// `if_description` of each interface.
    pub descriptions: Vec<String>,
    /// Packets in the order of the file.
    pub packets: Vec<Packet>,
    /// JSON of ours.
    pub json: Vec<Value>,
}

/// Reads a file.
pub fn read(path: &str) -> Result<Written> {
    let file = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    let mut frames = Vec::new();
    let account = capture::read(&*file, &mut |frame| {
        frames.push((frame.at, frame.interface, frame.link, frame.bytes.to_vec(), frame.original));
    })?;
    ensure!(account.damaged == 0 && !account.cut, "{path}: {:?}", account.notes);
    let blocks = blocks(&file)?;
    let mut said =
        blocks.iter().filter(|(kind, _)| *kind == 6).map(|(_, body)| options(body, packet_end(body)));
    let mut packets = Vec::new();
    for (at, interface, link, bytes, original) in frames {
        let options = said.next().context("fewer blocks than frames")?;
        packets.push(Packet {
            at: at.context("a packet without a time")?,
            interface: account
                .interfaces
                .get(interface as usize)
                .and_then(|interface| interface.name.clone())
                .context("an interface without a name")?,
            direction: direction(&options),
            comments: texts(&options, 1),
            decoded: decoded(link, &bytes)?,
            lengths: (bytes.len(), original),
        });
    }
    let custom =
        blocks.iter().filter(|(kind, body)| *kind == CUSTOM && body.starts_with(&ENTERPRISE.to_le_bytes()));
    let json = custom.map(|(_, body)| serde_json::from_slice(body.get(4..).unwrap_or_default()));
    Ok(Written {
        descriptions: blocks
            .iter()
            .filter(|(kind, _)| *kind == 1)
            .flat_map(|(_, body)| texts(&options(body, 8), 3))
            .collect(),
        json: json.collect::<Result<_, _>>()?,
        packets,
        account,
    })
}

fn decoded(link: LinkType, bytes: &[u8]) -> Result<Decoded> {
    capture::decode(link, bytes).map_err(|error| anyhow::anyhow!("a packet cannot be read: {error:?}"))
}

/// Kind and body of every block.
fn blocks(mut file: &[u8]) -> Result<Vec<(u32, &[u8])>> {
    let mut blocks = Vec::new();
    while let (Some(kind), Some(length)) = (word(file, 0), word(file, 4)) {
        let block = file.get(..length as usize).context("a block that is cut")?;
        ensure!(word(block, block.len() - 4) == Some(length), "a block with two lengths");
        blocks.push((kind, block.get(8..block.len() - 4).unwrap_or_default()));
        file = file.get(length as usize..).unwrap_or_default();
    }
    ensure!(file.is_empty(), "{} bytes after the last block", file.len());
    Ok(blocks)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn packet_end(body: &[u8]) -> usize {
    20 + (word(body, 12).unwrap_or(0) as usize).next_multiple_of(4)
}

fn options(body: &[u8], from: usize) -> Vec<(u16, &[u8])> {
    let mut rest = body.get(from..).unwrap_or_default();
    let mut options = Vec::new();
    while let Some(head) = word(rest, 0) {
        let (code, length) = ((head & 0xffff) as u16, (head >> 16) as usize);
        if code == 0 {
            break;
        }
        options.push((code, rest.get(4..4 + length).unwrap_or_default()));
        rest = rest.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
    }
    options
}

fn texts(options: &[(u16, &[u8])], wanted: u16) -> Vec<String> {
    let values = options.iter().filter(|(code, _)| *code == wanted);
    values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

fn direction(options: &[(u16, &[u8])]) -> Option<Direction> {
    let flags = options.iter().find(|(code, _)| *code == 2).and_then(|(_, value)| word(value, 0))?;
    match flags & 3 {
        1 => Some(Direction::Inbound),
        2 => Some(Direction::Outbound),
        _ => None,
    }
}
