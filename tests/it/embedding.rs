//! The probe and the embed stage on real and on odd inputs: what is embedded, what is refused, what is kept.

pub mod cache;
mod images;
mod odd_models;
mod stored;
mod tensors;
mod text;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

use compat_audit::config::{ModelConfig, ProbeConfig, Similarity};
use compat_audit::domain::{Finding, FindingCode, NoProgress, Origin, Probe, Side};
use compat_audit::embed::{EmbedError, EmbedOptions, Embedded, ModelSource, embed};
use compat_audit::probe;
use compat_audit::runtime::{Device, Runtime, RuntimeOptions, default_cache_dir};

use crate::run::{compat_audit, data, stderr};

/// The runtime of this process; it is loaded once.
fn runtime() -> MutexGuard<'static, Runtime> {
    static RUNTIME: OnceLock<Mutex<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let options = RuntimeOptions {
            onnxruntime: None,
            offline: false,
            device: Device::Cpu,
            threads: 1,
            cache_dir: default_cache_dir(),
            verbose: false,
        };
        Mutex::new(Runtime::init(&options, &|_| ()).expect("a runtime"))
    });
    runtime
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub fn read_probe(path: &Path) -> Probe {
    probe::load(path, &ProbeConfig::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The raw embeddings of the new side: inner product leaves lengths as the model gives them.
fn try_embed(probe: &Probe, model: &Path, config: &ModelConfig) -> Result<Embedded, EmbedError> {
    let options = EmbedOptions {
        side: Side::New,
        model: config,
        similarity: Similarity::Ip,
        cache_dir: None,
        max_bad_items: 0,
        memory: u64::MAX,
        tensors_origin: Origin::Sidecar,
    };
    let source = ModelSource::from_path(model)?;
    embed(probe, &source, &options, Some(&runtime()), &NoProgress)
}

pub fn embed_raw(probe: &Probe, model: &Path, config: &ModelConfig) -> Embedded {
    try_embed(probe, model, config).unwrap_or_else(|error| panic!("{error}"))
}

fn codes(findings: &[Finding]) -> Vec<FindingCode> {
    findings.iter().map(|finding| finding.code).collect()
}

/// Largest difference of two vectors of one length.
fn max_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

fn odd(name: &str) -> PathBuf {
    data("odd_models").join(name)
}

/// An audit that must end with exit 2, one error, one hint and no report; returns its stderr.
fn refused(old: &Path, new: &Path, probe: &Path, extra: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("report");
    let mut args: Vec<&std::ffi::OsStr> = vec![old.as_os_str(), new.as_os_str(), probe.as_os_str()];
    args.extend([std::ffi::OsStr::new("--out"), out.as_os_str()]);
    args.push(std::ffi::OsStr::new("--no-cache"));
    args.extend(extra.iter().map(std::ffi::OsStr::new));
    let output = compat_audit(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(!out.exists(), "a report was written");
    assert!(!text.contains("panicked"), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let errors = lines.iter().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{text}");
    assert!(
        lines.last().is_some_and(|last| last.starts_with("hint: ")),
        "{text}"
    );
    text
}

fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

/// Writes audit.toml into `folder` and returns its path.
fn config_file(folder: &Path, text: &str) -> String {
    let file = folder.join("audit-under-test.toml");
    std::fs::write(&file, text).expect("written");
    file.to_str().expect("UTF-8").to_owned()
}

/// A small linear congruential generator: bytes that look random and are the same everywhere.
struct Noise(u32);

impl Noise {
    fn byte(&mut self) -> u8 {
        // Numerical Recipes' constants.
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 24) as u8
    }
}

/// A picture of an identity: its own pattern plus noise that `shot` seeds.
fn picture(identity: u32, shot: u32, width: u32, height: u32) -> image::RgbImage {
    let mut own = Noise(identity.wrapping_mul(7919) + 1);
    let mut noise = Noise(shot.wrapping_mul(104_729) + identity + 12_345);
    image::RgbImage::from_fn(width, height, |_, _| {
        image::Rgb([0; 3].map(|_: u8| own.byte() / 2 + 32 + noise.byte() / 8))
    })
}

/// One folder an identity, `shots` 8 x 8 pictures in each.
pub fn identity_folders(root: &Path, identities: u32, shots: u32) {
    for identity in 0..identities {
        let folder = root.join(format!("id{identity:03}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        for shot in 0..shots {
            let file = folder.join(format!("{shot}.png"));
            picture(identity, shot, 8, 8).save(file).expect("written");
        }
    }
}

/// The bytes of a .npy file of format version 1.0.
pub fn npy(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Magic, version and length are 10 bytes; the whole header is a multiple of 64 and ends with a newline.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

fn npy_f32(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    npy("<f4", shape, &bytes)
}
