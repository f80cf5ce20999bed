//! Verification over all non-junk query-gallery pairs: AUROC, EER, TAR at fixed FAR, thresholds.
//!
//! Nothing of size pairs is stored: the matching scores are kept (they are few), the non-matching ones are counted
//! against them and in integer histograms over the order-preserving bits of the f32, high 16 then low 16.

pub mod pooled;
mod roc;
mod tail;
mod transfer;

use std::marker::PhantomData;

use crate::config::Similarity;
use crate::domain::Embeddings;
use crate::topk::{Gallery, QueryScan, ScoreOverflow, Visitor, scan};

use super::counts::Mask;
use super::protocol::{Protocol, QueryProtocol};
use super::rank::{RankSet, rank};
use super::{Evaluation, QuerySet};

use pooled::{Bounds, PooledCounts};
use roc::RocCurve;
use tail::{Tail, order_key};

pub use transfer::{ThresholdTransfer, threshold_transfer_estimates};

/// False-accept rates that are reported when there are pairs enough.
pub const FALSE_ACCEPT_RATES: [f64; 3] = [1e-2, 1e-3, 1e-4];

/// Non-matching pairs needed for one expected false accept, times this, make a rate estimable.
const NEGATIVES_PER_FALSE_ACCEPT: f64 = 100.0;

/// Query identities below which verification is not reported.
pub const MIN_QUERY_IDENTITIES: usize = 100;

/// Verification of one pairing.
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    /// Matching pairs.
    pub matches: u64,
    /// Non-matching pairs.
    pub non_matches: u64,
    /// P(match scores above non-match), ties one half.
    pub auroc: f64,
    /// Where the ROC curve meets FAR = 1 - TAR; along a tie the curve is a straight line.
    pub eer: f64,
    /// One point a rate that the number of pairs supports, rates descending.
    pub operating_points: Vec<OperatingPoint>,
    /// (FAR, FRR) at each threshold asked for.
    pub at_thresholds: Vec<(f64, f64)>,
}

/// One threshold and what it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatingPoint {
    /// The rate asked for.
    pub far: f64,
    /// Smallest observed score with FAR <= `far`; accept when score >= threshold.
    pub threshold: f32,
    /// True-accept rate.
    pub tar: f64,
    /// False-accept rate.
    pub observed_far: f64,
}

/// Computes the verification of one pairing from what the ranking pass counted; `thresholds` are those of another
/// pairing to be transferred. One more pass finds the rejected scores to the last bit.
///
/// `None` when there are too few non-matching pairs for the largest FAR.
///
/// # Errors
/// A score that overflows f32.
pub fn verify(
    protocol: &Protocol,
    queries: &QuerySet<'_>,
    gallery: Gallery<'_>,
    evaluation: &Evaluation,
    bounds: &Bounds,
    counts: &PooledCounts,
    thresholds: &[f32],
) -> Result<Option<Verification>, ScoreOverflow> {
    let matches = sorted_matches(evaluation);
    let non_matches: u64 = counts.high.iter().sum();
    let rates: Vec<f64> = FALSE_ACCEPT_RATES
        .into_iter()
        .filter(|far| non_matches as f64 >= NEGATIVES_PER_FALSE_ACCEPT / far)
        .collect();
    if rates.is_empty() {
        return Ok(None);
    }
    let tails: Vec<Tail> = rates
        .iter()
        .map(|far| Tail::new(&counts.high, (far * non_matches as f64).floor() as u64))
        .collect();
    let high_end = HighEnd::count(protocol, queries, gallery, tails, thresholds)?;
    let operating_points = rates
        .iter()
        .zip(&high_end.tails)
        .map(|(&far, tail)| {
            let threshold = tail.threshold(&matches);
            let rejected = matches.partition_point(|&score| score < threshold);
            OperatingPoint {
                far,
                threshold,
                tar: 1.0 - rejected as f64 / matches.len() as f64,
                observed_far: tail.accepted() as f64 / non_matches as f64,
            }
        })
        .collect();
    let at_thresholds = thresholds
        .iter()
        .zip(&high_end.at_or_above)
        .map(|(&threshold, &accepted)| {
            let rejected = matches.partition_point(|&score| score < threshold);
            (
                accepted as f64 / non_matches as f64,
                rejected as f64 / matches.len() as f64,
            )
        })
        .collect();
    let curve = RocCurve::new(&matches, bounds, counts);
    Ok(Some(Verification {
        matches: matches.len() as u64,
        non_matches,
        auroc: curve.auroc(),
        eer: curve.equal_error_rate(),
        operating_points,
        at_thresholds,
    }))
}

/// AUROC of one pairing, however few its pairs.
///
/// # Errors
/// A score that overflows f32.
pub fn auroc(
    protocol: &Protocol,
    queries: &Embeddings,
    gallery: &Embeddings,
    similarity: Similarity,
) -> Result<f64, ScoreOverflow> {
    let gallery = Gallery {
        embeddings: gallery,
        items: protocol.gallery(),
    };
    let set = RankSet::new(queries, protocol.queries(), gallery, similarity).pooled();
    let matches = set.matches();
    let ranked = rank(gallery, similarity, vec![set])?;
    let pooled = ranked.iter().find_map(|set| set.pooled.as_ref());
    let (bounds, counts) = pooled.expect("the set asked for them");
    Ok(RocCurve::new(&matches, bounds, counts).auroc())
}

/// Scores of all matching pairs, ascending.
fn sorted_matches(evaluation: &Evaluation) -> Vec<f32> {
    let relevant = evaluation.rankings.iter().flat_map(|r| &r.relevant);
    sorted(relevant.map(|relevant| relevant.score))
}

/// Scores, ascending.
pub fn sorted(scores: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut scores: Vec<f32> = scores.collect();
    scores.sort_unstable_by(f32::total_cmp);
    scores
}

/// What is counted among the highest non-matching scores.
struct HighEnd {
    tails: Vec<Tail>,
    /// Non-matches at or above each threshold.
    at_or_above: Vec<u64>,
}

impl HighEnd {
    fn count(
        protocol: &Protocol,
        queries: &QuerySet<'_>,
        gallery: Gallery<'_>,
        tails: Vec<Tail>,
        thresholds: &[f32],
    ) -> Result<Self, ScoreOverflow> {
        let lowest = tails.iter().map(Tail::lowest_score);
        let floor = lowest
            .chain(thresholds.iter().copied())
            .fold(f32::INFINITY, f32::min);
        let nothing = || HighEnd {
            tails: tails.clone(),
            at_or_above: vec![0; thresholds.len()],
        };
        let parts = scan_non_matches(protocol, queries, gallery, floor, nothing, |own, score| {
            let key = order_key(score);
            own.tails.iter_mut().for_each(|tail| tail.count(key));
            for (count, &threshold) in own.at_or_above.iter_mut().zip(thresholds) {
                *count += u64::from(score >= threshold);
            }
        })?;
        let mut total = nothing();
        for part in &parts {
            for (mine, theirs) in total.tails.iter_mut().zip(&part.tails) {
                mine.add(theirs);
            }
            for (mine, theirs) in total.at_or_above.iter_mut().zip(&part.at_or_above) {
                *mine += theirs;
            }
        }
        Ok(total)
    }
}

/// Shows every non-matching score from `floor` up to `count`, with what the scores of one thread are counted in; returns
/// all threads'. The scores come in no particular order.
fn scan_non_matches<S: Send>(
    protocol: &Protocol,
    queries: &QuerySet<'_>,
    gallery: Gallery<'_>,
    floor: f32,
    new_shared: impl Fn() -> S + Sync,
    count: impl Fn(&mut S, f32) + Sync,
) -> Result<Vec<S>, ScoreOverflow> {
    let visitor = |query| NonMatches {
        mask: NonMatchMask::new(query),
        floor,
        count: &count,
        shared: PhantomData,
    };
    let scan_of_queries = QueryScan {
        embeddings: queries.embeddings,
        items: &queries.items,
        visitors: protocol.queries().iter().map(visitor).collect(),
    };
    scan(
        gallery,
        queries.similarity,
        &mut [scan_of_queries],
        new_shared,
    )
}

/// See [`scan_non_matches`].
struct NonMatches<'a, S, F> {
    mask: NonMatchMask<'a>,
    floor: f32,
    count: &'a F,
    shared: PhantomData<fn(S)>,
}

impl<S: Send, F: Fn(&mut S, f32) + Sync> Visitor for NonMatches<'_, S, F> {
    type Shared = S;

    fn floor(&self) -> f32 {
        self.floor
    }

    fn visit(&mut self, shared: &mut S, first: usize, row: &mut [f32]) {
        self.mask.apply(first, row);
        // NaN reaches no floor.
        for &score in row.iter().filter(|&&score| score >= self.floor) {
            (self.count)(shared, score);
        }
    }
}

/// Leaves a query's non-matching scores in a row.
struct NonMatchMask<'a> {
    junk: Mask<'a>,
    relevant: Mask<'a>,
}

impl<'a> NonMatchMask<'a> {
    fn new(query: &'a QueryProtocol) -> Self {
        Self {
            junk: Mask::new(&query.junk),
            relevant: Mask::new(&query.relevant),
        }
    }

    fn apply(&mut self, first: usize, row: &mut [f32]) {
        self.junk.apply(first, row);
        self.relevant.apply(first, row);
    }
}

#[cfg(test)]
mod tests {
    use super::tail::score_of;
    use super::*;

    #[test]
    fn order_keys_sort_like_scores_and_come_back() {
        let scores = [-2.0_f32, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0];
        assert!(
            scores
                .windows(2)
                .all(|pair| order_key(pair[0]) < order_key(pair[1]))
        );
        assert!(
            scores
                .iter()
                .all(|&score| score_of(order_key(score)) == score)
        );
    }

    fn curve(matches: &[f32], non_matches: &[f32]) -> (RocCurve, PooledCounts) {
        let bounds = Bounds::new(matches);
        // As if two threads had counted.
        let parts = non_matches.chunks(2).map(|row| {
            let mut counts = PooledCounts::new(&bounds);
            counts.count(&bounds, row);
            counts
        });
        let counts = PooledCounts::total(&bounds, parts.collect());
        (RocCurve::new(matches, &bounds, &counts), counts)
    }

    #[test]
    fn hand_worked_curve() {
        // Matches .9 .6 .4, non-matches .7 .5 .4 .1: pairs in order 4 + 3 + 1, one tie: 8.5 of 12.
        let (roc, _) = curve(&[0.4, 0.6, 0.9], &[0.7, 0.5, 0.4, 0.1]);
        assert!((roc.auroc() - 8.5 / 12.0).abs() < 1e-15);
        // After accepting .9 .7 .6: FAR .25, FRR 1/3; then .5 moves FAR to .5 >= 1/3.
        assert!((roc.equal_error_rate() - 1.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn separable_and_collapsed_scores() {
        let (separable, _) = curve(&[0.8, 0.9], &[0.1, 0.2]);
        assert_eq!(
            (separable.auroc(), separable.equal_error_rate()),
            (1.0, 0.0)
        );
        let (collapsed, _) = curve(&[0.5, 0.5], &[0.5, 0.5, 0.5]);
        assert_eq!(
            (collapsed.auroc(), collapsed.equal_error_rate()),
            (0.5, 0.5)
        );
    }

    #[test]
    fn threshold_is_the_smallest_observed_score_that_keeps_the_rate() {
        let non_matches = [0.1_f32, 0.2, 0.3, 0.4];
        let matches = [0.25_f32, 0.35, 0.9];
        let (_, counts) = curve(&matches, &non_matches);
        for (allowed, threshold, accepted) in [(0, 0.9, 0), (1, 0.35, 1), (2, 0.25, 2), (3, 0.2, 3)]
        {
            let mut tail = Tail::new(&counts.high, allowed);
            non_matches
                .iter()
                .for_each(|&score| tail.count(order_key(score)));
            assert_eq!(
                (tail.threshold(&matches), tail.accepted()),
                (threshold, accepted)
            );
        }
    }
}
