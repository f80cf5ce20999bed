//! A read-only file mapped into memory, and the only `unsafe` code that storage needs.
//!
//! # When someone else changes the file
//! A mapping shows what the file holds at the moment of a read. Replacing the file (write beside, rename over) is
//! harmless: the open handle keeps the old one. Two things are not, and no program can lock them out:
//! - values overwritten in place would be read as they are then. [`Mapped::is_unchanged`] compares length and
//!   modification time with those at opening, and the audit asks before it reports;
//! - a file cut short while pages of it are still to be read ends the process with SIGBUS: no report, never a wrong one.
//!   The length is checked when the file is opened, so a file that already is too short is an error as any other.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use memmap2::{Mmap, MmapOptions};

/// What a touch costs at most: Linux maps 64 KiB around a page that is touched (`fault_around_bytes`), and the whole huge page
/// where the page cache holds one.
const CHUNK: usize = 2 << 20;

/// A mapped file, of which at most about `resident` bytes stay in this process's memory.
///
/// Pages that were read stay in the system's page cache, which it may reclaim at any time, but count as memory of this
/// process until they are unmapped. So chunks are counted when they are first touched, and all are given back together
/// once they would exceed the limit; touching one again costs a soft fault, not a read of the disk.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    file: File,
    modified: Option<SystemTime>,
    touched: Box<[AtomicBool]>,
    n_touched: AtomicUsize,
    max_touched: usize,
}

impl Mapped {
    /// Maps the whole file.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn new(file: File, resident: usize) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let length = usize::try_from(metadata.len()).map_err(io::Error::other)?;
        // SAFETY: the bytes behind a shared mapping may change under the reader when another process writes to the
        // file. They are only ever read as plain bytes and copied out as numbers, every bit pattern of which is valid,
        // and no decision that memory safety rests on (lengths, indices) is read from them. See the module's comment
        // for what a change does to the results, and to a file that shrinks.
        let map = unsafe { MmapOptions::new().len(length).map(&file)? };
        Ok(Self {
            modified: metadata.modified().ok(),
            touched: (0..length.div_ceil(CHUNK))
                .map(|_| AtomicBool::new(false))
                .collect(),
            n_touched: AtomicUsize::new(0),
            max_touched: (resident / CHUNK).max(1),
            map,
            file,
        })
    }

    /// Bytes of the file when it was opened.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the file had no bytes.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The bytes of a range.
    ///
    /// # Panics
    /// When the range ends after the file.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        let bytes = &self.map[range.clone()];
        for chunk in range.start / CHUNK..range.end.div_ceil(CHUNK) {
            // Relaxed: the flags only count, they order nothing.
            if !self.touched[chunk].load(Ordering::Relaxed)
                && !self.touched[chunk].swap(true, Ordering::Relaxed)
                && self.n_touched.fetch_add(1, Ordering::Relaxed) >= self.max_touched
            {
                self.give_back();
                break;
            }
        }
        bytes
    }

    /// Unmaps every page; the next read of one maps it again.
    fn give_back(&self) {
        self.n_touched.store(0, Ordering::Relaxed);
        for chunk in &self.touched {
            chunk.store(false, Ordering::Relaxed);
        }
        // SAFETY: on a shared, read-only mapping of a file DONTNEED discards no data: there is none but the file's, and
        // a thread that reads a discarded page, also through a slice it already holds, gets the file's bytes again.
        #[cfg(unix)]
        let given_back = unsafe {
            self.map
                .unchecked_advise(memmap2::UncheckedAdvice::DontNeed)
        };
        // Advice that is not taken costs memory, nothing else.
        #[cfg(unix)]
        drop(given_back);
    }

    /// Whether the file still has the length and modification time it was opened with.
    ///
    /// # Errors
    /// The file can no longer be asked.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        Ok(metadata.len() == self.map.len() as u64 && metadata.modified().ok() == self.modified)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn bytes_are_the_files_however_little_may_stay() {
        let content: Vec<u8> = (0..5 * CHUNK + 3).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mapped = Mapped::new(file, 2 * CHUNK).unwrap();
        for _ in 0..3 {
            for start in (0..content.len()).step_by(1000) {
                let range = start..(start + 1500).min(content.len());
                assert_eq!(mapped.bytes(range.clone()), &content[range]);
                assert!(mapped.n_touched.load(Ordering::Relaxed) <= 4);
            }
        }
        assert_eq!(mapped.len(), content.len());
    }

    #[test]
    fn a_file_that_is_written_to_is_told() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"1234").unwrap();
        let mapped = Mapped::new(file.try_clone().unwrap(), CHUNK).unwrap();
        assert!(mapped.is_unchanged().unwrap());
        file.seek(io::SeekFrom::Start(4)).unwrap();
        file.write_all(b"5").unwrap();
        assert!(!mapped.is_unchanged().unwrap());
        assert_eq!(mapped.bytes(0..4), b"1234");
    }
}
