//! Ports that programs listen on, and ports that run out.

use super::*;

// rancher/rancher#12510
#[test]
fn another_port_that_must_stay_free_is_flagged_but_is_no_service() {
    let range = ["--local-port-range", "32768 60999", "--reserved-ports", ""];
    let (report, status) = check(&[&range[..], &["--extra-ports", "10254"]].concat());
    assert_eq!((report["status"].as_str(), status), (Some("pass"), 0), "outside the range");
    let range =
        ["--local-port-range", "1024 65535", "--reserved-ports", "30000-32767", "--extra-ports", "10254"];
    let (report, status) = check(&range);
    assert_eq!((report["status"].as_str(), status), (Some("fail"), 1));
    assert!(findings(&report, "error").contains("10254"), "{report:#}");
    assert_eq!(report["exposed_count"], Value::Null);
    assert_eq!(report["advice"][0]["value"], "10254,30000-32767");
}

/// A health check port is one that kube-proxy listens on, and may be the NodePort of another Service.
// kubernetes/kubernetes#63617, #60749, #111823
#[test]
fn health_check_ports_are_reserved_too_and_duplicates_are_found() {
    let services = r#"{"apiVersion":"v1","kind":"List","items":[
      {"apiVersion":"v1","kind":"Service","metadata":{"namespace":"a","name":"lb"},
       "spec":{"type":"LoadBalancer","healthCheckNodePort":30073,"clusterIP":"10.96.0.5",
               "ports":[{"port":80,"nodePort":30080,"protocol":"TCP"}]}},
      {"apiVersion":"v1","kind":"Service","metadata":{"namespace":"b","name":"np"},
       "spec":{"type":"NodePort","clusterIP":"10.96.0.6","ports":[{"port":81,"nodePort":30073,"protocol":"TCP"}]}}]}"#;
    let table = "TCP  192.0.2.10:30080 rr\nTCP  10.96.0.5:80 rr\n";
    let files = Files::new(&[("svc.json", services), ("ipvs", table)]);
    let (report, status) = check(&[
        "--local-port-range",
        "1024 65535",
        "--reserved-ports",
        "30080",
        "--node-port-range",
        "30080-30080",
        "--services",
        &files.path("svc.json"),
        "--ipvs",
        &files.path("ipvs"),
    ]);
    assert_eq!((report["status"].as_str(), status), (Some("pass"), 0), "a listener is no IPVS service");
    let warnings = findings(&report, "warning");
    assert!(warnings.contains("healthCheckNodePort 30073"), "{warnings}");
    assert!(
        warnings.contains("claimed twice: by a/lb:30073 (healthCheckNodePort) and by b/np:81 (NodePort)"),
        "{warnings}"
    );
    // Once something is to be set, it is set together.
    let (report, _) = check(&[
        "--local-port-range",
        "1024 65535",
        "--reserved-ports",
        "",
        "--node-port-range",
        "30080-30080",
        "--services",
        &files.path("svc.json"),
        "--ipvs",
        &files.path("ipvs"),
    ]);
    assert_eq!(report["advice"][0]["value"], "30073,30080");
    assert_eq!(report["exposed_count"], 1);
}

// onedr0p/home-ops#11712
#[test]
fn reserved_node_ports_pass_and_listeners_that_are_not_reserved_are_a_warning() {
    let files = Files::new(&[("ss", "LISTEN 0 128 0.0.0.0:7000 0.0.0.0:*\nLISTEN 0 128 *:31000 *:*\n")]);
    let (report, status) = check(&[
        "--local-port-range",
        "1024 65535",
        "--reserved-ports",
        "30000-32767,50000-50001",
        "--sockets",
        &files.path("ss"),
    ]);
    assert_eq!((report["status"].as_str(), status), (Some("pass"), 0));
    let warnings = findings(&report, "warning");
    assert!(warnings.contains("(7000)") && !warnings.contains("31000"), "{warnings}");
}

// kubernetes/kubernetes#85418, #112559
#[test]
fn a_listener_where_a_service_is_is_a_conflict() {
    let files = Files::new(&[
        ("ipvs", "TCP  127.0.0.1:37751 rr\nTCP  192.0.2.10:37751 rr\n"),
        ("ss", "LISTEN 0 128 127.0.0.1:37751 0.0.0.0:*\n"),
    ]);
    let (report, _) = check(&[
        "--local-port-range",
        "32768 60999",
        "--reserved-ports",
        "37751",
        "--node-port-range",
        "37000-38000",
        "--ipvs",
        &files.path("ipvs"),
        "--sockets",
        &files.path("ss"),
    ]);
    let warnings = findings(&report, "warning");
    assert!(warnings.contains("listens on port 37751 although 127.0.0.1:37751 is a service"), "{warnings}");
    assert!(!warnings.contains("192.0.2.10"), "{warnings}");
}

// kubernetes/kubernetes#115143
#[test]
fn ports_that_run_out_are_predicted_for_the_limit_that_is_meant() {
    // 600 probes a second to 600 destinations, closed at once.
    let row = |n: u32| {
        format!("TIME-WAIT 0 0 10.0.0.1:{} 10.1.{}.{}:8080\n", 32_768 + n % 28_000, (n % 600) / 200, n % 200)
    };
    let files = Files::new(&[("ss", &(0..36_000).map(row).collect::<String>())]);
    let range = ["--local-port-range", "32768 60999", "--reserved-ports", ""];
    let (report, _) = check(&[&range[..], &["--sockets", &files.path("ss")]].concat());
    let warnings = findings(&report, "warning");
    assert!(warnings.contains("36000 ports in TIME-WAIT, more than the 28232 there are"), "{warnings}");
    assert!(warnings.contains("the limit is per destination, and the busiest has 60"), "{warnings}");
    // All to one destination.
    let row = |n: u32| format!("TIME-WAIT 0 0 10.0.0.1:{} 10.1.0.1:8080\n", 32_768 + n);
    let files = Files::new(&[("ss", &(0..28_000).map(row).collect::<String>())]);
    let (report, _) = check(&[&range[..], &["--sockets", &files.path("ss")]].concat());
    assert!(findings(&report, "warning").contains("28000 of 28232 source ports are in use"), "{report:#}");
}
