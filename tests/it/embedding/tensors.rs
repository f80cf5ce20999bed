//! Ready-made model inputs.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Noise, assert_names, config_file, npy_f32, odd, refused};
use crate::run::{Audit, data};

const ITEMS: usize = 24;
const PIXELS: usize = 3 * 8 * 8;

/// Arrays of one value range a seed, 8 identities of 3 rows, `names` beside a manifest.
struct Arrays {
    folder: tempfile::TempDir,
}

impl Arrays {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let rows: String = (0..ITEMS)
            .map(|row| format!("t{row},{}\n", row % 8))
            .collect();
        std::fs::write(
            folder.path().join("manifest.csv"),
            format!("id,identity\n{rows}"),
        )
        .expect("written");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn values(seed: u32, n: usize) -> Vec<f32> {
        let mut noise = Noise(seed);
        (0..n).map(|_| f32::from(noise.byte()) / 255.0).collect()
    }

    fn npz(&self, file: &str, arrays: &[(&str, Vec<u8>)]) -> PathBuf {
        let path = self.path().join(file);
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("created"));
        for (name, bytes) in arrays {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(format!("{name}.npy"), options)
                .expect("started");
            zip.write_all(bytes).expect("written");
        }
        zip.finish().expect("finished");
        path
    }
}

fn images(seed: u32) -> Vec<u8> {
    npy_f32(&[ITEMS, 3, 8, 8], &Arrays::values(seed, ITEMS * PIXELS))
}

#[test]
fn arrays_fill_the_inputs_they_are_named_after() {
    let arrays = Arrays::new();
    arrays.npz("inputs.npz", &[("image", images(1))]);
    let model = odd("plain.onnx");
    let named = Audit::run(&model, &odd("f16.onnx"), arrays.path(), &["--no-cache"]);
    assert_eq!(named.report["probe"]["modality"], "tensor");
    // The one array of a .npy has no name, and the model one input.
    let npy = arrays.path().join("inputs.npy");
    std::fs::write(&npy, images(1)).expect("written");
    let npy = ["--no-cache", "--tensors", npy.to_str().expect("UTF-8")];
    let unnamed = Audit::run(&model, &odd("f16.onnx"), arrays.path(), &npy);
    for pairing in ["old->old", "new->old", "new->new"] {
        assert_eq!(
            named.measure(pairing, "mAP"),
            unnamed.measure(pairing, "mAP"),
            "{pairing}"
        );
    }
}

#[test]
fn a_wrong_name_is_told_with_what_is_there() {
    let arrays = Arrays::new();
    arrays.npz("inputs.npz", &[("imag", images(1)), ("audio", images(2))]);
    let text = refused(&odd("plain.onnx"), &odd("f16.onnx"), arrays.path(), &[]);
    assert_names(
        &text,
        &[
            "old model: ",
            "plain.onnx",
            "image float32[?, 3, 8, 8]",
            "imag",
            "audio",
            "--tensors",
        ],
    );
}

#[test]
fn a_wrong_shape_is_told_by_the_model() {
    let arrays = Arrays::new();
    let small = npy_f32(&[ITEMS, 3, 4, 4], &Arrays::values(1, ITEMS * 48));
    arrays.npz("inputs.npz", &[("image", small)]);
    let text = refused(&odd("plain.onnx"), &odd("f16.onnx"), arrays.path(), &[]);
    assert_names(&text, &["old model: ", "plain.onnx", "image"]);
}

#[test]
fn rows_must_be_as_many_as_the_manifests() {
    let arrays = Arrays::new();
    let fewer = npy_f32(
        &[ITEMS - 1, 3, 8, 8],
        &Arrays::values(1, (ITEMS - 1) * PIXELS),
    );
    arrays.npz("inputs.npz", &[("image", fewer)]);
    let text = refused(&odd("plain.onnx"), &odd("f16.onnx"), arrays.path(), &[]);
    assert_names(&text, &["inputs.npz", "23", "24"]);
}

#[test]
fn one_model_on_two_inputs_is_not_the_same_model() {
    let arrays = Arrays::new();
    arrays.npz("a.npz", &[("image", images(1))]);
    arrays.npz("b.npz", &[("image", images(2))]);
    let model = odd("plain.onnx");
    let config = |old: &str, new: &str| {
        let text = format!("[old]\ntensors = \"{old}.npz\"\n[new]\ntensors = \"{new}.npz\"\n");
        config_file(arrays.path(), &text)
    };
    let rule = |config: &str| {
        let audit = Audit::run(
            &model,
            &model,
            arrays.path(),
            &["--no-cache", "--config", config],
        );
        audit.report["verdict"]["rule"].as_u64()
    };
    assert_eq!(rule(&config("a", "a")), Some(2));
    assert_ne!(rule(&config("a", "b")), Some(2));
}

#[test]
fn an_output_that_grows_with_the_batch_is_no_embedding() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = data("tiny_text/tokenizer.json");
    let line = format!("tokenizer = {:?}\n", tokenizer.to_str().expect("UTF-8"));
    let config = config_file(folder.path(), &format!("[old]\n{line}[new]\n{line}"));
    let model = odd("ragged.onnx");
    let text = refused(&model, &model, &data("tiny_text"), &["--config", &config]);
    assert_names(
        &text,
        &[
            "old model: ",
            "ragged.onnx",
            "`embedding`",
            "for another",
            "output = ",
        ],
    );
}

/// A model without tensors of its own takes the file beside the manifest, never the other model's.
#[test]
fn the_other_models_tensors_are_never_borrowed() {
    let arrays = Arrays::new();
    arrays.npz("a.npz", &[("image", images(1))]);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let own = arrays.npz("b.npz", &[("image", images(2))]);
    let moved = elsewhere.path().join("b.npz");
    std::fs::rename(own, &moved).expect("moved");
    let text = format!("[new]\ntensors = {:?}\n", moved.to_str().expect("UTF-8"));
    let config = config_file(elsewhere.path(), &text);
    let model = odd("plain.onnx");
    let audit = |extra: &[&str]| {
        let audit = Audit::run(&model, &model, arrays.path(), extra);
        ["old->old", "new->old", "new->new"].map(|pairing| audit.measure(pairing, "mAP"))
    };
    let ordinary = audit(&["--no-cache"]);
    let found = audit(&["--no-cache", "--config", &config]);
    assert_eq!(found[0], ordinary[0], "OLD reads a.npz");
    assert_ne!(found[1], ordinary[1], "NEW reads b.npz");
    assert_ne!(found[2], ordinary[2], "NEW reads b.npz");
}
