//! Reports for the renderers' tests, shaped like the emoji audits.

mod gate;

use std::path::PathBuf;

use super::*;
use crate::config::CredibilityCut;
use crate::config::Policy;
use crate::domain::{
    Estimate, Finding, FindingCode, IntervalMethod, Measure, Origin, Reference, Role, Setting,
    Severity,
};
use crate::judge::{Check, CheckCode, CheckSeverity, CheckState, SafeSide, Verdict};

/// The four samples: skip, full, unsettled, dimensions.
pub fn all() -> [AuditReport; 4] {
    [skip(), full(), unsettled(), dimensions()]
}

/// An emoji picture, by vendor and code.
pub fn emoji(name: &str) -> PathBuf {
    format!("fixtures/data/emoji/images/{name}.png").into()
}

fn estimate(value: f64, lower: f64, upper: f64) -> Estimate {
    Estimate {
        value,
        lower,
        upper,
        level: 0.9,
        standard_error: (upper - lower) / 3.29,
        method: IntervalMethod::BcaByIdentity,
    }
}

fn near(value: f64, half: f64) -> Estimate {
    estimate(value, value - half, value + half)
}

/// Every measure, derived from mAP by fixed factors.
fn measures(map: f64, half: f64) -> Vec<MeasureRow> {
    let factors = [
        1.0, 1.174, 1.42, 1.51, 0.53, 1.01, 1.28, 1.30, 0.87, 0.49, 1.12,
    ];
    Measure::ALL
        .iter()
        .zip(factors)
        .map(|(measure, factor)| MeasureRow {
            measure: measure.to_string(),
            estimate: near((10_000.0 * map * factor).round() / 10_000.0, half),
            optimistic: (10_000.0 * map * factor).round() / 10_000.0,
        })
        .collect()
}

fn pairing(name: &str, map: f64) -> PairingSection {
    PairingSection {
        pairing: name.into(),
        measures: measures(map, map.min(0.0301)),
        verification: Some(VerificationSection {
            matches: 1_236,
            non_matches: 245_994,
            auroc: 0.9312,
            eer: 0.1405,
            operating_points: vec![
                OperatingPoint {
                    far: 0.01,
                    threshold: 0.5123,
                    tar: 0.5631,
                    observed_far: 0.00998,
                },
                OperatingPoint {
                    far: 0.001,
                    threshold: 0.6412,
                    tar: 0.3018,
                    observed_far: 0.00099,
                },
            ],
            scores: Some(scores()),
        }),
    }
}

fn scores() -> ScoreHistogramSection {
    ScoreHistogramSection {
        lowest: -0.25,
        width: 0.125,
        matches: vec![0, 2, 40, 110, 290, 398, 260, 108, 28],
        non_matches: vec![9_204, 61_022, 98_110, 58_730, 16_911, 1_820, 170, 24, 3],
    }
}

fn map() -> MapSection {
    let point = |index: usize| {
        let angle = index as f32;
        let old = [0.4 * angle.cos(), 0.3 * angle.sin()];
        MapPointRow {
            id: format!("images/{index}.png"),
            subcluster: format!("1f{:x}/{}", 0x365 + 17 * (index % 12), 1 + index % 12 % 2),
            query: index >= 30,
            old,
            new: Some([old[0] + 0.05, old[1] - 0.02]),
            moved_to: index.is_multiple_of(7).then(|| "1f444".to_owned()),
        }
    };
    MapSection {
        explained: [0.21, 0.13],
        points: (0..48).map(point).collect(),
    }
}

fn item(name: &str, identity: &str) -> ItemView {
    ItemView {
        id: format!("images/{name}.png"),
        identity: identity.into(),
        image: Some(emoji(name)),
        sound: None,
        text: None,
    }
}

fn hit(name: &str, identity: &str, score: f32, relevant: bool) -> HitView {
    HitView {
        item: item(name, identity),
        score,
        relevant,
    }
}

fn flips() -> Vec<FlipExample> {
    let names = ["2195", "2198", "2693", "1f365", "1f444", "1f9c7"];
    names
        .iter()
        .enumerate()
        .map(|(index, code)| FlipExample {
            query: item(&format!("twemoji__{code}"), code),
            old_rank: 1,
            new_rank: 212 - 37 * index as u64,
            excess: Some(index % 2 == 0),
            old_hits: vec![
                hit(&format!("noto__{code}"), code, 0.912, true),
                hit("noto-v1__1f436", "1f436", 0.704, false),
                hit("fluent-emoji__1f3a8", "1f3a8", 0.688, false),
            ],
            new_hits: vec![
                hit("fluent-emoji__1f975", "1f975", 0.481, false),
                hit("fluent-emoji-flat__1f692", "1f692", 0.477, false),
                hit("noto-v1__303d", "303d", 0.474, false),
            ],
        })
        .collect()
}

fn structure() -> StructureSection {
    let change = [
        -0.4417, -0.3301, -0.25, -0.1811, -0.1214, -0.09, -0.0512, -0.02, 0.0, 0.0431, 0.1211, 0.25,
    ];
    let subclusters = change
        .iter()
        .enumerate()
        .map(|(index, change)| SubClusterRow {
            name: format!("1f{:x}/{}", 0x365 + 17 * index, 1 + index % 2),
            size: 3 + index % 3,
            radius: 0.18 + 0.011 * index as f64,
            nearest_rival: Some((
                format!("1f{:x}", 0x444 + index),
                0.831 - 0.01 * index as f64,
            )),
            queries: 1 + index % 3,
            old_old: Some(0.6),
            new_old: Some(0.6 + change),
            consensus: Some(SubClusterConsensus {
                queries: 1 + index % 3,
                mass_old: 0.31,
                mass_new: 0.31 + change / 4.0,
                kl: 0.02 + 0.03 * (index % 4) as f64,
                argmax_kept: if index < 4 { 0.0 } else { 1.0 },
                confused_with: (index < 4).then(|| (format!("1f{:x}", 0x444 + 3 * index), 1)),
            }),
        })
        .collect();
    let least = [
        "noto__1f365",
        "noto__1f444",
        "noto-v1__1f436",
        "fluent-emoji__1f9ce",
        "fluent-emoji__1f7e8",
    ];
    StructureSection {
        n_subclusters: 214,
        n_split_identities: 14,
        stability: Some(0.83),
        subclusters,
        consensus: Some(ConsensusSection {
            mass_old: 0.3127,
            mass_new: 0.3294,
            nccl_old: -4.8123,
            nccl_new: -4.7011,
            kl: 0.4127,
            argmax_kept: 0.7851,
            temperature: 0.05,
        }),
        credibility: CredibilitySection {
            assessable: 732,
            not_assessable: 6,
            temperature: 0.0731,
            cut: CredibilityCut::Combined,
            cutoff: 0.25,
            below_cutoff: 61,
            histogram: vec![18, 27, 33, 41, 52, 68, 97, 131, 158, 107],
            change_without_least_credible: Some(estimate(0.0224, 0.0118, 0.0331)),
            flips_on_least_credible: Some(0.4),
            lost_hits: [
                (0.01, 8, 0.1),
                (0.05, 37, 0.2),
                (0.1, 74, 0.4),
                (0.2, 147, 0.4),
            ]
            .map(|(least_credible, items, lost_hits)| LostHitsRow {
                least_credible,
                items,
                lost_hits,
            })
            .to_vec(),
            least_credible: least
                .iter()
                .enumerate()
                .map(|(index, name)| CredibilityRow {
                    item: item(name, name.rsplit('_').next().expect("a name has a code")),
                    entropy: Some(0.31),
                    posterior: (index != 2).then_some(0.02 * index as f64),
                    consensus: Some(0.0),
                    combined: 0.01 + 0.02 * index as f64,
                })
                .collect(),
        },
        map: Some(map()),
    }
}

fn check(
    code: CheckCode,
    state: CheckState,
    estimate: Option<Estimate>,
    limit: f64,
    message: &str,
) -> Check {
    let below = matches!(
        code,
        CheckCode::ExcessFlips | CheckCode::NegativeFlips | CheckCode::Slices
    );
    Check {
        code,
        severity: if code == CheckCode::NegativeFlips {
            CheckSeverity::Warn
        } else {
            CheckSeverity::Gate
        },
        state,
        estimate,
        value: estimate.map(|estimate| estimate.value),
        limit: Some(limit),
        safe_side: if below {
            SafeSide::Below
        } else {
            SafeSide::Above
        },
        message: message.into(),
        settles: None,
        waived: None,
    }
}

fn counted(mut check: Check, value: f64) -> Check {
    check.value = Some(value);
    check
}

fn korn_graubard(value: f64, lower: f64, upper: f64) -> Estimate {
    Estimate {
        method: IntervalMethod::KornGraubard,
        ..estimate(value, lower, upper)
    }
}

/// A better model in the old frame: skip-backfill.
pub fn skip() -> AuditReport {
    use CheckCode::*;
    use CheckState::Pass;
    let change = estimate(0.0207, 0.0111, 0.0308);
    let worth = estimate(0.0632, 0.0467, 0.0801);
    let negative = korn_graubard(0.0149, 0.0059, 0.0311);
    let excess = korn_graubard(0.009, 0.0025, 0.0229);
    let mut changes = measures(0.0207, 0.0098);
    changes[0].estimate = change;
    AuditReport {
        tool: TOOL.into(),
        schema_version: SCHEMA_VERSION,
        verdict: VerdictSection {
            verdict: Verdict::SkipBackfill,
            rule: 9,
            reason: "Every gate passes. D of mAP is +0.0207 (at worst +0.0111).".into(),
            not_tested: Vec::new(),
            bct_compatible: true,
            gain_proven: Some(true),
            next_steps: vec![
                "Send new queries to the old gallery; re-embed items as they change.".into(),
                "Keep this report with the deployment: it holds for this probe and these two models.".into(),
            ],
        },
        primary: Reference::Labels.name(Measure::MeanAveragePrecision),
        checks: vec![
            counted(check(Dimensions, Pass, None, 64.0, "both models give 64 dimensions"), 64.0),
            counted(
                check(AssaySensitivity, Pass, None, 0.01, "old->old mAP 0.5465 against 0.0183 with shuffled labels (p = 0.005)"),
                0.0994,
            ),
            counted(
                check(QueryIdentities, Pass, None, 20.0, "335 queries of 200 identities; at least 20 identities are needed"),
                200.0,
            ),
            check(UpgradeWorth, Pass, Some(worth), -0.01, ""),
            check(CrossTestChange, Pass, Some(change), -0.01, ""),
            check(ExcessFlips, Pass, Some(excess), 0.05, ""),
            check(NegativeFlips, Pass, Some(negative), 0.05, ""),
            counted(
                check(Slices, Pass, None, 0.0, "none of 4 tested slices is proven to lose more than 0.1 mAP (each would have shown a loss of 0.16 or less)"),
                0.0,
            ),
            check(Refresh, Pass, Some(gate::refresh().curve[0].change), -0.01, ""),
        ],
        findings: vec![Finding::new(
            FindingCode::QueriesExcluded,
            Severity::Info,
            "3 queries have no relevant gallery item left and were excluded.",
        )],
        old: ModelSection {
            name: "old.onnx".into(),
            kind: "onnx".into(),
            hash: "5f0c1a52b3d4e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f".into(),
            preprocessing: "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90".into(),
            dim: 64,
            output: Some("embedding".into()),
            provider: Some("CPU".into()),
            runtime_version: Some("1.31.1".into()),
            precision: Some("float32".into()),
            adaptation: None,
        },
        new: ModelSection {
            name: "new_l2_compatible.onnx".into(),
            kind: "onnx".into(),
            hash: "91d2e3f405162738495a6b7c8d9eaf0b1c2d3e4f5061728394a5b6c7d8e9fa0b".into(),
            preprocessing: "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90".into(),
            dim: 64,
            output: Some("embedding".into()),
            provider: Some("CPU".into()),
            runtime_version: Some("1.31.1".into()),
            precision: Some("float32".into()),
            adaptation: None,
        },
        probe: ProbeSection {
            origin: "fixtures/data/emoji/labels.csv".into(),
            modality: "image".into(),
            items: 1_073,
            queries: 335,
            query_identities: 200,
            queries_excluded: 3,
            gallery: 738,
            identities: 200,
            cameras: 6,
            junk: 0,
            distractors: 0,
            identical_pairs: 0,
            same_camera_pairs: 0,
            qrels: None,
            bad_items: Vec::new(),
        },
        assay: AssaySection {
            can_judge: true,
            shuffled: 0.0183,
            permutations: 200,
            p_value: 1.0 / 201.0,
            largest_margin: 0.0994,
            resolvable_margin: Some(0.0149),
            blind_share: 0.0149,
        },
        pairings: vec![
            pairing("old->old", 0.5465),
            pairing("new->old", 0.5672),
            pairing("new->new", 0.6097),
            pairing("old->new", 0.5588),
        ],
        compatibility: Some(CompatibilitySection {
            change: changes,
            change_optimistic: 0.0207,
            change_identity_weighted: 0.0199,
            update_gain: Some(estimate(0.3275, 0.1791, 0.4702)),
            flips: FlipSection {
                right_right: 210,
                right_wrong: 5,
                wrong_right: 10,
                wrong_wrong: 110,
                negative,
                positive: korn_graubard(0.0299, 0.0163, 0.05),
                excess: Some(excess),
                asymmetry_p: 0.302,
            },
            overlap: vec![
                OverlapRow { k: 1, overlap: 0.81 },
                OverlapRow { k: 10, overlap: 0.7412 },
                OverlapRow { k: 100, overlap: 0.8021 },
            ],
            rank_biased_overlap: 0.7105,
            alignment: Some(Quantiles {
                min: 0.551,
                lower_quartile: 0.812,
                median: 0.861,
                upper_quartile: 0.894,
                max: 0.961,
                mean: 0.848,
            }),
            threshold_transfer: vec![
                ThresholdTransferRow { far: 0.01, threshold: 0.5123, pairing: "new->old".into(), observed_far: 0.0071, observed_frr: 0.4402 },
                ThresholdTransferRow { far: 0.01, threshold: 0.5123, pairing: "new->new".into(), observed_far: 0.0094, observed_frr: 0.3819 },
            ],
        }),
        cka: Some(CkaSection {
            value: 0.912,
            items: 1_073,
        }),
        upgrade_worth: Some(worth),
        slices: Some(gate::slices()),
        refresh: Some(gate::refresh()),
        backfill: Some(gate::backfill()),
        what_if: Some(gate::what_if()),
        clusters: None,
        structure: structure(),
        worst_flips: flips(),
        baseline: None,
        privacy: Privacy::Full,
        policy: gate::policy(),
        settings: vec![
            Setting { key: "policy.margin".into(), value: 0.01.into(), origin: Origin::Default },
            Setting { key: "audit.seed".into(), value: 0.into(), origin: Origin::Flag },
            Setting { key: "old.mean".into(), value: serde_json::json!([0.5, 0.5, 0.5]), origin: Origin::File },
            Setting { key: "old.size".into(), value: 32.into(), origin: Origin::Model },
            Setting { key: "new.filter".into(), value: "bicubic".into(), origin: Origin::Sidecar },
        ],
        run: RunSection {
            tool_version: "0.1.0".into(),
            started_unix: 1_735_689_599,
            stage_seconds: ["probe", "embed", "structure", "retrieve", "judge"]
                .iter()
                .zip([0.04, 1.81, 0.22, 0.31, 0.93])
                .map(|(stage, seconds)| ((*stage).to_owned(), seconds))
                .collect(),
            directory: None,
            command: ["compat-audit", "old.onnx", "new_l2_compatible.onnx", "data/my emoji"].map(String::from).to_vec(),
            threads: 2,
            runtime_library: Some("libonnxruntime.so.1.31.1".into()),
            first_pass: None,
            from_cache: [1_073, 0],
            embedded: [0, 1_073],
        },
    }
}

/// An unrelated model: full-backfill.
pub fn full() -> AuditReport {
    let mut report = skip();
    let change = estimate(-0.5276, -0.5563, -0.498);
    let negative = korn_graubard(0.6418, 0.5911, 0.69);
    let excess = korn_graubard(0.5433, 0.489, 0.597);
    report.new.name = "new_incompatible.onnx".into();
    report.run.command[2] = "new_incompatible.onnx".into();
    report.verdict = VerdictSection {
        verdict: Verdict::FullBackfill,
        rule: 6,
        reason: "Searching the old gallery with new queries loses 0.5276 mAP (at least 0.4980), more than the margin.".into(),
        not_tested: Vec::new(),
        bct_compatible: false,
        gain_proven: Some(true),
        next_steps: vec![
            "Re-embed the whole gallery before new queries search it.".into(),
            "Or train the new model for compatibility with the old embeddings and audit again.".into(),
        ],
    };
    for (index, estimate) in [(4, change), (5, excess), (6, negative)] {
        report.checks[index].state = CheckState::Fail;
        report.checks[index].estimate = Some(estimate);
        report.checks[index].value = Some(estimate.value);
    }
    report.pairings[1] = pairing("new->old", 0.0189);
    report.pairings[2] = pairing("new->new", 0.6179);
    report.pairings[3] = pairing("old->new", 0.0201);
    let compatibility = report.compatibility.as_mut().expect("the sample has it");
    compatibility.change[0].estimate = change;
    compatibility.change_optimistic = change.value;
    compatibility.update_gain = Some(estimate(-7.3894, -10.2, -5.6));
    compatibility.flips = FlipSection {
        right_right: 0,
        right_wrong: 215,
        wrong_right: 0,
        wrong_wrong: 120,
        negative,
        positive: korn_graubard(0.0, 0.0, 0.0089),
        excess: Some(excess),
        asymmetry_p: 0.0005,
    };
    compatibility.alignment = Some(Quantiles {
        min: -0.41,
        lower_quartile: -0.08,
        median: 0.002,
        upper_quartile: 0.09,
        max: 0.38,
        mean: 0.003,
    });
    for (index, row) in report.structure.subclusters.iter_mut().enumerate() {
        row.new_old = Some(0.01 + 0.002 * index as f64);
    }
    report
}

/// Too few queries of a text probe, new->new not tested: inconclusive.
pub fn unsettled() -> AuditReport {
    let mut report = skip();
    let change = Estimate {
        method: IntervalMethod::LinearisedT,
        ..estimate(-0.0146, -0.0341, 0.0049)
    };
    report.new.name = "new_bct_near.npy".into();
    report.new.kind = "stored".into();
    (
        report.new.output,
        report.new.provider,
        report.new.runtime_version,
    ) = (None, None, None);
    report.new.precision = None;
    report.verdict = VerdictSection {
        verdict: Verdict::Inconclusive,
        rule: 8,
        reason: "Not settled: D = mAP(new->old) - mAP(old->old) = -0.0146 [-0.0341, +0.0049], must stay above -0.01; about 610 query identities like these would settle it (24 now).".into(),
        not_tested: vec![
            "new->new: 120 gallery items have no input for the new model, so the gain of a full backfill is unknown.".into(),
            "Excess flips: they need new->new; the absolute flip rate gates instead.".into(),
        ],
        bct_compatible: false,
        gain_proven: None,
        next_steps: vec!["cross-test-change: about 610 query identities like these would settle it (24 now)".into()],
    };
    report.checks[2] = counted(
        check(
            CheckCode::QueryIdentities,
            CheckState::Pass,
            None,
            20.0,
            "41 queries of 24 identities; at least 20 identities are needed",
        ),
        24.0,
    );
    report.checks[3] = check(
        CheckCode::UpgradeWorth,
        CheckState::NotTested,
        None,
        -0.01,
        "W = mAP(new->new) - mAP(old->old) could not be tested",
    );
    report.checks[4].state = CheckState::Unsettled;
    report.checks[4].estimate = Some(change);
    report.checks[4].settles =
        Some("about 610 query identities like these would settle it (24 now)".into());
    report.checks[5] = check(
        CheckCode::ExcessFlips,
        CheckState::NotTested,
        None,
        0.05,
        "excess flips could not be tested",
    );
    report.checks[6].severity = CheckSeverity::Gate;
    report.findings = vec![
        Finding::new(
            FindingCode::PreprocessingAssumed,
            Severity::Warning,
            "old: no preprocessing was configured; RGB, /255, no mean and std were assumed.",
        ),
        Finding {
            items: vec!["doc-0007".into(), "doc-0019".into()],
            ..Finding::new(
                FindingCode::InputsMissing,
                Severity::Warning,
                "120 gallery items have no input; stored embeddings stand in for the old model.",
            )
        },
    ];
    report.probe.modality = "text".into();
    report.probe.queries = 41;
    report.probe.query_identities = 24;
    report.probe.cameras = 0;
    report.pairings[1] = pairing("new->old", 0.5319);
    report.pairings.truncate(2);
    report.upgrade_worth = None;
    (report.refresh, report.backfill) = (None, None);
    let compatibility = report.compatibility.as_mut().expect("the sample has it");
    compatibility.change[0].estimate = change;
    compatibility.update_gain = None;
    compatibility.flips.excess = None;
    compatibility.threshold_transfer.clear();
    let texts = [
        "How do I reset the password of a shared mailbox?",
        "Refund for an order that arrived damaged, paid with a gift card and a second card, where the gift card has expired in the meantime and the shop has closed its counter",
        "Fahrplanauskunft für Nürnberg, 東京から大阪まで",
    ];
    for (flip, text) in report.worst_flips.iter_mut().zip(texts) {
        let hits = flip
            .old_hits
            .iter_mut()
            .chain(&mut flip.new_hits)
            .map(|hit| &mut hit.item);
        for item in hits {
            (item.image, item.text) = (
                None,
                Some("Reset a mailbox password in the admin centre".into()),
            );
        }
        (flip.query.image, flip.query.text, flip.excess) = (None, Some(text.into()), None);
    }
    report.worst_flips.truncate(texts.len());
    for row in &mut report.structure.credibility.least_credible {
        (row.item.image, row.item.text) = (None, Some(texts[0].into()));
    }
    report
}

/// 64 against 256 dimensions: full-backfill without new->old.
pub fn dimensions() -> AuditReport {
    let mut report = skip();
    report.new.name = "wl256.onnx".into();
    report.new.dim = 256;
    report.verdict = VerdictSection {
        verdict: Verdict::FullBackfill,
        rule: 3,
        reason: "New queries (256 dimensions) cannot search the old gallery (64 dimensions).".into(),
        not_tested: vec!["new->old and old->new: the dimensions differ.".into()],
        bct_compatible: false,
        gain_proven: Some(true),
        next_steps: vec![
            "Re-embed the whole gallery before new queries search it.".into(),
            "If the new model is a Matryoshka one, set `dims` to the old dimension and audit again.".into(),
        ],
    };
    report.checks[0] = counted(
        check(
            CheckCode::Dimensions,
            CheckState::Fail,
            None,
            64.0,
            "the old model gives 64 dimensions, the new one 256: new queries cannot be compared with old gallery embeddings",
        ),
        256.0,
    );
    for (index, code) in [
        (4, CheckCode::CrossTestChange),
        (5, CheckCode::ExcessFlips),
        (6, CheckCode::NegativeFlips),
    ] {
        report.checks[index] = check(
            code,
            CheckState::NotTested,
            None,
            if index == 4 { -0.01 } else { 0.05 },
            "there is no new->old",
        );
    }
    report.findings = vec![Finding::new(
        FindingCode::DimensionsDiffer,
        Severity::Warning,
        "old 64, new 256 dimensions.",
    )];
    report.assay.resolvable_margin = None;
    report
        .pairings
        .retain(|section| ["old->old", "new->new"].contains(&section.pairing.as_str()));
    report.compatibility = None;
    (report.slices, report.refresh, report.backfill) = (None, None, None);
    report.structure.consensus = None;
    for row in &mut report.structure.subclusters {
        row.new_old = None;
    }
    report.structure.credibility.change_without_least_credible = None;
    report.structure.credibility.flips_on_least_credible = None;
    report.worst_flips.clear();
    report
}

/// Three rows: a query with a flip, a gallery item, junk.
pub fn items() -> Vec<ItemRow> {
    let gallery = ItemRow {
        id: "images/noto__2195.png".into(),
        identity: "2195".into(),
        camera: Some("noto".into()),
        role: Role::Gallery,
        subcluster: Some("2195/1".into()),
        credibility: Some(0.81),
        first_rank: [None; 4],
        average_precision: [None; 4],
        flip: None,
    };
    let query = ItemRow {
        id: "images/twemoji__2195.png".into(),
        role: Role::Query,
        credibility: None,
        first_rank: [Some(1), Some(3), Some(1), None],
        average_precision: [Some(1.0), Some(1.0 / 3.0), Some(0.75), None],
        flip: Some("negative"),
        ..gallery.clone()
    };
    let junk = ItemRow {
        id: "images/ünknown.png".into(),
        identity: "-1".into(),
        camera: None,
        subcluster: None,
        credibility: None,
        ..gallery.clone()
    };
    vec![query, gallery, junk]
}

/// Rows of `backfill.csv`.
pub fn backfill_rows() -> Vec<BackfillRow> {
    vec![
        BackfillRow {
            place: 1,
            id: "images/a, b.png".into(),
            identity: "1f365".into(),
            subcluster: Some("1f365/1".into()),
            credibility: Some(0.25),
            beta: 0.05,
            needed: Some(true),
        },
        BackfillRow {
            place: 2,
            id: "images/noto__2195.png".into(),
            identity: "2195".into(),
            subcluster: None,
            credibility: None,
            beta: 1.0,
            needed: Some(false),
        },
    ]
}

/// The tables' files.
pub fn table_files() -> TableFiles {
    let items = tables::items_parquet(items().into_iter(), Reference::Labels, None);
    let backfill = tables::backfill_tables(backfill_rows().into_iter(), None);
    TableFiles {
        items: Some(items.expect("rendered")),
        backfill: Some(backfill.expect("rendered")),
    }
}
