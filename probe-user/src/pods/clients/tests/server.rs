//! An HTTP server on loopback that answers as a test tells it to.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::super::task::Task;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
    pub(crate) authorization: Option<String>,
}

/// What to do with a request.
pub(crate) enum Reply {
    /// Status, one header or none, the whole body.
    Whole(u16, Option<(&'static str, String)>, Bytes),
    /// The beginning of a body; then the connection breaks.
    Cut(Bytes),
    /// The beginning of a body; then nothing.
    Stalled(Bytes),
    /// Nothing at all.
    Never,
    /// A body in pieces as they are sent here. `None` breaks the connection.
    Live(mpsc::Receiver<Option<Bytes>>),
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self::Whole(200, None, body.into())
    }

    pub(crate) fn status(status: u16) -> Self {
        // As the API server says it; the token-like word must not show up anywhere.
        let body =
            format!(r#"{{"kind":"Status","status":"Failure","code":{status},"message":"leak-of-the-body"}}"#);
        Self::Whole(status, None, body.into())
    }
}

type Handler = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// The server. It ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _task: Task,
}

impl Server {
    pub(crate) async fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, handler): (_, Handler) = (Arc::clone(&asked), Arc::new(handler));
        let task = Task::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, log, handler) = (tls.clone(), Arc::clone(&log), Arc::clone(&handler));
                connections.push(Task::spawn(serve(stream, tls, log, handler)));
            }
        });
        Self { address, asked, _task: task }
    }

    /// Answers with each of these in turn, then with the last one's status again and again.
    pub(crate) async fn scripted(tls: Option<Arc<ServerConfig>>, replies: Vec<Reply>) -> Self {
        let replies = Mutex::new(VecDeque::from(replies));
        Self::start(tls, move |_| replies.lock().unwrap().pop_front().unwrap_or_else(|| Reply::status(503)))
            .await
    }

    /// A server that sends `bytes` to everybody, whatever they want.
    pub(crate) async fn raw(bytes: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = Task::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(bytes).await;
            }
        });
        Self { address, asked: Arc::default(), _task: task }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    log: Arc<Mutex<Vec<Asked>>>,
    handler: Handler,
) {
    match tls {
        Some(tls) => {
            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                speak(stream, log, handler).await;
            }
        }
        None => speak(stream, log, handler).await,
    }
}

async fn speak<S>(stream: S, log: Arc<Mutex<Vec<Asked>>>, handler: Handler)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
        async move {
            let asked = asked(request).await;
            log.lock().unwrap().push(asked.clone());
            let reply = handler(&asked);
            Ok::<_, Infallible>(respond(reply).await)
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn asked(request: Request<Incoming>) -> Asked {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    Asked {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        content_type: header("content-type"),
        authorization: header("authorization"),
        body: request.into_body().collect().await.unwrap().to_bytes(),
    }
}

async fn respond(reply: Reply) -> Response<Channel<Bytes, std::io::Error>> {
    let (mut sender, body) = Channel::new(1);
    let mut response = Response::builder();
    match reply {
        Reply::Whole(status, header, bytes) => {
            response = response.status(status);
            if let Some((name, value)) = header {
                response = response.header(name, value);
            }
            tokio::spawn(async move { sender.send_data(bytes).await });
        }
        Reply::Cut(bytes) => {
            tokio::spawn(async move {
                let _ = sender.send_data(bytes).await;
                sender.abort(std::io::Error::other("cut"));
            });
        }
        Reply::Stalled(bytes) => {
            tokio::spawn(async move {
                let _ = sender.send_data(bytes).await;
                std::future::pending::<()>().await;
            });
        }
        Reply::Never => std::future::pending().await,
        Reply::Live(mut pieces) => {
            tokio::spawn(async move {
                while let Some(piece) = pieces.recv().await {
                    match piece {
                        Some(bytes) => drop(sender.send_data(bytes).await),
                        None => return sender.abort(std::io::Error::other("cut")),
                    }
                }
            });
        }
    }
    response.body(body).unwrap()
}
