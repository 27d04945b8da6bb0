use super::*;
use crate::report::status_samples as samples;

/// As they are sent.
fn sent(now: &Snapshot) -> Vec<Json> {
    metrics(now).all.iter().map(|metric| serde_json::to_value(metric).unwrap()).collect()
}

/// What translators make of a name, by the rules of `prometheus/otlptranslator`: the unit is appended if no part of the name
/// says it, `total` becomes the last part of a sum's name, `ratio` that of a gauge with the unit 1.
fn translated(metric: &Json) -> String {
    let name = metric["name"].as_str().unwrap();
    let mut parts: Vec<&str> = name.split('_').collect();
    let is_sum = metric.get("sum").is_some();
    let unit = metric.get("unit").map(|unit| unit.as_str().unwrap());
    let long = match unit {
        Some("s") => Some("seconds"),
        Some("By") => Some("bytes"),
        Some("1") | None => None,
        Some(other) => panic!("{other}: how is it translated?"),
    };
    if let Some(long) = long.filter(|long| !parts.contains(long)) {
        parts.push(long);
    }
    let last = if is_sum { Some("total") } else { (unit == Some("1")).then_some("ratio") };
    if let Some(last) = last {
        parts.retain(|part| *part != last);
        parts.push(last);
    }
    parts.join("_")
}

#[test]
fn translated_back_every_name_is_that_of_the_page() {
    let metrics = sent(&samples::busy());
    for metric in &metrics {
        assert_eq!(translated(metric), metric["name"]);
    }
    let with = |unit: &str| metrics.iter().filter(|metric| metric["unit"] == unit).count();
    assert!(with("s") > 3 && with("By") > 1 && with("1") == 1, "{metrics:#?}");
}

#[test]
fn numbers_are_written_as_the_json_of_protobuf_wants_them() {
    assert_eq!(number(Value::Whole(7)), Number::AsInt("7".into()));
    assert_eq!(number(Value::Whole(u64::MAX)), Number::AsDouble(18_446_744_073_709_551_615_f64.into()));
    assert_eq!(number(Value::Real(0.25)), Number::AsDouble(0.25.into()));
    for (real, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity")] {
        assert_eq!(number(Value::Real(real)), Number::AsDouble(word.into()));
    }
    assert_eq!(number(Value::Nanos(-1_500_000_000)), Number::AsDouble((-1.5).into()));
}

#[test]
fn nothing_is_counted_from_later_than_now_even_if_the_clock_was_set_back() {
    let now = Snapshot { at: samples::busy().started_at - 5, ..samples::busy() };
    let metrics = sent(&now);
    let sums = metrics.iter().filter_map(|metric| metric["sum"]["dataPoints"].as_array());
    for point in sums.flatten() {
        assert_eq!(point["startTimeUnixNano"], point["timeUnixNano"]);
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let metrics = sent(&Snapshot { node: None, kernel: Some("6.1".into()), ..Snapshot::default() });
    let named = |name: &str| metrics.iter().find(|metric| metric["name"] == name);
    assert!(named("portclash_connects_total").is_none());
    let node = &named("portclash_node_info").unwrap()["gauge"]["dataPoints"][0];
    assert_eq!(node["attributes"], json!([{"key": "kernel", "value": {"stringValue": "6.1"}}]));
    assert_eq!(node["asInt"], "1");
}
