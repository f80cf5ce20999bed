//! The flags that an audit and an adaptation share.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::judging::JudgingArgs;
use super::{PrivacyArg, RuntimeArgs, config_path_beside};
use crate::config::{AuditConfig, BatchSize, ByteSize, ConfigError, ConfigFile, Overrides};
use crate::domain::is_named;

/// What is read, what decides, what is shown and how models are run.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Configuration (default: audit.toml beside the data, if there is one)
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub config: Option<PathBuf>,
    /// Model inputs by name, rows in the manifest's order (.npz, .npy)
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub tensors: Option<PathBuf>,
    /// Relevance judgements, TREC or BEIR (default: the only qrels.* beside the manifest)
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub qrels: Option<PathBuf>,
    /// Stored embeddings of the old gallery, beside the old model
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub old_embeddings: Option<PathBuf>,
    /// Hold up to this much of stored embeddings in memory, such as 512MiB (default: 1GiB); read more from their files
    #[arg(long, value_name = "SIZE", help_heading = "Input")]
    pub memory: Option<ByteSize>,
    /// Assess the credibility of N gallery items and the consensus of N queries only, drawn by the seed (default: all)
    #[arg(long, value_name = "N", help_heading = "Input")]
    pub sample: Option<NonZeroUsize>,
    /// Tolerate and list up to N unreadable items
    #[arg(long, value_name = "N", help_heading = "Input")]
    pub max_bad_items: Option<usize>,
    /// Refuse to assume image preprocessing
    #[arg(long, help_heading = "Input")]
    pub strict: bool,

    /// What decides, and what a backfill costs
    #[command(flatten)]
    pub judging: JudgingArgs,

    /// statistics: leave items, pictures, texts and names of identities out of the report
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value = "full",
        help_heading = "Output"
    )]
    pub privacy: PrivacyArg,
    /// Print the verdict alone, whatever the format
    #[arg(long, short, help_heading = "Output", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print the runtime's own messages too
    #[arg(long, short, help_heading = "Output")]
    pub verbose: bool,

    /// Where and how to run the models
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    /// Embed again instead of reading the cache
    #[arg(long, help_heading = "Running")]
    pub no_cache: bool,
    /// Items a batch, for both models; auto measures what is fastest here (default: 32)
    #[arg(long, value_name = "N|auto", help_heading = "Running")]
    pub batch: Option<BatchSize>,
}

impl SettingsArgs {
    /// The checked configuration of `[old, new, data]`: these flags over `--config`, else over the audit.toml beside the data.
    ///
    /// # Errors
    /// As [`ConfigFile::read`] and [`AuditConfig::resolve`].
    pub fn resolve(&self, paths: [PathBuf; 3]) -> Result<AuditConfig, ConfigError> {
        let beside = config_path_beside(&paths[2]);
        let file = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None if is_named(&beside) => ConfigFile::read(&beside)?,
            None => ConfigFile::default(),
        };
        AuditConfig::resolve(paths, file, self.overrides())
    }

    /// What the flags say.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            max_bad_items: self.max_bad_items,
            tensors: self.tensors.clone(),
            qrels: self.qrels.clone(),
            old_embeddings: self.old_embeddings.clone(),
            memory: self.memory,
            sample: self.sample,
            strict: self.strict,
            batch: self.batch,
            ..self.judging.overrides()
        }
    }
}
