//! What an adapted model says of itself: which identities its head has seen.

use serde::{Deserialize, Serialize};

/// [`Adaptation::units`] where identities were split.
pub const IDENTITIES: &str = "identities";

/// How the head of an adapted model was made, and who was held out. It stands in the model's file, so that every later
/// audit tests the model on what its head has not seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Adaptation {
    /// What the head is, in words.
    pub head: String,
    /// BLAKE3 of the new model that the head was appended to, hex.
    pub new_model: String,
    /// BLAKE3 of the old model or, where there is none, of its stored embeddings, hex.
    pub old_model: String,
    /// Whether the units of the split are `identities` or, without labels, `items`.
    pub units: String,
    /// Seed of the split.
    pub seed: u64,
    /// Units whose key is below are test: 16 hex digits.
    pub test_below: String,
    /// The first halves of the keys of all names that were held out, rising. A name that was not there when the head was fitted
    /// may be another one of something that was, so only these count. No report has them.
    #[serde(skip)]
    pub held_out_keys: Vec<u32>,
    /// Units that the head was fitted on, and by which it was chosen.
    pub fitted: usize,
    /// Units that were held out.
    pub held_out: usize,
    /// What the head did to the new model's own search, on the held-out queries when it was made; `None` where there were
    /// none.
    pub own_search: Option<OwnSearch>,
}

/// new->new without and with a head: means of one measure over the same queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OwnSearch {
    /// The measure's name.
    pub measure: String,
    /// Queries.
    pub queries: usize,
    /// Without the head.
    pub before: f64,
    /// With the head.
    pub after: f64,
}

impl Adaptation {
    /// The place of a name in the split: the first eight bytes of the BLAKE3 of seed and name. It hangs on nothing else, so
    /// a name is on the same side in every probe that holds it. Of several labels that items tie together the lowest counts.
    pub fn key(seed: u64, name: &str) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(name.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_be_bytes(first)
    }

    /// The bound as it is written.
    pub fn bound_text(below: u64) -> String {
        format!("{below:016x}")
    }

    /// What of a key is kept.
    pub fn first_half(key: u64) -> u32 {
        (key >> 32) as u32
    }

    /// Whether an item of these names was held out; `false` for all where the bound cannot be read. Of what was fitted on
    /// no name lies below the bound, however items are tied together elsewhere.
    pub fn holds_out(&self, names: &[&str]) -> bool {
        let below = u64::from_str_radix(&self.test_below, 16).unwrap_or(0);
        names.iter().any(|name| {
            let key = Self::key(self.seed, name);
            let known = &self.held_out_keys;
            key < below && known.binary_search(&Self::first_half(key)).is_ok()
        })
    }

    /// As it stands in a model's file.
    pub fn to_metadata(&self) -> String {
        let keys = self.held_out_keys.iter();
        let written = Written {
            of: self.clone(),
            held_out_keys: keys.map(|key| format!("{key:08x}")).collect(),
        };
        serde_json::to_string(&written).expect("texts and numbers are JSON")
    }

    /// The same, read.
    ///
    /// # Errors
    /// What is no such text.
    pub fn from_metadata(text: &str) -> serde_json::Result<Self> {
        let Written { of, held_out_keys } = serde_json::from_str(text)?;
        let digits = held_out_keys.as_bytes().chunks(8);
        let key = |digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        Ok(Self {
            held_out_keys: digits.filter_map(key).collect(),
            ..of
        })
    }
}

/// [`Adaptation`] in a model's file.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    of: Adaptation,
    /// Eight hex digits each.
    #[serde(default)]
    held_out_keys: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_on_the_side_of_its_name_whatever_else_there_is() {
        let bound = Adaptation::key(3, "b");
        let others: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        // All but the last are known.
        let known = others[..199].iter().map(|name| Adaptation::key(3, name));
        let mut held_out_keys: Vec<u32> = known
            .filter(|key| *key < bound)
            .map(Adaptation::first_half)
            .collect();
        held_out_keys.sort_unstable();
        let adaptation = Adaptation {
            head: "orthogonal".into(),
            new_model: String::new(),
            old_model: String::new(),
            units: "identities".into(),
            seed: 3,
            test_below: Adaptation::bound_text(bound),
            held_out_keys,
            fitted: 0,
            held_out: 0,
            own_search: None,
        };
        assert!(!adaptation.holds_out(&["b"]), "the bound itself is outside");
        let read = Adaptation::from_metadata(&adaptation.to_metadata()).expect("as written");
        assert_eq!(read, adaptation);
        assert!(Adaptation::from_metadata("{}").is_err());
        for name in &others[..199] {
            assert_eq!(read.holds_out(&[name]), Adaptation::key(3, name) < bound);
        }
        let unknown = (200..1_000).map(|i: u32| i.to_string());
        let mut below = unknown.filter(|name| Adaptation::key(3, name) < bound);
        assert!(
            !read.holds_out(&[&below.next().expect("one of 800")]),
            "never seen"
        );
        assert_ne!(Adaptation::key(3, "b"), Adaptation::key(4, "b"));
        let torn = Adaptation {
            test_below: "?".into(),
            ..adaptation
        };
        assert!(!torn.holds_out(&["a"]));
    }
}
