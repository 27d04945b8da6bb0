use std::sync::Arc;

use super::*;
use crate::diagnosis::incident::Incident;
use crate::diagnosis::{Diagnosis, Settings, Update};
use crate::kubelet_log::{LineParser, Times, YearRule};
use crate::kubernetes::pod::{Pod, ProbeType};
use crate::observation::{Owner, Tuple};
use crate::pods::index::ThisNode;
use crate::pods::samples::{container, http, nginx, pod, probe, tcp};
use crate::pods::update::{PodSourceKind, PodUpdate};

const S: Nanos = 1_000_000_000;
/// 2022-09-15 19:09:04.535 UTC, two seconds after the connect.
const LOGGED: Nanos = 1_663_268_944_535_000_000;
const UID: &str = "3daea6ef-f286-43f2-8825-51edaa3994d3";

/// gRPC of a probe that ran into its timeout: the built-in prober does not say where it connected to.
const GRPC: &str = "output=\"timeout: health rpc did not complete within 2s\"";
/// A line that was cut within the address.
const CUT: &str = "output=\"Get \\\"http://10.23";

/// kubelet's line about a readiness probe of a pod's container nginx, without an address.
fn line(name: &str, uid: &str, output: &str) -> Observation {
    let text = format!(
        "I0915 19:09:04.535000  607529 prober.go:116] \"Probe failed\" probeType=\"Readiness\" pod=\"default/{name}\" \
         podUID=\"{uid}\" containerName=\"nginx\" probeResult=\"failure\" {output}"
    );
    let times = Times { zone: Some(jiff::tz::TimeZone::UTC), year: YearRule::NotAfter(LOGGED + 100 * S) };
    let mut parser = LineParser::new(Arc::from("kubelet.log"), times);
    let mut found = Vec::new();
    parser.line(text.as_bytes(), Some(1), &mut found);
    parser.flush(&mut found);
    let failure = found.remove(0);
    assert_eq!((failure.target, failure.at), (None, Some(LOGGED)), "{failure:?}");
    Observation {
        at: LOGGED,
        source: Arc::from("kubelet.log"),
        fact: Fact::ProbeFailed { failure: Arc::new(failure), targets: Vec::new() },
    }
}

fn index(pods: Vec<Pod>) -> PodIndex {
    let mut index = PodIndex::new();
    index.apply(PodUpdate::All { source: PodSourceKind::Kubelet, pods, unreadable: Vec::new() }, 0);
    index
}

fn vary(change: impl FnOnce(&mut ProbeFailure)) -> ProbeFailure {
    let Fact::ProbeFailed { failure, .. } = line(&nginx().name, UID, GRPC).fact else { panic!() };
    let mut failure = (*failure).clone();
    change(&mut failure);
    failure
}

fn found(index: &PodIndex, failure: &ProbeFailure) -> Vec<String> {
    targets_of(index, failure, LOGGED).iter().map(ToString::to_string).collect()
}

/// The connect of the sample incident, which was given up after two seconds.
fn connect() -> [Observation; 2] {
    let tuple =
        Tuple { local: "10.23.77.129:36704".parse().unwrap(), remote: "10.23.77.138:80".parse().unwrap() };
    let began = Fact::ConnectBegan {
        tuple,
        netns: None,
        isn: Some(7),
        socket: Some(1),
        owner: Some(Arc::new(Owner { comm: Some("kubelet".to_owned()), ..Owner::default() })),
        service: None,
    };
    let died = Fact::Died { tuple, netns: None, socket: Some(1), errno: 0 };
    let at = |at, fact| Observation { at, source: Arc::from("test"), fact };
    [at(LOGGED - 2 * S, began), at(LOGGED - S / 1000, died)]
}

/// Log lines of the incident, failures elsewhere, ambiguous ones.
fn diagnosed(index: &PodIndex, mut logged: Observation) -> (usize, u64, u64) {
    add_targets(index, &mut logged);
    let mut diagnosis = Diagnosis::new(Settings { log_wait_ns: 2 * S, ..Settings::default() });
    let mut updates = Vec::new();
    for observation in connect().into_iter().chain([logged]) {
        updates.extend(diagnosis.observe(observation));
    }
    updates.extend(diagnosis.finish(LOGGED + 60 * S));
    let concluded: Vec<Box<Incident>> = updates
        .into_iter()
        .filter_map(|update| if let Update::Concluded(incident) = update { Some(incident) } else { None })
        .collect();
    assert_eq!(concluded.len(), 1);
    let lines = concluded[0].log_lines.len();
    (lines, diagnosis.probe_failures_elsewhere(), diagnosis.probe_failures_ambiguous())
}

#[test]
fn a_line_without_an_address_is_joined_to_the_incident_of_its_pods_probe() {
    for output in [GRPC, CUT] {
        assert_eq!(diagnosed(&index(vec![nginx()]), line(&nginx().name, UID, output)), (1, 0, 0), "{output}");
    }
}

#[test]
fn a_line_about_an_unknown_pod_is_about_something_else() {
    for pods in [vec![], vec![pod("default", "other", &["10.23.77.138"])]] {
        assert_eq!(diagnosed(&index(pods), line(&nginx().name, UID, GRPC)), (0, 1, 0));
    }
    // The pod that has the name now is a new one.
    let other = "00000000-f286-43f2-8825-51edaa3994d3";
    assert_eq!(diagnosed(&index(vec![nginx()]), line(&nginx().name, other, GRPC)), (0, 1, 0));
}

#[test]
fn container_and_type_choose_the_probes_where_the_line_names_them() {
    let mut web = nginx();
    let mut side = container("sidecar");
    side.probes = vec![probe(ProbeType::Readiness, tcp(None, 9000), 10, 1)];
    web.containers.push(side);
    web.containers[0].probes.push(probe(ProbeType::Liveness, http(8080), 10, 1));
    let index = index(vec![web]);
    assert_eq!(found(&index, &vary(|_| {})), ["10.23.77.138:80"]);
    assert_eq!(found(&index, &vary(|line| line.kind = None)), ["10.23.77.138:80", "10.23.77.138:8080"]);
    assert_eq!(found(&index, &vary(|line| line.container = None)), ["10.23.77.138:80", "10.23.77.138:9000"]);
    assert_eq!(found(&index, &vary(|line| line.kind = Some(ProbeType::Startup))), [] as [&str; 0]);
    let other = vary(|line| line.container = Some("other".to_owned()));
    assert_eq!(found(&index, &other), [] as [&str; 0]);
}

#[test]
fn a_static_pod_is_known_by_the_hash_of_its_manifest() {
    let mut mirror = nginx();
    mirror.uid = Some("5f0c9f5e-0000-4000-8000-000000000000".to_owned());
    mirror.config_hash = Some("8d8bf6a1b1b8c4f9a1c9dd9ab2f2b9d3".to_owned());
    let line = vary(|line| line.uid = Some("8d8bf6a1b1b8c4f9a1c9dd9ab2f2b9d3".to_owned()));
    assert_eq!(found(&index(vec![mirror]), &line), ["10.23.77.138:80"]);
}

#[test]
fn a_line_without_uid_is_about_the_pod_that_had_the_name_then() {
    let mut index = PodIndex::new();
    let all = |pods| PodUpdate::All { source: PodSourceKind::Kubelet, pods, unreadable: Vec::new() };
    let mut next = nginx();
    (next.uid, next.ips) = (Some("next".to_owned()), vec!["10.23.77.140".parse().unwrap()]);
    index.apply(all(vec![nginx()]), LOGGED - 10 * S);
    index.apply(all(vec![next]), LOGGED + 10 * S);
    let line = vary(|line| line.uid = None);
    assert_eq!(found(&index, &line), ["10.23.77.138:80", "10.23.77.140:80"], "between the lists, both");
    let later = targets_of(&index, &line, LOGGED + 20 * S);
    assert_eq!(later.into_iter().collect::<Vec<_>>(), ["10.23.77.140:80".parse().unwrap()]);
}

#[test]
fn other_nodes_exec_probes_and_lines_with_an_address_get_none() {
    let mut index = index(vec![nginx()]);
    assert_eq!(found(&index, &vary(|line| line.class = FailureClass::Exec)), [] as [&str; 0]);
    let own = vary(|line| line.target = Some("10.9.9.9:1".parse().unwrap()));
    assert_eq!(found(&index, &own), [] as [&str; 0]);
    index.set_node(ThisNode { name: Some("node-b".to_owned()), addresses: Vec::new() });
    assert_eq!(found(&index, &vary(|_| {})), [] as [&str; 0]);
}
