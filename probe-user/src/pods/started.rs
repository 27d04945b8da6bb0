//! Whether a container had passed its startup probe at some time. Pure.
//!
//! kubelet runs the startup probe until it succeeds, and the other two only after that (pkg/kubelet/prober/worker.go,
//! `doProbe`). `started` goes from false to true once in the life of a container; a restart makes a new container with
//! a new id.

use std::collections::VecDeque;

use crate::kubernetes::pod::{Container, Pod, ProbeType};
use crate::observation::Nanos;

/// States that are remembered per pod.
const MAX_SEEN: usize = 16;

/// What the lists said, the newest last. Only of containers with a startup probe.
#[derive(Debug, Default)]
pub(super) struct Starts(VecDeque<Seen>);

/// One state of a container, and the times of the first and the last list that had it.
#[derive(Debug)]
struct Seen {
    container: String,
    id: Option<String>,
    started: Option<bool>,
    first: Nanos,
    last: Nanos,
}

impl Starts {
    /// Takes the pod as it is at `now`.
    pub(super) fn see(&mut self, pod: &Pod, now: Nanos) {
        for container in pod.containers.iter().filter(|container| has_startup_probe(container)) {
            let mut known = self.0.iter_mut().rev();
            let newest = known.find(|seen| seen.container == container.name);
            match newest.filter(|seen| seen.id == container.id && seen.started == container.started) {
                Some(seen) => seen.last = now,
                None => self.0.push_back(Seen {
                    container: container.name.clone(),
                    id: container.id.clone(),
                    started: container.started,
                    first: now,
                    last: now,
                }),
            }
        }
        while self.0.len() > MAX_SEEN {
            self.0.pop_front();
        }
    }

    /// Whether kubelet may have run this kind of probe of the container at that time. What lies between two different
    /// states, or before the first, is not known, and neither is how long a container that had not started stayed so.
    pub(super) fn may_run(&self, container: &Container, kind: ProbeType, at: Nanos) -> bool {
        let mut of = self.0.iter().rev().filter(|seen| seen.container == container.name).peekable();
        let mut newest = true;
        while of.next_if(|seen| seen.first > at).is_some() {
            newest = false;
        }
        let Some(seen) = of.next() else { return true };
        let lasted = at <= seen.last;
        match (kind, seen.started) {
            (ProbeType::Startup, Some(true)) => !(lasted || newest),
            (ProbeType::Liveness | ProbeType::Readiness, Some(false)) => !lasted,
            _ => true,
        }
    }
}

fn has_startup_probe(container: &Container) -> bool {
    container.probes.iter().any(|probe| probe.kind == ProbeType::Startup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::samples::{http, pod, probe};

    const KINDS: [ProbeType; 3] = [ProbeType::Startup, ProbeType::Liveness, ProbeType::Readiness];

    fn with(id: char, started: Option<bool>) -> Pod {
        let mut pod = pod("default", "web", &["10.0.0.1"]);
        pod.containers[0].id = Some(id.to_string().repeat(64));
        pod.containers[0].started = started;
        pod.containers[0].probes = KINDS.map(|kind| probe(kind, http(80), 10, 1)).into();
        pod
    }

    /// Startup, liveness, readiness.
    fn run(history: &[(Nanos, Pod)], at: Nanos) -> [bool; 3] {
        let mut starts = Starts::default();
        for (now, pod) in history {
            starts.see(pod, *now);
        }
        KINDS.map(|kind| starts.may_run(&history[0].1.containers[0], kind, at))
    }

    const ALL: [bool; 3] = [true; 3];
    const STARTING: [bool; 3] = [true, false, false];
    const STARTED: [bool; 3] = [false, true, true];

    #[test]
    fn the_startup_probe_has_ended_once_the_container_has_started() {
        let history = [(10, with('a', Some(true)))];
        assert_eq!(run(&history, 10), STARTED);
        assert_eq!(run(&history, 50), STARTED, "it does not start again");
        assert_eq!(run(&history, 9), ALL, "before the first list nothing is known");
    }

    #[test]
    fn the_other_probes_wait_for_the_startup_probe() {
        let history = [(10, with('a', Some(false))), (20, with('a', Some(false)))];
        assert_eq!(run(&history, 15), STARTING);
        assert_eq!(run(&history, 21), ALL, "it may have started since");
        let history = [(10, with('a', Some(false))), (20, with('a', Some(true)))];
        assert_eq!([10, 15, 20].map(|at| run(&history, at)), [STARTING, ALL, STARTED]);
    }

    #[test]
    fn a_restart_runs_the_startup_probe_again() {
        let history =
            [(10, with('a', Some(true))), (20, with('a', Some(true))), (30, with('b', Some(false)))];
        assert_eq!([15, 25, 30].map(|at| run(&history, at)), [STARTED, ALL, STARTING]);
        // Restarted and started again between two lists.
        let history = [(10, with('a', Some(true))), (30, with('b', Some(true)))];
        assert_eq!([10, 25, 30].map(|at| run(&history, at)), [STARTED, ALL, STARTED]);
    }

    #[test]
    fn all_are_kept_where_the_list_does_not_tell() {
        assert_eq!(run(&[(10, with('a', None))], 10), ALL);
        let mut plain = with('a', Some(false));
        plain.containers[0].probes.remove(0);
        assert_eq!(run(&[(10, plain)], 10), ALL, "without a startup probe `started` decides nothing");
    }

    #[test]
    fn the_history_is_bounded() {
        let mut starts = Starts::default();
        for now in 0..1000 {
            starts.see(&with('a', Some(now % 2 == 0)), now);
        }
        assert_eq!(starts.0.len(), MAX_SEEN);
        assert!(starts.may_run(&with('a', None).containers[0], ProbeType::Liveness, 998));
    }
}
