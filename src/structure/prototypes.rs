//! Prototypes: what the embeddings of one identity, or of one cluster, have in common.

use ndarray::{Array1, Array2, ArrayView1};
use rayon::prelude::*;

use super::groups::Groups;
use super::{dense, direction, normalise};
use crate::config::Similarity;
use crate::domain::Embeddings;
use crate::topk::{Gallery, map_rows};

/// Reads and sums unit rows, with buffers that are used again.
pub(super) struct Reader<'a> {
    embeddings: &'a Embeddings,
    stored: Vec<f32>,
    row: Array1<f64>,
    sum: Array1<f64>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(embeddings: &'a Embeddings) -> Self {
        let dim = embeddings.dim();
        Self {
            embeddings,
            stored: vec![0.0; dim],
            row: Array1::zeros(dim),
            sum: Array1::zeros(dim),
        }
    }

    /// An item's unit row, shape (dim,). The item must have an embedding.
    pub(super) fn row(&mut self, item: usize) -> &Array1<f64> {
        let is_there = self.embeddings.read_into(item, &mut self.stored);
        assert!(is_there, "only embedded items are asked");
        for (value, &stored) in self.row.iter_mut().zip(&self.stored) {
            *value = f64::from(stored);
        }
        normalise(&mut self.row);
        &self.row
    }

    /// The sum of the items' unit rows, shape (dim,), in their order.
    pub(super) fn sum(&mut self, items: impl Iterator<Item = usize>) -> &Array1<f64> {
        self.sum.fill(0.0);
        for item in items {
            self.row(item);
            self.sum += &self.row;
        }
        &self.sum
    }

    /// The direction of that sum.
    pub(super) fn prototype(&mut self, items: impl Iterator<Item = usize>) -> &Array1<f64> {
        self.sum(items);
        normalise(&mut self.sum);
        &self.sum
    }
}

/// Sums of the unit rows of those groups that are asked about: an item can be taken out of its own again.
pub(super) struct Sums {
    /// Rising.
    groups: Vec<usize>,
    /// Theirs, shape (groups, dim).
    rows: Array2<f64>,
}

impl Sums {
    /// `groups` in any order, also several times; `items` lists a group's items.
    pub(super) fn new<I: Iterator<Item = usize>>(
        embeddings: &Embeddings,
        mut groups: Vec<usize>,
        items: impl Fn(usize) -> I + Sync,
    ) -> Self {
        groups.sort_unstable();
        groups.dedup();
        let mut rows = Array2::zeros((groups.len(), embeddings.dim()));
        let of_groups: Vec<_> = rows.rows_mut().into_iter().zip(&groups).collect();
        of_groups.into_par_iter().for_each_init(
            || Reader::new(embeddings),
            |reader, (mut row, &group)| row.assign(reader.sum(items(group))),
        );
        Self { groups, rows }
    }

    /// The sum of a group, shape (dim,).
    pub(super) fn of(&self, group: usize) -> ArrayView1<'_, f64> {
        let place = self.groups.binary_search(&group);
        self.rows.row(place.expect("only groups that were summed"))
    }

    /// The prototype of a group without one of its unit rows.
    pub(super) fn without(&self, group: usize, row: &Array1<f64>) -> Array1<f64> {
        direction(&self.of(group) - row)
    }
}

/// The prototypes of groups of gallery items: normalised sums of their unit rows.
pub(super) struct Prototypes<'a> {
    gallery: Gallery<'a>,
    pub(super) groups: &'a Groups,
    /// Unit, one a group.
    pub(super) directions: Embeddings,
}

impl<'a> Prototypes<'a> {
    pub(super) fn new(gallery: Gallery<'a>, groups: &'a Groups) -> Self {
        let dim = gallery.embeddings.dim();
        let mut directions = vec![0.0; groups.len() * dim];
        directions.par_chunks_mut(dim).enumerate().for_each_init(
            || Reader::new(gallery.embeddings),
            |reader, (group, direction)| {
                let items = groups.positions(group).map(|p| gallery.items[p]);
                let prototype = reader.prototype(items);
                for (value, &component) in direction.iter_mut().zip(prototype) {
                    *value = component as f32;
                }
            },
        );
        Self {
            gallery,
            groups,
            directions: dense(groups.len(), dim, directions),
        }
    }

    /// The sums of the groups that the positions are in.
    pub(super) fn sums(&self, positions: impl Iterator<Item = usize>) -> Sums {
        let groups = positions.map(|position| self.groups.of(position)).collect();
        Sums::new(self.gallery.embeddings, groups, |group| {
            let positions = self.groups.positions(group);
            positions.map(|position| self.gallery.items[position])
        })
    }

    /// Cosine of an item to its own group's prototype without the item itself.
    pub(super) fn without(&self, position: usize, sums: &Sums) -> f64 {
        let mut reader = Reader::new(self.gallery.embeddings);
        let row = reader.row(self.gallery.items[position]);
        sums.without(self.groups.of(position), row).dot(row)
    }

    /// `f(position, cosines to all prototypes)`, the own one without the item itself.
    pub(super) fn cosines<T: Send>(
        &self,
        positions: &[usize],
        f: impl Fn(usize, &[f64]) -> T + Sync,
    ) -> Vec<T> {
        let sums = self.sums(positions.iter().copied());
        let items: Vec<usize> = positions.iter().map(|&p| self.gallery.items[p]).collect();
        let all: Vec<usize> = (0..self.groups.len()).collect();
        let prototypes = Gallery {
            embeddings: &self.directions,
            items: &all,
        };
        let sides = [self.gallery.embeddings];
        map_rows(sides, &items, prototypes, Similarity::Cosine, |i, [row]| {
            let mut cosines: Vec<f64> = row.iter().copied().map(f64::from).collect();
            cosines[self.groups.of(positions[i])] = self.without(positions[i], &sums);
            f(positions[i], &cosines)
        })
        .expect("unit rows do not overflow")
    }
}
