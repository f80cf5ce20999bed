//! Where the non-matching scores lie, nearly, from a sample of the gallery.
//!
//! The pass that ranks the queries can count exactly around a threshold only when it knows beforehand where to look. No
//! count rests on the sample: where it pointed elsewhere, another pass looks again.

use std::ops::Range;

use rand::SeedableRng;
use rayon::prelude::*;

use crate::config::Similarity;
use crate::domain::Embeddings;
use crate::topk::{Gallery, QueryScan, ScoreOverflow, Visitor, scan};

use super::super::counts::Mask;
use super::super::protocol::{Protocol, QueryProtocol};
use super::cells::{CELLS, cell_of};
use super::steps::{at_or_above, candidates, cell_exceeding};

/// Pairs of a sample at least; smaller audits are looked at whole.
const PAIRS: usize = 1 << 22;

/// Of larger audits one pair in so many, for a hundredth of a pass.
const ONE_IN: usize = 128;

/// Scores above a threshold that a sample should hold.
const ACCEPTED: f64 = 400.0;

/// Parts of a sample: they share neither queries nor items, so they say how far a rate in it may be off.
const PARTS: usize = 8;

/// Standard errors, from so few parts, within which a rate is looked for.
const STANDARD_ERRORS: f64 = 10.0;

/// Cells that are counted to the last bit around one rate, at most: 16 MiB of counts.
const MOST_CELLS: usize = 128;

/// Non-matching scores of samples of the queries and of the gallery, by cell.
pub struct Pilot {
    /// One a part of the sample.
    parts: Vec<Vec<u32>>,
    /// Of all parts: scores in the cell or above it.
    at_or_above: Vec<u64>,
    /// Whether the sample is all there is.
    is_whole: bool,
}

impl Pilot {
    /// Scores samples of a model's queries against samples of the gallery, large enough for false-accept rates down to `least_far`.
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
        let all = n_queries.saturating_mul(n_gallery);
        let for_rate = (ACCEPTED / least_far).min(f64::from(u32::MAX)) as usize;
        let pairs = PAIRS.max(for_rate).max(all / ONE_IN);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let mut parts_of = |n: usize, size: usize, parts: usize| -> Vec<Vec<usize>> {
            let chosen = rand::seq::index::sample(&mut rng, n, size).into_vec();
            let mut parts: Vec<Vec<usize>> = chosen
                .chunks(size.div_ceil(parts).max(1))
                .map(<[usize]>::to_vec)
                .collect();
            parts.iter_mut().for_each(|part| part.sort_unstable());
            parts
        };
        let is_whole = all <= pairs;
        let (query_parts, gallery_parts) = if is_whole {
            (
                parts_of(n_queries, n_queries, 1),
                parts_of(n_gallery, n_gallery, 1),
            )
        } else {
            // As many queries as items, where there are; a part has an eighth of both.
            let in_all = PARTS * pairs;
            let some_queries = n_queries.min(in_all.isqrt().max(in_all / n_gallery));
            let some_items = n_gallery.min(in_all / some_queries);
            (
                parts_of(n_queries, some_queries, PARTS),
                parts_of(n_gallery, some_items, PARTS),
            )
        };
        let mut parts: Vec<Vec<u32>> = Vec::new();
        for (some_queries, positions) in query_parts.iter().zip(&gallery_parts) {
            let some_queries: Vec<_> = some_queries
                .iter()
                .map(|&q| &protocol.queries()[q])
                .collect();
            parts.push(count(
                &some_queries,
                queries,
                gallery,
                similarity,
                positions,
            )?);
        }
        Ok(Self::from_parts(parts, is_whole))
    }

    fn from_parts(parts: Vec<Vec<u32>>, is_whole: bool) -> Self {
        let total = |cell| {
            parts
                .iter()
                .map(|part: &Vec<u32>| u64::from(part[cell]))
                .sum()
        };
        Self {
            at_or_above: at_or_above((0..CELLS).map(total)),
            parts,
            is_whole,
        }
    }

    /// Scores in the sample.
    fn n(&self) -> f64 {
        self.at_or_above[0] as f64
    }

    /// See [`cell_exceeding`].
    fn cell_exceeding(&self, count: f64) -> usize {
        cell_exceeding(&self.at_or_above, count)
    }

    /// Cells in which the threshold of a false-accept rate, and the next score above it, very likely lie; none where
    /// they would be too many.
    pub fn cells_around(&self, far: f64) -> Option<Range<usize>> {
        if self.n() == 0.0 {
            return None;
        }
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

    /// Candidate thresholds around a rate; see [`candidates`].
    pub fn candidates(&self, far: f64, n_queries: usize) -> Vec<usize> {
        candidates(&self.at_or_above, far, n_queries)
    }

    /// Windows around rates in which a pass may count to the last bit.
    pub fn windows(&self, rates: &[f64]) -> Vec<Range<usize>> {
        rates
            .iter()
            .filter_map(|&far| self.cells_around(far))
            .collect()
    }
}

/// Non-matches of some queries and some gallery positions, rising, by cell.
fn count(
    of_protocol: &[&QueryProtocol],
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
    let absent: Vec<Vec<u32>> = of_protocol
        .par_iter()
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
    let query_items: Vec<usize> = of_protocol.iter().map(|query| query.item).collect();
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

    fn wants_all(&self) -> bool {
        true
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
    use super::*;

    /// A sample in parts, of scores that are the standard normal distribution's quantiles.
    fn pilot(n: usize, is_whole: bool) -> (Pilot, Vec<f32>) {
        use statrs::distribution::{ContinuousCDF, Normal};
        let normal = Normal::standard();
        let score = |i: usize| normal.inverse_cdf((i as f64 + 0.5) / n as f64) as f32;
        let scores: Vec<f32> = (0..n).map(score).collect();
        let mut parts = vec![vec![0_u32; CELLS]; PARTS];
        // Three neighbours in a part, so that the parts disagree a little.
        for (i, &score) in scores.iter().enumerate() {
            parts[i / 3 % PARTS][cell_of(score)] += 1;
        }
        let pilot = Pilot::from_parts(parts, is_whole);
        (pilot, scores)
    }

    #[test]
    fn without_scores_there_is_nowhere_to_look() {
        let pilot = Pilot::from_parts(vec![vec![0; CELLS]], true);
        assert!(pilot.windows(&[0.01, 0.5]).is_empty());
        assert!(pilot.candidates(0.01, 100).is_empty());
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
}
