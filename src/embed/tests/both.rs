//! Two models at once: each input is read and decoded once, and nothing else is different.

use super::*;
use crate::embed::counting;

fn sides<'a>(
    configs: &'a [ModelConfig; 2],
    cache_dir: Option<&'a Path>,
    max_bad_items: usize,
) -> [EmbedOptions<'a>; 2] {
    let side = |side, model| EmbedOptions {
        side,
        max_bad_items,
        ..options(model, cache_dir)
    };
    [side(Side::Old, &configs[0]), side(Side::New, &configs[1])]
}

fn together(probe: &Probe, models: [&str; 2], options: &[EmbedOptions<'_>; 2]) -> [Embedded; 2] {
    let [old, new] = models.map(|model| ModelSource::Onnx(fixture("data").join(model)));
    let heard = Heard::default();
    let sides = [(&old, &options[0]), (&new, &options[1])];
    let embedded = embed_both(probe, sides, Some(runtime()), &heard);
    let [total, done] = [heard.total, heard.done].map(AtomicU64::into_inner);
    assert_eq!(total, done);
    embedded.unwrap_or_else(|(side, error)| panic!("{side}: {error}"))
}

fn apart(probe: &Probe, models: [&str; 2], options: &[EmbedOptions<'_>; 2]) -> [Embedded; 2] {
    [0, 1].map(|i| run_model(probe, models[i], &options[i]).expect("embedded"))
}

fn assert_same(found: &[Embedded; 2], expected: &[Embedded; 2]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.embeddings, expected.embeddings);
        assert_eq!(found.input_digests, expected.input_digests);
        assert_eq!(found.findings, expected.findings);
        assert_eq!(found.settings, expected.settings);
        assert_eq!(found.bad_items, expected.bad_items);
        assert_eq!(found.model, expected.model);
    }
}

/// Reads and decodings of each item since the last time.
fn counts(probe: &Probe) -> Vec<[usize; 2]> {
    probe.items.iter().map(counting::take).collect()
}

/// Emoji under paths of their own, so that nobody else counts them.
fn copied(folder: &Path, n: usize) -> Probe {
    let mut probe = emoji();
    probe.items.truncate(n);
    for (i, item) in probe.items.iter_mut().enumerate() {
        let Some(Source::Image(from)) = item.source.as_deref() else {
            panic!("emoji are images");
        };
        let to = folder.join(format!("{i}.png"));
        std::fs::copy(from, &to).expect("copied");
        item.source = Some(Box::new(Source::Image(to.into())));
    }
    probe
}

const EMOJI: [&str; 2] = ["emoji/old.onnx", "emoji/new_l2_compatible.onnx"];

#[test]
fn a_file_is_read_and_decoded_once_for_both_models() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = copied(folder.path(), 75);
    let mut twin = probe.items[3].clone();
    twin.id = "twin".into();
    let to = folder.path().join("twin.png");
    std::fs::copy(folder.path().join("3.png"), &to).expect("copied");
    twin.source = Some(Box::new(Source::Image(to.into())));
    probe.items.push(twin);
    let plain = ModelConfig::default();
    // Equal preprocessing shares the tensors, the second the resized image, the third and the fourth the decoded one.
    let others = [
        plain.clone(),
        ModelConfig {
            mean: Some([0.5; 3]),
            batch_size: Some(BatchSize::Items(5)),
            ..plain.clone()
        },
        ModelConfig {
            size: Some(Size::Square(40)),
            crop: Some(Size::Square(32)),
            ..plain.clone()
        },
        ModelConfig {
            exif: Some(true),
            ..plain.clone()
        },
    ];
    for other in others {
        let configs = [plain.clone(), other];
        let options = sides(&configs, None, 0);
        counts(&probe);
        let found = together(&probe, EMOJI, &options);
        let mut expected_counts = vec![[1, 1]; 75];
        // That its content is known shows when it is read.
        expected_counts.push([1, 0]);
        assert_eq!(counts(&probe), expected_counts, "{:?}", configs[1]);
        assert_same(&found, &apart(&probe, EMOJI, &options));
        for side in &found {
            assert_eq!((side.n_from_cache, side.n_embedded), (0, 76));
        }
    }
}

#[test]
fn what_one_side_has_is_run_for_the_other_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = tempfile::tempdir().expect("a folder");
    let probe = copied(folder.path(), 70);
    let configs = [ModelConfig::default(), ModelConfig::default()];
    let cached = sides(&configs, Some(cache.path()), 0);
    let mut part = probe.clone();
    part.items.truncate(40);
    run_model(&part, EMOJI[0], &cached[0]).expect("embedded");
    part.items.drain(..20);
    run_model(&part, EMOJI[1], &cached[1]).expect("embedded");
    counts(&probe);
    let found = together(&probe, EMOJI, &cached);
    let kept = [&found[0], &found[1]].map(|side| (side.n_from_cache, side.n_embedded));
    assert_eq!(kept, [(40, 30), (20, 50)]);
    let expected: Vec<[usize; 2]> = (0..70)
        // Read once to see what it is; where both sides have it, that was all.
        .map(|i| {
            if (20..40).contains(&i) {
                [1, 0]
            } else {
                [2, 1]
            }
        })
        .collect();
    assert_eq!(counts(&probe), expected);
    let fresh = sides(&configs, None, 0);
    assert_same(&found, &apart(&probe, EMOJI, &fresh));
    let again = together(&probe, EMOJI, &cached);
    assert_same(&again, &found);
    assert_eq!([again[0].n_embedded, again[1].n_embedded], [0, 0]);
}

#[test]
fn items_that_one_side_cannot_use_are_bad_on_that_side_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = copied(folder.path(), 12);
    // With its shorter side brought to 600 it would have more pixels than are allowed: on the new side alone.
    let wide = image::RgbImage::from_pixel(300, 1, image::Rgb([1, 2, 3]));
    let wider = image::RgbImage::from_pixel(301, 1, image::Rgb([1, 2, 3]));
    wide.save(folder.path().join("4.png")).expect("written");
    wider.save(folder.path().join("9.png")).expect("written");
    probe.items[6].source = Some(Box::new(Source::Image(
        folder.path().join("gone.png").into(),
    )));
    std::fs::write(folder.path().join("8.png"), b"no image").expect("written");
    let configs = [
        ModelConfig::default(),
        ModelConfig {
            size: Some(Size::Square(600)),
            crop: Some(Size::Square(32)),
            resize: Some(ResizeMode::ShorterSideTorchvision),
            ..ModelConfig::default()
        },
    ];
    let options = sides(&configs, None, 4);
    let found = together(&probe, EMOJI, &options);
    let bad = [&found[0], &found[1]]
        .map(|side| -> Vec<usize> { side.bad_items.iter().map(|bad| bad.item).collect() });
    assert_eq!(bad, [vec![6, 8], vec![4, 6, 8, 9]]);
    assert!(found[0].embeddings.has(4) && !found[1].embeddings.has(4));
    assert_eq!([found[0].n_embedded, found[1].n_embedded], [10, 8]);
    assert_same(&found, &apart(&probe, EMOJI, &options));

    let options = sides(&configs, None, 3);
    let [old, new] = EMOJI.map(|model| ModelSource::Onnx(fixture("data").join(model)));
    let pair = [(&old, &options[0]), (&new, &options[1])];
    let failed = embed_both(&probe, pair, Some(runtime()), &NoProgress).err();
    let (side, error) = failed.expect("too many");
    assert_eq!(side, Side::New);
    assert!(matches!(error, EmbedError::BadItems { count: 4, .. }));
}

#[test]
fn a_model_that_depends_on_the_batch_runs_one_by_one_beside_one_that_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let colors: Vec<[u8; 3]> = (0..37).map(|i| [i * 6, 200 - i * 3, i]).collect();
    let probe = color_probe(folder.path(), &colors);
    let configs = [ModelConfig::default(), ModelConfig::default()];
    let options = sides(&configs, None, 0);
    for models in [
        ["odd_models/plain.onnx", "odd_models/batch_dependent.onnx"],
        [
            "odd_models/batch_dependent.onnx",
            "odd_models/fixed_batch_4.onnx",
        ],
    ] {
        counts(&probe);
        let found = together(&probe, models, &options);
        assert_eq!(counts(&probe), vec![[1, 1]; 37]);
        assert_same(&found, &apart(&probe, models, &options));
        let codes = found[usize::from(models[1].contains("dependent"))]
            .findings
            .iter();
        assert!(
            codes
                .map(|f| f.code)
                .any(|code| code == FindingCode::BatchDependent)
        );
    }
}

/// An image whose EXIF block turns it: one model applies that, the other doesn't, and each sees its own pixels.
#[test]
fn one_decoding_serves_with_and_without_exif() {
    let folder = tempfile::tempdir().expect("a folder");
    let golden = fixture("golden/images/decode");
    let turned: Vec<PathBuf> = std::fs::read_dir(golden)
        .expect("the golden images")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.to_string_lossy().contains("exif-"))
        .collect();
    assert!(turned.len() > 2, "images with an orientation: {turned:?}");
    let sources = turned.iter().map(|from| {
        let to = folder.path().join(from.file_name().expect("a file"));
        std::fs::copy(from, &to).expect("copied");
        Source::Image(to.into())
    });
    let probe = probe_of(sources.collect(), Modality::Image);
    let configs = [
        ModelConfig::default(),
        ModelConfig {
            exif: Some(true),
            ..ModelConfig::default()
        },
    ];
    let options = sides(&configs, None, 0);
    counts(&probe);
    let found = together(&probe, ["emoji/old.onnx"; 2], &options);
    assert_eq!(counts(&probe), vec![[1, 1]; probe.items.len()]);
    assert_ne!(found[0].embeddings, found[1].embeddings);
    assert_ne!(found[0].input_digests, found[1].input_digests);
    assert_same(&found, &apart(&probe, ["emoji/old.onnx"; 2], &options));
}

#[test]
fn a_text_is_tokenised_once_for_both_models() {
    let texts: Vec<String> = (0..50)
        .map(|i| format!("only this test has text {i}{}", " and more".repeat(i % 7)))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let probe = text_probe(&texts);
    let models = ["tiny_text/old.onnx", "tiny_text/new.onnx"];
    let configs = [ModelConfig::default(), ModelConfig::default()];
    let options = sides(&configs, None, 0);
    let found = together(&probe, models, &options);
    assert_eq!(counts(&probe), vec![[0, 1]; 50]);
    assert_same(&found, &apart(&probe, models, &options));
    // Another length is another tokenisation.
    let configs = [
        ModelConfig::default(),
        ModelConfig {
            max_length: Some(6),
            ..ModelConfig::default()
        },
    ];
    let options = sides(&configs, None, 0);
    counts(&probe);
    let found = together(&probe, models, &options);
    assert_eq!(counts(&probe), vec![[0, 2]; 50]);
    assert_same(&found, &apart(&probe, models, &options));
}

/// A failure keeps what was embedded until then, and says whose it is.
#[test]
fn the_side_that_fails_is_named_and_the_other_ones_cache_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = tempfile::tempdir().expect("a folder");
    let colors: Vec<[u8; 3]> = (0..40).map(|i| [i, 2 * i, 90]).collect();
    let probe = color_probe(folder.path(), &colors);
    // Levels between bytes do not fit a model of bytes.
    let configs = [
        ModelConfig::default(),
        ModelConfig {
            mean: Some([0.5; 3]),
            batch_size: Some(BatchSize::Items(1)),
            ..ModelConfig::default()
        },
    ];
    let options = sides(&configs, Some(cache.path()), 0);
    let models = ["odd_models/plain.onnx", "odd_models/u8_nhwc.onnx"];
    let [old, new] = models.map(|model| ModelSource::Onnx(fixture("data").join(model)));
    let pair = [(&old, &options[0]), (&new, &options[1])];
    let failed = embed_both(&probe, pair, Some(runtime()), &NoProgress).err();
    let (side, error) = failed.expect("no byte");
    assert_eq!(side, Side::New);
    assert!(matches!(error, EmbedError::ValueType { .. }), "{error}");
    let alone = run_model(&probe, models[0], &options[0]).expect("embedded");
    assert_eq!(alone.n_from_cache, 32, "the batch before the failure");
}

/// Between finding what a file contains and decoding it, somebody wrote another one: its embedding must not be kept under
/// the content that was found.
#[test]
fn a_file_that_changes_in_between_is_bad() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = color_probe(folder.path(), &[[1, 2, 3], [200, 100, 0]]);
    let config = ModelConfig::default();
    let options = options(&config, None);
    let path = fixture("data/odd_models/plain.onnx");
    let (_, model) = open_model(&path, Some(runtime())).expect("opened");
    let resolved = resolve::resolve(&probe, &path, &model, &options).expect("resolved");
    let plans = [items::Plan {
        options: &options,
        resolved: &resolved,
        specs: &model.inputs,
        tokens: &TokenStore::default(),
    }];
    let contents = [0, 1].map(|i| {
        let raw = items::read(&probe.items[i], &plans[0]);
        raw.expect("readable").content
    });
    let job = |item| feed::Job {
        item,
        content: Some(contents[item]),
        wanted: [true, false],
    };
    let jobs = [job(0), job(1)];
    std::fs::copy(folder.path().join("0.png"), folder.path().join("1.png")).expect("copied");
    let lanes = [feed::Lane {
        plans: vec![0],
        items: 32,
        rows: 32,
    }];
    let heard = AtomicU64::new(0);
    let done = |n| {
        heard.fetch_add(n, Ordering::Relaxed);
    };
    let early = feed::sample(&probe, &plans, jobs.iter());
    assert_eq!(early.keys().copied().collect::<Vec<_>>(), [0]);
    let (sender, receiver) = std::sync::mpsc::sync_channel(2);
    let (_give_back, spare) = std::sync::mpsc::channel();
    let learned = feed::Feed {
        probe: &probe,
        plans: &plans,
        lanes: &lanes,
        early,
        done: &done,
    }
    .run(&jobs, &sender, &spare);
    let error = &learned.unusable[0][&contents[1]];
    assert_eq!(error, "the file changed while it was read");
    assert_eq!(heard.into_inner(), 1);
    let batch = receiver.try_recv().expect("the other one");
    let embedded: Vec<Digest> = batch.items.iter().map(|item| item.content).collect();
    assert_eq!(embedded, [contents[0]]);
}
