//! Assay sensitivity: what the old model scores when the gallery's labels are shuffled.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::domain::{Measure, Probe};

use super::protocol::Protocol;
use super::score::{PackedGallery, ScoreOverflow, score_rows};
use super::{QuerySet, measures};

/// Mean of `measure` over the evaluated queries, one value a permutation of the gallery's labels.
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
    gallery: &PackedGallery,
    measure: Measure,
    permutations: usize,
    seed: u64,
) -> Result<Vec<f64>, ScoreOverflow> {
    let gallery_items = protocol.gallery();
    let shuffles: Vec<Vec<u32>> = (0..permutations as u64)
        .into_par_iter()
        .map(|stream| shuffled_positions(gallery_items.len(), seed, stream))
        .collect();
    let donors = Donors::new(probe, gallery_items);
    let per_query = score_rows(
        queries.embeddings,
        &queries.items,
        gallery,
        queries.similarity,
        |q, row| {
            let query = &protocol.queries()[q];
            let ranks = RankTable::new(row, &query.junk);
            let donors = donors.of(query.item);
            shuffles
                .iter()
                .map(|new_position| {
                    let drawn = donors
                        .iter()
                        .map(|&(position, grade)| (new_position[position as usize], grade));
                    let (ranks, grades) = ranks.of(drawn);
                    (!ranks.is_empty()).then(|| measures::evaluate(measure, &ranks, &grades))
                })
                .collect::<Vec<Option<f64>>>()
        },
    )?;
    Ok((0..permutations)
        .map(|p| {
            let values: Vec<f64> = per_query.iter().filter_map(|values| values[p]).collect();
            values.iter().sum::<f64>() / values.len().max(1) as f64
        })
        .collect())
}

/// Where one permutation puts each gallery position's labels.
fn shuffled_positions(n: usize, seed: u64, stream: u64) -> Vec<u32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    let mut donor_at: Vec<usize> = (0..n).collect();
    donor_at.shuffle(&mut rng);
    let mut new_position = vec![0; n];
    for (position, donor) in donor_at.into_iter().enumerate() {
        new_position[donor] = position as u32;
    }
    new_position
}

/// The gallery positions whose labels make an item relevant to a query, before junk is removed.
struct Donors<'a> {
    probe: &'a Probe,
    gallery: &'a [usize],
    positions_of_label: Vec<Vec<u32>>,
}

impl<'a> Donors<'a> {
    fn new(probe: &'a Probe, gallery: &'a [usize]) -> Self {
        let mut positions_of_label = vec![Vec::new(); probe.labels.len()];
        for (position, &item) in gallery.iter().enumerate() {
            for &label in &probe.items[item].labels {
                positions_of_label[label as usize].push(position as u32);
            }
        }
        Self {
            probe,
            gallery,
            positions_of_label,
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
            .flat_map(|&label| &self.positions_of_label[label as usize])
            .map(|&position| (position, 1))
            .collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

/// For any set of relevant positions, their ranks, without another pass over the scores.
struct RankTable {
    /// Non-junk positions at or above each position's score; 0 for junk.
    at_or_above: Vec<u32>,
}

impl RankTable {
    fn new(row: &[f32], junk: &[u32]) -> Self {
        let mut order: Vec<u32> = (0..row.len() as u32)
            .filter(|position| junk.binary_search(position).is_err())
            .collect();
        order.sort_unstable_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
        let mut at_or_above = vec![0; row.len()];
        let mut end = order.len();
        // Walking upwards from the worst, a run of equal scores shares the count at its end.
        for i in (0..order.len()).rev() {
            if i + 1 < order.len() && row[order[i] as usize] != row[order[i + 1] as usize] {
                end = i + 1;
            }
            at_or_above[order[i] as usize] = end as u32;
        }
        Self { at_or_above }
    }

    /// rank = 1 + (all - relevant at or above) + relevant before, ascending, and the grades; junk positions are ignored.
    fn of(&self, relevant: impl Iterator<Item = (u32, u32)>) -> (Vec<u64>, Vec<u32>) {
        let mut counts: Vec<(u64, u32)> = relevant
            .map(|(position, grade)| (u64::from(self.at_or_above[position as usize]), grade))
            .filter(|&(count, _)| count > 0)
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
    use super::super::protocol::QueryProtocol;
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
                let ranking = Ranking::new(&query, &mut row.to_vec());
                let found = RankTable::new(row, &junk).of(relevant.iter().copied().zip(grades));
                assert_eq!(found, (ranking.ranks(), ranking.grades()));
            }
        }
    }
}
