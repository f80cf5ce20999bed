//! Resampling with the bits of Pillow's `Image.resize` on 8-bit images (`src/libImaging/Resample.c`).
//!
//! `fast_image_resize`, even when asked for one side at a time, keeps weights of 16 bits where Pillow keeps 22.
//! That moves the values that fall on one half: 8 % of them from 192 to 224 pixels with the triangle filter. The
//! two passes are short, so they are written out, and the result is Pillow's, bit for bit. Their loops run over arrays of
//! fixed length, which the compiler turns into vector instructions, once for any CPU and once for one with AVX2
//! (`multiversion` chooses at run time): the sums are of integers, so both give the same.

use std::ops::Range;

use multiversion::multiversion;

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
    resize_window(image, (height, width), (0..height, 0..width), filter)
}

/// The window (rows, columns) of what [`resize`] gives for (height, width); only what the window needs is computed.
pub fn resize_window(
    image: &RgbImage,
    (height, width): (u32, u32),
    (rows, columns): (Range<u32>, Range<u32>),
    filter: ResizeFilter,
) -> RgbImage {
    let (kernel, support): (fn(f64) -> f64, f64) = match filter {
        ResizeFilter::Nearest => return nearest(image, (height, width), (rows, columns)),
        ResizeFilter::Bilinear => (triangle, 1.0),
        ResizeFilter::Bicubic => (catmull_rom, 2.0),
        ResizeFilter::Lanczos => (lanczos, 3.0),
    };
    let vertical = (height != image.height)
        .then(|| Windows::new(image.height, height, rows.clone(), kernel, support));
    let horizontal = (width != image.width)
        .then(|| Windows::new(image.width, width, columns.clone(), kernel, support));
    // Source rows that the second pass will look at.
    let sources = match &vertical {
        Some(windows) => windows.sources(),
        None => rows.start as usize..rows.end as usize,
    };
    let (n_rows, n_columns) = (rows.len(), columns.len());
    if n_rows == 0 || n_columns == 0 {
        return RgbImage::from_pixels(n_columns as u32, n_rows as u32, Vec::new());
    }
    let stride = 3 * n_columns;
    let source_stride = 3 * image.width as usize;
    let needed = &image.pixels[sources.start * source_stride..sources.end * source_stride];
    let narrowed = match &horizontal {
        Some(windows) => {
            let mut narrowed = vec![0; sources.len() * stride];
            resize_width(windows, needed, source_stride, &mut narrowed);
            narrowed
        }
        None => needed
            .chunks_exact(source_stride.max(1))
            .flat_map(|row| &row[3 * columns.start as usize..3 * columns.end as usize])
            .copied()
            .collect(),
    };
    let pixels = match &vertical {
        Some(windows) => {
            let mut pixels = vec![0; n_rows * stride];
            resize_height(windows, &narrowed, sources.start, stride, &mut pixels);
            pixels
        }
        None => narrowed,
    };
    RgbImage {
        width: n_columns as u32,
        height: n_rows as u32,
        pixels,
        sixteen_bit: image.sixteen_bit,
    }
}

/// The source pixels that make each target pixel, and their weights: as many for every target, the spare ones zero.
struct Windows {
    /// First source pixel of each target.
    starts: Vec<usize>,
    /// Source pixels a target.
    taps: usize,
    /// Weight of each source pixel in units of 2^-[`FRACTION_BITS`], `taps` a target; they sum to about one.
    weights: Vec<i32>,
}

impl Windows {
    fn new(
        source: u32,
        target: u32,
        wanted: Range<u32>,
        kernel: fn(f64) -> f64,
        support: f64,
    ) -> Self {
        let step = f64::from(source) / f64::from(target);
        let widening = step.max(1.0);
        let radius = support * widening;
        let windows: Vec<(usize, Vec<i32>)> = wanted
            .map(|x| {
                let centre = (f64::from(x) + 0.5) * step;
                // The casts cut towards zero and saturate, as Pillow's cast and its comparison with zero do.
                let start = (centre - radius + 0.5) as usize;
                let end = ((centre + radius + 0.5) as usize).min(source as usize);
                let weights: Vec<f64> = (start..end)
                    .map(|i| kernel((i as f64 - centre + 0.5) * (1.0 / widening)))
                    .collect();
                let sum: f64 = weights.iter().sum();
                let weights = weights
                    .iter()
                    .map(|weight| {
                        let scaled = weight / sum * f64::from(1 << FRACTION_BITS);
                        (scaled + 0.5_f64.copysign(scaled)) as i32
                    })
                    .collect();
                (start, weights)
            })
            .collect();
        let taps = windows.iter().map(|(_, weights)| weights.len()).max();
        let taps = taps.unwrap_or(0);
        let mut all = Self {
            starts: Vec::with_capacity(windows.len()),
            taps,
            weights: vec![0; windows.len() * taps],
        };
        for (i, (start, weights)) in windows.iter().enumerate() {
            // A window at the far edge begins earlier, so that all its taps lie inside.
            let first = (*start).min(source as usize - taps);
            let at = i * taps + start - first;
            all.weights[at..at + weights.len()].copy_from_slice(weights);
            all.starts.push(first);
        }
        all
    }

    /// Every source pixel that some target needs.
    fn sources(&self) -> Range<usize> {
        let first = self.starts.iter().min().copied().unwrap_or(0);
        let last = self.starts.iter().max().map_or(0, |last| last + self.taps);
        first..last
    }
}

/// The pass over the width: `out` gets a row of targets for each row of `stride` levels. Compiled for the CPU that runs
/// it.
#[multiversion(targets("x86_64+avx2"))]
fn resize_width(windows: &Windows, pixels: &[u8], stride: usize, out: &mut [u8]) {
    // Few taps are unrolled: 2 enlarge with the triangle, 3 to 8 shrink with it up to threefold, 4 and 6 enlarge with
    // the other filters.
    match windows.taps {
        2 => width_pass::<2>(windows, pixels, stride, out),
        3 => width_pass::<3>(windows, pixels, stride, out),
        4 => width_pass::<4>(windows, pixels, stride, out),
        5 => width_pass::<5>(windows, pixels, stride, out),
        6 => width_pass::<6>(windows, pixels, stride, out),
        7 => width_pass::<7>(windows, pixels, stride, out),
        8 => width_pass::<8>(windows, pixels, stride, out),
        _ => width_pass_of_many(windows, pixels, stride, out),
    }
}

/// `TAPS` source pixels a target.
#[inline(always)]
fn width_pass<const TAPS: usize>(
    windows: &Windows,
    pixels: &[u8],
    source_stride: usize,
    out: &mut [u8],
) {
    let stride = 3 * windows.starts.len();
    // A pixel is handled as four lanes, of which the last is the next pixel's red and is overwritten by it.
    let mut levels = vec![0_i32; source_stride + 1];
    let mut sums = vec![0_i32; stride + 1];
    let rows = pixels.chunks_exact(source_stride);
    for (row, out) in rows.zip(out.chunks_exact_mut(stride)) {
        for (level, &byte) in levels.iter_mut().zip(row) {
            *level = i32::from(byte);
        }
        let targets = windows
            .starts
            .iter()
            .zip(windows.weights.chunks_exact(TAPS));
        for (x, (&start, weights)) in targets.enumerate() {
            let window = &levels[3 * start..3 * (start + TAPS) + 1];
            let mut sum = [HALF; 4];
            for k in 0..TAPS {
                let pixel: &[i32; 4] = window[3 * k..]
                    .first_chunk()
                    .expect("the window has one level more than its pixels");
                for lane in 0..4 {
                    sum[lane] += pixel[lane] * weights[k];
                }
            }
            sums[3 * x..3 * x + 4].copy_from_slice(&sum);
        }
        for (byte, &sum) in out.iter_mut().zip(&sums) {
            *byte = level(sum);
        }
    }
}

/// Levels that are multiplied together: of eight pixels, three vectors of eight.
const LEVELS: usize = 24;

/// Many source pixels a target: each level has a lane of its own, in which every eighth pixel is summed up. Integers, so
/// the order does not matter. The lanes of a row's targets wait in memory before they are added up: together with the loop
/// above it, the compiler rearranges both and multiplies part of the lanes one by one.
#[inline(always)]
fn width_pass_of_many(windows: &Windows, pixels: &[u8], source_stride: usize, out: &mut [u8]) {
    let n = (3 * windows.taps).next_multiple_of(LEVELS);
    let mut weights = vec![0_i32; n * windows.starts.len()];
    let of_targets = windows.weights.chunks_exact(windows.taps);
    for (levels, target) in weights.chunks_exact_mut(n).zip(of_targets) {
        for (level, weight) in levels.as_chunks_mut().0.iter_mut().zip(target) {
            *level = [*weight; 3];
        }
    }
    let stride = 3 * windows.starts.len();
    // The last window's spare weights, which are zero, meet something.
    let mut levels = vec![0_i32; source_stride + LEVELS];
    let mut lanes = vec![[0; LEVELS]; windows.starts.len()];
    let rows = pixels.chunks_exact(source_stride);
    for (row, out) in rows.zip(out.chunks_exact_mut(stride)) {
        for (level, &byte) in levels.iter_mut().zip(row) {
            *level = i32::from(byte);
        }
        let targets = windows.starts.iter().zip(weights.chunks_exact(n));
        for ((&start, weights), lanes) in targets.zip(&mut lanes) {
            let (levels, _) = levels[3 * start..3 * start + n].as_chunks::<LEVELS>();
            let (weights, _) = weights.as_chunks::<LEVELS>();
            let mut sums = [0; LEVELS];
            for (levels, weights) in levels.iter().zip(weights) {
                for lane in 0..LEVELS {
                    sums[lane] += levels[lane] * weights[lane];
                }
            }
            *lanes = sums;
        }
        for (lanes, out) in lanes.iter().zip(out.as_chunks_mut::<3>().0) {
            let mut sum = [HALF; 3];
            for pixel in lanes.as_chunks::<3>().0 {
                for (sum, part) in sum.iter_mut().zip(pixel) {
                    *sum += part;
                }
            }
            *out = sum.map(level);
        }
    }
}

/// The pass over the height: `out` gets a row for each target, of as many levels as a row of `pixels`; the first of these
/// is the source's row `first`. Compiled for the CPU that runs it.
#[multiversion(targets("x86_64+avx2"))]
fn resize_height(windows: &Windows, pixels: &[u8], first: usize, stride: usize, out: &mut [u8]) {
    /// Sums held in registers over all taps: eight of eight lanes.
    const BLOCK: usize = 64;
    let taps = windows.taps;
    let targets = windows
        .starts
        .iter()
        .zip(windows.weights.chunks_exact(taps));
    for ((&start, weights), out) in targets.zip(out.chunks_exact_mut(stride)) {
        let source = &pixels[(start - first) * stride..][..taps * stride];
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        for (b, block) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; BLOCK];
            for (row, &weight) in source.chunks_exact(stride).zip(weights) {
                let row: &[u8; BLOCK] = row[b * BLOCK..]
                    .first_chunk()
                    .expect("source and target rows are of one length");
                for (sum, &level) in sums.iter_mut().zip(row) {
                    *sum += i32::from(level) * weight;
                }
            }
            for (byte, sum) in block.iter_mut().zip(sums) {
                *byte = level(sum);
            }
        }
        let at = stride - rest.len();
        for (i, byte) in rest.iter_mut().enumerate() {
            let rows = source.chunks_exact(stride).zip(weights);
            let sum = rows.fold(HALF, |sum, (row, weight)| {
                sum + i32::from(row[at + i]) * weight
            });
            *byte = level(sum);
        }
    }
}

/// The level of a weighted sum, which can lie outside 0 to 255 where weights are negative.
#[inline(always)]
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
fn nearest(
    image: &RgbImage,
    (height, width): (u32, u32),
    (rows, columns): (Range<u32>, Range<u32>),
) -> RgbImage {
    let part =
        |all: Vec<usize>, part: &Range<u32>| all[part.start as usize..part.end as usize].to_vec();
    let from_rows = part(nearest_positions(image.height, height), &rows);
    let from_columns = part(nearest_positions(image.width, width), &columns);
    let stride = 3 * image.width as usize;
    let mut pixels = Vec::with_capacity(3 * from_rows.len() * from_columns.len());
    for row in from_rows {
        let source = &image.pixels[row * stride..(row + 1) * stride];
        for &column in &from_columns {
            pixels.extend_from_slice(&source[3 * column..3 * column + 3]);
        }
    }
    RgbImage {
        width: columns.len() as u32,
        height: rows.len() as u32,
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

    /// The loops as Pillow writes them, one target at a time.
    fn naive(image: &RgbImage, height: u32, width: u32, filter: ResizeFilter) -> Vec<u8> {
        let (kernel, support): (fn(f64) -> f64, f64) = match filter {
            ResizeFilter::Nearest => {
                return nearest(image, (height, width), (0..height, 0..width)).pixels;
            }
            ResizeFilter::Bilinear => (triangle, 1.0),
            ResizeFilter::Bicubic => (catmull_rom, 2.0),
            ResizeFilter::Lanczos => (lanczos, 3.0),
        };
        let pass = |pixels: &[u8],
                    source: u32,
                    target: u32,
                    at: &dyn Fn(usize, usize) -> usize,
                    lines: usize| {
            let windows = Windows::new(source, target, 0..target, kernel, support);
            let mut sums = Vec::new();
            for line in 0..lines {
                for (&start, weights) in windows
                    .starts
                    .iter()
                    .zip(windows.weights.chunks(windows.taps))
                {
                    let taps = weights.iter().enumerate();
                    let sum = taps.fold(HALF, |sum, (k, w)| {
                        sum + i32::from(pixels[at(line, start + k)]) * w
                    });
                    sums.push(level(sum));
                }
            }
            sums
        };
        let (w, h) = (image.width as usize, image.height as usize);
        // Lines are (row, channel), then (column, channel); the results lie line by line.
        let narrowed = if width == image.width {
            (0..3 * h)
                .flat_map(|line| (0..w).map(move |x| (line, x)))
                .map(|(line, x)| image.pixels[3 * (line / 3 * w + x) + line % 3])
                .collect()
        } else {
            pass(
                &image.pixels,
                image.width,
                width,
                &|line, x| 3 * (line / 3 * w + x) + line % 3,
                3 * h,
            )
        };
        let w = width as usize;
        let place = |line: usize, y: usize| (3 * y + line % 3) * w + line / 3;
        let columns: Vec<u8> = if height == image.height {
            (0..3 * w)
                .flat_map(|line| (0..h).map(move |y| (line, y)))
                .map(|(line, y)| narrowed[place(line, y)])
                .collect()
        } else {
            pass(&narrowed, image.height, height, &place, 3 * w)
        };
        let h = height as usize;
        (0..h * w * 3)
            .map(|i| columns[(i % (3 * w)) * h + i / (3 * w)])
            .collect()
    }

    #[test]
    fn every_number_of_taps_and_every_window_is_the_plain_loops() {
        let noise: Vec<u8> = (0..3 * 61 * 47_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let image = RgbImage::from_pixels(61, 47, noise);
        for name in ["nearest", "bilinear", "bicubic", "lanczos"] {
            for (height, width) in [
                (47, 61),
                (47, 30),
                (23, 61),
                (90, 120),
                (31, 41),
                (11, 9),
                (3, 2),
                (1, 1),
                (70, 5),
            ] {
                let expected = naive(&image, height, width, filter(name));
                let found = resize(&image, height, width, filter(name));
                assert_eq!(found.pixels, expected, "{name} {height} x {width}");
                let (rows, columns) = (height / 3..height, width / 4..width - width / 3);
                let part = resize_window(
                    &image,
                    (height, width),
                    (rows.clone(), columns.clone()),
                    filter(name),
                );
                let expected: Vec<u8> = rows
                    .flat_map(|y| columns.clone().map(move |x| 3 * (y * width + x) as usize))
                    .flat_map(|at| found.pixels[at..at + 3].to_vec())
                    .collect();
                assert_eq!(part.pixels, expected, "{name} {height} x {width}");
            }
        }
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
