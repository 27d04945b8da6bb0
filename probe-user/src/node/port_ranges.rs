//! Sets of ports as the kernel writes them: `30000-32767,50000`.

use std::fmt;
use std::str::FromStr;

/// A set of ports: sorted ranges, both ends included, that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortRanges {
    ranges: Vec<(u16, u16)>,
}

/// Why a list of ports is refused. The kernel would refuse it too, and keep the old value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// Two numbers with a blank between them.
    #[error("\"{part}\": a blank is not allowed in a list of ports; for a range write {first}-{last}")]
    BlankForHyphen {
        /// The part of the list.
        part: String,
        /// First number.
        first: String,
        /// Second number.
        last: String,
    },
    /// A blank elsewhere.
    #[error(
        "\"{part}\": a blank is not allowed in a list of ports; write it without, such as 30000-32767,50000"
    )]
    Blank {
        /// The part of the list.
        part: String,
    },
    /// A typographic dash.
    #[error("\"{part}\": the sign between the numbers is {dash:?} (U+{code:04X}), not a hyphen; type a plain -", code = u32::from(*dash))]
    Dash {
        /// The part of the list.
        part: String,
        /// The sign.
        dash: char,
    },
    /// Quotes became part of the value.
    #[error("\"{part}\": the quotes are part of the value and the kernel refuses them; remove them")]
    Quoted {
        /// The part of the list.
        part: String,
    },
    /// Last before first.
    #[error("\"{part}\": the range is reversed; write {last}-{first}")]
    Reversed {
        /// The part of the list.
        part: String,
        /// First number as written.
        first: u16,
        /// Last number as written.
        last: u16,
    },
    /// A number above 65535.
    #[error("\"{part}\": {number} is not a port; the highest is 65535")]
    TooLarge {
        /// The part of the list.
        part: String,
        /// The number.
        number: String,
    },
    /// Anything else.
    #[error("\"{part}\" is neither a port nor a range of ports, such as 50000 or 30000-32767")]
    NotAPort {
        /// The part of the list.
        part: String,
    },
}

impl PortRanges {
    /// Ranges with both ends included, in any order; an empty (reversed) one adds nothing.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut given: Vec<(u16, u16)> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        given.sort_unstable();
        let mut ranges: Vec<(u16, u16)> = Vec::with_capacity(given.len());
        for (first, last) in given {
            match ranges.last_mut() {
                Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Self { ranges }
    }

    /// One range, both ends included.
    pub fn range(first: u16, last: u16) -> Self {
        Self::from_ranges([(first, last)])
    }

    /// The ranges, sorted, both ends included.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.ranges
    }

    /// Every port, lowest first.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }

    /// True if no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// True if `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        let at = self.ranges.partition_point(|&(_, last)| last < port);
        self.ranges.get(at).is_some_and(|&(first, _)| first <= port)
    }

    /// How many ports are in the set.
    pub fn count(&self) -> u32 {
        self.ranges.iter().map(|&(first, last)| u32::from(last - first) + 1).sum()
    }

    /// Ports in either set. This is how a value for `ip_local_reserved_ports` keeps what is reserved already.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.ranges.iter().chain(&other.ranges).copied())
    }

    /// Ports in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut left, mut right) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&(a_first, a_last)), Some(&&(b_first, b_last))) = (left.peek(), right.peek()) {
            both.push((a_first.max(b_first), a_last.min(b_last)));
            if a_last < b_last {
                left.next()
            } else {
                right.next()
            };
        }
        Self::from_ranges(both)
    }

    /// Ports of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.intersect(&other.complement())
    }

    /// All ports 0 to 65535 that are not in the set.
    fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.ranges.len() + 1);
        let mut next = Some(0_u16);
        for &(first, last) in &self.ranges {
            if let (Some(start), Some(end)) = (next, first.checked_sub(1)) {
                gaps.push((start, end));
            }
            next = last.checked_add(1);
        }
        gaps.extend(next.map(|start| (start, u16::MAX)));
        Self::from_ranges(gaps)
    }
}

impl FromIterator<u16> for PortRanges {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        Self::from_ranges(ports.into_iter().map(|port| (port, port)))
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl FromStr for PortRanges {
    type Err = PortsError;

    /// Reads what `ip_local_reserved_ports` prints or takes (`proc_do_large_bitmap`, kernel/sysctl.c). Nothing at
    /// all is the empty set; one comma at the end is allowed, as the kernel allows it.
    fn from_str(text: &str) -> Result<Self, PortsError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let list = text.strip_suffix(',').unwrap_or(text);
        list.split(',').map(parse_part).collect::<Result<Vec<_>, _>>().map(Self::from_ranges)
    }
}

fn parse_part(part: &str) -> Result<(u16, u16), PortsError> {
    let shown = || part.chars().take(60).collect::<String>();
    if part.contains(['"', '\'', '“', '”', '„', '‘', '’']) {
        return Err(PortsError::Quoted { part: shown() });
    }
    if let Some(dash) = part.chars().find(|c| matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ad}')) {
        return Err(PortsError::Dash { part: shown(), dash });
    }
    if part.contains(char::is_whitespace) {
        let numbers: Vec<&str> = part.split_whitespace().collect();
        return Err(match numbers.as_slice() {
            [first, last] if is_number(first) && is_number(last) => {
                PortsError::BlankForHyphen { part: shown(), first: (*first).into(), last: (*last).into() }
            }
            _ => PortsError::Blank { part: shown() },
        });
    }
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let parse = |number: &str| match number.parse::<u16>() {
        Ok(value) if is_number(number) => Ok(value),
        Err(_) if is_number(number) => {
            Err(PortsError::TooLarge { part: shown(), number: number.chars().take(20).collect() })
        }
        _ => Err(PortsError::NotAPort { part: shown() }),
    };
    let (first, last) = (parse(first)?, parse(last)?);
    if first > last {
        return Err(PortsError::Reversed { part: shown(), first, last });
    }
    Ok((first, last))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn message(text: &str) -> String {
        text.parse::<PortRanges>().unwrap_err().to_string()
    }

    #[test]
    fn prints_as_the_kernel_does() {
        let ports: PortRanges = "50000,30000-32767,32768,5-5\n".parse().unwrap();
        assert_eq!(ports.to_string(), "5,30000-32768,50000");
        assert_eq!(ports.count(), 2771);
        assert_eq!("\n".parse::<PortRanges>().unwrap().to_string(), "");
        assert_eq!("1,\n".parse::<PortRanges>().unwrap().to_string(), "1");
        assert_eq!("0-65535".parse::<PortRanges>().unwrap().count(), 65_536);
    }

    // kubernetes/kubernetes#115374, #111144
    #[test]
    fn blank_for_a_hyphen_is_explained() {
        assert!(message("1024 15999").contains("for a range write 1024-15999"));
        assert!(message("80, 443").contains("a blank is not allowed"));
    }

    // giantswarm/k8scloudconfig#542
    #[test]
    fn quotes_are_explained() {
        assert!(message("\"30000-32767\"").contains("remove them"));
        assert!(message("'30000-32767'").contains("remove them"));
    }

    #[test]
    fn other_errors_name_the_part_and_the_remedy() {
        assert!(message("1,30000–32767").contains("(U+2013)"), "{}", message("1,30000–32767"));
        assert!(message("32767-30000").contains("write 30000-32767"));
        assert!(message("1-70000").contains("70000 is not a port"));
        for text in ["x", "1-", "-1", "+1", "1,,2", ",", "1-2-3", "0x10"] {
            assert!(message(text).contains("neither a port nor a range"), "{text}");
        }
    }

    // Huawei CCE "Ports Used by NodePort Services"; Pipedrive R&D; kubernetes/kops#6342
    #[test]
    fn overlaps_from_the_field() {
        let overlap = |a: (u16, u16), b: (u16, u16)| {
            PortRanges::range(a.0, a.1).intersect(&PortRanges::range(b.0, b.1)).count()
        };
        assert_eq!(overlap((20106, 32767), (10240, 65535)), 12_662);
        assert_eq!(overlap((30000, 32767), (12000, 65001)), 2768);
        assert_eq!(overlap((30000, 32767), (32768, 60999)), 0);
        assert_eq!(overlap((30000, 32768), (32768, 60999)), 1);
    }

    fn any_ranges() -> impl Strategy<Value = PortRanges> {
        let edge = prop_oneof![0_u16..40, 65_500_u16..=65_535];
        proptest::collection::vec((edge.clone(), edge), 0..6).prop_map(PortRanges::from_ranges)
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(a in any_ranges(), b in any_ranges(), port in prop_oneof![0_u16..45, 65_490_u16..=65_535]) {
            prop_assert_eq!(a.union(&b).contains(port), a.contains(port) || b.contains(port));
            prop_assert_eq!(a.intersect(&b).contains(port), a.contains(port) && b.contains(port));
            prop_assert_eq!(a.difference(&b).contains(port), a.contains(port) && !b.contains(port));
            prop_assert_eq!(a.count() + b.count(), a.union(&b).count() + a.intersect(&b).count());
            prop_assert_eq!(a.ports().count(), a.count() as usize);
            let model: BTreeSet<u16> = a.ports().collect();
            prop_assert_eq!(model.into_iter().collect::<PortRanges>(), a);
        }

        #[test]
        fn text_round_trips(a in any_ranges()) {
            prop_assert_eq!(a.to_string().parse::<PortRanges>(), Ok(a));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "[0-9,\\- \"–x]{0,12}") {
            let _ = text.parse::<PortRanges>();
        }
    }
}
