//! What can stop an adaptation.

use std::path::PathBuf;

use super::graph::GraphError;
use super::trial::TrialError;
use crate::audit::AuditError;
use crate::embed::EmbedError;

/// Why no adapted model was made.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// The probe or the models.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The new model's file.
    #[error(transparent)]
    Unreadable(Box<EmbedError>),
    /// The model that was written cannot be run.
    #[error("the adapted model cannot be run: {0}")]
    Written(Box<EmbedError>),
    /// Too little to fit on.
    #[error("{}: too few {what} to adapt with: expected {needed} or more, found {found}", origin.display())]
    TooFew {
        /// The probe.
        origin: PathBuf,
        /// What is counted.
        what: String,
        /// How many are needed.
        needed: usize,
        /// How many there are.
        found: usize,
    },
    /// Scores that are no cosines.
    #[error("a head is fitted for cosine similarity; this audit scores with {0}")]
    Similarity(String),
    /// The new side is stored embeddings.
    #[error("{}: a head is appended to an ONNX model, and these are stored embeddings", path.display())]
    Stored {
        /// The embeddings.
        path: PathBuf,
    },
    /// The new model is an adapted one.
    #[error("{}: it is an adapted model already (head: {head})", path.display())]
    Adapted {
        /// The model.
        path: PathBuf,
        /// Its head.
        head: String,
    },
    /// Only the first dimensions of the new model's output are used.
    #[error("{}: `dims` keeps {dims} dimensions of its output, and a head reads them all", path.display())]
    Truncated {
        /// The model.
        path: PathBuf,
        /// Dimensions kept.
        dims: usize,
    },
    /// The model's graph cannot take a head.
    #[error("{}: {source}", path.display())]
    Graph {
        /// The model.
        path: PathBuf,
        /// The cause.
        source: GraphError,
    },
    /// Automatic differentiation.
    #[error("the head cannot be trained: {0}")]
    Train(#[from] candle_core::Error),
    /// A head that cannot be tried.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// No map of least squares exists.
    #[error("no head can be fitted: the embeddings of {items} items span no map (all alike?)")]
    NoMap {
        /// Items fitted on.
        items: usize,
    },
    /// The written model gives other embeddings than the head in memory.
    #[error(
        "the adapted model gives other embeddings than its head: they differ by {difference:.1e}, more than {limit:.0e}; nothing was written"
    )]
    Differs {
        /// Largest difference of a value.
        difference: f64,
        /// The most that is allowed.
        limit: f64,
    },
    /// A file that is there and may not be replaced.
    #[error("{}: {why}", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// Reading or writing a file.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

impl AdaptError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            AdaptError::Audit(error) => return error.hint(),
            AdaptError::Unreadable(error) | AdaptError::Written(error) => return error.hint(),
            AdaptError::TooFew { what, .. } if what.starts_with("items") => {
                "give more items, as many as dimensions and half as many again: a fifth is held out for the test and a fifth chooses the head"
            }
            AdaptError::TooFew { .. } => {
                "a fifth is held out for the test and a fifth chooses the head; the verdict wants 20 query identities in the test, so 100 in all"
            }
            AdaptError::Similarity(_) => "adapt with --similarity cosine",
            AdaptError::Stored { .. } => "give the new model's .onnx",
            AdaptError::Adapted { .. } => {
                "adapt the model that it was made from: a second head would be tested on what the first has seen"
            }
            AdaptError::Truncated { .. } => {
                "leave `dims` away for the new model: the head gives as many dimensions as the old model has"
            }
            AdaptError::Graph { source, .. } => match source {
                GraphError::OperatorSet { .. } | GraphError::IrVersion { .. } => {
                    "export the model again with a newer opset (17 runs everywhere today)"
                }
                GraphError::NotComputed(_) | GraphError::Malformed(_) => "export the model again",
                GraphError::NoMask => {
                    "export it with an input `attention_mask`, or with its pooling inside"
                }
            },
            AdaptError::Train(_) => "please report it with the command line",
            AdaptError::Trial(_) | AdaptError::NoMap { .. } => {
                "audit the pair first: its report says what is the matter with the embeddings"
            }
            AdaptError::Differs { .. } => {
                "please report it with the command line and the kind of model"
            }
            AdaptError::Occupied { .. } => "--out names another file, in another folder if need be",
            AdaptError::Io { .. } => "--out writes to another place",
        };
        Some(hint.to_owned())
    }
}
