//! Whether a listing was cut, by a pager or a terminal: the table itself says so, because kube-proxy makes the same
//! set of node ports on every address of the node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Form;
use super::table::{Protocol, ServiceId, ServiceTable};

/// Ports that an address must have for its set to mean something.
const FEW: usize = 3;

/// A sentence if the listing breaks off: the ports of one address are exactly the lower part of those of another, and
/// that address stands last. `last` is the address of the last service row of the text ([`last_address`] finds it).
pub fn cut_short(table: &ServiceTable, last: Option<IpAddr>) -> Option<String> {
    let mut ports: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
    for id in table.services.keys() {
        if let ServiceId::Address(Protocol::Tcp, address) = id {
            ports.entry(address.ip()).or_default().insert(address.port());
        }
    }
    let cut = |address: &IpAddr, set: &BTreeSet<u16>| {
        let highest = *set.last().filter(|_| set.len() >= FEW)?;
        let (_, fuller) = ports
            .iter()
            .filter(|(other, fuller)| other != &address && fuller.len() > set.len())
            .find(|(_, fuller)| fuller.range(..=highest).eq(set))?;
        Some(fuller.iter().filter(|port| **port > highest).copied().collect::<Vec<u16>>())
    };
    let found: Vec<(IpAddr, Vec<u16>)> =
        ports.iter().filter_map(|(address, set)| Some((*address, cut(address, set)?))).collect();
    let [(address, missing)] = found.as_slice() else { return None };
    if last.is_some_and(|last| last != *address) {
        return None;
    }
    let shown: Vec<String> = missing.iter().take(5).map(u16::to_string).collect();
    let more = missing.len().saturating_sub(shown.len());
    let ports = if missing.len() == 1 { "port" } else { "ports" };
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!(
        "the listing breaks off within the services of {address}: it lacks {ports} {}{more}, which another address of the \
         node has, and whatever came after it (was it cut by a pager?)",
        shown.join(", ")
    ))
}

/// Address of the last service row of a listing, whatever its form.
pub fn last_address(bytes: &[u8]) -> Option<IpAddr> {
    let form = Form::of(bytes)?;
    bytes.rsplit(|byte| *byte == b'\n').take(10_000).find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.split_ascii_whitespace();
        match (words.next()?, form) {
            ("TCP" | "UDP" | "SCTP", Form::Proc) => super::rows::hex_address(words.next()?).ok(),
            ("TCP" | "UDP" | "SCTP", _) => super::rows::decimal_address(words.next()?).ok(),
            ("-A" | "--add-service", _) => super::rows::decimal_address(words.nth(1)?).ok(),
            _ => None,
        }
        .map(|address| address.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::{Content, parse_services};

    fn judge(text: &str) -> Option<String> {
        let parsed = parse_services(text.as_bytes()).unwrap();
        let Content::Services(table) = parsed.content else { panic!() };
        cut_short(&table, last_address(text.as_bytes()))
    }

    /// midbai.com, "many pod probes are failing after upgrading Kubernetes"
    #[test]
    fn the_incidents_listing_was_cut_by_the_pager() {
        let text = judge(include_str!("../../tests/seed/ipvsadm.txt")).unwrap();
        assert!(
            text.contains("within the services of 10.10.85.235: it lacks ports 37629, 38820, 39080, which"),
            "{text}"
        );
    }

    fn listing(groups: &[(&str, &[u16])]) -> String {
        let mut text = String::new();
        for (address, ports) in groups {
            for port in *ports {
                text += &format!("TCP  {address}:{port} rr\n");
            }
        }
        text
    }

    #[test]
    fn whole_listings_are_not_called_cut() {
        let ports: &[u16] = &[30_000, 30_001, 30_002, 30_003];
        let whole = [("10.0.0.1", ports), ("10.0.0.2", ports), ("10.96.0.1", &[443])];
        assert_eq!(judge(&listing(&whole)), None);
        // An address that has another set of ports, and one with few.
        assert_eq!(judge(&listing(&[("10.0.0.1", ports), ("10.0.0.2", &[30_000, 30_002, 30_003])])), None);
        assert_eq!(judge(&listing(&[("10.0.0.1", ports), ("10.0.0.2", &ports[..2])])), None);
        // The shorter set does not stand last: nothing was cut there.
        assert_eq!(judge(&listing(&[("10.0.0.2", &ports[..3]), ("10.0.0.1", ports)])), None);
        let cut = listing(&[("10.0.0.1", ports), ("10.0.0.2", &ports[..3])]);
        assert!(judge(&cut).unwrap().contains("lacks port 30003,"));
        assert_eq!(judge("-A -t 10.0.0.1:80 -s rr\n"), None);
    }
}
