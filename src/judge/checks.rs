//! Each check: value, interval, limit, state.

use crate::config::Policy;
use crate::domain::{Estimate, Measure};
use crate::retrieve::refresh::STEPS;
use crate::stats;

use super::evidence::Evidence;
use super::slices::{MIN_QUERIES, Slice};
use super::{Check, CheckCode, CheckSeverity, CheckState, SafeSide};

/// Largest p-value of the label permutation test at which the probe can judge; 1/201 is the smallest possible.
const ASSAY_P: f64 = 0.005;

/// Query identities below which no interval is trusted.
pub const MIN_QUERY_IDENTITIES: usize = 20;

/// Share of the queries above which one identity leaves the clustered checks unsettled.
pub const DOMINANT_SHARE: f64 = 0.10;

/// The checks that the policy asks for, in the order of [`CheckCode::ALL`].
pub fn run(evidence: &Evidence, policy: &Policy) -> Vec<Check> {
    let mut checks: Vec<Check> = CheckCode::ALL
        .into_iter()
        .filter(|&code| policy.severity(code) != CheckSeverity::Off || is_stand_in(code, evidence))
        .map(|code| check(code, evidence, policy))
        .collect();
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

/// Negative flips stand in for excess flips that cannot be tested, whatever the policy says of negative flips.
fn is_stand_in(code: CheckCode, evidence: &Evidence) -> bool {
    code == CheckCode::NegativeFlips
        && evidence
            .flips
            .as_ref()
            .is_some_and(|flips| flips.excess.is_none())
}

fn check(code: CheckCode, evidence: &Evidence, policy: &Policy) -> Check {
    match code {
        CheckCode::Dimensions => dimensions(evidence),
        CheckCode::AssaySensitivity => assay(evidence, policy),
        CheckCode::QueryIdentities => query_identities(evidence),
        CheckCode::UpgradeWorth => upgrade_worth(evidence, policy),
        CheckCode::CrossTestChange => cross_test_change(evidence, policy),
        CheckCode::BctCriterion => bct_criterion(evidence, policy),
        CheckCode::ExcessFlips => excess_flips(evidence, policy),
        CheckCode::NegativeFlips => negative_flips(evidence, policy),
        CheckCode::Slices => slices_check(evidence, policy),
        CheckCode::UntestableTraffic => untestable_traffic(evidence, policy),
        CheckCode::Refresh => refresh(evidence, policy),
        CheckCode::ThresholdFar | CheckCode::ThresholdFrr => {
            not_tested(code, "threshold transfer", SafeSide::Below)
        }
        CheckCode::BlindShare => blind_share(evidence, policy),
    }
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
        waived: None,
    }
}

fn assay(evidence: &Evidence, policy: &Policy) -> Check {
    let assay = &evidence.assay;
    let primary = evidence.primary;
    let told_apart = assay.p_value <= ASSAY_P;
    let fine_enough = policy.margin <= assay.largest_margin;
    let message = if !told_apart {
        format!(
            "old->old {primary} {:.4} is not told from shuffled labels ({:.4}, p = {:.3}): these labels or this model say nothing",
            assay.old_old.value, assay.shuffled, assay.p_value
        )
    } else if !fine_enough {
        format!(
            "old->old {primary} {:.4} is so near shuffled labels ({:.4}) that a margin of {} could hide the loss of everything; largest margin here: {:.4}",
            assay.old_old.value,
            assay.shuffled,
            policy.margin,
            assay.largest_margin.max(0.0)
        )
    } else {
        format!(
            "old->old {primary} {:.4} against {:.4} with shuffled labels (p = {:.3})",
            assay.old_old.value, assay.shuffled, assay.p_value
        )
    };
    let pass = told_apart && fine_enough;
    Check {
        code: CheckCode::AssaySensitivity,
        severity: CheckSeverity::Gate,
        state: if pass { CheckState::Pass } else { CheckState::Fail },
        estimate: None,
        // One identity bounds nothing.
        value: Some(assay.largest_margin).filter(|margin| margin.is_finite()),
        limit: Some(policy.margin),
        safe_side: SafeSide::Above,
        message,
        settles: (!pass).then(|| {
            "check that the labels belong to these items, or use a probe on which the old model works".into()
        }),
        waived: None,
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
        waived: None,
    }
}

/// `D = mAP(new->old) - mAP(old->old)`, for the measure that decides.
pub fn change_name(primary: Measure) -> String {
    format!("D = {primary}(new->old) - {primary}(old->old)")
}

/// `W = mAP(new->new) - mAP(old->old)`, for the measure that decides.
pub fn worth_name(primary: Measure) -> String {
    format!("W = {primary}(new->new) - {primary}(old->old)")
}

fn upgrade_worth(evidence: &Evidence, policy: &Policy) -> Check {
    let name = worth_name(evidence.primary);
    let code = CheckCode::UpgradeWorth;
    match &evidence.worth {
        Some(worth) => bounded(
            code,
            &name,
            worth,
            -policy.margin,
            SafeSide::Above,
            evidence,
            policy,
        ),
        None => not_tested(code, &name, SafeSide::Above),
    }
}

fn cross_test_change(evidence: &Evidence, policy: &Policy) -> Check {
    let (code, name) = (CheckCode::CrossTestChange, change_name(evidence.primary));
    match &evidence.change {
        Some(_) => change_above(code, &name, -policy.margin, evidence, policy),
        None => not_tested(code, &name, SafeSide::Above),
    }
}

/// BCT's empirical criterion: an improvement, not only the absence of a loss.
fn bct_criterion(evidence: &Evidence, policy: &Policy) -> Check {
    let (code, name) = (CheckCode::BctCriterion, change_name(evidence.primary));
    match &evidence.change {
        Some(_) => change_above(code, &name, 0.0, evidence, policy),
        None => not_tested(code, &name, SafeSide::Above),
    }
}

/// D against a limit; unsettled where ties decide.
fn change_above(
    code: CheckCode,
    name: &str,
    limit: f64,
    evidence: &Evidence,
    policy: &Policy,
) -> Check {
    let change = evidence.change.expect("the caller has looked");
    let mut check = bounded(
        code,
        name,
        &change.estimate,
        limit,
        SafeSide::Above,
        evidence,
        policy,
    );
    if state(&change.optimistic, limit, SafeSide::Above) != check.state {
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
    let code = CheckCode::ExcessFlips;
    let flips = evidence.flips.as_ref();
    match flips.and_then(|flips| flips.excess.as_ref()) {
        Some(excess) => bounded(
            code,
            name,
            excess,
            policy.excess_flips,
            SafeSide::Below,
            evidence,
            policy,
        ),
        None => not_tested(code, name, SafeSide::Below),
    }
}

fn negative_flips(evidence: &Evidence, policy: &Policy) -> Check {
    let name = "negative flips (right old->old, wrong new->old)";
    let code = CheckCode::NegativeFlips;
    let Some(flips) = &evidence.flips else {
        return not_tested(code, name, SafeSide::Below);
    };
    let limit = policy.negative_flips.unwrap_or(policy.excess_flips);
    let mut check = bounded(
        code,
        name,
        &flips.negative,
        limit,
        SafeSide::Below,
        evidence,
        policy,
    );
    if is_stand_in(code, evidence) {
        check.severity = policy.severity(CheckCode::ExcessFlips).min(check.severity);
    }
    check
}

/// How many slices a message names.
const NAMED: usize = 5;

fn slices_check(evidence: &Evidence, policy: &Policy) -> Check {
    let code = CheckCode::Slices;
    let tested: Vec<&Slice> = evidence
        .slices
        .iter()
        .flatten()
        .filter(|slice| slice.test.is_some())
        .collect();
    if tested.is_empty() {
        let why = match &evidence.slices {
            None => "slices".to_owned(),
            Some(slices) => format!(
                "slices (none of {} has {MIN_QUERIES} queries)",
                slices.len()
            ),
        };
        return not_tested(code, &why, SafeSide::Below);
    }
    let in_state = |wanted| -> Vec<&Slice> {
        let of = |slice: &&&Slice| slice.state(policy) == wanted;
        let mut found: Vec<&Slice> = tested.iter().filter(of).copied().collect();
        let change = |slice: &Slice| slice.test.as_ref().map_or(0.0, |test| test.estimate.value);
        found.sort_by(|a, b| change(a).total_cmp(&change(b)));
        found
    };
    let (failing, unproven) = (in_state(CheckState::Fail), in_state(CheckState::Unsettled));
    let (n, margin, primary) = (tested.len(), policy.slice_margin, evidence.primary);
    let (state, message, settles) = if !failing.is_empty() {
        let message = format!(
            "{} of {n} tested slices {} more than {margin} {primary} (Holm): {}",
            failing.len(),
            if failing.len() == 1 { "loses" } else { "lose" },
            named(&failing)
        );
        (CheckState::Fail, message, None)
    } else if !unproven.is_empty() {
        let message = format!(
            "{} of {n} tested slices are not proven to lose less than {margin} {primary}: {}",
            unproven.len(),
            named(&unproven)
        );
        let settles =
            "more queries in these slices, or fewer columns under slice_columns".to_owned();
        (CheckState::Unsettled, message, Some(settles))
    } else {
        let largest = tested
            .iter()
            .filter_map(|slice| Some(slice.test.as_ref()?.minimum_detectable_loss))
            .fold(0.0, f64::max);
        let message = format!(
            "none of {n} tested slices is proven to lose more than {margin} {primary} (each would have shown a loss of {largest:.2} or less)"
        );
        (CheckState::Pass, message, None)
    };
    Check {
        value: Some(failing.len() as f64),
        limit: Some(0.0),
        settles,
        ..plain(code, state, SafeSide::Below, message, policy)
    }
}

/// The worst slices with their changes.
fn named(slices: &[&Slice]) -> String {
    let mut names: Vec<String> = slices
        .iter()
        .take(NAMED)
        .filter_map(|slice| {
            let change = slice.test.as_ref()?.estimate.value;
            Some(format!("{} ({change:+.3})", slice.members.name()))
        })
        .collect();
    if slices.len() > NAMED {
        names.push(format!("and {} more", slices.len() - NAMED));
    }
    names.join(", ")
}

fn untestable_traffic(evidence: &Evidence, policy: &Policy) -> Check {
    let code = CheckCode::UntestableTraffic;
    let worst = evidence
        .slice_columns
        .iter()
        .zip(&evidence.untestable_traffic)
        .max_by(|a, b| a.1.total_cmp(b.1));
    let Some((column, &share)) = worst else {
        return not_tested(code, "untestable traffic", SafeSide::Below);
    };
    let limit = policy.untestable_traffic;
    let pass = share <= limit;
    Check {
        value: Some(share),
        limit: Some(limit),
        settles: (!pass).then(|| {
            format!("at least {MIN_QUERIES} queries for every value of {column}, or leave the column out of slice_columns")
        }),
        ..plain(
            code,
            if pass { CheckState::Pass } else { CheckState::Unsettled },
            SafeSide::Below,
            format!("{:.0} % of the queries lie in no testable slice of {column}", 100.0 * share),
            policy,
        )
    }
}

fn refresh(evidence: &Evidence, policy: &Policy) -> Check {
    let code = CheckCode::Refresh;
    let primary = evidence.primary;
    let name = |beta: f64| {
        format!(
            "{primary}(new->mixed) - {primary}(old->old) at its worst, {:.0} % refreshed,",
            100.0 * beta
        )
    };
    let Some(refresh) = &evidence.refresh else {
        return not_tested(code, "refresh curve", SafeSide::Above);
    };
    let step = refresh.worst_step();
    let beta = step as f64 / STEPS as f64;
    let limit = -policy.refresh_margin;
    let worst = &refresh.planned[step];
    let mut check = bounded(
        code,
        &name(beta),
        worst,
        limit,
        SafeSide::Above,
        evidence,
        policy,
    );
    // The lowest bound decides a pass; any point proven below the limit decides a failure.
    let proven_below = (0..refresh.planned.len())
        .filter(|&step| state(&refresh.planned[step], limit, SafeSide::Above) == CheckState::Fail)
        .min_by(|&a, &b| {
            refresh.planned[a]
                .upper
                .total_cmp(&refresh.planned[b].upper)
        });
    if let Some(step) = proven_below {
        let beta = step as f64 / STEPS as f64;
        check = bounded(
            code,
            &name(beta),
            &refresh.planned[step],
            limit,
            SafeSide::Above,
            evidence,
            policy,
        );
    }
    check
}

fn blind_share(evidence: &Evidence, policy: &Policy) -> Check {
    let share = evidence.assay.blind_share;
    let pass = share <= policy.blind_share;
    Check {
        value: Some(share),
        limit: Some(policy.blind_share),
        settles: (!pass).then(|| {
            format!(
                "about {:.0} query identities ({} now)",
                (0.05_f64.ln() / (1.0 - policy.blind_share).ln()).ceil(),
                evidence.n_query_identities
            )
        }),
        ..plain(
            CheckCode::BlindShare,
            if pass {
                CheckState::Pass
            } else {
                CheckState::Unsettled
            },
            SafeSide::Below,
            format!(
                "damage to {:.1} % of the identities could stay unseen",
                100.0 * share
            ),
            policy,
        )
    }
}

/// A check without an interval.
fn plain(
    code: CheckCode,
    state: CheckState,
    safe_side: SafeSide,
    message: String,
    policy: &Policy,
) -> Check {
    Check {
        code,
        severity: policy.severity(code),
        state,
        estimate: None,
        value: None,
        limit: None,
        safe_side,
        message,
        settles: None,
        waived: None,
    }
}

fn bounded(
    code: CheckCode,
    name: &str,
    estimate: &Estimate,
    limit: f64,
    safe_side: SafeSide,
    evidence: &Evidence,
    policy: &Policy,
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
        severity: policy.severity(code),
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
        waived: None,
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
        waived: None,
    }
}
