//! Where the library may be.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{LibrarySource, RuntimeError, RuntimeOptions, VERSION};

/// What the search looks at beside the options; tests put their own here.
pub struct Surroundings {
    /// `ORT_DYLIB_PATH`
    pub dylib_path: Option<OsString>,
    /// Folder of the executable.
    pub executable_folder: Option<PathBuf>,
    /// `onnxruntime/capi` of an installed Python package.
    pub python_folder: fn() -> Option<PathBuf>,
}

impl Surroundings {
    fn of_process() -> Self {
        Self {
            dylib_path: std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()),
            executable_folder: std::env::current_exe()
                .ok()
                .and_then(|path| path.parent().map(Path::to_owned)),
            python_folder,
        }
    }
}

/// The library that would be used, without installing one. `None`: none is there.
///
/// The order: `--onnxruntime`, `ORT_DYLIB_PATH`, beside the executable, the cache, an installed Python package.
///
/// # Errors
/// A library that was named and is not there.
pub fn locate(options: &RuntimeOptions) -> Result<Option<(PathBuf, LibrarySource)>, RuntimeError> {
    locate_in(options, &Surroundings::of_process())
}

fn locate_in(
    options: &RuntimeOptions,
    around: &Surroundings,
) -> Result<Option<(PathBuf, LibrarySource)>, RuntimeError> {
    let named = [
        (options.onnxruntime.clone(), LibrarySource::Flag),
        (
            around.dylib_path.clone().map(PathBuf::from),
            LibrarySource::Environment,
        ),
    ];
    for (path, found) in named {
        let Some(path) = path else { continue };
        return match if path.is_dir() {
            library_in(&path)
        } else {
            Some(path.clone())
        } {
            Some(library) if library.is_file() => Ok(Some((library, found))),
            _ => Err(RuntimeError::NotThere { path, found }),
        };
    }
    let beside = around.executable_folder.as_deref().and_then(library_in);
    let cached = || {
        library_in(&cached_folder(&options.cache_dir, true))
            .or_else(|| library_in(&cached_folder(&options.cache_dir, false)))
    };
    let python = || (around.python_folder)().as_deref().and_then(library_in);
    Ok(beside
        .map(|library| (library, LibrarySource::BesideExecutable))
        .or_else(|| Some((cached()?, LibrarySource::Cache)))
        .or_else(|| Some((python()?, LibrarySource::Python))))
}

/// Folder of an installed library; the GPU build, where there is one, is preferred.
pub fn cached_folder(cache_dir: &Path, gpu: bool) -> PathBuf {
    cache_dir.join("onnxruntime").join(if gpu {
        "gpu".to_owned()
    } else {
        VERSION.to_owned()
    })
}

/// The main library of a folder: `libonnxruntime.so*`, `libonnxruntime*.dylib`, `onnxruntime.dll`.
pub fn library_in(folder: &Path) -> Option<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| is_library(&name.to_string_lossy()))
        })
        .collect();
    names.sort();
    names.pop()
}

/// Whether a file name is that of the main library (not of a provider beside it).
pub fn is_library(name: &str) -> bool {
    name == "onnxruntime.dll"
        || name.starts_with("libonnxruntime.so")
        || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
}

/// Asks Python for the package's folder, without importing it.
fn python_folder() -> Option<PathBuf> {
    const CODE: &str = "import importlib.util as u\ns = u.find_spec('onnxruntime')\nprint(s.submodule_search_locations[0] if s else '')";
    let output = Command::new("python3").args(["-c", CODE]).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    let folder = folder.trim();
    (!folder.is_empty()).then(|| Path::new(folder).join("capi"))
}

/// Whether an NVIDIA driver is loaded; without one no GPU provider needs to be tried.
pub fn has_nvidia_driver() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
        || Path::new("C:/Windows/System32/nvcuda.dll").exists()
}

/// `$XDG_CACHE_HOME/compat-audit`, or the platform's own place.
pub fn default_cache_dir() -> PathBuf {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = variable("XDG_CACHE_HOME").or_else(|| {
        if cfg!(target_os = "windows") {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            variable("HOME").map(|home| home.join("Library/Caches"))
        } else {
            variable("HOME").map(|home| home.join(".cache"))
        }
    });
    base.unwrap_or_else(std::env::temp_dir).join("compat-audit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Device;

    fn options(folder: &Path) -> RuntimeOptions {
        RuntimeOptions {
            onnxruntime: None,
            offline: true,
            device: Device::Cpu,
            threads: 1,
            cache_dir: folder.join("cache"),
            verbose: false,
        }
    }

    fn touch(path: &Path) -> PathBuf {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, b"").expect("written");
        path.to_owned()
    }

    #[test]
    fn the_order_is_flag_environment_executable_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let name = "libonnxruntime.so.1.31.1";
        let mut around = Surroundings {
            dylib_path: None,
            executable_folder: None,
            python_folder: || None,
        };
        let mut options = options(root);
        let find = |o: &RuntimeOptions, a: &Surroundings| locate_in(o, a).expect("no error");
        assert_eq!(find(&options, &around), None);

        let cached = touch(&cached_folder(&options.cache_dir, false).join(name));
        assert_eq!(
            find(&options, &around),
            Some((cached, LibrarySource::Cache))
        );
        let beside = touch(&root.join("bin").join(name));
        touch(&root.join("bin/libonnxruntime_providers_shared.so"));
        around.executable_folder = Some(root.join("bin"));
        assert_eq!(
            find(&options, &around),
            Some((beside, LibrarySource::BesideExecutable))
        );
        let named = touch(&root.join("env").join(name));
        around.dylib_path = Some(named.clone().into());
        assert_eq!(
            find(&options, &around),
            Some((named, LibrarySource::Environment))
        );
        let flagged = touch(&root.join("flag").join(name));
        options.onnxruntime = Some(root.join("flag"));
        assert_eq!(
            find(&options, &around),
            Some((flagged, LibrarySource::Flag))
        );
    }

    #[test]
    fn a_named_library_that_is_missing_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = options(folder.path());
        options.onnxruntime = Some("/nowhere/libonnxruntime.so".into());
        let error = locate(&options).expect_err("missing");
        assert_eq!(
            error.to_string(),
            "/nowhere/libonnxruntime.so: no ONNX Runtime library there (named by --onnxruntime)"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn providers_are_not_the_library() {
        for (name, is) in [
            ("libonnxruntime.so", true),
            ("libonnxruntime.so.1.31.1", true),
            ("libonnxruntime.1.31.1.dylib", true),
            ("onnxruntime.dll", true),
            ("libonnxruntime_providers_shared.so", false),
            ("onnxruntime_providers_cuda.dll", false),
        ] {
            assert_eq!(is_library(name), is, "{name}");
        }
    }
}
