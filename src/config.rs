//! audit.toml and the checked configuration of an audit.
//!
//! [`ConfigFile`] mirrors the file, every key optional. [`AuditConfig`] is what the stages get: flags over
//! file over defaults, checked, with a record of where each value came from.

mod file;
mod memory;
mod model;
mod policy;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::{CheckSeverity, Date, Measure, Origin, Setting};

use file::BackfillTable;
pub use file::{ConfigError, ConfigFile, known_keys};
pub use memory::{ByteSize, NotASize};
pub use model::{
    BatchSize, ColorOrder, Layout, ModelConfig, Pooling, ResizeFilter, ResizeMode, Size,
};
pub use policy::{FailOn, Inconclusive, Policy, Profile, Waiver};

/// Names of the manifest columns, where they are not the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColumnNames {
    /// Column of the image path (default `path`).
    pub path: Option<String>,
    /// Column of the text (default `text`).
    pub text: Option<String>,
    /// Column of the unique id (default `id`).
    pub id: Option<String>,
    /// Column of the identity (default `identity`, `label` or `class`).
    pub identity: Option<String>,
    /// Column of the camera (default `camera`).
    pub camera: Option<String>,
    /// Column of the role (default `role`).
    pub role: Option<String>,
    /// Separates several labels in one identity cell (default: none, one label an item).
    pub identity_separator: Option<String>,
}

impl ColumnNames {
    /// The keys that are set, in the order of the fields.
    pub fn configured(&self) -> Vec<String> {
        keys_set(self)
    }
}

/// How to read the probe.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbeConfig {
    /// Column names.
    pub columns: ColumnNames,
    /// Tensor file of the probe (`--tensors`), else the only `.npz` beside the manifest.
    pub tensors: Option<PathBuf>,
    /// Relevance judgements (`--qrels`), else the only `qrels.*` beside the manifest.
    pub qrels: Option<PathBuf>,
    /// Tensor files of single models; they show that a manifest without paths lists tensor rows.
    pub model_tensors: Vec<PathBuf>,
    /// Whether a model without a tensor file of its own must be run.
    pub shared_tensors: bool,
    /// Whether items may lack an input (stored embeddings stand in for it).
    pub allow_missing_inputs: bool,
    /// Whether items need no identity: the audit is of the label-free profile.
    pub label_free: bool,
}

/// How two embeddings are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Inner product of L2-normalised embeddings.
    #[default]
    Cosine,
    /// Inner product of the embeddings as they are.
    Ip,
    /// Negative squared Euclidean distance of the embeddings as they are.
    L2,
}

/// Which score says that an old embedding is not credible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum CredibilityCut {
    /// Posterior and neighbours together give the own identity less than a quarter.
    #[default]
    Combined,
    /// The cut of NCCL's paper (Wu et al., AAAI 2022): the entropy over the identity prototypes exceeds half of its
    /// greatest value, H(p) > ln K / 2. It passes what is confidently wrong.
    Paper,
}

/// What a backfill costs in production, for the plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostInputs {
    /// Items of the production gallery.
    pub gallery_size: u64,
    /// Money a million items.
    pub cost_per_million: Option<f64>,
    /// Items a second.
    pub throughput: Option<f64>,
}

/// What the command line says; `None` leaves it to audit.toml or the default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// `--margin`
    pub margin: Option<f64>,
    /// `--alpha`
    pub alpha: Option<f64>,
    /// `--excess-flips`
    pub excess_flips: Option<f64>,
    /// `--negative-flips`
    pub negative_flips: Option<f64>,
    /// `--profile`
    pub profile: Option<Profile>,
    /// `--primary`
    pub primary: Option<Measure>,
    /// `--slice-margin`
    pub slice_margin: Option<f64>,
    /// `--slice-columns`
    pub slice_columns: Option<Vec<String>>,
    /// `--refresh-margin`
    pub refresh_margin: Option<f64>,
    /// `--max-partial`
    pub max_partial: Option<f64>,
    /// `--threshold-far`
    pub threshold_far: Option<f64>,
    /// `--severity`, check codes and how much each matters
    pub severity: Vec<(String, CheckSeverity)>,
    /// `--inconclusive`
    pub inconclusive: Option<Inconclusive>,
    /// `--fail-on`
    pub fail_on: Option<FailOn>,
    /// `--gallery-size`
    pub gallery_size: Option<u64>,
    /// `--cost-per-million`
    pub cost_per_million: Option<f64>,
    /// `--throughput`
    pub throughput: Option<f64>,
    /// `--similarity`
    pub similarity: Option<Similarity>,
    /// `--seed`
    pub seed: Option<u64>,
    /// `--max-bad-items`
    pub max_bad_items: Option<usize>,
    /// `--tensors`
    pub tensors: Option<PathBuf>,
    /// `--qrels`
    pub qrels: Option<PathBuf>,
    /// `--old-embeddings`
    pub old_embeddings: Option<PathBuf>,
    /// `--memory`
    pub memory: Option<ByteSize>,
    /// `--sample`
    pub sample: Option<NonZeroUsize>,
    /// `--strict`
    pub strict: bool,
    /// `--batch`, for each model that is run
    pub batch: Option<BatchSize>,
}

/// A checked configuration: what the stages get. Built only by [`AuditConfig::resolve`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AuditConfig {
    /// The old model: `.onnx`, `.npy` or `.parquet`.
    pub old: PathBuf,
    /// The new model, likewise.
    pub new: PathBuf,
    /// The probe.
    pub data: PathBuf,
    /// Stored embeddings of the old gallery, beside the old model.
    pub old_embeddings: Option<PathBuf>,
    /// How to read the probe.
    pub probe: ProbeConfig,
    /// Preprocessing and output of the old model.
    pub old_model: ModelConfig,
    /// Preprocessing and output of the new model.
    pub new_model: ModelConfig,
    /// The judge's limits.
    pub policy: Policy,
    /// What a backfill costs; `None` without a gallery size.
    pub cost: Option<CostInputs>,
    /// The day of the audit, for waivers that lapse.
    pub today: Date,
    /// How embeddings are compared.
    pub similarity: Similarity,
    /// Which old embeddings are called not credible.
    pub credibility: CredibilityCut,
    /// Seed of every random draw.
    pub seed: u64,
    /// Unreadable items that are tolerated.
    pub max_bad_items: usize,
    /// Bytes of stored embeddings, of both models together, that may be held in memory. Not among the settings: it
    /// changes no number.
    pub memory: ByteSize,
    /// Gallery items whose credibility is assessed, and queries whose consensus is measured; all without it.
    pub sample: Option<NonZeroUsize>,
    /// Whether a warning about assumed preprocessing is an error.
    pub strict: bool,
    /// Each setting with its origin, in a fixed order.
    pub settings: Vec<Setting>,
}

impl AuditConfig {
    /// Flags over file over defaults; checks every value.
    ///
    /// # Errors
    /// A value out of its range, with the key, the range and what was found.
    pub fn resolve(
        paths: [PathBuf; 3],
        file: ConfigFile,
        flags: Overrides,
    ) -> Result<Self, ConfigError> {
        let path = file.path.clone();
        Self::resolved(paths, file, flags).map_err(|error| error.in_file(path))
    }

    fn resolved(
        [old, new, data]: [PathBuf; 3],
        mut file: ConfigFile,
        flags: Overrides,
    ) -> Result<Self, ConfigError> {
        let mut settings = Vec::new();
        let policy = policy::resolve(file.policy, &flags, &mut settings)?;
        let cost = cost(file.backfill, &flags, &mut settings)?;
        let audit = file.audit;
        let similarity = pick(
            &mut settings,
            "audit.similarity",
            flags.similarity,
            audit.similarity,
            Similarity::Cosine,
        );
        let credibility = pick(
            &mut settings,
            "audit.credibility",
            None,
            audit.credibility,
            CredibilityCut::default(),
        );
        let seed = pick(&mut settings, "audit.seed", flags.seed, audit.seed, 0);
        let max_bad_items = pick(
            &mut settings,
            "audit.max_bad_items",
            flags.max_bad_items,
            audit.max_bad_items,
            0,
        );
        let strict = pick(
            &mut settings,
            "audit.strict",
            flags.strict.then_some(true),
            audit.strict,
            false,
        );
        for (path, model) in [(&old, &mut file.old), (&new, &mut file.new)] {
            if flags.batch.is_some() && !is_stored(path) {
                model.batch_size = flags.batch;
                model.batch_size_is_a_flag = true;
            }
        }
        for (name, model) in [("old", &file.old), ("new", &file.new)] {
            model.check(name)?;
        }
        let sample = flags.sample.or(audit.sample);
        if let Some(sample) = sample {
            let key = "audit.sample";
            pick(&mut settings, key, flags.sample, audit.sample, sample);
        }
        let tensors = pick_path(&mut settings, "audit.tensors", flags.tensors, audit.tensors);
        let qrels = pick_path(&mut settings, "audit.qrels", flags.qrels, audit.qrels);
        let old_embeddings = pick_path(
            &mut settings,
            "audit.old_embeddings",
            flags.old_embeddings,
            audit.old_embeddings,
        );
        note_columns(&mut settings, &file.columns);
        let allow_missing_inputs = old_embeddings.is_some() || is_stored(&old);
        let sides = [(&old, &file.old), (&new, &file.new)];
        let shared_tensors = sides
            .iter()
            .any(|(path, model)| !is_stored(path) && model.tensors.is_none());
        let model_tensors = sides
            .iter()
            .filter_map(|(_, model)| model.tensors.clone())
            .collect();
        if old_embeddings.is_some() && is_stored(&old) {
            return Err(ConfigError::NotApplicable {
                key: "audit.old_embeddings".into(),
                because: format!("OLD is stored embeddings already: {}", old.display()),
                hint: "give the old model (.onnx) as OLD, or leave --old-embeddings out".into(),
            });
        }
        if tensors.is_some() && !shared_tensors {
            return Err(ConfigError::NotApplicable {
                key: "audit.tensors".into(),
                because: "each model has stored embeddings or tensors of its own".into(),
                hint: "leave --tensors out, or tensors under [old] or [new]".into(),
            });
        }
        Ok(Self {
            old,
            new,
            data,
            old_embeddings,
            probe: ProbeConfig {
                columns: file.columns,
                tensors,
                qrels,
                model_tensors,
                shared_tensors,
                allow_missing_inputs,
                label_free: policy.profile.is_label_free(),
            },
            old_model: file.old,
            new_model: file.new,
            policy,
            cost,
            today: Date::today(),
            similarity,
            credibility,
            seed,
            max_bad_items,
            memory: flags.memory.or(audit.memory).unwrap_or_default(),
            sample,
            strict,
            settings,
        })
    }
}

/// The cost of a backfill, when a gallery size is given.
fn cost(
    table: BackfillTable,
    flags: &Overrides,
    settings: &mut Vec<Setting>,
) -> Result<Option<CostInputs>, ConfigError> {
    let mut positive = |key: &str, flag: Option<f64>, file: Option<f64>| match flag.or(file) {
        None => Ok(None),
        Some(found) if found.is_finite() && found > 0.0 => {
            Ok(Some(pick(settings, key, flag, file, found)))
        }
        Some(found) => Err(ConfigError::OutOfRange {
            path: None,
            is_flag: flag.is_some(),
            key: key.into(),
            low: 0.0,
            high: f64::INFINITY,
            found,
        }),
    };
    let cost_per_million = positive(
        "backfill.cost_per_million",
        flags.cost_per_million,
        table.cost_per_million,
    )?;
    let throughput = positive("backfill.throughput", flags.throughput, table.throughput)?;
    match flags.gallery_size.or(table.gallery_size) {
        Some(gallery_size) => {
            pick(
                settings,
                "backfill.gallery_size",
                flags.gallery_size,
                table.gallery_size,
                gallery_size,
            );
            Ok(Some(CostInputs {
                gallery_size,
                cost_per_million,
                throughput,
            }))
        }
        None if cost_per_million.is_some() || throughput.is_some() => {
            Err(ConfigError::NoGallerySize)
        }
        None => Ok(None),
    }
}

impl AuditConfig {
    /// Where a recorded setting came from.
    pub fn origin(&self, key: &str) -> Option<Origin> {
        let mut settings = self.settings.iter();
        Some(settings.find(|setting| setting.key == key)?.origin)
    }
}

/// The keys of a table of options that are set, in the order of its fields.
fn keys_set<T: Serialize>(table: &T) -> Vec<String> {
    let table = serde_json::to_value(table).expect("options, numbers and names are JSON");
    let fields = table.as_object().into_iter().flatten();
    fields
        .filter(|(_, value)| !value.is_null())
        .map(|(key, _)| key.clone())
        .collect()
}

/// A file's name and origin, where one is given; its folder is this machine's business.
fn pick_path(
    settings: &mut Vec<Setting>,
    key: &str,
    flag: Option<PathBuf>,
    file: Option<PathBuf>,
) -> Option<PathBuf> {
    let name = |path: &PathBuf| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let origin = if flag.is_some() {
        Origin::Flag
    } else {
        Origin::File
    };
    let path = flag.or(file)?;
    settings.push(Setting {
        key: key.into(),
        value: name(&path).into(),
        origin,
    });
    Some(path)
}

/// `[columns]` as configured.
fn note_columns(settings: &mut Vec<Setting>, columns: &ColumnNames) {
    let table = serde_json::to_value(columns).expect("names are JSON");
    for key in columns.configured() {
        settings.push(Setting {
            value: table[&key].clone(),
            key: format!("columns.{key}"),
            origin: Origin::File,
        });
    }
}

/// Whether a path names stored embeddings rather than a model.
fn is_stored(path: &Path) -> bool {
    path.extension()
        .is_none_or(|extension| !extension.eq_ignore_ascii_case("onnx"))
}

/// Flag over file over default, recorded.
fn pick<T: Serialize>(
    settings: &mut Vec<Setting>,
    key: &str,
    flag: Option<T>,
    file: Option<T>,
    default: T,
) -> T {
    let (value, origin) = match (flag, file) {
        (Some(value), _) => (value, Origin::Flag),
        (None, Some(value)) => (value, Origin::File),
        (None, None) => (default, Origin::Default),
    };
    let json = serde_json::to_value(&value).expect("numbers, booleans and names are JSON");
    settings.push(Setting {
        key: key.into(),
        value: json,
        origin,
    });
    value
}
