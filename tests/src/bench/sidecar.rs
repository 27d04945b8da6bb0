//! What the sidecar costs where nothing collides: memory with many services and pods, processor time while others connect,
//! its start, its answers. Next to it others that do a smaller job: print each connect.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::client::{Rate, Server, connect_from};
use super::programs::{fd_infos, number};
use super::{SERVICES, SPELL, median, memory, programs};
use crate::process::run_with_input;
use crate::reliability::process::Usage;
use crate::sidecar::Sidecar;

const PODS: u32 = 500;
/// Connects per second at which processor time is taken, if the machine can make so many.
const PACE: u32 = 10_000;
const PACED_TIME: Duration = Duration::from_secs(20);
/// How often it is asked for its metrics.
const ASKED: u32 = 50;
const OUTPUT: &str = "/tmp/bench-sidecar-output";

/// Others, by name and command line. What they print goes to a file.
const OTHERS: &[(&str, &[&str])] = &[
    (
        "bpftrace, one line per tcp_connect",
        &["bpftrace", "-B", "line", "-e", "kprobe:tcp_connect { printf(\"%d %s\\n\", pid, comm); }"],
    ),
    ("tcpconnect (libbpf-tools)", &["tcpconnect"]),
];

/// The sidecar and the others, one after the other. `native`: this machine's own kernel, which has no IPVS.
pub(super) fn measure(rounds: usize, native: bool, say: impl Fn(&str)) -> Result<Value> {
    let table = memory::write_services(SERVICES)?;
    let pods = write_pods()?;
    let mut arguments = vec!["--pods".to_owned(), format!("file:{}", pods.display())];
    if native {
        arguments.extend(["--netns", "/proc/self/ns/net", "--ipvs"].map(str::to_owned));
        arguments.push(table.display().to_string());
    } else {
        run_with_input("ipvsadm -R", &std::fs::read_to_string(&table)?)?;
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start()?;
    // The first spell pays for cold caches and untranslated code.
    server.rate(SPELL, &[])?;
    let mut starts = Vec::new();
    for _ in 0..rounds {
        let running = Sidecar::start(&arguments)?;
        starts.push(running.ready_after().as_secs_f64() * 1000.0);
        running.stop()?;
    }
    say(&format!("starts: {starts:.0?} ms"));
    let mut recording = arguments.clone();
    recording.extend(["--record", "/tmp/bench-captures"]);
    let mut rows = Vec::new();
    for (name, arguments) in [("portclash serve", &arguments), ("portclash serve --record", &recording)] {
        say(name);
        rows.push(sidecar(name, arguments, &server, native)?);
    }
    for (name, words) in OTHERS {
        say(name);
        rows.push(
            other(name, words, &server)
                .unwrap_or_else(|error| json!({"name": name, "failure": format!("{error:#}")})),
        );
    }
    // Natively, /tmp is the machine's.
    for file in [&table, &pods, Path::new(OUTPUT)] {
        let _ = std::fs::remove_file(file);
    }
    let _ = std::fs::remove_dir_all("/tmp/bench-captures");
    Ok(json!({
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "cpus": std::thread::available_parallelism()?.get(),
        "rounds": rounds,
        "services": SERVICES,
        "pods": PODS,
        "start_ms": median(starts.iter().copied()),
        "observers": rows,
    }))
}

fn sidecar(name: &str, arguments: &[&str], server: &Server, native: bool) -> Result<Value> {
    let running = Sidecar::start(arguments)?;
    let known = running.metrics()?;
    ensure!(known.count("portclash_services", &["protocol=\"tcp\""]) == u64::from(SERVICES), "{known:?}");
    ensure!(known.count("portclash_pods", &[]) == u64::from(PODS), "{known:?}");
    let idle = answers(&running)?;
    let before = Usage::of(running.pid())?;
    let rate = server.paced(PACED_TIME, &[], PACE)?;
    let after = Usage::of(running.pid())?;
    // The kernel's own count of run time costs time itself: another spell, and only for that.
    let statistics = programs::Statistics::on()?;
    let counted = server.paced(PACED_TIME / 4, &[], PACE)?;
    drop(statistics);
    let mut run_ns = 0;
    for info in fd_infos(running.pid(), "prog_id")? {
        run_ns += number(&info, "run_time_ns")?;
    }
    let loaded = std::thread::scope(|scope| {
        let load = scope.spawn(|| server.paced(Duration::from_secs(4), &[], PACE));
        std::thread::sleep(Duration::from_millis(500));
        let loaded = answers(&running);
        load.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        loaded
    })?;
    let metrics = running.metrics()?;
    let stopped = running.stop()?;
    ensure!(stopped.incidents.is_empty(), "{} incidents", stopped.incidents.len());
    let user = share(after.cpu.saturating_sub(before.cpu), PACED_TIME);
    let kernel = share(Duration::from_nanos(run_ns), PACED_TIME / 4);
    Ok(json!({
        "name": name,
        "native": native,
        "per_second": rate.per_second(),
        "user_core_percent": user,
        "bpf_core_percent": kernel,
        "bpf_ns_per_connect": run_ns / counted.connects,
        "core_percent": user + kernel,
        "resident_kib": after.resident_kib,
        "anonymous_kib": after.anonymous_kib,
        "peak_kib": after.peak_kib,
        "lost": metrics.lost(),
        "metrics_ms": idle,
        "metrics_ms_under_load": loaded,
    }))
}

/// Percent of one core.
fn share(used: Duration, of: Duration) -> f64 {
    used.as_secs_f64() / of.as_secs_f64() * 100.0
}

/// Median and longest time of an answer to /metrics, milliseconds.
fn answers(running: &Sidecar) -> Result<[f64; 2]> {
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let begun = Instant::now();
        running.get_ok("/metrics")?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let longest = times.iter().copied().fold(0.0, f64::max);
    Ok([median(times.iter().copied()).context("no time")?, longest])
}

fn other(name: &str, words: &[&str], server: &Server) -> Result<Value> {
    let (program, arguments) = words.split_first().context("no program")?;
    let begun = Instant::now();
    let mut running = Running(
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(OUTPUT)?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?,
    );
    // A connect of ours that it prints tells that it watches.
    let head = lines()?;
    while lines()? < head + 2 {
        ensure!(running.0.try_wait()?.is_none(), "{program} ended");
        ensure!(begun.elapsed() < Duration::from_mins(1), "{program} printed nothing in 60 s");
        connect_from("127.0.0.1:0".parse()?, server.address())?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let ready = begun.elapsed();
    let before = Usage::of(running.0.id())?;
    let rate: Rate = server.paced(PACED_TIME, &[], PACE)?;
    let after = Usage::of(running.0.id())?;
    kill(Pid::from_raw(i32::try_from(running.0.id())?), Signal::SIGINT)?;
    running.0.wait()?;
    let printed = lines()?;
    Ok(json!({
        "name": name,
        "per_second": rate.per_second(),
        "user_core_percent": share(after.cpu.saturating_sub(before.cpu), PACED_TIME),
        "resident_kib": after.resident_kib,
        "anonymous_kib": after.anonymous_kib,
        "peak_kib": after.peak_kib,
        "ready_ms": u64::try_from(ready.as_millis())?,
        "lost": rate.connects.saturating_sub(printed),
    }))
}

/// A child that is gone when this value is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines() -> Result<u64> {
    Ok(u64::try_from(std::fs::read_to_string(OUTPUT)?.lines().count())?)
}

/// Pods as `kubectl get pods -A -o json` lists them, three probes each.
fn write_pods() -> Result<PathBuf> {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1});
    let pod = |number: u32| {
        let ip = std::net::Ipv4Addr::from_bits(0x0ac8_0000 + number);
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("web-7f9c6d5b8-{number:05}"), "namespace": "default", "uid": format!("3daea6ef-f286-43f2-8825-{number:012}")},
            "spec": {
                "nodeName": "node-a",
                "containers": [{
                    "name": "web",
                    "image": "registry.example.net/web:1",
                    "ports": [{"containerPort": 8080}],
                    "livenessProbe": probe("/live"),
                    "readinessProbe": probe("/ready"),
                    "startupProbe": probe("/start"),
                }],
            },
            "status": {
                "phase": "Running",
                "podIP": ip,
                "podIPs": [{"ip": ip}],
                "containerStatuses": [{"name": "web", "containerID": format!("containerd://{number:064x}"), "ready": true}],
            },
        })
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": (0..PODS).map(pod).collect::<Vec<_>>()});
    let path = PathBuf::from("/tmp/bench-pods.json");
    std::fs::write(&path, list.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
