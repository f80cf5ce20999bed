//! Which version a library file is, without loading it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// `1.minor.patch` as the library itself says it, else as its file name does, else `unknown-` and the first
/// 12 digits of its SHA-256 (cached embeddings are keyed by the version, so two unknowns must differ).
///
/// The C API tells the version only through a raw pointer; but `GetVersionString` returns a constant of the
/// file, and on Linux symbols bear the version `VERS_1.31.1` too. Held against published libraries from 1.19.2
/// to 1.31.1 for Linux, macOS and Windows, CPU and GPU: one match each, the right one.
///
/// # Errors
/// The file cannot be read.
pub fn version_of(library: &Path) -> io::Result<String> {
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    if let Some(version) = constant(File::open(library)?)?.or_else(|| in_file_name(&name)) {
        return Ok(version);
    }
    Ok(format!("unknown-{}", &sha256(&fs::read(library)?)[..12]))
}

/// Whether an ELF file (64-bit, little-endian) ends before its table of sections, which linkers write last. The loader maps
/// such a file without a look at its length, and the process dies of SIGBUS. Only the head is read: every start asks.
///
/// # Errors
/// The file cannot be read.
pub fn is_cut_short(library: &Path) -> io::Result<bool> {
    let mut file = File::open(library)?;
    let length = file.metadata()?.len();
    let mut head = [0; 64];
    if length < head.len() as u64 {
        // The loader refuses it in its own words.
        return Ok(false);
    }
    file.read_exact(&mut head)?;
    let number = |at: usize, bytes: usize| {
        let bytes = head[at..at + bytes].iter().rev();
        bytes.fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    // e_shoff, e_shentsize, e_shnum.
    let end = number(40, 8).saturating_add(number(58, 2) * number(60, 2));
    Ok(head.starts_with(b"\x7fELF\x02\x01") && length < end)
}

/// The minor version of `1.minor.patch`.
pub fn minor(version: &str) -> Option<u32> {
    let mut numbers = version.split('.');
    match (numbers.next(), numbers.next()?.parse(), numbers.next()) {
        (Some("1"), Ok(minor), Some(_)) => Some(minor),
        _ => None,
    }
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What the name of a symbol puts before the version.
const SYMBOL: &[u8] = b"VERS_";

/// The longest version that is looked for.
const LONGEST: usize = "1.999.999".len();

/// The only NUL-terminated string of the form `1.NN.P`; the versions of libraries inside (zlib 1.3.2) have a
/// one-digit minor.
fn constant(mut library: impl Read) -> io::Result<Option<String>> {
    // A library has thirty million bytes, and every start of the tool looks at them: piece by piece they stay in the cache.
    const PIECE: usize = 1 << 18;
    const BEFORE: usize = 1 + SYMBOL.len();
    const KEPT: usize = BEFORE + LONGEST + 1;
    let mut bytes = Vec::with_capacity(KEPT + PIECE);
    let mut found: Option<String> = None;
    loop {
        let overlap = bytes.len().min(KEPT);
        bytes.drain(..bytes.len() - overlap);
        let read = library
            .by_ref()
            .take(PIECE as u64)
            .read_to_end(&mut bytes)?;
        if read == 0 {
            return Ok(found);
        }
        // Those that begin earlier were whole in the last piece, and what stood before them is gone.
        let from = if overlap == 0 { 0 } else { BEFORE };
        for text in versions(&bytes, from) {
            if found.as_deref().is_some_and(|other| other != text) {
                return Ok(None);
            }
            found.get_or_insert_with(|| text.to_owned());
        }
    }
}

/// The strings of that form that begin at `from` or later and end in the bytes.
fn versions(bytes: &[u8], from: usize) -> impl Iterator<Item = &str> {
    let starts = memchr::memmem::find_iter(&bytes[from..], b"1.");
    starts.map(move |at| from + at).filter_map(|at| {
        let before = &bytes[..at];
        let before = before.strip_suffix(SYMBOL).unwrap_or(before);
        let text = &bytes[at..bytes.len().min(at + LONGEST + 1)];
        let text = &text[..text.iter().position(|&byte| byte == 0)?];
        let text = str::from_utf8(text).ok().filter(|text| is_version(text));
        text.filter(|_| before.last().is_none_or(|&byte| byte == 0))
    })
}

fn is_version(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('.').collect();
    let digits = |number: &&str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    numbers.len() == 3 && numbers.iter().all(digits) && numbers[1].len() >= 2
}

/// `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`.
fn in_file_name(name: &str) -> Option<String> {
    let start = name.find(|c: char| c.is_ascii_digit())?;
    let version = name[start..].trim_end_matches(".dylib");
    is_version(version).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_s_own_constant_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let version = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).expect("written");
            version_of(&path).expect("readable")
        };
        // zlib's version is passed over; the two spellings agree.
        let both = b"\x7fELF\x001.3.2\0VERS_1.24.4\0code\x001.24.4\0";
        assert_eq!(version("libonnxruntime.so.1.31.1", both), "1.24.4");
        assert_eq!(version("onnxruntime.dll", b"MZ\x001.22.0\0"), "1.22.0");
        // Two that disagree say nothing: the file name does.
        let torn = b"\x001.24.4\0\x001.25.0\0";
        assert_eq!(version("libonnxruntime.so.1.25.0", torn), "1.25.0");
        assert_eq!(version("libonnxruntime.1.31.1.dylib", b""), "1.31.1");
        // SHA-256 of nothing, FIPS 180-4.
        assert_eq!(version("libonnxruntime.so", b""), "unknown-e3b0c44298fc");
    }

    #[test]
    fn a_version_is_found_wherever_pieces_of_the_library_meet() {
        for (near, expected) in [
            (&b"\0VERS_1.24.4\0"[..], Some("1.24.4")),
            (&b"\x001.24.4\0"[..], Some("1.24.4")),
            (&b"x1.24.4\0"[..], None),
            (&b"\x001.24.4x"[..], None),
        ] {
            for at in (1 << 18) - 40..(1 << 18) + 40 {
                let mut bytes = vec![b'-'; 1 << 19];
                bytes[at..at + near.len()].copy_from_slice(near);
                let found = constant(&bytes[..]).expect("readable");
                assert_eq!(found.as_deref(), expected, "{near:?} at {at}");
            }
        }
    }

    #[test]
    fn minors_are_numbers_of_versions_1() {
        assert_eq!(minor("1.9.0"), Some(9));
        assert_eq!(minor("1.31.1"), Some(31));
        assert_eq!(minor("2.31.1"), None);
        assert_eq!(minor("unknown-e3b0"), None);
    }
}
