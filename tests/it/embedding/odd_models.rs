//! Models that each do one unusual thing, and what must be said of them.

use std::path::Path;

use compat_audit::config::{BatchSize, ModelConfig, Size};
use compat_audit::domain::{FindingCode, Probe};
use compat_audit::embed::Embedded;

use super::{
    assert_names, codes, config_file, embed_raw, identity_folders, max_difference, odd, read_probe,
    refused,
};
use crate::run::{Audit, data, root};

/// 12 identities of 3 pictures, 8 x 8.
fn small() -> (tempfile::TempDir, Probe) {
    let folder = tempfile::tempdir().expect("a folder");
    identity_folders(folder.path(), 12, 3);
    let probe = read_probe(folder.path());
    (folder, probe)
}

fn by(probe: &Probe, model: &str) -> Embedded {
    embed_raw(probe, &odd(model), &ModelConfig::default())
}

/// Largest difference over all items.
fn difference(a: &Embedded, b: &Embedded) -> f32 {
    assert_eq!(a.embeddings.n_items(), b.embeddings.n_items());
    (0..a.embeddings.n_items())
        .map(|item| {
            let [a, b] = [a, b].map(|side| side.embeddings.get(item).expect("an embedding"));
            max_difference(&a, &b)
        })
        .fold(0.0, f32::max)
}

/// Embeddings of the small probe are sums of 192 products of size about 1: a few f32 roundings.
const F32: f32 = 1e-4;

/// f16 has 11 bits; sums of 192 products of size about 1.
const F16: f32 = 0.1;

#[test]
fn emoji_rows_are_those_of_python() {
    #[derive(serde::Deserialize)]
    struct Golden {
        items: Vec<String>,
        embeddings: std::collections::BTreeMap<String, Vec<Vec<f32>>>,
    }
    let golden = std::fs::read_to_string(root().join("fixtures/golden/emoji_rows.json"));
    let golden: Golden = serde_json::from_str(&golden.expect("the file")).expect("its shape");
    let mut probe = read_probe(&data("emoji"));
    let keep: Vec<bool> = probe
        .items
        .iter()
        .map(|item| golden.items.iter().any(|id| *id == item.id))
        .collect();
    probe.retain(&keep);
    for (model, rows) in &golden.embeddings {
        let found = embed_raw(
            &probe,
            &data(&format!("emoji/{model}.onnx")),
            &ModelConfig::default(),
        );
        assert_eq!(found.embeddings.n_items(), golden.items.len());
        for (item, id) in probe.items.iter().zip(0..) {
            let row = golden
                .items
                .iter()
                .position(|golden| *golden == item.id)
                .expect("kept");
            let found = found.embeddings.get(id).expect("an embedding");
            let difference = max_difference(&found, &rows[row]);
            assert!(difference <= 1e-5, "{model} {}: {difference}", item.id);
        }
    }
}

#[test]
fn a_fixed_batch_is_filled_up() {
    // 35 is no multiple of 4.
    let (_folder, mut probe) = small();
    let keep: Vec<bool> = (0..probe.items.len()).map(|item| item != 7).collect();
    probe.retain(&keep);
    let fixed = by(&probe, "fixed_batch_4.onnx");
    assert!(difference(&by(&probe, "plain.onnx"), &fixed) <= F32);
    let setting = fixed
        .settings
        .iter()
        .find(|setting| setting.key == "new.batch_size");
    assert_eq!(setting.expect("noted").value, 4);
}

#[test]
fn bytes_and_channels_last_are_read_off_the_model() {
    let (_folder, probe) = small();
    let bytes = by(&probe, "u8_nhwc.onnx");
    assert!(difference(&by(&probe, "plain.onnx"), &bytes) <= F32);
    // A model of bytes normalises them itself, so nothing is assumed.
    assert_eq!(codes(&bytes.findings), []);
    let layout = bytes
        .settings
        .iter()
        .find(|setting| setting.key == "new.layout");
    assert_eq!(layout.expect("noted").value, "nhwc");
}

#[test]
fn bytes_are_not_wrapped_or_cut() {
    let (folder, _probe) = small();
    let model = odd("u8_nhwc.onnx");
    let config = config_file(folder.path(), "[new]\nmean = [0.5, 0.5, 0.5]\n");
    let text = refused(&model, &model, folder.path(), &["--config", &config]);
    assert_names(
        &text,
        &[
            "new model: ",
            "u8_nhwc.onnx",
            "bytes uint8[?, 8, 8, 3]",
            ".5",
        ],
    );
}

#[test]
fn half_precision_goes_in_and_out() {
    let (_folder, probe) = small();
    let half = by(&probe, "f16.onnx");
    let difference = difference(&by(&probe, "plain.onnx"), &half);
    assert!(difference > 0.0 && difference <= F16, "{difference}");
}

#[test]
fn of_several_outputs_one_must_be_chosen() {
    let (folder, probe) = small();
    let model = odd("two_outputs.onnx");
    let text = refused(&model, &model, folder.path(), &[]);
    assert_names(
        &text,
        &[
            "two_outputs.onnx",
            "logits float32[?, 3]",
            "embedding float32[?, 8]",
            "output = ",
        ],
    );
    let chosen = ModelConfig {
        output: Some("embedding".into()),
        ..ModelConfig::default()
    };
    let chosen = embed_raw(&probe, &model, &chosen);
    assert!(difference(&by(&probe, "plain.onnx"), &chosen) <= F32);
    let config = config_file(folder.path(), "[old]\noutput = \"embeding\"\n");
    let text = refused(&model, &model, folder.path(), &["--config", &config]);
    assert_names(&text, &["`embeding`", "embedding float32[?, 8]"]);
}

#[test]
fn a_rank_3_output_wants_a_pooling() {
    let (folder, probe) = small();
    let model = odd("rank_3.onnx");
    let text = refused(&model, &model, folder.path(), &[]);
    assert_names(&text, &["rank_3.onnx", "`tokens`", "3, 8]", "pooling = "]);
    let pooled = |pooling| {
        let config = ModelConfig {
            pooling: Some(pooling),
            ..ModelConfig::default()
        };
        embed_raw(&probe, &model, &config)
    };
    let mean = pooled(compat_audit::config::Pooling::Mean);
    let cls = pooled(compat_audit::config::Pooling::Cls);
    assert_eq!((mean.embeddings.dim(), cls.embeddings.dim()), (8, 8));
    assert!(difference(&mean, &cls) > 0.01);
}

#[test]
fn dynamic_height_and_width_want_a_size() {
    let (folder, probe) = small();
    let model = odd("any_size.onnx");
    let text = refused(&model, &model, folder.path(), &[]);
    assert_names(
        &text,
        &["any_size.onnx", "image float32[?, 3, ?, ?]", "size = "],
    );
    let sized = |size| {
        let config = ModelConfig {
            size: Some(size),
            ..ModelConfig::default()
        };
        embed_raw(&probe, &model, &config)
    };
    let own = sized(Size::Square(8));
    assert_eq!(own.embeddings.dim(), 8, "(batch, 8, 1, 1) is an embedding");
    assert!(difference(&own, &sized(Size::HeightWidth([12, 16]))) > 1e-3);
}

#[test]
fn what_the_models_input_rules_out_is_no_fault_of_the_images() {
    let (folder, _probe) = small();
    let model = odd("plain.onnx");
    for (wrong, named) in [
        ("layout = \"nhwc\"\nsize = 8", "layout nhwc"),
        ("size = 12", "12 x 12"),
        ("size = 12\ncrop = [8, 10]", "8 x 10"),
    ] {
        let config = config_file(folder.path(), &format!("[new]\n{wrong}\n"));
        let extra = ["--config", &config, "--max-bad-items", "1000"];
        let text = refused(&model, &model, folder.path(), &extra);
        let input = "image float32[?, 3, 8, 8]";
        assert_names(
            &text,
            &["new model: ", "plain.onnx", named, input, "audit.toml"],
        );
    }
}

#[test]
fn an_unknown_operator_is_named() {
    let (folder, _probe) = small();
    let text = refused(
        &odd("plain.onnx"),
        &odd("unknown_operator.onnx"),
        folder.path(),
        &[],
    );
    assert_names(
        &text,
        &["new model: ", "unknown_operator.onnx", "NoSuchOperator"],
    );
}

#[test]
fn embeddings_that_no_metric_can_use_are_refused() {
    let (folder, _probe) = small();
    let text = refused(&odd("plain.onnx"), &odd("nan.onnx"), folder.path(), &[]);
    assert_names(
        &text,
        &[
            "new model: ",
            "nan.onnx",
            "36 embeddings",
            "not finite",
            "id000/0.png",
        ],
    );
    let text = refused(&odd("zero.onnx"), &odd("plain.onnx"), folder.path(), &[]);
    assert_names(
        &text,
        &[
            "old model: ",
            "zero.onnx",
            "36 embeddings",
            "all zeros",
            "id000/0.png",
        ],
    );
}

#[test]
fn a_batch_dependent_model_runs_one_by_one() {
    let (_folder, probe) = small();
    let batched = by(&probe, "batch_dependent.onnx");
    assert!(codes(&batched.findings).contains(&FindingCode::BatchDependent));
    // Alone, half of an item's own vector is taken away.
    let plain = by(&probe, "plain.onnx");
    for item in 0..probe.items.len() {
        let half: Vec<f32> = plain
            .embeddings
            .get(item)
            .expect("there")
            .iter()
            .map(|v| v / 2.0)
            .collect();
        let found = batched.embeddings.get(item).expect("there");
        assert!(max_difference(&found, &half) <= F32);
    }
    assert!(!codes(&plain.findings).contains(&FindingCode::BatchDependent));
}

#[test]
fn the_batch_size_changes_nothing_else() {
    let (_folder, probe) = small();
    let sized = |batch_size| {
        let config = ModelConfig {
            batch_size: Some(BatchSize::Items(batch_size)),
            ..ModelConfig::default()
        };
        embed_raw(&probe, &odd("plain.onnx"), &config)
    };
    let one = sized(1);
    assert!(difference(&one, &sized(5)) <= F32);
    assert!(difference(&one, &sized(1000)) <= F32);
}

#[test]
fn models_that_differ_only_in_external_data_share_nothing() {
    let (folder, probe) = small();
    let models = ["external_a/model.onnx", "external_b/model.onnx"].map(odd);
    let [a, b] = [&models[0], &models[1]].map(|model| std::fs::read(model).expect("a model"));
    assert_eq!(a, b, "the .onnx files are the same");
    assert!(
        difference(
            &by(&probe, "plain.onnx"),
            &by(&probe, "external_a/model.onnx")
        ) <= F32
    );

    let cache = tempfile::tempdir().expect("a folder");
    super::cache::share_runtime(cache.path());
    let cache = cache.path().to_str().expect("UTF-8");
    let audit = |new: &Path| Audit::run(&models[0], new, folder.path(), &["--cache-dir", cache]);
    let same = audit(&models[0]);
    assert_eq!(
        same.report["verdict"]["rule"], 2,
        "one model against itself"
    );
    let other = audit(&models[1]);
    assert_eq!(other.report["run"]["embedded"], serde_json::json!([0, 36]));
    assert_ne!(other.report["old"]["hash"], other.report["new"]["hash"]);
    assert_ne!(other.report["verdict"]["rule"], 2, "not the same model");
    assert_ne!(other.verdict(), "skip-backfill");
}

#[test]
fn an_external_file_that_is_gone_is_named() {
    let (folder, _probe) = small();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let model = elsewhere.path().join("model.onnx");
    std::fs::copy(odd("external_a/model.onnx"), &model).expect("copied");
    let text = refused(&odd("plain.onnx"), &model, folder.path(), &[]);
    assert_names(&text, &["new model: ", "weights.bin"]);
}

#[test]
fn external_data_that_is_too_short_is_no_panic() {
    let (folder, _probe) = small();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let model = elsewhere.path().join("model.onnx");
    std::fs::copy(odd("external_a/model.onnx"), &model).expect("copied");
    std::fs::write(elsewhere.path().join("weights.bin"), [0; 16]).expect("written");
    let text = refused(&odd("plain.onnx"), &model, folder.path(), &[]);
    assert_names(&text, &["new model: ", "model.onnx"]);
}

#[test]
fn a_mean_that_is_wrong_shows() {
    let (_folder, probe) = small();
    let config = ModelConfig {
        mean: Some([0.5, 0.4, 0.3]),
        std: Some([0.2, 0.3, 0.4]),
        ..ModelConfig::default()
    };
    let found = embed_raw(&probe, &odd("plain.onnx"), &config);
    assert_eq!(codes(&found.findings), [], "nothing is assumed");
    assert!(difference(&by(&probe, "plain.onnx"), &found) > 0.1);
    assert!(codes(&by(&probe, "plain.onnx").findings).contains(&FindingCode::PreprocessingAssumed));
}

#[test]
fn dims_beyond_the_embedding_are_refused() {
    let (folder, _probe) = small();
    let config = config_file(folder.path(), "[new]\ndims = 9\n");
    let model = odd("plain.onnx");
    let text = refused(&model, &model, folder.path(), &["--config", &config]);
    assert_names(&text, &["new model: ", "dims = 9", "8 dimensions"]);
}
