//! The commented audit.toml that `compat-audit init` writes.

use std::path::{Component, Path, PathBuf};

use crate::audit::Preview;
use crate::config::{AuditConfig, ByteSize, Waiver};
use crate::domain::{CheckCode, Modality, Origin, Setting};
use crate::embed::ModelDescription;

const HEAD: &str = "\
# audit.toml of compat-audit. Flags win over this file, this file over what the models say, that over defaults.
# A commented line shows the value in use, or an example where nothing is; remove the # to fix it.
# Paths start at this file's folder.
";

/// A key, an example as TOML (empty: there is always a value in use, which is shown), and what it means.
type Line = (&'static str, &'static str, &'static str);

const AUDIT: [Line; 10] = [
    (
        "similarity",
        "",
        "cosine, ip or l2: how the search engine compares embeddings",
    ),
    ("seed", "", "of every random draw"),
    (
        "max_bad_items",
        "",
        "unreadable items that are tolerated and listed",
    ),
    (
        "qrels",
        "\"qrels.tsv\"",
        "unset: the only qrels.* beside the manifest, if any; TREC or BEIR",
    ),
    ("strict", "", "true: refuse to assume image preprocessing"),
    (
        "tensors",
        "\"inputs.npz\"",
        "unset: the only .npz beside the manifest; arrays by input name",
    ),
    (
        "old_embeddings",
        "\"gallery.parquet\"",
        "unset: OLD embeds the gallery itself",
    ),
    (
        "credibility",
        "",
        "paper: the entropy cut of NCCL's paper, which passes what is confidently wrong",
    ),
    (
        "sample",
        "10000",
        "unset: all; assess so many gallery items' credibility and queries' consensus only",
    ),
    (
        "memory",
        "\"1GiB\"",
        "unset: 1GiB; of stored embeddings, more is read from their files",
    ),
];

const COLUMNS: [Line; 7] = [
    ("path", "\"path\"", "image files"),
    ("text", "\"text\"", "texts"),
    ("id", "\"id\"", "unique ids; else the path"),
    (
        "identity",
        "\"identity\"",
        "`label` and `class` are understood too",
    ),
    (
        "camera",
        "\"camera\"",
        "only a column of this name is one; name yours if it is called source or session",
    ),
    ("role", "\"role\"", "query, gallery or both"),
    (
        "identity_separator",
        "\"|\"",
        "unset: one label an item; splits several labels in one cell",
    ),
];

const POLICY: [Line; 18] = [
    (
        "profile",
        "",
        "default, strict, lenient, or label-free (no labels: agreement with the old model): the limits to start from",
    ),
    (
        "primary",
        "\"mAP\"",
        "the measure that decides; unset: mAP, or nDCG@10 when relevance is graded",
    ),
    (
        "margin",
        "",
        "largest tolerated loss of the primary measure, absolute",
    ),
    ("alpha", "", "one-sided error of every bound"),
    (
        "excess_flips",
        "",
        "largest tolerated share of excess flips",
    ),
    (
        "negative_flips",
        "0.10",
        "set it to gate on negative flips; unset, they only warn",
    ),
    ("slice_margin", "", "largest tolerated loss of a slice"),
    (
        "slice_columns",
        "[\"camera\"]",
        "unset: identity, sub-cluster, camera and every manifest column",
    ),
    (
        "slices_proven",
        "",
        "true: every slice must be proven within its margin",
    ),
    (
        "untestable_traffic",
        "",
        "largest share of queries in no testable slice",
    ),
    (
        "refresh_margin",
        "",
        "largest tolerated loss while the gallery is refreshed",
    ),
    (
        "max_partial",
        "",
        "largest share of the gallery that a partial backfill may re-embed",
    ),
    (
        "threshold_far",
        "0.001",
        "set it to gate a hard-wired score threshold; unset, it only warns",
    ),
    (
        "threshold_far_factor",
        "",
        "largest multiple of threshold_far at that threshold",
    ),
    (
        "threshold_frr_rise",
        "",
        "largest rise of the false-reject rate there",
    ),
    (
        "blind_share",
        "",
        "largest share of identities that could collapse unseen",
    ),
    (
        "inconclusive",
        "",
        "fail or pass: what an inconclusive verdict means to the exit code",
    ),
    (
        "fail_on",
        "",
        "partial, full or never: from which verdict on the exit code is 1",
    ),
];

const BACKFILL: [Line; 3] = [
    (
        "gallery_size",
        "200_000_000",
        "unset: no costs; items of the production gallery",
    ),
    (
        "cost_per_million",
        "12.0",
        "unset: no money; of embedding a million items",
    ),
    (
        "throughput",
        "900.0",
        "unset: no hours; items embedded a second",
    ),
];

/// `[old]` and `[new]`; each line ends with the kind of input it is for.
const MODEL: [Line; 19] = [
    (
        "size",
        "224",
        "images: resize target, a side or [height, width]",
    ),
    ("crop", "224", "images: centre crop after the resize"),
    (
        "resize",
        "\"exact\"",
        "images: exact, shorter-side-torchvision or shorter-side-huggingface",
    ),
    (
        "filter",
        "\"bilinear\"",
        "images: nearest, bilinear, bicubic or lanczos",
    ),
    ("color", "\"rgb\"", "images: rgb or bgr"),
    ("layout", "\"nchw\"", "images: nchw or nhwc"),
    (
        "scale",
        "0.00392156862745098",
        "images: each level is multiplied by it first",
    ),
    (
        "mean",
        "[0.485, 0.456, 0.406]",
        "images: subtracted after scaling",
    ),
    (
        "std",
        "[0.229, 0.224, 0.225]",
        "images: divided by after the mean",
    ),
    ("exif", "false", "images: apply the EXIF orientation"),
    (
        "tokenizer",
        "\"tokenizer.json\"",
        "texts: Hugging Face's file",
    ),
    ("max_length", "512", "texts: longest sequence in tokens"),
    ("prefix", "\"passage: \"", "texts: put before every text"),
    (
        "query_prefix",
        "\"query: \"",
        "texts: put before queries instead",
    ),
    (
        "tensors",
        "\"inputs.npz\"",
        "tensors: this model's own file",
    ),
    ("output", "\"embedding\"", "name of the model's output"),
    (
        "pooling",
        "\"none\"",
        "mean, cls or none: how a vector a token becomes one",
    ),
    ("dims", "64", "keep the first dimensions only (Matryoshka)"),
    ("batch_size", "32", "items a batch; \"auto\" measures"),
];

/// audit.toml for what the preview shows: configured values stand as they are, values that the models name are
/// commented with where they come from, values that had to be assumed are marked.
pub fn audit_toml(preview: &Preview, config: &AuditConfig, out: &Path) -> String {
    let folder = out.parent().unwrap_or(Path::new(""));
    let from_here = |path: &PathBuf| seen_from(path, folder);
    let mut text = HEAD.to_owned();
    let mut table = |name: &str, lines: &[Line]| {
        text += &format!("\n[{name}]\n");
        for &(key, example, about) in lines {
            let dotted = format!("{name}.{key}");
            let used = config.settings.iter().find(|used| used.key == dotted);
            let configured = used.filter(|used| matches!(used.origin, Origin::File | Origin::Flag));
            let path = match dotted.as_str() {
                "audit.tensors" => config.probe.tensors.as_ref().map(from_here),
                "audit.qrels" => config.probe.qrels.as_ref().map(from_here),
                "audit.old_embeddings" => config.old_embeddings.as_ref().map(from_here),
                _ => None,
            };
            let memory = (dotted == "audit.memory").then_some(config.memory);
            let memory = memory.filter(|&memory| memory != ByteSize::default());
            let value = path
                .map(quoted)
                .or_else(|| memory.map(|memory| quoted(memory.to_string())))
                .or_else(|| toml_value(&configured?.value));
            match value {
                Some(value) => text += &line("", key, &value, about),
                None => {
                    let in_use = used.and_then(|used| toml_value(&used.value));
                    let shown = in_use.as_deref().unwrap_or(example);
                    text += &line("# ", key, shown, about);
                }
            }
        }
    };
    table("audit", &AUDIT);
    table("columns", &COLUMNS);
    table("backfill", &BACKFILL);
    table("policy", &POLICY);
    text += &severities(config);
    text += &waivers(&config.policy.waivers);
    for (name, model) in ["old", "new"].iter().zip(&preview.models) {
        text += &model_table(name, model, preview.probe.modality, folder);
    }
    text
}

/// `[policy.severity]`, a comment as a whole where nothing of it is configured.
fn severities(config: &AuditConfig) -> String {
    let is_set = |code: &CheckCode| {
        let dotted = format!("policy.severity.{code}");
        config.settings.iter().any(|setting| setting.key == dotted)
    };
    let mark = |set: bool| if set { "" } else { "# " };
    let any = config.policy.severity.keys().any(is_set);
    let mut text = format!(
        "\n{}[policy.severity]            # gate, warn or off: how much a check matters\n",
        mark(any)
    );
    for (code, severity) in &config.policy.severity {
        text += &line(
            mark(is_set(code)),
            code.name(),
            &quoted(severity.to_string()),
            "",
        );
    }
    text
}

fn waivers(waivers: &[Waiver]) -> String {
    let mut text = String::new();
    for waiver in waivers {
        text += "\n[[policy.waiver]]\n";
        text += &line("", "check", &quoted(waiver.check.name()), "");
        if let Some(slice) = &waiver.slice {
            text += &line("", "slice", &quoted(slice), "");
        }
        text += &line("", "reason", &quoted(&waiver.reason), "");
        text += &line("", "until", &quoted(waiver.until.to_string()), "");
    }
    if waivers.is_empty() {
        text += "\n# [[policy.waiver]]            # a named failure to live with for a while\n";
        text += &line("# ", "check", "\"slices\"", "code of the check");
        text += &line(
            "# ",
            "slice",
            "\"camera=c1\"",
            "for slices: as the report names it",
        );
        text += &line("# ", "reason", "\"known and accepted\"", "why");
        text += &line("# ", "until", "\"2030-12-31\"", "the last day it holds");
    }
    text
}

fn model_table(name: &str, model: &ModelDescription, modality: Modality, folder: &Path) -> String {
    let mut text = format!("\n[{name}]  # {}\n", model.name);
    for (key, example, about) in MODEL {
        let setting = model
            .settings
            .iter()
            .find(|setting| setting.key == format!("{name}.{key}"));
        let file = model.files.iter().find(|(of, _)| *of == key);
        let open = model.open.iter().find(|open| open.key == key);
        let value = match (file, setting) {
            (Some((_, path)), _) => Some(quoted(seen_from(path, folder))),
            (None, Some(setting)) => toml_value(&setting.value),
            (None, None) => None,
        };
        text += &match (open, value, setting) {
            (Some(open), value, _) => {
                let value = value.unwrap_or_else(|| example.to_owned());
                line("# ", key, &value, &format!("CHOOSE: {}", open.about))
            }
            (None, Some(value), Some(setting)) => {
                let (mark, comment) = origin(setting);
                line(mark, key, &value, comment)
            }
            _ => line("# ", key, example, &unset(about, modality)),
        };
    }
    text
}

fn origin(setting: &Setting) -> (&'static str, &'static str) {
    match setting.origin {
        Origin::Model => ("# ", "what the model file says"),
        Origin::Sidecar => ("# ", "from the file beside the model"),
        Origin::Default => ("# ", "ASSUMED: check it against the training code"),
        Origin::File | Origin::Flag | Origin::Measured => ("", "configured"),
    }
}

/// What stands beside a key that is not set: of another kind of probe's also that.
fn unset(about: &str, modality: Modality) -> String {
    let own = match modality {
        Modality::Image => "images",
        Modality::Text => "texts",
        Modality::Tensor => "tensors",
        Modality::Stored => "",
    };
    match about.split_once(": ") {
        Some((kind, _)) if ["images", "texts", "tensors"].contains(&kind) && kind != own => {
            format!("not for this probe; {about}")
        }
        _ => format!("unset; {about}"),
    }
}

fn line(mark: &str, key: &str, value: &str, comment: &str) -> String {
    let setting = format!("{mark}{key} = {value}");
    if comment.is_empty() {
        return setting + "\n";
    }
    format!("{setting:<30} # {}\n", comment.replace('\n', " "))
}

/// The value as TOML; `None` for null, which TOML has no word for.
fn toml_value(value: &serde_json::Value) -> Option<String> {
    let value = toml::Value::try_from(value).ok()?;
    Some(value.to_string())
}

fn quoted(text: impl Into<String>) -> String {
    toml::Value::String(text.into()).to_string()
}

/// The path as a file in `folder` names it: relative, with `/`, where both lie on one drive; else absolute.
fn seen_from(path: &Path, folder: &Path) -> String {
    let whole = |path: &Path| {
        let path = if path == Path::new("") {
            Path::new(".")
        } else {
            path
        };
        path.canonicalize()
            .or_else(|_| std::path::absolute(path))
            .unwrap_or_else(|_| path.to_owned())
    };
    let (path, folder) = (whole(path), whole(folder));
    let shared = path
        .components()
        .zip(folder.components())
        .take_while(|(a, b)| a == b)
        .count();
    if shared == 0 {
        return path.to_string_lossy().into_owned();
    }
    let up = folder.components().skip(shared).map(|_| "..".to_owned());
    let down = path.components().skip(shared).map(|part| match part {
        Component::Normal(name) => name.to_string_lossy().into_owned(),
        other => other.as_os_str().to_string_lossy().into_owned(),
    });
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, ModelConfig, Overrides};

    fn parse(text: &str) -> ConfigFile {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.toml");
        std::fs::write(&path, text).expect("written");
        let file = ConfigFile::read(&path).unwrap_or_else(|error| panic!("{error}\n{text}"));
        ConfigFile { path: None, ..file }
    }

    fn uncommented(text: &str) -> String {
        let lines = text.lines().skip(HEAD.lines().count());
        lines
            .map(|line| line.strip_prefix("# ").unwrap_or(line).to_owned() + "\n")
            .collect()
    }

    fn preview() -> Preview {
        let probe = crate::domain::Probe {
            origin: "data".into(),
            ..crate::domain::Probe::new(Vec::new(), Vec::new(), Modality::Text)
        };
        let model = ModelDescription {
            name: "m.onnx".into(),
            ..ModelDescription::default()
        };
        Preview {
            probe,
            models: [model.clone(), model],
        }
    }

    fn config(text: &str) -> AuditConfig {
        let file = parse(text);
        let paths = ["a.onnx", "b.onnx", "data"].map(Into::into);
        AuditConfig::resolve(paths, file, Overrides::default()).expect("valid")
    }

    #[test]
    fn every_key_is_written_and_valid_without_its_mark() {
        let text = audit_toml(&preview(), &config(""), Path::new("audit.toml"));
        assert_eq!(parse(&text), ConfigFile::default(), "all is commented");
        let all = uncommented(&text);
        parse(&all);
        let table: toml::Table = all.parse().expect("TOML");
        for key in crate::config::known_keys() {
            let found = match key.split_once('.') {
                Some((name, key)) => table[name].get(key).is_some(),
                None => table.contains_key(&key),
            };
            assert!(found, "{key} is not in\n{text}");
        }
    }

    #[test]
    fn commented_lines_show_the_values_in_use_else_examples() {
        let strict = config("[policy]\nprofile = \"strict\"\n");
        let text = audit_toml(&preview(), &strict, Path::new("audit.toml"));
        let shown: toml::Table = uncommented(&text).parse().expect("TOML");
        for (name, lines) in [("audit", &AUDIT[..]), ("policy", &POLICY)] {
            for (key, example, about) in lines {
                let dotted = format!("{name}.{key}");
                let mut settings = strict.settings.iter();
                match settings.find(|setting| setting.key == dotted) {
                    Some(setting) => {
                        let own = toml::Value::try_from(&setting.value).expect("TOML");
                        assert_eq!(shown[name][*key], own, "{dotted}");
                        assert_eq!(*example, "", "{dotted}");
                    }
                    None => assert!(about.contains("unset"), "{dotted}: {about}"),
                }
            }
        }
        assert_eq!(shown["policy"]["excess_flips"].as_float(), Some(0.02));
    }

    #[test]
    fn every_key_of_a_model_is_listed() {
        let every = serde_json::to_value(ModelConfig::default()).expect("JSON");
        let keys: Vec<&String> = every.as_object().expect("a struct").keys().collect();
        assert_eq!(
            keys,
            MODEL.map(|(key, ..)| key),
            "in the order of the fields"
        );
    }

    #[test]
    fn configured_values_stay() {
        let given = "[audit]\nseed = 7\nold_embeddings = \"x/e.npy\"\n[columns]\nidentity = \"sku\"\n\
            [policy]\nmargin = 0.02\nseverity = { refresh = \"warn\" }\n\
            [[policy.waiver]]\ncheck = \"refresh\"\nreason = \"r\"\nuntil = \"2030-01-01\"\n";
        let before = config(given);
        let again = parse(&audit_toml(
            &preview(),
            &before,
            Path::new("/x/y/audit.toml"),
        ));
        let paths = ["a.onnx", "b.onnx", "data"].map(Into::into);
        let after = AuditConfig::resolve(paths, again, Overrides::default()).expect("valid");
        assert_eq!(after.policy, before.policy);
        assert_eq!((after.seed, after.probe.columns), (7, before.probe.columns));
    }

    #[test]
    fn open_questions_are_marked() {
        let mut preview = preview();
        preview.models[0].open.push(crate::embed::Open {
            key: "output",
            about: "the model gives a, b".into(),
        });
        let text = audit_toml(&preview, &config(""), Path::new("audit.toml"));
        assert!(text.contains("# CHOOSE: the model gives a, b"), "{text}");
    }

    #[test]
    fn paths_are_seen_from_the_file() {
        let temp = tempfile::tempdir().expect("a folder");
        let [models, data] = ["models/v1", "data"].map(|name| temp.path().join(name));
        for folder in [&models, &data] {
            std::fs::create_dir_all(folder).expect("made");
        }
        let tokenizer = models.join("tokenizer.json");
        std::fs::write(&tokenizer, "{}").expect("written");
        assert_eq!(seen_from(&tokenizer, &data), "../models/v1/tokenizer.json");
        assert_eq!(seen_from(&tokenizer, &models), "tokenizer.json");
    }

    #[test]
    fn json_values_become_toml() {
        let value = |json: &str| toml_value(&serde_json::from_str(json).expect("JSON"));
        assert_eq!(value("[0.5, 0.25]").as_deref(), Some("[0.5, 0.25]"));
        assert_eq!(value("\"rgb\"").as_deref(), Some("\"rgb\""));
        assert_eq!(value("null"), None);
    }
}
