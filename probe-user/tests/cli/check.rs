//! `portclash check` on nodes that options and files describe; each test is a case from the field.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use super::{portclash, refused, run, stderr};

const SEED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seed/");

fn seed(name: &str) -> String {
    format!("{SEED}{name}")
}

/// A folder with files, and their paths.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Runs `portclash check -o json` and gives the report with the exit status.
fn check(args: &[&str]) -> (Value, i32) {
    let output = run(&[&["check", "-o", "json"], args].concat());
    let status = output.status.code().unwrap();
    assert!(status != 2, "{args:?}: {}", stderr(&output));
    let lines: Vec<&[u8]> =
        output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1);
    (serde_json::from_slice(lines[0]).unwrap(), status)
}

fn text(args: &[&str]) -> String {
    let output = portclash(&[&["check"], args].concat()).env("COLUMNS", "100").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn findings(report: &Value, severity: &str) -> String {
    let all = report["findings"].as_array().unwrap().iter();
    let texts = all
        .filter(|finding| finding["severity"] == severity)
        .map(|finding| finding["text"].as_str().unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

fn near(value: &Value, expected: f64) -> bool {
    (value.as_f64().unwrap() - expected).abs() <= expected.abs() * 0.005
}

/// Verdict, ports in both ranges, and ports of these that are not reserved.
fn overlap(args: &[&str]) -> (String, i32, u64, u64) {
    let (report, status) = check(args);
    let number = |name: &str| report[name].as_u64().unwrap();
    (
        report["status"].as_str().unwrap().to_owned(),
        status,
        number("overlap_count"),
        number("overlap_unreserved"),
    )
}

fn seed_node(sockets: &str) -> Vec<String> {
    let args = [
        "--local-port-range",
        "1024 65000",
        "--reserved-ports",
        "",
        "--node-port-range",
        "20000-40000",
        "--kernel",
        "5.10.262",
    ];
    let mut args: Vec<String> = args.map(str::to_owned).to_vec();
    for (option, file) in [("--ipvs", "ipvsadm.txt"), ("--services", "services.txt"), ("--sockets", sockets)]
    {
        args.extend([option.to_owned(), seed(file)]);
    }
    args
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

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
    let table: String = (0..1500).map(|n| format!("TCP  192.0.2.10:{} rr\n", 12_000 + n * 30)).collect();
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
    assert_eq!(report["node_port_range"], Value::Null);
}

fn with_stdin(args: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child =
        portclash(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_minus_sign_is_standard_input_once() {
    let range = ["check", "-o", "json", "--local-port-range", "1024 65000", "--reserved-ports", ""];
    let output =
        with_stdin(&[&range[..], &["--ipvs", "-"]].concat(), "TCP  192.0.2.10:31000 rr\nTCP  x:1 rr\n");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["exposed_count"], 1);
    assert!(report["incomplete"][0].as_str().unwrap().starts_with("standard input, line 2"));
    refused(
        &run(&[&range[..], &["--ipvs", "-", "--sockets", "-"]].concat()),
        &["standard input", "only once"],
    );
}

/// Run in namespaces of its own, the script keeps what is reserved, and what it prints undoes it.
#[test]
fn the_script_reserves_and_can_be_undone() {
    let script = run(&[&["check", "--fix-script"], &borrowed(&seed_node("ss-kubelet.txt"))[..]].concat());
    assert_eq!(script.status.code(), Some(1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fix.sh");
    fs::write(&path, &script.stdout).unwrap();
    let test = "mount -t tmpfs none /etc/sysctl.d || exit 77
        echo 8080 > /proc/sys/net/ipv4/ip_local_reserved_ports || exit 77
        sh -n \"$0\" && sh \"$0\" > /etc/sysctl.d/out || exit 1
        cat /proc/sys/net/ipv4/ip_local_reserved_ports /etc/sysctl.d/90-nodeports.conf
        sed -n '/to undo/,$p' /etc/sysctl.d/out | tail -n +2 > /etc/sysctl.d/undo; sh -e /etc/sysctl.d/undo || exit 1
        cat /proc/sys/net/ipv4/ip_local_reserved_ports; test ! -e /etc/sysctl.d/90-nodeports.conf && echo gone";
    let output =
        std::process::Command::new("unshare").args(["-n", "-m", "sh", "-c", test]).arg(&path).output();
    match output {
        Ok(output) if output.status.success() => assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "8080,20000-40000\nnet.ipv4.ip_local_reserved_ports = 8080,20000-40000\n8080\ngone\n"
        ),
        Ok(output)
            if output.stderr.is_empty()
                || output.status.code() == Some(77)
                || stderr(&output).contains("unshare") =>
        {
            println!("skipped: no namespaces may be made here: {}", stderr(&output));
        }
        Ok(output) => panic!("{}", stderr(&output)),
        Err(error) => println!("skipped: unshare cannot be run: {error}"),
    }
    let safe = run(&["check", "--fix-script", "--local-port-range", "32768 60999", "--reserved-ports", ""]);
    assert!(String::from_utf8(safe.stdout).unwrap().contains("nothing has to be reserved"));
}
