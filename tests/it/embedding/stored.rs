//! Stored embeddings in place of the old model, and beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use compat_audit::config::ModelConfig;
use polars::prelude::{
    Column, DataFrame, IntoSeries, ListChunked, NamedFrom, ParquetWriter, Series,
};

use super::{assert_names, embed_raw, npy_f32, read_probe, refused};
use crate::run::{Audit, data, stdout};

const DIM: usize = 32;

/// What the old text model gives, to be stored, and a folder to store it in.
struct Old {
    folder: tempfile::TempDir,
    rows: BTreeMap<String, Vec<f32>>,
}

impl Old {
    fn new() -> Self {
        let probe = read_probe(&data("tiny_text"));
        let embedded = embed_raw(&probe, &data("tiny_text/old.onnx"), &ModelConfig::default());
        let rows = probe
            .items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let row = embedded.embeddings.get(index).expect("an embedding");
                (item.id.to_string(), row.to_vec())
            })
            .collect();
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            rows,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn parquet(&self, name: &str) -> PathBuf {
        let path = self.file(name);
        let series = self
            .rows
            .values()
            .map(|row| Some(Series::new("".into(), row)));
        let lists: ListChunked = series.collect();
        let ids: Vec<&str> = self.rows.keys().map(String::as_str).collect();
        let columns = vec![
            Column::new("id".into(), ids),
            lists.into_series().with_name("embedding".into()).into(),
        ];
        let mut frame = DataFrame::new(self.rows.len(), columns).expect("a frame");
        let file = std::fs::File::create(&path).expect("created");
        ParquetWriter::new(file)
            .finish(&mut frame)
            .expect("written");
        path
    }

    fn npy(&self, name: &str) -> PathBuf {
        let path = self.file(name);
        let values: Vec<f32> = self.rows.values().flatten().copied().collect();
        std::fs::write(&path, npy_f32(&[self.rows.len(), DIM], &values)).expect("written");
        let ids: Vec<&str> = self.rows.keys().map(String::as_str).collect();
        std::fs::write(path.with_extension("ids.txt"), ids.join("\n") + "\n").expect("written");
        path
    }

    /// The manifest with the gallery's texts gone.
    fn without_gallery_texts(&self) -> PathBuf {
        let manifest =
            std::fs::read_to_string(data("tiny_text/labels.jsonl")).expect("the manifest");
        let rows = manifest.lines().map(|line| {
            let mut row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            if row["role"] == "gallery" {
                row["text"] = "".into();
            }
            format!("{row}\n")
        });
        let path = self.file("manifest.jsonl");
        std::fs::write(&path, rows.collect::<String>()).expect("written");
        path
    }
}

fn text(name: &str) -> PathBuf {
    data("tiny_text").join(name)
}

fn audit(old: &Path, probe: &Path, extra: &[&str]) -> Audit {
    let mut all = vec!["--no-cache"];
    all.extend(extra);
    Audit::run(old, &text("new.onnx"), probe, &all)
}

#[test]
fn stored_rows_give_what_the_model_gives() {
    let old = Old::new();
    let probe = data("tiny_text");
    let run = audit(&text("old.onnx"), &probe, &[]);
    for stored in [
        old.parquet("old.parquet"),
        old.npy("old.npy"),
        old.parquet("upper.PARQUET"),
    ] {
        let from_file = audit(&stored, &probe, &[]);
        assert_eq!(from_file.report["old"]["kind"], "stored");
        assert_eq!(
            from_file.report["run"]["embedded"],
            serde_json::json!([0, 120])
        );
        for pairing in ["old->old", "new->old", "new->new", "old->new"] {
            for measure in ["mAP", "CMC@1"] {
                let [a, b] = [&run, &from_file].map(|audit| audit.measure(pairing, measure));
                assert!((a - b).abs() < 1e-12, "{pairing} {measure}: {a} {b}");
            }
        }
        assert_eq!(from_file.verdict(), run.verdict());
    }
}

/// A report without what differs from run to run.
fn without_run(audit: &Audit) -> serde_json::Value {
    let mut report = audit.report.clone();
    report.as_object_mut().expect("an object").remove("run");
    report
}

#[test]
fn rows_that_stay_in_their_file_give_the_same_report() {
    let old = Old::new();
    let probe = data("tiny_text");
    for stored in [old.parquet("old.parquet"), old.npy("old.npy")] {
        let held = audit(&stored, &probe, &["--memory", "1GiB"]);
        let mapped = audit(&stored, &probe, &["--memory", "0MiB"]);
        assert_eq!(without_run(&held), without_run(&mapped));
        let beside = ["--old-embeddings", stored.to_str().expect("UTF-8")];
        let held = audit(&text("old.onnx"), &probe, &beside);
        let mapped = audit(
            &text("old.onnx"),
            &probe,
            &[beside.as_slice(), &["--memory", "0MiB"]].concat(),
        );
        assert_eq!(without_run(&held), without_run(&mapped));
    }
}

#[test]
fn a_memory_that_is_no_size_is_refused() {
    let old = Old::new();
    let stored = old.npy("old.npy");
    let config = old.file("audit.toml");
    std::fs::write(&config, "[audit]\nmemory = \"2\"\n").expect("written");
    let error = refused(
        &stored,
        &text("new.onnx"),
        &data("tiny_text"),
        &["--config", config.to_str().expect("UTF-8")],
    );
    assert_names(&error, &["audit.toml", "`2`", "2GiB"]);
}

#[test]
fn both_sides_may_be_stored() {
    let old = Old::new();
    let (parquet, npy) = (old.parquet("old.parquet"), old.npy("old.npy"));
    let audit = Audit::run(
        &parquet,
        &npy,
        &old.without_gallery_texts(),
        &["--no-cache"],
    );
    assert_eq!(audit.report["compatibility"]["flips"]["right_wrong"], 0);
    assert_eq!(
        audit.verdict(),
        "skip-backfill",
        "{}",
        audit.report["verdict"]
    );
}

/// new->new needs the gallery's inputs: it is not tested, which is said first, and negative flips gate.
fn assert_new_new_not_tested(audit: &Audit, whole: &Audit) {
    let not_tested = audit.report["verdict"]["not_tested"]
        .as_array()
        .expect("a list");
    let first = not_tested
        .first()
        .and_then(|line| line.as_str())
        .expect("said");
    assert!(first.contains("new->new"), "{first}");
    let pairings = audit.report["pairings"].as_array().expect("pairings");
    let names: Vec<&str> = pairings
        .iter()
        .filter_map(|row| row["pairing"].as_str())
        .collect();
    assert_eq!(names, ["old->old", "new->old"]);
    assert_eq!(audit.check("upgrade-worth")["state"], "not-tested");
    assert_eq!(audit.check("excess-flips")["state"], "not-tested");
    assert_eq!(audit.check("negative-flips")["severity"], "gate");
    assert_eq!(whole.check("negative-flips")["severity"], "warn");
    for pairing in names {
        let [a, b] = [audit, whole].map(|audit| audit.measure(pairing, "mAP"));
        assert!((a - b).abs() < 1e-12, "{pairing}: {a} {b}");
    }
    assert!(
        audit.findings().contains(&"inputs-missing"),
        "{:?}",
        audit.findings()
    );
}

#[test]
fn gallery_items_without_input_are_searched_as_stored() {
    let old = Old::new();
    let whole = audit(&text("old.onnx"), &data("tiny_text"), &[]);
    let probe = old.without_gallery_texts();
    assert_new_new_not_tested(&audit(&old.parquet("old.parquet"), &probe, &[]), &whole);
    let stored = old.npy("gallery.npy");
    let beside = ["--old-embeddings", stored.to_str().expect("UTF-8")];
    assert_new_new_not_tested(&audit(&text("old.onnx"), &probe, &beside), &whole);
}

#[test]
fn gallery_images_without_path_are_searched_as_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut manifest = "id,path,identity,role\n".to_owned();
    let (mut ids, mut values) = (String::new(), Vec::new());
    for identity in 0..12_u32 {
        let name = format!("{identity}.png");
        super::picture(identity, 0, 8, 8)
            .save(folder.path().join(&name))
            .expect("written");
        manifest += &format!("q{identity},{name},{identity},query\n");
        for (id, path) in [
            (format!("q{identity}"), Some(&name)),
            (format!("g{identity}"), None),
        ] {
            if path.is_none() {
                manifest += &format!("{id},,{identity},gallery\n");
            }
            ids += &format!("{id}\n");
            let hot = |dim| if dim == identity as usize { 1.0 } else { 0.0 };
            values.extend((0..12).map(hot));
        }
    }
    let probe = folder.path().join("manifest.csv");
    std::fs::write(&probe, manifest).expect("written");
    let old = folder.path().join("old.npy");
    std::fs::write(&old, npy_f32(&[24, 12], &values)).expect("written");
    std::fs::write(folder.path().join("old.ids.txt"), ids).expect("written");
    // 12 dimensions against the model's 8: what is left to test is the old space itself.
    let audit = Audit::run(&old, &super::odd("plain.onnx"), &probe, &["--no-cache"]);
    assert_eq!(audit.measure("old->old", "CMC@1"), 1.0);
    assert_eq!(audit.verdict(), "full-backfill");
    assert_eq!(audit.report["verdict"]["rule"], 3);
}

#[test]
fn an_input_that_is_gone_wants_its_stored_row() {
    let old = Old::new();
    let error = refused(
        &text("old.onnx"),
        &text("new.onnx"),
        &old.without_gallery_texts(),
        &[],
    );
    assert_names(&error, &["manifest.jsonl", "row 1"]);
}

#[test]
fn stored_rows_that_the_model_does_not_give_are_found() {
    let mut old = Old::new();
    let probe = data("tiny_text");
    let finding = |stored: &Path| {
        let beside = ["--old-embeddings", stored.to_str().expect("UTF-8")];
        let audit = audit(&text("old.onnx"), &probe, &beside);
        let findings = audit.report["findings"].as_array().expect("findings");
        let found = findings
            .iter()
            .find(|finding| finding["code"] == "stored-embeddings-differ");
        let said_first = stdout(&audit.output).contains("READ FIRST: stored-embeddings-differ");
        assert_eq!(said_first, found.is_some());
        found.cloned()
    };
    assert_eq!(finding(&old.parquet("same.parquet")), None);
    // Another length is the same direction.
    old.rows
        .values_mut()
        .flatten()
        .for_each(|value| *value *= 3.0);
    assert_eq!(finding(&old.parquet("longer.parquet")), None);
    // A gallery built with another model.
    old.rows.values_mut().for_each(|row| row.rotate_right(1));
    let found = finding(&old.parquet("other.parquet")).expect("a finding");
    assert_eq!(found["severity"], "warning");
    let message = found["message"].as_str().expect("text");
    assert!(message.starts_with("60 of 60 sampled"), "{message}");
    assert_eq!(found["items"].as_array().map(Vec::len), Some(5));
}

#[test]
fn stored_rows_of_the_new_model_are_no_old_gallery() {
    // --old-embeddings must have the old model's dimension.
    let mut old = Old::new();
    old.rows.values_mut().for_each(|row| row.truncate(16));
    let stored = old.parquet("short.parquet");
    let error = refused(
        &text("old.onnx"),
        &text("new.onnx"),
        &data("tiny_text"),
        &["--old-embeddings", stored.to_str().expect("UTF-8")],
    );
    assert_names(&error, &["short.parquet", "32 dimensions", "16"]);
}

#[test]
fn items_without_a_stored_row_are_named() {
    let mut old = Old::new();
    let gone: Vec<String> = old.rows.keys().step_by(17).cloned().collect();
    gone.iter().for_each(|id| drop(old.rows.remove(id)));
    let stored = old.parquet("old.parquet");
    let error = refused(&stored, &text("new.onnx"), &data("tiny_text"), &[]);
    assert_names(
        &error,
        &[
            "old model: ",
            "old.parquet",
            "8 items",
            "no stored embedding",
            "--dry-run",
        ],
    );
    let named = gone.iter().filter(|id| error.contains(id.as_str())).count();
    assert_eq!(named, 5, "{error}");
}

#[test]
fn stored_files_that_cannot_be_used_say_why() {
    let old = Old::new();
    let refused = |stored: &Path| refused(stored, &text("new.onnx"), &data("tiny_text"), &[]);

    let npy = old.npy("old.npy");
    let ids = npy.with_extension("ids.txt");
    let all = std::fs::read_to_string(&ids).expect("ids");
    let (first, _) = all.split_once('\n').expect("lines");
    std::fs::write(&ids, &all[first.len() + 1..]).expect("written");
    assert_names(&refused(&npy), &["old.npy", "120 ids", "119 ids"]);
    let (_, second) = all.split_once('\n').expect("lines");
    let (second, _) = second.split_once('\n').expect("lines");
    std::fs::write(&ids, all.replacen(second, first, 1)).expect("written");
    assert_names(&refused(&npy), &[first, "rows 1 and 2"]);
    std::fs::remove_file(&ids).expect("removed");
    assert_names(&refused(&npy), &["old.ids.txt"]);

    std::fs::write(&npy, npy_f32(&[120, 4, 8], &vec![1.0; 120 * DIM])).expect("written");
    std::fs::write(&ids, &all).expect("written");
    assert_names(&refused(&npy), &["old.npy", "(rows, dim)", "[120, 4, 8]"]);
    let mut values = vec![1.0; 120 * DIM];
    values[5 * DIM] = f32::INFINITY;
    std::fs::write(&npy, npy_f32(&[120, DIM], &values)).expect("written");
    assert_names(&refused(&npy), &["old.npy", "not finite", "1 embedding"]);

    let parquet = old.file("no.parquet");
    std::fs::write(&parquet, "no parquet at all").expect("written");
    assert_names(&refused(&parquet), &["no.parquet"]);
    let mut frame = DataFrame::new(1, vec![Column::new("id".into(), ["a"])]).expect("a frame");
    let file = std::fs::File::create(&parquet).expect("created");
    ParquetWriter::new(file)
        .finish(&mut frame)
        .expect("written");
    assert_names(
        &refused(&parquet),
        &["no.parquet", "exactly one list column"],
    );
}
