//! ONNX Runtime: finds or installs the library, and opens models on the chosen execution provider.

mod device;
mod error;
mod gpu;
mod install;
mod locate;
mod score_graph;
mod version;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{CPU, CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use serde::{Deserialize, Serialize};

pub use device::Device;
pub use error::{RuntimeError, unset_variables};
pub use install::{VERSION, install, installed};
pub use locate::{default_cache_dir, locate};
pub use score_graph::ScoreGraph;

use locate::Machine;
use version::{is_cut_short, version_of};

/// Oldest library that has the C API version this build asks for.
pub const OLDEST_VERSION: &str = "1.20";

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
    /// Folder of the cache; `None`: none is known, so nothing is looked for there nor installed.
    pub cache_dir: Option<PathBuf>,
    /// Whether the runtime's own warnings are shown.
    pub verbose: bool,
}

/// The loaded library and where models run.
#[derive(Debug)]
pub struct Runtime {
    /// The library.
    pub library: PathBuf,
    /// Its version, `1.minor.patch`.
    pub version: String,
    /// How it was found.
    pub found: LibrarySource,
    /// Where models run.
    pub device: Device,
    /// Threads of one operator.
    pub threads: usize,
    environment: Environment,
    has_nvidia_driver: bool,
}

/// A model that is ready to run.
#[derive(Debug)]
pub struct OpenedSession {
    /// ort's session.
    pub session: Session,
    /// The execution provider in use, as ONNX Runtime names it, with the device's number:
    /// `CPUExecutionProvider`, `CUDAExecutionProvider:0`; with ` in TF32` where f32 is rounded to that.
    pub provider: String,
    /// With [`Device::Auto`]: why a GPU that is there, or that the library was built for, is not used.
    pub fallback: Option<String>,
}

/// The library of this process: ONNX Runtime can be loaded once.
struct Loaded {
    library: PathBuf,
    version: String,
    found: LibrarySource,
    environment: Environment,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

impl Runtime {
    /// Finds or installs the library and loads it; what the user should know goes to `notify`, one line each.
    ///
    /// A process loads one library: a later call gets the same one, without a search unless it names one.
    ///
    /// # Errors
    /// No library and none to be had, one that cannot be loaded, another one named after the first call.
    pub fn init(options: &RuntimeOptions, notify: &dyn Fn(&str)) -> Result<Self, RuntimeError> {
        let machine = Machine::this();
        // A panic while loading leaves `None` or a whole value.
        let mut slot = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match slot.take() {
            None => load(options, &machine, notify)?,
            Some(loaded) => loaded,
        };
        let loaded = slot.insert(loaded);
        if options.onnxruntime.is_some() {
            let named = locate::search(options, &machine)?.found;
            if let Some((asked, _)) = named.filter(|(asked, _)| *asked != loaded.library) {
                return Err(RuntimeError::OtherLoaded {
                    asked,
                    loaded: loaded.library.clone(),
                });
            }
        }
        loaded.environment.set_log_level(if options.verbose {
            LogLevel::Warning
        } else {
            LogLevel::Error
        });
        Ok(Self {
            library: loaded.library.clone(),
            version: loaded.version.clone(),
            found: loaded.found,
            device: options.device,
            threads: options.threads,
            environment: loaded.environment.clone(),
            has_nvidia_driver: gpu::has_driver(&machine),
        })
    }

    /// The execution providers that the library was built with, of those this build can use. Whether the
    /// machine has what they need shows when a session is opened.
    pub fn providers(&self) -> Vec<&'static str> {
        [
            (TensorRT::NAME, TensorRT::is_available()),
            (CUDA::NAME, CUDA::is_available()),
            (CPU::NAME, CPU::is_available()),
        ]
        .into_iter()
        .filter_map(|(name, available)| available.unwrap_or(false).then_some(name))
        .collect()
    }

    /// Opens a model: all optimisations, the device's provider, no spinning threads (decoding shares the
    /// cores).
    ///
    /// # Errors
    /// A model that is not there, is damaged or has unknown operators; an explicit device that does not start.
    pub fn open(&self, model: &Path) -> Result<OpenedSession, RuntimeError> {
        self.open_on(self.device, &Source::File(model))
    }

    /// Opens the graph on which long passes over scores begin. Its shapes change from run to run and TensorRT builds an engine
    /// for each, so it runs on CUDA where models run on that.
    ///
    /// # Errors
    /// An explicit device that does not start.
    pub fn score_graph(&self) -> Result<ScoreGraph, RuntimeError> {
        let device = match self.device {
            Device::TensorRt(number) => Device::Cuda(number),
            device => device,
        };
        let opened = self.open_on(device, &Source::Bytes(&score_graph::model()))?;
        Ok(ScoreGraph::new(opened.session, opened.provider))
    }

    /// Whether anything would be tried on a GPU.
    pub fn tries_gpu(&self) -> bool {
        self.device.gpu().is_some() && self.no_gpu().is_none()
    }

    /// As the function of that name, for this library and machine; only [`Device::Auto`] asks.
    fn no_gpu(&self) -> Option<Option<String>> {
        let built_with_cuda = || CUDA::is_available().unwrap_or(false);
        let asks = self.device == Device::Auto;
        asks.then(|| no_gpu(built_with_cuda(), self.has_nvidia_driver))
            .flatten()
    }

    fn open_on(&self, device: Device, source: &Source<'_>) -> Result<OpenedSession, RuntimeError> {
        let Some(gpu) = device.gpu() else {
            return self.open_on_cpu(source, None);
        };
        if let Some(fallback) = self.no_gpu() {
            return self.open_on_cpu(source, fallback);
        }
        match self.session(source, &gpu.providers) {
            Ok(session) => Ok(OpenedSession {
                session,
                provider: gpu.name,
                fallback: None,
            }),
            Err(cause) => {
                let cause = first_line(&cause.to_string(), source.path());
                // A model that the CPU cannot open either is at fault itself.
                let on_cpu = self.open_on_cpu(source, Some(cause.clone()))?;
                match self.device {
                    Device::Auto => Ok(on_cpu),
                    device => Err(RuntimeError::Device { device, cause }),
                }
            }
        }
    }

    fn open_on_cpu(
        &self,
        source: &Source<'_>,
        fallback: Option<String>,
    ) -> Result<OpenedSession, RuntimeError> {
        let session = self
            .session(source, &[])
            .map_err(|error| RuntimeError::Model {
                path: source.path().into(),
                version: self.version.clone(),
                cause: first_line(&error.to_string(), source.path()),
            })?;
        Ok(OpenedSession {
            session,
            provider: CPU::NAME.into(),
            fallback,
        })
    }

    fn session(
        &self,
        source: &Source<'_>,
        providers: &[ExecutionProviderDispatch],
    ) -> Result<Session, ort::Error> {
        let mut builder = Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            .with_intra_op_spinning(false)?
            // Without it the products of u8 and i8 saturate on CPUs that have AVX2 but no VNNI: an int8 model then
            // retrieves worse there, and a verdict would depend on the machine.
            .with_precise_qmm()?
            .with_execution_providers(providers)?;
        match source {
            Source::File(path) => builder.commit_from_file(path),
            Source::Bytes(bytes) => builder.commit_from_memory(bytes),
        }
    }
}

/// Where a model lies.
enum Source<'a> {
    File(&'a Path),
    Bytes(&'a [u8]),
}

impl Source<'_> {
    /// What errors name.
    fn path(&self) -> &Path {
        match self {
            Source::File(path) => path,
            Source::Bytes(_) => Path::new("the graph of scores"),
        }
    }
}

/// What a session is told beside provider and threads, for the cache: embeddings made under other settings may
/// differ.
pub const SESSION_SETTINGS: &str = "all optimisations; precise quantised products";

/// Why [`Device::Auto`] need not try CUDA, and what of it the user should know: nothing when neither the
/// library nor the machine is made for it.
fn no_gpu(built_with_cuda: bool, has_nvidia_driver: bool) -> Option<Option<String>> {
    match (built_with_cuda, has_nvidia_driver) {
        (true, true) => None,
        (true, false) => Some(Some("no NVIDIA driver was found".into())),
        (false, true) => Some(Some(
            "the library has no CUDA provider; `compat-audit runtime install --gpu` gets one that has".into(),
        )),
        (false, false) => Some(None),
    }
}

/// Refuses a library that would kill the process when it is loaded.
fn refuse_cut_short(library: &Path, found: LibrarySource) -> Result<(), RuntimeError> {
    // What cannot be read is left to the loader, which says why.
    if is_cut_short(library).unwrap_or(false) {
        return Err(RuntimeError::Load {
            path: library.into(),
            found,
            cause: "the file is cut short".into(),
        });
    }
    Ok(())
}

/// The library to load: found, or installed; one in the cache that is cut short is installed again.
fn library_for(
    options: &RuntimeOptions,
    machine: &Machine,
    notify: &dyn Fn(&str),
) -> Result<(PathBuf, LibrarySource), RuntimeError> {
    let search = locate::search(options, machine)?;
    search.passed_over.iter().for_each(|line| notify(line));
    let mut gpu = false;
    if let Some((library, found)) = search.found {
        match refuse_cut_short(&library, found) {
            Ok(()) => return Ok((library, found)),
            Err(error) if found != LibrarySource::Cache || options.offline => return Err(error),
            Err(error) => notify(&format!("note: {error}")),
        }
        gpu = locate::is_gpu_build(&library);
    }
    if options.offline {
        return Err(RuntimeError::Offline);
    }
    let cache = options.cache_dir.as_deref();
    let cache = cache.ok_or(RuntimeError::NoCacheDir)?;
    Ok((install(cache, gpu, notify)?, LibrarySource::Installed))
}

fn load(
    options: &RuntimeOptions,
    machine: &Machine,
    notify: &dyn Fn(&str),
) -> Result<Loaded, RuntimeError> {
    let (library, found) = library_for(options, machine, notify)?;
    let failed = |cause: String| RuntimeError::Load {
        path: library.clone(),
        found,
        cause,
    };
    // Unlike `ort::init`, this returns the loader's errors.
    let builder = ort::init_from(&library).map_err(|error| match error {
        ort::LoadDynamicError::BadVersion { version_str, .. } => RuntimeError::TooOld {
            path: library.clone(),
            found,
            version: version_str,
        },
        ort::LoadDynamicError::Dlopen { error, .. } => failed(with_sources(&error)),
        other => failed(other.to_string()),
    })?;
    let environment = builder
        .with_name("compat-audit")
        .with_telemetry(false)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let version = version_of(&library).map_err(|error| failed(error.to_string()))?;
    Ok(Loaded {
        library,
        version,
        found,
        environment,
    })
}

/// An error with its causes: the loader's own words stand in the last one ("invalid ELF header").
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// The runtime's messages run over several lines and begin with the path, which the error names already.
fn first_line(message: &str, model: &Path) -> String {
    let path = format!("Load model from {} failed:", model.display());
    let message = message.trim_start_matches(&path);
    message.lines().next().unwrap_or_default().trim().to_owned()
}

/// How the unit tests look for the library: as a user's first run would, in this cache.
#[cfg(test)]
pub(crate) fn test_options(cache_dir: &Path) -> RuntimeOptions {
    RuntimeOptions {
        onnxruntime: None,
        offline: false,
        device: Device::Cpu,
        threads: 2,
        cache_dir: Some(cache_dir.into()),
        verbose: false,
    }
}

/// The library that all unit tests of this process share, installed into the user's cache if none is there.
#[cfg(test)]
pub(crate) fn test_runtime() -> Runtime {
    let cache = default_cache_dir().expect("HOME is set");
    Runtime::init(&test_options(&cache), &|_| ()).expect("found or installed")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/data/emoji/old.onnx");

    /// A process loads one library, so a test that needs its own runs itself again in a child.
    const CHILD_LIBRARY: &str = "COMPAT_AUDIT_TEST_LIBRARY";

    fn child(test: &str, library: &Path) -> String {
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(CHILD_LIBRARY, library)
            .output()
            .expect("it starts");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// In the child: loads the library, opens a model, says what came of it.
    fn open_in_child() -> Option<String> {
        let library = std::env::var_os(CHILD_LIBRARY)?;
        let options = RuntimeOptions {
            onnxruntime: Some(library.into()),
            ..test_options(Path::new("/nowhere"))
        };
        let opened = Runtime::init(&options, &|_| ()).and_then(|runtime| {
            let opened = runtime.open(Path::new(MODEL))?;
            Ok(format!("{} {}", runtime.version, opened.provider))
        });
        Some(opened.unwrap_or_else(|error| format!("{error}; {}", error.hint().expect("one"))))
    }

    #[test]
    fn sources_have_one_name_in_json() {
        let json = serde_json::to_string(&LibrarySource::BesideExecutable).expect("JSON");
        assert_eq!(json, "\"beside-executable\"");
    }

    #[test]
    fn offline_installs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = RuntimeOptions {
            offline: true,
            ..test_options(&folder.path().join("cache"))
        };
        let error = load(&options, &Machine::bare(), &|_| ())
            .err()
            .expect("nothing there");
        assert_eq!(
            error.to_string(),
            "ONNX Runtime is not on this machine, and --offline forbids installing it"
        );
        assert!(error.hint().expect("a hint").contains("--onnxruntime PATH"));
        assert!(!folder.path().join("cache").exists());
    }

    #[test]
    fn a_file_that_is_no_library_is_named_with_its_source() {
        if let Some(said) = open_in_child() {
            return println!("{said}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("libonnxruntime.so");
        std::fs::write(&library, "not a library").expect("written");
        let said = child(
            "runtime::tests::a_file_that_is_no_library_is_named_with_its_source",
            &library,
        );
        let expected = format!(
            "{}: cannot be loaded as ONNX Runtime (found by --onnxruntime): ",
            library.display()
        );
        assert!(said.contains(&expected), "{said}");
        assert!(
            said.contains("`compat-audit runtime install` gets"),
            "{said}"
        );
    }

    #[test]
    fn an_installed_library_opens_a_real_model() {
        if let Some(said) = open_in_child() {
            return println!("{said}");
        }
        let cache = tempfile::tempdir().expect("a folder");
        let library = install(cache.path(), false, &|_| ()).expect("installed");
        let said = child(
            "runtime::tests::an_installed_library_opens_a_real_model",
            &library,
        );
        assert!(
            said.contains(&format!("{VERSION} CPUExecutionProvider\n")),
            "{said}"
        );
    }

    #[test]
    fn a_second_call_gets_the_same_library_and_no_other() {
        let runtime = test_runtime();
        let mut options = test_options(Path::new("/nowhere"));
        let again = Runtime::init(&options, &|_| ()).expect("loaded already");
        assert_eq!(
            (&again.library, &again.version),
            (&runtime.library, &runtime.version)
        );
        options.onnxruntime = Some(MODEL.into());
        let error = Runtime::init(&options, &|_| ()).expect_err("another file");
        let expected = format!(
            "{MODEL}: cannot be loaded, this process has loaded {} already",
            runtime.library.display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_cpu_runs_a_real_model_without_a_fallback() {
        let runtime = test_runtime();
        assert!(version::minor(&runtime.version).expect("1.minor") >= 20);
        assert_eq!(runtime.providers().last(), Some(&"CPUExecutionProvider"));
        let opened = runtime.open(Path::new(MODEL)).expect("opened");
        assert_eq!(opened.provider, "CPUExecutionProvider");
        assert_eq!(opened.fallback, None);
        assert_eq!(opened.session.inputs().len(), 1);
    }

    #[test]
    fn auto_says_why_a_gpu_is_not_used_and_only_where_there_could_be_one() {
        assert_eq!(no_gpu(true, true), None);
        assert_eq!(no_gpu(false, false), Some(None));
        let said = |built, driver| no_gpu(built, driver).flatten().expect("a reason");
        assert!(said(true, false).contains("no NVIDIA driver"));
        assert!(said(false, true).contains("no CUDA provider"));
    }

    /// A CPU build refuses CUDA; a GPU build without a usable device does too.
    #[test]
    fn a_device_that_does_not_start_is_not_the_model_s_fault() {
        let mut runtime = test_runtime();
        // A device number that no machine has.
        runtime.device = Device::Cuda(u32::MAX);
        let error = runtime.open(Path::new(MODEL)).expect_err("no such device");
        let RuntimeError::Device { device, cause } = &error else {
            panic!("{error}");
        };
        assert_eq!(*device, runtime.device);
        assert!(!cause.is_empty());
        assert!(error.hint().expect("a hint").contains("--device auto"));
    }

    fn model_error(name: &str, bytes: &[u8]) -> RuntimeError {
        let folder = tempfile::tempdir().expect("a folder");
        let model = folder.path().join(name);
        std::fs::write(&model, bytes).expect("written");
        let error = test_runtime().open(&model).expect_err("no model");
        let expected = format!("{}: ONNX Runtime ", model.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        error
    }

    #[test]
    fn a_corrupt_model_is_named() {
        let whole = std::fs::read(MODEL).expect("readable");
        for bytes in [&whole[..whole.len() / 2], b"version https://git-lfs"] {
            let error = model_error("h\u{e4}lfte.onnx", bytes);
            assert!(
                error
                    .to_string()
                    .ends_with("cannot open the model: Protobuf parsing failed."),
                "{error}"
            );
            assert!(error.hint().expect("a hint").contains("cut short"));
        }
    }

    #[test]
    fn a_model_that_is_not_there_is_named() {
        let error = test_runtime()
            .open(Path::new("/nowhere/a.onnx"))
            .expect_err("missing");
        assert!(
            error.to_string().starts_with("/nowhere/a.onnx: "),
            "{error}"
        );
    }

    /// One length-delimited protobuf field.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).expect("short");
        [&[number << 3 | 2, length], bytes].concat()
    }

    #[test]
    fn an_unknown_operator_is_named() {
        // onnx.proto: a float tensor (TypeProto.tensor_type.elem_type = 1), `y = NoSuchOperator(x)`, opset 13,
        // in ONNX's own domain and in another's.
        let float = field(2, &field(1, &[1 << 3, 1]));
        let value = |name: &str| [field(1, name.as_bytes()), float.clone()].concat();
        for domain in ["", "com.example"] {
            let node = [
                field(1, b"x"),
                field(2, b"y"),
                field(4, b"NoSuchOperator"),
                field(7, domain.as_bytes()),
            ]
            .concat();
            let graph = [
                field(1, &node),
                field(2, b"graph"),
                field(11, &value("x")),
                field(12, &value("y")),
            ]
            .concat();
            let opset = [field(1, domain.as_bytes()), vec![2 << 3, 13]].concat();
            let model = [vec![1 << 3, 8], field(7, &graph), field(8, &opset)].concat();
            let error = model_error("unknown.onnx", &model);
            assert!(error.to_string().contains("NoSuchOperator"), "{error}");
            let hint = error.hint().expect("a hint");
            assert!(
                hint.contains("an operator that this runtime lacks"),
                "{error}; {hint}"
            );
        }
    }
}
