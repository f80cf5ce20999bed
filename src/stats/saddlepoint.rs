//! Tails of the bootstrap distribution of a mean without drawing it (Davison and Hinkley 1988, "Saddlepoint
//! approximations in resampling methods").
//!
//! Where few or no replicates lie, a share of them says little, and drawing enough for the first step of Holm's
//! procedure over thousands of slices would take minutes. The saddlepoint approximation of the same distribution
//! costs one pass over the identities a Newton step.

/// Newton steps of the saddlepoint; each at least halves the bracket, so that this reaches f64's precision.
const STEPS: usize = 100;

/// Values this much smaller than the largest are 0: some thousand additions round by less.
const ROUNDING: f64 = 1e-12;

/// Below this signed root the two terms of r* cancel, and its limit is used: the error is of the order of r / n.
const SMALL_ROOT: f64 = 1e-3;

/// The normal deviate z with Phi(z) = P(d*_1 + ... + d*_n <= 0), each d* drawn from `d` with replacement:
/// Barndorff-Nielsen's r* = r + ln(u / r) / r, r = sign(t) sqrt(-2 n K(t)), u = t sqrt(n K''(t)), where K is the
/// cumulant function of one draw and K'(t) = 0.
///
/// Plus infinity when no value is above 0, minus infinity when none is below. Needs at least one value.
pub(super) fn deviate_of_sum_at_zero(d: &[f64]) -> f64 {
    // A value that is 0 but for the rounding of its sum must not count as a value on the other side.
    let rounding = ROUNDING * d.iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
    if d.iter().all(|&d| d <= rounding) {
        return f64::INFINITY;
    }
    if d.iter().all(|&d| d >= -rounding) {
        return f64::NEG_INFINITY;
    }
    let n = d.len() as f64;
    // The scale drops out; with a root mean square of 1 the steps need no other one.
    let scale = (d.iter().map(|d| d * d).sum::<f64>() / n).sqrt();
    let d: Vec<f64> = d.iter().map(|d| d / scale).collect();
    let t = saddlepoint(&d);
    let at = Cumulants::new(&d, t);
    // K(0) = 0 is the largest value between 0 and the minimum at t, but for rounding.
    let r = t.signum() * (-2.0 * n * at.value).max(0.0).sqrt();
    if r.abs() < SMALL_ROOT {
        let skewness = at.third / at.second.powf(1.5);
        return r - skewness / (6.0 * n.sqrt());
    }
    let u = t * (n * at.second).sqrt();
    r + (u / r).ln() / r
}

/// The t with K'(t) = 0, the mean of the tilted values. K' increases; d has values on both sides of 0.
fn saddlepoint(d: &[f64]) -> f64 {
    let (mut low, mut high) = (-1.0, 1.0);
    // |t| grows until the largest value of the other sign outweighs all others.
    while Cumulants::new(d, low).first > 0.0 {
        low *= 2.0;
    }
    while Cumulants::new(d, high).first < 0.0 {
        high *= 2.0;
    }
    let mut t = 0.0;
    for _ in 0..STEPS {
        let at = Cumulants::new(d, t);
        if at.first > 0.0 {
            high = t;
        } else {
            low = t;
        }
        let newton = t - at.first / at.second;
        let next = if newton > low && newton < high {
            newton
        } else {
            0.5 * (low + high)
        };
        if (next - t).abs() <= 4.0 * f64::EPSILON * t.abs() {
            break;
        }
        t = next;
    }
    t
}

/// K(t) = ln mean exp(t d) and its first three derivatives.
struct Cumulants {
    value: f64,
    first: f64,
    second: f64,
    third: f64,
}

impl Cumulants {
    fn new(d: &[f64], t: f64) -> Self {
        // exp of the largest exponent only, so that nothing overflows.
        let largest = d.iter().map(|d| t * d).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = d.iter().map(|d| (t * d - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mean = d.iter().zip(&weights).map(|(d, w)| d * w).sum::<f64>() / total;
        let (mut second, mut third) = (0.0, 0.0);
        for (d, w) in d.iter().zip(&weights) {
            second += w * (d - mean).powi(2);
            third += w * (d - mean).powi(3);
        }
        // Near t = 0 the logarithm of a mean near 1 would keep few of K's digits, and r* divides by its root.
        let value = if d.iter().all(|d| (t * d).abs() < 1.0) {
            let excess = d.iter().map(|d| (t * d).exp_m1()).sum::<f64>();
            (excess / d.len() as f64).ln_1p()
        } else {
            largest + (total / d.len() as f64).ln()
        };
        Self {
            value,
            first: mean,
            second: second / total,
            third: third / total,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use statrs::distribution::{Binomial, DiscreteCDF};

    use super::super::{normal_cdf, normal_quantile};
    use super::*;

    #[test]
    fn a_far_binomial_tail() {
        // 3 of 50 identities at +1.5, the others at -.5: the sum is at most 0 when at most 12 of 50 draws hit
        // one of the three. The approximation is of the continuous distribution, so between P(<= 12) and
        // P(< 12) + P(= 12)/2.
        let mut d = vec![-0.5; 47];
        d.extend([1.5; 3]);
        let binomial = Binomial::new(3.0 / 50.0, 50).unwrap();
        let above = 1.0 - normal_cdf(deviate_of_sum_at_zero(&d));
        let (strict, loose) = (binomial.sf(12), binomial.sf(11));
        assert!(
            above > strict && above < loose,
            "{above} not in [{strict}, {loose}]"
        );
    }

    #[test]
    fn values_on_one_side_leave_no_doubt() {
        assert_eq!(deviate_of_sum_at_zero(&[-1.0, -2.0]), f64::INFINITY);
        assert_eq!(deviate_of_sum_at_zero(&[-1.0, 0.0]), f64::INFINITY);
        assert_eq!(deviate_of_sum_at_zero(&[1.0, 0.5]), f64::NEG_INFINITY);
        // .1 + .2 - .3 is no positive value.
        let almost_zero = 0.1 + 0.2 - 0.3;
        assert!(almost_zero > 0.0);
        assert_eq!(deviate_of_sum_at_zero(&[-1.0, almost_zero]), f64::INFINITY);
        // A small one is: all 40 draws must miss the others. At the edge of a lattice the approximation is coarse,
        // on the side of doubt.
        let mut d = vec![1e-9; 20];
        d.extend([-1.0; 20]);
        let z = deviate_of_sum_at_zero(&d);
        let exact = -normal_quantile(0.5_f64.powi(40));
        assert!(z > exact - 1.0 && z < exact, "{z} against {exact}");
    }

    #[test]
    fn it_agrees_with_drawing() {
        use rand::{RngCore, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
        for shift in [-0.35, -0.2, -0.05, 0.0, 0.1, 0.3] {
            // Skewed to the right, 40 values.
            let d: Vec<f64> = (0..40).map(|_| -uniform().ln() - 1.0 + shift).collect();
            let draws = 40_000;
            let hits = (0..draws)
                .filter(|_| (0..40).map(|_| d[(uniform() * 40.0) as usize]).sum::<f64>() <= 0.0)
                .count();
            let share = f64::from(hits as u32) / f64::from(draws);
            let drawn = normal_quantile(share);
            let found = deviate_of_sum_at_zero(&d);
            // Four Monte-Carlo errors on the scale of z, and .01 for the approximation.
            let density = (-0.5 * drawn * drawn).exp() / (std::f64::consts::TAU).sqrt();
            let error = (share * (1.0 - share) / f64::from(draws)).sqrt() / density;
            assert!(
                (found - drawn).abs() < 4.0 * error + 0.01,
                "shift {shift}: {found} against {drawn} +- {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn it_is_odd_scale_free_and_falls_as_the_values_rise(
            d in proptest::collection::vec(-1.0..1.0_f64, 20..60), factor in 1e-3..1e3_f64,
        ) {
            let z = deviate_of_sum_at_zero(&d);
            prop_assert!(!z.is_nan());
            let mirrored: Vec<f64> = d.iter().map(|d| -d).collect();
            let scaled: Vec<f64> = d.iter().map(|d| d * factor).collect();
            let raised: Vec<f64> = d.iter().map(|d| d + 0.01).collect();
            if z.is_finite() {
                prop_assert!((deviate_of_sum_at_zero(&mirrored) + z).abs() < 1e-6);
                prop_assert!((deviate_of_sum_at_zero(&scaled) - z).abs() < 1e-6);
            }
            prop_assert!(deviate_of_sum_at_zero(&raised) <= z + 1e-6);
        }
    }
}
