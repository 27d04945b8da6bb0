//! `kubectl get pods -o wide`: names and addresses, and nothing of what a pod is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::list::{Form, PodList};
use super::pod::Pod;
use crate::ipvs::rows::RowLog;

/// Namespace of a listing without that column.
const DEFAULT: &str = "default";

/// Whether a line, by itself, is a row of such a listing, or its header.
pub fn is_row(line: &str) -> bool {
    is_header(line) || Row::of(line).is_some_and(|row| row.ip.is_some())
}

fn is_header(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let first = words.first().is_some_and(|word| matches!(*word, "NAMESPACE" | "NAME"));
    first && words.contains(&"READY") && words.contains(&"RESTARTS")
}

/// A row, read by its words: `3 (2d ago)` restarts are more than one, so that columns are counted from both sides.
struct Row<'a> {
    namespace: Option<&'a str>,
    name: &'a str,
    status: &'a str,
    ip: Option<IpAddr>,
    node: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        // How many containers are ready: `1/1`.
        let ready = words.iter().take(3).position(|word| {
            let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            word.split_once('/').is_some_and(|(ready, all)| number(ready) && number(all))
        })?;
        let (before, after) = words.split_at_checked(ready)?;
        let (namespace, name) = match before {
            [name] => (None, *name),
            [namespace, name] => (Some(*namespace), *name),
            _ => return None,
        };
        let address = after.iter().position(|word| word.parse::<IpAddr>().is_ok());
        let word = |at: usize| after.get(at).copied();
        let node = address.and_then(|at| word(at + 1)).filter(|node| *node != "<none>");
        let ip = address.and_then(word).and_then(|word| word.parse().ok());
        Some(Self { namespace, name, status: word(1)?, ip, node })
    }
}

/// Reads a listing. Its pods have no probes and no containers, because it does not show them.
pub fn parse(bytes: &[u8]) -> PodList {
    let mut log = RowLog::default();
    let mut items: Vec<Pod> = Vec::new();
    let mut without_namespace = false;
    for (line, text) in crate::ipvs::rows::lines(bytes) {
        let text = String::from_utf8_lossy(text);
        if is_header(&text) || text.starts_with(['#', '$', '\u{feff}']) || text.starts_with("No resources") {
            continue;
        }
        let Some(row) = Row::of(&text) else {
            log.push(line, text.as_bytes(), "it is no row of `kubectl get pods -o wide`");
            continue;
        };
        without_namespace |= row.namespace.is_none();
        items.push(Pod {
            namespace: row.namespace.unwrap_or(DEFAULT).to_owned(),
            name: row.name.to_owned(),
            uid: None,
            config_hash: None,
            node_name: row.node.map(str::to_owned),
            host_network: false,
            ips: row.ip.into_iter().collect(),
            phase: Some(row.status.to_owned()),
            containers: Vec::new(),
        });
    }
    mark_host_network(&mut items);
    let mut notes =
        vec!["this listing shows no probes and no containers: `kubectl get pods -A -o json` does".to_owned()];
    if without_namespace {
        notes.push(format!("it has no column for the namespace: `{DEFAULT}` is assumed"));
    }
    let (others, unreadable) = (BTreeMap::new(), log.finish());
    PodList { form: Form::Text, items, unreadable, notes, others, cut_short: None }
}

/// Only pods in the node's namespace share an address.
fn mark_host_network(pods: &mut [Pod]) {
    let (mut seen, mut shared) = (BTreeSet::new(), BTreeSet::new());
    // Those that have ended keep an address that another may have by now.
    let lives = |pod: &Pod| {
        !matches!(pod.phase.as_deref(), Some("Completed" | "Succeeded" | "Failed" | "Evicted" | "Error"))
    };
    for ip in pods.iter().filter(|pod| lives(pod)).flat_map(|pod| &pod.ips) {
        if !seen.insert(*ip) {
            shared.insert(*ip);
        }
    }
    for pod in pods.iter_mut().filter(|pod| lives(pod)) {
        pod.host_network = pod.ips.iter().any(|ip| shared.contains(ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: &str = "\
NAMESPACE     NAME                     READY   STATUS    RESTARTS     AGE   IP              NODE     NOMINATED NODE   READINESS GATES
default       nginx-5dfb7c896c-x2q2w   1/1     Running   3 (2d ago)   5d    10.23.77.138    node-a   <none>           <none>
kube-system   kube-proxy-abcde         1/1     Running   0            5d    10.10.85.235    node-a   <none>           <none>
kube-system   node-local-dns-fghij     1/1     Running   0            5d    10.10.85.235    node-a   <none>           <none>
default       waiting-0                0/1     Pending   0            1s    <none>          <none>   <none>           <none>
default       job-1                    0/1     Completed 0            9d    10.10.85.235    node-a   <none>           <none>
";

    #[test]
    fn names_and_addresses_are_read() {
        let list = parse(WIDE.as_bytes());
        assert_eq!((list.items.len(), list.unreadable.len(), list.notes.len()), (5, 0, 1));
        let nginx = &list.items[0];
        assert_eq!((nginx.namespace.as_str(), nginx.name.as_str()), ("default", "nginx-5dfb7c896c-x2q2w"));
        assert_eq!(
            (nginx.ips.as_slice(), nginx.node_name.as_deref()),
            (&["10.23.77.138".parse().unwrap()][..], Some("node-a"))
        );
        let hosts: Vec<bool> = list.items.iter().map(|pod| pod.host_network).collect();
        assert_eq!(hosts, [false, true, true, false, false]);
        assert!(list.items[3].ips.is_empty());
    }

    #[test]
    fn rows_without_header_or_namespace_and_bad_rows() {
        let list =
            parse(b"# kubectl get po -o wide | grep nginx\nnginx-0 1/1 Running 0 5d fd00::5 node-a\nhello\n");
        assert_eq!((list.items[0].namespace.as_str(), list.items[0].ips.len()), ("default", 1));
        assert_eq!((list.unreadable[0].line, list.notes.len()), (3, 2));
        for line in WIDE.lines().take(4) {
            assert!(is_row(line), "{line}");
        }
        for line in [
            "nginx ClusterIP 10.0.0.1 <none> 80/TCP 5d",
            "NAME READY UP-TO-DATE AVAILABLE AGE",
            "web 1/1 1 1 5d",
            "",
        ] {
            assert!(!is_row(line), "{line}");
        }
    }
}
