//! What the index costs: `cargo test --release -p probe-user --lib pods::measure -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::index::PodIndex;
use super::kubelet::{IsKubelet, Reason};
use super::probe::{Connect, match_probe};
use super::samples::{http, pod, probe, tcp_port};
use super::update::{PodSourceKind, PodUpdate};
use crate::kubernetes::pod::{Pod, ProbeType};
use crate::kubernetes::stream::read_pod_list;

const PODS: u16 = 500;
const LOOKUPS: u32 = 10_000;
const NODE_LIMIT_BYTES: usize = 5 * 1024 * 1024;
/// Longest time for reading the list.
const LIST_LIMIT: Duration = Duration::from_millis(100);
/// Times that each thing is done.
const ROUNDS: usize = 15;

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

/// Anonymous memory, without the pages of the program itself.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
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
    let all = || remotes.iter().cycle().take(LOOKUPS as usize);
    let lookup = median(|| {
        let found: usize = all().map(|remote| index.candidates(*remote, 1).count()).sum();
        assert_eq!(found, LOOKUPS as usize);
    }) / LOOKUPS;
    let matching = median(|| {
        for remote in all() {
            let connect = Connect { remote: *remote, at: 1, given_up_after: None };
            std::hint::black_box(match_probe(&index, connect, &yes, &[]));
        }
    }) / LOOKUPS;
    println!("index: {bytes} bytes resident; lookup {lookup:?}, match {matching:?}");
    assert!(bytes < NODE_LIMIT_BYTES, "{bytes}");
    assert!(cfg!(debug_assertions) || lookup.as_nanos() < 1000, "{lookup:?}");
}

/// A pod as kubelet's `/pods` gives it: three probes amid what an ordinary Deployment has besides.
fn pod_object(n: u16) -> Value {
    let uid = format!("3daea6ef-f286-43f2-8825-51edaa39{n:04}");
    let probe = |port: u16| {
        json!({
            "httpGet": {"path": "/healthz", "port": port, "scheme": "HTTP",
                        "httpHeaders": [{"name": "Authorization", "value": "Bearer made-up"}]},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        })
    };
    let numbered = |count: u16, of: fn(u16) -> Value| (0..count).map(of).collect::<Vec<Value>>();
    let environment = numbered(24, |n| json!({"name": format!("SETTING_{n}"), "value": "x".repeat(40)}));
    let mounts =
        numbered(6, |n| json!({"name": format!("volume-{n}"), "mountPath": format!("/var/lib/{n}")}));
    let volumes = numbered(6, |n| {
        json!({"name": format!("volume-{n}"),
        "projected": {"defaultMode": 420, "sources": [{"configMap": {"name": format!("map-{n}")}}]}})
    });
    let conditions = numbered(5, |n| {
        json!({"type": format!("Condition{n}"), "status": "True",
        "lastProbeTime": null, "lastTransitionTime": "2022-09-15T19:09:04Z"})
    });
    let (name, image) = (format!("deployment-5dfb7c896c-{n:05}"), "registry.example.net/team/web:1.2.3");
    let [high, low] = n.to_be_bytes();
    let ip = format!("10.244.{high}.{low}");
    json!({
        "metadata": {
            "name": name, "generateName": "deployment-5dfb7c896c-", "namespace": "namespace", "uid": uid,
            "creationTimestamp": "2022-09-15T19:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5dfb7c896c"},
            "annotations": {"kubernetes.io/config.source": "api", "note": "y".repeat(400)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "deployment-5dfb7c896c",
                                 "uid": uid, "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "volumes": volumes, "nodeName": "node-a", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "containers": [{
                "name": "web", "image": image, "args": ["--listen=:8080", "--verbose=2"],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": environment, "volumeMounts": mounts,
                "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
                "livenessProbe": probe(8080), "readinessProbe": probe(8081), "startupProbe": probe(8082),
                "imagePullPolicy": "IfNotPresent",
            }],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        },
        "status": {
            "phase": "Running", "conditions": conditions, "hostIP": "10.23.77.129",
            "podIP": ip, "podIPs": [{"ip": ip}], "startTime": "2022-09-15T19:00:00Z", "qosClass": "Burstable",
            "containerStatuses": [{
                "name": "web", "state": {"running": {"startedAt": "2022-09-15T19:00:02Z"}}, "lastState": {},
                "ready": true, "started": true, "restartCount": 0, "image": image,
                "imageID": format!("{image}@sha256:{n:064x}"), "containerID": format!("containerd://{n:064x}"),
            }],
        },
    })
}

#[test]
#[ignore = "a measurement: to be run alone"]
fn reading_kubelets_list_of_500_pods() {
    let items: Vec<Value> = (0..PODS).map(pod_object).collect();
    let body = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}).to_string();
    drop(items);
    let time = median(|| {
        let list = read_pod_list(body.as_bytes()).unwrap();
        assert_eq!((list.items.len(), list.unreadable.len()), (usize::from(PODS), 0));
        assert!(list.items.iter().all(|pod| pod.containers[0].probes.len() == 3));
    });
    println!("list of {} bytes: {time:?}", body.len());
    assert!(cfg!(debug_assertions) || time < LIST_LIMIT, "{time:?}");
}

/// The median over the rounds, so that what else the machine does in one of them does not count.
fn median(work: impl Fn()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}
