//! Tables and logs beside or without a capture.

use std::sync::Arc;

use super::make::{Input, MS, START, analyse, table, with_table};
use super::verdicts::{POD, judged, only};
use crate::analysis::material::{FromInput, Material};
use crate::diagnosis::incident::{Confidence, Outcome, Verdict};
use crate::ipvs::table::IpvsConnection;
use crate::ipvs::{Content, parse_services};
use crate::kubelet_log::{FailureClass, ProbeFailure};
use crate::kubernetes::pod::ProbeType;

fn rows(text: &str) -> FromInput<Vec<IpvsConnection>> {
    let text = format!(
        "IPVS connection entries\npro expire state       source             virtual            destination\n{text}\n"
    );
    let Content::Connections(read) = parse_services(text.as_bytes()).unwrap().content else {
        panic!("{text}")
    };
    assert_eq!(read.unreadable, []);
    FromInput { input: Arc::from("lnc.txt"), at: START, value: read.rows }
}

fn failure(at_ms: i64) -> ProbeFailure {
    ProbeFailure {
        at: Some(START + at_ms * MS),
        kind: Some(ProbeType::Readiness),
        namespace: Some("default".to_owned()),
        name: Some("nginx-0".to_owned()),
        uid: None,
        container: Some("nginx".to_owned()),
        target: Some("10.23.77.138:80".parse().unwrap()),
        source: None,
        class: FailureClass::Timeout,
        timeout_ns: None,
        text: "Get \"http://10.23.77.138:80/\": context deadline exceeded".to_owned(),
        file: Arc::from("kubelet.log"),
        line: Some(7),
    }
}

#[test]
fn a_row_of_the_connection_table_proves_the_hijack() {
    let row = rows("TCP 00:59  SYN_RECV    10.23.77.138:80 10.23.77.129:36704 10.23.77.139:8443");
    let material = Material { connections: vec![row], ..with_table() };
    let analysis = analyse(&material, &[Input("pod.pcap", 0, POD)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Hijacked, Confidence::Proven));
    let without_packets = analyse(&material, &[]);
    let incident = only(&without_packets);
    assert_eq!(incident.verdict, Verdict::Collision);
    assert_eq!(incident.connection.isn, None);
    assert_eq!(incident.hijack.as_ref().unwrap().backend, "10.23.77.139:8443");
}

/// kubernetes/kubernetes#85422: a process of the node that uses a cluster IP as its source is a client like any other.
#[test]
fn a_row_of_an_ordinary_client_is_no_incident() {
    let row = rows("TCP 00:50  SYN_RECV    10.254.0.1:56808 10.254.0.1:443 10.111.32.241:6443");
    let material = Material { connections: vec![row], ..with_table() };
    assert!(analyse(&material, &[]).incidents.is_empty());
}

/// kubernetes/kubernetes#81775
#[test]
fn what_ipvs_still_remembers_makes_a_delay_likely() {
    let row = rows("TCP 01:58  TIME_WAIT   10.23.77.140:51000 10.23.254.52:443 10.23.77.139:8443");
    let material = Material { connections: vec![row], ..with_table() };
    let text = "
        0    0 10.23.77.140:51000 > 10.23.254.52:443 SYN 100
        1000 0 10.23.77.140:51000 > 10.23.254.52:443 SYN 100
        1000 0 10.23.254.52:443 > 10.23.77.140:51000 SYN-ACK 500 101
        1000 0 10.23.77.140:51000 > 10.23.254.52:443 ACK 101 501
    ";
    let analysis = analyse(&material, &[Input("a", 0, text)]);
    assert_eq!(judged(&analysis), (Verdict::ReuseDelay, Outcome::Survived, Confidence::Likely));
}

/// cilium/cilium#16827
#[test]
fn conntrack_tells_which_port_masquerading_chose() {
    let line = "tcp 6 118 SYN_SENT src=10.23.77.140 dst=198.51.100.10 sport=51000 dport=80 [UNREPLIED] src=198.51.100.10 \
                dst=10.23.77.129 sport=80 dport=36704\n";
    let mut rows = Vec::new();
    crate::node::conntrack_text::read(line.as_bytes(), &mut |row| rows.push(row));
    let tracked =
        rows.into_iter().map(|value| FromInput { input: Arc::from("conntrack.txt"), at: START, value });
    let material = Material { tracked: tracked.collect(), ..with_table() };
    let analysis = analyse(&material, &[]);
    assert_eq!(only(&analysis).verdict, Verdict::CollisionSnat);
}

#[test]
fn a_kubelets_line_is_joined_names_the_probe_and_tells_that_it_failed() {
    let material = Material { failures: vec![failure(2001)], has_kubelet_log: true, ..with_table() };
    let analysis = analyse(&material, &[Input("pod.pcap", 0, POD)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Failed, Confidence::Likely));
    let probe = only(&analysis).probe.as_ref().unwrap();
    assert_eq!((probe.r#type.as_str(), probe.pod.name.as_str()), ("readiness", "nginx-0"));
    assert_eq!((probe.handler.as_str(), probe.period_s), ("httpGet", None));
}

#[test]
fn a_log_in_local_time_is_set_right_by_whole_zones_only() {
    let eight_hours = 8 * 3600 * 1000;
    let material =
        Material { failures: vec![failure(eight_hours + 2001)], has_kubelet_log: true, ..with_table() };
    let analysis = analyse(&material, &[Input("pod.pcap", 0, POD)]);
    assert_eq!(only(&analysis).log_lines.len(), 1);
    assert!(analysis.clocks[0].contains("kubelet.log is 8:00 h ahead"), "{:?}", analysis.clocks);
    let material =
        Material { failures: vec![failure(eight_hours + 500_000)], has_kubelet_log: true, ..with_table() };
    let analysis = analyse(&material, &[Input("pod.pcap", 0, POD)]);
    assert!(only(&analysis).log_lines.is_empty());
    assert_eq!(analysis.summary.probe_failures_elsewhere, Some(1));
}

/// midbai.com, "many pod probes failing after upgrading Kubernetes": the probe's text alone says nothing of ports.
#[test]
fn a_failed_probe_alone_is_no_collision() {
    let material = Material { failures: vec![failure(2001)], has_kubelet_log: true, ..with_table() };
    let analysis = analyse(&material, &[]);
    assert!(analysis.incidents.is_empty());
    assert_eq!(analysis.summary.probe_failures_elsewhere, Some(1));
}

/// The kubelet says EADDRNOTAVAIL itself.
#[test]
fn a_probe_without_a_source_port_is_exhaustion() {
    let failure = ProbeFailure { class: FailureClass::OutOfPorts, ..failure(0) };
    let material = Material { failures: vec![failure], has_kubelet_log: true, ..with_table() };
    assert_eq!(only(&analyse(&material, &[])).verdict, Verdict::Exhaustion);
}

#[test]
fn the_node_port_of_a_service_makes_up_for_a_table_that_was_cut() {
    let list = "NAMESPACE NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE\n\
                kube-system dashboard NodePort 10.23.254.52 <none> 443:36704/TCP 2y\n";
    let services = crate::kubernetes::parse_services(list.as_bytes()).unwrap().items;
    let other = "TCP  169.254.20.10:36704 rr\n";
    let mut cut = table(other);
    cut.value.1 = Some("it was cut".to_owned());
    let material = Material { tables: vec![cut], services: services.clone(), ..Material::default() };
    let analysis = analyse(&material, &[Input("pod.pcap", 0, POD)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Pending, Confidence::Likely));
    let service = only(&analysis).service.as_ref().unwrap();
    assert_eq!(service.name.as_deref(), Some("kube-system/dashboard:443"));
    assert_eq!(service.kind.as_deref(), Some("NodePort"));
    let said = &only(&analysis).evidence;
    assert!(said.iter().any(|evidence| evidence.text.contains("it was cut")), "{said:#?}");
    // A whole table that lacks the address says no (kubernetes/kubernetes#132068).
    let material = Material { tables: vec![table(other)], services, ..Material::default() };
    let analysis = analyse(&material, &[Input("pod.pcap", 0, POD)]);
    assert_eq!(only(&analysis).verdict, Verdict::OtherReset);
}

fn socket(line: &str) -> FromInput<crate::node::sockets::Socket> {
    let read = crate::node::sockets::text::parse_sockets(line.as_bytes());
    let value = read.sockets.into_iter().next().unwrap();
    FromInput { input: Arc::from("ss.txt"), at: START, value }
}

/// kubernetes/kubernetes#40920: somebody else had the port first.
#[test]
fn a_port_that_kube_proxy_could_not_open_names_its_holder() {
    let line = "E0203 14:08:15.59 1 proxier.go:1108] can't open \"nodePort for shop/web:http\" (:34104/tcp), skipping this \
                nodePort: listen tcp :34104: bind: address already in use";
    let refused = crate::kubernetes::kube_proxy_log::parse(line.as_bytes()).ports;
    let refused =
        refused.into_iter().map(|value| FromInput { input: Arc::from("kube-proxy.log"), at: START, value });
    let holder =
        socket(r#"ESTAB 0 0 192.0.2.1:34104 192.0.2.2:2379 users:(("kube-apiserver",pid=812,fd=9))"#);
    let material = Material { refused: refused.collect(), sockets: vec![holder], ..Material::default() };
    let analysis = analyse(&material, &[]);
    let incident = only(&analysis);
    assert_eq!(incident.verdict, Verdict::ListenConflict);
    assert_eq!((incident.owner.pid, incident.owner.comm.as_deref()), (Some(812), Some("kube-apiserver")));
    assert_eq!(analysis.summary.verdicts.get(&Verdict::ListenConflict), Some(&1));
    assert!(incident.evidence[0].text.contains("shop/web:http"), "{:?}", incident.evidence);
}

/// kubernetes/kubernetes#85418: the streaming server of a container runtime on a NodePort.
#[test]
fn a_listener_on_a_service_is_a_conflict_and_kube_proxys_own_is_none() {
    let services = vec![table("TCP  127.0.0.1:37751 rr\nTCP  10.0.0.1:37751 rr\n")];
    let listener = |local: &str, comm: &str| {
        socket(&format!("LISTEN 0 128 {local} 0.0.0.0:* users:((\"{comm}\",pid=9,fd=3))"))
    };
    let of = |listener| {
        let material = Material { tables: services.clone(), sockets: vec![listener], ..Material::default() };
        analyse(&material, &[]).incidents.len()
    };
    assert_eq!(of(listener("127.0.0.1:37751", "containerd")), 1);
    assert_eq!(of(listener("0.0.0.0:37751", "node")), 1);
    assert_eq!(of(listener("0.0.0.0:37751", "kube-proxy")), 0);
    assert_eq!(of(listener("127.0.0.1:37752", "containerd")), 0);
    assert_eq!(of(listener("10.0.0.2:37751", "containerd")), 0);
}

#[test]
fn what_a_live_trace_told_is_completed_and_not_told_twice() {
    let found = analyse(&with_table(), &[Input("pod.pcap", 0, POD)]);
    let mut live = only(&found).clone();
    (live.outcome, live.confidence) = (Outcome::Hijacked, Confidence::Proven);
    live.owner.comm = Some("kubelet".to_owned());
    live.owner.confidence = Some(Confidence::Proven);
    let from = |value| FromInput { input: Arc::from("trace.json"), at: START, value };
    let material = Material { earlier: vec![from(live.clone()), from(live)], ..with_table() };
    for inputs in [[Input("pod.pcap", 0, POD)].as_slice(), &[]] {
        let analysis = analyse(&material, inputs);
        assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Hijacked, Confidence::Proven));
        assert_eq!(only(&analysis).owner.comm.as_deref(), Some("kubelet"));
        assert_eq!(analysis.summary.verdicts.get(&Verdict::Collision), Some(&1));
        assert!(!analysis.incidents[0].ladder.arrows.is_empty());
    }
}

/// Pipedrive R&D, "Solving the mystery of pods health checks failures in Kubernetes": kubelet's sockets stuck in SYN-SENT.
#[test]
fn a_socket_that_waits_on_a_node_port_names_its_owner() {
    let services = vec![table("TCP  10.0.0.5:31055 rr\n")];
    let waiting = |port: u16| {
        let line =
            format!(r#"SYN-SENT 0 1 10.0.0.5:{port} 10.244.1.7:8080 users:(("kubelet",pid=1840,fd=31))"#);
        Material {
            tables: services.clone(),
            sockets: vec![socket(&line), socket(&line)],
            ..Material::default()
        }
    };
    let analysis = analyse(&waiting(31_055), &[]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Pending, Confidence::Possible));
    let incident = only(&analysis);
    assert_eq!((incident.owner.comm.as_deref(), incident.owner.pid), (Some("kubelet"), Some(1840)));
    assert_eq!(incident.service.as_ref().unwrap().address, "10.0.0.5:31055");
    assert!(analyse(&waiting(31_056), &[]).incidents.is_empty());
}

#[test]
fn a_waiting_socket_names_the_owner_of_the_connect_that_a_capture_shows() {
    let line = r#"SYN-SENT 0 1 10.23.77.129:36704 10.23.77.138:80 users:(("kubelet",pid=1840,fd=31))"#;
    let material = Material { sockets: vec![socket(line)], ..with_table() };
    let analysis = analyse(&material, &[Input("pod.pcap", 0, POD)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Pending, Confidence::Likely));
    assert_eq!(only(&analysis).owner.comm.as_deref(), Some("kubelet"));
}

#[test]
fn a_gap_is_told_of_the_log_that_has_it() {
    let log = |input: &str, seconds: &[i64]| {
        let line = |(n, second): (usize, &i64)| {
            let at = START / 1_000_000_000 + second;
            let stamp =
                jiff::Timestamp::from_second(at).unwrap().strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
            let line = format!(
                "10.23.77.129 - - [{stamp}] \"GET / HTTP/1.1\" 200 615 \"-\" \"kube-probe/1.23\" \"-\""
            );
            let mut read = Vec::new();
            crate::access_log::read(line.as_bytes(), &mut |request| read.push(request));
            let value = crate::access_log::Request { line: n as u64 + 1, ..read.remove(0) };
            FromInput { input: Arc::from(input), at: START, value }
        };
        seconds.iter().enumerate().map(line).collect::<Vec<_>>()
    };
    // Both servers are probed at once; only the second one missed a request.
    let requests = [log("whole.log", &[-20, -10, 0, 10, 20]), log("gap.log", &[-20, -10, 10, 20])].concat();
    let material = Material { requests, ..with_table() };
    let analysis = analyse(&material, &[Input("pod.pcap", 0, POD)]);
    let told: Vec<_> = analysis.incidents[0]
        .timeline
        .iter()
        .filter(|moment| moment.text.contains("logged no request"))
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].source, "gap.log, after line 2");
}
