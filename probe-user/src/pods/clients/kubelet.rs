//! kubelet's `/pods`: this node's pods, static ones included, with their probes.
//!
//! Port 10250 wants TLS and a login that may `get` `nodes/proxy` (from Kubernetes 1.33 on `nodes/pods` is enough,
//! KEP-2862); the read-only port 10255, closed by default, gives the same to everybody on the node.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::credentials::{CredentialError, Login, token};
use super::http::{HttpError, Server, Timeouts, authority, get};
use super::reader::parse_body;
use super::secret::Secret;
use super::task::blocking;
use super::tls::{SetupError, TlsTrouble, Trust, client_config};
use crate::kubernetes::pod::Pod;
use crate::kubernetes::stream::{StreamedList, read_pod_list};
use crate::pods::update::PodSourceKind;

/// Longest list in bytes: several times that of a node with 500 large pods.
const MAX_LIST: u64 = 256 << 20;

/// Where kubelet is, and how to log in.
#[derive(Clone)]
pub struct KubeletOptions {
    /// Address.
    pub address: IpAddr,
    /// Port with TLS.
    pub port: u16,
    /// Port without, to try when the other one does not answer.
    pub read_only_port: Option<u16>,
    /// What kubelet's certificate may be for besides its address: the node's name, the host's name.
    pub names: Vec<String>,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Login.
    pub login: Login,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Whether the user said any of this: then kubelet is expected, and to find none is a trouble.
    pub given: bool,
}

impl Default for KubeletOptions {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 10250,
            read_only_port: Some(10255),
            names: Vec::new(),
            trust: Trust::Existing(default_authorities()),
            login: Login::TokenFile(PathBuf::from(SERVICE_ACCOUNT_TOKEN)),
            timeouts: Timeouts::default(),
            given: false,
        }
    }
}

impl KubeletOptions {
    /// Whether there is no sign of a kubelet: no token for it, nobody who listens on its port, nothing that the user
    /// said of it.
    pub(super) async fn shows_none(&self, error: &KubeletError) -> bool {
        let no_token = matches!(
            error,
            KubeletError::Login { source: CredentialError::Read { source, .. }, .. }
                if source.kind() == ErrorKind::NotFound
        );
        if self.given || !no_token {
            return false;
        }
        let connect = timeout(self.timeouts.connect, TcpStream::connect((self.address, self.port)));
        matches!(connect.await, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
    }
}

/// Where a pod finds its service account's token.
pub const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Where a pod finds the cluster's certificate authority.
pub const SERVICE_ACCOUNT_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// The cluster's authority, and the certificate that kubelet signs for itself if nobody gives it one.
fn default_authorities() -> Vec<PathBuf> {
    [SERVICE_ACCOUNT_CA, "/etc/kubernetes/pki/ca.crt", "/var/lib/kubelet/pki/kubelet.crt"]
        .map(PathBuf::from)
        .into()
}

/// Why kubelet told nothing, with what to do about it. Never contains a token or what kubelet sent.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// Files of ours.
    #[error(
        "ask kubelet at {authority}: {source}; give --kubelet-ca FILE, or accept any certificate with --kubelet-insecure"
    )]
    Trust {
        /// `address:port`.
        authority: String,
        /// What is wrong.
        source: SetupError,
    },
    /// Token or client certificate of ours.
    #[error(
        "ask kubelet at {authority}: {source}; give --kubelet-token FILE, or --kubelet-cert and --kubelet-key"
    )]
    Login {
        /// `address:port`.
        authority: String,
        /// What is wrong.
        source: CredentialError,
    },
    /// Connection, handshake, response.
    #[error("ask kubelet at {authority}: {source}{}", advice(.source))]
    Http {
        /// `address:port`.
        authority: String,
        /// What is wrong.
        source: HttpError,
    },
    /// kubelet answers something else than a list.
    #[error("ask kubelet at {authority}: {status}{}", status_advice(*.status))]
    Status {
        /// `address:port`.
        authority: String,
        /// The status.
        status: StatusCode,
    },
    /// The list cannot be read.
    #[error("ask kubelet at {authority}: its answer is no list of pods: {reason}")]
    Answer {
        /// `address:port`.
        authority: String,
        /// Why.
        reason: String,
    },
}

fn advice(error: &HttpError) -> &'static str {
    match error {
        HttpError::Tls(TlsTrouble::WrongName(_)) => {
            "; say with --kubelet-name NAME which of these kubelet is, give --kubelet-ca with kubelet's own certificate \
             (/var/lib/kubelet/pki/kubelet.crt), or accept any certificate with --kubelet-insecure"
        }
        HttpError::Tls(TlsTrouble::UnknownAuthority) => {
            "; kubelet signs its certificate itself unless serverTLSBootstrap is set: give it with --kubelet-ca \
             (/var/lib/kubelet/pki/kubelet.crt), or accept any certificate with --kubelet-insecure"
        }
        HttpError::Tls(TlsTrouble::Expired) => {
            "; kubelet must renew it, or accept it with --kubelet-insecure"
        }
        HttpError::Tls(TlsTrouble::ClientCertificate) => "; give one that kubelet's clientCAFile has signed",
        HttpError::Connect(_) => {
            "; is this a node, is portclash in its network namespace (hostNetwork), is the port right?"
        }
        _ => "",
    }
}

fn status_advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => {
            ": it does not accept the token or certificate; needs authentication.webhook.enabled for tokens"
        }
        403 => {
            ": not allowed; the login needs the verb get on nodes/proxy (from Kubernetes 1.33 on nodes/pods is enough) \
             by a ClusterRole"
        }
        404 => ": it has no /pods; enableDebuggingHandlers is off, or this is no kubelet",
        300..=399 => ": a redirect, which is not followed; this is no kubelet",
        500..=599 => ": kubelet is in trouble",
        _ => "",
    }
}

/// What kubelet told.
pub(super) struct Answer {
    /// On which port.
    pub(super) source: PodSourceKind,
    /// The pods.
    pub(super) pods: StreamedList<Pod>,
    /// Why it was the read-only port.
    pub(super) secure_port: Option<KubeletError>,
}

/// Asks kubelet. If it does not answer on its port with TLS and the read-only port is open, that one's answer counts.
pub(super) async fn list(options: &KubeletOptions) -> Result<Answer, KubeletError> {
    let error = match list_secure(options).await {
        Ok(pods) => return Ok(Answer { source: PodSourceKind::Kubelet, pods, secure_port: None }),
        Err(error) => error,
    };
    let Some(port) = options.read_only_port else { return Err(error) };
    let server = Server { host: options.address.to_string(), port, tls: None, tls_name: None };
    match ask(&server, None, &options.timeouts).await {
        Ok(pods) => Ok(Answer { source: PodSourceKind::KubeletReadOnly, pods, secure_port: Some(error) }),
        // The port is closed by default, so only the other one's trouble helps.
        Err(_) => Err(error),
    }
}

async fn list_secure(options: &KubeletOptions) -> Result<StreamedList<Pod>, KubeletError> {
    let authority = authority(&options.address.to_string(), options.port);
    let (trust, names, login) = (options.trust.clone(), options.names.clone(), options.login.clone());
    let prepared = blocking(move || {
        let token = token(&login).map_err(Preparation::Login)?;
        let config = client_config(&trust, &names, &login).map_err(Preparation::Trust)?;
        Ok((token, config))
    });
    let (token, config) = prepared.await.map_err(|error: Preparation| error.at(authority))?;
    let server = Server {
        host: options.address.to_string(),
        port: options.port,
        tls: Some(Arc::new(config)),
        tls_name: None,
    };
    ask(&server, token.as_ref(), &options.timeouts).await
}

enum Preparation {
    Login(CredentialError),
    Trust(SetupError),
}

impl Preparation {
    fn at(self, authority: String) -> KubeletError {
        match self {
            Self::Login(source) => KubeletError::Login { authority, source },
            Self::Trust(source) => KubeletError::Trust { authority, source },
        }
    }
}

async fn ask(
    server: &Server,
    token: Option<&Secret>,
    timeouts: &Timeouts,
) -> Result<StreamedList<Pod>, KubeletError> {
    let http = |source| KubeletError::Http { authority: server.authority(), source };
    let response = get(server, "/pods", token, timeouts, MAX_LIST).await.map_err(http)?;
    if response.status != StatusCode::OK {
        return Err(KubeletError::Status { authority: server.authority(), status: response.status });
    }
    let listing = parse_body(response.body, |stream| read_pod_list(stream)).await.map_err(http)?;
    listing.map_err(|reason| KubeletError::Answer { authority: server.authority(), reason })
}
