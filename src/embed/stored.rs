//! Embeddings that were stored before: `.npy` with ids beside, or `.parquet`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use ndarray::Array2;
use polars::prelude::{DataFrame, DataType, ParquetReader, SerReader};

use super::EmbedError;
use crate::probe::tensors::{TensorData, Tensors};

/// Stored rows and the row of each id.
pub struct Stored {
    /// Shape (rows, dim).
    pub rows: Array2<f32>,
    /// Row by id.
    pub row_of_id: BTreeMap<String, usize>,
}

impl Stored {
    /// BLAKE3, hex, over each id and its row: files that hold the same embedding for every id are one model, whatever
    /// their kind and order, and equal rows under other ids are another.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (id, &row) in &self.row_of_id {
            hasher.update(&(id.len() as u64).to_le_bytes());
            hasher.update(id.as_bytes());
            self.rows.row(row).iter().for_each(|value| {
                hasher.update(&value.to_le_bytes());
            });
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Reads a stored file: `.npy`, a (rows, dim) float array with `<stem>.ids.txt` beside it (one id a line), or `.parquet` with
/// a column `id` and exactly one list or fixed-size array column of floats.
///
/// # Errors
/// Unreadable, another shape, ids that repeat or do not match the rows.
pub fn read(path: &Path) -> Result<Stored, EmbedError> {
    let (rows, ids) = if path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
    {
        read_parquet(path)?
    } else {
        read_npy(path)?
    };
    if rows.nrows() != ids.len() {
        return Err(wrong(
            path,
            format!("{} ids, one a row", rows.nrows()),
            format!("{} ids", ids.len()),
        ));
    }
    let mut row_of_id = BTreeMap::new();
    for (row, id) in ids.into_iter().enumerate() {
        if let Some(first) = row_of_id.insert(id.clone(), row) {
            let found = format!("`{id}` in rows {} and {}", first + 1, row + 1);
            return Err(wrong(path, "every id once".into(), found));
        }
    }
    Ok(Stored { rows, row_of_id })
}

fn wrong(path: &Path, expected: String, found: String) -> EmbedError {
    EmbedError::Stored {
        path: path.into(),
        expected,
        found,
    }
}

fn read_npy(path: &Path) -> Result<(Array2<f32>, Vec<String>), EmbedError> {
    let tensors = Tensors::open(path)?;
    let Some(tensor) = tensors.get("") else {
        return Err(wrong(path, "one array".into(), "several".into()));
    };
    let (&[n, dim], TensorData::F32(values)) = (tensor.shape.as_slice(), &tensor.data) else {
        let kind = match tensor.data {
            TensorData::F32(_) => "floats",
            TensorData::I64(_) | TensorData::U8(_) => "integers",
        };
        let found = format!("{kind} of shape {:?}", tensor.shape);
        return Err(wrong(path, "floats of shape (rows, dim)".into(), found));
    };
    let rows = Array2::from_shape_vec((n, dim), values.clone())
        .expect("the reader checks that values fill the shape");
    let ids_path = path.with_extension("ids.txt");
    let text = std::fs::read_to_string(&ids_path).map_err(|source| EmbedError::Read {
        path: ids_path,
        source,
    })?;
    Ok((
        rows,
        text.lines()
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect(),
    ))
}

fn read_parquet(path: &Path) -> Result<(Array2<f32>, Vec<String>), EmbedError> {
    let file = File::open(path).map_err(|source| EmbedError::Read {
        path: path.into(),
        source,
    })?;
    let polars = |error: polars::error::PolarsError| {
        wrong(
            path,
            "a parquet file of ids and embeddings".into(),
            error.to_string(),
        )
    };
    let frame = ParquetReader::new(file).finish().map_err(polars)?;
    let columns = names(&frame);
    let id = frame
        .column("id")
        .map_err(|_| wrong(path, "a column `id`".into(), format!("columns {columns}")))?
        .cast(&DataType::String)
        .map_err(polars)?;
    let mut ids = Vec::with_capacity(frame.height());
    for (row, id) in id.str().map_err(polars)?.iter().enumerate() {
        let missing = || {
            wrong(
                path,
                "an id in every row".into(),
                format!("none in row {}", row + 1),
            )
        };
        ids.push(id.ok_or_else(missing)?.to_owned());
    }
    let lists: Vec<_> = frame
        .columns()
        .iter()
        .filter(|column| matches!(column.dtype(), DataType::List(_) | DataType::Array(_, _)))
        .collect();
    let [list] = lists.as_slice() else {
        let found = format!("{} in columns {columns}", lists.len());
        return Err(wrong(path, "exactly one list column".into(), found));
    };
    let list = list
        .cast(&DataType::List(Box::new(DataType::Float32)))
        .map_err(polars)?;
    let list = list.list().map_err(polars)?;
    let mut dim = None;
    let mut values: Vec<f32> = Vec::new();
    for row in 0..list.len() {
        let missing = || {
            wrong(
                path,
                "an embedding in every row".into(),
                format!("none in row {}", row + 1),
            )
        };
        let row_values = list.get_as_series(row).ok_or_else(missing)?;
        let row_values = row_values.f32().map_err(polars)?;
        let expected = *dim.get_or_insert(row_values.len());
        if row_values.len() != expected {
            let found = format!("{} in row {}", row_values.len(), row + 1);
            return Err(wrong(
                path,
                format!("{expected} dimensions, as in row 1"),
                found,
            ));
        }
        // A null inside an embedding is as unusable as a NaN, and refused with it.
        values.extend(row_values.iter().map(|value| value.unwrap_or(f32::NAN)));
    }
    let rows = Array2::from_shape_vec((ids.len(), dim.unwrap_or(0)), values)
        .expect("every row has the same length");
    Ok((rows, ids))
}

fn names(frame: &DataFrame) -> String {
    frame
        .get_column_names()
        .iter()
        .map(|name| name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use polars::prelude::{Column, ListChunked, NamedFrom, ParquetWriter, Series};

    use super::*;

    fn parquet(ids: &[&str], rows: &[&[f32]]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("e.parquet");
        let series: Vec<Series> = rows.iter().map(|row| Series::new("".into(), row)).collect();
        let lists: ListChunked = series.iter().map(|series| Some(series.clone())).collect();
        let ids = Column::new("id".into(), ids);
        let lists = polars::prelude::IntoSeries::into_series(lists).with_name("embedding".into());
        let mut frame = DataFrame::new(rows.len(), vec![ids, lists.into()]).expect("a frame");
        let file = File::create(&path).expect("created");
        ParquetWriter::new(file)
            .finish(&mut frame)
            .expect("written");
        (folder, path)
    }

    #[test]
    fn parquet_lists_come_back_by_id() {
        let (_folder, path) = parquet(&["b", "a"], &[&[1.0, 2.0], &[3.0, 4.0]]);
        let stored = read(&path).expect("read");
        assert_eq!(stored.rows.row(stored.row_of_id["a"]).to_vec(), [3.0, 4.0]);
        assert_eq!(stored.rows.dim(), (2, 2));
    }

    #[test]
    fn ragged_lists_and_repeated_ids_are_refused() {
        let message = |ids: &[&str], rows: &[&[f32]]| {
            let (_folder, path) = parquet(ids, rows);
            read(&path).err().expect("refused").to_string()
        };
        let ragged = message(&["a", "b"], &[&[1.0, 2.0], &[3.0]]);
        assert!(
            ragged.contains("expected 2 dimensions, as in row 1, found 1 in row 2"),
            "{ragged}"
        );
        let repeated = message(&["a", "a"], &[&[1.0], &[3.0]]);
        assert!(repeated.contains("`a` in rows 1 and 2"), "{repeated}");
    }
}
