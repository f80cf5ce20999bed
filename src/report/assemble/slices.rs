//! Parts of the queries on their own.

use crate::judge::CheckState;
use crate::judge::slices::{MIN_QUERIES, Slice};

use super::*;

/// Untestable slices shown.
const UNTESTABLE: usize = 50;

impl Tables<'_> {
    pub(super) fn slices(&self) -> Option<SliceSection> {
        let evidence = self.stages.evidence;
        let slices = evidence.slices.as_ref()?;
        let values = |pairing| {
            Some(
                self.evaluation(pairing)?
                    .per_query(evidence.primary.measure),
            )
        };
        let (old_old, new_old) = (values(Pairing::OLD_OLD)?, values(Pairing::NEW_OLD)?);

        let mut tested: Vec<SliceRow> = slices
            .iter()
            .filter_map(|slice| self.slice_row(slice, &old_old, &new_old))
            .collect();
        tested.sort_by(|a, b| {
            a.p_holm
                .total_cmp(&b.p_holm)
                .then(a.change.value.total_cmp(&b.change.value))
        });
        let mut untestable: Vec<UntestableSlice> = slices
            .iter()
            .filter(|slice| slice.test.is_none() && !slice.members.queries.is_empty())
            .map(|slice| UntestableSlice {
                name: slice.members.name(),
                queries: slice.members.queries.len(),
                share: self.share(slice),
            })
            .collect();
        let n_untestable = untestable.len();
        untestable.sort_by(|a, b| b.queries.cmp(&a.queries).then(a.name.cmp(&b.name)));
        untestable.truncate(UNTESTABLE);
        let columns = evidence
            .slice_columns
            .iter()
            .zip(&evidence.untestable_traffic)
            .map(|(column, &untestable_traffic)| {
                let of = |tested: bool| {
                    slices
                        .iter()
                        .filter(|slice| slice.members.column == *column)
                        .filter(|slice| slice.test.is_some() == tested)
                        .count()
                };
                SliceColumn {
                    column: column.clone(),
                    tested: of(true),
                    untestable: of(false),
                    untestable_traffic,
                }
            })
            .collect();
        Some(SliceSection {
            columns,
            min_queries: MIN_QUERIES,
            tested,
            n_untestable,
            untestable,
        })
    }

    fn share(&self, slice: &Slice) -> f64 {
        slice.members.queries.len() as f64 / self.identities.len() as f64
    }

    fn slice_row(&self, slice: &Slice, old_old: &[f64], new_old: &[f64]) -> Option<SliceRow> {
        let test = slice.test.as_ref()?;
        let policy = &self.stages.config.policy;
        let of = |values: &[f64]| {
            let own: Vec<f64> = slice.members.queries.iter().map(|&q| values[q]).collect();
            mean(&own)
        };
        let state = slice.state(policy);
        Some(SliceRow {
            name: slice.members.name(),
            queries: slice.members.queries.len(),
            identities: slice.n_identities,
            share: self.share(slice),
            old_old: of(old_old),
            new_old: of(new_old),
            change: test.estimate,
            p: test.p,
            p_holm: test.p_holm,
            q: test.q,
            minimum_detectable_loss: Some(test.minimum_detectable_loss)
                .filter(|loss| loss.is_finite()),
            suspect: state != CheckState::Fail && test.q <= policy.alpha,
            state,
        })
    }
}
