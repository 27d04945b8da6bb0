//! PID 1: mounts, modules, one child that does the work, reaping, power off.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};

use crate::{cgroups, host};

const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
];

pub(super) fn run() -> ExitCode {
    let status = match prepare().and_then(|()| work()) {
        Ok(status) => status,
        Err(error) => {
            host::say(&format!("error: {error:#}"));
            2
        }
    };
    host::end(status);
    // Returning from PID 1 would be a kernel panic; a machine that cannot be powered off ends that way.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    ExitCode::FAILURE
}

fn prepare() -> Result<()> {
    for (kind, target) in MOUNTS {
        mount(Some(*kind), *target, Some(*kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} on {target}"))?;
    }
    cgroups::mount_all()?;
    for directory in ["/run/netns", "/run/bin"] {
        std::fs::create_dir_all(directory)?;
    }
    let order = std::fs::read_to_string("/lab/modules/order").context("no list of modules")?;
    for module in order.lines() {
        load_module(module)?;
    }
    Ok(())
}

/// Loads a module of the image by its file name; one that this kernel has built in, or has already, is as good.
pub fn load_module(name: &str) -> Result<()> {
    let path = format!("/lab/modules/{name}.ko");
    if !std::fs::exists(&path)? {
        return Ok(());
    }
    let output = Command::new("insmod").arg(path).output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success() || message.contains("File exists"), "insmod {name}: {message}");
    Ok(())
}

/// Starts the child that does what the plan says, reaps whatever ends, and returns the child's status.
fn work() -> Result<i32> {
    let plan = std::fs::read_to_string("/lab/plan").context("no plan")?;
    let child = Command::new("/proc/self/exe")
        .args(plan.split('\n'))
        .env("PATH", "/bin")
        .env("HOME", "/root")
        .spawn()
        .context("cannot start the lab")?;
    let child = i32::try_from(child.id())?;
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                host::say(&format!("error: the lab {}", ExitStatus::from_raw(signal as i32)));
                return Ok(2);
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the lab"),
        }
    }
}
