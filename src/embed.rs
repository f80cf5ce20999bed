//! stub
pub mod preprocess;
use crate::{config::*, domain::*, runtime::Runtime};
use std::path::{Path, PathBuf};
pub enum ModelSource {
    Onnx(PathBuf),
    Stored(PathBuf),
}
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct EmbedError;
impl EmbedError {
    pub fn hint(&self) -> Option<String> {
        None
    }
}
impl ModelSource {
    pub fn from_path(path: &Path) -> Result<Self, EmbedError> {
        Ok(Self::Onnx(path.into()))
    }
}
pub struct EmbedOptions<'a> {
    pub side: Side,
    pub model: &'a ModelConfig,
    pub similarity: Similarity,
    pub cache_dir: Option<&'a Path>,
    pub max_bad_items: usize,
    pub force_batch_1: bool,
}
pub struct ModelInfo {
    pub name: String,
    pub kind: String,
    pub hash: String,
    pub preprocessing_key: String,
    pub dim: usize,
    pub output: Option<String>,
    pub provider: Option<String>,
    pub runtime_version: Option<String>,
}
pub struct BadItem {
    pub item: usize,
    pub id: String,
    pub error: String,
}
pub struct Embedded {
    pub embeddings: Embeddings,
    pub input_digests: Vec<Option<[u8; 32]>>,
    pub model: ModelInfo,
    pub settings: Vec<Setting>,
    pub findings: Vec<Finding>,
    pub bad_items: Vec<BadItem>,
    pub n_from_cache: usize,
    pub n_embedded: usize,
}
impl Embedded {
    pub fn retain(&mut self, _keep: &[bool]) {}
}
pub struct ModelDescription {
    pub name: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub settings: Vec<Setting>,
    pub findings: Vec<Finding>,
}
pub trait Progress: Sync {
    fn start(&self, label: &str, total: u64);
    fn advance(&self, n: u64);
    fn finish(&self);
}
pub fn embed(
    _: &Probe,
    _: &ModelSource,
    _: &EmbedOptions,
    _: Option<&Runtime>,
    _: &dyn Progress,
) -> Result<Embedded, EmbedError> {
    Err(EmbedError)
}
pub fn describe(
    _: &Probe,
    _: &ModelSource,
    _: &EmbedOptions,
    _: Option<&Runtime>,
) -> Result<ModelDescription, EmbedError> {
    Err(EmbedError)
}
