//! Addresses that keep their relations: two that share n leading bits share exactly n leading bits afterwards.
//!
//! The construction of Crypto-PAn (Xu, Fan, Ammar, Moon: "Prefix-preserving IP address anonymization", ICNP 2002) with
//! HMAC-SHA256: whether a bit is turned over depends on the key and on the bits before it. Bits on the way to a range
//! with a meaning of its own are never turned, so that a private address stays private and a public one public.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ring::hmac;

/// What stays of the addresses of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The range; its addresses change places within it.
    Prefix,
    /// Every address: it names nobody.
    All,
}

/// Ranges of IPv4 with a meaning of their own (RFC 6890): prefix, length, what stays.
const V4: [(Ipv4Addr, u32, Keep); 13] = [
    (Ipv4Addr::UNSPECIFIED, 8, Keep::All),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Keep::Prefix),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Keep::Prefix),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Keep::All),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Keep::All),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Keep::Prefix),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Keep::All),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Keep::Prefix),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Keep::Prefix),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Keep::All),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Keep::All),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Keep::All),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Keep::All),
];

/// The same for IPv6 (RFC 6890, RFC 4291). Link-local and solicited-node addresses have parts of others in them.
const V6: [(Ipv6Addr, u32, Keep); 13] = [
    (Ipv6Addr::UNSPECIFIED, 128, Keep::All),
    (Ipv6Addr::LOCALHOST, 128, Keep::All),
    (MAPPED, 96, Keep::Prefix),
    (NAT64, 96, Keep::Prefix),
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, Keep::Prefix),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Keep::All),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 8, Keep::Prefix),
    (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8, Keep::Prefix),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Keep::Prefix),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64, Keep::Prefix),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Keep::Prefix),
    (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 112, Keep::All),
    (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0), 104, Keep::Prefix),
];

const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
const NAT64: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// Addresses that are remembered; computing one again gives the same.
const MAX_REMEMBERED: usize = 100_000;

/// Replaces addresses, always the same way for one key.
pub(super) struct Addresses {
    key: hmac::Key,
    known: HashMap<IpAddr, IpAddr>,
}

impl Addresses {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), known: HashMap::new() }
    }

    pub(super) fn ip(&mut self, address: IpAddr) -> IpAddr {
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        let new = match address {
            IpAddr::V4(v4) => self.v4(v4).into(),
            IpAddr::V6(v6) => self.v6(v6).into(),
        };
        if self.known.len() < MAX_REMEMBERED {
            self.known.insert(address, new);
        }
        new
    }

    pub(super) fn socket(&mut self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ip(address.ip()), address.port())
    }

    fn v4(&self, address: Ipv4Addr) -> Ipv4Addr {
        let ranges =
            V4.iter().map(|(prefix, length, keep)| (u128::from(prefix.to_bits()) << 96, *length, *keep));
        let bits = self.turn(4, 32, u128::from(address.to_bits()) << 96, &ranges);
        Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap_or(0))
    }

    fn v6(&mut self, address: Ipv6Addr) -> Ipv6Addr {
        for prefix in [MAPPED, NAT64] {
            // Translated addresses follow those that they stand for.
            if address.to_bits() >> 32 == prefix.to_bits() >> 32 {
                let [.., a, b, c, d] = address.octets();
                let IpAddr::V4(inner) = self.ip(Ipv4Addr::new(a, b, c, d).into()) else { break };
                return Ipv6Addr::from_bits(prefix.to_bits() | u128::from(inner.to_bits()));
            }
        }
        let ranges = V6.iter().map(|(prefix, length, keep)| (prefix.to_bits(), *length, *keep));
        Ipv6Addr::from_bits(self.turn(6, 128, address.to_bits(), &ranges))
    }

    /// Turns over bits of an address that stands at the high end of `bits`.
    fn turn(
        &self,
        family: u8,
        length: u32,
        bits: u128,
        ranges: &(impl Iterator<Item = (u128, u32, Keep)> + Clone),
    ) -> u128 {
        let mut new = bits;
        for place in 0..length {
            let before = bits & mask(place);
            let kept = ranges.clone().any(|(prefix, length, keep)| {
                let on_the_way = place < length && before == prefix & mask(place);
                let inside = keep == Keep::All && place >= length && before & mask(length) == prefix;
                on_the_way || inside
            });
            if !kept && self.bit(family, place, before) {
                new ^= 1 << (127 - place);
            }
        }
        new
    }

    fn bit(&self, family: u8, place: u32, before: u128) -> bool {
        let mut message = vec![family];
        message.extend(place.to_be_bytes());
        message.extend(before.to_be_bytes());
        hmac::sign(&self.key, &message).as_ref().first().is_some_and(|byte| byte & 1 == 1)
    }

    /// A hardware address: locally administered, so that it is nobody's. Broadcast and multicast ones stay.
    pub(super) fn mac(&self, mac: [u8; 6]) -> [u8; 6] {
        let [first, ..] = mac;
        if first & 1 == 1 || mac == [0; 6] {
            return mac;
        }
        let mut message = vec![48];
        message.extend(mac);
        let tag = hmac::sign(&self.key, &message);
        let mut new = [2; 6];
        for (byte, random) in new.iter_mut().skip(1).zip(tag.as_ref()) {
            *byte = *random;
        }
        new
    }
}

/// The first `length` of 128 bits.
const fn mask(length: u32) -> u128 {
    match u128::MAX.checked_shl(128 - length) {
        Some(mask) => mask,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(key: u8) -> Addresses {
        Addresses::new(&[key; 32])
    }

    fn v4(text: &str) -> Ipv4Addr {
        let IpAddr::V4(v4) = addresses(7).ip(text.parse().unwrap()) else { panic!() };
        v4
    }

    #[test]
    fn addresses_that_name_nobody_stay_and_others_keep_their_class() {
        for same in ["0.0.0.0", "127.0.0.1", "127.8.9.10", "169.254.20.10", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(v4(same).to_string(), same);
        }
        assert_eq!(v4("10.23.77.129").octets()[0], 10);
        assert_ne!(v4("10.23.77.129").to_string(), "10.23.77.129");
        assert_eq!(v4("192.168.1.1").octets()[..2], [192, 168]);
        let private = v4("172.31.0.1").octets();
        assert_eq!((private[0], private[1] & 0xf0), (172, 16));
        let shared = v4("100.127.0.1").octets();
        assert_eq!((shared[0], shared[1] & 0xc0), (100, 64));
        let v6 = |text: &str| addresses(7).ip(text.parse().unwrap()).to_string();
        assert_eq!((v6("::"), v6("::1")), ("::".to_owned(), "::1".to_owned()));
        assert!(v6("fd00:10::1").starts_with("fd"));
        assert!(v6("fe80::1234:56ff:fe78:9abc").starts_with("fe80::"));
        assert_eq!(v6("::ffff:10.23.77.129"), format!("::ffff:{}", v4("10.23.77.129")));
    }

    #[test]
    fn another_key_gives_other_addresses() {
        let with = |key| addresses(key).ip("10.23.77.129".parse().unwrap());
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
        let mac = [0x26, 0xed, 0x79, 0x5c, 0xea, 0xb5];
        assert_eq!(addresses(1).mac(mac)[0], 2);
        assert_ne!(addresses(1).mac(mac), addresses(2).mac(mac));
        assert_eq!(addresses(1).mac([0xff; 6]), [0xff; 6]);
    }

    proptest! {
        #[test]
        fn v4_prefixes_are_kept_exactly(a: u32, b: u32, share in 0_u32..=32) {
            let b = if share == 0 { b } else { a & !(u32::MAX.checked_shr(share).unwrap_or(0)) | b & u32::MAX.checked_shr(share).unwrap_or(0) };
            let mut addresses = addresses(3);
            let (IpAddr::V4(x), IpAddr::V4(y)) =
                (addresses.ip(Ipv4Addr::from_bits(a).into()), addresses.ip(Ipv4Addr::from_bits(b).into())) else { panic!() };
            prop_assert_eq!((a ^ b).leading_zeros(), (x.to_bits() ^ y.to_bits()).leading_zeros());
            let class = |address: u32| {
                let v4 = Ipv4Addr::from_bits(address);
                (v4.is_private(), v4.is_loopback(), v4.is_link_local(), v4.is_multicast(), v4.octets()[0] == 0, v4.is_documentation())
            };
            prop_assert_eq!(class(a), class(x.to_bits()));
        }

        #[test]
        fn v6_prefixes_are_kept_exactly(a: u128, b: u128, share in 0_u32..=127) {
            let b = a & !(u128::MAX >> share) | b & (u128::MAX >> share);
            let mut addresses = addresses(3);
            let (IpAddr::V6(x), IpAddr::V6(y)) =
                (addresses.ip(Ipv6Addr::from_bits(a).into()), addresses.ip(Ipv6Addr::from_bits(b).into())) else { panic!() };
            prop_assert_eq!((a ^ b).leading_zeros(), (x.to_bits() ^ y.to_bits()).leading_zeros());
            prop_assert_eq!(Ipv6Addr::from_bits(a).is_unique_local(), x.is_unique_local());
        }
    }
}
