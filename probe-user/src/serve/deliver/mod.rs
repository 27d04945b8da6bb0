//! The ways that incidents take out of here, and metrics. Each has a task of its own and those of incidents a bounded queue,
//! so that none waits for another, and tracing waits for none. What does not arrive is counted.

mod account;
mod carrier;
#[cfg(feature = "kube")]
mod event;
#[cfg(feature = "otlp")]
mod exports;
mod lanes;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "otlp")]
mod otlp_metrics;
#[cfg(test)]
mod reload_tests;
mod target;
#[cfg(test)]
mod tests;
mod way;
mod webhook;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::diagnosis::incident::{Incident, Verdict};
use crate::pods::clients::{Backoff, Timeouts, Trust, parse_url};
use crate::serve::snapshot::{DeliveryView, Requests, Snapshot};
use account::Account;
use carrier::Plan;
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
    /// A trouble is over after so long without a failure, if nothing waits.
    quiet: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let timeouts = Timeouts { total: Duration::from_secs(15), ..Timeouts::default() };
        let (give_up, event_every) = (Duration::from_mins(15), Duration::from_mins(1));
        Self { timeouts, backoff: Backoff::default(), give_up, event_every, quiet: Duration::from_mins(15) }
    }
}

/// The ways at work. They end when this is dropped.
pub struct Deliveries {
    ways: Vec<Way>,
    /// Ways that are no longer asked for, until they have ended; those that lost something stay to say so.
    leaving: Vec<Way>,
    #[cfg(feature = "otlp")]
    exports: Option<exports::Exports>,
    /// Where to ask what is exported.
    #[cfg(feature = "otlp")]
    requests: Requests,
    patience: Patience,
}

impl Deliveries {
    /// Starts them, within a tokio runtime. Nothing is connected to before there is an incident, or `requests` were answered
    /// with what is to be exported.
    pub fn start(options: &Options, requests: Requests) -> Result<Self, TargetError> {
        Self::start_with(options, Patience::default(), requests)
    }

    fn start_with(options: &Options, patience: Patience, requests: Requests) -> Result<Self, TargetError> {
        #[cfg(not(feature = "otlp"))]
        drop(requests);
        let mut none = Self {
            ways: Vec::new(),
            leaving: Vec::new(),
            #[cfg(feature = "otlp")]
            exports: None,
            #[cfg(feature = "otlp")]
            requests,
            patience,
        };
        none.replace(options, Duration::ZERO)?;
        Ok(none)
    }

    /// Hands an incident to every way; false alarms (verdict `none`) to none. Never waits.
    pub fn send(&self, incident: &Arc<Incident>) {
        if incident.verdict != Verdict::None {
            self.ways.iter().for_each(|way| way.send(incident));
        }
    }

    /// How each way goes, by its name: `webhook`, `event`, `otlp`, `otlp_metrics`. One that is no longer asked for is there
    /// until it has ended, and longer if it lost something.
    pub fn views(&self) -> BTreeMap<&'static str, DeliveryView> {
        let leaving = self.leaving.iter().filter_map(|way| {
            let view = way.view();
            if !way.is_finished() {
                return Some((way.name(), view));
            }
            // What it lost remains true; its trouble is nobody's any more.
            (view.dropped > 0).then_some((way.name(), DeliveryView { trouble: None, ..view }))
        });
        // One that came back goes on with the counts, so its view has all.
        let ways = leaving.chain(self.ways.iter().map(|way| (way.name(), way.view())));
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
        self.ways.iter().chain(&self.leaving).for_each(|way| way.end_by(deadline));
        for way in self.ways.iter_mut().chain(&mut self.leaving) {
            way.finish().await;
        }
        #[cfg(feature = "otlp")]
        if let Some(exports) = &mut self.exports {
            exports.finish(deadline).await;
        }
        self.views()
    }

    /// Goes on with these options. Ways that they do not change go on as they are; one that they change keeps its counts, and
    /// what waits goes the new way; what waits for one that is no longer asked for is finished in the background, at most
    /// for `limit`. If an option is wrong, nothing changes.
    pub fn replace(&mut self, options: &Options, limit: Duration) -> Result<(), TargetError> {
        let patience = self.patience;
        let with_carrier = |plan: Plan| plan.carrier(patience).map(|carrier| (plan, carrier));
        let plans = Plan::all(options).into_iter().map(with_carrier).collect::<Result<Vec<_>, _>>()?;
        #[cfg(feature = "otlp")]
        self.replace_exports(options)?;
        let mut old = std::mem::take(&mut self.ways);
        for (plan, carrier) in plans {
            if let Some(index) = old.iter().position(|way| way.name() == plan.name()) {
                let mut way = old.swap_remove(index);
                way.change(plan, carrier);
                self.ways.push(way);
            } else {
                let account = self.account(plan.name());
                self.ways.push(Way::start(plan, carrier, account, patience));
            }
        }
        for way in &mut old {
            way.close();
            way.end_by(Instant::now() + limit);
        }
        self.leaving.extend(old);
        let ways = &self.ways;
        self.leaving.retain(|way| !way.is_finished() || !ways.iter().any(|heir| heir.name() == way.name()));
        Ok(())
    }

    /// The account of a way that is asked for: if it was before, its counts go on.
    fn account(&self, name: &'static str) -> Account {
        let before = self.leaving.iter().find(|way| way.name() == name);
        before.map_or_else(|| Account::new(name, "incidents"), |way| way.account().heir())
    }

    #[cfg(feature = "otlp")]
    fn replace_exports(&mut self, options: &Options) -> Result<(), TargetError> {
        let Some(plan) = exports::ExportPlan::of(options) else {
            self.exports = None;
            return Ok(());
        };
        let metrics = plan.metrics(self.patience)?;
        match &mut self.exports {
            Some(exports) => exports.change(plan, metrics, self.requests.clone()),
            none => *none = Some(exports::Exports::start(plan, metrics, self.requests.clone())),
        }
        Ok(())
    }
}
