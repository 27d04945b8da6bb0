//! Events against a stand-in of the API server.

use std::sync::Arc;

use super::*;
use crate::pods::clients::tests::DEADLINE;
use crate::pods::clients::tests::certificates::Authority;
use crate::pods::clients::tests::server::{Asked, Reply, Server};
use crate::report::samples;
use crate::serve::deliver::tests::{PATIENCE, incident, unanswered, until};
use crate::serve::deliver::{Deliveries, Options, Patience};

struct Lab {
    server: Server,
    authority: Authority,
    deliveries: Deliveries,
}

impl Lab {
    async fn new(patience: Patience, handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let authority = Authority::new("cluster");
        let server = Server::start(Some(authority.sign(&["127.0.0.1"]).server()), handler).await;
        let api = ApiServer::InCluster {
            host: server.address.ip().to_string(),
            port: server.address.port(),
            token: authority.write("token", "first"),
            authority: authority.file(),
        };
        let options = Options { node: Some("node-a".into()), events: Some(api), ..Options::default() };
        let deliveries = Deliveries::start_with(&options, patience, unanswered()).unwrap();
        Self { server, authority, deliveries }
    }

    fn view(&self) -> crate::serve::snapshot::DeliveryView {
        self.deliveries.views().remove("event").unwrap()
    }

    fn asked(&self) -> Vec<(String, String, Value)> {
        let asked = self.server.asked().into_iter();
        asked.map(|asked| (asked.method, asked.path, serde_json::from_slice(&asked.body).unwrap())).collect()
    }
}

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

/// Repeats are told at the end only.
fn slow() -> Patience {
    Patience { event_every: DEADLINE, ..PATIENCE }
}

#[tokio::test]
async fn the_first_incident_makes_an_event_and_repeats_change_its_series() {
    let lab = Lab::new(slow(), |_| Reply::status(201)).await;
    for number in 1..=5 {
        lab.deliveries.send(&incident(number));
    }
    until("the Event arrives", || lab.view().sent == 1).await;
    let Lab { server, deliveries, .. } = lab;
    let view = deliveries.drain(DEADLINE).await.remove("event").unwrap();
    assert_eq!((view.sent, view.failed, view.dropped), (5, 0, 0));
    let asked = server.asked();
    assert_eq!(asked.len(), 2, "five incidents are two requests");
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", EVENTS));
    assert_eq!(asked[0].authorization.as_deref(), Some("Bearer first"));
    let event: Value = serde_json::from_slice(&asked[0].body).unwrap();
    let name = event["metadata"]["name"].as_str().unwrap();
    assert_eq!((asked[1].method.as_str(), asked[1].path.as_str()), ("PATCH", &*format!("{EVENTS}/{name}")));
    assert_eq!(asked[1].content_type.as_deref(), Some("application/merge-patch+json"));
    let change: Value = serde_json::from_slice(&asked[1].body).unwrap();
    assert_eq!(change, json!({"series": {"count": 5, "lastObservedTime": "2022-09-15T19:09:02.533940Z"}}));
}

#[tokio::test]
async fn repeats_are_told_in_time_and_an_event_that_has_expired_is_made_anew() {
    // The API server forgets Events after an hour: the change finds nothing.
    let lab =
        Lab::new(PATIENCE, |asked| Reply::status(if asked.method == "PATCH" { 404 } else { 201 })).await;
    for number in 1..=2 {
        lab.deliveries.send(&incident(number));
        until("it arrives", || lab.view().sent == number).await;
    }
    let asked = lab.asked();
    let methods: Vec<&str> = asked.iter().map(|(method, ..)| method.as_str()).collect();
    assert_eq!(methods, ["POST", "PATCH", "POST"]);
    assert_ne!(asked[0].2["metadata"]["name"], asked[2].2["metadata"]["name"]);
    assert_eq!(asked[2].2.get("series"), None, "one incident is no series");
}

#[tokio::test]
async fn a_new_token_helps_and_an_answer_that_was_lost_does_no_harm() {
    let lab = Lab::new(slow(), |asked| {
        // The Event is there already: an earlier attempt made it.
        Reply::status(if asked.authorization.as_deref() == Some("Bearer second") { 409 } else { 403 })
    })
    .await;
    lab.deliveries.send(&incident(1));
    until("it is refused", || lab.view().trouble.is_some()).await;
    assert!(lab.view().trouble.unwrap().contains("the verbs create and patch on events"));
    lab.authority.write("token", "second");
    until("it arrives", || lab.view().sent == 1).await;
    let names: Vec<Value> =
        lab.asked().into_iter().map(|(.., mut event)| event["metadata"]["name"].take()).collect();
    assert!(names.len() > 1 && names.iter().all(|name| *name == names[0]), "{names:?}");
}

#[tokio::test]
async fn repeats_that_are_refused_for_good_are_given_up_and_counted() {
    let lab =
        Lab::new(PATIENCE, |asked| Reply::status(if asked.method == "PATCH" { 422 } else { 201 })).await;
    lab.deliveries.send(&incident(1));
    until("it arrives", || lab.view().sent == 1).await;
    lab.deliveries.send(&incident(2));
    until("it is given up", || lab.view().dropped == 1).await;
    // The next one is a new Event.
    lab.deliveries.send(&incident(3));
    until("it arrives", || lab.view().sent == 2).await;
}

#[tokio::test]
async fn only_pods_that_are_known_for_sure_get_events() {
    let lab = Lab::new(slow(), |_| Reply::status(201)).await;
    let with = |change: fn(&mut Incident)| {
        let mut incident = samples::hijacked();
        change(&mut incident);
        Arc::new(incident)
    };
    let none: [Arc<Incident>; 6] = [
        with(|incident| incident.probe = None),
        with(|incident| incident.probe.as_mut().unwrap().confidence = Confidence::Likely),
        with(|incident| incident.probe.as_mut().unwrap().pod.uid = None),
        with(|incident| incident.probe.as_mut().unwrap().pod.namespace = "a/../b".into()),
        with(|incident| incident.outcome = Outcome::Survived),
        with(|incident| incident.verdict = Verdict::OtherReset),
    ];
    for incident in &none {
        lab.deliveries.send(incident);
    }
    let Lab { server, deliveries, .. } = lab;
    let view = deliveries.drain(DEADLINE).await.remove("event").unwrap();
    assert_eq!((view.sent, view.dropped, server.asked().len()), (0, 0, 0));
}

#[test]
fn an_event_says_what_happened_and_what_to_do() {
    let incident = samples::hijacked();
    let event = event(&incident, incident.probe.as_ref().unwrap(), Some("node-a"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&event).unwrap());
    assert!(event["note"].as_str().unwrap().len() <= MAX_NOTE);
}

#[test]
fn a_note_is_never_too_long_and_never_has_half_a_command() {
    let mut incident = samples::no_backend();
    Arc::make_mut(&mut incident.advice)[0].command = Some("sysctl ".repeat(200));
    let mut probe = incident.probe.clone().unwrap();
    let text = note(&incident, &probe, None);
    assert!(
        text.ends_with("`portclash check` on the node says what to set.") && text.len() <= MAX_NOTE,
        "{text}"
    );
    assert!(text.contains("which has no backend"), "{text}");
    probe.container = "é".repeat(1000);
    assert!(note(&incident, &probe, None).len() <= MAX_NOTE);
}

#[test]
fn names_and_times_have_the_form_that_the_api_server_wants() {
    let mut incident = samples::hijacked();
    let mut probe = incident.probe.clone().unwrap();
    probe.pod.name = "a-".repeat(126) + "b";
    let made = event(&incident, &probe, None);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.len() <= MAX_NAME && !name.contains("-."), "{name}");
    assert_eq!(micro_time("2022-09-15T19:09:02.533940123Z"), "2022-09-15T19:09:02.533940Z");
    // The same incident makes the same name, another one another.
    let name = |incident: &Incident| event(incident, &probe, None)["metadata"]["name"].clone();
    let first = name(&incident);
    assert_eq!(first, name(&incident));
    incident.id.push('x');
    assert_ne!(first, name(&incident));
}
