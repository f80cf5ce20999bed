//! Identities with planted sub-clusters, and identities that are one cluster.

use ndarray::{Array1, Array2, ArrayView1};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Twelve uniforms make a good enough normal.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| rng.r#gen::<f64>()).sum::<f64>() - 6.0
}

fn direction(x: ArrayView1<'_, f64>) -> Array1<f64> {
    &x / x.dot(&x).sqrt()
}

/// A random unit vector.
pub fn unit(dim: usize, rng: &mut ChaCha8Rng) -> Array1<f64> {
    direction(Array1::from_shape_simple_fn(dim, || normal(rng)).view())
}

/// Unit rows of `sizes.len()` clusters: centres with pairwise cosine `between`, items with pairwise cosine about `within` to
/// those of their cluster; and the planted labels.
pub fn mixture(
    sizes: &[usize],
    dim: usize,
    between: f64,
    within: f64,
    rng: &mut ChaCha8Rng,
) -> (Array2<f64>, Vec<usize>) {
    // Orthonormal directions by Gram and Schmidt.
    let mut axes: Vec<Array1<f64>> = Vec::new();
    for _ in 0..=sizes.len() {
        let mut axis = unit(dim, rng);
        for other in &axes {
            axis = &axis - &(other * axis.dot(other));
        }
        axes.push(direction(axis.view()));
    }
    let (common, own) = axes.split_first().expect("one more than clusters");
    let centre = |own: &Array1<f64>| common * between.sqrt() + own * (1.0 - between).sqrt();
    let centres: Vec<Array1<f64>> = own.iter().map(centre).collect();
    around(&centres, sizes, within, rng)
}

/// Unit rows of clusters around random centres, none nearer than cosine `between` to another, on average .15 below it; items
/// with pairwise cosine about `within` to those of their cluster; and the planted labels.
pub fn scattered(
    sizes: &[usize],
    dim: usize,
    between: f64,
    within: f64,
    rng: &mut ChaCha8Rng,
) -> (Array2<f64>, Vec<usize>) {
    let shared = (between - 0.15).max(0.0);
    let common = unit(dim, rng);
    let mut centres: Vec<Array1<f64>> = Vec::new();
    while centres.len() < sizes.len() {
        let centre = &common * shared.sqrt() + unit(dim, rng) * (1.0 - shared).sqrt();
        let centre = direction(centre.view());
        if centres.iter().all(|other| other.dot(&centre) <= between) {
            centres.push(centre);
        }
    }
    around(&centres, sizes, within, rng)
}

/// Unit rows around unit centres, in their order, and the number of each one's centre.
fn around(
    centres: &[Array1<f64>],
    sizes: &[usize],
    within: f64,
    rng: &mut ChaCha8Rng,
) -> (Array2<f64>, Vec<usize>) {
    let dim = centres.first().map_or(0, Array1::len);
    let mut rows = Array2::zeros((sizes.iter().sum(), dim));
    let mut label = Vec::new();
    for (cluster, (centre, &size)) in centres.iter().zip(sizes).enumerate() {
        for _ in 0..size {
            let item = centre * within.sqrt() + unit(dim, rng) * (1.0 - within).sqrt();
            rows.row_mut(label.len()).assign(&direction(item.view()));
            label.push(cluster);
        }
    }
    (rows, label)
}

/// Unit rows of one cluster stretched along four directions, plus isotropic noise.
pub fn elongated(
    n: usize,
    dim: usize,
    stretch: f64,
    noise: f64,
    rng: &mut ChaCha8Rng,
) -> Array2<f64> {
    let centre = unit(dim, rng);
    let axes: Vec<Array1<f64>> = (0..4).map(|_| unit(dim, rng)).collect();
    let mut rows = Array2::zeros((n, dim));
    for mut row in rows.rows_mut() {
        let mut x = &centre + &(unit(dim, rng) * noise);
        for axis in &axes {
            x += &(axis * (stretch * normal(rng)));
        }
        row.assign(&direction(x.view()));
    }
    rows
}
