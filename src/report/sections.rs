//! What the report holds: data only, every number unrounded and with its interval.

mod gate;
mod pairings;
mod rows;
mod structure;

use serde::{Deserialize, Serialize};

use crate::domain::{Adaptation, Estimate, Finding, NamedMeasure, Setting, null_as};
use crate::judge::waivers::WaiverUse;
use crate::judge::{Check, Verdict};

pub use gate::*;
pub use pairings::*;
pub use rows::*;
pub use structure::*;

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
    pub primary: NamedMeasure,
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
    /// The clusters of old embeddings that stand in for labels; `None` with labels.
    pub clusters: Option<ClustersSection>,
    /// Sub-clusters, consensus and credibility of the old space.
    pub structure: StructureSection,
    /// The worst negative flips, worst first, at most 24.
    pub worst_flips: Vec<FlipExample>,
    /// An earlier audit beside this one; `None` without `--baseline`.
    pub baseline: Option<super::BaselineSection>,
    /// Whether items are shown.
    #[serde(default)]
    pub privacy: super::Privacy,
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
    /// Whether a gain from the upgrade is proven (W > 0); `None` when not tested.
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
    /// How the model was adapted to the old one, if it was: its head was fitted on the other identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptation: Option<Adaptation>,
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
    /// Its row in the manifest (in csv and jsonl the line of the file), where there is one.
    pub row: Option<u32>,
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
    #[cfg_attr(test, schemars(with = "Option<f64>"))]
    pub largest_margin: f64,
    /// Loss of the primary measure that would be found with the policy's power; `None` without new->old.
    pub resolvable_margin: Option<f64>,
    /// Share of identities that could collapse unseen: 1 - .05^(1/identities).
    pub blind_share: f64,
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
    /// The execution provider on which long passes over scores began; `None`: none did, or it failed on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_pass: Option<String>,
    /// Embeddings read from the cache and computed, old then new.
    pub from_cache: [usize; 2],
    /// See `from_cache`.
    pub embedded: [usize; 2],
}
