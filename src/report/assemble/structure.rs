//! Sub-clusters, consensus and credibility.

use std::collections::BTreeMap;

use super::*;

/// Sub-clusters shown.
const SUBCLUSTERS: usize = 50;

/// Shares of the least credible items whose part in the damage is told.
const LEAST_CREDIBLE: [f64; 4] = [0.01, 0.05, 0.1, 0.2];

/// Bins of the credibility histogram over [0, 1].
const BINS: usize = 10;

impl Tables<'_> {
    pub(super) fn clusters(&self) -> Option<ClustersSection> {
        let found = self.stages.pseudo?;
        // One more for what lies outside.
        let mut sizes = vec![0_usize; found.medoids.len() + 1];
        for item in self.stages.probe.gallery() {
            if let Some(cluster) = found.of_item[item] {
                sizes[cluster as usize] += 1;
            }
        }
        let outside = sizes.pop().expect("pushed above");
        Some(ClustersSection {
            n_clusters: sizes.len(),
            n_singletons: sizes.iter().filter(|&&size| size == 1).count(),
            clustered: found.clustered,
            outside,
            searching: found.searching.as_ref().map(Vec::len),
            silhouette: found.silhouette,
            stability: found.stability,
            labels_agreement: found.labels_agreement,
        })
    }

    pub(super) fn structure(&self) -> StructureSection {
        let structure = self.stages.structure;
        let mut queries = vec![Vec::new(); structure.subclusters.len()];
        for (query, item) in self.query_items().enumerate() {
            if let Some(index) = structure.subcluster_of(item) {
                queries[index as usize].push(query);
            }
        }
        let values = [Pairing::OLD_OLD, Pairing::NEW_OLD].map(|pairing| {
            Some(
                self.evaluation(pairing)?
                    .per_query(self.stages.evidence.primary.measure),
            )
        });
        let mut rows: Vec<(usize, SubClusterRow)> = queries
            .iter()
            .enumerate()
            .map(|(index, queries)| (index, self.subcluster(index, queries, &values)))
            .collect();
        rows.retain(|(_, row)| row.queries > 0);
        let change = |row: &SubClusterRow| match (row.new_old, row.old_old) {
            (Some(new), Some(old)) => new - old,
            _ => 0.0,
        };
        rows.sort_by(|(_, a), (_, b)| change(a).total_cmp(&change(b)).then(a.name.cmp(&b.name)));
        rows.truncate(SUBCLUSTERS);
        let (shown, mut rows): (Vec<usize>, Vec<SubClusterRow>) = rows.into_iter().unzip();
        let rivals = structure.nearest_rivals(&shown);
        for ((row, &index), rival) in rows.iter_mut().zip(&shown).zip(rivals) {
            row.nearest_rival = rival.map(|(rival, cosine)| (self.subcluster_name(rival), cosine));
            row.consensus = self.subcluster_consensus(index, &queries[index]);
        }
        let on_map: Vec<u32> = shown
            .iter()
            .take(ON_MAP)
            .map(|&index| index as u32)
            .collect();
        StructureSection {
            n_subclusters: structure.subclusters.len(),
            n_split_identities: self.is_split.iter().filter(|&&split| split).count(),
            stability: structure.stability,
            subclusters: rows,
            consensus: consensus_section(self.stages.consensus, self.stages.temperature),
            credibility: self.credibility(),
            map: self.map(&on_map),
        }
    }

    fn map(&self, first: &[u32]) -> Option<MapSection> {
        let Stages {
            probe,
            structure,
            config,
            ..
        } = *self.stages;
        let embeddings = [&self.stages.old.embeddings, &self.stages.new.embeddings];
        let queries: Vec<usize> = self.query_items().collect();
        let map =
            crate::structure::map(probe, structure, embeddings, &queries, first, config.seed)?;
        let points = map.points.iter().map(|point| {
            let subcluster = structure.subcluster_of(point.item);
            MapPointRow {
                id: probe.items[point.item].id.to_string(),
                subcluster: subcluster
                    .map_or_else(String::new, |index| self.subcluster_name(index)),
                query: !probe.items[point.item].role.is_gallery(),
                // A picture's places: more digits would only be longer.
                old: point.old.map(|value| value as f32),
                new: point.new.map(|place| place.map(|value| value as f32)),
                moved_to: point
                    .nearest_new
                    .filter(|_| point.moved(structure, probe))
                    .map(|index| self.subcluster_name(index)),
            }
        });
        Some(MapSection {
            explained: map.explained,
            points: points.collect(),
        })
    }

    pub(super) fn subcluster_name(&self, index: u32) -> String {
        let Stages {
            structure, probe, ..
        } = self.stages;
        structure.subcluster_name(index, probe, &self.is_split)
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
            nearest_rival: None,
            queries: queries.len(),
            old_old,
            new_old,
            consensus: None,
        }
    }

    /// Consensus over the sub-cluster's queries.
    fn subcluster_consensus(&self, index: usize, queries: &[usize]) -> Option<SubClusterConsensus> {
        let measured = queries.iter().map(|&q| self.stages.consensus.get(q));
        let measured: Vec<&Consensus> = measured.flatten().flatten().collect();
        if measured.is_empty() {
            return None;
        }
        let structure = self.stages.structure;
        let identity = |subcluster: u32| structure.subclusters[subcluster as usize].identity;
        let mut confused = BTreeMap::new();
        for found in &measured {
            if identity(found.nearest_new) != identity(index as u32) {
                *confused.entry(found.nearest_new).or_insert(0) += 1;
            }
        }
        // The most frequent, of equal ones the first.
        let confused_with = confused
            .into_iter()
            .max_by_key(|&(subcluster, n)| (n, std::cmp::Reverse(subcluster)));
        let mean = |value: fn(&Consensus) -> f64| mean_of(&measured, value);
        Some(SubClusterConsensus {
            queries: measured.len(),
            mass_old: mean(|c| c.mass_old),
            mass_new: mean(|c| c.mass_new),
            kl: mean(|c| c.kl),
            argmax_kept: mean(|c| f64::from(c.argmax_kept)),
            confused_with: confused_with.map(|(other, n)| (self.subcluster_name(other), n)),
        })
    }

    fn credibility(&self) -> CredibilitySection {
        let structure = self.stages.structure;
        let mut scored: Vec<(usize, f64)> = Vec::new();
        let mut not_assessable = 0;
        for item in structure.credibility.items() {
            match structure.cut_score(item) {
                Some(score) => scored.push((item, score)),
                None => not_assessable += 1,
            }
        }
        let mut histogram = vec![0; BINS];
        for &(_, score) in &scored {
            histogram[((score * BINS as f64) as usize).min(BINS - 1)] += 1;
        }
        scored.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let below_cutoff = scored.partition_point(|&(_, score)| score < structure.cutoff);
        let place_of = |item: usize| {
            let own = structure.cut_score(item)?;
            let order =
                |&(other, score): &(usize, f64)| score.total_cmp(&own).then(other.cmp(&item));
            scored.binary_search_by(order).ok()
        };
        let lost: Vec<Option<usize>> = self.lost_hits().into_iter().map(place_of).collect();
        let share_on_first = |n: usize| {
            let on = lost.iter().flatten().filter(|&&place| place < n).count();
            on as f64 / lost.len() as f64
        };
        let least_credible = |share: f64| {
            let n = (share * scored.len() as f64).ceil() as usize;
            LostHitsRow {
                least_credible: share,
                items: n,
                lost_hits: share_on_first(n),
            }
        };
        let has_both = !lost.is_empty() && !scored.is_empty();
        CredibilitySection {
            assessable: scored.len(),
            not_assessable,
            temperature: structure.tau,
            cut: structure.cut,
            cutoff: structure.cutoff,
            below_cutoff,
            histogram,
            change_without_least_credible: self.stages.evidence.change_without_least_credible,
            flips_on_least_credible: (!lost.is_empty()).then(|| share_on_first(below_cutoff)),
            lost_hits: if has_both {
                LEAST_CREDIBLE.map(least_credible).to_vec()
            } else {
                Vec::new()
            },
            least_credible: scored
                .iter()
                .take(EXAMPLES)
                .filter_map(|&(item, _)| {
                    let scores = structure.credibility.get(item)?;
                    Some(CredibilityRow {
                        item: self.view(item),
                        entropy: scores.entropy,
                        posterior: scores.posterior,
                        consensus: scores.consensus,
                        combined: scores.combined?,
                    })
                })
                .collect(),
        }
    }

    /// Of each negative flip the item that it lost: the first of old->old.
    fn lost_hits(&self) -> Vec<usize> {
        let flips = self.stages.evidence.flips.as_ref();
        let (Some(flips), Some(old_old)) = (flips, self.evaluation(Pairing::OLD_OLD)) else {
            return Vec::new();
        };
        let gallery = self.stages.retrieval.protocol.gallery();
        flips
            .per_query
            .iter()
            .zip(&old_old.rankings)
            .filter(|(flip, _)| flip.is_negative())
            .map(|(_, ranking)| gallery[ranking.relevant[0].position as usize])
            .collect()
    }
}

fn mean_of(measured: &[&Consensus], value: fn(&Consensus) -> f64) -> f64 {
    measured.iter().map(|c| value(c)).sum::<f64>() / measured.len() as f64
}

fn consensus_section(queries: &[Option<Consensus>], temperature: f64) -> Option<ConsensusSection> {
    let known: Vec<&Consensus> = queries.iter().flatten().collect();
    if known.is_empty() {
        return None;
    }
    let mean = |value: fn(&Consensus) -> f64| mean_of(&known, value);
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
