//! Assay sensitivity: what the old model scores when the gallery's labels are shuffled.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::domain::{Measure, Probe};
use crate::stats::mean;
use crate::topk::{Gallery, QueryScan, ScoreOverflow, Visitor, scan_one, score_some};

use super::counts::{Mask, ThresholdCounts};
use super::protocol::{Protocol, QueryProtocol};
use super::verification::sorted;
use super::{QuerySet, measures};

/// Queries that are ranked, at most: permuted labels all but ignore the embeddings, so five hundred queries say what ten
/// thousand say.
const QUERIES: usize = 500;

/// Drawn positions that are held at a time: some 250 MB with their scores and counts.
const DRAWS: usize = 1 << 23;

/// Mean of `measure` over the evaluated queries, or over 500 evenly spread ones of more; one value a permutation of the
/// gallery's labels.
///
/// Permutation p is drawn from the stream (seed, p). A query's junk stays removed; its relevant items are the
/// non-junk positions that drew one of its labels, or, where relevance is judged, an item that was judged relevant
/// (its grade goes with it). A permutation that leaves a query without a relevant item skips
/// that query. Ties count against the query, as everywhere.
///
/// # Errors
/// A score that overflows f32.
pub fn shuffled_means(
    probe: &Probe,
    protocol: &Protocol,
    queries: &QuerySet<'_>,
    gallery: Gallery<'_>,
    measure: Measure,
    permutations: usize,
    seed: u64,
) -> Result<Vec<f64>, ScoreOverflow> {
    let n_queries = protocol.queries().len();
    let n_taken = n_queries.min(QUERIES);
    let evenly = (0..n_taken).map(|i| &protocol.queries()[i * n_queries / n_taken]);
    let taken: Vec<&QueryProtocol> = evenly.collect();
    let donors = Donors::new(probe, gallery.items, &taken);
    let mut per_query: Vec<Vec<Option<f64>>> = Vec::with_capacity(taken.len());
    let mut rest = &taken[..];
    while !rest.is_empty() {
        let mut draws = 0;
        let fits = rest.iter().take_while(|query| {
            draws += permutations * query.relevant.len();
            draws <= DRAWS
        });
        let (together, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let donors: Vec<_> = together.iter().map(|query| donors.of(query.item)).collect();
        let asked = Asked::new(&donors);
        let drawn: Vec<Vec<Vec<(u32, u32)>>> = (0..permutations as u64)
            .into_par_iter()
            .map(|stream| {
                let places = asked.shuffled(gallery.items.len(), seed, stream);
                draw(&donors, |position| places[asked.index(position)])
            })
            .collect();
        let ranks = rank_drawn(together, &drawn, queries, gallery)?;
        per_query.par_extend(ranks.par_iter().enumerate().map(|(q, ranks)| {
            let value = |of_query: &Vec<Vec<(u32, u32)>>| {
                let (ranks, grades) = ranks.of(&of_query[q]);
                (!ranks.is_empty()).then(|| measures::evaluate(measure, &ranks, &grades))
            };
            drawn.iter().map(value).collect()
        }));
    }
    Ok((0..permutations)
        .map(|p| {
            let values: Vec<f64> = per_query.iter().filter_map(|values| values[p]).collect();
            mean(&values)
        })
        .collect())
}

/// The ranks of whatever was drawn for each query, `drawn[permutation][query]`, in one pass.
fn rank_drawn(
    taken: &[&QueryProtocol],
    drawn: &[Vec<Vec<(u32, u32)>>],
    queries: &QuerySet<'_>,
    gallery: Gallery<'_>,
) -> Result<Vec<Ranks>, ScoreOverflow> {
    let visitors = taken.par_iter().enumerate().map(|(q, query)| {
        let positions = drawn.iter().flat_map(|of_query| &of_query[q]);
        let positions = positions.map(|&(position, _)| position).collect();
        RankTable::new(query, positions, queries, gallery)
    });
    let items: Vec<usize> = taken.iter().map(|query| query.item).collect();
    let taken = QueryScan {
        embeddings: queries.embeddings,
        items: &items,
        visitors: visitors.collect(),
    };
    let visitors = scan_one(gallery, queries.similarity, taken)?;
    Ok(visitors.into_par_iter().map(RankTable::finish).collect())
}

/// For each query the (position, grade) that its donors drew in one permutation of the gallery, which puts a position's
/// labels where `place` says.
fn draw(donors: &[Vec<(u32, u32)>], place: impl Fn(u32) -> u32) -> Vec<Vec<(u32, u32)>> {
    let draw = |&(position, grade): &(u32, u32)| (place(position), grade);
    let of_query = |donors: &Vec<_>| donors.iter().map(draw).collect();
    donors.iter().map(of_query).collect()
}

/// The gallery positions that are some query's donors, rising.
struct Asked(Vec<u32>);

impl Asked {
    fn new(donors: &[Vec<(u32, u32)>]) -> Self {
        let all = donors.iter().flatten().map(|&(position, _)| position);
        let mut asked: Vec<u32> = all.collect();
        asked.sort_unstable();
        asked.dedup();
        Self(asked)
    }

    fn index(&self, position: u32) -> usize {
        let found = self.0.binary_search(&position);
        found.expect("only donors' positions are asked")
    }

    /// Where one permutation of `n` positions puts the labels of each. The others' are not kept: there may be tens of
    /// millions.
    fn shuffled(&self, n: usize, seed: u64, stream: u64) -> Vec<u32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let mut donor_at: Vec<u32> = (0..n as u32).collect();
        donor_at.shuffle(&mut rng);
        let mut is_asked = vec![false; n];
        for &position in &self.0 {
            is_asked[position as usize] = true;
        }
        let mut places = vec![0; self.0.len()];
        for (place, donor) in donor_at.into_iter().enumerate() {
            if is_asked[donor as usize] {
                places[self.index(donor)] = place as u32;
            }
        }
        places
    }
}

/// The gallery positions whose labels make an item relevant to a query, before junk is removed.
struct Donors<'a> {
    probe: &'a Probe,
    gallery: &'a [usize],
    positions_of_label: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Donors<'a> {
    /// For these queries.
    fn new(probe: &'a Probe, gallery: &'a [usize], queries: &[&QueryProtocol]) -> Self {
        let items: Vec<usize> = queries.iter().map(|query| query.item).collect();
        Self {
            probe,
            gallery,
            positions_of_label: probe.positions_of_labels(&items, gallery),
        }
    }

    /// (gallery position, grade), each position once.
    fn of(&self, query: usize) -> Vec<(u32, u32)> {
        if let Some(qrels) = &self.probe.qrels {
            let position = |item: u32| self.gallery.binary_search(&(item as usize)).ok();
            let judged = qrels.relevant_to(query).iter();
            return judged
                .filter_map(|&(item, grade)| Some((position(item)? as u32, grade)))
                .collect();
        }
        let labels = self.probe.items[query].labels.iter();
        let mut positions: Vec<(u32, u32)> = labels
            .flat_map(|label| &self.positions_of_label[label])
            .map(|&position| (position, 1))
            .collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

/// Counts, for every position that some permutation makes relevant to a query, the non-junk items at or above it.
struct RankTable<'a> {
    /// The positions, sorted, without junk, and their scores.
    positions: Vec<u32>,
    scores: Vec<f32>,
    junk: Mask<'a>,
    counts: ThresholdCounts<'static>,
}

impl<'a> RankTable<'a> {
    fn new(
        query: &'a QueryProtocol,
        mut positions: Vec<u32>,
        queries: &QuerySet<'_>,
        gallery: Gallery<'_>,
    ) -> Self {
        positions.sort_unstable();
        positions.dedup();
        positions.retain(|position| query.junk.binary_search(position).is_err());
        let (embeddings, similarity) = (queries.embeddings, queries.similarity);
        let scores = score_some(embeddings, query.item, gallery, &positions, similarity);
        Self::with_scores(query, positions, scores)
    }

    fn with_scores(query: &'a QueryProtocol, positions: Vec<u32>, scores: Vec<f32>) -> Self {
        let mut thresholds = sorted(scores.iter().copied());
        thresholds.dedup();
        Self {
            positions,
            scores,
            junk: Mask::new(&query.junk),
            counts: ThresholdCounts::new(thresholds),
        }
    }

    fn finish(self) -> Ranks {
        let thresholds = self.counts.thresholds().to_vec();
        let (at_or_above, _) = self.counts.totals();
        let count = |score: &f32| at_or_above[thresholds.partition_point(|t| t < score)];
        Ranks {
            at_or_above: self.scores.iter().map(count).collect(),
            positions: self.positions,
        }
    }
}

impl Visitor for RankTable<'_> {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.counts.lowest()
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        self.junk.apply(first, row);
        self.counts.count(row);
    }
}

/// For any set of the positions, their ranks.
struct Ranks {
    positions: Vec<u32>,
    /// Non-junk items at or above each position's score.
    at_or_above: Vec<u32>,
}

impl Ranks {
    /// rank = 1 + (all - relevant at or above) + relevant before, ascending, and the grades; junk positions are ignored.
    fn of(&self, relevant: &[(u32, u32)]) -> (Vec<u64>, Vec<u32>) {
        let mut counts: Vec<(u64, u32)> = relevant
            .iter()
            .filter_map(|&(position, grade)| {
                let at = self.positions.binary_search(&position).ok()?;
                Some((u64::from(self.at_or_above[at]), grade))
            })
            .collect();
        // Equal counts are equal scores: the lower grade stands first.
        counts.sort_unstable();
        (0..counts.len())
            .map(|before| {
                let (count, grade) = counts[before];
                let relevant_at_or_above =
                    counts.partition_point(|&(other, _)| other <= count) as u64;
                (1 + count - relevant_at_or_above + before as u64, grade)
            })
            .unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rank::Ranking;
    use super::*;

    #[test]
    fn rank_table_agrees_with_the_ranking_on_ties_and_junk() {
        let rows: [&[f32]; 3] = [
            &[0.5, 0.5, 0.5, 0.1, 0.9, 0.5],
            &[1.0; 6],
            &[0.3, 0.1, 0.6, 0.2, 0.5, 0.4],
        ];
        for row in rows {
            for relevant in [vec![0_u32], vec![1, 3], vec![0, 2, 5]] {
                let junk = vec![4_u32];
                let grades: Vec<u32> = relevant.iter().map(|position| 7 - position).collect();
                let query = QueryProtocol {
                    item: 0,
                    identity: 0,
                    relevant: relevant.clone(),
                    grades: grades.clone(),
                    junk: junk.clone(),
                };
                let ranking = Ranking::by_sorting(&query, row);
                let positions = vec![0, 1, 2, 3, 5];
                let scores = positions.iter().map(|&p| row[p as usize]).collect();
                let mut table = RankTable::with_scores(&query, positions, scores);
                table.visit(&mut (), 0, &mut row.to_vec());
                // Position 4 is junk: it is drawn, and ignored.
                let drawn = relevant.iter().copied().zip(grades).chain([(4, 1)]);
                let found = table.finish().of(&drawn.collect::<Vec<_>>());
                assert_eq!(found, (ranking.ranks(), ranking.grades()));
            }
        }
    }
}
