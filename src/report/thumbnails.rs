//! Small pictures of items, as data URIs, so that report.html needs no other file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use image::ImageEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use rayon::prelude::*;

use crate::config::ResizeFilter;
use crate::domain::sound_type;
use crate::embed::preprocess::{RgbImage, decode, resize};

/// Longest side of a thumbnail in pixels: twice the 48 CSS pixels that it is shown at.
pub const SIDE: u32 = 96;

/// Thumbnails a report: 24 flips of 7 pictures and 24 least credible items. At most about 4 MB of HTML.
pub const LIMIT: usize = 192;

/// Bytes of all recordings together: a third more as text.
const SOUND_BYTES: u64 = 3 << 20;

/// Of a picture that is smaller as a JPEG, a photograph.
const JPEG_QUALITY: u8 = 80;

/// Makes thumbnails, each picture once, at most a given number of them.
#[derive(Debug)]
pub struct Thumbnails {
    left: usize,
    missing: usize,
    /// Bytes of recordings that there is still room for.
    room: u64,
    /// Folders in which relative paths are looked for, in order.
    folders: Vec<PathBuf>,
    made: BTreeMap<PathBuf, Option<String>>,
}

impl Thumbnails {
    /// At most `limit` pictures; those beyond it are not read. Relative paths start at the working directory.
    pub fn new(limit: usize) -> Self {
        Self::within(limit, vec![PathBuf::new()])
    }

    /// As [`Thumbnails::new`], with relative paths looked for in these folders, in order.
    pub fn within(limit: usize, folders: Vec<PathBuf>) -> Self {
        Self {
            left: limit,
            missing: 0,
            room: if limit > 0 { SOUND_BYTES } else { 0 },
            folders,
            made: BTreeMap::new(),
        }
    }

    /// `data:audio/...;base64,...` of the recording as it is; `None` when the file is gone, or when the recordings of this report
    /// would be longer than there is room for.
    pub fn sound_uri(&mut self, path: &Path) -> Option<String> {
        if let Some(made) = self.made.get(path) {
            return made.clone();
        }
        let kind = sound_type(path)?;
        let mut places = self.folders.iter().map(|folder| folder.join(path));
        let file = places.find(|place| place.is_file());
        let length = file
            .as_ref()
            .and_then(|file| Some(file.metadata().ok()?.len()));
        if self.room > 0 && length.is_none() {
            self.missing += 1;
        }
        let left = length.and_then(|length| self.room.checked_sub(length));
        let bytes = file
            .filter(|_| left.is_some())
            .and_then(|file| std::fs::read(file).ok());
        let uri = bytes.map(|bytes| {
            self.room = left.unwrap_or_default();
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            format!("data:{kind};base64,{text}")
        });
        self.made.insert(path.to_owned(), uri.clone());
        uri
    }

    /// How many pictures were asked for and are in none of the folders.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// `data:image/png;base64,...`, or `image/jpeg` where that is shorter, of the picture as the models see it (alpha dropped), at most [`SIDE`] pixels
    /// a side and never enlarged.
    ///
    /// `None` when the file is gone or no picture, or when the limit is reached: a report that is rendered again
    /// elsewhere must not fail over that.
    pub fn data_uri(&mut self, path: &Path) -> Option<String> {
        self.prepare([path]);
        self.made.get(path)?.clone()
    }

    /// Makes what [`Thumbnails::data_uri`] will be asked for, in parallel: a report of photographs waits for nothing else as
    /// long. Beyond the limit the last ones are left out.
    pub fn prepare<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) {
        let mut new: Vec<&Path> = Vec::new();
        for path in paths {
            if new.len() < self.left && !self.made.contains_key(path) && !new.contains(&path) {
                new.push(path);
            }
        }
        self.left -= new.len();
        let folders = &self.folders;
        let make = |path: &&Path| {
            let mut places = folders.iter().map(|folder| folder.join(path));
            let file = places.find(|place| place.is_file());
            let image = file.as_ref().and_then(|file| decode(file, false).ok());
            let uri = image.and_then(|image| small_uri(&image));
            (path.to_path_buf(), file.is_none(), uri)
        };
        let made: Vec<_> = new.par_iter().map(make).collect();
        for (path, is_missing, uri) in made {
            self.missing += usize::from(is_missing);
            self.made.insert(path, uri);
        }
    }
}

fn small_uri(image: &RgbImage) -> Option<String> {
    let longest = image.width.max(image.height);
    let side = |length: u32| {
        let scaled = u64::from(length) * u64::from(SIDE) / u64::from(longest);
        u32::try_from(scaled).map_or(1, |scaled| scaled.max(1))
    };
    let small = if longest > SIDE {
        &resize(
            image,
            side(image.height),
            side(image.width),
            ResizeFilter::Bilinear,
        )
    } else {
        image
    };
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(
            &small.pixels,
            small.width,
            small.height,
            image::ExtendedColorType::Rgb8,
        )
        .ok()?;
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
        .encode(
            &small.pixels,
            small.width,
            small.height,
            image::ExtendedColorType::Rgb8,
        )
        .ok()?;
    let (kind, bytes) = if jpeg.len() < png.len() {
        ("jpeg", jpeg)
    } else {
        ("png", png)
    };
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    Some(format!("data:image/{kind};base64,{text}"))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn size(uri: &str) -> (u32, u32) {
        let text = uri.split_once(";base64,").unwrap().1;
        let png = base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap();
        let image = image::load_from_memory(&png).unwrap();
        (image.width(), image.height())
    }

    #[test]
    fn a_small_picture_keeps_its_size() {
        let uri = Thumbnails::new(1)
            .data_uri(&sample::emoji("noto__2195"))
            .unwrap();
        assert_eq!(size(&uri), (32, 32));
    }

    #[test]
    fn a_large_picture_fits_and_keeps_its_shape() {
        let wide = RgbImage::from_pixels(400, 100, vec![7; 400 * 100 * 3]);
        assert_eq!(size(&small_uri(&wide).unwrap()), (96, 24));
        let thin = RgbImage::from_pixels(1, 5000, vec![7; 5000 * 3]);
        assert_eq!(size(&small_uri(&thin).unwrap()), (1, 96));
    }

    #[test]
    fn the_shorter_of_png_and_jpeg_is_taken_and_the_worst_picture_is_small() {
        let flat = RgbImage::from_pixels(96, 96, vec![200; 96 * 96 * 3]);
        assert!(small_uri(&flat).unwrap().starts_with("data:image/png"));
        // Noise: what no encoder can shorten.
        let noise = (0..96_u32 * 96 * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
        let uri = small_uri(&RgbImage::from_pixels(96, 96, noise.collect())).unwrap();
        assert!(uri.starts_with("data:image/jpeg"));
        assert!(uri.len() * LIMIT < 4_000_000, "{}", uri.len());
    }

    #[test]
    fn a_missing_or_broken_file_is_a_placeholder() {
        let mut thumbnails = Thumbnails::new(9);
        assert_eq!(thumbnails.data_uri(Path::new("no/such.png")), None);
        assert_eq!(thumbnails.data_uri(Path::new(file!())), None);
        assert_eq!(thumbnails.data_uri(Path::new("no/such.png")), None);
        assert_eq!(thumbnails.missing(), 1, "once, and not the broken one");
    }

    #[test]
    fn relative_paths_are_looked_for_in_each_folder() {
        let folders = vec!["no/such/folder".into(), "fixtures/data".into()];
        let mut thumbnails = Thumbnails::within(9, folders);
        let picture = Path::new("emoji/images/noto__2195.png");
        assert!(thumbnails.data_uri(picture).is_some());
        assert_eq!(thumbnails.missing(), 0);
    }

    #[test]
    fn recordings_are_embedded_as_long_as_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![b'a'; bytes]).unwrap();
            path
        };
        let [short, long] = [write("a.wav", 6), write("b.mp3", SOUND_BYTES as usize)];
        let mut thumbnails = Thumbnails::new(9);
        assert_eq!(
            thumbnails.sound_uri(&short).unwrap(),
            "data:audio/wav;base64,YWFhYWFh"
        );
        assert_eq!(thumbnails.sound_uri(&long), None, "six bytes too long");
        assert!(thumbnails.sound_uri(&short).is_some(), "made already");
        assert_eq!(thumbnails.missing(), 0);
        assert_eq!(thumbnails.sound_uri(Path::new("gone.wav")), None);
        assert_eq!(thumbnails.missing(), 1);
        assert_eq!(Thumbnails::new(0).sound_uri(&short), None);
    }

    #[test]
    fn the_number_is_bounded_and_a_picture_counts_once() {
        let [a, b] = ["noto__2195", "noto__2198"].map(sample::emoji);
        let mut thumbnails = Thumbnails::new(1);
        assert!(thumbnails.data_uri(&a).is_some());
        assert!(thumbnails.data_uri(&a).is_some());
        assert_eq!(thumbnails.data_uri(&b), None);
        let mut prepared = Thumbnails::new(1);
        prepared.prepare([&*a, &*a, &*b]);
        assert_eq!(prepared.data_uri(&a), thumbnails.data_uri(&a));
        assert_eq!(prepared.data_uri(&b), None);
    }
}
