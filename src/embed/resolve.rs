//! How one model's inputs are made: configuration over sidecar over model file over default, each with its origin.

mod image;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::items::hash_row;
use super::preprocess::ImagePreprocess;
use super::session::OnnxModel;
use super::tokens::Tokens;
use super::{EmbedError, EmbedOptions};
use crate::config::{ModelConfig, Pooling};
use crate::domain::{Finding, Modality, Origin, Probe, Setting};
use crate::probe::tensors::Tensors;

/// Items a batch when nothing is configured.
const BATCH_SIZE: usize = 32;

/// What fills the model's inputs.
pub enum Inputs {
    /// One image input.
    Image {
        /// Its name.
        name: String,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Resize, crop, normalisation.
        preprocess: Box<ImagePreprocess>,
    },
    /// Token ids of texts.
    Text(Box<Tokens>),
    /// Rows of arrays, by the model's input names.
    Tensors(Tensors),
}

/// Everything decided about one model.
pub struct Resolved {
    /// What fills the inputs.
    pub inputs: Inputs,
    /// Output in use.
    pub output: String,
    /// Pooling of a rank-3 output.
    pub pooling: Pooling,
    /// Items a batch.
    pub batch_size: usize,
    /// Whether the model fixes the batch size.
    pub fixed_batch: bool,
    /// For the report.
    pub settings: Vec<Setting>,
    /// What was noticed.
    pub findings: Vec<Finding>,
    /// BLAKE3 of all but an item that changes its embedding, hex.
    pub key: String,
    /// [`Self::key`] and, where inputs come ready-made, what they hold: two sides with equal ones and one model give
    /// equal embeddings. Hex.
    pub meaning: String,
}

/// Decides; runs nothing.
///
/// # Errors
/// Inputs that nothing fills, no or several outputs, a sidecar or tokenizer that cannot be read.
pub fn resolve(
    probe: &Probe,
    path: &Path,
    model: &OnnxModel,
    options: &EmbedOptions<'_>,
) -> Result<Resolved, EmbedError> {
    let mut record = Record {
        side: options.side.to_string(),
        settings: Vec::new(),
    };
    let config = options.model;
    let output = output_name(path, model, config, &mut record)?;
    let mut findings = Vec::new();
    let use_text = probe.modality == Modality::Text || config.tokenizer.is_some();
    let (inputs, tokenizer_hash) = match probe.modality {
        Modality::Image => (
            image::resolve(path, model, config, options, &mut record, &mut findings)?,
            None,
        ),
        Modality::Text | Modality::Tensor if use_text => {
            let tokens = text(path, model, config, &mut record)?;
            let hash = tokens.hash.clone();
            (Inputs::Text(Box::new(tokens)), Some(hash))
        }
        _ => (tensors(probe, path, model, config)?, None),
    };
    let sidecar_pooling = read_pooling(path)?;
    let default_pooling = Pooling::None;
    let pooling = record.pick(
        "pooling",
        [
            (config.pooling, Origin::File),
            (sidecar_pooling, Origin::Sidecar),
        ],
        default_pooling,
    );
    if let Some(dims) = config.dims {
        record.note("dims", dims, Origin::File);
    }
    let batch = model
        .inputs
        .first()
        .and_then(|input| input.shape.first())
        .copied()
        .unwrap_or(-1);
    let fixed_batch = batch > 0;
    let batch_size = if fixed_batch {
        record.note("batch_size", batch, Origin::Model);
        batch as usize
    } else {
        let wanted = if options.force_batch_1 {
            Some(1)
        } else {
            config.batch_size
        };
        record.pick(
            "batch_size",
            [(wanted, Origin::File), (None, Origin::Sidecar)],
            BATCH_SIZE,
        )
    };
    // Everything but the batch size changes what an embedding means; that one is in the cache's key.
    let mut what = json!({
        "output": output,
        "pooling": pooling,
        "dims": config.dims,
        "tokenizer": tokenizer_hash,
        "prefix": config.prefix,
        "query_prefix": config.query_prefix,
    });
    what["inputs"] = match &inputs {
        Inputs::Image {
            name,
            height,
            width,
            preprocess,
        } => {
            json!({ "image": name, "height": height, "width": width, "preprocess": preprocess })
        }
        Inputs::Text(tokens) => json!({ "text": tokens.max_length }),
        Inputs::Tensors(_) => json!("tensors"),
    };
    let key = blake3::hash(what.to_string().as_bytes())
        .to_hex()
        .to_string();
    let meaning = match &inputs {
        Inputs::Image { .. } | Inputs::Text(_) => key.clone(),
        Inputs::Tensors(tensors) => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(key.as_bytes());
            (0..tensors.n_rows()).for_each(|row| hash_row(tensors, row, &mut hasher));
            hasher.finalize().to_hex().to_string()
        }
    };
    Ok(Resolved {
        inputs,
        output,
        pooling,
        batch_size,
        fixed_batch,
        settings: record.settings,
        findings,
        key,
        meaning,
    })
}

/// Settings of one side as they are decided.
struct Record {
    side: String,
    settings: Vec<Setting>,
}

impl Record {
    fn note(&mut self, key: &str, value: impl Serialize, origin: Origin) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.settings.push(Setting {
            key: format!("{}.{key}", self.side),
            value,
            origin,
        });
    }

    /// The first value that is there, else the default; noted with its origin.
    fn pick<T: Serialize + Clone, const N: usize>(
        &mut self,
        key: &str,
        choices: [(Option<T>, Origin); N],
        default: T,
    ) -> T {
        let (value, origin) = choices
            .into_iter()
            .find_map(|(value, origin)| Some((value?, origin)))
            .unwrap_or((default, Origin::Default));
        self.note(key, value.clone(), origin);
        value
    }
}

fn output_name(
    path: &Path,
    model: &OnnxModel,
    config: &ModelConfig,
    record: &mut Record,
) -> Result<String, EmbedError> {
    let wrong = || EmbedError::Output {
        path: path.into(),
        wanted: config.output.clone(),
        outputs: model.outputs.clone(),
    };
    let (name, origin) = match (&config.output, model.outputs.as_slice()) {
        (Some(name), outputs) if outputs.iter().any(|output| output.name == *name) => {
            (name.clone(), Origin::File)
        }
        (None, [only]) => (only.name.clone(), Origin::Model),
        _ => return Err(wrong()),
    };
    record.note("output", &name, origin);
    Ok(name)
}

fn text(
    path: &Path,
    model: &OnnxModel,
    config: &ModelConfig,
    record: &mut Record,
) -> Result<Tokens, EmbedError> {
    let file = config
        .tokenizer
        .clone()
        .unwrap_or_else(|| beside(path, "tokenizer.json"));
    if config.tokenizer.is_none() && !file.is_file() {
        return Err(EmbedError::NoTokenizer { path: path.into() });
    }
    let origin = if config.tokenizer.is_some() {
        Origin::File
    } else {
        Origin::Sidecar
    };
    let tokens = Tokens::read(&file, config.max_length)?;
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    record.note("tokenizer", name, origin);
    let origin = if config.max_length.is_some() {
        Origin::File
    } else {
        Origin::Sidecar
    };
    record.note("max_length", tokens.max_length, origin);
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
    Ok(tokens)
}

fn tensors(
    probe: &Probe,
    path: &Path,
    model: &OnnxModel,
    config: &ModelConfig,
) -> Result<Inputs, EmbedError> {
    let file = config.tensors.as_ref().or(probe.tensors.as_ref());
    let Some(file) = file else {
        let input = Box::new(model.inputs.first().cloned().expect("a model has an input"));
        return Err(EmbedError::InputMissing {
            path: path.into(),
            input,
            offered: Vec::new(),
        });
    };
    let tensors = Tensors::open(file)?;
    let mut offered: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
    // The single array of a .npy has no name and fills the model's only input.
    if let ([only], [name]) = (model.inputs.as_slice(), offered.as_mut_slice())
        && name.is_empty()
    {
        *name = only.name.clone();
    }
    if offered.iter().any(|name| name == "input_ids") {
        offered.extend(["token_type_ids", "position_ids"].map(str::to_owned));
    }
    check_filled(path, model, &offered)?;
    Ok(Inputs::Tensors(tensors))
}

fn check_filled(path: &Path, model: &OnnxModel, offered: &[String]) -> Result<(), EmbedError> {
    match model
        .inputs
        .iter()
        .find(|input| !offered.contains(&input.name))
    {
        Some(input) => Err(EmbedError::InputMissing {
            path: path.into(),
            input: Box::new(input.clone()),
            offered: offered.to_vec(),
        }),
        None => Ok(()),
    }
}

/// `1_Pooling/config.json` of sentence-transformers.
fn read_pooling(model: &Path) -> Result<Option<Pooling>, EmbedError> {
    let path = beside(model, "1_Pooling/config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).map_err(|source| EmbedError::Read {
        path: path.clone(),
        source,
    })?;
    let config: Value = serde_json::from_slice(&bytes).map_err(|error| EmbedError::Tokenizer {
        path: path.clone(),
        cause: error.to_string(),
    })?;
    let is = |key: &str| config[key] == Value::Bool(true);
    Ok(
        match (is("pooling_mode_mean_tokens"), is("pooling_mode_cls_token")) {
            (true, false) => Some(Pooling::Mean),
            (false, true) => Some(Pooling::Cls),
            _ => None,
        },
    )
}

fn beside(model: &Path, name: &str) -> PathBuf {
    model.parent().unwrap_or(Path::new("")).join(name)
}
