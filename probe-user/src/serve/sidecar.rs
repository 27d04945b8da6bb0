//! The sidecar's state, and what it does with each thing that happens.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::counts::Counts;
use super::deliver::{self, Deliveries};
use super::exposure::{ExposureWatch, Look};
use super::gather;
use super::lines::Lines;
use super::output::Output;
use super::privileges::{Confined, PrivilegesError};
use super::recent::Recent;
use super::recorder::Recorder;
use super::run::Settings;
use super::snapshot::{DeliveryView, Request, Snapshot};
use crate::diagnosis::Update;
use crate::diagnosis::incident::Incident;
use crate::kernel::loader::LoadError;
use crate::memory;
use crate::node::kernel_info::KernelInfo;
use crate::observation::Nanos;
use crate::report::json;
use crate::trace::Trace;

/// Those who want to know.
pub(super) struct Tellers {
    pub(super) recorder: Option<Recorder>,
    pub(super) deliveries: Deliveries,
    pub(super) output: Output,
    pub(super) recent: Recent,
    pub(super) say: fn(&str),
}

/// The state.
pub(super) struct Sidecar {
    pub(super) trace: Trace,
    tellers: Tellers,
    settings: Settings,
    confined: Option<Confined>,
    counts: Counts,
    lines: Lines,
    exposure: ExposureWatch,
    /// Why the last check failed, to say it once.
    check_trouble: Option<String>,
    started_at: Nanos,
    kernel: Option<String>,
}

impl Sidecar {
    pub(super) fn new(
        trace: Trace,
        tellers: Tellers,
        settings: Settings,
        confined: Option<Confined>,
    ) -> Self {
        Self {
            started_at: trace.now(),
            trace,
            tellers,
            lines: Lines::new(settings.repeat_every),
            settings,
            confined,
            counts: Counts::default(),
            exposure: ExposureWatch::default(),
            check_trouble: None,
            kernel: KernelInfo::read(std::path::Path::new("/")).release,
        }
    }

    pub(super) const fn exposure(&self) -> &ExposureWatch {
        &self.exposure
    }

    /// Longest time that an end in order may take.
    pub(super) const fn drain_time(&self) -> Duration {
        self.settings.drain
    }

    pub(super) fn set_settings(&mut self, settings: Settings) {
        self.lines.set_repeat_every(settings.repeat_every);
        let (bytes, files) = settings.record_limits;
        if let Some(recorder) = &self.tellers.recorder {
            recorder.set_limits(bytes, files);
        }
        self.settings = settings;
    }

    /// Goes on with other ways out.
    pub(super) fn replace_deliveries(&mut self, options: &deliver::Options) {
        if let Err(error) = self.tellers.deliveries.replace(options, self.settings.drain) {
            (self.tellers.say)(&format!("{error}; incidents go where they went before"));
        }
    }

    /// Takes what the trace says. Only concluded incidents are told: what is still open may turn out otherwise.
    pub(super) fn take(&mut self, updates: Vec<Update>) {
        if let Some(recorder) = &mut self.tellers.recorder {
            recorder.take(self.trace.live_mut().packets());
        }
        for update in updates {
            if let Update::Concluded(incident) = update {
                self.conclude(&Arc::new(*incident));
            }
        }
        self.say_news();
        self.tell_repeats(false);
    }

    fn conclude(&mut self, incident: &Arc<Incident>) {
        use crate::diagnosis::incident::Verdict;
        if incident.verdict == Verdict::None {
            if let Some(recorder) = &mut self.tellers.recorder {
                recorder.unwanted(incident.connection.isn);
            }
            return;
        }
        self.counts.take(incident, self.settings.label_pods);
        self.tellers.recent.push(Arc::clone(incident));
        self.tellers.deliveries.send(incident);
        if let Some(recorder) = &mut self.tellers.recorder {
            recorder.concluded(incident);
        }
        let now = self.trace.now();
        self.tell_repeats(false);
        if self.lines.take(incident, now) {
            self.tellers.output.write(|out| json::write_incident(out, incident).map(drop));
        }
    }

    fn tell_repeats(&mut self, all: bool) {
        let now = self.trace.now();
        let repeats = if all { self.lines.finish() } else { self.lines.due(now) };
        for line in &repeats {
            self.tellers.output.write(|out| json::write_repeats(out, line));
        }
    }

    fn say_news(&mut self) {
        let recorder = self.tellers.recorder.as_mut();
        let news = recorder.map(Recorder::take_news).unwrap_or_default();
        for text in news.iter().chain(&self.trace.take_trouble()) {
            (self.tellers.say)(text);
        }
    }

    /// Takes a look at the exposure.
    pub(super) fn take_look(&mut self, look: Result<Look, String>) {
        let mut look = match look {
            Ok(look) => look,
            Err(trouble) => {
                if self.check_trouble.as_ref() != Some(&trouble) {
                    (self.tellers.say)(&trouble);
                }
                self.check_trouble = Some(trouble);
                return;
            }
        };
        self.check_trouble = None;
        self.name_services(&mut look);
        for change in self.exposure.take(&look) {
            (self.tellers.say)(&format!("exposure: {}", change.text));
            self.tellers.output.write(|out| json::write_exposure(out, &change));
        }
    }

    fn name_services(&self, look: &mut Look) {
        let names = self.trace.names().names();
        for port in look.check.exposed_ports.iter_mut().flatten() {
            let addresses = port.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
            let addresses = addresses.map(|ip| SocketAddr::new(ip, port.port));
            let mut services: Vec<String> =
                addresses.flat_map(|address| names.services_at(address)).collect();
            services.sort_unstable();
            services.dedup();
            if !services.is_empty() {
                port.services = services;
            }
        }
    }

    /// Now and then.
    pub(super) fn look_after(&mut self) {
        if let Some(step) = self.trace.follow_clock() {
            let (direction, seconds) =
                (if step < 0 { "back" } else { "forward" }, step.unsigned_abs() / 1_000_000_000);
            let millis = step.unsigned_abs() / 1_000_000 % 1000;
            (self.tellers.say)(&format!(
                "the clock was set {direction} by {seconds}.{millis:03} s; times from now on follow it"
            ));
        }
        // Tables of many services come and go, several versions of them at once for a moment.
        memory::give_back();
        self.say_news();
        self.tell_repeats(false);
    }

    /// Gives up what was kept for hooks as soon as they are attached.
    pub(super) fn release_hooks(&mut self) -> Result<(), PrivilegesError> {
        let Some(confined) = &mut self.confined else { return Ok(()) };
        if confined.keeps_for_hooks() && self.trace.live().tracer().has_tried_ipvs() {
            confined.release_hooks()?;
            self.trace.live_mut().privileges_dropped();
            let refused = self.trace.live().tracer().ipvs_hooks_refused();
            (self.tellers.say)(&if refused.is_empty() {
                "ip_vs is hooked: the last privileges are dropped".to_owned()
            } else {
                format!(
                    "ip_vs is loaded, the last privileges are dropped; not hooked: {}",
                    refused.join("; ")
                )
            });
        }
        Ok(())
    }

    /// Whether hooks are missing that could be attached with the privileges of a new start.
    pub(super) fn needs_restart(&self) -> bool {
        self.confined.as_ref().is_some_and(|confined| !confined.keeps_for_hooks())
            && self.trace.live().tracer().lacks_privileges()
    }

    /// One line for the service manager.
    pub(super) fn status(&self) -> String {
        let incidents: u64 = self.counts.incidents.values().sum();
        let services = self.trace.live().table().current().services.len();
        format!("{incidents} incidents, {services} services watched")
    }

    pub(super) fn answer(&self, request: Request) {
        match self.snapshot() {
            // An error means that nobody waits any more.
            Ok(snapshot) => drop(request.send(Box::new(snapshot))),
            Err(error) => tracing::warn!("no snapshot: {error}"),
        }
    }

    fn snapshot(&self) -> Result<Snapshot, LoadError> {
        Ok(Snapshot {
            started_at: self.started_at,
            kernel: self.kernel.clone(),
            label_pods: self.settings.label_pods.is_some(),
            exposure: self.exposure.view().cloned(),
            recorder: self.tellers.recorder.as_ref().map(Recorder::view),
            deliveries: self.views(),
            repeats: self.lines.repeats(),
            ..gather::snapshot(&self.trace, &self.counts)?
        })
    }

    /// The end: what is open is concluded, what was counted is told, and the summary is the last line. Waits for proof at
    /// most until half of the time has passed: the rest is for what is then to be delivered.
    pub(super) async fn finish(&mut self) {
        let mut updates = self.trace.remaining(self.settings.drain / 2).await;
        updates.extend(self.trace.finish());
        self.take(updates);
        self.tell_repeats(true);
        match self.trace.summary() {
            Ok(summary) => self.tellers.output.write(|out| json::write_summary(out, &summary)),
            Err(error) => (self.tellers.say)(&format!("no summary: {error}")),
        }
    }

    /// How each way out goes.
    fn views(&self) -> BTreeMap<&'static str, DeliveryView> {
        let mut views = self.tellers.deliveries.views();
        views.insert("stdout", self.tellers.output.view());
        views
    }

    /// Nothing follows: those who are told hurry. Returns how much was given up before, for [`Self::drain`].
    pub(super) fn close(&mut self) -> u64 {
        match self.snapshot() {
            Ok(last) => self.tellers.deliveries.export_last(Box::new(last)),
            Err(error) => tracing::warn!("no snapshot: {error}"),
        }
        let before = dropped(&self.views());
        self.tellers.deliveries.close();
        self.tellers.output.close();
        before
    }

    /// Gives them time until the deadline.
    pub(super) async fn drain(self, deadline: Instant, given_up_before: u64) {
        let Tellers { deliveries, mut output, mut recorder, say, .. } = self.tellers;
        let captures = async {
            if let Some(recorder) = &mut recorder {
                recorder.drain(until(deadline)).await;
            }
        };
        let (mut views, (), ()) =
            tokio::join!(deliveries.drain(until(deadline)), output.finish(deadline), captures);
        recorder.iter_mut().flat_map(Recorder::take_news).for_each(|text| say(&text));
        views.insert("stdout", output.view());
        let given_up = dropped(&views).saturating_sub(given_up_before);
        if given_up > 0 {
            say(&format!("{given_up} deliveries were given up at the end"));
        }
    }
}

fn dropped(views: &BTreeMap<&'static str, DeliveryView>) -> u64 {
    views.values().map(|view| view.dropped).sum()
}

/// Time that is left.
pub(super) fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
