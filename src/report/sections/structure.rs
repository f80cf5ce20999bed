//! The old space, and the items that a reader looks at.

use serde::{Deserialize, Serialize};

use crate::config::CredibilityCut;
use crate::domain::{Estimate, in_utf8};

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
    /// Where old and new embeddings of some items lie; `None` where the old space does not spread in two directions, and in a
    /// report of an earlier version.
    #[serde(default)]
    pub map: Option<MapSection>,
}

/// Sub-clusters, of those that lose most, that the map shows whole and in colours of their own.
pub const ON_MAP: usize = 6;

/// The first two principal components of the old gallery's embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MapSection {
    /// Share of the shown gallery items' variance along each axis.
    pub explained: [f64; 2],
    /// Some gallery items, then some queries.
    pub points: Vec<MapPointRow>,
}

/// One item on the map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MapPointRow {
    /// Item id.
    pub id: String,
    /// Sub-cluster name.
    pub subcluster: String,
    /// Whether it is a query and no gallery item.
    pub query: bool,
    /// Place of the old embedding.
    pub old: [f32; 2],
    /// Place of the new embedding on the same axes; `None` without one, or with another dimension.
    pub new: Option<[f32; 2]>,
    /// The sub-cluster of another identity whose prototype is nearest to the new embedding, where the nearest to the old one was
    /// of its own identity.
    pub moved_to: Option<String>,
}

/// Clusters of the old gallery that stand in for labels: every measure is agreement with the old model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClustersSection {
    /// Clusters.
    pub n_clusters: usize,
    /// Clusters of one gallery item.
    pub n_singletons: usize,
    /// Gallery items that were clustered; of the others those joined the nearest prototype that lie within its cluster's
    /// reach.
    pub clustered: usize,
    /// Gallery items beyond the reach of all clusters: distractors.
    pub outside: usize,
    /// Queries that search, where the gallery is large and only its items nearest to so many queries were clustered; `None`:
    /// the whole gallery was clustered, and all search.
    pub searching: Option<usize>,
    /// Mean leave-one-out silhouette of the clustered items, in [-1, 1]; `None` with one cluster.
    pub silhouette: Option<f64>,
    /// Mean adjusted Rand index against clusterings of four fifths of the items; `None` with one cluster.
    pub stability: Option<f64>,
    /// Adjusted Rand index against the probe's labels, which were not used; `None` without labels.
    pub labels_agreement: Option<f64>,
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
    /// Consensus over its queries; `None` where it was measured for none of them.
    pub consensus: Option<SubClusterConsensus>,
}

/// Means over the queries of one sub-cluster, and where those of the new model go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubClusterConsensus {
    /// Queries measured.
    pub queries: usize,
    /// Neighbourhood probability mass on the own identity, old queries.
    pub mass_old: f64,
    /// The same, new queries.
    pub mass_new: f64,
    /// KL(p_oo || p_no) over sub-cluster prototypes, nats.
    pub kl: f64,
    /// Share of queries whose arg-max identity is kept.
    pub argmax_kept: f64,
    /// The sub-cluster of another identity whose prototype is now nearest to most of its new queries, and to how many;
    /// `None` when every one of them stays with its own identity.
    pub confused_with: Option<(String, usize)>,
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
    /// Which score the cut is made on.
    pub cut: CredibilityCut,
    /// Items below it are called not credible.
    pub cutoff: f64,
    /// Items below the cut-off.
    pub below_cutoff: usize,
    /// Histogram of the score that the cut is made on, ten bins over [0, 1].
    pub histogram: Vec<usize>,
    /// The primary D without the gallery items below the cut-off; `None` when not tested.
    pub change_without_least_credible: Option<Estimate>,
    /// Share of negative flips whose lost hit is below the cut-off.
    pub flips_on_least_credible: Option<f64>,
    /// How many of the negative flips lost a hit that is among the least credible items; empty without flips.
    pub lost_hits: Vec<LostHitsRow>,
    /// The least credible items, least first, at most 24.
    pub least_credible: Vec<CredibilityRow>,
}

/// Damage on the least credible gallery items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LostHitsRow {
    /// Share of the assessed gallery items, least credible first; damage spread evenly would have this share too.
    pub least_credible: f64,
    /// So many items.
    pub items: usize,
    /// Share of the negative flips whose lost hit is one of them.
    pub lost_hits: f64,
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
    #[serde(serialize_with = "in_utf8")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub image: Option<std::path::PathBuf>,
    /// Path of a recording, when the item has one.
    #[serde(default, serialize_with = "in_utf8")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub sound: Option<std::path::PathBuf>,
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
