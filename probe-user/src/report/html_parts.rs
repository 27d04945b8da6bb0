//! The closing sections of the page: clocks and notes, inputs, glossary.

use super::html_build::Html;
use super::html_incident::head;
use super::text::grouped;
use crate::analysis::model::{Analysis, InputAccount};

/// The words of this project and what they mean.
const WORDS: [(&str, &str); 11] = [
    (
        "IPVS",
        "the part of the Linux kernel that spreads the traffic of Kubernetes Services over their pods (kube-proxy in mode ipvs)",
    ),
    ("service", "an address and port that IPVS answers for; a NodePort is one on every address of the node"),
    ("backend", "a pod that IPVS sends the traffic of a service to"),
    ("connection", "one connect made on this node, from a local address and port to a remote one"),
    (
        "source port",
        "the local port of a connection; the kernel chooses it from the local port range unless the program does",
    ),
    ("collision", "a connection whose own address and source port are a service"),
    (
        "hijack",
        "IPVS hands the reply to such a connection (the SYN-ACK) to a backend, as if it were a new connection",
    ),
    ("reset", "the RST that the backend answers with, because it knows nothing of the connection"),
    ("owner", "the process that made the connection"),
    ("probe", "a health check of a container that the kubelet makes: liveness, readiness or startup"),
    (
        "evidence",
        "one fact from one source: a packet, a row of a table, a line of a log, a hook in the kernel",
    ),
];

pub(super) fn glossary(html: &mut Html) {
    html.within("section", &[("id", "words")], |html| {
        html.element("h2", &[], "Words");
        html.within("dl", &[("class", "facts")], |html| {
            for (word, meaning) in WORDS {
                html.element("dt", &[], word);
                html.element("dd", &[], meaning);
            }
        });
    });
}

pub(super) fn clocks_and_notes(html: &mut Html, analysis: &Analysis) {
    list(html, "Clocks", &analysis.clocks);
    list(html, "Notes", &analysis.notes);
    let summary = &analysis.summary;
    let mut lacks = summary.incomplete.clone();
    for (program, reasons) in &summary.lost {
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, count)| format!("{} ({reason})", grouped(*count))).collect();
        lacks.push(format!("Lost at {program}: {}.", reasons.join(", ")));
    }
    list(html, "What the evidence lacks", &lacks);
}

fn list(html: &mut Html, title: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    html.within("section", &[], |html| {
        html.element("h2", &[], title);
        html.within("ul", &[], |html| {
            for text in texts {
                html.element("li", &[], text);
            }
        });
    });
}

pub(super) fn inputs(html: &mut Html, inputs: &[InputAccount]) {
    if inputs.is_empty() {
        return;
    }
    html.within("section", &[("id", "inputs")], |html| {
        html.element("h2", &[], "Inputs");
        html.within("div", &[("class", "scroll")], |html| {
            html.within("table", &[("class", "stack")], |html| {
                head(html, &[("Name", ""), ("Taken for", ""), ("Read", ""), ("Size and SHA-256", "")]);
                html.within("tbody", &[], |html| inputs.iter().for_each(|input| row(html, input)));
            });
        });
    });
}

fn row(html: &mut Html, input: &InputAccount) {
    let InputAccount { schema: _, name, kind, bytes, sha256, read, skipped } = input;
    html.within("tr", &[], |html| {
        html.element("th", &[("scope", "row")], name);
        match kind {
            Some(kind) => html.element("td", &[], kind),
            None => html.element("td", &[("class", "warn")], "not recognised"),
        }
        html.within("td", &[], |html| {
            html.text(read);
            for text in skipped {
                let label = if kind.is_some() { "Note" } else { "Skipped" };
                html.within("div", &[("class", "warn")], |html| html.text(&format!("{label}: {text}")));
            }
        });
        let size = bytes
            .map_or_else(|| "not read to its end".to_owned(), |bytes| format!("{} bytes", grouped(bytes)));
        html.within("td", &[("class", "hash mono")], |html| {
            html.text(&size);
            if let Some(hash) = sha256 {
                html.literal("<br>");
                html.text(hash);
            }
        });
    });
}
