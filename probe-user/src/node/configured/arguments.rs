//! Arguments of kube-apiserver, kubelet and kube-proxy: of running processes, of static pods, and of the
//! configuration files that these name. Only arguments about ports and IPVS are kept.

use std::fmt;
use std::path::{Path, PathBuf};

use super::rooted::Root;
use super::{Configured, Note, yaml};

/// Longest value that is kept.
const MAX_VALUE: usize = 4096;
/// Static pods that this looks at, and whose arguments are in them.
const MANIFESTS: [(&str, Component); 5] = [
    ("/etc/kubernetes/manifests/kube-apiserver.yaml", Component::ApiServer),
    ("/etc/kubernetes/manifests/kube-apiserver.manifest", Component::ApiServer),
    ("/etc/kubernetes/manifests/kube-apiserver.yml", Component::ApiServer),
    ("/etc/kubernetes/manifests/kube-proxy.yaml", Component::KubeProxy),
    ("/etc/kubernetes/manifests/kube-proxy.manifest", Component::KubeProxy),
];

/// Part of Kubernetes that an argument is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// kube-apiserver
    ApiServer,
    /// kubelet
    Kubelet,
    /// kube-proxy
    KubeProxy,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiServer => "kube-apiserver",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        })
    }
}

impl Component {
    fn named(name: &str) -> Option<Self> {
        match name {
            "kube-apiserver" | "apiserver" => Some(Self::ApiServer),
            "kubelet" => Some(Self::Kubelet),
            "kube-proxy" | "proxy" => Some(Self::KubeProxy),
            _ => None,
        }
    }

    fn wants(self, name: &str) -> bool {
        match self {
            Self::ApiServer => name == "service-node-port-range",
            Self::Kubelet => matches!(name, "allowed-unsafe-sysctls" | "config"),
            Self::KubeProxy => {
                matches!(name, "proxy-mode" | "nodeport-addresses" | "config") || name.starts_with("ipvs-")
            }
        }
    }

    /// Keys of its configuration file and the arguments that they replace.
    fn keys(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ApiServer => &[],
            Self::Kubelet => &[("allowedUnsafeSysctls", "allowed-unsafe-sysctls")],
            Self::KubeProxy => &[("mode", "proxy-mode"), ("nodePortAddresses", "nodeport-addresses")],
        }
    }
}

/// One argument, or a key of a configuration file that stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Who takes it.
    pub component: Component,
    /// Name without the dashes, such as `service-node-port-range`.
    pub name: String,
    /// Value; several are separated by commas.
    pub value: String,
    /// Where it was read, as seen from the root folder (of the process for a configuration file).
    pub file: PathBuf,
    /// Line from 1, where there are lines.
    pub line: Option<usize>,
    /// The running process that has it, itself or through its configuration file.
    pub pid: Option<u32>,
}

pub(super) fn read(root: &Root, configured: &mut Configured) {
    read_processes(root, configured);
    for (file, component) in MANIFESTS {
        let Ok(bytes) = root.read(Path::new(file)) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let words: Vec<(Option<usize>, &str)> =
            yaml::words(&text).map(|(line, word)| (Some(line), word)).collect();
        let found = flags(component, &words, Path::new(file), None);
        // The path is in the container, which the manifest alone does not show.
        configured.arguments.extend(found.into_iter().filter(|argument| argument.name != "config"));
    }
}

fn read_processes(root: &Root, configured: &mut Configured) {
    let Ok(names) = root.names(Path::new("/proc")) else { return };
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        let file = PathBuf::from(format!("/proc/{pid}/cmdline"));
        // A process may have ended.
        let Ok(bytes) = root.read(&file) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let words: Vec<&str> = text.split('\0').collect();
        for mut argument in of_process(&words, &file, pid) {
            if argument.name == "config" {
                read_config_file(root, &argument, pid, configured);
            } else {
                argument.value = shortened(&argument.value);
                configured.arguments.push(argument);
            }
        }
    }
}

/// The arguments of a process, if it is one of the components, or several of them in one (k3s, rke2).
fn of_process(words: &[&str], file: &Path, pid: u32) -> Vec<Argument> {
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let Some((program, rest)) = words.split_first() else { return Vec::new() };
    let program = base(program);
    let placed: Vec<(Option<usize>, &str)> = rest.iter().map(|word| (None, *word)).collect();
    if let Some(component) = Component::named(&program).filter(|_| program != "proxy") {
        return flags(component, &placed, file, Some(pid));
    }
    if program == "hyperkube" {
        let component = rest.first().and_then(|word| Component::named(word));
        return component.map_or_else(Vec::new, |component| flags(component, &placed, file, Some(pid)));
    }
    if matches!(program.as_str(), "k3s" | "rke2") {
        return bundled(rest, file, pid);
    }
    Vec::new()
}

/// `--kube-proxy-arg=proxy-mode=ipvs` and the like.
fn bundled(words: &[&str], file: &Path, pid: u32) -> Vec<Argument> {
    let mut found = Vec::new();
    for (name, value, _) in named_values(words.iter().map(|word| (None, *word))) {
        let component = match name {
            "kube-apiserver-arg" => Component::ApiServer,
            "kubelet-arg" => Component::Kubelet,
            "kube-proxy-arg" => Component::KubeProxy,
            "service-node-port-range" => {
                let word = format!("--{name}={value}");
                found.extend(flags(Component::ApiServer, &[(None, &word)], file, Some(pid)));
                continue;
            }
            _ => continue,
        };
        let word = format!("--{}", value.trim_start_matches('-'));
        found.extend(flags(component, &[(None, &word)], file, Some(pid)));
    }
    found
}

/// Words with the line that they are on, of this component's arguments those that matter.
fn flags(
    component: Component,
    words: &[(Option<usize>, &str)],
    file: &Path,
    pid: Option<u32>,
) -> Vec<Argument> {
    named_values(words.iter().copied())
        .into_iter()
        .filter(|(name, ..)| component.wants(name))
        .map(|(name, value, line)| Argument {
            component,
            name: name.to_owned(),
            value: value.to_owned(),
            file: file.into(),
            line,
            pid,
        })
        .collect()
}

/// `--name=value` and `--name value`.
fn named_values<'a>(
    words: impl Iterator<Item = (Option<usize>, &'a str)>,
) -> Vec<(&'a str, &'a str, Option<usize>)> {
    let mut words = words.peekable();
    let mut found = Vec::new();
    while let Some((line, word)) = words.next() {
        let Some(word) = word.strip_prefix("--") else { continue };
        if let Some((name, value)) = word.split_once('=') {
            found.push((name, value, line));
        } else if let Some((_, value)) = words.next_if(|(_, next)| !next.starts_with('-')) {
            found.push((word, value, line));
        }
    }
    found
}

fn shortened(value: &str) -> String {
    value.chars().take(MAX_VALUE).collect()
}

/// The file is where the process sees it, which may be in a container.
fn read_config_file(root: &Root, config: &Argument, pid: u32, configured: &mut Configured) {
    let path = Path::new(&config.value);
    let read = root.of_process(pid).and_then(|process| process.read(path));
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => {
            let text = format!("cannot read the configuration of {} (pid {pid}): {error}", config.component);
            configured.notes.push(Note { text, file: Some(path.into()), line: None });
            return;
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    for (key, name) in config.component.keys() {
        let Some((line, values)) = yaml::top_level(&text, key) else { continue };
        if !values.is_empty() {
            configured.arguments.push(Argument {
                component: config.component,
                name: (*name).to_owned(),
                value: shortened(&values.join(",")),
                file: path.into(),
                line,
                pid: Some(pid),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::read_under;
    use super::*;

    struct Node(tempfile::TempDir);

    impl Node {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn values(&self) -> Vec<String> {
            let read = read_under(self.0.path());
            assert_eq!(read.notes, []);
            let shown =
                |argument: &Argument| format!("{} {} {}", argument.component, argument.name, argument.value);
            read.arguments.iter().map(shown).collect()
        }
    }

    #[test]
    fn processes_and_only_what_matters_of_them() {
        let node = Node::new();
        node.write(
            "proc/9/cmdline",
            "/usr/bin/kube-apiserver\0--service-node-port-range=20000-40000\0--token=x\0",
        );
        node.write(
            "proc/10/cmdline",
            "kubelet\0--allowed-unsafe-sysctls\0net.ipv4.*\0--v\0--bootstrap-token=y\0",
        );
        node.write("proc/11/cmdline", "/hyperkube\0proxy\0--proxy-mode=ipvs\0--ipvs-scheduler=rr\0");
        node.write(
            "proc/12/cmdline",
            "k3s\0server\0--kube-proxy-arg\0proxy-mode=ipvs\0--service-node-port-range=1-2\0",
        );
        node.write("proc/13/cmdline", "bash\0-c\0kube-proxy --proxy-mode=ipvs\0");
        node.write("proc/14/cmdline", "");
        node.write("proc/self/cmdline", "kubelet\0--allowed-unsafe-sysctls=x\0");
        let expected = [
            "kube-apiserver service-node-port-range 20000-40000",
            "kubelet allowed-unsafe-sysctls net.ipv4.*",
            "kube-proxy proxy-mode ipvs",
            "kube-proxy ipvs-scheduler rr",
            "kube-proxy proxy-mode ipvs",
            "kube-apiserver service-node-port-range 1-2",
        ];
        assert_eq!(node.values(), expected);
        assert_eq!(read_under(node.0.path()).arguments[0].pid, Some(9));
    }

    #[test]
    fn static_pod_with_its_line() {
        let node = Node::new();
        let text = "spec:\n  containers:\n  - command:\n    - kube-apiserver\n    - --service-node-port-range=20000-40000\n    - \"--x=y\"\n";
        node.write("etc/kubernetes/manifests/kube-apiserver.yaml", text);
        let read = read_under(node.0.path());
        let [argument] = read.arguments.as_slice() else { panic!("{read:?}") };
        assert_eq!((argument.value.as_str(), argument.line, argument.pid), ("20000-40000", Some(5), None));
        node.write(
            "etc/kubernetes/manifests/kube-apiserver.yaml",
            "- \"--service-node-port-range\"\n- 30000-32767\n",
        );
        assert_eq!(node.values(), ["kube-apiserver service-node-port-range 30000-32767"]);
    }

    #[test]
    fn configuration_file_as_the_process_sees_it() {
        let node = Node::new();
        node.write("proc/7/cmdline", "kube-proxy\0--config=/var/lib/kube-proxy/config.conf\0");
        node.write(
            "proc/7/root/var/lib/kube-proxy/..data/config.conf",
            "kind: KubeProxyConfiguration\nmode: ipvs\n",
        );
        symlink("..data/config.conf", node.0.path().join("proc/7/root/var/lib/kube-proxy/config.conf"))
            .unwrap();
        assert_eq!(node.values(), ["kube-proxy proxy-mode ipvs"]);
        let read = read_under(node.0.path());
        assert_eq!(read.arguments[0].line, Some(2));
        assert_eq!(read.arguments[0].file, Path::new("/var/lib/kube-proxy/config.conf"));
    }

    #[test]
    fn a_configuration_file_that_blocks_or_leads_out_is_a_note() {
        let node = Node::new();
        node.write("proc/7/cmdline", "kube-proxy\0--config=/pipe\0");
        node.write("proc/8/cmdline", "kube-proxy\0--config=/link\0");
        node.write("proc/7/root/x", "");
        node.write("proc/8/root/x", "");
        node.write("outside", "mode: ipvs\n");
        nix::unistd::mkfifo(&node.0.path().join("proc/7/root/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink(node.0.path().join("outside"), node.0.path().join("proc/8/root/link")).unwrap();
        let read = read_under(node.0.path());
        assert_eq!((read.arguments.len(), read.notes.len()), (0, 2), "{read:?}");
        assert!(read.notes[0].text.contains("pid 7"), "{:?}", read.notes[0]);
    }
}
