//! Options that say where names of pods, probes and Services come from; shared by all commands that name things.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::node::netns::NetNs;
use crate::observation::Nanos;
use crate::pods::choice::PodChoice;
#[cfg(feature = "kube")]
use crate::pods::clients::{ApiOptions, ApiServer};
use crate::pods::clients::{ClientOptions, CriOptions, KubeletOptions, Login, Pem, Trust};
use crate::pods::session::{NodeHints, Session};

/// Options of every command that names pods.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Names of pods and Services")]
pub(super) struct PodSourceArgs {
    /// Where they come from: auto, kubelet, api, cri, file:PATH, none; auto = the first of kubelet, api, cri that answers
    #[arg(long, value_name = "SOURCE", default_value_t)]
    pub(super) pods: PodChoice,
    /// Name of this node in the cluster [default: NODE_NAME, or as its addresses or the host's name tell]
    #[arg(long, value_name = "NAME")]
    pub(super) node_name: Option<String>,
    /// Where kubelet listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:10250")]
    kubelet: SocketAddr,
    /// Name in kubelet's certificate, if it is neither the address nor the node's name
    #[arg(long, value_name = "NAME")]
    kubelet_name: Vec<String>,
    /// Authority of kubelet's certificate, or that certificate itself [default: the usual files]
    #[arg(long, value_name = "FILE", conflicts_with = "kubelet_insecure")]
    kubelet_ca: Vec<PathBuf>,
    /// Take any certificate for kubelet's: whoever answers gets the token
    #[arg(long)]
    kubelet_insecure: bool,
    /// Token for kubelet [default: the service account's]
    #[arg(long, value_name = "FILE", conflicts_with = "kubelet_cert")]
    kubelet_token: Option<PathBuf>,
    /// Client certificate for kubelet
    #[arg(long, value_name = "FILE", requires = "kubelet_key")]
    kubelet_cert: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", requires = "kubelet_cert")]
    kubelet_key: Option<PathBuf>,
    /// Kubeconfig for the API server [default: the service account's, KUBECONFIG, or kubelet's]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Socket of the container runtime [default: CONTAINER_RUNTIME_ENDPOINT, or the usual ones]
    #[arg(long, value_name = "PATH")]
    runtime_endpoint: Option<String>,
}

impl PodSourceArgs {
    /// Starts the sources, within a tokio runtime. `netns`: the node's network namespace.
    /// `name_absent`: whether `auto` complains about sources of which this machine shows no sign.
    pub(super) fn start(&self, netns: &NetNs, now: Nanos, name_absent: bool) -> Result<Session> {
        let hints = NodeHints::read(self.node_name.clone(), netns);
        let clients = ClientOptions { name_absent, ..self.clients(&hints)? };
        Ok(Session::start(&self.pods, hints, &clients, now)?)
    }

    /// The API server, wherever it is.
    #[cfg(feature = "kube")]
    pub(super) fn api_server(&self) -> ApiServer {
        ApiServer::find(self.kubeconfig.clone(), |name| std::env::var(name).ok())
    }

    /// Files that are read again and again.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let given = [&self.kubelet_token, &self.kubelet_cert, &self.kubelet_key];
        let pods = if let PodChoice::File(path) = &self.pods { Some(path) } else { None };
        given.into_iter().flatten().chain(&self.kubelet_ca).chain(pods).map(PathBuf::as_path)
    }

    /// The kubeconfig that is used, given or found, and the files that it names, which are read again and again as well.
    #[cfg(feature = "kube")]
    pub(super) fn kubeconfig_files(&self) -> Vec<PathBuf> {
        let ApiServer::Kubeconfig(path) = self.api_server() else { return Vec::new() };
        let mut files = crate::pods::clients::named_files(&path);
        files.push(path);
        files
    }

    /// Nobody asks the API server.
    #[cfg(not(feature = "kube"))]
    #[expect(clippy::unused_self, reason = "as it is with the feature")]
    pub(super) const fn kubeconfig_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn clients(&self, hints: &NodeHints) -> Result<ClientOptions> {
        if self.kubeconfig.is_some() && cfg!(not(feature = "kube")) {
            bail!(
                "--kubeconfig: this portclash was built without the feature kube, so it cannot ask the API server"
            );
        }
        let variable = |name: &str| std::env::var(name).ok();
        let cri = CriOptions::find(self.runtime_endpoint.as_deref(), variable)
            .context("--runtime-endpoint or CONTAINER_RUNTIME_ENDPOINT")?;
        let kubelet = self.kubelet_options(hints);
        #[cfg(feature = "kube")]
        let api = ApiOptions::new(self.api_server(), hints.best_name().unwrap_or_default());
        Ok(ClientOptions::new(
            kubelet,
            #[cfg(feature = "kube")]
            api,
            cri,
        ))
    }

    fn kubelet_options(&self, hints: &NodeHints) -> KubeletOptions {
        let usual = KubeletOptions::default();
        let trust = if self.kubelet_insecure {
            Trust::Everybody
        } else if self.kubelet_ca.is_empty() {
            usual.trust
        } else {
            Trust::These(self.kubelet_ca.iter().cloned().map(Pem::File).collect())
        };
        let mut options = KubeletOptions {
            address: self.kubelet.ip(),
            port: self.kubelet.port(),
            // Elsewhere than on this node, the read-only port would be asked in the clear over the network.
            read_only_port: usual.read_only_port.filter(|_| is_loopback(self.kubelet.ip())),
            names: self.kubelet_name.iter().cloned().chain(hints.names()).collect(),
            trust,
            given: self.describes_kubelet(usual.address, usual.port),
            ..usual
        };
        if let (Some(certificate), Some(key)) = (&self.kubelet_cert, &self.kubelet_key) {
            let (certificate, key) = (Pem::File(certificate.clone()), Pem::File(key.clone()));
            options.login = Login::Certificate { certificate, key };
        } else if let Some(token) = &self.kubelet_token {
            options.login = Login::TokenFile(token.clone());
        }
        options
    }

    /// Whether any option is about kubelet.
    fn describes_kubelet(&self, address: IpAddr, port: u16) -> bool {
        self.kubelet != SocketAddr::new(address, port)
            || !self.kubelet_name.is_empty()
            || !self.kubelet_ca.is_empty()
            || self.kubelet_insecure
            || self.kubelet_token.is_some()
            || self.kubelet_cert.is_some()
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
