//! Parts of the queries on their own: identities, sub-clusters, cameras, values of manifest columns.
//!
//! A mean can improve while a part of the traffic collapses. Slices are a detection: one is called failing only when
//! its loss beyond the slice margin is proven, Holm-corrected over all of them; each says the loss it could have
//! shown (`docs/METRICS.md`, section 6).

use std::collections::BTreeMap;

use crate::config::Policy;
use crate::domain::Probe;
use crate::retrieve::n_distinct;
use crate::stats::{SliceTest, SliceValues, test_slices};
use crate::structure::Structure;

use super::evidence::{Evidence, Intervals};
use super::outcomes::{Outcomes, POWER};
use super::{CheckState, SafeSide, checks};

/// Queries from which a slice is tested.
pub const MIN_QUERIES: usize = 10;

/// Column of the identities.
pub const IDENTITY: &str = "identity";
/// Column of the old space's sub-clusters.
pub const SUB_CLUSTER: &str = "sub-cluster";
/// Column of the cameras.
pub const CAMERA: &str = "camera";

/// The queries of one value of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Column name.
    pub column: String,
    /// Value.
    pub value: String,
    /// Query indices, ascending.
    pub queries: Vec<usize>,
    /// Whether this is an identity that is one sub-cluster: it stands for that sub-cluster too.
    pub is_one_sub_cluster: bool,
}

impl Members {
    /// `column=value`, as reports and waivers name it.
    pub fn name(&self) -> String {
        format!("{}={}", self.column, self.value)
    }
}

/// A slice and what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Its queries.
    pub members: Members,
    /// Identities of its queries.
    pub n_identities: usize,
    /// The test; `None` with fewer than [`MIN_QUERIES`] queries.
    pub test: Option<SliceTest>,
}

impl Slice {
    /// What follows: fail when its loss is proven beyond the margin; unsettled when the policy asks for proof of the
    /// contrary and there is none; else pass.
    pub fn state(&self, policy: &Policy) -> CheckState {
        match &self.test {
            None => CheckState::NotTested,
            Some(test) if test.p_holm <= policy.alpha => CheckState::Fail,
            Some(test)
                if policy.slices_proven
                    && checks::state(&test.estimate, -policy.slice_margin, SafeSide::Above)
                        != CheckState::Pass =>
            {
                CheckState::Unsettled
            }
            Some(_) => CheckState::Pass,
        }
    }
}

/// Every column that the probe has.
pub fn known_columns(probe: &Probe) -> Vec<String> {
    let mut columns = vec![IDENTITY.to_owned(), SUB_CLUSTER.to_owned()];
    if !probe.cameras.is_empty() {
        columns.push(CAMERA.to_owned());
    }
    columns.extend(probe.slice_columns.iter().cloned());
    columns
}

/// The queries of each value of each column, columns in order, values by name.
///
/// `items` are the evaluated queries' item indices. An identity that is one sub-cluster is the same slice as that
/// sub-cluster: it is tested once, as the identity where identities are asked for.
pub fn members(
    probe: &Probe,
    structure: &Structure,
    items: &[usize],
    columns: &[String],
) -> Vec<Members> {
    let is_split = structure.split_identities(probe);
    let with_identities = columns.iter().any(|column| column == IDENTITY);
    let mut all = Vec::new();
    for column in columns {
        let manifest_column = probe.slice_columns.iter().position(|name| name == column);
        let value_of = |item: usize| -> Option<String> {
            let of = &probe.items[item];
            match (column.as_str(), manifest_column) {
                (_, Some(index)) => of.slice(index).map(str::to_owned),
                (IDENTITY, None) => Some(probe.identities[of.identity.get()? as usize].clone()),
                (SUB_CLUSTER, None) => {
                    let index = structure.subcluster_of(item)?;
                    let identity = structure.subclusters[index as usize].identity as usize;
                    let name = || structure.subcluster_name(index, probe, &is_split);
                    (is_split[identity] || !with_identities).then(name)
                }
                (CAMERA, None) => Some(probe.cameras[of.camera.get()? as usize].clone()),
                _ => None,
            }
        };
        let mut of_value: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (query, &item) in items.iter().enumerate() {
            if let Some(value) = value_of(item) {
                of_value.entry(value).or_default().push(query);
            }
        }
        all.extend(of_value.into_iter().map(|(value, queries)| {
            Members {
                is_one_sub_cluster: manifest_column.is_none()
                    && column == IDENTITY
                    && probe.items[items[queries[0]]]
                        .identity
                        .get()
                        .is_some_and(|identity| !is_split[identity as usize]),
                column: column.clone(),
                value,
                queries,
            }
        }));
    }
    all
}

/// Tests every slice that has queries enough among `keep` (all queries when `None`).
///
/// `outcomes` is over the kept queries; `members` name queries of the whole.
pub fn test(
    members: &[Members],
    outcomes: &Outcomes,
    keep: Option<&[bool]>,
    policy: &Policy,
    intervals: &Intervals,
) -> Vec<Slice> {
    // Index among the kept queries.
    let place: Vec<Option<usize>> = match keep {
        None => (0..outcomes.identities.len()).map(Some).collect(),
        Some(keep) => {
            let mut next = 0..;
            keep.iter()
                .map(|&kept| if kept { next.next() } else { None })
                .collect()
        }
    };
    let change = outcomes.change();
    let mut slices: Vec<Slice> = Vec::new();
    let mut values: Vec<SliceValues> = Vec::new();
    for members in members {
        let queries: Vec<usize> = members.queries.iter().filter_map(|&q| place[q]).collect();
        let identities: Vec<u32> = queries.iter().map(|&q| outcomes.identities[q]).collect();
        slices.push(Slice {
            members: members.clone(),
            n_identities: n_distinct(identities.clone()),
            test: None,
        });
        if queries.len() >= MIN_QUERIES {
            let today = queries.iter().map(|&q| outcomes.today[q]);
            values.push(SliceValues {
                values: queries.iter().map(|&q| change[q]).collect(),
                identities,
                // Measures lie in [0, 1].
                largest: 1.0 - today.fold(1.0, f64::min),
            });
        }
        slices.last_mut().expect("just pushed").members.queries = queries;
    }
    let tests = test_slices(
        &values,
        -policy.slice_margin,
        policy.alpha,
        POWER,
        &intervals.bootstrap,
    );
    slices
        .iter_mut()
        .filter(|slice| slice.members.queries.len() >= MIN_QUERIES)
        .zip(tests)
        .for_each(|(slice, test)| slice.test = Some(test));
    slices
}

/// For each column the share of `n_queries` queries that lie in none of its tested slices.
pub fn untestable_traffic(columns: &[String], slices: &[Slice], n_queries: usize) -> Vec<f64> {
    columns
        .iter()
        .map(|column| {
            let mut tested = vec![false; n_queries];
            for slice in slices.iter().filter(|slice| slice.test.is_some()) {
                let covers = slice.members.column == *column
                    || (column == SUB_CLUSTER && slice.members.is_one_sub_cluster);
                if covers {
                    slice.members.queries.iter().for_each(|&q| tested[q] = true);
                }
            }
            tested.iter().filter(|&&tested| !tested).count() as f64 / n_queries as f64
        })
        .collect()
}

/// Names of the slices in a state.
pub fn in_state(evidence: &Evidence, policy: &Policy, state: CheckState) -> Vec<String> {
    evidence
        .slices
        .iter()
        .flatten()
        .filter(|slice| slice.state(policy) == state)
        .map(|slice| slice.members.name())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Intervals;
    use super::super::outcomes::Flip;
    use super::*;

    const RIGHT: Flip = Flip {
        old_old: true,
        after: true,
        new_new: Some(true),
    };

    /// 60 identities of 12 queries each; those of the first `lost` fall from 1 to .2, the others gain a little.
    fn outcomes(lost: u32) -> Outcomes {
        let identities: Vec<u32> = (0..60).flat_map(|g| [g; 12]).collect();
        let noise = |q: usize| 0.01 * ((q * 7) % 11) as f64;
        let after = |(q, &g): (usize, &u32)| {
            if g < lost {
                0.2 + noise(q)
            } else {
                0.9 + noise(q)
            }
        };
        let n = identities.len();
        let after = identities.iter().enumerate().map(after).collect();
        Outcomes::without_ties(identities, vec![0.9; n], after, vec![RIGHT; n])
    }

    fn by_identity(outcomes: &Outcomes) -> Vec<Members> {
        (0..60)
            .map(|g| Members {
                column: IDENTITY.into(),
                value: format!("id{g}"),
                queries: (0..outcomes.identities.len())
                    .filter(|&q| outcomes.identities[q] == g)
                    .collect(),
                is_one_sub_cluster: true,
            })
            .collect()
    }

    fn failing_names(slices: &[Slice], policy: &Policy) -> Vec<String> {
        slices
            .iter()
            .filter(|slice| slice.state(policy) == CheckState::Fail)
            .map(|slice| slice.members.name())
            .collect()
    }

    #[test]
    fn collapsed_identities_are_named_and_no_others() {
        let (policy, outcomes) = (Policy::default(), outcomes(3));
        let intervals = Intervals::new(&policy, 1);
        let slices = test(
            &by_identity(&outcomes),
            &outcomes,
            None,
            &policy,
            &intervals,
        );
        assert_eq!(
            failing_names(&slices, &policy),
            ["identity=id0", "identity=id1", "identity=id2"]
        );
    }

    #[test]
    fn kept_queries_are_found_again_and_small_slices_are_not_tested() {
        let (policy, outcomes) = (Policy::default(), outcomes(1));
        let intervals = Intervals::new(&policy, 1);
        // Keeps 11 of 12 queries of even identities and 9 of odd ones.
        let keep: Vec<bool> = (0..outcomes.identities.len())
            .map(|q| {
                q % 12
                    < if outcomes.identities[q] % 2 == 0 {
                        11
                    } else {
                        9
                    }
            })
            .collect();
        let right = vec![true; keep.len()];
        let kept = outcomes.at(&keep, &outcomes.after, &right);
        let slices = test(
            &by_identity(&outcomes),
            &kept,
            Some(&keep),
            &policy,
            &intervals,
        );
        for (g, slice) in slices.iter().enumerate() {
            assert_eq!(slice.test.is_some(), g % 2 == 0, "identity {g}");
            assert!(
                slice
                    .members
                    .queries
                    .iter()
                    .all(|&q| kept.identities[q] == g as u32)
            );
        }
        assert_eq!(failing_names(&slices, &policy), ["identity=id0"]);
        let traffic = untestable_traffic(
            &[IDENTITY.into(), SUB_CLUSTER.into(), CAMERA.into()],
            &slices,
            kept.identities.len(),
        );
        let untested = 30.0 * 9.0 / (30.0 * 20.0);
        assert_eq!(traffic, [untested, untested, 1.0]);
    }

    #[test]
    fn a_policy_may_ask_for_proof_of_every_slice() {
        let outcomes = outcomes(0);
        let mut wide = outcomes.clone();
        // One identity whose queries scatter so much that nothing is proven either way.
        for q in 0..12 {
            wide.after[q] = if q % 2 == 0 { 1.0 } else { 0.6 };
        }
        for (outcomes, policy, state) in [
            (&outcomes, Policy::default(), CheckState::Pass),
            (&wide, Policy::default(), CheckState::Pass),
            (
                &wide,
                Policy::of(crate::config::Profile::Strict),
                CheckState::Unsettled,
            ),
        ] {
            let intervals = Intervals::new(&policy, 1);
            let slices = test(&by_identity(outcomes), outcomes, None, &policy, &intervals);
            assert_eq!(slices[0].state(&policy), state, "{:?}", slices[0].test);
            assert_eq!(slices[5].state(&policy), CheckState::Pass);
        }
    }
}
