//! Verification over all non-junk query-gallery pairs: AUROC, EER, TAR at fixed FAR, thresholds.
//!
//! Nothing of size pairs is stored: the matching scores are kept (they are few), the non-matching ones are counted
//! against them and in integer histograms over the order-preserving bits of the f32, high 16 then low 16.

mod roc;
mod tail;
mod transfer;

use std::sync::Mutex;

use crate::config::Similarity;
use crate::domain::Embeddings;

use super::protocol::Protocol;
use super::score::{PackedGallery, ScoreOverflow, score_rows};
use super::{Evaluation, QuerySet};

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

/// Computes the verification of one pairing; `thresholds` are those of another pairing to be transferred.
///
/// `None` when there are fewer than 100 query identities, or too few non-matching pairs for the largest FAR.
///
/// # Errors
/// A score that overflows f32.
pub fn verify(
    protocol: &Protocol,
    queries: &QuerySet<'_>,
    gallery: &PackedGallery,
    evaluation: &Evaluation,
    n_query_identities: usize,
    thresholds: &[f32],
) -> Result<Option<Verification>, ScoreOverflow> {
    let matches = sorted_matches(evaluation);
    let pairs: u64 = evaluation
        .rankings
        .iter()
        .map(|ranking| ranking.n_candidates as u64)
        .sum();
    let non_matches = pairs - matches.len() as u64;
    let rates: Vec<f64> = FALSE_ACCEPT_RATES
        .into_iter()
        .filter(|far| non_matches as f64 >= NEGATIVES_PER_FALSE_ACCEPT / far)
        .collect();
    if n_query_identities < MIN_QUERY_IDENTITIES || rates.is_empty() {
        return Ok(None);
    }

    let mut bounds = matches.clone();
    bounds.dedup();
    let counts = count_non_matches(protocol, queries, gallery, &bounds, thresholds)?;
    let tails: Vec<Tail> = rates
        .iter()
        .map(|far| Tail::new(&counts.high, (far * non_matches as f64).floor() as u64))
        .collect();
    let tails = resolve_tails(protocol, queries, gallery, tails)?;
    let operating_points = rates
        .iter()
        .zip(&tails)
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
        .zip(&counts.at_or_above_threshold)
        .map(|(&threshold, &accepted)| {
            let rejected = matches.partition_point(|&score| score < threshold);
            (
                accepted as f64 / non_matches as f64,
                rejected as f64 / matches.len() as f64,
            )
        })
        .collect();
    let curve = RocCurve::new(&matches, &bounds, &counts);
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
    evaluation: &Evaluation,
) -> Result<f64, ScoreOverflow> {
    let matches = sorted_matches(evaluation);
    let mut bounds = matches.clone();
    bounds.dedup();
    let packed = PackedGallery::new(gallery, protocol.gallery());
    let queries = QuerySet {
        embeddings: queries,
        items: protocol.query_items(),
        similarity,
    };
    let counts = count_non_matches(protocol, &queries, &packed, &bounds, &[])?;
    Ok(RocCurve::new(&matches, &bounds, &counts).auroc())
}

/// Scores of all matching pairs, ascending.
fn sorted_matches(evaluation: &Evaluation) -> Vec<f32> {
    let mut matches: Vec<f32> = evaluation
        .rankings
        .iter()
        .flat_map(|ranking| ranking.relevant.iter().map(|relevant| relevant.score))
        .collect();
    matches.sort_unstable_by(f32::total_cmp);
    matches
}

/// What one pass over all non-matching scores counts.
struct Counts {
    /// Non-matches equal to each bound.
    equal: Vec<u64>,
    /// Non-matches below the first bound, between the bounds, above the last: one more than bounds.
    between: Vec<u64>,
    /// Non-matches by the high 16 bits of their order-preserving key.
    high: Vec<u64>,
    /// Non-matches at or above each asked threshold.
    at_or_above_threshold: Vec<u64>,
}

impl Counts {
    fn empty(n_bounds: usize, n_thresholds: usize) -> Self {
        Self {
            equal: vec![0; n_bounds],
            between: vec![0; n_bounds + 1],
            high: vec![0; 1 << 16],
            at_or_above_threshold: vec![0; n_thresholds],
        }
    }

    fn count(&mut self, score: f32, bounds: &[f32], thresholds: &[f32]) {
        let below = bounds.partition_point(|&bound| bound < score);
        if bounds.get(below) == Some(&score) {
            self.equal[below] += 1;
        } else {
            self.between[below] += 1;
        }
        self.high[(order_key(score) >> 16) as usize] += 1;
        for (count, &threshold) in self.at_or_above_threshold.iter_mut().zip(thresholds) {
            *count += u64::from(score >= threshold);
        }
    }

    fn add(&mut self, other: &Counts) {
        let pairs = [
            (&mut self.equal, &other.equal),
            (&mut self.between, &other.between),
            (&mut self.high, &other.high),
            (
                &mut self.at_or_above_threshold,
                &other.at_or_above_threshold,
            ),
        ];
        for (mine, theirs) in pairs {
            for (a, b) in mine.iter_mut().zip(theirs) {
                *a += b;
            }
        }
    }
}

fn count_non_matches(
    protocol: &Protocol,
    queries: &QuerySet<'_>,
    gallery: &PackedGallery,
    bounds: &[f32],
    thresholds: &[f32],
) -> Result<Counts, ScoreOverflow> {
    let total = Mutex::new(Counts::empty(bounds.len(), thresholds.len()));
    for_each_non_match_row(protocol, queries, gallery, |_, scores| {
        let mut own = Counts::empty(bounds.len(), thresholds.len());
        for score in scores {
            own.count(score, bounds, thresholds);
        }
        // Integer sums do not depend on the order of the threads.
        total
            .lock()
            .expect("no thread panics while counting")
            .add(&own);
    })?;
    Ok(total.into_inner().expect("no thread panics while counting"))
}

/// Hands each query's index and non-matching scores to `visit`.
fn for_each_non_match_row(
    protocol: &Protocol,
    queries: &QuerySet<'_>,
    gallery: &PackedGallery,
    visit: impl Fn(usize, &mut dyn Iterator<Item = f32>) + Sync,
) -> Result<(), ScoreOverflow> {
    score_rows(
        queries.embeddings,
        &queries.items,
        gallery,
        queries.similarity,
        |q, row| {
            let query = &protocol.queries()[q];
            for &position in query.junk.iter().chain(&query.relevant) {
                row[position as usize] = f32::NAN;
            }
            visit(q, &mut row.iter().copied().filter(|score| !score.is_nan()));
        },
    )?;
    Ok(())
}

fn resolve_tails(
    protocol: &Protocol,
    queries: &QuerySet<'_>,
    gallery: &PackedGallery,
    tails: Vec<Tail>,
) -> Result<Vec<Tail>, ScoreOverflow> {
    let lowest = tails.iter().map(|tail| tail.bin).min().unwrap_or(0);
    let tails = Mutex::new(tails);
    for_each_non_match_row(protocol, queries, gallery, |_, scores| {
        let keys: Vec<u32> = scores
            .map(order_key)
            .filter(|key| (key >> 16) as usize >= lowest)
            .collect();
        let mut tails = tails.lock().expect("no thread panics while counting");
        for key in keys {
            tails.iter_mut().for_each(|tail| tail.count(key));
        }
    })?;
    Ok(tails.into_inner().expect("no thread panics while counting"))
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

    fn curve(matches: &[f32], non_matches: &[f32]) -> (RocCurve, Counts) {
        let mut bounds = matches.to_vec();
        bounds.dedup();
        let mut counts = Counts::empty(bounds.len(), 0);
        non_matches
            .iter()
            .for_each(|&score| counts.count(score, &bounds, &[]));
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
