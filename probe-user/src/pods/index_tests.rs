use super::*;
use crate::ipvs::table::Unreadable;
use crate::kubernetes::pod::ProbeType;
use crate::pods::samples::{dashboard, host_pod, http, nginx, pod, probe, tcp, tcp_port};

const S: Nanos = 1_000_000_000;
const KUBELET: PodSourceKind = PodSourceKind::Kubelet;
const API: PodSourceKind = PodSourceKind::Api;

fn all(source: PodSourceKind, pods: Vec<Pod>) -> PodUpdate {
    PodUpdate::All { source, pods, unreadable: Vec::new() }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn names(index: &PodIndex, at_address: &str, at: Nanos) -> Vec<String> {
    index.pods_at(address(at_address), at).iter().map(|known| known.pod.name.clone()).collect()
}

fn probed(index: &PodIndex, remote: &str, at: Nanos) -> Vec<String> {
    index.candidates(address(remote), at).map(|found| found.known.pod.name.clone()).collect()
}

fn indexed(pods: Vec<Pod>) -> PodIndex {
    let mut index = PodIndex::new();
    index.apply(all(KUBELET, pods), 0);
    index
}

#[test]
fn a_pod_is_found_by_address_container_uid_name_and_target() {
    let index = indexed(vec![nginx(), dashboard()]);
    assert_eq!(names(&index, "10.23.77.139:8443", S), [dashboard().name]);
    assert_eq!(names(&index, "[::ffff:10.23.77.139]:1", S), [dashboard().name], "v4-mapped");
    assert_eq!(names(&index, "10.23.77.140:80", S), [] as [&str; 0]);
    let owned = index.container(&"a".repeat(64)).unwrap();
    assert_eq!((owned.container, owned.image), ("nginx", Some("example.net/nginx:1")));
    assert_eq!(index.by_uid("3daea6ef-f286-43f2-8825-51edaa3994d3").len(), 1);
    assert_eq!(index.by_name("default", &nginx().name).len(), 1);
    assert_eq!(probed(&index, "10.23.77.138:80", S), [nginx().name]);
    assert_eq!(probed(&index, "10.23.77.138:81", S), [] as [&str; 0]);
}

#[test]
fn an_address_that_is_used_again_is_the_pods_that_had_it_then() {
    let mut index = indexed(vec![nginx()]);
    let mut next = nginx();
    (next.name, next.uid) = ("next".to_owned(), Some("other".to_owned()));
    index.apply(all(KUBELET, vec![]), 10 * S);
    assert_eq!(names(&index, "10.23.77.138:80", 10 * S), [nginx().name]);
    assert_eq!(names(&index, "10.23.77.138:80", 15 * S), [] as [&str; 0], "nobody's, as far as is known");
    index.apply(all(KUBELET, vec![next]), 20 * S);
    assert_eq!(names(&index, "10.23.77.138:80", 5 * S), [nginx().name]);
    assert_eq!(names(&index, "10.23.77.138:80", 20 * S), ["next"]);
    assert_eq!(probed(&index, "10.23.77.138:80", 20 * S), ["next"]);
    assert_eq!(probed(&index, "10.23.77.138:80", 5 * S), [nginx().name]);
}

#[test]
fn between_two_lists_an_address_may_be_either_pods() {
    let mut index = indexed(vec![nginx()]);
    let mut next = nginx();
    (next.name, next.uid) = ("next".to_owned(), Some("other".to_owned()));
    index.apply(all(KUBELET, vec![next]), 10 * S);
    assert_eq!(names(&index, "10.23.77.138:80", 5 * S).len(), 2);
    assert_eq!(names(&index, "10.23.77.138:80", 10 * S + 1), ["next"]);
}

#[test]
fn the_address_of_a_finished_pod_is_free_for_others() {
    let mut done = nginx();
    done.phase = Some("Succeeded".to_owned());
    (done.name, done.uid) = ("job".to_owned(), Some("job".to_owned()));
    let index = indexed(vec![done.clone(), nginx()]);
    assert_eq!(names(&index, "10.23.77.138:80", S), [nginx().name]);
    assert_eq!(probed(&index, "10.23.77.138:80", S), [nginx().name]);
    let mut index = indexed(vec![Pod { phase: Some("Running".to_owned()), ..done.clone() }]);
    index.apply(PodUpdate::Changed { source: KUBELET, pod: Box::new(done) }, 10 * S);
    assert_eq!(names(&index, "10.23.77.138:80", 9 * S), ["job"], "it ran then");
    assert_eq!(names(&index, "10.23.77.138:80", 11 * S), [] as [&str; 0]);
}

#[test]
fn a_pod_that_went_away_is_kept_for_ten_minutes() {
    let mut index = indexed(vec![nginx()]);
    index.apply(
        PodUpdate::Gone {
            source: KUBELET,
            namespace: "default".to_owned(),
            name: nginx().name,
            uid: nginx().uid,
        },
        S,
    );
    assert!(index.pods().is_empty());
    index.expire(S + KEEP_NS);
    assert!(index.container(&"a".repeat(64)).is_some_and(|owned| owned.known.is_gone()));
    assert_eq!(probed(&index, "10.23.77.138:80", S), [nginx().name]);
    index.expire(S + KEEP_NS + 1);
    assert!(index.container(&"a".repeat(64)).is_none());
    assert!(index.entries.is_empty() && index.by_name.is_empty() && index.by_id.is_empty());
    assert!(index.by_target.is_empty() && index.by_container.is_empty());
    assert!(!index.addresses.knows("10.23.77.138".parse().unwrap()));
}

#[test]
fn a_deletion_of_an_older_pod_of_the_same_name_changes_nothing() {
    let mut index = indexed(vec![nginx()]);
    let name = nginx().name;
    let gone = PodUpdate::Gone {
        source: KUBELET,
        namespace: "default".to_owned(),
        name,
        uid: Some("old".to_owned()),
    };
    index.apply(gone, S);
    assert_eq!(index.pods().len(), 1);
}

#[test]
fn a_recreated_pod_of_the_same_name_is_another_pod() {
    let mut index = indexed(vec![nginx()]);
    let mut again = nginx();
    again.uid = Some("new".to_owned());
    again.ips = vec!["10.23.77.150".parse().unwrap()];
    again.containers[0].id = Some("b".repeat(64));
    index.apply(PodUpdate::Changed { source: KUBELET, pod: Box::new(again) }, 5 * S);
    let both = index.by_name("default", &nginx().name);
    assert_eq!(both.iter().map(|known| known.is_gone()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(probed(&index, "10.23.77.138:80", 6 * S), [] as [&str; 0]);
    assert_eq!(index.pods().len(), 1);
}

#[test]
fn a_container_is_still_found_by_its_id_after_its_restart() {
    let mut index = indexed(vec![nginx()]);
    let mut restarted = nginx();
    restarted.containers[0].id = Some("b".repeat(64));
    index.apply(all(KUBELET, vec![restarted]), S);
    for id in ["a", "b"] {
        assert_eq!(index.container(&id.repeat(64)).unwrap().known.pod.name, nginx().name);
    }
}

#[test]
fn static_pods_of_kubelet_and_api_server_are_joined_by_their_config_hash() {
    let hash = "0123456789abcdef0123456789abcdef".to_owned();
    let mut at_kubelet = host_pod("etcd-node-a", 2381);
    (at_kubelet.uid, at_kubelet.config_hash) = (Some(hash.clone()), Some(hash.clone()));
    let mirror = Pod { uid: Some("real-uid".to_owned()), ..at_kubelet.clone() };
    let mut index = indexed(vec![at_kubelet]);
    index.apply(all(API, vec![mirror]), 0);
    assert_eq!(index.pods().len(), 1);
    assert_eq!(index.by_uid(&hash).len(), 1);
    assert_eq!(index.by_uid("real-uid").len(), 1);
}

#[test]
fn several_sources_name_one_pod_once_and_the_one_that_knows_probes_counts() {
    let mut bare = nginx();
    bare.containers[0].probes.clear();
    bare.containers[0].id = Some("c".repeat(64));
    let mut index = PodIndex::new();
    index.apply(all(PodSourceKind::Cri, vec![bare]), 0);
    assert!(!index.pods()[0].source.knows_probes());
    index.apply(all(PodSourceKind::File, vec![nginx()]), 0);
    assert_eq!(index.pods()[0].source, PodSourceKind::File);
    assert_eq!(probed(&index, "10.23.77.138:80", S), [nginx().name]);
    assert!(index.container(&"c".repeat(64)).is_some(), "ids of every source count");
    index.apply(all(PodSourceKind::File, vec![]), 2 * S);
    assert_eq!(index.pods()[0].source, PodSourceKind::Cri, "one source still names it");
}

#[test]
fn host_network_pods_are_told_apart_by_port_and_two_on_one_port_are_both_named() {
    let index = indexed(vec![host_pod("a", 9100), host_pod("b", 9101), host_pod("c", 9101)]);
    assert_eq!(names(&index, "10.23.77.129:9100", S), ["a"]);
    assert_eq!(names(&index, "10.23.77.129:9101", S).len(), 2);
    assert_eq!(names(&index, "10.23.77.129:9102", S), [] as [&str; 0]);
    assert_eq!(names(&index, "10.23.77.130:9100", S), [] as [&str; 0], "another node's address");
    assert_eq!(names(&index, "127.0.0.1:9100", S), ["a"]);
}

#[test]
fn dual_stack_pods_are_found_by_either_address() {
    let mut both = pod("default", "both", &["10.23.77.140", "fd00::140"]);
    both.containers[0].probes = vec![probe(ProbeType::Liveness, http(80), 10, 1)];
    let index = indexed(vec![both]);
    assert_eq!(names(&index, "[fd00::140]:1", S), ["both"]);
    assert_eq!(probed(&index, "[fd00::140]:80", S), ["both"]);
}

// kubernetes/kubernetes#86504, opencti-platform/opencti#9713
#[test]
fn probes_of_another_node_are_no_candidates() {
    let local = |node: &str| {
        let mut pod = host_pod(node, 9000);
        pod.node_name = Some(node.to_owned());
        pod.containers[0].probes = vec![probe(ProbeType::Liveness, tcp(Some("localhost"), 9000), 10, 1)];
        pod
    };
    let mut index = indexed(vec![local("node-a"), local("node-b")]);
    assert_eq!(probed(&index, "127.0.0.1:9000", S).len(), 2, "which node this is, is not known");
    index.set_node(ThisNode { name: Some("node-a".to_owned()), addresses: Vec::new() });
    assert_eq!(probed(&index, "127.0.0.1:9000", S), ["node-a"]);
    assert_eq!(probed(&index, "[::1]:9000", S), ["node-a"]);
}

#[test]
fn the_node_is_known_by_the_addresses_of_its_host_network_pods() {
    let mut other = host_pod("x", 1);
    (other.node_name, other.ips) = (Some("node-b".to_owned()), vec!["10.23.77.130".parse().unwrap()]);
    let index = indexed(vec![host_pod("a", 9100), other]);
    let name = |ip: &str| index.node_name_by_address(&[ip.parse().unwrap()]);
    assert_eq!(name("10.23.77.129").as_deref(), Some("node-a"));
    assert_eq!(name("10.23.77.130").as_deref(), Some("node-b"));
    assert_eq!(name("10.23.77.131"), None);
}

#[test]
fn a_list_with_unreadable_entries_makes_no_pod_go_away() {
    let mut index = indexed(vec![nginx()]);
    let row = Unreadable { line: 7, text: "{".to_owned(), reason: "no name".to_owned() };
    index.apply(PodUpdate::All { source: KUBELET, pods: vec![], unreadable: vec![row.clone(); 30] }, S);
    assert_eq!(index.pods().len(), 1);
    let state = index.sources().get(KUBELET).unwrap();
    assert_eq!((state.unreadable_count, state.unreadable.len()), (30, 20));
}

#[test]
fn trouble_is_kept_until_the_next_list_and_makes_the_last_one_stale_in_time() {
    let mut index = indexed(vec![nginx()]);
    let reason = "401 Unauthorized".to_owned();
    index.apply(PodUpdate::Trouble { source: KUBELET, reason: reason.clone() }, S);
    let state = index.sources().get(KUBELET).unwrap();
    assert_eq!(state.trouble.as_ref(), Some(&reason));
    assert!(!state.is_stale(30 * S) && state.is_stale(61 * S));
    assert_eq!(index.pods().len(), 1, "what was known stays known");
    index.apply(all(KUBELET, vec![nginx()]), 70 * S);
    assert_eq!(index.sources().get(KUBELET).unwrap().trouble, None);
}

#[test]
fn what_does_not_fit_is_counted() {
    let many: Vec<Pod> = (0..=MAX_PODS).map(|n| pod("default", &format!("p{n}"), &[])).collect();
    let index = indexed(many);
    assert_eq!((index.pods().len(), index.refused()), (MAX_PODS, 1));
}

#[test]
fn a_change_of_ports_and_probes_is_followed() {
    let mut index = indexed(vec![nginx()]);
    let mut changed = nginx();
    changed.containers[0].probes = vec![probe(ProbeType::Startup, http(81), 1, 1)];
    changed.containers[0].ports = vec![tcp_port(81)];
    index.apply(PodUpdate::Changed { source: KUBELET, pod: Box::new(changed) }, S);
    assert_eq!(probed(&index, "10.23.77.138:80", 2 * S), [] as [&str; 0]);
    assert_eq!(probed(&index, "10.23.77.138:81", 2 * S), [nginx().name]);
}

/// The sample pod with one probe of each kind.
fn with_startup(started: Option<bool>) -> Pod {
    let mut pod = nginx();
    let kinds = [ProbeType::Startup, ProbeType::Liveness, ProbeType::Readiness];
    pod.containers[0].probes = kinds.map(|kind| probe(kind, http(80), 10, 2)).into();
    pod.containers[0].started = started;
    pod
}

fn kinds(index: &PodIndex, at: Nanos) -> Vec<ProbeType> {
    index.candidates(address("10.23.77.138:80"), at).map(|found| found.probe.kind).collect()
}

// kubernetes/kubernetes, pkg/kubelet/prober/worker.go `doProbe`
#[test]
fn a_startup_probe_that_has_succeeded_is_no_candidate_and_before_it_is_the_only_one() {
    use ProbeType::{Liveness, Readiness, Startup};
    let mut index = PodIndex::new();
    index.apply(all(KUBELET, vec![with_startup(Some(false))]), 10 * S);
    index.apply(all(KUBELET, vec![with_startup(Some(false))]), 20 * S);
    index.apply(all(KUBELET, vec![with_startup(Some(true))]), 30 * S);
    assert_eq!(kinds(&index, 15 * S), [Startup]);
    assert_eq!(kinds(&index, 25 * S), [Startup, Liveness, Readiness], "between two lists");
    assert_eq!(kinds(&index, 35 * S), [Liveness, Readiness]);
    assert_eq!(kinds(&indexed(vec![with_startup(None)]), S), [Startup, Liveness, Readiness]);
}
