//! The load: one process that connects to a listener on the loopback and closes, as fast as it can.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use serde_json::Value;

/// Connects between two looks at the clock.
const CHUNK: u32 = 8;

/// Connects of one spell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) connects: u64,
    time: Duration,
    /// Time that a tenth of the chunks stays below: what else the machine does only ever makes chunks longer.
    chunk: Duration,
}

impl Rate {
    pub(crate) const fn new(connects: u64, time: Duration, chunk: Duration) -> Self {
        Self { connects, time, chunk }
    }

    /// Over the whole spell.
    #[expect(clippy::cast_precision_loss, reason = "a spell has far fewer than 2^52 connects")]
    pub(crate) fn per_second(&self) -> f64 {
        self.connects as f64 / self.time.as_secs_f64()
    }

    /// While nothing else runs: of the fast tenth of the chunks.
    pub(crate) fn undisturbed(&self) -> f64 {
        f64::from(CHUNK) / self.chunk.as_secs_f64()
    }
}

/// A listener whose connections are accepted and closed at once. It lives as long as this process.
pub(crate) struct Server {
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no listener")?;
        // A full queue would cost the client a second (a lost SYN), which is not what is measured.
        listen(&listener, Backlog::new(4095)?)?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || listener.incoming().for_each(drop));
        Ok(Self { address })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets a client connect for `time`; `wrapper` is a program and arguments that start it.
    pub(crate) fn rate(&self, time: Duration, wrapper: &[&str]) -> Result<Rate> {
        self.paced(time, wrapper, 0)
    }

    /// The same, with no more than so many connects per second; 0 = as fast as it can.
    pub(crate) fn paced(&self, time: Duration, wrapper: &[&str], most: u32) -> Result<Rate> {
        let own = std::env::current_exe()?;
        let own = own.to_str().context("the path of this program is no text")?;
        let (server, time) = (self.address.to_string(), time.as_millis().to_string());
        let mut words = wrapper.to_vec();
        let most = most.to_string();
        words.extend([own, "bench", "client", &server, &time, &most]);
        let (program, arguments) = words.split_first().context("nothing to run")?;
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {program}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program}: {}: {}", output.status, errors.trim_end());
        let told: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the client said {:?}", String::from_utf8_lossy(&output.stdout)))?;
        let number =
            |name: &str| told.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}"));
        let (connects, chunk) = (number("connects")?, number("chunk_ns")?);
        ensure!(connects > 0 && chunk > 0, "the client did not connect");
        Ok(Rate::new(connects, Duration::from_nanos(number("ns")?), Duration::from_nanos(chunk)))
    }
}

/// The client's process.
pub(crate) fn run(server: &str, milliseconds: &str, most: &str) -> Result<()> {
    let server: SocketAddr = server.parse()?;
    let time = Duration::from_millis(milliseconds.parse()?);
    let most: u32 = most.parse()?;
    let start = Instant::now();
    let mut chunks = Vec::new();
    let mut before = Duration::ZERO;
    while before < time {
        for _ in 0..CHUNK {
            let stream = TcpStream::connect(server).context("connect")?;
            // Closing by RST leaves no TIME-WAIT: they would fill the ports and slow down the later spells.
            setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        }
        let due = u32::try_from(chunks.len() + 1)?.saturating_mul(CHUNK);
        if most > 0 {
            let due = Duration::from_secs(1).saturating_mul(due) / most;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let now = start.elapsed();
        chunks.push(now.saturating_sub(before));
        before = now;
    }
    let connects = u64::try_from(chunks.len())? * u64::from(CHUNK);
    chunks.sort_unstable();
    let chunk = chunks.get(chunks.len() / 10).copied().unwrap_or_default();
    let (total, chunk) = (u64::try_from(before.as_nanos())?, u64::try_from(chunk.as_nanos())?);
    println!("{}", serde_json::json!({"connects": connects, "ns": total, "chunk_ns": chunk}));
    Ok(())
}

/// One connect from `local`, closed at once.
pub(crate) fn connect_from(local: SocketAddr, server: SocketAddr) -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(client.as_raw_fd(), &SockaddrStorage::from(local)).with_context(|| format!("bind to {local}"))?;
    connect(client.as_raw_fd(), &SockaddrStorage::from(server))
        .with_context(|| format!("connect from {local}"))
}
