//! The non-matching scores around one false-accept rate, exactly, from integer histograms.

/// The non-matching scores around one false-accept rate: the `allowed` highest are accepted, the next is rejected.
#[derive(Clone)]
pub struct Tail {
    allowed: u64,
    /// High 16 bits of the rejected score's key.
    bin: usize,
    /// Non-matches above the bin.
    above_bin: u64,
    /// The next bin above that holds a non-match.
    next_bin: Option<usize>,
    /// Low 16 bits: non-matches of the bin, from the second pass.
    low: Vec<u64>,
    /// Smallest key of `next_bin`, from the second pass.
    next_bin_smallest: Option<u32>,
}

impl Tail {
    pub fn new(high: &[u64], allowed: u64) -> Self {
        let mut at_or_above = 0;
        let bin = (0..high.len())
            .rev()
            .find(|&bin| {
                at_or_above += high[bin];
                at_or_above > allowed
            })
            .expect("a rate below 1 allows fewer false accepts than there are non-matches");
        Self {
            allowed,
            bin,
            above_bin: at_or_above - high[bin],
            next_bin: (bin + 1..high.len()).find(|&bin| high[bin] > 0),
            low: vec![0; 1 << 16],
            next_bin_smallest: None,
        }
    }

    pub fn count(&mut self, key: u32) {
        let bin = (key >> 16) as usize;
        if bin == self.bin {
            self.low[(key & 0xffff) as usize] += 1;
        } else if Some(bin) == self.next_bin {
            self.next_bin_smallest = Some(self.next_bin_smallest.map_or(key, |k| k.min(key)));
        }
    }

    /// No score below it need be counted.
    pub fn lowest_score(&self) -> f32 {
        score_of((self.bin as u32) << 16)
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: &Tail) {
        for (mine, theirs) in self.low.iter_mut().zip(&other.low) {
            *mine += theirs;
        }
        let smallest = [self.next_bin_smallest, other.next_bin_smallest];
        self.next_bin_smallest = smallest.into_iter().flatten().min();
    }

    /// Low bits of the rejected score and how many non-matches lie above it.
    fn rejected(&self) -> (usize, u64) {
        let mut at_or_above = self.above_bin;
        let low = (0..self.low.len())
            .rev()
            .find(|&low| {
                at_or_above += self.low[low];
                at_or_above > self.allowed
            })
            .expect("the bin holds the rejected score");
        (low, at_or_above - self.low[low])
    }

    pub fn accepted(&self) -> u64 {
        self.rejected().1
    }

    /// Smallest observed score above the rejected one, of a match or a non-match; just above it when there is none.
    pub fn threshold(&self, matches: &[f32]) -> f32 {
        let (low, _) = self.rejected();
        let key_of = |low: usize| ((self.bin as u32) << 16) | low as u32;
        let rejected = score_of(key_of(low));
        let non_match = (low + 1..self.low.len())
            .find(|&low| self.low[low] > 0)
            .map(key_of)
            .or(self.next_bin_smallest)
            .map(score_of);
        let matching = matches
            .get(matches.partition_point(|&score| score <= rejected))
            .copied();
        match (non_match, matching) {
            (Some(a), Some(b)) => a.min(b),
            (Some(score), None) | (None, Some(score)) => score,
            (None, None) => rejected.next_up(),
        }
    }
}

/// An f32's bits as an integer of the same order (+0 only: scores have no -0).
pub fn order_key(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// Inverse of [`order_key`].
pub fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 {
        key & !(1 << 31)
    } else {
        !key
    })
}
