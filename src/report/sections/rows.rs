//! The tables that are too long for the JSON.

use crate::report::table_file::TableFile;

/// The tables that are too long for the JSON, as their files.
#[derive(Debug, Default)]
pub struct TableFiles {
    /// `items.parquet`: one [`ItemRow`] a probe item, in the probe's order; `None` where items are not to be named.
    pub items: Option<TableFile>,
    /// `backfill.csv` and `backfill.parquet`: one [`BackfillRow`] a gallery item, in the plan's order; `None` without a
    /// plan.
    pub backfill: Option<[TableFile; 2]>,
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
    /// Whether the verdict has it re-embedded before new queries search; `None` when it has nothing re-embedded or kept.
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
