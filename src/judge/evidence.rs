//! The estimates that the checks are made of, from the rankings of stage 4.

use rayon::prelude::*;

use crate::config::Policy;
use crate::domain::{Date, Estimate, Measure, NamedMeasure, Pairing, Probe, Reference};
use crate::retrieve::kept::Kept;
use crate::retrieve::refresh::Curve;
use crate::retrieve::verification::ThresholdTransfer;
use crate::retrieve::{Evaluation, Retrieval, n_distinct};
use crate::stats::{self, Bootstrap, ClusterSums, CurveEstimates};
use crate::structure::Structure;

use super::backfill::{self, BackfillOrder, Plan};
use super::outcomes::{Change, Flip, Flips, Outcomes};
use super::slices::{self, Members, Slice};

/// Share of the distance between the working and the shuffled model that a margin may be.
const LARGEST_MARGIN_SHARE: f64 = 0.2;

/// Bootstrap replicates of every interval.
const REPLICATES: usize = 10_000;

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

    /// One-sided error of each end.
    pub fn alpha(&self) -> f64 {
        (1.0 - self.level) / 2.0
    }

    /// Mean over queries, resampled by identity.
    pub fn mean(&self, values: &[f64], identities: &[u32]) -> Estimate {
        stats::mean_estimate(
            &ClusterSums::new(values, identities),
            self.level,
            &self.bootstrap,
        )
    }

    /// Means over the same queries at every point of a curve.
    fn curve(&self, points: &[ClusterSums]) -> CurveEstimates {
        stats::curve_estimates(points, self.level, &self.bootstrap)
    }
}

/// What the judge looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The measure that decides.
    pub primary: NamedMeasure,
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
    /// The new model has a head of `compat-audit adapt`.
    pub adapted: bool,
    /// Can the probe judge.
    pub assay: Assay,
    /// D; `None` without new->old.
    pub change: Option<Change>,
    /// W; `None` without new->new or without labels.
    pub worth: Option<Estimate>,
    /// G; `None` when undefined or not tested.
    pub gain: Option<Estimate>,
    /// Flips; `None` without new->old.
    pub flips: Option<Flips>,
    /// Columns whose values are slices.
    pub slice_columns: Vec<String>,
    /// Slices; `None` without new->old.
    pub slices: Option<Vec<Slice>>,
    /// For each slice column the share of queries in none of its tested slices; empty without new->old.
    pub untestable_traffic: Vec<f64>,
    /// The refresh curve; `None` without new->old or new->new.
    pub refresh: Option<Refresh>,
    /// How much of the gallery is enough; `None` as for `refresh`.
    pub plan: Option<Plan>,
    /// What a threshold set on old->old does to new queries; `None` without new->old or with too few pairs.
    pub threshold: Option<ThresholdTransfer>,
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

/// M(new->mixed(beta)) - M(old->old) from beta = 0 to beta = 1 in steps of 1 / STEPS.
#[derive(Debug, Clone, PartialEq)]
pub struct Refresh {
    /// In the plan's order.
    pub planned: CurveEstimates,
    /// Mean over random orders.
    pub random: Vec<f64>,
    /// Random orders in the mean.
    pub random_orders: usize,
}

impl Refresh {
    fn new(intervals: &Intervals, outcomes: &Outcomes, planned: &Curve, random: &[Curve]) -> Self {
        let Outcomes {
            identities, today, ..
        } = outcomes;
        let change = |values: &[f64]| difference(values, today);
        let sums: Vec<ClusterSums> = planned
            .values
            .par_iter()
            .map(|values| ClusterSums::new(&change(values), identities))
            .collect();
        Self {
            planned: intervals.curve(&sums),
            random: (0..planned.values.len())
                .map(|step| {
                    let of = |curve: &Curve| stats::mean(&change(&curve.values[step]));
                    stats::mean(&random.iter().map(of).collect::<Vec<f64>>())
                })
                .collect(),
            random_orders: random.len(),
        }
    }

    /// The step that decides against a limit that the whole curve must stay above, with its estimate.
    ///
    /// A pass needs every point, so that the lowest lower end decides it, at each point's own level. A failure needs but one of
    /// many points: where one lies below the limit on its own, the ends that hold for all points at once say whether that is
    /// proven, and theirs is the estimate.
    pub fn deciding(&self, limit: f64) -> (usize, &Estimate) {
        let CurveEstimates {
            pointwise,
            simultaneous,
        } = &self.planned;
        let below = (0..pointwise.len())
            .filter(|&step| pointwise[step].upper < limit)
            .min_by(|&a, &b| simultaneous[a].upper.total_cmp(&simultaneous[b].upper));
        if let Some(step) = below {
            return (step, &simultaneous[step]);
        }
        let worst = (0..pointwise.len())
            .min_by(|&a, &b| pointwise[a].lower.total_cmp(&pointwise[b].lower))
            .expect("a curve has both ends");
        (worst, &pointwise[worst])
    }
}

/// What the judge needs of the stages before it.
pub struct Stages<'a> {
    /// Stage 1.
    pub probe: &'a Probe,
    /// Dimensions of the old and the new model.
    pub dims: [usize; 2],
    /// Same model hash and preprocessing.
    pub same_model: bool,
    /// The new model has a head of `compat-audit adapt`.
    pub adapted: bool,
    /// Stage 3.
    pub structure: &'a Structure,
    /// Stage 4.
    pub retrieval: &'a Retrieval,
    /// old->old and new->old on the gallery without its least credible items.
    pub kept: Option<&'a Kept>,
    /// The curve in the plan's order, then those in random orders; with the plan's order.
    pub refreshed: Option<(&'a BackfillOrder, &'a [Curve])>,
    /// The day, by which waivers lapse.
    pub today: Date,
}

impl Evidence {
    /// Collects the evidence. The retrieval must have at least one evaluated query.
    pub fn collect(stages: &Stages<'_>, policy: &Policy, seed: u64) -> Self {
        let Stages {
            probe,
            structure,
            retrieval,
            ..
        } = *stages;
        let primary = retrieval.primary;
        let intervals = Intervals::new(policy, seed);
        let identities = retrieval.protocol.query_identities();
        let n_queries = identities.len();
        let pairing = |pairing: Pairing| retrieval.evaluations.get(&pairing);
        let old_old = pairing(Pairing::OLD_OLD).expect("old->old always exists");
        let now = old_old.per_query(primary);
        let cross = pairing(Pairing::NEW_OLD);
        let refreshed = pairing(Pairing::NEW_NEW);
        // The old model agrees with itself best: less agreement is no loss by the upgrade, and more cannot be.
        let worth_values = refreshed
            .filter(|_| probe.reference == Reference::Labels)
            .map(|new| difference(&new.per_query(primary), &now));
        let worth = worth_values
            .as_ref()
            .map(|values| intervals.mean(values, &identities));
        let slice_columns = policy
            .slice_columns
            .clone()
            .unwrap_or_else(|| slices::known_columns(probe));
        let members = slices::members(
            probe,
            structure,
            &retrieval.protocol.query_items(),
            &slice_columns,
        );
        let collected = cross.map(|cross| {
            Collected::new(
                &intervals,
                policy,
                &identities,
                (old_old, cross, refreshed),
                primary,
                &members,
                stages,
            )
        });
        let counts = ClusterSums::new(&now, &identities);
        let mut evidence = Self {
            primary: probe.reference.name(primary),
            n_queries,
            n_query_identities: n_distinct(identities.clone()),
            dominant_share: stats::dominant_share(&counts),
            dims: stages.dims,
            same_model: stages.same_model,
            adapted: stages.adapted,
            assay: Assay::new(&intervals, &now, &identities, &retrieval.shuffled),
            change: None,
            worth,
            gain: None,
            flips: None,
            untestable_traffic: Vec::new(),
            slice_columns,
            slices: None,
            refresh: None,
            plan: None,
            threshold: retrieval
                .transfer
                .as_ref()
                .map(|pairs| pairs.estimates(intervals.level, &intervals.bootstrap)),
            // Without any query left there is nothing to say.
            change_without_least_credible: stages
                .kept
                .filter(|kept| !kept.query_identities.is_empty())
                .map(|kept| {
                    let [old_old, new_old] = &kept.per_query;
                    intervals.mean(&difference(new_old, old_old), &kept.query_identities)
                }),
        };
        if let Some(found) = collected {
            evidence.gain = worth_values
                .as_ref()
                .and_then(|worth| {
                    stats::ratio_estimate(
                        &ClusterSums::new(&found.outcomes.change(), &identities),
                        &ClusterSums::new(worth, &identities),
                        intervals.level,
                        &intervals.bootstrap,
                    )
                })
                // A share of a loss would read as a gain.
                .filter(|_| worth.is_some_and(|worth| worth.lower > 0.0));
            evidence.untestable_traffic =
                slices::untestable_traffic(&evidence.slice_columns, &found.slices, n_queries);
            evidence.change = Some(found.change);
            evidence.flips = Some(found.flips);
            evidence.slices = Some(found.slices);
            (evidence.refresh, evidence.plan) = found.refreshed.unzip();
        }
        evidence
    }
}

/// The evidence that needs new->old.
struct Collected {
    outcomes: Outcomes,
    change: Change,
    flips: Flips,
    slices: Vec<Slice>,
    refreshed: Option<(Refresh, Plan)>,
}

impl Collected {
    fn new(
        intervals: &Intervals,
        policy: &Policy,
        identities: &[u32],
        (old_old, new_old, new_new): (&Evaluation, &Evaluation, Option<&Evaluation>),
        primary: Measure,
        members: &[Members],
        stages: &Stages<'_>,
    ) -> Self {
        let right = |evaluation: &Evaluation, q: usize| evaluation.rankings[q].first_rank() == 1;
        let wins =
            |evaluation: &Evaluation, q: usize| evaluation.rankings[q].optimistic_first_rank() == 1;
        let flips = |of_full: &dyn Fn(&Evaluation, usize) -> bool| {
            let flip = |q| Flip {
                old_old: of_full(old_old, q),
                after: right(new_old, q),
                new_new: new_new.map(|new_new| of_full(new_new, q)),
            };
            (0..identities.len()).map(flip).collect()
        };
        let outcomes = Outcomes {
            identities: identities.to_vec(),
            today: old_old.per_query(primary),
            today_at_best: old_old.per_query_optimistic(primary),
            after: new_old.per_query(primary),
            flips: flips(&right),
            // A tie must not hide a flip.
            most_flips: flips(&wins),
        };
        let optimistic = difference(
            &new_old.per_query_optimistic(primary),
            &outcomes.today_at_best,
        );
        let change = Change::new(intervals, &outcomes.change(), &optimistic, identities);
        Self {
            change,
            flips: Flips::new(intervals, &outcomes),
            slices: slices::test(members, &outcomes, None, policy, intervals),
            refreshed: stages.refreshed.map(|(order, curves)| {
                let (planned, random) = curves
                    .split_first()
                    .expect("the curve in the plan's order comes first");
                let plan = backfill::plan(
                    &outcomes,
                    members,
                    order,
                    planned,
                    policy,
                    intervals,
                    stages.today,
                );
                (Refresh::new(intervals, &outcomes, planned, random), plan)
            }),
            outcomes,
        }
    }
}

impl Assay {
    fn new(intervals: &Intervals, today: &[f64], identities: &[u32], shuffled: &[f64]) -> Self {
        let old_old = intervals.mean(today, identities);
        let mean = stats::mean(shuffled);
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

/// a - b, query by query.
pub fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}
