//! The capture of an incident: sent as it is on disk, or why there is none.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use http::StatusCode;

use super::body::Content;
use super::reply::{Reply, file, text};
use crate::serve::snapshot::RecorderView;

/// Sends the file. It may grow or go while it is sent: what was there at the beginning is sent.
pub(super) fn send(path: &Path, id: &str) -> Reply {
    // What is no file any more must not hold up this thread.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path);
    let found = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    match found {
        Ok((opened, metadata)) if metadata.is_file() => {
            file(Content::File(opened, metadata.len()), "application/x-pcapng", &name(id))
        }
        Ok(_) => text(StatusCode::NOT_FOUND, "what the flight recorder wrote is no file any more"),
        Err(error) if error.kind() == ErrorKind::NotFound => text(
            StatusCode::NOT_FOUND,
            "the capture was removed: the flight recorder keeps the latest ones within its limits of count and size",
        ),
        Err(error) => {
            let message = format!("the capture cannot be read: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, &message)
        }
    }
}

/// Why an incident has no capture.
pub(super) fn why_not(recorder: Option<&RecorderView>) -> String {
    match recorder {
        None => "no packets are recorded: start portclash serve with --record DIR".to_owned(),
        Some(RecorderView { trouble: Some(trouble), .. }) => {
            format!("the flight recorder cannot write now: {trouble}")
        }
        Some(_) => "no capture of this incident was written so far: packets are written when the incident is concluded, \
                    and one without packets has none"
            .to_owned(),
    }
}

/// A name that every file system takes, and none that the flight recorder gives: it removes what it takes for its own.
fn name(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    format!("incident-{}.pcapng", id.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_hold_no_separators() {
        assert_eq!(name("2022Z-[fd00::1]:80-../\"\n"), "incident-2022Z-_fd00__1__80-..___.pcapng");
    }
}
