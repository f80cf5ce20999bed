//! A share of the gallery against the gates.

use crate::config::Policy;
use crate::domain::{CheckCode, CheckSeverity, Date, Estimate};
use crate::judge::checks;
use crate::judge::evidence::Intervals;
use crate::judge::outcomes::{Flips, Outcomes};
use crate::judge::slices::{self, Members, Slice};
use crate::judge::{CheckState, SafeSide};
use crate::retrieve::n_distinct;

/// The gates that a share of the gallery can change, on some of the queries.
pub struct Gates<'a> {
    /// Identities of those queries.
    pub n_identities: usize,
    /// The change, and the least that ties leave possible.
    changes: [Estimate; 2],
    flips: Flips,
    slices: Vec<Slice>,
    is_whole: bool,
    policy: &'a Policy,
    today: Date,
}

impl<'a> Gates<'a> {
    /// `outcomes` is over the kept queries; `members` name queries of the whole. Of the whole gallery (`is_whole`) excess flips
    /// are not asked: against itself new->new has none, whatever ties and few queries leave possible.
    pub fn new(
        outcomes: &Outcomes,
        (keep, is_whole): (&[bool], bool),
        members: &[Members],
        policy: &'a Policy,
        intervals: &Intervals,
        today: Date,
    ) -> Self {
        let identities = &outcomes.identities;
        let change = intervals.mean(&outcomes.change(), identities);
        let least = outcomes.least_change();
        let least = least.map_or(change, |least| intervals.mean(&least, identities));
        Self {
            n_identities: n_distinct(identities.clone()),
            changes: [change, least],
            flips: Flips::new(intervals, outcomes),
            slices: slices::test(members, outcomes, Some(keep), policy, intervals),
            is_whole,
            policy,
            today,
        }
    }

    /// The change of the measure.
    pub fn change(&self) -> Estimate {
        self.changes[0]
    }

    /// The share of excess flips.
    pub fn excess(&self) -> Estimate {
        self.both_excess()[0]
    }

    /// The share of excess flips, and the most that ties leave possible.
    fn both_excess(&self) -> [Estimate; 2] {
        let Flips {
            excess,
            most_excess,
            ..
        } = self.flips;
        excess
            .zip(most_excess)
            .map(|(share, most)| [share, most])
            .expect("a curve needs new->new, and so do excess flips")
    }

    /// The state of each check that the policy gates on and no waiver holds.
    fn states(&self) -> Vec<CheckState> {
        let policy = self.policy;
        let negative = [self.flips.negative, self.flips.most_negative];
        let above = |limit| checks::state_of_both(&self.changes, limit, SafeSide::Above);
        let below =
            |shares: [Estimate; 2], limit| checks::state_of_both(&shares, limit, SafeSide::Below);
        let asked = |code| {
            policy.severity(code) == CheckSeverity::Gate
                && !policy.waives(code, None, self.today)
                && !(self.is_whole && code == CheckCode::ExcessFlips)
        };
        let states = [
            (CheckCode::CrossTestChange, above(-policy.margin)),
            (CheckCode::BctCriterion, above(0.0)),
            (CheckCode::Refresh, above(-policy.refresh_margin)),
            (
                CheckCode::ExcessFlips,
                below(self.both_excess(), policy.excess_flips),
            ),
            (
                CheckCode::NegativeFlips,
                below(negative, policy.negative_flips_limit()),
            ),
        ];
        let slices = self
            .asked_slices()
            .map(|slice| (CheckCode::Slices, slice.state(policy)));
        states
            .into_iter()
            .chain(slices)
            .filter(|&(code, _)| asked(code))
            .map(|(_, state)| state)
            .collect()
    }

    /// The slices that no waiver holds.
    fn asked_slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.iter().filter(|slice| {
            let name = slice.members.name();
            !self
                .policy
                .waives(CheckCode::Slices, Some(&name), self.today)
        })
    }

    /// Whether each passes, as far as it can be tested.
    pub fn all_pass(&self) -> bool {
        let passes = |state: &CheckState| matches!(state, CheckState::Pass | CheckState::NotTested);
        self.states().iter().all(passes)
    }

    /// Whether none fails.
    pub fn none_fails(&self) -> bool {
        // Half of the queries may be too few for a slice; where slices must be proven, all of them must prove it.
        let slices_gate = self.policy.severity(CheckCode::Slices) == CheckSeverity::Gate;
        let unproven =
            self.policy.slices_proven && slices_gate && !self.slices_not_passing().is_empty();
        !unproven && !self.fails()
    }

    /// Whether one is proven to fail.
    pub fn fails(&self) -> bool {
        self.states().contains(&CheckState::Fail)
    }

    /// Names of the slices that do not pass.
    pub fn slices_not_passing(&self) -> Vec<String> {
        let passes = |state| matches!(state, CheckState::Pass | CheckState::NotTested);
        self.asked_slices()
            .filter(|slice| !passes(slice.state(self.policy)))
            .map(|slice| slice.members.name())
            .collect()
    }
}
