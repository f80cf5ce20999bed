//! What is kept between runs, and when it is not used.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{config_file, identity_folders, odd, runtime};
use crate::run::Audit;

/// Lets a cache folder of its own use the installed runtime, which would be installed into it again otherwise.
pub fn share_runtime(cache: &Path) {
    let installed = compat_audit::runtime::default_cache_dir()
        .expect("HOME is set")
        .join("onnxruntime");
    drop(runtime());
    #[cfg(unix)]
    if installed.is_dir() {
        std::os::unix::fs::symlink(installed, cache.join("onnxruntime")).expect("linked");
    }
}

struct Kept {
    folder: tempfile::TempDir,
    probe: PathBuf,
    cache: PathBuf,
}

impl Kept {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [probe, cache] = ["probe", "cache"].map(|name| folder.path().join(name));
        identity_folders(&probe, 8, 3);
        std::fs::create_dir(&cache).expect("a folder");
        share_runtime(&cache);
        Self {
            folder,
            probe,
            cache,
        }
    }

    /// How many items each model embedded, and the report without its `run`.
    fn embedded(&self, extra: &[&str]) -> (serde_json::Value, String) {
        let mut all = vec!["--cache-dir", self.cache.to_str().expect("UTF-8")];
        all.extend(extra);
        let audit = Audit::run(&odd("plain.onnx"), &odd("u8_nhwc.onnx"), &self.probe, &all);
        let mut report = audit.report.clone();
        let run = report["run"].take();
        (run["embedded"].clone(), report.to_string())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.cache.join("embeddings"))
            .expect("the cache's folder")
            .map(|entry| entry.expect("readable").path())
            .collect();
        files.sort_unstable();
        files
    }
}

#[test]
fn only_what_changed_is_embedded_again() {
    let kept = Kept::new();
    let (embedded, first) = kept.embedded(&[]);
    assert_eq!(embedded, json!([24, 24]));
    let (embedded, second) = kept.embedded(&[]);
    assert_eq!(embedded, json!([0, 0]), "a second run embeds nothing");
    assert_eq!(first, second);

    // A mean and std of the old model: only that one runs again.
    let config = "[old]\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n";
    let config = config_file(kept.folder.path(), config);
    assert_eq!(kept.embedded(&["--config", &config]).0, json!([24, 0]));
    let config = config_file(kept.folder.path(), "[new]\ndims = 4\n[old]\ndims = 4\n");
    assert_eq!(kept.embedded(&["--config", &config]).0, json!([24, 24]));

    // A changed picture and a new one.
    std::fs::copy(
        kept.probe.join("id001/0.png"),
        kept.probe.join("id002/0.png"),
    )
    .expect("copied");
    super::picture(3, 99, 8, 8)
        .save(kept.probe.join("id003/99.png"))
        .expect("written");
    let (embedded, _) = kept.embedded(&[]);
    assert_eq!(
        embedded,
        json!([1, 1]),
        "known content is known under another name"
    );
}

#[test]
fn a_damaged_file_is_embedded_again() {
    let kept = Kept::new();
    let (_, first) = kept.embedded(&[]);
    let files = kept.files();
    assert_eq!(files.len(), 2, "one file a model");
    let whole = std::fs::read(&files[0]).expect("a cache file");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped, &whole[..whole.len() - 5].to_vec(), &Vec::new()] {
        std::fs::write(&files[0], damaged).expect("written");
        let (embedded, report) = kept.embedded(&[]);
        let mut counts: Vec<u64> = [0, 1]
            .map(|i| embedded[i].as_u64().expect("a count"))
            .into();
        counts.sort_unstable();
        assert_eq!(counts, [0, 24]);
        assert_eq!(first, report);
        assert_eq!(std::fs::read(&files[0]).expect("rewritten"), whole);
    }
}

#[test]
fn no_cache_reads_and_writes_none() {
    let kept = Kept::new();
    assert_eq!(kept.embedded(&["--no-cache"]).0, json!([24, 24]));
    assert!(!kept.cache.join("embeddings").exists());
    kept.embedded(&[]);
    assert_eq!(kept.embedded(&["--no-cache"]).0, json!([24, 24]));
}

#[test]
fn a_cache_that_cannot_be_written_costs_no_verdict() {
    let kept = Kept::new();
    std::fs::write(kept.cache.join("embeddings"), "in the way").expect("written");
    assert_eq!(kept.embedded(&[]).0, json!([24, 24]));
}

#[test]
fn what_was_noticed_is_kept_with_the_embeddings() {
    let kept = Kept::new();
    let run = || {
        let cache = ["--cache-dir", kept.cache.to_str().expect("UTF-8")];
        let model = odd("batch_dependent.onnx");
        Audit::run(&odd("plain.onnx"), &model, &kept.probe, &cache)
    };
    let (first, second) = (run(), run());
    assert_eq!(second.report["run"]["embedded"], json!([0, 0]));
    assert!(first.findings().contains(&"batch-dependent"));
    assert_eq!(first.findings(), second.findings());
}
