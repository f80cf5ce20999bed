//! Bootstrap intervals of statistics that are no ratio of sums: the caller computes a replicate from weights.

use super::bootstrap::Bca;
use super::{Bootstrap, degrees_of_freedom, stretch, t_quantile};
use crate::domain::{Estimate, IntervalMethod};

/// Intervals of N statistics of the same identities from the same replicates, made like those of a mean
/// ([`super::mean_estimate`]): each end is the farther one of the linearised t and of the stretched BCa bootstrap.
///
/// - `values`: the statistics of the sample.
/// - `influence[i][g]`: first-order effect of identity g on statistic i, the derivative with respect to the identity's weight
///   (for a mean over queries (S_g - D n_g)/N). They give the standard error, sqrt(G/(G-1) sum u_g^2), its degrees of freedom, and the
///   acceleration, sum u_g^3 / (6 (sum u_g^2)^1.5), without a jackknife, which a statistic with a threshold in it would make
///   jump.
/// - `replicate`: the statistics under weights, one an identity: how often it was drawn. Values that are not finite are left
///   out.
///
/// Needs at least two identities. A statistic that no identity influences has its value for both ends. Replicate r draws from
/// stream r of the seed, so threads cannot move an interval.
pub fn functional_estimates<const N: usize>(
    values: [f64; N],
    influence: &[Vec<f64>; N],
    replicate: impl Fn(&[f64]) -> [f64; N] + Sync,
    level: f64,
    bootstrap: &Bootstrap,
) -> [Estimate; N] {
    let identities = influence[0].len();
    let replicates = bootstrap.map_replicates(identities, |weights| {
        let weights: Vec<f64> = weights.iter().copied().map(f64::from).collect();
        replicate(&weights)
    });
    std::array::from_fn(|i| {
        let replicates = replicates.iter().map(|replicate| replicate[i]).collect();
        interval(values[i], &influence[i], replicates, level)
    })
}

fn interval(value: f64, influence: &[f64], replicates: Vec<f64>, level: f64) -> Estimate {
    let squares: f64 = influence.iter().map(|u| u * u).sum();
    let cubes: f64 = influence.iter().map(|u| u * u * u).sum();
    let standard_error = stretch(influence.len()) * squares.sqrt();
    let (lower, upper) = if standard_error == 0.0 {
        (value, value)
    } else {
        let df = degrees_of_freedom(influence, &vec![1.0; influence.len()]);
        let t = t_quantile(0.5 + level / 2.0, df);
        let (mut lower, mut upper) = (value - t * standard_error, value + t * standard_error);
        let acceleration = cubes / (6.0 * squares.powf(1.5));
        if let Some(bca) = Bca::of(replicates, value, acceleration) {
            let stretched = stretch(influence.len()) * t;
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
        method: IntervalMethod::BcaByIdentity,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ClusterSums, mean_estimate};
    use super::*;

    #[test]
    fn a_mean_written_as_a_functional_is_the_mean() {
        let sum: Vec<f64> = (0..80).map(|i| f64::from(i * i % 37) / 10.0).collect();
        let n: Vec<f64> = (0..80).map(|i| f64::from(1 + i % 4)).collect();
        let sums = ClusterSums {
            sum: sum.clone(),
            n: n.clone(),
        };
        let bootstrap = Bootstrap {
            replicates: 4_000,
            seed: 3,
        };
        let expected = mean_estimate(&sums, 0.9, &bootstrap);
        let total: f64 = n.iter().sum();
        let influence = sum
            .iter()
            .zip(&n)
            .map(|(s, n)| (s - sums.mean() * n) / total)
            .collect();
        let dot = |w: &[f64], x: &[f64]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let mean = |weights: &[f64]| [dot(weights, &sum) / dot(weights, &n)];
        let [found] = functional_estimates([sums.mean()], &[influence], mean, 0.9, &bootstrap);
        // The same draws; the jackknife's acceleration differs from the influence's in the order 1/G.
        assert!((found.standard_error - expected.standard_error).abs() < 1e-12);
        let near = |a: f64, b: f64| (a - b).abs() < 0.02 * expected.standard_error;
        assert!(near(found.lower, expected.lower) && near(found.upper, expected.upper));
    }

    #[test]
    fn what_nothing_influences_has_no_width() {
        let none = [vec![0.0; 50]];
        let bootstrap = Bootstrap::default();
        let [found] = functional_estimates([0.2], &none, |_| [0.1], 0.9, &bootstrap);
        assert_eq!((found.lower, found.upper), (0.2, 0.2));
    }
}
