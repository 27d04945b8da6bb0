//! Listings as people paste them.

use super::*;
use crate::capture::packet::Flags;

fn read_all(text: &str, form: ListingForm) -> (Vec<Listed>, Account) {
    let mut packets = Vec::new();
    let account = read(text.as_bytes(), form, &mut |listed| packets.push(listed));
    (packets, account)
}

/// `local > remote flags sequence acknowledgement`, as short as a test can be.
fn short(listed: &Listed) -> String {
    let mark = if listed.absolute { "" } else { "?" };
    match listed.packet {
        ListedPacket::Tcp(Segment { source, destination, flags, sequence, acknowledgement, .. }) => {
            format!("{source} > {destination} {:#x} {sequence} {acknowledgement}{mark}", flags.0)
        }
        ListedPacket::Unreachable(message) => {
            let Unreachable { from, source, destination, sequence, .. } = message;
            format!("{from} unreachable: {source} > {destination} {sequence}{mark}")
        }
    }
}

fn tcpdump(text: &str) -> Vec<String> {
    let (packets, account) = read_all(text, ListingForm::Tcpdump);
    assert_eq!(account.unreadable, [], "{text}");
    packets.iter().map(short).collect()
}

fn wireshark(text: &str) -> Vec<String> {
    let (packets, account) = read_all(text, ListingForm::Wireshark);
    assert_eq!(account.unreadable, [], "{text}");
    packets.iter().map(short).collect()
}

const SYN: &str = "10.23.77.129:36704 > 10.23.77.138:80 0x2 4142039474 0";
const SYN_ACK: &str = "10.23.77.138:80 > 10.23.77.129:36704 0x12 1523494022 4142039475";
const RESET: &str = "10.23.77.129:36704 > 10.23.77.138:80 0x4 4142039475 0";

/// midbai.com, "many pod probes are failing after upgrading Kubernetes"
#[test]
fn the_incidents_listing_is_read_as_it_was_published() {
    let text = include_str!("../../../tests/seed/capture-listing.txt");
    let (packets, account) = read_all(text, ListingForm::Wireshark);
    assert_eq!((account.packets, account.other, account.lines), (6, 0, 36));
    assert_eq!(account.unreadable, []);
    let seen: Vec<String> = packets.iter().map(short).collect();
    let second = "10.23.77.138:80 > 10.23.77.129:36704 0x12 1539599868 4142039475";
    assert_eq!(seen, [SYN, SYN_ACK, RESET, SYN, second, RESET]);
    assert_eq!(packets[0].time, ListedTime::Local(1_663_268_942_533_940_000));
    assert_eq!(packets[5].time, ListedTime::Local(1_663_268_943_564_939_000));
    assert_eq!((packets[4].line, packets[4].number), (26, Some(653)));
    let ListedPacket::Tcp(reset) = packets[5].packet else { panic!() };
    assert!(reset.flags.is_rst());
    assert_eq!((reset.window, reset.payload), (Some(0), Some(0)));
}

/// The same report's listing of node-local-dns: relative numbers, payload of -A between the packets.
#[test]
fn relative_numbers_of_tcpdump_become_those_of_the_wire() {
    let text = include_str!("../../../tests/seed/tcpdump-lo.txt");
    let (packets, account) = read_all(text, ListingForm::Tcpdump);
    assert_eq!((account.packets, account.other), (20, 0));
    assert_eq!(account.unreadable, []);
    assert!(packets.iter().all(|packet| packet.absolute));
    let seen: Vec<String> = packets.iter().take(4).map(short).collect();
    assert_eq!(
        seen,
        [
            "169.254.20.10:47507 > 169.254.20.10:8080 0x2 2226425339 0",
            "169.254.20.10:8080 > 169.254.20.10:47507 0x12 2917381382 2226425340",
            "169.254.20.10:47507 > 169.254.20.10:8080 0x10 2226425340 2917381383",
            "169.254.20.10:47507 > 169.254.20.10:8080 0x18 2226425340 2917381383",
        ]
    );
    assert_eq!(packets[0].time, ListedTime::TimeOfDay(86_380_058_507_000));
}

#[test]
fn every_way_to_print_a_stamp() {
    let packet = "IP 10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 4142039474, win 64240, length 0";
    for (stamp, time) in [
        ("19:09:02.533940 ", ListedTime::TimeOfDay(68_942_533_940_000)),
        ("1663268942.533940 ", ListedTime::Full(1_663_268_942_533_940_000)),
        ("2022-09-15 19:09:02.533940 ", ListedTime::Local(1_663_268_942_533_940_000)),
        (" 00:00:00.000000 ", ListedTime::Relative(0)),
        ("    1  1663268942.533940 ", ListedTime::Full(1_663_268_942_533_940_000)),
        ("", ListedTime::Unknown),
    ] {
        let text = format!("{stamp}{packet}\r\n");
        let (packets, account) = read_all(&text, ListingForm::Tcpdump);
        assert_eq!(account.unreadable, []);
        assert_eq!(packets.iter().map(short).collect::<Vec<_>>(), [SYN], "{text}");
        assert_eq!(packets[0].time, time, "{text}");
        assert!(tcpdump::is_packet(text.trim_end()), "{text}");
    }
}

#[test]
fn differences_between_packets_and_times_since_the_first_are_told_apart() {
    let times = |stamps: &[&str]| {
        let line = |stamp: &&str| {
            format!(" 00:00:0{stamp} IP 10.0.0.1.1 > 10.0.0.2.80: Flags [S], seq 7, win 1, length 0\n")
        };
        let text: String = stamps.iter().map(line).collect();
        let (packets, account) = read_all(&text, ListingForm::Tcpdump);
        let time = |packet: &Listed| match packet.time {
            ListedTime::Relative(at) => at / 1000,
            other => panic!("{other:?}"),
        };
        (packets.iter().map(time).collect::<Vec<_>>(), account.notes.len())
    };
    let since_last = times(&["0.000000", "0.000022", "0.000241", "1.030509", "0.000025"]);
    assert_eq!(since_last, (vec![0, 22, 263, 1_030_772, 1_030_797], 0));
    let since_first = times(&["0.000000", "0.000022", "0.000263", "1.030772", "1.030797"]);
    assert_eq!(since_first, (vec![0, 22, 263, 1_030_772, 1_030_797], 1));
}

#[test]
fn verbose_link_level_and_interface_columns() {
    let v = "19:09:02.533940 IP (tos 0x0, ttl 64, id 54321, offset 0, flags [DF], proto TCP (6), length 60)\n    \
             10.23.77.129.36704 > 10.23.77.138.80: Flags [S], cksum 0xaf31 (incorrect -> 0x2c5d), seq 4142039474, win 64240, \
             options [mss 1460,sackOK,TS val 77 ecr 0,nop,wscale 7], length 0\n";
    assert_eq!(tcpdump(v), [SYN]);
    let (packets, _) = read_all(v, ListingForm::Tcpdump);
    let ListedPacket::Tcp(segment) = packets[0].packet else { panic!() };
    assert_eq!((segment.ip_id, segment.timestamp, segment.window), (Some(54321), Some(77), Some(64240)));

    let e = "19:09:02.533940 26:ed:79:5c:ea:b5 > 7e:35:4e:01:11:05, ethertype IPv4 (0x0800), length 66: \
             10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 4142039474, win 64240, length 0\n";
    assert_eq!(tcpdump(e), [SYN]);
    let vlan = "19:09:02.533940 26:ed:79:5c:ea:b5 > 7e:35:4e:01:11:05, ethertype 802.1Q (0x8100), length 70: vlan 5, p 0, \
                ethertype IPv4 (0x0800), 10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 4142039474, win 64240, length 0\n";
    assert_eq!(tcpdump(vlan), [SYN]);
    let ev = "19:09:02.533940 26:ed:79:5c:ea:b5 > 7e:35:4e:01:11:05, ethertype IPv4 (0x0800), length 66: (tos 0x0, ttl 64, \
              id 7, offset 0, flags [DF], proto TCP (6), length 52)\n    10.23.77.129.36704 > 10.23.77.138.80: Flags [S], \
              cksum 0x1 (correct), seq 4142039474, win 64240, length 0\n";
    assert_eq!(tcpdump(ev), [SYN]);

    let any = "19:09:02.533940 eth0  In  IP 10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 4142039474, win 64240, length 0\n\
               19:09:02.533962 cali12 Out IP 10.23.77.138.80 > 10.23.77.129.36704: Flags [S.], seq 1523494022, ack 4142039475, win 64240, length 0\n";
    assert_eq!(tcpdump(any), [SYN, SYN_ACK]);
    let (packets, _) = read_all(any, ListingForm::Tcpdump);
    assert_eq!(packets[1].interface.as_deref(), Some("cali12"));
    let without_stamps = any.replace("19:09:02.533940 ", "").replace("19:09:02.533962 ", "");
    assert_eq!(tcpdump(&without_stamps), [SYN, SYN_ACK]);

    let v6 = "19:09:02.5 IP6 (flowlabel 0x9, hlim 64, next-header TCP (6) payload length: 40) fd00::1.36704 > fd00::2.80: Flags [S], \
              cksum 0x1 (correct), seq 5, win 64800, options [mss 1440], length 0\n19:09:02.6 IP6 fd00::2.80 > fd00::1.36704: Flags [R.], \
              seq 0, ack 6, win 0, length 0\n";
    assert_eq!(tcpdump(v6)[0], "[fd00::1]:36704 > [fd00::2]:80 0x2 5 0");
}

#[test]
fn resets_are_those_of_the_wire_in_either_style() {
    let head = "19:09:02.533940 IP 10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 4142039474, win 64240, length 0\n\
                19:09:02.533962 IP 10.23.77.138.80 > 10.23.77.129.36704: Flags [S.], seq 1523494022, ack 4142039475, win 64240, length 0\n";
    let reset = |text: &str| {
        let line =
            format!("19:09:02.534203 IP 10.23.77.129.36704 > 10.23.77.138.80: {text}, win 0, length 0\n");
        tcpdump(&(head.to_owned() + &line)).pop().unwrap()
    };
    // Without ACK tcpdump prints the number as it is.
    assert_eq!(reset("Flags [R], seq 4142039475"), RESET);
    let with_ack = "10.23.77.129:36704 > 10.23.77.138:80 0x14 4142039475 1523494023";
    assert_eq!(reset("Flags [R.], seq 1, ack 1"), with_ack);
    assert_eq!(reset("Flags [R.], seq 4142039475, ack 1523494023"), with_ack, "-S");
    assert_eq!(reset("Flags [.], ack 1"), "10.23.77.129:36704 > 10.23.77.138:80 0x10 4142039475 1523494023");
    // The answer of a closed port is the first packet with an acknowledgement, and its numbers are as they are.
    let closed = "1.000001 IP 10.0.0.1.5 > 10.0.0.2.80: Flags [S], seq 4142039474, win 1, length 0\n\
                  1.000002 IP 10.0.0.2.80 > 10.0.0.1.5: Flags [R.], seq 0, ack 4142039475, win 0, length 0\n\
                  2.000001 IP 10.0.0.1.5 > 10.0.0.2.80: Flags [S], seq 4142039474, win 1, length 0\n\
                  2.000002 IP 10.0.0.2.80 > 10.0.0.1.5: Flags [R.], seq 0, ack 1, win 0, length 0\n";
    let seen = tcpdump(closed);
    assert_eq!(seen[1], "10.0.0.2:80 > 10.0.0.1:5 0x14 0 4142039475");
    assert_eq!(seen[3], seen[1]);
    // A conversation whose beginning is not there.
    let middle = "1.000001 IP 10.0.0.1.5 > 10.0.0.2.80: Flags [R.], seq 1, ack 1, win 0, length 0\n";
    assert_eq!(tcpdump(middle), ["10.0.0.1:5 > 10.0.0.2:80 0x14 1 1?"]);
}

#[test]
fn icmp_says_which_port_cannot_be_reached() {
    let short = "19:09:02.6 IP 10.23.77.129 > 10.23.77.138: ICMP 10.23.77.129 tcp port 36705 unreachable, length 60\n";
    assert_eq!(tcpdump(short), ["10.23.77.129 unreachable: 10.23.77.138:0 > 10.23.77.129:36705 0?"]);
    let verbose = "19:09:02.6 IP (tos 0xc0, ttl 64, id 1, offset 0, flags [none], proto ICMP (1), length 80)\n    \
                   10.23.77.129 > 10.23.77.138: ICMP 10.23.77.129 tcp port 36705 unreachable, length 60\n\
                   \tIP (tos 0x0, ttl 63, id 0, offset 0, flags [DF], proto TCP (6), length 52)\n    \
                   10.23.77.138.80 > 10.23.77.129.36705: Flags [S.], cksum 0x1 (correct), seq 9, ack 4142039475, win 1, length 0\n\
                   19:09:02.7 IP 10.0.0.1.5 > 10.0.0.2.80: Flags [S], seq 4, win 1, length 0\n";
    assert_eq!(
        tcpdump(verbose),
        [
            "10.23.77.129 unreachable: 10.23.77.138:80 > 10.23.77.129:36705 9",
            "10.0.0.1:5 > 10.0.0.2:80 0x2 4 0"
        ]
    );
    let snapped = "19:09:02.6 IP (tos 0xc0, ttl 64, id 1, offset 0, flags [none], proto ICMP (1), length 56)\n    \
                   10.23.77.129 > 10.23.77.138: ICMP 10.23.77.129 tcp port 36705 unreachable, length 36\n\
                   \tIP (tos 0x0, ttl 63, id 0, offset 0, flags [DF], proto TCP (6), length 40, bad cksum 0 (->8b96)!)\n    \
                   10.23.77.138.80 > 10.23.77.129.36705:  [|tcp]\n";
    assert_eq!(tcpdump(snapped), ["10.23.77.129 unreachable: 10.23.77.138:80 > 10.23.77.129:36705 0?"]);
    let v6 = "1.5 IP6 fd00::1 > fd00::2: ICMP6, destination unreachable, unreachable port, fd00::1 tcp port 36705, length 88\n";
    assert_eq!(tcpdump(v6), ["fd00::1 unreachable: [fd00::2]:0 > [fd00::1]:36705 0?"]);
}

#[test]
fn tunnels_and_the_old_form() {
    let vxlan = "19:09:02.6 IP 172.16.0.1.45678 > 172.16.0.2.8472: OTV, flags [I] (0x08), overlay 0, instance 1\n\
                 IP 10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 4142039474, win 64240, length 0\n";
    let (packets, account) = read_all(vxlan, ListingForm::Tcpdump);
    assert_eq!((packets.iter().map(short).collect::<Vec<_>>(), account.other), (vec![SYN.to_owned()], 1));
    assert_eq!(packets[0].time, ListedTime::TimeOfDay(68_942_600_000_000));
    let ipip = "1.5 IP 172.16.0.1 > 172.16.0.2: IP 10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 4142039474, win 64240, length 0\n";
    assert_eq!(tcpdump(ipip), [SYN]);
    let old = "19:09:02.533940 IP 10.23.77.129.36704 > 10.23.77.138.80: S 4142039474:4142039474(0) win 64240 <mss 1460>\n\
               19:09:02.533962 IP 10.23.77.138.80 > 10.23.77.129.36704: S 1523494022:1523494022(0) ack 4142039475 win 64240 <mss 1460>\n\
               19:09:02.534203 IP 10.23.77.129.36704 > 10.23.77.138.80: R 4142039475:4142039475(0) win 0\n";
    assert_eq!(tcpdump(old), [SYN, SYN_ACK, RESET]);
}

#[test]
fn names_and_cut_lines_are_refused_and_hide_no_other_packet() {
    let text = "19:09:02.5 IP node-a.36704 > nginx.http: Flags [S], seq 4142039474, win 64240, length 0\n\
                19:09:02.5 IP 10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 41420\n\
                19:09:02.533940 IP 10.23.77.129.36704 > 10.23.77.138.80: Flags [S], seq 4142039474, win 64240, length 0\n\
                19:09:02.6 ARP, Request who-has 10.0.0.1 tell 10.0.0.2, length 28\n\
                19:09:02.7 IP 10.0.0.1.53 > 10.0.0.2.53: 1+ A? x. (20)\n";
    let (packets, account) = read_all(text, ListingForm::Tcpdump);
    assert_eq!(packets.iter().map(short).collect::<Vec<_>>(), [SYN]);
    assert_eq!((account.unresolved, account.other, account.unreadable.len()), (1, 2, 2));
    assert!(account.unreadable[0].reason.contains("-nn"));
    assert_eq!(account.unreadable[1].line, 2);
    assert!(account.notes[0].contains("-nn"));
}

#[test]
fn every_form_of_wiresharks_summary() {
    for line in [
        "  649 0.000000000 10.23.77.129 → 10.23.77.138 TCP 74 36704 → 80 [SYN] Seq=4142039474 Win=64240 Len=0 MSS=1460 TSval=7 TSecr=0",
        "649 0.000000 10.23.77.129 -> 10.23.77.138 TCP 74 36704 > 80 [SYN] Seq=4142039474 Win=64240 Len=0",
        "649\t0.000000\t10.23.77.129\t10.23.77.138\tTCP\t74\t36704→80 [SYN] Seq=4142039474 Win=64240 Len=0",
        "649    19:09:02.533940    10.23.77.129    10.23.77.138    TCP    36704 → http(80) [SYN] Seq=4142039474 Win=64240 Len=0",
        "\"649\",\"0.000000\",\"10.23.77.129\",\"10.23.77.138\",\"TCP\",\"74\",\"36704  >  80 [SYN] Seq=4142039474 Win=64240 Len=0\"",
        "649 1663268942.533940 10.23.77.129 10.23.77.138 TCP 74 [TCP Spurious Retransmission] 36704 → 80 [SYN] Seq=4142039474 Len=0",
    ] {
        assert_eq!(wireshark(line), [SYN], "{line}");
        assert!(wireshark_row::is_row(line), "{line}");
    }
    let relative = "1 0.0 10.0.0.1 10.0.0.2 TCP 66 5 → 80 [SYN] Seq=0 Win=1 Len=0\n\
                    2 0.1 10.0.0.2 10.0.0.1 TCP 66 80 → 5 [SYN, ACK] Seq=0 Ack=1 Win=1 Len=0\n\
                    3 0.2 10.0.0.1 10.0.0.2 HTTP 66 GET / HTTP/1.1\n";
    let (packets, account) = read_all(relative, ListingForm::Wireshark);
    assert_eq!(account.other, 1);
    assert_eq!(short(&packets[1]), "10.0.0.2:80 > 10.0.0.1:5 0x12 0 1?");
}

#[test]
fn details_tell_the_numbers_of_the_wire_the_zone_and_the_packet_inside_icmp() {
    let text = "No.     Time           Source                Destination           Protocol Length Info\n      \
        1 0.000000       10.0.0.1              10.0.0.2              TCP      66     5 → 80 [SYN] Seq=0 Win=64240 Len=0\n\n\
        Frame 1: 66 bytes on wire (528 bits), 66 bytes captured (528 bits) on interface eth0, id 0\n    \
        Interface id: 0 (eth0)\n        Interface name: eth0\n    \
        Epoch Time: 1663268942.533940000 seconds\n\
        Internet Protocol Version 4, Src: 10.0.0.1, Dst: 10.0.0.2\n    Identification: 0xd431 (54321)\n\
        Transmission Control Protocol, Src Port: 5, Dst Port: 80, Seq: 0, Len: 0\n    \
        Sequence Number: 0    (relative sequence number)\n    Sequence Number (raw): 4142039474\n    Flags: 0x002 (SYN)\n\
        Frame 2: 94 bytes on wire (752 bits), 94 bytes captured (752 bits)\n\
        Internet Protocol Version 4, Src: 10.0.0.1, Dst: 10.0.0.2\n\
        Internet Control Message Protocol\n    Type: 3 (Destination unreachable)\n    Code: 3 (Port unreachable)\n    \
        Internet Protocol Version 4, Src: 10.0.0.2, Dst: 10.0.0.1\n    \
        Transmission Control Protocol, Src Port: 80, Dst Port: 36705, Seq: 12345\n        Sequence Number (raw): 99\n";
    let (packets, _) = read_all(text, ListingForm::Wireshark);
    let seen: Vec<String> = packets.iter().map(short).collect();
    assert_eq!(
        seen,
        [
            "10.0.0.1:5 > 10.0.0.2:80 0x2 4142039474 0",
            "10.0.0.1 unreachable: 10.0.0.2:80 > 10.0.0.1:36705 99"
        ]
    );
    assert_eq!(packets[0].time, ListedTime::Full(1_663_268_942_533_940_000));
    assert_eq!(packets[0].interface.as_deref(), Some("eth0"));
    let ListedPacket::Tcp(segment) = packets[0].packet else { panic!() };
    assert_eq!((segment.ip_id, segment.flags), (Some(54321), Flags(2)));
    // Only the details, without summary lines.
    let (_, details) = text.split_once("\n\n").unwrap();
    assert_eq!(wireshark(details), seen);
    assert!(wireshark::is_frame(details.lines().next().unwrap()));
}

/// Wireshark prints windows of later packets as the receiver counts them, not as the header has them.
#[test]
fn a_scaled_window_is_not_taken_for_the_headers() {
    let window = |flags: &str, win: &str| {
        let line = format!("1 0.0 10.0.0.1 10.0.0.2 TCP 66 5 → 80 [{flags}] Seq=7 Ack=1 Win={win} Len=0");
        let (packets, _) = read_all(&line, ListingForm::Wireshark);
        let ListedPacket::Tcp(segment) = packets[0].packet else { panic!() };
        segment.window
    };
    assert_eq!(window("SYN, ACK", "64240"), Some(64_240));
    assert_eq!(window("RST", "0"), Some(0));
    assert_eq!(window("ACK", "64256"), None);
}

#[test]
fn lines_of_other_files_are_no_packets() {
    for line in [
        "I0915 19:09:04.534948 607529 prober.go:121] \"Probe failed\" output=\"Get \\\"http://10.23.77.138:80/\\\"\"",
        "10.23.77.129 - - [15/Sep/2022:11:08:42 +0000] \"GET / HTTP/1.1\" 200 615 \"-\" \"kube-probe/1.23\" \"-\"",
        "TCP 169.254.20.10:20869 rr",
        "849 10.23.77.129 # These are all related to kubelet probes",
        "tcp 6 120 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=5 dport=80 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=80 dport=5",
        "2022-09-15T19:09:02.533940Z stderr F hello > world: Flags",
        "",
    ] {
        assert_eq!(ListingForm::of_line(line), None, "{line}");
    }
}
