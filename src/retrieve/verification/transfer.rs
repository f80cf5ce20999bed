//! What a threshold that was set on old->old does to new->old, with intervals in which the threshold is set anew each time.

mod grid;

use std::sync::Mutex;

use crate::config::Similarity;
use crate::domain::{Embeddings, Estimate};
use crate::stats::Bootstrap;

use super::super::protocol::Protocol;
use super::super::score::{PackedGallery, ScoreOverflow};
use super::super::{Evaluation, QuerySet};
use super::tail::{Tail, order_key};
use super::{
    MIN_QUERY_IDENTITIES, NEGATIVES_PER_FALSE_ACCEPT, count_non_matches, for_each_non_match_row,
    sorted_matches,
};
use grid::{FineHistogram, TransferCounts};

/// A threshold's transfer from old->old to new->old.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThresholdTransfer {
    /// FAR of new->old at the threshold.
    pub far: Estimate,
    /// FRR of new->old less FRR of old->old at the threshold.
    pub frr_rise: Estimate,
    /// Smallest observed old->old score with FAR <= `requested_far`.
    pub threshold: f32,
    /// The rate asked for.
    pub requested_far: f64,
}

/// FAR and rise of FRR of new->old at the threshold that gives old->old the rate `requested_far`, 0 < rate < 1.
///
/// The threshold is an estimate too, so every bootstrap replicate sets it anew: identities of the queries are resampled, the threshold
/// becomes the smallest candidate with a resampled FAR(old->old) <= the rate, and both errors of new->old are read there. The
/// gallery is fixed.
///
/// The point estimates are exact. In a replicate the threshold is one of at most 512 candidates: half of them lie evenly in the
/// logarithm of FAR(old->old) between half and twice the rate, .5 % apart, the others thin out to the largest score above and to
/// 64 times the rate below. A replicate's threshold is therefore at most one step too high, and one whose FAR falls below a 64th of the
/// sample's takes the lowest candidate.
///
/// Memory is candidates x identities, held below 100 MB where there are fewer than 130,000 identities; the pairs of old->old
/// are scored three times, those of new->old once. The result does not depend on the threads: the counts are integers.
///
/// `None` with fewer than 100 query identities, or fewer than 100 / rate non-matching pairs. Both embeddings must be of one
/// dimension; `evaluations` are old->old and new->old under the protocol.
///
/// # Errors
/// A score that overflows f32.
#[expect(
    clippy::too_many_arguments,
    reason = "the inputs of two pairings and of an interval"
)]
pub fn threshold_transfer_estimates(
    protocol: &Protocol,
    old: &Embeddings,
    new: &Embeddings,
    similarity: Similarity,
    evaluations: [&Evaluation; 2],
    requested_far: f64,
    level: f64,
    bootstrap: &Bootstrap,
) -> Result<Option<ThresholdTransfer>, ScoreOverflow> {
    let (slot_of_query, n_identities) = slots(&protocol.query_identities());
    let mut counts = TransferCounts::new(n_identities);
    for (ranking, &slot) in evaluations[0].rankings.iter().zip(&slot_of_query) {
        let matches = ranking.relevant.len();
        counts.add_query(slot, ranking.n_candidates - matches, matches);
    }
    let non_matches: f64 = counts.non_matches.iter().sum();
    if n_identities < MIN_QUERY_IDENTITIES
        || non_matches < NEGATIVES_PER_FALSE_ACCEPT / requested_far
    {
        return Ok(None);
    }

    let gallery = PackedGallery::new(old, protocol.gallery());
    let [old_queries, new_queries] = [old, new].map(|embeddings| QuerySet {
        embeddings,
        items: protocol.query_items(),
        similarity,
    });
    let high = count_non_matches(protocol, &old_queries, &gallery, &[], &[])?.high;
    let allowed = (requested_far * non_matches).floor() as u64;
    let fine = FineHistogram::new(&high, allowed);
    let first_key = fine.first_key();
    let around = Mutex::new((Tail::new(&high, allowed), fine));
    for_each_non_match_row(protocol, &old_queries, &gallery, |_, scores| {
        let keys: Vec<u32> = scores
            .map(order_key)
            .filter(|&key| key >= first_key)
            .collect();
        let mut around = around.lock().expect("no thread panics while counting");
        for key in keys {
            around.0.count(key);
            around.1.count(key);
        }
    })?;
    let (tail, fine) = around
        .into_inner()
        .expect("no thread panics while counting");
    let threshold = tail.threshold(&sorted_matches(evaluations[0]));
    counts.set_candidates(fine.candidates(n_identities, threshold, tail.accepted(), allowed));

    let candidates = counts.candidates().to_vec();
    let counts = Mutex::new(counts);
    for (side, queries) in [&old_queries, &new_queries].into_iter().enumerate() {
        for_each_non_match_row(protocol, queries, &gallery, |q, scores| {
            let steps: Vec<usize> = scores
                .filter_map(|score| grid::step(&candidates, score))
                .collect();
            let mut counts = counts.lock().expect("no thread panics while counting");
            counts.add_non_matches(side, slot_of_query[q], &steps);
        })?;
    }
    let mut counts = counts
        .into_inner()
        .expect("no thread panics while counting");
    for (side, evaluation) in evaluations.into_iter().enumerate() {
        for (ranking, &slot) in evaluation.rankings.iter().zip(&slot_of_query) {
            let scores = ranking.relevant.iter().map(|relevant| relevant.score);
            counts.add_matches(side, slot, scores);
        }
    }
    let [far, frr_rise] = counts.estimates(requested_far, level, bootstrap);
    Ok(Some(ThresholdTransfer {
        far,
        frr_rise,
        threshold,
        requested_far,
    }))
}

/// Each query's identity as a number from 0, in identity order, and how many there are.
fn slots(identities: &[u32]) -> (Vec<usize>, usize) {
    let mut distinct = identities.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let slot = |identity: &u32| {
        distinct
            .binary_search(identity)
            .expect("it is among its own kind")
    };
    (identities.iter().map(slot).collect(), distinct.len())
}
