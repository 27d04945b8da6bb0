//! Which collections of the API server are watched, and what an object of each becomes.

use std::io::Read;

use serde::Deserialize;

use super::api::ApiOptions;
use super::voice::Topic;
use crate::ipvs::table::Unreadable;
use crate::kubernetes::pod::Pod;
use crate::kubernetes::service::KubeService;
use crate::kubernetes::stream::{StreamedList, read_pod, read_pod_list, read_service, read_service_list};
use crate::pods::update::{PodSourceKind, PodUpdate};

/// A collection that is watched.
pub(super) trait Collection: Send + Sync + 'static {
    type Object: Send + 'static;
    const TOPIC: Topic;
    const PATH: &'static str;
    const LIST: &'static str;
    const WATCH: &'static str;
    /// Selectors of the request, with `&` at the end.
    fn selector(options: &ApiOptions) -> String;
    fn read_list(stream: &mut dyn Read) -> Result<StreamedList<Self::Object>, String>;
    fn read_one(text: &str) -> Result<Self::Object, String>;
    fn all(objects: Vec<Self::Object>, unreadable: Vec<Unreadable>) -> PodUpdate;
    fn changed(object: Self::Object) -> PodUpdate;
    fn gone(head: Metadata) -> PodUpdate;
}

const API: PodSourceKind = PodSourceKind::Api;

/// Pods of this node.
pub(super) struct PodsOfNode;

impl Collection for PodsOfNode {
    type Object = Pod;
    const TOPIC: Topic = Topic::Pods;
    const PATH: &'static str = "/api/v1/pods";
    const LIST: &'static str = "list pods";
    const WATCH: &'static str = "watch pods";

    fn selector(options: &ApiOptions) -> String {
        format!("fieldSelector=spec.nodeName%3D{}&", encoded(&options.node_name))
    }

    fn read_list(stream: &mut dyn Read) -> Result<StreamedList<Pod>, String> {
        read_pod_list(stream)
    }

    fn read_one(text: &str) -> Result<Pod, String> {
        read_pod(text)
    }

    fn all(pods: Vec<Pod>, unreadable: Vec<Unreadable>) -> PodUpdate {
        PodUpdate::All { source: API, pods, unreadable }
    }

    fn changed(pod: Pod) -> PodUpdate {
        PodUpdate::Changed { source: API, pod: Box::new(pod) }
    }

    fn gone(head: Metadata) -> PodUpdate {
        PodUpdate::Gone { source: API, namespace: head.namespace, name: head.name, uid: head.uid }
    }
}

/// Services of the cluster.
pub(super) struct Services;

impl Collection for Services {
    type Object = KubeService;
    const TOPIC: Topic = Topic::Services;
    const PATH: &'static str = "/api/v1/services";
    const LIST: &'static str = "list Services";
    const WATCH: &'static str = "watch Services";

    fn selector(_: &ApiOptions) -> String {
        String::new()
    }

    fn read_list(stream: &mut dyn Read) -> Result<StreamedList<KubeService>, String> {
        read_service_list(stream)
    }

    fn read_one(text: &str) -> Result<KubeService, String> {
        read_service(text)
    }

    fn all(services: Vec<KubeService>, unreadable: Vec<Unreadable>) -> PodUpdate {
        PodUpdate::ServicesAll { source: API, services, unreadable }
    }

    fn changed(service: KubeService) -> PodUpdate {
        PodUpdate::ServiceChanged { source: API, service: Box::new(service) }
    }

    fn gone(head: Metadata) -> PodUpdate {
        PodUpdate::ServiceGone { source: API, namespace: head.namespace, name: head.name }
    }
}

/// Percent-encoding of what is not unreserved (RFC 3986, section 2.3).
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

/// What tells which object an event is about.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("node-a.example"), "node-a.example");
        assert_eq!(encoded("a&b=c d/é"), "a%26b%3Dc%20d%2F%C3%A9");
    }
}
