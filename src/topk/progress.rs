//! Long passes tell how far they are. They are begun deep inside the stages, so the listener is one for the process,
//! not one more argument of every function between.

use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::Progress;

/// Multiply-adds from which on a pass is worth telling of, and worth beginning on a GPU: about a second on two cores.
pub(super) const LONG: u64 = 1 << 36;

static LISTENER: Mutex<Option<Arc<dyn Progress>>> = Mutex::new(None);

/// From now on `listener` hears of every long pass of this process: pairs of a query and a gallery item, of how many
/// they are scored.
pub fn tell(listener: Arc<dyn Progress>) {
    *LISTENER.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
}

/// One pass; its end is told when this is dropped.
pub(super) struct Pass(Option<Arc<dyn Progress>>);

impl Pass {
    pub(super) fn begin(pairs: u64, dim: usize) -> Self {
        let listener = LISTENER.lock().unwrap_or_else(PoisonError::into_inner);
        Self::heard_by(listener.clone(), pairs, dim)
    }

    fn heard_by(listener: Option<Arc<dyn Progress>>, pairs: u64, dim: usize) -> Self {
        let pass = Self(listener.filter(|_| pairs.saturating_mul(dim as u64) >= LONG));
        if let Some(listener) = &pass.0 {
            listener.start("scoring pairs", pairs);
        }
        pass
    }

    /// So many pairs more are scored.
    pub(super) fn advance(&self, pairs: u64) {
        if let Some(listener) = &self.0 {
            listener.advance(pairs);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(listener) = &self.0 {
            listener.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it hears.
    #[derive(Default)]
    struct Heard(Mutex<Vec<(&'static str, u64)>>);

    impl Progress for Heard {
        fn start(&self, _label: &str, total: u64) {
            self.0.lock().unwrap().push(("start", total));
        }
        fn advance(&self, n: u64) {
            self.0.lock().unwrap().push(("advance", n));
        }
        fn finish(&self) {
            self.0.lock().unwrap().push(("finish", 0));
        }
    }

    #[test]
    fn long_passes_are_told_from_begin_to_end_and_short_ones_not_at_all() {
        let heard = Arc::new(Heard::default());
        for (pairs, dim) in [(1 << 26, 1024), ((1 << 26) - 1, 1024)] {
            let pass = Pass::heard_by(Some(heard.clone()), pairs, dim);
            pass.advance(7);
            pass.advance(pairs - 7);
        }
        let told = [
            ("start", 1 << 26),
            ("advance", 7),
            ("advance", (1 << 26) - 7),
            ("finish", 0),
        ];
        assert_eq!(*heard.0.lock().unwrap(), told);
    }
}
