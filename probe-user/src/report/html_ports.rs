//! The port map: which service ports the node may choose as source ports.

use super::html_build::Html;
use super::port_facts::{Lane, PortFacts};
use crate::analysis::model::Analysis;

const WIDTH: f64 = 880.0;
const LANE: f64 = 44.0;
/// Marks that a lane draws; more would be a solid bar.
const MAX_MARKS: usize = 2000;

/// The section, if the inputs tell of ports.
pub(super) fn port_section(html: &mut Html, analysis: &Analysis) {
    let Some(ports) = &analysis.ports else { return };
    let facts = PortFacts::of(ports, analysis);
    html.within("section", &[("id", "ports")], |html| {
        html.element("h2", &[], "Ports of the node");
        for text in &facts.sentences {
            html.element("p", &[], text);
        }
        html.within("figure", &[], |html| {
            html.within(
                "div",
                &[("class", "scroll"), ("tabindex", "0"), ("role", "group"), ("aria-label", "Port map")],
                |html| {
                    drawing(html, &facts.lanes);
                },
            );
            html.element("figcaption", &[], "All ports from 0 to 65535, from left to right.");
        });
        html.within("ul", &[], |html| {
            for lane in &facts.lanes {
                html.element("li", &[], &lane.long);
            }
        });
    });
}

fn drawing(html: &mut Html, lanes: &[Lane]) {
    let height = LANE * f64::from(u32::try_from(lanes.len()).unwrap_or(0)) + 26.0;
    let view = format!("0 0 {WIDTH} {height}");
    let attributes = [
        ("viewBox", view.as_str()),
        ("role", "img"),
        ("aria-labelledby", "ports-title ports-text"),
        ("font-family", "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif"),
        ("font-size", "13"),
        ("fill", "currentColor"),
    ];
    html.within("svg", &attributes, |html| {
        html.element("title", &[("id", "ports-title")], "Port map");
        let words: Vec<&str> = lanes.iter().map(|lane| lane.long.as_str()).collect();
        html.element("desc", &[("id", "ports-text")], &words.join("; "));
        let mut y = 0.0;
        for lane in lanes {
            draw(html, lane, y);
            y += LANE;
        }
        axis(html, y);
    });
}

fn draw(html: &mut Html, lane: &Lane, y: f64) {
    let attributes = [("x", "0".to_owned()), ("y", number(y + 14.0))];
    text(html, &attributes, lane.short);
    let track = rect(0.0, WIDTH, y + 20.0);
    element(html, "rect", &track, &[("fill", "none"), ("stroke", "var(--line, #b8bfc7)")]);
    let colour = match lane.class {
        "hit" => "var(--bad, #c22328)",
        "nodeports" => "var(--node, #6a4fc0)",
        "reserved" => "var(--good, #1c6b36)",
        _ => "currentColor",
    };
    for (first, last) in lane.ports.ranges().iter().take(MAX_MARKS) {
        let (from, to) = (x(f64::from(*first)), x(f64::from(*last) + 1.0));
        // A single port would be a hair's breadth.
        let width = (to - from).max(if lane.class == "hit" { 4.0 } else { 2.0 });
        element(html, "rect", &rect(from, width, y + 20.0), &[("fill", colour)]);
    }
    if lane.class == "hit" {
        for (first, _) in lane.ports.ranges().iter().take(8) {
            let middle = x(f64::from(*first)) + 2.0;
            let end = middle > WIDTH - 60.0;
            let place = if end { middle - 8.0 } else { middle + 8.0 };
            let attributes = [("x", number(place)), ("y", number(y + 33.0))];
            let anchor = if end { "end" } else { "start" };
            let mut all: Vec<(&'static str, &str)> =
                attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
            all.extend([("text-anchor", anchor), ("fill", colour), ("font-weight", "700")]);
            html.element("text", &all, &first.to_string());
        }
    }
}

fn axis(html: &mut Html, y: f64) {
    for port in [0_u16, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 65_535] {
        let anchor = match port {
            0 => "start",
            65_535 => "end",
            _ => "middle",
        };
        // The last but one would touch the last.
        if port == 60_000 {
            continue;
        }
        let attributes =
            [("x", number(x(f64::from(port)))), ("y", number(y + 16.0)), ("text-anchor", anchor.to_owned())];
        text(html, &attributes, &port.to_string());
    }
}

fn x(port: f64) -> f64 {
    port * WIDTH / 65536.0
}

fn rect(x: f64, width: f64, y: f64) -> [(&'static str, String); 4] {
    [("x", number(x)), ("y", number(y)), ("width", number(width)), ("height", "18".to_owned())]
}

fn element(
    html: &mut Html,
    tag: &'static str,
    place: &[(&'static str, String)],
    more: &[(&'static str, &str)],
) {
    let mut all: Vec<(&'static str, &str)> =
        place.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.extend_from_slice(more);
    html.element(tag, &all, "");
}

fn text(html: &mut Html, attributes: &[(&'static str, String)], words: &str) {
    let all: Vec<(&'static str, &str)> =
        attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
    html.element("text", &all, words);
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}
