//! The estimates that the checks are made of, from the rankings of stage 4.

use crate::config::Policy;
use crate::domain::{Estimate, Measure, Pairing};
use crate::retrieve::protocol::Protocol;
use crate::retrieve::{Evaluation, Retrieval, n_distinct};
use crate::stats::{self, Bootstrap, ClusterSums};

/// The measure that decides.
pub const PRIMARY: Measure = Measure::MeanAveragePrecision;

/// Share of the distance between the working and the shuffled model that a margin may be.
const LARGEST_MARGIN_SHARE: f64 = 0.2;

/// Power at which the resolvable margin is stated.
const POWER: f64 = 0.8;

/// Bootstrap replicates of every interval.
const REPLICATES: usize = 10_000;

/// Permutations of the asymmetry test.
const SIGN_FLIPS: usize = 10_000;

/// How every interval of an audit is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intervals {
    /// Two-sided level, 1 - 2 alpha: each end is a one-sided bound at 1 - alpha.
    pub level: f64,
    /// Replicates and seed.
    pub bootstrap: Bootstrap,
}

impl Intervals {
    /// The intervals that a policy asks for.
    pub fn new(policy: &Policy, seed: u64) -> Self {
        Self {
            level: 1.0 - 2.0 * policy.alpha,
            bootstrap: Bootstrap {
                replicates: REPLICATES,
                seed,
            },
        }
    }

    /// Mean over queries, resampled by identity.
    pub fn mean(&self, values: &[f64], identities: &[u32]) -> Estimate {
        stats::mean_estimate(
            &ClusterSums::new(values, identities),
            self.level,
            &self.bootstrap,
        )
    }
}

/// What the judge looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Evaluated queries.
    pub n_queries: usize,
    /// Their identities.
    pub n_query_identities: usize,
    /// Largest identity's share of the queries.
    pub dominant_share: f64,
    /// Dimensions of the old and the new model.
    pub dims: [usize; 2],
    /// Same model hash and preprocessing.
    pub same_model: bool,
    /// Can the probe judge.
    pub assay: Assay,
    /// D; `None` without new->old.
    pub change: Option<Change>,
    /// W; `None` without new->new.
    pub worth: Option<Estimate>,
    /// G; `None` when undefined or not tested.
    pub gain: Option<Estimate>,
    /// Flips; `None` without new->old.
    pub flips: Option<Flips>,
    /// D on the gallery without its least credible items; `None` when not tested.
    pub change_without_least_credible: Option<Estimate>,
}

/// Assay sensitivity of the probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assay {
    /// M(old->old).
    pub old_old: Estimate,
    /// Mean of M(old->old) over the label permutations.
    pub shuffled: f64,
    /// Permutations.
    pub permutations: usize,
    /// (1 + #{permuted >= observed}) / (1 + permutations).
    pub p_value: f64,
    /// .2 * (lower bound of old->old - shuffled).
    pub largest_margin: f64,
    /// 1 - .05^(1/identities).
    pub blind_share: f64,
}

/// The cross-test change D = M(new->old) - M(old->old).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Ties counted against the query in both pairings.
    pub estimate: Estimate,
    /// Ties counted in the query's favour in both.
    pub optimistic: Estimate,
    /// Mean over identities of their mean change.
    pub identity_weighted: f64,
    /// Loss that would be found with power .8 at the policy's alpha.
    pub resolvable_margin: f64,
}

/// CMC@1 flips between old->old and new->old.
#[derive(Debug, Clone, PartialEq)]
pub struct Flips {
    /// One a query.
    pub per_query: Vec<Flip>,
    /// Share of negative flips.
    pub negative: Estimate,
    /// Share of positive flips.
    pub positive: Estimate,
    /// Share of excess flips; `None` without new->new.
    pub excess: Option<Estimate>,
    /// p-value of the cluster sign-flip test.
    pub asymmetry_p: f64,
}

/// One query's CMC@1 under the pairings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// Right under old->old.
    pub old_old: bool,
    /// Right under new->old.
    pub new_old: bool,
    /// Right under new->new, when tested.
    pub new_new: Option<bool>,
}

impl Flip {
    /// Right today, wrong if the backfill is skipped.
    pub fn is_negative(self) -> bool {
        self.old_old && !self.new_old
    }

    /// Wrong today, right after.
    pub fn is_positive(self) -> bool {
        !self.old_old && self.new_old
    }

    /// A negative flip that a backfill would heal: the fault of skipping, not of upgrading.
    pub fn is_excess(self) -> bool {
        self.is_negative() && self.new_new == Some(true)
    }
}

impl Evidence {
    /// Collects the evidence. The retrieval must have at least one evaluated query.
    ///
    /// `credible` is old->old and new->old on the gallery without its least credible items.
    pub fn collect(
        retrieval: &Retrieval,
        credible: Option<&(Protocol, [Evaluation; 2])>,
        dims: [usize; 2],
        same_model: bool,
        policy: &Policy,
        seed: u64,
    ) -> Self {
        let intervals = Intervals::new(policy, seed);
        let identities = retrieval.protocol.query_identities();
        let pairing = |pairing: Pairing| retrieval.evaluations.get(&pairing);
        let old_old = pairing(Pairing::OLD_OLD).expect("old->old always exists");
        let today = old_old.per_query(PRIMARY);
        let cross = pairing(Pairing::NEW_OLD);
        let refreshed = pairing(Pairing::NEW_NEW);
        let worth_values = refreshed.map(|new| difference(&new.per_query(PRIMARY), &today));
        let change_values = cross.map(|cross| difference(&cross.per_query(PRIMARY), &today));
        let worth = worth_values
            .as_ref()
            .map(|values| intervals.mean(values, &identities));
        let counts = ClusterSums::new(&today, &identities);
        Self {
            n_queries: identities.len(),
            n_query_identities: n_distinct(identities.clone()),
            dominant_share: stats::dominant_share(&counts),
            dims,
            same_model,
            assay: Assay::new(&intervals, &today, &identities, &retrieval.shuffled),
            change: cross.zip(change_values.as_ref()).map(|(cross, values)| {
                let optimistic = difference(
                    &cross.per_query_optimistic(PRIMARY),
                    &old_old.per_query_optimistic(PRIMARY),
                );
                let sums = ClusterSums::new(values, &identities);
                Change {
                    estimate: intervals.mean(values, &identities),
                    optimistic: intervals.mean(&optimistic, &identities),
                    identity_weighted: stats::identity_weighted_mean(&sums),
                    resolvable_margin: stats::resolvable_margin(&sums, policy.alpha, POWER),
                }
            }),
            worth,
            gain: change_values
                .as_ref()
                .zip(worth_values.as_ref())
                .and_then(|(change, worth)| {
                    stats::ratio_estimate(
                        &ClusterSums::new(change, &identities),
                        &ClusterSums::new(worth, &identities),
                        intervals.level,
                        &intervals.bootstrap,
                    )
                })
                // A share of a loss would read as a gain.
                .filter(|_| worth.is_some_and(|worth| worth.lower > 0.0)),
            flips: cross.zip(change_values.as_ref()).map(|(cross, change)| {
                Flips::new(&intervals, old_old, cross, refreshed, change, &identities)
            }),
            // Without any query left there is nothing to say.
            change_without_least_credible: credible
                .filter(|(kept, _)| !kept.queries().is_empty())
                .map(|(protocol, [old_old, new_old])| {
                    let change =
                        difference(&new_old.per_query(PRIMARY), &old_old.per_query(PRIMARY));
                    intervals.mean(&change, &protocol.query_identities())
                }),
        }
    }
}

impl Assay {
    fn new(intervals: &Intervals, today: &[f64], identities: &[u32], shuffled: &[f64]) -> Self {
        let old_old = intervals.mean(today, identities);
        let mean = shuffled.iter().sum::<f64>() / shuffled.len() as f64;
        Self {
            old_old,
            shuffled: mean,
            permutations: shuffled.len(),
            p_value: stats::permutation_p(old_old.value, shuffled),
            largest_margin: LARGEST_MARGIN_SHARE * (old_old.lower - mean),
            blind_share: stats::blind_share(n_distinct(identities.to_vec())),
        }
    }
}

impl Flips {
    fn new(
        intervals: &Intervals,
        old_old: &Evaluation,
        new_old: &Evaluation,
        new_new: Option<&Evaluation>,
        change: &[f64],
        identities: &[u32],
    ) -> Self {
        let right = |evaluation: &Evaluation| -> Vec<bool> {
            evaluation
                .rankings
                .iter()
                .map(|ranking| ranking.first_rank() == 1)
                .collect()
        };
        let refreshed = new_new.map(right);
        let per_query: Vec<Flip> = right(old_old)
            .into_iter()
            .zip(right(new_old))
            .enumerate()
            .map(|(q, (old_old, new_old))| Flip {
                old_old,
                new_old,
                new_new: refreshed.as_ref().map(|right| right[q]),
            })
            .collect();
        let share = |hit: fn(Flip) -> bool| {
            let hits: Vec<bool> = per_query.iter().map(|&flip| hit(flip)).collect();
            stats::proportion_estimate(&hits, identities, Some(change), intervals.level)
        };
        let net: Vec<f64> = per_query
            .iter()
            .map(|flip| f64::from(flip.is_positive()) - f64::from(flip.is_negative()))
            .collect();
        let asymmetry_p = stats::sign_flip_test(
            &ClusterSums::new(&net, identities).sum,
            intervals.bootstrap.seed,
            SIGN_FLIPS,
        );
        Self {
            negative: share(Flip::is_negative),
            positive: share(Flip::is_positive),
            excess: refreshed.is_some().then(|| share(Flip::is_excess)),
            asymmetry_p,
            per_query,
        }
    }
}

/// a - b, query by query.
pub fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}
