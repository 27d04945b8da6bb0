use super::*;
use crate::ipvs::Form;

macro_rules! seed {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/seed/", $name)).as_slice()
    };
}

/// midbai.com, "many pod probes are failing after upgrading Kubernetes"
#[test]
fn the_incidents_files_are_recognised() {
    for (bytes, kind) in [
        (seed!("capture-listing.txt"), Kind::PacketListing(ListingForm::Wireshark)),
        (seed!("tcpdump-lo.txt"), Kind::PacketListing(ListingForm::Tcpdump)),
        (seed!("ipvsadm.txt"), Kind::Ipvs(Form::Listing)),
        (seed!("services.txt"), Kind::Kubernetes(ListKind::Services)),
        (seed!("kubelet.log"), Kind::KubeletLog),
        (seed!("nginx-access.log"), Kind::AccessLog),
        (seed!("ss.txt"), Kind::Sockets(sockets::Form::Ss)),
        (seed!("ss-counts.txt"), Kind::Sockets(sockets::Form::Counts)),
        (seed!("sysctl.txt"), Kind::Sysctls),
        (seed!("kube-apiserver.txt"), Kind::Arguments),
    ] {
        assert_eq!(recognise(bytes), Some(kind));
        let windows = String::from_utf8_lossy(bytes).replace('\n', "\r\n");
        assert_eq!(recognise(format!("\u{feff}{windows}").as_bytes()), Some(kind), "with a mark and CRLF");
    }
    assert_eq!(recognise(seed!("README.md")), None);
}

#[test]
fn every_other_kind() {
    for (text, kind) in [
        (
            "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A000001:8F60 rr\n",
            Kind::Ipvs(Form::Proc),
        ),
        (
            "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\nTCP 0AF4000A 0050 0A000001 8F60 0AF40014 1F90 CLOSE             7\n",
            Kind::Ipvs(Form::ProcConnections),
        ),
        (
            "-A -t 10.0.0.5:31055 -s rr\n-a -t 10.0.0.5:31055 -r 10.244.1.2:80 -m -w 1\n",
            Kind::Ipvs(Form::Save),
        ),
        (
            "TCP 00:50  SYN_RECV    10.254.0.1:56808   10.254.0.1:443     10.111.32.241:6443\n",
            Kind::Ipvs(Form::Connections),
        ),
        (
            "E0203 14:08:15.590000       1 proxier.go:1108] can't open \"nodePort for ns/svc:port\" (:34104/tcp)\n",
            Kind::KubeProxyLog,
        ),
        (
            "Active Internet connections (w/o servers)\nProto Recv-Q Send-Q Local Address Foreign Address State\ntcp 0 0 10.0.0.1:5 10.0.0.2:80 ESTABLISHED\n",
            Kind::Sockets(sockets::Form::Netstat),
        ),
        (
            "tcp      6 120 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=46128 dport=80 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=80 dport=46128\n",
            Kind::Conntrack,
        ),
        ("{\"schema\":\"portclash.incident/v1\",\"id\":\"x\"}\n", Kind::Incidents),
        (
            "{\"kind\":\"PodList\",\"items\":[{\"metadata\":{\"name\":\"a\"},\"spec\":{\"containers\":[]}}]}",
            Kind::Kubernetes(ListKind::Pods),
        ),
        (
            "{\"log\":\"I1201 01:10:55.515000 1 prober.go:116] \\\"Probe failed\\\" probeType=\\\"Liveness\\\"\\n\",\"stream\":\"stderr\"}\n",
            Kind::KubeletLog,
        ),
        (
            "root 1 0.0 kube-apiserver --advertise-address=10.0.0.1 --service-node-port-range=20000-40000\n",
            Kind::Arguments,
        ),
        (
            "NAME READY STATUS RESTARTS AGE IP NODE\nnginx-0 1/1 Running 0 5d 10.23.77.138 node-a\n",
            Kind::PodTable,
        ),
        ("abi.vsyscall32 = 1\ndebug.x = 0\nnet.ipv4.tcp_tw_reuse = 2\n", Kind::Sysctls),
    ] {
        assert_eq!(recognise(text.as_bytes()), Some(kind), "{text}");
    }
    assert_eq!(recognise(b"\x0a\x0d\x0d\x0a...."), Some(Kind::Capture(capture::Format::Pcapng)));
}

#[test]
fn what_a_log_quotes_is_no_other_kind() {
    let quoting = "I0915 19:09:04.534948 607529 kubelet.go:121] \"x\" out=\"TCP  10.0.0.1:443 rr\"\n\
                   \tTCP  10.0.0.1:443 rr\n\
                   I0915 19:09:05.534948 607529 kubelet.go:121] 10.0.0.1.5 > 10.0.0.2.80: Flags [S], seq 1, win 1, length 0\n";
    assert_eq!(recognise(quoting.as_bytes()), Some(Kind::KubeletLog));
    // klog of a third program.
    assert_eq!(
        recognise(b"I0915 19:09:04.534948 1 trace.go:121] 10.0.0.1.5 > 10.0.0.2.80: Flags [S]\n"),
        None
    );
}

#[test]
fn a_machines_log_is_the_kubelets_if_the_kubelet_is_in_it() {
    let kernel = "Sep 15 19:09:04 node-a kernel: eth0: link up\n".repeat(400);
    let kubelet = "Sep 15 19:09:04 node-a kubelet[607529]: I0915 19:09:04.534948 607529 prober.go:121] \"Probe failed\"\n";
    assert_eq!(recognise(format!("{kernel}{kubelet}").as_bytes()), Some(Kind::KubeletLog));
    assert_eq!(recognise(kernel.as_bytes()), None);
    assert!(looks_like(kernel.as_bytes()).contains("journalctl -u kubelet"));
}

#[test]
fn nothing_else_is_recognised() {
    for (text, looks) in [
        ("", "an empty file"),
        ("hello\nworld\n", "text of another kind"),
        ("\0\0\0\0", "binary data"),
        ("PK\u{3}\u{4}....", "a zip archive: unpack it first"),
        ("*nat\n:PREROUTING ACCEPT [0:0]\n-A POSTROUTING -j MASQUERADE\n", "the output of iptables-save"),
        ("see 849\n10.0.0.1 is up\n1 10.0.0.1\nmore\nprose\n", "text of another kind"),
        ("a = b\nnet.ipv4.x = 1\nprose\nprose\n", "text of another kind"),
    ] {
        assert_eq!(recognise(text.as_bytes()), None, "{text}");
        assert_eq!(looks_like(text.as_bytes()), looks, "{text}");
    }
}
