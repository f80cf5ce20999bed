//! How well heads do on queries that they were not fitted on.

use super::head::Head;
use crate::audit::{self, Embedding};
use crate::config::Similarity;
use crate::domain::{Embeddings, EmbeddingsError, Measure, NamedMeasure, Probe, Reference};
use crate::retrieve::measures;
use crate::retrieve::protocol::{Protocol, QueryProtocol};
use crate::retrieve::rank::{RankSet, Ranking, rank};
use crate::structure::{self, StructureOptions};
use crate::topk::{Gallery, ScoreOverflow};

/// Some of the probe's items, with nothing of the others: neither to be found nor to be confused with.
pub struct Subset {
    /// Index of each item in the whole probe.
    pub items: Vec<usize>,
    probe: Probe,
    digests: Vec<Option<[u8; 32]>>,
    old: Embeddings,
    new: Embeddings,
}

impl Subset {
    /// The wanted items that have both embeddings: of what only the old gallery still holds, new->new cannot be measured.
    ///
    /// Without labels, clusters of these items' old embeddings stand in for them, as in an audit.
    pub fn new(
        embedding: &Embedding,
        wanted: impl Fn(usize) -> bool,
        options: &StructureOptions,
    ) -> Self {
        let Embedding {
            probe, old, new, ..
        } = embedding;
        let keep: Vec<bool> = (0..probe.items.len())
            .map(|item| wanted(item) && old.embeddings.has(item) && new.embeddings.has(item))
            .collect();
        let items: Vec<usize> = (0..keep.len()).filter(|&item| keep[item]).collect();
        let digests = audit::input_digests(old, new);
        let kept = |of: &Embeddings| {
            let mut of = of.clone();
            of.retain(&keep);
            of
        };
        let mut part = probe.clone();
        part.retain(&keep);
        let old = kept(&old.embeddings);
        if part.reference == Reference::OldModel {
            structure::stand_in(&mut part, &old, options);
        }
        Self {
            digests: items
                .iter()
                .filter_map(|&item| digests.get(item).copied())
                .collect(),
            old,
            new: kept(&new.embeddings),
            probe: part,
            items,
        }
    }

    /// Its queries and its gallery; see [`Trial::new`].
    pub fn trial(&self, primary: Option<Measure>) -> Trial<'_> {
        Trial::new(&self.probe, &self.digests, [&self.old, &self.new], primary)
    }
}

/// Queries and a gallery in both spaces.
pub struct Trial<'a> {
    protocol: Protocol,
    old: &'a Embeddings,
    new: &'a Embeddings,
    primary: NamedMeasure,
}

/// The primary measure of each query, in the trial's order; ties count against it.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// head(new)->old.
    pub new_old: Vec<f64>,
    /// head(new)->head(new).
    pub new_new: Vec<f64>,
}

/// Why a head cannot be tried.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrialError {
    /// It sends an item to zero or out of range.
    #[error("the head cannot map {0}")]
    Head(#[from] EmbeddingsError),
    /// A score beyond f32.
    #[error(transparent)]
    Score(#[from] ScoreOverflow),
}

impl<'a> Trial<'a> {
    /// The probe's gallery, and how its queries are judged. `digests` as in [`Protocol::new`].
    pub fn new(
        probe: &Probe,
        digests: &[Option<[u8; 32]>],
        [old, new]: [&'a Embeddings; 2],
        primary: Option<Measure>,
    ) -> Self {
        let protocol = Protocol::new(probe, digests);
        Self {
            primary: probe
                .reference
                .name(primary.unwrap_or_else(|| protocol.usual_measure())),
            protocol,
            old,
            new,
        }
    }

    /// All that the trial's results for these queries hang on.
    pub fn add_to(&self, hasher: &mut blake3::Hasher, queries: &[usize]) {
        let chosen = queries.iter().map(|&query| &self.protocol.queries()[query]);
        for query in chosen {
            hasher.update(format!("{query:?}").as_bytes());
        }
        hasher.update(self.primary.to_string().as_bytes());
        for embeddings in [self.old, self.new] {
            for row in (0..embeddings.n_items()).filter_map(|item| embeddings.get(item)) {
                hasher.update(bytemuck::cast_slice(&row));
            }
        }
    }

    /// The measure: the one that was named, else the protocol's.
    pub fn primary(&self) -> NamedMeasure {
        self.primary
    }

    /// Places of the queries whose item is wanted and has a new embedding.
    pub fn queries(&self, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        let queries = self.protocol.queries().iter().enumerate();
        queries
            .filter(|(_, query)| wanted(query.item) && self.new.has(query.item))
            .map(|(place, _)| place)
            .collect()
    }

    /// The identity of a query.
    pub fn identity(&self, query: usize) -> u32 {
        self.protocol.queries()[query].identity
    }

    /// old->old, one value a query.
    ///
    /// # Errors
    /// A score beyond f32.
    pub fn old_old(&self, queries: &[usize]) -> Result<Vec<f64>, TrialError> {
        Ok(self.ranked(self.old, self.old, queries)?)
    }

    /// new->new without a head, one value a query.
    ///
    /// # Errors
    /// A score beyond f32.
    pub fn new_new(&self, queries: &[usize]) -> Result<Vec<f64>, TrialError> {
        Ok(self.ranked(self.new, self.new, queries)?)
    }

    /// new->old without a head, one value a query; the dimensions must be equal.
    ///
    /// # Errors
    /// A score beyond f32.
    pub fn new_old(&self, queries: &[usize]) -> Result<Vec<f64>, TrialError> {
        Ok(self.ranked(self.new, self.old, queries)?)
    }

    /// What a head makes of the queries.
    ///
    /// # Errors
    /// See [`TrialError`].
    pub fn quality(&self, head: &Head, queries: &[usize]) -> Result<Quality, TrialError> {
        let mapped = head.map(self.new)?;
        Ok(Quality {
            new_old: self.ranked(&mapped, self.old, queries)?,
            new_new: self.ranked(&mapped, &mapped, queries)?,
        })
    }

    fn ranked(
        &self,
        of_queries: &Embeddings,
        of_gallery: &Embeddings,
        queries: &[usize],
    ) -> Result<Vec<f64>, ScoreOverflow> {
        let gallery = Gallery {
            embeddings: of_gallery,
            items: self.protocol.gallery(),
        };
        let chosen = queries.iter().map(|&query| &self.protocol.queries()[query]);
        let chosen: Vec<&QueryProtocol> = chosen.collect();
        let set = RankSet::new(of_queries, chosen, gallery, Similarity::Cosine);
        let ranked = rank(gallery, Similarity::Cosine, vec![set])?;
        let value = |ranking: &Ranking| {
            measures::evaluate(self.primary.measure, &ranking.ranks(), &ranking.grades())
        };
        Ok(ranked[0].rankings.iter().map(value).collect())
    }
}
