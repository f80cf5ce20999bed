//! Folders of images whose names say what the items are.
//!
//! Two layouts: `query/` and `gallery/`, each with one folder per identity or flat names as in
//! Market-1501 (Zheng et al., ICCV 2015); or one folder per identity, every item query and gallery.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::domain::{Finding, FindingCode, Modality, Role, Severity, Source};

use super::{Draft, Found, JUNK, ProbeError, Take, UNLABELLED, is_image};

/// The gallery's folder: ours, and Market-1501's.
const GALLERY_FOLDERS: [&str; 2] = ["gallery", "bounding_box_test"];

/// Reads a folder without a manifest; items are sorted bytewise by id, the path below `root` with `/`.
///
/// `label_free`: names of folders and files say nothing, so images may lie at any depth.
pub(super) fn read(root: &Path, label_free: bool, take: Take<'_>) -> Result<Found, ProbeError> {
    let mut ignored = Ignored::default();
    let mut items = match sides(root)? {
        Some(sides) => {
            let mut items = Vec::new();
            for (folder, role) in sides {
                let images = walk(&root.join(folder), &mut ignored)?;
                items.extend(if label_free {
                    unlabelled(folder, images, role)
                } else {
                    read_side(folder, images, role)?
                });
            }
            ignored.folders = other_folders(root, sides)?;
            items
        }
        None => {
            let images = walk(root, &mut ignored)?;
            if label_free {
                unlabelled("", images, Role::Both)
            } else {
                drafts_by_folder("", images, Role::Both)?
            }
        }
    };
    items.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
    for item in items {
        take(item).expect("one file has one path");
    }
    Ok(Found {
        names_roles: true,
        slice_columns: Vec::new(),
        modality: Modality::Image,
        origin: root.to_path_buf(),
        tensors: None,
        camera_like_column: None,
        identities_given: !label_free,
        findings: ignored.finding().into_iter().collect(),
    })
}

/// The two folders of a query-and-gallery layout, `None` for one folder per identity.
fn sides(root: &Path) -> Result<Option<[(&'static str, Role); 2]>, ProbeError> {
    let has_query = root.join("query").is_dir();
    let [gallery, market] = GALLERY_FOLDERS.map(|name| root.join(name).is_dir().then_some(name));
    let half = |present, expected| ProbeError::HalfLayout {
        folder: root.to_path_buf(),
        present,
        expected,
    };
    match (has_query, gallery, market) {
        (_, Some(first), Some(second)) => Err(ProbeError::TwoCandidates {
            folder: root.to_path_buf(),
            what: "gallery folders",
            first: root.join(first),
            second: root.join(second),
        }),
        (true, None, None) => Err(half("query", "gallery")),
        (true, Some(name), None) | (true, None, Some(name)) => {
            Ok(Some([("query", Role::Query), (name, Role::Gallery)]))
        }
        (false, Some(name), None) | (false, None, Some(name)) => Err(half(name, "query")),
        (false, None, None) => Ok(None),
    }
}

/// Whether the walk of `root` comes to `below`, a path below it.
pub(super) fn walks_into(root: &Path, below: &Path) -> bool {
    let names: Vec<_> = below.iter().map(|name| name.to_string_lossy()).collect();
    let is_walked = match sides(root) {
        Ok(Some(sides)) => names
            .first()
            .is_some_and(|first| sides.iter().any(|(side, _)| first == side)),
        Ok(None) => true,
        // No probe at all, which is said elsewhere.
        Err(_) => false,
    };
    is_walked && !names.iter().any(|name| is_hidden(name))
}

/// Folders beside the two sides, such as Market-1501's `bounding_box_train`.
fn other_folders(root: &Path, sides: [(&str, Role); 2]) -> Result<Vec<String>, ProbeError> {
    let entries = list(root)?;
    Ok(entries
        .into_iter()
        .filter(|entry| entry.is_folder && !is_hidden(&entry.name))
        .filter(|entry| sides.iter().all(|(side, _)| entry.name != *side))
        .map(|entry| entry.name)
        .collect())
}

/// One side: folders per identity, or flat names, not both.
fn read_side(
    folder: &'static str,
    images: Vec<Image>,
    role: Role,
) -> Result<Vec<Draft>, ProbeError> {
    let flat = images.iter().filter(|image| image.below.len() == 1).count();
    if flat < images.len() {
        return drafts_by_folder(folder, images, role);
    }
    images
        .into_iter()
        .map(|image| {
            let name = &image.below[0];
            let (identity, camera) = market_name(name).ok_or_else(|| ProbeError::MarketName {
                path: image.path.clone(),
            })?;
            let camera = Some(camera.to_owned());
            Ok(draft(image.id(folder), identity, camera, role, &image.path))
        })
        .collect()
}

/// Images of which only the role is known.
fn unlabelled(side: &str, images: Vec<Image>, role: Role) -> Vec<Draft> {
    let draft = |image: Image| draft(image.id(side), UNLABELLED, None, role, &image.path);
    images.into_iter().map(draft).collect()
}

/// One folder per identity.
fn drafts_by_folder(side: &str, images: Vec<Image>, role: Role) -> Result<Vec<Draft>, ProbeError> {
    images
        .into_iter()
        .map(|image| {
            let [identity, _, ..] = image.below.as_slice() else {
                return Err(ProbeError::LooseImage { path: image.path });
            };
            Ok(draft(image.id(side), identity, None, role, &image.path))
        })
        .collect()
}

fn draft(id: String, identity: &str, camera: Option<String>, role: Role, path: &Path) -> Draft {
    let labels = if identity == JUNK {
        Vec::new()
    } else {
        vec![identity.to_owned()]
    };
    Draft {
        id,
        labels,
        camera,
        role,
        row: None,
        source: Some(Source::Image(path.into())),
        text: None,
        shown: None,
        slices: Vec::new(),
    }
}

/// Identity and camera of a name as in Market-1501 (`0001_c1s1_000151_01.jpg`) or DukeMTMC-reID
/// (`0001_c2_f0046182.jpg`): `("0001", "c1")`.
///
/// `-1` is junk. `0000`, Market's distractors, is an identity like any other that no query has.
fn market_name(name: &str) -> Option<(&str, &str)> {
    let (identity, rest) = name.split_once('_')?;
    let digits = identity.strip_prefix('-').unwrap_or(identity);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(digits) || (digits != identity && identity != JUNK) {
        return None;
    }
    let number_end = rest
        .strip_prefix('c')?
        .find(|character: char| !character.is_ascii_digit())?
        + 1;
    let (camera, after) = rest.split_at(number_end);
    let is_sequence = |text: &str| {
        let end = text.find('_').unwrap_or(text.len());
        text.strip_prefix('s')
            .is_some_and(|_| is_number(&text[1..end]))
    };
    (is_number(&camera[1..]) && (after.starts_with('_') || is_sequence(after)))
        .then_some((identity, camera))
}

/// An image file and its path below the walked folder.
struct Image {
    path: PathBuf,
    below: Vec<String>,
}

impl Image {
    /// The path below the probe's folder, with `/`; `side` is the part that was walked, or nothing.
    fn id(&self, side: &str) -> String {
        let below = self.below.join("/");
        if side.is_empty() {
            below
        } else {
            format!("{side}/{below}")
        }
    }
}

/// Files and folders that were passed over.
#[derive(Default)]
struct Ignored {
    /// Count by extension (hidden files under `hidden`), sorted.
    files: BTreeMap<String, usize>,
    folders: Vec<String>,
}

impl Ignored {
    fn count(&mut self, name: &str) {
        // The audit's own configuration lies beside the data and is read.
        if name == "audit.toml" {
            return;
        }
        let kind = match Path::new(name).extension() {
            _ if is_hidden(name) => "hidden".to_owned(),
            Some(extension) => format!(".{}", extension.to_string_lossy().to_lowercase()),
            None => "no extension".to_owned(),
        };
        *self.files.entry(kind).or_default() += 1;
    }

    fn n_files(&self) -> usize {
        self.files.values().sum()
    }

    fn finding(&self) -> Option<Finding> {
        let mut parts = Vec::new();
        if !self.files.is_empty() {
            let kinds: Vec<String> = self
                .files
                .iter()
                .map(|(kind, count)| format!("{kind}: {count}"))
                .collect();
            parts.push(format!(
                "{} files that are not png, jpg, webp or bmp ({})",
                self.n_files(),
                kinds.join(", ")
            ));
        }
        if !self.folders.is_empty() {
            parts.push(format!(
                "folders beside query and gallery ({})",
                self.folders.join(", ")
            ));
        }
        let message = format!("not read: {}", parts.join("; "));
        (!parts.is_empty())
            .then(|| Finding::new(FindingCode::FilesIgnored, Severity::Info, message))
    }
}

/// All images below `folder`, at any depth. Links are followed.
///
/// # Errors
/// A folder cannot be read, a link leads back up, a name is not UTF-8, or there is no image.
fn walk(folder: &Path, ignored: &mut Ignored) -> Result<Vec<Image>, ProbeError> {
    let already_ignored = ignored.n_files();
    let mut images = Vec::new();
    let mut ancestors = Vec::new();
    walk_into(
        folder,
        &mut Vec::new(),
        &mut ancestors,
        &mut images,
        ignored,
    )?;
    if images.is_empty() {
        return Err(ProbeError::NoImages {
            folder: folder.to_path_buf(),
            ignored: ignored.n_files() - already_ignored,
        });
    }
    Ok(images)
}

fn walk_into(
    folder: &Path,
    below: &mut Vec<String>,
    ancestors: &mut Vec<PathBuf>,
    images: &mut Vec<Image>,
    ignored: &mut Ignored,
) -> Result<(), ProbeError> {
    let real = fs::canonicalize(folder).map_err(|source| ProbeError::read(folder, source))?;
    if ancestors.contains(&real) {
        return Err(ProbeError::LinkLoop {
            path: folder.to_path_buf(),
            target: real,
        });
    }
    ancestors.push(real);
    for entry in list(folder)? {
        if entry.is_folder {
            if !is_hidden(&entry.name) {
                below.push(entry.name);
                walk_into(&entry.path, below, ancestors, images, ignored)?;
                below.pop();
            }
        } else if is_hidden(&entry.name) || !is_image(&entry.path) {
            ignored.count(&entry.name);
        } else {
            let mut below = below.clone();
            below.push(entry.name);
            images.push(Image {
                path: entry.path,
                below,
            });
        }
    }
    ancestors.pop();
    Ok(())
}

/// A name in a folder.
struct Entry {
    path: PathBuf,
    name: String,
    is_folder: bool,
}

/// The folder's entries, sorted by name, so that errors and counts do not depend on the file system.
fn list(folder: &Path) -> Result<Vec<Entry>, ProbeError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| ProbeError::read(folder, source))? {
        let path = entry
            .map_err(|source| ProbeError::read(folder, source))?
            .path();
        // A dangling link counts as a file: the embed stage says that the image cannot be read.
        let is_folder = match fs::metadata(&path) {
            Ok(metadata) => metadata.is_dir(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(source) => return Err(ProbeError::read(&path, source)),
        };
        let name = path.file_name().unwrap_or_default();
        let name = match name.to_str() {
            Some(name) => name.to_owned(),
            None if is_folder || is_image(&path) => return Err(ProbeError::NameNotUtf8 { path }),
            None => name.to_string_lossy().into_owned(),
        };
        entries.push(Entry {
            path,
            name,
            is_folder,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    use tempfile::TempDir;

    use super::super::Drafts;

    /// A folder with these (empty) files; whether an image can be decoded is no matter here.
    fn folder(files: &[&str]) -> TempDir {
        let root = TempDir::new().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    fn read(root: &Path) -> Result<Drafts, ProbeError> {
        Drafts::collect(|take| super::read(root, false, take))
    }

    fn read_files(files: &[&str]) -> Result<Drafts, ProbeError> {
        read(folder(files).path())
    }

    fn summary(drafts: &Drafts) -> Vec<(&str, Option<&str>, Option<&str>, Role)> {
        drafts
            .items
            .iter()
            .map(|item| {
                let label = item.labels.first().map(String::as_str);
                (item.id.as_str(), label, item.camera.as_deref(), item.role)
            })
            .collect()
    }

    #[test]
    fn one_folder_per_identity_is_query_and_gallery() {
        let drafts = read_files(&["b/1.PNG", "a/x/2.jpeg", "ä/3.webp", "B/4.bmp", "-1/5.jpg"]);
        assert_eq!(
            summary(&drafts.unwrap()),
            [
                ("-1/5.jpg", None, None, Role::Both),
                ("B/4.bmp", Some("B"), None, Role::Both),
                ("a/x/2.jpeg", Some("a"), None, Role::Both),
                ("b/1.PNG", Some("b"), None, Role::Both),
                ("ä/3.webp", Some("ä"), None, Role::Both),
            ]
        );
    }

    #[test]
    fn query_and_gallery_hold_identity_folders() {
        let drafts = read_files(&["query/7/a.png", "gallery/7/b.png", "gallery/8/c.png"]).unwrap();
        assert_eq!(
            summary(&drafts),
            [
                ("gallery/7/b.png", Some("7"), None, Role::Gallery),
                ("gallery/8/c.png", Some("8"), None, Role::Gallery),
                ("query/7/a.png", Some("7"), None, Role::Query),
            ]
        );
        assert_eq!(drafts.findings, []);
    }

    #[test]
    fn market_1501_is_read_by_its_names() {
        let drafts = read_files(&[
            "query/0001_c1s1_001051_00.jpg",
            "bounding_box_test/-1_c3s2_000001_00.jpg",
            "bounding_box_test/0000_c1s1_000151_01.jpg",
            "bounding_box_test/0001_c2s1_000301_00.jpg",
            "bounding_box_test/Thumbs.db",
            "bounding_box_test/.DS_Store",
            "bounding_box_train/0002_c1s1_000451_03.jpg",
        ])
        .unwrap();
        let gallery = |name| format!("bounding_box_test/{name}");
        let expected = [
            (gallery("-1_c3s2_000001_00.jpg"), None, "c3", Role::Gallery),
            (
                gallery("0000_c1s1_000151_01.jpg"),
                Some("0000"),
                "c1",
                Role::Gallery,
            ),
            (
                gallery("0001_c2s1_000301_00.jpg"),
                Some("0001"),
                "c2",
                Role::Gallery,
            ),
            (
                "query/0001_c1s1_001051_00.jpg".into(),
                Some("0001"),
                "c1",
                Role::Query,
            ),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(id, label, camera, role)| (id.as_str(), *label, Some(*camera), *role))
            .collect();
        assert_eq!(summary(&drafts), expected);
        assert_eq!(drafts.findings[0].code, FindingCode::FilesIgnored);
        assert_eq!(
            drafts.findings[0].message,
            "not read: 2 files that are not png, jpg, webp or bmp (.db: 1, hidden: 1); \
             folders beside query and gallery (bounding_box_train)"
        );
    }

    #[test]
    fn market_names_are_told_from_others() {
        assert_eq!(market_name("0001_c1s1_000151_01.jpg"), Some(("0001", "c1")));
        assert_eq!(market_name("0005_c12_f0051341.jpg"), Some(("0005", "c12")));
        assert_eq!(market_name("-1_c2s3_01.jpg"), Some(("-1", "c2")));
        for name in [
            "cat.jpg",
            "0001.jpg",
            "0001_1.jpg",
            "0001_c.jpg",
            "0001_c1.jpg",
            "0001_c1x_1.jpg",
            "0001_c1s_1.jpg",
            "-2_c1s1_1.jpg",
            "_c1s1_1.jpg",
            "a1_c1s1_1.jpg",
            "0001_cé_1.jpg",
        ] {
            assert_eq!(market_name(name), None, "{name}");
        }
    }

    #[test]
    fn flat_names_that_say_nothing_are_refused() {
        let error = read_files(&["query/cat.png", "gallery/0001_c1s1_1.png"]).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("query/cat.png: expected a name like 0001_c1s1"),
            "{message}"
        );
    }

    #[test]
    fn half_a_layout_is_refused() {
        let error = read_files(&["query/1/a.png", "x/b.png"]).unwrap_err();
        assert!(
            error.to_string().ends_with(" has query/ but no gallery/"),
            "{error}"
        );
        let error = read_files(&["bounding_box_test/0001_c1s1_1.png"]).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with(" has bounding_box_test/ but no query/"),
            "{error}"
        );
    }

    #[test]
    fn two_galleries_are_both_named() {
        let error = read_files(&[
            "query/1/a.png",
            "gallery/1/b.png",
            "bounding_box_test/x.png",
        ]);
        let error = error.unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with(": two gallery folders: gallery and bounding_box_test"),
            "{error}"
        );
        assert_eq!(error.hint().as_deref(), Some("keep one of the two"));
    }

    #[test]
    fn images_beside_identity_folders_are_refused() {
        for files in [
            ["a/1.png", "a/2.png", "loose.png"],
            ["query/a/1.png", "gallery/a/2.png", "gallery/loose.png"],
        ] {
            let error = read_files(&files).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("loose.png lies beside identity folders")
            );
        }
    }

    #[test]
    fn folders_without_images_are_refused() {
        let error = read_files(&["a/x.gif", "a/.hidden.png", ".git/b.png", "README"]).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with(" holds no images (other files: 3)"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("manifest.csv"));
        let error = read_files(&["query/a/1.png", "gallery/a/x.txt"]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("gallery holds no images (other files: 1)"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_refused() {
        use std::os::unix::fs::symlink;
        let elsewhere = folder(&["1.png"]);
        let root = folder(&["a/2.png"]);
        symlink(elsewhere.path(), root.path().join("b")).unwrap();
        symlink("2.png", root.path().join("a/3.png")).unwrap();
        symlink("gone.png", root.path().join("a/4.png")).unwrap();
        let drafts = read(root.path()).unwrap();
        let ids: Vec<&str> = drafts.items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, ["a/2.png", "a/3.png", "a/4.png", "b/1.png"]);

        symlink("..", root.path().join("a/up")).unwrap();
        let error = read(root.path()).unwrap_err();
        assert!(error.to_string().contains("a/up links back to "), "{error}");
        fs::remove_file(root.path().join("a/up")).unwrap();

        symlink("itself.png", root.path().join("a/itself.png")).unwrap();
        let error = read(root.path()).unwrap_err();
        assert!(error.to_string().contains("itself.png"), "{error}");
        assert!(matches!(error, ProbeError::Read { .. }));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_not_utf8_is_refused() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let root = folder(&["a/1.png"]);
        let name = OsStr::from_bytes(b"a/\xff.png");
        fs::write(root.path().join(name), "").unwrap();
        let error = read(root.path()).unwrap_err();
        assert!(
            error.to_string().ends_with(".png is not valid UTF-8"),
            "{error}"
        );
        assert_eq!(error.hint().as_deref(), Some("rename the file"));
    }
}
