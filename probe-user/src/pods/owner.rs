//! Which pod a process belongs to that runs in a container. Pure.

use super::index::{Known, PodIndex};
use crate::node::cgroup::container_of_path;
use crate::observation::Nanos;

/// The pod of a process.
#[derive(Debug)]
pub enum OwnerPod<'a> {
    /// This one.
    One {
        /// The pod.
        known: &'a Known,
        /// The container's name, if its id is known.
        container: Option<&'a str>,
        /// The container's image.
        image: Option<&'a str>,
    },
    /// What is known names several pods, so none can be told.
    Ambiguous(Vec<&'a Known>),
    /// The process runs in a container or pod that no source named.
    NotListed {
        /// What was looked for: `container 0123456789ab`, `pod uid …`.
        what: String,
    },
    /// It is no container's process, as far as is known.
    NoContainer,
}

/// Joins container id and cgroup path with the index. The id names one container and so one pod; the path names the
/// pod by uid, or a static pod by its config hash. If they disagree, neither is believed.
pub fn owner_pod<'a>(
    index: &'a PodIndex,
    container_id: Option<&str>,
    cgroup: Option<&str>,
    at: Nanos,
) -> OwnerPod<'a> {
    let named = cgroup.map(container_of_path).unwrap_or_default();
    let id = container_id.or(named.container_id.as_deref());
    let by_id = id.and_then(|id| index.container(id));
    let mut in_path = named.pod_uid.as_deref().map(|uid| index.by_uid(uid)).unwrap_or_default();
    in_path.retain(|known| known.span.covers(at) || !known.is_gone());
    if let Some(owned) = by_id {
        let agree = in_path.is_empty() || in_path.iter().any(|known| std::ptr::eq(*known, owned.known));
        if agree {
            let (container, image) = (Some(owned.container), owned.image);
            return OwnerPod::One { known: owned.known, container, image };
        }
        in_path.push(owned.known);
        return OwnerPod::Ambiguous(in_path);
    }
    match (in_path.as_slice(), &named.pod_uid, id) {
        ([known], _, _) => OwnerPod::One { known, container: None, image: None },
        ([_, ..], _, _) => OwnerPod::Ambiguous(in_path),
        ([], _, Some(id)) => {
            OwnerPod::NotListed { what: format!("container {}", id.get(..12).unwrap_or(id)) }
        }
        ([], Some(uid), None) => OwnerPod::NotListed { what: format!("pod uid {uid}") },
        ([], None, None) => OwnerPod::NoContainer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::pod::Pod;
    use crate::pods::samples::{host_pod, pod};
    use crate::pods::update::{PodSourceKind, PodUpdate};

    const UID: &str = "12345678-1234-4321-abcd-1234567890ab";
    const SLICE: &str = "kubepods-burstable-pod12345678_1234_4321_abcd_1234567890ab.slice";
    const HASH: &str = "0123456789abcdef0123456789abcdef";

    fn id(letter: &str) -> String {
        letter.repeat(64)
    }

    fn index(pods: Vec<Pod>) -> PodIndex {
        let mut index = PodIndex::new();
        let source = PodSourceKind::Kubelet;
        index.apply(PodUpdate::All { source, pods, unreadable: Vec::new() }, 0);
        index
    }

    fn web() -> Pod {
        let mut web = pod("default", "web", &["10.23.77.138"]);
        web.uid = Some(UID.to_owned());
        web.containers[0].id = Some(id("a"));
        web
    }

    #[track_caller]
    fn expect(index: &PodIndex, cgroup: &str, pod: &str, container: Option<&str>) {
        match owner_pod(index, None, Some(cgroup), 1) {
            OwnerPod::One { known, container: found, .. } => {
                assert_eq!((known.pod.name.as_str(), found), (pod, container), "{cgroup}");
            }
            other => panic!("{cgroup}: {other:?}"),
        }
    }

    // kinvolk/traceloop#33, opencontainers/runc#4620, google/cadvisor#3538, cilium/tetragon#1959
    #[test]
    fn the_pod_of_a_container_under_every_cgroup_driver() {
        let index = index(vec![web()]);
        let a = id("a");
        for cgroup in [
            format!("/kubepods.slice/kubepods-burstable.slice/{SLICE}/crio-{a}.scope"),
            format!("/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{a}.scope"),
            format!("/kubepods/besteffort/pod{UID}/{a}"),
            format!("/system.slice/docker-{a}.scope"),
        ] {
            expect(&index, &cgroup, "web", Some("nginx"));
        }
    }

    // kind nodes run pods inside a container; open-telemetry/opentelemetry-ebpf-profiler#620
    #[test]
    fn the_innermost_container_counts_on_a_kind_node() {
        let index = index(vec![web()]);
        let (node, a) = (id("f"), id("a"));
        expect(
            &index,
            &format!("/docker/{node}/kubelet.slice/{SLICE}/cri-containerd-{a}.scope"),
            "web",
            Some("nginx"),
        );
        let own = owner_pod(&index, None, Some(&format!("/docker/{node}/kubelet.slice/kubelet.service")), 1);
        assert!(matches!(own, OwnerPod::NotListed { .. }), "{own:?}");
    }

    // open-telemetry/opentelemetry-ebpf-instrumentation#481
    #[test]
    fn a_path_without_uid_is_resolved_by_the_container_id() {
        expect(&index(vec![web()]), &format!("/k8s.io/{}", id("a")), "web", Some("nginx"));
    }

    // cilium/tetragon#2639, #2776; cri-o/cri-o#811
    #[test]
    fn a_sub_cgroup_is_the_container_and_its_monitor_is_only_in_the_pod() {
        let index = index(vec![web()]);
        let pod = format!("/kubepods.slice/{SLICE}");
        expect(&index, &format!("{pod}/crio-{}.scope/container", id("a")), "web", Some("nginx"));
        expect(&index, &format!("{pod}/crio-conmon-{}.scope", id("a")), "web", None);
    }

    #[test]
    fn a_static_pod_is_found_by_its_config_hash() {
        let mut etcd = host_pod("etcd-node-a", 2379);
        etcd.config_hash = Some(HASH.to_owned());
        let cgroup =
            format!("/kubepods.slice/kubepods-burstable-pod{HASH}.slice/cri-containerd-{}.scope", id("e"));
        expect(&index(vec![etcd]), &cgroup, "etcd-node-a", None);
    }

    #[test]
    fn id_and_path_that_name_different_pods_name_none() {
        let mut other = pod("default", "other", &[]);
        other.containers[0].id = Some(id("b"));
        let index = index(vec![web(), other]);
        let cgroup = format!("/kubepods.slice/{SLICE}/crio-{}.scope", id("b"));
        match owner_pod(&index, None, Some(&cgroup), 1) {
            OwnerPod::Ambiguous(pods) => assert_eq!(pods.len(), 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unlisted_container_is_said_to_be_one_and_a_host_process_is_none() {
        let index = index(vec![web()]);
        let what = |cgroup: &str| match owner_pod(&index, None, Some(cgroup), 1) {
            OwnerPod::NotListed { what } => what,
            other => format!("{other:?}"),
        };
        assert_eq!(what(&format!("/k8s.io/{}", id("d"))), "container dddddddddddd");
        assert_eq!(what(&format!("/kubepods/pod{HASH}")), format!("pod uid {HASH}"));
        assert_eq!(what("/system.slice/sshd.service"), "NoContainer");
        assert!(matches!(owner_pod(&index, None, None, 1), OwnerPod::NoContainer));
    }
}
