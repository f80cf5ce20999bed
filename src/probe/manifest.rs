//! Manifest files, csv, parquet and jsonl, into one kind of table of texts.
//!
//! Nothing is inferred: identity `0001` stays `0001`, and `1e5` stays `1e5`. What the columns mean is
//! said once, in `rows`, for all formats.

use std::borrow::Cow;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use polars::prelude::{
    ArrowDataType, Column, CsvReadOptions, DataType, PolarsError, PolarsResult, SerReader,
};
use serde_json::Value;

use super::ProbeError;
use super::parquet::{Fault, ParquetFile, one_line};

/// Manifest formats, by file extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    Parquet,
    JsonLines,
}

impl Format {
    /// The format that the file's extension names.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// One value of a manifest. Absent and empty values are no cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// A text, or a number or boolean as text.
    One(String),
    /// A list: several labels.
    Many(Vec<String>),
}

/// Bytes of a csv that become a table at a time. A row takes some twenty times its text there, so this bounds what a large
/// manifest takes to a hundred megabytes.
const CSV_TOGETHER: usize = 4 << 20;

/// Rows of a parquet file that become a table at a time.
const ROWS_TOGETHER: usize = 1 << 17;

/// Some rows of a manifest as they stand in the file; all of them have the same columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Column names, in the file's order.
    pub columns: Vec<String>,
    /// `rows[i][j]` is row i's cell in column j.
    pub rows: Vec<Vec<Option<Cell>>>,
    /// Where row i is found: its line in csv and jsonl, its number in parquet; from 1.
    pub positions: Vec<usize>,
    /// Columns of types that are not read.
    pub unread: Vec<String>,
}

/// Hears of some rows.
type Visit<'a> = &'a mut dyn FnMut(Table) -> Result<(), ProbeError>;

/// Reads a manifest a part at a time, in order; no part is empty. Of jsonl, where a later row may bring a new column, there
/// is one part.
///
/// # Errors
/// The file cannot be read or parsed, or has no rows; what `visit` refuses.
pub(super) fn each_part(path: &Path, visit: Visit<'_>) -> Result<(), ProbeError> {
    let format = Format::of(path).ok_or_else(|| ProbeError::UnknownManifest {
        path: path.to_path_buf(),
    })?;
    let mut any = false;
    let visit = &mut |table: Table| {
        if table.rows.is_empty() {
            return Ok(());
        }
        any = true;
        visit(table)
    };
    let read = || fs::read(path).map_err(|source| ProbeError::read(path, source));
    match format {
        Format::Csv => each_csv_part(path, utf8(path, &read()?)?, CSV_TOGETHER, visit)?,
        Format::JsonLines => visit(read_json_lines(path, utf8(path, &read()?)?)?)?,
        Format::Parquet => each_parquet_part(path, ROWS_TOGETHER, visit)?,
    }
    if any {
        return Ok(());
    }
    Err(ProbeError::NoRows {
        path: path.to_path_buf(),
    })
}

/// The file's text without a byte order mark.
pub(super) fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, ProbeError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        parse_error(path, Some(line), "the text is not valid UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn parse_error(path: &Path, row: Option<usize>, message: impl ToString) -> ProbeError {
    ProbeError::Parse {
        path: path.to_path_buf(),
        row,
        message: message.to_string(),
    }
}

/// Reads a csv in parts of at least `together` bytes (but the last), each under the header.
fn each_csv_part(
    path: &Path,
    text: &str,
    together: usize,
    visit: Visit<'_>,
) -> Result<(), ProbeError> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let failed = |error: &PolarsError| match csv_fault(text) {
        Some((row, message)) => parse_error(path, Some(row), message),
        None => polars_error(path, error),
    };
    // polars skips blank lines before the header.
    let blank = text.len() - text.trim_start_matches(['\r', '\n']).len();
    let header = row_end(text, blank);
    let (mut start, mut line) = (header, 2 + text[..blank].matches('\n').count());
    loop {
        let mut end = start;
        while end < text.len() && end - start < together {
            end = row_end(text, end);
        }
        let whole = start == header && end == text.len();
        let part = if whole {
            Cow::Borrowed(text)
        } else {
            Cow::Owned([&text[blank..header], &text[start..end]].concat())
        };
        visit(read_csv(path, &part, line, &failed)?)?;
        if end == text.len() {
            return Ok(());
        }
        line += text[start..end].matches('\n').count();
        start = end;
    }
}

/// Where the row that starts at `start` ends, its line break included: at the first after an even number of quotes, as
/// polars tells rows apart.
fn row_end(text: &str, start: usize) -> usize {
    let mut quoted = false;
    for (at, &byte) in text.as_bytes().iter().enumerate().skip(start) {
        quoted ^= byte == b'"';
        if byte == b'\n' && !quoted {
            return at + 1;
        }
    }
    text.len()
}

/// A header and rows, the first of them at `line`.
fn read_csv(
    path: &Path,
    text: &str,
    mut line: usize,
    failed: &dyn Fn(&PolarsError) -> ProbeError,
) -> Result<Table, ProbeError> {
    // Zero rows to infer from: every column is text.
    let frame = CsvReadOptions::default()
        .with_has_header(true)
        .with_infer_schema_length(Some(0))
        .into_reader_with_file_handle(Cursor::new(text.as_bytes()))
        .finish()
        .map_err(|error| failed(&error))?;
    if let Some((row, message)) = short_row(text, line) {
        return Err(parse_error(path, Some(row), message));
    }
    let mut table = table_of(path, frame.columns(), frame.height())?;
    // polars renames the second of two equal names to this.
    let twice = |name: &&String| table.columns.contains(&format!("{name}_duplicated_0"));
    if let Some(name) = table.columns.iter().find(twice) {
        let message = format!("two columns are named `{name}`");
        return Err(parse_error(path, Some(1), message));
    }
    // A quoted cell may span lines.
    for (row, position) in table.rows.iter().zip(&mut table.positions) {
        *position = line;
        let breaks = row.iter().flatten().map(|cell| match cell {
            Cell::One(text) => text.matches('\n').count(),
            Cell::Many(_) => 0,
        });
        line += 1 + breaks.sum::<usize>();
    }
    drop_blank_rows(&mut table);
    Ok(table)
}

/// The first row with fewer cells than the header, whose missing ones polars would take for empty; the row after the header is
/// at `line`. Blank rows are none.
fn short_row(text: &str, mut line: usize) -> Option<(usize, String)> {
    let cells = |row: &str| {
        let mut quoted = false;
        let is_comma = |&byte: &u8| {
            quoted ^= byte == b'"';
            byte == b',' && !quoted
        };
        1 + row.bytes().filter(is_comma).count()
    };
    let header = text.len() - text.trim_start_matches(['\r', '\n']).len();
    let mut start = row_end(text, header);
    let expected = cells(&text[header..start]);
    while start < text.len() {
        let end = row_end(text, start);
        let row = &text[start..end];
        let found = cells(row);
        if found < expected && !row.trim_matches([',', '\r', '\n']).is_empty() {
            let message = format!("expected {expected} cells, as in the header, found {found}");
            return Some((line, message));
        }
        line += row.matches('\n').count();
        start = end;
    }
    None
}

/// Where a CSV that polars refuses goes wrong: a row with more cells than the header, a quoted cell that goes on after its
/// quote, a quote inside a cell that is not quoted, or one that is never closed. polars names no line, and advises on calling
/// polars.
fn csv_fault(text: &str) -> Option<(usize, String)> {
    let stray = |row| {
        let message = "a quote inside a cell that is not quoted as a whole";
        (row, message.to_owned())
    };
    let (mut line, mut row, mut cells) = (1, 1, 1);
    let mut expected = None;
    let mut opened = None;
    // The first row in which a quote opens within a cell: what follows may be told apart in the wrong places.
    let mut within = None;
    let (mut before, mut whole_cell, mut closed) = (b'\n', false, false);
    // A final newline ends the last row, whether there is one or not.
    for byte in text.trim_end_matches('\n').bytes().chain([b'\n']) {
        if closed && whole_cell && !b"\",\r\n".contains(&byte) {
            let message = "the cell goes on after its closing quote".to_owned();
            return Some((row, message));
        }
        closed = byte == b'"' && opened.is_some();
        if byte == b'"' && !closed && before != b'"' {
            whole_cell = b",\n".contains(&before);
        }
        before = byte;
        match byte {
            // A doubled quote closes and opens again.
            b'"' if opened.is_some() => opened = None,
            b'"' => {
                opened = Some(line);
                if !whole_cell {
                    within.get_or_insert(line);
                }
            }
            b',' if opened.is_none() => cells += 1,
            b'\n' if opened.is_none() => {
                let expected = *expected.get_or_insert(cells);
                if cells > expected {
                    let message =
                        format!("expected {expected} cells, as in the header, found {cells}");
                    return Some(within.map_or((row, message), stray));
                }
                (row, cells) = (line + 1, 1);
            }
            _ => {}
        }
        line += usize::from(byte == b'\n');
    }
    let unclosed = |line| (line, "the quote that opens here is never closed".to_owned());
    within.map(stray).or_else(|| opened.map(unclosed))
}

/// Forgets rows without any value: blank lines, and the empty tail that spreadsheets write.
fn drop_blank_rows(table: &mut Table) {
    let is_blank = |row: &Vec<Option<Cell>>| row.iter().all(Option::is_none);
    let mut rows = table.rows.iter();
    table
        .positions
        .retain(|_| !rows.next().is_some_and(is_blank));
    table.rows.retain(|row| !is_blank(row));
}

fn each_parquet_part(path: &Path, together: usize, visit: Visit<'_>) -> Result<(), ProbeError> {
    let failed = |fault| match fault {
        Fault::Io(source) => ProbeError::read(path, source),
        Fault::Metadata(error) => {
            let words = one_line(&error);
            parse_error(
                path,
                None,
                format!("cut short, or no Parquet file: {words}"),
            )
        }
        Fault::Columns(error) => polars_error(path, &error),
    };
    let file = ParquetFile::open(path).map_err(failed)?;
    let (mut wanted, mut unread) = (Vec::new(), Vec::new());
    for (index, (name, dtype)) in file.columns.iter().enumerate() {
        if is_read(dtype) {
            wanted.push(index);
        } else {
            unread.push(name.clone());
        }
    }
    file.each_part(&wanted, together, failed, |start, frame| {
        let mut table = table_of(path, frame.columns(), frame.height())?;
        table.positions.iter_mut().for_each(|row| *row += start);
        table.unread.clone_from(&unread);
        visit(table)
    })
}

/// Whether a column's values say something about an item: texts, numbers, dates, lists of labels.
///
/// Embeddings and records do not; and polars panics on types that it was built without, so these must
/// not reach it.
fn is_read(dtype: &ArrowDataType) -> bool {
    use ArrowDataType as Type;
    let is_label = |dtype: &ArrowDataType| {
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
                | Type::Utf8
                | Type::LargeUtf8
                | Type::Utf8View
        )
    };
    match dtype {
        Type::Null | Type::Boolean | Type::Float32 | Type::Float64 | Type::Date32 => true,
        Type::Timestamp(_, timezone) => timezone.is_none(),
        Type::List(inner) | Type::LargeList(inner) => is_label(inner.dtype()),
        _ => is_label(dtype),
    }
}

fn table_of(path: &Path, columns: &[Column], height: usize) -> Result<Table, ProbeError> {
    let mut table = Table {
        columns: Vec::with_capacity(columns.len()),
        rows: vec![Vec::with_capacity(columns.len()); height],
        positions: (1..=height).collect(),
        unread: Vec::new(),
    };
    for column in columns {
        let cells = cells_of(column).map_err(|error| polars_error(path, &error))?;
        table.columns.push(column.name().to_string());
        for (row, cell) in table.rows.iter_mut().zip(cells) {
            row.push(cell);
        }
    }
    Ok(table)
}

fn cells_of(column: &Column) -> PolarsResult<Vec<Option<Cell>>> {
    if !matches!(column.dtype(), DataType::List(_)) {
        // A missing number, as dataframes write it.
        let is_missing = |text: &&str| column.dtype().is_float() && *text == "NaN";
        let texts = column.cast(&DataType::String)?;
        let cells = texts.str()?.iter();
        return Ok(cells
            .map(|text| text.filter(|text| !is_missing(text)).and_then(one))
            .collect());
    }
    let lists = column.list()?;
    let cells = (0..lists.len()).map(|row| {
        let Some(list) = lists.get_as_series(row) else {
            return Ok(None);
        };
        let list = list.cast(&DataType::String)?;
        let labels: Vec<String> = list.str()?.iter().flatten().map(str::to_owned).collect();
        Ok((!labels.is_empty()).then_some(Cell::Many(labels)))
    });
    cells.collect()
}

/// What polars says of the file, in one line and without its advice on calling polars.
fn polars_error(path: &Path, error: &PolarsError) -> ProbeError {
    parse_error(path, None, one_line(error))
}

/// An empty text is no cell.
fn one(text: &str) -> Option<Cell> {
    (!text.is_empty()).then(|| Cell::One(text.to_owned()))
}

fn read_json_lines(path: &Path, text: &str) -> Result<Table, ProbeError> {
    let mut table = Table {
        columns: Vec::new(),
        rows: Vec::new(),
        positions: Vec::new(),
        unread: Vec::new(),
    };
    for (number, line) in text.lines().enumerate() {
        let position = number + 1;
        if line.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(line).map_err(|error| {
            // The parser's line is always the first: it sees one at a time.
            let message = error
                .to_string()
                .replace(" at line 1 column ", " at column ");
            parse_error(path, Some(position), message)
        })?;
        let Value::Object(fields) = value else {
            return Err(parse_error(path, Some(position), "expected a JSON object"));
        };
        let mut row = vec![None; table.columns.len()];
        for (name, value) in fields {
            let bad = |expected, found: &Value| ProbeError::BadCell {
                path: path.to_path_buf(),
                row: position,
                column: name.clone(),
                expected,
                found: found.to_string(),
            };
            let cell = json_cell(&value).map_err(|expected| bad(expected, &value))?;
            match table.columns.iter().position(|column| *column == name) {
                Some(column) => row[column] = cell,
                None => {
                    table.columns.push(name);
                    row.push(cell);
                }
            }
        }
        table.rows.push(row);
        table.positions.push(position);
    }
    // A later row may have brought a new column.
    let width = table.columns.len();
    table
        .rows
        .iter_mut()
        .for_each(|row| row.resize(width, None));
    Ok(table)
}

/// The cell, or what was expected in its place.
fn json_cell(value: &Value) -> Result<Option<Cell>, &'static str> {
    match value {
        Value::Array(values) => {
            let mut texts = Vec::with_capacity(values.len());
            for value in values {
                match value {
                    Value::Array(_) | Value::Object(_) | Value::Null => {
                        return Err("a list of texts or numbers");
                    }
                    _ => texts.extend(json_text(value)?),
                }
            }
            Ok((!texts.is_empty()).then_some(Cell::Many(texts)))
        }
        _ => Ok(json_text(value)?.as_deref().and_then(one)),
    }
}

fn json_text(value: &Value) -> Result<Option<String>, &'static str> {
    /// From here on f64 skips integers, so two different ids could become one.
    const FIRST_INEXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Bool(flag) => Ok(Some(flag.to_string())),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.abs() >= FIRST_INEXACT => {
                Err("a number of at most 64 bits, or a text")
            }
            _ => Ok(Some(number.to_string())),
        },
        Value::Array(_) | Value::Object(_) => Ok(Some(value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use polars::prelude::{DataFrame, IntoColumn, NamedFrom, ParquetWriter, Series};
    use tempfile::TempDir;

    fn read_text(name: &str, text: impl AsRef<[u8]>) -> Result<Table, ProbeError> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        read(&path)
    }

    /// All parts as one table.
    fn whole(each: impl FnOnce(Visit<'_>) -> Result<(), ProbeError>) -> Result<Table, ProbeError> {
        let mut whole: Option<Table> = None;
        each(&mut |part| {
            match &mut whole {
                Some(whole) => {
                    assert_eq!(
                        (&whole.columns, &whole.unread),
                        (&part.columns, &part.unread)
                    );
                    whole.rows.extend(part.rows);
                    whole.positions.extend(part.positions);
                }
                None => whole = Some(part),
            }
            Ok(())
        })?;
        Ok(whole.expect("a part"))
    }

    fn read(path: &Path) -> Result<Table, ProbeError> {
        whole(|visit| each_part(path, visit))
    }

    #[test]
    fn parts_of_a_csv_are_the_whole() {
        let texts = [
            "a,b\n1,2\n3,4\n5,6",
            "a,b\r\n\"x\ny\",2\r\n\"q \"\"z\"\"\",\"\"\r\n\"\"\"\n\",6\r\n7,8\r\n",
            "\"a\n1\",b\n1,5\" x 3\"\n\n\"2,\n\",x\n,\n3,\"y\"\n",
            "\n\r\na,b\n1,2\n3,4\n5,6\n",
        ];
        for text in texts {
            let read = |together| {
                whole(|visit| each_csv_part(Path::new("m.csv"), text, together, visit)).unwrap()
            };
            let at_once = read(usize::MAX);
            for together in [1, 8, 20] {
                assert_eq!(read(together), at_once, "{text:?} {together}");
            }
        }
        let torn = "a,b\n1,2\n3,4,5\n";
        let message = |together| {
            let table = whole(|visit| each_csv_part(Path::new("m.csv"), torn, together, visit));
            table.unwrap_err().to_string()
        };
        assert_eq!(message(1), message(usize::MAX));
    }

    fn texts(table: &Table, row: usize) -> Vec<Option<&str>> {
        table.rows[row]
            .iter()
            .map(|cell| match cell {
                Some(Cell::One(text)) => Some(text.as_str()),
                Some(Cell::Many(_)) => panic!("no list expected"),
                None => None,
            })
            .collect()
    }

    #[test]
    fn csv_cells_stay_as_written() {
        let table = read_text(
            "m.csv",
            "\u{feff}path,identity,n\r\na.png,0001,1e5\r\n\"b, c.png\",true,\r\n",
        )
        .unwrap();
        assert_eq!(table.columns, ["path", "identity", "n"]);
        assert_eq!(texts(&table, 0), [Some("a.png"), Some("0001"), Some("1e5")]);
        assert_eq!(texts(&table, 1), [Some("b, c.png"), Some("true"), None]);
        assert_eq!(table.positions, [2, 3]);
    }

    #[test]
    fn csv_positions_are_lines() {
        let table = read_text("m.csv", "text,identity\n\"two\nlines\",1\nb,2\n").unwrap();
        assert_eq!(table.positions, [2, 4]);
        assert_eq!(texts(&table, 1), [Some("b"), Some("2")]);
    }

    #[test]
    fn equal_column_names_are_refused() {
        let error = read_text("m.csv", "path,label,label\na,1,2\n").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("row 1: two columns are named `label`")
        );
    }

    #[test]
    fn parquet_types_that_say_nothing_are_told_apart() {
        use ArrowDataType as Type;
        use polars::prelude::{ArrowField, PlSmallStr};
        let list =
            |inner| Type::LargeList(Box::new(ArrowField::new(PlSmallStr::EMPTY, inner, true)));
        for read in [
            Type::Utf8View,
            Type::Int32,
            Type::Boolean,
            list(Type::Utf8View),
        ] {
            assert!(is_read(&read), "{read:?}");
        }
        for unread in [
            list(Type::Float32),
            Type::Decimal(10, 2),
            Type::Struct(Vec::new()),
            Type::Binary,
            Type::Float16,
        ] {
            assert!(!is_read(&unread), "{unread:?}");
        }
    }

    #[test]
    fn blank_csv_lines_are_no_rows() {
        let table = read_text("m.csv", "path,label\na,1\n\nb,1\n,\n\n").unwrap();
        assert_eq!(table.positions, [2, 4]);
        assert_eq!(texts(&table, 1), [Some("b"), Some("1")]);
    }

    #[test]
    fn a_stray_quote_names_its_row() {
        let text = "path,identity\na.png,\"x \"\"y\"\"\"\nb.png,\"x\"y\nc.png,z\n";
        let error = read_text("m.csv", text).unwrap_err().to_string();
        assert!(
            error.ends_with("m.csv, row 3: the cell goes on after its closing quote"),
            "{error}"
        );
    }

    #[test]
    fn a_quote_within_a_cell_names_its_row() {
        // Two of them, so that what lies between looks like one cell.
        let text = "id,path,identity\na,1,x\nb,5\" disk,x\nc,3,y\nd,6\" disk,y\ne,1,z\n";
        let error = read_text("m.csv", text).unwrap_err().to_string();
        assert!(
            error.ends_with("m.csv, row 3: a quote inside a cell that is not quoted as a whole"),
            "{error}"
        );
    }

    #[test]
    fn a_short_row_is_refused_wherever_it_stands() {
        let text = "id,path,identity\n\n\"a\nb\",1,x\n,,\nc,2\nd,3,y\n";
        for together in [1, usize::MAX] {
            let table = whole(|visit| each_csv_part(Path::new("m.csv"), text, together, visit));
            let error = table.unwrap_err().to_string();
            assert!(
                error.ends_with("row 6: expected 3 cells, as in the header, found 2"),
                "{together}: {error}"
            );
        }
    }

    #[test]
    fn a_bad_line_of_json_is_counted_once() {
        let error = read_text("m.jsonl", "{\"a\":1}\n{\"a\" 1}\n").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("row 2: expected `:` at column 6"),
            "{error}"
        );
        let hint = error.hint().unwrap();
        assert_eq!(hint, "a manifest .jsonl has one JSON object a line");
    }

    #[test]
    fn an_unclosed_quote_is_said_in_one_line() {
        let error = read_text("m.csv", "path,label\n\"a,1\nb,1\n").unwrap_err();
        let message = error.to_string();
        assert!(
            message.ends_with("m.csv, row 2: the quote that opens here is never closed"),
            "{message}"
        );
    }

    #[test]
    fn csv_with_too_many_fields_is_refused() {
        let text = "path,identity\n\"two\nlines, quoted\",0\na,1,2,3\n";
        let error = read_text("m.csv", text).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("m.csv, row 4: expected 2 cells, as in the header, found 4"),
            "{error}"
        );
        assert!(matches!(error, ProbeError::Parse { .. }), "{error}");
        assert!(error.hint().unwrap().contains("comma-separated"), "{error}");
    }

    #[test]
    fn empty_manifests_have_no_rows() {
        for (name, text) in [
            ("m.csv", ""),
            ("m.csv", "path,identity\n"),
            ("m.jsonl", "\n\n"),
        ] {
            let error = read_text(name, text).unwrap_err();
            assert!(matches!(error, ProbeError::NoRows { .. }), "{error}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_names_the_line() {
        let error = read_text("m.csv", b"path,identity\na,1\nb\xff,2\n").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("m.csv, row 3: the text is not valid UTF-8"),
            "{error}"
        );
    }

    #[test]
    fn json_lines_take_columns_as_they_come() {
        let table = read_text(
            "m.jsonl",
            "{\"id\": 12, \"label\": [\"a\", 3]}\n\n{\"text\": \"x\", \"id\": \"b\", \"label\": null, \"flag\": true}\n",
        )
        .unwrap();
        assert_eq!(table.columns, ["id", "label", "text", "flag"]);
        assert_eq!(
            table.rows[0],
            [
                Some(Cell::One("12".into())),
                Some(Cell::Many(vec!["a".into(), "3".into()])),
                None,
                None
            ]
        );
        assert_eq!(texts(&table, 1), [Some("b"), None, Some("x"), Some("true")]);
        assert_eq!(table.positions, [1, 3]);
    }

    #[test]
    fn bad_json_names_the_line() {
        let error = read_text("m.jsonl", "{\"id\": 1}\n{\"id\": \n").unwrap_err();
        assert!(error.to_string().contains("m.jsonl, row 2: EOF"), "{error}");
        let error = read_text("m.jsonl", "[1]\n").unwrap_err();
        assert!(error.to_string().ends_with("row 1: expected a JSON object"));
        let error = read_text("m.jsonl", "{\"label\": [[1]]}\n").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`label`: expected a list of texts or numbers")
        );
    }

    #[test]
    fn numbers_that_would_be_rounded_are_refused() {
        let table = read_text("m.jsonl", "{\"id\": 18446744073709551615}\n").unwrap();
        assert_eq!(texts(&table, 0), [Some("18446744073709551615")]);
        let error = read_text("m.jsonl", "{\"id\": 18446744073709551616}\n").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("expected a number of at most 64 bits")
        );
    }

    #[test]
    fn parquet_columns_become_texts_and_lists_labels() {
        let columns = vec![
            Series::new("id".into(), [1_i64, 2]).into_column(),
            Series::new("path".into(), [Some("a.png"), None]).into_column(),
            Series::new("camera".into(), [f64::NAN, 2.0]).into_column(),
            Series::new(
                "label".into(),
                [
                    Series::new("".into(), ["x", "y"]),
                    Series::new("".into(), ["z"]),
                ],
            )
            .into_column(),
            Series::new(
                "embedding".into(),
                [
                    Series::new("".into(), [0.5_f32, 1.0]),
                    Series::new("".into(), [0.25_f32, 1.0]),
                ],
            )
            .into_column(),
        ];
        let mut frame = DataFrame::new(2, columns).unwrap();
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes).finish(&mut frame).unwrap();
        let table = read_text("m.parquet", &bytes).unwrap();
        assert_eq!(table.columns, ["id", "path", "camera", "label"]);
        assert_eq!(table.unread, ["embedding"]);
        assert_eq!(
            table.rows[0],
            [
                Some(Cell::One("1".into())),
                Some(Cell::One("a.png".into())),
                None,
                Some(Cell::Many(vec!["x".into(), "y".into()]))
            ]
        );
        assert_eq!(table.rows[1][1..3], [None, Some(Cell::One("2.0".into()))]);
        assert_eq!(table.positions, [1, 2]);
    }

    #[test]
    fn a_file_that_is_no_parquet_is_refused() {
        let error = read_text("m.parquet", "path,identity\n").unwrap_err();
        assert!(matches!(error, ProbeError::Parse { .. }), "{error}");
        assert!(error.to_string().contains("cut short"), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("write or copy it again"), "{hint}");
    }
}
