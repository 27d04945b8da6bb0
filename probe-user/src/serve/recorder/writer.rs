//! Writes captures, and knows whether it can.

use std::path::PathBuf;

use super::content::Capture;
use super::folder::{Folder, Limits, RecorderError};
use crate::report::capture_file::Whose;
use crate::serve::snapshot::{CapturesFailed, RecorderView};

/// What writes, on whatever thread.
pub(super) struct Writer {
    folder: Folder,
    whose: Whose,
    written: u64,
    failed: u64,
    trouble: Option<Trouble>,
    news: Vec<String>,
}

/// Captures cannot be written.
struct Trouble {
    text: String,
    /// Size of what could not be written.
    bytes: usize,
}

impl Writer {
    pub(super) const fn new(folder: Folder, whose: Whose) -> Self {
        Self { folder, whose, written: 0, failed: 0, trouble: None, news: Vec::new() }
    }

    /// Writes a capture. `None` = it could not be written, which [`Self::take_news`] says.
    pub(super) fn write(&mut self, capture: &Capture) -> Option<PathBuf> {
        let content = capture.content(self.whose).map_err(RecorderError::content);
        let bytes = content.as_ref().map_or(0, Vec::len);
        match content.and_then(|content| self.folder.write(&capture.incident, &content)) {
            Ok(path) => {
                self.written += 1;
                self.out_of_trouble();
                Some(path)
            }
            Err(error) => {
                self.failed += 1;
                self.in_trouble(&error, bytes);
                None
            }
        }
    }

    /// Other limits from now on. Captures that exceed them go at once.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        match self.folder.set_limits(limits) {
            Ok(()) => self.try_again(),
            Err(error) => self.in_trouble(&error, 0),
        }
    }

    pub(super) const fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Finds out whether a trouble is over.
    pub(super) fn try_again(&mut self) {
        let Some(Trouble { bytes, .. }) = self.trouble else { return };
        match self.folder.try_out(bytes) {
            Ok(()) => self.out_of_trouble(),
            Err(error) => self.in_trouble(&error, bytes),
        }
    }

    fn in_trouble(&mut self, error: &RecorderError, bytes: usize) {
        let text = error.to_string();
        if self.trouble.as_ref().is_none_or(|trouble| trouble.text != text) {
            self.news.push(text.clone());
        }
        self.trouble = Some(Trouble { text, bytes });
    }

    fn out_of_trouble(&mut self) {
        if let Some(Trouble { text, .. }) = self.trouble.take() {
            self.news.push(format!("captures can be written again, after: {text}"));
        }
    }

    /// What it knows of the view.
    pub(super) fn view(&self) -> RecorderView {
        let (captures, bytes) = self.folder.held();
        RecorderView {
            captures,
            bytes,
            written: self.written,
            removed: self.folder.removed(),
            failed: CapturesFailed { write: self.failed, ..CapturesFailed::default() },
            trouble: self.trouble.as_ref().map(|trouble| trouble.text.clone()),
            ..RecorderView::default()
        }
    }

    /// What changed since the last call, one sentence each.
    pub(super) fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }
}
