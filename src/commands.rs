//! What each command does: stdout is data, stderr is progress and notices.

#[cfg(feature = "adapt")]
mod adapt;
mod ci;
mod init;
mod paths;
mod preview;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::CommandFactory;

use crate::audit::{self, AuditError, Surroundings};
use crate::cli::progress::Bars;
use crate::cli::settings::SettingsArgs;
use crate::cli::{
    AuditArgs, Cli, Command, Format, InitArgs, PrivacyArg, ReportArgs, RuntimeArgs, RuntimeCommand,
};
use crate::config::{AuditConfig, ConfigError, ConfigFile, FailOn, Inconclusive, Overrides};
use crate::domain::NoProgress;
use crate::embed::Questions;
use crate::interrupt::{self, WholeFile};
use crate::judge::Verdict;
use crate::probe;
use crate::report::{self, AuditReport, BaselineSection, ReportError};
use crate::runtime::{self, Runtime, RuntimeError, RuntimeOptions};
use crate::topk;

/// What a command ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// No verdict was asked for.
    Nothing,
    /// An audit reached this verdict.
    Audited {
        /// The verdict.
        verdict: Verdict,
        /// What it means to a deployment gate.
        policy: GatePolicy,
    },
}

/// What a verdict means to a deployment gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatePolicy {
    /// From which verdict on the gate stops.
    pub fail_on: FailOn,
    /// Whether an inconclusive verdict stops it.
    pub inconclusive: Inconclusive,
}

/// An error as the user reads it: what, and what to do.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", in_one_line(self.message.trim_end()))?;
        self.hint
            .iter()
            .try_for_each(|hint| write!(f, "\nhint: {}", in_one_line(hint.trim_end())))
    }
}

/// Without control characters: what stands in data must not begin lines of its own, which CI systems read as commands, or speak
/// to the terminal.
fn in_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

macro_rules! failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self { message: error.to_string(), hint: error.hint() }
            }
        })*
    };
}
failure_from!(AuditError, ConfigError, ReportError, RuntimeError);

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self {
            message: format!("cannot write the output: {error}"),
            hint: None,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Anything that ends without a result, ready to be printed.
pub fn run(cli: &Cli) -> Result<Done, Failure> {
    interrupt::install();
    if cli.version {
        return version(&cli.audit.settings);
    }
    match &cli.command {
        None => audit_command(&cli.audit),
        Some(Command::Runtime(RuntimeCommand::Install {
            gpu,
            cache_dir,
            offline,
        })) => {
            let cache = cache_dir.clone().or_else(runtime::default_cache_dir);
            let cache = cache.ok_or(RuntimeError::NoCacheDir)?;
            let library = if *offline {
                runtime::installed(&cache)?
            } else {
                runtime::install(&cache, *gpu, &notice)?
            };
            print(&format!("{}\n", library.display()))?;
            Ok(Done::Nothing)
        }
        Some(Command::Runtime(RuntimeCommand::Show { runtime })) => runtime_show(runtime),
        Some(Command::Init(args)) => init_command(args),
        Some(Command::Report(args)) => report_command(args),
        #[cfg(feature = "adapt")]
        Some(Command::Adapt(args)) => adapt::adapt_command(args),
        Some(Command::Completions { shell }) => {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "compat-audit", &mut script);
            print(&String::from_utf8_lossy(&script))?;
            Ok(Done::Nothing)
        }
    }
}

/// Audits and writes the report.
fn audit_into(
    out: &Path,
    config: &AuditConfig,
    around: &Surroundings<'_>,
    baseline: Option<(&Path, AuditReport)>,
    privacy: PrivacyArg,
) -> Result<AuditReport, Failure> {
    let audit::Outcome {
        mut report,
        mut tables,
    } = audit::run(config, around)?;
    report.baseline = baseline.map(|(path, then)| BaselineSection::compare(&then, &report, path));
    report.run.directory = report::directory_seen_from(out);
    if privacy == PrivacyArg::Statistics {
        report::statistics_only(&mut report, &mut tables);
    }
    report::write(&report, tables, out)?;
    Ok(report)
}

/// Writes to stdout. A reader that has gone (`| head`) has all it wanted: the verdict's exit code stays.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn notice(line: &str) {
    // A closed stderr is no reason to end an audit.
    let _ = writeln!(std::io::stderr(), "{}", in_one_line(line.trim_end()));
}

/// Readies the process for running models, and checks what it was told.
fn prepare(settings: &SettingsArgs, paths: [PathBuf; 3]) -> Result<AuditConfig, Failure> {
    log_to_stderr(settings.verbose);
    limit_threads(settings.runtime.threads());
    let config = settings.resolve(paths)?;
    paths::check(&config, settings.runtime.onnxruntime.as_deref())?;
    Ok(config)
}

/// Runs models with a progress bar, which is gone when they are done.
fn with_progress<T>(
    settings: &SettingsArgs,
    work: impl FnOnce(&Surroundings<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let bars = Arc::new(Bars::new(settings.quiet));
    topk::tell(bars.clone());
    // `adapt` embeds twice: what is said of the cache is said once.
    let said = RefCell::new(BTreeSet::new());
    let notify = |line: &str| {
        if !settings.quiet && said.borrow_mut().insert(line.to_owned()) {
            bars.above(|| notice(line));
        }
    };
    let cache = settings.runtime.cache_dir();
    if cache.is_none() && !settings.no_cache {
        notify(&format!(
            "note: embeddings are not kept for the next run: {} set; --cache-dir DIR names a folder",
            runtime::unset_variables()
        ));
    }
    let done = work(&Surroundings {
        runtime: settings.runtime.options(settings.verbose),
        embedding_cache: cache.filter(|_| !settings.no_cache),
        progress: &*bars,
        notify: &notify,
        // For the reader's eyes, so an argument that is no UTF-8 may be shown approximately.
        command: std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
    });
    bars.clear();
    done
}

fn audit_command(args: &AuditArgs) -> Result<Done, Failure> {
    let settings = &args.settings;
    let config = prepare(settings, args.paths())?;
    // Before anything runs: a mistyped baseline must not cost an audit.
    let baseline = args
        .baseline
        .as_deref()
        .map(|path| Ok::<_, ReportError>((path, report::read(path)?)))
        .transpose()?;
    if args.dry_run {
        let preview = with_progress(settings, |around| {
            Ok(audit::preview(&config, around, Questions::Refused)?)
        })?;
        print(&preview::text(&preview))?;
        return Ok(Done::Nothing);
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| default_out(&config.old, &config.new));
    check_report_folder(&out, &config)?;
    let report = with_progress(settings, |around| {
        audit_into(&out, &config, around, baseline, settings.privacy)
    })?;
    tell(&report, &config, &out, settings.quiet, args.format)
}

/// Refuses a report's folder that holds something else, or in which the next audit would read the report's pictures.
fn check_report_folder(out: &Path, config: &AuditConfig) -> Result<(), ReportError> {
    report::check_out(out)?;
    if probe::walks_into(&config.data, out) {
        return Err(ReportError::OutInProbe {
            path: out.to_owned(),
            data: config.data.clone(),
        });
    }
    Ok(())
}

/// Says what came out, to the CI system and on stdout.
fn tell(
    report: &AuditReport,
    config: &AuditConfig,
    out: &Path,
    quiet: bool,
    format: Format,
) -> Result<Done, Failure> {
    ci::CiSystem::new(|name| std::env::var_os(name))
        .tell(report, quiet)
        .iter()
        .for_each(|line| notice(line));
    let verdict = report.verdict.verdict;
    print(&if quiet {
        format!("{verdict}\n")
    } else {
        ci::stdout(report, out, format)?
    })?;
    Ok(Done::Audited {
        verdict,
        policy: GatePolicy {
            fail_on: config.policy.fail_on,
            inconclusive: config.policy.inconclusive,
        },
    })
}

/// `reports/<old>-vs-<new>`, by file stem; equal stems take their folder's name.
fn default_out(old: &Path, new: &Path) -> PathBuf {
    let name = |part: Option<&std::ffi::OsStr>| {
        part.map_or_else(
            || "model".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let mut names = [old, new].map(|path| name(path.file_stem()));
    if names[0] == names[1] && old != new {
        names = [old, new].map(|path| name(path.parent().and_then(Path::file_name)));
    }
    Path::new("reports").join(format!("{}-vs-{}", names[0], names[1]))
}

fn runtime_show(args: &RuntimeArgs) -> Result<Done, Failure> {
    print(&match runtime::locate(&args.options(false))? {
        Some((library, found)) => format!("{} ({found})\n", library.display()),
        None => "none found; `compat-audit runtime install` gets one\n".to_owned(),
    })?;
    Ok(Done::Nothing)
}

fn init_command(args: &InitArgs) -> Result<Done, Failure> {
    let paths = [args.old.clone(), args.new.clone(), args.data.clone()];
    let file = match &args.config {
        Some(path) => ConfigFile::read(path)?,
        None => ConfigFile::default(),
    };
    let flags = Overrides {
        tensors: args.tensors.clone(),
        old_embeddings: args.old_embeddings.clone(),
        ..Overrides::default()
    };
    let config = AuditConfig::resolve(paths, file, flags)?;
    let around = Surroundings {
        runtime: args.runtime.options(false),
        embedding_cache: None,
        progress: &NoProgress,
        notify: &notice,
        command: Vec::new(),
    };
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| crate::cli::config_path_beside(&args.data));
    refuse_existing(&out, args.force)?;
    let preview = audit::preview(&config, &around, Questions::Open)?;
    let text = init::audit_toml(&preview, &config, &out);
    let written = WholeFile::beside(&out).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.persist(&out)
    });
    written.map_err(|error| Failure {
        message: format!("{}: cannot write: {error}", out.display()),
        hint: Some("--out writes another file".into()),
    })?;
    print(&format!("{}\n", out.display()))?;
    Ok(Done::Nothing)
}

/// A file that is there already is replaced only by `--force`; a folder never is, and says so where it is written to.
fn refuse_existing(out: &Path, force: bool) -> Result<(), Failure> {
    if out.exists() && !out.is_dir() && !force {
        return Err(Failure {
            message: format!("{}: exists already", out.display()),
            hint: Some("--force replaces it, --out writes another file".into()),
        });
    }
    Ok(())
}

fn report_command(args: &ReportArgs) -> Result<Done, Failure> {
    let own = args.report.parent().unwrap_or(Path::new(""));
    let out = args.out.as_deref().unwrap_or(own);
    let missing = match args.privacy {
        PrivacyArg::Full => report::render_again(&args.report, out)?,
        PrivacyArg::Statistics => {
            report::without_items(&args.report, out)?;
            0
        }
    };
    if missing > 0 {
        notice(&format!(
            "{missing} pictures of the report are not where the audit read them and are left out"
        ));
    }
    print(&format!("{}\n", out.join("report.html").display()))?;
    Ok(Done::Nothing)
}

fn version(args: &SettingsArgs) -> Result<Done, Failure> {
    let mut text = format!("compat-audit {}\n", env!("CARGO_PKG_VERSION"));
    if args.verbose {
        // Looks, but installs nothing.
        let options = RuntimeOptions {
            offline: true,
            ..args.runtime.options(false)
        };
        if runtime::locate(&options)?.is_some() {
            let runtime = Runtime::init(&options, &notice)?;
            let (library, version) = (runtime.library.display(), &runtime.version);
            text += &format!("onnxruntime  {version}, {library} ({})\n", runtime.found);
            text += &format!("providers    {}\n", runtime.providers().join(", "));
        } else {
            text += "onnxruntime  none found; `compat-audit runtime install` gets it\n";
        }
        text += &format!("CPU          {}\n", topk::cpu_features().join(", "));
        text += &format!("scores with  {}\n", topk::kernel_name());
    }
    print(&text)?;
    Ok(Done::Nothing)
}

/// The runtime's own messages, and ours, when --verbose.
fn log_to_stderr(verbose: bool) {
    if verbose {
        // Only a second subscriber in one process fails; the first one stays.
        let _ = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .with_env_filter(tracing_subscriber::EnvFilter::new("info"))
            .try_init();
    }
}

fn limit_threads(threads: usize) {
    // Only a second call in one process fails; the first pool stays.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_folder_is_named_after_the_models() {
        let out = |a: &str, b: &str| {
            default_out(Path::new(a), Path::new(b))
                .display()
                .to_string()
        };
        assert_eq!(out("m/old.onnx", "m/new.onnx"), "reports/old-vs-new");
        assert_eq!(out("v1/model.onnx", "v2/model.onnx"), "reports/v1-vs-v2");
        assert_eq!(out("m/old.onnx", "m/old.onnx"), "reports/old-vs-old");
    }

    #[test]
    fn a_failure_reads_as_error_and_hint() {
        let failure = Failure {
            message: "a: b".into(),
            hint: Some("do c".into()),
        };
        assert_eq!(failure.to_string(), "error: a: b\nhint: do c");
        let failure = Failure {
            message: "id `a\n::error::x\u{1b}[31m`\n".into(),
            hint: None,
        };
        assert_eq!(failure.to_string(), r"error: id `a\n::error::x\u{1b}[31m`");
    }
}
