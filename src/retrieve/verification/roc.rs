//! The ROC curve from counts at the distinct matching scores.

use super::bounds::Bounds;
use super::pooled::PooledTotal;

/// Matches and non-matches at each distinct matching score, ascending.
pub struct RocCurve {
    matches: Vec<f64>,
    equal: Vec<f64>,
    between: Vec<f64>,
    n_matches: f64,
    n_non_matches: f64,
}

impl RocCurve {
    pub fn new(matches: &[f32], bounds: &Bounds, counts: &PooledTotal) -> Self {
        let at = |bound: &f32| {
            matches.partition_point(|score| score <= bound)
                - matches.partition_point(|score| score < bound)
        };
        let to_f64 = |counts: &[u64]| counts.iter().map(|&count| count as f64).collect::<Vec<_>>();
        let n_non_matches = counts.equal.iter().sum::<u64>() + counts.between.iter().sum::<u64>();
        Self {
            matches: bounds
                .matches
                .iter()
                .map(|bound| at(bound) as f64)
                .collect(),
            equal: to_f64(&counts.equal),
            between: to_f64(&counts.between),
            n_matches: matches.len() as f64,
            n_non_matches: n_non_matches as f64,
        }
    }

    /// Share of (match, non-match) pairs in the right order, ties one half (Mann-Whitney).
    pub fn auroc(&self) -> f64 {
        let mut below = 0.0;
        let mut ordered = 0.0;
        for i in 0..self.matches.len() {
            below += self.between[i];
            ordered += self.matches[i] * (below + self.equal[i] / 2.0);
            below += self.equal[i];
        }
        ordered / (self.n_matches * self.n_non_matches)
    }

    /// The error where FAR = FRR, walking the ROC curve from the strictest threshold down.
    pub fn equal_error_rate(&self) -> f64 {
        let (mut far, mut frr) = (0.0, 1.0);
        for i in (0..self.matches.len()).rev() {
            far += self.between[i + 1] / self.n_non_matches;
            if far >= frr {
                return frr;
            }
            let (step_far, step_frr) = (
                self.equal[i] / self.n_non_matches,
                self.matches[i] / self.n_matches,
            );
            if far + step_far >= frr - step_frr {
                let share = (frr - far) / (step_far + step_frr);
                return far + share * step_far;
            }
            far += step_far;
            frr -= step_frr;
        }
        frr.max(0.0)
    }
}
