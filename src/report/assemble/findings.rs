//! What was noticed beside the checks.

use super::*;
use crate::judge::checks::DOMINANT_SHARE;
use crate::retrieve::verification::VERIFICATION_IDENTITIES;

/// old->old above which the probe is too easy to show damage.
const CEILING: f64 = 0.98;

/// Share of items with a byte-identical twin from which it is listed.
const IDENTICAL_SHARE: f64 = 0.01;

impl Tables<'_> {
    pub(super) fn findings(&self) -> Vec<Finding> {
        let Stages {
            config,
            probe,
            old,
            new,
            evidence,
            retrieval,
            bad_items,
            ..
        } = self.stages;
        let mut findings: Vec<Finding> = [&probe.findings, &old.findings, &new.findings]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let mut add = |code, severity, message: String| {
            findings.push(Finding::new(code, severity, message));
        };
        if let Some(clusters) = self.clusters() {
            add(
                FindingCode::LabelFree,
                Severity::Warning,
                label_free(&clusters),
            );
        }
        let protocol = &retrieval.protocol;
        if protocol.n_excluded() > 0 {
            add(
                FindingCode::QueriesExcluded,
                Severity::Warning,
                format!(
                    "{} queries have no relevant gallery item left and were not evaluated",
                    protocol.n_excluded()
                ),
            );
        }
        if !bad_items.is_empty() {
            add(
                FindingCode::BadItems,
                Severity::Warning,
                format!(
                    "{} items could not be read and were left out",
                    bad_items.len()
                ),
            );
        }
        let [old_dim, new_dim] = evidence.dims;
        if old_dim != new_dim {
            add(
                FindingCode::DimensionsDiffer,
                Severity::Warning,
                format!("the old model gives {old_dim} dimensions, the new one {new_dim}"),
            );
        }
        if evidence.assay.old_old.value >= CEILING {
            add(
                FindingCode::Ceiling,
                Severity::Warning,
                format!(
                    "old->old {} {:.4} is near its ceiling: this probe is too easy to show small damage",
                    evidence.primary, evidence.assay.old_old.value
                ),
            );
        }
        if evidence.dominant_share > DOMINANT_SHARE {
            let [identity, _] = evidence.primary.reference.groups();
            add(
                FindingCode::DominantIdentity,
                Severity::Warning,
                format!(
                    "one {identity} holds {:.0} % of the queries",
                    100.0 * evidence.dominant_share
                ),
            );
        }
        if retrieval.verifications.is_empty() {
            add(
                FindingCode::VerificationNotReported,
                Severity::Info,
                format!(
                    "verification (AUROC, EER, TAR@FAR) needs at least {VERIFICATION_IDENTITIES} query {} and 10,000 non-matching pairs",
                    evidence.primary.reference.groups()[1]
                ),
            );
        }
        if let Some(sample) = config
            .sample
            .filter(|sample| sample.get() < probe.items.len())
        {
            add(
                FindingCode::Sampled,
                Severity::Info,
                format!(
                    "credibility and consensus were measured on a sample of {sample} items and queries at most"
                ),
            );
        }
        for (side, embedded) in [(Side::Old, old), (Side::New, new)] {
            if is_collapsed(embedded) {
                add(
                    FindingCode::CollapsedEmbeddings,
                    Severity::Warning,
                    format!("all embeddings of the {side} model are the same"),
                );
            }
        }
        findings.extend(self.identical_inputs());
        findings
    }

    fn identical_inputs(&self) -> Option<Finding> {
        let digests = self.stages.input_digests;
        let mut counts = std::collections::BTreeMap::new();
        for digest in digests.iter().flatten() {
            *counts.entry(digest).or_insert(0_usize) += 1;
        }
        if digests.is_empty() {
            return None;
        }
        let twins: Vec<usize> = (0..digests.len())
            .filter(|&item| digests[item].is_some_and(|digest| counts[&digest] > 1))
            .collect();
        let share = twins.len() as f64 / digests.len() as f64;
        (share > IDENTICAL_SHARE).then(|| Finding {
            code: FindingCode::DuplicateInputs,
            severity: Severity::Warning,
            message: format!(
                "{} items ({:.1} %) have a byte-identical twin; twins are removed from each other's rankings",
                twins.len(),
                100.0 * share
            ),
            items: twins
                .iter()
                .take(EXAMPLES)
                .map(|&item| self.stages.probe.items[item].id.to_string())
                .collect(),
        })
    }
}

/// Whether every embedding of a model is the same vector.
fn is_collapsed(embedded: &Embedded) -> bool {
    let embeddings = &embedded.embeddings;
    let mut rows = (0..embeddings.n_items()).filter_map(|item| embeddings.get(item));
    let Some(first) = rows.next() else {
        return false;
    };
    let mut others = rows.peekable();
    others.peek().is_some() && others.all(|row| row == first)
}

/// What a reader of an audit without labels must know.
fn label_free(clusters: &ClustersSection) -> String {
    let number = |value: Option<f64>| value.map_or("none".to_owned(), |v| format!("{v:.2}"));
    let labels = clusters.labels_agreement.map_or_else(String::new, |agreement| {
        format!("; the probe's own labels were not used (adjusted Rand index {agreement:.2} with the clusters)")
    });
    let searching = clusters.searching.map_or_else(String::new, |queries| {
        format!("; the gallery is large, so it was clustered around {queries} queries, and only these search")
    });
    format!(
        "every number is agreement with the old model, none is accuracy: {} clusters of its gallery embeddings \
         (silhouette {}, stability {}) stand in for labels, and whether the new model is better or worse is not \
         measured{labels}{searching}",
        clusters.n_clusters,
        number(clusters.silhouette),
        number(clusters.stability),
    )
}
