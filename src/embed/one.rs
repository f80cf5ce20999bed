//! One model over one probe: what its cache has and lacks, its batches, and what comes out.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::cache::{Cache, Digest, Record};
use super::external::ModelFile;
use super::feed::Filled;
use super::items::{self, Batch, Plan, Row, Rows};
use super::resolve::{Inputs, Resolved};
use super::run::Task;
use super::session::{OnnxModel, TensorSpec};
use super::token_store::TokenStore;
use super::{BadItem, EmbedError, EmbedOptions, Embedded, ModelInfo, ModelSource, NAMED, checked};
use crate::domain::{self, Finding, FindingCode, Probe, Severity, cosine};
use crate::runtime::SESSION_SETTINGS;

/// How inputs are prepared where settings do not say it: a change of it that changes embeddings raises the number, so that what
/// was kept before is not taken for what would be made now.
const PREPARATION: &str = "preparation 2";

/// Cosine below which an item embedded alone and in a batch counts as different.
const BATCH_COSINE: f64 = 0.9999;

/// Texts tokenised at a time to find their lengths.
const TOKENISED_TOGETHER: usize = 4096;

/// One model over one probe.
pub struct Run<'a> {
    pub probe: &'a Probe,
    path: &'a Path,
    pub options: &'a EmbedOptions<'a>,
    pub wanted: &'a [usize],
    pub resolved: &'a Resolved,
    pub specs: &'a [TensorSpec],
    file: ModelFile,
    version: String,
    model: OnnxModel,
    pub cache: Cache,
    /// What each readable item contains.
    pub contents: BTreeMap<usize, Digest>,
    bad_items: Vec<BadItem>,
    pub n_from_cache: usize,
    pub n_embedded: usize,
    /// Why the cache could not be written.
    pub not_kept: Option<String>,
    /// Whether the cache has room for what is to come.
    reserved: bool,
}

/// Refuses more unreadable items than are allowed; they are sorted.
pub fn refuse_too_many(bad_items: &[BadItem], allowed: usize) -> Result<(), EmbedError> {
    if bad_items.len() <= allowed {
        return Ok(());
    }
    let named = bad_items.iter().take(NAMED);
    Err(EmbedError::BadItems {
        count: bad_items.len(),
        allowed,
        first: named
            .map(|bad| match bad.row {
                Some(row) => format!("row {row}, `{}`: {}", bad.id, bad.error),
                None => format!("`{}`: {}", bad.id, bad.error),
            })
            .collect(),
    })
}

impl<'a> Run<'a> {
    pub fn new(
        probe: &'a Probe,
        task: &Task<'a>,
        resolved: &'a Resolved,
        specs: &'a [TensorSpec],
        file: ModelFile,
        model: OnnxModel,
        version: String,
    ) -> Self {
        let key = [
            PREPARATION,
            &file.hash,
            &resolved.cache_key,
            &version,
            &model.provider,
            resolved.batch_size.to_string().as_str(),
            SESSION_SETTINGS,
        ]
        .join("\n");
        let key = blake3::hash(key.as_bytes()).to_hex();
        Self {
            probe,
            path: task.path,
            options: task.options,
            wanted: task.wanted,
            resolved,
            specs,
            file,
            version,
            cache: Cache::open(task.options.cache_dir, &key),
            model,
            contents: BTreeMap::new(),
            bad_items: Vec::new(),
            n_from_cache: 0,
            n_embedded: 0,
            not_kept: None,
            reserved: false,
        }
    }

    pub fn plan<'p>(&self, tokens: &'p TokenStore) -> Plan<'p>
    where
        'a: 'p,
    {
        Plan {
            options: self.options,
            resolved: self.resolved,
            specs: self.specs,
            tokens,
        }
    }

    pub fn learn_contents(&mut self, found: &BTreeMap<usize, Result<Digest, String>>) {
        for &item in self.wanted {
            match &found[&item] {
                Ok(content) => {
                    self.contents.insert(item, *content);
                }
                Err(error) => self.bad(item, error.clone()),
            }
        }
    }

    pub fn bad(&mut self, item: usize, error: String) {
        self.bad_items.push(BadItem::new(self.probe, item, error));
    }

    pub fn refuse_too_many_bad_items(&mut self) -> Result<(), EmbedError> {
        self.bad_items.sort_by_key(|bad| bad.item);
        refuse_too_many(&self.bad_items, self.options.max_bad_items)
    }

    /// The contents that the cache lacks, each with the first item that has it, in item order.
    pub fn missing(&mut self) -> Vec<(usize, Digest)> {
        let mut first_of: BTreeMap<Digest, usize> = BTreeMap::new();
        for (&item, content) in &self.contents {
            if self.cache.get(content).is_some() {
                self.n_from_cache += 1;
            } else {
                self.n_embedded += 1;
                first_of.entry(*content).or_insert(item);
            }
        }
        let mut missing: Vec<(usize, Digest)> = first_of
            .into_iter()
            .map(|(content, item)| (item, content))
            .collect();
        missing.sort_unstable();
        missing
    }

    /// The same once the cache has forgotten.
    pub fn missing_again(&mut self) -> Vec<(usize, Digest)> {
        (self.n_from_cache, self.n_embedded) = (0, 0);
        self.missing()
    }

    /// Texts by their number of tokens, so that little is padded; everything else as it is.
    pub fn by_length(
        &self,
        missing: Vec<(usize, Digest)>,
        store: &mut TokenStore,
    ) -> Vec<(usize, Digest)> {
        let Inputs::Text { tokens, .. } = &self.resolved.inputs else {
            return missing;
        };
        store.keep_for(format!("{} {}", tokens.hash, tokens.max_length));
        let mut keyed = Vec::with_capacity(missing.len());
        for group in missing.chunks(TOKENISED_TOGETHER) {
            let plan = self.plan(store);
            let encoded: Vec<_> = group
                .par_iter()
                .map(|(item, content)| items::encode(&self.probe.items[*item], content, &plan).ok())
                .collect();
            for (&(item, content), tokens) in group.iter().zip(encoded) {
                let length = tokens.as_ref().map_or(0, |tokens| tokens.len());
                keyed.push((length, (item, content)));
                if let Some(tokens) = tokens {
                    store.keep(content, tokens);
                }
            }
        }
        keyed.sort_by_key(|&(length, (item, _))| (length, item));
        keyed.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Items and rows a batch.
    pub fn batch_sizes(&self) -> (usize, usize) {
        let alone = self.cache.batch_dependent == Some(true);
        let items = if alone { 1 } else { self.resolved.batch_size };
        (items, self.rows(items))
    }

    /// Rows of a batch of `n` items: a model may fix them.
    fn rows(&self, n: usize) -> usize {
        if self.resolved.fixed_batch {
            self.resolved.batch_size
        } else {
            n
        }
    }

    /// Embeds a batch into the cache; `expected` items are all there are.
    pub fn embed_batch(&mut self, filled: &Filled, expected: usize) -> Result<(), EmbedError> {
        let rows = self.run(&filled.batch)?;
        if let Some(expected) = self.cache.dim().filter(|&dim| dim != rows.dim) {
            return Err(EmbedError::DimsVary {
                path: self.path.into(),
                output: self.resolved.output.clone(),
                expected,
                found: rows.dim,
            });
        }
        if !std::mem::replace(&mut self.reserved, true) {
            self.cache.reserve(expected, rows.dim);
        }
        for (item, embedding) in filled.items.iter().zip(rows.iter()) {
            let record = Record {
                input: item.input,
                sixteen_bit: item.sixteen_bit,
                embedding,
            };
            self.cache.insert(item.content, record);
        }
        Ok(())
    }

    fn run(&mut self, batch: &Batch) -> Result<Rows, EmbedError> {
        items::run(
            &mut self.model,
            self.resolved,
            batch,
            self.options,
            self.path,
        )
    }

    /// Whether these items come out differently in a batch than alone.
    pub fn depends_on_the_batch(
        &mut self,
        plan: &Plan<'_>,
        sample: &[&Row],
    ) -> Result<bool, EmbedError> {
        let mut batch = Batch::default();
        // A model's fixed batch may hold fewer than the sample.
        for group in sample.chunks(self.resolved.batch_size) {
            let mut run = |rows: &[&Row]| {
                let mut rows = rows.to_vec();
                rows.resize(self.rows(rows.len()), rows[rows.len() - 1]);
                batch.fill(plan, &rows);
                self.run(&batch)
            };
            let together = run(group)?;
            for (row, together) in group.iter().zip(together.iter()) {
                let alone = run(&[row])?;
                let alone = alone.iter().next().unwrap_or_default();
                // Vectors without a direction are reported as such later.
                if alone.len() == together.len()
                    && cosine(alone, together).is_some_and(|cosine| cosine < BATCH_COSINE)
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The embeddings and what is said of them.
    pub fn finish(self) -> Result<Embedded, EmbedError> {
        let Self {
            probe,
            path,
            options,
            resolved,
            cache,
            model,
            contents,
            file:
                ModelFile {
                    hash,
                    precision,
                    adaptation,
                    ..
                },
            version,
            ..
        } = self;
        let mut findings = resolved.findings.clone();
        if let Some(why) = &model.fallback {
            findings.push(Finding::new(
                FindingCode::ProviderFallback,
                Severity::Info,
                format!("{} model runs on the CPU: {why}", options.side),
            ));
        }
        let mut digests = vec![None; probe.items.len()];
        let mut row_of_item = vec![None; probe.items.len()];
        let mut present = Vec::with_capacity(contents.len());
        let mut sixteen_bit = 0;
        for (&item, content) in &contents {
            let Some(record) = cache.get(content) else {
                continue;
            };
            digests[item] = Some(record.input);
            sixteen_bit += usize::from(record.sixteen_bit);
            row_of_item[item] = Some(present.len() as u32);
            present.push(*content);
        }
        if sixteen_bit > 0 {
            findings.push(Finding::new(
                FindingCode::SixteenBitScaled,
                Severity::Info,
                format!("{sixteen_bit} images have 16 bits a channel and were scaled to 8"),
            ));
        }
        if cache.batch_dependent == Some(true) {
            findings.push(Finding::new(
                FindingCode::BatchDependent,
                Severity::Warning,
                format!(
                    "{} model gives other embeddings in a batch than alone, so items were embedded one by one",
                    options.side
                ),
            ));
        }
        drop(contents);
        let dim = match present.is_empty() {
            true => 0,
            false => cache.dim().unwrap_or(0),
        };
        let rows = domain::Rows::f32(cache.into_rows(&present), present.len(), dim);
        Ok(Embedded {
            embeddings: checked(probe, path, options, rows, dim, row_of_item)?,
            input_digests: digests,
            model: ModelInfo {
                name: ModelSource::Onnx(path.into()).name(),
                kind: "onnx".into(),
                hash,
                preprocessing_key: resolved.preprocessing_key.clone(),
                dim,
                inputs: model.inputs.clone(),
                outputs: model.outputs.clone(),
                output: Some(resolved.output.clone()),
                precision: precision.map(str::to_owned),
                provider: Some(model.provider.clone()),
                runtime_version: Some(version),
                pooling: resolved.pooling,
                adaptation,
            },
            settings: resolved.settings.clone(),
            findings,
            n_from_cache: self.n_from_cache,
            not_kept: self.not_kept,
            n_embedded: self.n_embedded,
            bad_items: self.bad_items,
        })
    }
}
