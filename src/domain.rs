//! The nouns that every stage shares: items, identities, embeddings, pairings, measures, estimates.
//!
//! Nothing here decodes a file or computes a measure. Bad values are refused where they are built, so the
//! stages after `embed` need not look for NaN again.

mod adaptation;
mod check;
mod date;
mod embeddings;
mod finding;
mod item;
mod measure;
mod name_index;
mod paths;
mod probe;
mod progress;
mod qrels;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use adaptation::{Adaptation, IDENTITIES, Known, OwnSearch, Seen};
pub use check::{CheckCode, CheckSeverity, UnknownName, nearest};
pub use date::{Date, NotADate};
pub use embeddings::{Element, Embeddings, EmbeddingsError, Mapped, Rows, Scale, cosine};
pub use finding::{Finding, FindingCode, Severity};
pub use item::{Beside, Item, Labels, OptionalIndex, Source, sound_type};
pub use measure::{Measure, NamedMeasure, Reference};
pub use name_index::NameIndex;
pub use paths::{broken_link, folder_of, in_utf8, is_named};
pub use probe::Probe;
pub use progress::{NoProgress, Progress};
pub use qrels::{Judgement, Qrels};

/// What an item is used for in retrieval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Searches, is never found.
    Query,
    /// Is found, never searches.
    Gallery,
    /// Both; the item itself is removed from its own ranking.
    Both,
}

impl Role {
    /// Whether the item searches.
    pub fn is_query(self) -> bool {
        matches!(self, Role::Query | Role::Both)
    }

    /// Whether the item can be found.
    pub fn is_gallery(self) -> bool {
        matches!(self, Role::Gallery | Role::Both)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Query => "query",
            Role::Gallery => "gallery",
            Role::Both => "both",
        })
    }
}

/// What kind of input the probe's items are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Image files.
    Image,
    /// Texts, to be tokenised.
    Text,
    /// Ready-made model inputs.
    Tensor,
    /// No inputs at all: both sides are stored embeddings.
    Stored,
}

/// Which of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The model that built the gallery.
    Old,
    /// The model that would search it.
    New,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Old => "old",
            Side::New => "new",
        })
    }
}

/// Which model embeds the query and which the gallery; always printed `query->gallery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pairing {
    /// The model of the query.
    pub query: Side,
    /// The model of the gallery.
    pub gallery: Side,
}

impl Pairing {
    /// Self-test of what runs today.
    pub const OLD_OLD: Pairing = Pairing {
        query: Side::Old,
        gallery: Side::Old,
    };
    /// Cross-test: what runs if the backfill is skipped.
    pub const NEW_OLD: Pairing = Pairing {
        query: Side::New,
        gallery: Side::Old,
    };
    /// Self-test of what a full backfill buys.
    pub const NEW_NEW: Pairing = Pairing {
        query: Side::New,
        gallery: Side::New,
    };
    /// Old clients, or a rollback, against a refreshed gallery.
    pub const OLD_NEW: Pairing = Pairing {
        query: Side::Old,
        gallery: Side::New,
    };
    /// All four, in the order of every table.
    pub const ALL: [Pairing; 4] = [Self::OLD_OLD, Self::NEW_OLD, Self::NEW_NEW, Self::OLD_NEW];
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.query, self.gallery)
    }
}

impl Serialize for Pairing {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How an interval was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Bias-corrected and accelerated bootstrap over identities (Efron 1987), never inside the linearised t.
    BcaByIdentity,
    /// Linearised t over identities, for fewer than 40 of them.
    LinearisedT,
    /// Clopper-Pearson at the effective sample size (Korn and Graubard 1998).
    KornGraubard,
    /// t over queries with a variance moderated over all small slices (Smyth 2004).
    ModeratedT,
}

/// A number with its two-sided interval; they travel together.
///
/// `lower` is also the one-sided bound at `1 - (1 - level) / 2`: with the default `level` of .90 each
/// end is a one-sided 95 % bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Estimate {
    /// The point estimate; NaN without data.
    #[serde(deserialize_with = "null_as::not_a_number")]
    #[cfg_attr(test, schemars(with = "Option<f64>"))]
    pub value: f64,
    /// Lower end; minus infinity when nothing bounds the value from below.
    #[serde(deserialize_with = "null_as::minus_infinity")]
    #[cfg_attr(test, schemars(with = "Option<f64>"))]
    pub lower: f64,
    /// Upper end; infinity when nothing bounds the value from above.
    #[serde(deserialize_with = "null_as::infinity")]
    #[cfg_attr(test, schemars(with = "Option<f64>"))]
    pub upper: f64,
    /// Two-sided confidence level in (0, 1).
    pub level: f64,
    /// Standard error of the point estimate, 0 when it cannot vary, infinite with one identity.
    #[serde(deserialize_with = "null_as::infinity")]
    #[cfg_attr(test, schemars(with = "Option<f64>"))]
    pub standard_error: f64,
    /// How the ends were made.
    pub method: IntervalMethod,
}

/// JSON has no infinity and no NaN: they are written as null, and these read them back.
pub(crate) mod null_as {
    use serde::{Deserialize, Deserializer};

    pub fn infinity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
    }

    pub fn minus_infinity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NEG_INFINITY))
    }

    pub fn not_a_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

/// Where a setting's value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The built-in default.
    Default,
    /// Read from the model file.
    Model,
    /// A file beside the model (`preprocessor_config.json`, `1_Pooling/config.json`).
    Sidecar,
    /// audit.toml.
    File,
    /// The command line.
    Flag,
    /// Measured on this machine, as asked for.
    Measured,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Default => "default",
            Origin::Model => "model file",
            Origin::Sidecar => "file beside the model",
            Origin::File => "audit.toml",
            Origin::Flag => "command line",
            Origin::Measured => "measured",
        })
    }
}

/// One setting as it was used, for the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setting {
    /// Dotted key, as in audit.toml (`old.mean`).
    pub key: String,
    /// Its value.
    pub value: serde_json::Value,
    /// Where it came from.
    pub origin: Origin,
}
