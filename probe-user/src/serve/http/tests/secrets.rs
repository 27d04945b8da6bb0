//! Token and TLS.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::{Got, ask, get, over, request};
use super::*;

/// Replaces a file at once, as Kubernetes does.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn with_token(path: &Path) -> Played {
    Played::saying(status_samples::busy(), |options| options.token_file = Some(path.to_owned()))
}

#[tokio::test]
async fn without_the_token_nothing_is_told_but_to_kubelet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "sesame\n").unwrap();
    let played = with_token(&path);
    played.tell("x", None);
    for path in [
        "/",
        "/metrics",
        "/incidents",
        "/incidents/x",
        "/incidents/x/report",
        "/incidents/x/capture",
        "/nothing",
    ] {
        let status = async |more: &str| ask(played.address(), "GET", path, more).await.status;
        let got = get(played.address(), path).await;
        assert_eq!(
            (got.status, got.header("www-authenticate")),
            (401, Some("Bearer realm=\"portclash\"")),
            "{path}"
        );
        for wrong in ["sesam", "sesame2", "", "Sesame"] {
            assert_eq!(status(&format!("Authorization: Bearer {wrong}\r\n")).await, 401, "{path} {wrong}");
        }
        assert_eq!(status("Authorization: Basic sesame\r\n").await, 401);
        assert_ne!(status("Authorization: Bearer sesame\r\n").await, 401, "{path}");
        assert_ne!(status("authorization: bearer sesame\r\n").await, 401, "{path}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(played.address(), path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_token_that_was_replaced_is_in_force_with_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first").unwrap();
    let played = with_token(&path);
    let status = async |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        ask(played.address(), "GET", "/metrics", &header).await.status
    };
    assert_eq!((status("first").await, status("other").await), (200, 401));
    replace(&path, "other");
    assert_eq!((status("first").await, status("other").await), (401, 200));
    // A file that cannot be used, or is gone, opens nothing and locks nobody out.
    replace(&path, "\n");
    assert_eq!((status("").await, status("other").await), (401, 200));
    std::fs::remove_file(&path).unwrap();
    assert_eq!((status("first").await, status("other").await), (401, 200));
    replace(&path, "third");
    assert_eq!((status("other").await, status("third").await), (401, 200));
}

#[test]
fn files_that_cannot_be_used_are_named_and_nothing_of_them_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    let missing = folder.path().join("missing");
    options.token_file = Some(missing.clone());
    let error = bind(&options).err().unwrap().to_string();
    assert!(error.contains(&missing.display().to_string()) && error.contains("token"), "{error}");
    let made = Made::new(folder.path(), "a");
    options.token_file = None;
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, "sesame").unwrap();
    options.tls = Some((made.certificate.clone(), garbage.clone()));
    let error = bind(&options).err().unwrap().to_string();
    assert!(error.contains(&garbage.display().to_string()) && !error.contains("sesame"), "{error}");
    let other = Made::new(folder.path(), "b");
    options.tls = Some((made.certificate, other.key));
    let error = bind(&options).err().unwrap().to_string();
    assert!(error.contains("a.crt") && error.contains("b.key"), "{error}");
}

/// A certificate for `localhost` in a folder.
struct Made {
    certificate: PathBuf,
    key: PathBuf,
    der: CertificateDer<'static>,
}

impl Made {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let made = Self {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
            der: signed.der().clone(),
        };
        std::fs::write(&made.certificate, signed.pem()).unwrap();
        std::fs::write(&made.key, key.serialize_pem()).unwrap();
        made
    }

    /// Asks a server that must have exactly this certificate.
    async fn ask(&self, address: SocketAddr, path: &str) -> Option<Got> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        Some(Got::parse(&over(stream, request("GET", path, "").as_bytes()).await))
    }
}

#[tokio::test]
async fn a_certificate_that_was_replaced_is_shown_with_the_next_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Made::new(folder.path(), "tls"), Made::new(folder.path(), "next"));
    let tls = Some((first.certificate.clone(), first.key.clone()));
    let played = Played::saying(status_samples::busy(), |options| options.tls = tls);
    let status = async |made: &Made| made.ask(played.address(), "/metrics").await.map(|got| got.status);
    assert_eq!((status(&first).await, status(&second).await), (Some(200), None));
    // One file after the other: in between they do not fit, and the first pair stays.
    std::fs::rename(&second.certificate, &first.certificate).unwrap();
    assert_eq!((status(&first).await, status(&second).await), (Some(200), None));
    std::fs::rename(&second.key, &first.key).unwrap();
    assert_eq!((status(&first).await, status(&second).await), (None, Some(200)));
}

#[tokio::test]
async fn who_speaks_no_tls_gets_nothing_and_who_stops_midway_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let made = Made::new(folder.path(), "tls");
    let played = Played::saying(status_samples::busy(), |options| {
        options.tls = Some((made.certificate.clone(), made.key.clone()));
        options.limits.head_timeout = Duration::from_millis(50);
    });
    let bytes = client::exchange(played.address(), request("GET", "/metrics", "").as_bytes()).await;
    assert!(!bytes.starts_with(b"HTTP"));
    // The beginning of a handshake, and no more.
    client::exchange(played.address(), b"\x16\x03\x01\x02\x00").await;
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn neither_token_nor_key_is_logged() {
    let ear = Ear::default();
    let writer = ear.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // Where there is only one, whether a line is written is decided by the thread that comes by it first, and that may be
    // another test's.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    tracing::subscriber::with_default(subscriber, || {
        std::fs::write(&path, "sesame").unwrap();
        let access = crate::serve::http::access::Access::read(&path).unwrap();
        let allows = |token: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
            access.allows(&headers)
        };
        assert!(allows("sesame"));
        replace(&path, "open sesame");
        assert!(allows("sesame") && !allows("open sesame"));
        replace(&path, "tahini");
        assert!(allows("tahini"));
    });
    let said = String::from_utf8(ear.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("stays in force") && said.contains("read again"), "{said}");
    assert!(!said.contains("sesame") && !said.contains("tahini"), "{said}");
}
