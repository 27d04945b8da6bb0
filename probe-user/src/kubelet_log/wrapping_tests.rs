//! The same failure comes out of every wrapping, however the log is cut into blocks.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::cases_tests::read;
use super::*;

const WRAPPINGS: usize = 9;

/// One record of the kubelet, which may have several lines.
fn record() -> impl Strategy<Value = String> {
    let output = prop::sample::select(vec![
        "\"Get \\\"http://10.23.77.138:80/\\\": context deadline exceeded\"",
        "\"Get \\\"http://[fd00::1]:80/é\\u00e9\\\": dial tcp [fd00::1]:80: connect: connection refused\"",
        "\"\"",
        "\"dial tcp 10.0.0.1:80: i/o timeout\"",
        "<\n\tcommand said\n\t\"this\" <&>\n >",
        "<\n\tGet \"http://10.0.0.1:80/\": EOF\n >",
    ]);
    let kind = prop::sample::select(vec!["Liveness", "Readiness", "Startup"]);
    let pod = prop::sample::select(vec!["default/nginx", "kube-system/web-1.node"]);
    let structured = (output, kind.clone(), pod.clone()).prop_map(|(output, kind, pod)| {
        format!("\"Probe failed\" probeType=\"{kind}\" pod=\"{pod}\" podUID=3daea6ef-f286-43f2 containerName=\"c\" output={output}")
    });
    let classic = (kind, any::<bool>()).prop_map(|(kind, errored)| {
        let how =
            if errored { "errored: rpc error: x" } else { "failed (failure): Get http://10.0.0.1:80/: EOF" };
        format!("{kind} probe for \"web-1_default(3daea6ef-f286-43f2):web\" {how}")
    });
    let other = Just("\"SyncLoop\" pod=\"a/b\"".to_owned());
    (prop_oneof![3 => structured, 1 => classic, 1 => other], any::<bool>()).prop_map(|(message, prober)| {
        let file = if prober { "prober.go" } else { "kubelet.go" };
        format!("I0915 19:09:04.534948  607529 {file}:121] {message}")
    })
}

/// A line in the given wrapping; `parts` is where a line is cut in two, if the wrapping can.
fn wrap(line: &str, how: usize, cut: usize) -> String {
    let cut = (0..=cut % (line.len() + 1)).rev().find(|at| line.is_char_boundary(*at)).unwrap();
    let cri = |line: &str, tag| format!("2022-09-15T21:09:04.534948+02:00 stderr {tag} {line}\n");
    let docker = |log: String| json!({"log": log, "stream": "stderr", "time": "2022-09-15T19:09:04.534948Z"});
    match how {
        0 => format!("{line}\n"),
        1 => cri(line, "F"),
        2 => cri(&line[..cut], "P") + &cri(&line[cut..], "F"),
        3 => format!("{}\n", docker(format!("{line}\n"))),
        4 => format!("Sep 15 19:09:04 node-a kubelet: {line}\n"),
        5 => format!("2022-09-15T19:09:04.534948Z node-a k3s[12]: {line}\r\n"),
        6 => {
            format!("{}\n", json!({"_PID": "1", "MESSAGE": line, "__REALTIME_TIMESTAMP": "1663268944534948"}))
        }
        7 => format!("{}\n", json!({"MESSAGE": line.as_bytes(), "__REALTIME_TIMESTAMP": "1663268944534948"})),
        _ => format!("{}\n", docker(format!("{}\n", cri(line, "F").trim_end()))),
    }
}

fn without_line(failures: Vec<ProbeFailure>) -> Vec<ProbeFailure> {
    failures.into_iter().map(|failure| ProbeFailure { line: None, ..failure }).collect()
}

fn parser() -> LineParser {
    LineParser::new(Arc::from("kubelet.log"), Times { zone: None, year: YearRule::From(2022) })
}

proptest! {
    #[test]
    fn every_wrapping_gives_the_same_failures(
        records in prop::collection::vec(record(), 1..6), cuts in prop::collection::vec(any::<usize>(), 1..8)
    ) {
        let lines: Vec<&str> = records.iter().flat_map(|record| record.split('\n')).collect();
        let plain = without_line(read(&(lines.join("\n") + "\n")));
        for how in 1..WRAPPINGS {
            let cuts = cuts.iter().copied().cycle();
            let log: String = lines.iter().zip(cuts).map(|(line, cut)| wrap(line, how, cut)).collect();
            prop_assert_eq!(&without_line(read(&log)), &plain, "{}", log);
        }
    }

    #[test]
    fn blocks_may_end_anywhere(
        records in prop::collection::vec((record(), 0..WRAPPINGS), 1..6), sizes in prop::collection::vec(1..200_usize, 1..6)
    ) {
        let log: String = records.iter().flat_map(|(record, how)| {
            record.split('\n').map(|line| wrap(line, *how, line.len() / 2)).collect::<Vec<_>>()
        }).collect();
        let mut scanner = Scanner::new(parser());
        let mut found = Vec::new();
        let mut rest = log.as_bytes();
        for size in sizes.iter().cycle() {
            let (block, after) = rest.split_at(rest.len().min(*size));
            scanner.feed(block, &mut found);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        scanner.finish(&mut found);
        prop_assert_eq!(found, read(&log));
    }

    #[test]
    fn the_scan_finds_what_reading_every_line_finds(records in prop::collection::vec((record(), 0..WRAPPINGS), 1..8)) {
        let log: String = records.iter().flat_map(|(record, how)| {
            record.split('\n').map(|line| wrap(line, *how, line.len() / 3)).collect::<Vec<_>>()
        }).collect();
        let (mut parser, mut found) = (parser(), Vec::new());
        for (line, number) in log.lines().zip(1..) {
            parser.line(line.as_bytes(), Some(number), &mut found);
        }
        parser.flush(&mut found);
        prop_assert_eq!(found, read(&log));
    }
}

// docker cuts at 16 KiB, wherever that is in the line
#[test]
fn a_line_that_docker_cut_in_two() {
    let long = "x".repeat(20_000);
    let tail = "prober.go:107] \"Probe failed\" probeType=\"Liveness\" pod=\"ns/p\" output=\"HTTP probe failed with statuscode: 500\"\n";
    // The needle itself is cut.
    let head = format!("I0915 19:09:04.534948 1 {}", "prob");
    let entry =
        |log: &str| format!("{}\n", json!({"log": log, "stream": "stderr", "time": "2022-09-15T19:09:04Z"}));
    let whole = format!(
        "I0915 19:09:04.534948 1 prober.go:107] \"Probe failed\" pod=\"ns/p\" x=\"{long}\" output=\"dial tcp 10.0.0.1:80: EOF\"\n"
    );
    let found = read(&(entry(&whole[..16384]) + &entry(&whole[16384..])));
    assert_eq!((found.len(), found[0].target), (1, "10.0.0.1:80".parse().ok()));
    // Short and without its end: the container's last words, no part.
    let found = read(&(entry(&head) + &entry(&format!("I0915 19:09:04.534948 1 {tail}"))));
    assert_eq!((found.len(), found[0].line), (1, Some(2)));
}
