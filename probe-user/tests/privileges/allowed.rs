//! What must still work afterwards.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;
use std::process::{Command, Stdio};

use probe_user::ipvs::reader::{ReadError, read_connections};
use probe_user::node::netns::{NetNs, NetnsSpec};
use probe_user::node::sockets::{TcpState, diag};
use probe_user::node::{addresses, configured, process, sysctl};
use probe_user::serve::privileges::Violations;
use probe_user::sources::table::{read_once, read_services_once};

use crate::{Outcome, directory, landlock_abi, usual, with};

fn own() -> NetnsSpec {
    NetnsSpec::Path("/proc/self/ns/net".into())
}

/// Everything that is read of the node's own namespace, and of other processes what anybody may.
pub(crate) fn node() -> Outcome {
    usual();
    let netns = NetNs::open(&own()).unwrap();
    let sysctls = sysctl::read_of(&netns).unwrap();
    assert!(sysctls.problems.is_empty(), "{sysctls:?}");
    assert!(!addresses::read_of(&netns).unwrap().is_empty());
    diag::read_of(&netns, diag::States::of(&[TcpState::Listen])).unwrap();
    for spec in [own(), NetnsSpec::Pid(std::process::id())] {
        for read in [read_once(&spec).unwrap(), read_services_once(&spec).unwrap()] {
            match read {
                Ok(_) | Err(ReadError::NotLoaded(_)) => {}
                Err(error) => panic!("{spec}: {error}"),
            }
        }
    }
    match read_connections(Path::new("/proc/thread-self/net")) {
        Ok(_) | Err(ReadError::NotLoaded(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let first = process::identify(Path::new("/proc"), 1, None);
    assert!(!first.gone && first.cgroup.is_some(), "{first:?}");
    // Another's executable is what is lost, and it is said.
    assert!(first.exe.is_none() && first.denied, "{first:?}");
    let itself = process::identify(Path::new("/proc"), std::process::id(), None);
    assert!(itself.exe.is_some() && itself.cmdline.is_some() && !itself.denied, "{itself:?}");
    Outcome::Passed
}

/// Files that set sysctls, below a root that itself must not be listed.
pub(crate) fn sysctl_files() -> Outcome {
    let root = directory();
    let folder = root.join("etc/sysctl.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("99-x.conf"), "net.ipv4.ip_local_port_range = 1024 65000\n").unwrap();
    let secret = root.join("etc/secret");
    fs::write(&secret, "x").unwrap();
    with(|plan| plan.reads.extend(configured::sysctl_paths(&root)));
    let found = configured::read_under(&root);
    let files: Vec<_> = found.settings.iter().map(|setting| setting.file.clone()).collect();
    assert_eq!(files, [Path::new("/etc/sysctl.d/99-x.conf")], "{found:?}");
    // Without Landlock nothing is closed.
    assert!(landlock_abi() == 0 || File::open(secret).is_err());
    Outcome::Passed
}

/// HTTP as the sidecar speaks it: a listener from before, tokio's sockets, names looked up in a thread.
pub(crate) fn loopback() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let confined = usual();
    let answer = confined.sealed(move || {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let server = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\n")
                        .await
                        .unwrap();
                };
                let client = async {
                    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                    let mut text = String::new();
                    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
                    text
                };
                tokio::join!(server, client).1
            })
        })
        .join()
        .unwrap()
    });
    assert_eq!(answer.unwrap(), "HTTP/1.1 200 OK\r\n\r\n");
    assert!(("127.0.0.1", 80).to_socket_addrs().is_ok());
    // /etc/hosts is asked, not only the number parsed; where it lists no such name there is nothing to compare with.
    if fs::read_to_string("/etc/hosts").is_ok_and(|hosts| hosts.contains("localhost")) {
        assert!(("localhost", 80).to_socket_addrs().is_ok());
    }
    Outcome::Passed
}

pub(crate) fn recorder() -> Outcome {
    let directory = directory();
    let planned = directory.clone();
    with(|plan| plan.writes.push(planned));
    let part = directory.join("1.part");
    let mut file = File::create(&part).unwrap();
    file.write_all(b"packets").unwrap();
    file.sync_all().unwrap();
    file.set_len(3).unwrap();
    fs::rename(&part, directory.join("1.pcapng")).unwrap();
    File::open(&directory).unwrap().sync_all().unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(directory.join("1.pcapng")).unwrap(), "pac");
    fs::remove_file(directory.join("1.pcapng")).unwrap();
    fs::create_dir(directory.join("day")).unwrap();
    fs::remove_dir(directory.join("day")).unwrap();
    assert!(nix::sys::statvfs::statvfs(&directory).is_ok());
    Outcome::Passed
}

/// As kubelet replaces the files of a projected volume (`AtomicWriter`): a link to a directory is renamed over.
pub(crate) fn token() -> Outcome {
    let volume = directory();
    for version in ["..1", "..2"] {
        fs::create_dir(volume.join(version)).unwrap();
        fs::write(volume.join(version).join("token"), version).unwrap();
    }
    std::os::unix::fs::symlink("..1", volume.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", volume.join("token")).unwrap();
    let token = volume.join("token");
    let mut kubelet = Command::new("sh")
        .args(["-c", "read go; ln -s ..2 ..tmp && mv -T ..tmp ..data && rm -r ..1 && echo done"])
        .current_dir(&volume)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    with(|plan| plan.read_replaced(&token));
    assert_eq!(fs::read_to_string(&token).unwrap(), "..1");
    kubelet.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut said = String::new();
    kubelet.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(kubelet.wait().unwrap().success() && said == "done\n", "{said}");
    assert_eq!(fs::read_to_string(&token).unwrap(), "..2");
    Outcome::Passed
}

/// Nothing is refused by the filter then, and clone3 still fails in the way that makes the C library go on.
pub(crate) fn logged() -> Outcome {
    let confined = with(|plan| plan.violations = Violations::Log);
    assert!(confined.summary().contains("logged, but not refused"));
    // SAFETY: an impossible file descriptor; the kernel refuses it.
    let result = unsafe { libc::syscall(libc::SYS_setns, -1, 0) };
    let error = std::io::Error::last_os_error().raw_os_error();
    assert_eq!((result, error), (-1, Some(libc::EBADF)));
    assert_eq!(std::thread::spawn(|| 1).join().unwrap(), 1);
    Outcome::Passed
}
