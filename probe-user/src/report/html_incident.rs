//! The section of one kind of incident.

use super::analysis_gaps::ends;
use super::analysis_text::{moment_time, when};
use super::html_build::Html;
use super::ladder::Layout;
use super::ladder_svg::{sentences, svg};
use super::text::{Advised, advised, fact_rows, grouped, seconds};
use super::text_words as words;
use super::timeline::{Event, events};
use crate::analysis::model::{Analysed, Ladder};
use crate::analysis::picture::{nanos, timeline};
use crate::diagnosis::incident::{Incident, Verdict};
use crate::observation::Nanos;

/// Lines of a timeline on the page.
const MAX_MOMENTS: usize = 500;
/// Further incidents of the kind that are listed.
const MAX_LISTED: usize = 1000;

/// The first of the group in full, the others in a table.
pub(super) fn incident_section(html: &mut Html, number: usize, group: &[&Analysed]) {
    let Some((first, others)) = group.split_first() else { return };
    let incident = &first.incident;
    let id = format!("incident-{number}");
    html.within("section", &[("id", &id)], |html| {
        headline(html, incident);
        let time = format!("First SYN on {} UTC", when(incident));
        let lasted = incident.duration_ms.map_or_else(
            || unseen(incident).map_or_else(String::new, |unseen| format!(", its end was {unseen}")),
            |ms| format!(", ended after {}", seconds(ms)),
        );
        html.element("p", &[("class", "soft")], &format!("{time}{lasted}."));
        facts(html, incident);
        html.element("h3", &[], "Why");
        html.element("p", &[], &words::why(incident));
        packets(html, first, &id);
        advice(html, incident);
        moments(html, first);
        if !others.is_empty() {
            again(html, others);
        }
        html.element("p", &[("class", "soft")], &format!("Incident {}", incident.id));
    });
}

/// What to say of the end where no time of it is known. A reset for another reason is the end, and was seen.
fn unseen(incident: &Incident) -> Option<&'static str> {
    (incident.verdict != Verdict::OtherReset).then_some("not seen")
}

fn headline(html: &mut Html, incident: &Incident) {
    let (tag, _) = words::tag(incident);
    let class = match incident.verdict {
        Verdict::None => "tag good",
        _ if words::is_failure(incident) => "tag bad",
        _ => "tag warn",
    };
    html.within("h2", &[], |html| {
        html.element("span", &[("class", class)], tag);
        html.text(&words::headline(incident));
    });
}

fn facts(html: &mut Html, incident: &Incident) {
    html.within("dl", &[("class", "facts")], |html| {
        for (label, text) in fact_rows(incident) {
            if label.is_empty() {
                html.literal("<dt aria-hidden=\"true\"></dt>");
            } else {
                html.element("dt", &[], label);
            }
            html.element("dd", &[], &text);
        }
    });
}

fn packets(html: &mut Html, analysed: &Analysed, id: &str) {
    let own;
    let ladder = if analysed.ladder.arrows.is_empty() {
        own = Ladder::of_incident(&analysed.incident);
        &own
    } else {
        &analysed.ladder
    };
    let layout = Layout::of(ladder);
    if layout.is_empty() {
        return;
    }
    html.element("h3", &[], "Packets");
    html.within("figure", &[], |html| {
        html.within("div", &[("class", "scroll"), ("tabindex", "0"), ("role", "group"), ("aria-label", "Ladder diagram")], |html| {
            html.append(&svg(&layout, &format!("{id}-ladder")));
        });
        let text = "Time runs downwards, in seconds from the first packet. Thick arrows with capital words are what went wrong; \
                    dashed ones were not seen but follow from the others.";
        html.within("figcaption", &[], |html| {
            html.text(text);
            html.element("span", &[("class", "hint")], " Scroll sideways to see all of it.");
        });
    });
    html.within("details", &[], |html| {
        html.element("summary", &[], "The same as a list");
        html.within("ol", &[], |html| {
            for text in sentences(&layout) {
                html.element("li", &[], &text);
            }
        });
    });
}

fn advice(html: &mut Html, incident: &Incident) {
    if incident.advice.is_empty() {
        return;
    }
    html.element("h3", &[], "What to do");
    for advice in incident.advice.iter() {
        let Advised { before, commands, after } = advised(advice);
        html.element("p", &[], &before);
        for command in commands {
            html.within("pre", &[], |html| html.element("code", &[], &command));
        }
        if let Some(after) = after {
            html.element("p", &[], &after);
        }
    }
}

fn moments(html: &mut Html, analysed: &Analysed) {
    let own;
    let moments = if analysed.timeline.is_empty() {
        own = timeline(&analysed.incident);
        &own
    } else {
        &analysed.timeline
    };
    if moments.is_empty() {
        return;
    }
    let start = nanos(&analysed.incident.started_at);
    let events = events(moments);
    html.element("h3", &[], "What all sources say");
    html.within("div", &[("class", "scroll")], |html| {
        html.within("table", &[("class", "stack")], |html| {
            html.element("caption", &[], "Seconds from the first SYN; the oldest first.");
            head(html, &[("Time", "time"), ("What", ""), ("Where it was seen", "")]);
            html.within("tbody", &[], |html| {
                for event in events.iter().take(MAX_MOMENTS) {
                    event_row(html, event, start);
                }
            });
        });
    });
    if let Some(hidden) = events.len().checked_sub(MAX_MOMENTS).filter(|hidden| *hidden > 0) {
        html.element("p", &[], &format!("{} more lines are not shown.", grouped(hidden as u64)));
    }
}

fn event_row(html: &mut Html, event: &Event<'_>, start: Option<Nanos>) {
    let Event { first, elsewhere } = event;
    let marked = first.text.starts_with("IPVS handed the reply") || first.text.contains("RST");
    html.within("tr", &[("class", if marked { "mark" } else { "" })], |html| {
        html.element("td", &[("class", "time")], &moment_time(first, start));
        html.element("td", &[], &first.text);
        html.within("td", &[("class", "source")], |html| {
            html.text(&first.source);
            if elsewhere.is_empty() {
                return;
            }
            html.within("details", &[], |html| {
                let places = if elsewhere.len() == 1 { "place" } else { "places" };
                html.element("summary", &[], &format!("and at {} other {places}", elsewhere.len()));
                html.within("ul", &[], |html| {
                    for moment in elsewhere {
                        let time = moment_time(moment, start);
                        html.element("li", &[], &format!("{time} {}", moment.source));
                    }
                });
            });
        });
    });
}

/// A table's head: titles and classes.
pub(super) fn head(html: &mut Html, titles: &[(&'static str, &'static str)]) {
    html.within("thead", &[], |html| {
        html.within("tr", &[], |html| {
            for (title, class) in titles {
                html.element("th", &[("scope", "col"), ("class", class)], title);
            }
        });
    });
}

fn again(html: &mut Html, others: &[&Analysed]) {
    let times = if others.len() == 1 {
        "once more".to_owned()
    } else {
        format!("{} more times", grouped(others.len() as u64))
    };
    html.element("h3", &[], &format!("The same happened {times}"));
    html.within("table", &[("class", "stack")], |html| {
        head(
            html,
            &[
                ("First SYN, UTC", "time"),
                ("From", ""),
                ("Lasted", ""),
                ("How sure", ""),
                ("In the kubelet's log", ""),
            ],
        );
        html.within("tbody", &[], |html| {
            for analysed in others.iter().take(MAX_LISTED) {
                let incident = &analysed.incident;
                let lasted = incident
                    .duration_ms
                    .map_or_else(|| unseen(incident).unwrap_or_default().to_owned(), seconds);
                let logged = if incident.log_lines.is_empty() { "no" } else { "yes" };
                html.within("tr", &[], |html| {
                    html.element("td", &[("class", "time")], &when(incident));
                    html.element("td", &[], &ends(incident));
                    html.element("td", &[], &lasted);
                    html.element("td", &[], words::confidence(incident.confidence));
                    html.element("td", &[], logged);
                });
            }
        });
    });
    if let Some(hidden) = others.len().checked_sub(MAX_LISTED).filter(|hidden| *hidden > 0) {
        html.element("p", &[], &format!("{} more are in the JSON output.", grouped(hidden as u64)));
    }
}
