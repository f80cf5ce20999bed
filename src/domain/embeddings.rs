//! Embeddings: checked once, where they are built.

mod mapped;
mod row_of_item;
mod rows;

use std::borrow::Cow;
use std::io;

use ndarray::Array2;
use rayon::prelude::*;

pub use mapped::Mapped;
use row_of_item::RowOfItem;
pub use rows::{Element, Rows, Scale};

/// Items checked by one task: large enough to be worth one, small enough to share out.
const CHECKED_TOGETHER: usize = 4096;

/// Embeddings of probe items by one model: f32, one row an item that has one.
///
/// Built only through [`Embeddings::new`] and [`Embeddings::from_rows`], which refuse what no metric can use. The rows need
/// not be in memory, nor stored as f32; what is read is the same bits wherever and however they are stored.
#[derive(Debug, Clone)]
pub struct Embeddings {
    rows: Rows,
    dim: usize,
    row_of_item: RowOfItem,
    /// An item's norm, where rows are normalised when they are read; empty where they are used as they are.
    norms: Vec<f64>,
    /// Embeddings of the items that have no row here.
    beside: Option<Box<Embeddings>>,
}

/// Why a matrix is no set of embeddings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EmbeddingsError {
    /// Values are NaN or infinite.
    #[error("item {}: dimension {dimension} of the embedding is {value}", items[0])]
    NotFinite {
        /// Indices of all such items, rising; never empty.
        items: Vec<usize>,
        /// Dimension index, in the first of them.
        dimension: usize,
        /// The value found there.
        value: f32,
    },
    /// Embeddings cannot be L2-normalised.
    #[error("item {}: the embedding is all zeros, so it has no direction", items[0])]
    Zero {
        /// Indices of all such items, rising; never empty.
        items: Vec<usize>,
    },
    /// The matrix and the item map disagree.
    #[error("expected {expected} embedding rows, found {found}")]
    RowCount {
        /// Rows the item map names.
        expected: usize,
        /// Rows of the matrix.
        found: usize,
    },
}

impl Embeddings {
    /// Checks and keeps raw embeddings in memory, L2-normalising each row when `normalise`.
    ///
    /// `rows` has shape (rows, dim); `row_of_item[i]` is item i's row. The norm is the square root of
    /// the f64 sum of squares in index order; each value is divided in f64 and rounded once to f32,
    /// so a row's bits do not depend on the other rows, on threads or on blocks.
    ///
    /// # Errors
    /// A non-finite value, an all-zero row (when normalising), or a wrong row count.
    pub fn new(
        rows: Array2<f32>,
        row_of_item: Vec<Option<u32>>,
        normalise: bool,
    ) -> Result<Self, EmbeddingsError> {
        let (n, dim) = rows.dim();
        let named = row_of_item.iter().flatten().count();
        if named != n {
            return Err(EmbeddingsError::RowCount {
                expected: named,
                found: n,
            });
        }
        let rows = if rows.is_standard_layout() {
            rows
        } else {
            rows.as_standard_layout().into_owned()
        };
        let (mut values, offset) = rows.into_raw_vec_and_offset();
        values.drain(..offset.unwrap_or(0));
        values.truncate(n * dim);
        Self::from_rows(Rows::f32(values, n, dim), dim, row_of_item, normalise)
    }

    /// Checks and keeps the first `dim` numbers of stored rows; `row_of_item[i]` is item i's row, no two items have the
    /// same. Rows of no item are neither checked nor read.
    ///
    /// One pass over the rows, in their order; [`Embeddings::new`] says how they are normalised.
    ///
    /// # Errors
    /// A non-finite value, an all-zero row (when normalising), or fewer rows than named.
    ///
    /// # Panics
    /// When rows have fewer than `dim` numbers.
    pub fn from_rows(
        mut rows: Rows,
        dim: usize,
        row_of_item: Vec<Option<u32>>,
        normalise: bool,
    ) -> Result<Self, EmbeddingsError> {
        assert!(dim <= rows.width(), "rows have {} numbers", rows.width());
        let highest = row_of_item.iter().flatten().max();
        let expected = highest.map_or(0, |&row| row as usize + 1);
        if expected > rows.n() {
            return Err(EmbeddingsError::RowCount {
                expected,
                found: rows.n(),
            });
        }
        let row_of_item = RowOfItem::new(row_of_item);
        // In the file's order, so that a disk is read from front to back.
        let mut items: Vec<u32> = (0..row_of_item.len() as u32)
            .filter(|&item| row_of_item.get(item as usize).is_some())
            .collect();
        items.sort_unstable_by_key(|&item| row_of_item.get(item as usize));
        let checked: Vec<Checked> = items
            .par_chunks(CHECKED_TOGETHER)
            .map(|items| check(&rows, dim, &row_of_item, items, normalise))
            .collect();
        refuse(&rows, dim, &row_of_item, &checked, normalise)?;
        let mut norms = Vec::new();
        if normalise {
            norms = vec![1.0; row_of_item.len()];
            let found = checked.iter().flat_map(|part| &part.norms);
            for (&item, &norm) in items.iter().zip(found) {
                norms[item as usize] = norm;
            }
            let width = rows.width();
            if let Some(values) = rows.as_f32_mut() {
                // Divided once, where they are; rows of no item stay as they are.
                let mut norm_of_row = vec![1.0; values.len() / width.max(1)];
                for &item in &items {
                    let row = row_of_item.get(item as usize).expect(HAS_ROW);
                    norm_of_row[row] = norms[item as usize];
                }
                values
                    .par_chunks_mut(width.max(1))
                    .zip(&norm_of_row)
                    .for_each(|(row, &norm)| divide(&mut row[..dim], norm));
                norms = Vec::new();
            }
        }
        Ok(Self {
            rows,
            dim,
            row_of_item,
            norms,
            beside: None,
        })
    }

    /// These embeddings, and `other`'s of the items that have none here.
    ///
    /// # Panics
    /// When items or dimensions differ.
    pub fn or(mut self, other: Self) -> Self {
        assert_eq!(self.dim, other.dim, "embeddings of one model");
        assert_eq!(self.n_items(), other.n_items(), "embeddings of one probe");
        self.beside = Some(Box::new(match self.beside.take() {
            Some(beside) => beside.or(other),
            None => other,
        }));
        self
    }

    /// Embeddings of every item, row i for item i.
    ///
    /// # Errors
    /// As [`Embeddings::new`].
    pub fn dense(rows: Array2<f32>, normalise: bool) -> Result<Self, EmbeddingsError> {
        let n = rows.nrows() as u32;
        Self::new(rows, (0..n).map(Some).collect(), normalise)
    }

    /// Keeps the items whose flag is set, in their order; `keep` has one flag an item.
    pub fn retain(&mut self, keep: &[bool]) {
        self.row_of_item.retain(keep);
        if !self.norms.is_empty() {
            let mut flags = keep.iter();
            self.norms
                .retain(|_| *flags.next().expect("one flag an item"));
        }
        if let Some(beside) = &mut self.beside {
            beside.retain(keep);
        }
    }

    /// Dimensions of one embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of items, with or without an embedding.
    pub fn n_items(&self) -> usize {
        self.row_of_item.len()
    }

    /// Whether the item has an embedding.
    pub fn has(&self, item: usize) -> bool {
        self.row_of_item.get(item).is_some()
            || self.beside.as_ref().is_some_and(|beside| beside.has(item))
    }

    /// The item's embedding, shape (dim,), if it has one: borrowed where it is stored as it is used, else converted and
    /// normalised.
    pub fn get(&self, item: usize) -> Option<Cow<'_, [f32]>> {
        let Some(row) = self.row_of_item.get(item) else {
            return self.beside.as_ref()?.get(item);
        };
        if self.norms.is_empty() {
            return Some(self.rows.get(row, self.dim));
        }
        let mut out = vec![0.0; self.dim];
        self.read_into(item, &mut out);
        Some(Cow::Owned(out))
    }

    /// Writes the item's embedding to `out`, which has [`Embeddings::dim`] numbers; false, and nothing is written, when
    /// it has none. The same bits as [`Embeddings::get`], without allocating.
    pub fn read_into(&self, item: usize, out: &mut [f32]) -> bool {
        let Some(row) = self.row_of_item.get(item) else {
            return self
                .beside
                .as_ref()
                .is_some_and(|beside| beside.read_into(item, out));
        };
        assert_eq!(out.len(), self.dim, "room for one embedding");
        self.rows.read_into(row, out);
        if let Some(&norm) = self.norms.get(item) {
            divide(out, norm);
        }
        true
    }

    /// Whether the file that the rows are read from, if there is one, still is what it was when they were checked.
    ///
    /// # Errors
    /// The file can no longer be asked.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        let beside = self
            .beside
            .as_ref()
            .map_or(Ok(true), |beside| beside.is_unchanged())?;
        Ok(beside && self.rows.file().map_or(Ok(true), Mapped::is_unchanged)?)
    }
}

/// Equal embeddings of equal items, however they are stored.
impl PartialEq for Embeddings {
    fn eq(&self, other: &Self) -> bool {
        self.dim == other.dim
            && self.n_items() == other.n_items()
            && (0..self.n_items()).all(|item| self.get(item) == other.get(item))
    }
}

const HAS_ROW: &str = "only items with a row are checked";

/// Some items' norms, and which of the items cannot be used.
#[derive(Default)]
struct Checked {
    /// Parallel to the items, when normalising.
    norms: Vec<f64>,
    not_finite: Vec<u32>,
    zero: Vec<u32>,
}

fn check(
    rows: &Rows,
    dim: usize,
    row_of_item: &RowOfItem,
    items: &[u32],
    normalise: bool,
) -> Checked {
    let mut checked = Checked::default();
    let mut converted = vec![0.0; dim];
    for &item in items {
        let row = row_of_item.get(item as usize).expect(HAS_ROW);
        let values = match rows.borrowed(row, dim) {
            Some(values) => values,
            None => {
                rows.read_into(row, &mut converted);
                &converted
            }
        };
        if !values.iter().all(|value| value.is_finite()) {
            checked.not_finite.push(item);
        }
        if normalise {
            let norm = values
                .iter()
                .map(|&v| f64::from(v) * f64::from(v))
                .sum::<f64>()
                .sqrt();
            if norm == 0.0 {
                checked.zero.push(item);
            }
            checked.norms.push(norm);
        }
    }
    checked
}

/// Refuses items that no metric can use; those that are not finite first.
fn refuse(
    rows: &Rows,
    dim: usize,
    row_of_item: &RowOfItem,
    checked: &[Checked],
    normalise: bool,
) -> Result<(), EmbeddingsError> {
    let all = |of: fn(&Checked) -> &[u32]| {
        let mut items: Vec<usize> = checked.iter().flat_map(of).map(|&i| i as usize).collect();
        items.sort_unstable();
        items
    };
    let items = all(|part| &part.not_finite);
    if let Some(&first) = items.first() {
        let row = rows.get(row_of_item.get(first).expect(HAS_ROW), dim);
        let dimension = row.iter().position(|value| !value.is_finite());
        let dimension = dimension.unwrap_or_default();
        let value = row[dimension];
        return Err(EmbeddingsError::NotFinite {
            items,
            dimension,
            value,
        });
    }
    let items = all(|part| &part.zero);
    if normalise && !items.is_empty() {
        return Err(EmbeddingsError::Zero { items });
    }
    Ok(())
}

fn divide(row: &mut [f32], norm: f64) {
    for value in row {
        *value = (f64::from(*value) / norm) as f32;
    }
}

/// Cosine of two vectors of one dimension, in f64; `None` when one of them has no direction (zero, not finite).
pub fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    cosine.is_finite().then_some(cosine)
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cosine_of_known_vectors() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        let same = cosine(&[1.0, 1.0], &[2.0, 2.0]).expect("two directions");
        assert!((same - 1.0).abs() < 1e-15);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), None);
        assert_eq!(cosine(&[f32::NAN, 0.0], &[1.0, 0.0]), None);
    }

    #[test]
    fn rows_are_normalised_and_checked() {
        let rows = |values: &[f32]| Array2::from_shape_vec((2, 2), values.to_vec()).expect("2 x 2");
        let unit = Embeddings::dense(rows(&[3.0, 4.0, 0.0, 2.0]), true).expect("usable");
        assert_eq!(unit.get(0).as_deref(), Some(&[0.6_f32, 0.8][..]));
        assert_eq!(
            Embeddings::dense(rows(&[1.0, 0.0, 0.0, 0.0]), true),
            Err(EmbeddingsError::Zero { items: vec![1] })
        );
        assert_eq!(
            Embeddings::dense(rows(&[1.0, 0.0, 0.0, f32::INFINITY]), false),
            Err(EmbeddingsError::NotFinite {
                items: vec![1],
                dimension: 1,
                value: f32::INFINITY,
            })
        );
        assert_eq!(
            Embeddings::new(rows(&[1.0; 4]), vec![Some(0), None], true),
            Err(EmbeddingsError::RowCount {
                expected: 1,
                found: 2
            })
        );
    }

    #[test]
    fn items_without_an_embedding_have_none() {
        let rows = Array2::from_shape_vec((1, 2), vec![1.0, 0.0]).expect("1 x 2");
        let mut some = Embeddings::new(rows, vec![None, Some(0)], true).expect("usable");
        assert_eq!((some.has(0), some.has(1)), (false, true));
        some.retain(&[false, true]);
        assert_eq!(
            (some.n_items(), some.get(0).as_deref()),
            (1, Some(&[1.0_f32, 0.0][..]))
        );
    }

    #[test]
    fn every_unusable_item_is_named_and_rows_of_no_item_are_not() {
        let values = vec![f32::NAN, 1.0, 0.0, 0.0, 3.0, f32::NAN, 0.0, 0.0, 4.0, 0.0];
        let of = |map: &[Option<u32>], normalise| {
            Embeddings::from_rows(Rows::f32(values.clone(), 5, 2), 2, map.to_vec(), normalise)
        };
        let all = [4, 3, 2, 1, 0].map(Some);
        let Err(EmbeddingsError::NotFinite {
            items, dimension, ..
        }) = of(&all, true)
        else {
            panic!("not finite");
        };
        assert_eq!((items, dimension), (vec![2, 4], 1));
        let finite = [Some(1), None, Some(4), Some(3)];
        let zero = Err(EmbeddingsError::Zero { items: vec![0, 3] });
        assert_eq!(of(&finite, true), zero);
        let found = of(&finite, false).expect("finite");
        assert_eq!(found.get(2).as_deref(), Some(&[4.0_f32, 0.0][..]));
        assert!(matches!(
            of(&[Some(5)], false),
            Err(EmbeddingsError::RowCount {
                expected: 6,
                found: 5
            })
        ));
    }

    /// How numbers are stored, what they are in f32, their bytes in a file, the rows in memory, their scale.
    type Case = (Element, Vec<f32>, Vec<u8>, Rows, Scale);

    #[test]
    fn items_without_a_row_take_it_from_beside() {
        let of = |row: [f32; 2], map: [Option<u32>; 3]| {
            let rows = Array2::from_shape_vec((1, 2), row.to_vec()).expect("1 x 2");
            Embeddings::new(rows, map.to_vec(), true).expect("usable")
        };
        let stored = of([0.0, 2.0], [None, Some(0), None]);
        let mut both = stored.or(of([3.0, 0.0], [Some(0), None, None]));
        assert_eq!([0, 1, 2].map(|item| both.has(item)), [true, true, false]);
        assert_eq!(both.get(0).as_deref(), Some(&[1.0_f32, 0.0][..]));
        both.retain(&[false, true, true]);
        let mut row = [9.0; 2];
        assert!(both.read_into(0, &mut row) && !both.read_into(1, &mut row));
        assert_eq!(row, [0.0, 1.0]);
    }

    proptest! {
        /// However rows are stored, they read as the same bits: those of the plain f32 matrix.
        #[test]
        fn storage_does_not_show(
            (n, width, dim) in (1_usize..40, 1_usize..300).prop_flat_map(|(n, width)| (Just(n), Just(width), 1..=width)),
            seed in any::<u64>(),
            offset in 0_usize..9,
            per_row in any::<bool>(),
            normalise in any::<bool>(),
        ) {
            use rand::{Rng, SeedableRng, seq::SliceRandom};
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let halves: Vec<f16> = (0..n * width)
                .map(|_| f16::from_f32(rng.gen_range(0.001_f32..9.0)))
                .collect();
            let floats: Vec<f32> = (0..n * width).map(|_| rng.gen_range(0.001_f32..9.0)).collect();
            let bytes: Vec<i8> = (0..n * width).map(|_| rng.gen_range(1..=127)).collect();
            let scales: Vec<f32> = (0..n).map(|_| rng.gen_range(0.001..0.1)).collect();
            let scale = if per_row { Scale::PerRow(scales.into()) } else { Scale::All(scales[0]) };
            let scale_of = |row: usize| match &scale {
                Scale::All(scale) => *scale,
                Scale::PerRow(scales) => scales[row],
            };
            // Every other row of the file, out of order, belongs to an item.
            let mut map: Vec<Option<u32>> = (0..n as u32).map(|row| (row % 2 == 0).then_some(row)).collect();
            map.shuffle(&mut rng);
            let one = Scale::All(1.0);
            let stored: [Case; 3] = [
                (
                    Element::F32,
                    floats.clone(),
                    floats.iter().flat_map(|v| v.to_le_bytes()).collect(),
                    Rows::f32(floats.clone(), n, width),
                    one.clone(),
                ),
                (
                    Element::F16,
                    halves.iter().map(|v| v.to_f32()).collect(),
                    halves.iter().flat_map(|v| v.to_le_bytes()).collect(),
                    Rows::f16(halves.clone(), n, width),
                    one,
                ),
                (
                    Element::I8,
                    bytes.iter().enumerate().map(|(i, &v)| f32::from(v) * scale_of(i / width)).collect(),
                    bytes.iter().map(|&v| v as u8).collect(),
                    Rows::i8(bytes.clone(), n, width, scale.clone()),
                    scale.clone(),
                ),
            ];
            for (element, plain, bytes, in_memory, scale) in stored {
                let mut file = tempfile::tempfile().expect("a file");
                std::io::Write::write_all(&mut file, &vec![0; offset]).expect("written");
                std::io::Write::write_all(&mut file, &bytes).expect("written");
                let mapped = std::sync::Arc::new(Mapped::new(file, 1).expect("mapped"));
                let in_file = Rows::mapped(mapped, offset, element, n, width, scale).expect("long enough");
                // The definition, worked out here.
                let expected = |item: usize| -> Option<Vec<u32>> {
                    let row = map[item]? as usize;
                    let row = &plain[row * width..row * width + dim];
                    let norm = row.iter().fold(0.0, |sum, &v| sum + f64::from(v) * f64::from(v)).sqrt();
                    let value = |&v: &f32| if normalise { (f64::from(v) / norm) as f32 } else { v };
                    Some(row.iter().map(|v| value(v).to_bits()).collect())
                };
                for rows in [in_memory, in_file] {
                    let found = Embeddings::from_rows(rows, dim, map.clone(), normalise).expect("usable");
                    for item in 0..n {
                        let bits = |row: &[f32]| row.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
                        prop_assert_eq!(found.get(item).map(|row| bits(&row)), expected(item));
                        let mut row = vec![0.0; dim];
                        let has = found.read_into(item, &mut row);
                        prop_assert_eq!(has.then(|| bits(&row)), expected(item));
                    }
                }
            }
        }
    }
}
