//! Puts the snapshot together from what runs.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::process;
use super::snapshot::{HookView, PodSourceView, Snapshot, TableView};
use crate::ipvs::table::{Protocol, ServiceId, ServiceTable};
use crate::kernel::ladder::Need;
use crate::kernel::loader::LoadError;
use crate::node::ipvs_module;
use crate::sources::account::excused;
use crate::sources::table::CurrentTable;
use crate::trace::Trace;

/// What a trace knows of itself and the node. The rest is filled in by whoever has it.
pub(super) fn snapshot(trace: &Trace, counts: &Counts) -> Result<Snapshot, LoadError> {
    let live = trace.live();
    let summary = trace.summary()?;
    let pods = trace.names().names().pods();
    let ipvs = ipvs_module::is_loaded();
    Ok(Snapshot {
        at: trace.now(),
        kernel: None,
        node: pods.node().name.clone(),
        not_ready: not_ready(
            live.tracer().hooks().get(&Need::Connect).is_some_and(|hook| hook.way.is_some()),
            live.table(),
        ),
        incomplete: summary.incomplete,
        incidents: counts.incidents.clone(),
        by_pod: counts.by_pod.clone(),
        by_other_pods: counts.by_other_pods,
        open_connections: trace.diagnosis().open(),
        connects: summary.connects_seen,
        ports_used_up: trace.ports_used_up(),
        lost: with_zeros(summary.lost, live.tracer().loss_kinds()),
        hooks: live
            .tracer()
            .hooks()
            .iter()
            .map(|(need, hook)| HookView { need: need.name(), way: hook.way, excused: excused(*need, ipvs) })
            .collect(),
        programs: live.tracer().program_costs(),
        table: TableView {
            services: services(live.table().current()),
            reads: live.table().reads,
            failures: live.table().failures(),
            is_file: live.services_are_a_file(),
            read_at: live.table().read_at,
            unreadable: live.table().current().unreadable.len() as u64,
        },
        pods: pods
            .sources()
            .iter()
            .map(|(source, state)| PodSourceView {
                source: source.word(),
                last_word: state.last_word,
                trouble: state.trouble.clone(),
                errors: state.troubles,
                unreadable: state.unreadable_count as u64,
            })
            .collect(),
        pods_known: pods.pods().len() as u64,
        probe_failures_elsewhere: summary.probe_failures_elsewhere,
        process: process::read(),
        ..Snapshot::default()
    })
}

/// What was lost, and 0 for what may be: that a series begins is no loss.
fn with_zeros(
    mut lost: BTreeMap<String, BTreeMap<String, u64>>,
    kinds: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> BTreeMap<String, BTreeMap<String, u64>> {
    for (program, reason) in kinds {
        lost.entry(program.to_owned()).or_default().entry(reason.to_owned()).or_default();
    }
    lost
}

/// Ready = connects are seen and the table is known. What a later reading could not do makes evidence incomplete, but the
/// table of before is in force.
fn not_ready(connects_are_seen: bool, table: &CurrentTable) -> Vec<String> {
    let mut reasons = Vec::new();
    if !connects_are_seen {
        reasons.push("connects are not seen: no hook is attached".to_owned());
    }
    if table.reads == 0 {
        reasons.push("the service table was not read yet".to_owned());
        reasons.extend(table.trouble().map(str::to_owned));
    }
    reasons
}

fn services(table: &ServiceTable) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::from([("tcp", 0), ("udp", 0), ("sctp", 0), ("mark", 0)]);
    for id in table.services.keys() {
        let kind = match id {
            ServiceId::Address(Protocol::Tcp, _) => "tcp",
            ServiceId::Address(Protocol::Udp, _) => "udp",
            ServiceId::Address(Protocol::Sctp, _) => "sctp",
            ServiceId::Mark { .. } => "mark",
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sources::table::TableRead;

    #[test]
    fn what_may_be_lost_is_counted_from_the_start() {
        let reasons = |missed| BTreeMap::from([("missed".to_owned(), missed)]);
        let lost = BTreeMap::from([("reset".to_owned(), reasons(3))]);
        let all = with_zeros(lost, [("reset", "missed"), ("connect", "missed")]);
        assert_eq!(
            all,
            BTreeMap::from([("connect".to_owned(), reasons(0)), ("reset".to_owned(), reasons(3))])
        );
    }

    #[test]
    fn it_is_ready_once_connects_are_seen_and_the_table_was_read() {
        let mut table = CurrentTable::default();
        table.take(TableRead::failed("no access"), 1);
        let reasons = not_ready(true, &table);
        assert_eq!(reasons, ["the service table was not read yet", "service table: no access"]);
        assert_eq!(not_ready(false, &table).len(), 3);
        let note = Some("the table changed between 5 reads in a row; the last one is shown".to_owned());
        let read = TableRead { table: Some(Arc::default()), trouble: note, ..TableRead::failed("") };
        table.take(read, 2);
        assert!(table.trouble().is_some());
        assert_eq!(not_ready(true, &table), [""; 0]);
        // The table of before is in force.
        table.take(TableRead::failed("no access"), 3);
        assert_eq!(not_ready(true, &table), [""; 0]);
    }
}
