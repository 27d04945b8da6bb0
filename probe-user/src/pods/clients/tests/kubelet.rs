//! kubelet's `/pods` against a stand-in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::kubelet::{Answer, list};
use super::super::{KubeletError, KubeletOptions, Login, Pem, Timeouts, Trust};
use super::PATIENT;
use super::certificates::{Authority, Signed, write};
use super::objects::{pod, pods};
use super::server::{Reply, Server};
use crate::kubernetes::pod::Handler;
use crate::pods::update::PodSourceKind;

/// A kubelet that is believed if `ca` says so, with a token beside it.
pub(super) fn options(server: &Server, ca: PathBuf) -> KubeletOptions {
    let token = write(ca.parent().unwrap(), "token", "first-token\n");
    KubeletOptions {
        address: server.address.ip(),
        port: server.address.port(),
        read_only_port: None,
        names: Vec::new(),
        trust: Trust::These(vec![Pem::File(ca)]),
        login: Login::TokenFile(token),
        timeouts: PATIENT,
        given: true,
    }
}

fn token_file(options: &KubeletOptions) -> &Path {
    match &options.login {
        Login::TokenFile(path) => path,
        _ => panic!("no token"),
    }
}

fn names(answer: Result<Answer, KubeletError>) -> Vec<String> {
    answer.unwrap().pods.items.into_iter().map(|pod| pod.name).collect()
}

fn trouble(answer: Result<Answer, KubeletError>) -> String {
    match answer {
        Ok(answer) => panic!("{} pods", answer.pods.items.len()),
        Err(error) => error.to_string(),
    }
}

async fn serving(authority: &Authority, replies: Vec<Reply>) -> (Server, KubeletOptions) {
    let server = Server::scripted(Some(authority.sign(&["127.0.0.1"]).server()), replies).await;
    let options = options(&server, authority.file());
    (server, options)
}

#[tokio::test]
async fn pods_come_with_their_probes_and_nothing_secret() {
    let authority = Authority::new("ca");
    let broken = serde_json::json!({"metadata": {"name": "odd"}, "spec": {"containers": "none"}});
    let body = pods(&[pod("web-1", "10.0.0.1"), broken, pod("web-2", "10.0.0.2")]);
    let (server, options) = serving(&authority, vec![Reply::ok(body)]).await;
    let answer = list(&options).await.unwrap();
    assert_eq!(answer.source, PodSourceKind::Kubelet);
    let web = &answer.pods.items[0];
    assert_eq!((web.name.as_str(), web.ips.as_slice()), ("web-1", ["10.0.0.1".parse().unwrap()].as_slice()));
    let probe = &web.containers[0].probes[0];
    assert_eq!(probe.timeout_s, 2);
    assert!(
        matches!(&probe.handler, Handler::HttpGet { port: Some(8080), header_names, .. } if header_names == &["X-Key"])
    );
    assert_eq!(web.containers[0].id.as_deref(), Some("ab".repeat(32).as_str()));
    // One entry that cannot be read hides no other, and is shown.
    assert_eq!(answer.pods.items.len(), 2);
    assert!(answer.pods.unreadable[0].text.contains("odd"), "{:?}", answer.pods.unreadable);
    let asked = &server.asked()[0];
    assert_eq!((asked.path.as_str(), asked.authorization.as_deref()), ("/pods", Some("Bearer first-token")));
}

#[tokio::test]
async fn rotated_token_and_authority_are_read_again() {
    let (old, new) = (Authority::new("ca"), Authority::new("new-ca"));
    let (server, options) = serving(&old, vec![Reply::ok(pods(&[])), Reply::ok(pods(&[]))]).await;
    list(&options).await.unwrap();
    std::fs::write(token_file(&options), "second-token").unwrap();
    list(&options).await.unwrap();
    let tokens: Vec<_> = server.asked().into_iter().filter_map(|asked| asked.authorization).collect();
    assert_eq!(tokens, ["Bearer first-token", "Bearer second-token"]);
    old.write("ca.crt", &new.pem());
    assert!(trouble(list(&options).await).contains("nobody trusted has signed"));
}

#[tokio::test]
async fn unfit_tokens_are_refused_before_anything_is_sent() {
    let authority = Authority::new("ca");
    let (server, options) = serving(&authority, Vec::new()).await;
    for (content, problem) in [("", "it is empty"), (" \n", "it is empty"), ("two words", "other characters")]
    {
        std::fs::write(token_file(&options), content).unwrap();
        let error = trouble(list(&options).await);
        assert!(error.contains(problem) && error.contains("--kubelet-token"), "{error}");
    }
    std::fs::remove_file(token_file(&options)).unwrap();
    let error = trouble(list(&options).await);
    assert!(error.contains("No such file") && error.contains("token"), "{error}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn client_certificate_is_shown_and_wanted() {
    let authority = Authority::new("ca");
    let config = authority.server_for_its_clients(&authority.sign(&["127.0.0.1"]));
    let server = Server::start(Some(config), |_| Reply::ok(pods(&[pod("web", "10.0.0.1")]))).await;
    let mut options = options(&server, authority.file());
    let login = |signed: &Signed| Login::Certificate {
        certificate: Pem::File(authority.write("client.crt", &signed.pem())),
        key: Pem::File(authority.write("client.key", &signed.key_pem())),
    };
    options.login = login(&authority.sign(&["apiserver-kubelet-client"]));
    assert_eq!(names(list(&options).await), ["web"]);
    assert_eq!(server.asked()[0].authorization, None, "no token beside a certificate");
    options.login = login(&Authority::new("other").sign(&["stranger"]));
    let error = trouble(list(&options).await);
    assert!(error.contains("does not accept the client certificate"), "{error}");
    options.login = Login::Anonymous;
    let error = trouble(list(&options).await);
    assert!(error.contains("or wants one"), "{error}");
    options.login =
        Login::Certificate { certificate: Pem::File(authority.file()), key: Pem::File(authority.file()) };
    let error = trouble(list(&options).await);
    assert!(error.contains("no unencrypted private key"), "{error}");
}

#[tokio::test]
async fn certificates_are_verified_and_each_failure_says_what_to_do() {
    let authority = Authority::new("ca");
    let cases: [(Signed, &str, &str); 4] = [
        (authority.sign_until(&["127.0.0.1"], 2021), "has expired", "--kubelet-insecure"),
        (Authority::new("ca").sign(&["127.0.0.1"]), "nobody trusted has signed", "--kubelet-ca"),
        (authority.sign(&["node-a"]), "is for node-a", "--kubelet-name"),
        (authority.sign(&["192.0.2.7"]), "is for 192.0.2.7", "--kubelet-name"),
    ];
    for (signed, problem, advice) in cases {
        let server = Server::start(Some(signed.server()), |_| Reply::ok(pods(&[]))).await;
        let mut options = options(&server, authority.file());
        let error = trouble(list(&options).await);
        assert!(error.contains(problem) && error.contains(advice), "{error}");
        assert!(server.asked().is_empty(), "no request, and no token, to a stranger");
        options.trust = Trust::Everybody;
        list(&options).await.expect("explicitly insecure");
    }
}

#[tokio::test]
async fn certificate_may_be_for_the_nodes_name() {
    let authority = Authority::new("ca");
    let server = Server::start(Some(authority.sign(&["node-a"]).server()), |_| Reply::ok(pods(&[]))).await;
    let mut options = options(&server, authority.file());
    options.names = vec!["node-b".into(), "node-a".into()];
    list(&options).await.unwrap();
}

#[tokio::test]
async fn kubelets_own_certificate_is_known_byte_by_byte() {
    let folder = Authority::new("unused");
    let own = Signed::by_itself(&["old-host-name"], 2100);
    let server = Server::start(Some(own.server()), |_| Reply::ok(pods(&[]))).await;
    list(&options(&server, folder.write("kubelet.crt", &own.pem()))).await.unwrap();
    // One that only looks like it is not.
    let other = Signed::by_itself(&["old-host-name"], 2100);
    let error = trouble(list(&options(&server, folder.write("kubelet.crt", &other.pem()))).await);
    assert!(error.contains("kubelet"), "{error}");
    // An authority may be beside it in the file, as kubelet writes it; then the name does not matter either.
    let authority = Authority::new("old-host-name-ca@1700000000");
    let leaf = authority.sign(&["old-host-name"]);
    let server = Server::start(Some(leaf.server()), |_| Reply::ok(pods(&[]))).await;
    let both = folder.write("kubelet.crt", &format!("{}{}", leaf.pem(), authority.pem()));
    list(&options(&server, both)).await.unwrap();
    // Known, but out of date.
    let expired = Signed::by_itself(&["old-host-name"], 2021);
    let server = Server::start(Some(expired.server()), |_| Reply::ok(pods(&[]))).await;
    let error = trouble(list(&options(&server, folder.write("kubelet.crt", &expired.pem()))).await);
    assert!(error.contains("has expired"), "{error}");
}

#[tokio::test]
async fn missing_or_empty_authorities_are_said() {
    let authority = Authority::new("ca");
    let (_server, mut options) = serving(&authority, Vec::new()).await;
    options.trust = Trust::Existing(vec!["/nonexistent/ca.crt".into()]);
    let error = trouble(list(&options).await);
    assert!(error.contains("/nonexistent/ca.crt") && error.contains("--kubelet-insecure"), "{error}");
    options.trust = Trust::These(vec![Pem::File(authority.write("empty", "not pem"))]);
    assert!(trouble(list(&options).await).contains("no certificate in PEM form"));
}

#[tokio::test]
async fn statuses_say_what_to_do_and_never_quote_the_body() {
    let authority = Authority::new("ca");
    for (status, advice) in [
        (401, "authentication.webhook"),
        (403, "nodes/proxy"),
        (404, "enableDebuggingHandlers"),
        (500, "in trouble"),
        (503, "in trouble"),
        (418, "418"),
    ] {
        let (_server, options) = serving(&authority, vec![Reply::status(status)]).await;
        let error = trouble(list(&options).await);
        assert!(error.contains(advice) && error.contains(&status.to_string()), "{error}");
        assert!(!error.contains("leak-of-the-body"), "{error}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let authority = Authority::new("ca");
    let elsewhere = Server::start(None, |_| Reply::ok(pods(&[]))).await;
    let location = Some(("location", format!("http://{}/pods?token=abc", elsewhere.address)));
    let (_server, options) = serving(&authority, vec![Reply::Whole(302, location, "".into())]).await;
    let error = trouble(list(&options).await);
    assert!(error.contains("redirect, which is not followed") && !error.contains("abc"), "{error}");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn garbage_and_other_protocols_are_told_apart() {
    let authority = Authority::new("ca");
    for (body, problem) in [
        (&b"<html>hello</html>"[..], "no list of pods"),
        (&b"{}"[..], "it has no items"),
        (&b"{\"kind\":\"Status\",\"items\":[]}"[..], "not a PodList"),
        (&b"{\"kind\":\"PodList\",\"items\":[]} {}"[..], "no list of pods"),
        (&b"{\"kind\":\"PodList\",\"items\":[{\"metadata\""[..], "ends in the middle"),
        (&b"\xff\xfe\x00"[..], "no list of pods"),
        (&b""[..], "ends in the middle"),
    ] {
        let (_server, options) = serving(&authority, vec![Reply::ok(body)]).await;
        let error = trouble(list(&options).await);
        assert!(error.contains(problem), "{error}");
    }
    let (_server, options) = serving(&authority, vec![Reply::ok(r#"{"kind":"PodList","items":null}"#)]).await;
    assert!(names(list(&options).await).is_empty(), "Go writes an empty list as null");
    let plain =
        Server::raw(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.").await;
    let error = trouble(list(&super::kubelet::options(&plain, authority.file())).await);
    assert!(error.contains("does not speak TLS"), "{error}");
    let (listener, mut closed) = serving(&authority, Vec::new()).await;
    drop(listener);
    closed.port = 1;
    let error = trouble(list(&closed).await);
    assert!(error.contains("refused") && error.contains("hostNetwork"), "{error}");
}

#[tokio::test]
async fn list_that_is_cut_off_is_no_list() {
    let authority = Authority::new("ca");
    let whole = pods(&[pod("web-1", "10.0.0.1"), pod("web-2", "10.0.0.2")]);
    let half = whole.as_bytes()[..whole.len() / 2].to_vec();
    let (_server, options) = serving(&authority, vec![Reply::Cut(half.into()), Reply::ok(whole)]).await;
    let error = trouble(list(&options).await);
    assert!(error.contains("reading the answer"), "{error}");
    assert_eq!(names(list(&options).await), ["web-1", "web-2"]);
}

#[tokio::test]
async fn slow_steps_have_a_deadline() {
    let authority = Authority::new("ca");
    let short = Duration::from_millis(100);
    let (_server, mut options) =
        serving(&authority, vec![Reply::Never, Reply::Stalled(b"{\"ki".as_slice().into())]).await;
    options.timeouts = Timeouts { response: short, idle: short, ..PATIENT };
    let error = trouble(list(&options).await);
    assert!(error.contains("the request took longer than 100 ms"), "{error}");
    options.timeouts.response = PATIENT.response;
    let error = trouble(list(&options).await);
    assert!(error.contains("reading the answer took longer than 100 ms"), "{error}");
    // The whole body has a deadline of its own, however steadily it drips.
    let (send, drip) = tokio::sync::mpsc::channel(1);
    let (_server, mut options) = serving(&authority, vec![Reply::Live(drip)]).await;
    options.timeouts.total = short;
    let dripping = async {
        while send.send(Some(b" ".as_slice().into())).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::select! {
        answer = list(&options) => trouble(answer),
        () = dripping => unreachable!("the server reads on"),
    };
    assert!(error.contains("took longer than 100 ms"), "{error}");
}

#[tokio::test]
async fn list_of_50_mb_is_read_as_a_stream() {
    let authority = Authority::new("ca");
    // What most of a large list is: fields that nobody here wants.
    let mut large = pod("web", "10.0.0.1");
    large["metadata"]["annotations"] = serde_json::json!({"note": "x".repeat(100_000)});
    let items = vec![large; 520];
    let body = pods(&items);
    assert!(body.len() > 50_000_000);
    let (_server, options) = serving(&authority, vec![Reply::ok(body)]).await;
    assert_eq!(names(list(&options).await).len(), 520);
}

#[tokio::test]
async fn read_only_port_serves_where_it_is_open() {
    let authority = Authority::new("ca");
    let open = Server::start(None, |_| Reply::ok(pods(&[pod("web", "10.0.0.1")]))).await;
    let (_server, mut options) = serving(&authority, vec![Reply::status(401), Reply::status(401)]).await;
    options.read_only_port = Some(open.address.port());
    let answer = list(&options).await.unwrap();
    assert_eq!(answer.source, PodSourceKind::KubeletReadOnly);
    assert!(
        answer.secure_port.unwrap().to_string().contains("401"),
        "what is wrong with the other port is told"
    );
    assert_eq!(open.asked()[0].authorization, None, "no token in the clear");
    options.read_only_port = Some(1);
    assert!(trouble(list(&options).await).contains("401"), "a closed read-only port is no news");
}
