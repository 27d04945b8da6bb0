//! Verdicts in words that need no knowledge of IPVS.

use anstyle::Style;

use super::text_escape::{escape, escape_all};
use super::text_page::{GREEN, RED, YELLOW};
use crate::diagnosis::evidence;
use crate::diagnosis::incident::{Confidence, Incident, Outcome, Verdict};

/// The verdict as one word in capitals, and its colour.
pub(super) fn tag(incident: &Incident) -> (&'static str, Style) {
    match (incident.verdict, incident.outcome) {
        (Verdict::Collision, Outcome::Survived | Outcome::Pending) => ("COLLISION", YELLOW),
        (Verdict::Collision, _) => ("COLLISION", RED),
        (Verdict::CollisionSnat, _) => ("SNAT COLLISION", RED),
        (Verdict::ListenConflict, _) => ("LISTEN CONFLICT", RED),
        (Verdict::Exhaustion, _) => ("OUT OF PORTS", RED),
        (Verdict::ReuseDelay, _) => ("REUSE DELAY", YELLOW),
        (Verdict::OtherReset, _) => ("OTHER RESET", YELLOW),
        (Verdict::None, _) => ("FALSE ALARM", GREEN),
    }
}

/// `connect from A to B`
pub(super) fn connect(incident: &Incident) -> String {
    let from = incident
        .connection
        .local
        .as_deref()
        .map_or_else(String::new, |local| format!(" from {}", escape(local)));
    let to = incident
        .connection
        .remote
        .as_deref()
        .map_or_else(|| " to an unknown destination".to_owned(), |remote| format!(" to {}", escape(remote)));
    format!("connect{from}{to}")
}

pub(super) fn headline(incident: &Incident) -> String {
    let connect = connect(incident);
    let open = incident.duration_ms.is_none();
    let because = if is_port_known(incident) {
        "its source port belongs to an IPVS service"
    } else {
        "it looks as if its source port belonged to an IPVS service"
    };
    match (incident.verdict, incident.outcome) {
        (Verdict::Collision, Outcome::Survived) => format!("{connect} succeeded, although {because}"),
        (Verdict::Collision, Outcome::Pending) => format!("{connect} is at risk: {because}"),
        (Verdict::Collision, Outcome::Hijacked | Outcome::NoBackend) if open => {
            format!("{connect} cannot complete: {because}")
        }
        (Verdict::Collision, _) => format!("{connect} failed: {because}"),
        (Verdict::CollisionSnat, _) => {
            format!("{connect} failed: masquerading gave it a source port that belongs to an IPVS service")
        }
        (Verdict::ListenConflict, _) => listen_conflict(incident),
        (Verdict::Exhaustion, _) => format!("{connect} failed: no free source port was left"),
        (Verdict::ReuseDelay, _) if incident.confidence == Confidence::Possible => {
            format!("{connect} was delayed: its first SYN got no answer, as happens when a port is reused")
        }
        (Verdict::ReuseDelay, _) => {
            format!("{connect} was delayed: IPVS dropped its first SYN, as of a reused port")
        }
        (Verdict::OtherReset, _) if incident.confidence == Confidence::Possible => {
            format!("{connect} was reset; nothing shows that IPVS did it")
        }
        (Verdict::OtherReset, _) => format!("{connect} was reset, but not because of IPVS"),
        (Verdict::None, Outcome::Survived) => format!("{connect} succeeded; IPVS does not touch it"),
        (Verdict::None, _) => format!("{connect} did not fail because of IPVS"),
    }
}

/// What went on, for someone who never heard of IPVS.
pub(super) fn why(incident: &Incident) -> String {
    match (incident.verdict, incident.outcome) {
        (Verdict::Collision, outcome) => collision(incident, outcome),
        (Verdict::Exhaustion, _) => {
            "Every connection needs a source port of its own towards its destination, and the kernel found none that was free in \
             the range it may use. This has nothing to do with IPVS."
                .to_owned()
        }
        (Verdict::OtherReset, _) => other_reset(incident),
        (Verdict::None, Outcome::Survived) => {
            "The source port belongs to an IPVS service, but so does the destination: IPVS knows the reply and lets it pass."
                .to_owned()
        }
        (Verdict::None, _) => {
            "The source port belongs to an IPVS service, so the connect was watched; but it ended in a way that IPVS does not \
             cause."
                .to_owned()
        }
        (Verdict::CollisionSnat, _) => format!(
            "{} The socket's own source port is innocent: masquerading changed it on the way out.",
            rule(incident)
        ),
        (Verdict::ReuseDelay, _) if incident.confidence == Confidence::Possible => {
            "Only the second SYN to the service was answered. If the client had used the same source port towards the same service \
             a short while before, then IPVS, the part of the kernel that spreads the traffic of Kubernetes Services over their \
             backends, may have dropped the first SYN to forget the earlier connection. A packet that was simply lost looks the \
             same; the IPVS connection table (ipvsadm -Lnc) of that moment would tell."
                .to_owned()
        }
        (Verdict::ReuseDelay, _) => {
            "The client used a source port again that it had used a short while before, towards the same service. IPVS, the part \
             of the kernel that spreads the traffic of Kubernetes Services over their backends, still remembered the earlier \
             connection; it dropped the first packet to forget it, and the client's second attempt came through."
                .to_owned()
        }
        (Verdict::ListenConflict, _) => {
            "A port can have one holder. What the kernel gives a program as a source port, or what a program listens on, is no \
             longer free for a NodePort; and where IPVS has a service at an address and port, a program that listens there gets \
             nothing."
                .to_owned()
        }
    }
}

/// Whether the source port is known to be a service, or was seen treated as one.
fn is_port_known(incident: &Incident) -> bool {
    incident.service.is_some() || incident.hijack.is_some() || incident.confidence == Confidence::Proven
}

fn listen_conflict(incident: &Incident) -> String {
    let local = incident.connection.local.as_deref().unwrap_or_default();
    let port = local.rsplit_once(':').map_or(local, |(_, port)| port);
    match &incident.service {
        Some(_) => format!(
            "whoever listens on {} gets nothing: an IPVS service has that address and port",
            escape(local)
        ),
        None => format!("a NodePort could not be opened: port {} was taken", escape(port)),
    }
}

/// Why a reply can end up at a backend.
fn rule(incident: &Incident) -> String {
    let local = incident.connection.local.as_deref().map_or_else(|| "its source".to_owned(), escape);
    if !is_port_known(incident) {
        return format!(
            "IPVS is the part of the kernel that spreads the traffic of Kubernetes Services over their backends. It takes every \
             packet that asks to open a connection (SYN) to a service's address. The server's reply to this connect (the SYN-ACK) \
             has that mark too. If {local} is a service's address as well, IPVS does not look at the rest; whether it is, the \
             IPVS table of the node at that time tells (ipvsadm -Ln)."
        );
    }
    format!(
        "IPVS is the part of the kernel that spreads the traffic of Kubernetes Services over their backends. It takes every packet \
         that asks to open a connection (SYN) to a service's address. The server's reply to this connect (the SYN-ACK) has that \
         mark too, and it is addressed to {local}, which is a service's address as well. IPVS does not look at the rest."
    )
}

fn collision(incident: &Incident, outcome: Outcome) -> String {
    let who = process(incident);
    let what = match outcome {
        Outcome::Hijacked if incident.resets.is_empty() => format!(
            "So IPVS handed the reply to a backend of that service, which knows nothing of the connection. {who} never got the \
             reply and waited in vain."
        ),
        Outcome::Hijacked => format!(
            "So IPVS handed the reply to a backend of that service, which knows nothing of the connection and reset it. {who} \
             never got the reply and waited in vain."
        ),
        Outcome::NoBackend => format!(
            "That service has no backend that takes connections, so IPVS rejected the reply. {who} never got it and waited in \
             vain."
        ),
        Outcome::Survived => "IPVS normally hands such a reply to a backend, and the connect fails. This one got its reply all the \
                              same; the next one may not."
            .to_owned(),
        Outcome::Failed => format!(
            "IPVS normally hands such a reply to a backend, and the client waits in vain. That fits what {} met, but IPVS was \
             not seen doing it.",
            lower(&who)
        ),
        Outcome::Pending => "IPVS normally hands such a reply to a backend, and the client waits in vain. So far that was not seen \
                             here."
            .to_owned(),
    };
    format!("{} {what}", rule(incident))
}

/// The name of the process, to begin a sentence with.
fn process(incident: &Incident) -> String {
    incident.owner.comm.as_deref().map_or_else(|| "The process".to_owned(), escape)
}

fn upper(sentence: &str) -> String {
    sentence.strip_prefix("the ").map_or_else(|| sentence.to_owned(), |rest| format!("The {rest}"))
}

fn lower(who: &str) -> String {
    who.strip_prefix("The ").map_or_else(|| who.to_owned(), |rest| format!("the {rest}"))
}

fn other_reset(incident: &Incident) -> String {
    if incident.service.is_none() {
        let nothing = "Nothing shows that the source port belongs to an IPVS service";
        return match evidence::reason(incident) {
            Some(reason) if incident.confidence == Confidence::Possible => {
                format!("{}. {nothing}.", upper(&escape_all(reason)))
            }
            Some(reason) => {
                format!("{}. {nothing}, and a hijacked reply looks different.", upper(&escape_all(reason)))
            }
            None => format!("The handshake was cut off by a reset: see what happened. {nothing}."),
        };
    }
    let who = lower(&process(incident));
    let and = "The source port belongs to an IPVS service, but IPVS was not seen to touch this connection.";
    if incident.confidence == Confidence::Possible {
        return format!("This node's own TCP stack rejected the server's reply, no backend did. {and}");
    }
    format!(
        "The server's reply came after {who} had closed the socket, so this node's own TCP stack rejected it, as it should. In a \
         capture that looks exactly like a collision. {and}"
    )
}

/// The kubelet's log line, and how long after the connect it came.
pub(super) fn logged(incident: &Incident) -> Option<String> {
    let line = incident.log_lines.first()?;
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    let tenths =
        time(&line.at).zip(time(&incident.started_at)).map(|(at, start)| (at - start + 50).max(0) / 100);
    let later = tenths.map_or_else(String::new, |tenths| format!(" {}.{} s later", tenths / 10, tenths % 10));
    // The header repeats the time.
    let text = line.text.split_once("] ").map_or(line.text.as_str(), |(_, text)| text);
    let place = line.line.map_or_else(|| line.file.clone(), |number| format!("{}:{number}", line.file));
    Some(format!("kubelet logged it{later}: {} ({})", escape_all(text), escape(&place)))
}

/// Whether the connect failed, or will, because of what the verdict names.
pub(super) const fn is_failure(incident: &Incident) -> bool {
    match incident.verdict {
        Verdict::Collision => !matches!(incident.outcome, Outcome::Survived | Outcome::Pending),
        Verdict::CollisionSnat | Verdict::ListenConflict | Verdict::Exhaustion => true,
        Verdict::ReuseDelay | Verdict::OtherReset | Verdict::None => false,
    }
}

/// How sure, in a word.
pub(super) const fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Proven => "proven",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    }
}

/// How sure, in words; nothing for a false alarm.
pub(super) fn certainty(incident: &Incident) -> Option<String> {
    if incident.verdict == Verdict::None {
        return None;
    }
    let confidence = confidence(incident.confidence);
    let reason = match (incident.verdict, incident.outcome, incident.confidence) {
        (Verdict::Collision, Outcome::Hijacked, Confidence::Proven) if incident.hijack.is_some() => {
            "IPVS was seen handing the reply to a backend"
        }
        (Verdict::Collision, Outcome::Hijacked, Confidence::Proven) => {
            "a stack that has no part in this connection was seen resetting the reply"
        }
        (Verdict::Collision, Outcome::Hijacked, _) => {
            "the reply was reset from an address that has no part in this connection, but is not known to be a backend"
        }
        (Verdict::Collision, Outcome::NoBackend, Confidence::Proven) => "IPVS was seen rejecting the reply",
        (Verdict::Collision, Outcome::NoBackend, _) => {
            "the reply was rejected as IPVS does it, but nothing that was given shows the source port as a service"
        }
        (Verdict::Collision, Outcome::Survived, Confidence::Proven) => {
            "IPVS was seen taking a reply, and yet the handshake completed"
        }
        (Verdict::Collision, Outcome::Survived, _) => {
            "the handshake completed; IPVS was not seen to interfere"
        }
        (Verdict::Collision, _, Confidence::Possible) if incident.service.is_none() => {
            "it looks like a collision, but no IPVS table was given that could show the source port as a service"
        }
        (Verdict::Collision, _, Confidence::Possible) => {
            "the source port belongs to a service, but nothing shows what became of the reply"
        }
        (Verdict::Collision, _, _) if incident.resets.is_empty() => {
            "the service exists and the connect waits in vain, but IPVS itself was not seen"
        }
        (Verdict::Collision, _, _) => {
            "the reply was reset while the client still waited, but IPVS itself was not seen"
        }
        (Verdict::Exhaustion, _, _) => "the kernel said so itself (EADDRNOTAVAIL)",
        (Verdict::OtherReset, _, Confidence::Likely) if incident.service.is_none() => {
            "the packets themselves show why"
        }
        (Verdict::OtherReset, _, _) if incident.service.is_none() => {
            "a reset was seen, but not everything that led to it"
        }
        (Verdict::CollisionSnat, _, Confidence::Proven) => "IPVS was seen handing the reply to a backend",
        (Verdict::CollisionSnat, _, _) => {
            "the port on the wire belongs to a service, but IPVS itself was not seen"
        }
        (Verdict::ReuseDelay, _, Confidence::Possible) => {
            "the first SYN to the service got no answer and the second did; a packet that was simply lost looks the same"
        }
        (Verdict::ReuseDelay, _, _) => "an earlier connection with the same ports was still remembered",
        (Verdict::ListenConflict, _, _) => "the log or the list of sockets says so",
        (Verdict::OtherReset, _, Confidence::Possible) => {
            "the reset came from this side, but the order of events is unclear"
        }
        (Verdict::OtherReset, _, _) => "the socket was closed before the reply was reset",
        _ => "see what happened",
    };
    Some(format!("{confidence}: {reason}"))
}
