//! The report's figures: one function each, one palette, sizes in page pixels.

mod card;
mod charts;
mod drawing;
mod forest;
mod lettering;
mod map;
mod refresh;
mod scores;

pub use card::card;
pub use charts::{credibility, decision, pairings, subclusters};
pub use drawing::Drawing;
pub use forest::slices;
pub use map::map;
pub use refresh::refresh;
pub use scores::scores;

use super::view::{Tone, View};
use lettering::Type;

/// A colour, as in the style sheet of the page, which turns each of them into its dark twin.
pub type Color = (u8, u8, u8);

/// Width of a figure on a page and in `figures/`.
pub const WIDE: u32 = 720;

/// Width of a figure on a telephone.
pub const NARROW: u32 = 340;

const INK: Color = (0x1b, 0x24, 0x30);
const MUTED: Color = (0x5b, 0x67, 0x76);
const RULE: Color = (0xd5, 0xdb, 0xe3);
const PANEL: Color = (0xf5, 0xf7, 0xf9);
const PAGE: Color = (0xff, 0xff, 0xff);
const OLD: Color = (0x8a, 0x97, 0xa8);
const NEW: Color = (0x2a, 0x6f, 0xb0);
const GOOD: Color = (0x1a, 0x7f, 0x4b);
const BAD: Color = (0xb4, 0x23, 0x18);
const UNSURE: Color = (0x9a, 0x67, 0x00);
const NEW_PALE: Color = (0xe3, 0xee, 0xf8);
const BAD_PALE: Color = (0xfb, 0xea, 0xe8);
const UNSURE_PALE: Color = (0xfd, 0xf3, 0xdc);

/// Five of Okabe and Ito (2008), told apart by most colour-blind readers, and a violet; on light and dark. The tips name the groups too.
const SERIES: [Color; super::ON_MAP] = [
    (0xe6, 0x9f, 0x00),
    (0x56, 0xb4, 0xe9),
    (0x00, 0x9e, 0x73),
    (0x00, 0x72, 0xb2),
    (0xcc, 0x79, 0xa7),
    (0x99, 0x66, 0xcc),
];

/// Every figure that the report has evidence for, by file stem, in the order of the page.
pub fn all(view: &View, width: u32) -> Vec<(&'static str, Drawing)> {
    [
        ("decision", decision(view, width, charts::TEXT)),
        ("pairings", pairings(view, width)),
        ("slices", slices(view, width)),
        ("refresh", refresh(view, width)),
        ("subclusters", subclusters(view, width)),
        ("map", map(view, width)),
        ("credibility", credibility(view, width)),
        ("scores", scores(view, width)),
    ]
    .into_iter()
    .filter_map(|(name, drawing)| Some((name, drawing?)))
    .collect()
}

fn tone_color(tone: Tone) -> Color {
    match tone {
        Tone::Good => GOOD,
        Tone::Bad => BAD,
        Tone::Unsure => UNSURE,
        Tone::Plain => MUTED,
    }
}

fn regular(size: f64, color: Color) -> Type {
    Type {
        size,
        bold: false,
        color,
    }
}

fn bold(size: f64, color: Color) -> Type {
    Type {
        size,
        bold: true,
        color,
    }
}

/// The verdict as a shape, `side` page pixels: a tick in a circle, a cross in an octagon, a question mark in a
/// diamond. Told apart without colour.
pub fn badge(tone: Tone, side: u32) -> Drawing {
    let mut drawing = Drawing::new(
        side,
        side,
        match tone {
            Tone::Good => "tick in a circle",
            Tone::Bad => "cross in an octagon",
            Tone::Unsure | Tone::Plain => "question mark in a diamond",
        },
    );
    let s = f64::from(side);
    let at = |x: f64, y: f64| (x * s, y * s);
    let color = tone_color(tone);
    match tone {
        Tone::Good => {
            drawing.circle(at(0.5, 0.5), 0.48 * s, color);
            // One polygon: a corner of two thick lines would be notched.
            let tick = [
                (0.24, 0.53),
                (0.32, 0.45),
                (0.44, 0.57),
                (0.68, 0.31),
                (0.76, 0.39),
                (0.44, 0.73),
            ];
            drawing.polygon(tick.map(|(x, y)| at(x, y)).to_vec(), PAGE);
        }
        Tone::Bad => {
            let octagon = (0..8).map(|corner| {
                let angle = std::f64::consts::FRAC_PI_8 * f64::from(2 * corner + 1);
                at(0.5 + 0.5 * angle.cos(), 0.5 + 0.5 * angle.sin())
            });
            drawing.polygon(octagon.collect(), color);
            let (a, b, w) = (0.30, 0.70, 0.055);
            drawing.polygon(
                vec![
                    at(a - w, a + w),
                    at(a + w, a - w),
                    at(b + w, b - w),
                    at(b - w, b + w),
                ],
                PAGE,
            );
            drawing.polygon(
                vec![
                    at(b - w, a - w),
                    at(b + w, a + w),
                    at(a + w, b + w),
                    at(a - w, b - w),
                ],
                PAGE,
            );
        }
        Tone::Unsure | Tone::Plain => {
            drawing.polygon(
                vec![at(0.5, 0.0), at(1.0, 0.5), at(0.5, 1.0), at(0.0, 0.5)],
                color,
            );
            drawing.text(
                at(0.5, 0.69),
                "?",
                bold(0.52 * s, PAGE),
                drawing::Anchor::Middle,
            );
        }
    }
    drawing
}

#[cfg(test)]
mod tests {
    use super::super::{sample, thumbnails::Thumbnails};
    use super::*;

    fn views() -> Vec<View> {
        sample::all()
            .iter()
            .map(|report| View::new(report, &mut Thumbnails::new(0)))
            .collect()
    }

    #[test]
    fn every_figure_is_there_where_its_evidence_is() {
        let names = |view: &View| {
            all(view, WIDE)
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
        };
        let [skip, full, unsettled, dimensions] = &views()[..] else {
            panic!()
        };
        let everything = [
            "decision",
            "pairings",
            "slices",
            "refresh",
            "subclusters",
            "map",
            "credibility",
            "scores",
        ];
        assert_eq!(names(skip), everything);
        assert_eq!(names(full), everything);
        // Without new->new nothing can be refreshed.
        assert_eq!(
            names(unsettled),
            [
                "decision",
                "pairings",
                "slices",
                "subclusters",
                "map",
                "credibility",
                "scores"
            ]
        );
        assert_eq!(
            names(dimensions),
            ["pairings", "map", "credibility", "scores"]
        );
    }

    #[test]
    fn pngs_have_their_size_and_more_than_one_colour() {
        for view in views() {
            let card = image::load_from_memory(&card(&view).png(1).unwrap())
                .unwrap()
                .to_rgb8();
            assert_eq!(card.dimensions(), (1200, 630));
            for (name, drawing) in all(&view, NARROW) {
                let png = image::load_from_memory(&drawing.png(2).unwrap())
                    .unwrap()
                    .to_rgb8();
                assert_eq!(png.width(), 2 * NARROW, "{name}");
                let colours: std::collections::BTreeSet<_> =
                    png.pixels().map(|pixel| pixel.0).collect();
                assert!(colours.len() > 20, "{name}: {} colours", colours.len());
            }
        }
    }

    #[test]
    fn the_same_view_gives_the_same_bytes() {
        let view = &views()[0];
        assert_eq!(card(view).png(1).unwrap(), card(view).png(1).unwrap());
        for ((_, a), (_, b)) in all(view, WIDE).into_iter().zip(all(view, WIDE)) {
            assert_eq!(a.svg().unwrap(), b.svg().unwrap());
        }
    }

    #[test]
    fn numbers_stand_in_the_figures_as_in_the_text() {
        let view = &views()[0];
        let svg = decision(view, WIDE, charts::TEXT).unwrap().svg().unwrap();
        let decision = view.decision.as_ref().unwrap();
        for text in [
            &decision.value_text,
            &decision.interval_text,
            &decision.limit_text,
        ] {
            assert!(svg.contains(text.as_str()), "{text}");
        }
    }

    #[test]
    fn an_unbounded_interval_can_be_drawn() {
        let mut view = views().remove(0);
        let line = view.decision.as_mut().unwrap();
        (line.lower, line.upper) = (f64::NEG_INFINITY, f64::INFINITY);
        let svg = decision(&view, WIDE, charts::TEXT).unwrap().svg().unwrap();
        assert!(
            !svg.contains("inf") || svg.contains("[+0.0111"),
            "no infinite coordinate"
        );
        assert!(
            decision(&view, NARROW, charts::TEXT)
                .unwrap()
                .png(1)
                .is_ok()
        );
    }
}
