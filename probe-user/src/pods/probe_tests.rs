use super::*;
use crate::kubernetes::pod::{Handler, Pod, ProbeSpec, ProbeType};
use crate::pods::index::ThisNode;
use crate::pods::kubelet::Reason;
use crate::pods::samples::{container, host_pod, http, nginx, pod, probe, tcp};
use crate::pods::update::PodUpdate;

const YES: IsKubelet = IsKubelet::Yes(Reason::Listens);

fn index_of(source: PodSourceKind, pods: Vec<Pod>) -> PodIndex {
    let mut index = PodIndex::new();
    index.set_node(ThisNode { name: Some("node-a".to_owned()), addresses: Vec::new() });
    index.apply(PodUpdate::All { source, pods, unreadable: Vec::new() }, 0);
    index
}

fn index(pods: Vec<Pod>) -> PodIndex {
    index_of(PodSourceKind::Kubelet, pods)
}

fn with_probes(probes: Vec<ProbeSpec>) -> PodIndex {
    let mut web = nginx();
    web.containers[0].probes = probes;
    index(vec![web])
}

fn connect(remote: &str) -> Connect {
    Connect { remote: remote.parse().unwrap(), at: 100 * SECOND, given_up_after: None }
}

const TO_NGINX: &str = "10.23.77.138:80";

/// `readiness likely`, `ambiguous liveness readiness`, `none`.
fn told(found: &ProbeMatch<'_>) -> String {
    let name = |found: &Candidate<'_>| format!("{:?}", found.probe.kind).to_lowercase();
    match found {
        ProbeMatch::One { found, confidence, .. } => {
            format!("{} {}", name(found), format!("{confidence:?}").to_lowercase())
        }
        ProbeMatch::Ambiguous(all) => {
            format!("ambiguous {}", all.iter().map(name).collect::<Vec<_>>().join(" "))
        }
        ProbeMatch::None => "none".to_owned(),
    }
}

fn tell(index: &PodIndex, connect: Connect) -> String {
    told(&match_probe(index, connect, &YES, &[]))
}

#[test]
fn the_only_probe_of_an_address_that_kubelet_connects_to() {
    let index = index(vec![nginx()]);
    let timed_out = |ms: i64| Connect { given_up_after: Some(ms * 1_000_000), ..connect(TO_NGINX) };
    assert_eq!(tell(&index, connect(TO_NGINX)), "readiness proven");
    assert_eq!(tell(&index, timed_out(2001)), "readiness proven");
    assert_eq!(tell(&index, timed_out(700)), "readiness likely", "its timeout is 2 s");
    assert_eq!(tell(&index, connect("10.23.77.138:81")), "none");
    assert_eq!(tell(&index_of(PodSourceKind::File, vec![nginx()]), connect(TO_NGINX)), "readiness likely");
}

#[test]
fn a_connect_of_another_process_is_no_probe() {
    let index = index(vec![nginx()]);
    assert_eq!(told(&match_probe(&index, connect(TO_NGINX), &IsKubelet::No, &[])), "none");
    let unknown = match_probe(&index, connect(TO_NGINX), &IsKubelet::Unknown, &[]);
    assert_eq!(told(&unknown), "readiness possible");
}

#[test]
fn probes_of_one_address_are_told_apart_by_their_timeouts() {
    let index = with_probes(vec![
        probe(ProbeType::Liveness, http(80), 10, 5),
        probe(ProbeType::Readiness, http(80), 10, 1),
    ]);
    let after = |ms: i64| tell(&index, Connect { given_up_after: Some(ms * 1_000_000), ..connect(TO_NGINX) });
    assert_eq!(after(1000), "readiness likely");
    assert_eq!(after(5210), "liveness likely");
    assert_eq!(after(3000), "ambiguous liveness readiness", "fits neither");
    assert_eq!(tell(&index, connect(TO_NGINX)), "ambiguous liveness readiness");
}

#[test]
fn probes_of_one_address_are_told_apart_by_the_time_since_the_connect_before() {
    let index = with_probes(vec![
        probe(ProbeType::Liveness, http(80), 7, 1),
        probe(ProbeType::Readiness, http(80), 5, 1),
        probe(ProbeType::Startup, http(80), 2, 1),
    ]);
    let before = |ms: i64| {
        let earlier = [connect(TO_NGINX).at - ms * 1_000_000];
        told(&match_probe(&index, connect(TO_NGINX), &YES, &earlier))
    };
    assert_eq!(before(7000), "liveness likely");
    assert_eq!(before(5040), "readiness likely");
    assert_eq!(before(3960), "startup likely");
    assert_eq!(before(10_000), "ambiguous readiness startup", "two of five seconds, five of two");
    assert_eq!(before(3100), "ambiguous liveness readiness startup");
    assert_eq!(before(600_000), "ambiguous liveness readiness startup", "too long ago to tell");
}

#[test]
fn equal_probes_of_one_address_cannot_be_told_apart() {
    let index = with_probes(vec![
        probe(ProbeType::Liveness, http(80), 10, 1),
        probe(ProbeType::Readiness, http(80), 10, 1),
    ]);
    let given_up = Connect { given_up_after: Some(SECOND), ..connect(TO_NGINX) };
    let found = match_probe(&index, given_up, &YES, &[90 * SECOND]);
    assert_eq!(told(&found), "ambiguous liveness readiness");
}

// kubernetes/kubernetes#86504, kubernetes/dns#381, opencti-platform/opencti#9713
#[test]
fn probe_hosts_are_matched_instead_of_the_pods_address() {
    let mut dns = host_pod("node-local-dns", 53);
    dns.containers[0].probes = vec![probe(ProbeType::Liveness, tcp(Some("169.254.20.10"), 8080), 10, 5)];
    let mut local = pod("default", "local", &["10.23.77.140"]);
    local.containers[0].probes = vec![probe(ProbeType::Readiness, tcp(Some("localhost"), 9000), 10, 1)];
    let mut any = pod("default", "any", &["10.23.77.141"]);
    any.containers[0].probes = vec![probe(ProbeType::Startup, tcp(Some("0.0.0.0"), 9001), 10, 1)];
    let index = index(vec![dns, local, any]);
    assert_eq!(tell(&index, connect("169.254.20.10:8080")), "liveness proven");
    assert_eq!(tell(&index, connect("10.23.77.129:8080")), "none");
    assert_eq!(tell(&index, connect("127.0.0.1:9000")), "readiness proven", "the node's loopback");
    assert_eq!(tell(&index, connect("10.23.77.140:9000")), "none");
    assert_eq!(tell(&index, connect("127.0.0.1:9001")), "startup proven");
}

// kubernetes/kubernetes#122902
#[test]
fn probes_of_native_sidecars_are_candidates() {
    let mut web = nginx();
    let mut sidecar = container("proxy");
    sidecar.sidecar = true;
    sidecar.probes = vec![probe(ProbeType::Startup, http(15021), 1, 3)];
    web.containers.push(sidecar);
    let index = index(vec![web]);
    match match_probe(&index, connect("10.23.77.138:15021"), &YES, &[]) {
        ProbeMatch::One { found, .. } => assert!(found.container.sidecar),
        other => panic!("{other:?}"),
    }
}

// kubernetes/kubernetes#82987, #92464
#[test]
fn exec_probes_are_never_matched_and_grpc_probes_are() {
    let grpc = Handler::Grpc { port: Some(80), service: None };
    let index = with_probes(vec![
        probe(ProbeType::Liveness, Handler::Exec, 10, 1),
        probe(ProbeType::Readiness, grpc, 10, 1),
    ]);
    assert_eq!(tell(&index, connect(TO_NGINX)), "readiness proven");
}

#[test]
fn two_host_network_pods_with_one_probe_port_are_both_named() {
    let with_probe = |name: &str| {
        let mut pod = host_pod(name, 9100);
        pod.containers[0].probes = vec![probe(ProbeType::Liveness, http(9100), 10, 1)];
        pod
    };
    let index = index(vec![with_probe("a"), with_probe("b")]);
    assert_eq!(tell(&index, connect("10.23.77.129:9100")), "ambiguous liveness liveness");
}

#[test]
fn the_second_address_of_a_dual_stack_pod_is_only_possibly_probed() {
    let mut both = nginx();
    both.ips.push("fd00::138".parse().unwrap());
    let index = index(vec![both]);
    assert_eq!(tell(&index, connect(TO_NGINX)), "readiness proven");
    assert_eq!(tell(&index, connect("[fd00::138]:80")), "readiness possible");
}

#[test]
fn an_old_list_of_a_source_in_trouble_proves_nothing() {
    let mut index = index(vec![nginx()]);
    let reason = "connection refused".to_owned();
    index.apply(PodUpdate::Trouble { source: PodSourceKind::Kubelet, reason }, SECOND);
    assert_eq!(tell(&index, connect(TO_NGINX)), "readiness possible");
    assert_eq!(tell(&index, Connect { at: 30 * SECOND, ..connect(TO_NGINX) }), "readiness proven");
}

#[test]
fn a_pod_that_went_away_before_is_not_matched() {
    let mut index = index(vec![nginx()]);
    let source = PodSourceKind::Kubelet;
    index.apply(PodUpdate::All { source, pods: vec![], unreadable: Vec::new() }, 99 * SECOND);
    assert_eq!(tell(&index, connect(TO_NGINX)), "none");
    assert_eq!(tell(&index, Connect { at: 98 * SECOND, ..connect(TO_NGINX) }), "readiness proven");
}
