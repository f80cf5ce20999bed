//! Text to token ids, by the model's own tokenizer.json.

use std::path::{Path, PathBuf};

use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use super::EmbedError;

/// Longest sequence when neither the configuration nor tokenizer.json names one.
const DEFAULT_MAX_LENGTH: usize = 512;

/// A tokenizer with truncation and without padding; batches are padded where they are built.
pub struct Tokens {
    path: PathBuf,
    tokenizer: Tokenizer,
    /// Id of the padding token.
    pub pad_id: i64,
    /// Longest sequence, special tokens included.
    pub max_length: usize,
    /// BLAKE3 of tokenizer.json, hex.
    pub hash: String,
}

impl Tokens {
    /// Reads tokenizer.json; `max_length` wins over its own truncation.
    ///
    /// # Errors
    /// Unreadable, or not a tokenizer.
    pub fn read(path: &Path, max_length: Option<usize>) -> Result<Self, EmbedError> {
        let bytes = std::fs::read(path).map_err(|source| EmbedError::Read {
            path: path.into(),
            source,
        })?;
        let wrong = |cause: String| EmbedError::Tokenizer {
            path: path.into(),
            cause,
        };
        let mut tokenizer =
            Tokenizer::from_bytes(&bytes).map_err(|error| wrong(error.to_string()))?;
        let own = tokenizer.get_truncation().cloned();
        let max_length = max_length
            .or(own.as_ref().map(|truncation| truncation.max_length))
            .unwrap_or(DEFAULT_MAX_LENGTH);
        let special = tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(false));
        if max_length <= special {
            return Err(EmbedError::MaxLength {
                path: path.into(),
                max_length,
                special,
            });
        }
        let truncation = TruncationParams {
            max_length,
            ..own.unwrap_or_default()
        };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|error| wrong(error.to_string()))?;
        let pad_id = tokenizer
            .get_padding()
            .map_or(0, |padding| i64::from(padding.pad_id));
        tokenizer.with_padding(None);
        Ok(Self {
            path: path.into(),
            tokenizer,
            pad_id,
            max_length,
            hash: blake3::hash(&bytes).to_hex().to_string(),
        })
    }

    /// Token ids of a text, special tokens included, at most `max_length`.
    ///
    /// # Errors
    /// The tokenizer's own.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, EmbedError> {
        let encoding =
            self.tokenizer
                .encode(text, true)
                .map_err(|error| EmbedError::Tokenizer {
                    path: self.path.clone(),
                    cause: error.to_string(),
                })?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
    }

    #[derive(Deserialize)]
    struct Golden {
        max_length: usize,
        pad_id: i64,
        texts: Vec<String>,
        ids: Vec<Vec<i64>>,
        ids_of_at_most_12: Vec<Vec<i64>>,
    }

    /// Python's `tokenizers` 0.23.3, see fixtures/generate/tiny_text.py.
    #[test]
    fn ids_are_those_of_pythons_tokenizers() {
        let golden = std::fs::read_to_string(fixtures().join("golden/tiny_text.json"));
        let golden: Golden =
            serde_json::from_str(&golden.expect("the golden file")).expect("its shape");
        let file = fixtures().join("data/tiny_text/tokenizer.json");
        for (max_length, expected) in [
            (None, &golden.ids),
            (Some(golden.max_length), &golden.ids),
            (Some(12), &golden.ids_of_at_most_12),
        ] {
            let tokens = Tokens::read(&file, max_length).expect("a tokenizer");
            assert_eq!(tokens.pad_id, golden.pad_id);
            for (text, expected) in golden.texts.iter().zip(expected) {
                assert_eq!(tokens.encode(text).expect("ids"), *expected, "{text}");
            }
        }
        let longest = golden.ids.iter().map(Vec::len).max();
        assert_eq!(longest, Some(golden.max_length), "one text is truncated");
    }

    #[test]
    fn truncation_leaves_room_for_the_text() {
        let file = fixtures().join("data/tiny_text/tokenizer.json");
        let error = Tokens::read(&file, Some(2)).err().expect("refused");
        assert!(error.to_string().contains("max_length = 2"), "{error}");
        assert_eq!(Tokens::read(&file, Some(3)).expect("room").max_length, 3);
    }

    #[test]
    fn what_is_no_tokenizer_is_refused_with_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, r#"{"model": "none"}"#).expect("written");
        let error = Tokens::read(&file, None).err().expect("refused");
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
        assert!(error.hint().expect("a hint").contains("tokenizer.json"));
    }
}
