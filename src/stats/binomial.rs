//! Bounds of a share of queries: Clopper-Pearson at the effective sample size (Korn and Graubard 1998,
//! "Confidence intervals for proportions with small expected number of positive counts estimated from
//! survey data").

use statrs::distribution::{Beta, ContinuousCDF};

use super::{ClusterSums, t_quantile};
use crate::domain::{Estimate, IntervalMethod};

/// Identities with a hit from which on the kurtosis of their numbers of hits says how well deff is known; of fewer it says
/// that they are few, which the share says itself.
const FEWEST_HIT: usize = 5;

/// The share of `hits` with a two-sided interval at `level`; `cluster` is each query's identity.
///
/// The effective sample size is n* = n / deff (t(n-1) / t(df))^2, never over n, where the t quantiles
/// are at 1 - (1 - level)/2. df is G - 1 (G counts the identities), as Korn and Graubard have it, or, from five identities with a
/// hit on, that of [`ClusterSums::degrees_of_freedom`]: deff is poorly known where few identities carry the hits. The ends are those of Clopper and Pearson at
/// n* and n* times the share. deff is the larger one of the hits' and of `companion`'s (one value a query, such as the
/// change of AP): few hits say little of how queries hang together, none nothing, and a bound must not fall
/// because a hit was added. With one identity the interval is [0, 1].
///
/// Without queries the value is NaN and the interval [0, 1].
///
/// # Panics
/// When the slices differ in length.
pub fn proportion_estimate(
    hits: &[bool],
    cluster: &[u32],
    companion: Option<&[f64]>,
    level: f64,
) -> Estimate {
    let values: Vec<f64> = hits.iter().map(|&hit| f64::from(u8::from(hit))).collect();
    let sums = ClusterSums::new(&values, cluster);
    let n = hits.len() as f64;
    let share = sums.mean();
    let of_companion = companion.map_or(1.0, |values| design_effect(values, cluster));
    let deff = design_effect(&values, cluster).max(of_companion);
    let identities = sums.n_identities() as f64;
    let (lower, upper) = if identities < 2.0 {
        (0.0, 1.0)
    } else {
        let tail = 0.5 + level / 2.0;
        let hit = sums.sum.iter().filter(|&&sum| sum > 0.0).count();
        // Of queries that are drawn alone there is no deff to know.
        let df = if hit >= FEWEST_HIT && identities < n {
            sums.degrees_of_freedom()
        } else {
            identities - 1.0
        };
        let shrink = (t_quantile(tail, n - 1.0) / t_quantile(tail, df)).powi(2);
        let effective = (n / deff * shrink).min(n);
        clopper_pearson(share * effective, effective, level)
    };
    Estimate {
        value: share,
        lower,
        upper,
        level,
        // The binomial error at n / deff, which is the linearised one where that is the larger.
        standard_error: (share * (1.0 - share) * deff / n).sqrt(),
        method: IntervalMethod::KornGraubard,
    }
}

/// How many times larger the variance of the mean is than if every query were drawn alone, at least 1:
/// the linearised variance by identity over s^2 / n. 1 when the values are constant or there are fewer
/// than two identities.
///
/// # Panics
/// When the slices differ in length.
pub fn design_effect(values: &[f64], cluster: &[u32]) -> f64 {
    let sums = ClusterSums::new(values, cluster);
    if sums.n_identities() < 2 {
        return 1.0;
    }
    let n = values.len() as f64;
    let mean = sums.mean();
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let variance_of_mean = squares / (n - 1.0) / n;
    let effect = sums.standard_error().powi(2) / variance_of_mean;
    // `max` takes 1 when the values are constant and the quotient is NaN.
    effect.max(1.0)
}

/// Clopper and Pearson's interval for `x` successes of `n`, both real numbers, 0 <= x <= n, n > 0.
fn clopper_pearson(x: f64, n: f64, level: f64) -> (f64, f64) {
    let tail = 0.5 - level / 2.0;
    let quantile = |a: f64, b: f64, p: f64| {
        Beta::new(a, b)
            .expect("both shapes are positive")
            .inverse_cdf(p)
    };
    // Of none and of all the quantile has a closed form; the crate's search for it does not end beyond some million draws.
    let lower = if x <= 0.0 {
        0.0
    } else if x >= n {
        tail.powf(1.0 / n)
    } else {
        quantile(x, n - x + 1.0, tail)
    };
    let upper = if x >= n {
        1.0
    } else if x <= 0.0 {
        1.0 - tail.powf(1.0 / n)
    } else {
        quantile(x + 1.0, n - x, 1.0 - tail)
    };
    (lower, upper)
}

#[cfg(test)]
mod tests {
    use super::super::tests::golden;
    use super::*;

    #[test]
    fn beta_quantiles_agree_with_scipy() {
        for case in golden()["beta_quantiles"].as_array().unwrap() {
            let [p, a, b, x] = ["p", "a", "b", "x"].map(|key| case[key].as_f64().unwrap());
            let found = Beta::new(a, b).unwrap().inverse_cdf(p);
            assert!(
                (found - x).abs() <= 1e-8 * x + 1e-12,
                "p {p}, a {a}, b {b}: {found} against {x}"
            );
        }
    }

    #[test]
    fn clopper_pearson_agrees_with_scipy() {
        for case in golden()["clopper_pearson"].as_array().unwrap() {
            let [x, n, level, lower, upper] =
                ["x", "n", "level", "lower", "upper"].map(|key| case[key].as_f64().unwrap());
            let found = clopper_pearson(x, n, level);
            assert!((found.0 - lower).abs() < 1e-10, "{x}/{n}: {found:?}");
            assert!((found.1 - upper).abs() < 1e-10, "{x}/{n}: {found:?}");
        }
    }

    #[test]
    fn queries_of_distinct_identities_give_clopper_pearson_itself() {
        let hits: Vec<bool> = (0..300).map(|i| i < 7).collect();
        let cluster: Vec<u32> = (0..300).collect();
        let found = proportion_estimate(&hits, &cluster, None, 0.9);
        let (lower, upper) = clopper_pearson(7.0, 300.0, 0.9);
        assert!((found.lower - lower).abs() < 1e-12 && (found.upper - upper).abs() < 1e-12);
        assert_eq!(found.value, 7.0 / 300.0);
        assert_eq!(found.method, IntervalMethod::KornGraubard);
    }

    #[test]
    fn flips_in_clumps_count_as_fewer() {
        let cluster: Vec<u32> = (0..300).map(|i| i / 10).collect();
        let clumped: Vec<bool> = (0..300).map(|i| i < 20).collect();
        let spread: Vec<bool> = (0..300).map(|i| i % 15 == 0).collect();
        let values: Vec<f64> = clumped
            .iter()
            .map(|&hit| f64::from(u8::from(hit)))
            .collect();
        // Identities wholly hit or not: 30 units of weight 10, so G/(G-1) against n/(n-1) apart
        // the effect is the identity's size.
        let expected = 10.0 * (30.0 / 29.0) * (299.0 / 300.0);
        assert!((design_effect(&values, &cluster) - expected).abs() < 1e-9);
        let clumped = proportion_estimate(&clumped, &cluster, None, 0.9);
        let spread = proportion_estimate(&spread, &cluster, None, 0.9);
        assert_eq!(clumped.value, spread.value);
        assert!(clumped.upper > spread.upper + 0.05);
        assert!(clumped.standard_error > 2.0 * spread.standard_error);
    }

    /// Half of 30 identities gain on all their queries, so that queries hang together; then one query after the other is hit.
    #[test]
    fn a_hit_more_never_makes_the_bound_fall() {
        let cluster: Vec<u32> = (0..300).map(|i| i / 10).collect();
        let gain: Vec<f64> = (0..300).map(|i| f64::from(i / 10 % 2) / 6.0).collect();
        let mut hits = vec![false; 300];
        let mut before = 0.0;
        for hit in 0..30 {
            let found = proportion_estimate(&hits, &cluster, Some(&gain), 0.9);
            assert!(
                found.upper >= before,
                "{hit} hits: {found:?} after {before}"
            );
            before = found.upper;
            hits[10 * hit + hit % 3] = true;
        }
    }

    #[test]
    fn without_flips_the_companion_tells_how_queries_hang_together() {
        let hits = [false; 300];
        let cluster: Vec<u32> = (0..300).map(|i| i / 10).collect();
        let change: Vec<f64> = (0..300).map(|i| f64::from(i / 10 % 3)).collect();
        let with = proportion_estimate(&hits, &cluster, Some(&change), 0.9);
        let without = proportion_estimate(&hits, &cluster, None, 0.9);
        let constant = proportion_estimate(&hits, &cluster, Some(&[0.0; 300]), 0.9);
        assert_eq!((with.value, with.lower), (0.0, 0.0));
        assert_eq!(without, constant);
        // deff 1 and 29 degrees of freedom: 1 - .05^(1/n*), n* = 300 (t(299)/t(29))^2.
        let effective = 300.0 * (t_quantile(0.95, 299.0) / t_quantile(0.95, 29.0)).powi(2);
        assert!((without.upper - (1.0 - 0.05_f64.powf(1.0 / effective))).abs() < 1e-10);
        assert!(with.upper > 5.0 * without.upper);
        // Of flips that clump more than the companion it has no say.
        let clumped: Vec<bool> = (0..300).map(|i| i < 20).collect();
        let each: Vec<f64> = (0..300).map(|i| f64::from(i % 10)).collect();
        assert_eq!(
            proportion_estimate(&clumped, &cluster, Some(&each), 0.9),
            proportion_estimate(&clumped, &cluster, None, 0.9)
        );
    }

    #[test]
    fn one_identity_or_no_query_gives_the_whole_range() {
        let one = proportion_estimate(&[true, false], &[0, 0], None, 0.9);
        assert_eq!((one.value, one.lower, one.upper), (0.5, 0.0, 1.0));
        let none = proportion_estimate(&[], &[], None, 0.9);
        assert!(none.value.is_nan());
        assert_eq!((none.lower, none.upper), (0.0, 1.0));
        // Beyond what the crate's quantile can do.
        let many = clopper_pearson(0.0, 1e8, 0.9);
        assert!((many.1 - 2.995_732_2e-8).abs() < 1e-14, "{many:?}");
        let all = proportion_estimate(&[true; 50], &(0..50).collect::<Vec<_>>(), None, 0.9);
        assert_eq!(all.upper, 1.0);
        assert!((all.lower - 0.05_f64.powf(1.0 / 50.0)).abs() < 1e-10);
    }
}
