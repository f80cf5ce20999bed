//! Linear centred kernel alignment, debiased, at a cost linear in the items.

use ndarray::{Array1, Array2, ArrayView1, Axis, s};
use rayon::prelude::*;

use crate::domain::Embeddings;

/// Items that are compared at most, evenly spaced over those that have both embeddings. The estimate's standard error falls
/// with 1/sqrt(items) and is in the third digit here; at 1,024 dimensions this many cost seconds.
const MAX_ITEMS: usize = 10_000;

/// Columns of one matrix product: enough for its kernel's blocking, few enough to share among threads.
const PANEL: usize = 64;

/// The U-statistic needs four distinct items.
const MIN_ITEMS: usize = 4;

/// The alignment and what it was computed on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearCka {
    /// HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), in [-1, 1]; about 0 for unrelated spaces, 1 for spaces that are equal up
    /// to a rotation, a scale and a shift.
    pub value: f64,
    /// Items it was computed on.
    pub items: usize,
}

/// Debiased linear CKA of the two spaces over the items that both models embedded (of any dimensions).
///
/// CKA = HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)) (Kornblith et al., ICML 2019) with K = X X^T, L = Y Y^T and the unbiased
/// HSIC_1 of Song et al. (JMLR 2012; equation 3 of Nguyen et al., ICLR 2021):
///
/// HSIC_1 = [tr(K~ L~) + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2/(n-2) 1'K~L~1] / (n(n-3)), K~ being K with a zero diagonal.
///
/// No n x n matrix is made: tr(K~ L~) = |X^T Y|_F^2 - sum_i |x_i|^2 |y_i|^2, and (K~1)_i = <x_i, sum_j x_j> - |x_i|^2. HSIC_1 does
/// not change when all of X or Y is shifted, so both are centred first, which leaves less to cancel.
///
/// `None` with fewer than four such items, or when one space is constant. The value cannot see a rotation: a new
/// model that is the old one turned has CKA 1 and searches the old gallery at chance.
pub fn linear_cka(old: &Embeddings, new: &Embeddings) -> Option<LinearCka> {
    let both: Vec<usize> = (0..old.n_items())
        .filter(|&item| old.has(item) && new.has(item))
        .collect();
    let stride = both.len().div_ceil(MAX_ITEMS).max(1);
    let items: Vec<usize> = both.into_iter().step_by(stride).collect();
    if items.len() < MIN_ITEMS {
        return None;
    }
    let (x, y) = (Space::new(old, &items), Space::new(new, &items));
    let (xx, yy) = (x.hsic(&x), y.hsic(&y));
    // HSIC(X, X) falls with the fourth power of the spread: this is a spread of a millionth of the length, next to the
    // rounding of f32 itself.
    let is_constant = |hsic: f64, space: &Space| hsic <= 1e-24 * space.raw_scale;
    if is_constant(xx, &x) || is_constant(yy, &y) {
        return None;
    }
    Some(LinearCka {
        value: (x.hsic(&y) / (xx * yy).sqrt()).clamp(-1.0, 1.0),
        items: items.len(),
    })
}

/// One model's centred embeddings, shape (items, dim), and what every HSIC needs of them.
struct Space {
    rows: Array2<f64>,
    /// |x_i|^2.
    squares: Array1<f64>,
    /// (K~ 1)_i.
    row_sums: Array1<f64>,
    /// Mean of |x_i|^2 before centring, squared: the size of what a HSIC of this space is a difference of.
    raw_scale: f64,
}

impl Space {
    fn new(embeddings: &Embeddings, items: &[usize]) -> Self {
        let mut rows = Array2::zeros((items.len(), embeddings.dim()));
        for (mut row, &item) in rows.rows_mut().into_iter().zip(items) {
            let x = embeddings
                .get(item)
                .expect("only items with an embedding are listed");
            row.assign(&ArrayView1::from(&*x).mapv(f64::from));
        }
        let n = items.len() as f64;
        let raw_scale = (rows.iter().map(|v| v * v).sum::<f64>() / n).powi(2);
        let mean = rows.sum_axis(Axis(0)) / n;
        rows -= &mean;
        let squares = rows.map_axis(Axis(1), |row| row.dot(&row));
        let row_sums = rows.dot(&rows.sum_axis(Axis(0))) - &squares;
        Self {
            rows,
            squares,
            row_sums,
            raw_scale,
        }
    }

    /// The unbiased HSIC of the two linear kernels.
    fn hsic(&self, other: &Self) -> f64 {
        let n = self.rows.nrows() as f64;
        let trace = self.squared_cross_product(other) - self.squares.dot(&other.squares);
        let sums = self.row_sums.sum() * other.row_sums.sum() / ((n - 1.0) * (n - 2.0));
        let rows = self.row_sums.dot(&other.row_sums) * 2.0 / (n - 2.0);
        (trace + sums - rows) / (n * (n - 3.0))
    }

    /// |X^T Y|_F^2, panel by panel; the panels' sums are added in order, whatever the threads.
    fn squared_cross_product(&self, other: &Self) -> f64 {
        let dim = self.rows.ncols();
        let starts: Vec<usize> = (0..dim).step_by(PANEL).collect();
        let panels: Vec<f64> = starts
            .into_par_iter()
            .map(|start| {
                let panel = self.rows.slice(s![.., start..(start + PANEL).min(dim)]);
                panel.t().dot(&other.rows).iter().map(|v| v * v).sum()
            })
            .collect();
        panels.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random(n: usize, dim: usize, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((n, dim), || rng.gen_range(-1.0..1.0_f32) + 0.3)
    }

    fn cka(x: &Array2<f32>, y: &Array2<f32>) -> f64 {
        let of = |rows: &Array2<f32>| Embeddings::dense(rows.clone(), false).expect("finite");
        linear_cka(&of(x), &of(y)).expect("defined").value
    }

    /// The published formula, on n x n kernels.
    fn naive(x: &Array2<f32>, y: &Array2<f32>) -> f64 {
        let kernel = |rows: &Array2<f32>| {
            let rows = rows.mapv(f64::from);
            let mut k = rows.dot(&rows.t());
            k.diag_mut().fill(0.0);
            k
        };
        let hsic = |k: &Array2<f64>, l: &Array2<f64>| {
            let n = k.nrows() as f64;
            let product = k.dot(l);
            (product.diag().sum() + k.sum() * l.sum() / ((n - 1.0) * (n - 2.0))
                - 2.0 / (n - 2.0) * product.sum())
                / (n * (n - 3.0))
        };
        let (k, l) = (kernel(x), kernel(y));
        hsic(&k, &l) / (hsic(&k, &k) * hsic(&l, &l)).sqrt()
    }

    #[test]
    fn the_feature_form_is_the_kernel_form_whatever_the_dimensions() {
        // 100 dimensions are two panels; 9 items are fewer than the dimensions.
        for (n, a, b) in [(40, 5, 100), (9, 100, 3), (4, 2, 2)] {
            let (x, y) = (random(n, a, 1), random(n, b, 2));
            // Sums of n^2 terms of size dim: rounding of 1e-13 at most.
            assert!((cka(&x, &y) - naive(&x, &y)).abs() < 1e-10, "{n} {a} {b}");
        }
    }

    #[test]
    fn a_rotation_a_scale_and_a_shift_cannot_be_seen() {
        let x = random(50, 3, 3);
        // Axes swapped and one flipped, twice as long, moved.
        let turned = Array2::from_shape_fn((50, 3), |(i, d)| match d {
            0 => -2.0 * x[[i, 2]] + 5.0,
            1 => 2.0 * x[[i, 0]] - 1.0,
            _ => 2.0 * x[[i, 1]],
        });
        assert!((cka(&x, &turned) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn unrelated_spaces_are_near_zero_although_the_biased_form_is_not() {
        // 200 items in 100 dimensions: the biased estimate is about d / (n + d) = 1/3.
        let found = cka(&random(200, 100, 4), &random(200, 100, 5));
        assert!(found.abs() < 0.02, "{found}");
    }

    #[test]
    fn constant_spaces_and_three_items_have_none() {
        let of = |rows: Array2<f32>| Embeddings::dense(rows, false).expect("finite");
        let constant = of(Array2::from_elem((10, 4), 0.3));
        assert_eq!(linear_cka(&of(random(10, 4, 6)), &constant), None);
        let three = of(random(3, 4, 7));
        assert_eq!(linear_cka(&three, &three), None);
    }

    #[test]
    fn only_items_with_both_embeddings_count() {
        let rows = random(6, 2, 8);
        let some = Embeddings::new(
            rows.slice(s![..5, ..]).to_owned(),
            vec![Some(0), None, Some(1), Some(2), Some(3), Some(4)],
            false,
        )
        .expect("five rows");
        let all = Embeddings::dense(rows, false).expect("finite");
        assert_eq!(linear_cka(&some, &all).expect("five items").items, 5);
    }
}
