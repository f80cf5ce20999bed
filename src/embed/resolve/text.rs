//! A text model's inputs, by its tokenizer and what sentence-transformers keeps beside a model.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Inputs, Record, beside, check_filled};
use crate::config::{ModelConfig, Pooling};
use crate::domain::{Origin, is_named};
use crate::embed::EmbedError;
use crate::embed::session::OnnxModel;
use crate::embed::tokens::{DEFAULT_MAX_LENGTH, Tokens};

/// Tokens, their longest sequence, prefixes.
pub fn resolve(
    path: &Path,
    model: &OnnxModel,
    config: &ModelConfig,
    record: &mut Record,
) -> Result<Inputs, EmbedError> {
    let (file, origin) = match &config.tokenizer {
        Some(file) => (file.clone(), Origin::File),
        None => (beside(path, "tokenizer.json"), Origin::Sidecar),
    };
    if config.tokenizer.is_none() && !is_named(&file) {
        return Err(EmbedError::NoTokenizer { path: path.into() });
    }
    let mut tokens = Tokens::read(&file)?;
    record.note_file("tokenizer", &file, origin);
    // An exported model may take one length only.
    let length = model
        .inputs
        .iter()
        .find(|input| input.name == "input_ids")
        .and_then(|input| input.shape.get(1))
        .and_then(|&length| usize::try_from(length).ok())
        .filter(|&length| length > 0);
    let transformer = read_transformer(path, config)?;
    if transformer.lower_case {
        tokens.lower_case();
        record.note("do_lower_case", true, Origin::Sidecar);
    }
    let wanted = record.pick(
        "max_length",
        [
            (config.max_length, Origin::File),
            (transformer.max_seq_length, Origin::Sidecar),
            (tokens.own_max_length, Origin::Sidecar),
            (read_model_max_length(path), Origin::Sidecar),
            (length, Origin::Model),
        ],
        DEFAULT_MAX_LENGTH,
    );
    tokens.truncate(wanted.min(length.unwrap_or(usize::MAX)))?;
    for (key, prefix) in [
        ("prefix", &config.prefix),
        ("query_prefix", &config.query_prefix),
    ] {
        if let Some(prefix) = prefix {
            record.note(key, prefix, Origin::File);
        }
    }
    let fillable = [
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "position_ids",
    ];
    check_filled(path, model, &fillable.map(str::to_owned))?;
    Ok(Inputs::Text {
        tokens: Box::new(tokens),
        length,
    })
}

/// Modules of sentence-transformers' `modules.json` that come after the pooling and are not run here: where a model's tokens
/// are pooled here, what the file adds to them is missing. A file that cannot be read says nothing.
pub fn ignored_modules(model: &Path) -> Vec<String> {
    const RUN: [&str; 3] = ["Transformer", "Pooling", "Normalize"];
    let text = std::fs::read(beside(model, "modules.json")).unwrap_or_default();
    let modules: Value = serde_json::from_slice(&text).unwrap_or_default();
    let names = modules.as_array().into_iter().flatten();
    names
        .filter_map(|module| module["type"].as_str()?.rsplit('.').next())
        .filter(|name| !RUN.contains(name))
        .map(str::to_owned)
        .collect()
}

/// What sentence-transformers' `config_sentence_transformers.json` has put before texts, where no prefix is configured: without it the
/// embeddings are not those that the model was trained to give. An empty prefix says that none is wanted. A file that cannot
/// be read says nothing.
pub fn unused_prompts(model: &Path, config: &ModelConfig) -> Option<String> {
    /// As many are named.
    const NAMED: usize = 4;
    if config.prefix.is_some() || config.query_prefix.is_some() {
        return None;
    }
    let text = std::fs::read(beside(model, "config_sentence_transformers.json")).ok()?;
    let sidecar: Value = serde_json::from_slice(&text).ok()?;
    let prompts = sidecar["prompts"].as_object()?.iter();
    let names: Vec<&str> = prompts
        .filter(|(_, prompt)| prompt.as_str().is_some_and(|prompt| !prompt.is_empty()))
        .map(|(name, _)| name.as_str())
        .collect();
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let always = sidecar["default_prompt_name"].as_str();
    let always = always.filter(|name| names.contains(name));
    let always = always.map_or_else(String::new, |name| format!(", `{name}` before every text"));
    let named = names[..names.len().min(NAMED)].join(", ");
    (!names.is_empty()).then(|| {
        format!(
            "config_sentence_transformers.json names prompts ({named}{more}{always}); without prefix or query_prefix in audit.toml texts are embedded as they are"
        )
    })
}

/// `1_Pooling/config.json` of sentence-transformers. A way of pooling that is not known here is refused: another one
/// would give other embeddings without an error.
pub fn read_pooling(
    model: &Path,
    model_config: &ModelConfig,
) -> Result<Option<Pooling>, EmbedError> {
    let sidecar = Sidecar {
        path: beside(model, "1_Pooling/config.json"),
        expected: "mean or cls pooling over all tokens",
    };
    let Some(config) = sidecar.read()? else {
        return Ok(None);
    };
    let mut modes: Vec<&str> = config
        .iter()
        .filter_map(|(key, value)| {
            let mode = key.strip_prefix("pooling_mode_")?;
            (value == &Value::Bool(true)).then_some(mode)
        })
        .collect();
    // Newer versions name it: `mean`, or a list of such.
    let named = config.get("pooling_mode").unwrap_or(&Value::Null);
    let named = named
        .as_array()
        .map_or(std::slice::from_ref(named), |all| all);
    modes.extend(named.iter().filter_map(Value::as_str));
    let prefixed = model_config.prefix.is_some() || model_config.query_prefix.is_some();
    if prefixed && config.get("include_prompt") == Some(&Value::Bool(false)) {
        return Err(sidecar.wrong("include_prompt = false beside a prefix"));
    }
    match modes.as_slice() {
        ["mean_tokens" | "mean"] => Ok(Some(Pooling::Mean)),
        ["cls_token" | "cls"] => Ok(Some(Pooling::Cls)),
        [] => Err(sidecar.wrong("no pooling mode")),
        _ => Err(sidecar.wrong(modes.join(" and "))),
    }
}

/// What sentence-transformers' `sentence_bert_config.json` has done before the tokenizer.
struct Transformer {
    /// It takes the place of tokenizer.json's own truncation: all-MiniLM-L6-v2 is cut at 256 tokens, its tokenizer.json says 128.
    max_seq_length: Option<usize>,
    /// `do_lower_case`.
    lower_case: bool,
}

/// A length that the configuration overrules is not asked, and so not refused.
fn read_transformer(model: &Path, config: &ModelConfig) -> Result<Transformer, EmbedError> {
    let sidecar = Sidecar {
        path: beside(model, "sentence_bert_config.json"),
        expected: "max_seq_length, a number of tokens or null",
    };
    let overruled = config.max_length.is_some();
    let said = match sidecar.read() {
        Err(_) if overruled => None,
        said => said?,
    };
    let said = said.unwrap_or_default();
    let max_seq_length = match said.get("max_seq_length") {
        None | Some(Value::Null) => None,
        Some(_) if overruled => None,
        Some(value) => {
            let length = value.as_u64().filter(|&length| length > 0);
            let length = length.and_then(|length| usize::try_from(length).ok());
            Some(length.ok_or_else(|| sidecar.wrong(value.to_string()))?)
        }
    };
    Ok(Transformer {
        max_seq_length,
        lower_case: said.get("do_lower_case") == Some(&Value::Bool(true)),
    })
}

/// Where nothing else names a length, transformers and sentence-transformers take the tokenizer's `model_max_length`, and never
/// more than the model has positions. A tokenizer without a limit says 1e30. Files that cannot be read say nothing.
fn read_model_max_length(model: &Path) -> Option<usize> {
    /// Beyond, no limit is meant.
    const MOST: f64 = 1e6;
    let number = |file: &str, key: &str| {
        let text = std::fs::read(beside(model, file)).ok()?;
        let said: Value = serde_json::from_slice(&text).ok()?;
        said[key].as_f64().filter(|&n| n >= 1.0)
    };
    let length = number("tokenizer_config.json", "model_max_length")?;
    let positions = number("config.json", "max_position_embeddings").unwrap_or(MOST);
    let length = length.min(positions);
    (length < MOST).then_some(length as usize)
}

/// A JSON file that may lie beside a model.
struct Sidecar {
    path: PathBuf,
    /// What it should say.
    expected: &'static str,
}

impl Sidecar {
    /// Its object; `None` where there is no such file.
    fn read(&self) -> Result<Option<Map<String, Value>>, EmbedError> {
        if !is_named(&self.path) {
            return Ok(None);
        }
        let bytes = std::fs::read(&self.path).map_err(|source| EmbedError::Read {
            path: self.path.clone(),
            source,
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(config)) => Ok(Some(config)),
            Ok(other) => Err(self.wrong(other.to_string())),
            Err(error) => Err(self.wrong(error.to_string())),
        }
    }

    fn wrong(&self, found: impl Into<String>) -> EmbedError {
        EmbedError::Sidecar {
            path: self.path.clone(),
            expected: self.expected,
            found: found.into(),
        }
    }
}
