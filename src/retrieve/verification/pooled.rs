//! Non-matching scores of all queries, counted together in the pass that ranks them.

use crate::topk::TOGETHER;

use super::cells::{CELLS, SCORES_A_CELL, cell_of, order_key, zeros};
use super::steps::StepCounts;

/// The matching scores of all queries, between which the non-matching ones are counted.
pub struct Bounds {
    /// The distinct matching scores, ascending.
    pub matches: Vec<f32>,
    /// For each cell, the first bound in it or above; one more at the end.
    first: Vec<u32>,
    /// A bit a cell: whether a bound lies in it.
    holds: Box<[u64; CELLS / 64]>,
    /// Of each cell with bounds, where its pieces begin in `pieces`, and by how many bits a key is shifted to its piece.
    pieces_of: Vec<(u32, u32)>,
    /// For each piece of a cell, the first bound in it or above; one more at each cell's end.
    pieces: Vec<u32>,
}

/// Pieces of a cell for each bound in it: most hold one bound or none, however many lie close together, as those of a
/// model do whose cosines are all high.
const PIECES_A_BOUND: usize = 2;

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
        let mut pieces_of = vec![(0, 0); CELLS];
        let mut pieces = Vec::new();
        for (cell, pieces_of) in pieces_of.iter_mut().enumerate() {
            let (mut bound, end) = (first[cell], first[cell + 1]);
            if bound == end {
                continue;
            }
            let n = (PIECES_A_BOUND * (end - bound) as usize).next_power_of_two();
            let n = n.min(SCORES_A_CELL);
            let shift = (SCORES_A_CELL / n).trailing_zeros();
            *pieces_of = (pieces.len() as u32, shift);
            for piece in 0..n {
                while bound < end && piece_of(matches[bound as usize], shift) < piece {
                    bound += 1;
                }
                pieces.push(bound);
            }
            pieces.push(end);
        }
        Self {
            matches,
            first,
            holds,
            pieces_of,
            pieces,
        }
    }

    /// The bounds that a score, whose cell holds some, must be compared with: those below it are below the first, those
    /// above it at the end or above.
    #[inline(always)]
    fn among(&self, score: f32) -> (u32, u32) {
        let (pieces, shift) = self.pieces_of[cell_of(score)];
        let piece = pieces as usize + piece_of(score, shift);
        (self.pieces[piece], self.pieces[piece + 1])
    }

    #[inline(always)]
    fn holds(&self, cell: usize) -> bool {
        self.holds[cell / 64] >> (cell % 64) & 1 == 1
    }
}

/// The piece of its cell that a score lies in.
#[inline(always)]
fn piece_of(score: f32, shift: u32) -> usize {
    (order_key(score) as usize % SCORES_A_CELL) >> shift
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
        // In turns without a branch, so that the reads of many scores, which the nearest cache cannot hold, overlap.
        let waiting = &self.waiting[..self.n_waiting];
        let mut among = [(0, 0); 2 * TOGETHER];
        for (among, &score) in among.iter_mut().zip(waiting) {
            *among = bounds.among(score);
        }
        let last = bounds.matches.len() - usize::from(!bounds.matches.is_empty());
        let mut lowest = [0.0; 2 * TOGETHER];
        for (lowest, &(first, _)) in lowest.iter_mut().zip(&among[..waiting.len()]) {
            *lowest = bounds.matches[(first as usize).min(last)];
        }
        for ((&score, &(first, end)), &lowest) in waiting.iter().zip(&among).zip(&lowest) {
            let mut below = first as usize;
            let mut bound = lowest;
            if first < end && bound < score {
                below += 1;
                while below < end as usize && bounds.matches[below] < score {
                    below += 1;
                }
                bound = bounds.matches[below.min(last)];
            }
            if bound == score {
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
            part.look_up(bounds);
            for (total, &count) in total.cells.iter_mut().zip(&part.cells[..]) {
                *total += u64::from(count);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_found_however_close_they_lie() {
        // One a cell, four in one cell, all scores of a cell, and cells without any between them.
        let close = (0..4).map(|i| f32::from_bits(0.5_f32.to_bits() + i * 4_000));
        let crowded = (0..SCORES_A_CELL as u32).map(|i| f32::from_bits(0.75_f32.to_bits() + i));
        let mut matches: Vec<f32> = [-0.3, -0.1, 0.0, 0.2].into_iter().chain(close).collect();
        matches.extend(crowded);
        let bounds = Bounds::new(&matches);
        assert_eq!(bounds.matches, matches);
        let mut compared = 0;
        for score in matches
            .iter()
            .flat_map(|&bound| [bound.next_down(), bound, bound.next_up()])
        {
            if bounds.holds(cell_of(score)) {
                let (first, end) = bounds.among(score);
                let (first, end) = (first as usize, end as usize);
                let below = matches.partition_point(|&bound| bound < score);
                let at = below + usize::from(matches.get(below) == Some(&score));
                assert!(
                    first <= below && at <= end,
                    "{score}: {below} in {first}..{end}"
                );
                compared = compared.max(end - first);
            }
        }
        // All of the crowded cell lie each in a piece.
        assert_eq!(compared, 1);
    }
}
