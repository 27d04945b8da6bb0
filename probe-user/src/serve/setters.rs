//! Who may have changed a sysctl: files that say the new value, and running programs that are known to set sysctls. The
//! kernel does not tell who wrote; these are candidates, and are called so.

use std::path::Path;

use crate::node::configured;

/// Programs that set sysctls on nodes again and again, by the kernel's name of their task, and what they are.
const AGENTS: &[(&str, &str)] = &[
    ("tuned", "tuned applies its profile's sysctls"),
    ("openshift-tuned", "the Node Tuning Operator applies its profile's sysctls"),
    ("machine-config-", "the Machine Config Operator writes the node's files"),
    ("cilium-agent", "cilium reserves the NodePort range itself"),
    ("puppet", "puppet may manage sysctls"),
    ("chef-client", "chef may manage sysctls"),
    ("salt-minion", "salt may manage sysctls"),
    ("cf-agent", "CFEngine may manage sysctls"),
    ("ansible-pull", "ansible may manage sysctls"),
    ("machined", "Talos applies the sysctls of its machine configuration"),
];
/// Candidates that are named.
const MAX_NAMED: usize = 8;

/// Candidates for having set `setting` to `value`. `root`: where the node's file system is.
pub fn candidates(proc_root: &Path, root: Option<&Path>, setting: &str, value: &str) -> Vec<String> {
    let mut found = root.map(|root| files(root, setting, value)).unwrap_or_default();
    found.extend(agents(proc_root));
    found.truncate(MAX_NAMED);
    found
}

fn files(root: &Path, setting: &str, value: &str) -> Vec<String> {
    let same = |text: &str| text.split_ascii_whitespace().eq(value.split_ascii_whitespace());
    let configured = configured::read_under(root);
    let settings = configured.settings.iter().filter(|said| said.key == setting && same(&said.value));
    settings.map(|said| format!("{}:{} says this value", said.file.display(), said.line)).collect()
}

fn agents(proc_root: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(proc_root) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            let (name, what) = AGENTS.iter().find(|(name, _)| comm.trim_end() == *name)?;
            Some(format!("{name} runs (pid {pid}): {what}"))
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kubespray task "Ensure nodePort range is reserved" overwrites the setting with its range alone.
    #[test]
    fn files_with_the_new_value_and_agents_that_run_are_candidates() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/sysctl.d/99-kubespray.conf", "# x\nnet.ipv4.ip_local_reserved_ports = 30000-32767\n");
        write("etc/sysctl.d/10-other.conf", "net.ipv4.ip_local_reserved_ports = 50000\n");
        write("proc/712/comm", "tuned\n");
        write("proc/713/comm", "bash\n");
        let found = candidates(
            &folder.path().join("proc"),
            Some(folder.path()),
            "net.ipv4.ip_local_reserved_ports",
            "30000-32767",
        );
        assert_eq!(
            found,
            [
                "/etc/sysctl.d/99-kubespray.conf:2 says this value",
                "tuned runs (pid 712): tuned applies its profile's sysctls"
            ]
        );
    }
}
