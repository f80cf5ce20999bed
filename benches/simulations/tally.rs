//! Counts of runs and their Monte-Carlo interval.

use std::fmt;

use compat_audit::stats::proportion_estimate;
use rayon::prelude::*;

/// How many of the runs something held in.
#[derive(Clone, Copy)]
pub struct Tally {
    pub hits: usize,
    pub runs: usize,
}

impl Tally {
    /// Clopper and Pearson's two-sided 95 % interval of the rate.
    pub fn interval(self) -> (f64, f64) {
        let hits: Vec<bool> = (0..self.runs).map(|run| run < self.hits).collect();
        let each_its_own: Vec<u32> = (0..self.runs as u32).collect();
        let found = proportion_estimate(&hits, &each_its_own, None, 0.95);
        (found.lower, found.upper)
    }

    /// Share of the runs.
    pub fn rate(self) -> f64 {
        self.hits as f64 / self.runs as f64
    }
}

impl fmt::Display for Tally {
    /// Per cent, with the interval.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lower, upper) = self.interval();
        write!(
            f,
            "{:.1} [{:.1}, {:.1}]",
            100.0 * self.rate(),
            100.0 * lower,
            100.0 * upper
        )
    }
}

/// Runs 0 to `runs` in parallel; `N` yes-or-no outcomes each.
pub fn tally<const N: usize>(runs: u64, outcomes: impl Fn(u64) -> [bool; N] + Sync) -> [Tally; N] {
    let hits = (0..runs)
        .into_par_iter()
        .map(|run| outcomes(run).map(usize::from))
        .reduce(|| [0; N], |a, b| std::array::from_fn(|i| a[i] + b[i]));
    hits.map(|hits| Tally {
        hits,
        runs: runs as usize,
    })
}
