//! Puts the stages' outputs into the report's sections.

mod backfill;
mod findings;
mod items;
mod slices;
mod structure;
mod what_if;

use std::path::Path;

use rayon::prelude::*;

use crate::config::AuditConfig;
use crate::domain::{
    Finding, FindingCode, Measure, Pairing, Probe, Severity, Side, Source, sound_type,
};
use crate::embed::Embedded;
use crate::judge::Judgement;
use crate::judge::backfill::BackfillOrder;
use crate::judge::evidence::{Evidence, Intervals, difference};
use crate::judge::outcomes::{Change, Flips};
use crate::probe::ProbeSummary;
use crate::retrieve::rank::{Hit, Ranking};
use crate::retrieve::verification::Verification;
use crate::retrieve::what_if::WhatIf;
use crate::retrieve::{Evaluation, Retrieval, agreement};
use crate::stats::{mean, quantile};
use crate::structure::{Consensus, PseudoIdentities, Structure};

use super::*;

/// Worst flips and least credible items shown.
const EXAMPLES: usize = 24;

/// k of the overlap rows.
const OVERLAP_AT: [usize; 3] = [1, 10, 100];

/// Everything the stages produced.
pub struct Stages<'a> {
    /// The checked configuration.
    pub config: &'a AuditConfig,
    /// Stage 1.
    pub probe: &'a Probe,
    /// Stage 2, old.
    pub old: &'a Embedded,
    /// Stage 2, new.
    pub new: &'a Embedded,
    /// Hashes of the decoded inputs, one an item; empty when none was read.
    pub input_digests: &'a [Option<[u8; 32]>],
    /// Stage 3, clusters that stand in for labels; `None` with labels.
    pub pseudo: Option<&'a PseudoIdentities>,
    /// Stage 3.
    pub structure: &'a Structure,
    /// Stage 3, the part that needs the new queries; empty without new->old.
    pub consensus: &'a [Option<Consensus>],
    /// Temperature of the consensus.
    pub temperature: f64,
    /// Stage 4.
    pub retrieval: &'a Retrieval,
    /// Stage 4, fitted maps; `None` where nothing could be fitted.
    pub what_if: Option<&'a WhatIf>,
    /// Stage 5, the order of the backfill; `None` where there is nothing to order.
    pub order: Option<&'a BackfillOrder>,
    /// Stage 5, what was looked at.
    pub evidence: &'a Evidence,
    /// Stage 5, what follows.
    pub judgement: Judgement,
    /// Items that were left out because they could not be read.
    pub bad_items: Vec<BadItemRow>,
    /// How this run went.
    pub run: RunSection,
}

/// The report and its tables; large ones lie in `scratch`, a folder that exists, until they are written.
///
/// # Errors
/// [`ReportError::Render`].
pub fn assemble(
    stages: Stages<'_>,
    scratch: Option<&Path>,
) -> Result<(AuditReport, TableFiles), ReportError> {
    let tables = Tables::new(&stages);
    let report = AuditReport {
        tool: TOOL.into(),
        schema_version: SCHEMA_VERSION,
        verdict: VerdictSection {
            verdict: stages.judgement.verdict,
            rule: stages.judgement.rule,
            reason: stages.judgement.reason.clone(),
            not_tested: tables.not_tested(),
            bct_compatible: stages.judgement.bct_compatible,
            gain_proven: stages.judgement.gain_proven,
            next_steps: stages.judgement.next_steps.clone(),
        },
        primary: stages.evidence.primary,
        checks: stages.judgement.checks.clone(),
        findings: tables.findings(),
        old: model(stages.old),
        new: model(stages.new),
        probe: tables.probe(),
        assay: assay(stages.evidence, &stages.judgement),
        pairings: tables.pairings(),
        compatibility: tables.compatibility(),
        cka: agreement::linear_cka(&stages.old.embeddings, &stages.new.embeddings).map(|cka| {
            CkaSection {
                value: cka.value,
                items: cka.items,
            }
        }),
        upgrade_worth: stages.evidence.worth,
        clusters: tables.clusters(),
        structure: tables.structure(),
        worst_flips: tables.worst_flips(),
        slices: tables.slices(),
        refresh: tables.refresh(),
        backfill: tables.backfill(),
        what_if: tables.what_if(),
        baseline: None,
        privacy: Privacy::Full,
        policy: PolicySection {
            hash: stages.config.policy.hash(),
            weakened: stages
                .config
                .policy
                .weakened(stages.retrieval.protocol.usual_measure()),
            waivers: stages.judgement.waivers.clone(),
            limits: stages.config.policy.clone(),
        },
        settings: [
            &stages.config.settings,
            &stages.old.settings,
            &stages.new.settings,
        ]
        .into_iter()
        .flatten()
        .cloned()
        .collect(),
        run: stages.run.clone(),
    };
    let items = tables::items_parquet(tables.items(), report.primary.reference, scratch)?;
    let backfill = tables.backfill_rows();
    let files = TableFiles {
        items: Some(items),
        backfill: backfill
            .map(|rows| tables::backfill_tables(rows, scratch))
            .transpose()?,
    };
    Ok((report, files))
}

fn model(embedded: &Embedded) -> ModelSection {
    let info = &embedded.model;
    ModelSection {
        name: info.name.clone(),
        kind: info.kind.clone(),
        hash: info.hash.clone(),
        preprocessing: info.preprocessing_key.clone(),
        dim: info.dim,
        output: info.output.clone(),
        provider: info.provider.clone(),
        runtime_version: info.runtime_version.clone(),
        precision: info.precision.clone(),
        adaptation: info.adaptation.clone(),
    }
}

fn assay(evidence: &Evidence, judgement: &Judgement) -> AssaySection {
    let assay = &evidence.assay;
    AssaySection {
        can_judge: judgement.can_judge,
        shuffled: assay.shuffled,
        permutations: assay.permutations,
        p_value: assay.p_value,
        largest_margin: assay.largest_margin,
        resolvable_margin: evidence.change.map(|change| change.resolvable_margin),
        blind_share: assay.blind_share,
    }
}

/// The stages with what several tables need.
struct Tables<'a> {
    stages: &'a Stages<'a>,
    intervals: Intervals,
    /// Identity of each evaluated query.
    identities: Vec<u32>,
    /// See [`Structure::split_identities`].
    is_split: Vec<bool>,
}

impl<'a> Tables<'a> {
    fn new(stages: &'a Stages<'a>) -> Self {
        Self {
            is_split: stages.structure.split_identities(stages.probe),
            stages,
            intervals: Intervals::new(&stages.config.policy, stages.config.seed),
            identities: stages.retrieval.protocol.query_identities(),
        }
    }

    fn evaluation(&self, pairing: Pairing) -> Option<&'a Evaluation> {
        self.stages.retrieval.evaluations.get(&pairing)
    }

    fn query_items(&self) -> impl Iterator<Item = usize> + '_ {
        self.stages
            .retrieval
            .protocol
            .queries()
            .iter()
            .map(|query| query.item)
    }

    fn not_tested(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.evaluation(Pairing::NEW_OLD).is_none() {
            lines.push("new->old: the models' dimensions differ".to_owned());
        }
        if self.evaluation(Pairing::NEW_NEW).is_none() {
            lines.push(
                "new->new, upgrade worth, excess flips, refreshes and a backfill plan: gallery items have no input to embed with the new model"
                    .to_owned(),
            );
        }
        lines
    }

    fn probe(&self) -> ProbeSection {
        let Stages {
            probe,
            retrieval,
            evidence,
            config,
            bad_items,
            ..
        } = self.stages;
        let protocol = &retrieval.protocol;
        let counts = ProbeSummary::of(probe);
        ProbeSection {
            origin: config.data.display().to_string(),
            modality: serde_json::to_value(probe.modality)
                .ok()
                .and_then(|value| value.as_str().map(str::to_owned))
                .expect("a modality is a word"),
            items: counts.items,
            queries: evidence.n_queries,
            query_identities: evidence.n_query_identities,
            queries_excluded: protocol.n_excluded(),
            gallery: counts.gallery,
            identities: counts.identities,
            cameras: counts.cameras,
            junk: counts.junk,
            distractors: counts.distractor_items,
            identical_pairs: protocol.identical_pairs(),
            same_camera_pairs: protocol.same_camera_pairs(),
            qrels: probe.qrels.as_ref().map(|qrels| QrelsSection {
                origin: qrels.origin().display().to_string(),
                judged: qrels.n_judged(),
                highest_grade: qrels.highest_grade(),
                identities_given: qrels.identities_given(),
            }),
            bad_items: bad_items.clone(),
        }
    }

    fn measures(
        &self,
        values: impl Fn(Measure) -> Vec<f64> + Sync,
        optimistic: impl Fn(Measure) -> Vec<f64> + Sync,
    ) -> Vec<MeasureRow> {
        let primary = self.stages.evidence.primary;
        let mut measures = vec![primary.measure];
        measures.extend(Measure::ALL.into_iter().filter(|&m| m != primary.measure));
        measures
            .into_par_iter()
            .map(|measure| MeasureRow {
                measure: primary.reference.name(measure).to_string(),
                estimate: self.intervals.mean(&values(measure), &self.identities),
                optimistic: mean(&optimistic(measure)),
            })
            .collect()
    }

    fn pairings(&self) -> Vec<PairingSection> {
        Pairing::ALL
            .into_iter()
            .filter_map(|pairing| {
                let evaluation = self.evaluation(pairing)?;
                Some(PairingSection {
                    pairing: pairing.to_string(),
                    measures: self.measures(
                        |measure| evaluation.per_query(measure),
                        |measure| evaluation.per_query_optimistic(measure),
                    ),
                    verification: self
                        .stages
                        .retrieval
                        .verifications
                        .get(&pairing)
                        .map(verification),
                })
            })
            .collect()
    }

    fn compatibility(&self) -> Option<CompatibilitySection> {
        let evidence = self.stages.evidence;
        let (old_old, new_old) = (
            self.evaluation(Pairing::OLD_OLD)?,
            self.evaluation(Pairing::NEW_OLD)?,
        );
        let (
            Change {
                optimistic,
                identity_weighted,
                ..
            },
            flips,
        ) = (evidence.change?, evidence.flips.as_ref()?);
        Some(CompatibilitySection {
            change: self.measures(
                |measure| difference(&new_old.per_query(measure), &old_old.per_query(measure)),
                |measure| {
                    difference(
                        &new_old.per_query_optimistic(measure),
                        &old_old.per_query_optimistic(measure),
                    )
                },
            ),
            change_optimistic: optimistic.value,
            change_identity_weighted: identity_weighted,
            update_gain: evidence.gain,
            flips: flip_section(flips),
            overlap: OVERLAP_AT
                .into_iter()
                .map(|k| OverlapRow {
                    k,
                    overlap: agreement::top_k_overlap(old_old, new_old, k),
                })
                .collect(),
            rank_biased_overlap: agreement::mean_rank_biased_overlap(
                old_old,
                new_old,
                agreement::RBO_PERSISTENCE,
            ),
            alignment: agreement::alignment(
                &self.stages.old.embeddings,
                &self.stages.new.embeddings,
            )
            .and_then(quantiles),
            threshold_transfer: self.threshold_transfer(),
        })
    }

    fn threshold_transfer(&self) -> Vec<ThresholdTransferRow> {
        let verifications = &self.stages.retrieval.verifications;
        let Some(today) = verifications.get(&Pairing::OLD_OLD) else {
            return Vec::new();
        };
        [Pairing::NEW_OLD, Pairing::NEW_NEW]
            .into_iter()
            .filter_map(|pairing| Some((pairing, verifications.get(&pairing)?)))
            .flat_map(|(pairing, other)| {
                today.operating_points.iter().zip(&other.at_thresholds).map(
                    move |(point, &(observed_far, observed_frr))| ThresholdTransferRow {
                        far: point.far,
                        threshold: f64::from(point.threshold),
                        pairing: pairing.to_string(),
                        observed_far,
                        observed_frr,
                    },
                )
            })
            .collect()
    }

    fn view(&self, item: usize) -> ItemView {
        let of = &self.stages.probe.items[item];
        // A recording of which both embeddings are stored stands where a picture would.
        let path = match of.source.as_deref() {
            Some(Source::Image(path)) => Some(&**path),
            _ => of
                .beside
                .as_ref()
                .and_then(|beside| beside.shown.as_deref()),
        };
        let is_sound = |path: &&Path| sound_type(path).is_some();
        ItemView {
            id: of.id.to_string(),
            identity: self.stages.probe.identity_name(item).to_owned(),
            image: path.filter(|path| !is_sound(path)).map(Path::to_path_buf),
            sound: path.filter(is_sound).map(Path::to_path_buf),
            text: of.text().map(str::to_owned),
        }
    }
}

fn flip_section(flips: &Flips) -> FlipSection {
    let count = |old: bool, new: bool| {
        flips
            .per_query
            .iter()
            .filter(|flip| flip.old_old == old && flip.after == new)
            .count()
    };
    FlipSection {
        right_right: count(true, true),
        right_wrong: count(true, false),
        wrong_right: count(false, true),
        wrong_wrong: count(false, false),
        negative: flips.negative,
        positive: flips.positive,
        excess: flips.excess,
        asymmetry_p: flips.asymmetry_p,
    }
}

fn verification(verification: &Verification) -> VerificationSection {
    VerificationSection {
        matches: verification.matches,
        non_matches: verification.non_matches,
        auroc: verification.auroc,
        eer: verification.eer,
        operating_points: verification
            .operating_points
            .iter()
            .map(|point| OperatingPoint {
                far: point.far,
                threshold: f64::from(point.threshold),
                tar: point.tar,
                observed_far: point.observed_far,
            })
            .collect(),
        scores: Some(ScoreHistogramSection {
            lowest: verification.histogram.lowest,
            width: verification.histogram.width,
            matches: verification.histogram.matches.clone(),
            non_matches: verification.histogram.non_matches.clone(),
        }),
    }
}

/// Quantiles by linear interpolation between order statistics (type 7 of Hyndman and Fan, numpy's default).
fn quantiles(mut values: Vec<f64>) -> Option<Quantiles> {
    if values.is_empty() {
        return None;
    }
    let mean = mean(&values);
    values.sort_by(f64::total_cmp);
    let at = |share: f64| quantile(&values, share);
    Some(Quantiles {
        min: at(0.0),
        lower_quartile: at(0.25),
        median: at(0.5),
        upper_quartile: at(0.75),
        max: at(1.0),
        mean,
    })
}
