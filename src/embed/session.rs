//! A model in ONNX Runtime: what it takes, what it gives, one batch at a time.

use std::fmt;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, TensorRef, ValueType};
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

    /// Runs one batch and hands the output's shape and values to `read`. Inputs of the element type that the model takes
    /// are lent to it, others are cast; an output of f32 is read where it lies.
    ///
    /// # Errors
    /// The runtime's own, with the model's path.
    pub fn run<T>(
        &mut self,
        inputs: &[BatchInput],
        output: &str,
        read: impl FnOnce(&[usize], &[f32]) -> T,
    ) -> Result<T, EmbedError> {
        let failed = |path: &Path, error: &dyn fmt::Display| EmbedError::Run {
            path: path.to_owned(),
            cause: error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for input in inputs {
            let wanted = self
                .session
                .inputs()
                .iter()
                .find(|outlet| outlet.name() == input.name)
                .and_then(|outlet| outlet.dtype().tensor_type());
            if let Some(value) = wanted.and_then(|wanted| input.values.misfit(wanted)) {
                let of_name = |spec: &&TensorSpec| spec.name == input.name;
                let filled = self.inputs.iter().find(of_name).cloned();
                return Err(EmbedError::ValueType {
                    path: self.path.clone(),
                    input: Box::new(filled.expect("only the model's inputs are filled")),
                    value,
                });
            }
            let value = tensor(input, wanted).map_err(|error| failed(&self.path, &error))?;
            values.push((&input.name, value));
        }
        let outputs = self
            .session
            .run(values)
            .map_err(|error| failed(&self.path, &error))?;
        extract(&outputs[output], read).map_err(|error| failed(&self.path, &error))
    }
}

/// The batch as the element type that the model wants.
fn tensor(
    input: &BatchInput,
    wanted: Option<TensorElementType>,
) -> ort::Result<SessionInputValue<'_>> {
    let BatchInput { shape, values, .. } = input;
    let shape = shape.clone();
    Ok(match (wanted, values) {
        (Some(TensorElementType::Float32), Values::F32(values)) => {
            return Ok(TensorRef::from_array_view((shape, values.as_slice()))?.into());
        }
        (Some(TensorElementType::Int64), Values::I64(values)) => {
            return Ok(TensorRef::from_array_view((shape, values.as_slice()))?.into());
        }
        (Some(TensorElementType::Uint8), Values::U8(values)) => {
            return Ok(TensorRef::from_array_view((shape, values.as_slice()))?.into());
        }
        (Some(TensorElementType::Float16), values) => Tensor::from_array((
            shape,
            values.cast(f16::from_f32, |v| f16::from_f32(v as f32)),
        ))?
        .into_dyn(),
        (Some(TensorElementType::Float64), values) => {
            Tensor::from_array((shape, values.cast(f64::from, |v| v as f64)))?.into_dyn()
        }
        (Some(TensorElementType::Int32), values) => {
            Tensor::from_array((shape, values.cast(|v| v as i32, |v| v as i32)))?.into_dyn()
        }
        (Some(TensorElementType::Int8), values) => {
            Tensor::from_array((shape, values.cast(|v| v as i8, |v| v as i8)))?.into_dyn()
        }
        (Some(TensorElementType::Bool), values) => {
            Tensor::from_array((shape, values.cast(|v| v != 0.0, |v| v != 0)))?.into_dyn()
        }
        (Some(TensorElementType::Uint8), values) => {
            Tensor::from_array((shape, values.cast(|v| v as u8, |v| v as u8)))?.into_dyn()
        }
        (Some(TensorElementType::Int64), values) => {
            Tensor::from_array((shape, values.cast(|v| v as i64, |v| v)))?.into_dyn()
        }
        (Some(TensorElementType::Int16), values) => {
            Tensor::from_array((shape, values.cast(|v| v as i16, |v| v as i16)))?.into_dyn()
        }
        (Some(TensorElementType::Uint16), values) => {
            Tensor::from_array((shape, values.cast(|v| v as u16, |v| v as u16)))?.into_dyn()
        }
        (Some(TensorElementType::Uint32), values) => {
            Tensor::from_array((shape, values.cast(|v| v as u32, |v| v as u32)))?.into_dyn()
        }
        (Some(TensorElementType::Bfloat16), values) => Tensor::from_array((
            shape,
            values.cast(bf16::from_f32, |v| bf16::from_f32(v as f32)),
        ))?
        .into_dyn(),
        (_, values) => Tensor::from_array((shape, values.cast(|v| v, |v| v as f32)))?.into_dyn(),
    }
    .into())
}

impl Values {
    /// The first value that an integer type would change: a fraction, or one out of its range.
    fn misfit(&self, wanted: TensorElementType) -> Option<f64> {
        match (self, wanted) {
            (Values::I64(_), TensorElementType::Int64)
            | (Values::U8(_), TensorElementType::Uint8) => return None,
            _ => {}
        }
        let (low, high) = match wanted {
            TensorElementType::Uint8 => (0.0, f64::from(u8::MAX)),
            TensorElementType::Int8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
            TensorElementType::Int16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            TensorElementType::Uint16 => (0.0, f64::from(u16::MAX)),
            TensorElementType::Uint32 => (0.0, f64::from(u32::MAX)),
            TensorElementType::Int32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            TensorElementType::Int64 => (i64::MIN as f64, i64::MAX as f64),
            _ => return None,
        };
        let fits = |value: f64| value.fract() == 0.0 && (low..=high).contains(&value);
        match self {
            Values::F32(values) => values.iter().map(|&v| f64::from(v)).find(|&v| !fits(v)),
            Values::I64(values) => values.iter().map(|&v| v as f64).find(|&v| !fits(v)),
            Values::U8(values) => values.iter().map(|&v| f64::from(v)).find(|&v| !fits(v)),
        }
    }

    /// Every value by one of the two casts; bytes go through the integer one.
    fn cast<T>(&self, float: impl Fn(f32) -> T, integer: impl Fn(i64) -> T) -> Vec<T> {
        match self {
            Values::F32(values) => values.iter().map(|&v| float(v)).collect(),
            Values::I64(values) => values.iter().map(|&v| integer(v)).collect(),
            Values::U8(values) => values.iter().map(|&v| integer(i64::from(v))).collect(),
        }
    }
}

fn extract<T>(value: &DynValue, read: impl FnOnce(&[usize], &[f32]) -> T) -> ort::Result<T> {
    let dims = |shape: &[i64]| -> Vec<usize> { shape.iter().map(|&d| d as usize).collect() };
    Ok(match value.dtype().tensor_type() {
        Some(TensorElementType::Float16) => {
            let (shape, values) = value.try_extract_tensor::<f16>()?;
            let values: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
            read(&dims(shape), &values)
        }
        Some(TensorElementType::Bfloat16) => {
            let (shape, values) = value.try_extract_tensor::<bf16>()?;
            let values: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
            read(&dims(shape), &values)
        }
        Some(TensorElementType::Float64) => {
            let (shape, values) = value.try_extract_tensor::<f64>()?;
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            read(&dims(shape), &values)
        }
        _ => {
            let (shape, values) = value.try_extract_tensor::<f32>()?;
            read(&dims(shape), values)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_types_refuse_what_they_would_change() {
        use TensorElementType::{Float16, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32};
        let floats = Values::F32(vec![3.0, 0.5]);
        for integer in [Uint8, Int8, Uint16, Int16, Uint32, Int32, Int64] {
            assert_eq!(floats.misfit(integer), Some(0.5), "{integer:?}");
        }
        assert_eq!(floats.misfit(Float16), None);
        assert_eq!(
            Values::F32(vec![f32::NAN]).misfit(Int64).map(f64::is_nan),
            Some(true)
        );
        let wide = Values::I64(vec![0, 255, 1 << 31]);
        assert_eq!(wide.misfit(Uint8), Some(2_147_483_648.0));
        assert_eq!(wide.misfit(Int32), Some(2_147_483_648.0));
        assert_eq!(wide.misfit(Int64), None);
        assert_eq!(wide.misfit(Uint32), None);
        assert_eq!(Values::I64(vec![40_000]).misfit(Int16), Some(40_000.0));
        assert_eq!(Values::I64(vec![40_000]).misfit(Uint16), None);
        assert_eq!(Values::U8(vec![127, 128]).misfit(Int8), Some(128.0));
    }
}
