//! What every query finds before and after, and the estimates that follow from it: D and the flips.

use crate::domain::Estimate;
use crate::stats::{self, ClusterSums};

use super::evidence::{Intervals, difference};

/// Power at which the resolvable margin and minimum detectable losses are stated.
pub const POWER: f64 = 0.8;

/// Permutations of the asymmetry test.
const SIGN_FLIPS: usize = 10_000;

/// Each query today and under new queries on some state of the gallery; parallel vectors, one entry a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    /// Identity index: the unit that statistics resample.
    pub identities: Vec<u32>,
    /// Primary measure, old->old.
    pub today: Vec<f64>,
    /// Primary measure of the new queries.
    pub after: Vec<f64>,
    /// CMC@1 under the pairings.
    pub flips: Vec<Flip>,
}

impl Outcomes {
    /// Change of each query.
    pub fn change(&self) -> Vec<f64> {
        difference(&self.after, &self.today)
    }

    /// The queries whose flag is set, with other values for the new queries: the measure and whether the first hit is
    /// relevant, one a query of `self`.
    pub fn at(&self, keep: &[bool], after: &[f64], right: &[bool]) -> Self {
        let kept = |q: &usize| keep[*q];
        let queries: Vec<usize> = (0..self.identities.len()).filter(kept).collect();
        Self {
            identities: queries.iter().map(|&q| self.identities[q]).collect(),
            today: queries.iter().map(|&q| self.today[q]).collect(),
            after: queries.iter().map(|&q| after[q]).collect(),
            flips: queries
                .iter()
                .map(|&q| Flip {
                    after: right[q],
                    ..self.flips[q]
                })
                .collect(),
        }
    }
}

/// One query's CMC@1 under the pairings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// Right under old->old.
    pub old_old: bool,
    /// Right for the new query: under new->old, or on a partly re-embedded gallery.
    pub after: bool,
    /// Right under new->new, when tested.
    pub new_new: Option<bool>,
}

impl Flip {
    /// Right today, wrong after.
    pub fn is_negative(self) -> bool {
        self.old_old && !self.after
    }

    /// Wrong today, right after.
    pub fn is_positive(self) -> bool {
        !self.old_old && self.after
    }

    /// A negative flip that a full backfill would heal: the fault of skipping, not of upgrading.
    pub fn is_excess(self) -> bool {
        self.is_negative() && self.new_new == Some(true)
    }
}

/// The cross-test change D = M(new->old) - M(old->old).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Ties counted against the query in both pairings.
    pub estimate: Estimate,
    /// Ties counted in the query's favour in both; the same as `estimate` where they were not looked at.
    pub optimistic: Estimate,
    /// Mean over identities of their mean change.
    pub identity_weighted: f64,
    /// Loss that would be found with power .8 at the policy's alpha.
    pub resolvable_margin: f64,
}

impl Change {
    /// From the change of each query, and the same with ties in the queries' favour.
    pub fn new(
        intervals: &Intervals,
        change: &[f64],
        optimistic: Option<&[f64]>,
        identities: &[u32],
    ) -> Self {
        let sums = ClusterSums::new(change, identities);
        let estimate = intervals.mean(change, identities);
        Self {
            estimate,
            optimistic: optimistic.map_or(estimate, |values| intervals.mean(values, identities)),
            identity_weighted: stats::identity_weighted_mean(&sums),
            resolvable_margin: stats::resolvable_margin(&sums, intervals.alpha(), POWER),
        }
    }
}

/// CMC@1 flips between old->old and the new queries.
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
    /// Negative flips where ties make a query right today and wrong after: the most there can be.
    pub most_negative: Estimate,
    /// Excess flips with ties likewise.
    pub most_excess: Option<Estimate>,
    /// p-value of the cluster sign-flip test.
    pub asymmetry_p: f64,
}

impl Flips {
    /// Counts and bounds the flips. `worst` are the queries with ties that make the most flips, one a query.
    pub fn new(intervals: &Intervals, outcomes: &Outcomes, worst: &[Flip]) -> Self {
        let Outcomes {
            identities, flips, ..
        } = outcomes;
        let change = outcomes.change();
        let share_of = |flips: &[Flip], hit: fn(Flip) -> bool| {
            let hits: Vec<bool> = flips.iter().map(|&flip| hit(flip)).collect();
            stats::proportion_estimate(&hits, identities, Some(&change), intervals.level)
        };
        let share = |hit| share_of(flips, hit);
        let net: Vec<f64> = flips
            .iter()
            .map(|flip| f64::from(flip.is_positive()) - f64::from(flip.is_negative()))
            .collect();
        let asymmetry_p = stats::sign_flip_test(
            &ClusterSums::new(&net, identities).sum,
            intervals.bootstrap.seed,
            SIGN_FLIPS,
        );
        let new_new_tested = flips.iter().all(|flip| flip.new_new.is_some());
        Self {
            negative: share(Flip::is_negative),
            positive: share(Flip::is_positive),
            excess: new_new_tested.then(|| share(Flip::is_excess)),
            most_negative: share_of(worst, Flip::is_negative),
            most_excess: new_new_tested.then(|| share_of(worst, Flip::is_excess)),
            asymmetry_p,
            per_query: flips.clone(),
        }
    }
}
