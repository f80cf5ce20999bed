//! Ctrl-C and SIGTERM, which containers and CI systems send: folders and files that are half-written are removed, then the
//! process ends with 130 or 143.
//!
//! The handler runs on a thread of its own while others write. Whoever touches a half-written file holds [`Turn`];
//! the handler takes it and never gives it back, so nothing is written or moved once it has begun to clean up.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

use crate::domain::folder_of;

/// Exit code of a process ended by SIGINT, as shells give it.
const INTERRUPTED: i32 = 130;

/// The same of SIGTERM.
#[cfg(unix)]
const TERMINATED: i32 = 143;

/// What the names of half-written files and folders begin with.
pub const STAGING: &str = ".compat-audit-";

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

/// A file that takes its place whole or not at all: until [`WholeFile::persist`] it lies beside it under another name, and an
/// interrupt or an error removes it.
pub struct WholeFile {
    file: NamedTempFile,
    announced: HalfWritten,
}

impl WholeFile {
    /// A file in the folder of `path`, with its extension and the rights of any other new file.
    ///
    /// # Errors
    /// It cannot be made there.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(STAGING);
        let suffix = path.extension().map(|extension| {
            let mut suffix = std::ffi::OsString::from(".");
            suffix.push(extension);
            suffix
        });
        if let Some(suffix) = &suffix {
            builder.suffix(suffix);
        }
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let turn = turn();
        let file = builder.tempfile_in(folder_of(path))?;
        let announced = turn.announce(file.path());
        Ok(Self { file, announced })
    }

    /// Where it lies until then.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The file itself.
    pub fn file_mut(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Moves it to `path`, over what is there.
    ///
    /// # Errors
    /// The file system's; nothing is left then.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        let Self { file, announced } = self;
        let moved = {
            let _turn = turn();
            file.persist(path)
        };
        // Its owner takes the turn once more.
        drop(announced);
        moved.map(drop).map_err(|error| error.error)
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Installs the handlers; a second call does nothing.
pub fn install() {
    // An error means that a handler is there already.
    let installed = ctrlc::set_handler(|| clean_up("interrupted", INTERRUPTED));
    #[cfg(unix)]
    if installed.is_ok() {
        // Not by ctrlc, which would take SIGHUP too, and with it what `nohup` asks for.
        let signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]);
        if let Ok(mut signals) = signals {
            std::thread::spawn(move || {
                if signals.forever().next().is_some() {
                    clean_up("terminated", TERMINATED);
                }
            });
        }
    }
    #[cfg(not(unix))]
    let _ = installed;
}

/// Removes what is half-written and ends the process.
fn clean_up(said: &str, code: i32) {
    let turn = turn();
    turn.0.iter().for_each(|path| remove(path));
    let _ = writeln!(std::io::stderr(), "{said}");
    // Without exit handlers: C++ destructors would take ONNX Runtime's globals away from under a running model.
    signal_hook::low_level::exit(code);
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

    #[test]
    fn a_file_takes_its_place_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, "earlier").expect("written");
        let names = || std::fs::read_dir(folder.path()).expect("listed").count();
        let mut whole = WholeFile::beside(&path).expect("made");
        assert!(whole.path().extension().is_some_and(|own| own == "toml"));
        assert!(turn().0.contains(&whole.path().to_owned()));
        whole.write_all(b"later").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), b"earlier");
        whole.persist(&path).expect("moved");
        assert_eq!(std::fs::read(&path).expect("read"), b"later");
        drop(WholeFile::beside(&path).expect("made"));
        assert_eq!(names(), 1);
    }

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
