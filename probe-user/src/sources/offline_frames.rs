//! Frames of captures that were read before, taken out by their numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::analysis::model::PacketRef;
use crate::capture::{self, LinkType};
use crate::inputs::{Kind, Sources};
use crate::observation::Nanos;

/// Bytes kept of one frame: the headers of any tunnel; payload is nobody's business.
const MAX_FRAME: usize = 512;
/// Frames taken out at most.
const MAX_FRAMES: usize = 262_144;

/// A frame of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenFrame {
    /// Which one.
    pub packet: PacketRef,
    /// Interface of its input.
    pub interface: u32,
    /// Name of that interface, if the input has it.
    pub interface_name: Option<String>,
    /// How its first header is to be read.
    pub link: LinkType,
    /// Its beginning.
    pub bytes: Vec<u8>,
    /// Its length on the wire.
    pub original: u32,
}

/// Takes the frames out, in the order of time. Listings have none. Also says how many were left out as too many.
pub fn take(sources: &Sources, wanted: &BTreeSet<PacketRef>) -> (Vec<TakenFrame>, u64) {
    let by_place: BTreeMap<(u32, u64), Nanos> =
        wanted.iter().map(|packet| ((packet.input, packet.number), packet.at)).collect();
    let inputs: BTreeSet<u32> = wanted.iter().map(|packet| packet.input).collect();
    let (mut taken, mut left_out): (Vec<TakenFrame>, u64) = (Vec::new(), 0);
    let mut input = 0;
    sources.visit(&mut |found| {
        let number = input;
        match found.kind {
            Some(Kind::Capture(_)) => input += 1,
            Some(Kind::PacketListing(_)) => return input += 1,
            _ => return,
        }
        if !inputs.contains(&number) {
            return;
        }
        let (first, mut count) = (taken.len(), 0);
        let read = capture::read(found.content, &mut |frame| {
            count += 1;
            let Some(at) = by_place.get(&(number, count)) else { return };
            if taken.len() >= MAX_FRAMES {
                left_out += 1;
                return;
            }
            taken.push(TakenFrame {
                packet: PacketRef { input: number, number: count, at: *at },
                interface: frame.interface,
                interface_name: None,
                link: frame.link,
                bytes: frame.bytes.get(..MAX_FRAME).unwrap_or(frame.bytes).to_vec(),
                original: frame.original,
            });
        });
        let names = read.map(|account| account.interfaces).unwrap_or_default();
        for frame in taken.iter_mut().skip(first) {
            frame.interface_name = names.get(frame.interface as usize).and_then(|known| known.name.clone());
        }
    });
    taken.sort_by_key(|frame| (frame.packet.at, frame.packet));
    (taken, left_out)
}
