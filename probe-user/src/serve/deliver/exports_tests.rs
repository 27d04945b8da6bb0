//! Exports to a receiver on loopback that is right, wrong, slow and down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::pods::clients::Timeouts;
use crate::pods::clients::tests::server::{Asked, Reply, Server};
use crate::pods::clients::tests::{DEADLINE, PATIENT};
use crate::report::metrics::{Flavour, render};
use crate::report::status_samples;
use crate::serve::deliver::Deliveries;
use crate::serve::deliver::tests::{PATIENCE, at, incident, until};
use crate::serve::snapshot::Request;

const HOUR: Duration = Duration::from_hours(1);
const OFTEN: Duration = Duration::from_millis(1);

/// A loop that says the same whenever it is asked.
fn saying(now: Snapshot) -> Requests {
    let (requests, mut asked) = mpsc::channel::<Request>(1);
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            let _ = request.send(Box::new(now.clone()));
        }
    });
    requests
}

fn options(server: &Server, every: Duration) -> Options {
    let otlp = Some(at(server.address, "/"));
    Options { node: Some("node-a".into()), otlp, otlp_metrics_every: Some(every), ..Options::default() }
}

fn start(server: &Server, every: Duration, patience: Patience) -> Deliveries {
    let requests = saying(status_samples::busy());
    Deliveries::start_with(&options(server, every), patience, requests).unwrap()
}

fn view(deliveries: &Deliveries) -> DeliveryView {
    deliveries.views().remove("otlp_metrics").unwrap()
}

fn counts(view: &DeliveryView) -> (u64, u64, u64) {
    (view.sent, view.failed, view.dropped)
}

/// Series and values of a request, as the page writes series, and the types of the families.
fn told(asked: &Asked) -> (BTreeMap<String, f64>, BTreeMap<String, &'static str>) {
    let request: Value = serde_json::from_slice(&asked.body).unwrap();
    let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
    for metric in request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap() {
        let name = metric["name"].as_str().unwrap();
        let (kind, points) = match metric.get("sum") {
            Some(sum) => ("counter", &sum["dataPoints"]),
            None => ("gauge", &metric["gauge"]["dataPoints"]),
        };
        assert_eq!(types.insert(name.to_owned(), kind), None, "{name} twice");
        for point in points.as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let labels = point["attributes"].as_array().unwrap().iter();
            let labels: Vec<String> = labels
                .map(|label| format!("{}=\"{}\"", text(&label["key"]), text(&label["value"]["stringValue"])))
                .collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let value = point["asDouble"].as_f64().unwrap_or_else(|| text(&point["asInt"]).parse().unwrap());
            assert_eq!(series.insert(format!("{name}{labels}"), value), None, "{name}{labels} twice");
        }
    }
    (series, types)
}

#[tokio::test]
async fn what_arrives_is_what_the_page_says() {
    let server = Server::start(None, |_| Reply::ok("{}")).await;
    let deliveries = start(&server, HOUR, PATIENCE);
    until("it arrives", || view(&deliveries).sent == 1).await;
    let asked = server.asked();
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/v1/metrics"));
    assert_eq!(asked[0].content_type.as_deref(), Some("application/json"));
    let (series, types) = told(&asked[0]);
    let page = render(&status_samples::busy(), Flavour::Prometheus);
    let on_page = page.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    assert_eq!(series, on_page.collect::<BTreeMap<_, f64>>());
    let declared = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types = types.iter().map(|(name, kind)| (name.as_str(), *kind));
    assert_eq!(types.collect::<BTreeMap<_, _>>(), declared.collect::<BTreeMap<_, _>>());
}

#[tokio::test]
async fn the_first_goes_at_once_and_the_last_at_the_end_and_none_is_tried_again() {
    for (status, expected) in [(200, (2, 0, 0)), (500, (0, 2, 1)), (404, (0, 2, 1))] {
        let server = Server::start(None, move |_| Reply::status(status)).await;
        let mut deliveries = start(&server, HOUR, PATIENCE);
        until("the first", || view(&deliveries) != DeliveryView::default()).await;
        deliveries.export_last(Box::new(Snapshot { connects: Some(7), ..Snapshot::default() }));
        let views = deliveries.drain(DEADLINE).await;
        assert_eq!(counts(&views["otlp_metrics"]), expected, "{status}");
        let asked = server.asked();
        let connects: Vec<f64> =
            asked.iter().map(|asked| told(asked).0["portclash_connects_total"]).collect();
        assert_eq!(connects, [1_234_567.0, 7.0]);
    }
}

#[tokio::test]
async fn a_receiver_in_trouble_loses_nothing_and_what_it_says_is_nowhere() {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    let server = Server::start(None, |_| {
        Reply::status(match ANSWERS.fetch_add(1, Ordering::Relaxed) {
            0 => 500,
            1 => 429,
            2 => 400,
            _ => 200,
        })
    })
    .await;
    let deliveries = start(&server, OFTEN, PATIENCE);
    until("it arrives", || view(&deliveries).sent > 0).await;
    let now = view(&deliveries);
    assert_eq!((now.failed, now.dropped, now.trouble), (3, 0, None));
    let broken = Server::start(None, |_| Reply::status(500)).await;
    let deliveries = start(&broken, OFTEN, PATIENCE);
    until("it fails", || view(&deliveries).failed > 1).await;
    let now = view(&deliveries);
    let trouble = now.trouble.unwrap();
    assert_eq!((now.sent, now.dropped), (0, 0));
    assert!(trouble.starts_with(&format!("--otlp {}: 500", broken.address)), "{trouble}");
    assert!(!trouble.contains("leak"), "{trouble}");
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_left_after_a_while_and_holds_up_no_incident() {
    let timeouts = Timeouts { response: Duration::from_millis(20), ..PATIENT };
    let server = Server::start(None, |_| Reply::Never).await;
    let hook = Server::start(None, |_| Reply::ok("")).await;
    let options = Options { webhook: Some(at(hook.address, "/")), ..options(&server, OFTEN) };
    let requests = saying(status_samples::busy());
    let patience = Patience { timeouts, ..PATIENCE };
    let deliveries = Deliveries::start_with(&options, patience, requests).unwrap();
    until("it fails", || view(&deliveries).failed > 1).await;
    assert!(view(&deliveries).trouble.unwrap().contains("took longer than 20 ms"));
    deliveries.send(&incident(1));
    until("the incident arrives", || deliveries.views()["webhook"].sent == 1).await;
}

#[tokio::test]
async fn at_the_end_there_is_a_deadline_and_what_is_under_way_is_left() {
    let server = Server::start(None, |_| Reply::Never).await;
    let mut deliveries = start(&server, OFTEN, PATIENCE);
    until("it is asked", || server.asked().len() == 1).await;
    deliveries.export_last(Box::default());
    until("it is asked for the last time", || server.asked().len() == 2).await;
    let views = deliveries.drain(Duration::from_millis(10)).await;
    assert_eq!(counts(&views["otlp_metrics"]), (0, 0, 1));
}

#[tokio::test]
async fn data_points_that_the_receiver_rejects_are_told() {
    let answer = r#"{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"hush"}}"#;
    let server = Server::start(None, move |_| Reply::ok(answer)).await;
    let deliveries = start(&server, HOUR, PATIENCE);
    until("it fails", || view(&deliveries).failed == 1).await;
    let now = view(&deliveries);
    let all = told(&server.asked()[0]).0.len();
    assert_eq!((now.sent, now.dropped), (0, 0));
    let trouble = format!("--otlp: the receiver rejected 3 of {all} data points of the metrics");
    assert_eq!(now.trouble, Some(trouble));
}

#[tokio::test]
async fn a_receiver_that_asks_for_patience_is_left_alone_but_not_for_ever() {
    let server =
        Server::start(None, |_| Reply::Whole(429, Some(("retry-after", "7200".into())), "".into())).await;
    let target = Target::new("--otlp", &at(server.address, ""), PATIENT).unwrap();
    let account = Account::new("otlp_metrics", "exports");
    let requests = saying(Snapshot::default());
    let worker = Worker { metrics: OtlpMetrics::new(target, None), requests, every: OFTEN, account };
    let before = Instant::now();
    let next = worker.export_at(before).await;
    assert!(next >= before + MAX_PATIENCE && next <= Instant::now() + MAX_PATIENCE);
}

#[tokio::test]
async fn a_loop_that_says_nothing_is_a_trouble() {
    let server = Server::start(None, |_| Reply::ok("")).await;
    let (requests, asked) = mpsc::channel(1);
    drop(asked);
    let deliveries = Deliveries::start_with(&options(&server, OFTEN), PATIENCE, requests).unwrap();
    until("it fails", || view(&deliveries).failed > 0).await;
    assert!(view(&deliveries).trouble.unwrap().contains("loop"));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn other_options_take_over_with_the_counts_until_none_is_asked_for() {
    let (first, second) =
        (Server::start(None, |_| Reply::ok("")).await, Server::start(None, |_| Reply::ok("")).await);
    let mut deliveries = start(&first, HOUR, PATIENCE);
    until("it arrives", || view(&deliveries).sent == 1).await;
    let task = |deliveries: &Deliveries| deliveries.exports.as_ref().unwrap().task.id();
    let before = task(&deliveries);
    deliveries.replace(&options(&first, HOUR), DEADLINE).unwrap();
    assert_eq!(task(&deliveries), before, "what is not changed goes on");
    deliveries.replace(&options(&second, HOUR), DEADLINE).unwrap();
    until("it arrives there", || view(&deliveries).sent == 2).await;
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
    let never = Options { otlp_metrics_every: None, ..options(&second, HOUR) };
    deliveries.replace(&never, DEADLINE).unwrap();
    assert_eq!(deliveries.views().into_keys().collect::<Vec<_>>(), ["otlp"]);
}

#[tokio::test]
async fn a_token_is_sent() {
    let server = Server::start(None, |_| Reply::ok("")).await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = Some(folder.path().join("token"));
    std::fs::write(token_file.as_ref().unwrap(), "first\n").unwrap();
    let mut options = options(&server, HOUR);
    options.otlp = Some(TargetOptions { token_file, ..at(server.address, "") });
    let deliveries = Deliveries::start_with(&options, PATIENCE, saying(Snapshot::default())).unwrap();
    until("it arrives", || view(&deliveries).sent == 1).await;
    assert_eq!(server.asked()[0].authorization.as_deref(), Some("Bearer first"));
}
