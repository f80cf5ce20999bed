//! The slice test: which slices of the queries lose more than their margin.
//!
//! Slices are detection-type: a slice that is not proven to lose passes. So the error that is held is that of
//! failing one that does not lose, over all slices together (Holm), and each slice carries the loss that would have
//! been found.

use rayon::prelude::*;

use super::saddlepoint::deviate_of_sum_at_zero;
use super::{
    Bootstrap, ClusterSums, VariancePrior, benjamini_hochberg, holm, interval_and_distribution,
    stretch, t_cdf, t_quantile,
};
use crate::domain::{Estimate, IntervalMethod};

/// From this many identities on a slice is resampled by identity. With fewer, and most slices have one, its own
/// spread between identities is too poorly known for the far tails that Holm's first steps ask for.
pub const SMALL_SLICE_IDENTITIES: usize = 20;

/// One slice's per-query values (changes of the primary measure, in [-1, 1]) with each query's identity; parallel.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceValues {
    /// One value a query.
    pub values: Vec<f64>,
    /// Identity index of each query.
    pub identities: Vec<u32>,
    /// What none of the values can exceed, in [0, 1]: a query that scores .8 today can gain .2. 1 where nothing is known.
    pub largest: f64,
}

/// What the test found for one slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SliceTest {
    /// Mean over the slice's queries; the interval is not corrected for the number of slices.
    pub estimate: Estimate,
    /// One-sided p of "the mean is at least the limit", in [0, 1]. Small: proven below the limit.
    pub p: f64,
    /// `p` adjusted over all slices by Holm: at most alpha means that the slice fails.
    pub p_holm: f64,
    /// Benjamini and Hochberg's q over all slices: at most alpha makes it a suspect.
    pub q: f64,
    /// The true loss (a positive number) that fails with the given power even as the only losing slice of all:
    /// -limit + (t(1 - alpha/m) + t(power)) SE of m slices; where the values do not vary, at least the constant loss that
    /// fails. Infinite where nothing is known of the spread.
    pub minimum_detectable_loss: f64,
}

/// Tests each slice's H0 "the mean over its queries is at least `limit`" (`limit` = -slice margin).
///
/// A slice of at least [`SMALL_SLICE_IDENTITIES`] identities is resampled by identity, so that it speaks for
/// identities like these: the interval is [`super::mean_estimate`]'s, and p is the error at which its upper end lies
/// on the limit. Where fewer than 20 replicates lie beyond the limit, the saddlepoint approximation of the same
/// bootstrap distribution stands in for their share, so that p is not floored at 1/replicates and can pass Holm's
/// first step however many slices there are.
///
/// A smaller slice is tested by a t over its queries whose variance is moderated over all small slices
/// ([`VariancePrior`]). It speaks for these identities only: their spread is in the variance, but no degree of
/// freedom is spent on it.
///
/// Values that do not vary say nothing of their spread, and those that hardly do leave a t few degrees of freedom. What bounds
/// them proves losses all the same, by bets against the mean (`p_of_bets`): the smaller p counts, and where nothing varies that of the bets alone.
///
/// A t over few queries trusts the normal distribution: small slices on the very limit whose values are mostly the
/// same and rarely far better are failed too often. `docs/statistics.md` has the rates.
///
/// `alpha` is the one-sided error of each bound (the interval's level is 1 - 2 alpha) and of Holm's family,
/// `power` that of the minimum detectable loss. A slice without queries has the value NaN and p = 1.
///
/// # Panics
/// When a slice's values and identities differ in number.
pub fn test_slices(
    slices: &[SliceValues],
    limit: f64,
    alpha: f64,
    power: f64,
    bootstrap: &Bootstrap,
) -> Vec<SliceTest> {
    let samples: Vec<Sample> = slices.iter().map(Sample::new).collect();
    let (variances, df): (Vec<f64>, Vec<f64>) = samples
        .iter()
        .filter(|sample| sample.unit == Unit::Query)
        .map(|sample| (sample.variance(), sample.df()))
        .unzip();
    let prior = VariancePrior::fit(&variances, &df);
    let level = 1.0 - 2.0 * alpha;
    let single: Vec<Single> = samples
        .par_iter()
        .map(|sample| {
            let single = match sample.unit {
                Unit::Identity => by_identity(&sample.sums, limit, level, bootstrap),
                Unit::Query => by_query(sample, &prior, limit, level),
            };
            let bets = p_of_bets(&sample.sums, sample.largest, limit);
            Single {
                // Without spread there is no t.
                p: if sample.is_constant() {
                    bets
                } else {
                    single.p.min(bets)
                },
                ..single
            }
        })
        .collect();
    let p: Vec<f64> = single.iter().map(|test| test.p).collect();
    let first_step = alpha / slices.len() as f64;
    single
        .iter()
        .zip(&samples)
        .zip(holm(&p))
        .zip(benjamini_hochberg(&p))
        .map(|(((test, sample), p_holm), q)| {
            let by_spread = test.minimum_detectable_loss(limit, first_step, power);
            SliceTest {
                estimate: test.estimate,
                p: test.p,
                p_holm,
                q,
                minimum_detectable_loss: if sample.is_constant() {
                    by_spread.max(sample.smallest_even_loss(limit, first_step))
                } else {
                    by_spread
                },
            }
        })
        .collect()
}

/// What is taken for independent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Identity,
    Query,
}

/// What is tested of a slice.
struct Sample {
    unit: Unit,
    /// By unit.
    sums: ClusterSums,
    /// See [`SliceValues::largest`].
    largest: f64,
}

impl Sample {
    fn new(slice: &SliceValues) -> Self {
        let by_identity = ClusterSums::new(&slice.values, &slice.identities);
        let (unit, sums) = if by_identity.n_identities() >= SMALL_SLICE_IDENTITIES {
            (Unit::Identity, by_identity)
        } else {
            // Each query as its own identity gives the plain variance with the same care for rounding.
            let n = vec![1.0; slice.values.len()];
            let sum = slice.values.clone();
            (Unit::Query, ClusterSums { sum, n })
        };
        Self {
            unit,
            sums,
            largest: slice.largest,
        }
    }

    fn n_units(&self) -> f64 {
        self.sums.n.len() as f64
    }

    /// n - 1; 0 of none.
    fn df(&self) -> f64 {
        (self.n_units() - 1.0).max(0.0)
    }

    /// Whether all units have one mean.
    fn is_constant(&self) -> bool {
        self.n_units() <= 1.0 || self.sums.standard_error() == 0.0
    }

    /// Sample variance of the units; 0 of one.
    fn variance(&self) -> f64 {
        if self.is_constant() {
            0.0
        } else {
            self.n_units() * self.sums.standard_error().powi(2)
        }
    }

    /// The smallest loss that, had by every query alike, the bets let fail; infinite where the largest there is, 1, does not.
    fn smallest_even_loss(&self, limit: f64, p: f64) -> f64 {
        let fails = |loss: f64| {
            let sum = self.sums.n.iter().map(|n| -loss * n).collect();
            let n = self.sums.n.clone();
            p_of_bets(&ClusterSums { sum, n }, self.largest, limit) <= p
        };
        if !fails(1.0) {
            return f64::INFINITY;
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..f64::MANTISSA_DIGITS {
            let loss = f64::midpoint(low, high);
            if fails(loss) {
                high = loss;
            } else {
                low = loss;
            }
        }
        high
    }
}

/// One slice's test before the others are looked at.
struct Single {
    estimate: Estimate,
    p: f64,
    /// Degrees of freedom of the t on the standard error; 0 when nothing is known of the spread.
    df: f64,
}

impl Single {
    fn minimum_detectable_loss(&self, limit: f64, first_step: f64, power: f64) -> f64 {
        let standard_error = self.estimate.standard_error;
        if standard_error == 0.0 {
            -limit
        } else if self.df > 0.0 {
            let quantiles = t_quantile(1.0 - first_step, self.df) + t_quantile(power, self.df);
            -limit + quantiles * standard_error
        } else {
            f64::INFINITY
        }
    }
}

fn by_identity(sums: &ClusterSums, limit: f64, level: f64, bootstrap: &Bootstrap) -> Single {
    let (estimate, distribution) = interval_and_distribution(&sums.sum, &sums.n, level, bootstrap);
    let df = sums.degrees_of_freedom();
    let p_t = p_of_t(estimate.value - limit, estimate.standard_error, df);
    let p = distribution.map_or(p_t, |bca| {
        // sum(a*) / sum(b*) <= limit is sum(a* - limit b*) <= 0.
        let far = || {
            let distances: Vec<f64> = sums
                .sum
                .iter()
                .zip(&sums.n)
                .map(|(sum, n)| sum - limit * n)
                .collect();
            deviate_of_sum_at_zero(&distances)
        };
        let z = bca.deviate(limit, far);
        p_t.max(t_cdf(-z / stretch(sums.n_identities()), df))
    });
    Single { estimate, p, df }
}

fn by_query(sample: &Sample, prior: &VariancePrior, limit: f64, level: f64) -> Single {
    let (n, mean) = (sample.n_units(), sample.sums.mean());
    let moderated = prior.squeeze(sample.variance(), sample.df());
    let df = moderated.df;
    let known = n > 0.0 && df > 0.0;
    let standard_error = if known {
        (moderated.variance / n).sqrt()
    } else {
        f64::INFINITY
    };
    let reach = if standard_error == 0.0 {
        0.0
    } else if known {
        t_quantile(0.5 + level / 2.0, df) * standard_error
    } else {
        f64::INFINITY
    };
    let p = if known {
        p_of_t(mean - limit, standard_error, df)
    } else {
        1.0
    };
    let estimate = Estimate {
        value: mean,
        lower: mean - reach,
        upper: mean + reach,
        level,
        standard_error,
        method: IntervalMethod::ModeratedT,
    };
    Single { estimate, p, df }
}

/// One-sided p of a distance from the limit; 1 where there is no spread and so no t: bets tell.
fn p_of_t(distance: f64, standard_error: f64, df: f64) -> f64 {
    if standard_error > 0.0 {
        t_cdf(distance / standard_error, df)
    } else {
        1.0
    }
}

/// Bound of the p of "the mean is at least `limit`" over independent units none of whose values exceeds `largest`, whatever
/// their distribution: bets against it (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by
/// betting").
///
/// A unit of n queries with the sum S multiplies a stake by 1 + s (limit n - S) / ((largest - limit) n_max), which is at least
/// 0 for s <= 1 and on average at most 1 if the mean is at least the limit. So the mean of two stakes, s = 1 and s = 1/2,
/// exceeds 1/p with a probability of at most p (Markov). The whole stake is the best where all lose alike; the half one
/// survives a unit that gains all it can.
fn p_of_bets(sums: &ClusterSums, largest: f64, limit: f64) -> f64 {
    let n_max = sums.n.iter().copied().fold(0.0, f64::max);
    let room = (largest - limit) * n_max;
    // Where nothing can gain and nothing may be lost, a mean at the limit leaves no room for any loss.
    if room <= 0.0 {
        return f64::from(sums.n.is_empty() || sums.mean() >= limit);
    }
    let stake = |share: f64| -> f64 {
        let growth = |(sum, n): (&f64, &f64)| {
            // Of values that keep to their bound it is never below 0.
            (1.0 + share * (limit * n - sum) / room).max(0.0).ln()
        };
        let logarithm: f64 = sums.sum.iter().zip(&sums.n).map(growth).sum();
        logarithm.exp()
    };
    (2.0 / (stake(1.0) + stake(0.5))).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::normal_quantile;
    use super::*;

    const LIMIT: f64 = -0.1;

    fn test(slices: &[SliceValues]) -> Vec<SliceTest> {
        let bootstrap = Bootstrap {
            replicates: 2_000,
            seed: 0,
        };
        test_slices(slices, LIMIT, 0.05, 0.8, &bootstrap)
    }

    /// `identities` of `queries` values each: `mean` plus noise of `spread`, and of `hidden` an identity.
    fn slice(
        rng: &mut ChaCha8Rng,
        (identities, queries): (u32, u32),
        mean: f64,
        spread: f64,
        hidden: f64,
    ) -> SliceValues {
        let mut gaussian = || normal_quantile((f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0);
        let (mut values, mut of) = (Vec::new(), Vec::new());
        for identity in 0..identities {
            let effect = mean + hidden * gaussian();
            for _ in 0..queries {
                values.push(effect + spread * gaussian());
                of.push(identity);
            }
        }
        SliceValues {
            values,
            identities: of,
            largest: 1.0,
        }
    }

    fn constant(value: f64, identities: u32, queries: u32) -> SliceValues {
        SliceValues {
            values: vec![value; (identities * queries) as usize],
            identities: (0..identities * queries).map(|i| i % identities).collect(),
            largest: 1.0,
        }
    }

    #[test]
    fn each_size_has_its_method() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let slices = [(1, 30), (19, 3), (20, 3), (39, 1), (40, 1)]
            .map(|size| slice(&mut rng, size, 0.0, 0.1, 0.0));
        let methods: Vec<IntervalMethod> =
            test(&slices).iter().map(|t| t.estimate.method).collect();
        use IntervalMethod::*;
        assert_eq!(
            methods,
            [
                ModeratedT,
                ModeratedT,
                LinearisedT,
                LinearisedT,
                BcaByIdentity
            ]
        );
    }

    #[test]
    fn the_linearised_t_by_hand() {
        // 20 identities of one query, half at -.2 and half at -.3: mean -.25, s^2 = 20/19 * .0025,
        // SE = sqrt(s^2/20) = .0114708, t = -.15 / SE = -13.0767 on 19 degrees.
        let values: Vec<f64> = (0..20)
            .map(|i| if i % 2 == 0 { -0.2 } else { -0.3 })
            .collect();
        let one = SliceValues {
            values,
            identities: (0..20).collect(),
            largest: 1.0,
        };
        let found = test(std::slice::from_ref(&one))[0];
        let se = 0.0025_f64.sqrt() / 19.0_f64.sqrt();
        assert!((found.p - t_cdf(-0.15 / se, 19.0)).abs() < 1e-12 && found.p < 1e-10);
        assert_eq!((found.p_holm, found.q), (found.p, found.p));
        // t quantiles on 19 degrees: 1.729133 at .95 and .860951 at .8.
        let expected = 0.1 + (1.729133 + 0.860951) * se;
        assert!((found.minimum_detectable_loss - expected).abs() < 1e-6);
        // Twice the slices: the first step is .025, the quantile 2.093024.
        let found = test(&[one.clone(), one])[1];
        let expected = 0.1 + (2.093024 + 0.860951) * se;
        assert!((found.minimum_detectable_loss - expected).abs() < 1e-6);
        assert_eq!(found.p_holm, 2.0 * found.p);
        assert_eq!(found.q, found.p);
    }

    #[test]
    fn three_collapsed_of_sixty_are_named_and_no_other() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let slices: Vec<SliceValues> = (0..60)
            .map(|i| {
                slice(
                    &mut rng,
                    (1, 15),
                    if i % 20 == 7 { -0.6 } else { 0.02 },
                    0.15,
                    0.0,
                )
            })
            .collect();
        let found = test(&slices);
        for (i, test) in found.iter().enumerate() {
            assert_eq!(test.p_holm <= 0.05, i % 20 == 7, "{i}: {test:?}");
            // Sixteen standard errors is .6, so a loss of .3 could not have stayed unseen.
            assert!(test.minimum_detectable_loss < 0.3);
        }
    }

    #[test]
    fn p_and_interval_say_the_same_of_one_slice() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (size, spread) in [
            ((1, 12), 0.1),
            ((25, 3), 0.1),
            ((60, 2), 0.2),
            ((200, 1), 0.4),
        ] {
            for mean in [-0.3, -0.16, -0.13, -0.1, 0.0] {
                let found = test(&[slice(&mut rng, size, mean, spread, 0.05)])[0];
                // The interval interpolates between replicates, p counts them: a little slack near .05.
                assert!(
                    (found.estimate.upper < LIMIT) == (found.p < 0.05)
                        || (found.p - 0.05).abs() < 0.001,
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn p_passes_the_first_step_of_thousands() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut slices: Vec<SliceValues> = (0..3_000)
            .map(|_| slice(&mut rng, (1, 10), 0.0, 0.1, 0.0))
            .collect();
        slices.push(slice(&mut rng, (45, 1), -0.6, 0.2, 0.0));
        slices.push(slice(&mut rng, (1, 10), -0.6, 0.1, 0.0));
        let found = test(&slices);
        assert!(found[..3_000].iter().all(|test| test.p_holm > 0.05));
        assert!(found[3_000].p_holm < 1e-3, "{:?}", found[3_000]);
        assert!(found[3_001].p_holm < 1e-3, "{:?}", found[3_001]);
    }

    #[test]
    fn values_that_do_not_vary_are_no_proof_by_themselves() {
        // Of values up to 1 each at -.5 multiplies the whole stake by 1.5/1.1, the half one by half of it more.
        let p = |n: i32| 2.0 / ((1.5_f64 / 1.1).powi(n) + (1.3_f64 / 1.1).powi(n));
        let found = test(&[constant(-0.5, 1, 2)])[0];
        assert_eq!(found.estimate.standard_error, 0.0);
        assert!((found.p - p(2)).abs() < 1e-12);
        assert!((test(&[constant(-0.5, 1, 10)])[0].p - p(10)).abs() < 1e-12);
        let found = test(&[constant(-0.5, 20, 3)])[0];
        assert!((found.p - p(20)).abs() < 1e-12);
        // The loss that it says it would show is the least that it does show.
        let least = found.minimum_detectable_loss;
        for (loss, fails) in [(least + 1e-9, true), (least - 1e-9, false)] {
            let found = test(&[constant(-loss, 20, 3)])[0];
            assert_eq!(found.p_holm <= 0.05, fails, "{least}");
        }
        // At the limit, or above it.
        assert_eq!(test(&[constant(LIMIT, 1, 10)])[0].p, 1.0);
        assert_eq!(test(&[constant(0.0, 30, 10)])[0].p, 1.0);
        // Beside slices that vary it borrows their variance, but no proof.
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut slices: Vec<SliceValues> = (0..20)
            .map(|_| slice(&mut rng, (1, 10), 0.0, 0.1, 0.0))
            .collect();
        slices.push(constant(-0.5, 1, 10));
        let found = test(&slices)[20];
        assert!(found.estimate.standard_error > 0.0);
        assert!((found.p - p(10)).abs() < 1e-12);
    }

    /// Queries that fall from 1 to .5 could not have gained: ten of them are proof enough among a hundred slices, and so are
    /// nineteen of twenty identities, which leave a t two degrees of freedom.
    #[test]
    fn an_even_loss_of_queries_that_cannot_gain_is_proven() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut slices: Vec<SliceValues> = (0..100)
            .map(|_| slice(&mut rng, (1, 10), 0.0, 0.05, 0.0))
            .collect();
        let but_one = |mut slice: SliceValues| {
            slice.values[0] = 0.0;
            slice
        };
        let even = slices.len();
        slices.extend([constant(-0.5, 1, 10), constant(-0.5, 20, 3)]);
        slices.push(but_one(constant(-0.5, 1, 10)));
        slices.push(but_one(constant(-0.5, 20, 1)));
        let fails = |largest: f64, slices: &mut [SliceValues]| -> Vec<bool> {
            slices.iter_mut().for_each(|slice| slice.largest = largest);
            let found = test(slices);
            found[even..].iter().map(|t| t.p_holm <= 0.05).collect()
        };
        assert_eq!(fails(0.0, &mut slices), [true; 4]);
        // If each of them could have gained a half, and a half again.
        assert_eq!(fails(1.0, &mut slices), [false, false, true, false]);
        // The whole stake grows fivefold a query, the half one threefold.
        let alone = SliceValues {
            largest: 0.0,
            ..constant(-0.5, 1, 10)
        };
        let p = 2.0 / (5.0_f64.powi(10) + 3.0_f64.powi(10));
        assert!((test(&[alone])[0].p / p - 1.0).abs() < 1e-12);
    }

    /// One identity of 40 queries among single ones: the bets scale by it, and find less than among equals.
    #[test]
    fn the_detectable_even_loss_is_that_of_identities_as_uneven_as_they_are() {
        let uneven = |loss: f64, largest: f64| SliceValues {
            values: vec![-loss; 59],
            identities: (0..59).map(|q: u32| q.saturating_sub(39)).collect(),
            largest,
        };
        let detectable = |largest| test(&[uneven(0.0, largest)])[0].minimum_detectable_loss;
        let found = detectable(0.0);
        assert!(found > 0.4 && found < 0.6, "{found}");
        assert!(test(&[uneven(found + 1e-9, 0.0)])[0].p_holm <= 0.05);
        assert!(test(&[uneven(found - 1e-9, 0.0)])[0].p_holm > 0.05);
        assert!(test(&[uneven(1.0, 0.3)])[0].p_holm > 0.05);
        assert_eq!(detectable(0.3), f64::INFINITY);
    }

    #[test]
    fn a_constant_change_on_the_very_limit_is_no_proof() {
        for (identities, queries) in [(1, 10), (20, 1), (40, 1)] {
            let found = test(&[constant(LIMIT, identities, queries)])[0];
            assert!((found.p, found.p_holm) == (1.0, 1.0), "{found:?}");
        }
    }

    #[test]
    fn where_nothing_may_be_lost_any_even_loss_of_what_cannot_gain_is_proof() {
        let at = |value: f64| SliceValues {
            largest: 0.0,
            ..constant(value, 1, 10)
        };
        let bootstrap = Bootstrap::default();
        let found = test_slices(&[at(-0.5), at(0.0)], 0.0, 0.05, 0.8, &bootstrap);
        assert_eq!([found[0].p, found[1].p], [0.0, 1.0]);
    }

    /// Under a mean at the limit the bets are won no more often than they say, whatever the distribution: here the worst for a t,
    /// mostly the same small loss and rarely the largest gain.
    #[test]
    fn bets_against_a_mean_at_the_limit_keep_their_error() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        for (loss, n_units, n_queries) in [(-0.2, 12, 1), (-0.5, 20, 3), (-0.9, 30, 1)] {
            let (largest, runs) = (0.4, 4_000);
            // loss (1 - q) + largest q = LIMIT.
            let gains = (LIMIT - loss) / (largest - loss);
            let won = (0..runs)
                .filter(|_| {
                    let draw = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
                    let values: Vec<f64> = std::iter::repeat_with(draw)
                        .map(|draw| if draw < gains { largest } else { loss })
                        .take(n_units)
                        .collect();
                    let sums = ClusterSums {
                        sum: values
                            .iter()
                            .map(|value| value * f64::from(n_queries))
                            .collect(),
                        n: vec![f64::from(n_queries); n_units],
                    };
                    p_of_bets(&sums, largest, LIMIT) <= 0.05
                })
                .count();
            // Four binomial standard errors of 4,000 runs at .05 are .014.
            let share = won as f64 / f64::from(runs);
            assert!(share < 0.05 + 0.014, "{loss}: {share}");
        }
    }

    #[test]
    fn too_little_data_says_nothing() {
        let empty = SliceValues {
            values: vec![],
            identities: vec![],
            largest: 1.0,
        };
        let one = constant(-0.9, 1, 1);
        let found = test(&[empty, one]);
        assert_eq!((found[0].p, found[0].p_holm, found[0].q), (1.0, 1.0, 1.0));
        assert!(found[1].p > 0.5 && found[1].p_holm == 1.0);
        for found in found {
            assert_eq!(found.minimum_detectable_loss, f64::INFINITY);
            assert!(!found.estimate.lower.is_finite());
        }
        assert!(test(&[]).is_empty());
    }

    #[test]
    fn a_family_of_slices_on_the_limit_rarely_fails() {
        // Every slice at the limit itself, standard deviations over two decades, most slices tiny: the least
        // favourable case. Nominal .05 for the family.
        let runs = 150;
        let failed = (0..runs)
            .filter(|&run| {
                let mut rng = ChaCha8Rng::seed_from_u64(run);
                let slices: Vec<SliceValues> = (0..100)
                    .map(|i| {
                        let spread =
                            0.01 * 100.0_f64.powf(f64::from(rng.next_u32()) / f64::from(u32::MAX));
                        let size = if i % 25 == 0 {
                            (25, 2)
                        } else {
                            (1, 2 + i % 10)
                        };
                        slice(&mut rng, size, LIMIT, spread, 0.0)
                    })
                    .collect();
                test(&slices).iter().any(|test| test.p_holm <= 0.05)
            })
            .count();
        // Four binomial standard errors of 150 runs at .05 are .071.
        assert!(failed as f64 / (runs as f64) < 0.05 + 0.071, "{failed}");
    }

    proptest! {
        #[test]
        fn numbers_are_in_range_and_the_order_of_slices_and_queries_does_not_matter(
            raw in proptest::collection::vec(
                proptest::collection::vec((-1.0..1.0_f64, 0..60_u32), 0..120), 1..6),
        ) {
            let slices: Vec<SliceValues> = raw
                .iter()
                .map(|pairs| {
                    let (values, identities) = pairs.iter().copied().unzip();
                    SliceValues { values, identities, largest: 1.0 }
                })
                .collect();
            let found = test(&slices);
            for test in &found {
                prop_assert!((0.0..=1.0).contains(&test.p) && test.p <= test.p_holm && test.p <= test.q, "{test:?}");
                prop_assert!(test.minimum_detectable_loss >= 0.1);
            }
            let mut reversed: Vec<SliceValues> = slices.iter().rev().cloned().collect();
            for slice in &mut reversed {
                slice.values.reverse();
                slice.identities.reverse();
            }
            for (a, b) in found.iter().zip(test(&reversed).iter().rev()) {
                // Sums and medians run in another order.
                prop_assert!((a.p - b.p).abs() < 1e-6 && (a.p_holm - b.p_holm).abs() < 1e-5);
            }
        }
    }
}
