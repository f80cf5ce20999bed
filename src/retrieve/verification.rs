//! Verification over all non-junk query-gallery pairs: AUROC, EER, TAR at fixed FAR, thresholds.
//!
//! Nothing of size pairs is stored: the matching scores are kept (they are few), the non-matching ones are counted
//! against them, in cells of neighbouring f32, and around the thresholds to the last bit.

pub mod bounds;
pub mod cells;
mod histogram;
pub mod pilot;
pub mod pooled;
mod roc;
pub mod steps;
pub mod tail;
mod transfer;

use crate::config::Similarity;
use crate::domain::Embeddings;
use crate::topk::{Gallery, QueryScan, ScoreOverflow, TOGETHER, Visitor, scan, scan_one};

use super::counts::NonMatchMask;
use super::protocol::Protocol;
use super::rank::{Pooled, RankSet, rank};
use super::{Evaluation, QuerySet};

use cells::cell_of;
use roc::RocCurve;
use steps::{StepCounts, Steps};
use tail::{NonMatches, Windows};

pub use histogram::ScoreHistogram;
pub use transfer::{ThresholdTransfer, TransferPairs};

/// False-accept rates that are reported when there are pairs enough.
pub const FALSE_ACCEPT_RATES: [f64; 3] = [1e-2, 1e-3, 1e-4];

/// Non-matching pairs needed for one expected false accept, times this, make a rate estimable.
const NEGATIVES_PER_FALSE_ACCEPT: f64 = 100.0;

/// Query identities below which verification is not reported.
pub const VERIFICATION_IDENTITIES: usize = 100;

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
    /// Where the scores lie.
    pub histogram: ScoreHistogram,
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

/// All scores of one pairing as far as verification needs them.
pub struct Scores {
    /// Of matches, ascending.
    matches: Vec<f32>,
    curve: RocCurve,
    non_matches: NonMatches,
}

impl Scores {
    /// From what the ranking pass has counted.
    pub fn new(evaluation: &Evaluation, pooled: Pooled) -> Self {
        let matches = sorted_matches(evaluation);
        Self {
            curve: RocCurve::new(&matches, &pooled.bounds, &pooled.total),
            non_matches: NonMatches::new(pooled.total.cells, pooled.windows),
            matches,
        }
    }

    /// False-accept rates that there are non-matching pairs enough for.
    fn rates(&self) -> Vec<f64> {
        let enough = |far: &f64| self.n_non_matches() >= NEGATIVES_PER_FALSE_ACCEPT / far;
        FALSE_ACCEPT_RATES.into_iter().filter(enough).collect()
    }

    fn n_non_matches(&self) -> f64 {
        self.non_matches.n() as f64
    }

    fn allowed(&self, far: f64) -> u64 {
        (far * self.n_non_matches()).floor() as u64
    }

    /// Makes sure that the answers at every reported rate, at `far` too, and at the thresholds of another pairing, are known to the
    /// last bit. Scores the pairs once more where the ranking pass did not look in the right places.
    ///
    /// # Errors
    /// A score that overflows f32.
    pub fn complete(
        &mut self,
        protocol: &Protocol,
        queries: &QuerySet<'_>,
        gallery: Gallery<'_>,
        far: Option<f64>,
        thresholds: &[f32],
    ) -> Result<(), ScoreOverflow> {
        if self.non_matches.n() == 0 {
            return Ok(());
        }
        let rates = self.rates().into_iter().chain(far);
        let at_rates = rates.flat_map(|far| self.non_matches.cells_at(self.allowed(far)));
        let at_thresholds = thresholds.iter().map(|&threshold| cell_of(threshold));
        let unknown = self.non_matches.unknown(at_rates.chain(at_thresholds));
        if unknown.is_empty() {
            return Ok(());
        }
        let windows = Windows::new(unknown);
        let visitor = |mask| WindowCounter {
            mask,
            windows: &windows,
        };
        let asked = QueryScan {
            embeddings: queries.embeddings,
            items: &queries.items,
            visitors: masks(protocol).map(visitor).collect(),
        };
        scan_one(gallery, queries.similarity, asked)?;
        self.non_matches.learn(windows);
        Ok(())
    }

    /// Non-matches in each cell or above it.
    pub fn at_or_above_cells(&self) -> Vec<u64> {
        self.non_matches.at_or_above_cells()
    }

    /// The verification; `None` when there are too few non-matching pairs for the largest rate. `thresholds` are those of
    /// another pairing to be transferred. All of it was asked of [`Scores::complete`].
    pub fn verification(&self, thresholds: &[f32]) -> Option<Verification> {
        let rates = self.rates();
        if rates.is_empty() {
            return None;
        }
        let operating_points = rates.iter().map(|&far| {
            let (threshold, accepted) = self.threshold(far);
            OperatingPoint {
                far,
                threshold,
                tar: 1.0 - self.rejection_rate(threshold),
                observed_far: accepted as f64 / self.n_non_matches(),
            }
        });
        let at_threshold = |&threshold: &f32| {
            let far = self.false_accept_rate(threshold);
            (far, self.rejection_rate(threshold))
        };
        Some(Verification {
            matches: self.matches.len() as u64,
            non_matches: self.non_matches.n(),
            auroc: self.curve.auroc(),
            eer: self.curve.equal_error_rate(),
            operating_points: operating_points.collect(),
            at_thresholds: thresholds.iter().map(at_threshold).collect(),
            histogram: self.non_matches.histogram(&self.matches),
        })
    }

    /// The smallest observed score with FAR <= `far`; `None` without non-matches.
    pub fn threshold_at(&self, far: f64) -> Option<f32> {
        (self.non_matches.n() > 0).then(|| self.threshold(far).0)
    }

    /// The smallest observed score with FAR <= `far`, and the non-matches that it accepts.
    fn threshold(&self, far: f64) -> (f32, u64) {
        self.non_matches.threshold(self.allowed(far), &self.matches)
    }

    /// Share of the non-matches at or above the threshold.
    fn false_accept_rate(&self, threshold: f32) -> f64 {
        self.non_matches.at_or_above(threshold) as f64 / self.n_non_matches()
    }

    /// Share of the matches below the threshold.
    fn rejection_rate(&self, threshold: f32) -> f64 {
        let rejected = self.matches.partition_point(|&score| score < threshold);
        rejected as f64 / self.matches.len() as f64
    }
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
    let nowhere = Windows::new(Vec::new());
    let set = RankSet::new(queries, protocol.queries(), gallery, similarity).pooled(nowhere);
    let matches = set.matches();
    let ranked = rank(gallery, similarity, vec![set])?;
    let pooled = ranked.iter().find_map(|set| set.pooled.as_ref());
    let pooled = pooled.expect("the set asked for them");
    Ok(RocCurve::new(&matches, &pooled.bounds, &pooled.total).auroc())
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

/// Each query's non-matching scores at or above each candidate threshold, of several sets of queries in one pass.
///
/// # Errors
/// A score that overflows f32.
pub fn count_steps<const N: usize>(
    protocol: &Protocol,
    sets: [&QuerySet<'_>; N],
    gallery: Gallery<'_>,
    steps: &Steps,
) -> Result<[Vec<Vec<u32>>; N], ScoreOverflow> {
    let mut similarity = None;
    let mut scans = sets.map(|queries| {
        similarity = Some(queries.similarity);
        let visitor = |mask| StepVisitor {
            mask,
            counts: StepCounts::new(steps),
        };
        QueryScan {
            embeddings: queries.embeddings,
            items: &queries.items,
            visitors: masks(protocol).map(visitor).collect(),
        }
    });
    if let Some(similarity) = similarity {
        scan(gallery, similarity, &mut scans, || ())?;
    }
    let counts = |visitor: StepVisitor<'_>| visitor.counts.at_or_above();
    Ok(scans.map(|scan| scan.visitors.into_iter().map(counts).collect()))
}

/// One mask a query.
fn masks(protocol: &Protocol) -> impl Iterator<Item = NonMatchMask<'_>> {
    let queries = protocol.queries().iter();
    queries.map(|query| NonMatchMask::new(&query.junk, &query.relevant))
}

/// See [`count_steps`].
struct StepVisitor<'a> {
    mask: NonMatchMask<'a>,
    counts: StepCounts<'a>,
}

impl Visitor for StepVisitor<'_> {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.counts.lowest()
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        self.mask.apply(first, row);
        for chunk in row.chunks(TOGETHER) {
            let mut cells = [cell_of(f32::NAN) as u32; TOGETHER];
            for (cell, &score) in cells.iter_mut().zip(chunk) {
                *cell = cell_of(score) as u32;
            }
            self.counts.count(&cells);
        }
    }
}

/// Counts one query's non-matching scores in windows.
struct WindowCounter<'a> {
    mask: NonMatchMask<'a>,
    windows: &'a Windows,
}

impl Visitor for WindowCounter<'_> {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.windows.floor()
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        self.mask.apply(first, row);
        self.windows.count(row);
    }
}

#[cfg(test)]
mod tests {
    use super::bounds::Bounds;
    use super::pooled::{PooledCounts, PooledTotal};
    use super::*;

    fn curve(matches: &[f32], non_matches: &[f32]) -> (RocCurve, PooledTotal) {
        let bounds = Bounds::new(matches);
        // As if two threads had counted.
        let parts = non_matches.chunks(2).map(|row| {
            let mut counts = PooledCounts::new(&bounds);
            counts.count(&bounds, None, row);
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
        let scores = [0.1_f32, 0.2, 0.3, 0.4];
        let matches = [0.25_f32, 0.35, 0.9];
        let (_, counts) = curve(&matches, &scores);
        for (allowed, threshold, accepted) in [(0, 0.9, 0), (1, 0.35, 1), (2, 0.25, 2), (3, 0.2, 3)]
        {
            let cells = counts.cells.clone();
            let mut non_matches = NonMatches::new(cells, Windows::new(Vec::new()));
            // Nothing was foreseen, so the cells must be looked into.
            let unknown = non_matches.unknown(non_matches.cells_at(allowed));
            assert!(!unknown.is_empty());
            let windows = Windows::new(unknown);
            windows.count(&scores);
            non_matches.learn(windows);
            assert!(
                non_matches
                    .unknown(non_matches.cells_at(allowed))
                    .is_empty()
            );
            let found = non_matches.threshold(allowed, &matches);
            assert_eq!(found, (threshold, accepted));
        }
    }
}
