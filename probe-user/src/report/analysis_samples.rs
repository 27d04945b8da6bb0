//! Analyses for the tests of all formats.

use super::samples;
use crate::analysis::model::{
    Analysed, Analysis, Arrow, ArrowKind, INPUT_SCHEMA, InputAccount, Ladder, Moment, Party, PortMap, Role,
};
use crate::analysis::picture::nanos;
use crate::diagnosis::incident::{Confidence, Incident, Outcome, Summary, Verdict};
use crate::node::sysctl::EphemeralRange;
use crate::observation::Nanos;

fn at(time: &str) -> Nanos {
    nanos(&format!("2022-09-15T{time}Z")).unwrap()
}

fn arrow(time: Option<&str>, (from, to): (Role, Role), kind: ArrowKind, label: &str, place: &str) -> Arrow {
    Arrow { at: time.map(at), from, to, kind, label: label.to_owned(), place: place.to_owned() }
}

fn moment(time: Option<&str>, source: &str, text: &str) -> Moment {
    Moment { at: time.map(at), source: source.to_owned(), text: text.to_owned() }
}

fn input(name: &str, kind: Option<&str>, read: &str, skipped: &[&str]) -> InputAccount {
    InputAccount {
        schema: INPUT_SCHEMA,
        name: name.to_owned(),
        kind: kind.map(str::to_owned),
        bytes: Some(4096),
        sha256: kind.map(|_| "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned()),
        read: read.to_owned(),
        skipped: skipped.iter().map(|text| (*text).to_owned()).collect(),
    }
}

fn party(role: Role, title: &str, address: &str) -> Party {
    Party { role, title: title.to_owned(), address: (!address.is_empty()).then(|| address.to_owned()) }
}

fn summary(verdicts: &[(Verdict, u64)]) -> Summary {
    Summary {
        schema: "portclash.summary/v1",
        verdicts: verdicts.iter().copied().collect(),
        ..Summary::default()
    }
}

/// The incident that was published: a capture in the pod, no backend in sight.
fn seed_incident() -> Incident {
    let mut incident = samples::logged();
    incident.confidence = Confidence::Likely;
    incident.outcome = Outcome::Failed;
    incident.hijack = None;
    incident.resets.iter_mut().for_each(|reset| "10.23.77.129:36704".clone_into(&mut reset.local));
    incident.log_lines[0].file = "kubelet.log".to_owned();
    incident.log_lines[0].line = Some(1);
    incident.evidence.retain(|evidence| !evidence.text.contains("backend"));
    incident.connection.netns = None;
    let owner = &mut incident.owner;
    (owner.pid, owner.exe, owner.cmdline, owner.cgroup) = (None, None, None, None);
    owner.confidence = Some(Confidence::Likely);
    let service = incident.service.as_mut().unwrap();
    (service.name, service.scheduler) = (Some("kube-system/kubernetes-dashboard:443".to_owned()), None);
    service.backends.clear();
    incident
}

fn seed_ladder() -> Ladder {
    use ArrowKind::{Reset, Syn, SynAck};
    use Role::{Client, Server};
    let (out, back, pcap) = ((Client, Server), (Server, Client), "capture.txt");
    Ladder {
        parties: vec![
            party(Client, "kubelet", "10.23.77.129:36704"),
            party(Role::Ipvs, "IPVS on the node", "10.23.77.129:36704"),
            party(Server, "pod default/nginx-5dfb7c896c-x2q2w", "10.23.77.138:80"),
        ],
        arrows: vec![
            arrow(Some("19:09:02.533940"), out, Syn, "SYN seq 4142039474", pcap),
            arrow(Some("19:09:02.533962"), (Server, Role::Ipvs), SynAck, "SYN-ACK seq 1523494022", pcap),
            arrow(Some("19:09:02.534203"), (Role::Ipvs, Server), Reset, "RST seq 4142039475", pcap),
            arrow(Some("19:09:03.564712"), out, Syn, "SYN again seq 4142039474", pcap),
            arrow(Some("19:09:03.564737"), back, SynAck, "SYN-ACK seq 1539599868", pcap),
            arrow(Some("19:09:03.564939"), (Role::Ipvs, Server), Reset, "RST seq 4142039475", pcap),
        ],
    }
}

/// What was published, as files.
pub(crate) fn seed() -> Analysis {
    let timeline = vec![
        moment(Some("19:08:52"), "nginx-access.log, line 2", "nginx answered GET / with 200"),
        moment(
            Some("19:09:02.533940"),
            "capture.txt, packet 649",
            "10.23.77.129:36704 > 10.23.77.138:80: SYN seq 4142039474",
        ),
        moment(
            Some("19:09:02.533962"),
            "capture.txt, packet 650",
            "10.23.77.138:80 > 10.23.77.129:36704: SYN-ACK seq 1523494022 ack 4142039475",
        ),
        moment(
            Some("19:09:02.534203"),
            "capture.txt, packet 651",
            "10.23.77.129:36704 > 10.23.77.138:80: RST seq 4142039475",
        ),
        moment(Some("19:09:03.564712"), "capture.txt, packet 652", "the SYN was sent again"),
        moment(
            Some("19:09:04.534948"),
            "kubelet.log, line 1",
            "the kubelet logged that the readiness probe of container nginx in pod default/nginx-5dfb7c896c-x2q2w failed with a timeout",
        ),
        moment(None, "services.txt, line 3", "Service kube-system/kubernetes-dashboard has NodePort 36704"),
    ];
    Analysis {
        incidents: vec![Analysed { incident: seed_incident(), timeline, ladder: seed_ladder(), packets: Vec::new() }],
        left_out: 0,
        summary: Summary { probe_failures_elsewhere: Some(0), ..summary(&[(Verdict::Collision, 1)]) },
        inputs: vec![
            input("capture.txt", Some("packet list of Wireshark"), "6 packets", &[]),
            input("ipvsadm.txt", Some("ipvsadm -Ln"), "15 services", &["The last service is cut off."]),
            input("services.txt", Some("kubectl get services"), "8 Services", &[]),
            input("kubelet.log", Some("kubelet log"), "1 failed probe", &[]),
            input("nginx-access.log", Some("access log of nginx"), "4 requests", &[]),
            input("holiday.jpg", None, "", &["JPEG image."]),
        ],
        clocks: vec!["nginx-access.log is written in UTC; 8 h were added to fit the others.".to_owned()],
        ports: Some(PortMap {
            ephemeral: EphemeralRange { first: 1024, last: 65000 },
            reserved: None,
            node_ports: Some((20_000, 40_000)),
            services: [20869_u16, 21980, 24795, 24855, 28796, 31221, 32080, 32443, 35723, 35934, 36321, 36704, 37629]
                .into_iter()
                .collect(),
        }),
        notes: vec![
            "ipvsadm.txt lacks address 10.23.77.129; the NodePort of Service kube-system/kubernetes-dashboard covers it.".to_owned(),
            "nginx logged no request at 19:09:02, where its 10 s rhythm has one.".to_owned(),
        ],
    }
}

/// Captured on all sides: the hijack itself is seen; three incidents of one kind.
pub(crate) fn proven() -> Analysis {
    use ArrowKind::{Hijacked, Reset, Syn, SynAck};
    use Role::{Backend, Client, Ipvs, Server};
    let incident = samples::named();
    let round = |second: u32, syn: &str| {
        let time = |micros: u32| format!("19:09:{second:02}.{micros:06}");
        vec![
            arrow(Some(&time(533_940)), (Client, Server), Syn, syn, "node.pcapng any"),
            arrow(Some(&time(533_962)), (Server, Ipvs), SynAck, "SYN-ACK seq 1523494022", "pod.pcapng eth0"),
            arrow(
                Some(&time(533_990)),
                (Ipvs, Backend),
                Hijacked,
                "SYN-ACK seq 1523494022",
                "backend.pcapng eth0",
            ),
            arrow(
                Some(&time(534_020)),
                (Backend, Server),
                Reset,
                "RST seq 4142039475",
                "backend.pcapng eth0",
            ),
        ]
    };
    let mut ladder = Ladder {
        parties: vec![
            party(Client, "kubelet", "10.23.77.129:36704"),
            party(Ipvs, "IPVS on the node", "10.23.77.129:36704"),
            party(Server, "pod default/nginx-5dfb7c896c-x2q2w", "10.23.77.138:80"),
            party(Backend, "pod kube-system/kubernetes-dashboard-7d8f5d5c4-l9k2m", "10.23.77.139:8443"),
        ],
        arrows: round(2, "SYN seq 4142039474"),
    };
    for second in [3, 5, 9, 17] {
        ladder.arrows.extend(round(second, "SYN again seq 4142039474"));
    }
    // Nobody captured at the pod any more.
    let last = ladder.arrows.len() - 3;
    (ladder.arrows[last].at, ladder.arrows[last].place) = (None, String::new());
    let later = |at: &str, port: u16, logged: bool| {
        let mut incident = if logged { samples::logged() } else { samples::hijacked() };
        at.clone_into(&mut incident.started_at);
        incident.connection.local = Some(format!("10.23.77.129:{port}"));
        incident.service.clone_from(&samples::named().service);
        Analysed::of_incident(incident)
    };
    let mut analysis = Analysis {
        incidents: vec![
            Analysed {
                timeline: crate::analysis::picture::timeline(&incident),
                incident,
                ladder,
                packets: Vec::new(),
            },
            later("2022-09-15T19:14:32.100000000Z", 36704, true),
            later("2022-09-15T20:01:02.000000000Z", 36704, false),
        ],
        summary: summary(&[(Verdict::Collision, 3)]),
        inputs: vec![
            input(
                "sosreport.tar.xz/node.pcapng",
                Some("pcapng capture"),
                "1,204 packets on 1 interface",
                &[],
            ),
            input(
                "pod.pcapng",
                Some("pcapng capture"),
                "811 packets on 1 interface",
                &["The last packet is cut off."],
            ),
            input("backend.pcapng", Some("pcapng capture"), "94 packets on 1 interface", &[]),
            input("ip_vs", Some("/proc/net/ip_vs"), "15 services", &[]),
        ],
        clocks: vec!["pod.pcapng runs 0.000012 s ahead of node.pcapng.".to_owned()],
        ..Analysis::default()
    };
    analysis.summary.incomplete.push("pod.pcapng ends in the middle of a packet.".to_owned());
    analysis
}

/// A reset that IPVS has no part in.
pub(crate) fn other_reset() -> Analysis {
    Analysis {
        incidents: vec![Analysed::of_incident(samples::other_reset())],
        summary: summary(&[(Verdict::OtherReset, 1)]),
        inputs: vec![input("node.pcap", Some("pcap capture"), "12 packets on 1 interface", &[])],
        ..Analysis::default()
    }
}

/// Nothing was found.
pub(crate) fn nothing() -> Analysis {
    Analysis {
        summary: summary(&[]),
        inputs: vec![
            input("kubelet.log", Some("kubelet log"), "no failed probe", &[]),
            input("notes.docx", None, "", &[]),
        ],
        ..Analysis::default()
    }
}

/// All of them.
pub(crate) fn all() -> Vec<(&'static str, Analysis)> {
    vec![("seed", seed()), ("proven", proven()), ("other_reset", other_reset()), ("nothing", nothing())]
}
