//! What real models do: types, shapes, names, batches. `fixtures/generate/odd_models.py` makes the files.

use super::*;

const X: [f32; 12] = [
    1.0, 2.0, 3.0, 4.0, -1.0, 0.5, 0.25, 8.0, 3.0, -2.0, 1.5, 0.125,
];

fn rows(values: &[f32]) -> Array {
    Array::new::<f32>("x", &[values.len() / 4, 4], values)
}

/// Runs an odd model over one .npz.
fn run(
    model: &str,
    n: usize,
    arrays: &[Array],
    config: &ModelConfig,
) -> Result<Embedded, EmbedError> {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = tensor_probe(folder.path(), n, arrays);
    run_model(
        &probe,
        &format!("odd_models/{model}"),
        &options(config, None),
    )
}

fn refused(model: &str, n: usize, arrays: &[Array], config: &ModelConfig) -> EmbedError {
    run(model, n, arrays, config).err().expect("refused")
}

fn assert_says(error: &EmbedError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
}

#[test]
fn one_item_does_not_tell_whether_the_batch_matters() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = color_probe(folder.path(), &[[250, 0, 0], [0, 250, 0], [0, 0, 250]]);
    let mut single = probe.clone();
    single.items.truncate(1);
    let config = ModelConfig::default();
    let options = options(&config, Some(folder.path()));
    let noticed = |probe: &Probe| {
        let embedded = run_model(probe, "odd_models/batch_dependent.onnx", &options);
        let findings = embedded.expect("embedded").findings;
        findings
            .iter()
            .any(|finding| finding.code == FindingCode::BatchDependent)
    };
    assert!(!noticed(&single));
    assert!(noticed(&probe));
    assert!(noticed(&probe), "also when all comes from the cache");
}

/// A probe of nearly equal pictures does not show it; what was made in its batches is made again when another one does.
#[test]
fn what_an_earlier_probe_hid_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let colors = [[100, 100, 100], [101, 101, 100], [250, 0, 0], [0, 250, 0]];
    let probe = color_probe(folder.path(), &colors);
    let mut equal = probe.clone();
    equal.items.truncate(2);
    let config = ModelConfig::default();
    let model = "odd_models/batch_dependent.onnx";
    let by =
        |probe: &Probe, cache| run_model(probe, model, &options(&config, cache)).expect("embedded");
    let is_noticed = |embedded: &Embedded| {
        let mut codes = embedded.findings.iter().map(|finding| finding.code);
        codes.any(|code| code == FindingCode::BatchDependent)
    };
    let cache = Some(folder.path());
    assert!(!is_noticed(&by(&equal, cache)));
    let found = by(&probe, cache);
    assert!(is_noticed(&found));
    assert_eq!((found.n_from_cache, found.n_embedded), (0, 4));
    assert_eq!(found.embeddings, by(&probe, None).embeddings);
    assert_eq!(by(&probe, cache).n_from_cache, 4);
}

#[test]
fn dims_cut_before_anything_else() {
    let config = |dims| ModelConfig {
        dims: Some(dims),
        ..ModelConfig::default()
    };
    let embedded = run("vectors.onnx", 3, &[rows(&X)], &config(2)).expect("embedded");
    assert_eq!(row(&embedded, 1), [-1.0, 0.5]);
    let error = refused("vectors.onnx", 3, &[rows(&X)], &config(5));
    assert_says(&error, &["dims = 5", "4 dimensions"]);
}

#[test]
fn a_rank_3_output_needs_a_pooling() {
    let tokens = || Array::new::<f32>("x", &[1, 3, 2], &[1.0, 2.0, 3.0, 4.0, 8.0, 9.0]);
    let config = |pooling| ModelConfig {
        pooling,
        ..ModelConfig::default()
    };
    let error = refused("states.onnx", 1, &[tokens()], &config(None));
    assert_says(&error, &["output `states`", "[32, 3, 2]", "pooling"]);
    let of = |pooling, mask: Option<[i32; 3]>| {
        let mut arrays = vec![tokens()];
        arrays.extend(mask.map(|mask| Array::new::<i32>("attention_mask", &[1, 3], &mask)));
        row(
            &run("states.onnx", 1, &arrays, &config(Some(pooling))).expect("embedded"),
            0,
        )
    };
    assert_eq!(of(Pooling::Mean, None), [4.0, 5.0]);
    assert_eq!(of(Pooling::Mean, Some([1, 1, 0])), [2.0, 3.0]);
    assert_eq!(of(Pooling::Cls, Some([1, 1, 0])), [1.0, 2.0]);
}

#[test]
fn a_mask_of_another_length_cannot_pool() {
    let arrays = [
        Array::new::<f32>("x", &[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]),
        Array::new::<i32>("attention_mask", &[1, 3], &[1, 1, 1]),
    ];
    let config = ModelConfig {
        pooling: Some(Pooling::Mean),
        ..ModelConfig::default()
    };
    let error = refused("states.onnx", 1, &arrays, &config);
    assert!(matches!(error, EmbedError::OutputShape { .. }), "{error}");
}

#[test]
fn inputs_are_matched_by_name() {
    let arrays = [
        Array::new::<f32>("z", &[3, 4], &X),
        Array::new::<f32>("other", &[3, 1], &X[..3]),
    ];
    let error = refused("vectors.onnx", 3, &arrays, &ModelConfig::default());
    assert_says(&error, &["x float32[?, 4]", "other, z"]);
    let error = refused("no_input.onnx", 3, &[rows(&X)], &ModelConfig::default());
    assert_says(&error, &["takes no input"]);
}

#[test]
fn the_one_array_of_an_npy_fills_the_one_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.npy");
    std::fs::write(&file, rows(&X).1).expect("written");
    let mut probe = probe_of((0..3).map(Source::TensorRow).collect(), Modality::Tensor);
    probe.tensors = Some(file);
    let config = ModelConfig::default();
    let embedded = run_model(&probe, "odd_models/vectors.onnx", &options(&config, None));
    assert_eq!(row(&embedded.expect("embedded"), 2), X[8..]);
}

#[test]
fn integers_are_cast_and_absent_ones_filled() {
    let ids = Array::new::<i32>("input_ids", &[2, 3], &[5, 6, 7, 1, 1, 1]);
    let mask = Array::new("attention_mask", &[2, 3], &[1_i8, 1, 1, 1, 1, 0]);
    let embedded = run("sums.onnx", 2, &[ids, mask], &ModelConfig::default()).expect("embedded");
    // Sums of ids, mask, token types (zeros) and positions (0 + 1 + 2).
    assert_eq!(row(&embedded, 0), [18.0, 3.0, 0.0, 3.0]);
    assert_eq!(row(&embedded, 1), [3.0, 2.0, 0.0, 3.0]);
    // A mask is never made up.
    let ids = Array::new::<i32>("input_ids", &[2, 3], &[5, 6, 7, 1, 1, 1]);
    let error = refused("sums.onnx", 2, &[ids], &ModelConfig::default());
    assert_says(&error, &["attention_mask int64[?, ?]", "input_ids"]);
    // Floats are no token ids.
    let arrays = [
        Array::new::<f32>("input_ids", &[1, 2], &[1.5, 2.0]),
        Array::new::<i32>("attention_mask", &[1, 2], &[1, 1]),
    ];
    let error = refused("sums.onnx", 1, &arrays, &ModelConfig::default());
    assert_says(&error, &["input_ids int64", "the value 1.5"]);
}

#[test]
fn what_the_runtime_refuses_names_the_model() {
    let error = refused(
        "vectors.onnx",
        2,
        &[Array::new::<f32>("x", &[2, 5], &X[..10])],
        &ModelConfig::default(),
    );
    assert!(matches!(error, EmbedError::Run { .. }));
    assert_says(&error, &["vectors.onnx", "the model failed"]);
}

#[test]
fn a_models_own_tensors() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = tensor_probe(folder.path(), 3, &[rows(&X)]);
    let own = npz(&folder.path().join("own.npz"), &[rows(&X.map(|v| 2.0 * v))]);
    let config = ModelConfig {
        tensors: Some(own.clone()),
        ..ModelConfig::default()
    };
    let run =
        |config: &ModelConfig| run_model(&probe, "odd_models/vectors.onnx", &options(config, None));
    let plain = run(&ModelConfig::default()).expect("embedded");
    let doubled = run(&config).expect("embedded");
    assert_eq!(
        row(&doubled, 2),
        X[8..].iter().map(|v| 2.0 * v).collect::<Vec<_>>()
    );
    let tensors = setting(&doubled.settings, "old.tensors");
    assert_eq!(
        (&tensors.value, tensors.origin),
        (&"own.npz".into(), Origin::File)
    );
    // One model over two sets of inputs is not the same model twice.
    assert_eq!(plain.model.hash, doubled.model.hash);
    assert_ne!(
        plain.model.preprocessing_key,
        doubled.model.preprocessing_key
    );

    npz(&own, &[rows(&X[..8])]);
    let error = run(&config).err().expect("too few rows");
    assert_says(&error, &["own.npz", "expected 3 rows", "found 2"]);
}

#[test]
fn rows_of_other_arrays_are_not_the_same_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = ModelConfig::default();
    let options = options(&config, Some(folder.path()));
    let run = |ids: [i32; 2], mask: [i32; 2]| {
        let arrays = [
            Array::new::<i32>("attention_mask", &[1, 2], &mask),
            Array::new::<i32>("input_ids", &[1, 2], &ids),
        ];
        let probe = tensor_probe(folder.path(), 1, &arrays);
        run_model(&probe, "odd_models/sums.onnx", &options).expect("embedded")
    };
    assert_eq!(row(&run([4, 5], [1, 1]), 0)[..2], [9.0, 2.0]);
    // The same bytes under exchanged names.
    assert_eq!(row(&run([1, 1], [4, 5]), 0)[..2], [2.0, 9.0]);
    assert_eq!(run([1, 1], [4, 5]).n_embedded, 0);
    // The same bytes once as token types, once as positions.
    let run = |name: &'static str| {
        let arrays = [
            Array::new::<i32>("attention_mask", &[1, 2], &[1, 1]),
            Array::new::<i32>("input_ids", &[1, 2], &[3, 4]),
            Array::new::<i32>(name, &[1, 2], &[1, 1]),
        ];
        let probe = tensor_probe(folder.path(), 1, &arrays);
        run_model(&probe, "odd_models/sums.onnx", &options).expect("embedded")
    };
    assert_eq!(row(&run("token_type_ids"), 0), [7.0, 2.0, 2.0, 1.0]);
    assert_eq!(row(&run("position_ids"), 0), [7.0, 2.0, 0.0, 2.0]);
}

#[test]
fn embeddings_that_no_metric_can_use_are_named() {
    let mut values = X;
    values[5] = f32::NAN;
    values[9] = f32::INFINITY;
    let error = refused("vectors.onnx", 3, &[rows(&values)], &ModelConfig::default());
    assert_says(
        &error,
        &["2 embeddings are not finite: item1, item2", "vectors.onnx"],
    );

    values = X;
    values[..4].fill(0.0);
    let folder = tempfile::tempdir().expect("a folder");
    let probe = tensor_probe(folder.path(), 3, &[rows(&values)]);
    let config = ModelConfig::default();
    let mut options = options(&config, None);
    options.similarity = Similarity::Cosine;
    let error = run_model(&probe, "odd_models/vectors.onnx", &options);
    let error = error.err().expect("a zero has no direction");
    assert_says(&error, &["1 embeddings are all zeros: item0"]);
}

#[test]
fn sidecars_stand_between_configuration_and_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = color_probe(folder.path(), &[[51, 102, 255]]);
    let model = folder.path().join("model.onnx");
    std::fs::copy(fixture("data/odd_models/mean_color.onnx"), &model).expect("copied");
    let sidecar = r#"{"do_resize": true, "size": {"height": 4, "width": 4}, "do_rescale": true,
        "rescale_factor": 0.00392156862745098, "do_normalize": true,
        "image_mean": [0.2, 0.4, 1.0], "image_std": [1.0, 1.0, 0.5]}"#;
    std::fs::write(folder.path().join("preprocessor_config.json"), sidecar).expect("written");
    let run = |config: &ModelConfig| {
        let source = ModelSource::Onnx(model.clone());
        embed(
            &probe,
            &source,
            &options(config, None),
            Some(runtime()),
            &NoProgress,
        )
        .expect("embedded")
    };
    let embedded = run(&ModelConfig::default());
    assert_close(&row(&embedded, 0), &[0.0, 0.0, 0.0], "the sidecar's mean");
    let mean = setting(&embedded.settings, "old.mean");
    assert_eq!(mean.origin, Origin::Sidecar);
    assert_eq!(
        setting(&embedded.settings, "old.color").origin,
        Origin::Default
    );
    assert!(embedded.findings.is_empty());

    let config = ModelConfig {
        mean: Some([0.0; 3]),
        ..ModelConfig::default()
    };
    let embedded = run(&config);
    assert_close(
        &row(&embedded, 0),
        &[0.2, 0.4, 2.0],
        "the configured mean, the sidecar's std",
    );
    assert_eq!(setting(&embedded.settings, "old.mean").origin, Origin::File);

    // A file that leaves mean and std to its processor's defaults does not say how images are prepared.
    for (text, is_assumed) in [
        ("{}", true),
        (r#"{"image_mean": [0.5, 0.5, 0.5]}"#, true),
        (r#"{"do_normalize": false}"#, false),
    ] {
        std::fs::write(folder.path().join("preprocessor_config.json"), text).expect("written");
        let sized = ModelConfig {
            size: Some(Size::Square(4)),
            ..ModelConfig::default()
        };
        let codes: Vec<_> = run(&sized)
            .findings
            .iter()
            .map(|finding| finding.code)
            .collect();
        let assumed = codes.contains(&FindingCode::PreprocessingAssumed);
        assert_eq!(assumed, is_assumed, "{text}");
    }
}

#[test]
fn a_shorter_side_without_numbers_takes_the_models() {
    let mut probe = emoji();
    probe.items.truncate(2);
    let config = ModelConfig {
        resize: Some(ResizeMode::ShorterSideTorchvision),
        ..ModelConfig::default()
    };
    let embedded = run_model(&probe, "emoji/old.onnx", &options(&config, None)).expect("embedded");
    let size = setting(&embedded.settings, "old.size");
    assert_eq!((&size.value, size.origin), (&32.into(), Origin::Model));
    assert_eq!(
        setting(&embedded.settings, "old.crop").origin,
        Origin::Model
    );

    let config = ModelConfig {
        size: Some(Size::Square(64)),
        ..ModelConfig::default()
    };
    let error = run_model(&probe, "emoji/old.onnx", &options(&config, None));
    let error = error.err().expect("another size");
    assert_says(&error, &["image float32[?, 3, 32, 32]", "64 x 64"]);
}

#[test]
fn a_model_of_vectors_is_no_image_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = color_probe(folder.path(), &[[1, 2, 3]]);
    let config = ModelConfig::default();
    let error = run_model(&probe, "odd_models/vectors.onnx", &options(&config, None));
    let error = error.err().expect("refused");
    assert_says(&error, &["one image input", "x float32[?, 4]"]);
}

#[test]
fn describing_runs_nothing_and_refuses_what_embedding_would() {
    let mut probe = emoji();
    probe.items.truncate(1);
    let config = ModelConfig::default();
    let source = ModelSource::Onnx(fixture("data/emoji/old.onnx"));
    let options = options(&config, None);
    let description = describe(
        &probe,
        &source,
        &options,
        Some(runtime()),
        Questions::Refused,
    )
    .expect("described");
    assert_eq!(description.inputs, ["image float32[?, 3, 32, 32]"]);
    assert_eq!(description.outputs, ["embedding float32[?, 64]"]);
    assert_eq!(
        setting(&description.settings, "old.filter").origin,
        Origin::Default
    );
    let error = describe(&probe, &source, &options, None, Questions::Refused).err();
    assert!(matches!(error, Some(EmbedError::NoRuntime { .. })));
}
