//! TLS settings for one connection: rustls with its `ring` provider, no session kept.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error};

use super::credentials::{CredentialError, Login, Pem, certificates_in, identity};
use super::verify::{NoVerifier, NodeVerifier};

/// Where systems keep the authorities of public servers.
const SYSTEM_AUTHORITIES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Whose certificates are believed.
#[derive(Clone)]
pub enum Trust {
    /// These authorities, and these very certificates. All must be readable.
    These(Vec<Pem>),
    /// Those of these files that exist; at least one must.
    Existing(Vec<PathBuf>),
    /// Everybody's, on the user's explicit demand.
    Everybody,
}

impl Trust {
    /// The authorities that the system trusts.
    pub fn system() -> Self {
        Self::Existing(SYSTEM_AUTHORITIES.map(PathBuf::from).into())
    }
}

/// Why no TLS settings could be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file with a token, key or certificate.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// None of the usual files with authorities exists.
    #[error("none of the usual files with certificate authorities exists ({})", .0)]
    NoAuthority(String),
    /// rustls does not take what the files contain.
    #[error("{what} cannot be used: {reason}")]
    Unusable {
        /// What was to be used.
        what: &'static str,
        /// rustls' reason.
        reason: String,
    },
}

/// Settings for one connection; all files are read here. `names`: what the certificate may be for besides the name
/// that is connected to.
pub(crate) fn client_config(
    trust: &Trust,
    names: &[String],
    login: &Login,
) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(trust, names, &provider)?;
    let unusable = |what| move |error: Error| SetupError::Unusable { what, reason: error.to_string() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable("TLS"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity(login)? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(unusable("client certificate and key"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn verifier(
    trust: &Trust,
    names: &[String],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, SetupError> {
    const WHAT: &str = "certificate authorities";
    let sources = match trust {
        Trust::Everybody => return Ok(Arc::new(NoVerifier(Arc::clone(provider)))),
        Trust::These(sources) => sources.clone(),
        Trust::Existing(paths) => {
            let existing: Vec<Pem> =
                paths.iter().filter(|path| path.exists()).cloned().map(Pem::File).collect();
            if existing.is_empty() {
                let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                return Err(SetupError::NoAuthority(paths.join(", ")));
            }
            existing
        }
    };
    let mut trusted = Vec::new();
    for source in &sources {
        trusted.extend(certificates_in(source, WHAT)?);
    }
    let names = names.iter().filter_map(|name| ServerName::try_from(name.clone()).ok()).collect();
    match NodeVerifier::new(trusted, names, Arc::clone(provider)) {
        Some(verifier) => Ok(Arc::new(verifier)),
        None => Err(SetupError::Unusable { what: WHAT, reason: "none of them can be parsed".into() }),
    }
}

/// What went wrong in the handshake, as far as somebody can do something about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsTrouble {
    /// The server's certificate is out of date.
    Expired,
    /// The server's certificate is valid later than now: most likely a wrong clock.
    NotYetValid,
    /// Nobody who is believed has signed the server's certificate.
    UnknownAuthority,
    /// The server's certificate is for these names.
    WrongName(Vec<String>),
    /// The server does not accept the client's certificate, or wants one.
    ClientCertificate,
    /// The server does not speak TLS.
    NotTls,
    /// Anything else, in rustls' words.
    Other(String),
}

impl From<&Error> for TlsTrouble {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(invalid) => invalid_certificate(invalid, error),
            Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied,
            ) => Self::ClientCertificate,
            Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Other(other.to_string()),
        }
    }
}

fn invalid_certificate(invalid: &CertificateError, error: &Error) -> TlsTrouble {
    match invalid {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsTrouble::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsTrouble::NotYetValid
        }
        // A bad signature: an authority of the same name with another key, as after a new cluster CA.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsTrouble::UnknownAuthority,
        CertificateError::NotValidForName => TlsTrouble::WrongName(Vec::new()),
        CertificateError::NotValidForNameContext { presented, .. } => {
            TlsTrouble::WrongName(presented.iter().take(8).map(|name| bare(name)).collect())
        }
        _ => TlsTrouble::Other(error.to_string()),
    }
}

/// The name in webpki's `DnsName("node-a")`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').chars().filter(|c| !c.is_control()).take(253).collect()
}

impl fmt::Display for TlsTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("its certificate has expired"),
            Self::NotYetValid => f.write_str("its certificate is not valid yet (is the clock right?)"),
            Self::UnknownAuthority => f.write_str("nobody trusted has signed its certificate"),
            Self::WrongName(names) if names.is_empty() => {
                f.write_str("its certificate is for no name at all")
            }
            Self::WrongName(names) => write!(f, "its certificate is for {}", names.join(", ")),
            Self::ClientCertificate => f.write_str("it does not accept the client certificate, or wants one"),
            Self::NotTls => f.write_str("it does not speak TLS"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}
