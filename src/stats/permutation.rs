//! p values by permutation.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{Binomial, DiscreteCDF};

/// Up to this many non-zero clusters every sign pattern is tried: 2^20 of them take milliseconds.
const EXACT_CLUSTERS: usize = 20;

/// One-sided permutation p value: (1 + #{null >= observed}) / (1 + #null), in (0, 1].
///
/// The observed labelling counts as one of the permutations, so p is never 0 and the test is valid at
/// any number of them (Phipson and Smyth 2010).
pub fn permutation_p(observed: f64, null: &[f64]) -> f64 {
    let extreme = null.iter().filter(|&&value| value >= observed).count();
    (1 + extreme) as f64 / (1 + null.len()) as f64
}

/// Two-sided cluster sign-flip test of the asymmetry of flips.
///
/// `per_cluster_net` holds each identity's positive minus negative flips. Under the null the sign of each
/// is a fair coin and the statistic is the absolute total; clusters at 0 do not matter. When all are of
/// one size the test is the binomial of signs, which is exact McNemar when no identity repeats. Up to 20
/// non-zero clusters all patterns are enumerated; else `permutations` random ones are drawn from streams
/// of `seed`, the observed pattern counted in. 1 without any flip.
pub fn sign_flip_test(per_cluster_net: &[f64], seed: u64, permutations: usize) -> f64 {
    let sizes: Vec<f64> = per_cluster_net
        .iter()
        .filter(|&&net| net != 0.0)
        .map(|net| net.abs())
        .collect();
    let Some(&first) = sizes.first() else {
        return 1.0;
    };
    let observed = per_cluster_net.iter().sum::<f64>().abs();
    if sizes.iter().all(|&size| size == first) {
        let positive = per_cluster_net.iter().filter(|&&net| net > 0.0).count();
        return binomial_sign_p(positive as u64, sizes.len() as u64);
    }
    // Nets are counts, so totals are exact; the slack only serves callers with fractional nets.
    let threshold = observed - 1e-9 * sizes.iter().sum::<f64>();
    let as_extreme = |mut signs: u64, sizes: &[f64], start: f64| {
        let mut total = start;
        for size in sizes {
            total += if signs & 1 == 1 { *size } else { -size };
            signs >>= 1;
        }
        total
    };
    if sizes.len() <= EXACT_CLUSTERS {
        let patterns = 1u64 << sizes.len();
        let extreme = (0..patterns)
            .filter(|&signs| as_extreme(signs, &sizes, 0.0).abs() >= threshold)
            .count();
        return extreme as f64 / patterns as f64;
    }
    let extreme = (0..permutations as u64)
        .filter(|&r| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(r);
            let total = sizes
                .chunks(64)
                .fold(0.0, |total, chunk| as_extreme(rng.next_u64(), chunk, total));
            total.abs() >= threshold
        })
        .count();
    (1 + extreme) as f64 / (1 + permutations) as f64
}

/// Two-sided binomial p of `positive` among `n` fair coins: twice the smaller tail, at most 1.
fn binomial_sign_p(positive: u64, n: u64) -> f64 {
    let smaller = positive.min(n - positive);
    let tail = Binomial::new(0.5, n)
        .expect("one half is a probability")
        .cdf(smaller);
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::golden;
    use super::*;

    #[test]
    fn the_observed_labelling_is_one_of_the_permutations() {
        assert_eq!(permutation_p(5.0, &[1.0, 2.0, 3.0, 5.0]), 2.0 / 5.0);
        assert_eq!(permutation_p(5.0, &[]), 1.0);
        // 200 permutations can reach .005, which the assay check asks for.
        assert!(permutation_p(1.0, &[0.0; 200]) <= 0.005);
    }

    #[test]
    fn without_repeats_it_is_mcnemar() {
        for case in golden()["mcnemar"].as_array().unwrap() {
            let [positive, negative] =
                ["positive", "negative"].map(|key| case[key].as_u64().unwrap() as usize);
            let mut net = vec![1.0; positive];
            net.extend(vec![-1.0; negative]);
            net.push(0.0);
            let p = case["p"].as_f64().unwrap();
            let found = sign_flip_test(&net, 0, 1_000);
            assert!(
                (found - p).abs() < 1e-10,
                "{positive}/{negative}: {found} against {p}"
            );
        }
    }

    #[test]
    fn few_clusters_are_enumerated() {
        // Totals of +-1 +-2 +-3: |total| = 6 twice, 4 twice, 2 twice, 0 twice.
        assert_eq!(sign_flip_test(&[1.0, 2.0, 3.0], 0, 10), 2.0 / 8.0);
        assert_eq!(sign_flip_test(&[-1.0, 2.0, 3.0], 0, 10), 4.0 / 8.0);
        assert_eq!(sign_flip_test(&[1.0, 2.0, -3.0, 0.0], 0, 10), 1.0);
        assert_eq!(sign_flip_test(&[0.0, 0.0], 0, 10), 1.0);
    }

    #[test]
    fn many_clusters_are_sampled_the_same_each_time() {
        let mut net: Vec<f64> = (0..80).map(|i| f64::from(i % 3 + 1)).collect();
        assert_eq!(sign_flip_test(&net, 4, 999), 1.0 / 1_000.0);
        for value in net.iter_mut().step_by(2) {
            *value = -*value;
        }
        // Balanced: close to no evidence, and reproducible. Normal approximation: |z| = 1 / sqrt(373).
        let p = sign_flip_test(&net, 4, 999);
        assert!(p > 0.9, "{p}");
        assert_eq!(p, sign_flip_test(&net, 4, 999));
    }
}
