//! The sysctls that decide about collisions, of one network namespace.
//!
//! `/proc/sys/net` shows the namespace of the *reading thread*, never that of the pid in a path; hence
//! [`read_of`] goes into the namespace. A pod's own values say nothing about its node.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::netns::{NetNs, NetnsError};
use super::port_ranges::{PortRanges, PortsError};

/// Longer than the longest list of reserved ports (32,768 single ports of 6 bytes).
const MAX_VALUE: usize = 256 * 1024;

/// Why a sysctl is not known.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// Its file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its value makes no sense.
    #[error("{name} = {reason}")]
    Value {
        /// Name with dots.
        name: &'static str,
        /// Value and what is wrong with it.
        reason: String,
    },
}

/// `net.ipv4.ip_local_port_range`: what connect() and bind() to port 0 choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EphemeralRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port, included.
    pub last: u16,
}

/// Why a text is no `ip_local_port_range`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Quotes became part of the value.
    #[error("{0}: the quotes are part of the value and the kernel refuses them; remove them")]
    Quoted(String),
    /// Written as one range.
    #[error("\"{0}\": the two ends are separated by a blank here, not by a sign, such as 32768 60999")]
    Sign(String),
    /// Last before first.
    #[error("\"{0}\": the range is reversed")]
    Reversed(String),
    /// Anything else.
    #[error("\"{0}\" is not two ports, such as 32768 60999")]
    NotTwoPorts(String),
}

impl EphemeralRange {
    /// As a set of ports.
    pub fn ports(self) -> PortRanges {
        PortRanges::range(self.first, self.last)
    }

    /// How many ports an unbound connect() starts its search from: half of the range. In a range with an odd
    /// count, the last port is reached only by searching on.
    pub fn first_choices(self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)).div_ceil(2).max(1)
    }

    /// True if both ends are even or both odd: the kernel logs "prefer different parity" (information, no fault).
    pub fn same_parity(self) -> bool {
        self.first % 2 == self.last % 2
    }
}

impl FromStr for EphemeralRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let text = text.trim();
        let shown = || text.chars().take(60).collect::<String>();
        if text.contains(['"', '\'']) {
            return Err(RangeError::Quoted(shown()));
        }
        let numbers: Vec<&str> = text.split_whitespace().collect();
        let [first, last] = numbers.as_slice() else {
            let one_range =
                text.contains(['-', '–', ',', ':']) && text.contains(|c: char| c.is_ascii_digit());
            return Err(if one_range { RangeError::Sign(shown()) } else { RangeError::NotTwoPorts(shown()) });
        };
        let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else {
            return Err(RangeError::NotTwoPorts(shown()));
        };
        if first > last { Err(RangeError::Reversed(shown())) } else { Ok(Self { first, last }) }
    }
}

/// The sysctls of one network namespace. `None` = not known; where that is a fault, `problems` says why.
#[derive(Debug, Default)]
pub struct NetSysctls {
    /// `net.ipv4.ip_local_port_range`
    pub local_port_range: Option<EphemeralRange>,
    /// `net.ipv4.ip_local_reserved_ports`
    pub reserved_ports: Option<PortRanges>,
    /// `net.ipv4.vs.conntrack`; `None` without IPVS.
    pub vs_conntrack: Option<i32>,
    /// `net.ipv4.vs.conn_reuse_mode`; `None` without IPVS.
    pub vs_conn_reuse_mode: Option<i32>,
    /// `net.ipv4.vs.expire_nodest_conn`; `None` without IPVS.
    pub vs_expire_nodest_conn: Option<i32>,
    /// Why values are missing that should be there.
    pub problems: Vec<SysctlError>,
}

/// Reads the sysctls of a namespace. Needs CAP_SYS_ADMIN, except for the caller's own namespace.
pub fn read_of(netns: &NetNs) -> Result<NetSysctls, NetnsError> {
    netns.run_inside(|| read_under(Path::new("/proc/sys")))
}

/// Reads the sysctls below a directory such as `/proc/sys`, or a copy of it.
pub fn read_under(proc_sys: &Path) -> NetSysctls {
    let mut problems = Vec::new();
    let mut reader = Reader { proc_sys, problems: &mut problems };
    let mut sysctls = NetSysctls {
        local_port_range: reader.required("net.ipv4.ip_local_port_range"),
        reserved_ports: reader.required("net.ipv4.ip_local_reserved_ports"),
        // Absent unless the module ip_vs is loaded.
        vs_conntrack: reader.optional("net.ipv4.vs.conntrack"),
        vs_conn_reuse_mode: reader.optional("net.ipv4.vs.conn_reuse_mode"),
        vs_expire_nodest_conn: reader.optional("net.ipv4.vs.expire_nodest_conn"),
        problems: Vec::new(),
    };
    sysctls.problems = problems;
    sysctls
}

/// Parses a value of `ip_local_reserved_ports`, and says in words a person can act on what is wrong with it.
pub fn parse_reserved(text: &str) -> Result<PortRanges, PortsError> {
    text.parse()
}

struct Reader<'a> {
    proc_sys: &'a Path,
    problems: &'a mut Vec<SysctlError>,
}

impl Reader<'_> {
    fn required<T: FromStr<Err: ToString>>(&mut self, name: &'static str) -> Option<T> {
        self.read(name, false)
    }

    fn optional<T: FromStr<Err: ToString>>(&mut self, name: &'static str) -> Option<T> {
        self.read(name, true)
    }

    fn read<T: FromStr<Err: ToString>>(&mut self, name: &'static str, may_be_missing: bool) -> Option<T> {
        let path = self.proc_sys.join(name.replace('.', "/"));
        let problem = match read_value(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(value) => return Some(value),
                Err(error) => SysctlError::Value { name, reason: error.to_string() },
            },
            Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => return None,
            Err(source) => SysctlError::Read { path, source },
        };
        self.problems.push(problem);
        None
    }
}

/// Reads with *one* call: the kernel answers a second read of a sysctl with "end of file" whatever the first one
/// left, so the small first read of `std::fs::read` would cut a list of reserved ports after 32 bytes.
fn read_value(path: &Path) -> io::Result<String> {
    let mut bytes = vec![0; MAX_VALUE];
    let length = File::open(path)?.read(&mut bytes)?;
    if length == MAX_VALUE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the value is longer than any that makes sense",
        ));
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::netns::tests::fresh;
    use super::*;

    fn tree(values: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in values {
            let path = root.path().join(name.replace('.', "/"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        root
    }

    #[test]
    fn node_with_ipvs() {
        let root = tree(&[
            ("net.ipv4.ip_local_port_range", "1024\t65000\n"),
            ("net.ipv4.ip_local_reserved_ports", "30000-32767,50000\n"),
            ("net.ipv4.vs.conntrack", "1\n"),
            ("net.ipv4.vs.conn_reuse_mode", "0\n"),
            ("net.ipv4.vs.expire_nodest_conn", "1\n"),
        ]);
        let sysctls = read_under(root.path());
        assert_eq!(sysctls.local_port_range, Some(EphemeralRange { first: 1024, last: 65000 }));
        assert_eq!(sysctls.reserved_ports.unwrap().to_string(), "30000-32767,50000");
        assert_eq!(sysctls.vs_conntrack, Some(1));
        assert_eq!(sysctls.vs_conn_reuse_mode, Some(0));
        assert_eq!(sysctls.vs_expire_nodest_conn, Some(1));
        assert!(sysctls.problems.is_empty());
    }

    #[test]
    fn missing_ipvs_is_no_problem_but_a_bad_value_is() {
        let root = tree(&[("net.ipv4.ip_local_port_range", "x\n"), ("net.ipv4.vs.conntrack", "yes\n")]);
        let sysctls = read_under(root.path());
        assert_eq!(sysctls.local_port_range, None);
        assert_eq!(sysctls.vs_conn_reuse_mode, None);
        let problems: Vec<String> = sysctls.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("net.ipv4.ip_local_port_range = \"x\" is not two ports"));
        assert!(problems[1].contains("net/ipv4/ip_local_reserved_ports"));
        assert!(problems[2].starts_with("net.ipv4.vs.conntrack"));
    }

    // giantswarm/k8scloudconfig#542
    #[test]
    fn quoted_port_range_is_refused() {
        let error = "\"1024 65535\"".parse::<EphemeralRange>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"1024 65535\": the quotes are part of the value and the kernel refuses them; remove them"
        );
        assert!(matches!("32768-60999".parse::<EphemeralRange>(), Err(RangeError::Sign(_))));
        assert!(matches!("60999 32768".parse::<EphemeralRange>(), Err(RangeError::Reversed(_))));
        assert!(matches!("1024".parse::<EphemeralRange>(), Err(RangeError::NotTwoPorts(_))));
        assert!(matches!("1024 70000".parse::<EphemeralRange>(), Err(RangeError::NotTwoPorts(_))));
    }

    // zabbix/zabbix-docker#1090, TechnitiumSoftware/DnsServer#1310
    #[test]
    fn parity_note_is_for_equal_parity_only() {
        let same = |text: &str| text.parse::<EphemeralRange>().unwrap().same_parity();
        assert!(same("1024 65000") && same("32768 61000"));
        assert!(!same("32768 60999") && !same("1024 65535"));
    }

    #[test]
    fn connect_starts_its_search_from_half_of_the_range() {
        let range: EphemeralRange = "1024 65000".parse().unwrap();
        assert_eq!(range.first_choices(), 31_988);
        assert_eq!("32768 60999".parse::<EphemeralRange>().unwrap().first_choices(), 14_116);
        assert_eq!("4000 4000".parse::<EphemeralRange>().unwrap().first_choices(), 1);
    }

    // kubernetes/kubernetes#115374, #111144
    #[test]
    fn reserved_ports_keep_what_is_there() {
        let current = parse_reserved("50000,50001").unwrap();
        let merged = current.union(&parse_reserved("30000-32767").unwrap());
        assert_eq!(merged.to_string(), "30000-32767,50000-50001");
        assert!(parse_reserved("1024 15999").is_err());
    }

    // kubernetes/kubernetes#111144: the value is per namespace. Also: a long list is not cut.
    #[test]
    fn values_are_those_of_the_namespace_and_complete() {
        let Some(netns) = fresh() else { return };
        let wanted: PortRanges = (20_000..21_000).step_by(2).collect();
        let file = "/proc/sys/net/ipv4/ip_local_reserved_ports";
        if netns.run_inside(|| fs::write(file, wanted.to_string())).unwrap().is_err() {
            return; // /proc/sys is read-only here
        }
        let sysctls = read_of(&netns).unwrap();
        assert_eq!(sysctls.reserved_ports, Some(wanted.clone()));
        assert_ne!(read_of(&NetNs::own().unwrap()).unwrap().reserved_ports, Some(wanted));
        assert!(sysctls.local_port_range.is_some());
    }

    proptest! {
        #[test]
        fn port_range_text_does_not_panic(text in "[0-9 \t\"–-]{0,14}") {
            if let Ok(range) = text.parse::<EphemeralRange>() {
                prop_assert!(range.first <= range.last);
                let even_split = range.ports().ports().filter(|port| port % 2 == range.first % 2).count();
                prop_assert!(u32::try_from(even_split).unwrap() - range.first_choices() <= 1);
            }
        }
    }
}
