//! The refresh curve and the backfill plan.

use crate::judge::Verdict;
use crate::retrieve::refresh::STEPS;

use super::*;

impl Tables<'_> {
    pub(super) fn refresh(&self) -> Option<RefreshSection> {
        let refresh = self.stages.evidence.refresh.as_ref()?;
        let order = &self.stages.order?.order;
        let beta = |step: usize| step as f64 / STEPS as f64;
        let planned: Vec<f64> = refresh
            .planned
            .pointwise
            .iter()
            .map(|at| at.value)
            .collect();
        let lowest = |curve: &[f64]| {
            (0..curve.len())
                .min_by(|&a, &b| curve[a].total_cmp(&curve[b]))
                .map_or(0.0, beta)
        };
        Some(RefreshSection {
            curve: refresh
                .planned
                .pointwise
                .iter()
                .enumerate()
                .map(|(step, &change)| RefreshPoint {
                    beta: beta(step),
                    items: order.items_at(step),
                    change,
                })
                .collect(),
            area: area(&planned),
            random: refresh.random.clone(),
            random_orders: refresh.random_orders,
            random_area: area(&refresh.random),
            worst_beta: lowest(&planned),
            random_worst_beta: lowest(&refresh.random),
        })
    }

    pub(super) fn backfill(&self) -> Option<BackfillSection> {
        let plan = self.stages.evidence.plan.as_ref()?;
        let order = self.stages.order?;
        Some(BackfillSection {
            beta_star: plan.beta_star,
            max_partial: self.stages.config.policy.max_partial,
            split: plan.split,
            steps: plan
                .steps
                .iter()
                .map(|step| BackfillStep {
                    beta: step.beta,
                    change: step.change,
                    excess_flips: step.excess,
                    failing_slices: step.failing_slices.clone(),
                    passes: step.passes,
                })
                .collect(),
            first_subclusters: order
                .first_subclusters
                .iter()
                .map(|&index| self.subcluster_name(index))
                .collect(),
            items: order.order.positions().len(),
            cost: self.cost(),
        })
    }

    pub(super) fn backfill_rows(&self) -> Option<impl Iterator<Item = BackfillRow> + '_> {
        let order = self.stages.order?;
        let share = self.share_needed();
        let structure = self.stages.structure;
        let gallery = self.stages.retrieval.protocol.gallery();
        let mut step = 1;
        let row = move |(index, &position): (usize, &u32)| {
            while order.order.items_at(step) <= index {
                step += 1;
            }
            let item = gallery[position as usize];
            let beta = step as f64 / STEPS as f64;
            BackfillRow {
                place: index as u64 + 1,
                id: self.stages.probe.items[item].id.to_string(),
                identity: self.stages.probe.identity_name(item).to_owned(),
                subcluster: structure
                    .subcluster_of(item)
                    .map(|index| self.subcluster_name(index)),
                credibility: structure.credibility.get(item).and_then(|c| c.combined),
                beta,
                needed: share.map(|share| beta <= share),
            }
        };
        Some(order.order.positions().iter().enumerate().map(row))
    }

    /// Share of the gallery that the verdict has re-embedded before new queries search; `None` when it has none.
    fn share_needed(&self) -> Option<f64> {
        match self.stages.judgement.verdict {
            Verdict::SkipBackfill => Some(0.0),
            Verdict::PartialBackfill => self.stages.evidence.plan.as_ref()?.beta_star,
            Verdict::FullBackfill => Some(1.0),
            Verdict::DoNotUpgrade | Verdict::Inconclusive => None,
        }
    }

    /// Money and hours of each way for the production gallery; the partial way is one where the verdict is.
    fn cost(&self) -> Option<CostSection> {
        let inputs = self.stages.config.cost?;
        let gallery_size = inputs.gallery_size;
        let row = |option: &str, beta: f64| {
            let items = (beta * gallery_size as f64).ceil();
            CostRow {
                option: option.into(),
                items: items as u64,
                cost: inputs.cost_per_million.map(|cost| cost * items / 1e6),
                hours: inputs.throughput.map(|rate| items / rate / 3600.0),
            }
        };
        let partial = self.share_needed().filter(|&beta| beta > 0.0 && beta < 1.0);
        Some(CostSection {
            gallery_size,
            cost_per_million: inputs.cost_per_million,
            throughput: inputs.throughput,
            options: [
                Some(row("skip", 0.0)),
                partial.map(|beta| row("partial", beta)),
                Some(row("full", 1.0)),
            ]
            .into_iter()
            .flatten()
            .collect(),
        })
    }
}

/// Area under a curve at beta = 0, 1/STEPS, ..., 1 by trapezoids: FastFill's AUC (Jaeckle et al., ICLR 2023), as a
/// change against today.
fn area(curve: &[f64]) -> f64 {
    let ends = (curve[0] + curve[curve.len() - 1]) / 2.0;
    let inner: f64 = curve[1..curve.len() - 1].iter().sum();
    (ends + inner) / (curve.len() - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_of_a_line_is_its_mean() {
        assert_eq!(area(&[0.0, 0.5, 1.0]), 0.5);
        assert_eq!(area(&[0.25; 21]), 0.25);
    }
}
