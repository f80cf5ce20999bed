//! Ctrl-C: folders and files that are half-written are removed, then the process ends with 130.
//!
//! The handler runs on a thread of its own while others write. Whoever touches a half-written file holds [`Turn`];
//! the handler takes it and never gives it back, so nothing is written or moved once it has begun to clean up.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Exit code of a process ended by SIGINT, as shells give it.
const INTERRUPTED: i32 = 130;

/// Attempts to remove a folder that its owner is removing at the same moment.
const ATTEMPTS: usize = 100;

static HALF_WRITTEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The right to write or move half-written files. Held for one step, never while waiting or computing.
pub struct Turn(MutexGuard<'static, Vec<PathBuf>>);

/// Waits for the turn; once an interrupt cleans up, for ever.
pub fn turn() -> Turn {
    // What a panicking owner announced is as half-written as before.
    Turn(HALF_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Turn {
    /// Announces a temporary file or folder, made within this turn.
    pub fn announce(mut self, path: &Path) -> HalfWritten {
        self.0.push(path.to_owned());
        HalfWritten(path.to_owned())
    }
}

/// While it lives, an interrupt removes the path.
pub struct HalfWritten(PathBuf);

impl Drop for HalfWritten {
    fn drop(&mut self) {
        turn().0.retain(|path| *path != self.0);
    }
}

/// Installs the handler; a second call does nothing.
pub fn install() {
    // An error means that a handler is there already.
    let _ = ctrlc::set_handler(|| {
        let turn = turn();
        turn.0.iter().for_each(|path| remove(path));
        let _ = writeln!(std::io::stderr(), "interrupted");
        // Without exit handlers: C++ destructors would take ONNX Runtime's globals away from under a running model.
        signal_hook::low_level::exit(INTERRUPTED);
    });
}

/// Removes a file or folder. Its owner may be removing it too, which makes one of both stumble over missing entries.
fn remove(path: &Path) {
    for _ in 0..ATTEMPTS {
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
        if removed.is_ok() || path.symlink_metadata().is_err() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The handler's steps without the exit.
    #[test]
    fn nothing_is_written_once_the_cleaning_has_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("half");
        let announced = {
            let turn = turn();
            std::fs::create_dir(&path).expect("made");
            turn.announce(&path)
        };
        let cleaning = turn();
        assert!(cleaning.0.contains(&path));
        let own = path.clone();
        let (started, hears) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            started.send(()).expect("heard");
            let _turn = turn();
            std::fs::write(own.join("late"), "x").is_ok()
        });
        hears.recv().expect("started");
        remove(&path);
        assert!(!path.exists());
        drop(cleaning);
        assert!(!writer.join().expect("ended"), "its folder was gone");
        drop(announced);
        assert!(!turn().0.contains(&path));
    }
}
