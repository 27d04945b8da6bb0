//! `--webhook`: each incident as JSON, one POST each.

use super::carrier::{Carried, Failure};
use super::target::Target;
use crate::diagnosis::incident::Incident;

/// A webhook.
pub(super) struct Webhook {
    target: Target,
}

impl Webhook {
    pub(super) const fn new(target: Target) -> Self {
        Self { target }
    }
}

impl Webhook {
    /// Carries one.
    pub(super) async fn carry(&mut self, incident: &Incident) -> Result<Carried, Failure> {
        let body = serde_json::to_vec(incident).map_err(|error| Failure::Never(error.to_string()))?;
        self.target.deliver(body.into()).await.map(|_| Carried::Arrived)
    }
}
