//! What a score threshold that was set on old->old does to new queries.

use crate::config::Policy;
use crate::judge::evidence::Evidence;
use crate::judge::{Check, CheckCode, SafeSide};

use super::{bounded, not_tested};

const NAME: &str =
    "threshold transfer (it takes 100 query identities and 100 non-matching pairs a false accept)";

pub(super) fn false_accepts(evidence: &Evidence, policy: &Policy) -> Check {
    let code = CheckCode::ThresholdFar;
    let Some(transfer) = &evidence.threshold else {
        return not_tested(code, NAME, SafeSide::Below, policy);
    };
    let name = format!(
        "false accepts of new->old at the threshold where old->old has {}",
        transfer.requested_far
    );
    let limit = policy.threshold_far_factor * transfer.requested_far;
    bounded(
        code,
        &name,
        &transfer.far,
        limit,
        SafeSide::Below,
        evidence,
        policy,
    )
}

pub(super) fn false_rejects(evidence: &Evidence, policy: &Policy) -> Check {
    let code = CheckCode::ThresholdFrr;
    let Some(transfer) = &evidence.threshold else {
        return not_tested(code, NAME, SafeSide::Below, policy);
    };
    let name = format!(
        "rise of false rejects at the threshold where old->old has {} false accepts",
        transfer.requested_far
    );
    bounded(
        code,
        &name,
        &transfer.frr_rise,
        policy.threshold_frr_rise,
        SafeSide::Below,
        evidence,
        policy,
    )
}
