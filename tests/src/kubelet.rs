//! The node's kubelet, as far as probes go: a process of that name in its usual cgroup, which serves `/pods` on the
//! usual port, probes the pods it is given, and logs what fails. It also plays the cluster's API server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::client::CGROUP;
use crate::containers::{NODE_NAME, Pod, list, pod_list, service_list};
use crate::kube_server::{self, List};
use crate::node::NODE;
use crate::prober::{Probe, Release};

/// Its program.
pub const PROGRAM: &str = "/run/bin/kubelet";
/// Where it answers.
pub const API: &str = "127.0.0.1:10250";
/// Its log.
pub const LOG: &str = "/run/kubelet/kubelet.log";
/// The token that its API asks for, where a pod has its service account's.
pub const TOKEN_FILE: &str = "/run/secrets/kubernetes.io/serviceaccount/token";
/// The authority of its certificate, PEM, where a pod has the cluster's.
pub const AUTHORITY: &str = "/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// Where the API server answers.
pub const API_SERVER: &str = "127.0.0.1:6443";
/// A kubeconfig for it.
pub const KUBECONFIG: &str = "/run/kubelet/kubeconfig";
/// The same pods and the Services of the lab, as `kubectl get pods,svc -A -o json` would list them.
pub const LIST: &str = "/run/kubelet/list.json";
/// What it answers to `/pods`.
pub const PODS: &str = "/run/kubelet/pods.json";
/// What the API server answers when it is asked for Services.
const SERVICES: &str = "/run/kubelet/services.json";
/// The authority of the API server's certificate, PEM.
pub const API_AUTHORITY: &str = "/run/kubelet/ca.crt";
const SETTINGS: &str = "/run/kubelet/settings.json";
/// The token that both ask for.
pub const TOKEN: &str = "a-token-of-the-lab";

/// What the process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// cgroup that it runs in.
    pub cgroup: String,
    /// Whose ways it follows.
    pub release: Release,
    /// File that failures are logged to.
    pub log: PathBuf,
    /// What it probes.
    pub probes: Vec<Probe>,
    /// What it serves.
    pub servers: Vec<kube_server::Settings>,
}

/// How one probe ended, and what was logged about it.
#[derive(Clone, Debug, Deserialize)]
pub struct Probed {
    /// Local address of its connect.
    pub local: Option<SocketAddr>,
    /// Why it failed.
    pub failure: Option<String>,
    /// The line in the log.
    pub line: Option<String>,
}

/// A kubelet that runs. It ends when this value is dropped.
pub struct Kubelet {
    child: Child,
    periods: ChildStdin,
    output: BufReader<ChildStdout>,
    probes: usize,
}

impl Kubelet {
    /// Starts a kubelet for these pods, with their probes in the order in which the pods name them.
    pub fn start(release: Release, pods: &[&Pod]) -> Result<Self> {
        Self::start_with_token(release, pods, TOKEN)
    }

    /// The same, for another token, which it puts where clients find theirs.
    pub fn start_with_token(release: Release, pods: &[&Pod], token: &str) -> Result<Self> {
        for directory in [SETTINGS, TOKEN_FILE].iter().filter_map(|file| Path::new(file).parent()) {
            fs::create_dir_all(directory)?;
        }
        // An earlier one's log is none of this one's.
        fs::write(LOG, "")?;
        fs::write(TOKEN_FILE, token)?;
        fs::write(PODS, pod_list(pods).to_string())?;
        fs::write(LIST, list(pods).to_string())?;
        fs::write(SERVICES, service_list().to_string())?;
        fs::write(KUBECONFIG, kubeconfig())?;
        let settings = Settings {
            cgroup: CGROUP.to_owned(),
            release,
            log: LOG.into(),
            probes: pods.iter().map(|pod| probes_of(pod)).collect::<Result<Vec<_>>>()?.concat(),
            servers: servers(token)?,
        };
        fs::write(SETTINGS, serde_json::to_vec(&settings)?)?;
        if !Path::new(PROGRAM).exists() {
            fs::copy("/proc/self/exe", PROGRAM).context("cannot copy kubelet's program")?;
        }
        let mut child = Command::new(PROGRAM)
            .args(["kubelet", SETTINGS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start kubelet")?;
        let periods = child.stdin.take().context("kubelet has no input")?;
        let output = BufReader::new(child.stdout.take().context("kubelet has no output")?);
        let mut kubelet = Self { child, periods, output, probes: settings.probes.len() };
        let first = kubelet.line()?;
        ensure!(first == "ready", "kubelet said {first:?}");
        Ok(kubelet)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its command line, arguments separated by blanks.
    pub fn command_line() -> String {
        format!("{PROGRAM} kubelet {SETTINGS}")
    }

    /// Lets one period begin, and waits until every probe has ended.
    pub fn period(&mut self) -> Result<Vec<Probed>> {
        writeln!(self.periods, "next").context("kubelet is gone")?;
        (0..self.probes).map(|_| Ok(serde_json::from_str(&self.line()?)?)).collect()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line)?;
        ensure!(length > 0, "kubelet has ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kubelet's own API, and the API server.
fn servers(token: &str) -> Result<Vec<kube_server::Settings>> {
    let token = token.to_owned();
    let of_node = format!("fieldSelector=spec.nodeName%3D{NODE_NAME}");
    let pods = List { query: of_node, ..List::new("/api/v1/pods", PODS) };
    Ok(vec![
        kube_server::Settings {
            address: API.parse()?,
            token: token.clone(),
            lists: vec![List::new("/pods", PODS)],
            authority: AUTHORITY.into(),
        },
        kube_server::Settings {
            address: API_SERVER.parse()?,
            token,
            lists: vec![pods, List::new("/api/v1/services", SERVICES)],
            authority: API_AUTHORITY.into(),
        },
    ])
}

fn kubeconfig() -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
         contexts:\n- name: lab\n  context: {{cluster: lab, user: lab}}\n\
         clusters:\n- name: lab\n  cluster: {{server: \"https://{API_SERVER}\", certificate-authority: {API_AUTHORITY}}}\n\
         users:\n- name: lab\n  user: {{tokenFile: {TOKEN_FILE}}}\n"
    )
}

fn probes_of(pod: &Pod) -> Result<Vec<Probe>> {
    let ip = pod.ip.as_deref().unwrap_or(NODE);
    let mut probes = Vec::new();
    for container in &pod.spec.containers {
        for probe in &container.probes {
            probes.push(Probe {
                kind: probe.kind.to_owned(),
                namespace: pod.spec.namespace.to_owned(),
                pod: pod.spec.name.to_owned(),
                uid: pod.spec.uid.to_owned(),
                container: container.name.to_owned(),
                target: format!("{ip}:{}", probe.port).parse()?,
                path: probe.path.to_owned(),
                timeout_ms: probe.timeout_s * 1000,
            });
        }
    }
    Ok(probes)
}
