//! Stage 2: a probe and a model become embeddings.
//!
//! [`embed`] either runs a model over the items (`run`, after `resolve` has decided how its inputs are made) or
//! looks the items up in a stored file (`stored_side`).

mod batch_size;
mod cache;
#[cfg(test)]
mod counting;
mod error;
pub mod external;
mod feed;
mod items;
mod one;
pub mod preprocess;
mod resolve;
mod run;
pub mod session;
mod stored;
mod stored_side;
mod token_store;
mod tokens;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::config::{ModelConfig, Pooling, Similarity};
use crate::domain::{
    Adaptation, Embeddings, EmbeddingsError, Finding, FindingCode, Modality, Origin, Probe,
    Progress, Rows, Setting, Severity, Side,
};
use crate::runtime::Runtime;

use cache::Digest;
pub use external::ADAPTATION_KEY;
use external::ModelFile;
use run::Task;
use session::{OnnxModel, TensorSpec};
use token_store::TokenStore;

pub use error::EmbedError;
pub use resolve::INPUT_SIDECARS;
pub use stored_side::{describe as describe_stored, embed_with_stored};

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
            Ok(metadata) if metadata.is_file() => Ok(source),
            Ok(_) => Err(EmbedError::NotAFile { path: path.into() }),
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
    /// Bytes of stored rows that may be held in memory; more are read from their file.
    pub memory: u64,
    /// Who named the probe's tensor file; [`Origin::Sidecar`]: it is the only one beside the manifest.
    pub tensors_origin: Origin,
}

/// One side's embeddings and where they came from.
pub struct Embedded {
    /// The embeddings.
    pub embeddings: Embeddings,
    /// BLAKE3 of each item's decoded input, where it was read; empty when none was, of stored embeddings.
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
    /// Why the next run will embed them again: the cache could not be written.
    pub not_kept: Option<String>,
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
    /// Inputs; empty for stored embeddings.
    pub inputs: Vec<TensorSpec>,
    /// Outputs; empty for stored embeddings.
    pub outputs: Vec<TensorSpec>,
    /// Output in use.
    pub output: Option<String>,
    /// Element type that most of the model's weights are stored in (`float32`, `int8`).
    pub precision: Option<String>,
    /// Execution provider in use.
    pub provider: Option<String>,
    /// ONNX Runtime's version.
    pub runtime_version: Option<String>,
    /// How the output becomes one vector an item.
    pub pooling: Pooling,
    /// How the model was adapted to the old one, if it was.
    pub adaptation: Option<Adaptation>,
}

/// An item that could not be read.
#[derive(Debug, Clone, PartialEq)]
pub struct BadItem {
    /// Item index.
    pub item: usize,
    /// Item id.
    pub id: String,
    /// Its row in the manifest, where there is one.
    pub row: Option<u32>,
    /// Why.
    pub error: String,
}

impl BadItem {
    /// Item `index` of the probe.
    fn new(probe: &Probe, index: usize, error: String) -> Self {
        let item = &probe.items[index];
        Self {
            item: index,
            id: item.id.to_string(),
            row: item.row.get(),
            error,
        }
    }
}

/// What `--dry-run` and `init` show of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelDescription {
    /// File name.
    pub name: String,
    /// Inputs, `name dtype[shape]`.
    pub inputs: Vec<String>,
    /// Outputs, likewise.
    pub outputs: Vec<String>,
    /// Stored embeddings, in words, where there are any.
    pub stored: Option<String>,
    /// Resolved settings.
    pub settings: Vec<Setting>,
    /// Keys whose setting is a file, with its path.
    pub files: Vec<(&'static str, PathBuf)>,
    /// What only the configuration can say; empty unless [`Questions::Open`].
    pub open: Vec<Open>,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

/// A key without which the model cannot be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// The key under `[old]` or `[new]`.
    pub key: &'static str,
    /// What there is to choose from.
    pub about: String,
}

/// What becomes of a choice that neither the model nor the configuration has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Questions {
    /// It is an error, as in an audit.
    Refused,
    /// It is listed under [`ModelDescription::open`].
    Open,
}

/// Refuses image files that an audit could not open; none is read.
///
/// # Errors
/// [`EmbedError::BadItems`], as an audit would give it.
pub fn refuse_missing_files(probe: &Probe, options: &EmbedOptions<'_>) -> Result<(), EmbedError> {
    let items = probe.items.par_iter().enumerate();
    let bad_items: Vec<BadItem> = items
        .filter(|(_, item)| item.identity.is_some())
        .filter_map(|(index, item)| Some(BadItem::new(probe, index, items::fault(item)?)))
        .collect();
    one::refuse_too_many(&bad_items, options.max_bad_items)
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
    let tokens = &mut TokenStore::default();
    embed_one(probe, source, options, runtime, progress, tokens)
}

/// Embeds both sides as [`embed`] does each. Where both are models of images, each file is read and decoded once;
/// where both are models of texts with one tokenizer, each text is tokenised once.
///
/// # Errors
/// See [`EmbedError`]; with the side.
pub fn embed_both(
    probe: &Probe,
    sides: [(&ModelSource, &EmbedOptions<'_>); 2],
    runtime: Option<&Runtime>,
    progress: &dyn Progress,
) -> Result<[Embedded; 2], (Side, EmbedError)> {
    let [(old, old_options), (new, new_options)] = sides;
    if let (Modality::Image, ModelSource::Onnx(old), ModelSource::Onnx(new)) =
        (probe.modality, old, new)
    {
        let wanted = |options: &EmbedOptions<'_>| {
            Wanted::of(probe, options.side).map_err(|error| (options.side, error))
        };
        let [old_wanted, new_wanted] = [wanted(old_options)?, wanted(new_options)?];
        let task = |path, options, wanted| Task {
            path,
            options,
            wanted,
        };
        let tasks = [
            task(old, old_options, &old_wanted.items),
            task(new, new_options, &new_wanted.items),
        ];
        let tokens = &mut TokenStore::default();
        let embedded = run::embed_all(probe, &tasks, runtime, progress, tokens)
            .map_err(|(task, error)| (tasks[task].options.side, error))?;
        let mut embedded: [Embedded; 2] = embedded
            .try_into()
            .unwrap_or_else(|_| unreachable!("one for each task"));
        for (embedded, wanted) in embedded.iter_mut().zip([old_wanted, new_wanted]) {
            embedded.findings.extend(wanted.finding());
        }
        return Ok(embedded);
    }
    let tokens = &mut TokenStore::default();
    let mut one = |source, options: &EmbedOptions<'_>| {
        embed_one(probe, source, options, runtime, progress, tokens)
            .map_err(|error| (options.side, error))
    };
    Ok([one(old, old_options)?, one(new, new_options)?])
}

fn embed_one(
    probe: &Probe,
    source: &ModelSource,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
    progress: &dyn Progress,
    tokens: &mut TokenStore,
) -> Result<Embedded, EmbedError> {
    match source {
        ModelSource::Stored(path) => stored_side::embed(probe, path, options),
        ModelSource::Onnx(path) => {
            let wanted = Wanted::of(probe, options.side)?;
            let mut embedded = run::embed(
                probe,
                path,
                options,
                runtime,
                progress,
                &wanted.items,
                tokens,
            )?;
            embedded.findings.extend(wanted.finding());
            Ok(embedded)
        }
    }
}

/// The items that a model is to embed.
struct Wanted {
    /// Indices, rising.
    items: Vec<usize>,
    /// Gallery items that the new model cannot embed.
    missing: usize,
}

impl Wanted {
    fn of(probe: &Probe, side: Side) -> Result<Self, EmbedError> {
        let mut wanted = Self {
            items: Vec::new(),
            missing: 0,
        };
        for (index, item) in probe.items.iter().enumerate() {
            if item.identity.is_none() {
                continue;
            }
            if item.source.is_some() {
                wanted.items.push(index);
            } else if side == Side::New && !item.role.is_query() {
                wanted.missing += 1;
            } else {
                return Err(EmbedError::InputGone {
                    id: item.id.to_string(),
                    side,
                });
            }
        }
        Ok(wanted)
    }

    fn finding(&self) -> Option<Finding> {
        let missing = self.missing;
        (missing > 0).then(|| {
            Finding::new(
                FindingCode::InputsMissing,
                Severity::Warning,
                format!(
                    "{missing} gallery items have no input, so the new model cannot embed them"
                ),
            )
        })
    }
}

/// Refuses embeddings whose file was written to after they were checked: what was computed may be of either.
///
/// # Errors
/// [`EmbedError::Changed`].
pub fn refuse_changed(embedded: &Embedded, path: &Path) -> Result<(), EmbedError> {
    match embedded.embeddings.is_unchanged() {
        Ok(true) => Ok(()),
        Ok(false) => Err(EmbedError::Changed { path: path.into() }),
        Err(source) => Err(EmbedError::Read {
            path: path.into(),
            source,
        }),
    }
}

/// Describes a model; runs nothing. Stored embeddings are read and looked up.
///
/// # Errors
/// What can be seen without running.
pub fn describe(
    probe: &Probe,
    source: &ModelSource,
    options: &EmbedOptions<'_>,
    runtime: Option<&Runtime>,
    questions: Questions,
) -> Result<ModelDescription, EmbedError> {
    let name = source.name();
    let path = match source {
        ModelSource::Onnx(path) => path,
        ModelSource::Stored(path) => {
            let Embedded {
                embeddings,
                settings,
                findings,
                ..
            } = stored_side::embed(probe, path, options)?;
            return Ok(ModelDescription {
                name,
                stored: Some(stored_side::in_words(probe, &embeddings)),
                settings,
                findings,
                ..ModelDescription::default()
            });
        }
    };
    let (_, model) = open_model(path, runtime)?;
    let (resolved, open) = match questions {
        Questions::Refused => (resolve::resolve(probe, path, &model, options)?, Vec::new()),
        Questions::Open => resolve::with_open_questions(probe, path, &model, options)?,
    };
    Ok(ModelDescription {
        name,
        inputs: model.inputs.iter().map(ToString::to_string).collect(),
        outputs: model.outputs.iter().map(ToString::to_string).collect(),
        stored: None,
        settings: resolved.settings,
        files: resolved.files,
        open,
        findings: resolved.findings,
    })
}

/// The file is read first: that refuses external data outside the model's folder before the runtime would read it.
fn open_model(
    path: &Path,
    runtime: Option<&Runtime>,
) -> Result<(ModelFile, OnnxModel), EmbedError> {
    let runtime = runtime.ok_or_else(|| EmbedError::NoRuntime { path: path.into() })?;
    Ok((external::read(path)?, OnnxModel::open(runtime, path)?))
}

/// The first `dim` numbers of each item's row, checked, and L2-normalised for cosine.
///
/// # Errors
/// [`EmbedError::Unusable`]: values that are not finite; for cosine, rows of zeros.
fn checked(
    probe: &Probe,
    path: &Path,
    options: &EmbedOptions<'_>,
    rows: Rows,
    dim: usize,
    row_of_item: Vec<Option<u32>>,
) -> Result<Embeddings, EmbedError> {
    let normalise = options.similarity == Similarity::Cosine;
    Embeddings::from_rows(rows, dim, row_of_item, normalise).map_err(|error| {
        let (what, items) = match &error {
            EmbeddingsError::NotFinite { items, .. } => ("not finite", items),
            EmbeddingsError::Zero { items } => ("all zeros", items),
            EmbeddingsError::RowCount { .. } => unreachable!("items are mapped to rows there are"),
        };
        let named = items.iter().take(NAMED);
        EmbedError::Unusable {
            path: path.into(),
            what,
            count: items.len(),
            ids: named
                .map(|&item| probe.items[item].id.to_string())
                .collect(),
        }
    })
}

#[cfg(test)]
mod tests;
