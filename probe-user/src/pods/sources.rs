//! How each source is doing: how old its last word is, what troubles it, what it could not read.

use std::collections::BTreeMap;

use super::update::PodSourceKind;
use crate::ipvs::table::Unreadable;
use crate::observation::Nanos;

/// Entries that could not be read and are kept for the output; all are counted.
const MAX_UNREADABLE: usize = 20;
/// A source in trouble whose last word is older than this is not trusted to be right any more, nanoseconds.
pub const STALE_NS: Nanos = 60_000_000_000;

/// One source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// When it last said anything about pods.
    pub last_word: Option<Nanos>,
    /// What keeps it from saying more.
    pub trouble: Option<String>,
    /// How often it has had trouble.
    pub troubles: u64,
    /// Why it counts as not there at all. Nothing to complain about: nobody asked for it.
    pub absent: Option<String>,
    /// Entries of its last list that could not be read, the first 20.
    pub unreadable: Vec<Unreadable>,
    /// How many there were.
    pub unreadable_count: usize,
    /// When it last said anything about Services.
    pub last_services: Option<Nanos>,
    /// How many Services of its last list could not be read.
    pub unreadable_services: usize,
}

impl SourceState {
    /// What is missing of what it could say, one sentence each.
    pub fn complaints(&self) -> Vec<String> {
        let unreadable = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what} of its list could not be read")),
            count => Some(format!("{count} {what}s of its list could not be read")),
        };
        let pods = unreadable(self.unreadable_count, "pod");
        let services = unreadable(self.unreadable_services, "Service");
        self.trouble.iter().cloned().chain(pods).chain(services).collect()
    }

    /// Whether what it said may have changed unnoticed before `at`.
    pub fn is_stale(&self, at: Nanos) -> bool {
        self.last_word.is_none_or(|last| self.trouble.is_some() && at > last.saturating_add(STALE_NS))
    }
}

/// All sources that ever said something.
#[derive(Debug, Default)]
pub struct Sources {
    states: BTreeMap<PodSourceKind, SourceState>,
}

impl Sources {
    /// A message about pods came. Returns when the one before it came.
    pub fn heard(&mut self, source: PodSourceKind, now: Nanos) -> Option<Nanos> {
        self.states.entry(source).or_default().last_word.replace(now)
    }

    /// A whole list came: no trouble any more, and what could not be read is that of this list.
    pub fn listed(&mut self, source: PodSourceKind, mut unreadable: Vec<Unreadable>) {
        let state = self.states.entry(source).or_default();
        (state.trouble, state.absent) = (None, None);
        state.unreadable_count = unreadable.len();
        unreadable.truncate(MAX_UNREADABLE);
        state.unreadable = unreadable;
    }

    /// A message about Services came; `unreadable`: it was a whole list, with so many entries that could not be read.
    pub fn heard_services(&mut self, source: PodSourceKind, now: Nanos, unreadable: Option<usize>) {
        let state = self.states.entry(source).or_default();
        state.last_services = Some(now);
        if let Some(unreadable) = unreadable {
            (state.trouble, state.absent) = (None, None);
            state.unreadable_services = unreadable;
        }
    }

    /// The source has trouble.
    pub fn troubled(&mut self, source: PodSourceKind, reason: String) {
        let state = self.states.entry(source).or_default();
        state.troubles += 1;
        (state.trouble, state.absent) = (Some(reason), None);
    }

    /// There is no sign of the source.
    pub fn absent(&mut self, source: PodSourceKind, reason: String) {
        let state = self.states.entry(source).or_default();
        (state.trouble, state.absent) = (None, Some(reason));
    }

    /// One source.
    pub fn get(&self, source: PodSourceKind) -> Option<&SourceState> {
        self.states.get(&source)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (PodSourceKind, &SourceState)> {
        self.states.iter().map(|(source, state)| (*source, state))
    }

    /// Whether any source has named its pods.
    pub fn any_answered(&self) -> bool {
        self.states.values().any(|state| state.last_word.is_some())
    }
}
