//! What a fitted map from the new space to the old one would recover: a diagnostic, it never reaches the verdict.
//!
//! An incompatible model may be compatible up to a rotation or a linear map. Each map is fitted on half of the
//! identities and tested on the queries of the other half, against the whole old gallery. It tells whether an adapter
//! is worth trying; a pass is only ever the raw model's.

use rand::SeedableRng;
use rand::seq::SliceRandom;

use crate::config::Similarity;
use crate::domain::{Embeddings, Probe};
use crate::topk::{Gallery, ScoreOverflow};

use super::closed_form::{orthogonal, ridge, rows, thin_out};
use super::protocol::QueryProtocol;
use super::rank::{RankSet, Ranking, rank};
use super::{Retrieval, measures};

/// Stream of the split; the label permutations, random orders and the plan's split have others.
const SPLIT_STREAM: u64 = 1 << 34;

/// Items that a map is fitted on, at most: beyond it the fit costs more and changes nothing (a 1,024-dimensional
/// linear map has a million weights and sees twenty million values).
const FIT_ITEMS: usize = 20_000;

/// Queries that the maps are tested on, at most: a mean over so many is known to one or two hundredths, and the whole
/// gallery passes for each.
const TEST_QUERIES: usize = 1_000;

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
                .get()
                .is_some_and(|identity| fits[identity as usize])
        })
        .collect();
    thin_out(&mut fit, FIT_ITEMS);
    let protocol = &retrieval.protocol;
    let mut test_queries: Vec<usize> = protocol
        .queries()
        .iter()
        .enumerate()
        .filter(|(_, query)| !fits[query.identity as usize] && new.has(query.item))
        .map(|(q, _)| q)
        .collect();
    thin_out(&mut test_queries, TEST_QUERIES);
    if fit.len() < 2 || test_queries.is_empty() {
        return Ok(None);
    }
    let (from, to) = (rows(new, &fit), rows(old, &fit));
    let test: Vec<&QueryProtocol> = test_queries
        .iter()
        .map(|&q| &protocol.queries()[q])
        .collect();
    let items: Vec<usize> = test.iter().map(|query| query.item).collect();
    let queries = rows(new, &items);
    let gallery = Gallery {
        embeddings: old,
        items: protocol.gallery(),
    };
    let fitted = [
        (
            Map::Procrustes,
            (old.dim() == new.dim())
                .then(|| orthogonal(&from, &to))
                .flatten(),
        ),
        (Map::Linear, ridge(&from, &to, RIDGE)),
    ];
    let moved: Vec<(Map, Embeddings)> = fitted
        .into_iter()
        .filter_map(|(map, weights)| {
            let moved = queries.dot(&weights?).mapv(|v| v as f32);
            let normalise = similarity == Similarity::Cosine;
            // A query that the map sends to zero has no direction, so the map cannot be tested.
            let moved = Embeddings::dense(moved, normalise).ok()?;
            Some((map, moved))
        })
        .collect();
    let sets = moved.iter().map(|(_, moved)| {
        let rows = (0..test.len()).collect();
        RankSet::with_items(moved, rows, test.clone(), gallery, similarity)
    });
    let ranked = rank(gallery, similarity, sets.collect())?;
    let value = |ranking: &Ranking| {
        measures::evaluate(retrieval.primary, &ranking.ranks(), &ranking.grades())
    };
    let values = ranked
        .iter()
        .map(|set| set.rankings.iter().map(value).collect());
    let mapped = moved.iter().map(|&(map, _)| map).zip(values).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_identities_are_fitted_on() {
        let fits = split_identities(101, 3);
        assert_eq!(fits.iter().filter(|&&fits| fits).count(), 50);
        assert_ne!(fits, split_identities(101, 4));
    }
}
