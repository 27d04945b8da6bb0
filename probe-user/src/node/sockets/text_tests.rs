use proptest::prelude::*;

use super::super::SocketUser;
use super::*;

fn socket(state: TcpState, local: &str, remote: &str) -> Socket {
    let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
    Socket { state, local, remote, inode: None, users: Vec::new() }
}

fn user(comm: &str, pid: u32) -> SocketUser {
    SocketUser { comm: comm.to_owned(), pid }
}

/// All rows of a text without anything that could not be read.
fn clean(text: &str) -> Vec<Socket> {
    let parsed = parse_sockets(text.as_bytes());
    assert_eq!(parsed.unreadable, [], "{text}");
    parsed.sockets
}

fn only(text: &str) -> Socket {
    let sockets = clean(text);
    assert_eq!(sockets.len(), 1, "{text}");
    sockets.into_iter().next().unwrap()
}

fn reason(text: &str) -> String {
    let parsed = parse_sockets(text.as_bytes());
    assert_eq!((parsed.sockets.len(), parsed.unreadable.len()), (0, 1), "{parsed:?}");
    parsed.unreadable[0].reason.clone()
}

#[test]
fn counts_and_rows_of_the_incident() {
    let text = "# ss -tan | grep \"TIME-WAIT\"| awk '{print $4}' |awk -F':' '{print $1}' |sort |uniq -c\n\
         161 10.10.85.105 # These are all related to Zabbix\n\
         849 10.23.77.129 # These are all related to kubelet probes\n      69 169.254.20.10\n\
         # ss -tan | grep \"TIME-WAIT\" |grep 169.254.20.10\n\
         TIME-WAIT 0 0 169.254.20.10:50967 169.254.20.10:8080\n\
         TIME-WAIT 0 0 169.254.20.10:56855 169.254.20.10:8080\n";
    let parsed = parse_sockets(text.as_bytes());
    assert_eq!(parsed.form, Some(Form::Counts));
    assert_eq!(parsed.unreadable, []);
    let counts: Vec<u64> = parsed.counts.values().copied().collect();
    assert_eq!(counts, [161, 849, 69]);
    let expected = [
        socket(TcpState::TimeWait, "169.254.20.10:50967", "169.254.20.10:8080"),
        socket(TcpState::TimeWait, "169.254.20.10:56855", "169.254.20.10:8080"),
    ];
    assert_eq!(parsed.sockets, expected);
}

// kubernetes/kubernetes#90258
#[test]
fn two_processes_that_share_a_source_port() {
    let text = "ESTAB 0 0 10.6.185.55:64922 10.6.185.50:6443 users:((\"kubelet\",pid=5621,fd=10))\n\
         ESTAB 0 0 10.6.185.55:64922 192.0.2.50:6443 users:((\"kube-proxy\",pid=24422,fd=7))\n";
    let sockets = clean(text);
    assert_eq!(sockets[0].users, [user("kubelet", 5621)]);
    assert_eq!(sockets[1].users, [user("kube-proxy", 24422)]);
    assert_eq!(sockets[0].local, sockets[1].local);
}

// kubernetes/kubernetes#17641
#[test]
fn netstat_with_programs() {
    let text = "Active Internet connections (servers and established)\n\
         Proto Recv-Q Send-Q Local Address           Foreign Address         State       PID/Program name    \n\
         tcp        0      0 0.0.0.0:22              0.0.0.0:*               LISTEN      1234/sshd: /usr/sbi \n\
         tcp6       0      0 :::10256                :::*                    LISTEN      14125/kube-proxy\n\
         tcp6       0      0 10.0.0.9:10256          10.0.0.7:41522          FIN_WAIT2   14125/kube-proxy\n\
         tcp        0      0 10.0.0.9:31055          10.0.0.8:80             TIME_WAIT   -                   \n\
         udp        0      0 0.0.0.0:68              0.0.0.0:*                           812/dhclient\n\
         Active UNIX domain sockets (servers and established)\n\
         unix  2      [ ]         DGRAM                    15345    1/init               /run/systemd/notify\n";
    let parsed = parse_sockets(text.as_bytes());
    assert_eq!(parsed.unreadable, []);
    assert_eq!((parsed.form, parsed.other_protocols), (Some(Form::Netstat), 2));
    let [sshd, listen, fin, wait] = parsed.sockets.as_slice() else { panic!("{parsed:?}") };
    assert_eq!(sshd.users, [user("sshd: /usr/sbi", 1234)]);
    assert_eq!((listen.state, listen.local), (TcpState::Listen, "[::]:10256".parse().unwrap()));
    assert_eq!((fin.state, &fin.users), (TcpState::FinWait2, &vec![user("kube-proxy", 14125)]));
    assert_eq!(wait, &socket(TcpState::TimeWait, "10.0.0.9:31055", "10.0.0.8:80"));
    let row =
        only("tcp 0 0 10.0.0.1:39942 10.0.0.2:8081 ESTABLISHED 0 26728765 25974/python3 off (0.00/0/0)");
    assert_eq!(row.users, [user("python3", 25974)]);
}

#[test]
fn netstat_cuts_addresses_to_others_that_look_right() {
    // Was [fd00::1111:2222:3333]:12345.
    let row = "tcp6       0      0 fd00::1111:2222:3:12345 :::*                    LISTEN     \n";
    assert!(reason(row).contains("netstat with -W"));
    let row = "tcp6       0      0 fd00:1234:5678:9ab:8080 :::*                    LISTEN     \n";
    assert!(reason(row).contains("netstat with -W"));
    let row = only("tcp6 0 0 fd00::1111:2222:3333:12345 :::* LISTEN");
    assert_eq!(row.local, "[fd00::1111:2222:3333]:12345".parse().unwrap());
}

// istio/istio#15881
#[test]
fn v4_mapped_addresses_without_brackets() {
    let text = "TIME-WAIT 0 0 ::ffff:10.56.5.95:8002 ::ffff:10.56.5.1:33590\nLISTEN 0 128 :::8002 :::*\n\
         ESTAB 0 0 [::ffff:10.56.5.95]:8002 [::ffff:10.56.5.1]:33592\n";
    let sockets = clean(text);
    assert_eq!(sockets[0], socket(TcpState::TimeWait, "10.56.5.95:8002", "10.56.5.1:33590"));
    assert_eq!(sockets[1], socket(TcpState::Listen, "[::]:8002", "[::]:0"));
    assert_eq!(sockets[2], socket(TcpState::Established, "10.56.5.95:8002", "10.56.5.1:33592"));
}

// tohojo/flent#229
#[test]
fn second_lines_belong_to_the_row_above() {
    let text = "State Recv-Q Send-Q Local Address:Port Peer Address:Port\nESTAB 0 0 [2001:db8::1]:22 [2001:db8::2]:55194\n\
         \t cubic wscale:7,7 rto:204 rtt:3.5/1.75 mss:1428 cwnd:10 send 32.6Mbps\n\
         ESTAB      0      0      10.0.0.1:22                 10.0.0.2:51000              \n\
         \x20               users:((\"sshd\",pid=99,fd=3))\n";
    let sockets = clean(text);
    assert_eq!(sockets[0], socket(TcpState::Established, "[2001:db8::1]:22", "[2001:db8::2]:55194"));
    assert_eq!(sockets[1].users, [user("sshd", 99)]);
}

// kellyjonbrazil/jc#561
#[test]
fn netid_column_with_or_without_header() {
    let header = "Netid State      Recv-Q Send-Q Local Address:Port               Peer Address:Port\n";
    let rows = "nl    UNCONN    0      0               10:0                             *        \n\
         u_strESTAB      0      0      /run/dbus 12345              * 12346\n\
         u_dgr UNCONN     0      0      /run/systemd/journal/dev-log 21             * 0\n\
         udp   UNCONN     0      0      127.0.0.53%lo:53                   *:*\n\
         icmp6UNCONN     0      0      *:58                   *:*\n\
         tcp   LISTEN     0      4096   127.0.0.53%lo:53                   *:*    users:((\"systemd-resolve\",pid=1,fd=13),(\"x\",pid=2,fd=3))\n\
         tcp   TIME-WAIT  0      0      [fe80::1%eth0]:41000         [fe80::2]%eth0:80\n";
    for text in [format!("{header}{rows}"), rows.to_owned()] {
        let parsed = parse_sockets(text.as_bytes());
        assert_eq!(parsed.unreadable, []);
        assert_eq!((parsed.form, parsed.other_protocols), (Some(Form::Ss), 5));
        let [resolved, wait] = parsed.sockets.as_slice() else { panic!("{parsed:?}") };
        assert_eq!((resolved.local, resolved.remote.port()), ("127.0.0.53:53".parse().unwrap(), 0));
        assert_eq!(resolved.users, [user("systemd-resolve", 1), user("x", 2)]);
        assert_eq!(wait, &socket(TcpState::TimeWait, "[fe80::1]:41000", "[fe80::2]:80"));
    }
}

// mackerelio/mackerel-agent-plugins#543
#[test]
fn cut_columns_are_read_from_the_state_on() {
    let expected = socket(TcpState::SynSent, "10.23.77.129:31055", "10.23.77.138:80");
    for row in [
        "SYN-SENT 10.23.77.129:31055 10.23.77.138:80",
        "SYN-SENT 0 1 10.23.77.129:31055 10.23.77.138:80",
        "tcp SYN-SENT 0 1 10.23.77.129:31055 10.23.77.138:80",
        "  SYN-SENT\t0\t1\t10.23.77.129:31055\t10.23.77.138:80\r",
        "tcpSYN-SENT 0 1 10.23.77.129:31055 10.23.77.138:80",
    ] {
        assert_eq!(only(row), expected, "{row}");
    }
    assert!(reason("TIME-WAIT 0 0 10.0.0.1:80").contains("no remote address"));
}

#[test]
fn a_filter_by_state_hides_the_state() {
    let header = "Recv-Q Send-Q Local Address:Port Peer Address:Port\n";
    let row = "0      0      192.168.100.123:39940 192.168.100.123:8081";
    assert!(reason(&format!("{header}{row}\n")).contains("without `state …`"));
    assert!(reason("tcp 0 0 10.0.0.1:1 10.0.0.2:2").contains("no TCP state"));
    let timer = format!("{header}{row} timer:(timewait,54sec,0)\n");
    assert_eq!(only(&timer), socket(TcpState::TimeWait, "192.168.100.123:39940", "192.168.100.123:8081"));
}

#[test]
fn names_are_counted_with_the_advice_to_list_numbers() {
    let text = "ESTAB 0 0 10.0.0.1:ssh 10.0.0.2:51000\nESTAB 0 0 node5.example.net:9115 10.0.0.2:51000\n\
         LISTEN 0 128 *:http-alt *:*\nESTAB 0 0 10.0.0.1:22 10.0.0.2:51001\nESTAB 0 0 10.0.0.1:99999 10.0.0.2:1\n";
    let parsed = parse_sockets(text.as_bytes());
    assert_eq!((parsed.unresolved, parsed.sockets.len(), parsed.unreadable.len()), (3, 1, 4));
    assert!(parsed.unreadable[0].reason.contains("ss -tan"), "{:?}", parsed.unreadable[0]);
    assert!(parsed.unreadable[3].reason.contains("not an address"), "{:?}", parsed.unreadable[3]);
    assert_eq!(parsed.unreadable[3].line, 5);
}

// rancher/rancher#12510
#[test]
fn lsof_rows() {
    let row = only("kube-apis 5621 root 10u IPv4 123 0t0 TCP 192.0.2.1:10254->192.0.2.2:2379 (ESTABLISHED)");
    let mut expected = socket(TcpState::Established, "192.0.2.1:10254", "192.0.2.2:2379");
    expected.users = vec![user("kube-apis", 5621)];
    assert_eq!(row, expected);
    let row = only("kube-apis … TCP 192.0.2.1:10254->192.0.2.2:2379 (ESTABLISHED)");
    assert_eq!((row.local, row.users), (expected.local, vec![]));
    let text = "COMMAND  PID USER   FD   TYPE DEVICE SIZE/OFF NODE NAME\nnginx 7 root 6u IPv6 4 0t0 TCP *:10254 (LISTEN)\n\
         dhclient 8 root 6u IPv4 4 0t0 UDP *:68\nsshd 9 root 3u IPv4 5 0t0 TCP node:ssh->node:51000 (ESTABLISHED)\n";
    let parsed = parse_sockets(text.as_bytes());
    assert_eq!((parsed.form, parsed.unresolved, parsed.other_protocols), (Some(Form::Lsof), 1, 1));
    assert_eq!(parsed.sockets[0].local, "[::]:10254".parse().unwrap());
}

// kubernetes/kubernetes#85418
#[test]
fn listener_on_a_port_of_loopback() {
    let row =
        only("LISTEN 0 4096 127.0.0.1:37751 0.0.0.0:* users:((\"dockerd\",pid=1200,fd=12)) ino:54321 sk:1");
    assert_eq!((row.state, row.inode), (TcpState::Listen, Some(54321)));
    assert_eq!((row.local, row.remote), ("127.0.0.1:37751".parse().unwrap(), "0.0.0.0:0".parse().unwrap()));
}

#[test]
fn users_of_every_spelling() {
    let users = |text: &str| fields::users(text);
    assert_eq!(users("users:((\"sshd\",1234,3))"), [user("sshd", 1234)]);
    assert_eq!(users("users:((\"a (b)\",pid=1,fd=3),(\"a (b)\",pid=1,fd=4))"), [user("a (b)", 1)]);
    assert_eq!(users("users:((\"(sd-pam)\",pid=x"), []);
    assert_eq!(users("users:((\"cut off"), []);
}

#[test]
fn what_lists_sockets_is_told_from_what_does_not() {
    assert_eq!(Form::of(b"junk\n\nTIME-WAIT 0 0 10.0.0.1:1 10.0.0.2:2\n"), Some(Form::Ss));
    assert_eq!(Form::of(b"tcp 0 0 10.0.0.1:1 10.0.0.2:2 TIME_WAIT -\n"), Some(Form::Netstat));
    assert_eq!(Form::of(b"     849 10.23.77.129\n"), Some(Form::Counts));
    for other in [
        "tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 [ASSURED]",
        "TCP  10.0.0.1:443 rr\n  -> 10.0.3.15:6443 Masq 1 1 1",
        "TCP 00:50  SYN_RECV    10.254.0.1:56808   10.254.0.1:443     10.111.32.241:6443",
        "kube-system traefik LoadBalancer 10.23.216.1 10.10.250.174 80:37629/TCP,443:31221/TCP 211d",
        "23:59:40.058507 IP 169.254.20.10.47507 > 169.254.20.10.8080: Flags [S], seq 2226425339",
        "I0915 19:09:04.534948  607529 prober.go:121] \"Probe failed\" probeType=\"Readiness\"",
        "TCP 0AF4000A 0050 0A000001 8F60 0AF40014 1F90 CLOSE             7",
    ] {
        assert_eq!(Form::of(other.as_bytes()), None, "{other}");
    }
    let parsed = parse_sockets(b"a\n\tb\nESTAB 0 0 10.0.0.1:1 10.0.0.2:2\n");
    assert_eq!((parsed.sockets.len(), parsed.unreadable.len()), (1, 2));
}

proptest! {
    #[test]
    fn rows_read_back(
        state in (1_u8..=11).prop_map(|number| TcpState::from_kernel(number).unwrap()),
        v4 in any::<[u8; 4]>(), v6 in any::<[u16; 8]>(), six: bool, port: u16, remote_port in 1_u16..,
        pid: u32, netid: bool,
    ) {
        let ip = if six { IpAddr::from(v6) } else { IpAddr::from(v4) };
        let (local, remote) = (SocketAddr::new(ip, port), SocketAddr::new(ip, remote_port));
        let netid = if netid { "tcp   " } else { "" };
        let row = format!("{netid}{state} 0 0 {local} {remote} users:((\"x\",pid={pid},fd=1))");
        let read = only(&row);
        prop_assert_eq!(read.local, crate::ipvs::table::canonical(local));
        prop_assert_eq!((read.state, read.remote.port()), (state, remote_port));
        prop_assert_eq!(read.users, vec![user("x", pid)]);
    }
}
