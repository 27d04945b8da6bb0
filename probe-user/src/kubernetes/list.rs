//! Lists of Services and Pods, in whatever form people bring them; told apart by content.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::collect::Collector;
use super::objects::Object;
use super::pod::Pod;
use super::service::KubeService;
use super::{json, service_text, yaml};
use crate::ipvs::form::looks_like;
use crate::ipvs::table::Unreadable;

/// Most bytes of one list that are read: 50,000 pods take about 250 MB as JSON.
pub const MAX_BYTES: usize = 512 * 1024 * 1024;
/// How much of a listing is looked at to tell what it is.
const HEAD_BYTES: usize = 64 * 1024;

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `kubectl get svc`, also with `-o wide`, `-A` and `--no-headers`.
    Text,
    /// `-o json`: a list, an object, or several one after the other.
    Json,
    /// `-o yaml`: a list, an object, or several documents.
    Yaml,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "kubectl listing",
            Self::Json => "JSON",
            Self::Yaml => "YAML",
        })
    }
}

/// What kind of objects a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// [`parse_services`] reads it.
    Services,
    /// [`parse_pods`] reads it.
    Pods,
}

/// The objects of one kind that a list holds, and what to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// Its form.
    pub form: Form,
    /// The objects, in the order of the input.
    pub items: Vec<T>,
    /// Objects and rows that could not be read: line from 1, index in the list from 0 and name as far as known.
    pub unreadable: Vec<Unreadable>,
    /// What the reader should know: what this form does not say.
    pub notes: Vec<String>,
    /// Objects of other kinds, which were left out: how many of each.
    pub others: BTreeMap<String, usize>,
    /// Why the rest was not read: a list cut off in the middle, a limit. `None` if it was read to its end.
    pub cut_short: Option<String>,
}

impl<T> Listing<T> {
    /// A sentence about what was left out, kinds in `taken` excepted: somebody else took those.
    pub fn left_out(&self, taken: &[&str]) -> Option<String> {
        let others = self.others.iter().filter(|(kind, _)| !taken.contains(&kind.as_str()));
        let others: Vec<_> = others.map(|(kind, count)| format!("{count} {kind}")).collect();
        (!others.is_empty()).then(|| format!("objects of other kinds were left out: {}", others.join(", ")))
    }
}

/// Services of a list.
pub type ServiceList = Listing<KubeService>;
/// Pods of a list.
pub type PodList = Listing<Pod>;

/// Why content is not taken as a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is nothing in it.
    #[error(
        "the list of {kind}s is empty: `kubectl get` prints nothing but an error where it finds nothing, for example in the wrong namespace"
    )]
    Empty {
        /// Wanted kind.
        kind: &'static str,
    },
    /// It is something else.
    #[error("this is no list of {kind}s, it looks like {looks_like}: expected the output of {expected}")]
    OtherKind {
        /// Wanted kind.
        kind: &'static str,
        /// What it looks like.
        looks_like: String,
        /// What can be read.
        expected: &'static str,
    },
    /// JSON or YAML that breaks off before its first object.
    #[error("no {kind} could be read from this {form}: {reason}")]
    Broken {
        /// Wanted kind.
        kind: &'static str,
        /// What it was read as.
        form: Form,
        /// What is wrong with it.
        reason: String,
    },
    /// kubectl of 2015 (kubernetes/kubernetes#7658).
    #[error(
        "line {line}: this listing of Services has the layout of kubectl before 1.1, where one Service takes \
         several rows and node ports are not shown: use `kubectl get svc -A -o json`"
    )]
    OldLayout {
        /// Line from 1.
        line: usize,
    },
    /// It is larger than [`MAX_BYTES`].
    #[error(
        "the list of {kind}s has {bytes} bytes, more than the {MAX_BYTES} that are read: split it by namespace"
    )]
    TooLarge {
        /// Wanted kind.
        kind: &'static str,
        /// Its size.
        bytes: usize,
    },
}

const EXPECTED_SERVICES: &str = "`kubectl get svc -A`, with or without `-o wide`, `-o json` or `-o yaml`";
const EXPECTED_PODS: &str = "`kubectl get pods -A -o json` or `-o yaml`";

/// Reads a list of Services: text, JSON or YAML.
pub fn parse_services(bytes: &[u8]) -> Result<ServiceList, ParseError> {
    let text = checked::<KubeService>(bytes)?;
    match form(&text.text) {
        Some(form) => objects(form, &text, EXPECTED_SERVICES),
        None if service_text::looks_like_it(head(&text.text)) => {
            let mut list = service_text::parse(&text.text)?;
            list.notes.extend(text.note);
            Ok(list)
        }
        None => Err(other_kind::<KubeService>(bytes, EXPECTED_SERVICES)),
    }
}

/// Reads a list of Pods: JSON or YAML. The text that `kubectl get pods` prints has neither probes nor container ids.
pub fn parse_pods(bytes: &[u8]) -> Result<PodList, ParseError> {
    let text = checked::<Pod>(bytes)?;
    match form(&text.text) {
        Some(form) => objects(form, &text, EXPECTED_PODS),
        None => Err(other_kind::<Pod>(bytes, EXPECTED_PODS)),
    }
}

/// What `bytes` are, from their beginning; `None` if they are no list that is read here.
pub fn recognise(bytes: &[u8]) -> Option<ListKind> {
    let bytes = without_bom(bytes);
    let head_text = String::from_utf8_lossy(bytes.get(..HEAD_BYTES).unwrap_or(bytes));
    let form = form(&head_text);
    let first = match form {
        None => return service_text::looks_like_it(&head_text).then_some(ListKind::Services),
        // The first item may be larger than what is looked at otherwise.
        Some(Form::Json) => json::first(&valid_text(bytes)),
        Some(_) => yaml::first(&valid_text(bytes)),
    };
    let item = first.item.as_ref();
    let kind = item.and_then(|item| item.kind.as_deref()).or(first.kind.as_deref());
    match kind {
        Some("Service" | "ServiceList") => Some(ListKind::Services),
        Some("Pod" | "PodList") => Some(ListKind::Pods),
        None | Some("List") => {
            let spec = item?.spec.as_ref()?;
            if spec.containers.is_some() {
                Some(ListKind::Pods)
            } else {
                (spec.cluster_ip.is_some() && spec.ports.is_some()).then_some(ListKind::Services)
            }
        }
        Some(_) => None,
    }
}

struct Text<'b> {
    text: Cow<'b, str>,
    note: Option<String>,
}

/// The longest valid beginning, which is enough to recognise.
fn valid_text(bytes: &[u8]) -> Cow<'_, str> {
    Cow::Borrowed(bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid()))
}

fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn checked<T: Object>(bytes: &[u8]) -> Result<Text<'_>, ParseError> {
    if bytes.len() > MAX_BYTES {
        return Err(ParseError::TooLarge { kind: T::KIND, bytes: bytes.len() });
    }
    let bytes = without_bom(bytes);
    if bytes.trim_ascii().is_empty() {
        return Err(ParseError::Empty { kind: T::KIND });
    }
    let text = String::from_utf8_lossy(bytes);
    let replaced = matches!(text, Cow::Owned(_));
    let note = replaced.then(|| "bytes that are no UTF-8 were replaced".to_owned());
    Ok(Text { text, note })
}

/// JSON or YAML; `None` for text.
fn form(text: &str) -> Option<Form> {
    const YAML_STARTS: [&str; 8] =
        ["apiVersion:", "kind:", "items:", "metadata:", "spec:", "---", "- apiVersion:", "%YAML"];
    let start = text.trim_start();
    if start.starts_with(['{', '[']) {
        return Some(Form::Json);
    }
    let line = start.lines().map(str::trim_end).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    YAML_STARTS.iter().any(|start| line.starts_with(start)).then_some(Form::Yaml)
}

fn head(text: &str) -> &str {
    let end = (0..=HEAD_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or(text)
}

fn other_kind<T: Object>(bytes: &[u8], expected: &'static str) -> ParseError {
    ParseError::OtherKind { kind: T::KIND, looks_like: looks_like(without_bom(bytes)).to_owned(), expected }
}

fn objects<T: Object>(form: Form, text: &Text<'_>, expected: &'static str) -> Result<Listing<T>, ParseError> {
    let mut found = Collector::<T>::default();
    match form {
        Form::Yaml => yaml::read(&text.text, &mut found),
        Form::Json | Form::Text => json::read(&text.text, &mut found),
    }
    finish(form, found, text.note.clone(), expected)
}

fn finish<T: Object>(
    form: Form,
    found: Collector<T>,
    note: Option<String>,
    expected: &'static str,
) -> Result<Listing<T>, ParseError> {
    let unreadable = found.log.finish();
    if found.items.is_empty() && unreadable.is_empty() {
        if let Some(reason) = &found.cut_short
            && found.lists == 0
        {
            return Err(ParseError::Broken { kind: T::KIND, form, reason: reason.clone() });
        }
        if !found.others.is_empty() {
            let kinds: Vec<_> = found.others.keys().map(|kind| format!("{kind} objects")).collect();
            return Err(ParseError::OtherKind { kind: T::KIND, looks_like: kinds.join(" and "), expected });
        }
        if found.lists == 0 {
            let looks_like = format!("{form} without an object");
            return Err(ParseError::OtherKind { kind: T::KIND, looks_like, expected });
        }
    }
    let mut notes = found.notes;
    notes.extend(note);
    let (items, others, cut_short) = (found.items, found.others, found.cut_short);
    Ok(Listing { form, items, unreadable, notes, others, cut_short })
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
