//! The container runtime's socket (CRI v1): names, uids, addresses and container ids of the pods on this node. It
//! knows no probes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::Code;

use super::cri_channel::Channel;
use super::cri_wire::{
    CONTAINER_CREATED, CONTAINER_RUNNING, Container as WireContainer, ListContainersResponse,
    ListPodSandboxResponse, ListRequest, NAMESPACE_NODE, PodSandbox, PodSandboxStatusRequest,
    PodSandboxStatusResponse, SANDBOX_READY, VersionRequest, VersionResponse,
};
use crate::ipvs::table::Unreadable;
use crate::kubernetes::pod::{Container, Pod};

/// Where containerd, CRI-O, cri-dockerd and k3s' containerd listen.
const USUAL_SOCKETS: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
];

/// Where the runtime is.
#[derive(Clone, Debug)]
pub struct CriOptions {
    /// Sockets to try one after the other.
    pub sockets: Vec<PathBuf>,
    /// Whether the user named them: then a runtime is expected, and to find none is a trouble.
    pub given: bool,
    /// Longest time for one call.
    pub timeout: Duration,
}

impl Default for CriOptions {
    fn default() -> Self {
        let sockets = USUAL_SOCKETS.map(PathBuf::from).into();
        Self { sockets, given: false, timeout: Duration::from_secs(10) }
    }
}

impl CriOptions {
    /// The given endpoint; else `CONTAINER_RUNTIME_ENDPOINT`, as crictl does; else the usual sockets.
    pub fn find(given: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Self, CriError> {
        let endpoint = given.map(str::to_owned).or_else(|| variable("CONTAINER_RUNTIME_ENDPOINT"));
        endpoint
            .filter(|endpoint| !endpoint.is_empty())
            .map_or_else(|| Ok(Self::default()), |e| Self::for_endpoint(&e))
    }

    /// For an endpoint as crictl and kubelet write it: `unix:///run/containerd/containerd.sock`, or a path.
    pub fn for_endpoint(endpoint: &str) -> Result<Self, CriError> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        if !path.starts_with('/') {
            return Err(CriError::Endpoint(endpoint.to_owned()));
        }
        Ok(Self { sockets: vec![path.into()], given: true, ..Self::default() })
    }

    /// Whether there is no sign of a container runtime.
    pub(super) const fn shows_none(&self, error: &CriError) -> bool {
        !self.given && matches!(error, CriError::NoSocket(_))
    }
}

/// Why the runtime told nothing.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// No path in the endpoint.
    #[error(
        "container runtime endpoint \"{0}\" is no Unix socket; write unix:///run/containerd/containerd.sock"
    )]
    Endpoint(String),
    /// None of the sockets exists.
    #[error(
        "ask the container runtime: none of its usual sockets exists ({0}); mount it, or name it with --runtime-endpoint"
    )]
    NoSocket(String),
    /// The socket does not take connections.
    #[error("ask the container runtime at {socket}: {source}", socket = .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A call failed.
    #[error("ask the container runtime at {socket}: {call}: {}", explain(*.code), socket = .socket.display())]
    Call {
        /// The socket.
        socket: PathBuf,
        /// Name of the call.
        call: &'static str,
        /// What the runtime answered.
        code: Code,
    },
    /// A call was not answered in time.
    #[error("ask the container runtime at {socket}: no answer to {call} within {} ms", limit.as_millis(), socket = .socket.display())]
    Slow {
        /// The socket.
        socket: PathBuf,
        /// Name of the call.
        call: &'static str,
        /// What it was given.
        limit: Duration,
    },
}

fn explain(code: Code) -> String {
    match code {
        Code::Unimplemented => {
            "it does not speak CRI v1: older than containerd 1.6 or CRI-O 1.20, or containerd's cri \
                                plugin is disabled (disabled_plugins in /etc/containerd/config.toml)"
                .to_owned()
        }
        Code::PermissionDenied => "not permitted".to_owned(),
        Code::Unavailable => "it is starting or ending".to_owned(),
        // What is no gRPC at all comes as one of these.
        Code::Unknown | Code::Internal => "it fails, or is no container runtime".to_owned(),
        Code::OutOfRange | Code::ResourceExhausted => "the answer is larger than 16 MiB".to_owned(),
        other => other.description().to_owned(),
    }
}

/// What is remembered of sandboxes from one list to the next: their addresses do not change.
#[derive(Default)]
pub(super) struct Sandboxes(Mutex<HashMap<String, Network>>);

#[derive(Clone, Default)]
struct Network {
    ips: Vec<IpAddr>,
    host: bool,
}

/// All running pods, and the entries that cannot be read.
#[derive(Debug)]
pub(super) struct Pods {
    pub(super) pods: Vec<Pod>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// Asks the first runtime that answers.
pub(super) async fn list(options: &CriOptions, known: &Sandboxes) -> Result<Pods, CriError> {
    let mut first_error = None;
    for socket in options.sockets.iter().filter(|socket| socket.exists()) {
        let runtime = Runtime { socket, timeout: options.timeout };
        match runtime.pods(known).await {
            Ok(pods) => return Ok(pods),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| {
        let sockets: Vec<String> = options.sockets.iter().map(|path| path.display().to_string()).collect();
        CriError::NoSocket(sockets.join(", "))
    }))
}

struct Runtime<'a> {
    socket: &'a PathBuf,
    timeout: Duration,
}

impl Runtime<'_> {
    async fn pods(&self, known: &Sandboxes) -> Result<Pods, CriError> {
        let connect = Channel::connect(self.socket);
        let connected =
            tokio::time::timeout(self.timeout, connect).await.map_err(|_| self.slow("connect"))?;
        let mut channel =
            connected.map_err(|source| CriError::Connect { socket: self.socket.clone(), source })?;
        let version: VersionResponse =
            self.call(&mut channel, "Version", VersionRequest { version: "v1".into() }).await?;
        tracing::debug!(
            "container runtime {} {}, CRI {}",
            version.runtime_name,
            version.runtime_version,
            version.runtime_api_version
        );
        let sandboxes: ListPodSandboxResponse =
            self.call(&mut channel, "ListPodSandbox", ListRequest::in_state(SANDBOX_READY)).await?;
        let containers: ListContainersResponse =
            self.call(&mut channel, "ListContainers", ListRequest::all()).await?;
        let mut containers = by_sandbox(containers.containers);
        let mut result = Pods { pods: Vec::new(), unreadable: Vec::new() };
        let mut still_known = HashMap::new();
        for (index, sandbox) in sandboxes.items.into_iter().enumerate() {
            if sandbox.state != SANDBOX_READY {
                continue;
            }
            let network = match self.network(&mut channel, known, &sandbox.id).await {
                Ok(Ok(network)) => network,
                Ok(Err(reason)) => {
                    result.unreadable.push(Unreadable { line: index + 1, text: shown(&sandbox.id), reason });
                    continue;
                }
                // It ended while the list was read.
                Err(CriError::Call { code: Code::NotFound, .. }) => continue,
                Err(error) => return Err(error),
            };
            if network.host || !network.ips.is_empty() {
                still_known.insert(sandbox.id.clone(), network.clone());
            }
            let mine = containers.remove(&sandbox.id).unwrap_or_default();
            match pod(sandbox, mine, network) {
                Ok(pod) => result.pods.push(pod),
                Err((id, reason)) => {
                    result.unreadable.push(Unreadable { line: index + 1, text: shown(&id), reason });
                }
            }
        }
        *known.0.lock().unwrap_or_else(PoisonError::into_inner) = still_known;
        Ok(result)
    }

    /// Addresses of a sandbox; the inner error is about this one only.
    async fn network(
        &self,
        channel: &mut Channel,
        known: &Sandboxes,
        id: &str,
    ) -> Result<Result<Network, String>, CriError> {
        if let Some(network) = known.0.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(Ok(network.clone()));
        }
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned() };
        let status: PodSandboxStatusResponse = self.call(channel, "PodSandboxStatus", request).await?;
        Ok(network(status))
    }

    async fn call<Q, A>(&self, channel: &mut Channel, call: &'static str, request: Q) -> Result<A, CriError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        match tokio::time::timeout(self.timeout, channel.unary(call, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(CriError::Call { socket: self.socket.clone(), call, code: status.code() }),
            Err(_) => Err(self.slow(call)),
        }
    }

    fn slow(&self, call: &'static str) -> CriError {
        CriError::Slow { socket: self.socket.clone(), call, limit: self.timeout }
    }
}

/// Those that run, and those that are about to: their processes may connect before the next list.
fn by_sandbox(containers: Vec<WireContainer>) -> HashMap<String, Vec<WireContainer>> {
    let name = |container: &WireContainer| container.metadata.as_ref().map(|metadata| metadata.name.clone());
    let (running, others): (Vec<_>, Vec<_>) =
        containers.into_iter().partition(|container| container.state == CONTAINER_RUNNING);
    let mut of: HashMap<String, Vec<WireContainer>> = HashMap::new();
    for container in running {
        of.entry(container.pod_sandbox_id.clone()).or_default().push(container);
    }
    for container in others.into_iter().filter(|container| container.state == CONTAINER_CREATED) {
        let known = of.entry(container.pod_sandbox_id.clone()).or_default();
        if !known
            .iter()
            .any(|running| running.state == CONTAINER_RUNNING && name(running) == name(&container))
        {
            known.push(container);
        }
    }
    of
}

fn network(status: PodSandboxStatusResponse) -> Result<Network, String> {
    let status = status.status.ok_or("the runtime gives no status for it")?;
    let options = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    let host = options.is_some_and(|options| options.network == NAMESPACE_NODE);
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|additional| additional.ip);
    let ips: Result<Vec<IpAddr>, _> =
        std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).map(|ip| ip.parse()).collect();
    let ips = ips.map_err(|_| "one of its addresses is none")?;
    Ok(Network { ips, host })
}

/// Labels and annotations by which kubelet names what it makes.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

fn pod(
    mut sandbox: PodSandbox,
    containers: Vec<WireContainer>,
    network: Network,
) -> Result<Pod, (String, String)> {
    let metadata = sandbox.metadata.take().unwrap_or_default();
    let mut pick = |label: &str, field: String| {
        let text = if field.is_empty() { sandbox.labels.remove(label).unwrap_or_default() } else { field };
        Some(text).filter(|text| !text.is_empty())
    };
    let name = pick(POD_NAME, metadata.name);
    let namespace = pick(POD_NAMESPACE, metadata.namespace);
    let uid = pick(POD_UID, metadata.uid);
    let (Some(name), Some(namespace)) = (name, namespace) else {
        return Err((sandbox.id, "it has no name or no namespace".into()));
    };
    Ok(Pod {
        namespace,
        name,
        uid,
        config_hash: sandbox.annotations.remove(CONFIG_HASH),
        node_name: None,
        host_network: network.host,
        ips: network.ips,
        phase: None,
        containers: containers_of(containers),
    })
}

/// One per name: the latest attempt.
fn containers_of(mut containers: Vec<WireContainer>) -> Vec<Container> {
    let attempt =
        |container: &WireContainer| container.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    containers.sort_by_key(|container| std::cmp::Reverse(attempt(container)));
    let mut result: Vec<Container> = Vec::new();
    for mut container in containers {
        let name = container.metadata.map(|metadata| metadata.name).filter(|name| !name.is_empty());
        let name = name.or_else(|| container.labels.remove(CONTAINER_NAME)).unwrap_or_default();
        if result.iter().any(|known| known.name == name) {
            continue;
        }
        let image = container.image.unwrap_or_default();
        let image =
            if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
        result.push(Container {
            name,
            image: Some(image).filter(|image| !image.is_empty()),
            id: Some(container.id).filter(|id| !id.is_empty()),
            // Unlike an init container before it, a sidecar runs beside the others; the runtime does not tell them apart.
            sidecar: false,
            started: None,
            ports: Vec::new(),
            probes: Vec::new(),
        });
    }
    result.sort_by(|a, b| a.name.cmp(&b.name));
    result
}

/// An id for display, cut.
fn shown(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(100).collect()
}
