//! A model in ONNX Runtime: what it takes, what it gives, one batch at a time.

use std::fmt;
use std::path::{Path, PathBuf};

use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};
use serde::Serialize;

use super::EmbedError;
use crate::runtime::Runtime;

/// A model's input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Element type, as ONNX Runtime names it in lower case (`float32`, `int64`).
    pub dtype: String,
    /// Shape; -1 is dynamic.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether it takes or gives floats, of any width.
    pub fn is_float(&self) -> bool {
        self.dtype.contains("float")
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape: Vec<String> = self
            .shape
            .iter()
            .map(|&d| if d < 0 { "?".into() } else { d.to_string() })
            .collect();
        write!(f, "{} {}[{}]", self.name, self.dtype, shape.join(", "))
    }
}

/// Values of one batch on the host.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Floats.
    F32(Vec<f32>),
    /// Integers.
    I64(Vec<i64>),
    /// Bytes.
    U8(Vec<u8>),
}

/// One input of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchInput {
    /// The model's name for it.
    pub name: String,
    /// Shape, the batch first.
    pub shape: Vec<usize>,
    /// Values, the last axis fastest.
    pub values: Values,
}

/// An opened model.
pub struct OnnxModel {
    path: PathBuf,
    session: Session,
    /// Execution provider in use.
    pub provider: String,
    /// Why it is not the preferred one.
    pub fallback: Option<String>,
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
}

impl OnnxModel {
    /// Opens a model.
    ///
    /// # Errors
    /// As [`Runtime::open`].
    pub fn open(runtime: &Runtime, path: &Path) -> Result<Self, EmbedError> {
        let opened = runtime.open(path)?;
        let spec = |name: &str, dtype: &ValueType| TensorSpec {
            name: name.to_owned(),
            dtype: dtype
                .tensor_type()
                .map_or("no tensor".into(), |ty| format!("{ty:?}").to_lowercase()),
            shape: dtype
                .tensor_shape()
                .map_or(Vec::new(), |shape| shape.to_vec()),
        };
        Ok(Self {
            path: path.to_owned(),
            inputs: opened
                .session
                .inputs()
                .iter()
                .map(|i| spec(i.name(), i.dtype()))
                .collect(),
            outputs: opened
                .session
                .outputs()
                .iter()
                .map(|o| spec(o.name(), o.dtype()))
                .collect(),
            provider: opened.provider,
            fallback: opened.fallback,
            session: opened.session,
        })
    }

    /// Runs one batch; casts inputs to what the model takes and the output to f32.
    ///
    /// Returns the output's shape and values.
    ///
    /// # Errors
    /// The runtime's own, with the model's path.
    pub fn run(
        &mut self,
        inputs: Vec<BatchInput>,
        output: &str,
    ) -> Result<(Vec<usize>, Vec<f32>), EmbedError> {
        let failed = |path: &Path, error: &dyn fmt::Display| EmbedError::Run {
            path: path.to_owned(),
            cause: error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        let mut values: Vec<(String, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for input in inputs {
            let wanted = self
                .session
                .inputs()
                .iter()
                .find(|outlet| outlet.name() == input.name)
                .and_then(|outlet| outlet.dtype().tensor_type());
            let name = input.name.clone();
            let value = tensor(input, wanted).map_err(|error| failed(&self.path, &error))?;
            values.push((name, value.into()));
        }
        let outputs = self
            .session
            .run(values)
            .map_err(|error| failed(&self.path, &error))?;
        let value = &outputs[output];
        extract(value).map_err(|error| failed(&self.path, &error))
    }
}

/// The batch as the element type that the model wants.
fn tensor(
    input: BatchInput,
    wanted: Option<TensorElementType>,
) -> Result<DynValue, Box<dyn std::error::Error>> {
    let BatchInput { shape, values, .. } = input;
    Ok(match wanted {
        Some(TensorElementType::Float16) => {
            Tensor::from_array((shape, values.floats(f16::from_f32)))?.into_dyn()
        }
        Some(TensorElementType::Float64) => {
            Tensor::from_array((shape, values.floats(f64::from)))?.into_dyn()
        }
        Some(TensorElementType::Int64) => {
            Tensor::from_array((shape, values.integers::<i64>()?))?.into_dyn()
        }
        Some(TensorElementType::Int32) => {
            Tensor::from_array((shape, values.integers::<i32>()?))?.into_dyn()
        }
        Some(TensorElementType::Int16) => {
            Tensor::from_array((shape, values.integers::<i16>()?))?.into_dyn()
        }
        Some(TensorElementType::Int8) => {
            Tensor::from_array((shape, values.integers::<i8>()?))?.into_dyn()
        }
        Some(TensorElementType::Uint8) => {
            Tensor::from_array((shape, values.integers::<u8>()?))?.into_dyn()
        }
        Some(TensorElementType::Bool) => {
            let flags: Vec<bool> = values.integers::<i64>()?.iter().map(|&v| v != 0).collect();
            Tensor::from_array((shape, flags))?.into_dyn()
        }
        // What else there is the runtime refuses, and says so.
        _ => Tensor::from_array((shape, values.floats(|v| v)))?.into_dyn(),
    })
}

impl Values {
    /// Every value as a float of another width.
    fn floats<T>(self, cast: impl Fn(f32) -> T) -> Vec<T> {
        match self {
            Values::F32(values) => values.into_iter().map(cast).collect(),
            Values::I64(values) => values.into_iter().map(|v| cast(v as f32)).collect(),
            Values::U8(values) => values.into_iter().map(|v| cast(f32::from(v))).collect(),
        }
    }

    /// Every value as an integer of another width; the pixels of a byte image come as whole floats.
    fn integers<T: TryFrom<i64>>(self) -> Result<Vec<T>, String> {
        let narrow = |v: i64| {
            let narrowed = T::try_from(v).ok();
            narrowed.ok_or_else(|| format!("the value {v} does not fit the model's input"))
        };
        match self {
            Values::F32(values) => values.into_iter().map(|v| narrow(v as i64)).collect(),
            Values::I64(values) => values.into_iter().map(narrow).collect(),
            Values::U8(values) => values.into_iter().map(|v| narrow(v.into())).collect(),
        }
    }
}

fn extract(value: &DynValue) -> ort::Result<(Vec<usize>, Vec<f32>)> {
    let dims = |shape: &[i64]| shape.iter().map(|&d| d as usize).collect();
    Ok(match value.dtype().tensor_type() {
        Some(TensorElementType::Float16) => {
            let (shape, values) = value.try_extract_tensor::<f16>()?;
            (dims(shape), values.iter().map(|v| v.to_f32()).collect())
        }
        Some(TensorElementType::Float64) => {
            let (shape, values) = value.try_extract_tensor::<f64>()?;
            (dims(shape), values.iter().map(|&v| v as f32).collect())
        }
        _ => {
            let (shape, values) = value.try_extract_tensor::<f32>()?;
            (dims(shape), values.to_vec())
        }
    })
}
