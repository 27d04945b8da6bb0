//! Which container and which pod a cgroup path names. Pure: text in, facts out.
//!
//! A path says this in many spellings (systemd or cgroupfs driver, one runtime inside another, a sub-cgroup below
//! the container). Every component is read from the outside in; the innermost statement wins.

/// Hex digits of a container id.
const CONTAINER_ID_LEN: usize = 64;

/// What a cgroup path says. What it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupInfo {
    /// The path, as the kernel prints it in the reader's cgroup namespace.
    pub path: Option<String>,
    /// Innermost container id, 64 hex digits, without the runtime's prefix. The monitor of a container (conmon)
    /// is not in that container and has none.
    pub container_id: Option<String>,
    /// UID of the innermost pod. For a static pod this is the hash of its manifest (32 hex digits), which the
    /// API server shows as the annotation `kubernetes.io/config.hash`.
    pub pod_uid: Option<String>,
}

impl CgroupInfo {
    /// How much it says: the container counts more than the pod, and any path more than the root.
    fn weight(&self) -> u8 {
        let below_root = self.path.as_deref().is_some_and(|path| !path.trim_matches('/').is_empty());
        (u8::from(self.container_id.is_some()) << 2)
            | (u8::from(self.pod_uid.is_some()) << 1)
            | u8::from(below_root)
    }
}

/// Reads the content of `/proc/PID/cgroup` (v1, v2 or both) and returns what its first most informative line says.
pub fn container_of(proc_pid_cgroup_text: &str) -> CgroupInfo {
    let mut best = CgroupInfo::default();
    for line in proc_pid_cgroup_text.lines() {
        // hierarchy id ':' controllers ':' path; only the path may contain a colon itself.
        let Some(path) = line.splitn(3, ':').nth(2) else { continue };
        let info = container_of_path(path);
        if best.path.is_none() || info.weight() > best.weight() {
            best = info;
        }
    }
    best
}

/// What one cgroup path says.
pub fn container_of_path(path: &str) -> CgroupInfo {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let mut info = CgroupInfo { path: Some(path.to_owned()), ..CgroupInfo::default() };
    // Where kubelet and containerd disagree about the driver, the last component reads `<slice>:cri-containerd:<id>`.
    for component in path.split(['/', ':']) {
        if let Some(uid) = pod_uid(component) {
            // An id further out belongs to the machine that runs this pod (kind), not to the pod.
            info.container_id = None;
            info.pod_uid = Some(uid);
        } else {
            match container_id(component) {
                Named::Container(id) => info.container_id = Some(id.to_owned()),
                Named::Monitor => info.container_id = None,
                Named::Nothing => {}
            }
        }
    }
    info
}

enum Named<'a> {
    Container(&'a str),
    Monitor,
    Nothing,
}

/// `<id>`, `<runtime>-<id>` or `<runtime>-<id>.scope`.
fn container_id(component: &str) -> Named<'_> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let Some((runtime, id)) =
        name.len().checked_sub(CONTAINER_ID_LEN).and_then(|prefix| name.split_at_checked(prefix))
    else {
        return Named::Nothing;
    };
    if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Named::Nothing;
    }
    match runtime.strip_suffix('-') {
        None if runtime.is_empty() => Named::Container(id),
        None => Named::Nothing,
        Some(runtime) if runtime.ends_with("conmon") => Named::Monitor,
        Some(_) => Named::Container(id),
    }
}

/// `pod<uid>` (cgroupfs driver) or `…kubepods[-<class>]-pod<uid>.slice` (systemd driver, '-' of the uid as '_').
fn pod_uid(component: &str) -> Option<String> {
    let uid = if let Some(slice) = component.strip_suffix(".slice") {
        let (parent, uid) = slice.rsplit_once("-pod")?;
        parent.contains("kubepods").then_some(uid)?
    } else {
        component.strip_prefix("pod")?
    };
    let uid = uid.replace('_', "-");
    let groups: Vec<usize> = uid.split('-').map(str::len).collect();
    let shaped = matches!(groups.as_slice(), [8, 4, 4, 4, 12] | [32]);
    (shaped && uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())).then_some(uid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const NODE: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
    const UID: &str = "12345678-1234-4321-abcd-1234567890ab";
    const UID_SLICE: &str = "12345678_1234_4321_abcd_1234567890ab";

    #[track_caller]
    fn expect(text: &str, id: Option<&str>, uid: Option<&str>) -> CgroupInfo {
        let info = container_of(text);
        assert_eq!(info.container_id.as_deref(), id, "container id of {text}");
        assert_eq!(info.pod_uid.as_deref(), uid, "pod uid of {text}");
        info
    }

    // kinvolk/traceloop#33, #34
    #[test]
    fn crio_scope_on_v1_after_uninformative_controllers() {
        let path = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_SLICE}.slice/crio-{ID}.scope"
        );
        let info =
            expect(&format!("11:files:/\n10:pids:/\n1:name=systemd:{path}\n0::/\n"), Some(ID), Some(UID));
        assert_eq!(info.path.as_deref(), Some(path.as_str()));
    }

    // opencontainers/runc#4620
    #[test]
    fn cgroupfs_driver_and_docker_scope() {
        expect(&format!("4:memory:/kubepods/besteffort/pod{UID}/{ID}\n"), Some(ID), Some(UID));
        expect(&format!("0::/system.slice/docker-{ID}.scope\n"), Some(ID), None);
    }

    // kind nodes: a pod inside a container
    #[test]
    fn innermost_container_of_a_kind_node() {
        let slice = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice";
        let pod = format!("/docker/{NODE}/{slice}/kubelet-kubepods-besteffort-pod{UID_SLICE}.slice");
        expect(&format!("0::{pod}/cri-containerd-{ID}.scope"), Some(ID), Some(UID));
        expect(&format!("0::{pod}"), None, Some(UID));
        expect(&format!("0::/docker/{NODE}/kubelet.slice/kubelet.service"), Some(NODE), None);
    }

    // open-telemetry/opentelemetry-ebpf-instrumentation#481
    #[test]
    fn containerd_namespace_without_pod_and_guaranteed_class() {
        expect(&format!("0::/k8s.io/{ID}"), Some(ID), None);
        let slice = format!("/kubepods.slice/kubepods-pod{UID_SLICE}.slice/cri-containerd-{ID}.scope");
        expect(&format!("0::{slice}"), Some(ID), Some(UID));
    }

    // cilium/tetragon#2639, #2776
    #[test]
    fn crun_puts_processes_into_a_sub_cgroup() {
        let pod = format!("/kubepods.slice/kubepods-pod{UID_SLICE}.slice");
        expect(&format!("0::{pod}/crio-{ID}.scope/container"), Some(ID), Some(UID));
    }

    // cri-o/cri-o#811
    #[test]
    fn conmon_is_the_monitor_and_not_in_the_container() {
        let pod = format!("/kubepods.slice/kubepods-pod{UID_SLICE}.slice");
        expect(&format!("0::{pod}/crio-conmon-{ID}.scope"), None, Some(UID));
        expect(&format!("0::/docker/{NODE}/system.slice/crio-conmon-{ID}.scope"), None, None);
    }

    // google/cadvisor#3538, cilium/tetragon#1959, pixie-io/pixie#435
    #[test]
    fn no_scope_suffix_and_no_fixed_controllers() {
        expect(&format!("0::/kubepods/pod{UID}/{ID}"), Some(ID), Some(UID));
        expect(&format!("3:rdma,misc:/kubepods/burstable/pod{UID}/{ID}"), Some(ID), Some(UID));
    }

    #[test]
    fn disagreeing_cgroup_drivers() {
        let last = format!("kubepods-besteffort-pod{UID_SLICE}.slice:cri-containerd:{ID}");
        let text = format!("0::/system.slice/containerd.service/{last}");
        let info = expect(&text, Some(ID), Some(UID));
        assert!(info.path.is_some_and(|path| path.ends_with(&last)));
    }

    #[test]
    fn static_pods_have_a_hash_for_uid() {
        let hash = "0123456789abcdef0123456789abcdef";
        let text = format!("0::/kubepods.slice/kubepods-burstable-pod{hash}.slice/cri-containerd-{ID}.scope");
        expect(&text, Some(ID), Some(hash));
    }

    #[test]
    fn hybrid_hierarchy_with_the_container_on_v1_only() {
        let text = format!("1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n");
        expect(&text, Some(ID), None);
    }

    #[test]
    fn host_processes_have_a_path_and_nothing_else() {
        let info = expect("12:cpu:/\n0::/system.slice/kubelet.service\n", None, None);
        assert_eq!(info.path.as_deref(), Some("/system.slice/kubelet.service"));
        assert_eq!(expect("0::/\n", None, None).path.as_deref(), Some("/"));
        assert_eq!(expect("", None, None).path, None);
    }

    #[test]
    fn look_alikes_are_no_ids() {
        expect(&format!("0::/x/{}", ID.get(1..).unwrap()), None, None);
        expect(&format!("0::/x/a{ID}"), None, None);
        expect(&format!("0::/machine.slice/machine-libpod_pod_{ID}.slice"), None, None);
        expect("0::/podium/pod12345678", None, None);
    }

    #[test]
    fn removed_cgroup_keeps_its_id() {
        let info = expect(&format!("0::/docker/{ID} (deleted)"), Some(ID), None);
        assert_eq!(info.path, Some(format!("/docker/{ID}")));
    }

    proptest! {
        #[test]
        fn ids_are_64_hex_digits_whatever_the_text(
            text in r"([0-9]{0,2}:?[a-z=,]{0,6}:?(/?(\PC{0,8}|[0-9a-f]{62,66}|crio-|pod|\.scope|-)){0,6}\n?){0,4}",
        ) {
            if let Some(id) = container_of(&text).container_id {
                prop_assert_eq!(id.len(), 64);
                prop_assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
                prop_assert!(text.contains(&id));
            }
        }

        #[test]
        fn any_id_below_any_prefix_is_found(id in "[0-9a-f]{64}", runtime in "(docker-|crio-|cri-containerd-|libpod-)?", tail in "(/[a-z]{1,9}){0,2}") {
            let info = container_of(&format!("0::/a.slice/{runtime}{id}.scope{tail}"));
            prop_assert_eq!(info.container_id, Some(id));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in any::<String>()) {
            let _ = container_of(&text);
        }
    }
}
