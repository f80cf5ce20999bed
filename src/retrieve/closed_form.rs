//! Maps of one space onto another that least squares give at once: what-if tests them, `adapt` starts from them.

use linfa_linalg::cholesky::Cholesky;
use linfa_linalg::svd::SVD;
use linfa_linalg::triangular::{SolveTriangular, UPLO};
use ndarray::{Array2, ArrayView1, Axis, s};
use rayon::prelude::*;

use crate::domain::Embeddings;

/// Keeps at most `most`, evenly spread, so that no identity is favoured by its place.
pub fn thin_out(indices: &mut Vec<usize>, most: usize) {
    let n = indices.len();
    if n > most {
        *indices = (0..most).map(|i| indices[i * n / most]).collect();
    }
}

/// The items' embeddings in f64, shape (items, dim). Every item must have one.
pub fn rows(embeddings: &Embeddings, items: &[usize]) -> Array2<f64> {
    let mut rows = Array2::zeros((items.len(), embeddings.dim()));
    for (mut row, &item) in rows.rows_mut().into_iter().zip(items) {
        let x = embeddings
            .get(item)
            .expect("the caller lists only items with an embedding");
        row.assign(&ArrayView1::from(&*x).mapv(f64::from));
    }
    rows
}

/// The semi-orthogonal R, shape (from's dim, to's dim), that maximises the trace of (from R)^T to: U V^T of the singular
/// value decomposition of from^T to (Schonemann, Psychometrika 1966). Of equal dimensions it is the rotation of least
/// squared error; of others it keeps the directions that agree most.
///
/// Beyond 256 dimensions the same by products alone: the decomposition takes a minute at 1,024. Directions in
/// which the rows do not reach are left out there.
///
/// `None` when the decomposition fails.
pub fn orthogonal(from: &Array2<f64>, to: &Array2<f64>) -> Option<Array2<f64>> {
    let moment = product(&from.t().to_owned(), to);
    let rotation = if moment.nrows().min(moment.ncols()) <= DECOMPOSED {
        let (u, _, vt) = moment.svd(true, true).ok()?;
        u?.dot(&vt?)
    } else if moment.nrows() < moment.ncols() {
        polar_factor(moment.reversed_axes().as_standard_layout().into_owned()).reversed_axes()
    } else {
        polar_factor(moment)
    };
    rotation.iter().all(|v| v.is_finite()).then_some(rotation)
}

/// Dimensions up to which a decomposition is quick.
const DECOMPOSED: usize = 256;

/// Singular values below this share of the largest are taken for none: what so little data says is rounding.
const LEAST_SHARE: f64 = 1e-8;

/// Rows of a product that one task makes.
const ROWS_TOGETHER: usize = 64;

/// U V^T of a matrix with at least as many rows as columns, by the scaled Newton-Schulz iteration (Chen and Chow 2014, "A stable
/// scaling of Newton-Schulz for improving the sign function computation of a Hermitian matrix"): X <- X (1.5 a I - .5 a^3
/// X^T X) takes all singular values in [l, 1] to [l', 1], with a = sqrt(3 / (1 + l + l^2)) and l' = .5 a l (3 - a^2 l^2).
fn polar_factor(mut x: Array2<f64>) -> Array2<f64> {
    // At least the largest singular value.
    let sums = |axis: usize| {
        let sums = x.mapv(f64::abs).sum_axis(Axis(axis));
        sums.iter().copied().fold(0.0, f64::max)
    };
    let bound = (sums(0) * sums(1)).sqrt();
    if bound == 0.0 {
        return x;
    }
    x /= bound;
    let mut least = LEAST_SHARE;
    // Twice more than it takes `least` to 1, which rounds away what is left.
    let mut left = 2;
    while left > 0 {
        if 1.0 - least < f64::EPSILON.sqrt() {
            left -= 1;
        }
        let scale = (3.0 / (1.0 + least + least * least)).sqrt();
        let mut step = product(&x.t().to_owned(), &x) * (-0.5 * scale.powi(3));
        step.diag_mut().mapv_inplace(|v| v + 1.5 * scale);
        x = product(&x, &step);
        least = (0.5 * scale * least * (3.0 - (scale * least).powi(2))).min(1.0);
    }
    x
}

/// a b, on all threads.
fn product(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    let starts: Vec<usize> = (0..a.nrows()).step_by(ROWS_TOGETHER).collect();
    let parts: Vec<Array2<f64>> = starts
        .into_par_iter()
        .map(|start| {
            let end = (start + ROWS_TOGETHER).min(a.nrows());
            a.slice(s![start..end, ..]).dot(b)
        })
        .collect();
    let mut whole = Array2::zeros((a.nrows(), b.ncols()));
    for (mut rows, part) in whole
        .axis_chunks_iter_mut(Axis(0), ROWS_TOGETHER)
        .zip(&parts)
    {
        rows.assign(part);
    }
    whole
}

/// The W that minimises |from W - to|^2 + ridge |W|^2, by the normal equations. `share` is the ridge as a share of the mean
/// eigenvalue of from^T from.
pub fn ridge(from: &Array2<f64>, to: &Array2<f64>, share: f64) -> Option<Array2<f64>> {
    let mut moment = product(&from.t().to_owned(), from);
    let ridge = share * moment.diag().sum() / moment.nrows() as f64;
    moment.diag_mut().mapv_inplace(|v| v + ridge);
    solve(moment, product(&from.t().to_owned(), to))
}

/// Columns of a block of [`solve`].
const BLOCK: usize = 64;

/// a^-1 b of a symmetric positive definite a, by a Cholesky decomposition block by block, so that nearly all of it is products.
///
/// `None` when a is not positive definite.
fn solve(mut a: Array2<f64>, mut b: Array2<f64>) -> Option<Array2<f64>> {
    let n = a.nrows();
    let blocks: Vec<(usize, usize)> = (0..n)
        .step_by(BLOCK)
        .map(|start| (start, (start + BLOCK).min(n)))
        .collect();
    // The inverses of the blocks on L's diagonal; below it L takes a's place.
    let mut inverses: Vec<Array2<f64>> = Vec::with_capacity(blocks.len());
    for &(start, end) in &blocks {
        let factor = a.slice(s![start..end, start..end]).cholesky().ok()?;
        let one = Array2::eye(end - start);
        let inverse = factor.solve_triangular(&one, UPLO::Lower).ok()?;
        let panel = product(
            &a.slice(s![end.., start..end]).to_owned(),
            &inverse.t().to_owned(),
        );
        let mut rest = a.slice_mut(s![end.., end..]);
        rest -= &product(&panel, &panel.t().to_owned());
        a.slice_mut(s![end.., start..end]).assign(&panel);
        // L y = b, as far as this block goes.
        let y = inverse.dot(&b.slice(s![start..end, ..]));
        let mut below = b.slice_mut(s![end.., ..]);
        below -= &product(&panel, &y);
        b.slice_mut(s![start..end, ..]).assign(&y);
        inverses.push(inverse);
    }
    // L^T x = y.
    for (&(start, end), inverse) in blocks.iter().zip(&inverses).rev() {
        let x = inverse.t().dot(&b.slice(s![start..end, ..]));
        let left = a.slice(s![start..end, ..start]).t().to_owned();
        let mut above = b.slice_mut(s![..start, ..]);
        above -= &product(&left, &x);
        b.slice_mut(s![start..end, ..]).assign(&x);
    }
    b.iter().all(|v| v.is_finite()).then_some(b)
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((rows, columns), |_| rng.gen_range(-1.0..1.0))
    }

    #[test]
    fn a_rotation_is_found_again() {
        let from = random(50, 6, 1);
        // Any orthogonal matrix: the polar factor of a random one.
        let rotation = orthogonal(&random(20, 6, 2), &random(20, 6, 3)).expect("a rotation");
        let identity = rotation.t().dot(&rotation);
        let off = &identity - &Array2::<f64>::eye(6);
        assert!(off.iter().all(|v| v.abs() < 1e-12));
        let found = orthogonal(&from, &from.dot(&rotation)).expect("a map");
        assert!((&found - &rotation).iter().all(|v: &f64| v.abs() < 1e-10));
    }

    #[test]
    fn the_polar_factor_is_that_of_the_decomposition() {
        for (rows, columns, seed) in [(40, 40, 8), (90, 30, 9)] {
            let mut matrix = random(rows, columns, seed);
            // Columns of very different size: singular values over six decades.
            for (i, mut column) in matrix.columns_mut().into_iter().enumerate() {
                column *= 10_f64.powf(-6.0 * i as f64 / columns as f64);
            }
            let (u, _, vt) = matrix.svd(true, true).expect("decomposed");
            let expected = u.expect("u").slice(s![.., ..columns]).dot(&vt.expect("vt"));
            let found = polar_factor(matrix);
            let off = (&found - &expected)
                .iter()
                .map(|v| v.abs())
                .fold(0.0, f64::max);
            assert!(off < 1e-8, "{rows} x {columns}: {off}");
        }
        assert_eq!(
            polar_factor(Array2::zeros((3, 2))),
            Array2::<f64>::zeros((3, 2))
        );
        let product_of = product(&random(70, 3, 1), &random(3, 5, 2));
        assert!(
            (product_of - random(70, 3, 1).dot(&random(3, 5, 2)))
                .iter()
                .all(|v| v.abs() < 1e-12)
        );
    }

    #[test]
    fn a_linear_map_between_dimensions_is_found_again_up_to_its_ridge() {
        let from = random(400, 5, 4);
        let map = random(5, 3, 5);
        let found = ridge(&from, &from.dot(&map), 0.01).expect("well posed");
        assert!(
            (&found - &map).iter().all(|v| v.abs() < 0.03),
            "{found} against {map}"
        );
    }

    #[test]
    fn blocks_solve_what_the_whole_solves() {
        use linfa_linalg::cholesky::SolveC;
        for n in [1, 63, 64, 65, 200] {
            let rows = random(n + 30, n, 11);
            let mut a = rows.t().dot(&rows);
            let b = random(n, 5, 12);
            let found = solve(a.clone(), b.clone()).expect("positive definite");
            let expected = a.solvec(&b).expect("positive definite");
            assert!((&found - &expected).iter().all(|v| v.abs() < 1e-9), "{n}");
        }
        let not_definite = array![[1.0, 2.0], [2.0, 1.0]];
        assert!(solve(not_definite, Array2::zeros((2, 1))).is_none());
    }

    #[test]
    fn directions_without_data_are_left_alone() {
        let from = array![[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]];
        let found = ridge(&from, &from, 0.01).expect("the ridge makes it well posed");
        assert_eq!(found[[1, 1]], 0.0);
    }

    #[test]
    fn other_dimensions_keep_the_directions_that_agree() {
        let from = random(60, 5, 7);
        // The target holds three of the five directions.
        let kept = from.slice(ndarray::s![.., 1..4]).to_owned();
        let found = orthogonal(&from, &kept).expect("a map");
        assert_eq!(found.dim(), (5, 3));
        let product = found.t().dot(&found);
        assert!(
            (&product - &Array2::<f64>::eye(3))
                .iter()
                .all(|v| v.abs() < 1e-10)
        );
        let wider = orthogonal(&kept, &from).expect("a map");
        let product = wider.dot(&wider.t());
        assert!(
            (&product - &Array2::<f64>::eye(3))
                .iter()
                .all(|v| v.abs() < 1e-10)
        );
    }
}
