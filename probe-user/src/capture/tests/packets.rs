use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::super::*;
use super::make::{CLIENT, POD, ethernet, ipv4, ipv6, syn, tcp, udp};

fn segment(link: LinkType, bytes: &[u8]) -> Segment {
    match decode(link, bytes) {
        Ok(Decoded::Tcp(segment)) => segment,
        other => panic!("{other:?}"),
    }
}

fn expected() -> Segment {
    Segment {
        source: "10.23.77.129:36704".parse().unwrap(),
        destination: "10.23.77.138:80".parse().unwrap(),
        sequence: 4_142_039_474,
        acknowledgement: 0,
        flags: Flags(2),
        window: Some(64_240),
        payload: Some(0),
        ip_id: Some(0x1234),
        timestamp: Some(300),
        depth: 0,
    }
}

/// zeek #2339, dnscap #313, sngrep #402, PcapPlusPlus #992: SLL2 is what `tcpdump -i any` writes now.
#[test]
fn every_link_type_shows_the_same_segment() {
    let ip = syn();
    let with = |header: &[u8]| [header, &ip].concat();
    let sll = [&[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0], &[8, 0][..]].concat();
    let sll2 = [&[8, 0][..], &[0; 18]].concat();
    for (link, bytes) in [
        (LinkType::ETHERNET, ethernet(0x0800, &ip)),
        (LinkType::SLL, with(&sll)),
        (LinkType::SLL2, with(&sll2)),
        (LinkType::RAW, ip.clone()),
        (LinkType(12), ip.clone()),
        (LinkType::IPV4, ip.clone()),
        (LinkType::NULL, with(&[2, 0, 0, 0])),
        (LinkType::LOOP, with(&[0, 0, 0, 2])),
    ] {
        assert_eq!(segment(link, &bytes), expected(), "{link}");
    }
    assert_eq!(decode(LinkType(147), &ip), Err(Undecoded::LinkType));
}

/// sflowtool #30, tenzir PR 650, SoftEther PR 2140, libpcap #156
#[test]
fn vlan_tags_come_off_however_many() {
    let ip = syn();
    let one = [&[0, 5][..], &[8, 0], &ip].concat();
    let two = [&[0, 7][..], &[0x81, 0], &one].concat();
    for (kind, bytes) in [(0x8100, &one), (0x88a8, &two), (0x9100, &two)] {
        assert_eq!(segment(LinkType::ETHERNET, &ethernet(kind, bytes)), expected());
    }
}

#[test]
fn tunnels_are_followed() {
    let (inner, outer) = (syn(), expected());
    let frame = ethernet(0x0800, &inner);
    let in_one = Segment { depth: 1, ..outer };
    let in_frame = Segment { depth: 2, ..outer };
    let v6 = Ipv6Addr::LOCALHOST;
    let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0][..], &frame].concat();
    let geneve = [&[1, 0, 0x65, 0x58, 0, 0, 1, 0][..], &[0; 4], &frame].concat();
    let gre = [&[0x20, 0, 8, 0, 0, 0, 0, 9][..], &inner].concat();
    for (bytes, wanted) in [
        (ipv4(POD, CLIENT, 4, &inner), in_one),
        (ipv6(v6, v6, 4, &inner), in_one),
        (ipv4(POD, CLIENT, 47, &gre), in_one),
        (ipv4(POD, CLIENT, 17, &udp(4789, &vxlan)), in_frame),
        (ipv4(POD, CLIENT, 17, &udp(8472, &vxlan)), in_frame),
        (ipv4(POD, CLIENT, 17, &udp(6081, &geneve)), in_frame),
    ] {
        let seen = segment(LinkType::RAW, &bytes);
        assert_eq!(Segment { depth: wanted.depth, ..seen }, wanted);
        assert!(seen.depth > 0);
    }
    assert_eq!(decode(LinkType::RAW, &ipv4(POD, CLIENT, 17, &udp(53, b"query"))), Ok(Decoded::Other));
}

/// aboutsip/pkts PR 61, tcpreplay #582, tcpdump #136
#[test]
fn a_short_snap_length_is_enough_as_long_as_the_flags_are_there() {
    let whole = ethernet(0x0800, &syn());
    for length in 14 + 20 + 14..=whole.len() {
        let seen = segment(LinkType::ETHERNET, &whole[..length]);
        assert_eq!((seen.sequence, seen.flags), (4_142_039_474, Flags(2)));
        assert_eq!(seen.payload, Some(0), "the IP header says the length, whatever was cut");
    }
    for length in 0..14 + 20 + 14 {
        assert_eq!(decode(LinkType::ETHERNET, &whole[..length]), Err(Undecoded::Cut), "{length}");
    }
}

#[test]
fn padding_is_no_payload_and_offloaded_packets_have_no_length() {
    let mut short = ipv4(CLIENT, POD, 6, &tcp(36704, 80, 1, 2, 4)[..20]);
    short[20 + 12] = 0x50;
    let mut padded = ethernet(0x0800, &short);
    padded.resize(60, 0);
    // The header length must fit the bytes that the IP header counts.
    assert_eq!(segment(LinkType::ETHERNET, &padded).payload, Some(0));
    let mut offloaded = syn();
    offloaded[2..4].fill(0);
    assert_eq!(segment(LinkType::RAW, &offloaded).payload, None);
}

#[test]
fn fragments_are_told_from_cut_packets() {
    let mut first = syn();
    first[6] = 0x20;
    assert!(segment(LinkType::RAW, &first).flags.is_syn());
    let mut later = syn();
    later[7] = 100;
    assert_eq!(decode(LinkType::RAW, &later), Err(Undecoded::Fragment));
}

#[test]
fn ipv6_extension_headers_are_stepped_over() {
    let (client, pod): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let tcp = tcp(36704, 80, 7, 0, 2);
    let hop_by_hop =
        [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[44, 0, 1, 4, 0, 0, 0, 0], &[6, 0, 0, 1, 0, 0, 0, 9], &tcp]
            .concat();
    for bytes in [ipv6(client, pod, 6, &tcp), ipv6(client, pod, 0, &hop_by_hop)] {
        let seen = segment(LinkType::RAW, &bytes);
        assert_eq!(seen.source, "[fd00::1]:36704".parse().unwrap());
        assert_eq!((seen.destination, seen.payload), ("[fd00::2]:80".parse().unwrap(), Some(0)));
    }
    let later = [&[6, 0, 0, 8, 0, 0, 0, 9][..], &tcp].concat();
    assert_eq!(decode(LinkType::RAW, &ipv6(client, pod, 44, &later)), Err(Undecoded::Fragment));
}

#[test]
fn unreachable_names_the_segment_it_is_about() {
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    let syn_ack = ipv4(POD, CLIENT, 6, &tcp(80, 36704, 9, 10, 0x12));
    icmp.extend(&syn_ack[..28]);
    let Ok(Decoded::Unreachable(seen)) = decode(LinkType::RAW, &ipv4(CLIENT, POD, 1, &icmp)) else {
        panic!()
    };
    assert!(seen.is_port());
    assert_eq!((seen.from, seen.sequence), (CLIENT.into(), 9));
    assert_eq!(
        (seen.source, seen.destination),
        ("10.23.77.138:80".parse().unwrap(), "10.23.77.129:36704".parse().unwrap())
    );
}

#[test]
fn flags_are_named() {
    let is = |flags: u8| (Flags(flags).is_syn(), Flags(flags).is_syn_ack(), Flags(flags).is_rst());
    assert_eq!(is(2), (true, false, false));
    // With ECN's two bits, as many systems ask for it.
    assert_eq!(is(0xc2), (true, false, false));
    assert_eq!(is(0x12), (false, true, false));
    assert_eq!(is(0x14), (false, false, true));
    assert_eq!(is(0x10), (false, false, false));
}

proptest! {
    #[test]
    fn nothing_panics(link in prop_oneof![0_u32..300, Just(1), Just(101)], bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(LinkType(link), &bytes);
    }

    #[test]
    fn damaged_packets_do_not_panic(at in 0_usize..120, byte in any::<u8>(), cut in 0_usize..140) {
        let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0][..], &ethernet(0x0800, &syn())].concat();
        let mut bytes = ethernet(0x0800, &ipv4(POD, CLIENT, 17, &udp(4789, &vxlan)));
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        let _ = decode(LinkType::ETHERNET, &bytes);
    }
}
