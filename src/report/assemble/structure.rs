//! Sub-clusters, consensus and credibility.

use super::*;

/// Sub-clusters shown.
const SUBCLUSTERS: usize = 50;

/// Bins of the credibility histogram over [0, 1].
const BINS: usize = 10;

impl Tables<'_> {
    pub(super) fn structure(&self) -> StructureSection {
        let structure = self.stages.structure;
        let mut queries = vec![Vec::new(); structure.subclusters.len()];
        for (query, item) in self.query_items().enumerate() {
            if let Some(index) = structure.assignment[item] {
                queries[index as usize].push(query);
            }
        }
        let values = [Pairing::OLD_OLD, Pairing::NEW_OLD].map(|pairing| {
            Some(
                self.evaluation(pairing)?
                    .per_query(self.stages.evidence.primary),
            )
        });
        let mut rows: Vec<SubClusterRow> = queries
            .iter()
            .enumerate()
            .map(|(index, queries)| self.subcluster(index, queries, &values))
            .collect();
        rows.retain(|row| row.queries > 0);
        let change = |row: &SubClusterRow| match (row.new_old, row.old_old) {
            (Some(new), Some(old)) => new - old,
            _ => 0.0,
        };
        rows.sort_by(|a, b| change(a).total_cmp(&change(b)).then(a.name.cmp(&b.name)));
        rows.truncate(SUBCLUSTERS);
        StructureSection {
            n_subclusters: structure.subclusters.len(),
            n_split_identities: structure
                .split_identities(self.stages.probe)
                .iter()
                .filter(|&&split| split)
                .count(),
            stability: structure.stability,
            subclusters: rows,
            consensus: consensus_section(self.stages.consensus, self.stages.temperature),
            credibility: self.credibility(),
        }
    }

    pub(super) fn subcluster_name(&self, index: u32) -> String {
        self.subcluster_names[index as usize].clone()
    }

    /// `queries` are the sub-cluster's; `values` the primary measure of all queries, old->old and new->old.
    fn subcluster(
        &self,
        index: usize,
        queries: &[usize],
        values: &[Option<Vec<f64>>; 2],
    ) -> SubClusterRow {
        let subcluster = &self.stages.structure.subclusters[index];
        let [old_old, new_old] = values.each_ref().map(|values| {
            let own: Vec<f64> = queries
                .iter()
                .map(|&q| Some(values.as_ref()?[q]))
                .collect::<Option<_>>()?;
            (!own.is_empty()).then(|| mean(&own))
        });
        SubClusterRow {
            name: self.subcluster_name(index as u32),
            size: subcluster.items.len(),
            radius: subcluster.radius,
            nearest_rival: subcluster
                .nearest_rival
                .map(|(rival, cosine)| (self.subcluster_name(rival), cosine)),
            queries: queries.len(),
            old_old,
            new_old,
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
