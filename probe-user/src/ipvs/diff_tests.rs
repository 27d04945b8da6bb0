use super::*;
use crate::ipvs::text::{Columns, parse_listing};
use proptest::prelude::*;

fn table(text: &str) -> ServiceTable {
    parse_listing(text.as_bytes(), Columns::Scheduler)
}

#[test]
fn added_removed_and_changed() {
    let old = table("TCP  10.0.0.1:1 rr\nTCP  10.0.0.1:2 rr\nTCP  10.0.0.1:3 rr\n");
    let new = table("TCP  10.0.0.1:2 rr\nTCP  10.0.0.1:3 wrr\nTCP  10.0.0.1:4 rr\n");
    let id = |port| ServiceId::Address(Protocol::Tcp, ([10, 0, 0, 1], port).into());
    let expected = TableDiff { added: vec![id(4)], removed: vec![id(1)], changed: vec![id(3)] };
    assert_eq!(diff(&old, &new), expected);
    assert!(diff(&new, &new).is_empty());
}

#[test]
fn the_kernel_holds_tcp_services_only() {
    let table = table(
        "TCP  10.0.0.1:443 rr\nUDP  10.0.0.1:53 rr\nSCTP  10.0.0.1:5 rr\nFWM  7 rr\nTCP  [fd00::1]:0 rr\n",
    );
    let keys: Vec<_> = kernel_keys(&table, 42).map(|key| (key.address, key.netns, key.port)).collect();
    let v4 = probe_ebpf::v4_mapped([10, 0, 0, 1]);
    let v6 = "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    assert_eq!(keys, [(v4, 42, 443), (v6, 42, 0)]);
}

#[test]
fn a_port_is_counted_until_its_last_service_goes() {
    let mut bitmap = PortBitmap::default();
    assert_eq!(bitmap.add(36704), BTreeSet::from([573]));
    assert_eq!(bitmap.words()[573], 1 << (36704 % 64));
    assert!(bitmap.add(36704).is_empty());
    assert!(bitmap.remove(36704).is_empty());
    assert!(bitmap.contains(36704));
    assert_eq!(bitmap.remove(36704), BTreeSet::from([573]));
    assert!(bitmap.remove(36704).is_empty());
    assert_eq!(*bitmap.words(), [0; 1024]);
}

#[test]
fn a_service_for_all_ports_sets_every_bit_while_it_exists() {
    let mut bitmap = PortBitmap::default();
    bitmap.add(443);
    assert_eq!(bitmap.add(0).len(), 1024);
    assert_eq!(*bitmap.words(), [u64::MAX; 1024]);
    assert!(bitmap.add(8080).is_empty());
    assert_eq!(bitmap.remove(0).len(), 1024);
    let set: Vec<_> = (0..=u16::MAX).filter(|port| bitmap.contains(*port)).collect();
    assert_eq!(set, [443, 8080]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_words_are_those_of_the_ports_that_are_left(
        steps in prop::collection::vec((any::<bool>(), 0_u16..130), 0..60),
    ) {
        let (mut bitmap, mut ports) = (PortBitmap::default(), Vec::new());
        for (add, port) in steps {
            let before = *bitmap.words();
            let changed = if add {
                ports.push(port);
                bitmap.add(port)
            } else {
                if let Some(at) = ports.iter().position(|other| *other == port) {
                    ports.swap_remove(at);
                }
                bitmap.remove(port)
            };
            let differing: BTreeSet<u32> =
                (0..PORT_WORDS).filter(|word| before[*word as usize] != bitmap.words()[*word as usize]).collect();
            prop_assert_eq!(changed, differing);
            let all = ports.contains(&0);
            for port in (0..200).chain([u16::MAX]) {
                prop_assert_eq!(bitmap.contains(port), all || ports.contains(&port));
            }
        }
    }
}
