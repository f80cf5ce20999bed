//! The bootstrap over identities against its naive twin, which resamples queries one by one: medians of 5, and their
//! ratio. The twin draws as many queries as there are; the bootstrap draws identities and adds their sums.
//!
//! `cargo bench --bench bootstrap`

use std::hint::black_box;
use std::time::Instant;

use compat_audit::stats::{Bootstrap, ClusterSums, mean_estimate};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const RUNS: usize = 5;

const QUERIES: u32 = 10_000;

/// Replicate means of queries drawn one by one, sorted, and their percentile ends: what a first implementation does.
fn by_query(values: &[f64], bootstrap: &Bootstrap) -> (f64, f64) {
    let mut means: Vec<f64> = (0..bootstrap.replicates as u64)
        .into_par_iter()
        .map(|replicate| {
            let mut rng = ChaCha8Rng::seed_from_u64(bootstrap.seed);
            rng.set_stream(replicate);
            let sum: f64 = (0..values.len())
                .map(|_| values[rng.gen_range(0..values.len())])
                .sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| means[(share * (means.len() - 1) as f64).round() as usize];
    (at(0.05), at(0.95))
}

fn median_seconds(mut work: impl FnMut()) -> f64 {
    work();
    let mut seconds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[RUNS / 2]
}

fn main() {
    let bootstrap = Bootstrap::default();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let values: Vec<f64> = (0..QUERIES).map(|_| rng.gen_range(-0.5..0.5)).collect();
    println!(
        "{} replicates of {QUERIES} queries, {} threads, medians of {RUNS}",
        bootstrap.replicates,
        rayon::current_num_threads()
    );
    println!(
        "{:>10} {:>12} {:>12} {:>7}",
        "identities", "BCa s", "by query s", "ratio"
    );
    for identities in [100, 1_000, 10_000] {
        let cluster: Vec<u32> = (0..QUERIES).map(|query| query % identities).collect();
        let bca = median_seconds(|| {
            let sums = ClusterSums::new(&values, &cluster);
            black_box(mean_estimate(&sums, 0.9, &bootstrap));
        });
        let naive = median_seconds(|| {
            black_box(by_query(&values, &bootstrap));
        });
        println!(
            "{identities:>10} {bca:>12.4} {naive:>12.4} {:>7.1}",
            naive / bca
        );
    }
}
