//! `--remote`: an address, with or without port.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Where a connect must go to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    ip: IpAddr,
    port: Option<u16>,
}

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { ip: address.ip(), port: Some(address.port()) });
        }
        let ip = text.trim_start_matches('[').trim_end_matches(']').parse();
        let ip =
            ip.map_err(|_| format!("\"{text}\" is no address; write 10.0.0.1, 10.0.0.1:80 or [fd00::1]:80"))?;
        Ok(Self { ip, port: None })
    }
}

impl Remote {
    /// Whether a connect to this address is meant.
    pub(super) fn is(self, address: SocketAddr) -> bool {
        self.ip == address.ip() && self.port.is_none_or(|port| port == address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_is_an_address_with_or_without_port() {
        let remote = |text: &str| text.parse::<Remote>();
        assert_eq!(remote("10.0.0.1").unwrap().port, None);
        assert_eq!(remote("10.0.0.1:80").unwrap().port, Some(80));
        assert_eq!(remote("[fd00::1]:80").unwrap().port, Some(80));
        assert_eq!(remote("fd00::1").unwrap().port, None);
        assert!(remote("node-a").unwrap_err().contains("address"));
    }

    #[test]
    fn without_a_port_any_port_is_meant() {
        let means = |text: &str, address: &str| text.parse::<Remote>().unwrap().is(address.parse().unwrap());
        assert!(means("10.0.0.1", "10.0.0.1:80") && means("10.0.0.1:80", "10.0.0.1:80"));
        assert!(!means("10.0.0.1:80", "10.0.0.1:81") && !means("10.0.0.1", "10.0.0.2:80"));
    }
}
