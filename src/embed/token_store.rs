//! Tokens kept between finding the texts' lengths and running them, and between two models with one tokenizer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cache::Digest;

/// Tokens kept at most, 4 bytes each; texts beyond are tokenised again when their batch is made.
const MOST: usize = 16 << 20;

/// What an entry costs beside its tokens, in tokens.
const OVERHEAD: usize = 24;

/// Token ids by the BLAKE3 of the text with its prefix, for one tokenizer.
pub struct TokenStore {
    /// Tokenizer and longest sequence.
    key: String,
    kept: BTreeMap<Digest, Arc<[u32]>>,
    room: usize,
}

impl Default for TokenStore {
    fn default() -> Self {
        Self {
            key: String::new(),
            kept: BTreeMap::new(),
            room: MOST,
        }
    }
}

impl TokenStore {
    /// Forgets everything unless it is by this tokenizer.
    pub fn keep_for(&mut self, key: String) {
        if self.key != key {
            *self = Self {
                key,
                ..Self::default()
            };
        }
    }

    /// The tokens of a text.
    pub fn get(&self, content: &Digest) -> Option<Arc<[u32]>> {
        self.kept.get(content).cloned()
    }

    /// Keeps tokens while there is room.
    pub fn keep(&mut self, content: Digest, tokens: Arc<[u32]>) {
        let cost = tokens.len() + OVERHEAD;
        if cost <= self.room && !self.kept.contains_key(&content) {
            self.room -= cost;
            self.kept.insert(content, tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_tokenizer_forgets_and_a_full_store_keeps_no_more() {
        let mut store = TokenStore::default();
        store.keep_for("a".into());
        store.keep([1; 32], [7, 8].into());
        store.keep_for("a".into());
        assert_eq!(store.get(&[1; 32]).as_deref(), Some(&[7, 8][..]));
        store.room = OVERHEAD + 1;
        store.keep([2; 32], [7, 8].into());
        assert_eq!(store.get(&[2; 32]), None);
        store.keep_for("b".into());
        assert_eq!(store.get(&[1; 32]), None);
        assert_eq!(store.room, MOST);
    }
}
