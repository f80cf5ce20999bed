//! A training that was interrupted, on disk: one line of JSON, then floats.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::interrupt::WholeFile;

/// The first line of a checkpoint is shorter: a trace of some hundred numbers.
const MOST_HEAD: u64 = 1 << 20;

/// How far a training is. It is taken up again only by the same one: same data, options and version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// BLAKE3 over all that the training hangs on, hex.
    pub fingerprint: String,
    /// Steps taken.
    pub steps: usize,
    /// The validation's measure before the first step and after each tenth.
    pub trace: Vec<f64>,
    /// Lengths of the parts of the state.
    lengths: Vec<usize>,
    /// Variables and moments.
    #[serde(skip)]
    pub state: Vec<Vec<f32>>,
    /// The state at the best step so far.
    #[serde(skip)]
    pub best: Vec<Vec<f32>>,
}

impl Checkpoint {
    /// A checkpoint to be written.
    pub fn new(
        fingerprint: String,
        steps: usize,
        trace: Vec<f64>,
        state: Vec<Vec<f32>>,
        best: Vec<Vec<f32>>,
    ) -> Self {
        let lengths = state.iter().map(Vec::len).collect();
        Self {
            fingerprint,
            steps,
            trace,
            lengths,
            state,
            best,
        }
    }

    /// Beside the model that is to be written.
    pub fn path(out: &Path) -> PathBuf {
        let mut name = out.as_os_str().to_owned();
        name.push(".checkpoint");
        name.into()
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = WholeFile::beside(path)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        for values in self.state.iter().chain(&self.best) {
            file.write_all(bytemuck::cast_slice(values))?;
        }
        file.persist(path)
    }

    /// Whether a file is there and is none of these: somebody else's.
    pub fn is_foreign(path: &Path) -> bool {
        let read = || {
            let mut line = Vec::new();
            let mut file = BufReader::new(fs::File::open(path)?);
            file.by_ref().take(MOST_HEAD).read_until(b'\n', &mut line)?;
            Ok::<_, std::io::Error>(serde_json::from_slice::<Self>(&line).is_err())
        };
        // What is not there, or cannot be read, cannot be replaced unseen either.
        read().unwrap_or(false)
    }

    /// The checkpoint of this very training; `None` where there is none, or one of another training, or a torn one.
    pub fn read(path: &Path, fingerprint: &str) -> Option<Self> {
        let bytes = fs::read(path).ok()?;
        let end = bytes.iter().position(|&byte| byte == b'\n')?;
        let mut found: Self = serde_json::from_slice(&bytes[..end]).ok()?;
        if found.fingerprint != fingerprint {
            return None;
        }
        let mut rest = &bytes[end + 1..];
        let lengths = found.lengths.clone();
        for parts in [&mut found.state, &mut found.best] {
            for &length in &lengths {
                let (part, left) = rest.split_at_checked(4 * length)?;
                parts.push(bytemuck::pod_collect_to_vec(part));
                rest = left;
            }
        }
        rest.is_empty().then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_by_the_same_training_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Checkpoint::path(&folder.path().join("new.onnx"));
        assert!(path.ends_with("new.onnx.checkpoint"));
        assert_eq!(Checkpoint::read(&path, "a"), None);
        let state = vec![vec![1.0, -2.5], vec![], vec![f32::MIN_POSITIVE]];
        let best = vec![vec![0.0, 0.5], vec![], vec![3.0]];
        let written = Checkpoint::new("a".into(), 30, vec![0.1, 0.2], state, best);
        written.write(&path).expect("written");
        assert_eq!(Checkpoint::read(&path, "a"), Some(written));
        assert_eq!(Checkpoint::read(&path, "b"), None);
        assert!(!Checkpoint::is_foreign(&path));
        let other = folder.path().join("notes");
        assert!(!Checkpoint::is_foreign(&other), "not there");
        fs::write(&other, "precious").expect("written");
        assert!(Checkpoint::is_foreign(&other));
        let bytes = fs::read(&path).expect("there");
        fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
        assert_eq!(Checkpoint::read(&path, "a"), None, "torn");
    }
}
