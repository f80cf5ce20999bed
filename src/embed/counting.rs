//! How often each input was read and decoded, for the tests; by path or text, because tests run side by side.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::domain::{Item, Source};

static COUNTS: Mutex<BTreeMap<String, [usize; 2]>> = Mutex::new(BTreeMap::new());

fn key(item: &Item) -> Option<String> {
    match item.source.as_deref() {
        Some(Source::Image(path)) => Some(path.display().to_string()),
        _ => item.text().map(str::to_owned),
    }
}

/// Counts reads, and decodings or tokenisations.
pub fn count(item: &Item, [reads, decodings]: [usize; 2]) {
    if let Some(key) = key(item) {
        let mut counts = COUNTS.lock().expect("no test panics while counting");
        let count = counts.entry(key).or_default();
        count[0] += reads;
        count[1] += decodings;
    }
}

/// Reads and decodings since the last time.
pub fn take(item: &Item) -> [usize; 2] {
    let mut counts = COUNTS.lock().expect("no test panics while counting");
    key(item)
        .and_then(|key| counts.remove(&key))
        .unwrap_or_default()
}
