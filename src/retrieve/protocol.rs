//! Which gallery items count for which query: relevance, junk, and the queries that are evaluated.

use std::collections::BTreeMap;

use crate::domain::{Measure, Probe, Qrels, Reference};

/// The retrieval protocol of a probe (`docs/METRICS.md`, section 1).
///
/// Gallery positions index [`Protocol::gallery`]; each query has its sorted relevant and junk positions.
pub struct Protocol {
    gallery: Vec<usize>,
    queries: Vec<QueryProtocol>,
    n_excluded: usize,
    identical_pairs: usize,
    same_camera_pairs: usize,
}

/// One evaluated query.
#[derive(Debug)]
pub struct QueryProtocol {
    /// Item index.
    pub item: usize,
    /// Identity index (the unit that statistics resample).
    pub identity: u32,
    /// Gallery positions that are relevant, sorted, never empty.
    pub relevant: Vec<u32>,
    /// Grades, at least 1, parallel to `relevant`; empty without judgements (every grade is 1).
    pub grades: Vec<u32>,
    /// Gallery positions that are removed from the ranking, sorted.
    pub junk: Vec<u32>,
}

impl Protocol {
    /// Applies the rules: the query itself is junk; so is an item with a byte-identical input (`input_digests`, one an
    /// item, equal digests mean equal inputs; empty when no input was read); so, with cameras, is an item of the same identity and camera. What is left is
    /// relevant when it was judged with a grade above 0, or, without judgements, shares a label. Queries without a
    /// relevant item left are excluded and counted.
    pub fn new(probe: &Probe, input_digests: &[Option<[u8; 32]>]) -> Self {
        let gallery = probe.gallery();
        let queries = probe.queries();
        let positions_of_label = probe.positions_of_labels(&queries, &gallery);
        let mut positions_of_digest: BTreeMap<[u8; 32], Vec<u32>> = BTreeMap::new();
        for (position, &item) in gallery.iter().enumerate() {
            if let Some(&Some(digest)) = input_digests.get(item) {
                positions_of_digest
                    .entry(digest)
                    .or_default()
                    .push(position as u32);
            }
        }
        let mut protocol = Self {
            gallery,
            queries: Vec::new(),
            n_excluded: 0,
            identical_pairs: 0,
            same_camera_pairs: 0,
        };
        for item in queries {
            protocol.add_query(
                probe,
                item,
                input_digests,
                &positions_of_label,
                &positions_of_digest,
            );
        }
        protocol
    }

    fn add_query(
        &mut self,
        probe: &Probe,
        item: usize,
        input_digests: &[Option<[u8; 32]>],
        positions_of_label: &BTreeMap<u32, Vec<u32>>,
        positions_of_digest: &BTreeMap<[u8; 32], Vec<u32>>,
    ) {
        let query = &probe.items[item];
        let Some(identity) = query.identity.get() else {
            return;
        };
        let mut junk: Vec<u32> = input_digests
            .get(item)
            .and_then(|digest| positions_of_digest.get(&(*digest)?))
            .cloned()
            .unwrap_or_default();
        // The query itself shares its own digest; it is no duplicate.
        let identical = junk
            .iter()
            .filter(|&&position| self.gallery[position as usize] != item)
            .count();
        if let Ok(own) = self.gallery.binary_search(&item) {
            junk.push(own as u32);
        }
        let mut same_label: Vec<u32> = query
            .labels
            .iter()
            .flat_map(|label| positions_of_label[label].iter().copied())
            .collect();
        same_label.sort_unstable();
        same_label.dedup();
        let mut same_camera = 0;
        // A view of the same camera is too easy to find by a label; of a cluster of the old gallery it is what the old model finds.
        if query.camera.is_some() && probe.reference == Reference::Labels {
            for &position in &same_label {
                let other = self.gallery[position as usize];
                if other != item && probe.items[other].camera == query.camera {
                    junk.push(position);
                    same_camera += 1;
                }
            }
        }
        junk.sort_unstable();
        junk.dedup();
        let (mut relevant, mut grades) = match &probe.qrels {
            Some(qrels) => self.judged(qrels, item),
            None => (same_label, Vec::new()),
        };
        let is_left = |position: &u32| junk.binary_search(position).is_err();
        let mut left = relevant.iter().map(is_left);
        grades.retain(|_| left.next().expect("one grade a position"));
        relevant.retain(is_left);
        if relevant.is_empty() {
            self.n_excluded += 1;
            return;
        }
        self.identical_pairs += identical;
        self.same_camera_pairs += same_camera;
        self.queries.push(QueryProtocol {
            item,
            identity,
            relevant,
            grades,
            junk,
        });
    }

    /// Gallery positions that were judged relevant to the query item, sorted, and their grades.
    fn judged(&self, qrels: &Qrels, query: usize) -> (Vec<u32>, Vec<u32>) {
        let judged = qrels.relevant_to(query).iter();
        judged
            .filter_map(|&(item, grade)| {
                let position = self.gallery.binary_search(&(item as usize)).ok()?;
                Some((position as u32, grade))
            })
            .unzip()
    }

    /// Gallery item indices in item order, junk identities excluded.
    pub fn gallery(&self) -> &[usize] {
        &self.gallery
    }

    /// The evaluated queries in item order.
    pub fn queries(&self) -> &[QueryProtocol] {
        &self.queries
    }

    /// Item indices of the evaluated queries.
    pub fn query_items(&self) -> Vec<usize> {
        self.queries.iter().map(|query| query.item).collect()
    }

    /// Identity index of each evaluated query.
    pub fn query_identities(&self) -> Vec<u32> {
        self.queries.iter().map(|query| query.identity).collect()
    }

    /// Queries without a relevant gallery item left.
    pub fn n_excluded(&self) -> usize {
        self.n_excluded
    }

    /// Whether some item is more relevant than others: a grade above 1. nDCG is the measure that sees it.
    pub fn is_graded(&self) -> bool {
        let mut grades = self.queries.iter().flat_map(|query| &query.grades);
        grades.any(|&grade| grade > 1)
    }

    /// The measure that decides where none is named: nDCG@10 of graded judgements, else mAP.
    pub fn usual_measure(&self) -> Measure {
        if self.is_graded() {
            Measure::NdcgAt(10)
        } else {
            Measure::MeanAveragePrecision
        }
    }

    /// Pairs of an evaluated query and another item with a byte-identical input.
    pub fn identical_pairs(&self) -> usize {
        self.identical_pairs
    }

    /// Pairs of an evaluated query and another item of the same identity and camera.
    pub fn same_camera_pairs(&self) -> usize {
        self.same_camera_pairs
    }

    /// Item indices that are removed from the query's ranking. `query` indexes [`Protocol::queries`].
    pub fn junk_items(&self, query: usize) -> Vec<usize> {
        let positions = self.queries[query].junk.iter();
        positions.map(|&p| self.gallery[p as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Item, Modality, Role};

    /// (identity, camera, role); identity None is junk.
    fn probe(items: &[(Option<u32>, Option<u32>, Role)]) -> Probe {
        let names = || (0..9).map(|n| n.to_string()).collect();
        let items = items
            .iter()
            .enumerate()
            .map(|(index, &(identity, camera, role))| Item {
                camera: camera.into(),
                ..Item::new(index.to_string(), identity, role)
            });
        Probe {
            cameras: names(),
            ..Probe::new(items.collect(), names(), Modality::Stored)
        }
    }

    use Role::{Both, Gallery, Query};

    #[test]
    fn same_identity_and_camera_is_junk_other_cameras_and_identities_stay() {
        let probe = probe(&[
            (Some(1), Some(1), Query),
            (Some(1), Some(1), Gallery),
            (Some(1), Some(2), Gallery),
            (Some(2), Some(1), Gallery),
            (None, Some(3), Gallery),
        ]);
        let protocol = Protocol::new(&probe, &[None; 5]);
        // Identity -1 (item 4) is not in the gallery at all.
        assert_eq!(protocol.gallery(), [1, 2, 3]);
        let query = &protocol.queries()[0];
        assert_eq!(
            (query.relevant.as_slice(), query.junk.as_slice()),
            (&[1][..], &[0][..])
        );
        assert_eq!(protocol.same_camera_pairs(), 1);
        assert_eq!(protocol.junk_items(0), [1]);
    }

    #[test]
    fn the_query_itself_and_byte_identical_inputs_are_junk() {
        let probe = probe(&[(Some(1), None, Both); 4]);
        let digests = [Some([7; 32]), Some([7; 32]), Some([8; 32]), None];
        let protocol = Protocol::new(&probe, &digests);
        let query = &protocol.queries()[0];
        assert_eq!(
            (query.relevant.as_slice(), query.junk.as_slice()),
            (&[2, 3][..], &[0, 1][..])
        );
        // 0 and 1 are each other's twin.
        assert_eq!(protocol.identical_pairs(), 2);
    }

    #[test]
    fn a_query_with_nothing_to_find_is_excluded_and_counted() {
        let probe = probe(&[
            (Some(1), None, Query),
            (Some(2), None, Gallery),
            (Some(3), None, Query),
            (Some(3), None, Gallery),
        ]);
        let protocol = Protocol::new(&probe, &[None; 4]);
        assert_eq!(
            (protocol.query_items(), protocol.n_excluded()),
            (vec![2], 1)
        );
    }

    #[test]
    fn judgements_override_labels_but_not_junk() {
        use crate::domain::Judgement;
        let mut probe = probe(&[
            (Some(1), Some(1), Both),
            (Some(1), Some(1), Gallery),
            (Some(1), Some(2), Gallery),
            (Some(2), Some(1), Gallery),
            (None, None, Gallery),
            (Some(3), None, Query),
        ]);
        let judged = |query, item, grade| Judgement { query, item, grade };
        let judgements = [
            judged(0, 0, 3), // the query itself
            judged(0, 1, 2), // same identity and camera
            judged(0, 3, 2),
            judged(0, 4, 1), // identity -1
            judged(5, 2, 1),
            judged(5, 1, 0),
        ];
        probe.qrels = Some(Qrels::new("q".into(), 6, &judgements, true));
        let protocol = Protocol::new(&probe, &[None; 6]);
        let [first, second] = protocol.queries() else {
            panic!("both queries find something")
        };
        // Item 2 shares the label of item 0, and nobody judged it.
        assert_eq!(
            (&first.relevant[..], &first.grades[..]),
            (&[3][..], &[2][..])
        );
        assert_eq!(
            (&second.relevant[..], &second.grades[..]),
            (&[2][..], &[1][..])
        );
        assert!(protocol.is_graded());
        probe.qrels = Some(Qrels::new("q".into(), 6, &judgements[4..], true));
        let protocol = Protocol::new(&probe, &[None; 6]);
        assert!(!protocol.is_graded());
        assert_eq!(
            (protocol.query_items(), protocol.n_excluded()),
            (vec![5], 1)
        );
    }

    #[test]
    fn any_shared_label_is_relevant() {
        let mut probe = probe(&[
            (Some(1), None, Query),
            (Some(1), None, Gallery),
            (Some(1), None, Gallery),
        ]);
        probe.items[0].labels = vec![1, 2].into();
        probe.items[1].labels = vec![2, 3].into();
        probe.items[2].labels = vec![3].into();
        let protocol = Protocol::new(&probe, &[None; 3]);
        assert_eq!(protocol.queries()[0].relevant, [0]);
    }
}
