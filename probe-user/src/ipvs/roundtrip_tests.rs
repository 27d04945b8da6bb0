//! Any table, written as each form writes it, is read back the same.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::table::{Backend, Forward, Protocol, Service, ServiceId, ServiceTable};
use super::{Content, Form, parse_services_with};

const HZ: u32 = 300;

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_canonical()),
        Just("::1".parse().unwrap()),
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn id() -> impl Strategy<Value = ServiceId> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    prop_oneof![
        4 => (protocol, address()).prop_map(|(protocol, address)| ServiceId::Address(protocol, address)),
        1 => (1..=u32::MAX, any::<bool>()).prop_map(|(mark, ipv6)| ServiceId::Mark { mark, ipv6 }),
    ]
}

fn backend() -> impl Strategy<Value = Backend> {
    let forward = prop_oneof![Just(Forward::Masq), Just(Forward::Route), Just(Forward::Tunnel)];
    (address(), forward, 0..=i32::MAX.cast_unsigned()).prop_map(|(address, forward, weight)| Backend {
        address,
        forward,
        weight,
    })
}

fn service() -> impl Strategy<Value = Service> {
    let scheduler = prop_oneof![Just("rr"), Just("wlc"), Just("mh")];
    let persistent = prop::option::of(1..=31 * 24 * 3600_u32);
    let backends = prop::collection::vec(backend(), 0..4);
    (id(), scheduler, persistent, any::<bool>(), backends).prop_map(
        |(id, scheduler, persistent_s, one_packet, backends)| Service {
            id,
            scheduler: Some(scheduler.into()),
            persistent_s,
            one_packet,
            backends,
        },
    )
}

fn table() -> impl Strategy<Value = ServiceTable> {
    prop::collection::vec(service(), 1..20).prop_map(|services| ServiceTable {
        services: services.into_iter().map(|service| (service.id, service)).collect(),
        unreadable: Vec::new(),
    })
}

fn hex(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => format!("{:08X}:{:04X}", ip.to_bits(), address.port()),
        IpAddr::V6(ip) => {
            let groups: Vec<_> = ip.segments().iter().map(|group| format!("{group:04x}")).collect();
            format!("[{}]:{:04X}", groups.join(":"), address.port())
        }
    }
}

fn is_ipv6(id: ServiceId) -> bool {
    match id {
        ServiceId::Address(_, address) => address.is_ipv6(),
        ServiceId::Mark { ipv6, .. } => ipv6,
    }
}

/// As the kernel's `ip_vs_info_seq_show` writes it.
pub(crate) fn as_proc(table: &ServiceTable) -> String {
    let mut out = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                   -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
        .to_owned();
    for service in table.services.values() {
        let scheduler = service.scheduler.as_deref().unwrap_or("none");
        let ops = if service.one_packet { "ops " } else { "" };
        match service.id {
            ServiceId::Address(protocol, address) if address.is_ipv6() => {
                write!(out, "{protocol}  {} {scheduler} ", hex(address)).unwrap();
            }
            ServiceId::Address(protocol, address) => {
                write!(out, "{protocol}  {} {scheduler} {ops} ", hex(address)).unwrap();
            }
            ServiceId::Mark { mark, .. } => write!(out, "FWM  {mark:08X} {scheduler} {ops}").unwrap(),
        }
        if let Some(seconds) = service.persistent_s {
            let mask = if is_ipv6(service.id) { "80000000" } else { "FFFFFFFF" };
            write!(out, "persistent {} {mask}", i64::from((seconds * HZ).cast_signed())).unwrap();
        }
        out.push('\n');
        for backend in &service.backends {
            let address = hex(backend.address);
            writeln!(
                out,
                "  -> {address}      {:<7} {:<6} 0          0         ",
                backend.forward, backend.weight
            )
            .unwrap();
        }
    }
    out
}

/// As `ipvsadm -Ln` writes it.
pub(crate) fn as_listing(table: &ServiceTable) -> String {
    let mut out = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                   -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        .to_owned();
    for service in table.services.values() {
        match service.id {
            ServiceId::Address(protocol, address) => write!(out, "{protocol}  {address}").unwrap(),
            ServiceId::Mark { mark, ipv6: true } => write!(out, "FWM  {mark} IPv6").unwrap(),
            ServiceId::Mark { mark, ipv6: false } => write!(out, "FWM  {mark}").unwrap(),
        }
        write!(out, " {}", service.scheduler.as_deref().unwrap_or("none")).unwrap();
        service.persistent_s.iter().for_each(|seconds| write!(out, " persistent {seconds}").unwrap());
        out.push_str(if service.one_packet { " ops\n" } else { "\n" });
        for backend in &service.backends {
            let address = backend.address.to_string();
            writeln!(out, "  -> {address:<28} {:<7} {:<6} 0          0", backend.forward, backend.weight)
                .unwrap();
        }
    }
    out
}

/// As `ipvsadm -Sn` writes it.
pub(crate) fn as_save(table: &ServiceTable) -> String {
    let mut out = String::new();
    for service in table.services.values() {
        let name = match service.id {
            ServiceId::Address(Protocol::Tcp, address) => format!("-t {address}"),
            ServiceId::Address(Protocol::Udp, address) => format!("-u {address}"),
            ServiceId::Address(Protocol::Sctp, address) => format!("--sctp-service {address}"),
            ServiceId::Mark { mark, ipv6: true } => format!("-f {mark} -6"),
            ServiceId::Mark { mark, ipv6: false } => format!("-f {mark}"),
        };
        write!(out, "-A {name} -s {}", service.scheduler.as_deref().unwrap_or("none")).unwrap();
        service.persistent_s.iter().for_each(|seconds| write!(out, " -p {seconds}").unwrap());
        out.push_str(if service.one_packet { " -o\n" } else { "\n" });
        for backend in &service.backends {
            let forward = match backend.forward.as_str() {
                "Masq" => "-m",
                "Route" => "-g",
                _ => "-i",
            };
            writeln!(out, "-a {name} -r {} {forward} -w {}", backend.address, backend.weight).unwrap();
        }
    }
    out
}

fn read(text: &str, form: Form) -> ServiceTable {
    let parsed = parse_services_with(text.as_bytes(), Some(HZ)).unwrap();
    assert_eq!(parsed.form, form);
    match parsed.content {
        Content::Services(table) => table,
        Content::Connections(_) => panic!("connections"),
    }
}

/// The table without what `/proc/net/ip_vs` does not carry: the flag `ops` of IPv6 services, and the family of marks
/// that neither persistence nor a backend tells.
fn as_far_as_proc_says(mut table: ServiceTable) -> ServiceTable {
    table.services.retain(|id, service| {
        let ServiceId::Mark { ipv6, .. } = id else { return true };
        service.backends.retain(|backend| backend.address.is_ipv6() == *ipv6);
        service.persistent_s.is_some() || !service.backends.is_empty()
    });
    for service in table.services.values_mut() {
        service.one_packet &= !matches!(service.id, ServiceId::Address(_, address) if address.is_ipv6());
    }
    table
}

proptest! {
    #[test]
    fn proc_is_read_back(table in table()) {
        let table = as_far_as_proc_says(table);
        prop_assert_eq!(read(&as_proc(&table), Form::Proc), table);
    }

    #[test]
    fn a_listing_is_read_back(table in table()) {
        prop_assert_eq!(read(&as_listing(&table), Form::Listing), table);
    }

    #[test]
    fn saved_commands_are_read_back(table in table()) {
        prop_assert_eq!(read(&as_save(&table), Form::Save), table);
    }
}
