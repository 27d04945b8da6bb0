//! The columns of `portclash ports`: the same in the table and in the full-screen view.

use super::text_escape::escape;
use crate::ports::model::{Outlook, Owner, Row, Sort};

/// A column.
pub(super) struct Column {
    /// Heading.
    pub(super) title: &'static str,
    /// Cells it takes; longer text is cut, except in the last column.
    pub(super) width: usize,
    /// Numbers end at the right.
    pub(super) right: bool,
    /// What it is sorted by, to mark it.
    pub(super) sort: Option<Sort>,
    /// Left out where there are less than [`WIDE`] columns.
    wide_only: bool,
    /// Its text; unknown is `?`.
    pub(super) cell: fn(&Row) -> String,
}

/// From here on all columns are shown.
pub(super) const WIDE: usize = 116;
/// Fewer than these, and the columns do not fit.
pub(super) const NARROW: usize = 80;

const fn number(title: &'static str, width: usize, sort: Sort, cell: fn(&Row) -> String) -> Column {
    Column { title, width, right: true, sort: Some(sort), wide_only: false, cell }
}

const fn text(title: &'static str, width: usize, cell: fn(&Row) -> String) -> Column {
    Column { title, width, right: false, sort: None, wide_only: false, cell }
}

const COLUMNS: &[Column] = &[
    number("CONN/S", 6, Sort::Rate, |row| decimal(row.connects_per_second)),
    Column { wide_only: true, ..number("CONNECTS", 8, Sort::Connects, |row| short(row.connects)) },
    Column { wide_only: true, ..number("PORTS", 6, Sort::Ports, |row| optional(row.local_ports_in_use)) },
    number("T-WAIT", 6, Sort::TimeWait, |row| optional(row.time_wait)),
    Column {
        sort: None,
        wide_only: true,
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
    Column {
        wide_only: true,
        ..text("CONTAINER", 12, |row| {
            let id = row.owner.as_ref().and_then(|owner| owner.container_id.as_deref());
            id.map_or_else(|| "-".to_owned(), |id| escape(&id.chars().take(12).collect::<String>()))
        })
    },
    text("DESTINATION", 21, |row| escape(&row.destination)),
];

/// The columns for a width.
pub(super) fn columns(width: usize) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |column| width >= WIDE || !column.wide_only)
}

/// Text of exactly so many cells; what is cut ends in an ellipsis.
pub(super) fn fitted(text: &str, column: &Column) -> String {
    let width = column.width;
    let length = text.chars().count();
    if length > width {
        let cut: String = text.chars().take(width.saturating_sub(1)).collect();
        return format!("{cut}…");
    }
    if column.right { format!("{text:>width$}") } else { format!("{text:<width$}") }
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
    use crate::ports::samples;

    #[test]
    fn columns_fit_their_widths() {
        for width in [NARROW, WIDE] {
            let total: usize = columns(width).map(|column| column.width + 1).sum::<usize>() - 1;
            assert_eq!(total, width);
        }
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
            for column in columns(WIDE).filter(|column| column.title != "DESTINATION") {
                let cell = fitted(&(column.cell)(&row), column);
                assert_eq!(cell.chars().count(), column.width, "{}: {cell:?}", column.title);
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
