//! A drawing as data, and its two renderings: SVG and PNG.
//!
//! Figures place shapes in pixels of a page; this file alone talks to plotters' backends.

use std::sync::LazyLock;

use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use rayon::prelude::*;

use super::Color;
use super::lettering::{FONTS, OVERSAMPLING, RASTER_EM, Type, font};
use crate::report::ReportError;
use crate::report::xml::{is_xml, xml_escaped};

/// What plotters divides the size by to get the em of an SVG text.
const SVG_EM: f64 = 1.24;

/// Half the height of an `x` over the em (Inter: 1536 / 2816 / 2): plotters centres SVG text on it.
const SVG_HALF_X: f64 = 0.273;

/// Which point of a text its position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Polygon {
        points: Vec<(f64, f64)>,
        color: Color,
    },
    Rect {
        from: (f64, f64),
        to: (f64, f64),
        color: Color,
    },
    Line {
        points: Vec<(f64, f64)>,
        width: f64,
        color: Color,
    },
    Circle {
        center: (f64, f64),
        radius: f64,
        color: Color,
    },
    Text {
        at: (f64, f64),
        text: String,
        look: Type,
        anchor: Anchor,
    },
    Tip {
        from: (f64, f64),
        to: (f64, f64),
        text: String,
        item: Option<String>,
    },
}

/// Shapes on a white page, later ones over earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    width: u32,
    height: u32,
    /// What it shows, in words, for readers who cannot see it.
    pub description: String,
    shapes: Vec<Shape>,
}

impl Drawing {
    /// An empty page; sizes in page pixels.
    pub fn new(width: u32, height: u32, description: impl Into<String>) -> Self {
        Self {
            width,
            height,
            description: description.into(),
            shapes: Vec::new(),
        }
    }

    /// Width in page pixels.
    pub fn width(&self) -> f64 {
        f64::from(self.width)
    }

    /// Height in page pixels.
    pub fn height(&self) -> f64 {
        f64::from(self.height)
    }

    /// A filled rectangle.
    pub fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), color: Color) {
        self.shapes.push(Shape::Rect {
            from: (x, y),
            to: (x + width, y + height),
            color,
        });
    }

    /// A filled polygon.
    pub fn polygon(&mut self, points: Vec<(f64, f64)>, color: Color) {
        self.shapes.push(Shape::Polygon { points, color });
    }

    /// A line through the points.
    pub fn line(&mut self, points: &[(f64, f64)], width: f64, color: Color) {
        self.shapes.push(Shape::Line {
            points: points.to_vec(),
            width,
            color,
        });
    }

    /// A vertical dashed line.
    pub fn dashed(&mut self, x: f64, (top, bottom): (f64, f64), color: Color) {
        let mut y = top;
        while y < bottom {
            self.line(&[(x, y), (x, (y + 4.0).min(bottom))], 2.0, color);
            y += 7.0;
        }
    }

    /// A filled circle.
    pub fn circle(&mut self, center: (f64, f64), radius: f64, color: Color) {
        self.shapes.push(Shape::Circle {
            center,
            radius,
            color,
        });
    }

    /// A line of text; `at` is on its baseline.
    pub fn text(&mut self, at: (f64, f64), text: impl Into<String>, look: Type, anchor: Anchor) {
        self.shapes.push(Shape::Text {
            at,
            text: text.into(),
            look,
            anchor,
        });
    }

    /// What a reader who points at this rectangle is told; in an SVG only.
    pub fn tip(
        &mut self,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        text: impl Into<String>,
    ) {
        self.shapes.push(Shape::Tip {
            from: (x, y),
            to: (x + width, y + height),
            text: text.into(),
            item: None,
        });
    }

    /// The same for a probe item, by whose id a reader finds it; a square around `(x, y)`.
    pub fn item_tip(&mut self, (x, y): (f64, f64), half: f64, text: &str, item: &str) {
        self.shapes.push(Shape::Tip {
            from: (x - half, y - half),
            to: (x + half, y + half),
            text: text.to_owned(),
            item: Some(item.to_owned()),
        });
    }

    /// Puts another drawing on this one, its top left corner at `(x, y)`.
    pub fn place(&mut self, other: Drawing, (x, y): (f64, f64)) {
        let moved = |(px, py): (f64, f64)| (px + x, py + y);
        self.shapes
            .extend(other.shapes.into_iter().map(|shape| match shape {
                Shape::Polygon { points, color } => Shape::Polygon {
                    points: points.into_iter().map(moved).collect(),
                    color,
                },
                Shape::Rect { from, to, color } => Shape::Rect {
                    from: moved(from),
                    to: moved(to),
                    color,
                },
                Shape::Line {
                    points,
                    width,
                    color,
                } => Shape::Line {
                    points: points.into_iter().map(moved).collect(),
                    width,
                    color,
                },
                Shape::Circle {
                    center,
                    radius,
                    color,
                } => Shape::Circle {
                    center: moved(center),
                    radius,
                    color,
                },
                Shape::Text {
                    at,
                    text,
                    look,
                    anchor,
                } => Shape::Text {
                    at: moved(at),
                    text,
                    look,
                    anchor,
                },
                Shape::Tip {
                    from,
                    to,
                    text,
                    item,
                } => Shape::Tip {
                    from: moved(from),
                    to: moved(to),
                    text,
                    item,
                },
            }));
    }

    /// The drawing as an SVG document.
    ///
    /// # Errors
    /// [`ReportError::Render`] when the font cannot be read.
    pub fn svg(&self) -> Result<String, ReportError> {
        let mut svg = String::new();
        {
            let area =
                SVGBackend::with_string(&mut svg, (self.width, self.height)).into_drawing_area();
            area.fill(&WHITE).map_err(|error| failed(&error))?;
            self.draw(
                &area,
                1.0,
                SVG_EM,
                |baseline, em| baseline - SVG_HALF_X * em,
                VPos::Center,
            )
            .map_err(|error| failed(&error))?;
        }
        let tips: String = self.shapes.iter().filter_map(tip_element).collect();
        let end = svg.rfind("</svg>").unwrap_or(svg.len());
        svg.insert_str(end, &tips);
        // plotters escapes markup and leaves what XML cannot hold.
        Ok(svg.replace(|c| !is_xml(c), "\u{fffd}"))
    }

    /// The drawing as a PNG with `density` pixels a page pixel, 1, 2 or 4.
    ///
    /// # Errors
    /// [`ReportError::Render`] when the font cannot be read or the picture not be encoded.
    pub fn png(&self, density: u32) -> Result<Vec<u8>, ReportError> {
        let (wide, high) = (self.width * OVERSAMPLING, self.height * OVERSAMPLING);
        let mut raster = vec![255; 3 * wide as usize * high as usize];
        {
            let area = BitMapBackend::with_buffer(&mut raster, (wide, high)).into_drawing_area();
            // plotters puts the baseline half a size under the top.
            let top = |baseline: f64, em: f64| baseline - RASTER_EM * em / 2.0;
            self.draw(&area, f64::from(OVERSAMPLING), RASTER_EM, top, VPos::Top)
                .map_err(|error| failed(&error))?;
        }
        let step = OVERSAMPLING / density;
        let pixels = averaged(&raster, wide as usize, step as usize);
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(
                &pixels,
                wide / step,
                high / step,
                image::ExtendedColorType::Rgb8,
            )
            .map_err(ReportError::render("a figure's PNG"))?;
        Ok(png)
    }

    /// Replays the shapes; `text_y` turns a baseline and an em into where plotters wants the text.
    fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        scale: f64,
        size_of_em: f64,
        text_y: impl Fn(f64, f64) -> f64,
        vertical: VPos,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        // A missing font would leave the texts out of a PNG without an error: see the test.
        debug_assert!(*FONTS, "the bundled fonts are fonts");
        LazyLock::force(&FONTS);
        let at = |(x, y): (f64, f64)| ((x * scale).round() as i32, (y * scale).round() as i32);
        let rgb = |(r, g, b): Color| RGBColor(r, g, b);
        for shape in &self.shapes {
            match shape {
                Shape::Rect { from, to, color } => {
                    let corners = [at(*from), at(*to)];
                    area.draw(&Rectangle::new(corners, rgb(*color).filled()))?;
                }
                Shape::Polygon { points, color } => {
                    let points: Vec<_> = points.iter().copied().map(at).collect();
                    area.draw(&Polygon::new(points, rgb(*color).filled()))?;
                }
                Shape::Line {
                    points,
                    width,
                    color,
                } => {
                    let points: Vec<_> = points.iter().copied().map(at).collect();
                    let width = (width * scale).round().max(1.0) as u32;
                    area.draw(&PathElement::new(points, rgb(*color).stroke_width(width)))?;
                }
                Shape::Circle {
                    center,
                    radius,
                    color,
                } => {
                    area.draw(&Circle::new(
                        at(*center),
                        (radius * scale).round() as i32,
                        rgb(*color).filled(),
                    ))?;
                }
                Shape::Text {
                    at: (x, baseline),
                    text,
                    look,
                    anchor,
                } => {
                    let horizontal = match anchor {
                        Anchor::Start => HPos::Left,
                        Anchor::Middle => HPos::Center,
                        Anchor::End => HPos::Right,
                    };
                    let style = font(look, scale, size_of_em)
                        .color(&rgb(look.color))
                        .pos(Pos::new(horizontal, vertical));
                    area.draw(&Text::new(
                        text.as_str(),
                        at((*x, text_y(*baseline, look.size))),
                        style,
                    ))?;
                }
                // plotters has no such thing.
                Shape::Tip { .. } => {}
            }
        }
        area.present()
    }
}

/// An unseen rectangle over everything, with a title that browsers show.
fn tip_element(shape: &Shape) -> Option<String> {
    let Shape::Tip {
        from,
        to,
        text,
        item,
    } = shape
    else {
        return None;
    };
    let item = item.as_ref().map_or_else(String::new, |item| {
        format!(" data-item=\"{}\"", xml_escaped(item))
    });
    Some(format!(
        "<rect class=\"tip\"{item} x=\"{:.0}\" y=\"{:.0}\" width=\"{:.0}\" height=\"{:.0}\" fill-opacity=\"0\"><title>{}</title></rect>\n",
        from.0,
        from.1,
        (to.0 - from.0).max(1.0),
        (to.1 - from.1).max(1.0),
        xml_escaped(text)
    ))
}

fn failed<E: std::error::Error + Send + Sync>(error: &DrawingAreaErrorKind<E>) -> ReportError {
    ReportError::render("a figure")(error.to_string())
}

/// Mean over blocks of `step` by `step` pixels, `step` a power of two of at most 16; `raster` has shape (height, width, 3).
fn averaged(raster: &[u8], width: usize, step: usize) -> Vec<u8> {
    let columns = width / step;
    let shift = 2 * step.trailing_zeros();
    let half = (1 << shift) / 2;
    let mut means = vec![0; raster.len() / (3 * width * step) * 3 * columns];
    means
        .par_chunks_exact_mut(3 * columns)
        .zip(raster.par_chunks_exact(3 * width * step))
        .for_each_init(
            || vec![0_u16; 3 * width],
            |sums, (means, rows)| {
                // Down, then across: whole rows are added a vector at a time.
                sums.fill(0);
                for row in rows.chunks_exact(3 * width) {
                    for (sum, &value) in sums.iter_mut().zip(row) {
                        *sum += u16::from(value);
                    }
                }
                let blocks = sums.as_chunks::<3>().0.chunks_exact(step);
                for (mean, block) in means.as_chunks_mut::<3>().0.iter_mut().zip(blocks) {
                    let mut total = [half; 3];
                    for sums in block {
                        for (total, &sum) in total.iter_mut().zip(sums) {
                            *total += u32::from(sum);
                        }
                    }
                    *mean = total.map(|total| (total >> shift) as u8);
                }
            },
        );
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Type = Type {
        size: 20.0,
        bold: false,
        color: (0, 0, 0),
    };

    fn dark_pixels(drawing: &Drawing, density: u32) -> usize {
        let png = drawing.png(density).unwrap();
        let image = image::load_from_memory(&png).unwrap().to_luma8();
        image.pixels().filter(|pixel| pixel.0[0] < 128).count()
    }

    #[test]
    fn text_leaves_pixels_in_both_weights() {
        assert!(*FONTS);
        for text in ["mAP 0.5465", "→", "−", "≥", "±", "✓", "✗", "–", "…"] {
            let ink = |bold| {
                let mut drawing = Drawing::new(200, 40, "");
                drawing.text((10.0, 30.0), text, Type { bold, ..LOOK }, Anchor::Start);
                dark_pixels(&drawing, 1)
            };
            assert!(ink(false) > 5, "{text}: {}", ink(false));
            assert!(
                ink(true) >= ink(false),
                "{text}: {} {}",
                ink(true),
                ink(false)
            );
        }
    }

    #[test]
    fn a_baseline_lies_where_it_was_put() {
        let mut drawing = Drawing::new(60, 60, "");
        drawing.text((5.0, 40.0), "HHH", LOOK, Anchor::Start);
        let png = drawing.png(1).unwrap();
        let image = image::load_from_memory(&png).unwrap().to_luma8();
        let inked: Vec<u32> = image
            .enumerate_pixels()
            .filter(|(_, _, p)| p.0[0] < 128)
            .map(|(_, y, _)| y)
            .collect();
        let (top, bottom) = (*inked.iter().min().unwrap(), *inked.iter().max().unwrap());
        // Capitals are 2048 / 2816 of an em high.
        assert!((38..=40).contains(&bottom), "{bottom}");
        assert!((24..=27).contains(&top), "{top}");
    }

    #[test]
    fn a_rectangle_covers_its_pixels_and_no_others() {
        let mut drawing = Drawing::new(20, 20, "");
        drawing.rect((5.0, 5.0), (10.0, 4.0), (0, 0, 0));
        assert_eq!(dark_pixels(&drawing, 1), 40);
        assert_eq!(dark_pixels(&drawing, 2), 160);
        assert!(
            drawing
                .svg()
                .unwrap()
                .contains(r#"<rect x="5" y="5" width="10" height="4""#)
        );
    }

    #[test]
    fn hostile_text_is_escaped_in_the_svg() {
        let mut drawing = Drawing::new(20, 20, "");
        drawing.text(
            (0.0, 10.0),
            "</text><script>alert(1)</script>",
            LOOK,
            Anchor::Start,
        );
        drawing.text((0.0, 10.0), "a\u{1}b", LOOK, Anchor::Start);
        drawing.item_tip((5.0, 5.0), 3.0, "c\u{1}\"<d>", "\"><e");
        let svg = drawing.svg().unwrap();
        assert!(!svg.contains("<script") && !svg.contains("<e"));
        let document = roxmltree::Document::parse(&svg).expect("well-formed");
        let tip = document
            .descendants()
            .find(|n| n.attribute("class") == Some("tip"));
        assert_eq!(tip.unwrap().attribute("data-item"), Some("\"><e"));
    }
}
