//! The sidecar's status page: what a person wants to know first. Pure; no network, no script.

use super::html::{POLICY, STYLE, card};
use super::html_build::Html;
use super::metrics_families::out_of_ports;
use super::text::{counted, grouped};
use super::text_words as words;
use crate::diagnosis::incident::{Outcome, Verdict};
use crate::kernel::ladder::{LADDER, PACKETS};
use crate::observation::Nanos;
use crate::serve::recent::Kept;
use crate::serve::snapshot::{ExposureView, Snapshot};

/// Incidents on the page.
const MAX_SHOWN: usize = 50;

/// The whole page; `latest` is the newest first.
pub fn page(now: &Snapshot, latest: &[Kept]) -> String {
    let mut html = Html::default();
    html.literal("<!DOCTYPE html>\n");
    html.within("html", &[("lang", "en")], |html| {
        html.within("head", &[], |html| head(html, now));
        html.within("body", &[], |html| {
            html.within("header", &[], |html| header(html, now));
            html.within("main", &[], |html| {
                list(html, "Why it is not ready", &now.not_ready);
                incidents(html, latest);
                exposure(html, now);
                evidence(html, now);
                hooks(html, now);
                rest(html, now);
            });
            html.within("footer", &[], |html| footer(html, now));
        });
    });
    html.finish()
}

fn head(html: &mut Html, now: &Snapshot) {
    html.literal("<meta charset=\"utf-8\">\n");
    html.open("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
    html.open("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
    html.open("meta", &[("name", "referrer"), ("content", "no-referrer")]);
    // Pages of many nodes may be open side by side.
    html.element("title", &[], &format!("portclash on {}: {}", place(now), sentence(now)));
    html.literal("<style>");
    html.literal(STYLE);
    html.close("style");
}

fn place(now: &Snapshot) -> &str {
    now.node.as_deref().unwrap_or("this node")
}

fn collisions(now: &Snapshot) -> u64 {
    let ours = |verdict| matches!(verdict, Verdict::Collision | Verdict::CollisionSnat);
    let counts = now.incidents.iter().filter(|(kind, _)| {
        ours(kind.verdict) && !matches!(kind.outcome, Outcome::Survived | Outcome::Pending)
    });
    counts.map(|(_, count)| count).sum()
}

/// The state in one sentence.
fn sentence(now: &Snapshot) -> String {
    let since = format!("since {} UTC", time(now.started_at));
    match (now.not_ready.is_empty(), collisions(now)) {
        (false, _) => "portclash is not ready, so nothing here says that all is well".to_owned(),
        (true, 0) if now.incomplete.is_empty() => format!("no connection was lost to IPVS {since}"),
        (true, 0) => format!("no connection was seen lost to IPVS {since}, but the evidence is incomplete"),
        (true, 1) => format!("one connection was lost to IPVS {since}"),
        (true, count) => format!("{} connections were lost to IPVS {since}", grouped(count)),
    }
}

fn header(html: &mut Html, now: &Snapshot) {
    html.element("h1", &[], &format!("portclash on {}", place(now)));
    let sentence = sentence(now);
    let mut letters = sentence.chars();
    let sentence: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    html.element("p", &[("class", "verdict")], &format!("{sentence}."));
    let verdicts = verdicts(now);
    let (found, class) = match collisions(now) {
        0 => ("none".to_owned(), if now.not_ready.is_empty() { "good" } else { "" }),
        count => (grouped(count), "bad"),
    };
    html.within("ul", &[("class", "cards")], |html| {
        match now.not_ready.len() {
            0 => card(html, "State", ("ready", "good"), "hooks attached, service table read"),
            _ => card(html, "State", ("NOT READY", "bad"), "why is said below"),
        }
        card(html, "Connections lost", (&found, class), &verdicts);
        exposure_card(html, now.exposure.as_ref());
        let lacks = now.incomplete.len();
        match lacks {
            0 => card(html, "Evidence", ("complete", "good"), "nothing was lost"),
            _ => card(html, "Evidence", ("INCOMPLETE", "warn"), "what it lacks is said below"),
        }
    });
}

/// `2 collisions, 1 reset not because of IPVS`
fn verdicts(now: &Snapshot) -> String {
    let mut sums = std::collections::BTreeMap::<Verdict, u64>::new();
    for (kind, count) in &now.incidents {
        *sums.entry(kind.verdict).or_default() += count;
    }
    let told: Vec<String> = sums.into_iter().filter_map(|(verdict, count)| counted(verdict, count)).collect();
    if told.is_empty() { "nothing was found".to_owned() } else { told.join(", ") }
}

fn exposure_card(html: &mut Html, exposure: Option<&ExposureView>) {
    let Some(ports) = exposure.and_then(|exposure| exposure.exposed_ports) else {
        return card(html, "Exposed ports", ("not known", "warn"), "the exposure was not checked so far");
    };
    let per_hour = exposure.and_then(|exposure| exposure.expected_failures_per_hour);
    let rate = per_hour.map_or_else(String::new, |rate| format!("{} failures an hour expected", short(rate)));
    let class = if ports == 0 { "good" } else { "warn" };
    card(html, "Exposed ports", (&grouped(ports), class), &rate);
}

/// Three digits that matter.
fn short(number: f64) -> String {
    match number {
        0.0 => "no".to_owned(),
        small if small < 0.001 => "fewer than 0.001".to_owned(),
        small if small < 1.0 => format!("{small:.3}"),
        small if small < 100.0 => format!("{small:.1}"),
        large => format!("{large:.0}"),
    }
}

fn incidents(html: &mut Html, latest: &[Kept]) {
    html.within("section", &[], |html| {
        html.element("h2", &[], "Latest incidents");
        if latest.is_empty() {
            return html.element("p", &[], "None since the start.");
        }
        html.within("table", &[("class", "stack")], |html| {
            html.within("thead", &[], |html| row_of(html, "th", &["When (UTC)", "What happened", "More"]));
            html.within("tbody", &[], |html| {
                latest.iter().take(MAX_SHOWN).for_each(|kept| incident(html, kept));
            });
        });
        if latest.len() > MAX_SHOWN {
            html.within("p", &[], |html| {
                html.text("The latest are shown; there are more in ");
                html.element("a", &[("href", "incidents")], "incidents");
                html.text(".");
            });
        }
    });
}

fn incident(html: &mut Html, kept: &Kept) {
    let incident = &*kept.incident;
    let path = format!("incidents/{}", encoded(&incident.id));
    html.within("tr", &[], |html| {
        let at = incident.started_at.get(..19).unwrap_or(&incident.started_at).replacen('T', " ", 1);
        html.element("td", &[("class", "time")], &at);
        html.within("td", &[], |html| {
            let class = if words::is_failure(incident) { "tag bad" } else { "tag warn" };
            html.element("span", &[("class", class)], words::tag(incident).0);
            html.text(&words::headline(incident));
            if let Some(probe) = &incident.probe {
                let pod = format!("{} probe of pod {}/{}", probe.r#type, probe.pod.namespace, probe.pod.name);
                html.text("; ");
                html.element("span", &[("class", "soft")], &pod);
            }
        });
        html.within("td", &[], |html| {
            html.element("a", &[("href", &format!("{path}/report"))], "report");
            html.element("a", &[("href", &path)], "JSON");
            if kept.capture.is_some() {
                html.element("a", &[("href", &format!("{path}/capture"))], "packets");
            }
        });
    });
}

/// An id as a part of a path.
fn encoded(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn exposure(html: &mut Html, now: &Snapshot) {
    let Some(exposure) = &now.exposure else { return };
    let known = |number: Option<u64>| number.map_or_else(|| "not known".to_owned(), grouped);
    let mut facts = vec![
        ("Exposed ports", known(exposure.exposed_ports)),
        ("Of these, picked by connect()", known(exposure.reachable_ports)),
        ("Chance per connect", exposure.chance_per_connect.map_or_else(|| "not known".to_owned(), chance)),
        (
            "Failures an hour",
            exposure.expected_failures_per_hour.map_or_else(|| "not known".to_owned(), short),
        ),
        ("Newly exposed since the start", grouped(exposure.newly_exposed)),
        ("Checked", format!("{} UTC", time(exposure.checked_at))),
    ];
    let changed = exposure.setting_changes.iter().filter(|(_, count)| **count > 0);
    let changed: Vec<String> =
        changed.map(|(name, count)| format!("{name} ({} times)", grouped(*count))).collect();
    if !changed.is_empty() {
        facts.push(("Settings changed", changed.join(", ")));
    }
    section(html, "Exposure", &facts);
    html.element(
        "p",
        &[("class", "soft")],
        "An exposed port belongs to a service and may also be given to a new connection as its source port; that connection fails. \
         portclash check says which ports these are and what to set.",
    );
}

fn chance(chance: f64) -> String {
    if chance <= 0.0 { "none".to_owned() } else { format!("one in {}", short(1.0 / chance)) }
}

fn evidence(html: &mut Html, now: &Snapshot) {
    let mut lacks = now.incomplete.clone();
    for (program, reasons) in now.losses() {
        for (reason, count) in reasons {
            lacks.push(format!("{} events lost at {program} ({reason})", grouped(count)));
        }
    }
    list(html, "What the evidence lacks", &lacks);
}

fn hooks(html: &mut Html, now: &Snapshot) {
    if now.hooks.is_empty() {
        return;
    }
    html.within("section", &[], |html| {
        html.element("h2", &[], "Hooks");
        html.within("table", &[], |html| {
            html.within("thead", &[], |html| row_of(html, "th", &["Need", "Served by"]));
            html.within("tbody", &[], |html| {
                for hook in &now.hooks {
                    html.within("tr", &[], |html| {
                        html.element("td", &[], hook.need);
                        match hook.way {
                            Some(way) => html.element("td", &[], way),
                            None => html.element("td", &[], &format!("nothing{}", without(hook.need))),
                        }
                    });
                }
            });
        });
    });
}

/// What is missed because nothing serves a need.
fn without(need: &str) -> String {
    let known = LADDER.iter().chain(PACKETS).map(|(known, _)| *known).find(|known| known.name() == need);
    known.map_or_else(String::new, |need| format!(": {}", need.without()))
}

fn rest(html: &mut Html, now: &Snapshot) {
    let mut facts: Vec<(&str, String)> = Vec::new();
    if let Some(at) = now.table.read_at {
        let services: Vec<String> = now
            .table
            .services
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(protocol, count)| format!("{} {protocol}", grouped(*count)))
            .collect();
        let services = if services.is_empty() { "none".to_owned() } else { services.join(", ") };
        let of_file = if now.table.is_file { " from a file, which is read only once" } else { "" };
        facts.push(("Services", format!("{services}; read {} UTC{of_file}", time(at))));
    }
    if let Some(connects) = now.connects {
        facts.push(("Connects", grouped(connects)));
    }
    if let Some(count) = out_of_ports(now) {
        facts.push(("Out of source ports", format!("{} connects", grouped(count))));
    }
    for source in &now.pods {
        let state = source.trouble.clone().unwrap_or_else(|| "works".to_owned());
        let state = match source.last_word {
            Some(at) => format!("{}: {state}; last word {} UTC", source.source, time(at)),
            None => format!("{}: {state}; no word so far", source.source),
        };
        facts.push(("Pods from", state));
    }
    if let Some(recorder) = &now.recorder {
        let kept = format!("{} captures, {}", grouped(recorder.captures), size(recorder.bytes));
        let failed = by_reason("incidents have no capture", &recorder.failed.by_reason());
        let dropped = by_reason("packets are in no capture", &recorder.packets_dropped.by_reason());
        let trouble = recorder.trouble.as_ref().map_or_else(String::new, |trouble| format!("; {trouble}"));
        facts.push(("Flight recorder", format!("{kept}{failed}{dropped}{trouble}")));
    }
    for (sink, delivery) in &now.deliveries {
        let told = format!("{sink}: {} sent, {} given up", grouped(delivery.sent), grouped(delivery.dropped));
        let trouble = delivery.trouble.as_ref().map_or_else(String::new, |trouble| format!("; {trouble}"));
        facts.push(("Tells", format!("{told}{trouble}")));
    }
    if let Some(bytes) = now.process.resident_bytes {
        facts.push(("Memory", size(bytes)));
    }
    if let Some(seconds) = now.process.cpu_seconds {
        facts.push(("Processor time", format!("{seconds:.1} s")));
    }
    section(html, "This sidecar", &facts);
}

/// `; 75 packets are in no capture (late 5, long_connection 70)`
fn by_reason(what: &str, reasons: &[(&str, u64)]) -> String {
    let all: u64 = reasons.iter().map(|(_, count)| count).sum();
    if all == 0 {
        return String::new();
    }
    let some = reasons.iter().filter(|(_, count)| *count > 0);
    let some: Vec<String> = some.map(|(reason, count)| format!("{reason} {}", grouped(*count))).collect();
    format!("; {} {what} ({})", grouped(all), some.join(", "))
}

fn section(html: &mut Html, title: &str, facts: &[(&str, String)]) {
    html.within("section", &[], |html| {
        html.element("h2", &[], title);
        html.within("dl", &[("class", "facts")], |html| {
            for (name, text) in facts {
                html.element("dt", &[], name);
                html.element("dd", &[], text);
            }
        });
    });
}

fn list(html: &mut Html, title: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    html.within("section", &[], |html| {
        html.element("h2", &[], title);
        html.within("ul", &[], |html| texts.iter().for_each(|text| html.element("li", &[], text)));
    });
}

fn row_of(html: &mut Html, tag: &'static str, cells: &[&str]) {
    html.within("tr", &[], |html| cells.iter().for_each(|cell| html.element(tag, &[], cell)));
}

fn footer(html: &mut Html, now: &Snapshot) {
    html.within("p", &[], |html| {
        let kernel = now.kernel.as_ref().map_or_else(String::new, |kernel| format!(" on Linux {kernel}"));
        html.text(&format!("portclash {}{kernel}, {} UTC. ", env!("CARGO_PKG_VERSION"), time(now.at)));
        for (path, name) in
            [("metrics", "metrics"), ("incidents", "incidents as JSON"), ("readyz", "readiness")]
        {
            html.element("a", &[("href", path)], name);
        }
    });
}

/// `2022-09-15 19:09:02`
fn time(at: Nanos) -> String {
    let at = jiff::Timestamp::from_nanosecond(at.into());
    at.map_or_else(|_| "an unknown time".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `12.3 MiB`
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
#[path = "status_page_tests.rs"]
mod tests;
