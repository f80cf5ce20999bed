//! What the report holds: data only, every number unrounded and with its interval.

use serde::{Deserialize, Serialize};

use crate::domain::{Estimate, Finding, Measure, Setting, null_as};
use crate::judge::waivers::WaiverUse;
use crate::judge::{Check, CheckState, Verdict};

/// Version of the JSON's shape; raised when a field changes meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// What tells a report of ours from any other JSON.
pub const TOOL: &str = "compat-audit";

/// Everything the audit found. Same inputs give the same bytes outside `run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditReport {
    /// [`TOOL`].
    pub tool: String,
    /// Version of the JSON's shape.
    #[cfg_attr(test, schemars(extend("const" = SCHEMA_VERSION)))]
    pub schema_version: u32,
    /// The answer and why.
    pub verdict: VerdictSection,
    /// The measure that decides.
    pub primary: Measure,
    /// The checks, in the order of the verdict's table.
    pub checks: Vec<Check>,
    /// What was noticed beside the checks.
    pub findings: Vec<Finding>,
    /// The old model.
    pub old: ModelSection,
    /// The new model.
    pub new: ModelSection,
    /// The probe and its counts.
    pub probe: ProbeSection,
    /// Can this probe judge, and how fine.
    pub assay: AssaySection,
    /// One section a pairing that exists, in the order old->old, new->old, new->new, old->new.
    pub pairings: Vec<PairingSection>,
    /// new against old; `None` when the dimensions differ.
    pub compatibility: Option<CompatibilitySection>,
    /// Linear CKA of the two spaces, of any dimensions; `None` with fewer than four common items.
    pub cka: Option<CkaSection>,
    /// W = M(new->new) - M(old->old); `None` when new->new was not tested.
    pub upgrade_worth: Option<Estimate>,
    /// Identities, sub-clusters, cameras and manifest values on their own; `None` when new->old was not tested.
    pub slices: Option<SliceSection>,
    /// The gallery re-embedded step by step; `None` when new->old or new->new was not tested.
    pub refresh: Option<RefreshSection>,
    /// Which part of the gallery to re-embed first; `None` as for `refresh`.
    pub backfill: Option<BackfillSection>,
    /// What a fitted map of the new space onto the old one would recover; a diagnostic. `None` when nothing could be
    /// fitted.
    pub what_if: Option<WhatIfSection>,
    /// Sub-clusters, consensus and credibility of the old space.
    pub structure: StructureSection,
    /// The worst negative flips, worst first, at most 24.
    pub worst_flips: Vec<FlipExample>,
    /// An earlier audit beside this one; `None` without `--baseline`.
    pub baseline: Option<super::BaselineSection>,
    /// The policy as it was used.
    pub policy: PolicySection,
    /// Every setting with its origin.
    pub settings: Vec<Setting>,
    /// What changes from run to run.
    pub run: RunSection,
}

/// The answer and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VerdictSection {
    /// The answer.
    pub verdict: Verdict,
    /// The line of the verdict's table that matched, 2 to 9 (`docs/METRICS.md`).
    pub rule: u8,
    /// One sentence in words for a reader who stops here.
    pub reason: String,
    /// What could not be tested, one sentence each; shown first.
    pub not_tested: Vec<String>,
    /// D > 0 proven (the empirical criterion of BCT, Shen et al. 2020).
    pub bct_compatible: bool,
    /// Whether old->old gains nothing proven from the upgrade (W not proven > 0); `None` when not tested.
    pub gain_proven: Option<bool>,
    /// What to do next, one sentence each.
    pub next_steps: Vec<String>,
}

/// The policy and what was done to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PolicySection {
    /// Hash of the limits: equal hashes, equal limits.
    pub hash: String,
    /// What is looser than the profile, one line each.
    pub weakened: Vec<String>,
    /// What became of each waiver.
    pub waivers: Vec<WaiverUse>,
    /// Every limit.
    pub limits: crate::config::Policy,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ModelSection {
    /// File name.
    pub name: String,
    /// `onnx` or `stored`.
    pub kind: String,
    /// BLAKE3 over the file and its external data, hex.
    pub hash: String,
    /// BLAKE3 of the resolved preprocessing, hex.
    pub preprocessing: String,
    /// Dimensions of an embedding.
    pub dim: usize,
    /// Name of the output used, when an ONNX model.
    pub output: Option<String>,
    /// Execution provider in use, when an ONNX model.
    pub provider: Option<String>,
    /// ONNX Runtime's version, when an ONNX model.
    pub runtime_version: Option<String>,
    /// Element type that most of the weights are stored in, when an ONNX model.
    pub precision: Option<String>,
}

/// The probe and its counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProbeSection {
    /// Manifest or folder, as given.
    pub origin: String,
    /// `image`, `text`, `tensor` or `stored`.
    pub modality: String,
    /// All items read.
    pub items: usize,
    /// Queries that were evaluated.
    pub queries: usize,
    /// Identities of the evaluated queries.
    pub query_identities: usize,
    /// Queries left out because no relevant gallery item is left.
    pub queries_excluded: usize,
    /// Gallery items, junk excluded.
    pub gallery: usize,
    /// Identities of all items.
    pub identities: usize,
    /// Cameras (0: no camera column).
    pub cameras: usize,
    /// Items of identity -1.
    pub junk: usize,
    /// Gallery items of an identity that no query has.
    pub distractors: usize,
    /// Query-gallery pairs removed because the inputs are byte-identical.
    pub identical_pairs: usize,
    /// Query-gallery pairs removed because identity and camera agree.
    pub same_camera_pairs: usize,
    /// Relevance judgements; `None`: items of one identity are relevant to each other.
    pub qrels: Option<QrelsSection>,
    /// Items that could not be read and were left out (`--max-bad-items`): id and cause.
    pub bad_items: Vec<BadItemRow>,
}

/// Where the relevance judgements come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct QrelsSection {
    /// The file.
    pub origin: String,
    /// Judged pairs, not relevant ones included.
    pub judged: usize,
    /// Highest grade; above 1 makes nDCG see more than relevant or not.
    pub highest_grade: u32,
    /// Whether the probe names identities too; if not, each query is a unit of its own.
    pub identities_given: bool,
}

/// An item that could not be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BadItemRow {
    /// Item id.
    pub id: String,
    /// The error.
    pub error: String,
}

/// Assay sensitivity: can this probe tell a working model from shuffled labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AssaySection {
    /// Whether the probe can judge.
    pub can_judge: bool,
    /// Mean primary measure of old->old over the label permutations.
    pub shuffled: f64,
    /// Permutations.
    pub permutations: usize,
    /// (1 + #{permuted >= observed}) / (1 + permutations).
    pub p_value: f64,
    /// Largest margin this probe could judge: .2 * (lower bound of old->old - shuffled); null (minus infinity) when
    /// nothing bounds old->old from below.
    #[serde(deserialize_with = "null_as::minus_infinity")]
    pub largest_margin: f64,
    /// Loss of the primary measure that would be found with the policy's power; `None` without new->old.
    pub resolvable_margin: Option<f64>,
    /// Share of identities that could collapse unseen: 1 - .05^(1/identities).
    pub blind_share: f64,
}

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
    /// D with ties counted in the new model's favour instead of against it.
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
    /// True loss that this slice would show with power .8 after the correction.
    pub minimum_detectable_loss: f64,
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
    /// M(new->mixed(beta)) - M(old->old).
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

/// Sub-clusters, consensus and credibility.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StructureSection {
    /// Number of sub-clusters.
    pub n_subclusters: usize,
    /// Identities with more than one.
    pub n_split_identities: usize,
    /// Bootstrap adjusted Rand index of the split identities.
    pub stability: Option<f64>,
    /// The sub-clusters with queries, worst change first, at most 50.
    pub subclusters: Vec<SubClusterRow>,
    /// Consensus over the queries; `None` when the dimensions differ.
    pub consensus: Option<ConsensusSection>,
    /// Credibility of the old gallery.
    pub credibility: CredibilitySection,
}

/// One sub-cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubClusterRow {
    /// `identity` or `identity/2`.
    pub name: String,
    /// Gallery items.
    pub size: usize,
    /// Mean of 1 - cosine to the centroid.
    pub radius: f64,
    /// Nearest sub-cluster of another identity and its cosine.
    pub nearest_rival: Option<(String, f64)>,
    /// Queries assigned to it.
    pub queries: usize,
    /// Mean primary measure, old->old.
    pub old_old: Option<f64>,
    /// Mean primary measure, new->old.
    pub new_old: Option<f64>,
}

/// Means over queries of the consensus in both spaces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConsensusSection {
    /// Neighbourhood probability mass on the own identity, old queries.
    pub mass_old: f64,
    /// The same, new queries.
    pub mass_new: f64,
    /// NCCL's L = sum_j w_ij ln P(j|i), old queries.
    pub nccl_old: f64,
    /// The same, new queries.
    pub nccl_new: f64,
    /// Mean KL(p_oo || p_no) over sub-cluster prototypes, nats.
    pub kl: f64,
    /// Share of queries whose arg-max identity is kept.
    pub argmax_kept: f64,
    /// Temperature.
    pub temperature: f64,
}

/// Credibility of old gallery embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CredibilitySection {
    /// Gallery items with a score.
    pub assessable: usize,
    /// An identity's only items.
    pub not_assessable: usize,
    /// Temperature of the posterior (minimises the leave-one-out negative log-likelihood).
    pub temperature: f64,
    /// Items below it are called not credible.
    pub cutoff: f64,
    /// Items below the cut-off.
    pub below_cutoff: usize,
    /// Histogram of the combined score, ten bins over [0, 1].
    pub histogram: Vec<usize>,
    /// The primary D without the gallery items below the cut-off; `None` when not tested.
    pub change_without_least_credible: Option<Estimate>,
    /// Share of negative flips whose lost hit is below the cut-off.
    pub flips_on_least_credible: Option<f64>,
    /// The least credible items, least first, at most 24.
    pub least_credible: Vec<CredibilityRow>,
}

/// One gallery item's credibility, each score in [0, 1], high is credible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CredibilityRow {
    /// What to show.
    pub item: ItemView,
    /// 1 - H(p)/ln K.
    pub entropy: Option<f64>,
    /// Own-identity posterior.
    pub posterior: Option<f64>,
    /// Similarity-weighted share of nearest neighbours of the same identity.
    pub consensus: Option<f64>,
    /// Combined score.
    pub combined: f64,
}

/// How a reader recognises an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ItemView {
    /// Item id.
    pub id: String,
    /// Identity name.
    pub identity: String,
    /// Image path as read (for the thumbnail), when the item is an image.
    pub image: Option<std::path::PathBuf>,
    /// The text, when the item has one.
    pub text: Option<String>,
}

/// A query that the old model answers and the new one, on the old gallery, does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FlipExample {
    /// The query.
    pub query: ItemView,
    /// Rank of the first relevant item, old->old (1).
    pub old_rank: u64,
    /// Rank of the first relevant item, new->old.
    pub new_rank: u64,
    /// Whether new->new finds it: then skipping the backfill is at fault.
    pub excess: Option<bool>,
    /// Top hits of old->old, best first, at most 3.
    pub old_hits: Vec<HitView>,
    /// Top hits of new->old, best first, at most 3.
    pub new_hits: Vec<HitView>,
}

/// One hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HitView {
    /// The gallery item.
    pub item: ItemView,
    /// Its score.
    pub score: f32,
    /// Whether it is relevant.
    pub relevant: bool,
}

/// What changes from run to run; the only part of the JSON that may.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RunSection {
    /// compat-audit's version.
    pub tool_version: String,
    /// Start, seconds since the Unix epoch.
    pub started_unix: u64,
    /// Wall seconds a stage, in order.
    pub stage_seconds: Vec<(String, f64)>,
    /// The command line.
    pub command: Vec<String>,
    /// The working directory, where relative picture paths start: as seen from the report's folder when that lies
    /// below it (both may then move together), else absolute.
    #[serde(default)]
    pub directory: Option<String>,
    /// Threads.
    pub threads: usize,
    /// Path of the ONNX Runtime library.
    pub runtime_library: Option<String>,
    /// Embeddings read from the cache and computed, old then new.
    pub from_cache: [usize; 2],
    /// See `from_cache`.
    pub embedded: [usize; 2],
}

/// The tables that are too long for the JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// One a probe item, in the probe's order.
    pub items: Vec<ItemRow>,
    /// One a gallery item, in the order of the backfill plan; empty without a plan.
    pub backfill: Vec<BackfillRow>,
}

/// One row of `backfill.csv` and `backfill.parquet`.
#[derive(Debug, Clone, PartialEq)]
pub struct BackfillRow {
    /// Place in the order, from 1.
    pub place: u64,
    /// Item id.
    pub id: String,
    /// Identity name.
    pub identity: String,
    /// Sub-cluster name.
    pub subcluster: Option<String>,
    /// Combined credibility of the old embedding.
    pub credibility: Option<f64>,
    /// The first share of the gallery whose re-embedding includes it.
    pub beta: f64,
    /// Whether it belongs to the part that beta* asks for; `None` without a beta*.
    pub needed: Option<bool>,
}

/// One row of `items.parquet`.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemRow {
    /// Item id.
    pub id: String,
    /// Identity name, `-1` for junk.
    pub identity: String,
    /// Camera name.
    pub camera: Option<String>,
    /// `query`, `gallery` or `both`.
    pub role: crate::domain::Role,
    /// Sub-cluster name.
    pub subcluster: Option<String>,
    /// Combined credibility (gallery items).
    pub credibility: Option<f64>,
    /// Rank of the first relevant item a pairing, in the order of [`crate::domain::Pairing::ALL`]; `None` when not a
    /// query, excluded or not tested.
    pub first_rank: [Option<u64>; 4],
    /// Average precision a pairing, same order.
    pub average_precision: [Option<f64>; 4],
    /// `negative`, `positive`, `excess` or none.
    pub flip: Option<&'static str>,
}
