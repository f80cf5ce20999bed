//! Decoding to the pixels that Pillow's `Image.open(path).convert("RGB")` gives.

use std::io::Cursor;
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, Limits};
use memchr::memchr;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{ImageError, MAX_PIXELS};

/// Pixels as Pillow's `convert("RGB")` gives them: u8 levels, shape (height, width, 3), row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Levels, 3 * width * height of them.
    pub pixels: Vec<u8>,
    /// Whether the file had 16 bits a channel, of which the high 8 were kept.
    pub sixteen_bit: bool,
}

impl RgbImage {
    /// An image of 8-bit levels, shape (height, width, 3).
    ///
    /// # Panics
    /// When `pixels` does not hold 3 * width * height levels.
    pub fn from_pixels(width: u32, height: u32, pixels: Vec<u8>) -> Self {
        assert_eq!(
            pixels.len() as u64,
            3 * u64::from(width) * u64::from(height),
            "an RGB image has three levels a pixel"
        );
        Self {
            width,
            height,
            pixels,
            sixteen_bit: false,
        }
    }
}

/// Decodes a file; see [`decode_bytes`].
///
/// # Errors
/// [`ImageError::Read`], else as [`decode_bytes`].
pub fn decode(path: &Path, exif: bool) -> Result<RgbImage, ImageError> {
    let bytes = std::fs::read(path).map_err(|source| ImageError::Read {
        path: path.to_owned(),
        source,
    })?;
    decode_bytes(&bytes, path, exif)
}

/// Decodes the content of an image file; the format is told by the content, `path` is for the errors.
///
/// As Pillow: alpha is dropped, not blended; palettes and grey are expanded; CMYK jpegs are read as Adobe
/// writes them, inverted; no colour profile is applied; an animation gives its first frame (an animated png its
/// default image). The EXIF orientation is applied only when `exif` is set, as `ImageOps.exif_transpose` does.
///
/// Not as Pillow: 16-bit grey keeps its high byte, as 16-bit colour does in both; Pillow clips it at 255, which
/// makes nearly every such image white. Jpegs are decoded by another inverse cosine transform and upsampling
/// than libjpeg-turbo's: a few levels differ (the tests hold the bound). A jpeg without its end marker is refused,
/// although Pillow reads one from which nothing else is missing.
///
/// # Errors
/// When the content is empty, no image, of another format, corrupt, cut short, or of more than [`MAX_PIXELS`]
/// pixels; the last is found from the header, before anything is allocated.
pub fn decode_bytes(bytes: &[u8], path: &Path, exif: bool) -> Result<RgbImage, ImageError> {
    Ok(Decoded::read(bytes, path, exif)?.oriented(exif))
}

/// A decoded image and the way it should be turned: one decoding serves models that apply the EXIF orientation and
/// models that don't.
#[derive(Clone)]
pub struct Decoded {
    image: RgbImage,
    orientation: Orientation,
}

impl Decoded {
    /// As [`decode_bytes`]; the orientation is looked for only when somebody wants it.
    ///
    /// # Errors
    /// As [`decode_bytes`].
    pub fn read(bytes: &[u8], path: &Path, exif: bool) -> Result<Self, ImageError> {
        let (image, orientation) = read(bytes, path, exif)?;
        Ok(Self { image, orientation })
    }

    /// Whether the EXIF orientation changes something.
    pub fn is_turned(&self) -> bool {
        self.orientation != Orientation::NoTransforms
    }

    /// The image, turned upright when `exif`.
    pub fn oriented(self, exif: bool) -> RgbImage {
        if exif {
            upright(self.image, self.orientation)
        } else {
            self.image
        }
    }
}

fn read(bytes: &[u8], path: &Path, exif: bool) -> Result<(RgbImage, Orientation), ImageError> {
    let format = sniff(bytes, path)?;
    let file = File {
        bytes,
        path,
        format,
    };
    if format == "jpeg" {
        return file.read_jpeg(exif);
    }
    let reader = Cursor::new(bytes);
    let corrupt = |source| file.corrupt(source);
    let mut decoder: Box<dyn ImageDecoder + '_> = match format {
        "png" => {
            // The decoder allocates a row before it can be asked for the size.
            if let Some((width, height)) = png_size(bytes) {
                file.check_size(width, height)?;
            }
            Box::new(PngDecoder::with_limits(reader, Limits::default()).map_err(corrupt)?)
        }
        "webp" => {
            if !webp_is_whole(bytes) {
                return Err(file.truncated());
            }
            Box::new(WebPDecoder::new(reader).map_err(corrupt)?)
        }
        _ => Box::new(BmpDecoder::new(reader).map_err(corrupt)?),
    };
    let (width, height) = decoder.dimensions();
    file.check_size(width, height)?;
    let orientation = if exif {
        // A broken EXIF block says nothing; Pillow ignores it too.
        decoder.orientation().unwrap_or(Orientation::NoTransforms)
    } else {
        Orientation::NoTransforms
    };
    let color = decoder.color_type();
    let mut levels = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut levels).map_err(corrupt)?;
    let (pixels, sixteen_bit) =
        to_rgb(levels, color).ok_or_else(|| ImageError::UnsupportedFormat {
            path: path.to_owned(),
            found: format!("{format} with the colour type {color:?}"),
        })?;
    let image = RgbImage {
        width,
        height,
        pixels,
        sixteen_bit,
    };
    Ok((image, orientation))
}

/// The content of an image file.
struct File<'a> {
    bytes: &'a [u8],
    path: &'a Path,
    /// By content.
    format: &'static str,
}

impl File<'_> {
    fn corrupt(&self, source: impl std::error::Error + Send + Sync + 'static) -> ImageError {
        ImageError::Corrupt {
            path: self.path.to_owned(),
            format: self.format,
            source: Box::new(source),
        }
    }

    fn truncated(&self) -> ImageError {
        ImageError::Truncated {
            path: self.path.to_owned(),
            format: self.format,
            bytes: self.bytes.len(),
        }
    }

    fn check_size(&self, width: u32, height: u32) -> Result<(), ImageError> {
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(ImageError::TooManyPixels {
                path: self.path.to_owned(),
                width,
                height,
            });
        }
        Ok(())
    }

    /// By the decoder that `image` has too, which copies the file and reads its headers, Huffman tables among them, twice.
    fn read_jpeg(&self, exif: bool) -> Result<(RgbImage, Orientation), ImageError> {
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(ColorSpace::RGB)
            .set_strict_mode(false)
            // What is too large is said below.
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(self.bytes), options);
        let corrupt = |source| self.corrupt(source);
        decoder.decode_headers().map_err(corrupt)?;
        let (width, height) = decoder.dimensions().unwrap_or_default();
        let (width, height) = (width as u32, height as u32);
        self.check_size(width, height)?;
        // The decoder paints what is missing grey and calls it a success.
        if !jpeg_is_whole(self.bytes) {
            return Err(self.truncated());
        }
        let orientation = decoder
            .exif()
            .filter(|_| exif)
            .and_then(|chunk| Orientation::from_exif_chunk(chunk))
            .unwrap_or(Orientation::NoTransforms);
        let mut pixels = vec![0; decoder.output_buffer_size().unwrap_or_default()];
        decoder.decode_into(&mut pixels).map_err(corrupt)?;
        Ok((RgbImage::from_pixels(width, height, pixels), orientation))
    }
}

/// The format by content.
fn sniff(bytes: &[u8], path: &Path) -> Result<&'static str, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty {
            path: path.to_owned(),
        });
    }
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok("png"),
        Ok(ImageFormat::Jpeg) => Ok("jpeg"),
        Ok(ImageFormat::WebP) => Ok("webp"),
        Ok(ImageFormat::Bmp) => Ok("bmp"),
        Ok(other) => Err(ImageError::UnsupportedFormat {
            path: path.to_owned(),
            found: other.extensions_str().first().map_or_else(
                || format!("{other:?}").to_lowercase(),
                |&extension| extension.to_owned(),
            ),
        }),
        Err(_) => Err(ImageError::NotAnImage {
            path: path.to_owned(),
            found: bytes
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect::<Vec<_>>()
                .join(" "),
        }),
    }
}

/// (width, height) of a png's header, which stands at a fixed place.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let field = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(four.try_into().ok()?))
    };
    Some((field(16)?, field(20)?))
}

/// Whether the file is as long as its RIFF header says.
fn webp_is_whole(bytes: &[u8]) -> bool {
    let Some(Ok(size)) = bytes.get(4..8).map(TryInto::try_into) else {
        return false;
    };
    bytes.len() as u64 >= 8 + u64::from(u32::from_le_bytes(size))
}

/// Whether the jpeg's end marker (FF D9) is reached. Segments are stepped over by their length, since a
/// thumbnail inside one has an end marker of its own; in coded data FF is followed by 00 or a restart marker.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(step) = bytes.get(at..).and_then(|rest| memchr(0xFF, rest)) {
        at += step + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xD9) => return true,
            // Fill byte: the next round looks at it again.
            Some(0xFF) => {}
            // Stuffed FF, TEM, restart and start markers have no length.
            Some(0x00 | 0x01 | 0xD0..=0xD8) => at += 1,
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(length) => at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
    false
}

/// RGB levels and whether they come from 16 bits; `None` for colour types that these formats do not have.
fn to_rgb(levels: Vec<u8>, color: ColorType) -> Option<(Vec<u8>, bool)> {
    // 16-bit levels come in native byte order; this is the place of the high byte.
    const HIGH: usize = if cfg!(target_endian = "little") { 1 } else { 0 };
    let rgb = match color {
        ColorType::Rgb8 => levels,
        ColorType::L8 => pick::<1>(&levels, [0; 3]),
        ColorType::La8 => pick::<2>(&levels, [0; 3]),
        ColorType::Rgba8 => pick::<4>(&levels, [0, 1, 2]),
        ColorType::L16 => pick::<2>(&levels, [HIGH; 3]),
        ColorType::La16 => pick::<4>(&levels, [HIGH; 3]),
        ColorType::Rgb16 => pick::<6>(&levels, [HIGH, HIGH + 2, HIGH + 4]),
        ColorType::Rgba16 => pick::<8>(&levels, [HIGH, HIGH + 2, HIGH + 4]),
        _ => return None,
    };
    let sixteen_bit = matches!(
        color,
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16
    );
    Some((rgb, sixteen_bit))
}

/// Three bytes of every N.
fn pick<const N: usize>(levels: &[u8], [red, green, blue]: [usize; 3]) -> Vec<u8> {
    let pixels = levels.as_chunks::<N>().0;
    pixels
        .iter()
        .flat_map(|pixel| [pixel[red], pixel[green], pixel[blue]])
        .collect()
}

/// The image turned upright, by the EXIF orientation.
fn upright(image: RgbImage, orientation: Orientation) -> RgbImage {
    let sixteen_bit = image.sixteen_bit;
    let levels = image::RgbImage::from_raw(image.width, image.height, image.pixels);
    let mut turned = DynamicImage::ImageRgb8(levels.expect("three levels a pixel"));
    turned.apply_orientation(orientation);
    RgbImage {
        width: turned.width(),
        height: turned.height(),
        pixels: turned.into_rgb8().into_raw(),
        sixteen_bit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::preprocess::tests::{Difference, folder, golden, load};

    #[test]
    fn decoding_is_pillows() {
        let golden = golden();
        let cases = golden["decode"].as_array().unwrap();
        assert!(cases.len() > 30, "the golden file lists the cases");
        let mut failures = Vec::new();
        for case in cases {
            let text = |key: &str| case[key].as_str();
            let file = text("file").unwrap();
            let path = folder().join(file);
            let mut check = |exif: bool, expected: &str| {
                let found = decode(&path, exif).unwrap();
                let difference = Difference::between(&found, &load(expected));
                assert_eq!(found.sixteen_bit, file.contains("16bit"), "{file}");
                let (max, equal) = bounds(file);
                if difference.max > max || difference.equal < equal {
                    failures.push(format!("{file}, exif {exif}: {difference:?}"));
                }
            };
            let plain = text("expected").unwrap();
            check(false, plain);
            check(true, text("upright").unwrap_or(plain));
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    /// Largest difference in levels against Pillow, and the least share of equal values. Lossless formats and
    /// lossy webp are equal. Jpegs, as measured: at most 2 levels and 99 % equal without chroma subsampling, 2
    /// and 89 % with it in one direction, 3 and 74 % in both.
    fn bounds(file: &str) -> (u8, f64) {
        match file.trim_start_matches("decode/") {
            "420.jpg" | "progressive.jpg" => (3, 0.70),
            "422.jpg" => (2, 0.85),
            name if name.ends_with(".jpg") => (2, 0.98),
            _ => (0, 1.0),
        }
    }

    fn file(name: &str) -> Vec<u8> {
        std::fs::read(folder().join("decode").join(name)).unwrap()
    }

    fn error(bytes: &[u8]) -> ImageError {
        decode_bytes(bytes, Path::new("a/b.png"), false).unwrap_err()
    }

    const WHOLE: [&str; 8] = [
        "rgb.png",
        "palette.png",
        "420.jpg",
        "progressive.jpg",
        "lossy.webp",
        "lossless.webp",
        "animated.webp",
        "rgb.bmp",
    ];

    #[test]
    fn a_file_cut_short_is_an_error() {
        for name in WHOLE {
            let whole = file(name);
            for tenths in 0..10 {
                let error = error(&whole[..whole.len() * tenths / 10]);
                let text = error.to_string();
                assert!(text.starts_with("a/b.png: expected "), "{name}: {text}");
                assert!(error.hint().unwrap().contains("--max-bad-items"), "{name}");
            }
        }
        let jpeg = file("420.jpg");
        assert_eq!(
            error(&jpeg[..jpeg.len() - 2]).to_string(),
            format!(
                "a/b.png: expected a whole jpeg image, found one that ends after {} bytes",
                jpeg.len() - 2
            )
        );
    }

    /// The end marker of an embedded thumbnail is not the end of the image; bytes behind the end are nobody's
    /// business.
    #[test]
    fn a_jpegs_end_is_found_by_walking_its_segments() {
        let mut jpeg = file("420.jpg");
        jpeg.extend_from_slice(b"trailer");
        assert!(jpeg_is_whole(&jpeg));
        let application_segment = [0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 0xFF, 0xD9];
        let start = [&[0xFF, 0xD8], &application_segment[..]].concat();
        assert!(!jpeg_is_whole(&start));
        let coded = [&start[..], &[7, 0xFF, 0, 7, 0xFF, 0xD0, 7, 0xFF]].concat();
        assert!(!jpeg_is_whole(&coded));
        assert!(jpeg_is_whole(&[&coded[..], &[0xD9]].concat()));
    }

    #[test]
    fn damaged_files_never_panic() {
        for name in WHOLE {
            let whole = file(name);
            let mut state = 1_u64;
            for _ in 0..300 {
                let mut damaged = whole.clone();
                for _ in 0..3 {
                    // Knuth's MMIX generator; any sequence will do.
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let at = (state >> 33) as usize % damaged.len();
                    damaged[at] = (state >> 24) as u8;
                }
                // Damage in the picture can go unseen; what counts is that this returns.
                let _ = decode_bytes(&damaged, Path::new("x"), true);
            }
        }
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        assert_eq!(
            error(b"").to_string(),
            "a/b.png: expected an image (png, jpg, webp or bmp), found an empty file"
        );
        assert_eq!(
            error(b"id,identity\n").to_string(),
            "a/b.png: expected an image (png, jpg, webp or bmp), found a file that starts with the bytes \
             69 64 2c 69 64 65 6e 74"
        );
        assert_eq!(
            error(b"GIF89a\x01\0\x01\0").to_string(),
            "a/b.png: expected png, jpg, webp or bmp, found gif"
        );
        let missing = decode(Path::new("no/such/file.png"), false).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("no/such/file.png: cannot be read: ")
        );
        for error in [error(b""), error(b"x"), error(b"GIF89a"), missing] {
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn the_extension_does_not_count() {
        let image = decode_bytes(&file("rgb.bmp"), Path::new("x.jpg"), false).unwrap();
        assert_eq!((image.width, image.height), (45, 37));
    }

    /// Headers that promise 10,001 x 10,000 pixels and bring none.
    #[test]
    fn more_than_100_megapixels_are_refused_from_the_header() {
        let (width, height) = (10_001_u32, 10_000_u32);
        let mut png = file("rgb.png");
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let mut bmp = file("rgb.bmp");
        bmp[18..22].copy_from_slice(&width.to_le_bytes());
        bmp[22..26].copy_from_slice(&height.to_le_bytes());
        let mut jpeg = file("444.jpg");
        let frame = jpeg
            .windows(2)
            .position(|pair| pair == [0xFF, 0xC0])
            .unwrap();
        jpeg[frame + 5..frame + 7].copy_from_slice(&(height as u16).to_be_bytes());
        jpeg[frame + 7..frame + 9].copy_from_slice(&(width as u16).to_be_bytes());
        let mut webp = file("lossless.webp");
        let header = (width - 1) | (height - 1) << 14;
        webp[21..25].copy_from_slice(&header.to_le_bytes());
        for bytes in [png, bmp, jpeg, webp] {
            let error = error(&bytes);
            assert_eq!(
                error.to_string(),
                "a/b.png: expected at most 100000000 pixels, found 10001 x 10000 (width x height)"
            );
            assert!(error.hint().unwrap().contains("scale or crop"));
        }
    }
}
