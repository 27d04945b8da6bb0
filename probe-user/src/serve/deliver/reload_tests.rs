//! Other options while incidents wait.

use std::sync::atomic::{AtomicU64, Ordering};

use super::tests::{PATIENCE, at, incident, start, until, view, webhook};
use super::*;
use crate::pods::clients::tests::DEADLINE;
use crate::pods::clients::tests::server::{Reply, Server};

const HOUR: Duration = Duration::from_hours(1);

/// What fails is tried again when something else happens.
const STUBBORN: Patience = Patience { backoff: Backoff::new(HOUR, HOUR), give_up: Duration::MAX, ..PATIENCE };

fn to(server: &Server) -> Options {
    Options { webhook: Some(at(server.address, "/")), ..Options::default() }
}

/// Refuses so many requests, and takes those that follow.
async fn refusing(count: u64) -> Server {
    let asked = AtomicU64::new(0);
    Server::start(None, move |_| {
        Reply::status(if asked.fetch_add(1, Ordering::Relaxed) < count { 503 } else { 200 })
    })
    .await
}

/// Ways of which a first attempt with one of three incidents failed.
async fn failing(server: &Server) -> Deliveries {
    let deliveries = start(at(server.address, "/"), STUBBORN);
    (1..=3).for_each(|number| deliveries.send(&incident(number)));
    until("it fails", || webhook(&deliveries).failed == 1).await;
    deliveries
}

#[tokio::test]
async fn what_waits_goes_the_new_way_and_the_trouble_of_the_old_one_is_over() {
    let (down, up) = (refusing(u64::MAX).await, refusing(0).await);
    let mut deliveries = failing(&down).await;
    deliveries.replace(&to(&up), Duration::ZERO).unwrap();
    until("all arrive", || webhook(&deliveries).sent == 3).await;
    assert_eq!(webhook(&deliveries), view(3, 1, 0));
    let told: Vec<serde_json::Value> =
        up.asked().iter().map(|asked| serde_json::from_slice(&asked.body).unwrap()).collect();
    let ids: Vec<&str> = told.iter().map(|incident| incident["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["id-1", "id-2", "id-3"]);
    assert_eq!(down.asked().len(), 1);
}

#[tokio::test]
async fn a_way_that_the_options_do_not_change_goes_on() {
    let server = refusing(1).await;
    let mut deliveries = failing(&server).await;
    deliveries.replace(&to(&server), Duration::ZERO).unwrap();
    assert_eq!(deliveries.drain(DEADLINE).await["webhook"], view(3, 1, 0));
}

#[tokio::test]
async fn what_waits_for_a_way_that_is_taken_out_is_still_delivered() {
    let server = refusing(1).await;
    let mut deliveries = failing(&server).await;
    deliveries.replace(&Options::default(), DEADLINE).unwrap();
    deliveries.send(&incident(4));
    assert_eq!(webhook(&deliveries).dropped, 0);
    // The end waits for it as well.
    let views = deliveries.drain(DEADLINE).await;
    assert_eq!((server.asked().len(), views.len()), (4, 0));
}

#[tokio::test]
async fn what_a_way_that_is_taken_out_could_not_deliver_is_counted_and_stays_so() {
    let (down, up) = (refusing(u64::MAX).await, refusing(0).await);
    let mut deliveries = failing(&down).await;
    deliveries.replace(&Options::default(), Duration::ZERO).unwrap();
    until("it has ended", || webhook(&deliveries).trouble.is_none()).await;
    let failed = webhook(&deliveries).failed;
    assert_eq!(webhook(&deliveries), view(0, failed, 3));
    deliveries.replace(&Options::default(), Duration::ZERO).unwrap();
    assert_eq!(webhook(&deliveries), view(0, failed, 3));
    // When it comes back the counts go on.
    deliveries.replace(&to(&up), Duration::ZERO).unwrap();
    deliveries.send(&incident(4));
    until("it arrives", || webhook(&deliveries).sent == 1).await;
    assert_eq!(deliveries.drain(DEADLINE).await["webhook"], view(1, failed, 3));
}
