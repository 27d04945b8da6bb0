//! The files of a tar archive, entry by entry as they come. Nothing is written anywhere, so that no name can do harm.

use std::io::Read;

use tar::{Archive, Entry, EntryType};

use super::stored::Budget;
use super::walk::{Named, Walk, clean};

/// Longest name or extended header that is read.
const MAX_NAME: u64 = 64 * 1024;

/// Whether content begins with a tar header: its checksum tells, also for those of before POSIX.
pub(super) fn is_tar(sample: &[u8]) -> bool {
    let Some(block) = sample.first_chunk::<512>() else { return false };
    let Some(field) = block.get(148..156) else { return false };
    let text = String::from_utf8_lossy(field);
    let digits = text.trim_matches(|c: char| c == '\0' || c == ' ');
    let Ok(expected) = u32::from_str_radix(digits, 8) else { return false };
    // The field itself counts as blanks.
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(block) - sum(field) + 8 * 32 == expected && block.iter().any(|byte| *byte != 0)
}

/// What could not be shown of an archive.
#[derive(Default)]
struct LeftOut {
    links: u64,
    special: u64,
    sparse: u64,
    outside: u64,
    first_outside: Option<String>,
}

/// Shows every file of an archive.
pub(super) fn walk(walk: &mut Walk<'_>, name: &str, reader: &mut dyn Read, depth: u8, budget: &Budget) {
    let mut archive = Archive::new(reader);
    // Raw: the library would read a long name of any length into memory.
    let entries = match archive.entries() {
        Ok(entries) => entries.raw(true),
        Err(error) => return walk.lose(name, format!("the archive cannot be read: {error}")),
    };
    let mut left_out = LeftOut::default();
    let mut long_name: Option<String> = None;
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                walk.lose(
                    name,
                    format!("the archive is damaged or cut: {error}; what comes before was read"),
                );
                break;
            }
        };
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => long_name = text(&mut entry).or(long_name),
            EntryType::XHeader => long_name = text(&mut entry).as_deref().and_then(pax_path).or(long_name),
            EntryType::XGlobalHeader | EntryType::GNULongLink => {}
            _ => {
                let path = long_name.take().unwrap_or_else(|| path_of(&entry));
                let full = format!("{name}!{}", clean(&path));
                match kind {
                    EntryType::Regular | EntryType::Continuous => {
                        left_out.note_path(&path);
                        file(walk, &full, &mut entry, depth, budget);
                    }
                    EntryType::Directory => {}
                    EntryType::Link | EntryType::Symlink => left_out.links += 1,
                    EntryType::GNUSparse => left_out.sparse += 1,
                    _ => left_out.special += 1,
                }
            }
        }
        if walk.is_full(name) {
            break;
        }
    }
    left_out.say(walk, name);
}

fn file<R: Read>(walk: &mut Walk<'_>, name: &str, entry: &mut Entry<'_, R>, depth: u8, budget: &Budget) {
    let size = entry.header().size().ok();
    let modified =
        entry.header().mtime().ok().and_then(|at| i64::try_from(at).ok()?.checked_mul(1_000_000_000));
    walk.content(Named { name, size, modified }, entry, depth, budget);
}

fn path_of<R: Read>(entry: &Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.header().path_bytes()).into_owned()
}

/// The content of an entry that describes the next one.
fn text<R: Read>(entry: &mut Entry<'_, R>) -> Option<String> {
    let mut bytes = Vec::new();
    entry.take(MAX_NAME).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}

/// `path` of an extended header: lines of a length, a name and a value.
fn pax_path(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix("path=")).map(str::to_owned)
}

impl LeftOut {
    fn note_path(&mut self, path: &str) {
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            self.outside += 1;
            self.first_outside.get_or_insert_with(|| clean(path));
        }
    }

    fn say(self, walk: &mut Walk<'_>, name: &str) {
        let Self { links, special, sparse, outside, first_outside } = self;
        if links > 0 {
            walk.skip(name, format!("{links} links in it were not followed: what they lead to has its own entry, or is not in it"));
        }
        if special > 0 {
            walk.skip(name, format!("{special} special files in it were left out"));
        }
        if sparse > 0 {
            walk.lose(
                name,
                format!("{sparse} sparse files in it were left out: unpack it, and give the directory"),
            );
        }
        if let Some(first) = first_outside {
            let why = format!(
                "{outside} entries have names that lead out of it, such as {first}: they were read like the others, and \
                 nothing was written"
            );
            walk.skip(name, why);
        }
    }
}
