//! Names and what stands for them: the same name has the same alias in all outputs of a run.

use std::collections::{BTreeMap, HashMap};

use super::text::BETWEEN;

/// What a name is of. The word before the number of its alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Namespace,
    Pod,
    Service,
    Container,
    Port,
    Uid,
    ContainerId,
    Process,
    Cgroup,
    File,
    Unit,
    Interface,
    /// Anything that may be a name.
    Name,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Container => "container",
            Self::Port => "port",
            Self::Uid => "uid",
            Self::ContainerId => "container-id",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::File => "file",
            Self::Unit => "unit",
            Self::Interface => "interface",
            Self::Name => "name",
        }
    }
}

/// Endings of file names that say what kind of file it is, and nothing else.
const ENDINGS: [&str; 17] = [
    "pcap", "pcapng", "cap", "log", "txt", "json", "yaml", "yml", "gz", "zst", "xz", "bz2", "tar", "tgz",
    "conf", "out", "csv",
];

/// All names that were met.
#[derive(Default)]
pub(super) struct Names {
    aliases: HashMap<(Kind, String), String>,
    counts: BTreeMap<Kind, u32>,
    /// For texts, which do not say what a name is of: the first kind it was met as.
    any: HashMap<String, String>,
    /// Those that are not one word of a text, the longest first.
    several: Vec<(String, String)>,
}

impl Names {
    /// The alias of a name.
    pub(super) fn alias(&mut self, kind: Kind, name: &str) -> String {
        if let Some(known) = self.aliases.get(&(kind, name.to_owned())) {
            return known.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let alias = format!("{}-{count}", kind.word());
        self.set(kind, name, alias.clone());
        alias
    }

    /// Another form of a name.
    pub(super) fn also(&mut self, kind: Kind, name: &str, alias: &str) {
        if !self.any.contains_key(name) {
            self.set(kind, name, alias.to_owned());
        }
    }

    /// The alias of a file: its endings stay.
    pub(super) fn file(&mut self, name: &str) -> String {
        if let Some(known) = self.aliases.get(&(Kind::File, name.to_owned())) {
            return known.clone();
        }
        let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let mut endings: Vec<&str> = last
            .split('.')
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .take_while(|part| ENDINGS.contains(part))
            .collect();
        endings.reverse();
        let endings: String = endings.iter().flat_map(|ending| [".", ending]).collect();
        let alias = self.alias(Kind::File, name) + &endings;
        self.set(Kind::File, name, alias.clone());
        // A place in a capture may be told by the last part alone.
        if last != name && !last.is_empty() && !self.any.contains_key(last) {
            self.set(Kind::File, last, alias.clone());
        }
        alias
    }

    /// What stands for a name of whatever kind; `None` if it was never met.
    pub(super) fn known(&self, name: &str) -> Option<&str> {
        self.any.get(name).map(String::as_str)
    }

    /// What stands for a name of this kind, or of any other; else a new alias.
    pub(super) fn known_or_new(&mut self, kind: Kind, name: &str) -> String {
        if self.aliases.contains_key(&(kind, name.to_owned())) {
            return self.alias(kind, name);
        }
        match self.known(name) {
            Some(known) => known.to_owned(),
            None => self.alias(kind, name),
        }
    }

    /// Names that are not one word of a text, the longest first.
    pub(super) fn of_several_words(&self) -> impl Iterator<Item = (&str, &str)> {
        self.several.iter().map(|(name, alias)| (name.as_str(), alias.as_str()))
    }

    fn set(&mut self, kind: Kind, name: &str, alias: String) {
        self.aliases.insert((kind, name.to_owned()), alias.clone());
        if name.contains(BETWEEN) && name.chars().any(char::is_alphanumeric) {
            self.several.retain(|(known, _)| known != name);
            let place = self.several.partition_point(|(known, _)| known.len() > name.len());
            self.several.insert(place, (name.to_owned(), alias.clone()));
        }
        match self.any.get_mut(name) {
            Some(known) if kind == Kind::File => *known = alias,
            Some(_) => {}
            None => {
                self.any.insert(name.to_owned(), alias);
            }
        }
    }
}
