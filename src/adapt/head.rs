//! The head: what turns the new model's embedding into one that searches the old gallery.

use std::fmt;

use ndarray::{Array1, Array2, ArrayView2};

use crate::domain::{Embeddings, EmbeddingsError};

/// y = x W, or with a hidden layer y = x W + relu(x A + b) B; x and y are rows of unit length, y after division.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// How it was made.
    pub kind: HeadKind,
    /// W, shape (new dim, old dim).
    pub weights: Array2<f32>,
    /// The residual branch.
    pub hidden: Option<Hidden>,
}

/// The residual branch of a head.
#[derive(Debug, Clone, PartialEq)]
pub struct Hidden {
    /// A, shape (new dim, hidden).
    pub inward: Array2<f32>,
    /// b, shape (hidden,).
    pub bias: Array1<f32>,
    /// B, shape (hidden, old dim).
    pub outward: Array2<f32>,
}

/// How a head was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeadKind {
    /// The semi-orthogonal map of least squares.
    Orthogonal,
    /// The linear map of least squares with a ridge of this share of the mean eigenvalue.
    Ridge(f64),
    /// Linear, trained from the orthogonal map.
    Linear,
    /// With one hidden layer, trained from the orthogonal map.
    Mlp,
}

impl fmt::Display for HeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadKind::Orthogonal => f.write_str("orthogonal map (Procrustes)"),
            HeadKind::Ridge(share) => write!(f, "linear least squares, ridge {share}"),
            HeadKind::Linear => f.write_str("linear, trained with NCCL"),
            HeadKind::Mlp => f.write_str("residual MLP, trained with NCCL"),
        }
    }
}

impl Head {
    /// A linear head of weights in f64, shape (new dim, old dim).
    pub fn linear(kind: HeadKind, weights: &Array2<f64>) -> Self {
        Self {
            kind,
            weights: weights.mapv(|v| v as f32),
            hidden: None,
        }
    }

    /// The head of each row of `x`, shape (rows, new dim), before the last division: shape (rows, old dim).
    pub fn apply(&self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut y = x.dot(&self.weights);
        if let Some(hidden) = &self.hidden {
            let active = (x.dot(&hidden.inward) + &hidden.bias).mapv_into(|v| v.max(0.0));
            y += &active.dot(&hidden.outward);
        }
        y
    }

    /// The head of all embeddings, of unit length.
    ///
    /// # Errors
    /// An item whose embedding the head sends to zero, or beyond f32.
    pub fn map(&self, new: &Embeddings) -> Result<Embeddings, EmbeddingsError> {
        let present: Vec<usize> = (0..new.n_items()).filter(|&item| new.has(item)).collect();
        let mut row_of_item = vec![None; new.n_items()];
        let mut x = Array2::zeros((present.len(), new.dim()));
        for (row, &item) in present.iter().enumerate() {
            row_of_item[item] = Some(row as u32);
            let mut to = x.row_mut(row);
            let to = to.as_slice_mut().expect("rows lie in one piece");
            new.read_into(item, to);
        }
        Embeddings::new(self.apply(x.view()), row_of_item, true)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_formula_by_hand() {
        let head = Head {
            kind: HeadKind::Mlp,
            weights: array![[1.0, 0.0], [0.0, 2.0]],
            hidden: Some(Hidden {
                inward: array![[1.0], [-1.0]],
                bias: array![0.5],
                outward: array![[10.0, -10.0]],
            }),
        };
        // relu(3 - 1 + .5) = 2.5; relu(1 - 3 + .5) = 0.
        let y = head.apply(array![[3.0, 1.0], [1.0, 3.0]].view());
        assert_eq!(y, array![[28.0, -23.0], [1.0, 6.0]]);
    }

    #[test]
    fn mapped_embeddings_are_unit_and_absent_ones_stay_absent() {
        let new = Embeddings::new(
            array![[3.0, 4.0], [1.0, 0.0]],
            vec![Some(0), None, Some(1)],
            true,
        )
        .expect("fine");
        let head = Head::linear(
            HeadKind::Orthogonal,
            &array![[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]],
        );
        let mapped = head.map(&new).expect("finite");
        assert_eq!((mapped.dim(), mapped.has(1)), (3, false));
        let norm: f32 = mapped.get(0).expect("there").iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-6);
        let nothing = Head::linear(HeadKind::Orthogonal, &Array2::zeros((2, 3)));
        assert!(matches!(
            nothing.map(&new),
            Err(EmbeddingsError::Zero { .. })
        ));
    }
}
