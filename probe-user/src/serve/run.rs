//! The loop of the sidecar: what the trace says goes to those who want to know, until somebody says stop.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::deliver::{self, Deliveries};
use super::http;
use super::notify::Notifier;
use super::output::Output;
use super::privileges::Confined;
use super::recent::Recent;
use super::recheck::Recheck;
use super::recorder::Recorder;
use super::sidecar::{Sidecar, Tellers, until};
use super::snapshot::Request;
use crate::memory;
use crate::sources::live::LiveError;
use crate::trace::Trace;

/// How often the sidecar looks after itself: the clock, the service manager, what is due to be told.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// What can be changed while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Pods that metrics tell apart; `None` = they do not.
    pub label_pods: Option<usize>,
    /// How often the exposure is checked; `None` = never.
    pub check_every: Option<Duration>,
    /// Repeats of an incident are told this often.
    pub repeat_every: Duration,
    /// Bytes and files that the recorder keeps.
    pub record_limits: (u64, usize),
    /// Longest time that an end in order may take.
    pub drain: Duration,
}

/// What somebody changed while it runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// All settings, changed or not.
    pub settings: Settings,
    /// Other ways out; `None` = those stay.
    pub deliveries: Option<deliver::Options>,
}

/// Everything that runs.
pub struct Parts {
    /// Sources, diagnosis, names.
    pub trace: Trace,
    /// The exposure.
    pub recheck: Recheck,
    /// The flight recorder, if it is asked for.
    pub recorder: Option<Recorder>,
    /// The ways out.
    pub deliveries: Deliveries,
    /// Incidents, shared with the server.
    pub recent: Recent,
    /// The server's questions.
    pub requests: mpsc::Receiver<Request>,
    /// The server, unless none is wanted.
    pub server: Option<http::Server>,
    /// The service manager.
    pub notifier: Notifier,
    /// What is left of the privileges; `None` = all, as asked for.
    pub confined: Option<Confined>,
    /// For people: standard error.
    pub say: fn(&str),
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody said stop.
    Stopped,
    /// A hook is missing that only a new start can attach, because privileges were dropped.
    NeedsRestart,
}

/// Why the sidecar cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The kernel side.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The thread that writes to standard output.
    #[error("start the thread that writes to standard output: {0}")]
    Output(#[source] io::Error),
    /// What was kept cannot be given up.
    #[error(transparent)]
    Privileges(#[from] super::privileges::PrivilegesError),
}

/// Runs until `stop` is done, or it cannot go on. What is open is then concluded, told and delivered, whatever the reason.
/// `reload` ends as often as somebody asks for changes, and yields them if there are any.
pub async fn run(
    parts: Parts,
    settings: Settings,
    stop: impl Future<Output = ()>,
    reload: impl AsyncFnMut() -> Option<Change>,
) -> Result<End, ServeError> {
    let Parts {
        trace,
        mut recheck,
        recorder,
        deliveries,
        recent,
        mut requests,
        server,
        notifier,
        confined,
        say,
    } = parts;
    let output = start_output(say, confined.as_ref())?;
    let tellers = Tellers { recorder, deliveries, output, recent, say };
    let mut sidecar = Sidecar::new(trace, tellers, settings, confined);
    let end = watch(&mut sidecar, &mut recheck, &mut requests, &notifier, stop, reload).await;
    notifier.stopping();
    let deadline = Instant::now() + sidecar.drain_time();
    sidecar.finish().await;
    // A client that dawdles takes no time away from deliveries.
    let given_up = sidecar.close();
    stop_server(server, &sidecar, &mut requests, deadline).await;
    sidecar.drain(deadline, given_up).await;
    end
}

/// The thread that writes to standard output needs no privileges, whatever this one keeps.
fn start_output(say: fn(&str), confined: Option<&Confined>) -> Result<Output, ServeError> {
    let start = || Output::start(io::stdout(), say).map_err(ServeError::Output);
    match confined {
        Some(confined) => confined.sealed(start)?,
        None => start(),
    }
}

/// The loop. An error leaves what is open as it is: the end is in order all the same.
async fn watch(
    sidecar: &mut Sidecar,
    recheck: &mut Recheck,
    requests: &mut mpsc::Receiver<Request>,
    notifier: &Notifier,
    stop: impl Future<Output = ()>,
    mut reload: impl AsyncFnMut() -> Option<Change>,
) -> Result<End, ServeError> {
    sidecar.release_hooks()?;
    let mut tick = tokio::time::interval(
        notifier.watchdog_every().map_or(HOUSEKEEPING, |every| every.min(HOUSEKEEPING)),
    );
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    memory::give_back();
    memory::forget_code();
    notifier.ready();
    tokio::pin!(stop);
    loop {
        let known = sidecar.exposure().settings();
        let table = sidecar.trace.live().table().shared();
        tokio::select! {
            updates = sidecar.trace.next(None) => {
                sidecar.take(updates?);
                sidecar.release_hooks()?;
                if sidecar.needs_restart() {
                    return Ok(End::NeedsRestart);
                }
            }
            Some(request) = requests.recv() => sidecar.answer(request),
            look = recheck.next(known, table) => sidecar.take_look(look),
            _ = tick.tick() => {
                // Where nothing is observed, as with an empty table, nothing else would come to this.
                sidecar.release_hooks()?;
                if sidecar.needs_restart() {
                    return Ok(End::NeedsRestart);
                }
                sidecar.look_after();
                notifier.watchdog();
                notifier.status(&sidecar.status());
            }
            change = reload() => {
                // The manager waits for both words even if nothing changes.
                notifier.reloading();
                if let Some(Change { settings, deliveries }) = change {
                    recheck.set_every(settings.check_every);
                    sidecar.set_settings(settings);
                    if let Some(deliveries) = deliveries {
                        sidecar.replace_deliveries(&deliveries);
                    }
                }
                notifier.ready();
            }
            () = &mut stop => return Ok(End::Stopped),
        }
    }
}

/// Lets answers under way end. What is asked in the last moment is still answered.
async fn stop_server(
    server: Option<http::Server>,
    sidecar: &Sidecar,
    requests: &mut mpsc::Receiver<Request>,
    deadline: Instant,
) {
    let Some(server) = server else { return };
    let stopping = server.stop(until(deadline));
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            _ = &mut stopping => return,
            Some(request) = requests.recv() => sidecar.answer(request),
        }
    }
}
