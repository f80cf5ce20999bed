//! Softmaxes over many scores: their logarithmic sums and expectations, eight exponentials at a time.
//!
//! No step is fused and every sum has its order, so all machines give the same bits (`multiversion` chooses at run time
//! how many of the eight an instruction takes).

use multiversion::multiversion;

/// Terms that are summed apart.
const LANES: usize = 8;

/// Below it an exponential is no normal number; it is nothing beside a largest term of 1.
const LOWEST: f64 = -708.0;

/// 1 / n! for n from 11 down to 0.
const INVERSE_FACTORIALS: [f64; 12] = [
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    1.0 / 2.0,
    1.0,
    1.0,
];

/// e^x for x in [-708, 0]; what lies below counts as -708, and so does NaN. The relative error is below 1e-15.
///
/// x = k ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, Cody and Waite 1980), and e^r by its Taylor series to the
/// twelfth power, whose rest is below 2^-52 there. The library's function takes one number at a time.
#[inline(always)]
fn exp(x: f64) -> f64 {
    /// 1.5 * 2^52: adding it leaves a whole number in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    /// The first 33 bits of ln 2, so that k times it is exact, and the rest.
    const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_588e-10];
    let x = x.max(LOWEST);
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN_2[0]) - k * LN_2[1];
    let mut sum = 1.0 / 479_001_600.0;
    for inverse in INVERSE_FACTORIALS {
        sum = sum * r + inverse;
    }
    // k stands in the low bits of `shifted`; as an exponent it makes 2^k.
    sum * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0_f64.to_bits()))
}

#[inline(always)]
fn add_up(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// ln of a sum of e^(score / temperature) that grows as the scores come; NaN and -inf count nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogSumExp {
    per_temperature: f64,
    /// The largest score so far: exponentials are relative to it.
    largest: f64,
    sums: [f64; LANES],
}

impl LogSumExp {
    /// No scores yet; `temperature` > 0.
    pub(super) fn new(temperature: f64) -> Self {
        Self {
            per_temperature: temperature.recip(),
            largest: f64::NEG_INFINITY,
            sums: [0.0; LANES],
        }
    }

    /// Adds scores. The result depends on where they are cut only if a piece before the last is no multiple of eight long.
    pub(super) fn add(&mut self, scores: &[f32]) {
        add_to(self, scores);
    }

    #[inline(always)]
    fn add_eight(&mut self, scores: [f64; LANES]) {
        // `max` leaves NaN out.
        let largest = scores.iter().copied().fold(self.largest, f64::max);
        if largest > self.largest {
            let shrink = exp((self.largest - largest) * self.per_temperature);
            self.sums.iter_mut().for_each(|sum| *sum *= shrink);
            self.largest = largest;
        }
        for (sum, score) in self.sums.iter_mut().zip(scores) {
            *sum += exp((score - self.largest) * self.per_temperature);
        }
    }

    /// ln sum; -inf without scores.
    pub(super) fn value(&self) -> f64 {
        if self.largest == f64::NEG_INFINITY {
            return f64::NEG_INFINITY;
        }
        self.largest * self.per_temperature + add_up(self.sums).ln()
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn add_to(sum: &mut LogSumExp, scores: &[f32]) {
    let (eights, rest) = scores.as_chunks::<LANES>();
    for eight in eights {
        sum.add_eight(eight.map(f64::from));
    }
    if !rest.is_empty() {
        let mut last = [f64::NEG_INFINITY; LANES];
        for (lane, &score) in last.iter_mut().zip(rest) {
            *lane = f64::from(score);
        }
        sum.add_eight(last);
    }
}

/// ln sum of e^(score / temperature); -inf without scores.
pub(super) fn log_sum_exp(scores: &[f64], temperature: f64) -> f64 {
    expectation(scores, scores, temperature).0
}

/// ln sum of e^(score / temperature), -inf without scores, and the mean of `values` under the softmax. A score of -inf
/// has no weight; its value must be finite all the same.
pub(super) fn expectation(scores: &[f64], values: &[f64], temperature: f64) -> (f64, f64) {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return (f64::NEG_INFINITY, 0.0);
    }
    let (sum, weighted) = weighted_sums(scores, values, largest, temperature);
    (largest / temperature + sum.ln(), weighted / sum)
}

/// Sum of e^((score - largest) / temperature), and the same times the values.
#[multiversion(targets("x86_64+avx2"))]
fn weighted_sums(scores: &[f64], values: &[f64], largest: f64, temperature: f64) -> (f64, f64) {
    let per_temperature = temperature.recip();
    let (mut sums, mut weighted) = ([0.0; LANES], [0.0; LANES]);
    let (score_eights, score_rest) = scores.as_chunks::<LANES>();
    let (value_eights, value_rest) = values.as_chunks::<LANES>();
    for (scores, values) in score_eights.iter().zip(value_eights) {
        for lane in 0..LANES {
            let weight = exp((scores[lane] - largest) * per_temperature);
            sums[lane] += weight;
            weighted[lane] += weight * values[lane];
        }
    }
    for (lane, (score, value)) in score_rest.iter().zip(value_rest).enumerate() {
        let weight = exp((score - largest) * per_temperature);
        sums[lane] += weight;
        weighted[lane] += weight * value;
    }
    (add_up(sums), add_up(weighted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exp_agrees_with_the_library(x in -708.0_f64..0.0) {
            prop_assert!((exp(x) / x.exp() - 1.0).abs() < 1e-15, "{} {}", exp(x), x.exp());
        }

        #[test]
        fn sums_agree_with_the_naive_twin(
            scores in proptest::collection::vec(-1.0_f32..1.0, 1..70),
            temperature in 0.01_f64..2.0,
            cut in 0_usize..9,
        ) {
            let wide: Vec<f64> = scores.iter().copied().map(f64::from).collect();
            let terms = wide.iter().map(|s| (s / temperature).exp());
            let total: f64 = terms.clone().sum();
            let mean = terms.zip(&wide).map(|(term, s)| term * s).sum::<f64>() / total;
            let found = expectation(&wide, &wide, temperature);
            prop_assert!((found.0 - total.ln()).abs() < 1e-12 * total.ln().abs().max(1.0));
            prop_assert!((found.1 - mean).abs() < 1e-12);
            prop_assert_eq!(found.0, log_sum_exp(&wide, temperature));

            let mut whole = LogSumExp::new(temperature);
            whole.add(&scores);
            prop_assert!((whole.value() - total.ln()).abs() < 1e-12 * total.ln().abs().max(1.0));
            let mut in_parts = LogSumExp::new(temperature);
            let (first, second) = scores.split_at((8 * cut).min(scores.len()));
            in_parts.add(first);
            in_parts.add(&[f32::NAN; 8]);
            in_parts.add(second);
            prop_assert!((in_parts.value() - whole.value()).abs() < 1e-12);
        }
    }

    #[test]
    fn the_ends_are_defined() {
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f64::NEG_INFINITY) < 1e-300 && exp(f64::NAN) < 1e-300);
        assert_eq!(log_sum_exp(&[], 1.0), f64::NEG_INFINITY);
        assert_eq!(LogSumExp::new(1.0).value(), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f64::NEG_INFINITY, -900.0], 1.0), -900.0);
    }
}
