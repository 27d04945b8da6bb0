//! How incidents are carried on one way, and what becomes of them.

use std::time::Duration;

use tokio::time::Instant;

#[cfg(feature = "kube")]
use super::event::Events;
#[cfg(feature = "otlp")]
use super::otlp::Otlp;
use super::target::{Target, TargetError};
use super::webhook::Webhook;
use super::{Options, Patience, TargetOptions};
use crate::diagnosis::incident::Incident;

/// What became of an incident.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "kube"),
    expect(dead_code, reason = "only Events are held, and not for every incident")
)]
pub(super) enum Carried {
    /// It arrived.
    Arrived,
    /// It is not for this way.
    NotMeant,
    /// [`Carrier::settle`] will send it, with others.
    Held,
}

/// Why it did not arrive. Never contains a token or what a server sent.
#[derive(Debug)]
pub(super) enum Failure {
    /// Try again, not before that time.
    Later { reason: String, after: Option<Duration> },
    /// It will not get better.
    Never(String),
}

impl Failure {
    /// Try again.
    pub(super) const fn later(reason: String) -> Self {
        Self::Later { reason, after: None }
    }

    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Later { reason, .. } | Self::Never(reason) => reason,
        }
    }
}

/// What became of incidents that were held.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Their lane.
    pub(super) lane: String,
    /// Incidents that arrived.
    pub(super) arrived: u64,
    /// Incidents that were given up.
    pub(super) lost: u64,
    /// Why something did not arrive.
    pub(super) failure: Option<Failure>,
}

/// One way as the options ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Webhook(TargetOptions),
    #[cfg(feature = "kube")]
    Event {
        server: crate::pods::clients::ApiServer,
        node: Option<String>,
    },
    #[cfg(feature = "otlp")]
    Otlp {
        receiver: TargetOptions,
        node: Option<String>,
    },
}

impl Plan {
    /// All that the options ask for, one of a kind.
    pub(super) fn all(options: &Options) -> Vec<Self> {
        let webhook = options.webhook.clone().map(Self::Webhook);
        #[cfg(feature = "kube")]
        let event = options.events.clone().map(|server| Self::Event { server, node: options.node.clone() });
        #[cfg(not(feature = "kube"))]
        let event = None;
        #[cfg(feature = "otlp")]
        let otlp = options.otlp.clone().map(|receiver| Self::Otlp { receiver, node: options.node.clone() });
        #[cfg(not(feature = "otlp"))]
        let otlp = None;
        [webhook, event, otlp].into_iter().flatten().collect()
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            #[cfg(feature = "kube")]
            Self::Event { .. } => "event",
            #[cfg(feature = "otlp")]
            Self::Otlp { .. } => "otlp",
        }
    }

    /// What carries incidents that way. Fails if an option is wrong.
    pub(super) fn carrier(&self, patience: Patience) -> Result<Carrier, TargetError> {
        Ok(match self {
            Self::Webhook(webhook) => {
                Carrier::Webhook(Webhook::new(Target::new("--webhook", webhook, patience.timeouts)?))
            }
            #[cfg(feature = "kube")]
            Self::Event { server, node } => {
                Carrier::Event(Events::new(server.clone(), node.clone(), patience))
            }
            #[cfg(feature = "otlp")]
            Self::Otlp { receiver, node } => {
                let target = Target::new("--otlp", receiver, patience.timeouts)?;
                Carrier::Otlp(Otlp::new(target, node.clone()))
            }
        })
    }
}

/// Carries incidents on one way.
pub(super) enum Carrier {
    Webhook(Webhook),
    #[cfg(feature = "kube")]
    Event(Events),
    #[cfg(feature = "otlp")]
    Otlp(Otlp),
}

impl Carrier {
    /// Carries one.
    pub(super) async fn carry(&mut self, incident: &Incident) -> Result<Carried, Failure> {
        match self {
            Self::Webhook(webhook) => webhook.carry(incident).await,
            #[cfg(feature = "kube")]
            Self::Event(events) => events.carry(incident).await,
            #[cfg(feature = "otlp")]
            Self::Otlp(otlp) => otlp.carry(incident).await,
        }
    }

    /// The lane of an incident: those of another may arrive although this one does not.
    pub(super) fn lane<'i>(&self, incident: &'i Incident) -> &'i str {
        match self {
            // The API server refuses what it refuses by namespace: one that is being deleted, one with a quota.
            #[cfg(feature = "kube")]
            Self::Event(_) => incident.probe.as_ref().map_or("", |probe| &probe.pod.namespace),
            _ => {
                let _ = incident;
                ""
            }
        }
    }

    /// When [`Self::settle`] has something to do; `None` = nothing is held.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            #[cfg(feature = "kube")]
            Self::Event(events) => events.due(),
            _ => None,
        }
    }

    /// Sends some of what was held and is due, or some of all that is held.
    #[cfg_attr(not(feature = "kube"), expect(clippy::unused_async, reason = "only Events are held"))]
    pub(super) async fn settle(&mut self, all: bool) -> Settled {
        match self {
            #[cfg(feature = "kube")]
            Self::Event(events) => events.settle(all).await,
            _ => {
                let _ = all;
                Settled::default()
            }
        }
    }

    /// Goes on with what another one held, which carried on this way before.
    pub(super) fn take_over(&mut self, other: Self) {
        match (self, other) {
            #[cfg(feature = "kube")]
            (Self::Event(events), Self::Event(other)) => events.take_over(other),
            _ => {}
        }
    }
}
