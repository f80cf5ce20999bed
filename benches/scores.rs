//! The score kernel against its naive twin, side by side in one run: ratios, medians of 5.
//!
//! `cargo bench --bench scores`

use std::hint::black_box;
use std::time::Instant;

use compat_audit::config::Similarity;
use compat_audit::domain::Embeddings;
use compat_audit::retrieve::score::{PackedGallery, kernel_name, score_pair, score_rows};
use ndarray::{Array2, ArrayView1};
use rand::{Rng, SeedableRng};

const RUNS: usize = 5;

fn random(n: usize, dim: usize, seed: u64) -> Embeddings {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let rows = Array2::from_shape_fn((n, dim), |_| rng.gen_range(-1.0_f32..1.0));
    Embeddings::dense(rows, true).expect("finite and not zero")
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
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a pool");
    println!("one thread, {} kernel, medians of {RUNS}", kernel_name());
    println!(
        "{:>8} {:>9} {:>5} {:>12} {:>12} {:>7}",
        "queries", "gallery", "dim", "kernel s", "naive s", "ratio"
    );
    for (n_queries, n_gallery, dim) in [(56, 2_000, 64), (56, 20_000, 256), (112, 20_000, 384)] {
        let (queries, gallery) = (random(n_queries, dim, 1), random(n_gallery, dim, 2));
        let packed = PackedGallery::new(&gallery, &(0..n_gallery).collect::<Vec<_>>());
        let all: Vec<usize> = (0..n_queries).collect();
        let kernel = median_seconds(|| {
            pool.install(|| {
                let rows = score_rows(&queries, &all, &packed, Similarity::Cosine, |_, row| row[0]);
                black_box(rows.expect("finite"));
            });
        });
        let naive = median_seconds(|| {
            for q in 0..n_queries {
                for g in 0..n_gallery {
                    let (q, g) = (
                        queries.get(q).expect("dense"),
                        gallery.get(g).expect("dense"),
                    );
                    black_box(score_pair(
                        ArrayView1::from(&*q),
                        ArrayView1::from(&*g),
                        Similarity::Cosine,
                    ));
                }
            }
        });
        println!(
            "{n_queries:>8} {n_gallery:>9} {dim:>5} {kernel:>12.4} {naive:>12.4} {:>7.1}",
            naive / kernel
        );
    }
}
