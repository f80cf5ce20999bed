//! Stage 5: evidence and policy become a verdict.

pub mod backfill;
pub mod checks;
pub mod evidence;
pub mod outcomes;
pub mod slices;
pub mod verdict;
pub mod waivers;

use serde::{Deserialize, Serialize};

use crate::config::Policy;
use crate::domain::{Date, Estimate};

pub use crate::domain::{CheckCode, CheckSeverity};

use evidence::Evidence;

/// Holds the evidence against the policy; `today` decides which waivers still hold.
pub fn judge(evidence: &Evidence, policy: &Policy, today: Date) -> Judgement {
    let mut checks = checks::run(evidence, policy);
    let waivers = waivers::apply(&mut checks, evidence, policy, today);
    Judgement {
        waivers,
        ..verdict::decide(evidence, policy, checks)
    }
}

/// The verdict and everything it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The answer.
    pub verdict: Verdict,
    /// The line of the verdict's table that matched, 2 to 9.
    pub rule: u8,
    /// One sentence.
    pub reason: String,
    /// The probe can tell a working model from a shuffled one, and has query identities enough.
    pub can_judge: bool,
    /// D > 0 proven.
    pub bct_compatible: bool,
    /// W > 0 proven; `None` when not tested.
    pub gain_proven: Option<bool>,
    /// What to do next.
    pub next_steps: Vec<String>,
    /// The checks that were run.
    pub checks: Vec<Check>,
    /// What became of each waiver of the policy, in its order.
    pub waivers: Vec<waivers::WaiverUse>,
}

/// The answer. `main` alone maps it to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// New queries may search the old gallery as it is.
    SkipBackfill,
    /// A named part of the gallery must be re-embedded first.
    PartialBackfill,
    /// The whole gallery must be re-embedded first.
    FullBackfill,
    /// Even with a full backfill users would be worse off than today.
    DoNotUpgrade,
    /// This probe cannot tell.
    Inconclusive,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::SkipBackfill => "skip-backfill",
            Verdict::PartialBackfill => "partial-backfill",
            Verdict::FullBackfill => "full-backfill",
            Verdict::DoNotUpgrade => "do-not-upgrade",
            Verdict::Inconclusive => "inconclusive",
        })
    }
}

/// Outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// The bound is on the safe side of the limit.
    Pass,
    /// The other bound is on the bad side of the limit.
    Fail,
    /// The interval holds the limit, or something forbids a decision.
    Unsettled,
    /// The evidence does not exist in this audit.
    NotTested,
}

/// On which side of the limit the value is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SafeSide {
    /// Safe when the lower end is above the limit.
    Above,
    /// Safe when the upper end is below the limit.
    Below,
}

/// One check with everything needed to read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Check {
    /// Stable code.
    pub code: CheckCode,
    /// Gate or warning.
    pub severity: CheckSeverity,
    /// Outcome.
    pub state: CheckState,
    /// The number that was tested, with its interval.
    pub estimate: Option<Estimate>,
    /// A plain count or value for checks without an interval.
    pub value: Option<f64>,
    /// The limit it was held against.
    pub limit: Option<f64>,
    /// On which side of the limit is safe.
    pub safe_side: SafeSide,
    /// One sentence: value, bound, limit.
    pub message: String,
    /// What would settle it, when unsettled.
    pub settles: Option<String>,
    /// Why a failure only warns, when a waiver holds it.
    pub waived: Option<String>,
}

#[cfg(test)]
mod tests;
