use super::super::{Argument, parse_sysctl_file};
use super::*;

fn live(range: &str, reserved: &str) -> NetSysctls {
    NetSysctls {
        local_port_range: range.parse().ok(),
        reserved_ports: reserved.parse().ok(),
        ..NetSysctls::default()
    }
}

fn files(given: &[(&str, &str)]) -> Configured {
    let read = given.iter().map(|(file, text)| parse_sysctl_file(text.as_bytes(), Path::new(file)));
    Configured { settings: read.flat_map(|parsed| parsed.settings).collect(), ..Configured::default() }
}

fn shown(live: &NetSysctls, configured: &Configured) -> Vec<String> {
    let place = |finding: &Finding| match (&finding.file, finding.line) {
        (Some(file), Some(at)) => format!("{}:{at}: ", file.display()),
        _ => String::new(),
    };
    let found = disagreements(live, configured);
    found
        .iter()
        .map(|finding| format!("{:?}: {}{}", finding.severity, place(finding), finding.text))
        .collect()
}

fn with_range(value: &str) -> Vec<String> {
    let text = format!("net.ipv4.ip_local_port_range = {value}");
    shown(&live("32768 60999", ""), &files(&[("/etc/sysctl.d/1.conf", &text)]))
}

// giantswarm/k8scloudconfig#542
#[test]
fn quoted_range_is_refused_and_the_old_value_stays() {
    let found = with_range("\"1024 65535\"");
    insta::assert_snapshot!(found.join("\n"), @r#"Error: /etc/sysctl.d/1.conf:1: net.ipv4.ip_local_port_range: "1024 65535": the quotes are part of the value and the kernel refuses them; remove them. The kernel refuses it and keeps the old value"#);
}

#[test]
fn a_link_to_sysctl_conf_does_not_double_what_is_found() {
    let text = "net.ipv4.ip_local_port_range = x\n";
    let configured = files(&[("/etc/sysctl.d/99-sysctl.conf", text), ("/etc/sysctl.conf", text)]);
    let found = shown(&live("32768 60999", ""), &configured);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("Error: /etc/sysctl.conf:1:"), "{found:?}");
}

// zabbix/zabbix-docker#1090, TechnitiumSoftware/DnsServer#1310
#[test]
fn parity_is_a_note_and_only_for_equal_parity() {
    for (range, noted) in
        [("1024 65000", true), ("32768 61000", true), ("32768 60999", false), ("1024 65535", false)]
    {
        let text = format!("net.ipv4.ip_local_port_range = {range}");
        let configured = files(&[("/etc/sysctl.conf", &text)]);
        let found = disagreements(&live(range, ""), &configured);
        assert_eq!(found.len(), usize::from(noted), "{range}: {found:?}");
        assert!(found.iter().all(|finding| finding.severity == Severity::Info && finding.line == Some(1)));
        let found = disagreements(&live(range, ""), &Configured::default());
        assert_eq!(found.iter().any(|finding| finding.text.contains("different parity")), noted);
    }
}

// Tried on Linux 6.18.
#[test]
fn what_the_kernel_takes_differently_than_it_looks() {
    assert!(with_range("1024 65001 # all")[0].contains("is 1024 65001 here, but 32768 60999"));
    assert!(with_range("1024")[0].contains("is 1024 60999 here"));
    assert!(with_range("1000 65001")[0].contains("ip_unprivileged_port_start"));
    assert!(with_range("1024 65001# all")[0].starts_with("Error"));
    assert!(with_range("1024-65001")[0].starts_with("Error"));
    assert_eq!(with_range("32768\t60999"), [""; 0]);
}

// kubernetes/kubernetes#115374, #111144
#[test]
fn a_list_of_ports_with_a_wrong_sign() {
    let text = "net.ipv4.ip_local_reserved_ports = 1024 15999\n\
         net.ipv4.ip_local_reserved_ports = 30000–32767\nnet.ipv4.vs.conntrack = yes\n";
    let found = shown(&live("32768 60999", ""), &files(&[("/etc/sysctl.d/k.conf", text)]));
    insta::assert_snapshot!(found.join("\n"), @r#"
    Warning: /etc/sysctl.d/k.conf:1: net.ipv4.ip_local_reserved_ports: "1024 15999": a blank is not allowed in a list of ports; for a range write 1024-15999. The kernel refuses it and keeps the old value
    Error: /etc/sysctl.d/k.conf:2: net.ipv4.ip_local_reserved_ports: "30000–32767": the sign between the numbers is '–' (U+2013), not a hyphen; type a plain -. The kernel refuses it and keeps the old value
    Error: /etc/sysctl.d/k.conf:3: net.ipv4.vs.conntrack: "yes" is not a number. The kernel refuses it and keeps the old value
    Warning: /etc/sysctl.d/k.conf:2: net.ipv4.ip_local_reserved_ports is set to different values: 30000–32767 is applied last and wins over /etc/sysctl.d/k.conf:1 (1024 15999). Keep one of them
    "#);
}

// kubernetes-sigs/kubespray, task "Ensure nodePort range is reserved"
#[test]
fn files_that_fight_and_would_drop_what_is_reserved() {
    let configured = files(&[
        ("/etc/sysctl.d/99-app.conf", "net.ipv4.ip_local_reserved_ports = 50000,50001\n"),
        ("/etc/sysctl.conf", "# kubespray\nnet.ipv4.ip_local_reserved_ports=30000-32767\n"),
    ]);
    let found = shown(&live("1024 65535", "30000-32767,50000-50001"), &configured);
    insta::assert_snapshot!(found.join("\n"), @r"
    Warning: /etc/sysctl.conf:2: net.ipv4.ip_local_reserved_ports is set to different values: 30000-32767 is applied last and wins over /etc/sysctl.d/99-app.conf:1 (50000,50001). Keep one of them; `sysctl --system` reads /etc/sysctl.conf last, systemd at boot reads it only through a link in /etc/sysctl.d
    Info: no sysctl file sets net.ipv4.ip_local_port_range, yet it is not the kernel's default 32768 60999: something else sets it, such as a tuning daemon, a DaemonSet or the image's first boot
    Warning: /etc/sysctl.conf:2: net.ipv4.ip_local_reserved_ports: the next boot or `sysctl --system` would drop the ports 50000-50001, which are reserved now. Write 30000-32767,50000-50001 here
    ");
}

#[test]
fn written_but_not_in_the_kernel_and_the_other_way_round() {
    let text = "net.ipv4.ip_local_reserved_ports = 30000-32767\nnet.ipv4.vs.conntrack=0\n";
    let mut kernel = live("32768 60999", "");
    kernel.vs_conntrack = Some(1);
    let found = shown(&kernel, &files(&[("/etc/sysctl.d/k.conf", text)]));
    assert!(found[0].contains("the ports 30000-32767 are not reserved in the kernel"), "{found:?}");
    assert!(found[1].starts_with("Warning: /etc/sysctl.d/k.conf:2: net.ipv4.vs.conntrack is 0 here, but 1"));
    let found = shown(&live("32768 60999", "30000-32767"), &Configured::default());
    assert!(found[0].contains("lost at the next boot"), "{found:?}");
}

#[test]
fn a_node_in_order_has_no_findings() {
    let text =
        "net.ipv4.ip_local_reserved_ports = 32767,30000-32766\nnet.ipv4.ip_local_port_range=1024 65535\n";
    let again = "net.ipv4.ip_local_reserved_ports=30000-32767,\n";
    let configured = files(&[("/etc/sysctl.d/1.conf", text), ("/etc/sysctl.d/2.conf", again)]);
    assert_eq!(shown(&live("1024 65535", "30000-32767"), &configured), [""; 0]);
    assert_eq!(shown(&live("32768 60999", ""), &Configured::default()), [""; 0]);
    // Nothing known, nothing said.
    assert_eq!(shown(&NetSysctls::default(), &Configured::default()), [""; 0]);
}

#[test]
fn node_port_range_of_manifest_and_process_differ() {
    let argument = |value: &str, file: &str, pid| Argument {
        component: Component::ApiServer,
        name: "service-node-port-range".into(),
        value: value.into(),
        file: file.into(),
        line: None,
        pid,
    };
    let mut configured = Configured {
        arguments: vec![argument("20000-40000", "/proc/9/cmdline", Some(9))],
        ..Configured::default()
    };
    assert_eq!(shown(&NetSysctls::default(), &configured), [""; 0]);
    configured.arguments.push(argument("30000-32767", "/etc/kubernetes/manifests/kube-apiserver.yaml", None));
    let found = shown(&NetSysctls::default(), &configured);
    assert_eq!(
        found,
        ["Warning: kube-apiserver: --service-node-port-range is 20000-40000 in /proc/9/cmdline (pid 9) and \
          30000-32767 in /etc/kubernetes/manifests/kube-apiserver.yaml"]
    );
}
