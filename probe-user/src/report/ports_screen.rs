//! The full-screen view of `portclash ports`: what it shows, and what keys do. Drawing and keys only: no I/O, no clock.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, Wrap};

use super::ports_table::{NARROW, Placed, below, columns, shortened};
use super::text::grouped;
use super::text_escape::{escape, escape_all};
use crate::ports::model::{Outlook, Owner, Report, Row, Sort, sort};

/// Lines that are not rows: two on top, the headings, the keys.
const FRAME_LINES: u16 = 4;
/// Fewer lines show no row worth the name.
const MIN_LINES: u16 = 6;
/// Longest filter.
const MAX_FILTER: usize = 60;
const KEYS: &str = "q quit  s/S sort  / filter  Esc clear  ↑↓ PgUp PgDn Home scroll  p pause";

/// What the person has asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Screen {
    /// Order of rows.
    sort: Sort,
    filter: String,
    /// The filter is being typed.
    typing: bool,
    /// First row that is shown.
    top: usize,
    /// Rows that fitted in last time.
    height: usize,
    /// Nothing new is shown.
    paused: bool,
    /// In colour.
    colour: bool,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Draw again.
    Draw,
    /// Leave.
    Quit,
}

const SORTS: &[(Sort, &str)] = &[
    (Sort::Rate, "connects/s"),
    (Sort::Connects, "connects"),
    (Sort::Ports, "ports"),
    (Sort::TimeWait, "TIME-WAIT"),
    (Sort::UsedUp, "full in"),
    (Sort::Collisions, "collisions/h"),
    (Sort::Failed, "failed"),
];

impl Screen {
    /// A screen as it is at first.
    pub(crate) fn new(sort: Sort, colour: bool) -> Self {
        Self { sort, colour, ..Self::default() }
    }

    /// The order of rows that is asked for now.
    pub(crate) const fn sort(&self) -> Sort {
        self.sort
    }

    /// Whether nothing new is to be shown.
    pub(crate) const fn paused(&self) -> bool {
        self.paused
    }

    /// Does what a key asks for.
    pub(crate) fn key(&mut self, key: KeyEvent) -> After {
        if key.kind == KeyEventKind::Release {
            return After::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { After::Quit } else { After::Draw };
        }
        if self.typing {
            self.type_filter(key.code);
            return After::Draw;
        }
        match key.code {
            KeyCode::Char('q' | 'Q') => return After::Quit,
            KeyCode::Char('s' | '>') => self.next_sort(1),
            KeyCode::Char('S' | '<') => self.next_sort(SORTS.len() - 1),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.top += 1,
            KeyCode::PageUp => self.top = self.top.saturating_sub(self.height),
            KeyCode::PageDown => self.top += self.height,
            KeyCode::Home => self.top = 0,
            _ => {}
        }
        After::Draw
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            _ => {}
        }
        self.top = 0;
    }

    fn next_sort(&mut self, step: usize) {
        let now = SORTS.iter().position(|(sort, _)| *sort == self.sort).unwrap_or(0);
        if let Some((sort, _)) = SORTS.get((now + step) % SORTS.len()) {
            self.sort = *sort;
        }
        self.top = 0;
    }

    fn sort_name(&self) -> &'static str {
        SORTS.iter().find(|(sort, _)| *sort == self.sort).map_or("", |(_, name)| name)
    }

    /// Draws everything.
    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>, report: &Report) {
        let area = frame.area();
        if usize::from(area.width) < NARROW || area.height < MIN_LINES {
            return too_small(frame, area);
        }
        let rows = self.wanted(report);
        let placed = columns(usize::from(area.width));
        let shown = self.shown(&rows, &placed, area);
        let [head, state, table, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(self.head(report)), head);
        frame.render_widget(Paragraph::new(self.state(report, rows.len())), state);
        self.draw_table(frame, table, &placed, &shown);
        let keys_line = if self.typing { "Enter keeps the filter, Esc clears it" } else { KEYS };
        frame.render_widget(Paragraph::new(keys_line).style(self.style(Modifier::DIM, None)), keys);
    }

    /// The rows that fit in, each with the line below it. Scrolling ends where the last row is the lowest.
    fn shown<'a>(&mut self, rows: &'a [Row], placed: &[Placed], area: Rect) -> Vec<Shown<'a>> {
        let lines = usize::from(area.height - FRAME_LINES);
        let width = usize::from(area.width);
        let shown = |row: &'a Row| Shown { row, below: below(row, placed, width) };
        let fitting = |rows: &mut dyn Iterator<Item = &'a Row>| {
            let mut left = lines;
            let mut fit = |row: &Shown<'_>| {
                let enough = left >= row.lines();
                left = left.saturating_sub(row.lines());
                enough
            };
            rows.map(shown).take_while(|row| fit(row)).collect::<Vec<_>>()
        };
        let lowest = rows.len() - fitting(&mut rows.iter().rev()).len();
        self.top = self.top.min(lowest);
        let shown = fitting(&mut rows.iter().skip(self.top));
        self.height = shown.len();
        shown
    }

    fn wanted(&self, report: &Report) -> Vec<Row> {
        let mut rows: Vec<Row> = report.rows.iter().filter(|row| self.matches(row)).cloned().collect();
        sort(&mut rows, self.sort);
        rows
    }

    fn matches(&self, row: &Row) -> bool {
        let wanted = self.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let is_owner = |owner: &Owner| {
            owner.pid.is_some_and(|pid| pid.to_string() == wanted)
                || owner.pod.as_ref().is_some_and(|pod| has(&format!("{}/{}", pod.namespace, pod.name)))
                || [&owner.comm, &owner.exe, &owner.container_id].into_iter().flatten().any(|text| has(text))
        };
        wanted.is_empty()
            || has(&row.destination)
            || row.owner.as_ref().map_or_else(|| has("unknown"), is_owner)
    }

    fn head(&self, report: &Report) -> Line<'static> {
        let summary = &report.summary;
        let rate: f64 = report.rows.iter().map(|row| row.connects_per_second).sum();
        let time_wait = summary.time_wait.map_or_else(|| "?".to_owned(), grouped);
        let usable = summary.usable_ports.map_or_else(|| "?".to_owned(), grouped);
        let mut spans = vec![
            Span::styled("portclash ports", self.style(Modifier::BOLD, None)),
            Span::raw(format!("  {rate:.1} connects/s  TIME-WAIT {time_wait}  ports {usable}  ")),
        ];
        let failed = format!("{} failed", grouped(summary.unavailable));
        let style =
            if summary.unavailable > 0 { self.style(Modifier::BOLD, Some(Color::Red)) } else { Style::new() };
        spans.push(Span::styled(failed, style));
        Line::from(spans)
    }

    fn state(&self, report: &Report, shown: usize) -> Line<'static> {
        let mut text = format!("sort: {}  rows: {shown}", self.sort_name());
        if self.typing || !self.filter.is_empty() {
            let cursor = if self.typing { "_" } else { "" };
            text += &format!(" of {}  filter: {}{cursor}", report.rows.len(), escape(&self.filter));
        }
        if self.paused {
            text += "  PAUSED";
        }
        let mut spans = vec![Span::raw(text)];
        if let Some(sentence) = report.summary.incomplete.first() {
            let more = report.summary.incomplete.len() - 1;
            let more = if more > 0 { format!(" (+{more})") } else { String::new() };
            let text = format!("  INCOMPLETE{more}: {}", escape_all(sentence));
            spans.push(Span::styled(text, self.style(Modifier::BOLD, Some(Color::Yellow))));
        }
        if let Some(trouble) = &report.unnamed_pods {
            let text = format!("  PODS NOT NAMED: {}", escape_all(trouble));
            spans.push(Span::styled(text, self.style(Modifier::BOLD, Some(Color::Yellow))));
        }
        Line::from(spans)
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect, placed: &[Placed], rows: &[Shown<'_>]) {
        let heading = |placed: &Placed| {
            let sorted = placed.column.sort == Some(self.sort);
            let modifier = if sorted { Modifier::REVERSED } else { Modifier::BOLD };
            Cell::from(placed.heading()).style(self.style(modifier, None))
        };
        let shown = rows.iter().map(|Shown { row, below }| {
            let cells: Vec<_> = placed.iter().map(|placed| Cell::from(placed.cell(row))).collect();
            let lines = if below.is_some() { 2 } else { 1 };
            TableRow::new(cells).height(lines).style(self.row_style(row))
        });
        let widths = placed.iter().map(|placed| match u16::try_from(placed.width) {
            Ok(width) if !placed.is_last() => Constraint::Length(width),
            _ => Constraint::Min(0),
        });
        let table = Table::new(shown.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
            .header(TableRow::new(placed.iter().map(heading).collect::<Vec<_>>()))
            .column_spacing(1);
        frame.render_widget(table, area);
        self.draw_pods(frame, area, rows);
    }

    /// The lines below rows, or what is said where there are no rows.
    fn draw_pods(&self, frame: &mut Frame<'_>, area: Rect, rows: &[Shown<'_>]) {
        let mut y = area.y.saturating_add(1);
        for Shown { row, below } in rows {
            y = y.saturating_add(1);
            let Some((indent, text)) = below else { continue };
            let line = Rect { y, height: 1, ..area }.intersection(area);
            let text = shortened(text, usize::from(area.width));
            let text = format!("{:indent$}{text}", "");
            frame.render_widget(Paragraph::new(text).style(self.row_style(row)), line);
            y = y.saturating_add(1);
        }
        if rows.is_empty() {
            let text =
                if self.filter.is_empty() { "nobody has connected yet" } else { "no row matches the filter" };
            let below = Rect { y, height: area.height.saturating_sub(1), ..area };
            frame.render_widget(Paragraph::new(text), below.intersection(area));
        }
    }

    fn row_style(&self, row: &Row) -> Style {
        match row.outlook {
            Outlook::UsedUp => self.style(Modifier::BOLD, Some(Color::Red)),
            Outlook::RunningOut => self.style(Modifier::empty(), Some(Color::Yellow)),
            Outlook::Lasts | Outlook::Unknown if row.owner.is_none() => self.style(Modifier::DIM, None),
            Outlook::Lasts | Outlook::Unknown => Style::new(),
        }
    }

    fn style(&self, modifier: Modifier, colour: Option<Color>) -> Style {
        let style = Style::new().add_modifier(modifier);
        match colour {
            Some(colour) if self.colour => style.fg(colour),
            _ => style,
        }
    }
}

/// A row on the screen.
struct Shown<'a> {
    row: &'a Row,
    /// Where the line below it begins, and its text.
    below: Option<(usize, String)>,
}

impl Shown<'_> {
    const fn lines(&self) -> usize {
        if self.below.is_some() { 2 } else { 1 }
    }
}

fn too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!(
        "portclash ports needs {NARROW} columns and {MIN_LINES} lines; this terminal has {} and {}. Make it larger, or q \
         and use --duration.",
        area.width, area.height
    );
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}

#[cfg(test)]
#[path = "ports_screen_tests.rs"]
mod tests;
