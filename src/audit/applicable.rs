//! Refuses configured keys that nothing would read: a given file that is silently ignored is worse than an error.

use super::AuditError;
use crate::config::{AuditConfig, ConfigError, ModelConfig};
use crate::domain::{Modality, Probe, Side};
use crate::embed::ModelSource;

/// Keys of `[old]` and `[new]` that prepare images.
const IMAGE: [&str; 10] = [
    "size", "crop", "resize", "filter", "color", "layout", "scale", "mean", "std", "exif",
];

/// Keys that prepare texts.
const TEXT: [&str; 4] = ["tokenizer", "max_length", "prefix", "query_prefix"];

/// Keys that speak of the model's output and of how it is run.
const ANY: [&str; 4] = ["output", "pooling", "dims", "batch_size"];

/// Every configured key must apply to this probe and these models.
///
/// # Errors
/// [`ConfigError::NotApplicable`] for the first that does not.
pub fn check(probe: &Probe, config: &AuditConfig) -> Result<(), AuditError> {
    if let (Some(key), true) = (
        config.probe.columns.configured().first(),
        probe.origin.is_dir(),
    ) {
        return Err(not_applicable(
            format!("columns.{key}"),
            format!(
                "{} is a folder of images without a manifest, so there are no columns",
                probe.origin.display()
            ),
            "remove the key, or give a manifest as DATA".into(),
        ));
    }
    if let (Some(qrels), true) = (&probe.qrels, config.policy.profile.is_label_free()) {
        return Err(not_applicable(
            "policy.profile".into(),
            format!(
                "{} says what is relevant, and the label-free profile would not read it",
                qrels.origin().display()
            ),
            "choose another profile, or move the judgements away".into(),
        ));
    }
    let sides = [
        (Side::Old, &config.old, &config.old_model),
        (Side::New, &config.new, &config.new_model),
    ];
    for (side, path, model) in sides {
        let source = ModelSource::from_path(path).map_err(|source| AuditError::Embed {
            side,
            source: Box::new(source),
        })?;
        let Some((what, known)) = known_keys(probe.modality, &source, model) else {
            continue;
        };
        if let Some(key) = model
            .configured()
            .into_iter()
            .find(|key| !known.contains(&key.as_str()))
        {
            return Err(not_applicable(
                format!("{side}.{key}"),
                format!("{what} has no use for it"),
                format!("remove the key; {what} takes {}", known.join(", ")),
            ));
        }
    }
    Ok(())
}

fn not_applicable(key: String, because: String, hint: String) -> AuditError {
    AuditError::Config(ConfigError::NotApplicable { key, because, hint })
}

/// What a side is, in words, and the keys it reads; `None` where any may apply.
fn known_keys(
    modality: Modality,
    source: &ModelSource,
    model: &ModelConfig,
) -> Option<(&'static str, Vec<&'static str>)> {
    if matches!(source, ModelSource::Stored(_)) {
        return Some(("a side of stored embeddings", vec!["dims"]));
    }
    let (what, own): (_, &[&str]) = match modality {
        Modality::Image => ("a model of an image probe", &IMAGE),
        Modality::Text => ("a model of a text probe", &TEXT),
        // Texts of a manifest with tensors are read by a model with a tokenizer.
        Modality::Tensor if model.tokenizer.is_some() => ("a model with a tokenizer", &TEXT),
        Modality::Tensor => ("a model of a tensor probe", &["tensors"]),
        // Nothing is known of inputs that are not there.
        Modality::Stored => return None,
    };
    Some((what, [own, &ANY].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_applies_somewhere() {
        let every = serde_json::to_value(ModelConfig::default()).expect("options are JSON");
        for key in every.as_object().expect("a struct").keys() {
            let known = [&IMAGE[..], &TEXT, &ANY, &["tensors"]].concat();
            assert!(known.contains(&key.as_str()), "{key}");
        }
    }

    #[test]
    fn what_a_side_reads_follows_from_probe_and_source() {
        let onnx = ModelSource::Onnx("m.onnx".into());
        let plain = ModelConfig::default();
        let known = |modality, source: &ModelSource, model: &ModelConfig| {
            known_keys(modality, source, model).map(|(_, keys)| keys)
        };
        let image = known(Modality::Image, &onnx, &plain).expect("known");
        assert!(image.contains(&"mean") && !image.contains(&"tokenizer"));
        let text = known(Modality::Text, &onnx, &plain).expect("known");
        assert!(text.contains(&"prefix") && !text.contains(&"mean") && !text.contains(&"tensors"));
        let tensor = known(Modality::Tensor, &onnx, &plain).expect("known");
        assert!(tensor.contains(&"tensors") && !tensor.contains(&"prefix"));
        let tokenizer = ModelConfig {
            tokenizer: Some("t.json".into()),
            ..ModelConfig::default()
        };
        let both = known(Modality::Tensor, &onnx, &tokenizer).expect("known");
        assert!(both.contains(&"prefix") && !both.contains(&"tensors"));
        let stored = ModelSource::Stored("e.npy".into());
        assert_eq!(known(Modality::Image, &stored, &plain), Some(vec!["dims"]));
        assert_eq!(known(Modality::Stored, &onnx, &plain), None);
    }
}
