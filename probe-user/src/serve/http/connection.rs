//! One connection: TLS, requests, and the deadline that ends it.

use std::convert::Infallible;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::Limits;
use super::access::Certificate;
use super::routes::Routes;

/// What hyper holds of one connection, bytes: a request's head, and answers on their way.
const MAX_BUFFER: usize = 64 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;

/// What all connections share.
pub(super) struct Shared {
    pub(super) routes: Routes,
    pub(super) certificate: Option<Certificate>,
    pub(super) limits: Limits,
}

/// Serves a connection until one side ends it, its deadline passes, or `stop` says so and its answer is sent.
/// `spare`: there are too many already.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, spare: bool, stop: watch::Receiver<bool>) {
    let deadline = watch::Sender::new(Instant::now() + shared.limits.head_timeout);
    let expiry = expire(deadline.subscribe());
    let work = async {
        match &shared.certificate {
            None => speak(stream, &shared, spare, deadline, stop).await,
            Some(certificate) => {
                let config = certificate.current();
                match TlsAcceptor::from(config).accept(stream).await {
                    Ok(stream) => speak(stream, &shared, spare, deadline, stop).await,
                    Err(error) => debug!("TLS: {error}"),
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = expiry => {}
    }
}

/// Ends when the deadline passes, wherever it was moved to in the meantime.
async fn expire(mut deadline: watch::Receiver<Instant>) {
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            () = sleep_until(at) => return,
            changed = deadline.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
        }
    }
}

async fn speak<S>(
    stream: S,
    shared: &Arc<Shared>,
    spare: bool,
    deadline: watch::Sender<Instant>,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = &shared.limits;
    let service = service_fn(|request: Request<Incoming>| {
        let deadline = deadline.clone();
        deadline.send_replace(Instant::now() + limits.request_timeout);
        async move {
            let reply = shared.routes.answer(&request, spare).await;
            Ok::<_, Infallible>(reply.map(|body| body.then(deadline, limits.idle_timeout)))
        }
    });
    let connection = http1::Builder::new()
        .keep_alive(!spare)
        .max_buf_size(MAX_BUFFER.max(limits.head_bytes))
        .max_header_size(limits.head_bytes)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = told(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!("HTTP: {error}");
    }
}

/// Waits until it says so, or nobody is left who could.
async fn told(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
