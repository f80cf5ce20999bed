//! What a threshold that was set on old->old does to new->old, with intervals in which the threshold is set anew each time.

mod grid;

use crate::config::Similarity;
use crate::domain::{Embeddings, Estimate, Pairing};
use crate::stats::Bootstrap;
use crate::topk::{Gallery, QueryScan, ScoreOverflow, Visitor, scan};

use super::super::counts::ThresholdCounts;
use super::super::protocol::QueryProtocol;
use super::super::{QuerySet, Retrieval};
use super::tail::{Tail, order_key, score_of};
use super::{NEGATIVES_PER_FALSE_ACCEPT, NonMatchMask, scan_non_matches, sorted_matches};
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
/// Memory is candidates x identities, held below 100 MB where there are fewer than 130,000 identities, and 128 MB of
/// counts by query; the pairs of old->old
/// are scored twice, those of new->old once. The result does not depend on the threads: the counts are integers.
///
/// `None` without new->old, with fewer than 100 query identities, or fewer than 100 / rate non-matching pairs.
///
/// # Errors
/// A score that overflows f32.
pub fn threshold_transfer_estimates(
    retrieval: &Retrieval,
    old: &Embeddings,
    new: &Embeddings,
    similarity: Similarity,
    requested_far: f64,
    level: f64,
    bootstrap: &Bootstrap,
) -> Result<Option<ThresholdTransfer>, ScoreOverflow> {
    let evaluation = |pairing| retrieval.evaluations.get(&pairing);
    let (Some(old_old), Some(new_old), Some(high)) = (
        evaluation(Pairing::OLD_OLD),
        evaluation(Pairing::NEW_OLD),
        &retrieval.old_non_matches,
    ) else {
        return Ok(None);
    };
    let (protocol, evaluations) = (&retrieval.protocol, [old_old, new_old]);
    let (slot_of_query, n_identities) = slots(&protocol.query_identities());
    let mut counts = TransferCounts::new(n_identities);
    for (ranking, &slot) in evaluations[0].rankings.iter().zip(&slot_of_query) {
        let matches = ranking.relevant.len();
        counts.add_query(slot, ranking.n_candidates - matches, matches);
    }
    let non_matches: f64 = counts.non_matches.iter().sum();
    if non_matches < NEGATIVES_PER_FALSE_ACCEPT / requested_far {
        return Ok(None);
    }

    let gallery = Gallery {
        embeddings: old,
        items: protocol.gallery(),
    };
    let [old_queries, new_queries] = [old, new].map(|embeddings| QuerySet {
        embeddings,
        items: protocol.query_items(),
        similarity,
    });
    let allowed = (requested_far * non_matches).floor() as u64;
    let around = || (Tail::new(high, allowed), FineHistogram::new(high, allowed));
    let (mut tail, mut fine) = around();
    let first_key = fine.first_key();
    let floor = score_of(first_key);
    let parts = scan_non_matches(
        protocol,
        &old_queries,
        gallery,
        floor,
        around,
        |own, score| {
            let key = order_key(score);
            own.0.count(key);
            own.1.count(key);
        },
    )?;
    for (own_tail, own_fine) in &parts {
        tail.add(own_tail);
        fine.add(own_fine);
    }
    let threshold = tail.threshold(&sorted_matches(evaluations[0]));
    counts.set_candidates(fine.candidates(n_identities, threshold, tail.accepted(), allowed));

    let candidates = counts.candidates().to_vec();
    let together = (COUNT_BYTES / (BYTES_A_CANDIDATE * candidates.len())).max(1);
    let mut first = 0;
    for chunk in protocol.queries().chunks(together) {
        let of_chunk = first..first + chunk.len();
        let mut scans = [&old_queries, &new_queries].map(|queries| QueryScan {
            embeddings: queries.embeddings,
            items: &queries.items[of_chunk.clone()],
            visitors: StepCounter::all(chunk, &candidates),
        });
        scan(gallery, similarity, &mut scans, || ())?;
        for (side, scan) in scans.into_iter().enumerate() {
            for (visitor, &slot) in scan
                .visitors
                .into_iter()
                .zip(&slot_of_query[of_chunk.clone()])
            {
                let (at_or_above, _) = visitor.counts.totals();
                counts.add_non_matches(side, slot, &at_or_above);
            }
        }
        first += chunk.len();
    }
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

/// Bytes of counts that are held at a time; queries beyond wait for another pass over the gallery.
const COUNT_BYTES: usize = 128 << 20;

/// Of both models: two counts and a place in a table.
const BYTES_A_CANDIDATE: usize = 2 * 3 * size_of::<u32>();

/// Counts one query's non-matching scores at the candidate thresholds.
struct StepCounter<'a> {
    mask: NonMatchMask<'a>,
    counts: ThresholdCounts<'a>,
}

impl<'a> StepCounter<'a> {
    fn all(queries: &'a [QueryProtocol], candidates: &'a [f32]) -> Vec<Self> {
        let counter = |query| Self {
            mask: NonMatchMask::new(query),
            counts: ThresholdCounts::new(candidates),
        };
        queries.iter().map(counter).collect()
    }
}

impl Visitor for StepCounter<'_> {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.counts.lowest()
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        self.mask.apply(first, row);
        self.counts.count(row);
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
