//! The bias-corrected and accelerated bootstrap over identities (Efron 1987, "Better bootstrap
//! confidence intervals").

use std::sync::{Arc, Mutex, PoisonError};

use multiversion::multiversion;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::descriptive::quantile;
use super::{normal_cdf, normal_quantile, ratio_of_sums};

/// A share of replicates is read off only with this many on both sides: its relative error is then below
/// 1/sqrt(20), .05 on the scale of a normal deviate at one in a thousand.
const RESOLVED: usize = 20;

/// How identities are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Number of replicates.
    pub replicates: usize,
    /// Seed; replicate r draws from stream r of this seed, so threads cannot move an interval.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 10,000 replicates: the Monte-Carlo error of a 5 % end is then about .02 standard errors.
    fn default() -> Self {
        Self {
            replicates: 10_000,
            seed: 0,
        }
    }
}

impl Bootstrap {
    /// The bootstrap distribution of sum(a) / sum(b), resampling the index of both.
    ///
    /// Needs at least two identities. Replicates whose denominator is 0 have no value and are left out; `None`
    /// when none is left.
    pub(super) fn bca(&self, a: &[f64], b: &[f64]) -> Option<Bca> {
        let replicates = self.map_replicates(a.len(), |weights| ratio_of_draws(weights, a, b));
        Bca::of_ratio(replicates, a, b)
    }

    /// `f(how often each of g identities is drawn in g draws)` for every replicate, in their order.
    pub(super) fn map_replicates<T: Send>(
        &self,
        g: usize,
        f: impl Fn(&[u16]) -> T + Sync + Send,
    ) -> Vec<T> {
        if self.replicates * g * size_of::<u16>() <= REMEMBERED_BYTES {
            let draws = self.remembered(g);
            return draws.par_chunks_exact(g.max(1)).map(f).collect();
        }
        (0..self.replicates as u64)
            .into_par_iter()
            .map_init(
                || vec![0; g],
                |weights, replicate| {
                    self.draw(replicate, weights);
                    f(weights)
                },
            )
            .collect()
    }

    /// The draws of all replicates, one after the other. An audit asks for dozens of intervals of the same identities, and
    /// drawing costs more than summing up, so the last draws are kept.
    fn remembered(&self, g: usize) -> Arc<Vec<u16>> {
        /// With how they were drawn, and for how many identities.
        type Drawn = (Bootstrap, usize, Arc<Vec<u16>>);
        static LAST: Mutex<Vec<Drawn>> = Mutex::new(Vec::new());
        let lock = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock()
            .iter()
            .find(|(bootstrap, n, _)| (bootstrap, *n) == (self, g))
            .map(|(_, _, draws)| Arc::clone(draws));
        known.unwrap_or_else(|| {
            let mut draws = vec![0; self.replicates * g];
            draws
                .par_chunks_exact_mut(g.max(1))
                .enumerate()
                .for_each(|(replicate, weights)| self.draw(replicate as u64, weights));
            let draws = Arc::new(draws);
            let mut last = lock();
            last.truncate(REMEMBERED - 1);
            last.insert(0, (*self, g, Arc::clone(&draws)));
            draws
        })
    }

    /// One replicate's draws.
    fn draw(&self, replicate: u64, weights: &mut [u16]) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(replicate);
        weights.fill(0);
        let g = weights.len() as u64;
        for _ in 0..g {
            // Multiply-shift: uneven by at most g / 2^32, and no draw is ever rejected.
            let index = (u64::from(rng.next_u32()) * g) >> 32;
            let weight = &mut weights[index as usize];
            *weight = weight.saturating_add(1);
        }
    }
}

/// Bytes of draws that may be remembered for one number of identities.
const REMEMBERED_BYTES: usize = 32 << 20;

/// Numbers of identities whose draws are remembered.
const REMEMBERED: usize = 2;

/// sum(a) / sum(b) of one replicate.
pub(super) fn ratio_of_draws(weights: &[u16], a: &[f64], b: &[f64]) -> f64 {
    let [sum_a, sum_b] = weighted_sums(weights, a, b);
    sum_a / sum_b
}

/// Sums of both times the weights, in eight chains each, side by side: one alone waits for each of its additions. No step
/// is fused, so all machines agree.
#[multiversion(targets("x86_64+avx2"))]
fn weighted_sums(weights: &[u16], a: &[f64], b: &[f64]) -> [f64; 2] {
    const LANES: usize = 8;
    let (weight_eights, weight_rest) = weights.as_chunks::<LANES>();
    let (a_eights, a_rest) = a.as_chunks::<LANES>();
    let (b_eights, b_rest) = b.as_chunks::<LANES>();
    let (mut sum_a, mut sum_b) = ([0.0; LANES], [0.0; LANES]);
    for ((weights, a), b) in weight_eights.iter().zip(a_eights).zip(b_eights) {
        for lane in 0..LANES {
            let weight = f64::from(weights[lane]);
            sum_a[lane] += weight * a[lane];
            sum_b[lane] += weight * b[lane];
        }
    }
    for (lane, ((&weight, a), b)) in weight_rest.iter().zip(a_rest).zip(b_rest).enumerate() {
        sum_a[lane] += f64::from(weight) * a;
        sum_b[lane] += f64::from(weight) * b;
    }
    [sum_a, sum_b].map(|[a, b, c, d, e, f, g, h]| ((a + e) + (c + g)) + ((b + f) + (d + h)))
}

/// A bootstrap distribution with Efron's two corrections.
pub(super) struct Bca {
    /// Replicates, ascending, all finite.
    sorted: Vec<f64>,
    /// z0, the bias correction.
    correction: f64,
    /// a, the acceleration.
    acceleration: f64,
}

impl Bca {
    /// Of replicates of sum(a) / sum(b); `None` as for [`Bca::of`].
    pub(super) fn of_ratio(replicates: Vec<f64>, a: &[f64], b: &[f64]) -> Option<Self> {
        Self::of(replicates, ratio_of_sums(a, b), acceleration(a, b))
    }

    /// Of replicates of a statistic whose acceleration the caller knows. Values that are not finite are left out; `None` when
    /// none is left.
    pub(super) fn of(mut replicates: Vec<f64>, value: f64, acceleration: f64) -> Option<Self> {
        replicates.retain(|r| r.is_finite());
        if replicates.is_empty() {
            return None;
        }
        replicates.sort_unstable_by(f64::total_cmp);
        Some(Self {
            correction: bias_correction(&replicates, value),
            acceleration,
            sorted: replicates,
        })
    }

    /// The end at the nominal deviate `z` (-1.645 for Efron's lower 5 % end): the replicates' quantile at
    /// Phi(z0 + (z0 + z) / (1 - a (z0 + z))).
    pub(super) fn end(&self, z: f64) -> f64 {
        let z = self.correction + z;
        let shrink = 1.0 - self.acceleration * z;
        // Past its pole the transformation has no meaning; its limit is the most extreme replicate.
        let share = if shrink > 0.0 {
            normal_cdf(self.correction + z / shrink)
        } else if z > 0.0 {
            1.0
        } else {
            0.0
        };
        quantile(&self.sorted, share)
    }

    /// The nominal deviate whose [`Bca::end`] lies on `limit`; infinite when none or every end is short of it.
    ///
    /// `far` gives the normal deviate of the bootstrap distribution at the limit (Phi of it is the share of
    /// replicates below) where fewer than [`RESOLVED`] replicates lie beyond.
    pub(super) fn deviate(&self, limit: f64, far: impl FnOnce() -> f64) -> f64 {
        let n = self.sorted.len();
        let below = self.sorted.partition_point(|&r| r < limit);
        let not_above = self.sorted.partition_point(|&r| r <= limit);
        let w = if not_above < RESOLVED || n - below < RESOLVED {
            far()
        } else {
            // Ties count half, as in the bias correction.
            normal_quantile(0.5 * (below + not_above) as f64 / n as f64)
        } - self.correction;
        // Inverts the transformation of `end`: w = y / (1 - a y) with y = z0 + z.
        if w.is_infinite() && self.acceleration == 0.0 {
            return w;
        }
        let grow = 1.0 + self.acceleration * w;
        if grow <= 0.0 {
            // Past the pole.
            w.signum() * f64::INFINITY
        } else if grow.is_infinite() {
            // The limit of w / (1 + a w).
            self.acceleration.recip() - self.correction
        } else {
            w / grow - self.correction
        }
    }
}

/// z0: the normal quantile of the share of replicates below the value, ties counted half.
///
/// The share is kept half a replicate away from 0 and 1, so that z0 is finite.
fn bias_correction(sorted: &[f64], value: f64) -> f64 {
    let tolerance = tie_tolerance(sorted, value);
    let below = sorted.partition_point(|&r| r < value - tolerance) as f64;
    let not_above = sorted.partition_point(|&r| r <= value + tolerance) as f64;
    let n = sorted.len() as f64;
    let share = (below + 0.5 * (not_above - below)) / n;
    normal_quantile(share.clamp(0.5 / n, 1.0 - 0.5 / n))
}

/// How far a replicate may lie from `value` and still be equal to it.
///
/// Discrete quantities (flips) give replicates that equal a value but for the order of the sum. The rounding of n terms
/// grows like sqrt(n) EPSILON, 2e-14 of their size at 10,000 identities.
pub(super) fn tie_tolerance(sorted: &[f64], value: f64) -> f64 {
    let spread = sorted[sorted.len() - 1] - sorted[0];
    1e-12 * value.abs().max(spread)
}

/// The acceleration from the jackknife over identities:
/// sum (m - t_g)^3 / (6 (sum (m - t_g)^2)^1.5), t_g the value without identity g and m the mean of t_g.
fn acceleration(a: &[f64], b: &[f64]) -> f64 {
    let (sum_a, sum_b) = (a.iter().sum::<f64>(), b.iter().sum::<f64>());
    let left_out: Vec<f64> = a
        .iter()
        .zip(b)
        .map(|(a, b)| (sum_a - a) / (sum_b - b))
        .collect();
    let mean = left_out.iter().sum::<f64>() / left_out.len() as f64;
    let (mut squares, mut cubes) = (0.0, 0.0);
    for t in left_out {
        let d = mean - t;
        squares += d * d;
        cubes += d * d * d;
    }
    let acceleration = cubes / (6.0 * squares.powf(1.5));
    // 0/0 when leaving any identity out changes nothing: then there is no skew to correct.
    if acceleration.is_finite() {
        acceleration
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half_and_an_extreme_value_stays_finite() {
        assert_eq!(bias_correction(&[1.0, 2.0, 2.0, 3.0], 2.0), 0.0);
        // A tie that differs only by the order of its sum is a tie.
        let almost = 0.1 + 0.2;
        assert_eq!(bias_correction(&[0.0, almost, 1.0], 0.3), 0.0);
        let z = bias_correction(&[1.0, 2.0, 3.0, 4.0], 9.0);
        assert!((z - normal_quantile(0.875)).abs() < 1e-12);
    }

    #[test]
    fn the_deviate_of_a_limit_inverts_the_end_and_is_never_nan() {
        let bca = |acceleration: f64| Bca {
            sorted: (0..=1_000).map(f64::from).collect(),
            correction: 0.1,
            acceleration,
        };
        for acceleration in [-0.1, 0.0, 0.1] {
            for z in [-1.5, 0.0, 1.5] {
                let limit = bca(acceleration).end(z);
                let found = bca(acceleration).deviate(limit, || unreachable!("resolved"));
                // One replicate of 1,000 at the deviate 1.8 is .02 of it.
                assert!((found - z).abs() < 0.03, "{acceleration} {z}: {found}");
            }
        }
        // Beyond the replicates `far` answers, be it with infinity.
        assert_eq!(
            bca(0.0).deviate(-1.0, || f64::NEG_INFINITY),
            f64::NEG_INFINITY
        );
        assert_eq!(bca(0.0).deviate(2_000.0, || f64::INFINITY), f64::INFINITY);
        assert_eq!(
            bca(0.1).deviate(-1.0, || f64::NEG_INFINITY),
            f64::NEG_INFINITY
        );
        assert!((bca(0.1).deviate(2_000.0, || f64::INFINITY) - 9.9).abs() < 1e-12);
        assert!((bca(-0.1).deviate(-1.0, || f64::NEG_INFINITY) + 10.1).abs() < 1e-12);
    }

    #[test]
    fn symmetric_samples_have_no_acceleration_and_skewed_ones_their_skew() {
        let ones = [1.0; 4];
        assert!(acceleration(&[-2.0, -1.0, 1.0, 2.0], &ones).abs() < 1e-15);
        assert_eq!(acceleration(&[1.0; 4], &ones), 0.0);
        // Mean of x = (0, 0, 0, 4): m - t_g = (x_g - 1)/3 = (-1, -1, -1, 3)/3,
        // a = (24/27) / (6 (12/9)^1.5).
        let expected = (24.0 / 27.0) / (6.0 * (12.0_f64 / 9.0).powf(1.5));
        assert!((acceleration(&[0.0, 0.0, 0.0, 4.0], &ones) - expected).abs() < 1e-12);
    }
}
