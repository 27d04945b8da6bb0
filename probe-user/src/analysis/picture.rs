//! Pictures of an incident from what it says itself, for reports of incidents that come without packets.

use super::model::{Analysed, Arrow, ArrowKind, Ladder, Moment, Party, Role};
use crate::diagnosis::incident::{Evidence, Incident, Outcome};
use crate::observation::Nanos;

impl Analysed {
    /// An incident without packets: ladder and timeline are those of its own evidence.
    pub fn of_incident(incident: Incident) -> Self {
        let ladder = Ladder::of_incident(&incident);
        let timeline = timeline(&incident);
        Self { incident, timeline, ladder, packets: Vec::new() }
    }
}

/// The evidence as a timeline.
pub fn timeline(incident: &Incident) -> Vec<Moment> {
    let moment = |evidence: &Evidence| Moment {
        at: nanos(&evidence.at),
        source: evidence.source.clone(),
        text: evidence.text.clone(),
    };
    let facts = incident.evidence.iter().filter(|evidence| !crate::pods::naming::is_note(evidence));
    facts.map(moment).collect()
}

/// Nanoseconds since the Unix epoch of an RFC 3339 time.
pub fn nanos(at: &str) -> Option<Nanos> {
    at.parse::<jiff::Timestamp>().ok().and_then(|time| Nanos::try_from(time.as_nanosecond()).ok())
}

impl Ladder {
    /// The packets that the incident's fields and evidence tell of. What nobody saw but what follows from the rest is
    /// drawn without a time.
    pub fn of_incident(incident: &Incident) -> Self {
        let mut arrows = seen(incident);
        arrows.sort_by_key(|arrow| (arrow.at, stage(arrow.kind)));
        let arrows = with_what_follows(incident, arrows);
        Self { parties: parties(incident, &arrows), arrows }
    }
}

/// Packets of one instant in the order in which they happen.
fn stage(kind: ArrowKind) -> u8 {
    match kind {
        ArrowKind::Syn => 0,
        ArrowKind::SynAck => 1,
        ArrowKind::Hijacked | ArrowKind::Unreachable => 2,
        ArrowKind::Reset => 3,
        ArrowKind::Ack => 4,
    }
}

fn seen(incident: &Incident) -> Vec<Arrow> {
    let isn = incident.connection.isn.map_or_else(String::new, |isn| format!(" seq {isn}"));
    let first = incident.evidence.first().map_or_else(String::new, |evidence| evidence.source.clone());
    let syn = |at, label: String, place| Arrow {
        at,
        from: Role::Client,
        to: Role::Server,
        kind: ArrowKind::Syn,
        label,
        place,
    };
    // Without a local address no SYN left: connect() itself failed.
    let mut arrows = Vec::new();
    if incident.connection.local.is_some() {
        arrows.push(syn(nanos(&incident.started_at), format!("SYN{isn}"), first));
    }
    for evidence in &incident.evidence {
        let (at, place) = (nanos(&evidence.at), evidence.source.clone());
        let text = evidence.text.as_str();
        if text.contains("the SYN was sent again") {
            arrows.push(syn(at, format!("SYN again{isn}"), place));
        } else if text.starts_with("IPVS handed the reply") {
            let (kind, label) = (ArrowKind::Hijacked, "SYN-ACK handed to a backend".to_owned());
            arrows.push(Arrow { at, from: Role::Ipvs, to: Role::Backend, kind, label, place });
        } else if text.contains("ICMP port unreachable") {
            let (kind, label) = (ArrowKind::Unreachable, "ICMP port unreachable".to_owned());
            arrows.push(Arrow { at, from: Role::Ipvs, to: Role::Server, kind, label, place });
        } else if text == "the handshake completed" {
            let (kind, label) = (ArrowKind::Ack, "ACK: handshake complete".to_owned());
            arrows.push(Arrow { at, from: Role::Client, to: Role::Server, kind, label, place });
        }
    }
    let own = incident.connection.local.as_deref();
    arrows.extend(incident.resets.iter().map(|reset| Arrow {
        at: nanos(&reset.at),
        from: if own == Some(reset.local.as_str()) { Role::Client } else { Role::Backend },
        to: Role::Server,
        kind: ArrowKind::Reset,
        label: format!("RST seq {}", reset.seq),
        place: reset_place(incident, &reset.at),
    }));
    arrows
}

fn reset_place(incident: &Incident, at: &str) -> String {
    let source = incident.evidence.iter().find(|evidence| evidence.at == at && evidence.text.contains("RST"));
    source.map_or_else(|| "RST seen".to_owned(), |evidence| evidence.source.clone())
}

/// Adds the reply before each packet that it must have caused.
fn with_what_follows(incident: &Incident, arrows: Vec<Arrow>) -> Vec<Arrow> {
    let mut all = Vec::with_capacity(arrows.len() * 2);
    let mut replied = false;
    for arrow in arrows {
        let to = match arrow.kind {
            ArrowKind::Syn => {
                replied = false;
                None
            }
            ArrowKind::SynAck => {
                replied = true;
                None
            }
            ArrowKind::Hijacked | ArrowKind::Unreachable => Some(Role::Ipvs),
            ArrowKind::Ack => Some(Role::Client),
            ArrowKind::Reset if arrow.from == Role::Client => Some(Role::Client),
            ArrowKind::Reset => Some(Role::Backend),
        };
        if let Some(to) = to.filter(|_| !replied) {
            replied = true;
            let label = incident
                .connection
                .isn
                .map_or_else(|| "SYN-ACK".to_owned(), |isn| format!("SYN-ACK ack {}", isn.wrapping_add(1)));
            let (at, from, kind) = (None, Role::Server, ArrowKind::SynAck);
            all.push(Arrow { at, from, to, kind, label, place: String::new() });
        }
        all.push(arrow);
    }
    all
}

fn parties(incident: &Incident, arrows: &[Arrow]) -> Vec<Party> {
    let named = |role| arrows.iter().any(|arrow| arrow.from == role || arrow.to == role);
    let client = Party {
        role: Role::Client,
        title: incident.owner.comm.clone().unwrap_or_else(|| "client".to_owned()),
        address: incident.connection.local.clone(),
    };
    let ipvs = Party {
        role: Role::Ipvs,
        title: "IPVS on the node".to_owned(),
        address: incident.service.as_ref().map(|service| service.address.clone()),
    };
    let server = Party {
        role: Role::Server,
        title: incident.probe.as_ref().map_or_else(
            || "server".to_owned(),
            |probe| format!("pod {}/{}", probe.pod.namespace, probe.pod.name),
        ),
        address: incident.connection.remote.clone(),
    };
    let backend = incident.hijack.as_ref().map(|hijack| hijack.backend.clone());
    let own = incident.connection.local.as_ref();
    let resetting = incident.resets.iter().map(|reset| &reset.local).find(|local| Some(*local) != own);
    let backend = Party {
        role: Role::Backend,
        title: if incident.outcome == Outcome::Hijacked { "backend" } else { "whoever resets" }.to_owned(),
        address: backend.or_else(|| resetting.cloned()),
    };
    let always = [(client, true), (ipvs, incident.service.is_some()), (server, true), (backend, false)];
    always
        .into_iter()
        .filter(|(party, always)| *always || named(party.role))
        .map(|(party, _)| party)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn kinds(incident: &Incident) -> Vec<(ArrowKind, bool)> {
        let ladder = Ladder::of_incident(incident);
        let roles: Vec<Role> = ladder.parties.iter().map(|party| party.role).collect();
        for arrow in &ladder.arrows {
            assert!(roles.contains(&arrow.from) && roles.contains(&arrow.to), "{arrow:?} needs its columns");
            assert_eq!(arrow.at.is_none(), arrow.place.is_empty(), "{arrow:?}");
        }
        ladder.arrows.iter().map(|arrow| (arrow.kind, arrow.at.is_some())).collect()
    }

    #[test]
    fn a_hijack_shows_the_reply_that_nobody_saw_and_where_it_went() {
        use ArrowKind::{Hijacked, Reset, Syn, SynAck};
        let round = [(Syn, true), (SynAck, false), (Hijacked, true), (Reset, true)];
        assert_eq!(kinds(&samples::hijacked()), [round, round].concat());
    }

    #[test]
    fn other_endings() {
        use ArrowKind::{Ack, Syn, SynAck, Unreachable};
        assert!(kinds(&samples::no_backend()).contains(&(Unreachable, true)));
        let survived = kinds(&samples::survived());
        assert_eq!(survived, [(Syn, true), (Syn, true), (SynAck, false), (Ack, true)]);
        assert!(kinds(&samples::exhaustion()).is_empty(), "no SYN was sent");
        assert_eq!(kinds(&samples::pending()), [(Syn, true)]);
    }

    #[test]
    fn the_timeline_is_the_evidence_without_the_notes_about_names() {
        let incident = samples::named();
        let texts: Vec<String> = timeline(&incident).into_iter().map(|moment| moment.text).collect();
        assert_eq!(texts.len(), samples::hijacked().evidence.len());
        assert!(texts[0].contains("sent its first SYN"));
    }
}
