//! audit.toml and the checked configuration of an audit.
//!
//! [`ConfigFile`] mirrors the file, every key optional. [`AuditConfig`] is what the stages get: flags over
//! file over defaults, checked, with a record of where each value came from.

mod file;
mod model;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::{Origin, Setting};

pub use file::{ConfigError, ConfigFile};
pub use model::{ColorOrder, Layout, ModelConfig, Pooling, ResizeFilter, ResizeMode, Size};

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

/// How to read the probe.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbeConfig {
    /// Column names.
    pub columns: ColumnNames,
    /// Tensor file of the probe (`--tensors`), else the only `.npz` beside the manifest.
    pub tensors: Option<PathBuf>,
    /// Relevance judgements (`--qrels`), else the only `qrels.*` beside the manifest.
    pub qrels: Option<PathBuf>,
    /// Tensor file of one of the models; it shows that a manifest without paths lists tensor rows.
    pub model_tensors: Option<PathBuf>,
    /// Whether items may lack an input (stored embeddings stand in for it).
    pub allow_missing_inputs: bool,
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

/// What the judge holds the evidence against; echoed in every report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Non-inferiority margin on the primary measure (mAP), absolute. Default .01.
    pub margin: f64,
    /// One-sided error of each bound. Default .05.
    pub alpha: f64,
    /// Largest tolerated share of excess flips. Default .05.
    pub excess_flips: f64,
    /// Largest tolerated share of negative flips; gates when set, or when excess flips cannot be tested.
    pub negative_flips: Option<f64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            margin: 0.01,
            alpha: 0.05,
            excess_flips: 0.05,
            negative_flips: None,
        }
    }
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
    /// `--strict`
    pub strict: bool,
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
    /// How embeddings are compared.
    pub similarity: Similarity,
    /// Seed of every random draw.
    pub seed: u64,
    /// Unreadable items that are tolerated.
    pub max_bad_items: usize,
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
        [old, new, data]: [PathBuf; 3],
        file: ConfigFile,
        flags: Overrides,
    ) -> Result<Self, ConfigError> {
        let mut settings = Vec::new();
        let defaults = Policy::default();
        let mut number = |key: &'static str, flag, file, default, range: (f64, f64)| {
            let value: f64 = pick(&mut settings, key, flag, file, default);
            if value > range.0 && value < range.1 {
                Ok(value)
            } else {
                Err(ConfigError::OutOfRange {
                    key: key.into(),
                    low: range.0,
                    high: range.1,
                    found: value,
                })
            }
        };
        let limits = file.policy;
        let margin = number(
            "policy.margin",
            flags.margin,
            limits.margin,
            defaults.margin,
            (0.0, 1.0),
        )?;
        let alpha = number(
            "policy.alpha",
            flags.alpha,
            limits.alpha,
            defaults.alpha,
            (0.0, 0.5),
        )?;
        let excess_flips = number(
            "policy.excess_flips",
            flags.excess_flips,
            limits.excess_flips,
            defaults.excess_flips,
            (0.0, 1.0),
        )?;
        let negative_flips = match flags.negative_flips.or(limits.negative_flips) {
            Some(_) => Some(number(
                "policy.negative_flips",
                flags.negative_flips,
                limits.negative_flips,
                0.0,
                (0.0, 1.0),
            )?),
            None => None,
        };
        let audit = file.audit;
        let similarity = pick(
            &mut settings,
            "audit.similarity",
            flags.similarity,
            audit.similarity,
            Similarity::Cosine,
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
        for (name, model) in [("old", &file.old), ("new", &file.new)] {
            model.check(name)?;
        }
        let old_embeddings = flags.old_embeddings.or(audit.old_embeddings);
        let stored = |path: &PathBuf| path.extension().is_none_or(|extension| extension != "onnx");
        let allow_missing_inputs = old_embeddings.is_some() || stored(&old);
        Ok(Self {
            old,
            new,
            data,
            old_embeddings,
            probe: ProbeConfig {
                columns: file.columns,
                tensors: flags.tensors.or(audit.tensors),
                qrels: flags.qrels.or(audit.qrels),
                model_tensors: file.old.tensors.clone().or(file.new.tensors.clone()),
                allow_missing_inputs,
            },
            old_model: file.old,
            new_model: file.new,
            policy: Policy {
                margin,
                alpha,
                excess_flips,
                negative_flips,
            },
            similarity,
            seed,
            max_bad_items,
            strict,
            settings,
        })
    }
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
