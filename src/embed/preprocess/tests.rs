use std::path::PathBuf;

use super::*;

/// Where Pillow's results are.
pub(super) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/images")
}

/// The list of cases, with the versions that made them.
pub(super) fn golden() -> serde_json::Value {
    let text = std::fs::read_to_string(folder().join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A golden image; they are all plain RGB pngs.
pub(super) fn load(file: &str) -> RgbImage {
    decode(&folder().join(file), false).unwrap()
}

/// How far two images are apart.
#[derive(Debug)]
pub(super) struct Difference {
    /// Largest difference in levels.
    pub max: u8,
    /// Share of equal values.
    pub equal: f64,
}

impl Difference {
    pub fn between(found: &RgbImage, expected: &RgbImage) -> Self {
        assert_eq!(
            (found.height, found.width),
            (expected.height, expected.width)
        );
        assert_eq!(found.pixels.len(), expected.pixels.len());
        let pairs = || found.pixels.iter().zip(&expected.pixels);
        let equal = pairs().filter(|(a, b)| a == b).count();
        Self {
            max: pairs().map(|(a, b)| a.abs_diff(*b)).max().unwrap(),
            equal: equal as f64 / found.pixels.len() as f64,
        }
    }
}

fn prepare() -> ImagePreprocess {
    ImagePreprocess {
        size: None,
        resize: ResizeMode::Exact,
        crop: None,
        filter: ResizeFilter::Bilinear,
        color: ColorOrder::Rgb,
        layout: Layout::Nchw,
        scale: 1.0 / 255.0,
        mean: [0.0; 3],
        std: [1.0; 3],
        exif: false,
    }
}

/// Every pixel tells its place: red is the column, green the row, blue 7.
fn placed(height: u32, width: u32) -> RgbImage {
    let place = |y| (0..width).flat_map(move |x| [x as u8, y as u8, 7]);
    RgbImage::from_pixels(width, height, (0..height).flat_map(place).collect())
}

fn apply(how: &ImagePreprocess, image: &RgbImage, height: u32, width: u32) -> Vec<f32> {
    let mut out = vec![f32::NAN; 3 * (height * width) as usize];
    let fitted = how.fit(image, height, width).unwrap();
    how.fill(&how.tables(), &fitted, &mut out);
    out
}

#[test]
fn layout_colour_order_mean_and_std() {
    let image = RgbImage::from_pixels(2, 1, vec![0, 51, 102, 153, 204, 255]);
    let mut how = prepare();
    how.mean = [0.0, 0.2, 0.4];
    how.std = [1.0, 0.5, 0.25];
    // Levels / 255: (0, .2, .4) and (.6, .8, 1).
    let rgb = [[0.0, 0.0, 0.0], [0.6, 1.2, 2.4]];
    assert_eq!(
        apply(&how, &image, 1, 2),
        [
            rgb[0][0], rgb[1][0], rgb[0][1], rgb[1][1], rgb[0][2], rgb[1][2]
        ]
    );
    how.layout = Layout::Nhwc;
    assert_eq!(apply(&how, &image, 1, 2), rgb.concat());
    // Mean and std stand in the model's order: blue first.
    how.color = ColorOrder::Bgr;
    assert_eq!(
        apply(&how, &image, 1, 2),
        [0.4, 0.0, -1.6, 1.0, 1.2, 0.8].map(|v: f64| v as f32)
    );
}

/// torchvision's `_compute_resized_output_size` and Hugging Face's `get_resize_output_image_size` both take
/// `int(size * long / short)`.
#[test]
fn the_longer_side_is_truncated() {
    let mut how = prepare();
    how.size = Some(Size::Square(224));
    for mode in [
        ResizeMode::ShorterSideTorchvision,
        ResizeMode::ShorterSideHuggingface,
    ] {
        how.resize = mode;
        assert_eq!(how.output_size((427, 640)), (224, 335)); // 335.74
        assert_eq!(how.output_size((640, 427)), (335, 224));
        assert_eq!(how.output_size((100, 100)), (224, 224));
        assert_eq!(how.output_size((3, 5)), (224, 373)); // 373.33
        assert_eq!(how.output_size((1, u32::MAX)), (224, u32::MAX));
    }
    how.resize = ResizeMode::Exact;
    assert_eq!(how.output_size((427, 640)), (224, 224));
    how.resize = ResizeMode::ShorterSideTorchvision;
    how.size = Some(Size::HeightWidth([10, 20]));
    assert_eq!(how.output_size((427, 640)), (10, 20));
    how.crop = Some(Size::HeightWidth([8, 6]));
    assert_eq!(how.output_size((427, 640)), (8, 6));
}

/// Worked by hand from the two libraries' sources; a negative offset is padding before the image.
#[test]
fn centre_crops_start_where_each_library_says() {
    let mut how = prepare();
    // (side, crop, torchvision, Hugging Face)
    for (side, crop, torchvision, huggingface) in [
        (10, 10, 0, 0),
        (10, 8, 1, 1),
        (9, 8, 0, 0),  // .5 to even 0; 1 // 2
        (11, 8, 2, 1), // 1.5 to even 2; 3 // 2
        (13, 8, 2, 2), // 2.5 to even 2; 5 // 2
        (15, 8, 4, 3), // 3.5 to even 4; 7 // 2
        (7, 8, 0, -1), // pad 1 // 2; pad ceil(1 / 2)
        (6, 8, -1, -1),
        (5, 8, -1, -2), // pad 3 // 2; pad ceil(3 / 2)
    ] {
        for mode in [ResizeMode::ShorterSideTorchvision, ResizeMode::Exact] {
            how.resize = mode;
            assert_eq!(how.crop_offset(side, crop), torchvision, "{side} {crop}");
        }
        how.resize = ResizeMode::ShorterSideHuggingface;
        assert_eq!(how.crop_offset(side, crop), huggingface, "{side} {crop}");
    }
}

#[test]
fn a_crop_takes_the_middle_and_pads_with_black() {
    let mut how = prepare();
    how.scale = 1.0;
    how.mean = [1.0; 3];
    how.crop = Some(Size::HeightWidth([2, 4]));
    how.resize = ResizeMode::ShorterSideTorchvision;
    // Rows 2 and 3 of 5 (1.5 to even), and one column of padding on each side of 2.
    for layout in [Layout::Nchw, Layout::Nhwc] {
        how.layout = layout;
        let found = apply(&how, &placed(5, 2), 2, 4);
        for y in 0..2 {
            for x in 0..4 {
                let at = |k: usize| match layout {
                    Layout::Nchw => found[k * 8 + y * 4 + x],
                    Layout::Nhwc => found[(y * 4 + x) * 3 + k],
                };
                let inside = (1..3).contains(&x);
                let expected = if inside {
                    [x as f32 - 2.0, y as f32 + 1.0, 6.0]
                } else {
                    [-1.0; 3]
                };
                assert_eq!([at(0), at(1), at(2)], expected, "{layout:?} {y} {x}");
            }
        }
    }
}

#[test]
fn an_image_of_the_right_size_is_not_resampled() {
    let mut how = prepare();
    how.scale = 1.0;
    how.layout = Layout::Nhwc;
    let image = placed(5, 6);
    let levels: Vec<f32> = image.pixels.iter().map(|&v| f32::from(v)).collect();
    for filter in [ResizeFilter::Lanczos, ResizeFilter::Nearest] {
        how.filter = filter;
        how.size = Some(Size::HeightWidth([5, 6]));
        assert_eq!(apply(&how, &image, 5, 6), levels);
    }
}

#[test]
fn resize_then_crop_is_the_two_steps() {
    let source = load("resize/flower.png");
    let mut how = prepare();
    how.scale = 1.0;
    how.layout = Layout::Nhwc;
    how.size = Some(Size::HeightWidth([48, 48]));
    how.crop = Some(Size::Square(32));
    let resized = resize(&source, 48, 48, ResizeFilter::Bilinear);
    let mut expected = Vec::new();
    for y in 8..40 {
        let row = 3 * (y * 48 + 8)..3 * (y * 48 + 40);
        expected.extend(resized.pixels[row].iter().map(|&v| f32::from(v)));
    }
    assert_eq!(apply(&how, &source, 32, 32), expected);
}

#[test]
fn wrong_and_endless_sizes_are_errors() {
    let mut how = prepare();
    let error = how.fit(&placed(5, 6), 32, 32).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected an image of 32 x 32 (width x height) after preprocessing, found 6 x 5"
    );
    assert!(error.hint().unwrap().contains("`size`"));
    how.size = Some(Size::Square(600));
    how.crop = Some(Size::Square(2));
    how.resize = ResizeMode::ShorterSideTorchvision;
    let long = RgbImage::from_pixels(300, 1, vec![0; 900]);
    let error = how.fit(&long, 2, 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an image of 300 x 1 (width x height) would become 180000 x 600: expected at most 100000000 pixels"
    );
}
