//! Who may ask, and with which certificate portclash answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use subtle::ConstantTimeEq;

use super::HttpError;
use super::watched::Watched;
use crate::pods::clients::{Login, Pem, Secret, certificate_and_key, token};

/// The bearer token that clients must show.
pub(super) struct Access(Watched<Secret>);

impl Access {
    pub(super) fn read(path: &Path) -> Result<Self, HttpError> {
        let path = path.to_owned();
        let login = Login::TokenFile(path.clone());
        let load = move || match token(&login)? {
            Some(token) => Ok(token),
            // token() gives one or an error for a file.
            None => Ok(Secret::new([])),
        };
        Watched::open(vec![path], load).map(Self)
    }

    /// Whether the head of a request shows the token. How long this takes tells nothing but the length.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        let token = self.0.current();
        let shown = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let Some((scheme, shown)) = shown.and_then(|shown| shown.split_at_checked("Bearer ".len())) else {
            return false;
        };
        let same: bool = shown.trim_ascii().ct_eq(token.expose()).into();
        scheme.eq_ignore_ascii_case(b"Bearer ") && same && !token.expose().is_empty()
    }
}

/// TLS settings, made anew when certificate or key change.
pub(super) type Certificate = Watched<ServerConfig>;

pub(super) fn certificate(certificate: &Path, key: &Path) -> Result<Certificate, HttpError> {
    let paths: Vec<PathBuf> = vec![certificate.to_owned(), key.to_owned()];
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    Watched::open(paths, move || server_config(&certificate, &key))
}

fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, HttpError> {
    let unusable = |error: rustls::Error| HttpError::Tls {
        certificate: certificate.display().to_string(),
        key: key.display().to_string(),
        reason: error.to_string(),
    };
    let (chain, private) = certificate_and_key(
        (&Pem::File(certificate.to_owned()), "certificate"),
        (&Pem::File(key.to_owned()), "key"),
    )?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every connection begins anew: nothing of it stays in memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
