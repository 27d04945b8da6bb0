//! What this kernel, these privileges and this node allow, and what is missing: the data of `portclash doctor`.
//!
//! [`environment`] reads, [`trial`] loads and attaches everything for a moment, [`findings`] and [`needs`] judge both
//! (pure). The result is plain data, rendered by [`crate::report::doctor`].

pub mod environment;
pub mod findings;
pub mod needs;
mod settings;
pub mod trial;

use schemars::JsonSchema;
use serde::Serialize;

use environment::Environment;
use trial::Trial;

use crate::kernel::ladder::Hooks;

/// How far something serves tracing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Tracing works with less evidence.
    Reduced,
    /// Not there. As the status of the whole: nothing can be traced.
    Missing,
}

/// Part of the machine that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// The kernel and what it lets programs do.
    Kernel,
    /// Capabilities of this process.
    Privileges,
    /// Namespaces, ports.
    Node,
    /// IPVS and its settings.
    Ipvs,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// Part of the machine.
    pub area: Area,
    /// What was looked at.
    pub name: String,
    /// What was found; `null` = not known.
    pub value: Option<String>,
    /// How far it serves tracing.
    pub status: Status,
    /// Why it matters.
    pub why: String,
    /// How to get it; `null` where nothing is to be done.
    pub get: Option<String>,
}

/// A better way to meet a need that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Refusal {
    /// Name of the way.
    pub way: String,
    /// Why not.
    pub why: String,
}

/// How one need of tracing would be met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NeedReport {
    /// Name of the need, as in the trace's summary.
    pub need: String,
    /// How far it is met.
    pub status: Status,
    /// What it is for.
    pub purpose: String,
    /// The way that serves it; `null` = none.
    pub way: Option<String>,
    /// What this way cannot see, or what is lost without any; `null` = nothing.
    pub limit: Option<String>,
    /// Better ways, and why they cannot be used here.
    pub refused: Vec<Refusal>,
    /// How to get more; `null` where nothing is to be done.
    pub get: Option<String>,
}

/// `portclash.doctor/v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Doctor {
    /// `portclash.doctor/v1`
    pub schema: &'static str,
    /// Version of portclash.
    pub version: String,
    /// The whole: `ok` everything is traced, `reduced` with less evidence, `missing` nothing can be traced.
    pub status: Status,
    /// Why nothing can be traced; `null` if something can.
    pub failure: Option<String>,
    /// Which hooks were allowed (`--hooks`).
    pub hooks: String,
    /// Every need of tracing.
    pub needs: Vec<NeedReport>,
    /// Everything else that was looked at.
    pub findings: Vec<Finding>,
}

/// Judges what was read and tried.
pub fn judge(environment: &Environment, trial: &Trial) -> Doctor {
    let needs = needs::all(environment, trial);
    let findings = findings::all(environment, trial);
    let failure = trial.failure().map(str::to_owned);
    let worst =
        needs.iter().map(|need| need.status).chain(findings.iter().map(|finding| finding.status)).max();
    let status = match (&failure, worst) {
        (Some(_), _) => Status::Missing,
        (None, None | Some(Status::Ok)) => Status::Ok,
        (None, Some(_)) => Status::Reduced,
    };
    Doctor {
        schema: "portclash.doctor/v1",
        version: env!("CARGO_PKG_VERSION").to_owned(),
        status,
        failure,
        hooks: hooks_word(trial.hooks_allowed).to_owned(),
        needs,
        findings,
    }
}

const fn hooks_word(hooks: Hooks) -> &'static str {
    match hooks {
        Hooks::Auto => "auto",
        Hooks::Fentry => "fentry",
        Hooks::Kprobe => "kprobe",
        Hooks::Stable => "stable",
    }
}

#[cfg(test)]
pub(crate) mod samples;
