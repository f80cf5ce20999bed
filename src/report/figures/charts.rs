//! The charts of bars and lines. Each draws what the view says and nothing it does not say.

use super::drawing::{Anchor, Drawing};
use super::lettering::{centred, fitted, text_width};
use super::{BAD, BAD_PALE, INK, MUTED, NEW, OLD, RULE, bold, regular, tone_color};
use crate::report::view::{Bar, View, format};

/// Text sizes: values and names; notes and ticks.
pub const TEXT: f64 = 13.0;
pub const SMALL: f64 = 11.5;

/// A linear axis from values to page pixels.
pub struct Axis {
    /// Value at `left`.
    pub low: f64,
    /// Value at `right`.
    pub high: f64,
    /// Page pixel of `low`.
    pub left: f64,
    /// Page pixel of `high`.
    pub right: f64,
}

impl Axis {
    pub fn x(&self, value: f64) -> f64 {
        let share = (value.clamp(self.low, self.high) - self.low) / (self.high - self.low);
        self.left + share * (self.right - self.left)
    }

    /// Multiples of 1, 2 or 5 times a power of ten, at most `most` steps on the axis.
    pub fn ticks(&self, most: f64) -> Vec<f64> {
        let rough = (self.high - self.low) / most;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }

    pub fn draw_ticks(&self, drawing: &mut Drawing, y: f64, most: f64, size: f64) {
        drawing.line(&[(self.left, y), (self.right, y)], 1.0, RULE);
        let ticks = self.ticks(most);
        let step = ticks.get(1).map_or(1.0, |second| second - ticks[0]);
        for tick in ticks {
            let x = self.x(tick);
            drawing.line(&[(x, y), (x, y + 5.0)], 1.0, MUTED);
            // A name at the end may reach out of the axis, but not out of the drawing.
            let (name, look) = (format::on_axis(tick, step), regular(size, MUTED));
            let half = 0.55 * text_width(&name, &look);
            let center = centred(x, half, 0.0, drawing.width());
            drawing.text((center, y + 6.0 + size), name, look, Anchor::Middle);
        }
    }
}

/// The number that decided and its interval against its limit, with values in letters of `text` page pixels; `None` where there
/// is none.
pub fn decision(view: &View, width: u32, text: f64) -> Option<Drawing> {
    let line = view.decision.as_ref()?;
    let known: Vec<f64> = [line.value, line.lower, line.upper, line.limit, 0.0]
        .into_iter()
        .filter(|value| value.is_finite())
        .collect();
    let lowest = known.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let pad = (0.12 * (highest - lowest)).max(0.002);
    let (left, right) = (14.0, f64::from(width) - 14.0);
    let axis = Axis {
        low: lowest - pad,
        high: highest + pad,
        left,
        right,
    };

    let description = format!(
        "{} = {} {}, {}: {}. {}",
        line.name, line.value_text, line.interval_text, line.limit_text, line.state, line.sentence
    );
    // Heights grow with the letters.
    let unit = text / TEXT;
    let mut drawing = Drawing::new(width, (122.0 * unit) as u32, description);
    let (band_top, band_bottom, middle) = (44.0 * unit, 92.0 * unit, 68.0 * unit);
    let limit = axis.x(line.limit);
    let (from, to) = if line.safe_above {
        (left, limit)
    } else {
        (limit, right)
    };
    drawing.rect(
        (from, band_top),
        (to - from, band_bottom - band_top),
        BAD_PALE,
    );
    let zero = axis.x(0.0);
    drawing.line(&[(zero, band_top), (zero, band_bottom)], 1.0, MUTED);
    drawing.dashed(limit, (band_top - 6.0, band_bottom), BAD);

    let color = tone_color(line.tone);
    let end = |value: f64, open: f64| {
        if value.is_finite() {
            axis.x(value)
        } else {
            open
        }
    };
    let (from, to) = (end(line.lower, left), end(line.upper, right));
    drawing.rect((from, middle - 2.0), ((to - from).max(1.0), 4.0), color);
    for (x, closed) in [(from, line.lower.is_finite()), (to, line.upper.is_finite())] {
        if closed {
            drawing.rect((x - 1.0, middle - 9.0 * unit), (2.0, 18.0 * unit), color);
        }
    }
    if line.value.is_finite() {
        drawing.circle((axis.x(line.value), middle), 7.0 * unit, color);
    }

    // The margin's name beside its line, on the side that has room.
    let small = text * SMALL / TEXT;
    let limit_look = bold(small, BAD);
    let needed = text_width(&line.limit_text, &limit_look) + 8.0;
    let room_left = limit - left >= needed;
    let room_right = right - limit >= needed;
    let (x, anchor) = if room_left && (line.safe_above || !room_right) {
        (limit - 6.0, Anchor::End)
    } else {
        (limit + 6.0, Anchor::Start)
    };
    drawing.text(
        (x, band_top - 8.0 * unit),
        &line.limit_text,
        limit_look,
        anchor,
    );
    // D's name over the interval.
    let value_look = bold(text, color);
    // On a telephone a check's code and its interval are too long for one line.
    let said = [
        format!(
            "{} = {} {}",
            line.symbol, line.value_text, line.interval_text
        ),
        format!("{} {}", line.value_text, line.interval_text),
    ];
    let half_of = |said: &str| 1.08 * text_width(said, &value_look) / 2.0;
    let fits = |said: &&String| 2.0 * half_of(said) <= right - left;
    let value = said.iter().find(fits).unwrap_or(&line.value_text);
    let wanted = end(line.value, f64::from(width) / 2.0);
    let center = centred(wanted, half_of(value), left, right);
    drawing.text((center, 16.0 * unit), value, value_look, Anchor::Middle);
    let most = if width < 500 { 5.0 } else { 10.0 };
    axis.draw_ticks(&mut drawing, band_bottom, most, small);
    Some(drawing)
}

/// The primary measure of each pairing with its interval, on [0, 1].
pub fn pairings(view: &View, width: u32) -> Option<Drawing> {
    let bars = &view.pairing_bars;
    if bars.is_empty() {
        return None;
    }
    let row_height = 44.0;
    let height = 14.0 + row_height * bars.len() as f64 + 30.0;
    let mut drawing = Drawing::new(
        width,
        height as u32,
        described(
            &format!("{} by pairing, query->gallery", view.primary),
            bars,
        ),
    );
    let axis = Axis {
        low: 0.0,
        high: 1.0,
        left: 10.0,
        right: f64::from(width) - 14.0,
    };
    for (index, bar) in bars.iter().enumerate() {
        let top = 8.0 + row_height * index as f64;
        let name = bold(TEXT, INK);
        drawing.text((axis.left, top + 14.0), &bar.label, name, Anchor::Start);
        let value = format!("{} {}", bar.value_text, bar.interval_text);
        drawing.text(
            (axis.right, top + 14.0),
            value,
            regular(TEXT, INK),
            Anchor::End,
        );
        if width >= 500 {
            let after = axis.left + 1.1 * text_width(&bar.label, &name) + 12.0;
            drawing.text(
                (after, top + 14.0),
                &bar.note,
                regular(TEXT, MUTED),
                Anchor::Start,
            );
        }
        let (y, thick) = (top + 21.0, 14.0);
        drawing.rect(
            (axis.left, y),
            (axis.right - axis.left, thick),
            super::PANEL,
        );
        let color = if bar.label.starts_with("new") {
            NEW
        } else {
            OLD
        };
        drawing.rect(
            (axis.left, y),
            (axis.x(bar.value) - axis.left, thick),
            color,
        );
        if let Some((lower, upper)) = bar.ends {
            let (from, to) = (axis.x(lower), axis.x(upper));
            drawing.rect((from, y + thick / 2.0 - 1.0), (to - from, 2.0), INK);
            for x in [from, to] {
                drawing.rect((x - 1.0, y + 2.0), (2.0, thick - 4.0), INK);
            }
        }
        let tip = format!(
            "{} ({}): {} {}",
            bar.label, bar.note, bar.value_text, bar.interval_text
        );
        drawing.tip((0.0, top), (f64::from(width), row_height), tip);
    }
    axis.draw_ticks(
        &mut drawing,
        14.0 + row_height * bars.len() as f64,
        5.0,
        SMALL,
    );
    Some(drawing)
}

/// The worst changes of sub-clusters; `None` without any.
pub fn subclusters(view: &View, width: u32) -> Option<Drawing> {
    let bars = &view.subcluster_bars;
    if bars.is_empty() {
        return None;
    }
    let row_height = 24.0;
    let bottom = 8.0 + row_height * bars.len() as f64;
    let title = format!(
        "change of {}, new->old minus old->old, worst sub-clusters",
        view.primary
    );
    let mut drawing = Drawing::new(width, (bottom + 28.0) as u32, described(&title, bars));
    let (name_width, value_width) = if width >= 500 {
        (210.0, 74.0)
    } else {
        (104.0, 62.0)
    };
    let extreme = bars
        .iter()
        .map(|bar| bar.value.abs())
        .fold(0.0, f64::max)
        .max(0.05);
    let highest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let lowest = bars.iter().map(|bar| bar.value).fold(0.0, f64::min);
    let axis = Axis {
        low: if lowest < 0.0 {
            lowest
        } else {
            -0.05 * extreme
        },
        high: if highest > 0.0 {
            highest
        } else {
            0.05 * extreme
        },
        left: name_width + 8.0,
        right: f64::from(width) - value_width - 12.0,
    };
    let zero = axis.x(0.0);
    for (index, bar) in bars.iter().enumerate() {
        let top = 6.0 + row_height * index as f64;
        let baseline = top + 16.0;
        let note = regular(SMALL, MUTED);
        let note_width = 1.1 * text_width(&bar.note, &note) + 8.0;
        let look = regular(TEXT, INK);
        let name = fitted(&bar.label, &look, (name_width - note_width - 10.0) / 1.08);
        drawing.text((10.0, baseline), name, look, Anchor::Start);
        drawing.text((name_width, baseline), &bar.note, note, Anchor::End);
        let x = axis.x(bar.value);
        let color = if bar.value < 0.0 { BAD } else { NEW };
        drawing.rect(
            (x.min(zero), top + 4.0),
            ((x - zero).abs().max(1.0), 15.0),
            color,
        );
        drawing.text(
            (f64::from(width) - 10.0, baseline),
            &bar.value_text,
            look,
            Anchor::End,
        );
        let tip = format!("{}, {}: {}", bar.label, bar.note, bar.value_text);
        drawing.tip((0.0, top), (f64::from(width), row_height), tip);
    }
    drawing.line(&[(zero, 4.0), (zero, bottom)], 1.0, INK);
    axis.draw_ticks(
        &mut drawing,
        bottom,
        if width < 500 { 3.0 } else { 8.0 },
        SMALL,
    );
    Some(drawing)
}

/// Histogram of the combined credibility; `None` without a scored item.
pub fn credibility(view: &View, width: u32) -> Option<Drawing> {
    let section = &view.credibility;
    let most = section
        .histogram
        .iter()
        .copied()
        .max()
        .filter(|&most| most > 0)?;
    let description = format!(
        "credibility of old gallery embeddings, items in ten bins from 0 to 1: {}; {}",
        section
            .histogram
            .iter()
            .map(|&n| format::count(n))
            .collect::<Vec<_>>()
            .join(", "),
        section.cutoff_text
    );
    let mut drawing = Drawing::new(width, 206, description);
    let axis = Axis {
        low: 0.0,
        high: 1.0,
        left: 12.0,
        right: f64::from(width) - 12.0,
    };
    let (top, bottom) = (40.0, 168.0);
    let bins = section.histogram.len() as f64;
    let cut = axis.x(section.cutoff);
    let mut line_starts = 20.0;
    for (index, &n) in section.histogram.iter().enumerate() {
        let from = axis.x(index as f64 / bins);
        let to = axis.x((index + 1) as f64 / bins);
        let height = (bottom - top) * n as f64 / most as f64;
        if n > 0 {
            let height = height.max(1.0);
            drawing.rect(
                (from + 1.0, bottom - height),
                (to - from - 2.0, height),
                OLD,
            );
        }
        let (middle, baseline) = ((from + to) / 2.0, bottom - height - 5.0);
        let look = regular(SMALL, MUTED);
        drawing.text((middle, baseline), format::count(n), look, Anchor::Middle);
        if from <= cut && cut < to {
            // The cut-off's line leaves out the count that it would cross.
            drawing.dashed(cut, (line_starts, baseline - SMALL), BAD);
            line_starts = baseline + 3.0;
        }
        let edge = |bin: usize| format::plain(bin as f64 / bins);
        let tip = format!(
            "{} items from {} to {}",
            format::count(n),
            edge(index),
            edge(index + 1)
        );
        drawing.tip((from, top - 16.0), (to - from, bottom - top + 16.0), tip);
    }
    drawing.dashed(cut, (line_starts, bottom), BAD);
    let look = bold(SMALL, BAD);
    let room = axis.right - cut > 1.1 * text_width(&section.cutoff_text, &look) + 8.0;
    let (x, anchor) = if room {
        (cut + 6.0, Anchor::Start)
    } else {
        (cut - 6.0, Anchor::End)
    };
    drawing.text((x, 16.0), &section.cutoff_text, look, anchor);
    axis.draw_ticks(&mut drawing, bottom, 5.0, SMALL);
    drawing.text(
        (axis.right, 202.0),
        "credibility of gallery items (count above each bar)",
        regular(SMALL, MUTED),
        Anchor::End,
    );
    Some(drawing)
}

pub fn described(title: &str, bars: &[Bar]) -> String {
    let each: Vec<_> = bars
        .iter()
        .map(|bar| {
            format!("{} {} {}", bar.label, bar.value_text, bar.interval_text)
                .trim_end()
                .to_owned()
        })
        .collect();
    format!("{title}: {}", each.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(low: f64, high: f64) -> Axis {
        Axis {
            low,
            high,
            left: 10.0,
            right: 110.0,
        }
    }

    #[test]
    fn values_map_linearly_and_stay_on_the_axis() {
        let axis = axis(-1.0, 1.0);
        assert_eq!(
            [-1.0, 0.0, 1.0, 9.0].map(|value| axis.x(value)),
            [10.0, 60.0, 110.0, 110.0]
        );
    }

    #[test]
    fn the_longest_check_at_its_highest_value_is_drawn_on_a_telephone() {
        use crate::report::{sample, thumbnails::Thumbnails};
        let mut view = View::new(&sample::skip(), &mut Thumbnails::new(0));
        let line = view.decision.as_mut().unwrap();
        line.symbol = "cross-test-change";
        line.value_text = "100.00 %".into();
        line.interval_text = "[99.00 %, 100.00 %]".into();
        (line.value, line.lower, line.upper) = (100.0, 99.0, 100.0);
        let svg = decision(&view, 340, TEXT).unwrap().svg().unwrap();
        assert!(svg.contains("100.00 % [99.00 %, 100.00 %]"));
        line_of_large_scores(&mut view);
    }

    fn line_of_large_scores(view: &mut View) {
        let scores = view.scores.as_mut().unwrap();
        for panel in &mut scores.panels {
            (panel.lowest, panel.width) = (-1e10, 1e9);
        }
        scores.threshold = Some((
            1e9,
            "old->old threshold 1000000000.0000 (set for FAR 1.00 %)".repeat(2),
        ));
        assert!(super::super::scores(view, 340).unwrap().svg().is_ok());
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(axis(0.0, 1.0).ticks(5.0).len(), 6);
        let ticks: Vec<_> = axis(-0.0149, 0.0357)
            .ticks(10.0)
            .into_iter()
            .map(format::plain)
            .collect();
        assert_eq!(ticks, ["-0.01", "0", "0.01", "0.02", "0.03"]);
    }
}
