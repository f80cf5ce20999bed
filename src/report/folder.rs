//! The report's folder: which files are ours, and how they take the place of an earlier report's, all or none.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::ReportError;
use super::table_file::TableFile;
use crate::interrupt::{self, HalfWritten, STAGING};

pub(super) const REPORT: &str = "report.json";
pub(super) const ITEMS: &str = "items.parquet";
pub(super) const BACKFILL: [&str; 2] = ["backfill.csv", "backfill.parquet"];
pub(super) const HTML: &str = "report.html";
pub(super) const CARD: &str = "report.png";
pub(super) const FIGURES: &str = "figures";
pub(super) const JUNIT: &str = "junit.xml";
pub(super) const SUMMARY: &str = "summary.md";
pub(super) const METRICS: &str = "metrics.prom";

/// The files of a report beside its figures: all that may lie in a folder that is replaced. A renderer's new file is
/// listed here too, else its second report is refused.
const OURS: [&str; 9] = [
    REPORT,
    HTML,
    CARD,
    ITEMS,
    BACKFILL[0],
    BACKFILL[1],
    JUNIT,
    SUMMARY,
    METRICS,
];

/// What file managers leave in every folder that they show; nobody misses it.
const DESKTOP: [&str; 3] = [".DS_Store", "Thumbs.db", "desktop.ini"];

/// A file of the report: its path inside the folder and what it holds.
pub(super) type Rendered = (String, Content);

/// What a file of the report holds.
pub(super) enum Content {
    Bytes(Vec<u8>),
    Table(TableFile),
    /// The bytes of another file.
    SameAs(PathBuf),
}

/// Checks that `out` may become the report's folder: it does not exist, is empty, or is an earlier report.
///
/// # Errors
/// [`ReportError::OutIsFile`], [`ReportError::OutNotOurs`], or [`ReportError::Io`] when it cannot be looked at.
pub fn check_out(out: &Path) -> Result<(), ReportError> {
    if out.is_file() {
        return Err(ReportError::OutIsFile {
            path: out.to_owned(),
        });
    }
    if !out.exists() {
        if out.symlink_metadata().is_ok() {
            return Err(ReportError::OutIsBrokenLink {
                path: out.to_owned(),
            });
        }
        return check_writable(out);
    }
    let names = names_in(out)?;
    let Some(first) = names.first() else {
        return check_writable(out);
    };
    if !is_our_report(&out.join(REPORT)) {
        return Err(ReportError::OutNotOurs {
            path: out.to_owned(),
            found: first.clone(),
        });
    }
    let figures = figures_in(out)?;
    let is_ours = |name: &&String| {
        OURS.contains(&name.as_str()) || DESKTOP.contains(&name.as_str()) || *name == FIGURES
    };
    let is_figure = |name: &&String| {
        name.ends_with(".svg") || name.ends_with(".png") || DESKTOP.contains(&name.as_str())
    };
    let foreign: Vec<String> = names
        .iter()
        .filter(|name| !is_ours(name))
        .cloned()
        .chain(
            figures
                .iter()
                .filter(|name| !is_figure(name))
                .map(|name| format!("{FIGURES}/{name}")),
        )
        .collect();
    if !foreign.is_empty() {
        return Err(ReportError::OutHoldsOthers {
            path: out.to_owned(),
            foreign,
        });
    }
    check_writable(out)
}

/// Whether a folder can be made beside `out`, in the nearest folder above it that exists: better told before an audit
/// than after it.
fn check_writable(out: &Path) -> Result<(), ReportError> {
    let target = target_of(out)?;
    // What is above a folder that stays does not matter.
    let mut above = target.ancestors().skip(usize::from(!stays(&target)));
    let Some(folder) = above.find(|folder| folder.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    try_writing(folder).map_err(ReportError::io("create a folder in", folder))
}

/// Names in a folder, sorted, but for what an audit is writing there at this moment or left when it was killed.
fn names_in(folder: &Path) -> Result<Vec<String>, ReportError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(ReportError::io("list the folder", folder))? {
        let entry = entry.map_err(ReportError::io("list the folder", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(STAGING) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Names in the folder of a report's figures; none where there is no such folder.
fn figures_in(out: &Path) -> Result<Vec<String>, ReportError> {
    match out.join(FIGURES) {
        folder if folder.is_dir() => names_in(&folder),
        _ => Ok(Vec::new()),
    }
}

/// Whether the file is a report.json of this or an older version, whole or not.
fn is_our_report(path: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Head {
        tool: String,
    }
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Head>(&bytes).ok())
        .is_some_and(|head| head.tool == super::TOOL)
}

pub(super) fn bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Rendered {
    (name.into(), Content::Bytes(bytes.into()))
}

impl Content {
    /// Into a new file.
    fn write(self, path: &Path) -> std::io::Result<()> {
        match self {
            Self::Bytes(bytes) => std::fs::write(path, bytes),
            Self::Table(mut table) => table.copy_to(&mut File::create(path)?),
            Self::SameAs(other) => {
                std::io::copy(&mut File::open(other)?, &mut File::create(path)?).map(|_| ())
            }
        }
    }
}

/// A folder beside `out` that an interrupt or an error removes.
struct Staging {
    folder: tempfile::TempDir,
    /// Of the files in it.
    names: Vec<String>,
    _announced: HalfWritten,
}

impl Staging {
    /// Writes the files under `new/`, so that the folder that is moved has the usual permissions (a temporary
    /// folder is closed to others).
    fn with_files(files: Vec<Rendered>, beside: &Path) -> Result<Self, ReportError> {
        let turn = interrupt::turn();
        std::fs::create_dir_all(beside).map_err(ReportError::io("create the folder", beside))?;
        let folder = tempfile::Builder::new()
            .prefix(STAGING)
            .tempdir_in(beside)
            .map_err(ReportError::io("create a folder in", beside))?;
        let staging = Self {
            _announced: turn.announce(folder.path()),
            folder,
            names: files.iter().map(|(name, _)| name.clone()).collect(),
        };
        for (name, content) in files {
            let path = staging.new_folder().join(name);
            let parent = path.parent().expect("it lies in the staging folder");
            let _turn = interrupt::turn();
            std::fs::create_dir_all(parent)
                .map_err(ReportError::io("create the folder", parent))?;
            content
                .write(&path)
                .map_err(ReportError::io("write", &path))?;
        }
        Ok(staging)
    }

    fn new_folder(&self) -> PathBuf {
        self.folder.path().join("new")
    }
}

/// Puts a folder with the files in the place of `out`.
pub(super) fn replace_folder(files: Vec<Rendered>, out: &Path) -> Result<(), ReportError> {
    let target = target_of(out)?;
    if stays(&target) {
        let written = replace_files(files, &target)?;
        return remove_others(&written, &target);
    }
    let parent = target.parent().ok_or_else(|| ReportError::OutNotOurs {
        path: out.to_owned(),
        found: "the root folder".into(),
    })?;
    let staging = Staging::with_files(files, parent)?;
    // Both moves are one turn: an interrupt never finds the earlier report in the folder that it removes.
    let _turn = interrupt::turn();
    let earlier = staging.folder.path().join("earlier");
    let had_one = target.exists();
    if had_one {
        std::fs::rename(&target, &earlier).map_err(ReportError::io("move away the folder", out))?;
    }
    std::fs::rename(staging.new_folder(), &target).map_err(|error| {
        if had_one && std::fs::rename(&earlier, &target).is_err() {
            // Neither is in place: leave the earlier one where it is rather than remove it with the staging folder.
            let _kept = staging.folder.keep();
        }
        ReportError::io("move the report to", out)(error)
    })
}

/// Absolute, and through links: `.` cannot be renamed, and a link is kept while its target is replaced.
pub(super) fn target_of(out: &Path) -> Result<PathBuf, ReportError> {
    out.canonicalize()
        .or_else(|_| std::path::absolute(out))
        .map_err(ReportError::io("find", out))
}

/// Whether the folder is filled where it is instead of being replaced as a whole: somebody stands in it, it is empty, so that
/// there is nothing to lose, it is where a file system is mounted, as a container's output is, or nothing can be moved out of the
/// folder that it is in.
fn stays(folder: &Path) -> bool {
    let is_empty = || names_in(folder).is_ok_and(|names| names.is_empty());
    let is_fixed = || {
        let above = folder.parent().filter(|_| folder.is_dir());
        above.is_some_and(|above| try_writing(above).is_err())
    };
    is_stood_in(folder) || is_empty() || is_mounted(folder) || is_fixed()
}

/// Makes a folder in a folder and removes it again.
fn try_writing(folder: &Path) -> std::io::Result<()> {
    let turn = interrupt::turn();
    let tried = tempfile::Builder::new()
        .prefix(STAGING)
        .tempdir_in(folder)?;
    let announced = turn.announce(tried.path());
    drop(tried);
    drop(announced);
    Ok(())
}

#[cfg(unix)]
fn is_mounted(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
    let above = folder.parent().and_then(device);
    above.is_some() && device(folder).is_some_and(|own| Some(own) != above)
}

#[cfg(not(unix))]
fn is_mounted(_: &Path) -> bool {
    false
}

/// Whether the working directory is the folder or lies in it: were it moved away, a shell would be left in a removed one.
fn is_stood_in(folder: &Path) -> bool {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    here.is_ok_and(|here| here.starts_with(folder))
}

/// Replaces single files of a report in place; the folder itself stays, as a shell may stand in it. Returns their names.
pub(super) fn replace_files(files: Vec<Rendered>, out: &Path) -> Result<Vec<String>, ReportError> {
    let staging = Staging::with_files(files, out)?;
    let _turn = interrupt::turn();
    for name in &staging.names {
        let target = out.join(name);
        let parent = target.parent().expect("it lies in the report's folder");
        std::fs::create_dir_all(parent).map_err(ReportError::io("create the folder", parent))?;
        std::fs::rename(staging.new_folder().join(name), &target)
            .map_err(ReportError::io("move a file to", &target))?;
    }
    Ok(staging.names)
}

/// Removes what an earlier report left of files that this one does not have.
fn remove_others(written: &[String], out: &Path) -> Result<(), ReportError> {
    let _turn = interrupt::turn();
    let figures = figures_in(out)?.into_iter();
    let earlier = OURS
        .iter()
        .map(|&name| name.to_owned())
        .chain(figures.map(|name| format!("{FIGURES}/{name}")));
    for name in earlier.filter(|name| !written.contains(name)) {
        match std::fs::remove_file(out.join(&name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ReportError::io("remove", out.join(name))(error));
            }
            _ => {}
        }
    }
    Ok(())
}
