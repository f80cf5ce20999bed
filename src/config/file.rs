//! Reading audit.toml.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    ByteSize, ColumnNames, CredibilityCut, FailOn, Inconclusive, ModelConfig, Profile, Similarity,
};
use crate::domain::{CheckSeverity, Measure, UnknownName, broken_link, nearest};

/// audit.toml as written, every key optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigFile {
    /// `[audit]`
    pub audit: AuditTable,
    /// `[columns]`
    pub columns: ColumnNames,
    /// `[policy]`
    pub policy: PolicyTable,
    /// `[backfill]`
    pub backfill: BackfillTable,
    /// `[old]`
    pub old: ModelConfig,
    /// `[new]`
    pub new: ModelConfig,
    /// The file itself, for errors.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

/// `[audit]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditTable {
    /// How embeddings are compared.
    pub similarity: Option<Similarity>,
    /// Which old embeddings are called not credible.
    pub credibility: Option<CredibilityCut>,
    /// Seed of every random draw.
    pub seed: Option<u64>,
    /// Unreadable items that are tolerated.
    pub max_bad_items: Option<usize>,
    /// Whether assumed preprocessing is an error.
    pub strict: Option<bool>,
    /// Tensor file of the probe.
    pub tensors: Option<PathBuf>,
    /// Relevance judgements.
    pub qrels: Option<PathBuf>,
    /// Stored embeddings of the old gallery.
    pub old_embeddings: Option<PathBuf>,
    /// Gallery items whose credibility is assessed, and queries whose consensus is measured.
    pub sample: Option<NonZeroUsize>,
    /// Bytes of stored embeddings that may be held in memory.
    pub memory: Option<ByteSize>,
}

/// `[backfill]`; each key as in [`super::CostInputs`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackfillTable {
    pub gallery_size: Option<u64>,
    pub cost_per_million: Option<f64>,
    pub throughput: Option<f64>,
}

/// `[policy]`; each key as in [`super::Policy`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyTable {
    pub profile: Option<Profile>,
    pub primary: Option<Measure>,
    pub margin: Option<f64>,
    pub alpha: Option<f64>,
    pub excess_flips: Option<f64>,
    pub negative_flips: Option<f64>,
    pub slice_margin: Option<f64>,
    pub slice_columns: Option<Vec<String>>,
    pub slices_proven: Option<bool>,
    pub untestable_traffic: Option<f64>,
    pub refresh_margin: Option<f64>,
    pub max_partial: Option<f64>,
    pub threshold_far: Option<f64>,
    pub threshold_far_factor: Option<f64>,
    pub threshold_frr_rise: Option<f64>,
    pub blind_share: Option<f64>,
    pub inconclusive: Option<Inconclusive>,
    pub fail_on: Option<FailOn>,
    /// Check codes and how much each matters.
    pub severity: BTreeMap<String, CheckSeverity>,
    /// `[[policy.waiver]]`
    pub waiver: Vec<WaiverTable>,
}

/// One `[[policy.waiver]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaiverTable {
    /// Code of the check.
    pub check: String,
    /// The slice, as the report names it.
    pub slice: Option<String>,
    /// Why.
    pub reason: String,
    /// The last day it holds, as a TOML date or a text.
    pub until: toml::Value,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        message: String,
    },
    /// Keys that nothing reads.
    #[error("{}: unknown key{} {}", path.display(), if keys.len() == 1 { "" } else { "s" }, quoted(keys))]
    UnknownKeys {
        /// The file.
        path: PathBuf,
        /// Dotted keys.
        keys: Vec<String>,
        /// The nearest known key of the first one.
        nearest: Option<String>,
    },
    /// A number is outside its range.
    #[error("{}{key} must be above {low} and below {high}, found {found}", place(path.as_deref()))]
    OutOfRange {
        /// The file; `None` for a flag, and where there is no file.
        path: Option<PathBuf>,
        /// Whether a flag said it.
        is_flag: bool,
        /// Dotted key.
        key: String,
        /// Exclusive lower end.
        low: f64,
        /// Exclusive upper end.
        high: f64,
        /// The value.
        found: f64,
    },
    /// A cost without anything to multiply it by.
    #[error(
        "backfill.cost_per_million and backfill.throughput need backfill.gallery_size, which is not given"
    )]
    NoGallerySize,
    /// A key that nothing would read: ignoring it would hide a mistake.
    #[error("{key} does not apply: {because}")]
    NotApplicable {
        /// Dotted key.
        key: String,
        /// Why nothing reads it.
        because: String,
        /// What to do.
        hint: String,
    },
    /// A name in the policy that names nothing.
    #[error("{key}: {source}")]
    Unknown {
        /// Dotted key.
        key: String,
        /// What was found and what is known.
        source: UnknownName,
    },
    /// A severity or a waiver for a check that asks whether the probe can judge at all.
    #[error("{key}: `{check}` always gates: without it no other check means anything")]
    Precondition {
        /// Dotted key.
        key: String,
        /// The check.
        check: &'static str,
    },
    /// A waiver that cannot be used.
    #[error("policy.waiver {number} ({check}): expected {expected}, found {found}")]
    Waiver {
        /// 1-based place in the file.
        number: usize,
        /// The check it names.
        check: String,
        /// What was expected.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
}

fn place(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!("{}: ", path.display()))
}

fn quoted(keys: &[String]) -> String {
    keys.iter()
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl ConfigError {
    /// Names the file of a number that no flag said.
    pub(super) fn in_file(mut self, file: Option<PathBuf>) -> Self {
        if let Self::OutOfRange {
            path,
            is_flag: false,
            ..
        } = &mut self
        {
            *path = file;
        }
        self
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::UnknownKeys { nearest, .. } => nearest
                .as_ref()
                .map(|key| format!("did you mean `{key}`?"))
                .or_else(|| Some("`compat-audit init` writes a file with every key".into())),
            ConfigError::Unreadable { path, .. } => Some(
                broken_link(path).unwrap_or_else(|| "check the path given with --config".into()),
            ),
            ConfigError::Unknown { source, .. } => source.nearest().map(|name| format!("did you mean `{name}`?")),
            ConfigError::NoGallerySize => {
                Some("give --gallery-size, the number of items of the production gallery".into())
            }
            ConfigError::Precondition { .. } => {
                Some("use a probe that passes it, or judge without this tool".into())
            }
            ConfigError::Waiver { .. } => Some(
                "a waiver has check, reason, until = YYYY-MM-DD, and for slices also slice = \"column=value\""
                    .into(),
            ),
            ConfigError::NotApplicable { hint, .. } => Some(hint.clone()),
            ConfigError::Invalid { .. } => Some(
                "`compat-audit init` writes a file with every key and a value of its kind".into(),
            ),
            ConfigError::OutOfRange { key, .. } => {
                Some(format!("choose {key} inside these bounds, or leave it out"))
            }
        }
    }
}

impl ConfigFile {
    /// Reads and checks a file; relative paths in it start at its folder.
    ///
    /// # Errors
    /// Unreadable, not TOML, wrong type, or unknown keys.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.into(),
            source,
        })?;
        let mut file = Self::parse(&text, path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for relative in [
            &mut file.audit.tensors,
            &mut file.audit.qrels,
            &mut file.audit.old_embeddings,
            &mut file.old.tensors,
            &mut file.old.tokenizer,
            &mut file.new.tensors,
            &mut file.new.tokenizer,
        ] {
            *relative = relative.take().map(|relative| folder.join(relative));
        }
        file.path = Some(path.into());
        Ok(file)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let invalid = |error: toml::de::Error| ConfigError::Invalid {
            path: path.into(),
            message: in_words(&located(&error, text)),
        };
        let deserializer = toml::Deserializer::parse(text).map_err(invalid)?;
        let mut keys = Vec::new();
        let file: Self = serde_ignored::deserialize(deserializer, |key| keys.push(key.to_string()))
            .map_err(invalid)?;
        if let Some(first) = keys.first() {
            let nearest = nearest_key(first);
            return Err(ConfigError::UnknownKeys {
                path: path.into(),
                keys,
                nearest,
            });
        }
        // An empty text lies between any two letters.
        if file.columns.identity_separator.as_deref() == Some("") {
            return Err(ConfigError::Invalid {
                path: path.into(),
                message: "columns.identity_separator: expected a text such as \"|\", found none"
                    .into(),
            });
        }
        Ok(file)
    }
}

/// The parser's message in one line, after where in the text it is.
fn located(error: &toml::de::Error, text: &str) -> String {
    let words: Vec<&str> = error.message().split_whitespace().collect();
    let message = words.join(" ");
    let before = error.span().and_then(|span| text.get(..span.start));
    before.map_or(message.clone(), |before| {
        let line = 1 + before.matches('\n').count();
        let column = 1 + before.chars().rev().take_while(|&c| c != '\n').count();
        format!("line {line}, column {column}: {message}")
    })
}

/// The parser's message without the names of Rust's types.
fn in_words(message: &str) -> String {
    let whole = "expected a whole number, 0 or more";
    let types = [
        (
            "expected a nonzero usize",
            "expected a whole number, 1 or more",
        ),
        ("expected usize", whole),
        ("expected u64", whole),
        ("expected u32", whole),
        ("expected f64", "expected a number"),
        ("expected a borrowed string", "expected a text"),
        ("expected a string", "expected a text"),
        ("expected path string", "expected a text (a path)"),
    ];
    types
        .iter()
        .fold(message.to_owned(), |message, (name, words)| {
            message.replace(name, words)
        })
}

/// The known key that was probably meant: one of the same name in another table first, then the most alike.
fn nearest_key(unknown: &str) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let known = known_keys();
    let of_name = |name: &str| {
        let mut keys = known.iter().filter(|key| key.contains('.'));
        keys.find(|key| last(key) == name).cloned()
    };
    // In a table that is known the table's name is no part of the likeness: `columns.foo` is not meant to be `columns`.
    let table = unknown.split_once('.').map_or("", |(table, _)| table);
    let is_beside = |key: &&String| key.split_once('.').is_some_and(|(own, _)| own == table);
    let beside: Vec<&String> = known.iter().filter(is_beside).collect();
    let in_table = || {
        let name = nearest(&last(unknown), beside.iter().map(|key| last(key)))?;
        Some(format!("{table}.{name}"))
    };
    let anywhere = || nearest(unknown, known.iter().cloned()).filter(|_| beside.is_empty());
    of_name(&last(unknown))
        .or_else(in_table)
        .or_else(anywhere)
        .or_else(|| of_name(&nearest(&last(unknown), known.iter().map(|key| last(key)))?))
}

/// Every dotted key that audit.toml may have.
pub fn known_keys() -> Vec<String> {
    let all = serde_json::to_value(ConfigFile::default()).expect("options and names are JSON");
    let mut keys = Vec::new();
    for (table, value) in all.as_object().expect("a struct is an object") {
        keys.push(table.clone());
        keys.extend(
            value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| format!("{table}.{key}")),
        );
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::{AuditConfig, Overrides, Size};
    use super::*;
    use crate::domain::Origin;

    fn parse(text: &str) -> Result<ConfigFile, ConfigError> {
        ConfigFile::parse(text, Path::new("audit.toml"))
    }

    #[test]
    fn reads_every_kind_of_value() {
        let file = parse(
            "[audit]\nseed = 7\n[policy]\nmargin = 0.02\n[old]\nsize = 224\ncrop = [200, 180]\nmean = [0.5, 0.5, 0.5]\n",
        )
        .expect("valid");
        assert_eq!(file.audit.seed, Some(7));
        assert_eq!(file.old.size, Some(Size::Square(224)));
        assert_eq!(file.old.crop, Some(Size::HeightWidth([200, 180])));
    }

    #[test]
    fn unknown_keys_are_refused_with_a_suggestion() {
        let error = parse("[policy]\nmargn = 0.02\n").expect_err("unknown");
        assert_eq!(error.to_string(), "audit.toml: unknown key `policy.margn`");
        assert_eq!(
            error.hint().as_deref(),
            Some("did you mean `policy.margin`?")
        );
    }

    #[test]
    fn wrong_type_names_the_line() {
        let error = parse("[policy]\nmargin = \"small\"\n").expect_err("a string");
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn flags_win_over_the_file_and_the_origin_is_kept() {
        let paths = || ["a.onnx".into(), "b.onnx".into(), "data".into()];
        let file = parse("[policy]\nmargin = 0.02\nalpha = 0.1\n").expect("valid");
        let flags = Overrides {
            margin: Some(0.03),
            ..Overrides::default()
        };
        let config = AuditConfig::resolve(paths(), file, flags).expect("in range");
        assert_eq!(
            (config.policy.margin, config.policy.alpha, config.seed),
            (0.03, 0.1, 0)
        );
        let origin = |key: &str| {
            config
                .settings
                .iter()
                .find(|setting| setting.key == key)
                .map(|setting| setting.origin)
        };
        assert_eq!(origin("policy.margin"), Some(Origin::Flag));
        assert_eq!(origin("policy.alpha"), Some(Origin::File));
        assert_eq!(origin("audit.seed"), Some(Origin::Default));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let paths = || ["a.onnx".into(), "b.onnx".into(), "data".into()];
        for margin in [0.0, -0.1, 1.0, f64::NAN] {
            let flags = Overrides {
                margin: Some(margin),
                ..Overrides::default()
            };
            let error = AuditConfig::resolve(paths(), ConfigFile::default(), flags);
            assert!(
                matches!(error, Err(ConfigError::OutOfRange { .. })),
                "{margin}"
            );
        }
        let file = parse("[new]\nstd = [0.2, 0.0, 0.2]\n").expect("valid TOML");
        let error = AuditConfig::resolve(paths(), file, Overrides::default()).expect_err("std 0");
        assert_eq!(
            error.to_string(),
            "new.std must be above 0 and below inf, found 0"
        );
    }

    #[test]
    fn a_key_in_the_wrong_table_is_found_by_its_name() {
        for (text, expected) in [
            ("seed = 3\n", "audit.seed"),
            ("margin = 0.1\n", "policy.margin"),
            ("[policy]\nsimilarity = \"ip\"\n", "audit.similarity"),
            ("margn = 0.1\n", "policy.margin"),
        ] {
            let hint = parse(text).expect_err("unknown").hint();
            assert_eq!(hint, Some(format!("did you mean `{expected}`?")), "{text}");
        }
    }

    #[test]
    fn a_key_like_no_other_is_not_taken_for_its_table() {
        for key in ["columns.foo", "columns.label"] {
            let (table, name) = key.split_once('.').expect("dotted");
            let hint = parse(&format!("[{table}]\n{name} = \"x\"\n")).expect_err("unknown");
            let hint = hint.hint().expect("a hint");
            assert!(hint.contains("a file with every key"), "{hint}");
        }
    }

    #[test]
    fn labels_are_not_separated_by_nothing() {
        let error = parse("[columns]\nidentity_separator = \"\"\n").expect_err("empty");
        let message = error.to_string();
        assert!(
            message.contains("audit.toml: columns.identity_separator"),
            "{message}"
        );
        parse("[columns]\nidentity_separator = \" \"\n").expect("a blank is a text");
    }

    #[test]
    fn a_number_out_of_range_names_its_file_and_a_flag_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("own.toml");
        for text in [
            "[policy]\nmargin = 7\n",
            "[backfill]\nthroughput = 0\n",
            "[old]\nscale = 0\n",
        ] {
            std::fs::write(&path, text).expect("written");
            let file = ConfigFile::read(&path).expect("valid TOML");
            let paths = ["a.onnx", "b.onnx", "data"].map(Into::into);
            let error = AuditConfig::resolve(paths, file, Overrides::default()).expect_err(text);
            let start = format!("{}: ", path.display());
            assert!(error.to_string().starts_with(&start), "{error}");
        }
        let flags = Overrides {
            margin: Some(7.0),
            ..Overrides::default()
        };
        let file = ConfigFile::read(&path).map(|mut file| {
            file.old.scale = None;
            file
        });
        let paths = ["a.onnx", "b.onnx", "data"].map(Into::into);
        let error = AuditConfig::resolve(paths, file.expect("valid"), flags).expect_err("7");
        assert!(
            error.to_string().starts_with("policy.margin must"),
            "{error}"
        );
    }

    #[test]
    fn type_errors_speak_of_values_not_of_rust() {
        for (text, expected) in [
            (
                "[old]\nsize = \"big\"\n",
                "expected a number of pixels or [height, width]",
            ),
            ("[audit]\nseed = -1\n", "expected a whole number, 0 or more"),
            (
                "[audit]\nseed = \"x\"\n",
                "expected a whole number, 0 or more",
            ),
            ("[policy]\nmargin = \"x\"\n", "expected a number"),
            ("[old]\noutput = 3\n", "expected a text"),
        ] {
            let error = parse(text).expect_err("a wrong type");
            let message = error.to_string();
            assert!(message.contains(expected), "{message}");
            assert!(
                !message.contains("enum") && !message.contains("u64"),
                "{message}"
            );
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn files_that_nothing_would_read_are_refused() {
        let resolve = |old: &str, flags: Overrides| {
            let paths = [old, "b.npy", "data"].map(Into::into);
            AuditConfig::resolve(paths, ConfigFile::default(), flags)
        };
        let stored = Overrides {
            old_embeddings: Some("e.npy".into()),
            ..Overrides::default()
        };
        let error = resolve("a.parquet", stored.clone()).expect_err("two files of one side");
        assert!(
            error
                .to_string()
                .starts_with("audit.old_embeddings does not apply"),
            "{error}"
        );
        assert!(resolve("a.onnx", stored).is_ok());
        let tensors = Overrides {
            tensors: Some("x/t.npz".into()),
            ..Overrides::default()
        };
        assert!(
            resolve("a.npy", tensors.clone()).is_err(),
            "no model is run"
        );
        let config = resolve("a.onnx", tensors).expect("a model is run");
        assert_eq!(config.origin("audit.tensors"), Some(Origin::Flag));
    }

    #[test]
    fn configured_columns_and_files_are_settings() {
        let file = parse("[columns]\nidentity = \"sku\"\n[audit]\nold_embeddings = \"e.npy\"\n")
            .expect("valid");
        let paths = ["a.onnx", "b.onnx", "data"].map(Into::into);
        let config = AuditConfig::resolve(paths, file, Overrides::default()).expect("valid");
        assert_eq!(config.origin("columns.identity"), Some(Origin::File));
        assert_eq!(config.origin("audit.old_embeddings"), Some(Origin::File));
        assert_eq!(config.origin("columns.camera"), None);
    }
}
