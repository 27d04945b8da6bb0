//! Lines that people posted, names and addresses replaced.

use std::sync::Arc;

use super::*;
use crate::diagnosis::time::rfc3339;

/// All failures in a log of 2022 whose node is in UTC.
pub(super) fn read(log: &str) -> Vec<ProbeFailure> {
    let times = Times { zone: Some(jiff::tz::TimeZone::UTC), year: YearRule::From(2022) };
    let parser = LineParser::new(Arc::from("kubelet.log"), times);
    let (found, _) = scan_reader(log.as_bytes(), "kubelet.log", parser).unwrap();
    found
}

pub(super) fn one(log: &str) -> ProbeFailure {
    let mut all = read(log);
    assert_eq!(all.len(), 1, "{log}\n{all:#?}");
    all.remove(0)
}

fn who(failure: &ProbeFailure) -> [&str; 4] {
    [&failure.namespace, &failure.name, &failure.uid, &failure.container]
        .map(|part| part.as_deref().unwrap_or("-"))
}

fn at(failure: &ProbeFailure) -> String {
    failure.at.map_or_else(|| "-".to_owned(), rfc3339)
}

fn target(failure: &ProbeFailure) -> String {
    failure.target.map_or_else(|| "-".to_owned(), |target| target.to_string())
}

const UID: &str = "92d60c48-6b22-11e7-a1ec-0a58ac1f0a2c";

// kubernetes/kubernetes#62594
#[test]
fn refused_in_kubernetes_1_7_through_syslog_without_pid() {
    let prefix = "Jul 17 20:31:39 node-a kubelet: I0717 20:31:39.569363   23774 prober.go";
    let failure = one(&format!(
        "{prefix}:113] Readiness probe for \"web-0_default({UID}):web\" succeeded\n\
         {prefix}:106] Readiness probe for \"web-1_default({UID}):web\" failed (failure): Get http://10.11.75.4:8080/health: dial \
         tcp 10.11.75.4:8080: getsockopt: connection refused\n"
    ));
    assert_eq!(failure.kind, Some(ProbeType::Readiness));
    assert_eq!(who(&failure), ["default", "web-1", UID, "web"]);
    assert_eq!((target(&failure).as_str(), failure.class), ("10.11.75.4:8080", FailureClass::Refused));
    assert_eq!((at(&failure).as_str(), failure.line), ("2022-07-17T20:31:39.569363000Z", Some(2)));
}

// midbai.com, "many pod probes failing after upgrading Kubernetes" (1.23)
#[test]
fn deadline_exceeded_in_kubernetes_1_23_with_unquoted_uid_and_result() {
    let failure = one(
        "I0915 19:09:04.534948  607529 prober.go:121] \"Probe failed\" probeType=\"Readiness\" \
         pod=\"default/nginx-5dfb7c896c-x2q2w\" podUID=3daea6ef-f286-43f2-8825-51edaa3994d3 containerName=\"nginx\" \
         probeResult=failure output=\"Get \\\"http://10.23.77.138:80/\\\": context deadline exceeded (Client.Timeout exceeded while \
         awaiting headers)\"",
    );
    assert_eq!(failure.kind, Some(ProbeType::Readiness));
    let uid = "3daea6ef-f286-43f2-8825-51edaa3994d3";
    assert_eq!(who(&failure), ["default", "nginx-5dfb7c896c-x2q2w", uid, "nginx"]);
    assert_eq!((target(&failure).as_str(), failure.class), ("10.23.77.138:80", FailureClass::Timeout));
    assert_eq!(at(&failure), "2022-09-15T19:09:04.534948000Z");
    assert!(
        failure.text.starts_with("I0915 19:09:04.534948  607529 prober.go:121] \"Probe failed\""),
        "{}",
        failure.text
    );
    assert!(failure.text.ends_with("awaiting headers)\""), "{}", failure.text);
}

// openshift/origin#27612 (1.29)
#[test]
fn output_on_following_lines() {
    let head = "I0915 19:09:04.534948 1 prober.go:107] \"Probe failed\" probeType=\"Liveness\" pod=\"ns/p-1\" \
                podUID=\"92d60c48-6b22-11e7-a1ec-0a58ac1f0a2c\" containerName=\"c\" probeResult=\"failure\" output=<";
    let next = "I0915 19:09:05.000000 1 prober.go:107] \"Probe failed\" probeType=\"Readiness\" pod=\"ns/p-2\" output=\"\"";
    let whole = read(&format!(
        "{head}\n\tGet \"http://10.0.0.1:80/\": EOF\n\tprober.go:1] pod=\"evil/pod\"\n >\n{next}\n"
    ));
    assert_eq!(whole.len(), 2);
    assert_eq!((target(&whole[0]).as_str(), whole[0].class), ("10.0.0.1:80", FailureClass::Other));
    assert_eq!(who(&whole[0]), ["ns", "p-1", UID, "c"]);
    // Cut away by grep, in the middle and at the end.
    for log in [format!("{head}\n{next}\n{head}"), format!("{head}\n{next}\n{head}\n")] {
        let cut = read(&log);
        let classes: Vec<_> = cut.iter().map(|failure| failure.class).collect();
        assert_eq!(classes, [FailureClass::Cut, FailureClass::Empty, FailureClass::Cut]);
        assert_eq!((who(&cut[0]), target(&cut[0]).as_str()), (["ns", "p-1", UID, "c"], "-"));
        assert_eq!(cut.iter().map(|failure| failure.line).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    }
}

// kubernetes/kubernetes#114239, vectordotdev/vector#6793
#[test]
fn the_http_probers_own_line_is_the_same_failure_and_its_headers_are_not_kept() {
    let failure = one(
        "{\"log\":\"I1201 01:10:55.515000    2000 http.go:137] Probe failed for http://10.0.0.1:80/ with request headers \
         map[Authorization:[Bearer SECRET]], response body: prober.go:1] x\\n\",\"stream\":\"stderr\",\"time\":\"2022-12-01T01:10:55.515174992Z\"}\n\
         {\"log\":\"I1201 01:10:55.515000    2000 prober.go:116] \\\"Probe failed\\\" probeType=\\\"Liveness\\\" pod=\\\"ns/p\\\" \
         podUID=92d60c48-6b22-11e7-a1ec-0a58ac1f0a2c containerName=\\\"c\\\" probeResult=failure output=\\\"HTTP probe failed \
         with statuscode: 503\\\"\\n\",\"stream\":\"stderr\",\"time\":\"2022-12-01T01:10:55.515174992Z\"}\n",
    );
    assert_eq!((failure.kind, failure.class), (Some(ProbeType::Liveness), FailureClass::HttpStatus(503)));
    assert_eq!((at(&failure).as_str(), target(&failure).as_str()), ("2022-12-01T01:10:55.515174992Z", "-"));
    assert_eq!(who(&failure), ["ns", "p", UID, "c"]);
    assert!(!format!("{failure:?}").contains("SECRET"));
}

// kubermatic/kubermatic#2977, fluent/fluent-bit#667
#[test]
fn the_runtimes_time_has_year_and_zone_and_parts_are_joined() {
    let failure =
        one("2019-03-08T11:31:46.679082406Z stderr F E0308 11:31:46.678784 1 reflector.go:205] x\n\
         2019-03-08T06:31:47.5-05:00 stderr P I0308 06:31:47.499999 1 prob\n\
         2019-03-08T06:31:47.6-05:00 stdout F I0308 06:31:47.499999 1 other.go:1] not in between\n\
         2019-03-08T06:31:47.6-05:00 stderr P er.go:121] \"Probe fai\n\
         2019-03-08T06:31:47.6-05:00 stderr F led\" probeType=\"Startup\" pod=\"ns/p\"\n");
    assert_eq!((at(&failure).as_str(), failure.line), ("2019-03-08T11:31:47.500000000Z", Some(2)));
    assert_eq!((failure.kind, who(&failure)), (Some(ProbeType::Startup), ["ns", "p", "-", "-"]));
}

// kubernetes-sigs/kind, end-to-end logs
#[test]
fn ipv6_targets_and_unreachable_networks_and_empty_output() {
    let line = |output: &str| {
        one(&format!(
            "I0915 19:09:04.534948 1 prober.go:107] \"Probe failed\" probeType=\"Readiness\" pod=\"ns/p\" output=\"{output}\""
        ))
    };
    let url = "Get \\\"http://[fd00:10:244:1::11e]:80/index.html\\\": dial tcp [fd00:10:244:1::11e]:80";
    let failure = line(&format!("{url}: i/o timeout (Client.Timeout exceeded while awaiting headers)"));
    assert_eq!(
        (target(&failure).as_str(), failure.class),
        ("[fd00:10:244:1::11e]:80", FailureClass::Timeout)
    );
    let failure = line(&format!("{url}: connect: network is unreachable"));
    assert_eq!(failure.class, FailureClass::Unreachable);
    assert!(!failure.class.may_be_unanswered());
    let failure = line("");
    assert_eq!((target(&failure).as_str(), failure.class), ("-", FailureClass::Empty));
}

// kubernetes/kubernetes#82987, kubernetes/kubernetes#92464, bottlerocket-os/bottlerocket#3867,
// GoogleCloudPlatform/microservices-demo#62
#[test]
fn commands_in_the_container_have_no_target_and_their_output_is_not_kept() {
    let head = "I0915 19:09:04.534948 1 prober.go:107]";
    let classic = format!("{head} Liveness probe for \"redis-0_db({UID}):redis\"");
    for (line, container) in [
        (
            format!("{classic} errored: rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
            "redis",
        ),
        (format!("{classic} errored: command \"sh -c /health/ping.sh SECRET\" timed out"), "redis"),
        (format!("{classic} failed (failure): dialing 10.0.0.1:80 with SECRET: connection refused"), "redis"),
        (format!("{head} Liveness probe errored: rpc error: code = Unknown desc = SECRET"), "-"),
        (
            format!(
                "{head} \"Probe failed\" probeType=\"Liveness\" pod=\"db/redis-0\" containerName=\"redis\" output=<\n\ttimeout: failed to \
                 connect service \":8080\" within 1s\n\t10.0.0.1:8080\n\tSECRET\n\tx\n\ty\n >"
            ),
            "redis",
        ),
    ] {
        let failure = one(&line);
        assert_eq!((failure.class, target(&failure).as_str()), (FailureClass::Exec, "-"), "{line}");
        assert_eq!((failure.kind, who(&failure)[3]), (Some(ProbeType::Liveness), container), "{line}");
        assert!(
            !failure.text.contains("SECRET") && failure.text.contains("prober.go:107]"),
            "{}",
            failure.text
        );
    }
}

// kubernetes/kubernetes, pkg/probe/grpc: no posted sample is known
#[test]
fn the_built_in_grpc_probe() {
    let failure = one(
        "I0915 19:09:04.534948 1 prober.go:107] \"Probe failed\" probeType=\"Liveness\" pod=\"ns/p\" containerName=\"c\" \
         probeResult=\"failure\" output=\"timeout: failed to connect service \\\"10.0.0.1:2379\\\" within 2s: context deadline exceeded\"",
    );
    assert_eq!((target(&failure).as_str(), failure.class), ("10.0.0.1:2379", FailureClass::Timeout));
    assert_eq!(failure.timeout_ns, Some(2_000_000_000));
}

// fluent/fluent-bit#1589, kubermatic/kubermatic#4033
#[test]
fn a_log_that_goes_on_in_the_new_year() {
    let line = |date: &str| {
        format!("I{date} 19:40:49.924011 1 prober.go:107] \"Probe failed\" pod=\"ns/p\" output=\"\"\n")
    };
    let found = read(&["1231", "0101"].map(line).concat());
    assert_eq!(
        found.iter().map(at).collect::<Vec<_>>(),
        ["2022-12-31T19:40:49.924011000Z", "2023-01-01T19:40:49.924011000Z"]
    );
}

// openshift/origin, and grafana/loki's drain test
#[test]
fn keys_in_any_order_quoted_or_not_and_unknown_ones() {
    let failure = one(
        "I0915 19:09:04.534948 1 prober.go:104] \"Probe errored\" err=\"rpc error: code = Unknown desc = x\" podUID=\
         92d60c48-6b22-11e7-a1ec-0a58ac1f0a2c logger=\"x y\" containerName=c probeType=Startup pod=ns/p new={a b} probeResult=unknown",
    );
    assert_eq!((failure.kind, who(&failure)), (Some(ProbeType::Startup), ["ns", "p", UID, "c"]));
    assert_eq!(failure.class, FailureClass::Exec);
}

// openshift/origin, patch_prober.go and lines that a pager cut
#[test]
fn half_a_name_is_no_name_and_another_file_is_not_the_prober() {
    let prefix = "Oct 24 06:34:52 node-a hyperkube[55860]: I1024 06:34:52.694128   55860";
    let failure = one(&format!(
        "{prefix} patch_prober.go:29] interesting pod/kube-apiserver-guard-node-a container/guard \"Probe failed\" pod=\"ns/p\"\n\
         {prefix} prober.go:121] \"Probe failed\" probeType=\"Readiness\" pod=\"openshift-kube-apiserver/kube-apiserver-guard>"
    ));
    assert_eq!((failure.kind, who(&failure)), (Some(ProbeType::Readiness), ["-"; 4]));
    assert_eq!(failure.class, FailureClass::Cut);
}

#[test]
fn json_logging_of_the_kubelet() {
    let failure = one(
        "{\"ts\":1663268944534.948,\"caller\":\"prober/prober.go:121\",\"msg\":\"Probe failed\",\"v\":1,\"probeType\":\"Readiness\",\"pod\":\
         {\"name\":\"nginx\",\"namespace\":\"default\"},\"podUID\":\"92d60c48-6b22-11e7-a1ec-0a58ac1f0a2c\",\"containerName\":\"nginx\",\
         \"probeResult\":\"failure\",\"output\":\"Get \\\"http://10.23.77.138:80/?token=SECRET\\\": context deadline exceeded\"}",
    );
    assert_eq!(
        (failure.kind, who(&failure)),
        (Some(ProbeType::Readiness), ["default", "nginx", UID, "nginx"])
    );
    assert_eq!(
        (at(&failure).as_str(), target(&failure).as_str()),
        ("2022-09-15T19:09:04.534948000Z", "10.23.77.138:80")
    );
    assert_eq!(
        failure.text,
        "prober/prober.go:121] \"Probe failed\" probeType=\"Readiness\" pod=\"default/nginx\" \
         podUID=\"92d60c48-6b22-11e7-a1ec-0a58ac1f0a2c\" containerName=\"nginx\" output=\"Get \\\"http://10.23.77.138:80/?…\\\": context \
         deadline exceeded\""
    );
    let failure = one(
        "{\"ts\":1663268944534.948,\"caller\":\"prober/prober.go:116\",\"msg\":\"Probe errored\",\"v\":1,\"probeType\":\"Liveness\",\"pod\":\
         \"ns/p\",\"err\":\"rpc error: SECRET\"}",
    );
    assert_eq!((failure.class, who(&failure)[1]), (FailureClass::Exec, "p"));
    assert!(!failure.text.contains("SECRET"));
}

#[test]
fn a_static_pod_has_the_hash_of_its_manifest_for_a_uid() {
    let failure = one(
        "I1220 03:18:01.710490    1233 prober.go:120] \"Probe failed\" probeType=\"Readiness\" pod=\"kube-system/kube-apiserver-k8s-0\" \
         podUID=\"040476ba7586efa8b66c57331451b5fa\" containerName=\"kube-apiserver\" probeResult=\"failure\" output=\"HTTP probe failed \
         with statuscode: 500\"",
    );
    assert_eq!(who(&failure)[2], "040476ba7586efa8b66c57331451b5fa");
}

#[test]
fn the_zone_is_said_to_be_assumed_only_where_it_counts() {
    let counts = |log: &str, zone| {
        let times = Times { zone, year: YearRule::From(2022) };
        let parser = LineParser::new(Arc::from("x"), times);
        scan_reader(log.as_bytes(), "x", parser).unwrap().1.counts().assumed_utc
    };
    let line = "I0915 19:09:04.534948 1 prober.go:107] \"Probe failed\" pod=\"ns/p\" output=\"\"\n";
    assert_eq!(counts(line, None), 1);
    assert_eq!(counts(line, Some(jiff::tz::TimeZone::UTC)), 0);
    assert_eq!(counts(&format!("2022-09-15T19:09:04Z stderr F {line}"), None), 0);
}

#[test]
fn a_long_line_is_cut_and_one_beyond_any_sense_is_left_out_and_counted() {
    let line = |length| {
        let long = "x".repeat(length);
        format!(
            "I0915 19:09:04.534948 1 prober.go:107] \"Probe failed\" pod=\"ns/p\" output=\"Get \\\"http://10.0.0.1:80/{long}\\\": EOF\"\n"
        )
    };
    let failure = one(&line(100_000));
    assert!(failure.text.len() <= 1024 && failure.text.ends_with('…'));
    assert_eq!(target(&failure), "10.0.0.1:80");
    let times = Times { zone: None, year: YearRule::From(2022) };
    let log = line(5_000_000) + &line(1);
    let (found, scanner) = scan_reader(log.as_bytes(), "x", LineParser::new(Arc::from("x"), times)).unwrap();
    assert_eq!((found.len(), scanner.too_long(), scanner.lines()), (1, 1, 2));
    assert_eq!(found[0].line, Some(2));
}
