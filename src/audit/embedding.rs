//! The first two stages: the probe, embedded with both models.

use std::path::Path;

use super::{AuditError, Clock, Surroundings, applicable};
use crate::config::{AuditConfig, ModelConfig};
use crate::domain::{FindingCode, Modality, Origin, Probe, Side};
use crate::embed::{
    self, EmbedError, EmbedOptions, Embedded, ModelDescription, ModelSource, Questions,
};
use crate::judge;
use crate::probe;
use crate::report::BadItemRow;
use crate::runtime::{Runtime, ScoreGraph};
use crate::topk::{self, FirstPass};

/// The first two stages' results.
pub struct Embedding {
    /// The probe, without the items that could not be read.
    pub probe: Probe,
    /// By the old model.
    pub old: Embedded,
    /// By the new model.
    pub new: Embedded,
    /// What ran them, if anything was run.
    pub runtime: Option<Runtime>,
    /// The items that could not be read.
    pub bad_items: Vec<BadItemRow>,
}

/// Reads the probe and embeds it with both models.
///
/// # Errors
/// As [`super::run`].
pub fn embed(config: &AuditConfig, around: &Surroundings<'_>) -> Result<Embedding, AuditError> {
    embed_timed(config, around, &mut Clock::new(around.progress))
}

/// As [`embed`], with the stages' times.
pub(super) fn embed_timed(
    config: &AuditConfig,
    around: &Surroundings<'_>,
    clock: &mut Clock<'_>,
) -> Result<Embedding, AuditError> {
    clock.stage("probe");
    let mut probe = probe::load(&config.data, &config.probe)?;
    check_slice_columns(&probe, config)?;
    applicable::check(&probe, config)?;
    clock.stage("embed");
    // A GPU that is named shall be used, or say that it cannot, where no model is run too.
    let is_named = around.runtime.device.is_named_gpu();
    let runtime = match runtime_if_needed(config, around)? {
        None if is_named => Some(Runtime::init(&around.runtime, around.notify)?),
        runtime => runtime,
    };
    topk::first_pass_on(None);
    if is_named {
        begin_scores_on_gpu(runtime.as_ref())?;
    }
    refuse_assumed_preprocessing(&probe, config, runtime.as_ref(), around)?;
    let [mut old, mut new] = embed_sides(&probe, config, runtime.as_ref(), around)?;
    let pairs = (probe.queries().len() * probe.gallery().len()) as u64;
    if !is_named && topk::is_long(pairs.saturating_mul(old.embeddings.dim() as u64)) {
        begin_scores_on_gpu(runtime.as_ref())?;
    }
    // Both models are kept in one folder: its fault is said once.
    if let Some(why) = old.not_kept.as_ref().or(new.not_kept.as_ref()) {
        (around.notify)(&format!("warning: {why}; --cache-dir names another folder"));
    }
    let bad_items = drop_bad_items(&mut probe, &mut old, &mut new);
    refuse_all_unreadable(&probe, &bad_items)?;
    Ok(Embedding {
        probe,
        old,
        new,
        runtime,
        bad_items,
    })
}

/// What `--dry-run` and `init` show: the probe and both models, nothing inferred.
pub struct Preview {
    /// The probe.
    pub probe: Probe,
    /// Old, then new.
    pub models: [ModelDescription; 2],
}

/// Reads the probe and describes the models; runs neither.
///
/// # Errors
/// As [`super::run`], for what can be seen without running; open questions are none when they are allowed.
pub fn preview(
    config: &AuditConfig,
    around: &Surroundings<'_>,
    questions: Questions,
) -> Result<Preview, AuditError> {
    let probe = probe::load(&config.data, &config.probe)?;
    check_slice_columns(&probe, config)?;
    applicable::check(&probe, config)?;
    let runtime = runtime_if_needed(config, around)?;
    let describe = |side: Side| -> Result<ModelDescription, AuditError> {
        let (source, options) = side_options(side, config, around)?;
        let failed = |source| failed(side, source);
        let mut described = embed::describe(&probe, &source, &options, runtime.as_ref(), questions)
            .map_err(failed)?;
        if let (Side::Old, Some(stored)) = (side, &config.old_embeddings) {
            let words = embed::describe_stored(&probe, stored, &options).map_err(failed)?;
            described.stored = Some(words);
        }
        Ok(described)
    };
    let models = [describe(Side::Old)?, describe(Side::New)?];
    if questions == Questions::Refused {
        refuse_missing_files(&probe, config, around)?;
    }
    Ok(Preview { probe, models })
}

/// What an audit would say of files that are not there.
fn refuse_missing_files(
    probe: &Probe,
    config: &AuditConfig,
    around: &Surroundings<'_>,
) -> Result<(), AuditError> {
    for side in [Side::Old, Side::New] {
        let (source, options) = side_options(side, config, around)?;
        // Of a gallery that is stored OLD embeds a sample only.
        let few = side == Side::Old && config.old_embeddings.is_some();
        if matches!(source, ModelSource::Onnx(_)) && !few {
            return embed::refuse_missing_files(probe, &options)
                .map_err(|source| failed(side, source));
        }
    }
    Ok(())
}

/// Every column that the policy names must exist.
fn check_slice_columns(probe: &Probe, config: &AuditConfig) -> Result<(), AuditError> {
    let known = judge::slices::known_columns(probe);
    let waived = config.policy.waivers.iter().filter_map(|waiver| {
        let slice = waiver.slice.as_deref()?;
        Some(slice.split_once('=').map_or(slice, |(column, _)| column))
    });
    let listed = config.policy.slice_columns.iter().flatten();
    let unknown = |column: &&str| !known.iter().any(|known| known == column);
    match listed.map(String::as_str).chain(waived).find(unknown) {
        Some(found) => Err(AuditError::UnknownSliceColumn {
            origin: probe.origin.clone(),
            found: found.to_owned(),
            known,
        }),
        None => Ok(()),
    }
}

pub(super) fn failed(side: Side, source: EmbedError) -> AuditError {
    AuditError::Embed {
        side,
        source: Box::new(source),
    }
}

fn side_options<'a>(
    side: Side,
    config: &'a AuditConfig,
    around: &'a Surroundings<'_>,
) -> Result<(ModelSource, EmbedOptions<'a>), AuditError> {
    let path = match side {
        Side::Old => &config.old,
        Side::New => &config.new,
    };
    Ok((source(side, path)?, embed_options(side, config, around)))
}

/// A model's file or stored embeddings.
///
/// # Errors
/// A file of neither kind.
pub(crate) fn source(side: Side, path: &Path) -> Result<ModelSource, AuditError> {
    ModelSource::from_path(path).map_err(|source| failed(side, source))
}

/// How one side is embedded.
pub(crate) fn embed_options<'a>(
    side: Side,
    config: &'a AuditConfig,
    around: &'a Surroundings<'_>,
) -> EmbedOptions<'a> {
    let model: &ModelConfig = match side {
        Side::Old => &config.old_model,
        Side::New => &config.new_model,
    };
    EmbedOptions {
        side,
        model,
        similarity: config.similarity,
        cache_dir: around.embedding_cache.as_deref(),
        max_bad_items: config.max_bad_items,
        // Half for each model.
        memory: config.memory.0 / 2,
        tensors_origin: config.origin("audit.tensors").unwrap_or(Origin::Sidecar),
    }
}

fn runtime_if_needed(
    config: &AuditConfig,
    around: &Surroundings<'_>,
) -> Result<Option<Runtime>, AuditError> {
    let mut needed = false;
    for side in [Side::Old, Side::New] {
        needed |= matches!(side_options(side, config, around)?.0, ModelSource::Onnx(_));
    }
    Ok(needed
        .then(|| Runtime::init(&around.runtime, around.notify))
        .transpose()?)
}

/// Long passes over scores begin where models run, if that is a GPU.
fn begin_scores_on_gpu(runtime: Option<&Runtime>) -> Result<(), AuditError> {
    let runtime = runtime.filter(|runtime| runtime.tries_gpu());
    let graph = runtime.map(Runtime::score_graph).transpose()?;
    let on_gpu = graph.filter(ScoreGraph::is_on_gpu);
    topk::first_pass_on(on_gpu.map(|graph| Box::new(graph) as Box<dyn FirstPass>));
    Ok(())
}

fn embed_sides(
    probe: &Probe,
    config: &AuditConfig,
    runtime: Option<&Runtime>,
    around: &Surroundings<'_>,
) -> Result<[Embedded; 2], AuditError> {
    let (old, old_options) = side_options(Side::Old, config, around)?;
    let (new, new_options) = side_options(Side::New, config, around)?;
    let progress = around.progress;
    if let (ModelSource::Onnx(model), Some(stored)) = (&old, &config.old_embeddings) {
        let old = embed::embed_with_stored(probe, model, stored, &old_options, runtime, progress)
            .map_err(|source| failed(Side::Old, source))?;
        let new = embed::embed(probe, &new, &new_options, runtime, progress)
            .map_err(|source| failed(Side::New, source))?;
        return Ok([old, new]);
    }
    let sides = [(&old, &old_options), (&new, &new_options)];
    embed::embed_both(probe, sides, runtime, progress)
        .map_err(|(side, source)| failed(side, source))
}

/// `--strict`, before hours of embedding. Only a model of images whose levels are nowhere configured is looked at.
fn refuse_assumed_preprocessing(
    probe: &Probe,
    config: &AuditConfig,
    runtime: Option<&Runtime>,
    around: &Surroundings<'_>,
) -> Result<(), AuditError> {
    if !config.strict || probe.modality != Modality::Image {
        return Ok(());
    }
    for side in [Side::Old, Side::New] {
        let (source, options) = side_options(side, config, around)?;
        let model = options.model;
        let configured = model.mean.is_some() || model.std.is_some() || model.scale.is_some();
        if configured || matches!(source, ModelSource::Stored(_)) {
            continue;
        }
        let description = embed::describe(probe, &source, &options, runtime, Questions::Refused)
            .map_err(|source| failed(side, source))?;
        let mut findings = description.findings.iter();
        if findings.any(|finding| finding.code == FindingCode::PreprocessingAssumed) {
            return Err(AuditError::PreprocessingAssumed { side });
        }
    }
    Ok(())
}

/// Hashes of the decoded inputs, from the model that read more of them: the two sides may decode one file to different
/// pixels, so theirs are not mixed.
pub(crate) fn input_digests<'a>(old: &'a Embedded, new: &'a Embedded) -> &'a [Option<[u8; 32]>] {
    let known = |side: &Embedded| side.input_digests.iter().flatten().count();
    if known(new) > known(old) {
        &new.input_digests
    } else {
        &old.input_digests
    }
}

/// Tolerated or not: what is missing then is the files, not identities that overlap.
fn refuse_all_unreadable(probe: &Probe, bad_items: &[BadItemRow]) -> Result<(), AuditError> {
    let (queries, gallery) = (probe.queries().len(), probe.gallery().len());
    match bad_items.first() {
        Some(first) if queries == 0 || gallery == 0 => Err(AuditError::AllUnreadable {
            origin: probe.origin.clone(),
            bad: bad_items.len(),
            queries,
            gallery,
            id: first.id.clone(),
            cause: first.error.clone(),
        }),
        _ => Ok(()),
    }
}

/// Leaves out the items that either model could not read, everywhere.
fn drop_bad_items(probe: &mut Probe, old: &mut Embedded, new: &mut Embedded) -> Vec<BadItemRow> {
    let mut bad: Vec<_> = old.bad_items.iter().chain(&new.bad_items).collect();
    bad.sort_by_key(|bad| bad.item);
    bad.dedup_by_key(|bad| bad.item);
    let rows = bad
        .iter()
        .map(|bad| BadItemRow {
            id: bad.id.clone(),
            row: bad.row,
            error: bad.error.clone(),
        })
        .collect();
    let mut keep = vec![true; probe.items.len()];
    bad.iter().for_each(|bad| keep[bad.item] = false);
    if keep.contains(&false) {
        probe.retain(&keep);
        for embedded in [old, new] {
            embedded.retain(&keep);
        }
    }
    rows
}
