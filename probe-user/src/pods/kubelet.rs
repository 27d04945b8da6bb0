//! Whether a process is a kubelet. Pure: the facts are given by the caller.
//!
//! Its name alone is no proof: k3s and others embed kubelet, and anything may be called `kubelet`.

use std::fmt;

use crate::node::cgroup::container_of_path;

/// TCP port that kubelet serves its API on.
pub const KUBELET_PORT: u16 = 10250;

/// systemd units (and Talos' cgroups) whose main process is or contains kubelet.
const UNITS: &[&str] = &[
    "kubelet.service",
    "k3s.service",
    "k3s-agent.service",
    "rke2-server.service",
    "rke2-agent.service",
    "snap.microk8s.daemon-kubelite.service",
    "snap.microk8s.daemon-kubelet.service",
    "snap.kubelet-eks.daemon.service",
    "k0scontroller.service",
    "k0sworker.service",
];
/// Cgroups of a kubelet that no systemd unit runs (Talos Linux).
const PATHS: &[&str] = &["/podruntime/kubelet", "/system/kubelet"];
/// Executables that are kubelet and nothing else.
const KUBELETS: &[&str] = &["kubelet", "kubelite"];
/// Executables that are kubelet among other things: what runs in their units besides must not be taken for it.
const EMBEDDING: &[&str] = &["k3s", "k3s-server", "k3s-agent", "rke2", "k0s", "hyperkube"];

/// What is known about a process. `None` = not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessView<'a> {
    /// Path of the executable, as `/proc/PID/exe` has it.
    pub exe: Option<&'a str>,
    /// Command line.
    pub cmdline: Option<&'a str>,
    /// Path in the cgroup hierarchy.
    pub cgroup: Option<&'a str>,
    /// Whether it holds the socket that listens on TCP port 10250 of the node.
    pub listens: Option<bool>,
}

/// Whether it is a kubelet, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsKubelet {
    /// It is.
    Yes(Reason),
    /// What is known says that it is none.
    No,
    /// Nothing that could tell is known.
    Unknown,
}

/// Why a process counts as kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its cgroup is that of this unit.
    Unit(String),
    /// Its executable.
    Executable(String),
    /// It listens on port 10250.
    Listens,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(unit) => write!(f, "its cgroup is {unit}"),
            Self::Executable(path) => write!(f, "its executable is {path}"),
            Self::Listens => write!(f, "it listens on port {KUBELET_PORT}"),
        }
    }
}

/// Decides by listening port, cgroup and executable, in this order.
pub fn is_kubelet(process: ProcessView<'_>) -> IsKubelet {
    if process.listens == Some(true) {
        return IsKubelet::Yes(Reason::Listens);
    }
    let in_a_pod = process.cgroup.is_some_and(|cgroup| container_of_path(cgroup).pod_uid.is_some());
    let exe = process.exe.map(|exe| exe.strip_suffix(" (deleted)").unwrap_or(exe));
    let program = exe.and_then(|exe| exe.rsplit('/').next());
    if !in_a_pod {
        if let Some(unit) = process.cgroup.and_then(unit)
            && program.is_none_or(may_be_kubelet)
        {
            return IsKubelet::Yes(Reason::Unit(unit.to_owned()));
        }
        if let (Some(exe), Some(program)) = (exe, program)
            && (KUBELETS.contains(&program) || runs_kubelet(program, process.cmdline))
        {
            return IsKubelet::Yes(Reason::Executable(exe.to_owned()));
        }
    }
    let told = program.is_some() || process.cgroup.is_some_and(|cgroup| cgroup != "/");
    if told || process.listens == Some(false) { IsKubelet::No } else { IsKubelet::Unknown }
}

fn unit(cgroup: &str) -> Option<&str> {
    let path = cgroup.strip_suffix(" (deleted)").unwrap_or(cgroup);
    let by_unit = path.split('/').rev().find(|part| UNITS.contains(part));
    by_unit.or_else(|| PATHS.iter().copied().find(|known| path.ends_with(known)))
}

/// kubelet's unit also holds what it starts: mount helpers, and in k3s's the container runtime.
fn may_be_kubelet(program: &str) -> bool {
    program.contains("kubelet") || KUBELETS.contains(&program) || EMBEDDING.contains(&program)
}

/// `hyperkube kubelet …`: one program for many jobs, the first argument says which.
fn runs_kubelet(program: &str, cmdline: Option<&str>) -> bool {
    let job = cmdline.and_then(|cmdline| cmdline.split_ascii_whitespace().nth(1));
    match program {
        "hyperkube" => matches!(job, Some("kubelet" | "/kubelet")),
        "k3s" | "rke2" => matches!(job, Some("server" | "agent")),
        _ => matches!(program, "k3s-server" | "k3s-agent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(cgroup: Option<&str>, exe: Option<&str>, cmdline: Option<&str>) -> IsKubelet {
        is_kubelet(ProcessView { exe, cmdline, cgroup, listens: None })
    }

    #[test]
    fn units_of_the_usual_distributions() {
        for (cgroup, exe) in [
            ("/system.slice/kubelet.service", Some("/usr/bin/kubelet")),
            ("/system.slice/kubelet.service", None),
            ("/system.slice/k3s.service", Some("/var/lib/rancher/k3s/data/current/bin/k3s")),
            ("/system.slice/k3s-agent.service", Some("/usr/local/bin/k3s (deleted)")),
            ("/system.slice/rke2-server.service", Some("/var/lib/rancher/rke2/bin/kubelet")),
            ("/system.slice/snap.microk8s.daemon-kubelite.service", Some("/snap/microk8s/1/kubelite")),
            ("/podruntime/kubelet", None),
            ("/docker/0123/kubelet.slice/kubelet.service", None),
        ] {
            let judged = judge(Some(cgroup), exe, None);
            assert!(matches!(judged, IsKubelet::Yes(Reason::Unit(_))), "{cgroup} {exe:?}: {judged:?}");
        }
    }

    #[test]
    fn other_programs_in_the_unit_are_not_kubelet() {
        for exe in ["/usr/bin/mount", "/var/lib/rancher/k3s/data/current/bin/containerd", "/usr/bin/nsenter"]
        {
            assert_eq!(judge(Some("/system.slice/k3s.service"), Some(exe), None), IsKubelet::No, "{exe}");
        }
    }

    #[test]
    fn a_kubelet_in_a_container_is_known_by_its_executable() {
        let id = "0123456789abcdef".repeat(4);
        let cgroup = format!("/docker/{id}");
        let exe = Some("/usr/local/bin/kubelet");
        let reason = Reason::Executable("/usr/local/bin/kubelet".to_owned());
        assert_eq!(judge(Some(&cgroup), exe, None), IsKubelet::Yes(reason));
        let hyperkube = |job: &str| judge(Some(&cgroup), Some("/hyperkube"), Some(job));
        assert!(matches!(hyperkube("/hyperkube kubelet --v=2"), IsKubelet::Yes(_)));
        assert_eq!(hyperkube("/hyperkube proxy"), IsKubelet::No);
        assert!(matches!(
            judge(None, Some("/usr/local/bin/k3s"), Some("/usr/local/bin/k3s agent")),
            IsKubelet::Yes(_)
        ));
        assert_eq!(judge(None, Some("/usr/local/bin/k3s"), Some("k3s kubectl get pods")), IsKubelet::No);
    }

    #[test]
    fn a_program_of_that_name_in_a_pod_is_not_this_nodes_kubelet() {
        let pod =
            "/kubepods.slice/kubepods-pod12345678_1234_4321_abcd_1234567890ab.slice/cri-containerd-x.scope";
        assert_eq!(judge(Some(pod), Some("/usr/bin/kubelet"), None), IsKubelet::No);
    }

    #[test]
    fn the_listening_port_decides_where_nothing_else_is_known() {
        let listens = |listens| is_kubelet(ProcessView { listens, ..ProcessView::default() });
        assert_eq!(listens(Some(true)), IsKubelet::Yes(Reason::Listens));
        assert_eq!(listens(Some(false)), IsKubelet::No);
        assert_eq!(listens(None), IsKubelet::Unknown, "a name is no proof, nor is its absence");
        assert_eq!(judge(Some("/"), None, None), IsKubelet::Unknown);
    }
}
