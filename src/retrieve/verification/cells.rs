//! Scores in cells: the f32 in their order, 16,384 neighbouring ones a cell.

/// Low bits of a key that tell the scores of a cell apart. A cell is .0001 wide at a score of .1 and .0005 at .4: few
/// enough that those which occur stay in the nearest cache, and most hold no matching score.
const LOW_BITS: u32 = 14;

/// Cells there are.
pub const CELLS: usize = 1 << (32 - LOW_BITS);

/// Scores a cell has room for.
pub const SCORES_A_CELL: usize = 1 << LOW_BITS;

/// The cell of a score. NaN falls into a cell above all numbers.
#[inline(always)]
pub fn cell_of(score: f32) -> usize {
    cell_of_key(order_key(score))
}

/// The cell of the score of this key.
#[inline(always)]
pub fn cell_of_key(key: u32) -> usize {
    (key >> LOW_BITS) as usize
}

/// The least key of a cell.
pub fn first_key(cell: usize) -> u32 {
    (cell as u32) << LOW_BITS
}

/// The least score of a cell.
pub fn first_score(cell: usize) -> f32 {
    score_of(first_key(cell))
}

/// An f32's bits as an integer of the same order (+0 only: scores have no -0).
#[inline(always)]
pub fn order_key(score: f32) -> u32 {
    let bits = score.to_bits();
    // All ones for a negative number, only the sign for another.
    let flipped = ((bits as i32) >> 31) as u32 | 1 << 31;
    bits ^ flipped
}

/// Inverse of [`order_key`].
pub fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 {
        key & !(1 << 31)
    } else {
        !key
    })
}

/// A table of known size on the heap, so that an index that is a cell needs no check.
pub fn zeros<T: Default + Clone, const N: usize>() -> Box<[T; N]> {
    let table = vec![T::default(); N].into_boxed_slice();
    table
        .try_into()
        .unwrap_or_else(|_| unreachable!("it has N entries"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_keys_sort_like_scores_and_come_back() {
        let scores = [-2.0_f32, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0];
        assert!(
            scores
                .windows(2)
                .all(|pair| order_key(pair[0]) < order_key(pair[1]))
        );
        assert!(
            scores
                .iter()
                .all(|&score| score_of(order_key(score)) == score)
        );
        assert!(cell_of(f32::NAN) > cell_of(f32::INFINITY));
    }
}
