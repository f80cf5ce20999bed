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
    /// Primary measure, old->old, ties against the query.
    pub today: Vec<f64>,
    /// The same with ties in the query's favour.
    pub today_at_best: Vec<f64>,
    /// Primary measure of the new queries.
    pub after: Vec<f64>,
    /// CMC@1 under the pairings.
    pub flips: Vec<Flip>,
    /// With the ties that make the most flips: today's and the refreshed hit win theirs, the hit after loses its own.
    pub most_flips: Vec<Flip>,
}

impl Outcomes {
    /// Of rankings in which nothing ties.
    pub fn without_ties(
        identities: Vec<u32>,
        today: Vec<f64>,
        after: Vec<f64>,
        flips: Vec<Flip>,
    ) -> Self {
        Self {
            identities,
            today_at_best: today.clone(),
            today,
            after,
            most_flips: flips.clone(),
            flips,
        }
    }

    /// Change of each query.
    pub fn change(&self) -> Vec<f64> {
        difference(&self.after, &self.today)
    }

    /// The least change that ties leave possible; `None` where today's have no say.
    pub fn least_change(&self) -> Option<Vec<f64>> {
        (self.today != self.today_at_best).then(|| difference(&self.after, &self.today_at_best))
    }

    /// The queries whose flag is set, with other values for the new queries: the measure and whether the first hit is
    /// relevant, one a query of `self`.
    pub fn at(&self, keep: &[bool], after: &[f64], right: &[bool]) -> Self {
        let kept = |q: &usize| keep[*q];
        let queries: Vec<usize> = (0..self.identities.len()).filter(kept).collect();
        let values = |of: &[f64]| queries.iter().map(|&q| of[q]).collect();
        let flips = |of: &[Flip]| {
            let at = |&q: &usize| Flip {
                after: right[q],
                ..of[q]
            };
            queries.iter().map(at).collect()
        };
        Self {
            identities: queries.iter().map(|&q| self.identities[q]).collect(),
            today: values(&self.today),
            today_at_best: values(&self.today_at_best),
            after: values(after),
            flips: flips(&self.flips),
            most_flips: flips(&self.most_flips),
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
    /// Ties counted in the query's favour in both.
    pub optimistic: Estimate,
    /// Mean over identities of their mean change.
    pub identity_weighted: f64,
    /// Loss that would be found with power .8 at the policy's alpha.
    pub resolvable_margin: f64,
}

impl Change {
    /// With ties against the queries and in their favour.
    pub fn both(&self) -> [Estimate; 2] {
        [self.estimate, self.optimistic]
    }

    /// From the change of each query, and the same with ties in the queries' favour.
    pub fn new(
        intervals: &Intervals,
        change: &[f64],
        optimistic: &[f64],
        identities: &[u32],
    ) -> Self {
        let sums = ClusterSums::new(change, identities);
        Self {
            estimate: intervals.mean(change, identities),
            optimistic: intervals.mean(optimistic, identities),
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
    /// Counts and bounds the flips.
    pub fn new(intervals: &Intervals, outcomes: &Outcomes) -> Self {
        let Outcomes {
            identities,
            flips,
            most_flips,
            ..
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
            most_negative: share_of(most_flips, Flip::is_negative),
            most_excess: new_new_tested.then(|| share_of(most_flips, Flip::is_excess)),
            asymmetry_p,
            per_query: flips.clone(),
        }
    }
}
