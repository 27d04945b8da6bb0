//! A page of text: paragraphs wrapped at a width, fields with a label, commands that are never wrapped.

use anstyle::{AnsiColor, Style};

pub(super) const PLAIN: Style = Style::new();
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const RED: Style = AnsiColor::Red.on_default().bold();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const GREEN: Style = AnsiColor::Green.on_default().bold();
pub(super) const CYAN: Style = AnsiColor::Cyan.on_default();

/// Narrower than this nothing can be laid out; lines are longer then.
const MIN_WIDTH: usize = 40;
/// Wider than this lines are hard to read.
const MAX_WIDTH: usize = 120;

pub(super) struct Page {
    out: String,
    colour: bool,
    width: usize,
}

impl Page {
    pub(super) fn new(colour: bool, width: usize) -> Self {
        Self { out: String::new(), colour, width: width.clamp(MIN_WIDTH, MAX_WIDTH) }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    pub(super) fn blank(&mut self) {
        self.out.push('\n');
    }

    /// One line as it is, never wrapped: commands.
    pub(super) fn verbatim(&mut self, indent: usize, style: Style, text: &str) {
        self.spaces(indent);
        self.paint(style, text);
        self.out.push('\n');
    }

    /// One line of parts with a style each, never wrapped: drawings.
    pub(super) fn verbatim_parts(&mut self, indent: usize, parts: &[(String, Style)]) {
        self.spaces(indent);
        for (text, style) in parts {
            self.paint(*style, text);
        }
        self.out.truncate(self.out.trim_end_matches(' ').len());
        self.out.push('\n');
    }

    /// Columns that a line may take.
    pub(super) const fn width(&self) -> usize {
        self.width
    }

    pub(super) fn paragraph(&mut self, indent: usize, text: &str) {
        for line in wrap(text, self.width.saturating_sub(indent)) {
            self.verbatim(indent, PLAIN, &line);
        }
    }

    /// A label in the margin and a text beside it. The text column starts `column` cells from the left, or right
    /// after the label where that is longer.
    pub(super) fn field(&mut self, indent: usize, label: (&str, Style), column: usize, text: (&str, Style)) {
        let end = indent + label.0.chars().count();
        self.spaces(indent);
        self.paint(label.1, label.0);
        for (n, line) in wrap(text.0, self.width.saturating_sub(column)).iter().enumerate() {
            self.spaces(if n == 0 { column.saturating_sub(end).max(1) } else { column });
            self.paint(text.1, line);
            self.out.push('\n');
        }
    }

    /// Labels in columns of their own (a label, its style, cells it takes), and a text in the column after them.
    pub(super) fn row(&mut self, indent: usize, labels: &[(&str, Style, usize)], text: (&str, Style)) {
        let column = indent + labels.iter().map(|(_, _, cells)| cells).sum::<usize>();
        let mut start = indent;
        let mut end = 0;
        for (label, style, cells) in labels {
            if !label.is_empty() {
                self.spaces(start.saturating_sub(end));
                self.paint(*style, label);
                end = start.max(end) + label.chars().count();
            }
            start += cells;
        }
        for (n, line) in wrap(text.0, self.width.saturating_sub(column)).iter().enumerate() {
            let beside = n == 0 && end > 0;
            self.spaces(if beside { column.saturating_sub(end).max(1) } else { column });
            self.paint(text.1, line);
            self.out.push('\n');
        }
    }

    fn spaces(&mut self, count: usize) {
        self.out.extend(std::iter::repeat_n(' ', count));
    }

    fn paint(&mut self, style: Style, text: &str) {
        if self.colour && style != PLAIN && !text.is_empty() {
            self.out.extend([&style.render().to_string(), text, &style.render_reset().to_string()]);
        } else {
            self.out.push_str(text);
        }
    }
}

/// Breaks at spaces only; a word that is too long keeps its line to itself. At least one line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_long_words_stay_whole() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a verylongword b", 5), ["a", "verylongword", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn a_row_keeps_its_columns_and_a_long_label_moves_only_the_first_line() {
        let mut page = Page::new(false, 40);
        page.row(2, &[("ok", BOLD, 4), ("name", PLAIN, 8)], ("text of more than one line, it is", PLAIN));
        page.row(2, &[("", BOLD, 4), ("very-long", PLAIN, 8)], ("text", PLAIN));
        assert_eq!(
            page.finish(),
            "  ok  name    text of more than one\n              line, it is\n      very-long text\n"
        );
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        let line = |colour| {
            let mut page = Page::new(colour, 80);
            page.field(2, ("Who", BOLD), 8, ("kubelet", PLAIN));
            page.finish()
        };
        assert_eq!(line(false), "  Who   kubelet\n");
        assert_eq!(line(true), "  \u{1b}[1mWho\u{1b}[0m   kubelet\n");
    }
}
