//! What `portclash ports` reports.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::diagnosis::incident::Pod;

/// `portclash.ports/v1`: one owner's connects to one destination.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Row {
    /// `portclash.ports/v1`
    pub schema: &'static str,
    /// Who connects; `null` = not known: the sockets are from before the counting began, or by nobody who was seen.
    pub owner: Option<Owner>,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Remote `address:port`.
    pub destination: String,
    /// Connects that got a source port, since the counting began.
    pub connects: u64,
    /// The same per second: of the last 10 s in the full-screen view, else of the whole time.
    pub connects_per_second: f64,
    /// Local ports that sockets to this destination hold, TIME-WAIT included, as far as they are this owner's.
    pub local_ports_in_use: Option<u64>,
    /// Of these, in TIME-WAIT.
    pub time_wait: Option<u64>,
    /// Owners that connected to this destination. TIME-WAIT sockets have no owner: with several they are divided by
    /// how often each connected in the last 60 s.
    pub owners_of_destination: u64,
    /// `local_ports_in_use` as a part of the ports that the kernel may choose from, 0 to 1.
    pub share_of_range: Option<f64>,
    /// How the ports towards this destination will last, all owners together.
    pub outlook: Outlook,
    /// Seconds until they are used up; only with `running_out` (and 0 with `used_up`).
    pub seconds_until_used_up: Option<f64>,
    /// Connects per hour that will get a source port that is an IPVS service, at this rate.
    pub expected_collisions_per_hour: Option<f64>,
    /// Connects that failed with EADDRNOTAVAIL since the counting began: no source port was free.
    pub unavailable: u64,
}

/// Who connects: a process, or all processes of one kind that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Owner {
    /// Process id in the initial pid namespace; `null` for several processes.
    pub pid: Option<u32>,
    /// True if it has ended (all of them have).
    pub ended: bool,
    /// How many processes: those that have ended are one owner per container, else per cgroup and task name.
    pub processes: u64,
    /// Task name; of several processes the latest one's.
    pub comm: Option<String>,
    /// Executable.
    pub exe: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// cgroup path, which may name the pod where no list has the container yet.
    #[serde(skip)]
    pub cgroup: Option<String>,
    /// Pod of the container; `null` = it runs in none, or no source named it.
    pub pod: Option<Pod>,
}

/// How the ports towards a destination will last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outlook {
    /// None is left, or a connect failed for want of one in the last 10 s.
    UsedUp,
    /// They are used up soon if it goes on like this.
    RunningOut,
    /// They are freed as fast as they are used.
    Lasts,
    /// The sockets cannot be read, or not for long enough yet.
    Unknown,
}

/// `portclash.ports-summary/v1`: the last line.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Summary {
    /// `portclash.ports-summary/v1`
    pub schema: &'static str,
    /// Seconds that connects were counted.
    pub seconds: f64,
    /// Connects of all owners.
    pub connects: u64,
    /// Connects that failed with EADDRNOTAVAIL.
    pub unavailable: u64,
    /// Inode number of the network namespace; `null` = all.
    pub netns: Option<u32>,
    /// `net.ipv4.ip_local_port_range`, such as `32768-60999`.
    pub local_port_range: Option<String>,
    /// Ports that the kernel may choose from: the range without `net.ipv4.ip_local_reserved_ports`.
    pub usable_ports: Option<u64>,
    /// Sockets in TIME-WAIT of this node's own connects.
    pub time_wait: Option<u64>,
    /// Of these, not caused by anyone who was seen to connect.
    pub time_wait_unattributed: Option<u64>,
    /// Connects per hour that will get a source port that is an IPVS service, at this rate, all owners together.
    pub expected_collisions_per_hour: Option<f64>,
    /// What was lost: program → reason → count. Empty = nothing.
    pub lost: BTreeMap<String, BTreeMap<String, u64>>,
    /// Need → the rung that served it.
    pub hooks: BTreeMap<String, String>,
    /// What the evidence lacks, one sentence each. Empty = complete.
    pub incomplete: Vec<String>,
}

/// Name of [`Row`] in output.
pub const ROW: &str = "portclash.ports/v1";
/// Name of [`Summary`] in output.
pub const SUMMARY: &str = "portclash.ports-summary/v1";

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Rows in the order of [`Sort`].
    pub rows: Vec<Row>,
    /// The summary.
    pub summary: Summary,
    /// Why owners that run in pods have no name of one, if some have none.
    pub unnamed_pods: Option<String>,
}

/// What rows are sorted by; the largest (or soonest) is first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// Connects per second.
    #[default]
    Rate,
    /// Connects since the beginning.
    Connects,
    /// Local ports in use.
    Ports,
    /// Sockets in TIME-WAIT.
    TimeWait,
    /// Time until the ports are used up.
    UsedUp,
    /// Expected collisions.
    Collisions,
    /// EADDRNOTAVAIL.
    Failed,
}

/// Sorts rows; what is equal keeps an order that does not change from second to second.
pub fn sort(rows: &mut [Row], by: Sort) {
    let float = |value: f64| std::cmp::Reverse(ordered(value));
    let stable = |row: &Row| {
        let owner = row.owner.as_ref();
        (
            std::cmp::Reverse(row.connects),
            owner.is_none(),
            owner.and_then(|owner| owner.comm.clone()),
            owner.and_then(|owner| owner.pid),
            row.destination.clone(),
        )
    };
    rows.sort_by_cached_key(|row| {
        let first = match by {
            Sort::Rate => float(row.connects_per_second),
            #[expect(clippy::cast_precision_loss, reason = "an order, not a value")]
            Sort::Connects => float(row.connects as f64),
            #[expect(clippy::cast_precision_loss, reason = "an order, not a value")]
            Sort::Ports => float(row.local_ports_in_use.map_or(-1.0, |ports| ports as f64)),
            #[expect(clippy::cast_precision_loss, reason = "an order, not a value")]
            Sort::TimeWait => float(row.time_wait.map_or(-1.0, |count| count as f64)),
            Sort::UsedUp => float(row.seconds_until_used_up.map_or(f64::NEG_INFINITY, |seconds| -seconds)),
            Sort::Collisions => float(row.expected_collisions_per_hour.unwrap_or(-1.0)),
            #[expect(clippy::cast_precision_loss, reason = "an order, not a value")]
            Sort::Failed => float(row.unavailable as f64),
        };
        (first, stable(row))
    });
}

/// A number whose order is total.
fn ordered(value: f64) -> i64 {
    // As f64::total_cmp does it.
    let bits = value.to_bits().cast_signed();
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::samples;

    #[test]
    fn every_key_puts_its_largest_first_and_unknown_last() {
        let mut rows = samples::report().rows;
        let first = |rows: &mut Vec<Row>, by| {
            sort(rows, by);
            rows[0].clone()
        };
        let largest = |of: fn(&Row) -> f64| samples::report().rows.iter().map(of).fold(f64::MIN, f64::max);
        let rate = first(&mut rows, Sort::Rate);
        assert!((rate.connects_per_second - largest(|row| row.connects_per_second)).abs() < f64::EPSILON);
        assert_eq!(first(&mut rows, Sort::UsedUp).outlook, Outlook::UsedUp);
        assert_eq!(rows[1].outlook, Outlook::RunningOut, "then the next to be used up");
        assert!(first(&mut rows, Sort::Failed).unavailable > 0);
        assert!(rows.last().unwrap().unavailable == 0);
        assert!(first(&mut rows, Sort::TimeWait).time_wait.is_some());
        assert_eq!(rows.last().unwrap().time_wait, None);
        assert!(first(&mut rows, Sort::Collisions).expected_collisions_per_hour > Some(0.0));
    }

    #[test]
    fn numbers_have_a_total_order() {
        let mut numbers = [1.5, f64::NEG_INFINITY, -0.5, 0.0, f64::INFINITY, -1.0];
        numbers.sort_by_key(|number| ordered(*number));
        let expected = [f64::NEG_INFINITY, -1.0, -0.5, 0.0, 1.5, f64::INFINITY];
        assert_eq!(numbers.map(f64::to_bits), expected.map(f64::to_bits));
    }
}
