//! Texts of which only this stays: words of the program's own sentences, numbers, times, and addresses and names as
//! their aliases. Whatever is none of these becomes an alias too, so that a name that nobody thought of is not told.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::addresses::Addresses;
use super::names::{Kind, Names};
use super::shape::{is_interface, is_number, mac};

/// Words of the program's own sentences, one a line; a test compares them with the source.
const VOCABULARY: &str = include_str!("vocabulary.txt");

/// Between these stands the number of an alias while a text is worked on. Taken out of what comes from outside.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';
/// What separates words.
pub(super) const BETWEEN: [char; 16] =
    [' ', '\t', '\n', '\r', ',', ';', '(', ')', '"', '\'', '<', '>', '{', '}', '|', '='];
/// What ends a URL: `=` and the like are part of it.
const URL_ENDS: [char; 9] = [' ', '\t', '\n', '\r', '"', '\'', '<', '>', ')'];
/// What may stand at the end or the beginning of a word without being part of it.
const AFTER: [char; 10] = ['-', '.', ':', '!', '?', ']', '*', '/', '…', '%'];
const BEFORE: [char; 10] = [':', '[', '*', '-', '+', '@', '#', '~', '$', '^'];
/// The next word is a name, even if it is a word of the vocabulary as well.
const INTRODUCING: [&str; 4] = ["container", "pod", "namespace", "image"];
/// Words that follow those without being a name.
const NO_NAMES: [&str; 14] = [
    "runtime", "id", "of", "is", "was", "in", "that", "and", "or", "list", "lists", "sources", "has",
    "network",
];

/// How much a text is trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Advice, with commands in it: quotes are the shell's.
    Advice,
    /// Anything can stand in it.
    Outside,
}

/// Rewrites texts.
pub(super) struct Texts {
    vocabulary: HashSet<&'static str>,
    /// Words that became an alias because they are none of the vocabulary.
    pub(super) removed: u64,
}

impl Texts {
    pub(super) fn new() -> Self {
        Self { vocabulary: VOCABULARY.lines().collect(), removed: 0 }
    }

    /// Whether a word is one of the program's own sentences. A single letter is a unit, and names nobody.
    pub(super) fn is_ours(&self, word: &str) -> bool {
        word.chars().nth(1).is_none() || self.vocabulary.contains(word.to_lowercase().as_str())
    }

    /// The text without anything that names somebody.
    pub(super) fn rewrite(
        &mut self,
        text: &str,
        trust: Trust,
        names: &mut Names,
        addresses: &mut Addresses,
    ) -> String {
        let text: String = text.chars().filter(|c| !matches!(*c, OPEN | CLOSE)).collect();
        let text = if trust == Trust::Outside { without_quoted(&text) } else { text };
        let (text, aliases) = with_aliases(text, names);
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        let mut previous = String::new();
        while !rest.is_empty() {
            let mut end = rest.find(BETWEEN).unwrap_or(rest.len());
            if rest.get(..end).is_some_and(|word| word.contains("://")) {
                end = rest.find(URL_ENDS).unwrap_or(rest.len());
            }
            let (word, after) = rest.split_at(end);
            if !word.is_empty() {
                let mut one =
                    One { texts: self, names, addresses, trust, introduced: introduces(&previous, word) };
                out += &one.word(word, 0);
                word.clone_into(&mut previous);
            }
            let separator = after.chars().next();
            out.extend(separator);
            if separator.is_some_and(|c| c != ' ') {
                previous.clear();
            }
            rest = after.get(separator.map_or(0, char::len_utf8)..).unwrap_or_default();
        }
        filled_in(&out, &aliases)
    }
}

/// Names of several words as numbers of their aliases, which no further step takes for words.
fn with_aliases(mut text: String, names: &Names) -> (String, Vec<String>) {
    let mut aliases = Vec::new();
    for (name, alias) in names.of_several_words() {
        if text.contains(name) {
            text = text.replace(name, &format!("{OPEN}{}{CLOSE}", aliases.len()));
            aliases.push(alias.to_owned());
        }
    }
    (text, aliases)
}

fn introduces(previous: &str, word: &str) -> bool {
    INTRODUCING.contains(&previous.to_lowercase().as_str()) && !NO_NAMES.contains(&word)
}

/// The aliases in place of their numbers.
fn filled_in(text: &str, aliases: &[String]) -> String {
    let mut parts = text.split(OPEN);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((number, rest)) = part.split_once(CLOSE) else { continue };
        let alias = number.parse::<usize>().ok().and_then(|number| aliases.get(number));
        out += alias.map_or("…", String::as_str);
        out += rest;
    }
    out
}

/// What stands in double quotes is somebody else's.
fn without_quoted(text: &str) -> String {
    let mut parts = text.split('"');
    let mut out = parts.next().unwrap_or_default().to_owned();
    while parts.next().is_some() {
        out += "\"…\"";
        out += parts.next().unwrap_or_default();
    }
    out
}

/// One word of a text.
struct One<'a> {
    texts: &'a mut Texts,
    names: &'a mut Names,
    addresses: &'a mut Addresses,
    trust: Trust,
    /// The word before says that this is a name.
    introduced: bool,
}

/// Signs that are taken off a word at most.
const MAX_DEPTH: usize = 8;

impl One<'_> {
    fn word(&mut self, word: &str, depth: usize) -> String {
        if word.contains(OPEN) {
            return self.around_aliases(word, depth);
        }
        if !word.chars().any(char::is_alphanumeric) {
            return word.to_owned();
        }
        if let Some(known) = self.name(word).or_else(|| self.whole(word)) {
            return known;
        }
        if depth < MAX_DEPTH {
            if let Some(inner) = word.strip_suffix(AFTER) {
                let sign = word.get(inner.len()..).unwrap_or_default();
                return self.word(inner, depth + 1) + sign;
            }
            if let Some(inner) = word.strip_prefix(BEFORE) {
                let sign = word.get(..word.len() - inner.len()).unwrap_or_default();
                return sign.to_owned() + &self.word(inner, depth + 1);
            }
        }
        self.unknown(word)
    }

    /// The alias of a known name. A name that is a word of our sentences too is one only where that is said.
    fn name(&mut self, word: &str) -> Option<String> {
        if self.trust == Trust::Advice
            || !word.chars().any(char::is_alphabetic)
            || !self.introduced && self.texts.is_ours(word)
        {
            return None;
        }
        if let Some(alias) = self.names.known(word) {
            return Some(alias.to_owned());
        }
        // `kubelet.log:12`
        let (name, line) = word.rsplit_once(':')?;
        let alias = self.names.known(name).filter(|_| is_number(line) && !self.texts.is_ours(name))?;
        Some(format!("{alias}:{line}"))
    }

    /// Text between numbers of aliases.
    fn around_aliases(&mut self, word: &str, depth: usize) -> String {
        let mut out = String::new();
        for part in word.split_inclusive(CLOSE) {
            let (text, alias) = part.find(OPEN).map_or((part, ""), |at| part.split_at(at));
            if !text.is_empty() && depth < MAX_DEPTH {
                // `namespace/name:port`: what hangs on an alias is part of a name.
                let bare = text.trim_matches(['/', ':', '.', '-']);
                let kept = bare.is_empty() || bare.chars().all(|c| c.is_ascii_digit());
                if kept || self.texts.is_ours(bare) && !text.starts_with('-') {
                    out += text;
                } else {
                    let alias = self.names.known_or_new(Kind::Name, bare);
                    out += &text.replace(bare, &alias);
                }
            }
            out += alias;
        }
        out
    }

    /// A word that is known as it stands.
    fn whole(&mut self, word: &str) -> Option<String> {
        if let Some(address) = self.address(word) {
            return Some(address);
        }
        if let Some((scheme, rest)) = word.split_once("://") {
            return Some(self.url(scheme, rest));
        }
        // An interface and its network namespace.
        if let Some((name, namespace)) = word.split_once('@').filter(|(_, namespace)| is_number(namespace)) {
            let kept = is_interface(name) || self.texts.is_ours(name);
            let name = if kept { name.to_owned() } else { self.names.known_or_new(Kind::Interface, name) };
            return Some(format!("{name}@{namespace}"));
        }
        let ours = (self.texts.is_ours(word) || is_interface(word))
            && !(self.introduced && self.trust == Trust::Outside);
        (is_number(word) || ours).then(|| word.to_owned())
    }

    fn address(&mut self, word: &str) -> Option<String> {
        if let Ok(address) = word.parse::<SocketAddr>() {
            return Some(self.addresses.socket(address).to_string());
        }
        if let Ok(address) = word.parse::<IpAddr>() {
            return Some(self.addresses.ip(address).to_string());
        }
        if let Some(mac) = mac(word) {
            let new = self.addresses.mac(mac);
            return Some(new.map(|byte| format!("{byte:02x}")).join(":"));
        }
        if let Some(inner) = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
            let address = inner.parse::<IpAddr>().ok()?;
            return Some(format!("[{}]", self.addresses.ip(address)));
        }
        if let Some((address, length)) = word.split_once('/') {
            let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse::<u32>().ok()?);
            return Some(format!("{}/{length}", network(self.addresses.ip(address), length)));
        }
        // `fe80::1%eth0`
        if let Some((address, scope)) = word.split_once('%') {
            let address = address.trim_start_matches('[').parse::<IpAddr>().ok()?;
            let scope = scope.split([']', ':']).next().unwrap_or_default();
            return Some(format!("{}%{scope}", self.addresses.ip(address)));
        }
        // `10.0.0.1.80` of tcpdump, `10.0.0.1:http` of ss
        let (address, port) = word.rsplit_once(['.', ':'])?;
        let separator = word.get(address.len()..=address.len())?;
        let address = address.parse::<IpAddr>().ok()?;
        let port = match port.parse::<u16>() {
            Ok(port) => port.to_string(),
            Err(_) if port == "*" || self.texts.is_ours(port) => port.to_owned(),
            Err(_) if port.starts_with(char::is_alphabetic) => self.names.known_or_new(Kind::Port, port),
            Err(_) => return None,
        };
        Some(format!("{}{separator}{port}", self.addresses.ip(address)))
    }

    /// Scheme, address and port; the rest is somebody else's.
    fn url(&mut self, scheme: &str, rest: &str) -> String {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let path = match path {
            "" | "/" => path,
            _ => "/…",
        };
        let scheme = if self.texts.is_ours(scheme) { scheme } else { "…" };
        let host = match self.address(host) {
            Some(address) => address,
            None => self.unknown(host),
        };
        format!("{scheme}://{host}{path}")
    }

    fn unknown(&mut self, word: &str) -> String {
        self.texts.removed += 1;
        let is_name = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
        };
        match word.split_once('/') {
            Some((namespace, name))
                if is_name(namespace) && is_name(name.split(':').next().unwrap_or_default()) =>
            {
                let (name, port) =
                    name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
                let namespace = self.names.known_or_new(Kind::Namespace, namespace);
                let name = self.names.known_or_new(Kind::Name, name);
                let port = port.map_or_else(String::new, |port| format!(":{}", self.port(port)));
                format!("{namespace}/{name}{port}")
            }
            _ => self.names.known_or_new(Kind::Name, word),
        }
    }

    fn port(&mut self, port: &str) -> String {
        if is_number(port) || self.texts.is_ours(port) {
            port.to_owned()
        } else {
            self.names.known_or_new(Kind::Port, port)
        }
    }
}

/// The network of an address.
fn network(address: IpAddr, length: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
