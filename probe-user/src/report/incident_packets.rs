//! The packets of an analysis' incidents as one pcapng file: who they belong to in comments, the incidents as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::packet_comments::comments;
use super::pcapng::{InterfaceDescription, PacketRecord, Section, Writer};
use crate::analysis::model::Analysis;
use crate::analysis::redact::Redactor;
use crate::diagnosis::incident::Incident;
use crate::sources::offline_frames::TakenFrame;

/// Writes the frames, in the order given. `names` are those of the inputs. With a redactor, `analysis` and `names` are
/// already redacted, and the frames are made safe here; how many could not be is returned.
pub fn write(
    out: impl Write,
    analysis: &Analysis,
    frames: &[TakenFrame],
    names: &[String],
    mut redactor: Option<&mut Redactor>,
) -> io::Result<u64> {
    let application = concat!("portclash ", env!("CARGO_PKG_VERSION"));
    let section = Section { application, ..Section::default() };
    let mut writer = Writer::new(out, &section)?;
    let mut interfaces: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let owners: BTreeMap<_, &Incident> = analysis
        .incidents
        .iter()
        .flat_map(|analysed| analysed.packets.iter().map(|packet| (*packet, &analysed.incident)))
        .collect();
    let mut unsafe_frames = 0;
    for frame in frames {
        let Some(incident) = owners.get(&frame.packet) else { continue };
        let mut bytes = frame.bytes.clone();
        if let Some(redactor) = redactor.as_deref_mut() {
            let Some(kept) = redactor.packet(&mut bytes, frame.link) else {
                unsafe_frames += 1;
                continue;
            };
            bytes.truncate(kept);
        }
        let key = (frame.packet.input, frame.interface);
        let interface = if let Some(known) = interfaces.get(&key) {
            *known
        } else {
            let number = writer.interface(&describe(frame, names).as_description(frame))?;
            interfaces.insert(key, number);
            number
        };
        let comments = comments(incident, frame.link, &bytes);
        writer.packet(&PacketRecord {
            interface,
            at: frame.packet.at,
            bytes: &bytes,
            original: frame.original,
            direction: None,
            comments: &comments,
        })?;
    }
    for analysed in &analysis.incidents {
        writer.custom_json(&serde_json::to_vec(&analysed.incident)?)?;
    }
    Ok(unsafe_frames)
}

struct Names {
    name: String,
    description: String,
}

fn describe(frame: &TakenFrame, names: &[String]) -> Names {
    let input = names.get(frame.packet.input as usize).map_or("unknown input", String::as_str);
    let name = frame.interface_name.clone().unwrap_or_else(|| format!("interface {}", frame.interface));
    Names { description: format!("{name} of {input}"), name }
}

impl Names {
    fn as_description(&self, frame: &TakenFrame) -> InterfaceDescription<'_> {
        InterfaceDescription {
            name: &self.name,
            description: &self.description,
            link: frame.link,
            snap_len: 0,
        }
    }
}
