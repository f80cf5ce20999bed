//! What a fitted map from the new space to the old one would recover: a diagnostic, it never reaches the verdict.
//!
//! An incompatible model may be compatible up to a rotation or a linear map. Each map is fitted on half of the
//! identities and tested on the queries of the other half, against the whole old gallery. It tells whether an adapter
//! is worth trying; a pass is only ever the raw model's.

use linfa_linalg::cholesky::SolveC;
use linfa_linalg::svd::SVD;
use ndarray::{Array2, ArrayView1};
use rand::SeedableRng;
use rand::seq::SliceRandom;

use crate::config::Similarity;
use crate::domain::{Embeddings, Probe};

use super::rank::Ranking;
use super::score::{PackedGallery, ScoreOverflow, score_rows};
use super::{Retrieval, measures};

/// Stream of the split; the label permutations, random orders and the plan's split have others.
const SPLIT_STREAM: u64 = 1 << 34;

/// Items that a map is fitted on, at most: beyond it the fit costs more and changes nothing (a 1,024-dimensional
/// linear map has a million weights and sees twenty million values).
const FIT_ITEMS: usize = 20_000;

/// Ridge of the linear map as a share of the mean eigenvalue of the new embeddings' second moment: enough that
/// directions without data are not amplified.
const RIDGE: f64 = 0.01;

/// How the new space is mapped onto the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Map {
    /// The orthogonal map of least squared error (Schonemann, Psychometrika 1966); of equal dimensions only.
    Procrustes,
    /// The linear map of least squared error with a small ridge; of any dimensions.
    Linear,
}

/// What each map recovers.
#[derive(Debug, Clone, PartialEq)]
pub struct WhatIf {
    /// Items the maps were fitted on.
    pub fit_items: usize,
    /// Queries they were tested on: indices into the protocol's queries, rising.
    pub test_queries: Vec<usize>,
    /// The primary measure of map(new)->old, one value a test query, ties against the query.
    pub mapped: Vec<(Map, Vec<f64>)>,
}

/// Fits and tests the maps. `None` when half of the identities leave nothing to fit or to test.
///
/// # Errors
/// A score that overflows f32.
pub fn what_if(
    probe: &Probe,
    retrieval: &Retrieval,
    old: &Embeddings,
    new: &Embeddings,
    similarity: Similarity,
    seed: u64,
) -> Result<Option<WhatIf>, ScoreOverflow> {
    let fits = split_identities(probe.identities.len(), seed);
    let has_both = |item: &usize| old.has(*item) && new.has(*item);
    let mut fit: Vec<usize> = (0..probe.items.len())
        .filter(has_both)
        .filter(|&item| {
            probe.items[item]
                .identity
                .is_some_and(|identity| fits[identity as usize])
        })
        .collect();
    if fit.len() > FIT_ITEMS {
        // Evenly over the probe, so that no identity is favoured by its place.
        let n = fit.len();
        fit = (0..FIT_ITEMS).map(|i| fit[i * n / FIT_ITEMS]).collect();
    }
    let protocol = &retrieval.protocol;
    let test_queries: Vec<usize> = protocol
        .queries()
        .iter()
        .enumerate()
        .filter(|(_, query)| !fits[query.identity as usize] && new.has(query.item))
        .map(|(q, _)| q)
        .collect();
    if fit.len() < 2 || test_queries.is_empty() {
        return Ok(None);
    }
    let (from, to) = (rows(new, &fit), rows(old, &fit));
    let items: Vec<usize> = test_queries
        .iter()
        .map(|&q| protocol.queries()[q].item)
        .collect();
    let queries = rows(new, &items);
    let gallery = PackedGallery::new(old, protocol.gallery());
    let mut mapped = Vec::new();
    for (map, weights) in [
        (Map::Procrustes, procrustes(&from, &to)),
        (Map::Linear, linear(&from, &to)),
    ] {
        let Some(weights) = weights else { continue };
        let moved = queries.dot(&weights).mapv(|v| v as f32);
        let mut row_of_item = vec![None; probe.items.len()];
        for (row, &item) in items.iter().enumerate() {
            row_of_item[item] = Some(row as u32);
        }
        // A query that the map sends to zero has no direction, so the map cannot be tested.
        let normalise = similarity == Similarity::Cosine;
        let Ok(moved) = Embeddings::new(moved, row_of_item, normalise) else {
            continue;
        };
        let values = score_rows(&moved, &items, &gallery, similarity, |i, row| {
            let ranking = Ranking::new(&protocol.queries()[test_queries[i]], row);
            measures::evaluate(retrieval.primary, &ranking.ranks(), &ranking.grades())
        })?;
        mapped.push((map, values));
    }
    Ok(Some(WhatIf {
        fit_items: fit.len(),
        test_queries,
        mapped,
    }))
}

/// A flag an identity: half of them, drawn by the seed, are fitted on.
fn split_identities(n: usize, seed: u64) -> Vec<bool> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(SPLIT_STREAM);
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut rng);
    let mut fits = vec![false; n];
    order[..n / 2].iter().for_each(|&i| fits[i] = true);
    fits
}

/// The items' embeddings in f64, shape (items, dim). Every item must have one.
fn rows(embeddings: &Embeddings, items: &[usize]) -> Array2<f64> {
    let mut rows = Array2::zeros((items.len(), embeddings.dim()));
    for (mut row, &item) in rows.rows_mut().into_iter().zip(items) {
        let x = embeddings
            .get(item)
            .expect("the caller lists only items with an embedding");
        row.assign(&ArrayView1::from(&*x).mapv(f64::from));
    }
    rows
}

/// The orthogonal R that minimises |from R - to|: U V^T of the singular value decomposition of from^T to.
fn procrustes(from: &Array2<f64>, to: &Array2<f64>) -> Option<Array2<f64>> {
    if from.ncols() != to.ncols() {
        return None;
    }
    let (u, _, vt) = from.t().dot(to).svd(true, true).ok()?;
    let rotation = u?.dot(&vt?);
    rotation.iter().all(|v| v.is_finite()).then_some(rotation)
}

/// The W that minimises |from W - to|^2 + ridge |W|^2, by the normal equations.
fn linear(from: &Array2<f64>, to: &Array2<f64>) -> Option<Array2<f64>> {
    let mut moment = from.t().dot(from);
    let ridge = RIDGE * moment.diag().sum() / moment.nrows() as f64;
    moment.diag_mut().mapv_inplace(|v| v + ridge);
    moment.solvec(&from.t().dot(to)).ok()
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::Rng;

    use super::*;

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((rows, columns), |_| rng.gen_range(-1.0..1.0))
    }

    #[test]
    fn a_rotation_is_found_again() {
        let from = random(50, 6, 1);
        // Any orthogonal matrix: the polar factor of a random one.
        let rotation = procrustes(&random(20, 6, 2), &random(20, 6, 3)).expect("a rotation");
        let identity = rotation.t().dot(&rotation);
        let off = &identity - &Array2::<f64>::eye(6);
        assert!(off.iter().all(|v| v.abs() < 1e-12));
        let found = procrustes(&from, &from.dot(&rotation)).expect("equal dimensions");
        assert!((&found - &rotation).iter().all(|v: &f64| v.abs() < 1e-10));
    }

    #[test]
    fn a_linear_map_between_dimensions_is_found_again_up_to_its_ridge() {
        let from = random(400, 5, 4);
        let map = random(5, 3, 5);
        let found = linear(&from, &from.dot(&map)).expect("well posed");
        assert!(
            (&found - &map).iter().all(|v| v.abs() < 0.03),
            "{found} against {map}"
        );
        assert!(procrustes(&from, &from.dot(&map)).is_none());
    }

    #[test]
    fn directions_without_data_are_left_alone() {
        let from = array![[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]];
        let found = linear(&from, &from).expect("the ridge makes it well posed");
        assert_eq!(found[[1, 1]], 0.0);
    }

    #[test]
    fn half_of_the_identities_are_fitted_on() {
        let fits = split_identities(101, 3);
        assert_eq!(fits.iter().filter(|&&fits| fits).count(), 50);
        assert_ne!(fits, split_identities(101, 4));
    }
}
