//! Installing the pinned library into the cache, through the user's own pip.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::RuntimeError;
use super::locate::{cached_folder, is_library, library_in};

/// The pinned version.
pub const VERSION: &str = "1.31.1";

/// One platform's wheel of the pinned version, as published on PyPI.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    tag: &'static str,
    sha256: &'static str,
}

/// `pip download` with these tags, then `sha256sum`.
const WHEELS: [Wheel; 4] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        tag: "manylinux_2_28_x86_64",
        sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        tag: "manylinux_2_28_aarch64",
        sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        tag: "macosx_14_0_arm64",
        sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
    },
    Wheel {
        os: "windows",
        arch: "x86_64",
        tag: "win_amd64",
        sha256: "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130",
    },
];

/// What to ask pip for.
struct Order {
    package: &'static str,
    version: &'static str,
    tag: &'static str,
    /// Pinned for the CPU build; the GPU builds are trusted to pip's own check.
    sha256: Option<&'static str>,
}

/// Installs the library into the cache and returns its path; a library that is there already is kept.
///
/// A lock file serialises processes, and the folder appears by one rename. `gpu` picks the build for the CUDA that the
/// machine has.
///
/// # Errors
/// No wheel for the platform, pip missing or failing, a wrong checksum, a cache that cannot be written.
pub fn install(
    cache_dir: &Path,
    gpu: bool,
    notify: &dyn Fn(&str),
) -> Result<PathBuf, RuntimeError> {
    let order = if gpu { gpu_order()? } else { cpu_order()? };
    let folder = cached_folder(cache_dir, gpu);
    let parent = folder.parent().unwrap_or(cache_dir).to_owned();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RuntimeError::Io { path, source }
    };
    fs::create_dir_all(&parent).map_err(io(&parent))?;
    let lock_path = parent.join("install.lock");
    let lock = File::create(&lock_path).map_err(io(&lock_path))?;
    lock.lock().map_err(io(&lock_path))?;
    // Another process may have installed it while this one waited.
    if let Some(library) = library_in(&folder) {
        return Ok(library);
    }
    notify(&format!(
        "installing ONNX Runtime {} ({}) into {}",
        order.version,
        if gpu { "GPU" } else { "CPU, 24 MB" },
        folder.display()
    ));
    let scratch = tempfile::tempdir_in(&parent).map_err(io(&parent))?;
    let _half_written = crate::interrupt::HalfWritten::announce(scratch.path());
    let wheel = download(&order, scratch.path())?;
    if let Some(expected) = order.sha256 {
        check(&wheel, expected)?;
    }
    let unpacked = scratch.path().join("lib");
    fs::create_dir(&unpacked).map_err(io(&unpacked))?;
    unpack(&wheel, &unpacked)?;
    if library_in(&unpacked).is_none() {
        return Err(pip_error(
            &order,
            format!("{} holds no library", wheel.display()),
        ));
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(io(&folder))?;
    }
    fs::rename(&unpacked, &folder).map_err(io(&folder))?;
    library_in(&folder).ok_or_else(|| pip_error(&order, "the library vanished".into()))
}

fn cpu_order() -> Result<Order, RuntimeError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    WHEELS
        .iter()
        .find(|wheel| wheel.os == os && wheel.arch == arch)
        .map(|wheel| Order {
            package: "onnxruntime",
            version: VERSION,
            tag: wheel.tag,
            sha256: Some(wheel.sha256),
        })
        .ok_or_else(|| RuntimeError::Platform {
            platform: format!("{os}-{arch}"),
        })
}

/// onnxruntime-gpu 1.31.1 wants CUDA 13, 1.24.4 is the last for CUDA 12.
fn gpu_order() -> Result<Order, RuntimeError> {
    let missing = |missing: &str| RuntimeError::Gpu {
        missing: missing.into(),
    };
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(missing("GPU builds are pinned for Linux x86-64 only"));
    }
    if !super::locate::has_nvidia_driver() {
        return Err(missing("no NVIDIA driver is loaded"));
    }
    let libraries = Command::new("ldconfig")
        .arg("-p")
        .output()
        .map(|output| output.stdout);
    let libraries = String::from_utf8_lossy(&libraries.unwrap_or_default()).into_owned();
    let version = if libraries.contains("libcudart.so.13") {
        VERSION
    } else if libraries.contains("libcudart.so.12") {
        "1.24.4"
    } else {
        return Err(missing(
            "neither libcudart.so.13 (CUDA 13) nor libcudart.so.12 (CUDA 12) is installed",
        ));
    };
    Ok(Order {
        package: "onnxruntime-gpu",
        version,
        tag: "manylinux_2_28_x86_64",
        sha256: None,
    })
}

fn pip_error(order: &Order, cause: String) -> RuntimeError {
    RuntimeError::Pip {
        version: order.version.into(),
        cause,
    }
}

/// `pip download` of exactly one wheel, whatever Python runs; honours the user's pip settings.
fn download(order: &Order, folder: &Path) -> Result<PathBuf, RuntimeError> {
    let requirement = format!("{}=={}", order.package, order.version);
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
        ])
        .args([
            "--python-version",
            "3.12",
            "--implementation",
            "cp",
            "--abi",
            "cp312",
        ])
        .args(["--platform", order.tag, "--dest"])
        .arg(folder)
        .arg(&requirement)
        .output()
        .map_err(|error| pip_error(order, format!("python3 does not start: {error}")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
        return Err(pip_error(
            order,
            format!("pip: {}", last.unwrap_or("failed without a word")),
        ));
    }
    fs::read_dir(folder)
        .ok()
        .and_then(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        })
        .ok_or_else(|| pip_error(order, "pip downloaded no wheel".into()))
}

fn check(wheel: &Path, expected: &str) -> Result<(), RuntimeError> {
    let bytes = fs::read(wheel).map_err(|source| RuntimeError::Io {
        path: wheel.into(),
        source,
    })?;
    let found: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found == expected {
        Ok(())
    } else {
        Err(RuntimeError::Checksum {
            path: wheel.into(),
            expected: expected.into(),
            found,
        })
    }
}

/// Takes the main library and the providers beside it out of `onnxruntime/capi/`.
fn unpack(wheel: &Path, folder: &Path) -> Result<(), RuntimeError> {
    let io = |source| RuntimeError::Io {
        path: wheel.into(),
        source,
    };
    let file = File::open(wheel).map_err(io)?;
    let mut archive =
        zip::ZipArchive::new(file).map_err(|error| io(std::io::Error::other(error)))?;
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| io(std::io::Error::other(error)))?;
        let name = entry
            .name()
            .map_err(|error| io(std::io::Error::other(error)))?
            .into_owned();
        let Some(name) = name.strip_prefix("onnxruntime/capi/") else {
            continue;
        };
        let is_provider = name.contains("onnxruntime_providers_");
        if name.contains('/') || !(is_library(name) || is_provider) {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(io)?;
        fs::write(folder.join(name), bytes).map_err(io)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_checksum_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheel = folder.path().join("a.whl");
        fs::write(&wheel, b"abc").expect("written");
        // FIPS 180-2's test vector.
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&wheel, right).expect("the right one");
        let error = check(&wheel, WHEELS[0].sha256)
            .expect_err("another one")
            .to_string();
        assert!(
            error.contains(right) && error.contains(WHEELS[0].sha256),
            "{error}"
        );
    }

    #[test]
    fn two_processes_may_install_at_once() {
        let cache = tempfile::tempdir().expect("a folder");
        let install_here = || install(cache.path(), false, &|_| ());
        let (a, b) = std::thread::scope(|scope| {
            let other = scope.spawn(install_here);
            (install_here(), other.join().expect("no panic"))
        });
        let (a, b) = (a.expect("installed"), b.expect("installed"));
        assert_eq!(a, b);
        assert!(fs::metadata(&a).expect("a file").len() > 10_000_000);
        // Nothing but the library's folder and the lock is left.
        let left = fs::read_dir(cache.path().join("onnxruntime"))
            .expect("readable")
            .count();
        assert_eq!(left, 2);
    }
}
