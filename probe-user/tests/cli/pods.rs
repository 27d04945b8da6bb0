//! `portclash pods` with files.

use std::path::Path;

use serde_json::{Value, json};

use super::{refused, run, stderr};

fn pod(name: &str, node: &str, ip: &str) -> Value {
    let probe =
        json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 2});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}")},
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "PASSWORD", "value": "hunter2"}],
                "readinessProbe": probe,
                "livenessProbe": {"exec": {"command": ["/bin/true"]}},
            }],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

fn write(folder: &Path, items: &[Value]) -> String {
    let path = folder.join("pods.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(&path, list.to_string()).unwrap();
    format!("file:{}", path.display())
}

fn two_nodes(folder: &Path) -> String {
    write(folder, &[pod("a", "node-a", "10.23.77.138"), pod("b", "node-b", "10.23.78.138")])
}

#[test]
fn the_probes_of_one_node_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["pods", "--pods", &two_nodes(folder.path()), "--node-name", "node-a", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("hunter2"));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let readiness = lines.iter().find(|line| line["type"] == "readiness").unwrap();
    assert_eq!(
        *readiness,
        json!({
            "schema": "portclash.probe/v1",
            "pod": {"namespace": "default", "name": "a", "uid": "uid-a"},
            "container": "web", "type": "readiness", "handler": "httpGet", "target": "10.23.77.138:8080",
            "path": "/healthz", "period_s": 10, "timeout_s": 2, "host_network": false, "source": "file",
        })
    );
}

#[test]
fn all_pods_are_listed_where_the_node_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["pods", "--pods", &two_nodes(folder.path())]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for word in
        ["default/a", "default/b", "GET http://10.23.77.138:8080/healthz", "--node-name", "every 10 s"]
    {
        assert!(text.contains(word), "\"{word}\" is not in: {text}");
    }
}

#[test]
fn an_entry_that_cannot_be_read_is_shown_and_makes_the_list_incomplete() {
    let folder = tempfile::tempdir().unwrap();
    let nameless = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": []}});
    let choice = write(folder.path(), &[nameless, pod("a", "node-a", "10.23.77.138")]);
    let output = run(&["pods", "--pods", &choice]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}{}", stderr(&output));
    assert!(text.contains("default/a") && text.contains("could not be read"), "{text}");
}

#[test]
fn what_cannot_be_listed_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let choice = two_nodes(folder.path());
    refused(&run(&["pods", "--pods", "file:/nowhere/pods.json"]), &["/nowhere/pods.json", "No such file"]);
    refused(&run(&["pods", "--pods", "file:/etc/hostname"]), &["/etc/hostname", "kubectl get pods"]);
    refused(&run(&["pods", "--pods", &choice, "--node-name", "node-c"]), &["node-c", "node-a, node-b"]);
    refused(&run(&["pods", "--pods", "none"]), &["file:PATH"]);
    let wrong = run(&["pods", "--pods", "magic"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("auto, kubelet, api, cri, file:PATH or none"));
}
