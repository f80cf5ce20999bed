//! Distributions of scores by pairing.

use super::charts::{Axis, SMALL, TEXT};
use super::drawing::{Anchor, Drawing};
use super::lettering::{centred, text_width};
use super::{BAD, INK, MUTED, NEW, OLD, bold, regular};
use crate::report::view::{ScorePanel, View, format};

/// Height of a panel with its name.
const PANEL: f64 = 104.0;

/// Matches and non-matches of each pairing over the score, each scaled to its own highest bin, with the threshold that old->old
/// would be run at; `None` without verification.
pub fn scores(view: &View, width: u32) -> Option<Drawing> {
    let scores = view.scores.as_ref()?;
    let end = |panel: &ScorePanel| panel.lowest + panel.width * panel.matches.len() as f64;
    let threshold = scores.threshold.as_ref().map(|(value, _)| *value);
    let lowest = scores.panels.iter().map(|panel| panel.lowest);
    let highest = scores.panels.iter().map(end);
    let axis = Axis {
        low: lowest.chain(threshold).fold(f64::INFINITY, f64::min),
        high: highest.chain(threshold).fold(f64::NEG_INFINITY, f64::max),
        left: 12.0,
        right: f64::from(width) - 12.0,
    };
    let top = 44.0;
    let bottom = top + PANEL * scores.panels.len() as f64;
    let said: Vec<String> = scores
        .panels
        .iter()
        .map(|panel| format!("{} {}", panel.pairing, panel.rates_text))
        .collect();
    let mut drawing = Drawing::new(
        width,
        (bottom + 30.0) as u32,
        format!(
            "scores of matches and non-matches by pairing: {}",
            said.join("; ")
        ),
    );
    let look = regular(TEXT, INK);
    let mut x = axis.left;
    for (color, name) in [(NEW, "matching pairs"), (OLD, "non-matching pairs")] {
        drawing.rect((x, 4.0), (12.0, 12.0), color);
        drawing.text((x + 18.0, 15.0), name, look, Anchor::Start);
        x += 18.0 + 1.1 * text_width(name, &look) + 18.0;
    }
    for (index, panel) in scores.panels.iter().enumerate() {
        let base = top + PANEL * (index + 1) as f64 - 8.0;
        draw_panel(&mut drawing, &axis, panel, base, width);
    }
    if let Some((value, text)) = &scores.threshold {
        let x = axis.x(*value);
        for index in 0..scores.panels.len() {
            let base = top + PANEL * (index + 1) as f64 - 8.0;
            drawing.dashed(x, (base - PANEL + 34.0, base), BAD);
        }
        let look = bold(SMALL, BAD);
        let half = 0.55 * text_width(text, &look);
        let center = centred(x, half, axis.left, axis.right);
        drawing.text((center, top - 12.0), text, look, Anchor::Middle);
    }
    axis.draw_ticks(
        &mut drawing,
        bottom,
        if width < 500 { 4.0 } else { 8.0 },
        SMALL,
    );
    Some(drawing)
}

fn draw_panel(drawing: &mut Drawing, axis: &Axis, panel: &ScorePanel, base: f64, width: u32) {
    let name = bold(TEXT, INK);
    let line = base - PANEL + 26.0;
    drawing.text((axis.left, line), &panel.pairing, name, Anchor::Start);
    let beside = axis.left + 1.1 * text_width(&panel.pairing, &name) + 12.0;
    drawing.text(
        (beside, line),
        &panel.rates_text,
        regular(SMALL, MUTED),
        Anchor::Start,
    );
    let room = PANEL - 38.0;
    let edge = |bin: usize| panel.lowest + panel.width * bin as f64;
    for (shares, color, is_filled) in [
        (&panel.non_matches, OLD, true),
        (&panel.matches, NEW, false),
    ] {
        let most = shares.iter().copied().fold(0.0, f64::max);
        if most == 0.0 {
            continue;
        }
        let mut outline = vec![(axis.x(edge(0)), base)];
        for (bin, share) in shares.iter().enumerate() {
            let y = base - room * share / most;
            outline.extend([(axis.x(edge(bin)), y), (axis.x(edge(bin + 1)), y)]);
        }
        outline.push((axis.x(edge(shares.len())), base));
        if is_filled {
            drawing.polygon(outline, color);
        } else {
            drawing.line(&outline, 2.0, color);
        }
    }
    for bin in 0..panel.matches.len() {
        let (from, to) = (axis.x(edge(bin)), axis.x(edge(bin + 1)));
        let tip = format!(
            "{}, score {} to {}: {} of the matches, {} of the non-matches",
            panel.pairing,
            format::on_axis(edge(bin), panel.width),
            format::on_axis(edge(bin + 1), panel.width),
            format::percent(panel.matches[bin]),
            format::percent(panel.non_matches[bin]),
        );
        if width >= 500 {
            drawing.tip((from, base - room), (to - from, room), tip);
        }
    }
}
