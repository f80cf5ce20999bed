//! Audits without labels: clusters of the old gallery stand in for them, and every number is agreement.

use std::path::{Path, PathBuf};

use compat_audit::domain::Embeddings;
use compat_audit::structure::{self, StructureOptions};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::golden::read;
use super::properties::probe_of;
use crate::run::{Audit, compat_audit, data, stderr, stdout};

#[expect(dead_code, reason = "the tables plant more kinds")]
#[path = "../../benches/simulations/mixtures.rs"]
mod mixtures;

use mixtures::scattered;

const LABEL_FREE: [&str; 2] = ["--profile", "label-free"];

/// The emoji images in `query/` and `gallery/`, under names that say nothing.
fn unlabelled_emoji() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let labels = std::fs::read_to_string(data("emoji/labels.csv")).expect("labels");
    let mut lines = labels.lines();
    let head: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let column = |name: &str| head.iter().position(|&column| column == name);
    let (path, role) = (column("path").unwrap(), column("role").unwrap());
    for side in ["query", "gallery"] {
        std::fs::create_dir(folder.path().join(side)).expect("created");
    }
    for (number, line) in lines.enumerate() {
        let cells: Vec<&str> = line.split(',').collect();
        let to = folder
            .path()
            .join(cells[role])
            .join(format!("{number:04}.png"));
        std::fs::copy(data("emoji").join(cells[path]), to).expect("copied");
    }
    std::fs::copy(data("emoji/audit.toml"), folder.path().join("audit.toml")).expect("copied");
    folder
}

fn audit(new: &str, folder: &Path, extra: &[&str]) -> Audit {
    let new = data(&format!("emoji/{new}.onnx"));
    let args = [&LABEL_FREE, extra].concat();
    Audit::run(&data("emoji/old.onnx"), &new, folder, &args)
}

#[derive(Deserialize)]
struct Golden {
    emoji: GoldenEmoji,
}

#[derive(Deserialize)]
struct GoldenEmoji {
    best_silhouette: f64,
    by_count: std::collections::BTreeMap<usize, AtCount>,
}

#[derive(Deserialize)]
struct AtCount {
    silhouette: f64,
    #[serde(rename = "old->old")]
    old_old: f64,
    #[serde(rename = "new->old")]
    new_old: std::collections::BTreeMap<String, f64>,
}

/// scikit-learn counts tied scores together; two queries of 335 have ties here.
const TIES: f64 = 0.001;

#[test]
fn a_rotated_model_is_caught_without_any_label_and_a_compatible_one_may_skip() {
    let golden: Golden = read("label_free.json");
    let folder = unlabelled_emoji();
    for (new, verdict, exit) in [
        ("old_rotated", "full-backfill", 1),
        ("new_incompatible", "full-backfill", 1),
        ("new_bct_near", "full-backfill", 1),
        ("new_l2_compatible", "skip-backfill", 0),
        ("old_int8", "skip-backfill", 0),
        ("old", "skip-backfill", 0),
    ] {
        let audit = audit(new, folder.path(), &[]);
        let reason = &audit.report["verdict"]["reason"];
        assert_eq!(audit.verdict(), verdict, "{new}: {reason}");
        assert_eq!(audit.output.status.code(), Some(exit), "{new}");
        let clusters = &audit.report["clusters"];
        let k = clusters["n_clusters"].as_u64().expect("a count") as usize;
        let at = &golden.emoji.by_count[&k];
        let silhouette = clusters["silhouette"].as_f64().expect("a number");
        assert!((silhouette - at.silhouette).abs() < 1e-4, "{silhouette}");
        assert!(silhouette > golden.emoji.best_silhouette - 0.001);
        let old_old = audit.measure("old->old", "agreement mAP");
        assert!((old_old - at.old_old).abs() < TIES, "{old_old}");
        if let Some(expected) = at.new_old.get(new) {
            let found = audit.measure("new->old", "agreement mAP");
            assert!((found - expected).abs() < TIES, "{new}: {found}");
        }
        // What agreement cannot say is not said.
        assert!(audit.report["upgrade_worth"].is_null());
        assert!(audit.report["verdict"]["gain_proven"].is_null());
    }
}

#[test]
fn every_output_says_agreement() {
    let folder = unlabelled_emoji();
    let audit = audit("new_bct_near", folder.path(), &[]);
    let out = audit.folder.path().join("report");
    let mut texts: Vec<(String, String)> = [
        "report.json",
        "report.html",
        "summary.md",
        "junit.xml",
        "metrics.prom",
    ]
    .map(|name| {
        let text = std::fs::read_to_string(out.join(name)).expect("written");
        (name.to_owned(), text)
    })
    .into();
    texts.push(("stdout".into(), stdout(&audit.output)));
    texts.push(("stderr".into(), stderr(&audit.output)));
    for figure in std::fs::read_dir(out.join("figures")).expect("figures") {
        let path = figure.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "svg") {
            let text = std::fs::read_to_string(&path).expect("text");
            texts.push((path.display().to_string(), text));
        }
    }
    for (name, text) in &texts {
        for measure in ["mAP", "MRR", "mINP", "nDCG@10", "R-precision", "recall@"] {
            for (at, _) in text.match_indices(measure) {
                // Not the middle of an encoded picture.
                let before = text[..at].chars().next_back();
                if before
                    .is_some_and(|before| before.is_ascii_alphanumeric() || "+/".contains(before))
                {
                    continue;
                }
                assert!(
                    text[..at].ends_with("agreement "),
                    "{name}: ...{}",
                    &text[text[..at].len().saturating_sub(60)..at + measure.len()]
                );
            }
        }
        assert!(!text.contains("Retrieval quality"), "{name}");
        let is_right = |word: &str| text.contains(&format!("old-&gt;old {word}"));
        assert!(!is_right("right") && !is_right("wrong"), "{name}");
    }
    for name in ["report.json", "report.html", "summary.md", "stdout"] {
        let (_, text) = texts.iter().find(|(of, _)| of == name).expect("listed");
        assert!(text.contains("agreement with the old model"), "{name}");
    }
    let metrics = &texts[4].1;
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    for sample in samples {
        assert!(sample.contains("reference=\"old-model\""), "{sample}");
    }
}

/// Labels that are there are compared with the clusters and change nothing.
#[test]
fn labels_are_not_used() {
    let folder = unlabelled_emoji();
    let without = audit("old_rotated", folder.path(), &[]);
    let with = audit("old_rotated", &data("emoji"), &[]);
    let change = |audit: &Audit| audit.check("cross-test-change")["value"].clone();
    // The images are read in another order: ties of the linkage and the bootstrap may differ, the mean does not.
    let difference = change(&with).as_f64().unwrap() - change(&without).as_f64().unwrap();
    assert!(difference.abs() < 0.005, "{difference}");
    assert!(without.report["clusters"]["labels_agreement"].is_null());
    let agreement = with.report["clusters"]["labels_agreement"].as_f64();
    assert!(
        agreement.is_some_and(|ari| (0.5..0.65).contains(&ari)),
        "{agreement:?}"
    );
    let findings = with.report["findings"].as_array().expect("findings");
    let said = findings
        .iter()
        .find(|finding| finding["code"] == "label-free");
    let message = said.expect("a finding")["message"].as_str().expect("text");
    assert!(message.contains("labels were not used"), "{message}");
}

#[test]
fn the_worth_of_an_upgrade_that_is_asked_for_stays_unsettled() {
    let folder = unlabelled_emoji();
    let audit = audit(
        "old_int8",
        folder.path(),
        &["--severity", "upgrade-worth=gate"],
    );
    assert_eq!(audit.verdict(), "inconclusive");
    assert_eq!(audit.check("upgrade-worth")["state"], "unsettled");
}

#[test]
fn without_the_profile_missing_labels_are_an_error_that_names_it() {
    let folder = unlabelled_emoji();
    let manifest = tempfile::tempdir().expect("a folder");
    std::fs::write(manifest.path().join("manifest.csv"), "path\na.png\nb.png\n").expect("written");
    let flat = tempfile::tempdir().expect("a folder");
    let images = std::fs::read_dir(folder.path().join("gallery")).expect("a folder");
    for image in images.take(2) {
        let image = image.expect("readable");
        std::fs::copy(image.path(), flat.path().join(image.file_name())).expect("copied");
    }
    let old = data("emoji/old.onnx");
    for probe in [manifest.path(), flat.path(), folder.path()] {
        let out = manifest.path().join("out");
        let args = [old.as_path(), &old, probe, Path::new("--out"), &out];
        let output = compat_audit(args);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains("--profile label-free"), "{said}");
        assert!(!out.exists());
    }
}

#[test]
fn judgements_and_the_profile_contradict_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("manifest.csv"), "id\na\nb\n").expect("written");
    std::fs::write(
        folder.path().join("qrels.tsv"),
        "query-id\tcorpus-id\tscore\na\tb\t1\n",
    )
    .expect("written");
    let stored: Vec<PathBuf> = ["old", "new"]
        .map(|side| {
            let path = folder.path().join(format!("{side}.npy"));
            super::synthetic::write_npy(&path, &[vec![1.0, 0.0], vec![0.0, 1.0]]);
            std::fs::write(path.with_extension("ids.txt"), "a\nb\n").expect("written");
            path
        })
        .into();
    let manifest = folder.path().join("manifest.csv");
    let paths = [&stored[0], &stored[1], &manifest].map(|path| path.as_os_str());
    let profile = LABEL_FREE.map(std::ffi::OsStr::new);
    let output = compat_audit(paths.iter().chain(&profile));
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(
        said.contains("qrels.tsv") && said.contains("policy.profile"),
        "{said}"
    );
}

/// A small run of `cargo bench --bench simulations -- clusters` (`docs/nccl.md`).
#[test]
fn planted_clusters_are_found_without_labels() {
    for dim in [32, 64, 128, 512] {
        for (between, within) in [(0.75, 0.8), (0.5, 0.85)] {
            let indices: Vec<f64> = (0..8)
                .map(|seed| {
                    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
                    let sizes: Vec<usize> = (0..30).map(|_| rng.gen_range(8..=20)).collect();
                    let (rows, label) = scattered(&sizes, dim, between, within, rng);
                    let old = Embeddings::dense(rows.mapv(|v| v as f32), true).expect("unit rows");
                    let probe = probe_of(&vec![0; label.len()], |_| "both");
                    let options = StructureOptions::default();
                    let found = structure::pseudo_identities(&probe, &old, &options);
                    let of_item = found.of_item.iter().flatten();
                    let clusters: Vec<usize> = of_item.map(|&cluster| cluster as usize).collect();
                    structure::adjusted_rand_index(&clusters, &label)
                })
                .collect();
            assert!(
                indices.iter().all(|&index| index >= 0.9),
                "{dim} dimensions, centres {between}, items {within}: {indices:?}"
            );
        }
    }
}

/// The old model of the texts hardly clusters them, so the profile's margin is too wide for it; an unrelated model is caught
/// with the margin that the report offers.
#[test]
fn a_space_that_hardly_clusters_asks_for_a_narrower_margin() {
    let model = |name: &str| data(&format!("text/{name}.onnx"));
    let audit = |extra: &[&str]| {
        let args = [&LABEL_FREE, extra].concat();
        Audit::run(&model("wl64"), &model("lsa64"), &data("text"), &args)
    };
    let wide = audit(&[]);
    assert_eq!(wide.verdict(), "inconclusive");
    let largest = wide.check("assay-sensitivity")["value"].as_f64();
    assert!(
        largest.is_some_and(|margin| (0.06..0.1).contains(&margin)),
        "{largest:?}"
    );
    let narrow = audit(&["--margin", "0.06"]);
    let reason = &narrow.report["verdict"]["reason"];
    assert_eq!(narrow.verdict(), "full-backfill", "{reason}");
}
