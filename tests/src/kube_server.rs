//! A stand-in for the HTTPS servers of a kubelet and of the API server: lists from files, for a token, behind a
//! certificate made when it starts.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::{Deserialize, Serialize};

/// Longest head of a request.
const MOST_HEAD: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// What is served, and to whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Address and port; a kubelet's port is 10250, the API server's usually 6443.
    pub address: SocketAddr,
    /// The bearer token that is asked for.
    pub token: String,
    /// What is served.
    pub lists: Vec<List>,
    /// File that the certificate of the authority is written to, PEM.
    pub authority: PathBuf,
}

/// One list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// Path of its address, such as `/pods`.
    pub path: String,
    /// What the query of a request must contain, such as a field selector.
    pub query: String,
    /// File that holds the answer, read for each request.
    pub file: PathBuf,
}

impl List {
    /// A list that needs nothing in the query.
    pub fn new(path: &str, file: &str) -> Self {
        Self { path: path.to_owned(), query: String::new(), file: file.into() }
    }
}

/// Makes certificates, listens, and serves in threads of its own until the process ends. Returns the address.
pub fn start(settings: Settings) -> Result<SocketAddr> {
    let config = Arc::new(certified(settings.address.ip(), &settings.authority)?);
    let listener = TcpListener::bind(settings.address)
        .with_context(|| format!("cannot listen on {}", settings.address))?;
    let address = listener.local_addr()?;
    let settings = Arc::new(settings);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, settings) = (config.clone(), settings.clone());
            // A client that goes away, or does not trust the certificate, is no failure of the server.
            std::thread::spawn(move || serve(stream, config, &settings));
        }
    });
    Ok(address)
}

/// A TLS configuration with a certificate for `ip` and 127.0.0.1, signed by an authority that is written to a file.
fn certified(ip: IpAddr, authority: &Path) -> Result<ServerConfig> {
    let authority_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&authority_key)?;
    std::fs::write(authority, certificate.pem())
        .with_context(|| format!("cannot write {}", authority.display()))?;
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate()?;
    let names = vec![ip.to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(config)
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, settings: &Settings) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let head = read_head(&mut stream)?;
    let (status, kind, body) = answer(&head, settings);
    if status.starts_with("200 ") && is_watch(&head) {
        return watch(&mut stream);
    }
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

fn read_head(stream: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < MOST_HEAD {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Status, content type and body, in a kubelet's words.
fn answer(head: &str, settings: &Settings) -> (&'static str, &'static str, Vec<u8>) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let mut lines = head.lines();
    let request = lines.next().unwrap_or_default();
    let authorized = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("authorization")
            && value.trim().strip_prefix("Bearer ") == Some(settings.token.as_str())
    });
    if !authorized {
        return ("401 Unauthorized", TEXT, b"Unauthorized".to_vec());
    }
    let (path, query) = target(request);
    let Some(list) = settings.lists.iter().find(|list| list.path == path.trim_end_matches('/')) else {
        return ("404 Not Found", TEXT, b"404 page not found\n".to_vec());
    };
    if !query.contains(&list.query) {
        return ("403 Forbidden", TEXT, format!("only with {}\n", list.query).into_bytes());
    }
    match std::fs::read(&list.file) {
        Ok(body) => ("200 OK", "application/json", body),
        Err(error) => ("500 Internal Server Error", TEXT, error.to_string().into_bytes()),
    }
}

/// Path and query of the first line of a request.
fn target(request: &str) -> (&str, &str) {
    let target = request.split(' ').nth(1).unwrap_or_default();
    target.split_once('?').unwrap_or((target, ""))
}

fn is_watch(head: &str) -> bool {
    let (_, query) = target(head.lines().next().unwrap_or_default());
    query.split('&').any(|word| word == "watch=true")
}

/// A watch in which nothing changes: the head of an answer, and no end before the client goes.
fn watch(stream: &mut (impl Read + Write)) -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    stream.flush()?;
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn ask(address: SocketAddr, authority: &Path, head: &str) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn lists_are_served_to_the_token_and_to_nothing_else() {
        let directory = std::env::temp_dir().join(format!("kube-server-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("pods.json").display().to_string();
        let settings = Settings {
            address: "127.0.0.1:0".parse().unwrap(),
            token: "letmein".to_owned(),
            lists: vec![
                List::new("/pods", &file),
                List { query: "fieldSelector=a".to_owned(), ..List::new("/api/v1/pods", &file) },
            ],
            authority: directory.join("ca.crt"),
        };
        std::fs::write(&file, "{\"items\":[]}").unwrap();
        let authority = settings.authority.clone();
        let address = start(settings).unwrap();
        let get = |path: &str, token: &str| {
            let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nauthorization: Bearer {token}\r\n\r\n");
            ask(address, &authority, &head)
        };
        let answer = get("/pods", "letmein");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n{\"items\":[]}"), "{answer}");
        assert!(get("/pods", "other").starts_with("HTTP/1.1 401 "));
        assert!(get("/api/v1/pods?limit=5&fieldSelector=a", "letmein").starts_with("HTTP/1.1 200 "));
        assert!(get("/api/v1/pods?limit=5", "letmein").starts_with("HTTP/1.1 403 "));
        assert!(get("/healthz", "letmein").starts_with("HTTP/1.1 404 "));
        let bare = ask(address, &authority, "GET /pods HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(bare.starts_with("HTTP/1.1 401 "), "{bare}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
