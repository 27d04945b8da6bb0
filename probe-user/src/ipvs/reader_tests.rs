use super::*;
use crate::ipvs::table::{Protocol, ServiceId};
use std::cell::Cell;

const HEADER: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
                      Prot LocalAddress:Port Scheduler Flags\n  \
                      -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

fn not_called() -> Result<NetlinkTable, NetlinkError> {
    panic!("netlink must not be asked")
}

fn table(port: u16) -> ServiceTable {
    proc::parse_table(format!("TCP  0A000001:{port:04X} rr\n").as_bytes(), None)
}

#[test]
fn the_file_is_preferred() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ip_vs"), format!("{HEADER}TCP  0A000001:01BB rr \n")).unwrap();
    let (table, source) = read_node_table(dir.path(), None, not_called).unwrap();
    let id = ServiceId::Address(Protocol::Tcp, "10.0.0.1:443".parse().unwrap());
    assert!(table.services.contains_key(&id));
    assert_eq!(source, TableSource { way: Way::File(dir.path().join("ip_vs")), note: None });
}

/// prometheus/node_exporter#623
#[test]
fn a_missing_file_means_that_ipvs_is_not_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let error = read_node_table(dir.path(), None, not_called).unwrap_err();
    assert!(matches!(error, ReadError::NotLoaded(_)), "{error}");
    assert!(error.to_string().contains("IPVS is not in use"));
    assert!(matches!(read_connections(dir.path()), Err(ReadError::NotLoaded(_))));

    let error = read_node_table(&dir.path().join("gone"), None, not_called).unwrap_err();
    assert!(matches!(error, ReadError::NoNamespace(_)), "{error}");
}

#[test]
fn services_alone_come_by_netlink_where_ipvs_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let error = read_node_services(dir.path(), not_called).unwrap_err();
    assert!(matches!(error, ReadError::NotLoaded(_)), "{error}");
    // What the file holds plays no part.
    std::fs::write(dir.path().join("ip_vs"), "").unwrap();
    let read = || Ok(NetlinkTable { table: table(1), note: None });
    let (found, source) = read_node_services(dir.path(), read).unwrap().unwrap();
    assert_eq!(found, table(1));
    assert_eq!(source.way, Way::Netlink { because: "the services alone".to_owned() });
    let failed = || Err(NetlinkError::FamilyMissing("IPVS".to_owned()));
    assert_eq!(read_node_services(dir.path(), failed).unwrap(), None);
}

#[test]
fn a_masked_file_is_read_by_netlink() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ip_vs"), "").unwrap();
    let read = || Ok(NetlinkTable { table: table(1), note: Some("changing".to_owned()) });
    let (found, source) = read_node_table(dir.path(), None, read).unwrap();
    assert_eq!(found, table(1));
    assert_eq!(source.note.as_deref(), Some("changing"));
    let Way::Netlink { because } = source.way else { panic!("{source:?}") };
    assert!(because.contains("masked"), "{because}");

    let error = read_node_table(dir.path(), None, || Err(NetlinkError::FamilyMissing("IPVS".to_owned())));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("masked") && error.contains("not loaded"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_read_by_netlink() {
    let dir = tempfile::tempdir().unwrap();
    // A directory in its place fails to read for root too.
    std::fs::create_dir(dir.path().join("ip_vs")).unwrap();
    let read = || Ok(NetlinkTable { table: table(2), note: None });
    let (found, source) = read_node_table(dir.path(), None, read).unwrap();
    assert_eq!(found, table(2));
    assert!(matches!(source.way, Way::Netlink { .. }));
}

#[test]
fn a_table_is_read_until_two_reads_agree() {
    let reads = Cell::new(0);
    let settled = settle(|| {
        reads.set(reads.get() + 1);
        Ok(table(if reads.get() < 3 { reads.get() } else { 9 }))
    });
    assert_eq!(settled.unwrap(), (table(9), None));
    assert_eq!(reads.get(), 4);

    let reads = Cell::new(0);
    let (last, note) = settle(|| {
        reads.set(reads.get() + 1);
        Ok(table(reads.get()))
    })
    .unwrap();
    assert_eq!((last, reads.get()), (table(5), 5));
    assert!(note.unwrap().contains("5 reads"));
}

#[test]
fn connections_come_from_their_own_file() {
    let dir = tempfile::tempdir().unwrap();
    let header = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";
    let row = "TCP 0AF4000A 0050 0A000001 8F60 0AF40014 1F90 CLOSE             7\n";
    std::fs::write(dir.path().join("ip_vs_conn"), format!("{header}{row}")).unwrap();
    assert_eq!(read_connections(dir.path()).unwrap().rows.len(), 1);
}
