//! Parquet files in parts, whatever their columns mean.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use polars::io::parquet::metadata::FileMetadataRef;
use polars::prelude::{ArrowDataType, DataFrame, ParquetReader, PolarsError, SerReader};

/// Why a file cannot be read.
#[derive(Debug)]
pub enum Fault {
    /// By the system.
    Io(io::Error),
    /// Its metadata, which stand at its end.
    Metadata(PolarsError),
    /// Its columns.
    Columns(PolarsError),
}

/// A file whose metadata was read.
pub struct ParquetFile {
    file: File,
    metadata: FileMetadataRef,
    /// Name and type of each column.
    pub columns: Vec<(String, ArrowDataType)>,
    /// What the writer noted, by key.
    pub notes: Vec<(String, Option<String>)>,
}

impl ParquetFile {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let file = File::open(path).map_err(Fault::Io)?;
        let mut reader = ParquetReader::new(file.try_clone().map_err(Fault::Io)?);
        // The writer's Arrow schema may ask for types that only it knows (pandas' categories); the columns themselves
        // are plain, so it is left aside.
        let metadata = reader.get_metadata().map_err(Fault::Metadata)?;
        let mut metadata = metadata.as_ref().clone();
        let notes = metadata.key_value_metadata.take().unwrap_or_default();
        let metadata = Arc::new(metadata);
        reader.set_metadata(metadata.clone());
        let schema = reader.schema().map_err(Fault::Columns)?;
        let column =
            |field: &polars::prelude::ArrowField| (field.name.to_string(), field.dtype().clone());
        Ok(Self {
            columns: schema.iter_values().map(column).collect(),
            notes: notes
                .into_iter()
                .map(|note| (note.key, note.value))
                .collect(),
            file,
            metadata,
        })
    }

    /// Rows of the file.
    pub fn n_rows(&self) -> usize {
        self.metadata.num_rows
    }

    /// Some rows of some columns, whose indices rise. polars panics on types that it was built without: these must not be
    /// among them.
    pub fn part(&self, columns: &[usize], start: usize, rows: usize) -> Result<DataFrame, Fault> {
        let mut reader = ParquetReader::new(self.file.try_clone().map_err(Fault::Io)?);
        reader.set_metadata(self.metadata.clone());
        reader
            .with_projection(Some(columns.to_vec()))
            .with_slice(Some((start, rows)))
            .finish()
            .map_err(Fault::Columns)
    }

    /// All rows, at most `together` at a time, each with how many come before. No part spans two row groups, so that each is
    /// unpacked alone.
    pub fn each_part<E>(
        &self,
        columns: &[usize],
        together: usize,
        failed: impl Fn(Fault) -> E,
        mut visit: impl FnMut(usize, DataFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut start = 0;
        for group in &self.metadata.row_groups {
            let end = start + group.num_rows();
            while start < end {
                let part = self.part(columns, start, together.min(end - start));
                let part = part.map_err(&failed)?;
                let rows = part.height();
                if rows == 0 {
                    break;
                }
                visit(start, part)?;
                start += rows;
            }
        }
        Ok(())
    }
}

/// What polars says, in one line and without its advice on calling polars.
pub fn one_line(error: &PolarsError) -> String {
    let message = error.to_string();
    let message = message
        .split("\n\nThe current offset")
        .next()
        .unwrap_or_default();
    let words: Vec<&str> = message.split_whitespace().collect();
    let message = words.join(" ");
    let advice = message.find(" Consider setting").unwrap_or(message.len());
    message[..advice].to_owned()
}
