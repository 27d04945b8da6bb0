//! The API server: this node's pods and the cluster's Services, listed once and then watched.
//!
//! The few requests are made here and not by a Kubernetes client library: `docs/dependencies.md` says why.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::credentials::{CredentialError, Login, Pem, token};
use super::http::{Call, HttpError, Response, Server, Timeouts, authority, call, get};
use super::kubeconfig::{self, Access, KubeconfigError};
use super::kubelet::{SERVICE_ACCOUNT_CA, SERVICE_ACCOUNT_TOKEN};
use super::task::blocking;
use super::tls::{SetupError, TlsTrouble, Trust, client_config};

/// Kubeconfigs that nodes have for themselves; kubelet's may read the pods of its node and all Services.
const NODE_KUBECONFIGS: [&str; 2] =
    ["/etc/kubernetes/kubelet.conf", "/var/lib/rancher/k3s/agent/kubelet.kubeconfig"];
/// Longest answer in bytes.
const MAX_LIST: u64 = 256 << 20;

/// How to find the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiServer {
    /// By this kubeconfig.
    Kubeconfig(PathBuf),
    /// As a pod does: address and port that kubelet puts into the environment, token and authority from files.
    InCluster {
        /// `KUBERNETES_SERVICE_HOST`.
        host: String,
        /// `KUBERNETES_SERVICE_PORT`.
        port: u16,
        /// The service account's token.
        token: PathBuf,
        /// The cluster's certificate authority.
        authority: PathBuf,
    },
    /// There is no way to find it.
    Unknown,
}

impl ApiServer {
    /// The given kubeconfig; else as a pod does; else `$KUBECONFIG`; else a kubeconfig of the node.
    pub fn find(kubeconfig: Option<PathBuf>, variable: impl Fn(&str) -> Option<String>) -> Self {
        if let Some(path) = kubeconfig {
            return Self::Kubeconfig(path);
        }
        let port = variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
        if let (Some(host), Some(port)) = (variable("KUBERNETES_SERVICE_HOST"), port) {
            let (token, authority) = (SERVICE_ACCOUNT_TOKEN.into(), SERVICE_ACCOUNT_CA.into());
            return Self::InCluster { host, port, token, authority };
        }
        // Several files would have to be merged; the first one decides in most of what is used here.
        let from_variable = variable("KUBECONFIG").and_then(|list| list.split(':').next().map(PathBuf::from));
        let of_node = || NODE_KUBECONFIGS.map(PathBuf::from).into_iter().find(|path| path.exists());
        from_variable
            .filter(|path| !path.as_os_str().is_empty())
            .or_else(of_node)
            .map_or(Self::Unknown, Self::Kubeconfig)
    }

    fn access(&self) -> Result<Access, ApiError> {
        match self {
            Self::Kubeconfig(path) => Ok(kubeconfig::read(path)?),
            Self::InCluster { host, port, token, authority } => Ok(Access {
                host: host.clone(),
                port: *port,
                base: String::new(),
                tls: true,
                tls_name: None,
                trust: Trust::These(vec![Pem::File(authority.clone())]),
                login: Login::TokenFile(token.clone()),
            }),
            Self::Unknown => Err(ApiError::Unknown),
        }
    }
}

/// What to ask the API server for, and how.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Where it is.
    pub server: ApiServer,
    /// Name of this node in the cluster.
    pub node_name: String,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Objects per page of a list.
    pub page: u32,
    /// How long the server should let one watch run.
    pub watch: Duration,
}

impl ApiOptions {
    /// The usual values.
    pub fn new(server: ApiServer, node_name: String) -> Self {
        Self { server, node_name, timeouts: Timeouts::default(), page: 500, watch: Duration::from_mins(5) }
    }
}

/// Why the API server told nothing, with what to do about it. Never contains a token or what the server sent.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Neither in a pod nor any kubeconfig.
    #[error(
        "API server: neither in a pod with a service account nor a kubeconfig found; give --kubeconfig FILE"
    )]
    Unknown,
    /// The kubeconfig cannot be used.
    #[error("API server: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// Authorities or client certificate of ours.
    #[error("API server {authority}: {source}")]
    Setup {
        /// `address:port`.
        authority: String,
        /// What is wrong.
        source: SetupError,
    },
    /// Token of ours.
    #[error("API server {authority}: {source}")]
    Login {
        /// `address:port`.
        authority: String,
        /// What is wrong.
        source: CredentialError,
    },
    /// Connection, handshake, response.
    #[error("{what} at API server {authority}: {source}{}", advice(.source))]
    Http {
        /// What was asked for.
        what: &'static str,
        /// `address:port`.
        authority: String,
        /// What is wrong.
        source: HttpError,
    },
    /// The server answers something else than objects.
    #[error("{what} at API server {authority}: {status}{}", status_advice(*.status))]
    Status {
        /// What was asked for.
        what: &'static str,
        /// `address:port`.
        authority: String,
        /// The status.
        status: StatusCode,
    },
    /// What came cannot be read.
    #[error("{what} at API server {authority}: {reason}")]
    Answer {
        /// What was asked for.
        what: &'static str,
        /// `address:port`.
        authority: String,
        /// Why.
        reason: String,
    },
}

impl ApiError {
    /// Whether there is no sign of an API server. One that the user named is never unknown.
    pub(super) const fn shows_none(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// Whether the server no longer knows the position that was asked for.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Status { status: StatusCode::GONE, .. })
    }
}

const fn advice(error: &HttpError) -> &'static str {
    match error {
        HttpError::Tls(TlsTrouble::WrongName(_)) => {
            "; use one of these names in the kubeconfig, or tls-server-name"
        }
        HttpError::Tls(TlsTrouble::UnknownAuthority) => {
            "; the kubeconfig's certificate-authority is another one"
        }
        _ => "",
    }
}

fn status_advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => ": it does not accept the token or client certificate",
        403 => {
            ": not allowed; the login needs the verbs list and watch on pods and services by a ClusterRole"
        }
        300..=399 => ": a redirect, which is not followed; is this the API server?",
        404 => ": not found; is this the API server?",
        429 | 500..=599 => ": the API server is in trouble",
        _ => "",
    }
}

/// One request after the other. Each reads kubeconfig, token and certificates again and has its own connection.
pub(crate) struct Api<'o>(pub(crate) &'o ApiOptions);

impl Api<'_> {
    /// Sends `GET path`. The second value is the server's `address:port`, for messages.
    pub(super) async fn get(&self, what: &'static str, path: &str) -> Result<(Response, String), ApiError> {
        let server = self.0.server.clone();
        let (server, base, token) = blocking(move || prepare(&server)).await?;
        let authority = server.authority();
        let path = format!("{base}{path}");
        let response = get(&server, &path, token.as_ref(), &self.0.timeouts, MAX_LIST).await;
        let response =
            response.map_err(|source| ApiError::Http { what, authority: authority.clone(), source })?;
        if response.status != StatusCode::OK {
            return Err(ApiError::Status { what, authority, status: response.status });
        }
        Ok((response, authority))
    }
}

/// What the API server said to a change.
pub(crate) struct Said {
    /// `address:port` of the server.
    pub(crate) authority: String,
    /// Status code.
    pub(crate) status: StatusCode,
    /// After how long to ask again, where it says that.
    pub(crate) retry_after: Option<Duration>,
}

impl Api<'_> {
    /// Sends an object. Every status is an answer.
    pub(crate) async fn send(&self, what: &'static str, request: Call<'_>) -> Result<Said, ApiError> {
        let server = self.0.server.clone();
        let (server, base, token) = blocking(move || prepare(&server)).await?;
        let authority = server.authority();
        let path = format!("{base}{}", request.path);
        let request = Call { path: &path, ..request };
        match call(&server, request, token.as_ref(), &self.0.timeouts, MAX_LIST).await {
            Ok(said) => Ok(Said { authority, status: said.status, retry_after: said.retry_after }),
            Err(source) => Err(ApiError::Http { what, authority, source }),
        }
    }
}

fn prepare(server: &ApiServer) -> Result<(Server, String, Option<super::secret::Secret>), ApiError> {
    let access = server.access()?;
    let at = || authority(&access.host, access.port);
    let token = token(&access.login).map_err(|source| ApiError::Login { authority: at(), source })?;
    if token.is_some() && !access.tls {
        // client-go sends it all the same; nothing here is worth a token in the clear.
        let reason = "the server is http://, and a token is only sent over TLS".into();
        return Err(ApiError::Answer { what: "log in", authority: at(), reason });
    }
    let tls = if access.tls {
        let config = client_config(&access.trust, &[], &access.login);
        Some(Arc::new(config.map_err(|source| ApiError::Setup { authority: at(), source })?))
    } else {
        None
    };
    let server = Server { host: access.host, port: access.port, tls, tls_name: access.tls_name };
    Ok((server, access.base, token))
}
