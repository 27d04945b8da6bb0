//! The public report's own material (midbai.com, "many pod probes are failing after upgrading Kubernetes").

use super::*;

const ALL: [&str; 9] = [
    "capture-listing.txt",
    "ipvsadm.txt",
    "services.txt",
    "kubelet.log",
    "nginx-access.log",
    "ss.txt",
    "ss-counts.txt",
    "sysctl.txt",
    "kube-apiserver.txt",
];

#[test]
fn the_seeds_material_is_a_likely_collision() {
    let found = analyze(&files("seed", &ALL));
    assert_eq!(found.status, 1);
    assert_eq!(found.judged(), ["collision", "failed", "likely"]);
    let incident = found.only();
    assert_eq!(incident["connection"]["local"], "10.23.77.129:36704");
    assert_eq!(incident["connection"]["remote"], "10.23.77.138:80");
    assert_eq!(incident["connection"]["isn"], 4_142_039_474_u32);
    assert_eq!(incident["connection"]["syn_retransmits"], 1);
    assert_eq!(incident["service"]["name"], "kube-system/kubernetes-dashboard:443");
    assert_eq!(incident["service"]["kind"], "NodePort");
    let probe = &incident["probe"];
    assert_eq!((&probe["type"], &probe["pod"]["namespace"]), (&"readiness".into(), &"default".into()));
    assert_eq!(probe["pod"]["name"], "nginx-5dfb7c896c-x2q2w");
    assert_eq!(probe["pod"]["uid"], "3daea6ef-f286-43f2-8825-51edaa3994d3");
    assert_eq!((&probe["period_s"], &incident["owner"]["comm"]), (&Value::Null, &Value::Null));
    assert_eq!(incident["log_lines"].as_array().unwrap().len(), 1);
    assert_eq!(incident["log_lines"][0]["line"], 1);
    let resets = incident["resets"].as_array().unwrap();
    assert_eq!(resets.len(), 2);
    assert!(resets.iter().all(|reset| reset["seq"] == 4_142_039_475_u32), "{resets:#?}");
    // The listing was cut by the pager and lacks 10.23.77.129; the NodePort of the list of Services covers it.
    let evidence = incident["evidence"].to_string();
    assert!(evidence.contains("no service at 10.23.77.129:36704, but it is not whole"), "{evidence}");
    let advice = incident["advice"].to_string();
    assert!(advice.contains("20000-40000"), "{advice}");
    let incomplete = found.summary["incomplete"].to_string();
    assert!(incomplete.contains("breaks off within the services of 10.10.85.235"), "{incomplete}");
    assert_eq!(found.inputs.len(), ALL.len());
    assert!(found.inputs.iter().all(|input| input["kind"].is_string() && input["read"] != ""));
}

/// A listing without dates among the files says nothing about the year of the kubelet's log.
#[test]
fn the_directory_as_a_whole_says_the_same() {
    let found = analyze(&files("seed", &["."]));
    assert_eq!(found.judged(), ["collision", "failed", "likely"]);
    assert_eq!(found.only()["log_lines"].as_array().unwrap().len(), 1);
    assert_eq!(found.only()["probe"]["pod"]["name"], "nginx-5dfb7c896c-x2q2w");
    let unread: Vec<&Value> = found.inputs.iter().filter(|input| input["kind"].is_null()).collect();
    assert_eq!(unread.len(), 1, "README.md: {unread:#?}");
}

/// What most people have at hand: `kubectl get pods -A -o wide`.
#[test]
fn a_table_of_pods_names_the_server_and_no_probe() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("pods.txt");
    let rows = "NAMESPACE NAME READY STATUS RESTARTS AGE IP NODE\n\
                default nginx-5dfb7c896c-x2q2w 1/1 Running 3 (2d ago) 5d 10.23.77.138 node-a\n";
    fs::write(&table, rows).unwrap();
    let mut args = files("seed", &["capture-listing.txt", "services.txt"]);
    args.push(table.display().to_string());
    let output = portclash(&["analyze"]).args(&args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("10.23.77.138:80 is pod default/nginx-5dfb7c896c-x2q2w"), "{text}");
    assert_eq!(analyze(&args).only()["probe"], Value::Null);
}

#[test]
fn the_text_names_the_request_that_nginx_did_not_get() {
    let output = portclash(&["analyze"]).args(files("seed", &ALL)).env("COLUMNS", "200").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "the server logged no request of 10.23.77.129 at 2022-09-15 11:09:02, where its rhythm of 10 s wants one",
        "this log's clock is 8:00 h behind that of the packets",
        "NodePort kube-system/kubernetes-dashboard:443",
        "readiness probe of default/nginx-5dfb7c896c-x2q2w",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

#[test]
fn less_material_says_less() {
    let found = analyze(&files("seed", &["capture-listing.txt"]));
    assert_eq!(found.judged(), ["collision", "pending", "possible"]);
    assert_eq!(found.only()["service"], Value::Null);
    // The probe's text alone is no evidence of a port.
    let found = analyze(&files("seed", &["kubelet.log", "services.txt", "sysctl.txt"]));
    assert_eq!((found.incidents.len(), found.status), (0, 0));
    assert_eq!(found.summary["probe_failures_elsewhere"], 1);
    // node-local-dns asks itself: nothing is wrong with that.
    let found = analyze(&files("seed", &["tcpdump-lo.txt"]));
    assert_eq!((found.incidents.len(), found.summary["connects_seen"].as_u64()), (0, Some(2)));
}
