//! What is noticed beside the checks.

use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// May change how far the verdict can be trusted.
    Warning,
}

/// Stable names of what can be noticed beside the checks; kebab-case in the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FindingCode {
    /// Image preprocessing was not configured: RGB, /255, no mean and std.
    PreprocessingAssumed,
    /// modules.json beside the model names modules that are not run.
    ModulesIgnored,
    /// config_sentence_transformers.json beside the model names prompts, and no prefix is configured.
    PromptsUnused,
    /// Embedding an item alone and in a batch gives different vectors.
    BatchDependent,
    /// 16-bit images were scaled to 8 bits.
    SixteenBitScaled,
    /// More than 1 % of the items have byte-identical inputs.
    DuplicateInputs,
    /// Clusters of the old embeddings stand in for labels; every measure is agreement with the old model.
    LabelFree,
    /// The new model is an adapted one; only what its head has not seen is tested.
    AdaptedModel,
    /// No identity column; relevance is judged by qrels.
    NoIdentities,
    /// No role column, though another one says query and gallery.
    NoRoles,
    /// No camera column, so same-session near-duplicates cannot be removed.
    NoCameras,
    /// Items that could not be read were left out.
    BadItems,
    /// Queries without a relevant gallery item were left out.
    QueriesExcluded,
    /// Gallery items without input: only the old gallery can be tested.
    InputsMissing,
    /// Stored embeddings differ from what the old model gives today.
    StoredEmbeddingsDiffer,
    /// The two models' dimensions differ.
    DimensionsDiffer,
    /// All embeddings of a model are (almost) the same.
    CollapsedEmbeddings,
    /// old->old is near its ceiling, so the probe is too easy to show damage.
    Ceiling,
    /// An execution provider was asked for automatically and is not in use.
    ProviderFallback,
    /// Too few identities or pairs for verification measures.
    VerificationNotReported,
    /// Credibility and consensus were measured on a sample.
    Sampled,
    /// One identity holds more than 10 % of the queries.
    DominantIdentity,
    /// Files or folders under DATA that are no probe images were not read.
    FilesIgnored,
}

/// Something noticed that is not a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// Stable code.
    pub code: FindingCode,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence with the numbers.
    pub message: String,
    /// Item ids it is about, at most a few; empty when it is about all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

impl Finding {
    /// A finding without item ids.
    pub fn new(code: FindingCode, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            message: message.into(),
            items: Vec::new(),
        }
    }
}
