//! Network namespaces, named as `ip netns` names them.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

/// Path of a named namespace; a name that is a path is that path.
pub fn path(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/run/netns/{name}") }
}

/// Path of a process's namespace.
pub fn of_process(pid: u32) -> String {
    format!("/proc/{pid}/ns/net")
}

/// Inode number of a named namespace; the node's own is called `node`.
pub fn inode(name: &str) -> Result<u64> {
    let path = if name == "node" { "/proc/self/ns/net".to_owned() } else { path(name) };
    let metadata = std::fs::metadata(&path).with_context(|| format!("cannot look at {path}"))?;
    Ok(metadata.ino())
}

/// Moves the calling thread into a named namespace.
pub fn enter(name: &str) -> Result<()> {
    let path = path(name);
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))
}

/// Runs `work` on a thread of its own that lives in a namespace (`node`: this one), and waits for it.
pub fn run_in<T: Send + 'static>(name: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let name = name.to_owned();
    let thread = std::thread::spawn(move || {
        if name != "node" {
            enter(&name)?;
        }
        work()
    });
    thread.join().unwrap_or_else(|_| anyhow::bail!("the thread in the namespace panicked"))
}
