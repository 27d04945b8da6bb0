//! A container runtime on a Unix socket: gRPC framing by hand, so that it can also be done wrong.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tonic::Code;

use super::super::cri_wire::{
    Container, ContainerMetadata, ImageSpec, ListContainersResponse, ListPodSandboxResponse, PodSandbox,
    PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus, PodSandboxStatusRequest,
    PodSandboxStatusResponse, VersionResponse,
};
use super::super::task::Task;

/// What the runtime answers.
pub(super) type Answer = Result<Vec<u8>, Code>;

/// Call and message of a request to an answer; `None` = never.
type Handler = Arc<dyn Fn(&str, &[u8]) -> Option<Answer> + Send + Sync>;

pub(super) struct CriServer {
    folder: TempDir,
    calls: Arc<Mutex<Vec<String>>>,
    _task: Task,
}

impl CriServer {
    pub(super) fn start(handler: impl Fn(&str, &[u8]) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("runtime.sock")).unwrap();
        let calls = Arc::<Mutex<Vec<String>>>::default();
        let (log, handler): (_, Handler) = (Arc::clone(&calls), Arc::new(handler));
        let task = Task::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                let service =
                    service_fn(move |request| respond(request, Arc::clone(&log), Arc::clone(&handler)));
                connections.push(Task::spawn(async move {
                    let builder = http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                }));
            }
        });
        Self { folder, calls, _task: task }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("runtime.sock")
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

async fn respond(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<String>>>,
    handler: Handler,
) -> Result<Response<Channel<Bytes>>, Infallible> {
    let call = request.uri().path().trim_start_matches("/runtime.v1.RuntimeService/").to_owned();
    log.lock().unwrap().push(call.clone());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let Some(answer) = handler(&call, &body[5..]) else { return std::future::pending().await };
    let (mut sender, channel) = Channel::new(2);
    let response = Response::builder().header("content-type", "application/grpc");
    let code = answer.as_ref().err().copied().unwrap_or(Code::Ok);
    tokio::spawn(async move {
        if let Ok(message) = answer {
            let mut frame = BytesMut::new();
            frame.put_u8(0);
            frame.put_u32(u32::try_from(message.len()).unwrap());
            frame.put_slice(&message);
            let _ = sender.send_data(frame.freeze()).await;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code as i32));
        let _ = sender.send_trailers(trailers).await;
    });
    Ok(response.body(channel).unwrap())
}

#[expect(clippy::unnecessary_wraps, reason = "what a handler returns")]
pub(super) fn version() -> Option<Answer> {
    let version = VersionResponse {
        runtime_name: "containerd".into(),
        runtime_version: "1.7.0".into(),
        runtime_api_version: "v1".into(),
    };
    Some(Ok(version.encode_to_vec()))
}

pub(super) fn sandbox(id: &str, name: &str) -> PodSandbox {
    PodSandbox {
        id: id.into(),
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        ..PodSandbox::default()
    }
}

pub(super) fn container(id: &str, sandbox: &str, name: &str, attempt: u32) -> Container {
    Container {
        id: id.into(),
        pod_sandbox_id: sandbox.into(),
        metadata: Some(ContainerMetadata { name: name.into(), attempt }),
        image: Some(ImageSpec {
            image: "sha256:1234".into(),
            user_specified_image: "example.net/web:1".into(),
        }),
        state: 1,
        labels: HashMap::new(),
    }
}

pub(super) fn with_address(ip: &str) -> PodSandboxStatusResponse {
    let network = PodSandboxNetworkStatus { ip: ip.into(), additional_ips: Vec::new() };
    PodSandboxStatusResponse { status: Some(PodSandboxStatus { network: Some(network), linux: None }) }
}

/// A runtime with these sandboxes, containers and statuses.
pub(super) fn runtime(
    sandboxes: Vec<PodSandbox>,
    containers: Vec<Container>,
    status: impl Fn(&str) -> Result<PodSandboxStatusResponse, Code> + Send + Sync + 'static,
) -> impl Fn(&str, &[u8]) -> Option<Answer> + Send + Sync + 'static {
    let sandboxes = ListPodSandboxResponse { items: sandboxes }.encode_to_vec();
    let containers = ListContainersResponse { containers }.encode_to_vec();
    move |call, message| match call {
        "Version" => version(),
        // In state 0: the filter's presence says so.
        "ListPodSandbox" => {
            Some(if message == [10, 2, 18, 0] { Ok(sandboxes.clone()) } else { Err(Code::InvalidArgument) })
        }
        "ListContainers" => {
            Some(if message.is_empty() { Ok(containers.clone()) } else { Err(Code::InvalidArgument) })
        }
        "PodSandboxStatus" => {
            let request = PodSandboxStatusRequest::decode(message).unwrap();
            Some(status(&request.pod_sandbox_id).map(|status| status.encode_to_vec()))
        }
        _ => Some(Err(Code::Unimplemented)),
    }
}

/// A runtime with one pod.
#[cfg(feature = "kube")]
pub(super) fn running_pod(
    name: &'static str,
    ip: &'static str,
) -> impl Fn(&str, &[u8]) -> Option<Answer> + Send + Sync + 'static {
    runtime(vec![sandbox("s1", name)], vec![container("c1", "s1", "web", 0)], move |_| Ok(with_address(ip)))
}
