//! The refresh curve and the backfill plan.

use crate::retrieve::refresh::STEPS;

use super::*;

impl Tables<'_> {
    pub(super) fn refresh(&self) -> Option<RefreshSection> {
        let refresh = self.stages.evidence.refresh.as_ref()?;
        let order = &self.stages.order?.order;
        let beta = |step: usize| step as f64 / STEPS as f64;
        let planned: Vec<f64> = refresh.planned.iter().map(|at| at.value).collect();
        let lowest = |curve: &[f64]| {
            (0..curve.len())
                .min_by(|&a, &b| curve[a].total_cmp(&curve[b]))
                .map_or(0.0, beta)
        };
        Some(RefreshSection {
            curve: refresh
                .planned
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
            cost: None,
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
