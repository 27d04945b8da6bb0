//! Nothing secret gets into an error, a message or a log line, not even at the most talkative level.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::filter::LevelFilter;

use super::super::{ClientOptions, CriOptions, Login, Pem, PodsFrom, Timeouts, follow};
use super::certificates::Authority;
use super::ear::Ear;
use super::objects::{HUSH, pod, pods};
use super::server::{Asked, Reply, Server};
use super::{PATIENT, kubelet, quick};

const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.dG9rZW4";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server that gives back what it got, in every way that a server could.
fn echo(asked: &Asked, turn: usize) -> Reply {
    let got = asked.authorization.clone().unwrap_or_default();
    let error = format!(r#"{{"kind":"Status","code":401,"message":"bad {got}","reason":"{got}"}}"#);
    match turn {
        0 => Reply::Whole(401, Some(("www-authenticate", got)), error.into()),
        1 => Reply::Whole(302, Some(("location", format!("/{got}"))), got.into()),
        2 => Reply::Whole(500, None, got.into()),
        3 => Reply::ok(got),
        4 => Reply::ok(format!(r#"{{"kind":"{got}","items":[]}}"#)),
        5 => Reply::ok(format!(r#"{{"items":["{got}"]}} {got}"#)),
        6 => Reply::Cut(got.into()),
        7 => Reply::ok(format!(r#"{{"type":"{got}","object":"{got}"}}{}"#, "\n")),
        _ => Reply::ok(pods(&[pod("web", "10.0.0.1")])),
    }
}

async fn hear(from: PodsFrom, log: &Log) -> String {
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer({
        let log = log.clone();
        move || log.clone()
    });
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let authority = Authority::new("ca");
    let turn = Mutex::new(0);
    let server = Server::start(Some(authority.sign(&["127.0.0.1"]).server()), move |asked| {
        let mut turn = turn.lock().unwrap();
        *turn += 1;
        echo(asked, *turn - 1)
    })
    .await;
    let mut kubelet = kubelet::options(&server, authority.file());
    kubelet.login = Login::TokenFile(authority.write("token", TOKEN));
    kubelet.timeouts = Timeouts { ..PATIENT };
    let mut options = ClientOptions::new(
        kubelet,
        #[cfg(feature = "kube")]
        {
            let api = super::api::options(&server, &authority);
            authority.write("token", TOKEN);
            api
        },
        CriOptions::default(),
    );
    options.backoff = quick();
    let (updates, mut ear) = Ear::new();
    let _clients = follow(Some(from), false, &options, updates);
    loop {
        if ear.pods().await.1 == ["web"] {
            break;
        }
    }
    assert!(
        server.asked().iter().all(|asked| asked.authorization.as_deref() == Some(&format!("Bearer {TOKEN}")))
    );
    assert!(ear.troubles().len() >= 5, "{:#?}", ear.troubles());
    format!("{:#?}", ear.heard)
}

fn assert_free_of_secrets(text: &str) {
    for secret in [TOKEN, HUSH, "c2VjcmV0", "BEGIN PRIVATE", "BEGIN CERT"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn token_that_a_kubelet_gives_back_is_shown_nowhere() {
    let log = Log::default();
    let heard = hear(PodsFrom::Kubelet, &log).await;
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(heard.contains("401") && logged.contains("401"), "{logged}");
    assert_free_of_secrets(&heard);
    assert_free_of_secrets(&logged);
}

#[cfg(feature = "kube")]
#[tokio::test]
async fn token_that_an_api_server_gives_back_is_shown_nowhere() {
    let log = Log::default();
    let heard = hear(PodsFrom::Api, &log).await;
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(heard.contains("401") && logged.contains("401"), "{logged}");
    assert_free_of_secrets(&heard);
    assert_free_of_secrets(&logged);
}

#[tokio::test]
async fn broken_keys_and_certificates_are_not_quoted() {
    let authority = Authority::new("ca");
    let server = Server::start(Some(authority.sign(&["127.0.0.1"]).server()), |_| Reply::ok(pods(&[]))).await;
    let mut options = kubelet::options(&server, authority.file());
    let signed = authority.sign(&["client"]);
    // A key that does not fit, a key with garbage in it, a certificate with garbage in it.
    let other_key = authority.sign(&["other"]).key_pem();
    let broken_key = signed.key_pem().replacen("MIG", "***", 1).replacen("M", "*", 1);
    for (certificate, key) in [
        (signed.pem(), other_key),
        (signed.pem(), broken_key),
        (signed.pem().replacen("MII", "!!!", 1), signed.key_pem()),
    ] {
        options.login = Login::Certificate {
            certificate: Pem::File(authority.write("c.pem", &certificate)),
            key: Pem::File(authority.write("k.pem", &key)),
        };
        let error = super::super::kubelet::list(&options).await.err().unwrap();
        let text = format!("{error} {error:?}");
        for line in certificate.lines().chain(key.lines()).filter(|line| line.len() > 10) {
            assert!(!text.contains(line), "{text}");
        }
    }
}
