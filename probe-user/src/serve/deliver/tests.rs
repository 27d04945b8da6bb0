//! Against servers on loopback that are right, wrong, slow and down.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::way::MAX_WAITING;
use super::*;
use crate::pods::clients::tests::certificates::Authority;
use crate::pods::clients::tests::server::{Reply, Server};
use crate::pods::clients::tests::{DEADLINE, PATIENT, quick};
use crate::report::samples;

/// Waits that keep the tests quick, and nothing that depends on how busy the machine is.
pub(super) const PATIENCE: Patience = Patience {
    timeouts: PATIENT,
    backoff: quick(),
    give_up: DEADLINE,
    event_every: Duration::from_millis(1),
    quiet: DEADLINE,
};

/// For those who ask nothing.
pub(super) fn unanswered() -> Requests {
    tokio::sync::mpsc::channel(1).0
}

pub(super) fn incident(number: u64) -> Arc<Incident> {
    Arc::new(Incident { id: format!("id-{number}"), ..samples::hijacked() })
}

/// Waits until something is so.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn at(address: SocketAddr, path: &str) -> TargetOptions {
    TargetOptions { url: format!("http://{address}{path}"), ..TargetOptions::default() }
}

pub(super) fn start(webhook: TargetOptions, patience: Patience) -> Deliveries {
    let options = Options { webhook: Some(webhook), ..Options::default() };
    Deliveries::start_with(&options, patience, unanswered()).unwrap()
}

pub(super) fn webhook(deliveries: &Deliveries) -> DeliveryView {
    deliveries.views().remove("webhook").unwrap()
}

pub(super) fn view(sent: u64, failed: u64, dropped: u64) -> DeliveryView {
    DeliveryView { sent, failed, dropped, trouble: None }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn an_incident_is_posted_as_it_is_printed_and_false_alarms_are_not() {
    let server = Server::start(None, |_| Reply::status(204)).await;
    let deliveries = start(at(server.address, "/hook/?a=b"), PATIENCE);
    deliveries.send(&incident(1));
    deliveries.send(&Arc::new(samples::none()));
    let views = deliveries.drain(DEADLINE).await;
    assert_eq!(views["webhook"], view(1, 0, 0));
    let asked = server.asked();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].path.as_str()), (1, "POST", "/hook/?a=b"));
    assert_eq!(asked[0].content_type.as_deref(), Some("application/json"));
    assert_eq!(asked[0].authorization, None);
    let body: Value = serde_json::from_slice(&asked[0].body).unwrap();
    assert_eq!(body, serde_json::to_value(&*incident(1)).unwrap());
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_and_what_it_says_is_nowhere() {
    let replies = vec![
        Reply::status(500),
        Reply::status(429),
        Reply::Whole(503, Some(("retry-after", "0".into())), "".into()),
        Reply::ok(""),
    ];
    let server = Server::scripted(None, replies).await;
    let deliveries = start(at(server.address, "/secret-path"), PATIENCE);
    deliveries.send(&incident(1));
    until("it arrives", || webhook(&deliveries).sent == 1).await;
    assert_eq!(webhook(&deliveries), view(1, 3, 0));
    // From here on the server answers 503.
    deliveries.send(&incident(2));
    until("it fails", || webhook(&deliveries).failed > 3).await;
    let trouble = webhook(&deliveries).trouble.unwrap();
    assert!(trouble.starts_with(&format!("--webhook {}: 503", server.address)), "{trouble}");
    assert!(!trouble.contains("secret") && !trouble.contains("leak"), "{trouble}");
}

#[tokio::test]
async fn a_refusal_that_will_not_change_is_given_up_at_once() {
    for (status, words) in [(400, "400 Bad Request"), (307, "a redirect"), (404, "is the path right?")] {
        let server = Server::start(None, move |_| Reply::status(status)).await;
        let deliveries = start(at(server.address, "/"), PATIENCE);
        deliveries.send(&incident(1));
        let view = deliveries.drain(DEADLINE).await.remove("webhook").unwrap();
        assert_eq!((view.sent, view.failed, view.dropped, server.asked().len()), (0, 1, 1, 1), "{status}");
        assert!(view.trouble.unwrap().contains(words), "{status}");
    }
}

#[tokio::test]
async fn a_token_is_sent_and_read_again_when_it_is_replaced() {
    let authority = Authority::new("hooks");
    let server = Server::start(Some(authority.sign(&["127.0.0.1"]).server()), |asked| {
        let right = asked.authorization.as_deref() == Some("Bearer second");
        Reply::status(if right { 200 } else { 401 })
    })
    .await;
    let token_file = authority.write("token", "first\n");
    let url = format!("https://{}/", server.address);
    let options = TargetOptions { url, token_file: Some(token_file), ca: Some(authority.file()) };
    let deliveries = start(options, PATIENCE);
    deliveries.send(&incident(1));
    until("401", || webhook(&deliveries).trouble.is_some()).await;
    let trouble = webhook(&deliveries).trouble.unwrap();
    assert!(trouble.ends_with("401 Unauthorized: it does not accept the token"), "{trouble}");
    authority.write("token", "second\n");
    until("it arrives", || webhook(&deliveries).sent == 1).await;
    assert_eq!(server.asked()[0].authorization.as_deref(), Some("Bearer first"));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_gets_no_incident() {
    let (authority, other) = (Authority::new("hooks"), Authority::new("other"));
    let server = Server::start(Some(authority.sign(&["127.0.0.1"]).server()), |_| Reply::ok("")).await;
    let url = format!("https://{}/", server.address);
    let deliveries = start(TargetOptions { url, ca: Some(other.file()), token_file: None }, PATIENCE);
    deliveries.send(&incident(1));
    until("it fails", || webhook(&deliveries).trouble.is_some()).await;
    assert!(webhook(&deliveries).trouble.unwrap().contains("nobody trusted has signed"));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_server_that_is_down_costs_nothing_but_what_does_not_fit() {
    let patience = Patience { backoff: Backoff::new(DEADLINE, DEADLINE), ..PATIENCE };
    let deliveries = start(at(nobody(), "/"), patience);
    deliveries.send(&incident(0));
    // Whatever is being tried waits as well.
    until("it is tried", || webhook(&deliveries).failed == 1).await;
    let all = u64::try_from(MAX_WAITING).unwrap();
    for number in 1..=all + 3 {
        deliveries.send(&incident(number));
    }
    assert_eq!(webhook(&deliveries).dropped, 4);
    // At the end there is a deadline.
    let view = deliveries.drain(Duration::from_millis(10)).await.remove("webhook").unwrap();
    assert_eq!((view.sent, view.dropped), (0, all + 4));
    assert!(view.trouble.unwrap().contains("connect: "));
}

#[tokio::test]
async fn an_old_incident_is_given_up_and_the_next_one_tried() {
    let patience = Patience { give_up: Duration::ZERO, ..PATIENCE };
    let server = Server::scripted(None, vec![Reply::status(500), Reply::ok("")]).await;
    let deliveries = start(at(server.address, "/"), patience);
    deliveries.send(&incident(1));
    deliveries.send(&incident(2));
    assert_eq!(deliveries.drain(DEADLINE).await["webhook"], view(1, 1, 1));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_after_a_while() {
    let timeouts = Timeouts { response: Duration::from_millis(20), ..PATIENT };
    let server = Server::start(None, |_| Reply::Never).await;
    let deliveries = start(at(server.address, "/"), Patience { timeouts, ..PATIENCE });
    deliveries.send(&incident(1));
    until("it fails", || webhook(&deliveries).failed > 1).await;
    assert!(webhook(&deliveries).trouble.unwrap().contains("took longer than 20 ms"));
}

#[tokio::test]
async fn at_the_end_nobody_waits_for_the_next_attempt() {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    let server = Server::start(None, |_| {
        Reply::status(if ANSWERS.fetch_add(1, Ordering::Relaxed) == 0 { 500 } else { 200 })
    })
    .await;
    let hour = Duration::from_hours(1);
    let patience = Patience { backoff: Backoff::new(hour, hour), give_up: 9 * hour, ..PATIENCE };
    let deliveries = start(at(server.address, "/"), patience);
    deliveries.send(&incident(1));
    until("it fails", || webhook(&deliveries).failed == 1).await;
    assert_eq!(deliveries.drain(DEADLINE).await["webhook"], view(1, 1, 0));
}

#[tokio::test]
async fn other_options_take_over_with_the_counts_and_wrong_ones_change_nothing() {
    let (first, second) =
        (Server::start(None, |_| Reply::ok("")).await, Server::start(None, |_| Reply::ok("")).await);
    let mut deliveries = start(at(first.address, "/"), PATIENCE);
    deliveries.send(&incident(1));
    until("it arrives", || webhook(&deliveries).sent == 1).await;
    let with = |webhook| Options { webhook, ..Options::default() };
    let wrong = TargetOptions { url: "ftp://x".into(), ..TargetOptions::default() };
    deliveries.replace(&with(Some(wrong)), DEADLINE).unwrap_err();
    deliveries.replace(&with(Some(at(second.address, "/"))), DEADLINE).unwrap();
    deliveries.send(&incident(2));
    until("it arrives", || webhook(&deliveries).sent == 2).await;
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
    deliveries.replace(&with(None), DEADLINE).unwrap();
    deliveries.send(&incident(3));
    until("the way ends", || deliveries.views().is_empty()).await;
}

#[tokio::test]
async fn a_trouble_is_over_when_nothing_waits_and_nothing_has_failed_for_a_while() {
    let server = Server::start(None, |_| Reply::status(400)).await;
    let deliveries = start(at(server.address, "/"), Patience { quiet: Duration::ZERO, ..PATIENCE });
    deliveries.send(&incident(1));
    until("it is over", || webhook(&deliveries) == view(0, 1, 1)).await;
}

#[test]
fn addresses_that_cannot_be_are_refused_without_what_may_be_secret_in_them() {
    let new = |url: &str, token: bool| {
        let token_file = token.then(|| PathBuf::from("/token"));
        let options = TargetOptions { url: url.into(), token_file, ca: None };
        Target::new("--webhook", &options, Timeouts::default()).map(|_| ()).map_err(|error| error.to_string())
    };
    for url in ["", "hush", "ftp://hush/x", "http://user:hush@host/", "https://", "http://host:99999/hush"] {
        let error = new(url, false).unwrap_err();
        assert!(error.starts_with("--webhook: ") && !error.contains("hush"), "{url}: {error}");
    }
    assert!(new("http://hooks.example.net/", true).unwrap_err().contains("over https:// only"));
    for url in ["http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost/", "https://hooks.example.net/"] {
        new(url, true).unwrap();
    }
}

#[test]
fn options_name_the_files_that_a_way_reads() {
    let files = |url: &str, ca: Option<&str>| {
        let webhook =
            TargetOptions { url: url.into(), token_file: Some("/token".into()), ca: ca.map(Into::into) };
        let options = Options { webhook: Some(webhook), ..Options::default() };
        options.check().unwrap();
        options.files().into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(files("http://127.0.0.1:1/", None), ["/token"]);
    assert_eq!(files("https://[2001:db8::1]/", Some("/ca")), ["/ca", "/token"]);
    let all = files("https://hooks.example.net/", None);
    for file in ["/etc/ssl/certs/ca-certificates.crt", "/token"] {
        assert!(all.iter().any(|known| known == file), "{file} of {all:?}");
    }
}
