//! For people: a line when a collision begins, a block when its verdict is clear, a line when it ends, a summary.

use super::text_escape::{escape, escape_all};
use super::text_page::{BOLD, CYAN, DIM, GREEN, PLAIN, Page, RED, YELLOW};
use super::text_parties as parties;
use super::text_words as words;
use crate::diagnosis::incident::{Advice, Evidence, Incident, Outcome, Summary, Verdict};
use crate::pods::naming;

/// Lines of evidence in a block; the JSON has all of them.
const MAX_STEPS: usize = 10;
/// Column where the texts of a block begin.
const COLUMN: usize = 12;

/// How and how wide to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextStyle {
    /// With ANSI colours.
    pub colour: bool,
    /// Columns of the terminal; commands are never wrapped.
    pub width: usize,
}

/// A collision begins.
pub fn began_line(incident: &Incident, style: TextStyle) -> String {
    let mut page = Page::new(style.colour, style.width);
    let who = parties::owner_short(&incident.owner) + &parties::probe_short(incident.probe.as_ref());
    let connect = words::connect(incident);
    let text = match incident.verdict {
        Verdict::Collision => {
            format!("begins: {connect} by {who}; its source port belongs to an IPVS service")
        }
        _ => format!("begins: {connect} by {who}"),
    };
    page.field(0, (clock(&incident.started_at), DIM), 14, (&text, PLAIN));
    page.finish()
}

/// How a connection ended whose verdict block was printed already.
pub fn concluded_line(incident: &Incident, style: TextStyle) -> String {
    let mut page = Page::new(style.colour, style.width);
    page.field(0, (clock(&incident.started_at), DIM), 14, (&ending(incident), PLAIN));
    // The block may have been printed before the kubelet logged anything.
    if let Some(logged) = words::logged(incident) {
        page.field(0, ("", DIM), 14, (&logged, PLAIN));
    }
    page.finish()
}

fn ending(incident: &Incident) -> String {
    if incident.verdict == Verdict::Exhaustion {
        let text = incident.evidence.first().map(|evidence| escape_all(&evidence.text));
        return format!("ended: {}", text.unwrap_or_else(|| words::connect(incident)));
    }
    let connect = words::connect(incident);
    let times = |count: usize, what: &str| match count {
        0 => String::new(),
        1 => format!(", {what} once"),
        count => format!(", {what} {count} times"),
    };
    let again = usize::try_from(incident.connection.syn_retransmits).unwrap_or(usize::MAX);
    let details = times(again, "SYN sent again") + &times(incident.resets.len(), "reset");
    match (incident.duration_ms, incident.outcome) {
        (Some(ms), Outcome::Survived) => format!("ended: {connect} succeeded after {}{details}", seconds(ms)),
        (Some(ms), _) if incident.verdict == Verdict::None => {
            format!("ended: {connect} failed after {}, but not because of IPVS{details}", seconds(ms))
        }
        (Some(ms), _) => format!("ended: {connect} was given up after {}{details}", seconds(ms)),
        (None, _) => format!("still open: {connect}{details}"),
    }
}

/// The whole incident.
pub fn verdict_block(incident: &Incident, style: TextStyle) -> String {
    let mut page = Page::new(style.colour, style.width);
    head(&mut page, incident);
    page.blank();
    steps(&mut page, incident);
    page.blank();
    explanation(&mut page, incident);
    page.finish()
}

/// The verdict in a sentence, and who and what it is about.
pub(super) fn head(page: &mut Page, incident: &Incident) {
    let (tag, colour) = words::tag(incident);
    page.field(0, (tag, colour), tag.chars().count() + 2, (&words::headline(incident), BOLD));
    page.blank();
    facts(page, incident);
}

/// Why it happened and what to do.
pub(super) fn explanation(page: &mut Page, incident: &Incident) {
    heading(page, "Why");
    page.paragraph(4, &words::why(incident));
    if !incident.advice.is_empty() {
        page.blank();
        heading(page, "What to do");
        for (n, advice) in incident.advice.iter().enumerate() {
            if n > 0 {
                page.blank();
            }
            advise(page, advice);
        }
    }
}

pub(super) fn heading(page: &mut Page, text: &str) {
    page.verbatim(2, BOLD, text);
}

fn facts(page: &mut Page, incident: &Incident) {
    for (label, text) in fact_rows(incident) {
        page.field(2, (label, BOLD), COLUMN, (&text, PLAIN));
    }
}

/// Who and what it is about, and how sure that is: label and text, without a label where it goes on.
pub(super) fn fact_rows(incident: &Incident) -> Vec<(&'static str, String)> {
    let notes = |what: &'static str| notes(incident, what);
    let on = |what: &'static str| notes(what).map(|text| ("", text));
    let mut rows = vec![("Who", parties::owner(&incident.owner))];
    rows.extend(on(naming::source::OWNER));
    let probe = notes(naming::source::PROBE).next();
    let probe = probe.or_else(|| incident.probe.as_ref().map(parties::probe));
    rows.extend(probe.map(|text| ("Probe", text)));
    rows.extend(notes(naming::source::SERVER).map(|text| ("Server", text)));
    match &incident.service {
        Some(service) => rows.push(("Service", parties::service(service))),
        None if incident.verdict == Verdict::Collision => rows.push(("Service", "not known".to_owned())),
        None => {}
    }
    rows.extend(on(naming::source::SERVICE));
    rows.extend(on(naming::source::BACKEND));
    rows.extend(words::logged(incident).map(|text| ("Log", text)));
    rows.extend(notes(naming::source::MISSING).map(|text| ("No names", text)));
    rows.extend(parties::absent(incident).map(|text| ("Names", text)));
    rows.extend(words::certainty(incident).map(|text| ("How sure", text)));
    rows
}

/// What the pod and service lists say about one thing.
fn notes<'a>(incident: &'a Incident, what: &'static str) -> impl Iterator<Item = String> + 'a {
    let notes = incident.evidence.iter().filter(move |evidence| naming::is_of(evidence, what));
    notes.map(|evidence| escape_all(&evidence.text))
}

/// The evidence; what happens again and again is one line.
pub(super) fn steps(page: &mut Page, incident: &Incident) {
    let date = incident.started_at.get(..10).unwrap_or_default();
    heading(page, &format!("What happened, from {date} {} UTC on", clock(&incident.started_at)));
    let mut steps: Vec<(&Evidence, usize, &Evidence)> = Vec::new();
    for evidence in incident.evidence.iter().filter(|evidence| !naming::is_note(evidence)) {
        match steps.iter_mut().find(|(first, _, _)| first.text == evidence.text) {
            Some((_, times, last)) => (*times, *last) = (*times + 1, evidence),
            None => steps.push((evidence, 1, evidence)),
        }
    }
    for (first, times, last) in steps.iter().take(MAX_STEPS) {
        let start = &incident.started_at;
        let text = match times {
            1 => escape_all(&first.text),
            2 => format!("{}; again at {}", escape_all(&first.text), relative(start, &last.at)),
            times => {
                format!(
                    "{}; {times} times, the last at {}",
                    escape_all(&first.text),
                    relative(start, &last.at)
                )
            }
        };
        page.field(4, (&relative(start, &first.at), CYAN), 15, (&text, PLAIN));
    }
    let hidden = steps.len().saturating_sub(MAX_STEPS);
    if hidden > 0 {
        page.paragraph(15, &format!("… and {hidden} more, see the JSON output"));
    }
}

/// A piece of advice in the order in which it is read: what to set, the commands, why.
pub(super) struct Advised {
    pub(super) before: String,
    pub(super) commands: Vec<String>,
    pub(super) after: Option<String>,
}

pub(super) fn advised(advice: &Advice) -> Advised {
    let Advice { setting, value, command, persist, why } = advice;
    let commands = [command.as_deref().map(escape_all), persist.as_deref().map(persist_command)];
    let commands: Vec<String> = commands.into_iter().flatten().collect();
    let why = escape_all(why);
    // A value is set first and explained then; without one, the explanation says what the command is for.
    let (before, after) = match (value, persist) {
        (Some(_), Some(_)) if command.is_none() => (format!("Set {}:", escape(setting)), Some(why)),
        (Some(_), Some(_)) => (
            format!("Set {}, as root; the second command keeps it after a reboot:", escape(setting)),
            Some(why),
        ),
        (Some(_), None) => (format!("Set {}, as root:", escape(setting)), Some(why)),
        (None, _) => (why, None),
    };
    Advised { before, commands, after }
}

pub(super) fn advise(page: &mut Page, advice: &Advice) {
    let Advised { before, commands, after } = advised(advice);
    page.paragraph(4, &before);
    for command in commands {
        page.blank();
        page.verbatim(4, GREEN, &command);
    }
    if let Some(after) = after {
        page.blank();
        page.paragraph(4, &after);
    }
}

/// `FILE: LINE` as a command that writes it; anything else as it is.
fn persist_command(persist: &str) -> String {
    let persist = escape_all(persist);
    match persist.split_once(": ") {
        Some((file, line)) if file.starts_with('/') && !line.contains('\'') => {
            format!("echo '{line}' > {file}")
        }
        _ => persist,
    }
}

/// What the trace found, and whether it saw everything.
pub fn summary_block(summary: &Summary, style: TextStyle) -> String {
    let Summary {
        schema: _,
        verdicts,
        connects_seen,
        probe_failures_elsewhere,
        probe_failures_ambiguous,
        lost,
        hooks,
        incomplete,
    } = summary;
    let mut page = Page::new(style.colour, style.width);
    let found: Vec<String> =
        verdicts.iter().filter_map(|(verdict, count)| counted(*verdict, *count)).collect();
    let complete = incomplete.is_empty();
    let colour = match (found.is_empty(), complete) {
        (false, _) => RED,
        (true, true) => GREEN,
        (true, false) => YELLOW,
    };
    let seen = connects_seen.map_or_else(
        || "connects were not counted".to_owned(),
        |seen| format!("{} {} seen", grouped(seen), if seen == 1 { "connect" } else { "connects" }),
    );
    let found = match (found.is_empty(), complete) {
        (false, _) => found.join(", "),
        (true, true) => "nothing found".to_owned(),
        (true, false) => "nothing found, but the evidence is incomplete".to_owned(),
    };
    let mut row = |label: &str, style, text: &str| page.field(0, (label, style), COLUMN, (text, PLAIN));
    row("Summary", colour, &format!("{found}; {seen}"));
    match verdicts.get(&Verdict::None) {
        None | Some(0) => {}
        Some(1) => row("", PLAIN, "1 connect from a service port turned out to be a false alarm"),
        Some(count) => row(
            "",
            PLAIN,
            &format!("{} connects from service ports turned out to be false alarms", grouped(*count)),
        ),
    }
    if let Some(text) = log(*probe_failures_elsewhere, *probe_failures_ambiguous) {
        row("Kubelet log", PLAIN, &text);
    }
    if complete {
        let lost = if lost.is_empty() {
            "no event was lost"
        } else {
            "what was lost concerned no watched connection"
        };
        row("Evidence", BOLD, &format!("complete: {lost}"));
    }
    for sentence in incomplete {
        row("INCOMPLETE", YELLOW, &escape_all(sentence));
    }
    for (program, reasons) in lost {
        let reasons: Vec<String> = reasons
            .iter()
            .map(|(reason, count)| format!("{} ({})", grouped(*count), escape(reason)))
            .collect();
        row("Lost", YELLOW, &format!("{}: {}", escape(program), reasons.join(", ")));
    }
    for (n, (need, rung)) in hooks.iter().enumerate() {
        row(if n == 0 { "Hooks" } else { "" }, BOLD, &format!("{}: {}", escape(need), escape(rung)));
    }
    page.finish()
}

/// Failed probes that are no incident; nothing if no log was read or it had none.
fn log(elsewhere: Option<u64>, ambiguous: Option<u64>) -> Option<String> {
    let probes =
        |count: u64| format!("{} failed {}", grouped(count), if count == 1 { "probe" } else { "probes" });
    let elsewhere =
        elsewhere.filter(|count| *count > 0).map(|count| format!("{} had another reason", probes(count)));
    let ambiguous = ambiguous.filter(|count| *count > 0);
    let ambiguous =
        ambiguous.map(|count| format!("{} may belong to more than one of the connections", probes(count)));
    let parts: Vec<String> = [elsewhere, ambiguous].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

pub(super) fn counted(verdict: Verdict, count: u64) -> Option<String> {
    let (one, many) = match verdict {
        Verdict::Collision => ("collision", "collisions"),
        Verdict::CollisionSnat => ("collision after SNAT", "collisions after SNAT"),
        Verdict::ListenConflict => ("listen conflict", "listen conflicts"),
        Verdict::Exhaustion => ("process out of ports", "processes out of ports"),
        Verdict::ReuseDelay => ("delay by port reuse", "delays by port reuse"),
        Verdict::OtherReset => ("reset not because of IPVS", "resets not because of IPVS"),
        Verdict::None => return None,
    };
    (count > 0).then(|| format!("{} {}", grouped(count), if count == 1 { one } else { many }))
}

/// `41,208`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `2.001 s`
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

/// `19:09:02.533`, milliseconds of an RFC 3339 time.
pub(super) fn clock(at: &str) -> &str {
    at.get(11..23).unwrap_or(at)
}

/// `+1.031 s` after the start; the time itself where it cannot be read.
pub(super) fn relative(start: &str, at: &str) -> String {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_nanosecond);
    let (Some(start), Some(then)) = (time(start), time(at)) else { return escape(at) };
    let ms = (then - start) / 1_000_000;
    let sign = if ms < 0 { '-' } else { '+' };
    format!("{sign}{}.{:03} s", ms.abs() / 1000, ms.abs() % 1000)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
