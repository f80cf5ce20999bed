//! Where models run, and the execution providers that run them there.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};

/// Where models run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// A GPU when the library and the machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(u32),
    /// A CUDA device by number, through TensorRT.
    TensorRt(u32),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text
            .split_once(':')
            .map_or((text, None), |(name, n)| (name, Some(n)));
        let wrong = || format!("expected auto, cpu, cuda[:N] or tensorrt[:N], found `{text}`");
        let number = number.map(str::parse).transpose().map_err(|_| wrong())?;
        match (name, number) {
            ("auto", None) => Ok(Device::Auto),
            ("cpu", None) => Ok(Device::Cpu),
            ("cuda", number) => Ok(Device::Cuda(number.unwrap_or(0))),
            ("tensorrt", number) => Ok(Device::TensorRt(number.unwrap_or(0))),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(n) => write!(f, "cuda:{n}"),
            Device::TensorRt(n) => write!(f, "tensorrt:{n}"),
        }
    }
}

/// What a session on a GPU is opened with.
pub(super) struct Gpu {
    /// As [`OpenedSession::provider`](super::OpenedSession::provider).
    pub name: String,
    /// The first takes what it can.
    pub providers: Vec<ExecutionProviderDispatch>,
}

impl Device {
    /// Whether it is a GPU that must start, not one that may.
    pub fn is_named_gpu(self) -> bool {
        matches!(self, Device::Cuda(_) | Device::TensorRt(_))
    }

    /// The GPU that models should run on, if any; the first one for [`Device::Auto`].
    pub(super) fn gpu(self) -> Option<Gpu> {
        let (device, is_tensorrt) = match self {
            Device::Cpu => return None,
            Device::Auto => (0, false),
            Device::Cuda(device) => (device, false),
            Device::TensorRt(device) => (device, true),
        };
        // A number beyond i32 names no device either way; the provider says so.
        let id = i32::try_from(device).unwrap_or(i32::MAX);
        // TensorFloat-32 is off: embeddings are f32, and CPU and GPU shall agree.
        let cuda = CUDA::default().with_device_id(id).with_tf32(false).build();
        let cuda = cuda.error_on_failure();
        Some(if is_tensorrt {
            let tensorrt = TensorRT::default().with_device_id(id).build();
            let variable = std::env::var_os(TF32_VARIABLE);
            Gpu {
                name: tensorrt_name(device, variable.as_deref()),
                // What TensorRT cannot run stays on the GPU.
                providers: vec![tensorrt.error_on_failure(), cuda],
            }
        } else {
            Gpu {
                name: format!("{}:{device}", CUDA::NAME),
                providers: vec![cuda],
            }
        })
    }
}

/// What forbids NVIDIA's libraries TensorFloat-32 when it is 0.
const TF32_VARIABLE: &str = "NVIDIA_TF32_OVERRIDE";

/// Says ` in TF32` where TensorRT may round the factors of f32 products to 10 bits: unless the variable forbids it, and ONNX Runtime
/// has no option for that (its issue 26029).
fn tensorrt_name(device: u32, variable: Option<&OsStr>) -> String {
    let is_forbidden = variable == Some(OsStr::new("0"));
    let note = if is_forbidden { "" } else { " in TF32" };
    format!("{}:{device}{note}", TensorRT::NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_parsed_and_printed() {
        for (text, device, printed) in [
            ("auto", Device::Auto, "auto"),
            ("cpu", Device::Cpu, "cpu"),
            ("cuda", Device::Cuda(0), "cuda:0"),
            ("cuda:1", Device::Cuda(1), "cuda:1"),
            ("tensorrt:0", Device::TensorRt(0), "tensorrt:0"),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), printed);
        }
        for wrong in [
            "gpu", "cpu:0", "auto:1", "cuda:", "cuda:-1", "cuda:x", "", "CUDA",
        ] {
            assert_eq!(
                wrong.parse::<Device>(),
                Err(format!(
                    "expected auto, cpu, cuda[:N] or tensorrt[:N], found `{wrong}`"
                ))
            );
        }
    }

    #[test]
    fn a_gpu_is_named_with_its_number_and_how_it_rounds() {
        let name = |device: Device| device.gpu().map(|gpu| (gpu.name, gpu.providers.len()));
        assert_eq!(name(Device::Cpu), None);
        assert_eq!(
            name(Device::Auto),
            Some(("CUDAExecutionProvider:0".into(), 1))
        );
        assert_eq!(
            name(Device::Cuda(3)),
            Some(("CUDAExecutionProvider:3".into(), 1))
        );
        assert_eq!(
            tensorrt_name(1, None),
            "TensorrtExecutionProvider:1 in TF32"
        );
        let named = |variable| tensorrt_name(0, Some(OsStr::new(variable)));
        assert_eq!(named("1"), "TensorrtExecutionProvider:0 in TF32");
        assert_eq!(named("0"), "TensorrtExecutionProvider:0");
    }
}
