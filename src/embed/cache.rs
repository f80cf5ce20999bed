//! Embeddings kept between runs: one file a model, preprocessing, runtime and provider.
//!
//! In memory they are one block of rows; the file is read and written in one pass, so that a run holds one copy of
//! them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::interrupt::WholeFile;

/// First bytes of a file; the number rises when the layout changes.
const MAGIC: &[u8; 8] = b"caembed1";

/// Magic, flag, dim, count.
const HEAD: usize = 8 + 1 + 4 + 8;

/// Bytes read or written at once.
const BLOCK: usize = 1 << 20;

/// 32 bytes of BLAKE3.
pub type Digest = [u8; 32];

/// What is kept of one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<'a> {
    /// Hash of the decoded input.
    pub input: Digest,
    /// Whether a 16-bit image was scaled.
    pub sixteen_bit: bool,
    /// The embedding after pooling and truncation, before normalisation.
    pub embedding: &'a [f32],
}

/// A record's place.
#[derive(Debug, Clone, PartialEq)]
struct Slot {
    input: Digest,
    sixteen_bit: bool,
    row: u32,
}

/// The kept embeddings of one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cache {
    path: Option<PathBuf>,
    /// Whether this model gave other vectors in a batch than alone; `None` before it was tried.
    pub batch_dependent: Option<bool>,
    slots: BTreeMap<Digest, Slot>,
    /// Rows of `dim` values.
    values: Vec<f32>,
    dim: usize,
    changed: bool,
}

impl Cache {
    /// Opens the file of `key` under `folder`; a missing or damaged one is an empty cache, `None` keeps nothing.
    pub fn open(folder: Option<&Path>, key: &str) -> Self {
        let path = folder.map(|folder| folder.join("embeddings").join(format!("{key}.bin")));
        let kept = path.as_deref().and_then(read);
        Self {
            path,
            ..kept.unwrap_or_default()
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Dimensions of the embeddings, once there is one.
    pub fn dim(&self) -> Option<usize> {
        (!self.is_empty()).then_some(self.dim)
    }

    /// The record of an item's content.
    pub fn get(&self, item: &Digest) -> Option<Record<'_>> {
        let slot = self.slots.get(item)?;
        let start = slot.row as usize * self.dim;
        Some(Record {
            input: slot.input,
            sixteen_bit: slot.sixteen_bit,
            embedding: &self.values[start..start + self.dim],
        })
    }

    /// Makes room for `n` more records of `dim` dimensions at once: a block that grows by doubling would end up to
    /// twice as large.
    pub fn reserve(&mut self, n: usize, dim: usize) {
        self.values.reserve_exact(n.saturating_mul(dim));
    }

    /// Adds a record; all have the same dimensions.
    pub fn insert(&mut self, item: Digest, record: Record<'_>) {
        if self.is_empty() {
            self.dim = record.embedding.len();
        }
        assert_eq!(
            record.embedding.len(),
            self.dim,
            "the embeddings of one model have the same dimensions"
        );
        let slot = Slot {
            input: record.input,
            sixteen_bit: record.sixteen_bit,
            row: self.slots.len() as u32,
        };
        if self.slots.contains_key(&item) {
            return;
        }
        self.slots.insert(item, slot);
        self.values.extend_from_slice(record.embedding);
        self.changed = true;
    }

    /// Forgets every embedding.
    pub fn forget(&mut self) {
        self.slots.clear();
        self.values.clear();
        self.changed = true;
    }

    /// Gives the rows of these contents, in their order, and frees the rest. The rows are moved within their block, so
    /// there is never a second copy of them.
    ///
    /// # Panics
    /// When a content has no record.
    pub fn into_rows(self, contents: &[Digest]) -> Vec<f32> {
        let Self {
            slots,
            mut values,
            dim,
            ..
        } = self;
        let sources: Vec<u32> = contents.iter().map(|content| slots[content].row).collect();
        let n_kept = slots.len();
        drop(slots);
        gather_in_place(&mut values, dim, n_kept, &sources);
        values
    }

    /// Writes what was added, atomically. A cache that cannot be written costs time, not correctness, so failing is
    /// reported and no error.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.changed) else {
            return Ok(());
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let file = WholeFile::beside(path)?;
        let mut writer = BufWriter::with_capacity(BLOCK, Hashing::new(file));
        self.write(&mut writer)?;
        let Hashing {
            inner: mut file,
            hasher,
        } = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.write_all(hasher.finalize().as_bytes())?;
        file.persist(path)?;
        self.changed = false;
        Ok(())
    }

    /// Magic, flag, dim, count, records by item; the BLAKE3 of all that follows.
    fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        writer.write_all(MAGIC)?;
        writer.write_all(&[match self.batch_dependent {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        }])?;
        writer.write_all(&(self.dim as u32).to_le_bytes())?;
        writer.write_all(&(self.slots.len() as u64).to_le_bytes())?;
        for (item, slot) in &self.slots {
            writer.write_all(item)?;
            writer.write_all(&slot.input)?;
            writer.write_all(&[u8::from(slot.sixteen_bit)])?;
            let start = slot.row as usize * self.dim;
            for value in &self.values[start..start + self.dim] {
                writer.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    }
}

/// Makes row i of `values` what row `sources[i]` was, `n` rows of `dim` before.
fn gather_in_place(values: &mut Vec<f32>, dim: usize, n: usize, sources: &[u32]) {
    /// No place.
    const NONE: u32 = u32::MAX;
    // Where each row goes; a row that is wanted twice is copied there afterwards.
    let mut targets = vec![NONE; n];
    let mut copies = Vec::new();
    for (place, &source) in sources.iter().enumerate() {
        match &mut targets[source as usize] {
            target if *target == NONE => *target = place as u32,
            first => copies.push((*first as usize, place)),
        }
    }
    let wanted = sources.len() * dim;
    if values.len() < wanted {
        values.reserve_exact(wanted - values.len());
        values.resize(wanted, 0.0);
    }
    let mut carried = vec![0.0; dim];
    for start in 0..n {
        let mut source = start;
        if targets[source] == NONE || targets[source] as usize == source {
            continue;
        }
        carried.copy_from_slice(&values[source * dim..(source + 1) * dim]);
        // Each row pushes out the one that lies where it belongs, until that one is not wanted or gone already.
        while source < n && targets[source] != NONE {
            let target = targets[source] as usize;
            targets[source] = NONE;
            carried.swap_with_slice(&mut values[target * dim..(target + 1) * dim]);
            source = target;
        }
    }
    for (first, place) in copies {
        values.copy_within(first * dim..(first + 1) * dim, place * dim);
    }
    values.truncate(wanted);
}

/// Hashes what passes.
struct Hashing<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: blake3::Hasher::new(),
        }
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// `None` for anything but a whole, undamaged file.
fn read(path: &Path) -> Option<Cache> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut reader = BufReader::with_capacity(BLOCK, file);
    let mut hasher = blake3::Hasher::new();
    let mut head = [0; HEAD];
    reader.read_exact(&mut head).ok()?;
    hasher.update(&head);
    let rest = head.strip_prefix(MAGIC)?;
    let (&flag, rest) = rest.split_first()?;
    let (dim, rest) = rest.split_first_chunk::<4>()?;
    let count = u64::from_le_bytes(rest.try_into().ok()?);
    let dim = u32::from_le_bytes(*dim) as usize;
    let size = 32 + 32 + 1 + 4 * dim;
    // Before anything is allocated for them.
    if count
        .checked_mul(size as u64)?
        .checked_add(HEAD as u64 + 32)?
        != length
    {
        return None;
    }
    let count = u32::try_from(count).ok()?;
    let mut slots = BTreeMap::new();
    let mut values = Vec::with_capacity(count as usize * dim);
    let mut record = vec![0; size];
    for row in 0..count {
        reader.read_exact(&mut record).ok()?;
        hasher.update(&record);
        let (item, rest) = record.split_first_chunk::<32>()?;
        let (input, rest) = rest.split_first_chunk::<32>()?;
        let (&sixteen_bit, embedding) = rest.split_first()?;
        let embedding = embedding.as_chunks::<4>().0.iter();
        values.extend(embedding.map(|&value| f32::from_le_bytes(value)));
        let slot = Slot {
            input: *input,
            sixteen_bit: sixteen_bit == 1,
            row,
        };
        slots.insert(*item, slot);
    }
    let mut checksum = [0; 32];
    reader.read_exact(&mut checksum).ok()?;
    if *hasher.finalize().as_bytes() != checksum || slots.len() != count as usize {
        return None;
    }
    Some(Cache {
        path: None,
        batch_dependent: match flag {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        },
        slots,
        values,
        dim,
        changed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            input: [7; 32],
            sixteen_bit: true,
            embedding: &[1.5, -0.0],
        }
    }

    #[test]
    fn what_is_saved_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cache = Cache::open(Some(folder.path()), "key");
        cache.insert([1; 32], record());
        cache.batch_dependent = Some(true);
        cache.save().expect("written");
        let again = Cache::open(Some(folder.path()), "key");
        assert_eq!(again.get(&[1; 32]), Some(record()));
        assert_eq!(again.batch_dependent, Some(true));
        assert_eq!(
            Cache::open(Some(folder.path()), "other").get(&[1; 32]),
            None
        );
    }

    #[test]
    fn a_damaged_file_is_an_empty_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cache = Cache::open(Some(folder.path()), "key");
        cache.insert([1; 32], record());
        cache.save().expect("written");
        let path = folder.path().join("embeddings/key.bin");
        let whole = std::fs::read(&path).expect("there");
        for cut in [0, 5, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).expect("written");
            assert_eq!(Cache::open(Some(folder.path()), "key").get(&[1; 32]), None);
        }
        let mut flipped = whole.clone();
        flipped[60] ^= 1;
        std::fs::write(&path, flipped).expect("written");
        assert_eq!(Cache::open(Some(folder.path()), "key").get(&[1; 32]), None);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let mut cache = Cache::open(None, "key");
        cache.insert([1; 32], record());
        cache.save().expect("nothing to do");
        assert!(cache.get(&[1; 32]).is_some());
        assert!(Cache::open(None, "key").is_empty());
    }

    /// The layout of a file does not change with how it is written: what older versions kept is still read.
    #[test]
    fn a_file_is_head_records_and_checksum() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cache = Cache::open(Some(folder.path()), "key");
        for item in [9, 1] {
            cache.insert([item; 32], record());
        }
        cache.save().expect("written");
        let mut expected = b"caembed1".to_vec();
        expected.push(0);
        expected.extend(2_u32.to_le_bytes());
        expected.extend(2_u64.to_le_bytes());
        for item in [1_u8, 9] {
            expected.extend([item; 32]);
            expected.extend([7; 32]);
            expected.push(1);
            expected.extend(1.5_f32.to_le_bytes());
            expected.extend((-0.0_f32).to_le_bytes());
        }
        let checksum = blake3::hash(&expected);
        expected.extend(checksum.as_bytes());
        let written = std::fs::read(folder.path().join("embeddings/key.bin")).expect("there");
        assert_eq!(written, expected);
    }

    /// Against plain indexing: permuted, left out, wanted twice, all at once.
    #[test]
    fn rows_are_gathered_in_place() {
        let mut state = 1_u64;
        for n in 1..12_usize {
            for wanted in 0..16_usize {
                let mut draw = || {
                    // Knuth's MMIX generator; any sequence will do.
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as usize % n
                };
                let sources: Vec<u32> = (0..wanted).map(|_| draw() as u32).collect();
                let row = |i: u32| [i as f32, i as f32 + 0.5];
                let mut values: Vec<f32> = (0..n as u32).flat_map(row).collect();
                gather_in_place(&mut values, 2, n, &sources);
                let expected: Vec<f32> = sources.iter().copied().flat_map(row).collect();
                assert_eq!(values, expected, "{n} rows, {sources:?}");
            }
        }
    }

    #[test]
    fn rows_in_their_order_stay_where_they_are() {
        let mut cache = Cache::open(None, "key");
        cache.reserve(2, 2);
        cache.insert([2; 32], record());
        cache.insert([1; 32], record());
        let block = cache.values.as_ptr();
        let rows = cache.into_rows(&[[1; 32], [2; 32]]);
        assert_eq!((rows.as_ptr(), rows.len()), (block, 4));
    }
}
