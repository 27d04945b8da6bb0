//! A client that says exactly what it is told to.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Got {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut got = Self { status, head, body: bytes[end + 4..].to_vec() };
        if got.header("transfer-encoding") == Some("chunked") {
            got.body = pieces(&got.body).concat();
        }
        got
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// The chunks of a body that came in pieces, the last of which is empty.
fn pieces(mut body: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while pieces.last().is_none_or(|last: &&[u8]| !last.is_empty()) && !body.is_empty() {
        let end = body.windows(2).position(|window| window == b"\r\n").expect("a whole line");
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        pieces.push(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    pieces
}

/// Sends `request` and reads until the server closes.
pub(super) async fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    over(TcpStream::connect(address).await.unwrap(), request).await
}

/// The same over a stream that is there.
pub(super) async fn over(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    // A server that closes while something is unread resets the connection: what came before counts.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// One request on a connection of its own. `more`: headers, each with its end of line.
pub(super) async fn ask(address: SocketAddr, method: &str, path: &str, more: &str) -> Got {
    Got::parse(&exchange(address, request(method, path, more).as_bytes()).await)
}

pub(super) fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n")
}

pub(super) async fn get(address: SocketAddr, path: &str) -> Got {
    ask(address, "GET", path, "").await
}
