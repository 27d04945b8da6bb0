//! Every field is one that the type of its object has: an object is read as that type, written again, and must not have lost
//! anything. `kubectl apply` would refuse, or older ones silently drop, what is misspelt.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::{apps, batch, core, networking, rbac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{documents, files};

/// What differs between an object and what its type kept of it; nothing that was written may be missing or changed. Types
/// may add what they require, which patches leave out.
fn lost(path: &str, written: &Value, kept: &Value) -> Vec<String> {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => written
            .iter()
            .flat_map(|(key, value)| match kept.get(key) {
                Some(kept) => lost(&format!("{path}.{key}"), value, kept),
                None => vec![format!("{path}.{key} is no field")],
            })
            .collect(),
        (Value::Array(written), Value::Array(kept)) if written.len() == kept.len() => {
            let pairs = written.iter().zip(kept).enumerate();
            pairs
                .flat_map(|(index, (written, kept))| lost(&format!("{path}[{index}]"), written, kept))
                .collect()
        }
        _ if written == kept => Vec::new(),
        _ => vec![format!("{path}: {written} became {kept}")],
    }
}

fn round_trip<T: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    match serde_json::from_value::<T>(object.clone()) {
        Ok(typed) => lost("", object, &serde_json::to_value(typed).unwrap()),
        Err(error) => vec![error.to_string()],
    }
}

/// Fails for kinds that nobody has written down here.
fn differences(object: &Value) -> Vec<String> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "Namespace") => round_trip::<core::v1::Namespace>(object),
        ("v1", "ServiceAccount") => round_trip::<core::v1::ServiceAccount>(object),
        ("apps/v1", "DaemonSet") => round_trip::<apps::v1::DaemonSet>(object),
        ("batch/v1", "Job") => round_trip::<batch::v1::Job>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => round_trip::<networking::v1::NetworkPolicy>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => round_trip::<rbac::v1::ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            round_trip::<rbac::v1::ClusterRoleBinding>(object)
        }
        ("monitoring.coreos.com/v1", "PodMonitor") => round_trip::<PodMonitor>(object),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization")
        | ("kustomize.config.k8s.io/v1alpha1", "Component") => round_trip::<Kustomization>(object),
        ("", "") if object.is_array() => round_trip::<Vec<Operation>>(object),
        other => vec![format!("no type for {other:?}")],
    }
}

/// The fields of the Prometheus operator's type that are used (Documentation/api-reference/api.md).
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodMonitor {
    api_version: String,
    kind: String,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    spec: PodMonitorSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodMonitorSpec {
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    pod_metrics_endpoints: Vec<Endpoint>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Endpoint {
    port: String,
    path: String,
    interval: String,
    scrape_timeout: String,
    authorization: Authorization,
    relabelings: Vec<Relabeling>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorization {
    r#type: String,
    credentials: core::v1::SecretKeySelector,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Relabeling {
    action: String,
    source_labels: Vec<String>,
    target_label: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    api_version: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resources: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    patches: Vec<Patch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    config_map_generator: Vec<Generator>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    files: Vec<String>,
}

/// One step of a JSON patch (RFC 6902).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: String,
    path: String,
    value: Value,
}

#[test]
fn every_field_is_known() {
    for (path, documents) in files() {
        for document in documents {
            let found = differences(&document);
            assert!(found.is_empty(), "{}:\n{}", path.display(), found.join("\n"));
        }
    }
}

#[test]
fn a_misspelt_field_is_found_however_deep() {
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "spec": {"selector": {}, "template": {"spec": {"containers": [
            {"name": "x", "securityContext": {"readOnlyRootFileSystem": true}},
        ]}}},
    });
    let wrong = ".spec.template.spec.containers[0].securityContext.readOnlyRootFileSystem is no field";
    assert_eq!(differences(&object), [wrong]);
    let number =
        json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": "0", "template": {}}});
    assert_eq!(differences(&number).len(), 1);
    assert_eq!(
        differences(&json!({"apiVersion": "v1", "kind": "Secret"})).len(),
        1,
        "secrets are not committed"
    );
}

/// Everything in a folder is named by its kustomization, and everything that is named is there; what is elsewhere is a folder
/// of its own, because kustomize takes no single file from outside.
#[test]
fn kustomizations_name_what_is_beside_them() {
    let mut folders = 0;
    for (path, documents) in files() {
        if path.file_name().is_none_or(|name| name != "kustomization.yaml") {
            continue;
        }
        folders += 1;
        let folder = path.parent().unwrap();
        let listed: Kustomization = serde_json::from_value(documents[0].clone()).unwrap();
        let generated = listed.config_map_generator.into_iter().flat_map(|generator| generator.files);
        let patches = listed.patches.into_iter().map(|patch| patch.path);
        let (elsewhere, beside): (Vec<String>, Vec<String>) =
            listed.resources.into_iter().partition(|path| path.starts_with("../"));
        for path in elsewhere {
            let other = &super::documents(&folder.join(&path).join("kustomization.yaml"))[0];
            for file in other["resources"].as_array().unwrap() {
                assert!(folder.join(&path).join(file.as_str().unwrap()).is_file(), "{path}: {file}");
            }
        }
        let mut named: Vec<String> = beside.into_iter().chain(patches).chain(generated).collect();
        named.push("kustomization.yaml".to_owned());
        named.sort();
        assert_eq!(named, names(folder), "{}", folder.display());
    }
    assert_eq!(folders, 11);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A patch changes something that is there.
#[test]
fn patches_are_about_objects_of_the_base() {
    let base: Vec<(Value, Value)> = ["daemonset.yaml", "rbac.yaml"]
        .iter()
        .flat_map(|name| documents(&super::folder().join("base").join(name)))
        .map(|object| (object["kind"].clone(), object["metadata"]["name"].clone()))
        .collect();
    for (path, documents) in files().into_iter().filter(|(path, _)| path.ends_with("kustomization.yaml")) {
        let listed: Kustomization = serde_json::from_value(documents[0].clone()).unwrap();
        for patch in listed.patches {
            let about = if let Some(target) = patch.target {
                (json!(target["kind"]), json!(target["name"]))
            } else {
                let object = &super::documents(&path.parent().unwrap().join(&patch.path))[0];
                (object["kind"].clone(), object["metadata"]["name"].clone())
            };
            assert!(base.contains(&about), "{}: {about:?}", path.display());
        }
    }
}
