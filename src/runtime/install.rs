//! Installing a pinned library into the cache, through the user's own pip.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::gpu::{self, Cuda};
use super::locate::{Machine, cached_folder, is_library, library_in};
use super::version::sha256;
use super::{LibrarySource, RuntimeError, refuse_cut_short};

/// The version that is installed.
pub const VERSION: &str = "1.31.1";

/// What stands beside an installed library: a line a file, as `sha256sum` writes it.
const SUMS: &str = "SHA256SUMS";

/// Prefix of the folders that an installation works in.
const SCRATCH: &str = ".installing-";

/// A published wheel, whole.
#[derive(Debug, PartialEq)]
pub struct Wheel {
    /// As [`std::env::consts::OS`].
    pub os: &'static str,
    /// As [`std::env::consts::ARCH`].
    pub arch: &'static str,
    /// The CUDA that a GPU build wants.
    pub cuda: Option<Cuda>,
    /// Of ONNX Runtime.
    pub version: &'static str,
    /// The platform as pip names it.
    tag: &'static str,
    /// Of the download, rounded.
    megabytes: u32,
    /// Of the wheel.
    sha256: &'static str,
}

const fn wheel(
    [os, arch, tag]: [&'static str; 3],
    cuda: Option<Cuda>,
    version: &'static str,
    megabytes: u32,
    sha256: &'static str,
) -> Wheel {
    Wheel {
        os,
        arch,
        cuda,
        version,
        tag,
        megabytes,
        sha256,
    }
}

const LINUX: [&str; 3] = ["linux", "x86_64", "manylinux_2_28_x86_64"];
const LINUX_ARM: [&str; 3] = ["linux", "aarch64", "manylinux_2_28_aarch64"];
const MACOS_ARM: [&str; 3] = ["macos", "aarch64", "macosx_14_0_arm64"];
const WINDOWS: [&str; 3] = ["windows", "x86_64", "win_amd64"];
const WINDOWS_ARM: [&str; 3] = ["windows", "aarch64", "win_arm64"];
const CUDA_13: Option<Cuda> = Some(Cuda::Thirteen);
/// 1.24.4 is the last release of onnxruntime-gpu for CUDA 12.
const CUDA_12: Option<Cuda> = Some(Cuda::Twelve);

/// Checksums: `pip download` with the arguments of [`download`], then `sha256sum`. Nothing is published for
/// macOS on Intel.
#[rustfmt::skip]
const WHEELS: [Wheel; 9] = [
    wheel(LINUX, None, VERSION, 24, "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536"),
    wheel(LINUX, CUDA_13, VERSION, 256, "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7"),
    wheel(LINUX, CUDA_12, "1.24.4", 253, "eb0e38f0c1ef3b76ae0081c8e51eed20dd8925aa916f0fc6f9b8b17d05610e99"),
    wheel(LINUX_ARM, None, VERSION, 21, "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc"),
    wheel(MACOS_ARM, None, VERSION, 21, "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c"),
    wheel(WINDOWS, None, VERSION, 15, "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130"),
    wheel(WINDOWS, CUDA_13, VERSION, 168, "2bb1e9373baba88f6415257f5b6a589d23e23c16004f7d89adf4344eada5749e"),
    wheel(WINDOWS, CUDA_12, "1.24.4", 207, "da5c1e327d8e119a831be2790e69f93cf6daab9145ed0aca7577f412a620f709"),
    wheel(WINDOWS_ARM, None, VERSION, 15, "fe8b9ac1ae8e894e12c47ee82e4f6dfc1835768133687257866469fda80d0bf1"),
];

/// The wheels for this platform.
pub fn platform() -> impl Iterator<Item = &'static Wheel> {
    WHEELS
        .iter()
        .filter(|wheel| wheel.os == std::env::consts::OS && wheel.arch == std::env::consts::ARCH)
}

impl Wheel {
    fn requirement(&self) -> String {
        let package = match self.cuda {
            Some(_) => "onnxruntime-gpu",
            None => "onnxruntime",
        };
        format!("{package}=={}", self.version)
    }
}

/// Installs the library into the cache and returns its path; one that is there already is kept when it is what was
/// installed, byte for byte. `gpu` picks the build for the CUDA that this machine has. What is being done goes to `notify`, one line each.
///
/// A lock file serialises processes, and the library's folder appears by one rename.
///
/// # Errors
/// No wheel for the platform or the CUDA, pip missing or failing, a wrong checksum, a cache that cannot be
/// written.
pub fn install(
    cache_dir: &Path,
    gpu: bool,
    notify: &dyn Fn(&str),
) -> Result<PathBuf, RuntimeError> {
    let machine = Machine::this();
    let wheel = if gpu {
        gpu_wheel(&machine, notify)?
    } else {
        cpu_wheel()?
    };
    install_wheel(cache_dir, wheel, &machine, notify)
}

/// The library that [`install`] has put into the cache; the network is not reached.
///
/// # Errors
/// [`RuntimeError::Offline`] when there is none, [`RuntimeError::Load`] when it is damaged.
pub fn installed(cache_dir: &Path) -> Result<PathBuf, RuntimeError> {
    let folder = cached_folder(cache_dir, cpu_wheel()?);
    let library = library_in(&folder).ok_or(RuntimeError::Offline)?;
    if folder.join(SUMS).is_file() && !is_as_installed(&folder) {
        return Err(RuntimeError::Load {
            path: library,
            found: LibrarySource::Cache,
            cause: "it is not what was installed (SHA-256)".into(),
        });
    }
    refuse_cut_short(&library, LibrarySource::Cache)?;
    Ok(library)
}

/// Whether the folder holds the files of its [`SUMS`], each with its sum.
fn is_as_installed(folder: &Path) -> bool {
    let sums = fs::read_to_string(folder.join(SUMS)).unwrap_or_default();
    let is_same = |line: &str| {
        let (sum, name) = line.split_once("  ")?;
        Some(sum == sha256(&fs::read(folder.join(name)).ok()?))
    };
    library_in(folder).is_some()
        && !sums.is_empty()
        && sums.lines().all(|line| is_same(line) == Some(true))
}

fn cpu_wheel() -> Result<&'static Wheel, RuntimeError> {
    platform()
        .find(|wheel| wheel.cuda.is_none())
        .ok_or_else(|| RuntimeError::Platform {
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        })
}

/// Not run on a machine with a GPU yet.
fn gpu_wheel(machine: &Machine, notify: &dyn Fn(&str)) -> Result<&'static Wheel, RuntimeError> {
    let mut wheels = platform().filter(|wheel| wheel.cuda.is_some()).peekable();
    if wheels.peek().is_none() {
        return Err(RuntimeError::Gpu {
            missing: "builds are published for Linux and Windows on x86-64 only".into(),
        });
    }
    let cuda = gpu::cuda(machine).map_err(|missing| RuntimeError::Gpu { missing })?;
    let missing = gpu::missing(machine);
    if !missing.is_empty() {
        notify(&format!(
            "not found here, and needed to run on a GPU: {}",
            missing.join(", ")
        ));
    }
    Ok(wheels
        .find(|wheel| wheel.cuda == Some(cuda))
        .expect("a platform that has GPU builds has one for each CUDA"))
}

/// [`RuntimeError::Io`] at a path.
fn at(path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::Io { path, source }
}

fn install_wheel(
    cache_dir: &Path,
    wheel: &Wheel,
    machine: &Machine,
    notify: &dyn Fn(&str),
) -> Result<PathBuf, RuntimeError> {
    let folder = cached_folder(cache_dir, wheel);
    let parent = folder.parent().unwrap_or(cache_dir);
    fs::create_dir_all(parent).map_err(at(parent))?;
    // Held until this function returns; the file itself stays.
    let _lock = lock(&parent.join("install.lock"), notify)?;
    // Another process may have installed it while this one waited.
    if let Some(library) = library_in(&folder)
        && is_as_installed(&folder)
    {
        return Ok(library);
    }
    sweep(parent);
    let python = python_with_pip(machine)?;
    notify(&format!(
        "installing ONNX Runtime {} ({} MB, by pip) into {}",
        wheel.version,
        wheel.megabytes,
        folder.display()
    ));
    let turn = crate::interrupt::turn();
    let scratch = tempfile::Builder::new()
        .prefix(SCRATCH)
        .tempdir_in(parent)
        .map_err(at(parent))?;
    let _half_written = turn.announce(scratch.path());
    let file = download(python, wheel, scratch.path())?;
    let unpacked = scratch.path().join("library");
    unpack(&file, wheel.sha256, &unpacked)?;
    if folder.exists() {
        // Damaged, or of a version that wrote no sums. Who has it loaded keeps it: it is moved away, not written over.
        fs::rename(&folder, scratch.path().join("replaced")).map_err(at(&folder))?;
    }
    fs::rename(&unpacked, &folder).map_err(at(&folder))?;
    Ok(library_in(&folder).expect("unpack refuses a wheel without a library"))
}

/// Waits for the lock; the wait is said.
fn lock(path: &Path, notify: &dyn Fn(&str)) -> Result<File, RuntimeError> {
    let file = File::create(path).map_err(at(path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            notify("another process installs ONNX Runtime; waiting for it");
            file.lock().map_err(at(path))?;
        }
        Err(TryLockError::Error(error)) => return Err(at(path)(error)),
    }
    Ok(file)
}

/// Removes what killed installations left behind; the lock says that none is running.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
            // What cannot be removed costs disk space and nothing else.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Python's module runner, which must not look for modules in the working directory (Python 3.11 and newer
/// understand the variable).
fn module(python: &OsStr) -> Command {
    let mut command = Command::new(python);
    command
        .arg("-m")
        .env("PYTHONSAFEPATH", "1")
        .stdin(Stdio::null());
    command
}

/// The first Python that starts and has pip.
fn python_with_pip(machine: &Machine) -> Result<&OsStr, RuntimeError> {
    let mut tried = Vec::new();
    for python in &machine.pythons {
        let cause = match module(python).args(["pip", "--version"]).output() {
            Ok(output) if output.status.success() => return Ok(python),
            Ok(output) => last_error(&output.stderr),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "not found".into(),
            Err(error) => error.to_string(),
        };
        tried.push(format!("{}: {cause}", python.display()));
    }
    Err(RuntimeError::NoPip {
        tried: tried.join("; "),
    })
}

/// `pip download` of exactly one wheel, whatever Python runs it; honours the user's pip settings.
fn download(python: &OsStr, wheel: &Wheel, folder: &Path) -> Result<PathBuf, RuntimeError> {
    let requirement = wheel.requirement();
    let mut command = module(python);
    command
        .args(["pip", "download", requirement.as_str(), "--no-deps"])
        .args(["--only-binary=:all:", "--python-version", "3.12"])
        .args(["--implementation", "cp", "--abi", "cp312"])
        .args(["--platform", wheel.tag])
        .args(["--quiet", "--no-input", "--disable-pip-version-check"])
        .arg("--dest")
        .arg(folder);
    let failed = |cause: String| RuntimeError::Pip {
        command: format!(
            "{} -m pip download {requirement} --platform {}",
            python.display(),
            wheel.tag
        ),
        cause,
    };
    let output = command
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(last_error(&output.stderr)));
    }
    fs::read_dir(folder)
        .map_err(at(folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| failed("no wheel was downloaded".into()))
}

/// The last line that says something.
fn last_error(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr)
        .lines()
        .map(|line| line.trim().trim_start_matches("ERROR: "))
        .rfind(|line| !line.is_empty())
        .unwrap_or("failed without a word")
        .to_owned()
}

/// Checks the wheel and takes the main library and the providers beside it into `folder`.
fn unpack(path: &Path, expected: &str, folder: &Path) -> Result<(), RuntimeError> {
    let wheel = || {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let bytes = fs::read(path).map_err(at(path))?;
    let found = sha256(&bytes);
    if found != expected {
        return Err(RuntimeError::Checksum {
            wheel: wheel(),
            expected: expected.into(),
            found,
        });
    }
    let damaged = |cause: &dyn std::fmt::Display| RuntimeError::Wheel {
        wheel: wheel(),
        cause: cause.to_string(),
    };
    let mut archive =
        zip::ZipArchive::new(io::Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    fs::create_dir_all(folder).map_err(at(folder))?;
    let mut sums = String::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = entry.name().map_err(|error| damaged(&error))?.into_owned();
        let Some(name) = name.strip_prefix("onnxruntime/capi/") else {
            continue;
        };
        // No separators: what is written lies in `folder`.
        let plain = !name.contains(['/', '\\']);
        if plain && (is_library(name) || name.contains("onnxruntime_providers_")) {
            let mut library = Vec::new();
            entry
                .read_to_end(&mut library)
                .map_err(|error| damaged(&error))?;
            sums += &format!("{}  {name}\n", sha256(&library));
            let path = folder.join(name);
            fs::write(&path, library).map_err(at(&path))?;
        }
    }
    let path = folder.join(SUMS);
    fs::write(&path, sums).map_err(at(&path))?;
    match library_in(folder) {
        Some(_) => Ok(()),
        None => Err(damaged(&"onnxruntime/capi/ holds no library")),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Write;

    use super::*;
    use crate::runtime::{RuntimeOptions, library_for, test_options};

    fn silent(_: &str) {}

    #[test]
    fn platforms_have_a_cpu_build_and_each_cuda_or_none() {
        for wheel in &WHEELS {
            assert_eq!(wheel.sha256.len(), 64, "{}", wheel.tag);
            let of_platform = |cuda| {
                WHEELS
                    .iter()
                    .filter(|other| other.tag == wheel.tag && other.cuda == cuda)
                    .count()
            };
            assert_eq!(of_platform(None), 1, "{}", wheel.tag);
            assert_eq!(of_platform(CUDA_12), of_platform(CUDA_13), "{}", wheel.tag);
        }
    }

    #[test]
    fn a_wheel_that_is_not_the_pinned_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheel = folder.path().join("a.whl");
        fs::write(&wheel, b"abc").expect("written");
        // FIPS 180-4's example.
        let found = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let target = folder.path().join("library");
        let error = unpack(&wheel, WHEELS[0].sha256, &target).expect_err("another file");
        assert_eq!(
            error.to_string(),
            format!("a.whl: SHA-256 is {found}, expected {}", WHEELS[0].sha256)
        );
        assert!(!target.exists(), "nothing of it was unpacked");
        // The right sum, and yet no wheel.
        let error = unpack(&wheel, found, &target).expect_err("no archive");
        assert!(
            error
                .to_string()
                .starts_with("a.whl: cannot take the library out: ")
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_library_and_its_providers_are_taken_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheel = folder.path().join("a.whl");
        let pack = |names: &[&str]| {
            let mut zip = zip::ZipWriter::new(File::create(&wheel).expect("created"));
            for name in names {
                zip.start_file(*name, zip::write::SimpleFileOptions::default())
                    .expect("started");
                zip.write_all(name.as_bytes()).expect("written");
            }
            zip.finish().expect("finished");
            sha256(&fs::read(&wheel).expect("readable"))
        };
        let target = folder.path().join("library");
        let sum = pack(&[
            "onnxruntime/__init__.py",
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            "onnxruntime/capi/libonnxruntime_providers_cuda.so",
            "onnxruntime/capi/onnxruntime_pybind11_state.cpython-312-x86_64-linux-gnu.so",
            "onnxruntime/capi/../../libonnxruntime.so.9",
        ]);
        unpack(&wheel, &sum, &target).expect("unpacked");
        let mut names: Vec<_> = fs::read_dir(&target)
            .expect("readable")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                SUMS,
                "libonnxruntime.so.1.31.1",
                "libonnxruntime_providers_cuda.so"
            ]
        );
        assert!(is_as_installed(&target));
        let library = target.join("libonnxruntime.so.1.31.1");
        fs::write(library, "another").expect("written");
        assert!(!is_as_installed(&target));

        let sum = pack(&["onnxruntime/__init__.py"]);
        let error = unpack(&wheel, &sum, &folder.path().join("other")).expect_err("no library");
        assert_eq!(
            error.to_string(),
            "a.whl: cannot take the library out: onnxruntime/capi/ holds no library"
        );
    }

    #[test]
    fn without_pip_three_remedies_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine {
            pythons: vec!["/nowhere/python3".into(), "/nowhere/python".into()],
            ..Machine::bare()
        };
        let error = install_wheel(folder.path(), &WHEELS[0], &machine, &silent)
            .expect_err("there is no Python");
        assert_eq!(
            error.to_string(),
            "ONNX Runtime is not on this machine, and there is no pip to install it with \
             (/nowhere/python3: not found; /nowhere/python: not found)"
        );
        let hint = error.hint().expect("a hint");
        for remedy in [
            "1. install Python 3 with pip",
            "2. name a library",
            "3. run `compat-audit runtime install`",
        ] {
            assert!(hint.contains(remedy), "{hint}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_pip_says_is_passed_on_and_nothing_is_left() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let python = folder.path().join("python");
        let text = "#!/bin/sh\n[ \"$3\" = --version ] && exit 0\necho 'ERROR: No matching distribution' >&2\nexit 1\n";
        fs::write(&python, text).expect("written");
        fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).expect("executable");
        let machine = Machine {
            pythons: vec![python.clone().into()],
            ..Machine::bare()
        };
        let cache = folder.path().join("cache");
        let error = install_wheel(&cache, &WHEELS[0], &machine, &silent).expect_err("pip fails");
        assert_eq!(
            error.to_string(),
            format!(
                "ONNX Runtime cannot be installed: `{} -m pip download onnxruntime==1.31.1 --platform \
                 manylinux_2_28_x86_64` failed: No matching distribution",
                python.display()
            )
        );
        let left: Vec<_> = fs::read_dir(cache.join("onnxruntime/1.31.1"))
            .expect("readable")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["install.lock"]);
    }

    #[test]
    fn a_gpu_build_fits_the_cuda_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine {
            library_folders: vec![folder.path().into()],
            ..Machine::bare()
        };
        let said = RefCell::new(Vec::new());
        let notify = |line: &str| said.borrow_mut().push(line.to_owned());
        let error = gpu_wheel(&machine, &notify)
            .expect_err("no CUDA here")
            .to_string();
        assert!(error.starts_with("no GPU build of ONNX Runtime fits this machine: "));
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            assert!(error.contains("libcudart.so.13") && error.contains("libcudart.so.12"));
            for (library, version) in [("libcudart.so.12", "1.24.4"), ("libcudart.so.13", VERSION)]
            {
                fs::write(folder.path().join(library), b"").expect("written");
                let wheel = gpu_wheel(&machine, &notify).expect("a build");
                assert_eq!(wheel.requirement(), format!("onnxruntime-gpu=={version}"));
            }
            assert_eq!(
                said.borrow()[0],
                "not found here, and needed to run on a GPU: an NVIDIA driver, libcudnn.so.9"
            );
        }
    }

    /// The real thing, twice at once: the file lock holds between two handles of one process as between
    /// processes.
    #[test]
    fn two_may_install_at_once_and_one_downloads() {
        let cache = tempfile::tempdir().expect("a folder");
        let install_here = || {
            let said = RefCell::new(Vec::new());
            let library = install(cache.path(), false, &|line| {
                said.borrow_mut().push(line.to_owned());
            });
            (library.expect("installed"), said.into_inner())
        };
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(install_here);
            (install_here(), other.join().expect("no panic"))
        });
        assert_eq!(a.0, b.0);
        let downloads = [a.1, b.1].concat();
        let downloads = downloads
            .iter()
            .filter(|line| line.starts_with("installing "));
        assert_eq!(downloads.count(), 1);
        assert_eq!(
            super::super::version::version_of(&a.0).expect("readable"),
            VERSION
        );
        // Nothing but the library's folder and the lock is left.
        let parent = cached_folder(cache.path(), cpu_wheel().expect("one"));
        let parent = parent.parent().expect("a parent");
        assert_eq!(fs::read_dir(parent).expect("readable").count(), 2);

        // What is damaged afterwards is named, and replaced.
        let whole = fs::metadata(&a.0).expect("there").len();
        let file = File::options().write(true).open(&a.0).expect("writable");
        file.set_len(whole / 2).expect("cut short");
        let error = installed(cache.path()).expect_err("damaged").to_string();
        assert!(error.contains("not what was installed"), "{error}");
        let options = RuntimeOptions {
            offline: true,
            ..test_options(cache.path())
        };
        if cfg!(target_os = "linux") {
            let error = library_for(&options, &Machine::bare(), &silent).expect_err("damaged");
            assert!(error.to_string().contains("cut short"), "{error}");
        }
        assert_eq!(install_here().0, a.0);
        assert_eq!(fs::metadata(&a.0).expect("there").len(), whole);
        assert_eq!(installed(cache.path()).expect("whole"), a.0);
        assert_eq!(fs::read_dir(parent).expect("readable").count(), 2);
    }
}
