//! Each check: value, interval, limit, state.

use crate::config::Policy;
use crate::domain::Estimate;
use crate::stats;

use super::evidence::Evidence;
use super::{Check, CheckCode, CheckSeverity, CheckState, SafeSide};

/// Largest p-value of the label permutation test at which the probe can judge; 1/201 is the smallest possible.
const ASSAY_P: f64 = 0.005;

/// Query identities below which no interval is trusted.
pub const MIN_QUERY_IDENTITIES: usize = 20;

/// Share of the queries above which one identity leaves the clustered checks unsettled.
pub const DOMINANT_SHARE: f64 = 0.10;

/// All checks, in the order of the verdict's table.
pub fn run(evidence: &Evidence, policy: &Policy) -> Vec<Check> {
    let mut checks = vec![
        dimensions(evidence),
        assay(evidence, policy),
        query_identities(evidence),
        upgrade_worth(evidence, policy),
        cross_test_change(evidence, policy),
        excess_flips(evidence, policy),
        negative_flips(evidence, policy),
    ];
    if evidence.dominant_share > DOMINANT_SHARE {
        for check in &mut checks {
            if check.estimate.is_some() && check.state != CheckState::NotTested {
                check.state = CheckState::Unsettled;
                check.settles = Some(format!(
                    "one identity holds {:.0} % of the queries (at most {:.0} %); add queries of other identities",
                    100.0 * evidence.dominant_share,
                    100.0 * DOMINANT_SHARE
                ));
            }
        }
    }
    checks
}

/// pass iff the bound towards the limit is on the safe side, fail iff the other bound is on the bad side.
///
/// Bounds that touch the limit settle nothing.
pub fn state(estimate: &Estimate, limit: f64, safe: SafeSide) -> CheckState {
    let (safe_bound_clears, other_bound_fails) = match safe {
        SafeSide::Above => (estimate.lower > limit, estimate.upper < limit),
        SafeSide::Below => (estimate.upper < limit, estimate.lower > limit),
    };
    match (safe_bound_clears, other_bound_fails) {
        (true, _) => CheckState::Pass,
        (_, true) => CheckState::Fail,
        _ => CheckState::Unsettled,
    }
}

fn dimensions(evidence: &Evidence) -> Check {
    let [old, new] = evidence.dims;
    Check {
        code: CheckCode::Dimensions,
        severity: CheckSeverity::Gate,
        state: if old == new {
            CheckState::Pass
        } else {
            CheckState::Fail
        },
        estimate: None,
        value: Some(new as f64),
        limit: Some(old as f64),
        safe_side: SafeSide::Above,
        message: if old == new {
            format!("both models give {old} dimensions")
        } else {
            format!(
                "the old model gives {old} dimensions, the new one {new}: new queries cannot be compared with old gallery embeddings"
            )
        },
        settles: None,
    }
}

fn assay(evidence: &Evidence, policy: &Policy) -> Check {
    let assay = &evidence.assay;
    let told_apart = assay.p_value <= ASSAY_P;
    let fine_enough = policy.margin <= assay.largest_margin;
    let message = if !told_apart {
        format!(
            "old->old mAP {:.4} is not told from shuffled labels ({:.4}, p = {:.3}): these labels or this model say nothing",
            assay.old_old.value, assay.shuffled, assay.p_value
        )
    } else if !fine_enough {
        format!(
            "old->old mAP {:.4} is so near shuffled labels ({:.4}) that a margin of {} could hide the loss of everything; largest margin here: {:.4}",
            assay.old_old.value,
            assay.shuffled,
            policy.margin,
            assay.largest_margin.max(0.0)
        )
    } else {
        format!(
            "old->old mAP {:.4} against {:.4} with shuffled labels (p = {:.3})",
            assay.old_old.value, assay.shuffled, assay.p_value
        )
    };
    let pass = told_apart && fine_enough;
    Check {
        code: CheckCode::AssaySensitivity,
        severity: CheckSeverity::Gate,
        state: if pass { CheckState::Pass } else { CheckState::Fail },
        estimate: None,
        value: Some(assay.largest_margin),
        limit: Some(policy.margin),
        safe_side: SafeSide::Above,
        message,
        settles: (!pass).then(|| {
            "check that the labels belong to these items, or use a probe on which the old model works".into()
        }),
    }
}

fn query_identities(evidence: &Evidence) -> Check {
    let n = evidence.n_query_identities;
    let pass = n >= MIN_QUERY_IDENTITIES;
    Check {
        code: CheckCode::QueryIdentities,
        severity: CheckSeverity::Gate,
        state: if pass {
            CheckState::Pass
        } else {
            CheckState::Fail
        },
        estimate: None,
        value: Some(n as f64),
        limit: Some(MIN_QUERY_IDENTITIES as f64),
        safe_side: SafeSide::Above,
        message: format!(
            "{} queries of {n} identities; at least {MIN_QUERY_IDENTITIES} identities are needed",
            evidence.n_queries
        ),
        settles: (!pass).then(|| {
            format!(
                "add queries of at least {} more identities",
                MIN_QUERY_IDENTITIES - n
            )
        }),
    }
}

fn upgrade_worth(evidence: &Evidence, policy: &Policy) -> Check {
    let name = "W = mAP(new->new) - mAP(old->old)";
    match &evidence.worth {
        Some(worth) => bounded(
            CheckCode::UpgradeWorth,
            CheckSeverity::Gate,
            name,
            worth,
            -policy.margin,
            SafeSide::Above,
            evidence,
        ),
        None => not_tested(CheckCode::UpgradeWorth, name, SafeSide::Above),
    }
}

fn cross_test_change(evidence: &Evidence, policy: &Policy) -> Check {
    let name = "D = mAP(new->old) - mAP(old->old)";
    let Some(change) = &evidence.change else {
        return not_tested(CheckCode::CrossTestChange, name, SafeSide::Above);
    };
    let mut check = bounded(
        CheckCode::CrossTestChange,
        CheckSeverity::Gate,
        name,
        &change.estimate,
        -policy.margin,
        SafeSide::Above,
        evidence,
    );
    if state(&change.optimistic, -policy.margin, SafeSide::Above) != check.state {
        check.state = CheckState::Unsettled;
        check.settles = Some(format!(
            "tied scores decide: D is {:+.4} with ties against the query and {:+.4} with ties in its favour",
            change.estimate.value, change.optimistic.value
        ));
    }
    check
}

fn excess_flips(evidence: &Evidence, policy: &Policy) -> Check {
    let name = "excess flips (right old->old and new->new, wrong new->old)";
    match evidence
        .flips
        .as_ref()
        .and_then(|flips| flips.excess.as_ref())
    {
        Some(excess) => bounded(
            CheckCode::ExcessFlips,
            CheckSeverity::Gate,
            name,
            excess,
            policy.excess_flips,
            SafeSide::Below,
            evidence,
        ),
        None => not_tested(CheckCode::ExcessFlips, name, SafeSide::Below),
    }
}

/// Warns by default; gates when the policy names a limit, or when excess flips cannot be tested.
fn negative_flips(evidence: &Evidence, policy: &Policy) -> Check {
    let name = "negative flips (right old->old, wrong new->old)";
    let Some(flips) = &evidence.flips else {
        return not_tested(CheckCode::NegativeFlips, name, SafeSide::Below);
    };
    let gates = policy.negative_flips.is_some() || flips.excess.is_none();
    bounded(
        CheckCode::NegativeFlips,
        if gates {
            CheckSeverity::Gate
        } else {
            CheckSeverity::Warn
        },
        name,
        &flips.negative,
        policy.negative_flips.unwrap_or(policy.excess_flips),
        SafeSide::Below,
        evidence,
    )
}

fn bounded(
    code: CheckCode,
    severity: CheckSeverity,
    name: &str,
    estimate: &Estimate,
    limit: f64,
    safe_side: SafeSide,
    evidence: &Evidence,
) -> Check {
    let state = state(estimate, limit, safe_side);
    let settles = (state == CheckState::Unsettled).then(|| {
        stats::identities_to_settle(estimate, limit, evidence.n_query_identities).map_or_else(
            || "the value lies on the limit; no probe of this kind settles it".to_owned(),
            |n| {
                format!(
                    "about {n} query identities like these would settle it ({} now)",
                    evidence.n_query_identities
                )
            },
        )
    });
    Check {
        code,
        severity,
        state,
        estimate: Some(*estimate),
        value: Some(estimate.value),
        limit: Some(limit),
        safe_side,
        message: format!(
            "{name} = {:+.4} [{:+.4}, {:+.4}], {} {limit}",
            estimate.value,
            estimate.lower,
            estimate.upper,
            match safe_side {
                SafeSide::Above => "must stay above",
                SafeSide::Below => "must stay below",
            }
        ),
        settles,
    }
}

fn not_tested(code: CheckCode, name: &str, safe_side: SafeSide) -> Check {
    Check {
        code,
        severity: CheckSeverity::Warn,
        state: CheckState::NotTested,
        estimate: None,
        value: None,
        limit: None,
        safe_side,
        message: format!("{name}: not tested"),
        settles: None,
    }
}
