//! What `portclash analyze` prints for people.

use super::analysis_gaps::{ends, groups, missing};
use super::ladder::{Layout, offset_text};
use super::ladder_text;
use super::text::{TextStyle, clock, explanation, grouped, head, heading, seconds, steps, summary_block};
use super::text_escape::{escape, escape_all};
use super::text_page::{BOLD, CYAN, DIM, GREEN, PLAIN, Page, RED, YELLOW};
use super::text_words as words;
use super::timeline::{Event, events};
use crate::analysis::model::{Analysed, Analysis, InputAccount, Moment, PortMap};
use crate::analysis::picture::nanos;
use crate::diagnosis::incident::Incident;
use crate::diagnosis::time::rfc3339;
use crate::observation::Nanos;

/// Lines of a timeline; the JSON and HTML outputs have more.
const MAX_MOMENTS: usize = 40;
/// Further incidents of a kind that are listed.
const MAX_LISTED: usize = 20;
/// Kinds that are shown in full.
const MAX_KINDS: usize = 20;
/// Column where texts of the closing sections begin.
const COLUMN: usize = 12;

/// The signs that drawings are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signs {
    /// Box drawing characters and arrows.
    #[default]
    Unicode,
    /// Nothing but ASCII, in the whole output.
    Ascii,
}

/// The whole report.
pub fn report(analysis: &Analysis, style: TextStyle, signs: Signs) -> String {
    let mut page = Page::new(style.colour, style.width);
    let groups = groups(analysis);
    for group in groups.iter().take(MAX_KINDS) {
        incidents(&mut page, group);
        page.blank();
    }
    if let Some(hidden) = groups.len().checked_sub(MAX_KINDS).filter(|hidden| *hidden > 0) {
        page.paragraph(
            0,
            &format!("… and {} more kinds of incidents, see the JSON output", grouped(hidden as u64)),
        );
        page.blank();
    }
    if analysis.left_out > 0 {
        let text = format!("{} more incidents were found and not kept.", grouped(analysis.left_out));
        page.field(0, ("Left out", YELLOW), COLUMN, (&text, PLAIN));
    }
    if groups.is_empty() {
        nothing(&mut page, analysis);
    }
    list(&mut page, "Clocks", &analysis.clocks);
    list(&mut page, "Notes", &analysis.notes);
    if let Some(ports) = &analysis.ports {
        port_map(&mut page, ports, analysis);
    }
    inputs(&mut page, &analysis.inputs);
    let text = page.finish() + &summary_block(&analysis.summary, style);
    match signs {
        Signs::Unicode => text,
        Signs::Ascii => ascii(&text),
    }
}

/// The first of a kind in full, the others as a table of times.
fn incidents(page: &mut Page, group: &[&Analysed]) {
    let Some((first, others)) = group.split_first() else { return };
    let incident = &first.incident;
    head(page, incident);
    let layout = Layout::of(&first.ladder);
    if !layout.is_empty() {
        page.blank();
        heading(page, "Packets");
        ladder_text::draw(page, 2, &layout);
    }
    page.blank();
    if first.timeline.is_empty() {
        steps(page, incident);
    } else {
        timeline(page, incident, &first.timeline);
    }
    page.blank();
    explanation(page, incident);
    if !others.is_empty() {
        page.blank();
        again(page, others);
    }
}

/// What all inputs say, with offsets from the first SYN.
fn timeline(page: &mut Page, incident: &Incident, moments: &[Moment]) {
    let start = nanos(&incident.started_at);
    let date = incident.started_at.get(..10).unwrap_or_default();
    heading(page, &format!("What all inputs say, from {date} {} UTC on", clock(&incident.started_at)));
    let events = events(moments);
    for event in events.iter().take(MAX_MOMENTS) {
        let Event { first, elsewhere } = event;
        let mut places: Vec<String> =
            Some(escape(&first.source)).into_iter().filter(|place| !place.is_empty()).collect();
        match elsewhere.as_slice() {
            [] => {}
            [one] => places.push(format!("and {}", escape(&one.source))),
            several => places.push(format!("and at {} other places", several.len())),
        }
        let places = if places.is_empty() { String::new() } else { format!(" [{}]", places.join(" ")) };
        page.field(4, (&moment_time(first, start), CYAN), 20, (&(escape_all(&first.text) + &places), PLAIN));
    }
    if let Some(hidden) = events.len().checked_sub(MAX_MOMENTS).filter(|hidden| *hidden > 0) {
        page.paragraph(20, &format!("… and {hidden} more, see the HTML output"));
    }
}

/// The offset from the first SYN; without either time, nothing.
pub(super) fn moment_time(moment: &Moment, start: Option<Nanos>) -> String {
    match (moment.at, start) {
        (Some(at), Some(start)) => offset_text(at.saturating_sub(start)),
        (Some(at), None) => clock(&rfc3339(at)).to_owned(),
        (None, _) => "no time".to_owned(),
    }
}

fn again(page: &mut Page, others: &[&Analysed]) {
    let count = others.len();
    let times =
        if count == 1 { "once more".to_owned() } else { format!("{} more times", grouped(count as u64)) };
    heading(page, &format!("The same happened {times}"));
    for analysed in others.iter().take(MAX_LISTED) {
        let incident = &analysed.incident;
        page.field(4, (&when(incident), CYAN), 29, (&short(incident), PLAIN));
    }
    if let Some(hidden) = count.checked_sub(MAX_LISTED).filter(|hidden| *hidden > 0) {
        page.paragraph(29, &format!("… and {} more, see the JSON output", grouped(hidden as u64)));
    }
}

/// Date and time to the millisecond.
pub(super) fn when(incident: &Incident) -> String {
    let at = &incident.started_at;
    at.get(..23).map_or_else(|| escape(at), |text| text.replacen('T', " ", 1))
}

/// One line about an incident whose kind is explained already.
fn short(incident: &Incident) -> String {
    let from = escape(&ends(incident));
    let lasted = incident.duration_ms.map_or_else(String::new, |ms| format!(", {}", seconds(ms)));
    let logged = if incident.log_lines.is_empty() { "" } else { ", in the kubelet's log" };
    let sure = words::confidence(incident.confidence);
    format!("from {from}{lasted}, {sure}{logged}")
}

fn nothing(page: &mut Page, analysis: &Analysis) {
    let recognised = analysis.inputs.iter().filter(|input| input.kind.is_some()).count();
    let text = match (analysis.inputs.len(), recognised) {
        (0, _) => "No input was given, so nothing could be found.".to_owned(),
        (_, 0) => "Nothing was found, because none of the inputs was recognised.".to_owned(),
        (all, read) if all == read => "No incident was found; below is what was read.".to_owned(),
        (all, read) => format!("No incident was found; {read} of {all} inputs could be read, see below."),
    };
    page.field(0, ("NOTHING", if recognised > 0 { GREEN } else { YELLOW }), COLUMN, (&text, BOLD));
    for text in missing(analysis) {
        page.field(0, ("Missing", YELLOW), COLUMN, (text, PLAIN));
    }
    page.blank();
}

fn list(page: &mut Page, label: &str, texts: &[String]) {
    for (n, text) in texts.iter().enumerate() {
        page.field(0, (if n == 0 { label } else { "" }, BOLD), COLUMN, (&escape_all(text), PLAIN));
    }
}

/// The bar's cells, each for as many ports.
fn port_map(page: &mut Page, ports: &PortMap, analysis: &Analysis) {
    // Beside the bar stands the name of the lane.
    let width = page.width().saturating_sub(COLUMN + 18).clamp(20, 64);
    let facts = super::port_facts::PortFacts::of(ports, analysis);
    let lanes: Vec<(&str, String)> = facts
        .lanes
        .iter()
        .map(|lane| {
            (
                lane.short,
                bar(width, |first, last| lane.ports.intersect(&range(first, last)).count() > 0, lane.sign),
            )
        })
        .collect();
    for (n, (name, bar)) in lanes.iter().enumerate() {
        let label = if n == 0 { "Ports" } else { "" };
        page.verbatim_parts(
            0,
            &[(format!("{label:<COLUMN$}"), BOLD), (bar.clone(), PLAIN), (format!(" {name}"), DIM)],
        );
    }
    page.verbatim(COLUMN, DIM, &format!("0{:>width$}", 65535, width = width - 1));
    for text in facts.sentences {
        page.field(0, ("", PLAIN), COLUMN, (&text, PLAIN));
    }
}

fn range(first: u16, last: u16) -> crate::node::port_ranges::PortRanges {
    crate::node::port_ranges::PortRanges::range(first, last)
}

/// A lane of the port space; a cell is filled if any of its ports is in the lane.
fn bar(width: usize, any: impl Fn(u16, u16) -> bool, sign: char) -> String {
    let edge = |cell: usize| u16::try_from((cell * 65536 / width).min(65535)).unwrap_or(u16::MAX);
    (0..width)
        .map(|cell| {
            let last = if cell + 1 == width { u16::MAX } else { edge(cell + 1).saturating_sub(1) };
            if any(edge(cell), last) { sign } else { '·' }
        })
        .collect()
}

fn inputs(page: &mut Page, inputs: &[InputAccount]) {
    let (read, unread): (Vec<_>, Vec<_>) = inputs.iter().partition(|input| input.kind.is_some());
    for (n, input) in read.iter().enumerate() {
        let InputAccount { schema: _, name, kind, bytes: _, sha256: _, read, skipped } = input;
        let kind = kind.as_deref().map_or_else(String::new, escape);
        let text = format!("{}: {kind}; {}", escape(name), escape_all(read));
        page.field(0, (if n == 0 { "Inputs" } else { "" }, BOLD), COLUMN, (&text, PLAIN));
        for text in skipped {
            page.field(COLUMN, ("!", RED), COLUMN + 2, (&escape_all(text), PLAIN));
        }
    }
    for (n, input) in unread.iter().enumerate() {
        let why = input.skipped.join(" ");
        let why = if why.is_empty() { String::new() } else { format!(": {}", escape_all(&why)) };
        let label = if n == 0 { "Not read" } else { "" };
        page.field(0, (label, YELLOW), COLUMN, (&format!("{}{why}", escape(&input.name)), PLAIN));
    }
}

/// The same with nothing but ASCII: signs of our own by their likes, anything else as `\u{…}`.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '│' => out.push('|'),
            '─' => out.push('-'),
            '═' => out.push('='),
            '▶' => out.push('>'),
            '◀' => out.push('<'),
            '✗' => out.push('X'),
            '⋮' => out.push(':'),
            '…' => out.push('~'),
            '→' => out.push_str("->"),
            '↺' => out.push('@'),
            '·' => out.push('.'),
            '█' => out.push('#'),
            '▲' => out.push('^'),
            c if c.is_ascii() => out.push(c),
            c => out.extend(c.escape_unicode()),
        }
    }
    out
}

#[cfg(test)]
#[path = "analysis_text_tests.rs"]
mod tests;
