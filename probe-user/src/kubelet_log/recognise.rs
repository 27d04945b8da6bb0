//! Whether a file is a kubelet's log, and what its lines are wrapped in.

use super::wrapping::{Wrapping, unwrap};
use super::{json_logging, klog, syslog};

/// Lines looked at; a log begins with what the kubelet says about itself.
const LINES: usize = 200;
/// Programs that are a kubelet, or have one in them.
const PROGRAMS: [&str; 9] = [
    "kubelet",
    "hyperkube",
    "k3s",
    "k3s-agent",
    "rke2",
    "rke2-server",
    "rke2-agent",
    "snap.kubelet-eks.daemon",
    "snap.microk8s.daemon-kubelite",
];
/// Files of the kubelet that no other component has.
const FILES: [&str; 9] = [
    "prober.go",
    "kubelet.go",
    "kubelet_node_status.go",
    "pod_workers.go",
    "status_manager.go",
    "kuberuntime_manager.go",
    "kuberuntime_container.go",
    "pod_container_deletor.go",
    "scope.go",
];

/// What a file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// What its lines are wrapped in.
    pub wrapping: Wrapping,
    /// It is the kubelet's for sure; else it is klog's format, which all of Kubernetes writes.
    pub kubelet: bool,
}

/// Looks at the beginning of a file. `None`: not klog's format in any known wrapping.
pub fn recognise(sample: &[u8]) -> Option<Recognised> {
    let mut found: Option<Recognised> = None;
    for raw in sample.split(|byte| *byte == b'\n').take(LINES) {
        let layer = unwrap(raw);
        let text = String::from_utf8_lossy(&layer.text);
        let file = klog::parse(&text).map(|record| record.file.to_owned());
        let file = file.or_else(|| json_logging::parse(&text).map(|record| record.file().to_owned()));
        let Some(file) = file else { continue };
        let program = syslog::program(raw).is_some_and(|name| PROGRAMS.contains(&name));
        let kubelet = program || FILES.contains(&file.as_str());
        let wrapping = layer.wrapping;
        let known = found.get_or_insert(Recognised { wrapping, kubelet });
        known.kubelet |= kubelet;
        if known.kubelet {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const KLOG: &str = "I0915 19:09:04.534948  607529 kubelet.go:121] \"SyncLoop ADD\" source=\"api\"";

    #[test]
    fn every_wrapping_is_recognised() {
        let json = serde_json::to_string(KLOG).unwrap();
        for (line, wrapping) in [
            (KLOG.to_owned(), Wrapping::Plain),
            (format!("{{\"MESSAGE\":{json},\"_PID\":\"1\"}}"), Wrapping::JournalJson),
            (format!("Jul 17 20:31:39 node-a kubelet: {KLOG}"), Wrapping::Syslog),
            (format!("{{\"log\":{json},\"stream\":\"stderr\"}}"), Wrapping::DockerJson),
            (format!("2019-03-08T11:31:46.679082406Z stderr F {KLOG}"), Wrapping::Cri),
            (
                "{\"ts\":1663268944534.948,\"caller\":\"kubelet/kubelet.go:1\",\"msg\":\"x\"}".to_owned(),
                Wrapping::Plain,
            ),
        ] {
            let sample = format!("-- Logs begin at Thu --\n{line}\n{line}");
            assert_eq!(recognise(sample.as_bytes()), Some(Recognised { wrapping, kubelet: true }), "{line}");
        }
    }

    #[test]
    fn klog_of_another_component_is_not_the_kubelets() {
        let line = b"I0915 19:09:04.534948       1 proxier.go:1108] Can't open port";
        assert_eq!(recognise(line), Some(Recognised { wrapping: Wrapping::Plain, kubelet: false }));
    }

    #[test]
    fn other_files_are_not_recognised() {
        for sample in [
            "",
            "hello\nworld",
            "TCP  10.0.0.1:443 rr",
            "{\"kind\":\"PodList\"}",
            "{\"log\":\"GET / 200\\n\"}",
        ] {
            assert_eq!(recognise(sample.as_bytes()), None, "{sample}");
        }
    }
}
