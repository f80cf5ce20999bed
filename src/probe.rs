//! Stage 1: what DATA holds, read into a [`Probe`].
//!
//! DATA is a manifest file, a folder with a manifest, or a folder of images whose names say the
//! identities. Every way ends in the same list of drafts, and `assemble` makes the probe of them, so
//! labels, identities and cameras are numbered in one place, in item order.

mod error;
mod image_folder;
mod manifest;
pub(crate) mod parquet;
mod qrels;
mod rows;
pub mod tensors;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::config::ProbeConfig;
use crate::domain::{
    Beside, Finding, FindingCode, Item, Modality, NameIndex, OptionalIndex, Probe, Reference, Role,
    Severity, Source, folder_of, is_named,
};

pub use error::ProbeError;

/// The label of items that are junk for every query (Market-1501's convention).
const JUNK: &str = "-1";

/// The one label of all items that a label-free audit finds without; clusters of the old embeddings take its place.
const UNLABELLED: &str = "unlabelled";

/// Image formats that a probe may hold, as file extensions in lower case.
const IMAGE_EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

fn is_image(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| {
            IMAGE_EXTENSIONS
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        })
}

/// An item whose labels and camera still are names.
#[derive(Debug, Clone, PartialEq)]
struct Draft {
    id: String,
    /// Empty for junk.
    labels: Vec<String>,
    camera: Option<String>,
    role: Role,
    /// Its row in the manifest, where there is one.
    row: Option<usize>,
    source: Option<Source>,
    text: Option<String>,
    /// A picture or recording for the report alone.
    shown: Option<PathBuf>,
    slices: Vec<Option<String>>,
}

/// Takes the next item.
type Take<'a> = &'a mut dyn FnMut(Draft) -> Result<(), Twice>;

/// An id that an earlier item has.
#[derive(Debug)]
struct Twice {
    id: String,
    /// The earlier item's index.
    first: usize,
}

/// What a reader found beside the items.
#[derive(Debug)]
struct Found {
    slice_columns: Vec<String>,
    /// Whether roles are given; if not, each item is query and gallery.
    names_roles: bool,
    modality: Modality,
    origin: PathBuf,
    tensors: Option<PathBuf>,
    /// A column that may hold cameras although its name does not say so.
    camera_like_column: Option<String>,
    /// Whether the labels were read; if not, each item's is its id, or [`UNLABELLED`].
    identities_given: bool,
    findings: Vec<Finding>,
}

/// Reads the probe.
///
/// A file is a manifest (csv, parquet, jsonl). A folder with one `manifest.*` or `labels.*` uses it;
/// else `query/` with `gallery/` (or Market-1501's `bounding_box_test/`); else one folder per identity.
/// Whether the images can be read is left to the embed stage, which may tolerate some.
///
/// # Errors
/// DATA cannot be read or understood, or cannot be searched: no query, no gallery item, or no query
/// with a relevant gallery item. Each error names the path, the row, what was expected and found.
pub fn load(data: &Path, config: &ProbeConfig) -> Result<Probe, ProbeError> {
    let metadata = fs::metadata(data).map_err(|source| ProbeError::read(data, source))?;
    if !(metadata.is_dir() || metadata.is_file()) {
        return Err(ProbeError::NotAFile {
            path: data.to_path_buf(),
        });
    }
    let manifest = if metadata.is_dir() {
        manifest_in(data)?
    } else {
        Some(data.to_path_buf())
    };
    let qrels = match (&config.qrels, &manifest) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(manifest)) => qrels_beside(manifest)?,
        (None, None) => None,
    };
    let mut items = Items::default();
    let take = &mut |draft| items.push(draft);
    let found = match (manifest, &config.tensors) {
        (Some(manifest), _) => rows::read(&manifest, config, qrels.is_some(), take)?,
        (None, Some(tensors)) => {
            return Err(ProbeError::TensorsWithoutManifest {
                tensors: tensors.clone(),
                folder: data.to_path_buf(),
            });
        }
        (None, None) => image_folder::read(data, config.label_free, take)?,
    };
    let identities_given = found.identities_given;
    let mut probe = assemble(items, found, config.label_free);
    if let Some(path) = qrels {
        probe.qrels = Some(qrels::read(&path, &probe, identities_given)?);
    }
    check_roles(&probe)?;
    // What is relevant to what is not known before the old gallery is clustered.
    if !config.label_free {
        check_searchable(&probe)?;
    }
    Ok(probe)
}

/// Whether images in `folder` would be items of the probe `data`: it is a folder without a manifest, and `folder` lies where
/// it is walked. `folder` need not exist.
pub fn walks_into(data: &Path, folder: &Path) -> bool {
    let has_manifest = || !matches!(manifest_in(data), Ok(None));
    if !data.is_dir() || has_manifest() {
        return false;
    }
    let (Ok(root), Ok(folder)) = (data.canonicalize(), std::path::absolute(folder)) else {
        return false;
    };
    // Through links, as far as there is something.
    let there = folder.ancestors().find_map(|above| {
        let below = folder.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(below))
    });
    there
        .as_deref()
        .and_then(|folder| folder.strip_prefix(&root).ok())
        .is_some_and(|below| image_folder::walks_into(data, below))
}

/// The folder's only `manifest.*` or `labels.*`, if it has one.
fn manifest_in(folder: &Path) -> Result<Option<PathBuf>, ProbeError> {
    let candidates = files_where(folder, |path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        matches!(stem, Some("manifest" | "labels")) && manifest::Format::of(path).is_some()
    })?;
    only(folder, "manifests", candidates)
}

/// The only `qrels.*` beside the manifest, if there is one.
fn qrels_beside(manifest: &Path) -> Result<Option<PathBuf>, ProbeError> {
    let folder = folder_of(manifest);
    let candidates = files_where(folder, |path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.file_stem().is_some_and(|stem| stem == "qrels")
            && matches!(extension, Some("tsv" | "txt" | "csv"))
    })?;
    only(folder, "qrels", candidates)
}

/// The folder's files that `wanted` accepts, sorted by name.
fn files_where(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, ProbeError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| ProbeError::read(folder, source))? {
        let path = entry
            .map_err(|source| ProbeError::read(folder, source))?
            .path();
        if wanted(&path) && is_named(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Refuses to choose: none or one candidate, never two.
fn only(
    folder: &Path,
    what: &'static str,
    candidates: Vec<PathBuf>,
) -> Result<Option<PathBuf>, ProbeError> {
    let mut candidates = candidates.into_iter();
    match (candidates.next(), candidates.next()) {
        (Some(first), Some(second)) => Err(ProbeError::TwoCandidates {
            folder: folder.to_path_buf(),
            what,
            first,
            second,
        }),
        (first, _) => Ok(first),
    }
}

/// Items as they come; labels and cameras are numbered in their order.
#[derive(Default)]
struct Items {
    items: Vec<Item>,
    // The four are gone when the items are read: what stays is the items and the names.
    index_of_id: NameIndex,
    labels: Names,
    cameras: Names,
    values: BTreeSet<Arc<str>>,
}

impl Items {
    fn push(&mut self, draft: Draft) -> Result<(), Twice> {
        let index = u32::try_from(self.items.len()).expect("fewer than 2^32 items fit in memory");
        let id_of = |item: u32| self.items[item as usize].id.as_str();
        if let Some(first) = self.index_of_id.insert(&draft.id, index, id_of) {
            return Err(Twice {
                id: draft.id,
                first: first as usize,
            });
        }
        let mut labels: Vec<u32> = draft
            .labels
            .iter()
            .map(|name| self.labels.index(name))
            .collect();
        labels.sort_unstable();
        labels.dedup();
        let values = &mut self.values;
        let mut shared = |value: String| match values.get(value.as_str()) {
            Some(value) => value.clone(),
            None => {
                let value: Arc<str> = value.into();
                values.insert(value.clone());
                value
            }
        };
        let beside = Beside {
            text: draft.text.map(String::into_boxed_str),
            shown: draft.shown.map(PathBuf::into_boxed_path),
            slices: draft
                .slices
                .into_iter()
                .map(|value| value.map(&mut shared))
                .collect(),
        };
        let is_empty = beside.text.is_none()
            && beside.shown.is_none()
            && beside.slices.iter().all(Option::is_none);
        let camera = draft.camera.as_deref();
        let camera = camera.map(|name| self.cameras.index(name));
        self.items.push(Item {
            // From the slice: a string's own buffer would be kept, and short ids need none.
            id: draft.id.as_str().into(),
            labels: labels.into(),
            identity: OptionalIndex::NONE,
            camera: camera.into(),
            role: draft.role,
            row: draft.row.and_then(|row| u32::try_from(row).ok()).into(),
            source: draft.source.map(Box::new),
            beside: (!is_empty).then(|| Box::new(beside)),
        });
        Ok(())
    }
}

/// The probe of these items; identities are numbered in item order.
fn assemble(items: Items, found: Found, label_free: bool) -> Probe {
    let Items {
        mut items,
        labels,
        cameras,
        ..
    } = items;
    items.shrink_to_fit();
    let identities = join_labels(&mut items, &labels.names);
    let mut findings = found.findings;
    if label_free {
        // What stands in for the labels is found later.
    } else if !found.identities_given {
        findings.push(Finding::new(
            FindingCode::NoIdentities,
            Severity::Info,
            "no identities are given: each query is a unit of its own, relevance is what the qrels say, and sub-clusters, \
             consensus and credibility are not estimated",
        ));
    } else if cameras.names.is_empty() {
        let hint = found.camera_like_column.map_or(String::new(), |column| {
            format!("; column `{column}` may hold them: `[columns] camera = \"{column}\"`")
        });
        findings.push(Finding::new(
            FindingCode::NoCameras,
            Severity::Warning,
            format!(
                "no cameras are given, so near-duplicates from one session cannot be removed{hint}"
            ),
        ));
    }
    if !found.names_roles
        && let Some(column) = role_like_column(&items, &found.slice_columns)
    {
        findings.push(Finding::new(
            FindingCode::NoRoles,
            Severity::Warning,
            format!(
                "every item is both query and gallery, although column `{column}` says which is what: `[columns] role = \"{column}\"`"
            ),
        ));
    }
    let reference = if label_free {
        Reference::OldModel
    } else {
        Reference::Labels
    };
    Probe {
        items,
        labels: labels.names,
        identities,
        cameras: cameras.names,
        slice_columns: found.slice_columns,
        modality: found.modality,
        origin: found.origin,
        tensors: found.tensors,
        qrels: None,
        reference,
        outside: None,
        findings,
    }
}

/// The column in which every item has the name of a role.
fn role_like_column<'a>(items: &[Item], columns: &'a [String]) -> Option<&'a String> {
    let says_role = |value: &str| {
        let value = value.trim().to_ascii_lowercase();
        ["query", "gallery", "both"].contains(&value.as_str())
    };
    let is_role = |column: usize| {
        let mut values = items.iter().map(|item| item.slice(column));
        values.all(|value| value.is_some_and(says_role))
    };
    let index = (0..columns.len()).find(|&column| is_role(column))?;
    columns.get(index)
}

/// Names numbered in the order of their first appearance.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    index_of: NameIndex,
}

impl Names {
    fn index(&mut self, name: &str) -> u32 {
        let next = u32::try_from(self.names.len()).expect("fewer than 2^32 items fit in memory");
        let name_of = |index: u32| self.names[index as usize].as_str();
        if let Some(index) = self.index_of.insert(name, next, name_of) {
            return index;
        }
        self.names.push(name.to_owned());
        next
    }
}

/// Sets each item's identity to the connected component of its labels, and returns the components'
/// names: the first label, in item order, of each.
///
/// Items that share a label, directly or through others, are not independent, so statistics resample
/// whole components. With one label an item this is the label itself.
fn join_labels(items: &mut [Item], labels: &[String]) -> Vec<String> {
    let mut parent: Vec<u32> = (0..labels.len() as u32).collect();
    for item in &*items {
        for pair in item.labels.windows(2) {
            let (a, b) = (root(&mut parent, pair[0]), root(&mut parent, pair[1]));
            // The smaller index leads: labels are numbered in item order, so it is the first one seen.
            parent[a.max(b) as usize] = a.min(b);
        }
    }
    let mut identity_of_root = vec![None; labels.len()];
    let mut identities = Vec::new();
    for item in items {
        let Some(&label) = item.labels.first() else {
            continue;
        };
        let leader = root(&mut parent, label) as usize;
        let identity = *identity_of_root[leader].get_or_insert_with(|| {
            identities.push(labels[leader].clone());
            identities.len() as u32 - 1
        });
        item.identity = identity.into();
    }
    identities
}

/// The component's leader; halves the path on the way.
fn root(parent: &mut [u32], mut label: u32) -> u32 {
    while parent[label as usize] != label {
        parent[label as usize] = parent[parent[label as usize] as usize];
        label = parent[label as usize];
    }
    label
}

/// Refuses a probe without queries or without a gallery.
fn check_roles(probe: &Probe) -> Result<(), ProbeError> {
    let counts = [
        ("query", probe.queries().len()),
        ("gallery", probe.gallery().len()),
    ];
    match counts.into_iter().find(|&(_, count)| count == 0) {
        Some((role, _)) => Err(ProbeError::NoItemsOfRole {
            path: probe.origin.clone(),
            role,
            found: probe.items.len(),
        }),
        None => Ok(()),
    }
}

/// Refuses a probe in which nothing can be found.
fn check_searchable(probe: &Probe) -> Result<(), ProbeError> {
    let (queries, gallery) = (probe.queries(), probe.gallery());
    if let Some(qrels) = &probe.qrels {
        let finds = |&query: &usize| {
            let relevant = qrels.relevant_to(query).iter();
            let mut others = relevant.filter(|(item, _)| *item as usize != query);
            others.any(|&(item, _)| probe.items[item as usize].identity.is_some())
        };
        if queries.iter().any(finds) {
            return Ok(());
        }
        return Err(ProbeError::NothingJudgedRelevant {
            path: qrels.origin().to_path_buf(),
            queries: queries.len(),
            gallery: gallery.len(),
        });
    }
    let mut found_by_label = vec![0_usize; probe.labels.len()];
    for &item in &gallery {
        for &label in &probe.items[item].labels {
            found_by_label[label as usize] += 1;
        }
    }
    let has_relevant = |&query: &usize| {
        let query = &probe.items[query];
        let itself = usize::from(query.role.is_gallery());
        query
            .labels
            .iter()
            .any(|&label| found_by_label[label as usize] > itself)
    };
    if queries.iter().any(has_relevant) {
        return Ok(());
    }
    Err(ProbeError::NothingRelevant {
        path: probe.origin.clone(),
        queries: queries.len(),
        gallery: gallery.len(),
    })
}

/// What a probe holds, in numbers, for `--dry-run` and the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProbeSummary {
    /// All items, junk included.
    pub items: usize,
    /// Items that search; junk never does.
    pub queries: usize,
    /// Items that can be found, junk excluded.
    pub gallery: usize,
    /// Identities (connected components of the labels).
    pub identities: usize,
    /// Identities with at least one query: what statistics resample.
    pub query_identities: usize,
    /// Cameras, sources or sessions.
    pub cameras: usize,
    /// Items of identity -1.
    pub junk: usize,
    /// Gallery items that are relevant to no query.
    pub distractor_items: usize,
}

impl ProbeSummary {
    /// Counts the probe's items.
    pub fn of(probe: &Probe) -> Self {
        let (queries, gallery) = (probe.queries(), probe.gallery());
        let mut searched_label = vec![false; probe.labels.len()];
        let mut judged_relevant = vec![false; probe.items.len()];
        let mut searched_identity = vec![false; probe.identities.len()];
        for &query in &queries {
            let item = &probe.items[query];
            for &label in &item.labels {
                searched_label[label as usize] = true;
            }
            if let Some(identity) = item.identity.get() {
                searched_identity[identity as usize] = true;
            }
            if let Some(qrels) = &probe.qrels {
                for &(item, _) in qrels.relevant_to(query) {
                    judged_relevant[item as usize] = true;
                }
            }
        }
        let is_distractor = |&&item: &&usize| {
            let labels = &probe.items[item].labels;
            match probe.qrels {
                Some(_) => !judged_relevant[item],
                None => labels.iter().all(|&label| !searched_label[label as usize]),
            }
        };
        Self {
            items: probe.items.len(),
            queries: queries.len(),
            gallery: gallery.len(),
            identities: probe.identities.len(),
            query_identities: searched_identity
                .iter()
                .filter(|&&searched| searched)
                .count(),
            cameras: probe.cameras.len(),
            junk: probe
                .items
                .iter()
                .filter(|item| item.identity.is_none())
                .count(),
            distractor_items: gallery.iter().filter(is_distractor).count(),
        }
    }
}

/// All drafts of a reader, as its tests look at them.
#[cfg(test)]
#[derive(Debug)]
struct Drafts {
    items: Vec<Draft>,
    found: Found,
}

#[cfg(test)]
impl Drafts {
    fn collect(
        read: impl FnOnce(Take<'_>) -> Result<Found, ProbeError>,
    ) -> Result<Self, ProbeError> {
        let mut items: Vec<Draft> = Vec::new();
        let found = read(&mut |draft: Draft| {
            if let Some(first) = items.iter().position(|item| item.id == draft.id) {
                let id = draft.id;
                return Err(Twice { id, first });
            }
            items.push(draft);
            Ok(())
        })?;
        Ok(Self { items, found })
    }
}

#[cfg(test)]
impl std::ops::Deref for Drafts {
    type Target = Found;

    fn deref(&self) -> &Found {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    use tempfile::TempDir;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/data");

    /// A folder with a manifest of this name and text.
    fn folder(name: &str, text: &str) -> TempDir {
        let folder = TempDir::new().expect("a temporary folder");
        fs::write(folder.path().join(name), text).expect("a file in it");
        folder
    }

    fn load_text(name: &str, text: &str) -> Result<Probe, ProbeError> {
        load(folder(name, text).path(), &ProbeConfig::default())
    }

    fn identities(probe: &Probe) -> Vec<&str> {
        (0..probe.items.len())
            .map(|item| probe.identity_name(item))
            .collect()
    }

    #[test]
    fn the_emoji_manifest_is_read_whole() {
        let data = Path::new(FIXTURES).join("emoji");
        let probe = load(&data, &ProbeConfig::default()).unwrap();
        assert_eq!(
            ProbeSummary::of(&probe),
            ProbeSummary {
                items: 1073,
                queries: 335,
                gallery: 738,
                identities: 200,
                query_identities: 200,
                cameras: 6,
                junk: 0,
                distractor_items: 0,
            }
        );
        assert_eq!(probe.modality, Modality::Image);
        assert_eq!(probe.slice_columns, ["name", "licence"]);
        assert_eq!(probe.origin, data.join("labels.csv"));
        assert_eq!(probe.findings, []);
        let first = &probe.items[0];
        assert_eq!(first.id, "images/noto__2195.png");
        assert_eq!(
            first.source.as_deref(),
            Some(&Source::Image(data.join("images/noto__2195.png").into()))
        );
        assert_eq!(first.slice(1), Some("Apache-2.0"));
    }

    #[test]
    fn the_text_manifest_has_tensor_rows_and_keeps_its_texts() {
        let data = Path::new(FIXTURES).join("text");
        let probe = load(&data, &ProbeConfig::default()).unwrap();
        let summary = ProbeSummary::of(&probe);
        assert_eq!((summary.items, summary.queries), (1200, 600));
        assert_eq!((summary.gallery, summary.identities), (600, 600));
        assert_eq!(probe.modality, Modality::Tensor);
        assert_eq!(probe.tensors, Some(data.join("tokens.npz")));
        assert_eq!(probe.slice_columns, ["cls"]);
        assert_eq!(
            probe.items[2].source.as_deref(),
            Some(&Source::TensorRow(2))
        );
        assert!(probe.items[2].text().unwrap().starts_with("epidemic: "));
        assert_eq!(probe.findings[0].code, FindingCode::NoCameras);
    }

    #[test]
    fn a_role_under_another_name_is_found() {
        let codes = |text: &str| {
            let probe = load_text("labels.csv", text).unwrap();
            let codes = probe.findings.iter().map(|finding| finding.code);
            codes.collect::<Vec<_>>()
        };
        let misnamed = "text,identity,camera,split\nx,a,1,query\ny,a,2,Gallery\n";
        assert_eq!(codes(misnamed), [FindingCode::NoRoles]);
        assert_eq!(codes(&misnamed.replace("split", "role")), []);
        assert_eq!(codes(&misnamed.replace("query", "train")), []);
        assert_eq!(codes(&misnamed.replace("query", "")), []);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_not_passed_over() {
        let folder = TempDir::new().unwrap();
        let manifest = folder.path().join("labels.csv");
        fs::write(&manifest, "text,identity\nx,a\ny,a\n").unwrap();
        let qrels = folder.path().join("qrels.tsv");
        std::os::unix::fs::symlink("not/fetched", &qrels).unwrap();
        let error = load(folder.path(), &ProbeConfig::default()).unwrap_err();
        assert!(error.to_string().contains("qrels.tsv"), "{error}");
        assert!(
            error
                .hint()
                .unwrap()
                .contains("not/fetched, where nothing is")
        );
        fs::remove_file(&qrels).unwrap();
        load(folder.path(), &ProbeConfig::default()).unwrap();
        fs::remove_file(&manifest).unwrap();
        std::os::unix::fs::symlink("not/fetched", &manifest).unwrap();
        let error = load(folder.path(), &ProbeConfig::default()).unwrap_err();
        assert!(error.to_string().contains("labels.csv"), "{error}");
    }

    #[test]
    fn shared_labels_join_identities_named_by_the_first_label() {
        let probe = load_text(
            "labels.jsonl",
            r#"{"id": "a", "text": "x", "identity": ["z", "y"]}
               {"id": "b", "text": "x", "identity": "w"}
               {"id": "c", "text": "x", "identity": [7, "y"]}
               {"id": "d", "text": "x", "identity": 7}
               {"id": "e", "text": "x", "identity": -1}
               {"id": "f", "text": "x", "identity": "w"}"#,
        )
        .unwrap();
        assert_eq!(probe.labels, ["z", "y", "w", "7"]);
        assert_eq!(identities(&probe), ["z", "w", "z", "z", "-1", "w"]);
        assert_eq!(probe.identities, ["z", "w"]);
        assert_eq!(*probe.items[2].labels, [1, 3]);
        // Of one component, but without a shared label.
        assert!(!probe.items[0].is_relevant_to(&probe.items[3]));
        let summary = ProbeSummary::of(&probe);
        assert_eq!((summary.junk, summary.queries), (1, 5));
    }

    #[test]
    fn a_late_bridge_joins_identities_seen_before() {
        let probe = load_text(
            "labels.jsonl",
            r#"{"text": "x", "identity": "a"}
               {"text": "x", "identity": "b"}
               {"text": "x", "identity": "c"}
               {"text": "x", "identity": ["c", "b"]}"#,
        )
        .unwrap();
        assert_eq!(identities(&probe), ["a", "b", "b", "b"]);
        assert_eq!(probe.identities, ["a", "b"]);
    }

    #[test]
    fn distractors_share_no_label_with_a_query() {
        let probe = load_text(
            "manifest.csv",
            "path,identity,role\na.png,1,query\nb.png,1,gallery\nc.png,2,gallery\nd.png,-1,gallery\n",
        )
        .unwrap();
        let summary = ProbeSummary::of(&probe);
        assert_eq!(summary.distractor_items, 1);
        assert_eq!((summary.gallery, summary.junk), (2, 1));
        assert_eq!((summary.identities, summary.query_identities), (2, 1));
    }

    #[test]
    fn a_missing_data_path_is_named() {
        let error = load(Path::new("no/such/data"), &ProbeConfig::default()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such/data: "));
        assert!(error.hint().unwrap().contains("working directory"));
    }

    #[test]
    fn two_manifests_are_both_named() {
        let folder = folder("manifest.csv", "path,identity\n");
        fs::write(folder.path().join("labels.jsonl"), "").unwrap();
        let error = load(folder.path(), &ProbeConfig::default()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.ends_with(": two manifests: labels.jsonl and manifest.csv"),
            "{message}"
        );
        assert!(error.hint().unwrap().contains("as DATA"));
    }

    #[test]
    fn a_manifest_file_may_have_any_name_of_a_known_format() {
        let folder = folder("probe.CSV", "path,identity\na.png,1\nb.png,1\n");
        let file = folder.path().join("probe.CSV");
        assert_eq!(load(&file, &ProbeConfig::default()).unwrap().items.len(), 2);
        let model = folder.path().join("model.onnx");
        fs::write(&model, "").unwrap();
        let error = load(&model, &ProbeConfig::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("model.onnx: expected a manifest")
        );
    }

    #[test]
    fn a_manifest_wins_over_folders() {
        let folder = folder("manifest.csv", "path,identity\nquery/a.png,1\nb.png,1\n");
        fs::create_dir(folder.path().join("query")).unwrap();
        let probe = load(folder.path(), &ProbeConfig::default()).unwrap();
        assert_eq!(probe.items[0].id, "query/a.png");
    }

    #[test]
    fn tensors_without_a_manifest_are_refused() {
        let folder = TempDir::new().unwrap();
        let config = ProbeConfig {
            tensors: Some("tokens.npz".into()),
            ..ProbeConfig::default()
        };
        let error = load(folder.path(), &config).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("tokens.npz: tensors need a manifest")
        );
        assert!(error.hint().unwrap().contains("manifest.csv"));
    }

    #[test]
    fn a_probe_needs_queries_and_a_gallery() {
        let error = load_text("manifest.csv", "path,identity,role\na,1,query\nb,1,query\n");
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("none of the 2 items is a gallery item with an identity"));
        let error = load_text(
            "manifest.csv",
            "path,identity,role\na,-1,query\nb,1,gallery\n",
        );
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("none of the 2 items is a query item with an identity"));
    }

    #[test]
    fn identities_of_one_item_only_find_nothing() {
        let error = load_text("manifest.csv", "path,identity\na.png,1\nb.png,2\n").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("none of the 2 queries shares an identity")
        );
        assert!(error.hint().unwrap().contains("at least two items"));
        let roles = "path,identity,role\na.png,1,query\nb.png,2,gallery\n";
        assert!(matches!(
            load_text("manifest.csv", roles),
            Err(ProbeError::NothingRelevant {
                queries: 1,
                gallery: 1,
                ..
            })
        ));
    }
}
