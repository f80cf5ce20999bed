//! The nouns that every stage shares: items, identities, embeddings, pairings, measures, estimates.
//!
//! Nothing here reads a file or computes a metric. Bad values are refused where they are built, so the
//! stages after `embed` need not look for NaN again.

mod adaptation;
mod check;
mod date;
mod embeddings;
mod finding;
mod item;
mod measure;
mod name_index;
mod progress;
mod qrels;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use adaptation::{Adaptation, IDENTITIES, OwnSearch};
pub use check::{CheckCode, CheckSeverity, UnknownName, nearest};
pub use date::{Date, NotADate};
pub use embeddings::{Element, Embeddings, EmbeddingsError, Mapped, Rows, Scale, cosine};
pub use finding::{Finding, FindingCode, Severity};
pub use item::{Beside, Item, Labels, OptionalIndex, Source, sound_type};
pub use measure::{Measure, NamedMeasure, Reference};
pub use name_index::NameIndex;
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

/// A data set to audit with, in its defined order.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The items, in the manifest's order, else bytewise by id.
    pub items: Vec<Item>,
    /// Label names, by label index.
    pub labels: Vec<String>,
    /// Identity names, by identity index (a component is named after its first label).
    pub identities: Vec<String>,
    /// Camera names, by camera index.
    pub cameras: Vec<String>,
    /// Names of the manifest columns that are slices.
    pub slice_columns: Vec<String>,
    /// The kind of input.
    pub modality: Modality,
    /// Where it was read from: the manifest file or the folder.
    pub origin: std::path::PathBuf,
    /// The tensor file beside the manifest, when the items are tensor rows.
    pub tensors: Option<std::path::PathBuf>,
    /// Relevance judgements; `None`: items are relevant to each other when they share a label.
    pub qrels: Option<Qrels>,
    /// What the labels are.
    pub reference: Reference,
    /// What was noticed while reading.
    pub findings: Vec<Finding>,
}

impl Probe {
    /// Indices of the items that search and have an identity, in item order.
    pub fn queries(&self) -> Vec<usize> {
        (0..self.items.len())
            .filter(|&i| self.items[i].role.is_query() && self.items[i].identity.is_some())
            .collect()
    }

    /// Indices of the items that can be found, junk excluded, in item order.
    pub fn gallery(&self) -> Vec<usize> {
        (0..self.items.len())
            .filter(|&i| self.items[i].role.is_gallery() && self.items[i].identity.is_some())
            .collect()
    }

    /// For each label of the queries the rising positions of the gallery items that have it. `gallery` and `queries` are item
    /// indices.
    pub fn positions_of_labels(
        &self,
        queries: &[usize],
        gallery: &[usize],
    ) -> BTreeMap<u32, Vec<u32>> {
        let labels = queries.iter().flat_map(|&query| &self.items[query].labels);
        let mut positions: BTreeMap<u32, Vec<u32>> =
            labels.map(|&label| (label, Vec::new())).collect();
        for (position, &item) in gallery.iter().enumerate() {
            for label in &self.items[item].labels {
                if let Some(of_label) = positions.get_mut(label) {
                    of_label.push(position as u32);
                }
            }
        }
        positions
    }

    /// Whether the gallery item is relevant to the query: as judged, else by a shared label. Both are item indices.
    pub fn is_relevant(&self, query: usize, item: usize) -> bool {
        match &self.qrels {
            Some(qrels) => qrels.is_relevant(query, item),
            None => self.items[item].is_relevant_to(&self.items[query]),
        }
    }

    /// Whether the probe says who its items are. If not, relevance is judged, each item is its own identity, and nothing
    /// that compares items of one identity can be measured.
    pub fn names_identities(&self) -> bool {
        self.qrels.as_ref().is_none_or(Qrels::identities_given)
    }

    /// Whether there are identities that a split can keep whole: labels, and they are used.
    pub fn splits_by_identity(&self) -> bool {
        self.names_identities() && self.reference == Reference::Labels
    }

    /// The names by which an item goes to one side of a split: its labels', or its own; none of junk.
    pub fn split_names(&self, item: usize, by_identity: bool) -> Vec<&str> {
        let item = &self.items[item];
        if item.identity.is_none() {
            Vec::new()
        } else if by_identity {
            let labels = item.labels.iter();
            labels
                .map(|&label| self.labels[label as usize].as_str())
                .collect()
        } else {
            vec![&item.id]
        }
    }

    /// Keeps the items whose flag is set; identities, labels and cameras keep their indices.
    ///
    /// `keep` has one flag an item.
    pub fn retain(&mut self, keep: &[bool]) {
        if let Some(qrels) = &mut self.qrels {
            qrels.retain(keep);
        }
        let mut flags = keep.iter();
        self.items
            .retain(|_| *flags.next().expect("one flag an item"));
    }

    /// Puts clusters of old embeddings in the place of the labels; `None` leaves an item out, as junk.
    ///
    /// `of_item` has one entry an item, an index into `names`. Of `searching`, rising, the queries are listed that stay
    /// queries; `None`: all of them.
    pub fn relabel(
        &mut self,
        of_item: &[Option<u32>],
        names: Vec<String>,
        searching: Option<&[usize]>,
    ) {
        assert_eq!(of_item.len(), self.items.len(), "one entry an item");
        for (item, &cluster) in self.items.iter_mut().zip(of_item) {
            item.labels = cluster.into_iter().collect();
            item.identity = cluster.into();
        }
        if let Some(searching) = searching {
            for (index, item) in self.items.iter_mut().enumerate() {
                if searching.binary_search(&index).is_ok() {
                    continue;
                }
                match item.role {
                    Role::Both => item.role = Role::Gallery,
                    // A query that does not search is nothing else.
                    Role::Query => {
                        (item.labels, item.identity) = (Labels::default(), OptionalIndex::NONE)
                    }
                    Role::Gallery => {}
                }
            }
        }
        self.labels.clone_from(&names);
        self.identities = names;
        self.reference = Reference::OldModel;
    }

    /// The name of an item's identity, or `-1` for junk.
    pub fn identity_name(&self, item: usize) -> &str {
        self.items[item]
            .identity
            .get()
            .map_or("-1", |identity| &self.identities[identity as usize])
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::testing::probe_of;

    #[test]
    fn positions_are_listed_for_the_labels_of_queries_alone() {
        let mut probe = probe_of(&[0, 1, 0, 2, 1, 0]);
        probe.items[4].labels = vec![0, 1].into();
        let gallery = [0, 2, 3, 4, 5];
        let found = probe.positions_of_labels(&[1, 2], &gallery);
        let expected = [(0, vec![0, 1, 3, 4]), (1, vec![3])];
        assert_eq!(found, BTreeMap::from(expected));
    }
}
