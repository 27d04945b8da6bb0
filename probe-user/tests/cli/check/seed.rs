//! The seed's node.

use super::*;

/// midbai.com, "many pod probes are failing after upgrading Kubernetes"
#[test]
fn the_seeds_node_fails_once_in_5_4_minutes() {
    let (report, status) = check(&borrowed(&seed_node("ss-kubelet.txt")));
    assert_eq!((report["status"].as_str(), status), (Some("fail"), 1));
    assert_eq!(report["exposed_count"], 18);
    assert_eq!(report["reachable_count"], 7);
    assert_eq!(report["starting_points"], 31_988);
    assert!(near(&report["chance_per_connect"], 7.0 / 31_988.0));
    assert!(near(&report["chances"]["bind_zero"], 11.0 / 31_988.0));
    assert!(near(&report["connects_per_second"], 14.15));
    assert!(near(&report["seconds_to_first"], 5.383 * 60.0), "{}", report["seconds_to_first"]);
    assert_eq!((&report["overlap_count"], &report["overlap_unreserved"]), (&20_001.into(), &20_001.into()));
    assert_eq!(report["to_reserve"], serde_json::json!(["20000-40000"]));
    assert_eq!(report["port_search"], "per_destination");
    let on_dns = report["sources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|source| source["address"] == "169.254.20.10")
        .unwrap();
    assert_eq!((&on_dns["exposed_count"], &on_dns["reachable_count"]), (&18.into(), &7.into()));
    let advice = &report["advice"][0];
    assert_eq!(advice["command"], "sysctl -w net.ipv4.ip_local_reserved_ports=20000-40000");
    assert_eq!(
        advice["persist"],
        "/etc/sysctl.d/90-nodeports.conf: net.ipv4.ip_local_reserved_ports = 20000-40000"
    );
    let dashboard =
        report["exposed_ports"].as_array().unwrap().iter().find(|port| port["port"] == 36_704).unwrap();
    assert_eq!(dashboard["services"], serde_json::json!(["kube-system/kubernetes-dashboard:443"]));
    assert_eq!(dashboard["hit_by_connect"], true);
    // The listing is cut off before the address that kubelet connects from.
    assert!(findings(&report, "warning").contains("no service on 10.23.77.129"));
    assert_eq!(report["expected_failures_range"]["low"], 0.0);

    let text = text(&borrowed(&seed_node("ss-kubelet.txt")));
    for words in ["FAIL  18 service ports", "7 in 31,988 per connect", "one failed connect every 5.4 minutes"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// The same node with all its sockets: each source address has its own share.
#[test]
fn each_source_address_has_its_own_chance_and_rate() {
    for sockets in ["ss.txt", "ss-counts.txt"] {
        let (report, _) = check(&borrowed(&seed_node(sockets)));
        let source = |address: &str| {
            let all = report["sources"].as_array().unwrap().iter();
            all.clone().find(|source| source["address"] == address).unwrap().clone()
        };
        assert!(near(&source("10.23.77.129")["connects_per_second"], 849.0 / 60.0), "{sockets}");
        assert!(near(&source("10.10.85.105")["connects_per_second"], 161.0 / 60.0));
        assert!(near(&source("169.254.20.10")["connects_per_second"], 69.0 / 60.0));
        assert!(near(&source("10.10.85.235")["chance_per_connect"], 5.0 / 31_988.0), "15 of the 18, 5 even");
        assert!(near(&report["expected_failures_per_hour"], 1079.0 / 60.0 * 3600.0 * 7.0 / 31_988.0));
    }
}

#[test]
fn a_node_that_reserves_its_node_ports_passes() {
    let mut args = seed_node("ss-kubelet.txt");
    args[3] = "20000-40000".to_owned();
    let (report, status) = check(&borrowed(&args));
    assert_eq!((report["status"].as_str(), status), (Some("pass"), 0));
    assert_eq!(report["exposed_count"], 0);
    assert_eq!((&report["overlap_count"], &report["overlap_unreserved"]), (&20_001.into(), &0.into()));
    assert_eq!(report["advice"], serde_json::json!([]));
    assert!(text(&borrowed(&args)).starts_with("PASS  "));
}
