//! Where the non-matching scores lie, nearly, from a sample of the gallery.
//!
//! The pass that ranks the queries can count exactly around a threshold only when it knows beforehand where to look. No
//! result rests on the sample: where it pointed elsewhere, another pass looks again.

use std::ops::Range;

use rand::SeedableRng;

use crate::config::Similarity;
use crate::domain::Embeddings;
use crate::topk::{Gallery, QueryScan, ScoreOverflow, Visitor, scan};

use super::super::counts::Mask;
use super::super::protocol::Protocol;
use super::cells::{CELLS, cell_of};

/// Pairs of a sample at least; smaller audits are looked at whole.
const PAIRS: usize = 1 << 22;

/// Scores above a threshold that a sample should hold.
const ACCEPTED: f64 = 400.0;

/// Parts of a sample, apart: they say how far a rate in it may be off.
const PARTS: usize = 8;

/// Standard errors, from so few parts, within which a rate is looked for.
const STANDARD_ERRORS: f64 = 10.0;

/// Cells that are counted to the last bit around one rate, at most: 16 MiB of counts.
const MOST_CELLS: usize = 128;

/// Candidate thresholds at most. Between two of them a replicate follows a straight line; a query's counts are few enough
/// to stay in the cache with those of the queries beside it.
const MOST_CANDIDATES: usize = 128;

/// Candidate thresholds at least, however many queries there are.
const FEWEST_CANDIDATES: usize = 32;

/// Candidates x queries: the counts of both models are 64 MB.
const COUNTS: usize = 1 << 23;

/// The lowest candidate accepts this many times what is allowed. A replicate needs it only when the identities it drew
/// hold less than a 64th of their share of false accepts.
const WIDEST: f64 = 64.0;

/// Non-matching scores of all queries and a sample of the gallery, by cell.
pub struct Pilot {
    /// One a part of the sample.
    parts: Vec<Vec<u32>>,
    /// Of all parts: scores in the cell or above it.
    at_or_above: Vec<u64>,
    /// Whether the sample is the whole gallery.
    is_whole: bool,
}

impl Pilot {
    /// Scores the queries of a model against a sample of the gallery, large enough for false-accept rates down to `least_far`.
    ///
    /// # Errors
    /// A score that overflows f32.
    pub fn new(
        protocol: &Protocol,
        queries: &Embeddings,
        gallery: Gallery<'_>,
        similarity: Similarity,
        least_far: f64,
    ) -> Result<Self, ScoreOverflow> {
        let (n_queries, n_gallery) = (protocol.queries().len(), gallery.items.len());
        let pairs = PAIRS.max((ACCEPTED / least_far).min(f64::from(u32::MAX)) as usize);
        let size = (pairs / n_queries.max(1)).max(PARTS).min(n_gallery);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let chosen = rand::seq::index::sample(&mut rng, n_gallery, size).into_vec();
        let is_whole = size == n_gallery;
        let n_parts = if is_whole { 1 } else { PARTS };
        let mut parts: Vec<Vec<u32>> = Vec::new();
        for part in chosen.chunks(size.div_ceil(n_parts).max(1)) {
            let mut positions = part.to_vec();
            positions.sort_unstable();
            parts.push(count(protocol, queries, gallery, similarity, &positions)?);
        }
        Ok(Self::from_parts(parts, is_whole))
    }

    fn from_parts(parts: Vec<Vec<u32>>, is_whole: bool) -> Self {
        let mut at_or_above = vec![0; CELLS + 1];
        for cell in (0..CELLS).rev() {
            let own: u64 = parts.iter().map(|part| u64::from(part[cell])).sum();
            at_or_above[cell] = at_or_above[cell + 1] + own;
        }
        Self {
            parts,
            at_or_above,
            is_whole,
        }
    }

    /// Scores in the sample.
    fn n(&self) -> f64 {
        self.at_or_above[0] as f64
    }

    /// The highest cell such that more than `count` scores, or all of them, lie in it or above.
    fn cell_exceeding(&self, count: f64) -> usize {
        let count = count.min(self.n() - 1.0);
        let exceeding = self
            .at_or_above
            .partition_point(|&above| above as f64 > count);
        exceeding.saturating_sub(1)
    }

    /// Cells in which the threshold of a false-accept rate, and the next score above it, very likely lie; none where
    /// they would be too many.
    pub fn cells_around(&self, far: f64) -> Option<Range<usize>> {
        let wanted = far * self.n();
        let cell = self.cell_exceeding(wanted);
        let error = if self.is_whole {
            0.0
        } else {
            let above = |part: &Vec<u32>| part[cell..].iter().map(|&n| f64::from(n)).sum::<f64>();
            let counts: Vec<f64> = self.parts.iter().map(above).collect();
            let mean = counts.iter().sum::<f64>() / counts.len() as f64;
            let squares: f64 = counts.iter().map(|count| (count - mean).powi(2)).sum();
            let of_part = (squares / (counts.len() as f64 - 1.0).max(1.0)).sqrt();
            STANDARD_ERRORS * of_part * (counts.len() as f64).sqrt()
        };
        let lowest = self.cell_exceeding(wanted + error);
        // As many as the cell itself holds may be accepted, and the next score lies beyond.
        let beyond = self.at_or_above[cell + 1] as f64 - error;
        let highest = self.cell_exceeding((beyond - 1.0).max(0.0)).max(cell);
        let cells = lowest.saturating_sub(1)..(highest + 2).min(CELLS);
        (cells.len() <= MOST_CELLS).then_some(cells)
    }

    /// Cells whose least scores are candidate thresholds, rising: half of them evenly in the logarithm of the false-accept
    /// rate between half and twice the rate, as far as cells are fine enough, the others thinning out to the largest score
    /// and to 64 times the rate.
    pub fn candidates(&self, far: f64, n_queries: usize) -> Vec<usize> {
        let n = (COUNTS / n_queries.max(1)).clamp(FEWEST_CANDIDATES, MOST_CANDIDATES);
        let total = self.n();
        let allowed = (far * total).max(2.0);
        let widest = (WIDEST * allowed).min(total / 2.0).max(2.0 * allowed);
        let wanted = geometric(1.0, allowed / 2.0, n / 4)
            .chain(geometric(allowed / 2.0, 2.0 * allowed, n / 2))
            .chain(geometric(2.0 * allowed, widest, n / 4))
            .chain([widest]);
        let mut candidates: Vec<usize> = wanted.map(|count| self.cell_exceeding(count)).collect();
        // Above every score of the sample.
        candidates.push(self.cell_exceeding(0.0) + 1);
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// Windows around rates in which a pass may count to the last bit.
    pub fn windows(&self, rates: &[f64]) -> Vec<Range<usize>> {
        rates
            .iter()
            .filter_map(|&far| self.cells_around(far))
            .collect()
    }
}

/// `n` values from `low` towards `high`, each the same multiple of the last.
fn geometric(low: f64, high: f64, n: usize) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| low * (high / low).powf(i as f64 / n as f64))
}

/// Non-matches of all queries and some gallery positions, rising, by cell.
fn count(
    protocol: &Protocol,
    queries: &Embeddings,
    gallery: Gallery<'_>,
    similarity: Similarity,
    positions: &[usize],
) -> Result<Vec<u32>, ScoreOverflow> {
    let items: Vec<usize> = positions
        .iter()
        .map(|&position| gallery.items[position])
        .collect();
    // Where among the chosen positions a query has a match or junk.
    let absent: Vec<Vec<u32>> = protocol
        .queries()
        .iter()
        .map(|query| {
            let left_out = query.relevant.iter().chain(&query.junk);
            let mut absent: Vec<u32> = left_out
                .filter_map(|&position| positions.binary_search(&(position as usize)).ok())
                .map(|at| at as u32)
                .collect();
            absent.sort_unstable();
            absent
        })
        .collect();
    let query_items = protocol.query_items();
    let visitor = |absent| CellCounter {
        absent: Mask::new(absent),
    };
    let mut scans = [QueryScan {
        embeddings: queries,
        items: &query_items,
        visitors: absent.iter().map(|absent| visitor(absent)).collect(),
    }];
    let sample = Gallery {
        embeddings: gallery.embeddings,
        items: &items,
    };
    let parts = scan(sample, similarity, &mut scans, || vec![0_u32; CELLS])?;
    let mut cells = vec![0; CELLS];
    for part in parts {
        for (mine, theirs) in cells.iter_mut().zip(part) {
            *mine += theirs;
        }
    }
    cells[cell_of(f32::NAN)] = 0;
    Ok(cells)
}

/// Counts one query's scores by cell.
struct CellCounter<'a> {
    absent: Mask<'a>,
}

impl Visitor for CellCounter<'_> {
    type Shared = Vec<u32>;

    fn floor(&self) -> f32 {
        f32::NEG_INFINITY
    }

    fn visit(&mut self, cells: &mut Vec<u32>, first: usize, row: &mut [f32]) {
        self.absent.apply(first, row);
        for &score in row.iter() {
            cells[cell_of(score)] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::first_score;
    use super::*;

    /// A sample in parts, of scores that are the standard normal distribution's quantiles.
    fn pilot(n: usize, is_whole: bool) -> (Pilot, Vec<f32>) {
        use statrs::distribution::{ContinuousCDF, Normal};
        let normal = Normal::standard();
        let score = |i: usize| normal.inverse_cdf((i as f64 + 0.5) / n as f64) as f32;
        let scores: Vec<f32> = (0..n).map(score).collect();
        let mut parts = vec![vec![0_u32; CELLS]; PARTS];
        for (i, &score) in scores.iter().enumerate() {
            parts[i % PARTS][cell_of(score)] += 1;
        }
        let pilot = Pilot::from_parts(parts, is_whole);
        (pilot, scores)
    }

    #[test]
    fn the_threshold_and_the_next_score_lie_in_the_window() {
        let n = 100_000;
        for is_whole in [true, false] {
            let (pilot, scores) = pilot(n, is_whole);
            for far in [1e-2, 1e-3] {
                let cells = pilot.cells_around(far).expect("few cells");
                let rejected = n - 1 - (far * n as f64) as usize;
                for score in [scores[rejected], scores[rejected + 1]] {
                    assert!(cells.contains(&cell_of(score)), "{far} {is_whole}");
                }
            }
        }
    }

    #[test]
    fn candidates_are_a_few_per_cent_apart_around_the_rate_and_reach_far() {
        let n = 1_000_000;
        let (pilot, scores) = pilot(n, true);
        let candidates = pilot.candidates(0.01, 1_000);
        assert!(candidates.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(candidates.len() <= MOST_CANDIDATES + 2);
        let above = |&cell: &usize| n - scores.partition_point(|&s| s < first_score(cell));
        let counts: Vec<usize> = candidates.iter().map(above).collect();
        assert_eq!(counts[counts.len() - 1], 0);
        assert!(counts[0] >= n / 2, "{}", counts[0]);
        let steps = counts
            .windows(2)
            .filter(|pair| (5_000..20_000).contains(&pair[1]));
        for pair in steps {
            let ratio = pair[0] as f64 / pair[1] as f64;
            assert!(ratio < 1.04, "{pair:?}");
        }
    }
}
