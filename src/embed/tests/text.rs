//! Texts through a real tokenizer and a tiny transformer. `fixtures/generate/tiny_text.py` makes the files.

use super::*;

const MODEL: &str = "tiny_text/old.onnx";

#[derive(Deserialize)]
struct Golden {
    pad_id: i64,
    texts: Vec<String>,
    embeddings: std::collections::BTreeMap<String, Vec<Vec<f64>>>,
}

fn golden_texts() -> (Golden, Probe) {
    let golden: Golden = golden("tiny_text.json");
    let texts: Vec<&str> = golden.texts.iter().map(String::as_str).collect();
    let probe = text_probe(&texts);
    (golden, probe)
}

#[test]
fn embeddings_are_those_of_python_whatever_the_batch() {
    let (golden, probe) = golden_texts();
    assert_eq!(golden.texts.len(), 9);
    for batch_size in [1, 2, 32] {
        let config = ModelConfig {
            batch_size: Some(BatchSize::Items(batch_size)),
            ..ModelConfig::default()
        };
        let embedded = run_model(&probe, MODEL, &options(&config, None)).expect("embedded");
        for (item, expected) in golden.embeddings["old"].iter().enumerate() {
            assert_close(&row(&embedded, item), expected, &golden.texts[item]);
        }
        assert!(embedded.findings.is_empty());
        let pooling = setting(&embedded.settings, "old.pooling");
        assert_eq!(
            (&pooling.value, pooling.origin),
            (&"mean".into(), Origin::Sidecar)
        );
        let length = setting(&embedded.settings, "old.max_length");
        assert_eq!(
            (&length.value, length.origin),
            (&48.into(), Origin::Sidecar)
        );
    }
}

#[test]
fn what_is_byte_identical_is_the_text_not_its_prefix() {
    let (_, probe) = golden_texts();
    let config = ModelConfig {
        prefix: Some("query: ".into()),
        ..ModelConfig::default()
    };
    let plain = ModelConfig::default();
    let run = |config| run_model(&probe, MODEL, &options(config, None)).expect("embedded");
    let (prefixed, bare) = (run(&config), run(&plain));
    assert_eq!(prefixed.input_digests, bare.input_digests);
    assert_ne!(prefixed.embeddings, bare.embeddings);
}

#[test]
fn a_second_run_tokenises_and_embeds_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, probe) = golden_texts();
    let config = ModelConfig::default();
    let options = options(&config, Some(folder.path()));
    let first = run_model(&probe, MODEL, &options).expect("embedded");
    let second = run_model(&probe, MODEL, &options).expect("embedded");
    assert_eq!((first.n_embedded, second.n_embedded), (9, 0));
    assert_eq!(first.embeddings, second.embeddings);
    let shorter = ModelConfig {
        max_length: Some(8),
        ..ModelConfig::default()
    };
    let options = EmbedOptions {
        model: &shorter,
        ..options
    };
    assert_eq!(
        run_model(&probe, MODEL, &options)
            .expect("embedded")
            .n_embedded,
        9
    );
}

/// A tiny model beside the real tokenizer.
fn with_tokenizer(model: &str) -> ModelConfig {
    assert!(fixture("data/odd_models").join(model).is_file());
    ModelConfig {
        tokenizer: Some(fixture("data/tiny_text/tokenizer.json")),
        ..ModelConfig::default()
    }
}

#[test]
fn all_four_inputs_are_filled() {
    let (golden, _) = golden_texts();
    let probe = text_probe(&["", &golden.texts[0]]);
    for model in ["sums.onnx", "sums_of_six.onnx"] {
        let mut config = with_tokenizer(model);
        config.max_length = Some(5);
        // Alone, so that nothing but a fixed length pads.
        config.batch_size = Some(BatchSize::Items(1));
        let model = format!("odd_models/{model}");
        let embedded = run_model(&probe, &model, &options(&config, None)).expect("embedded");
        for (item, length) in [(0, 2), (1, 5)] {
            let padded = if model.contains("six") { 6 } else { length };
            let sums = row(&embedded, item);
            let positions: usize = (0..padded).sum();
            assert_eq!(sums[1..], [length as f32, 0.0, positions as f32], "{model}");
        }
        // [CLS] [SEP], then the padding token, which is not id 0.
        let padding = if model.contains("six") {
            4 * golden.pad_id
        } else {
            0
        };
        assert_eq!(row(&embedded, 0)[0], (1 + 2 + padding) as f32);
    }
    // Six tokens are all that the model takes.
    let config = with_tokenizer("sums_of_six.onnx");
    let options = options(&config, None);
    let embedded = run_model(&probe, "odd_models/sums_of_six.onnx", &options).expect("embedded");
    assert_eq!(row(&embedded, 1)[1], 6.0);
}

#[test]
fn the_text_beside_a_tensor_row_is_tokenised_where_a_tokenizer_is_given() {
    let (golden, _) = golden_texts();
    let mut probe = probe_of(vec![Source::TensorRow(0)], Modality::Tensor);
    probe.items[0].beside = Some(Box::new(crate::domain::Beside {
        text: Some(golden.texts[0].as_str().into()),
        ..crate::domain::Beside::default()
    }));
    let config = with_tokenizer("sums.onnx");
    let run = |probe: &Probe| run_model(probe, MODEL, &options(&config, None));
    assert_close(
        &row(&run(&probe).expect("embedded"), 0),
        &golden.embeddings["old"][0],
        "text",
    );
    probe.items[0].beside = None;
    let message = run(&probe).err().expect("no text").to_string();
    assert!(
        message.contains("`item0`: the item has no text"),
        "{message}"
    );
}

#[test]
fn what_a_text_model_cannot_do_without() {
    let probe = text_probe(&["a"]);
    let run = |model: &str, config: &ModelConfig| {
        run_model(&probe, model, &options(config, None))
            .err()
            .expect("refused")
    };
    let error = run("odd_models/sums.onnx", &ModelConfig::default());
    assert!(matches!(error, EmbedError::NoTokenizer { .. }), "{error}");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("tokenizer.json"))
    );

    let error = run("odd_models/vectors.onnx", &with_tokenizer("vectors.onnx"));
    let message = error.to_string();
    assert!(
        message.contains("x float32[?, 4]") && message.contains("input_ids"),
        "{message}"
    );

    let mut config = with_tokenizer("sums.onnx");
    config.max_length = Some(2);
    let message = run("odd_models/sums.onnx", &config).to_string();
    assert!(message.contains("max_length = 2"), "{message}");

    config.tokenizer = Some(fixture("golden/tiny_text.json"));
    let message = run("odd_models/sums.onnx", &config).to_string();
    assert!(message.contains("golden/tiny_text.json"), "{message}");
}

/// A model beside nothing but its tokenizer.
fn with_tokenizer_alone(folder: &Path) -> ModelSource {
    let model = folder.join("model.onnx");
    std::fs::copy(fixture("data/tiny_text/old.onnx"), &model).expect("copied");
    let tokenizer = fixture("data/tiny_text/tokenizer.json");
    std::fs::copy(tokenizer, folder.join("tokenizer.json")).expect("copied");
    ModelSource::Onnx(model)
}

/// Takes a part out of the tokenizer in the folder.
fn without(folder: &Path, part: &str) {
    let file = folder.join("tokenizer.json");
    let text = std::fs::read_to_string(&file).expect("read");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let had = json[part].take();
    assert!(had.is_object(), "the fixture has it");
    std::fs::write(&file, json.to_string()).expect("written");
}

#[test]
fn a_pooling_that_is_not_known_is_refused_unless_overruled() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("1_Pooling")).expect("created");
    let sidecar = folder.path().join("1_Pooling/config.json");
    let source = with_tokenizer_alone(folder.path());
    let probe = text_probe(&["one text", "and another one"]);
    let run = |json: &str, config: &ModelConfig| {
        std::fs::write(&sidecar, json).expect("written");
        embed(
            &probe,
            &source,
            &options(config, None),
            Some(runtime()),
            &NoProgress,
        )
    };
    let plain = ModelConfig::default();
    let message =
        |json: &str, config: &ModelConfig| run(json, config).err().expect("refused").to_string();
    let two = r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}"#;
    let found = message(two, &plain);
    assert!(
        found.contains("max_tokens and mean_tokens")
            || found.contains("mean_tokens and max_tokens"),
        "{found}"
    );
    let exchanged = r#"{"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true}"#;
    assert!(message(exchanged, &plain).contains("max_tokens and mean_tokens"));
    let last = r#"{"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false}"#;
    assert!(message(last, &plain).contains("found lasttoken"));
    assert!(message("[]", &plain).contains("1_Pooling/config.json"));
    let prompt = r#"{"pooling_mode_mean_tokens": true, "include_prompt": false}"#;
    let prefixed = ModelConfig {
        prefix: Some("passage: ".into()),
        ..ModelConfig::default()
    };
    assert!(message(prompt, &prefixed).contains("include_prompt"));
    assert!(run(prompt, &plain).is_ok());
    let overruled = ModelConfig {
        pooling: Some(Pooling::Cls),
        ..ModelConfig::default()
    };
    assert!(run(two, &overruled).is_ok());
    let cls = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
    let found = run(cls, &plain).expect("embedded");
    let expected = run(two, &overruled).expect("embedded");
    assert_eq!(found.embeddings, expected.embeddings);
    // As newer versions write it.
    for named in [r#"{"pooling_mode": "cls"}"#, r#"{"pooling_mode": ["cls"]}"#] {
        let found = run(named, &plain).expect("embedded");
        assert_eq!(found.embeddings, expected.embeddings);
    }
    std::fs::write(
        folder.path().join("modules.json"),
        r#"[{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"},
            {"type": "sentence_transformers.models.Dense"}]"#,
    )
    .expect("written");
    let dense = run(cls, &plain).expect("embedded");
    let codes: Vec<_> = dense.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [FindingCode::ModulesIgnored]);
    let weighted = r#"{"pooling_mode": "weightedmean"}"#;
    assert!(message(weighted, &plain).contains("found weightedmean"));
}

#[test]
fn sentence_transformers_longest_sequence_takes_the_place_of_the_tokenizers_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = with_tokenizer_alone(folder.path());
    let probe = text_probe(&["one text of more than a few words, so that it can be cut short"]);
    let run = |config: &ModelConfig| {
        let options = options(config, None);
        embed(&probe, &source, &options, Some(runtime()), &NoProgress)
    };
    let plain = ModelConfig {
        pooling: Some(Pooling::Mean),
        ..ModelConfig::default()
    };
    let own = run(&plain).expect("embedded");
    let of_five = ModelConfig {
        max_length: Some(5),
        ..plain.clone()
    };
    let short = run(&of_five).expect("embedded");
    assert_ne!(own.embeddings, short.embeddings);
    let sidecar = folder.path().join("sentence_bert_config.json");
    let with = |json: &str, config: &ModelConfig| {
        std::fs::write(&sidecar, json).expect("written");
        run(config)
    };
    let found = with(r#"{"max_seq_length": 5, "do_lower_case": false}"#, &plain);
    let found = found.expect("embedded");
    assert_eq!(found.embeddings, short.embeddings);
    let length = found.settings.iter().find(|s| s.key == "old.max_length");
    assert_eq!(length.map(|setting| setting.origin), Some(Origin::Sidecar));
    for silent in [r#"{"max_seq_length": null}"#, "{}"] {
        let found = with(silent, &plain).expect("embedded");
        assert_eq!(found.embeddings, own.embeddings, "{silent}");
    }
    for wrong in [
        r#"{"max_seq_length": 0}"#,
        r#"{"max_seq_length": "5"}"#,
        "[5]",
        "{",
    ] {
        let message = with(wrong, &plain).err().expect("refused").to_string();
        assert!(message.contains("sentence_bert_config.json"), "{message}");
        // What overrules it is not asked.
        assert!(with(wrong, &of_five).is_ok());
    }
}

#[test]
fn the_tokenizers_length_counts_where_nothing_else_names_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = with_tokenizer_alone(folder.path());
    // One that cuts nothing by itself.
    without(folder.path(), "truncation");
    let probe = text_probe(&["one text of more than a few words, so that it can be cut short"]);
    let config = ModelConfig {
        pooling: Some(Pooling::Mean),
        ..ModelConfig::default()
    };
    let length = |of_tokenizer: &str, of_model: &str| {
        for (name, json) in [
            ("tokenizer_config.json", of_tokenizer),
            ("config.json", of_model),
        ] {
            std::fs::write(folder.path().join(name), json).expect("written");
        }
        let options = options(&config, None);
        let embedded = embed(&probe, &source, &options, Some(runtime()), &NoProgress);
        let settings = embedded.expect("embedded").settings.into_iter();
        let mut lengths = settings.filter(|setting| setting.key == "old.max_length");
        let length = lengths.next().expect("noted");
        (length.value.as_u64().expect("a number"), length.origin)
    };
    let none = "{}";
    assert_eq!(length(none, none), (512, Origin::Default));
    let five = r#"{"model_max_length": 5}"#;
    assert_eq!(length(five, none), (5, Origin::Sidecar));
    let positions = r#"{"max_position_embeddings": 4}"#;
    assert_eq!(length(five, positions), (4, Origin::Sidecar));
    let unlimited = r#"{"model_max_length": 1000000000000000019884624838656}"#;
    assert_eq!(length(unlimited, none), (512, Origin::Default));
    assert_eq!(length(unlimited, positions), (4, Origin::Sidecar));
    for silent in ["{", "[]", r#"{"model_max_length": "5"}"#] {
        assert_eq!(length(silent, positions), (512, Origin::Default));
    }
}

#[test]
fn sentence_transformers_lower_case_comes_before_the_tokenizer() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = with_tokenizer_alone(folder.path());
    // One that lowers nothing by itself.
    without(folder.path(), "normalizer");
    let cache = tempfile::tempdir().expect("a folder");
    let config = ModelConfig {
        pooling: Some(Pooling::Mean),
        ..ModelConfig::default()
    };
    let run = |text: &str| {
        let options = options(&config, Some(cache.path()));
        let probe = text_probe(&[text]);
        let embedded = embed(&probe, &source, &options, Some(runtime()), &NoProgress);
        embedded.expect("embedded")
    };
    let (mixed, lower) = (run("One Text"), run("one text"));
    assert_ne!(mixed.embeddings, lower.embeddings);
    std::fs::write(
        folder.path().join("sentence_bert_config.json"),
        r#"{"do_lower_case": true}"#,
    )
    .expect("written");
    // Not what the cache holds of the text as it is.
    let lowered = run("One Text");
    assert_eq!(lowered.embeddings, lower.embeddings);
    let keys: Vec<&str> = lowered.settings.iter().map(|s| s.key.as_str()).collect();
    assert!(keys.contains(&"old.do_lower_case"), "{keys:?}");
}

#[test]
fn prompts_that_nothing_applies_are_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = with_tokenizer_alone(folder.path());
    let probe = text_probe(&["one text", "and another one"]);
    let sidecar = folder.path().join("config_sentence_transformers.json");
    let noticed = |json: &str, prefix: Option<&str>| {
        std::fs::write(&sidecar, json).expect("written");
        let config = ModelConfig {
            pooling: Some(Pooling::Mean),
            prefix: prefix.map(str::to_owned),
            ..ModelConfig::default()
        };
        let options = options(&config, None);
        let embedded = embed(&probe, &source, &options, Some(runtime()), &NoProgress);
        let findings = embedded.expect("embedded").findings.into_iter();
        let found = findings.filter(|finding| finding.code == FindingCode::PromptsUnused);
        found.map(|finding| finding.message).collect::<Vec<_>>()
    };
    let two = r#"{"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": null}"#;
    let [message] = &noticed(two, None)[..] else {
        panic!("one finding")
    };
    assert!(message.contains("prompts (query);"), "{message}");
    // One that is configured, if only to be none.
    assert!(noticed(two, Some("query: ")).is_empty() && noticed(two, Some("")).is_empty());
    let many = r#"{"prompts": {"a": "a", "b": "b", "c": "c", "d": "d", "e": "e", "f": "f"}, "default_prompt_name": "e"}"#;
    let message = noticed(many, None).concat();
    let expected = "prompts (a, b, c, d and 2 more, `e` before every text);";
    assert!(message.contains(expected), "{message}");
    let nothing = [
        r#"{"prompts": {}}"#,
        r#"{"prompts": {"query": "", "document": ""}}"#,
        r#"{"__version__": {}}"#,
        "{",
    ];
    assert!(nothing.iter().all(|json| noticed(json, None).is_empty()));
}
