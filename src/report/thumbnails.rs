//! Small pictures of items, as data URIs, so that report.html needs no other file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use image::ImageEncoder;
use image::codecs::png::PngEncoder;

use crate::config::ResizeFilter;
use crate::embed::preprocess::{RgbImage, decode, resize};

/// Longest side of a thumbnail in pixels: twice the 48 CSS pixels that it is shown at.
pub const SIDE: u32 = 96;

/// Thumbnails a report: 24 flips of 7 pictures and 24 least credible items. At most about 5 MB of HTML.
pub const LIMIT: usize = 192;

/// Makes thumbnails, each picture once, at most a given number of them.
#[derive(Debug)]
pub struct Thumbnails {
    left: usize,
    missing: usize,
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
            folders,
            made: BTreeMap::new(),
        }
    }

    /// How many pictures were asked for and are in none of the folders.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// `data:image/png;base64,...` of the picture as the models see it (alpha dropped), at most [`SIDE`] pixels
    /// a side and never enlarged.
    ///
    /// `None` when the file is gone or no picture, or when the limit is reached: a report that is rendered again
    /// elsewhere must not fail over that.
    pub fn data_uri(&mut self, path: &Path) -> Option<String> {
        if let Some(made) = self.made.get(path) {
            return made.clone();
        }
        self.left = self.left.checked_sub(1)?;
        let mut places = self.folders.iter().map(|folder| folder.join(path));
        let uri = match places.find(|place| place.is_file()) {
            Some(file) => decode(&file, false).ok().and_then(|image| png_uri(&image)),
            None => {
                self.missing += 1;
                None
            }
        };
        self.made.insert(path.to_owned(), uri.clone());
        uri
    }
}

fn png_uri(image: &RgbImage) -> Option<String> {
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
    let text = base64::engine::general_purpose::STANDARD.encode(png);
    Some(format!("data:image/png;base64,{text}"))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn size(uri: &str) -> (u32, u32) {
        let text = uri.strip_prefix("data:image/png;base64,").unwrap();
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
        assert_eq!(size(&png_uri(&wide).unwrap()), (96, 24));
        let thin = RgbImage::from_pixels(1, 5000, vec![7; 5000 * 3]);
        assert_eq!(size(&png_uri(&thin).unwrap()), (1, 96));
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
    fn the_number_is_bounded_and_a_picture_counts_once() {
        let [a, b] = ["noto__2195", "noto__2198"].map(sample::emoji);
        let mut thumbnails = Thumbnails::new(1);
        assert!(thumbnails.data_uri(&a).is_some());
        assert!(thumbnails.data_uri(&a).is_some());
        assert_eq!(thumbnails.data_uri(&b), None);
    }
}
