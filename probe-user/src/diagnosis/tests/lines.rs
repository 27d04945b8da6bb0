//! The kubelet's log lines and the connections they are about.

use std::sync::Arc;

use super::make::*;
use crate::diagnosis::incident::{Incident, Outcome, Verdict};
use crate::diagnosis::{Diagnosis, Settings, Update};
use crate::kubelet_log::{FailureClass, ProbeFailure};
use crate::observation::{Fact, Nanos, Observation, Owner, Tuple};

const WAIT: Nanos = 2000 * MS;

fn waiting() -> Diagnosis {
    Diagnosis::new(Settings { log_wait_ns: WAIT, ..Settings::default() })
}

/// Concluded incidents, failures elsewhere, ambiguous ones.
fn outcome(observations: impl IntoIterator<Item = Observation>) -> (Vec<Incident>, u64, u64) {
    let mut diagnosis = waiting();
    let mut updates = Vec::new();
    for observation in observations {
        updates.extend(diagnosis.observe(observation));
    }
    updates.extend(diagnosis.finish(START + 3_600_000 * MS));
    assert_eq!(diagnosis.state.sizes(), [0; 4]);
    assert!(diagnosis.state.indexes_are_empty());
    (concluded(updates), diagnosis.probe_failures_elsewhere(), diagnosis.probe_failures_ambiguous())
}

fn vary(observation: &Observation, change: impl FnOnce(&mut ProbeFailure)) -> Observation {
    let Fact::ProbeFailed { failure, targets } = &observation.fact else { panic!("{observation:?}") };
    let mut failure = (**failure).clone();
    change(&mut failure);
    Observation {
        fact: Fact::ProbeFailed { failure: Arc::new(failure), targets: targets.clone() },
        ..observation.clone()
    }
}

/// Another connect of the node to the same pod, from a port that is a service too.
fn other(port: u16, isn: u32) -> (Tuple, Fact) {
    let tuple = Tuple { local: sock(&format!("10.23.77.129:{port}")), remote: sock(POD) };
    let began = Fact::ConnectBegan {
        tuple,
        netns: Some(HOST),
        isn: Some(isn),
        socket: Some(u64::from(port)),
        owner: Some(kubelet()),
        service: Some(Arc::new(service(&tuple.local.to_string(), &[BACKEND]))),
    };
    (tuple, began)
}

fn closed(tuple: Tuple) -> Fact {
    Fact::Died { tuple, netns: Some(HOST), socket: Some(u64::from(tuple.local.port())), errno: 0 }
}

#[test]
fn the_line_is_in_the_incident_in_whatever_order_it_comes() {
    let facts = [at(0, began()), at(0, hijacked()), at(2000, died(0)), logged(2001)];
    let in_order = outcome(facts.clone());
    let (incidents, elsewhere, ambiguous) = &in_order;
    assert_eq!((incidents.len(), *elsewhere, *ambiguous), (1, 0, 0));
    let line = &incidents[0].log_lines[0];
    assert_eq!(
        (line.file.as_str(), line.line, line.at.as_str()),
        ("kubelet.log", Some(7), "2022-09-15T19:09:04.534940000Z")
    );
    assert_eq!(
        texts(&incidents[0]).last(),
        Some(
            &"the kubelet logged that the readiness probe of container nginx in pod default/nginx failed with a timeout"
        )
    );
    for n in 0..4 {
        let mut turned = facts.clone();
        turned.rotate_left(n);
        assert_eq!(outcome(turned), in_order);
    }
}

#[test]
fn a_connection_is_kept_for_its_line_only_where_a_log_is_read() {
    for (mut diagnosis, wait) in [(waiting(), WAIT), (Diagnosis::new(Settings::default()), 0)] {
        for fact in [at(0, began()), at(0, hijacked()), at(2000, died(0))] {
            diagnosis.observe(fact);
        }
        let due = START + 2250 * MS + wait;
        assert!(concluded(diagnosis.advance(due - 1)).is_empty());
        assert_eq!(concluded(diagnosis.advance(due)).len(), 1);
    }
}

#[test]
fn waiting_for_the_line_delays_no_verdict() {
    let mut diagnosis = waiting();
    for fact in [at(0, began()), at(10, died(110))] {
        diagnosis.observe(fact);
    }
    let due = diagnosis.next_deadline().unwrap();
    assert_eq!(due, START + 260 * MS);
    assert!(
        matches!(&diagnosis.advance(due)[..], [Update::Clear(incident)] if incident.log_lines.is_empty())
    );
    diagnosis.observe(logged(11));
    let due = diagnosis.next_deadline().unwrap();
    assert_eq!(due, START + 260 * MS + WAIT);
    assert_eq!(concluded(diagnosis.advance(due))[0].log_lines.len(), 1);
}

#[test]
fn the_missing_line_vetoes_nothing() {
    let (incidents, elsewhere, _) = outcome([at(0, began()), at(0, hijacked()), at(2000, died(0))]);
    assert_eq!((incidents[0].verdict, incidents[0].log_lines.len(), elsewhere), (Verdict::Collision, 0, 0));
}

// midbai.com, "many pod probes failing after upgrading Kubernetes"
#[test]
fn a_line_alone_is_no_incident() {
    assert_eq!(outcome([logged(2000)]), (Vec::new(), 1, 0));
    let mut diagnosis = waiting();
    assert!(diagnosis.observe(logged(0)).is_empty());
    let due = diagnosis.next_deadline().unwrap();
    assert_eq!((diagnosis.advance(due), diagnosis.next_deadline()), (Vec::new(), None));
    assert_eq!(diagnosis.probe_failures_elsewhere(), 1);
}

#[test]
fn a_slow_server_is_no_collision_although_the_port_is_a_service() {
    let (incidents, elsewhere, _) = outcome([at(0, began()), at(1, established()), logged(2000)]);
    assert_eq!((incidents[0].outcome, incidents[0].log_lines.len(), elsewhere), (Outcome::Survived, 0, 1));
}

#[test]
fn what_an_unanswered_connection_cannot_cause_is_about_something_else() {
    for class in
        [FailureClass::HttpStatus(503), FailureClass::Exec, FailureClass::Empty, FailureClass::Unreachable]
    {
        let line = vary(&logged(2001), |failure| failure.class = class);
        let (incidents, elsewhere, _) = outcome([at(0, began()), at(2000, died(0)), line]);
        assert_eq!((incidents[0].log_lines.len(), elsewhere), (0, 1), "{class:?}");
    }
}

#[test]
fn another_pod_another_time_and_another_port_do_not_fit() {
    let target = vary(&logged(2001), |failure| failure.target = Some(sock("10.23.77.138:81")));
    let source = vary(&logged(2001), |failure| failure.source = Some(sock("10.23.77.129:36705")));
    for line in [target, source, logged(5000), logged(1000), logged(-1000)] {
        let (incidents, elsewhere, _) = outcome([at(0, began()), at(2000, died(0)), line.clone()]);
        assert_eq!((incidents[0].log_lines.len(), elsewhere), (0, 1), "{line:?}");
    }
}

#[test]
fn a_line_without_target_is_joined_by_the_pods_targets() {
    let targets = vec![sock("10.23.77.138:443"), sock("[::ffff:10.23.77.138]:80")];
    let line = at(2001, Fact::ProbeFailed { failure: probe_failure(2001), targets });
    let (incidents, elsewhere, _) = outcome([at(0, began()), at(2000, died(0)), line]);
    assert_eq!((incidents[0].log_lines.len(), elsewhere), (1, 0));
}

#[test]
fn the_port_in_the_message_decides() {
    let (tuple, second) = other(36_705, 7);
    let line = vary(&logged(2000), |failure| failure.source = Some(sock(LOCAL)));
    let (incidents, ..) =
        outcome([at(0, began()), at(10, second), at(1990, died(0)), at(2000, closed(tuple)), line]);
    let logged: Vec<_> = incidents.iter().map(|incident| incident.log_lines.len()).collect();
    assert_eq!(logged, [1, 0]);
}

#[test]
fn the_connection_that_ended_when_the_line_was_written_is_the_one() {
    // Liveness and readiness of one port, 300 ms apart.
    let (tuple, second) = other(36_705, 7);
    let facts = [
        at(0, began()),
        at(300, second),
        at(2000, died(0)),
        at(2300, closed(tuple)),
        logged(2301),
        logged(2002),
    ];
    let (incidents, elsewhere, ambiguous) = outcome(facts);
    let lines: Vec<_> =
        incidents.iter().map(|incident| incident.log_lines[0].text.rsplit(' ').next().unwrap()).collect();
    assert_eq!((lines, elsewhere, ambiguous), (vec!["2002", "2301"], 0, 0));
}

#[test]
fn several_connections_that_fit_equally_well_get_none() {
    let (tuple, second) = other(36_705, 7);
    let facts = [at(0, began()), at(1, second), at(2000, died(0)), at(2001, closed(tuple)), logged(2002)];
    let (incidents, elsewhere, ambiguous) = outcome(facts);
    assert!(incidents.iter().all(|incident| incident.log_lines.is_empty()));
    assert_eq!((incidents.len(), elsewhere, ambiguous), (2, 0, 1));
}

#[test]
fn one_line_is_about_one_connection_and_one_connection_has_one_line() {
    let facts = [at(0, began()), at(2000, died(0)), logged(2001), logged(2100)];
    let (incidents, elsewhere, ambiguous) = outcome(facts);
    assert_eq!((incidents[0].log_lines.len(), elsewhere, ambiguous), (1, 1, 0));
    assert!(incidents[0].log_lines[0].text.ends_with("2001"));
}

#[test]
fn a_line_that_its_connection_has_no_use_for_goes_to_no_other() {
    let elsewhere = Tuple { local: sock("10.23.77.129:36705"), remote: sock("10.23.77.140:80") };
    let second = Fact::ConnectBegan {
        tuple: elsewhere,
        netns: Some(HOST),
        isn: Some(7),
        socket: None,
        owner: Some(kubelet()),
        service: None,
    };
    let line = |targets: &[&str]| {
        let targets = targets.iter().map(|target| sock(target)).collect();
        at(3000, Fact::ProbeFailed { failure: probe_failure(3000), targets })
    };
    // Both are about the first, which ended 1 s before; one of them would fit the second, whose end nobody saw.
    let both = line(&[POD, "10.23.77.140:80"]);
    let facts = [at(0, began()), at(1000, second), at(2000, died(0)), line(&[POD]), both];
    for n in 0..facts.len() {
        let mut turned = facts.clone();
        turned.rotate_left(n);
        for swapped in [false, true] {
            if swapped {
                turned.reverse();
            }
            let (incidents, elsewhere, ambiguous) = outcome(turned.clone());
            let lines: Vec<_> =
                incidents.iter().map(|incident| (incident.outcome, incident.log_lines.len())).collect();
            assert_eq!(lines, [(Outcome::Failed, 1), (Outcome::Pending, 0)]);
            assert_eq!((elsewhere, ambiguous), (1, 0));
        }
    }
}

#[test]
fn a_line_that_comes_after_the_conclusion_is_not_about_what_is_still_open() {
    let (_, second) = other(36_705, 7);
    // The second is open until its end was waited for in vain: by then the first is forgotten.
    for seconds in [9, 150] {
        let mut diagnosis = waiting();
        for fact in [at(0, began()), at(100, second.clone()), at(2000, died(0))] {
            diagnosis.observe(fact);
        }
        assert_eq!(concluded(diagnosis.advance(START + 9000 * MS)).len(), 1);
        diagnosis.observe(logged(2001));
        diagnosis.advance(START + seconds * 1000 * MS);
        let incidents = concluded(diagnosis.finish(START + 600_000 * MS));
        assert!(incidents[0].log_lines.is_empty());
        assert_eq!(diagnosis.unjoined().get("log_line"), Some(&1), "{seconds}");
        assert_eq!((diagnosis.probe_failures_elsewhere(), diagnosis.probe_failures_ambiguous()), (0, 0));
    }
}

#[test]
fn a_connection_that_fits_less_does_not_decide_between_two_that_fit_equally_well() {
    let ((tuple, second), (_, third)) = (other(36_705, 7), other(36_706, 8));
    let line = vary(&logged(12_000), |failure| failure.timeout_ns = Some(10_000 * MS));
    let mut diagnosis = waiting();
    for fact in [at(500, began()), at(500, hijacked()), at(2000, second), at(2000, third), line] {
        diagnosis.observe(fact);
    }
    assert_eq!(concluded(diagnosis.advance(START + 12_600 * MS)).len(), 1);
    diagnosis.observe(at(12_000, closed(tuple)));
    let incidents = concluded(diagnosis.finish(START + 600_000 * MS));
    assert_eq!(incidents.iter().map(|incident| incident.log_lines.len()).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn without_the_end_of_the_connection_the_timeout_decides() {
    // A capture has no sockets.
    let (_, second) = other(36_705, 7);
    let grpc = vary(&logged(12_000), |failure| failure.timeout_ns = Some(2000 * MS));
    let facts = [at(0, began()), at(10_000, second)];
    let (incidents, ..) = outcome(facts.clone().into_iter().chain([grpc]));
    assert_eq!(incidents.iter().map(|incident| incident.log_lines.len()).collect::<Vec<_>>(), [0, 1]);
    let (_, elsewhere, ambiguous) = outcome(facts.into_iter().chain([logged(12_000)]));
    assert_eq!((elsewhere, ambiguous), (0, 1), "2 s or 12 s");
    for (ms, joined) in [(400, 0), (1000, 1), (60_500, 1), (63_000, 0)] {
        assert_eq!(outcome([at(0, began()), logged(ms)]).0[0].log_lines.len(), joined, "{ms}");
    }
}

#[test]
fn a_connect_of_a_pod_is_not_the_kubelets() {
    let owner = |cgroup: &str| Some(Arc::new(Owner { cgroup: Some(cgroup.to_owned()), ..Owner::default() }));
    for (cgroup, joined) in [
        ("/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope", 0),
        ("/kubelet.slice/kubelet.service", 1),
        ("/kubepods/pod1/2/kubelet.slice/kubelet.service", 1),
    ] {
        let Fact::ConnectBegan { tuple, netns, isn, socket, service, .. } = began() else { panic!() };
        let began = Fact::ConnectBegan { tuple, netns, isn, socket, owner: owner(cgroup), service };
        let (incidents, ..) = outcome([at(0, began), at(2000, died(0)), logged(2001)]);
        assert_eq!(incidents[0].log_lines.len(), joined, "{cgroup}");
    }
}

#[test]
fn a_line_that_comes_after_the_conclusion_is_late_and_not_about_something_else() {
    let mut diagnosis = waiting();
    for fact in [at(0, began()), at(2000, died(0))] {
        diagnosis.observe(fact);
    }
    assert_eq!(concluded(diagnosis.advance(START + 9000 * MS)).len(), 1);
    diagnosis.observe(logged(2001));
    diagnosis.finish(START + 20_000 * MS);
    assert_eq!(diagnosis.probe_failures_elsewhere(), 0);
    assert_eq!(diagnosis.unjoined().get("log_line"), Some(&1));
}

#[test]
fn a_line_waits_for_a_connection_that_is_open_and_wakes_nobody_meanwhile() {
    let mut diagnosis = waiting();
    for fact in [at(0, began()), logged(30_000)] {
        diagnosis.observe(fact);
    }
    let mut wakes = 0;
    let mut updates = Vec::new();
    while let Some(deadline) = diagnosis.next_deadline() {
        wakes += 1;
        assert!(wakes < 10, "{deadline}");
        updates.extend(diagnosis.advance(deadline));
    }
    assert_eq!(concluded(updates)[0].log_lines.len(), 1);
}

#[test]
fn a_clear_verdict_has_the_line_if_it_came_before() {
    let mut diagnosis = waiting();
    for fact in [at(0, began()), logged(2000), at(2000, hijacked())] {
        diagnosis.observe(fact);
    }
    let updates = diagnosis.advance(START + 2500 * MS);
    assert!(
        matches!(&updates[..], [Update::Clear(incident)] if incident.log_lines.len() == 1),
        "{updates:?}"
    );
}

#[test]
fn lines_are_bounded() {
    let mut diagnosis = waiting();
    for n in 0..10_000 {
        diagnosis.observe(logged(n));
    }
    assert_eq!(diagnosis.state.lines.len(), 4096);
    assert_eq!(diagnosis.probe_failures_elsewhere(), 10_000 - 4096);
    diagnosis.finish(START);
    assert_eq!(diagnosis.probe_failures_elsewhere(), 10_000);
}
