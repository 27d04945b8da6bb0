use super::*;
use crate::ipvs::{Content, Form, ParseError, Parsed, parse_services};

const HEADER: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
                      Prot LocalAddress:Port Scheduler Flags\n  \
                      -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n";

fn services(text: &str, form: Form) -> ServiceTable {
    let Parsed { form: found, content, .. } = parse_services(text.as_bytes()).unwrap();
    assert_eq!(found, form);
    match content {
        Content::Services(table) => table,
        Content::Connections(_) => panic!("connections"),
    }
}

fn connections(text: &str) -> ConnectionTable {
    let Parsed { form, content, .. } = parse_services(text.as_bytes()).unwrap();
    assert_eq!(form, Form::Connections);
    match content {
        Content::Connections(table) => table,
        Content::Services(_) => panic!("services"),
    }
}

fn tcp(address: &str) -> ServiceId {
    ServiceId::Address(Protocol::Tcp, address.parse().unwrap())
}

/// kubernetes/kubernetes#55923
#[test]
fn a_persistent_service_of_ipvsadm_ln() {
    let rows = "TCP  10.0.0.1:443 rr persistent 10800\n  -> 10.0.3.15:6443               Masq    1      1          1\n";
    for text in [format!("{HEADER}{rows}"), rows.to_owned()] {
        let table = services(&text, Form::Listing);
        let service = &table.services[&tcp("10.0.0.1:443")];
        assert_eq!(service.scheduler.as_deref(), Some("rr"));
        assert_eq!(service.persistent_s, Some(10800));
        assert_eq!(service.backends.len(), 1);
    }
}

/// kubernetes/kubernetes#75262
#[test]
fn a_listed_service_without_backends_stays() {
    let rows = "TCP  10.1.109.187:443 rr      \nTCP  10.1.109.188:443 rr\n  \
                -> 10.0.3.15:6443               Masq    1      1          1\n";
    let table = services(&format!("{HEADER}{rows}"), Form::Listing);
    assert!(table.services[&tcp("10.1.109.187:443")].backends.is_empty());
    assert_eq!((table.services.len(), table.unreadable.len()), (2, 0));
}

/// The listing of a docker swarm node: marks are decimal here.
#[test]
fn counters_are_no_schedulers() {
    let text = "IP Virtual Server version 1.2.1 (size=4096)\n\
                Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  \
                -> RemoteAddress:Port\n\
                FWM  296                            105116   210232        0 12613920        0\n  \
                -> 172.50.0.21:0                     52558   105116        0  6306960        0\n\
                TCP  10.0.0.1:443                       1K       2M        0        3        4\n";
    let table = services(text, Form::Counters);
    let mark = &table.services[&ServiceId::Mark { mark: 296, ipv6: false }];
    assert_eq!(mark.scheduler, None);
    assert_eq!(mark.backends[0].address, "172.50.0.21:0".parse().unwrap());
    assert_eq!(mark.backends[0].forward, Forward::NotSaid);
    assert_eq!(table.services[&tcp("10.0.0.1:443")].scheduler, None);
    assert!(!parse_services(text.as_bytes()).unwrap().notes.is_empty());
}

/// kubernetes/kubernetes#116453
#[test]
fn a_host_name_is_no_address() {
    let table = connections(
        "IPVS connection entries\npro expire state       source             virtual            destination\n\
         TCP 00:21  SYN_RECV    10.244.1.210:46740 node5.example.net:9115 10.244.1.207:9115\n",
    );
    assert!(table.rows.is_empty());
    assert!(table.unreadable[0].reason.contains("node5.example.net:9115"));
    assert!(table.unreadable[0].reason.contains("-n"));

    let rows = "TCP  node5:https rr\n  -> 10-0-3-15.example.net:6443  Masq    1      1          1\n";
    let table = services(&format!("{HEADER}{rows}"), Form::Listing);
    assert!(table.services.is_empty());
    assert!(table.unreadable.iter().all(|row| row.reason.contains("-n")));
    assert_eq!(table.unreadable.len(), 2);
}

/// kubernetes/kubernetes#85422
#[test]
fn a_connection_of_ipvsadm_lnc() {
    let table = connections(
        "TCP 01:50  SYN_RECV    10.254.0.1:56808   10.254.0.1:443     10.111.32.241:6443\n\
         TCP 02:50  NONE        10.254.0.1:0       10.254.0.1:443     10.111.32.241:6443\n\
         TCP 00:09  CLOSE       [fd00::1]:80       [fd00::2]:443      [fd00::3]:6443\n",
    );
    assert_eq!((table.rows.len(), table.templates, table.unreadable.len()), (2, 1, 0));
    assert_eq!(
        table.rows[0],
        IpvsConnection {
            protocol: Protocol::Tcp,
            client: "10.254.0.1:56808".parse().unwrap(),
            virtual_address: "10.254.0.1:443".parse().unwrap(),
            backend: "10.111.32.241:6443".parse().unwrap(),
            state: "SYN_RECV".to_owned(),
            expires_s: 110,
        }
    );
}

/// The grammar of ipvsadm 1.24 to 1.31.
#[test]
fn the_commands_of_ipvsadm_sn() {
    let table = services(
        "-A -t 10.0.0.5:31055 -s rr -p 10800 -M 255.255.255.0\n\
         -a -t 10.0.0.5:31055 -r 10.244.1.2:80 -m -w 1\n\
         -A -f 1 -6 -s wrr\n-A -f 1 -s wlc -p\n-a -f 1 -6 -r [fd00::1]:0 -g -w 2\n\
         -A -u 10.0.0.5:53 -s rr ops\n-A -u 10.0.0.6:53 -s rr -o\n-A -u 10.0.0.7:53 -s rr --ops\n\
         ipvsadm --add-service --tcp-service=[fd00::5]:80 --scheduler=sh --sched-flags sh-port\n\
         -a -t [fd00::5]:80 -r fd00::6 -i --tun-type gue --tun-port 6080\n",
        Form::Save,
    );
    assert_eq!(table.unreadable, []);
    let service = &table.services[&tcp("10.0.0.5:31055")];
    assert_eq!((service.persistent_s, service.scheduler.as_deref()), (Some(10800), Some("rr")));
    let backend = Backend { address: "10.244.1.2:80".parse().unwrap(), forward: Forward::Masq, weight: 1 };
    assert_eq!(service.backends, [backend]);
    assert!(!service.one_packet);
    for ip in ["10.0.0.5:53", "10.0.0.6:53", "10.0.0.7:53"] {
        let id = ServiceId::Address(Protocol::Udp, ip.parse().unwrap());
        assert!(table.services[&id].one_packet, "{ip}");
    }
    let mark = &table.services[&ServiceId::Mark { mark: 1, ipv6: true }];
    assert_eq!((mark.scheduler.as_deref(), mark.backends[0].weight), (Some("wrr"), 2));
    let mark = &table.services[&ServiceId::Mark { mark: 1, ipv6: false }];
    assert_eq!((mark.persistent_s, mark.backends.len()), (Some(360), 0));
    let service = &table.services[&tcp("[fd00::5]:80")];
    assert_eq!(service.scheduler.as_deref(), Some("sh"));
    assert_eq!(service.backends[0].address, "[fd00::6]:80".parse().unwrap());
    assert_eq!(service.backends[0].forward, Forward::Tunnel);
}

#[test]
fn a_command_that_cannot_be_read_hides_no_other() {
    let table = services(
        "-A -t 10.0.0.5:1 -s rr\n-A -t node5:https -s rr\n-a -t 10.0.0.9:1 -r 10.0.0.1:1 -m\n-C\n-A -s rr\n-A -t\n",
        Form::Save,
    );
    assert_eq!((table.services.len(), table.unreadable.len()), (1, 5));
    assert!(table.unreadable[0].reason.contains("-n"));
}

#[test]
fn a_mark_of_both_families_in_ipvsadm_ln() {
    let table = services(&format!("{HEADER}FWM  1 rr\nFWM  1 IPv6 wrr ops\n"), Form::Listing);
    assert_eq!(table.services[&ServiceId::Mark { mark: 1, ipv6: false }].scheduler.as_deref(), Some("rr"));
    let ipv6 = &table.services[&ServiceId::Mark { mark: 1, ipv6: true }];
    assert_eq!((ipv6.scheduler.as_deref(), ipv6.one_packet), (Some("wrr"), true));
}

#[test]
fn the_form_is_told_by_content() {
    let cases = [
        ("TCP  0A000001:01BB rr \n", Form::Proc),
        ("FWM  00003DA3 rr \n", Form::Proc),
        ("FWM  15779 rr\n", Form::Listing),
        ("TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:8F60 rr \n", Form::Proc),
        ("TCP  [fd00::1]:443 rr\n", Form::Listing),
        ("TCP 0AF4000A 0050 0A000001 8F60 0AF40014 1F90 CLOSE 7\n", Form::ProcConnections),
        ("TCP  10.0.0.1:443   1 2 3 4 5\n", Form::Counters),
        ("# saved\n-A -u 10.0.0.1:53 -s rr\n", Form::Save),
        (HEADER, Form::Listing),
    ];
    for (text, form) in cases {
        assert_eq!(parse_services(text.as_bytes()).map(|parsed| parsed.form), Ok(form), "{text}");
    }
}

#[test]
fn other_content_is_named_and_refused() {
    let cases: [(&[u8], &str); 8] = [
        (b"*nat\n-A KUBE-SERVICES -m comment\n", "iptables-save"),
        (b"-A KUBE-SERVICES -j MARK\n", "iptables-save"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0", "pcapng"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"{\"items\": []}", "JSON"),
        (b"tcp      6 117 SYN_SENT src=10.0.0.1 dst=10.0.0.2\n", "conntrack"),
        (b"State  Recv-Q Send-Q Local\n", "ss"),
        (b"hello\n", "another kind"),
    ];
    for (bytes, name) in cases {
        let error = parse_services(bytes).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("ipvsadm -Ln"), "{error}");
    }
    assert_eq!(parse_services(b" \n"), Err(ParseError::Empty));
}
