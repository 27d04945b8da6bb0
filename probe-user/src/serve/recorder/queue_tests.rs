//! Packets and captures that wait: how many, and until when.

use super::queue::{MAX_CAPTURES, MAX_PACKETS};
use super::tests::{incident, names, record, recorder, times};
use super::*;
use crate::capture;
use crate::report::samples::packet;

#[tokio::test]
async fn packets_that_wait_are_bounded_per_connection_and_altogether() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    recorder.take((0..300).map(|at| packet(1, at)).collect());
    let path = recorder.conclude(incident(1)).unwrap();
    assert_eq!(times(&path), (0..256).collect::<Vec<_>>());
    let account = capture::read(std::fs::File::open(&path).unwrap(), &mut |_| {}).unwrap();
    assert_eq!(account.interfaces[0].dropped, Some(44), "the file says what it lacks");
    let one_each = (0..4097).map(|number| packet(number + 10, number.into()));
    recorder.take(one_each.collect());
    assert_eq!(recorder.conclude(incident(10)), None, "the oldest made room");
    assert!(recorder.conclude(incident(11)).is_some());
    let expected = PacketsDropped { late: 0, of_long_connections: 44, no_room: 1 };
    assert_eq!(recorder.view().packets_dropped, expected);
}

/// A capture of so many packets.
fn capture_of(packets: usize) -> Capture {
    let packets = (0..packets).map(|_| packet(1, 1)).collect();
    Capture { incident: Arc::new(incident(1)), packets, beyond: BTreeMap::new() }
}

#[test]
fn captures_that_wait_for_the_disk_are_bounded_in_number_and_in_packets() {
    // Nothing takes any from here: the disk hangs.
    for (of_each, fit) in [(2, MAX_CAPTURES), (200, MAX_PACKETS / 200)] {
        let queue = Queue::new(RecorderView::default());
        assert_eq!((0..fit + 3).filter(|_| queue.push(capture_of(of_each))).count(), fit);
        assert_eq!(queue.give_up(), fit);
        assert!(queue.push(capture_of(of_each)));
    }
}

#[test]
fn what_does_not_fit_is_counted_and_told_once_and_nobody_waits() {
    let mut recorder = Recorder::new(Queue::new(RecorderView::default()));
    for number in 0..23 {
        recorder.take((0..200).map(|at| packet(number, at)).collect());
        recorder.concluded(&Arc::new(incident(number)));
    }
    let failed = CapturesFailed { queue: 3, ..CapturesFailed::default() };
    assert_eq!(recorder.view().failed, failed);
    let news = recorder.take_news();
    assert!(news.len() == 1 && news[0].contains("the disk is slower"), "{news:?}");
}

#[tokio::test]
async fn the_end_waits_for_what_is_to_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    for number in 0..20 {
        recorder.take(vec![packet(number, 1)]);
        recorder.recorder.concluded(&Arc::new(incident(number)));
    }
    recorder.recorder.drain(Duration::from_hours(1)).await;
    assert_eq!((names(folder.path()).len(), recorder.view().written), (20, 20));
    assert_eq!(recorder.take_news(), [""; 0]);
}

#[tokio::test]
async fn the_end_waits_no_longer_than_its_deadline_and_what_is_given_up_is_said() {
    let mut recorder = Recorder::new(Queue::new(RecorderView::default()));
    let (hangs, disk) = std::sync::mpsc::channel::<()>();
    recorder.writing = Some(tokio::task::spawn_blocking(move || {
        let _ = disk.recv();
    }));
    recorder.take(vec![packet(1, 1)]);
    recorder.concluded(&Arc::new(incident(1)));
    recorder.drain(Duration::ZERO).await;
    assert_eq!(recorder.take_news(), ["flight recorder: 1 captures were not written in time"]);
    drop(hangs);
}

#[tokio::test]
async fn a_flood_of_incidents_is_no_trouble_and_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let written = (0..1000).filter(|number| record(&mut recorder, *number).is_some()).count() as u64;
    let news = recorder.take_news();
    assert!(news.len() == 1 && news[0].contains("more incidents than 4 a second"), "{news:?}");
    let view = recorder.view();
    let failed = CapturesFailed { rate: 1000 - written, ..CapturesFailed::default() };
    assert_eq!((view.written, view.failed, view.trouble), (written, failed, None));
    assert!(written >= 256);
}
