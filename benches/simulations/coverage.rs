//! Do the intervals hold the true mean, and what does resampling queries one by one do instead?

use rand::Rng;

use compat_audit::stats::{Bootstrap, ClusterSums, mean_estimate};

use super::draw::{Queries, Sizes, gaussian, queries, stream};
use super::tally::tally;
use super::{LEVEL, REPLICATES};

const RUNS: u64 = 2_000;

/// The twin draws each query, up to 15,000 of them, so it gets fewer runs and replicates.
const NAIVE_RUNS: u64 = 300;
const NAIVE_REPLICATES: usize = 400;

const IDENTITIES: [u32; 5] = [25, 50, 100, 200, 750];

const SIZES: [Sizes; 4] = [
    Sizes::Each(1),
    Sizes::Each(5),
    Sizes::Each(20),
    Sizes::Unequal,
];

pub fn print() {
    println!(
        "Coverage in per cent of {RUNS} runs: normal values with the true mean 0, variance 1, a share ICC of it between\n\
         identities. `by query` resamples queries one by one ({NAIVE_RUNS} runs), for the level in its head.\n"
    );
    println!(
        "| ICC | identities | queries each | 90 % two-sided | lower 95 % | upper 95 % | by query 90 % | by query 95 % |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for icc in [0.0, 0.3] {
        for identities in IDENTITIES {
            for sizes in SIZES {
                let draw = |run: u64| {
                    let seed = u64::from(identities) + if icc > 0.0 { 10_000 } else { 0 };
                    sample(icc, identities, sizes, seed, run)
                };
                let [both, lower, upper] = tally(RUNS, |run| {
                    let sample = draw(run);
                    let sums = ClusterSums::new(&sample.values, &sample.identities);
                    let bootstrap = Bootstrap {
                        replicates: REPLICATES,
                        seed: run,
                    };
                    let found = mean_estimate(&sums, LEVEL, &bootstrap);
                    let (above, below) = (found.lower <= 0.0, found.upper >= 0.0);
                    [above && below, above, below]
                });
                let [naive_90, naive_95] = tally(NAIVE_RUNS, |run| {
                    let means = by_query(&draw(run).values, run);
                    [0.90, 0.95].map(|level| {
                        let end =
                            |share: f64| means[(share * (means.len() - 1) as f64).round() as usize];
                        end(0.5 - level / 2.0) <= 0.0 && end(0.5 + level / 2.0) >= 0.0
                    })
                });
                println!(
                    "| {icc} | {identities} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} |",
                    sizes.name(),
                    100.0 * both.rate(),
                    100.0 * lower.rate(),
                    100.0 * upper.rate(),
                    100.0 * naive_90.rate(),
                    100.0 * naive_95.rate()
                );
            }
        }
    }
}

fn sample(icc: f64, identities: u32, sizes: Sizes, seed: u64, run: u64) -> Queries {
    let mut rng = stream(seed, run);
    queries(
        &mut rng,
        identities,
        sizes,
        |rng| icc.sqrt() * gaussian(rng),
        |rng, effect| effect + (1.0 - icc).sqrt() * gaussian(rng),
    )
}

/// Means of queries drawn one by one, ascending.
fn by_query(values: &[f64], seed: u64) -> Vec<f64> {
    let mut rng = stream(seed, u64::MAX);
    let mut means: Vec<f64> = (0..NAIVE_REPLICATES)
        .map(|_| {
            let sum: f64 = (0..values.len())
                .map(|_| values[(rng.r#gen::<f32>() * values.len() as f32) as usize % values.len()])
                .sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    means
}
