use std::collections::BTreeMap;

use super::*;
use crate::diagnosis::incident::Verdict;
use crate::report::metrics_incidents::{OUTCOMES, VERDICTS, outcome_name, verdict_name};
use crate::report::status_samples as samples;
use crate::serve::snapshot::PodLabel;

#[test]
fn open_metrics_of_a_busy_sidecar() {
    insta::assert_snapshot!(render(&samples::busy(), Flavour::OpenMetrics));
}

#[test]
fn older_text_of_a_busy_sidecar() {
    insta::assert_snapshot!(render(&samples::busy(), Flavour::Prometheus));
}

#[test]
fn what_is_not_known_is_left_out() {
    insta::assert_snapshot!(render(&Snapshot::default(), Flavour::Prometheus));
}

#[test]
fn the_busy_sample_has_every_metric() {
    let page = render(&samples::busy(), Flavour::OpenMetrics);
    for family in FAMILIES {
        assert!(page.contains(&format!("\n{}", family.sample_name())), "{}", family.name);
    }
}

#[test]
fn every_sample_has_its_family_and_only_the_labels_it_names() {
    let page = render(&samples::busy(), Flavour::OpenMetrics);
    let mut seen = std::collections::BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series.to_owned()), "twice: {series}");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = FAMILIES.iter().find(|family| family.sample_name() == name).unwrap();
        let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
        names.for_each(|label| assert!(family.labels.contains(&label), "{line}"));
    }
}

#[test]
fn pods_are_counted_only_where_that_is_asked_for_and_the_rest_is_one_series() {
    let label = PodLabel { namespace: "default".to_owned(), pod: "nginx-0".to_owned() };
    let mut now = Snapshot { by_pod: BTreeMap::from([(label, 2)]), by_other_pods: 5, ..Snapshot::default() };
    assert!(!render(&now, Flavour::OpenMetrics).contains("portclash_pod_incidents"));
    now.label_pods = true;
    let page = render(&now, Flavour::OpenMetrics);
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("portclash_pod_incidents")).collect();
    assert_eq!(
        lines,
        [
            "portclash_pod_incidents_total{pod_namespace=\"default\",pod_name=\"nginx-0\"} 2",
            "portclash_pod_incidents_total{pod_namespace=\"_other\",pod_name=\"_other\"} 5",
        ]
    );
}

#[test]
fn names_of_verdicts_and_outcomes_are_those_of_the_json() {
    for verdict in VERDICTS.into_iter().chain([Verdict::None]) {
        assert_eq!(serde_json::to_value(verdict).unwrap(), verdict_name(verdict));
    }
    for outcome in OUTCOMES {
        assert_eq!(serde_json::to_value(outcome).unwrap(), outcome_name(outcome));
    }
}

#[test]
fn connects_without_a_port_are_unknown_where_nothing_sees_how_connect_ends() {
    let mut now = samples::busy();
    assert!(render(&now, Flavour::Prometheus).contains("\nportclash_connects_out_of_ports_total 9\n"));
    now.hooks.push(crate::serve::snapshot::HookView { need: "connect_end", way: None, excused: false });
    assert!(!render(&now, Flavour::Prometheus).contains("portclash_connects_out_of_ports"));
}

#[test]
fn a_need_is_unmet_only_if_something_is_missed_by_it() {
    let page = render(&samples::busy(), Flavour::Prometheus);
    let served = |line: &&str| line.starts_with("portclash_hook_served{");
    assert_eq!(
        page.lines().filter(served).collect::<Vec<_>>(),
        [
            "portclash_hook_served{need=\"connect\"} 1",
            "portclash_hook_served{need=\"hijack\"} 1",
            "portclash_hook_served{need=\"no_backend\"} 0",
        ]
    );
}

/// An alert takes an old time for a table that cannot be read any more.
#[test]
fn a_table_that_is_a_file_has_services_and_no_time() {
    let mut now = samples::busy();
    let page = render(&now, Flavour::Prometheus);
    assert!(page.contains("\nportclash_service_table_read_timestamp_seconds "));
    now.table.is_file = true;
    let of_file = render(&now, Flavour::Prometheus);
    assert!(!of_file.contains("portclash_service_table_read_timestamp_seconds"));
    assert!(of_file.contains("\nportclash_services{protocol=\"tcp\"} 312\n"));
    assert!(of_file.contains("\nportclash_service_table_unreadable_rows 2\n"));
}
