//! Clients: processes of their own, under a name of their own, that connect in one particular way.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// cgroup that clients run in unless told otherwise.
pub const CGROUP: &str = "/system.slice/kubelet.service";

/// Environment variable that tells the client its cgroup. It is no argument, so that command lines stay short enough
/// for the tracer to copy whole.
pub const CGROUP_VARIABLE: &str = "LAB_CGROUP";

/// One way to connect. As text it is the argument of the client's process.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent options of a socket")]
pub struct Connect {
    /// Name of the program, hence of the task.
    pub name: &'static str,
    /// Namespace, `node` for the node's own.
    pub namespace: &'static str,
    /// cgroup v2 path.
    pub cgroup: String,
    /// Address and port to bind to; port 0 with `no_port` leaves the choice to connect().
    pub local: Option<SocketAddr>,
    /// Where to connect to.
    pub remote: SocketAddr,
    /// After this time the client gives up.
    pub timeout: Duration,
    /// poll(2) on a non-blocking socket instead of a blocking connect with SO_SNDTIMEO.
    pub nonblocking: bool,
    /// SO_REUSEADDR before bind().
    pub reuse_address: bool,
    /// IP_BIND_ADDRESS_NO_PORT before bind().
    pub no_port: bool,
    /// TCP Fast Open: the request goes with sendto(MSG_FASTOPEN).
    pub fast_open: bool,
    /// An IPv6 socket with v4-mapped addresses.
    pub mapped: bool,
    /// What to do with an established connection.
    pub then: Then,
}

/// What a client does with an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Requests a page, reads the answer, closes.
    Get,
    /// Requests a page and closes with the answer unread: the stack resets.
    CloseUnread,
    /// Resets by SO_LINGER with time 0.
    Abort,
}

impl Connect {
    /// A blocking connect of `kubelet` from `local` to `remote` that gives up after 1.5 s.
    pub fn new(local: Option<SocketAddr>, remote: SocketAddr) -> Self {
        Self {
            name: "kubelet",
            namespace: "node",
            cgroup: CGROUP.to_owned(),
            local,
            remote,
            timeout: Duration::from_millis(1500),
            nonblocking: false,
            reuse_address: false,
            no_port: false,
            fast_open: false,
            mapped: false,
            then: Then::Get,
        }
    }

    /// The client's argument.
    pub fn argument(&self) -> String {
        let mut text = format!("namespace={},remote={}", self.namespace, written(self.remote));
        if let Some(local) = self.local {
            let _ = write!(text, ",local={}", written(local));
        }
        let _ = write!(text, ",timeout_ms={}", self.timeout.as_millis());
        let flags = [
            ("nonblocking", self.nonblocking),
            ("reuse_address", self.reuse_address),
            ("no_port", self.no_port),
            ("fast_open", self.fast_open),
            ("mapped", self.mapped),
            ("close_unread", self.then == Then::CloseUnread),
            ("abort", self.then == Then::Abort),
        ];
        for (flag, _) in flags.iter().filter(|(_, set)| *set) {
            let _ = write!(text, ",{flag}");
        }
        text
    }

    /// Reads [`Connect::argument`] back.
    pub fn parse(text: &str) -> Result<Self> {
        let remote = text.split(',').find_map(|word| word.strip_prefix("remote=")).context("no remote")?;
        let mut connect = Self::new(None, read(remote)?);
        for word in text.split(',') {
            match word.split_once('=').unwrap_or((word, "")) {
                ("namespace", name) => connect.namespace = Box::leak(name.to_owned().into_boxed_str()),
                ("local", address) => connect.local = Some(read(address)?),
                ("timeout_ms", time) => connect.timeout = Duration::from_millis(time.parse()?),
                ("nonblocking", _) => connect.nonblocking = true,
                ("reuse_address", _) => connect.reuse_address = true,
                ("no_port", _) => connect.no_port = true,
                ("fast_open", _) => connect.fast_open = true,
                ("mapped", _) => connect.mapped = true,
                ("close_unread", _) => connect.then = Then::CloseUnread,
                ("abort", _) => connect.then = Then::Abort,
                ("remote", _) => {}
                (other, _) => anyhow::bail!("unknown option {other}"),
            }
        }
        Ok(connect)
    }

    /// Command line of the client's process, arguments separated by blanks.
    pub fn command_line(&self) -> String {
        format!("{} connect {}", self.path().display(), self.argument())
    }

    /// Path of the client's program.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/bin").join(self.name)
    }

    /// Starts the client.
    pub fn start(&self) -> Result<Running> {
        self.spawn(Stdio::null())
    }

    /// Starts the client's process, whose id is known from now on; it connects when [`Running::go`] says so.
    pub fn start_waiting(&self) -> Result<Running> {
        self.spawn(Stdio::piped())
    }

    fn spawn(&self, stdin: Stdio) -> Result<Running> {
        let path = self.path();
        if !path.exists() {
            std::fs::copy("/proc/self/exe", &path).context("cannot copy the client's program")?;
        }
        let child = Command::new(&path)
            .args(["connect", &self.argument()])
            .env(CGROUP_VARIABLE, &self.cgroup)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start: {}", self.command_line()))?;
        Ok(Running { child })
    }

    /// Runs the client to its end.
    pub fn run(&self) -> Result<Ended> {
        self.start()?.wait()
    }
}

/// `address@port`, which needs no quotes in a shell, IPv6 included.
fn written(address: SocketAddr) -> String {
    format!("{}@{}", address.ip(), address.port())
}

fn read(text: &str) -> Result<SocketAddr> {
    let (ip, port) = text.split_once('@').with_context(|| format!("{text} is not address@port"))?;
    Ok(SocketAddr::new(ip.parse()?, port.parse()?))
}

/// A client that runs.
pub struct Running {
    child: Child,
}

impl Running {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets a client that was started waiting connect.
    pub fn go(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for the client's end.
    pub fn wait(self) -> Result<Ended> {
        let pid = self.child.id();
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "the client ended with {}: {text}", output.status);
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("the client said {text:?}"))?;
        let text_of = |key: &str| value.get(key).and_then(Value::as_str);
        Ok(Ended {
            pid,
            local: text_of("local").and_then(|local| local.parse().ok()),
            error: text_of("error").map(str::to_owned),
        })
    }
}

/// How a client ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its process id.
    pub pid: u32,
    /// Local address and port of its socket after connect().
    pub local: Option<SocketAddr>,
    /// Name of the error; `None` = it was connected. A blocking connect whose time is up says EINPROGRESS.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_survives_the_command_line() {
        let mut connect = Connect::new(Some("10.0.0.1:7".parse().unwrap()), "[fd00::2]:80".parse().unwrap());
        connect.namespace = "pod";
        connect.timeout = Duration::from_millis(20);
        for set in 0..7 {
            let mut each = connect.clone();
            match set {
                0 => each.nonblocking = true,
                1 => each.reuse_address = true,
                2 => each.no_port = true,
                3 => each.fast_open = true,
                4 => each.mapped = true,
                5 => each.then = Then::CloseUnread,
                _ => each.then = Then::Abort,
            }
            assert_eq!(format!("{:?}", Connect::parse(&each.argument()).unwrap()), format!("{each:?}"));
        }
    }
}
