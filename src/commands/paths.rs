//! Every file that the user names must be there, also where this audit happens not to need it.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::AuditConfig;

/// Refuses a named file that is not there: a mistyped path must not be ignored because nothing reads it.
///
/// The models, the probe, audit.toml and the models' own files are not looked at: nothing works without them, and
/// their own errors say more.
pub fn check(config: &AuditConfig, onnxruntime: Option<&Path>) -> Result<(), Failure> {
    let named: [(&str, Option<&PathBuf>); 3] = [
        ("tensors", config.probe.tensors.as_ref()),
        ("qrels", config.probe.qrels.as_ref()),
        ("old_embeddings", config.old_embeddings.as_ref()),
    ];
    let library = onnxruntime.map(|path| ("--onnxruntime", path));
    let missing = named
        .into_iter()
        .filter_map(|(name, path)| Some((name, path?.as_path())))
        .chain(library)
        .find(|(_, path)| !path.exists());
    match missing {
        None => Ok(()),
        Some((name, path)) => Err(Failure {
            message: format!("{}: no such file ({name})", path.display()),
            hint: Some("check the path; nothing was run".into()),
        }),
    }
}
