//! Before structured logging: `Readiness probe for "web-1_default(92d60c48-…):web" failed (failure): Get http://…` and
//! `… errored: …`.

use super::fields::unescape;
use super::parser::{Message, Words, container, label, probe_type, uid};

/// `None` if the message is another one, such as `… succeeded`.
pub(super) fn parse(message: &str) -> Option<Message<'_>> {
    let (kind, rest) = message.split_once(" probe ")?;
    let kind = probe_type(kind)?;
    let (whose, rest) = match rest.strip_prefix("for \"") {
        Some(rest) => rest.split_once("\" ")?,
        None => ("", rest),
    };
    let (errored, said) = match rest.strip_prefix("errored: ") {
        Some(said) => (true, said),
        None => (false, failed(rest)?),
    };
    let whose = unescape(whose);
    let (pod, container_name) = whose.rsplit_once(':').unwrap_or(("", ""));
    let (full_name, pod_uid) = match pod.split_once('(') {
        Some((full_name, rest)) => (full_name, rest.split_once(')').and_then(|(id, _)| uid(id))),
        None => (pod, None),
    };
    // Neither names of pods nor of namespaces have an underscore.
    let names =
        full_name.rsplit_once('_').and_then(|(name, namespace)| Some((label(name)?, label(namespace)?)));
    let (name, namespace) = names.unzip();
    let start = message.len() - said.len();
    Some(Message {
        errored,
        kind: Some(kind),
        namespace,
        name,
        uid: pod_uid,
        container: container(container_name),
        words: Words::Text(said.into()),
        range: Some(start..message.len()),
    })
}

/// `failed (failure): …`, and `failed: …` as in events.
fn failed(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("failed")?;
    if let Some(said) = rest.strip_prefix(": ") {
        return Some(said);
    }
    let (_, said) = rest.strip_prefix(" (")?.split_once("):")?;
    Some(said.strip_prefix(' ').unwrap_or(said))
}
