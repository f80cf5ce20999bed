//! `.parquet` files: read a few rows at a time, whatever the size of their row groups.

use std::path::Path;

use half::f16;
use polars::error::PolarsError;
use polars::prelude::{ArrowDataType, Column, DataFrame, DataType, ListChunked, Series};

use super::sink::{Number, Sink};
use super::{Ids, Room, is_scale, unreadable, wrong};
use crate::domain::{Rows, Scale};
use crate::embed::EmbedError;
use crate::probe::parquet::{Fault, ParquetFile, one_line};

/// Numbers read together: what polars holds of them (16 bytes each for halves) stays far below a gallery, and a row group
/// of a million rows is not entered too often.
const READ_TOGETHER: usize = 1 << 23;

/// Rows read to learn how long they are.
const FIRST_ROWS: usize = 1024;

/// The name of the column, or of the file's metadata, that says what int8 values are multiplied by.
const SCALE: &str = "scale";

/// The rows and their ids.
pub fn read(path: &Path, room: Room<'_>) -> Result<(Rows, Ids), EmbedError> {
    let file = Parquet::open(path)?;
    let first = file.file.part(&file.wanted, 0, FIRST_ROWS);
    let first = first.map_err(|fault| failed(path, fault))?;
    let width = match file.list(&first)?.downcast_iter().next() {
        Some(lists) => lists.offsets().lengths().next().unwrap_or(0),
        None => 0,
    };
    match &file.element {
        ArrowDataType::FixedSizeBinary(_) => file.rows(width, room, &|values, sink| {
            // A null inside an embedding is as unusable as a NaN, and refused with it.
            let half = |bytes: Option<&[u8]>| match bytes {
                Some(&[low, high]) => f16::from_le_bytes([low, high]),
                _ => f16::NAN,
            };
            let halves = values.binary()?;
            Ok(sink.take(halves.iter().map(half))?)
        }),
        ArrowDataType::Int8 => file.rows(width, room, &|values, sink| {
            if values.null_count() > 0 {
                let null = PolarsError::ComputeError("a null inside an embedding".into());
                return Err(null.into());
            }
            let bytes = values.i8()?;
            Ok(sink.take(bytes.iter().flatten())?)
        }),
        _ => file.rows(width, room, &|values, sink| {
            let values = values.cast(&DataType::Float32)?;
            let floats = values.f32()?;
            Ok(sink.take(floats.iter().map(|value| value.unwrap_or(f32::NAN)))?)
        }),
    }
}

/// Hands the numbers of some rows to the sink.
type Take<'a, T> = &'a dyn Fn(&Series, &mut Sink<'_, T>) -> Result<(), Untaken>;

/// Why numbers did not reach the sink.
enum Untaken {
    Polars(PolarsError),
    Sink(EmbedError),
}

impl From<PolarsError> for Untaken {
    fn from(error: PolarsError) -> Self {
        Self::Polars(error)
    }
}

impl From<EmbedError> for Untaken {
    fn from(error: EmbedError) -> Self {
        Self::Sink(error)
    }
}

/// A file and its columns in use.
struct Parquet<'a> {
    path: &'a Path,
    file: ParquetFile,
    id: String,
    embedding: String,
    element: ArrowDataType,
    scale: Option<ScaleIn>,
    /// Columns that are read, rising.
    wanted: Vec<usize>,
}

/// Where the scale of int8 values is.
enum ScaleIn {
    Column,
    Metadata(f32),
}

impl<'a> Parquet<'a> {
    fn open(path: &'a Path) -> Result<Self, EmbedError> {
        let file = ParquetFile::open(path).map_err(|fault| failed(path, fault))?;
        let columns = file.columns.iter();
        let fields: Vec<(&str, &ArrowDataType)> = columns
            .map(|(name, dtype)| (name.as_str(), dtype))
            .collect();
        let [id, embedding] = columns_in_use(path, &fields)?;
        let mut wanted = vec![id, embedding];
        let element = element(fields[embedding].1).expect("the embedding is a list");
        let scale = if *element != ArrowDataType::Int8 {
            None
        } else if let Some(column) = fields.iter().position(|(name, _)| *name == SCALE) {
            let dtype = fields[column].1;
            if !matches!(dtype, ArrowDataType::Float32 | ArrowDataType::Float64) {
                let found = format!("`{SCALE}` of type {}", type_name(dtype));
                return Err(wrong(path, "a scale that is a float".into(), found));
            }
            wanted.push(column);
            Some(ScaleIn::Column)
        } else if let Some(entry) = file.notes.iter().find(|(key, _)| key == SCALE) {
            let text = entry.1.as_deref().unwrap_or_default();
            let scale = text.trim().parse().ok().filter(is_scale);
            let expected = format!("a number above 0 as the metadata's `{SCALE}`");
            Some(ScaleIn::Metadata(
                scale.ok_or_else(|| wrong(path, expected, format!("`{text}`")))?,
            ))
        } else {
            let expected = format!("a column or metadata key `{SCALE}`, which int8 needs");
            return Err(wrong(path, expected, "neither".into()));
        };
        wanted.sort_unstable();
        Ok(Self {
            path,
            id: fields[id].0.to_owned(),
            embedding: fields[embedding].0.to_owned(),
            element: element.clone(),
            scale,
            wanted,
            file,
        })
    }

    fn list(&self, part: &DataFrame) -> Result<ListChunked, EmbedError> {
        let failed = |error| polars_error(self.path, &error);
        let column = part.column(&self.embedding).map_err(failed)?;
        // A fixed-size list becomes a list; the numbers stay what they are.
        let column = match column.dtype() {
            DataType::Array(inner, _) => column
                .cast(&DataType::List(inner.clone()))
                .map_err(failed)?,
            _ => column.clone(),
        };
        Ok(column.list().map_err(failed)?.rechunk().into_owned())
    }

    /// Reads all rows, part by part; no part spans two row groups.
    fn rows<T: Number>(
        &self,
        width: usize,
        room: Room<'_>,
        take: Take<'_, T>,
    ) -> Result<(Rows, Ids), EmbedError> {
        let mut sink = Sink::new(self.path, self.file.n_rows(), width, room)?;
        let mut ids = Ids::default();
        let mut scales = Vec::new();
        let together = (READ_TOGETHER / width.max(1)).max(1);
        let failed = |fault| failed(self.path, fault);
        let visit = |start, part: DataFrame| {
            self.take_ids(&part, start, &mut ids)?;
            let list = self.list(&part)?;
            self.refuse_ragged(&list, start, width)?;
            let values = list.get_inner();
            // A list may start inside its values; one that was read on its own does not.
            debug_assert_eq!(values.len(), part.height() * width);
            take(&values, &mut sink).map_err(|untaken| match untaken {
                Untaken::Polars(error) => polars_error(self.path, &error),
                Untaken::Sink(error) => error,
            })?;
            match self.scale {
                Some(ScaleIn::Column) => self.take_scales(&part, start, &mut scales),
                _ => Ok(()),
            }
        };
        self.file.each_part(&self.wanted, together, failed, visit)?;
        let scale = match self.scale {
            None => Scale::All(1.0),
            Some(ScaleIn::Metadata(scale)) => Scale::All(scale),
            Some(ScaleIn::Column) => Scale::PerRow(scales.into()),
        };
        Ok((sink.finish(scale)?, ids))
    }

    fn take_ids(&self, part: &DataFrame, start: usize, ids: &mut Ids) -> Result<(), EmbedError> {
        let texts = part
            .column(&self.id)
            .and_then(|id| id.cast(&DataType::String))
            .map_err(|error| polars_error(self.path, &error))?;
        let texts = texts
            .str()
            .map_err(|error| polars_error(self.path, &error))?;
        for (row, id) in texts.iter().enumerate() {
            ids.push(id.ok_or_else(|| self.missing("an id", start + row))?);
        }
        Ok(())
    }

    fn take_scales(
        &self,
        part: &DataFrame,
        start: usize,
        scales: &mut Vec<f32>,
    ) -> Result<(), EmbedError> {
        let column = part
            .column(SCALE)
            .and_then(|scale: &Column| scale.cast(&DataType::Float32))
            .map_err(|error| polars_error(self.path, &error))?;
        let column = column
            .f32()
            .map_err(|error| polars_error(self.path, &error))?;
        for (row, scale) in column.iter().enumerate() {
            let scale = scale.ok_or_else(|| self.missing("a scale", start + row))?;
            if !is_scale(&scale) {
                let found = format!("{scale} in row {}", start + row + 1);
                return Err(wrong(self.path, format!("a `{SCALE}` above 0"), found));
            }
            scales.push(scale);
        }
        Ok(())
    }

    fn refuse_ragged(
        &self,
        list: &ListChunked,
        start: usize,
        width: usize,
    ) -> Result<(), EmbedError> {
        if list.null_count() > 0 {
            let row = list.is_null().iter().position(|null| null == Some(true));
            return Err(self.missing("an embedding", start + row.unwrap_or_default()));
        }
        let lengths = list
            .downcast_iter()
            .flat_map(|lists| lists.offsets().lengths());
        match lengths.enumerate().find(|&(_, length)| length != width) {
            None => Ok(()),
            Some((row, length)) => {
                let found = format!("{length} in row {}", start + row + 1);
                let expected = format!("{width} dimensions, as in row 1");
                Err(wrong(self.path, expected, found))
            }
        }
    }

    fn missing(&self, what: &str, row: usize) -> EmbedError {
        let found = format!("none in row {}", row + 1);
        wrong(self.path, format!("{what} in every row"), found)
    }
}

fn failed(path: &Path, fault: Fault) -> EmbedError {
    match fault {
        Fault::Io(source) => unreadable(path, source),
        Fault::Metadata(error) | Fault::Columns(error) => polars_error(path, &error),
    }
}

/// What polars says of the file.
fn polars_error(path: &Path, error: &PolarsError) -> EmbedError {
    let expected = "a parquet file of ids and embeddings".into();
    wrong(path, expected, one_line(error))
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
            let expected = "exactly one list column of floats or integers".into();
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
    // Parquet stores halves as two bytes each.
    matches!(
        dtype,
        Type::Float32 | Type::Float64 | Type::FixedSizeBinary(2)
    ) || is_integer(dtype)
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

/// `list of struct`, `decimal`, as a reader would say it.
fn type_name(dtype: &ArrowDataType) -> String {
    if let Some(element) = element(dtype) {
        return format!("list of {}", type_name(element));
    }
    let debug = format!("{dtype:?}");
    let word = debug.split(['(', ' ', '{']).next().unwrap_or_default();
    word.to_lowercase()
}

#[cfg(test)]
mod tests {
    use polars::prelude::{ArrowField, PlSmallStr};

    use super::*;

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
            ("flags", list(Type::Boolean)),
        ];
        for other in beside {
            assert_eq!(choose(&[other, id(), floats()]), Ok([1, 2]));
        }
        let flags = choose(&[id(), ("embedding", list(Type::Boolean))]).unwrap_err();
        assert!(
            flags.ends_with(
                "expected exactly one list column of floats or integers, found `embedding` of type list of boolean"
            ),
            "{flags}"
        );
        let halves = ("embedding", list(Type::FixedSizeBinary(2)));
        assert_eq!(choose(&[id(), halves]), Ok([0, 1]));
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
}
