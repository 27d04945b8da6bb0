//! What a source of pods or Services has to say: the messages that it sends through a bounded tokio mpsc channel.
//!
//! A source never decides what is right: it sends what it was told, and the index joins what several sources say.
//! Nothing secret is in a message: no token, no environment, no header value.

use std::fmt;

use tokio::sync::mpsc;

use crate::ipvs::table::Unreadable;
use crate::kubernetes::pod::Pod;
use crate::kubernetes::service::KubeService;

/// Messages that may wait in the channel. A source that is faster than the index waits.
pub const CHANNEL_CAPACITY: usize = 64;

/// Sending end of the channel, one clone per source. That it is closed means: end yourself.
pub type UpdateSender = mpsc::Sender<PodUpdate>;

/// Where pods or Services come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodSourceKind {
    /// kubelet's `/pods` over TLS (port 10250): this node's pods, static ones included, with probes.
    Kubelet,
    /// kubelet's `/pods` on its read-only port (10255): the same, but in the clear and unauthenticated.
    KubeletReadOnly,
    /// The API server: this node's pods (`spec.nodeName`), Services of the cluster.
    Api,
    /// The container runtime's socket: names, addresses and container ids, no probes.
    Cri,
    /// A file with the output of `kubectl get … -o json` or `yaml`.
    File,
    /// A file with the output of `kubectl get pods -o wide`: names and addresses, no probes.
    Table,
}

impl PodSourceKind {
    /// Whether pods of this source carry their probes.
    pub const fn knows_probes(self) -> bool {
        !matches!(self, Self::Cri | Self::Table)
    }

    /// The word that `--pods` and the JSON output use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::KubeletReadOnly => "kubelet-read-only",
            Self::Api => "api",
            Self::Cri => "cri",
            Self::File => "file",
            Self::Table => "table",
        }
    }
}

impl fmt::Display for PodSourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One message of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum PodUpdate {
    /// The whole list of pods of this node as it is now. A pod that this source named before and that is missing
    /// here has gone away. A list that was cut short is no `All`: send `Trouble` and keep quiet about its pods.
    All {
        /// Who says so.
        source: PodSourceKind,
        /// Every pod that could be read.
        pods: Vec<Pod>,
        /// Entries that could not be read. They hide no other entry.
        unreadable: Vec<Unreadable>,
    },
    /// One pod appeared or changed (watch).
    Changed {
        /// Who says so.
        source: PodSourceKind,
        /// The pod as it is now.
        pod: Box<Pod>,
    },
    /// One pod was deleted (watch).
    Gone {
        /// Who says so.
        source: PodSourceKind,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// `metadata.uid`, if the source knows it: a pod of this name with another uid stays.
        uid: Option<String>,
    },
    /// The whole list of Services of the cluster.
    ServicesAll {
        /// Who says so.
        source: PodSourceKind,
        /// Every Service that could be read.
        services: Vec<KubeService>,
        /// Entries that could not be read.
        unreadable: Vec<Unreadable>,
    },
    /// One Service appeared or changed (watch).
    ServiceChanged {
        /// Who says so.
        source: PodSourceKind,
        /// The Service as it is now.
        service: Box<KubeService>,
    },
    /// One Service was deleted (watch).
    ServiceGone {
        /// Who says so.
        source: PodSourceKind,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// The source has nothing to say for now. Sent when the trouble begins or changes, not at every retry.
    /// The next `All` or `ServicesAll` of the same source ends it.
    Trouble {
        /// Who has it.
        source: PodSourceKind,
        /// What happened to what, and what to do about it, in one line. Never a token or a response's body.
        reason: String,
    },
    /// There is no sign of the source on this machine, and nobody asked for it. Ends as a trouble does.
    Absent {
        /// Who is not there.
        source: PodSourceKind,
        /// What was looked for, and how to name it, in one line.
        reason: String,
    },
}
