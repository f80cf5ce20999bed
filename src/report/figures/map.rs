//! The old space on two axes.

use super::charts::SMALL;
use super::drawing::{Anchor, Drawing};
use super::lettering::{fitted, text_width};
use super::{BAD, INK, MUTED, OLD, RULE, SERIES, bold, regular};
use crate::report::view::{MapDot, View};

/// Height of the plot over its width.
const SHAPE: f64 = 0.62;

/// Old embeddings as dots, their new ones at the end of a line; queries are squares, what moved to another identity has a cross.
/// `None` without a map.
pub fn map(view: &View, width: u32) -> Option<Drawing> {
    let map = view.map.as_ref()?;
    let ends = |dot: &MapDot| [Some(dot.at), dot.to].into_iter().flatten();
    let places = || map.dots.iter().flat_map(ends);
    let range = |of: fn((f64, f64)) -> f64| {
        let (low, high) = places()
            .map(of)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        ((low + high) / 2.0, (high - low).max(1e-9))
    };
    let (center_x, wide) = range(|(x, _)| x);
    let (center_y, high) = range(|(_, y)| y);
    let margin = 12.0;
    let plot = (f64::from(width) - 2.0 * margin, SHAPE * f64::from(width));
    let legend = legend_rows(&map.groups, width);
    let top = 16.0 + 18.0 * legend.len() as f64;
    // One scale for both axes: distances may be compared.
    let scale = (plot.0 / wide).min(plot.1 / high) * 0.98;
    let at = |(x, y): (f64, f64)| {
        (
            margin + plot.0 / 2.0 + (x - center_x) * scale,
            top + plot.1 / 2.0 - (y - center_y) * scale,
        )
    };
    let mut drawing = Drawing::new(
        width,
        (top + plot.1 + 12.0) as u32,
        format!("map of the old space. {}", map.note),
    );
    for (row, names) in legend.iter().enumerate() {
        let mut x = margin;
        for (color, name) in names {
            let y = 12.0 + 18.0 * row as f64;
            drawing.circle((x + 4.0, y - 4.0), 4.0, *color);
            let look = regular(SMALL, INK);
            drawing.text((x + 13.0, y), name, look, Anchor::Start);
            x += legend_width(name);
        }
    }
    let color = |dot: &MapDot| dot.group.map_or(OLD, |group| SERIES[group % SERIES.len()]);
    // What must be seen comes last: lines, then the grey, then the coloured, then the crosses.
    for dot in &map.dots {
        if let Some(to) = dot.to {
            let line = if dot.moved {
                BAD
            } else if dot.group.is_some() {
                color(dot)
            } else {
                RULE
            };
            drawing.line(&[at(dot.at), at(to)], 1.0, line);
        }
    }
    let mut dots: Vec<&MapDot> = map.dots.iter().collect();
    dots.sort_by_key(|dot| (dot.moved, dot.group.is_some()));
    for dot in dots {
        let (x, y) = at(dot.at);
        let radius = if dot.group.is_some() { 4.5 } else { 2.0 };
        if dot.query {
            drawing.rect(
                (x - radius, y - radius),
                (2.0 * radius, 2.0 * radius),
                color(dot),
            );
        } else {
            drawing.circle((x, y), radius, color(dot));
        }
        if let (true, Some(to)) = (dot.moved, dot.to) {
            let (x, y) = at(to);
            for side in [-1.0, 1.0] {
                let stroke = [(x - 3.5, y - 3.5 * side), (x + 3.5, y + 3.5 * side)];
                drawing.line(&stroke, 2.0, BAD);
            }
        }
        // Nobody points at a dot of a telephone, and so many tips weigh.
        if width >= 500 {
            drawing.item_tip((x, y), 5.0, &dot.tip, &dot.id);
        }
    }
    let bottom = f64::from(top as u32) + plot.1 + 8.0;
    let key = if width >= 500 {
        "dot: gallery item, square: query, at its old place; line: to its new place; red cross: moved away"
    } else {
        "dot: gallery, square: query, cross: moved"
    };
    let key = fitted(key, &regular(SMALL, MUTED), f64::from(width) - 2.0 * margin);
    drawing.text((margin, bottom), key, regular(SMALL, MUTED), Anchor::Start);
    Some(drawing)
}

fn legend_width(name: &str) -> f64 {
    13.0 + 1.1 * text_width(name, &bold(SMALL, INK)) + 14.0
}

/// The groups' names in rows that fit.
fn legend_rows(groups: &[String], width: u32) -> Vec<Vec<(super::Color, String)>> {
    let room = f64::from(width) - 24.0;
    let look = regular(SMALL, INK);
    let mut rows: Vec<Vec<(super::Color, String)>> = Vec::new();
    let mut used = room;
    let named = groups.iter().enumerate();
    let named = named.map(|(i, name)| (SERIES[i % SERIES.len()], fitted(name, &look, 150.0)));
    for (color, name) in named.chain([(OLD, "all others".to_owned())]) {
        let needed = legend_width(&name);
        if used + needed > room {
            rows.push(Vec::new());
            used = 0.0;
        }
        used += needed;
        rows.last_mut().expect("pushed above").push((color, name));
    }
    rows
}
