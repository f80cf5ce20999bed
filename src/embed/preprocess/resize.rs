//! Resampling with the bits of Pillow's `Image.resize` on 8-bit images (`src/libImaging/Resample.c`).
//!
//! `fast_image_resize`, even when asked for one side at a time, keeps weights of 16 bits where Pillow keeps 22.
//! That moves the values that fall on one half: 8 % of them from 192 to 224 pixels with the triangle filter. The
//! two passes are short, so they are written out, and the result is Pillow's, bit for bit.

use super::RgbImage;
use crate::config::ResizeFilter;

/// Fraction bits of the weights: 32, less 8 for the level, less 2 for the sign and the overshoot of filters with
/// negative lobes. Pillow's `PRECISION_BITS`.
const FRACTION_BITS: u32 = 32 - 8 - 2;

/// One half, to round the weighted sum.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// The image at (height, width), resampled as Pillow 2.7 to 12 does it: the filter is widened when shrinking,
/// the width is done first, its result rounded to u8, then the height, and a side that keeps its length is not
/// touched. (Pillow 13 does the height first when it shrinks much more than the width.)
///
/// Both sides must be at least 1.
pub fn resize(image: &RgbImage, height: u32, width: u32, filter: ResizeFilter) -> RgbImage {
    let (kernel, support): (fn(f64) -> f64, f64) = match filter {
        ResizeFilter::Nearest => return nearest(image, height, width),
        ResizeFilter::Bilinear => (triangle, 1.0),
        ResizeFilter::Bicubic => (catmull_rom, 2.0),
        ResizeFilter::Lanczos => (lanczos, 3.0),
    };
    let windows = |source, target| windows(source, target, kernel, support);
    match (width == image.width, height == image.height) {
        (true, true) => image.clone(),
        (true, false) => resize_height(image, &windows(image.height, height)),
        (false, true) => resize_width(image, &windows(image.width, width)),
        (false, false) => {
            let narrowed = resize_width(image, &windows(image.width, width));
            resize_height(&narrowed, &windows(image.height, height))
        }
    }
}

/// The source pixels that make one target pixel.
struct Window {
    /// First source pixel.
    start: usize,
    /// Weight of each source pixel from there on, in units of 2^-[`FRACTION_BITS`]; they sum to about one.
    weights: Vec<i32>,
}

/// The window of each target pixel.
fn windows(source: u32, target: u32, kernel: fn(f64) -> f64, support: f64) -> Vec<Window> {
    let step = f64::from(source) / f64::from(target);
    let widening = step.max(1.0);
    let radius = support * widening;
    (0..target)
        .map(|x| {
            let centre = (f64::from(x) + 0.5) * step;
            // The casts cut towards zero and saturate, as Pillow's cast and its comparison with zero do.
            let start = (centre - radius + 0.5) as usize;
            let end = ((centre + radius + 0.5) as usize).min(source as usize);
            let weights: Vec<f64> = (start..end)
                .map(|i| kernel((i as f64 - centre + 0.5) * (1.0 / widening)))
                .collect();
            let sum: f64 = weights.iter().sum();
            Window {
                start,
                weights: weights
                    .iter()
                    .map(|weight| {
                        let scaled = weight / sum * f64::from(1 << FRACTION_BITS);
                        (scaled + 0.5_f64.copysign(scaled)) as i32
                    })
                    .collect(),
            }
        })
        .collect()
}

fn resize_width(image: &RgbImage, windows: &[Window]) -> RgbImage {
    let height = image.height as usize;
    let mut pixels = Vec::with_capacity(3 * windows.len() * height);
    for row in image.pixels.chunks_exact(3 * image.width as usize) {
        let row = row.as_chunks::<3>().0;
        for window in windows {
            let (mut red, mut green, mut blue) = (HALF, HALF, HALF);
            for (pixel, weight) in row[window.start..].iter().zip(&window.weights) {
                red += i32::from(pixel[0]) * weight;
                green += i32::from(pixel[1]) * weight;
                blue += i32::from(pixel[2]) * weight;
            }
            pixels.extend_from_slice(&[level(red), level(green), level(blue)]);
        }
    }
    RgbImage {
        width: windows.len() as u32,
        height: image.height,
        pixels,
        sixteen_bit: image.sixteen_bit,
    }
}

fn resize_height(image: &RgbImage, windows: &[Window]) -> RgbImage {
    let stride = 3 * image.width as usize;
    let mut pixels = Vec::with_capacity(stride * windows.len());
    let mut sums = vec![0; stride];
    for window in windows {
        sums.fill(HALF);
        let rows = image.pixels[window.start * stride..].chunks_exact(stride);
        for (row, weight) in rows.zip(&window.weights) {
            for (sum, &level) in sums.iter_mut().zip(row) {
                *sum += i32::from(level) * weight;
            }
        }
        pixels.extend(sums.iter().map(|&sum| level(sum)));
    }
    RgbImage {
        width: image.width,
        height: windows.len() as u32,
        pixels,
        sixteen_bit: image.sixteen_bit,
    }
}

/// The level of a weighted sum, which can lie outside 0 to 255 where weights are negative.
fn level(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Pillow's BILINEAR.
fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Pillow's BICUBIC: Keys' cubic with a = -0.5, which is Catmull-Rom.
fn catmull_rom(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Pillow's LANCZOS: sinc windowed by sinc, three lobes.
fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) {
        sinc(x) * sinc(x / 3.0)
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// Nearest neighbour: the source pixel in which the target pixel's centre falls.
fn nearest(image: &RgbImage, height: u32, width: u32) -> RgbImage {
    let rows = nearest_positions(image.height, height);
    let columns = nearest_positions(image.width, width);
    let stride = 3 * image.width as usize;
    let mut pixels = Vec::with_capacity(3 * rows.len() * columns.len());
    for row in rows {
        let source = &image.pixels[row * stride..(row + 1) * stride];
        for &column in &columns {
            pixels.extend_from_slice(&source[3 * column..3 * column + 3]);
        }
    }
    RgbImage {
        width,
        height,
        pixels,
        sixteen_bit: image.sixteen_bit,
    }
}

/// Source index of each target index. The centres are summed up, not multiplied, because Pillow sums them
/// and the last bit decides at pixel edges.
fn nearest_positions(source: u32, target: u32) -> Vec<usize> {
    let step = f64::from(source) / f64::from(target);
    let mut centre = step * 0.5;
    (0..target)
        .map(|_| {
            let position = (centre as usize).min((source as usize).saturating_sub(1));
            centre += step;
            position
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::preprocess::tests::{Difference, golden, load};

    fn filter(name: &str) -> ResizeFilter {
        serde_json::from_value(name.into()).unwrap()
    }

    /// The requirement is 2 levels, 99 % of the values equal when shrinking and 95 % when enlarging; what is held
    /// is equality.
    #[test]
    fn resizing_is_pillows() {
        let golden = golden();
        let cases = golden["resize"].as_array().unwrap();
        assert!(cases.len() > 60, "the golden file lists the cases");
        let mut failures = Vec::new();
        for case in cases {
            let text = |key: &str| case[key].as_str().unwrap();
            let side = |key: &str| case[key].as_u64().unwrap() as u32;
            let source = load(text("source"));
            let expected = load(text("expected"));
            let found = resize(
                &source,
                side("height"),
                side("width"),
                filter(text("filter")),
            );
            let difference = Difference::between(&found, &expected);
            if difference.max > 0 {
                failures.push(format!("{}: {difference:?}", text("expected")));
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    #[test]
    fn equal_size_changes_nothing() {
        let image = RgbImage::from_pixels(2, 1, vec![1, 2, 3, 4, 5, 6]);
        for name in ["nearest", "bilinear", "bicubic", "lanczos"] {
            assert_eq!(resize(&image, 1, 2, filter(name)), image);
        }
    }

    #[test]
    fn nearest_takes_the_pixel_under_the_centre() {
        // Centres of 3 targets over 5 sources: .833, 2.5, 4.167.
        assert_eq!(nearest_positions(5, 3), [0, 2, 4]);
        // Centres of 4 targets over 2 sources: .25, .75, 1.25, 1.75.
        assert_eq!(nearest_positions(2, 4), [0, 0, 1, 1]);
    }

    #[test]
    fn halving_with_the_triangle_filter_by_hand() {
        // Scale 2, so the triangle has radius 2 around centres 1 and 3; the weights at distances .5, .5, 1.5
        // are .75, .75, .25 and sum to 1.75: (0*.75 + 70*.75 + 140*.25) / 1.75 = 50, and its mirror image.
        let image = RgbImage::from_pixels(
            4,
            1,
            [0u8, 70, 140, 210].iter().flat_map(|&v| [v; 3]).collect(),
        );
        let half = resize(&image, 1, 2, ResizeFilter::Bilinear);
        assert_eq!(half.pixels, [50, 50, 50, 160, 160, 160]);
    }
}
