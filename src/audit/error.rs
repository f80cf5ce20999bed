//! Why an audit ends without a verdict, and what to do about it.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::domain::{Side, nearest};
use crate::embed::EmbedError;
use crate::probe::ProbeError;
use crate::report::ReportError;
use crate::runtime::RuntimeError;
use crate::topk::ScoreOverflow;

/// Why an audit ended without a verdict.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A configured key that nothing would read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Stage 1.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Stage 2, with the model it happened to.
    #[error("{side} model: {source}")]
    Embed {
        /// Which model.
        side: Side,
        /// What happened.
        source: Box<EmbedError>,
    },
    /// `--strict` and the preprocessing was assumed.
    #[error(
        "{side} model: image preprocessing is not configured, and --strict refuses to assume it"
    )]
    PreprocessingAssumed {
        /// Which model.
        side: Side,
    },
    /// Unreadable items were tolerated, and no query or no gallery item is left.
    #[error(
        "{}: {bad} items cannot be read, and without them there are {queries} queries and {gallery} gallery items; {id}: {cause}",
        origin.display()
    )]
    AllUnreadable {
        /// The probe.
        origin: PathBuf,
        /// Unreadable items.
        bad: usize,
        /// Queries left.
        queries: usize,
        /// Gallery items left.
        gallery: usize,
        /// The first unreadable item.
        id: String,
        /// Why it cannot be read.
        cause: String,
    },
    /// No query is left to evaluate.
    #[error(
        "{}: none of the {queries} queries has a relevant gallery item ({gallery} gallery items)",
        origin.display()
    )]
    NothingToEvaluate {
        /// The probe.
        origin: PathBuf,
        /// Queries with an identity.
        queries: usize,
        /// Gallery items with an identity.
        gallery: usize,
    },
    /// The policy names a slice column that the probe lacks: nothing of it would be tested.
    #[error("policy, slices: {}: no column `{found}`; it has {}", origin.display(), known.join(", "))]
    UnknownSliceColumn {
        /// The probe.
        origin: PathBuf,
        /// The column.
        found: String,
        /// The columns there are.
        known: Vec<String>,
    },
    /// Stage 4.
    #[error(transparent)]
    Retrieve(#[from] ScoreOverflow),
    /// An adapted model and a probe that cannot say what its head has seen.
    #[error("{}: the {side} model was adapted on identities, and this probe names none: what its head has seen cannot be told", origin.display())]
    UnknownSplit {
        /// Which model.
        side: Side,
        /// The probe.
        origin: PathBuf,
    },
    /// An adapted model and a probe with nothing that its head is known not to have seen.
    #[error(
        "{}: of none of its {queries} queries is it known that the head of the {side} model was not fitted on it ({held_out} {units} were held out)",
        origin.display()
    )]
    NoneHeldOut {
        /// Which model.
        side: Side,
        /// The probe.
        origin: PathBuf,
        /// Its queries.
        queries: usize,
        /// Units that were held out when the head was fitted.
        held_out: usize,
        /// `identities` or `items`.
        units: String,
    },
    /// Stage 6.
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl AuditError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            AuditError::Config(error) => error.hint(),
            AuditError::Probe(error) => error.hint(),
            AuditError::Runtime(error) => error.hint(),
            AuditError::Embed { source, .. } => source.hint(),
            AuditError::PreprocessingAssumed { side } => Some(format!(
                "set mean, std and size under [{side}] in audit.toml; `compat-audit init` writes one"
            )),
            AuditError::AllUnreadable { .. } => Some(
                "are the paths right, seen from the manifest's folder? --max-bad-items tolerates a few damaged files".into(),
            ),
            AuditError::NothingToEvaluate { .. } => Some(
                "query and gallery identities must overlap; an identity with one item, or with all items of one camera, has nothing to find".into(),
            ),
            AuditError::UnknownSliceColumn { found, known, .. } => {
                nearest(found, known.iter().cloned()).map(|name| format!("did you mean `{name}`?"))
            }
            AuditError::Retrieve(_) => {
                Some("use --similarity cosine, or embeddings of a usual size".into())
            }
            AuditError::UnknownSplit { .. } => Some(
                "audit with the labels that it was adapted with, or adapt again without labels".into(),
            ),
            AuditError::NoneHeldOut { units, .. } => Some(format!(
                "audit it with the probe that it was adapted with or with new {units}; adapt it again if an earlier version of compat-audit made it"
            )),
            AuditError::Report(error) => error.hint(),
        }
    }
}
