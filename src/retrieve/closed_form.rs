//! Maps of one space onto another that least squares give at once: what-if tests them, `adapt` starts from them.

use linfa_linalg::cholesky::SolveC;
use linfa_linalg::svd::SVD;
use ndarray::{Array2, ArrayView1};

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
/// `None` when the decomposition fails.
pub fn orthogonal(from: &Array2<f64>, to: &Array2<f64>) -> Option<Array2<f64>> {
    let (u, _, vt) = from.t().dot(to).svd(true, true).ok()?;
    let rotation = u?.dot(&vt?);
    rotation.iter().all(|v| v.is_finite()).then_some(rotation)
}

/// The W that minimises |from W - to|^2 + ridge |W|^2, by the normal equations. `share` is the ridge as a share of the mean
/// eigenvalue of from^T from.
pub fn ridge(from: &Array2<f64>, to: &Array2<f64>, share: f64) -> Option<Array2<f64>> {
    let mut moment = from.t().dot(from);
    let ridge = share * moment.diag().sum() / moment.nrows() as f64;
    moment.diag_mut().mapv_inplace(|v| v + ridge);
    moment.solvec(&from.t().dot(to)).ok()
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
