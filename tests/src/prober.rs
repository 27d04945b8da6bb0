//! Probes as a kubelet makes them, and the lines it logs when they fail.
//!
//! The rules are those of pkg/probe/http and pkg/kubelet/prober of Kubernetes: a new connection for every request, its
//! port chosen by the kernel; one deadline for the whole request, from before the connect; 200 to 399 is success; no
//! second attempt after a failure.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockname, setsockopt, socket, sockopt,
};
use serde::{Deserialize, Serialize};

/// At most so much of an answer is read, as a kubelet does.
const MOST_READ: u64 = 10 * 1024;

/// Which kubelet's ways are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// As in the seed.
    V1_23,
    /// All values quoted in the log; SO_LINGER of one second, so that no connection waits for long (1.27 and later).
    V1_29,
}

/// One probe of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// `Liveness`, `Readiness` or `Startup`.
    pub kind: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Container.
    pub container: String,
    /// Address and port of `httpGet`.
    pub target: SocketAddr,
    /// Path of `httpGet`.
    pub path: String,
    /// `timeoutSeconds`, in milliseconds.
    pub timeout_ms: u64,
}

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Local address of its socket.
    pub local: Option<SocketAddr>,
    /// What a kubelet would log as `output`; `None` = success.
    pub failure: Option<String>,
}

impl Probe {
    /// Sends one request and waits for its end.
    pub fn run(&self, release: Release) -> Outcome {
        let deadline = Instant::now() + Duration::from_millis(self.timeout_ms);
        let mut local = None;
        let failure = match self.request(release, deadline, &mut local) {
            Ok(200..400) => None,
            Ok(status) => Some(format!("HTTP probe failed with statuscode: {status}")),
            Err(error) => Some(format!("Get \"http://{}{}\": {error}", self.target, self.path)),
        };
        Outcome { local, failure }
    }

    fn request(
        &self,
        release: Release,
        deadline: Instant,
        local: &mut Option<SocketAddr>,
    ) -> Result<u16, String> {
        let socket = self.dial(release, deadline, local)?;
        let mut stream = TcpStream::from(socket);
        let exchanged = stream
            .set_nonblocking(false)
            .and_then(|()| stream.write_all(self.text(release).as_bytes()))
            .and_then(|()| read_answer(&mut stream, deadline));
        let answer = exchanged.map_err(|error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => exceeded(),
            ErrorKind::ConnectionReset => {
                let from = local.map_or_else(String::new, |local| local.to_string());
                format!("read tcp {from}->{}: read: connection reset by peer", self.target)
            }
            _ => error.to_string(),
        })?;
        status_of(&answer).ok_or_else(|| "EOF".to_owned())
    }

    fn text(&self, release: Release) -> String {
        let version = if release == Release::V1_23 { "1.23" } else { "1.29" };
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kube-probe/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.path, self.target
        )
    }

    /// A connected socket. Its port is the kernel's choice, as for every dialler of Go's.
    fn dial(
        &self,
        release: Release,
        deadline: Instant,
        local: &mut Option<SocketAddr>,
    ) -> Result<OwnedFd, String> {
        let failed = |error: Errno| format!("dial tcp {}: connect: {}", self.target, go_text(error));
        let family = if self.target.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None).map_err(failed)?;
        if release == Release::V1_29 {
            let short = libc::linger { l_onoff: 1, l_linger: 1 };
            setsockopt(&socket, sockopt::Linger, &short).map_err(failed)?;
        }
        let started = connect(socket.as_raw_fd(), &SockaddrStorage::from(self.target));
        *local = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|name| address(&name));
        match started {
            Ok(()) => return Ok(socket),
            Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(failed(error)),
        }
        let left = PollTimeout::try_from(deadline.saturating_duration_since(Instant::now()));
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut polled, left.unwrap_or(PollTimeout::ZERO)).map_err(failed)? == 0 {
            return Err(exceeded());
        }
        match nix::sys::socket::getsockopt(&socket, sockopt::SocketError).map_err(failed)? {
            0 => Ok(socket),
            error => Err(failed(Errno::from_raw(error))),
        }
    }

    /// The line that a kubelet logs for a failed probe.
    pub fn log_line(&self, release: Release, at: Timestamp, pid: u32, output: &str) -> String {
        let time = at.strftime("%m%d %H:%M:%S%.6f");
        let Self { kind, namespace, pod, uid, container, .. } = self;
        let output = output.replace('\\', "\\\\").replace('"', "\\\"");
        match release {
            Release::V1_23 => format!(
                "I{time} {pid:>7} prober.go:121] \"Probe failed\" probeType=\"{kind}\" pod=\"{namespace}/{pod}\" \
                 podUID={uid} containerName=\"{container}\" probeResult=failure output=\"{output}\""
            ),
            Release::V1_29 => format!(
                "I{time} {pid:>7} prober.go:107] \"Probe failed\" probeType=\"{kind}\" pod=\"{namespace}/{pod}\" \
                 podUID=\"{uid}\" containerName=\"{container}\" probeResult=\"failure\" output=\"{output}\""
            ),
        }
    }
}

/// Go's words for a request whose time is up before the answer's head is there.
fn exceeded() -> String {
    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned()
}

fn go_text(error: Errno) -> String {
    error.desc().to_lowercase()
}

/// Everything until the server closes or the limit is reached.
fn read_answer(stream: &mut TcpStream, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    while u64::try_from(answer.len()).is_ok_and(|length| length < MOST_READ) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(answer)
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let head = String::from_utf8_lossy(answer.get(..answer.len().min(64))?).into_owned();
    head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

fn address(name: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = name.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| name.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn probe(target: SocketAddr) -> Probe {
        Probe {
            kind: "Readiness".to_owned(),
            namespace: "default".to_owned(),
            pod: "nginx-5dfb7c896c-x2q2w".to_owned(),
            uid: "3daea6ef-f286-43f2-8825-51edaa3994d3".to_owned(),
            container: "nginx".to_owned(),
            target,
            path: "/".to_owned(),
            timeout_ms: 300,
        }
    }

    /// A server that answers one request with this text, or never.
    fn server(answer: Option<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let length = stream.read(&mut [0; 512]).unwrap();
            assert!(length > 0);
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).unwrap();
            } else {
                // Until the client gives up.
                let _ = stream.read(&mut [0; 1]);
            }
        });
        address
    }

    #[test]
    fn the_seeds_line_comes_out_letter_by_letter() {
        let at: Timestamp = "2022-09-15T19:09:04.534948Z".parse().unwrap();
        let probe = probe("10.23.77.138:80".parse().unwrap());
        let output = format!("Get \"http://10.23.77.138:80/\": {}", exceeded());
        let line = probe.log_line(Release::V1_23, at, 607_529, &output);
        assert_eq!(
            line,
            "I0915 19:09:04.534948  607529 prober.go:121] \"Probe failed\" probeType=\"Readiness\" \
             pod=\"default/nginx-5dfb7c896c-x2q2w\" podUID=3daea6ef-f286-43f2-8825-51edaa3994d3 \
             containerName=\"nginx\" probeResult=failure output=\"Get \\\"http://10.23.77.138:80/\\\": \
             context deadline exceeded (Client.Timeout exceeded while awaiting headers)\""
        );
        let quoted = probe.log_line(Release::V1_29, at, 7, "EOF");
        assert!(quoted.starts_with("I0915 19:09:04.534948       7 prober.go:107] "), "{quoted}");
        assert!(quoted.contains("podUID=\"3daea6ef-f286-43f2-8825-51edaa3994d3\""), "{quoted}");
        assert!(quoted.ends_with("probeResult=\"failure\" output=\"EOF\""), "{quoted}");
    }

    #[test]
    fn an_answer_of_two_hundred_is_success_and_five_hundred_is_not() {
        let good = probe(server(Some("HTTP/1.1 200 OK\r\n\r\nok"))).run(Release::V1_23);
        assert_eq!(good.failure, None);
        assert!(good.local.is_some());
        let bad = probe(server(Some("HTTP/1.1 503 Busy\r\n\r\n"))).run(Release::V1_29);
        assert_eq!(bad.failure.as_deref(), Some("HTTP probe failed with statuscode: 503"));
    }

    #[test]
    fn a_server_that_is_silent_and_one_that_is_not_there_fail_in_gos_words() {
        let silent = server(None);
        let outcome = probe(silent).run(Release::V1_23);
        assert_eq!(outcome.failure, Some(format!("Get \"http://{silent}/\": {}", exceeded())));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = listener.local_addr().unwrap();
        drop(listener);
        let outcome = probe(gone).run(Release::V1_23);
        let text = format!("Get \"http://{gone}/\": dial tcp {gone}: connect: connection refused");
        assert_eq!(outcome.failure, Some(text));
    }
}
