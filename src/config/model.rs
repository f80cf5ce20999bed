//! What `[old]` and `[new]` of audit.toml say of a model.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::domain::in_utf8;

/// How the token embeddings of a text model become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the tokens with attention mask 1.
    Mean,
    /// The first token.
    Cls,
    /// The output already is one vector an item.
    None,
}

/// Colour order of the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red (OpenCV).
    Bgr,
}

/// Axis order of the model's image input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// (batch, channel, height, width)
    Nchw,
    /// (batch, height, width, channel)
    Nhwc,
}

/// Resampling filter, as Pillow names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeFilter {
    /// Nearest neighbour.
    Nearest,
    /// Triangle filter.
    Bilinear,
    /// Catmull-Rom (a = -0.5).
    Bicubic,
    /// Lanczos, three lobes.
    Lanczos,
}

/// How an image becomes the size the model wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeMode {
    /// Both sides to the target, the aspect ratio is not kept.
    Exact,
    /// The shorter side to the target, as torchvision rounds it, then a centre crop as torchvision places it.
    ShorterSideTorchvision,
    /// The shorter side to the target, then a centre crop, as Hugging Face's image processors do it.
    ShorterSideHuggingface,
}

/// Height and width; `224` in audit.toml means 224 x 224.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels or [height, width]")]
pub enum Size {
    /// A square side (or, for the shorter-side modes, that side).
    Square(u32),
    /// (height, width)
    HeightWidth([u32; 2]),
}

impl Size {
    /// (height, width)
    pub fn height_width(self) -> (u32, u32) {
        match self {
            Size::Square(side) => (side, side),
            Size::HeightWidth([height, width]) => (height, width),
        }
    }
}

/// Items a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a whole number of items, 1 or more, or \"auto\""
)]
pub enum BatchSize {
    /// So many.
    Items(usize),
    /// The fastest of a short measured search, on this machine.
    Measured(Measured),
}

/// The one word of [`BatchSize::Measured`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measured {
    /// `auto`
    Auto,
}

impl BatchSize {
    /// `auto`.
    pub const AUTO: Self = Self::Measured(Measured::Auto);
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<usize>() {
            _ if text == "auto" => Ok(Self::AUTO),
            Ok(items) if (1..=MAX_BATCH).contains(&items) => Ok(Self::Items(items)),
            _ => Err(format!(
                "expected auto, or 1 to {MAX_BATCH} items, found `{text}`"
            )),
        }
    }
}

/// What audit.toml (`[old]`, `[new]`) or flags say of one model. What is `None` is taken from the model
/// file, a file beside it, or the default, in this order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// Resize target before the crop.
    pub size: Option<Size>,
    /// Centre crop after the resize.
    pub crop: Option<Size>,
    /// How to resize (default `exact`).
    pub resize: Option<ResizeMode>,
    /// Resize filter (default `bilinear`).
    pub filter: Option<ResizeFilter>,
    /// Colour order (default `rgb`).
    pub color: Option<ColorOrder>,
    /// Axis order (default: what the input's shape says).
    pub layout: Option<Layout>,
    /// Each u8 level is multiplied by this first (default 1/255).
    pub scale: Option<f64>,
    /// Subtracted per channel, in the model's colour order, after scaling (default 0).
    pub mean: Option<[f64; 3]>,
    /// Divided by per channel after the mean (default 1).
    pub std: Option<[f64; 3]>,
    /// Whether the EXIF orientation is applied (default false, as `PIL.Image.open` leaves it).
    pub exif: Option<bool>,
    /// Path of tokenizer.json (default: beside the model).
    #[serde(serialize_with = "in_utf8")]
    pub tokenizer: Option<PathBuf>,
    /// Longest sequence in tokens, special tokens included (default: the tokenizer's own truncation, else 512).
    pub max_length: Option<usize>,
    /// Text put before every text.
    pub prefix: Option<String>,
    /// Text put before query texts instead of `prefix`.
    pub query_prefix: Option<String>,
    /// Tensor file for this model, when the two models' inputs differ.
    #[serde(serialize_with = "in_utf8")]
    pub tensors: Option<PathBuf>,
    /// Name of the model's output to use.
    pub output: Option<String>,
    /// Pooling of a rank-3 output.
    pub pooling: Option<Pooling>,
    /// Keep the first `dims` dimensions, then normalise (Matryoshka).
    pub dims: Option<usize>,
    /// Items a batch (default 32).
    pub batch_size: Option<BatchSize>,
    /// Whether [`Self::batch_size`] is the command line's.
    #[serde(skip)]
    pub batch_size_is_a_flag: bool,
}

/// Largest batch: every batch is filled up to its size, so a larger one only costs memory.
const MAX_BATCH: usize = 4096;

impl ModelConfig {
    /// The keys that are set, in the order of the fields.
    pub fn configured(&self) -> Vec<String> {
        super::keys_set(self)
    }

    /// Refuses values outside their ranges; `name` is the table.
    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let positive = |key: &str, value: Option<f64>| match value {
            Some(found) if !(found.is_finite() && found > 0.0) => Err(ConfigError::OutOfRange {
                path: None,
                is_flag: false,
                key: format!("{name}.{key}"),
                low: 0.0,
                high: f64::INFINITY,
                found,
            }),
            _ => Ok(()),
        };
        positive("scale", self.scale)?;
        positive("dims", self.dims.map(|n| n as f64))?;
        if let Some(BatchSize::Items(found)) = self.batch_size
            && !(1..=MAX_BATCH).contains(&found)
        {
            return Err(ConfigError::OutOfRange {
                path: None,
                is_flag: self.batch_size_is_a_flag,
                key: format!("{name}.batch_size"),
                low: 0.0,
                high: (MAX_BATCH + 1) as f64,
                found: found as f64,
            });
        }
        positive("max_length", self.max_length.map(|n| n as f64))?;
        for side in [self.size, self.crop].into_iter().flatten() {
            let (height, width) = side.height_width();
            positive("size and crop", Some(f64::from(height.min(width))))?;
        }
        self.std
            .iter()
            .flatten()
            .try_for_each(|&std| positive("std", Some(std)))
    }
}
