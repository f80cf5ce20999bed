//! Rows of numbers as they are stored: in memory or in a mapped file, as f32, f16, or int8 with a scale.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::mapped::Mapped;

/// Halves widened together: enough for the hardware's conversion, few enough for the stack.
const WIDENED: usize = 256;

/// What a stored number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// 16-bit floats (IEEE 754 half precision).
    F16,
    /// 8-bit integers; a row's values are these times its [`Scale`].
    I8,
}

impl Element {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 => 2,
            Element::I8 => 1,
        }
    }
}

/// What int8 values are multiplied by, in f32 and rounded once.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// One number for all rows; 1 for values that are no integers.
    All(f32),
    /// One number a row.
    PerRow(Arc<[f32]>),
}

/// A matrix of stored rows.
#[derive(Debug, Clone)]
pub struct Rows {
    n: usize,
    width: usize,
    values: Values,
    scale: Scale,
}

#[derive(Debug, Clone)]
enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I8(Vec<i8>),
    /// Little-endian numbers in C order from byte `at` on.
    Mapped {
        file: Arc<Mapped>,
        at: usize,
        element: Element,
    },
}

impl Rows {
    /// Rows of `width` f32 in memory.
    ///
    /// # Panics
    /// When the values do not fill rows.
    pub fn f32(values: Vec<f32>, n: usize, width: usize) -> Self {
        Self::filled(Values::F32(values), n, width, Scale::All(1.0))
    }

    /// Rows of `width` f16 in memory.
    ///
    /// # Panics
    /// When the values do not fill rows.
    pub fn f16(values: Vec<f16>, n: usize, width: usize) -> Self {
        Self::filled(Values::F16(values), n, width, Scale::All(1.0))
    }

    /// Rows of `width` int8 in memory.
    ///
    /// # Panics
    /// When the values do not fill rows, or the scale has another number of rows.
    pub fn i8(values: Vec<i8>, n: usize, width: usize, scale: Scale) -> Self {
        Self::filled(Values::I8(values), n, width, scale)
    }

    fn filled(values: Values, n: usize, width: usize, scale: Scale) -> Self {
        let length = match &values {
            Values::F32(values) => values.len(),
            Values::F16(values) => values.len(),
            Values::I8(values) => values.len(),
            Values::Mapped { .. } => n * width,
        };
        assert_eq!(length, n * width, "values fill the rows");
        if let Scale::PerRow(scales) = &scale {
            assert_eq!(scales.len(), n, "a scale a row");
        }
        Self {
            n,
            width,
            values,
            scale,
        }
    }

    /// `n` rows of `width` little-endian numbers, in C order, from byte `at` of a mapped file on.
    ///
    /// # Errors
    /// The file is too short for them.
    ///
    /// # Panics
    /// When the scale has another number of rows.
    pub fn mapped(
        file: Arc<Mapped>,
        at: usize,
        element: Element,
        n: usize,
        width: usize,
        scale: Scale,
    ) -> io::Result<Self> {
        let end = n
            .checked_mul(width)
            .and_then(|values| values.checked_mul(element.bytes()))
            .and_then(|bytes| bytes.checked_add(at));
        if end.is_none_or(|end| end > file.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let values = Values::Mapped { file, at, element };
        Ok(Self::filled(values, n, width, scale))
    }

    /// The rows copied to memory, as they are stored.
    pub fn into_memory(self) -> Self {
        let Values::Mapped { file, at, element } = &self.values else {
            return self;
        };
        let values = match element {
            Element::F32 => Values::F32(self.copied(file, *at, f32::from_le_bytes)),
            Element::F16 => Values::F16(self.copied(file, *at, f16::from_le_bytes)),
            Element::I8 => Values::I8(self.copied(file, *at, i8::from_le_bytes)),
        };
        Self::filled(values, self.n, self.width, self.scale)
    }

    fn copied<T, const N: usize>(
        &self,
        file: &Mapped,
        at: usize,
        from_bytes: impl Fn([u8; N]) -> T,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(self.n * self.width);
        let row_bytes = self.width * N;
        for row in 0..self.n {
            let start = at + row * row_bytes;
            let bytes = file.bytes(start..start + row_bytes);
            values.extend(bytes.as_chunks().0.iter().map(|bytes| from_bytes(*bytes)));
        }
        values
    }

    /// Number of rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What the numbers are stored as.
    pub fn element(&self) -> Element {
        match &self.values {
            Values::F32(_) => Element::F32,
            Values::F16(_) => Element::F16,
            Values::I8(_) => Element::I8,
            Values::Mapped { element, .. } => *element,
        }
    }

    /// The mapped file, if the rows are not in memory.
    pub fn file(&self) -> Option<&Mapped> {
        match &self.values {
            Values::Mapped { file, .. } => Some(file),
            _ => None,
        }
    }

    /// All values, when they are f32 in memory.
    pub(super) fn as_f32_mut(&mut self) -> Option<&mut [f32]> {
        match &mut self.values {
            Values::F32(values) => Some(values),
            _ => None,
        }
    }

    /// The first `dim` numbers of a row, where they lie in memory as f32.
    pub(super) fn borrowed(&self, row: usize, dim: usize) -> Option<&[f32]> {
        let start = row * self.width;
        match &self.values {
            Values::F32(values) => Some(&values[start..start + dim]),
            Values::Mapped {
                file,
                at,
                element: Element::F32,
            } if cfg!(target_endian = "little") => {
                let start = at + start * 4;
                // Fails for a row that is not aligned.
                bytemuck::try_cast_slice(file.bytes(start..start + dim * 4)).ok()
            }
            _ => None,
        }
    }

    /// The first `dim` numbers of a row, converted.
    pub fn get(&self, row: usize, dim: usize) -> Cow<'_, [f32]> {
        self.borrowed(row, dim).map_or_else(
            || {
                let mut out = vec![0.0; dim];
                self.read_into(row, &mut out);
                Cow::Owned(out)
            },
            Cow::Borrowed,
        )
    }

    /// Converts the first numbers of a row, as many as `out` takes.
    ///
    /// # Panics
    /// When there is no such row, or `out` is longer than one.
    pub fn read_into(&self, row: usize, out: &mut [f32]) {
        assert!(out.len() <= self.width, "a row has {} numbers", self.width);
        let start = row * self.width;
        let range = start..start + out.len();
        match &self.values {
            Values::F32(values) => out.copy_from_slice(&values[range]),
            Values::F16(values) => values[range].convert_to_f32_slice(out),
            Values::I8(values) => self.scaled(row, &values[range], out),
            Values::Mapped { file, at, element } => {
                let size = element.bytes();
                let start = at + start * size;
                let bytes = file.bytes(start..start + out.len() * size);
                match element {
                    Element::F32 => {
                        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                            *out = f32::from_le_bytes(*bytes);
                        }
                    }
                    Element::F16 => {
                        let mut bits = [0_u16; WIDENED];
                        let blocks = out.chunks_mut(WIDENED).zip(bytes.chunks(2 * WIDENED));
                        for (out, bytes) in blocks {
                            for (bits, bytes) in bits.iter_mut().zip(bytes.as_chunks().0) {
                                *bits = u16::from_le_bytes(*bytes);
                            }
                            let halves: &[f16] = bits[..out.len()].reinterpret_cast();
                            halves.convert_to_f32_slice(out);
                        }
                    }
                    Element::I8 => self.scaled(row, bytemuck::cast_slice(bytes), out),
                }
            }
        }
    }

    fn scaled(&self, row: usize, values: &[i8], out: &mut [f32]) {
        let scale = match &self.scale {
            Scale::All(scale) => *scale,
            Scale::PerRow(scales) => scales[row],
        };
        for (out, &value) in out.iter_mut().zip(values) {
            *out = f32::from(value) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn mapped(bytes: &[u8]) -> Arc<Mapped> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(Mapped::new(file, 1 << 20).unwrap())
    }

    #[test]
    fn halves_and_bytes_are_widened() {
        let halves: Vec<f16> = [1.0, -0.5, 65504.0, 6e-8].map(f16::from_f32).to_vec();
        let bytes: Vec<u8> = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
        let in_memory = Rows::f16(halves, 2, 2);
        let in_file = Rows::mapped(mapped(&bytes), 0, Element::F16, 2, 2, Scale::All(1.0)).unwrap();
        for rows in [in_memory, in_file] {
            assert_eq!(rows.get(0, 2), [1.0, -0.5].as_slice());
            // 2^-24, the least half above zero.
            assert_eq!(rows.get(1, 2), [65504.0, 5.960_464_5e-8].as_slice());
        }
        // -128 * 0.25 and so on, by hand.
        let scales = Scale::PerRow([0.25_f32, 2.0].into());
        let in_memory = Rows::i8(vec![-128, 1, 127, 0], 2, 2, scales.clone());
        let in_file =
            Rows::mapped(mapped(&[128, 1, 127, 0]), 0, Element::I8, 2, 2, scales).unwrap();
        for rows in [in_memory, in_file] {
            assert_eq!(rows.get(0, 2), [-32.0, 0.25].as_slice());
            assert_eq!(rows.get(1, 1), [254.0].as_slice());
        }
    }

    #[test]
    fn rows_that_are_aligned_are_borrowed() {
        let bytes: Vec<u8> = [1.0_f32, 2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let rows = |at: usize| {
            let bytes = [vec![0; at], bytes.clone()].concat();
            Rows::mapped(mapped(&bytes), at, Element::F32, 1, 2, Scale::All(1.0)).unwrap()
        };
        let (aligned, unaligned) = (rows(64), rows(3));
        assert!(matches!(aligned.get(0, 2), Cow::Borrowed([1.0, 2.0])));
        assert!(matches!(unaligned.get(0, 2), Cow::Owned(_)));
        assert_eq!(unaligned.get(0, 2), aligned.get(0, 2));
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let short = |n, width| {
            let rows = Rows::mapped(mapped(&[0; 16]), 1, Element::F32, n, width, Scale::All(1.0));
            rows.map(|_| ()).map_err(|error| error.kind())
        };
        assert_eq!(short(1, 3), Ok(()));
        assert_eq!(short(2, 2), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(short(usize::MAX, 2), Err(io::ErrorKind::UnexpectedEof));
    }
}
