//! What the index costs: `cargo test --release -p probe-user --lib pods::measure -- --ignored --nocapture`.

use std::time::Instant;

use super::index::PodIndex;
use super::kubelet::{IsKubelet, Reason};
use super::probe::{Connect, match_probe};
use super::samples::{http, pod, probe, tcp_port};
use super::update::{PodSourceKind, PodUpdate};
use crate::kubernetes::pod::{Pod, ProbeType};

const PODS: u16 = 500;
const LOOKUPS: u32 = 100_000;
const NODE_LIMIT_BYTES: usize = 5 * 1024 * 1024;

fn pods() -> Vec<Pod> {
    let kinds = [ProbeType::Liveness, ProbeType::Readiness, ProbeType::Startup];
    let make = |n: u16| {
        let mut pod = pod("namespace", &format!("deployment-5dfb7c896c-{n:05}"), &[]);
        let [high, low] = n.to_be_bytes();
        pod.ips = vec![[10, 244, high, low].into()];
        pod.uid = Some(format!("3daea6ef-f286-43f2-8825-51edaa39{n:04}"));
        pod.containers[0].id = Some(format!("{n:064x}"));
        pod.containers[0].ports = vec![tcp_port(8080)];
        pod.containers[0].probes =
            (8080..).zip(kinds).map(|(port, kind)| probe(kind, http(port), 10, 1)).collect();
        pod
    };
    (0..PODS).map(make).collect()
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "a measurement: to be run alone"]
fn memory_and_lookups_of_500_pods_with_3_probes() {
    let before = resident_bytes();
    let mut index = PodIndex::new();
    index.apply(PodUpdate::All { source: PodSourceKind::Kubelet, pods: pods(), unreadable: vec![] }, 0);
    let bytes = resident_bytes().saturating_sub(before);
    let yes = IsKubelet::Yes(Reason::Listens);
    let remotes: Vec<_> = (0..PODS)
        .map(|n| {
            let [high, low] = n.to_be_bytes();
            ([10, 244, high, low], 8081).into()
        })
        .collect();
    let begin = Instant::now();
    let mut found = 0;
    for remote in remotes.iter().cycle().take(LOOKUPS as usize) {
        found += index.candidates(*remote, 1).count();
    }
    let lookup = begin.elapsed() / LOOKUPS;
    assert_eq!(found, LOOKUPS as usize);
    let begin = Instant::now();
    for remote in remotes.iter().cycle().take(LOOKUPS as usize) {
        let connect = Connect { remote: *remote, at: 1, given_up_after: None };
        std::hint::black_box(match_probe(&index, connect, &yes, &[]));
    }
    let matching = begin.elapsed() / LOOKUPS;
    println!("index: {bytes} bytes resident; lookup {lookup:?}, match {matching:?}");
    assert!(bytes < NODE_LIMIT_BYTES, "{bytes}");
    assert!(lookup.as_nanos() < 1000, "{lookup:?}");
}
