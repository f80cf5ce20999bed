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
    /// Where each bar is drawn; `None` nowhere.
    target: Option<fn() -> ProgressDrawTarget>,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    stage: &'static str,
    bar: Option<ProgressBar>,
}

/// A stage of which nothing is counted.
const STAGE: &str = "{spinner} {msg} {elapsed}";
/// Things that are counted.
const COUNT: &str = "{msg} {wide_bar} {percent:>3} % {rate:>7} {eta:>4} left";
/// Words about how it goes take the bar's place, as many as the terminal has room for.
const WORDS: &str = "{wide_msg} {percent:>3} % {eta:>4} left";

impl Bars {
    /// Bars for this process's stderr.
    pub fn new(quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        Self {
            target: visible.then_some(ProgressDrawTarget::stderr),
            line: Mutex::default(),
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.line().clear();
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

    /// Puts a bar in the place of the last one, which goes first: two that are drawn at once leave one behind.
    fn show(&self, line: &mut Line, total: Option<u64>, template: &str, message: String) {
        line.clear();
        let target = self
            .target
            .map_or_else(ProgressDrawTarget::hidden, |new| new());
        let bar = ProgressBar::with_draw_target(total, target)
            .with_style(style(template))
            .with_message(message);
        bar.tick();
        if self.target.is_some() && total.is_none() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        line.bar = Some(bar);
    }

    fn show_stage(&self, line: &mut Line) {
        let stage = line.stage.to_owned();
        self.show(line, None, STAGE, stage);
    }
}

impl Line {
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is constant and valid")
        .with_key("rate", rate)
}

impl Progress for Bars {
    fn stage(&self, name: &'static str) {
        let mut line = self.line();
        line.stage = name;
        self.show_stage(&mut line);
    }

    fn start(&self, label: &str, total: u64) {
        let mut line = self.line();
        let message = format!("{}: {label}", line.stage);
        self.show(&mut line, Some(total), COUNT, message);
    }

    fn advance(&self, n: u64) {
        if let Some(bar) = &self.line().bar {
            bar.inc(n);
        }
    }

    fn say(&self, words: &str) {
        if let Some(bar) = &self.line().bar {
            bar.set_style(style(WORDS));
            bar.set_message(words.to_owned());
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

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    // A function takes no terminal along.
    static TERMINAL: std::sync::LazyLock<InMemoryTerm> =
        std::sync::LazyLock::new(|| InMemoryTerm::new(10, 80));

    #[test]
    fn one_line_stands_at_a_time() {
        let bars = Bars {
            target: Some(|| ProgressDrawTarget::term_like(Box::new(TERMINAL.clone()))),
            line: Mutex::default(),
        };
        let now = |bars: &Bars| {
            bars.line().bar.iter().for_each(ProgressBar::tick);
            TERMINAL.contents()
        };
        bars.stage("probe");
        assert!(now(&bars).ends_with("probe 0s"), "{}", now(&bars));
        bars.stage("embed");
        let shown = now(&bars);
        assert!(
            shown.ends_with("embed 0s") && !shown.contains("probe"),
            "{shown}"
        );
        bars.start("both models", 4);
        bars.advance(1);
        let shown = now(&bars);
        assert!(
            shown.starts_with("embed: both models ") && shown.contains(" 25 % "),
            "{shown}"
        );
        bars.say(&"much to say, ".repeat(20));
        let shown = now(&bars);
        assert!(
            shown.starts_with("much to say, ") && shown.contains(" 25 % "),
            "{shown}"
        );
        assert_eq!(shown.lines().count(), 1, "{shown}");
        bars.finish();
        assert_eq!(now(&bars).lines().count(), 1, "{}", now(&bars));
        bars.clear();
        assert_eq!(TERMINAL.contents(), "");
    }
}
