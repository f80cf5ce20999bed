//! report.png: the report on one card, for a chat or a pull request.

use super::drawing::{Anchor, Drawing, fitted, wrapped};
use super::{INK, MUTED, PANEL, RULE, badge, bold, charts, regular, tone_color};
use crate::report::view::View;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 630;
const MARGIN: f64 = 52.0;

/// The verdict, why, D against its margin, the pairings, the models and counts: 1200 x 630.
pub fn card(view: &View) -> Drawing {
    let headline = &view.headline;
    let mut card = Drawing::new(
        WIDTH,
        HEIGHT,
        format!("{}. {}", headline.words, headline.reason),
    );
    let (left, right) = (MARGIN, f64::from(WIDTH) - MARGIN);
    let color = tone_color(headline.tone);
    card.rect((0.0, 0.0), (f64::from(WIDTH), 8.0), color);

    let small = regular(16.0, MUTED);
    card.text(
        (left, 44.0),
        "compat-audit: may new queries search the old gallery?",
        small,
        Anchor::Start,
    );
    let models = fitted(
        &format!("{} -> {}", view.old, view.new),
        &bold(16.0, INK),
        560.0,
    );
    card.text((right, 44.0), models, bold(16.0, INK), Anchor::End);

    card.place(badge(headline.tone, 92), (left, 68.0));
    let beside = left + 92.0 + 26.0;
    card.text(
        (beside, 118.0),
        headline.words,
        bold(52.0, color),
        Anchor::Start,
    );
    card.text(
        (beside, 152.0),
        headline.meaning,
        regular(21.0, INK),
        Anchor::Start,
    );

    let mut y = 198.0;
    if !view.not_tested.is_empty() {
        let look = bold(17.0, INK);
        let text = format!("NOT TESTED: {}", view.not_tested.join(" "));
        for line in wrapped(&text, &look, right - left, 2) {
            card.text((left, y), line, look, Anchor::Start);
            y += 24.0;
        }
    }
    let look = regular(18.0, INK);
    for line in wrapped(&headline.reason, &look, right - left, 2) {
        card.text((left, y), line, look, Anchor::Start);
        y += 25.0;
    }

    let top = 296.0;
    card.line(&[(left, top - 18.0), (right, top - 18.0)], 1.0, RULE);
    // Charts are drawn for a page; their own margin of 10 to 14 pixels is taken back.
    match charts::decision(view, (right - left) as u32 + 24) {
        Some(drawing) => {
            card.text(
                (left, top + 4.0),
                "D = mAP(new->old) - mAP(old->old)",
                regular(14.0, MUTED),
                Anchor::Start,
            );
            card.place(drawing, (left - 12.0, top + 2.0));
        }
        None => card.text(
            (left, top + 60.0),
            "D = mAP(new->old) - mAP(old->old) was not tested.",
            regular(18.0, MUTED),
            Anchor::Start,
        ),
    }

    let top = 436.0;
    if let Some(drawing) = pairings_rows(view, 700) {
        card.place(drawing, (left, top));
    }
    let column = 812.0;
    card.rect((column, top), (right - column, 148.0), PANEL);
    for (index, fact) in view.counts.iter().enumerate() {
        let baseline = top + 34.0 + 32.0 * index as f64;
        card.text(
            (column + 20.0, baseline),
            &fact.label,
            regular(17.0, MUTED),
            Anchor::Start,
        );
        card.text(
            (right - 20.0, baseline),
            &fact.value,
            bold(17.0, INK),
            Anchor::End,
        );
    }
    if let Some(decision) = &view.decision {
        card.text(
            (left, 610.0),
            &decision.interval_note,
            regular(13.0, MUTED),
            Anchor::Start,
        );
    }
    card.text(
        (right, 610.0),
        &headline.rule,
        regular(13.0, MUTED),
        Anchor::End,
    );
    card
}

/// The pairings in one line each, tighter than the chart of the page.
fn pairings_rows(view: &View, width: u32) -> Option<Drawing> {
    let bars = &view.pairing_bars;
    if bars.is_empty() {
        return None;
    }
    let mut drawing = Drawing::new(width, 160, "mAP by pairing");
    let (from, to) = (226.0, f64::from(width) - 208.0);
    for (index, bar) in bars.iter().enumerate() {
        let top = 38.0 * index as f64;
        let baseline = top + 20.0;
        drawing.text((0.0, baseline), &bar.label, bold(15.0, INK), Anchor::Start);
        let note = fitted(&bar.note, &regular(13.0, MUTED), 136.0);
        drawing.text((82.0, baseline), note, regular(13.0, MUTED), Anchor::Start);
        drawing.rect((from, top + 5.0), (to - from, 20.0), PANEL);
        let x = |value: f64| from + value.clamp(0.0, 1.0) * (to - from);
        let color = if bar.label.starts_with("new") {
            super::NEW
        } else {
            super::OLD
        };
        drawing.rect((from, top + 5.0), (x(bar.value) - from, 20.0), color);
        if let Some((lower, upper)) = bar.ends {
            drawing.rect((x(lower), top + 14.0), (x(upper) - x(lower), 2.0), INK);
            for end in [lower, upper] {
                drawing.rect((x(end) - 1.0, top + 9.0), (2.0, 12.0), INK);
            }
        }
        drawing.text(
            (to + 12.0, baseline),
            &bar.value_text,
            bold(15.0, INK),
            Anchor::Start,
        );
        drawing.text(
            (f64::from(width), baseline),
            &bar.interval_text,
            regular(14.0, MUTED),
            Anchor::End,
        );
    }
    Some(drawing)
}
