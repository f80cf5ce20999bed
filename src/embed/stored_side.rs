//! The side whose embeddings were stored before, alone or beside the model that made them.

use std::path::Path;

use rayon::prelude::*;

use super::token_store::TokenStore;
use super::{
    EmbedError, EmbedOptions, Embedded, ModelInfo, ModelSource, NAMED, checked, run, stored,
};
use crate::config::{Pooling, Similarity};
use crate::domain::{
    Embeddings, Finding, FindingCode, Item, Origin, Probe, Progress, Setting, Severity, Side,
    cosine,
};
use crate::runtime::Runtime;

/// Gallery items whose stored embedding is held against a fresh one.
const STORED_SAMPLE: usize = 64;

/// Cosine below which a stored and a fresh embedding of one item disagree.
const STORED_COSINE: f64 = 0.999;

/// How far the length of one may be from the other's where lengths count, as a share of it.
const STORED_LENGTH: f64 = 0.01;

/// Whether a stored embedding is what the model gives.
fn agrees(stored: &[f32], fresh: &[f32], similarity: Similarity) -> bool {
    let length = |row: &[f32]| {
        row.iter()
            .map(|&v| f64::from(v).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let (own, expected) = (length(stored), length(fresh));
    let is_as_long = (own - expected).abs() <= STORED_LENGTH * expected;
    cosine(stored, fresh).is_none_or(|cosine| cosine >= STORED_COSINE)
        && (similarity == Similarity::Cosine || is_as_long)
}

/// The old side of `--old-embeddings`: gallery rows as stored, query rows from the model, or as stored where their input is
/// gone; a sample of the gallery is embedded again and must agree.
///
/// # Errors
/// See [`EmbedError`].
pub fn embed_with_stored(
    probe: &Probe,
    model: &Path,
    stored_path: &Path,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
    progress: &dyn Progress,
) -> Result<Embedded, EmbedError> {
    let stored = embed_stored_items(probe, stored_path, options, old_rows)?;
    let with_input: Vec<usize> = (0..probe.items.len())
        .filter(|&i| stored.embeddings.has(i) && probe.items[i].source.is_some())
        .collect();
    let step = with_input.len().div_ceil(STORED_SAMPLE).max(1);
    let sample: Vec<usize> = with_input.into_iter().step_by(step).collect();
    let mut wanted = sample.clone();
    wanted.extend(
        probe
            .queries()
            .into_iter()
            .filter(|&i| !stored.embeddings.has(i)),
    );
    if let Some(&gone) = wanted.iter().find(|&&i| probe.items[i].source.is_none()) {
        let id = probe.items[gone].id.to_string();
        return Err(EmbedError::InputGone {
            id,
            side: options.side,
        });
    }
    wanted.sort_unstable();
    let mut fresh = run::embed(
        probe,
        model,
        options,
        runtime,
        progress,
        &wanted,
        &mut TokenStore::default(),
    )?;
    // Nothing was wanted of the model when the inputs are all gone and every embedding is stored.
    if !wanted.is_empty() && fresh.embeddings.dim() != stored.embeddings.dim() {
        return Err(EmbedError::Stored {
            path: stored_path.into(),
            expected: format!("{} dimensions, as the model gives", fresh.embeddings.dim()),
            found: stored.embeddings.dim().to_string(),
        });
    }
    let differing: Vec<String> = sample
        .iter()
        .filter(
            |&&i| match (stored.embeddings.get(i), fresh.embeddings.get(i)) {
                (Some(stored), Some(fresh)) => !agrees(&stored, &fresh, options.similarity),
                _ => false,
            },
        )
        .map(|&i| probe.items[i].id.to_string())
        .collect();
    if !differing.is_empty() {
        fresh.findings.push(Finding {
            code: FindingCode::StoredEmbeddingsDiffer,
            severity: Severity::Warning,
            message: format!(
                "{} of {} sampled gallery items: the stored embedding is not what the old model gives today (cosine below {STORED_COSINE}{})",
                differing.len(),
                sample.len(),
                match options.similarity {
                    Similarity::Cosine => "",
                    Similarity::Ip | Similarity::L2 => ", or its length more than 1 % off",
                }
            ),
            items: differing.into_iter().take(NAMED).collect(),
        });
    }
    fresh.model.dim = stored.embeddings.dim();
    fresh.model.preprocessing_key =
        format!("{}+{}", fresh.model.preprocessing_key, stored.model.hash);
    fresh.embeddings = if wanted.is_empty() {
        stored.embeddings
    } else {
        stored.embeddings.or(fresh.embeddings)
    };
    Ok(fresh)
}

/// Looks every item up in a stored file. The old side needs its queries and gallery, the new side its queries; a
/// gallery item that the new side lacks has no row, and only new->old can be tested of it.
///
/// # Errors
/// A file that is not as it should be, or that lacks items.
pub fn embed(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
) -> Result<Embedded, EmbedError> {
    let mut embedded = embed_stored_items(probe, path, options, |item| {
        if options.side == Side::Old || item.role.is_query() {
            Use::Required
        } else {
            Use::Taken
        }
    })?;
    let is_absent = |&i: &usize| probe.items[i].role.is_gallery() && !embedded.embeddings.has(i);
    let absent = probe.gallery().into_iter().filter(is_absent).count();
    if absent > 0 {
        embedded.findings.push(Finding::new(
            FindingCode::InputsMissing,
            Severity::Warning,
            format!(
                "{absent} gallery items have no stored embedding of the {} model",
                options.side
            ),
        ));
    }
    Ok(embedded)
}

/// What `--dry-run` says of the stored embeddings beside the old model.
///
/// # Errors
/// As [`embed_with_stored`], for what can be seen without running.
pub fn describe(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
) -> Result<String, EmbedError> {
    let stored = embed_stored_items(probe, path, options, old_rows)?;
    Ok(format!(
        "{}: {}",
        stored.model.name,
        in_words(probe, &stored.embeddings)
    ))
}

/// How many items have a stored embedding, and of how many dimensions.
pub(super) fn in_words(probe: &Probe, embeddings: &Embeddings) -> String {
    let n = (0..probe.items.len())
        .filter(|&i| embeddings.has(i))
        .count();
    format!(
        "embeddings of {n} of {} items, {} dimensions",
        probe.items.len(),
        embeddings.dim()
    )
}

/// What becomes of an item's stored embedding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// There must be one.
    Required,
    /// It is taken if it is there.
    Taken,
    /// The model gives it.
    Ignored,
}

/// Which rows are those of the old gallery: queries are embedded by the model as they will be, and what a file holds of them
/// (with another prefix, of another day) would hide what they lose.
fn old_rows(item: &Item) -> Use {
    if item.role.is_gallery() {
        Use::Required
    } else if item.source.is_none() {
        Use::Taken
    } else {
        Use::Ignored
    }
}

/// Stored embeddings of the items, as their use says.
fn embed_stored_items(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
    use_of: impl Fn(&Item) -> Use + Sync,
) -> Result<Embedded, EmbedError> {
    let room = stored::Room {
        memory: options.memory,
        folder: options.cache_dir,
    };
    let stored = stored::read(path, room)?;
    let stored_dim = stored.rows.width();
    let dim = options.model.dims.unwrap_or(stored_dim);
    if stored_dim == 0 {
        return Err(EmbedError::Stored {
            path: path.into(),
            expected: "at least 1 dimension".into(),
            found: "0".into(),
        });
    }
    if dim > stored_dim {
        return Err(EmbedError::Dims {
            path: path.into(),
            dims: dim,
            dim: stored_dim,
        });
    }
    let dims = options.model.dims.map(|dims| Setting {
        key: format!("{}.dims", options.side),
        value: dims.into(),
        origin: Origin::File,
    });
    let row_of_item: Vec<Option<u32>> = probe
        .items
        .par_iter()
        .map(|item| match use_of(item) {
            Use::Required | Use::Taken => stored.row(&item.id),
            Use::Ignored => None,
        })
        .collect();
    let is_absent = |(item, row): &(&Item, &Option<u32>)| {
        row.is_none() && item.identity.is_some() && use_of(item) == Use::Required
    };
    let mut absent: Vec<String> = probe
        .items
        .iter()
        .zip(&row_of_item)
        .filter(is_absent)
        .map(|(item, _)| item.id.to_string())
        .collect();
    if !absent.is_empty() {
        let count = absent.len();
        absent.truncate(NAMED);
        return Err(EmbedError::NotStored {
            path: path.into(),
            count,
            ids: absent,
        });
    }
    let hash = stored.hash();
    // The ids are large, and no longer needed.
    let rows = stored.into_rows();
    Ok(Embedded {
        embeddings: checked(probe, path, options, rows, dim, row_of_item)?,
        input_digests: Vec::new(),
        model: ModelInfo {
            name: ModelSource::Stored(path.into()).name(),
            kind: "stored".into(),
            hash,
            preprocessing_key: format!("stored, {dim} dimensions"),
            dim,
            inputs: Vec::new(),
            outputs: Vec::new(),
            output: None,
            precision: None,
            provider: None,
            runtime_version: None,
            pooling: Pooling::None,
            adaptation: None,
        },
        settings: dims.into_iter().collect(),
        findings: Vec::new(),
        bad_items: Vec::new(),
        n_from_cache: 0,
        n_embedded: 0,
        not_kept: None,
    })
}
