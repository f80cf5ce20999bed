//! Embeddings that were stored before: `.npy` with ids beside, or `.parquet`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ndarray::Array2;
use polars::prelude::{ArrowDataType, DataType, ParquetReader, SerReader};

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
        let message = error.to_string();
        let words: Vec<&str> = message.split_whitespace().collect();
        wrong(
            path,
            "a parquet file of ids and embeddings".into(),
            words.join(" "),
        )
    };
    let mut reader = ParquetReader::new(file);
    // The writer's Arrow schema may ask for types that only it knows (pandas' categories); the columns themselves
    // are plain, so it is left aside.
    let mut metadata = reader.get_metadata().map_err(polars)?.as_ref().clone();
    metadata.key_value_metadata = None;
    reader.set_metadata(Arc::new(metadata));
    let schema = reader.schema().map_err(polars)?;
    let fields: Vec<(&str, &ArrowDataType)> = schema
        .iter_values()
        .map(|field| (field.name.as_str(), field.dtype()))
        .collect();
    let [id, embedding] = columns_in_use(path, &fields)?;
    let [id_name, list_name] = [id, embedding].map(|column| fields[column].0.to_owned());
    let mut wanted = vec![id, embedding];
    wanted.sort_unstable();
    // polars panics on types that it was built without: only the two columns are read, after a look at their types.
    let frame = reader
        .with_projection(Some(wanted))
        .finish()
        .map_err(polars)?;
    let id = frame
        .column(&id_name)
        .and_then(|id| id.cast(&DataType::String))
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
    let list = frame
        .column(&list_name)
        .and_then(|list| list.cast(&DataType::List(Box::new(DataType::Float32))))
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

/// The columns of the ids and of the embeddings, told by name and type alone.
fn columns_in_use(
    path: &Path,
    fields: &[(&str, &ArrowDataType)],
) -> Result<[usize; 2], EmbedError> {
    let names = |wanted: &dyn Fn(&ArrowDataType) -> bool| {
        let names = fields.iter().filter(|(_, dtype)| wanted(dtype));
        names.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    let id = fields
        .iter()
        .position(|(name, _)| *name == "id")
        .ok_or_else(|| {
            let found = format!("columns {}", names(&|_| true));
            wrong(path, "a column `id`".into(), found)
        })?;
    if !is_id(fields[id].1) {
        let found = format!("`id` of type {}", type_name(fields[id].1));
        return Err(wrong(path, "ids that are texts or integers".into(), found));
    }
    let lists: Vec<usize> = (0..fields.len())
        .filter(|&column| element(fields[column].1).is_some_and(is_number))
        .collect();
    match lists.as_slice() {
        [embedding] => Ok([id, *embedding]),
        [] => {
            let other = fields.iter().find(|(_, dtype)| element(dtype).is_some());
            let found = match other {
                Some((name, dtype)) => format!("`{name}` of type {}", type_name(dtype)),
                None => format!("columns {}", names(&|_| true)),
            };
            let expected = "exactly one list column of float32, float64 or integers".into();
            Err(wrong(path, expected, found))
        }
        several => {
            let found = format!(
                "{}: {}",
                several.len(),
                names(&|dtype| element(dtype).is_some_and(is_number))
            );
            Err(wrong(
                path,
                "exactly one list column of numbers".into(),
                found,
            ))
        }
    }
}

/// The element type of a list.
fn element(dtype: &ArrowDataType) -> Option<&ArrowDataType> {
    match dtype {
        ArrowDataType::List(inner)
        | ArrowDataType::LargeList(inner)
        | ArrowDataType::FixedSizeList(inner, _) => Some(inner.dtype()),
        _ => None,
    }
}

fn is_number(dtype: &ArrowDataType) -> bool {
    use ArrowDataType as Type;
    matches!(dtype, Type::Float32 | Type::Float64) || is_integer(dtype)
}

fn is_integer(dtype: &ArrowDataType) -> bool {
    use ArrowDataType as Type;
    matches!(
        dtype,
        Type::Int8
            | Type::Int16
            | Type::Int32
            | Type::Int64
            | Type::UInt8
            | Type::UInt16
            | Type::UInt32
            | Type::UInt64
    )
}

fn is_id(dtype: &ArrowDataType) -> bool {
    use ArrowDataType as Type;
    is_integer(dtype) || matches!(dtype, Type::Utf8 | Type::LargeUtf8 | Type::Utf8View)
}

/// `list of float16`, `decimal`, as a reader would say it.
fn type_name(dtype: &ArrowDataType) -> String {
    if let Some(element) = element(dtype) {
        return format!("list of {}", type_name(element));
    }
    // What parquet stores halves as.
    if *dtype == ArrowDataType::FixedSizeBinary(2) {
        return "float16".into();
    }
    let debug = format!("{dtype:?}");
    let word = debug.split(['(', ' ', '{']).next().unwrap_or_default();
    word.to_lowercase()
}

#[cfg(test)]
mod tests {
    use polars::prelude::{
        ArrowField, Column, DataFrame, ListChunked, NamedFrom, ParquetWriter, PlSmallStr, Series,
    };

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

    #[test]
    fn columns_are_chosen_by_type_before_any_is_read() {
        use ArrowDataType as Type;
        let list = |inner| Type::List(Box::new(ArrowField::new(PlSmallStr::EMPTY, inner, true)));
        let choose = |fields: &[(&str, Type)]| {
            let fields: Vec<_> = fields.iter().map(|(name, dtype)| (*name, dtype)).collect();
            columns_in_use(Path::new("e.parquet"), &fields).map_err(|error| error.to_string())
        };
        let floats = || ("embedding", list(Type::Float32));
        let id = || ("id", Type::Utf8View);
        // What polars was built without, and lists of something else, may stand beside.
        let beside = [
            ("price", Type::Decimal(9, 2)),
            ("record", Type::Struct(Vec::new())),
            ("tags", list(Type::Utf8View)),
            ("half", list(Type::Float16)),
        ];
        for other in beside {
            assert_eq!(choose(&[other, id(), floats()]), Ok([1, 2]));
        }
        let half = choose(&[id(), ("embedding", list(Type::Float16))]).unwrap_err();
        assert!(
            half.ends_with(
                "expected exactly one list column of float32, float64 or integers, found `embedding` of type list of float16"
            ),
            "{half}"
        );
        let two = choose(&[id(), floats(), ("other", list(Type::Float64))]).unwrap_err();
        assert!(two.ends_with("found 2: embedding, other"), "{two}");
        let decimal = choose(&[("id", Type::Decimal(9, 2)), floats()]).unwrap_err();
        assert!(decimal.ends_with("found `id` of type decimal"), "{decimal}");
        let none = choose(&[("key", Type::Utf8View), floats()]).unwrap_err();
        assert!(
            none.ends_with("expected a column `id`, found columns key, embedding"),
            "{none}"
        );
    }

    /// Written by pyarrow (fixtures/generate/stored_parquet.py): a float16 list, and floats beside a struct, a map
    /// and a decimal.
    #[test]
    fn types_that_polars_was_built_without_do_not_panic() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/stored");
        let half = read(&folder.join("float16.parquet"))
            .err()
            .expect("refused");
        assert!(half.to_string().contains("list of float16"), "{half}");
        let beside = read(&folder.join("beside.parquet")).expect("read");
        assert_eq!(beside.rows.row(beside.row_of_id["b"]).to_vec(), [3.0, 4.0]);
    }
}
