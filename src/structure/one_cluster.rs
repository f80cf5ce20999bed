//! The null hypothesis of the sub-clusters: one elongated cluster.

use ndarray::{Array1, Array2, Axis};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The null: one Gaussian cluster with a group's mean and covariance, put back on the sphere.
///
/// A draw is mean + L z with L L^T the sample covariance, which has the same distribution as
/// mean + X_c^T z / sqrt(n - 1) with z ~ N(0, I_n), X_c the centred points.
pub(super) struct OneCluster {
    /// Shape (dim,).
    mean: Array1<f64>,
    /// L^T, shape (dim, dim).
    factor: Array2<f64>,
}

impl OneCluster {
    /// Fits to points, shape (items, dim), at least two.
    pub(super) fn fitted(points: &Array2<f64>) -> Self {
        let n = points.nrows() as f64;
        let mean = points.sum_axis(Axis(0)) / n;
        let centred = points - &mean;
        let covariance = centred.t().dot(&centred) / (n - 1.0);
        let factor = cholesky(&covariance).reversed_axes();
        Self { mean, factor }
    }

    /// `n` unit rows.
    pub(super) fn draw(&self, n: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
        let normal = gaussians(n, self.mean.len(), rng);
        let mut points = normal.dot(&self.factor) + &self.mean;
        for mut point in points.rows_mut() {
            let length = point.dot(&point).sqrt();
            if length > 0.0 {
                point /= length;
            }
        }
        points
    }
}

/// Standard normal draws, shape (n, dim); two come of every two uniform ones (Box and Muller 1958).
pub(super) fn gaussians(n: usize, dim: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    let mut draws = Array2::zeros((n, dim));
    let mut second = None;
    for draw in &mut draws {
        *draw = second.take().unwrap_or_else(|| {
            // (0, 1], so that the logarithm is finite.
            let radius = (-2.0 * (1.0 - rng.r#gen::<f64>()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * rng.r#gen::<f64>()).sin_cos();
            second = Some(radius * sin);
            radius * cos
        });
    }
    draws
}

/// Lower-triangular L with L L^T = `matrix`, symmetric positive semidefinite. Pivots below 1e-12 of the
/// largest diagonal entry are rounding of 0: their column is zero.
pub(super) fn cholesky(matrix: &Array2<f64>) -> Array2<f64> {
    let n = matrix.nrows();
    let floor = 1e-12 * matrix.diag().iter().copied().fold(0.0, f64::max);
    let mut lower = Array2::<f64>::zeros((n, n));
    for j in 0..n {
        let done = lower.slice(ndarray::s![j, ..j]).to_owned();
        let pivot = matrix[[j, j]] - done.dot(&done);
        if pivot <= floor {
            continue;
        }
        let root = pivot.sqrt();
        lower[[j, j]] = root;
        for i in j + 1..n {
            let dot = lower.slice(ndarray::s![i, ..j]).dot(&done);
            lower[[i, j]] = (matrix[[i, j]] - dot) / root;
        }
    }
    lower
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_null_has_the_groups_mean_and_covariance_before_it_is_put_on_the_sphere() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let points = gaussians(20, 3, &mut rng);
        let null = OneCluster::fitted(&points);
        let mean = points.sum_axis(Axis(0)) / 20.0;
        assert!((&null.mean - &mean).iter().all(|d| d.abs() < 1e-12));
        let mut covariance = Array2::<f64>::zeros((3, 3));
        for point in points.rows() {
            let d = &point - &mean;
            for i in 0..3 {
                for j in 0..3 {
                    covariance[[i, j]] += d[i] * d[j] / 19.0;
                }
            }
        }
        let rebuilt = null.factor.t().dot(&null.factor);
        assert!((&rebuilt - &covariance).iter().all(|d| d.abs() < 1e-12));
        let drawn = null.draw(5, &mut rng);
        for point in drawn.rows() {
            assert!((point.dot(&point) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_singular_matrix_has_a_factor() {
        let rows = ndarray::array![[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]];
        let gram = rows.dot(&rows.t());
        let factor = cholesky(&gram);
        assert!(
            (&factor.dot(&factor.t()) - &gram)
                .iter()
                .all(|d| d.abs() < 1e-12)
        );
    }
}
