//! Why DATA is no probe.

use std::io;
use std::path::{Path, PathBuf};

use super::manifest::Format;
use crate::domain::broken_link;

/// Why DATA is no probe. Rows are 1-based: in csv and jsonl the line of the file, in parquet the row.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A file or folder cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A pipe, a socket or a device: it cannot be read twice, and may never end.
    #[error("{}: expected a file or a folder, found neither", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// A link leads back to a folder that contains it.
    #[error("{} links back to {}, which contains it", path.display(), target.display())]
    LinkLoop {
        /// The folder reached through the link.
        path: PathBuf,
        /// The containing folder it is the same as.
        target: PathBuf,
    },
    /// A file name that is not UTF-8 cannot become an id.
    #[error("the name of {} is not valid UTF-8", path.display())]
    NameNotUtf8 {
        /// The file, with the bad bytes replaced.
        path: PathBuf,
    },
    /// Nothing says which of two things is meant.
    #[error("{}: two {what}: {} and {}", folder.display(), name(first), name(second))]
    TwoCandidates {
        /// Where both lie.
        folder: PathBuf,
        /// What they are, in the plural.
        what: &'static str,
        /// The first, by name.
        first: PathBuf,
        /// The second, by name.
        second: PathBuf,
    },
    /// `query/` without a gallery or the other way round.
    #[error("{} has {present}/ but no {expected}/", folder.display())]
    HalfLayout {
        /// The probe folder.
        folder: PathBuf,
        /// The folder that is there.
        present: &'static str,
        /// The folder that is missing.
        expected: &'static str,
    },
    /// A folder without a single image.
    #[error("{} holds no images (other files: {ignored})", folder.display())]
    NoImages {
        /// The folder.
        folder: PathBuf,
        /// Files that are no images.
        ignored: usize,
    },
    /// An image that lies outside the identity folders.
    #[error("{} lies beside identity folders, so its identity is unknown", path.display())]
    LooseImage {
        /// The first such image.
        path: PathBuf,
    },
    /// A flat folder's file name does not say the identity.
    #[error("{}: expected a name like 0001_c1s1_000151_01.jpg (identity, camera)", path.display())]
    MarketName {
        /// The image.
        path: PathBuf,
    },
    /// The manifest is neither csv, parquet nor jsonl.
    #[error("{}: expected a manifest (.csv, .parquet, .jsonl) or a folder", path.display())]
    UnknownManifest {
        /// The file.
        path: PathBuf,
    },
    /// The manifest is malformed.
    #[error("{}{}: {message}", path.display(), at(*row))]
    Parse {
        /// The manifest.
        path: PathBuf,
        /// Where, if known.
        row: Option<usize>,
        /// What the parser says.
        message: String,
    },
    /// The manifest has no rows.
    #[error("{} has no rows", path.display())]
    NoRows {
        /// The manifest.
        path: PathBuf,
    },
    /// A column that is needed, or that audit.toml names, is not there.
    #[error("{}: no column {wanted}; found {}", path.display(), found.join(", "))]
    MissingColumn {
        /// The manifest.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
        /// The key of `[columns]` that names it.
        key: &'static str,
        /// The columns there are.
        found: Vec<String>,
        /// The one whose name is nearest, when one is near.
        nearest: Option<String>,
    },
    /// A column whose name has a meaning cannot be read.
    #[error("{}: expected column `{column}` of texts, numbers or booleans, found a type that is not read", path.display())]
    UnreadColumn {
        /// The manifest.
        path: PathBuf,
        /// The key of `[columns]` that names it.
        key: &'static str,
        /// Its name.
        column: String,
    },
    /// Two columns could be the one that is needed.
    #[error("{}: both `{first}` and `{second}` could be the {key} column", path.display())]
    TwoColumns {
        /// The manifest.
        path: PathBuf,
        /// The key of `[columns]` that settles it.
        key: &'static str,
        /// The first column.
        first: String,
        /// The second column.
        second: String,
    },
    /// A cell that must not be empty is.
    #[error("{}{}: `{column}` is empty", path.display(), at(Some(*row)))]
    EmptyCell {
        /// The manifest.
        path: PathBuf,
        /// The row.
        row: usize,
        /// The column.
        column: String,
    },
    /// A cell has a value of the wrong kind.
    #[error("{}{}: `{column}`: expected {expected}, found {found}", path.display(), at(Some(*row)))]
    BadCell {
        /// The manifest.
        path: PathBuf,
        /// The row.
        row: usize,
        /// The column.
        column: String,
        /// What is allowed.
        expected: &'static str,
        /// The value.
        found: String,
    },
    /// Two rows bear one id.
    #[error("{}: rows {first} and {second} both have the id `{id}`", path.display())]
    DuplicateId {
        /// The manifest.
        path: PathBuf,
        /// The id.
        id: String,
        /// The first row.
        first: usize,
        /// The second row.
        second: usize,
    },
    /// An item has nothing to embed.
    #[error("{}{}: item `{id}` has no input: `{column}` is empty", path.display(), at(Some(*row)))]
    MissingInput {
        /// The manifest.
        path: PathBuf,
        /// The row.
        row: usize,
        /// The item.
        id: String,
        /// The input column.
        column: String,
        /// Whether gallery items may lack an input in this audit.
        gallery_may_lack: bool,
    },
    /// Tensor rows need a manifest to say what they are.
    #[error("{}: tensors need a manifest beside them, {} has none", tensors.display(), folder.display())]
    TensorsWithoutManifest {
        /// The tensor file.
        tensors: PathBuf,
        /// The folder without a manifest.
        folder: PathBuf,
    },
    /// The tensor file is not what numpy writes.
    #[error("{}: {}{message}", path.display(), array_prefix(array))]
    TensorFormat {
        /// The tensor file.
        path: PathBuf,
        /// The array, empty for the whole file or the single array of a `.npy`.
        array: String,
        /// What is wrong.
        message: String,
    },
    /// Two arrays of the tensor file differ in rows.
    #[error("{}: `{first}` has {first_rows} rows, `{second}` has {second_rows}", path.display())]
    TensorRows {
        /// The tensor file.
        path: PathBuf,
        /// An array.
        first: String,
        /// Its rows.
        first_rows: usize,
        /// Another array.
        second: String,
        /// Its rows.
        second_rows: usize,
    },
    /// The tensor file and the manifest differ in rows.
    #[error("{} has {found} rows, but {} has {expected}", tensors.display(), manifest.display())]
    RowCount {
        /// The tensor file.
        tensors: PathBuf,
        /// The manifest.
        manifest: PathBuf,
        /// The manifest's rows.
        expected: usize,
        /// The tensor file's rows.
        found: usize,
    },
    /// Nothing searches, or nothing can be found.
    #[error("{}: none of the {found} items is a {role} item with an identity", path.display())]
    NoItemsOfRole {
        /// The manifest or folder.
        path: PathBuf,
        /// `query` or `gallery`.
        role: &'static str,
        /// All items.
        found: usize,
    },
    /// A line of the relevance judgements cannot be used.
    #[error("{}, line {line}: expected {expected}, found {found}", path.display())]
    Qrels {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is allowed there.
        expected: &'static str,
        /// What stands there.
        found: String,
        /// What to do about it.
        hint: String,
    },
    /// The judgements leave every query without anything to find.
    #[error("{}: none of the {queries} queries has a relevant item among the {gallery} gallery items", path.display())]
    NothingJudgedRelevant {
        /// The file of the judgements.
        path: PathBuf,
        /// Queries.
        queries: usize,
        /// Gallery items.
        gallery: usize,
    },
    /// No query shares an identity with a gallery item other than itself.
    #[error("{}: none of the {queries} queries shares an identity with any other of the {gallery} gallery items", path.display())]
    NothingRelevant {
        /// The manifest or folder.
        path: PathBuf,
        /// Queries.
        queries: usize,
        /// Gallery items.
        gallery: usize,
    },
}

/// The last component; both candidates lie in the folder that the message names.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn at(row: Option<usize>) -> String {
    row.map_or(String::new(), |row| format!(", row {row}"))
}

/// Whether a header read as one column was written with semicolons or tabs.
fn has_other_separator(header: &str) -> bool {
    header.contains([';', '\t'])
}

fn array_prefix(array: &str) -> String {
    if array.is_empty() {
        String::new()
    } else {
        format!("array `{array}`: ")
    }
}

impl ProbeError {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.to_path_buf(),
            source,
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        if let Self::Read { path, .. } = self
            && let Some(hint) = broken_link(path)
        {
            return Some(hint);
        }
        let hint = match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "check the path; a relative one starts at the working directory".into()
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check the permissions of the file and of the folders above it".into()
            }
            Self::Read { .. } => "check that the path leads to a file or folder that can be read, not in a circle of links".into(),
            Self::NotAFile { .. } => "write it into a file first".into(),
            Self::TensorRows { .. } => "every array has a row an item, in the manifest's order".into(),
            Self::LinkLoop { .. } => "remove the link, or list the items in a manifest".into(),
            Self::NameNotUtf8 { .. } => "rename the file".into(),
            Self::TwoCandidates { what, .. } if *what == "tensor files" => {
                "choose one with `--tensors FILE`, or `tensors` under `[old]` and `[new]`".into()
            }
            Self::TwoCandidates { what, .. } if *what == "qrels" => {
                "choose one with `--qrels FILE`".into()
            }
            Self::TwoCandidates { what, .. } if *what == "manifests" => {
                "give the manifest file itself as DATA".into()
            }
            Self::TwoCandidates { .. } => "keep one of the two".into(),
            Self::HalfLayout { .. } => {
                "a probe folder has query/ and gallery/, or one folder per identity, or a manifest"
                    .into()
            }
            Self::NoImages { .. } => {
                "images are .png, .jpg, .jpeg, .webp or .bmp; other inputs need a manifest.csv, \
                 manifest.parquet or manifest.jsonl"
                    .into()
            }
            Self::LooseImage { .. } => {
                "move it into a folder named after its identity, or write a manifest; without identities, \
                 `--profile label-free` measures agreement with the old model"
                    .into()
            }
            Self::MarketName { .. } => {
                "rename it, or sort the images into one folder per identity; without identities, `--profile label-free` \
                 measures agreement with the old model"
                    .into()
            }
            Self::UnknownManifest { .. } => {
                "stored embeddings and models are given as OLD and NEW; DATA says what the items are"
                    .into()
            }
            Self::Parse { path, .. } => match Format::of(path) {
                Some(Format::Parquet) => {
                    "write or copy it again; a download that broke off looks like this".into()
                }
                Some(Format::JsonLines) => "a manifest .jsonl has one JSON object a line".into(),
                None => "write it as UTF-8 text".into(),
                Some(Format::Csv) => {
                    "a manifest .csv is comma-separated UTF-8 with a header line; a cell with commas, quotes or line breaks \
                     is quoted, quotes inside it doubled"
                        .into()
                }
            },
            Self::NoRows { .. } => "list one item a row".into(),
            Self::UnreadColumn { key, .. } => format!(
                "write it as text (bytes without a string type are not), or name another column in audit.toml: `[columns] {key} = \"NAME\"`"
            ),
            Self::MissingColumn { found, .. } if found.len() == 1 && has_other_separator(&found[0]) => {
                "the columns of a csv file are separated by commas".into()
            }
            Self::MissingColumn { key, nearest, .. } => match (nearest, *key) {
                (Some(nearest), "identity") => format!(
                    "if `{nearest}` is meant, say so in audit.toml: `[columns] identity = \"{nearest}\"`; \
                     or say what is relevant with `--qrels FILE`; without either, `--profile label-free` measures \
                     agreement with the old model"
                ),
                (Some(nearest), _) => {
                    format!("if `{nearest}` is meant, say so in audit.toml: `[columns] {key} = \"{nearest}\"`")
                }
                (None, "identity") => {
                    "name it in audit.toml: `[columns] identity = \"NAME\"`, or say what is relevant \
                     with `--qrels FILE`; without either, `--profile label-free` measures agreement with the old model"
                        .into()
                }
                (None, "path") => {
                    "items need a path, a text, or a row of a tensor file (`--tensors FILE`); \
                     with stored embeddings (`--old-embeddings FILE`) the gallery may lack them"
                        .into()
                }
                (None, _) => format!("correct `[columns] {key}` in audit.toml"),
            },
            Self::TwoColumns { key, first, .. } => {
                format!("choose in audit.toml: `[columns] {key} = \"{first}\"`")
            }
            Self::EmptyCell { column, .. } => {
                format!("give each row a value of `{column}`; identity -1 marks junk")
            }
            Self::BadCell { .. } => "correct the cell".into(),
            Self::DuplicateId { .. } => {
                "ids are the `id` column, else the path: give each row an id of its own".into()
            }
            Self::MissingInput {
                gallery_may_lack: true,
                ..
            } => "only gallery items may lack an input: stored embeddings stand in for them".into(),
            Self::MissingInput { .. } => {
                "gallery items may lack an input when stored embeddings are given: \
                 `--old-embeddings FILE`"
                    .into()
            }
            Self::TensorsWithoutManifest { .. } => {
                "write manifest.csv with a row per tensor row: id, identity, camera, role".into()
            }
            Self::TensorFormat { .. } => {
                "write it with numpy.savez or numpy.save: numbers or booleans, a row an item".into()
            }
            Self::RowCount { .. } => {
                "tensor rows and manifest rows are matched in order; `--tensors FILE` names another \
                 file"
                    .into()
            }
            Self::NoItemsOfRole { .. } => {
                "roles are query, gallery or both; items of identity -1 are junk".into()
            }
            Self::Qrels { hint, .. } => hint.clone(),
            Self::NothingJudgedRelevant { .. } => {
                "items judged with a grade above 0 are relevant; an item never finds itself, and \
                 identity -1 is junk"
                    .into()
            }
            Self::NothingRelevant { .. } => {
                "an identity needs at least two items: one that searches and one to be found".into()
            }
        };
        Some(hint)
    }
}
