//! What the manifests say.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, PodSpec, Probe, SecurityContext};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{document, documents, files, folder};

fn daemon_set() -> DaemonSet {
    serde_json::from_value(document("base/daemonset.yaml")).unwrap()
}

fn job() -> Job {
    serde_json::from_value(document("one-shot/job.yaml")).unwrap()
}

/// The pods of both, with their only container.
fn pods() -> [(PodSpec, Container); 2] {
    let specs = [daemon_set().spec.unwrap().template.spec, job().spec.unwrap().template.spec];
    specs.map(|spec| {
        let mut spec = spec.unwrap();
        assert_eq!(spec.containers.len(), 1);
        let container = spec.containers.remove(0);
        (spec, container)
    })
}

/// `key = "value"` of the configuration.
fn configuration() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join("base/serve.toml")).unwrap();
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// Mebibytes of `96Mi`, `96M` (portclash means MiB by it).
fn mebibytes(text: &str) -> u64 {
    text.trim_end_matches(|last: char| last.is_ascii_alphabetic()).parse().unwrap()
}

fn seconds(text: &str) -> i64 {
    let number = text.trim_end_matches(['s', 'm']).parse::<i64>().unwrap();
    if text.ends_with('m') { number * 60 } else { number }
}

#[test]
fn privileges_are_the_fewest_and_each_is_justified() {
    let security = std::fs::read_to_string(folder().join("../../docs/security.md")).unwrap();
    let expected = [
        ["BPF", "PERFMON", "NET_ADMIN", "SETPCAP", "SYS_RESOURCE"],
        ["BPF", "PERFMON", "NET_ADMIN", "SYS_PTRACE", "SYS_RESOURCE"],
    ];
    for ((_, container), expected) in pods().into_iter().zip(expected) {
        let context = container.security_context.unwrap();
        let capabilities = context.capabilities.unwrap();
        assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
        let added = capabilities.add.unwrap();
        assert_eq!(added, expected);
        for capability in added {
            assert!(
                security.contains(&format!("`CAP_{capability}`")),
                "docs/security.md has no {capability}"
            );
        }
        assert_eq!(context.privileged, Some(false));
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(context.read_only_root_filesystem, Some(true));
        assert_eq!((context.run_as_user, context.run_as_group), (Some(0), Some(0)));
    }
}

#[test]
fn the_job_has_the_privileges_of_the_daemon_set_and_only_reads_the_node() {
    let [sidecar, job] = pods();
    let but_capabilities = |container: &Container| {
        let context = container.security_context.clone().unwrap();
        SecurityContext { capabilities: None, ..context }
    };
    assert_eq!(but_capabilities(&sidecar.1), but_capabilities(&job.1));
    assert_eq!(sidecar.1.image, job.1.image);
    for (spec, container) in [sidecar, job] {
        assert_eq!((spec.host_network, spec.host_pid, spec.host_ipc), (Some(true), Some(true), None));
        assert_eq!(spec.automount_service_account_token, Some(false));
        let everything = &spec.tolerations.unwrap()[0];
        assert_eq!((everything.operator.as_deref(), &everything.key), (Some("Exists"), &None));
        let of_node: Vec<String> = spec
            .volumes
            .unwrap_or_default()
            .into_iter()
            .filter(|each| each.host_path.is_some())
            .map(|each| each.name)
            .collect();
        assert_eq!(of_node, ["cgroup", "tracing"]);
        for mount in container.volume_mounts.unwrap() {
            assert!(
                mount.read_only == Some(true) || mount.name == "captures",
                "{} can be written",
                mount.name
            );
        }
    }
}

#[test]
fn memory_has_head_room_over_the_goal_and_cpu_is_not_throttled() {
    for (_, container) in pods() {
        let resources = container.resources.unwrap();
        let (requests, limits) = (resources.requests.unwrap(), resources.limits.unwrap());
        // docs/performance.md: resident, peak at the start, and maps, which count as the container's from 5.11 on.
        let (resident, peak, maps) = (20, 41, 33);
        assert!(mebibytes(&requests["memory"].0) >= resident + maps);
        // `kubectl exec` of `portclash doctor` runs in the same container.
        assert!(mebibytes(&limits["memory"].0) >= 2 * (peak + maps));
        assert_eq!(limits.keys().collect::<Vec<_>>(), ["memory"]);
        assert_eq!(requests["cpu"].0, "20m");
    }
}

/// A probe from the node's address could collide with a node port; one from 127.0.0.1 cannot.
#[test]
fn probes_stay_on_loopback_and_reach_the_server() {
    let [(spec, container), _] = pods();
    let listen: SocketAddr = configuration()["listen"].parse().unwrap();
    assert!(listen.ip().is_loopback());
    let port = &container.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.container_port), (Some("http"), i32::from(listen.port())));
    // Neither a node port nor one that Linux hands out to clients.
    assert!(listen.port() < 30_000);
    let probes = [
        // What is not ready is not repaired by a new start, and cannot say why while it is started.
        (container.startup_probe, "/livez"),
        (container.readiness_probe, "/readyz"),
        (container.liveness_probe, "/livez"),
    ];
    for (probe, path) in probes {
        let Probe { http_get, exec, tcp_socket, grpc, timeout_seconds, .. } = probe.unwrap();
        assert_eq!((exec, tcp_socket, grpc), (None, None, None));
        let get = http_get.unwrap();
        assert_eq!((get.host.as_deref(), get.path.as_deref()), (Some("127.0.0.1"), Some(path)));
        assert_eq!(get.port, IntOrString::String("http".to_owned()));
        // The server answers within 2 s or says that it is not alive.
        assert!(timeout_seconds.unwrap() >= 2);
    }
    assert!(spec.termination_grace_period_seconds.unwrap() > seconds(&configuration()["drain"]));
}

/// The node's own things are only read, and nothing is created on it, as what is missing would be if no type said that it must
/// be there.
#[test]
fn components_do_not_write_to_the_node() {
    let mut found = 0;
    for (path, documents) in files() {
        for pod in documents.iter().filter_map(|document| document.pointer("/spec/template/spec")) {
            let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
            let mounts = list(&pod["containers"][0]["volumeMounts"]);
            for volume in list(&pod["volumes"]).iter().filter(|volume| !volume["hostPath"].is_null()) {
                found += 1;
                let of_node: HostPathVolumeSource =
                    serde_json::from_value(volume["hostPath"].clone()).unwrap();
                assert!(
                    matches!(of_node.type_.as_deref(), Some("Directory" | "File")),
                    "{}: {of_node:?}",
                    path.display()
                );
                let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).unwrap();
                assert_eq!(mount["readOnly"], true, "{}: {mount}", path.display());
                // portclash looks for the node's things where the node has them.
                assert_eq!(mount["mountPath"], of_node.path.as_str(), "{}", path.display());
            }
        }
    }
    // Two of the DaemonSet, two of the Job, two of `node-settings`, one of `kubelet-self-signed`.
    assert_eq!(found, 7);
}

/// Kustomizations that docs/deploy.md gives to copy name folders that exist, and its table has every component.
#[test]
fn the_documentation_names_the_components_that_there_are() {
    let text = std::fs::read_to_string(folder().join("../../docs/deploy.md")).unwrap();
    let words = text.split(|c: char| c.is_whitespace() || "[],`".contains(c));
    let named: Vec<&str> = words.filter_map(|word| word.strip_prefix("../deploy/kubernetes/")).collect();
    assert!(named.len() >= 3, "{named:?}");
    for path in named {
        assert!(folder().join(path).join("kustomization.yaml").is_file(), "{path}");
    }
    for entry in std::fs::read_dir(folder().join("components")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(text.contains(&format!("\n| `{name}` | ")), "docs/deploy.md has no {name}");
    }
}

#[test]
fn nothing_but_reading_is_granted() {
    let rules = |file: &str| -> Vec<(Vec<String>, Vec<String>, Vec<String>)> {
        let role: ClusterRole = serde_json::from_value(documents(&folder().join(file))[0].clone()).unwrap();
        let rules = role.rules.unwrap().into_iter();
        rules.map(|rule| (rule.api_groups.unwrap(), rule.resources.unwrap(), rule.verbs)).collect()
    };
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        vec![(vec![group.to_owned()], owned(resources), owned(verbs))]
    };
    assert_eq!(rules("base/rbac.yaml"), rule("", &["pods", "services"], &["list", "watch"]));
    assert_eq!(
        rules("components/events/rbac.yaml"),
        rule("events.k8s.io", &["events"], &["create", "patch"])
    );
    let patch = &documents(&folder().join("components/kubelet/rbac.yaml"))[0][0];
    assert_eq!(
        patch["value"],
        serde_json::json!([{"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}])
    );
}

#[test]
fn the_token_is_short_lived_and_only_the_containers() {
    let [(spec, container), _] = pods();
    let volume = spec.volumes.unwrap().into_iter().find(|volume| volume.name == "token").unwrap();
    let sources = volume.projected.unwrap().sources.unwrap();
    let token = sources.iter().find_map(|source| source.service_account_token.as_ref()).unwrap();
    assert_eq!((token.path.as_str(), token.expiration_seconds), ("token", Some(3600)));
    let mounts = container.volume_mounts.unwrap();
    let mount = mounts.iter().find(|mount| mount.name == "token").unwrap();
    assert_eq!(mount.mount_path, "/var/run/secrets/kubernetes.io/serviceaccount");
    let account = document("base/serviceaccount.yaml");
    assert_eq!(account["automountServiceAccountToken"], false);
}

#[test]
fn captures_fit_into_their_volume() {
    let [(spec, container), _] = pods();
    let volume = spec.volumes.unwrap().into_iter().find(|volume| volume.name == "captures").unwrap();
    let size = volume.empty_dir.unwrap().size_limit.unwrap();
    assert!(mebibytes(&size.0) > mebibytes(&configuration()["record-size"]));
    let mounts = container.volume_mounts.unwrap();
    let mount = mounts.iter().find(|mount| mount.name == "captures").unwrap();
    assert_eq!(mount.mount_path, configuration()["record"]);
}

#[test]
fn the_job_runs_once_outlives_the_trace_and_goes_away() {
    let job = job();
    // docs/deploy.md puts the node's name in place of both.
    let spec = job.spec.unwrap();
    assert_eq!(job.metadata.name.as_deref(), Some("trace-NODE"));
    assert_eq!(spec.template.spec.as_ref().unwrap().node_name.as_deref(), Some("NODE"));
    let container = &spec.template.spec.as_ref().unwrap().containers[0];
    let arguments = container.args.as_ref().unwrap();
    let duration = arguments.iter().skip_while(|word| *word != "--duration").nth(1).unwrap();
    assert!(spec.active_deadline_seconds.unwrap() > seconds(duration) + 60);
    assert_eq!((spec.backoff_limit, spec.ttl_seconds_after_finished), (Some(0), Some(3600)));
    let rules = spec.pod_failure_policy.unwrap().rules;
    let statuses: Vec<Vec<i32>> = rules
        .into_iter()
        .map(|rule| {
            assert_eq!(rule.action, "FailJob");
            let codes = rule.on_exit_codes.unwrap();
            assert_eq!((codes.container_name.as_deref(), codes.operator.as_str()), (Some("portclash"), "In"));
            codes.values
        })
        .collect();
    // docs/deploy.md says which rule means what.
    assert_eq!(statuses, [[1], [2], [3]]);
}

/// What one file names and another has.
#[test]
fn names_fit_each_other() {
    let monitor = document("components/podmonitor/podmonitor.yaml");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let scrape = document("components/scrape/daemonset.yaml");
    let volume = &scrape["spec"]["template"]["spec"]["volumes"][0];
    assert_eq!(endpoint["authorization"]["credentials"]["name"], volume["secret"]["secretName"]);
    assert_eq!(endpoint["port"], "http");
    // What rules and dashboard call a node.
    assert_eq!(endpoint["relabelings"][0]["targetLabel"], "instance");
    let set = daemon_set().spec.unwrap();
    let labels = set.selector.match_labels.clone().unwrap();
    assert_eq!(set.template.metadata.unwrap().labels.unwrap(), labels);
    let selected = &monitor["spec"]["selector"]["matchLabels"];
    assert_eq!(*selected, serde_json::to_value(&labels).unwrap());
    let policy = document("components/scrape/networkpolicy.yaml");
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"], *selected);
    let secret = scrape["spec"]["template"]["spec"]["containers"][0]["env"][1]["value"].as_str().unwrap();
    let mount =
        scrape["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"].as_str().unwrap();
    assert_eq!(secret, format!("{mount}/token"));
}

#[test]
fn namespaces_allow_what_the_pods_need() {
    for name in ["base/namespace.yaml", "one-shot/namespace.yaml"] {
        let namespace = document(name);
        for mode in ["enforce", "audit", "warn"] {
            let label = format!("pod-security.kubernetes.io/{mode}");
            assert_eq!(namespace["metadata"]["labels"][&label], "privileged", "{name}");
        }
    }
}
