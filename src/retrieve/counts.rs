//! Counting one query's scores while they pass.

use std::borrow::Cow;

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

/// Thresholds up to which each is compared with many scores at a time; beyond, each score is looked up in a table
/// (`cargo bench --bench scores`, table "relevant").
const LINEAR: usize = 64;

/// Counters a threshold.
fn lanes(n_thresholds: usize) -> usize {
    if n_thresholds > LINEAR {
        1
    } else {
        TOGETHER / 2
    }
}

/// Where a score may stand among the thresholds, by dividing their range into as many equal parts as there are.
///
/// The part of a number never falls when the number rises, rounding included. So all thresholds of lower parts lie below a
/// score, and all of higher parts above it.
#[derive(Default)]
struct Table {
    lowest: f32,
    parts_per_score: f32,
    /// The first threshold of each part; one more at the end. Empty where it is not needed.
    first: Vec<u32>,
}

impl Table {
    fn new(thresholds: &[f32]) -> Self {
        let n = thresholds.len();
        let [lowest, .., highest] = *thresholds else {
            return Self::default();
        };
        let range = highest - lowest;
        let parts_per_score = n as f32 / range;
        let mut table = Self {
            lowest,
            // A range of 0 or beyond f32 is one part.
            parts_per_score: if parts_per_score.is_finite() {
                parts_per_score
            } else {
                0.0
            },
            first: Vec::new(),
        };
        if n > LINEAR {
            let mut first = vec![0; n + 1];
            for &threshold in thresholds {
                first[table.part(threshold, n) + 1] += 1;
            }
            for part in 0..n {
                first[part + 1] += first[part];
            }
            table.first = first;
        }
        table
    }

    fn part(&self, score: f32, parts: usize) -> usize {
        // The conversion takes what is no number, or negative, to 0, and what is too large to the largest.
        (((score - self.lowest) * self.parts_per_score) as usize).min(parts - 1)
    }

    /// Thresholds before it lie below the score, those after it above.
    fn among(&self, score: f32) -> std::ops::Range<usize> {
        let part = self.part(score, self.first.len() - 1);
        self.first[part] as usize..self.first[part + 1] as usize
    }
}

/// How many scores lie at or above each of some thresholds, and how many equal it. (A gallery position is a u32, so a
/// count is one.)
pub struct ThresholdCounts<'a> {
    /// Ascending.
    thresholds: Cow<'a, [f32]>,
    /// Linear: scores at or above each threshold, in as many lanes as a vector has. By table: scores that reach a
    /// threshold and not the next, one number each.
    reached: Vec<u32>,
    /// Scores equal to each threshold; by table at the last of equal thresholds only.
    equal: Vec<u32>,
    table: Table,
    kernel: Kernel,
}

impl<'a> ThresholdCounts<'a> {
    /// `thresholds` ascend.
    pub fn new(thresholds: impl Into<Cow<'a, [f32]>>) -> Self {
        let thresholds = thresholds.into();
        Self {
            reached: vec![0; thresholds.len() * lanes(thresholds.len())],
            equal: vec![0; thresholds.len()],
            kernel: Kernel::detect(),
            table: Table::new(&thresholds),
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
        for chunk in row.chunks(TOGETHER) {
            let mut scores = [f32::NAN; TOGETHER];
            scores[..chunk.len()].copy_from_slice(chunk);
            if self.thresholds.len() > LINEAR {
                self.look_up(&scores);
                continue;
            }
            let (lanes, _) = self.reached.as_chunks_mut();
            if self.kernel.compare(&scores, &self.thresholds, lanes) {
                self.count_ties(&scores);
            }
        }
    }

    /// Apart, because scores of other items seldom equal a relevant one's to the last bit.
    fn count_ties(&mut self, scores: &[f32; TOGETHER]) {
        for (&threshold, equal) in self.thresholds.iter().zip(&mut self.equal) {
            *equal += scores.iter().filter(|&&score| score == threshold).count() as u32;
        }
    }

    fn look_up(&mut self, scores: &[f32; TOGETHER]) {
        let lowest = self.thresholds[0];
        for &score in scores.iter().filter(|&&score| score >= lowest) {
            let among = self.table.among(score);
            let reached = self.thresholds[among.clone()].partition_point(|&t| t <= score);
            let last = among.start + reached - 1;
            self.reached[last] += 1;
            self.equal[last] += u32::from(self.thresholds[last] == score);
        }
    }

    /// For each threshold: scores at or above it, and scores above it.
    pub fn totals(mut self) -> (Vec<u32>, Vec<u32>) {
        let lanes = self.reached.chunks_exact(lanes(self.thresholds.len()));
        let mut at_or_above: Vec<u32> = lanes.map(|lanes| lanes.iter().sum()).collect();
        if self.thresholds.len() > LINEAR {
            for i in (1..at_or_above.len()).rev() {
                at_or_above[i - 1] += at_or_above[i];
                if self.thresholds[i - 1] == self.thresholds[i] {
                    self.equal[i - 1] = self.equal[i];
                }
            }
        }
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
