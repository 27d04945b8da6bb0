//! Options that say where names of pods, probes and Services come from; shared by all commands that name things.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::node::netns::NetNs;
use crate::observation::Nanos;
use crate::pods::choice::PodChoice;
#[cfg(feature = "kube")]
use crate::pods::clients::{ApiOptions, ApiServer};
use crate::pods::clients::{ClientOptions, CriOptions, KubeletOptions, Login, Pem, Trust};
use crate::pods::session::{NodeHints, Session};

/// Options of every command that names pods.
#[derive(Debug, clap::Args)]
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
    /// Socket of the container runtime [default: the usual ones]
    #[arg(long, value_name = "PATH")]
    runtime_endpoint: Option<String>,
}

impl PodSourceArgs {
    /// Starts the sources, within a tokio runtime. `netns`: the node's network namespace.
    pub(super) fn start(&self, netns: &NetNs, now: Nanos) -> Result<Session> {
        let hints = NodeHints::read(self.node_name.clone(), netns);
        let clients = self.clients(&hints)?;
        Ok(Session::start(&self.pods, hints, &clients, now)?)
    }

    fn clients(&self, hints: &NodeHints) -> Result<ClientOptions> {
        if self.kubeconfig.is_some() && cfg!(not(feature = "kube")) {
            bail!(
                "--kubeconfig: this portclash was built without the feature kube, so it cannot ask the API server"
            );
        }
        let cri = match &self.runtime_endpoint {
            Some(endpoint) => CriOptions::for_endpoint(endpoint).context("--runtime-endpoint")?,
            None => CriOptions::default(),
        };
        let kubelet = self.kubelet_options(hints);
        #[cfg(feature = "kube")]
        let api = ApiOptions::new(
            ApiServer::find(self.kubeconfig.clone(), |name| std::env::var(name).ok()),
            hints.best_name().unwrap_or_default(),
        );
        Ok(ClientOptions::new(
            kubelet,
            #[cfg(feature = "kube")]
            api,
            cri,
        ))
    }

    fn kubelet_options(&self, hints: &NodeHints) -> KubeletOptions {
        let mut options = KubeletOptions::default();
        options.address = self.kubelet.ip();
        options.port = self.kubelet.port();
        if !is_loopback(self.kubelet.ip()) {
            // Elsewhere than on this node, the read-only port would be asked in the clear over the network.
            options.read_only_port = None;
        }
        options.names = self.kubelet_name.iter().cloned().chain(hints.names()).collect();
        if self.kubelet_insecure {
            options.trust = Trust::Everybody;
        } else if !self.kubelet_ca.is_empty() {
            options.trust = Trust::These(self.kubelet_ca.iter().cloned().map(Pem::File).collect());
        }
        if let (Some(certificate), Some(key)) = (&self.kubelet_cert, &self.kubelet_key) {
            let (certificate, key) = (Pem::File(certificate.clone()), Pem::File(key.clone()));
            options.login = Login::Certificate { certificate, key };
        } else if let Some(token) = &self.kubelet_token {
            options.login = Login::TokenFile(token.clone());
        }
        options
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
