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
    let names = structure.subcluster_names(probe);
    let is_split = structure.split_identities(probe);
    let with_identities = columns.iter().any(|column| column == IDENTITY);
    let mut all = Vec::new();
    for column in columns {
        let manifest_column = probe.slice_columns.iter().position(|name| name == column);
        let value_of = |item: usize| -> Option<String> {
            let of = &probe.items[item];
            match (column.as_str(), manifest_column) {
                (_, Some(index)) => of.slices[index].clone(),
                (IDENTITY, None) => Some(probe.identities[of.identity? as usize].clone()),
                (SUB_CLUSTER, None) => {
                    let index = structure.assignment[item]? as usize;
                    let identity = structure.subclusters[index].identity as usize;
                    (is_split[identity] || !with_identities).then(|| names[index].clone())
                }
                (CAMERA, None) => Some(probe.cameras[of.camera? as usize].clone()),
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
            values.push(SliceValues {
                values: queries.iter().map(|&q| change[q]).collect(),
                identities,
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

/// Names of the failing slices.
pub fn failing(evidence: &Evidence, policy: &Policy) -> Vec<String> {
    evidence
        .slices
        .iter()
        .flatten()
        .filter(|slice| slice.state(policy) == CheckState::Fail)
        .map(|slice| slice.members.name())
        .collect()
}
