//! Settings as people paste them: output of `sysctl`, files of sysctl.d, and the API server's range of node ports.

use std::path::Path;
use std::str::FromStr;

use crate::ipvs::rows::RowLog;
use crate::ipvs::table::Unreadable;
use crate::node::configured::{Setting, parse_sysctl_file};
use crate::node::port_ranges::PortRanges;
use crate::node::sysctl::EphemeralRange;

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Line from 1.
    pub line: usize,
}

/// The settings that matter. `None` = the file does not set it, or not to anything that the kernel takes: then
/// `invalid` has it. Where a file sets one twice, the last line counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `net.ipv4.ip_local_port_range`
    pub local_port_range: Option<At<EphemeralRange>>,
    /// `net.ipv4.ip_local_reserved_ports`; the empty set where nothing is reserved.
    pub reserved_ports: Option<At<PortRanges>>,
    /// `net.ipv4.tcp_tw_reuse`: 0 off, 1 on, 2 on loopback only.
    pub tcp_tw_reuse: Option<At<i32>>,
    /// `net.ipv4.tcp_syn_linear_timeouts`: how many SYNs are sent again one second apart (6.5 and later).
    pub tcp_syn_linear_timeouts: Option<At<i32>>,
    /// `net.ipv4.tcp_syn_retries`
    pub tcp_syn_retries: Option<At<i32>>,
    /// `net.ipv4.vs.conntrack`
    pub vs_conntrack: Option<At<i32>>,
    /// `net.ipv4.vs.conn_reuse_mode`
    pub vs_conn_reuse_mode: Option<At<i32>>,
    /// `net.ipv4.vs.expire_nodest_conn`
    pub vs_expire_nodest_conn: Option<At<i32>>,
    /// `net.netfilter.nf_conntrack_tcp_timeout_time_wait`, seconds.
    pub conntrack_time_wait_s: Option<At<i32>>,
    /// `--service-node-port-range` of the API server, first and last port.
    pub node_ports: Option<At<(u16, u16)>>,
    /// Values that the kernel refuses, so that what was set before stays in force, with the reason.
    pub invalid: Vec<Unreadable>,
}

/// Reads sysctls and arguments from any text.
pub fn parse(bytes: &[u8]) -> Settings {
    let mut settings = Settings::default();
    let mut invalid = RowLog::default();
    for setting in parse_sysctl_file(bytes, Path::new("")).settings {
        settings.take(&setting, &mut invalid);
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    for (line, text) in (1..).zip(lines) {
        let text = String::from_utf8_lossy(text);
        let Some(value) = node_port_argument(&text) else { continue };
        match node_port_range(value) {
            Some(value) => settings.node_ports = Some(At { value, line }),
            None => invalid.push(line, value.as_bytes(), "it is no range of ports, such as 30000-32767"),
        }
    }
    settings.invalid = invalid.finish();
    settings
}

impl Settings {
    fn take(&mut self, setting: &Setting, invalid: &mut RowLog) {
        match setting.key.as_str() {
            "net.ipv4.ip_local_port_range" => read(&mut self.local_port_range, setting, invalid),
            "net.ipv4.ip_local_reserved_ports" => read(&mut self.reserved_ports, setting, invalid),
            "net.ipv4.tcp_tw_reuse" => read(&mut self.tcp_tw_reuse, setting, invalid),
            "net.ipv4.tcp_syn_linear_timeouts" => read(&mut self.tcp_syn_linear_timeouts, setting, invalid),
            "net.ipv4.tcp_syn_retries" => read(&mut self.tcp_syn_retries, setting, invalid),
            "net.ipv4.vs.conntrack" => read(&mut self.vs_conntrack, setting, invalid),
            "net.ipv4.vs.conn_reuse_mode" => read(&mut self.vs_conn_reuse_mode, setting, invalid),
            "net.ipv4.vs.expire_nodest_conn" => read(&mut self.vs_expire_nodest_conn, setting, invalid),
            "net.netfilter.nf_conntrack_tcp_timeout_time_wait" => {
                read(&mut self.conntrack_time_wait_s, setting, invalid);
            }
            _ => {}
        }
    }
}

fn read<T: FromStr<Err: ToString>>(slot: &mut Option<At<T>>, setting: &Setting, invalid: &mut RowLog) {
    let Setting { key, value, line, .. } = setting;
    match value.parse() {
        Ok(value) => *slot = Some(At { value, line: *line }),
        Err(error) => {
            let text = format!("{key} = {value}");
            invalid.push(*line, text.as_bytes(), error.to_string());
        }
    }
}

/// The value of `--service-node-port-range` in a line: arguments, the output of `ps`, a manifest of a static pod.
pub(crate) fn node_port_argument(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("--service-node-port-range")?;
    let value = rest.strip_prefix(['=', ' ', '\0'])?.trim_start();
    let end = value.find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '+')).unwrap_or(value.len());
    value.get(..end).filter(|value| !value.is_empty())
}

/// `30000-32767`, or a first port and how many follow: `30000+2767` (k8s.io/apimachinery, `PortRange`).
fn node_port_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok();
    let (first, last) = if let Some((first, more)) = text.split_once('+') {
        let first = number(first)?;
        (first, first.checked_add(number(more)?)?)
    } else {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        (number(first)?, number(last)?)
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// midbai.com, "many pod probes are failing after upgrading Kubernetes"
    #[test]
    fn the_incidents_settings() {
        let settings = parse(include_bytes!("../../tests/seed/sysctl.txt"));
        let range = settings.local_port_range.unwrap();
        assert_eq!((range.value, range.line), (EphemeralRange { first: 1024, last: 65000 }, 3));
        assert_eq!(settings.tcp_tw_reuse.unwrap().value, 1);
        assert_eq!(settings.conntrack_time_wait_s.unwrap().value, 120);
        assert_eq!((settings.reserved_ports, settings.invalid), (None, vec![]));
        let settings = parse(include_bytes!("../../tests/seed/kube-apiserver.txt"));
        assert_eq!(settings.node_ports, Some(At { value: (20_000, 40_000), line: 1 }));
    }

    // giantswarm/k8scloudconfig#542, kubernetes/kubernetes#115374
    #[test]
    fn what_the_kernel_refuses_is_a_finding_with_its_line() {
        let settings = parse(
            b"net.ipv4.ip_local_port_range = 32768 60999\nnet.ipv4.ip_local_port_range=\"1024 65535\"\n\
              net.ipv4.ip_local_reserved_ports = 1024 15999\nnet.ipv4.tcp_tw_reuse = yes\n\
              x --service-node-port-range=32767-30000\n",
        );
        assert_eq!(settings.local_port_range.unwrap().value.first, 32_768, "the value before stays");
        assert_eq!(settings.reserved_ports, None);
        let lines: Vec<usize> = settings.invalid.iter().map(|row| row.line).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
        assert!(settings.invalid[0].reason.contains("quotes"), "{:?}", settings.invalid);
    }

    #[test]
    fn every_way_to_give_the_range_of_node_ports() {
        for (line, range) in [
            ("    - --service-node-port-range=30000-32767", Some((30_000, 32_767))),
            ("kube-apiserver --service-node-port-range 30000-32767 --v=2", Some((30_000, 32_767))),
            ("kube-apiserver\0--service-node-port-range=30000+10\0--v=2", Some((30_000, 30_010))),
            ("\"--service-node-port-range=20106-32767\",", Some((20_106, 32_767))),
            ("--service-node-port-range", None),
            ("--service-node-port-range=${RANGE}", None),
            ("the flag service-node-port-range", None),
        ] {
            assert_eq!(parse(line.as_bytes()).node_ports.map(|range| range.value), range, "{line}");
        }
        assert_eq!(parse(b"hello\n"), Settings::default());
    }

    // onedr0p/home-ops#11712
    #[test]
    fn reserved_ports_may_be_empty_or_many() {
        let settings = parse(b"net.ipv4.ip_local_reserved_ports = \n");
        assert_eq!(settings.reserved_ports.unwrap().value, PortRanges::default());
        let settings = parse(b"net.ipv4.ip_local_reserved_ports = 30000-32767,50000-50001\n");
        assert_eq!(settings.reserved_ports.unwrap().value.to_string(), "30000-32767,50000-50001");
    }
}
