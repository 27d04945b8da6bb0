//! Where a probe connects to. Pure.
//!
//! As kubelet does it (pkg/kubelet/prober/prober.go, `runProbe`): the probe's `host`, else the pod's address. The
//! connection is made in the node's namespace, so `localhost` is the node's loopback and not the pod's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::kubernetes::pod::{Handler, Pod};

/// One address that a probe may be seen to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address and port.
    pub address: SocketAddr,
    /// How the probe comes to it.
    pub by: TargetBy,
}

/// Why a probe connects to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetBy {
    /// The pod's first address: the one that kubelet uses.
    PodAddress,
    /// Another address of a dual-stack pod, which kubelet does not use by itself.
    OtherPodAddress,
    /// `host` of the probe.
    Host,
}

/// Every address that this probe may connect to. Empty: `exec`, an unresolved port, a host that is a name.
pub fn targets(pod: &Pod, handler: &Handler) -> Vec<Target> {
    let Some(port) = port(handler) else { return Vec::new() };
    let at = |by, ip| Target { address: SocketAddr::new(ip, port), by };
    if let Some(host) = host(handler) {
        return host_addresses(host).into_iter().map(|ip| at(TargetBy::Host, ip)).collect();
    }
    let by = |n| if n == 0 { TargetBy::PodAddress } else { TargetBy::OtherPodAddress };
    pod.ips.iter().enumerate().map(|(n, ip)| at(by(n), ip.to_canonical())).collect()
}

/// The port that a probe connects to, host byte order.
pub const fn port(handler: &Handler) -> Option<u16> {
    match handler {
        Handler::HttpGet { port, .. } | Handler::TcpSocket { port, .. } | Handler::Grpc { port, .. } => *port,
        Handler::Exec => None,
    }
}

/// The host that overrides the pod's address.
pub fn host(handler: &Handler) -> Option<&str> {
    match handler {
        Handler::HttpGet { host, .. } | Handler::TcpSocket { host, .. } => {
            host.as_deref().filter(|host| !host.is_empty())
        }
        Handler::Grpc { .. } | Handler::Exec => None,
    }
}

/// The addresses that a host stands for without asking a name server. An unspecified address is this machine
/// (Go's dialer, and kernel: `ip_route_output_key_hash_rcu`, net/ipv4/route.c).
fn host_addresses(host: &str) -> Vec<IpAddr> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if host.eq_ignore_ascii_case("localhost") {
        return loopback.to_vec();
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip @ IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => vec![ip, IpAddr::V4(Ipv4Addr::LOCALHOST)],
        Ok(ip) if ip.is_unspecified() => {
            let mut all = vec![ip];
            all.extend(loopback);
            all
        }
        Ok(ip) => vec![ip],
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::samples::{http, pod};

    fn addresses(pod: &Pod, handler: &Handler) -> Vec<String> {
        targets(pod, handler).iter().map(|target| target.address.to_string()).collect()
    }

    fn with_host(host: &str) -> Vec<String> {
        let handler = Handler::TcpSocket { host: Some(host.to_owned()), port: Some(8080) };
        addresses(&pod("default", "web", &["10.23.77.138"]), &handler)
    }

    // kubernetes/kubernetes#86504, kubernetes/dns#381, deliveryhero/helm-charts#676
    #[test]
    fn a_probe_host_overrides_the_address_of_the_pod() {
        assert_eq!(with_host("169.254.20.10"), ["169.254.20.10:8080"]);
        assert_eq!(with_host("localhost"), ["127.0.0.1:8080", "[::1]:8080"]);
        assert_eq!(with_host("0.0.0.0"), ["0.0.0.0:8080", "127.0.0.1:8080"]);
        assert_eq!(with_host("[fd00::1]"), ["[fd00::1]:8080"]);
        assert_eq!(with_host(""), ["10.23.77.138:8080"]);
        assert_eq!(with_host("web.example.net"), [] as [&str; 0], "a name is not looked up");
    }

    #[test]
    fn every_address_of_a_dual_stack_pod_but_kubelet_uses_the_first() {
        let pod = pod("default", "web", &["10.23.77.138", "fd00::138"]);
        let all = targets(&pod, &http(80));
        assert_eq!(addresses(&pod, &http(80)), ["10.23.77.138:80", "[fd00::138]:80"]);
        assert_eq!(
            all.iter().map(|t| t.by).collect::<Vec<_>>(),
            [TargetBy::PodAddress, TargetBy::OtherPodAddress]
        );
    }

    // kubernetes/kubernetes#82987, #92464
    #[test]
    fn exec_and_unresolved_ports_have_no_target() {
        let pod = pod("default", "web", &["10.23.77.138"]);
        assert!(targets(&pod, &Handler::Exec).is_empty());
        assert!(targets(&pod, &Handler::Grpc { port: None, service: None }).is_empty());
        assert_eq!(addresses(&pod, &Handler::Grpc { port: Some(9), service: None }), ["10.23.77.138:9"]);
    }
}
