//! Pods as they are asked for: of the runtime, and as the API describes them.

use serde_json::{Value, json};

use super::{Pod, cri};
use crate::node::NODE;

/// Name of the node in the cluster.
pub const NODE_NAME: &str = "node";

/// One pod, as a kubelet would ask for it.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Namespace.
    pub namespace: &'static str,
    /// Name.
    pub name: &'static str,
    /// `metadata.uid`, which its cgroup is named after.
    pub uid: &'static str,
    /// Whether it shares the node's network namespace.
    pub host_network: bool,
    /// Its containers.
    pub containers: Vec<ContainerSpec>,
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Name.
    pub name: &'static str,
    /// One of the images that the lab makes.
    pub image: &'static str,
    /// Program and arguments.
    pub command: Vec<String>,
    /// TCP port that it declares.
    pub port: Option<u16>,
    /// Its probes, all of them httpGet.
    pub probes: Vec<ProbeSpec>,
}

/// One probe of a container: `httpGet` with scheme HTTP.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSpec {
    /// `Liveness`, `Readiness` or `Startup`, as kubelet logs it.
    pub kind: &'static str,
    /// Path.
    pub path: &'static str,
    /// Port of the pod.
    pub port: u16,
    /// `periodSeconds`.
    pub period_s: u64,
    /// `timeoutSeconds`.
    pub timeout_s: u64,
}

/// The pod's cgroup, as a kubelet with the cgroupfs driver names it. (The systemd driver needs a systemd.)
pub fn cgroup_of(spec: &PodSpec) -> String {
    format!("/kubepods/burstable/pod{}", spec.uid)
}

fn labels(spec: &PodSpec) -> cri::Map {
    [
        ("io.kubernetes.pod.namespace", spec.namespace),
        ("io.kubernetes.pod.name", spec.name),
        ("io.kubernetes.pod.uid", spec.uid),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn namespaces(spec: &PodSpec) -> cri::NamespaceOption {
    let network = if spec.host_network { cri::NODE } else { 0 };
    cri::NamespaceOption { network, pid: cri::CONTAINER }
}

pub(super) fn sandbox_config(spec: &PodSpec) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: spec.name.to_owned(),
            uid: spec.uid.to_owned(),
            namespace: spec.namespace.to_owned(),
        }),
        hostname: if spec.host_network { String::new() } else { spec.name.to_owned() },
        log_directory: format!("/var/log/pods/{}_{}_{}", spec.namespace, spec.name, spec.uid),
        labels: labels(spec),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_of(spec),
            security_context: Some(cri::SandboxSecurityContext {
                namespace_options: Some(namespaces(spec)),
                seccomp: None,
            }),
        }),
    }
}

pub(super) fn container_config(spec: &PodSpec, container: &ContainerSpec) -> cri::ContainerConfig {
    let mut labels = labels(spec);
    labels.insert("io.kubernetes.container.name".to_owned(), container.name.to_owned());
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.to_owned() }),
        image: Some(cri::ImageSpec { image: container.image.to_owned() }),
        command: container.command.clone(),
        args: Vec::new(),
        mounts: Vec::new(),
        // The lab's own program is not to look for another cgroup.
        envs: vec![cri::KeyValue { key: crate::client::CGROUP_VARIABLE.to_owned(), value: String::new() }],
        labels,
        log_path: format!("{}.log", container.name),
        linux: Some(cri::LinuxContainerConfig {
            resources: None,
            security_context: Some(cri::ContainerSecurityContext {
                namespace_options: Some(namespaces(spec)),
                ..cri::ContainerSecurityContext::default()
            }),
        }),
    }
}

/// The pods as an API object, the form that kubelets and API servers answer in.
pub fn pod_list(pods: &[&Pod]) -> Value {
    let items: Vec<Value> = pods.iter().map(|pod| pod_object(pod)).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "17"}, "items": items})
}

/// The pods and the Services of the lab, as `kubectl get pods,svc -A -o json` lists them.
pub fn list(pods: &[&Pod]) -> Value {
    let mut items: Vec<Value> = pods.iter().map(|pod| with_kind("Pod", pod_object(pod))).collect();
    items.push(with_kind("Service", dashboard_service()));
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": ""}, "items": items})
}

/// The Services of the lab, as the API server lists them.
pub fn service_list() -> Value {
    let metadata = json!({"resourceVersion": "17"});
    json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": [dashboard_service()]})
}

fn with_kind(kind: &str, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("kind".to_owned(), json!(kind));
        fields.insert("apiVersion".to_owned(), json!("v1"));
    }
    object
}

/// The seed's Service, whose NodePort is taken for a source port.
fn dashboard_service() -> Value {
    json!({
        "metadata": {"name": "kubernetes-dashboard", "namespace": "kube-system"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.77.1",
            "clusterIPs": ["10.96.77.1"],
            "ports": [{"port": 443, "protocol": "TCP", "targetPort": 8443, "nodePort": 36704}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn pod_object(pod: &Pod) -> Value {
    let spec = &pod.spec;
    let ip = pod.ip.as_deref().unwrap_or(NODE);
    let mut statuses = Vec::new();
    for (container, running) in spec.containers.iter().zip(&pod.containers) {
        statuses.push(json!({
            "name": container.name,
            "image": container.image,
            "containerID": format!("containerd://{}", running.id),
            "ready": true,
            "started": true,
            "restartCount": 0,
        }));
    }
    json!({
        "metadata": {"name": spec.name, "namespace": spec.namespace, "uid": spec.uid},
        "spec": {
            "nodeName": NODE_NAME,
            "hostNetwork": spec.host_network,
            "containers": spec.containers.iter().map(container_object).collect::<Vec<Value>>(),
        },
        "status": {
            "phase": "Running",
            "hostIP": NODE,
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "containerStatuses": statuses,
        },
    })
}

fn container_object(container: &ContainerSpec) -> Value {
    let mut object = json!({"name": container.name, "image": container.image, "command": container.command});
    if let (Some(port), Some(fields)) = (container.port, object.as_object_mut()) {
        fields.insert("ports".to_owned(), json!([{"containerPort": port, "protocol": "TCP"}]));
    }
    for probe in &container.probes {
        let field = format!("{}Probe", probe.kind.to_lowercase());
        let described = json!({
            "httpGet": {"path": probe.path, "port": probe.port, "scheme": "HTTP"},
            "periodSeconds": probe.period_s,
            "timeoutSeconds": probe.timeout_s,
            "successThreshold": 1,
            "failureThreshold": 3,
        });
        if let Some(fields) = object.as_object_mut() {
            fields.insert(field, described);
        }
    }
    object
}
