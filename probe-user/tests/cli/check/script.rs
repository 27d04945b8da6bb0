//! Files, standard input, and the script.

use std::fs;
use std::process::{Output, Stdio};

use super::*;

/// What the node's files say is compared with what the kernel has, whatever it has.
// giantswarm/k8scloudconfig#542, kubernetes/kops#6342
#[test]
fn files_that_the_kernel_refuses_are_named_with_their_line() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("etc/sysctl.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("10-range.conf"), "# ours\nnet.ipv4.ip_local_port_range=\"1024 65535\"\n").unwrap();
    fs::write(folder.join("99-ports.conf"), "net.ipv4.ip_local_reserved_ports = 30000\u{2013}32767\n")
        .unwrap();
    let (report, _) = check(&["--netns", "/proc/self/ns/net", "--root", root.path().to_str().unwrap()]);
    let errors = findings(&report, "error");
    assert!(errors.contains("remove them") && errors.contains("/etc/sysctl.d/10-range.conf:2"), "{errors}");
    assert!(errors.contains("not a hyphen") && errors.contains("/etc/sysctl.d/99-ports.conf:1"), "{errors}");
    let warnings = findings(&report, "warning");
    assert!(warnings.contains("99-ports.conf:1 sets") && warnings.contains("applied after"), "{warnings}");
    // A file that says what the kernel has is where it comes from.
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    fs::write(folder.join("10-range.conf"), format!("net.ipv4.ip_local_port_range = {range}")).unwrap();
    let (report, _) = check(&["--netns", "/proc/self/ns/net", "--root", root.path().to_str().unwrap()]);
    assert_eq!(report["ephemeral"]["source"], "the running kernel, as /etc/sysctl.d/10-range.conf:1 sets it");
}

fn with_stdin(args: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child =
        portclash(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_minus_sign_is_standard_input_once() {
    let range = ["check", "-o", "json", "--local-port-range", "1024 65000", "--reserved-ports", ""];
    let output =
        with_stdin(&[&range[..], &["--ipvs", "-"]].concat(), "TCP  192.0.2.10:31000 rr\nTCP  x:1 rr\n");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["exposed_count"], 1);
    assert!(report["incomplete"][0].as_str().unwrap().starts_with("standard input, line 2"));
    refused(
        &run(&[&range[..], &["--ipvs", "-", "--sockets", "-"]].concat()),
        &["standard input", "only once"],
    );
}

/// Run in namespaces of its own, the script keeps what is reserved, and what it prints undoes it.
#[test]
fn the_script_reserves_and_can_be_undone() {
    let script = run(&[&["check", "--fix-script"], &borrowed(&seed_node("ss-kubelet.txt"))[..]].concat());
    assert_eq!(script.status.code(), Some(1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fix.sh");
    fs::write(&path, &script.stdout).unwrap();
    let test = "mount -t tmpfs none /etc/sysctl.d || exit 77
        echo 8080 > /proc/sys/net/ipv4/ip_local_reserved_ports || exit 77
        sh -n \"$0\" && sh \"$0\" > /etc/sysctl.d/out || exit 1
        cat /proc/sys/net/ipv4/ip_local_reserved_ports /etc/sysctl.d/90-nodeports.conf
        sed -n '/to undo/,$p' /etc/sysctl.d/out | tail -n +2 > /etc/sysctl.d/undo; sh -e /etc/sysctl.d/undo || exit 1
        cat /proc/sys/net/ipv4/ip_local_reserved_ports; test ! -e /etc/sysctl.d/90-nodeports.conf && echo gone";
    let output =
        std::process::Command::new("unshare").args(["-n", "-m", "sh", "-c", test]).arg(&path).output();
    match output {
        Ok(output) if output.status.success() => assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "8080,20000-40000\nnet.ipv4.ip_local_reserved_ports = 8080,20000-40000\n8080\ngone\n"
        ),
        Ok(output)
            if output.stderr.is_empty()
                || output.status.code() == Some(77)
                || stderr(&output).contains("unshare") =>
        {
            println!("skipped: no namespaces may be made here: {}", stderr(&output));
        }
        Ok(output) => panic!("{}", stderr(&output)),
        Err(error) => println!("skipped: unshare cannot be run: {error}"),
    }
    let safe = run(&["check", "--fix-script", "--local-port-range", "32768 60999", "--reserved-ports", ""]);
    assert!(String::from_utf8(safe.stdout).unwrap().contains("nothing has to be reserved"));
}
