use super::*;
use crate::ipvs::table::Unreadable;
use crate::kubernetes::pod::ProbeType;
use crate::pods::samples::{dashboard, host_pod, http, nginx, pod, probe, tcp};
use crate::pods::update::{PodSourceKind, PodUpdate};

const S: Nanos = 1_000_000_000;

fn index(source: PodSourceKind) -> PodIndex {
    let mut dns = host_pod("node-local-dns-7xk2p", 53);
    dns.containers[0].name = "node-cache".to_owned();
    dns.containers[0].probes = vec![probe(ProbeType::Liveness, tcp(Some("169.254.20.10"), 8080), 10, 5)];
    let mut job = pod("batch", "job", &["10.23.77.150"]);
    job.phase = Some("Succeeded".to_owned());
    let mut odd = pod("odd", "\u{1b}[31mname", &[]);
    odd.containers[0].probes = vec![
        probe(ProbeType::Startup, Handler::Exec, 1, 1),
        probe(ProbeType::Liveness, http(80), 10, 1),
        probe(ProbeType::Readiness, Handler::Grpc { port: None, service: None }, 10, 1),
    ];
    let pods = vec![nginx(), dashboard(), dns, job, odd];
    let row = Unreadable { line: 17, text: "{".to_owned(), reason: "a pod without a name".to_owned() };
    let mut index = PodIndex::new();
    index.apply(PodUpdate::All { source, pods, unreadable: vec![row] }, S);
    index
}

#[test]
fn the_page_at_two_widths() {
    let index = index(PodSourceKind::File);
    let notes = ["2 objects of another kind were left out".to_owned()];
    let print = |width| page(&index, &notes, 4 * S, TextStyle { colour: false, width });
    let text = [80, 120].map(print).join("=====\n");
    assert!(text.lines().all(|line| line.chars().count() <= 120 && line.trim_end() == line));
    insta::assert_snapshot!(text);
}

#[test]
fn a_source_without_probes_and_one_in_trouble_say_so() {
    let mut bare = nginx();
    bare.containers[0].probes.clear();
    let mut index = PodIndex::new();
    let reason = "https://127.0.0.1:10250/pods: 401 Unauthorized".to_owned();
    index.apply(PodUpdate::Trouble { source: PodSourceKind::Kubelet, reason }, 0);
    index.apply(PodUpdate::All { source: PodSourceKind::Cri, pods: vec![bare], unreadable: vec![] }, 0);
    insta::assert_snapshot!(page(&index, &[], S, TextStyle { colour: false, width: 80 }));
    assert_eq!(lines(&here(&index)), []);
}

#[test]
fn the_words_of_the_contract() {
    let index = index(PodSourceKind::Kubelet);
    insta::assert_snapshot!(serde_json::to_string_pretty(&lines(&here(&index))).unwrap());
}
