//! The embed stage's parts side by side in one run: kernels by the fastest of 41 calls, whole runs by the median
//! of 5.
//!
//! `cargo bench --bench embed`; the Python peer is `benches/peers/embed.py`. With `-- session MODEL BATCH THREADS CALLS
//! LIBRARY DEVICE` it prints the median milliseconds of a call alone, for `benches/peers/session.py`; with `-- model MODEL` how
//! long an image takes in that model and until it gets there.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use compat_audit::config::{ModelConfig, ProbeConfig, ResizeFilter, Similarity};
use compat_audit::domain::{NoProgress, Origin, Probe, Side};
use compat_audit::embed::preprocess::{RgbImage, decode_bytes, resize};
use compat_audit::embed::session::{BatchInput, OnnxModel, Values};
use compat_audit::embed::{EmbedOptions, ModelSource, embed, embed_both};
use compat_audit::probe;
use compat_audit::runtime::{Device, Runtime, RuntimeOptions, default_cache_dir};

const RUNS: usize = 5;

fn median_seconds(mut work: impl FnMut()) -> f64 {
    work();
    let mut seconds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[RUNS / 2]
}

/// The fastest of 41 calls each, in turn: whatever else the machine does only slows a call down.
fn fastest<const N: usize>(mut work: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut fastest = [f64::INFINITY; N];
    for _ in 0..41 {
        for (work, fastest) in work.iter_mut().zip(&mut fastest) {
            let start = Instant::now();
            work();
            *fastest = fastest.min(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    fastest
}

/// A picture with edges and noise.
fn picture(width: u32, height: u32) -> RgbImage {
    let level = |i: u32| {
        let (x, y) = (i / 3 % width, i / 3 / width);
        (x / 16 * 40 + y / 16 * 24 + (i.wrapping_mul(2_654_435_761) >> 27)) as u8
    };
    RgbImage::from_pixels(width, height, (0..3 * width * height).map(level).collect())
}

/// The triangle filter in Pillow's integers, a target at a time: the same bits.
fn plain(image: &RgbImage, height: u32, width: u32) -> Vec<u8> {
    const HALF: i32 = 1 << 21;
    let level = |sum: i32| (sum >> 22).clamp(0, 255) as u8;
    let windows = |source: u32, target: u32| -> Vec<(usize, Vec<i32>)> {
        let step = f64::from(source) / f64::from(target);
        let wide = step.max(1.0);
        let window = |x: u32| {
            let centre = (f64::from(x) + 0.5) * step;
            let start = (centre - wide + 0.5) as usize;
            let end = ((centre + wide + 0.5) as usize).min(source as usize);
            let weight =
                |i: usize| (1.0 - ((i as f64 - centre + 0.5) * (1.0 / wide)).abs()).max(0.0);
            let sum: f64 = (start..end).map(weight).sum();
            let rounded = |i: usize| (weight(i) / sum * f64::from(1 << 22) + 0.5) as i32;
            (start, (start..end).map(rounded).collect())
        };
        (0..target).map(window).collect()
    };
    let columns = windows(image.width, width);
    let mut narrowed = Vec::new();
    for row in image.pixels.chunks_exact(3 * image.width as usize) {
        let row = row.as_chunks::<3>().0;
        for (start, weights) in &columns {
            let (mut red, mut green, mut blue) = (HALF, HALF, HALF);
            for (pixel, weight) in row[*start..].iter().zip(weights) {
                red += i32::from(pixel[0]) * weight;
                green += i32::from(pixel[1]) * weight;
                blue += i32::from(pixel[2]) * weight;
            }
            narrowed.extend_from_slice(&[level(red), level(green), level(blue)]);
        }
    }
    let stride = 3 * width as usize;
    let mut out = Vec::new();
    let mut sums = vec![0; stride];
    for (start, weights) in windows(image.height, height) {
        sums.fill(HALF);
        let rows = narrowed[start * stride..].chunks_exact(stride);
        for (row, weight) in rows.zip(weights) {
            for (sum, &level) in sums.iter_mut().zip(row) {
                *sum += i32::from(level) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| level(sum)));
    }
    out
}

fn runtime(threads: usize, onnxruntime: Option<PathBuf>, device: Device) -> Runtime {
    let options = RuntimeOptions {
        onnxruntime,
        offline: false,
        device,
        threads,
        cache_dir: default_cache_dir(),
        verbose: false,
    };
    Runtime::init(&options, &|_| ()).expect("a runtime")
}

/// Median milliseconds of a call on a batch of images.
fn session_call(runtime: &Runtime, model: &Path, batch: usize, calls: usize) -> f64 {
    let mut model = OnnxModel::open(runtime, model).expect("a model");
    let mut shape = vec![batch];
    shape.extend(
        model.inputs[0].shape[1..]
            .iter()
            .map(|&d| usize::try_from(d).expect("a fixed size")),
    );
    let values = (0..shape.iter().product::<usize>())
        .map(|i| (i % 251) as f32 / 251.0)
        .collect();
    let inputs = [BatchInput {
        name: model.inputs[0].name.clone(),
        shape,
        values: Values::F32(values),
    }];
    let output = model.outputs[0].name.clone();
    let mut milliseconds: Vec<f64> = (0..calls)
        .map(|_| {
            let start = Instant::now();
            let sum = model.run(&inputs, &output, |_, values| values.iter().sum::<f32>());
            black_box(sum.expect("it runs"));
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    milliseconds.sort_by(f64::total_cmp);
    milliseconds[calls / 2]
}

/// How long the model takes for an image, in batches of 32 on all threads, and how long decoding and resizing to its
/// input take on one.
fn against_a_model(runtime: &Runtime, path: &Path) {
    let shape = OnnxModel::open(runtime, path).expect("a model").inputs[0]
        .shape
        .clone();
    let [height, width] = [shape[2], shape[3]].map(|d| u32::try_from(d).expect("a fixed size"));
    let call = session_call(runtime, path, 32, 21) / 32.0;
    println!("\n{}: {call:.3} ms an image", path.display());
    for (wide, high) in [(400, 500), (640, 480), (1920, 1080)] {
        let image = picture(wide, high);
        let jpeg = image::RgbImage::from_raw(wide, high, image.pixels.clone()).expect("its size");
        let mut bytes = std::io::Cursor::new(Vec::new());
        jpeg.write_to(&mut bytes, image::ImageFormat::Jpeg)
            .expect("written");
        let [decoded, resized] = fastest([
            &mut || {
                black_box(decode_bytes(black_box(bytes.get_ref()), path, false).expect("an image"));
            },
            &mut || {
                black_box(resize(
                    black_box(&image),
                    height,
                    width,
                    ResizeFilter::Bilinear,
                ));
            },
        ]);
        println!(
            "{wide:>6} x {high:<4} jpeg ({} KB): decoding {decoded:.3} ms, resizing to {width} x {height} {resized:.3} ms",
            bytes.get_ref().len() / 1000
        );
    }
}

fn main() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/data");
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .filter(|word| word != "--bench")
        .collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["session", model, batch, threads, calls, library, device] => {
            let [batch, threads, calls] =
                [batch, threads, calls].map(|n| n.parse().expect("a number"));
            let device = device.parse().expect("a device");
            let runtime = runtime(threads, Some(library.into()), device);
            println!(
                "{:.4}",
                session_call(&runtime, Path::new(model), batch, calls)
            );
            return;
        }
        ["model", model] => {
            return against_a_model(&runtime(threads, None, Device::Cpu), Path::new(model));
        }
        [] => {}
        _ => panic!("nothing, `session MODEL BATCH THREADS CALLS LIBRARY DEVICE` or `model MODEL`"),
    }
    let runtime = runtime(threads, None, Device::Cpu);
    println!("{threads} threads");

    println!("\nresize, one thread      source   target   ms  plain ms  ratio");
    for (from, to) in [
        ((400, 500), 224),
        ((640, 480), 224),
        ((400, 500), 32),
        ((32, 32), 224),
    ] {
        let image = picture(from.0, from.1);
        let same = resize(&image, to, to, ResizeFilter::Bilinear).pixels == plain(&image, to, to);
        assert!(same, "both are Pillow's bits");
        let [fast, slow] = fastest([
            &mut || {
                black_box(resize(black_box(&image), to, to, ResizeFilter::Bilinear));
            },
            &mut || {
                black_box(plain(black_box(&image), to, to));
            },
        ]);
        println!(
            "{:>22}{:>5} x {:<4}{to:>6} {fast:>8.3} {slow:>8.3} {:>6.1}",
            "",
            from.0,
            from.1,
            slow / fast
        );
    }

    against_a_model(&runtime, &fixtures.join("emoji/old.onnx"));

    let folder = tempfile::tempdir().expect("a folder");
    for i in 0..256_u32 {
        let identity = folder.path().join(format!("id{}", i % 16));
        std::fs::create_dir_all(&identity).expect("a folder");
        let mut picture = picture(400, 500);
        // No two are the same: one content would be embedded once.
        picture.pixels[..4].copy_from_slice(&i.to_le_bytes());
        let jpeg = image::RgbImage::from_raw(400, 500, picture.pixels).expect("its size");
        jpeg.save(identity.join(format!("{i}.jpg")))
            .expect("written");
    }
    println!("\ntwo models                         items  both ms  one after the other ms  ratio");
    let models =
        ["old", "new_l2_compatible"].map(|name| fixtures.join(format!("emoji/{name}.onnx")));
    two(
        &runtime,
        "emoji, 32 x 32 png",
        &fixtures.join("emoji"),
        &models,
    );
    two(&runtime, "jpeg, 400 x 500", folder.path(), &models);
    let models = ["old", "new"].map(|name| fixtures.join(format!("tiny_text/{name}.onnx")));
    two(&runtime, "texts", &fixtures.join("tiny_text"), &models);
}

fn two(runtime: &Runtime, name: &str, data: &Path, models: &[PathBuf; 2]) {
    let probe: Probe = probe::load(data, &ProbeConfig::default()).expect("a probe");
    let config = ModelConfig::default();
    let [old, new] = models
        .each_ref()
        .map(|path| ModelSource::Onnx(path.clone()));
    let options = [Side::Old, Side::New].map(|side| EmbedOptions {
        side,
        model: &config,
        similarity: Similarity::Cosine,
        cache_dir: None,
        max_bad_items: 0,
        memory: u64::MAX,
        tensors_origin: Origin::Sidecar,
    });
    let both = 1000.0
        * median_seconds(|| {
            let sides = [(&old, &options[0]), (&new, &options[1])];
            let embedded = embed_both(&probe, sides, Some(runtime), &NoProgress);
            assert!(embedded.is_ok(), "both are embedded");
        });
    let apart = 1000.0
        * median_seconds(|| {
            for (source, options) in [(&old, &options[0]), (&new, &options[1])] {
                embed(&probe, source, options, Some(runtime), &NoProgress).expect("embedded");
            }
        });
    println!(
        "{name:<34} {:>6} {both:>8.1} {apart:>23.1} {:>6.2}",
        probe.items.len(),
        apart / both
    );
}
