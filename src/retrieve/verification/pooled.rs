//! Non-matching scores of all queries, counted together in the pass that ranks them.

use crate::topk::TOGETHER;

use super::cells::{CELLS, cell_of, cell_of_key, order_key, zeros};
use super::steps::StepCounts;

/// The matching scores of all queries, between which the non-matching ones are counted.
pub struct Bounds {
    /// The distinct matching scores, ascending.
    pub matches: Vec<f32>,
    /// Their keys, and two above all scores'.
    keys: Vec<u32>,
    /// For each cell, the first bound in it or above; one more at the end.
    first: Vec<u32>,
    /// A bit a cell: whether a bound lies in it.
    holds: Box<[u64; CELLS / 64]>,
    /// For each cell, its bin.
    bin_of: Box<[u8; CELLS]>,
    bins: Vec<Bin>,
}

/// Bins: as many as a byte can name.
const BINS: usize = 256;

/// Cells of a bin, at most: half of the bins hold all cells.
const CELLS_A_BIN: usize = 2 * CELLS / BINS;

/// Bounds of a bin, about: with what is counted of them they stay in a second-level cache.
const BOUNDS_A_BIN: u32 = 1024;

/// Pieces of a bin for each bound in it, at most.
const PIECES_A_BOUND: usize = 2;

/// Neighbouring cells and the bounds in them.
#[derive(Default)]
struct Bin {
    /// Key of the first bound.
    lowest: u32,
    /// By how many bits a key, less the lowest, is shifted to its piece.
    shift: u32,
    /// For each piece, the first bound in it or above; one more at the end.
    first: Vec<u32>,
}

impl Bin {
    /// `keys` are those of its bounds, at least one, which begin with bound `begin`.
    fn new(keys: &[u32], begin: u32) -> Self {
        let lowest = keys[0];
        let span = keys[keys.len() - 1] - lowest;
        let room = (PIECES_A_BOUND * keys.len()) as u64;
        let mut shift = 0;
        while u64::from(span >> shift) >= room {
            shift += 1;
        }
        let below = |piece: u32| keys.partition_point(|&key| (key - lowest) >> shift < piece);
        let pieces = 0..=(span >> shift) + 1;
        Self {
            lowest,
            shift,
            first: pieces.map(|piece| begin + below(piece) as u32).collect(),
        }
    }

    /// How many of all bounds, whose keys these are, lie below a score of the bin.
    #[inline(always)]
    fn below(&self, key: u32, keys: &[u32]) -> usize {
        let piece = (key.saturating_sub(self.lowest) >> self.shift) as usize;
        let piece = piece.min(self.first.len() - 2);
        let first = self.first[piece] as usize;
        // Most pieces hold two bounds at most, and those above lie above the score: no guess, which would often be wrong.
        let below = first + usize::from(keys[first] < key) + usize::from(keys[first + 1] < key);
        if keys[below] < key {
            let rest = &keys[below..self.first[piece + 1] as usize];
            return below + rest.partition_point(|&other| other < key);
        }
        below
    }
}

impl Bounds {
    /// `matches` ascend.
    pub fn new(matches: &[f32]) -> Self {
        let mut matches = matches.to_vec();
        matches.dedup();
        let mut keys: Vec<u32> = matches.iter().map(|&score| order_key(score)).collect();
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
        let bin_of = bins(&first);
        let mut bins = Vec::new();
        let mut begin = 0;
        for cells in bin_of.chunk_by(|a, b| a == b) {
            let of_bin = first[begin]..first[begin + cells.len()];
            begin += cells.len();
            let keys = &keys[of_bin.start as usize..of_bin.end as usize];
            bins.push(if keys.is_empty() {
                Bin::default()
            } else {
                Bin::new(keys, of_bin.start)
            });
        }
        keys.extend([u32::MAX; 2]);
        Self {
            matches,
            keys,
            first,
            holds,
            bin_of,
            bins,
        }
    }

    #[inline(always)]
    fn holds(&self, cell: usize) -> bool {
        self.holds[cell / 64] >> (cell % 64) & 1 == 1
    }
}

/// The bin of each cell, rising. `first` is that of [`Bounds`].
fn bins(first: &[u32]) -> Box<[u8; CELLS]> {
    // Bins that end for their bounds, and those that end for their cells, are one less than half and half at most.
    let full = BOUNDS_A_BIN.max(first[CELLS].div_ceil(BINS as u32 / 2 - 1));
    let mut bin_of = zeros();
    let (mut bin, mut begin) = (0, 0);
    for cell in 0..CELLS {
        if cell - begin == CELLS_A_BIN || first[cell] - first[begin] >= full {
            (bin, begin) = (bin + 1, cell);
        }
        bin_of[cell] = bin;
    }
    bin_of
}

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
            let bin = usize::from(bounds.bin_of[cell_of_key(key) % CELLS]);
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
            let below = bounds.bins[bin].below(key, &bounds.keys);
            if bounds.keys[below] == key {
                self.equal[below] += 1;
            } else {
                self.between[below] += 1;
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
                total.between[bounds.first[cell] as usize] += count;
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::cells::SCORES_A_CELL;
    use super::super::sorted;
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
        for score in matches
            .iter()
            .flat_map(|&bound| [bound.next_down(), bound, bound.next_up()])
        {
            let bin = &bounds.bins[usize::from(bounds.bin_of[cell_of(score)])];
            if bounds.holds(cell_of(score)) {
                let below = matches.partition_point(|&bound| bound < score);
                assert_eq!(bin.below(order_key(score), &bounds.keys), below, "{score}");
            }
        }
    }

    #[test]
    fn bins_hold_few_bounds_and_all_have_a_byte() {
        // As many bounds as there are scores in eight cells, and one in each other cell.
        let crowded = (0..8 * SCORES_A_CELL as u32).map(|i| 0.75_f32.to_bits() + i);
        let spread = (0..0.75_f32.to_bits()).step_by(SCORES_A_CELL);
        let matches: Vec<f32> = spread.chain(crowded).map(f32::from_bits).collect();
        let bounds = Bounds::new(&matches);
        let full = matches.len() / (BINS / 2 - 1) + 1;
        let of_bin: Vec<(usize, usize)> = bounds
            .bin_of
            .chunk_by(|a, b| a == b)
            .scan(0, |begin, bin| {
                let cells = *begin..*begin + bin.len();
                *begin = cells.end;
                let n = bounds.first[cells.end] - bounds.first[cells.start];
                Some((bin.len(), n as usize))
            })
            .collect();
        assert!(bounds.bin_of.is_sorted());
        assert_eq!(of_bin.len(), usize::from(bounds.bin_of[CELLS - 1]) + 1);
        for (n_cells, n_bounds) in of_bin {
            assert!(n_cells <= CELLS_A_BIN);
            // A bin ends with the cell that fills it.
            assert!(n_bounds < full + SCORES_A_CELL);
        }
    }

    /// More scores than a bin has room for, many of them equal to a bound and some NaN, by two threads.
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
        let parts = rows.chunks(2_500).map(|rows| {
            let mut counts = PooledCounts::new(&bounds);
            for row in rows {
                counts.count(&bounds, None, row);
            }
            counts
        });
        let total = PooledCounts::total(&bounds, parts.collect());

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
