//! How the scores of matches and non-matches are spread, in bins of one width.

use super::cells::{first_key, score_of};

/// Bins at most: finer than a reader of a figure can tell apart.
const MOST_BINS: i64 = 64;

/// Binary digits of a score that a cell tells: 23 of the fraction less the 14 that it leaves out.
const CELL_DIGITS: i32 = 9;

/// Matching and non-matching scores of one pairing, counted in the same bins.
///
/// Bin i spans from `lowest + i * width` to the next; the width is a power of two. A score that equals an edge counts in
/// the bin farther from zero, as the cells of neighbouring f32 have it, from which the non-matches are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreHistogram {
    /// Lower edge of the first bin.
    pub lowest: f64,
    /// Width of a bin.
    pub width: f64,
    /// Matching pairs in each bin.
    pub matches: Vec<u64>,
    /// Non-matching pairs in each bin.
    pub non_matches: Vec<u64>,
}

impl ScoreHistogram {
    /// Of matching scores, ascending, and of non-matching ones by cell; not both are empty.
    pub fn new(matches: &[f32], cells: &[u64]) -> Self {
        let occupied = || cells.iter().enumerate().filter(|&(_, &n)| n > 0);
        let ends = [matches.first(), matches.last()].into_iter().flatten();
        let of_cells = occupied().map(|(cell, _)| nearest_zero(cell));
        let (low, high) = ends
            .copied()
            .chain(of_cells)
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), score| {
                (low.min(score), high.max(score))
            });
        // The narrowest width of which every cell lies in one bin.
        let largest = f64::from(low.abs().max(high.abs())).max(f64::from(f32::MIN_POSITIVE));
        let mut width = 2_f64.powi(largest.log2().floor() as i32 - CELL_DIGITS);
        while bin(high, width) - bin(low, width) >= MOST_BINS {
            width *= 2.0;
        }
        let first = bin(low, width);
        let n = usize::try_from(bin(high, width) - first + 1).expect("high is not below low");
        let at = |score: f32| (bin(score, width) - first) as usize;
        let mut histogram = Self {
            lowest: first as f64 * width,
            width,
            matches: vec![0; n],
            non_matches: vec![0; n],
        };
        for &score in matches {
            histogram.matches[at(score)] += 1;
        }
        for (cell, &n) in occupied() {
            histogram.non_matches[at(nearest_zero(cell))] += n;
        }
        histogram
    }
}

/// The score of a cell that is nearest to zero: its other scores lie away from zero, up to the next cell.
fn nearest_zero(cell: usize) -> f32 {
    let first = first_key(cell);
    let last = first_key(cell + 1).wrapping_sub(1);
    let score = score_of(last);
    if score < 0.0 { score } else { score_of(first) }
}

/// Which multiple of the width is the bin's lower edge.
fn bin(score: f32, width: f64) -> i64 {
    let steps = (f64::from(score.abs()) / width).floor() as i64;
    if score < 0.0 { -steps - 1 } else { steps }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cells::{CELLS, cell_of};
    use super::*;

    fn cells(scores: &[f32]) -> Vec<u64> {
        let mut cells = vec![0; CELLS];
        scores.iter().for_each(|&score| cells[cell_of(score)] += 1);
        cells
    }

    /// Each score looked up among the edges.
    fn naive(scores: &[f32], histogram: &ScoreHistogram) -> Vec<u64> {
        let mut counts = vec![0; histogram.matches.len()];
        for &score in scores {
            let score = f64::from(score);
            let holds = |&i: &usize| {
                let from = histogram.lowest + i as f64 * histogram.width;
                let to = from + histogram.width;
                if score < 0.0 {
                    from < score && score <= to
                } else {
                    from <= score && score < to
                }
            };
            let found = (0..counts.len()).find(holds).expect("a bin");
            counts[found] += 1;
        }
        counts
    }

    #[test]
    fn hand_worked() {
        let found = ScoreHistogram::new(&[0.5, 0.75], &cells(&[-0.25, 0.0, 0.1]));
        // A span of 1: 64 bins of 1/64 would need a 65th for the score at the end.
        assert_eq!(found.width, 1.0 / 32.0);
        assert_eq!(found.lowest, -9.0 / 32.0);
        assert_eq!(found.matches.iter().sum::<u64>(), 2);
        assert_eq!((found.matches[25], found.matches[33]), (1, 1));
        assert_eq!(
            (
                found.non_matches[0],
                found.non_matches[9],
                found.non_matches[12]
            ),
            (1, 1, 1)
        );
    }

    #[test]
    fn one_score_is_one_bin() {
        let found = ScoreHistogram::new(&[0.9], &cells(&[0.9]));
        assert_eq!((found.matches, found.non_matches), (vec![1], vec![1]));
        let zero = ScoreHistogram::new(&[0.0], &cells(&[]));
        assert_eq!(zero.matches, [1]);
    }

    proptest! {
        #[test]
        fn as_the_naive_twin(
            mut matches in prop::collection::vec(-1.0_f32..1.0, 1..20),
            non_matches in prop::collection::vec(-1.0_f32..1.0, 1..200),
            scale in prop::sample::select(vec![1.0_f32, 300.0, 1e-3]),
        ) {
            matches.sort_by(f32::total_cmp);
            // No -0: scores have none.
            matches.iter_mut().for_each(|score| *score = *score * scale + 0.0);
            let non_matches: Vec<f32> = non_matches.iter().map(|&score| score * scale + 0.0).collect();
            let found = ScoreHistogram::new(&matches, &cells(&non_matches));
            prop_assert!(found.matches.len() <= MOST_BINS as usize);
            // Half as wide, the bins would be too many, or narrower than a cell.
            let all = || matches.iter().chain(&non_matches).map(|&score| f64::from(score));
            let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
            let largest = low.abs().max(high.abs());
            let cell = 2_f64.powi(largest.log2().floor() as i32 - CELL_DIGITS);
            let half = found.width / 2.0;
            prop_assert!((high - low) / half >= MOST_BINS as f64 - 2.0 || half < cell);
            prop_assert_eq!(&naive(&matches, &found), &found.matches);
            prop_assert_eq!(&naive(&non_matches, &found), &found.non_matches);
        }
    }
}
