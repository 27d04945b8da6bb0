//! The form of a request.

use std::fmt::Write as _;

use super::*;
use crate::report::status_samples;

/// One line for what surrounds, for each metric, and for each data point.
fn lines(mut request: Value) -> String {
    let mut text = String::new();
    let taken = |within: &mut Value, key: &str| within.as_object_mut().unwrap().remove(key).unwrap();
    let metrics = taken(&mut request["resourceMetrics"][0]["scopeMetrics"][0], "metrics");
    writeln!(text, "{request}").unwrap();
    for mut metric in metrics.as_array().unwrap().clone() {
        let kind = if metric.get("sum").is_some() { "sum" } else { "gauge" };
        let points = taken(&mut metric[kind], "dataPoints");
        writeln!(text, "{metric}").unwrap();
        points.as_array().unwrap().iter().for_each(|point| writeln!(text, "  {point}").unwrap());
    }
    text
}

#[test]
fn a_request_has_the_form_of_the_protocol() {
    let metrics = metrics_otlp::metrics(&status_samples::busy());
    let request = lines(request(&metrics.all, Some("node-a")));
    assert_eq!(request.matches("\n  {").count() as u64, metrics.points);
    insta::assert_snapshot!(request);
}

#[test]
fn without_a_name_the_node_has_none() {
    let text = request(&[], None).to_string();
    assert!(!text.contains("instance") && !text.contains("node"), "{text}");
}
