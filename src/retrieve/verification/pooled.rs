//! Non-matching scores of all queries, counted together in the pass that ranks them.

use crate::topk::TOGETHER;

use super::cells::{CELLS, cell_of, zeros};
use super::steps::StepCounts;

/// The matching scores of all queries, between which the non-matching ones are counted.
pub struct Bounds {
    /// The distinct matching scores, ascending.
    pub matches: Vec<f32>,
    /// For each cell, the first bound in it or above; one more at the end.
    first: Vec<u32>,
    /// A bit a cell: whether a bound lies in it.
    holds: Box<[u64; CELLS / 64]>,
}

impl Bounds {
    /// `matches` ascend.
    pub fn new(matches: &[f32]) -> Self {
        let mut matches = matches.to_vec();
        matches.dedup();
        let mut first = vec![0_u32; CELLS + 1];
        let mut holds = zeros();
        for &bound in &matches {
            let cell = cell_of(bound);
            first[cell + 1] += 1;
            holds[cell / 64] |= 1_u64 << (cell % 64);
        }
        for cell in 0..CELLS {
            first[cell + 1] += first[cell];
        }
        Self {
            matches,
            first,
            holds,
        }
    }

    #[inline(always)]
    fn holds(&self, cell: usize) -> bool {
        self.holds[cell / 64] >> (cell % 64) & 1 == 1
    }
}

/// What one thread counts of non-matching scores.
pub struct PooledCounts {
    /// Scores by cell, since they were last added to `total`.
    cells: Box<[u32; CELLS]>,
    /// Scores that may pass before a cell could overflow.
    room: u32,
    total: PooledTotal,
    /// Scores whose cells hold bounds: they wait until there are some, so that most rows take no branch.
    waiting: [f32; 2 * TOGETHER],
    n_waiting: usize,
}

/// What all threads have counted of non-matching scores.
pub struct PooledTotal {
    /// Non-matches equal to each bound.
    pub equal: Vec<u64>,
    /// Non-matches below the first bound, between the bounds, above the last: one more than bounds.
    pub between: Vec<u64>,
    /// Non-matches in each cell.
    pub cells: Vec<u64>,
}

impl PooledCounts {
    /// Nothing counted yet.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            cells: zeros(),
            room: u32::MAX,
            total: PooledTotal {
                equal: vec![0; bounds.matches.len()],
                between: vec![0; bounds.matches.len() + 1],
                cells: Vec::new(),
            },
            waiting: [f32::NAN; 2 * TOGETHER],
            n_waiting: 0,
        }
    }

    /// Counts the scores that are not NaN, and each query's own `steps` with them.
    ///
    /// Most fall into a cell without a bound, where the cell's count says all.
    #[inline(always)]
    pub fn count(&mut self, bounds: &Bounds, mut steps: Option<&mut StepCounts<'_>>, row: &[f32]) {
        let (whole, rest) = row.as_chunks::<TOGETHER>();
        for scores in whole {
            self.count_some(bounds, steps.as_deref_mut(), scores);
        }
        if !rest.is_empty() {
            let mut scores = [f32::NAN; TOGETHER];
            scores[..rest.len()].copy_from_slice(rest);
            self.count_some(bounds, steps, &scores);
        }
    }

    #[inline(always)]
    fn count_some(
        &mut self,
        bounds: &Bounds,
        steps: Option<&mut StepCounts<'_>>,
        scores: &[f32; TOGETHER],
    ) {
        if self.room < TOGETHER as u32 {
            self.empty_cells();
        }
        self.room -= TOGETHER as u32;
        // A NaN has a cell of its own, which nobody reads.
        let cells = scores.map(|score| cell_of(score) as u32);
        let mut n_waiting = self.n_waiting;
        for (&cell, &score) in cells.iter().zip(scores) {
            let cell = cell as usize % CELLS;
            self.cells[cell] += 1;
            self.waiting[n_waiting % (2 * TOGETHER)] = score;
            n_waiting += usize::from(bounds.holds(cell));
        }
        self.n_waiting = n_waiting;
        if let Some(steps) = steps {
            steps.count(&cells);
        }
        if n_waiting >= TOGETHER {
            self.look_up(bounds);
        }
    }

    /// Finds where the waiting scores stand among the bounds of their cells.
    #[inline(never)]
    fn look_up(&mut self, bounds: &Bounds) {
        for &score in &self.waiting[..self.n_waiting] {
            let cell = cell_of(score);
            let (first, end) = (bounds.first[cell], bounds.first[cell + 1]);
            let among = &bounds.matches[first as usize..end as usize];
            let below = first as usize + among.partition_point(|&bound| bound < score);
            if bounds.matches.get(below) == Some(&score) {
                self.total.equal[below] += 1;
            } else {
                self.total.between[below] += 1;
            }
        }
        self.n_waiting = 0;
    }

    fn empty_cells(&mut self) {
        self.total.cells.resize(CELLS, 0);
        for (total, count) in self.total.cells.iter_mut().zip(&mut self.cells[..]) {
            *total += u64::from(std::mem::take(count));
        }
        self.room = u32::MAX;
    }

    /// Adds up what the threads counted. Whole numbers: their order does not matter.
    pub fn total(bounds: &Bounds, parts: Vec<PooledCounts>) -> PooledTotal {
        let mut total = PooledTotal {
            equal: vec![0; bounds.matches.len()],
            between: vec![0; bounds.matches.len() + 1],
            cells: vec![0; CELLS],
        };
        for mut part in parts {
            part.empty_cells();
            part.look_up(bounds);
            let pairs = [
                (&mut total.equal, &part.total.equal),
                (&mut total.between, &part.total.between),
                (&mut total.cells, &part.total.cells),
            ];
            for (mine, theirs) in pairs {
                for (a, b) in mine.iter_mut().zip(theirs) {
                    *a += b;
                }
            }
        }
        total.cells[cell_of(f32::NAN)] = 0;
        for (cell, &count) in total.cells.iter().enumerate() {
            if !bounds.holds(cell) {
                total.between[bounds.first[cell] as usize] += count;
            }
        }
        total
    }
}
