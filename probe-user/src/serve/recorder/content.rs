//! What one capture consists of, and its file.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::diagnosis::incident::Incident;
use crate::report::capture_file::{CaptureFile, Descriptions, Whose};
use crate::report::packet_comments::comments;
use crate::report::pcapng::Statistics;
use crate::sources::packets::{LivePacket, PacketDevice};

/// The packets of one incident.
pub(super) struct Capture {
    pub(super) incident: Arc<Incident>,
    pub(super) packets: Vec<LivePacket>,
    /// Packets that are not here because the connection had too many, by device.
    pub(super) beyond: BTreeMap<PacketDevice, u64>,
}

impl Capture {
    /// The whole file: packets with what is said about them, the incident, and what each interface saw. Looks up whose
    /// each namespace is.
    pub(super) fn content(&self, whose: Whose) -> io::Result<Vec<u8>> {
        let mut names = Descriptions::new(whose);
        let mut file = CaptureFile::new(Vec::new())?;
        let mut seen = self.beyond.clone();
        for packet in &self.packets {
            let comments = comments(&self.incident, packet.device.link, &packet.bytes);
            file.packet(packet, &comments, &mut names)?;
            *seen.entry(packet.device.clone()).or_default() += 1;
        }
        let times = || self.packets.iter().map(|packet| packet.at);
        let (start, at) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        file.custom_json(&serde_json::to_vec(&*self.incident).map_err(io::Error::other)?)?;
        file.statistics(|device| Statistics {
            start,
            at,
            accepted: seen.get(device).copied().unwrap_or(0),
            dropped: self.beyond.get(device).copied().unwrap_or(0),
        })?;
        Ok(std::mem::take(file.get_mut()))
    }
}
