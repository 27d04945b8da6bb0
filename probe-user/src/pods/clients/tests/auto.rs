//! Which source is asked when.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpSocket;

use super::super::{ApiOptions, ApiServer, ClientOptions, CriOptions, Login, PodsFrom, follow};
use super::certificates::Authority;
use super::cri_server::{CriServer, running_pod};
use super::ear::Ear;
use super::objects::{list, pod, pods, service};
use super::server::{Reply, Server};
use super::{DEADLINE, api, kubelet, quick};
use crate::pods::update::{PodSourceKind, PodUpdate};

/// All three sources, of which kubelet and API server can be switched off.
struct Node {
    kubelet: Server,
    _api: Server,
    _authority: Authority,
    kubelet_up: Arc<AtomicBool>,
    options: ClientOptions,
}

impl Node {
    async fn new(kubelet_up: bool, api_up: bool, socket: PathBuf) -> Self {
        let authority = Authority::new("ca");
        let tls = || Some(authority.sign(&["127.0.0.1"]).server());
        let up = Arc::new(AtomicBool::new(kubelet_up));
        let is_up = Arc::clone(&up);
        let kubelet = Server::start(tls(), move |_| {
            if is_up.load(Ordering::SeqCst) {
                Reply::ok(pods(&[pod("of-kubelet", "10.0.0.1")]))
            } else {
                Reply::status(500)
            }
        })
        .await;
        let api = Server::start(tls(), move |asked| match asked.path.as_str() {
            _ if !api_up => Reply::status(403),
            path if path.contains("watch=true") => Reply::Never,
            path if path.contains("services") => {
                Reply::ok(list("ServiceList", "1", &[service("web", "10.96.0.1")]))
            }
            _ => Reply::ok(pods(&[pod("of-api", "10.0.0.2")])),
        })
        .await;
        let mut options = ClientOptions::new(
            kubelet::options(&kubelet, authority.file()),
            api::options(&api, &authority),
            CriOptions { sockets: vec![socket], given: true, timeout: DEADLINE },
        );
        options.backoff = quick();
        (options.poll, options.refresh) = (Duration::from_millis(10), Duration::from_millis(1));
        Self { kubelet, _api: api, _authority: authority, kubelet_up: up, options }
    }
}

fn nowhere() -> PathBuf {
    "/nonexistent/runtime.sock".into()
}

#[tokio::test]
async fn kubelet_comes_first_and_is_asked_again_and_again() {
    let node = Node::new(true, true, nowhere()).await;
    let (updates, mut ear) = Ear::new();
    let clients = follow(Some(PodsFrom::Auto), true, &node.options, updates);
    let mut services = false;
    for _ in 0..4 {
        match ear.next().await {
            PodUpdate::All { source, pods, .. } => {
                assert_eq!((source, pods[0].name.as_str()), (PodSourceKind::Kubelet, "of-kubelet"));
            }
            PodUpdate::ServicesAll { services: all, .. } => services = all.len() == 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(services, "Services come from the API server all the same");
    drop(clients);
    while ear.next_or_end().await.is_some() {}
    // A request that was already under way may still arrive.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = node.kubelet.asked().len();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(node.kubelet.asked().len(), asked, "nothing goes on after the end");
}

#[tokio::test]
async fn api_server_comes_second_until_kubelet_is_back() {
    let mut node = Node::new(false, true, nowhere()).await;
    node.options.content = Duration::from_millis(50);
    let (updates, mut ear) = Ear::new();
    let _clients = follow(Some(PodsFrom::Auto), false, &node.options, updates);
    assert_eq!(ear.pods().await, (PodSourceKind::Api, vec!["of-api".to_owned()]));
    assert!(ear.troubles()[0].contains("kubelet"), "{:?}", ear.troubles());
    // Looking for kubelet again finds the same trouble, which is no news.
    ear.pods().await;
    assert_eq!(ear.troubles().len(), 1);
    node.kubelet_up.store(true, Ordering::SeqCst);
    loop {
        if ear.pods().await.0 == PodSourceKind::Kubelet {
            break;
        }
    }
    // What nothing keeps up to date any more is taken back.
    let withdrawn = ear.until(|update| match update {
        PodUpdate::All { source: PodSourceKind::Api, pods, .. } => Some(pods.is_empty()),
        _ => None,
    });
    assert!(withdrawn.await);
}

#[tokio::test]
async fn runtime_comes_last_and_every_source_that_failed_is_named() {
    let runtime = CriServer::start(running_pod("of-runtime", "10.0.0.3"));
    let node = Node::new(false, false, runtime.socket()).await;
    let (updates, mut ear) = Ear::new();
    let _clients = follow(Some(PodsFrom::Auto), true, &node.options, updates);
    assert_eq!(ear.pods().await, (PodSourceKind::Cri, vec!["of-runtime".to_owned()]));
    let troubles = ear.troubles().join("\n");
    assert!(troubles.contains("kubelet") && troubles.contains("list pods at API server"), "{troubles}");
}

#[tokio::test]
async fn without_any_source_each_trouble_is_said_once() {
    let mut node = Node::new(false, false, nowhere()).await;
    node.options.api = ApiOptions::new(ApiServer::Unknown, "node-a".into());
    let (updates, mut ear) = Ear::new();
    // Pods and Services meet the same trouble at the API server.
    let _clients = follow(Some(PodsFrom::Auto), true, &node.options, updates);
    for _ in 0..3 {
        ear.trouble().await;
    }
    while node.kubelet.asked().len() < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(ear.is_silent(), "tried five times, said once");
    let troubles = ear.troubles().join("\n");
    for word in ["kubelet", "--kubeconfig", "/nonexistent/runtime.sock"] {
        assert!(troubles.contains(word), "{troubles}");
    }
}

/// A machine that has nothing to do with Kubernetes.
async fn bare_machine() -> (Node, TcpSocket, ClientOptions) {
    let node = Node::new(false, false, nowhere()).await;
    let mut options = node.options.clone();
    options.name_absent = false;
    // Bound, so that nobody else gets the port, but without a listener.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    options.kubelet.port = bound.local_addr().unwrap().port();
    options.kubelet.login = Login::TokenFile("/nonexistent/token".into());
    (options.kubelet.given, options.cri.given) = (false, false);
    options.api = ApiOptions::new(ApiServer::Unknown, "node-a".into());
    (node, bound, options)
}

async fn absent(ear: &mut Ear) -> PodSourceKind {
    ear.until(|update| match update {
        PodUpdate::Absent { source, .. } => Some(*source),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn sources_that_are_not_there_are_no_trouble_and_told_once() {
    let (_node, _bound, mut options) = bare_machine().await;
    let runtime = CriServer::start(running_pod("of-runtime", "10.0.0.3"));
    let (updates, mut ear) = Ear::new();
    let clients = follow(Some(PodsFrom::Auto), true, &options, updates);
    let mut all = [absent(&mut ear).await, absent(&mut ear).await, absent(&mut ear).await];
    all.sort_unstable();
    assert_eq!(all, [PodSourceKind::Kubelet, PodSourceKind::Api, PodSourceKind::Cri]);
    assert_eq!(ear.troubles(), [] as [&str; 0]);
    drop(clients);
    options.cri.sockets = vec![runtime.socket()];
    // Each list of the runtime comes after the others were asked again.
    options.content = Duration::from_millis(5);
    let (updates, mut ear) = Ear::new();
    let _clients = follow(Some(PodsFrom::Auto), true, &options, updates);
    for _ in 0..5 {
        assert_eq!(ear.pods().await.0, PodSourceKind::Cri);
    }
    let told = ear.heard.iter().filter(|update| matches!(update, PodUpdate::Absent { .. })).count();
    assert_eq!((told, ear.troubles().len()), (2, 0), "{:?}", ear.heard);
}

#[tokio::test]
async fn a_source_that_was_asked_for_or_shows_itself_is_in_trouble() {
    let (node, _bound, options) = bare_machine().await;
    let trouble = async |from, options: &ClientOptions| {
        let (updates, mut ear) = Ear::new();
        let _clients = follow(Some(from), false, options, updates);
        ear.trouble().await.0
    };
    assert_eq!(trouble(PodsFrom::Kubelet, &options).await, PodSourceKind::Kubelet);
    assert_eq!(trouble(PodsFrom::Api, &options).await, PodSourceKind::Api);
    assert_eq!(trouble(PodsFrom::Cri, &options).await, PodSourceKind::Cri);
    let loud = ClientOptions { name_absent: true, ..options.clone() };
    assert_eq!(trouble(PodsFrom::Auto, &loud).await, PodSourceKind::Kubelet);
    let mut given = options.clone();
    given.kubelet.given = true;
    assert_eq!(trouble(PodsFrom::Auto, &given).await, PodSourceKind::Kubelet);
    let mut given = options.clone();
    given.cri.given = true;
    assert_eq!(trouble(PodsFrom::Auto, &given).await, PodSourceKind::Cri);
    // It listens, and only the token is missing.
    let mut listening = options.clone();
    listening.kubelet.port = node.options.kubelet.port;
    assert_eq!(trouble(PodsFrom::Auto, &listening).await, PodSourceKind::Kubelet);
    // There is a token, as in a pod: it may lack the node's network.
    let mut token = options;
    token.kubelet.login = node.options.kubelet.login.clone();
    assert_eq!(trouble(PodsFrom::Auto, &token).await, PodSourceKind::Kubelet);
}

#[tokio::test]
async fn missing_pod_is_asked_for_before_the_interval_is_over() {
    let mut node = Node::new(true, true, nowhere()).await;
    node.options.poll = Duration::from_hours(1);
    let (updates, mut ear) = Ear::new();
    let clients = follow(Some(PodsFrom::Kubelet), false, &node.options, updates);
    ear.pods().await;
    clients.refresh();
    ear.pods().await;
}

#[tokio::test]
async fn sources_end_when_nobody_listens() {
    let node = Node::new(true, true, nowhere()).await;
    let (updates, mut ear) = Ear::new();
    let clients = follow(Some(PodsFrom::Auto), false, &node.options, updates);
    ear.pods().await;
    drop(ear);
    while !clients.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
