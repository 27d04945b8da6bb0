//! The ways that incidents take out of here, and metrics. Each has a task of its own and those of incidents a bounded queue,
//! so that none waits for another, and tracing waits for none. What does not arrive is counted.

mod account;
#[cfg(feature = "kube")]
mod event;
#[cfg(feature = "otlp")]
mod exports;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "otlp")]
mod otlp_metrics;
mod target;
#[cfg(test)]
mod tests;
mod way;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::diagnosis::incident::{Incident, Verdict};
use crate::pods::clients::{Backoff, Timeouts, Trust, parse_url};
use crate::serve::snapshot::{DeliveryView, Requests, Snapshot};
use way::Way;

pub use target::{Target, TargetError};

/// Which ways there are.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name of this node; `None` = not known.
    pub node: Option<String>,
    /// Where to POST incidents.
    pub webhook: Option<TargetOptions>,
    /// The API server that takes Events.
    #[cfg(feature = "kube")]
    pub events: Option<crate::pods::clients::ApiServer>,
    /// An OTLP/HTTP receiver.
    #[cfg(feature = "otlp")]
    pub otlp: Option<TargetOptions>,
    /// How often it gets the metrics; `None` = never.
    #[cfg(feature = "otlp")]
    pub otlp_metrics_every: Option<Duration>,
}

/// A server that takes incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetOptions {
    /// `http://…` or `https://…`
    pub url: String,
    /// File with a bearer token, read again for every request.
    pub token_file: Option<PathBuf>,
    /// File with the authority of its certificate; `None` = the system's authorities.
    pub ca: Option<PathBuf>,
}

impl Options {
    /// Whether [`Deliveries::start`] takes them.
    pub fn check(&self) -> Result<(), TargetError> {
        self.targets()
            .try_for_each(|(option, given)| Target::new(option, given, Timeouts::default()).map(|_| ()))
    }

    /// Files that are read for every incident, or replaced while the sidecar runs. Those of the API server are not
    /// among them.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.targets().flat_map(|(_, given)| given.files()).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    fn targets(&self) -> impl Iterator<Item = (&'static str, &TargetOptions)> {
        let all = [("--webhook", self.webhook.as_ref())].into_iter();
        #[cfg(feature = "otlp")]
        let all = all.chain([("--otlp", self.otlp.as_ref())]);
        all.filter_map(|(option, given)| Some((option, given?)))
    }
}

impl TargetOptions {
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.token_file.iter().chain(&self.ca).cloned().collect();
        let tls = parse_url(&self.url).is_some_and(|(tls, ..)| tls);
        if let Trust::Existing(system) = Trust::system()
            && tls
            && self.ca.is_none()
        {
            files.extend(system);
        }
        files
    }
}

/// How patient the ways are.
#[derive(Clone, Copy, Debug)]
struct Patience {
    timeouts: Timeouts,
    /// Waits between attempts.
    backoff: Backoff,
    /// An incident that is this old is given up.
    give_up: Duration,
    /// Changes of one Event are this far apart.
    #[cfg_attr(not(feature = "kube"), expect(dead_code, reason = "only Events are changed"))]
    event_every: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let timeouts = Timeouts { total: Duration::from_secs(15), ..Timeouts::default() };
        let (give_up, event_every) = (Duration::from_mins(15), Duration::from_mins(1));
        Self { timeouts, backoff: Backoff::default(), give_up, event_every }
    }
}

/// The ways at work. They end when this is dropped.
pub struct Deliveries {
    ways: Vec<Way>,
    #[cfg(feature = "otlp")]
    exports: Option<exports::Exports>,
    /// Where to ask what is exported.
    requests: Requests,
}

impl Deliveries {
    /// Starts them, within a tokio runtime. Nothing is connected to before there is an incident, or `requests` were answered
    /// with what is to be exported.
    pub fn start(options: &Options, requests: Requests) -> Result<Self, TargetError> {
        Self::start_with(options, Patience::default(), requests)
    }

    fn start_with(options: &Options, patience: Patience, requests: Requests) -> Result<Self, TargetError> {
        let mut ways = Vec::new();
        if let Some(webhook) = &options.webhook {
            let target = Target::new("--webhook", webhook, patience.timeouts)?;
            ways.push(Way::start("webhook", webhook::Webhook::new(target), patience));
        }
        #[cfg(feature = "kube")]
        if let Some(server) = &options.events {
            let events = event::Events::new(server.clone(), options.node.clone(), patience);
            ways.push(Way::start("event", events, patience));
        }
        #[cfg(feature = "otlp")]
        if let Some(otlp) = &options.otlp {
            let target = Target::new("--otlp", otlp, patience.timeouts)?;
            ways.push(Way::start("otlp", otlp::Otlp::new(target, options.node.clone()), patience));
        }
        #[cfg(feature = "otlp")]
        let exports = Self::exports(options, patience, &requests)?;
        Ok(Self {
            ways,
            #[cfg(feature = "otlp")]
            exports,
            requests,
        })
    }

    #[cfg(feature = "otlp")]
    fn exports(
        options: &Options,
        patience: Patience,
        requests: &Requests,
    ) -> Result<Option<exports::Exports>, TargetError> {
        let Some((otlp, every)) = options.otlp.as_ref().zip(options.otlp_metrics_every) else {
            return Ok(None);
        };
        let target = Target::new("--otlp", otlp, patience.timeouts)?;
        let metrics = otlp_metrics::OtlpMetrics::new(target, options.node.clone());
        Ok(Some(exports::Exports::start("otlp_metrics", metrics, requests.clone(), every)))
    }

    /// Hands an incident to every way; false alarms (verdict `none`) to none. Never waits.
    pub fn send(&self, incident: &Arc<Incident>) {
        if incident.verdict != Verdict::None {
            self.ways.iter().for_each(|way| way.send(incident));
        }
    }

    /// How each way goes, by its name: `webhook`, `event`, `otlp`, `otlp_metrics`.
    pub fn views(&self) -> BTreeMap<&'static str, DeliveryView> {
        let ways = self.ways.iter().map(|way| (way.name(), way.view()));
        #[cfg(feature = "otlp")]
        let ways = ways.chain(self.exports.iter().map(|exports| (exports.name(), exports.view())));
        ways.collect()
    }

    /// Exports this, where metrics are exported, and nothing after it.
    pub fn export_last(&mut self, snapshot: Box<Snapshot>) {
        #[cfg(feature = "otlp")]
        if let Some(exports) = &mut self.exports {
            return exports.close(snapshot);
        }
        drop(snapshot);
    }

    /// Takes no more incidents; those that wait hurry. For the time before [`Self::drain`].
    pub fn close(&mut self) {
        self.ways.iter_mut().for_each(Way::close);
    }

    /// Waits until everything has arrived, at most for `limit`. What has not by then is given up, and counted in the
    /// result, which is what [`Self::views`] would say.
    pub async fn drain(mut self, limit: Duration) -> BTreeMap<&'static str, DeliveryView> {
        let deadline = Instant::now() + limit;
        self.close();
        for way in &mut self.ways {
            way.finish(deadline).await;
        }
        #[cfg(feature = "otlp")]
        if let Some(exports) = &mut self.exports {
            exports.finish(deadline).await;
        }
        self.views()
    }

    /// Goes on with other ways. The counts of those that stay go on; what the old ones still have is finished in the
    /// background, at most for `limit`. If an option is wrong, nothing changes.
    pub fn replace(&mut self, options: &Options, limit: Duration) -> Result<(), TargetError> {
        let new = Self::start(options, self.requests.clone())?;
        let old = std::mem::replace(self, new);
        #[cfg(feature = "otlp")]
        if let (Some(heir), Some(exports)) = (&self.exports, &old.exports) {
            heir.inherit(exports);
        }
        for mut way in old.ways {
            if let Some(heir) = self.ways.iter_mut().find(|heir| heir.name() == way.name()) {
                heir.inherit(&way);
            }
            way.close();
            tokio::spawn(async move { way.finish(Instant::now() + limit).await });
        }
        Ok(())
    }
}
