use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::analysis::conclude;
use crate::capture;
use crate::observation::Nanos;
use crate::report::samples::{self, device, packet};
use crate::sources::offline::{self, Progress};

const MANY: u64 = 1 << 30;

fn options(dir: &Path, max_bytes: u64, max_files: usize) -> Options {
    Options { dir: dir.to_owned(), max_bytes, max_files }
}

/// A recorder at work, and what it tells.
pub(super) struct Tested {
    pub(super) recorder: Recorder,
    pub(super) recent: Recent,
}

impl Tested {
    pub(super) fn open(options: Options) -> Self {
        let recent = Recent::default();
        Self { recorder: Recorder::open(options).unwrap().start(recent.clone()), recent }
    }

    /// Where the capture of an incident is, once all is written.
    pub(super) fn conclude(&mut self, incident: Incident) -> Option<PathBuf> {
        let incident = Arc::new(incident);
        self.recent.push(Arc::clone(&incident));
        self.recorder.concluded(&incident);
        self.recorder.queue.settle();
        self.recent.get(&incident.id).unwrap().capture
    }

    pub(super) fn set_limits(&self, max_bytes: u64, max_files: usize) {
        self.recorder.set_limits(max_bytes, max_files);
        self.recorder.queue.settle();
    }

    pub(super) fn check(&self) {
        self.recorder.queue.check();
        self.recorder.queue.settle();
    }

    pub(super) fn view(&self) -> RecorderView {
        self.recorder.view()
    }

    pub(super) fn take(&mut self, packets: Vec<LivePacket>) {
        self.recorder.take(packets);
    }

    pub(super) fn take_news(&mut self) -> Vec<String> {
        self.recorder.take_news()
    }
}

pub(super) fn recorder(dir: &Path) -> Tested {
    Tested::open(options(dir, MANY, 100))
}

/// An incident of its own: another time, another connection.
pub(super) fn incident(number: u32) -> Incident {
    let mut incident = samples::hijacked();
    incident.id = format!("20220915T19{number:04}.533940000Z-10.23.77.129:36704-10.23.77.138:80");
    incident.connection.isn = Some(number);
    incident
}

pub(super) fn record(recorder: &mut Tested, number: u32) -> Option<PathBuf> {
    recorder.take(vec![packet(number, number.into()), packet(number, Nanos::from(number) + 1)]);
    recorder.conclude(incident(number))
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(super) fn times(path: &Path) -> Vec<Nanos> {
    let mut times = Vec::new();
    let account = capture::read(fs::File::open(path).unwrap(), &mut |frame| times.extend(frame.at)).unwrap();
    assert_eq!((account.damaged, account.cut), (0, false), "{:?}", account.notes);
    times
}

#[tokio::test]
async fn one_incident_is_one_file_with_its_packets_and_the_incident_itself() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("captures");
    let mut recorder = recorder(&dir);
    recorder.take(vec![packet(1, 10), packet(2, 11), packet(1, 12)]);
    let path = recorder.conclude(incident(1)).unwrap();
    assert_eq!(times(&path), [10, 12]);
    let name = "portclash-20220915T190001.533940000Z-10.23.77.129_36704-10.23.77.138_80-1.pcapng";
    assert_eq!(names(&dir), [name]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
    let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    assert!(content.contains("portclash.incident/v1") && content.contains(&incident(1).id));
    // What comes later is dropped, what nobody asked for is not written.
    recorder.take(vec![packet(1, 13)]);
    recorder.recorder.unwanted(Some(2));
    recorder.take(vec![packet(2, 14)]);
    assert_eq!(recorder.conclude(incident(2)), None);
    let bytes = fs::metadata(&path).unwrap().len();
    let packets_dropped = PacketsDropped { late: 2, ..PacketsDropped::default() };
    let expected =
        RecorderView { captures: 1, bytes, written: 1, packets_dropped, ..RecorderView::default() };
    assert_eq!((recorder.view(), recorder.take_news()), (expected, vec![]));
}

#[tokio::test]
async fn an_incident_without_packets_or_sequence_number_has_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    assert_eq!(recorder.conclude(incident(1)), None);
    let mut unknown = incident(2);
    unknown.connection.isn = None;
    assert_eq!(recorder.conclude(unknown), None);
    assert_eq!((names(folder.path()).len(), recorder.view()), (0, RecorderView::default()));
}

#[tokio::test]
async fn the_oldest_captures_go_first_and_files_of_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let foreign = [
        "notes.txt",
        "portclash-0.txt",
        "aaa.pcapng",
        // What somebody saved or copied is not removed.
        "portclash-20220915T190902.533940000Z-10.23.77.129_36704-10.23.77.138_80.pcapng",
        "portclash-20220915T190902.533940000Z-10.23.77.129_36704-10.23.77.138_80-1-mine.pcapng",
        "portclash-20220915T190902.533940000Z-10.23.77.129_36704-10.23.77.138_80-1 (1).pcapng",
        "portclash-lab-of-monday-at-12.pcapng",
    ];
    for name in foreign {
        fs::write(dir.join(name), vec![0; 100_000]).unwrap();
    }
    let target = dir.join("notes.txt");
    let link = dir.join("portclash-00000000T000000.0Z-a-b-0.pcapng");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let mut recorder = Tested::open(options(dir, MANY, 2));
    let paths: Vec<_> = [1, 2, 3].map(|number| record(&mut recorder, number).unwrap()).into();
    assert_eq!(exist(&paths), [false, true, true]);
    assert!(foreign.iter().all(|name| dir.join(name).exists()) && link.is_symlink());
    let view = recorder.view();
    assert_eq!((view.captures, view.written, view.removed), (2, 3, 1));
    // By size: one more fits only without the other two.
    recorder.set_limits(view.bytes / 2 + 10, 5);
    assert_eq!((recorder.view().captures, recorder.view().removed), (1, 2));
    let last = record(&mut recorder, 4).unwrap();
    assert!(last.exists() && !paths[2].exists());
    // An earlier run's count as well.
    let again = Tested::open(options(dir, MANY, 100));
    assert_eq!(again.view().captures, 1);
    let none = Tested::open(options(dir, 0, 100));
    assert_eq!((none.view().captures, none.view().removed, last.exists()), (0, 1, false));
}

fn exist(paths: &[PathBuf]) -> Vec<bool> {
    paths.iter().map(|path| path.exists()).collect()
}

/// Names begin with the time of the incident, and somebody may set the clock back.
#[tokio::test]
async fn the_oldest_captures_are_those_that_were_written_first_whatever_the_clock_says() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut recorder = Tested::open(options(dir, MANY, 4));
    let mut paths: Vec<_> = [9, 8, 2].map(|number| record(&mut recorder, number).unwrap()).into();
    drop(recorder);
    let mut recorder = Tested::open(options(dir, MANY, 4));
    paths.extend([1, 7].map(|number| record(&mut recorder, number).unwrap()));
    assert_eq!(exist(&paths), [false, true, true, true, true]);
    // Ten come after nine, not after one.
    paths.extend([6, 5, 4, 3, 0, 12, 11].map(|number| record(&mut recorder, number).unwrap()));
    assert_eq!(exist(&paths), [[false; 8].as_slice(), &[true; 4]].concat());
}

#[tokio::test]
async fn what_an_earlier_run_left_unfinished_goes_unless_it_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let [first, second] =
        [1, 2].map(|number| format!("portclash-20220915T190902.5Z-unknown-10.0.0.2_80-{number}.pcapng.tmp"));
    let all = [&*first, &second, "other.pcapng.tmp", "portclash-lab.pcapng.tmp"];
    for name in all {
        fs::write(path(name), "half").unwrap();
    }
    let writing = fs::File::options().write(true).open(path(all[1])).unwrap();
    writing.try_lock().unwrap();
    recorder(folder.path());
    assert_eq!(names(folder.path()), ["other.pcapng.tmp", &*second, "portclash-lab.pcapng.tmp"]);
}

#[test]
fn a_directory_that_is_none_is_refused_and_a_link_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    for path in [file, link] {
        let error = Recorder::open(options(&path, MANY, 9)).err().unwrap().to_string();
        assert!(error.contains("no symbolic link") && error.contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_removed_directory_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("captures");
    let mut recorder = recorder(&dir);
    record(&mut recorder, 1).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(record(&mut recorder, 2).unwrap().exists());
    assert_eq!(recorder.view().captures, 1);
}

#[tokio::test]
async fn what_cannot_be_written_is_said_once_and_so_is_that_it_can_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("captures");
    let mut recorder = recorder(&dir);
    fs::remove_dir(&dir).unwrap();
    fs::write(&dir, "in its place").unwrap();
    assert_eq!([record(&mut recorder, 1), record(&mut recorder, 2)], [None, None]);
    let [news] = &*recorder.take_news() else { panic!("told more than once") };
    assert!(
        news.contains("captures") && news.contains("Not a directory") || news.contains("not a directory"),
        "{news}"
    );
    let view = recorder.view();
    assert_eq!((view.failed.write, view.trouble.as_ref()), (2, Some(news)));
    fs::remove_file(&dir).unwrap();
    record(&mut recorder, 3).unwrap();
    assert_eq!(recorder.take_news(), [format!("captures can be written again, after: {news}")]);
    assert_eq!(recorder.view().trouble, None);
    // One that is larger than all may be.
    recorder.set_limits(100, 9);
    assert_eq!(record(&mut recorder, 4), None);
    assert!(recorder.take_news()[0].contains("raise the limit"));
}

#[tokio::test]
async fn a_trouble_is_over_when_captures_could_be_written_again_not_when_the_next_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("captures");
    let mut recorder = recorder(&dir);
    fs::remove_dir(&dir).unwrap();
    fs::write(&dir, "in its place").unwrap();
    assert_eq!(record(&mut recorder, 1), None);
    let [trouble] = &*recorder.take_news() else { panic!("told more than once") };
    recorder.check();
    assert_eq!((recorder.take_news(), recorder.view().trouble.as_ref()), (vec![], Some(trouble)));
    fs::remove_file(&dir).unwrap();
    recorder.check();
    let over = format!("captures can be written again, after: {trouble}");
    assert_eq!((recorder.take_news(), recorder.view().trouble), (vec![over], None));
    assert_eq!((names(&dir).len(), recorder.view().failed.write), (0, 1));
    // Too large for all of them: until that is changed.
    recorder.set_limits(100, 9);
    assert_eq!(record(&mut recorder, 2), None);
    recorder.check();
    assert!(recorder.view().trouble.is_some());
    recorder.set_limits(MANY, 9);
    assert_eq!(recorder.view().trouble, None);
}

/// A file system of 64 KiB; `None` where this process may not mount one.
fn small_disk() -> Option<(tempfile::TempDir, Mounted)> {
    let folder = tempfile::tempdir().unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(folder.path())
        .output();
    mount.is_ok_and(|output| output.status.success()).then(|| {
        let mounted = Mounted(folder.path().to_owned());
        (folder, mounted)
    })
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_survived() {
    let Some((folder, mounted)) = small_disk() else { return };
    let mut recorder = recorder(folder.path());
    let first = record(&mut recorder, 1).unwrap();
    let filler = folder.path().join("filler");
    // Whatever is left, to the last byte.
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write(&mut file, &[0; 4096]).is_ok_and(|count| count > 0) {}
    drop(file);
    assert_eq!([record(&mut recorder, 2), record(&mut recorder, 3)], [None, None]);
    let news = recorder.take_news();
    assert_eq!(news.len(), 1, "{news:?}");
    assert!(news[0].contains("No space left on device") && news[0].contains("make room"), "{news:?}");
    assert_eq!(recorder.view().failed.write, 2);
    assert_eq!(names(folder.path()).len(), 2, "nothing half written stays");
    assert_eq!(times(&first), [1, 2]);
    fs::remove_file(filler).unwrap();
    recorder.check();
    assert_eq!(recorder.view().trouble, None);
    assert!(record(&mut recorder, 4).unwrap().exists());
    assert_eq!((recorder.view().written, recorder.view().trouble), (2, None));
    // The same where nothing may be written at all.
    let read_only = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(&mounted.0).status();
    if read_only.is_ok_and(|status| status.success()) {
        recorder.take_news();
        assert_eq!(record(&mut recorder, 5), None);
        assert!(recorder.take_news()[0].contains("Read-only file system"));
        assert_eq!(recorder.view().failed.write, 3);
    }
}

/// The lab's collision, as packets of the trace.
fn lab_packets(isn: u32) -> Vec<LivePacket> {
    let file = include_bytes!("../../../tests/captures/lab-6.1-trace.pcapng");
    let mut packets = Vec::new();
    capture::read(&file[..], &mut |frame| {
        let device = PacketDevice { index: frame.interface, ..device(&format!("dev{}", frame.interface)) };
        let (at, bytes) = (frame.at.unwrap(), frame.bytes.to_vec());
        packets.push(LivePacket { at, bytes, original: frame.original, device, ..packet(isn, 0) });
    })
    .unwrap();
    packets
}

struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: Option<u64>) {}
    fn at(&mut self, _: u64) {}
}

#[tokio::test]
async fn an_analysis_of_the_capture_gives_the_incident() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let mut live = incident(77);
    recorder.take(lab_packets(77));
    live.connection.isn = Some(77);
    let path = recorder.conclude(live.clone()).unwrap();
    let read = offline::read(&[path], &offline::Options::default(), &mut Silent).unwrap();
    assert_eq!(read.material.earlier.len(), 1, "the incident's own JSON");
    let analysis = conclude(&read.material, &read.packets);
    let ids: Vec<_> = analysis.incidents.iter().map(|found| &found.incident.verdict).collect();
    assert!(!ids.is_empty() && ids.iter().all(|verdict| **verdict == live.verdict), "{ids:?}");
}

/// Wireshark's own reader, where it is installed; nothing else here needs it.
#[tokio::test]
async fn tshark_reads_it_without_complaint() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let packets = lab_packets(5);
    let count = packets.len();
    recorder.take(packets);
    let path = recorder.conclude(incident(5)).unwrap();
    let mut tshark = std::process::Command::new("tshark");
    let fields = ["-n", "-T", "fields", "-e", "frame.comment", "-e", "tcp.flags.str"];
    let Ok(output) = tshark.arg("-r").arg(&path).args(fields).output() else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    let complaints = said.lines().filter(|line| !line.starts_with("Running as user"));
    assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The custom block is shown as a line as well, without any of these fields.
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let told = "collision, reply hijacked (proven): kubelet";
    assert!(lines.iter().all(|line| line.contains(told)), "{lines:?}");
    assert_eq!(lines.len(), count);
}
