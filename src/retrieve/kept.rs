//! What old->old and new->old would be without the old embeddings that are not credible.
//!
//! An item that leaves the gallery only takes itself off the ranks below it. So the dropped items alone are scored, and
//! what they stood above is subtracted from the ranks of the whole gallery.

use rayon::prelude::*;

use crate::config::Similarity;
use crate::domain::{Embeddings, Pairing};
use crate::topk::{Gallery, QueryScan, ScoreOverflow, Visitor, scan};

use super::counts::{NonMatchMask, ThresholdCounts};
use super::rank::Ranking;
use super::{Retrieval, measures};

/// The queries that still have a relevant item in the gallery without the dropped items.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Identity of each.
    pub query_identities: Vec<u32>,
    /// The primary measure of each, ties against the query: old->old, new->old.
    pub per_query: [Vec<f64>; 2],
}

/// old->old and new->old on the gallery without the items that `keep` refuses; `None` without new->old.
///
/// Costs queries x dropped items x dim.
///
/// # Errors
/// A score that overflows f32.
pub fn retrieve_kept(
    retrieval: &Retrieval,
    old: &Embeddings,
    new: &Embeddings,
    similarity: Similarity,
    keep: impl Fn(usize) -> bool,
) -> Result<Option<Kept>, ScoreOverflow> {
    let protocol = &retrieval.protocol;
    let of = |pairing| retrieval.evaluations.get(&pairing);
    let (Some(old_old), Some(new_old)) = (of(Pairing::OLD_OLD), of(Pairing::NEW_OLD)) else {
        return Ok(None);
    };
    let positions = protocol.gallery().iter().enumerate();
    let dropped = positions.filter(|&(_, &item)| !keep(item));
    let (dropped, items): (Vec<u32>, Vec<usize>) = dropped
        .map(|(position, &item)| (position as u32, item))
        .unzip();
    let among_dropped = |positions: &[u32]| -> Vec<u32> {
        let at = positions
            .iter()
            .filter_map(|p| dropped.binary_search(p).ok());
        at.map(|at| at as u32).collect()
    };
    let absent: Vec<[Vec<u32>; 2]> = protocol
        .queries()
        .par_iter()
        .map(|query| [among_dropped(&query.junk), among_dropped(&query.relevant)])
        .collect();
    let query_items = protocol.query_items();
    let sides = [(old, old_old), (new, new_old)];
    let mut scans = sides.map(|(embeddings, evaluation)| {
        let queries = evaluation.rankings.iter().zip(&absent);
        QueryScan {
            embeddings,
            items: &query_items,
            visitors: queries
                .map(|(ranking, absent)| DroppedCounter::new(ranking, &dropped, absent))
                .collect(),
        }
    });
    let gallery = Gallery {
        embeddings: old,
        items: &items,
    };
    scan(gallery, similarity, &mut scans, || ())?;

    let [on_old, on_new] = scans.map(|scan| {
        let value = |counter: DroppedCounter<'_>| {
            let (ranks, grades) = counter.ranks_without();
            (!ranks.is_empty()).then(|| measures::evaluate(retrieval.primary, &ranks, &grades))
        };
        scan.visitors.into_iter().map(value).collect::<Vec<_>>()
    });
    let identities = protocol.query_identities();
    let still_evaluated: Vec<usize> = (0..identities.len())
        .filter(|&q| on_old[q].is_some())
        .collect();
    // Which relevant items are left does not depend on the query's model.
    let left = |values: Vec<Option<f64>>| values.into_iter().flatten().collect();
    Ok(Some(Kept {
        query_identities: still_evaluated.iter().map(|&q| identities[q]).collect(),
        per_query: [left(on_old), left(on_new)],
    }))
}

/// Counts, for one query, the dropped non-relevant items at or above each relevant item that is left.
struct DroppedCounter<'a> {
    ranking: &'a Ranking,
    /// Which of the ranking's relevant items are left.
    left: Vec<usize>,
    mask: NonMatchMask<'a>,
    counts: ThresholdCounts<'static>,
}

impl<'a> DroppedCounter<'a> {
    /// `dropped` are gallery positions, rising; `absent` the query's junk and relevant items as indices into them.
    fn new(ranking: &'a Ranking, dropped: &[u32], absent: &'a [Vec<u32>; 2]) -> Self {
        let is_left = |&i: &usize| {
            let position = ranking.relevant[i].position;
            dropped.binary_search(&position).is_err()
        };
        let left: Vec<usize> = (0..ranking.relevant.len()).filter(is_left).collect();
        // The ranking has the best first, the counts have the worst first.
        let thresholds = left.iter().rev().map(|&i| ranking.relevant[i].score);
        Self {
            counts: ThresholdCounts::new(thresholds.collect::<Vec<f32>>()),
            ranking,
            left,
            mask: NonMatchMask::new(&absent[0], &absent[1]),
        }
    }

    /// Ranks of the relevant items that are left, ascending, and their grades.
    fn ranks_without(self) -> (Vec<u64>, Vec<u32>) {
        let (gone, _) = self.counts.totals();
        let left = self.left.iter().zip(gone.iter().rev()).enumerate();
        left.map(|(before, (&i, &gone))| {
            let relevant = &self.ranking.relevant[i];
            // Relevant items before it are counted anew, those dropped no more.
            let rivals = relevant.rank - i as u64 - u64::from(gone);
            (rivals + before as u64, relevant.grade)
        })
        .unzip()
    }
}

impl Visitor for DroppedCounter<'_> {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.counts.lowest()
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        self.mask.apply(first, row);
        self.counts.count(row);
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::QueryProtocol;
    use super::*;

    /// Every way to drop some of seven items, with ties, junk and grades, against ranking what is left.
    #[test]
    fn ranks_agree_with_ranking_the_gallery_that_is_left() {
        let row = [0.5_f32, 0.9, 0.5, 0.5, 0.1, 0.5, 0.7];
        let query = QueryProtocol {
            item: 0,
            identity: 0,
            relevant: vec![0, 3, 4],
            grades: vec![2, 1, 3],
            junk: vec![5],
        };
        let ranking = Ranking::by_sorting(&query, &row);
        for choice in 0..1_u32 << row.len() {
            let is_dropped = |p: &u32| choice >> p & 1 == 1;
            let (dropped, kept): (Vec<u32>, Vec<u32>) = (0..row.len() as u32).partition(is_dropped);
            let among = |positions: &[u32], of: &[u32]| -> Vec<u32> {
                let at = positions.iter().filter_map(|p| of.binary_search(p).ok());
                at.map(|at| at as u32).collect()
            };
            let absent = [
                among(&query.junk, &dropped),
                among(&query.relevant, &dropped),
            ];
            let mut counter = DroppedCounter::new(&ranking, &dropped, &absent);
            let mut scores: Vec<f32> = dropped.iter().map(|&p| row[p as usize]).collect();
            counter.visit(&mut (), 0, &mut scores);
            let found = counter.ranks_without();

            let relevant = among(&query.relevant, &kept);
            if relevant.is_empty() {
                assert!(found.0.is_empty());
                continue;
            }
            let is_kept = |&i: &usize| !is_dropped(&query.relevant[i]);
            let left = QueryProtocol {
                grades: (0..3).filter(is_kept).map(|i| query.grades[i]).collect(),
                junk: among(&query.junk, &kept),
                relevant,
                ..query
            };
            let scores: Vec<f32> = kept.iter().map(|&p| row[p as usize]).collect();
            let expected = Ranking::by_sorting(&left, &scores);
            assert_eq!(found, (expected.ranks(), expected.grades()), "{choice:b}");
        }
    }
}
