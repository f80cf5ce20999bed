//! items.parquet, one row an item; backfill.parquet and backfill.csv, one row a gallery item in the plan's order.

use std::io;
use std::path::Path;

use polars::prelude::{
    Column, CsvWriter, DataFrame, ParquetCompression, ParquetWriter, PolarsError, PolarsResult,
    SerWriter,
};

use super::table_file::TableFile;
use super::{BackfillRow, ItemRow, ReportError};
use crate::domain::{Pairing, Reference, Role};

/// Rows that become columns at a time, and a row group of Parquet: of millions of items only so many are held as rows.
const GROUP: usize = 1 << 17;

/// Renders the rows as a Parquet file, in their order; a large one lies in `scratch` ([`TableFile::new`]).
///
/// Columns: `id`, `identity`, `camera`, `role`, `subcluster` (text), `credibility` (f64), then for each pairing
/// `first_rank:query->gallery` (u64) and `ap:query->gallery` (f64), then `flip` (text). Missing values are null. Where the
/// old model is the reference these last names begin with `agreement_`.
///
/// # Errors
/// [`ReportError::Scratch`] when the disk is full, [`ReportError::Render`] when polars cannot write it.
pub fn items_parquet(
    items: impl Iterator<Item = ItemRow>,
    reference: Reference,
    scratch: Option<&Path>,
) -> Result<TableFile, ReportError> {
    let render = || -> PolarsResult<TableFile> {
        let mut bytes = TableFile::new(scratch);
        let empty = items_table(&[], reference)?;
        let mut file = parquet(&mut bytes).batched(empty.schema())?;
        in_groups(items, |group| {
            file.write_batch(&items_table(group, reference)?)
        })?;
        file.finish()?;
        drop(file);
        Ok(bytes)
    };
    render().map_err(failed("items.parquet", scratch))
}

/// Renders the plan's rows as CSV and as Parquet, in their order; large ones lie in `scratch` ([`TableFile::new`]).
///
/// Columns: `place` (u64, from 1), `id`, `identity`, `subcluster` (text), `credibility`, `beta` (f64), `needed`
/// (boolean). Missing values are empty and null.
///
/// # Errors
/// [`ReportError::Scratch`] when the disk is full, [`ReportError::Render`] when polars cannot write it.
pub fn backfill_tables(
    rows: impl Iterator<Item = BackfillRow>,
    scratch: Option<&Path>,
) -> Result<[TableFile; 2], ReportError> {
    let render = || -> PolarsResult<[TableFile; 2]> {
        let (mut csv, mut bytes) = (TableFile::new(scratch), TableFile::new(scratch));
        let empty = backfill_table(&[])?;
        let mut csv_file = CsvWriter::new(&mut csv).batched(empty.schema())?;
        let mut file = parquet(&mut bytes).batched(empty.schema())?;
        in_groups(rows, |group| {
            let table = backfill_table(group)?;
            csv_file.write_batch(&table)?;
            file.write_batch(&table)
        })?;
        csv_file.finish()?;
        file.finish()?;
        drop((csv_file, file));
        Ok([csv, bytes])
    };
    render().map_err(failed("backfill.csv", scratch))
}

/// What to say when polars could not render `part`: a full disk is no bug.
fn failed(part: &'static str, scratch: Option<&Path>) -> impl FnOnce(PolarsError) -> ReportError {
    let folder = TableFile::folder(scratch);
    move |error| match error {
        PolarsError::IO { error, .. } => ReportError::Scratch {
            part,
            folder,
            source: io::Error::new(error.kind(), error),
        },
        other => ReportError::render(part)(other),
    }
}

// One thread: the same rows must give the same bytes.
fn parquet(bytes: &mut TableFile) -> ParquetWriter<&mut TableFile> {
    ParquetWriter::new(bytes)
        .with_compression(ParquetCompression::Snappy)
        .set_parallel(false)
}

fn in_groups<Row>(
    mut rows: impl Iterator<Item = Row>,
    mut add: impl FnMut(&[Row]) -> PolarsResult<()>,
) -> PolarsResult<()> {
    let mut group = Vec::new();
    loop {
        group.extend(rows.by_ref().take(GROUP));
        if group.is_empty() {
            return Ok(());
        }
        add(&group)?;
        group.clear();
    }
}

fn items_table(items: &[ItemRow], reference: Reference) -> PolarsResult<DataFrame> {
    let text = |name: &str, value: fn(&ItemRow) -> Option<&str>| {
        Column::new(name.into(), items.iter().map(value).collect::<Vec<_>>())
    };
    let mut columns = vec![
        text("id", |item| Some(&item.id)),
        text("identity", |item| Some(&item.identity)),
        text("camera", |item| item.camera.as_deref()),
        text("role", |item| {
            Some(match item.role {
                Role::Query => "query",
                Role::Gallery => "gallery",
                Role::Both => "both",
            })
        }),
        text("subcluster", |item| item.subcluster.as_deref()),
    ];
    let credibility: Vec<_> = items.iter().map(|item| item.credibility).collect();
    columns.push(Column::new("credibility".into(), credibility));
    let prefix = match reference {
        Reference::Labels => "",
        Reference::OldModel => "agreement_",
    };
    for (index, pairing) in Pairing::ALL.iter().enumerate() {
        let ranks: Vec<_> = items.iter().map(|item| item.first_rank[index]).collect();
        columns.push(Column::new(
            format!("{prefix}first_rank:{pairing}").into(),
            ranks,
        ));
        let precisions: Vec<_> = items
            .iter()
            .map(|item| item.average_precision[index])
            .collect();
        columns.push(Column::new(
            format!("{prefix}ap:{pairing}").into(),
            precisions,
        ));
    }
    columns.push(text(&format!("{prefix}flip"), |item| item.flip));
    DataFrame::new(items.len(), columns)
}

fn backfill_table(rows: &[BackfillRow]) -> PolarsResult<DataFrame> {
    let text = |name: &str, value: fn(&BackfillRow) -> Option<&str>| {
        Column::new(name.into(), rows.iter().map(value).collect::<Vec<_>>())
    };
    let places: Vec<u64> = rows.iter().map(|row| row.place).collect();
    let credibility: Vec<Option<f64>> = rows.iter().map(|row| row.credibility).collect();
    let betas: Vec<f64> = rows.iter().map(|row| row.beta).collect();
    let needed: Vec<Option<bool>> = rows.iter().map(|row| row.needed).collect();
    let columns = vec![
        Column::new("place".into(), places),
        text("id", |row| Some(&row.id)),
        text("identity", |row| Some(&row.identity)),
        text("subcluster", |row| row.subcluster.as_deref()),
        Column::new("credibility".into(), credibility),
        Column::new("beta".into(), betas),
        Column::new("needed".into(), needed),
    ];
    DataFrame::new(rows.len(), columns)
}

#[cfg(test)]
mod tests {
    use polars::prelude::{ParquetReader, SerReader};

    use super::super::sample;
    use super::*;

    fn bytes(mut file: TableFile) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.copy_to(&mut bytes).unwrap();
        bytes
    }

    fn read(file: TableFile) -> DataFrame {
        ParquetReader::new(std::io::Cursor::new(bytes(file)))
            .finish()
            .unwrap()
    }

    fn rendered(items: impl Iterator<Item = ItemRow>) -> TableFile {
        items_parquet(items, Reference::Labels, None).unwrap()
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let items = sample::items();
        let table = read(rendered(items.iter().cloned()));
        assert_eq!(table.height(), items.len());
        let names: Vec<_> = table
            .get_column_names()
            .iter()
            .map(|name| name.to_string())
            .collect();
        assert_eq!(
            names,
            [
                "id",
                "identity",
                "camera",
                "role",
                "subcluster",
                "credibility",
                "first_rank:old->old",
                "ap:old->old",
                "first_rank:new->old",
                "ap:new->old",
                "first_rank:new->new",
                "ap:new->new",
                "first_rank:old->new",
                "ap:old->new",
                "flip",
            ]
        );
        let ids = table.column("id").unwrap().str().unwrap();
        let ranks = table.column("first_rank:new->old").unwrap().u64().unwrap();
        let flips = table.column("flip").unwrap().str().unwrap();
        for (row, item) in items.iter().enumerate() {
            assert_eq!(ids.get(row), Some(item.id.as_str()));
            assert_eq!(ranks.get(row), item.first_rank[1]);
            assert_eq!(flips.get(row), item.flip);
        }
    }

    #[test]
    fn no_rows_are_an_empty_table_with_all_columns() {
        let table = read(rendered(std::iter::empty()));
        assert_eq!((table.height(), table.width()), (0, 15));
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let items = sample::items();
        assert_eq!(
            bytes(rendered(items.iter().cloned())),
            bytes(rendered(items.iter().cloned()))
        );
    }

    #[test]
    fn the_plan_comes_back_in_its_order() {
        let rows = sample::backfill_rows();
        let [csv, parquet] = backfill_tables(rows.iter().cloned(), None).unwrap();
        let csv = String::from_utf8(bytes(csv)).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "place,id,identity,subcluster,credibility,beta,needed"
        );
        assert_eq!(
            lines[1],
            "1,\"images/a, b.png\",1f365,1f365/1,0.25,0.05,true"
        );
        assert_eq!(lines[2], "2,images/noto__2195.png,2195,,,1.0,false");
        let table = read(parquet);
        assert_eq!(table.height(), rows.len());
        let ids = table.column("id").unwrap().str().unwrap();
        assert_eq!(ids.get(0), Some("images/a, b.png"));
    }

    #[test]
    fn a_full_disk_is_told_from_a_bug() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let full = PolarsError::IO {
            error: std::sync::Arc::new(full),
            msg: None,
        };
        let said = failed("backfill.csv", Some(Path::new("scratch")))(full);
        assert!(
            said.to_string().starts_with("scratch: cannot write"),
            "{said}"
        );
        assert!(said.hint().unwrap().contains("TMPDIR"));
        let bug = PolarsError::ComputeError("odd".into());
        let said = failed("backfill.csv", None)(bug);
        assert!(matches!(said, ReportError::Render { .. }));
    }

    #[test]
    fn more_rows_than_a_group_come_back_in_their_order() {
        let row = |place: usize| BackfillRow {
            place: place as u64 + 1,
            id: format!("item {place}"),
            ..sample::backfill_rows().swap_remove(1)
        };
        let n = 2 * GROUP + 3;
        let [csv, parquet] = backfill_tables((0..n).map(row), None).unwrap();
        let csv = String::from_utf8(bytes(csv)).unwrap();
        assert_eq!(csv.lines().count(), n + 1, "one header");
        assert!(csv.ends_with(&format!("{n},item {},2195,,,1.0,false\n", n - 1)));
        let table = read(parquet);
        let places = table.column("place").unwrap().u64().unwrap();
        assert!((0..n).all(|row| places.get(row) == Some(row as u64 + 1)));
    }
}
