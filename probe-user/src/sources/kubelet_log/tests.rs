use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Long enough for a loaded machine; nothing waits for it unless something is broken.
const PATIENCE: Duration = Duration::from_mins(1);

fn line(pod: &str) -> String {
    format!(
        "I0915 19:09:04.534948       1 prober.go:107] \"Probe failed\" probeType=\"Liveness\" pod=\"ns/{pod}\" output=\"\"\n"
    )
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn names(found: &mut Vec<ProbeFailure>) -> Vec<String> {
    found.drain(..).filter_map(|failure| failure.name).collect()
}

async fn next(source: &mut KubeletLogSource) -> Vec<Observation> {
    tokio::time::timeout(PATIENCE, source.next()).await.expect("a failed probe")
}

fn pods(observations: &[Observation]) -> Vec<String> {
    let pod = |observation: &Observation| match &observation.fact {
        Fact::ProbeFailed { failure, .. } => failure.name.clone(),
        _ => None,
    };
    observations.iter().filter_map(pod).collect()
}

#[test]
fn a_file_is_followed_from_its_end_through_every_kind_of_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubelet.log");
    append(&path, &line("before"));
    let mut follower = file::Follower::open(&path, Some(TimeZone::UTC)).unwrap();
    let mut found = Vec::new();
    assert!(!follower.poll(&mut found).unwrap());
    let second = line("b");
    append(&path, &(line("a") + &second[..30]));
    assert!(follower.poll(&mut found).unwrap());
    assert_eq!(names(&mut found), ["a"]);
    append(&path, &second[30..]);
    // Renamed with something unread in it; then the new one is not there for a while.
    fs::rename(&path, folder.path().join("kubelet.log.1")).unwrap();
    follower.poll(&mut found).unwrap();
    append(&folder.path().join("kubelet.log.1"), &line("c"));
    append(&path, &line("d"));
    follower.poll(&mut found).unwrap();
    assert_eq!(names(&mut found), ["b", "c", "d"]);
    // copytruncate
    File::create(&path).unwrap();
    follower.poll(&mut found).unwrap();
    append(&path, &line("e"));
    follower.poll(&mut found).unwrap();
    assert_eq!(names(&mut found), ["e"]);
    File::create(&path).unwrap();
    append(&path, &line("f")[..line("f").len() - 3]);
    follower.poll(&mut found).unwrap();
    append(&path, &line("f")[line("f").len() - 3..]);
    follower.poll(&mut found).unwrap();
    assert_eq!(names(&mut found), ["f"]);
}

#[test]
fn the_newest_log_of_a_kubelet_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let pods = folder.path().join("kube-system_kubelet-node-a_0b/kubelet");
    fs::create_dir_all(&pods).unwrap();
    assert!(matches!(
        directory::Follower::open(folder.path(), None),
        Err(KubeletLogError::NoneInDirectory(_))
    ));
    append(&folder.path().join("web_default_web-1.log"), &line("other"));
    append(&pods.join("0.log"), "");
    append(&pods.join("0.log.20220915.gz"), "");
    let mut follower = directory::Follower::open(folder.path(), None).unwrap();
    assert!(follower.name().ends_with("kubelet/0.log"), "{}", follower.name());
    append(&pods.join("0.log"), &line("a"));
    append(&pods.join("1.log"), &line("b"));
    let later = SystemTime::now() + Duration::from_secs(10);
    File::options().append(true).open(pods.join("1.log")).unwrap().set_modified(later).unwrap();
    let mut found = Vec::new();
    follower.look_again(&mut found).unwrap();
    follower.poll(&mut found).unwrap();
    assert_eq!(names(&mut found), ["a", "b"]);
}

#[tokio::test(flavor = "current_thread")]
async fn failed_probes_come_with_time_and_file_and_a_block_need_not_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubelet.log");
    append(&path, &line("before"));
    let mut source =
        KubeletLogSource::start(&KubeletLog::Path(path.clone()), folder.path()).await.unwrap().unwrap();
    append(&path, &line("a").replace("output=\"\"", "output=<"));
    let observations = next(&mut source).await;
    assert_eq!(pods(&observations), ["a"]);
    let Fact::ProbeFailed { failure, .. } = &observations[0].fact else { panic!() };
    assert_eq!((failure.line, failure.class), (None, crate::kubelet_log::FailureClass::Cut));
    assert_eq!(*observations[0].source, *path.to_str().unwrap());
    assert!(
        observations[0].at <= now() + 86_400_000_000_000
            && observations[0].at > now() - 367 * 86_400_000_000_000
    );
    assert_eq!((source.lost(), source.take_trouble()), (0, Vec::new()));
}

#[tokio::test(flavor = "current_thread")]
async fn what_nobody_takes_is_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubelet.log");
    append(&path, "");
    let source =
        KubeletLogSource::start(&KubeletLog::Path(path.clone()), folder.path()).await.unwrap().unwrap();
    append(&path, &line("a").repeat(MAX_WAITING + 7));
    let deadline = std::time::Instant::now() + PATIENCE;
    while source.lost() < 7 && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(source.lost(), 7);
}

#[tokio::test(flavor = "current_thread")]
async fn no_log_and_a_wrong_one() {
    let root = tempfile::tempdir().unwrap();
    assert!(KubeletLogSource::start(&KubeletLog::None, root.path()).await.unwrap().is_none());
    let missing = KubeletLog::Path(root.path().join("missing"));
    let error = KubeletLogSource::start(&missing, root.path()).await.err().unwrap().to_string();
    assert!(error.contains("missing") && error.contains("--kubelet-log"), "{error}");
}

/// Copies a program. This process must not write it: a child of another test's could hold the file open (ETXTBSY).
fn copy_program(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-p").args([from, to]).status().unwrap().success());
}

/// A journalctl of our own, in a root of its own.
fn fake_journalctl(script: &str) -> Option<tempfile::TempDir> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())?;
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    for folder in ["bin", "usr/bin"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    copy_program(Path::new(busybox), &root.path().join("bin/sh"));
    // A busybox that needs libraries does not run there.
    let shell =
        std::process::Command::new("chroot").arg(root.path()).args(["/bin/sh", "-c", "exit 0"]).status();
    shell.ok().filter(std::process::ExitStatus::success)?;
    let draft = root.path().join("draft");
    fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&draft, &root.path().join("usr/bin/journalctl"));
    Some(root)
}

fn entry(pod: &str) -> String {
    serde_json::json!({"MESSAGE": line(pod).trim_end(), "__REALTIME_TIMESTAMP": "1663268944534948"})
        .to_string()
}

#[tokio::test(flavor = "current_thread")]
async fn the_nodes_own_journalctl_is_run_in_the_nodes_root_and_ends_with_the_source() {
    let script = format!("echo $$ >/pid; echo '{}'; read forever </fifo", entry("a"));
    let Some(root) = fake_journalctl(&script) else {
        println!("skipped: needs root and a static busybox");
        return;
    };
    nix::unistd::mkfifo(&root.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut source = KubeletLogSource::start(&KubeletLog::Journal(None), root.path()).await.unwrap().unwrap();
    let observations = next(&mut source).await;
    assert_eq!((pods(&observations), observations[0].at), (vec!["a".to_owned()], 1_663_268_944_534_948_000));
    assert_eq!((&*observations[0].source, source.name()), ("journal", "journal"));
    let pid = fs::read_to_string(root.path().join("pid")).unwrap();
    drop(source);
    let gone = || !Path::new("/proc").join(pid.trim()).exists();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !gone() && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(gone(), "journalctl {pid} still runs");
}

#[tokio::test(flavor = "current_thread")]
async fn a_journalctl_that_ends_is_said_once_and_started_again() {
    let script = format!("echo '{}'; echo 'no permission' >&2; exit 3", entry("a"));
    let Some(root) = fake_journalctl(&script) else {
        println!("skipped: needs root and a static busybox");
        return;
    };
    let mut source = KubeletLogSource::start(&KubeletLog::Journal(None), root.path()).await.unwrap().unwrap();
    let (mut failures, mut trouble) = (0, Vec::new());
    while failures < 2 {
        failures += next(&mut source).await.len();
        trouble.extend(source.take_trouble());
    }
    assert_eq!(trouble.len(), 1);
    assert!(
        trouble[0].contains("exit status: 3 (no permission)") && trouble[0].contains("--kubelet-log"),
        "{trouble:?}"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn without_journalctl_the_error_says_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let error =
        KubeletLogSource::start(&KubeletLog::Journal(None), root.path()).await.err().unwrap().to_string();
    assert!(error.contains("journalctl") && error.contains("--kubelet-log PATH"), "{error}");
    assert!(KubeletLogSource::start(&KubeletLog::Auto, root.path()).await.unwrap().is_none());
}

#[test]
fn the_zone_of_the_node() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(node_zone(root.path()), Some(TimeZone::UTC));
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/localtime"), b"no zone").unwrap();
    assert_eq!(node_zone(root.path()), None);
}
