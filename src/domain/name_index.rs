//! Names that are kept elsewhere, found by their text.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Finds names by their text without holding it: five to ten bytes a name, where a map of strings takes eighty.
///
/// Names are numbered by whoever keeps them; every call says how to look one up. Only looked up, never walked, so the
/// table's order cannot reach a result.
#[derive(Debug, Default)]
pub struct NameIndex {
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl NameIndex {
    /// Room for `n` names.
    pub fn with_capacity(n: usize) -> Self {
        Self {
            numbers: HashTable::with_capacity(n),
            hasher: RandomState::new(),
        }
    }

    /// The number of a name.
    pub fn find<'a>(&self, name: &str, name_of: impl Fn(u32) -> &'a str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.numbers
            .find(hash, |&number| name_of(number) == name)
            .copied()
    }

    /// Adds a name under a number, unless it has one already: then that is returned, and nothing changes.
    pub fn insert<'a>(
        &mut self,
        name: &str,
        number: u32,
        name_of: impl Fn(u32) -> &'a str,
    ) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        if let Some(&first) = self.numbers.find(hash, |&other| name_of(other) == name) {
            return Some(first);
        }
        let hasher = &self.hasher;
        let rehash = |&other: &u32| hasher.hash_one(name_of(other));
        self.numbers.insert_unique(hash, number, rehash);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_first_number() {
        let names: Vec<String> = (0..1000).map(|i| format!("n{}", i % 700)).collect();
        let name_of = |i: u32| names[i as usize].as_str();
        let mut index = NameIndex::default();
        for (i, name) in names.iter().enumerate() {
            let first = index.insert(name, i as u32, name_of);
            assert_eq!(first, (i >= 700).then_some((i % 700) as u32));
        }
        assert_eq!(index.find("n699", name_of), Some(699));
        assert_eq!(index.find("n700", name_of), None);
    }
}
