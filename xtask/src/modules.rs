//! Kernel modules for the guest, in the order in which they can be loaded.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::initramfs::Archive;

/// What the lab needs. One that a kernel has built in, or has not, is left out. crc32c_generic comes first: libcrc32c
/// asks for it by a soft dependency, which modules.dep does not list.
const WANTED: &[&str] = &[
    "crc32c_generic",
    "veth",
    "dummy",
    "bridge",
    "nf_conntrack",
    "nf_nat",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_chain_nat",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_sh",
];
/// Modules that are carried along but loaded by a scenario that wants them.
const CARRIED: &[&str] = &[
    "br_netfilter",
    "nf_reject_ipv4",
    "nf_reject_ipv6",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "overlay",
];

/// Adds the modules under `/lab/modules` and the list `/lab/modules/order` of those to load at start.
pub(crate) fn add(archive: &mut Archive, modules: &Path) -> Result<()> {
    let list = modules.join("modules.dep");
    let text = std::fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let dependencies = Dependencies::parse(&text);
    let order = dependencies.order(WANTED);
    let mut names = String::new();
    for path in &order {
        names.push_str(name(path));
        names.push('\n');
    }
    for path in order.iter().chain(&dependencies.order(CARRIED)) {
        archive.file(&format!("lab/modules/{}.ko", name(path)), &unpacked(&modules.join(path))?);
    }
    archive.file("lab/modules/order", names.as_bytes());
    Ok(())
}

fn unpacked(path: &Path) -> Result<Vec<u8>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => command::output_bytes(Command::new("xz").arg("-dc").arg(path)),
        Some("zst") => command::output_bytes(Command::new("zstd").arg("-qdc").arg(path)),
        _ => std::fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Module name of a path in modules.dep.
fn name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split_once(".ko").map_or(file, |(name, _)| name)
}

/// modules.dep: `path: dependency dependency …`, the deepest dependency last.
struct Dependencies<'a> {
    by_name: BTreeMap<String, (&'a str, Vec<&'a str>)>,
}

impl<'a> Dependencies<'a> {
    fn parse(text: &'a str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let by_name = lines
            .map(|(path, needs)| (name(path).replace('-', "_"), (path, needs.split_whitespace().collect())))
            .collect();
        Self { by_name }
    }

    fn order(&self, wanted: &[&str]) -> Vec<&'a str> {
        let mut order: Vec<&'a str> = Vec::new();
        for module in wanted {
            let Some((path, needs)) = self.by_name.get(*module) else { continue };
            for path in needs.iter().rev().chain([path]) {
                if !order.contains(path) {
                    order.push(path);
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_once_and_unknown_modules_are_left_out() {
        let text = "kernel/net/ip_vs.ko.xz: kernel/nf_conntrack.ko.xz kernel/lib/libcrc32c.ko.xz\n\
                    kernel/nf_conntrack.ko.xz: kernel/lib/libcrc32c.ko.xz\n\
                    kernel/lib/libcrc32c.ko.xz:\n\
                    kernel/net/ip_vs-rr.ko.xz: kernel/net/ip_vs.ko.xz kernel/nf_conntrack.ko.xz kernel/lib/libcrc32c.ko.xz\n";
        let order = Dependencies::parse(text).order(&["absent", "nf_conntrack", "ip_vs_rr"]);
        let names: Vec<&str> = order.into_iter().map(name).collect();
        assert_eq!(names, ["libcrc32c", "nf_conntrack", "ip_vs", "ip_vs-rr"]);
    }
}
