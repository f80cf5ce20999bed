//! The image half: what `[old]`, `[new]`, preprocessor_config.json and the input's shape say of preprocessing.

use std::path::Path;

use super::super::preprocess::{ImagePreprocess, read_preprocessor_config};
use super::super::session::{OnnxModel, TensorSpec};
use super::super::{EmbedError, EmbedOptions};
use super::{Inputs, Record, beside};
use crate::config::{ColorOrder, Layout, ModelConfig, ResizeFilter, ResizeMode, Size};
use crate::domain::{Finding, FindingCode, Origin, Severity};

/// Resize, crop, normalisation and size of a model's one image input.
pub(super) fn resolve(
    path: &Path,
    model: &OnnxModel,
    config: &ModelConfig,
    options: &EmbedOptions<'_>,
    record: &mut Record,
    findings: &mut Vec<Finding>,
) -> Result<Inputs, EmbedError> {
    let [input] = model.inputs.as_slice() else {
        return Err(EmbedError::NotAnImageModel {
            path: path.into(),
            inputs: model.inputs.clone(),
        });
    };
    let not_image = || EmbedError::NotAnImageModel {
        path: path.into(),
        inputs: model.inputs.clone(),
    };
    let &[_, a, b, c] = input.shape.as_slice() else {
        return Err(not_image());
    };
    let shape_layout = match (a, c) {
        (3, _) => Some(Layout::Nchw),
        (_, 3) => Some(Layout::Nhwc),
        _ => None,
    };
    let sidecar_path = beside(path, "preprocessor_config.json");
    let sidecar = match sidecar_path.is_file() {
        true => read_preprocessor_config(&sidecar_path)?,
        false => ModelConfig::default(),
    };
    let layout = config.layout.or(shape_layout).ok_or_else(not_image)?;
    let layout_origin = if config.layout.is_some() {
        Origin::File
    } else {
        Origin::Model
    };
    record.note("layout", layout, layout_origin);
    let (channels, height, width) = match layout {
        Layout::Nchw => (a, b, c),
        Layout::Nhwc => (c, a, b),
    };
    if channels > 0 && channels != 3 {
        return Err(EmbedError::InputFixed {
            path: path.into(),
            input: Box::new(input.clone()),
            configured: format!("layout {layout:?} with 3 channels").to_lowercase(),
        });
    }
    let from_shape =
        (height > 0 && width > 0).then_some(Size::HeightWidth([height as u32, width as u32]));

    let crop = config.crop.or(sidecar.crop);
    let resize = record.pick(
        "resize",
        [
            (config.resize, Origin::File),
            (sidecar.resize, Origin::Sidecar),
        ],
        ResizeMode::Exact,
    );
    let size = match config.size.or(sidecar.size) {
        Some(_) => Some(record.pick(
            "size",
            [(config.size, Origin::File), (sidecar.size, Origin::Sidecar)],
            Size::Square(0),
        )),
        None => {
            let size = from_shape.filter(|_| crop.is_none());
            record.note("size", size, Origin::Model);
            size
        }
    };
    if crop.is_some() {
        let choices = [(config.crop, Origin::File), (sidecar.crop, Origin::Sidecar)];
        record.pick("crop", choices, Size::Square(0));
    }
    let filter = record.pick(
        "filter",
        [
            (config.filter, Origin::File),
            (sidecar.filter, Origin::Sidecar),
        ],
        ResizeFilter::Bilinear,
    );
    let color = record.pick(
        "color",
        [
            (config.color, Origin::File),
            (sidecar.color, Origin::Sidecar),
        ],
        ColorOrder::Rgb,
    );
    // A model of bytes normalises them itself.
    let takes_bytes = input.dtype == "uint8";
    let scale = record.pick(
        "scale",
        [
            (config.scale, Origin::File),
            (sidecar.scale, Origin::Sidecar),
            (takes_bytes.then_some(1.0), Origin::Model),
        ],
        1.0 / 255.0,
    );
    let mean = record.pick(
        "mean",
        [(config.mean, Origin::File), (sidecar.mean, Origin::Sidecar)],
        [0.0; 3],
    );
    let std = record.pick(
        "std",
        [(config.std, Origin::File), (sidecar.std, Origin::Sidecar)],
        [1.0; 3],
    );
    let exif = record.pick("exif", [(config.exif, Origin::File)], false);
    let preprocess = Box::new(ImagePreprocess {
        size,
        resize,
        crop,
        filter,
        color,
        layout,
        scale,
        mean,
        std,
        exif,
    });
    let configured = [config, &sidecar]
        .iter()
        .any(|known| known.mean.is_some() || known.std.is_some() || known.scale.is_some());
    if !configured && !takes_bytes {
        findings.push(Finding::new(
            FindingCode::PreprocessingAssumed,
            Severity::Warning,
            format!(
                "{} model: preprocessing is assumed (RGB, divided by 255, no mean and std); a wrong mean and std costs accuracy without an error",
                options.side
            ),
        ));
    }
    let (height, width) = input_size(path, input, from_shape, &preprocess)?;
    Ok(Inputs::Image {
        name: input.name.clone(),
        height,
        width,
        preprocess,
    })
}

/// The input's (height, width): fixed by the model, else what crop or size lead to. Where both say it, they must agree.
fn input_size(
    path: &Path,
    input: &TensorSpec,
    from_shape: Option<Size>,
    preprocess: &ImagePreprocess,
) -> Result<(u32, u32), EmbedError> {
    let exact = preprocess.size.filter(|size| {
        matches!(size, Size::HeightWidth(_)) || preprocess.resize == ResizeMode::Exact
    });
    let fixed = from_shape.map(Size::height_width);
    let configured = preprocess.crop.or(exact).map(Size::height_width);
    if let (Some(fixed), Some((height, width))) = (fixed, configured)
        && fixed != (height, width)
    {
        return Err(EmbedError::InputFixed {
            path: path.into(),
            input: Box::new(input.clone()),
            configured: format!(
                "an image of {height} x {width} (height x width) after size and crop"
            ),
        });
    }
    fixed.or(configured).ok_or_else(|| EmbedError::SizeUnknown {
        path: path.into(),
        input: Box::new(input.clone()),
    })
}
