//! Adds up what was counted, per owner and destination. Pure: time is handed in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::model::Owner;
use super::outlook::TIME_WAIT;
use super::owners::{ProcessId, Who};

/// Rates in the full-screen view are of this time.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Most rows; beyond it, the one silent longest goes, and its connects are counted as forgotten.
const MAX_ROWS: usize = 4096;

/// Who a row belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum OwnerKey {
    Process(ProcessId),
    /// Ended processes of a container.
    Container(String),
    /// Ended processes outside of containers: cgroup and task name.
    Named(u64, Option<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct RowKey {
    owner: OwnerKey,
    netns: u32,
    destination: SocketAddr,
}

/// No destination comes before this one.
const LOWEST: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// One reading's part.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    at: Duration,
    connects: u64,
    unavailable: u64,
    /// Collisions expected among the connects.
    collisions: Option<f64>,
}

impl Part {
    fn absorb(&mut self, other: Self) {
        self.collisions = match self.connects {
            0 => other.collisions,
            _ => plus(self.collisions, other.collisions, other.connects),
        };
        self.connects += other.connects;
        self.unavailable += other.unavailable;
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    connects: u64,
    unavailable: u64,
    collisions: Option<f64>,
    last: Duration,
    /// Of the last 60 s, oldest first.
    recent: VecDeque<Part>,
}

impl Entry {
    fn since(&self, from: Duration) -> impl Iterator<Item = &Part> {
        self.recent.iter().filter(move |part| part.at > from)
    }

    fn absorb(&mut self, other: Self) {
        self.collisions = match self.connects {
            0 => other.collisions,
            _ => plus(self.collisions, other.collisions, other.connects),
        };
        self.connects += other.connects;
        self.unavailable += other.unavailable;
        self.last = self.last.max(other.last);
        for part in other.recent {
            self.add_part(part);
        }
    }

    /// One part per reading, however many processes it comes from, in the order of time.
    fn add_part(&mut self, part: Part) {
        let after = self.recent.iter().rposition(|other| other.at <= part.at);
        let same = after.and_then(|index| self.recent.get_mut(index)).filter(|other| other.at == part.at);
        match same {
            Some(same) => same.absorb(part),
            None => self.recent.insert(after.map_or(0, |index| index + 1), part),
        }
    }
}

/// The sum is not known if a part of it is not; a part without connects adds nothing.
fn plus(one: Option<f64>, other: Option<f64>, other_connects: u64) -> Option<f64> {
    if other_connects == 0 { one } else { Some(one? + other?) }
}

/// What is known of one owner and destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Who.
    pub owner: Owner,
    /// Network namespace.
    pub netns: u32,
    /// Where to.
    pub destination: SocketAddr,
    /// Connects since the beginning.
    pub connects: u64,
    /// Connects in the last 60 s.
    pub connects_in_a_minute: u64,
    /// Connects per second.
    pub per_second: f64,
    /// Expected collisions per hour.
    pub collisions_per_hour: Option<f64>,
    /// EADDRNOTAVAIL since the beginning.
    pub unavailable: u64,
    /// EADDRNOTAVAIL in the last 10 s.
    pub unavailable_now: u64,
}

/// One count to add.
#[derive(Clone, Copy, Debug)]
pub struct Addition {
    /// Who.
    pub process: ProcessId,
    /// Network namespace.
    pub netns: u32,
    /// Where to.
    pub destination: SocketAddr,
    /// Connects.
    pub connects: u64,
    /// EADDRNOTAVAIL.
    pub unavailable: u64,
    /// Chance of each connect to get a service's port; `None` = not known.
    pub chance: Option<f64>,
}

/// All rows.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: BTreeMap<RowKey, Entry>,
    owners: HashMap<OwnerKey, Owner>,
    /// Groups whose processes have different executables.
    mixed: std::collections::HashSet<OwnerKey>,
    connects: u64,
    unavailable: u64,
    forgotten: u64,
}

impl Ledger {
    /// Adds what one reading found, at `now` since the beginning.
    pub fn add(&mut self, now: Duration, who: &Who, count: Addition) {
        let owner = OwnerKey::Process(count.process);
        let known = self.owners.entry(owner.clone()).or_insert_with(|| Owner {
            pid: Some(count.process.pid),
            processes: 1,
            ..Owner::default()
        });
        if known.container_id != who.container_id || known.cgroup != who.cgroup {
            known.pod = None;
        }
        known.comm.clone_from(&who.comm);
        known.exe.clone_from(&who.exe);
        known.container_id.clone_from(&who.container_id);
        known.cgroup.clone_from(&who.cgroup);
        let key = RowKey { owner, netns: count.netns, destination: count.destination };
        #[expect(clippy::cast_precision_loss, reason = "an expected number")]
        let collisions = count.chance.map(|chance| chance * count.connects as f64);
        let part = Part { at: now, connects: count.connects, unavailable: count.unavailable, collisions };
        let addition = Entry {
            connects: count.connects,
            unavailable: count.unavailable,
            collisions,
            last: now,
            recent: VecDeque::from([part]),
        };
        self.rows.entry(key).or_default().absorb(addition);
        self.connects += count.connects;
        self.unavailable += count.unavailable;
    }

    /// A process has ended: its rows go to those of its kind that have ended before.
    pub fn end(&mut self, process: ProcessId, who: &Who) {
        let from = OwnerKey::Process(process);
        let Some(mut one) = self.owners.remove(&from) else { return };
        let to = match &who.container_id {
            Some(id) => OwnerKey::Container(id.clone()),
            None => OwnerKey::Named(who.cgroup_id, who.comm.clone()),
        };
        one.ended = true;
        match self.owners.get_mut(&to) {
            None => drop(self.owners.insert(to.clone(), one)),
            Some(group) => {
                group.processes += 1;
                group.pid = None;
                group.comm = one.comm;
                group.pod = one.pod.or(group.pod.take());
                group.cgroup = one.cgroup.or(group.cgroup.take());
                if group.exe.is_some() && one.exe.is_some() && group.exe != one.exe {
                    self.mixed.insert(to.clone());
                }
                group.exe = group.exe.take().or(one.exe).filter(|_| !self.mixed.contains(&to));
            }
        }
        let first = RowKey { owner: from.clone(), netns: 0, destination: LOWEST };
        let own = self.rows.range(first..).map(|(key, _)| key).take_while(|key| key.owner == from);
        for key in own.cloned().collect::<Vec<_>>() {
            let Some(entry) = self.rows.remove(&key) else { continue };
            self.rows.entry(RowKey { owner: to.clone(), ..key }).or_default().absorb(entry);
        }
    }

    /// Everybody who has rows. What is changed of them, such as a pod's name that came late, stays.
    pub fn owners_mut(&mut self) -> impl Iterator<Item = &mut Owner> {
        self.owners.values_mut()
    }

    /// Drops what is older than anyone asks for, and rows beyond the bound.
    pub fn tidy(&mut self, now: Duration) {
        for entry in self.rows.values_mut() {
            while entry.recent.front().is_some_and(|part| part.at + TIME_WAIT < now) {
                entry.recent.pop_front();
            }
        }
        let excess = self.rows.len().saturating_sub(MAX_ROWS);
        if excess > 0 {
            let mut oldest: Vec<(Duration, RowKey)> =
                self.rows.iter().map(|(key, entry)| (entry.last, key.clone())).collect();
            oldest.sort_unstable();
            for (_, key) in oldest.into_iter().take(excess) {
                self.forgotten += self.rows.remove(&key).map_or(0, |entry| entry.connects);
            }
        }
        let rows = &self.rows;
        if excess > 0 || self.owners.len() > rows.len() {
            let used: std::collections::HashSet<&OwnerKey> = rows.keys().map(|key| &key.owner).collect();
            self.owners.retain(|key, _| used.contains(key));
            self.mixed.retain(|key| used.contains(key));
        }
    }

    /// Every row, rates of the last 10 s (`whole`: of all the time). The order does not depend on hashes.
    pub fn lines(&self, now: Duration, whole: bool) -> Vec<Line> {
        let from = now.saturating_sub(RATE_WINDOW);
        let seconds = if whole { now } else { now.min(RATE_WINDOW) }.as_secs_f64();
        let lines = self.rows.iter().map(|(key, entry)| {
            let counted = |of: fn(&Part) -> u64, from| entry.since(from).map(of).sum::<u64>();
            let recent = if now <= RATE_WINDOW || whole {
                (entry.connects, entry.collisions)
            } else {
                let sum = |sum: Option<f64>, part: &Part| plus(sum, part.collisions, part.connects);
                (counted(|part| part.connects, from), entry.since(from).fold(Some(0.0), sum))
            };
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let per_second = if seconds > 0.0 { recent.0 as f64 / seconds } else { 0.0 };
            Line {
                owner: self.owners.get(&key.owner).cloned().unwrap_or_default(),
                netns: key.netns,
                destination: key.destination,
                connects: entry.connects,
                connects_in_a_minute: entry.recent.iter().map(|part| part.connects).sum(),
                per_second,
                collisions_per_hour: recent
                    .1
                    .map(|sum| if seconds > 0.0 { sum / seconds * 3600.0 } else { 0.0 }),
                unavailable: entry.unavailable,
                unavailable_now: if now <= RATE_WINDOW {
                    entry.unavailable
                } else {
                    counted(|part| part.unavailable, from)
                },
            }
        });
        lines.collect()
    }

    /// All connects, all EADDRNOTAVAIL, and the connects of rows that were dropped.
    pub const fn totals(&self) -> (u64, u64, u64) {
        (self.connects, self.unavailable, self.forgotten)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
