//! The socket, the thread, and their end.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::access::{Access, Certificate, certificate};
use super::asking::Asking;
use super::connection::{Shared, serve};
use super::listen::listen;
use super::routes::Routes;
use super::{Context, HttpError, Limits, Options};

/// An open socket with everything read that serving needs: from here on no privileges are needed.
pub struct Bound {
    listener: std::net::TcpListener,
    address: SocketAddr,
    access: Option<Access>,
    certificate: Option<Certificate>,
    limits: Limits,
}

/// Opens the socket, reads token and certificate. To be called before privileges are dropped. Files that are to be read
/// again when they change must stay readable.
pub fn bind(options: &Options) -> Result<Bound, HttpError> {
    let access = options.token_file.as_deref().map(Access::read).transpose()?;
    let certificate = options.tls.as_ref().map(|(chain, key)| certificate(chain, key)).transpose()?;
    let failed = |source| HttpError::Bind { address: options.listen, source };
    let listener = listen(options.listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address, access, certificate, limits: options.limits.clone() })
}

impl Bound {
    /// The address that is listened on, with the port that the kernel chose.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the thread that answers.
    pub fn start(self, context: Context) -> Result<Server, HttpError> {
        let Self { listener, address, access, certificate, limits } = self;
        let asking = Asking::new(context.requests, limits.answer_timeout, limits.reuse);
        let routes = Routes { access, asking, recent: context.recent };
        let shared = Arc::new(Shared { routes, certificate, limits });
        let (stop, stopped) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let (started, starting) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("portclash-http".to_owned()).spawn(move || {
            // Made here, because a runtime must not be dropped where another one runs.
            let made = runtime().and_then(|runtime| {
                let _inside = runtime.enter();
                TcpListener::from_std(listener).map(|listener| (listener, runtime))
            });
            match made {
                Ok((listener, runtime)) => {
                    let _ = started.send(Ok(()));
                    let _ = done.send(runtime.block_on(answer_all(listener, shared, stopped)));
                }
                Err(error) => drop(started.send(Err(error))),
            }
        });
        let thread = thread.map_err(|source| HttpError::Start { what: "thread", source })?;
        let started = starting.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        started.map_err(|source| HttpError::Start { what: "runtime", source })?;
        Ok(Server { address, stop: Some(stop), ended, thread: Some(thread) })
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()
}

/// The thread that answers. Dropping this ends it without waiting for answers under way.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<Duration>>,
    ended: oneshot::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The address that is listened on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets answers under way end within `deadline`, and ends the thread. Whether all of
    /// them ended. The caller's runtime goes on answering snapshot requests in the meantime.
    pub async fn stop(mut self, deadline: Duration) -> bool {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(deadline);
        }
        let complete = (&mut self.ended).await.unwrap_or(false);
        if let Some(thread) = self.thread.take() {
            // It has said its last word: this does not wait.
            let _ = thread.join();
        }
        complete
    }
}

/// Accepts until told to stop, then waits as long as it is told. Whether every connection came to its end.
async fn answer_all(listener: TcpListener, shared: Arc<Shared>, stop: oneshot::Receiver<Duration>) -> bool {
    let mut connections = JoinSet::new();
    let draining = watch::Sender::new(false);
    let deadline = tokio::select! {
        deadline = stop => deadline,
        () = accept(listener, shared, &mut connections, &draining) => return false,
    };
    let Ok(deadline) = deadline else { return false };
    draining.send_replace(true);
    timeout(deadline, async { while connections.join_next().await.is_some() {} }).await.is_ok()
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: &mut JoinSet<()>,
    draining: &watch::Sender<bool>,
) {
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    let mut spare = Spare::default();
    loop {
        let stream = next(&listener).await;
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let place = Arc::clone(&places).try_acquire_owned().ok();
        let is_spare = place.is_none();
        let work = serve(stream, Arc::clone(&shared), is_spare, draining.subscribe());
        let handle = connections.spawn(async move {
            work.await;
            drop(place);
        });
        if is_spare {
            spare.push(handle, shared.limits.connections);
        }
    }
}

/// Connections beyond the limit, the oldest first. What kubelet asks is answered at once; whoever has been here for long
/// holds up others.
#[derive(Default)]
struct Spare(VecDeque<AbortHandle>);

impl Spare {
    fn push(&mut self, connection: AbortHandle, most: usize) {
        self.0.retain(|other| !other.is_finished());
        while self.0.len() >= most.max(1) {
            self.0.pop_front().iter().for_each(AbortHandle::abort);
        }
        self.0.push_back(connection);
    }
}

async fn next(listener: &TcpListener) -> TcpStream {
    /// Out of file descriptors or memory: trying at once would only burn time.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_the_client(&error) => debug!("accept: {error}"),
            Err(error) => {
                warn!("accept: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
