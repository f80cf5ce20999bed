//! The only place that touches the report's files: everything is rendered first, written beside, then moved.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::view::View;
use super::{
    AuditReport, ReportError, Rows, figures, html, json, junit, markdown, prometheus, tables,
    thumbnails::Thumbnails,
};
use crate::interrupt::{self, HalfWritten};

const REPORT: &str = "report.json";
const ITEMS: &str = "items.parquet";
const BACKFILL: [&str; 2] = ["backfill.csv", "backfill.parquet"];
const HTML: &str = "report.html";
const CARD: &str = "report.png";
const FIGURES: &str = "figures";
const JUNIT: &str = "junit.xml";
const SUMMARY: &str = "summary.md";
const METRICS: &str = "metrics.prom";

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
    let names = names_in(out)?;
    let Some(first) = names.first() else {
        return Ok(());
    };
    if !is_our_report(&out.join(REPORT)) {
        return Err(ReportError::OutNotOurs {
            path: out.to_owned(),
            found: first.clone(),
        });
    }
    let figures = match out.join(FIGURES) {
        folder if folder.is_dir() => names_in(&folder)?,
        _ => Vec::new(),
    };
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
    if foreign.is_empty() {
        return Ok(());
    }
    Err(ReportError::OutHoldsOthers {
        path: out.to_owned(),
        foreign,
    })
}

/// Names in a folder, sorted.
fn names_in(folder: &Path) -> Result<Vec<String>, ReportError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(ReportError::io("list the folder", folder))? {
        let entry = entry.map_err(ReportError::io("list the folder", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
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

/// Writes the report's folder: report.json, report.html, report.png, figures/, items.parquet, for CI systems
/// summary.md, junit.xml and metrics.prom, and with a plan backfill.csv and backfill.parquet.
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

/// Renders everything but report.json and the tables from a report.json again, into `out`; those go with it as they
/// are.
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
    let (report, text) = read_with_bytes(report_json)?;
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

/// Reads a report.json.
///
/// # Errors
/// [`ReportError::Unreadable`], and as [`json::from_json`].
pub fn read(report_json: &Path) -> Result<AuditReport, ReportError> {
    Ok(read_with_bytes(report_json)?.0)
}

fn read_with_bytes(report_json: &Path) -> Result<(AuditReport, Vec<u8>), ReportError> {
    let bytes = std::fs::read(report_json).map_err(|source| ReportError::Unreadable {
        path: report_json.to_owned(),
        source,
    })?;
    let report = json::from_json(&String::from_utf8_lossy(&bytes), report_json)?;
    Ok((report, bytes))
}

/// Appends to a file that is not ours, such as a job's summary page: what is in it stays.
///
/// # Errors
/// [`ReportError::Append`] when the file system refuses.
pub fn append(text: &str, path: &Path) -> Result<(), ReportError> {
    let written = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        // What stands there may lack its last line end, and Markdown parts blocks by blank lines.
        let gap = if file.metadata()?.len() > 0 {
            "\n\n"
        } else {
            ""
        };
        file.write_all(format!("{gap}{text}").as_bytes())
    };
    written().map_err(|source| ReportError::Append {
        path: path.to_owned(),
        source,
    })
}

fn render(report: &AuditReport) -> Result<Vec<Rendered>, ReportError> {
    let view = View::new(report, &mut Thumbnails::new(super::thumbnails::LIMIT));
    let mut files = vec![
        (HTML.to_owned(), html::to_html(&view)?.into_bytes()),
        (CARD.to_owned(), figures::card(&view).png(1)?),
        (JUNIT.to_owned(), junit::to_xml(&view).into_bytes()),
        (SUMMARY.to_owned(), markdown::summary(&view).into_bytes()),
        (METRICS.to_owned(), prometheus::metrics(report).into_bytes()),
    ];
    for (name, drawing) in figures::all(&view, figures::WIDE) {
        files.push((format!("{FIGURES}/{name}.svg"), drawing.svg()?.into_bytes()));
        files.push((format!("{FIGURES}/{name}.png"), drawing.png(2)?));
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
        let turn = interrupt::turn();
        std::fs::create_dir_all(beside).map_err(ReportError::io("create the folder", beside))?;
        let folder = tempfile::Builder::new()
            .prefix(".compat-audit-")
            .tempdir_in(beside)
            .map_err(ReportError::io("create a folder in", beside))?;
        let staging = Self {
            _announced: turn.announce(folder.path()),
            folder,
        };
        for (name, bytes) in files {
            let path = staging.new_folder().join(name);
            let parent = path.parent().expect("it lies in the staging folder");
            let _turn = interrupt::turn();
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
    // Both moves are one turn: an interrupt never finds the earlier report in the folder that it removes.
    let _turn = interrupt::turn();
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
    let _turn = interrupt::turn();
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

    const ALL: [&str; 19] = [
        "backfill.csv",
        "backfill.parquet",
        "figures/credibility.png",
        "figures/credibility.svg",
        "figures/decision.png",
        "figures/decision.svg",
        "figures/pairings.png",
        "figures/pairings.svg",
        "figures/refresh.png",
        "figures/refresh.svg",
        "figures/subclusters.png",
        "figures/subclusters.svg",
        "items.parquet",
        "junit.xml",
        "metrics.prom",
        "report.html",
        "report.json",
        "report.png",
        "summary.md",
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
        std::fs::write(out.join(".DS_Store"), "of a file manager").unwrap();
        write(&sample::dimensions(), &sample::rows(), &out).unwrap();
        let found = names(&out);
        assert!(
            !found
                .iter()
                .any(|name| name == ".DS_Store" || name == "figures/decision.svg"),
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
        for other in [r#"{"lint": []}"#, r#"{"schema_version": 1, "lint": []}"#] {
            std::fs::write(out.join("report.json"), other).unwrap();
            assert!(matches!(error(), ReportError::OutNotOurs { .. }));
        }
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
    fn what_others_put_into_a_report_is_named_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        write(&sample::skip(), &sample::rows(), &out).unwrap();
        std::fs::write(out.join("thesis.tex"), "mine").unwrap();
        std::fs::write(out.join("figures/notes.txt"), "mine").unwrap();
        let before = files(&out);
        let refused = write(&sample::full(), &Rows::default(), &out).unwrap_err();
        assert!(
            refused.to_string().ends_with(
                "out: expected an earlier report and nothing else, found also thesis.tex, figures/notes.txt"
            ),
            "{refused}"
        );
        assert_eq!(files(&out), before);
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
    fn appending_keeps_what_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("summary");
        append("first\n", &path).unwrap();
        append("second\n", &path).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "first\n\n\nsecond\n"
        );
        let error = append("third", temp.path()).unwrap_err();
        assert!(matches!(error, ReportError::Append { .. }), "{error}");
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
