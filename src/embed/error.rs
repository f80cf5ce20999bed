//! Why items cannot be embedded.

use std::path::PathBuf;

use super::preprocess::ImageError;
use super::session::TensorSpec;
use crate::domain::broken_link;
use crate::probe::ProbeError;
use crate::runtime::RuntimeError;

/// Why items cannot be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No room for what a stored file is unpacked to.
    #[error("{}: cannot unpack {} there: {source}", folder.display(), path.display())]
    Unpack {
        /// The stored file.
        path: PathBuf,
        /// Where temporary files go.
        folder: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{}: expected a file, found something else", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// The file's ending names no known kind of model.
    #[error("{}: expected .onnx, .npy or .parquet", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// A model must be run and no runtime was given.
    #[error("{}: a model needs ONNX Runtime to be run", path.display())]
    NoRuntime {
        /// The model.
        path: PathBuf,
    },
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The tensor file.
    #[error(transparent)]
    Tensors(#[from] ProbeError),
    /// Preprocessing or a sidecar of it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The model file is no ONNX model.
    #[error("{}: not an ONNX model: {cause}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        cause: String,
    },
    /// An adapted model that does not tell how.
    #[error("{}: its metadata `compat-audit.adaptation` cannot be read: {cause}", path.display())]
    Adaptation {
        /// The model.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// External data outside the model's folder.
    #[error("{}: external data `{location}` lies outside the model's folder", path.display())]
    ExternalOutside {
        /// The model.
        path: PathBuf,
        /// As the model names it.
        location: String,
    },
    /// External data that is not there.
    #[error("{}: its external data {} cannot be read: {source}", path.display(), file.display())]
    ExternalRead {
        /// The model.
        path: PathBuf,
        /// The external-data file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file beside the model says what cannot be done, or cannot be understood.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Sidecar {
        /// The file.
        path: PathBuf,
        /// What is understood.
        expected: &'static str,
        /// What it says.
        found: String,
    },
    /// A model's own tensor file has fewer rows than the probe.
    #[error("{}: expected {expected} rows, one an item, found {found}", path.display())]
    TensorRows {
        /// The tensor file.
        path: PathBuf,
        /// Items.
        expected: usize,
        /// Rows.
        found: usize,
    },
    /// A model without inputs gives every item the same embedding.
    #[error("{}: the model takes no input", path.display())]
    NoInputs {
        /// The model.
        path: PathBuf,
    },
    /// Inputs that nothing can fill.
    #[error(
        "{}: nothing fills the model's input {input}; the probe offers {}",
        path.display(),
        list(offered)
    )]
    InputMissing {
        /// The model.
        path: PathBuf,
        /// The input.
        input: Box<TensorSpec>,
        /// What is there.
        offered: Vec<String>,
    },
    /// An image model must have one image input.
    #[error(
        "{}: expected one image input (batch, 3, height, width) or (batch, height, width, 3), found {}",
        path.display(),
        specs(inputs)
    )]
    NotAnImageModel {
        /// The model.
        path: PathBuf,
        /// Its inputs.
        inputs: Vec<TensorSpec>,
    },
    /// The input's height or width is dynamic and not configured.
    #[error("{}: the model takes images of any size ({input}), and no size is configured", path.display())]
    SizeUnknown {
        /// The model.
        path: PathBuf,
        /// Its input.
        input: Box<TensorSpec>,
    },
    /// A configured layout, size or crop that the model's input rules out, whatever the image.
    #[error("{}: {configured} does not fit the model's input {input}", path.display())]
    InputFixed {
        /// The model.
        path: PathBuf,
        /// Its input.
        input: Box<TensorSpec>,
        /// What is configured, in words.
        configured: String,
    },
    /// The configured output is not there, or none is configured and there are several.
    #[error("{}: {}; the model gives {}", path.display(), wanted_output(wanted), specs(outputs))]
    Output {
        /// The model.
        path: PathBuf,
        /// As configured.
        wanted: Option<String>,
        /// The model's outputs.
        outputs: Vec<TensorSpec>,
    },
    /// The output is no embedding.
    #[error(
        "{}: output `{output}` has shape {shape:?}; expected (batch, dim), or (batch, sequence, dim) with a pooling",
        path.display()
    )]
    OutputShape {
        /// The model.
        path: PathBuf,
        /// The output.
        output: String,
        /// What came out.
        shape: Vec<usize>,
    },
    /// Batches of one model differ in their last axis: it is no embedding's.
    #[error(
        "{}: output `{output}` has {expected} dimensions for one batch and {found} for another; expected the same for every item",
        path.display()
    )]
    DimsVary {
        /// The model.
        path: PathBuf,
        /// The output.
        output: String,
        /// Dimensions that came out first.
        expected: usize,
        /// Dimensions that came out later.
        found: usize,
    },
    /// Truncation to more dimensions than there are.
    #[error("{}: dims = {dims}, but the embedding has {dim} dimensions", path.display())]
    Dims {
        /// The model.
        path: PathBuf,
        /// As configured.
        dims: usize,
        /// As it came out.
        dim: usize,
    },
    /// A text probe and no tokenizer.
    #[error("{}: a text probe needs the model's tokenizer.json, and none lies beside the model", path.display())]
    NoTokenizer {
        /// The model.
        path: PathBuf,
    },
    /// The tokenizer cannot be read, or cannot encode a text.
    #[error("{}: {cause}", path.display())]
    Tokenizer {
        /// tokenizer.json
        path: PathBuf,
        /// The crate's words.
        cause: String,
    },
    /// Truncation that leaves no room for the text.
    #[error(
        "{}: max_length = {max_length}, and {special} of these are special tokens; nothing is left for the text",
        path.display()
    )]
    MaxLength {
        /// tokenizer.json
        path: PathBuf,
        /// As configured, or as tokenizer.json says.
        max_length: usize,
        /// Special tokens of every text.
        special: usize,
    },
    /// An item's input is gone.
    #[error("item `{id}` has no input, and the {side} model must embed it")]
    InputGone {
        /// Item id.
        id: String,
        /// `old` or `new`.
        side: crate::domain::Side,
    },
    /// Too many unreadable items.
    #[error("{count} items cannot be read ({allowed} tolerated): {}", first.join("; "))]
    BadItems {
        /// How many.
        count: usize,
        /// How many may be.
        allowed: usize,
        /// Ids and errors of the first few.
        first: Vec<String>,
    },
    /// The model failed while running.
    #[error("{}: the model failed: {cause}", path.display())]
    Run {
        /// The model.
        path: PathBuf,
        /// The runtime's words.
        cause: String,
    },
    /// A value that the input's element type cannot hold.
    #[error("{}: the input {input} cannot hold the value {value}", path.display())]
    ValueType {
        /// The model.
        path: PathBuf,
        /// The input.
        input: Box<TensorSpec>,
        /// The value found.
        value: f64,
    },
    /// Embeddings that no metric can use.
    #[error("{}: {count} embeddings are {what}: {}", path.display(), list(ids))]
    Unusable {
        /// The model or the stored file.
        path: PathBuf,
        /// `not finite` or `all zeros`.
        what: &'static str,
        /// How many.
        count: usize,
        /// The first few items.
        ids: Vec<String>,
    },
    /// Stored embeddings do not cover the probe.
    #[error("{}: {count} items of the probe have no stored embedding: {}", path.display(), list(ids))]
    NotStored {
        /// The stored file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first few items.
        ids: Vec<String>,
    },
    /// A stored file was written to while it was read from.
    #[error("{}: the file was changed while the audit was reading it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A stored file is not what it should be.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Stored {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
}

impl EmbedError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            EmbedError::Runtime(error) => return error.hint(),
            EmbedError::Tensors(error) => return error.hint(),
            EmbedError::Image(error) => return error.hint(),
            EmbedError::Read { path, .. } => {
                let broken = broken_link(path);
                return broken.or_else(|| Some("check the path and its permissions".to_owned()));
            }
            EmbedError::Unpack { .. } => {
                "give it room, or name another folder with `--cache-dir DIR` or $TMPDIR; embeddings that `--memory SIZE` holds are not unpacked"
            }
            EmbedError::NotAFile { .. } => "give the .onnx, .npy or .parquet file itself",
            EmbedError::UnknownKind { .. } => {
                "a model is an .onnx file; stored embeddings are .npy or .parquet"
            }
            EmbedError::NoRuntime { .. } => "`compat-audit runtime install` gets it",
            EmbedError::NotOnnx { .. } => {
                "export the model to ONNX again; a partial download looks like this"
            }
            EmbedError::Adaptation { .. } => {
                "a newer compat-audit may have written it; `compat-audit adapt` makes the model again"
            }
            EmbedError::ExternalOutside { .. } => "keep a model's external data beside it",
            EmbedError::ExternalRead { .. } => {
                "the file belongs to the model: copy it into the model's folder under this very name"
            }
            EmbedError::Sidecar { .. } => {
                "set pooling or max_length for this model in audit.toml: that wins over the file"
            }
            EmbedError::TensorRows { .. } => {
                "rows stand in the manifest's order, one an item, for each model"
            }
            EmbedError::NoInputs { .. } => "export it with its inputs",
            EmbedError::InputMissing { .. } => {
                "name the arrays of --tensors as the model names its inputs, or give a tokenizer for text"
            }
            EmbedError::NotAnImageModel { .. } => {
                "for other inputs give ready-made tensors with --tensors"
            }
            EmbedError::SizeUnknown { .. } => {
                "set size = 224 (or [height, width]) for this model in audit.toml"
            }
            EmbedError::InputFixed { .. } => {
                "the model fixes its input: change layout, size or crop in audit.toml (or the preprocessor_config.json beside the model), or leave them out"
            }
            EmbedError::Output { .. } => "set output = \"name\" for this model in audit.toml",
            EmbedError::OutputShape { .. } => {
                "set pooling = \"mean\" or \"cls\", or choose another output, in audit.toml"
            }
            EmbedError::DimsVary { .. } => {
                "choose the output that holds the embedding: set output = \"name\" for this model in audit.toml"
            }
            EmbedError::Dims { .. } => "lower dims in audit.toml",
            EmbedError::NoTokenizer { .. } => {
                "put tokenizer.json beside the model, or set tokenizer in audit.toml"
            }
            EmbedError::Tokenizer { .. } => "the file must be a Hugging Face tokenizer.json",
            EmbedError::MaxLength { .. } => "raise max_length in audit.toml",
            EmbedError::InputGone { .. } => {
                "give its stored embedding: --old-embeddings FILE, or stored embeddings as OLD"
            }
            EmbedError::BadItems { .. } => {
                "mend the files, or tolerate and list them with --max-bad-items N"
            }
            EmbedError::Run { .. } => {
                "check the inputs' shapes against the model; --dry-run shows both"
            }
            EmbedError::ValueType { .. } => {
                "check the array given for it (or scale, mean and std of a model of bytes) against the input's type"
            }
            EmbedError::Unusable { .. } => {
                "check the model's precision and these items; a search engine cannot use them either"
            }
            EmbedError::NotStored { .. } => "ids must be those of the probe; --dry-run shows them",
            EmbedError::Changed { .. } => {
                "run it again; write new embeddings to another file and rename that"
            }
            EmbedError::Stored { .. } => {
                ".npy: a (rows, dim) array of floats, or of int8 with <stem>.scale.txt, with <stem>.ids.txt beside it, one id a line; .parquet: `id` and one list column, of int8 also `scale`"
            }
        };
        Some(hint.to_owned())
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nothing".into()
    } else {
        names.join(", ")
    }
}

fn specs(specs: &[TensorSpec]) -> String {
    list(&specs.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn wanted_output(wanted: &Option<String>) -> String {
    match wanted {
        Some(name) => format!("there is no output `{name}`"),
        None => "several outputs and none is chosen".into(),
    }
}
