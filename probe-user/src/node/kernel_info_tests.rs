use proptest::prelude::*;

use super::*;

/// A root folder with these files.
pub(crate) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

#[test]
fn debian_node_with_ipvs() {
    let root = tree(&[
        ("proc/sys/kernel/osrelease", "6.1.0-50-amd64\n"),
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        ("proc/self/status", "Name:\tx\nCapEff:\t000000c000203004\n"),
        ("sys/kernel/btf/vmlinux", "12345"),
        ("proc/modules", "ip_vs_rr 16384 1 - Live 0x0\nip_vs 212992 3 ip_vs_rr, Live 0x0\n"),
        ("sys/module/nf_conntrack/parameters/hashsize", "65536"),
        ("sys/kernel/tracing/kprobe_events", ""),
        ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
        ("proc/self/limits", "Limit  Soft  Hard  Units\nMax locked memory  65536  unlimited  bytes\n"),
        ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"),
    ]);
    let info = KernelInfo::read(root.path());
    let expected = KernelInfo {
        release: Some("6.1.0-50-amd64".into()),
        version: Some(KernelVersion(6, 1, 0)),
        lockdown: Lockdown::Integrity,
        capabilities: Some(Capabilities(0x00c0_0020_3004)),
        btf_bytes: Some(5),
        ip_vs: ModuleState::Loaded,
        conntrack: ModuleState::BuiltIn,
        kprobes: Some("/sys/kernel/tracing/kprobe_events".into()),
        unprivileged_bpf_disabled: Some(2),
        memlock: Some(Limit { soft: Some(65536), hard: None }),
        cgroup2: Some("/sys/fs/cgroup".into()),
    };
    assert_eq!(info, expected);
    assert_eq!(info.meets_floor(), Some(true));
    assert_eq!(info.capabilities.unwrap().has("CAP_SYS_PTRACE"), Some(false));
    assert_eq!(info.capabilities.unwrap().has("CAP_NONE"), None);
}

#[test]
fn nothing_readable_is_not_known_and_not_no() {
    let root = tempfile::tempdir().unwrap();
    let info = KernelInfo::read(root.path());
    assert_eq!(info.release, None);
    assert_eq!(info.meets_floor(), None);
    assert_eq!(info.lockdown, Lockdown::NotKnown);
    assert_eq!(info.ip_vs, ModuleState::NotKnown);
    assert_eq!(info.capabilities, None);
    assert_eq!((info.btf_bytes, info.kprobes, info.cgroup2, info.memlock), (None, None, None, None));
}

#[test]
fn lockdown_states() {
    let state = |text| lockdown(tree(&[("sys/kernel/security/lockdown", text)]).path());
    assert_eq!(state("[none] integrity confidentiality\n"), Lockdown::Off);
    assert_eq!(state("none integrity [confidentiality]\n"), Lockdown::Confidentiality);
    assert_eq!(state("none integrity\n"), Lockdown::NotKnown);
    assert_eq!(lockdown(tree(&[("sys/kernel/security/lsm", "capability,yama")]).path()), Lockdown::Off);
}

#[test]
fn module_states() {
    let loaded = tree(&[("sys/module/ip_vs/initstate", "live\n")]);
    assert_eq!(module_state(loaded.path(), "ip_vs"), ModuleState::Loaded);
    let others = tree(&[("proc/modules", "ip_vs_rr 1 0 - Live 0x0\n")]);
    assert_eq!(module_state(others.path(), "ip_vs"), ModuleState::Absent);
    let monolithic = tree(&[("sys/module/kernel/parameters/x", "")]);
    assert_eq!(module_state(monolithic.path(), "ip_vs"), ModuleState::Absent);
}

#[test]
fn versions() {
    let parse = KernelVersion::parse;
    assert_eq!(parse("6.1.0-50-amd64"), Some(KernelVersion(6, 1, 0)));
    assert_eq!(parse("5.10.262"), Some(KernelVersion(5, 10, 262)));
    assert_eq!(parse("7.2-rc1+"), Some(KernelVersion(7, 2, 0)));
    assert_eq!(parse("5.4.291-foo.9"), Some(KernelVersion(5, 4, 291)));
    assert_eq!(parse("linux"), None);
    assert!(parse("5.7.19").unwrap() < FLOOR && parse("5.10.0").unwrap() > FLOOR);
    assert_eq!(FLOOR.to_string(), "5.8.0");
}

#[test]
fn this_machine() {
    let info = KernelInfo::read(Path::new("/"));
    assert_eq!(
        info.release,
        Some(nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned())
    );
    assert!(info.version.is_some() && info.capabilities.is_some() && info.memlock.is_some());
    assert_ne!(info.ip_vs, ModuleState::NotKnown);
}

proptest! {
    #[test]
    fn arbitrary_files_do_not_panic(text in "\\PC{0,40}") {
        let _ = KernelVersion::parse(&text);
        let _ = effective_capabilities(&format!("CapEff:{text}"));
        let _ = memlock(&format!("Max locked memory{text}"));
    }
}
