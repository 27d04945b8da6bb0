//! The container runtime's socket against a stand-in.

use std::path::PathBuf;
use std::time::Duration;

use tonic::Code;

use super::super::CriOptions;
use super::super::cri::{Sandboxes, list};
use super::super::cri_wire::{
    Container, LinuxPodSandboxStatus, Namespace, NamespaceOption, PodIp, PodSandbox, PodSandboxStatusResponse,
};
use super::DEADLINE;
use super::cri_server::{Answer, CriServer, container, runtime, sandbox, version, with_address};

fn options(socket: PathBuf) -> CriOptions {
    CriOptions { sockets: vec![socket], given: true, timeout: DEADLINE }
}

async fn trouble(handler: impl Fn(&str, &[u8]) -> Option<Answer> + Send + Sync + 'static) -> String {
    let server = CriServer::start(handler);
    list(&options(server.socket()), &Sandboxes::default()).await.unwrap_err().to_string()
}

fn host_network() -> PodSandboxStatusResponse {
    let mut status = with_address("");
    let namespaces = Some(Namespace { options: Some(NamespaceOption { network: 2 }) });
    status.status.as_mut().unwrap().linux = Some(LinuxPodSandboxStatus { namespaces });
    status
}

#[tokio::test]
async fn pods_have_names_addresses_and_containers_but_no_probes() {
    let mut labelled = PodSandbox { id: "s2".into(), ..PodSandbox::default() };
    for (key, value) in [("name", "labelled"), ("namespace", "kube-system"), ("uid", "uid-2")] {
        labelled.labels.insert(format!("io.kubernetes.pod.{key}"), value.into());
    }
    labelled.annotations.insert("kubernetes.io/config.hash".into(), "0123abcd".into());
    labelled.annotations.insert("note".into(), "not kept".into());
    let ended = PodSandbox { state: 1, ..sandbox("s3", "ended") };
    let containers = vec![
        container("old", "s1", "web", 1),
        container("new", "s1", "web", 2),
        container("side", "s1", "proxy", 0),
        container("gone", "s9", "orphan", 0),
        Container { state: 0, ..container("soon", "s1", "init", 0) },
        Container { state: 0, ..container("next", "s1", "web", 3) },
        Container { state: 2, ..container("ended", "s1", "job", 0) },
    ];
    let server = CriServer::start(runtime(vec![sandbox("s1", "web-1"), labelled, ended], containers, |id| {
        let mut status = with_address("10.0.0.1");
        status.status.as_mut().unwrap().network.as_mut().unwrap().additional_ips =
            vec![PodIp { ip: "fd00::1".into() }];
        Ok(if id == "s1" { status } else { host_network() })
    }));
    let found = list(&options(server.socket()), &Sandboxes::default()).await.unwrap();
    assert!(found.unreadable.is_empty(), "{:?}", found.unreadable);
    let [web, host] = found.pods.as_slice() else { panic!("{:#?}", found.pods) };
    assert_eq!(
        (web.namespace.as_str(), web.name.as_str(), web.uid.as_deref()),
        ("default", "web-1", Some("uid-web-1"))
    );
    assert_eq!(web.ips, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    let containers: Vec<_> =
        web.containers.iter().map(|c| (c.name.as_str(), c.id.as_deref().unwrap())).collect();
    assert_eq!(containers, [("init", "soon"), ("proxy", "side"), ("web", "new")], "one per name, the latest");
    assert_eq!(web.containers[0].image.as_deref(), Some("example.net/web:1"));
    assert!(web.containers.iter().all(|container| container.probes.is_empty()));
    assert_eq!((host.namespace.as_str(), host.name.as_str()), ("kube-system", "labelled"));
    assert_eq!((host.host_network, host.config_hash.as_deref()), (true, Some("0123abcd")));
}

#[tokio::test]
async fn one_odd_sandbox_hides_no_other() {
    let sandboxes = vec![
        sandbox("vanished", "a"),
        sandbox("no-address", "b"),
        PodSandbox { id: "nameless".into(), ..PodSandbox::default() },
        sandbox("good", "d"),
    ];
    let server = CriServer::start(runtime(sandboxes, Vec::new(), |id| match id {
        "vanished" => Err(Code::NotFound),
        "no-address" => Ok(with_address("not-an-address")),
        _ => Ok(with_address("10.0.0.4")),
    }));
    let found = list(&options(server.socket()), &Sandboxes::default()).await.unwrap();
    assert_eq!(found.pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["d"]);
    let unreadable: Vec<_> = found.unreadable.iter().map(|row| (row.line, row.text.as_str())).collect();
    assert_eq!(unreadable, [(2, "no-address"), (3, "nameless")]);
}

#[tokio::test]
async fn addresses_are_asked_for_once_per_sandbox() {
    let server =
        CriServer::start(runtime(vec![sandbox("s1", "web")], Vec::new(), |_| Ok(with_address("10.0.0.1"))));
    let known = Sandboxes::default();
    for _ in 0..3 {
        assert_eq!(list(&options(server.socket()), &known).await.unwrap().pods[0].ips.len(), 1);
    }
    assert_eq!(server.calls().iter().filter(|call| *call == "PodSandboxStatus").count(), 1);
}

#[tokio::test]
async fn errors_of_the_runtime_are_explained() {
    let old = trouble(|_, _| Some(Err(Code::Unimplemented))).await;
    assert!(
        old.contains("Version") && old.contains("does not speak CRI v1") && old.contains("disabled_plugins"),
        "{old}"
    );
    let starting =
        trouble(|call, _| if call == "Version" { version() } else { Some(Err(Code::Unavailable)) }).await;
    assert!(starting.contains("ListPodSandbox") && starting.contains("starting"), "{starting}");
    let garbage = trouble(|_, _| Some(Ok(vec![0xff; 20]))).await;
    assert!(garbage.contains("no container runtime"), "{garbage}");
    let large = trouble(|_, _| Some(Ok(vec![0; 17 << 20]))).await;
    assert!(large.contains("larger than 16 MiB"), "{large}");
}

#[tokio::test]
async fn silent_runtime_has_a_deadline() {
    let server = CriServer::start(|_, _| None);
    let options = CriOptions { timeout: Duration::from_millis(100), ..options(server.socket()) };
    let error = list(&options, &Sandboxes::default()).await.unwrap_err().to_string();
    assert!(error.contains("no answer to Version within 100 ms"), "{error}");
}

#[tokio::test]
async fn what_is_no_runtime_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    let error = list(&options(path.clone()), &Sandboxes::default()).await.unwrap_err().to_string();
    assert!(
        error.contains("none of its usual sockets exists") && error.contains("--runtime-endpoint"),
        "{error}"
    );
    // A socket that nobody listens on any more.
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let error = list(&options(path.clone()), &Sandboxes::default()).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    // Somebody else's socket.
    std::fs::remove_file(&path).unwrap();
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.try_write(b"220 mail.example.net ESMTP\r\n");
        }
    });
    let error = list(&options(path), &Sandboxes::default()).await.unwrap_err().to_string();
    assert!(error.contains("x.sock"), "{error}");
}

#[test]
fn endpoints_are_read_as_crictl_reads_them() {
    let path = |endpoint| CriOptions::for_endpoint(endpoint).unwrap().sockets;
    assert_eq!(path("unix:///run/crio/crio.sock"), [PathBuf::from("/run/crio/crio.sock")]);
    assert_eq!(path("/run/crio/crio.sock"), [PathBuf::from("/run/crio/crio.sock")]);
    assert!(CriOptions::for_endpoint("tcp://127.0.0.1:1").unwrap_err().to_string().contains("unix://"));
    let find = |given, variable: Option<&str>| {
        CriOptions::find(given, |_| variable.map(str::to_owned)).unwrap().sockets
    };
    assert_eq!(find(Some("/a"), Some("unix:///b")), [PathBuf::from("/a")]);
    assert_eq!(find(None, Some("unix:///b")), [PathBuf::from("/b")]);
    assert!(find(None, None).len() > 2 && find(None, Some("")).len() > 2);
}
