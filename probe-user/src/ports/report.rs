//! From counts and sockets to rows. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::attribute::divide;
use super::ledger::Line;
use super::model::{Outlook, ROW, Row};
use super::outlook::Trend;

/// Rows of sockets that nobody was seen to make; the rest is in the summary.
const MAX_UNKNOWN: usize = 100;

/// What is known beside the counts.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The network namespace that the sockets are of.
    pub netns: u32,
    /// Sockets per destination; `None` = they cannot be read.
    pub sockets: Option<&'a HashMap<SocketAddr, Trend>>,
    /// Ports that the kernel may choose from.
    pub usable: Option<u64>,
}

/// Sockets in TIME-WAIT of this node's own connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeWaits {
    /// All.
    pub time_wait: u64,
    /// Those that nobody was seen to make.
    pub unattributed: u64,
}

/// A row per line, and one per destination for sockets that are nobody's.
pub fn rows(lines: &[Line], known: &Known<'_>) -> (Vec<Row>, Option<TimeWaits>) {
    let mut by_destination: BTreeMap<(u32, SocketAddr), Vec<&Line>> = BTreeMap::new();
    for line in lines {
        by_destination.entry((line.netns, line.destination)).or_default().push(line);
    }
    let mut rows = Vec::new();
    let mut unknown = Vec::new();
    let mut found = TimeWaits::default();
    if let Some(sockets) = known.sockets {
        // Destinations that nobody was seen to connect to have their row too.
        for (destination, trend) in sockets {
            if trend.latest().is_some_and(|usage| usage.time_wait + usage.open > 0) {
                by_destination.entry((known.netns, *destination)).or_default();
            }
        }
    }
    for ((netns, destination), lines) in by_destination {
        let here = netns == known.netns;
        let trend = known.sockets.filter(|_| here).map(|sockets| sockets.get(&destination));
        let shared = Shared::of(&lines, trend, known.usable.filter(|_| here));
        rows.extend(lines.iter().zip(0..).map(|(line, index)| shared.row(line, index)));
        found.time_wait += shared.time_wait;
        found.unattributed += shared.unknown_time_wait;
        if shared.unknown_time_wait + shared.unknown_open > 0 {
            unknown.push(shared.unknown_row(netns, destination));
        }
    }
    unknown.sort_by_key(|row: &Row| std::cmp::Reverse(row.local_ports_in_use));
    unknown.truncate(MAX_UNKNOWN);
    rows.extend(unknown);
    (rows, known.sockets.map(|_| found))
}

/// What all owners of one destination share.
struct Shared {
    /// TIME-WAIT and other sockets of each owner; `None` = sockets are not known.
    parts: Option<Vec<(u64, u64)>>,
    time_wait: u64,
    unknown_time_wait: u64,
    unknown_open: u64,
    owners: u64,
    usable: Option<u64>,
    outlook: (Outlook, Option<f64>),
}

impl Shared {
    /// `trend`: `None` = sockets are not known, `Some(None)` = there are none.
    fn of(lines: &[&Line], trend: Option<Option<&Trend>>, usable: Option<u64>) -> Self {
        let usage = trend.map(|trend| trend.and_then(Trend::latest).unwrap_or_default());
        let per_second = lines.iter().map(|line| line.per_second).sum();
        let mut outlook = match trend {
            None => (Outlook::Unknown, None),
            Some(None) => (Outlook::Lasts, None),
            Some(Some(trend)) => trend.outlook(usable, per_second),
        };
        if lines.iter().any(|line| line.unavailable_now > 0) {
            outlook = (Outlook::UsedUp, Some(0.0));
        }
        let in_a_minute: Vec<u64> = lines.iter().map(|line| line.connects_in_a_minute).collect();
        let closed = divide(usage.map_or(0, |usage| usage.time_wait), &in_a_minute);
        // Who has n sockets in TIME-WAIT can have opened only the others of its connects.
        let rest =
            lines.iter().zip(&closed.shares).map(|(line, closed)| line.connects.saturating_sub(*closed));
        let open = divide(usage.map_or(0, |usage| usage.open), &rest.collect::<Vec<_>>());
        Self {
            parts: usage.map(|_| closed.shares.into_iter().zip(open.shares).collect()),
            time_wait: usage.map_or(0, |usage| usage.time_wait),
            unknown_time_wait: closed.unknown,
            unknown_open: open.unknown,
            owners: lines.len() as u64,
            usable,
            outlook,
        }
    }

    fn share(&self, ports: Option<u64>) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "numbers of ports")]
        let share = |ports: u64, usable: u64| ports as f64 / usable.max(1) as f64;
        ports.zip(self.usable).map(|(ports, usable)| share(ports, usable))
    }

    fn row(&self, line: &Line, index: usize) -> Row {
        let part = self.parts.as_ref().and_then(|parts| parts.get(index).copied());
        let in_use = part.map(|(closed, open)| closed + open);
        Row {
            schema: ROW,
            owner: Some(line.owner.clone()),
            netns: line.netns,
            destination: line.destination.to_string(),
            connects: line.connects,
            connects_per_second: line.per_second,
            local_ports_in_use: in_use,
            time_wait: part.map(|(closed, _)| closed),
            owners_of_destination: self.owners,
            share_of_range: self.share(in_use),
            outlook: self.outlook.0,
            seconds_until_used_up: self.outlook.1,
            expected_collisions_per_hour: line.collisions_per_hour,
            unavailable: line.unavailable,
        }
    }

    fn unknown_row(&self, netns: u32, destination: SocketAddr) -> Row {
        let in_use = Some(self.unknown_time_wait + self.unknown_open);
        Row {
            schema: ROW,
            owner: None,
            netns,
            destination: destination.to_string(),
            connects: 0,
            connects_per_second: 0.0,
            local_ports_in_use: in_use,
            time_wait: Some(self.unknown_time_wait),
            owners_of_destination: self.owners,
            share_of_range: self.share(in_use),
            outlook: self.outlook.0,
            seconds_until_used_up: self.outlook.1,
            expected_collisions_per_hour: None,
            unavailable: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ports::model::Owner;
    use crate::ports::usage::Usage;

    fn line(pid: u32, connects: u64) -> Line {
        Line {
            owner: Owner { pid: Some(pid), processes: 1, ..Owner::default() },
            netns: 1,
            destination: "10.0.0.1:80".parse().unwrap(),
            connects,
            connects_in_a_minute: connects,
            per_second: 1.0,
            collisions_per_hour: Some(0.5),
            unavailable: 0,
            unavailable_now: 0,
        }
    }

    fn sockets(destination: &str, time_wait: u64, open: u64) -> HashMap<SocketAddr, Trend> {
        let mut trend = Trend::default();
        for second in 0..4 {
            trend.add(Duration::from_secs(second), Usage { time_wait, open, taken: time_wait + open });
        }
        HashMap::from([(destination.parse().unwrap(), trend)])
    }

    fn known(sockets: &HashMap<SocketAddr, Trend>) -> Known<'_> {
        Known { netns: 1, sockets: Some(sockets), usable: Some(1000) }
    }

    #[test]
    fn the_only_owner_has_the_sockets_and_those_from_before_are_unknown() {
        let sockets = sockets("10.0.0.1:80", 90, 2);
        let (rows, found) = rows(&[line(7, 60)], &known(&sockets));
        assert_eq!(found, Some(TimeWaits { time_wait: 90, unattributed: 30 }));
        let [own, unknown] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((own.time_wait, own.local_ports_in_use), (Some(60), Some(60)));
        assert_eq!(own.share_of_range, Some(0.06));
        assert_eq!(own.outlook, Outlook::Lasts);
        assert_eq!(
            (&unknown.owner, unknown.time_wait, unknown.local_ports_in_use),
            (&None, Some(30), Some(32))
        );
    }

    #[test]
    fn owners_of_one_destination_share_and_open_sockets_are_no_ones_time_wait() {
        let sockets = sockets("10.0.0.1:80", 8, 10);
        let (rows, _) = rows(&[line(7, 30), line(8, 10)], &known(&sockets));
        let parts: Vec<_> = rows.iter().map(|row| (row.time_wait, row.local_ports_in_use)).collect();
        assert_eq!(parts, [(Some(6), Some(14)), (Some(2), Some(4))]);
        assert!(rows.iter().all(|row| row.owners_of_destination == 2));
    }

    #[test]
    fn destinations_that_nobody_connected_to_are_shown_as_unknown() {
        let sockets = sockets("10.0.0.9:443", 5, 0);
        let (rows, found) = rows(&[line(7, 3)], &known(&sockets));
        assert_eq!(found, Some(TimeWaits { time_wait: 5, unattributed: 5 }));
        assert_eq!((rows[0].time_wait, rows[0].outlook), (Some(0), Outlook::Lasts));
        assert_eq!((rows[1].destination.as_str(), &rows[1].owner), ("10.0.0.9:443", &None));
    }

    #[test]
    fn without_sockets_and_in_other_namespaces_ports_are_unknown_and_not_none() {
        let blind = Known { netns: 1, sockets: None, usable: Some(1000) };
        let (all, found) = rows(&[line(7, 3)], &blind);
        assert_eq!((all[0].time_wait, all[0].share_of_range, all[0].outlook), (None, None, Outlook::Unknown));
        assert_eq!(found, None);
        let sockets = sockets("10.0.0.1:80", 5, 0);
        let elsewhere = Line { netns: 2, ..line(7, 3) };
        let (all, _) = rows(&[elsewhere], &known(&sockets));
        assert_eq!((all[0].time_wait, all[1].owner.is_none()), (None, true));
    }

    #[test]
    fn a_connect_that_just_failed_says_more_than_the_sockets() {
        let sockets = sockets("10.0.0.1:80", 5, 0);
        let failed = Line { unavailable: 4, unavailable_now: 1, ..line(7, 5) };
        let (rows, _) = rows(&[failed], &known(&sockets));
        assert_eq!((rows[0].outlook, rows[0].seconds_until_used_up), (Outlook::UsedUp, Some(0.0)));
    }
}
