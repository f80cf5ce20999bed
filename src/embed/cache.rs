//! Embeddings kept between runs: one file a model, preprocessing, runtime and provider.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::interrupt;

/// First bytes of a file; the number rises when the layout changes.
const MAGIC: &[u8; 8] = b"caembed1";

/// 32 bytes of BLAKE3.
pub type Digest = [u8; 32];

/// What is kept of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Hash of the decoded input.
    pub input: Digest,
    /// Whether a 16-bit image was scaled.
    pub sixteen_bit: bool,
    /// The embedding after pooling and truncation, before normalisation.
    pub embedding: Vec<f32>,
}

/// The kept embeddings of one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cache {
    path: Option<PathBuf>,
    /// Whether this model gave other vectors in a batch than alone; `None` before it was tried.
    pub batch_dependent: Option<bool>,
    records: BTreeMap<Digest, Record>,
    changed: bool,
}

impl Cache {
    /// Opens the file of `key` under `folder`; a missing or damaged one is an empty cache, `None` keeps nothing.
    pub fn open(folder: Option<&Path>, key: &str) -> Self {
        let path = folder.map(|folder| folder.join("embeddings").join(format!("{key}.bin")));
        let kept = path.as_deref().and_then(|path| std::fs::read(path).ok());
        let (batch_dependent, records) = kept
            .and_then(|bytes| parse(&bytes))
            .unwrap_or((None, BTreeMap::new()));
        Self {
            path,
            batch_dependent,
            records,
            changed: false,
        }
    }

    /// The record of an item's content.
    pub fn get(&self, item: &Digest) -> Option<&Record> {
        self.records.get(item)
    }

    /// Adds a record.
    pub fn insert(&mut self, item: Digest, record: Record) {
        self.records.insert(item, record);
        self.changed = true;
    }

    /// Writes what was added, atomically. A cache that cannot be written costs time, not correctness, so failing is
    /// reported and no error.
    pub fn save(&mut self) -> std::io::Result<()> {
        let Some(path) = self.path.as_ref().filter(|_| self.changed) else {
            return Ok(());
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let turn = interrupt::turn();
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let _half_written = turn.announce(file.path());
        file.write_all(&self.to_bytes())?;
        file.persist(path).map_err(|error| error.error)?;
        self.changed = false;
        Ok(())
    }

    /// Magic, flag, dim, count, records by item, BLAKE3 of all that.
    fn to_bytes(&self) -> Vec<u8> {
        let dim = self
            .records
            .values()
            .next()
            .map_or(0, |record| record.embedding.len());
        let mut bytes = MAGIC.to_vec();
        bytes.push(match self.batch_dependent {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        });
        bytes.extend((dim as u32).to_le_bytes());
        bytes.extend((self.records.len() as u64).to_le_bytes());
        for (item, record) in &self.records {
            bytes.extend(item);
            bytes.extend(record.input);
            bytes.push(u8::from(record.sixteen_bit));
            record
                .embedding
                .iter()
                .for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes());
        bytes
    }
}

/// `None` for anything but a whole, undamaged file.
fn parse(bytes: &[u8]) -> Option<(Option<bool>, BTreeMap<Digest, Record>)> {
    let (body, checksum) = bytes
        .split_last_chunk::<32>()
        .map(|(body, sum)| (body, *sum))?;
    if *blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (&flag, rest) = rest.split_first()?;
    let (dim, rest) = rest.split_first_chunk::<4>()?;
    let (count, rest) = rest.split_first_chunk::<8>()?;
    let dim = u32::from_le_bytes(*dim) as usize;
    let size = 32 + 32 + 1 + 4 * dim;
    if Some(rest.len() as u64) != u64::from_le_bytes(*count).checked_mul(size as u64) {
        return None;
    }
    let mut records = BTreeMap::new();
    for record in rest.chunks_exact(size) {
        let (item, record) = record.split_first_chunk::<32>()?;
        let (input, record) = record.split_first_chunk::<32>()?;
        let (&sixteen_bit, values) = record.split_first()?;
        let embedding = values
            .chunks_exact(4)
            .map(|value| f32::from_le_bytes(value.try_into().expect("chunks of four")))
            .collect();
        records.insert(
            *item,
            Record {
                input: *input,
                sixteen_bit: sixteen_bit == 1,
                embedding,
            },
        );
    }
    let batch_dependent = match flag {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    };
    Some((batch_dependent, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: f32) -> Record {
        Record {
            input: [7; 32],
            sixteen_bit: true,
            embedding: vec![value, -0.0],
        }
    }

    #[test]
    fn what_is_saved_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cache = Cache::open(Some(folder.path()), "key");
        cache.insert([1; 32], record(1.5));
        cache.batch_dependent = Some(true);
        cache.save().expect("written");
        let again = Cache::open(Some(folder.path()), "key");
        assert_eq!(again.get(&[1; 32]), Some(&record(1.5)));
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
        cache.insert([1; 32], record(1.5));
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
        cache.insert([1; 32], record(1.5));
        cache.save().expect("nothing to do");
    }
}
