//! The audit: six stages in a line, no maths.

mod applicable;
mod error;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use error::AuditError;

use crate::config::{AuditConfig, ModelConfig};
use crate::domain::{
    Adaptation, Finding, FindingCode, IDENTITIES, Modality, Origin, Pairing, Probe, Progress, Role,
    Severity, Side,
};
use crate::embed::{
    self, EmbedError, EmbedOptions, Embedded, ModelDescription, ModelSource, Questions,
};
use crate::judge::{self, evidence::Evidence};
use crate::probe;
use crate::report::assemble::{Stages, assemble};
use crate::report::{AuditReport, BadItemRow, Rows, RunSection};
use crate::retrieve::kept::retrieve_kept;
use crate::retrieve::protocol::Protocol;
use crate::retrieve::{self, SearchOptions};
use crate::runtime::{Runtime, RuntimeOptions};
use crate::structure::{self, PseudoIdentities, StructureOptions};

/// What surrounds an audit: where models run, where embeddings are kept, who hears of it.
pub struct Surroundings<'a> {
    /// How to find ONNX Runtime; it is looked for only when a model must be run.
    pub runtime: RuntimeOptions,
    /// The embeddings' cache; `None` embeds everything again.
    pub embedding_cache: Option<PathBuf>,
    /// Hears of each batch.
    pub progress: &'a dyn Progress,
    /// Hears one-line notices.
    pub notify: &'a dyn Fn(&str),
    /// The command line, for the report.
    pub command: Vec<String>,
}

/// A finished audit.
pub struct Outcome {
    /// The report.
    pub report: AuditReport,
    /// Its tables.
    pub rows: Rows,
}

/// Runs the six stages.
///
/// # Errors
/// Bad input, a runtime that cannot be had, a model that cannot be run.
pub fn run(config: &AuditConfig, around: &Surroundings<'_>) -> Result<Outcome, AuditError> {
    let started = SystemTime::now();
    let mut clock = Clock::new(around.progress);
    let Embedding {
        mut probe,
        mut old,
        mut new,
        runtime,
        bad_items,
    } = embed_probe(config, around, &mut clock)?;
    for side in [Side::Old, Side::New] {
        hold_out(&mut probe, &mut old, &mut new, side)?;
    }

    clock.stage("structure");
    let options = StructureOptions {
        seed: config.seed,
        similarity: config.similarity,
        cut: config.credibility,
        sample: config.sample.map(NonZeroUsize::get),
        ..StructureOptions::default()
    };
    let label_free = config.policy.profile.is_label_free();
    let pseudo = label_free.then(|| stand_in(&mut probe, &old, &options));
    if probe.names_identities() {
        let gallery = probe.gallery().len();
        let assessed = options.sample.map_or(gallery, |n| n.min(gallery));
        let (dim, threads) = (old.embeddings.dim(), around.runtime.threads);
        if let Some(said) = announcement(gallery as u64, assessed as u64, dim, threads) {
            (around.notify)(&said);
        }
    }
    let structure = structure::estimate(&probe, &old.embeddings, &options);

    clock.stage("retrieve");
    let (a, b) = (&old.embeddings, &new.embeddings);
    let digests = input_digests(&old, &new);
    let search = SearchOptions {
        similarity: config.similarity,
        primary: config.policy.primary,
        seed: config.seed,
        ..SearchOptions::default()
    };
    let search = SearchOptions {
        threshold_far: config.policy.threshold_far.unwrap_or(search.threshold_far),
        ..search
    };
    let protocol = Protocol::new(&probe, digests);
    let mut totals = probe
        .names_identities()
        .then(|| structure::LogTotals::new(protocol.queries().len(), &options))
        .flatten();
    let companions = totals.as_mut().map(structure::LogTotals::visitors);
    let mut retrieval = retrieve::search_old_gallery(
        &probe,
        protocol,
        [a, b],
        &search,
        companions.unwrap_or_default(),
    )?;
    let comparable = a.dim() == b.dim();
    let kept = if probe.names_identities() {
        let keep = |item| structure.is_credible(item);
        retrieve_kept(&retrieval, a, b, config.similarity, keep)?
    } else {
        None
    };

    clock.stage("refresh");
    let queries = retrieval.protocol.query_items();
    if queries.is_empty() {
        return Err(AuditError::NothingToEvaluate {
            origin: config.data.clone(),
            queries: probe.queries().len(),
            gallery: probe.gallery().len(),
        });
    }
    let order = judge::backfill::order(&retrieval, &structure, a, b, &config.policy, config.seed);
    let planned = order.as_ref().map(|plan| &plan.order);
    let curves = retrieve::search_new_gallery(&mut retrieval, [a, b], &search, planned)?;
    let consensus = if comparable {
        let junk = |query: usize| {
            let q = queries.binary_search(&query);
            q.map_or_else(|_| Vec::new(), |q| retrieval.protocol.junk_items(q))
        };
        // Heard only if the old gallery was searched.
        let old_old = retrieval.evaluations.get(&Pairing::OLD_OLD);
        let totals = totals.as_ref().filter(|_| old_old.is_some());
        structure::consensus(
            &probe,
            &structure,
            [a, b],
            &queries,
            &junk,
            totals,
            &options,
        )
    } else {
        Vec::new()
    };
    let same_model = old.model.hash == new.model.hash
        && old.model.preprocessing_key == new.model.preprocessing_key;
    clock.stage("what-if");
    let what_if =
        retrieve::what_if::what_if(&probe, &retrieval, a, b, config.similarity, config.seed)?;
    clock.stage("judge");
    let old_file = config.old_embeddings.as_ref().unwrap_or(&config.old);
    for (side, embedded, file) in [(Side::Old, &old, old_file), (Side::New, &new, &config.new)] {
        embed::refuse_changed(embedded, file).map_err(|source| embed_failed(side, source))?;
    }

    let evidence = Evidence::collect(
        &judge::evidence::Stages {
            probe: &probe,
            dims: [a.dim(), b.dim()],
            same_model,
            structure: &structure,
            retrieval: &retrieval,
            kept: kept.as_ref(),
            refreshed: order.as_ref().zip(curves.as_deref()),
        },
        &config.policy,
        config.seed,
    );
    let judgement = judge::judge(&evidence, &config.policy, config.today);

    clock.stage("report");
    let run = RunSection {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix: started
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        stage_seconds: clock.laps,
        command: around.command.clone(),
        directory: None,
        threads: around.runtime.threads,
        runtime_library: runtime.map(|runtime| runtime.library.display().to_string()),
        from_cache: [old.n_from_cache, new.n_from_cache],
        embedded: [old.n_embedded, new.n_embedded],
    };
    let (report, rows) = assemble(Stages {
        config,
        probe: &probe,
        old: &old,
        new: &new,
        input_digests: digests,
        pseudo: pseudo.as_ref(),
        structure: &structure,
        consensus: &consensus,
        temperature: options.temperature,
        retrieval: &retrieval,
        what_if: what_if.as_ref(),
        order: order.as_ref(),
        evidence: &evidence,
        judgement,
        bad_items,
        run,
    });
    Ok(Outcome { report, rows })
}

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
/// As [`run`].
pub fn embed(config: &AuditConfig, around: &Surroundings<'_>) -> Result<Embedding, AuditError> {
    embed_probe(config, around, &mut Clock::new(around.progress))
}

fn embed_probe(
    config: &AuditConfig,
    around: &Surroundings<'_>,
    clock: &mut Clock<'_>,
) -> Result<Embedding, AuditError> {
    clock.stage("probe");
    let mut probe = probe::load(&config.data, &config.probe)?;
    check_slice_columns(&probe, config)?;
    applicable::check(&probe, config)?;
    clock.stage("embed");
    let runtime = runtime_if_needed(config, around)?;
    refuse_assumed_preprocessing(&probe, config, runtime.as_ref(), around)?;
    let [mut old, mut new] = embed_sides(&probe, config, runtime.as_ref(), around)?;
    let bad_items = drop_bad_items(&mut probe, &mut old, &mut new);
    Ok(Embedding {
        probe,
        old,
        new,
        runtime,
        bad_items,
    })
}

/// Of an adapted model only what its head has not seen may search: the other queries leave, the gallery stays whole.
fn hold_out(
    probe: &mut Probe,
    old: &mut Embedded,
    new: &mut Embedded,
    side: Side,
) -> Result<(), AuditError> {
    let [adapted, other] = match side {
        Side::Old => [&*old, &*new],
        Side::New => [&*new, &*old],
    };
    let Some(adaptation) = adapted.model.adaptation.clone() else {
        return Ok(());
    };
    let by_identity = adaptation.units == IDENTITIES;
    if by_identity && !probe.splits_by_identity() {
        return Err(AuditError::UnknownSplit {
            side,
            origin: probe.origin.clone(),
        });
    }
    let mut keep = vec![true; probe.items.len()];
    let (mut left, mut removed) = (0, 0);
    for (item, keep) in keep.iter_mut().enumerate() {
        let role = probe.items[item].role;
        if !role.is_query() || probe.items[item].identity.is_none() {
            continue;
        }
        if adaptation.holds_out(&probe.split_names(item, by_identity)) {
            left += 1;
        } else {
            removed += 1;
            *keep = role.is_gallery();
            probe.items[item].role = Role::Gallery;
        }
    }
    let Adaptation {
        head,
        units,
        fitted,
        held_out,
        ..
    } = &adaptation;
    let mut message = format!(
        "the {side} model is an adapted one (head: {head}). Its head was fitted and chosen on {fitted} {units} and is tested on \
         the {held_out} held out: of this probe's queries {left} are tested and {removed} are left out; the gallery is whole"
    );
    if side == Side::New && adaptation.old_model != other.model.hash {
        message += "; it was adapted to other old embeddings than these";
    }
    let finding = Finding::new(FindingCode::AdaptedModel, Severity::Info, message);
    probe.retain(&keep);
    for embedded in [&mut *old, &mut *new] {
        embedded.retain(&keep);
    }
    match side {
        Side::Old => old.findings.push(finding),
        Side::New => new.findings.push(finding),
    }
    Ok(())
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
/// As [`run`], for what can be seen without running; open questions are none when they are allowed.
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
        let failed = |source| embed_failed(side, source);
        let mut described = embed::describe(&probe, &source, &options, runtime.as_ref(), questions)
            .map_err(failed)?;
        if let (Side::Old, Some(stored)) = (side, &config.old_embeddings) {
            let words = embed::describe_stored(&probe, stored, &options).map_err(failed)?;
            described.stored = Some(words);
        }
        Ok(described)
    };
    let models = [describe(Side::Old)?, describe(Side::New)?];
    Ok(Preview { probe, models })
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

fn embed_failed(side: Side, source: EmbedError) -> AuditError {
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
    ModelSource::from_path(path).map_err(|source| embed_failed(side, source))
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
            .map_err(|source| embed_failed(Side::Old, source))?;
        let new = embed::embed(probe, &new, &new_options, runtime, progress)
            .map_err(|source| embed_failed(Side::New, source))?;
        return Ok([old, new]);
    }
    let sides = [(&old, &old_options), (&new, &new_options)];
    embed::embed_both(probe, sides, runtime, progress)
        .map_err(|(side, source)| embed_failed(side, source))
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
            .map_err(|source| embed_failed(side, source))?;
        let mut findings = description.findings.iter();
        if findings.any(|finding| finding.code == FindingCode::PreprocessingAssumed) {
            return Err(AuditError::PreprocessingAssumed { side });
        }
    }
    Ok(())
}

/// Multiply-adds of the structure from which on its cost is named: some minutes on two cores.
const HOURS: u64 = 1 << 44;

/// A sample is no choice to make for the user, but hours are nothing to be silent about: what is said before the credibility
/// of `assessed` old embeddings, of a gallery of so many, is measured.
fn announcement(gallery: u64, assessed: u64, dim: usize, threads: usize) -> Option<String> {
    let products = assessed.saturating_mul(gallery).saturating_mul(dim as u64);
    // Two operations a multiply-add, 50 GFLOP/s a core (docs/performance.md: 76 to 88 with AVX2).
    let minutes = products / (threads.max(1) as u64 * 25_000_000_000 * 60);
    (products >= HOURS).then(|| {
        format!(
            "note: the credibility of {assessed} old embeddings compares each with {gallery}: some {} minutes; \
             `--sample N` assesses N of them",
            minutes.max(1)
        )
    })
}

/// Puts clusters of the old embeddings in the place of the labels, each named after the item in its middle.
fn stand_in(probe: &mut Probe, old: &Embedded, options: &StructureOptions) -> PseudoIdentities {
    let found = structure::pseudo_identities(probe, &old.embeddings, options);
    let name = |&medoid: &usize| format!("around {}", probe.items[medoid].id);
    let mut names: Vec<String> = found.medoids.iter().map(name).collect();
    if found.searching.is_some() {
        names.push("outside all clusters".to_owned());
    }
    probe.relabel(&found.of_item, names, found.searching.as_deref());
    found
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

/// Leaves out the items that either model could not read, everywhere.
fn drop_bad_items(probe: &mut Probe, old: &mut Embedded, new: &mut Embedded) -> Vec<BadItemRow> {
    let mut bad: Vec<_> = old.bad_items.iter().chain(&new.bad_items).collect();
    bad.sort_by_key(|bad| bad.item);
    bad.dedup_by_key(|bad| bad.item);
    let rows = bad
        .iter()
        .map(|bad| BadItemRow {
            id: bad.id.clone(),
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

/// Wall seconds of each finished stage.
struct Clock<'a> {
    progress: &'a dyn Progress,
    running: Option<(&'static str, Instant)>,
    laps: Vec<(String, f64)>,
}

impl<'a> Clock<'a> {
    fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            running: None,
            laps: Vec::new(),
        }
    }

    /// The next stage begins, and with it the last one ends.
    fn stage(&mut self, name: &'static str) {
        if let Some((last, began)) = self.running.replace((name, Instant::now())) {
            self.laps
                .push((last.to_owned(), began.elapsed().as_secs_f64()));
        }
        self.progress.stage(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_announced_and_minutes_are_not() {
        assert_eq!(announcement(200_000, 200_000, 384, 2), None);
        assert_eq!(announcement(1_000_000, 2_000, 384, 2), None);
        let said = announcement(1_000_000, 1_000_000, 384, 2).unwrap();
        assert!(said.contains("some 128 minutes; `--sample N`"), "{said}");
        assert!(announcement(u64::MAX, u64::MAX, 384, 2).is_some());
    }
}
