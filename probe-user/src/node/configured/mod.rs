//! What the configuration of a node *says*: sysctl files, and the arguments of kube-apiserver, kubelet and kube-proxy.
//! [`disagreements()`] compares it with what the kernel has.
//!
//! Everything is read below a root folder, so that a container can look at the node's files under `/host`.

mod arguments;
mod disagreements;
mod rooted;
mod sysctl_files;
mod yaml;

use std::path::{Path, PathBuf};

pub use arguments::{Argument, Component};
pub use disagreements::{Finding, Severity, disagreements};
pub use sysctl_files::{ParsedFile, Setting, parse_sysctl_file, sysctl_paths};

use rooted::Root;

/// Most notes that are kept; one more says how many followed.
const MAX_NOTES: usize = 200;

/// Something the configuration's reader has to say: a file or line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What.
    pub text: String,
    /// File, as seen from the root folder.
    pub file: Option<PathBuf>,
    /// Line from 1.
    pub line: Option<usize>,
}

/// What the node's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// Settings of `net.ipv4.ip_local_port_range`, `ip_local_reserved_ports` and `net.ipv4.vs.*`, in the order in
    /// which the files are applied.
    pub settings: Vec<Setting>,
    /// Arguments of kube-apiserver, kubelet and kube-proxy that have to do with ports and IPVS.
    pub arguments: Vec<Argument>,
    /// What could not be read.
    pub notes: Vec<Note>,
}

impl Configured {
    /// The setting that decides about `key`: the last one in the files that names it, else the last pattern that
    /// matches it (systemd-sysctl lets a pattern never override a name).
    pub fn last(&self, key: &str) -> Option<&Setting> {
        let of_key = || self.settings.iter().rev().filter(|setting| setting.key == key);
        of_key().find(|setting| !setting.by_pattern).or_else(|| of_key().next())
    }

    /// The values of an argument, such as `service-node-port-range`, wherever it is given.
    pub fn argument(&self, component: Component, name: &str) -> impl Iterator<Item = &Argument> {
        self.arguments.iter().filter(move |argument| argument.component == component && argument.name == name)
    }
}

/// Reads the configuration below `root` (`/`, or where a container has the node's file system). Never fails: what
/// cannot be read is a note, and what does not exist is none.
pub fn read_under(root: &Path) -> Configured {
    let mut configured = Configured::default();
    match Root::open(root) {
        Ok(root) => {
            sysctl_files::read(&root, &mut configured);
            arguments::read(&root, &mut configured);
        }
        Err(error) => configured.notes.push(Note {
            text: format!("cannot open {}: {error}", root.display()),
            file: None,
            line: None,
        }),
    }
    let more = configured.notes.len().saturating_sub(MAX_NOTES);
    if more > 0 {
        configured.notes.truncate(MAX_NOTES);
        let text = format!("{more} more things could not be read");
        configured.notes.push(Note { text, file: None, line: None });
    }
    configured
}
