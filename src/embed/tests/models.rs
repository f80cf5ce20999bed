//! What real models do: types, shapes, names, batches. `fixtures/generate/tiny_models.py` makes the files.

use super::*;

const X: [f32; 12] = [
    1.0, 2.0, 3.0, 4.0, -1.0, 0.5, 0.25, 8.0, 3.0, -2.0, 1.5, 0.125,
];

fn rows(values: &[f32]) -> Array {
    f32s("x", &[values.len() / 4, 4], values)
}

/// Runs a tiny model over one .npz.
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
        &format!("tiny_models/{model}"),
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
fn a_fixed_batch_is_filled_up() {
    // Four rows through a model of batches of three.
    let values: Vec<f32> = (0..16).map(|v| v as f32 + 1.0).collect();
    let config = ModelConfig::default();
    let embedded = run("batch_of_three.onnx", 4, &[rows(&values)], &config).expect("embedded");
    for item in 0..4 {
        assert_eq!(row(&embedded, item), values[4 * item..4 * item + 4]);
    }
    let batch = setting(&embedded.settings, "old.batch_size");
    assert_eq!((&batch.value, batch.origin), (&3.into(), Origin::Model));
    assert!(embedded.findings.is_empty());
}

#[test]
fn half_precision_in_and_out() {
    let embedded = run("half.onnx", 3, &[rows(&X)], &ModelConfig::default()).expect("embedded");
    // All of X is exact in half precision.
    assert_eq!(row(&embedded, 2), X[8..]);
}

#[test]
fn a_model_that_looks_at_its_neighbours_runs_one_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = tensor_probe(folder.path(), 3, &[rows(&X)]);
    let config = ModelConfig::default();
    let options = options(&config, Some(folder.path()));
    // Alone, the batch's mean is the item itself, and half of it is left.
    for n_embedded in [3, 0] {
        let embedded =
            run_model(&probe, "tiny_models/minus_batch_mean.onnx", &options).expect("embedded");
        assert_eq!(row(&embedded, 1), [-0.5, 0.25, 0.125, 4.0]);
        assert_eq!(embedded.n_embedded, n_embedded);
        let codes: Vec<FindingCode> = embedded.findings.iter().map(|f| f.code).collect();
        assert_eq!(codes, [FindingCode::BatchDependent], "also from the cache");
    }
    // One item tells nothing, so the next run still looks.
    let folder = tempfile::tempdir().expect("a folder");
    let options = EmbedOptions {
        cache_dir: Some(folder.path()),
        ..options
    };
    let mut single = probe.clone();
    single.items.truncate(1);
    let embedded = run_model(&single, "tiny_models/minus_batch_mean.onnx", &options);
    assert!(embedded.expect("embedded").findings.is_empty());
    let embedded = run_model(&probe, "tiny_models/minus_batch_mean.onnx", &options);
    assert_eq!(embedded.expect("embedded").findings.len(), 1);
}

#[test]
fn an_output_must_be_chosen_and_be_there() {
    let error = refused("two_outputs.onnx", 3, &[rows(&X)], &ModelConfig::default());
    assert_says(
        &error,
        &[
            "several outputs",
            "y float32[?, 4]",
            "doubled float32[?, 8]",
        ],
    );
    let of = |name: &str| ModelConfig {
        output: Some(name.into()),
        ..ModelConfig::default()
    };
    let error = refused("two_outputs.onnx", 3, &[rows(&X)], &of("z"));
    assert_says(&error, &["no output `z`", "doubled"]);
    let embedded = run("two_outputs.onnx", 3, &[rows(&X)], &of("doubled")).expect("embedded");
    assert_eq!(embedded.model.dim, 8);
    assert_eq!(embedded.model.output.as_deref(), Some("doubled"));
}

#[test]
fn dims_cut_before_anything_else() {
    let config = |dims| ModelConfig {
        dims: Some(dims),
        ..ModelConfig::default()
    };
    let embedded = run("identity.onnx", 3, &[rows(&X)], &config(2)).expect("embedded");
    assert_eq!(row(&embedded, 1), [-1.0, 0.5]);
    let error = refused("identity.onnx", 3, &[rows(&X)], &config(5));
    assert_says(&error, &["dims = 5", "4 dimensions"]);
}

#[test]
fn a_rank_3_output_needs_a_pooling() {
    let tokens = || f32s("x", &[1, 3, 2], &[1.0, 2.0, 3.0, 4.0, 8.0, 9.0]);
    let config = |pooling| ModelConfig {
        pooling,
        ..ModelConfig::default()
    };
    let error = refused("hidden.onnx", 1, &[tokens()], &config(None));
    assert_says(&error, &["output `y`", "[32, 3, 2]", "pooling"]);
    let of = |pooling, mask: Option<[i32; 3]>| {
        let mut arrays = vec![tokens()];
        arrays.extend(mask.map(|mask| i32s("attention_mask", &[1, 3], &mask)));
        row(
            &run("hidden.onnx", 1, &arrays, &config(Some(pooling))).expect("embedded"),
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
        f32s("x", &[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]),
        i32s("attention_mask", &[1, 3], &[1, 1, 1]),
    ];
    let config = ModelConfig {
        pooling: Some(Pooling::Mean),
        ..ModelConfig::default()
    };
    let error = refused("hidden.onnx", 1, &arrays, &config);
    assert!(matches!(error, EmbedError::OutputShape { .. }), "{error}");
}

#[test]
fn inputs_are_matched_by_name() {
    let arrays = [f32s("z", &[3, 4], &X), f32s("other", &[3, 1], &X[..3])];
    let error = refused("identity.onnx", 3, &arrays, &ModelConfig::default());
    assert_says(&error, &["x float32[?, 4]", "other, z"]);
    let error = refused("constant.onnx", 3, &[rows(&X)], &ModelConfig::default());
    assert_says(&error, &["takes no input"]);
}

#[test]
fn the_one_array_of_an_npy_fills_the_one_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.npy");
    std::fs::write(&file, npy(&rows(&X))).expect("written");
    let mut probe = probe_of((0..3).map(Source::TensorRow).collect(), Modality::Tensor);
    probe.tensors = Some(file);
    let config = ModelConfig::default();
    let embedded = run_model(&probe, "tiny_models/identity.onnx", &options(&config, None));
    assert_eq!(row(&embedded.expect("embedded"), 2), X[8..]);
}

#[test]
fn integers_are_cast_and_absent_ones_filled() {
    let ids = i32s("input_ids", &[2, 3], &[5, 6, 7, 1, 1, 1]);
    let mask = Array("attention_mask", "|i1", vec![2, 3], vec![1, 1, 1, 1, 1, 0]);
    let embedded = run("sums.onnx", 2, &[ids, mask], &ModelConfig::default()).expect("embedded");
    // Sums of ids, mask, token types (zeros) and positions (0 + 1 + 2).
    assert_eq!(row(&embedded, 0), [18.0, 3.0, 0.0, 3.0]);
    assert_eq!(row(&embedded, 1), [3.0, 2.0, 0.0, 3.0]);
    // A mask is never made up.
    let ids = i32s("input_ids", &[2, 3], &[5, 6, 7, 1, 1, 1]);
    let error = refused("sums.onnx", 2, &[ids], &ModelConfig::default());
    assert_says(&error, &["attention_mask int64[?, ?]", "input_ids"]);
    // Floats are no token ids.
    let arrays = [
        f32s("input_ids", &[1, 2], &[1.5, 2.0]),
        i32s("attention_mask", &[1, 2], &[1, 1]),
    ];
    let error = refused("sums.onnx", 1, &arrays, &ModelConfig::default());
    assert_says(&error, &["input_ids int64", "array of floats"]);
}

#[test]
fn a_value_that_does_not_fit_is_named() {
    // 300 in a byte image.
    let mut values = vec![7; 2 * 8 * 8 * 3];
    values[200] = 300;
    let arrays = [i32s("image", &[2, 8, 8, 3], &values)];
    let error = refused("mean_color_u8.onnx", 2, &arrays, &ModelConfig::default());
    assert_says(&error, &["300 does not fit"]);
}

#[test]
fn what_the_runtime_refuses_names_the_model() {
    let error = refused(
        "identity.onnx",
        2,
        &[f32s("x", &[2, 5], &X[..10])],
        &ModelConfig::default(),
    );
    assert!(matches!(error, EmbedError::Run { .. }));
    assert_says(&error, &["identity.onnx", "the model failed"]);
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
    let run = |config: &ModelConfig| {
        run_model(&probe, "tiny_models/identity.onnx", &options(config, None))
    };
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
            i32s("attention_mask", &[1, 2], &mask),
            i32s("input_ids", &[1, 2], &ids),
        ];
        let probe = tensor_probe(folder.path(), 1, &arrays);
        run_model(&probe, "tiny_models/sums.onnx", &options).expect("embedded")
    };
    assert_eq!(row(&run([4, 5], [1, 1]), 0)[..2], [9.0, 2.0]);
    // The same bytes under exchanged names.
    assert_eq!(row(&run([1, 1], [4, 5]), 0)[..2], [2.0, 9.0]);
    assert_eq!(run([1, 1], [4, 5]).n_embedded, 0);
    // The same bytes once as token types, once as positions.
    let run = |name: &'static str| {
        let arrays = [
            i32s("attention_mask", &[1, 2], &[1, 1]),
            i32s("input_ids", &[1, 2], &[3, 4]),
            i32s(name, &[1, 2], &[1, 1]),
        ];
        let probe = tensor_probe(folder.path(), 1, &arrays);
        run_model(&probe, "tiny_models/sums.onnx", &options).expect("embedded")
    };
    assert_eq!(row(&run("token_type_ids"), 0), [7.0, 2.0, 2.0, 1.0]);
    assert_eq!(row(&run("position_ids"), 0), [7.0, 2.0, 0.0, 2.0]);
}

#[test]
fn embeddings_that_no_metric_can_use_are_named() {
    let mut values = X;
    values[5] = f32::NAN;
    values[9] = f32::INFINITY;
    let error = refused(
        "identity.onnx",
        3,
        &[rows(&values)],
        &ModelConfig::default(),
    );
    assert_says(
        &error,
        &["2 embeddings are not finite: item1, item2", "identity.onnx"],
    );

    values = X;
    values[..4].fill(0.0);
    let folder = tempfile::tempdir().expect("a folder");
    let probe = tensor_probe(folder.path(), 3, &[rows(&values)]);
    let config = ModelConfig::default();
    let mut options = options(&config, None);
    options.similarity = Similarity::Cosine;
    let error = run_model(&probe, "tiny_models/identity.onnx", &options);
    let error = error.err().expect("a zero has no direction");
    assert_says(&error, &["1 embeddings are all zeros: item0"]);
}

/// Images of 8 x 8 in one colour each.
fn color_probe(folder: &Path, colors: &[[u8; 3]]) -> Probe {
    let sources = colors.iter().enumerate().map(|(i, &color)| {
        let path = folder.join(format!("{i}.png"));
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb(color));
        picture.save(&path).expect("written");
        Source::Image(path)
    });
    probe_of(sources.collect(), Modality::Image)
}

#[test]
fn a_model_of_bytes_gets_levels_in_its_own_layout() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = color_probe(folder.path(), &[[1, 2, 255], [9, 0, 7]]);
    let config = ModelConfig::default();
    let embedded = run_model(
        &probe,
        "tiny_models/mean_color_u8.onnx",
        &options(&config, None),
    );
    let embedded = embedded.expect("embedded");
    assert_eq!(row(&embedded, 0), [1.0, 2.0, 255.0]);
    assert_eq!(row(&embedded, 1), [9.0, 0.0, 7.0]);
    // Nothing is assumed: a model of bytes normalises them itself.
    assert!(embedded.findings.is_empty());
    let layout = setting(&embedded.settings, "old.layout");
    assert_eq!(
        (&layout.value, layout.origin),
        (&"nhwc".into(), Origin::Model)
    );
    assert_eq!(
        setting(&embedded.settings, "old.scale").origin,
        Origin::Model
    );
}

#[test]
fn a_model_of_any_size_needs_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = color_probe(folder.path(), &[[51, 102, 255]]);
    let run = |config: &ModelConfig| {
        run_model(
            &probe,
            "tiny_models/mean_color.onnx",
            &options(config, None),
        )
    };
    let error = run(&ModelConfig::default()).err().expect("no size");
    assert_says(
        &error,
        &["image float32[?, 3, ?, ?]", "no size is configured"],
    );
    let config = ModelConfig {
        size: Some(Size::Square(8)),
        mean: Some([0.2, 0.0, 0.0]),
        std: Some([1.0, 0.5, 1.0]),
        ..ModelConfig::default()
    };
    let embedded = run(&config).expect("embedded");
    // (batch, 3, 1, 1) is an embedding too.
    assert_close(&row(&embedded, 0), &[0.0, 0.8, 1.0], "normalised colour");
    assert!(embedded.findings.is_empty(), "mean and std are configured");
}

#[test]
fn sidecars_stand_between_configuration_and_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = color_probe(folder.path(), &[[51, 102, 255]]);
    let model = folder.path().join("model.onnx");
    std::fs::copy(fixture("data/tiny_models/mean_color.onnx"), &model).expect("copied");
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
    let error = run_model(&probe, "tiny_models/identity.onnx", &options(&config, None));
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
    let description = describe(&probe, &source, &options, Some(runtime())).expect("described");
    assert_eq!(description.inputs, ["image float32[?, 3, 32, 32]"]);
    assert_eq!(description.outputs, ["embedding float32[?, 64]"]);
    assert_eq!(
        setting(&description.settings, "old.filter").origin,
        Origin::Default
    );
    let error = describe(&probe, &source, &options, None).err();
    assert!(matches!(error, Some(EmbedError::NoRuntime { .. })));
}
