//! The pods of those who connect. Pure: the index and the time are handed in.

use super::model::Owner;
use crate::node::cgroup::container_of_path;
use crate::observation::Nanos;
use crate::pods::index::PodIndex;
use crate::pods::naming::named;
use crate::pods::owner::{OwnerPod, owner_pod};

/// Fills in an owner's pod, as the index has it at time `at`. A name that was found stays when the index has forgotten
/// the pod: ids of containers and pods are never used again. Where the index names several, none is told.
pub fn name(owner: &mut Owner, index: &PodIndex, at: Nanos) {
    match owner_pod(index, owner.container_id.as_deref(), owner.cgroup.as_deref(), at) {
        OwnerPod::One { known, .. } => owner.pod = Some(named(known)),
        OwnerPod::Ambiguous(_) => owner.pod = None,
        OwnerPod::NotListed { .. } | OwnerPod::NoContainer => {}
    }
}

/// Whether an owner runs in a pod for certain and still has no name of one: its cgroup is a pod's.
pub fn is_unnamed(owner: &Owner) -> bool {
    let cgroup = owner.cgroup.as_deref().filter(|_| owner.pod.is_none());
    cgroup.is_some_and(|path| container_of_path(path).pod_uid.is_some())
}

/// Why pods are not named: what keeps the sources from it, in one sentence. `None`: every source answered, or nobody
/// was asked.
pub fn trouble(index: &PodIndex) -> Option<String> {
    let sources = index.sources().iter();
    let mut all = sources
        .flat_map(|(kind, state)| state.complaints().into_iter().map(move |text| format!("{kind}: {text}")));
    let first = all.next()?;
    Some(all.fold(first, |sentence, next| format!("{sentence}; {next}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::index::KEEP_NS;
    use crate::pods::samples::pod;
    use crate::pods::update::{PodSourceKind, PodUpdate};

    const UID: &str = "12345678-1234-4321-abcd-1234567890ab";
    const SLICE: &str = "kubepods-burstable-pod12345678_1234_4321_abcd_1234567890ab.slice";

    fn owner(letter: &str) -> Owner {
        let id = letter.repeat(64);
        let cgroup = format!("/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{id}.scope");
        Owner { container_id: Some(id), cgroup: Some(cgroup), ..Owner::default() }
    }

    fn list(index: &mut PodIndex, pods: Vec<crate::kubernetes::pod::Pod>, at: Nanos) {
        index.apply(PodUpdate::All { source: PodSourceKind::Kubelet, pods, unreadable: Vec::new() }, at);
    }

    fn dns() -> crate::kubernetes::pod::Pod {
        let mut dns = pod("kube-system", "node-local-dns-x7k2p", &["10.0.0.1"]);
        dns.uid = Some(UID.to_owned());
        dns.containers[0].id = Some("a".repeat(64));
        dns
    }

    fn name_of(owner: &Owner) -> Option<&str> {
        owner.pod.as_ref().map(|pod| pod.name.as_str())
    }

    #[test]
    fn a_name_that_comes_late_is_filled_in_and_outlives_the_list() {
        let mut index = PodIndex::new();
        let mut owner = owner("a");
        name(&mut owner, &index, 1);
        assert_eq!((name_of(&owner), is_unnamed(&owner)), (None, true));
        list(&mut index, vec![dns()], 2);
        name(&mut owner, &index, 3);
        assert_eq!((name_of(&owner), is_unnamed(&owner)), (Some("node-local-dns-x7k2p"), false));
        assert_eq!(owner.pod.as_ref().map(|pod| pod.namespace.as_str()), Some("kube-system"));
        assert_eq!(owner.pod.as_ref().and_then(|pod| pod.uid.as_deref()), Some(UID));
        list(&mut index, Vec::new(), 4);
        index.expire(5 + KEEP_NS);
        name(&mut owner, &index, 6 + KEEP_NS);
        assert_eq!(name_of(&owner), Some("node-local-dns-x7k2p"));
    }

    #[test]
    fn a_container_that_no_list_has_yet_is_named_by_its_cgroup() {
        let mut index = PodIndex::new();
        list(&mut index, vec![dns()], 1);
        let mut restarted = owner("b");
        name(&mut restarted, &index, 2);
        assert_eq!(name_of(&restarted), Some("node-local-dns-x7k2p"));
    }

    #[test]
    fn of_two_pods_none_is_told_and_who_is_in_no_pod_lacks_none() {
        let mut index = PodIndex::new();
        let mut other = pod("default", "web", &["10.0.0.2"]);
        other.containers[0].id = Some("c".repeat(64));
        list(&mut index, vec![dns(), other], 1);
        let mut torn = owner("a");
        torn.container_id = Some("c".repeat(64));
        name(&mut torn, &index, 2);
        assert_eq!(torn.pod, None, "the id is of one pod, the cgroup of another");
        let mut kubelet = Owner { cgroup: Some("/system.slice/kubelet.service".into()), ..Owner::default() };
        name(&mut kubelet, &index, 2);
        assert_eq!((name_of(&kubelet), is_unnamed(&kubelet)), (None, false));
    }

    #[test]
    fn what_keeps_sources_from_naming_pods_is_one_sentence() {
        let mut index = PodIndex::new();
        assert_eq!(trouble(&index), None);
        for (source, reason) in [(PodSourceKind::Kubelet, "no token"), (PodSourceKind::Cri, "no socket")] {
            index.apply(PodUpdate::Trouble { source, reason: reason.into() }, 1);
        }
        assert_eq!(trouble(&index).as_deref(), Some("kubelet: no token; cri: no socket"));
    }
}
