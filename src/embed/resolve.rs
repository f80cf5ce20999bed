//! How one model's inputs are made: configuration over sidecar over model file over default, each with its origin.

mod image;
mod text;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::preprocess::ImagePreprocess;
use super::session::OnnxModel;
use super::tokens::Tokens;
use super::{EmbedError, EmbedOptions, Open};
use crate::config::{BatchSize, ModelConfig, Pooling, Size};
use crate::domain::{Finding, FindingCode, Modality, Origin, Probe, Setting, Severity, Source};
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
    Text {
        /// The tokenizer.
        tokens: Box<Tokens>,
        /// Tokens of every text, padding included, where the model fixes them.
        length: Option<usize>,
    },
    /// Rows of arrays, by the model's input names.
    Tensors(Tensors),
}

impl Inputs {
    /// Whether both make the same tensor of every image. (Texts and tensor rows are cheap to make twice.)
    pub fn alike(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Image {
                    height,
                    width,
                    preprocess,
                    ..
                },
                Self::Image {
                    height: other_height,
                    width: other_width,
                    preprocess: other,
                    ..
                },
            ) => (height, width, preprocess) == (other_height, other_width, other),
            _ => false,
        }
    }
}

/// Everything decided about one model.
pub struct Resolved {
    /// What fills the inputs.
    pub inputs: Inputs,
    /// Output in use.
    pub output: String,
    /// Pooling of a rank-3 output.
    pub pooling: Pooling,
    /// Items a batch; under [`Self::measure_batch`] only until it is measured.
    pub batch_size: usize,
    /// Whether the size of a batch is to be measured.
    pub measure_batch: bool,
    /// Whether the model fixes the batch size.
    pub fixed_batch: bool,
    /// For the report.
    pub settings: Vec<Setting>,
    /// Keys whose setting is a file, with its path.
    pub files: Vec<(&'static str, PathBuf)>,
    /// What was noticed.
    pub findings: Vec<Finding>,
    /// BLAKE3, hex, of all but an item that changes its embedding.
    pub cache_key: String,
    /// [`Self::cache_key`] and, where inputs come ready-made, what they hold: two sides with equal ones and one model
    /// give equal embeddings. BLAKE3, hex.
    pub preprocessing_key: String,
}

impl Resolved {
    /// The size of a batch that was measured.
    pub fn set_batch_size(&mut self, items: usize) {
        self.batch_size = items;
        let of_batch = |setting: &&mut Setting| setting.key.ends_with(".batch_size");
        if let Some(setting) = self.settings.iter_mut().find(of_batch) {
            setting.value = items.into();
            setting.origin = Origin::Measured;
        }
    }
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
        files: Vec::new(),
    };
    let config = options.model;
    let output = output_name(path, model, config, &mut record)?;
    let mut findings = Vec::new();
    let use_text = probe.modality == Modality::Text || config.tokenizer.is_some();
    let inputs = match probe.modality {
        Modality::Image => {
            image::resolve(path, model, config, options, &mut record, &mut findings)?
        }
        Modality::Text | Modality::Tensor if use_text => {
            text::resolve(path, model, config, &mut record)?
        }
        _ => tensors(probe, path, model, options, &mut record)?,
    };
    // The file is not looked at where the configuration overrules it: it may say what cannot be done here.
    let sidecar_pooling = match config.pooling {
        Some(_) => None,
        None => text::read_pooling(path, config)?,
    };
    let pooling = record.pick(
        "pooling",
        [
            (config.pooling, Origin::File),
            (sidecar_pooling, Origin::Sidecar),
        ],
        Pooling::None,
    );
    let mut outputs = model.outputs.iter();
    let is_pooled_here = outputs.any(|spec| spec.name == output && spec.shape.len() == 3);
    let ignored = text::ignored_modules(path);
    if is_pooled_here && !ignored.is_empty() {
        findings.push(Finding::new(
            FindingCode::ModulesIgnored,
            Severity::Warning,
            format!(
                "{} model: modules.json names {} beside the pooling, which is not run here: sentence-transformers gives other embeddings",
                options.side,
                ignored.join(", ")
            ),
        ));
    }
    let prompts = match inputs {
        Inputs::Text { .. } => text::unused_prompts(path, config),
        Inputs::Image { .. } | Inputs::Tensors(_) => None,
    };
    findings.extend(prompts.map(|prompts| {
        Finding::new(
            FindingCode::PromptsUnused,
            Severity::Warning,
            format!("{} model: {prompts}", options.side),
        )
    }));
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
    let mut measure_batch = false;
    let batch_size = if fixed_batch {
        record.note("batch_size", batch, Origin::Model);
        batch as usize
    } else {
        let origin = match config.batch_size_is_a_flag {
            true => Origin::Flag,
            false => Origin::File,
        };
        match config.batch_size {
            Some(BatchSize::Measured(auto)) => {
                measure_batch = true;
                record.note("batch_size", auto, origin);
                BATCH_SIZE
            }
            Some(BatchSize::Items(items)) => {
                record.note("batch_size", items, origin);
                items
            }
            None => {
                record.note("batch_size", BATCH_SIZE, Origin::Default);
                BATCH_SIZE
            }
        }
    };
    // Everything but the batch size changes what an embedding means; that one is in the cache's key.
    let mut what = json!({
        "output": output,
        "pooling": pooling,
        "dims": config.dims,
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
        Inputs::Text { tokens, length } => {
            json!({ "tokenizer": tokens.hash, "max_length": tokens.max_length, "length": length })
        }
        Inputs::Tensors(_) => json!("tensors"),
    };
    let cache_key = blake3::hash(what.to_string().as_bytes())
        .to_hex()
        .to_string();
    let preprocessing_key = match &inputs {
        Inputs::Image { .. } | Inputs::Text { .. } => cache_key.clone(),
        Inputs::Tensors(tensors) => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(cache_key.as_bytes());
            for row in 0..tensors.n_rows() {
                super::items::hash_row(tensors, row, &model.inputs, &mut hasher);
            }
            hasher.finalize().to_hex().to_string()
        }
    };
    Ok(Resolved {
        inputs,
        output,
        pooling,
        batch_size,
        measure_batch,
        fixed_batch,
        settings: record.settings,
        files: record.files,
        findings,
        cache_key,
        preprocessing_key,
    })
}

/// As [`resolve`], but an output or a size that nobody has chosen becomes an open question, and the rest is decided as
/// if the first output, and a usual size, had been.
///
/// # Errors
/// As [`resolve`], for all but these.
pub fn with_open_questions(
    probe: &Probe,
    path: &Path,
    model: &OnnxModel,
    options: &EmbedOptions<'_>,
) -> Result<(Resolved, Vec<Open>), EmbedError> {
    /// Side of most image models' inputs.
    const USUAL: u32 = 224;
    let mut config = options.model.clone();
    let mut open: Vec<Open> = Vec::new();
    let mut resolved = loop {
        let options = EmbedOptions {
            model: &config,
            ..*options
        };
        match resolve(probe, path, model, &options) {
            Ok(resolved) => break resolved,
            Err(EmbedError::Output {
                wanted: None,
                outputs,
                ..
            }) if !outputs.is_empty() => {
                config.output = Some(outputs[0].name.clone());
                let specs: Vec<String> = outputs.iter().map(ToString::to_string).collect();
                open.push(Open {
                    key: "output",
                    about: format!("the model gives {}", specs.join(", ")),
                });
            }
            Err(EmbedError::SizeUnknown { input, .. }) if config.size.is_none() => {
                config.size = Some(Size::Square(USUAL));
                open.push(Open {
                    key: "size",
                    about: format!("the model takes images of any size ({input})"),
                });
            }
            Err(error) => return Err(error),
        }
    };
    let rank = |name: &String| {
        let mut outputs = model.outputs.iter();
        outputs
            .find(|output| output.name == *name)
            .map(|output| output.shape.len())
    };
    if rank(&resolved.output) == Some(3) && resolved.pooling == Pooling::None {
        open.push(Open {
            key: "pooling",
            about: format!("mean or cls; `{}` has a vector a token", resolved.output),
        });
    }
    // They are no configuration's.
    for setting in &mut resolved.settings {
        let key = setting.key.rsplit('.').next().unwrap_or_default();
        if open.iter().any(|open| open.key == key) {
            setting.origin = Origin::Default;
        }
    }
    Ok((resolved, open))
}

/// Settings of one side as they are decided.
struct Record {
    side: String,
    settings: Vec<Setting>,
    files: Vec<(&'static str, PathBuf)>,
}

impl Record {
    /// The file's name: its folder is this machine's business.
    fn note_file(&mut self, key: &'static str, file: &Path, origin: Origin) {
        let name = file.file_name().unwrap_or_default();
        self.note(key, name.to_string_lossy(), origin);
        self.files.push((key, file.into()));
    }

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
        self.pick_some(key, choices).unwrap_or_else(|| {
            self.note(key, default.clone(), Origin::Default);
            default
        })
    }

    /// The first value that is there, noted with its origin.
    fn pick_some<T: Serialize + Clone, const N: usize>(
        &mut self,
        key: &str,
        choices: [(Option<T>, Origin); N],
    ) -> Option<T> {
        let (value, origin) = choices
            .into_iter()
            .find_map(|(value, origin)| Some((value?, origin)))?;
        self.note(key, value.clone(), origin);
        Some(value)
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

/// The model's own tensor file, else the probe's.
fn tensor_file<'a>(probe: &'a Probe, config: &'a ModelConfig) -> Option<&'a Path> {
    let file = config.tensors.as_ref().or(probe.tensors.as_ref());
    file.map(PathBuf::as_path)
}

fn tensors(
    probe: &Probe,
    path: &Path,
    model: &OnnxModel,
    options: &EmbedOptions<'_>,
    record: &mut Record,
) -> Result<Inputs, EmbedError> {
    let config = options.model;
    let Some(file) = tensor_file(probe, config) else {
        check_filled(path, model, &[])?;
        return Err(EmbedError::NoInputs { path: path.into() });
    };
    if model.inputs.is_empty() {
        return Err(EmbedError::NoInputs { path: path.into() });
    }
    let origin = match config.tensors {
        Some(_) => Origin::File,
        None => options.tensors_origin,
    };
    record.note_file("tensors", file, origin);
    let tensors = Tensors::open(file)?;
    let last_row = probe
        .items
        .iter()
        .filter_map(|item| match item.source.as_deref() {
            Some(&Source::TensorRow(row)) => Some(row),
            _ => None,
        });
    let expected = last_row.max().map_or(0, |row| row + 1);
    if tensors.n_rows() < expected {
        return Err(EmbedError::TensorRows {
            path: file.into(),
            expected,
            found: tensors.n_rows(),
        });
    }
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

/// Files beside a model that say how its inputs are made, whoever reads them in here.
pub const INPUT_SIDECARS: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "preprocessor_config.json",
];

fn beside(model: &Path, name: &str) -> PathBuf {
    model.parent().unwrap_or(Path::new("")).join(name)
}
