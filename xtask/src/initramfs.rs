//! Writes an initramfs: a cpio archive in the "newc" form, uncompressed (the kernel unpacks it faster than
//! it would decompress it under emulation).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive in the making. Parent directories appear by themselves.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    /// An archive with `/dev/console`, which the kernel opens for PID 1 before `/dev` is mounted.
    pub(crate) fn new() -> Self {
        let mut archive = Self::default();
        archive.entry("dev/console", CHARACTER_DEVICE, &[], (5, 1));
        archive
    }

    /// Adds a file that may be executed. The first of two entries with one name stays.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, content, (0, 0));
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, name: &str, to: &str) {
        self.entry(name, LINK, to.as_bytes(), (0, 0));
    }

    /// Adds an empty directory.
    pub(crate) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY, &[], (0, 0));
    }

    /// Adds a file of this machine under `name`.
    pub(crate) fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(name, &content);
        Ok(())
    }

    /// Adds a program of this machine as `/bin/NAME`, with the shared libraries it needs at their own paths.
    pub(crate) fn program(&mut self, name: &str, from: &Path) -> Result<()> {
        self.copy(&format!("bin/{name}"), from)?;
        // ldd fails on a static binary, which needs nothing.
        let Ok(libraries) = command::output(Command::new("ldd").arg(from)) else { return Ok(()) };
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            self.copy(library.trim_start_matches('/'), Path::new(library))?;
        }
        Ok(())
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        if !self.names.insert(name.to_owned()) {
            return;
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.entry(parent, DIRECTORY, &[], (0, 0));
        }
        self.record(name, mode, content, device);
    }

    /// Format: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source.
    fn record(&mut self, name: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.inode += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and contents of the entries, read back as the kernel reads them.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut at = 0;
        let mut found = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
            let content = (at + 110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, mode, bytes[content..content + size].to_vec()));
            at = (content + size).next_multiple_of(4);
        }
    }

    #[test]
    fn parents_come_first_and_once_and_contents_survive() {
        let mut archive = Archive::default();
        archive.file("a/b/odd", b"12345");
        archive.file("a/b/other", b"");
        archive.link("a/link", "b/odd");
        let expected = [
            ("a", DIRECTORY, &b""[..]),
            ("a/b", DIRECTORY, b""),
            ("a/b/odd", PROGRAM, b"12345"),
            ("a/b/other", PROGRAM, b""),
            ("a/link", LINK, b"b/odd"),
        ];
        let expected: Vec<_> = expected.map(|(n, m, c)| (n.to_owned(), m, c.to_vec())).into();
        assert_eq!(entries(&archive.finish()), expected);
    }

    #[test]
    fn the_first_of_two_entries_with_one_name_stays() {
        let mut archive = Archive::default();
        archive.file("x", b"first");
        archive.file("x", b"second");
        assert_eq!(entries(&archive.finish()), [("x".to_owned(), PROGRAM, b"first".to_vec())]);
    }
}
