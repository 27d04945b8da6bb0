//! What else depends on the metrics: Prometheus' own judgement, the rules, the dashboard, the documentation.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use crate::report::status_samples as samples;
use crate::serve::snapshot::HookView;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs promtool; it must be content.
fn promtool(arguments: &[&str], input: &str) -> String {
    let unpacked = root().join("target/promtool/usr/bin/promtool");
    let program = if unpacked.is_file() { unpacked } else { "promtool".into() };
    let spawned = Command::new(program)
        .args(arguments)
        .current_dir(root().join("deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.expect("promtool is not here: run `cargo xtask setup`, or `cargo xtask test`");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {}: {said}", arguments.join(" "));
    said
}

#[test]
fn promtool_has_nothing_to_say_against_the_metrics() {
    assert_eq!(promtool(&["check", "metrics"], &render(&samples::busy(), Flavour::Prometheus)), "");
    assert_eq!(promtool(&["check", "metrics"], &render(&Snapshot::default(), Flavour::Prometheus)), "");
}

/// promtool reads OpenMetrics only to fill a database, and for that every sample needs a time.
#[test]
fn prometheus_reads_the_open_metrics() {
    let page = render(&samples::busy(), Flavour::OpenMetrics);
    let timed =
        |line: &str| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1663269942\n") };
    let folder = tempfile::tempdir().unwrap();
    let (file, blocks) = (folder.path().join("metrics"), folder.path().join("blocks"));
    std::fs::write(&file, page.lines().map(timed).collect::<String>()).unwrap();
    let [file, blocks] = [&file, &blocks].map(|path| path.to_str().unwrap());
    promtool(&["tsdb", "create-blocks-from", "openmetrics", file, blocks], "");
    // A database has one, and dump insists on it.
    std::fs::create_dir(Path::new(blocks).join("wal")).unwrap();
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    let dumped = promtool(&["tsdb", "dump", blocks], "");
    assert_eq!(dumped.lines().filter(|line| line.starts_with('{')).count(), series);
    assert!(dumped.contains("__name__=\"portclash_events_lost_total\""), "{dumped}");
}

#[test]
fn every_alert_fires_in_a_test_of_its_own_and_nothing_else_does() {
    promtool(&["check", "rules", "rules.yaml"], "");
    promtool(&["test", "rules", "tests.yaml"], "");
    let (rules, tests) = (read("deploy/prometheus/rules.yaml"), read("deploy/prometheus/tests.yaml"));
    let named = |text: &str, key: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| Some(line.trim().strip_prefix(key)?.trim().to_owned())).collect()
    };
    let alerts = named(&rules, "- alert:");
    assert!(alerts.len() >= 15, "{alerts:?}");
    // Those that a test expects with labels.
    let fires: BTreeSet<String> = tests
        .split("alertname: ")
        .skip(1)
        .filter(|test| test.lines().nth(2).is_some_and(|line| line.trim() == "- exp_labels:"))
        .map(|test| test.lines().next().unwrap().trim().to_owned())
        .collect();
    assert_eq!(fires, alerts);
    let recorded = named(&rules, "- record:");
    for rule in recorded {
        assert!(tests.contains(&format!("expr: {rule}\n")), "{rule} is not tested");
    }
}

/// The metrics of a sidecar for which nothing can be done must not make an alert fire for good.
#[test]
fn no_alert_fires_for_a_table_of_a_file_and_for_needs_that_nothing_calls_for() {
    let mut now = samples::quiet();
    now.table.is_file = true;
    // The rules are tested with a clock that begins at 0.
    now.table.read_at = Some(0);
    for need in ["table_change", "module_change", "hijack"] {
        now.hooks.push(HookView { need, way: None, excused: true });
    }
    let page = render(&now, Flavour::Prometheus);
    let mut test = format!(
        "rule_files: [{}]\ntests:\n- interval: 1m\n  input_series:\n",
        root().join("deploy/prometheus/rules.yaml").display()
    );
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        test += &format!("  - series: '{series}'\n    values: '{value}x60'\n");
    }
    let alerts =
        "count by (alertname) (ALERTS{alertname=~\"PortclashNeedUnmet|PortclashServiceTableStale\"})";
    test += &format!("  promql_expr_test:\n  - expr: '{alerts}'\n    eval_time: 1h\n    exp_samples: []\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tests.yaml");
    std::fs::write(&file, test).unwrap();
    promtool(&["test", "rules", file.to_str().unwrap()], "");
}

#[test]
fn the_rules_of_the_operator_are_the_same() {
    let (path, rules) = ("deploy/prometheus/prometheusrule.yaml", read("deploy/prometheus/rules.yaml"));
    let groups = &rules[rules.find("groups:").unwrap()..];
    let indented = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    let wanted = groups.lines().map(indented).collect::<String>();
    let committed = read(path);
    let (head, body) = committed.split_at(committed.find("  groups:").unwrap());
    assert!(head.contains("kind: PrometheusRule\n") && head.ends_with("spec:\n"), "{head}");
    if std::env::var_os("UPDATE_RULES").is_some() {
        return std::fs::write(root().join(path), format!("{head}{wanted}")).unwrap();
    }
    assert!(body == wanted, "{path} is out of date: run with UPDATE_RULES=1");
}

/// Words of an expression that can be names of metrics.
fn names_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let words = text.split(|c| !word(c));
    let ours = |name: &&str| {
        ["portclash_", "process_"].iter().any(|prefix| name.starts_with(prefix))
            || name.contains(":portclash_")
    };
    words.filter(ours).map(str::to_owned).collect()
}

/// Names that exist: of the metrics as they are written, and of recording rules.
fn known_names(rules: &str) -> BTreeSet<String> {
    let page = render(&samples::busy(), Flavour::Prometheus);
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names = samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned());
    let recorded = rules.lines().filter_map(|line| line.trim().strip_prefix("- record:"));
    names.chain(recorded.map(|name| name.trim().to_owned())).collect()
}

fn expressions(panels: &serde_json::Value) -> Vec<String> {
    let targets = panels.as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_exist_and_the_dashboard_all_of_them() {
    let (rules, dashboard) = (read("deploy/prometheus/rules.yaml"), read("deploy/grafana/portclash.json"));
    let known = known_names(&rules);
    let unknown: Vec<String> = names_in(&rules).difference(&known).cloned().collect();
    assert!(unknown.is_empty(), "rules: {unknown:?}");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let all = expressions(&dashboard["panels"]);
    let shown = names_in(&all.join("\n"));
    let unknown: Vec<&String> = shown.difference(&known).collect();
    assert!(unknown.is_empty(), "dashboard: {unknown:?}");
    let variable = dashboard["templating"].to_string();
    assert!(names_in(&variable).is_subset(&known));
    // Nobody looks at these over time.
    let elsewhere = ["process_virtual_memory_bytes", "process_max_fds"];
    let missing: Vec<String> = FAMILIES
        .iter()
        .map(Family::sample_name)
        .filter(|name| !shown.contains(name) && !elsewhere.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
}

#[test]
fn every_expression_of_the_dashboard_is_valid() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/portclash.json")).unwrap();
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    let all = expressions(&dashboard["panels"]);
    for (number, expression) in all.iter().enumerate() {
        let expression =
            expression.replace("$__rate_interval", "5m").replace("$__range", "6h").replace("$instance", ".*");
        assert!(!expression.contains('$'), "{expression}");
        rules += &format!("  - record: panel:number{number}\n    expr: {}\n", serde_json::json!(expression));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, rules).unwrap();
    let said = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert!(said.contains(&format!("{} rules found", all.len())), "{said}");
}

#[test]
fn the_documentation_has_exactly_these_metrics() {
    let row = |family: &Family| {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = family.kind.name(Flavour::OpenMetrics);
        format!("| `{}` | {kind} | {} | {} |", family.sample_name(), labels.join(", "), family.help)
    };
    let rows: Vec<String> = FAMILIES.iter().map(row).collect();
    let text = read("docs/metrics.md");
    let is_row = |line: &&str| line.starts_with("| `portclash_") || line.starts_with("| `process_");
    let found: Vec<&str> = text.lines().filter(is_row).collect();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let (start, end) = (text.find("| `portclash_").unwrap(), text.rfind("| `process_").unwrap());
        let end = end + text[end..].find('\n').unwrap();
        let text = format!("{}{}{}", &text[..start], rows.join("\n"), &text[end..]);
        return std::fs::write(root().join("docs/metrics.md"), text).unwrap();
    }
    assert!(found == rows, "docs/metrics.md is out of date: run with UPDATE_DOCS=1");
}
