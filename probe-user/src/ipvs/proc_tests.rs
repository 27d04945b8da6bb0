use super::*;
use crate::ipvs::table::{Forward, Protocol, Service};
use std::fmt::Write as _;

const HEADER: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
                      Prot LocalAddress:Port Scheduler Flags\n  \
                      -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

fn table(rows: &str) -> ServiceTable {
    parse_table(format!("{HEADER}{rows}").as_bytes(), Some(250))
}

fn tcp(address: &str) -> ServiceId {
    ServiceId::Address(Protocol::Tcp, address.parse().unwrap())
}

#[test]
fn a_service_and_its_backend() {
    let table = table(
        "TCP  0A000001:8F60 rr  persistent 2700000 FFFFFFFF\n  \
         -> 0AF40014:1F90      Masq    1      0          1         \n",
    );
    let backend = Backend { address: "10.244.0.20:8080".parse().unwrap(), forward: Forward::Masq, weight: 1 };
    let service = Service {
        id: tcp("10.0.0.1:36704"),
        scheduler: Some("rr".into()),
        persistent_s: Some(10800),
        one_packet: false,
        backends: vec![backend],
    };
    assert_eq!(table.services.into_values().collect::<Vec<_>>(), [service]);
    assert_eq!(table.unreadable, []);
}

#[test]
fn persistence_is_in_jiffies_of_the_kernel_that_wrote_it() {
    let row = b"TCP  0A000001:8F60 rr  persistent 2700000 FFFFFFFF\n";
    for (hz, seconds) in [(Some(1000), 2700), (Some(250), 10800), (None, 10800), (Some(0), 10800)] {
        let table = parse_table(row, hz);
        assert_eq!(table.services[&tcp("10.0.0.1:36704")].persistent_s, Some(seconds), "{hz:?}");
    }
}

#[test]
fn ipv6_services_are_in_full_form() {
    let table = table(
        "TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:8F60 rr \n  \
         -> [fd00:0000:0000:0000:0000:0000:0000:0002]:20FB      Masq    1      0          0         \n",
    );
    assert_eq!(
        table.services[&tcp("[fd00::1]:36704")].backends[0].address,
        "[fd00::2]:8443".parse().unwrap()
    );
}

/// kubernetes/kubernetes#75262
#[test]
fn a_service_without_backends_stays() {
    let table = table(
        "TCP  0A016DBB:01BB rr   \nTCP  0A016DBC:01BB rr \n  -> 0AF40014:1F90      Masq    1      0          1\n",
    );
    assert!(table.services[&tcp("10.1.109.187:443")].backends.is_empty());
    assert_eq!(table.services[&tcp("10.1.109.188:443")].backends.len(), 1);
}

/// prometheus/node_exporter#1296
#[test]
fn a_mark_is_hexadecimal_and_no_address() {
    let table = table("FWM  00003DA3 rr \n  -> 64630534:01BB      Tunnel  1      0          0         \n");
    let id = ServiceId::Mark { mark: 15779, ipv6: false };
    assert_eq!(table.services.keys().collect::<Vec<_>>(), [&id]);
    assert_eq!(table.services[&id].backends[0].address, "100.99.5.52:443".parse().unwrap());
    assert!(table.tcp_service_at("0.0.0.0:0".parse().unwrap()).is_none());
}

/// facebookarchive/gnlpy#15
#[test]
fn a_mark_exists_once_per_family() {
    let table = table(
        "FWM  00000001 rr \nFWM  00000001 rr ops \n  -> 0A000001:0000      Route   1      0          0\n\
         FWM  00000007 rr persistent 12500 80000000\nFWM  00000007 rr persistent 12500 FFFFFFFF\n",
    );
    assert_eq!(table.unreadable, []);
    assert!(table.services[&ServiceId::Mark { mark: 1, ipv6: false }].one_packet);
    for (mark, ipv6) in [(1, true), (7, false), (7, true)] {
        assert!(table.services.contains_key(&ServiceId::Mark { mark, ipv6 }), "{mark} {ipv6}");
    }
}

/// prometheus/node_exporter#2388
#[test]
fn a_hundred_thousand_services_are_all_there() {
    let mut rows = String::new();
    for n in 0..100_000_u32 {
        writeln!(rows, "TCP  {:08X}:{:04X} rr ", 0x0a00_0000 + n / 1000, 1 + n % 1000).unwrap();
        rows.push_str("  -> 0AF40014:1F90      Masq    1      0          1         \n");
    }
    let table = table(&rows);
    assert_eq!(table.services.len(), 100_000);
    assert_eq!(table.unreadable, []);
    assert!(table.services.values().all(|service| service.backends.len() == 1));
}

#[test]
fn a_bad_row_hides_only_itself_and_its_backends() {
    let table = table(
        "TCP  0A000001:01BB rr \n  -> 0AF40014:1F9      Masq    1      0          1\n\
         IP_47  0A000002:01BB rr \n  -> 0AF40014:1F90      Masq    1      0          1\n\
         TCP  0A000001:01BB rr \nTCP  0A000003:01BB rr \n  -> 0AF40014:1F90      Masq\n\u{1b}[31m\n",
    );
    assert_eq!(table.services.len(), 2);
    let rows: Vec<_> = table.unreadable.iter().map(|row| row.line).collect();
    assert_eq!(rows, [5, 6, 7, 8, 10, 11]);
    assert_eq!(table.unreadable[5].text, " [31m");
}

#[test]
fn unreadable_rows_are_bounded_and_counted() {
    let table = parse_table("x\n".repeat(crate::ipvs::MAX_UNREADABLE + 7).as_bytes(), None);
    assert_eq!(table.unreadable.len(), crate::ipvs::MAX_UNREADABLE + 1);
    assert_eq!(table.unreadable.last().unwrap().reason, "7 more rows could not be read");
}

#[test]
fn connections_without_templates() {
    let table = parse_connections(
        b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n\
          TCP 0AF4000A 0050 0A000001 8F60 0AF40014 1F90 CLOSE             7\n\
          TCP 0AF4000A 0000 0A000001 8F60 0AF40014 1F90 NONE             50\n\
          IP  0AF4000A 0000 00000000 0007 0AF40014 0000 NONE             50\n\
          UDP fd000000000000000000000000000001 0050\n\
          TCP fd00:0000:0000:0000:0000:0000:0000:0001 0050 fd00:0000:0000:0000:0000:0000:0000:0002 8F60 \
          fd00:0000:0000:0000:0000:0000:0000:0003 1F90 SYN_RECV         59 sip data\n",
    );
    assert_eq!((table.rows.len(), table.templates, table.unreadable.len()), (2, 2, 1));
    let row = &table.rows[0];
    assert_eq!(row.client, "10.244.0.10:80".parse().unwrap());
    assert_eq!(row.virtual_address, "10.0.0.1:36704".parse().unwrap());
    assert_eq!(row.backend, "10.244.0.20:8080".parse().unwrap());
    assert_eq!((row.state.as_str(), row.expires_s), ("CLOSE", 7));
    assert_eq!(table.rows[1].backend, "[fd00::3]:8080".parse().unwrap());
}
