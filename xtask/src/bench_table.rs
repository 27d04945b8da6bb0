//! The result of the bench as text for people.

use std::fmt::Write as _;

use serde_json::Value;

/// Tables of what there is: rates, run times, processor time, memory.
pub(super) fn text(result: &Value) -> String {
    let mut text = format!(
        "\nLinux {}, {} CPUs, {} services, {} rounds of {} ms\n",
        plain(result, "kernel"),
        plain(result, "cpus"),
        plain(result, "services"),
        plain(result, "rounds"),
        plain(result, "spell_ms"),
    );
    let _ = writeln!(
        text,
        "\n{:<34}{:>11}{:>10}{:>16}{:>14}",
        "", "connects/s", "of bare", "middle half", "whole spells"
    );
    for row in rows(result, "rates") {
        let half = format!("{}-{}", decimals(row, "ratio_low", 3), decimals(row, "ratio_high", 3));
        let (rate, ratio) = (decimals(row, "undisturbed_per_second", 0), decimals(row, "ratio", 3));
        let whole = decimals(row, "whole_ratio", 3);
        let _ = writeln!(text, "{:<34}{rate:>11}{ratio:>10}{half:>16}{whole:>14}", plain(row, "name"));
        for failure in rows(row, "failures") {
            let _ = writeln!(text, "  not measured: {}", failure.as_str().unwrap_or_default());
        }
    }
    for set in rows(result, "programs") {
        let _ = writeln!(text, "\n{:<34}{:>12}{:>14}", plain(set, "name"), "ns per run", "per connect");
        let connects = number(set, "connects");
        for program in rows(set, "programs") {
            let often = number(program, "runs") / connects;
            let _ = writeln!(
                text,
                "  {:<32}{:>12}{often:>14.2}",
                plain(program, "name"),
                plain(program, "ns_per_run")
            );
        }
        let _ = writeln!(text, "  {:<32}{:>12} ns per connect", "together", plain(set, "ns_per_connect"));
    }
    let readers = rows(result, "readers");
    if !readers.is_empty() {
        let _ =
            writeln!(text, "\n{:<34}{:>11}{:>16}{:>10}", "who counts", "connects/s", "% of a core", "lost");
    }
    for reader in readers {
        let (rate, share) = (decimals(reader, "per_second", 0), decimals(reader, "core_percent", 2));
        let _ =
            writeln!(text, "{:<34}{rate:>11}{share:>16}{:>10}", plain(reader, "name"), plain(reader, "lost"));
        if let Some(failure) = reader.get("failure").and_then(Value::as_str) {
            let _ = writeln!(text, "  not measured: {failure}");
        }
    }
    if !rows(result, "observers").is_empty() {
        sidecar(&mut text, result);
    }
    if rows(result, "memory").is_empty() {
        return text;
    }
    let _ = writeln!(text, "\n{:<34}{:>12}{:>12}{:>14}", "memory, MiB", "resident", "peak", "kernel's maps");
    for size in rows(result, "memory") {
        let maps: f64 = rows(size, "maps").iter().map(|map| number(map, "kib")).sum();
        let name = format!("{} services", plain(size, "services"));
        let (resident, peak) = (number(size, "resident_kib") / 1024.0, number(size, "peak_kib") / 1024.0);
        let _ = writeln!(text, "{name:<34}{resident:>12.1}{peak:>12.1}{:>14.1}", maps / 1024.0);
    }
    text
}

/// The sidecar and those beside it.
fn sidecar(text: &mut String, result: &Value) {
    let (pods, start) = (plain(result, "pods"), decimals(result, "start_ms", 0));
    let _ = writeln!(text, "{pods} pods; from start to ready: {start} ms\n");
    let _ = writeln!(
        text,
        "{:<36}{:>11}{:>10}{:>10}{:>14}{:>10}{:>8}{:>12}",
        "", "connects/s", "user %", "BPF %", "resident MiB", "own MiB", "lost", "metrics ms"
    );
    for row in rows(result, "observers") {
        let mib = |key: &str| number(row, key) / 1024.0;
        let answer = rows(row, "metrics_ms_under_load").first().and_then(Value::as_f64);
        let _ = writeln!(
            text,
            "{:<36}{:>11}{:>10}{:>10}{:>14.1}{:>10.1}{:>8}{:>12}",
            plain(row, "name"),
            decimals(row, "per_second", 0),
            decimals(row, "user_core_percent", 2),
            decimals(row, "bpf_core_percent", 2),
            mib("resident_kib"),
            mib("anonymous_kib"),
            plain(row, "lost"),
            answer.map_or_else(|| "-".to_owned(), |answer| format!("{answer:.2}")),
        );
        if let Some(failure) = row.get("failure").and_then(Value::as_str) {
            let _ = writeln!(text, "  not measured: {failure}");
        }
    }
}

/// One line per log.
pub(super) fn log_text(logs: &[Value]) -> String {
    let mut text = format!("\n{:<34}{:>9}{:>9}", "100 MB of", "lines", "failed");
    let _ = writeln!(text, "{:>10}{:>10}{:>10}{:>10}", "scan, ms", "of CPU", "grep, ms", "of CPU");
    for log in logs {
        let (name, lines, failures) = (plain(log, "log"), plain(log, "lines"), plain(log, "failures"));
        let _ = write!(text, "{name:<34}{lines:>9}{failures:>9}");
        for time in ["scan_ms", "scan_cpu_ms", "grep_ms", "grep_cpu_ms"] {
            let _ = write!(text, "{:>10}", decimals(log, time, 1));
        }
        text.push('\n');
    }
    text
}

pub(super) fn rows<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// NaN where it is missing.
fn number(value: &Value, name: &str) -> f64 {
    value.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

pub(super) fn decimals(value: &Value, name: &str, digits: usize) -> String {
    match value.get(name).and_then(Value::as_f64) {
        Some(number) => format!("{number:.digits$}"),
        None => "-".to_owned(),
    }
}

pub(super) fn plain(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_measured_is_a_dash_with_its_reason() {
        let rates = json!([{"name": "bpftrace", "per_second": null, "ratio": null, "failures": ["cannot start bpftrace"]}]);
        let text = text(&json!({"rates": rates}));
        let row = text.lines().find(|line| line.starts_with("bpftrace")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["bpftrace", "-", "-", "---", "-"]);
        assert!(text.contains("not measured: cannot start bpftrace"), "{text}");
    }

    #[test]
    fn a_log_is_one_line() {
        let text = log_text(&[
            json!({"log": "CRI", "lines": 4, "failures": 1, "scan_ms": 20.04, "scan_cpu_ms": 19.0, "grep_ms": 30.0}),
        ]);
        let row = text.lines().find(|line| line.starts_with("CRI")).unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["CRI", "4", "1", "20.0", "19.0", "30.0", "-"]
        );
    }

    #[test]
    fn runs_are_shown_per_connect() {
        let programs = json!([{"name": "fentry", "connects": 100, "ns_per_connect": 55,
            "programs": [{"name": "connect_fentry", "runs": 250, "ns_per_run": 22}]}]);
        let text = text(&json!({"programs": programs}));
        let row = text.lines().find(|line| line.contains("connect_fentry")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["connect_fentry", "22", "2.50"]);
    }
}
