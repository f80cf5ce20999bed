//! Prototypes: what the embeddings of one identity, or of one cluster, have in common.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use super::{cosines, dense, direction, unit_rows};
use crate::domain::Embeddings;
use crate::topk::Gallery;

/// Identity prototypes: normalised sums of the identities' unit rows.
pub(super) struct Prototypes {
    /// Shape (identities, dim).
    pub(super) sums: Array2<f64>,
    /// Unit, one an identity.
    pub(super) directions: Embeddings,
    /// Items of each identity.
    pub(super) size: Vec<usize>,
    /// Identity (0..K) of each gallery position.
    pub(super) class: Vec<usize>,
}

impl Prototypes {
    pub(super) fn new(gallery: Gallery<'_>, members: &[(u32, Vec<usize>)]) -> Self {
        let dim = gallery.embeddings.dim();
        let mut sums = Array2::zeros((members.len(), dim));
        let of_members = sums.rows_mut().into_iter().zip(members);
        of_members
            .collect::<Vec<_>>()
            .into_par_iter()
            .for_each(|(mut sum, (_, positions))| {
                let items: Vec<usize> = positions.iter().map(|&p| gallery.items[p]).collect();
                sum.assign(&unit_rows(gallery.embeddings, &items).sum_axis(Axis(0)));
            });
        let rows = sums.rows().into_iter();
        let directions = rows.flat_map(|row| direction(row.to_owned()).mapv(|v| v as f32));
        let directions = directions.collect();
        let mut class = vec![0; gallery.items.len()];
        for (index, (_, positions)) in members.iter().enumerate() {
            for &position in positions {
                class[position] = index;
            }
        }
        Self {
            sums,
            directions: dense(members.len(), dim, directions),
            size: members
                .iter()
                .map(|(_, positions)| positions.len())
                .collect(),
            class,
        }
    }

    /// `f(position, cosines to all prototypes)`, the own one without the item itself.
    pub(super) fn cosines<T: Send>(
        &self,
        gallery: Gallery<'_>,
        positions: &[usize],
        f: impl Fn(usize, &[f64]) -> T + Sync,
    ) -> Vec<T> {
        let items: Vec<usize> = positions.iter().map(|&p| gallery.items[p]).collect();
        let classes: Vec<usize> = (0..self.size.len()).collect();
        let prototypes = Gallery {
            embeddings: &self.directions,
            items: &classes,
        };
        cosines(gallery.embeddings, &items, prototypes, |i, cosines| {
            let mut cosines: Vec<f64> = cosines.iter().copied().map(f64::from).collect();
            cosines[self.class[positions[i]]] = self.without(gallery, positions[i]);
            f(positions[i], &cosines)
        })
    }

    /// Cosine of an item to its own identity's prototype without the item itself.
    pub(super) fn without(&self, gallery: Gallery<'_>, position: usize) -> f64 {
        let rows = unit_rows(gallery.embeddings, &[gallery.items[position]]);
        let x = rows.row(0);
        let rest = &self.sums.row(self.class[position]) - &x;
        direction(rest).dot(&x)
    }
}
