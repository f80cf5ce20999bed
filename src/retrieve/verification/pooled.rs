//! Non-matching scores of all queries, counted together in the pass that ranks them.

use super::tail::order_key;

/// The matching scores of all queries, between which the non-matching ones are counted.
pub struct Bounds {
    /// The distinct matching scores, ascending.
    pub matches: Vec<f32>,
    /// For the high 16 bits of a key, the first bound that has them or more; one more at the end.
    first: Vec<u32>,
}

impl Bounds {
    /// `matches` ascend.
    pub fn new(matches: &[f32]) -> Self {
        let mut matches = matches.to_vec();
        matches.dedup();
        let mut first = vec![0_u32; HIGH_BINS + 1];
        for &bound in &matches {
            first[high_bits(bound) + 1] += 1;
        }
        for bin in 0..HIGH_BINS {
            first[bin + 1] += first[bin];
        }
        Self { matches, first }
    }
}

/// Bins of the high 16 bits of an order-preserving key.
pub const HIGH_BINS: usize = 1 << 16;

fn high_bits(score: f32) -> usize {
    (order_key(score) >> 16) as usize
}

/// What one pass over all non-matching scores counts.
#[derive(Default)]
pub struct PooledCounts {
    /// Non-matches equal to each bound.
    pub equal: Vec<u64>,
    /// Non-matches below the first bound, between the bounds, above the last: one more than bounds.
    pub between: Vec<u64>,
    /// Non-matches by the high 16 bits of their order-preserving key.
    pub high: Vec<u64>,
}

impl PooledCounts {
    /// Nothing counted yet.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            equal: vec![0; bounds.matches.len()],
            between: vec![0; bounds.matches.len() + 1],
            high: vec![0; HIGH_BINS],
        }
    }

    /// Counts the scores that are not NaN.
    ///
    /// Nearly every score falls into a bin that holds no bound, where the bin's count says all.
    #[inline(always)]
    pub fn count(&mut self, bounds: &Bounds, row: &[f32]) {
        for &score in row {
            if score.is_nan() {
                continue;
            }
            let bin = high_bits(score);
            self.high[bin] += 1;
            let (first, end) = (bounds.first[bin], bounds.first[bin + 1]);
            if first < end {
                self.count_among(bounds, first as usize..end as usize, score);
            }
        }
    }

    fn count_among(&mut self, bounds: &Bounds, range: std::ops::Range<usize>, score: f32) {
        let among = &bounds.matches[range.clone()];
        let below = range.start + among.partition_point(|&bound| bound < score);
        if bounds.matches.get(below) == Some(&score) {
            self.equal[below] += 1;
        } else {
            self.between[below] += 1;
        }
    }

    /// Adds up what the threads counted. Whole numbers: their order does not matter.
    pub fn total(bounds: &Bounds, parts: Vec<PooledCounts>) -> PooledCounts {
        let mut total = PooledCounts::new(bounds);
        for part in &parts {
            let pairs = [
                (&mut total.equal, &part.equal),
                (&mut total.between, &part.between),
                (&mut total.high, &part.high),
            ];
            for (mine, theirs) in pairs {
                for (a, b) in mine.iter_mut().zip(theirs) {
                    *a += b;
                }
            }
        }
        for (bin, &count) in total.high.iter().enumerate() {
            let (first, end) = (bounds.first[bin], bounds.first[bin + 1]);
            if first == end {
                total.between[first as usize] += count;
            }
        }
        total
    }
}
