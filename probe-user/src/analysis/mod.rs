//! After the fact: from captures, dumps, lists and logs to incidents, through the same diagnosis as live tracing. Pure:
//! what reads files is [`crate::sources::offline`].

mod conclude;
mod earlier;
mod gather;
mod handshake_picture;
mod listeners;
pub mod material;
pub mod model;
mod ports;
pub mod requests;
mod zones;

use std::sync::Arc;

pub use conclude::conclude;

use crate::handshakes::{Counts, Joined, Seen};
use crate::observation::Nanos;

/// An input that holds packets.
#[derive(Clone, Debug)]
pub struct PacketInput {
    /// Its name.
    pub name: Arc<str>,
    /// Names of its interfaces, in the order of their numbers; `None` where the file does not name it.
    pub interfaces: Vec<Option<String>>,
    /// What one of its packets is called: `packet` of a capture, `line` of a listing.
    pub unit: &'static str,
    /// What was counted.
    pub counts: Counts,
}

/// Packets of all inputs.
#[derive(Debug, Default)]
pub struct Packets {
    /// The inputs, by number.
    pub inputs: Vec<PacketInput>,
    /// Their handshakes.
    pub joined: Joined,
}

impl Packets {
    /// `pod.pcap eth0`, `pod.pcap` where it has one interface without a name.
    fn place(&self, input: u32, place: u32) -> Arc<str> {
        let Some(input) = self.inputs.get(input as usize) else { return Arc::from("an unknown input") };
        match input.interfaces.get(place as usize) {
            Some(Some(name)) => format!("{} {name}", input.name).into(),
            _ if input.interfaces.len() > 1 => format!("{} interface {place}", input.name).into(),
            _ => Arc::clone(&input.name),
        }
    }

    /// `pod.pcap eth0, packet 651`
    fn place_of(&self, seen: &Seen) -> String {
        let unit = self.inputs.get(seen.input as usize).map_or("packet", |input| input.unit);
        format!("{}, {unit} {}", self.place(seen.input, seen.place), seen.number)
    }

    /// Time of the last packet of an input, on the clock of those it was joined with.
    fn end(&self, input: u32) -> Option<Nanos> {
        let (_, end) = self.inputs.get(input as usize)?.counts.span?;
        let ahead = self.joined.clocks.iter().find(|clock| clock.input == input && !clock.agrees());
        Some(end.saturating_sub(ahead.map_or(0, |clock| clock.ahead_ns)))
    }
}

pub mod picture;
pub mod redact;
#[cfg(test)]
mod tests;
