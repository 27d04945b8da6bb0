//! Captures that were recorded in the lab on real kernels (`tests/captures/README.md`).

use super::*;

const KERNELS: [&str; 2] = ["6.1", "6.12"];

fn of(kernel: &str, names: &[&str]) -> Vec<String> {
    let names: Vec<String> = names.iter().map(|name| format!("lab-{kernel}-{name}")).collect();
    files("captures", &names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The incident as the live trace told it.
fn live(kernel: &str) -> Value {
    let text = fs::read_to_string(&of(kernel, &["trace.json"])[0]).unwrap();
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

/// Addresses, numbers and counts that packets show.
fn facts(incident: &Value) -> Value {
    let resets: Vec<_> =
        incident["resets"].as_array().unwrap().iter().map(|r| [&r["local"], &r["seq"]]).collect();
    let connection = &incident["connection"];
    let fields = ["local", "remote", "isn", "syn_retransmits"].map(|field| &connection[field]);
    let hijack = ["client", "virtual", "backend"].map(|field| &incident["hijack"][field]);
    serde_json::json!([
        incident["verdict"],
        incident["outcome"],
        incident["confidence"],
        fields,
        hijack,
        resets
    ])
}

/// A pcapng file without custom blocks: what a program that does not know them would leave.
fn without_json(path: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let length = word(at + 4) as usize;
        if word(at) != 0xbad {
            kept.extend_from_slice(&bytes[at..at + length]);
        }
        at += length;
    }
    assert!(kept.len() < bytes.len(), "there was JSON in it");
    kept
}

#[test]
fn a_capture_of_all_devices_of_the_node_proves_it_and_the_control_is_none() {
    for kernel in KERNELS {
        for capture in ["node-any.pcap", "node-any-sll.pcap"] {
            for with in [&["ip_vs.txt"][..], &["ipvsadm.txt"], &[]] {
                let found = analyze(&of(kernel, &[&[capture], with].concat()));
                assert_eq!(facts(found.only()), facts(&live(kernel)), "{kernel} {capture} {with:?}");
                assert_eq!(found.summary["incomplete"], serde_json::json!([]));
            }
        }
    }
}

#[test]
fn the_pods_own_capture_is_likely_with_a_table_and_possible_without() {
    for kernel in KERNELS {
        for capture in ["pod.pcapng", "node-vpod.pcap"] {
            let found = analyze(&of(kernel, &[capture, "ip_vs.txt"]));
            assert_eq!(found.judged(), ["collision", "pending", "likely"], "{kernel} {capture}");
            let found = analyze(&of(kernel, &[capture]));
            assert_eq!(found.judged()[2], "possible", "{kernel} {capture}");
        }
    }
}

#[test]
fn the_captures_of_pod_and_backend_prove_it_together() {
    for kernel in KERNELS {
        let found = analyze(&of(kernel, &["backend.pcap", "pod.pcapng"]));
        assert_eq!(facts(found.only()), facts(&live(kernel)), "{kernel}");
        let alone = analyze(&of(kernel, &["backend.pcap", "ip_vs.txt"]));
        assert_eq!(alone.incidents.len(), 0, "{kernel}");
    }
}

#[test]
fn the_connection_table_proves_what_the_pods_capture_cannot() {
    for kernel in KERNELS {
        let found = analyze(&of(kernel, &["pod.pcapng", "ip_vs.txt", "ip_vs_conn.txt"]));
        assert_eq!(found.judged(), ["collision", "hijacked", "proven"], "{kernel}");
        assert_eq!(found.only()["hijack"], live(kernel)["hijack"]);
        // Without any packet: the row alone, of a server that is a "client".
        let found = analyze(&of(kernel, &["ip_vs.txt", "ip_vs_conn.txt"]));
        assert_eq!(found.only()["hijack"], live(kernel)["hijack"], "{kernel}");
        assert_eq!(found.only()["connection"]["isn"], Value::Null);
    }
}

#[test]
fn everything_of_a_directory_is_one_incident() {
    for kernel in KERNELS {
        let all = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(folder("captures")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with(&format!("lab-{kernel}-")) {
                fs::copy(&path, all.path().join(name)).unwrap();
            }
        }
        let found = analyze(&[all.path().display().to_string()]);
        assert_eq!(facts(found.only()), facts(&live(kernel)), "{kernel}");
        assert_eq!(found.only()["owner"], live(kernel)["owner"]);
        assert_eq!(found.inputs.len(), 11);
    }
}

/// Live to offline and back: `trace --write` holds the same incident, as packets and as JSON.
#[test]
fn what_trace_wrote_gives_the_incidents_that_trace_told() {
    for kernel in KERNELS {
        let path = of(kernel, &["trace.pcapng"]);
        let found = analyze(&path);
        assert_eq!(facts(found.only()), facts(&live(kernel)), "{kernel}");
        for field in ["id", "owner", "service", "hijack", "resets"] {
            assert_eq!(found.only()[field], live(kernel)[field], "{kernel} {field}");
        }
        let packets = tempfile::NamedTempFile::new().unwrap();
        fs::write(packets.path(), without_json(&path[0])).unwrap();
        let found = analyze(&[packets.path().display().to_string()]);
        assert_eq!(facts(found.only()), facts(&live(kernel)), "{kernel}: from the packets alone");
        assert_eq!(found.only()["owner"]["comm"], Value::Null);
    }
}

#[test]
fn compressed_and_archived_captures_are_the_same() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(&of("6.1", &["node-any.pcap"])[0]).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(&of("6.1", &["node-any.pcap"])[0], "host/captures/any.pcap").unwrap();
    archive.append_path_with_name(&of("6.1", &["ip_vs.txt"])[0], "host/proc/net/ip_vs").unwrap();
    for (name, content) in [("a.bin", gzip.finish().unwrap()), ("b.bin", archive.into_inner().unwrap())] {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        let found = analyze(&[path.display().to_string()]);
        assert_eq!(facts(found.only()), facts(&live("6.1")), "{name}");
    }
}
