//! gRPC calls over one connection to a Unix socket.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::task::Task;

/// Largest answer in bytes: what kubelet allows (`maxMsgSize`, pkg/kubelet/util).
const MAX_MESSAGE: usize = 16 << 20;

/// One connection.
pub(super) struct Channel {
    grpc: Grpc<Sender>,
    /// Ends the connection with the channel.
    _connection: Task,
}

impl Channel {
    /// Connects to a socket.
    pub(super) async fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let connection = Task::spawn(async move {
            // Its error reaches the calls as well.
            let _ = connection.await;
        });
        // gRPC wants an authority, and a socket has none.
        let grpc = Grpc::with_origin(Sender(sender), Uri::from_static("http://localhost"));
        Ok(Self { grpc: grpc.max_decoding_message_size(MAX_MESSAGE), _connection: connection })
    }

    /// Calls `/runtime.v1.RuntimeService/{call}`.
    pub(super) async fn unary<Q, A>(&mut self, call: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{call}"))
            .map_err(|error| Status::internal(error.to_string()))?;
        self.grpc.ready().await.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        self.grpc.unary(tonic::Request::new(request), path, codec).await.map(tonic::Response::into_inner)
    }
}

/// hyper's sender as the service that tonic expects.
struct Sender(SendRequest<Body>);

impl Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
