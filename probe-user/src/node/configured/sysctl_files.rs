//! sysctl.d(5): which files there are, in which order, and what they set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::rooted::Root;
use super::{Configured, Note};

/// Highest first: a file hides those with the same name further down.
const FOLDERS: [&str; 5] =
    ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];
/// Read last by `sysctl --system`; systemd-sysctl reads it only through a link in `/etc/sysctl.d`.
pub(super) const LAST_FILE: &str = "/etc/sysctl.conf";

/// Where sysctl files are: folders and a single file, below the root folder.
pub fn sysctl_paths(root: &Path) -> impl Iterator<Item = PathBuf> {
    let paths = FOLDERS.into_iter().chain([LAST_FILE]);
    paths.map(move |path| root.join(path.trim_start_matches('/')))
}

/// What patterns are matched against.
const KEYS: [&str; 5] = [
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.conn_reuse_mode",
    "net.ipv4.vs.expire_nodest_conn",
];
/// What else is kept where a line names it.
const ALSO: [&str; 4] = [
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_syn_linear_timeouts",
    "net.ipv4.tcp_syn_retries",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
];
/// Longest value that is kept: the longest list of ports.
const MAX_VALUE: usize = 256 * 1024;

/// One line that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Key with dots.
    pub key: String,
    /// Value as written, without blanks around it.
    pub value: String,
    /// File, as seen from the root folder.
    pub file: PathBuf,
    /// Line from 1.
    pub line: usize,
    /// The line has a pattern (`net.ipv4.ip_local_*`) that matches the key.
    pub by_pattern: bool,
}

/// What one file says about the settings that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedFile {
    /// What it sets.
    pub settings: Vec<Setting>,
    /// Keys that no pattern is to set (`-key` without a value).
    pub excluded: Vec<String>,
    /// Lines that are none.
    pub notes: Vec<Note>,
}

/// Reads the files in the order in which they are applied.
pub(super) fn read(root: &Root, configured: &mut Configured) {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        let names = match root.names(Path::new(folder)) {
            Ok(names) => names,
            Err(error) => {
                note(configured, folder.into(), &error);
                continue;
            }
        };
        for name in names {
            if Path::new(&name).extension().is_some_and(|extension| extension == "conf") {
                files.entry(name.clone()).or_insert_with(|| Path::new(folder).join(name));
            }
        }
    }
    let mut excluded = Vec::new();
    for file in files.into_values().chain([PathBuf::from(LAST_FILE)]) {
        match root.read(&file) {
            Ok(bytes) => {
                let parsed = parse_sysctl_file(&bytes, &file);
                configured.settings.extend(parsed.settings);
                configured.notes.extend(parsed.notes);
                excluded.extend(parsed.excluded);
            }
            Err(error) => note(configured, file, &error),
        }
    }
    configured.settings.retain(|setting| !setting.by_pattern || !excluded.contains(&setting.key));
}

fn note(configured: &mut Configured, file: PathBuf, error: &io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        let text = format!("cannot read it: {error}");
        configured.notes.push(Note { text, file: Some(file), line: None });
    }
}

/// Reads one file; `file` is only for the places of what it finds.
pub fn parse_sysctl_file(bytes: &[u8], file: &Path) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let text = line.trim_start_matches('\u{feff}').trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        // `-`: failing to set it is no error.
        let (text, dash) = text.strip_prefix('-').map_or((text, false), |rest| (rest.trim_start(), true));
        let Some((key, value)) = text.split_once('=') else {
            if dash {
                parsed.excluded.extend(keys(text).map(|(key, _)| key));
            } else {
                let text = "the line has no `=`: sysctl ignores it".to_owned();
                parsed.notes.push(Note { text, file: Some(file.into()), line: Some(index + 1) });
            }
            continue;
        };
        let value = value.trim();
        let end = value.char_indices().nth(MAX_VALUE).map_or(value.len(), |(at, _)| at);
        for (key, by_pattern) in keys(key.trim()) {
            let value = value.get(..end).unwrap_or_default().to_owned();
            parsed.settings.push(Setting { key, value, file: file.into(), line: index + 1, by_pattern });
        }
    }
    parsed
}

/// The keys that matter here among those that a line names or whose pattern it is; true with a pattern.
fn keys(written: &str) -> impl Iterator<Item = (String, bool)> {
    let path = as_path(written);
    let is_pattern = path.contains(['*', '?']);
    let key = path.replace('/', ".");
    let is_known = || KEYS.iter().chain(&ALSO).any(|known| *known == key);
    let named = !is_pattern && (key.starts_with("net.ipv4.vs.") || is_known());
    let matched = KEYS.iter().filter(move |key| is_pattern && matches_path(&path, &key.replace('.', "/")));
    named.then_some((key, false)).into_iter().chain(matched.map(|key| ((*key).to_owned(), true)))
}

/// The key as path below /proc/sys. If a slash comes first, slashes separate and dots belong to names; else the
/// other way round.
fn as_path(key: &str) -> String {
    let key = key.strip_prefix("/proc/sys/").unwrap_or(key).trim_start_matches('/');
    match key.chars().find(|c| matches!(c, '/' | '.')) {
        Some('.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// As glob(7): `*` and `?` stop at a slash.
fn matches_path(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len()
        && pattern.iter().zip(&path).all(|(pattern, name)| matches_name(pattern.as_bytes(), name.as_bytes()))
}

/// On a mismatch goes back to the last star, so that it takes at most `pattern` times `name` steps.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(seen) => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                seen = taken + 1;
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::read_under;
    use super::*;

    fn values(text: &str) -> Vec<(String, String, usize)> {
        let parsed = parse_sysctl_file(text.as_bytes(), Path::new("/etc/sysctl.d/x.conf"));
        parsed.settings.into_iter().map(|setting| (setting.key, setting.value, setting.line)).collect()
    }

    #[test]
    fn every_spelling_of_a_line() {
        let range = |value: &str, line| ("net.ipv4.ip_local_port_range".to_owned(), value.to_owned(), line);
        let text = "# comment\n; comment\n\n net.ipv4.ip_local_port_range = 1024 65000 \r\n\
             net.ipv4.ip_local_port_range=1024\t65000\n-net.ipv4.ip_local_port_range = 1 2\n\
             net/ipv4/ip_local_port_range = 3 4\nkernel.pid_max = 5\nnet.ipv4.ip_local_port_range=\"1024 65535\"\n\
             /proc/sys/net/ipv4/ip_local_port_range=5 6\n";
        let expected = [
            range("1024 65000", 4),
            range("1024\t65000", 5),
            range("1 2", 6),
            range("3 4", 7),
            range("\"1024 65535\"", 9),
            range("5 6", 10),
        ];
        assert_eq!(values(text), expected);
        assert_eq!(values("net.ipv4.vs.sloppy_tcp=1"), [("net.ipv4.vs.sloppy_tcp".into(), "1".into(), 1)]);
    }

    #[test]
    fn patterns_match_within_one_level() {
        let keys: Vec<String> =
            values("net.ipv4.ip_local_* = 1 2\nnet.ipv4.*.conn?reuse_mode=0\nnet.*=9\nnet/ipv4/*range=3 4\n")
                .into_iter()
                .map(|(key, ..)| key)
                .collect();
        let expected = [
            "net.ipv4.ip_local_port_range",
            "net.ipv4.ip_local_reserved_ports",
            "net.ipv4.vs.conn_reuse_mode",
            "net.ipv4.ip_local_port_range",
        ];
        assert_eq!(keys, expected);
        assert!(matches_name(b"a*b*c", b"aXbYbc") && !matches_name(b"a*b*c", b"aXbYb"));
        assert!(matches_name(b"*", b"") && !matches_name(b"?", b""));
    }

    #[test]
    fn lines_without_a_value_are_notes_or_exclusions() {
        let parsed = parse_sysctl_file(
            b"net.ipv4.ip_local_port_range 1 2\n-net.ipv4.ip_local_port_range\n",
            Path::new("/f"),
        );
        assert_eq!(parsed.notes[0].line, Some(1));
        assert_eq!(parsed.excluded, ["net.ipv4.ip_local_port_range"]);
        assert_eq!(parsed.settings, []);
    }

    #[test]
    fn files_are_applied_by_name_and_hide_each_other() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, value: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("net.ipv4.ip_local_port_range = {value}\n")).unwrap();
        };
        write("usr/lib/sysctl.d/50-a.conf", "1 1");
        write("run/sysctl.d/50-a.conf", "2 2");
        write("etc/sysctl.d/10-b.conf", "3 3");
        write("usr/local/lib/sysctl.d/90-masked.conf", "4 4");
        write("etc/sysctl.d/README", "5 5");
        write("etc/elsewhere", "6 6");
        write("etc/sysctl.conf", "7 7");
        symlink("/dev/null", root.path().join("etc/sysctl.d/90-masked.conf")).unwrap();
        // Leads to the node's file, not to this machine's.
        symlink("/etc/elsewhere", root.path().join("etc/sysctl.d/60-link.conf")).unwrap();
        symlink("usr/lib", root.path().join("lib")).unwrap();
        let read = read_under(root.path());
        assert_eq!(read.notes, []);
        let values: Vec<&str> = read.settings.iter().map(|setting| setting.value.as_str()).collect();
        assert_eq!(values, ["3 3", "2 2", "6 6", "7 7"]);
        assert_eq!(read.settings[1].file, Path::new("/run/sysctl.d/50-a.conf"));
        assert_eq!(read.last("net.ipv4.ip_local_port_range").unwrap().file, Path::new("/etc/sysctl.conf"));
        assert_eq!(read.last("net.ipv4.ip_local_reserved_ports"), None);
    }

    #[test]
    fn a_name_wins_over_a_pattern() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/sysctl.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("1.conf"), "net.ipv4.ip_local_port_range=1 2\n").unwrap();
        fs::write(folder.join("2.conf"), "net.ipv4.*=3 4\n-net.ipv4.ip_local_reserved_ports\n").unwrap();
        let read = read_under(root.path());
        assert_eq!(read.last("net.ipv4.ip_local_port_range").unwrap().value, "1 2");
        assert_eq!(read.last("net.ipv4.ip_local_reserved_ports"), None);
    }

    #[test]
    fn what_cannot_be_read_is_a_note_and_hides_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/sysctl.d");
        fs::create_dir_all(folder.join("1-folder.conf")).unwrap();
        nix::unistd::mkfifo(&folder.join("2-pipe.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(folder.join("3-large.conf"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
        fs::write(folder.join("4.conf"), "net.ipv4.vs.conntrack=1\n").unwrap();
        symlink("5-loop.conf", folder.join("5-loop.conf")).unwrap();
        let read = read_under(root.path());
        let files: Vec<&str> =
            read.notes.iter().map(|note| note.file.as_ref().unwrap().to_str().unwrap()).collect();
        let expected = ["1-folder", "2-pipe", "3-large", "5-loop"];
        assert_eq!(files, expected.map(|name| format!("/etc/sysctl.d/{name}.conf")));
        assert_eq!(read.settings.len(), 1);
        assert_eq!(read_under(Path::new("/nonexistent")).notes.len(), 1);
    }
}
