//! What a manifest's columns mean, whatever file they came from.

use std::path::{Path, PathBuf};

use crate::config::{ColumnNames, ProbeConfig};
use crate::domain::{Modality, Role, Source, folder_of, sound_type};

use super::manifest::{self, Cell, Table};
use super::{
    Draft, Found, JUNK, ProbeError, Take, Twice, UNLABELLED, files_where, is_image, only, tensors,
};

/// Names closer than this (Jaro-Winkler, 1 is equal) are offered as "did you mean".
const NEAR: f64 = 0.8;

/// The default names of the identity column.
const IDENTITY_NAMES: [&str; 3] = ["identity", "label", "class"];

/// Reads the manifest at `path`, row by row; image paths are relative to its folder.
///
/// `relevance_is_judged`: there are qrels, so an identity column is not needed.
pub(super) fn read(
    path: &Path,
    config: &ProbeConfig,
    relevance_is_judged: bool,
    take: Take<'_>,
) -> Result<Found, ProbeError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut layout: Option<Layout> = None;
    // Where each row stands, for the rows of an error.
    let mut positions: Vec<u32> = Vec::new();
    manifest::each_part(path, &mut |table| {
        let layout = match &mut layout {
            Some(layout) => layout,
            none => none.insert(Layout::find(path, &table, config, relevance_is_judged)?),
        };
        let reader = RowReader {
            path,
            folder,
            table: &table,
            first: positions.len(),
            columns: &layout.columns,
            modality: layout.modality,
            separator: config.columns.identity_separator.as_deref(),
            gallery_may_lack_input: config.allow_missing_inputs,
            label_free: config.label_free,
        };
        for (row, &position) in table.positions.iter().enumerate() {
            let draft = reader.draft(row)?;
            if let Err(Twice { id, first }) = take(draft) {
                return Err(ProbeError::DuplicateId {
                    path: path.to_path_buf(),
                    id,
                    first: positions[first] as usize,
                    second: position,
                });
            }
            positions.push(u32::try_from(position).unwrap_or(u32::MAX));
        }
        Ok(())
    })?;
    let layout = layout.expect("a manifest without rows is refused");
    for tensors in layout.tensors.iter().chain(layout.of_models) {
        let found = tensors::row_count(tensors)?;
        if found != positions.len() {
            return Err(ProbeError::RowCount {
                tensors: tensors.clone(),
                manifest: path.to_path_buf(),
                expected: positions.len(),
                found,
            });
        }
    }
    Ok(Found {
        slice_columns: layout.slice_columns,
        names_roles: layout.names_roles,
        modality: layout.modality,
        origin: path.to_path_buf(),
        tensors: layout.tensors,
        camera_like_column: layout.camera_like_column,
        identities_given: layout.columns.identity.is_some(),
        findings: Vec::new(),
    })
}

/// What the columns of a manifest and the files beside it say of every row.
struct Layout<'a> {
    columns: Columns,
    slice_columns: Vec<String>,
    names_roles: bool,
    camera_like_column: Option<String>,
    tensors: Option<PathBuf>,
    /// Tensor files that models have of their own.
    of_models: &'a [PathBuf],
    modality: Modality,
}

impl<'a> Layout<'a> {
    fn find(
        path: &Path,
        table: &Table,
        config: &'a ProbeConfig,
        relevance_is_judged: bool,
    ) -> Result<Self, ProbeError> {
        let header = Header {
            path,
            columns: &table.columns,
            unread: &table.unread,
        };
        let needs_identities = !(relevance_is_judged || config.label_free);
        let columns = Columns::find(&header, &config.columns, needs_identities)?;
        let tensors = tensor_file(path, config, &columns)?;
        let of_models = match (&tensors, columns.path) {
            (None, Some(_)) => [].as_slice(),
            _ => &config.model_tensors,
        };
        let has_tensors = tensors.is_some() || !of_models.is_empty();
        let modality = match (has_tensors, columns.path, columns.text) {
            (true, _, _) => Modality::Tensor,
            (false, Some(_), _) => Modality::Image,
            (false, None, Some(_)) => Modality::Text,
            (false, None, None) if config.allow_missing_inputs => Modality::Stored,
            (false, None, None) => {
                return Err(header.missing("`path` or `text`", "path", &["path", "text"]));
            }
        };
        let name = |&column: &usize| table.columns[column].clone();
        Ok(Self {
            names_roles: columns.role.is_some(),
            slice_columns: columns.slices.iter().map(name).collect(),
            camera_like_column: columns
                .camera
                .is_none()
                .then(|| header.nearest(&["camera", "camid", "cam"]))
                .flatten(),
            columns,
            tensors,
            of_models,
            modality,
        })
    }
}

/// The tensor file of every model that has none of its own: the configured one; else, of a manifest without paths, the
/// only `.npz` beside.
fn tensor_file(
    manifest: &Path,
    config: &ProbeConfig,
    columns: &Columns,
) -> Result<Option<PathBuf>, ProbeError> {
    if let Some(configured) = &config.tensors {
        return Ok(Some(configured.clone()));
    }
    if columns.path.is_some() {
        return Ok(None);
    }
    // Two files beside the manifest are no doubt when each model has its own.
    if !config.model_tensors.is_empty() && !config.shared_tensors {
        return Ok(None);
    }
    let folder = folder_of(manifest);
    let is_npz = |path: &Path| path.extension().is_some_and(|extension| extension == "npz");
    let beside = files_where(folder, is_npz)?;
    only(folder, "tensor files", beside)
}

/// The manifest's column names.
struct Header<'a> {
    path: &'a Path,
    columns: &'a [String],
    unread: &'a [String],
}

impl Header<'_> {
    /// The configured column, else the only one that bears a default name (in any case: a `Role`
    /// column that silently became a slice would change every number).
    fn find(
        &self,
        key: &'static str,
        configured: Option<&String>,
        defaults: &[&str],
    ) -> Result<Option<usize>, ProbeError> {
        if let Some(name) = configured {
            let found = self.columns.iter().position(|column| column == name);
            return found
                .map(Some)
                .ok_or_else(|| self.missing(&format!("`{name}`"), key, &[name.as_str()]));
        }
        let is_default = |column: &String| {
            let column = column.trim();
            defaults
                .iter()
                .any(|name| column.eq_ignore_ascii_case(name))
        };
        // Passed over it would change every number as silently.
        if let Some(column) = self.unread.iter().find(|column| is_default(column)) {
            return Err(ProbeError::UnreadColumn {
                path: self.path.to_path_buf(),
                key,
                column: column.clone(),
            });
        }
        let mut candidates = (0..self.columns.len()).filter(|&i| is_default(&self.columns[i]));
        match (candidates.next(), candidates.next()) {
            (Some(first), Some(second)) => Err(ProbeError::TwoColumns {
                path: self.path.to_path_buf(),
                key,
                first: self.columns[first].clone(),
                second: self.columns[second].clone(),
            }),
            (first, _) => Ok(first),
        }
    }

    fn missing(&self, wanted: &str, key: &'static str, names: &[&str]) -> ProbeError {
        let unread = self
            .unread
            .iter()
            .map(|name| format!("{name} (of a type that is not read)"));
        ProbeError::MissingColumn {
            path: self.path.to_path_buf(),
            wanted: wanted.to_owned(),
            key,
            found: self.columns.iter().cloned().chain(unread).collect(),
            nearest: self.nearest(names),
        }
    }

    /// The column whose name is nearest to one of `names`, if any is near.
    fn nearest(&self, names: &[&str]) -> Option<String> {
        let likeness = |column: &str| {
            names
                .iter()
                .map(|name| strsim::jaro_winkler(&column.to_lowercase(), name))
                .fold(0.0, f64::max)
        };
        self.columns
            .iter()
            .map(|column| (likeness(column), column))
            .filter(|(likeness, _)| *likeness >= NEAR)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, column)| column.clone())
    }
}

/// Which column is what, by index.
struct Columns {
    path: Option<usize>,
    text: Option<usize>,
    id: Option<usize>,
    /// `None` only where relevance is judged, or clusters stand in for labels.
    identity: Option<usize>,
    camera: Option<usize>,
    role: Option<usize>,
    slices: Vec<usize>,
}

impl Columns {
    fn find(
        header: &Header,
        names: &ColumnNames,
        needs_identities: bool,
    ) -> Result<Self, ProbeError> {
        let path = header.find("path", names.path.as_ref(), &["path"])?;
        let text = header.find("text", names.text.as_ref(), &["text"])?;
        let id = header.find("id", names.id.as_ref(), &["id"])?;
        let identity = header.find("identity", names.identity.as_ref(), &IDENTITY_NAMES)?;
        if identity.is_none() && needs_identities {
            let wanted = "`identity`, `label` or `class`";
            return Err(header.missing(wanted, "identity", &IDENTITY_NAMES));
        }
        let camera = header.find("camera", names.camera.as_ref(), &["camera"])?;
        let role = header.find("role", names.role.as_ref(), &["role"])?;
        let used = [path, text, id, identity, camera, role];
        let slices = (0..header.columns.len())
            .filter(|&column| !used.contains(&Some(column)))
            .collect();
        Ok(Self {
            path,
            text,
            id,
            identity,
            camera,
            role,
            slices,
        })
    }
}

/// Whether a report can show the file: a picture or a recording that browsers play.
fn can_be_shown(path: &Path) -> bool {
    is_image(path) || sound_type(path).is_some()
}

/// Makes drafts of rows.
struct RowReader<'a> {
    path: &'a Path,
    folder: &'a Path,
    table: &'a Table,
    /// Rows of the parts before.
    first: usize,
    columns: &'a Columns,
    modality: Modality,
    separator: Option<&'a str>,
    gallery_may_lack_input: bool,
    label_free: bool,
}

impl RowReader<'_> {
    fn draft(&self, row: usize) -> Result<Draft, ProbeError> {
        let path = self.optional(row, self.columns.path)?;
        let text = self.optional(row, self.columns.text)?;
        let id = match (self.columns.id, path) {
            (Some(column), _) => self.required(row, column)?.to_owned(),
            (None, Some(path)) => portable(path),
            (None, None) => format!("row-{}", self.first + row + 1),
        };
        let role = self.role(row)?;
        let source = match self.modality {
            Modality::Tensor => Some(Source::TensorRow(self.first + row)),
            Modality::Image => path.map(|path| Source::Image(self.folder.join(path).into())),
            Modality::Text => text.map(|text| Source::Text(text.into())),
            Modality::Stored => None,
        };
        let may_lack_input = self.modality == Modality::Stored
            || self.gallery_may_lack_input && role == Role::Gallery;
        if source.is_none() && !may_lack_input {
            return Err(self.missing_input(row, id));
        }
        let shown =
            path.filter(|path| self.modality == Modality::Tensor && can_be_shown(Path::new(path)));
        let labels = match self.columns.identity {
            Some(column) => self.labels(row, column)?,
            None if self.label_free => vec![UNLABELLED.to_owned()],
            None => vec![id.clone()],
        };
        let camera = self.optional(row, self.columns.camera)?.map(str::trim);
        let text = match source {
            Some(Source::Text(_)) => None,
            _ => text.map(str::to_owned),
        };
        Ok(Draft {
            id,
            labels,
            camera: camera.filter(|name| !name.is_empty()).map(str::to_owned),
            role,
            row: Some(self.table.positions[row]),
            source,
            text,
            shown: shown.map(|path| self.folder.join(path)),
            slices: self
                .columns
                .slices
                .iter()
                .map(|&column| self.slice(row, column))
                .collect(),
        })
    }

    /// The item's labels, none for junk.
    fn labels(&self, row: usize, column: usize) -> Result<Vec<String>, ProbeError> {
        let clean = |names: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            names
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let labels = match (&self.table.rows[row][column], self.separator) {
            (None, _) => Vec::new(),
            (Some(Cell::Many(names)), _) => clean(&mut names.iter().map(String::as_str)),
            (Some(Cell::One(name)), None) => clean(&mut std::iter::once(name.as_str())),
            (Some(Cell::One(names)), Some(separator)) => clean(&mut names.split(separator)),
        };
        if labels.is_empty() {
            return Err(self.empty(row, column));
        }
        let n_junk = labels.iter().filter(|label| is_junk(label)).count();
        match n_junk {
            0 => Ok(labels),
            n if n == labels.len() => Ok(Vec::new()),
            _ => Err(self.bad(row, column, "-1 (junk) alone, or labels", labels.join(", "))),
        }
    }

    fn role(&self, row: usize) -> Result<Role, ProbeError> {
        let Some(column) = self.columns.role else {
            return Ok(Role::Both);
        };
        let found = self.required(row, column)?;
        match found.trim().to_ascii_lowercase().as_str() {
            "query" => Ok(Role::Query),
            "gallery" => Ok(Role::Gallery),
            "both" => Ok(Role::Both),
            _ => Err(self.bad(row, column, "query, gallery or both", found.to_owned())),
        }
    }

    fn slice(&self, row: usize, column: usize) -> Option<String> {
        self.table.rows[row][column]
            .as_ref()
            .map(|cell| match cell {
                Cell::One(text) => text.clone(),
                Cell::Many(texts) => texts.join(", "),
            })
    }

    fn required(&self, row: usize, column: usize) -> Result<&str, ProbeError> {
        self.optional(row, Some(column))?
            .ok_or_else(|| self.empty(row, column))
    }

    /// The cell, if there are the column and a value; a list is refused.
    fn optional(&self, row: usize, column: Option<usize>) -> Result<Option<&str>, ProbeError> {
        let Some(column) = column else {
            return Ok(None);
        };
        match &self.table.rows[row][column] {
            None => Ok(None),
            Some(Cell::One(text)) => Ok(Some(text)),
            Some(Cell::Many(texts)) => Err(self.bad(row, column, "one value", texts.join(", "))),
        }
    }

    fn missing_input(&self, row: usize, id: String) -> ProbeError {
        let column = match self.modality {
            Modality::Text => self.columns.text,
            _ => self.columns.path,
        };
        let column = column.expect("an image or text probe has that column");
        ProbeError::MissingInput {
            path: self.path.to_path_buf(),
            row: self.table.positions[row],
            id,
            column: self.table.columns[column].clone(),
            gallery_may_lack: self.gallery_may_lack_input,
        }
    }

    fn empty(&self, row: usize, column: usize) -> ProbeError {
        ProbeError::EmptyCell {
            path: self.path.to_path_buf(),
            row: self.table.positions[row],
            column: self.table.columns[column].clone(),
        }
    }

    fn bad(&self, row: usize, column: usize, expected: &'static str, found: String) -> ProbeError {
        ProbeError::BadCell {
            path: self.path.to_path_buf(),
            row: self.table.positions[row],
            column: self.table.columns[column].clone(),
            expected,
            found,
        }
    }
}

/// Junk, also as a table of floats writes it.
fn is_junk(label: &str) -> bool {
    label == JUNK || label == "-1.0"
}

/// The path with `/` between its parts, the same on every platform.
fn portable(path: &str) -> String {
    if cfg!(windows) {
        path.replace('\\', "/")
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::tensors::testing;

    use std::fs;

    use tempfile::TempDir;

    use super::super::Drafts;

    /// Reads a csv with these columns configured.
    fn csv(text: &str, config: &ProbeConfig) -> Result<Drafts, ProbeError> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("m.csv");
        fs::write(&path, text).unwrap();
        read(&path, config, false)
    }

    fn read(
        path: &Path,
        config: &ProbeConfig,
        relevance_is_judged: bool,
    ) -> Result<Drafts, ProbeError> {
        Drafts::collect(|take| super::read(path, config, relevance_is_judged, take))
    }

    fn plain(text: &str) -> Result<Drafts, ProbeError> {
        csv(text, &ProbeConfig::default())
    }

    fn config(set: impl FnOnce(&mut ColumnNames)) -> ProbeConfig {
        let mut config = ProbeConfig::default();
        set(&mut config.columns);
        config
    }

    /// A `.npy` of 64-bit integers, shape (rows, 1).
    fn npy(rows: u64) -> Vec<u8> {
        testing::npy(&[rows, 1], npyz::Order::C, 0..rows as i64)
    }

    /// A `.npz` with one array, `x`.
    fn npz(rows: u64) -> Vec<u8> {
        testing::npz([("x.npy", npy(rows))])
    }

    #[test]
    fn a_column_of_meaning_that_cannot_be_read_is_not_passed_over() {
        let (columns, unread) = (["class".to_owned()], [" Role".to_owned(), "raw".to_owned()]);
        let header = Header {
            path: Path::new("m.parquet"),
            columns: &columns,
            unread: &unread,
        };
        let error = header.find("role", None, &["role"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "m.parquet: expected column ` Role` of texts, numbers or booleans, found a type that is not read"
        );
        assert!(
            error
                .hint()
                .unwrap()
                .contains("`[columns] role = \"NAME\"`")
        );
        // Another one is named, or this one has no meaning.
        let named = header.find("role", Some(&"class".to_owned()), &["role"]);
        assert_eq!(named.unwrap(), Some(0));
        assert_eq!(header.find("camera", None, &["camera"]).unwrap(), None);
    }

    #[test]
    fn every_column_has_its_use() {
        let drafts = plain(
            "path,id,label,camera,role,light,note\n\
             a/b.png,one,0001, c1 ,Query,day,\n\
             c.png,two,-1,,GALLERY,,x\n",
        )
        .unwrap();
        assert_eq!(drafts.slice_columns, ["light", "note"]);
        assert_eq!(drafts.modality, Modality::Image);
        let [first, second] = drafts.items.as_slice() else {
            panic!("two rows")
        };
        assert_eq!((first.id.as_str(), first.role), ("one", Role::Query));
        assert_eq!(first.labels, ["0001"]);
        assert_eq!(first.camera.as_deref(), Some("c1"));
        assert_eq!(first.slices, [Some("day".to_owned()), None]);
        let Some(Source::Image(path)) = &first.source else {
            panic!("an image")
        };
        assert!(path.ends_with("a/b.png") && path.is_absolute());
        assert_eq!((second.labels.len(), second.role), (0, Role::Gallery));
        assert_eq!(second.camera, None);
    }

    #[test]
    fn ids_default_to_the_path_else_to_the_row() {
        let drafts = plain("path,class\nünï/a b.png,x\n./c.png,x\n").unwrap();
        assert_eq!(drafts.items[0].id, "ünï/a b.png");
        assert_eq!(drafts.items[1].id, "./c.png");
        assert_eq!(drafts.items[1].role, Role::Both);
        let drafts = plain("text,class\nhello,x\nhello,x\n").unwrap();
        assert_eq!(drafts.items[1].id, "row-2");
        assert_eq!(drafts.items[1].source, Some(Source::Text("hello".into())));
        assert_eq!(drafts.items[1].text, None);
        assert_eq!(drafts.modality, Modality::Text);
    }

    #[test]
    fn an_image_keeps_the_text_beside_it() {
        let drafts = plain("path,text,label\na.png,a cat,1\n").unwrap();
        assert_eq!(drafts.modality, Modality::Image);
        assert_eq!(drafts.items[0].text.as_deref(), Some("a cat"));
    }

    #[test]
    fn default_names_are_found_in_any_case() {
        let drafts = plain("Path,Label,ROLE\na,1,query\n").unwrap();
        assert_eq!(drafts.items[0].role, Role::Query);
        assert_eq!(drafts.slice_columns, Vec::<String>::new());
    }

    #[test]
    fn configured_names_win_over_defaults() {
        let config = config(|columns| {
            columns.path = Some("file".into());
            columns.identity = Some("person".into());
        });
        let drafts = csv("file,person,label,path\na.png,p1,x,y\n", &config).unwrap();
        assert_eq!(drafts.items[0].labels, ["p1"]);
        assert_eq!(drafts.items[0].id, "a.png");
        assert_eq!(drafts.slice_columns, ["label", "path"]);
    }

    #[test]
    fn a_configured_column_that_is_not_there_suggests_the_nearest() {
        let config = config(|columns| columns.camera = Some("camera_id".into()));
        let error = csv("path,label,cameraid\na,1,c\n", &config).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("m.csv: no column `camera_id`; found path, label, cameraid"),
            "{error}"
        );
        assert!(
            error
                .hint()
                .unwrap()
                .contains("`[columns] camera = \"cameraid\"`"),
            "{:?}",
            error.hint()
        );
    }

    #[test]
    fn a_missing_identity_column_is_explained() {
        let error = plain("path,lable\na,1\n").unwrap_err();
        let message = error.to_string();
        assert!(message.ends_with("no column `identity`, `label` or `class`; found path, lable"));
        assert!(
            error
                .hint()
                .unwrap()
                .contains("`[columns] identity = \"lable\"`")
        );
        let error = plain("path\na\n").unwrap_err();
        assert!(
            error
                .hint()
                .unwrap()
                .contains("without either, `--profile label-free`")
        );
    }

    #[test]
    fn a_csv_of_semicolons_is_recognised() {
        let error = plain("path;label\na;1\n").unwrap_err();
        assert!(error.hint().unwrap().contains("separated by commas"));
    }

    #[test]
    fn two_identity_columns_are_both_named() {
        let error = plain("path,label,identity\na,1,2\n").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("both `label` and `identity` could be the identity column"),
            "{error}"
        );
        assert!(
            error
                .hint()
                .unwrap()
                .contains("`[columns] identity = \"label\"`")
        );
    }

    #[test]
    fn a_column_that_looks_like_cameras_is_noticed() {
        let drafts = plain("path,label,camid\na,1,c1\n").unwrap();
        assert_eq!(drafts.camera_like_column.as_deref(), Some("camid"));
        let drafts = plain("path,label,camera,cam\na,1,c1,x\n").unwrap();
        assert_eq!(drafts.camera_like_column, None);
    }

    #[test]
    fn bad_cells_name_row_and_column() {
        let error = plain("path,label,role\na,1,query\nb,1,probe\n").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("m.csv, row 3: `role`: expected query, gallery or both, found probe"),
            "{error}"
        );
        let error = plain("path,label\na,1\nb, \n").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("m.csv, row 3: `label` is empty"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("identity -1 marks junk"));
        let error = plain("path,label,id\na,1,\n").unwrap_err();
        assert!(
            error.to_string().ends_with("row 2: `id` is empty"),
            "{error}"
        );
    }

    #[test]
    fn a_list_is_no_id() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("m.jsonl");
        fs::write(&path, r#"{"id": ["a", "b"], "text": "x", "label": 1}"#).unwrap();
        let error = read(&path, &ProbeConfig::default(), false).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("row 1: `id`: expected one value, found a, b")
        );
    }

    #[test]
    fn a_separator_splits_labels() {
        let config = config(|columns| columns.identity_separator = Some("|".into()));
        let drafts = csv("path,label\na,x| y|\nb,-1\n", &config).unwrap();
        assert_eq!(drafts.items[0].labels, ["x", "y"]);
        assert!(drafts.items[1].labels.is_empty());
        let error = csv("path,label\na,x|-1\n", &config).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("expected -1 (junk) alone, or labels")
        );
    }

    #[test]
    fn duplicate_ids_name_both_rows() {
        let error = plain("path,label\na,1\nb,1\na,1\n").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("m.csv: rows 2 and 4 both have the id `a`"),
            "{error}"
        );
        // The same file twice is legal under two ids.
        assert!(plain("path,label,id\na,1,x\na,1,y\n").is_ok());
    }

    #[test]
    fn only_a_gallery_with_stored_embeddings_may_lack_inputs() {
        let text = "path,label,role,id\na,1,query,q\n,1,gallery,g\n";
        let error = plain(text).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("row 3: item `g` has no input: `path` is empty"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("--old-embeddings"));
        let stored = ProbeConfig {
            allow_missing_inputs: true,
            ..ProbeConfig::default()
        };
        assert_eq!(csv(text, &stored).unwrap().items[1].source, None);
        for role in ["query", "both"] {
            let text = text.replace("gallery", role);
            let error = csv(&text, &stored).unwrap_err();
            assert!(
                error.hint().unwrap().contains("only gallery items"),
                "{error}"
            );
        }
    }

    #[test]
    fn no_input_column_at_all_needs_stored_embeddings() {
        let error = plain("id,label\na,1\n").unwrap_err();
        assert!(
            error.to_string().contains("no column `path` or `text`"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("--tensors"));
        let stored = ProbeConfig {
            allow_missing_inputs: true,
            ..ProbeConfig::default()
        };
        let drafts = csv("id,label\na,1\n", &stored).unwrap();
        assert_eq!(drafts.modality, Modality::Stored);
        assert_eq!(drafts.items[0].source, None);
    }

    #[test]
    fn tensor_rows_come_from_the_only_npz_beside() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("m.csv");
        fs::write(&path, "id,label\na,1\nb,1\n").unwrap();
        fs::write(folder.path().join("x.npz"), npz(2)).unwrap();
        let drafts = read(&path, &ProbeConfig::default(), false).unwrap();
        assert_eq!(drafts.modality, Modality::Tensor);
        assert_eq!(drafts.items[1].source, Some(Source::TensorRow(1)));

        fs::write(folder.path().join("y.npz"), npz(2)).unwrap();
        let error = read(&path, &ProbeConfig::default(), false).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with(": two tensor files: x.npz and y.npz"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("--tensors"));

        // Files of the models show the modality, and stand in for no other model's.
        let mut config = ProbeConfig {
            model_tensors: vec![folder.path().join("y.npz")],
            ..ProbeConfig::default()
        };
        let drafts = read(&path, &config, false).unwrap();
        assert_eq!(
            (drafts.modality, &drafts.tensors),
            (Modality::Tensor, &None)
        );
        config.shared_tensors = true;
        assert!(read(&path, &config, false).is_err(), "x.npz or y.npz");
        fs::remove_file(folder.path().join("y.npz")).unwrap();
        fs::create_dir(folder.path().join("own")).unwrap();
        config.model_tensors = vec![folder.path().join("own/y.npz")];
        fs::write(&config.model_tensors[0], npz(3)).unwrap();
        let error = read(&path, &config, false).unwrap_err();
        assert!(error.to_string().contains("y.npz has 3 rows"), "{error}");
        fs::write(&config.model_tensors[0], npz(2)).unwrap();
        let drafts = read(&path, &config, false).unwrap();
        assert_eq!(drafts.tensors, Some(folder.path().join("x.npz")));

        // A manifest of paths does not look for tensors, unless they are named.
        fs::write(&path, "path,label\na,1\nb,1\n").unwrap();
        let mut config = ProbeConfig::default();
        assert_eq!(
            read(&path, &config, false).unwrap().modality,
            Modality::Image
        );
        config.tensors = Some(folder.path().join("x.npz"));
        let drafts = read(&path, &config, false).unwrap();
        assert_eq!(drafts.modality, Modality::Tensor);
        assert_eq!(drafts.items[0].id, "a");
    }

    #[test]
    fn a_tensor_rows_recording_is_kept_for_the_report() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("m.csv");
        fs::write(&path, "path,label\na/b.WAV,1\nc.npy,1\n").unwrap();
        fs::write(folder.path().join("x.npz"), npz(2)).unwrap();
        let config = ProbeConfig {
            tensors: Some(folder.path().join("x.npz")),
            ..ProbeConfig::default()
        };
        let drafts = read(&path, &config, false).unwrap();
        assert_eq!(drafts.items[0].shown, Some(folder.path().join("a/b.WAV")));
        assert_eq!(drafts.items[1].shown, None, "nothing that a browser shows");
    }

    #[test]
    fn tensor_and_manifest_rows_must_agree() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("m.csv");
        fs::write(&path, "id,label\na,1\nb,1\n").unwrap();
        let tensors = folder.path().join("x.npy");
        fs::write(&tensors, npy(3)).unwrap();
        let config = ProbeConfig {
            tensors: Some(tensors),
            ..ProbeConfig::default()
        };
        let error = read(&path, &config, false).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("x.npy has 3 rows, but "), "{message}");
        assert!(message.ends_with("m.csv has 2"), "{message}");
        assert!(error.hint().unwrap().contains("in order"));
    }
}
