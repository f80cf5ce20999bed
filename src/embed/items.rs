//! From a probe item to a row of a batch.

use super::cache::Digest;
use super::preprocess::decode_bytes;
use super::resolve::{Inputs, Resolved};
use super::session::{BatchInput, OnnxModel, TensorSpec, Values};
use super::{EmbedError, EmbedOptions};
use crate::config::Pooling;
use crate::domain::{Item, Role, Source};
use crate::probe::tensors::{Tensor, TensorRow, Tensors};

/// One item, ready to be put into a batch.
pub struct Prepared {
    /// What the model sees of it.
    pub row: Row,
    /// BLAKE3 of the decoded input, before preprocessing.
    pub input: Digest,
    /// Whether a 16-bit image was scaled.
    pub sixteen_bit: bool,
}

/// A batch row.
pub enum Row {
    /// Pixels of the image input.
    Image(Vec<f32>),
    /// Token ids.
    Tokens(Vec<i64>),
    /// Row of the tensor file.
    Tensor(usize),
}

/// What identifies an item's content under one resolved preprocessing: the file's bytes, the text, the tensor row.
///
/// `Err` is why the item cannot be read.
pub fn content(
    item: &Item,
    resolved: &Resolved,
    options: &EmbedOptions<'_>,
    specs: &[TensorSpec],
) -> Result<Digest, String> {
    let bytes = match (&resolved.inputs, &item.source) {
        (Inputs::Image { .. }, Source::Image(path)) => {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        (Inputs::Text { .. }, _) => prefixed(item, options)?.into_bytes(),
        (Inputs::Tensors(tensors), Source::TensorRow(row)) => {
            return Ok(row_digest(tensors, *row, specs));
        }
        _ => return Err("the item's input is of another kind than the model's".into()),
    };
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// Decodes and preprocesses an item. `Err` is why it cannot be read.
pub fn prepare(
    item: &Item,
    resolved: &Resolved,
    options: &EmbedOptions<'_>,
    specs: &[TensorSpec],
) -> Result<Prepared, String> {
    match (&resolved.inputs, &item.source) {
        (
            Inputs::Image {
                height,
                width,
                preprocess,
                ..
            },
            Source::Image(path),
        ) => {
            let bytes =
                std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let image =
                decode_bytes(&bytes, path, preprocess.exif).map_err(|error| error.to_string())?;
            let mut pixels = vec![0.0; 3 * *height as usize * *width as usize];
            preprocess
                .apply(&image, *height, *width, &mut pixels)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(&image.width.to_le_bytes());
            hasher.update(&image.height.to_le_bytes());
            hasher.update(&image.pixels);
            Ok(Prepared {
                row: Row::Image(pixels),
                input: *hasher.finalize().as_bytes(),
                sixteen_bit: image.sixteen_bit,
            })
        }
        (Inputs::Text { tokens, .. }, _) => {
            let text = prefixed(item, options)?;
            let ids = tokens.encode(&text).map_err(|error| error.to_string())?;
            let bare = item.text().unwrap_or_default();
            Ok(Prepared {
                row: Row::Tokens(ids),
                input: *blake3::hash(bare.as_bytes()).as_bytes(),
                sixteen_bit: false,
            })
        }
        (Inputs::Tensors(tensors), Source::TensorRow(row)) => Ok(Prepared {
            row: Row::Tensor(*row),
            input: row_digest(tensors, *row, specs),
            sixteen_bit: false,
        }),
        _ => Err("the item's input is of another kind than the model's".into()),
    }
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

/// Runs the rows as one batch and returns one embedding a row, after pooling and truncation.
///
/// # Errors
/// The runtime's, or an output that is no embedding.
pub fn run(
    model: &mut OnnxModel,
    resolved: &Resolved,
    rows: &[&Row],
    options: &EmbedOptions<'_>,
    path: &std::path::Path,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    let (inputs, mask) = batch(&model.inputs, resolved, rows);
    let (shape, values) = model.run(inputs, &resolved.output)?;
    let wrong = || EmbedError::OutputShape {
        path: path.into(),
        output: resolved.output.clone(),
        shape: shape.clone(),
    };
    let pooled: Vec<Vec<f32>> = match (shape.as_slice(), resolved.pooling) {
        (&[n, dim], _) | (&[n, dim, 1, 1], _) if n == rows.len() && dim > 0 => {
            values.chunks_exact(dim).map(<[f32]>::to_vec).collect()
        }
        (&[n, sequence, dim], Pooling::Cls) if n == rows.len() && sequence * dim > 0 => values
            .chunks_exact(sequence * dim)
            .map(|item| item[..dim].to_vec())
            .collect(),
        (&[n, sequence, dim], Pooling::Mean) if n == rows.len() && sequence * dim > 0 => values
            .chunks_exact(sequence * dim)
            .enumerate()
            .map(|(i, item)| {
                // A mask of another length (a model that merges tokens) cannot say which ones count.
                let weights = mask
                    .as_ref()
                    .map(|mask| {
                        mask.get(i * sequence..(i + 1) * sequence)
                            .filter(|_| mask.len() == n * sequence)
                            .ok_or_else(wrong)
                    })
                    .transpose()?;
                Ok(mean(item, dim, weights))
            })
            .collect::<Result<_, EmbedError>>()?,
        _ => return Err(wrong()),
    };
    match options.model.dims {
        Some(dims) if dims > pooled[0].len() => Err(EmbedError::Dims {
            path: path.into(),
            dims,
            dim: pooled[0].len(),
        }),
        Some(dims) => Ok(pooled.into_iter().map(|row| row[..dims].to_vec()).collect()),
        None => Ok(pooled),
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

/// The model's inputs for these rows, and the attention mask, when there is one, for pooling.
fn batch(
    specs: &[TensorSpec],
    resolved: &Resolved,
    rows: &[&Row],
) -> (Vec<BatchInput>, Option<Vec<i64>>) {
    match &resolved.inputs {
        Inputs::Image { name, .. } => {
            let values = rows.iter().flat_map(|row| match row {
                Row::Image(pixels) => pixels.as_slice(),
                Row::Tokens(_) | Row::Tensor(_) => &[],
            });
            let values: Vec<f32> = values.copied().collect();
            let mut shape: Vec<usize> = image_shape(resolved);
            shape.insert(0, rows.len());
            (
                vec![BatchInput {
                    name: name.clone(),
                    shape,
                    values: Values::F32(values),
                }],
                None,
            )
        }
        Inputs::Text {
            tokens,
            length: fixed,
        } => {
            let ids: Vec<&[i64]> = rows
                .iter()
                .map(|row| match row {
                    Row::Tokens(ids) => ids.as_slice(),
                    Row::Image(_) | Row::Tensor(_) => &[],
                })
                .collect();
            let longest = ids.iter().map(|ids| ids.len()).max().unwrap_or(0);
            let length = fixed.unwrap_or(longest.max(1));
            let padded = |value: &dyn Fn(&[i64], usize) -> i64| -> Vec<i64> {
                ids.iter()
                    .flat_map(|ids| (0..length).map(|t| value(ids, t)))
                    .collect()
            };
            let mask = padded(&|ids, t| i64::from(t < ids.len()));
            let inputs = specs
                .iter()
                .map(|spec| {
                    let values = match spec.name.as_str() {
                        "input_ids" => {
                            padded(&|ids, t| ids.get(t).copied().unwrap_or(tokens.pad_id))
                        }
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
            (inputs, Some(mask))
        }
        Inputs::Tensors(tensors) => tensor_batch(specs, tensors, rows),
    }
}

/// `token_type_ids` are zeros, `position_ids` a range.
fn derived(name: &str, n: usize, length: usize) -> Vec<i64> {
    let position = |t: usize| if name == "position_ids" { t as i64 } else { 0 };
    (0..n).flat_map(|_| (0..length).map(position)).collect()
}

fn image_shape(resolved: &Resolved) -> Vec<usize> {
    match &resolved.inputs {
        Inputs::Image {
            height,
            width,
            preprocess,
            ..
        } => {
            let (height, width) = (*height as usize, *width as usize);
            match preprocess.layout {
                crate::config::Layout::Nchw => vec![3, height, width],
                crate::config::Layout::Nhwc => vec![height, width, 3],
            }
        }
        Inputs::Text { .. } | Inputs::Tensors(_) => Vec::new(),
    }
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
