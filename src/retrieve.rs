//! Stage 4: rankings, measures, verification and agreement of the pairings.

pub mod agreement;
pub mod assay;
pub mod measures;
pub mod protocol;
pub mod rank;
pub mod refresh;
pub mod score;
pub mod verification;
pub mod what_if;

use std::collections::BTreeMap;

use crate::config::Similarity;
use crate::domain::{Embeddings, Labels, Measure, Pairing, Probe, Role, Side};

use protocol::Protocol;
use rank::Ranking;
use score::{PackedGallery, ScoreOverflow};
use verification::Verification;

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
    fn new(
        protocol: &Protocol,
        queries: &QuerySet<'_>,
        gallery: &PackedGallery,
    ) -> Result<Self, ScoreOverflow> {
        let rankings = score::score_rows(
            queries.embeddings,
            &queries.items,
            gallery,
            queries.similarity,
            |q, row| Ranking::new(&protocol.queries()[q], row),
        )?;
        Ok(Self { rankings })
    }

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

/// Ranks every query under every pairing that the embeddings allow.
///
/// A pairing exists when both models' dimensions agree and the gallery model has an embedding of every gallery item.
/// `input_digests` are hashes of the decoded inputs, one an item, or none; `primary` is the measure that
/// decides; `None`: nDCG@10 when relevance is graded, else mAP.
///
/// # Errors
/// A score that overflows f32.
pub fn retrieve(
    probe: &Probe,
    input_digests: &[Option<[u8; 32]>],
    old: &Embeddings,
    new: &Embeddings,
    similarity: Similarity,
    primary: Option<Measure>,
    seed: u64,
) -> Result<Retrieval, ScoreOverflow> {
    let protocol = Protocol::new(probe, input_digests);
    let primary = primary.unwrap_or(if protocol.is_graded() {
        Measure::NdcgAt(10)
    } else {
        Measure::MeanAveragePrecision
    });
    let of = |side: Side| if side == Side::Old { old } else { new };
    let n_query_identities = n_distinct(protocol.query_identities());
    let mut evaluations = BTreeMap::new();
    let mut verifications: BTreeMap<Pairing, Verification> = BTreeMap::new();
    let mut shuffled = Vec::new();
    for side in [Side::Old, Side::New] {
        if !protocol.gallery().iter().all(|&item| of(side).has(item)) {
            continue;
        }
        let gallery = PackedGallery::new(of(side), protocol.gallery());
        // old->old comes first: its thresholds are transferred to the others.
        for query in [
            side,
            if side == Side::Old {
                Side::New
            } else {
                Side::Old
            },
        ] {
            if of(query).dim() != of(side).dim() {
                continue;
            }
            let pairing = Pairing {
                query,
                gallery: side,
            };
            let queries = QuerySet {
                embeddings: of(query),
                items: protocol.query_items(),
                similarity,
            };
            let evaluation = Evaluation::new(&protocol, &queries, &gallery)?;
            let thresholds: Vec<f32> = verifications
                .get(&Pairing::OLD_OLD)
                .map(|old_old| {
                    old_old
                        .operating_points
                        .iter()
                        .map(|p| p.threshold)
                        .collect()
                })
                .unwrap_or_default();
            let verification = verification::verify(
                &protocol,
                &queries,
                &gallery,
                &evaluation,
                n_query_identities,
                &thresholds,
            )?;
            verifications.extend(verification.map(|verification| (pairing, verification)));
            if pairing == Pairing::OLD_OLD {
                shuffled = assay::shuffled_means(
                    probe,
                    &protocol,
                    &queries,
                    &gallery,
                    primary,
                    PERMUTATIONS,
                    seed,
                )?;
            }
            evaluations.insert(pairing, evaluation);
        }
    }
    Ok(Retrieval {
        protocol,
        primary,
        evaluations,
        verifications,
        shuffled,
    })
}

/// old->old and new->old on the gallery without the items that `keep` refuses, with what still counts there.
///
/// Both models' dimensions must agree.
///
/// # Errors
/// A score that overflows f32.
pub fn retrieve_kept(
    probe: &Probe,
    input_digests: &[Option<[u8; 32]>],
    old: &Embeddings,
    new: &Embeddings,
    similarity: Similarity,
    keep: impl Fn(usize) -> bool,
) -> Result<(Protocol, [Evaluation; 2]), ScoreOverflow> {
    let mut kept = probe.clone();
    for (index, item) in kept.items.iter_mut().enumerate() {
        match item.role {
            Role::Both if !keep(index) => item.role = Role::Query,
            // Junk is found by no query.
            Role::Gallery if !keep(index) => {
                (item.identity, item.labels) = (None, Labels::default())
            }
            _ => {}
        }
    }
    let protocol = Protocol::new(&kept, input_digests);
    let gallery = PackedGallery::new(old, protocol.gallery());
    let evaluate = |embeddings| {
        let queries = QuerySet {
            embeddings,
            items: protocol.query_items(),
            similarity,
        };
        Evaluation::new(&protocol, &queries, &gallery)
    };
    let evaluations = [evaluate(old)?, evaluate(new)?];
    Ok((protocol, evaluations))
}

/// The refresh curve in the plan's order, then in [`refresh::RANDOM_ORDERS`] random ones.
///
/// Both models' dimensions must agree and every gallery item must have both embeddings.
///
/// # Errors
/// A score that overflows f32.
pub fn refresh(
    retrieval: &Retrieval,
    old: &Embeddings,
    new: &Embeddings,
    similarity: Similarity,
    planned: &refresh::Order,
    seed: u64,
) -> Result<Vec<refresh::Curve>, ScoreOverflow> {
    let n = planned.positions().len();
    let random = (0..refresh::RANDOM_ORDERS).map(|index| refresh::Order::random(n, seed, index));
    let orders: Vec<_> = std::iter::once(planned.clone()).chain(random).collect();
    let primary = retrieval.primary;
    refresh::curves(&retrieval.protocol, old, new, similarity, primary, &orders)
}

/// Number of distinct values.
pub fn n_distinct(mut values: Vec<u32>) -> usize {
    values.sort_unstable();
    values.dedup();
    values.len()
}
