use super::*;
use crate::capture::{self, Account};
use crate::report::samples::{self, device, packet};

const ISN: u32 = 4_142_039_474;

fn log(folder: &Path, size: Option<u64>, files: Option<usize>) -> PacketLog {
    let options = CaptureOptions { path: folder.join("hit.pcapng"), size, files };
    PacketLog::create(options, 0, |netns| Some(format!("of pid {netns}"))).unwrap()
}

/// Times of the packets in a file, and what the reader says about it.
fn read(path: &Path) -> (Vec<Nanos>, Account) {
    let mut times = Vec::new();
    let file = File::open(path).unwrap();
    let account = capture::read(file, &mut |frame| times.extend(frame.at)).unwrap();
    assert_eq!((account.damaged, account.cut), (0, false), "{:?}", account.notes);
    (times, account)
}

#[test]
fn packets_wait_until_it_is_clear_whose_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hit.pcapng");
    let mut log = log(folder.path(), None, None);
    log.take(vec![packet(ISN, 1), packet(5, 2), packet(ISN, 3)]).unwrap();
    assert!(read(&path).0.is_empty());
    log.clear(&samples::hijacked()).unwrap();
    assert_eq!(read(&path).0, [1, 3]);
    // From now on they are written as they come.
    log.take(vec![packet(ISN, 9)]).unwrap();
    assert_eq!(read(&path).0, [1, 3, 9]);
    log.concluded(&samples::hijacked()).unwrap();
    log.finish(true, &BTreeMap::from([(device("eth0"), 2), (device("eth1"), 1)]), 10).unwrap();
    let (times, account) = read(&path);
    assert_eq!(times, [1, 3, 9, 2], "what no incident was told of is written in the end");
    let interfaces = account.interfaces.iter().map(|each| (each.name.as_deref().unwrap(), each.dropped));
    assert_eq!(interfaces.collect::<Vec<_>>(), [("eth0@7", Some(2)), ("eth1@7", Some(1))]);
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    assert!(text.contains("network namespace 7: of pid 7") && text.contains("portclash.incident/v1"));
}

#[test]
fn what_was_not_asked_for_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), None, None);
    log.take(vec![packet(ISN, 1)]).unwrap();
    log.unwanted(Some(ISN));
    log.take(vec![packet(ISN, 2), packet(5, 3)]).unwrap();
    log.finish(false, &BTreeMap::new(), 10).unwrap();
    assert!(read(&folder.path().join("hit.pcapng")).0.is_empty());
}

#[test]
fn full_files_are_followed_by_others_and_the_last_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), Some(1), Some(2));
    for isn in 1..=4 {
        let mut incident = samples::hijacked();
        incident.connection.isn = Some(isn);
        log.take(vec![packet(isn, isn.into()), packet(isn, isn.into())]).unwrap();
        log.clear(&incident).unwrap();
    }
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["hit.3.pcapng", "hit.4.pcapng"], "packets of one connection stay together");
    assert_eq!(read(&folder.path().join("hit.4.pcapng")).0, [4, 4]);
}

#[test]
fn too_many_packets_are_written_before_it_is_clear_whose_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), None, None);
    log.take((0..=MAX_WAITING).map(|_| packet(5, 1)).collect()).unwrap();
    assert_eq!(read(&folder.path().join("hit.pcapng")).0.len(), MAX_WAITING + 1);
    assert!(log.waiting.oldest().is_none());
}

#[test]
fn a_file_that_cannot_be_made_is_said_by_name() {
    let options = CaptureOptions { path: "/nonexistent/hit.pcapng".into(), size: None, files: None };
    let error = PacketLog::create(options, 0, |_| None).err().unwrap().to_string();
    assert!(error.contains("/nonexistent/hit.pcapng") && error.contains("No such file"), "{error}");
}
