//! Text to token ids, by the model's own tokenizer.json.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use super::EmbedError;

/// Longest sequence when neither the configuration nor tokenizer.json names one.
pub const DEFAULT_MAX_LENGTH: usize = 512;

/// Names of the padding token, for a tokenizer.json that configures no padding: BERT's, RoBERTa's and T5's.
const PAD_TOKENS: [&str; 2] = ["[PAD]", "<pad>"];

/// A tokenizer with truncation and without padding; batches are padded where they are built.
pub struct Tokens {
    path: PathBuf,
    tokenizer: Tokenizer,
    /// Id of the padding token: the configured one, else by its usual names, else 0. The attention mask hides it.
    pub pad_id: i64,
    /// tokenizer.json's own truncation.
    pub own_max_length: Option<usize>,
    /// Longest sequence, special tokens included.
    pub max_length: usize,
    /// Whether texts are put into lower case before the tokenizer sees them.
    lower_case: bool,
    /// BLAKE3 of tokenizer.json, hex, and what is done to texts before.
    pub hash: String,
}

impl Tokens {
    /// Reads tokenizer.json, which truncates as it says itself, else to [`DEFAULT_MAX_LENGTH`].
    ///
    /// # Errors
    /// Unreadable, or not a tokenizer.
    pub fn read(path: &Path) -> Result<Self, EmbedError> {
        let bytes = std::fs::read(path).map_err(|source| EmbedError::Read {
            path: path.into(),
            source,
        })?;
        let mut tokenizer =
            Tokenizer::from_bytes(&bytes).map_err(|error| EmbedError::Tokenizer {
                path: path.into(),
                cause: error.to_string(),
            })?;
        let own_max_length = tokenizer.get_truncation().map(|own| own.max_length);
        let configured = tokenizer.get_padding().map(|padding| padding.pad_id);
        let by_name = || {
            PAD_TOKENS
                .iter()
                .find_map(|name| tokenizer.token_to_id(name))
        };
        let pad_id = configured.or_else(by_name).map_or(0, i64::from);
        tokenizer.with_padding(None);
        let mut tokens = Self {
            path: path.into(),
            tokenizer,
            pad_id,
            own_max_length,
            max_length: 0,
            lower_case: false,
            hash: blake3::hash(&bytes).to_hex().to_string(),
        };
        tokens.truncate(own_max_length.unwrap_or(DEFAULT_MAX_LENGTH))?;
        Ok(tokens)
    }

    /// Sets the longest sequence; side and strategy stay tokenizer.json's own.
    ///
    /// # Errors
    /// A length that the special tokens alone fill.
    pub fn truncate(&mut self, max_length: usize) -> Result<(), EmbedError> {
        let special = self
            .tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(false));
        // The crate's own check subtracts without looking.
        if max_length <= special {
            return Err(EmbedError::MaxLength {
                path: self.path.clone(),
                max_length,
                special,
            });
        }
        let truncation = TruncationParams {
            max_length,
            ..self.tokenizer.get_truncation().cloned().unwrap_or_default()
        };
        self.tokenizer
            .with_truncation(Some(truncation))
            .map_err(|error| EmbedError::Tokenizer {
                path: self.path.clone(),
                cause: error.to_string(),
            })?;
        self.max_length = max_length;
        Ok(())
    }

    /// Has texts put into lower case first, as `do_lower_case` of sentence-transformers does.
    pub fn lower_case(&mut self) {
        self.lower_case = true;
        self.hash.push_str(" of lower case");
    }

    /// Token ids of a text, special tokens included, at most `max_length`.
    ///
    /// # Errors
    /// The tokenizer's own.
    pub fn encode(&self, text: &str) -> Result<Arc<[u32]>, EmbedError> {
        let text = if self.lower_case {
            Cow::Owned(text.to_lowercase())
        } else {
            Cow::Borrowed(text)
        };
        // The offsets into the text, which the fast way leaves out, are nobody's business here.
        let encoding = self
            .tokenizer
            .encode_fast(text.as_ref(), true)
            .map_err(|error| EmbedError::Tokenizer {
                path: self.path.clone(),
                cause: error.to_string(),
            })?;
        Ok(encoding.get_ids().into())
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
        ids: Vec<Vec<u32>>,
        ids_of_at_most_12: Vec<Vec<u32>>,
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
            let mut tokens = Tokens::read(&file).expect("a tokenizer");
            max_length
                .map_or(Ok(()), |n| tokens.truncate(n))
                .expect("room");
            assert_eq!(tokens.pad_id, golden.pad_id);
            for (text, expected) in golden.texts.iter().zip(expected) {
                let ids = tokens.encode(text).expect("ids");
                assert_eq!(ids[..], expected[..], "{text}");
            }
        }
        let longest = golden.ids.iter().map(Vec::len).max();
        assert_eq!(longest, Some(golden.max_length), "one text is truncated");
    }

    #[test]
    fn truncation_leaves_room_for_the_text() {
        let file = fixtures().join("data/tiny_text/tokenizer.json");
        let mut tokens = Tokens::read(&file).expect("a tokenizer");
        let error = tokens.truncate(2).expect_err("refused");
        assert!(error.to_string().contains("max_length = 2"), "{error}");
        tokens.truncate(3).expect("room");
        assert_eq!(tokens.max_length, 3);
    }

    #[test]
    fn what_is_no_tokenizer_is_refused_with_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, r#"{"model": "none"}"#).expect("written");
        let error = Tokens::read(&file).err().expect("refused");
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
        assert!(error.hint().expect("a hint").contains("tokenizer.json"));
    }
}
