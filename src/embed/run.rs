//! One model over one probe: what the cache lacks is decoded and embedded, batch by batch.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::cache::{Cache, Digest, Record};
use super::external::ModelFile;
use super::items::{self, Prepared};
use super::resolve::{Inputs, Resolved};
use super::session::OnnxModel;
use super::{
    BadItem, EmbedError, EmbedOptions, Embedded, ModelInfo, ModelSource, NAMED, Opened, Progress,
    collect, open,
};
use crate::domain::{Finding, FindingCode, Probe, Severity, cosine};
use crate::runtime::{Runtime, SESSION_SETTINGS};

/// Items that are embedded alone and in a batch to see whether it matters.
const BATCH_SAMPLE: usize = 8;

/// Cosine below which an item embedded alone and in a batch counts as different.
const BATCH_COSINE: f64 = 0.9999;

/// Items decoded at a time while a batch runs: enough for every core, few enough to fit in memory (three such
/// groups are held: one being decoded, one waiting, one running).
const DECODED_TOGETHER: usize = 32;

/// Embeds the `wanted` items (indices into the probe's, rising) with a model; the others have no row.
///
/// # Errors
/// A model that cannot be opened or run, too many unreadable items, embeddings that no metric can use.
pub fn embed(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
    progress: &dyn Progress,
    wanted: &[usize],
) -> Result<Embedded, EmbedError> {
    let Opened {
        file: ModelFile { hash, precision },
        model,
        resolved,
        version,
    } = open(probe, path, options, runtime)?;
    let key = [
        &hash,
        &resolved.cache_key,
        &version,
        &model.provider,
        resolved.batch_size.to_string().as_str(),
        SESSION_SETTINGS,
    ]
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
        n_from_cache: 0,
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
            preprocessing_key: resolved.preprocessing_key.clone(),
            dim,
            inputs: run.model.inputs.clone(),
            outputs: run.model.outputs.clone(),
            output: Some(resolved.output.clone()),
            precision: precision.map(str::to_owned),
            provider: Some(run.model.provider.clone()),
            runtime_version: Some(version),
        },
        settings: resolved.settings.clone(),
        findings,
        n_from_cache: run.n_from_cache,
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
    n_from_cache: usize,
    n_embedded: usize,
    /// Dimensions of the embeddings so far.
    dim: Option<usize>,
}

impl Run<'_> {
    /// The content digest of each readable item.
    fn contents(&mut self, wanted: &[usize]) -> BTreeMap<usize, Digest> {
        let digests: Vec<Result<Digest, String>> = wanted
            .par_iter()
            .map(|&item| {
                let item = &self.probe.items[item];
                items::content(item, self.resolved, self.options, &self.model.inputs)
            })
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
            id: self.probe.items[item].id.to_string(),
            error,
        });
    }

    fn refuse_too_many_bad_items(&mut self) -> Result<(), EmbedError> {
        self.bad_items.sort_by_key(|bad| bad.item);
        if self.bad_items.len() <= self.options.max_bad_items {
            return Ok(());
        }
        let named = self.bad_items.iter().take(NAMED);
        Err(EmbedError::BadItems {
            count: self.bad_items.len(),
            allowed: self.options.max_bad_items,
            first: named
                .map(|bad| format!("`{}`: {}", bad.id, bad.error))
                .collect(),
        })
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
        self.n_embedded = missing.values().map(Vec::len).sum();
        self.n_from_cache = contents.len() - self.n_embedded;
        if order.is_empty() {
            return Ok(());
        }
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
        // Whole batches, so that only the last one of all is filled up.
        let group = batch_size * DECODED_TOGETHER.div_ceil(batch_size);
        let (probe, resolved, options) = (self.probe, self.resolved, self.options);
        let specs = self.model.inputs.clone();
        let prepare = |&(item, content): &(usize, Digest)| {
            let prepared = items::prepare(&probe.items[item], resolved, options, &specs);
            (item, content, prepared)
        };
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            let order = &order;
            // Decodes the next group while one runs.
            scope.spawn(move || {
                for chunk in order.chunks(group) {
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
                            progress.advance(1);
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

    fn prepare(&self, item: usize) -> Result<Prepared, String> {
        let item = &self.probe.items[item];
        items::prepare(item, self.resolved, self.options, &self.model.inputs)
    }

    /// Texts by their number of tokens, so that little is padded; everything else in item order.
    fn by_length(&self, order: &[(usize, Digest)]) -> Vec<(usize, Digest)> {
        let mut order = order.to_vec();
        if let Inputs::Text { .. } = self.resolved.inputs {
            let length = |&(item, _): &(usize, Digest)| match self.prepare(item) {
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

    /// Whether a sample of the items comes out differently in a batch than alone; `None` when fewer than two of the
    /// sampled items can be read.
    fn depends_on_the_batch(
        &mut self,
        order: &[(usize, Digest)],
    ) -> Result<Option<bool>, EmbedError> {
        // Evenly spread, so that texts of different lengths meet.
        let step = order.len().div_ceil(BATCH_SAMPLE).max(1);
        let sample: Vec<Prepared> = order
            .iter()
            .step_by(step)
            .filter_map(|&(item, _)| self.prepare(item).ok())
            .collect();
        if sample.len() < 2 {
            return Ok(None);
        }
        // A model's fixed batch may hold fewer than the sample.
        let size = self.resolved.batch_size.min(sample.len());
        for group in sample.chunks(size) {
            let together = self.run_batch(group.iter(), group.len())?;
            for (prepared, together) in group.iter().zip(&together) {
                let alone = self.run_batch(std::iter::once(prepared), 1)?;
                // Vectors without a direction are reported as such later.
                if cosine(&alone[0], together).is_some_and(|cosine| cosine < BATCH_COSINE) {
                    return Ok(Some(true));
                }
            }
        }
        Ok(Some(false))
    }
}
