//! What is asked of paths in more than one place.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// The folder that a file is in: that of `file.txt` is the working directory.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Whether there is a file, or a link that leads nowhere: whoever put it there meant a file, and passing it over would be silent.
pub fn is_named(path: &Path) -> bool {
    path.is_file() || broken_link(path).is_some()
}

/// What to do about a path that is a link which leads nowhere.
pub fn broken_link(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok().filter(|_| !path.exists())?;
    Some(format!(
        "the link leads to {}, where nothing is: fetch or mount it, or remove the link",
        target.display()
    ))
}

/// A path as JSON holds it: what is no UTF-8 in it is replaced.
///
/// # Errors
/// The serializer's.
pub fn in_utf8<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = path.as_deref().map(Path::to_string_lossy);
    text.serialize(serializer)
}
