//! What an audit tells its surroundings: stdout in the asked format, the job's summary page, annotations.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::cli::Format;
use crate::report::thumbnails::Thumbnails;
use crate::report::view::View;
use crate::report::{self, AuditReport, ReportError, annotations, json, markdown, terminal};

/// What the CI system says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CiSystem {
    /// File of the job's summary page (`GITHUB_STEP_SUMMARY`).
    step_summary: Option<PathBuf>,
    /// Whether the log is read for workflow commands (`GITHUB_ACTIONS=true`).
    reads_workflow_commands: bool,
}

impl CiSystem {
    /// Reads the environment through `variable`.
    pub fn new(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        Self {
            step_summary: variable("GITHUB_STEP_SUMMARY")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            reads_workflow_commands: variable("GITHUB_ACTIONS").is_some_and(|is| is == "true"),
        }
    }

    /// Appends to the summary page and gives the lines for stderr. A page that cannot be written changes no verdict.
    ///
    /// Workflow commands go to stderr, which GitHub's runner reads as it reads stdout: stdout stays data.
    pub fn tell(&self, report: &AuditReport, quiet: bool) -> Vec<String> {
        if *self == Self::default() {
            return Vec::new();
        }
        let view = View::new(report, &mut Thumbnails::new(0));
        let mut lines = Vec::new();
        if self.reads_workflow_commands && !quiet {
            lines.extend(annotations::lines(&view));
        }
        if let Some(path) = &self.step_summary
            && let Err(error) = report::append(&markdown::summary(&view), path)
        {
            lines.push(format!(
                "warning: GITHUB_STEP_SUMMARY: {error}; the verdict stands"
            ));
        }
        lines
    }
}

/// The audit's result for stdout.
pub fn stdout(report: &AuditReport, out: &Path, format: Format) -> Result<String, ReportError> {
    match format {
        Format::Text => {
            let is_terminal = std::io::stdout().is_terminal();
            let style = terminal::Style {
                color: is_terminal && std::env::var_os("NO_COLOR").is_none(),
                ascii: !is_terminal,
            };
            Ok(terminal::summary(report, out, style))
        }
        Format::Json => json::to_json(report),
        Format::Markdown => Ok(markdown::summary(&View::new(
            report,
            &mut Thumbnails::new(0),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_strictly() {
        let of = |pairs: &[(&str, &str)]| {
            CiSystem::new(|name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            })
        };
        assert_eq!(of(&[]), CiSystem::default());
        assert_eq!(
            of(&[("GITHUB_STEP_SUMMARY", ""), ("GITHUB_ACTIONS", "false")]),
            CiSystem::default()
        );
        let github = of(&[("GITHUB_STEP_SUMMARY", "s.md"), ("GITHUB_ACTIONS", "true")]);
        assert_eq!(github.step_summary.as_deref(), Some(Path::new("s.md")));
        assert!(github.reads_workflow_commands);
    }
}
