//! Embeddings that were stored before: `.npy` with ids beside, or `.parquet`.
//!
//! What fits the memory it may take is held as it is stored (f32, f16, int8). A larger `.npy` stays in its file, which is
//! mapped; a larger `.parquet` is unpacked once into a temporary file, which is mapped.

mod npy;
mod parquet;
mod sink;

use std::io;
use std::path::Path;

use rayon::prelude::*;

use super::EmbedError;
use crate::domain::{NameIndex, Rows};

/// Rows hashed by one task.
const HASHED_TOGETHER: usize = 4096;

/// Stored rows and their ids.
pub struct Stored {
    /// The rows.
    pub rows: Rows,
    ids: Ids,
    index: NameIndex,
}

/// Where stored rows may lie.
#[derive(Debug, Clone, Copy)]
pub struct Room<'a> {
    /// Bytes of rows that may be in memory.
    pub memory: u64,
    /// Folder of temporary files; `None`: the system's.
    pub folder: Option<&'a Path>,
}

impl Room<'_> {
    fn holds(&self, n: usize, width: usize, bytes: usize) -> bool {
        let values = (n as u128) * (width as u128);
        values * bytes as u128 <= u128::from(self.memory)
    }

    /// What of a mapped file may stay in memory.
    fn resident(&self) -> usize {
        usize::try_from(self.memory).unwrap_or(usize::MAX)
    }
}

impl Stored {
    /// The row of an id.
    pub fn row(&self, id: &str) -> Option<u32> {
        self.index.find(id, |row| self.ids.get(row as usize))
    }

    /// The rows alone.
    pub fn into_rows(self) -> Rows {
        self.rows
    }

    /// BLAKE3, hex, over each id and its row in f32: files that hold the same embedding for every id are one model,
    /// whatever their kind and order, and equal rows under other ids are another.
    ///
    /// The ids' and rows' own hashes are added up in four lanes modulo 2^64, so that neither the order of the file nor
    /// that of threads matters and the file is read from front to back; then that is hashed.
    pub fn hash(&self) -> String {
        let sum = (0..self.rows.n().div_ceil(HASHED_TOGETHER))
            .into_par_iter()
            .map(|block| {
                let start = block * HASHED_TOGETHER;
                let end = (start + HASHED_TOGETHER).min(self.rows.n());
                let mut row = vec![0.0; self.rows.width()];
                let mut bytes = Vec::new();
                let mut sum = [0_u64; 4];
                for index in start..end {
                    let id = self.ids.get(index);
                    self.rows.read_into(index, &mut row);
                    bytes.clear();
                    bytes.extend((id.len() as u64).to_le_bytes());
                    bytes.extend(id.as_bytes());
                    bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
                    add(&mut sum, blake3::hash(&bytes).as_bytes());
                }
                sum
            })
            .reduce(
                || [0; 4],
                |a, b| std::array::from_fn(|lane| a[lane].wrapping_add(b[lane])),
            );
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.rows.n() as u64).to_le_bytes());
        for lane in sum {
            hasher.update(&lane.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn add(sum: &mut [u64; 4], hash: &[u8; 32]) {
    for (lane, bytes) in sum.iter_mut().zip(hash.as_chunks().0) {
        *lane = lane.wrapping_add(u64::from_le_bytes(*bytes));
    }
}

/// The ids of a file, by row: one text, and where each ends.
#[derive(Debug, Default)]
struct Ids {
    text: String,
    ends: Vec<usize>,
}

impl Ids {
    fn push(&mut self, id: &str) {
        self.text.push_str(id);
        self.ends.push(self.text.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[row]]
    }
}

/// Reads a stored file: `.npy`, a (rows, dim) array of floats, or of int8 with `<stem>.scale.txt` beside it, and
/// `<stem>.ids.txt` (one id a line); or `.parquet` with a column `id` and exactly one list or fixed-size list column of
/// numbers, int8 with a column or metadata key `scale`. A scale is finite and above 0.
///
/// # Errors
/// Unreadable, another shape, ids that repeat or do not match the rows.
pub fn read(path: &Path, room: Room<'_>) -> Result<Stored, EmbedError> {
    let (rows, ids) = if path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
    {
        parquet::read(path, room)?
    } else {
        npy::read(path, room)?
    };
    if rows.n() != ids.len() {
        return Err(wrong(
            path,
            format!("{} ids, one a row", rows.n()),
            format!("{} ids", ids.len()),
        ));
    }
    let mut index = NameIndex::with_capacity(ids.len());
    for row in 0..ids.len() {
        let id = ids.get(row);
        let number = u32::try_from(row).map_err(|_| {
            let found = format!("{} rows", ids.len());
            wrong(path, "fewer than 2^32 rows".into(), found)
        })?;
        if let Some(first) = index.insert(id, number, |row| ids.get(row as usize)) {
            let found = format!("`{id}` in rows {} and {}", first + 1, row + 1);
            return Err(wrong(path, "every id once".into(), found));
        }
    }
    Ok(Stored { rows, ids, index })
}

/// What int8 values may be multiplied by: 0 leaves nothing of them, and a negative number turns every embedding round.
fn is_scale(scale: &f32) -> bool {
    scale.is_finite() && *scale > 0.0
}

fn wrong(path: &Path, expected: String, found: String) -> EmbedError {
    EmbedError::Stored {
        path: path.into(),
        expected,
        found,
    }
}

fn unreadable(path: &Path, source: io::Error) -> EmbedError {
    EmbedError::Read {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests;
