//! Ready-made model inputs: the arrays of a `.npz`, or the one array of a `.npy`.
//!
//! Arrays are widened when read, to the few types the embed stage feeds from: integers and booleans
//! to i64 (u8 stays, it is what pixels are), floats to f32. Rows are contiguous afterwards, whatever
//! order the file has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use npyz::{DType, Deserialize, NpyFile, Order, TypeChar};
use zip::ZipArchive;

use super::ProbeError;

/// The values of a tensor, rows contiguous.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// Floats of any width.
    F32(Vec<f32>),
    /// Integers of any width but u8, and booleans as 0 and 1.
    I64(Vec<i64>),
    /// Bytes.
    U8(Vec<u8>),
}

/// One row of a tensor, flat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TensorRow<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Integers and booleans.
    I64(&'a [i64]),
    /// Bytes.
    U8(&'a [u8]),
}

/// An array whose first axis are the probe's items.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// All axes, rows first.
    pub shape: Vec<usize>,
    /// `shape`'s product of values, the last axis fastest.
    pub data: TensorData,
}

impl Tensor {
    /// Number of rows (items).
    pub fn n_rows(&self) -> usize {
        self.shape[0]
    }

    /// The axes of one row; empty for a number an item.
    pub fn row_shape(&self) -> &[usize] {
        &self.shape[1..]
    }

    /// Row `row` (from 0), of the product of [`Tensor::row_shape`] values.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> TensorRow<'_> {
        let width: usize = self.row_shape().iter().product();
        let range = row * width..(row + 1) * width;
        match &self.data {
            TensorData::F32(values) => TensorRow::F32(&values[range]),
            TensorData::I64(values) => TensorRow::I64(&values[range]),
            TensorData::U8(values) => TensorRow::U8(&values[range]),
        }
    }

    /// The row's values as little-endian bytes, to be hashed; equal on every machine.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_bytes(&self, row: usize) -> Cow<'_, [u8]> {
        match self.row(row) {
            TensorRow::F32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            TensorRow::I64(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            TensorRow::U8(values) => Cow::Borrowed(values),
        }
    }
}

/// Named arrays with the same number of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensors {
    arrays: BTreeMap<String, Tensor>,
    n_rows: usize,
}

impl Tensors {
    /// Reads a `.npz`, arrays under their names, or a `.npy`, its array under the empty name.
    ///
    /// # Errors
    /// The file cannot be read, is not what numpy writes, holds something other than numbers and
    /// booleans, or its arrays differ in rows.
    pub fn open(path: &Path) -> Result<Self, ProbeError> {
        let mut arrays = BTreeMap::new();
        each_array(path, Extent::Whole, |name, file, bytes| {
            arrays.insert(name.to_owned(), read_array(file, bytes)?);
            Ok(())
        })?;
        let shapes = arrays
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor.n_rows()));
        let n_rows = common_rows(path, shapes)?;
        Ok(Self { arrays, n_rows })
    }

    /// The arrays' names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.arrays.keys().map(String::as_str).collect()
    }

    /// The array of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.arrays.get(name)
    }

    /// Rows of every array: items.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }
}

/// Rows of every array, from the headers alone.
pub(super) fn row_count(path: &Path) -> Result<usize, ProbeError> {
    let mut rows = BTreeMap::new();
    each_array(path, Extent::Header, |name, file, bytes| {
        rows.insert(name.to_owned(), checked_shape(&file, bytes)?[0]);
        Ok(())
    })?;
    common_rows(path, rows.iter().map(|(name, &rows)| (name.as_str(), rows)))
}

/// The number of rows that all arrays have.
fn common_rows<'a>(
    path: &Path,
    mut arrays: impl Iterator<Item = (&'a str, usize)>,
) -> Result<usize, ProbeError> {
    let Some((first, first_rows)) = arrays.next() else {
        return Err(format_error(path, "", "the archive holds no arrays"));
    };
    match arrays.find(|&(_, rows)| rows != first_rows) {
        Some((second, second_rows)) => Err(ProbeError::TensorRows {
            path: path.to_path_buf(),
            first: first.to_owned(),
            first_rows,
            second: second.to_owned(),
            second_rows,
        }),
        None => Ok(first_rows),
    }
}

fn format_error(path: &Path, array: &str, message: impl ToString) -> ProbeError {
    ProbeError::TensorFormat {
        path: path.to_path_buf(),
        array: array.to_owned(),
        message: message.to_string(),
    }
}

/// How far each array is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Header,
    Whole,
}

/// Calls `visit` with each array's name, its opened header and how many bytes the file holds of it.
fn each_array(
    path: &Path,
    extent: Extent,
    mut visit: impl FnMut(&str, NpyFile<&mut dyn Read>, u64) -> Result<(), String>,
) -> Result<(), ProbeError> {
    let file = File::open(path).map_err(|source| ProbeError::read(path, source))?;
    let length = file
        .metadata()
        .map_err(|source| ProbeError::read(path, source))?
        .len();
    let mut reader = BufReader::new(file);
    if path.extension().is_some_and(|extension| extension == "npy") {
        let reader: &mut dyn Read = &mut reader;
        return NpyFile::new(reader)
            .map_err(|error| error.to_string())
            .and_then(|file| visit("", file, length))
            .map_err(|message| format_error(path, "", message));
    }
    let mut archive = ZipArchive::new(reader)
        .map_err(|error| format_error(path, "", format!("no .npz: {error}")))?;
    for index in 0..archive.len() {
        let entry = archive
            .by_index(index)
            .map_err(|error| format_error(path, "", error))?;
        let file_name = entry
            .name()
            .map_err(|error| format_error(path, "", error))?
            .into_owned();
        let Some(name) = npyz::npz::array_name_from_file_name(&file_name) else {
            continue;
        };
        let length = entry.size();
        let mut entry = BufReader::new(entry);
        let reader: &mut dyn Read = &mut entry;
        NpyFile::new(reader)
            .map_err(|error| error.to_string())
            .and_then(|file| visit(name, file, length))
            .map_err(|message| format_error(path, name, message))?;
        if extent == Extent::Whole {
            // Its checksum is compared at its end.
            std::io::copy(&mut entry, &mut std::io::sink())
                .map_err(|error| format_error(path, name, format!("damaged: {error}")))?;
        }
    }
    Ok(())
}

/// The shape, once it is sure that the file is long enough for it.
///
/// A header may claim any shape: believing it would allocate before the first byte is missed.
fn checked_shape(file: &NpyFile<&mut dyn Read>, bytes: u64) -> Result<Vec<usize>, String> {
    let shape: Vec<usize> = file
        .shape()
        .iter()
        .map(|&axis| usize::try_from(axis))
        .collect::<Result<_, _>>()
        .map_err(|_| format!("shape {:?} does not fit in memory", file.shape()))?;
    if shape.is_empty() {
        return Err("expected a row an item, found a single number".into());
    }
    let item_size = file.dtype().num_bytes().unwrap_or(1) as u64;
    let wanted = file
        .shape()
        .iter()
        .try_fold(item_size, |product, &axis| product.checked_mul(axis));
    match wanted {
        Some(wanted) if wanted <= bytes => Ok(shape),
        _ => Err(format!(
            "truncated: shape {shape:?} of {} needs more than the {bytes} bytes there are",
            file.dtype().descr()
        )),
    }
}

fn read_array(file: NpyFile<&mut dyn Read>, bytes: u64) -> Result<Tensor, String> {
    let shape = checked_shape(&file, bytes)?;
    let order = file.order();
    let dtype = file.dtype();
    let DType::Plain(kind) = &dtype else {
        return Err(unsupported(&dtype));
    };
    let data = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Uint, 1) => TensorData::U8(values(file, &shape, order, Ok)?),
        (TypeChar::Bool, 1) => {
            TensorData::I64(values(file, &shape, order, |v: bool| Ok(i64::from(v)))?)
        }
        (TypeChar::Int, 1) => TensorData::I64(values(file, &shape, order, |v: i8| Ok(v.into()))?),
        (TypeChar::Int, 2) => TensorData::I64(values(file, &shape, order, |v: i16| Ok(v.into()))?),
        (TypeChar::Int, 4) => TensorData::I64(values(file, &shape, order, |v: i32| Ok(v.into()))?),
        (TypeChar::Int, 8) => TensorData::I64(values(file, &shape, order, Ok)?),
        (TypeChar::Uint, 2) => TensorData::I64(values(file, &shape, order, |v: u16| Ok(v.into()))?),
        (TypeChar::Uint, 4) => TensorData::I64(values(file, &shape, order, |v: u32| Ok(v.into()))?),
        (TypeChar::Uint, 8) => TensorData::I64(values(file, &shape, order, |v: u64| {
            i64::try_from(v).map_err(|_| format!("{v} is more than 64-bit signed integers hold"))
        })?),
        (TypeChar::Float, 2) => {
            TensorData::F32(values(file, &shape, order, |v: f16| Ok(v.to_f32()))?)
        }
        (TypeChar::Float, 4) => TensorData::F32(values(file, &shape, order, Ok)?),
        (TypeChar::Float, 8) => {
            TensorData::F32(values(file, &shape, order, |v: f64| Ok(v as f32))?)
        }
        _ => return Err(unsupported(&dtype)),
    };
    Ok(Tensor { shape, data })
}

fn unsupported(dtype: &DType) -> String {
    format!(
        "expected integers, floats or booleans, found dtype {}",
        dtype.descr()
    )
}

/// The array's values in C order, each widened.
fn values<T: Deserialize, U: Clone>(
    file: NpyFile<&mut dyn Read>,
    shape: &[usize],
    order: Order,
    widen: impl Fn(T) -> Result<U, String>,
) -> Result<Vec<U>, String> {
    let values: Vec<U> = file
        .data::<T>()
        .map_err(|error| error.to_string())?
        .map(|value| match value {
            Ok(value) => widen(value),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err("truncated: the file ends before the array's last value".into())
            }
            Err(error) => Err(error.to_string()),
        })
        .collect::<Result<_, String>>()?;
    if order == Order::C {
        return Ok(values);
    }
    let array =
        ArrayD::from_shape_vec(IxDyn(shape).f(), values).map_err(|error| error.to_string())?;
    Ok(array.iter().cloned().collect())
}

/// Files for the tests of whoever reads arrays.
#[cfg(test)]
pub(crate) mod testing {
    use std::io::{Cursor, Write};

    use npyz::{AutoSerialize, Order, WriterBuilder};

    /// A `.npy`.
    pub fn npy<T: AutoSerialize>(
        shape: &[u64],
        order: Order,
        values: impl IntoIterator<Item = T>,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(shape)
            .order(order)
            .writer(&mut bytes)
            .begin_nd()
            .expect("a header");
        writer.extend(values).expect("values");
        writer.finish().expect("an array");
        bytes
    }

    /// A `.npz` of these entries, name and bytes.
    pub fn npz<N: ToString, B: AsRef<[u8]>>(entries: impl IntoIterator<Item = (N, B)>) -> Vec<u8> {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            archive
                .start_file(name, zip::write::SimpleFileOptions::default())
                .expect("an entry");
            archive.write_all(bytes.as_ref()).expect("its bytes");
        }
        archive.finish().expect("an archive").into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;

    use super::testing::{npy, npz};
    use tempfile::TempDir;

    /// A `.npy` header (version 1.0) of this Python dict, then the bytes.
    fn raw(dict: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((dict.len() as u16).to_le_bytes());
        bytes.extend(dict.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn open(name: &str, bytes: &[u8]) -> Result<Tensors, ProbeError> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let opened = Tensors::open(&path);
        let counted = row_count(&path);
        // The headers alone say the same, unless the values are at fault.
        match (&opened, counted) {
            (Ok(tensors), counted) => assert_eq!(counted.unwrap(), tensors.n_rows()),
            (Err(error), Err(counted)) => assert_eq!(error.to_string(), counted.to_string()),
            (Err(_), Ok(_)) => {}
        }
        opened
    }

    fn open_npy(bytes: &[u8]) -> Result<Tensor, String> {
        match open("x.npy", bytes) {
            Ok(tensors) => Ok(tensors.get("").unwrap().clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_text_fixture_has_two_integer_arrays() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/data/text/tokens.npz");
        let tensors = Tensors::open(Path::new(path)).unwrap();
        assert_eq!(tensors.names(), ["attention_mask", "input_ids"]);
        assert_eq!(tensors.n_rows(), 1200);
        let ids = tensors.get("input_ids").unwrap();
        assert_eq!(
            (ids.shape.as_slice(), ids.row_shape()),
            ([1200, 60].as_slice(), [60].as_slice())
        );
        // numpy: np.load("tokens.npz")["input_ids"].sum() and ["attention_mask"].sum()
        for (name, sum) in [("input_ids", 17_979_225), ("attention_mask", 14_764)] {
            let TensorData::I64(values) = &tensors.get(name).unwrap().data else {
                panic!("{name} is integer")
            };
            assert_eq!(values.iter().sum::<i64>(), sum, "{name}");
        }
        assert!(tensors.get("token_type_ids").is_none());
    }

    #[test]
    fn integers_are_widened_and_bytes_kept() {
        let shape = [2, 2];
        let c = Order::C;
        let expected = TensorData::I64(vec![1, 0, 1, 1]);
        assert_eq!(
            open_npy(&npy(&shape, c, vec![1_i8, 0, 1, 1])).unwrap().data,
            expected
        );
        assert_eq!(
            open_npy(&npy(&shape, c, vec![1_i16, 0, 1, 1]))
                .unwrap()
                .data,
            expected
        );
        assert_eq!(
            open_npy(&npy(&shape, c, vec![1_i32, 0, 1, 1]))
                .unwrap()
                .data,
            expected
        );
        assert_eq!(
            open_npy(&npy(&shape, c, vec![1_i64, 0, 1, 1]))
                .unwrap()
                .data,
            expected
        );
        assert_eq!(
            open_npy(&npy(&shape, c, vec![1_u16, 0, 1, 1]))
                .unwrap()
                .data,
            expected
        );
        assert_eq!(
            open_npy(&npy(&shape, c, vec![1_u32, 0, 1, 1]))
                .unwrap()
                .data,
            expected
        );
        assert_eq!(
            open_npy(&npy(&shape, c, vec![1_u64, 0, 1, 1]))
                .unwrap()
                .data,
            expected
        );
        let flags = vec![true, false, true, true];
        assert_eq!(open_npy(&npy(&shape, c, flags)).unwrap().data, expected);
        let bytes = open_npy(&npy(&shape, c, vec![255_u8, 0, 1, 2])).unwrap();
        assert_eq!(bytes.data, TensorData::U8(vec![255, 0, 1, 2]));
        let error = open_npy(&npy(&[1], c, vec![u64::MAX])).unwrap_err();
        assert!(
            error.contains("18446744073709551615 is more than"),
            "{error}"
        );
    }

    #[test]
    fn floats_of_any_width_and_byte_order_become_f32() {
        let expected = TensorData::F32(vec![0.5, -2.0]);
        let halves = [f16::from_f32(0.5), f16::from_f32(-2.0)]
            .map(f16::to_le_bytes)
            .concat();
        let header = "{'descr': '<f2', 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(open_npy(&raw(header, &halves)).unwrap().data, expected);
        let wide = npy(&[2], Order::C, vec![0.5_f64, -2.0]);
        assert_eq!(open_npy(&wide).unwrap().data, expected);
        let swapped = [0.5_f32, -2.0].map(f32::to_be_bytes).concat();
        let header = "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }";
        assert_eq!(open_npy(&raw(header, &swapped)).unwrap().data, expected);
    }

    #[test]
    fn fortran_order_is_turned() {
        // Rows (0, 1, 2) and (10, 11, 12), stored column by column.
        let bytes = npy(&[2, 3], Order::Fortran, vec![0_i64, 10, 1, 11, 2, 12]);
        let tensor = open_npy(&bytes).unwrap();
        assert_eq!(tensor.row(0), TensorRow::I64(&[0, 1, 2]));
        assert_eq!(tensor.row(1), TensorRow::I64(&[10, 11, 12]));
    }

    #[test]
    fn row_bytes_are_little_endian() {
        let tensor = open_npy(&npy(&[2, 1], Order::C, vec![1_i32, 258])).unwrap();
        assert_eq!(*tensor.row_bytes(1), [2, 1, 0, 0, 0, 0, 0, 0]);
        let tensor = open_npy(&npy(&[2], Order::C, vec![1.0_f32, 2.0])).unwrap();
        assert_eq!(*tensor.row_bytes(0), 1.0_f32.to_le_bytes());
        assert!(tensor.row_shape().is_empty());
        let tensor = open_npy(&npy(&[1, 2], Order::C, vec![7_u8, 8])).unwrap();
        assert_eq!(*tensor.row_bytes(0), [7, 8]);
    }

    #[test]
    fn arrays_must_have_the_same_rows() {
        let a = npy(&[2, 1], Order::C, vec![1_i64, 2]);
        let b = npy(&[3], Order::C, vec![1_i64, 2, 3]);
        let error = open("x.npz", &npz([("b.npy", b), ("a.npy", a.clone())])).unwrap_err();
        assert!(
            error.to_string().ends_with(": `a` has 2 rows, `b` has 3"),
            "{error}"
        );
        let tensors = open("x.npz", &npz([("a.npy", a), ("readme.txt", b"x".to_vec())])).unwrap();
        assert_eq!(tensors.names(), ["a"]);
    }

    #[test]
    fn a_damaged_archive_is_refused() {
        let values: Vec<i64> = (0..40_000).collect();
        let mut bytes = Vec::new();
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(&mut bytes));
        // As `numpy.savez` has it, so that no decompressor notices.
        let stored = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        archive.start_file("a.npy", stored).unwrap();
        let array = npy(&[20_000, 2], Order::C, values);
        std::io::Write::write_all(&mut archive, &array).unwrap();
        archive.finish().unwrap();
        open("x.npz", &bytes).unwrap();
        bytes[1_000] ^= 1;
        let error = open("x.npz", &bytes).unwrap_err().to_string();
        assert!(error.contains("x.npz: array `a`: damaged: "), "{error}");
    }

    #[test]
    fn what_numpy_does_not_write_is_refused() {
        let error = open("x.npz", b"PK no").unwrap_err();
        assert!(error.to_string().contains("x.npz: no .npz: "), "{error}");
        let error = open("x.npz", &npz::<&str, Vec<u8>>([])).unwrap_err();
        assert!(
            error.to_string().ends_with("the archive holds no arrays"),
            "{error}"
        );
        let error = open("x.npz", &npz([("a.npy", b"abc".to_vec())])).unwrap_err();
        assert!(error.to_string().contains("x.npz: array `a`: "), "{error}");
        assert!(error.hint().unwrap().contains("numpy.savez"));
        let error = Tensors::open(Path::new("no/such.npz")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such.npz: "));
    }

    #[test]
    fn other_dtypes_are_named() {
        for (descr, size) in [
            ("'<c8'", 8),
            ("'<U2'", 8),
            ("'<M8[s]'", 8),
            ("[('a', '<i8')]", 8),
        ] {
            let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}");
            let error = open_npy(&raw(&header, &vec![0; size])).unwrap_err();
            assert!(
                error.contains("expected integers, floats or booleans, found dtype"),
                "{error}"
            );
        }
        let header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }";
        let error = open_npy(&raw(header, &[0; 8])).unwrap_err();
        assert!(error.contains("found dtype '|O'"), "{error}");
    }

    #[test]
    fn a_header_is_not_believed() {
        for shape in ["(1000000000000,)", "(4294967296, 4294967296, 16)", "(3,)"] {
            let header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}");
            let error = open_npy(&raw(&header, &[0; 16])).unwrap_err();
            assert!(error.contains("truncated: "), "{error}");
        }
        let single = npy(&[], Order::C, vec![1_i64]);
        assert!(
            open_npy(&single)
                .unwrap_err()
                .contains("found a single number")
        );
    }
}
