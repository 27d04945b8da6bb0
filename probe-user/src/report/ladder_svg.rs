//! A ladder diagram as SVG: no script, no style sheet of its own, colours from the page around it or sensible ones.

use super::html_build::Html;
use super::ladder::{Layout, Row, middle_cut, offset_text, role_word, title};
use crate::analysis::model::{ArrowKind, Party};

/// Width of the drawing in its own units; the page scales it.
const WIDTH: f64 = 880.0;
/// Left of the first column: offsets.
const GUTTER: f64 = 96.0;
const ROW: f64 = 48.0;
const NOTE_ROW: f64 = 34.0;
/// Characters of a title's line.
const TITLE_CHARS: usize = 26;
const LINE: f64 = 16.0;

/// Colours with what they are where the page defines none.
const TEXT: &str = "currentColor";
const SOFT: &str = "var(--soft, #6b7480)";
const BAD: &str = "var(--bad, #c22328)";
const BACK: &str = "var(--page, transparent)";

/// The drawing; `id` must be the only one of its page.
pub(super) fn svg(layout: &Layout, id: &str) -> Html {
    let titles: Vec<Vec<String>> = layout.columns.iter().map(party_lines).collect();
    let title_lines = titles.iter().map(Vec::len).max().unwrap_or(0);
    let top = LINE * f64::from(u32::try_from(title_lines).unwrap_or(0)) + 16.0;
    let heights = layout.rows.iter().map(|row| if matches!(row, Row::Note(_)) { NOTE_ROW } else { ROW });
    let height = top + heights.sum::<f64>() + 20.0;
    let (title_id, text_id) = (format!("{id}-title"), format!("{id}-text"));
    let mut html = Html::default();
    let view = format!("0 0 {WIDTH} {height}");
    let labels = format!("{title_id} {text_id}");
    let attributes = [
        ("xmlns", "http://www.w3.org/2000/svg"),
        ("viewBox", view.as_str()),
        ("role", "img"),
        ("aria-labelledby", labels.as_str()),
        ("font-family", "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif"),
        ("font-size", "13"),
        ("fill", TEXT),
    ];
    html.within("svg", &attributes, |html| {
        html.element("title", &[("id", &title_id)], "Packets between the parties");
        html.element("desc", &[("id", &text_id)], &describe(layout));
        let drawing = Drawing { columns: layout.columns.len() };
        drawing.columns(html, &titles, top, height);
        let mut y = top + 8.0;
        for row in &layout.rows {
            drawing.row(html, row, y);
            y += if matches!(row, Row::Note(_)) { NOTE_ROW } else { ROW };
        }
    });
    html
}

/// The same in words, for those who cannot see it.
pub(super) fn sentences(layout: &Layout) -> Vec<String> {
    let name = |column: usize| layout.columns.get(column).map_or("?", |party| role_word(party.role));
    let sentence = |row: &Row| match row {
        Row::Arrow { offset, from, to, kind: _, label, place } => {
            let time = offset.map_or_else(String::new, |offset| format!("{}: ", offset_text(offset)));
            let place = if place.is_empty() { String::new() } else { format!(" [{place}]") };
            format!("{time}{} to {}: {label}{place}", name(*from), name(*to))
        }
        Row::Note(text) => text.clone(),
    };
    layout.rows.iter().map(sentence).collect()
}

fn describe(layout: &Layout) -> String {
    let party = |party: &Party| {
        let address = party.address.as_deref().map_or_else(String::new, |address| format!(", {address}"));
        format!("{}: {}{address}", role_word(party.role), party.title)
    };
    let parties: Vec<String> = layout.columns.iter().map(party).collect();
    format!("Columns: {}. {}.", parties.join("; "), sentences(layout).join(". "))
}

struct Drawing {
    columns: usize,
}

impl Drawing {
    fn x(&self, column: usize) -> f64 {
        let pitch = (WIDTH - GUTTER) / count(self.columns.max(1));
        GUTTER + pitch * (count(column) + 0.5)
    }

    fn columns(&self, html: &mut Html, titles: &[Vec<String>], top: f64, height: f64) {
        for (column, lines) in titles.iter().enumerate() {
            let x = self.x(column);
            let blank = count(titles.iter().map(Vec::len).max().unwrap_or(0) - lines.len());
            for (n, line) in lines.iter().enumerate() {
                let y = LINE * (blank + count(n) + 1.0);
                let weight = if n + 1 == lines.len() { "400" } else { "600" };
                text(html, (x, y), line, &[("text-anchor", "middle"), ("font-weight", weight)]);
            }
            line(html, (x, top - 6.0), (x, height - 8.0), &[("stroke", SOFT), ("stroke-width", "1.5")]);
        }
    }

    fn row(&self, html: &mut Html, row: &Row, y: f64) {
        match row {
            Row::Note(words) => {
                let x = GUTTER + (WIDTH - GUTTER) / 2.0;
                let place = (x, y + 18.0);
                let attributes = [("text-anchor", "middle"), ("font-style", "italic"), ("fill", SOFT)];
                outlined(html, place, &format!("⋮ {words} ⋮"), &attributes);
            }
            Row::Arrow { offset, from, to, kind, label, place } => {
                if let Some(offset) = offset {
                    let attributes = [("fill", SOFT), ("font-size", "12")];
                    text(html, (0.0, y + 30.0), &offset_text(*offset), &attributes);
                }
                self.label(html, (*from, *to), *kind, label, y + 16.0);
                if !place.is_empty() {
                    self.place(html, (*from, *to), place, y + 40.0);
                }
                // Over the clear space around the texts.
                self.arrow(html, (*from, *to), *kind, offset.is_some(), y + 26.0);
            }
        }
    }

    fn arrow(&self, html: &mut Html, (from, to): (usize, usize), kind: ArrowKind, seen: bool, y: f64) {
        let (start, end) = (self.x(from), self.x(to));
        let bad = is_bad(kind);
        let (colour, width) = if bad { (BAD, "3") } else { (TEXT, "1.5") };
        let forward = if end >= start { 1.0 } else { -1.0 };
        let tip = end - forward * 2.0;
        let mut attributes = vec![("stroke", colour), ("stroke-width", width)];
        if !seen {
            attributes.push(("stroke-dasharray", "5 5"));
        }
        line(html, (start, y), (tip - forward * 8.0, y), &attributes);
        let back = tip - forward * 12.0;
        let points = format!("{tip},{y} {back},{} {back},{}", y - 6.0, y + 6.0);
        html.element("polygon", &[("points", &points), ("fill", colour)], "");
        if kind == ArrowKind::Reset {
            // To the right, clear of the texts.
            let (x, r) = (start.min(end) + (end - start).abs() * 0.8, 7.0);
            for (dx, dy) in [(r, r), (r, -r)] {
                let attributes = [("stroke", colour), ("stroke-width", "3")];
                line(html, (x - dx, y - dy), (x + dx, y + dy), &attributes);
            }
        }
    }

    fn label(&self, html: &mut Html, columns: (usize, usize), kind: ArrowKind, label: &str, y: f64) {
        let (colour, weight) = if is_bad(kind) { (BAD, "700") } else { (TEXT, "400") };
        self.beside(html, columns, label, y, &[("fill", colour), ("font-weight", weight)]);
    }

    fn place(&self, html: &mut Html, columns: (usize, usize), place: &str, y: f64) {
        self.beside(html, columns, &middle_cut(place, 40), y, &[("fill", SOFT), ("font-size", "11")]);
    }

    /// Text at the left end of an arrow, or ending at the right edge where it would leave the drawing.
    fn beside(
        &self,
        html: &mut Html,
        (from, to): (usize, usize),
        words: &str,
        y: f64,
        attributes: &[(&'static str, &str)],
    ) {
        let left = self.x(from.min(to)) + 10.0;
        // A generous guess: fonts differ.
        let length = count(words.chars().count()) * 7.4;
        let mut attributes = attributes.to_vec();
        let x = if left + length > WIDTH {
            attributes.push(("text-anchor", "end"));
            WIDTH - 2.0
        } else {
            left
        };
        outlined(html, (x, y), words, &attributes);
    }
}

const fn is_bad(kind: ArrowKind) -> bool {
    matches!(kind, ArrowKind::Hijacked | ArrowKind::Reset | ArrowKind::Unreachable)
}

/// A small number for a place in the drawing.
fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn line(html: &mut Html, from: (f64, f64), to: (f64, f64), attributes: &[(&'static str, &str)]) {
    let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
    let mut all = vec![("x1", x1.as_str()), ("y1", &y1), ("x2", &x2), ("y2", &y2)];
    all.extend_from_slice(attributes);
    html.element("line", &all, "");
}

fn text(html: &mut Html, (x, y): (f64, f64), words: &str, attributes: &[(&'static str, &str)]) {
    let (x, y) = (number(x), number(y));
    let mut all = vec![("x", x.as_str()), ("y", &y)];
    all.extend_from_slice(attributes);
    html.element("text", &all, words);
}

/// Text with the page's colour around it, so that lines behind it do not cross it.
fn outlined(html: &mut Html, place: (f64, f64), words: &str, attributes: &[(&'static str, &str)]) {
    let mut all = vec![
        ("stroke", BACK),
        ("stroke-width", "5"),
        ("stroke-linejoin", "round"),
        ("paint-order", "stroke"),
    ];
    all.extend_from_slice(attributes);
    text(html, place, words, &all);
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

/// Title in a few lines, and the address.
fn party_lines(party: &Party) -> Vec<String> {
    let mut lines = title(&party.title, TITLE_CHARS);
    lines.push(party.address.as_deref().map_or_else(String::new, |address| middle_cut(address, 44)));
    lines
}
