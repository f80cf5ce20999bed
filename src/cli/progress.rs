//! Progress bars on stderr; nothing without a terminal.

use std::io::IsTerminal;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::embed::Progress;

/// One bar at a time, drawn only on a terminal and not when quiet.
pub struct Bars {
    visible: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bars {
    /// Bars for this process's stderr.
    pub fn new(quiet: bool) -> Self {
        Self {
            visible: !quiet && std::io::stderr().is_terminal(),
            bar: Mutex::new(None),
        }
    }
}

impl Progress for Bars {
    fn start(&self, label: &str, total: u64) {
        let target = if self.visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template("{msg:24} {bar:40} {pos}/{len} {eta}")
            .expect("the template is constant and valid");
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
        bar.set_message(label.to_owned());
        *self.bar.lock().expect("no thread panics while drawing") = Some(bar);
    }

    fn advance(&self, n: u64) {
        if let Some(bar) = self
            .bar
            .lock()
            .expect("no thread panics while drawing")
            .as_ref()
        {
            bar.inc(n);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self
            .bar
            .lock()
            .expect("no thread panics while drawing")
            .take()
        {
            bar.finish_and_clear();
        }
    }
}
