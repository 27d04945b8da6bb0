//! What is answered where.

use super::client::{ask, exchange, get};
use super::*;
use crate::report::metrics::{Flavour, render};

const ID: &str = "20220915T190902.533940000Z-[fd00::1]:36704-10.23.77.138:80";
const ENCODED: &str = "20220915T190902.533940000Z-%5Bfd00%3A%3A1%5D%3A36704-10.23.77.138%3A80";

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let played = Played::busy();
    let older = get(played.address(), "/metrics").await;
    assert_eq!(older.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(older.text(), render(&status_samples::busy(), Flavour::Prometheus));
    // As Prometheus 2.42 asks.
    let accept = "Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                  text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
    let open = ask(played.address(), "GET", "/metrics", accept).await;
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(open.text(), render(&status_samples::busy(), Flavour::OpenMetrics));
    let refused =
        ask(played.address(), "GET", "/metrics", "Accept: application/openmetrics-text;q=0\r\n").await;
    assert!(refused.header("content-type").unwrap().starts_with("text/plain"));
}

#[tokio::test]
async fn incidents_are_listed_the_newest_first_and_no_more_than_asked_for() {
    let played = Played::busy();
    assert_eq!(get(played.address(), "/incidents").await.text(), "[]\n");
    for id in ["a", "b", "c"] {
        played.tell(id, None);
    }
    let ids = async |path| {
        let got = get(played.address(), path).await;
        assert_eq!(got.header("content-type"), Some("application/json"));
        let all: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        let ids: Vec<String> =
            all.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        ids.concat()
    };
    assert_eq!(ids("/incidents").await, "cba");
    assert_eq!(ids("/incidents?x=1&limit=2").await, "cb");
    assert_eq!(ids("/incidents?limit=0").await, "");
    assert_eq!(get(played.address(), "/incidents?limit=-1").await.status, 400);
}

#[tokio::test]
async fn an_incident_is_found_by_its_id_however_it_is_written() {
    let played = Played::busy();
    played.tell(ID, None);
    for path in [format!("/incidents/{ENCODED}"), format!("/incidents/{}", ID.replace(['[', ']'], "%5b"))] {
        let found = path.contains("%5D");
        let got = get(played.address(), &path).await;
        assert_eq!(got.status == 200, found, "{path}");
        if found {
            let one: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
            assert_eq!(
                (one["id"].as_str(), one["schema"].as_str()),
                (Some(ID), Some("portclash.incident/v1"))
            );
        }
    }
    played.tell("with/slash %41", None);
    assert_eq!(get(played.address(), "/incidents/with%2Fslash%20%2541").await.status, 200);
    assert_eq!(get(played.address(), "/incidents/with/slash%20%2541").await.status, 404);
}

#[tokio::test]
async fn a_report_is_a_page_that_may_load_nothing() {
    let played = Played::busy();
    played.tell(ID, None);
    for path in [&*format!("/incidents/{ENCODED}/report"), "/"] {
        let got = get(played.address(), path).await;
        assert_eq!(
            (got.status, got.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{path}"
        );
        let policy = got.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("style-src 'sha256-"),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"));
        assert!(got.text().starts_with("<!DOCTYPE html>"));
    }
}

#[tokio::test]
async fn a_report_says_what_the_evidence_lacks() {
    let path = format!("/incidents/{ENCODED}/report");
    for (now, lacks) in [(status_samples::busy(), true), (status_samples::quiet(), false)] {
        let played = Played::saying(now, |_| {});
        played.tell(ID, None);
        let text = get(played.address(), &path).await.text();
        assert_eq!(text.contains("the ring buffer was full"), lacks);
        assert_eq!(text.contains("INCOMPLETE"), lacks);
    }
}

#[tokio::test]
async fn a_capture_is_sent_whole_under_a_plain_name() {
    let played = Played::busy();
    // More than one piece.
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    played.tell(ID, Some(&bytes));
    let path = format!("/incidents/{ENCODED}/capture");
    let got = get(played.address(), &path).await;
    assert_eq!(got.header("content-length"), Some("200000"));
    assert_eq!(
        got.header("content-disposition"),
        Some(
            "attachment; filename=\"incident-20220915T190902.533940000Z-_fd00__1__36704-10.23.77.138_80.pcapng\""
        )
    );
    assert!(got.body == bytes);
    let head = ask(played.address(), "HEAD", &path, "").await;
    assert_eq!((head.header("content-length"), head.body.len()), (Some("200000"), 0));
}

#[tokio::test]
async fn a_capture_that_is_not_there_says_why() {
    let played = Played::busy();
    played.tell(ID, None);
    let path = format!("/incidents/{ENCODED}/capture");
    let got = get(played.address(), &path).await;
    assert_eq!(got.status, 404);
    assert!(got.text().contains("no space left on device"), "{}", got.text());
    played.recent.captured(ID, played.folder.path().join("removed"));
    let got = get(played.address(), &path).await;
    assert!(got.status == 404 && got.text().contains("was removed"), "{}", got.text());
    // What lies there now must not hold up the server.
    let pipe = played.folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    played.recent.captured(ID, pipe);
    let got = get(played.address(), &path).await;
    assert!(got.status == 404 && got.text().contains("no file any more"), "{}", got.text());

    let played = Played::saying(status_samples::quiet(), |_| {});
    played.tell(ID, None);
    let got = get(played.address(), &path).await;
    assert!(got.status == 404 && got.text().contains("--record DIR"), "{}", got.text());
}

#[tokio::test]
async fn what_is_not_there_is_said_in_plain_text() {
    let played = Played::busy();
    for path in ["/nothing", "/incidents/", "/incidents/x/y", "/metrics/", "//", "/%ff", "/incidents/unknown"]
    {
        let got = get(played.address(), path).await;
        assert_eq!(
            (got.status, got.header("content-type")),
            (404, Some("text/plain; charset=utf-8")),
            "{path}"
        );
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(got.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn nothing_can_be_written() {
    let played = Played::busy();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "FANTASY"] {
        let got = ask(played.address(), method, "/incidents", "").await;
        assert_eq!((got.status, got.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let got = ask(played.address(), "GET", "/incidents", "Content-Length: 5\r\n").await;
    assert_eq!(got.status, 413);
    let got = ask(played.address(), "GET", "/incidents", "Transfer-Encoding: chunked\r\n").await;
    assert_eq!(got.status, 413);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let played = Played::busy();
    for path in ["/", "/metrics", "/incidents", "/livez", "/readyz", "/nothing"] {
        let (head, get) = (ask(played.address(), "HEAD", path, "").await, get(played.address(), path).await);
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        // How long a list is shows only while it is sent.
        let length = (path != "/incidents").then(|| get.body.len().to_string());
        assert_eq!(head.header("content-length"), length.as_deref(), "{path}");
    }
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let played = Played::busy();
    assert_eq!(get(played.address(), "/readyz").await.text(), "ready\n");
    let not_ready = vec!["hooks".to_owned(), "table".to_owned()];
    let played = Played::saying(Snapshot { not_ready, ..status_samples::quiet() }, |_| {});
    let got = get(played.address(), "/readyz").await;
    assert_eq!((got.status, got.text()), (503, "hooks\ntable\n".to_owned()));
    assert_eq!(get(played.address(), "/livez").await.status, 200);
}

#[tokio::test]
async fn a_loop_that_says_nothing_is_not_alive() {
    let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.limits = Limits { answer_timeout: Duration::from_millis(1), ..patient() };
    // It takes one question at most, and answers none; later it is gone.
    let (requests, asked) = mpsc::channel(1);
    let server = bind(&options).unwrap().start(Context { requests, recent: Recent::default() }).unwrap();
    let mut asked = Some(asked);
    for _ in 0..2 {
        for path in ["/livez", "/readyz", "/metrics", "/"] {
            let got = get(server.address(), path).await;
            assert_eq!(got.status, 503, "{path}");
            assert!(got.text().contains("the tracing loop has not answered"), "{}", got.text());
        }
        assert_eq!(get(server.address(), "/incidents").await.status, 200);
        asked.take();
    }
}

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let played = Played::busy();
    let all = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2) + &client::request("GET", "/nothing", "");
    let bytes = exchange(played.address(), all.as_bytes()).await;
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!((text.matches("200 OK").count(), text.matches("404 Not Found").count()), (2, 1), "{text}");
}
