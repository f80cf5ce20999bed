//! Each check: value, interval, limit, state.

mod change;
mod probe;
mod slices;
mod threshold;

pub use change::{change_name, worth_name};

use crate::config::Policy;
use crate::domain::Estimate;
use crate::stats;

use super::evidence::Evidence;
use super::{Check, CheckCode, CheckSeverity, CheckState, SafeSide};

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
    for check in &mut checks {
        // Passing over what somebody asked for by name would be a pass by mistake.
        if check.state == CheckState::NotTested && policy.asked_for.contains(&check.code) {
            check.state = CheckState::Unsettled;
            check.severity = CheckSeverity::Gate;
            check.settles = Some(
                "the policy asks for this check by name, and this probe cannot test it".to_owned(),
            );
        }
    }
    let [identity, identities] = evidence.primary.reference.groups();
    if evidence.dominant_share > DOMINANT_SHARE {
        for check in &mut checks {
            if check.estimate.is_some() && check.state != CheckState::NotTested {
                check.state = CheckState::Unsettled;
                check.settles = Some(format!(
                    "one {identity} holds {:.0} % of the queries (at most {:.0} %); add queries of other {identities}",
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
        CheckCode::Dimensions => probe::dimensions(evidence),
        CheckCode::AssaySensitivity => probe::assay(evidence, policy),
        CheckCode::QueryIdentities => probe::query_identities(evidence),
        CheckCode::UpgradeWorth => change::upgrade_worth(evidence, policy),
        CheckCode::CrossTestChange => change::cross_test_change(evidence, policy),
        CheckCode::BctCriterion => change::bct_criterion(evidence, policy),
        CheckCode::ExcessFlips => change::excess_flips(evidence, policy),
        CheckCode::NegativeFlips => change::negative_flips(evidence, policy),
        CheckCode::Slices => slices::check(evidence, policy),
        CheckCode::UntestableTraffic => probe::untestable_traffic(evidence, policy),
        CheckCode::Refresh => change::refresh(evidence, policy),
        CheckCode::ThresholdFar => threshold::false_accepts(evidence, policy),
        CheckCode::ThresholdFrr => threshold::false_rejects(evidence, policy),
        CheckCode::BlindShare => probe::blind_share(evidence, policy),
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

/// The state where two ways of counting ties agree on it; unsettled where they do not.
pub fn state_of_both(estimates: &[Estimate; 2], limit: f64, safe: SafeSide) -> CheckState {
    let [one, other] = estimates.each_ref().map(|of| state(of, limit, safe));
    if one == other {
        one
    } else {
        CheckState::Unsettled
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
    let [_, identities] = evidence.primary.reference.groups();
    let settles = (state == CheckState::Unsettled).then(|| {
        stats::identities_to_settle(estimate, limit, evidence.n_query_identities).map_or_else(
            || "the value lies on the limit; no probe of this kind settles it".to_owned(),
            |n| {
                let queries = n as f64 * evidence.n_queries as f64 / evidence.n_query_identities as f64;
                format!(
                    "about {n} query {identities} like these with {queries:.0} queries would settle it ({} with {} now)",
                    evidence.n_query_identities, evidence.n_queries
                )
            },
        )
    });
    let Estimate {
        value,
        lower,
        upper,
        ..
    } = estimate;
    // A change has a sign, a share has none.
    let message = match safe_side {
        SafeSide::Above => {
            format!("{name} = {value:+.4} [{lower:+.4}, {upper:+.4}], must stay above {limit}")
        }
        SafeSide::Below => {
            format!("{name} = {value:.4} [{lower:.4}, {upper:.4}], must stay below {limit}")
        }
    };
    Check {
        code,
        severity: policy.severity(code),
        state,
        estimate: Some(*estimate),
        value: Some(estimate.value),
        limit: Some(limit),
        safe_side,
        message,
        settles,
        waived: None,
    }
}

fn not_tested(code: CheckCode, name: &str, safe_side: SafeSide, policy: &Policy) -> Check {
    let message = format!("{name}: not tested");
    plain(code, CheckState::NotTested, safe_side, message, policy)
}
