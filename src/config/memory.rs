//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units, the powers of 1024 first: what [`ByteSize`] is printed in.
const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A number of bytes; written `2GiB`, `512MiB`, `1.5GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// `--memory` where nothing is said: small enough for the machines that CI jobs get, beside what an audit needs anyway. A
/// number and not a share of the machine, so that runs are alike everywhere.
impl Default for ByteSize {
    fn default() -> Self {
        Self(1 << 30)
    }
}

/// What is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as 2GiB or 512MiB, found `{found}`")]
pub struct NotASize {
    found: String,
}

impl FromStr for ByteSize {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let wrong = || NotASize { found: text.into() };
        let text = text.trim();
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, unit) = text.split_at(text.find(|c| !is_number(c)).ok_or_else(wrong)?);
        let unit = unit.trim_start();
        let (_, factor) = UNITS
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(wrong)?;
        let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
        // Beyond 2^64 every machine is large enough.
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS[..4]
            .iter()
            .rev()
            .find(|(_, factor)| self.0.is_multiple_of(*factor));
        match whole {
            Some((name, factor)) if self.0 > 0 => write!(f, "{}{name}", self.0 / factor),
            _ => write!(f, "{}KiB", self.0 as f64 / 1024.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let sizes = [
            ("2GiB", 2 << 30, "2GiB"),
            ("512 MiB", 512 << 20, "512MiB"),
            ("1.5gib", 3 << 29, "1536MiB"),
            ("4GB", 4_000_000_000, "3906250KiB"),
            ("0MiB", 0, "0KiB"),
            ("1kb", 1000, "0.9765625KiB"),
        ];
        for (text, bytes, written) in sizes {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, written));
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "", "2", "GiB", "-1GiB", "2GiBs", "1.2.3MiB", "lots", "2 G", "infGiB",
        ] {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains(&format!("found `{text}`")), "{error}");
        }
    }
}
