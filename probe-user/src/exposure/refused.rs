//! NodePorts that kube-proxy could not listen on: who had them first.

use super::check::{Finding, Severity};
use super::node::Node;
use crate::ipvs::table::Protocol;
use crate::kubernetes::kube_proxy_log::RefusedPort;
use crate::node::sockets::Socket;

/// A NodePort that somebody else had first, and who holds it (kubernetes/kubernetes#40920).
pub(super) fn finding(node: &Node, port: &RefusedPort) -> Finding {
    let times = if port.times == 1 { String::new() } else { format!(", said {} times", port.times) };
    let holder = match (&node.sockets, port.in_use, port.protocol) {
        (_, false, _) => "for another reason than that it was in use".to_owned(),
        (_, _, Protocol::Udp | Protocol::Sctp) => {
            "because somebody had it first; who is not known, only TCP sockets are read".to_owned()
        }
        (None, true, Protocol::Tcp) => {
            "because somebody had it first; who holds it now --sockets can tell (`ss -tanp`)".to_owned()
        }
        (Some(sockets), true, Protocol::Tcp) => {
            let mut held = sockets.value.iter().filter(|socket| socket.local.port() == port.port);
            held.next().map_or_else(
                || "because somebody had it first; no socket holds it any more".to_owned(),
                |socket| format!("because somebody had it first; now {} holds it", holder(socket)),
            )
        }
    };
    Finding::new(
        Severity::Warning,
        format!("kube-proxy could not listen on {port} (line {} of its log{times}), {holder}", port.line),
    )
}

fn holder(socket: &Socket) -> String {
    let users: Vec<String> =
        socket.users.iter().map(|user| format!("{} (pid {})", user.comm, user.pid)).collect();
    let by = if users.is_empty() { String::new() } else { format!(" of {}", users.join(", ")) };
    match socket.remote.port() {
        0 => format!("a listener on {}{by}", socket.local),
        _ => format!("the connection {} -> {}{by}", socket.local, socket.remote),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposure::node::Sourced;
    use crate::exposure::samples::ranges;
    use crate::kubernetes::kube_proxy_log::parse;
    use crate::node::sockets::text::parse_sockets;

    fn said(line: &str, sockets: Option<&str>) -> String {
        let mut node = ranges("32768 60999", Some(""));
        node.sockets = sockets.map(|text| Sourced {
            value: parse_sockets(text.as_bytes()).sockets,
            source: "ss.txt".to_owned(),
        });
        finding(&node, &parse(line.as_bytes()).ports[0]).text
    }

    // kubernetes/kubernetes#40920, #107413
    #[test]
    fn the_holder_is_pointed_to() {
        let line = "E0203 14:08:15.59 1 proxier.go:1108] can't open \"nodePort for ns/svc:port\" (:34104/tcp), skipping \
                    this nodePort: listen tcp :34104: bind: address already in use";
        let begin = "kube-proxy could not listen on nodePort 34104/TCP of ns/svc:port (line 1 of its log), because somebody had \
                     it first; ";
        let held = |sockets: &str| said(line, Some(sockets)).replace(begin, "");
        let connection = "ESTAB 0 0 192.0.2.1:34104 192.0.2.9:443 users:((\"agent\",pid=77,fd=5))\n";
        assert_eq!(
            held(connection),
            "now the connection 192.0.2.1:34104 -> 192.0.2.9:443 of agent (pid 77) holds it"
        );
        assert_eq!(held("LISTEN 0 128 *:34104 *:*\n"), "now a listener on [::]:34104 holds it");
        assert_eq!(held("ESTAB 0 0 192.0.2.1:34105 192.0.2.9:34104\n"), "no socket holds it any more");
        assert!(said(line, None).contains("--sockets"), "{}", said(line, None));
        let udp = line.replace("/tcp", "/udp");
        assert!(said(&udp, Some(connection)).contains("only TCP sockets are read"));
    }
}
