//! Parts of the queries on their own.

use crate::config::Policy;
use crate::judge::evidence::Evidence;
use crate::judge::slices::{MIN_QUERIES, Slice};
use crate::judge::{Check, CheckCode, CheckState, SafeSide};

use super::{not_tested, plain};

/// How many slices a message names.
const NAMED: usize = 5;

pub(super) fn check(evidence: &Evidence, policy: &Policy) -> Check {
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
        return not_tested(code, &why, SafeSide::Below, policy);
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
        let message = format!(
            "none of {n} tested slices is proven to lose more than {margin} {primary} ({}, power .8)",
            detectable(&tested)
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

/// What would have been seen.
fn detectable(tested: &[&Slice]) -> String {
    let losses = tested.iter();
    let losses = losses.filter_map(|slice| Some(slice.test.as_ref()?.minimum_detectable_loss));
    let (seen, blind): (Vec<f64>, Vec<f64>) = losses.partition(|loss| loss.is_finite());
    let largest = seen.iter().copied().fold(0.0, f64::max);
    match (seen.len(), blind.len()) {
        (0, 1..) => "no loss would have shown".into(),
        (_, 0) => format!("a loss of {largest:.2} or more would have shown in each"),
        (_, blind) => {
            format!(
                "a loss of {largest:.2} or more would have shown in each but {blind}, where none would"
            )
        }
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
