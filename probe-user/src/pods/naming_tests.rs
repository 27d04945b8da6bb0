use super::*;
use crate::kubernetes::pod::{Pod as KubePod, ProbeType};
use crate::kubernetes::service::KubeService;
use crate::pods::samples::{
    dashboard, dashboard_service, http, nginx, node_port_service, pod, probe, tcp_port,
};
use crate::report::samples;

const KUBELET: PodSourceKind = PodSourceKind::Kubelet;

/// Before the sample incident.
fn before() -> Nanos {
    time("2022-09-15T19:00:00Z")
}

fn all(source: PodSourceKind, pods: Vec<KubePod>) -> PodUpdate {
    PodUpdate::All { source, pods, unreadable: Vec::new() }
}

fn services(services: Vec<KubeService>) -> PodUpdate {
    PodUpdate::ServicesAll { source: PodSourceKind::Api, services, unreadable: Vec::new() }
}

fn names(updates: Vec<PodUpdate>) -> Names {
    let mut names = Names::new();
    for update in updates {
        names.apply(update, before());
    }
    names
}

/// The incident as diagnosis gives it.
fn unnamed() -> Incident {
    let mut incident = samples::hijacked();
    incident.probe = None;
    let service = incident.service.as_mut().unwrap();
    (service.name, service.kind) = (None, None);
    incident
}

fn notes(incident: &Incident) -> Vec<String> {
    let notes = incident.evidence.iter().filter(|evidence| is_note(evidence));
    notes.map(|note| format!("{}: {}", note.source, note.text)).collect()
}

fn named_by(updates: Vec<PodUpdate>) -> Incident {
    let mut incident = unnamed();
    names(updates).name(&mut incident, None);
    incident
}

#[test]
fn the_incident_as_it_was_first_seen_gets_its_names() {
    let incident =
        named_by(vec![all(KUBELET, vec![nginx(), dashboard()]), services(vec![dashboard_service()])]);
    assert_eq!(incident.probe, samples::hijacked().probe);
    assert_eq!(incident.service, samples::hijacked().service);
    assert_eq!(
        notes(&incident),
        [
            "owner match: it is a kubelet: its cgroup is kubelet.service",
            "probe match (kubelet): readiness probe of default/nginx-5dfb7c896c-x2q2w, container nginx: GET \
         http://10.23.77.138:80/, every 10 s, timeout 2 s",
            "backend match (kubelet): backend 10.23.77.139:8443 is pod \
         kube-system/kubernetes-dashboard-7d8f5d5c4-l9k2m, container dashboard",
        ]
    );
    let times: Vec<&String> = incident.evidence.iter().map(|evidence| &evidence.at).collect();
    assert!(times.is_sorted());
}

#[test]
fn without_sources_nothing_is_named_and_nothing_is_said() {
    let incident = named_by(Vec::new());
    assert_eq!(incident, unnamed());
}

#[test]
fn a_source_that_did_not_answer_is_named() {
    let reason = "https://127.0.0.1:10250/pods: 401 Unauthorized; grant nodes/proxy".to_owned();
    let incident = named_by(vec![PodUpdate::Trouble { source: KUBELET, reason: reason.clone() }]);
    assert_eq!(notes(&incident), [format!("pod sources (kubelet): kubelet: {reason}")]);
    assert_eq!(incident.probe, None);
}

#[test]
fn a_source_that_is_not_there_is_told_apart_from_one_in_trouble() {
    let reason = "API server: no kubeconfig found".to_owned();
    let absent = PodUpdate::Absent { source: PodSourceKind::Api, reason: reason.clone() };
    let incident = named_by(vec![all(KUBELET, vec![nginx()]), absent.clone()]);
    assert_eq!(notes(&incident).last(), Some(&format!("no pod source (api): api: {reason}")));
    // It came after all: the newest word counts.
    for then in [
        services(vec![dashboard_service()]),
        PodUpdate::Trouble { source: PodSourceKind::Api, reason: "403".to_owned() },
    ] {
        let incident = named_by(vec![absent.clone(), then]);
        assert!(notes(&incident).iter().all(|note| !note.starts_with(source::ABSENT)), "{incident:?}");
    }
}

#[test]
fn equal_probes_are_ambiguous_and_named_together() {
    let mut pod = nginx();
    pod.containers[0].probes =
        [ProbeType::Liveness, ProbeType::Readiness].map(|kind| probe(kind, http(80), 10, 2)).into();
    let incident = named_by(vec![all(KUBELET, vec![pod])]);
    assert_eq!(incident.probe, None);
    assert!(notes(&incident).contains(
        &"probe match (kubelet): ambiguous, liveness or readiness probe of default/nginx-5dfb7c896c-x2q2w, container \
          nginx: GET http://10.23.77.138:80/, every 10 s, timeout 2 s"
            .to_owned()
    ));
}

#[test]
fn the_time_since_the_incident_before_tells_probes_apart() {
    let mut pod = nginx();
    pod.containers[0].probes =
        vec![probe(ProbeType::Liveness, http(80), 7, 2), probe(ProbeType::Readiness, http(80), 10, 2)];
    let mut names = names(vec![all(KUBELET, vec![pod])]);
    let mut first = unnamed();
    names.name(&mut first, None);
    names.name(&mut first, None);
    assert_eq!(first.probe, None, "told twice, it is no connect of before");
    let mut second = unnamed();
    second.started_at = "2022-09-15T19:09:12.540000000Z".to_owned();
    names.name(&mut second, None);
    let probe = second.probe.unwrap();
    assert_eq!((probe.r#type.as_str(), probe.confidence), ("readiness", Confidence::Likely));
}

#[test]
fn a_pod_that_has_the_address_only_since_is_not_named() {
    let mut names = names(vec![all(KUBELET, vec![])]);
    names.apply(all(KUBELET, vec![nginx()]), time("2022-09-15T19:10:00Z"));
    let mut incident = unnamed();
    incident.started_at = "2022-09-15T18:59:00.000000000Z".to_owned();
    names.name(&mut incident, None);
    assert_eq!(incident.probe, None);
}

#[test]
fn the_runtime_names_the_pod_and_says_that_it_knows_no_probes() {
    let mut bare = nginx();
    bare.containers[0].probes.clear();
    let incident = named_by(vec![all(PodSourceKind::Cri, vec![bare])]);
    assert_eq!(incident.probe, None);
    let text = notes(&incident).join("\n");
    assert!(
        text.contains("server match (cri): 10.23.77.138:80 is pod default/nginx-5dfb7c896c-x2q2w"),
        "{text}"
    );
    assert!(text.contains("probe match: not known: the container runtime tells no probes"), "{text}");
}

#[test]
fn a_process_that_is_called_kubelet_is_no_proof_of_a_probe() {
    let mut incident = unnamed();
    (incident.owner.exe, incident.owner.cgroup) = (Some("/tmp/x".to_owned()), Some("/user.slice".to_owned()));
    names(vec![all(KUBELET, vec![nginx()])]).name(&mut incident, None);
    assert_eq!(incident.probe, None);
    assert!(notes(&incident).iter().all(|note| !note.starts_with("probe")), "{:?}", notes(&incident));
    names(vec![all(KUBELET, vec![nginx()])]).name(&mut incident, Some(true));
    assert!(incident.probe.is_some(), "but the port that it listens on is");
}

#[test]
fn the_pod_of_an_owner_in_a_container() {
    let mut agent = pod("kube-system", "node-local-dns-7xk2p", &["10.23.77.129"]);
    agent.host_network = true;
    agent.containers[0].name = "node-cache".to_owned();
    agent.containers[0].id =
        Some("0f3c8c9d6c2b7d1e5a4f3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e".to_owned());
    let mut incident = samples::ipv6();
    incident.owner.pod = None;
    names(vec![all(KUBELET, vec![agent])]).name(&mut incident, None);
    assert_eq!(incident.owner.pod.as_ref().unwrap().name, "node-local-dns-7xk2p");
    assert!(notes(&incident).contains(
        &"owner match (kubelet): it runs in container node-cache, image example.net/nginx:1".to_owned()
    ));
    let unlisted = "owner match: its pod is not known: no source lists container 0f3c8c9d6c2b";
    names(vec![all(KUBELET, vec![])]).name(&mut incident, None);
    assert!(notes(&incident).contains(&unlisted.to_owned()), "{:?}", notes(&incident));
}

#[test]
fn a_node_port_that_two_services_claim_is_ambiguous() {
    let incident =
        named_by(vec![services(vec![node_port_service("a", 36704), node_port_service("b", 36704)])]);
    assert_eq!(incident.service.as_ref().unwrap().name, None);
    assert_eq!(
        notes(&incident),
        ["service match (api): ambiguous, 10.23.77.129:36704 is claimed by kube-system/a:https (NodePort), \
         kube-system/b:https (NodePort)"]
    );
}

#[test]
fn a_service_that_is_not_listed_is_said_to_be_missing() {
    let incident = named_by(vec![services(vec![node_port_service("a", 30001)])]);
    assert_eq!(notes(&incident), ["service match (api): no listed Service has 10.23.77.129:36704"]);
    let mut gone = names(vec![services(vec![node_port_service("a", 36704)])]);
    let source = PodSourceKind::Api;
    let (namespace, name) = ("kube-system".to_owned(), "a".to_owned());
    gone.apply(PodUpdate::ServiceGone { source, namespace, name }, before());
    let mut incident = unnamed();
    gone.name(&mut incident, None);
    assert_eq!(incident.service.as_ref().unwrap().name, None);
}

#[test]
fn two_pods_of_one_backend_address_are_both_named() {
    let mut other = dashboard();
    (other.name, other.uid) = ("other".to_owned(), Some("other".to_owned()));
    other.containers[0].ports = vec![tcp_port(8443)];
    let incident = named_by(vec![all(KUBELET, vec![dashboard(), other])]);
    let text = notes(&incident).join("\n");
    assert!(
        text.contains("backend match: ambiguous, backend 10.23.77.139:8443 is one of kube-system/"),
        "{text}"
    );
}

#[test]
fn names_of_the_notes_are_no_prefixes_of_other_sources() {
    let evidence =
        |source: &str| Evidence { at: String::new(), source: source.to_owned(), text: String::new() };
    assert!(is_note(&evidence("probe match (kubelet)")) && is_note(&evidence("probe match")));
    assert!(!is_note(&evidence("probe matcher")) && !is_note(&evidence("tcp_connect (fentry)")));
}
