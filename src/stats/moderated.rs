//! Empirical-Bayes moderation of many small-sample variances (Smyth 2004, "Linear models and empirical
//! Bayes methods for assessing differential expression in microarray experiments"), as in limma.
//!
//! Sample variances s_j^2 on d_j degrees of freedom are taken to be sigma_j^2 chi^2(d_j) / d_j, and the true
//! ones to scatter as 1/sigma_j^2 ~ chi^2(d_0) / (d_0 s_0^2). Then s_j^2 / s_0^2 follows F(d_j, d_0), so d_0 and
//! s_0^2 come from the mean and variance of log s^2, and each variance is drawn to s_0^2 with the weight of d_0
//! further degrees of freedom.

use statrs::function::gamma::digamma;

/// limma's guard for exact zeros: variances are raised to this share of their median before the logarithm.
const SMALLEST_SHARE_OF_MEDIAN: f64 = 1e-5;

/// The prior of the variances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VariancePrior {
    /// d_0: how many degrees of freedom the other samples are worth. 0 says nothing (fewer than two samples);
    /// infinite when the variances differ no more than chance makes them, so that all are the same.
    pub df: f64,
    /// s_0^2, at least 0; NaN when `df` is 0.
    pub scale: f64,
    /// Sum of all samples' degrees of freedom: no variance can be known better.
    pub total_df: f64,
}

/// A moderated variance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModeratedVariance {
    /// (d_0 s_0^2 + d s^2) / (d_0 + d); NaN when nothing is known.
    pub variance: f64,
    /// min(d_0 + d, sum of all d): the degrees of freedom of a t statistic with it.
    pub df: f64,
}

impl VariancePrior {
    /// Fits the prior by the method of moments on log s^2 (limma's `fitFDist`).
    ///
    /// `variances[j]` >= 0 has `df[j]` >= 0 degrees of freedom; those with 0 are left out. Zero variances are
    /// raised to 1e-5 of the median for the fit, and to 1e-5 when more than half are zero.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn fit(variances: &[f64], df: &[f64]) -> Self {
        assert_eq!(variances.len(), df.len(), "degrees of freedom a variance");
        let (kept, df): (Vec<f64>, Vec<f64>) = variances
            .iter()
            .zip(df)
            .filter(|&(variance, &df)| df > 0.0 && variance.is_finite())
            .unzip();
        let total_df = df.iter().sum();
        if kept.len() < 2 {
            return Self {
                df: 0.0,
                scale: f64::NAN,
                total_df,
            };
        }
        let middle = Some(median(&kept)).filter(|&m| m > 0.0).unwrap_or(1.0);
        let raised: Vec<f64> = kept
            .iter()
            .map(|v| v.max(SMALLEST_SHARE_OF_MEDIAN * middle))
            .collect();
        let n = raised.len() as f64;
        // E log s^2 = log s_0^2 + psi(d/2) - log(d/2) - psi(d_0/2) + log(d_0/2).
        let logs: Vec<f64> = raised
            .iter()
            .zip(&df)
            .map(|(variance, df)| variance.ln() - digamma(df / 2.0) + (df / 2.0).ln())
            .collect();
        let mean = logs.iter().sum::<f64>() / n;
        let spread = logs.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (n - 1.0);
        // Var log s^2 = psi'(d/2) + psi'(d_0/2).
        let excess = spread - df.iter().map(|df| trigamma(df / 2.0)).sum::<f64>() / n;
        let (df, scale) = if excess > 0.0 {
            let half = trigamma_inverse(excess);
            (2.0 * half, (mean + digamma(half) - half.ln()).exp())
        } else {
            // The variances are equal as far as can be told: the mean is their common value.
            (f64::INFINITY, raised.iter().sum::<f64>() / n)
        };
        Self {
            df,
            scale,
            total_df,
        }
    }

    /// Draws one variance with `df` degrees of freedom towards the prior (limma's `squeezeVar`); with `df` 0 the
    /// variance itself is ignored.
    pub fn squeeze(&self, variance: f64, df: f64) -> ModeratedVariance {
        let own = if df > 0.0 { df * variance } else { 0.0 };
        let variance = if self.df.is_infinite() {
            self.scale
        } else if self.df == 0.0 {
            own / df
        } else {
            (self.df * self.scale + own) / (self.df + df)
        };
        ModeratedVariance {
            variance,
            df: (self.df + df).min(self.total_df),
        }
    }
}

/// The middle value, or the mean of the middle two. Needs at least one value.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[upper]
    } else {
        0.5 * (sorted[upper - 1] + sorted[upper])
    }
}

/// From here on the asymptotic series of the polygammas is exact to f64: the first term left out,
/// B_16 / x^17 = 7.1 / x^17, is below 1e-16 of 1/x.
const SERIES_FROM: f64 = 12.0;

/// psi'(x), x > 0: recurrence psi'(x) = psi'(x + 1) + 1/x^2 up to 12, then the asymptotic series
/// 1/x + 1/(2 x^2) + sum B_2k / x^(2k + 1) (Abramowitz and Stegun 6.4.6, 6.4.12).
fn trigamma(x: f64) -> f64 {
    let (mut x, mut sum) = (x, 0.0);
    while x < SERIES_FROM {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let bernoulli = [
        1.0 / 6.0,
        -1.0 / 30.0,
        1.0 / 42.0,
        -1.0 / 30.0,
        5.0 / 66.0,
        -691.0 / 2730.0,
        7.0 / 6.0,
    ];
    let tail = bernoulli
        .iter()
        .rev()
        .fold(0.0, |tail, b| (tail + b) * square);
    sum + (1.0 + 0.5 / x + tail) / x
}

/// psi''(x), x > 0: recurrence psi''(x) = psi''(x + 1) - 2/x^3, then
/// -1/x^2 - 1/x^3 - sum (2k + 1) B_2k / x^(2k + 2).
fn tetragamma(x: f64) -> f64 {
    let (mut x, mut sum) = (x, 0.0);
    while x < SERIES_FROM {
        sum -= 2.0 / (x * x * x);
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    // (2k + 1) B_2k.
    let coefficients = [
        1.0 / 2.0,
        -1.0 / 6.0,
        1.0 / 6.0,
        -3.0 / 10.0,
        5.0 / 6.0,
        -691.0 / 210.0,
        35.0 / 2.0,
    ];
    let tail = coefficients
        .iter()
        .rev()
        .fold(0.0, |tail, c| (tail + c) * square);
    sum - square * (1.0 + 1.0 / x + tail)
}

/// The y > 0 with psi'(y) = x > 0, by Newton's method on 1/psi'(y) = 1/x (appendix of Smyth 2004).
///
/// 1/psi' is convex and above y - 1/2, so that the steps from 1/2 + 1/x descend to the root. Outside
/// [1e-6, 1e7] the first term of the series, y = 1/x, or of the pole, y = 1/sqrt(x), is exact enough.
fn trigamma_inverse(x: f64) -> f64 {
    if x > 1e7 {
        return 1.0 / x.sqrt();
    }
    if x < 1e-6 {
        return 1.0 / x;
    }
    let mut y = 0.5 + 1.0 / x;
    // Converges in about 5 steps; the bound is limma's.
    for _ in 0..50 {
        let value = trigamma(y);
        let step = value * (1.0 - value / x) / tetragamma(y);
        y += step;
        if -step / y < 1e-8 {
            break;
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{floats, golden};
    use super::*;

    #[test]
    fn polygammas_agree_with_scipy() {
        for case in golden()["polygamma"].as_array().unwrap() {
            let x = case["x"].as_f64().unwrap();
            for (found, key) in [(trigamma(x), "trigamma"), (tetragamma(x), "tetragamma")] {
                let expected = case[key].as_f64().unwrap();
                assert!(
                    (found / expected - 1.0).abs() < 1e-13,
                    "{key} of {x}: {found} against {expected}"
                );
            }
        }
    }

    #[test]
    fn squeezed_variances_agree_with_limma() {
        let golden = golden();
        for case in golden["squeeze_var"].as_array().unwrap() {
            let name = case["name"].as_str().unwrap();
            let (variances, df) = (floats(&case["variances"]), floats(&case["df"]));
            let prior = VariancePrior::fit(&variances, &df);
            // limma's Newton stops at 1e-8 of y, on which the rest depends smoothly.
            let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-7;
            // JSON has no infinity.
            match case["df_prior"].as_f64() {
                Some(expected) => assert!(close(prior.df, expected), "{name}: {prior:?}"),
                None => assert!(prior.df.is_infinite(), "{name}: {prior:?}"),
            }
            let scale = case["var_prior"].as_f64().unwrap();
            assert!(close(prior.scale, scale), "{name}: {prior:?}, {scale}");
            for ((variance, df), expected) in
                variances.iter().zip(&df).zip(floats(&case["var_post"]))
            {
                let found = prior.squeeze(*variance, *df).variance;
                assert!(close(found, expected), "{name}: {found} against {expected}");
            }
        }
    }

    #[test]
    fn fewer_than_two_samples_are_left_alone() {
        for (variances, df) in [
            (&[][..], &[][..]),
            (&[0.3], &[4.0]),
            (&[0.3, 9.0], &[4.0, 0.0]),
        ] {
            let prior = VariancePrior::fit(variances, df);
            assert_eq!(prior.df, 0.0);
            if let Some(&variance) = variances.first() {
                let expected = ModeratedVariance { variance, df: 4.0 };
                assert_eq!(prior.squeeze(variance, 4.0), expected);
            }
            assert!(prior.squeeze(0.0, 0.0).variance.is_nan());
        }
    }

    #[test]
    fn equal_variances_make_the_prior_certain_and_one_sample_without_degrees_takes_it() {
        let prior = VariancePrior::fit(&[0.5; 20], &[3.0; 20]);
        assert!(prior.df.is_infinite());
        let found = prior.squeeze(7.0, 0.0);
        assert!((found.variance - 0.5).abs() < 1e-15);
        // No better known than by all the samples together.
        assert_eq!(found.df, 60.0);
    }

    proptest! {
        #[test]
        fn the_inverse_inverts(exponent in -5.9..6.9_f64) {
            let x = 10.0_f64.powf(exponent);
            prop_assert!((trigamma(trigamma_inverse(x)) / x - 1.0).abs() < 1e-7);
        }

        #[test]
        fn a_moderated_variance_lies_between_its_own_and_the_prior_and_scales(
            samples in proptest::collection::vec((1e-6..1.0_f64, 1..12_u32), 2..40),
        ) {
            let (variances, df): (Vec<f64>, Vec<f64>) =
                samples.iter().map(|&(v, df)| (v, f64::from(df))).unzip();
            let prior = VariancePrior::fit(&variances, &df);
            prop_assert!(prior.df > 0.0 && prior.scale > 0.0);
            let quartered: Vec<f64> = variances.iter().map(|v| v / 4.0).collect();
            let smaller = VariancePrior::fit(&quartered, &df);
            for (&variance, &df) in variances.iter().zip(&df) {
                let found = prior.squeeze(variance, df);
                let (low, high) = (variance.min(prior.scale), variance.max(prior.scale));
                prop_assert!(found.variance >= low * (1.0 - 1e-12));
                prop_assert!(found.variance <= high * (1.0 + 1e-12));
                prop_assert!(found.df >= df && found.df <= prior.total_df);
                let quarter = smaller.squeeze(variance / 4.0, df);
                prop_assert!((4.0 * quarter.variance / found.variance - 1.0).abs() < 1e-4);
            }
        }
    }
}
