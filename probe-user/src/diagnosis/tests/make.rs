//! Facts of the incident in `10.23.77.0/24`, ready to be varied.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::diagnosis::incident::Incident;
use crate::diagnosis::{Diagnosis, Settings, Update};
use crate::ipvs::table::{Backend, Forward, IpvsConnection, Protocol, Service, ServiceId, ServiceTable};
use crate::kubelet_log::{FailureClass, ProbeFailure};
use crate::kubernetes::pod::ProbeType;
use crate::observation::{Fact, Nanos, Observation, Owner, Tuple};

/// 2022-09-15 19:09:02.533940 UTC
pub(super) const START: Nanos = 1_663_268_942_533_940_000;
pub(super) const MS: Nanos = 1_000_000;
pub(super) const ISN: u32 = 4_142_039_474;
pub(super) const HOST: u32 = 4_026_531_840;
pub(super) const BACKEND_NS: u32 = 4_026_532_290;
pub(super) const LOCAL: &str = "10.23.77.129:36704";
pub(super) const POD: &str = "10.23.77.138:80";
pub(super) const BACKEND: &str = "10.23.77.139:8443";

pub(super) fn sock(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn tuple() -> Tuple {
    Tuple { local: sock(LOCAL), remote: sock(POD) }
}

pub(super) fn at(ms: Nanos, fact: Fact) -> Observation {
    Observation { at: START + ms * MS, source: Arc::from("test"), fact }
}

pub(super) fn service(local: &str, backends: &[&str]) -> Service {
    let backend = |text: &&str| Backend { address: sock(text), forward: Forward::Masq, weight: 1 };
    Service {
        id: ServiceId::Address(Protocol::Tcp, sock(local)),
        scheduler: Some("rr".into()),
        persistent_s: None,
        one_packet: false,
        backends: backends.iter().map(backend).collect(),
    }
}

pub(super) fn table(services: &[Service]) -> Arc<ServiceTable> {
    let services = services.iter().map(|service| (service.id, service.clone())).collect();
    Arc::new(ServiceTable { services, unreadable: Vec::new() })
}

pub(super) fn kubelet() -> Arc<Owner> {
    Arc::new(Owner { pid: Some(607_529), comm: Some("kubelet".to_owned()), ..Owner::default() })
}

pub(super) fn began() -> Fact {
    Fact::ConnectBegan {
        tuple: tuple(),
        netns: Some(HOST),
        isn: Some(ISN),
        socket: Some(0xffff_8881),
        owner: Some(kubelet()),
        service: Some(Arc::new(service(LOCAL, &[BACKEND]))),
    }
}

pub(super) fn row(backend: &str) -> IpvsConnection {
    IpvsConnection {
        protocol: Protocol::Tcp,
        client: sock(POD),
        virtual_address: sock(LOCAL),
        backend: sock(backend),
        state: String::new(),
        expires_s: 0,
    }
}

pub(super) fn hijacked() -> Fact {
    Fact::Hijacked { connection: row(BACKEND), netns: Some(HOST), ack: Some(ISN + 1) }
}

pub(super) fn reset(local: &str, netns: Option<u32>) -> Fact {
    Fact::Reset { remote: sock(POD), local: sock(local), netns, seq: ISN + 1, reason: None }
}

pub(super) fn no_backend() -> Fact {
    Fact::NoBackend { tuple: tuple(), netns: Some(HOST), ack: Some(ISN + 1) }
}

pub(super) fn retransmitted() -> Fact {
    Fact::SynRetransmitted { tuple: tuple(), netns: Some(HOST), socket: Some(0xffff_8881) }
}

pub(super) fn established() -> Fact {
    Fact::Established { tuple: tuple(), netns: Some(HOST), socket: Some(0xffff_8881) }
}

pub(super) fn died(errno: i32) -> Fact {
    Fact::Died { tuple: tuple(), netns: Some(HOST), socket: Some(0xffff_8881), errno }
}

/// Feeds all facts and ends the trace: every update in order.
pub(super) fn run(observations: impl IntoIterator<Item = Observation>) -> Vec<Update> {
    let mut diagnosis = Diagnosis::new(Settings::default());
    let mut updates: Vec<Update> =
        observations.into_iter().flat_map(|observation| diagnosis.observe(observation)).collect();
    updates.extend(diagnosis.finish(START + 3_600_000 * MS));
    updates
}

pub(super) fn concluded(updates: Vec<Update>) -> Vec<Incident> {
    let concluded = updates.into_iter().filter_map(|update| match update {
        Update::Concluded(incident) => Some(*incident),
        Update::Began(_) | Update::Clear(_) => None,
    });
    concluded.collect()
}

/// The one incident that these facts make.
pub(super) fn incident(observations: impl IntoIterator<Item = Observation>) -> Incident {
    let mut all = concluded(run(observations));
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

pub(super) fn texts(incident: &Incident) -> Vec<&str> {
    incident.evidence.iter().map(|evidence| evidence.text.as_str()).collect()
}

/// The kubelet's line about a probe of [`POD`], without a target of its own.
pub(super) fn probe_failure(ms: Nanos) -> Arc<ProbeFailure> {
    Arc::new(ProbeFailure {
        at: Some(START + ms * MS),
        kind: Some(ProbeType::Readiness),
        namespace: Some("default".to_owned()),
        name: Some("nginx".to_owned()),
        uid: None,
        container: Some("nginx".to_owned()),
        target: None,
        source: None,
        class: FailureClass::Timeout,
        timeout_ns: None,
        text: format!("I0915 1 prober.go:1] \"Probe failed\" at {ms}"),
        file: Arc::from("kubelet.log"),
        line: Some(7),
    })
}

/// The same with the line's target.
pub(super) fn logged(ms: Nanos) -> Observation {
    let failure = ProbeFailure { target: Some(sock(POD)), ..(*probe_failure(ms)).clone() };
    at(ms, Fact::ProbeFailed { failure: Arc::new(failure), targets: Vec::new() })
}
