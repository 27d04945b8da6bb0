//! What is said about a packet in a capture: whose it is, and what it does there.

use std::net::SocketAddr;

use super::text_escape::escape;
use crate::capture::{Decoded, Flags, LinkType, Segment, Unreachable, decode};
use crate::diagnosis::incident::{Confidence, Incident, Outcome, Verdict};

/// Words for a packet of the connection of `incident`: who, then why.
pub fn comments(incident: &Incident, link: LinkType, bytes: &[u8]) -> Vec<String> {
    let mut comments = vec![who(incident)];
    comments.extend(why(incident, link, bytes));
    comments
}

/// `collision, hijacked (proven): kubelet (pid 812), readiness probe of pod default/web, connects from …`
pub fn who(incident: &Incident) -> String {
    let owner = &incident.owner;
    let mut who = owner.comm.as_deref().map_or_else(|| "an unknown process".to_owned(), escape);
    if let Some(pid) = owner.pid {
        who = format!("{who} (pid {pid})");
    }
    if let Some(probe) = &incident.probe {
        let (kind, pod) = (escape(&probe.r#type), &probe.pod);
        who = format!("{who}, {kind} probe of pod {}/{},", escape(&pod.namespace), escape(&pod.name));
    }
    let judged = match (incident.verdict, incident.outcome) {
        (Verdict::None, _) => "no incident".to_owned(),
        (verdict, outcome) => {
            format!("{}, {} ({})", verdict_word(verdict), outcome_word(outcome), sure(incident.confidence))
        }
    };
    format!(
        "{judged}: {who} connects from {}{} to {}; incident {}",
        known(incident.connection.local.as_deref()),
        service(incident),
        known(incident.connection.remote.as_deref()),
        incident.id
    )
}

fn service(incident: &Incident) -> String {
    let Some(service) = &incident.service else { return String::new() };
    match &service.name {
        Some(name) => {
            format!(", which is the address of IPVS service {} ({}),", service.address, escape(name))
        }
        None => format!(", which is the address of IPVS service {},", service.address),
    }
}

fn known(address: Option<&str>) -> &str {
    address.unwrap_or("an unknown address")
}

const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Collision => "collision",
        Verdict::CollisionSnat => "collision after masquerading",
        Verdict::ListenConflict => "conflict of a listener",
        Verdict::Exhaustion => "no free source port",
        Verdict::ReuseDelay => "delayed by a reused port",
        Verdict::OtherReset => "reset for another reason",
        Verdict::None => "no incident",
    }
}

const fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hijacked => "reply hijacked",
        Outcome::NoBackend => "no backend",
        Outcome::Survived => "survived",
        Outcome::Failed => "failed",
        Outcome::Pending => "pending",
    }
}

const fn sure(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Proven => "proven",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    }
}

/// Who is who in an incident.
struct Parties {
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    backend: Option<SocketAddr>,
    hijacked: bool,
}

impl Parties {
    fn of(incident: &Incident) -> Self {
        let parse = |text: Option<&String>| text.and_then(|text| text.parse().ok());
        Self {
            local: parse(incident.connection.local.as_ref()),
            remote: parse(incident.connection.remote.as_ref()),
            backend: parse(incident.hijack.as_ref().map(|hijack| &hijack.backend)),
            hijacked: incident.outcome == Outcome::Hijacked,
        }
    }

    fn segment(&self, segment: &Segment) -> String {
        let (from, to) = (Some(segment.source), Some(segment.destination));
        let translated = [from, to].into_iter().any(|end| end != self.local && end != self.remote);
        if segment.flags.is_syn() {
            return with_translation("SYN of the connect", from, self.local, translated);
        }
        if segment.flags.is_syn_ack() {
            if to.is_some() && to == self.backend {
                return format!(
                    "the SYN-ACK as IPVS rewrote it: to backend {}, as if it were a new connection to the service",
                    segment.destination
                );
            }
            return with_translation("SYN-ACK: the reply to the connect", from, self.remote, translated);
        }
        if segment.flags.is_rst() {
            return self.reset(segment, translated);
        }
        let what = if segment.payload.is_some_and(|bytes| bytes > 0) {
            "first data of the connection (headers only)"
        } else if segment.flags.0 & Flags::FIN != 0 {
            "FIN: closed without having sent anything"
        } else {
            "ACK: the handshake is complete"
        };
        what.to_owned()
    }

    fn reset(&self, segment: &Segment, translated: bool) -> String {
        let (from, to) = (Some(segment.source), Some(segment.destination));
        if from == self.backend && from.is_some() {
            return format!(
                "RST of backend {}, which knows nothing of the connection that the SYN-ACK answers",
                segment.source
            );
        }
        if from == self.local && to == self.remote {
            return if self.hijacked {
                "RST of the backend as IPVS translated it back: it seems to come from the client".to_owned()
            } else {
                "RST from the client's address".to_owned()
            };
        }
        if from == self.remote {
            return "RST from the server: it refuses the connection, or aborts it".to_owned();
        }
        if translated { "RST, translated".to_owned() } else { "RST".to_owned() }
    }

    fn unreachable(&self, unreachable: &Unreachable) -> String {
        let what = if unreachable.is_port() { "port unreachable" } else { "destination unreachable" };
        let quoted = (Some(unreachable.source), Some(unreachable.destination));
        if quoted == (self.remote, self.local) {
            format!(
                "ICMP {what} in answer to the SYN-ACK: IPVS took it for a new connection to the service, which has no \
                 backend"
            )
        } else if quoted == (self.local, self.remote) {
            format!("ICMP {what} in answer to the SYN")
        } else {
            format!("ICMP {what} about a packet of the connection")
        }
    }
}

fn with_translation(
    what: &str,
    from: Option<SocketAddr>,
    sender: Option<SocketAddr>,
    translated: bool,
) -> String {
    match (translated, from == sender || sender.is_none()) {
        (false, _) => what.to_owned(),
        (true, true) => format!("{what}, its destination translated"),
        (true, false) => format!("{what}, its source translated"),
    }
}

fn why(incident: &Incident, link: LinkType, bytes: &[u8]) -> Option<String> {
    let parties = Parties::of(incident);
    match decode(link, bytes).ok()? {
        Decoded::Tcp(segment) => Some(parties.segment(&segment)),
        Decoded::Unreachable(unreachable) => Some(parties.unreachable(&unreachable)),
        Decoded::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture;
    use crate::report::samples;

    fn said(incident: &Incident, bytes: &[u8]) -> String {
        comments(incident, LinkType::RAW, bytes).pop().unwrap()
    }

    /// An IPv4 header and what follows it.
    fn v4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(from.iter().chain(&to).chain(payload));
        packet
    }

    fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
        let [from, to] = [from, to].map(u16::to_be_bytes);
        [&from[..], &to, &[0; 8], &[0x50, flags], &[0; 6]].concat()
    }

    const NODE: [u8; 4] = [10, 23, 77, 129];
    const POD: [u8; 4] = [10, 23, 77, 138];

    #[test]
    fn every_packet_of_the_labs_collision_says_who_and_why() {
        let file = include_bytes!("../../tests/captures/lab-6.1-trace.pcapng");
        let mut lines = Vec::new();
        capture::read(&file[..], &mut |frame| {
            let comments = comments(&samples::hijacked(), frame.link, frame.bytes);
            assert_eq!(comments.len(), 2);
            lines.extend(comments);
        })
        .unwrap();
        let mut seen = std::collections::BTreeSet::new();
        lines.retain(|line| seen.insert(line.clone()));
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn an_icmp_error_says_which_packet_it_answers() {
        let about = |from, to, ports: [u16; 2]| {
            let quoted = v4(6, from, to, &tcp(ports[0], ports[1], 0x12));
            v4(1, NODE, from, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat())
        };
        let incident = samples::no_backend();
        let text = said(&incident, &about(POD, NODE, [80, 36704]));
        assert!(text.starts_with("ICMP port unreachable in answer to the SYN-ACK: IPVS"), "{text}");
        assert_eq!(
            said(&incident, &about(NODE, POD, [36704, 80])),
            "ICMP port unreachable in answer to the SYN"
        );
    }

    #[test]
    fn what_is_translated_is_said_to_be() {
        let incident = samples::hijacked();
        let other = [10, 0, 0, 1];
        let segment = |from, to, ports: [u16; 2], flags| {
            said(&incident, &v4(6, from, to, &tcp(ports[0], ports[1], flags)))
        };
        assert_eq!(segment(other, POD, [36704, 80], 2), "SYN of the connect, its source translated");
        assert_eq!(segment(NODE, other, [36704, 80], 2), "SYN of the connect, its destination translated");
        assert_eq!(
            segment(POD, NODE, [80, 36704], 4),
            "RST from the server: it refuses the connection, or aborts it"
        );
        assert_eq!(segment(NODE, POD, [36704, 80], 16), "ACK: the handshake is complete");
        assert_eq!(segment(NODE, POD, [36704, 80], 17), "FIN: closed without having sent anything");
        // The same bytes mean something else where nothing was hijacked: the client's own stack.
        let survived = samples::survived();
        assert_eq!(said(&survived, &v4(6, NODE, POD, &tcp(36704, 80, 4))), "RST from the client's address");
    }

    #[test]
    fn names_from_outside_cannot_change_the_text() {
        let mut incident = samples::hijacked();
        incident.owner.comm = Some("a\n\u{202e}b".to_owned());
        incident.owner.pid = None;
        incident.probe = None;
        assert!(who(&incident).contains("a\\n\\u{202e}b connects from"), "{}", who(&incident));
        incident.owner.comm = None;
        assert!(who(&incident).contains("an unknown process connects from"));
    }
}
