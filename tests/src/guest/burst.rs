//! Many processes that connect at once and are gone right away.

use std::collections::VecDeque;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

/// One child that was born.
struct Child {
    pid: Pid,
    port: u16,
    life: PipeReader,
}

/// Forks `count` processes; number n connects from port `first + n` and exits without waiting. Prints
/// `[[pid, port, life in microseconds], …]`.
pub(super) fn run(local: &str, first: &str, count: &str, remote: &str) -> Result<()> {
    let (first, count): (u16, u16) = (first.parse()?, count.parse()?);
    let remote: SocketAddr = remote.parse()?;
    crate::cgroups::join_asked()?;
    let (mut children, mut lives) = (VecDeque::new(), Vec::new());
    for port in first..first + count {
        children.push_back(spawn(SocketAddr::new(local.parse()?, port), remote)?);
        // No more at a time than two processors can run: waiting for one would count as life.
        if children.len() > 2 {
            lives.extend(children.pop_front().map(buried).transpose()?);
        }
    }
    for child in children {
        lives.push(buried(child)?);
    }
    println!("{}", serde_json::json!(lives));
    Ok(())
}

/// Waits for the child's end: its process id, port and life in microseconds.
fn buried(mut child: Child) -> Result<(i32, u16, u64)> {
    let mut life = [0; 8];
    child.life.read_exact(&mut life).with_context(|| format!("the child on port {} failed", child.port))?;
    waitpid(child.pid, None)?;
    Ok((child.pid.as_raw(), child.port, u64::from_ne_bytes(life)))
}

fn spawn(local: SocketAddr, remote: SocketAddr) -> Result<Child> {
    let (life, writer) = std::io::pipe()?;
    // SAFETY: this process has one thread, so the child may do whatever the parent could.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Child { pid: child, port: local.port(), life }),
        ForkResult::Child => {
            let status = i32::from(live(local, remote, writer).is_err());
            // SAFETY: _exit ends the process without running anything of the parent's.
            unsafe { libc::_exit(status) }
        }
    }
}

fn live(local: SocketAddr, remote: SocketAddr, mut writer: PipeWriter) -> Result<()> {
    let start = Instant::now();
    let name = std::ffi::CString::new(format!("probe-{}", local.port()))?;
    nix::sys::prctl::set_name(&name)?;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
    // EINPROGRESS is what is expected; the tracer tells how it went on.
    let _ = connect(socket.as_raw_fd(), &SockaddrStorage::from(remote));
    drop(socket);
    let life = u64::try_from(start.elapsed().as_micros())?;
    Ok(writer.write_all(&life.to_ne_bytes())?)
}
