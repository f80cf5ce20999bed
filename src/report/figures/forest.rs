//! The forest plot of the slices.

use super::charts::{Axis, SMALL, TEXT, described};
use super::drawing::{Anchor, Drawing};
use super::lettering::{fitted, text_width};
use super::{BAD, BAD_PALE, INK, MUTED, OLD, bold, regular, tone_color};
use crate::report::view::{Bar, Tone, View};

/// The change of each slice with its own interval, worst first, against the slice margin; `None` without a tested slice.
pub fn slices(view: &View, width: u32) -> Option<Drawing> {
    let forest = view.forest.as_ref()?;
    let wide = width >= 500;
    let (row_height, top) = (if wide { 24.0 } else { 40.0 }, 24.0);
    let bottom = top + row_height * forest.rows.len() as f64;
    let bars: Vec<Bar> = forest.rows.iter().map(|row| row.bar.clone()).collect();
    let title = format!(
        "change of {}, new->old minus old->old, by slice",
        view.primary
    );
    let mut drawing = Drawing::new(width, (bottom + 30.0) as u32, described(&title, &bars));
    let (name_width, value_width) = if wide { (220.0, 168.0) } else { (0.0, 0.0) };
    let known = forest.rows.iter().flat_map(|row| {
        let (lower, upper) = row.bar.ends.unwrap_or((row.bar.value, row.bar.value));
        [row.bar.value, lower, upper]
    });
    let known = known
        .chain([forest.limit, 0.0])
        .filter(|value| value.is_finite());
    let (lowest, highest) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let pad = (0.04 * (highest - lowest)).max(0.002);
    let axis = Axis {
        low: lowest - pad,
        high: highest + pad,
        left: name_width + if wide { 28.0 } else { 10.0 },
        right: f64::from(width) - value_width - 12.0,
    };
    let (zero, limit) = (axis.x(0.0), axis.x(forest.limit));
    drawing.rect(
        (axis.left, top),
        (limit - axis.left, bottom - top),
        BAD_PALE,
    );
    drawing.line(&[(zero, top), (zero, bottom)], 1.0, MUTED);
    drawing.dashed(limit, (top - 4.0, bottom), BAD);
    let look = bold(SMALL, BAD);
    let room = axis.right - limit > 1.1 * text_width(&forest.limit_text, &look) + 8.0;
    let (shift, anchor) = if room {
        (6.0, Anchor::Start)
    } else {
        (-6.0, Anchor::End)
    };
    drawing.text((limit + shift, top - 8.0), &forest.limit_text, look, anchor);
    for (index, row) in forest.rows.iter().enumerate() {
        let bar = &row.bar;
        let from_top = top + row_height * index as f64;
        let baseline = from_top + 16.0;
        let y = if wide {
            from_top + 12.0
        } else {
            from_top + 29.0
        };
        let color = match row.tone {
            Tone::Plain => OLD,
            tone => tone_color(tone),
        };
        let look = regular(TEXT, INK);
        let note = regular(SMALL, MUTED);
        if wide {
            let note_width = 1.1 * text_width(&bar.note, &note) + 8.0;
            let name = fitted(&bar.label, &look, (name_width - note_width - 14.0) / 1.08);
            drawing.text((10.0, baseline), name, look, Anchor::Start);
            drawing.text((name_width, baseline), &bar.note, note, Anchor::End);
            let mark = bold(TEXT, color);
            drawing.text(
                (name_width + 14.0, baseline),
                row.mark,
                mark,
                Anchor::Middle,
            );
            let value = format!("{} {}", bar.value_text, bar.interval_text);
            let right = f64::from(width) - 6.0;
            drawing.text((right, baseline), value, regular(SMALL, INK), Anchor::End);
        } else {
            let value_width = 1.1 * text_width(&bar.value_text, &look) + 12.0;
            let name = fitted(
                &bar.label,
                &look,
                (f64::from(width) - 24.0 - value_width) / 1.08,
            );
            drawing.text((10.0, baseline), name, look, Anchor::Start);
            let right = f64::from(width) - 10.0;
            drawing.text((right, baseline), &bar.value_text, look, Anchor::End);
        }
        if let Some((lower, upper)) = bar.ends {
            // An open end reaches the edge and has no stop.
            let from = if lower.is_finite() {
                axis.x(lower)
            } else {
                axis.left
            };
            let to = if upper.is_finite() {
                axis.x(upper)
            } else {
                axis.right
            };
            drawing.rect((from, y - 1.0), ((to - from).max(1.0), 2.0), color);
            for (x, closed) in [(from, lower.is_finite()), (to, upper.is_finite())] {
                if closed {
                    drawing.rect((x - 1.0, y - 4.0), (2.0, 8.0), color);
                }
            }
        }
        drawing.circle((axis.x(bar.value), y), 4.5, color);
        let tip = format!(
            "{}, {}: {} {}, {}",
            bar.label, bar.note, bar.value_text, bar.interval_text, row.p_text
        );
        drawing.tip((0.0, from_top), (f64::from(width), row_height), tip);
    }
    axis.draw_ticks(&mut drawing, bottom, if wide { 8.0 } else { 4.0 }, SMALL);
    Some(drawing)
}
