//! Where things stand in a ladder diagram: columns, arrows, offsets. Repeated rounds are told once. Pure layout; the
//! renderings are beside it.

use crate::analysis::model::{Arrow, ArrowKind, Ladder, Party, Role};
use crate::observation::Nanos;

/// Rows of a drawing; what comes after them is counted.
const MAX_ROWS: usize = 60;
/// Lines that a title may take.
const TITLE_LINES: usize = 3;
/// So many equal rounds are drawn in full; of more, the first and the last.
const FULL_ROUNDS: usize = 2;

/// A ladder ready to be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Columns from left to right.
    pub columns: Vec<Party>,
    /// Rows from top to bottom.
    pub rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A packet.
    Arrow {
        /// Nanoseconds after the first packet; `None` if it was not seen.
        offset: Option<Nanos>,
        /// Index of the sender's column.
        from: usize,
        /// Index of the receiver's column.
        to: usize,
        /// What it is.
        kind: ArrowKind,
        /// In words, with what the drawing says by its form.
        label: String,
        /// Where it was seen; empty if it was not.
        place: String,
    },
    /// Instead of rows that are left out.
    Note(String),
}

impl Layout {
    /// Lays out a ladder. Arrows of a role that has no column are left out and counted.
    pub fn of(ladder: &Ladder) -> Self {
        let mut columns: Vec<Party> = Vec::new();
        for party in &ladder.parties {
            if !columns.iter().any(|known| known.role == party.role) {
                columns.push(party.clone());
            }
        }
        let start = ladder.arrows.iter().filter_map(|arrow| arrow.at).min();
        let mut rows = Vec::new();
        let mut lost = 0;
        for step in shorten(&rounds(&ladder.arrows), start) {
            match step {
                Step::Round(arrows) => {
                    for arrow in arrows {
                        match row(&columns, arrow, start) {
                            Some(row) => rows.push(row),
                            None => lost += 1,
                        }
                    }
                }
                Step::Note(text) => rows.push(Row::Note(text)),
            }
        }
        if rows.len() > MAX_ROWS {
            let hidden = rows.len() - MAX_ROWS;
            rows.truncate(MAX_ROWS);
            rows.push(Row::Note(format!("{hidden} more packets are not drawn")));
        }
        if lost > 0 {
            rows.push(Row::Note(format!("{lost} packets of unknown parties are not drawn")));
        }
        Self { columns, rows }
    }

    /// Nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() || self.columns.len() < 2
    }
}

/// `+0.000263 s`: packets are microseconds apart.
pub fn offset_text(offset: Nanos) -> String {
    let micros = (i128::from(offset) / 1000).unsigned_abs();
    let sign = if offset < 0 { '-' } else { '+' };
    format!("{sign}{}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}

/// What a role is called where a party has no column.
pub(super) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Ipvs => "IPVS",
        Role::Server => "server",
        Role::Backend => "backend",
    }
}

/// A title in a few lines: broken after blanks, slashes and hyphens, cut in the middle where that does not suffice.
pub(super) fn title(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in text.split_inclusive([' ', '/', '-']) {
        let Some(line) = lines.last_mut() else { continue };
        if !line.is_empty() && (line.chars().count() + part.trim_end().chars().count()) > width {
            lines.push(part.to_owned());
        } else {
            line.push_str(part);
        }
    }
    if lines.len() > TITLE_LINES {
        let rest: String = lines.split_off(TITLE_LINES - 1).concat();
        lines.push(rest);
    }
    lines.iter().map(|line| middle_cut(line.trim(), width)).collect()
}

/// At most `width` characters: beginning and end are what tells names apart.
pub(super) fn middle_cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let end = width / 2;
    let begin = width.saturating_sub(end + 1);
    let head: String = text.chars().take(begin).collect();
    let tail: String = text.chars().skip(length - end).collect();
    format!("{head}…{tail}")
}

fn row(columns: &[Party], arrow: &Arrow, start: Option<Nanos>) -> Option<Row> {
    let column = |role| columns.iter().position(|party| party.role == role);
    Some(Row::Arrow {
        offset: arrow.at.zip(start).map(|(at, start)| at.saturating_sub(start)),
        from: column(arrow.from)?,
        to: column(arrow.to)?,
        kind: arrow.kind,
        label: label(arrow),
        place: arrow.place.clone(),
    })
}

/// The label, with the words that colour and form must not carry alone.
fn label(arrow: &Arrow) -> String {
    let mark = match arrow.kind {
        ArrowKind::Hijacked => "HIJACK: ",
        ArrowKind::Reset => "RESET: ",
        _ => "",
    };
    let unseen = if arrow.at.is_none() { " (not seen)" } else { "" };
    format!("{mark}{}{unseen}", arrow.label)
}

/// A SYN and what follows it.
fn rounds(arrows: &[Arrow]) -> Vec<&[Arrow]> {
    let mut rounds = Vec::new();
    let mut rest = arrows;
    while let Some((_, after)) = rest.split_first() {
        let length = 1 + after.iter().position(|arrow| arrow.kind == ArrowKind::Syn).unwrap_or(after.len());
        let (round, others) = rest.split_at(length);
        rounds.push(round);
        rest = others;
    }
    rounds
}

enum Step<'a> {
    Round(&'a [Arrow]),
    Note(String),
}

fn shorten<'a>(rounds: &[&'a [Arrow]], start: Option<Nanos>) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    for run in rounds.chunk_by(|a, b| same(a, b)) {
        match run {
            [first, middle @ .., last] if run.len() > FULL_ROUNDS => {
                steps.push(Step::Round(first));
                let until = middle.last().and_then(|round| round.first()).and_then(|arrow| arrow.at);
                let until = until.zip(start).map_or_else(String::new, |(at, start)| {
                    format!(", the last at {}", offset_text(at.saturating_sub(start)))
                });
                let times =
                    if middle.len() == 1 { "once".to_owned() } else { format!("{} times", middle.len()) };
                steps.push(Step::Note(format!("the same {times} more{until}")));
                steps.push(Step::Round(last));
            }
            _ => steps.extend(run.iter().map(|round| Step::Round(round))),
        }
    }
    steps
}

fn same(a: &[Arrow], b: &[Arrow]) -> bool {
    let form = |arrow: &Arrow| (arrow.from, arrow.to, arrow.kind, arrow.at.is_some());
    a.iter().map(form).eq(b.iter().map(form))
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
