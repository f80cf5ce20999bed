//! Counting one query's scores while they pass.

use std::borrow::Cow;
use std::hint::select_unpredictable;

use crate::topk::{Kernel, TOGETHER};

/// Positions that a query's rows must not show, in gallery order.
pub struct Mask<'a> {
    positions: &'a [u32],
    /// The first that has not passed.
    next: usize,
}

impl<'a> Mask<'a> {
    /// `positions` are sorted.
    pub fn new(positions: &'a [u32]) -> Self {
        Self { positions, next: 0 }
    }

    /// Overwrites the positions' scores in the row that begins at `first` by NaN, which compares false with everything.
    #[inline(always)]
    pub fn apply(&mut self, first: usize, row: &mut [f32]) {
        while let Some(&position) = self.positions.get(self.next) {
            let position = position as usize;
            if position >= first + row.len() {
                return;
            }
            // Those before it stood in rows that were skipped.
            if position >= first {
                row[position - first] = f32::NAN;
            }
            self.next += 1;
        }
    }
}

/// Leaves a query's non-matching scores in a row.
pub struct NonMatchMask<'a> {
    junk: Mask<'a>,
    relevant: Mask<'a>,
}

impl<'a> NonMatchMask<'a> {
    /// Both are sorted.
    pub fn new(junk: &'a [u32], relevant: &'a [u32]) -> Self {
        Self {
            junk: Mask::new(junk),
            relevant: Mask::new(relevant),
        }
    }

    /// See [`Mask::apply`].
    #[inline(always)]
    pub fn apply(&mut self, first: usize, row: &mut [f32]) {
        self.junk.apply(first, row);
        self.relevant.apply(first, row);
    }
}

/// Thresholds up to which each is compared with many scores at a time; beyond, each score is searched for among them
/// (`cargo bench --bench scores`, table "relevant").
const LINEAR: usize = 64;

/// For each score, how many of the thresholds, at least one and ascending, it reaches; none is reached by NaN.
///
/// All searches take the same steps and none guesses: a guess is wrong half of the time, and waits for memory.
pub fn reached_by_each(scores: &[f32; TOGETHER], thresholds: &[f32]) -> [usize; TOGETHER] {
    let mut first = [0; TOGETHER];
    let mut left = thresholds.len();
    while left > 1 {
        let half = left / 2;
        for (first, &score) in first.iter_mut().zip(scores) {
            let reaches = thresholds[*first + half - 1] <= score;
            *first = select_unpredictable(reaches, *first + half, *first);
        }
        left -= half;
    }
    std::array::from_fn(|i| first[i] + usize::from(thresholds[first[i]] <= scores[i]))
}

/// Counters a threshold where each is compared.
const LANES: usize = TOGETHER / 2;

/// How many scores lie at or above each of some thresholds, and how many equal it. (A gallery position is a u32, so a
/// count is one.)
pub struct ThresholdCounts<'a> {
    /// Ascending.
    thresholds: Cow<'a, [f32]>,
    /// Few thresholds: scores at or above each, in as many lanes as a vector has. Many: scores that reach so many
    /// thresholds, from none to all.
    reached: Vec<u32>,
    /// Scores equal to each threshold; with many at the last of equal thresholds only.
    equal: Vec<u32>,
    kernel: Kernel,
}

impl<'a> ThresholdCounts<'a> {
    /// `thresholds` ascend.
    pub fn new(thresholds: impl Into<Cow<'a, [f32]>>) -> Self {
        let thresholds = thresholds.into();
        let n = thresholds.len();
        let n_counters = if n > LINEAR { n + 1 } else { n * LANES };
        Self {
            reached: vec![0; n_counters],
            equal: vec![0; n],
            kernel: Kernel::detect(),
            thresholds,
        }
    }

    /// The thresholds, ascending.
    pub fn thresholds(&self) -> &[f32] {
        &self.thresholds
    }

    /// Scores below it count nowhere; no score counts without a threshold.
    #[inline(always)]
    pub fn lowest(&self) -> f32 {
        self.thresholds.first().copied().unwrap_or(f32::INFINITY)
    }

    /// Counts the scores that are not NaN.
    #[inline(always)]
    pub fn count(&mut self, row: &[f32]) {
        let (whole, rest) = row.as_chunks::<TOGETHER>();
        for scores in whole {
            self.count_some(scores);
        }
        if !rest.is_empty() {
            let mut scores = [f32::NAN; TOGETHER];
            scores[..rest.len()].copy_from_slice(rest);
            self.count_some(&scores);
        }
    }

    #[inline(always)]
    fn count_some(&mut self, scores: &[f32; TOGETHER]) {
        if self.thresholds.len() > LINEAR {
            self.look_up(scores);
            return;
        }
        let (lanes, _) = self.reached.as_chunks_mut();
        if self.kernel.compare(scores, &self.thresholds, lanes) {
            self.count_ties(scores);
        }
    }

    /// Apart, because scores of other items seldom equal a relevant one's to the last bit.
    fn count_ties(&mut self, scores: &[f32; TOGETHER]) {
        for (&threshold, equal) in self.thresholds.iter().zip(&mut self.equal) {
            *equal += scores.iter().filter(|&&score| score == threshold).count() as u32;
        }
    }

    fn look_up(&mut self, scores: &[f32; TOGETHER]) {
        let reached = reached_by_each(scores, &self.thresholds);
        for (&score, reached) in scores.iter().zip(reached) {
            self.reached[reached] += 1;
            if reached > 0 && self.thresholds[reached - 1] == score {
                self.equal[reached - 1] += 1;
            }
        }
    }

    /// For each threshold: scores at or above it, and scores above it.
    pub fn totals(mut self) -> (Vec<u32>, Vec<u32>) {
        let at_or_above = if self.thresholds.len() > LINEAR {
            let mut at_or_above = self.reached.split_off(1);
            for i in (1..at_or_above.len()).rev() {
                at_or_above[i - 1] += at_or_above[i];
                if self.thresholds[i - 1] == self.thresholds[i] {
                    self.equal[i - 1] = self.equal[i];
                }
            }
            at_or_above
        } else {
            let lanes = self.reached.chunks_exact(LANES);
            lanes.map(|lanes| lanes.iter().sum()).collect()
        };
        let above = at_or_above.iter().zip(&self.equal);
        let above = above.map(|(all, at)| all - at).collect();
        (at_or_above, above)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_thresholds_nothing_counts() {
        let mut counts = ThresholdCounts::new(Vec::new());
        counts.count(&[0.5, f32::NAN]);
        assert_eq!(counts.lowest(), f32::INFINITY);
        assert_eq!(counts.totals(), (vec![], vec![]));
    }

    proptest! {
        /// Few distinct scores, so that ties abound; few and many thresholds, so that both ways are taken.
        #[test]
        fn counts_agree_with_comparing_every_pair(
            scores in proptest::collection::vec(0_u8..20, 1..200),
            thresholds in proptest::collection::vec(0_u8..20, 1..150),
            masked in proptest::collection::btree_set(0_u32..200, 0..20),
        ) {
            let scores: Vec<f32> = scores.iter().map(|&s| f32::from(s) / 8.0).collect();
            let mut thresholds: Vec<f32> = thresholds.iter().map(|&t| f32::from(t) / 8.0).collect();
            thresholds.sort_unstable_by(f32::total_cmp);
            let masked: Vec<u32> = masked.into_iter().collect();
            let mut mask = Mask::new(&masked);
            let mut counts = ThresholdCounts::new(thresholds.clone());
            for (i, row) in scores.chunks(16).enumerate() {
                // Every third row is skipped where that is allowed, as the pass may.
                if i % 3 == 0 && row.iter().all(|&s| s < counts.lowest()) {
                    continue;
                }
                let mut row = row.to_vec();
                mask.apply(i * 16, &mut row);
                counts.count(&row);
            }
            let (at_or_above, above) = counts.totals();
            let left = || {
                let kept = |i: &usize| !masked.contains(&(*i as u32));
                (0..scores.len()).filter(kept).map(|i| scores[i])
            };
            for (i, &t) in thresholds.iter().enumerate() {
                prop_assert_eq!(at_or_above[i], left().filter(|&s| s >= t).count() as u32);
                prop_assert_eq!(above[i], left().filter(|&s| s > t).count() as u32);
            }
        }
    }
}
