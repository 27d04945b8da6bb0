//! One request over a connection of its own, over TLS or in the clear, with a deadline for every step and a body that
//! comes in pieces. Redirects are answers like any other: nothing follows them, so no token goes astray.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::secret::Secret;
use super::task::Task;
use super::tls::TlsTrouble;

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Connecting, and the TLS handshake, each.
    pub connect: Duration,
    /// From the request to the header of the response.
    pub response: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
    /// From the header of the response to the end of the body.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(15),
            idle: Duration::from_secs(15),
            total: Duration::from_mins(1),
        }
    }
}

/// Where a server listens, and how to speak to it.
#[derive(Clone)]
pub(crate) struct Server {
    /// Address or name.
    pub(crate) host: String,
    /// Port, host byte order.
    pub(crate) port: u16,
    /// TLS settings, or none for plain HTTP.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Name to expect in the certificate and to send in SNI, instead of `host`.
    pub(crate) tls_name: Option<String>,
}

impl Server {
    /// `address:port`, as in a URL.
    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// `address:port` as in a URL: IPv6 addresses in brackets.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Why there is no answer, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("connect: {0}")]
    Connect(String),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(TlsTrouble),
    /// The step took too long.
    #[error("no answer: {step} took longer than {} ms", limit.as_millis())]
    Slow {
        /// Which step.
        step: &'static str,
        /// What it was given.
        limit: Duration,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("{step}: {reason}")]
    Broken {
        /// When.
        step: &'static str,
        /// hyper's reason.
        reason: String,
    },
    /// The body is larger than it may be.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

/// A response whose body is still to come.
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: StatusCode,
    /// After how long to ask again, where the server says that in seconds.
    pub(crate) retry_after: Option<Duration>,
    /// The body.
    pub(crate) body: Body,
}

/// What is asked for.
pub(crate) struct Call<'a> {
    /// `GET`, `POST`, …
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: &'a str,
    /// What is sent along, with its content type.
    pub(crate) body: Option<(&'static str, Bytes)>,
}

impl<'a> Call<'a> {
    /// `GET path`
    pub(crate) const fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None }
    }
}

/// Where a URL points to: whether over TLS, host, port, path and query.
pub(crate) fn parse_url(url: &str) -> Option<(bool, String, u16, String)> {
    let uri: http::Uri = url.parse().ok()?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return None,
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = match authority.as_str().strip_prefix(authority.host())? {
        "" | ":" => Some(if tls { 443 } else { 80 }),
        port => port.strip_prefix(':')?.parse().ok().filter(|port| *port > 0),
    }?;
    let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    Some((tls, host, port, path.to_owned()))
}

/// A body in pieces.
pub(crate) struct Body {
    incoming: Incoming,
    idle: Duration,
    total: Duration,
    end: Instant,
    limit: u64,
    left: u64,
    /// Ends the connection with the body.
    _connection: Task,
}

impl Body {
    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        const STEP: &str = "reading the answer";
        loop {
            let idle_end = Instant::now() + self.idle;
            let (end, limit) =
                if idle_end < self.end { (idle_end, self.idle) } else { (self.end, self.total) };
            let frame = timeout_at(end, self.incoming.frame()).await;
            let Some(frame) = frame.map_err(|_| HttpError::Slow { step: STEP, limit })? else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| HttpError::Broken { step: STEP, reason: reason(&error) })?;
            let Ok(data) = frame.into_data() else { continue };
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            self.left = self.left.checked_sub(length).ok_or(HttpError::TooLarge { limit: self.limit })?;
            return Ok(Some(data));
        }
    }

    /// For a response that lasts: how long silence may last, and no limit for the whole.
    #[cfg(feature = "kube")]
    pub(super) fn endless(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self.total = Duration::from_hours(24);
        self.end = Instant::now() + self.total;
        self.left = u64::MAX;
        self
    }
}

/// Sends `GET path` and waits for the header of the response. The body may have `limit` bytes.
pub(super) async fn get(
    server: &Server,
    path: &str,
    token: Option<&Secret>,
    timeouts: &Timeouts,
    limit: u64,
) -> Result<Response, HttpError> {
    call(server, Call::get(path), token, timeouts, limit).await
}

/// Sends a request and waits for the header of the response. The body of that may have `limit` bytes.
pub(crate) async fn call(
    server: &Server,
    what: Call<'_>,
    token: Option<&Secret>,
    timeouts: &Timeouts,
    limit: u64,
) -> Result<Response, HttpError> {
    let tcp = within("connecting", timeouts.connect, connect(server)).await?;
    let Some(tls) = &server.tls else { return send(tcp, server, what, token, timeouts, limit).await };
    let name = server.tls_name.as_ref().unwrap_or(&server.host).clone();
    let name = ServerName::try_from(name.clone())
        .map_err(|_| HttpError::Tls(TlsTrouble::Other(format!("\"{name}\" is no address and no name"))))?;
    let handshake = async {
        let connected = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
        connected.map_err(|error| tls_error("TLS handshake", &error))
    };
    let stream = within("the TLS handshake", timeouts.connect, handshake).await?;
    send(stream, server, what, token, timeouts, limit).await
}

async fn within<T>(
    step: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    timeout(limit, work).await.map_err(|_| HttpError::Slow { step, limit })?
}

async fn connect(server: &Server) -> Result<TcpStream, HttpError> {
    let stream = TcpStream::connect((server.host.as_str(), server.port)).await;
    let stream = stream.map_err(|error| HttpError::Connect(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| HttpError::Connect(error.to_string()))?;
    notice_dead_peers(&stream).map_err(|error| HttpError::Connect(error.to_string()))?;
    Ok(stream)
}

/// A watch may be silent for minutes: after 30 s of silence the kernel asks, and gives up 40 s later.
fn notice_dead_peers(stream: &TcpStream) -> nix::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &30)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &4)
}

/// rustls' reason if there is one inside, else the socket's.
fn tls_error(step: &'static str, error: &io::Error) -> HttpError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => HttpError::Tls(TlsTrouble::from(tls)),
        None => HttpError::Broken { step, reason: error.to_string() },
    }
}

async fn send<S>(
    stream: S,
    server: &Server,
    what: Call<'_>,
    token: Option<&Secret>,
    timeouts: &Timeouts,
    limit: u64,
) -> Result<Response, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    const STEP: &str = "sending the request";
    let request = request(server, what, token)?;
    let exchange = async {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| from_hyper(STEP, &error))?;
        let connection = Task::spawn(async move {
            // Its error reaches the request or the body as well.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| from_hyper(STEP, &error))?;
        Ok((response, connection))
    };
    let (response, connection) = within("the request", timeouts.response, exchange).await?;
    let (head, incoming) = response.into_parts();
    let body = Body {
        incoming,
        idle: timeouts.idle,
        total: timeouts.total,
        end: Instant::now() + timeouts.total,
        limit,
        left: limit,
        _connection: connection,
    };
    Ok(Response { status: head.status, retry_after: retry_after(&head.headers), body })
}

/// The header may have a date instead of seconds; that is left to the usual waits.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().map(Duration::from_secs).ok()
}

fn request(
    server: &Server,
    what: Call<'_>,
    token: Option<&Secret>,
) -> Result<Request<Full<Bytes>>, HttpError> {
    let mut builder = Request::builder()
        .method(what.method)
        .uri(what.path)
        .header(HOST, server.authority())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("portclash/", env!("CARGO_PKG_VERSION")));
    let body = match what.body {
        Some((kind, body)) => {
            builder = builder.header(CONTENT_TYPE, kind);
            body
        }
        None => Bytes::new(),
    };
    if let Some(token) = token {
        let value = [b"Bearer ", token.expose()].concat();
        // The error would not contain the value, but is not needed either.
        let value = HeaderValue::from_maybe_shared(Bytes::from(value));
        let mut value = value.map_err(|_| broken("the token does not fit into a header".into()))?;
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    builder.body(Full::new(body)).map_err(|error| broken(error.to_string()))
}

const fn broken(reason: String) -> HttpError {
    HttpError::Broken { step: "making the request", reason }
}

/// A server may refuse a client certificate only after the handshake (TLS 1.3), so that it shows here.
fn from_hyper(step: &'static str, error: &hyper::Error) -> HttpError {
    let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = inner {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && let error @ HttpError::Tls(_) = tls_error(step, io)
        {
            return error;
        }
        inner = cause.source();
    }
    HttpError::Broken { step, reason: reason(error) }
}

/// An error with its causes. hyper's name kinds of trouble and never contain what was sent or received.
fn reason(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
