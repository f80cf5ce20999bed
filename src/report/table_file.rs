//! A rendered table until it is written to the report's folder.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

/// Bytes of a table that are held in memory.
const IN_MEMORY: usize = 8 << 20;

/// A rendered table: in memory while it is small, else in a temporary file, which has no name and is gone with the process.
///
/// Of ten million items the tables take 700 MB together. Where no temporary file can be made they stay in memory: an audit
/// of hours should not end there.
#[derive(Debug)]
pub struct TableFile {
    folder: PathBuf,
    most_in_memory: usize,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Memory(Vec<u8>),
    File(File),
}

impl TableFile {
    /// Nothing rendered yet. A large table lies in `scratch`, a folder that exists, or where the system has its temporary
    /// files.
    pub fn new(scratch: Option<&Path>) -> Self {
        Self {
            folder: Self::folder(scratch),
            most_in_memory: IN_MEMORY,
            held: Held::Memory(Vec::new()),
        }
    }

    /// Where a large table lies.
    pub fn folder(scratch: Option<&Path>) -> PathBuf {
        scratch.map_or_else(std::env::temp_dir, Path::to_owned)
    }

    /// Writes all that was rendered.
    ///
    /// # Errors
    /// The temporary file cannot be read, or `to` not written.
    pub fn copy_to(&mut self, to: &mut impl Write) -> io::Result<()> {
        match &mut self.held {
            Held::Memory(bytes) => to.write_all(bytes),
            Held::File(file) => {
                file.rewind()?;
                io::copy(file, to).map(|_| ())
            }
        }
    }
}

impl Write for TableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Held::Memory(kept) = &mut self.held
            && kept.len() + bytes.len() > self.most_in_memory
        {
            match tempfile::tempfile_in(&self.folder) {
                Ok(mut file) => {
                    file.write_all(kept)?;
                    self.held = Held::File(file);
                }
                Err(_) => self.most_in_memory = usize::MAX,
            }
        }
        match &mut self.held {
            Held::Memory(kept) => kept.write(bytes),
            Held::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.held {
            Held::Memory(_) => Ok(()),
            Held::File(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written in pieces; whether it lies in a file, and that it comes back, twice.
    fn lies_in_a_file(length: usize, folder: &Path) -> bool {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let mut table = TableFile::new(Some(folder));
        table.most_in_memory = 1000;
        for piece in bytes.chunks(300) {
            table.write_all(piece).unwrap();
        }
        table.flush().unwrap();
        for _ in 0..2 {
            let mut copied = Vec::new();
            table.copy_to(&mut copied).unwrap();
            assert_eq!(copied, bytes);
        }
        matches!(table.held, Held::File(_))
    }

    #[test]
    fn what_was_rendered_comes_back_from_memory_and_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let lengths = [0, 1000, 1001, 5000];
        let in_file = lengths.map(|length| lies_in_a_file(length, folder.path()));
        assert_eq!(in_file, [false, false, true, true]);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn without_a_folder_for_temporary_files_it_stays_in_memory() {
        assert!(!lies_in_a_file(5000, Path::new("/no/such/folder")));
    }
}
