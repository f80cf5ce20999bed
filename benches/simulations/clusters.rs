//! Are planted clusters of a gallery found without any label?

use compat_audit::domain::Embeddings;
use compat_audit::structure::{StructureOptions, adjusted_rand_index, pseudo_identities};
use rand::Rng;
use rayon::prelude::*;

use super::draw::stream;
use super::mixtures::scattered;
use super::shuffled::probe_of;

const RUNS: u64 = 50;

const DIMS: [usize; 4] = [32, 64, 128, 512];

/// Cosine of the centres at most, and of two items of a cluster: the hardest that is promised, and a usual one.
const COSINES: [(f64, f64); 2] = [(0.75, 0.8), (0.5, 0.85)];

/// Clusters, and their items: from, to.
const SHAPES: [(usize, usize, usize); 4] = [(30, 8, 8), (30, 8, 40), (100, 8, 8), (100, 8, 40)];

pub fn print() {
    println!(
        "Per cent of {RUNS} galleries in which the clusters of the label-free profile agree with the planted ones: adjusted \
         Rand index\nof at least .9; and the mean index.\n"
    );
    println!(
        "| centres' cosine | items' cosine | dimensions | clusters | items each | index >= .9 | mean index |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (between, within) in COSINES {
        for dim in DIMS {
            for (clusters, fewest, most) in SHAPES {
                let indices: Vec<f64> = (0..RUNS)
                    .into_par_iter()
                    .map(|run| index(run, (clusters, fewest, most), dim, between, within))
                    .collect();
                let close = indices.iter().filter(|&&index| index >= 0.9).count();
                println!(
                    "| {between} | {within} | {dim} | {clusters} | {fewest} to {most} | {:.0} | {:.3} |",
                    100.0 * close as f64 / RUNS as f64,
                    indices.iter().sum::<f64>() / RUNS as f64
                );
            }
        }
    }
}

fn index(
    run: u64,
    (clusters, fewest, most): (usize, usize, usize),
    dim: usize,
    between: f64,
    within: f64,
) -> f64 {
    let rng = &mut stream(dim as u64, run);
    let sizes: Vec<usize> = (0..clusters)
        .map(|_| rng.gen_range(fewest..=most))
        .collect();
    let (rows, label) = scattered(&sizes, dim, between, within, rng);
    let old = Embeddings::dense(rows.mapv(|v| v as f32), true).expect("unit rows");
    let unlabelled = probe_of(&vec![0; label.len()]);
    let found = pseudo_identities(&unlabelled, &old, &StructureOptions::default());
    let of_item = found.of_item.iter().flatten();
    let clusters: Vec<usize> = of_item.map(|&cluster| cluster as usize).collect();
    adjusted_rand_index(&clusters, &label)
}
