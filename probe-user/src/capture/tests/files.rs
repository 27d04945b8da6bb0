use proptest::prelude::*;

use super::super::*;
use super::make::{self, Endian};

/// Time, interface, link type, captured bytes and original length of every frame.
type Seen = Vec<(Option<Nanos>, u32, LinkType, Vec<u8>, u32)>;

fn read_all(file: &[u8]) -> (Seen, Account) {
    let mut seen = Vec::new();
    let account = read(file, &mut |frame| {
        seen.push((frame.at, frame.interface, frame.link, frame.bytes.to_vec(), frame.original));
    });
    (seen, account.unwrap())
}

const SECOND: Nanos = 1_000_000_000;
const ORDERS: [Endian; 2] = [Endian(false), Endian(true)];

/// The retransmit gap of 1.0 s stays 1.0 s: libbtbb PR 47, nff-go PR 145, yanet2 PR 1299, scapy PR 412.
#[test]
fn all_four_pcap_magics_give_the_same_times() {
    let syn = make::syn();
    let length = u32::try_from(syn.len()).unwrap();
    for endian in ORDERS {
        for (nanos, unit) in [(false, 1), (true, 1000)] {
            let records: &[(u32, u32, &[u8], u32)] = &[
                (1_663_268_942, 533_940 * unit, &syn, length),
                (1_663_268_943, 533_940 * unit, &syn, length),
            ];
            let (seen, account) = read_all(&make::pcap(endian, nanos, 101, records));
            let times: Vec<_> = seen.iter().map(|frame| frame.0.unwrap()).collect();
            assert_eq!(times, [1_663_268_942_533_940_000, 1_663_268_943_533_940_000]);
            assert_eq!(account.interfaces, [Interface { link: LinkType::RAW, name: None, dropped: None }]);
            assert!(!account.cut && account.notes.is_empty());
        }
    }
}

#[test]
fn what_comes_before_a_cut_is_used() {
    let syn = make::syn();
    let length = u32::try_from(syn.len()).unwrap();
    let record: (u32, u32, &[u8], u32) = (1, 0, &syn, length);
    let file = make::pcap(Endian(false), false, 101, &[record, record]);
    let (seen, account) = read_all(&file[..file.len() - 1]);
    assert_eq!((seen.len(), account.cut), (1, true));
    let second = 24 + 16 + syn.len();
    assert_eq!(account.notes, [format!("the file ends within the record at byte {second}")]);
}

/// tcpreplay #485, libpcap #1710, gopacket PR 939
#[test]
fn more_captured_than_there_was_is_taken_and_flagged() {
    let (seen, account) = read_all(&make::pcap(Endian(false), false, 228, &[(1, 0, &[0; 48], 1)]));
    assert_eq!((seen.len(), account.damaged), (1, 1));
    assert_eq!(seen[0].3.len(), 48);
}

#[test]
fn an_impossible_length_ends_the_reading_with_its_place() {
    let mut file = make::pcap(Endian(false), false, 1, &[(1, 0, &[0; 60], 60)]);
    file.extend([1_u32, 0, 0xffff_fff0, 60].map(u32::to_le_bytes).concat());
    file.extend([0; 1000]);
    let (seen, account) = read_all(&file);
    assert_eq!((seen.len(), account.cut, account.damaged), (1, true, 1));
    assert!(account.notes[0].contains("byte 100"), "{:?}", account.notes);
}

#[test]
fn zeros_after_a_crash_end_the_file() {
    let mut file = make::pcap(Endian(false), false, 1, &[(1, 0, &[1; 60], 60)]);
    file.extend(vec![0; 10_000]);
    let (seen, account) = read_all(&file);
    assert_eq!((seen.len(), account.cut, account.damaged), (1, true, 1));
    assert!(account.notes[0].contains("zeros from byte 100"), "{:?}", account.notes);
}

/// libpcap #1252, NotYuSheng/TracePcap #23: interfaces of several link types in one file.
#[test]
fn every_interface_has_its_own_link_type_name_and_clock() {
    for endian in ORDERS {
        let name_option = make::option(endian, 2, b"veth0");
        let nanos = make::option(endian, 9, &[9]);
        let file = [
            make::section(endian),
            make::interface(endian, 113, 0, &[name_option]),
            make::interface(endian, 1, 0, &[nanos]),
            make::interface(endian, 101, 0, &[]),
            make::packet(endian, 2, 1_500_000, b"raw!"),
            make::packet(endian, 0, 2_000_000, b"sll"),
            make::packet(endian, 1, 3_000_000_001, b"ethernet"),
        ]
        .concat();
        let (seen, account) = read_all(&file);
        let brief: Vec<_> =
            seen.iter().map(|(at, _, link, bytes, _)| (at.unwrap(), *link, &bytes[..])).collect();
        assert_eq!(
            brief,
            [
                (1_500_000_000, LinkType::RAW, &b"raw!"[..]),
                (2_000_000_000, LinkType::SLL, b"sll"),
                (3_000_000_001, LinkType::ETHERNET, b"ethernet"),
            ]
        );
        let names: Vec<_> = account.interfaces.iter().map(|interface| interface.name.as_deref()).collect();
        assert_eq!(names, [Some("veth0"), None, None]);
    }
}

/// libpcap #577, tcpdump #397
#[test]
fn resolutions_of_powers_of_two_and_offsets_hold_in_both_byte_orders() {
    for endian in ORDERS {
        let options =
            [make::option(endian, 9, &[0x8a]), make::option(endian, 14, &endian.u64(1_663_268_942))];
        let picoseconds = make::option(endian, 9, &[12]);
        let file = [
            make::section(endian),
            make::interface(endian, 1, 0, &options),
            make::interface(endian, 1, 0, &[picoseconds]),
            make::packet(endian, 0, 512, b"half"),
            make::packet(endian, 1, 7_000_000_000_000, b"seven"),
        ]
        .concat();
        let times: Vec<_> = read_all(&file).0.iter().map(|frame| frame.0.unwrap()).collect();
        assert_eq!(times, [1_663_268_942 * SECOND + SECOND / 2, 7 * SECOND]);
    }
}

/// timpalpant/go-iex #3: files that were joined; here even of both byte orders.
#[test]
fn sections_follow_one_another_with_interfaces_of_their_own() {
    let part = |endian, link| {
        [
            make::section(endian),
            make::interface(endian, link, 0, &[]),
            make::packet(endian, 0, 1_000_000, b"x"),
        ]
        .concat()
    };
    let (seen, account) = read_all(&[part(Endian(true), 1), part(Endian(false), 276)].concat());
    let links: Vec<_> = seen.iter().map(|frame| (frame.1, frame.2, frame.0)).collect();
    assert_eq!(links, [(0, LinkType::ETHERNET, Some(SECOND)), (1, LinkType::SLL2, Some(SECOND))]);
    assert_eq!(account.interfaces.len(), 2);
}

#[test]
fn simple_and_old_packets_are_read_and_unknown_blocks_stepped_over() {
    let endian = Endian(false);
    let mut simple = endian.u32(100).to_vec();
    simple.extend([7; 32]);
    let mut old = [endian.u16(0), endian.u16(3)].concat();
    old.extend([0, 5_000_000, 3, 60].map(|word| endian.u32(word)).concat());
    old.extend(b"old");
    let mut statistics = [0, 0, 0].map(|word| endian.u32(word)).concat();
    statistics.extend(make::option(endian, 5, &endian.u64(40)));
    statistics.extend(make::option(endian, 7, &endian.u64(2)));
    let file = [
        make::section(endian),
        make::interface(endian, 1, 32, &[]),
        make::block(endian, 0x0bad, b"custom"),
        make::block(endian, 0x7fff_0001, &[1; 40]),
        make::block(endian, 3, &simple),
        make::block(endian, 2, &old),
        make::block(endian, 5, &statistics),
    ]
    .concat();
    let (seen, account) = read_all(&file);
    assert_eq!(seen[0], (None, 0, LinkType::ETHERNET, vec![7; 32], 100));
    assert_eq!(seen[1], (Some(5 * SECOND), 0, LinkType::ETHERNET, b"old".to_vec(), 60));
    assert_eq!((seen.len(), account.damaged, account.interfaces[0].dropped), (2, 0, Some(42)));
}

#[test]
fn a_damaged_block_hides_no_other() {
    let endian = Endian(false);
    let mut wrong_end = make::packet(endian, 0, 1, b"lost");
    *wrong_end.last_mut().unwrap() ^= 1;
    let file = [
        make::section(endian),
        make::interface(endian, 1, 0, &[]),
        wrong_end,
        make::packet(endian, 9, 1, b"of no interface"),
        make::packet(endian, 0, 1_000_000, b"good"),
    ]
    .concat();
    let (seen, account) = read_all(&file);
    assert_eq!((seen.len(), account.damaged, account.cut), (1, 2, false));
    assert_eq!(seen[0].3, b"good");
}

#[test]
fn a_file_of_another_kind_is_refused_with_its_first_bytes() {
    for (bytes, words) in [(&b"PK\x03\x04"[..], "50 4b 03 04"), (b"", "it is empty"), (b"\xd4\xc3", "d4 c3")]
    {
        let error = read(bytes, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn compressed_captures_are_read_as_they_are() {
    let syn = make::syn();
    let file = make::pcap(Endian(false), true, 101, &[(1, 0, &syn, 52)]);
    let zstd = ruzstd::encoding::compress_to_vec(&file[..], ruzstd::encoding::CompressionLevel::Fastest);
    assert_eq!(read_all(&zstd).0, read_all(&file).0);
}

fn pcapng() -> Vec<u8> {
    let endian = Endian(false);
    let packets = (0..5).map(|n| make::packet(endian, 0, n, &make::syn()));
    let mut file = [make::section(endian), make::interface(endian, 101, 0, &[])].concat();
    packets.for_each(|packet| file.extend(packet));
    file
}

proptest! {
    #[test]
    fn a_cut_anywhere_loses_nothing_before_it(cut in 4_usize..600) {
        let file = pcapng();
        let cut = cut.min(file.len());
        let (all, _) = read_all(&file);
        let (seen, account) = read_all(&file[..cut]);
        prop_assert_eq!(&seen[..], &all[..seen.len()]);
        // Five packets of the same length stand at the end.
        let packet = make::packet(Endian(false), 0, 0, &make::syn()).len();
        let missing = (file.len() - cut).div_ceil(packet);
        prop_assert!(seen.len() + missing >= all.len());
        prop_assert_eq!(account.frames, seen.len() as u64);
    }

    #[test]
    fn damage_anywhere_is_survived(at in 0_usize..600, byte in any::<u8>()) {
        let mut file = pcapng();
        let at = at.min(file.len() - 1);
        file[at] = byte;
        let mut count = 0_u64;
        if let Ok(account) = read(&file[..], &mut |_| count += 1) {
            prop_assert_eq!(account.frames, count);
        }
    }
}
