//! The pairings, and what changes between them.

use serde::{Deserialize, Serialize};

use crate::domain::Estimate;

/// One pairing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PairingSection {
    /// `query->gallery`.
    pub pairing: String,
    /// Measures with intervals; the primary one first.
    pub measures: Vec<MeasureRow>,
    /// Verification over all pairs, when there are enough of them.
    pub verification: Option<VerificationSection>,
}

/// One measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MeasureRow {
    /// `mAP`, `CMC@1`, ...
    pub measure: String,
    /// The number.
    pub estimate: Estimate,
    /// The number with ties counted in the query's favour instead of against it.
    pub optimistic: f64,
}

/// Verification over all non-junk query-gallery pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VerificationSection {
    /// Matching pairs.
    pub matches: u64,
    /// Non-matching pairs.
    pub non_matches: u64,
    /// Area under the ROC curve, ties one half.
    pub auroc: f64,
    /// Equal error rate.
    pub eer: f64,
    /// True-accept rates at the false-accept rates that the number of pairs supports.
    pub operating_points: Vec<OperatingPoint>,
    /// How the scores are spread; `None` in a report of an earlier version.
    #[serde(default)]
    pub scores: Option<ScoreHistogramSection>,
}

/// Matching and non-matching scores, counted in the same bins: bin i spans from `lowest + i * width` to the next. A score
/// that equals an edge counts in the bin farther from zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ScoreHistogramSection {
    /// Lower edge of the first bin.
    pub lowest: f64,
    /// Width of a bin, a power of two.
    pub width: f64,
    /// Matching pairs in each bin.
    pub matches: Vec<u64>,
    /// Non-matching pairs in each bin.
    pub non_matches: Vec<u64>,
}

/// One threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OperatingPoint {
    /// False-accept rate asked for.
    pub far: f64,
    /// Smallest observed score with FAR <= `far`.
    pub threshold: f64,
    /// True-accept rate at the threshold.
    pub tar: f64,
    /// FAR reached at the threshold.
    pub observed_far: f64,
}

/// What the new queries do to the old gallery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CompatibilitySection {
    /// new->old minus old->old for every measure, the primary first (D).
    pub change: Vec<MeasureRow>,
    /// D with ties counted in the query's favour under both pairings instead of against it.
    pub change_optimistic: f64,
    /// Mean over identities of each identity's mean change (sensitivity to large identities).
    pub change_identity_weighted: f64,
    /// Update gain; `None` means undefined (W > 0 is not proven) or not tested.
    pub update_gain: Option<Estimate>,
    /// CMC@1 flips.
    pub flips: FlipSection,
    /// Top-k overlap of the old->old and new->old rankings.
    pub overlap: Vec<OverlapRow>,
    /// Rank-biased overlap of the old->old and new->old rankings, the mean over queries (p = .9, extrapolated).
    pub rank_biased_overlap: f64,
    /// Cosine of each item's old and new embedding: minimum, quartiles, maximum, mean.
    pub alignment: Option<Quantiles>,
    /// FAR and FRR of new->old (and new->new) at the old->old thresholds.
    pub threshold_transfer: Vec<ThresholdTransferRow>,
}

/// CMC@1 right or wrong, counted over queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FlipSection {
    /// Right under both old->old and new->old.
    pub right_right: usize,
    /// Right under old->old, wrong under new->old (negative flip).
    pub right_wrong: usize,
    /// Wrong under old->old, right under new->old (positive flip).
    pub wrong_right: usize,
    /// Wrong under both.
    pub wrong_wrong: usize,
    /// Share of negative flips.
    pub negative: Estimate,
    /// Share of positive flips.
    pub positive: Estimate,
    /// Share of excess flips; `None` when new->new was not tested.
    pub excess: Option<Estimate>,
    /// p-value of the cluster sign-flip test of asymmetry.
    pub asymmetry_p: f64,
}

/// Top-k overlap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OverlapRow {
    /// k (cut to the gallery's size).
    pub k: usize,
    /// Mean share of common items in the top k.
    pub overlap: f64,
}

/// Debiased linear CKA of the two spaces; it cannot see a rotation and never reaches the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CkaSection {
    /// In [-1, 1]; about 0 for unrelated spaces, 1 for spaces that are equal up to a rotation and a scale.
    pub value: f64,
    /// Items it was computed on, at most 10,000.
    pub items: usize,
}

/// Five-number summary and mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Quantiles {
    /// Smallest.
    pub min: f64,
    /// 25 %.
    pub lower_quartile: f64,
    /// 50 %.
    pub median: f64,
    /// 75 %.
    pub upper_quartile: f64,
    /// Largest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
}

/// What a hard-wired threshold would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ThresholdTransferRow {
    /// False-accept rate the threshold was set for under old->old.
    pub far: f64,
    /// The old->old threshold.
    pub threshold: f64,
    /// `new->old` or `new->new`.
    pub pairing: String,
    /// False-accept rate there.
    pub observed_far: f64,
    /// False-reject rate there.
    pub observed_frr: f64,
}
