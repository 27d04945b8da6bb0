//! Log records against a receiver on loopback.

use std::time::Duration;

use super::*;
use crate::pods::clients::tests::DEADLINE;
use crate::pods::clients::tests::server::{Reply, Server};
use crate::report::samples;
use crate::serve::deliver::tests::{PATIENCE, incident, unanswered};
use crate::serve::deliver::{Deliveries, Options, TargetOptions};

async fn deliver(path: &str, reply: &'static str) -> (Server, crate::serve::snapshot::DeliveryView) {
    let server = Server::start(None, move |_| Reply::ok(reply)).await;
    let otlp = TargetOptions { url: format!("http://{}{path}", server.address), ..TargetOptions::default() };
    let options = Options { node: Some("node-a".into()), otlp: Some(otlp), ..Options::default() };
    let deliveries = Deliveries::start_with(&options, PATIENCE, unanswered()).unwrap();
    deliveries.send(&incident(1));
    let view = deliveries.drain(DEADLINE).await.remove("otlp").unwrap();
    (server, view)
}

#[tokio::test]
async fn a_record_goes_to_the_path_for_logs() {
    for (given, path) in [
        ("", "/v1/logs"),
        ("/", "/v1/logs"),
        ("/otlp", "/otlp/v1/logs"),
        ("/otlp/", "/otlp/v1/logs"),
        ("/x/v1/logs", "/x/v1/logs"),
        ("/x/v1/metrics", "/x/v1/logs"),
    ] {
        let (server, view) = deliver(given, "{}").await;
        assert_eq!((view.sent, view.dropped, server.asked()[0].path.as_str()), (1, 0, path), "{given}");
        assert_eq!(server.asked()[0].content_type.as_deref(), Some("application/json"));
    }
}

#[tokio::test]
async fn a_record_that_the_receiver_rejects_has_not_arrived() {
    let (_, view) =
        deliver("", r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"hush"}}"#).await;
    assert_eq!((view.sent, view.dropped), (0, 1));
    assert_eq!(view.trouble.as_deref(), Some("--otlp: the receiver rejected the log record"));
    for fine in [r#"{"partialSuccess":{"rejectedLogRecords":"0"}}"#, r#"{"partialSuccess":{}}"#, "", "thanks"]
    {
        assert_eq!(deliver("", fine).await.1.sent, 1, "{fine}");
    }
}

#[test]
fn a_request_has_the_form_of_the_protocol() {
    let now = Timestamp::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let mut request = request(&samples::hijacked(), Some("node-a"), now);
    let record = &mut request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    let body: Value = serde_json::from_str(record["body"]["stringValue"].as_str().unwrap()).unwrap();
    assert_eq!(body["schema"], "portclash.incident/v1");
    record["body"]["stringValue"] = "(the incident)".into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&request).unwrap());
}

#[test]
fn what_is_unknown_is_left_out() {
    let text = request(&samples::unknown_owner(), None, Timestamp::UNIX_EPOCH).to_string();
    assert!(!text.contains("\"stringValue\":null"), "{text}");
    assert!(!text.contains("k8s.node.name") && !text.contains("process.pid"), "{text}");
}
