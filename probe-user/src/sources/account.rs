//! What the live source says about itself: how each need is served, what is missing, what was lost.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::live::Live;
use crate::diagnosis::incident::Summary;
use crate::diagnosis::{Diagnosis, NodeFacts};
use crate::ipvs::table::{Protocol, ServiceId};
use crate::kernel::ladder::Need;
use crate::kernel::loader::LoadError;
use crate::node::{ipvs_module, sysctl};

impl Live {
    /// Says that tracing has begun: the table, and what will be missing.
    pub fn opening(&self) -> String {
        let services = match self.tcp_ports().len() {
            1 => "1 TCP service".to_owned(),
            count => format!("{count} TCP services"),
        };
        let mut text = format!("tracing: {services} in network namespace {}; ^C ends it", self.netns().inode);
        if !self.tables.is_file() && !ipvs_module::is_loaded() {
            text.push_str("\nip_vs is not loaded: nothing can collide until it is");
        }
        for (need, hook) in self.tracer().hooks() {
            tracing::info!(
                "{need}: served by {}; refused: {:?}",
                hook.way.unwrap_or("nothing"),
                hook.refused
            );
        }
        for missing in self.unmet() {
            let _ = write!(text, "\nreduced: {missing}");
        }
        text
    }

    fn tcp_ports(&self) -> Vec<u16> {
        let services = self.table().current().services.keys();
        services
            .filter_map(|id| match id {
                ServiceId::Address(Protocol::Tcp, address) => Some(address.port()),
                _ => None,
            })
            .collect()
    }

    /// What advice needs to know about the node's ports.
    pub fn node_facts(&self) -> NodeFacts {
        let sysctls = sysctl::read_of(self.netns()).ok();
        NodeFacts {
            reserved: sysctls.as_ref().and_then(|read| Some(read.reserved_ports.as_ref()?.to_string())),
            local_port_range: sysctls
                .and_then(|read| read.local_port_range)
                .map(|range| (range.first, range.last)),
            node_port_range: None,
            service_ports: self.tcp_ports(),
        }
    }

    /// Needs that no hook serves, or serves less than fully, one sentence each.
    fn unmet(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        let ipvs = ipvs_module::is_loaded();
        for (need, hook) in self.tracer().hooks() {
            if hook.way.is_none() && !excused(*need, ipvs) {
                let reason = hook.why_not();
                sentences.push(format!("{need}: {} ({reason})", need.without()));
            }
            sentences.extend(hook.limit.map(|limit| format!("{need}: {limit}")));
        }
        sentences
    }

    /// Everything that the evidence lacks, one sentence each.
    fn incomplete(
        &self,
        lost: &BTreeMap<String, BTreeMap<String, u64>>,
        diagnosis: &Diagnosis,
    ) -> Vec<String> {
        let mut sentences = self.unmet();
        for (program, reasons) in lost {
            for (reason, count) in reasons.iter().filter(|(reason, _)| concerns(program, reason, diagnosis)) {
                sentences.push(format!("{program}: {count} lost ({reason})"));
            }
        }
        if diagnosis.forgotten() > 0 {
            let forgotten = diagnosis.forgotten();
            sentences.push(format!("{forgotten} connections were concluded early: too many at one time"));
        }
        let unreadable = self.table().current().unreadable.len();
        if unreadable > 0 {
            sentences.push(format!("service table: {unreadable} rows could not be read"));
        }
        sentences.extend(self.table().trouble().map(str::to_owned));
        sentences
    }

    /// The last line of a trace.
    pub fn summary(&self, diagnosis: &Diagnosis) -> Result<Summary, LoadError> {
        let counters = self.counters()?;
        let hooks = self.tracer().hooks().iter();
        Ok(Summary {
            schema: "portclash.summary/v1",
            verdicts: diagnosis.counts().clone(),
            connects_seen: Some(counters.connects),
            probe_failures_elsewhere: None,
            probe_failures_ambiguous: None,
            hooks: hooks
                .map(|(need, hook)| (need.name().into(), hook.way.unwrap_or("none").into()))
                .collect(),
            incomplete: self.incomplete(&counters.lost, diagnosis),
            lost: counters.lost,
        })
    }
}

/// A need that nothing calls for: without IPVS there is no hijack, and polling replaces the triggers, at the price of a
/// delay. `ipvs`: ip_vs is loaded.
pub const fn excused(need: Need, ipvs: bool) -> bool {
    match need {
        Need::TableChange | Need::ModuleChange => true,
        Need::Hijack | Need::NoBackend => !ipvs,
        _ => false,
    }
}

/// Whether what was lost can have hidden something. Runs that the kernel skipped of a program that follows watched
/// connections (see [`crate::kernel::loader`]) cannot, as long as no connection was watched: they concerned others.
fn concerns(program: &str, reason: &str, diagnosis: &Diagnosis) -> bool {
    let begins = [Need::Connect, Need::ConnectEnd].iter().any(|need| need.name() == program);
    reason != "missed" || begins || diagnosis.watched() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Settings;
    use crate::kernel::ladder;
    use crate::observation::{Fact, Observation, Tuple};

    #[test]
    fn no_evidence_is_missed_where_polling_does_or_ip_vs_is_not_loaded() {
        let missed = |ipvs| {
            let all = ladder::LADDER.iter().chain(ladder::PACKETS).map(|(need, _)| *need);
            let mut missed: Vec<_> = all.filter(|need| !excused(*need, ipvs)).map(Need::name).collect();
            missed.sort_unstable();
            missed
        };
        let always = ["connect", "connect_end", "outcome", "packets", "reset"];
        assert_eq!(missed(false), always);
        let mut with_ipvs = [always.as_slice(), &["hijack", "no_backend"]].concat();
        with_ipvs.sort_unstable();
        assert_eq!(missed(true), with_ipvs);
    }

    #[test]
    fn skipped_runs_matter_once_a_connection_is_watched() {
        let mut diagnosis = Diagnosis::new(Settings::default());
        assert!(!concerns("outcome", "missed", &diagnosis));
        assert!(concerns("connect", "missed", &diagnosis));
        assert!(concerns("connect_end", "missed", &diagnosis));
        assert!(concerns("outcome", "ring_full", &diagnosis));
        let local = "10.23.77.129:36704".parse().unwrap();
        let remote = "10.23.77.138:80".parse().unwrap();
        let began = Fact::ConnectBegan {
            tuple: Tuple { local, remote },
            netns: None,
            isn: Some(1),
            socket: Some(1),
            owner: None,
            service: None,
        };
        diagnosis.observe(Observation { at: 1, source: "test".into(), fact: began });
        assert!(concerns("outcome", "missed", &diagnosis));
        diagnosis.finish(2);
        assert!(concerns("outcome", "missed", &diagnosis));
    }
}
