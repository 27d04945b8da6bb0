//! Keeps the service table fresh and looks things up in the IPVS connection table. Both are read beside the loop: reading
//! tens of thousands of rows must not keep events waiting.

use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use super::beside::Beside;
use super::clock::processor_time;
use super::table::{CurrentTable, TableError, TableRead, TableReader};
use crate::ipvs::diff::{TableDiff, diff};
use crate::ipvs::table::IpvsConnection;
use crate::memory;
use crate::observation::Nanos;

/// What there is to do.
pub(super) enum Come {
    /// The service table is to be read again, see [`TableWatch::start_reading`].
    Due,
    /// It was read, see [`TableWatch::take`].
    Read(Reading),
    /// Rows that were looked for, and when that was.
    Rows(Nanos, Vec<IpvsConnection>),
}

/// A service table, and how it differs from the one that was known when reading began.
pub(super) struct Reading {
    read: TableRead,
    difference: TableDiff,
    /// Processor time that it took.
    cost: Duration,
}

/// Polling takes at most one part in so many of a core, however large the table is.
const COST: u32 = 100;
/// But it is not rarer than this.
const RAREST_POLL: Duration = Duration::from_mins(5);

/// After a reading nothing is read for so many times as long as it kept a core busy: changes that come all the time take
/// at most a tenth of a core, however large the table is.
const REST: u32 = 9;
/// But for no longer than this: what was added meanwhile is not looked for.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// A look into the IPVS connection table.
struct Look {
    /// When it was asked for.
    since: Nanos,
    rows: Beside<Vec<IpvsConnection>>,
}

/// The tables of one namespace.
pub(super) struct TableWatch {
    reader: TableReader,
    current: CurrentTable,
    reading: Option<Beside<Reading>>,
    look: Option<Look>,
    /// The connection table is not looked at before this.
    next_look: Option<Instant>,
    poll: Duration,
    next_poll: Instant,
    /// When the service table is to be read although it was not polled for; set by triggers.
    due: Option<Instant>,
    /// It is not read before this, whatever is changed in it.
    rest_until: Instant,
}

impl TableWatch {
    /// Reads the service table for the first time, at once; later ones are due every `poll`, or less often where reading
    /// takes long. See [`TableReader::read`].
    pub(super) fn start(
        reader: TableReader,
        poll: Duration,
        now: impl FnOnce() -> Nanos,
    ) -> Result<(Self, TableDiff), TableError> {
        let read = reader.read()?;
        let mut current = CurrentTable::default();
        let difference = read.table.as_ref().map(|table| diff(current.current(), table)).unwrap_or_default();
        current.take(read, now());
        let started = Instant::now();
        let watch = Self {
            reader,
            current,
            reading: None,
            look: None,
            next_look: None,
            poll,
            next_poll: started + poll,
            due: None,
            rest_until: started,
        };
        Ok((watch, difference))
    }

    /// The service table as it is known now.
    pub(super) const fn current(&self) -> &CurrentTable {
        &self.current
    }

    /// True if the services come from the user's file, which is read once.
    pub(super) const fn is_file(&self) -> bool {
        self.reader.is_file()
    }

    /// The service table has changed. What follows while it is read, or rests, is read afterwards.
    pub(super) fn changed(&mut self) {
        self.due.get_or_insert_with(Instant::now);
    }

    /// IPVS came or went: there is no rest for another table; what follows within `settle` is read with it.
    pub(super) fn module_changed(&mut self, settle: Duration) {
        let now = Instant::now();
        self.due = Some(self.due.map_or(now + settle, |due| due.min(now + settle)));
        self.rest_until = now;
    }

    /// The next thing to do. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Come {
        let idle = self.reading.is_none();
        let due = self.due.map_or(self.next_poll, |due| due.min(self.next_poll)).max(self.rest_until);
        tokio::select! {
            reading = done(self.reading.as_mut()) => {
                self.reading = None;
                Come::Read(reading.unwrap_or_else(broken_off))
            }
            rows = done(self.look.as_mut().map(|look| &mut look.rows)) => {
                let since = self.look.take().map_or(0, |look| look.since);
                Come::Rows(since, rows.unwrap_or_default())
            }
            () = tokio::time::sleep_until(due), if idle => Come::Due,
        }
    }

    /// Begins to read the service table; a change after this is read again.
    pub(super) fn start_reading(&mut self) {
        self.due = None;
        self.next_poll = Instant::now() + self.poll;
        if self.is_file() || self.reading.is_some() {
            return;
        }
        let (reader, known) = (self.reader.clone(), self.current.shared());
        let work = move || {
            let mut read = reader.read_node();
            let begun = processor_time();
            let difference = read.table.as_ref().map(|table| diff(&known, table)).unwrap_or_default();
            // Most readings bring nothing new, and others hold the table that is known: not a second one beside it.
            if read.table.as_ref() == Some(&known) {
                read.table = Some(known);
            }
            memory::give_back();
            let cost = read.cost + processor_time().saturating_sub(begun);
            Reading { read, difference, cost }
        };
        self.reading = Some(Beside::start(work));
    }

    /// Takes what was read at `now`; returns what is different, `None` if nothing is.
    pub(super) fn take(&mut self, reading: Reading, now: Nanos) -> Option<TableDiff> {
        let Reading { read, difference, cost } = reading;
        let ended = Instant::now();
        self.next_poll = ended + self.poll.max((cost * COST).min(RAREST_POLL));
        self.rest_until = ended + (cost * REST).min(LONGEST_REST);
        self.current.take(read, now);
        (!difference.is_empty()).then_some(difference)
    }

    /// Whether a look into the connection table is due: none runs, and the last is long enough ago.
    pub(super) fn may_look(&self) -> bool {
        self.look.is_none() && self.next_look.is_none_or(|next| next <= Instant::now())
    }

    /// Not before so much time has passed.
    pub(super) fn look_again_in(&mut self, interval: Duration) {
        self.next_look = Some(Instant::now() + interval);
    }

    /// Looks for rows of the connection table, at `now`.
    pub(super) fn look(&mut self, now: Nanos, wanted: impl Fn(&IpvsConnection) -> bool + Send + 'static) {
        let reader = self.reader.clone();
        let rows = Beside::start(move || reader.connections().into_iter().filter(wanted).collect());
        self.look = Some(Look { since: now, rows });
    }

    /// Since when rows are looked for.
    pub(super) fn looks_since(&self) -> Option<Nanos> {
        self.look.as_ref().map(|look| look.since)
    }

    /// Waits for the rows that are looked for, if there are any, at most so long. Whether they came or not, nothing is
    /// looked for any more.
    pub(super) async fn finish_look(
        &mut self,
        patience: Duration,
    ) -> Result<Option<(Nanos, Vec<IpvsConnection>)>, Elapsed> {
        let Some(Look { since, mut rows }) = self.look.take() else { return Ok(None) };
        let rows = timeout(patience, rows.done()).await?;
        Ok(Some((since, rows.unwrap_or_default())))
    }
}

async fn done<T: Send + 'static>(work: Option<&mut Beside<T>>) -> Option<T> {
    match work {
        Some(work) => work.done().await,
        None => std::future::pending().await,
    }
}

fn broken_off() -> Reading {
    let read = TableRead::failed("the thread that read it broke off".to_owned());
    Reading { read, difference: TableDiff::default(), cost: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::netns::NetnsSpec;

    #[tokio::test]
    async fn a_change_while_the_table_is_read_is_read_afterwards() {
        let reader = TableReader::new(None, NetnsSpec::Path("/proc/self/ns/net".into()));
        let (mut tables, _) = TableWatch::start(reader, Duration::from_hours(1), || 1).unwrap();
        let read_at_start = tables.current().reads + tables.current().failures();
        assert_eq!(read_at_start, 1);
        tables.changed();
        assert!(matches!(tables.next().await, Come::Due));
        tables.start_reading();
        tables.changed();
        // Due already, but not before the reading that runs has ended.
        let Come::Read(reading) = tables.next().await else { panic!("it was being read") };
        assert!(tables.take(reading, 2).is_none(), "nothing is different");
        assert_eq!(tables.current().reads + tables.current().failures(), 2);
        assert!(matches!(tables.next().await, Come::Due));
    }

    /// From a reading of this cost, with a change while it ran, until the next is due.
    async fn pause_after(cost: Duration) -> Duration {
        let reader = TableReader::new(None, NetnsSpec::Path("/proc/self/ns/net".into()));
        let (mut tables, _) = TableWatch::start(reader, Duration::from_hours(1), || 1).unwrap();
        let ended = Instant::now();
        tables.changed();
        tables.take(Reading { cost, ..broken_off() }, 2);
        assert!(matches!(tables.next().await, Come::Due));
        ended.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_come_all_the_time_take_a_tenth_of_a_core() {
        assert_eq!(pause_after(Duration::ZERO).await, Duration::ZERO);
        // The runtime's clock has whole milliseconds.
        assert_eq!(pause_after(Duration::from_millis(50)).await.as_millis() / 10, 45);
        assert_eq!(pause_after(Duration::from_mins(30)).await.as_secs(), LONGEST_REST.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn another_table_is_read_without_a_rest() {
        let reader = TableReader::new(None, NetnsSpec::Path("/proc/self/ns/net".into()));
        let (mut tables, _) = TableWatch::start(reader, Duration::from_hours(1), || 1).unwrap();
        tables.changed();
        tables.take(Reading { cost: Duration::from_mins(1), ..broken_off() }, 2);
        let ended = Instant::now();
        tables.module_changed(Duration::from_millis(30));
        assert!(matches!(tables.next().await, Come::Due));
        assert!(ended.elapsed() <= Duration::from_millis(31), "{:?}", ended.elapsed());
    }

    #[tokio::test]
    async fn what_a_reading_costs_is_measured() {
        let reader = TableReader::new(None, NetnsSpec::Path("/proc/self/ns/net".into()));
        let (mut tables, _) = TableWatch::start(reader, Duration::from_hours(1), || 1).unwrap();
        tables.start_reading();
        let Come::Read(reading) = tables.next().await else { panic!("it was being read") };
        assert!(reading.cost > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn polling_takes_a_hundredth_of_a_core() {
        let reader = TableReader::new(None, NetnsSpec::Path("/proc/self/ns/net".into()));
        let (mut tables, _) = TableWatch::start(reader, Duration::from_secs(1), || 1).unwrap();
        for (cost_ms, pause_s) in [(1, 1), (50, 5), (600_000, 300)] {
            let ended = Instant::now();
            tables.take(Reading { cost: Duration::from_millis(cost_ms), ..broken_off() }, 2);
            assert!(matches!(tables.next().await, Come::Due));
            assert_eq!(ended.elapsed().as_secs(), pause_s);
        }
    }

    #[tokio::test]
    async fn a_file_is_read_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "TCP  10.0.0.1:80 rr\n  -> 10.1.0.1:8080 Masq 1 0 0\n").unwrap();
        let reader = TableReader::new(Some(file.path().to_owned()), NetnsSpec::default());
        let (mut tables, added) = TableWatch::start(reader, Duration::from_hours(1), || 1).unwrap();
        assert_eq!(added.added.len(), 1);
        tables.changed();
        assert!(matches!(tables.next().await, Come::Due));
        tables.start_reading();
        assert!(tables.reading.is_none());
    }

    #[tokio::test]
    async fn rows_are_looked_for_one_look_at_a_time() {
        let reader = TableReader::new(None, NetnsSpec::Path("/proc/self/ns/net".into()));
        let (mut tables, _) = TableWatch::start(reader, Duration::from_hours(1), || 1).unwrap();
        assert!(tables.may_look());
        tables.look(7, |_| true);
        assert!(!tables.may_look());
        assert_eq!(tables.looks_since(), Some(7));
        let Come::Rows(since, _) = tables.next().await else { panic!("rows were looked for") };
        assert_eq!((since, tables.looks_since()), (7, None));
        tables.look(8, |_| true);
        let found = tables.finish_look(Duration::MAX).await;
        assert_eq!(found.unwrap().map(|(since, _)| since), Some(8));
        assert_eq!(tables.finish_look(Duration::ZERO).await, Ok(None));
    }
    #[tokio::test]
    async fn a_look_that_does_not_end_is_given_up_at_the_end() {
        let reader = TableReader::new(None, NetnsSpec::Path("/proc/self/ns/net".into()));
        let (mut tables, _) = TableWatch::start(reader, Duration::from_hours(1), || 1).unwrap();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let wait = move || {
            let _ = ended.recv();
            Vec::new()
        };
        tables.look = Some(Look { since: 7, rows: Beside::start(wait) });
        assert!(tables.finish_look(Duration::ZERO).await.is_err());
        assert_eq!(tables.looks_since(), None);
        drop(end);
    }
}
