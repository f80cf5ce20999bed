//! Stage 2: a probe and a model become embeddings.

mod cache;
mod error;
mod external;
mod items;
pub mod preprocess;
mod resolve;
pub mod session;
mod stored;
mod tokens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use rayon::prelude::*;
use serde::Serialize;

use crate::config::{ModelConfig, Similarity};
use crate::domain::{Embeddings, Finding, FindingCode, Probe, Setting, Severity, Side, Source};
use crate::runtime::Runtime;

use cache::{Cache, Digest, Record};
use items::Prepared;
use resolve::{Inputs, Resolved};
use session::OnnxModel;

pub use error::EmbedError;

/// Items that are embedded alone and in a batch to see whether it matters.
const BATCH_SAMPLE: usize = 8;

/// Cosine below which an item embedded alone and in a batch counts as different.
const BATCH_COSINE: f64 = 0.9999;

/// Gallery items whose stored embedding is held against a fresh one.
const STORED_SAMPLE: usize = 64;

/// Cosine below which a stored and a fresh embedding of one item disagree.
const STORED_COSINE: f64 = 0.999;

/// Batches that are decoded while one runs.
const BATCHES_AHEAD: usize = 4;

/// Item ids named in an error or a finding.
const NAMED: usize = 5;

/// Where one side's embeddings come from.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelSource {
    /// A model to run.
    Onnx(PathBuf),
    /// Stored embeddings.
    Stored(PathBuf),
}

impl ModelSource {
    /// By the file's ending.
    ///
    /// # Errors
    /// Another ending, or no such file.
    pub fn from_path(path: &Path) -> Result<Self, EmbedError> {
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let source = match extension.as_str() {
            "onnx" => Self::Onnx(path.into()),
            "npy" | "parquet" => Self::Stored(path.into()),
            _ => return Err(EmbedError::UnknownKind { path: path.into() }),
        };
        match std::fs::metadata(path) {
            Ok(_) => Ok(source),
            Err(source) => Err(EmbedError::Read {
                path: path.into(),
                source,
            }),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Onnx(path) | Self::Stored(path) => path,
        }
    }

    fn name(&self) -> String {
        self.path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }
}

/// How one side is embedded.
#[derive(Debug, Clone, Copy)]
pub struct EmbedOptions<'a> {
    /// Which side.
    pub side: Side,
    /// What the configuration says of the model.
    pub model: &'a ModelConfig,
    /// Rows are L2-normalised for cosine.
    pub similarity: Similarity,
    /// Folder of the cache; `None` keeps nothing.
    pub cache_dir: Option<&'a Path>,
    /// Unreadable items that are tolerated.
    pub max_bad_items: usize,
    /// Embed one item at a time.
    pub force_batch_1: bool,
}

/// One side's embeddings and where they came from.
pub struct Embedded {
    /// The embeddings.
    pub embeddings: Embeddings,
    /// BLAKE3 of each item's decoded input, where it was read.
    pub input_digests: Vec<Option<Digest>>,
    /// The model.
    pub model: ModelInfo,
    /// Every setting with its origin.
    pub settings: Vec<Setting>,
    /// What was noticed.
    pub findings: Vec<Finding>,
    /// Items that could not be read.
    pub bad_items: Vec<BadItem>,
    /// Items read from the cache.
    pub n_from_cache: usize,
    /// Items that the model embedded in this run.
    pub n_embedded: usize,
}

impl Embedded {
    /// Keeps the items whose flag is set; one flag an item.
    pub fn retain(&mut self, keep: &[bool]) {
        self.embeddings.retain(keep);
        let mut flags = keep.iter();
        self.input_digests
            .retain(|_| *flags.next().expect("one flag an item"));
    }
}

/// What identifies a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// File name.
    pub name: String,
    /// `onnx` or `stored`.
    pub kind: String,
    /// BLAKE3 over the file and its external data, hex.
    pub hash: String,
    /// BLAKE3 of the resolved preprocessing, hex.
    pub preprocessing_key: String,
    /// Dimensions of an embedding.
    pub dim: usize,
    /// Output in use.
    pub output: Option<String>,
    /// Execution provider in use.
    pub provider: Option<String>,
    /// ONNX Runtime's version.
    pub runtime_version: Option<String>,
}

/// An item that could not be read.
#[derive(Debug, Clone, PartialEq)]
pub struct BadItem {
    /// Item index.
    pub item: usize,
    /// Item id.
    pub id: String,
    /// Why.
    pub error: String,
}

/// What `--dry-run` and `init` show of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelDescription {
    /// File name.
    pub name: String,
    /// Inputs, `name dtype[shape]`.
    pub inputs: Vec<String>,
    /// Outputs, likewise.
    pub outputs: Vec<String>,
    /// Resolved settings.
    pub settings: Vec<Setting>,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

/// Hears how far embedding is.
pub trait Progress: Sync {
    /// `total` items are about to be embedded.
    fn start(&self, label: &str, total: u64);
    /// `n` more are done.
    fn advance(&self, n: u64);
    /// All are done.
    fn finish(&self);
}

/// Nobody hears.
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _label: &str, _total: u64) {}
    fn advance(&self, _n: u64) {}
    fn finish(&self) {}
}

/// Embeds every item that has an identity; a gallery item without input has no new embedding.
///
/// # Errors
/// See [`EmbedError`].
pub fn embed(
    probe: &Probe,
    source: &ModelSource,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
    progress: &dyn Progress,
) -> Result<Embedded, EmbedError> {
    match source {
        ModelSource::Stored(path) => embed_stored(probe, path, options),
        ModelSource::Onnx(path) => {
            let mut wanted = Vec::new();
            let mut missing = 0;
            for (index, item) in probe.items.iter().enumerate() {
                if item.identity.is_none() {
                    continue;
                }
                if item.source != Source::Missing {
                    wanted.push(index);
                } else if options.side == Side::New && !item.role.is_query() {
                    missing += 1;
                } else {
                    return Err(EmbedError::InputGone {
                        id: item.id.clone(),
                        side: options.side,
                    });
                }
            }
            let mut embedded = embed_onnx(probe, path, options, runtime, progress, &wanted)?;
            if missing > 0 {
                embedded.findings.push(Finding::new(
                    FindingCode::InputsMissing,
                    Severity::Warning,
                    format!(
                        "{missing} gallery items have no input, so the new model cannot embed them"
                    ),
                ));
            }
            Ok(embedded)
        }
    }
}

/// The old side of `--old-embeddings`: gallery rows as stored, query rows from the model; a sample of the gallery is
/// embedded again and must agree.
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
    let stored = embed_stored_items(probe, stored_path, options, |item| item.role.is_gallery())?;
    let with_input: Vec<usize> = (0..probe.items.len())
        .filter(|&i| stored.embeddings.has(i) && probe.items[i].source != Source::Missing)
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
    if let Some(&gone) = wanted
        .iter()
        .find(|&&i| probe.items[i].source == Source::Missing)
    {
        let id = probe.items[gone].id.clone();
        return Err(EmbedError::InputGone {
            id,
            side: options.side,
        });
    }
    wanted.sort_unstable();
    let mut fresh = embed_onnx(probe, model, options, runtime, progress, &wanted)?;
    if fresh.embeddings.dim() != stored.embeddings.dim() {
        return Err(EmbedError::Stored {
            path: stored_path.into(),
            expected: format!("{} dimensions, as the model gives", fresh.embeddings.dim()),
            found: stored.embeddings.dim().to_string(),
        });
    }
    let differing: Vec<String> = sample
        .iter()
        .filter(
            |&&i| match (fresh.embeddings.get(i), stored.embeddings.get(i)) {
                (Some(a), Some(b)) => cosine(a, b) < STORED_COSINE,
                _ => false,
            },
        )
        .map(|&i| probe.items[i].id.clone())
        .collect();
    if !differing.is_empty() {
        fresh.findings.push(Finding {
            code: FindingCode::StoredEmbeddingsDiffer,
            severity: Severity::Warning,
            message: format!(
                "{} of {} sampled gallery items: the stored embedding is not what the old model gives today (cosine below {STORED_COSINE})",
                differing.len(),
                sample.len()
            ),
            items: differing.into_iter().take(NAMED).collect(),
        });
    }
    let rows = probe.items.iter().enumerate().map(|(i, _)| {
        stored
            .embeddings
            .get(i)
            .or_else(|| fresh.embeddings.get(i))
            .map(<[f32]>::to_vec)
    });
    fresh.embeddings = collect(
        probe,
        stored_path,
        options,
        rows.collect(),
        stored.embeddings.dim(),
    )?;
    fresh.model.preprocessing_key =
        format!("{}+{}", fresh.model.preprocessing_key, stored.model.hash);
    Ok(fresh)
}

/// Describes a model; runs nothing.
///
/// # Errors
/// What can be seen without running.
pub fn describe(
    probe: &Probe,
    source: &ModelSource,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
) -> Result<ModelDescription, EmbedError> {
    let ModelSource::Onnx(path) = source else {
        return Ok(ModelDescription {
            name: source.name(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            settings: Vec::new(),
            findings: Vec::new(),
        });
    };
    let (model, resolved) = open(probe, path, options, runtime)?;
    Ok(ModelDescription {
        name: source.name(),
        inputs: model.inputs.iter().map(ToString::to_string).collect(),
        outputs: model.outputs.iter().map(ToString::to_string).collect(),
        settings: resolved.settings,
        findings: resolved.findings,
    })
}

fn open(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
) -> Result<(OnnxModel, Resolved), EmbedError> {
    let runtime = runtime.ok_or_else(|| EmbedError::NoRuntime { path: path.into() })?;
    let model = OnnxModel::open(runtime, path)?;
    let resolved = resolve::resolve(probe, path, &model, options)?;
    Ok((model, resolved))
}

fn embed_onnx(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
    progress: &dyn Progress,
    wanted: &[usize],
) -> Result<Embedded, EmbedError> {
    let hash = external::model_hash(path)?;
    let (model, resolved) = open(probe, path, options, runtime)?;
    let version = runtime
        .map(|runtime| runtime.version.clone())
        .unwrap_or_default();
    let key = [
        &hash,
        &resolved.key,
        &version,
        &model.provider,
        &resolved.batch_size.to_string(),
    ]
    .map(String::as_str)
    .join("\n");
    let key = blake3::hash(key.as_bytes()).to_hex();
    let mut findings = resolved.findings.clone();
    if let Some(why) = &model.fallback {
        findings.push(Finding::new(
            FindingCode::ProviderFallback,
            Severity::Info,
            format!("{} model runs on the CPU: {why}", options.side),
        ));
    }
    let mut run = Run {
        probe,
        path,
        options,
        resolved: &resolved,
        cache: Cache::open(options.cache_dir, &key),
        model,
        bad_items: Vec::new(),
        n_embedded: 0,
        dim: None,
    };
    let contents = run.contents(wanted);
    run.embed_missing(&contents, progress)?;
    run.refuse_too_many_bad_items()?;

    let mut rows: Vec<Option<Vec<f32>>> = vec![None; probe.items.len()];
    let mut digests = vec![None; probe.items.len()];
    let mut sixteen_bit = 0;
    let mut dim = 0;
    for (&item, content) in &contents {
        let Some(record) = run.cache.get(content) else {
            continue;
        };
        rows[item] = Some(record.embedding.clone());
        digests[item] = Some(record.input);
        sixteen_bit += usize::from(record.sixteen_bit);
        dim = record.embedding.len();
    }
    if sixteen_bit > 0 {
        findings.push(Finding::new(
            FindingCode::SixteenBitScaled,
            Severity::Info,
            format!("{sixteen_bit} images have 16 bits a channel and were scaled to 8"),
        ));
    }
    if run.cache.batch_dependent == Some(true) {
        findings.push(Finding::new(
            FindingCode::BatchDependent,
            Severity::Warning,
            format!(
                "{} model gives other embeddings in a batch than alone, so items were embedded one by one",
                options.side
            ),
        ));
    }
    Ok(Embedded {
        embeddings: collect(probe, path, options, rows, dim)?,
        input_digests: digests,
        model: ModelInfo {
            name: ModelSource::Onnx(path.into()).name(),
            kind: "onnx".into(),
            hash,
            preprocessing_key: resolved.meaning.clone(),
            dim,
            output: Some(resolved.output.clone()),
            provider: Some(run.model.provider.clone()),
            runtime_version: Some(version),
        },
        settings: resolved.settings.clone(),
        findings,
        n_from_cache: contents.len() - run.n_embedded.min(contents.len()),
        n_embedded: run.n_embedded,
        bad_items: run.bad_items,
    })
}

/// One model over one probe.
struct Run<'a> {
    probe: &'a Probe,
    path: &'a Path,
    options: &'a EmbedOptions<'a>,
    resolved: &'a Resolved,
    cache: Cache,
    model: OnnxModel,
    bad_items: Vec<BadItem>,
    n_embedded: usize,
    /// Dimensions of the embeddings so far.
    dim: Option<usize>,
}

impl Run<'_> {
    /// The content digest of each readable item.
    fn contents(&mut self, wanted: &[usize]) -> BTreeMap<usize, Digest> {
        let digests: Vec<Result<Digest, String>> = wanted
            .par_iter()
            .map(|&item| items::content(&self.probe.items[item], self.resolved, self.options))
            .collect();
        let mut contents = BTreeMap::new();
        for (&item, digest) in wanted.iter().zip(digests) {
            match digest {
                Ok(digest) => {
                    contents.insert(item, digest);
                }
                Err(error) => self.bad(item, error),
            }
        }
        contents
    }

    fn bad(&mut self, item: usize, error: String) {
        self.bad_items.push(BadItem {
            item,
            id: self.probe.items[item].id.clone(),
            error,
        });
    }

    fn refuse_too_many_bad_items(&mut self) -> Result<(), EmbedError> {
        self.bad_items.sort_by_key(|bad| bad.item);
        match self.bad_items.first() {
            Some(first) if self.bad_items.len() > self.options.max_bad_items => {
                Err(EmbedError::BadItems {
                    count: self.bad_items.len(),
                    allowed: self.options.max_bad_items,
                    first: first.error.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Embeds what the cache lacks; items of one content once.
    fn embed_missing(
        &mut self,
        contents: &BTreeMap<usize, Digest>,
        progress: &dyn Progress,
    ) -> Result<(), EmbedError> {
        let mut missing: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for (&item, content) in contents {
            if self.cache.get(content).is_none() {
                missing.entry(*content).or_default().push(item);
            }
        }
        let mut order: Vec<(usize, Digest)> = missing
            .iter()
            .map(|(content, items)| (items[0], *content))
            .collect();
        order.sort_unstable();
        if order.is_empty() {
            return Ok(());
        }
        self.n_embedded = missing.values().map(Vec::len).sum();
        progress.start(
            &format!("embedding, {} model", self.options.side),
            order.len() as u64,
        );
        let outcome = self.embed_order(&order, &missing, progress);
        progress.finish();
        // What was embedded before an error is kept too.
        if let Err(error) = self.cache.save() {
            tracing::warn!("the embeddings' cache cannot be written: {error}");
        }
        outcome
    }

    fn embed_order(
        &mut self,
        order: &[(usize, Digest)],
        missing: &BTreeMap<Digest, Vec<usize>>,
        progress: &dyn Progress,
    ) -> Result<(), EmbedError> {
        let order = self.by_length(order);
        if self.cache.batch_dependent.is_none() && self.resolved.batch_size > 1 {
            self.cache.batch_dependent = self.depends_on_the_batch(&order)?;
        }
        let alone = self.cache.batch_dependent == Some(true);
        let batch_size = if alone { 1 } else { self.resolved.batch_size };
        let (probe, resolved, options) = (self.probe, self.resolved, self.options);
        let prepare = |&(item, content): &(usize, Digest)| {
            (
                item,
                content,
                items::prepare(&probe.items[item], resolved, options),
            )
        };
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            let order = &order;
            // Decodes the next batches while one runs.
            scope.spawn(move || {
                for chunk in order.chunks(batch_size * BATCHES_AHEAD) {
                    let prepared: Vec<_> = chunk.par_iter().map(prepare).collect();
                    // The receiver is gone after an error; nothing is left to do then.
                    if sender.send(prepared).is_err() {
                        return;
                    }
                }
            });
            for prepared in receiver {
                let mut ready: Vec<(Digest, Prepared)> = Vec::new();
                for (item, content, outcome) in prepared {
                    match outcome {
                        Ok(prepared) => ready.push((content, prepared)),
                        Err(error) => {
                            let items = &missing[&content];
                            debug_assert!(items.contains(&item));
                            self.n_embedded -= items.len();
                            items.iter().for_each(|&item| self.bad(item, error.clone()));
                        }
                    }
                }
                for batch in ready.chunks(batch_size) {
                    let embeddings = self.run_batch(batch.iter().map(|(_, p)| p), batch_size)?;
                    for ((content, prepared), embedding) in batch.iter().zip(embeddings) {
                        let Prepared {
                            input, sixteen_bit, ..
                        } = *prepared;
                        self.cache.insert(
                            *content,
                            Record {
                                input,
                                sixteen_bit,
                                embedding,
                            },
                        );
                    }
                    progress.advance(batch.len() as u64);
                }
            }
            Ok(())
        })
    }

    /// Runs one batch, filled up to `batch_size` by repeating its last item: so an item's vector does not depend on how
    /// many others are left.
    fn run_batch<'b>(
        &mut self,
        batch: impl Iterator<Item = &'b Prepared>,
        batch_size: usize,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut rows: Vec<&items::Row> = batch.map(|prepared| &prepared.row).collect();
        let n = rows.len();
        let size = if self.resolved.fixed_batch {
            self.resolved.batch_size
        } else {
            batch_size
        };
        rows.resize(size, rows[n - 1]);
        let mut embeddings = items::run(
            &mut self.model,
            self.resolved,
            &rows,
            self.options,
            self.path,
        )?;
        embeddings.truncate(n);
        for embedding in &embeddings {
            let expected = *self.dim.get_or_insert(embedding.len());
            if embedding.len() != expected {
                return Err(EmbedError::DimsVary {
                    path: self.path.into(),
                    output: self.resolved.output.clone(),
                    expected,
                    found: embedding.len(),
                });
            }
        }
        Ok(embeddings)
    }

    /// Texts by their number of tokens, so that little is padded; everything else in item order.
    fn by_length(&self, order: &[(usize, Digest)]) -> Vec<(usize, Digest)> {
        let mut order = order.to_vec();
        if let Inputs::Text(_) = self.resolved.inputs {
            let length = |&(item, _): &(usize, Digest)| match items::prepare(
                &self.probe.items[item],
                self.resolved,
                self.options,
            ) {
                Ok(Prepared {
                    row: items::Row::Tokens(ids),
                    ..
                }) => ids.len(),
                _ => 0,
            };
            let lengths: Vec<usize> = order.par_iter().map(length).collect();
            let mut keyed: Vec<_> = lengths.into_iter().zip(order).collect();
            keyed.sort_by_key(|&(length, (item, _))| (length, item));
            order = keyed.into_iter().map(|(_, entry)| entry).collect();
        }
        order
    }

    /// Whether a sample of the items comes out differently in a batch than alone; `None` with too few to tell.
    fn depends_on_the_batch(
        &mut self,
        order: &[(usize, Digest)],
    ) -> Result<Option<bool>, EmbedError> {
        // Evenly spread, so that texts of different lengths meet.
        let step = order.len().div_ceil(BATCH_SAMPLE).max(1);
        let sample: Vec<Prepared> = order
            .iter()
            .step_by(step)
            .filter_map(|&(item, _)| {
                items::prepare(&self.probe.items[item], self.resolved, self.options).ok()
            })
            .collect();
        if sample.len() < 2 {
            return Ok(None);
        }
        let together = self.run_batch(sample.iter(), sample.len())?;
        for (prepared, together) in sample.iter().zip(&together) {
            let alone = self.run_batch(std::iter::once(prepared), 1)?;
            // NaN and zero vectors are reported as such later.
            let cosine = cosine(&alone[0], together);
            if cosine < BATCH_COSINE {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }
}

fn embed_stored(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
) -> Result<Embedded, EmbedError> {
    // The new model's gallery embeddings may be missing: then only new->old is tested.
    embed_stored_items(probe, path, options, |item| {
        options.side == Side::Old || item.role.is_query()
    })
}

/// Stored embeddings of all items that have one; `required` items must.
fn embed_stored_items(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
    required: impl Fn(&crate::domain::Item) -> bool,
) -> Result<Embedded, EmbedError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| EmbedError::Read {
            path: path.into(),
            source,
        })
    };
    let hash = blake3::hash(&read(path)?).to_hex().to_string();
    let stored = stored::read(path)?;
    let stored_dim = stored.rows.ncols();
    let dim = options.model.dims.unwrap_or(stored_dim);
    if dim > stored_dim {
        return Err(EmbedError::Dims {
            path: path.into(),
            dims: dim,
            dim: stored_dim,
        });
    }
    let mut absent = Vec::new();
    let mut rows = vec![None; probe.items.len()];
    for (row, item) in rows.iter_mut().zip(&probe.items) {
        match stored.row_of_id.get(&item.id) {
            Some(&index) => {
                *row = Some(stored.rows.row(index).iter().take(dim).copied().collect());
            }
            None if item.identity.is_some() && required(item) => absent.push(item.id.clone()),
            None => {}
        }
    }
    if !absent.is_empty() {
        let count = absent.len();
        absent.truncate(NAMED);
        return Err(EmbedError::NotStored {
            path: path.into(),
            count,
            ids: absent,
        });
    }
    Ok(Embedded {
        embeddings: collect(probe, path, options, rows, dim)?,
        input_digests: vec![None; probe.items.len()],
        model: ModelInfo {
            name: ModelSource::Stored(path.into()).name(),
            kind: "stored".into(),
            hash,
            preprocessing_key: format!("stored, {dim} dimensions"),
            dim,
            output: None,
            provider: None,
            runtime_version: None,
        },
        settings: Vec::new(),
        findings: Vec::new(),
        bad_items: Vec::new(),
        n_from_cache: 0,
        n_embedded: 0,
    })
}

/// Checked embeddings from one optional row an item.
fn collect(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
    rows: Vec<Option<Vec<f32>>>,
    dim: usize,
) -> Result<Embeddings, EmbedError> {
    let normalise = options.similarity == Similarity::Cosine;
    refuse_unusable(probe, path, &rows, "not finite", |row| {
        row.iter().any(|v| !v.is_finite())
    })?;
    if normalise {
        refuse_unusable(probe, path, &rows, "all zeros", |row| {
            row.iter().all(|&v| v == 0.0)
        })?;
    }
    let mut row_of_item = Vec::with_capacity(rows.len());
    let mut values = Vec::new();
    let mut n = 0;
    for row in rows {
        row_of_item.push(row.as_ref().map(|_| n));
        if let Some(row) = row {
            values.extend(row);
            n += 1;
        }
    }
    let matrix = Array2::from_shape_vec((n as usize, dim), values)
        .expect("every row of one model has the same dimensions");
    Ok(Embeddings::new(matrix, row_of_item, normalise)
        .expect("rows were checked to be finite and, where it matters, not zero"))
}

fn refuse_unusable(
    probe: &Probe,
    path: &Path,
    rows: &[Option<Vec<f32>>],
    what: &'static str,
    is_bad: impl Fn(&[f32]) -> bool,
) -> Result<(), EmbedError> {
    let bad: Vec<String> = rows
        .iter()
        .zip(&probe.items)
        .filter(|(row, _)| row.as_deref().is_some_and(&is_bad))
        .map(|(_, item)| item.id.clone())
        .collect();
    if bad.is_empty() {
        return Ok(());
    }
    let count = bad.len();
    let ids = bad.into_iter().take(NAMED).collect();
    Err(EmbedError::Unusable {
        path: path.into(),
        what,
        count,
        ids,
    })
}

/// Cosine in f64; NaN when a vector is zero or not finite.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
