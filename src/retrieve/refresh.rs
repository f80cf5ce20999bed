//! The refresh curve: what new queries find while the gallery is re-embedded step by step.
//!
//! At a share beta the first beta * N items of an order hold new embeddings and the others still old ones,
//! M(new->mixed(beta)). Hot-refresh can be worse in between than at both ends, so every step is evaluated
//! (`docs/METRICS.md`, section 3).

mod order;

use rayon::prelude::*;

use crate::config::Similarity;
use crate::domain::{Embeddings, Measure};
use crate::topk::{Gallery, QueryScan, ScoreOverflow, TOGETHER, Visitor, scan_one, score_some};

use super::counts::{NonMatchMask, reached_by_each};
use super::measures;
use super::protocol::{Protocol, QueryProtocol};
use super::search::{Companion, Companions};

pub use order::{FirstSteps, Order};

/// Steps from beta = 0 to beta = 1: 5 % of the gallery each.
pub const STEPS: usize = 20;

/// Random orders that the plan's order is compared with.
pub const RANDOM_ORDERS: usize = 5;

/// What every query finds at every step, for one order of the gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// `values[step][query]`: the measure under new->mixed(step / STEPS), ties against the query.
    pub values: Vec<Vec<f64>>,
    /// `right[step][query]`: whether the first hit is relevant there.
    pub right: Vec<Vec<bool>>,
}

/// Bytes of counts that are held at a time; queries beyond wait for another pass over the galleries.
const COUNT_BYTES: usize = 192 << 20;

/// New queries against a gallery that is re-embedded in several orders.
///
/// An item counts with its old score until the step at which it is re-embedded, and with its new score from then on, so
/// the two galleries can pass one after the other.
pub struct Refresh<'a> {
    protocol: &'a Protocol,
    /// Old, new.
    galleries: [Gallery<'a>; 2],
    similarity: Similarity,
    measure: Measure,
    first_steps: FirstSteps,
    /// See [`COUNT_BYTES`].
    count_bytes: usize,
}

impl<'a> Refresh<'a> {
    /// Both models' dimensions must agree and every gallery item must have both embeddings.
    pub fn new(
        protocol: &'a Protocol,
        models: [&'a Embeddings; 2],
        similarity: Similarity,
        measure: Measure,
        first_steps: FirstSteps,
    ) -> Self {
        Self {
            protocol,
            galleries: models.map(|embeddings| Gallery {
                embeddings,
                items: protocol.gallery(),
            }),
            similarity,
            measure,
            first_steps,
            count_bytes: COUNT_BYTES,
        }
    }

    /// One curve an order. `pass_new` makes a pass of its own over the new gallery in which the companions hear the scores
    /// of the first new queries; what it returns is returned.
    ///
    /// Each gallery passes once, and again for the queries whose counts find no room in 192 MB.
    ///
    /// # Errors
    /// A score that overflows f32.
    pub fn curves<T>(
        &self,
        pass_new: impl FnOnce(Companions<'_>) -> Result<T, ScoreOverflow>,
    ) -> Result<(Vec<Curve>, T), ScoreOverflow> {
        let mut first = self.pass_old(self.protocol.queries())?;
        let n_first = first.len();
        let companions = first.iter_mut().map(|counts| Some(counts as Companion<'_>));
        let passed = pass_new(companions.collect())?;
        let mut points = self.points(first);
        let mut rest = &self.protocol.queries()[n_first..];
        while !rest.is_empty() {
            let mut counts = self.pass_old(rest)?;
            rest = &rest[counts.len()..];
            self.pass(self.galleries[1], &mut counts)?;
            points.extend(self.points(counts));
        }
        let curve = |order: usize| {
            let at = |step: usize| points.iter().map(move |query| query[order][step]);
            Curve {
                values: (0..=STEPS)
                    .map(|step| at(step).map(|point| point.value).collect())
                    .collect(),
                right: (0..=STEPS)
                    .map(|step| at(step).map(|point| point.right).collect())
                    .collect(),
            }
        };
        Ok(((0..self.first_steps.n_orders).map(curve).collect(), passed))
    }

    /// Counts for as many of the queries as find room, at least one; the old gallery has passed.
    fn pass_old<'s>(
        &'s self,
        queries: &'s [QueryProtocol],
    ) -> Result<Vec<MixedCounts<'s>>, ScoreOverflow> {
        let mut bytes = 0;
        let fits = queries.iter().take_while(|query| {
            bytes += (1 + self.first_steps.n_orders * STEPS) * levels(query) * size_of::<i32>();
            bytes <= self.count_bytes
        });
        let together = &queries[..fits.count().clamp(1.min(queries.len()), queries.len())];
        let new = self.galleries[1].embeddings;
        let counts = together.par_iter().map(|query| {
            let scores = self.galleries.map(|gallery| {
                score_some(new, query.item, gallery, &query.relevant, self.similarity)
            });
            MixedCounts::new(query, scores, &self.first_steps)
        });
        let mut counts: Vec<MixedCounts<'_>> = counts.collect();
        self.pass(self.galleries[0], &mut counts)?;
        counts.par_iter_mut().for_each(MixedCounts::begin_new);
        Ok(counts)
    }

    fn pass(
        &self,
        gallery: Gallery<'_>,
        counts: &mut Vec<MixedCounts<'_>>,
    ) -> Result<(), ScoreOverflow> {
        let items: Vec<usize> = counts.iter().map(|counts| counts.query.item).collect();
        let queries = QueryScan {
            embeddings: self.galleries[1].embeddings,
            items: &items,
            visitors: std::mem::take(counts),
        };
        *counts = scan_one(gallery, self.similarity, queries)?;
        Ok(())
    }

    /// Each query's walk through every order.
    fn points(&self, counts: Vec<MixedCounts<'_>>) -> Vec<Vec<Vec<Point>>> {
        let walks = |counts: MixedCounts<'_>| {
            let walk = |order| counts.walk(order, self.measure);
            (0..self.first_steps.n_orders).map(walk).collect()
        };
        counts.into_par_iter().map(walks).collect()
    }
}

/// One query at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    value: f64,
    right: bool,
}

/// How many of the query's thresholds, its relevant items' scores under both galleries, a score can reach: none to all.
fn levels(query: &QueryProtocol) -> usize {
    2 * query.relevant.len() + 1
}

/// One query's non-relevant scores, counted by how many thresholds they reach and by the step at which that changes.
struct MixedCounts<'a> {
    query: &'a QueryProtocol,
    first_steps: &'a FirstSteps,
    relevant: Vec<MixedRelevant>,
    /// The relevant items' scores under both galleries, ascending.
    thresholds: Vec<f32>,
    /// `[level]`: old scores of non-relevant items that reach exactly so many thresholds. Level 0 is not counted.
    old: Vec<i32>,
    /// `[level][order][step - 1]`: by how much that number rises at the step.
    rises: Vec<i32>,
    mask: NonMatchMask<'a>,
    /// Which gallery passes.
    on_new: bool,
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

impl<'a> MixedCounts<'a> {
    /// `scores` are those of the query's relevant items under the old and the new gallery.
    fn new(query: &'a QueryProtocol, scores: [Vec<f32>; 2], first_steps: &'a FirstSteps) -> Self {
        let mut thresholds = scores.concat();
        thresholds.sort_unstable_by(f32::total_cmp);
        // A threshold's own index is the last of its equals.
        let index = |score: f32| thresholds.partition_point(|&t| t <= score) - 1;
        let relevant = query.relevant.iter().enumerate();
        let relevant = relevant.map(|(i, &position)| MixedRelevant {
            position,
            on_old: index(scores[0][i]),
            on_new: index(scores[1][i]),
            grade: query.grades.get(i).copied().unwrap_or(1),
        });
        Self {
            relevant: relevant.collect(),
            old: vec![0; levels(query)],
            rises: vec![0; first_steps.n_orders * STEPS * levels(query)],
            thresholds,
            mask: NonMatchMask::new(&query.junk, &query.relevant),
            on_new: false,
            query,
            first_steps,
        }
    }

    /// The old gallery has passed; the new one is next.
    fn begin_new(&mut self) {
        self.mask = NonMatchMask::new(&self.query.junk, &self.query.relevant);
        self.on_new = true;
    }

    /// Counts a score that reaches so many thresholds.
    fn count(&mut self, position: usize, level: usize) {
        let n_orders = self.first_steps.n_orders;
        let of_level = level * n_orders * STEPS;
        let rises = &mut self.rises[of_level..of_level + n_orders * STEPS];
        let rise = if self.on_new { 1 } else { -1 };
        if !self.on_new {
            self.old[level] += 1;
        }
        let orders = rises.chunks_exact_mut(STEPS);
        for (rises, &step) in orders.zip(self.first_steps.of(position)) {
            rises[usize::from(step) - 1] += rise;
        }
    }

    /// The query at every step of an order.
    fn walk(&self, order: usize, measure: Measure) -> Vec<Point> {
        let levels = levels(self.query);
        let n_orders = self.first_steps.n_orders;
        let mut rivals_of: Vec<i64> = self.old.iter().copied().map(i64::from).collect();
        let mut at_or_above = vec![0_u64; levels];
        (0..=STEPS)
            .map(|step| {
                for (level, count) in rivals_of.iter_mut().enumerate().filter(|_| step > 0) {
                    let at = (level * n_orders + order) * STEPS + step - 1;
                    *count += i64::from(self.rises[at]);
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
                        let first_step = self.first_steps.of(item.position as usize)[order];
                        let refreshed = usize::from(first_step) <= step;
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

impl Visitor for MixedCounts<'_> {
    type Shared = ();

    fn floor(&self) -> f32 {
        self.thresholds[0]
    }

    fn visit(&mut self, (): &mut (), first: usize, row: &mut [f32]) {
        self.mask.apply(first, row);
        for (number, chunk) in row.chunks(TOGETHER).enumerate() {
            let mut scores = [f32::NAN; TOGETHER];
            scores[..chunk.len()].copy_from_slice(chunk);
            // NaN reaches nothing.
            let some = scores.iter().filter(|&&score| score >= self.thresholds[0]);
            let levels = match some.count() {
                0 => continue,
                1..=3 => scores.map(|score| {
                    if score >= self.thresholds[0] {
                        self.thresholds.partition_point(|&t| t <= score)
                    } else {
                        0
                    }
                }),
                _ => reached_by_each(&scores, &self.thresholds),
            };
            for (lane, level) in levels.into_iter().enumerate() {
                if level > 0 {
                    self.count(first + number * TOGETHER + lane, level);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::rank::Ranking;
    use super::*;
    use crate::structure::testing::probe_of;

    fn query(relevant: &[u32], junk: &[u32]) -> QueryProtocol {
        QueryProtocol {
            item: 0,
            identity: 0,
            relevant: relevant.to_vec(),
            grades: (0..relevant.len() as u32).map(|i| 1 + i % 3).collect(),
            junk: junk.to_vec(),
        }
    }

    fn first_steps(orders: &[Order]) -> FirstSteps {
        let n = orders[0].positions().len();
        FirstSteps::new(n, orders.len(), orders.iter().map(Cow::Borrowed))
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
                let first_steps = first_steps(std::slice::from_ref(&order));
                let scores = [&old, &new]
                    .map(|row| query.relevant.iter().map(|&p| row[p as usize]).collect());
                let mut counts = MixedCounts::new(&query, scores, &first_steps);
                for (row, on_new) in [(&old, false), (&new, true)] {
                    if on_new {
                        counts.begin_new();
                    }
                    for (i, row) in row.chunks(16).enumerate() {
                        counts.visit(&mut (), 16 * i, &mut row.to_vec());
                    }
                }
                let points = counts.walk(0, measure);
                for (step, point) in points.iter().enumerate() {
                    let mut mixed = old.clone();
                    for &p in &order.positions()[..order.items_at(step)] {
                        mixed[p as usize] = new[p as usize];
                    }
                    let ranking = Ranking::by_sorting(&query, &mixed);
                    let expected = measures::evaluate(measure, &ranking.ranks(), &ranking.grades());
                    assert_eq!(point.value, expected, "n {n} round {round} step {step}");
                    assert_eq!(point.right, ranking.first_rank() == 1);
                }
            }
        }
    }

    /// All queries at once or one after the other, as companions or in passes of their own: the curves are the same.
    #[test]
    fn curves_do_not_depend_on_the_room_for_counts() {
        let labels: Vec<u32> = (0..60).map(|i| i % 12).collect();
        let probe = probe_of(&labels);
        let protocol = Protocol::new(&probe, &[]);
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let mut model = || {
            let rows = ndarray::Array2::from_shape_fn((60, 8), |_| rng.gen_range(-1.0..1.0_f32));
            Embeddings::dense(rows, true).unwrap()
        };
        let (old, new) = (model(), model());
        let orders = [Order::random(60, 1, 0), Order::random(60, 1, 1)];
        let curves = |count_bytes: usize| {
            let mut refresh = Refresh::new(
                &protocol,
                [&old, &new],
                Similarity::Cosine,
                Measure::MeanAveragePrecision,
                first_steps(&orders),
            );
            refresh.count_bytes = count_bytes;
            let positions: Vec<u32> = (0..60).collect();
            let pass = |companions: Companions<'_>| {
                let n = companions.len();
                for (companion, query) in companions.into_iter().zip(protocol.queries()) {
                    let gallery = refresh.galleries[1];
                    let similarity = Similarity::Cosine;
                    let mut row = score_some(&new, query.item, gallery, &positions, similarity);
                    companion.expect("one a query").visit(&mut (), 0, &mut row);
                }
                Ok(n)
            };
            refresh.curves(pass).unwrap()
        };
        let (at_once, n_first) = curves(COUNT_BYTES);
        assert_eq!(n_first, 60);
        let (one_by_one, n_first) = curves(1);
        assert_eq!(n_first, 1);
        assert_eq!(at_once, one_by_one);
        assert_ne!(at_once[0], at_once[1]);
        assert_eq!(at_once[0].values[STEPS], at_once[1].values[STEPS]);
    }
}
