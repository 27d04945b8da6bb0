//! `cargo xtask record`: captures of the seed's incident on real kernels, for the tests of what reads captures.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::setup::kernels::{self, Kernel};
use crate::vm::{Guest, Kind, Line, boot};
use crate::{build, setup, workspace};

const DEADLINE: Duration = Duration::from_mins(5);
/// What captures in the guest besides tcpdump.
const RECORDERS: &[(&str, &str)] = &[("dumpcap", "wireshark-common")];

/// Play the incident in a virtual machine, record it in every namespace, and keep the captures for tests.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernels to boot: a list such as 6.1,6.12, or all (5.10, 6.1, 6.12, 7.2)
    #[arg(long, default_value = "6.1,6.12")]
    kernels: String,
}

/// Boots each kernel and writes `probe-user/tests/captures/lab-KERNEL-NAME`.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = kernels::parse_list(&arguments.kernels)?;
    setup::everything(&wanted, false)?;
    setup::ensure_programs(RECORDERS)?;
    let binaries = build::static_binaries(&["probe-user", "portclash-tests"])?;
    for wanted in wanted {
        let guest = Guest {
            init: binaries.join("lab-init"),
            portclash: Some(binaries.join("portclash")),
            files: Vec::new(),
            programs: RECORDERS,
            kind: Kind::Node,
            plan: vec!["record".to_owned()],
        };
        println!("booting Linux {}", wanted.name);
        let files = recorded(&Kernel::find(wanted.name)?, &guest)?;
        let folder = workspace::root().join("probe-user/tests/captures");
        std::fs::create_dir_all(&folder)?;
        for (name, content) in files {
            let path = folder.join(format!("lab-{}-{name}", wanted.name));
            std::fs::write(&path, &content).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{} bytes  {}", content.len(), path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that the guest hands over in lines `file NAME HEX`, several for a long one.
fn recorded(kernel: &Kernel, guest: &Guest) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let status = boot(kernel, guest, DEADLINE, |line| {
        let Line::Text(text) = line else { return Ok(()) };
        match text.strip_prefix("file ").and_then(|rest| rest.split_once(' ')) {
            Some((name, hex)) => files.entry(name.to_owned()).or_default().extend(bytes(hex)?),
            None => println!("{text}"),
        }
        Ok(())
    })?;
    if status != 0 {
        bail!("the guest ended with status {status}");
    }
    ensure!(!files.is_empty(), "the guest handed over no file");
    Ok(files)
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    digits.map(byte).collect::<Option<_>>().context("what the guest handed over is not hexadecimal")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn hexadecimal_is_read_and_nothing_else() {
        assert_eq!(bytes("00ff7f").unwrap(), [0, 255, 127]);
        assert!(bytes("0g").is_err());
    }
}
