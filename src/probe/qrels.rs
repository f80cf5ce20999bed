//! Relevance judgements in the two formats that retrieval uses: TREC's and BEIR's.
//!
//! TREC: four columns, `query iteration item grade`, no header, separated by blanks; the iteration is not read. BEIR: the header
//! `query-id corpus-id score`, then three columns. A first line with tabs separates the whole file by tabs, so that ids may
//! hold blanks; a `.csv` is separated by commas, and its ids hold none.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::domain::{Judgement, Probe, Qrels};

use super::ProbeError;

/// The header of BEIR's qrels.
const BEIR: [&str; 3] = ["query-id", "corpus-id", "score"];

/// Reads the judgements of the probe's items.
///
/// Grades are integers; 0 and below is not relevant (trec_eval). `identities_given`: the probe names identities.
///
/// # Errors
/// An unreadable file, a line of another shape, an id that is no item or an item of the wrong role, a grade that is no integer,
/// a pair that is judged twice. Each names the line, what was expected and what was found.
pub(super) fn read(
    path: &Path,
    probe: &Probe,
    identities_given: bool,
) -> Result<Qrels, ProbeError> {
    let bytes = fs::read(path).map_err(|source| ProbeError::read(path, source))?;
    let text = super::manifest::utf8(path, &bytes)?;
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end_matches(['\r', ' '])))
        .filter(|(_, line)| !line.trim().is_empty())
        .peekable();
    let format = Format::of(path, lines.peek().map_or("", |&(_, line)| line));
    if format.has_header {
        lines.next();
    }
    let reader = Reader::new(path, probe, format);
    let mut judgements = Vec::new();
    // Only looked up, never walked.
    let mut line_of_pair: HashMap<(usize, usize), usize> = HashMap::new();
    for (line, text) in lines {
        let judgement = reader.judgement(line, text)?;
        let pair = (judgement.query, judgement.item);
        if let Some(first) = line_of_pair.insert(pair, line) {
            let [query, item] = [pair.0, pair.1].map(|index| &probe.items[index].id);
            return Err(reader.bad(
                line,
                "a pair that is judged once",
                format!("`{query}` and `{item}` again, first on line {first}"),
                "keep one of the two lines".into(),
            ));
        }
        judgements.push(judgement);
    }
    Ok(Qrels::new(
        path.to_path_buf(),
        probe.items.len(),
        &judgements,
        identities_given,
    ))
}

/// How the lines are cut.
#[derive(Clone, Copy)]
struct Format {
    separator: Option<char>,
    has_header: bool,
}

impl Format {
    fn of(path: &Path, first: &str) -> Self {
        let is_csv = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let separator = match (first.contains('\t'), is_csv) {
            (true, _) => Some('\t'),
            (false, true) => Some(','),
            (false, false) => None,
        };
        let format = Self {
            separator,
            has_header: false,
        };
        let names = format.fields(first);
        let has_header = names.len() == BEIR.len()
            && names
                .iter()
                .zip(BEIR)
                .all(|(name, expected)| name.eq_ignore_ascii_case(expected));
        Self {
            has_header,
            ..format
        }
    }

    fn fields(self, line: &str) -> Vec<&str> {
        match self.separator {
            Some(separator) => line.split(separator).map(str::trim).collect(),
            None => line.split_whitespace().collect(),
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    probe: &'a Probe,
    item_of_id: HashMap<&'a str, usize>,
    format: Format,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, probe: &'a Probe, format: Format) -> Self {
        let ids = probe.items.iter().enumerate();
        Self {
            path,
            probe,
            item_of_id: ids.map(|(index, item)| (item.id.as_str(), index)).collect(),
            format,
        }
    }

    fn judgement(&self, line: usize, text: &str) -> Result<Judgement, ProbeError> {
        let (query, item, grade) = match (self.format.has_header, &self.format.fields(text)[..]) {
            (true, &[query, item, grade]) | (false, &[query, _, item, grade]) => {
                (query, item, grade)
            }
            (has_header, fields) => {
                let (expected, hint) = if has_header {
                    (
                        "3 columns: query-id, corpus-id, score",
                        "columns are separated as in the header",
                    )
                } else {
                    (
                        "4 columns: query, iteration, item, grade",
                        "TREC qrels have 4 columns and no header; BEIR's have 3 under `query-id corpus-id score`",
                    )
                };
                return Err(self.bad(line, expected, fields.len().to_string(), hint.into()));
            }
        };
        Ok(Judgement {
            query: self.item(line, query, "query", |role| role.is_query())?,
            item: self.item(line, item, "gallery", |role| role.is_gallery())?,
            grade: grade.parse().map_err(|_| {
                let hint = "grades are whole numbers; 0 and below is not relevant";
                self.bad(line, "an integer grade", format!("`{grade}`"), hint.into())
            })?,
        })
    }

    /// The item of that id, which must have the role.
    fn item(
        &self,
        line: usize,
        id: &str,
        role: &'static str,
        has_role: impl Fn(crate::domain::Role) -> bool,
    ) -> Result<usize, ProbeError> {
        let Some(&item) = self.item_of_id.get(id) else {
            let hint = format!(
                "ids are those of {}: the `id` column, else the path",
                self.probe.origin.display()
            );
            return Err(self.bad(line, "the id of an item", format!("`{id}`"), hint));
        };
        let found = self.probe.items[item].role;
        if has_role(found) {
            return Ok(item);
        }
        let expected = match role {
            "query" => "a query item first",
            _ => "a gallery item after the query",
        };
        let hint = "queries search, gallery items are found; check the `role` column and the order of the columns";
        Err(self.bad(
            line,
            expected,
            format!("`{id}`, a {found} item"),
            hint.into(),
        ))
    }

    fn bad(&self, line: usize, expected: &'static str, found: String, hint: String) -> ProbeError {
        ProbeError::Qrels {
            path: self.path.to_path_buf(),
            line,
            expected,
            found,
            hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ProbeSummary, load};
    use super::*;
    use crate::config::ProbeConfig;

    use tempfile::TempDir;

    const MANIFEST: &str = "path,id,role\n\
        a.png,q 1,query\nb.png,q2,query\nc.png,d1,gallery\nd.png,d2,gallery\ne.png,d3,gallery\n";

    fn load_with(name: &str, qrels: &str) -> Result<Probe, ProbeError> {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("manifest.csv"), MANIFEST).unwrap();
        fs::write(folder.path().join(name), qrels).unwrap();
        load(folder.path(), &ProbeConfig::default())
    }

    fn relevant(probe: &Probe) -> Vec<&[(u32, u32)]> {
        let qrels = probe.qrels.as_ref().expect("judgements");
        vec![qrels.relevant_to(0), qrels.relevant_to(1)]
    }

    #[test]
    fn all_three_ways_of_writing_say_the_same() {
        let beir = "query-id\tcorpus-id\tscore\nq 1\td1\t2\nq 1\td2\t0\nq2\td3\t1\n";
        let trec = "q 1\t0\td1\t2\nq 1\tQ0\td2\t0\nq2\t0\td3\t1\n\n";
        let csv = "Query-Id,Corpus-Id,Score\r\nq 1,d1,2\r\nq 1, d2 ,0\r\nq2,d3,1\r\n";
        for (name, text) in [("qrels.tsv", beir), ("qrels.txt", trec), ("qrels.csv", csv)] {
            let probe = load_with(name, text).unwrap();
            assert_eq!(relevant(&probe), [&[(2, 2)][..], &[(4, 1)]], "{name}");
            assert_eq!(probe.qrels.as_ref().unwrap().n_judged(), 3);
        }
        let blanks = load_with("qrels.txt", "q2   0  d1 1\nq2 0 d2 -1\n").unwrap();
        assert_eq!(relevant(&blanks), [&[][..], &[(2, 1)]]);
    }

    #[test]
    fn without_an_identity_column_each_item_is_its_own() {
        let probe = load_with("qrels.txt", "q2 0 d1 1\n").unwrap();
        assert!(!probe.names_identities());
        let summary = ProbeSummary::of(&probe);
        assert_eq!((summary.identities, summary.query_identities), (5, 2));
        // d2 and d3 are found by no query.
        assert_eq!((summary.gallery, summary.distractor_items), (3, 2));
        assert!(probe.is_relevant(1, 2) && !probe.is_relevant(0, 2));
    }

    #[test]
    fn every_mistake_is_one_clear_error() {
        for (name, text, message, hint) in [
            (
                "qrels.txt",
                "q2 0 d1 1\nq2 0 d9 1\n",
                "line 2: expected the id of an item, found `d9`",
                "the `id` column",
            ),
            (
                "qrels.txt",
                "q2 0 d1 1\n\nq2 1 d1 2\n",
                "line 3: expected a pair that is judged once, found `q2` and `d1` again, first on line 1",
                "keep one",
            ),
            (
                "qrels.txt",
                "q2 0 d1 0.5\n",
                "line 1: expected an integer grade, found `0.5`",
                "whole numbers",
            ),
            (
                "qrels.txt",
                "d1 0 q2 1\n",
                "line 1: expected a query item first, found `d1`, a gallery item",
                "order of the columns",
            ),
            (
                "qrels.txt",
                "q2 0 q2 1\n",
                "line 1: expected a gallery item after the query, found `q2`, a query item",
                "`role`",
            ),
            (
                "qrels.txt",
                "q2 d1 1\n",
                "line 1: expected 4 columns: query, iteration, item, grade, found 3",
                "BEIR",
            ),
            (
                "qrels.tsv",
                "query-id\tcorpus-id\tscore\nq2\td1\n",
                "line 2: expected 3 columns: query-id, corpus-id, score, found 2",
                "header",
            ),
        ] {
            let error = load_with(name, text).unwrap_err();
            let found = error.to_string();
            assert!(found.ends_with(message) && found.contains(name), "{found}");
            let found = error.hint().unwrap();
            assert!(found.contains(hint), "{found}");
        }
    }

    #[test]
    fn judgements_without_anything_relevant_are_refused() {
        for text in ["", "q2 0 d1 0\n"] {
            let error = load_with("qrels.txt", text).unwrap_err();
            let found = error.to_string();
            assert!(
                found.contains("none of the 2 queries has a relevant item"),
                "{found}"
            );
            assert!(error.hint().unwrap().contains("above 0"));
        }
    }

    #[test]
    fn two_files_are_both_named_and_a_given_one_decides() {
        let folder = TempDir::new().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        write("manifest.csv", MANIFEST);
        write("qrels.csv", "q2,0,d1,1\n");
        let given = write("qrels.txt", "q2 0 d2 3\n");
        let error = load(folder.path(), &ProbeConfig::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("two qrels: qrels.csv and qrels.txt")
        );
        assert!(error.hint().unwrap().contains("--qrels FILE"));
        let config = ProbeConfig {
            qrels: Some(given),
            ..ProbeConfig::default()
        };
        let probe = load(folder.path(), &config).unwrap();
        assert_eq!(relevant(&probe)[1], [(3, 3)]);
    }
}
