//! The points of one curve: each on its own, and all at once.

use rayon::prelude::*;

use super::bootstrap::{Bca, ratio_of_draws, tie_tolerance};
use super::{Bootstrap, ClusterSums, FEW_IDENTITIES, interval_of};
use crate::domain::Estimate;

/// Estimates of the points of one curve, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct CurveEstimates {
    /// Each point's own, as [`super::mean_estimate`] gives it. That every point lies above a limit is proven by all lower ends
    /// without a correction (intersection-union).
    pub pointwise: Vec<Estimate>,
    /// The same at a level at which the chance that any upper end lies below its point's true value is alpha, over all points
    /// together (union-intersection): what proves that the curve falls below a limit somewhere. No point's interval is narrower
    /// than its own.
    pub simultaneous: Vec<Estimate>,
}

/// Estimates of the means of a curve's points: values of the same queries, so that identity g is the same in all.
///
/// `level` is two-sided, alpha = (1 - level) / 2 the error of each end, or of all upper ends at once. Both come from the same
/// replicates. In 10,000 of them alpha is resolved down to some 20 replicates, .002: independent points, 25 of them at .05.
///
/// # Panics
/// When the points are not over the same number of identities.
pub fn curve_estimates(
    points: &[ClusterSums],
    level: f64,
    bootstrap: &Bootstrap,
) -> CurveEstimates {
    let identities = points.first().map_or(0, ClusterSums::n_identities);
    let same = points.iter().all(|at| at.n_identities() == identities);
    assert!(same, "all points are over the same identities");
    // Drawing costs more than summing up: every draw serves all points.
    let drawn = bootstrap.map_replicates(identities, |weights| -> Vec<f64> {
        let mean = |at: &ClusterSums| ratio_of_draws(weights, &at.sum, &at.n);
        points.iter().map(mean).collect()
    });
    let replicates: Vec<Vec<f64>> = (0..points.len())
        .map(|point| drawn.iter().map(|replicate| replicate[point]).collect())
        .collect();
    // A point that cannot vary errs in no replicate; what is left of its replicates is rounding.
    let varying: Vec<&[f64]> = points
        .iter()
        .zip(&replicates)
        .filter(|(at, _)| at.standard_error() > 0.0)
        .map(|(_, replicates)| replicates.as_slice())
        .collect();
    let alpha = simultaneous_alpha(&varying, (1.0 - level) / 2.0);
    let both: Vec<[Estimate; 2]> = points
        .par_iter()
        .zip(replicates)
        .map(|(ClusterSums { sum, n }, replicates)| {
            let bca = if identities >= FEW_IDENTITIES {
                Bca::of_ratio(replicates, sum, n)
            } else {
                None
            };
            [level, 1.0 - 2.0 * alpha].map(|level| interval_of(sum, n, level, bca.as_ref()))
        })
        .collect();
    let [pointwise, simultaneous] = [0, 1].map(|i| both.iter().map(|of| of[i]).collect());
    CurveEstimates {
        pointwise,
        simultaneous,
    }
}

/// The error that each point may have so that the error over all points is `alpha`, in (alpha / points, alpha].
///
/// `replicates[point][r]`: the point's bootstrap replicates, finite; r is the same draw in all points. With
/// F_t the share of the replicates of point t at or below a value, and `p[r]` = min over t of F_t(`x[t][r]`), the result is the largest a
/// for which at most the share `alpha` of the `p[r]` lies below a: the balanced critical value of Beran (1988, "Balanced
/// simultaneous confidence sets"), which is that of the single-step minP of Westfall and Young (1993). It has no standard error in it, so
/// points of any spread and skewness count alike, and what depends on each other costs less than Bonferroni's alpha / points:
/// points that say the same cost nothing.
///
/// Both ends of the range hold without rounding: of `points * k` lowest replicates at most so many are different ones, and at least k.
fn simultaneous_alpha(replicates: &[&[f64]], alpha: f64) -> f64 {
    let ranks: Vec<Vec<usize>> = replicates.par_iter().map(|x| at_or_below(x)).collect();
    let Some(n) = ranks.first().map(Vec::len) else {
        return alpha;
    };
    let mut lowest: Vec<usize> = (0..n)
        .filter_map(|r| ranks.iter().map(|of_point| of_point[r]).min())
        .collect();
    lowest.sort_unstable();
    // As many may err, so the next one bounds the error from above.
    let erring = (alpha * n as f64) as usize;
    lowest
        .get(erring)
        .map_or(alpha, |&rank| alpha.min(rank as f64 / n as f64))
}

/// For each value how many are at most as large, itself among them.
fn at_or_below(values: &[f64]) -> Vec<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    values
        .iter()
        .map(|&value| {
            let end = value + tie_tolerance(&sorted, value);
            sorted.partition_point(|&other| other <= end)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use serde_json::Value;

    use super::super::tests::{floats, gaussian};
    use super::super::{mean_estimate, normal_quantile};
    use super::*;

    fn alpha_of(points: &[Vec<f64>], alpha: f64) -> f64 {
        let points: Vec<&[f64]> = points.iter().map(Vec::as_slice).collect();
        simultaneous_alpha(&points, alpha)
    }

    /// The definition: the largest of the shares, and alpha, for which at most alpha of the replicates is lower anywhere.
    fn naive(points: &[Vec<f64>], alpha: f64) -> f64 {
        let n = points[0].len();
        let share = |point: &[f64], r: usize| {
            point.iter().filter(|&&x| x <= point[r]).count() as f64 / n as f64
        };
        let is_erring = |a: f64, r: usize| points.iter().any(|point| share(point, r) < a);
        let holds = |a: f64| {
            let erring = (0..n).filter(|&r| is_erring(a, r)).count();
            erring as f64 <= alpha * n as f64
        };
        let every = points
            .iter()
            .flat_map(|point| (0..n).map(|r| share(point, r)));
        every
            .chain([alpha])
            .filter(|&a| a <= alpha && holds(a))
            .fold(0.0, f64::max)
    }

    /// `n` replicates of `points` points, each of them `kept` of the one before and the rest its own.
    fn chain(points: usize, n: usize, kept: f64, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut now: Vec<f64> = (0..n).map(|_| gaussian(&mut rng)).collect();
        (0..points)
            .map(|_| {
                for x in &mut now {
                    *x = kept * *x + (1.0 - kept * kept).sqrt() * gaussian(&mut rng);
                }
                now.clone()
            })
            .collect()
    }

    #[test]
    fn by_hand() {
        // Twenty replicates, at .1 two may err. The second point's order is the first one's backwards, so that the
        // lowest ranks are 1, 1, 2, 2, 3, 3, ...: the third of them is 2 of 20.
        let rising: Vec<f64> = (0..20).map(f64::from).collect();
        let falling = rising.iter().map(|x| -x).collect();
        let both = [rising, falling];
        assert_eq!(alpha_of(&both, 0.1), 0.1);
        // At .25 five may err; the sixth is 3 of 20.
        assert_eq!(alpha_of(&both, 0.25), 0.15);
        assert_eq!(simultaneous_alpha(&[], 0.05), 0.05);
    }

    #[test]
    fn points_that_say_the_same_cost_nothing_and_independent_ones_what_sidak_asks() {
        let one = chain(1, 10_000, 0.0, 1);
        assert_eq!(alpha_of(&one, 0.05), 0.05);
        let alike: Vec<Vec<f64>> = (1..=21)
            .map(|scale| one[0].iter().map(|x| f64::from(scale) * x - 3.0).collect())
            .collect();
        assert_eq!(alpha_of(&alike, 0.05), 0.05);
        let sidak = 1.0 - 0.95_f64.powf(1.0 / 21.0);
        let found = alpha_of(&chain(21, 10_000, 0.0, 2), 0.05);
        // 500 replicates err: three standard errors of their number are 13 %.
        assert!((found / sidak - 1.0).abs() < 0.13, "{found} {sidak}");
        let between = alpha_of(&chain(21, 10_000, 0.95, 3), 0.05);
        assert!(between > 1.3 * sidak && between < 0.03, "{between}");
    }

    #[test]
    fn ties_that_differ_by_rounding_are_ties() {
        // One identity carries the change at every point: its draws alone count, and equally many are a tie at every point.
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let draws: Vec<f64> = (0..2_000).map(|_| f64::from(rng.next_u32() % 5)).collect();
        let points: Vec<Vec<f64>> = (1..=9)
            .map(|scale| {
                let scale = 0.1 * f64::from(scale);
                let mut noise = || 1.0 + 4.0 * f64::EPSILON * (rng.r#gen::<f64>() - 0.5);
                draws.iter().map(|x| -scale * x * noise()).collect()
            })
            .collect();
        assert_eq!(alpha_of(&points, 0.05), 0.05);
    }

    proptest! {
        #[test]
        fn it_is_the_definition_within_its_range_whatever_the_order(
            seed in 0..1_000_u64, points in 1..8_usize, n in 20..120_usize,
            kept in 0.0..1.0_f64, alpha in 0.01..0.4_f64, levels in 2..200_u32,
        ) {
            let mut points = chain(points, n, kept, seed);
            // Few levels make ties.
            for x in points.iter_mut().flatten() {
                *x = (*x * f64::from(levels)).round();
            }
            let found = alpha_of(&points, alpha);
            prop_assert_eq!(found, naive(&points, alpha));
            prop_assert!(found <= alpha && found > alpha / points.len() as f64 * (1.0 - 1e-12));
            points.reverse();
            prop_assert_eq!(alpha_of(&points, alpha), found);
            // Another point can only take from the others.
            points.truncate(points.len().div_ceil(2));
            prop_assert!(alpha_of(&points, alpha) >= found);
        }
    }

    /// A curve of 21 points, uneven identities.
    fn curve(identities: usize) -> Vec<ClusterSums> {
        let mut rng = ChaCha8Rng::seed_from_u64(identities as u64);
        let n: Vec<f64> = (0..identities).map(|g| (1 + g % 4) as f64).collect();
        chain(21, identities, 0.9, 5)
            .into_iter()
            .map(|sum| ClusterSums {
                sum: sum.iter().map(|s| s + 0.1 * gaussian(&mut rng)).collect(),
                n: n.clone(),
            })
            .collect()
    }

    const FEW_DRAWS: Bootstrap = Bootstrap {
        replicates: 2_000,
        seed: 1,
    };

    #[test]
    fn a_point_has_its_own_interval_and_a_wider_one_for_all_at_once() {
        for identities in [25, 60] {
            let points = curve(identities);
            let found = curve_estimates(&points, 0.9, &FEW_DRAWS);
            for (point, (own, at_once)) in points
                .iter()
                .zip(found.pointwise.iter().zip(&found.simultaneous))
            {
                assert_eq!(*own, mean_estimate(point, 0.9, &FEW_DRAWS));
                assert_eq!(*at_once, mean_estimate(point, at_once.level, &FEW_DRAWS));
                assert!(at_once.level > 0.97 && at_once.level < 1.0 - 0.1 / 21.0);
                assert!(at_once.lower < own.lower && at_once.upper > own.upper);
            }
            let alone = curve_estimates(&points[3..4], 0.9, &FEW_DRAWS);
            assert_eq!(alone.pointwise, alone.simultaneous);
        }
    }

    #[test]
    fn what_cannot_vary_and_a_single_identity_take_nothing() {
        let mut points = curve(60);
        let found = curve_estimates(&points, 0.9, &FEW_DRAWS);
        let n = points[0].n.clone();
        // .1 is not representable: its replicates differ by rounding.
        let sum = n.iter().map(|n| 0.1 * n).collect();
        points.push(ClusterSums { sum, n });
        let with = curve_estimates(&points, 0.9, &FEW_DRAWS);
        assert_eq!(with.simultaneous[..21], found.simultaneous[..]);
        assert_eq!(with.simultaneous[21].standard_error, 0.0);

        let one = ClusterSums::new(&[0.5, 0.7], &[3, 3]);
        let found = curve_estimates(&[one.clone(), one], 0.9, &FEW_DRAWS);
        assert_eq!(found.simultaneous, found.pointwise);
        assert_eq!(found.simultaneous[0].upper, f64::INFINITY);
        let none = curve_estimates(&[], 0.9, &FEW_DRAWS);
        assert!(none.pointwise.is_empty() && none.simultaneous.is_empty());
    }

    #[test]
    fn threads_do_not_move_it() {
        let points = curve(60);
        let with_threads = |threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(|| curve_estimates(&points, 0.9, &FEW_DRAWS))
        };
        let one = with_threads(1);
        assert_eq!(one, with_threads(2));
        assert_eq!(one, with_threads(5));
    }

    #[test]
    fn the_level_agrees_with_numpys_bootstrap_and_scipys_normal_integral() {
        let golden: Value =
            serde_json::from_str(include_str!("../../fixtures/golden/simultaneous.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let n = floats(&case["n"]);
            let sums = case["sums"].as_array().unwrap();
            let points: Vec<ClusterSums> = sums
                .iter()
                .map(|sum| ClusterSums {
                    sum: floats(sum),
                    n: n.clone(),
                })
                .collect();
            let found = curve_estimates(&points, 0.9, &Bootstrap::default());
            let deviate = |alpha: f64| -normal_quantile(alpha);
            let found = deviate((1.0 - found.simultaneous[0].level) / 2.0);
            let of = |key: &str| deviate(case[key].as_f64().unwrap());
            for key in ["bootstrap", "normal"] {
                let expected = of(key);
                // 500 of 10,000 replicates decide: their number wanders by 4.4 %, a deviate near 2.4 by .017.
                assert!(
                    (found - expected).abs() < 0.055,
                    "{} by {key}: {found} {expected}",
                    case["name"]
                );
            }
        }
    }
}
