//! Why no model can be run, in the user's words.

use std::path::PathBuf;

use super::{Device, LibrarySource, OLDEST_VERSION, VERSION};

/// Why no model can be run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A library that was named is not there.
    #[error("{}: no ONNX Runtime library there (named by {found})", path.display())]
    NotThere {
        /// The path as it was given.
        path: PathBuf,
        /// Who named it.
        found: LibrarySource,
    },
    /// The file is no usable library.
    #[error("{}: cannot be loaded as ONNX Runtime (found by {found}): {cause}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// How it was found.
        found: LibrarySource,
        /// The loader's words.
        cause: String,
    },
    /// The library lacks the C API version that this build asks for.
    #[error(
        "{}: ONNX Runtime {version} is too old (found by {found}), expected {OLDEST_VERSION} or newer",
        path.display()
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// How it was found.
        found: LibrarySource,
        /// What the library says.
        version: String,
    },
    /// A process holds one library, and another one was asked for.
    #[error("{}: cannot be loaded, this process has loaded {} already", asked.display(), loaded.display())]
    OtherLoaded {
        /// The library of this call.
        asked: PathBuf,
        /// The library of the first call.
        loaded: PathBuf,
    },
    /// No library, and none may be installed.
    #[error("ONNX Runtime is not on this machine, and --offline forbids installing it")]
    Offline,
    /// No library, and no folder to install one into.
    #[error(
        "ONNX Runtime is not on this machine, and there is no folder to install it into: {} set",
        unset_variables()
    )]
    NoCacheDir,
    /// No Python with pip.
    #[error(
        "ONNX Runtime is not on this machine, and there is no pip to install it with ({tried})"
    )]
    NoPip {
        /// Each command that was tried and what it said.
        tried: String,
    },
    /// pip failed.
    #[error("ONNX Runtime cannot be installed: `{command}` failed: {cause}")]
    Pip {
        /// The command line.
        command: String,
        /// The last of pip's errors.
        cause: String,
    },
    /// No build is pinned for this platform.
    #[error("no ONNX Runtime {VERSION} build is published for {platform}")]
    Platform {
        /// `os-arch`
        platform: String,
    },
    /// The wheel is not the pinned one.
    #[error("{wheel}: SHA-256 is {found}, expected {expected}")]
    Checksum {
        /// The wheel's file name.
        wheel: String,
        /// Pinned in this build.
        expected: String,
        /// Of the file that pip got.
        found: String,
    },
    /// The wheel cannot be unpacked.
    #[error("{wheel}: cannot take the library out: {cause}")]
    Wheel {
        /// The wheel's file name.
        wheel: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A file of the cache cannot be written or read.
    #[error("{}: ONNX Runtime cannot be installed there: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// `runtime install --gpu` and something is missing.
    #[error("no GPU build of ONNX Runtime fits this machine: {missing}")]
    Gpu {
        /// What is missing.
        missing: String,
    },
    /// The provider that was asked for does not start.
    #[error("--device {device}: {cause}")]
    Device {
        /// As asked for.
        device: Device,
        /// The runtime's words.
        cause: String,
    },
    /// A model cannot be opened.
    #[error("{}: ONNX Runtime {version} cannot open the model: {cause}", path.display())]
    Model {
        /// The model.
        path: PathBuf,
        /// The version of the library.
        version: String,
        /// The runtime's words.
        cause: String,
    },
}

impl RuntimeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            RuntimeError::NotThere { .. } => {
                "give the library itself (libonnxruntime.so, .dylib, onnxruntime.dll) or its folder".into()
            }
            RuntimeError::Load { .. } | RuntimeError::TooOld { .. } => format!(
                "ONNX Runtime {OLDEST_VERSION} or newer, built for this machine, is needed; \
                 `compat-audit runtime install` gets {VERSION}"
            ),
            RuntimeError::OtherLoaded { .. } => "one process can use one library; start another".into(),
            RuntimeError::Offline => remedies("run again without --offline, with Python 3 and pip"),
            RuntimeError::NoPip { .. } => remedies("install Python 3 with pip"),
            RuntimeError::Pip { .. } => remedies("see that pip reaches its index (`pip config list`)"),
            RuntimeError::Platform { .. } => remedies("build ONNX Runtime for this platform"),
            RuntimeError::Checksum { .. } | RuntimeError::Wheel { .. } => {
                "the download is damaged or is not the published file: `pip cache purge`, check pip's index \
                 (`pip config list`), and try again"
                    .into()
            }
            RuntimeError::NoCacheDir => remedies("name a folder with --cache-dir DIR"),
            RuntimeError::Io { .. } => "--cache-dir DIR names another folder".into(),
            RuntimeError::Gpu { .. } => {
                "the CPU build needs none of it: `compat-audit runtime install`".into()
            }
            RuntimeError::Device { device, .. } => format!(
                "`compat-audit runtime install --gpu` gets a GPU build; {} and cuDNN 9 must be where the loader \
                 looks (LD_LIBRARY_PATH); --device auto falls back to the CPU",
                match device {
                    Device::TensorRt(_) => "CUDA, TensorRT 10",
                    Device::Auto | Device::Cpu | Device::Cuda(_) => "CUDA",
                }
            ),
            RuntimeError::Model { cause, .. } => model_hint(cause).into(),
        };
        Some(text)
    }
}

/// The variables that name the place of caches, and are not set.
pub fn unset_variables() -> &'static str {
    if cfg!(windows) {
        "LOCALAPPDATA is not"
    } else {
        "neither HOME nor XDG_CACHE_HOME is"
    }
}

/// The three ways to a library, one a line.
fn remedies(first: &str) -> String {
    format!(
        "one of three helps:\n\
         1. {first}\n\
         2. name a library: --onnxruntime PATH, or ORT_DYLIB_PATH in the environment\n\
         3. run `compat-audit runtime install` on a connected machine of this kind and copy its cache folder \
         here (--cache-dir)"
    )
}

/// The runtime has one error code for most faults of a model, so its words decide.
fn model_hint(cause: &str) -> &'static str {
    if cause.contains("Protobuf parsing failed") {
        "the file is cut short, or is no ONNX model (a Git LFS pointer is a small text file)"
    } else if [
        "No Op registered for",
        "is not a registered function/op",
        "Could not find an implementation for",
    ]
    .iter()
    .any(|words| cause.contains(words))
    {
        "the model has an operator that this runtime lacks: export it with standard operators, \
         or name a runtime that has it (--onnxruntime PATH)"
    } else {
        "check that the file is a complete ONNX model and that the files it names lie beside it"
    }
}
