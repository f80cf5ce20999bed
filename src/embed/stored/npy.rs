//! `.npy` files: mapped as they are where their layout allows, else converted row by row.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

use half::f16;
use npyz::{DType, Deserialize, Endianness, NpyFile, NpyHeader, Order, TypeChar, TypeStr};

use super::sink::{Number, Sink};
use super::{Ids, Room, is_scale, unreadable, wrong};
use crate::domain::{Element, Mapped, Rows, Scale};
use crate::embed::EmbedError;

/// Numbers converted together.
const TAKEN_TOGETHER: usize = 1 << 16;

/// The rows, and the ids beside them.
pub fn read(path: &Path, room: Room<'_>) -> Result<(Rows, Ids), EmbedError> {
    let rows = Npy::open(path)?.rows(room)?;
    Ok((rows, ids_beside(path)?))
}

/// A file whose header was read.
struct Npy<'a> {
    path: &'a Path,
    file: File,
    header: NpyHeader,
    plain: TypeStr,
    n: usize,
    width: usize,
    /// Where the numbers begin.
    at: usize,
}

impl<'a> Npy<'a> {
    /// Reads the header, and refuses a file that holds something else than it says, or less.
    fn open(path: &'a Path) -> Result<Self, EmbedError> {
        let failed = |source| unreadable(path, source);
        let mut file = File::open(path).map_err(failed)?;
        let header = NpyHeader::from_reader(&mut file).map_err(|error| {
            wrong(
                path,
                "an array as numpy writes it".into(),
                error.to_string(),
            )
        })?;
        let at = file.stream_position().map_err(failed)?;
        let not_floats = |kind: &str| {
            let found = format!("{kind} of shape {:?}", header.shape());
            wrong(path, "floats of shape (rows, dim)".into(), found)
        };
        let dtype = header.dtype();
        let DType::Plain(plain) = &dtype else {
            return Err(not_floats("records"));
        };
        match (plain.type_char(), plain.size_field()) {
            (TypeChar::Float, 2 | 4 | 8) | (TypeChar::Int, 1) => {}
            (TypeChar::Int | TypeChar::Uint | TypeChar::Bool, _) => {
                return Err(not_floats("integers"));
            }
            _ => return Err(not_floats(&dtype.descr())),
        }
        if header.shape().get(1) == Some(&0) {
            return Err(wrong(path, "at least 1 dimension".into(), "0".into()));
        }
        let &[n, width] = header.shape() else {
            let kind = match plain.type_char() {
                TypeChar::Float => "floats",
                _ => "integers",
            };
            return Err(not_floats(kind));
        };
        let length = file.metadata().map_err(failed)?.len();
        let wanted = n
            .checked_mul(width)
            .and_then(|values| values.checked_mul(plain.size_field()))
            .and_then(|bytes| bytes.checked_add(at));
        if wanted.is_none_or(|wanted| wanted > length) {
            let claim = format!("({n}, {width}) of {}", dtype.descr());
            let found = format!("a truncated file of {length} bytes");
            return Err(wrong(path, claim, found));
        }
        // All are at most the file's length, unless there are no rows, or rows of nothing.
        let [n, width, at] = [n, width, at].map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        Ok(Self {
            path,
            file,
            plain: plain.clone(),
            header,
            n,
            width,
            at,
        })
    }

    fn rows(self, room: Room<'_>) -> Result<Rows, EmbedError> {
        let element = match (self.plain.type_char(), self.plain.size_field()) {
            (TypeChar::Float, 2) => Some(Element::F16),
            (TypeChar::Float, 4) => Some(Element::F32),
            (TypeChar::Float, _) => None,
            _ => Some(Element::I8),
        };
        let scale = match element {
            Some(Element::I8) => scale_beside(self.path, self.n)?,
            _ => Scale::All(1.0),
        };
        let by_rows = self.header.order() == Order::C || self.n <= 1 || self.width <= 1;
        let as_stored = element.filter(|_| by_rows && self.plain.endianness() != Endianness::Big);
        match (as_stored, element) {
            (Some(element), _) => {
                let path = self.path;
                let mapped = self.mapped(element, scale, room);
                mapped.map_err(|source| unreadable(path, source))
            }
            (None, Some(Element::F16)) => self.converted(scale, room, |v: f16| v),
            (None, Some(Element::F32)) => self.converted(scale, room, |v: f32| v),
            (None, Some(Element::I8)) => self.converted(scale, room, |v: i8| v),
            (None, None) => self.converted(scale, room, |v: f64| v as f32),
        }
    }

    fn mapped(self, element: Element, scale: Scale, room: Room<'_>) -> io::Result<Rows> {
        let fits = room.holds(self.n, self.width, element.bytes());
        let mapped = Arc::new(Mapped::new(self.file, room.resident())?);
        let rows = Rows::mapped(mapped, self.at, element, self.n, self.width, scale)?;
        Ok(if fits { rows.into_memory() } else { rows })
    }

    /// What is not stored as it is used: f64, big-endian, or column after column (which is held as a whole).
    fn converted<T: Deserialize + Copy, U: Number>(
        self,
        scale: Scale,
        room: Room<'_>,
        convert: impl Fn(T) -> U,
    ) -> Result<Rows, EmbedError> {
        let (n, width) = (self.n, self.width);
        let failed = |source| unreadable(self.path, source);
        let by_columns = self.header.order() == Order::Fortran && n > 1 && width > 1;
        let mut sink = Sink::new(self.path, n, width, room)?;
        let mut values = NpyFile::with_header(self.header, BufReader::new(self.file))
            .data::<T>()
            .map_err(|error| failed(io::Error::other(error)))?;
        if by_columns {
            let values: Vec<T> = values.collect::<io::Result<_>>().map_err(failed)?;
            for row in 0..n {
                sink.take((0..width).map(|column| convert(values[column * n + row])))?;
            }
        } else {
            loop {
                let part: Vec<T> = values
                    .by_ref()
                    .take(TAKEN_TOGETHER)
                    .collect::<io::Result<_>>()
                    .map_err(failed)?;
                if part.is_empty() {
                    break;
                }
                sink.take(part.into_iter().map(&convert))?;
            }
        }
        sink.finish(scale)
    }
}

/// `<stem>.ids.txt`, one id a line.
fn ids_beside(path: &Path) -> Result<Ids, EmbedError> {
    let path = path.with_extension("ids.txt");
    let mut ids = Ids::default();
    each_line(&path, |id| {
        if id.is_empty() {
            let found = format!("nothing in line {}", ids.len() + 1);
            return Err(wrong(&path, "an id a line".into(), found));
        }
        ids.push(id);
        Ok(())
    })?;
    Ok(ids)
}

/// `<stem>.scale.txt`: one number, or one a row.
fn scale_beside(path: &Path, n: usize) -> Result<Scale, EmbedError> {
    let path = path.with_extension("scale.txt");
    let mut scales = Vec::new();
    each_line(&path, |line| {
        let scale = line.trim().parse().ok().filter(is_scale);
        scales.push(scale.ok_or_else(|| {
            let found = format!("`{line}` in line {}", scales.len() + 1);
            wrong(&path, "a number above 0 a line".into(), found)
        })?);
        Ok(())
    })?;
    match scales.as_slice() {
        &[scale] => Ok(Scale::All(scale)),
        _ if scales.len() == n => Ok(Scale::PerRow(scales.into())),
        _ => Err(wrong(
            &path,
            format!("one number, or {n}, one a row"),
            format!("{} numbers", scales.len()),
        )),
    }
}

fn each_line(
    path: &Path,
    mut visit: impl FnMut(&str) -> Result<(), EmbedError>,
) -> Result<(), EmbedError> {
    let failed = |source| unreadable(path, source);
    let mut lines = BufReader::new(File::open(path).map_err(failed)?);
    let mut bytes = Vec::new();
    let mut number = 0;
    while lines.read_until(b'\n', &mut bytes).map_err(failed)? > 0 {
        number += 1;
        let line = std::str::from_utf8(&bytes).map_err(|_| {
            let found = format!("other bytes in line {number}");
            wrong(path, "text in UTF-8".into(), found)
        })?;
        let line = line.trim_end_matches('\n').trim_end_matches('\r');
        // Some editors begin a text with it.
        visit(match number {
            1 => line.strip_prefix('\u{feff}').unwrap_or(line),
            _ => line,
        })?;
        bytes.clear();
    }
    Ok(())
}
