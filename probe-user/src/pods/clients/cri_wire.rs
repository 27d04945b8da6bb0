//! The messages of the container runtime interface, version v1, as far as they are used here: field numbers from
//! `staging/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto` in the Kubernetes source. Fields that are not named here are skipped
//! when a message is read. `docs/building.md` says why these are written by hand.

use std::collections::HashMap;

use prost::Message;

/// `NamespaceMode.NODE`.
pub(super) const NAMESPACE_NODE: i32 = 2;
/// `PodSandboxState.SANDBOX_READY`.
pub(super) const SANDBOX_READY: i32 = 0;
/// `ContainerState.CONTAINER_CREATED`.
pub(super) const CONTAINER_CREATED: i32 = 0;
/// `ContainerState.CONTAINER_RUNNING`.
pub(super) const CONTAINER_RUNNING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionRequest {
    #[prost(string, tag = "1")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_field_names, reason = "names of the protocol")]
pub(super) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub(super) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(super) runtime_version: String,
    #[prost(string, tag = "4")]
    pub(super) runtime_api_version: String,
}

/// `PodSandboxStateValue` and `ContainerStateValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StateValue {
    #[prost(int32, tag = "1")]
    pub(super) state: i32,
}

/// `PodSandboxFilter` and `ContainerFilter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StateFilter {
    #[prost(message, optional, tag = "2")]
    pub(super) state: Option<StateValue>,
}

/// `ListPodSandboxRequest` and `ListContainersRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<StateFilter>,
}

impl ListRequest {
    /// Whatever its state.
    pub(super) const fn all() -> Self {
        Self { filter: None }
    }

    /// Only what is in this state.
    pub(super) const fn in_state(state: i32) -> Self {
        Self { filter: Some(StateFilter { state: Some(StateValue { state }) }) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(super) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<PodSandboxMetadata>,
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    #[prost(int64, tag = "4")]
    pub(super) created_at: i64,
    #[prost(map = "string, string", tag = "5")]
    pub(super) labels: HashMap<String, String>,
    /// Only the static pods' hash is used; nothing of it is kept.
    #[prost(map = "string, string", tag = "6")]
    pub(super) annotations: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub(super) pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<PodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatus {
    #[prost(message, optional, tag = "5")]
    pub(super) network: Option<PodSandboxNetworkStatus>,
    #[prost(message, optional, tag = "6")]
    pub(super) linux: Option<LinuxPodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    pub(super) ip: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodIp {
    #[prost(string, tag = "1")]
    pub(super) ip: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LinuxPodSandboxStatus {
    #[prost(message, optional, tag = "1")]
    pub(super) namespaces: Option<Namespace>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Namespace {
    #[prost(message, optional, tag = "2")]
    pub(super) options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamespaceOption {
    /// `NamespaceMode`.
    #[prost(int32, tag = "1")]
    pub(super) network: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<ImageSpec>,
    #[prost(int32, tag = "6")]
    pub(super) state: i32,
    #[prost(map = "string, string", tag = "8")]
    pub(super) labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, tag = "2")]
    pub(super) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(super) image: String,
    #[prost(string, tag = "18")]
    pub(super) user_specified_image: String,
}
