//! Metrics: [`FAMILIES`] is all of them. What is not known is left out, never 0; what is counted from the start is there
//! from the start, so that the first one is an increase.

pub use super::metrics_families::FAMILIES;
pub use super::metrics_text::Kind;
use super::metrics_text::{Page, Value};
use crate::serve::snapshot::Snapshot;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' older text format, 0.0.4.
    Prometheus,
}

impl Flavour {
    /// What HTTP calls it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Metrics of one name.
pub struct Family {
    /// Name without the suffix of its kind.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    pub(super) samples: fn(&Snapshot, &mut Samples),
}

impl Family {
    /// Name of its samples.
    pub fn sample_name(&self) -> String {
        format!("{}{}", self.name, self.kind.suffix())
    }

    /// The unit, which its name ends with.
    pub(super) fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes", "ratio"].into_iter().find(|unit| self.name.ends_with(unit))
    }
}

/// Samples of one family: the values of its labels in their order, and the value.
#[derive(Default)]
pub(super) struct Samples(Vec<(Vec<String>, Value)>);

impl Samples {
    pub(super) fn add<const N: usize>(&mut self, labels: [&str; N], value: impl Into<Value>) {
        self.0.push((labels.iter().map(|&label| label.to_owned()).collect(), value.into()));
    }

    /// Labels and value of each.
    pub(super) fn of<'a>(
        &'a self,
        family: &'static Family,
    ) -> impl Iterator<Item = (impl Iterator<Item = (&'static str, &'a str)>, Value)> {
        self.0.iter().map(|(labels, value)| {
            (family.labels.iter().copied().zip(labels.iter().map(String::as_str)), *value)
        })
    }

    /// Adds a value that may not be known.
    pub(super) fn known<const N: usize>(&mut self, labels: [&str; N], value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(labels, value);
        }
    }
}

/// The families that have samples now.
pub(super) fn known(snapshot: &Snapshot) -> impl Iterator<Item = (&'static Family, Samples)> {
    let all = FAMILIES.iter().map(|family| {
        let mut samples = Samples::default();
        (family.samples)(snapshot, &mut samples);
        (family, samples)
    });
    all.filter(|(_, samples)| !samples.0.is_empty())
}

/// Writes all metrics.
pub fn render(snapshot: &Snapshot, flavour: Flavour) -> String {
    let mut page = Page::new(flavour);
    for (family, samples) in known(snapshot) {
        page.family(family.name, family.kind, family.unit(), family.help);
        for (labels, value) in samples.of(family) {
            page.sample((family.name, family.kind), labels, value);
        }
    }
    page.finish()
}

#[cfg(test)]
#[path = "metrics_files_tests.rs"]
mod files_tests;
#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
