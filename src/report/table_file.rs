//! A rendered table until it is written to the report's folder.

use std::io::{self, Seek, Write};
use std::path::Path;

use tempfile::SpooledTempFile;

/// Bytes of a table that are held in memory.
const IN_MEMORY: usize = 32 << 20;

/// A rendered table: in memory while it is small, else in a temporary file, which has no name and is gone with the process.
///
/// Of ten million items the tables take 700 MB together.
#[derive(Debug)]
pub struct TableFile(SpooledTempFile);

impl TableFile {
    /// Nothing rendered yet. A large table lies in `scratch`, a folder that exists, or where the system has its temporary
    /// files.
    pub fn new(scratch: Option<&Path>) -> Self {
        Self(match scratch {
            Some(folder) => tempfile::spooled_tempfile_in(IN_MEMORY, folder),
            None => tempfile::spooled_tempfile(IN_MEMORY),
        })
    }

    /// Writes all that was rendered.
    ///
    /// # Errors
    /// The temporary file cannot be read, or `to` not written.
    pub fn copy_to(&mut self, to: &mut impl Write) -> io::Result<()> {
        self.0.rewind()?;
        io::copy(&mut self.0, to).map(|_| ())
    }
}

impl Write for TableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rendered_comes_back_from_memory_and_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1000, IN_MEMORY + 1] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut table = TableFile::new(Some(folder.path()));
            table.write_all(&bytes).unwrap();
            assert_eq!(table.0.is_rolled(), length > IN_MEMORY);
            for _ in 0..2 {
                let mut copied = Vec::new();
                table.copy_to(&mut copied).unwrap();
                assert!(copied == bytes);
            }
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
