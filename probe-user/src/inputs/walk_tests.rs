use std::io::{self, Write};
use std::os::unix::fs::symlink;

use super::*;
use crate::inputs::Sources;

type Seen = (String, String, Vec<u8>);

/// Name, kind and content of every file, and what was left out.
fn walk(sources: &Sources) -> (Vec<Seen>, Vec<String>) {
    let mut files = Vec::new();
    let walked = sources.visit(&mut |found| {
        let mut bytes = Vec::new();
        let _ = found.content.read_to_end(&mut bytes);
        let kind = found.kind.map_or(found.looks_like.to_owned(), |kind| kind.to_string());
        files.push((found.name.to_owned(), kind, bytes));
    });
    (files, walked.skipped.into_iter().map(|skipped| format!("{}: {}", skipped.name, skipped.why)).collect())
}

fn of_bytes(bytes: &[u8]) -> (Vec<Seen>, Vec<String>) {
    walk(&Sources::of_bytes("in", bytes, Limits { unpacked: 1 << 20, text: 1 << 16, ..Limits::default() }))
}

fn names(files: &[Seen]) -> Vec<&str> {
    files.iter().map(|(name, ..)| name.as_str()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        // The library refuses names that lead outside; others do not.
        if name.len() < 100 {
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        }
        header.set_size(bytes.len() as u64);
        header.set_mtime(1_663_268_942);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        if name.len() < 100 {
            builder.append(&header, *bytes).unwrap();
        } else {
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

const SERVICES: &[u8] = b"TCP  10.0.0.1:443 rr\n";

#[test]
fn archives_are_read_through_every_compression_and_nesting() {
    let long = format!("sos/{}/ipvsadm_-Ln", "x".repeat(150));
    let inner = gzip(&tar(&[
        ("etc/a.txt", b"hello"),
        ("sos_commands/networking/ipvsadm_-Ln", SERVICES),
        (&long, SERVICES),
    ]));
    let outer = tar(&[("first.gz", &gzip(SERVICES)), ("inner.tar.gz", &inner), ("empty", b"")]);
    for bytes in [outer.clone(), gzip(&outer)] {
        let (files, skipped) = of_bytes(&bytes);
        let long = format!("in!inner.tar.gz!{long}");
        let expected = [
            "in!first.gz",
            "in!inner.tar.gz!etc/a.txt",
            "in!inner.tar.gz!sos_commands/networking/ipvsadm_-Ln",
            long.as_str(),
            "in!empty",
        ];
        assert_eq!((names(&files), skipped), (expected.to_vec(), vec![]));
        assert_eq!((files[2].1.as_str(), files[2].2.as_slice()), ("ipvsadm -Ln", SERVICES));
        assert_eq!(files[0].2, SERVICES);
        assert_eq!(files[4].1, "an empty file");
    }
}

#[test]
fn names_that_lead_outside_do_no_harm_and_are_said() {
    let (files, skipped) =
        of_bytes(&tar(&[("../../etc/passwd", SERVICES), ("/abs\u{1b}[31m", b"x"), ("ok", b"y")]));
    assert_eq!(names(&files), ["in!../../etc/passwd", "in!/abs?[31m", "in!ok"]);
    assert_eq!(skipped.len(), 1);
    assert!(
        skipped[0].contains("2 entries have names that lead out of it, such as ../../etc/passwd"),
        "{skipped:?}"
    );
}

#[test]
fn what_unpacks_without_end_is_cut_off_and_said() {
    // Once as a file, once in an archive, once in an archive in an archive.
    let bomb = gzip(&vec![b'\n'; 8 << 20]);
    let (files, _) = of_bytes(&bomb);
    assert_eq!(files[0].2.len(), 1 << 20);
    let (files, skipped) = of_bytes(&tar(&[("a.gz", &bomb), ("b.gz", &bomb)]));
    assert!(files.iter().map(|(.., bytes)| bytes.len()).sum::<usize>() <= 1 << 20);
    assert!(skipped.iter().any(|why| why.contains("unpacks to more than 1048576 bytes")), "{skipped:?}");
    let mut nested = SERVICES.to_vec();
    for _ in 0..5 {
        nested = tar(&[("x.tar", &nested)]);
    }
    let (files, skipped) = of_bytes(&nested);
    assert_eq!(files, []);
    assert_eq!(skipped, ["in!x.tar!x.tar!x.tar: an archive in more than 3 archives was left out"]);
    // A name that never ends.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(700_000);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(512 + 700_000_usize.next_multiple_of(512), b'n');
    bytes.extend(tar(&[("short", b"x")]));
    let (files, _) = of_bytes(&bytes);
    assert_eq!(files[0].0.len(), "in!".len() + 64 * 1024);
}

/// What PowerShell writes with `>`.
#[test]
fn text_in_two_byte_units_is_read_like_other_text() {
    let units: Vec<u8> =
        "\u{feff}TCP  10.0.0.1:443 rr\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [units, b"\xef\xbb\xbfTCP  10.0.0.1:443 rr\r\n".to_vec()] {
        let (files, _) = of_bytes(&bytes);
        assert_eq!(files[0].1, "ipvsadm -Ln");
        assert_eq!(String::from_utf8_lossy(&files[0].2), "TCP  10.0.0.1:443 rr\r\n");
    }
}

#[test]
fn ten_thousand_files_in_a_directory_are_all_seen() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..10_000 {
        fs::write(root.path().join(format!("{number:05}.txt")), b"hello\n").unwrap();
    }
    let sources = Sources::open(&[root.path().to_owned()], Limits::default()).unwrap();
    let mut last = String::new();
    let walked = sources.visit(&mut |found| {
        assert!(*last < *found.name);
        found.name.clone_into(&mut last);
    });
    assert_eq!((walked.files, walked.skipped.len()), (10_000, 0));
}

#[test]
fn a_cut_archive_gives_what_comes_before_the_cut() {
    let whole = tar(&[("a", SERVICES), ("b", SERVICES)]);
    let (files, skipped) = of_bytes(&whole[..512 + 512 + 100]);
    assert_eq!((names(&files), skipped.len()), (vec!["in!a"], 1));
    let packed = gzip(&tar(&[("a", SERVICES), ("b", &vec![7; 60_000])]));
    let (files, skipped) = of_bytes(&packed[..packed.len() - 20]);
    assert_eq!(files[0].2, SERVICES);
    assert!(skipped[0].contains("damaged or cut"), "{skipped:?}");
}

#[test]
fn texts_that_are_kept_in_memory_are_cut_and_streams_are_not() {
    let (files, skipped) = of_bytes(&SERVICES.repeat(5000));
    assert_eq!(
        (files[0].2.len(), skipped),
        (1 << 16, vec!["in: only its first 65536 bytes were read".to_owned()])
    );
    let log = include_bytes!("../../tests/seed/kubelet.log").repeat(500);
    assert_eq!(of_bytes(&log).0[0].2.len(), log.len());
}

#[test]
fn directories_are_walked_by_name_and_special_files_and_links_are_said() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("in");
    fs::create_dir_all(folder.join("b/deep")).unwrap();
    fs::write(folder.join("z.txt"), SERVICES).unwrap();
    fs::write(folder.join("a.txt"), b"hello").unwrap();
    fs::write(folder.join("b/deep/x"), SERVICES).unwrap();
    fs::hard_link(folder.join("a.txt"), folder.join("b/same")).unwrap();
    symlink("..", folder.join("b/loop")).unwrap();
    symlink("self", folder.join("self")).unwrap();
    symlink("/etc/hostname", folder.join("outside")).unwrap();
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    let sources = Sources::open(std::slice::from_ref(&folder), Limits::default()).unwrap();
    let (files, skipped) = walk(&sources);
    let relative = |name: &str| name.replace(&format!("{}/", folder.display()), "");
    let seen: Vec<String> = names(&files).into_iter().map(relative).collect();
    assert_eq!(seen, ["a.txt", "b/deep/x", "z.txt"]);
    let skipped: Vec<String> = skipped.iter().map(|text| relative(text)).collect();
    assert_eq!(skipped.len(), 4, "{skipped:?}");
    assert_eq!(skipped[0], "b/same: it is the same file as one that was read before");
    assert_eq!(skipped[1], "pipe: it is a named pipe");
    assert_eq!(skipped[2], "socket: it is a socket");
    assert!(
        skipped[3].contains("1 links that lead out of it and 1 that lead nowhere or in a circle"),
        "{skipped:?}"
    );
    // A second walk sees the same.
    assert_eq!(walk(&sources).0, files);
    let limited = Sources::open(&[folder], Limits { files: 2, ..Limits::default() }).unwrap();
    let (files, skipped) = walk(&limited);
    assert_eq!(files.len(), 2);
    assert_eq!(skipped.iter().filter(|text| text.contains("more than 2 files")).count(), 1, "{skipped:?}");
}

#[test]
fn what_cannot_be_opened_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let pipe = root.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = |path: &Path| match Sources::open(&[path.to_owned()], Limits::default()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("opened {}", path.display()),
    };
    assert!(error(&root.path().join("none")).contains("No such file"));
    assert!(error(&pipe).contains("is a named pipe"));
    assert!(error(Path::new("/dev/zero")).contains("is a device"));
}

#[test]
fn size_and_hash_are_of_what_is_stored() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x.gz");
    let packed = gzip(SERVICES);
    fs::write(&path, &packed).unwrap();
    let sources = Sources::open(&[path], Limits { hash: true, ..Limits::default() }).unwrap();
    let mut seen = Vec::new();
    sources.visit(&mut |found| {
        io::copy(found.content, &mut io::sink()).unwrap();
        seen.push((found.size, found.stored().map(|stored| (stored.bytes, stored.sha256.unwrap().len()))));
    });
    assert_eq!(seen, [(Some(packed.len() as u64), Some((packed.len() as u64, 64)))]);
}
