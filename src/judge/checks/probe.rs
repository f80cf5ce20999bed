//! Whether the probe can judge, and how much it sees.

use crate::config::Policy;
use crate::domain::Reference;
use crate::judge::evidence::Evidence;
use crate::judge::slices::MIN_QUERIES;
use crate::judge::{Check, CheckCode, CheckSeverity, CheckState, SafeSide};

use super::{MIN_QUERY_IDENTITIES, not_tested, plain};

/// Largest p-value of the label permutation test at which the probe can judge; 1/201 is the smallest possible.
const ASSAY_P: f64 = 0.005;

pub(super) fn dimensions(evidence: &Evidence) -> Check {
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

pub(super) fn assay(evidence: &Evidence, policy: &Policy) -> Check {
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
            "a margin of {} is too wide for a probe with old->old {primary} {:.4} against {:.4} with shuffled labels: it could hide a good part of that; largest margin here: {:.4}",
            policy.margin,
            assay.old_old.value,
            assay.shuffled,
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
            let better = match primary.reference {
                Reference::Labels if told_apart => "a probe on which the old model is better",
                Reference::Labels => {
                    return "check that the labels belong to these items, or use a probe on which the old model works"
                        .into();
                }
                Reference::OldModel => "a probe that clusters better",
            };
            if told_apart && assay.largest_margin > 0.0 {
                format!(
                    "take a margin of at most {:.4}, if that is strict enough, or {better}",
                    assay.largest_margin
                )
            } else {
                format!("use {better}")
            }
        }),
        waived: None,
    }
}

pub(super) fn query_identities(evidence: &Evidence) -> Check {
    let n = evidence.n_query_identities;
    let [_, identities] = evidence.primary.reference.groups();
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
            "{} queries of {n} {identities}; at least {MIN_QUERY_IDENTITIES} {identities} are needed",
            evidence.n_queries
        ),
        settles: (!pass).then(|| {
            format!(
                "add queries of at least {} more {identities}",
                MIN_QUERY_IDENTITIES - n
            )
        }),
        waived: None,
    }
}

pub(super) fn untestable_traffic(evidence: &Evidence, policy: &Policy) -> Check {
    let code = CheckCode::UntestableTraffic;
    let worst = evidence
        .slice_columns
        .iter()
        .zip(&evidence.untestable_traffic)
        .max_by(|a, b| a.1.total_cmp(b.1));
    let Some((column, &share)) = worst else {
        return not_tested(code, "untestable traffic", SafeSide::Below, policy);
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

pub(super) fn blind_share(evidence: &Evidence, policy: &Policy) -> Check {
    let share = evidence.assay.blind_share;
    let [_, identities] = evidence.primary.reference.groups();
    let pass = share <= policy.blind_share;
    Check {
        value: Some(share),
        limit: Some(policy.blind_share),
        settles: (!pass).then(|| {
            format!(
                "about {:.0} query {identities} ({} now)",
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
                "damage to {:.1} % of the {identities} could stay unseen",
                100.0 * share
            ),
            policy,
        )
    }
}
