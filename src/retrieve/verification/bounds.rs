//! Where a score stands among the matching scores of all queries.

use super::cells::{CELLS, cell_of, cell_of_key, order_key, zeros};

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
pub const BINS: usize = 256;

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

    /// Whether a bound lies in the cell.
    #[inline(always)]
    pub fn holds(&self, cell: usize) -> bool {
        self.holds[cell / 64] >> (cell % 64) & 1 == 1
    }

    /// Bounds below the cell.
    pub fn below_cell(&self, cell: usize) -> usize {
        self.first[cell] as usize
    }

    /// The bin of the score of this key, below [`BINS`].
    #[inline(always)]
    pub fn bin_of(&self, key: u32) -> usize {
        usize::from(self.bin_of[cell_of_key(key) % CELLS])
    }

    /// How many bounds lie below a score of the bin, and whether the next equals it. The bin holds bounds.
    #[inline(always)]
    pub fn place(&self, bin: usize, key: u32) -> (usize, bool) {
        let below = self.bins[bin].below(key, &self.keys);
        (below, self.keys[below] == key)
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

#[cfg(test)]
mod tests {
    use super::super::cells::SCORES_A_CELL;
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
            if bounds.holds(cell_of(score)) {
                let below = matches.partition_point(|&bound| bound < score);
                let expected = (below, matches.get(below) == Some(&score));
                let key = order_key(score);
                assert_eq!(bounds.place(bounds.bin_of(key), key), expected, "{score}");
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
}
