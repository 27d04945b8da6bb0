//! Pods and Services from a file: the output of `kubectl get pods -A -o json` or `yaml`, also with Services in it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::update::{PodSourceKind, PodUpdate, UpdateSender};
use crate::ipvs::table::Unreadable;
use crate::kubernetes::list::MAX_BYTES;
use crate::kubernetes::{ParseError, parse_pods, parse_services};

/// How often it is looked whether the file changed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why a file gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("read pods from {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("read pods from {path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: ParseError,
    },
}

/// What a file holds.
#[derive(Debug)]
pub struct Content {
    /// Its pods, and its Services if there are any.
    pub updates: Vec<PodUpdate>,
    /// What the reader should know about it, one sentence each.
    pub notes: Vec<String>,
}

/// Reads the file. What in it cannot be read is counted and hides nothing else.
pub fn read(path: &Path) -> Result<Content, FileError> {
    let bytes = read_bounded(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|reason| FileError::Parse { path: path.to_owned(), reason })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than the parser takes, so that it refuses what is too large.
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The messages that this content is.
pub fn parse(bytes: &[u8]) -> Result<Content, ParseError> {
    let source = PodSourceKind::File;
    let pods = parse_pods(bytes);
    let services = parse_services(bytes).ok().filter(|list| !list.items.is_empty());
    let (mut updates, mut notes) = (Vec::new(), Vec::new());
    match (pods, &services) {
        (Ok(list), _) => {
            notes.extend(list.left_out(if services.is_some() { &["Service"] } else { &[] }));
            notes.extend(list.notes);
            let unreadable = with_rest(list.unreadable, list.cut_short);
            updates.push(PodUpdate::All { source, pods: list.items, unreadable });
        }
        (Err(ParseError::OtherKind { .. }), Some(_)) => {
            notes.push("the file holds Services, but no pods".to_owned());
        }
        (Err(error), _) => return Err(error),
    }
    if let Some(list) = services {
        let unreadable = with_rest(list.unreadable, list.cut_short);
        updates.push(PodUpdate::ServicesAll { source, services: list.items, unreadable });
    }
    Ok(Content { updates, notes })
}

/// A list that breaks off counts as one more entry that could not be read.
fn with_rest(mut unreadable: Vec<Unreadable>, cut_short: Option<String>) -> Vec<Unreadable> {
    unreadable.extend(cut_short.map(|reason| Unreadable { line: 0, text: String::new(), reason }));
    unreadable
}

/// Reads the file again whenever it changed, until nobody listens any more. The first reading was the caller's.
pub async fn follow(path: PathBuf, updates: UpdateSender) {
    let mut seen = stamp(&path);
    while !updates.is_closed() {
        tokio::time::sleep(LOOK_AGAIN).await;
        let now = stamp(&path);
        if now == seen {
            continue;
        }
        let file = path.clone();
        let messages = match tokio::task::spawn_blocking(move || read(&file)).await {
            Ok(Ok(content)) => content.updates,
            Ok(Err(error)) => {
                vec![PodUpdate::Trouble { source: PodSourceKind::File, reason: error.to_string() }]
            }
            Err(_) => return,
        };
        seen = now;
        for message in messages {
            if updates.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// What changes when a file is written again.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"default","name":"web"},
        "spec":{"containers":[{"name":"web"}]},"status":{"phase":"Running","podIP":"10.23.77.138"}}"#;
    const SERVICE: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"default","name":"web"},
        "spec":{"type":"NodePort","clusterIP":"10.96.0.7","ports":[{"port":80,"nodePort":30080}]}}"#;

    fn list(items: &[&str]) -> String {
        format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, items.join(","))
    }

    fn counts(text: &str) -> Vec<(&'static str, usize, usize)> {
        let content = parse(text.as_bytes()).unwrap();
        let count = |update: &PodUpdate| match update {
            PodUpdate::All { pods, unreadable, .. } => ("pods", pods.len(), unreadable.len()),
            PodUpdate::ServicesAll { services, unreadable, .. } => {
                ("services", services.len(), unreadable.len())
            }
            other => panic!("{other:?}"),
        };
        content.updates.iter().map(count).collect()
    }

    #[test]
    fn a_file_may_hold_pods_or_services_or_both() {
        assert_eq!(counts(&list(&[POD])), [("pods", 1, 0)]);
        assert_eq!(counts(&list(&[POD, SERVICE])), [("pods", 1, 0), ("services", 1, 0)]);
        assert_eq!(counts(&list(&[SERVICE])).last(), Some(&("services", 1, 0)));
    }

    #[test]
    fn a_list_that_breaks_off_gives_what_it_has_and_says_so() {
        let whole = list(&[POD, POD.replace("web", "second").as_str()]);
        let cut = whole.get(..whole.len() - 60).unwrap();
        assert_eq!(counts(cut), [("pods", 1, 1)]);
    }

    #[test]
    fn what_is_no_list_of_pods_is_refused_with_the_name_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pods.txt");
        std::fs::write(&path, "NAMESPACE NAME READY\ndefault web 1/1\n").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("pods.txt") && message.contains("kubectl get pods"), "{message}");
        let missing = read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("No such file"), "{missing}");
    }
}
