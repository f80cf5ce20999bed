//! Candidate thresholds around a false-accept rate, and what each identity's pairs do at them.

use crate::domain::Estimate;
use crate::stats::{Bootstrap, functional_estimates};

/// The highest candidate that accepts the score; `None` when none does.
fn step(candidates: &[f32], score: f32) -> Option<usize> {
    candidates
        .partition_point(|&candidate| candidate <= score)
        .checked_sub(1)
}

/// A threshold between two candidates.
#[derive(Clone, Copy)]
struct Place {
    /// The upper one.
    candidate: usize,
    /// How far below it, as a share of the way to the lower one; 0 where there is none.
    below: f64,
}

/// Per identity: pairs, false accepts and false rejects at each candidate threshold. Counts are whole numbers in f64, so no
/// sum of them depends on its order.
pub struct TransferCounts {
    candidates: Vec<f32>,
    /// Non-matching pairs of each identity.
    pub non_matches: Vec<f64>,
    /// Matching pairs of each identity.
    pub matches: Vec<f64>,
    /// `[side][candidate * identities + identity]`: non-matches at or above the candidate.
    accepted: [Vec<f64>; 2],
    /// The same of matches whose lowest rejecting candidate it is, new->old less old->old, until they are summed up.
    rejected: Vec<f64>,
}

impl TransferCounts {
    /// No pairs yet; the candidate thresholds ascend.
    pub fn new(n_identities: usize, candidates: Vec<f32>) -> Self {
        let cells = candidates.len() * n_identities;
        Self {
            candidates,
            non_matches: vec![0.0; n_identities],
            matches: vec![0.0; n_identities],
            accepted: [vec![0.0; cells], vec![0.0; cells]],
            rejected: vec![0.0; cells],
        }
    }

    /// Adds one query's numbers of pairs.
    pub fn add_query(&mut self, identity: usize, non_matches: usize, matches: usize) {
        self.non_matches[identity] += non_matches as f64;
        self.matches[identity] += matches as f64;
    }

    /// Adds one query's non-matches at or above each candidate; side 0 is old->old, 1 new->old.
    pub fn add_non_matches(&mut self, side: usize, identity: usize, at_or_above: &[u32]) {
        let identities = self.non_matches.len();
        for (candidate, &count) in at_or_above.iter().enumerate() {
            self.accepted[side][candidate * identities + identity] += f64::from(count);
        }
    }

    /// Adds the scores of one query's matches.
    pub fn add_matches(&mut self, side: usize, identity: usize, scores: impl Iterator<Item = f32>) {
        let sign = if side == 0 { -1.0 } else { 1.0 };
        for score in scores {
            let lowest_rejecting = step(&self.candidates, score).map_or(0, |step| step + 1);
            if lowest_rejecting < self.candidates.len() {
                self.rejected[lowest_rejecting * self.non_matches.len() + identity] += sign;
            }
        }
    }

    /// FAR(new->old), and FRR(new->old) - FRR(old->old), where FAR(old->old) is `far`, read between two candidates on a straight line;
    /// `exact` are both at the threshold itself.
    ///
    /// The influence of identity g on a rate T at the threshold t is that at a fixed t, less dT/dFAR(old->old) times its influence on
    /// FAR(old->old): what resampling g does to the threshold. The slope is a secant over one standard error of
    /// FAR(old->old) to either side.
    pub fn estimates(
        &self,
        far: f64,
        exact: [f64; 2],
        level: f64,
        bootstrap: &Bootstrap,
    ) -> [Estimate; 2] {
        let ones = vec![1.0; self.non_matches.len()];
        let (at, values) = self.at(far, &ones);
        let (n, m): (f64, f64) = (self.non_matches.iter().sum(), self.matches.iter().sum());
        let old = self.row_at(&self.accepted[0], at);
        let accepted: f64 = old.iter().sum();
        let on_old: Vec<f64> = old
            .iter()
            .zip(&self.non_matches)
            .map(|(accepted_g, n_g)| (accepted_g - accepted / n * n_g) / n)
            .collect();
        let spread = on_old.iter().map(|u| u * u).sum::<f64>().sqrt() * n / accepted.max(1.0);
        // Under 5 % the secant would rest on a handful of candidates; at 100 % it would reach the largest score.
        let slopes = self.slopes(accepted, spread.clamp(0.05, 0.9));
        let rates: [(Vec<f64>, &[f64], f64); 2] = [
            (self.row_at(&self.accepted[1], at), &self.non_matches, n),
            (self.row_at(&self.rejected, at), &self.matches, m),
        ];
        let influence: [Vec<f64>; 2] = std::array::from_fn(|i| {
            let (counts, pairs, total) = (&rates[i].0, rates[i].1, rates[i].2);
            let own = counts.iter().zip(pairs).zip(&on_old);
            own.map(|((count, pairs), on_old)| {
                (count - values[i] * pairs) / total - slopes[i] * on_old
            })
            .collect()
        });
        let replicate = |weights: &[f64]| {
            let found = self.at(far, weights).1;
            std::array::from_fn(|i| found[i] + (exact[i] - values[i]))
        };
        functional_estimates(exact, &influence, replicate, level, bootstrap)
    }

    /// Turns matches rejected first at a candidate into matches rejected by it, once all are added.
    pub fn accumulated(mut self) -> Self {
        let g = self.non_matches.len();
        for cell in g..self.rejected.len() {
            self.rejected[cell] += self.rejected[cell - g];
        }
        self
    }

    fn row<'a>(&self, table: &'a [f64], candidate: usize) -> &'a [f64] {
        let g = self.non_matches.len();
        &table[candidate * g..(candidate + 1) * g]
    }

    /// Where a weighted FAR(old->old) is `far`, and both rates there.
    fn at(&self, far: f64, weights: &[f64]) -> (Place, [f64; 2]) {
        let n = dot(weights, &self.non_matches);
        let accepted = |candidate: usize| dot(weights, self.row(&self.accepted[0], candidate));
        let (mut low, mut high) = (0, self.candidates.len() - 1);
        while low < high {
            let middle = (low + high) / 2;
            if accepted(middle) > far * n {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut place = Place {
            candidate: low,
            below: 0.0,
        };
        if low > 0 {
            let (more, fewer) = (accepted(low - 1), accepted(low));
            // The highest candidate may accept more than the rate, too.
            place.below = ((far * n - fewer) / (more - fewer)).max(0.0);
        }
        let read = |table: &[f64]| {
            let at = dot(weights, self.row(table, low));
            if place.below == 0.0 {
                return at;
            }
            at + place.below * (dot(weights, self.row(table, low - 1)) - at)
        };
        let (accepted, rejected) = (read(&self.accepted[1]), read(&self.rejected));
        let m = dot(weights, &self.matches);
        (place, [accepted / n, rejected / m])
    }

    /// Each identity's count at a place.
    fn row_at(&self, table: &[f64], place: Place) -> Vec<f64> {
        let at = self.row(table, place.candidate);
        if place.below == 0.0 {
            return at.to_vec();
        }
        let below = self.row(table, place.candidate - 1);
        let between = |(at, below): (&f64, &f64)| at + place.below * (below - at);
        at.iter().zip(below).map(between).collect()
    }

    /// d rate / d FAR(old->old) of both rates, between the candidates that accept `1 + span` and `1 - span` times `accepted`.
    fn slopes(&self, accepted: f64, span: f64) -> [f64; 2] {
        let total = |table: &[f64], candidate| self.row(table, candidate).iter().sum::<f64>();
        let old: Vec<f64> = (0..self.candidates.len())
            .map(|candidate| total(&self.accepted[0], candidate))
            .collect();
        let low = old
            .partition_point(|&count| count >= accepted * (1.0 + span))
            .saturating_sub(1);
        let high = old
            .partition_point(|&count| count > accepted * (1.0 - span))
            .min(old.len() - 1);
        let run = old[low] - old[high];
        if run == 0.0 {
            return [0.0; 2];
        }
        let (n, m): (f64, f64) = (self.non_matches.iter().sum(), self.matches.iter().sum());
        let rise = |table: &[f64]| (total(table, low) - total(table, high)) / run;
        [rise(&self.accepted[1]), rise(&self.rejected) * n / m]
    }
}

/// Inner product in eight chains; the terms are whole numbers below 2^53, so their order is free.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a8.zip(b8) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Every so many sorted old scores there is a candidate.
    const SCORES_A_STEP: usize = 20;

    /// One identity's scores: old and new, of non-matches and of matches.
    #[derive(Clone)]
    struct Scores {
        non_matches: [Vec<f32>; 2],
        matches: [Vec<f32>; 2],
    }

    /// A standard normal draw (Box and Muller).
    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        let (u, v): (f64, f64) = (rng.gen_range(1e-300..1.0), rng.gen_range(0.0..1.0));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Standard deviation of an identity's own shift of its non-matching scores: some faces look like many others.
    const SHIFT: f64 = 0.3;
    /// Correlation of a pair's old and new score.
    const CORRELATION: f64 = 0.8;
    /// How much further the new model's non-matches reach.
    const REACH: f64 = 0.1;

    fn world(identities: usize, pairs: usize, seed: u64) -> Vec<Scores> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..identities)
            .map(|_| {
                let shift = SHIFT * normal(&mut rng);
                let mut pair = |mean: f64, n: usize, reach: f64| {
                    let draws: Vec<[f32; 2]> = (0..n)
                        .map(|_| {
                            let (a, b) = (normal(&mut rng), normal(&mut rng));
                            let b = CORRELATION * a + (1.0 - CORRELATION * CORRELATION).sqrt() * b;
                            [(mean + a) as f32, (mean + reach + b) as f32]
                        })
                        .collect();
                    [0, 1].map(|side| draws.iter().map(|draw| draw[side]).collect::<Vec<f32>>())
                };
                Scores {
                    non_matches: pair(shift, pairs, REACH),
                    matches: pair(3.0, 4, -0.2),
                }
            })
            .collect()
    }

    /// What the pass and `TransferPairs` do, on scores at hand.
    fn transfer(world: &[Scores], far: f64, bootstrap: &Bootstrap) -> [Estimate; 2] {
        let old = world.iter().flat_map(|scores| &scores.non_matches[0]);
        let mut sorted: Vec<f32> = old.copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let mut candidates: Vec<f32> = sorted.iter().copied().step_by(SCORES_A_STEP).collect();
        candidates.push(sorted[sorted.len() - 1].next_up());
        let mut counts = TransferCounts::new(world.len(), candidates.clone());
        for (identity, scores) in world.iter().enumerate() {
            let pairs = (scores.non_matches[0].len(), scores.matches[0].len());
            counts.add_query(identity, pairs.0, pairs.1);
            for side in [0, 1] {
                let at_or_above = |candidate: &f32| {
                    let scores = scores.non_matches[side].iter();
                    scores.filter(|&score| score >= candidate).count() as u32
                };
                let at_or_above: Vec<u32> = candidates.iter().map(at_or_above).collect();
                counts.add_non_matches(side, identity, &at_or_above);
                counts.add_matches(side, identity, scores.matches[side].iter().copied());
            }
        }
        let exact = naive(world, far, &vec![1.0; world.len()]);
        counts.accumulated().estimates(far, exact, 0.9, bootstrap)
    }

    /// Both rates at the smallest observed old score with a weighted FAR <= `far`, keeping and sorting all scores.
    fn naive(world: &[Scores], far: f64, weights: &[f64]) -> [f64; 2] {
        let all = |kind: fn(&Scores) -> &Vec<f32>| -> Vec<(f32, f64)> {
            let weighted = world.iter().zip(weights).filter(|(_, w)| **w > 0.0);
            weighted
                .flat_map(|(scores, &w)| kind(scores).iter().map(move |&score| (score, w)))
                .collect()
        };
        let rate = |scores: &[(f32, f64)], is: &dyn Fn(f32) -> bool| {
            let total: f64 = scores.iter().map(|(_, w)| w).sum();
            let hits = scores.iter().filter(|(score, _)| is(*score));
            hits.map(|(_, w)| w).sum::<f64>() / total
        };
        let mut old = all(|scores| &scores.non_matches[0]);
        old.sort_by(|a, b| b.0.total_cmp(&a.0));
        let total: f64 = old.iter().map(|(_, w)| w).sum();
        let mut accepted = 0.0;
        let rejected = old.iter().find(|(_, w)| {
            accepted += w;
            accepted > far * total
        });
        let rejected = rejected.expect("a rate below 1").0;
        let matches = all(|scores| &scores.matches[0]);
        let observed = old.iter().chain(&matches).map(|&(score, _)| score);
        let threshold = observed
            .filter(|&score| score > rejected)
            .min_by(f32::total_cmp)
            .expect("a match above");
        let at = |kind| rate(&all(kind), &|score| score >= threshold);
        let frr = |kind| rate(&all(kind), &|score| score < threshold);
        [
            at(|scores| &scores.non_matches[1]),
            frr(|scores| &scores.matches[1]) - frr(|scores| &scores.matches[0]),
        ]
    }

    #[test]
    fn the_grid_agrees_with_the_naive_twin() {
        let (world, far) = (world(120, 150, 1), 0.02);
        let bootstrap = Bootstrap {
            replicates: 400,
            seed: 5,
        };
        let found = transfer(&world, far, &bootstrap);
        let values = naive(&world, far, &vec![1.0; world.len()]);
        // The grid's influence decides acceleration and standard error; the replicates are the twin's own.
        let influence = [0, 1].map(|_| vec![1e-9; world.len()]);
        let twin = functional_estimates(
            values,
            &influence,
            |weights| naive(&world, far, weights),
            0.9,
            &bootstrap,
        );
        for (found, twin) in found.iter().zip(&twin) {
            assert!((found.value - twin.value).abs() < 1e-12);
            // The twin has no acceleration to speak of, and no linearised end.
            let width = twin.upper - twin.lower;
            for (found, twin) in [(found.lower, twin.lower), (found.upper, twin.upper)] {
                assert!(
                    (found - twin).abs() < 0.15 * width,
                    "{found} {twin} of {width}"
                );
            }
            let standard_error = width / (2.0 * 1.645);
            assert!(
                (found.standard_error / standard_error - 1.0).abs() < 0.15,
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_model_against_itself_keeps_its_rate_without_any_doubt() {
        let mut world = world(110, 100, 2);
        for scores in &mut world {
            scores.non_matches[1] = scores.non_matches[0].clone();
            scores.matches[1] = scores.matches[0].clone();
        }
        let [far, rise] = transfer(&world, 0.02, &Bootstrap::default());
        assert!(far.value <= 0.02 && far.lower == far.value && far.upper == far.value);
        assert_eq!((rise.value, rise.lower, rise.upper), (0.0, 0.0, 0.0));
    }

    /// The one-sided 95 % bounds of FAR and of the rise cover the truth in 95 % of samples (`--nocapture` shows the shares).
    #[test]
    fn bounds_cover_as_often_as_they_say() {
        let (runs, far) = (240, 0.02);
        // The truth, from the distribution the world is drawn from: scores are normal with these deviations.
        let spread = (1.0 + SHIFT * SHIFT).sqrt();
        let normal = statrs::distribution::Normal::standard();
        use statrs::distribution::ContinuousCDF;
        let threshold = spread * normal.inverse_cdf(1.0 - far);
        let true_far = 1.0 - normal.cdf((threshold - REACH) / spread);
        let true_rise = normal.cdf(threshold - 2.8) - normal.cdf(threshold - 3.0);
        let mut covered = [0; 4];
        for run in 0..runs {
            let bootstrap = Bootstrap {
                replicates: 400,
                seed: run,
            };
            let [found, rise] = transfer(&world(150, 80, 1_000 + run), far, &bootstrap);
            let sides = [
                true_far <= found.upper,
                found.lower <= true_far,
                true_rise <= rise.upper,
                rise.lower <= true_rise,
            ];
            for (covered, side) in covered.iter_mut().zip(sides) {
                *covered += u32::from(side);
            }
        }
        for (bound, covered) in ["FAR upper", "FAR lower", "rise upper", "rise lower"]
            .iter()
            .zip(covered)
        {
            let share = f64::from(covered) / runs as f64;
            println!("{bound}: {share:.3}");
            // Three binomial standard errors of 240 runs at .95 are .042; each end is the farther of two, so more is fair.
            assert!(share > 0.95 - 0.042, "{bound}: {share}");
        }
    }
}
