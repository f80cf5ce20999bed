//! ONNX Runtime: finds or installs the library, and opens models on the chosen execution provider.

mod install;
mod locate;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock};

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProviderDispatch, TensorRT};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use serde::{Deserialize, Serialize};

pub use install::{VERSION, install};
pub use locate::{default_cache_dir, locate};

/// Oldest library that has the C API version this build asks for.
pub const OLDEST_VERSION: &str = "1.20";

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

/// How the library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LibrarySource {
    /// `--onnxruntime`
    Flag,
    /// `ORT_DYLIB_PATH`
    Environment,
    /// Beside the executable.
    BesideExecutable,
    /// The user's cache.
    Cache,
    /// An installed Python package.
    Python,
    /// Just installed into the cache.
    Installed,
}

impl fmt::Display for LibrarySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LibrarySource::Flag => "--onnxruntime",
            LibrarySource::Environment => "ORT_DYLIB_PATH",
            LibrarySource::BesideExecutable => "beside the executable",
            LibrarySource::Cache => "the cache",
            LibrarySource::Python => "the Python package onnxruntime",
            LibrarySource::Installed => "just installed",
        })
    }
}

/// How to find and run the library.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeOptions {
    /// The library, or a folder that holds it.
    pub onnxruntime: Option<PathBuf>,
    /// Never install.
    pub offline: bool,
    /// Where models run.
    pub device: Device,
    /// Threads of one model.
    pub threads: usize,
    /// Folder of the cache.
    pub cache_dir: PathBuf,
    /// Whether the runtime's own warnings are shown.
    pub verbose: bool,
}

/// Why no model can be run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A library that was named is not there.
    #[error("{}: no ONNX Runtime library there (named by {found})", path.display())]
    NotThere {
        /// The path.
        path: PathBuf,
        /// Who named it.
        found: LibrarySource,
    },
    /// The file is no usable library.
    #[error("{}: cannot be loaded as ONNX Runtime (from {found}): {cause}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Who named it.
        found: LibrarySource,
        /// The loader's words.
        cause: String,
    },
    /// No library, and none may be installed.
    #[error("ONNX Runtime is not on this machine, and --offline forbids installing it")]
    Offline,
    /// pip is not there or failed.
    #[error("ONNX Runtime {version} cannot be installed: {cause}")]
    Pip {
        /// The version.
        version: String,
        /// What pip said.
        cause: String,
    },
    /// No build is pinned for this platform.
    #[error("no ONNX Runtime build is pinned for {platform}")]
    Platform {
        /// `os-arch`
        platform: String,
    },
    /// The wheel is not the pinned one.
    #[error("{}: SHA-256 is {found}, expected {expected}", path.display())]
    Checksum {
        /// The wheel.
        path: PathBuf,
        /// Pinned.
        expected: String,
        /// Computed.
        found: String,
    },
    /// Files of the cache cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// `--gpu` and something is missing.
    #[error("no GPU build can be installed: {missing}")]
    Gpu {
        /// What is missing.
        missing: String,
    },
    /// The provider asked for does not start.
    #[error("--device {device}: {cause}")]
    Device {
        /// As asked for.
        device: Device,
        /// The runtime's words.
        cause: String,
    },
    /// A model cannot be opened.
    #[error("{}: ONNX Runtime cannot open the model: {cause}", path.display())]
    Model {
        /// The model.
        path: PathBuf,
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
            RuntimeError::Load { .. } => format!(
                "ONNX Runtime {OLDEST_VERSION} or newer, built for this machine, is needed; `compat-audit runtime install` gets {VERSION}"
            ),
            RuntimeError::Offline | RuntimeError::Pip { .. } | RuntimeError::Platform { .. } => "\
one of three helps: install Python 3 with pip and run again; give the library with --onnxruntime PATH or \
ORT_DYLIB_PATH; or run `compat-audit runtime install` on a connected machine and copy its cache folder (--cache-dir)"
                .into(),
            RuntimeError::Checksum { .. } => {
                "the download is damaged or is not the pinned file; delete it and try again".into()
            }
            RuntimeError::Io { .. } => "--cache-dir names another folder".into(),
            RuntimeError::Gpu { .. } => "the CPU build needs nothing: `compat-audit runtime install`".into(),
            RuntimeError::Device { .. } => {
                "--device auto falls back to the CPU; `compat-audit runtime install --gpu` gets a GPU build".into()
            }
            RuntimeError::Model { .. } => {
                "check that the file is a complete ONNX model whose operators this runtime knows".into()
            }
        };
        Some(text)
    }
}

/// The loaded library and where models run. One a process: a second [`Runtime::init`] keeps the first library.
pub struct Runtime {
    /// The library.
    pub library: PathBuf,
    /// Its version.
    pub version: String,
    /// How it was found.
    pub found: LibrarySource,
    /// Where models run.
    pub device: Device,
    /// Threads of one model.
    pub threads: usize,
    environment: Environment,
}

/// A model that is ready to run.
pub struct OpenedSession {
    /// ort's session.
    pub session: Session,
    /// The execution provider in use.
    pub provider: String,
    /// Why it is not the one that `auto` would have preferred.
    pub fallback: Option<String>,
}

/// The library of this process.
struct Loaded {
    library: PathBuf,
    found: LibrarySource,
    environment: Environment,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Finds or installs the library and loads it; one line of an installation goes to `notify`.
    ///
    /// # Errors
    /// No library, or one that cannot be loaded.
    pub fn init(options: &RuntimeOptions, notify: &dyn Fn(&str)) -> Result<Self, RuntimeError> {
        let guard = LOADING.lock().expect("no thread panics while loading");
        let loaded = match LOADED.get() {
            Some(loaded) => loaded,
            None => {
                let loaded = load(options, notify)?;
                LOADED.get_or_init(|| loaded)
            }
        };
        drop(guard);
        Ok(Self {
            library: loaded.library.clone(),
            version: version_of(&loaded.library),
            found: loaded.found,
            device: options.device,
            threads: options.threads,
            environment: loaded.environment.clone(),
        })
    }

    /// Opens a model: all optimisations, the chosen provider, no spinning threads (decoding shares the cores).
    ///
    /// # Errors
    /// A model that is damaged or has unknown operators; an explicit device that does not start.
    pub fn open(&self, model: &Path) -> Result<OpenedSession, RuntimeError> {
        let cpu = |fallback| {
            self.commit(model, &[]).map(|session| OpenedSession {
                session,
                provider: "CPUExecutionProvider".into(),
                fallback,
            })
        };
        let model_error = |cause: String| RuntimeError::Model {
            path: model.into(),
            cause: one_line(&cause),
        };
        let explicit = |provider: ExecutionProviderDispatch, name: &str| {
            // Registered first without a model: a provider that does not start is not the model's fault.
            self.builder(std::slice::from_ref(&provider))
                .map_err(|cause| RuntimeError::Device {
                    device: self.device,
                    cause: one_line(&cause),
                })?;
            let session = self.commit(model, &[provider]).map_err(model_error)?;
            Ok(OpenedSession {
                session,
                provider: name.into(),
                fallback: None,
            })
        };
        match self.device {
            Device::Cpu => cpu(None).map_err(model_error),
            Device::Cuda(n) => explicit(cuda(n), "CUDAExecutionProvider"),
            Device::TensorRt(n) => explicit(tensorrt(n), "TensorrtExecutionProvider"),
            Device::Auto if !locate::has_nvidia_driver() => cpu(None).map_err(model_error),
            Device::Auto => match self.commit(model, &[cuda(0)]) {
                Ok(session) => Ok(OpenedSession {
                    session,
                    provider: "CUDAExecutionProvider".into(),
                    fallback: None,
                }),
                Err(cause) => cpu(Some(one_line(&cause))).map_err(model_error),
            },
        }
    }

    fn builder(
        &self,
        providers: &[ExecutionProviderDispatch],
    ) -> Result<ort::session::builder::SessionBuilder, String> {
        let text = |error: &dyn fmt::Display| error.to_string();
        Session::builder(&self.environment)
            .map_err(|e| text(&e))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|e| text(&e))?
            .with_intra_threads(self.threads)
            .map_err(|e| text(&e))?
            .with_intra_op_spinning(false)
            .map_err(|e| text(&e))?
            .with_execution_providers(providers)
            .map_err(|e| text(&e))
    }

    fn commit(
        &self,
        model: &Path,
        providers: &[ExecutionProviderDispatch],
    ) -> Result<Session, String> {
        self.builder(providers)?
            .commit_from_file(model)
            .map_err(|error| error.to_string())
    }
}

fn cuda(device: u32) -> ExecutionProviderDispatch {
    CUDA::default()
        .with_device_id(device as i32)
        .build()
        .error_on_failure()
}

fn tensorrt(device: u32) -> ExecutionProviderDispatch {
    TensorRT::default()
        .with_device_id(device as i32)
        .build()
        .error_on_failure()
}

fn load(options: &RuntimeOptions, notify: &dyn Fn(&str)) -> Result<Loaded, RuntimeError> {
    let (library, found) = match locate(options)? {
        Some(known) => known,
        None if options.offline => return Err(RuntimeError::Offline),
        None => (
            install(&options.cache_dir, false, notify)?,
            LibrarySource::Installed,
        ),
    };
    let failed = |cause: String| RuntimeError::Load {
        path: library.clone(),
        found,
        cause: one_line(&cause),
    };
    let builder = ort::init_from(&library).map_err(|error| failed(error.to_string()))?;
    let environment = builder
        .with_telemetry(false)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    environment.set_log_level(if options.verbose {
        ort::logging::LogLevel::Warning
    } else {
        ort::logging::LogLevel::Fatal
    });
    Ok(Loaded {
        library,
        found,
        environment,
    })
}

/// The version in the library's file name (`libonnxruntime.so.1.31.1`), else the one in its build information.
fn version_of(library: &Path) -> String {
    let name = library
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let version: &str = name
        .find(|c: char| c.is_ascii_digit())
        .map_or("", |start| &name[start..])
        .trim_end_matches(|c: char| !digits(c))
        .trim_end_matches('.');
    if version.contains('.') {
        return version
            .trim_end_matches(".dylib")
            .trim_end_matches('.')
            .to_owned();
    }
    // `git-branch=rel-1.31.1, ...`
    ort::info()
        .split("rel-")
        .nth(1)
        .and_then(|rest| rest.split(|c| !digits(c)).next())
        .unwrap_or("unknown")
        .to_owned()
}

/// The runtime's messages run over several lines and repeat themselves; the first line says it.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}
