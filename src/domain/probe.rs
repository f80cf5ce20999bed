//! A data set to audit with.

use std::collections::BTreeMap;

use super::{Finding, Item, Labels, Modality, OptionalIndex, Qrels, Reference, Role};

/// A data set to audit with, in its defined order.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The items, in the manifest's order, else bytewise by id.
    pub items: Vec<Item>,
    /// Label names, by label index.
    pub labels: Vec<String>,
    /// Identity names, by identity index (a component is named after its first label).
    pub identities: Vec<String>,
    /// Camera names, by camera index.
    pub cameras: Vec<String>,
    /// Names of the manifest columns that are slices.
    pub slice_columns: Vec<String>,
    /// The kind of input.
    pub modality: Modality,
    /// Where it was read from: the manifest file or the folder.
    pub origin: std::path::PathBuf,
    /// The tensor file beside the manifest, when the items are tensor rows.
    pub tensors: Option<std::path::PathBuf>,
    /// Relevance judgements; `None`: items are relevant to each other when they share a label.
    pub qrels: Option<Qrels>,
    /// What the labels are.
    pub reference: Reference,
    /// The identity of gallery items that are of no cluster, where clusters stand in for the labels. They are found and are
    /// relevant to nothing; they are no cluster themselves. `None`: there are none, or the labels are used.
    pub outside: Option<u32>,
    /// What was noticed while reading.
    pub findings: Vec<Finding>,
}

impl Probe {
    /// A probe of items that have one label, their identity, at most: an index into `names`. No cameras, no slices, no file.
    pub fn new(items: Vec<Item>, names: Vec<String>, modality: Modality) -> Self {
        Self {
            items,
            labels: names.clone(),
            identities: names,
            cameras: Vec::new(),
            slice_columns: Vec::new(),
            modality,
            origin: std::path::PathBuf::new(),
            tensors: None,
            qrels: None,
            reference: Reference::Labels,
            outside: None,
            findings: Vec::new(),
        }
    }

    /// Indices of the items that search and have an identity, in item order.
    pub fn queries(&self) -> Vec<usize> {
        (0..self.items.len())
            .filter(|&i| self.items[i].role.is_query() && self.items[i].identity.is_some())
            .collect()
    }

    /// Indices of the items that can be found, junk excluded, in item order.
    pub fn gallery(&self) -> Vec<usize> {
        (0..self.items.len())
            .filter(|&i| self.items[i].role.is_gallery() && self.items[i].identity.is_some())
            .collect()
    }

    /// For each label of the queries the rising positions of the gallery items that have it. `gallery` and `queries` are item
    /// indices.
    pub fn positions_of_labels(
        &self,
        queries: &[usize],
        gallery: &[usize],
    ) -> BTreeMap<u32, Vec<u32>> {
        let labels = queries.iter().flat_map(|&query| &self.items[query].labels);
        let mut positions: BTreeMap<u32, Vec<u32>> =
            labels.map(|&label| (label, Vec::new())).collect();
        for (position, &item) in gallery.iter().enumerate() {
            for label in &self.items[item].labels {
                if let Some(of_label) = positions.get_mut(label) {
                    of_label.push(position as u32);
                }
            }
        }
        positions
    }

    /// Whether the gallery item is relevant to the query: as judged, else by a shared label. Both are item indices.
    pub fn is_relevant(&self, query: usize, item: usize) -> bool {
        match &self.qrels {
            Some(qrels) => qrels.is_relevant(query, item),
            None => self.items[item].is_relevant_to(&self.items[query]),
        }
    }

    /// Whether the probe says who its items are. If not, relevance is judged, each item is its own identity, and nothing
    /// that compares items of one identity can be measured.
    pub fn names_identities(&self) -> bool {
        self.qrels.as_ref().is_none_or(Qrels::identities_given)
    }

    /// Whether there are identities that a split can keep whole: labels, and they are used.
    pub fn splits_by_identity(&self) -> bool {
        self.names_identities() && self.reference == Reference::Labels
    }

    /// The names by which an item goes to one side of a split: its labels', or its own; none of junk.
    pub fn split_names(&self, item: usize, by_identity: bool) -> Vec<&str> {
        let item = &self.items[item];
        if item.identity.is_none() {
            Vec::new()
        } else if by_identity {
            let labels = item.labels.iter();
            labels
                .map(|&label| self.labels[label as usize].as_str())
                .collect()
        } else {
            vec![&item.id]
        }
    }

    /// Keeps the items whose flag is set; identities, labels and cameras keep their indices.
    ///
    /// `keep` has one flag an item.
    pub fn retain(&mut self, keep: &[bool]) {
        if let Some(qrels) = &mut self.qrels {
            qrels.retain(keep);
        }
        let mut flags = keep.iter();
        self.items
            .retain(|_| *flags.next().expect("one flag an item"));
    }

    /// Puts clusters of old embeddings in the place of the labels; `None` leaves an item out, as junk.
    ///
    /// `of_item` has one entry an item, an index into the clusters' `names`, or their number: of no cluster. Of `searching`,
    /// rising, the queries are listed that stay queries; `None`: all of them.
    pub fn relabel(
        &mut self,
        of_item: &[Option<u32>],
        mut names: Vec<String>,
        searching: Option<&[usize]>,
    ) {
        assert_eq!(of_item.len(), self.items.len(), "one entry an item");
        let outside = names.len() as u32;
        self.outside = of_item.contains(&Some(outside)).then_some(outside);
        if self.outside.is_some() {
            names.push("outside all clusters".to_owned());
        }
        for (item, &cluster) in self.items.iter_mut().zip(of_item) {
            item.labels = cluster.into_iter().collect();
            item.identity = cluster.into();
        }
        if let Some(searching) = searching {
            for (index, item) in self.items.iter_mut().enumerate() {
                if searching.binary_search(&index).is_ok() {
                    continue;
                }
                match item.role {
                    Role::Both => item.role = Role::Gallery,
                    // A query that does not search is nothing else.
                    Role::Query => {
                        (item.labels, item.identity) = (Labels::default(), OptionalIndex::NONE)
                    }
                    Role::Gallery => {}
                }
            }
        }
        self.labels.clone_from(&names);
        self.identities = names;
        self.reference = Reference::OldModel;
    }

    /// The name of an item's identity, or `-1` for junk.
    pub fn identity_name(&self, item: usize) -> &str {
        self.items[item]
            .identity
            .get()
            .map_or("-1", |identity| &self.identities[identity as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::testing::probe_of;

    #[test]
    fn positions_are_listed_for_the_labels_of_queries_alone() {
        let mut probe = probe_of(&[0, 1, 0, 2, 1, 0]);
        probe.items[4].labels = vec![0, 1].into();
        let gallery = [0, 2, 3, 4, 5];
        let found = probe.positions_of_labels(&[1, 2], &gallery);
        let expected = [(0, vec![0, 1, 3, 4]), (1, vec![3])];
        assert_eq!(found, BTreeMap::from(expected));
    }
}
