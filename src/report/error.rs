//! Why a report cannot be rendered, written or read.

use std::path::PathBuf;

/// Why a report cannot be rendered, written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A number that JSON cannot hold stands where the report promises one.
    #[error("report field `{field}`: expected a finite number, found NaN or an infinity")]
    NotFinite {
        /// Name of the field.
        field: String,
    },
    /// There is no such report, or it may not be read.
    #[error("{}: cannot read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not ours cannot be appended to.
    #[error("{}: cannot append: {source}", path.display())]
    Append {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is no report.
    #[error("{}: expected a compat-audit report.json, found {found}", path.display())]
    NotAReport {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with line and column.
        found: String,
    },
    /// The report was written by another version.
    #[error("{}: expected schema_version {expected}, found {found}", path.display())]
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// The version this build reads.
        expected: u32,
        /// The version in the file.
        found: String,
    },
    /// The output path is taken by a file.
    #[error("{}: expected a folder or nothing, found a file", path.display())]
    OutIsFile {
        /// The output path.
        path: PathBuf,
    },
    /// The output path is a link that leads nowhere.
    #[error("{}: expected a folder or nothing, found a link that leads nowhere", path.display())]
    OutIsBrokenLink {
        /// The output path.
        path: PathBuf,
    },
    /// Pictures that the page in place shows are no longer to be found.
    #[error("{}: {missing} pictures are not where the audit read them, and the page there may still show them", path.display())]
    PicturesGone {
        /// report.html
        path: PathBuf,
        /// How many pictures.
        missing: usize,
    },
    /// Items cannot be left out of a report in place.
    #[error("{}: expected another folder for a report without items, found its own", path.display())]
    ItemsBeside {
        /// report.json
        path: PathBuf,
    },
    /// The output folder lies where the probe's images are looked for.
    #[error("{}: lies among the images of {}: the next audit would take the report's pictures for items", path.display(), data.display())]
    OutInProbe {
        /// The output folder.
        path: PathBuf,
        /// DATA.
        data: PathBuf,
    },
    /// The output folder holds something else than a report.
    #[error(
        "{}: expected an empty folder or an earlier report, found `{found}` and no report.json of ours",
        path.display()
    )]
    OutNotOurs {
        /// The output folder.
        path: PathBuf,
        /// The first entry, by name.
        found: String,
    },
    /// The output folder holds a report and things that no report has: replacing it would delete them.
    #[error(
        "{}: expected an earlier report and nothing else, found also {}",
        path.display(),
        foreign.join(", ")
    )]
    OutHoldsOthers {
        /// The output folder.
        path: PathBuf,
        /// Names inside it, sorted.
        foreign: Vec<String>,
    },
    /// The file system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A table does not go into its temporary file.
    #[error("{}: cannot write {part} to a temporary file: {source}", folder.display())]
    Scratch {
        /// Which table.
        part: &'static str,
        /// Where temporary files are.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A part could not be rendered; a bug, not the user's fault.
    #[error("cannot render {part}: {source}")]
    Render {
        /// `report.html`, a figure's name, `items.parquet`.
        part: &'static str,
        /// The renderer's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ReportError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFinite { .. } | Self::Render { .. } => {
                "this is a bug of compat-audit: please report it with the command line".into()
            }
            Self::NotAReport { .. } => {
                "give the report.json that an audit wrote; if it was edited, run the audit again"
                    .into()
            }
            Self::Unreadable { .. } => "give the report.json that an audit wrote".into(),
            Self::Append { .. } => "check the path and its permissions".into(),
            Self::SchemaVersion { .. } => {
                "read it with the version of compat-audit that wrote it, or run the audit again"
                    .into()
            }
            Self::ItemsBeside { .. } => {
                "name it with --out; report.json and the tables in place keep the items".into()
            }
            Self::PicturesGone { .. } => {
                "run it in the folder where the audit ran, or render into another folder with --out"
                    .into()
            }
            Self::OutIsFile { .. } | Self::OutIsBrokenLink { .. } | Self::OutNotOurs { .. } => {
                "choose another folder with --out, or remove this one yourself".into()
            }
            Self::OutInProbe { .. } => {
                "choose a folder outside of it, or one whose name begins with a dot, which no probe reads".into()
            }
            Self::OutHoldsOthers { .. } => {
                "move them elsewhere, or choose another folder with --out".into()
            }
            Self::Scratch { .. } => {
                "make room there, or name another folder: --cache-dir, with --no-cache TMPDIR"
                    .into()
            }
            Self::Io { action, .. } if *action == "read" => {
                "check the path: give the report.json that an audit wrote".into()
            }
            Self::Io { .. } => {
                "check the permissions and the free space, or choose another folder with --out"
                    .into()
            }
        })
    }

    /// Shorthand for [`ReportError::Io`].
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Shorthand for [`ReportError::Render`].
    pub(crate) fn render<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        part: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Render {
            part,
            source: source.into(),
        }
    }
}
