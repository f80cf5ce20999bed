//! Rows that arrive one after the other: kept in memory, or written to a temporary file that is then mapped.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use half::f16;

use super::{Room, unreadable};
use crate::domain::{Element, Mapped, Rows, Scale};
use crate::embed::EmbedError;

/// A number that rows are stored as.
pub trait Number: Copy {
    /// Which one.
    const ELEMENT: Element;
    /// Its bytes, little-endian.
    fn write(self, bytes: &mut Vec<u8>);
    /// Rows of such numbers in memory.
    fn rows(values: Vec<Self>, n: usize, width: usize, scale: Scale) -> Rows;
}

impl Number for f32 {
    const ELEMENT: Element = Element::F32;
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
    fn rows(values: Vec<Self>, n: usize, width: usize, _scale: Scale) -> Rows {
        Rows::f32(values, n, width)
    }
}

impl Number for f16 {
    const ELEMENT: Element = Element::F16;
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
    fn rows(values: Vec<Self>, n: usize, width: usize, _scale: Scale) -> Rows {
        Rows::f16(values, n, width)
    }
}

impl Number for i8 {
    const ELEMENT: Element = Element::I8;
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
    fn rows(values: Vec<Self>, n: usize, width: usize, scale: Scale) -> Rows {
        Rows::i8(values, n, width, scale)
    }
}

/// Takes `n` rows of `width` numbers in order.
pub struct Sink<'a, T> {
    /// Of the stored file.
    path: &'a Path,
    n: usize,
    width: usize,
    taken: usize,
    room: Room<'a>,
    to: To<T>,
    bytes: Vec<u8>,
}

enum To<T> {
    Memory(Vec<T>),
    File(BufWriter<File>),
}

impl<'a, T: Number> Sink<'a, T> {
    /// For the rows of the stored file at `path`; in memory where there is room.
    ///
    /// # Errors
    /// [`EmbedError::Unpack`] when no temporary file can be made, [`EmbedError::Read`] when the rows fit no memory.
    pub fn new(path: &'a Path, n: usize, width: usize, room: Room<'a>) -> Result<Self, EmbedError> {
        let to = if room.holds(n, width, T::ELEMENT.bytes()) {
            let mut values = Vec::new();
            // Exactly: doubling would take up to twice the room. What a damaged file claims may be absurd.
            values
                .try_reserve_exact(n.saturating_mul(width))
                .map_err(|error| unreadable(path, io::Error::other(error)))?;
            To::Memory(values)
        } else {
            // Without a name: it is gone with the process, however that ends.
            let file = match room.folder {
                Some(folder) => {
                    std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder))
                }
                None => tempfile::tempfile(),
            };
            let file = file.map_err(|source| unpack_error(path, room, source))?;
            To::File(BufWriter::with_capacity(1 << 20, file))
        };
        Ok(Self {
            path,
            n,
            width,
            taken: 0,
            room,
            to,
            bytes: Vec::new(),
        })
    }

    /// Takes numbers, of any number of rows or of parts of one.
    ///
    /// # Errors
    /// [`EmbedError::Unpack`]: the disk is full.
    pub fn take(&mut self, values: impl Iterator<Item = T>) -> Result<(), EmbedError> {
        match &mut self.to {
            To::Memory(kept) => {
                let before = kept.len();
                kept.extend(values);
                self.taken += kept.len() - before;
            }
            To::File(file) => {
                self.bytes.clear();
                values.for_each(|value| value.write(&mut self.bytes));
                self.taken += self.bytes.len() / T::ELEMENT.bytes();
                file.write_all(&self.bytes)
                    .map_err(|source| unpack_error(self.path, self.room, source))?;
            }
        }
        Ok(())
    }

    /// The rows.
    ///
    /// # Errors
    /// [`EmbedError::Read`] when fewer or more numbers were taken than announced, [`EmbedError::Unpack`] when the disk is full.
    pub fn finish(self, scale: Scale) -> Result<Rows, EmbedError> {
        if self.taken != self.n * self.width {
            let found = format!(
                "{} numbers of {} rows of {}",
                self.taken, self.n, self.width
            );
            return Err(unreadable(self.path, io::Error::other(found)));
        }
        let mapped = |file: BufWriter<File>| {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            let mapped = Arc::new(Mapped::new(file, self.room.resident())?);
            Rows::mapped(mapped, 0, T::ELEMENT, self.n, self.width, scale.clone())
        };
        match self.to {
            To::Memory(values) => Ok(T::rows(values, self.n, self.width, scale)),
            To::File(file) => {
                mapped(file).map_err(|source| unpack_error(self.path, self.room, source))
            }
        }
    }
}

fn unpack_error(path: &Path, room: Room<'_>, source: io::Error) -> EmbedError {
    EmbedError::Unpack {
        path: path.into(),
        folder: room.folder.map_or_else(std::env::temp_dir, Path::to_owned),
        source,
    }
}
