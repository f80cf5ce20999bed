//! What `--dry-run` prints.

use super::in_one_line;
use crate::audit::Preview;
use crate::domain::Reference;
use crate::probe::ProbeSummary;

/// The probe and both models in lines.
pub fn text(preview: &Preview) -> String {
    let probe = &preview.probe;
    let counts = ProbeSummary::of(probe);
    let mut text = format!(
        "probe    {} ({} items: {} queries, {} gallery, {} identities, {} cameras, {} junk, {} distractors)\n",
        probe.origin.display(),
        counts.items,
        counts.queries,
        counts.gallery,
        counts.identities,
        counts.cameras,
        counts.junk,
        counts.distractor_items
    );
    if probe.reference == Reference::OldModel {
        text += "  labels are not used: clusters of the old gallery will stand in for them\n";
    }
    if let Some(qrels) = &probe.qrels {
        text += &format!(
            "  qrels  {} ({} judged pairs, grades up to {})\n",
            qrels.origin().display(),
            qrels.n_judged(),
            qrels.highest_grade()
        );
    }
    for index in 0..probe.items.len().min(3) {
        let item = &probe.items[index];
        text += &format!(
            "  item   {} identity {} role {}\n",
            in_one_line(&item.id),
            in_one_line(probe.identity_name(index)),
            item.role
        );
    }
    for (name, model) in ["old", "new"].iter().zip(&preview.models) {
        text += &format!("{name:<8} {}\n", model.name);
        for input in &model.inputs {
            text += &format!("  input  {input}\n");
        }
        for output in &model.outputs {
            text += &format!("  output {output}\n");
        }
        if let Some(words) = &model.stored {
            text += &format!("  stored {words}\n");
        }
        for setting in &model.settings {
            text += &format!(
                "  {} = {} ({})\n",
                setting.key, setting.value, setting.origin
            );
        }
        for finding in &model.findings {
            text += &format!("  note   {}\n", finding.message);
        }
    }
    text
}
