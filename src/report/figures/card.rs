//! report.png: the report on one card, for a chat or a pull request.

use super::drawing::{Anchor, Drawing};
use super::lettering::{fitted, text_width, wrapped};
use super::{
    INK, MUTED, NEW, OLD, PANEL, RULE, UNSURE_PALE, badge, bold, charts, regular, tone_color,
};
use crate::report::view::View;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 630;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 1148.0;

/// Slices named, of those that lose most.
const WORST_SLICES: usize = 2;

/// What is to be read first, the verdict, why, the number that decided against its limit, the pairings, the counts, the worst slices: 1200 x 630.
pub fn card(view: &View) -> Drawing {
    let headline = &view.headline;
    let description = format!("{}. {}", headline.words, headline.reason);
    let mut card = Drawing::new(WIDTH, HEIGHT, description);
    let color = tone_color(headline.tone);
    card.rect((0.0, 0.0), (f64::from(WIDTH), 8.0), color);

    card.text(
        (LEFT, 42.0),
        view.question,
        regular(16.0, MUTED),
        Anchor::Start,
    );
    let look = bold(16.0, INK);
    let models = fitted(&format!("{} -> {}", view.old, view.new), &look, 600.0);
    card.text((RIGHT, 42.0), models, look, Anchor::End);

    let mut top = 62.0;
    let notice = notice(view);
    if let Some(text) = &notice {
        card.rect((LEFT, top), (RIGHT - LEFT, 34.0), UNSURE_PALE);
        let look = bold(16.0, INK);
        let text = fitted(text, &look, RIGHT - LEFT - 28.0);
        card.text((LEFT + 14.0, top + 23.0), text, look, Anchor::Start);
        top += 42.0;
    }
    let side = 84.0;
    card.place(badge(headline.tone, side as u32), (LEFT, top + 6.0));
    let beside = LEFT + side + 24.0;
    let look = bold(48.0, color);
    card.text((beside, top + 50.0), headline.words, look, Anchor::Start);
    let look = regular(21.0, INK);
    card.text((beside, top + 84.0), headline.meaning, look, Anchor::Start);
    let look = regular(19.0, INK);
    let mut baseline = top + 126.0;
    for line in wrapped(&headline.reason, &look, RIGHT - LEFT, 2) {
        card.text((LEFT, baseline), line, look, Anchor::Start);
        baseline += 27.0;
    }

    if let Some(decision) = view.decision.as_ref().filter(|_| notice.is_none()) {
        let look = regular(15.0, MUTED);
        let text = fitted(&decision.beside, &look, RIGHT - LEFT);
        card.text((LEFT, 258.0), text, look, Anchor::Start);
    }
    let top = 272.0;
    card.line(&[(LEFT, top), (RIGHT, top)], 1.0, RULE);
    // The chart's own margin is taken back, so that its axis ends where the card's text does.
    match charts::decision(view, (RIGHT - LEFT) as u32 + 28, 16.0) {
        Some(chart) => card.place(chart, (LEFT - 14.0, top + 10.0)),
        None => {
            let primary = &view.primary;
            let text = format!("D = {primary}(new->old) - {primary}(old->old) was not tested.");
            card.text(
                (LEFT, top + 80.0),
                text,
                regular(19.0, MUTED),
                Anchor::Start,
            );
        }
    }

    let top = 438.0;
    card.place(pairing_rows(view, 700), (LEFT, top));
    let column = 812.0;
    card.rect((column, top), (RIGHT - column, 146.0), PANEL);
    let worst = view
        .forest
        .iter()
        .flat_map(|forest| &forest.rows)
        .take(WORST_SLICES);
    let worst = worst.map(|row| {
        let name = format!("{} slice {}", row.mark, row.bar.label);
        (name.trim_start().to_owned(), row.bar.value_text.as_str())
    });
    let counts = view.counts.iter();
    let counts = counts.map(|fact| (fact.label.clone(), fact.value.as_str()));
    for (index, (name, number)) in counts.chain(worst).enumerate() {
        let baseline = top + 24.0 + 23.0 * index as f64;
        let (label, value) = (regular(15.0, MUTED), bold(15.0, INK));
        let room = RIGHT - column - 52.0 - 1.1 * text_width(number, &value);
        let name = fitted(&name, &label, room);
        card.text((column + 20.0, baseline), name, label, Anchor::Start);
        card.text((RIGHT - 20.0, baseline), number, value, Anchor::End);
    }
    let look = regular(13.0, MUTED);
    if let Some(decision) = &view.decision {
        let text = format!("{}; {}", decision.name, decision.interval_note);
        card.text((LEFT, 611.0), text, look, Anchor::Start);
    }
    card.text((RIGHT, 611.0), &headline.rule, look, Anchor::End);
    card
}

/// What is to be known before the verdict is believed, in one line: what is to be read first, and what was not tested.
fn notice(view: &View) -> Option<String> {
    let untested = view.not_tested.join(" ");
    let untested = match view.not_tested.len() {
        0 => None,
        1 => Some(format!("NOT TESTED: {untested}")),
        n => Some(format!("NOT TESTED ({n}): {untested}")),
    };
    if view.cautions.is_empty() {
        return untested;
    }
    let all: Vec<String> = view.cautions.iter().cloned().chain(untested).collect();
    Some(match all.len() {
        1 => format!("READ FIRST: {}", all[0]),
        n => format!("READ FIRST ({n}): {}", all.join("; ")),
    })
}

/// mAP of the pairings, one line each: tighter than the chart of the page.
fn pairing_rows(view: &View, width: u32) -> Drawing {
    let mut drawing = Drawing::new(width, 150, format!("{} by pairing", view.primary));
    let (from, to) = (252.0, f64::from(width) - 208.0);
    for (index, bar) in view.pairing_bars.iter().enumerate() {
        let top = 38.0 * index as f64;
        let baseline = top + 21.0;
        drawing.text((0.0, baseline), &bar.label, bold(15.0, INK), Anchor::Start);
        let look = regular(13.0, MUTED);
        let note = fitted(&bar.note, &look, from - 104.0);
        drawing.text((94.0, baseline), note, look, Anchor::Start);
        drawing.rect((from, top + 5.0), (to - from, 22.0), PANEL);
        let x = |value: f64| from + value.clamp(0.0, 1.0) * (to - from);
        let color = if bar.label.starts_with("new") {
            NEW
        } else {
            OLD
        };
        drawing.rect((from, top + 5.0), (x(bar.value) - from, 22.0), color);
        if let Some((lower, upper)) = bar.ends {
            let (lower, upper) = (x(lower), x(upper));
            drawing.rect((lower, top + 15.0), (upper - lower, 2.0), INK);
            for end in [lower, upper] {
                drawing.rect((end - 1.0, top + 10.0), (2.0, 12.0), INK);
            }
        }
        let value = bold(15.0, INK);
        drawing.text((to + 14.0, baseline), &bar.value_text, value, Anchor::Start);
        let (x, look) = (f64::from(width), regular(14.0, MUTED));
        drawing.text((x, baseline), &bar.interval_text, look, Anchor::End);
    }
    drawing
}
