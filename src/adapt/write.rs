//! The adapted model's file and what must lie beside it: whole, checked, or not there.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::AdaptError;
use super::checkpoint::Checkpoint;
use super::graph::{self, Appended, GraphError};
use super::head::Head;
use crate::config::{AuditConfig, Pooling};
use crate::domain::{Adaptation, folder_of};
use crate::embed::external::{self, ModelFile};
use crate::embed::session::TensorSpec;
use crate::embed::{EmbedError, INPUT_SIDECARS, ModelInfo};
use crate::interrupt::{self, HalfWritten, WholeFile};

/// Refuses what must not be replaced, and a folder that cannot be written to, before anything is computed.
///
/// # Errors
/// [`AdaptError::Occupied`], [`AdaptError::Io`].
pub fn check_out(config: &AuditConfig, out: &Path) -> Result<(), AdaptError> {
    let refused = |why| {
        Err(AdaptError::Occupied {
            path: out.to_owned(),
            why,
        })
    };
    if out.is_dir() {
        return refused("is a folder");
    }
    if out.extension().is_none_or(|extension| extension != "onnx") {
        return refused("does not end in .onnx");
    }
    let real = |path: &Path| path.canonicalize().ok();
    let same = |other: &PathBuf| real(out).is_some() && real(out) == real(other);
    if [&config.old, &config.new].into_iter().any(same) {
        return refused("is one of the two models");
    }
    let checkpoint = Checkpoint::path(out);
    if Checkpoint::is_foreign(&checkpoint) {
        return Err(AdaptError::Occupied {
            path: checkpoint,
            why: "would hold the training's checkpoint, and is something else",
        });
    }
    new_file(out).map(drop)
}

/// Says early what [`model`] would say late: whether a head can be appended, and whether what must lie beside the new model
/// finds its place.
///
/// # Errors
/// [`AdaptError::Graph`], [`AdaptError::Occupied`].
pub fn check_model(
    config: &AuditConfig,
    file: &ModelFile,
    model: &ModelInfo,
    out: &Path,
) -> Result<(), AdaptError> {
    let head = Head::linear(
        super::head::HeadKind::Orthogonal,
        &ndarray::Array2::zeros((1, 1)),
    );
    appended(config, &head, model, String::new())?;
    for (source, target) in beside(&config.new, file, out) {
        if target.exists() {
            refuse_other(&source, &target)?;
        }
    }
    Ok(())
}

/// Writes the model beside `out`, lets `check` run it, then moves it into place. Whatever goes wrong, nothing stays.
///
/// # Errors
/// [`AdaptError::Graph`], [`AdaptError::Occupied`], [`AdaptError::Io`], and what `check` says.
pub fn model(
    config: &AuditConfig,
    file: &ModelFile,
    head: &Head,
    model: &ModelInfo,
    adaptation: &Adaptation,
    out: &Path,
    check: impl FnOnce(&Path) -> Result<(), AdaptError>,
) -> Result<(), AdaptError> {
    let bytes = appended(config, head, model, adaptation.to_metadata())?;
    let mut made = Made::default();
    for (source, target) in beside(&config.new, file, out) {
        if target.exists() {
            refuse_other(&source, &target)?;
            continue;
        }
        let folder = folder_of(&target);
        std::fs::create_dir_all(folder).map_err(io(folder, "create the folder"))?;
        let mut from = File::open(&source).map_err(io(&source, "read"))?;
        let mut file = new_file(&target)?;
        let announced = interrupt::turn().announce(&target);
        std::io::copy(&mut from, file.file_mut()).map_err(io(&target, "write"))?;
        file.persist(&target).map_err(io(&target, "write"))?;
        made.0.push((target, announced));
    }
    let mut file = new_file(out)?;
    file.write_all(&bytes).map_err(io(out, "write"))?;
    check(file.path())?;
    file.persist(out).map_err(io(out, "write"))?;
    made.0.clear();
    Ok(())
}

/// Files that were made and are removed again unless all goes well, by an interrupt too.
#[derive(Default)]
struct Made(Vec<(PathBuf, HalfWritten)>);

impl Drop for Made {
    fn drop(&mut self) {
        for (path, _) in &self.0 {
            // Weights of a model that is not there are nothing to keep; that they are gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn new_file(path: &Path) -> Result<WholeFile, AdaptError> {
    WholeFile::beside(path).map_err(io(folder_of(path), "create a file in"))
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> AdaptError + use<> {
    let path = path.to_owned();
    move |source| AdaptError::Io {
        path,
        action,
        source,
    }
}

/// The new model's bytes with the head behind them.
fn appended(
    config: &AuditConfig,
    head: &Head,
    model: &ModelInfo,
    metadata: String,
) -> Result<Vec<u8>, AdaptError> {
    let path = &config.new;
    let bytes = std::fs::read(path).map_err(io(path, "read"))?;
    let mut inputs = model.inputs.iter();
    let mask = inputs.find(|input| input.name == "attention_mask");
    let graph_error = |source| AdaptError::Graph {
        path: path.clone(),
        source,
    };
    if pooling_of(model) == Pooling::Mean && mask.is_none() && tokens_are_padded(model) {
        return Err(graph_error(GraphError::NoMask));
    }
    let appended = Appended {
        head,
        output: model.output.as_deref().unwrap_or_default(),
        pooling: pooling_of(model),
        mask: mask.map(|mask| mask.name.as_str()),
        metadata,
    };
    graph::append(&bytes, &appended).map_err(graph_error)
}

/// Whether it reads tokens, of which a batch has as many as its longest text; frames of other inputs are as many as they are.
fn tokens_are_padded(model: &ModelInfo) -> bool {
    model.inputs.iter().any(|input| input.name == "input_ids")
}

fn output_of(model: &ModelInfo) -> Option<&TensorSpec> {
    let mut outputs = model.outputs.iter();
    outputs.find(|output| Some(&output.name) == model.output.as_ref())
}

/// Most that a value of the written model may differ from the head in memory. An output of half precision is rounded where
/// the model ends; with a head behind it the runtime may leave that out, so the difference is its rounding, some times over.
pub fn tolerance(model: &ModelInfo) -> f64 {
    match output_of(model).map(|output| output.dtype.as_str()) {
        Some("float16") => 4.0 * f64::from(half::f16::EPSILON),
        Some("bfloat16") => 4.0 * f64::from(half::bf16::EPSILON),
        _ => 1e-5,
    }
}

/// How the output in use becomes one vector an item: what is pooled already is left alone, whatever stands beside the model.
fn pooling_of(model: &ModelInfo) -> Pooling {
    match output_of(model).map(|output| output.shape.len()) {
        Some(2 | 4) => Pooling::None,
        _ => model.pooling,
    }
}

/// The model's external data and sidecars, and where the new model looks for them; none in its own folder.
fn beside(model: &Path, file: &ModelFile, out: &Path) -> Vec<(PathBuf, PathBuf)> {
    let (from, to) = (folder_of(model), folder_of(out));
    if from.canonicalize().ok() == to.canonicalize().ok() {
        return Vec::new();
    }
    let sidecars = INPUT_SIDECARS
        .iter()
        .filter(|name| from.join(name).is_file());
    let names = file.external.iter().map(String::as_str);
    names
        .chain(sidecars.copied())
        .map(|name| (from.join(name), to.join(name)))
        .collect()
}

/// A file that is there already must be the very one that would be written.
fn refuse_other(source: &Path, target: &Path) -> Result<(), AdaptError> {
    let hash = |path: &Path| {
        let mut hasher = blake3::Hasher::new();
        let file = File::open(path).map_err(io(path, "read"))?;
        hasher.update_reader(file).map_err(io(path, "read"))?;
        Ok::<_, AdaptError>(hasher.finalize())
    };
    if hash(source)? == hash(target)? {
        return Ok(());
    }
    Err(AdaptError::Occupied {
        path: target.to_owned(),
        why: "is there already, and is not what lies beside the new model",
    })
}

/// What the new model's file says.
///
/// # Errors
/// [`AdaptError::Unreadable`].
pub fn read(path: &Path) -> Result<ModelFile, AdaptError> {
    external::read(path).map_err(|error: EmbedError| AdaptError::Unreadable(Box::new(error)))
}
