//! From kernel events to observations.

use std::sync::Arc;

use probe_ebpf::{Event, Kind};

use super::live::Live;
use crate::ipvs::table::{IpvsConnection, Protocol};
use crate::kernel::event::socket_address;
use crate::kernel::ladder::Need;
use crate::observation::{Fact, Observation, Tuple};

const TCP_ESTABLISHED: i32 = 1;
const TCP_CLOSE: i32 = 7;

fn tuple(event: &Event) -> Tuple {
    Tuple {
        local: socket_address(event.local, event.local_port),
        remote: socket_address(event.remote, event.remote_port),
    }
}

const fn known(number: u32) -> Option<u32> {
    if number == 0 { None } else { Some(number) }
}

impl Live {
    /// The observation that an event is; `None` for triggers and for states that decide nothing.
    pub(super) fn observation(&mut self, kind: Kind, event: &Event) -> Option<Observation> {
        let netns = known(event.netns);
        let tuple = tuple(event);
        let socket = (event.sock != 0).then_some(event.sock);
        let (need, fact) = match kind {
            Kind::ConnectBegan => (Need::Connect, self.began(event, tuple)),
            Kind::ConnectReturned => (Need::ConnectEnd, self.returned(event, tuple)),
            Kind::Reset => (Need::Reset, self.reset(event, tuple)),
            Kind::Hijacked => {
                let connection = IpvsConnection {
                    protocol: Protocol::Tcp,
                    client: tuple.remote,
                    virtual_address: tuple.local,
                    backend: socket_address(event.backend, event.backend_port),
                    state: String::new(),
                    expires_s: 0,
                };
                (Need::Hijack, Fact::Hijacked { connection, netns, ack: known(event.seq) })
            }
            Kind::NoBackend => (Need::NoBackend, Fact::NoBackend { tuple, netns, ack: known(event.seq) }),
            Kind::StateChanged => match event.code {
                TCP_ESTABLISHED => (Need::Outcome, Fact::Established { tuple, netns, socket }),
                TCP_CLOSE => (Need::Outcome, Fact::Died { tuple, netns, socket, errno: event.aux }),
                // SYN_RECV: both sides connect at once; the state after that decides.
                _ => return None,
            },
            Kind::SynRetransmitted => (Need::Outcome, Fact::SynRetransmitted { tuple, netns, socket }),
            Kind::TableChanged | Kind::ModuleChanged => return None,
        };
        Some(Observation { at: self.clock.wall(event.at_ns), source: self.source_name(need), fact })
    }

    fn began(&mut self, event: &Event, tuple: Tuple) -> Fact {
        Fact::ConnectBegan {
            tuple,
            netns: known(event.netns),
            isn: Some(event.seq),
            socket: (event.sock != 0).then_some(event.sock),
            owner: self.owners.of(event).map(Arc::new),
            service: self.table().current().tcp_service_at(tuple.local).cloned().map(Arc::new),
        }
    }

    fn returned(&mut self, event: &Event, tuple: Tuple) -> Fact {
        Fact::ConnectFailed {
            local: (event.local_port != 0).then_some(tuple.local),
            remote: Some(tuple.remote),
            netns: known(event.netns),
            socket: (event.sock != 0).then_some(event.sock),
            errno: event.code.saturating_neg(),
            owner: self.owners.of(event).map(Arc::new),
        }
    }

    fn reset(&self, event: &Event, tuple: Tuple) -> Fact {
        let reason = self.reset_reasons.get(&event.code).cloned();
        Fact::Reset {
            remote: tuple.remote,
            local: tuple.local,
            netns: known(event.netns),
            seq: event.seq,
            reason,
        }
    }

    /// `tcp_connect (fentry)`: the need and the way that serves it.
    fn source_name(&self, need: Need) -> Arc<str> {
        let way = self.tracer.hooks().get(&need).and_then(|hook| hook.way).unwrap_or("unknown");
        let name = match need {
            Need::Connect => "tcp_connect",
            Need::ConnectEnd => "connect() return",
            Need::Reset => "tcp_send_reset",
            Need::Outcome => "socket state",
            Need::Hijack => "ip_vs_conn_new",
            Need::NoBackend => "ip_vs_leave",
            Need::TableChange | Need::ModuleChange | Need::Packets => "trigger",
        };
        format!("{name} ({way})").into()
    }
}
