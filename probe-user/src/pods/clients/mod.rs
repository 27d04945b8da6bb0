//! Sources of pods and Services that are asked over a socket: kubelet, the API server, the container runtime.
//!
//! Each sends [`PodUpdate`](super::update::PodUpdate)s from a task of its own, tries again after a trouble, and says
//! each trouble once. Nothing of a token, of a certificate or of what a server sent gets into a message or a log line.

#[cfg(feature = "kube")]
mod api;
mod backoff;
#[cfg(feature = "kube")]
mod collection;
mod credentials;
mod cri;
mod cri_channel;
mod cri_wire;
mod follow;
mod http;
#[cfg(feature = "kube")]
mod kubeconfig;
mod kubelet;
mod reader;
mod secret;
mod task;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod verify;
mod voice;
#[cfg(feature = "kube")]
mod watch;
#[cfg(feature = "kube")]
mod yaml;

#[cfg(feature = "kube")]
pub(crate) use api::Api;
#[cfg(feature = "kube")]
pub use api::{ApiError, ApiOptions, ApiServer};
pub use backoff::Backoff;
pub(crate) use credentials::certificate_and_key;
pub use credentials::{CredentialError, Login, Pem};
pub use cri::{CriError, CriOptions};
pub use follow::{ClientOptions, Clients, PodsFrom, follow};
pub use http::{HttpError, Timeouts};
#[cfg(feature = "kube")]
pub use kubeconfig::{KubeconfigError, named_files};
pub use kubelet::{KubeletError, KubeletOptions, SERVICE_ACCOUNT_CA, SERVICE_ACCOUNT_TOKEN};
pub use secret::Secret;
pub use tls::{SetupError, TlsTrouble, Trust};
pub(crate) use {
    credentials::token,
    http::{Call, Server, call, parse_url},
    task::blocking,
    tls::client_config,
};
