//! `preprocessor_config.json`, the description of an image processor that Hugging Face keeps beside a model.

use std::path::Path;

use serde_json::{Map, Value};

use super::ImageError;
use crate::config::{ColorOrder, ModelConfig, ResizeFilter, ResizeMode, Size};

/// Image processors for which a single number as `size` means the shorter side (`default_to_square=False`
/// in their sources); for the others it means a square.
const SHORTER_SIDE: [&str; 9] = [
    "CLIP",
    "ChineseCLIP",
    "ConvNext",
    "Levit",
    "MobileNetV1",
    "MobileNetV2",
    "MobileViT",
    "PoolFormer",
    "VideoMAE",
];

/// Reads the image part of a `preprocessor_config.json`.
///
/// Understood: `do_resize`, `size` (a number, `shortest_edge`, or `height` and `width`), `resample`,
/// `do_center_crop`, `crop_size`, `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean`, `image_std`,
/// `do_flip_channel_order`, and ConvNeXt's `crop_pct`. What the file does not say stays `None`: the processor's
/// own default is not in it. Other keys are ignored, but those that change the picture are refused.
///
/// # Errors
/// [`ImageError::Read`], [`ImageError::SidecarSyntax`], and [`ImageError::SidecarValue`] for what is understood
/// by name but not by value.
pub fn read_preprocessor_config(path: &Path) -> Result<ModelConfig, ImageError> {
    let text = std::fs::read(path).map_err(|source| ImageError::Read {
        path: path.to_owned(),
        source,
    })?;
    let object: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|source| ImageError::SidecarSyntax {
            path: path.to_owned(),
            source,
        })?;
    Sidecar { path, object }.read()
}

/// The parsed file, with its path for the errors.
struct Sidecar<'a> {
    path: &'a Path,
    object: Map<String, Value>,
}

impl Sidecar<'_> {
    fn read(&self) -> Result<ModelConfig, ImageError> {
        for key in [
            "do_pad",
            "do_align_long_axis",
            "do_thumbnail",
            // EfficientNet's second normalisation, and the levels shifted to [-1, 1] of it and of video models.
            "include_top",
            "rescale_offset",
            "offset",
        ] {
            if self.flag(key)? == Some(true) {
                return Err(self.wrong(key, "false: this step is not known here"));
            }
        }
        if self.number("size_divisor")?.is_some() {
            return Err(self.wrong("size_divisor", "no such key: this step is not known here"));
        }
        let mut config = ModelConfig {
            filter: self.filter()?,
            color: (self.flag("do_flip_channel_order")? == Some(true)).then_some(ColorOrder::Bgr),
            scale: match self.flag("do_rescale")? {
                Some(false) => Some(1.0),
                _ => self.number("rescale_factor")?.or(Some(1.0 / 255.0)),
            },
            ..ModelConfig::default()
        };
        if self.flag("do_normalize")? == Some(false) {
            (config.mean, config.std) = (Some([0.0; 3]), Some([1.0; 3]));
        } else {
            config.mean = self.triple("image_mean")?;
            config.std = self.triple("image_std")?;
            if config.std.is_some_and(|std| std.contains(&0.0)) {
                return Err(self.wrong("image_std", "no zeros"));
            }
        }
        if self.flag("do_resize")? != Some(false) {
            self.resize(&mut config)?;
        }
        if self.flag("do_center_crop")? == Some(true) {
            config.crop = self.crop()?;
            // A pair of sides is reached exactly in every mode; the mode then only names the crop's rounding.
            config.resize = Some(ResizeMode::ShorterSideHuggingface);
        }
        Ok(config)
    }

    /// Sets `size`, `resize` and, for ConvNeXt, `crop`.
    fn resize(&self, config: &mut ModelConfig) -> Result<(), ImageError> {
        let convnext = self.processor().starts_with("ConvNext");
        if !convnext && self.number("crop_pct")?.is_some() {
            return Err(self.wrong("crop_pct", "no such key but for ConvNeXt"));
        }
        let Some(size) = self.object.get("size").filter(|size| !size.is_null()) else {
            return Ok(());
        };
        let expected =
            "a positive number, {\"shortest_edge\": n}, or {\"height\": h, \"width\": w}";
        let side = |value: &Value| as_side(value).ok_or_else(|| self.wrong("size", expected));
        let shortest = match size {
            Value::Object(sides) => match (sides.get("shortest_edge"), sides.get("longest_edge")) {
                (Some(edge), None) => Some(side(edge)?),
                (None, None) => None,
                _ => return Err(self.wrong("size", expected)),
            },
            number if self.shorter_side_by_default()? => Some(side(number)?),
            _ => None,
        };
        match shortest {
            Some(side) if convnext => self.resize_convnext(side, config)?,
            Some(side) if self.processor() == "Levit" => {
                // Its processor resizes to 256/224 of what the file says.
                config.size = Some(Size::Square((256.0 / 224.0 * f64::from(side)) as u32));
                config.resize = Some(ResizeMode::ShorterSideHuggingface);
            }
            Some(side) => {
                config.size = Some(Size::Square(side));
                config.resize = Some(ResizeMode::ShorterSideHuggingface);
            }
            None => {
                config.size =
                    Some(as_height_width(size).ok_or_else(|| self.wrong("size", expected))?);
                config.resize = Some(ResizeMode::Exact);
            }
        }
        Ok(())
    }

    /// ConvNeXt's own rule: below 384 the shorter side becomes `int(side / crop_pct)` and `side` is cropped out;
    /// from 384 on the image is warped to the square.
    fn resize_convnext(&self, side: u32, config: &mut ModelConfig) -> Result<(), ImageError> {
        if side >= 384 {
            config.size = Some(Size::Square(side));
            config.resize = Some(ResizeMode::Exact);
            return Ok(());
        }
        // The processor's default; older files leave it out.
        let share = self.number("crop_pct")?.unwrap_or(224.0 / 256.0);
        if !(share > 0.0 && share <= 1.0) {
            return Err(self.wrong("crop_pct", "a number in (0, 1]"));
        }
        config.size = Some(Size::Square((f64::from(side) / share) as u32));
        config.resize = Some(ResizeMode::ShorterSideHuggingface);
        config.crop = Some(Size::Square(side));
        Ok(())
    }

    /// Whether a single number as `size` is the shorter side.
    fn shorter_side_by_default(&self) -> Result<bool, ImageError> {
        let processor = self.processor();
        if SHORTER_SIDE.contains(&processor) {
            return Ok(true);
        }
        if processor.is_empty() && self.flag("do_center_crop")? == Some(true) {
            return Err(self.wrong(
                "size",
                "{\"shortest_edge\": n} or {\"height\": h, \"width\": w}, since no processor is named and a \
                 number alone can mean both",
            ));
        }
        Ok(false)
    }

    fn crop(&self) -> Result<Option<Size>, ImageError> {
        let Some(crop) = self.object.get("crop_size").filter(|crop| !crop.is_null()) else {
            return Ok(None);
        };
        let size = as_height_width(crop).ok_or_else(|| {
            self.wrong(
                "crop_size",
                "a positive number or {\"height\": h, \"width\": w}",
            )
        })?;
        Ok(Some(size))
    }

    /// `resample`, by Pillow's numbers.
    fn filter(&self) -> Result<Option<ResizeFilter>, ImageError> {
        let Some(value) = self.object.get("resample").filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(0) => Ok(Some(ResizeFilter::Nearest)),
            Some(1) => Ok(Some(ResizeFilter::Lanczos)),
            Some(2) => Ok(Some(ResizeFilter::Bilinear)),
            Some(3) => Ok(Some(ResizeFilter::Bicubic)),
            _ => Err(self.wrong(
                "resample",
                "0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)",
            )),
        }
    }

    /// Name of the processor's class without what all such names end in.
    fn processor(&self) -> &str {
        let name = ["image_processor_type", "feature_extractor_type"]
            .iter()
            .find_map(|&key| self.object.get(key)?.as_str())
            .unwrap_or_default();
        let name = name.strip_suffix("Fast").unwrap_or(name);
        name.strip_suffix("ImageProcessor")
            .or_else(|| name.strip_suffix("FeatureExtractor"))
            .unwrap_or(name)
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, ImageError> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    fn number(&self, key: &'static str) -> Result<Option<f64>, ImageError> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(key, "a number")),
            },
        }
    }

    /// Three numbers, or one that stands for all channels.
    fn triple(&self, key: &'static str) -> Result<Option<[f64; 3]>, ImageError> {
        let Some(value) = self.object.get(key).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        if let Some(number) = value.as_f64() {
            return Ok(Some([number; 3]));
        }
        match serde_json::from_value(value.clone()) {
            Ok(triple) => Ok(Some(triple)),
            Err(_) => Err(self.wrong(key, "one number or three")),
        }
    }

    fn wrong(&self, key: &'static str, expected: &'static str) -> ImageError {
        ImageError::SidecarValue {
            path: self.path.to_owned(),
            key,
            expected,
            found: self
                .object
                .get(key)
                .map_or("nothing".to_owned(), Value::to_string),
        }
    }
}

/// A positive number of pixels.
fn as_side(value: &Value) -> Option<u32> {
    let side = u32::try_from(value.as_u64()?).ok()?;
    (side > 0).then_some(side)
}

/// A number or an object of `height` and `width`.
fn as_height_width(value: &Value) -> Option<Size> {
    let Value::Object(sides) = value else {
        return as_side(value).map(Size::Square);
    };
    let height = as_side(sides.get("height")?)?;
    let width = as_side(sides.get("width")?)?;
    Some(Size::HeightWidth([height, width]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ModelConfig, ImageError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preprocessor_config.json");
        std::fs::write(&path, text).unwrap();
        read_preprocessor_config(&path)
    }

    /// The files as published with openai/clip-vit-base-patch32 and google/vit-base-patch16-224.
    #[test]
    fn clip_and_vit() {
        let clip = read(
            r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224}"#,
        )
        .unwrap();
        let expected = ModelConfig {
            size: Some(Size::Square(224)),
            crop: Some(Size::Square(224)),
            resize: Some(ResizeMode::ShorterSideHuggingface),
            filter: Some(ResizeFilter::Bicubic),
            scale: Some(1.0 / 255.0),
            mean: Some([0.48145466, 0.4578275, 0.40821073]),
            std: Some([0.26862954, 0.26130258, 0.27577711]),
            ..ModelConfig::default()
        };
        assert_eq!(clip, expected);
        let vit = read(
            r#"{"do_normalize": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5], "size": 224}"#,
        )
        .unwrap();
        let expected = ModelConfig {
            size: Some(Size::Square(224)),
            resize: Some(ResizeMode::Exact),
            scale: Some(1.0 / 255.0),
            mean: Some([0.5; 3]),
            std: Some([0.5; 3]),
            ..ModelConfig::default()
        };
        assert_eq!(vit, expected);
    }

    /// transformers' LevitImageProcessor resizes to `int(256 / 224 * shortest_edge)`.
    #[test]
    fn levit_resizes_to_more_than_it_says() {
        let levit =
            r#"{"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 224}}"#;
        assert_eq!(read(levit).unwrap().size, Some(Size::Square(256)));
        let plain = levit.replace("Levit", "CLIP");
        assert_eq!(read(&plain).unwrap().size, Some(Size::Square(224)));
    }

    #[test]
    fn steps_that_are_not_known_are_refused() {
        for key in ["do_pad", "include_top", "rescale_offset", "offset"] {
            let error = read(&format!(r#"{{"{key}": true}}"#)).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
            read(&format!(r#"{{"{key}": false}}"#)).unwrap();
        }
        let error = read(r#"{"size_divisor": 32}"#).unwrap_err();
        assert!(error.to_string().contains("size_divisor"), "{error}");
    }

    #[test]
    fn sizes_in_all_spellings() {
        let edge = read(r#"{"size": {"shortest_edge": 256}}"#).unwrap();
        assert_eq!(edge.size, Some(Size::Square(256)));
        assert_eq!(edge.resize, Some(ResizeMode::ShorterSideHuggingface));
        assert_eq!(edge.crop, None);
        let pair = read(
            r#"{"size": {"height": 256, "width": 128}, "do_center_crop": true,
            "crop_size": {"height": 224, "width": 112}}"#,
        )
        .unwrap();
        assert_eq!(pair.size, Some(Size::HeightWidth([256, 128])));
        assert_eq!(pair.crop, Some(Size::HeightWidth([224, 112])));
        assert_eq!(pair.resize, Some(ResizeMode::ShorterSideHuggingface));
        let off =
            read(r#"{"do_resize": false, "size": 224, "do_center_crop": false, "crop_size": 5}"#)
                .unwrap();
        assert_eq!((off.size, off.crop, off.resize), (None, None, None));
    }

    #[test]
    fn convnext_crops_out_of_a_larger_square() {
        let small = read(
            r#"{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875}"#,
        )
        .unwrap();
        assert_eq!(small.size, Some(Size::Square(256)));
        assert_eq!(small.crop, Some(Size::Square(224)));
        let large = read(
            r#"{"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384, "crop_pct": 0.875}"#,
        )
        .unwrap();
        assert_eq!(large.size, Some(Size::Square(384)));
        assert_eq!((large.crop, large.resize), (None, Some(ResizeMode::Exact)));
    }

    #[test]
    fn steps_that_are_off() {
        let config = read(
            r#"{"do_rescale": false, "do_normalize": false, "image_mean": [9, 9, 9],
            "do_flip_channel_order": true}"#,
        )
        .unwrap();
        assert_eq!(config.scale, Some(1.0));
        assert_eq!(config.mean, Some([0.0; 3]));
        assert_eq!(config.std, Some([1.0; 3]));
        assert_eq!(config.color, Some(ColorOrder::Bgr));
        let config = read(r#"{"rescale_factor": 0.00784313725490196}"#).unwrap();
        assert_eq!(config.scale, Some(0.00784313725490196));
        assert_eq!(config.mean, None);
        let config = read(r#"{"image_mean": 0.5, "image_std": null}"#).unwrap();
        assert_eq!((config.mean, config.std), (Some([0.5; 3]), None));
    }

    #[test]
    fn errors_name_the_key() {
        for (text, said) in [
            ("[1", "expected a JSON object"),
            (
                r#"{"do_pad": true}"#,
                "do_pad: expected false: this step is not known here, found true",
            ),
            (
                r#"{"do_resize": 1}"#,
                "do_resize: expected true or false, found 1",
            ),
            (
                r#"{"size": {"longest_edge": 9}}"#,
                "size: expected a positive number",
            ),
            (r#"{"size": 0}"#, "found 0"),
            (
                r#"{"size": 9, "do_center_crop": true}"#,
                "a number alone can mean both, found 9",
            ),
            (
                r#"{"do_center_crop": true, "crop_size": "x"}"#,
                r#"crop_size: expected a positive number or"#,
            ),
            (r#"{"resample": 5}"#, "resample: expected 0 (nearest)"),
            (
                r#"{"image_std": [1, 0, 1]}"#,
                "image_std: expected no zeros, found [1,0,1]",
            ),
            (
                r#"{"image_std": [1, 2]}"#,
                "image_std: expected one number or three, found [1,2]",
            ),
            (
                r#"{"size": 9, "crop_pct": 0.9}"#,
                "crop_pct: expected no such key but for ConvNeXt, found 0.9",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.to_string().contains("preprocessor_config.json: "),
                "{error}"
            );
            assert!(error.to_string().contains(said), "{error}");
            assert!(error.hint().unwrap().contains("audit.toml"));
        }
    }
}
