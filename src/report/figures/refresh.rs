//! The refresh curve.

use super::charts::{Axis, SMALL, TEXT};
use super::drawing::{Anchor, Drawing};
use super::lettering::text_width;
use super::{BAD, INK, MUTED, NEW, NEW_PALE, OLD, bold, regular};
use crate::report::view::{View, format};

/// M(new->mixed(beta)) - M(old->old) over beta: the plan's order with its interval, the mean of random orders, the
/// floor and beta*. `None` when it was not tested.
pub fn refresh(view: &View, width: u32) -> Option<Drawing> {
    let curve = view.refresh.as_ref()?;
    let all = || {
        curve
            .ends
            .iter()
            .flat_map(|&(lower, upper)| [lower, upper])
            .chain(curve.values.iter().copied())
            .chain(curve.random.iter().copied())
            .chain([curve.limit, 0.0])
            .filter(|value| value.is_finite())
    };
    let lowest = all().fold(f64::INFINITY, f64::min);
    let highest = all().fold(f64::NEG_INFINITY, f64::max);
    let pad = (0.06 * (highest - lowest)).max(0.002);
    let (low, high) = (lowest - pad, highest + pad);
    let x = Axis {
        low: 0.0,
        high: 1.0,
        left: 62.0,
        right: f64::from(width) - 16.0,
    };
    let (top, bottom) = (34.0, 250.0);
    let y = |value: f64| bottom - (value.clamp(low, high) - low) / (high - low) * (bottom - top);

    let points: Vec<String> = curve
        .betas
        .iter()
        .zip(&curve.values)
        .map(|(&beta, &value)| format!("{} {}", format::percent(beta), format::change(value)))
        .collect();
    let mut drawing = Drawing::new(
        width,
        296,
        format!(
            "{}: {}; {}",
            curve.name,
            points.join(", "),
            curve.limit_text
        ),
    );
    // The interval's band: upper ends there, lower ends back.
    let place = |index: usize, value: f64| (x.x(curve.betas[index]), y(value));
    let n = curve.betas.len();
    let band = (0..n)
        .map(|i| place(i, curve.ends[i].1))
        .chain((0..n).rev().map(|i| place(i, curve.ends[i].0)));
    drawing.polygon(band.collect(), NEW_PALE);
    let vertical = Axis {
        low,
        high,
        left: bottom,
        right: top,
    };
    for tick in vertical.ticks(6.0) {
        let at = y(tick);
        drawing.line(&[(x.left - 5.0, at), (x.left, at)], 1.0, MUTED);
        drawing.text(
            (x.left - 8.0, at + 4.0),
            format::plain(tick),
            regular(SMALL, MUTED),
            Anchor::End,
        );
    }
    drawing.line(&[(x.left, top), (x.left, bottom)], 1.0, MUTED);
    drawing.line(&[(x.left, y(0.0)), (x.right, y(0.0))], 1.0, MUTED);
    let line = |values: &[f64]| -> Vec<(f64, f64)> {
        values
            .iter()
            .enumerate()
            .map(|(i, &value)| place(i, value))
            .collect()
    };
    drawing.line(&line(&curve.random), 2.0, OLD);
    drawing.line(&line(&curve.values), 2.5, NEW);
    let floor = y(curve.limit);
    drawing.line(&[(x.left, floor), (x.right, floor)], 1.5, BAD);
    drawing.text(
        (x.left + 6.0, floor + SMALL + 3.0),
        &curve.limit_text,
        bold(SMALL, BAD),
        Anchor::Start,
    );
    if let Some((beta, text)) = &curve.beta_star {
        let at = x.x(*beta);
        drawing.dashed(at, (top, bottom), INK);
        let look = bold(SMALL, INK);
        let room = x.right - at > 1.1 * text_width(text, &look) + 8.0;
        let (shift, anchor) = if room {
            (6.0, Anchor::Start)
        } else {
            (-6.0, Anchor::End)
        };
        drawing.text((at + shift, top + 10.0), text, look, anchor);
    }
    let half = (x.right - x.left) / (2.0 * n.max(2) as f64);
    for (i, &value) in curve.values.iter().enumerate() {
        let (at, _) = place(i, value);
        let (lower, upper) = curve.ends[i];
        let tip = format!(
            "{} re-embedded: {} [{}, {}]; random orders {}",
            format::percent(curve.betas[i]),
            format::change(value),
            format::change(lower),
            format::change(upper),
            curve
                .random
                .get(i)
                .map_or_else(String::new, |&value| format::change(value)),
        );
        drawing.tip((at - half, top), (2.0 * half, bottom - top), tip);
    }
    // The legend, over the plot.
    drawing.line(&[(x.left, 14.0), (x.left + 22.0, 14.0)], 2.5, NEW);
    let planned = "plan's order, with interval";
    let look = regular(TEXT, INK);
    drawing.text((x.left + 28.0, 18.0), planned, look, Anchor::Start);
    let after = x.left + 28.0 + 1.1 * text_width(planned, &look) + 14.0;
    if after + 150.0 < f64::from(width) {
        drawing.line(&[(after, 14.0), (after + 22.0, 14.0)], 2.0, OLD);
        drawing.text(
            (after + 28.0, 18.0),
            "random orders, mean",
            look,
            Anchor::Start,
        );
    }
    x.draw_ticks(&mut drawing, bottom, 5.0, SMALL);
    drawing.text(
        (x.right, 292.0),
        "share of the gallery re-embedded",
        regular(SMALL, MUTED),
        Anchor::End,
    );
    Some(drawing)
}
