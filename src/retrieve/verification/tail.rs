//! The non-matching scores around a false-accept rate, exactly: by cell, and in a few cells to the last bit.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::topk::TOGETHER;

use super::ScoreHistogram;
use super::cells::{SCORES_A_CELL, cell_of, first_key, first_score, order_key, score_of};
use super::steps::at_or_above;

/// How often each score of some cells occurs. The threads count together: few different scores fall into a window, and a
/// window is too large for each thread to have its own.
pub struct Windows {
    /// Scores below lie in no window.
    floor: f32,
    windows: Vec<Window>,
}

/// Neighbouring cells.
struct Window {
    first_key: u32,
    /// One a score.
    counts: Vec<AtomicU64>,
}

impl Windows {
    /// Nothing counted yet. The ranges of cells may overlap.
    pub fn new(mut ranges: Vec<Range<usize>>) -> Self {
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        let mut apart: Vec<Range<usize>> = Vec::new();
        for range in ranges {
            match apart.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        let window = |cells: &Range<usize>| Window {
            first_key: first_key(cells.start),
            counts: (0..cells.len() * SCORES_A_CELL)
                .map(|_| AtomicU64::new(0))
                .collect(),
        };
        let first = apart.first();
        let floor = first.map_or(f32::INFINITY, |cells| first_score(cells.start));
        Self {
            // The cell below the least number is no number.
            floor: if floor.is_nan() {
                f32::NEG_INFINITY
            } else {
                floor
            },
            windows: apart.iter().map(window).collect(),
        }
    }

    /// Scores below it count nowhere.
    pub fn floor(&self) -> f32 {
        self.floor
    }

    /// Counts the scores that are not NaN.
    #[inline(always)]
    pub fn count(&self, row: &[f32]) {
        let mut any = false;
        for &score in row {
            any |= score >= self.floor;
        }
        if any {
            self.take(row);
        }
    }

    fn take(&self, row: &[f32]) {
        for scores in row.chunks(TOGETHER) {
            let mut reaching = [0.0; TOGETHER];
            let mut n = 0;
            for &score in scores {
                reaching[n] = score;
                // NaN reaches no floor.
                n += usize::from(score >= self.floor);
            }
            // Equal scores, as of a collapsed model, are added at once: all threads want the same count.
            for run in reaching[..n].chunk_by(|a, b| a == b) {
                self.add(order_key(run[0]), run.len() as u64);
            }
        }
    }

    fn add(&self, key: u32, n: u64) {
        for window in &self.windows {
            // A key below the window wraps around to far above it.
            let at = key.wrapping_sub(window.first_key) as usize;
            if let Some(count) = window.counts.get(at) {
                count.fetch_add(n, Ordering::Relaxed);
            }
        }
    }

    /// One count a score of the cell; `None` when it lies in no window.
    fn of_cell(&self, cell: usize) -> Option<&[AtomicU64]> {
        let key = first_key(cell);
        self.windows.iter().find_map(|window| {
            let at = key.wrapping_sub(window.first_key) as usize;
            window.counts.get(at..at.checked_add(SCORES_A_CELL)?)
        })
    }
}

/// Non-matching scores of one pairing: their number in every cell, and windows of cells to the last bit.
pub struct NonMatches {
    cells: Vec<u64>,
    n: u64,
    windows: Vec<Windows>,
}

impl NonMatches {
    /// What one pass has counted.
    pub fn new(cells: Vec<u64>, windows: Windows) -> Self {
        Self {
            n: cells.iter().sum(),
            cells,
            windows: vec![windows],
        }
    }

    /// How many there are.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Non-matches in each cell or above it.
    pub fn at_or_above_cells(&self) -> Vec<u64> {
        at_or_above(self.cells.iter().copied())
    }

    /// Of these and the matching scores, which ascend.
    pub fn histogram(&self, matches: &[f32]) -> ScoreHistogram {
        ScoreHistogram::new(matches, &self.cells)
    }

    /// Of the cells that hold the answer to a question, those that lie in no window.
    pub fn unknown(&self, cells: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
        let unknown = |cell: &usize| self.cells[*cell] > 0 && self.of_cell(*cell).is_none();
        let unknown = cells.into_iter().filter(unknown);
        unknown.map(|cell| cell..cell + 1).collect()
    }

    /// Adds what another pass has counted.
    pub fn learn(&mut self, windows: Windows) {
        self.windows.push(windows);
    }

    fn of_cell(&self, cell: usize) -> Option<&[AtomicU64]> {
        self.windows
            .iter()
            .find_map(|windows| windows.of_cell(cell))
    }

    /// The scores of a cell that occur, ascending, and how often. The cell is empty or lies in a window.
    fn scores(&self, cell: usize) -> impl DoubleEndedIterator<Item = (f32, u64)> {
        let counts = self.of_cell(cell).unwrap_or_default().iter().enumerate();
        counts
            .map(move |(low, count)| (score_of(first_key(cell) + low as u32), count))
            .map(|(score, count)| (score, count.load(Ordering::Relaxed)))
            .filter(|&(_, count)| count > 0)
    }

    /// Where the score stands that is the first rejected when the `allowed` highest are accepted.
    fn rejecting(&self, allowed: u64) -> RejectingCell {
        let mut at_or_above = 0;
        let reaches = |&cell: &usize| {
            at_or_above += self.cells[cell];
            at_or_above > allowed
        };
        let cell = (0..self.cells.len())
            .rev()
            .find(reaches)
            .expect("a rate below 1 allows fewer false accepts than there are non-matches");
        RejectingCell {
            cell,
            above: at_or_above - self.cells[cell],
            next: (cell + 1..self.cells.len()).find(|&cell| self.cells[cell] > 0),
        }
    }

    /// The cells that hold the answer of [`NonMatches::threshold`].
    pub fn cells_at(&self, allowed: u64) -> impl IntoIterator<Item = usize> {
        let found = self.rejecting(allowed);
        std::iter::once(found.cell).chain(found.next)
    }

    /// The smallest observed score, of a match or a non-match, that accepts at most `allowed` non-matches, just above the
    /// highest of all when there is none; and how many it accepts. `matches` ascend.
    pub fn threshold(&self, allowed: u64, matches: &[f32]) -> (f32, u64) {
        let found = self.rejecting(allowed);
        let mut accepted = found.above;
        let mut rejected = None;
        let mut next_above = found.next.and_then(|next| self.scores(next).next());
        for (score, count) in self.scores(found.cell).rev() {
            if accepted + count > allowed {
                rejected = Some(score);
                break;
            }
            accepted += count;
            next_above = Some((score, count));
        }
        let rejected = rejected.expect("the cell lies in a window and holds the rejected score");
        let matching = matches
            .get(matches.partition_point(|&score| score <= rejected))
            .copied();
        let observed = next_above
            .map(|(score, _)| score)
            .into_iter()
            .chain(matching);
        let threshold = observed.min_by(f32::total_cmp);
        (threshold.unwrap_or(rejected.next_up()), accepted)
    }

    /// Non-matches at or above a score whose cell lies in a window.
    pub fn at_or_above(&self, score: f32) -> u64 {
        let cell = cell_of(score);
        let own = self.scores(cell).filter(|&(other, _)| other >= score);
        let above: u64 = self.cells[cell + 1..].iter().sum();
        above + own.map(|(_, count)| count).sum::<u64>()
    }
}

struct RejectingCell {
    cell: usize,
    /// Non-matches in higher cells.
    above: u64,
    /// The lowest of the higher cells that hold a non-match.
    next: Option<usize>,
}
