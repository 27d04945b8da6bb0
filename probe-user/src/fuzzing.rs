//! What the fuzz targets (`fuzz/`) and the mutation tests below feed with bytes from anywhere. A panic is a finding.

mod inputs;

use std::path::Path;

use bytes::Bytes;

pub use inputs::{access_log, capture, conntrack, inputs, packet_listing};

use crate::ipvs::{Content, MAX_UNREADABLE, netlink, parse_services, proc, rows, text};
use crate::kernel::btf::Btf;
use crate::kernel::event::decode;
use crate::kubelet_log::{FailureClass, LineParser, Scanner, Times, YearRule, recognise};
use crate::kubernetes::{self, ServiceNames, names};
use crate::node::cgroup::container_of;
use crate::node::cmdline::masked_cmdline_from_bytes;
use crate::node::configured::{Configured, disagreements, parse_sysctl_file};
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::diag;
use crate::node::sockets::text::{Form as SocketForm, parse_sockets};
use crate::node::sysctl::NetSysctls;

/// Any bytes as a file with an IPVS table. No row may vanish: what was not read is listed.
pub fn ipvs_text(bytes: &[u8]) {
    let Ok(parsed) = parse_services(bytes) else { return };
    let rows = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
    let (read, unreadable, is_header): (_, _, fn(&[u8]) -> bool) = match &parsed.content {
        Content::Services(table) => {
            let backends: usize = table.services.values().map(|service| service.backends.len()).sum();
            (table.services.len() + backends, &table.unreadable, rows::is_table_header)
        }
        Content::Connections(table) => {
            let is_header =
                |line: &[u8]| proc::is_connections_header(line) || text::is_connections_header(line);
            (table.rows.len() + table.templates, &table.unreadable, is_header)
        }
    };
    if unreadable.len() <= MAX_UNREADABLE {
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let skipped = lines.filter(|line| is_header(line)).count();
        let accounted = read + unreadable.len() + skipped;
        assert!(accounted >= rows, "{} of {rows} rows vanished", rows - accounted);
    }
}

/// Any bytes as a datagram of the kernel.
pub fn ipvs_netlink(bytes: &[u8]) {
    if let Ok((messages, readable)) = netlink::parse_datagram(bytes, 1) {
        assert!(readable <= messages);
    }
}

/// Any bytes as a file of sysctl.d.
pub fn sysctl_file(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let parsed = parse_sysctl_file(bytes, Path::new("/etc/sysctl.conf"));
    assert!(parsed.settings.iter().all(|setting| (1..=lines).contains(&setting.line)));
    let named = parsed.settings.iter().filter(|setting| !setting.by_pattern).count();
    assert!(named + parsed.notes.len() <= lines);
    let configured = Configured { settings: parsed.settings, ..Configured::default() };
    disagreements(&NetSysctls::default(), &configured);
}

/// Any bytes as the output of ss, netstat or lsof.
pub fn socket_text(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
    let parsed = parse_sockets(bytes);
    let counted =
        parsed.sockets.len() + parsed.counts.len() + parsed.other_protocols + parsed.unreadable.len();
    assert!(counted <= lines, "{counted} rows in {lines} lines");
    assert!(parsed.unresolved <= parsed.unreadable.len());
    if SocketForm::of(bytes).is_some() {
        assert!(parsed.form.is_some(), "recognised, but not read");
    }
}

/// Any bytes as an answer of inet_diag.
pub fn socket_diag(bytes: &[u8]) {
    if let Ok((rows, unreadable)) = diag::parse_datagram(bytes) {
        // Each is a message with a header of 16 bytes; one more entry may stand for the rest of the datagram.
        assert!(rows + unreadable <= bytes.len() / 16 + 1);
    }
}

/// Any bytes as the kernel's type information.
pub fn kernel_btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(&Bytes::copy_from_slice(bytes)) else { return };
    btf.offset_of("sock_common", "skc_net.net");
    btf.function_parameters("tcp_connect");
    btf.pointer_parameters("btf_trace_tcp_send_reset");
    btf.enumerators("sk_rst_reason");
}

/// Any bytes as a record of the ring buffer: only one length can be an event.
pub fn kernel_event(bytes: &[u8]) {
    assert!(decode(bytes).is_err() || bytes.len() == probe_ebpf::EVENT_SIZE);
}

/// Any bytes as `/proc/PID/cgroup`, as a command line and as the value of `ip_local_reserved_ports`.
pub fn node_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(id) = container_of(&text).container_id {
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "no container id: {id}");
    }
    let shown = masked_cmdline_from_bytes(bytes, true).unwrap_or_default();
    assert!(!shown.chars().any(char::is_control), "control characters in {shown:?}");
    if let Ok(ports) = text.parse::<PortRanges>() {
        assert_eq!(ports.to_string().parse(), Ok(ports), "what is printed reads back");
    }
}

/// Any bytes as a list of Services or Pods. What was read has a name, and a Service is found at its own address.
pub fn kubernetes_lists(bytes: &[u8]) {
    kubernetes::recognise(bytes);
    kubernetes::kube_proxy_log::parse(bytes);
    if let Ok(list) = kubernetes::parse_services(bytes) {
        let names = ServiceNames::new(&list.items);
        for service in &list.items {
            let addresses =
                service.cluster_ips.iter().flat_map(|ip| service.ports.iter().map(move |port| (ip, port)));
            for (ip, port) in addresses {
                let found = names.name_of(port.protocol, (*ip, port.port).into(), None);
                assert!(found.iter().any(|name| name.name == service.name), "{service:?} has no name");
            }
        }
        names::duplicates(&list.items);
        if list.form == kubernetes::list::Form::Text {
            let rows =
                bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            assert!(list.items.len() + list.unreadable.len() <= rows, "more rows than there are");
        }
    }
    if let Ok(list) = kubernetes::parse_pods(bytes) {
        for pod in &list.items {
            assert!(!pod.namespace.is_empty() && !pod.name.is_empty(), "a pod without a name");
            let mut ids = pod.containers.iter().filter_map(|container| container.id.as_deref());
            assert!(ids.all(|id| id.len() == 64), "no container id");
        }
    }
}

/// Any bytes as a log of the kubelet. Where the blocks end that it is read in decides nothing.
pub fn kubelet_log(bytes: &[u8]) {
    let scan = |size: usize| {
        let times = Times { zone: None, year: YearRule::From(2022) };
        let mut scanner = Scanner::new(LineParser::new("fuzz".into(), times));
        let mut found = Vec::new();
        bytes.chunks(size).for_each(|block| scanner.feed(block, &mut found));
        scanner.finish(&mut found);
        found
    };
    let found = scan(usize::MAX);
    assert_eq!(found, scan(7));
    for failure in found {
        assert!(failure.text.len() <= 1024 && !failure.text.contains('\n'), "{failure:?}");
        assert!(failure.class != FailureClass::Exec || failure.target.is_none(), "{failure:?}");
    }
    recognise(bytes);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXTS: [&str; 5] = [
        "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
         TCP  0A000001:8F60 rr  persistent 2700000 FFFFFFFF\n  -> 0AF40014:1F90      Masq    1      0          1\n\
         TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:8F60 rr \nFWM  00003DA3 rr ops \nFWM  00003DA3 rr \n  \
         -> 64630534:01BB      Tunnel  1      0          0\n",
        "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
         TCP  10.0.0.1:443 rr persistent 10800\n  -> 10.0.3.15:6443  Masq    1      1          1\n\
         FWM  1 IPv6 rr\n  -> [fd00::1]:0  Route    1      1          1\n",
        "-A -t 10.0.0.5:31055 -s rr -p 10800 -M 255.255.255.0\n-a -t 10.0.0.5:31055 -r 10.244.1.2:80 -m -w 1\n\
         -A -f 1 -6 -s wrr\n# comment\n-A -u [fd00::1]:53 -s rr ops\n",
        "IPVS connection entries\npro expire state       source             virtual            destination\n\
         TCP 00:50  SYN_RECV    10.254.0.1:56808   10.254.0.1:443     10.111.32.241:6443\n",
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n\
         TCP 0AF4000A 0050 0A000001 8F60 0AF40014 1F90 CLOSE             7\n",
    ];

    const SOCKETS: [&str; 4] = [
        "Netid State Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n\
         tcp TIME-WAIT 0 0 [::ffff:10.0.0.1]:31055 [::ffff:10.0.0.2]:80\n\
         tcp ESTAB 0 0 127.0.0.53%lo:53 *:* users:((\"kubelet\",pid=5621,fd=10)) ino:7\n\t cubic rto:204\n",
        "Active Internet connections (servers and established)\n\
         tcp6 0 0 :::10256 :::* LISTEN 14125/kube-proxy off (0.00/0/0)\nudp 0 0 0.0.0.0:68 0.0.0.0:* 8/x\n",
        "COMMAND PID USER\nkube-apis 5621 root 10u IPv4 1 0t0 TCP 192.0.2.1:10254->192.0.2.2:2379 (ESTABLISHED)\n",
        "  849 10.23.77.129 # comment\n   69 169.254.20.10\n",
    ];

    const SYSCTLS: &str = "# comment\nnet.ipv4.ip_local_port_range = 1024 65000\n-net/ipv4/vs/*mode=1\n-net.ipv4.*\n\
         net.ipv4.ip_local_reserved_ports=30000-32767,50000\nnet.ipv4.ip_local_port_range=1 # x\n";

    /// One failed probe in each wrapping.
    const LOG: &str = concat!(
        "I0717 20:31:39.569363   23774 prober.go:106] Readiness probe for \"web-1_default(92d60c48-6b22):web\" failed (failure): ",
        "Get http://10.11.75.4:8080/health?a=b: dial tcp 10.11.75.4:8080: getsockopt: connection refused\n",
        "2019-03-08T11:31:46.679082406Z stderr P I0308 11:31:46.678784 1 prober.go:107] \"Probe failed\" podUID=3d-a output=<\n",
        "2019-03-08T11:31:46.679082406Z stderr F \n",
        "2019-03-08T06:31:46.679082406-05:00 stderr F \tGet \"http://[fd00::1]:80/\": read tcp [fd00::2]:1->[fd00::1]:80: EOF\n",
        "2019-03-08T11:31:46.679082406Z stderr F  > pod=\"ns/p\"\n",
        "{\"log\":\"I1201 01:10:55.515000 1 prober.go:116] \\\"Probe failed\\\" probeType=\\\"Liveness\\\" output=\\\"\\\"\\n\",\"time\":",
        "\"2022-12-01T01:10:55.515174992Z\"}\n",
        "{\"MESSAGE\":[73,48,57,49,53],\"__REALTIME_TIMESTAMP\":\"1663268944534948\"}\n",
        "Sep 15 19:09:04 node-a kubelet[1]: {\"ts\":1663268944534.948,\"caller\":\"prober/prober.go:121\",\"msg\":\"Probe errored\",",
        "\"pod\":{\"name\":\"p\",\"namespace\":\"ns\"},\"err\":\"rpc error\"}\n",
    );

    /// A GET_SERVICE answer (mark 7, scheduler rr) and the end of the dump, for sequence number 1.
    fn datagram() -> Vec<u8> {
        let word = |out: &mut Vec<u8>, number: u16| out.extend(number.to_ne_bytes());
        let mut service = Vec::new();
        for (length, kind, value) in
            [(6_u16, 1_u16, [2, 0, 0, 0]), (8, 5, [7, 0, 0, 0]), (7, 6, *b"rr\0\0"), (8, 8, [0; 4])]
        {
            word(&mut service, length);
            word(&mut service, kind);
            service.extend(value);
        }
        let mut out = Vec::new();
        let message = |out: &mut Vec<u8>, kind: u16, body: &[u8]| {
            out.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
            word(out, kind);
            word(out, 2);
            out.extend(1_u32.to_ne_bytes());
            out.extend(0_u32.to_ne_bytes());
            out.extend(body);
        };
        let mut body = vec![1, 1, 0, 0];
        word(&mut body, u16::try_from(4 + service.len()).unwrap());
        word(&mut body, 1 | 0x8000);
        body.extend(&service);
        message(&mut out, 33, &body);
        message(&mut out, 3, &[0; 4]);
        out
    }

    const LISTS: [&str; 5] = [
        include_str!("kubernetes/testdata/pod.json"),
        include_str!("kubernetes/testdata/pod.yaml"),
        include_str!("kubernetes/testdata/services_without_header.txt"),
        "NAMESPACE NAME       TYPE      CLUSTER-IP EXTERNAL-IP PORT(S)       AGE\n\
         default   kubernetes NodePort  10.0.0.1   <none>      443:30443/TCP 5d\n",
        "{\"kind\":\"ServiceList\",\"items\":[{\"metadata\":{\"namespace\":\"d\",\"name\":\"a\"},\"spec\":{\"clusterIP\":\
         \"10.0.0.1\",\"healthCheckNodePort\":31000,\"ports\":[{\"port\":80,\"nodePort\":30080}]}}]}\n",
    ];

    #[test]
    fn the_seeds_are_valid() {
        for text in LISTS {
            assert!(kubernetes::recognise(text.as_bytes()).is_some(), "{text}");
            kubernetes_lists(text.as_bytes());
        }
        for text in TEXTS {
            assert!(parse_services(text.as_bytes()).is_ok(), "{text}");
            ipvs_text(text.as_bytes());
        }
        assert_eq!(netlink::parse_datagram(&datagram(), 1).unwrap(), (1, 1));
    }

    /// `bytes` with some of them changed, removed, doubled or cut off.
    pub(crate) fn mutate(mut bytes: Vec<u8>, steps: &[(usize, u8, u8)]) -> Vec<u8> {
        for (at, how, value) in steps {
            if bytes.is_empty() {
                break;
            }
            let at = at % bytes.len();
            match how % 5 {
                0 => bytes[at] = *value,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *value),
                3 => bytes.truncate(at),
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes
    }

    pub(crate) fn steps() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
        prop::collection::vec(any::<(usize, u8, u8)>(), 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            ipvs_text(&bytes);
            ipvs_netlink(&bytes);
            socket_diag(&bytes);
            socket_text(&bytes);
            sysctl_file(&bytes);
            kernel_btf(&bytes);
            kernel_event(&bytes);
            node_files(&bytes);
            kubernetes_lists(&bytes);
            kubelet_log(&bytes);
        }

        #[test]
        fn mutated_lists(seed in 0..LISTS.len(), steps in steps()) {
            kubernetes_lists(&mutate(LISTS[seed].as_bytes().to_vec(), &steps));
        }

        #[test]
        fn a_bad_item_hides_no_others(bad in "\\PC{0,40}", at in 0..4_usize) {
            let item = |name: &str| format!(
                r#"{{"metadata":{{"namespace":"d","name":"{name}"}},"spec":{{"containers":[{{"name":"c"}}]}}}}"#
            );
            let mut items: Vec<_> = ["a", "b", "c"].map(item).into();
            items.insert(at, serde_json::json!({"metadata": {"name": bad}, "spec": bad}).to_string());
            let text = format!(r#"{{"kind":"PodList","items":[{}]}}"#, items.join(",\n"));
            let list = kubernetes::parse_pods(text.as_bytes()).unwrap();
            assert_eq!((list.items.len(), list.unreadable.len()), (3, 1));
            assert_eq!(list.unreadable[0].line, at + 1);
        }

        #[test]
        fn a_bad_row_hides_no_others(bad in "[ -~]{0,40}", at in 0..4_usize) {
            let row = |name: &str| format!("d {name} ClusterIP 10.0.0.1 <none> 80/TCP 5d");
            let mut rows: Vec<_> = ["a", "b", "c"].map(row).into();
            rows.insert(at, format!("Row: {bad}"));
            let list = kubernetes::parse_services(rows.join("\n").as_bytes()).unwrap();
            assert_eq!((list.items.len(), list.unreadable.len()), (3, 1));
            assert_eq!(list.unreadable[0].line, at + 1);
        }

        #[test]
        fn mutated_tables(seed in 0..TEXTS.len(), steps in steps()) {
            ipvs_text(&mutate(TEXTS[seed].as_bytes().to_vec(), &steps));
        }

        #[test]
        fn mutated_sockets(seed in 0..SOCKETS.len(), steps in steps()) {
            socket_text(&mutate(SOCKETS[seed].as_bytes().to_vec(), &steps));
        }

        #[test]
        fn mutated_sysctl_files(steps in steps()) {
            sysctl_file(&mutate(SYSCTLS.as_bytes().to_vec(), &steps));
        }

        #[test]
        fn mutated_logs(steps in steps()) {
            kubelet_log(&mutate(LOG.as_bytes().to_vec(), &steps));
        }

        #[test]
        fn mutated_datagrams(steps in steps()) {
            ipvs_netlink(&mutate(datagram(), &steps));
        }
    }
}
