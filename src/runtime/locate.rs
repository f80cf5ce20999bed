//! Where the library may be.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::install::{Wheel, platform};
use super::version::{minor, version_of};
use super::{
    Device, LibrarySource, OLDEST_VERSION, RuntimeError, RuntimeOptions, refuse_cut_short,
};

/// Minor versions of an installed Python package that are used unasked: from the C API that this build
/// asks for to the newest one it was run with.
const PYTHON_MINORS: std::ops::RangeInclusive<u32> = 20..=32;

/// What the search looks at beside the options; tests put their own here.
#[derive(Debug)]
pub struct Machine {
    /// `ORT_DYLIB_PATH`, when it is not empty.
    pub dylib_path: Option<OsString>,
    /// Folder of the executable.
    pub executable_folder: Option<PathBuf>,
    /// Python's command, by preference.
    pub pythons: Vec<OsString>,
    /// Where the loader looks for CUDA.
    pub library_folders: Vec<PathBuf>,
    /// A file that is there while an NVIDIA driver is loaded.
    pub nvidia_driver: PathBuf,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let pythons: &[&str] = if cfg!(windows) {
            &["python", "py", "python3"]
        } else {
            &["python3", "python"]
        };
        Self {
            dylib_path: variable("ORT_DYLIB_PATH"),
            executable_folder: std::env::current_exe()
                .ok()
                .and_then(|path| path.parent().map(Path::to_owned)),
            pythons: pythons.iter().map(OsString::from).collect(),
            library_folders: library_folders(),
            nvidia_driver: if cfg!(windows) {
                "C:/Windows/System32/nvcuda.dll".into()
            } else {
                "/proc/driver/nvidia/version".into()
            },
        }
    }

    /// One with nothing on it.
    #[cfg(test)]
    pub fn bare() -> Self {
        Self {
            dylib_path: None,
            executable_folder: None,
            pythons: Vec::new(),
            library_folders: Vec::new(),
            nvidia_driver: "/nowhere/nvidia".into(),
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The loader's own variable first, then where distributions and NVIDIA's installer put CUDA.
fn library_folders() -> Vec<PathBuf> {
    let search = variable(if cfg!(windows) {
        "PATH"
    } else {
        "LD_LIBRARY_PATH"
    });
    let mut folders: Vec<PathBuf> = search
        .iter()
        .flat_map(|paths| std::env::split_paths(paths).collect::<Vec<_>>())
        .collect();
    if let Some(root) = variable("CUDA_PATH").map(PathBuf::from) {
        folders.extend([root.join("bin"), root.join("bin/x64"), root.join("lib64")]);
    }
    folders.extend(
        [
            "/usr/local/cuda/lib64",
            "/usr/local/cuda-13/lib64",
            "/usr/local/cuda-12/lib64",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib64",
            "/usr/lib/wsl/lib",
        ]
        .map(PathBuf::from),
    );
    folders
}

/// What a search came to.
pub struct Search {
    /// The library that would be used.
    pub found: Option<(PathBuf, LibrarySource)>,
    /// What was there and is not used, with the reason; one line each.
    pub passed_over: Vec<String>,
}

/// The library that would be used, without installing one. `None`: none is there.
///
/// The order: `--onnxruntime`, `ORT_DYLIB_PATH`, beside the executable, the cache, an installed Python
/// package (found, not imported).
///
/// # Errors
/// A library that was named and is not there, or that is cut short.
pub fn locate(options: &RuntimeOptions) -> Result<Option<(PathBuf, LibrarySource)>, RuntimeError> {
    let found = search(options, &Machine::this())?.found;
    if let Some((library, source)) = &found {
        refuse_cut_short(library, *source)?;
    }
    Ok(found)
}

/// As [`locate`], on any machine, whole or not, with what was passed over.
///
/// # Errors
/// A library that was named and is not there.
pub fn search(options: &RuntimeOptions, machine: &Machine) -> Result<Search, RuntimeError> {
    let mut passed_over = Vec::new();
    let found = if let Some(path) = &options.onnxruntime {
        Some((named(path, LibrarySource::Flag)?, LibrarySource::Flag))
    } else if let Some(path) = &machine.dylib_path {
        let source = LibrarySource::Environment;
        Some((named(Path::new(path), source)?, source))
    } else if let Some(library) = machine.executable_folder.as_deref().and_then(library_in) {
        Some((library, LibrarySource::BesideExecutable))
    } else if let Some(library) = options
        .cache_dir
        .as_deref()
        .and_then(|cache| cached(cache, options.device))
    {
        Some((library, LibrarySource::Cache))
    } else {
        python_library(machine, &mut passed_over).map(|library| (library, LibrarySource::Python))
    };
    Ok(Search { found, passed_over })
}

/// A file, or a folder as releases (`lib`) and Python packages (`capi`) lay it out.
fn named(path: &Path, source: LibrarySource) -> Result<PathBuf, RuntimeError> {
    let library = if path.is_dir() {
        ["", "lib", "capi", "onnxruntime/capi"]
            .iter()
            .find_map(|folder| library_in(&path.join(folder)))
    } else {
        path.is_file().then(|| path.to_owned())
    };
    library
        // The loader takes a relative path for one beside the executable.
        .and_then(|library| std::path::absolute(library).ok())
        .ok_or_else(|| RuntimeError::NotThere {
            path: path.into(),
            found: source,
        })
}

/// How the folder of an installed GPU build ends.
const GPU: &str = "-gpu";

/// Folder of an installed wheel: `onnxruntime/<version>/<os>-<arch>[-gpu]`, since machines of several kinds may
/// share a home.
pub fn cached_folder(cache_dir: &Path, wheel: &Wheel) -> PathBuf {
    let build = if wheel.cuda.is_some() { GPU } else { "" };
    cache_dir
        .join("onnxruntime")
        .join(wheel.version)
        .join(format!("{}-{}{build}", wheel.os, wheel.arch))
}

/// Whether a library of the cache is a GPU build's.
pub fn is_gpu_build(library: &Path) -> bool {
    let folder = library.parent().and_then(Path::file_name);
    folder.is_some_and(|name| name.to_string_lossy().ends_with(GPU))
}

/// An installed GPU build is preferred (somebody asked for it), unless the device is the CPU.
fn cached(cache_dir: &Path, device: Device) -> Option<PathBuf> {
    let mut wheels: Vec<&Wheel> = platform().collect();
    wheels.sort_by_key(|wheel| wheel.cuda.is_some() == (device == Device::Cpu));
    wheels
        .into_iter()
        .find_map(|wheel| library_in(&cached_folder(cache_dir, wheel)))
}

/// The main library of a folder; of several the one without a version in its name (a link to the one that
/// is meant), else the newest.
pub fn library_in(folder: &Path) -> Option<PathBuf> {
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_library(name))
        .max_by_key(|name| {
            let numbers: Vec<u32> = name.split('.').filter_map(|n| n.parse().ok()).collect();
            (numbers.is_empty(), numbers)
        })
        .map(|name| folder.join(name))
}

/// Whether a file name is that of the main library on this platform (not of a provider beside it).
pub fn is_library(name: &str) -> bool {
    if cfg!(windows) {
        name == "onnxruntime.dll"
    } else if cfg!(target_os = "macos") {
        name.starts_with("libonnxruntime.") && name.ends_with(".dylib")
    } else {
        name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.")
    }
}

/// Finds the package without importing it, and never in the working directory: its code would be loaded.
const FIND_PACKAGE: &str = "\
import sys
sys.path = [path for path in sys.path if path]
import importlib.util, json
spec = importlib.util.find_spec('onnxruntime')
print(json.dumps(list(spec.submodule_search_locations or []) if spec else []))";

/// The library of an installed Python package, if its version is one that this build was run with.
fn python_library(machine: &Machine, passed_over: &mut Vec<String>) -> Option<PathBuf> {
    for python in &machine.pythons {
        let output = Command::new(python)
            .args(["-c", FIND_PACKAGE])
            .stdin(Stdio::null())
            .output();
        let Ok(output) = output else { continue };
        let folders: Vec<PathBuf> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        for library in folders
            .iter()
            .filter_map(|folder| library_in(&folder.join("capi")))
        {
            let Ok(version) = version_of(&library) else {
                continue;
            };
            if minor(&version).is_some_and(|minor| PYTHON_MINORS.contains(&minor)) {
                return Some(library);
            }
            passed_over.push(format!(
                "not used: {} is ONNX Runtime {version}; {OLDEST_VERSION} to 1.{} are used unasked \
                 (--onnxruntime names any other)",
                library.display(),
                PYTHON_MINORS.end()
            ));
        }
    }
    None
}

/// `$XDG_CACHE_HOME/compat-audit`, else in the platform's place: `~/.cache`, `~/Library/Caches`,
/// `%LOCALAPPDATA%`. `None` where the environment names none: in a folder that others can write to, somebody else's
/// library would be loaded.
pub fn default_cache_dir() -> Option<PathBuf> {
    cache_dir_of(|name| variable(name).map(PathBuf::from))
}

fn cache_dir_of(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG base directory specification: a relative path is ignored.
    let xdg = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let caches = xdg.or_else(|| {
        if cfg!(windows) {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            variable("HOME").map(|home| home.join("Library/Caches"))
        } else {
            variable("HOME").map(|home| home.join(".cache"))
        }
    });
    Some(caches?.join("compat-audit"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::test_options;

    const NAME: &str = if cfg!(windows) {
        "onnxruntime.dll"
    } else if cfg!(target_os = "macos") {
        "libonnxruntime.1.31.1.dylib"
    } else {
        "libonnxruntime.so.1.31.1"
    };

    fn write(path: &Path, bytes: &[u8]) -> PathBuf {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, bytes).expect("written");
        path.to_owned()
    }

    fn wheel(gpu: bool) -> &'static Wheel {
        platform()
            .find(|wheel| wheel.cuda.is_some() == gpu)
            .expect("this platform has one")
    }

    /// A Python that answers with a package in `folder`.
    #[cfg(unix)]
    fn fake_python(folder: &Path, package: &Path) -> OsString {
        use std::os::unix::fs::PermissionsExt;
        let text = format!("#!/bin/sh\necho '[\"{}\"]'\n", package.display());
        let python = write(&folder.join("python"), text.as_bytes());
        std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).expect("executable");
        python.into()
    }

    #[test]
    #[cfg(unix)]
    fn the_order_is_flag_environment_executable_cache_python() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let mut machine = Machine::bare();
        let mut options = test_options(&root.join("cache"));
        let find = |options: &RuntimeOptions, machine: &Machine| {
            search(options, machine).expect("no error").found
        };
        assert_eq!(find(&options, &machine), None);

        let python = write(&root.join("site/capi").join(NAME), b"\x001.25.1\0");
        machine.pythons = vec![
            "/nowhere/python".into(),
            fake_python(root, &root.join("site")),
        ];
        assert_eq!(
            find(&options, &machine),
            Some((python, LibrarySource::Python))
        );
        let cached = write(
            &cached_folder(&root.join("cache"), wheel(false)).join(NAME),
            b"",
        );
        assert_eq!(
            find(&options, &machine),
            Some((cached, LibrarySource::Cache))
        );
        let beside = write(&root.join("bin").join(NAME), b"");
        write(&root.join("bin/libonnxruntime_providers_shared.so"), b"");
        machine.executable_folder = Some(root.join("bin"));
        assert_eq!(
            find(&options, &machine),
            Some((beside, LibrarySource::BesideExecutable))
        );
        let environment = write(&root.join("env").join(NAME), b"");
        machine.dylib_path = Some(environment.clone().into());
        assert_eq!(
            find(&options, &machine),
            Some((environment, LibrarySource::Environment))
        );
        // A folder as a release lays it out.
        let flagged = write(&root.join("flag/lib").join(NAME), b"");
        options.onnxruntime = Some(root.join("flag"));
        assert_eq!(
            find(&options, &machine),
            Some((flagged, LibrarySource::Flag))
        );
    }

    #[test]
    #[cfg(unix)]
    fn a_python_package_of_another_age_is_passed_over_and_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let options = test_options(&root.join("cache"));
        let machine = Machine {
            pythons: vec![fake_python(root, root)],
            ..Machine::bare()
        };
        for (version, used) in [
            ("1.19.2", false),
            ("1.20.0", true),
            ("1.32.0", true),
            ("1.33.0", false),
        ] {
            let bytes = format!("\0{version}\0");
            let library = write(&root.join("capi").join(NAME), bytes.as_bytes());
            let search = search(&options, &machine).expect("no error");
            assert_eq!(search.found.is_some(), used, "{version}");
            let said = format!(
                "not used: {} is ONNX Runtime {version}; 1.20 to 1.32 are used unasked (--onnxruntime names any other)",
                library.display()
            );
            assert_eq!(search.passed_over, if used { vec![] } else { vec![said] });
        }
    }

    #[test]
    fn an_installed_gpu_build_is_preferred_unless_the_device_is_the_cpu() {
        if platform().all(|wheel| wheel.cuda.is_none()) {
            return; // No GPU build exists for this platform.
        }
        let folder = tempfile::tempdir().expect("a folder");
        let [cpu, gpu] = [false, true]
            .map(|gpu| write(&cached_folder(folder.path(), wheel(gpu)).join(NAME), b""));
        assert_eq!(cached(folder.path(), Device::Auto), Some(gpu.clone()));
        assert_eq!(cached(folder.path(), Device::Cpu), Some(cpu.clone()));
        std::fs::remove_file(cpu).expect("removed");
        assert_eq!(cached(folder.path(), Device::Cpu), Some(gpu));
    }

    #[test]
    fn a_named_library_that_is_missing_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = test_options(folder.path());
        // There is a folder, and no library in it.
        options.onnxruntime = Some(folder.path().into());
        let error = search(&options, &Machine::bare()).err().expect("missing");
        let expected = format!(
            "{}: no ONNX Runtime library there (named by --onnxruntime)",
            folder.path().display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().expect("a hint").contains("or its folder"));

        options.onnxruntime = None;
        let machine = Machine {
            dylib_path: Some("/nowhere/library".into()),
            ..Machine::bare()
        };
        let error = search(&options, &machine).err().expect("missing");
        assert_eq!(
            error.to_string(),
            "/nowhere/library: no ONNX Runtime library there (named by ORT_DYLIB_PATH)"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn of_several_libraries_the_link_and_then_the_newest_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |folder: &Path| {
            library_in(folder).map(|path| path.file_name().expect("one").to_owned())
        };
        for (added, expected) in [
            ("libonnxruntime_providers_shared.so", None),
            ("libonnxruntime.so.1.9.0", Some("libonnxruntime.so.1.9.0")),
            ("libonnxruntime.so.1.31.1", Some("libonnxruntime.so.1.31.1")),
            ("libonnxruntime.so", Some("libonnxruntime.so")),
        ] {
            write(&folder.path().join(added), b"");
            assert_eq!(name(folder.path()), expected.map(OsString::from), "{added}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn the_cache_is_where_the_platform_keeps_caches() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/a"));
        let own = if cfg!(target_os = "macos") {
            "/home/a/Library/Caches/compat-audit"
        } else {
            "/home/a/.cache/compat-audit"
        };
        assert_eq!(cache_dir_of(home).as_deref(), Some(Path::new(own)));
        // Never a folder that others can write to.
        assert_eq!(cache_dir_of(|_| None), None);
        let xdg = |path: &'static str| {
            cache_dir_of(move |name| match name {
                "XDG_CACHE_HOME" => Some(path.into()),
                _ => home(name),
            })
        };
        assert_eq!(xdg("/cache"), Some("/cache/compat-audit".into()));
        assert_eq!(xdg("relative"), Some(own.into()));
    }
}
