//! A server that takes incidents: its URL, its certificate, the token for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::TargetOptions;
use super::carrier::Failure;
use crate::pods::clients::{
    Call, Login, Pem, Secret, Server, Timeouts, Trust, blocking, call, client_config, parse_url, token,
};

/// Longest answer that is read, in bytes; only its first words matter.
const MAX_ANSWER: u64 = 64 << 10;

/// Why a server cannot be told anything. Contains neither the path of a URL nor a token: both may be secret.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is no URL.
    #[error(
        "{option}: that is no http:// or https:// address (a login in it is not taken; use a token file)"
    )]
    Url {
        /// The option.
        option: &'static str,
    },
    /// Everybody on the way could read the token.
    #[error("{option}: a token is sent over https:// only, or to this machine (127.0.0.1, [::1], localhost)")]
    Clear {
        /// The option.
        option: &'static str,
    },
}

/// A server that takes incidents.
#[derive(Clone)]
pub struct Target {
    option: &'static str,
    tls: bool,
    host: String,
    port: u16,
    path: String,
    token_file: Option<PathBuf>,
    trust: Trust,
    timeouts: Timeouts,
}

/// What the server said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// The beginning of the body.
    #[cfg_attr(
        not(feature = "otlp"),
        expect(dead_code, reason = "only OTLP says more than the status does")
    )]
    pub(super) body: Vec<u8>,
}

impl Target {
    /// Checks the options. `option`: what they are called.
    pub fn new(option: &'static str, given: &TargetOptions, timeouts: Timeouts) -> Result<Self, TargetError> {
        let (tls, host, port, path) = parse_url(&given.url).ok_or(TargetError::Url { option })?;
        if given.token_file.is_some() && !tls && !is_here(&host) {
            return Err(TargetError::Clear { option });
        }
        let trust = match &given.ca {
            Some(ca) => Trust::These(vec![Pem::File(ca.clone())]),
            None => Trust::system(),
        };
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let token_file = given.token_file.clone();
        Ok(Self { option, tls, host, port, path, token_file, trust, timeouts })
    }

    /// The same server, another path.
    #[cfg(feature = "otlp")]
    pub(super) fn with_path(mut self, path: impl FnOnce(&str) -> String) -> Self {
        self.path = path(&self.path);
        self
    }

    /// POSTs JSON. Token and certificates are read anew.
    pub(super) async fn post(&self, body: Bytes) -> Result<Answer, Failure> {
        let this = self.clone();
        let (server, token) = blocking(move || this.prepare()).await.map_err(Failure::later)?;
        let place = format!("{} {}", self.option, server.authority());
        let broken = |error| Failure::later(format!("{place}: {error}"));
        let what = Call { method: Method::POST, path: &self.path, body: Some(("application/json", body)) };
        let response = call(&server, what, token.as_ref(), &self.timeouts, MAX_ANSWER).await;
        let mut response = response.map_err(broken)?;
        let mut body = Vec::new();
        // The status says all that is needed; a body that breaks off changes nothing.
        while let Ok(Some(piece)) = response.body.chunk().await {
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status: response.status, retry_after: response.retry_after, body })
    }

    /// POSTs JSON, and takes any 2xx for success.
    pub(super) async fn deliver(&self, body: Bytes) -> Result<Answer, Failure> {
        let answer = self.post(body).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let place = place(self.option, &self.host, self.port);
        Err(refusal(&place, answer.status, answer.retry_after))
    }

    fn prepare(&self) -> Result<(Server, Option<Secret>), String> {
        let place = || place(self.option, &self.host, self.port);
        let login = self.token_file.clone().map_or(Login::Anonymous, Login::TokenFile);
        let token = token(&login).map_err(|error| format!("{}: {error}", place()))?;
        let tls = if self.tls {
            let config = client_config(&self.trust, &[], &Login::Anonymous);
            Some(Arc::new(config.map_err(|error| format!("{}: {error}", place()))?))
        } else {
            None
        };
        Ok((Server { host: self.host.clone(), port: self.port, tls, tls_name: None }, token))
    }
}

fn place(option: &str, host: &str, port: u16) -> String {
    let server = Server { host: host.to_owned(), port, tls: None, tls_name: None };
    format!("{option} {}", server.authority())
}

/// What a status means that is no success.
pub(super) fn refusal(place: &str, status: StatusCode, retry_after: Option<Duration>) -> Failure {
    let code = status.as_u16();
    let hint = match code {
        401 => ": it does not accept the token",
        403 => ": not allowed with this token",
        404 => ": not found; is the path right?",
        300..=399 => ": a redirect, which is not followed; give the address that it leads to",
        _ => "",
    };
    let reason = format!("{place}: {status}{hint}");
    match code {
        // A token may be put right while the incident waits.
        401 | 403 | 408 | 425 | 429 | 500..=599 => Failure::Later { reason, after: retry_after },
        _ => Failure::Never(reason),
    }
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
}
