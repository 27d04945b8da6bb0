//! A ladder diagram in characters.

use anstyle::Style;

use super::ladder::{Layout, Row, middle_cut, offset_text, role_word, title};
use super::text_escape::{escape, escape_all};
use super::text_page::{BOLD, CYAN, DIM, PLAIN, Page, RED};
use crate::analysis::model::{ArrowKind, Party};

/// Cells for the offset, with the space after it.
const GUTTER: usize = 14;
/// Narrower columns cannot hold an address; the packets are listed then.
const MIN_PITCH: usize = 16;
/// Wider ones only make the arrows longer.
const MAX_PITCH: usize = 30;

/// Draws the ladder, or lists its packets where the width does not suffice.
pub(super) fn draw(page: &mut Page, indent: usize, layout: &Layout) {
    let room = page.width().saturating_sub(indent + GUTTER);
    let pitch = (room / layout.columns.len().max(1)).min(MAX_PITCH);
    if pitch < MIN_PITCH {
        list(page, indent, layout);
        return;
    }
    let grid = Grid { indent: indent + GUTTER, pitch, columns: layout.columns.len() };
    titles(page, &grid, &layout.columns);
    for row in &layout.rows {
        match row {
            Row::Arrow { offset, from, to, kind, label, place: _ } => {
                let style = style(*kind);
                page.verbatim_parts(0, &grid.label_line(*from, *to, &escape(label), style));
                let time = offset.map_or_else(String::new, offset_text);
                let mut parts = vec![(format!("{:indent$}{time:<GUTTER$}", ""), CYAN)];
                parts.extend(grid.arrow_line((*from, *to), *kind, offset.is_some(), style));
                page.verbatim_parts(0, &parts);
            }
            Row::Note(text) => {
                page.verbatim_parts(0, &grid.lines(&[]));
                page.verbatim(grid.indent, DIM, &format!("⋮ {} ⋮", escape_all(text)));
                page.verbatim_parts(0, &grid.lines(&[]));
            }
        }
    }
}

const fn style(kind: ArrowKind) -> Style {
    match kind {
        ArrowKind::Hijacked | ArrowKind::Reset | ArrowKind::Unreachable => RED,
        _ => PLAIN,
    }
}

struct Grid {
    indent: usize,
    pitch: usize,
    columns: usize,
}

/// Characters with their style.
type Cells = Vec<(char, Style)>;

impl Grid {
    /// Cell of a column's line, from the left edge of the grid.
    fn at(&self, column: usize) -> usize {
        column * self.pitch + self.pitch / 2
    }

    fn width(&self) -> usize {
        self.columns * self.pitch
    }

    /// Life lines, without margin.
    fn blank(&self) -> Cells {
        let mut cells = vec![(' ', PLAIN); self.width()];
        for column in 0..self.columns {
            put(&mut cells, self.at(column), '│', DIM);
        }
        cells
    }

    /// Life lines with texts over them, with the margin before.
    fn lines(&self, texts: &[(usize, &str, Style)]) -> Vec<(String, Style)> {
        let mut cells = self.blank();
        for (start, text, style) in texts {
            for (n, c) in text.chars().enumerate() {
                put(&mut cells, start + n, c, *style);
            }
        }
        let mut parts = vec![(" ".repeat(self.indent), PLAIN)];
        parts.extend(joined(&cells));
        parts
    }

    /// The label over its arrow; moved to the left where it would leave the page.
    fn label_line(&self, from: usize, to: usize, label: &str, style: Style) -> Vec<(String, Style)> {
        let length = label.chars().count();
        let start = (self.at(from.min(to)) + 2).min(self.width().saturating_sub(length));
        let shown: String = label.chars().take(self.width()).collect();
        // A gap on both sides, so that no life line touches the words.
        let padded = format!(" {shown} ");
        let at = start.saturating_sub(1);
        self.lines(&[(at, if at == start { &shown } else { &padded }, style)])
    }

    fn arrow_line(
        &self,
        (from, to): (usize, usize),
        kind: ArrowKind,
        seen: bool,
        style: Style,
    ) -> Vec<(String, Style)> {
        let mut cells = self.blank();
        let (start, end) = (self.at(from), self.at(to));
        if from == to {
            put(&mut cells, start + 1, '↺', style);
            return joined(&cells);
        }
        let (low, high) = (start.min(end), start.max(end));
        for (n, at) in (low + 1..high).enumerate() {
            let line = match (seen, kind) {
                (false, _) if n % 2 == 1 => ' ',
                (true, ArrowKind::Hijacked | ArrowKind::Reset | ArrowKind::Unreachable) => '═',
                _ => '─',
            };
            put(&mut cells, at, line, style);
        }
        let (head, at) = if to > from { ('▶', high - 1) } else { ('◀', low + 1) };
        put(&mut cells, at, head, style);
        if kind == ArrowKind::Reset {
            put(&mut cells, usize::midpoint(low, high), '✗', style);
        }
        joined(&cells)
    }
}

fn put(cells: &mut Cells, at: usize, c: char, style: Style) {
    if let Some(cell) = cells.get_mut(at) {
        *cell = (c, style);
    }
}

/// Runs of one style, without blanks at the end.
fn joined(cells: &Cells) -> Vec<(String, Style)> {
    let end = cells.iter().rposition(|(c, _)| *c != ' ').map_or(0, |at| at + 1);
    let runs = cells.get(..end).unwrap_or_default().chunk_by(|a, b| a.1 == b.1);
    runs.filter_map(|run| Some((run.iter().map(|(c, _)| c).collect(), run.first()?.1))).collect()
}

fn titles(page: &mut Page, grid: &Grid, columns: &[Party]) {
    let width = grid.pitch - 1;
    let blocks: Vec<Vec<String>> = columns
        .iter()
        .map(|party| {
            let mut lines = title(&escape(&party.title), width);
            if let Some(address) = &party.address {
                lines.extend(address_lines(&escape(address), width));
            }
            lines
        })
        .collect();
    let height = blocks.iter().map(Vec::len).max().unwrap_or(0);
    for n in 0..height {
        let mut line = " ".repeat(grid.indent);
        for block in &blocks {
            // At the bottom, so that every title stands on its life line.
            let text =
                (n + block.len()).checked_sub(height).and_then(|n| block.get(n)).map_or("", String::as_str);
            line += &format!("{text:^width$} ", width = grid.pitch - 1);
        }
        page.verbatim(0, BOLD, line.trim_end());
    }
}

/// The address, its port on a line of its own where both do not fit.
fn address_lines(address: &str, width: usize) -> Vec<String> {
    match address.rsplit_once(':') {
        Some((host, port)) if address.chars().count() > width => {
            vec![middle_cut(host, width), format!(":{port}")]
        }
        _ => vec![middle_cut(address, width)],
    }
}

/// Without a drawing: one packet a line.
fn list(page: &mut Page, indent: usize, layout: &Layout) {
    let name = |column: usize| {
        layout.columns.get(column).map_or_else(String::new, |party| role_word(party.role).to_owned())
    };
    for party in &layout.columns {
        let address =
            party.address.as_deref().map_or_else(String::new, |address| format!(" {}", escape(address)));
        let text = format!("{}{address}", escape(&party.title));
        page.field(indent, (role_word(party.role), BOLD), indent + GUTTER, (&text, PLAIN));
    }
    for row in &layout.rows {
        match row {
            Row::Arrow { offset, from, to, kind, label, place: _ } => {
                let time = offset.map_or_else(String::new, offset_text);
                let text = format!("{} → {}: {}", name(*from), name(*to), escape(label));
                page.field(indent, (&time, CYAN), indent + GUTTER, (&text, style(*kind)));
            }
            Row::Note(text) => page.field(indent, ("", DIM), indent + GUTTER, (&escape_all(text), DIM)),
        }
    }
}
