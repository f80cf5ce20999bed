//! Which version a library file is, without loading it.

use std::fs;
use std::io;
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
    let bytes = fs::read(library)?;
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    Ok(constant(&bytes)
        .or_else(|| in_file_name(&name))
        .unwrap_or_else(|| format!("unknown-{}", &sha256(&bytes)[..12])))
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

/// The only NUL-terminated string of the form `1.NN.P`; the versions of libraries inside (zlib 1.3.2) have a
/// one-digit minor.
fn constant(bytes: &[u8]) -> Option<String> {
    const LONGEST: usize = "1.999.999".len();
    let mut found: Option<&str> = None;
    // A library has thirty million bytes and a few thousand such places; every start of the tool looks for them.
    for at in memchr::memmem::find_iter(bytes, b"1.") {
        let before = &bytes[..at];
        let before = before.strip_suffix(b"VERS_").unwrap_or(before);
        let text = bytes[at..].iter().take(LONGEST + 1);
        let length = text.take_while(|&&byte| byte != 0).count();
        if before.last().is_some_and(|&byte| byte != 0) || length > LONGEST {
            continue;
        }
        let text = &bytes[at..at + length];
        let Some(text) = str::from_utf8(text).ok().filter(|text| is_version(text)) else {
            continue;
        };
        if found.is_some_and(|other| other != text) {
            return None;
        }
        found = Some(text);
    }
    found.map(str::to_owned)
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
    fn minors_are_numbers_of_versions_1() {
        assert_eq!(minor("1.9.0"), Some(9));
        assert_eq!(minor("1.31.1"), Some(31));
        assert_eq!(minor("2.31.1"), None);
        assert_eq!(minor("unknown-e3b0"), None);
    }
}
