//! Embeddings rounded to 8-bit integers, and how far a score of such integers can lie from the exact one.
//!
//! An embedding x is stood for by x' = s c: codes c, integers from -127 to 127, times its own scale s. With e = x - x',
//!
//! ```text
//! q.g - q'.g' = q.(g - g') + (q - q').g',   so   |q.g - q'.g'| <= |q| |e_g| + |e_q| |g'|      (Cauchy, Schwarz)
//! ```
//!
//! The norms of the e are measured when the codes are made, not assumed. The exact score is a chain of dim fused
//! multiply-adds, so it lies within dim u / (1 - dim u) |q| |g| of q.g, where u = 2^-24 (Higham 2002, "Accuracy and
//! Stability of Numerical Algorithms", section 3.1), and 2^-149 a step where a product underflows.

use rayon::prelude::*;

use super::panels::Aligned;

/// Dimensions whose codes make one word.
pub const TOGETHER: usize = 4;

/// Beyond, an i32 might not hold a sum of products; also, the bounds here take dim u for small.
pub const MOST_DIMENSIONS: usize = 1 << 16;

/// The largest code.
const LARGEST: f32 = 127.0;

/// Added to a number of at most 2^22, it leaves no room for a fraction: the sum is rounded to the nearest integer, which its last bits
/// are. A cast handles one number at a time, because it looks for NaN: most of what it took to code a gallery (by a profile of
/// `cargo bench --bench scores -- search`).
const TO_INTEGERS: f32 = 1.5 * (1 << 23) as f32;

/// Half a unit in the last place of 1.0, relative to it.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// The smallest f32 above 0.
const TINY: f64 = 1.4e-45;

/// By so much what is computed here in f64 and rounded to f32 is made larger, so that it stays a bound.
const UPWARDS: f64 = 1.0 + 1e-6;

/// Which embeddings are coded: products take signed codes of one side and unsigned ones of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Signed.
    Queries,
    /// Each code raised by 128.
    Gallery,
}

impl Side {
    /// What turns the four signed codes of a word into those of the side.
    fn flip(self) -> u32 {
        match self {
            Side::Queries => 0,
            Side::Gallery => 0x8080_8080,
        }
    }
}

/// What one embedding's codes stand for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lane {
    /// s, normal and above 0.
    pub scale: f32,
    /// At least |x - x'|.
    pub error: f32,
    /// At least |x| and |x'|.
    pub norm: f32,
    /// The sum of the codes.
    pub sum: i32,
}

/// The codes of packed embeddings: four dimensions a word, words in panels like the embeddings.
#[derive(Default)]
pub struct Codes {
    words: Aligned<u32>,
    lanes: Vec<Lane>,
}

impl Codes {
    /// Room for the words and lanes of each panel.
    pub fn panels_mut(
        &mut self,
        n_panels: usize,
        width: usize,
        dim: usize,
    ) -> impl IndexedParallelIterator<Item = (&mut [u32], &mut [Lane])> {
        let words_a_panel = dim.div_ceil(TOGETHER) * width;
        self.words.resize(n_panels * words_a_panel);
        self.lanes.resize(n_panels * width, Lane::default());
        let words = self
            .words
            .as_mut_slice()
            .par_chunks_exact_mut(words_a_panel);
        words.zip(self.lanes.par_chunks_exact_mut(width))
    }

    /// All panels' words, one after the other.
    pub fn words(&self) -> &[u32] {
        self.words.as_slice()
    }

    /// One an embedding, the repeated ones too.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The largest of the norms.
    pub fn largest_norm(&self) -> f32 {
        self.lanes.iter().map(|lane| lane.norm).fold(0.0, f32::max)
    }
}

/// Codes the embeddings of a panel of W.
#[inline(always)]
pub fn encode<const W: usize>(side: Side, panel: &[f32], words: &mut [u32], lanes: &mut [Lane]) {
    let (columns, _) = panel.as_chunks::<W>();
    let mut largest = [0.0_f32; W];
    for column in columns {
        for (largest, value) in largest.iter_mut().zip(column) {
            *largest = largest.max(value.abs());
        }
    }
    // A loop, because `map` is not compiled for the caller's instruction set.
    let (mut scales, mut inverses) = ([0.0_f32; W], [0.0_f32; W]);
    for lane in 0..W {
        scales[lane] = (largest[lane] / LARGEST).max(f32::MIN_POSITIVE);
        inverses[lane] = 1.0 / scales[lane];
    }
    let (mut sums, mut squares, mut residuals) = ([0_i32; W], [0_i32; W], [0.0_f32; W]);
    let (word_rows, _) = words.as_chunks_mut::<W>();
    for (columns, words) in columns.chunks(TOGETHER).zip(word_rows) {
        *words = [side.flip(); W];
        for (byte, column) in columns.iter().enumerate() {
            for lane in 0..W {
                let scaled = column[lane] * inverses[lane];
                let shifted = scaled + TO_INTEGERS;
                let code = shifted.to_bits().cast_signed() - TO_INTEGERS.to_bits().cast_signed();
                let residual = scaled - (shifted - TO_INTEGERS);
                sums[lane] += code;
                squares[lane] += code * code;
                residuals[lane] += residual * residual;
                words[lane] ^= (code as u32 & 0xff) << (8 * byte);
            }
        }
    }
    let dim = columns.len() as f64;
    for (lane, coded) in lanes.iter_mut().enumerate() {
        let scale = f64::from(scales[lane]);
        // `scaled` is off by two roundings of a value up to 127, the sum of squares by one a step.
        let off = dim.sqrt() * f64::from(LARGEST) * 2.1 * UNIT;
        let residual = f64::from(residuals[lane]).sqrt() * (1.0 + (dim + 2.0) * UNIT) + off;
        let norm = f64::from(squares[lane]).sqrt() + residual;
        let upwards = |bound: f64| ((bound * UPWARDS) as f32).max(f32::MIN_POSITIVE);
        *coded = Lane {
            scale: scales[lane],
            error: upwards(scale * residual),
            norm: upwards(scale * norm),
            sum: sums[lane],
        };
    }
}

/// When a pair may reach a query's floor.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// What i begins with, because the gallery's codes are raised by 128.
    pub start: i32,
    /// |q| / s_q.
    pub weight: f32,
    /// The floor less what the other roundings can hide, over s_q.
    pub least: f32,
}

impl Limit {
    /// A query that wants all scores of at least `floor`, against items of norms up to `largest_norm`.
    pub fn new(query: &Lane, floor: f32, largest_norm: f32, dim: usize) -> Self {
        let mut limit = Self {
            start: query.sum.wrapping_mul(-128),
            weight: (f64::from(query.norm) / f64::from(query.scale) * UPWARDS) as f32,
            least: 0.0,
        };
        limit.set(query, floor, largest_norm, dim);
        limit
    }

    /// Whether a pair's score may reach the floor; `products` is the sum of the products of its codes.
    #[inline(always)]
    pub fn may_reach(&self, products: i32, scale: f32, error: f32) -> bool {
        self.weight.mul_add(error, products as f32 * scale) >= self.least
    }

    /// The query's floor has changed.
    pub fn set(&mut self, query: &Lane, floor: f32, largest_norm: f32, dim: usize) {
        let [norm, error, scale, largest_norm] =
            [query.norm, query.error, query.scale, largest_norm].map(f64::from);
        let dim = dim as f64;
        // 1.01 dim: the chain's roundings (dim u is below .004); 8: those of the comparison itself.
        let roundings = (1.01 * dim + 8.0) * UNIT * norm * largest_norm + dim * TINY;
        let least = (f64::from(floor) - error * largest_norm - roundings) / scale - TINY;
        self.least = (least as f32).next_down();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const W: usize = 3;

    fn coded(side: Side, rows: &[Vec<f32>; W]) -> (Vec<u32>, [Lane; W]) {
        let dim = rows[0].len();
        let panel: Vec<f32> = (0..dim)
            .flat_map(|d| rows.each_ref().map(|row| row[d]))
            .collect();
        let mut words = vec![0; dim.div_ceil(TOGETHER) * W];
        let mut lanes = [Lane::default(); W];
        encode::<W>(side, &panel, &mut words, &mut lanes);
        (words, lanes)
    }

    /// The codes of one row, as numbers.
    fn codes(side: Side, words: &[u32], lane: usize, dim: usize) -> Vec<i32> {
        let words = words.iter().skip(lane).step_by(W);
        let bytes = words.flat_map(|word| (word ^ side.flip()).to_le_bytes());
        let codes = bytes.map(|byte| i32::from(byte.cast_signed()));
        codes.take(dim).collect()
    }

    fn rows(dim: usize) -> impl Strategy<Value = [Vec<f32>; W]> {
        let exponents = prop_oneof![Just(0), Just(-30), Just(-140), Just(15), -3..3_i32];
        let value = (-1.0_f32..1.0, exponents).prop_map(|(x, e)| x * 2.0_f32.powi(e));
        let value = prop_oneof![4 => value, 1 => Just(0.0_f32), 1 => -1.0_f32..1.0];
        prop::array::uniform3(prop::collection::vec(value, dim))
    }

    proptest! {
        #[test]
        fn codes_are_as_far_from_their_row_as_they_say(rows in (1..70_usize).prop_flat_map(rows)) {
            for side in [Side::Queries, Side::Gallery] {
                let (words, lanes) = coded(side, &rows);
                for (lane, (row, coded)) in rows.iter().zip(&lanes).enumerate() {
                    let codes = codes(side, &words, lane, row.len());
                    prop_assert_eq!(coded.sum, codes.iter().sum::<i32>());
                    prop_assert!(codes.iter().all(|code| code.abs() <= 127));
                    let stood_for = codes.iter().map(|&code| f64::from(code) * f64::from(coded.scale));
                    let (mut error, mut norms) = (0.0, [0.0; 2]);
                    for (&x, stood_for) in row.iter().zip(stood_for) {
                        let x = f64::from(x);
                        error += (x - stood_for).powi(2);
                        norms[0] += x * x;
                        norms[1] += stood_for * stood_for;
                    }
                    prop_assert!(error.sqrt() <= f64::from(coded.error));
                    prop_assert!(norms.iter().all(|norm| norm.sqrt() <= f64::from(coded.norm)));
                    // Half a code in every dimension at most, or so small that it does not matter.
                    let most = 0.501 * f64::from(coded.scale) * (row.len() as f64).sqrt();
                    prop_assert!(f64::from(coded.error) <= most.max(1.2e-38));
                }
            }
        }

        /// The exact score itself as the floor: nothing may be lost, whatever the rounding.
        #[test]
        fn no_pair_that_reaches_the_floor_is_left_out(
            (queries, gallery) in (1..70_usize).prop_flat_map(|dim| (rows(dim), rows(dim))),
        ) {
            let dim = queries[0].len();
            let (query_words, of_queries) = coded(Side::Queries, &queries);
            let (gallery_words, of_gallery) = coded(Side::Gallery, &gallery);
            let largest = of_gallery.iter().map(|lane| lane.norm).fold(0.0, f32::max);
            let mut starts = [0; W];
            for (start, query) in starts.iter_mut().zip(&of_queries) {
                *start = Limit::new(query, 0.0, largest, dim).start;
            }
            let mut products = [[0; W]; W];
            super::super::tiles::portable_code_tile(&query_words, &gallery_words, &starts, &mut products);
            for (q, query) in queries.iter().enumerate() {
                for (g, item) in gallery.iter().enumerate() {
                    let codes_of = [
                        codes(Side::Queries, &query_words, q, dim),
                        codes(Side::Gallery, &gallery_words, g, dim),
                    ];
                    let naive: i32 = codes_of[0].iter().zip(&codes_of[1]).map(|(a, b)| a * b).sum();
                    prop_assert_eq!(products[q][g], naive);
                    let score = super::super::score_pair(query, item, crate::config::Similarity::Ip);
                    let limit = Limit::new(&of_queries[q], score, largest, dim);
                    let Lane { scale, error, .. } = of_gallery[g];
                    prop_assert!(limit.may_reach(naive, scale, error), "{score}");
                }
            }
        }
    }

    #[test]
    fn scores_far_below_the_floor_are_left_out() {
        let row = |seed: u32| -> Vec<f32> {
            let wave = |d: u32| ((d * d + seed * 7 + d * seed) % 101) as f32 / 50.0 - 1.0;
            (0..256).map(wave).collect()
        };
        let rows = [row(1), row(2), row(3)];
        let (query_words, of_queries) = coded(Side::Queries, &rows);
        let (words, lanes) = coded(Side::Gallery, &rows);
        let largest = lanes.iter().map(|lane| lane.norm).fold(0.0, f32::max);
        for (q, query) in of_queries.iter().enumerate() {
            for (g, lane) in lanes.iter().enumerate() {
                let a = codes(Side::Queries, &query_words, q, 256);
                let b = codes(Side::Gallery, &words, g, 256);
                let products = a.iter().zip(&b).map(|(a, b)| a * b).sum();
                let score =
                    super::super::score_pair(&rows[q], &rows[g], crate::config::Similarity::Ip);
                // 2 % of the norms' product: codes of 8 bits tell such scores apart.
                let floor = score + 0.02 * query.norm * lane.norm;
                let limit = Limit::new(query, floor, largest, 256);
                assert!(!limit.may_reach(products, lane.scale, lane.error));
            }
        }
    }

    /// The codes are exact, but the chain is not: beyond 2^25 every step rounds 125 x 127 up to a multiple of 4.
    #[test]
    fn the_roundings_of_the_chain_are_allowed_for() {
        let dim = 4_096;
        let row = |value: f32| -> Vec<f32> {
            (0..dim)
                .map(|d| if d == 0 { 127.0 } else { value })
                .collect()
        };
        let (query, item) = (row(127.0), row(125.0));
        let score = super::super::score_pair(&query, &item, crate::config::Similarity::Ip);
        let products = 127 * 127 + 127 * 125 * (dim as i32 - 1);
        assert!(score > products as f32 + 1_000.0);
        let (_, [query, ..]) = coded(Side::Queries, &[query.clone(), query.clone(), query]);
        let (_, [item, ..]) = coded(Side::Gallery, &[item.clone(), item.clone(), item]);
        assert_eq!((query.scale, item.scale), (1.0, 1.0));
        let limit = Limit::new(&query, score, item.norm, dim);
        assert!(limit.may_reach(products, item.scale, item.error));
    }
}
