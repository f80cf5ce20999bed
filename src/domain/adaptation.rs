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

    /// Whether an item of these names was held out; `false` for all where the bound cannot be read. Of what was fitted on
    /// no name lies below the bound, however items are tied together elsewhere.
    pub fn holds_out(&self, names: &[&str]) -> bool {
        let below = u64::from_str_radix(&self.test_below, 16).unwrap_or(0);
        names.iter().any(|name| Self::key(self.seed, name) < below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_on_the_side_of_its_name_whatever_else_there_is() {
        let bound = Adaptation::key(3, "b");
        let adaptation = Adaptation {
            head: "orthogonal".into(),
            new_model: String::new(),
            old_model: String::new(),
            units: "identities".into(),
            seed: 3,
            test_below: Adaptation::bound_text(bound),
            fitted: 0,
            held_out: 0,
            own_search: None,
        };
        assert!(!adaptation.holds_out(&["b"]), "the bound itself is outside");
        let others: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        for name in &others {
            assert_eq!(
                adaptation.holds_out(&[name]),
                Adaptation::key(3, name) < bound
            );
        }
        assert_ne!(Adaptation::key(3, "b"), Adaptation::key(4, "b"));
        let torn = Adaptation {
            test_below: "?".into(),
            ..adaptation
        };
        assert!(!torn.holds_out(&["a"]));
    }
}
