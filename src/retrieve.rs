//! Stage 4: rankings, measures, verification and agreement of the pairings.

pub mod agreement;
pub mod assay;
mod counts;
pub mod measures;
pub mod protocol;
pub mod rank;
pub mod refresh;
pub mod verification;
pub mod what_if;

use std::collections::BTreeMap;

use crate::config::Similarity;
use crate::domain::{Embeddings, Labels, Measure, Pairing, Probe, Role, Side};
use crate::topk::{Gallery, ScoreOverflow};

use protocol::Protocol;
use rank::{RankSet, Ranking, rank};
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
    /// Non-matching scores of old->old by the high 16 bits of their order-preserving keys, with query identities enough.
    pub old_non_matches: Option<Vec<u64>>,
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
    let verifies = n_distinct(protocol.query_identities()) >= verification::MIN_QUERY_IDENTITIES;
    let mut retrieval = Retrieval {
        primary,
        evaluations: BTreeMap::new(),
        verifications: BTreeMap::new(),
        old_non_matches: None,
        shuffled: Vec::new(),
        protocol,
    };
    for side in [Side::Old, Side::New] {
        let protocol = &retrieval.protocol;
        if !protocol.gallery().iter().all(|&item| of(side).has(item)) {
            continue;
        }
        let gallery = Gallery {
            embeddings: of(side),
            items: protocol.gallery(),
        };
        // old->old comes first: its thresholds are transferred to the others.
        let other = if side == Side::Old {
            Side::New
        } else {
            Side::Old
        };
        let query_sides: Vec<Side> = [side, other]
            .into_iter()
            .filter(|&query| of(query).dim() == of(side).dim())
            .collect();
        let sets = query_sides.iter().map(|&query| {
            let set = RankSet::new(of(query), protocol.queries(), gallery, similarity);
            if verifies { set.pooled() } else { set }
        });
        let ranked = rank(gallery, similarity, sets.collect())?;
        for (query, ranked) in query_sides.into_iter().zip(ranked) {
            let pairing = Pairing {
                query,
                gallery: side,
            };
            let queries = QuerySet {
                embeddings: of(query),
                items: protocol.query_items(),
                similarity,
            };
            let evaluation = Evaluation {
                rankings: ranked.rankings,
            };
            if let Some((bounds, counts)) = &ranked.pooled {
                let old_old = retrieval.verifications.get(&Pairing::OLD_OLD);
                let points = old_old.map_or(&[][..], |found| &found.operating_points[..]);
                let thresholds: Vec<f32> = points.iter().map(|point| point.threshold).collect();
                let found = verification::verify(
                    protocol,
                    &queries,
                    gallery,
                    &evaluation,
                    bounds,
                    counts,
                    &thresholds,
                )?;
                let found = found.map(|verification| (pairing, verification));
                retrieval.verifications.extend(found);
            }
            if pairing == Pairing::OLD_OLD {
                retrieval.old_non_matches = ranked.pooled.map(|(_, counts)| counts.high);
                retrieval.shuffled = assay::shuffled_means(
                    probe,
                    protocol,
                    &queries,
                    gallery,
                    primary,
                    PERMUTATIONS,
                    seed,
                )?;
            }
            retrieval.evaluations.insert(pairing, evaluation);
        }
    }
    Ok(retrieval)
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
    let gallery = Gallery {
        embeddings: old,
        items: protocol.gallery(),
    };
    let sets = [old, new].map(|e| RankSet::new(e, protocol.queries(), gallery, similarity));
    let mut ranked = rank(gallery, similarity, sets.into())?.into_iter();
    let mut next = || Evaluation {
        rankings: ranked.next().map(|set| set.rankings).unwrap_or_default(),
    };
    let evaluations = [next(), next()];
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
