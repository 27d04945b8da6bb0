use super::*;
use crate::diagnosis::incident::Pod;

const S: Duration = Duration::from_secs(1);

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_ns: u64::from(pid) * 1000 }
}

fn who(comm: &str) -> Who {
    Who { comm: Some(comm.into()), cgroup_id: 9, ..Who::default() }
}

fn to(destination: &str, pid: u32, connects: u64) -> Addition {
    Addition {
        process: process(pid),
        netns: 1,
        destination: destination.parse().unwrap(),
        connects,
        unavailable: 0,
        chance: Some(0.001),
    }
}

#[test]
fn a_rate_is_of_the_last_ten_seconds_or_of_all_the_time() {
    let mut ledger = Ledger::default();
    for second in 1..=30 {
        ledger.add(S * second, &who("dns"), to("169.254.20.10:8080", 7, if second > 20 { 1 } else { 4 }));
    }
    let live = ledger.lines(S * 30, false);
    assert!((live[0].per_second - 1.0).abs() < 1e-9, "{live:?}");
    assert!((live[0].collisions_per_hour.unwrap() - 3.6).abs() < 1e-9);
    let whole = ledger.lines(S * 30, true);
    assert!((whole[0].per_second - 3.0).abs() < 1e-9);
    assert_eq!((whole[0].connects, whole[0].connects_in_a_minute), (90, 90));
    let early = Ledger::default().lines(Duration::ZERO, false);
    assert_eq!(early, []);
}

#[test]
fn connects_older_than_time_wait_are_not_in_the_minute() {
    let mut ledger = Ledger::default();
    ledger.add(S, &who("dns"), to("10.0.0.1:80", 7, 5));
    ledger.add(S * 50, &who("dns"), to("10.0.0.1:80", 7, 1));
    ledger.tidy(S * 62);
    let lines = ledger.lines(S * 62, false);
    assert_eq!((lines[0].connects, lines[0].connects_in_a_minute), (6, 1));
}

#[test]
fn processes_that_ended_are_one_row_by_name_and_living_ones_have_their_own() {
    let mut ledger = Ledger::default();
    for pid in 100..1100 {
        ledger.add(S, &who("curl"), to("10.0.0.1:80", pid, 1));
        ledger.end(process(pid), &who("curl"));
    }
    ledger.add(S, &who("curl"), to("10.0.0.1:80", 7, 1));
    ledger.add(S, &who("wget"), to("10.0.0.1:80", 8, 1));
    ledger.end(process(8), &who("wget"));
    let owners: Vec<Owner> = ledger.lines(S, false).into_iter().map(|line| line.owner).collect();
    let owner = |pid, ended, processes, comm: &str| Owner {
        pid,
        ended,
        processes,
        comm: Some(comm.into()),
        ..Owner::default()
    };
    assert_eq!(
        owners,
        [owner(Some(7), false, 1, "curl"), owner(None, true, 1000, "curl"), owner(Some(8), true, 1, "wget")]
    );
    assert_eq!(ledger.lines(S, false)[1].connects, 1000);
    assert_eq!(ledger.rows.values().map(|entry| entry.recent.len()).max(), Some(1), "parts are merged");
}

#[test]
fn in_a_container_ended_processes_of_all_names_are_one_row() {
    let mut ledger = Ledger::default();
    for (pid, comm) in [(1, "sh"), (2, "curl"), (3, "curl")] {
        let who = Who { container_id: Some("8f1c".into()), exe: Some(format!("/bin/{comm}")), ..who(comm) };
        ledger.add(S, &who, to("10.0.0.1:80", pid, 2));
        ledger.end(process(pid), &who);
    }
    let lines = ledger.lines(S, false);
    assert_eq!(lines.len(), 1);
    let owner = &lines[0].owner;
    assert_eq!((owner.processes, owner.container_id.as_deref()), (3, Some("8f1c")));
    assert_eq!(owner.exe, None, "they have several");
    assert_eq!(lines[0].connects, 6);
}

#[test]
fn the_name_of_a_pod_stays_with_the_rows_when_its_process_ends_and_goes_when_it_moves() {
    let mut ledger = Ledger::default();
    let runs_in = |id: &str| {
        let cgroup = Some(format!("/kubepods/{id}"));
        Who { container_id: Some(id.into()), cgroup, ..who("app") }
    };
    let pods = |ledger: &Ledger| -> Vec<Option<String>> {
        let lines = ledger.lines(S, false);
        lines.into_iter().map(|line| line.owner.pod.map(|pod| pod.name)).collect()
    };
    ledger.add(S, &runs_in("8f1c"), to("10.0.0.1:80", 1, 1));
    let pod = Pod { namespace: "shop".into(), name: "web-0".into(), uid: None };
    ledger.owners_mut().for_each(|owner| owner.pod = Some(pod.clone()));
    ledger.add(S, &runs_in("8f1c"), to("10.0.0.1:80", 1, 1));
    ledger.end(process(1), &runs_in("8f1c"));
    ledger.add(S, &runs_in("8f1c"), to("10.0.0.1:80", 2, 1));
    ledger.end(process(2), &runs_in("8f1c"));
    assert_eq!(pods(&ledger), [Some("web-0".into())]);
    ledger.add(S, &runs_in("8f1c"), to("10.0.0.1:80", 3, 1));
    let living = ledger.owners_mut().find(|owner| owner.pid == Some(3)).unwrap();
    living.pod = Some(pod);
    ledger.add(S, &runs_in("97ab"), to("10.0.0.1:80", 3, 1));
    assert_eq!(pods(&ledger), [None, Some("web-0".into())], "it is in another container now");
}

#[test]
fn failures_are_counted_apart_and_an_unknown_chance_stays_unknown() {
    let mut ledger = Ledger::default();
    let failed = Addition { connects: 0, unavailable: 3, chance: None, ..to("10.0.0.1:80", 7, 0) };
    ledger.add(S, &who("x"), failed);
    ledger.add(S, &who("x"), to("10.0.0.1:80", 7, 1000));
    let lines = ledger.lines(S, false);
    assert_eq!((lines[0].connects, lines[0].unavailable, lines[0].unavailable_now), (1000, 3, 3));
    assert!(lines[0].collisions_per_hour.is_some(), "a connect that failed adds nothing");
    ledger.add(S, &who("x"), Addition { chance: None, ..to("10.0.0.1:80", 7, 1) });
    assert_eq!(ledger.lines(S, false)[0].collisions_per_hour, None);
    assert_eq!(ledger.lines(S * 20, false)[0].unavailable_now, 0);
    assert_eq!(ledger.totals(), (1001, 3, 0));
}

#[test]
fn rows_are_bounded_and_what_is_dropped_is_counted() {
    let mut ledger = Ledger::default();
    for number in 0..u32::try_from(MAX_ROWS).unwrap() + 10 {
        ledger.add(S * number, &who("scan"), to("10.0.0.1:80", number, 1));
    }
    ledger.tidy(S * 10_000);
    assert_eq!((ledger.rows.len(), ledger.owners.len()), (MAX_ROWS, MAX_ROWS));
    assert_eq!(ledger.totals().2, 10);
}
