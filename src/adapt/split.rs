//! Who the head is fitted on, who chooses it, and who tests it: never the same identity twice.

use std::collections::BTreeMap;

use crate::domain::{Adaptation, IDENTITIES, Known, Probe};

/// One part in so many of the units is held out for the test; as many choose among heads.
pub const PARTS: usize = 5;

/// Where a unit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The head is fitted on it.
    Fit,
    /// It stops the training and chooses among heads.
    Validation,
    /// The audit of the result.
    Test,
}

/// A split of the probe's identities or, where it has none, of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The part of each item; `None` for junk.
    pub of_item: Vec<Option<Part>>,
    /// Units in the parts: fit, validation, test.
    pub units: [usize; 3],
    /// What a unit is called: `identities` or `items`.
    pub unit: &'static str,
    /// Units whose [`Adaptation::key`] is below are test.
    pub test_below: u64,
}

impl Split {
    /// Sorts the units by their key: the first fifth is test, the second validation, the rest is fitted on.
    ///
    /// The parts hang on the seed and on the names; with a unit more or less, the others stay on their side but for the few
    /// at the borders.
    pub fn new(probe: &Probe, seed: u64) -> Self {
        let by_identity = probe.splits_by_identity();
        let n_items = probe.items.len();
        // An identity is several labels where items have several: the lowest key is all of theirs.
        let unit_of = |item: usize| match probe.items[item].identity.get() {
            Some(identity) if by_identity => Some(identity as usize),
            identity => identity.map(|_| item),
        };
        let mut key_of_unit = vec![u64::MAX; n_items.max(probe.identities.len())];
        for item in 0..n_items {
            for name in probe.split_names(item, by_identity) {
                if let Some(unit) = unit_of(item) {
                    key_of_unit[unit] = key_of_unit[unit].min(Adaptation::key(seed, name));
                }
            }
        }
        let mut units: Vec<usize> = (0..n_items).filter_map(unit_of).collect();
        units.sort_unstable();
        units.dedup();
        let mut keys: Vec<u64> = units.iter().map(|&unit| key_of_unit[unit]).collect();
        keys.sort_unstable();
        let n = keys.len();
        let n_test = n / PARTS;
        let bound = |n: usize| keys.get(n).copied().unwrap_or(u64::MAX);
        let [test_below, validation_below] = [bound(n_test), bound(2 * n_test)];
        let part = |unit: usize| match key_of_unit[unit] {
            key if key < test_below => Part::Test,
            key if key < validation_below => Part::Validation,
            _ => Part::Fit,
        };
        Self {
            of_item: (0..n_items).map(|item| unit_of(item).map(part)).collect(),
            units: [n - 2 * n_test, n_test, n_test],
            unit: if by_identity { IDENTITIES } else { "items" },
            test_below,
        }
    }

    /// What a later audit has to know of it; `digests` are those of the inputs, one entry an item, or none at all.
    pub fn known(&self, probe: &Probe, seed: u64, digests: &[Option<[u8; 32]>]) -> Known {
        let by_identity = self.unit == IDENTITIES;
        let names = |item: usize| probe.split_names(item, by_identity).into_iter();
        let keys = || {
            (0..probe.items.len())
                .flat_map(names)
                .map(|name| Adaptation::key(seed, name))
        };
        let is_held_out = |key: &u64| *key < self.test_below;
        let is_used = |part: &Option<Part>| part.is_some_and(|part| part != Part::Test);
        let inputs = digests.iter().zip(&self.of_item);
        let inputs = inputs.filter(|(_, part)| is_used(part));
        Known::new(
            keys().filter(is_held_out),
            keys().filter(|key| !is_held_out(key)),
            inputs.filter_map(|(digest, _)| *digest),
        )
    }

    /// Takes out of fit and validation what has the very input of an item of a later part: a file under two names is one
    /// item. `digests` has one entry an item, or none at all.
    pub fn separate(&mut self, digests: &[Option<[u8; 32]>]) {
        let mut latest = BTreeMap::new();
        let of_item = &self.of_item;
        let known = || digests.iter().zip(of_item).enumerate();
        for (_, (digest, part)) in known() {
            if let (Some(digest), Some(part)) = (digest, part) {
                let found = latest.entry(*digest).or_insert(*part);
                *found = (*found).max(*part);
            }
        }
        let is_twin = |digest: &Option<[u8; 32]>, part: &Option<Part>| {
            let latest = digest.and_then(|digest| latest.get(&digest).copied());
            latest
                .zip(*part)
                .is_some_and(|(latest, part)| part < latest)
        };
        let twins: Vec<usize> = known()
            .filter(|(_, (digest, part))| is_twin(digest, part))
            .map(|(item, _)| item)
            .collect();
        twins.iter().for_each(|&item| self.of_item[item] = None);
    }

    /// One flag an item: whether it is in one of the parts.
    pub fn is_in(&self, parts: &[Part]) -> Vec<bool> {
        let is_in = |part: &Option<Part>| part.is_some_and(|part| parts.contains(&part));
        self.of_item.iter().map(is_in).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::{Item, Modality, Reference, Role, Seen};

    /// Three items each of so many identities, one of them junk.
    pub fn probe(identities: usize) -> Probe {
        let item = |i: usize| {
            let identity = (i != 5).then_some((i % identities) as u32);
            Item::new(format!("item {i}"), identity, Role::Both)
        };
        let names = (0..identities).map(|i| format!("who {i}"));
        let items = (0..3 * identities).map(item).collect();
        Probe::new(items, names.collect(), Modality::Stored)
    }

    #[test]
    fn identities_stay_whole_and_a_fifth_is_held_out() {
        let probe = probe(50);
        let split = Split::new(&probe, 0);
        assert_eq!((split.units, split.unit), ([30, 10, 10], IDENTITIES));
        let mut sides = BTreeMap::new();
        for (item, part) in probe.items.iter().zip(&split.of_item) {
            let Some(identity) = item.identity.get() else {
                assert_eq!(*part, None, "junk is in no part");
                continue;
            };
            let part = part.expect("in a part");
            assert_eq!(*sides.entry(identity).or_insert(part), part);
        }
        let tests = sides.values().filter(|part| **part == Part::Test);
        assert_eq!(tests.count(), 10);
        assert_ne!(split, Split::new(&probe, 1));
    }

    #[test]
    fn what_the_model_says_of_itself_gives_the_same_split_again() {
        let probe = probe(40);
        let split = Split::new(&probe, 9);
        let said = Adaptation {
            head: String::new(),
            new_model: String::new(),
            old_model: String::new(),
            units: split.unit.into(),
            seed: 9,
            test_below: Adaptation::bound_text(split.test_below),
            known: split.known(&probe, 9, &[]),
            fitted: 0,
            held_out: 0,
            own_search: None,
        };
        for (item, part) in split.of_item.iter().enumerate() {
            let names = probe.split_names(item, true);
            if let Some(part) = part {
                let is_held_out = said.seen(&names, None) == Seen::HeldOut;
                assert_eq!(is_held_out, *part == Part::Test);
            }
        }
    }

    #[test]
    fn without_labels_items_are_split() {
        let mut probe = probe(50);
        probe.reference = Reference::OldModel;
        let split = Split::new(&probe, 0);
        // All items but the junk one.
        assert_eq!((split.units, split.unit), ([91, 29, 29], "items"));
    }

    #[test]
    fn labels_that_items_tie_together_go_together() {
        let mut probe = probe(50);
        // Labels 0 and 1 are one identity, named after the first: some items bear both.
        for item in &mut probe.items {
            if item.identity.get() == Some(1) {
                item.identity = 0.into();
            }
        }
        probe.items[0].labels = vec![0, 1].into();
        let split = Split::new(&probe, 2);
        let of_both: Vec<_> = (0..150)
            .filter(|i| i % 50 < 2 && *i != 5)
            .map(|i| split.of_item[i])
            .collect();
        assert!(of_both.iter().all(|part| *part == of_both[0]));
        let lowest = [0, 1]
            .map(|i| Adaptation::key(2, &format!("who {i}")))
            .into_iter()
            .min()
            .expect("two");
        assert_eq!(of_both[0] == Some(Part::Test), lowest < split.test_below);
    }

    #[test]
    fn one_file_under_two_names_is_in_the_later_part_only() {
        let probe = probe(50);
        let mut split = Split::new(&probe, 0);
        let of = |wanted: Part| {
            split
                .of_item
                .iter()
                .position(|part| *part == Some(wanted))
                .expect("there")
        };
        let [fit, validation, test] = [Part::Fit, Part::Validation, Part::Test].map(of);
        let mut digests: Vec<_> = (0..150_u8).map(|i| Some([i; 32])).collect();
        digests[fit] = digests[test];
        digests[validation] = None;
        let before = split.of_item.clone();
        split.separate(&digests);
        let changed: Vec<usize> = (0..150)
            .filter(|&i| split.of_item[i] != before[i])
            .collect();
        assert_eq!((changed, split.of_item[fit]), (vec![fit], None));
        split.separate(&[]);
    }
}
