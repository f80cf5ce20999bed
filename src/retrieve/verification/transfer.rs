//! What a threshold that was set on old->old does to new->old, with intervals in which the threshold is set anew each time.

mod grid;

use crate::domain::Estimate;
use crate::stats::Bootstrap;

use super::super::Evaluation;
use super::super::protocol::Protocol;
use super::{NEGATIVES_PER_FALSE_ACCEPT, Scores};
use grid::TransferCounts;

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

/// The pairs of old->old and new->old around the threshold that gives old->old a false-accept rate.
pub struct TransferPairs {
    counts: TransferCounts,
    /// FAR of new->old and rise of FRR at the threshold, exactly.
    at_threshold: [f64; 2],
    threshold: f32,
    requested_far: f64,
}

impl TransferPairs {
    /// `scores` are old->old and new->old, each complete at `requested_far`, 0 < rate < 1, and new->old at its threshold;
    /// `accepted[side][query]` are a query's non-matches at or above each candidate. Memory is candidates x identities.
    ///
    /// `None` with fewer than 100 / rate non-matching pairs.
    pub fn new(
        protocol: &Protocol,
        evaluations: [&Evaluation; 2],
        scores: [&Scores; 2],
        requested_far: f64,
        candidates: Vec<f32>,
        accepted: [&[Vec<u32>]; 2],
    ) -> Option<Self> {
        let [old, new] = scores;
        if old.n_non_matches() < NEGATIVES_PER_FALSE_ACCEPT / requested_far {
            return None;
        }
        let (threshold, _) = old.threshold(requested_far);
        let (slot_of_query, n_identities) = slots(&protocol.query_identities());
        let mut counts = TransferCounts::new(n_identities, candidates);
        for (ranking, &slot) in evaluations[0].rankings.iter().zip(&slot_of_query) {
            let matches = ranking.relevant.len();
            counts.add_query(slot, ranking.n_candidates - matches, matches);
        }
        for side in [0, 1] {
            let of_side = evaluations[side].rankings.iter().zip(accepted[side]);
            for ((ranking, at_or_above), &slot) in of_side.zip(&slot_of_query) {
                counts.add_non_matches(side, slot, at_or_above);
                let scores = ranking.relevant.iter().map(|relevant| relevant.score);
                counts.add_matches(side, slot, scores);
            }
        }
        let frr_rise = new.rejection_rate(threshold) - old.rejection_rate(threshold);
        Some(Self {
            counts: counts.accumulated(),
            at_threshold: [new.false_accept_rate(threshold), frr_rise],
            threshold,
            requested_far,
        })
    }

    /// FAR of new->old and the rise of its FRR at the threshold.
    ///
    /// The threshold is an estimate too, so every bootstrap replicate sets it anew: identities of the queries are resampled, the threshold
    /// goes where the resampled FAR(old->old) is the rate, and both errors of new->old are read there. The gallery is fixed.
    ///
    /// The point estimates are exact. In a replicate both errors are read between two of about 130 candidates (fewer beyond 65,536 queries, down to 34), on a straight line
    /// in FAR(old->old), and shifted by what that line misses on the whole sample. Half of the candidates lie between about
    /// half and twice the rate, 2 % apart; the others thin out to the largest score above and to about 64 times the rate below. A
    /// replicate whose FAR falls below a 64th of the sample's takes the lowest candidate.
    pub fn estimates(&self, level: f64, bootstrap: &Bootstrap) -> ThresholdTransfer {
        let [far, frr_rise] =
            self.counts
                .estimates(self.requested_far, self.at_threshold, level, bootstrap);
        ThresholdTransfer {
            far,
            frr_rise,
            threshold: self.threshold,
            requested_far: self.requested_far,
        }
    }
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
