//! From the packets of a handshake to the observations that diagnosis reads.

mod otherwise;

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Connect, Coverage, Covered, PacketKind, Seen};
use crate::ipvs::table::{IpvsConnection, Protocol, Service};
use crate::observation::{Fact, Nanos, Observation, Tuple};

/// A client that still wants its connection sends its SYN again within this, after one or two attempts (1 s, 2 s, 4 s).
const SILENCE_NS: Nanos = 8_000_000_000;

const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

/// What surrounds a handshake.
pub struct Context<'a> {
    /// Which addresses are services.
    pub coverage: &'a Coverage,
    /// Name of an interface of an input.
    pub place: &'a dyn Fn(u32, u32) -> Arc<str>,
    /// Time of the last packet of an input, on the clock that the handshakes' times are on.
    pub end: &'a dyn Fn(u32) -> Option<Nanos>,
}

/// What a handshake says.
#[derive(Clone, Debug, PartialEq)]
pub enum Explained {
    /// It is about a connect that is worth telling.
    Connect {
        /// Addresses of the connect that the observations are about.
        tuple: Tuple,
        /// Whether its source is a service, and how that is known.
        covered: Covered,
        /// For diagnosis.
        observations: Vec<Observation>,
    },
    /// Replies to a connect that no input shows were reset by a backend of a service: they look hijacked.
    Astray {
        /// Who sent the reply.
        server: SocketAddr,
        /// Who reset it.
        backend: SocketAddr,
    },
}

/// What the packets say; `None` if there is nothing wrong with them, or nothing to tell.
pub fn explain(connect: &Connect, context: &Context<'_>) -> Option<Explained> {
    Explainer { connect, context, observations: Vec::new() }.explain()
}

struct Explainer<'a> {
    connect: &'a Connect,
    context: &'a Context<'a>,
    observations: Vec<Observation>,
}

impl Explainer<'_> {
    fn explain(mut self) -> Option<Explained> {
        let Some(own) = self.connect.tuple() else { return self.without_syn() };
        let coverage = self.context.coverage;
        let syns = self.connect.distinct(|seen| seen.kind == PacketKind::Syn);
        let hit = syns.iter().map(|syn| tuple_of(syn)).find(|tuple| coverage.is_service(tuple.local));
        let tuple = hit.unwrap_or(own);
        let covered = coverage.of(tuple.local);
        let strayed = self.strayed(hit.is_some());
        let rejected = covered != Covered::No && self.reply_rejected(own);
        if hit.is_none() && strayed.is_empty() && !rejected {
            self.explain_otherwise(own, &covered)?;
        } else {
            self.began(tuple, covered.service());
            if hit.is_none() && strayed.is_empty() {
                self.no_service(tuple);
            }
            if tuple.local != own.local {
                self.masqueraded(tuple, own.local);
            }
            self.hijacks(tuple, &strayed);
            self.resets(tuple, &strayed);
            self.refusals(tuple);
            self.ignored(tuple);
            self.end(tuple);
        }
        Some(Explained::Connect { tuple, covered, observations: self.observations })
    }

    /// Whether the reply was answered with ICMP port unreachable. A stack that knows nothing of it answers with a RST: only
    /// IPVS without a backend does so, or a firewall that is told to.
    fn reply_rejected(&self, tuple: Tuple) -> bool {
        let is_it = |seen: &Seen| {
            matches!(seen.kind, PacketKind::Unreachable { port: true, .. })
                && seen.destination == tuple.local
                && seen.source == tuple.remote
        };
        !self.connect.is_completed() && self.connect.seen.iter().any(is_it)
    }

    /// SYN-ACKs that went to somebody else than the client, as far as that cannot be mere address translation of which
    /// one side was not captured.
    fn strayed(&self, is_service: bool) -> Vec<Seen> {
        if self.connect.is_completed() && !is_service {
            return Vec::new();
        }
        let reset = |by: SocketAddr| self.connect.of(PacketKind::Reset).any(|rst| rst.source == by);
        let is_handed = |seen: &&Seen| {
            is_service || reset(seen.destination) || self.context.coverage.is_backend(seen.destination)
        };
        let clients = self.connect.clients();
        let astray = self.connect.astray().into_iter().filter(is_handed);
        astray.filter(|reply| !self.connect.is_masqueraded(reply, &clients)).copied().collect()
    }

    /// The SYN that was sent again after a reply that had been seen, and whether the server answered anew.
    fn reply_ignored(&self, tuple: Tuple) -> Option<(Seen, bool)> {
        let replies: Vec<&Seen> =
            self.connect.of(PacketKind::SynAck).filter(|reply| reply.destination == tuple.local).collect();
        let first = replies.first()?;
        let again = self
            .connect
            .of(PacketKind::Syn)
            .find(|syn| tuple_of(syn) == tuple && syn.at.saturating_sub(first.at) > super::COPY_NS)?;
        let anew =
            replies.iter().any(|reply| reply.source == first.source && reply.sequence != first.sequence);
        Some((*again, anew))
    }

    fn ignored(&mut self, tuple: Tuple) {
        let Some((again, anew)) = self.reply_ignored(tuple).filter(|_| !self.connect.is_completed()) else {
            return;
        };
        let source = self.source(&again);
        self.tell(again.at, &source, Fact::ReplyIgnored { tuple, netns: None, anew });
    }

    fn no_service(&mut self, tuple: Tuple) {
        let Some(syn) = self.connect.of(PacketKind::Syn).next().copied() else { return };
        let source = self.source(&syn);
        self.tell(syn.at, &source, Fact::NoService { tuple, netns: None });
    }

    fn began(&mut self, tuple: Tuple, service: Option<&Arc<Service>>) {
        let isn = Some(self.connect.number.wrapping_sub(1));
        let mut places = Vec::new();
        let mut syns: Vec<Seen> =
            self.connect.of(PacketKind::Syn).filter(|syn| tuple_of(syn) == tuple).copied().collect();
        syns.sort_by_key(|syn| (syn.at, syn.number));
        let mut latest: Vec<((u32, u32), Nanos)> = Vec::new();
        let first = syns.first().copied();
        for syn in syns {
            let place = (syn.input, syn.place);
            let source = self.source(&syn);
            if !places.contains(&place) {
                places.push(place);
                latest.push((place, syn.at));
                if first.is_some_and(|first| syn.is_after(&first)) {
                    // This input goes on where another one ends.
                    self.tell(syn.at, &source, Fact::SynRetransmitted { tuple, netns: None, socket: None });
                    continue;
                }
                let service = service.cloned();
                let fact = Fact::ConnectBegan { tuple, netns: None, isn, socket: None, owner: None, service };
                self.tell(syn.at, &source, fact);
                continue;
            }
            let Some((_, last)) = latest.iter_mut().find(|(known, _)| *known == place) else { continue };
            // On its way in and out of one device, or captured twice.
            if syn.at.saturating_sub(*last) > super::COPY_NS {
                *last = syn.at;
                self.tell(syn.at, &source, Fact::SynRetransmitted { tuple, netns: None, socket: None });
            }
        }
    }

    fn masqueraded(&mut self, tuple: Tuple, original: SocketAddr) {
        let Some(syn) = self.connect.of(PacketKind::Syn).find(|syn| tuple_of(syn) == tuple) else { return };
        let (at, source) = (syn.at, self.source(syn));
        self.tell(at, &source, Fact::Masqueraded { tuple, netns: None, original });
    }

    fn hijacks(&mut self, tuple: Tuple, strayed: &[Seen]) {
        for seen in strayed {
            let connection = IpvsConnection {
                protocol: Protocol::Tcp,
                client: tuple.remote,
                virtual_address: tuple.local,
                backend: seen.destination,
                state: String::new(),
                expires_s: 0,
            };
            let source = self.source(seen);
            let fact = Fact::Hijacked { connection, netns: None, ack: Some(self.connect.number) };
            self.tell(seen.at, &source, fact);
        }
    }

    /// RSTs that the client's own address sent, as seen.
    fn own_resets(&self, tuple: Tuple) -> Vec<Seen> {
        let clients = self.connect.clients();
        let own = |seen: &Seen| seen.kind == PacketKind::Reset && clients.contains(&seen.source);
        let found = self.connect.distinct(own).into_iter().copied();
        found.filter(|rst| rst.source != tuple.remote).collect()
    }

    /// RSTs that answered the reply. What a backend sends travels on in the name of the client's own address: that is
    /// the same RST, and told once.
    fn resets(&mut self, tuple: Tuple, strayed: &[Seen]) {
        let own = self.own_resets(tuple);
        let by_backend: Vec<Seen> = self
            .connect
            .distinct(|seen| {
                seen.kind == PacketKind::Reset && strayed.iter().any(|reply| reply.destination == seen.source)
            })
            .into_iter()
            .copied()
            .collect();
        let is_told = |rst: &Seen| {
            by_backend.iter().any(|other| other.at.abs_diff(rst.at) <= super::COPY_NS.unsigned_abs())
        };
        let translated: Vec<Seen> = own.into_iter().filter(|rst| !is_told(rst)).collect();
        for rst in by_backend.iter().chain(&translated) {
            let source = self.source(rst);
            let fact = Fact::Reset {
                remote: if rst.source == tuple.local { tuple.remote } else { rst.destination },
                local: rst.source,
                netns: None,
                seq: rst.sequence,
                reason: None,
            };
            self.tell(rst.at, &source, fact);
        }
    }

    /// The server refused, or somebody said that it cannot be reached, or that the reply cannot.
    fn refusals(&mut self, tuple: Tuple) {
        let servers = self.connect.servers();
        let number = self.connect.number;
        let refused = self
            .connect
            .of(PacketKind::ResetAck)
            .find(|rst| {
                self.answers_syn(rst.acknowledgement)
                    && servers.contains(&rst.source)
                    && !self.connect.is_after_reply(rst)
            })
            .copied();
        if let Some(rst) = refused {
            let source = self.source(&rst);
            self.tell(rst.at, &source, Fact::Died { tuple, netns: None, socket: None, errno: ECONNREFUSED });
        }
        let unreachable = self.connect.distinct(|seen| matches!(seen.kind, PacketKind::Unreachable { .. }));
        let unreachable: Vec<Seen> = unreachable.into_iter().copied().collect();
        for icmp in unreachable {
            let PacketKind::Unreachable { port, .. } = icmp.kind else { continue };
            let source = self.source(&icmp);
            // About the reply, on its way to the client: only IPVS without a backend answers so.
            if icmp.destination == tuple.local && port {
                let fact = Fact::NoBackend { tuple, netns: None, ack: Some(number) };
                self.tell(icmp.at, &source, fact);
            } else if icmp.source == tuple.local {
                self.tell(
                    icmp.at,
                    &source,
                    Fact::Died { tuple, netns: None, socket: None, errno: EHOSTUNREACH },
                );
            }
        }
    }

    /// Whether a number is what comes after the SYN, and after the data in it (TCP Fast Open).
    fn answers_syn(&self, number: u32) -> bool {
        number.wrapping_sub(self.connect.number) <= super::MAX_SYN_DATA
    }

    /// How it went on: completed, or silent although the input goes on.
    fn end(&mut self, tuple: Tuple) {
        let clients = self.connect.clients();
        // A client that aborts had its reply; in SYN_SENT it sends no RST (tcp_need_reset, net/ipv4/tcp.c).
        let completes = |seen: &&Seen| {
            let by_client = seen.kind == PacketKind::Ack
                || (seen.kind == PacketKind::ResetAck && self.answers_syn(seen.sequence));
            (clients.contains(&seen.source) && by_client) || self.connect.is_after_reply(seen)
        };
        if let Some(seen) = self.connect.seen.iter().find(completes).copied() {
            let source = self.source(&seen);
            self.tell(seen.at, &source, Fact::Established { tuple, netns: None, socket: None });
            return;
        }
        let Some(syn) = self.connect.of(PacketKind::Syn).last().copied() else { return };
        let end = (self.context.end)(syn.input);
        if end.is_some_and(|end| end.saturating_sub(self.connect.last()) >= SILENCE_NS) {
            let source = self.source(&syn);
            let fact = Fact::FellSilent { tuple, netns: None };
            self.tell(self.connect.last(), &source, fact);
        }
    }

    /// Only replies were captured.
    fn without_syn(mut self) -> Option<Explained> {
        let coverage = self.context.coverage;
        let replies = self.connect.distinct(|seen| seen.kind == PacketKind::SynAck);
        let replies: Vec<Seen> = replies.into_iter().copied().collect();
        let to_service = replies.iter().find(|reply| coverage.is_service(reply.destination)).copied();
        if let Some(reply) = to_service.filter(|_| !self.connect.is_completed()) {
            let tuple = Tuple { local: reply.destination, remote: reply.source };
            let covered = coverage.of(tuple.local);
            let resets = self.connect.of(PacketKind::Reset).next().is_some();
            let strayed: Vec<Seen> =
                replies.into_iter().filter(|other| other.destination != tuple.local).collect();
            if !resets && strayed.is_empty() {
                return None;
            }
            let source = self.source(&reply);
            let fact = Fact::ConnectBegan {
                tuple,
                netns: None,
                isn: Some(self.connect.number.wrapping_sub(1)),
                socket: None,
                owner: None,
                service: covered.service().cloned(),
            };
            self.tell(reply.at, &source, fact);
            self.hijacks(tuple, &strayed);
            let own: Vec<Seen> = self
                .connect
                .distinct(|seen| seen.kind == PacketKind::Reset && seen.source == tuple.local)
                .into_iter()
                .copied()
                .collect();
            if strayed.is_empty() {
                for rst in own {
                    let source = self.source(&rst);
                    let fact = Fact::Reset {
                        remote: tuple.remote,
                        local: rst.source,
                        netns: None,
                        seq: rst.sequence,
                        reason: None,
                    };
                    self.tell(rst.at, &source, fact);
                }
            } else {
                self.resets(tuple, &strayed);
            }
            return Some(Explained::Connect { tuple, covered, observations: self.observations });
        }
        let reset = |reply: &&Seen| {
            self.connect.of(PacketKind::Reset).any(|rst| rst.source == reply.destination)
                && coverage.is_backend(reply.destination)
        };
        let reply = replies.iter().find(reset)?;
        Some(Explained::Astray { server: reply.source, backend: reply.destination })
    }

    fn source(&self, seen: &Seen) -> Arc<str> {
        (self.context.place)(seen.input, seen.place)
    }

    fn tell(&mut self, at: Nanos, source: &Arc<str>, fact: Fact) {
        self.observations.push(Observation { at, source: Arc::clone(source), fact });
    }
}

fn tuple_of(syn: &Seen) -> Tuple {
    Tuple { local: syn.source, remote: syn.destination }
}

const fn is_reset(kind: PacketKind) -> bool {
    matches!(kind, PacketKind::Reset | PacketKind::ResetAck)
}
