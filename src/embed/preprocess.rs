//! From an image file to the numbers a model takes: decode, resize, crop, scale, normalise.
//!
//! The models audited here were nearly always trained and served on Pillow's pixels, so Pillow is the
//! reference: `fixtures/golden/images` holds what it gives, and the tests beside the code hold each step
//! against it.

pub mod decode;
pub mod resize;
pub mod sidecar;

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

pub use decode::{Decoded, RgbImage, decode, decode_bytes};
pub use resize::{resize, resize_window};
pub use sidecar::read_preprocessor_config;

use crate::config::{ColorOrder, Layout, ResizeFilter, ResizeMode, Size};

/// Largest image, before or after the resize: 100 megapixels. A decoded pixel is three bytes, so one image
/// never takes more than 300 MB.
pub const MAX_PIXELS: u64 = 100_000_000;

/// Why an image, or the description of how to prepare it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be read at all.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("{}: expected an image (png, jpg, webp or bmp), found an empty file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The content starts like no known image.
    #[error(
        "{}: expected an image (png, jpg, webp or bmp), found a file that starts with the bytes {found}",
        path.display()
    )]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// Its first bytes, in hexadecimal.
        found: String,
    },
    /// An image, of a format that is not read.
    #[error("{}: expected png, jpg, webp or bmp, found {found}", path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// The format or colour type.
        found: String,
    },
    /// The decoder gave up.
    #[error("{}: expected a whole {format} image, found one that cannot be decoded: {source}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Format by content.
        format: &'static str,
        /// What the decoder said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file stops before the image does.
    #[error("{}: expected a whole {format} image, found one that ends after {bytes} bytes", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Format by content.
        format: &'static str,
        /// Length of the file.
        bytes: usize,
    },
    /// More pixels than [`MAX_PIXELS`]; nothing was allocated for them.
    #[error(
        "{}: expected at most {MAX_PIXELS} pixels, found {width} x {height} (width x height)",
        path.display()
    )]
    TooManyPixels {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A very long image whose shorter side is brought to the target.
    #[error(
        "an image of {width} x {height} (width x height) would become {resized_width} x {resized_height}: \
         expected at most {MAX_PIXELS} pixels"
    )]
    ResizedTooLarge {
        /// Width before.
        width: u32,
        /// Height before.
        height: u32,
        /// Width after.
        resized_width: u32,
        /// Height after.
        resized_height: u32,
    },
    /// After resize and crop the image does not have the model's size.
    #[error(
        "expected an image of {expected_width} x {expected_height} (width x height) after preprocessing, \
         found {found_width} x {found_height}"
    )]
    WrongSize {
        /// The model's width.
        expected_width: u32,
        /// The model's height.
        expected_height: u32,
        /// Width after resize and crop.
        found_width: u32,
        /// Height after resize and crop.
        found_height: u32,
    },
    /// preprocessor_config.json is not JSON.
    #[error("{}: expected a JSON object: {source}", path.display())]
    SidecarSyntax {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A key of preprocessor_config.json has a value that is not understood.
    #[error("{}: {key}: expected {expected}, found {found}", path.display())]
    SidecarValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is understood.
        expected: &'static str,
        /// Its value.
        found: String,
    },
}

impl ImageError {
    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read { .. } => "check that the file exists and that you may read it",
            Self::Empty { .. } | Self::Truncated { .. } => {
                "fetch the file again, or let it be left out with --max-bad-items N"
            }
            Self::NotAnImage { .. } => {
                "the content counts, not the extension; let it be left out with --max-bad-items N"
            }
            Self::UnsupportedFormat { .. } | Self::Corrupt { .. } => {
                "save it again as png or jpg, or let it be left out with --max-bad-items N"
            }
            Self::TooManyPixels { .. } | Self::ResizedTooLarge { .. } => {
                "scale or crop the image beforehand, or let it be left out with --max-bad-items N"
            }
            Self::WrongSize { .. } => {
                "set `size` (and `crop`) under [old] or [new] in audit.toml to what the model takes"
            }
            Self::SidecarSyntax { .. } | Self::SidecarValue { .. } => {
                "set size, crop, mean, std and filter under [old] or [new] in audit.toml, and move this file away \
                 from the model"
            }
        };
        Some(hint.to_owned())
    }
}

/// How one model's images are prepared, every choice made. It is part of the embedding cache's key, so two
/// values are equal exactly when they give the same tensors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImagePreprocess {
    /// Resize target; `None` leaves the image's size alone. A pair is always reached exactly; a single side
    /// is both sides under [`ResizeMode::Exact`] and the shorter one under the other modes.
    pub size: Option<Size>,
    /// How to resize, and whose centre crop.
    pub resize: ResizeMode,
    /// Centre crop after the resize; what lies outside the image is black (level 0), then normalised.
    pub crop: Option<Size>,
    /// Resampling filter.
    pub filter: ResizeFilter,
    /// Channel order of the tensor, and of `mean` and `std`.
    pub color: ColorOrder,
    /// Axis order of the tensor.
    pub layout: Layout,
    /// Each level of 0 to 255 is multiplied by this first.
    pub scale: f64,
    /// Subtracted per channel after scaling.
    pub mean: [f64; 3],
    /// Divided by per channel after the mean.
    pub std: [f64; 3],
    /// Whether the EXIF orientation is applied when decoding.
    pub exif: bool,
}

impl ImagePreprocess {
    /// Size, (height, width), of an input of (height, width) after resize and crop.
    pub fn output_size(&self, input: (u32, u32)) -> (u32, u32) {
        match self.crop {
            Some(crop) => crop.height_width(),
            None => self.resized_size(input),
        }
    }

    /// Size, (height, width), after the resize.
    fn resized_size(&self, (height, width): (u32, u32)) -> (u32, u32) {
        match (self.size, self.resize) {
            (None, _) => (height, width),
            (Some(size @ Size::HeightWidth(_)), _) | (Some(size), ResizeMode::Exact) => {
                size.height_width()
            }
            (
                Some(Size::Square(side)),
                ResizeMode::ShorterSideTorchvision | ResizeMode::ShorterSideHuggingface,
            ) => shorter_side(height, width, side),
        }
    }

    /// Whether [`Self::fit`] does the same for both, whatever the image.
    pub fn fits_alike(&self, other: &Self) -> bool {
        let fit = |one: &Self| (one.size, one.resize, one.crop, one.filter, one.exif);
        fit(self) == fit(other)
    }

    /// Resizes and crops to (height, width).
    ///
    /// # Errors
    /// [`ImageError::WrongSize`] when resize and crop do not lead to (height, width),
    /// [`ImageError::ResizedTooLarge`] when a long image would exceed [`MAX_PIXELS`] on the way.
    pub fn fit(&self, image: &RgbImage, height: u32, width: u32) -> Result<Fitted, ImageError> {
        let (found_height, found_width) = self.output_size((image.height, image.width));
        if (found_height, found_width) != (height, width) {
            return Err(ImageError::WrongSize {
                expected_width: width,
                expected_height: height,
                found_width,
                found_height,
            });
        }
        let (resized_height, resized_width) = self.resized_size((image.height, image.width));
        if u64::from(resized_height) * u64::from(resized_width) > MAX_PIXELS {
            return Err(ImageError::ResizedTooLarge {
                width: image.width,
                height: image.height,
                resized_width,
                resized_height,
            });
        }
        let top = self.crop_offset(resized_height, height);
        let left = self.crop_offset(resized_width, width);
        let rows = overlap(top, height as usize, resized_height);
        let columns = overlap(left, width as usize, resized_width);
        // The same window in the resized image's coordinates.
        let shifted = |inside: &Range<usize>, offset: i64| {
            let at = |end: usize| (end as i64 + offset) as u32;
            at(inside.start)..at(inside.end)
        };
        let window = resize_window(
            image,
            (resized_height, resized_width),
            (shifted(&rows, top), shifted(&columns, left)),
            self.filter,
        );
        Ok(Fitted {
            window,
            rows,
            columns,
            height: height as usize,
            width: width as usize,
        })
    }

    /// Where a centre crop of `crop` pixels starts on a side of `side` pixels; negative when it starts
    /// outside the image.
    ///
    /// torchvision's `CenterCrop` takes `int(round((side - crop) / 2))`, half to even, and pads a side that is
    /// too short by `(crop - side) // 2` before it. Hugging Face's `center_crop` takes `(side - crop) // 2`
    /// and pads by `ceil((crop - side) / 2)`, which is the same floor.
    fn crop_offset(&self, side: u32, crop: u32) -> i64 {
        let spare = i64::from(side) - i64::from(crop);
        match self.resize {
            ResizeMode::ShorterSideHuggingface => spare.div_euclid(2),
            ResizeMode::Exact | ResizeMode::ShorterSideTorchvision if spare < 0 => -(-spare / 2),
            ResizeMode::Exact | ResizeMode::ShorterSideTorchvision => {
                let half = spare / 2;
                // A remainder of one half goes to the even neighbour.
                half + (spare % 2) * (half % 2)
            }
        }
    }

    /// Writes a fitted image's tensor, (scale * level - mean) / std in `layout` order, into `out`; what lies outside the image
    /// is black.
    ///
    /// Shape of `out`: (3, height, width) or (height, width, 3), row-major. The arithmetic of `tables`, which are
    /// [`Self::tables`], is f64 and rounded once to f32.
    ///
    /// # Panics
    /// When `out` does not hold 3 * height * width values: a mistake of the caller, not of the input.
    pub(super) fn fill(&self, tables: &Tables, image: &Fitted, out: &mut [f32]) {
        let Fitted {
            window,
            rows,
            columns,
            height,
            width,
        } = image;
        let (height, width) = (*height, *width);
        assert_eq!(
            out.len(),
            3 * height * width,
            "the tensor has three values a pixel"
        );
        // A tensor's channel k is this channel of the image.
        let channels = match self.color {
            ColorOrder::Rgb => [0, 1, 2],
            ColorOrder::Bgr => [2, 1, 0],
        };
        if rows.len() < height || columns.len() < width {
            let zeros = [tables[0][0], tables[1][0], tables[2][0]];
            match self.layout {
                Layout::Nchw => {
                    for (plane, zero) in out.chunks_exact_mut(height * width).zip(zeros) {
                        plane.fill(zero);
                    }
                }
                Layout::Nhwc => {
                    for pixel in out.chunks_exact_mut(3) {
                        pixel.copy_from_slice(&zeros);
                    }
                }
            }
        }
        if columns.is_empty() {
            return;
        }
        for (y, source) in rows
            .clone()
            .zip(window.pixels.chunks_exact(3 * columns.len()))
        {
            match self.layout {
                Layout::Nchw => {
                    for (k, channel) in channels.into_iter().enumerate() {
                        let row = k * height * width + y * width;
                        let target = &mut out[row + columns.start..row + columns.end];
                        for (value, pixel) in target.iter_mut().zip(source.as_chunks::<3>().0) {
                            *value = tables[k][usize::from(pixel[channel])];
                        }
                    }
                }
                Layout::Nhwc => {
                    let row = 3 * y * width;
                    let target = &mut out[row + 3 * columns.start..row + 3 * columns.end];
                    let pixels = target.as_chunks_mut::<3>().0.iter_mut();
                    for (values, pixel) in pixels.zip(source.as_chunks::<3>().0) {
                        for k in 0..3 {
                            values[k] = tables[k][usize::from(pixel[channels[k]])];
                        }
                    }
                }
            }
        }
    }

    /// The tensor's value of each level, for each channel of the tensor: there are only 256 of them.
    pub(super) fn tables(&self) -> Tables {
        std::array::from_fn(|k| {
            std::array::from_fn(|level| {
                ((self.scale * level as f64 - self.mean[k]) / self.std[k]) as f32
            })
        })
    }
}

/// The tensor's value of each level, for each channel of the tensor.
pub(super) type Tables = [[f32; 256]; 3];

/// An image after resize and crop, before its levels become the model's numbers: models whose inputs differ in these
/// alone share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The part of the crop that lies inside the image.
    window: RgbImage,
    /// Rows of the tensor that it fills; the others are black.
    rows: Range<usize>,
    /// Columns, likewise.
    columns: Range<usize>,
    /// Rows of the tensor.
    height: usize,
    /// Columns of the tensor.
    width: usize,
}

/// (height, width) when the shorter side becomes `side`: the longer one is `int(side * long / short)`, both
/// in torchvision's `Resize` and in Hugging Face's `get_resize_output_image_size`. Integer division gives the
/// same as their float one: a quotient that is no integer stays at least 1 / short below the next.
fn shorter_side(height: u32, width: u32, side: u32) -> (u32, u32) {
    let (short, long) = (height.min(width), height.max(width));
    let scaled = u64::from(side) * u64::from(long) / u64::from(short.max(1));
    let scaled = u32::try_from(scaled).unwrap_or(u32::MAX);
    if height <= width {
        (side, scaled)
    } else {
        (scaled, side)
    }
}

/// The part of 0..window that lies inside a side of `side` pixels when the window starts at `offset`.
fn overlap(offset: i64, window: usize, side: u32) -> Range<usize> {
    let start = (-offset).clamp(0, window as i64) as usize;
    let end = (i64::from(side) - offset).clamp(0, window as i64) as usize;
    start..end.max(start)
}

#[cfg(test)]
mod tests;
