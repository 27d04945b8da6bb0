//! Lines in which kube-proxy says that it could not listen on a NodePort, because somebody else had the port first
//! (pkg/proxy/util and proxier.go, Kubernetes 1.2 to 1.23; later ones do not listen).

use std::collections::BTreeMap;
use std::fmt;

use crate::ipvs::table::Protocol;

/// What such a line contains, in any case of its first letter.
const SIGN: &str = "an't open";

/// A port that kube-proxy could not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPort {
    /// Line of the log, from 1; the last one that says so.
    pub line: usize,
    /// How many lines say so.
    pub times: usize,
    /// What for: `nodePort`, `externalIP` and the like.
    pub purpose: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// Name of its port.
    pub port_name: Option<String>,
    /// Port, host byte order.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// True if the reason is EADDRINUSE; any other leaves the port's holder out of it.
    pub in_use: bool,
}

impl fmt::Display for RefusedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { purpose, namespace, service, port, protocol, .. } = self;
        write!(f, "{purpose} {port}/{protocol} of {namespace}/{service}")?;
        self.port_name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedPorts {
    /// The ports, each once.
    pub ports: Vec<RefusedPort>,
    /// Lines that say that a port could not be opened, but not which, from 1.
    pub unreadable: Vec<usize>,
}

/// Reads a log of kube-proxy, whatever wraps its lines.
pub fn parse(bytes: &[u8]) -> RefusedPorts {
    let text = String::from_utf8_lossy(bytes);
    let mut ports: BTreeMap<(u16, String, String), RefusedPort> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| text.contains(SIGN)) {
        // klog's values, and JSON around them, escape the quotes.
        match refused(&text.replace('\\', ""), line) {
            Some(new) => {
                let key = (new.port, new.protocol.to_string(), format!("{}/{}", new.namespace, new.service));
                let before = ports.get(&key).map_or(0, |known| known.times);
                ports.insert(key, RefusedPort { times: before + 1, ..new });
            }
            None => unreadable.push(line),
        }
    }
    RefusedPorts { ports: ports.into_values().collect(), unreadable }
}

/// `"nodePort for ns/svc:name" (address:port/tcp4)`, anywhere in a line.
fn refused(text: &str, line: usize) -> Option<RefusedPort> {
    let (before, after) = text.split_once(" for ")?;
    let purpose = before.rsplit('"').next()?;
    let (service, rest) = after.split_once('"')?;
    let (namespace, service) = service.split_once('/')?;
    let (service, port_name) = match service.split_once(':') {
        Some((service, name)) => (service, Some(name.to_owned()).filter(|name| !name.is_empty())),
        None => (service, None),
    };
    let (address, _) = rest.trim_start().strip_prefix('(')?.split_once(')')?;
    let (address, protocol) = address.rsplit_once('/')?;
    let protocol = match protocol.trim_end_matches(['4', '6']).to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let words = [purpose, namespace, service];
    if words.iter().any(|word| word.is_empty() || word.contains(char::is_whitespace)) {
        return None;
    }
    Some(RefusedPort {
        line,
        times: 1,
        purpose: purpose.to_owned(),
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        port_name,
        port: address.rsplit_once(':')?.1.parse().ok()?,
        protocol,
        in_use: text.contains("address already in use"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // kubernetes/kubernetes#40920, #35641, #82851
    #[test]
    fn every_form_of_the_line() {
        let head = "E0203 14:08:15.590000       1 proxier.go:1108]";
        let listen = |net: &str, port: u16| format!("listen {net} :{port}: bind: address already in use");
        let log = [
            format!(
                "{head} can't open \"nodePort for ns/svc:port\" (:34104/tcp), skipping this nodePort: {}",
                listen("tcp", 34104)
            ),
            format!(
                "{head} Can't open \"nodePort for ns/svc:port\" (:34104/tcp), skipping this nodePort: {}",
                listen("tcp", 34104)
            ),
            format!(
                "{head} can't open \"externalIP for ns/web:\" (192.0.2.7:443/tcp4), skipping this externalIP: {}",
                listen("tcp4", 443)
            ),
            format!(
                "{head} can't open \"nodePort for ns/dns\" (:30053/udp), skipping this nodePort: listen udp :30053: socket: too many open files"
            ),
            format!(
                "{head} \"can't open port, skipping it\" err=\"{}\" port=\"\\\"nodePort for ns/new:http\\\" (:32080/tcp6)\"",
                listen("tcp6", 32080)
            ),
            format!("{head} can't open it"),
            format!("{head} \"Opened local port\" port=\"\\\"nodePort for ns/good:http\\\" (:32081/tcp4)\""),
        ];
        let read = parse(log.join("\n").as_bytes());
        let texts: Vec<_> =
            read.ports.iter().map(|port| (port.to_string(), port.line, port.times, port.in_use)).collect();
        let expected = [
            ("externalIP 443/TCP of ns/web", 3, 1, true),
            ("nodePort 30053/UDP of ns/dns", 4, 1, false),
            ("nodePort 32080/TCP of ns/new:http", 5, 1, true),
            ("nodePort 34104/TCP of ns/svc:port", 2, 2, true),
        ];
        assert_eq!(texts, expected.map(|(text, line, times, in_use)| (text.to_owned(), line, times, in_use)));
        assert_eq!(read.unreadable, [6]);
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(text in "(can't open|for|\"| |/|:|\\(|\\)|tcp|[0-9]{1,6}|\\PC){0,40}") {
            let read = parse(format!("can't open {text}").as_bytes());
            prop_assert!(read.ports.len() + read.unreadable.len() >= 1);
        }
    }
}
