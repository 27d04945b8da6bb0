//! What the live source does with the tables of its namespace: services go to the kernel side and to whoever judges, rows
//! of connections prove a hijack that no hook saw.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::error::Elapsed;

use super::live::{Live, LiveError};
use super::table_watch::Come;
use crate::ipvs::diff::TableDiff;
use crate::ipvs::table::IpvsConnection;
use crate::kernel::ladder::{self, Need};
use crate::node::ipvs_module;
use crate::observation::{Fact, Nanos, Observation, Tuple};

/// How soon connections are asked again whether a proof is missing, after none was.
const NOTHING_TO_PROVE: Duration = Duration::from_millis(50);

impl Live {
    pub(super) fn take_table(&mut self, come: Come) -> Result<(), LiveError> {
        match come {
            Come::Due => self.refresh(),
            Come::Read(reading) => {
                // What the programs find from here on is judged by the new table.
                let at = self.clock.now();
                match self.tables.take(reading, at) {
                    Some(difference) => self.take_services(at, &difference),
                    None => Ok(()),
                }
            }
            Come::Rows(at, rows) => {
                let rows = self.row_observations(at, rows);
                self.pending.extend(rows);
                Ok(())
            }
        }
    }

    /// Begins to read the service table again, and re-attaches what follows ip_vs.
    fn refresh(&mut self) -> Result<(), LiveError> {
        let module = ipvs_module::current();
        if module != self.module && module.is_some() {
            // What was hooked went with the one that was there before, although one is there again.
            self.tracer.ipvs_module_changed(false);
        }
        self.module = module;
        self.tracer.ipvs_module_changed(module.is_some());
        // A change after this is announced again.
        self.tracer.services.rearm_trigger()?;
        self.tables.start_reading();
        Ok(())
    }

    /// Hands the differences to the kernel side, and the table to whoever judges.
    pub(super) fn take_services(&mut self, at: Nanos, difference: &TableDiff) -> Result<(), LiveError> {
        self.tracer.services.add(self.netns.inode, &difference.added)?;
        self.tracer.services.remove(self.netns.inode, &difference.removed)?;
        let table = self.tables.current();
        self.pending.push_back(Observation {
            at,
            source: table.source(),
            fact: Fact::Services { netns: Some(self.netns.inode), table: table.shared() },
        });
        Ok(())
    }

    fn row_observations(
        &self,
        at: Nanos,
        rows: Vec<IpvsConnection>,
    ) -> impl Iterator<Item = Observation> + use<> {
        let netns = Some(self.netns.inode);
        let fact = move |row| Fact::ConnectionRow { row, netns };
        rows.into_iter().map(move |row| Observation { at, source: "ip_vs_conn".into(), fact: fact(row) })
    }

    /// Since when proof is looked for, see [`Self::look_for_proof`].
    pub fn looks_since(&self) -> Option<Nanos> {
        self.tables.looks_since()
    }

    /// The proof that is looked for, for the end of a trace: waits at most so long.
    pub async fn finish_look(&mut self, patience: Duration) -> Result<Vec<Observation>, Elapsed> {
        let Some((at, rows)) = self.tables.finish_look(patience).await? else { return Ok(Vec::new()) };
        Ok(self.row_observations(at, rows).collect())
    }

    /// Looks into the IPVS connection table for connections whose hijack no hook saw: where none is attached, and where
    /// IPVS still had an entry from an earlier connect, so that it scheduled nothing anew. Reading a table of 100,000
    /// rows is not free, so not often. What is found is among the next observations.
    pub fn look_for_proof(&mut self, open: impl FnOnce() -> Vec<(Tuple, Option<u32>)>) {
        let hook = self.tracer().hooks().get(&Need::Hijack).and_then(|hook| hook.way);
        let interval = match hook {
            Some(ladder::CONNECTION_TABLE) => Duration::from_millis(250),
            Some(_) => Duration::from_secs(2),
            None => return,
        };
        if !self.tables.may_look() {
            return;
        }
        // Under load there are thousands, and asking each of them again and again would take all the time there is.
        let open: HashSet<Tuple> = open().into_iter().map(|(tuple, _)| tuple).collect();
        if open.is_empty() {
            self.tables.look_again_in(NOTHING_TO_PROVE);
            return;
        }
        self.tables.look_again_in(interval);
        let wanted = move |row: &IpvsConnection| {
            open.contains(&Tuple { local: row.virtual_address, remote: row.client })
        };
        self.tables.look(self.clock.now(), wanted);
    }
}
