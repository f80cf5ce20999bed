//! Stage 5: evidence and policy become a verdict.

pub mod checks;
pub mod evidence;
pub mod verdict;

use serde::{Deserialize, Serialize};

use crate::config::Policy;
use crate::domain::Estimate;

use evidence::Evidence;

/// Holds the evidence against the policy.
pub fn judge(evidence: &Evidence, policy: &Policy) -> Judgement {
    verdict::decide(evidence, checks::run(evidence, policy))
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
    /// D > 0 proven.
    pub bct_compatible: bool,
    /// W > 0 proven; `None` when not tested.
    pub gain_proven: Option<bool>,
    /// What to do next.
    pub next_steps: Vec<String>,
    /// The checks.
    pub checks: Vec<Check>,
}

/// The answer. `main` alone maps it to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// New queries may search the old gallery as it is.
    SkipBackfill,
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
            Verdict::FullBackfill => "full-backfill",
            Verdict::DoNotUpgrade => "do-not-upgrade",
            Verdict::Inconclusive => "inconclusive",
        })
    }
}

/// Outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// Whether a check can decide the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckSeverity {
    /// Must pass for skip-backfill.
    Gate,
    /// Shown, does not decide.
    Warn,
}

/// Stable names of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckCode {
    /// The probe tells a working model from shuffled labels.
    AssaySensitivity,
    /// There are enough query identities for an interval.
    QueryIdentities,
    /// Old and new embeddings have the same dimension.
    Dimensions,
    /// W = M(new->new) - M(old->old).
    UpgradeWorth,
    /// D = M(new->old) - M(old->old).
    CrossTestChange,
    /// Share of queries right under old->old and new->new, wrong under new->old.
    ExcessFlips,
    /// Share of queries right under old->old, wrong under new->old.
    NegativeFlips,
}

/// On which side of the limit the value is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SafeSide {
    /// Safe when the lower end is above the limit.
    Above,
    /// Safe when the upper end is below the limit.
    Below,
}

/// One check with everything needed to read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
}
