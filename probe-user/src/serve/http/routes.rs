//! What is answered where.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Body;
use percent_encoding::percent_decode_str;

use super::access::Access;
use super::asking::{Asking, Silent};
use super::body::Listing;
use super::capture;
use super::reply::{JSON, Reply, listing, no_token, of_kind, page, read_only, text, too_many};
use crate::analysis::model::{Analysed, Analysis};
use crate::diagnosis::incident::{Incident, Summary};
use crate::report::metrics::{Flavour, render};
use crate::report::{html, status_page};
use crate::serve::recent::{Kept, MAX_RECENT, Recent};
use crate::serve::snapshot::Snapshot;

const NOT_FOUND: &str = "nothing is here; there are /, /metrics, /incidents, /incidents/ID, /incidents/ID/report, \
                         /incidents/ID/capture, /livez and /readyz";

/// Everything that answers are made of.
pub(super) struct Routes {
    pub(super) access: Option<Access>,
    pub(super) asking: Asking,
    pub(super) recent: Recent,
}

/// The parts of a path, decoded one by one, so that an id may hold anything.
fn segments(path: &str) -> Option<Vec<Cow<'_, str>>> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/').map(|segment| percent_decode_str(segment).decode_utf8().ok()).collect()
}

impl Routes {
    /// Answers one request. `spare`: there are too many connections; only what kubelet asks is answered.
    pub(super) async fn answer<B: Body>(&self, request: &Request<B>, spare: bool) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return read_only();
        }
        if !request.body().is_end_stream() {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "a request with a body is not read");
        }
        let segments = segments(request.uri().path()).unwrap_or_else(|| vec![Cow::Borrowed("?")]);
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        match segments.as_slice() {
            ["livez"] => return self.livez().await,
            ["readyz"] => return self.readyz().await,
            _ if spare => return too_many(),
            _ => {}
        }
        if self.access.as_ref().is_some_and(|access| !access.allows(request.headers())) {
            return no_token();
        }
        match segments.as_slice() {
            [] => self.status().await,
            ["metrics"] => self.metrics(request.headers()).await,
            ["incidents"] => self.incidents(request.uri().query().unwrap_or_default()),
            ["incidents", id, rest @ ..] => match (self.recent.get(id), rest) {
                (Some(kept), []) => incident(&kept.incident),
                (Some(kept), ["report"]) => self.report(&kept.incident).await,
                (Some(kept), ["capture"]) => self.capture(&kept).await,
                (None, [] | ["report" | "capture"]) => text(StatusCode::NOT_FOUND, &unknown()),
                _ => text(StatusCode::NOT_FOUND, NOT_FOUND),
            },
            _ => text(StatusCode::NOT_FOUND, NOT_FOUND),
        }
    }

    async fn ask(&self) -> Result<Arc<Snapshot>, Reply> {
        let silent = |silent: Silent| text(StatusCode::SERVICE_UNAVAILABLE, &silent.to_string());
        self.asking.snapshot().await.map_err(silent)
    }

    async fn livez(&self) -> Reply {
        self.ask().await.map_or_else(|silent| silent, |_| text(StatusCode::OK, "alive"))
    }

    async fn readyz(&self) -> Reply {
        match self.ask().await {
            Ok(snapshot) if snapshot.not_ready.is_empty() => text(StatusCode::OK, "ready"),
            Ok(snapshot) => text(StatusCode::SERVICE_UNAVAILABLE, &snapshot.not_ready.join("\n")),
            Err(silent) => silent,
        }
    }

    async fn metrics(&self, headers: &HeaderMap) -> Reply {
        let flavour = flavour(headers);
        let render = |snapshot: Arc<Snapshot>| of_kind(flavour.content_type(), render(&snapshot, flavour));
        self.ask().await.map_or_else(|silent| silent, render)
    }

    async fn status(&self) -> Reply {
        let shown = |snapshot: Arc<Snapshot>| page(status_page::page(&snapshot, &self.recent.newest_first()));
        self.ask().await.map_or_else(|silent| silent, shown)
    }

    fn incidents(&self, query: &str) -> Reply {
        let limit = query.split('&').find_map(|part| part.strip_prefix("limit="));
        let limit = match limit.map(str::parse::<usize>) {
            None => MAX_RECENT,
            Some(Ok(limit)) => limit,
            Some(Err(_)) => {
                return text(
                    StatusCode::BAD_REQUEST,
                    "limit is a number of incidents, as in /incidents?limit=10",
                );
            }
        };
        listing(Listing::new(self.recent.clone(), limit))
    }

    /// The incident as a page. What the evidence lacks now may have been lacking then.
    async fn report(&self, incident: &Incident) -> Reply {
        let summary = match self.asking.snapshot().await {
            Ok(now) => {
                Summary { incomplete: now.incomplete.clone(), lost: now.lost.clone(), ..Summary::default() }
            }
            Err(silent) => Summary { incomplete: vec![format!("{silent}.")], ..Summary::default() },
        };
        let incidents = vec![Analysed::of_incident(incident.clone())];
        page(html::page(&Analysis { incidents, summary, ..Analysis::default() }, None))
    }

    async fn capture(&self, kept: &Kept) -> Reply {
        match &kept.capture {
            Some(path) => capture::send(path, &kept.incident.id),
            None => match self.ask().await {
                Ok(snapshot) => text(StatusCode::NOT_FOUND, &capture::why_not(snapshot.recorder.as_ref())),
                Err(silent) => silent,
            },
        }
    }
}

fn unknown() -> String {
    format!(
        "no such incident: the latest since the start are kept, at most {MAX_RECENT}; /incidents lists them"
    )
}

fn incident(incident: &Incident) -> Reply {
    match serde_json::to_vec(incident) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            of_kind(JSON, bytes)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot be written as JSON: {error}")),
    }
}

/// OpenMetrics for whoever accepts it, as Prometheus does from 2.5 on.
fn flavour(headers: &HeaderMap) -> Flavour {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(','));
    let open = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
            && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    };
    if ranges.any(open) { Flavour::OpenMetrics } else { Flavour::Prometheus }
}
