//! List and watch against a stand-in of the API server.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::collection::{Collection, PodsOfNode, Services};
use super::super::task::Task;
use super::super::voice::Voice;
use super::super::watch::Watcher;
use super::super::{ApiOptions, ApiServer, Timeouts};
use super::certificates::{Authority, write};
use super::ear::Ear;
use super::objects::{event, list, page, pod, pods, service};
use super::server::{Reply, Server};
use super::{PATIENT, quick};
use crate::pods::update::{PodSourceKind, PodUpdate};

/// The API server as pods find it, with a token beside the authority.
pub(super) fn options(server: &Server, authority: &Authority) -> ApiOptions {
    let server = ApiServer::InCluster {
        host: server.address.ip().to_string(),
        port: server.address.port(),
        token: authority.write("token", "first-token"),
        authority: authority.file(),
    };
    ApiOptions { timeouts: PATIENT, page: 2, ..ApiOptions::new(server, "node-a".into()) }
}

struct Lab {
    server: Server,
    authority: Authority,
    options: ApiOptions,
}

impl Lab {
    /// Answers in this order.
    async fn new(replies: Vec<Reply>) -> Self {
        let authority = Authority::new("cluster");
        let server = Server::scripted(Some(authority.sign(&["127.0.0.1"]).server()), replies).await;
        let options = options(&server, &authority);
        Self { server, authority, options }
    }

    fn watch<C: Collection>(&self) -> (Task, Ear) {
        let (updates, ear) = Ear::new();
        let mut watcher = Watcher::<C>::new(self.options.clone(), Voice::new(updates, true), quick());
        let task = Task::spawn(async move {
            let _ = watcher.keep(None).await;
        });
        (task, ear)
    }

    fn paths(&self) -> Vec<String> {
        self.server.asked().into_iter().map(|asked| asked.path).collect()
    }
}

/// A watch that a test feeds.
fn live() -> (mpsc::Sender<Option<Bytes>>, Reply) {
    let (send, receive) = mpsc::channel(8);
    (send, Reply::Live(receive))
}

async fn say(to: &mpsc::Sender<Option<Bytes>>, text: &str) {
    to.send(Some(Bytes::copy_from_slice(text.as_bytes()))).await.unwrap();
}

/// What happened to pods, in short.
async fn next_change(ear: &mut Ear) -> String {
    ear.until(|update| match update {
        PodUpdate::All { pods, unreadable, .. } => {
            let names: Vec<_> = pods.iter().map(|pod| pod.name.as_str()).collect();
            Some(format!("all {} ({} unreadable)", names.join(" "), unreadable.len()))
        }
        PodUpdate::Changed { pod, .. } => Some(format!("changed {} {:?}", pod.name, pod.ips)),
        PodUpdate::Gone { namespace, name, uid, .. } => Some(format!("gone {namespace}/{name} {uid:?}")),
        PodUpdate::Trouble { reason, .. } => panic!("{reason}"),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn pods_are_listed_in_pages_and_then_watched() {
    let (watch, reply) = live();
    let lab = Lab::new(vec![
        Reply::ok(page("PodList", "100", "a/b=", &[pod("web-1", "10.0.0.1"), pod("web-2", "10.0.0.2")])),
        Reply::ok(page("PodList", "100", "", &[pod("web-3", "10.0.0.3")])),
        reply,
    ])
    .await;
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    assert_eq!(next_change(&mut ear).await, "all web-1 web-2 web-3 (0 unreadable)");
    say(&watch, &event("MODIFIED", pod("web-1", "10.0.0.9"), "101")).await;
    assert_eq!(next_change(&mut ear).await, "changed web-1 [10.0.0.9]");
    // Several events in one piece, one event in several; an empty line; a type of the future.
    let added = event("ADDED", pod("web-4", "10.0.0.4"), "102");
    let (first, rest) = added.split_at(20);
    say(&watch, &format!("\n{}{first}", event("BOOKMARK", pod("", ""), "103"))).await;
    say(&watch, rest).await;
    say(&watch, &event("RENAMED", pod("web-5", "10.0.0.5"), "104")).await;
    assert_eq!(next_change(&mut ear).await, "changed web-4 [10.0.0.4]");
    say(&watch, &event("DELETED", pod("web-2", "10.0.0.2"), "105")).await;
    assert_eq!(next_change(&mut ear).await, "gone default/web-2 Some(\"uid-web-2\")");
    let of_node = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-a";
    assert_eq!(
        lab.paths(),
        [
            format!("{of_node}&limit=2&resourceVersion=0"),
            format!("{of_node}&limit=2&continue=a%2Fb%3D"),
            format!("{of_node}&watch=true&allowWatchBookmarks=true&resourceVersion=100&timeoutSeconds=300"),
        ]
    );
    assert!(
        lab.server.asked().iter().all(|asked| asked.authorization.as_deref() == Some("Bearer first-token"))
    );
}

#[tokio::test]
async fn services_are_listed_and_watched() {
    let (watch, reply) = live();
    let lab =
        Lab::new(vec![Reply::ok(list("ServiceList", "9", &[service("web", "10.96.0.1")])), reply]).await;
    let (_task, mut ear) = lab.watch::<Services>();
    let PodUpdate::ServicesAll { services, source: PodSourceKind::Api, .. } = ear.next().await else {
        panic!()
    };
    assert_eq!(services[0].ports[0].node_port, Some(31055));
    say(&watch, &event("ADDED", service("db", "10.96.0.2"), "10")).await;
    assert!(matches!(ear.next().await, PodUpdate::ServiceChanged { service, .. } if service.name == "db"));
    say(&watch, &event("DELETED", service("web", "10.96.0.1"), "11")).await;
    assert!(
        matches!(ear.next().await, PodUpdate::ServiceGone { namespace, name, .. } if namespace == "default" && name == "web")
    );
    assert_eq!(lab.paths()[0], "/api/v1/services?limit=2&resourceVersion=0");
}

#[tokio::test]
async fn watch_that_is_cut_goes_on_from_the_last_version() {
    let (first, first_reply) = live();
    let (second, second_reply) = live();
    let lab = Lab::new(vec![Reply::ok(pods(&[pod("web-1", "10.0.0.1")])), first_reply, second_reply]).await;
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    next_change(&mut ear).await;
    say(&first, &event("MODIFIED", pod("web-1", "10.0.0.2"), "105")).await;
    next_change(&mut ear).await;
    say(&first, &event("BOOKMARK", pod("", ""), "110")).await;
    // The beginning of an event that never ends is no event.
    say(&first, r#"{"type":"DELETED","object":{"metadata":{"name":"web-1"#).await;
    first.send(None).await.unwrap();
    say(&second, &event("MODIFIED", pod("web-1", "10.0.0.3"), "111")).await;
    assert_eq!(next_change(&mut ear).await, "changed web-1 [10.0.0.3]");
    assert!(lab.paths()[2].contains("resourceVersion=110&"), "{:?}", lab.paths());
}

#[tokio::test]
async fn position_that_is_gone_means_listing_again() {
    let (event_410, reply) = live();
    let (_open, last) = live();
    let lab = Lab::new(vec![
        Reply::ok(pods(&[pod("web-1", "10.0.0.1")])),
        reply,
        Reply::ok(list("PodList", "200", &[pod("web-2", "10.0.0.2")])),
        Reply::status(410),
        Reply::ok(list("PodList", "300", &[pod("web-3", "10.0.0.3")])),
        last,
    ])
    .await;
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    assert_eq!(next_change(&mut ear).await, "all web-1 (0 unreadable)");
    let status = serde_json::json!({"kind": "Status", "metadata": {}, "code": 410, "reason": "Expired"});
    say(&event_410, &event("ERROR", status, "")).await;
    assert_eq!(next_change(&mut ear).await, "all web-2 (0 unreadable)");
    assert_eq!(next_change(&mut ear).await, "all web-3 (0 unreadable)");
    let lists: Vec<_> = lab.paths().into_iter().filter(|path| !path.contains("watch=true")).collect();
    assert!(
        lists[1].ends_with("limit=2") && lists[2].ends_with("limit=2"),
        "as it is now, not from a cache: {lists:?}"
    );
}

#[tokio::test]
async fn pages_that_expired_are_asked_for_as_a_whole() {
    let lab = Lab::new(vec![
        Reply::ok(page("PodList", "100", "next", &[pod("web-1", "10.0.0.1")])),
        Reply::status(410),
        Reply::ok(pods(&[pod("web-1", "10.0.0.1"), pod("web-2", "10.0.0.2")])),
        Reply::Never,
    ])
    .await;
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    assert_eq!(next_change(&mut ear).await, "all web-1 web-2 (0 unreadable)");
    assert!(!lab.paths()[2].contains("limit"), "{:?}", lab.paths());
}

#[tokio::test]
async fn each_trouble_is_said_once_and_again_when_it_changes() {
    let refused = |status| (0..4).map(move |_| Reply::status(status));
    let mut replies: Vec<Reply> = refused(401).chain(refused(403)).chain(refused(503)).collect();
    replies
        .extend([Reply::Cut(r#"{"kind":"PodList","items":["#.into()), Reply::Cut(r#"{"kind":"Pod"#.into())]);
    replies.extend([Reply::ok(pods(&[pod("web-1", "10.0.0.1")])), Reply::Never]);
    let lab = Lab::new(replies).await;
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    assert_eq!(ear.pods().await, (PodSourceKind::Api, vec!["web-1".to_owned()]));
    let troubles = ear.troubles();
    assert_eq!(troubles.len(), 4, "{troubles:#?}");
    for (trouble, word) in troubles.iter().zip(["401", "ClusterRole", "in trouble", "reading the answer"]) {
        assert!(trouble.contains(word) && !trouble.contains("leak-of-the-body"), "{trouble}");
    }
}

#[tokio::test]
async fn watch_that_keeps_failing_is_said_once_and_ends_in_a_new_list() {
    let mut replies = vec![Reply::ok(pods(&[pod("web-1", "10.0.0.1")]))];
    replies.extend([Reply::status(500), Reply::ok("garbage\n"), Reply::status(500)]);
    replies.extend([Reply::ok(list("PodList", "200", &[pod("web-2", "10.0.0.2")])), Reply::Never]);
    let lab = Lab::new(replies).await;
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    ear.pods().await;
    let (_, trouble) = ear.trouble().await;
    assert!(trouble.contains("no watch event"), "the second failure in a row: {trouble}");
    let (_, trouble) = ear.trouble().await;
    assert!(trouble.contains("list pods") && trouble.contains("500"), "{trouble}");
    assert_eq!(ear.pods().await.1, ["web-2"]);
    let paths = lab.paths();
    assert!(paths[1].contains("watch=true") && paths[2].contains("watch=true"), "{paths:#?}");
    assert!(paths[4].ends_with("resourceVersion=100&resourceVersionMatch=NotOlderThan"), "{paths:#?}");
}

#[tokio::test]
async fn one_unreadable_object_ends_neither_list_nor_watch() {
    let (watch, reply) = live();
    let odd = || serde_json::json!({"metadata": {"name": "odd", "namespace": "default"}, "spec": 5});
    let lab = Lab::new(vec![Reply::ok(pods(&[odd(), pod("web-1", "10.0.0.1")])), reply]).await;
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    assert_eq!(next_change(&mut ear).await, "all web-1 (1 unreadable)");
    say(&watch, &event("ADDED", odd(), "101")).await;
    say(&watch, &event("ADDED", pod("web-2", "10.0.0.2"), "102")).await;
    assert_eq!(next_change(&mut ear).await, "changed web-2 [10.0.0.2]");
    assert_eq!(lab.paths().len(), 2, "one list, one watch");
}

#[tokio::test]
async fn node_without_pods_raises_the_question_of_its_name() {
    let lab = Lab::new(vec![Reply::ok(pods(&[])), Reply::Never]).await;
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    assert!(ear.pods().await.1.is_empty());
    let (_, trouble) = ear.trouble().await;
    assert!(trouble.contains("\"node-a\"") && trouble.contains("--node-name"), "{trouble}");
}

#[tokio::test]
async fn silent_watch_is_given_up() {
    let (_open, reply) = live();
    let mut lab = Lab::new(vec![Reply::ok(pods(&[pod("web-1", "10.0.0.1")])), Reply::Never, reply]).await;
    lab.options.timeouts = Timeouts { response: Duration::from_millis(100), ..PATIENT };
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    next_change(&mut ear).await;
    // The second watch is only made because the first one was given up.
    while lab.paths().len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn kubeconfig_is_read_again_with_each_request() {
    let mut lab =
        Lab::new(vec![Reply::status(401), Reply::ok(pods(&[pod("web-1", "10.0.0.1")])), Reply::Never]).await;
    let kubeconfig = |server: &str, token: &str| {
        format!(
            "current-context: c\nclusters:\n- name: k\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {}\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
             users:\n- name: u\n  user:\n    token: {token}\n",
            BASE64.encode(lab.authority.pem()),
        )
    };
    let server = format!("https://{}", lab.server.address);
    let folder = lab.authority.folder.path();
    let path = write(folder, "kubeconfig", &kubeconfig(&server, "old-token"));
    let replaced = kubeconfig(&server, "new-token");
    let plain = kubeconfig(&format!("http://{}", lab.server.address), "token-in-the-clear");
    lab.options.server = ApiServer::Kubeconfig(path.clone());
    let (task, mut ear) = lab.watch::<PodsOfNode>();
    ear.trouble().await;
    std::fs::write(&path, replaced).unwrap();
    // Until the new token is read, the server's answers after the script are 503.
    while !lab.server.asked().iter().any(|asked| asked.authorization.as_deref() == Some("Bearer new-token")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(task);
    let asked = lab.server.asked().len();
    std::fs::write(&path, plain).unwrap();
    let (_task, mut ear) = lab.watch::<PodsOfNode>();
    let (_, trouble) = ear.trouble().await;
    assert!(trouble.contains("only sent over TLS") && !trouble.contains("token-in-the-clear"), "{trouble}");
    assert_eq!(lab.server.asked().len(), asked);
}

#[test]
fn api_server_is_found_as_told_then_in_the_cluster_then_by_kubeconfig() {
    let find = |kubeconfig: Option<&str>, variables: &[(&str, &str)]| {
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        format!("{:?}", ApiServer::find(kubeconfig.map(Into::into), value))
    };
    let pod = [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("KUBECONFIG", "/k/a:/k/b"),
    ];
    assert!(find(Some("/my/config"), &pod).contains("Kubeconfig(\"/my/config\")"));
    assert!(find(None, &pod).contains("InCluster { host: \"10.96.0.1\", port: 443"));
    assert!(find(None, &pod[2..]).contains("Kubeconfig(\"/k/a\")"));
}
