//! Who portclash says it is, and whom it believes: tokens, client certificates, certificate authorities. Files are
//! read again for every connection, because kubelet rotates all of them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::secret::Secret;

/// Several times the largest bundle of authorities; a device that never ends must not fill the memory.
const MAX_FILE: u64 = 4 << 20;

/// PEM text: in a file, or (in a kubeconfig) given as such.
#[derive(Clone)]
pub enum Pem {
    /// A file, read anew each time.
    File(PathBuf),
    /// The text itself.
    Inline(Arc<Secret>),
}

impl Pem {
    fn read(&self, what: &'static str) -> Result<Arc<Secret>, CredentialError> {
        match self {
            Self::File(path) => read_file(path, what).map(Arc::new),
            Self::Inline(text) => Ok(Arc::clone(text)),
        }
    }

    /// Where it is, for people.
    fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Inline(_) => "the kubeconfig".into(),
        }
    }
}

/// How portclash shows who it is.
#[derive(Clone)]
pub enum Login {
    /// Not at all.
    Anonymous,
    /// A bearer token in a file, read anew for every request.
    TokenFile(PathBuf),
    /// A bearer token given as such (kubeconfig).
    Token(Arc<Secret>),
    /// A client certificate with its chain, and its key.
    Certificate {
        /// The certificate.
        certificate: Pem,
        /// Its key; the same file may hold both.
        key: Pem,
    },
}

/// A credential that cannot be used. Never contains any of it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("read {what} {path}: {source}", path = path.display())]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read, but has not the form of what it should be.
    #[error("{what} in {place}: {problem}")]
    Form {
        /// What it is for.
        what: &'static str,
        /// The file, or "the kubeconfig".
        place: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

fn read_file(path: &Path, what: &'static str) -> Result<Secret, CredentialError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    read.map_err(|source| CredentialError::Read { what, path: path.to_owned(), source })?;
    Ok(Secret::new(bytes))
}

/// Reads a login's token, if it has one. The result is free of white space and fit for a header.
pub(crate) fn token(login: &Login) -> Result<Option<Secret>, CredentialError> {
    const WHAT: &str = "token";
    let (text, place) = match login {
        Login::Anonymous | Login::Certificate { .. } => return Ok(None),
        Login::TokenFile(path) => (Arc::new(read_file(path, WHAT)?), path.display().to_string()),
        Login::Token(token) => (Arc::clone(token), "the kubeconfig".to_owned()),
    };
    let form = |problem| CredentialError::Form { what: WHAT, place: place.clone(), problem };
    let token = text.expose().trim_ascii();
    if token.is_empty() {
        return Err(form("it is empty"));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(form("it contains other characters than a token may have"));
    }
    Ok(Some(Secret::new(token)))
}

/// A certificate with its chain, and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads a login's client certificate, if it has one.
pub(super) fn identity(login: &Login) -> Result<Option<Identity>, CredentialError> {
    let Login::Certificate { certificate, key } = login else { return Ok(None) };
    certificate_and_key((certificate, "client certificate"), (key, "client key")).map(Some)
}

/// Reads a certificate with its chain, and its key, each with what it is for.
pub(crate) fn certificate_and_key(
    (certificate, what): (&Pem, &'static str),
    (key, what_key): (&Pem, &'static str),
) -> Result<Identity, CredentialError> {
    let chain = certificates_in(certificate, what)?;
    let pem = key.read(what_key)?;
    let key = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| CredentialError::Form {
        what: what_key,
        place: key.place(),
        problem: "no unencrypted private key in PEM form is in it",
    })?;
    Ok((chain, key))
}

/// Reads certificates; at least one must be there.
pub(super) fn certificates_in(
    pem: &Pem,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let text = pem.read(what)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.expose()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(CredentialError::Form {
            what,
            place: pem.place(),
            problem: "no certificate in PEM form is in it",
        }),
    }
}
