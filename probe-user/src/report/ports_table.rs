//! The columns of `portclash ports`: the same in the table and in the full-screen view.

use super::text_escape::{escape, escape_all};
use crate::ports::model::{Outlook, Owner, Row, Sort};

/// A column.
pub(super) struct Column {
    /// Heading.
    pub(super) title: &'static str,
    /// Cells it takes at least.
    least: usize,
    /// Numbers end at the right.
    right: bool,
    /// What it is sorted by, to mark it.
    pub(super) sort: Option<Sort>,
    /// Left out where there are less columns than these.
    from: usize,
    /// Its text; unknown is `?`.
    cell: fn(&Row) -> String,
}

/// A column with its place in a table.
pub(super) struct Placed {
    /// The column.
    pub(super) column: &'static Column,
    /// Cells it takes; longer text is cut, except in the last column.
    pub(super) width: usize,
}

/// From here on all columns are shown.
#[cfg(test)]
pub(super) const WIDE: usize = 150;
/// Fewer than these, and the columns do not fit.
pub(super) const NARROW: usize = 80;
/// Cells that the pod's column gets at most beyond its least: it shares what is left with the destination.
const MORE_FOR_PODS: usize = 25;
/// Longest name of a pod that is printed uncut, with its namespace: the API allows 63 + 253 characters.
const MAX_POD: usize = 320;

const fn number(title: &'static str, least: usize, sort: Sort, cell: fn(&Row) -> String) -> Column {
    Column { title, least, right: true, sort: Some(sort), from: 0, cell }
}

const fn text(title: &'static str, least: usize, cell: fn(&Row) -> String) -> Column {
    Column { title, least, right: false, sort: None, from: 0, cell }
}

const POD: &str = "POD";
const DESTINATION: &str = "DESTINATION";

const COLUMNS: &[Column] = &[
    number("CONN/S", 6, Sort::Rate, |row| decimal(row.connects_per_second)),
    Column { from: 137, ..number("CONNECTS", 8, Sort::Connects, |row| short(row.connects)) },
    Column { from: 128, ..number("PORTS", 6, Sort::Ports, |row| optional(row.local_ports_in_use)) },
    number("T-WAIT", 6, Sort::TimeWait, |row| optional(row.time_wait)),
    Column {
        sort: None,
        from: 128,
        ..number("SHARE", 6, Sort::Ports, |row| match row.share_of_range {
            Some(share) => format!("{:.1}%", share * 100.0),
            None => "?".to_owned(),
        })
    },
    number("FULL IN", 7, Sort::UsedUp, full_in),
    number("COLL/H", 6, Sort::Collisions, |row| {
        row.expected_collisions_per_hour.map_or_else(|| "?".to_owned(), decimal)
    }),
    number("FAIL", 5, Sort::Failed, |row| short(row.unavailable)),
    Column { right: true, ..text("PID", 7, pid) },
    text("PROCESS", 15, process),
    Column { from: 114, ..text(POD, 33, |row| pod(row).unwrap_or_else(|| no_pod(row).to_owned())) },
    Column {
        from: 150,
        ..text("CONTAINER", 12, |row| {
            let id = row.owner.as_ref().and_then(|owner| owner.container_id.as_deref());
            id.map_or_else(|| "-".to_owned(), |id| escape(&id.chars().take(12).collect::<String>()))
        })
    },
    text(DESTINATION, 21, |row| escape(&row.destination)),
];

/// The columns for a width. The last one has all the cells that are left.
pub(super) fn columns(width: usize) -> Vec<Placed> {
    let shown = || COLUMNS.iter().filter(|column| width >= column.from);
    let least: usize = shown().map(|column| column.least + 1).sum();
    let left = (width + 1).saturating_sub(least);
    let has_pods = shown().any(|column| column.title == POD);
    let for_pods = if has_pods { (left / 2).min(MORE_FOR_PODS) } else { 0 };
    let more = |column: &Column| match column.title {
        POD => for_pods,
        DESTINATION => left - for_pods,
        _ => 0,
    };
    shown().map(|column| Placed { column, width: column.least + more(column) }).collect()
}

impl Placed {
    /// Whether it has the cells that are left.
    pub(super) fn is_last(&self) -> bool {
        self.column.title == DESTINATION
    }

    /// The heading, of exactly so many cells.
    pub(super) fn heading(&self) -> String {
        self.fitted(self.column.title)
    }

    /// Its text of a row, cut nowhere.
    pub(super) fn whole(&self, row: &Row) -> String {
        (self.column.cell)(row)
    }

    /// Its text of a row, of exactly so many cells; what is cut ends in an ellipsis. The name of a pod is not cut, since
    /// the names of two pods may differ anywhere: an arrow says that it is [`below`].
    pub(super) fn cell(&self, row: &Row) -> String {
        let text = self.whole(row);
        if self.column.title == POD && !self.holds(&text) {
            return self.fitted("↓");
        }
        self.fitted(&text)
    }

    fn holds(&self, text: &str) -> bool {
        text.chars().count() <= self.width
    }

    fn fitted(&self, text: &str) -> String {
        let width = self.width;
        if !self.holds(text) {
            let cut: String = text.chars().take(width.saturating_sub(1)).collect();
            return format!("{cut}…");
        }
        if self.column.right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    }
}

/// The line below a row that names its pod, if no column has the room for it: where it begins, and its text.
pub(super) fn below(row: &Row, columns: &[Placed], width: usize) -> Option<(usize, String)> {
    let pod = pod(row)?;
    let column = columns.iter().find(|placed| placed.column.title == POD);
    if column.is_some_and(|placed| placed.holds(&pod)) {
        return None;
    }
    let text = format!("pod {pod}");
    let before = columns.iter().take_while(|placed| placed.column.title != "PROCESS");
    let process: usize = before.map(|placed| placed.width + 1).sum();
    Some((process.min(width.saturating_sub(text.chars().count())), text))
}

/// A text of so many characters at most: its beginning and its end, where the names of pods differ most often.
pub(super) fn shortened(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(1);
    let head = kept / 2;
    let end = text.chars().skip(length - (kept - head));
    text.chars().take(head).chain(['…']).chain(end).collect()
}

/// `namespace/name`.
fn pod(row: &Row) -> Option<String> {
    let pod = row.owner.as_ref()?.pod.as_ref()?;
    Some(shortened(&escape_all(&format!("{}/{}", pod.namespace, pod.name)), MAX_POD))
}

/// In a container, but of an unknown pod: `?`.
fn no_pod(row: &Row) -> &'static str {
    match &row.owner {
        Some(Owner { container_id: Some(_), .. }) | None => "?",
        Some(_) => "-",
    }
}

fn pid(row: &Row) -> String {
    match &row.owner {
        None => "-".to_owned(),
        Some(Owner { pid: Some(pid), .. }) => pid.to_string(),
        Some(owner) => format!("×{}", short(owner.processes)),
    }
}

fn process(row: &Row) -> String {
    match &row.owner {
        None => "unknown".to_owned(),
        Some(owner) => owner.comm.as_deref().map_or_else(|| "?".to_owned(), escape),
    }
}

fn full_in(row: &Row) -> String {
    match (row.outlook, row.seconds_until_used_up) {
        (Outlook::UsedUp, _) => "now".to_owned(),
        (Outlook::RunningOut, Some(seconds)) if seconds < 100.0 => format!("{seconds:.0} s"),
        (Outlook::RunningOut, Some(seconds)) if seconds < 6000.0 => format!("{:.0} min", seconds / 60.0),
        (Outlook::RunningOut, Some(seconds)) => format!("{:.1} h", seconds / 3600.0),
        (Outlook::Lasts, _) => "-".to_owned(),
        (Outlook::RunningOut | Outlook::Unknown, _) => "?".to_owned(),
    }
}

fn optional(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), short)
}

/// At most five digits, else in thousands, millions …
fn short(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{}k", number / 1000),
        10_000_000..10_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

/// Three digits or so.
fn decimal(number: f64) -> String {
    match number {
        n if n <= 0.0 => "0".to_owned(),
        n if n < 0.01 => "<0.01".to_owned(),
        n if n < 10.0 => format!("{n:.2}"),
        n if n < 1000.0 => format!("{n:.1}"),
        n if n < 100_000.0 => format!("{n:.0}"),
        n => format!("{:.0}k", n / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::incident::Pod;
    use crate::ports::samples;

    #[test]
    fn columns_take_exactly_the_width_there_is() {
        for width in NARROW..250 {
            let total: usize = columns(width).iter().map(|placed| placed.width + 1).sum::<usize>() - 1;
            assert_eq!(total, width);
        }
        assert_eq!(columns(WIDE).len(), COLUMNS.len());
        assert!(columns(WIDE - 1).len() < COLUMNS.len());
    }

    fn in_pod(name: &str) -> Row {
        let mut row = samples::row("10.0.0.1:80", 1.0);
        let pod = Pod { namespace: "shop".into(), name: name.into(), uid: None };
        row.owner.as_mut().unwrap().pod = Some(pod);
        row
    }

    #[test]
    fn the_name_of_a_pod_is_whole_in_its_column_or_below() {
        // The column has 33 cells at least, 39 of 127 columns, and 58 at most.
        for (length, in_column) in [(5, [114, 127, 150]), (38, [127, 200, 250]), (58, [200, 250, 300])] {
            let row = in_pod(&"x".repeat(length - 5));
            let whole = format!("shop/{}", "x".repeat(length - 5));
            for width in [80, 113, 114, 127, 128, 150, 200, 250, 300] {
                let placed = columns(width);
                let cells: Vec<String> = placed.iter().map(|placed| placed.cell(&row)).collect();
                let found = cells.iter().any(|cell| cell.trim_end() == whole);
                let below = below(&row, &placed, width);
                assert!(found != below.is_some(), "{width}: {cells:?} {below:?}");
                assert!(found || !in_column.contains(&width), "{width}: {cells:?}");
                assert!(!found || width >= 114, "{width}: {cells:?}");
                let Some((indent, text)) = below else { continue };
                assert_eq!(text, format!("pod {whole}"));
                assert!(indent + text.len() <= width);
                assert_eq!(cells.iter().any(|cell| cell.trim_end() == "↓"), width >= 114, "{cells:?}");
            }
        }
        assert!(below(&samples::row("10.0.0.1:80", 1.0), &columns(80), 80).is_none());
    }

    #[test]
    fn what_must_be_cut_keeps_its_end_and_is_marked() {
        assert_eq!(shortened("shop/web-7d9f8b6c5d-2x4vq", 25), "shop/web-7d9f8b6c5d-2x4vq");
        assert_eq!(shortened("shop/web-7d9f8b6c5d-2x4vq", 11), "shop/…2x4vq");
        assert_eq!(shortened("abc", 0), "…");
        assert_eq!(shortened("abc", 1), "…");
    }

    #[test]
    fn a_process_without_container_has_no_pod_and_of_others_it_is_not_known() {
        let mut row = samples::row("10.0.0.1:80", 1.0);
        assert_eq!(no_pod(&row), "?");
        row.owner.as_mut().unwrap().container_id = None;
        assert_eq!(no_pod(&row), "-");
        row.owner = None;
        assert_eq!(no_pod(&row), "?");
    }

    #[test]
    fn no_number_is_longer_than_its_column() {
        for number in [0, 9, 99_999, 100_000, 9_999_999, 10_000_000, 9_999_999_999, u64::MAX / 1_000_000_000]
        {
            assert!(short(number).len() <= 5, "{}", short(number));
        }
        for number in [0.0, 0.001, 0.01, 9.994, 9.999, 999.94, 1000.0, 99_999.4, 1e6] {
            assert!(decimal(number).len() <= 6, "{}", decimal(number));
        }
    }

    #[test]
    fn names_from_outside_cannot_steer_the_terminal_and_keep_their_column() {
        for row in samples::report().rows {
            for placed in columns(WIDE) {
                let cell = placed.cell(&row);
                assert_eq!(cell.chars().count(), placed.width, "{}: {cell:?}", placed.column.title);
                assert!(!cell.chars().any(char::is_control));
            }
        }
    }

    #[test]
    fn how_long_ports_last_is_said_in_a_unit_that_fits() {
        let mut row = samples::row("10.0.0.1:80", 1.0);
        let mut said = |outlook, seconds| {
            (row.outlook, row.seconds_until_used_up) = (outlook, seconds);
            full_in(&row)
        };
        assert_eq!(said(Outlook::UsedUp, Some(0.0)), "now");
        assert_eq!(said(Outlook::RunningOut, Some(59.6)), "60 s");
        assert_eq!(said(Outlook::RunningOut, Some(754.0)), "13 min");
        assert_eq!(said(Outlook::RunningOut, Some(86_400.0)), "24.0 h");
        assert_eq!(said(Outlook::Lasts, None), "-");
        assert_eq!(said(Outlook::Unknown, None), "?");
    }
}
