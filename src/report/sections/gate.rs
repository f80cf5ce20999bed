//! What can break behind a good mean: slices, refreshes, the backfill plan, fitted maps.

use serde::{Deserialize, Serialize};

use crate::domain::Estimate;
use crate::judge::CheckState;

/// Parts of the queries on their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SliceSection {
    /// Columns whose values are slices.
    pub columns: Vec<SliceColumn>,
    /// Queries from which a slice is tested.
    pub min_queries: usize,
    /// The tested slices, failing first, then by adjusted p, then by change; all of them.
    pub tested: Vec<SliceRow>,
    /// Number of slices with too few queries.
    pub n_untestable: usize,
    /// The largest of them, at most 50.
    pub untestable: Vec<UntestableSlice>,
}

/// One column of slices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SliceColumn {
    /// `identity`, `sub-cluster`, `camera` or a manifest column.
    pub column: String,
    /// Its slices that were tested.
    pub tested: usize,
    /// Its slices with too few queries.
    pub untestable: usize,
    /// Share of the queries that lie in none of its tested slices.
    pub untestable_traffic: f64,
}

/// One tested slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SliceRow {
    /// `column=value`.
    pub name: String,
    /// Queries.
    pub queries: usize,
    /// Their identities.
    pub identities: usize,
    /// Its share of all queries.
    pub share: f64,
    /// Mean primary measure, old->old.
    pub old_old: f64,
    /// Mean primary measure, new->old.
    pub new_old: f64,
    /// new->old minus old->old; the interval is the slice's own, not corrected for their number.
    pub change: Estimate,
    /// p of "loses no more than the slice margin", not corrected.
    pub p: f64,
    /// The same, Holm-corrected over all tested slices.
    pub p_holm: f64,
    /// False-discovery rate at which it would be called a suspect (Benjamini and Hochberg).
    pub q: f64,
    /// True loss that this slice would show with power .8 after the correction; `None` where no loss would.
    pub minimum_detectable_loss: Option<f64>,
    /// What follows for the check on slices.
    pub state: CheckState,
    /// q at most alpha: worth a look, proves nothing.
    pub suspect: bool,
}

/// A slice with too few queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UntestableSlice {
    /// `column=value`.
    pub name: String,
    /// Queries.
    pub queries: usize,
    /// Its share of all queries.
    pub share: f64,
}

/// new->mixed(beta): a gallery of which the share beta is re-embedded by the new model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefreshSection {
    /// The curve in the order of the backfill plan, beta rising from 0 to 1.
    pub curve: Vec<RefreshPoint>,
    /// Area under M(new->mixed(beta)) - M(old->old) over beta (trapezoids), plan's order.
    pub area: f64,
    /// Mean curve over random orders: M(new->mixed(beta)) - M(old->old) at the same betas.
    pub random: Vec<f64>,
    /// Random orders in the mean.
    pub random_orders: usize,
    /// Area under the mean random curve.
    pub random_area: f64,
    /// beta of the lowest point of the plan's curve.
    pub worst_beta: f64,
    /// beta of the lowest point of the mean random curve.
    pub random_worst_beta: f64,
}

/// One point of the refresh curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefreshPoint {
    /// Share of the gallery that is re-embedded.
    pub beta: f64,
    /// Number of items that is.
    pub items: usize,
    /// M(new->mixed(beta)) - M(old->old); the interval is the point's own. A check that finds a point below its limit has the
    /// wider one that holds at all points at once: its level is higher.
    pub change: Estimate,
}

/// Which part of the gallery to re-embed first, and how much of it is enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackfillSection {
    /// The smallest share at which all gates pass on queries that did not fix the order; `None` when not even
    /// the whole gallery passes.
    pub beta_star: Option<f64>,
    /// Largest share that counts as a partial backfill.
    pub max_partial: f64,
    /// Queries that fixed the order, and queries that tested it.
    pub split: [usize; 2],
    /// The shares tested, from 1 downwards, up to the first that did not pass.
    pub steps: Vec<BackfillStep>,
    /// Sub-clusters that come first in the order.
    pub first_subclusters: Vec<String>,
    /// Gallery items in the order of the plan; `backfill.csv` and `backfill.parquet` list them.
    pub items: usize,
    /// Money and hours, when `--gallery-size` is given.
    pub cost: Option<CostSection>,
}

/// One share tested on the held-out queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackfillStep {
    /// The share.
    pub beta: f64,
    /// M(new->mixed(beta)) - M(old->old) on the held-out queries.
    pub change: Estimate,
    /// Excess flips there.
    pub excess_flips: Estimate,
    /// Slices that fail there.
    pub failing_slices: Vec<String>,
    /// Whether all gates pass.
    pub passes: bool,
}

/// What a fitted map would recover, on identities that it was not fitted on. Never reaches the verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WhatIfSection {
    /// Items the maps were fitted on.
    pub fit_items: usize,
    /// Queries they were tested on.
    pub test_queries: usize,
    /// Primary measure of old->old on the test queries.
    pub old_old: f64,
    /// Primary measure of new->old there; `None` when the dimensions differ.
    pub new_old: Option<f64>,
    /// One row a map.
    pub maps: Vec<WhatIfRow>,
}

/// One map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WhatIfRow {
    /// `procrustes` (orthogonal) or `linear`.
    pub map: String,
    /// Primary measure of map(new)->old on the test queries.
    pub mapped: f64,
    /// The same minus old->old.
    pub change: Estimate,
}

/// What skipping, a partial and a full backfill cost for the production gallery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CostSection {
    /// Items of the production gallery.
    pub gallery_size: u64,
    /// Money a million items; `None` when not given.
    pub cost_per_million: Option<f64>,
    /// Items a second; `None` when not given.
    pub throughput: Option<f64>,
    /// Skip, partial (at beta*), full.
    pub options: Vec<CostRow>,
}

/// One way to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CostRow {
    /// `skip`, `partial` or `full`.
    pub option: String,
    /// Items to re-embed.
    pub items: u64,
    /// Money.
    pub cost: Option<f64>,
    /// Hours.
    pub hours: Option<f64>,
}
