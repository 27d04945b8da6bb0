//! Kubeconfig files: the server, the authority and the login of one context. Programs that a kubeconfig names
//! (`exec`, `auth-provider`) are not run.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::credentials::{Login, Pem};
use super::http::parse_url;
use super::secret::Secret;
use super::tls::Trust;
use super::yaml;

/// Several times the largest kubeconfig.
const MAX_FILE: u64 = 4 << 20;
/// How to reach an API server.
#[derive(Clone)]
pub(super) struct Access {
    /// Address or name.
    pub(super) host: String,
    /// Port, host byte order.
    pub(super) port: u16,
    /// What comes before `/api`, without slash at the end.
    pub(super) base: String,
    /// Whether it speaks TLS.
    pub(super) tls: bool,
    /// Name to expect in the certificate instead of `host`.
    pub(super) tls_name: Option<String>,
    /// Whose certificates are believed.
    pub(super) trust: Trust,
    /// Login.
    pub(super) login: Login,
}

/// Why a kubeconfig cannot be used. Never contains any of its values but names.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It cannot be read.
    #[error("read kubeconfig {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says nothing usable.
    #[error("kubeconfig {path}: {problem}", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Files that a kubeconfig names, which are read again and again; none if it cannot be read, which is said when it is used.
pub fn named_files(path: &Path) -> Vec<PathBuf> {
    read(path).map(Access::files).unwrap_or_default()
}

impl Access {
    fn files(self) -> Vec<PathBuf> {
        let trust = match self.trust {
            Trust::These(pems) => pems,
            Trust::Existing(paths) => paths.into_iter().map(Pem::File).collect(),
            Trust::Everybody => Vec::new(),
        };
        let login = match self.login {
            Login::TokenFile(path) => vec![Pem::File(path)],
            Login::Certificate { certificate, key } => vec![certificate, key],
            Login::Anonymous | Login::Token(_) => Vec::new(),
        };
        let files = trust.into_iter().chain(login).filter_map(|pem| match pem {
            Pem::File(path) => Some(path),
            Pem::Inline(_) => None,
        });
        files.collect()
    }
}

/// Reads a kubeconfig.
pub(super) fn read(path: &Path) -> Result<Access, KubeconfigError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    parse(&text, folder).map_err(|problem| KubeconfigError::Content { path: path.to_owned(), problem })
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    current_context: Option<String>,
    clusters: Option<Vec<Named<Cluster>>>,
    contexts: Option<Vec<Named<Context>>>,
    users: Option<Vec<Named<User>>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    value: Option<T>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: Option<String>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    username: Option<serde::de::IgnoredAny>,
}

fn parse(text: &str, folder: &Path) -> Result<Access, String> {
    // serde's own message could quote a value.
    let unfit = |_| "it has not the form of a kubeconfig".to_owned();
    let config: Config = serde_json::from_value(yaml::read(text)?).map_err(unfit)?;
    let current =
        config.current_context.filter(|name| !name.is_empty()).ok_or("it has no current-context")?;
    let context = pick(config.contexts, &current, "context")?;
    let cluster = pick(config.clusters, &context.cluster, "cluster")?;
    let user = match &context.user {
        Some(name) if !name.is_empty() => pick(config.users, name, "user")?,
        _ => User::default(),
    };
    if cluster.proxy_url.is_some() {
        return Err("its cluster is behind a proxy (proxy-url), which is not supported".into());
    }
    let (tls, host, port, base) = server(&cluster.server)?;
    Ok(Access {
        host,
        port,
        base,
        tls,
        tls_name: cluster.tls_server_name.clone(),
        trust: trust(cluster, folder)?,
        login: login(user, folder)?,
    })
}

fn pick<T>(all: Option<Vec<Named<T>>>, name: &str, what: &str) -> Result<T, String> {
    let found = all.unwrap_or_default().into_iter().find(|named| named.name == name);
    found.and_then(|named| named.value).ok_or_else(|| format!("it has no {what} \"{name}\""))
}

/// `https://host:port/base` in parts.
fn server(url: &str) -> Result<(bool, String, u16, String), String> {
    let parsed = parse_url(url).filter(|(.., path)| !path.contains('?'));
    let (tls, host, port, path) = parsed.ok_or("its server is no https:// or http:// address")?;
    Ok((tls, host, port, path.trim_end_matches('/').to_owned()))
}

fn trust(cluster: Cluster, folder: &Path) -> Result<Trust, String> {
    if cluster.insecure_skip_tls_verify.as_deref() == Some("true") {
        return Ok(Trust::Everybody);
    }
    Ok(
        match pem(
            cluster.certificate_authority,
            cluster.certificate_authority_data,
            folder,
            "certificate-authority-data",
        )? {
            Some(authority) => Trust::These(vec![authority]),
            None => Trust::system(),
        },
    )
}

fn login(user: User, folder: &Path) -> Result<Login, String> {
    let certificate =
        pem(user.client_certificate, user.client_certificate_data, folder, "client-certificate-data")?;
    let key = pem(user.client_key, user.client_key_data, folder, "client-key-data")?;
    if let (Some(certificate), Some(key)) = (certificate, key) {
        return Ok(Login::Certificate { certificate, key });
    }
    // As client-go does: the file is the newer one.
    if let Some(path) = user.token_file {
        return Ok(Login::TokenFile(folder.join(path)));
    }
    if let Some(token) = user.token {
        return Ok(Login::Token(Arc::new(Secret::new(token))));
    }
    if user.exec.is_some() || user.auth_provider.is_some() || user.username.is_some() {
        return Err(
            "its user logs in by a program or a password, which is not supported; use a token or a client \
                    certificate, such as those of /etc/kubernetes/kubelet.conf"
                .into(),
        );
    }
    Ok(Login::Anonymous)
}

fn pem(
    path: Option<PathBuf>,
    data: Option<String>,
    folder: &Path,
    what: &str,
) -> Result<Option<Pem>, String> {
    // As client-go does: what is in the kubeconfig itself comes first.
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let data = Secret::new(data.split_ascii_whitespace().collect::<String>());
        // The error would quote a byte.
        let bytes = BASE64.decode(data.expose()).map_err(|_| format!("its {what} is no base64"))?;
        return Ok(Some(Pem::Inline(Arc::new(Secret::new(bytes)))));
    }
    Ok(path.map(|path| Pem::File(folder.join(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBELET_CONF: &str = "
apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: LS0tLS1CRUdJTg==
    server: https://192.0.2.10:6443
  name: default-cluster
contexts:
- context: {cluster: default-cluster, namespace: default, user: default-auth}
  name: default-context
current-context: default-context
preferences: {}
users:
- name: default-auth
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: pki/kubelet-client-current.pem
";

    fn parsed(text: &str) -> Result<Access, String> {
        parse(text, Path::new("/etc/kubernetes"))
    }

    #[test]
    fn kubelets_own_kubeconfig_is_read() {
        let access = parsed(KUBELET_CONF).ok().unwrap();
        assert_eq!((access.host.as_str(), access.port, access.tls), ("192.0.2.10", 6443, true));
        let Login::Certificate { certificate: Pem::File(certificate), key: Pem::File(key) } = &access.login
        else {
            panic!("no certificate");
        };
        assert_eq!(certificate, Path::new("/var/lib/kubelet/pki/kubelet-client-current.pem"));
        assert_eq!(key, Path::new("/etc/kubernetes/pki/kubelet-client-current.pem"), "relative to the file");
        let Trust::These(authorities) = &access.trust else { panic!("no authority") };
        assert!(matches!(authorities.as_slice(), [Pem::Inline(pem)] if pem.expose() == b"-----BEGIN"));
    }

    #[test]
    fn files_that_it_names_are_known_beforehand() {
        let files = parsed(KUBELET_CONF).ok().unwrap().files();
        let names = [
            "/var/lib/kubelet/pki/kubelet-client-current.pem",
            "/etc/kubernetes/pki/kubelet-client-current.pem",
        ];
        assert_eq!(files, names.map(PathBuf::from));
        assert!(named_files(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn server_addresses_are_read() {
        let server = |text| server(text).unwrap();
        assert_eq!(server("https://[2001:db8::1]:6443"), (true, "2001:db8::1".into(), 6443, String::new()));
        assert_eq!(
            server("https://api.example.net/k8s/c-1/"),
            (true, "api.example.net".into(), 443, "/k8s/c-1".into())
        );
        assert_eq!(server("http://127.0.0.1:8001"), (false, "127.0.0.1".into(), 8001, String::new()));
    }

    #[test]
    fn what_cannot_be_used_is_said_without_its_values() {
        let with = |from: &str, to: &str| parsed(&KUBELET_CONF.replace(from, to)).err().unwrap();
        assert!(with("current-context: default-context", "").contains("no current-context"));
        assert!(with("- name: default-auth", "- name: other").contains("no user \"default-auth\""));
        assert!(with("https://", "ftp://").contains("https://"));
        assert!(with("LS0tLS1CRUdJTg==", "not*base64").contains("certificate-authority-data is no base64"));
        let exec = "exec: {command: aws}\n    x: ";
        assert!(
            with("client-certificate: ", exec).contains("logs in by a program"),
            "{}",
            with("client-certificate: ", exec)
        );
        assert!(parsed("- a\n- b").err().unwrap().contains("form of a kubeconfig"));
        assert!(parsed("").err().unwrap().contains("empty"));
        let secret = parsed("users: [{name: x, user: {token: {hush: hush}}}]").err().unwrap();
        assert!(!secret.contains("hush"), "{secret}");
    }
}
