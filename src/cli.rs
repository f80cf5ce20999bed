//! The command line: clap types that only mirror it, then become a checked configuration.

pub mod judging;
pub mod progress;
pub mod settings;

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::runtime::{Device, RuntimeOptions, default_cache_dir};

use settings::SettingsArgs;

const EXAMPLES: &str = "\
Examples:
  compat-audit old.onnx new.onnx data/
  compat-audit gallery.parquet new.onnx data/manifest.csv --margin 0.005
  compat-audit init old.onnx new.onnx data/      write a commented audit.toml
  compat-audit old.onnx new.onnx data/ --dry-run

Exit codes: 0 skip-backfill; 1 partial-backfill, full-backfill or do-not-upgrade; 2 error; 3 inconclusive; 130 interrupted, 143 terminated.";

/// May the new embedding model search the gallery that the old one built?
#[derive(Debug, Parser)]
#[command(
    name = "compat-audit",
    about,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_version_flag = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Print the version (with --verbose also the runtime, its providers and the CPU features)
    #[arg(long, short = 'V')]
    pub version: bool,
    /// What to do beside auditing.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The audit.
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find, show or install ONNX Runtime
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// Write a commented audit.toml from what the models and the data say
    Init(InitArgs),
    /// Render a report again from its report.json
    Report(ReportArgs),
    /// It says no: make the new model compatible, and audit what came of it
    #[cfg(feature = "adapt")]
    Adapt(Box<AdaptArgs>),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `compat-audit runtime ...`
#[derive(Debug, Subcommand)]
pub enum RuntimeCommand {
    /// Install the pinned library into the cache
    Install {
        /// The GPU build for the CUDA that this machine has
        #[arg(long)]
        gpu: bool,
        /// Folder of the cache
        #[arg(long, value_name = "DIR")]
        cache_dir: Option<PathBuf>,
        /// Forbid the download: name the library that is installed already, or fail
        #[arg(long, conflicts_with = "gpu")]
        offline: bool,
    },
    /// Say which library would be used
    Show {
        /// Where and how to look
        #[command(flatten)]
        runtime: RuntimeArgs,
    },
}

/// `compat-audit init ...`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The old model
    pub old: PathBuf,
    /// The new model
    pub new: PathBuf,
    /// The probe
    pub data: PathBuf,
    /// File to write (default: audit.toml in the data's folder)
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Configuration whose values are kept
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Model inputs by name, rows in the manifest's order (.npz, .npy)
    #[arg(long, value_name = "FILE")]
    pub tensors: Option<PathBuf>,
    /// Stored embeddings of the old gallery, beside the old model
    #[arg(long, value_name = "FILE")]
    pub old_embeddings: Option<PathBuf>,
    /// Where and how to look for the runtime
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

/// `compat-audit report ...`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A report.json
    pub report: PathBuf,
    /// Folder to write (default: the report's own)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// statistics: leave out items, pictures, texts and names; needs --out
    #[arg(long, value_enum, value_name = "WHAT", default_value = "full")]
    pub privacy: PrivacyArg,
}

/// `compat-audit adapt ...`
#[cfg(feature = "adapt")]
#[derive(Debug, Args)]
#[command(after_help = ADAPT_EXAMPLES)]
pub struct AdaptArgs {
    /// Old model (.onnx) or its stored embeddings (.npy with ids beside, .parquet)
    pub old: PathBuf,
    /// New model (.onnx)
    pub new: PathBuf,
    /// Probe: a manifest (csv, parquet, jsonl) or a folder
    pub data: PathBuf,
    /// The adapted model to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// auto takes what does best on identities held out for the choice
    #[arg(long, value_enum, value_name = "HEAD", default_value = "auto")]
    pub head: HeadArg,
    /// Folder of the report (default: reports/OLD-vs-OUT)
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// The audit's own flags
    #[command(flatten)]
    pub settings: SettingsArgs,
}

#[cfg(feature = "adapt")]
const ADAPT_EXAMPLES: &str = "\
Example:
  compat-audit adapt old.onnx new.onnx data/ --out new_compat.onnx

A fifth of the identities is held out; the audit of the result searches with their queries alone.
Exit codes: those of an audit. A training that was interrupted goes on where it was when the same command is given again.";

/// Which heads are tried.
#[cfg(feature = "adapt")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HeadArg {
    /// Least squares and a trained linear head: the better one
    Auto,
    /// Least squares only: seconds, no training
    ClosedForm,
    /// The trained linear head
    Linear,
    /// A trained residual MLP of one hidden layer
    Mlp,
}

/// `compat-audit OLD NEW DATA ...`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Old model (.onnx) or its stored embeddings (.npy with ids beside, .parquet)
    #[arg(required_unless_present = "version")]
    pub old: Option<PathBuf>,
    /// New model, likewise
    #[arg(required_unless_present = "version")]
    pub new: Option<PathBuf>,
    /// Probe: a manifest (csv, parquet, jsonl) or a folder
    #[arg(required_unless_present = "version")]
    pub data: Option<PathBuf>,

    /// The flags that `adapt` has too
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// Folder of the report (default: reports/OLD-vs-NEW)
    #[arg(long, value_name = "DIR", help_heading = "Output", display_order = 1)]
    pub out: Option<PathBuf>,
    /// What stdout gets: a summary as text or markdown, or report.json
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Output",
        display_order = 2
    )]
    pub format: Format,
    /// Compare with an earlier report.json; it changes no verdict
    #[arg(long, value_name = "FILE", help_heading = "Output", display_order = 3)]
    pub baseline: Option<PathBuf>,
    /// Show inputs, outputs, preprocessing and counts; run nothing
    #[arg(
        long,
        help_heading = "Output",
        display_order = 4,
        conflicts_with = "format"
    )]
    pub dry_run: bool,
}

/// Where and how models are run.
#[derive(Debug, Args)]
pub struct RuntimeArgs {
    /// ONNX Runtime's library
    #[arg(long, value_name = "PATH", help_heading = "Running")]
    pub onnxruntime: Option<PathBuf>,
    /// auto, cpu, cuda, cuda:N, tensorrt or tensorrt:N
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "auto",
        help_heading = "Running"
    )]
    pub device: Device,
    /// Threads (default: all cores)
    #[arg(long, value_name = "N", value_parser = threads_arg, help_heading = "Running")]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Never reach the network
    #[arg(long, help_heading = "Running")]
    pub offline: bool,
    /// Folder of the embeddings' cache and of an installed runtime (default: compat-audit in $XDG_CACHE_HOME, ~/.cache or ~/Library/Caches)
    #[arg(long, value_name = "DIR", help_heading = "Running")]
    pub cache_dir: Option<PathBuf>,
}

/// What an audit prints to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The summary for a terminal
    Text,
    /// report.json, byte for byte
    Json,
    /// summary.md
    Markdown,
}

/// What a report may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrivacyArg {
    /// Items with their pictures and texts
    Full,
    /// Numbers only
    Statistics,
}

/// A number of threads that a machine can have.
fn threads_arg(text: &str) -> Result<std::num::NonZeroUsize, String> {
    /// More than any machine has cores today; tens of thousands only wait for each other.
    const MOST: usize = 1024;
    match text.parse::<std::num::NonZeroUsize>() {
        Ok(threads) if threads.get() <= MOST => Ok(threads),
        _ => Err(format!("expected a whole number from 1 to {MOST}")),
    }
}

impl AuditArgs {
    /// The three positional paths; clap requires them unless --version is given.
    pub fn paths(&self) -> [PathBuf; 3] {
        [&self.old, &self.new, &self.data].map(|path| path.clone().expect("clap requires it"))
    }
}

impl RuntimeArgs {
    /// The folder of the cache, if one is known.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        self.cache_dir.clone().or_else(default_cache_dir)
    }

    /// Threads, all cores by default.
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            std::num::NonZeroUsize::get,
        )
    }

    /// What the runtime stage needs.
    pub fn options(&self, verbose: bool) -> RuntimeOptions {
        RuntimeOptions {
            onnxruntime: self.onnxruntime.clone(),
            offline: self.offline,
            device: self.device,
            threads: self.threads(),
            cache_dir: self.cache_dir(),
            verbose,
        }
    }
}

/// audit.toml in the data folder, or beside the manifest.
pub fn config_path_beside(data: &Path) -> PathBuf {
    let folder = if data.is_dir() {
        data
    } else {
        data.parent().unwrap_or(Path::new(""))
    };
    folder.join("audit.toml")
}

/// Parses the command line. `Err` carries what to print and the exit code (0 for help).
///
/// # Errors
/// clap's, with the nearest subcommand named when a lone unknown word was given.
pub fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<_> = args.into_iter().collect();
    Cli::try_parse_from(&args).map_err(|error| {
        match lone_word(&args).and_then(nearest_subcommand) {
            // The subcommand itself says what it lacks.
            Some(name) if args[1] == *name => error,
            Some(name) if error.kind() == clap::error::ErrorKind::MissingRequiredArgument => {
                Cli::command().error(
                    clap::error::ErrorKind::InvalidSubcommand,
                    format!("unknown subcommand; did you mean `compat-audit {name}`?"),
                )
            }
            _ => error,
        }
    })
}

fn lone_word(args: &[std::ffi::OsString]) -> Option<&str> {
    match args {
        [_, word] => word
            .to_str()
            .filter(|word| !word.starts_with('-') && !Path::new(word).exists()),
        _ => None,
    }
}

fn nearest_subcommand(word: &str) -> Option<String> {
    /// Damerau-Levenshtein similarity from which a word is taken for a misspelling.
    const ALIKE: f64 = 0.5;
    Cli::command()
        .get_subcommands()
        .map(|command| {
            (
                strsim::normalized_damerau_levenshtein(word, command.get_name()),
                command,
            )
        })
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, command)| command.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Cli, clap::Error> {
        parse(
            std::iter::once("compat-audit")
                .chain(words.iter().copied())
                .map(Into::into),
        )
    }

    #[test]
    fn clap_finds_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_is_stable() {
        let mut command = Cli::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.clone().render_help().to_string());
        let init = command.find_subcommand("init").expect("a subcommand");
        let help = init.clone().term_width(100).render_help();
        insta::assert_snapshot!("help_init", help.to_string());
    }

    #[test]
    fn three_paths_make_an_audit_and_a_subcommand_needs_none() {
        let cli = parsed(&["a.onnx", "b.onnx", "data", "--seed", "3"]).expect("an audit");
        assert_eq!(cli.audit.settings.overrides().seed, Some(3));
        assert!(matches!(
            parsed(&["runtime", "show"]).expect("a subcommand").command,
            Some(Command::Runtime(RuntimeCommand::Show { .. }))
        ));
        assert!(parsed(&["--version"]).expect("no paths needed").version);
    }

    #[test]
    fn a_lone_misspelt_word_suggests_the_subcommand() {
        let error = parsed(&["rntime"]).expect_err("unknown").to_string();
        assert!(
            error.contains("did you mean `compat-audit runtime`?"),
            "{error}"
        );
        let error = parsed(&["nothing-like-it.onnx"])
            .expect_err("two paths missing")
            .to_string();
        assert!(error.contains("<NEW>"), "{error}");
    }

    #[test]
    fn a_lone_subcommand_says_what_it_lacks() {
        for name in ["init", "report", "completions"] {
            let error = parsed(&[name])
                .expect_err("arguments are missing")
                .to_string();
            assert!(
                error.contains(&format!("Usage: compat-audit {name}")),
                "{error}"
            );
            assert!(!error.contains("did you mean"), "{error}");
        }
    }

    #[test]
    fn usage_errors_exit_2_and_help_0() {
        assert_eq!(parsed(&["a.onnx"]).expect_err("missing").exit_code(), 2);
        assert_eq!(parsed(&["--help"]).expect_err("help").exit_code(), 0);
        assert_eq!(
            parsed(&["a", "b", "c", "--device", "abacus"])
                .expect_err("device")
                .exit_code(),
            2
        );
    }
}
