//! Which services a connect can collide with, and which table they are in.

use std::path::Path;

use super::*;

// kubernetes/kubernetes#132068, #93674, #114815
#[test]
fn a_service_counts_only_on_an_address_that_connects_start_from() {
    let table = "TCP  10.23.0.7:31000 rr\nTCP  10.96.7.7:31000 rr\nTCP  10.96.7.7:8443 rr\n";
    let services = "NAMESPACE NAME TYPE      CLUSTER-IP EXTERNAL-IP PORT(S)            AGE\n\
                    default   a    ClusterIP 10.96.7.7  <none>      31000/TCP,8443/TCP 1d\n\
                    default   b    NodePort  10.96.7.8  <none>      80:31000/TCP       1d\n";
    let files = Files::new(&[("ipvs", table), ("svc", services)]);
    let range = ["--local-port-range", "1024 65535", "--reserved-ports", "", "--ipvs", &files.path("ipvs")];
    let exposed = |more: &[&str]| {
        let (report, _) = check(&[&range[..], more].concat());
        let ports = report["exposed_ports"].as_array().unwrap().clone();
        ports
            .iter()
            .map(|port| {
                (port["port"].as_u64().unwrap(), port["addresses"].to_string(), port["services"].to_string())
            })
            .collect::<Vec<_>>()
    };
    let node = |name: &str| vec![(31_000, "[\"10.23.0.7\"]".to_owned(), name.to_owned())];
    assert_eq!(exposed(&["--local-address", "10.23.0.7"]), node("[]"));
    assert_eq!(
        exposed(&["--services", &files.path("svc")]),
        node("[\"default/b:80\"]"),
        "a ClusterIP is no source"
    );
    // Unless the node really uses it.
    let on_cluster_ip = exposed(&["--local-address", "10.96.7.7", "--services", &files.path("svc")]);
    assert_eq!(on_cluster_ip.len(), 2);
    assert_eq!(on_cluster_ip[1].2, "[\"default/a:31000\"]");
}

// kubernetes/kubernetes#89898
#[test]
fn connects_from_a_cluster_ip_are_pointed_out_and_hit_its_services() {
    let services = "NAMESPACE NAME TYPE      CLUSTER-IP   EXTERNAL-IP PORT(S)   AGE\n\
                    default   a    ClusterIP 172.26.67.31 <none>      40000/TCP 1d\n";
    let sockets = "TIME-WAIT 0 0 172.26.67.31:40002 172.16.4.143:8080\n";
    let files = Files::new(&[("ipvs", "TCP  172.26.67.31:40000 rr\n"), ("svc", services), ("ss", sockets)]);
    let (report, status) = check(&[
        "--local-port-range",
        "32768 60999",
        "--reserved-ports",
        "",
        "--ipvs",
        &files.path("ipvs"),
        "--services",
        &files.path("svc"),
        "--sockets",
        &files.path("ss"),
    ]);
    assert_eq!(status, 1);
    assert_eq!(report["exposed_ports"][0]["port"], 40_000);
    assert!(findings(&report, "warning").contains("172.26.67.31, which is a ClusterIP"), "{report:#}");
}

/// Connects to a ClusterIP are safe, and accepted connections are none of ours.
// kubernetes/kubernetes#90258, istio/istio#15881
#[test]
fn connects_to_services_and_accepted_connections_do_not_count() {
    let sockets = "LISTEN    0 0 *:8002 *:*\n\
                   TIME-WAIT 0 0 ::ffff:10.56.5.95:8002 ::ffff:10.56.5.1:33590\n\
                   TIME-WAIT 0 0 10.56.5.95:40000 10.96.0.1:443\n\
                   TIME-WAIT 0 0 10.56.5.95:40002 10.56.5.7:8080\n\
                   ESTAB     0 0 10.56.5.95:64730 10.6.185.50:6443 users:((\"kubelet\",pid=5621,fd=10))\n";
    let files = Files::new(&[("ipvs", "TCP  10.96.0.1:443 rr\nTCP  10.56.5.95:31000 rr\n"), ("ss", sockets)]);
    let (report, _) = check(&[
        "--local-port-range",
        "1024 65535",
        "--reserved-ports",
        "",
        "--ipvs",
        &files.path("ipvs"),
        "--sockets",
        &files.path("ss"),
    ]);
    assert!(near(&report["connects_per_second"], 1.0 / 60.0), "{report:#}");
}

// prometheus/node_exporter#1296, facebookarchive/gnlpy#15; kubernetes/kubernetes#116453
#[test]
fn firewall_marks_never_match_and_one_bad_row_hides_no_other() {
    let table = "FWM  1 rr\nFWM  1 IPv6 rr\nUDP  192.0.2.10:31000 rr\nTCP  node5.example.net:31002 rr\nTCP  192.0.2.10:31004 rr\n";
    let files = Files::new(&[("ipvs", table)]);
    let range = ["--local-port-range", "1024 65535", "--reserved-ports", ""];
    let (report, status) = check(&[&range[..], &["--ipvs", &files.path("ipvs")]].concat());
    assert_eq!(status, 1, "found and incomplete is found");
    assert_eq!((&report["services_tcp"], &report["exposed_count"]), (&1.into(), &1.into()));
    let incomplete = report["incomplete"][0].as_str().unwrap();
    assert!(incomplete.contains("ipvs, line 4") && incomplete.contains("node5.example.net"), "{incomplete}");
    let (report, status) = check(&[
        "--local-port-range",
        "1024 65535",
        "--reserved-ports",
        "30000-32767",
        "--ipvs",
        &files.path("ipvs"),
    ]);
    assert_eq!((report["status"].as_str(), status), (Some("pass"), 3), "nothing found, but not all was read");
}

// prometheus/node_exporter#623
#[test]
fn no_ipvs_is_something_else_than_a_table_that_cannot_be_read() {
    let header = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
    let files = Files::new(&[("empty", ""), ("header", header), ("conn", "nonsense\n")]);
    let with = |name: &str| {
        ["check", "--local-port-range", "1024 65535", "--ipvs", &files.path(name)].map(str::to_owned)
    };
    for name in ["empty", "conn", "missing"] {
        refused(&run(&with(name).each_ref().map(String::as_str)), &["the IPVS table", name]);
    }
    let (report, status) =
        check(&["--local-port-range", "1024 65535", "--reserved-ports", "", "--ipvs", &files.path("header")]);
    assert_eq!((report["status"].as_str(), status), (Some("pass"), 0));
    assert!(findings(&report, "info").contains("IPVS table is empty"));
    // A namespace where IPVS was never used, as in a cluster whose kube-proxy works with iptables.
    if !Path::new("/proc/self/net/ip_vs").exists() {
        let (report, status) = check(&["--netns", "/proc/self/ns/net"]);
        assert_eq!((report["status"].as_str(), status), (Some("pass"), 0), "{report:#}");
        let note = findings(&report, "info");
        assert!(note.contains("IPVS is not in use") && note.contains("iptables or nftables mode"), "{note}");
        assert_eq!(report["ephemeral"]["source"], "the running kernel");
    }
}

#[test]
fn nothing_of_this_machine_is_mixed_into_a_node_that_is_described() {
    refused(
        &run(&["check", "--ipvs", &seed("ipvsadm.txt")]),
        &["local port range of that node is not known", "--local-port-range"],
    );
    let output = run(&["check", "--netns", "1", "--ipvs", &seed("ipvsadm.txt")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot be used with"), "{}", stderr(&output));
    let (report, _) = check(&["--local-port-range", "1024 65000", "--ipvs", &seed("ipvsadm.txt")]);
    assert_eq!(report["reserved"], Value::Null);
    assert!(findings(&report, "warning").contains("reserved on that node is not known"));
    assert_eq!(report["advice"][0]["value"], Value::Null, "what is not known must not be overwritten");
    for unknown in ["connects_per_second", "expected_failures_per_hour", "seconds_to_first", "port_search"] {
        assert_eq!(report[unknown], Value::Null, "{unknown}");
    }
    // Some services lie outside the default range, so that is not the API server's.
    assert!(findings(&report, "warning").contains("NodePort range is not known"));
    assert_eq!(report["node_port_range"], Value::Null);
}
