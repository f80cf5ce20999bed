//! What a fitted map would recover.

use crate::retrieve::what_if::Map;

use super::*;

impl Tables<'_> {
    pub(super) fn what_if(&self) -> Option<WhatIfSection> {
        let found = self.stages.what_if?;
        let tested = |values: Vec<f64>| -> Vec<f64> {
            found.test_queries.iter().map(|&q| values[q]).collect()
        };
        let primary = self.stages.evidence.primary.measure;
        let of = |pairing| Some(tested(self.evaluation(pairing)?.per_query(primary)));
        let today = of(Pairing::OLD_OLD)?;
        let identities: Vec<u32> = found
            .test_queries
            .iter()
            .map(|&q| self.identities[q])
            .collect();
        Some(WhatIfSection {
            fit_items: found.fit_items,
            test_queries: found.test_queries.len(),
            old_old: mean(&today),
            new_old: of(Pairing::NEW_OLD).map(|values| mean(&values)),
            maps: found
                .mapped
                .iter()
                .map(|(map, values)| WhatIfRow {
                    map: match map {
                        Map::Procrustes => "procrustes",
                        Map::Linear => "linear",
                    }
                    .into(),
                    mapped: mean(values),
                    change: self
                        .intervals
                        .mean(&difference(values, &today), &identities),
                })
                .collect(),
        })
    }
}
