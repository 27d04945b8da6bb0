//! Bad input: what is good of it is used, what is not is said, and nothing hangs.

use std::os::unix::fs::symlink;

use super::*;

fn lab(name: &str) -> String {
    files("captures", &[&format!("lab-6.1-{name}")]).remove(0)
}

#[test]
fn what_does_not_exist_is_refused_by_name() {
    refused(&run(&["analyze", "/nowhere/at/all.pcap"]), &["/nowhere/at/all.pcap"]);
    refused(&run(&["analyze", "/dev/null"]), &["/dev/null", "device"]);
}

#[test]
fn a_cut_capture_is_used_up_to_the_cut_and_incomplete() {
    let bytes = fs::read(lab("node-any.pcap")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut").display().to_string();
    for length in (0..bytes.len()).step_by(97) {
        fs::write(&path, &bytes[..length]).unwrap();
        let found = analyze(std::slice::from_ref(&path));
        assert!(found.incidents.len() <= 1, "{length}");
    }
    fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let found = analyze(std::slice::from_ref(&path));
    assert_eq!(found.only()["verdict"], "collision");
    assert!(found.summary["incomplete"].to_string().contains("ends within"), "{}", found.summary);
}

/// zeek/zeek#2339: an unknown link type is never "0 collisions" without a word.
#[test]
fn an_unknown_link_type_is_said_and_incomplete() {
    let mut bytes = fs::read(lab("node-vpod.pcap")).unwrap();
    bytes[20..24].copy_from_slice(&147_u32.to_le_bytes());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let found = analyze(&[file.path().display().to_string()]);
    assert_eq!(found.status, 3);
    assert!(found.summary["incomplete"].to_string().contains("link type 147"), "{}", found.summary);
}

/// libpcap#1252 and go-iex#3: told by content, whatever the name says.
#[test]
fn garbage_and_empty_files_are_listed_and_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    for (name, content) in
        [("empty.pcap", &[][..]), ("noise.pcapng", &noise), ("notes.txt", b"see you at 10:00\n")]
    {
        fs::write(dir.path().join(name), content).unwrap();
    }
    fs::copy(lab("node-any.pcap"), dir.path().join("z.txt")).unwrap();
    symlink(dir.path(), dir.path().join("loop")).unwrap();
    let found = analyze(&[dir.path().display().to_string()]);
    assert_eq!(found.only()["verdict"], "collision");
    let unknown: Vec<&Value> = found.inputs.iter().filter(|input| input["kind"].is_null()).collect();
    assert_eq!(unknown.len(), 3, "{:#?}", found.inputs);
    assert!(unknown.iter().all(|input| input["skipped"].to_string().contains("not recognised")));
    assert_eq!(found.summary["incomplete"], serde_json::json!([]));
}

#[test]
fn ten_thousand_files_are_walked() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..10_000 {
        fs::write(dir.path().join(format!("{n}.log")), "nothing\n").unwrap();
    }
    fs::copy(lab("node-any.pcap"), dir.path().join("capture")).unwrap();
    let found = analyze(&[dir.path().display().to_string()]);
    assert_eq!((found.only()["verdict"].as_str(), found.inputs.len()), (Some("collision"), 10_001));
}

#[test]
fn standard_input_is_an_input_like_any_other() {
    let input = File::open(lab("node-any.pcap")).unwrap();
    let output = portclash(&["analyze", "-o", "json", "-"]).stdin(input).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"standard input\""));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = portclash(&["analyze", &lab("node-any.pcap")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
}

/// What could not be read may have held the collision: it is never "nothing found, complete".
#[test]
fn what_cannot_be_read_of_a_directory_makes_it_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    let deep = (0..70).fold(dir.path().join("deep"), |path, _| path.join("x"));
    fs::create_dir_all(&deep).unwrap();
    fs::copy(lab("node-any.pcap"), deep.join("capture")).unwrap();
    let found = analyze(&[dir.path().join("deep").display().to_string()]);
    assert_eq!(found.status, 3);
    assert!(found.summary["incomplete"].to_string().contains("64 directories deep"), "{}", found.summary);

    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(lab("ip_vs.txt"), "a/ip_vs").unwrap();
    archive.append_path_with_name(lab("node-any.pcap"), "a/any.pcap").unwrap();
    let bytes = archive.into_inner().unwrap();
    let path = dir.path().join("cut.tar");
    fs::write(&path, &bytes[..700]).unwrap();
    let found = analyze(&[path.display().to_string()]);
    assert_eq!(found.status, 3, "{}", found.summary);
    assert!(found.summary["incomplete"].to_string().contains("cut.tar"), "{}", found.summary);
}

/// A compressed log that was cut off: what is left of it may be too little to be recognised.
#[test]
fn a_compressed_log_that_is_cut_is_incomplete() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&fs::read(&files("seed", &["kubelet.log"])[0]).unwrap()).unwrap();
    let bytes = gzip.finish().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for length in [bytes.len() / 3, bytes.len() - 4] {
        fs::write(file.path(), &bytes[..length]).unwrap();
        let found = analyze(&[file.path().display().to_string()]);
        assert_eq!(found.status, 3, "{length}: {:?}", found.inputs);
    }
}
