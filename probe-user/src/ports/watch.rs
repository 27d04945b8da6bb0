//! Everything together: counts, processes, sockets and services, once a second.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use super::count::Counting;
use super::ledger::{Addition, Ledger};
use super::model::{Owner, Report, SUMMARY, Sort, Summary, sort};
use super::outlook::Trend;
use super::owners::{Owners, ProcessId};
use super::report::{self, Known};
use super::usage::{Tally, Usage};
use crate::exposure::choice::{Choice, Way};
use crate::ipvs::table::{Protocol, ServiceId};
use crate::kernel::event::socket_address;
use crate::kernel::ladder::Hooks;
use crate::node::netns::{NetNs, NetnsSpec};
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::TcpState;
use crate::node::sockets::diag::{self, SocketsError, States};
use crate::node::sysctl::{self, EphemeralRange};
use crate::sources::clock::Clock;
use crate::sources::live::LiveError;
use crate::sources::table::{CurrentTable, TableReader};

/// Sockets, services and settings are read no more often than this, and sockets so rarely that it costs one hundredth
/// of a core.
const SLOWLY: Duration = Duration::from_secs(10);
const COST: u32 = 100;

/// What the watch is told.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// The namespace whose connects count.
    pub netns: NetnsSpec,
    /// Connects of all other namespaces count too.
    pub all_namespaces: bool,
    /// Rungs that may be used.
    pub hooks: Hooks,
    /// Level of the BPF programs' own debug lines, 0 = off.
    pub log_level: u8,
}

/// A watch that runs.
pub struct Watch {
    counting: Counting,
    owners: Owners,
    ledger: Ledger,
    netns: NetNs,
    all_namespaces: bool,
    begun: Instant,
    settings: Settings,
    trends: HashMap<SocketAddr, Trend>,
    /// Why the sockets cannot be read.
    sockets_trouble: Option<String>,
    /// What their last reading lacks.
    sockets_note: Option<String>,
    sockets_due: Instant,
    settings_due: Instant,
}

/// Services and port range of the namespace, and what follows from them.
struct Settings {
    reader: TableReader,
    table: CurrentTable,
    range: Option<EphemeralRange>,
    usable: Option<PortRanges>,
    choice: Option<Choice>,
    chances: HashMap<IpAddr, f64>,
}

impl Settings {
    fn new(netns: NetnsSpec) -> Self {
        Self {
            reader: TableReader::new(None, netns),
            table: CurrentTable::default(),
            range: None,
            usable: None,
            choice: None,
            chances: HashMap::new(),
        }
    }

    fn read(&mut self, netns: &NetNs) {
        self.table.take(self.reader.read_node(), Clock::sample().now());
        let sysctls = sysctl::read_of(netns).ok();
        let range = sysctls.as_ref().and_then(|read| read.local_port_range);
        let reserved = sysctls.and_then(|read| read.reserved_ports);
        let usable = range.zip(reserved.as_ref()).map(|(range, reserved)| range.ports().difference(reserved));
        if usable != self.usable || range != self.range {
            self.choice =
                range.zip(reserved).map(|(range, reserved)| Choice::of(Way::Connect, range, &reserved));
        }
        (self.range, self.usable) = (range, usable);
        self.chances.clear();
    }

    /// Chance of a connect from an address to get a source port that is a service there.
    fn chance(&mut self, local: IpAddr, remote: SocketAddr) -> Option<f64> {
        // IPVS matches the reply of a service before it could schedule it: not at risk.
        if self.table.current().tcp_service_at(remote).is_some() {
            return Some(0.0);
        }
        if let Some(chance) = self.chances.get(&local) {
            return Some(*chance);
        }
        let ports = self.table.current().services.keys().filter_map(|id| match id {
            ServiceId::Address(Protocol::Tcp, address) if address.ip() == local => Some(address.port()),
            _ => None,
        });
        let ranges = ports.map(|port| if port == 0 { (1, u16::MAX) } else { (port, port) });
        // An empty sum is -0.0.
        let chance = self.choice.as_ref()?.chance(&PortRanges::from_ranges(ranges)) + 0.0;
        self.chances.insert(local, chance);
        Some(chance)
    }
}

impl Watch {
    /// Begins. When it returns, every later connect counts.
    pub fn start(options: &WatchOptions) -> Result<Self, LiveError> {
        let netns = NetNs::open(&options.netns)?;
        let mut settings = Settings::new(options.netns.clone());
        settings.read(&netns);
        let selected = (!options.all_namespaces).then_some(netns.inode);
        let counting = Counting::start(options.hooks, options.log_level, selected)?;
        let now = Instant::now();
        let mut watch = Self {
            owners: Owners::new(Path::new("/proc"), counting.self_test().pids_match),
            counting,
            ledger: Ledger::default(),
            netns,
            all_namespaces: options.all_namespaces,
            begun: now,
            settings,
            trends: HashMap::new(),
            sockets_trouble: None,
            sockets_note: None,
            sockets_due: now,
            settings_due: now + SLOWLY,
        };
        watch.read_sockets();
        Ok(watch)
    }

    /// Reads what was counted since the last time.
    pub fn tick(&mut self) -> Result<(), LiveError> {
        let deltas = self.counting.read()?;
        let now = self.begun.elapsed();
        for delta in deltas {
            let who = self.owners.see(&delta.key, now);
            let destination = socket_address(delta.key.remote, delta.key.remote_port);
            let local = socket_address(delta.key.local, 0).ip();
            let here = delta.key.netns == self.netns.inode;
            let addition = Addition {
                process: ProcessId::of(&delta.key),
                netns: delta.key.netns,
                destination,
                connects: delta.connects,
                unavailable: delta.unavailable,
                chance: if here { self.settings.chance(local, destination) } else { None },
            };
            self.ledger.add(now, &who, addition);
        }
        let ended = self.owners.take_ended(now);
        for (process, who) in &ended {
            self.ledger.end(*process, who);
        }
        if !ended.is_empty() {
            self.counting.forget(&ended.iter().map(|(process, _)| *process).collect::<HashSet<_>>())?;
        }
        self.ledger.tidy(now);
        if Instant::now() >= self.settings_due {
            self.settings.read(&self.netns);
            self.settings_due = Instant::now() + SLOWLY;
        }
        if Instant::now() >= self.sockets_due {
            self.read_sockets();
        }
        Ok(())
    }

    /// Everybody who connected, to name their pods: what is changed of them stays.
    pub fn owners_mut(&mut self) -> impl Iterator<Item = &mut Owner> {
        self.ledger.owners_mut()
    }

    /// The namespace whose ports are watched.
    pub const fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Reads everything for the last time, whether it is due or not.
    pub fn finish(&mut self) -> Result<(), LiveError> {
        self.sockets_due = Instant::now();
        self.tick()
    }

    fn read_sockets(&mut self) {
        let begun = Instant::now();
        let at = self.begun.elapsed();
        match usages(&self.netns, self.settings.usable.as_ref()) {
            Ok((mut found, note)) => {
                // What is not there any more is zero now, and forgotten when it has been so for a while.
                self.trends.retain(|destination, trend| {
                    let usage = found.remove(destination).unwrap_or_default();
                    trend.add(at, usage);
                    !trend.is_empty()
                });
                for (destination, usage) in found {
                    self.trends.entry(destination).or_default().add(at, usage);
                }
                (self.sockets_trouble, self.sockets_note) = (None, note);
            }
            Err(trouble) => {
                self.trends.clear();
                (self.sockets_trouble, self.sockets_note) = (Some(trouble.to_string()), None);
            }
        }
        self.sockets_due = begun + (begun.elapsed() * COST).clamp(Duration::from_millis(900), SLOWLY);
    }

    /// What is known now; rates of the last 10 s, or of the whole time.
    pub fn report(&self, whole: bool, by: Sort) -> Report {
        let now = self.begun.elapsed();
        let usable = self.settings.usable.as_ref().map(|ports| u64::from(ports.count()));
        let known = Known {
            netns: self.netns.inode,
            sockets: self.sockets_trouble.is_none().then_some(&self.trends),
            usable,
        };
        let lines = self.ledger.lines(now, whole);
        let (mut rows, found) = report::rows(&lines, &known);
        sort(&mut rows, by);
        let (connects, unavailable, _) = self.ledger.totals();
        let here = lines.iter().filter(|line| line.netns == self.netns.inode);
        let collisions = here.map(|line| line.collisions_per_hour);
        let summary = Summary {
            schema: SUMMARY,
            seconds: now.as_secs_f64(),
            connects,
            unavailable,
            netns: (!self.all_namespaces).then_some(self.netns.inode),
            local_port_range: self.settings.range.map(|range| format!("{}-{}", range.first, range.last)),
            usable_ports: usable,
            time_wait: found.map(|found| found.time_wait),
            time_wait_unattributed: found.map(|found| found.unattributed),
            expected_collisions_per_hour: collisions.sum::<Option<f64>>().map(|sum| sum + 0.0),
            lost: self.counting.lost().clone(),
            hooks: self
                .counting
                .hooks()
                .iter()
                .map(|(need, hook)| (need.name().into(), hook.way.unwrap_or("none").into()))
                .collect(),
            incomplete: self.incomplete(),
        };
        Report { rows, summary, unnamed_pods: None }
    }

    /// What the report lacks, one sentence each.
    fn incomplete(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for (need, hook) in self.counting.hooks() {
            if hook.way.is_none() {
                let reason = hook.why_not();
                sentences.push(format!("{need}: {} ({reason})", need.without()));
            }
            sentences.extend(hook.limit.map(|limit| format!("{need}: {limit}")));
        }
        for (program, reasons) in self.counting.lost() {
            for (reason, count) in reasons {
                sentences.push(format!("{program}: {count} lost ({reason})"));
            }
        }
        let (_, _, forgotten) = self.ledger.totals();
        if forgotten > 0 {
            sentences
                .push(format!("{forgotten} connects are in no row: too many processes and destinations"));
        }
        if let Some(trouble) = &self.sockets_trouble {
            sentences.push(format!("ports in use are not known: {trouble}"));
        }
        sentences.extend(self.sockets_note.clone());
        if self.settings.usable.is_none() {
            sentences.push("the range of local ports cannot be read".to_owned());
        }
        sentences.extend(self.settings.table.trouble().map(str::to_owned));
        sentences
    }

    /// What is watched, for people.
    pub fn place(&self) -> String {
        if self.all_namespaces {
            "all network namespaces".to_owned()
        } else {
            format!("network namespace {}", self.netns.inode)
        }
    }
}

/// Usage per destination, and what the reading lacks.
type Usages = (HashMap<SocketAddr, Usage>, Option<String>);

fn usages(netns: &NetNs, usable: Option<&PortRanges>) -> Result<Usages, SocketsError> {
    let listeners = diag::read_of(netns, States::of(&[TcpState::Listen]))?;
    let empty = Tally::new(listeners.sockets.iter().map(|socket| socket.local), usable);
    // Not those that are coming in, listening or closed: they are none of ours.
    let wanted = States::of(&[
        TcpState::Established,
        TcpState::SynSent,
        TcpState::FinWait1,
        TcpState::FinWait2,
        TcpState::TimeWait,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::Closing,
    ]);
    let add = |tally: &mut Tally<'_>, row: diag::Row| tally.add(row.state, row.local, row.remote);
    let (tally, reading) = diag::fold(netns, wanted, || empty.clone(), add)?;
    let unreadable = match reading.unreadable.len() {
        0 => None,
        count => Some(format!("{count} sockets could not be read")),
    };
    Ok((tally.finish(), reading.note.or(unreadable)))
}
