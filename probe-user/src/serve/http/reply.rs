//! Answers and the headers that all of them have.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};

use super::body::{Answer, Content, Listing};
use crate::report::html::POLICY;

/// What a browser may do with anything that is no page.
const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) const JSON: &str = "application/json";

/// An answer.
pub(super) type Reply = Response<Answer>;

fn reply(status: StatusCode, kind: &'static str, content: Content) -> Reply {
    let mut reply = Response::new(Answer::from(content));
    *reply.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, NOTHING),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // What is asked for is always the state of now, and nothing of it belongs on a disk.
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}

/// Plain text; `message` gets an end of line.
pub(super) fn text(status: StatusCode, message: &str) -> Reply {
    let bytes = Bytes::from(format!("{message}\n"));
    reply(status, "text/plain; charset=utf-8", Content::Whole(bytes))
}

/// Text in a format of its own.
pub(super) fn of_kind(kind: &'static str, content: impl Into<Bytes>) -> Reply {
    reply(StatusCode::OK, kind, Content::Whole(content.into()))
}

/// The latest incidents.
pub(super) fn listing(incidents: Listing) -> Reply {
    reply(StatusCode::OK, JSON, Content::Incidents(incidents))
}

/// A page for people.
pub(super) fn page(html: String) -> Reply {
    let mut page = of_kind("text/html; charset=utf-8", html);
    let policy = format!("{POLICY}; frame-ancestors 'none'");
    if let Ok(policy) = HeaderValue::try_from(policy) {
        page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    page
}

/// A file to keep under a name of letters, digits, `.`, `_` and `-`.
pub(super) fn file(content: Content, kind: &'static str, name: &str) -> Reply {
    let mut file = reply(StatusCode::OK, kind, content);
    if let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        file.headers_mut().insert(CONTENT_DISPOSITION, disposition);
    }
    file
}

/// Only reading is possible.
pub(super) fn read_only() -> Reply {
    let mut reply =
        text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: portclash is read, not written to");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    reply
}

/// Without a token nothing is told.
pub(super) fn no_token() -> Reply {
    let mut reply = text(
        StatusCode::UNAUTHORIZED,
        "a bearer token is needed: send the header `Authorization: Bearer TOKEN` with what the token file holds",
    );
    reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"portclash\""));
    reply
}

/// For now there are too many.
pub(super) fn too_many() -> Reply {
    let mut reply =
        text(StatusCode::SERVICE_UNAVAILABLE, "too many connections at a time: try again in a second");
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}
