//! Objects as kubelet and the API server send them.

use serde_json::{Value, json};

/// The header value and environment that every pod here has, and that must not be found anywhere.
pub(super) const HUSH: &str = "hush-hush-value";

pub(super) fn pod(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": "7",
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:phase": {}}}}],
        },
        "spec": {
            "nodeName": "node-a",
            "containers": [{
                "name": "web", "image": "example.net/web:1",
                "env": [{"name": "PASSWORD", "value": HUSH}],
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": "http", "httpHeaders": [{"name": "X-Key", "value": HUSH}]},
                    "timeoutSeconds": 2,
                },
            }],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "containerStatuses": [{"name": "web", "containerID": format!("containerd://{}", "ab".repeat(32))}],
        },
    })
}

#[cfg(feature = "kube")]
pub(super) fn service(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": "7"},
        "spec": {"type": "NodePort", "clusterIP": ip, "ports": [{"port": 80, "nodePort": 31055}]},
    })
}

pub(super) fn list(kind: &str, version: &str, items: &[Value]) -> String {
    page(kind, version, "", items)
}

/// One page of a list; `next` is empty for the last one.
pub(super) fn page(kind: &str, version: &str, next: &str, items: &[Value]) -> String {
    json!({
        "kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": version, "continue": next}, "items": items,
    })
    .to_string()
}

pub(super) fn pods(items: &[Value]) -> String {
    list("PodList", "100", items)
}

/// One line of a watch.
#[cfg(feature = "kube")]
pub(super) fn event(kind: &str, mut object: Value, version: &str) -> String {
    object["metadata"]["resourceVersion"] = version.into();
    format!("{}\n", json!({"type": kind, "object": object}))
}
