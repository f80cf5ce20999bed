//! Ctrl-C: folders and files that are half-written are removed, then the process ends with 130.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Exit code of a process ended by SIGINT, as shells give it.
const INTERRUPTED: i32 = 130;

static HALF_WRITTEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// While it lives, an interrupt removes the path.
pub struct HalfWritten(PathBuf);

impl HalfWritten {
    /// Announces a temporary file or folder.
    pub fn announce(path: &Path) -> Self {
        if let Ok(mut paths) = HALF_WRITTEN.lock() {
            paths.push(path.to_owned());
        }
        Self(path.to_owned())
    }
}

impl Drop for HalfWritten {
    fn drop(&mut self) {
        if let Ok(mut paths) = HALF_WRITTEN.lock() {
            paths.retain(|path| *path != self.0);
        }
    }
}

/// Installs the handler; a second call does nothing.
pub fn install() {
    // An error means that a handler is there already.
    let _ = ctrlc::set_handler(|| {
        for path in HALF_WRITTEN
            .lock()
            .map(|paths| paths.clone())
            .unwrap_or_default()
        {
            // The path may have been moved into place in this very moment; then nothing is half-written.
            let _ = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
        }
        let _ = writeln!(std::io::stderr(), "interrupted");
        std::process::exit(INTERRUPTED);
    });
}
