//! Writes a report, renders one again, reads one: everything is rendered before the folder is touched.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use super::folder::{
    BACKFILL, CARD, Content, FIGURES, HTML, ITEMS, JUNIT, METRICS, REPORT, Rendered, SUMMARY,
    bytes, check_out, replace_files, replace_folder, target_of,
};
use super::view::View;
use super::{
    AuditReport, ReportError, TableFiles, figures, html, json, junit, markdown, prometheus,
    thumbnails::Thumbnails,
};
use crate::domain::folder_of;

/// The working directory as the report's folder sees it: see [`RunSection::directory`](super::RunSection).
pub fn directory_seen_from(out: &Path) -> Option<String> {
    let here = std::env::current_dir().ok()?;
    let out = std::path::absolute(out).ok()?;
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
    match out.strip_prefix(&here) {
        Ok(below) if below.components().all(is_name) => {
            let up: Vec<&str> = below.components().map(|_| "..").collect();
            Some(if up.is_empty() {
                ".".into()
            } else {
                up.join("/")
            })
        }
        _ => Some(here.to_string_lossy().into_owned()),
    }
}

/// Writes the report's folder: report.json, report.html, report.png, figures/, items.parquet, for CI systems
/// summary.md, junit.xml and metrics.prom, and with a plan backfill.csv and backfill.parquet.
///
/// An earlier report in its place is replaced as a whole; after an error it is as it was.
///
/// # Errors
/// As [`check_out`]; when a part cannot be rendered or the file system refuses.
pub fn write(report: &AuditReport, tables: TableFiles, out: &Path) -> Result<(), ReportError> {
    check_out(out)?;
    let mut files = vec![bytes(REPORT, json::to_json(report)?)];
    let mut thumbnails = Thumbnails::new(super::thumbnails::LIMIT);
    files.extend(render(report, &mut thumbnails)?);
    let backfill = BACKFILL
        .into_iter()
        .zip(tables.backfill.into_iter().flatten());
    let tables = tables.items.map(|items| (ITEMS, items)).into_iter();
    let tables = tables.chain(backfill);
    files.extend(tables.map(|(name, table)| (name.to_owned(), Content::Table(table))));
    replace_folder(files, out)
}

/// Renders everything but report.json and the tables from a report.json again, into `out`; those go with it as they
/// are. Returns how many pictures are no longer where the audit read them.
///
/// # Errors
/// As [`json::from_json`] and [`write()`]; [`ReportError::PicturesGone`] when a page in place would lose pictures.
pub fn render_again(report_json: &Path, out: &Path) -> Result<usize, ReportError> {
    let out = if out == Path::new("") {
        Path::new(".")
    } else {
        out
    };
    let own = folder_of(report_json);
    let (report, text) = read_with_bytes(report_json)?;
    // Where the audit ran, as the report's folder saw it; then where this runs.
    let directory = report.run.directory.as_ref().map(|seen| own.join(seen));
    let folders = directory.into_iter().chain([PathBuf::new()]).collect();
    let mut thumbnails = Thumbnails::within(super::thumbnails::LIMIT, folders);
    let rendered = render(&report, &mut thumbnails)?;
    let missing = thumbnails.missing();
    let same = |a: &Path, b: &Path| {
        a.canonicalize()
            .ok()
            .zip(b.canonicalize().ok())
            .is_some_and(|(a, b)| a == b)
    };
    if same(own, out) && report_json.file_name() == Some(OsStr::new(REPORT)) {
        if missing > 0 && out.join(HTML).is_file() {
            return Err(ReportError::PicturesGone {
                path: out.join(HTML),
                missing,
            });
        }
        return replace_files(rendered, out).map(|_| missing);
    }
    check_out(out)?;
    let mut files = vec![bytes(REPORT, text)];
    files.extend(rendered);
    for name in [ITEMS].into_iter().chain(BACKFILL) {
        let table = own.join(name);
        if table.is_file() {
            files.push((name.to_owned(), Content::SameAs(table)));
        }
    }
    replace_folder(files, out).map(|()| missing)
}

/// Renders a report.json again without its items, into another folder: what stands beside it in its own would still name them.
///
/// # Errors
/// As [`read`] and [`write()`]; [`ReportError::ItemsBeside`] when `out` is the report's own folder.
pub fn without_items(report_json: &Path, out: &Path) -> Result<(), ReportError> {
    let mut report = read(report_json)?;
    let own = folder_of(report_json);
    let is_own = own.canonicalize().ok().zip(target_of(out).ok());
    if out == Path::new("") || is_own.is_some_and(|(own, out)| own == out) {
        return Err(ReportError::ItemsBeside {
            path: report_json.to_owned(),
        });
    }
    let mut tables = TableFiles::default();
    super::statistics_only(&mut report, &mut tables);
    write(&report, tables, out)
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

fn render(report: &AuditReport, thumbnails: &mut Thumbnails) -> Result<Vec<Rendered>, ReportError> {
    let view = View::new(report, thumbnails);
    let drawings = figures::all(&view, figures::WIDE);
    let (text, pictures) = rayon::join(
        || {
            Ok(vec![
                bytes(HTML, html::to_html(&view)?),
                bytes(CARD, figures::card(&view).png(1)?),
                bytes(JUNIT, junit::to_xml(&view)),
                bytes(SUMMARY, markdown::summary(&view)),
                bytes(METRICS, prometheus::metrics(report)),
            ])
        },
        || {
            let drawn = drawings.par_iter().map(|(name, drawing)| {
                Ok([
                    bytes(format!("{FIGURES}/{name}.svg"), drawing.svg()?),
                    bytes(format!("{FIGURES}/{name}.png"), drawing.png(2)?),
                ])
            });
            drawn.collect::<Result<Vec<_>, ReportError>>()
        },
    );
    let mut files: Vec<Rendered> = text?;
    files.extend(pictures?.into_iter().flatten());
    Ok(files)
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

    const ALL: [&str; 25] = [
        "backfill.csv",
        "backfill.parquet",
        "figures/credibility.png",
        "figures/credibility.svg",
        "figures/decision.png",
        "figures/decision.svg",
        "figures/map.png",
        "figures/map.svg",
        "figures/pairings.png",
        "figures/pairings.svg",
        "figures/refresh.png",
        "figures/refresh.svg",
        "figures/scores.png",
        "figures/scores.svg",
        "figures/slices.png",
        "figures/slices.svg",
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
        write(&sample::skip(), sample::table_files(), &a).unwrap();
        write(&sample::skip(), sample::table_files(), &b).unwrap();
        assert_eq!(names(&a), ALL);
        assert_eq!(files(&a), files(&b));
        // Nothing is left beside it.
        assert_eq!(std::fs::read_dir(a.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn an_earlier_report_is_replaced_as_a_whole() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        write(&sample::skip(), sample::table_files(), &out).unwrap();
        std::fs::write(out.join(".DS_Store"), "of a file manager").unwrap();
        write(&sample::dimensions(), sample::table_files(), &out).unwrap();
        let found = names(&out);
        assert!(
            !found
                .iter()
                .any(|name| name == ".DS_Store" || name == "figures/decision.svg"),
            "{found:?}"
        );
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn an_empty_folder_is_filled_where_it_is() {
        use std::os::unix::fs::MetadataExt;
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let inode = || std::fs::metadata(&out).unwrap().ino();
        let before = inode();
        write(&sample::skip(), sample::table_files(), &out).unwrap();
        assert_eq!(
            (inode(), names(&out)),
            (before, ALL.map(String::from).to_vec())
        );
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_audit_left_is_no_hindrance() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        let left = out.join(".compat-audit-abc/new");
        std::fs::create_dir_all(&left).unwrap();
        write(&sample::skip(), sample::table_files(), &out).unwrap();
        assert!(out.join("report.json").is_file());
        std::fs::create_dir_all(&left).unwrap();
        write(&sample::full(), sample::table_files(), &out).unwrap();
        assert_eq!(read(&out.join("report.json")).unwrap(), sample::full());
    }

    #[test]
    fn other_peoples_folders_and_files_are_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        let error = || write(&sample::skip(), TableFiles::default(), &out).unwrap_err();

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
        write(&sample::skip(), TableFiles::default(), &out).unwrap();

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
        write(&sample::skip(), sample::table_files(), &out).unwrap();
        std::fs::write(out.join("thesis.tex"), "mine").unwrap();
        std::fs::write(out.join("figures/notes.txt"), "mine").unwrap();
        let before = files(&out);
        let refused = write(&sample::full(), TableFiles::default(), &out).unwrap_err();
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
        write(&sample::skip(), sample::table_files(), &out).unwrap();
        let before = files(&out);
        let mut broken = sample::full();
        broken.assay.p_value = f64::NAN;
        assert!(
            matches!(write(&broken, TableFiles::default(), &out), Err(ReportError::NotFinite { field }) if field == "p_value")
        );
        assert_eq!(files(&out), before);
        // A path that runs through a file cannot be made.
        let error = write(
            &sample::full(),
            TableFiles::default(),
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
        write(&sample::skip(), sample::table_files(), &first).unwrap();
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
    fn a_page_never_loses_its_pictures_in_place() {
        let temp = tempfile::tempdir().unwrap();
        let [first, again] = ["first", "again"].map(|name| temp.path().join(name));
        // The audit ran in a folder that is gone since.
        let mut report = sample::full();
        report.run.directory = Some("/no/such/folder".into());
        let rename = |view: &mut crate::report::ItemView| view.image = Some("gone.png".into());
        report
            .worst_flips
            .iter_mut()
            .for_each(|flip| rename(&mut flip.query));
        assert!(!report.worst_flips.is_empty());
        write(&report, sample::table_files(), &first).unwrap();
        let before = files(&first);
        let json = first.join("report.json");
        let error = render_again(&json, &first).unwrap_err();
        assert!(
            matches!(error, ReportError::PicturesGone { missing: 1, .. }),
            "{error}"
        );
        assert_eq!(files(&first), before);
        assert_eq!(render_again(&json, &again).unwrap(), 1);
    }

    #[test]
    fn the_working_directory_is_seen_from_the_report() {
        let seen = |out: &str| directory_seen_from(Path::new(out)).unwrap();
        assert_eq!(seen("reports/a-vs-b"), "../..");
        assert_eq!(seen("."), ".");
        let here = std::env::current_dir().unwrap().display().to_string();
        assert_eq!(seen("../elsewhere"), here);
        assert_eq!(seen("/elsewhere"), here);
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_become_a_folder_is_told_before_the_audit() {
        let temp = tempfile::tempdir().unwrap();
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(temp.path().join("nothing"), &link).unwrap();
        let error = check_out(&link).unwrap_err();
        assert!(
            matches!(error, ReportError::OutIsBrokenLink { .. }),
            "{error}"
        );
        std::fs::write(temp.path().join("file"), "x").unwrap();
        let error = check_out(&temp.path().join("file/deep/out")).unwrap_err();
        assert!(matches!(error, ReportError::Io { .. }), "{error}");
        check_out(&temp.path().join("deep/out")).unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2);
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
