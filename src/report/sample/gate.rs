//! Slices, refresh curve, backfill plan and policy of the samples.

use super::*;

fn slice(name: &str, queries: usize, identities: usize, change: Estimate, p: f64) -> SliceRow {
    SliceRow {
        name: name.into(),
        queries,
        identities,
        share: queries as f64 / 335.0,
        old_old: 0.55,
        new_old: 0.55 + change.value,
        change,
        p,
        p_holm: (4.0 * p).min(1.0),
        q: (2.0 * p).min(1.0),
        minimum_detectable_loss: Some(0.1 + (change.upper - change.lower)),
        state: if 4.0 * p <= 0.05 {
            CheckState::Fail
        } else {
            CheckState::Pass
        },
        suspect: 4.0 * p > 0.05 && 2.0 * p <= 0.05,
    }
}

pub(super) fn slices() -> SliceSection {
    let column = |column: &str, tested, untestable, untestable_traffic| SliceColumn {
        column: column.into(),
        tested,
        untestable,
        untestable_traffic,
    };
    SliceSection {
        columns: vec![
            column("identity", 0, 200, 1.0),
            column("camera", 3, 0, 0.0),
            column("licence", 1, 1, 0.0119),
        ],
        min_queries: 10,
        tested: vec![
            slice("camera=twemoji", 112, 112, near(-0.0212, 0.0291), 0.41),
            slice("licence=MIT", 80, 80, near(0.0187, 0.021), 0.93),
            slice("camera=fluent-emoji", 143, 143, near(0.0301, 0.0188), 1.0),
            slice("camera=noto", 80, 80, near(0.0411, 0.0193), 1.0),
        ],
        n_untestable: 201,
        untestable: vec![UntestableSlice {
            name: "licence=CC-BY-4.0".into(),
            queries: 4,
            share: 4.0 / 335.0,
        }],
    }
}

pub(super) fn refresh() -> RefreshSection {
    let at = |beta: f64| 0.0207 + 0.0425 * beta - 0.04 * beta * (1.0 - beta);
    let betas = || (0..=20).map(|step| f64::from(step) / 20.0);
    RefreshSection {
        curve: betas()
            .map(|beta| RefreshPoint {
                beta,
                items: (738.0 * beta).round() as usize,
                change: near(at(beta), 0.0105),
            })
            .collect(),
        area: 0.0353,
        random: betas()
            .map(|beta| at(beta) - 0.02 * beta * (1.0 - beta))
            .collect(),
        random_orders: 5,
        random_area: 0.0319,
        worst_beta: 0.0,
        random_worst_beta: 0.0,
    }
}

pub(super) fn backfill() -> BackfillSection {
    BackfillSection {
        beta_star: Some(0.0),
        max_partial: 0.5,
        split: [168, 167],
        steps: (0..=20)
            .rev()
            .map(|step| BackfillStep {
                beta: f64::from(step) / 20.0,
                change: near(0.0207 + 0.002 * f64::from(step), 0.015),
                excess_flips: korn_graubard(0.006, 0.0003, 0.028),
                failing_slices: Vec::new(),
                passes: true,
            })
            .collect(),
        first_subclusters: vec!["1f365/1".into(), "1f444".into()],
        items: 738,
        cost: None,
    }
}

pub(super) fn what_if() -> WhatIfSection {
    let map = |name: &str, mapped: f64| WhatIfRow {
        map: name.into(),
        mapped,
        change: near(mapped - 0.5512, 0.0121),
    };
    WhatIfSection {
        fit_items: 536,
        test_queries: 168,
        old_old: 0.5512,
        new_old: Some(0.5714),
        maps: vec![map("procrustes", 0.5741), map("linear", 0.5688)],
    }
}

pub(super) fn policy() -> PolicySection {
    let limits = Policy::default();
    PolicySection {
        hash: limits.hash(),
        weakened: limits.weakened(Measure::MeanAveragePrecision),
        waivers: Vec::new(),
        limits,
    }
}
