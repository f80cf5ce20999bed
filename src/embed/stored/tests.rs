//! Stored files of every kind, in memory and not.

use std::fs::File;
use std::path::PathBuf;

use polars::prelude::{
    Column, DataFrame, DataType, Int8Type, IntoSeries, ListBuilderTrait, ListChunked,
    ListPrimitiveChunkedBuilder, NamedFrom, ParquetWriter, Series,
};
use tempfile::TempDir;

use super::*;
use crate::domain::Element;
use crate::probe::tensors::testing;

/// Room for everything, and for nothing.
const ROOMS: [Room<'static>; 2] = [
    Room {
        memory: u64::MAX,
        folder: None,
    },
    Room {
        memory: 0,
        folder: None,
    },
];

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A row group for each `group` rows.
fn write_parquet(path: &Path, columns: Vec<Column>, group: usize) {
    let mut frame = DataFrame::new(columns[0].len(), columns).expect("a frame");
    ParquetWriter::new(File::create(path).expect("created"))
        .with_row_group_size(Some(group))
        .finish(&mut frame)
        .expect("written");
}

fn lists(rows: &[Vec<f32>]) -> Column {
    let series = rows.iter().map(|row| Some(Series::new("".into(), row)));
    let lists: ListChunked = series.collect();
    lists.into_series().with_name("embedding".into()).into()
}

fn parquet(folder: &TempDir, ids: &[&str], rows: &[Vec<f32>]) -> PathBuf {
    let path = folder.path().join("e.parquet");
    write_parquet(
        &path,
        vec![Column::new("id".into(), ids), lists(rows)],
        1000,
    );
    path
}

fn message(path: &Path) -> String {
    let messages = ROOMS.map(|room| read(path, room).err().expect("refused").to_string());
    assert_eq!(messages[0], messages[1]);
    messages[0].clone()
}

fn row(stored: &Stored, id: &str) -> Vec<f32> {
    let row = stored.row(id).expect("stored") as usize;
    stored.rows.get(row, stored.rows.width()).into_owned()
}

/// `<stem>.npy` of these numbers and its ids, `0`, `1` ...
fn npy<T: npyz::AutoSerialize + Copy>(
    folder: &TempDir,
    stem: &str,
    order: npyz::Order,
    shape: [u64; 2],
    values: &[T],
) -> PathBuf {
    let path = folder.path().join(format!("{stem}.npy"));
    let bytes = testing::npy(&shape, order, values.iter().copied());
    std::fs::write(&path, bytes).expect("written");
    let ids: String = (0..shape[0]).map(|row| format!("{row}\n")).collect();
    std::fs::write(path.with_extension("ids.txt"), ids).expect("written");
    path
}

#[test]
fn parquet_lists_come_back_by_id() {
    let folder = folder();
    let path = parquet(&folder, &["b", "a"], &[vec![1.0, 2.0], vec![3.0, 4.0]]);
    for room in ROOMS {
        let stored = read(&path, room).expect("read");
        assert_eq!(row(&stored, "a"), [3.0, 4.0]);
        assert_eq!((stored.rows.n(), stored.rows.width()), (2, 2));
        assert_eq!(stored.row("c"), None);
        assert_eq!(stored.rows.file().is_some(), room.memory == 0);
    }
}

#[test]
fn ragged_lists_and_repeated_ids_are_refused() {
    let folder = folder();
    let ragged = message(&parquet(&folder, &["a", "b"], &[vec![1.0, 2.0], vec![3.0]]));
    assert!(
        ragged.contains("expected 2 dimensions, as in row 1, found 1 in row 2"),
        "{ragged}"
    );
    let repeated = message(&parquet(&folder, &["a", "a"], &[vec![1.0], vec![3.0]]));
    assert!(repeated.contains("`a` in rows 1 and 2"), "{repeated}");
}

#[test]
fn rows_of_many_row_groups_stay_in_order() {
    let folder = folder();
    let n = 2_500;
    let ids: Vec<String> = (0..n).map(|i| format!("id-{i}")).collect();
    let value = |i: usize, d: usize| (i * 3 + d) as f32 + 0.5;
    let rows: Vec<Vec<f32>> = (0..n)
        .map(|i| (0..3).map(|d| value(i, d)).collect())
        .collect();
    let path = folder.path().join("many.parquet");
    let columns = || vec![Column::new("id".into(), &ids), lists(&rows)];
    write_parquet(&path, columns(), 100);
    let hashes = ROOMS.map(|room| {
        let stored = read(&path, room).expect("read");
        for i in [0, 99, 100, 1234, n - 1] {
            assert_eq!(row(&stored, &ids[i]), rows[i]);
        }
        stored.hash()
    });
    assert_eq!(hashes[0], hashes[1]);
    // A null row is named by its number in the file.
    let mut series: Vec<Option<Series>> = rows
        .iter()
        .map(|row| Some(Series::new("".into(), row)))
        .collect();
    series[1234] = None;
    let holes: ListChunked = series.into_iter().collect();
    let holes = holes.into_series().with_name("embedding".into()).into();
    write_parquet(&path, vec![Column::new("id".into(), &ids), holes], 100);
    let none = message(&path);
    assert!(
        none.ends_with("expected an embedding in every row, found none in row 1235"),
        "{none}"
    );
}

/// int8 lists by hand: row `a` is (-128, 1), row `b` (2, 127).
fn bytes() -> Column {
    let mut lists =
        ListPrimitiveChunkedBuilder::<Int8Type>::new("embedding".into(), 2, 4, DataType::Int8);
    lists.append_slice(&[-128, 1]);
    lists.append_slice(&[2, 127]);
    lists.finish().into_series().into()
}

#[test]
fn int8_rows_are_scaled() {
    let folder = folder();
    let path = folder.path().join("q.parquet");
    let ids = || Column::new("id".into(), ["a", "b"]);
    let scale = Column::new("scale".into(), [0.25_f32, 2.0]);
    for room in ROOMS {
        write_parquet(&path, vec![bytes(), ids(), scale.clone()], 1);
        let stored = read(&path, room).expect("read");
        assert_eq!(stored.rows.element(), Element::I8);
        assert_eq!(row(&stored, "a"), [-32.0, 0.25]);
        assert_eq!(row(&stored, "b"), [4.0, 254.0]);
    }
    write_parquet(&path, vec![bytes(), ids()], 1);
    let text = message(&path);
    assert!(
        text.contains("`scale`, which int8 needs, found neither"),
        "{text}"
    );
    for (bad, shown) in [(0.0, "0"), (-2.0, "-2"), (f32::NAN, "NaN")] {
        let scale = Column::new("scale".into(), [0.25, bad]);
        write_parquet(&path, vec![bytes(), ids(), scale], 1);
        let text = message(&path);
        let end = format!("expected a `scale` above 0, found {shown} in row 2");
        assert!(text.ends_with(&end), "{text}");
    }
    write_parquet(
        &path,
        vec![bytes(), ids(), Column::new("scale".into(), ["1", "2"])],
        1,
    );
    let text = message(&path);
    assert!(text.contains("expected a scale that is a float"), "{text}");
}

#[test]
fn int8_arrays_have_their_scale_beside() {
    let folder = folder();
    let path = npy(&folder, "q", npyz::Order::C, [2, 2], &[-128_i8, 1, 2, 127]);
    let without = message(&path);
    assert!(without.contains("q.scale.txt"), "{without}");
    let beside = path.with_extension("scale.txt");
    for room in ROOMS {
        std::fs::write(&beside, "0.5\n").expect("written");
        assert_eq!(row(&read(&path, room).expect("read"), "1"), [1.0, 63.5]);
        std::fs::write(&beside, "0.25\r\n2\r\n").expect("written");
        let stored = read(&path, room).expect("read");
        assert_eq!(stored.rows.element(), Element::I8);
        assert_eq!(row(&stored, "0"), [-32.0, 0.25]);
        assert_eq!(row(&stored, "1"), [4.0, 254.0]);
    }
    std::fs::write(&beside, "0.25\n2\n3").expect("written");
    assert!(message(&path).ends_with("expected one number, or 2, one a row, found 3 numbers"));
    for bad in ["two", "0", "-1", "inf"] {
        std::fs::write(&beside, format!("0.25\n{bad}")).expect("written");
        let end = format!("expected a number above 0 a line, found `{bad}` in line 2");
        assert!(message(&path).ends_with(&end), "{}", message(&path));
    }
}

#[test]
fn ids_are_texts_one_a_line() {
    let folder = folder();
    let path = npy(&folder, "q", npyz::Order::C, [2, 1], &[1.0_f32, 2.0]);
    let ids = path.with_extension("ids.txt");
    for room in ROOMS {
        std::fs::write(&ids, "\u{feff}a\r\nb").expect("written");
        assert_eq!(row(&read(&path, room).expect("read"), "a"), [1.0]);
    }
    std::fs::write(&ids, b"a\nb\xe9\n").expect("written");
    let text = message(&path);
    assert!(
        text.ends_with("q.ids.txt: expected text in UTF-8, found other bytes in line 2"),
        "{text}"
    );
    std::fs::write(&ids, "a\nb\n\n").expect("written");
    let text = message(&path);
    assert!(
        text.ends_with("q.ids.txt: expected an id a line, found nothing in line 3"),
        "{text}"
    );
}

#[test]
fn a_folder_without_room_is_named_and_not_the_file() {
    let folder = folder();
    let path = parquet(&folder, &["a"], &[vec![1.0]]);
    // A file where the folder of temporary files should be.
    let room = Room {
        memory: 0,
        folder: Some(&path),
    };
    let text = read(&path, room).err().expect("refused").to_string();
    let start = format!("{0}: cannot unpack {0} there: ", path.display());
    assert!(text.starts_with(&start), "{text}");
    let turned = npy(&folder, "t", npyz::Order::Fortran, [2, 2], &[1.0_f32; 4]);
    let text = read(&turned, room).err().expect("refused").to_string();
    assert!(text.contains("t.npy there: "), "{text}");
}

#[test]
fn arrays_of_any_float_and_order_give_one_model() {
    let folder = folder();
    // Halves hold these exactly.
    let values = [1.0_f32, 2.0, 3.0, -0.5, 0.25, 100.0];
    let by_columns = [1.0_f32, -0.5, 2.0, 0.25, 3.0, 100.0];
    let halves = values.map(half::f16::from_f32);
    let c = npyz::Order::C;
    let shape = [2, 3];
    let mut paths = vec![
        npy(&folder, "f4", c, shape, &values),
        npy(&folder, "f2", c, shape, &halves),
        npy(&folder, "f8", c, shape, &values.map(f64::from)),
        npy(&folder, "t4", npyz::Order::Fortran, shape, &by_columns),
    ];
    // The same bytes the other way round, and that said.
    let mut swapped = std::fs::read(&paths[0]).expect("read");
    let at = swapped
        .windows(3)
        .position(|w| w == b"<f4")
        .expect("its type");
    swapped[at] = b'>';
    let data = swapped.len() - 24;
    swapped[data..].chunks_mut(4).for_each(<[u8]>::reverse);
    let big = folder.path().join("big.npy");
    std::fs::write(&big, swapped).expect("written");
    std::fs::write(big.with_extension("ids.txt"), "0\n1").expect("written");
    paths.push(big);
    let mut hashes = Vec::new();
    for path in &paths {
        for room in ROOMS {
            let stored = read(path, room).expect("read");
            assert_eq!(row(&stored, "0"), values[..3], "{}", path.display());
            assert_eq!(row(&stored, "1"), values[3..], "{}", path.display());
            assert_eq!(stored.rows.file().is_some(), room.memory == 0);
            hashes.push(stored.hash());
        }
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1);
    // Halves stay halves.
    for room in ROOMS {
        let stored = read(&paths[1], room).expect("read");
        assert_eq!(stored.rows.element(), Element::F16);
    }
}

#[test]
fn a_truncated_array_is_refused_before_it_is_read() {
    let folder = folder();
    let path = npy(&folder, "e", npyz::Order::C, [3, 2], &[1.0_f32; 6]);
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    let cut = message(&path);
    assert!(
        cut.ends_with("expected (3, 2) of '<f4', found a truncated file of 151 bytes"),
        "{cut}"
    );
    std::fs::write(&path, b"\x93NUMPY").expect("written");
    assert!(message(&path).contains("expected an array as numpy writes it"));
}

/// Written by pyarrow (fixtures/generate/stored_parquet.py): a float16 list, and floats beside a struct, a map
/// and a decimal.
#[test]
fn files_of_another_writer_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/stored");
    for room in ROOMS {
        let half = read(&folder.join("float16.parquet"), room).expect("read");
        assert_eq!(half.rows.element(), Element::F16);
        assert_eq!(row(&half, "a"), [1.0, 2.0]);
        assert_eq!(row(&half, "b"), [3.0, 4.0]);
        let beside = read(&folder.join("beside.parquet"), room).expect("read");
        assert_eq!(row(&beside, "b"), [3.0, 4.0]);
        assert_eq!(beside.hash(), half.hash());
    }
}

#[test]
fn rows_of_no_numbers_are_refused() {
    let folder = folder();
    let none: [f32; 0] = [];
    let message = message(&npy(&folder, "none", npyz::Order::C, [3, 0], &none));
    assert!(message.contains("at least 1 dimension"), "{message}");
}
