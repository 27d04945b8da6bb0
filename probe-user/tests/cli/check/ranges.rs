//! The NodePort range, the local port range and what is reserved.

use super::*;

// Pipedrive R&D, "Solving the mystery of pods health checks failures in Kubernetes"
#[test]
fn default_node_ports_in_a_wide_range_are_5_22_percent_of_it() {
    let args = ["--local-port-range", "12000 65001", "--reserved-ports", ""];
    assert_eq!(overlap(&args), ("fail".to_owned(), 1, 2768, 2768));
    let (report, _) = check(&args);
    assert!(findings(&report, "error").contains("5.22%"), "{report:#}");
    assert_eq!(report["to_reserve"], serde_json::json!(["30000-32767"]));
    // Port 31055 failed there: it is odd, and the low end is even, so its program bound port 0 or the rest was used up.
    let files = Files::new(&[("ipvs", "TCP  10.0.0.5:31055 rr\n  -> 10.244.1.2:80 Masq 1 0 0\n")]);
    let (report, _) = check(&[&args[..], &["--ipvs", &files.path("ipvs")]].concat());
    assert_eq!((&report["exposed_count"], &report["reachable_count"]), (&1.into(), &0.into()));
}

// awslabs/amazon-eks-ami#1307
#[test]
fn node_ports_are_not_bound_so_only_reserving_protects_them() {
    let (report, status) = check(&["--local-port-range", "1024 65535", "--reserved-ports", ""]);
    assert_eq!(status, 1);
    let error = findings(&report, "error");
    assert!(error.contains("2768 ports that nothing reserves, 4.29%"), "{error}");
    assert!(
        error.contains("does not bind NodePorts") && error.contains("only ip_local_reserved_ports"),
        "{error}"
    );
    for untouched in ["32768 60999", "32768 65000"] {
        assert_eq!(
            overlap(&["--local-port-range", untouched, "--reserved-ports", ""]),
            ("pass".to_owned(), 0, 0, 0)
        );
    }
    // One more NodePort than the default range has.
    let args =
        ["--local-port-range", "32768 60999", "--reserved-ports", "", "--node-port-range", "30000-32768"];
    assert_eq!(overlap(&args), ("fail".to_owned(), 1, 1, 1));
}

// kubernetes/kubernetes#111682
#[test]
fn allocated_node_ports_are_counted_and_other_ranges_offered() {
    let rows: Vec<String> = (0..1500).map(|n| format!("TCP  192.0.2.10:{} rr\n", 12_000 + n * 30)).collect();
    let table = rows.concat();
    let files = Files::new(&[("ipvs", &table)]);
    let range =
        ["--local-port-range", "10000 60999", "--reserved-ports", "", "--node-port-range", "10000-60000"];
    let (report, status) = check(&[&range[..], &["--ipvs", &files.path("ipvs")]].concat());
    assert_eq!(status, 1);
    assert_eq!((&report["exposed_count"], &report["overlap_count"]), (&1500.into(), &50_001.into()));
    // With the default local port range there is room below it, growing downwards.
    let moved =
        ["--local-port-range", "32768 60999", "--reserved-ports", "", "--node-port-range", "30000-40000"];
    let (report, _) = check(&moved);
    let advice = report["advice"].as_array().unwrap();
    let node_ports = advice
        .iter()
        .find(|advice| advice["setting"].as_str().unwrap().starts_with("--service-node"))
        .unwrap();
    assert_eq!(node_ports["value"], "30000-32767");
    assert!(node_ports["why"].as_str().unwrap().contains("keep the NodePorts they have"));
    let range = advice.iter().find(|advice| advice["setting"] == "net.ipv4.ip_local_port_range").unwrap();
    assert_eq!(range["value"], "40001 60998");
}

// kubernetes/kops#6342
#[test]
fn reserved_node_ports_pass_although_the_ranges_still_overlap() {
    let range = ["--local-port-range", "10240 65535"];
    assert_eq!(
        overlap(&[&range[..], &["--reserved-ports", ""]].concat()),
        ("fail".to_owned(), 1, 2768, 2768)
    );
    let reserved = [&range[..], &["--reserved-ports", "30000-32767"]].concat();
    assert_eq!(overlap(&reserved), ("pass".to_owned(), 0, 2768, 0));
    let (report, _) = check(&reserved);
    assert_eq!(report["ephemeral"]["source"], "--local-port-range");
    assert_eq!(report["reserved"], serde_json::json!(["30000-32767"]));
}

// Huawei CCE, "Ports Used by NodePort Services"
#[test]
fn a_lower_node_port_range_overlaps_by_12662() {
    let args =
        ["--local-port-range", "10240 65535", "--reserved-ports", "", "--node-port-range", "20106-32767"];
    assert_eq!(overlap(&args), ("fail".to_owned(), 1, 12_662, 12_662));
}

// kubernetes/kubernetes#115374, #111144; giantswarm/k8scloudconfig#542
#[test]
fn values_that_the_kernel_refuses_are_refused_with_the_right_form() {
    for (args, words) in [
        (["--reserved-ports", "1024 15999"], "for a range write 1024-15999"),
        (["--reserved-ports", "30000–32767"], "not a hyphen"),
        (["--reserved-ports", "\"30000-32767\""], "remove them"),
        (["--local-port-range", "\"1024 65535\""], "remove them"),
        (["--local-port-range", "1024-65535"], "separated by a blank"),
        (["--node-port-range", "30000-32767,40000"], "not one range"),
        (["--node-port-range", "32767-30000"], "write 30000-32767"),
        (["--extra-ports", "10254-"], "10254-"),
    ] {
        let output = run(&[&["check"], &args[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let same = check(&["--local-port-range", "32768 61000", "--reserved-ports", ""]).0;
    assert!(findings(&same, "info").contains("prefer different parity"));
    assert_eq!(same["status"], "pass");
}
