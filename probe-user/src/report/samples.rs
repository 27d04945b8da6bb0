//! Incidents for the tests of all formats.

mod names;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::capture::LinkType;
use crate::diagnosis::NodeFacts;
use crate::diagnosis::advice::{Cause, advise};
use crate::diagnosis::incident::{
    Advice, Confidence, Connection, Evidence, Hijack, Incident, LogLine, Outcome, OwnerInfo, Pod, Probe,
    ResetInfo, ServiceInfo, Summary, Verdict,
};
use crate::observation::Nanos;
use crate::report::pcapng::Direction;
use crate::sources::packets::{LivePacket, PacketDevice};

#[cfg(feature = "kube")]
pub(crate) use names::no_sources;
pub(crate) use names::{ambiguous, named};

const NONE: OwnerInfo = OwnerInfo {
    pid: None,
    comm: None,
    exe: None,
    cmdline: None,
    cgroup: None,
    container_id: None,
    pod: None,
    confidence: None,
};

fn seen(at: &str, source: &str, text: &str) -> Evidence {
    Evidence { at: format!("2022-09-15T{at}Z"), source: source.to_owned(), text: text.to_owned() }
}

/// The incident as it was first seen.
pub(crate) fn hijacked() -> Incident {
    let began = "10.23.77.129:36704 sent its first SYN to 10.23.77.138:80 (sequence number 4142039474)";
    let hijack = "IPVS handed the reply of 10.23.77.138:80 to backend 10.23.77.139:8443 as if it were a new connection to service \
                  10.23.77.129:36704";
    let reset = "the stack of backend 10.23.77.139:8443 reset it: RST seq 4142039475 = ISN + 1 (namespace 4026532290)";
    let again = "no reply had reached the socket: the SYN was sent again";
    Incident {
        schema: "portclash.incident/v1",
        id: "20220915T190902.533940000Z-10.23.77.129:36704-10.23.77.138:80".to_owned(),
        verdict: Verdict::Collision,
        outcome: Outcome::Hijacked,
        confidence: Confidence::Proven,
        started_at: "2022-09-15T19:09:02.533940000Z".to_owned(),
        duration_ms: Some(2001),
        connection: Connection {
            local: Some("10.23.77.129:36704".to_owned()),
            remote: Some("10.23.77.138:80".to_owned()),
            netns: Some(4_026_531_840),
            isn: Some(4_142_039_474),
            syn_retransmits: 1,
        },
        service: Some(ServiceInfo {
            protocol: "TCP".to_owned(),
            address: "10.23.77.129:36704".to_owned(),
            scheduler: Some("rr".to_owned()),
            name: Some("kube-system/kubernetes-dashboard:https".to_owned()),
            kind: Some("NodePort".to_owned()),
            backends: vec!["10.23.77.139:8443".to_owned()],
        }),
        owner: OwnerInfo {
            pid: Some(607_529),
            comm: Some("kubelet".to_owned()),
            exe: Some("/usr/bin/kubelet".to_owned()),
            cmdline: Some("/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml".to_owned()),
            cgroup: Some("/system.slice/kubelet.service".to_owned()),
            confidence: Some(Confidence::Proven),
            ..NONE
        },
        probe: Some(Probe {
            r#type: "readiness".to_owned(),
            handler: "httpGet".to_owned(),
            pod: Pod {
                namespace: "default".to_owned(),
                name: "nginx-5dfb7c896c-x2q2w".to_owned(),
                uid: Some("3daea6ef-f286-43f2-8825-51edaa3994d3".to_owned()),
            },
            container: "nginx".to_owned(),
            target: Some("10.23.77.138:80".to_owned()),
            period_s: Some(10),
            timeout_s: Some(2),
            confidence: Confidence::Proven,
        }),
        hijack: Some(Hijack {
            client: "10.23.77.138:80".to_owned(),
            r#virtual: "10.23.77.129:36704".to_owned(),
            backend: "10.23.77.139:8443".to_owned(),
            state: None,
        }),
        resets: ["19:09:02.534203000", "19:09:03.564939000"].map(reset_at).into(),
        log_lines: Vec::new(),
        evidence: vec![
            seen("19:09:02.533940000", "tcp_connect (fentry)", began),
            seen("19:09:02.533990000", "ip_vs_conn_new (kprobe)", hijack),
            seen("19:09:02.534203000", "tcp_v4_send_reset (fentry)", reset),
            seen("19:09:03.564712000", "tcp_retransmit_skb", again),
            seen("19:09:03.564790000", "ip_vs_conn_new (kprobe)", hijack),
            seen("19:09:03.564939000", "tcp_v4_send_reset (fentry)", reset),
            seen(
                "19:09:04.534940000",
                "inet_sock_set_state",
                "its process closed the socket before the handshake completed",
            ),
        ],
        advice: advice(&node(), Verdict::Collision),
    }
}

/// The same, with the kubelet's line about it.
pub(crate) fn logged() -> Incident {
    let mut incident = hijacked();
    incident.log_lines.push(LogLine {
        at: "2022-09-15T19:09:04.534948000Z".to_owned(),
        file: "journal:kubelet".to_owned(),
        line: None,
        text: "I0915 19:09:04.534948  607529 prober.go:121] \"Probe failed\" probeType=\"Readiness\" \
               pod=\"default/nginx-5dfb7c896c-x2q2w\" podUID=3daea6ef-f286-43f2-8825-51edaa3994d3 containerName=\"nginx\" \
               probeResult=failure output=\"Get \\\"http://10.23.77.138:80/\\\": context deadline exceeded (Client.Timeout exceeded \
               while awaiting headers)\""
            .to_owned(),
    });
    incident.evidence.push(seen(
        "19:09:04.534948000",
        "journal:kubelet",
        "the kubelet logged that the readiness probe of container nginx in pod default/nginx-5dfb7c896c-x2q2w failed with a timeout",
    ));
    incident
}

fn reset_at(time: &str) -> ResetInfo {
    ResetInfo {
        at: format!("2022-09-15T{time}Z"),
        netns: Some(4_026_532_290),
        local: "10.23.77.139:8443".to_owned(),
        remote: "10.23.77.138:80".to_owned(),
        seq: 4_142_039_475,
        reason: None,
    }
}

fn node() -> NodeFacts {
    NodeFacts {
        reserved: Some(String::new()),
        local_port_range: Some((1024, 65_000)),
        node_port_range: None,
        service_ports: vec![
            20869, 21980, 23593, 24795, 24855, 28796, 29385, 29515, 31221, 32080, 32443, 35723, 35934, 36321,
            36704,
        ],
    }
}

fn advice(node: &NodeFacts, verdict: Verdict) -> Arc<[Advice]> {
    let local = "10.23.77.129:36704".parse().ok().filter(|_| verdict == Verdict::Collision);
    advise(node, &Cause { verdict, local, remote: "10.23.77.138:80".parse().ok() }).into()
}

pub(crate) fn no_backend() -> Incident {
    let mut incident = hijacked();
    incident.outcome = Outcome::NoBackend;
    incident.hijack = None;
    incident.resets.clear();
    incident.service.as_mut().unwrap().backends.clear();
    incident.evidence.retain(|evidence| !evidence.text.contains("backend"));
    incident.evidence.insert(
        1,
        seen(
            "19:09:02.533990000",
            "ip_vs_leave (kprobe)",
            "IPVS took the reply of 10.23.77.138:80 for a new connection to service 10.23.77.129:36704, which has no backend for \
             it, and answered with ICMP port unreachable",
        ),
    );
    incident
}

pub(crate) fn survived() -> Incident {
    let mut incident = hijacked();
    incident.outcome = Outcome::Survived;
    incident.confidence = Confidence::Likely;
    incident.advice =
        advice(&NodeFacts { node_port_range: Some((20_000, 40_000)), ..node() }, Verdict::Collision);
    incident.hijack = None;
    incident.resets.clear();
    incident.duration_ms = Some(1031);
    incident
        .evidence
        .retain(|evidence| !evidence.text.contains("backend") && !evidence.text.contains("closed"));
    incident.evidence.push(seen("19:09:03.565100000", "inet_sock_set_state", "the handshake completed"));
    incident
}

pub(crate) fn failed() -> Incident {
    let mut incident = survived();
    incident.outcome = Outcome::Failed;
    incident.confidence = Confidence::Possible;
    incident.evidence.truncate(1);
    incident.connection.syn_retransmits = 0;
    incident.duration_ms = Some(500);
    incident.evidence.push(seen(
        "19:09:03.033940000",
        "inet_sock_set_state",
        "its process closed the socket before the handshake completed",
    ));
    incident
}

pub(crate) fn pending() -> Incident {
    let mut incident = failed();
    incident.outcome = Outcome::Pending;
    incident.advice = advice(&NodeFacts { reserved: None, ..node() }, Verdict::Collision);
    incident.duration_ms = None;
    incident.evidence.truncate(1);
    incident
}

pub(crate) fn other_reset() -> Incident {
    let mut incident = failed();
    incident.verdict = Verdict::OtherReset;
    incident.confidence = Confidence::Likely;
    incident.advice = Arc::default();
    incident.evidence.push(seen(
        "19:09:03.100000000",
        "tcp_v4_send_reset (fentry)",
        "this node's own stack, at 10.23.77.129:36704, reset the reply of 10.23.77.138:80: RST seq 4142039475 = ISN + 1 \
         (namespace 4026531840)",
    ));
    incident
}

pub(crate) fn none() -> Incident {
    let mut incident = failed();
    incident.verdict = Verdict::None;
    incident.confidence = Confidence::Likely;
    incident.duration_ms = Some(0);
    incident.advice = Arc::default();
    incident.evidence.truncate(1);
    incident.evidence.push(seen(
        "19:09:02.534000000",
        "inet_sock_set_state",
        "the server refused the connection (ECONNREFUSED)",
    ));
    incident
}

pub(crate) fn unknown_owner() -> Incident {
    let mut incident = hijacked();
    incident.owner = NONE;
    incident.advice =
        advice(&NodeFacts { local_port_range: Some((40_000, 60_000)), ..node() }, Verdict::Collision);
    incident.probe = None;
    let service = incident.service.as_mut().unwrap();
    (service.name, service.kind, service.scheduler) = (None, None, None);
    incident
}

pub(crate) fn ipv6() -> Incident {
    let text = serde_json::to_string(&hijacked().evidence).unwrap();
    let v6 = |text: &str| {
        text.replace("10.23.77.129:", "[fd00:10:23:77::129]:")
            .replace("10.23.77.138:", "[fd00:10:23:77::138]:")
            .replace("10.23.77.139:", "[fd00:10:23:77::139]:")
    };
    let all: Vec<BTreeMap<String, String>> = serde_json::from_str(&v6(&text)).unwrap();
    let mut incident = unknown_owner();
    incident.owner.pid = Some(4711);
    incident.owner.comm = Some("node-cache".to_owned());
    incident.owner.container_id =
        Some("0f3c8c9d6c2b7d1e5a4f3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e".to_owned());
    incident.owner.pod =
        Some(Pod { namespace: "kube-system".to_owned(), name: "node-local-dns-7xk2p".to_owned(), uid: None });
    incident.evidence = all
        .into_iter()
        .map(|e| Evidence { at: e["at"].clone(), source: e["source"].clone(), text: e["text"].clone() })
        .collect();
    for address in [&mut incident.connection.local, &mut incident.connection.remote] {
        *address = address.as_deref().map(v6);
    }
    let service = incident.service.as_mut().unwrap();
    service.address = v6(&service.address);
    service.backends = service.backends.iter().map(|backend| v6(backend)).collect();
    let hijack = incident.hijack.as_mut().unwrap();
    hijack.backend = v6(&hijack.backend);
    hijack.client = v6(&hijack.client);
    hijack.r#virtual = v6(&hijack.r#virtual);
    incident
}

pub(crate) fn exhaustion() -> Incident {
    Incident {
        verdict: Verdict::Exhaustion,
        outcome: Outcome::Failed,
        confidence: Confidence::Proven,
        duration_ms: Some(1804),
        connection: Connection { local: None, isn: None, syn_retransmits: 0, ..hijacked().connection },
        service: None,
        probe: None,
        hijack: None,
        resets: Vec::new(),
        evidence: vec![seen(
            "19:09:02.533940000",
            "tcp_v4_connect (fexit)",
            "connect() to 10.23.77.138:80 failed with EADDRNOTAVAIL 37 times within 1.804 s: no free source port",
        )],
        advice: advice(
            &NodeFacts { local_port_range: Some((32_768, 60_999)), ..node() },
            Verdict::Exhaustion,
        ),
        ..hijacked()
    }
}

pub(crate) fn summary() -> Summary {
    Summary {
        schema: "portclash.summary/v1",
        verdicts: BTreeMap::from([(Verdict::Collision, 3), (Verdict::OtherReset, 1), (Verdict::None, 2)]),
        connects_seen: Some(41_208),
        probe_failures_elsewhere: Some(2),
        probe_failures_ambiguous: Some(0),
        lost: BTreeMap::new(),
        hooks: BTreeMap::from([
            ("connect".to_owned(), "fentry tcp_connect".to_owned()),
            ("hijack".to_owned(), "kprobe ip_vs_conn_new".to_owned()),
            ("reset".to_owned(), "fentry tcp_v4_send_reset".to_owned()),
        ]),
        incomplete: Vec::new(),
    }
}

pub(crate) fn summary_incomplete() -> Summary {
    let losses = BTreeMap::from([("ring full".to_owned(), 12), ("map full".to_owned(), 1)]);
    let mut hooks = summary().hooks;
    hooks.remove("hijack");
    Summary {
        verdicts: BTreeMap::new(),
        connects_seen: None,
        probe_failures_elsewhere: None,
        probe_failures_ambiguous: None,
        lost: BTreeMap::from([("connect".to_owned(), losses)]),
        hooks,
        incomplete: vec![
            "13 events were lost, so connections may be missing or lack evidence.".to_owned(),
            "No hook saw IPVS itself (kprobes are not available in this kernel): without a reset, a collision cannot be proven."
                .to_owned(),
        ],
        ..summary()
    }
}

/// An Ethernet device.
pub(crate) fn device(name: &str) -> PacketDevice {
    PacketDevice { netns: 7, index: 1, name: name.to_owned(), link: LinkType::ETHERNET }
}

/// A packet of a connection, without any content.
pub(crate) fn packet(isn: u32, at: Nanos) -> LivePacket {
    LivePacket {
        at,
        isn,
        device: device("eth0"),
        direction: Direction::Inbound,
        original: 60,
        bytes: vec![0; 54],
    }
}
