//! Non-matching scores of all queries, counted together in the pass that ranks them.

use crate::topk::TOGETHER;

use super::bounds::{BINS, Bounds};
use super::cells::{CELLS, cell_of, cell_of_key, order_key, zeros};
use super::steps::StepCounts;

/// Scores that a bin has room for.
const BIN_ROOM: usize = 4096;

/// Beyond, those that wait might find no room.
const FULL: usize = BIN_ROOM - 2 * TOGETHER;

/// What one thread counts of non-matching scores.
///
/// A score whose cell holds bounds waits until there are some, so that most rows take no branch, and then in its bin, until
/// many that lie near it are looked up together: one by one as they come, they would find the bounds in a far cache.
pub struct PooledCounts {
    /// Keys.
    waiting: [u32; 2 * TOGETHER],
    n_waiting: usize,
    /// Keys: the first `n_gathered` places of each bin's room.
    gathered: Box<[u32; BINS * BIN_ROOM]>,
    n_gathered: [u16; BINS],
    /// As in [`PooledTotal`], since they were last added to it.
    cells: Box<[u32; CELLS]>,
    between: Vec<u32>,
    equal: Vec<u32>,
    /// Scores that may pass before one of them could overflow.
    room: u32,
    total: PooledTotal,
}

/// What all threads have counted of non-matching scores.
#[derive(Default)]
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
            waiting: [0; 2 * TOGETHER],
            n_waiting: 0,
            gathered: zeros(),
            n_gathered: [0; BINS],
            cells: zeros(),
            between: vec![0; bounds.matches.len() + 1],
            equal: vec![0; bounds.matches.len()],
            room: u32::MAX,
            total: PooledTotal::default(),
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
            self.gather(bounds);
            self.empty(bounds);
        }
        self.room -= TOGETHER as u32;
        // A NaN has a cell of its own, which nobody reads.
        let keys = scores.map(order_key);
        let cells = keys.map(|key| cell_of_key(key) as u32);
        let mut n_waiting = self.n_waiting;
        for (cell, key) in cells.into_iter().zip(keys) {
            let cell = cell as usize % CELLS;
            self.cells[cell] += 1;
            self.waiting[n_waiting % (2 * TOGETHER)] = key;
            n_waiting += usize::from(bounds.holds(cell));
        }
        self.n_waiting = n_waiting;
        if let Some(steps) = steps {
            steps.count(&cells);
        }
        if n_waiting >= TOGETHER {
            self.gather(bounds);
        }
    }

    /// Moves the waiting scores to their bins.
    #[inline(never)]
    fn gather(&mut self, bounds: &Bounds) {
        let mut most = 0;
        for &key in &self.waiting[..self.n_waiting] {
            let bin = bounds.bin_of(key);
            let n = usize::from(self.n_gathered[bin]);
            self.gathered[bin * BIN_ROOM + n % BIN_ROOM] = key;
            self.n_gathered[bin] += 1;
            most = most.max(n + 1);
        }
        self.n_waiting = 0;
        if most > FULL {
            for bin in 0..BINS {
                if usize::from(self.n_gathered[bin]) > FULL {
                    self.look_up(bin, bounds);
                }
            }
        }
    }

    /// Finds where the scores of a bin stand among the bounds.
    fn look_up(&mut self, bin: usize, bounds: &Bounds) {
        let n = usize::from(std::mem::take(&mut self.n_gathered[bin]));
        for &key in &self.gathered[bin * BIN_ROOM..][..n] {
            match bounds.place(bin, key) {
                (at, true) => self.equal[at] += 1,
                (below, false) => self.between[below] += 1,
            }
        }
    }

    /// Adds what was counted to the total; none may wait.
    fn empty(&mut self, bounds: &Bounds) {
        (0..BINS).for_each(|bin| self.look_up(bin, bounds));
        let counted = [&mut self.cells[..], &mut self.between, &mut self.equal];
        let PooledTotal {
            cells,
            between,
            equal,
        } = &mut self.total;
        for (total, counted) in [cells, between, equal].into_iter().zip(counted) {
            total.resize(counted.len(), 0);
            for (total, count) in total.iter_mut().zip(counted) {
                *total += u64::from(std::mem::take(count));
            }
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
            part.gather(bounds);
            part.empty(bounds);
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
                total.between[bounds.below_cell(cell)] += count;
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::sorted;
    use super::*;

    /// More scores than a bin has room for, many of them equal to a bound and some NaN, as if by two threads. The second
    /// adds its counts to the total on the way.
    #[test]
    fn counts_agree_with_looking_each_score_up() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut score =
            |digits: f32| (rng.gen_range(-1.0..1.0_f32) * digits).round() / digits + 0.0;
        let matches = sorted((0..2_000).map(|_| score(5_000.0)));
        let bounds = Bounds::new(&matches);
        let rows: Vec<[f32; 20]> = (0..4_000)
            .map(|_| std::array::from_fn(|i| if i == 7 { f32::NAN } else { score(20_000.0) }))
            .collect();
        let part = |rows: &[[f32; 20]], room: u32| {
            let mut counts = PooledCounts::new(&bounds);
            counts.room = room;
            for row in rows {
                counts.count(&bounds, None, row);
            }
            counts
        };
        let parts = vec![part(&rows[..2_500], u32::MAX), part(&rows[2_500..], 9_000)];
        let was_full = parts[0].between.iter().any(|&n| n > 0);
        let was_emptied = !parts[1].total.cells.is_empty();
        assert!(was_full && was_emptied);
        let total = PooledCounts::total(&bounds, parts);

        let mut between = vec![0; bounds.matches.len() + 1];
        let mut equal = vec![0; bounds.matches.len()];
        let mut of_cells = vec![0; CELLS];
        let scores: Vec<f32> = rows.concat().into_iter().filter(|s| !s.is_nan()).collect();
        for &score in &scores {
            of_cells[cell_of(score)] += 1;
            match bounds
                .matches
                .binary_search_by(|bound| bound.total_cmp(&score))
            {
                Ok(at) => equal[at] += 1,
                Err(below) => between[below] += 1,
            }
        }
        assert!(equal.iter().sum::<u64>() > 1_000);
        assert_eq!((total.between, total.equal), (between, equal));
        assert_eq!(total.cells, of_cells);
    }
}
