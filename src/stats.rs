//! Statistics: slices in, estimates out (section 6 of `docs/METRICS.md`).
//!
//! The one estimand is the mean over queries, D = sum_g S_g / sum_g n_g, where S_g sums a quantity over
//! the queries of identity g and n_g counts them. Queries of one identity fail together, so the unit that
//! is resampled is the identity; the gallery is never resampled and all inference is conditional on it.
//! Every sum runs in identity order, in f64, so no number here depends on threads.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::domain::{Estimate, IntervalMethod};

mod binomial;
mod bootstrap;
mod descriptive;
mod functional;
mod moderated;
mod multiplicity;
mod permutation;
mod saddlepoint;
mod simultaneous;
mod slices;

use bootstrap::Bca;

pub use binomial::{design_effect, proportion_estimate};
pub use bootstrap::Bootstrap;
pub use descriptive::{mean, quantile};
pub use functional::functional_estimates;
pub use moderated::{ModeratedVariance, VariancePrior};
pub use multiplicity::{benjamini_hochberg, holm};
pub use permutation::{permutation_p, sign_flip_test};
pub use simultaneous::{CurveEstimates, curve_estimates};
pub use slices::{SMALL_SLICE_IDENTITIES, SliceTest, SliceValues, test_slices};

/// Below this many identities the bootstrap's tails are too short, and the linearised t is used.
pub const FEW_IDENTITIES: usize = 40;

/// Per-identity sums of a per-query quantity: what the bootstrap resamples.
///
/// The two vectors are parallel: one entry per identity with at least one query, in identity order.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSums {
    /// S_g: the sum of the quantity over the identity's queries, in query order.
    pub sum: Vec<f64>,
    /// n_g: the identity's number of queries, at least 1.
    pub n: Vec<f64>,
}

impl ClusterSums {
    /// Sums `values` (one per query) by `cluster` (the identity index of each query).
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn new(values: &[f64], cluster: &[u32]) -> Self {
        assert_eq!(values.len(), cluster.len(), "one cluster a value");
        let n_slots = cluster.iter().max().map_or(0, |&c| c as usize + 1);
        let mut sum = vec![0.0; n_slots];
        let mut n = vec![0.0; n_slots];
        for (&value, &c) in values.iter().zip(cluster) {
            sum[c as usize] += value;
            n[c as usize] += 1.0;
        }
        let (sum, n) = sum.into_iter().zip(n).filter(|&(_, n)| n > 0.0).unzip();
        Self { sum, n }
    }

    /// Number of identities.
    pub fn n_identities(&self) -> usize {
        self.n.len()
    }

    /// Number of queries.
    pub fn n_queries(&self) -> f64 {
        self.n.iter().sum()
    }

    /// The mean over queries; NaN without queries.
    pub fn mean(&self) -> f64 {
        ratio_of_sums(&self.sum, &self.n)
    }

    /// Linearised standard error of the mean over queries, by identity:
    /// SE^2 = G/(G-1) sum (S_g - D n_g)^2 / N^2. Infinite with fewer than two identities.
    pub fn standard_error(&self) -> f64 {
        linearised_standard_error(&self.sum, &self.n)
    }

    /// Degrees of freedom of [`ClusterSums::standard_error`] squared: min(G - 1, 2 G / (k - 1)), where
    /// k = G sum d^4 / (sum d^2)^2 is the kurtosis of d_g = S_g - D n_g. In (2, G - 1]; 0 with one identity.
    ///
    /// A variance estimated from G draws has relative variance (k - 1) / G, and chi^2 / df has 2 / df
    /// (Satterthwaite 1946). Normal sums have k = 3, which leaves G - 1. When few identities carry the change, or
    /// few hold most queries, k is large: one changed of G gives 2 G / (G - 2), as little as one knows then.
    pub fn degrees_of_freedom(&self) -> f64 {
        degrees_of_freedom(&self.sum, &self.n)
    }
}

/// The mean over queries with a two-sided interval at `level` (.90 makes each end a one-sided 95 % bound).
///
/// Fewer than [`FEW_IDENTITIES`]: the linearised t, value -+ t SE on [`ClusterSums::degrees_of_freedom`]. Else each
/// end is the farther one of that and of the BCa bootstrap over identities (Efron 1987), whose nominal normal
/// deviate is stretched to sqrt(G/(G-1)) t: a bootstrap of G identities is too narrow by the first factor, and
/// takes the standard error for known (Hesterberg 2015, "What teachers should know about the bootstrap", 4.2).
/// Plain BCa passes a true loss at the margin in up to 11 % of runs at 50 identities; see `docs/statistics.md`.
///
/// With one identity nothing is known about the spread: the ends and the standard error are infinite. When all
/// identities have the same mean the ends are the value itself.
pub fn mean_estimate(sums: &ClusterSums, level: f64, bootstrap: &Bootstrap) -> Estimate {
    ratio_interval(&sums.sum, &sums.n, level, bootstrap)
}

/// Efron's plain BCa ends at the two-sided `level`, to compare with: no verdict rests on them. `None` with fewer than
/// two identities.
pub fn plain_bca(sums: &ClusterSums, level: f64, bootstrap: &Bootstrap) -> Option<(f64, f64)> {
    if sums.n_identities() < 2 {
        return None;
    }
    let z = normal_quantile(0.5 + level / 2.0);
    let bca = bootstrap.bca(&sums.sum, &sums.n)?;
    Some((bca.end(-z), bca.end(z)))
}

/// The ratio of two paired means over the same queries, (sum of `num`) / (sum of `den`), resampled
/// together by identity: the update gain.
///
/// `None` ("undefined") when the interval of the denominator contains 0: the ratio then has no finite
/// interval (Fieller 1954).
///
/// # Panics
/// When the two are not over the same queries.
pub fn ratio_estimate(
    num: &ClusterSums,
    den: &ClusterSums,
    level: f64,
    bootstrap: &Bootstrap,
) -> Option<Estimate> {
    assert_eq!(num.n, den.n, "numerator and denominator are paired");
    let denominator = mean_estimate(den, level, bootstrap);
    // Written so that NaN ends count as "contains 0".
    let excludes_zero = denominator.lower > 0.0 || denominator.upper < 0.0;
    excludes_zero.then(|| ratio_interval(&num.sum, &den.sum, level, bootstrap))
}

/// The mean over identities of each identity's mean over its queries: the sensitivity twin of the mean
/// over queries, to be shown where identities are few or uneven. NaN without queries.
pub fn identity_weighted_mean(sums: &ClusterSums) -> f64 {
    let total: f64 = sums.sum.iter().zip(&sums.n).map(|(s, n)| s / n).sum();
    total / sums.n_identities() as f64
}

/// The largest identity's share of the queries, n_g / N, in (0, 1]; 0 without queries.
pub fn dominant_share(sums: &ClusterSums) -> f64 {
    let largest = sums.n.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        0.0
    } else {
        largest / sums.n_queries()
    }
}

/// The smallest true distance from the limit that a one-sided test at `alpha` proves with probability
/// `power`: (t(1 - alpha) + t(power)) SE on [`ClusterSums::degrees_of_freedom`]. Infinite with fewer than two
/// identities.
pub fn resolvable_margin(sums: &ClusterSums, alpha: f64, power: f64) -> f64 {
    if sums.n_identities() < 2 {
        return f64::INFINITY;
    }
    let df = sums.degrees_of_freedom();
    (t_quantile(1.0 - alpha, df) + t_quantile(power, df)) * sums.standard_error()
}

/// The share of identities that may be damaged with a probability of .05 that the probe holds none of
/// them, 1 - .05^(1/n): smaller damage is invisible to any method. 1 without identities.
pub fn blind_share(n_identities: usize) -> f64 {
    if n_identities == 0 {
        1.0
    } else {
        1.0 - 0.05_f64.powf(1.0 / n_identities as f64)
    }
}

/// How many identities would bring the bound on the value's side of `limit` past it, if the point
/// estimate stayed and the distance from value to bound shrank with 1/sqrt(identities); that of a share of none or of all
/// shrinks with 1/identities.
///
/// At least `n_identities`, which means that it is settled already. `None` when no number would do
/// (value at the limit) or nothing can be said (ends not finite).
pub fn identities_to_settle(estimate: &Estimate, limit: f64, n_identities: usize) -> Option<usize> {
    let distance = (estimate.value - limit).abs();
    let reach = if estimate.value > limit {
        estimate.value - estimate.lower
    } else {
        estimate.upper - estimate.value
    };
    // Also refuses NaN.
    if !(distance > 0.0 && reach.is_finite()) {
        return None;
    }
    if reach < distance {
        return Some(n_identities);
    }
    // The bound must lie strictly past the limit, so the next integer, not the ceiling.
    let is_extreme = estimate.method == IntervalMethod::KornGraubard
        && (estimate.value == 0.0 || estimate.value == 1.0);
    let power = if is_extreme { 1 } else { 2 };
    let needed = (n_identities as f64 * (reach / distance).powi(power)).floor() + 1.0;
    Some(needed as usize)
}

/// sum(a) / sum(b).
fn ratio_of_sums(a: &[f64], b: &[f64]) -> f64 {
    a.iter().sum::<f64>() / b.iter().sum::<f64>()
}

/// Linearised (Taylor) standard error of sum(a) / sum(b) with identities as the sampling unit:
/// sqrt(G/(G-1) sum (a_g - R b_g)^2) / |sum b|.
fn linearised_standard_error(a: &[f64], b: &[f64]) -> f64 {
    let g = a.len() as f64;
    if g < 2.0 {
        return f64::INFINITY;
    }
    let total: f64 = b.iter().sum();
    let ratio = a.iter().sum::<f64>() / total;
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (a - ratio * b).powi(2)).sum();
    let error = (g / (g - 1.0) * squares).sqrt() / total.abs();
    // Equal clusters leave only the rounding of `ratio * b`: a few units in the last place of each
    // term, which is no spread.
    let magnitude: f64 = a.iter().map(|a| a * a).sum::<f64>().sqrt() / total.abs();
    if error <= 8.0 * f64::EPSILON * magnitude {
        0.0
    } else {
        error
    }
}

/// See [`ClusterSums::degrees_of_freedom`].
fn degrees_of_freedom(a: &[f64], b: &[f64]) -> f64 {
    let g = a.len() as f64;
    let ratio = ratio_of_sums(a, b);
    let (mut squares, mut fourths) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let square = (a - ratio * b).powi(2);
        squares += square;
        fourths += square * square;
    }
    let kurtosis = g * fourths / (squares * squares);
    // `min` takes G - 1 when the residuals are all zero and the kurtosis is NaN. It is at least 1, but for rounding.
    (2.0 * g / (kurtosis - 1.0).max(0.0)).min((g - 1.0).max(0.0))
}

/// sqrt(G / (G - 1)): how much too narrow a bootstrap of G units is, because it takes the sample's variance, with
/// divisor G, for the true one.
fn stretch(identities: usize) -> f64 {
    let g = identities as f64;
    (g / (g - 1.0)).sqrt()
}

/// sum(a) / sum(b) with its interval, by identity.
fn ratio_interval(a: &[f64], b: &[f64], level: f64, bootstrap: &Bootstrap) -> Estimate {
    interval_and_distribution(a, b, level, bootstrap).0
}

/// The same with the bootstrap distribution that made it, when one did.
fn interval_and_distribution(
    a: &[f64],
    b: &[f64],
    level: f64,
    bootstrap: &Bootstrap,
) -> (Estimate, Option<Bca>) {
    let has_one = a.len() >= FEW_IDENTITIES && linearised_standard_error(a, b) > 0.0;
    let distribution = if has_one { bootstrap.bca(a, b) } else { None };
    (
        interval_of(a, b, level, distribution.as_ref()),
        distribution,
    )
}

/// The same from a bootstrap distribution that is there; with none, or fewer than [`FEW_IDENTITIES`], the linearised t alone.
fn interval_of(a: &[f64], b: &[f64], level: f64, distribution: Option<&Bca>) -> Estimate {
    let identities = a.len();
    let value = ratio_of_sums(a, b);
    let standard_error = linearised_standard_error(a, b);
    let few = identities < FEW_IDENTITIES;
    let (lower, upper) = if standard_error == 0.0 {
        (value, value)
    } else if identities < 2 {
        (f64::NEG_INFINITY, f64::INFINITY)
    } else {
        let t = t_quantile(0.5 + level / 2.0, degrees_of_freedom(a, b));
        let (mut lower, mut upper) = (value - t * standard_error, value + t * standard_error);
        if let Some(bca) = distribution.filter(|_| !few) {
            let stretched = stretch(identities) * t;
            lower = lower.min(bca.end(-stretched));
            upper = upper.max(bca.end(stretched));
        }
        (lower, upper)
    };
    Estimate {
        value,
        lower,
        upper,
        level,
        standard_error,
        method: if few {
            IntervalMethod::LinearisedT
        } else {
            IntervalMethod::BcaByIdentity
        },
    }
}

/// Quantile of the standard normal distribution.
fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// Distribution function of the standard normal distribution.
fn normal_cdf(z: f64) -> f64 {
    Normal::standard().cdf(z)
}

/// From as many degrees of freedom on the normal's quantiles are t's to six digits; the crate's own lose more.
const NORMAL_FROM: f64 = 1e6;

/// Quantile of Student's t distribution on `df` > 0 degrees of freedom, which may be infinite.
fn t_quantile(p: f64, df: f64) -> f64 {
    if df >= NORMAL_FROM {
        return normal_quantile(p);
    }
    StudentsT::new(0.0, 1.0, df)
        .expect("degrees of freedom are positive")
        .inverse_cdf(p)
}

/// Distribution function of Student's t distribution on `df` > 0 degrees of freedom; t may be infinite.
fn t_cdf(t: f64, df: f64) -> f64 {
    StudentsT::new(0.0, 1.0, df)
        .expect("degrees of freedom are positive")
        .cdf(t)
}

#[cfg(test)]
mod tests {
    use rand::{RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use serde_json::Value;

    use super::*;

    /// SciPy's numbers, with the version and command that made them.
    pub(super) fn golden() -> Value {
        serde_json::from_str(include_str!("../fixtures/golden/stats.json")).unwrap()
    }

    pub(super) fn floats(value: &Value) -> Vec<f64> {
        let values = value.as_array().unwrap();
        values.iter().map(|v| v.as_f64().unwrap()).collect()
    }

    /// A standard normal draw by inversion; enough for simulations.
    pub(super) fn gaussian(rng: &mut ChaCha8Rng) -> f64 {
        let uniform = (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
        normal_quantile(uniform)
    }

    fn estimate(value: f64, lower: f64, upper: f64) -> Estimate {
        Estimate {
            value,
            lower,
            upper,
            level: 0.9,
            standard_error: 1.0,
            method: IntervalMethod::BcaByIdentity,
        }
    }

    #[test]
    fn sums_are_by_identity_in_identity_order_and_skip_absent_identities() {
        let sums = ClusterSums::new(&[1.0, 2.0, 4.0, 8.0], &[5, 0, 5, 2]);
        assert_eq!(sums.sum, [2.0, 8.0, 5.0]);
        assert_eq!(sums.n, [1.0, 1.0, 2.0]);
        assert_eq!(sums.mean(), 15.0 / 4.0);
        assert_eq!(identity_weighted_mean(&sums), (2.0 + 8.0 + 2.5) / 3.0);
        assert_eq!(dominant_share(&sums), 0.5);
    }

    #[test]
    fn quantiles_agree_with_scipy() {
        let golden = golden();
        for case in golden["normal_quantiles"].as_array().unwrap() {
            let (p, z) = (case["p"].as_f64().unwrap(), case["z"].as_f64().unwrap());
            assert!((normal_quantile(p) - z).abs() < 1e-9, "p {p}");
        }
        for case in golden["t_quantiles"].as_array().unwrap() {
            let (p, t) = (case["p"].as_f64().unwrap(), case["t"].as_f64().unwrap());
            let df = case["df"].as_f64().unwrap();
            let found = t_quantile(p, df);
            assert!(
                (found - t).abs() < 1e-8 * t.abs(),
                "p {p} df {df}: {found} {t}"
            );
        }
    }

    #[test]
    fn t_tails_agree_with_scipy() {
        for case in golden()["t_tails"].as_array().unwrap() {
            let [t, df, p] = ["t", "df", "p"].map(|key| case[key].as_f64().unwrap());
            let found = t_cdf(t, df);
            assert!(
                (found - p).abs() <= 1e-9 * p,
                "{t} on {df}: {found:e} {p:e}"
            );
        }
        assert_eq!(t_cdf(f64::NEG_INFINITY, 3.0), 0.0);
        assert_eq!(t_cdf(f64::INFINITY, 3.0), 1.0);
    }

    #[test]
    fn bca_agrees_with_scipy_within_monte_carlo_error() {
        for case in golden()["bca"].as_array().unwrap() {
            let sums = ClusterSums {
                sum: floats(&case["sum"]),
                n: floats(&case["n"]),
            };
            let level = case["level"].as_f64().unwrap();
            let (lower, upper) = plain_bca(&sums, level, &Bootstrap::default()).unwrap();
            // An end at p = .05 of 10,000 replicates wanders by sqrt(p (1 - p) / 10,000) / .103 = .02
            // standard errors, its bias correction by about .025 more: .15 is over four of both.
            let se = case["bootstrap_standard_error"].as_f64().unwrap();
            for (found, expected) in [(lower, &case["lower"]), (upper, &case["upper"])] {
                let expected = expected.as_f64().unwrap();
                assert!(
                    (found - expected).abs() < 0.15 * se,
                    "{}: {found} against {expected}, standard error {se}",
                    case["name"]
                );
            }
            let found = mean_estimate(&sums, level, &Bootstrap::default());
            assert!(found.lower < lower && found.upper > upper);
            assert!((found.value - case["value"].as_f64().unwrap()).abs() < 1e-12);
            assert!(
                (found.standard_error / se - 1.0).abs() < 0.05,
                "{}",
                case["name"]
            );
            assert_eq!(found.method, IntervalMethod::BcaByIdentity);
        }
    }

    #[test]
    fn degrees_of_freedom_by_hand() {
        let of = |sum: &[f64]| {
            let n = vec![1.0; sum.len()];
            ClusterSums {
                sum: sum.to_vec(),
                n,
            }
            .degrees_of_freedom()
        };
        // One of four: d = (-1, -1, -1, 3), k = 4 * 84 / 144 = 7/3, 8 / (4/3) = 6, at most 3.
        assert_eq!(of(&[0.0, 0.0, 0.0, 4.0]), 3.0);
        // One of 100: k = 100 (99 + 99^4) / (99 + 99^2)^2 = 98.0101, 200 / 97.0101.
        let mut sum = [0.0; 100];
        sum[3] = 1.0;
        assert!((of(&sum) - 200.0 / 97.010_101).abs() < 1e-6, "{}", of(&sum));
        // Two equal halves have k = 1.
        assert_eq!(of(&[1.0, -1.0, 1.0, -1.0]), 3.0);
        assert_eq!(of(&[0.1; 7]), 6.0);
        assert_eq!(of(&[0.3]), 0.0);
    }

    #[test]
    fn the_small_sample_interval_of_even_identities_is_students() {
        let case = &golden()["student"];
        let sums = ClusterSums {
            sum: floats(&case["sum"]),
            n: floats(&case["n"]),
        };
        let found = mean_estimate(&sums, 0.9, &Bootstrap::default());
        assert_eq!(found.method, IntervalMethod::LinearisedT);
        assert!((found.lower - case["lower"].as_f64().unwrap()).abs() < 1e-10);
        assert!((found.upper - case["upper"].as_f64().unwrap()).abs() < 1e-10);
    }

    #[test]
    fn the_linearised_error_by_hand() {
        // S = (1, 0, 2), n = (1, 1, 2): D = 3/4; residuals 1/4, -3/4, 1/2; sum of squares 14/16;
        // SE^2 = 3/2 * 14/16 / 16.
        let sums = ClusterSums {
            sum: vec![1.0, 0.0, 2.0],
            n: vec![1.0, 1.0, 2.0],
        };
        let expected = (1.5_f64 * 14.0 / 16.0 / 16.0).sqrt();
        assert!((sums.standard_error() - expected).abs() < 1e-15);
    }

    #[test]
    fn threads_do_not_move_an_interval_but_the_seed_does() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let values: Vec<f64> = (0..300).map(|_| gaussian(&mut rng)).collect();
        let cluster: Vec<u32> = (0..300).map(|i| i / 5).collect();
        let sums = ClusterSums::new(&values, &cluster);
        let bootstrap = Bootstrap {
            replicates: 2_000,
            seed: 1,
        };
        let with_threads = |threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(|| mean_estimate(&sums, 0.9, &bootstrap))
        };
        let one = with_threads(1);
        assert_eq!(one, with_threads(2));
        let other_seed = Bootstrap {
            seed: 2,
            ..bootstrap
        };
        assert_ne!(one, mean_estimate(&sums, 0.9, &other_seed));
    }

    #[test]
    fn no_spread_means_no_width() {
        for identities in [2_u32, 39, 40, 100] {
            // .1 is not representable, so the sums carry rounding that must not look like spread.
            let n_queries = identities * 3;
            let values = vec![0.1; n_queries as usize];
            let cluster: Vec<u32> = (0..n_queries)
                .map(|i| (i * 7 + i / 5) % identities)
                .collect();
            let found = mean_estimate(
                &ClusterSums::new(&values, &cluster),
                0.9,
                &Bootstrap::default(),
            );
            assert_eq!((found.lower, found.upper), (found.value, found.value));
            assert_eq!(found.standard_error, 0.0);
        }
    }

    #[test]
    fn one_identity_says_nothing_of_the_spread() {
        let sums = ClusterSums::new(&[0.5, 0.7], &[3, 3]);
        let found = mean_estimate(&sums, 0.9, &Bootstrap::default());
        assert_eq!(found.value, 0.6);
        assert_eq!(
            (found.lower, found.upper),
            (f64::NEG_INFINITY, f64::INFINITY)
        );
        assert_eq!(resolvable_margin(&sums, 0.05, 0.8), f64::INFINITY);
        // The report's JSON carries it there and back.
        let json = serde_json::to_string(&found).unwrap();
        assert!(json.contains(r#""lower":null"#), "{json}");
        assert_eq!(serde_json::from_str::<Estimate>(&json).unwrap(), found);
    }

    #[test]
    fn one_damaged_identity_of_many_keeps_finite_ends_around_the_value() {
        let mut sums = ClusterSums {
            sum: vec![0.0; 60],
            n: vec![4.0; 60],
        };
        sums.sum[7] = -4.0;
        let found = mean_estimate(&sums, 0.9, &Bootstrap::default());
        assert!(found.lower < found.value && found.value <= found.upper);
        // The skew to the left moves both ends to the left of the symmetric interval.
        assert!(found.lower < found.value - 1.645 * found.standard_error);
    }

    #[test]
    fn a_gain_is_paired_and_undefined_when_its_denominator_may_be_zero() {
        let case = &golden()["bca"][4];
        let n = vec![1.0; 50];
        let num = ClusterSums {
            sum: floats(&case["sum"]),
            n: n.clone(),
        };
        let den = ClusterSums {
            sum: floats(&case["n"]),
            n,
        };
        let found = ratio_estimate(&num, &den, 0.9, &Bootstrap::default()).unwrap();
        assert!((found.value - case["value"].as_f64().unwrap()).abs() < 1e-12);
        let noise = ClusterSums {
            sum: (0..50)
                .map(|i| if i % 2 == 0 { 1.0 } else { -0.9 })
                .collect(),
            n: vec![1.0; 50],
        };
        assert_eq!(
            ratio_estimate(&num, &noise, 0.9, &Bootstrap::default()),
            None
        );
        let zero = ClusterSums {
            sum: vec![0.0; 50],
            n: vec![1.0; 50],
        };
        assert_eq!(
            ratio_estimate(&num, &zero, 0.9, &Bootstrap::default()),
            None
        );
    }

    #[test]
    fn the_interval_covers_when_queries_hang_together_and_query_resampling_does_not() {
        // ICC .3: identity effect variance .3, query variance .7; the true mean is 0.
        let cover = |runs: u64, identities: u32, queries: u32, by_query: bool| {
            let mut covered = 0;
            for run in 0..runs {
                let mut rng = ChaCha8Rng::seed_from_u64(run);
                let (mut values, mut cluster) = (Vec::new(), Vec::new());
                for identity in 0..identities {
                    let effect = 0.3_f64.sqrt() * gaussian(&mut rng);
                    for _ in 0..queries {
                        values.push(effect + 0.7_f64.sqrt() * gaussian(&mut rng));
                        let unit = if by_query {
                            cluster.len() as u32
                        } else {
                            identity
                        };
                        cluster.push(unit);
                    }
                }
                let bootstrap = Bootstrap {
                    replicates: 500,
                    seed: run,
                };
                let found = mean_estimate(&ClusterSums::new(&values, &cluster), 0.95, &bootstrap);
                covered += u32::from(found.lower <= 0.0 && 0.0 <= found.upper);
            }
            f64::from(covered) / runs as f64
        };
        // Three binomial standard errors of 300 runs at .95 are .038.
        let by_identity = cover(300, 60, 5, false);
        assert!((by_identity - 0.95).abs() < 0.038, "{by_identity}");
        let by_query = cover(60, 50, 20, true);
        assert!(by_query < 0.75, "{by_query}");
    }

    #[test]
    fn margins_and_sample_sizes_by_hand() {
        let sums = ClusterSums {
            sum: (0..50).map(|i| f64::from(i % 2)).collect(),
            n: vec![1.0; 50],
        };
        // Fifty coins, 25 heads: SE = sqrt(50/49 * 50 * .25) / 50; t quantiles on 49 degrees, 1.676551 + .849018.
        let se = (50.0_f64 / 49.0 * 12.5).sqrt() / 50.0;
        assert!((resolvable_margin(&sums, 0.05, 0.8) - (1.676551 + 0.849018) * se).abs() < 1e-6);
        // Ten of them: t quantiles on 9 degrees, 1.833113 + .883404.
        let few = ClusterSums {
            sum: sums.sum[..10].to_vec(),
            n: sums.n[..10].to_vec(),
        };
        let se = (10.0_f64 / 9.0 * 2.5).sqrt() / 10.0;
        assert!((resolvable_margin(&few, 0.05, 0.8) - 2.716517 * se).abs() < 1e-6);
        assert!((blind_share(58) - 0.050_338).abs() < 1e-5);
        assert_eq!(blind_share(0), 1.0);

        // Reach .04, distance .02: four times the identities touch the limit, one more clears it.
        let unsettled = estimate(0.01, -0.03, 0.05);
        assert_eq!(identities_to_settle(&unsettled, -0.01, 100), Some(401));
        // On the bad side the upper end has to come down.
        let bad = estimate(-0.03, -0.07, 0.01);
        assert_eq!(identities_to_settle(&bad, -0.01, 100), Some(401));
        let settled = estimate(0.01, 0.005, 0.015);
        assert_eq!(identities_to_settle(&settled, -0.01, 100), Some(100));
        assert_eq!(identities_to_settle(&unsettled, 0.01, 100), None);
        let unknown = estimate(0.6, f64::NEG_INFINITY, f64::INFINITY);
        assert_eq!(identities_to_settle(&unknown, 0.0, 1), None);
        // 1 - .05^(1/n) < .05 from n = 59 on.
        let hits = [false; 30];
        let each: Vec<u32> = (0..30).collect();
        let none = proportion_estimate(&hits, &each, None, 0.9);
        let needed = identities_to_settle(&none, 0.05, 30).unwrap();
        assert!((57..=60).contains(&needed), "{needed}");
    }
}
