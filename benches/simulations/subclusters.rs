//! Are planted sub-clusters found, and is one cluster left whole?

use compat_audit::structure::{adjusted_rand_index, partition};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;

use super::draw::stream;
use super::mixtures::{elongated, mixture};
use super::tally::{Tally, tally};

const RUNS: u64 = 500;

const DIMS: [usize; 4] = [32, 64, 128, 512];

/// Cosine of the centres, and of two items of a cluster: the hardest that is promised, and a usual one.
const COSINES: [(f64, f64); 2] = [(0.75, 0.8), (0.5, 0.85)];

const SIZES: [&[usize]; 6] = [
    &[8, 8],
    &[8, 20],
    &[20, 40],
    &[8, 8, 8],
    &[12, 12, 12],
    &[10, 10, 10, 10, 10],
];

pub fn print_planted() {
    println!(
        "Per cent of {RUNS} identities: the planted number of sub-clusters found, adjusted Rand index of at least .95; and \
         the mean\nindex. 95 % interval of the middle column.\n"
    );
    println!(
        "| centres' cosine | items' cosine | dimensions | items | k found | index >= .95 | interval | mean index |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (between, within) in COSINES {
        for dim in DIMS {
            for sizes in SIZES {
                let index_of = |run: u64| {
                    let (rows, label) = mixture(sizes, dim, between, within, &mut rng(dim, run));
                    let found = partition(&rows, run, 0);
                    (found.k, adjusted_rand_index(&label, &found.label))
                };
                let [k_found, close] = tally(RUNS, |run| {
                    let (k, index) = index_of(run);
                    [k == sizes.len(), index >= 0.95]
                });
                let mean = (0..RUNS).map(|run| index_of(run).1).sum::<f64>() / RUNS as f64;
                println!(
                    "| {between} | {within} | {dim} | {} | {} | {} | {mean:.3} |",
                    names(sizes),
                    percent(k_found),
                    with_interval(close)
                );
            }
        }
    }
}

pub fn print_whole() {
    println!("Per cent of {RUNS} identities that are one cluster and stay one.\n");
    println!("| dimensions | items | isotropic | interval | rank 4, elongated | interval |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for dim in DIMS {
        for n in [8, 12, 16, 30, 60] {
            let is_whole = |rows: Array2<f64>, run| partition(&rows, run, 0).k == 1;
            let [isotropic, long] = tally(RUNS, |run| {
                let rng = &mut rng(dim, run);
                let (isotropic, _) = mixture(&[n], dim, 0.5, 0.8, rng);
                let elongated = elongated(n, dim, 0.2, 0.2, rng);
                [is_whole(isotropic, run), is_whole(elongated, run)]
            });
            println!(
                "| {dim} | {n} | {} | {} |",
                with_interval(isotropic),
                with_interval(long)
            );
        }
    }
}

fn rng(dim: usize, run: u64) -> ChaCha8Rng {
    stream(dim as u64, run)
}

fn names(sizes: &[usize]) -> String {
    sizes
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(" + ")
}

fn percent(tally: Tally) -> String {
    format!("{:.1}", 100.0 * tally.rate())
}

fn with_interval(tally: Tally) -> String {
    let (lower, upper) = tally.interval();
    format!(
        "{} | [{:.1}, {:.1}]",
        percent(tally),
        100.0 * lower,
        100.0 * upper
    )
}
