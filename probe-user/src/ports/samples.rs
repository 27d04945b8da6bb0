//! A report for tests of what is done with it.

use std::collections::BTreeMap;

use super::model::{Outlook, Owner, ROW, Report, Row, SUMMARY, Summary};
use crate::diagnosis::incident::Pod;

pub(crate) fn row(destination: &str, rate: f64) -> Row {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and positive")]
    let connects = (rate * 10.0) as u64;
    Row {
        schema: ROW,
        owner: Some(Owner {
            pid: Some(2315),
            ended: false,
            processes: 1,
            comm: Some("node-cache".into()),
            exe: Some("/node-cache".into()),
            container_id: Some("8f1c2a9e4b7d60315c8e2f4a6b9d0c1e3f5a7b8c9d0e1f2a3b4c5d6e7f809a1b".into()),
            cgroup: None,
            pod: None,
        }),
        netns: 4_026_531_840,
        destination: destination.into(),
        connects,
        connects_per_second: rate,
        local_ports_in_use: Some(connects),
        time_wait: Some(connects),
        owners_of_destination: 1,
        share_of_range: Some(0.01),
        outlook: Outlook::Lasts,
        seconds_until_used_up: None,
        expected_collisions_per_hour: Some(0.0),
        unavailable: 0,
    }
}

/// Puts a row's owner into a pod.
fn in_pod(mut row: Row, namespace: &str, name: &str) -> Row {
    let pod = Pod { namespace: namespace.into(), name: name.into(), uid: None };
    row.owner = row.owner.map(|owner| Owner { pod: Some(pod), ..owner });
    row
}

fn owner(pid: Option<u32>, comm: &str, processes: u64) -> Owner {
    Owner { pid, ended: pid.is_none(), processes, comm: Some(comm.into()), ..Owner::default() }
}

/// One row of each kind.
pub(crate) fn report() -> Report {
    let rows = vec![
        Row {
            owner: Some(owner(Some(900), "kubelet", 1)),
            expected_collisions_per_hour: Some(11.1),
            ..row("10.23.77.138:80", 14.2)
        },
        in_pod(row("169.254.20.10:8080", 1.0), "kube-system", "node-local-dns-x7k2p"),
        in_pod(
            Row {
                owner: Some(owner(None, "curl", 12_345)),
                local_ports_in_use: Some(27_900),
                time_wait: Some(27_890),
                share_of_range: Some(0.988),
                outlook: Outlook::UsedUp,
                seconds_until_used_up: Some(0.0),
                unavailable: 42,
                ..row("10.0.0.5:443", 1250.0)
            },
            "shop",
            "web-0",
        ),
        Row {
            owner: Some(owner(Some(31_337), "evil\u{1b}[31m\nname", 1)),
            outlook: Outlook::RunningOut,
            seconds_until_used_up: Some(754.0),
            ..row("[fd00:10:23:77::138]:8443", 44.0)
        },
        Row {
            owner: None,
            connects: 0,
            time_wait: Some(117),
            local_ports_in_use: Some(120),
            expected_collisions_per_hour: None,
            ..row("10.0.0.7:9100", 0.0)
        },
        in_pod(
            Row {
                owner: Some(owner(Some(77), "worker", 1)),
                netns: 4_026_532_201,
                local_ports_in_use: None,
                time_wait: None,
                share_of_range: None,
                outlook: Outlook::Unknown,
                expected_collisions_per_hour: None,
                ..row("10.0.0.8:6379", 0.3)
            },
            "default",
            "evil\u{1b}[2J\u{202e}-pod",
        ),
    ];
    let summary = Summary {
        schema: SUMMARY,
        seconds: 10.0,
        connects: 13_095,
        unavailable: 42,
        netns: Some(4_026_531_840),
        local_port_range: Some("32768-60999".into()),
        usable_ports: Some(28_232),
        time_wait: Some(28_593),
        time_wait_unattributed: Some(117),
        expected_collisions_per_hour: Some(11.1),
        lost: BTreeMap::new(),
        hooks: BTreeMap::from([("connect".into(), "fentry".into()), ("connect_end".into(), "fexit".into())]),
        incomplete: Vec::new(),
    };
    Report { rows, summary, unnamed_pods: None }
}
