//! Puts the stages' outputs into the report's sections.

use crate::config::AuditConfig;
use crate::domain::{Finding, FindingCode, Item, Measure, Pairing, Probe, Severity, Side, Source};
use crate::embed::Embedded;
use crate::judge::Judgement;
use crate::judge::evidence::{Change, Evidence, Flips, Intervals, PRIMARY, difference};
use crate::retrieve::rank::{Hit, Ranking};
use crate::retrieve::verification::Verification;
use crate::retrieve::{Evaluation, Retrieval, agreement};
use crate::structure::{Consensus, Structure};

use super::*;

/// Worst flips and least credible items shown.
const EXAMPLES: usize = 24;

/// Hits shown a flip.
const HITS: usize = 3;

/// Sub-clusters shown.
const SUBCLUSTERS: usize = 50;

/// k of the overlap rows.
const OVERLAP_AT: [usize; 3] = [1, 10, 100];

/// Bins of the credibility histogram over [0, 1].
const BINS: usize = 10;

/// old->old above which the probe is too easy to show damage.
const CEILING: f64 = 0.98;

/// Share of items with a byte-identical twin from which it is listed.
const IDENTICAL_SHARE: f64 = 0.01;

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
    /// Hashes of the decoded inputs, one an item.
    pub input_digests: &'a [Option<[u8; 32]>],
    /// Stage 3.
    pub structure: &'a Structure,
    /// Stage 3, the part that needs the new queries; empty without new->old.
    pub consensus: &'a [Option<Consensus>],
    /// Temperature of the consensus.
    pub temperature: f64,
    /// Stage 4.
    pub retrieval: &'a Retrieval,
    /// Stage 5, what was looked at.
    pub evidence: &'a Evidence,
    /// Stage 5, what follows.
    pub judgement: Judgement,
    /// Items that were left out because they could not be read.
    pub bad_items: Vec<BadItemRow>,
    /// How this run went.
    pub run: RunSection,
}

/// The report and its per-item rows.
pub fn assemble(stages: Stages<'_>) -> (AuditReport, Vec<ItemRow>) {
    let tables = Tables::new(&stages);
    let report = AuditReport {
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
        checks: stages.judgement.checks.clone(),
        findings: tables.findings(),
        old: model(stages.old),
        new: model(stages.new),
        probe: tables.probe(),
        assay: assay(stages.evidence, &stages.judgement),
        pairings: tables.pairings(),
        compatibility: tables.compatibility(),
        upgrade_worth: stages.evidence.worth,
        structure: tables.structure(),
        worst_flips: tables.worst_flips(),
        policy: stages.config.policy.clone(),
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
    (report, tables.items())
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
    }
}

fn assay(evidence: &Evidence, judgement: &Judgement) -> AssaySection {
    let assay = &evidence.assay;
    AssaySection {
        can_judge: judgement.rule != 4,
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
    identities: Vec<u32>,
}

impl<'a> Tables<'a> {
    fn new(stages: &'a Stages<'a>) -> Self {
        Self {
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
        let same_dim = self.stages.evidence.dims[0] == self.stages.evidence.dims[1];
        let mut lines = Vec::new();
        if self.evaluation(Pairing::NEW_OLD).is_none() {
            lines.push("new->old: the models' dimensions differ".to_owned());
        }
        if self.evaluation(Pairing::NEW_NEW).is_none() {
            lines.push(
                "new->new, upgrade worth and excess flips: gallery items have no input to embed with the new model"
                    .to_owned(),
            );
        }
        if same_dim {
            lines.push(
                "slices and partial refreshes of the gallery: not part of this version".to_owned(),
            );
        }
        lines
    }

    fn findings(&self) -> Vec<Finding> {
        let Stages {
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
                    "old->old mAP {:.4} is near its ceiling: this probe is too easy to show small damage",
                    evidence.assay.old_old.value
                ),
            );
        }
        if evidence.dominant_share > crate::judge::checks::DOMINANT_SHARE {
            add(
                FindingCode::DominantIdentity,
                Severity::Warning,
                format!(
                    "one identity holds {:.0} % of the queries",
                    100.0 * evidence.dominant_share
                ),
            );
        }
        if retrieval.verifications.is_empty() {
            add(
                FindingCode::VerificationNotReported,
                Severity::Info,
                "verification (AUROC, EER, TAR@FAR) needs at least 100 query identities and 10,000 non-matching pairs"
                    .to_owned(),
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
                .map(|&item| self.stages.probe.items[item].id.clone())
                .collect(),
        })
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
        let mut queried = vec![false; probe.labels.len()];
        for &query in &probe.queries() {
            probe.items[query]
                .labels
                .iter()
                .for_each(|&label| queried[label as usize] = true);
        }
        let is_distractor = |item: &Item| !item.labels.iter().any(|&label| queried[label as usize]);
        ProbeSection {
            origin: config.data.display().to_string(),
            modality: serde_json::to_value(probe.modality)
                .ok()
                .and_then(|value| value.as_str().map(str::to_owned))
                .expect("a modality is a word"),
            items: probe.items.len(),
            queries: evidence.n_queries,
            query_identities: evidence.n_query_identities,
            queries_excluded: protocol.n_excluded(),
            gallery: protocol.gallery().len(),
            identities: probe.identities.len(),
            cameras: probe.cameras.len(),
            junk: probe
                .items
                .iter()
                .filter(|item| item.identity.is_none())
                .count(),
            distractors: protocol
                .gallery()
                .iter()
                .filter(|&&item| is_distractor(&probe.items[item]))
                .count(),
            identical_pairs: protocol.identical_pairs(),
            same_camera_pairs: protocol.same_camera_pairs(),
            bad_items: bad_items.clone(),
        }
    }

    fn measures(
        &self,
        values: impl Fn(Measure) -> Vec<f64>,
        optimistic: impl Fn(Measure) -> Vec<f64>,
    ) -> Vec<MeasureRow> {
        Measure::ALL
            .into_iter()
            .map(|measure| MeasureRow {
                measure: measure.to_string(),
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

    fn structure(&self) -> StructureSection {
        let structure = self.stages.structure;
        let mut rows: Vec<SubClusterRow> = (0..structure.subclusters.len())
            .map(|index| self.subcluster(index))
            .collect();
        rows.retain(|row| row.queries > 0);
        let change = |row: &SubClusterRow| match (row.new_old, row.old_old) {
            (Some(new), Some(old)) => new - old,
            _ => 0.0,
        };
        rows.sort_by(|a, b| change(a).total_cmp(&change(b)).then(a.name.cmp(&b.name)));
        rows.truncate(SUBCLUSTERS);
        let mut per_identity = vec![0_usize; self.stages.probe.identities.len()];
        structure
            .subclusters
            .iter()
            .for_each(|s| per_identity[s.identity as usize] += 1);
        StructureSection {
            n_subclusters: structure.subclusters.len(),
            n_split_identities: per_identity.iter().filter(|&&n| n > 1).count(),
            stability: structure.stability,
            subclusters: rows,
            consensus: consensus_section(self.stages.consensus, self.stages.temperature),
            credibility: self.credibility(),
        }
    }

    fn subcluster_name(&self, index: u32) -> String {
        let subcluster = &self.stages.structure.subclusters[index as usize];
        let identity = &self.stages.probe.identities[subcluster.identity as usize];
        let is_split = self
            .stages
            .structure
            .subclusters
            .iter()
            .any(|other| other.identity == subcluster.identity && other.index_in_identity > 0);
        if is_split {
            format!("{identity}/{}", subcluster.index_in_identity + 1)
        } else {
            identity.clone()
        }
    }

    fn subcluster(&self, index: usize) -> SubClusterRow {
        let subcluster = &self.stages.structure.subclusters[index];
        let members: Vec<usize> = self
            .query_items()
            .enumerate()
            .filter(|&(_, item)| self.stages.structure.assignment[item] == Some(index as u32))
            .map(|(query, _)| query)
            .collect();
        let mean = |pairing| {
            let values = self.evaluation(pairing)?.per_query(PRIMARY);
            (!members.is_empty())
                .then(|| members.iter().map(|&q| values[q]).sum::<f64>() / members.len() as f64)
        };
        SubClusterRow {
            name: self.subcluster_name(index as u32),
            size: subcluster.items.len(),
            radius: subcluster.radius,
            nearest_rival: subcluster
                .nearest_rival
                .map(|(rival, cosine)| (self.subcluster_name(rival), cosine)),
            queries: members.len(),
            old_old: mean(Pairing::OLD_OLD),
            new_old: mean(Pairing::NEW_OLD),
        }
    }

    fn credibility(&self) -> CredibilitySection {
        let structure = self.stages.structure;
        let mut scored: Vec<(usize, f64)> = Vec::new();
        let mut not_assessable = 0;
        for (item, credibility) in structure.credibility.iter().enumerate() {
            match credibility.map(|scores| scores.combined) {
                Some(Some(combined)) => scored.push((item, combined)),
                Some(None) => not_assessable += 1,
                None => {}
            }
        }
        let mut histogram = vec![0; BINS];
        for &(_, combined) in &scored {
            histogram[((combined * BINS as f64) as usize).min(BINS - 1)] += 1;
        }
        scored.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let below: Vec<usize> = scored
            .iter()
            .take_while(|(_, combined)| *combined < structure.cutoff)
            .map(|&(item, _)| item)
            .collect();
        CredibilitySection {
            assessable: scored.len(),
            not_assessable,
            temperature: structure.tau,
            cutoff: structure.cutoff,
            below_cutoff: below.len(),
            histogram,
            change_without_least_credible: self.stages.evidence.change_without_least_credible,
            flips_on_least_credible: self.flips_on(&below),
            least_credible: scored
                .iter()
                .take(EXAMPLES)
                .filter_map(|&(item, combined)| {
                    let scores = structure.credibility[item].as_ref()?;
                    Some(CredibilityRow {
                        item: self.view(item),
                        entropy: scores.entropy,
                        posterior: scores.posterior,
                        consensus: scores.consensus,
                        combined,
                    })
                })
                .collect(),
        }
    }

    /// Share of negative flips whose lost hit (the first of old->old) is one of the items.
    fn flips_on(&self, items: &[usize]) -> Option<f64> {
        let flips = self.stages.evidence.flips.as_ref()?;
        let old_old = self.evaluation(Pairing::OLD_OLD)?;
        let gallery = self.stages.retrieval.protocol.gallery();
        let lost: Vec<usize> = flips
            .per_query
            .iter()
            .zip(&old_old.rankings)
            .filter(|(flip, _)| flip.is_negative())
            .map(|(_, ranking)| gallery[ranking.relevant[0].position as usize])
            .collect();
        (!lost.is_empty()).then(|| {
            lost.iter().filter(|item| items.contains(item)).count() as f64 / lost.len() as f64
        })
    }

    fn worst_flips(&self) -> Vec<FlipExample> {
        let (Some(flips), Some(old_old), Some(new_old)) = (
            &self.stages.evidence.flips,
            self.evaluation(Pairing::OLD_OLD),
            self.evaluation(Pairing::NEW_OLD),
        ) else {
            return Vec::new();
        };
        let mut worst: Vec<usize> = (0..flips.per_query.len())
            .filter(|&q| flips.per_query[q].is_negative())
            .collect();
        worst.sort_by_key(|&q| (std::cmp::Reverse(new_old.rankings[q].first_rank()), q));
        worst
            .into_iter()
            .take(EXAMPLES)
            .map(|q| {
                let query = &self.stages.retrieval.protocol.queries()[q];
                let hits = |ranking: &Ranking| -> Vec<HitView> {
                    ranking
                        .top
                        .iter()
                        .take(HITS)
                        .map(|hit| self.hit(hit, query.item))
                        .collect()
                };
                FlipExample {
                    query: self.view(query.item),
                    old_rank: old_old.rankings[q].first_rank(),
                    new_rank: new_old.rankings[q].first_rank(),
                    excess: flips.per_query[q].new_new,
                    old_hits: hits(&old_old.rankings[q]),
                    new_hits: hits(&new_old.rankings[q]),
                }
            })
            .collect()
    }

    fn hit(&self, hit: &Hit, query: usize) -> HitView {
        let item = self.stages.retrieval.protocol.gallery()[hit.position as usize];
        let items = &self.stages.probe.items;
        HitView {
            item: self.view(item),
            score: hit.score,
            relevant: items[item].is_relevant_to(&items[query]),
        }
    }

    fn view(&self, item: usize) -> ItemView {
        let Item {
            id, source, text, ..
        } = &self.stages.probe.items[item];
        ItemView {
            id: id.clone(),
            identity: self.stages.probe.identity_name(item).to_owned(),
            image: match source {
                Source::Image(path) => Some(path.clone()),
                _ => None,
            },
            text: match source {
                Source::Text(text) => Some(text.clone()),
                _ => text.clone(),
            },
        }
    }

    fn items(&self) -> Vec<ItemRow> {
        let Stages {
            probe,
            structure,
            evidence,
            ..
        } = self.stages;
        let mut query_of_item = vec![None; probe.items.len()];
        for (query, item) in self.query_items().enumerate() {
            query_of_item[item] = Some(query);
        }
        let precisions =
            Pairing::ALL.map(|pairing| Some(self.evaluation(pairing)?.per_query(PRIMARY)));
        (0..probe.items.len())
            .map(|i| {
                let item = &probe.items[i];
                let query = query_of_item[i];
                let flip = query
                    .zip(evidence.flips.as_ref())
                    .map(|(q, flips)| flips.per_query[q]);
                ItemRow {
                    id: item.id.clone(),
                    identity: probe.identity_name(i).to_owned(),
                    camera: item
                        .camera
                        .map(|camera| probe.cameras[camera as usize].clone()),
                    role: item.role,
                    subcluster: structure.assignment[i].map(|index| self.subcluster_name(index)),
                    credibility: structure.credibility[i].as_ref().and_then(|c| c.combined),
                    first_rank: Pairing::ALL.map(|pairing| {
                        Some(self.evaluation(pairing)?.rankings[query?].first_rank())
                    }),
                    average_precision: precisions
                        .each_ref()
                        .map(|values| Some(values.as_ref()?[query?])),
                    flip: match flip {
                        Some(flip) if flip.is_excess() => Some("excess"),
                        Some(flip) if flip.is_negative() => Some("negative"),
                        Some(flip) if flip.is_positive() => Some("positive"),
                        _ => None,
                    },
                }
            })
            .collect()
    }
}

/// Mean of a non-empty slice.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
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

fn flip_section(flips: &Flips) -> FlipSection {
    let count = |old: bool, new: bool| {
        flips
            .per_query
            .iter()
            .filter(|flip| flip.old_old == old && flip.new_old == new)
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
    }
}

fn consensus_section(queries: &[Option<Consensus>], temperature: f64) -> Option<ConsensusSection> {
    let known: Vec<&Consensus> = queries.iter().flatten().collect();
    if known.is_empty() {
        return None;
    }
    let mean = |value: fn(&Consensus) -> f64| {
        known.iter().map(|c| value(c)).sum::<f64>() / known.len() as f64
    };
    Some(ConsensusSection {
        mass_old: mean(|c| c.mass_old),
        mass_new: mean(|c| c.mass_new),
        nccl_old: mean(|c| c.nccl_old),
        nccl_new: mean(|c| c.nccl_new),
        kl: mean(|c| c.kl),
        argmax_kept: mean(|c| f64::from(c.argmax_kept)),
        temperature,
    })
}

/// Quantiles by linear interpolation between order statistics (type 7 of Hyndman and Fan, numpy's default).
fn quantiles(mut values: Vec<f64>) -> Option<Quantiles> {
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let position = share * (values.len() - 1) as f64;
        let low = position.floor() as usize;
        let high = position.ceil() as usize;
        values[low] + (position - low as f64) * (values[high] - values[low])
    };
    Some(Quantiles {
        min: at(0.0),
        lower_quartile: at(0.25),
        median: at(0.5),
        upper_quartile: at(0.75),
        max: at(1.0),
        mean,
    })
}
