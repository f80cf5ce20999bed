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
mod tests {
    use super::evidence::Assay;
    use super::outcomes::{Change, Flip, Flips};
    use super::*;
    use crate::domain::{IntervalMethod, Measure};

    fn estimate(lower: f64, value: f64, upper: f64) -> Estimate {
        Estimate {
            value,
            lower,
            upper,
            level: 0.9,
            standard_error: (upper - lower) / 3.29,
            method: IntervalMethod::BcaByIdentity,
        }
    }

    fn change(lower: f64, value: f64, upper: f64) -> Option<Change> {
        let estimate = estimate(lower, value, upper);
        Some(Change {
            estimate,
            optimistic: estimate,
            identity_weighted: value,
            resolvable_margin: 0.01,
        })
    }

    fn flips(negative: Estimate, excess: Option<Estimate>) -> Option<Flips> {
        let none = Flip {
            old_old: true,
            after: true,
            new_new: None,
        };
        Some(Flips {
            per_query: vec![none; 300],
            negative,
            positive: negative,
            excess,
            asymmetry_p: 1.0,
        })
    }

    fn judged(evidence: &Evidence) -> Judgement {
        judge(evidence, &Policy::default(), Date::of_unix_day(0))
    }

    /// Everything passes.
    fn passing() -> Evidence {
        let few = estimate(0.0, 0.01, 0.02);
        Evidence {
            primary: Measure::MeanAveragePrecision,
            n_queries: 300,
            n_query_identities: 100,
            dominant_share: 0.01,
            dims: [64, 64],
            same_model: false,
            assay: Assay {
                old_old: estimate(0.5, 0.55, 0.6),
                shuffled: 0.02,
                permutations: 200,
                p_value: 1.0 / 201.0,
                largest_margin: 0.096,
                blind_share: 0.03,
            },
            change: change(0.001, 0.01, 0.02),
            worth: Some(estimate(0.02, 0.05, 0.08)),
            gain: None,
            flips: flips(few, Some(few)),
            slice_columns: Vec::new(),
            slices: None,
            untestable_traffic: Vec::new(),
            refresh: None,
            plan: None,
            change_without_least_credible: None,
        }
    }

    fn verdict(edit: impl FnOnce(&mut Evidence)) -> (u8, Verdict) {
        let mut evidence = passing();
        edit(&mut evidence);
        let judgement = judged(&evidence);
        (judgement.rule, judgement.verdict)
    }

    const LOSS: Estimate = Estimate {
        value: -0.2,
        lower: -0.25,
        upper: -0.15,
        level: 0.9,
        standard_error: 0.03,
        method: IntervalMethod::BcaByIdentity,
    };

    #[test]
    fn each_line_of_the_table_matches_alone() {
        use Verdict::*;
        assert_eq!(verdict(|_| ()), (9, SkipBackfill));
        assert_eq!(verdict(|e| e.same_model = true), (2, SkipBackfill));
        assert_eq!(
            verdict(|e| (e.dims, e.change, e.flips) = ([64, 32], None, None)),
            (3, FullBackfill)
        );
        assert_eq!(
            verdict(|e| (e.dims, e.worth) = ([64, 32], Some(LOSS))),
            (3, DoNotUpgrade)
        );
        assert_eq!(verdict(|e| e.assay.p_value = 0.3), (4, Inconclusive));
        assert_eq!(
            verdict(|e| e.assay.largest_margin = 0.005),
            (4, Inconclusive)
        );
        assert_eq!(verdict(|e| e.n_query_identities = 19), (4, Inconclusive));
        assert_eq!(verdict(|e| e.worth = Some(LOSS)), (5, DoNotUpgrade));
        assert_eq!(
            verdict(|e| e.change = change(-0.3, -0.2, -0.1)),
            (6, FullBackfill)
        );
        let many = estimate(0.06, 0.08, 0.1);
        assert_eq!(
            verdict(|e| e.flips = flips(many, Some(many))),
            (7, FullBackfill)
        );
        assert_eq!(
            verdict(|e| e.change = change(-0.02, 0.0, 0.02)),
            (8, Inconclusive)
        );
    }

    #[test]
    fn the_first_line_that_matches_wins() {
        use Verdict::*;
        // A probe that cannot judge must not call anything a failure.
        assert_eq!(
            verdict(|e| (e.assay.p_value, e.worth) = (0.3, Some(LOSS))),
            (4, Inconclusive)
        );
        assert_eq!(
            verdict(|e| (e.worth, e.change) = (Some(LOSS), change(-0.3, -0.2, -0.1))),
            (5, DoNotUpgrade)
        );
        // A failed gate outranks an unsettled one.
        let many = estimate(0.06, 0.08, 0.1);
        let both = |e: &mut Evidence| {
            e.change = change(-0.02, 0.0, 0.02);
            e.flips = flips(many, Some(many));
        };
        assert_eq!(verdict(both), (7, FullBackfill));
    }

    #[test]
    fn a_bound_on_the_limit_settles_nothing() {
        let at = |lower: f64, upper: f64| {
            checks::state(
                &estimate(lower, (lower + upper) / 2.0, upper),
                -0.01,
                SafeSide::Above,
            )
        };
        assert_eq!(at(-0.01, 0.0), CheckState::Unsettled);
        assert_eq!(at(-0.02, -0.01), CheckState::Unsettled);
        assert_eq!(at(-0.009, 0.0), CheckState::Pass);
        assert_eq!(at(-0.02, -0.011), CheckState::Fail);
    }

    #[test]
    fn ties_that_decide_leave_the_change_unsettled() {
        let tied = |e: &mut Evidence| {
            let mut both = change(-0.3, -0.2, -0.1).expect("some");
            both.optimistic = estimate(0.0, 0.01, 0.02);
            e.change = Some(both);
        };
        assert_eq!(verdict(tied), (8, Verdict::Inconclusive));
    }

    #[test]
    fn one_identity_with_many_queries_leaves_it_unsettled() {
        assert_eq!(
            verdict(|e| e.dominant_share = 0.11),
            (8, Verdict::Inconclusive)
        );
        assert_eq!(
            verdict(|e| e.dominant_share = 0.10),
            (9, Verdict::SkipBackfill)
        );
    }

    #[test]
    fn without_new_new_the_negative_flips_gate() {
        let many = estimate(0.06, 0.08, 0.1);
        let gone =
            |negative| move |e: &mut Evidence| (e.worth, e.flips) = (None, flips(negative, None));
        assert_eq!(verdict(gone(many)), (7, Verdict::FullBackfill));
        assert_eq!(
            verdict(gone(estimate(0.0, 0.01, 0.02))),
            (9, Verdict::SkipBackfill)
        );
        // With new->new they only warn.
        let warns = |e: &mut Evidence| e.flips = flips(many, Some(estimate(0.0, 0.01, 0.02)));
        assert_eq!(verdict(warns), (9, Verdict::SkipBackfill));
    }

    #[test]
    fn no_gain_is_said_when_none_is_proven() {
        let mut evidence = passing();
        evidence.change = change(-0.3, -0.2, -0.1);
        let with_gain = judged(&evidence);
        assert!(
            !with_gain.reason.contains("No gain"),
            "{}",
            with_gain.reason
        );
        evidence.worth = Some(estimate(-0.005, 0.0, 0.005));
        let without = judged(&evidence);
        assert!(without.reason.contains("No gain"), "{}", without.reason);
        assert_eq!(without.gain_proven, Some(false));
    }

    #[test]
    fn an_unsettled_verdict_says_what_is_missing() {
        let mut evidence = passing();
        evidence.change = change(-0.02, 0.0, 0.02);
        let judgement = judged(&evidence);
        assert!(
            judgement
                .next_steps
                .iter()
                .any(|step| step.contains("query identities"))
        );
        assert!(judgement.reason.contains("cross") || judgement.reason.contains("D = "));
    }
}
