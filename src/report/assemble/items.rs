//! Examples and rows, item by item.

use super::*;

/// Hits shown a flip.
const HITS: usize = 3;

impl Tables<'_> {
    pub(super) fn worst_flips(&self) -> Vec<FlipExample> {
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
        HitView {
            item: self.view(item),
            score: hit.score,
            relevant: self.stages.probe.is_relevant(query, item),
        }
    }

    pub(super) fn items(&self) -> impl Iterator<Item = ItemRow> + '_ {
        let Stages {
            probe,
            structure,
            evidence,
            ..
        } = self.stages;
        // In the probe's order, like the items.
        let query_items: Vec<usize> = self.query_items().collect();
        let precisions = Pairing::ALL.map(|pairing| {
            Some(
                self.evaluation(pairing)?
                    .per_query(Measure::MeanAveragePrecision),
            )
        });
        (0..probe.items.len()).map(move |i| {
            let item = &probe.items[i];
            let query = query_items.binary_search(&i).ok();
            let flip = query
                .zip(evidence.flips.as_ref())
                .map(|(q, flips)| flips.per_query[q]);
            ItemRow {
                id: item.id.to_string(),
                identity: probe.identity_name(i).to_owned(),
                camera: item
                    .camera
                    .get()
                    .map(|camera| probe.cameras[camera as usize].clone()),
                role: item.role,
                subcluster: structure
                    .subcluster_of(i)
                    .map(|index| self.subcluster_name(index)),
                credibility: structure.credibility.get(i).and_then(|c| c.combined),
                first_rank: Pairing::ALL
                    .map(|pairing| Some(self.evaluation(pairing)?.rankings[query?].first_rank())),
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
    }
}
