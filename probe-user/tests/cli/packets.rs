//! `trace --write` on this machine's own kernel: packets on loopback.

use std::fs::File;
use std::process::Stdio;

use probe_user::capture::{self, Decoded};

use super::live::{Bound, Trace, can_trace, listener, services};

#[test]
fn packets_of_a_connect_from_a_service_port_are_written_and_those_of_others_are_not() {
    if !can_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hit.pcapng");
    let (service, other) = (Bound::new(), Bound::new());
    let (listener, remote) = listener();
    let more = ["--count", "1", "--write", path.to_str().unwrap()];
    let trace = Trace::begin(&services(&[service.address]), &more, Stdio::piped());
    other.connect(remote);
    service.connect(remote);
    let accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
    let local = service.address;
    drop((service, other, accepted));
    let (status, lines, said) = trace.end();
    assert_eq!(status.code(), Some(1), "{said}");
    let summary = lines.last().unwrap();
    assert_eq!(summary["hooks"]["packets"], "tracepoint");
    let mut found = Vec::new();
    let account = capture::read(File::open(&path).unwrap(), &mut |frame| {
        let Ok(Decoded::Tcp(segment)) = capture::decode(frame.link, frame.bytes) else {
            panic!("{frame:?}");
        };
        let ends = [segment.source, segment.destination];
        assert!(ends.contains(&local) && ends.contains(&remote), "{ends:?}");
        found.push((segment.source, segment.flags));
    });
    let account = account.unwrap();
    assert_eq!((account.damaged, account.cut), (0, false), "{:?}", account.notes);
    let flags: Vec<_> = found.iter().map(|(source, flags)| (*source == local, flags.0)).collect();
    // Each once where it is sent and once where it is received: SYN, SYN-ACK, ACK.
    let handshake = [(true, 2), (true, 2), (false, 18), (false, 18), (true, 16), (true, 16)];
    assert!(flags.starts_with(&handshake), "{flags:?}");
    let names: Vec<_> = account.interfaces.iter().filter_map(|interface| interface.name.as_deref()).collect();
    assert!(names.iter().all(|name| name.starts_with("lo@")) && names.len() == 1, "{names:?}");
}
