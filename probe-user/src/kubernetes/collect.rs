//! Takes the objects of a list one by one: keeps those of the wanted kind, counts the others, and shows each that
//! cannot be read.

use std::collections::BTreeMap;

use super::objects::{Head, Object};
use crate::ipvs::rows::RowLog;

/// Most objects that are kept of one input.
pub const MAX_ITEMS: usize = 500_000;
/// Most other kinds that are told apart.
const MAX_OTHER_KINDS: usize = 20;

/// Where an object was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Line number from 1.
    pub(super) line: usize,
    /// Index from 0 in its list, as jq counts; `None` outside of lists.
    pub(super) index: Option<usize>,
}

impl Place {
    fn with_name(self, name: &str) -> String {
        match (self.index, name) {
            (Some(index), "") => format!("items[{index}]"),
            (Some(index), name) => format!("items[{index}] {name}"),
            (None, name) => name.to_owned(),
        }
    }
}

/// No more objects are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What was found so far.
pub(super) struct Collector<T> {
    pub(super) items: Vec<T>,
    pub(super) log: RowLog,
    pub(super) notes: Vec<String>,
    /// Why the rest of the input was not read.
    pub(super) cut_short: Option<String>,
    /// Objects of other kinds.
    pub(super) others: BTreeMap<String, usize>,
    /// Objects of any kind, readable or not.
    pub(super) seen: usize,
    /// Lists, even if empty.
    pub(super) lists: usize,
    /// Where the items of the current list begin in `items`, and how many of them gave no kind.
    list_start: usize,
    without_kind: usize,
    max_items: usize,
}

impl<T> Default for Collector<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            log: RowLog::default(),
            notes: Vec::new(),
            cut_short: None,
            others: BTreeMap::new(),
            seen: 0,
            lists: 0,
            list_start: 0,
            without_kind: 0,
            max_items: MAX_ITEMS,
        }
    }
}

impl<T: Object> Collector<T> {
    #[cfg(test)]
    pub(super) fn with_limit(max_items: usize) -> Self {
        Self { max_items, ..Self::default() }
    }

    /// Takes one object. `list_kind` is the kind of the list's items, if the list has told it; `head` is called
    /// for what is no readable object of the wanted kind.
    pub(super) fn take(
        &mut self,
        place: Place,
        list_kind: Option<&str>,
        raw: Result<T::Raw, String>,
        head: impl FnOnce() -> Head,
    ) -> Result<(), Full> {
        if self.items.len() >= self.max_items {
            self.cut_short = Some(format!("more than {} objects: the rest was not read", self.max_items));
            return Err(Full);
        }
        self.seen += 1;
        let own_kind = raw.as_ref().map(T::kind);
        let wanted = own_kind.is_ok_and(|kind| kind.or(list_kind).is_none_or(|kind| kind == T::KIND));
        if wanted {
            let gives_kind = own_kind.is_ok_and(|kind| kind.is_some());
            match raw.and_then(T::from_raw) {
                Ok(item) => {
                    self.without_kind += usize::from(!gives_kind);
                    self.items.push(item);
                }
                Err(reason) => {
                    let text = place.with_name(&head().name());
                    self.log.push(place.line, text.as_bytes(), reason);
                }
            }
            return Ok(());
        }
        let head = head();
        match (head.kind.as_deref().or(list_kind), raw) {
            (Some(kind), _) if kind != T::KIND => self.count_other(kind, 1),
            // A document of its own that gives no kind is no Kubernetes object.
            (None, _) if place.index.is_none() => self.count_other("kindless", 1),
            (_, raw) => {
                let text = place.with_name(&head.name());
                let reason = raw.err().unwrap_or_else(|| "it is of another kind".to_owned());
                self.log.push(place.line, text.as_bytes(), reason);
            }
        }
        Ok(())
    }

    fn count_other(&mut self, kind: &str, count: usize) {
        let known = self.others.contains_key(kind) || self.others.len() < MAX_OTHER_KINDS;
        let kind = if known && kind.len() <= 100 { kind } else { "other kinds" };
        *self.others.entry(kind.to_owned()).or_default() += count;
    }

    /// A list begins.
    pub(super) fn begin_list(&mut self) {
        self.lists += 1;
        self.list_start = self.items.len();
        self.without_kind = 0;
    }

    /// A list ends that said, maybe after its items, that they are of kind `list_kind`.
    pub(super) fn end_list(&mut self, list_kind: Option<&str>) {
        if let Some(kind) = list_kind.filter(|kind| *kind != T::KIND) {
            let untold = self.items.len().saturating_sub(self.list_start).min(self.without_kind);
            if untold > 0 {
                // Items of one list either all give their kind or none does.
                self.items.truncate(self.list_start);
                self.count_other(kind, untold);
            } else if self.items.len() == self.list_start && self.others.is_empty() {
                self.count_other(kind, 0);
            }
        }
    }

    /// Moves the object that was taken last to the unreadable ones.
    pub(super) fn reject_last(&mut self, place: Place, items_before: usize, reason: &str) {
        if self.items.len() > items_before {
            self.items.truncate(items_before);
            self.log.push(place.line, place.with_name("").as_bytes(), reason);
        }
    }
}

/// The kind of the items of a list of kind `kind`; `None` for `List`, whose items tell themselves.
pub(super) fn items_of(kind: &str) -> Option<&str> {
    kind.strip_suffix("List").filter(|kind| !kind.is_empty())
}
