//! The only place that touches the report's files: everything is rendered first, written beside, then moved.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::view::View;
use super::{AuditReport, ReportError, Rows, figures, html, json, tables, thumbnails::Thumbnails};
use crate::interrupt::HalfWritten;

const REPORT: &str = "report.json";
const ITEMS: &str = "items.parquet";
const BACKFILL: [&str; 2] = ["backfill.csv", "backfill.parquet"];

/// A file of the report: its path inside the folder and its bytes.
type Rendered = (String, Vec<u8>);

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
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(out).map_err(ReportError::io("list the folder", out))? {
        let entry = entry.map_err(ReportError::io("list the folder", out))?;
        names.push(entry.file_name());
    }
    names.sort();
    match names.first() {
        Some(found) if !is_our_report(&out.join(REPORT)) => Err(ReportError::OutNotOurs {
            path: out.to_owned(),
            found: found.to_string_lossy().into_owned(),
        }),
        _ => Ok(()),
    }
}

/// Whether the file is a report.json of this or an older version, whole or not.
fn is_our_report(path: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Head {
        schema_version: u32,
    }
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Head>(&bytes).ok())
        .is_some_and(|head| (1..=super::SCHEMA_VERSION).contains(&head.schema_version))
}

/// Writes the report's folder: report.json, report.html, report.png, figures/, items.parquet and, with a
/// plan, backfill.csv and backfill.parquet.
///
/// An earlier report in its place is replaced as a whole; after an error it is as it was.
///
/// # Errors
/// As [`check_out`]; when a part cannot be rendered or the file system refuses.
pub fn write(report: &AuditReport, rows: &Rows, out: &Path) -> Result<(), ReportError> {
    check_out(out)?;
    let mut files = vec![(REPORT.to_owned(), json::to_json(report)?.into_bytes())];
    files.extend(render(report)?);
    files.push((ITEMS.to_owned(), tables::items_parquet(&rows.items)?));
    if !rows.backfill.is_empty() {
        let tables = tables::backfill_tables(&rows.backfill)?;
        files.extend(BACKFILL.map(str::to_owned).into_iter().zip(tables));
    }
    replace_folder(&files, out)
}

/// Renders html, png and figures from a report.json again, into `out`; report.json and the tables go with them
/// as they are.
///
/// # Errors
/// As [`json::from_json`] and [`write()`].
pub fn render_again(report_json: &Path, out: &Path) -> Result<(), ReportError> {
    let out = if out == Path::new("") {
        Path::new(".")
    } else {
        out
    };
    let own = match report_json.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let read = |path: &Path| std::fs::read(path).map_err(ReportError::io("read", path));
    let text = read(report_json)?;
    let report = json::from_json(&String::from_utf8_lossy(&text), report_json)?;
    let rendered = render(&report)?;
    let same = |a: &Path, b: &Path| {
        a.canonicalize()
            .ok()
            .zip(b.canonicalize().ok())
            .is_some_and(|(a, b)| a == b)
    };
    if same(own, out) && report_json.file_name() == Some(OsStr::new(REPORT)) {
        return replace_files(&rendered, out);
    }
    check_out(out)?;
    let mut files = vec![(REPORT.to_owned(), text)];
    files.extend(rendered);
    for name in [ITEMS].into_iter().chain(BACKFILL) {
        let table = own.join(name);
        if table.is_file() {
            files.push((name.to_owned(), read(&table)?));
        }
    }
    replace_folder(&files, out)
}

fn render(report: &AuditReport) -> Result<Vec<Rendered>, ReportError> {
    let view = View::new(report, &mut Thumbnails::new(super::thumbnails::LIMIT));
    let mut files = vec![
        ("report.html".to_owned(), html::to_html(&view)?.into_bytes()),
        ("report.png".to_owned(), figures::card(&view).png(1)?),
    ];
    for (name, drawing) in figures::all(&view, figures::WIDE) {
        files.push((format!("figures/{name}.svg"), drawing.svg()?.into_bytes()));
        files.push((format!("figures/{name}.png"), drawing.png(2)?));
    }
    Ok(files)
}

/// A folder beside `out` that an interrupt or an error removes.
struct Staging {
    folder: tempfile::TempDir,
    _announced: HalfWritten,
}

impl Staging {
    /// Writes the files under `new/`, so that the folder that is moved has the usual permissions (a temporary
    /// folder is closed to others).
    fn with_files(files: &[Rendered], beside: &Path) -> Result<Self, ReportError> {
        std::fs::create_dir_all(beside).map_err(ReportError::io("create the folder", beside))?;
        let folder = tempfile::Builder::new()
            .prefix(".compat-audit-")
            .tempdir_in(beside)
            .map_err(ReportError::io("create a folder in", beside))?;
        let staging = Self {
            _announced: HalfWritten::announce(folder.path()),
            folder,
        };
        for (name, bytes) in files {
            let path = staging.new_folder().join(name);
            let parent = path.parent().expect("it lies in the staging folder");
            std::fs::create_dir_all(parent)
                .map_err(ReportError::io("create the folder", parent))?;
            std::fs::write(&path, bytes).map_err(ReportError::io("write", &path))?;
        }
        Ok(staging)
    }

    fn new_folder(&self) -> PathBuf {
        self.folder.path().join("new")
    }
}

/// Puts a folder with the files in the place of `out`.
fn replace_folder(files: &[Rendered], out: &Path) -> Result<(), ReportError> {
    // Absolute, and through links: `.` cannot be renamed, and a link is kept while its target is replaced.
    let target = match out.canonicalize() {
        Ok(target) => target,
        Err(_) => std::path::absolute(out).map_err(ReportError::io("find", out))?,
    };
    let parent = target.parent().ok_or_else(|| ReportError::OutNotOurs {
        path: out.to_owned(),
        found: "the root folder".into(),
    })?;
    let staging = Staging::with_files(files, parent)?;
    let earlier = staging.folder.path().join("earlier");
    let had_one = target.exists();
    if had_one {
        std::fs::rename(&target, &earlier)
            .map_err(ReportError::io("move the earlier report away from", out))?;
    }
    std::fs::rename(staging.new_folder(), &target).map_err(|error| {
        if had_one && std::fs::rename(&earlier, &target).is_err() {
            // Neither is in place: leave the earlier one where it is rather than remove it with the staging folder.
            let _kept = staging.folder.keep();
        }
        ReportError::io("move the report to", out)(error)
    })
}

/// Replaces single files of a report in place; the folder itself stays, as a shell may stand in it.
fn replace_files(files: &[Rendered], out: &Path) -> Result<(), ReportError> {
    let staging = Staging::with_files(files, out)?;
    for (name, _) in files {
        let target = out.join(name);
        let parent = target.parent().expect("it lies in the report's folder");
        std::fs::create_dir_all(parent).map_err(ReportError::io("create the folder", parent))?;
        std::fs::rename(staging.new_folder().join(name), &target)
            .map_err(ReportError::io("move a file to", &target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::sample;
    use super::*;

    /// Every file under a folder with its bytes.
    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        fn walk(folder: &Path, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.path().is_dir() {
                    walk(&entry.path(), &format!("{name}/"), into);
                } else {
                    into.insert(name, std::fs::read(entry.path()).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(folder, "", &mut found);
        found
    }

    fn names(folder: &Path) -> Vec<String> {
        files(folder).into_keys().collect()
    }

    const ALL: [&str; 12] = [
        "figures/credibility.png",
        "figures/credibility.svg",
        "figures/decision.png",
        "figures/decision.svg",
        "figures/pairings.png",
        "figures/pairings.svg",
        "figures/subclusters.png",
        "figures/subclusters.svg",
        "items.parquet",
        "report.html",
        "report.json",
        "report.png",
    ];

    #[test]
    fn the_folder_is_whole_and_the_same_twice() {
        let temp = tempfile::tempdir().unwrap();
        let [a, b] = ["deep/down/a", "b"].map(|name| temp.path().join(name));
        write(&sample::skip(), &sample::rows(), &a).unwrap();
        write(&sample::skip(), &sample::rows(), &b).unwrap();
        assert_eq!(names(&a), ALL);
        assert_eq!(files(&a), files(&b));
        // Nothing is left beside it.
        assert_eq!(std::fs::read_dir(a.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn an_earlier_report_is_replaced_as_a_whole() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        write(&sample::skip(), &sample::rows(), &out).unwrap();
        std::fs::write(out.join("notes.txt"), "of the earlier one").unwrap();
        write(&sample::dimensions(), &sample::rows(), &out).unwrap();
        let found = names(&out);
        assert!(
            !found
                .iter()
                .any(|name| name == "notes.txt" || name == "figures/decision.svg"),
            "{found:?}"
        );
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_peoples_folders_and_files_are_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        let error = || write(&sample::skip(), &Rows::default(), &out).unwrap_err();

        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("thesis.tex"), "mine").unwrap();
        let refused = error();
        assert!(matches!(&refused, ReportError::OutNotOurs { found, .. } if found == "thesis.tex"));
        assert!(refused.to_string().ends_with(
            "out: expected an empty folder or an earlier report, found `thesis.tex` and no report.json of ours"
        ));
        assert!(refused.hint().unwrap().contains("--out"));
        // A report.json of something else does not make it ours.
        std::fs::write(out.join("report.json"), r#"{"lint": []}"#).unwrap();
        assert!(matches!(error(), ReportError::OutNotOurs { .. }));
        assert_eq!(names(&out), ["report.json", "thesis.tex"]);

        std::fs::remove_dir_all(&out).unwrap();
        std::fs::create_dir(&out).unwrap();
        write(&sample::skip(), &Rows::default(), &out).unwrap();

        std::fs::remove_dir_all(&out).unwrap();
        std::fs::write(&out, "a file").unwrap();
        let refused = error();
        assert!(
            refused
                .to_string()
                .ends_with("out: expected a folder or nothing, found a file")
        );
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "a file");
    }

    #[test]
    fn an_error_leaves_the_earlier_report_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        write(&sample::skip(), &sample::rows(), &out).unwrap();
        let before = files(&out);
        let mut broken = sample::full();
        broken.assay.p_value = f64::NAN;
        assert!(
            matches!(write(&broken, &Rows::default(), &out), Err(ReportError::NotFinite { field }) if field == "p_value")
        );
        assert_eq!(files(&out), before);
        // A path that runs through a file cannot be made.
        let error = write(
            &sample::full(),
            &Rows::default(),
            &out.join("report.json/inside"),
        )
        .unwrap_err();
        assert!(matches!(error, ReportError::Io { .. }), "{error}");
        assert_eq!(files(&out), before);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn rendering_again_gives_the_same_files() {
        let temp = tempfile::tempdir().unwrap();
        let [first, again] = ["first", "again"].map(|name| temp.path().join(name));
        write(&sample::skip(), &sample::rows(), &first).unwrap();
        let before = files(&first);
        let json = first.join("report.json");

        render_again(&json, &again).unwrap();
        assert_eq!(files(&again), before);
        // In place: what was damaged is made again, what is not ours stays.
        std::fs::write(first.join("report.html"), "damaged").unwrap();
        std::fs::write(first.join("notes.txt"), "mine").unwrap();
        render_again(&json, &first).unwrap();
        std::fs::remove_file(first.join("notes.txt")).unwrap();
        assert_eq!(files(&first), before);
        // Without items.parquet there is none.
        std::fs::remove_file(first.join("items.parquet")).unwrap();
        render_again(&json, &again).unwrap();
        assert!(!again.join("items.parquet").exists());
    }

    #[test]
    fn rendering_again_needs_a_report() {
        let temp = tempfile::tempdir().unwrap();
        let missing = render_again(&temp.path().join("report.json"), temp.path()).unwrap_err();
        assert!(
            missing.to_string().contains("report.json: cannot read"),
            "{missing}"
        );
        std::fs::write(temp.path().join("report.json"), "[]").unwrap();
        let none = render_again(&temp.path().join("report.json"), temp.path()).unwrap_err();
        assert!(matches!(none, ReportError::NotAReport { .. }));
    }
}
