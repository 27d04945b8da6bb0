use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::capture::{Decoded, Unreachable, decode};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 23, 77, 129);
const POD: Ipv4Addr = Ipv4Addr::new(10, 23, 77, 138);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x23, 0x77, 0, 0, 0, 0x129);
const POD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x23, 0x77, 0, 0, 0, 0x138);
const PAYLOAD: &[u8] = b"GET /secret HTTP/1.1";

fn addresses() -> Addresses {
    Addresses::new(&[7; 32])
}

fn checksum(parts: &[&[u8]]) -> u16 {
    !fold(parts.iter().map(|part| sum(part)).sum())
}

fn set(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// A segment with MSS, an option of MPTCP with an address in it, and payload; its checksum is right.
fn tcp(source: &[u8], destination: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [36704_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat();
    bytes.extend(4_142_039_474_u32.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x80, 2, 0xfa, 0xf0, 0, 0, 0, 0]);
    bytes.extend([2, 4, 5, 0xb4, 30, 8, 0x30, 1]);
    bytes.extend(CLIENT.octets());
    bytes.extend(payload);
    let length = u16::try_from(bytes.len()).unwrap();
    let sum = checksum(&[source, destination, &[0, 6], &length.to_be_bytes(), &bytes]);
    set(&mut bytes, 16, sum);
    bytes
}

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x45, 0, length[0], length[1], 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
    bytes.extend([CLIENT.octets(), POD.octets()].concat());
    let sum = checksum(&[&bytes]);
    set(&mut bytes, 10, sum);
    [bytes, payload.to_vec()].concat()
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 9, 9, 9, length[0], length[1], next, 64];
    bytes.extend([CLIENT6.octets(), POD6.octets()].concat());
    bytes.extend(payload);
    bytes
}

fn tcp4(payload: &[u8]) -> Vec<u8> {
    v4(6, &tcp(&CLIENT.octets(), &POD.octets(), payload))
}

fn tcp6(payload: &[u8]) -> Vec<u8> {
    v6(6, &tcp(&CLIENT6.octets(), &POD6.octets(), payload))
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x7e, 0x35, 0x4e, 1, 0x11, 5, 0x26, 0xed, 0x79, 0x5c, 0xea, 0xb5];
    bytes.extend(kind.to_be_bytes());
    [bytes, payload.to_vec()].concat()
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let bytes = [40_000_u16, port, length, 0x1234].map(u16::to_be_bytes).concat();
    [bytes, payload.to_vec()].concat()
}

fn vxlan() -> Vec<u8> {
    let inner = [vec![8, 0, 0, 0, 0, 0, 1, 0], ethernet(IPV4, &tcp4(PAYLOAD))].concat();
    ethernet(IPV4, &v4(17, &udp(8472, &inner)))
}

/// The frame made safe.
fn safe(frame: &[u8], link: LinkType) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let kept = rewrite(&mut bytes, link, &mut addresses()).expect("it is understood");
    bytes.truncate(kept);
    bytes
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn expected(address: IpAddr, port: u16) -> SocketAddr {
    addresses().socket(SocketAddr::new(address, port))
}

#[test]
fn addresses_change_in_every_layer_ports_stay_and_payload_goes() {
    let tag = [0, 7, 8, 0];
    let vlan = ethernet(0x8100, &[&tag[..], &tcp4(PAYLOAD)].concat());
    let gre = ethernet(IPV4, &v4(47, &[&[0x20, 0, 8, 0, 0, 0, 0, 9][..], &tcp4(PAYLOAD)].concat()));
    let geneve = [vec![1, 0, 0x65, 0x58, 0, 0, 1, 0, 1, 2, 3, 4], ethernet(IPV4, &tcp4(PAYLOAD))].concat();
    let sll =
        [vec![0, 0, 0, 1, 0, 6, 0x26, 0xed, 0x79, 0x5c, 0xea, 0xb5, 7, 7, 8, 0], tcp4(PAYLOAD)].concat();
    let sll2 =
        [vec![8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 0x26, 0xed, 0x79, 0x5c, 0xea, 0xb5, 7, 7], tcp4(PAYLOAD)]
            .concat();
    let frames = [
        (ethernet(IPV4, &tcp4(PAYLOAD)), LinkType::ETHERNET),
        (vlan, LinkType::ETHERNET),
        (vxlan(), LinkType::ETHERNET),
        (gre, LinkType::ETHERNET),
        (ethernet(IPV4, &v4(17, &udp(6081, &geneve))), LinkType::ETHERNET),
        (ethernet(IPV4, &v4(4, &tcp4(PAYLOAD))), LinkType::ETHERNET),
        (sll, LinkType::SLL),
        (sll2, LinkType::SLL2),
        (tcp4(PAYLOAD), LinkType::RAW),
        ([vec![2, 0, 0, 0], tcp4(PAYLOAD)].concat(), LinkType::NULL),
    ];
    for (frame, link) in frames {
        let new = safe(&frame, link);
        for secret in [
            &CLIENT.octets()[..],
            &POD.octets(),
            PAYLOAD,
            &[0xed, 0x79, 0x5c],
            &[0x35, 0x4e, 1],
            &[1, 2, 3, 4],
        ] {
            assert!(!contains(&new, secret), "{link}: {secret:x?} in {new:x?}");
        }
        let Ok(Decoded::Tcp(segment)) = decode(link, &new) else { panic!("{link}") };
        assert_eq!(segment.source, expected(CLIENT.into(), 36704));
        assert_eq!(segment.destination, expected(POD.into(), 80));
        assert_eq!(segment.sequence, 4_142_039_474);
    }
    let Ok(Decoded::Tcp(segment)) = decode(LinkType::RAW, &safe(&tcp6(PAYLOAD), LinkType::RAW)) else {
        panic!()
    };
    assert_eq!(segment.source, expected(CLIENT6.into(), 36704));
}

#[test]
fn right_checksums_stay_right_and_wrong_ones_wrong() {
    let new = safe(&tcp4(&[]), LinkType::RAW);
    assert_eq!(checksum(&[&new[..20]]), 0, "IPv4");
    let length = u16::try_from(new.len() - 20).unwrap().to_be_bytes();
    assert_eq!(checksum(&[&new[12..20], &[0, 6], &length, &new[20..]]), 0, "TCP over IPv4");
    let new = safe(&tcp6(&[]), LinkType::RAW);
    assert_eq!(checksum(&[&new[8..40], &[0, 6], &length, &new[40..]]), 0, "TCP over IPv6");
    let mut wrong = tcp4(&[]);
    wrong[36] ^= 1;
    let new = safe(&wrong, LinkType::RAW);
    assert_ne!(checksum(&[&new[12..20], &[0, 6], &length, &new[20..]]), 0);
}

fn unreachable() -> Vec<u8> {
    let mut icmp = [vec![3, 3, 0, 0, 0, 0, 0, 0], tcp4(&[])].concat();
    let sum = checksum(&[&icmp]);
    set(&mut icmp, 2, sum);
    v4(1, &icmp)
}

#[test]
fn what_icmp_quotes_is_made_safe_too() {
    let new = safe(&unreachable(), LinkType::RAW);
    assert!(!contains(&new, &CLIENT.octets()));
    assert_eq!(checksum(&[&new[20..]]), 0, "ICMP");
    let Ok(Decoded::Unreachable(found)) = decode(LinkType::RAW, &new) else { panic!() };
    let Unreachable { source, destination, sequence, .. } = found;
    assert_eq!((source, destination), (expected(CLIENT.into(), 36704), expected(POD.into(), 80)));
    assert_eq!(sequence, 4_142_039_474);
    // No more than the least that must be quoted.
    let short = safe(&unreachable()[..20 + 8 + 20 + 8], LinkType::RAW);
    assert!(matches!(decode(LinkType::RAW, &short), Ok(Decoded::Unreachable(_))));
}

#[test]
fn what_is_not_understood_to_its_end_is_left_out() {
    let mut fragment = tcp4(PAYLOAD);
    fragment[7] = 9;
    let arp = ethernet(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]);
    let dns = ethernet(IPV4, &v4(17, &udp(53, b"acme")));
    let routed = v6(43, &[&[6, 2, 0, 0, 0, 0, 0, 0][..], &CLIENT6.octets(), &tcp(&[], &[], &[])].concat());
    for (frame, link) in [
        (fragment, LinkType::RAW),
        (arp, LinkType::ETHERNET),
        (dns, LinkType::ETHERNET),
        (routed, LinkType::RAW),
        (tcp4(&[])[..30].to_vec(), LinkType::RAW),
        (tcp4(&[]), LinkType(147)),
        (Vec::new(), LinkType::ETHERNET),
    ] {
        assert_eq!(rewrite(&mut frame.clone(), link, &mut addresses()), None, "{link}: {frame:x?}");
    }
}

#[test]
fn options_that_can_hold_addresses_are_blanked() {
    let mut routed = tcp4(&[]);
    // Record route with one address.
    routed.splice(20..20, [7, 7, 8, 10, 23, 77, 129, 0]);
    (routed[0], routed[3]) = (0x47, routed[3] + 8);
    let new = safe(&routed, LinkType::RAW);
    assert!(!contains(&new, &CLIENT.octets()));
    assert_eq!(new[20..28], [NO_OP; 8]);
}

proptest! {
    #[test]
    fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), link in prop::sample::select(vec![0_u32, 1, 101, 108, 113, 228, 229, 276, 7])) {
        let length = bytes.len();
        if let Some(kept) = rewrite(&mut bytes, LinkType(link), &mut addresses()) {
            prop_assert!(kept <= length);
        }
    }

    #[test]
    fn damaged_frames(at in 0_usize..140, byte: u8, cut in 0_usize..160) {
        let mut bytes = vxlan();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        let before = decode(LinkType::ETHERNET, &bytes);
        let mut new = bytes.clone();
        if let Some(kept) = rewrite(&mut new, LinkType::ETHERNET, &mut addresses()) {
            prop_assert!(kept <= bytes.len());
            new.truncate(kept);
            // What is kept says the same, but for the addresses.
            if let (Ok(Decoded::Tcp(old)), Ok(Decoded::Tcp(new))) = (before, decode(LinkType::ETHERNET, &new)) {
                prop_assert_eq!((old.sequence, old.flags, old.source.port()), (new.sequence, new.flags, new.source.port()));
                let mut addresses = addresses();
                prop_assert_eq!(addresses.socket(old.source), new.source);
            }
        }
    }
}
