//! The refresh curve: what new queries find while the gallery is re-embedded step by step.
//!
//! At a share beta the first beta * N items of an order hold new embeddings and the others still old ones,
//! M(new->mixed(beta)). Hot-refresh can be worse in between than at both ends, so every step is evaluated
//! (`docs/METRICS.md`, section 3).

use rand::SeedableRng;
use rand::seq::SliceRandom;

use crate::config::Similarity;
use crate::domain::{Embeddings, Measure};

use super::protocol::{Protocol, QueryProtocol};
use super::score::{PackedGallery, ScoreOverflow, score_rows};
use super::{QuerySet, measures};

/// Steps from beta = 0 to beta = 1: 5 % of the gallery each.
pub const STEPS: usize = 20;

/// Random orders that the plan's order is compared with.
pub const RANDOM_ORDERS: usize = 5;

/// First stream of the random orders; the streams below are those of the label permutations.
const FIRST_STREAM: u64 = 1 << 32;

/// What every query finds at every step, for one order of the gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// `values[step][query]`: the measure under new->mixed(step / STEPS), ties against the query.
    pub values: Vec<Vec<f64>>,
    /// `right[step][query]`: whether the first hit is relevant there.
    pub right: Vec<Vec<bool>>,
}

/// An order in which the gallery may be re-embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    positions: Vec<u32>,
}

impl Order {
    /// From gallery positions, each exactly once.
    ///
    /// # Panics
    /// When it is no permutation.
    pub fn new(positions: Vec<u32>) -> Self {
        let mut sorted = positions.clone();
        sorted.sort_unstable();
        assert!(
            sorted.iter().enumerate().all(|(i, &p)| i == p as usize),
            "an order names each gallery position once"
        );
        Self { positions }
    }

    /// The seed's random order number `index` of `n` positions.
    pub fn random(n: usize, seed: u64, index: usize) -> Self {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(FIRST_STREAM + index as u64);
        let mut positions: Vec<u32> = (0..n as u32).collect();
        positions.shuffle(&mut rng);
        Self { positions }
    }

    /// Gallery positions, first to be re-embedded first.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Items re-embedded at a step: the share step / STEPS of all, rounded half up.
    pub fn items_at(&self, step: usize) -> usize {
        (step * self.positions.len() + STEPS / 2) / STEPS
    }

    /// For each gallery position the first step at which it is re-embedded, 1 to STEPS.
    fn first_steps(&self) -> Vec<u8> {
        let mut steps = vec![0; self.positions.len()];
        let mut step = 1;
        for (index, &position) in self.positions.iter().enumerate() {
            while self.items_at(step) <= index {
                step += 1;
            }
            steps[position as usize] = step as u8;
        }
        steps
    }
}

/// Evaluates every order at every step in one pass over the scores.
///
/// Both models' dimensions must agree and every gallery item must have both embeddings. Memory beside both
/// galleries is one row of scores of each a query in work, and the result.
///
/// # Errors
/// A score that overflows f32.
pub fn curves(
    protocol: &Protocol,
    old: &Embeddings,
    new: &Embeddings,
    similarity: Similarity,
    measure: Measure,
    orders: &[Order],
) -> Result<Vec<Curve>, ScoreOverflow> {
    let gallery = PackedGallery::concatenated(&[old, new], protocol.gallery());
    let n = protocol.gallery().len();
    let queries = QuerySet {
        embeddings: new,
        items: protocol.query_items(),
        similarity,
    };
    let first_steps: Vec<Vec<u8>> = orders.iter().map(Order::first_steps).collect();
    let per_query = score_rows(
        queries.embeddings,
        &queries.items,
        &gallery,
        queries.similarity,
        |q, row| {
            let (on_old, on_new) = row.split_at(n);
            let query = &protocol.queries()[q];
            let mixed = MixedRow::new(query, on_old, on_new);
            first_steps
                .iter()
                .map(|first| mixed.walk(first, measure))
                .collect::<Vec<_>>()
        },
    )?;
    Ok((0..orders.len())
        .map(|order| {
            let at = |step: usize| per_query.iter().map(move |query| query[order][step]);
            Curve {
                values: (0..=STEPS)
                    .map(|step| at(step).map(|point| point.value).collect())
                    .collect(),
                right: (0..=STEPS)
                    .map(|step| at(step).map(|point| point.right).collect())
                    .collect(),
            }
        })
        .collect())
}

/// One query at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    value: f64,
    right: bool,
}

/// One query's scores of both galleries, reduced to what its relevant items need.
struct MixedRow {
    /// The relevant items.
    relevant: Vec<MixedRelevant>,
    /// The relevant items' scores under both galleries, ascending.
    thresholds: Vec<f32>,
    /// (gallery position, thresholds at or below its old score, at or below its new score) of each non-relevant
    /// item that reaches the lowest threshold with either; the others never count.
    rivals: Vec<(u32, u32, u32)>,
}

/// One relevant item under both galleries.
struct MixedRelevant {
    /// Gallery position.
    position: u32,
    /// Index into the thresholds of its score under the old gallery.
    on_old: usize,
    /// The same under the new gallery.
    on_new: usize,
    /// Its grade, 1 without judgements.
    grade: u32,
}

impl MixedRow {
    fn new(query: &QueryProtocol, on_old: &[f32], on_new: &[f32]) -> Self {
        let mut thresholds: Vec<f32> = query
            .relevant
            .iter()
            .flat_map(|&p| [on_old[p as usize], on_new[p as usize]])
            .collect();
        thresholds.sort_unstable_by(f32::total_cmp);
        let at_or_below = |score: f32| thresholds.partition_point(|&t| t <= score);
        // A threshold's own index is the last of its equals.
        let relevant = query
            .relevant
            .iter()
            .enumerate()
            .map(|(i, &position)| {
                let index = |row: &[f32]| at_or_below(row[position as usize]) - 1;
                MixedRelevant {
                    position,
                    on_old: index(on_old),
                    on_new: index(on_new),
                    grade: query.grades.get(i).copied().unwrap_or(1),
                }
            })
            .collect();
        let lowest = thresholds[0];
        let mut counts = vec![true; on_old.len()];
        for &position in query.relevant.iter().chain(&query.junk) {
            counts[position as usize] = false;
        }
        let rivals = (0..on_old.len())
            .filter(|&p| counts[p] && (on_old[p] >= lowest || on_new[p] >= lowest))
            .map(|p| {
                let reached = |row: &[f32]| at_or_below(row[p]) as u32;
                (p as u32, reached(on_old), reached(on_new))
            })
            .collect();
        Self {
            relevant,
            thresholds,
            rivals,
        }
    }

    /// The query at every step of an order.
    ///
    /// `rivals_of[t]` holds how many rivals reach exactly t thresholds at the current step; going one step on, the
    /// rivals that are re-embedded move from their old count to their new one.
    fn walk(&self, first_steps: &[u8], measure: Measure) -> Vec<Point> {
        let levels = self.thresholds.len() + 1;
        let mut moves = vec![0_i64; (STEPS + 1) * levels];
        for &(position, on_old, on_new) in &self.rivals {
            let step = usize::from(first_steps[position as usize]);
            moves[on_old as usize] += 1;
            moves[step * levels + on_old as usize] -= 1;
            moves[step * levels + on_new as usize] += 1;
        }
        let mut rivals_of = vec![0_i64; levels];
        let mut at_or_above = vec![0_u64; levels];
        (0..=STEPS)
            .map(|step| {
                for (count, moved) in rivals_of.iter_mut().zip(&moves[step * levels..]) {
                    *count += moved;
                }
                let mut above = 0;
                for level in (1..levels).rev() {
                    above += rivals_of[level];
                    at_or_above[level - 1] =
                        u64::try_from(above).expect("a rival leaves a count that it was in");
                }
                let mut active: Vec<(usize, u32)> = self
                    .relevant
                    .iter()
                    .map(|item| {
                        let refreshed = usize::from(first_steps[item.position as usize]) <= step;
                        let threshold = if refreshed { item.on_new } else { item.on_old };
                        (threshold, item.grade)
                    })
                    .collect();
                // Best first; of equal scores the lower grade first, against the query.
                active.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
                let ranks: Vec<u64> = active
                    .iter()
                    .enumerate()
                    .map(|(before, &(threshold, _))| 1 + at_or_above[threshold] + before as u64)
                    .collect();
                let grades: Vec<u32> = active.iter().map(|&(_, grade)| grade).collect();
                Point {
                    value: measures::evaluate(measure, &ranks, &grades),
                    right: ranks[0] == 1,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::super::rank::Ranking;
    use super::*;

    fn query(relevant: &[u32], junk: &[u32]) -> QueryProtocol {
        QueryProtocol {
            item: 0,
            identity: 0,
            relevant: relevant.to_vec(),
            grades: (0..relevant.len() as u32).map(|i| 1 + i % 3).collect(),
            junk: junk.to_vec(),
        }
    }

    /// Few distinct scores, so that ties abound.
    fn row(rng: &mut rand_chacha::ChaCha8Rng, n: usize) -> Vec<f32> {
        (0..n).map(|_| rng.gen_range(0..12) as f32 / 8.0).collect()
    }

    #[test]
    fn every_step_agrees_with_ranking_the_mixed_row() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        for n in [1, 7, 20, 63] {
            for round in 0..20 {
                let (old, new) = (row(&mut rng, n), row(&mut rng, n));
                let relevant: Vec<u32> = (0..n as u32).filter(|p| p % 5 == 0).collect();
                let junk: Vec<u32> = (0..n as u32).filter(|p| p % 7 == 3 && p % 5 != 0).collect();
                let query = query(&relevant, &junk);
                let order = Order::random(n, 9, round);
                // The one measure that sees ranks and grades.
                let measure = Measure::NdcgAt(10);
                let points = MixedRow::new(&query, &old, &new).walk(&order.first_steps(), measure);
                for (step, point) in points.iter().enumerate() {
                    let mut mixed = old.clone();
                    for &p in &order.positions()[..order.items_at(step)] {
                        mixed[p as usize] = new[p as usize];
                    }
                    let ranking = Ranking::new(&query, &mut mixed);
                    let expected = measures::evaluate(measure, &ranking.ranks(), &ranking.grades());
                    assert_eq!(point.value, expected, "n {n} round {round} step {step}");
                    assert_eq!(point.right, ranking.first_rank() == 1);
                }
            }
        }
    }

    #[test]
    fn prefixes_are_nested_and_end_with_the_whole_gallery() {
        for n in [1, 3, 19, 20, 738] {
            let order = Order::random(n, 1, 0);
            assert_eq!((order.items_at(0), order.items_at(STEPS)), (0, n));
            let first = order.first_steps();
            for step in 0..=STEPS {
                let refreshed = first.iter().filter(|&&s| usize::from(s) <= step).count();
                assert_eq!(refreshed, order.items_at(step), "n {n} step {step}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "once")]
    fn an_order_that_repeats_a_position_is_refused() {
        Order::new(vec![0, 0]);
    }
}
