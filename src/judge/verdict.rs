//! The verdict: the first line of the table that matches (`docs/METRICS.md`, section 7).

use crate::config::Policy;
use crate::domain::Reference;

use super::backfill::PLANNED;
use super::checks::DOMINANT_SHARE;
use super::evidence::Evidence;
use super::{Check, CheckCode, CheckSeverity, CheckState, Judgement, Verdict};

/// Decides. Line 1 (an error) never gets here.
pub fn decide(evidence: &Evidence, policy: &Policy, checks: Vec<Check>) -> Judgement {
    let state = |code: CheckCode| {
        checks
            .iter()
            .find(|check| check.code == code)
            .map_or(CheckState::NotTested, |check| check.state)
    };
    let gates = || {
        checks
            .iter()
            .filter(|check| check.severity == CheckSeverity::Gate)
    };
    // Only a gate decides; a waived failure is none any more.
    let failed = |code| gates().any(|check| check.code == code && check.state == CheckState::Fail);
    let can_judge = [CheckCode::AssaySensitivity, CheckCode::QueryIdentities]
        .into_iter()
        .all(|code| state(code) == CheckState::Pass);
    // Nothing is claimed of a probe that cannot judge, or of one identity's queries.
    let is_trusted = can_judge && evidence.dominant_share <= DOMINANT_SHARE;
    let gain_proven = evidence.worth.map(|worth| is_trusted && worth.lower > 0.0);
    let primary = evidence.primary;
    let beta_star = evidence.plan.as_ref().and_then(|plan| plan.beta_star);
    let unplanned: Vec<&str> = gates()
        .filter(|check| !is_planned(check))
        .map(|check| check.code.name())
        .collect();
    let planned = unplanned.is_empty();
    let no_gain = if gain_proven == Some(false) {
        " No gain from the upgrade is proven."
    } else {
        ""
    };

    let (rule, verdict, reason) = if evidence.same_model {
        (
            2,
            Verdict::SkipBackfill,
            "Old and new are the same model with the same preprocessing.".into(),
        )
    } else if failed(CheckCode::Dimensions) {
        let [old, new] = evidence.dims;
        let why = format!(
            "New queries ({new} dimensions) cannot search the old gallery ({old} dimensions)."
        );
        if failed(CheckCode::UpgradeWorth) && is_trusted {
            (
                3,
                Verdict::DoNotUpgrade,
                format!("{why} {}", worse_even_refreshed(evidence)),
            )
        } else {
            (3, Verdict::FullBackfill, format!("{why}{no_gain}"))
        }
    } else if let Some(check) = [CheckCode::AssaySensitivity, CheckCode::QueryIdentities]
        .into_iter()
        .find(|&code| failed(code))
        .and_then(|code| checks.iter().find(|check| check.code == code))
    {
        (
            4,
            Verdict::Inconclusive,
            format!("This probe cannot judge: {}.", check.message),
        )
    } else if failed(CheckCode::UpgradeWorth) {
        (5, Verdict::DoNotUpgrade, worse_even_refreshed(evidence))
    } else if failed(CheckCode::CrossTestChange) {
        let change = evidence
            .change
            .expect("a failed check has an estimate")
            .estimate;
        (
            6,
            Verdict::FullBackfill,
            format!(
                "Searching the old gallery with new queries loses {:.4} {primary} (at least {:.4}), more than the margin.{no_gain}{}",
                -change.value,
                -change.upper,
                match beta_star {
                    Some(beta) if beta < 1.0 => format!(
                        " {} pass from {:.0} % of the gallery re-embedded on.",
                        if planned {
                            "All gates"
                        } else {
                            "The gates that a share of the gallery can change"
                        },
                        100.0 * beta
                    ),
                    _ => unhealed(evidence)
                        .map_or_else(String::new, |unhealed| format!(" {unhealed}")),
                }
            ),
        )
    } else if let Some(check) = gates().find(|check| check.state == CheckState::Fail) {
        let n_failing = gates()
            .filter(|check| check.state == CheckState::Fail)
            .count();
        let failing = match n_failing {
            1 => "one gate fails".to_owned(),
            n => format!("{n} gates fail, the first one"),
        };
        let loss = match state(CheckCode::CrossTestChange) {
            CheckState::Pass => "within the margin",
            CheckState::Fail => "beyond the margin, which only warns here",
            CheckState::Unsettled => "not settled",
            CheckState::NotTested => "not held against the margin",
        };
        let partial = beta_star.filter(|&beta| beta <= policy.max_partial);
        match partial {
            Some(beta) if planned => (
                7,
                Verdict::PartialBackfill,
                format!(
                    "Re-embedding {:.0} % of the gallery is enough for queries that had no part in choosing it; as it is, {failing}: {}.",
                    100.0 * beta,
                    check.message
                ),
            ),
            _ => (
                7,
                Verdict::FullBackfill,
                format!(
                    "The mean loss is {loss}, {} {failing}: {}.{no_gain}{}",
                    if state(CheckCode::CrossTestChange) == CheckState::Pass {
                        "but"
                    } else {
                        "and"
                    },
                    check.message,
                    match unhealed(evidence) {
                        _ if partial.is_some() => format!(
                            " No share of the gallery answers for {}.",
                            unplanned.join(", ")
                        ),
                        Some(unhealed) => format!(" {unhealed}"),
                        None => String::new(),
                    }
                ),
            ),
        }
    } else if let Some(check) = gates().find(|check| check.state == CheckState::Unsettled) {
        let settles = check
            .settles
            .as_deref()
            .unwrap_or("more queries may settle it");
        (
            8,
            Verdict::Inconclusive,
            format!("Not settled: {}; {settles}.", check.message),
        )
    } else {
        let change = evidence.change.map(|change| change.estimate);
        let proof = change.map_or(String::new(), |change| {
            format!(
                " D of {primary} is {:+.4} (at worst {:+.4}).",
                change.value, change.lower
            )
        });
        let gate = if gates().any(|check| check.state == CheckState::NotTested) {
            "Every gate that could be tested"
        } else {
            "Every gate"
        };
        (9, Verdict::SkipBackfill, format!("{gate} passes.{proof}"))
    };
    Judgement {
        verdict,
        rule,
        reason,
        can_judge,
        bct_compatible: is_trusted
            && evidence
                .change
                .is_some_and(|change| change.estimate.lower.min(change.optimistic.lower) > 0.0),
        gain_proven,
        next_steps: next_steps(verdict, rule, &checks, evidence),
        waivers: Vec::new(),
        checks,
    }
}

/// Whether a gate passes, or a plan answers for it: a share of the gallery can change it, and the probe can test it.
///
/// What a share does to a threshold that was set on the old gallery is not tested. Where one gates, no plan answers.
fn is_planned(check: &Check) -> bool {
    let is_threshold = matches!(
        check.code,
        CheckCode::ThresholdFar | CheckCode::ThresholdFrr
    );
    match check.state {
        CheckState::NotTested => true,
        CheckState::Pass => !is_threshold,
        CheckState::Fail | CheckState::Unsettled => {
            PLANNED.contains(&check.code) && check.value.is_some()
        }
    }
}

/// Said where even a full backfill leaves gates that do not pass. Of agreement with the old model nothing is said: a gallery of
/// the new model is not meant to keep it.
fn unhealed(evidence: &Evidence) -> Option<String> {
    let whole = evidence.plan.as_ref()?.steps.first()?;
    let slices = match whole.failing_slices.as_slice() {
        [] => String::new(),
        failing => format!(" ({})", failing.join(", ")),
    };
    let is_said = !whole.passes && evidence.primary.reference == Reference::Labels;
    is_said.then(|| {
        if whole.fails {
            format!("With the whole gallery re-embedded not every gate passes either{slices}.")
        } else {
            format!(
                "That every gate passes with the whole gallery re-embedded is not proven on these queries either{slices}."
            )
        }
    })
}

fn worse_even_refreshed(evidence: &Evidence) -> String {
    let worth = evidence.worth.expect("a failed check has an estimate");
    format!(
        "Even with a full backfill users lose {:.4} {} (at least {:.4}) against today.",
        -worth.value, evidence.primary, -worth.upper
    )
}

fn next_steps(verdict: Verdict, rule: u8, checks: &[Check], evidence: &Evidence) -> Vec<String> {
    let mut steps = steps_after(verdict, rule, checks, evidence);
    if evidence.primary.reference == Reference::OldModel {
        steps.push(
            "Whether the new model is better than the old one takes labels: give identities or judgements of some queries, \
             and audit with another profile."
                .into(),
        );
    }
    steps
}

fn steps_after(verdict: Verdict, rule: u8, checks: &[Check], evidence: &Evidence) -> Vec<String> {
    let gates = checks
        .iter()
        .filter(|check| check.severity == CheckSeverity::Gate);
    match verdict {
        Verdict::SkipBackfill => vec![
            if gates.clone().all(is_planned) {
                "Send new queries to the old gallery; re-embed items as they change."
            } else {
                "Send new queries to the old gallery. What re-embedded items do to its threshold was not tested: before items change, set one for them (the report has that of new->new)."
            }
            .into(),
            "Keep this report with the deployment: it holds for this probe and these two models.".into(),
        ],
        Verdict::PartialBackfill => vec![
            "Re-embed the items that backfill.csv calls needed, its first rows, before new queries search.".into(),
            "Re-embed the rest in the same order when it suits; every later share passed as well.".into(),
        ],
        Verdict::FullBackfill if rule == 3 => vec![
            "Re-embed the whole gallery before new queries search it.".into(),
            "To audit new->old, both models must give one dimension: set `dims` under [new] when the new model is a Matryoshka one, or let `compat-audit adapt` append a head of the old dimension.".into(),
            "The what-if table says what a linear map onto the old space would recover.".into(),
        ],
        Verdict::FullBackfill => [
            Some("Re-embed the whole gallery before new queries search it.".to_owned()),
            unhealed(evidence).map(|unhealed| match &evidence.plan {
                Some(plan) if plan.steps.iter().any(|step| step.beta == 1.0 && step.fails) => {
                    format!("{unhealed} Look first at what is lost by the upgrade itself.")
                }
                _ => format!("{unhealed} More queries may settle it."),
            }),
            Some(
                if evidence.adapted {
                    "Or train the new model itself for compatibility with the old embeddings, and audit again: a head on the frozen model, which this one has, is not enough."
                } else {
                    "Or train the new model for compatibility with the old embeddings and audit again; `compat-audit adapt` tries that with a head on the frozen model."
                }
                .to_owned(),
            ),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Verdict::DoNotUpgrade => vec![
            "Keep the old model: the new one is worse on this probe even on a refreshed gallery.".into(),
            "Check the new model's preprocessing first; a wrong mean and std looks like this.".into(),
        ],
        Verdict::Inconclusive => gates
            .filter_map(|check| Some(format!("{}: {}", check.code, check.settles.as_ref()?)))
            .collect(),
    }
}
