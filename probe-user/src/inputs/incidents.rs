//! Reads back what `portclash trace`, `analyze` and `serve` wrote as JSON: one object a line, each with its schema.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::lines;
use crate::diagnosis::incident::{
    Advice, Confidence, Connection, Evidence, Hijack, Incident, LogLine, Outcome, OwnerInfo, Probe,
    ResetInfo, ServiceInfo, Summary, Verdict,
};
use crate::ipvs::rows::RowLog;
use crate::ipvs::table::Unreadable;

/// Longest object that is read.
const MAX_LINE: usize = 4 << 20;
/// Schemas that are told apart in the account.
const MAX_SCHEMAS: usize = 32;
const INCIDENT: &str = "portclash.incident/v1";
const SUMMARY: &str = "portclash.summary/v1";

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// `portclash.incident/v1`
    Incident(Box<Incident>),
    /// `portclash.summary/v1`
    Summary(Box<Summary>),
}

/// What a file was found to be, after it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Lines.
    pub lines: u64,
    /// Incidents handed out.
    pub incidents: u64,
    /// Summaries handed out.
    pub summaries: u64,
    /// Objects of other schemas or versions, which this version of the program does not read: how many of each.
    pub others: BTreeMap<String, u64>,
    /// Lines that could not be read, the first of them.
    pub unreadable: Vec<Unreadable>,
    /// Why the rest was not read.
    pub cut: Option<String>,
}

/// Reads a file to its end and hands every incident and summary to `sink`.
pub fn read(input: impl Read, sink: &mut dyn FnMut(Record)) -> Account {
    let mut account = Account::default();
    let mut log = RowLog::default();
    let (count, end) = lines::for_each_up_to(MAX_LINE, input, &mut |line, bytes| {
        if bytes.trim_ascii().is_empty() {
            return;
        }
        match record(bytes) {
            Ok(Ok(record)) => {
                match record {
                    Record::Incident(_) => account.incidents += 1,
                    Record::Summary(_) => account.summaries += 1,
                }
                sink(record);
            }
            Ok(Err(schema)) => {
                let known = account.others.len() < MAX_SCHEMAS || account.others.contains_key(&schema);
                let name = if known { schema } else { "other schemas".to_owned() };
                *account.others.entry(name).or_default() += 1;
            }
            Err(error) => log.push(lines::row_number(line), bytes, error.to_string()),
        }
    });
    account.lines = count;
    account.unreadable = log.finish();
    account.cut = end.err().map(|error| format!("reading failed after line {count}: {error}"));
    account
}

/// The object of a line, or the schema that it has instead.
fn record(bytes: &[u8]) -> serde_json::Result<Result<Record, String>> {
    #[derive(Deserialize)]
    struct Named {
        schema: String,
    }
    let Named { schema } = serde_json::from_slice(bytes)?;
    Ok(match schema.as_str() {
        INCIDENT => Ok(Record::Incident(Box::new(serde_json::from_slice::<ReadIncident>(bytes)?.into()))),
        SUMMARY => Ok(Record::Summary(Box::new(serde_json::from_slice::<ReadSummary>(bytes)?.into()))),
        _ => Err(schema.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()),
    })
}

/// [`Incident`] without its schema, which is known by then.
#[derive(Deserialize)]
struct ReadIncident {
    id: String,
    verdict: Verdict,
    outcome: Outcome,
    confidence: Confidence,
    started_at: String,
    duration_ms: Option<u64>,
    connection: Connection,
    service: Option<ServiceInfo>,
    owner: OwnerInfo,
    probe: Option<Probe>,
    hijack: Option<Hijack>,
    resets: Vec<ResetInfo>,
    log_lines: Vec<LogLine>,
    evidence: Vec<Evidence>,
    advice: Vec<Advice>,
}

impl From<ReadIncident> for Incident {
    fn from(read: ReadIncident) -> Self {
        let ReadIncident {
            id,
            verdict,
            outcome,
            confidence,
            started_at,
            duration_ms,
            connection,
            service,
            ..
        } = read;
        let ReadIncident { owner, probe, hijack, resets, log_lines, evidence, advice, .. } = read;
        Self {
            schema: INCIDENT,
            id,
            verdict,
            outcome,
            confidence,
            started_at,
            duration_ms,
            connection,
            service,
            owner,
            probe,
            hijack,
            resets,
            log_lines,
            evidence,
            advice: advice.into(),
        }
    }
}

/// [`Summary`] without its schema.
#[derive(Deserialize)]
struct ReadSummary {
    verdicts: BTreeMap<Verdict, u64>,
    connects_seen: Option<u64>,
    probe_failures_elsewhere: Option<u64>,
    probe_failures_ambiguous: Option<u64>,
    lost: BTreeMap<String, BTreeMap<String, u64>>,
    hooks: BTreeMap<String, String>,
    incomplete: Vec<String>,
}

impl From<ReadSummary> for Summary {
    fn from(read: ReadSummary) -> Self {
        let ReadSummary { verdicts, connects_seen, probe_failures_elsewhere, .. } = read;
        let ReadSummary { probe_failures_ambiguous, lost, hooks, incomplete, .. } = read;
        Self {
            schema: SUMMARY,
            verdicts,
            connects_seen,
            probe_failures_elsewhere,
            probe_failures_ambiguous,
            lost,
            hooks,
            incomplete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn read_all(text: &str) -> (Vec<Record>, Account) {
        let mut records = Vec::new();
        let account = read(text.as_bytes(), &mut |record| records.push(record));
        (records, account)
    }

    #[test]
    fn what_was_written_is_read_back_the_same() {
        let (incident, summary) = (samples::hijacked(), samples::summary());
        let first = serde_json::to_string(&incident).unwrap();
        let text = format!("{first}\n\n{}\n", serde_json::to_string(&summary).unwrap());
        let (records, account) = read_all(&text);
        assert_eq!((account.incidents, account.summaries, account.unreadable.len()), (1, 1, 0));
        assert_eq!(records, [Record::Incident(Box::new(incident)), Record::Summary(Box::new(summary))]);
    }

    #[test]
    fn other_versions_are_said_and_broken_lines_hide_no_others() {
        let incident = serde_json::to_string(&samples::hijacked()).unwrap();
        let text = format!(
            "{}\n{{\"schema\":\"portclash.check/v1\"}}\n{}\n{{\"schema\":\"portclash.incident/v1\"}}\n{incident}\n[]\n",
            incident.replace("incident/v1", "incident/v2"),
            &incident[..100],
        );
        let (records, account) = read_all(&text);
        assert_eq!((records.len(), account.incidents), (1, 1));
        let others: Vec<_> = account.others.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(others, [("portclash.check/v1", 1), ("portclash.incident/v2", 1)]);
        assert_eq!(account.unreadable.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4, 6]);
    }
}
