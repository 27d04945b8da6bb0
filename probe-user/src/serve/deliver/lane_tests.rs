//! Namespaces that the API server refuses, beside others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::serve::deliver::tests::until;

const GOING: &str = "/apis/events.k8s.io/v1/namespaces/going/events";
const HOUR: Duration = Duration::from_hours(1);

/// What fails is tried again at the end; a trouble of which nothing waits is over at once.
const STUBBORN: Patience =
    Patience { backoff: Backoff::new(HOUR, HOUR), give_up: Duration::MAX, quiet: Duration::ZERO, ..PATIENCE };

/// On a pod of a namespace that is being deleted.
fn going(number: u64) -> Arc<Incident> {
    let mut incident = Incident::clone(&incident(number));
    incident.probe.as_mut().unwrap().pod.namespace = "going".into();
    Arc::new(incident)
}

#[tokio::test]
async fn a_namespace_that_takes_no_events_holds_up_no_other() {
    static TAKES_ALL: AtomicBool = AtomicBool::new(false);
    let lab = Lab::new(STUBBORN, |asked| {
        let refused = asked.path.starts_with(GOING) && !TAKES_ALL.load(Ordering::Relaxed);
        Reply::status(if refused { 403 } else { 201 })
    })
    .await;
    lab.deliveries.send(&going(1));
    until("it is refused", || lab.view().failed == 1).await;
    // A new Event and a change of it.
    lab.deliveries.send(&incident(2));
    until("the other arrives", || lab.view().sent == 1).await;
    lab.deliveries.send(&incident(3));
    until("its repeat arrives", || lab.view().sent == 2).await;
    let view = lab.view();
    assert_eq!((view.failed, view.dropped), (1, 0));
    assert!(view.trouble.unwrap().contains("the namespace is being deleted"), "something still waits");
    TAKES_ALL.store(true, Ordering::Relaxed);
    let Lab { server: _server, deliveries, .. } = lab;
    let view = deliveries.drain(DEADLINE).await.remove("event").unwrap();
    assert_eq!((view.sent, view.failed, view.dropped, view.trouble), (3, 1, 0, None));
}

#[tokio::test]
async fn at_the_end_repeats_do_not_wait_for_what_fails() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let lab = Lab::new(Patience { event_every: HOUR, ..STUBBORN }, |asked| {
        TOLD.fetch_or(asked.method == "PATCH", Ordering::Relaxed);
        let refused = asked.path.starts_with(GOING) && !TOLD.load(Ordering::Relaxed);
        Reply::status(if refused { 403 } else { 201 })
    })
    .await;
    lab.deliveries.send(&incident(1));
    until("it arrives", || lab.view().sent == 1).await;
    lab.deliveries.send(&incident(2));
    lab.deliveries.send(&going(3));
    until("it is refused", || lab.view().failed == 1).await;
    let Lab { server: _server, deliveries, .. } = lab;
    let view = deliveries.drain(DEADLINE).await.remove("event").unwrap();
    assert_eq!((view.sent, view.dropped), (3, 0));
}

#[tokio::test]
async fn other_options_go_on_with_the_events_that_were_made() {
    let lab = Lab::new(Patience { event_every: HOUR, ..STUBBORN }, |_| Reply::status(201)).await;
    lab.deliveries.send(&incident(1));
    until("it arrives", || lab.view().sent == 1).await;
    lab.deliveries.send(&incident(2));
    let Lab { server, authority, mut deliveries } = lab;
    let api = ApiServer::InCluster {
        host: server.address.ip().to_string(),
        port: server.address.port(),
        token: authority.write("other-token", "second"),
        authority: authority.file(),
    };
    let options = Options { node: Some("node-a".into()), events: Some(api), ..Options::default() };
    deliveries.replace(&options, Duration::ZERO).unwrap();
    deliveries.send(&incident(3));
    let view = deliveries.drain(DEADLINE).await.remove("event").unwrap();
    assert_eq!((view.sent, view.failed, view.dropped), (3, 0, 0));
    let asked = server.asked();
    assert_eq!(asked.iter().map(|asked| asked.method.as_str()).collect::<Vec<_>>(), ["POST", "PATCH"]);
    assert_eq!(asked[1].authorization.as_deref(), Some("Bearer second"));
    let change: Value = serde_json::from_slice(&asked[1].body).unwrap();
    assert_eq!(change["series"]["count"], 3);
}
