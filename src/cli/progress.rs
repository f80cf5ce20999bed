//! Progress bars on stderr; nothing without a terminal.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::domain::Progress;

/// One line, drawn only on a terminal and not when quiet: the stage and how long it has lasted, or a bar with rate and
/// time left while something is counted.
pub struct Bars {
    visible: bool,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    stage: &'static str,
    bar: Option<ProgressBar>,
}

impl Bars {
    /// Bars for this process's stderr.
    pub fn new(quiet: bool) -> Self {
        Self {
            visible: !quiet && std::io::stderr().is_terminal(),
            line: Mutex::default(),
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.line().show(None);
    }

    /// Lets `write` print to the terminal above the line.
    pub fn above(&self, write: impl FnOnce()) {
        match &self.line().bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bar(&self, total: Option<u64>, template: &str) -> ProgressBar {
        let target = if self.visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(template)
            .expect("the template is constant and valid")
            .with_key("rate", rate);
        ProgressBar::with_draw_target(total, target).with_style(style)
    }

    fn show_stage(&self, line: &mut Line) {
        let bar = self.bar(None, "{spinner} {msg} {elapsed}");
        bar.set_message(line.stage);
        if self.visible {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        line.show(Some(bar));
    }
}

impl Line {
    fn show(&mut self, bar: Option<ProgressBar>) {
        if let Some(old) = std::mem::replace(&mut self.bar, bar) {
            old.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn stage(&self, name: &'static str) {
        let mut line = self.line();
        line.stage = name;
        self.show_stage(&mut line);
    }

    fn start(&self, label: &str, total: u64) {
        let template = "{msg} {wide_bar} {percent:>3} % {rate:>7} {eta:>4} left";
        let bar = self.bar(Some(total), template);
        let mut line = self.line();
        bar.set_message(format!("{}: {label}", line.stage));
        line.show(Some(bar));
    }

    fn advance(&self, n: u64) {
        if let Some(bar) = &self.line().bar {
            bar.inc(n);
        }
    }

    fn say(&self, words: &str) {
        let line = self.line();
        if let Some(bar) = &line.bar {
            bar.set_message(format!("{}: {words}", line.stage));
        }
    }

    fn finish(&self) {
        self.show_stage(&mut self.line());
    }
}

/// Things a second, in thousands, millions or milliards.
fn rate(state: &ProgressState, out: &mut dyn Write) {
    let (mut scaled, mut unit) = (state.per_sec(), "");
    for next in ["k", "M", "G"] {
        if scaled >= 1000.0 {
            (scaled, unit) = (scaled / 1000.0, next);
        }
    }
    // A sink that cannot be written to shows no rate.
    let _ = write!(out, "{scaled:.0} {unit}/s");
}
