//! The commented audit.toml that `compat-audit init` writes.

use crate::audit::Preview;
use crate::domain::Origin;

const HEAD: &str = "\
# audit.toml of compat-audit. Flags win over this file, this file over what the models say, that over defaults.
# A commented line shows the value in use; remove the # to fix it.

[audit]
# similarity = \"cosine\"      # cosine, ip or l2: how the search engine compares embeddings
# seed = 0                   # of every random draw
# max_bad_items = 0          # unreadable items that are tolerated and listed
# qrels = \"qrels.tsv\"        # relevance judgements, TREC or BEIR
# strict = false             # true: refuse to assume image preprocessing

[columns]                    # names of the manifest's columns, where they differ
# path = \"path\"
# text = \"text\"
# id = \"id\"
# identity = \"identity\"      # `label` and `class` are understood too
# camera = \"camera\"
# role = \"role\"
# identity_separator = \"|\"   # splits several labels in one cell

[policy]
# margin = 0.01              # largest tolerated loss of mAP, absolute
# alpha = 0.05               # one-sided error of every bound
# excess_flips = 0.05        # largest tolerated share of excess flips
# negative_flips = 0.10      # set it to gate on negative flips; unset, they only warn
";

/// audit.toml for what the preview shows: values that the models name are commented with where they come from,
/// values that had to be assumed are marked.
pub fn audit_toml(preview: &Preview) -> String {
    let mut text = HEAD.to_owned();
    for (table, model) in ["old", "new"].iter().zip(&preview.models) {
        text += &format!("\n[{table}]                        # {}\n", model.name);
        for setting in &model.settings {
            let Some(key) = setting.key.strip_prefix(&format!("{table}.")) else {
                continue;
            };
            let Some(value) = toml_value(&setting.value) else {
                continue;
            };
            let comment = match setting.origin {
                Origin::Model => "what the model file says",
                Origin::Sidecar => "from the file beside the model",
                Origin::Default => "ASSUMED: check it against the training code",
                Origin::File | Origin::Flag => "configured",
            };
            text += &format!("# {:<26} # {comment}\n", format!("{key} = {value}"));
        }
    }
    text
}

/// The value as TOML; `None` for null, which TOML has no word for.
fn toml_value(value: &serde_json::Value) -> Option<String> {
    let value = toml::Value::try_from(value).ok()?;
    Some(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_valid_and_names_only_known_keys() {
        let uncommented: String = HEAD
            .lines()
            .skip(3)
            .map(|line| line.strip_prefix("# ").unwrap_or(line).to_owned() + "\n")
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.toml");
        std::fs::write(&path, uncommented).expect("written");
        crate::config::ConfigFile::read(&path).expect("every key is known");
    }

    #[test]
    fn json_values_become_toml() {
        let value = |json: &str| toml_value(&serde_json::from_str(json).expect("JSON"));
        assert_eq!(value("[0.5, 0.25]").as_deref(), Some("[0.5, 0.25]"));
        assert_eq!(value("\"rgb\"").as_deref(), Some("\"rgb\""));
        assert_eq!(value("null"), None);
    }
}
