//! Text to token ids, by the model's own tokenizer.json.

use std::path::{Path, PathBuf};

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
    /// BLAKE3 of tokenizer.json, hex.
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
        let wrong = |cause: String| EmbedError::Tokenizer {
            path: self.path.clone(),
            cause,
        };
        let special = self
            .tokenizer
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(false));
        // The crate's own check subtracts without looking.
        if max_length <= special {
            return Err(wrong(format!(
                "max_length is {max_length}, but every text has {special} special tokens"
            )));
        }
        let truncation = TruncationParams {
            max_length,
            ..self.tokenizer.get_truncation().cloned().unwrap_or_default()
        };
        self.tokenizer
            .with_truncation(Some(truncation))
            .map_err(|error| wrong(error.to_string()))?;
        self.max_length = max_length;
        Ok(())
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
