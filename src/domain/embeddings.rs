//! Embeddings: checked once, where they are built.

use ndarray::{Array2, ArrayView1};

/// Embeddings of probe items by one model: f32, one row an item that has one.
///
/// Built only through [`Embeddings::new`], which refuses what no metric can use.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    rows: Array2<f32>,
    row_of_item: Vec<Option<u32>>,
}

/// Why a matrix is no set of embeddings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EmbeddingsError {
    /// A value is NaN or infinite.
    #[error("item {item}: dimension {dimension} of the embedding is {value}")]
    NotFinite {
        /// Item index.
        item: usize,
        /// Dimension index.
        dimension: usize,
        /// The value found.
        value: f32,
    },
    /// An embedding cannot be L2-normalised.
    #[error("item {item}: the embedding is all zeros, so it has no direction")]
    Zero {
        /// Item index.
        item: usize,
    },
    /// The matrix and the item map disagree.
    #[error("expected {expected} embedding rows, found {found}")]
    RowCount {
        /// Rows the item map names.
        expected: usize,
        /// Rows of the matrix.
        found: usize,
    },
}

impl Embeddings {
    /// Checks and keeps raw embeddings, L2-normalising each row when `normalise`.
    ///
    /// `rows` has shape (rows, dim); `row_of_item[i]` is item i's row. The norm is the square root of
    /// the f64 sum of squares in index order; each value is divided in f64 and rounded once to f32,
    /// so a row's bits do not depend on the other rows, on threads or on blocks.
    ///
    /// # Errors
    /// A non-finite value, an all-zero row (when normalising), or a wrong row count.
    pub fn new(
        mut rows: Array2<f32>,
        row_of_item: Vec<Option<u32>>,
        normalise: bool,
    ) -> Result<Self, EmbeddingsError> {
        let named = row_of_item.iter().flatten().count();
        let highest = row_of_item
            .iter()
            .flatten()
            .max()
            .map_or(0, |&r| r as usize + 1);
        if named != rows.nrows() || highest > rows.nrows() {
            return Err(EmbeddingsError::RowCount {
                expected: named,
                found: rows.nrows(),
            });
        }
        for (item, row) in row_of_item.iter().enumerate() {
            let Some(row) = *row else { continue };
            let mut row = rows.row_mut(row as usize);
            if let Some((dimension, &value)) =
                row.iter().enumerate().find(|(_, value)| !value.is_finite())
            {
                return Err(EmbeddingsError::NotFinite {
                    item,
                    dimension,
                    value,
                });
            }
            if normalise {
                let norm = row
                    .iter()
                    .map(|&v| f64::from(v) * f64::from(v))
                    .sum::<f64>()
                    .sqrt();
                if norm == 0.0 {
                    return Err(EmbeddingsError::Zero { item });
                }
                row.mapv_inplace(|v| (f64::from(v) / norm) as f32);
            }
        }
        Ok(Self {
            rows: rows.as_standard_layout().into_owned(),
            row_of_item,
        })
    }

    /// Embeddings of every item, row i for item i.
    ///
    /// # Errors
    /// As [`Embeddings::new`].
    pub fn dense(rows: Array2<f32>, normalise: bool) -> Result<Self, EmbeddingsError> {
        let n = rows.nrows() as u32;
        Self::new(rows, (0..n).map(Some).collect(), normalise)
    }

    /// Keeps the items whose flag is set, in their order; `keep` has one flag an item.
    pub fn retain(&mut self, keep: &[bool]) {
        let mut flags = keep.iter();
        self.row_of_item
            .retain(|_| *flags.next().expect("one flag an item"));
    }

    /// Dimensions of one embedding.
    pub fn dim(&self) -> usize {
        self.rows.ncols()
    }

    /// Number of items, with or without an embedding.
    pub fn n_items(&self) -> usize {
        self.row_of_item.len()
    }

    /// Whether the item has an embedding.
    pub fn has(&self, item: usize) -> bool {
        self.row_of_item[item].is_some()
    }

    /// The item's embedding, shape (dim,), if it has one.
    pub fn get(&self, item: usize) -> Option<&[f32]> {
        let row = self.row_of_item[item]? as usize;
        let dim = self.dim();
        let all = self
            .rows
            .as_slice()
            .expect("rows are kept in standard layout");
        Some(&all[row * dim..(row + 1) * dim])
    }

    /// The item's embedding as an ndarray view.
    pub fn view(&self, item: usize) -> Option<ArrayView1<'_, f32>> {
        Some(self.rows.row(self.row_of_item[item]? as usize))
    }
}

/// Cosine of two vectors of one dimension, in f64; `None` when one of them has no direction (zero, not finite).
pub fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    cosine.is_finite().then_some(cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_of_known_vectors() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        let same = cosine(&[1.0, 1.0], &[2.0, 2.0]).expect("two directions");
        assert!((same - 1.0).abs() < 1e-15);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), None);
        assert_eq!(cosine(&[f32::NAN, 0.0], &[1.0, 0.0]), None);
    }

    #[test]
    fn rows_are_normalised_and_checked() {
        let rows = |values: &[f32]| Array2::from_shape_vec((2, 2), values.to_vec()).expect("2 x 2");
        let unit = Embeddings::dense(rows(&[3.0, 4.0, 0.0, 2.0]), true).expect("usable");
        assert_eq!(unit.get(0), Some(&[0.6_f32, 0.8][..]));
        assert_eq!(
            Embeddings::dense(rows(&[1.0, 0.0, 0.0, 0.0]), true),
            Err(EmbeddingsError::Zero { item: 1 })
        );
        assert!(matches!(
            Embeddings::dense(rows(&[1.0, 0.0, 0.0, f32::INFINITY]), false),
            Err(EmbeddingsError::NotFinite {
                item: 1,
                dimension: 1,
                ..
            })
        ));
        assert_eq!(
            Embeddings::new(rows(&[1.0; 4]), vec![Some(0), None], true),
            Err(EmbeddingsError::RowCount {
                expected: 1,
                found: 2
            })
        );
    }

    #[test]
    fn items_without_an_embedding_have_none() {
        let rows = Array2::from_shape_vec((1, 2), vec![1.0, 0.0]).expect("1 x 2");
        let mut some = Embeddings::new(rows, vec![None, Some(0)], true).expect("usable");
        assert_eq!((some.has(0), some.has(1)), (false, true));
        some.retain(&[false, true]);
        assert_eq!(
            (some.n_items(), some.get(0)),
            (1, Some(&[1.0_f32, 0.0][..]))
        );
    }
}
