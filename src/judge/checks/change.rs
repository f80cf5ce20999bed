//! What the new queries do: W, D, flips, the refresh curve.

use crate::config::Policy;
use crate::domain::{Estimate, NamedMeasure};
use crate::judge::evidence::Evidence;
use crate::judge::outcomes::Change;
use crate::judge::{Check, CheckCode, CheckState, SafeSide};
use crate::retrieve::refresh::STEPS;

use super::{bounded, is_stand_in, not_tested, state, state_of_both};

/// `D = mAP(new->old) - mAP(old->old)`, for the measure that decides.
pub fn change_name(primary: NamedMeasure) -> String {
    format!("D = {primary}(new->old) - {primary}(old->old)")
}

/// `W = mAP(new->new) - mAP(old->old)`, for the measure that decides.
pub fn worth_name(primary: NamedMeasure) -> String {
    format!("W = {primary}(new->new) - {primary}(old->old)")
}

pub(super) fn upgrade_worth(evidence: &Evidence, policy: &Policy) -> Check {
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
        None => not_tested(code, &name, SafeSide::Above, policy),
    }
}

pub(super) fn cross_test_change(evidence: &Evidence, policy: &Policy) -> Check {
    let (code, name) = (CheckCode::CrossTestChange, change_name(evidence.primary));
    match &evidence.change {
        Some(_) => change_above(code, &name, -policy.margin, evidence, policy),
        None => not_tested(code, &name, SafeSide::Above, policy),
    }
}

/// BCT's empirical criterion: an improvement, not only the absence of a loss.
pub(super) fn bct_criterion(evidence: &Evidence, policy: &Policy) -> Check {
    let (code, name) = (CheckCode::BctCriterion, change_name(evidence.primary));
    match &evidence.change {
        Some(_) => change_above(code, &name, 0.0, evidence, policy),
        None => not_tested(code, &name, SafeSide::Above, policy),
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
    unsettle_if_ties_decide(&mut check, &change, limit);
    check
}

fn unsettle_if_ties_decide(check: &mut Check, change: &Change, limit: f64) {
    let whatever_ties = state_of_both(&change.both(), limit, SafeSide::Above);
    if whatever_ties != state(&change.estimate, limit, SafeSide::Above) {
        check.state = CheckState::Unsettled;
        check.settles = Some(format!(
            "tied scores decide: D is {:+.4} with ties against the query and {:+.4} with ties in its favour",
            change.estimate.value, change.optimistic.value
        ));
    }
}

pub(super) fn excess_flips(evidence: &Evidence, policy: &Policy) -> Check {
    let [right, wrong] = evidence.primary.reference.hits();
    let name = &format!("excess flips ({right} old->old and new->new, {wrong} new->old)");
    let code = CheckCode::ExcessFlips;
    let flips = evidence.flips.as_ref();
    match flips.and_then(|flips| Some([flips.excess?, flips.most_excess?])) {
        Some(shares) => share_below(code, name, shares, policy.excess_flips, evidence, policy),
        None => not_tested(code, name, SafeSide::Below, policy),
    }
}

pub(super) fn negative_flips(evidence: &Evidence, policy: &Policy) -> Check {
    let [right, wrong] = evidence.primary.reference.hits();
    let name = &format!("negative flips ({right} old->old, {wrong} new->old)");
    let code = CheckCode::NegativeFlips;
    let Some(flips) = &evidence.flips else {
        return not_tested(code, name, SafeSide::Below, policy);
    };
    let own = policy.negative_flips_limit();
    // In the place of another gate it is no looser than that one.
    let limit = if is_stand_in(code, evidence) {
        own.min(policy.excess_flips)
    } else {
        own
    };
    let shares = [flips.negative, flips.most_negative];
    let mut check = share_below(code, name, shares, limit, evidence, policy);
    if is_stand_in(code, evidence) {
        check.severity = policy.severity(CheckCode::ExcessFlips).min(check.severity);
    }
    check
}

/// A share of flips against its limit; unsettled where the flips that ties could hide would decide.
fn share_below(
    code: CheckCode,
    name: &str,
    [share, most]: [Estimate; 2],
    limit: f64,
    evidence: &Evidence,
    policy: &Policy,
) -> Check {
    let mut check = bounded(code, name, &share, limit, SafeSide::Below, evidence, policy);
    if state_of_both(&[share, most], limit, SafeSide::Below) != check.state {
        check.state = CheckState::Unsettled;
        check.settles = Some(format!(
            "tied scores decide: the share is {:.4}, and {:.4} with every tie a flip",
            share.value, most.value
        ));
    }
    check
}

pub(super) fn refresh(evidence: &Evidence, policy: &Policy) -> Check {
    let code = CheckCode::Refresh;
    let primary = evidence.primary;
    let Some(refresh) = &evidence.refresh else {
        return not_tested(code, "refresh curve", SafeSide::Above, policy);
    };
    let limit = -policy.refresh_margin;
    let (step, estimate) = refresh.deciding(limit);
    let is_widened = estimate.level > refresh.planned.pointwise[step].level;
    let name = format!(
        "{primary}(new->mixed) - {primary}(old->old) at its worst, {:.0} % refreshed,{}",
        100.0 * step as f64 / STEPS as f64,
        if is_widened {
            " its ends widened for all shares at once,"
        } else {
            ""
        }
    );
    let mut check = bounded(
        code,
        &name,
        estimate,
        limit,
        SafeSide::Above,
        evidence,
        policy,
    );
    if is_widened && let Some(settles) = &mut check.settles {
        *settles = format!(
            "on its own this share would prove a loss, as the worst of {} it does not yet; {settles}",
            refresh.planned.pointwise.len()
        );
    }
    // The curve begins at D, with ties against the query: where they decide D, it settles nothing either.
    if let Some(change) = &evidence.change {
        unsettle_if_ties_decide(&mut check, change, limit);
    }
    check
}
