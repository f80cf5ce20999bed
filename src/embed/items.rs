//! From a probe item to a row of a batch.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::cache::Digest;
use super::preprocess::{Decoded, Fitted, ImagePreprocess, RgbImage};
use super::resolve::{Inputs, Resolved};
use super::session::{BatchInput, OnnxModel, TensorSpec, Values};
use super::token_store::TokenStore;
use super::{EmbedError, EmbedOptions};
use crate::config::{Layout, Pooling};
use crate::domain::{Item, Role, Source};
use crate::probe::tensors::{Tensor, TensorRow, Tensors};

/// How the items become one model's rows.
pub struct Plan<'a> {
    /// The side's options.
    pub options: &'a EmbedOptions<'a>,
    /// How its inputs are made.
    pub resolved: &'a Resolved,
    /// The model's inputs.
    pub specs: &'a [TensorSpec],
    /// Tokens that are known already.
    pub tokens: &'a TokenStore,
}

/// One item, ready to be put into a batch.
#[derive(Clone)]
pub struct Prepared {
    /// What the model sees of it.
    pub row: Row,
    /// BLAKE3 of the decoded input, before preprocessing.
    pub input: Digest,
    /// Whether a 16-bit image was scaled.
    pub sixteen_bit: bool,
}

/// A batch row.
#[derive(Clone)]
pub enum Row {
    /// Image, resized and cropped.
    Image(Arc<Fitted>),
    /// Token ids.
    Tokens(Arc<[u32]>),
    /// Row of the tensor file.
    Tensor(usize),
}

/// An item's raw input and what identifies it.
pub struct Raw {
    /// The file's bytes; nothing for texts and tensors, which are at hand.
    bytes: Option<Vec<u8>>,
    /// BLAKE3 of the file's bytes, of the text with its prefix, of the tensor row.
    pub content: Digest,
}

/// Reads and hashes an item. Models of images see the same content of it, whatever their preprocessing.
///
/// `Err` is why the item cannot be read.
pub fn read(item: &Item, plan: &Plan<'_>) -> Result<Raw, String> {
    let content = match (&plan.resolved.inputs, item.source.as_deref()) {
        (Inputs::Image { .. }, Some(Source::Image(path))) => {
            #[cfg(test)]
            super::counting::count(item, [1, 0]);
            let bytes = open(path)
                .and_then(|mut file| {
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).map(|_| bytes)
                })
                .map_err(|error| format!("{}: {error}", path.display()))?;
            return Ok(Raw {
                content: *blake3::hash(&bytes).as_bytes(),
                bytes: Some(bytes),
            });
        }
        (Inputs::Text { .. }, _) => {
            *blake3::hash(prefixed(item, plan.options)?.as_bytes()).as_bytes()
        }
        (Inputs::Tensors(tensors), Some(Source::TensorRow(row))) => {
            row_digest(tensors, *row, plan.specs)
        }
        _ => return Err("the item's input is of another kind than the model's".into()),
    };
    Ok(Raw {
        content,
        bytes: None,
    })
}

/// Opens a file; a pipe, which may never end, is refused before it is opened.
fn open(path: &Path) -> io::Result<File> {
    if path.metadata()?.is_file() {
        return File::open(path);
    }
    let found = if path.is_dir() {
        "a folder"
    } else {
        "a pipe or a device"
    };
    Err(io::Error::other(format!("expected a file, found {found}")))
}

/// Why an item's file cannot be opened, when it has one.
pub fn fault(item: &Item) -> Option<String> {
    let Some(Source::Image(path)) = item.source.as_deref() else {
        return None;
    };
    let error = open(path).err()?;
    Some(format!("{}: {error}", path.display()))
}

/// Prepares an item for each plan; an image is decoded once for all of them, and resized once for those that resize it
/// alike. `Err` is why it cannot be done for that plan.
pub fn prepare(item: &Item, raw: Raw, plans: &[&Plan<'_>]) -> Vec<Result<Prepared, String>> {
    match (item.source.as_deref(), raw.bytes) {
        (Some(Source::Image(path)), Some(bytes)) => {
            #[cfg(test)]
            super::counting::count(item, [0, 1]);
            images(path, bytes, plans)
        }
        _ => plans
            .iter()
            .map(|plan| prepare_one(item, &raw.content, plan))
            .collect(),
    }
}

fn prepare_one(item: &Item, content: &Digest, plan: &Plan<'_>) -> Result<Prepared, String> {
    match (&plan.resolved.inputs, item.source.as_deref()) {
        (Inputs::Text { .. }, _) => {
            let bare = item.text().unwrap_or_default();
            Ok(Prepared {
                row: Row::Tokens(encode(item, content, plan)?),
                input: *blake3::hash(bare.as_bytes()).as_bytes(),
                sixteen_bit: false,
            })
        }
        (Inputs::Tensors(_), Some(Source::TensorRow(row))) => Ok(Prepared {
            row: Row::Tensor(*row),
            input: *content,
            sixteen_bit: false,
        }),
        _ => Err("the item's input is of another kind than the model's".into()),
    }
}

/// Token ids of an item's text.
pub fn encode(item: &Item, content: &Digest, plan: &Plan<'_>) -> Result<Arc<[u32]>, String> {
    if let Some(known) = plan.tokens.get(content) {
        return Ok(known);
    }
    let Inputs::Text { tokens, .. } = &plan.resolved.inputs else {
        return Err("the item's input is of another kind than the model's".into());
    };
    #[cfg(test)]
    super::counting::count(item, [0, 1]);
    let text = prefixed(item, plan.options)?;
    tokens.encode(&text).map_err(|error| error.to_string())
}

/// What a plan needs of a decoded image.
struct Wanted<'a> {
    preprocess: &'a ImagePreprocess,
    height: u32,
    width: u32,
}

impl Wanted<'_> {
    fn alike(&self, other: &Self) -> bool {
        (self.height, self.width) == (other.height, other.width)
            && self.preprocess.fits_alike(other.preprocess)
    }
}

fn images(path: &Path, bytes: Vec<u8>, plans: &[&Plan<'_>]) -> Vec<Result<Prepared, String>> {
    let wanted: Vec<Wanted<'_>> = plans
        .iter()
        .filter_map(|plan| match &plan.resolved.inputs {
            Inputs::Image {
                preprocess,
                height,
                width,
                ..
            } => Some(Wanted {
                preprocess,
                height: *height,
                width: *width,
            }),
            Inputs::Text { .. } | Inputs::Tensors(_) => None,
        })
        .collect();
    let turn = wanted.iter().any(|wanted| wanted.preprocess.exif);
    let decoded = match Decoded::read(&bytes, path, turn) {
        Ok(decoded) => decoded,
        Err(error) => return plans.iter().map(|_| Err(error.to_string())).collect(),
    };
    drop(bytes);
    let mut prepared: Vec<Result<Prepared, String>> = Vec::with_capacity(plans.len());
    // Models that apply the orientation see other pixels, unless there is nothing to turn.
    let upright = decoded.is_turned().then(|| decoded.clone().oriented(true));
    let lying = decoded.oriented(false);
    let digests = [Some(&lying), upright.as_ref()].map(|image| image.map(pixel_digest));
    for (i, one) in wanted.iter().enumerate() {
        let (image, input) = match (&upright, digests) {
            (Some(upright), [_, Some(digest)]) if one.preprocess.exif => (upright, digest),
            (_, [digest, _]) => (&lying, digest.unwrap_or_default()),
        };
        let same = wanted[..i].iter().position(|earlier| one.alike(earlier));
        prepared.push(match same {
            Some(same) => prepared[same].clone(),
            None => match one.preprocess.fit(image, one.height, one.width) {
                Ok(fitted) => Ok(Prepared {
                    row: Row::Image(Arc::new(fitted)),
                    input,
                    sixteen_bit: image.sixteen_bit,
                }),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
        });
    }
    prepared
}

/// BLAKE3 of an image's size and levels.
fn pixel_digest(image: &RgbImage) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&image.width.to_le_bytes());
    hasher.update(&image.height.to_le_bytes());
    hasher.update(&image.pixels);
    *hasher.finalize().as_bytes()
}

/// The text with the model's prefix; a query's own prefix wins, an item that is both takes the common one.
fn prefixed(item: &Item, options: &EmbedOptions<'_>) -> Result<String, String> {
    let text = item.text().ok_or("the item has no text")?;
    let common = options.model.prefix.as_deref();
    let prefix = match item.role {
        Role::Query => options.model.query_prefix.as_deref().or(common),
        Role::Gallery | Role::Both => common,
    };
    Ok(format!("{}{text}", prefix.unwrap_or_default()))
}

fn row_digest(tensors: &Tensors, row: usize, specs: &[TensorSpec]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hash_row(tensors, row, specs, &mut hasher);
    *hasher.finalize().as_bytes()
}

/// Adds what the model takes of a row: each input's name, its array's type, shape and values, so that equal bytes of
/// another shape or of another input differ.
pub fn hash_row(tensors: &Tensors, row: usize, specs: &[TensorSpec], hasher: &mut blake3::Hasher) {
    for spec in specs {
        let Some(tensor) = array_of(tensors, spec, specs) else {
            continue;
        };
        let dtype = match tensor.row(row) {
            TensorRow::F32(_) => "f32",
            TensorRow::I64(_) => "i64",
            TensorRow::U8(_) => "u8",
        };
        let head = format!("{:?} {dtype} {:?}\n", spec.name, tensor.row_shape());
        hasher.update(head.as_bytes());
        hasher.update(&tensor.row_bytes(row));
    }
}

/// The array of an input: by its name, or the one array of a `.npy` for the only input.
pub fn array_of<'a>(
    tensors: &'a Tensors,
    spec: &TensorSpec,
    specs: &[TensorSpec],
) -> Option<&'a Tensor> {
    tensors
        .get(&spec.name)
        .or_else(|| tensors.get("").filter(|_| specs.len() == 1))
}

/// Embeddings of one batch, after pooling and truncation.
pub struct Rows {
    values: Vec<f32>,
    /// Dimensions of a row.
    pub dim: usize,
}

impl Rows {
    /// The rows in the batch's order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }
}

/// Runs one batch and returns one embedding a row.
///
/// # Errors
/// The runtime's, or an output that is no embedding.
pub fn run(
    model: &mut OnnxModel,
    resolved: &Resolved,
    batch: &Batch,
    options: &EmbedOptions<'_>,
    path: &Path,
) -> Result<Rows, EmbedError> {
    model.run(&batch.inputs, &resolved.output, |shape, values| {
        pool(shape, values, batch, resolved, options, path)
    })?
}

fn pool(
    shape: &[usize],
    values: &[f32],
    batch: &Batch,
    resolved: &Resolved,
    options: &EmbedOptions<'_>,
    path: &Path,
) -> Result<Rows, EmbedError> {
    let wrong = || EmbedError::OutputShape {
        path: path.into(),
        output: resolved.output.clone(),
        shape: shape.to_vec(),
    };
    let dim = match shape {
        &[_, dim] | &[_, dim, 1, 1] | &[_, _, dim] => dim,
        _ => return Err(wrong()),
    };
    let kept = options.model.dims.unwrap_or(dim).min(dim);
    let mut rows = Vec::with_capacity(batch.n_rows * kept);
    match (shape, resolved.pooling) {
        (&[n, dim], _) | (&[n, dim, 1, 1], _) if n == batch.n_rows && dim > 0 => {
            for item in values.chunks_exact(dim) {
                rows.extend_from_slice(&item[..kept]);
            }
        }
        (&[n, sequence, dim], Pooling::Cls) if n == batch.n_rows && sequence * dim > 0 => {
            for item in values.chunks_exact(sequence * dim) {
                rows.extend_from_slice(&item[..kept]);
            }
        }
        (&[n, sequence, dim], Pooling::Mean) if n == batch.n_rows && sequence * dim > 0 => {
            // A mask of another length (a model that merges tokens) cannot say which ones count.
            let mask = batch.mask.as_deref();
            if mask.is_some_and(|mask| mask.len() != n * sequence) {
                return Err(wrong());
            }
            for (i, item) in values.chunks_exact(sequence * dim).enumerate() {
                let weights = mask.map(|mask| &mask[i * sequence..(i + 1) * sequence]);
                rows.extend_from_slice(&mean(item, dim, weights)[..kept]);
            }
        }
        _ => return Err(wrong()),
    }
    match options.model.dims {
        Some(dims) if dims > dim => Err(EmbedError::Dims {
            path: path.into(),
            dims,
            dim,
        }),
        _ => Ok(Rows {
            values: rows,
            dim: kept,
        }),
    }
}

/// Mean over the tokens of weight 1 (all, without weights), summed in f64 in token order.
fn mean(tokens: &[f32], dim: usize, weights: Option<&[i64]>) -> Vec<f32> {
    let mut sum = vec![0.0_f64; dim];
    let mut count = 0.0;
    for (t, token) in tokens.chunks_exact(dim).enumerate() {
        if weights.is_none_or(|weights| weights[t] != 0) {
            sum.iter_mut()
                .zip(token)
                .for_each(|(sum, &value)| *sum += f64::from(value));
            count += 1.0;
        }
    }
    sum.into_iter()
        .map(|sum| (sum / f64::max(count, 1.0)) as f32)
        .collect()
}

/// The model's inputs for some rows.
#[derive(Default)]
pub struct Batch {
    inputs: Vec<BatchInput>,
    /// The attention mask, when there is one, for pooling.
    mask: Option<Vec<i64>>,
    n_rows: usize,
}

impl Batch {
    /// Fills the inputs; the block of images of an earlier batch is used again.
    pub fn fill(&mut self, plan: &Plan<'_>, rows: &[&Row]) {
        let Plan {
            resolved, specs, ..
        } = plan;
        self.n_rows = rows.len();
        match &resolved.inputs {
            Inputs::Image {
                name,
                height,
                width,
                preprocess,
            } => {
                let (height, width) = (*height as usize, *width as usize);
                let shape = match preprocess.layout {
                    Layout::Nchw => vec![rows.len(), 3, height, width],
                    Layout::Nhwc => vec![rows.len(), height, width, 3],
                };
                let mut block = match self.inputs.pop() {
                    Some(BatchInput {
                        values: Values::F32(block),
                        ..
                    }) => block,
                    _ => Vec::new(),
                };
                let size = 3 * height * width;
                block.resize(rows.len() * size, 0.0);
                let tables = preprocess.tables();
                block
                    .par_chunks_exact_mut(size.max(1))
                    .zip(rows)
                    .for_each(|(out, row)| {
                        if let Row::Image(image) = row {
                            preprocess.fill(&tables, image, out);
                        }
                    });
                self.inputs = vec![BatchInput {
                    name: name.clone(),
                    shape,
                    values: Values::F32(block),
                }];
                self.mask = None;
            }
            Inputs::Text {
                tokens,
                length: fixed,
            } => {
                let ids: Vec<&[u32]> = rows
                    .iter()
                    .map(|row| match row {
                        Row::Tokens(ids) => &ids[..],
                        Row::Image(_) | Row::Tensor(_) => &[],
                    })
                    .collect();
                let longest = ids.iter().map(|ids| ids.len()).max().unwrap_or(0);
                let length = fixed.unwrap_or(longest.max(1));
                let padded = |value: &dyn Fn(&[u32], usize) -> i64| -> Vec<i64> {
                    ids.iter()
                        .flat_map(|ids| (0..length).map(|t| value(ids, t)))
                        .collect()
                };
                let mask = padded(&|ids, t| i64::from(t < ids.len()));
                self.inputs = specs
                    .iter()
                    .map(|spec| {
                        let values = match spec.name.as_str() {
                            "input_ids" => padded(&|ids, t| {
                                ids.get(t).map_or(tokens.pad_id, |&id| i64::from(id))
                            }),
                            "attention_mask" => mask.clone(),
                            name => derived(name, rows.len(), length),
                        };
                        BatchInput {
                            name: spec.name.clone(),
                            shape: vec![rows.len(), length],
                            values: Values::I64(values),
                        }
                    })
                    .collect();
                self.mask = Some(mask);
            }
            Inputs::Tensors(tensors) => {
                (self.inputs, self.mask) = tensor_batch(specs, tensors, rows);
            }
        }
    }
}

/// `token_type_ids` are zeros, `position_ids` a range.
fn derived(name: &str, n: usize, length: usize) -> Vec<i64> {
    let position = |t: usize| if name == "position_ids" { t as i64 } else { 0 };
    (0..n).flat_map(|_| (0..length).map(position)).collect()
}

fn tensor_batch(
    specs: &[TensorSpec],
    tensors: &Tensors,
    rows: &[&Row],
) -> (Vec<BatchInput>, Option<Vec<i64>>) {
    let indices: Vec<usize> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Tensor(index) => Some(*index),
            Row::Image(_) | Row::Tokens(_) => None,
        })
        .collect();
    let length = tensors
        .get("input_ids")
        .and_then(|ids| ids.row_shape().first().copied())
        .unwrap_or(0);
    let inputs = specs
        .iter()
        .map(|spec| match array_of(tensors, spec, specs) {
            Some(tensor) => {
                let mut shape = tensor.row_shape().to_vec();
                shape.insert(0, indices.len());
                BatchInput {
                    name: spec.name.clone(),
                    shape,
                    values: gather(tensor, &indices),
                }
            }
            None => BatchInput {
                name: spec.name.clone(),
                shape: vec![indices.len(), length],
                values: Values::I64(derived(&spec.name, indices.len(), length)),
            },
        })
        .collect();
    let mask = tensors
        .get("attention_mask")
        .map(|mask| match gather(mask, &indices) {
            Values::I64(values) => values,
            Values::F32(values) => values.into_iter().map(|v| v as i64).collect(),
            Values::U8(values) => values.into_iter().map(i64::from).collect(),
        });
    (inputs, mask)
}

fn gather(tensor: &Tensor, rows: &[usize]) -> Values {
    let mut values = match tensor.row(0) {
        TensorRow::F32(_) => Values::F32(Vec::new()),
        TensorRow::I64(_) => Values::I64(Vec::new()),
        TensorRow::U8(_) => Values::U8(Vec::new()),
    };
    for &row in rows {
        match (&mut values, tensor.row(row)) {
            (Values::F32(all), TensorRow::F32(row)) => all.extend(row),
            (Values::I64(all), TensorRow::I64(row)) => all.extend(row),
            (Values::U8(all), TensorRow::U8(row)) => all.extend(row),
            _ => unreachable!("a tensor's rows are of one type"),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_pooling_skips_padding() {
        let tokens = [1.0, 2.0, 3.0, 4.0, 100.0, 100.0];
        assert_eq!(mean(&tokens, 2, Some(&[1, 1, 0])), [2.0, 3.0]);
        assert_eq!(mean(&tokens[..4], 2, None), [2.0, 3.0]);
        assert_eq!(mean(&tokens, 2, Some(&[0, 0, 0])), [0.0, 0.0]);
    }

    #[test]
    fn absent_inputs_are_zeros_and_a_range() {
        assert_eq!(derived("token_type_ids", 2, 2), [0, 0, 0, 0]);
        assert_eq!(derived("position_ids", 2, 3), [0, 1, 2, 0, 1, 2]);
    }
}
