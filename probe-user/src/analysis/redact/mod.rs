//! Takes out of an analysis, and of the packets that belong to it, what names somebody, so that it can be given away.
//!
//! Fields that hold a name get its alias, addresses keep their relations, and of texts only this stays: words of the
//! program's own sentences, numbers, times and aliases. Ports, times and sequence numbers stay: they are the evidence.

mod addresses;
mod incident;
mod names;
mod packet;
mod shape;
mod text;

use addresses::Addresses;
use names::{Kind, Names};
use text::{Texts, Trust};

use super::model::{Analysed, Analysis, InputAccount, Ladder, Moment};
use crate::capture::LinkType;
use crate::diagnosis::incident::Summary;
use crate::kubelet_log::{FailureClass, LineParser, ProbeFailure, Times, YearRule};
use crate::pods::words::probe_type;

/// Replaces names and addresses, each always by the same.
pub struct Redactor {
    addresses: Addresses,
    names: Names,
    texts: Texts,
}

impl Redactor {
    /// With the same key the same addresses are replaced by the same ones; whoever has the key can undo that.
    pub fn new(key: [u8; 32]) -> Self {
        Self { addresses: Addresses::new(&key), names: Names::default(), texts: Texts::new() }
    }

    /// Rewrites all that an analysis holds, and says so in its notes.
    pub fn redact(&mut self, analysis: &mut Analysis) {
        let Analysis { incidents, left_out: _, summary, inputs, clocks, ports: _, notes } = analysis;
        // All names first: texts refer to names of other fields and of other incidents.
        for input in &*inputs {
            self.names.file(&input.name);
        }
        for analysed in &*incidents {
            self.learn(&analysed.incident);
        }
        for input in inputs {
            self.input(input);
        }
        for analysed in incidents {
            self.analysed(analysed);
        }
        self.summary(summary);
        self.all(clocks);
        self.all(notes);
        notes.push(
"Names were replaced by aliases, and addresses by others that share as many leading bits. Words of other programs were \
             replaced or cut too. Ports and times are as they were."
                .to_owned(),
        );
    }

    /// Makes a captured frame safe, and says how many of its bytes are to be kept: payload is cut off. `None`: it
    /// cannot be made safe and must be left out.
    pub fn packet(&mut self, bytes: &mut [u8], link: LinkType) -> Option<usize> {
        packet::rewrite(bytes, link, &mut self.addresses)
    }

    /// What stands for an input's name.
    pub fn file_name(&mut self, name: &str) -> String {
        self.names.file(name)
    }

    /// A text of somebody else: all that is no word of the program's own sentences, no number and no time is replaced.
    pub fn text(&mut self, text: &str) -> String {
        self.texts.rewrite(text, Trust::Outside, &mut self.names, &mut self.addresses)
    }

    fn analysed(&mut self, analysed: &mut Analysed) {
        let Analysed { incident, timeline, ladder, packets: _ } = analysed;
        self.fields(incident);
        for moment in timeline {
            let Moment { at: _, source, text } = moment;
            *text = self.line(text);
            *source = self.text(source);
        }
        let Ladder { parties, arrows } = ladder;
        for party in parties {
            party.title = self.text(&party.title);
            self.maybe(&mut party.address);
        }
        for arrow in arrows {
            arrow.label = self.text(&arrow.label);
            arrow.place = self.text(&arrow.place);
        }
    }

    fn maybe(&mut self, text: &mut Option<String>) {
        if let Some(text) = text {
            *text = self.text(text);
        }
    }

    /// A line of a log: told anew where it is a kubelet's about a probe, because its words are those of a server.
    fn line(&mut self, text: &str) -> String {
        let times = Times { zone: None, year: YearRule::From(1970) };
        let mut parser = LineParser::new("".into(), times);
        let mut found = Vec::new();
        parser.line(text.as_bytes(), None, &mut found);
        parser.flush(&mut found);
        match found.first() {
            Some(failure) => self.failure(failure),
            None => self.text(text),
        }
    }

    fn failure(&mut self, failure: &ProbeFailure) -> String {
        let ProbeFailure { kind, namespace, name, container, target, class, .. } = failure;
        let kind = kind.map_or("probe", probe_type);
        let names = &mut self.names;
        let container = container
            .as_ref()
            .map(|name| format!(" container {}", names.known_or_new(Kind::Container, name)));
        let pod = namespace.as_ref().zip(name.as_ref()).map(|(namespace, name)| {
            let namespace = names.known_or_new(Kind::Namespace, namespace);
            format!(" pod {namespace}/{}", names.known_or_new(Kind::Pod, name))
        });
        let target = target.map(|target| format!(" target {}", self.addresses.socket(target)));
        let parts: String = [pod, container, target].into_iter().flatten().collect();
        format!("Probe failed: {kind}{parts}: {} (line told anew)", class_word(*class))
    }

    fn input(&mut self, input: &mut InputAccount) {
        let InputAccount { schema: _, name, kind, bytes: _, sha256, read, skipped } = input;
        *name = self.names.file(name);
        self.maybe(kind);
        // The checksum of a file tells who has the same one.
        *sha256 = None;
        *read = self.text(read);
        self.all(skipped);
    }

    /// Rewrites a summary.
    pub fn summary(&mut self, summary: &mut Summary) {
        let Summary {
            schema: _,
            verdicts: _,
            connects_seen: _,
            probe_failures_elsewhere: _,
            probe_failures_ambiguous: _,
            lost,
            hooks,
            incomplete,
        } = summary;
        self.all(incomplete);
        let mut new = std::collections::BTreeMap::new();
        for (program, reasons) in std::mem::take(lost) {
            let reasons = reasons.into_iter().map(|(reason, count)| (self.text(&reason), count)).collect();
            new.insert(self.text(&program), reasons);
        }
        *lost = new;
        *hooks = std::mem::take(hooks)
            .into_iter()
            .map(|(need, rung)| (self.text(&need), self.text(&rung)))
            .collect();
    }

    fn all(&mut self, texts: &mut [String]) {
        for text in texts {
            *text = self.text(text);
        }
    }
}

const fn class_word(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Timeout => "timeout",
        FailureClass::Refused => "connection refused",
        FailureClass::Reset => "connection reset",
        FailureClass::Unreachable => "no route",
        FailureClass::OutOfPorts => "no free source port",
        FailureClass::HttpStatus(_) => "the server answered with an error",
        FailureClass::Exec => "a command failed",
        FailureClass::Empty => "no output",
        FailureClass::Cut => "the line is cut off",
        FailureClass::Other => "other",
    }
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "vocabulary_tests.rs"]
mod vocabulary_tests;
