//! Stage 4: rankings, measures, verification and agreement of the pairings.

pub mod agreement;
pub mod assay;
pub mod closed_form;
mod counts;
pub mod kept;
pub mod measures;
pub mod protocol;
pub mod rank;
pub mod refresh;
mod search;
pub mod verification;
pub mod what_if;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::config::Similarity;
use crate::domain::{Embeddings, Measure, Pairing, Probe, Side};
use crate::topk::ScoreOverflow;

use protocol::Protocol;
use rank::Ranking;
use refresh::{FirstSteps, Order, Refresh};
use search::Search;
pub use search::{Companion, Companions};
use verification::{TransferPairs, Verification};

/// Permutations of the gallery's labels for assay sensitivity.
pub const PERMUTATIONS: usize = 200;

/// Everything stage 4 found.
pub struct Retrieval {
    /// What counted for which query.
    pub protocol: Protocol,
    /// The measure that decides.
    pub primary: Measure,
    /// The pairings that exist; old->old always does.
    pub evaluations: BTreeMap<Pairing, Evaluation>,
    /// Verification of the pairings, where there are pairs enough. The new ones also hold FAR and FRR at the
    /// thresholds of old->old.
    pub verifications: BTreeMap<Pairing, Verification>,
    /// The pairs that say what a threshold of old->old does to new->old, where there are enough.
    pub transfer: Option<TransferPairs>,
    /// Primary measure of old->old, one value a permutation of the gallery's labels.
    pub shuffled: Vec<f64>,
}

/// One pairing's rankings, one an evaluated query, in the protocol's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Rankings.
    pub rankings: Vec<Ranking>,
}

impl Evaluation {
    /// The measure's value for each query, ties against the query.
    pub fn per_query(&self, measure: Measure) -> Vec<f64> {
        self.rankings
            .iter()
            .map(|ranking| measures::evaluate(measure, &ranking.ranks(), &ranking.grades()))
            .collect()
    }

    /// The measure's value for each query, ties in its favour.
    pub fn per_query_optimistic(&self, measure: Measure) -> Vec<f64> {
        self.rankings
            .iter()
            .map(|ranking| {
                let grades = ranking.optimistic_grades();
                measures::evaluate(measure, &ranking.optimistic_ranks(), &grades)
            })
            .collect()
    }
}

/// Queries as one model embeds them.
pub struct QuerySet<'a> {
    /// The query model's embeddings.
    pub embeddings: &'a Embeddings,
    /// Item indices, in the protocol's order.
    pub items: Vec<usize>,
    /// How a pair is scored.
    pub similarity: Similarity,
}

/// How the galleries are searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchOptions {
    /// How a pair is scored.
    pub similarity: Similarity,
    /// The measure that decides; `None`: nDCG@10 when relevance is graded, else mAP.
    pub primary: Option<Measure>,
    /// The false-accept rate whose threshold is transferred from old->old, 0 < rate < 1.
    pub threshold_far: f64,
    /// Seed of the shuffled labels and of the random orders of the refresh curve.
    pub seed: u64,
}

impl Default for SearchOptions {
    /// Cosine, the default measure, the highest of the reported false-accept rates, seed 0.
    fn default() -> Self {
        Self {
            similarity: Similarity::Cosine,
            primary: None,
            threshold_far: verification::FALSE_ACCEPT_RATES[0],
            seed: 0,
        }
    }
}

/// Ranks every query against the old gallery: old->old, and new->old when both models' dimensions agree.
///
/// `models` are old and new; old->old exists when the old model has an embedding of every gallery item. `companions` hear the
/// scores of the old and of the new queries. Every pair is scored once; again only where a threshold was looked for in the
/// wrong place ([`verification::pilot`]).
///
/// # Errors
/// A score that overflows f32.
pub fn search_old_gallery(
    probe: &Probe,
    protocol: Protocol,
    models: [&Embeddings; 2],
    options: &SearchOptions,
    companions: [Companions<'_>; 2],
) -> Result<Retrieval, ScoreOverflow> {
    let primary = options.primary.unwrap_or_else(|| protocol.usual_measure());
    let search = Search::new(&protocol, models, options);
    let found = search.gallery(Side::Old, &[], companions)?;
    let shuffled = if found.evaluations.contains_key(&Pairing::OLD_OLD) {
        assay::shuffled_means(
            probe,
            &protocol,
            &search.queries(Side::Old),
            search.gallery_of(Side::Old),
            primary,
            PERMUTATIONS,
            options.seed,
        )?
    } else {
        Vec::new()
    };
    Ok(Retrieval {
        primary,
        evaluations: found.evaluations,
        verifications: found.verifications,
        transfer: found.transfer,
        shuffled,
        protocol,
    })
}

/// Ranks every query against the new gallery: new->new, and old->new when both models' dimensions agree.
///
/// With an order in which the gallery may be re-embedded, the refresh curve comes from the same pass: in that order, then
/// in [`refresh::RANDOM_ORDERS`] random ones. An order needs both models' dimensions to agree and both embeddings of every gallery
/// item; the old gallery passes once more for it.
///
/// # Errors
/// A score that overflows f32.
pub fn search_new_gallery(
    retrieval: &mut Retrieval,
    models: [&Embeddings; 2],
    options: &SearchOptions,
    planned: Option<&Order>,
) -> Result<Option<Vec<refresh::Curve>>, ScoreOverflow> {
    let protocol = &retrieval.protocol;
    let search = Search::new(protocol, models, options);
    let old_old = retrieval.verifications.get(&Pairing::OLD_OLD);
    let points = old_old
        .into_iter()
        .flat_map(|found| &found.operating_points);
    let thresholds: Vec<f32> = points.map(|point| point.threshold).collect();
    let (found, curves) = if let Some(planned) = planned {
        let n = planned.positions().len();
        let random = |index| Cow::Owned(Order::random(n, options.seed, index));
        let random = (0..refresh::RANDOM_ORDERS).map(random);
        let orders = std::iter::once(Cow::Borrowed(planned)).chain(random);
        let first_steps = FirstSteps::new(n, 1 + refresh::RANDOM_ORDERS, orders);
        let refresh = Refresh::new(
            protocol,
            models,
            options.similarity,
            retrieval.primary,
            first_steps,
        );
        let (curves, found) = refresh
            .curves(|counts| search.gallery(Side::New, &thresholds, [counts, Vec::new()]))?;
        (found, Some(curves))
    } else {
        (
            search.gallery(Side::New, &thresholds, Default::default())?,
            None,
        )
    };
    retrieval.evaluations.extend(found.evaluations);
    retrieval.verifications.extend(found.verifications);
    Ok(curves)
}

/// Number of distinct values.
pub fn n_distinct(mut values: Vec<u32>) -> usize {
    values.sort_unstable();
    values.dedup();
    values.len()
}
