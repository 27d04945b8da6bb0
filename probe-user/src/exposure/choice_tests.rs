use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn range(first: u16, last: u16) -> EphemeralRange {
    EphemeralRange { first, last }
}

/// The kernel's own loops, one draw at a time: every offset that the random number can give, counted.
mod model {
    use super::*;

    /// `None` = EADDRNOTAVAIL.
    pub(super) type Counts = BTreeMap<Option<u16>, f64>;

    pub(super) fn pick(way: Way, range: EphemeralRange, free: &dyn Fn(u16) -> bool) -> Counts {
        let (low, high) = (u32::from(range.first), u32::from(range.last) + 1);
        let mut counts = Counts::new();
        match way {
            Way::Connect => each(
                remaining(low, high),
                |drawn| connect(low, high, remaining(low, high), drawn & !1, free),
                1.0,
                &mut counts,
            ),
            Way::OwnRange => {
                each(high - low, |drawn| scan(low, high, high - low, drawn, 1, free), 1.0, &mut counts);
            }
            Way::BindZero => {
                each(remaining(low, high), |drawn| bind(low, high, drawn, free), 1.0, &mut counts);
            }
            Way::BindZeroReuse if high - low < 4 => return pick(Way::BindZero, range, free),
            Way::BindZeroReuse => {
                let half = low + (((high - low) >> 2) << 1);
                each(remaining(low, half), |drawn| bind(low, half, drawn, free), 1.0, &mut counts);
                if let Some(rest) = counts.remove(&None) {
                    each(remaining(half, high), |drawn| bind(half, high, drawn, free), rest, &mut counts);
                }
            }
        }
        counts
    }

    fn each(draws: u32, pick: impl Fn(u32) -> Option<u16>, mass: f64, counts: &mut Counts) {
        for drawn in 0..draws {
            *counts.entry(pick(drawn)).or_default() += mass / f64::from(draws);
        }
    }

    fn remaining(low: u32, high: u32) -> u32 {
        let remaining = high - low;
        if remaining > 1 { remaining & !1 } else { remaining }
    }

    fn scan(
        low: u32,
        high: u32,
        remaining: u32,
        offset: u32,
        step: u32,
        free: &dyn Fn(u16) -> bool,
    ) -> Option<u16> {
        let mut port = low + offset;
        let mut i = 0;
        while i < remaining {
            if port >= high {
                port -= remaining;
            }
            let candidate = u16::try_from(port).unwrap();
            if free(candidate) {
                return Some(candidate);
            }
            i += step;
            port += step;
        }
        None
    }

    fn connect(
        low: u32,
        high: u32,
        remaining: u32,
        mut offset: u32,
        free: &dyn Fn(u16) -> bool,
    ) -> Option<u16> {
        loop {
            if let Some(port) = scan(low, high, remaining, offset, 2, free) {
                return Some(port);
            }
            offset += 1;
            if offset & 1 == 0 || remaining <= 1 {
                return None;
            }
        }
    }

    fn bind(low: u32, high: u32, drawn: u32, free: &dyn Fn(u16) -> bool) -> Option<u16> {
        let remaining = remaining(low, high);
        let mut offset = drawn | 1;
        loop {
            if let Some(port) = scan(low, high, remaining, offset, 2, free) {
                return Some(port);
            }
            offset = offset.wrapping_sub(1);
            if offset & 1 == 1 {
                return None;
            }
        }
    }
}

#[test]
fn the_seeds_node_has_seven_chances_in_31988() {
    let table = [
        20869, 21980, 23593, 24795, 24855, 28796, 29385, 29515, 31221, 32080, 32443, 35723, 35934, 36321,
        36704, 37629, 38820, 39080,
    ];
    let exposed: PortRanges = table.into_iter().collect();
    let nothing = PortRanges::default();
    let connect = Choice::of(Way::Connect, range(1024, 65000), &nothing);
    assert_eq!(connect.starts(), 31_988);
    assert_eq!(connect.reachable(&exposed).to_string(), "21980,28796,32080,35934,36704,38820,39080");
    assert!((connect.chance(&exposed) - 7.0 / 31_988.0).abs() < 1e-12);
    let bind = Choice::of(Way::BindZero, range(1024, 65000), &nothing);
    assert!((bind.chance(&exposed) - 11.0 / 31_988.0).abs() < 1e-12);
    let own = Choice::of(Way::OwnRange, range(1024, 65000), &nothing);
    assert!((own.chance(&exposed) - 18.0 / 63_977.0).abs() < 1e-12);
    // The lower half ends below 33012: 6 of the odd ones lie in it.
    let reuse = Choice::of(Way::BindZeroReuse, range(1024, 65000), &nothing);
    assert!((reuse.chance(&exposed) - 8.0 / 15_994.0).abs() < 1e-12, "{}", reuse.chance(&exposed) * 15_994.0);
}

#[test]
fn a_port_above_a_gap_is_hit_once_more_for_each_port_of_the_gap() {
    let gap: PortRanges = "40000-40009".parse().unwrap();
    let exposed: PortRanges = "40010,50000,50001".parse().unwrap();
    let choice = Choice::of(Way::Connect, range(32768, 60999), &gap);
    // Five even ports of the gap lead to 40010, and its own starting point; 50000 has only its own.
    assert!((choice.chance(&exposed) - 7.0 / 14_116.0).abs() < 1e-12);
}

#[test]
fn reserving_all_even_ports_moves_connect_to_the_odd_ones() {
    let even: PortRanges = (32768..=60998_u16).step_by(2).collect();
    let every = PortRanges::range(0, u16::MAX);
    let choice = Choice::of(Way::Connect, range(32768, 60999), &even);
    assert!(choice.chance(&PortRanges::range(32769, 32769)) > 0.0);
    assert!((choice.chance(&every) - 1.0).abs() < 1e-9, "a port is left");
    let all = Choice::of(Way::Connect, range(32768, 60999), &every);
    assert!(all.chance(&every) < 1e-9, "none is left");
}

const WAYS: [Way; 4] = [Way::Connect, Way::BindZero, Way::BindZeroReuse, Way::OwnRange];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_chance_is_that_of_the_kernels_loop(
        first in prop_oneof![1_u16..20, 65_480_u16..65_500],
        size in 0_u16..36,
        taken in proptest::collection::vec(any::<bool>(), 36),
        density in 0_usize..3,
    ) {
        let range = range(first, first.saturating_add(size));
        let skip = |port: u16| {
            let at = usize::from(port - first);
            match density { 0 => false, 1 => taken[at % 36], _ => at % 7 != 3 || taken[at % 36] }
        };
        let unusable: PortRanges = range.ports().ports().filter(|port| skip(*port)).collect();
        for way in WAYS {
            let expected = model::pick(way, range, &|port| !skip(port));
            let choice = Choice::of(way, range, &unusable);
            for port in range.ports().ports() {
                let wanted = expected.get(&Some(port)).copied().unwrap_or(0.0);
                let got = choice.chance(&PortRanges::range(port, port));
                prop_assert!((wanted - got).abs() < 1e-9, "{way:?} {range:?} {unusable} {port}: {wanted} {got}");
            }
            let none = expected.get(&None).copied().unwrap_or(0.0);
            let left = choice.chance(&range.ports());
            prop_assert!((1.0 - left - none).abs() < 1e-9, "{way:?} {range:?} {unusable} none: {none}");
        }
    }
}
