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
    /// What there was when the head was fitted. No report has it.
    #[serde(skip)]
    pub known: Known,
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

/// What there was when a head was fitted, by the first four bytes of hashes; each list rises.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// Keys of the names that were held out.
    pub held_out: Vec<u32>,
    /// Keys of all other names.
    pub fitted: Vec<u32>,
    /// Inputs of what was not held out: under another name they are still what the head has seen.
    pub inputs: Vec<u32>,
}

/// What an adapted model's head knows of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The head was fitted on it or chosen by it, or that cannot be ruled out.
    Fitted,
    /// It was held out.
    HeldOut,
    /// Neither its names nor its input were there.
    Never,
}

impl Known {
    /// Of any hash, the lists sorted.
    pub fn new(
        held_out: impl Iterator<Item = u64>,
        fitted: impl Iterator<Item = u64>,
        inputs: impl Iterator<Item = [u8; 32]>,
    ) -> Self {
        let sorted = |mut list: Vec<u32>| {
            list.sort_unstable();
            list.dedup();
            list
        };
        Self {
            held_out: sorted(held_out.map(first_half).collect()),
            fitted: sorted(fitted.map(first_half).collect()),
            inputs: sorted(inputs.map(|digest| first_of(&digest)).collect()),
        }
    }

    /// Whether nothing is known: the model was made before models said it.
    pub fn is_empty(&self) -> bool {
        self.held_out.is_empty() && self.fitted.is_empty()
    }
}

fn first_half(key: u64) -> u32 {
    (key >> 32) as u32
}

fn first_of(digest: &[u8; 32]) -> u32 {
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
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

    /// What the head knows of an item of these names and this input. Nothing can be told of a name that is new without an
    /// input, nor where the bound cannot be read. Of what was fitted on no name lies below the bound, however items are tied
    /// together elsewhere.
    pub fn seen(&self, names: &[&str], input: Option<&[u8; 32]>) -> Seen {
        let Ok(below) = u64::from_str_radix(&self.test_below, 16) else {
            return Seen::Fitted;
        };
        let is_in = |list: &[u32], key: u64| list.binary_search(&first_half(key)).is_ok();
        let keys: Vec<u64> = names
            .iter()
            .map(|name| Self::key(self.seed, name))
            .collect();
        let Known {
            held_out,
            fitted,
            inputs,
        } = &self.known;
        if keys.iter().any(|&key| key < below && is_in(held_out, key)) {
            return Seen::HeldOut;
        }
        let is_known = keys.iter().any(|&key| is_in(fitted, key));
        match input {
            Some(input) if !is_known && inputs.binary_search(&first_of(input)).is_err() => {
                Seen::Never
            }
            _ => Seen::Fitted,
        }
    }

    /// As it stands in a model's file.
    pub fn to_metadata(&self) -> String {
        let hex = |list: &[u32]| list.iter().map(|first| format!("{first:08x}")).collect();
        let written = Written {
            of: self.clone(),
            held_out_names: hex(&self.known.held_out),
            fitted_names: hex(&self.known.fitted),
            fitted_inputs: hex(&self.known.inputs),
        };
        serde_json::to_string(&written).expect("texts and numbers are JSON")
    }

    /// The same, read.
    ///
    /// # Errors
    /// What is no such text, torn lists too: what is missing in one would pass as never seen.
    pub fn from_metadata(text: &str) -> serde_json::Result<Self> {
        let written: Written = serde_json::from_str(text)?;
        let list = |hex: &str| {
            let digits = hex.as_bytes().chunks(8);
            let first = |digits: &[u8]| {
                let text = std::str::from_utf8(digits).ok()?;
                let first = u32::from_str_radix(text, 16).ok()?;
                (digits.len() == 8).then_some(first)
            };
            let list: Option<Vec<u32>> = digits.map(first).collect();
            list.ok_or_else(|| serde::de::Error::custom("expected eight hex digits a hash"))
        };
        Ok(Self {
            known: Known {
                held_out: list(&written.held_out_names)?,
                fitted: list(&written.fitted_names)?,
                inputs: list(&written.fitted_inputs)?,
            },
            ..written.of
        })
    }
}

/// [`Adaptation`] in a model's file.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    of: Adaptation,
    /// Eight hex digits each, as the other two.
    #[serde(default)]
    held_out_names: String,
    #[serde(default)]
    fitted_names: String,
    #[serde(default)]
    fitted_inputs: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_on_the_side_of_its_name_whatever_else_there_is() {
        let key = |name: &String| Adaptation::key(3, name);
        let bound = Adaptation::key(3, "b");
        let names: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        let (held_out, fitted): (Vec<u64>, Vec<u64>) =
            names.iter().map(key).partition(|key| *key < bound);
        let input = |number: u8| [number; 32];
        let inputs = (0..9).map(input);
        let adaptation = Adaptation {
            head: "orthogonal".into(),
            new_model: String::new(),
            old_model: String::new(),
            units: "identities".into(),
            seed: 3,
            test_below: Adaptation::bound_text(bound),
            known: Known::new(held_out.into_iter(), fitted.into_iter(), inputs),
            fitted: 0,
            held_out: 0,
            own_search: None,
        };
        let read = Adaptation::from_metadata(&adaptation.to_metadata()).expect("as written");
        assert_eq!(read, adaptation);
        assert!(Adaptation::from_metadata("{}").is_err());
        let torn = adaptation.to_metadata().replace("01010101", "0101");
        assert!(Adaptation::from_metadata(&torn).is_err(), "a hash is cut");
        for name in &names {
            let expected = if key(name) < bound {
                Seen::HeldOut
            } else {
                Seen::Fitted
            };
            for input in [None, Some(&input(1)), Some(&input(100))] {
                assert_eq!(read.seen(&[name], input), expected);
            }
        }
        // A name that was not there counts by its input alone, on whatever side of the bound it lies.
        for name in (200..300).map(|i: u32| i.to_string()) {
            assert_eq!(read.seen(&[&name], Some(&input(100))), Seen::Never);
            assert_eq!(read.seen(&[&name], Some(&input(8))), Seen::Fitted);
            assert_eq!(read.seen(&[&name], None), Seen::Fitted);
        }
        assert!(!read.known.is_empty() && Known::default().is_empty());
        assert_ne!(Adaptation::key(3, "b"), Adaptation::key(4, "b"));
        let torn = Adaptation {
            test_below: "?".into(),
            ..adaptation
        };
        assert_eq!(torn.seen(&["a"], Some(&input(100))), Seen::Fitted);
    }
}
