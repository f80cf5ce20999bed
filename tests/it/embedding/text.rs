//! Texts through a tokenizer and a transformer, against Python's tokenizers and onnxruntime.

use std::collections::BTreeMap;
use std::path::Path;

use compat_audit::config::{BatchSize, ModelConfig, Pooling};
use compat_audit::embed::Embedded;
use serde::Deserialize;

use super::{assert_names, config_file, embed_raw, max_difference, read_probe, refused};
use crate::run::{Audit, data, root};

/// Both sides compute in f32 with other summation orders; values are about 1.
const F32: f32 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    embeddings: BTreeMap<String, Vec<Vec<f32>>>,
    embeddings_with_prefix: BTreeMap<String, Vec<Vec<f32>>>,
}

fn golden() -> Golden {
    let path = root().join("fixtures/golden/tiny_text.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("its shape")
}

/// A manifest of these texts, one label for all.
fn manifest(folder: &Path, texts: &[String], role: impl Fn(usize) -> &'static str) -> Embedding {
    let rows: String = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let row = serde_json::json!({
                "id": format!("t{index}"), "text": text, "label": "a", "role": role(index),
            });
            format!("{row}\n")
        })
        .collect();
    let file = folder.join("manifest.jsonl");
    std::fs::write(&file, rows).expect("written");
    Embedding(file)
}

struct Embedding(std::path::PathBuf);

impl Embedding {
    fn by(&self, model: &str, config: &ModelConfig) -> Embedded {
        embed_raw(&read_probe(&self.0), &data("tiny_text").join(model), config)
    }
}

fn assert_rows(found: &Embedded, expected: &[Vec<f32>]) {
    assert_eq!(found.embeddings.n_items(), expected.len());
    for (item, expected) in expected.iter().enumerate() {
        let row = found.embeddings.get(item).expect("an embedding");
        let difference = max_difference(&row, expected);
        assert!(difference <= F32, "text {item}: {difference}");
    }
}

#[test]
fn embeddings_are_those_of_python() {
    let golden = golden();
    let folder = tempfile::tempdir().expect("a folder");
    let probe = manifest(folder.path(), &golden.texts, |_| "both");
    for (model, expected) in &golden.embeddings {
        let found = probe.by(&format!("{model}.onnx"), &ModelConfig::default());
        assert_rows(&found, expected);
        assert!(found.findings.is_empty(), "{:?}", found.findings);
    }
    // One at a time nothing is padded, and nothing changes.
    let alone = ModelConfig {
        batch_size: Some(BatchSize::Items(1)),
        ..ModelConfig::default()
    };
    assert_rows(&probe.by("old.onnx", &alone), &golden.embeddings["old"]);
}

#[test]
fn prefixes_go_before_the_texts_they_name() {
    let golden = golden();
    let folder = tempfile::tempdir().expect("a folder");
    let role = |index: usize| ["query", "gallery"][index % 2];
    let probe = manifest(folder.path(), &golden.texts, role);
    let (plain, prefixed) = (
        &golden.embeddings["old"],
        &golden.embeddings_with_prefix["old"],
    );
    let all = ModelConfig {
        prefix: Some("query: ".into()),
        ..ModelConfig::default()
    };
    assert_rows(&probe.by("old.onnx", &all), prefixed);
    let queries = ModelConfig {
        query_prefix: Some("query: ".into()),
        ..ModelConfig::default()
    };
    let mixed: Vec<Vec<f32>> = (0..plain.len())
        .map(|index| {
            if index % 2 == 0 {
                &prefixed[index]
            } else {
                &plain[index]
            }
            .clone()
        })
        .collect();
    assert_rows(&probe.by("old.onnx", &queries), &mixed);
    assert!(
        max_difference(&plain[0], &prefixed[0]) > 100.0 * F32,
        "the prefix changes something"
    );
}

#[test]
fn pooling_cls_takes_the_first_token() {
    let golden = golden();
    let folder = tempfile::tempdir().expect("a folder");
    let probe = manifest(folder.path(), &golden.texts, |_| "both");
    let cls = ModelConfig {
        pooling: Some(Pooling::Cls),
        ..ModelConfig::default()
    };
    let found = probe.by("old.onnx", &cls);
    let expected = &golden.embeddings["old"];
    let row = found.embeddings.get(0).expect("an embedding");
    assert!(max_difference(&row, &expected[0]) > 0.01);
}

#[test]
fn a_whole_audit_of_texts_gives_a_verdict() {
    let folder = data("tiny_text");
    let audit = Audit::run(
        &folder.join("old.onnx"),
        &folder.join("new.onnx"),
        &folder,
        &["--no-cache"],
    );
    // new is old plus noise of .3 %.
    assert_eq!(
        audit.verdict(),
        "skip-backfill",
        "{}",
        audit.report["verdict"]
    );
    assert_eq!(audit.report["probe"]["modality"], "text");
    let setting = |key: &str| {
        let settings = audit.report["settings"].as_array().expect("settings");
        let setting = settings.iter().find(|setting| setting["key"] == key);
        setting.unwrap_or_else(|| panic!("no {key}")).clone()
    };
    assert_eq!(setting("old.pooling")["value"], "mean");
    assert_eq!(setting("old.pooling")["origin"], "sidecar");
    assert_eq!(setting("new.max_length")["value"], 48);
}

#[test]
fn a_missing_tokenizer_is_named() {
    let source = data("tiny_text");
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("old.onnx");
    std::fs::copy(source.join("old.onnx"), &model).expect("copied");
    let text = refused(&model, &model, &source, &[]);
    assert_names(
        &text,
        &["old model: ", "old.onnx", "tokenizer.json", "audit.toml"],
    );
    // And one that is configured and not there, by its own path.
    let config = config_file(folder.path(), "[old]\ntokenizer = \"gone.json\"\n");
    let text = refused(&model, &model, &source, &["--config", &config]);
    assert_names(&text, &["gone.json"]);
}

#[test]
fn token_states_without_pooling_are_refused() {
    let source = data("tiny_text");
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["old.onnx", "tokenizer.json"] {
        std::fs::copy(source.join(file), folder.path().join(file)).expect("copied");
    }
    let model = folder.path().join("old.onnx");
    let text = refused(&model, &model, &source, &[]);
    assert_names(&text, &["last_hidden_state", "pooling = \"mean\""]);
}

#[test]
fn a_max_length_beyond_the_models_positions_is_the_models_error() {
    let source = data("tiny_text");
    let folder = tempfile::tempdir().expect("a folder");
    let long = vec!["one two three four five six seven eight nine ten ".repeat(20); 2];
    let probe = manifest(folder.path(), &long, |_| "both");
    let config = config_file(folder.path(), "[old]\nmax_length = 300\n");
    let text = refused(
        &source.join("old.onnx"),
        &source.join("new.onnx"),
        &probe.0,
        &["--config", &config],
    );
    assert_names(&text, &["old model: ", "old.onnx", "the model failed"]);
}
