//! The stage from inside: counts, bits, settings, findings and errors. `tests/it/embedding` holds it against Python and
//! through the command line.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use super::*;
use crate::config::{BatchSize, Pooling, ProbeConfig, ResizeMode, Size};
use crate::domain::{Item, Modality, NoProgress, Origin, Progress, Role, Source};
use crate::probe::{self, tensors::testing};
use crate::runtime::{Device, RuntimeOptions, default_cache_dir};

mod both;
mod models;
mod stored_side;
mod text;

/// Largest difference from Python on the same library version: both sum in f32, in an order of their own.
const CLOSE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

fn golden<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let bytes = std::fs::read(fixture("golden").join(name)).expect("the golden file is there");
    serde_json::from_slice(&bytes).expect("the golden file is as its maker writes it")
}

/// The CPU runtime; found or installed once.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let options = RuntimeOptions {
            onnxruntime: None,
            offline: false,
            device: Device::Cpu,
            threads: 2,
            cache_dir: default_cache_dir(),
            verbose: false,
        };
        Runtime::init(&options, &|_| {}).expect("ONNX Runtime is there or can be installed")
    })
}

fn options<'a>(model: &'a ModelConfig, cache_dir: Option<&'a Path>) -> EmbedOptions<'a> {
    EmbedOptions {
        side: Side::Old,
        model,
        similarity: Similarity::Ip,
        cache_dir,
        max_bad_items: 0,
        memory: u64::MAX,
        tensors_origin: Origin::Sidecar,
    }
}

fn run_model(
    probe: &Probe,
    model: &str,
    options: &EmbedOptions<'_>,
) -> Result<Embedded, EmbedError> {
    let source = ModelSource::from_path(&fixture("data").join(model)).expect("the model is there");
    embed(probe, &source, options, Some(runtime()), &NoProgress)
}

/// Items `item0`, ... of one identity each, queries and gallery at once.
fn probe_of(sources: Vec<Source>, modality: Modality) -> Probe {
    let names = (0..sources.len()).map(|i| format!("y{i}")).collect();
    let items = sources.into_iter().enumerate().map(|(i, source)| Item {
        source: Some(Box::new(source)),
        ..Item::new(format!("item{i}"), Some(i as u32), Role::Both)
    });
    Probe::new(items.collect(), names, modality)
}

fn text_probe(texts: &[&str]) -> Probe {
    let sources = texts.iter().map(|text| Source::Text((*text).into()));
    probe_of(sources.collect(), Modality::Text)
}

/// Images of 8 x 8 in one colour each.
fn color_probe(folder: &Path, colors: &[[u8; 3]]) -> Probe {
    let sources = colors.iter().enumerate().map(|(i, &color)| {
        let path = folder.join(format!("{i}.png"));
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb(color));
        picture.save(&path).expect("written");
        Source::Image(path.into())
    });
    probe_of(sources.collect(), Modality::Image)
}

/// A probe of tensor rows; `arrays` are written to a .npz beside.
fn tensor_probe(folder: &Path, n: usize, arrays: &[Array]) -> Probe {
    let mut probe = probe_of((0..n).map(Source::TensorRow).collect(), Modality::Tensor);
    probe.tensors = Some(npz(&folder.join("x.npz"), arrays));
    probe
}

/// Name and `.npy` of an array.
struct Array(&'static str, Vec<u8>);

impl Array {
    fn new<T: npyz::AutoSerialize + Copy>(
        name: &'static str,
        shape: &[usize],
        values: &[T],
    ) -> Self {
        let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
        let values = values.iter().copied();
        Self(name, testing::npy(&shape, npyz::Order::C, values))
    }
}

fn npz(path: &Path, arrays: &[Array]) -> PathBuf {
    let entries = arrays
        .iter()
        .map(|Array(name, npy)| (format!("{name}.npy"), npy));
    let entries = testing::npz(entries);
    std::fs::write(path, entries).expect("written");
    path.into()
}

fn row(embedded: &Embedded, item: usize) -> Vec<f32> {
    embedded.embeddings.get(item).expect("a row").to_vec()
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (dimension, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= CLOSE * expected.abs().max(1.0),
            "{what}, dimension {dimension}: {found} is not {expected}"
        );
    }
}

fn setting<'a>(settings: &'a [Setting], key: &str) -> &'a Setting {
    let found = settings.iter().find(|setting| setting.key == key);
    found.unwrap_or_else(|| panic!("no setting {key} in {settings:?}"))
}

fn emoji() -> Probe {
    let probe = probe::load(&fixture("data/emoji"), &ProbeConfig::default());
    probe.expect("the emoji are a probe")
}

/// Counts what it hears.
#[derive(Default)]
struct Heard {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress for Heard {
    fn start(&self, _label: &str, total: u64) {
        self.total.fetch_add(total, Ordering::Relaxed);
    }
    fn advance(&self, n: u64) {
        self.done.fetch_add(n, Ordering::Relaxed);
    }
    fn finish(&self) {}
}

#[test]
fn a_second_run_embeds_nothing_and_gives_the_same_bits() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = emoji();
    probe.items.truncate(77);
    // The bytes of an item that is there already: one embedding serves both.
    let mut twin = probe.items[3].clone();
    twin.id = "twin".into();
    probe.items.push(twin);
    let config = ModelConfig::default();
    let run = |probe: &Probe, cache| {
        let heard = Heard::default();
        let source = ModelSource::Onnx(fixture("data/emoji/old.onnx"));
        let runtime = Some(runtime());
        let embedded = embed(probe, &source, &options(&config, cache), runtime, &heard);
        let [total, done] = [heard.total, heard.done].map(AtomicU64::into_inner);
        assert_eq!(total, done);
        (embedded.expect("embedded"), total)
    };
    let (plain, heard) = run(&probe, None);
    // Nothing is known of the files yet: that two are the same is seen on the way.
    assert_eq!((plain.n_from_cache, plain.n_embedded, heard), (0, 78, 78));
    assert_eq!(row(&plain, 3), row(&plain, 77));
    assert_eq!(plain.input_digests[3], plain.input_digests[77]);

    let (first, _) = run(&probe, Some(folder.path()));
    let (second, heard) = run(&probe, Some(folder.path()));
    assert_eq!((first.n_from_cache, first.n_embedded), (0, 78));
    assert_eq!((second.n_from_cache, second.n_embedded, heard), (78, 0, 0));
    for embedded in [&first, &second] {
        assert_eq!(embedded.embeddings, plain.embeddings);
        assert_eq!(embedded.input_digests, plain.input_digests);
        assert_eq!(embedded.findings, plain.findings);
        assert_eq!(embedded.settings, plain.settings);
    }

    // What is new is embedded, in a batch that is filled up: the bits do not depend on what was there before.
    let folder = tempfile::tempdir().expect("a folder");
    let mut part = probe.clone();
    part.items.drain(..40);
    run(&part, Some(folder.path()));
    let (third, _) = run(&probe, Some(folder.path()));
    assert_eq!((third.n_from_cache, third.n_embedded), (39, 39));
    assert_eq!(third.embeddings, plain.embeddings);
}

#[test]
fn the_cache_tells_preprocessing_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = emoji();
    probe.items.truncate(9);
    let run = |config: &ModelConfig| {
        let options = options(config, Some(folder.path()));
        run_model(&probe, "emoji/old.onnx", &options).expect("embedded")
    };
    let plain = run(&ModelConfig::default());
    let configs = [
        ModelConfig {
            mean: Some([0.5; 3]),
            ..ModelConfig::default()
        },
        ModelConfig {
            color: Some(crate::config::ColorOrder::Bgr),
            ..ModelConfig::default()
        },
        ModelConfig {
            dims: Some(8),
            ..ModelConfig::default()
        },
    ];
    for config in configs {
        let other = run(&config);
        assert_eq!(other.n_embedded, 9, "{config:?}");
        assert_ne!(other.embeddings, plain.embeddings);
        assert_ne!(other.model.preprocessing_key, plain.model.preprocessing_key);
        assert_eq!(other.model.hash, plain.model.hash);
        assert_eq!(run(&config).n_embedded, 0);
    }
}

#[test]
fn unreadable_images_are_listed_up_to_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = emoji();
    probe.items.truncate(12);
    let broken = folder.path().join("broken.png");
    std::fs::write(&broken, b"\x89PNG\r\n\x1a\nand then nothing").expect("written");
    probe.items[4].source = Some(Box::new(Source::Image(broken.as_path().into())));
    probe.items[7].source = Some(Box::new(Source::Image(
        folder.path().join("gone.png").into(),
    )));
    let config = ModelConfig::default();
    let mut options = options(&config, Some(folder.path()));
    let error = run_model(&probe, "emoji/old.onnx", &options).err();
    let error = error.expect("too many");
    let message = error.to_string();
    for part in [
        "2 items cannot be read (0 tolerated)",
        &probe.items[4].id,
        "broken.png",
        &probe.items[7].id,
        "gone.png",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(error.hint().is_some_and(|h| h.contains("--max-bad-items")));

    options.max_bad_items = 2;
    for from_cache in [10, 10] {
        let embedded = run_model(&probe, "emoji/old.onnx", &options).expect("tolerated");
        let bad: Vec<usize> = embedded.bad_items.iter().map(|bad| bad.item).collect();
        assert_eq!(bad, [4, 7]);
        assert_eq!(embedded.bad_items[1].id, probe.items[7].id);
        assert!(!embedded.embeddings.has(4) && !embedded.embeddings.has(7));
        assert!(embedded.embeddings.has(5));
        assert_eq!(
            (embedded.n_from_cache, embedded.n_embedded),
            (from_cache, 0)
        );
    }
}

#[test]
fn items_without_input() {
    let mut probe = emoji();
    probe.items.truncate(4);
    for (item, role) in probe.items.iter_mut().zip([Role::Query, Role::Gallery]) {
        item.role = role;
    }
    probe.items[1].source = None;
    let config = ModelConfig::default();
    let mut options = options(&config, None);
    let error = run_model(&probe, "emoji/old.onnx", &options).err();
    let message = error.expect("the old gallery is gone").to_string();
    assert!(message.contains(&*probe.items[1].id), "{message}");

    options.side = Side::New;
    let embedded = run_model(&probe, "emoji/old.onnx", &options).expect("embedded");
    assert!(!embedded.embeddings.has(1) && embedded.embeddings.has(0));
    let found = |finding: &Finding| finding.code == FindingCode::InputsMissing;
    assert!(embedded.findings.iter().any(found));

    probe.items[0].source = None;
    let error = run_model(&probe, "emoji/old.onnx", &options).err();
    assert!(matches!(error, Some(EmbedError::InputGone { .. })));
}

#[test]
fn a_model_tells_what_it_is() {
    let mut probe = emoji();
    probe.items.truncate(2);
    let config = ModelConfig::default();
    let info = |name: &str| {
        let embedded = run_model(&probe, name, &options(&config, None)).expect("embedded");
        embedded.model
    };
    let model = info("emoji/old.onnx");
    assert_eq!(
        (model.name.as_str(), model.kind.as_str(), model.dim),
        ("old.onnx", "onnx", 64)
    );
    assert_eq!(model.inputs[0].to_string(), "image float32[?, 3, 32, 32]");
    assert_eq!(model.outputs[0].to_string(), "embedding float32[?, 64]");
    assert_eq!(model.precision.as_deref(), Some("float32"));
    assert_eq!(model.provider.as_deref(), Some("CPUExecutionProvider"));
    assert_eq!(
        info("emoji/old_int8.onnx").precision.as_deref(),
        Some("int8")
    );
}

#[test]
fn a_models_kind_is_its_ending() {
    let message = |name: &str| {
        let error = ModelSource::from_path(&fixture("data").join(name)).expect_err("refused");
        error.to_string()
    };
    assert!(message("NOTICE.md").ends_with("NOTICE.md: expected .onnx, .npy or .parquet"));
    assert!(message("emoji/gone.onnx").contains("gone.onnx"));
}

#[test]
fn a_models_folder_need_not_be_ascii() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("modèle 東京");
    std::fs::create_dir(&home).expect("created");
    let from = "odd_models/external_a";
    for name in ["model.onnx", "weights.bin"] {
        let from = fixture("data").join(from).join(name);
        std::fs::copy(from, home.join(name)).expect("copied");
    }
    let probe = color_probe(&home, &[[1, 2, 3], [200, 100, 0]]);
    let config = ModelConfig::default();
    let options = options(&config, Some(&home));
    let source = ModelSource::Onnx(home.join("model.onnx"));
    let moved = embed(&probe, &source, &options, Some(runtime()), &NoProgress).expect("embedded");
    let there = run_model(&probe, &format!("{from}/model.onnx"), &options).expect("embedded");
    assert_eq!(moved.embeddings, there.embeddings);
    // The content is the same, so is what is kept of it.
    assert_eq!((moved.n_embedded, there.n_embedded), (2, 0));
}

#[test]
fn a_measured_batch_is_noted_kept_and_taken_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut probe = emoji();
    probe.items.truncate(40);
    let auto = ModelConfig {
        batch_size: Some(BatchSize::AUTO),
        ..ModelConfig::default()
    };
    let cached = options(&auto, Some(folder.path()));
    let first = run_model(&probe, "emoji/old.onnx", &cached).expect("embedded");
    let chosen = setting(&first.settings, "old.batch_size");
    assert_eq!(chosen.origin, Origin::Measured);
    let size = chosen.value.as_u64().expect("a number") as usize;
    assert!(size.is_power_of_two() && size <= 64, "{size}");
    // Whatever the clock says now, what was kept is taken again.
    let second = run_model(&probe, "emoji/old.onnx", &cached).expect("embedded");
    assert_eq!((second.n_embedded, second.n_from_cache), (0, 40));
    assert_eq!(second.settings, first.settings);
    assert_eq!(second.embeddings, first.embeddings);

    // The size is in the cache's key, and the same size gives the same bits however it was come by.
    let fixed = ModelConfig {
        batch_size: Some(BatchSize::Items(size)),
        ..ModelConfig::default()
    };
    let third = run_model(
        &probe,
        "emoji/old.onnx",
        &options(&fixed, Some(folder.path())),
    );
    let third = third.expect("embedded");
    assert_eq!(third.n_from_cache, 40);
    assert_eq!(third.embeddings, first.embeddings);
    assert_eq!(
        setting(&third.settings, "old.batch_size").origin,
        Origin::File
    );

    // Nobody measures unasked, nor where the model leaves no choice.
    let plain = ModelConfig::default();
    let plain = run_model(&probe, "emoji/old.onnx", &options(&plain, None)).expect("embedded");
    let size = setting(&plain.settings, "old.batch_size");
    assert_eq!((&size.value, size.origin), (&32.into(), Origin::Default));
    let probe = color_probe(folder.path(), &[[1, 2, 3], [200, 100, 0]]);
    let options = options(&auto, None);
    let fixed = run_model(&probe, "odd_models/fixed_batch_4.onnx", &options).expect("embedded");
    let size = setting(&fixed.settings, "old.batch_size");
    assert_eq!((&size.value, size.origin), (&4.into(), Origin::Model));
}
