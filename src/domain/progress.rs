//! How far an audit is.

/// Hears how far an audit is. One count is under way at a time.
pub trait Progress: Send + Sync {
    /// A stage of the audit begins.
    fn stage(&self, _name: &'static str) {}
    /// `total` things (items to embed, pairs to score) are about to be done.
    fn start(&self, label: &str, total: u64);
    /// `n` more are done.
    fn advance(&self, n: u64);
    /// How it goes, in words and numbers.
    fn say(&self, _words: &str) {}
    /// All are done.
    fn finish(&self);
}

/// Nobody hears.
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _label: &str, _total: u64) {}
    fn advance(&self, _n: u64) {}
    fn finish(&self) {}
}
