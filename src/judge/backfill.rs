//! The backfill plan: which part of the gallery to re-embed first, and how much of it is enough.
//!
//! Scanning every share on the queries that also chose the order would find a passing one by luck (`docs/METRICS.md`,
//! section 7). So the queries are split within identity: half A fixes the order, half B tests the shares from the
//! whole gallery downwards in a fixed sequence and stops at the first that does not pass; no further correction is
//! needed. Where no sub-cluster has queries enough to be put first, the order rests on the old space alone, nothing
//! was chosen by outcomes, and all queries test it. Whether that is so follows from counts, never from an outcome.

mod gates;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::config::Policy;
use crate::domain::{CheckCode, Date, Embeddings, Estimate, Pairing, cosine};
use crate::retrieve::Retrieval;
use crate::retrieve::refresh::{Curve, Order, STEPS};
use crate::stats::{self, ClusterSums};
use crate::structure::Structure;

use super::checks::{DOMINANT_SHARE, MIN_QUERY_IDENTITIES};
use super::evidence::{Intervals, difference};
use super::outcomes::Outcomes;
use super::slices::{self, Members};

use gates::Gates;

/// The gates that a share of the gallery can change, and that a plan therefore answers for.
pub const PLANNED: [CheckCode; 6] = [
    CheckCode::CrossTestChange,
    CheckCode::BctCriterion,
    CheckCode::Refresh,
    CheckCode::ExcessFlips,
    CheckCode::NegativeFlips,
    CheckCode::Slices,
];

/// Queries in half A from which a sub-cluster may be put first: half of what a slice needs to be tested, as A is half
/// of the queries.
const MIN_ORDERING_QUERIES: usize = slices::MIN_QUERIES / 2;

/// Stream of the split; the label permutations and the random orders have the others.
const SPLIT_STREAM: u64 = 1 << 33;

/// Which part of the gallery to re-embed first.
#[derive(Debug, Clone, PartialEq)]
pub struct BackfillOrder {
    /// All gallery positions.
    pub order: Order,
    /// Whether a query belongs to half A, which fixed the order; none does when the order rests on the old space alone.
    pub fixed_by: Vec<bool>,
    /// Sub-clusters that come first, worst first.
    pub first_subclusters: Vec<u32>,
}

/// How much of the gallery is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The last share at which all gates passed; `None` when not even the whole gallery passes.
    pub beta_star: Option<f64>,
    /// The shares tested, from 1 downwards.
    pub steps: Vec<Step>,
    /// Queries of half A and of half B.
    pub split: [usize; 2],
}

impl Plan {
    /// A plan of which no share was tested.
    pub fn untested(order: &BackfillOrder) -> Self {
        let n = order.fixed_by.len();
        let fixed = order.fixed_by.iter().filter(|&&fixes| fixes).count();
        Self {
            beta_star: None,
            steps: Vec::new(),
            split: [fixed, n - fixed],
        }
    }
}

/// One share, on half B.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The share.
    pub beta: f64,
    /// M(new->mixed(beta)) - M(old->old).
    pub change: Estimate,
    /// Excess flips.
    pub excess: Estimate,
    /// Names of the slices that do not pass: on half B, or where all pass there, on all queries.
    pub failing_slices: Vec<String>,
    /// Whether every gate passes.
    pub passes: bool,
    /// Whether one is proven to fail.
    pub fails: bool,
}

/// Splits the queries within identity, by the seed: of each identity half the queries fix the order, to within one
/// query; over all identities too.
pub fn split(identities: &[u32], seed: u64) -> Vec<bool> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(SPLIT_STREAM);
    let mut shuffled: Vec<usize> = (0..identities.len()).collect();
    shuffled.shuffle(&mut rng);
    // Stable: the shuffled order stays within an identity. Dealing out alternately over the whole list halves each
    // identity to within one query.
    shuffled.sort_by_key(|&q| identities[q]);
    let mut fixes = vec![false; identities.len()];
    shuffled.iter().step_by(2).for_each(|&q| fixes[q] = true);
    fixes
}

/// How close an item is to its centroid; the farthest is the least, of equals the first of the gallery. Whole numbers, because
/// a cosine and a position beside each other would take 16 bytes an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Closeness {
    /// Of a key that rises with the cosine.
    high: u32,
    low: u32,
    position: u32,
}

impl Closeness {
    fn new(cosine: f64, position: u32) -> Self {
        let bits = cosine.to_bits();
        // The order of `f64::total_cmp`.
        let key = if cosine.is_sign_negative() {
            !bits
        } else {
            bits | 1 << 63
        };
        Self {
            high: (key >> 32) as u32,
            low: key as u32,
            position,
        }
    }
}

/// Failing sub-clusters first (their mean change on half A is below minus the slice margin), the worst first; then the
/// items that are not credible, the least credible first; then the items farthest from their sub-cluster's centroid.
/// Sub-clusters with fewer than 5 queries in half A are never put first.
///
/// It needs no new embedding of a gallery item, so it can be followed before any is made. `None` without new->old, or
/// without a new embedding of every gallery item: then there is nothing to test a plan with.
pub fn order(
    retrieval: &Retrieval,
    structure: &Structure,
    old: &Embeddings,
    new: &Embeddings,
    policy: &Policy,
    seed: u64,
) -> Option<BackfillOrder> {
    let protocol = &retrieval.protocol;
    let per_query = |pairing| {
        Some(
            retrieval
                .evaluations
                .get(&pairing)?
                .per_query(retrieval.primary),
        )
    };
    if !protocol.gallery().iter().all(|&item| new.has(item)) {
        return None;
    }
    let change = difference(&per_query(Pairing::NEW_OLD)?, &per_query(Pairing::OLD_OLD)?);
    let mut fixed_by = split(&protocol.query_identities(), seed);
    let mut sums = vec![(0.0, 0); structure.subclusters.len()];
    for (q, query) in protocol.queries().iter().enumerate() {
        if let (true, Some(own)) = (fixed_by[q], structure.subcluster_of(query.item)) {
            let (sum, n) = &mut sums[own as usize];
            *sum += change[q];
            *n += 1;
        }
    }
    let orders = |n: usize| n >= MIN_ORDERING_QUERIES;
    if !sums.iter().any(|&(_, n)| orders(n)) {
        fixed_by.fill(false);
    }
    let mean: Vec<f64> = sums
        .iter()
        .map(|&(sum, n)| if orders(n) { sum / n as f64 } else { 0.0 })
        .collect();
    let fails = |subcluster: u32| mean[subcluster as usize] < -policy.slice_margin;

    let gallery = protocol.gallery();
    // Ascending; an item of no failing sub-cluster comes after all of those, and a credible one after all others.
    let urgency = |position: u32| -> (f64, f64) {
        let item = gallery[position as usize];
        let subcluster = structure.subcluster_of(item);
        let loss = subcluster
            .filter(|&own| fails(own))
            .map_or(f64::INFINITY, |own| mean[own as usize]);
        let credibility = structure
            .cut_score(item)
            .filter(|&score| score < structure.cutoff)
            .unwrap_or(f64::INFINITY);
        (loss, credibility)
    };
    let closeness = |position: u32| -> Closeness {
        let item = gallery[position as usize];
        let to_centroid = || {
            let centroid = structure
                .centroids
                .get(structure.subcluster_of(item)? as usize)?;
            cosine(&old.get(item)?, &centroid)
        };
        Closeness::new(to_centroid().unwrap_or(1.0), position)
    };
    // Apart, because the rest are nearly all, and there may be tens of millions.
    let (first, rest): (Vec<u32>, Vec<u32>) = (0..gallery.len() as u32)
        .partition(|&position| urgency(position) != (f64::INFINITY, f64::INFINITY));
    let mut first: Vec<_> = first
        .into_par_iter()
        .map(|position| (urgency(position), closeness(position)))
        .collect();
    first.par_sort_unstable_by(|(a, near_a), (b, near_b)| {
        a.0.total_cmp(&b.0)
            .then(a.1.total_cmp(&b.1))
            .then(near_a.cmp(near_b))
    });
    let mut rest: Vec<_> = rest.into_par_iter().map(closeness).collect();
    rest.par_sort_unstable();
    let positions = first.into_iter().map(|(_, near)| near).chain(rest);
    let positions: Vec<u32> = positions.map(|near| near.position).collect();
    let mut first_subclusters: Vec<u32> = (0..mean.len() as u32).filter(|&s| fails(s)).collect();
    first_subclusters.sort_by(|&a, &b| mean[a as usize].total_cmp(&mean[b as usize]));
    Some(BackfillOrder {
        order: Order::new(positions),
        fixed_by,
        first_subclusters,
    })
}

/// Tests beta = 1, .95, ... downwards and stops at the first share that does not pass.
///
/// A share passes when every gate of [`PLANNED`] passes on half B, whatever ties hide, and none fails on all queries. Only the
/// first is a proof; the second keeps a plan from leaving in place what the whole audit has found broken and half of the
/// queries could not see. What a waiver holds `today` is not asked. No share is tested where one identity dominates the queries: the audit settles nothing on those either.
///
/// `outcomes` is over all queries; `curve` is new->mixed in the plan's order.
pub fn plan(
    outcomes: &Outcomes,
    members: &[Members],
    plan_order: &BackfillOrder,
    curve: &Curve,
    policy: &Policy,
    intervals: &Intervals,
    today: Date,
) -> Plan {
    let tests: Vec<bool> = plan_order.fixed_by.iter().map(|&fixes| !fixes).collect();
    let everything = vec![true; tests.len()];
    let mut plan = Plan::untested(plan_order);
    let n_tests = plan.split[1];
    let is_dominated = |keep: &[bool]| {
        let kept: Vec<u32> = outcomes
            .identities
            .iter()
            .zip(keep)
            .filter_map(|(&identity, &kept)| kept.then_some(identity))
            .collect();
        let ones = vec![1.0; kept.len()];
        stats::dominant_share(&ClusterSums::new(&ones, &kept)) > DOMINANT_SHARE
    };
    if is_dominated(&tests) || is_dominated(&everything) {
        return plan;
    }
    for step in (0..=STEPS).rev() {
        let at = |keep: &[bool]| {
            let outcomes = outcomes.at(keep, &curve.values[step], &curve.right[step]);
            let asked = (keep, step == STEPS);
            Gates::new(&outcomes, asked, members, policy, intervals, today)
        };
        let held_out = at(&tests);
        if held_out.n_identities < MIN_QUERY_IDENTITIES {
            break;
        }
        let all_pass = held_out.all_pass();
        let broken = (all_pass && n_tests < tests.len())
            .then(|| at(&everything))
            .filter(|whole| !whole.none_fails());
        let passes = all_pass && broken.is_none();
        let beta = step as f64 / STEPS as f64;
        plan.steps.push(Step {
            beta,
            change: held_out.change(),
            excess: held_out.excess(),
            failing_slices: broken.as_ref().unwrap_or(&held_out).slices_not_passing(),
            passes,
            fails: held_out.fails() || broken.is_some_and(|whole| whole.fails()),
        });
        if !passes {
            break;
        }
        plan.beta_star = Some(beta);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::super::outcomes::Flip;
    use super::*;
    use crate::config::Waiver;

    #[test]
    fn the_split_halves_each_identity_and_follows_the_seed() {
        let identities: Vec<u32> = (0..50).flat_map(|g| vec![g; 1 + g as usize % 7]).collect();
        let fixes = split(&identities, 3);
        for g in 0..50 {
            let own = identities.iter().zip(&fixes).filter(|(i, _)| **i == g);
            let (a, n) = own.fold((0, 0), |(a, n), (_, &f)| (a + usize::from(f), n + 1));
            assert!(a == n / 2 || a == n - n / 2, "identity {g}: {a} of {n}");
        }
        assert_eq!(fixes, split(&identities, 3));
        assert_ne!(fixes, split(&identities, 4));
    }

    #[test]
    fn the_farthest_item_comes_first_and_of_equals_the_first() {
        let cosines = [
            1.0,
            -1.0,
            0.5,
            0.0,
            -0.0,
            -1e-300,
            1e-300,
            0.5,
            0.5_f64.next_up(),
            -0.25,
        ];
        let mut sorted: Vec<(f64, u32)> = cosines.into_iter().zip(0..).collect();
        let mut closeness: Vec<Closeness> = sorted
            .iter()
            .map(|&(cosine, i)| Closeness::new(cosine, i))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        closeness.sort();
        let positions: Vec<u32> = closeness.iter().map(|near| near.position).collect();
        assert_eq!(
            positions,
            sorted.iter().map(|&(_, i)| i).collect::<Vec<u32>>()
        );
    }

    /// Queries of `sizes[g]` each identity, all right; the change is -.2 below step `enough`, +.1 from there on.
    fn planned(sizes: &[usize], enough: usize) -> Plan {
        planned_with(sizes, enough, &Policy::default(), |_| ())
    }

    fn planned_with(
        sizes: &[usize],
        enough: usize,
        policy: &Policy,
        change: impl FnOnce(&mut Outcomes),
    ) -> Plan {
        let right = Flip {
            old_old: true,
            after: true,
            new_new: Some(true),
        };
        let identities: Vec<u32> = sizes
            .iter()
            .enumerate()
            .flat_map(|(g, &n)| vec![g as u32; n])
            .collect();
        let n = identities.len();
        let at = |step: usize| -> Vec<f64> {
            let change = if step < enough { -0.2 } else { 0.1 };
            (0..n).map(|q| change + 0.01 * (q % 7) as f64).collect()
        };
        let mut outcomes = Outcomes::without_ties(identities, vec![0.0; n], at(0), vec![right; n]);
        change(&mut outcomes);
        let curve = Curve {
            values: (0..=STEPS).map(at).collect(),
            // Of every tenth query another item comes first below the step.
            right: (0..=STEPS)
                .map(|step| (0..n).map(|q| step >= enough || q % 10 != 0).collect())
                .collect(),
        };
        let followed = BackfillOrder {
            order: Order::new((0..10).collect()),
            fixed_by: vec![false; n],
            first_subclusters: Vec::new(),
        };
        let intervals = Intervals::new(policy, 0);
        let today = Date::of_unix_day(5);
        plan(&outcomes, &[], &followed, &curve, policy, &intervals, today)
    }

    fn waiving(check: CheckCode, last_day: u64) -> Policy {
        Policy {
            waivers: vec![Waiver {
                check,
                slice: None,
                reason: "known".into(),
                until: Date::of_unix_day(last_day),
            }],
            ..Policy::default()
        }
    }

    #[test]
    fn what_a_waiver_holds_is_not_asked_of_a_share() {
        let sizes = [4; 40];
        let planned = |policy: &Policy| planned_with(&sizes, 6, policy, |_| ()).beta_star;
        assert_eq!(planned(&waiving(CheckCode::CrossTestChange, 5)), Some(0.3));
        let mut policy = waiving(CheckCode::CrossTestChange, 5);
        for check in [CheckCode::Refresh, CheckCode::ExcessFlips] {
            policy.waivers.extend(waiving(check, 5).waivers);
        }
        assert_eq!(planned(&policy), Some(0.0));
        policy.waivers[0].until = Date::of_unix_day(4);
        assert_eq!(planned(&policy), Some(0.3), "a waiver that has lapsed");
    }

    #[test]
    fn a_share_does_not_pass_where_ties_decide() {
        let sizes = [4; 40];
        let planned = |change: fn(&mut Outcomes)| {
            planned_with(&sizes, 6, &Policy::default(), change).beta_star
        };
        assert_eq!(planned(|_| ()), Some(0.3));
        // Ties make today's queries much better at best than the +.1 that the refreshed ones gain.
        let today = |outcomes: &mut Outcomes| outcomes.today_at_best.fill(0.3);
        assert_eq!(planned(today), None);
        // No change is a loss, and every tenth query is wrong today where ties count against it: none is a flip.
        fn wrong_today(outcomes: &mut Outcomes) {
            outcomes.today.fill(-1.0);
            outcomes.today_at_best.fill(-1.0);
            for (q, flip) in outcomes.flips.iter_mut().enumerate() {
                flip.old_old = q % 10 != 0;
            }
        }
        // With its ties won it is right.
        assert_eq!(planned(wrong_today), Some(0.3));
        let without_ties = |outcomes: &mut Outcomes| {
            wrong_today(outcomes);
            outcomes.most_flips.clone_from(&outcomes.flips);
        };
        assert_eq!(planned(without_ties), Some(0.0));
    }

    #[test]
    fn the_sequence_goes_down_from_the_whole_gallery_and_stops_at_the_first_that_does_not_pass() {
        let found = planned(&[4; 40], 6);
        assert_eq!(found.beta_star, Some(0.3));
        let betas: Vec<f64> = found.steps.iter().map(|step| step.beta).collect();
        let expected: Vec<f64> = (5..=STEPS).rev().map(|s| s as f64 / STEPS as f64).collect();
        assert_eq!(betas, expected);
        assert!(!found.steps[found.steps.len() - 1].passes);
        assert_eq!(planned(&[4; 40], STEPS + 1).beta_star, None);
    }

    /// Forty queries prove no share of flips to be below 5 %, not even none; but of the whole gallery there are none by definition.
    #[test]
    fn the_whole_gallery_is_not_asked_for_excess_flips() {
        let found = planned(&[2; 20], 0);
        assert_eq!(found.beta_star, Some(1.0));
        let passes: Vec<bool> = found.steps.iter().map(|step| step.passes).collect();
        assert_eq!(passes, [true, false]);
        assert!(found.steps[0].excess.upper > 0.05);
    }

    #[test]
    fn no_share_is_tested_when_one_identity_dominates_or_identities_are_few() {
        let mut sizes = vec![4; 40];
        sizes[7] = 40;
        assert_eq!(planned(&sizes, 6).steps, Vec::new());
        assert_eq!(planned(&[4; 19], 6).steps, Vec::new());
    }
}
