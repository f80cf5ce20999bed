//! Candidate thresholds around a false-accept rate, and each query's non-matching scores by them.

use crate::topk::TOGETHER;

use super::cells::{CELLS, cell_of, first_score};

/// Candidates asked for, at most. Between two of them a replicate follows a straight line; a query's counts are few enough
/// to stay in the cache with those of the queries beside it.
const MOST_CANDIDATES: usize = 128;

/// Candidates asked for at least, however many queries there are.
const FEWEST_CANDIDATES: usize = 32;

/// Candidates x queries: the counts of both models are 64 MB.
const COUNTS: usize = 1 << 23;

/// The lowest candidate accepts this many times what is allowed. A replicate needs it only when the identities it drew
/// hold less than a 64th of their share of false accepts.
const WIDEST: f64 = 64.0;

/// For each cell, how many scores lie in it or above; one more, 0, at the end.
pub fn at_or_above(cells: impl DoubleEndedIterator<Item = u64>) -> Vec<u64> {
    let mut at_or_above = Vec::with_capacity(cells.size_hint().0 + 1);
    at_or_above.push(0);
    let mut sum = 0;
    for count in cells.rev() {
        sum += count;
        at_or_above.push(sum);
    }
    at_or_above.reverse();
    at_or_above
}

/// The highest cell such that more than `count` scores, or all of at least one, lie in it or above.
pub fn cell_exceeding(at_or_above: &[u64], count: f64) -> usize {
    let count = count.min(at_or_above[0] as f64 - 1.0);
    let exceeding = at_or_above.partition_point(|&above| above as f64 > count);
    exceeding.saturating_sub(1)
}

/// Cells whose least scores are candidate thresholds, rising: half of them evenly in the logarithm of the false-accept rate
/// between half and twice the rate, as far as cells are fine enough, the others thinning out to the largest score and to 64
/// times the rate. None without scores.
pub fn candidates(at_or_above: &[u64], far: f64, n_queries: usize) -> Vec<usize> {
    let total = at_or_above[0] as f64;
    if total == 0.0 {
        return Vec::new();
    }
    let n = (COUNTS / n_queries.max(1)).clamp(FEWEST_CANDIDATES, MOST_CANDIDATES);
    let allowed = (far * total).max(2.0);
    let widest = (WIDEST * allowed).min(total / 2.0).max(2.0 * allowed);
    let wanted = geometric(1.0, allowed / 2.0, n / 4)
        .chain(geometric(allowed / 2.0, 2.0 * allowed, n / 2))
        .chain(geometric(2.0 * allowed, widest, n / 4))
        .chain([widest]);
    let mut cells: Vec<usize> = wanted
        .map(|count| cell_exceeding(at_or_above, count))
        .collect();
    // Above every score.
    cells.push(cell_exceeding(at_or_above, 0.0) + 1);
    cells.sort_unstable();
    cells.dedup();
    cells
}

/// `n` values from `low` towards `high`, each the same multiple of the last.
fn geometric(low: f64, high: f64, n: usize) -> impl Iterator<Item = f64> {
    (0..n).map(move |i| low * (high / low).powf(i as f64 / n as f64))
}

/// Counters that share the scores below all candidates, by their cells: most scores are such ones, and a counter that was
/// just written is slow to read.
const BELOW: usize = 8;

/// Candidate thresholds, each the least score of a cell.
pub struct Steps {
    candidates: Vec<f32>,
    /// For each cell, the counter of its scores: one a candidate, the last that they reach, behind those for none.
    counters: Box<[u8; CELLS]>,
}

impl Steps {
    /// `cells` rise, as many as [`candidates`] gives at most.
    pub fn new(cells: &[usize]) -> Self {
        // Two more than are asked for: the widest, and one above every score.
        const { assert!(BELOW + MOST_CANDIDATES + 2 <= 1 << u8::BITS) };
        let counters = (0..CELLS as u32).map(|cell| (cell % BELOW as u32) as u8);
        let mut counters: Box<[u8]> = counters.collect();
        for (i, &cell) in cells.iter().enumerate() {
            let next = cells.get(i + 1).copied().unwrap_or(CELLS);
            counters[cell..next].fill((BELOW + i) as u8);
        }
        // Where NaN falls.
        counters[cell_of(f32::NAN)] = 0;
        Self {
            candidates: cells.iter().map(|&cell| first_score(cell)).collect(),
            counters: counters.try_into().expect("one a cell"),
        }
    }

    /// The candidates, ascending.
    pub fn candidates(&self) -> &[f32] {
        &self.candidates
    }

    /// Whether these candidates, chosen from a sample, say of all scores nearly what `own`, chosen from all, would say: they
    /// reach as far, from half of the rate to twice, with at least half as many in between.
    pub fn suit(&self, at_or_above: &[u64], far: f64, own: &[usize]) -> bool {
        let allowed = far * at_or_above[0] as f64;
        let accepted = |cell: usize| at_or_above[cell] as f64;
        let cells: Vec<usize> = self.candidates.iter().copied().map(cell_of).collect();
        let (Some(&lowest), Some(&highest), Some(&own_lowest)) =
            (cells.first(), cells.last(), own.first())
        else {
            return own.is_empty();
        };
        let near = |cells: &[usize]| {
            let is_near =
                |&&cell: &&usize| (allowed / 2.0..=2.0 * allowed).contains(&accepted(cell));
            cells.iter().filter(is_near).count()
        };
        accepted(lowest) >= accepted(own_lowest).min(2.0 * allowed)
            && accepted(highest) <= allowed / 2.0
            && 2 * near(&cells) >= near(own)
    }
}

/// One query's non-matching scores by the last candidate that they reach.
pub struct StepCounts<'a> {
    steps: &'a Steps,
    counts: Vec<u32>,
}

impl<'a> StepCounts<'a> {
    /// Nothing counted yet.
    pub fn new(steps: &'a Steps) -> Self {
        Self {
            steps,
            counts: vec![0; BELOW + steps.candidates.len()],
        }
    }

    /// Scores below it reach no candidate.
    pub fn lowest(&self) -> f32 {
        let lowest = self.steps.candidates.first();
        lowest.copied().unwrap_or(f32::INFINITY)
    }

    /// Counts scores by their cells.
    #[inline(always)]
    pub fn count(&mut self, cells: &[u32; TOGETHER]) {
        let (counters, counts) = (&self.steps.counters, &mut self.counts[..]);
        for &cell in cells {
            counts[usize::from(counters[cell as usize % CELLS])] += 1;
        }
    }

    /// Scores at or above each candidate.
    pub fn at_or_above(mut self) -> Vec<u32> {
        let mut at_or_above = self.counts.split_off(BELOW);
        for i in (1..at_or_above.len()).rev() {
            at_or_above[i - 1] += at_or_above[i];
        }
        at_or_above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores that are the standard normal distribution's quantiles, moved by `shift`.
    fn scores(n: usize, shift: f64) -> Vec<f32> {
        use statrs::distribution::{ContinuousCDF, Normal};
        let normal = Normal::standard();
        let score = |i: usize| normal.inverse_cdf((i as f64 + 0.5) / n as f64) + shift;
        (0..n).map(|i| score(i) as f32).collect()
    }

    fn cumulated(scores: &[f32]) -> Vec<u64> {
        let mut cells = vec![0; CELLS];
        scores.iter().for_each(|&score| cells[cell_of(score)] += 1);
        at_or_above(cells.into_iter())
    }

    #[test]
    fn candidates_are_a_few_per_cent_apart_around_the_rate_and_reach_far() {
        let n = 1_000_000;
        let scores = scores(n, 0.0);
        let candidates = candidates(&cumulated(&scores), 0.01, 1_000);
        assert!(candidates.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(candidates.len() <= MOST_CANDIDATES + 2);
        let above = |&cell: &usize| n - scores.partition_point(|&s| s < first_score(cell));
        let counts: Vec<usize> = candidates.iter().map(above).collect();
        assert_eq!(counts[counts.len() - 1], 0);
        assert!(counts[0] >= n / 2, "{}", counts[0]);
        let near: Vec<_> = counts
            .windows(2)
            .filter(|pair| (5_000..20_000).contains(&pair[1]))
            .collect();
        assert!(near.len() > 50, "{}", near.len());
        for pair in near {
            let ratio = pair[0] as f64 / pair[1] as f64;
            assert!(ratio < 1.04, "{pair:?}");
        }
    }

    #[test]
    fn candidates_of_a_sample_that_missed_the_tail_do_not_suit() {
        let far = 0.001;
        let sample = cumulated(&scores(100_000, 0.0));
        let steps = Steps::new(&candidates(&sample, far, 100));
        let suit = |all: &[f32]| {
            let all = cumulated(all);
            steps.suit(&all, far, &candidates(&all, far, 100))
        };
        assert!(suit(&scores(1_000_000, 0.0)));
        // All lie a little higher; or a few, which the sample does not have, far above.
        assert!(!suit(&scores(1_000_000, 1.0)));
        let mut with_hubs = scores(1_000_000, 0.0);
        with_hubs.extend(scores(1_500, 9.0));
        with_hubs.sort_unstable_by(f32::total_cmp);
        assert!(!suit(&with_hubs));
    }

    #[test]
    fn each_query_is_counted_at_its_candidates() {
        let cells = [0.1_f32, 0.3, 0.5].map(cell_of);
        let steps = Steps::new(&cells);
        let mut counts = StepCounts::new(&steps);
        let mut scores = [f32::NAN; TOGETHER];
        scores[..6].copy_from_slice(&[0.05, 0.1, 0.2, 0.3, 0.6, -0.5]);
        // The candidates are the least scores of their cells.
        let scores = scores.map(|score| cell_of(score) as u32);
        counts.count(&scores);
        assert_eq!(counts.at_or_above(), [4, 2, 1]);
    }
}
