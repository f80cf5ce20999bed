//! Embeddings laid out for the kernels.

use rayon::prelude::*;

use super::LISTED;
use super::codes::{Codes, Side};
use super::kernel::Kernel;
use crate::domain::Embeddings;

/// Embeddings in panels of as many items as a tile has, dimension-major inside; the last panel repeats the last item.
#[derive(Default)]
pub struct Panels {
    values: Aligned<f32>,
    dim: usize,
    /// The same embeddings for a first pass, where there is to be one.
    codes: Option<Codes>,
}

impl Panels {
    /// See [`Panels::pack`].
    pub fn new(
        kernel: Kernel,
        side: Side,
        embeddings: &Embeddings,
        items: &[usize],
        with_codes: bool,
    ) -> Self {
        let mut panels = Self::default();
        panels.pack(kernel, side, embeddings, items, with_codes);
        panels
    }

    /// Replaces what was packed.
    pub fn pack(
        &mut self,
        kernel: Kernel,
        side: Side,
        embeddings: &Embeddings,
        items: &[usize],
        with_codes: bool,
    ) {
        let dim = embeddings.dim();
        let tile = kernel.tile();
        let width = match side {
            Side::Queries => tile.0,
            Side::Gallery => tile.1,
        };
        let n_panels = items.len().div_ceil(width);
        self.dim = dim;
        self.values.resize(n_panels * width * dim);
        let panels = self.values.as_mut_slice();
        let panels = panels.par_chunks_exact_mut(width * dim);
        let panels = panels.zip(items.par_chunks(width));
        let rows = || vec![0.0; width * dim];
        if !with_codes {
            self.codes = None;
            panels.for_each_init(rows, |rows, (panel, items)| {
                fill(panel, rows, embeddings, items);
            });
            return;
        }
        let codes = self.codes.get_or_insert_default();
        let codes = codes.panels_mut(n_panels, width, dim);
        panels
            .zip(codes)
            .for_each_init(rows, |rows, ((panel, items), (words, lanes))| {
                fill(panel, rows, embeddings, items);
                kernel.encode(side, panel, words, lanes);
            });
    }

    /// Dimensions.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All panels, one after the other.
    pub fn values(&self) -> &[f32] {
        self.values.as_slice()
    }

    /// The codes; `None` where there is to be no first pass.
    pub fn codes(&self) -> Option<&Codes> {
        self.codes.as_ref()
    }
}

/// Fills one panel; `rows` has room for the same embeddings one after the other.
fn fill(panel: &mut [f32], rows: &mut [f32], embeddings: &Embeddings, items: &[usize]) {
    let dim = embeddings.dim();
    let width = rows.len() / dim;
    for (lane, row) in rows.chunks_exact_mut(dim).enumerate() {
        let item = items[lane.min(items.len() - 1)];
        assert!(embeddings.read_into(item, row), "{LISTED}");
    }
    for (d, column) in panel.chunks_exact_mut(width).enumerate() {
        for (value, row) in column.iter_mut().zip(rows.chunks_exact(dim)) {
            *value = row[d];
        }
    }
}

/// Bytes of a cache line, on which panels begin: a vector that reaches over two lines is two reads.
const LINE: usize = 64;

/// Numbers that begin on a cache line.
#[derive(Default)]
pub struct Aligned<T> {
    buffer: Vec<T>,
    n: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// Makes room for `n` numbers; what they are is left open.
    pub fn resize(&mut self, n: usize) {
        self.n = n;
        self.buffer.resize(n + LINE / size_of::<T>(), T::default());
    }

    fn begin(&self) -> usize {
        let most = LINE / size_of::<T>();
        self.buffer.as_ptr().align_offset(LINE).min(most)
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[T] {
        // Nothing was ever put in where there is no buffer.
        let begin = self.begin().min(self.buffer.len());
        &self.buffer[begin..begin + self.n]
    }

    /// The numbers, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let begin = self.begin().min(self.buffer.len());
        &mut self.buffer[begin..begin + self.n]
    }
}
