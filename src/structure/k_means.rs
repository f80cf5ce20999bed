//! k-means: Lloyd's iterations (Lloyd 1982) from k-means++ centres (Arthur and Vassilvitskii 2007).
//!
//! The clustering of an identity asks for thousands of fits of a dozen points, where linfa spends its time on setting
//! up; the tests hold these to linfa's. No step is fused and every sum has its order, so all machines agree.

use multiversion::multiversion;
use ndarray::Array2;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// Iterations at most; groups are small and settle in far fewer.
const MAX_ITERATIONS: usize = 50;

/// Points around centres.
pub(super) struct KMeans {
    /// Shape (k, dim).
    centres: Array2<f64>,
    /// The nearest centre of each point.
    pub(super) label: Vec<usize>,
    /// Sum of the squared distances to it.
    inertia: f64,
}

impl KMeans {
    /// The best of `starts` fits to points, shape (items, dim), at least one of each; the first of equals.
    pub(super) fn fit(points: &Array2<f64>, k: usize, starts: usize, rng: &mut ChaCha8Rng) -> Self {
        let points = points.as_standard_layout();
        let rows = points.as_slice().expect("in standard layout");
        let fits = (0..starts).map(|_| {
            let centres = spread_centres(rows, points.ncols(), k, rng);
            Self::from_centres(rows, centres)
        });
        fits.reduce(|best, fit| {
            if fit.inertia < best.inertia {
                fit
            } else {
                best
            }
        })
        .expect("at least one start")
    }

    /// Lloyd's iterations until no point changes its centre. A centre that loses all points stays where it is.
    fn from_centres(points: &[f64], mut centres: Array2<f64>) -> Self {
        let (k, dim) = centres.dim();
        let mut label = vec![usize::MAX; points.len() / dim];
        let mut inertia = f64::INFINITY;
        for _ in 0..MAX_ITERATIONS {
            let before = label.clone();
            inertia = assign(points, flat(&centres), dim, &mut label);
            if label == before {
                break;
            }
            let mut sums = vec![0.0; k * dim];
            let mut sizes = vec![0.0_f64; k];
            for (point, &own) in points.chunks_exact(dim).zip(&label) {
                sizes[own] += 1.0;
                for (sum, x) in sums[own * dim..(own + 1) * dim].iter_mut().zip(point) {
                    *sum += x;
                }
            }
            let rows = centres.rows_mut().into_iter().zip(sums.chunks_exact(dim));
            for ((mut centre, sum), &size) in rows.zip(&sizes) {
                if size > 0.0 {
                    centre
                        .iter_mut()
                        .zip(sum)
                        .for_each(|(c, sum)| *c = sum / size);
                }
            }
        }
        Self {
            centres,
            label,
            inertia,
        }
    }

    /// The nearest centre of each of some points, shape (items, dim).
    pub(super) fn nearest(&self, points: &Array2<f64>) -> Vec<usize> {
        let points = points.as_standard_layout();
        let rows = points.as_slice().expect("in standard layout");
        let mut label = vec![0; points.nrows()];
        assign(rows, flat(&self.centres), points.ncols(), &mut label);
        label
    }
}

fn flat(centres: &Array2<f64>) -> &[f64] {
    centres
        .as_slice()
        .expect("centres are made in standard layout")
}

/// The first centre is any point, each other one a point drawn by its squared distance to the nearest centre so far.
fn spread_centres(points: &[f64], dim: usize, k: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    let n = points.len() / dim;
    let mut centres = Array2::zeros((k, dim));
    let mut distances = vec![f64::INFINITY; n];
    let mut chosen = rng.gen_range(0..n);
    for mut centre in centres.rows_mut() {
        let point = &points[chosen * dim..(chosen + 1) * dim];
        centre.iter_mut().zip(point).for_each(|(c, x)| *c = *x);
        approach(points, point, &mut distances);
        let total: f64 = distances.iter().sum();
        let mut left = rng.r#gen::<f64>() * total;
        // All points on centres: any is as good.
        chosen = rng.gen_range(0..n);
        if total > 0.0 {
            let reached = distances.iter().position(|&distance| {
                left -= distance;
                left < 0.0
            });
            // Rounding may leave a rest beyond the last point.
            chosen = reached.unwrap_or(chosen);
        }
    }
    centres
}

/// Lowers each point's squared distance to that to a new centre.
#[multiversion(targets("x86_64+avx2"))]
fn approach(points: &[f64], centre: &[f64], distances: &mut [f64]) {
    for (point, distance) in points.chunks_exact(centre.len()).zip(distances) {
        *distance = distance.min(squared_distance(point, centre));
    }
}

/// Labels each point by its nearest centre, the first of equals; returns the sum of the squared distances.
#[multiversion(targets("x86_64+avx2"))]
fn assign(points: &[f64], centres: &[f64], dim: usize, label: &mut [usize]) -> f64 {
    let mut inertia = 0.0;
    for (point, label) in points.chunks_exact(dim).zip(label) {
        let mut least = f64::INFINITY;
        for (index, centre) in centres.chunks_exact(dim).enumerate() {
            let distance = squared_distance(point, centre);
            if distance < least {
                least = distance;
                *label = index;
            }
        }
        inertia += least;
    }
    inertia
}

/// In eight chains.
#[inline(always)]
fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a8.iter().zip(b8) {
        for lane in 0..8 {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] += (a - b) * (a - b);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use linfa::DatasetBase;
    use linfa::traits::{Fit, Predict};
    use linfa_clustering::KMeansInit;
    use rand::SeedableRng;

    use super::super::one_cluster::gaussians;
    use super::*;

    fn points(n: usize, dim: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        gaussians(n, dim, &mut rng)
    }

    #[test]
    fn from_the_same_centres_the_fit_is_linfas() {
        for (seed, (n, dim, k)) in [(16, 16, 2), (40, 7, 3), (100, 3, 5), (9, 20, 2)]
            .into_iter()
            .enumerate()
        {
            // In k groups: without any, linfa, which counts a centre among its points, may settle elsewhere.
            let mut points = points(n, dim, seed as u64);
            for (i, mut point) in points.rows_mut().into_iter().enumerate() {
                point[i % k % dim] += 8.0 * (1 + i % k) as f64;
            }
            let mut rng = ChaCha8Rng::seed_from_u64(9);
            let rows = points.as_slice().unwrap();
            let centres = spread_centres(rows, dim, k, &mut rng);
            let linfas = linfa_clustering::KMeans::params_with_rng(k, rng)
                .init_method(KMeansInit::Precomputed(centres.clone()))
                .n_runs(1)
                .max_n_iterations(MAX_ITERATIONS as u64)
                .tolerance(1e-9)
                .fit(&DatasetBase::from(points.view()))
                .unwrap();
            let own = KMeans::from_centres(rows, centres);
            assert_eq!(own.label, linfas.predict(&points).to_vec());
            // linfa's inertia is a mean.
            assert!((own.inertia / n as f64 - linfas.inertia()).abs() < 1e-4 * linfas.inertia());
            for (own, linfas) in own.centres.iter().zip(linfas.centroids()) {
                assert!((own - linfas).abs() < 1e-6);
            }
            assert_eq!(own.nearest(&points), own.label);
        }
    }

    #[test]
    fn more_starts_are_never_worse() {
        let points = points(60, 4, 3);
        let fit = |starts| {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            KMeans::fit(&points, 6, starts, &mut rng).inertia
        };
        assert!(fit(20) <= fit(1));
    }

    #[test]
    fn equal_points_are_one_part() {
        let points = Array2::ones((9, 3));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let fit = KMeans::fit(&points, 2, 4, &mut rng);
        assert_eq!((fit.inertia, fit.label), (0.0, vec![0; 9]));
    }
}
