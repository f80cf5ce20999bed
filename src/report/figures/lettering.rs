//! Texts in figures: the bundled fonts, their sizes, and what fits into a width.

use std::sync::LazyLock;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

use super::Color;

/// Pixels of the raster a page pixel; averaged down, so that edges and glyph positions are smooth.
pub const OVERSAMPLING: u32 = 4;

/// Line height of the font over its em: what the rasteriser calls the size (Inter: (2728 + 680) / 2816).
pub const RASTER_EM: f64 = 3408.0 / 2816.0;

/// The generic family, so that an SVG shows in a font of the reader; in a PNG it is the bundled one.
const FAMILY: FontFamily<'static> = FontFamily::SansSerif;

/// Whether both fonts could be registered; touched before any text is measured or drawn.
pub static FONTS: LazyLock<bool> = LazyLock::new(|| {
    let fonts: [(FontStyle, &'static [u8]); 2] = [
        (
            FontStyle::Normal,
            include_bytes!("../fonts/Inter-Regular.otf"),
        ),
        (FontStyle::Bold, include_bytes!("../fonts/Inter-Bold.otf")),
    ];
    fonts
        .into_iter()
        .all(|(style, bytes)| register_font(FAMILY.as_str(), style, bytes).is_ok())
});

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Type {
    /// The em in page pixels.
    pub size: f64,
    /// Bold or regular.
    pub bold: bool,
    /// Colour.
    pub color: Color,
}

/// The font for a text: `size_of_em` is what plotters' backend calls the size of one em.
pub fn font(look: &Type, scale: f64, size_of_em: f64) -> FontDesc<'static> {
    let style = if look.bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let size = look.size * size_of_em * scale;
    // In a raster an even size: plotters rounds each glyph's height with half of it, towards zero.
    let size = if scale > 1.0 {
        2.0 * (size / 2.0).round()
    } else {
        size
    };
    FontDesc::new(FAMILY, size, style)
}

/// Width of a text in page pixels, in the bundled font.
pub fn text_width(text: &str, look: &Type) -> f64 {
    LazyLock::force(&FONTS);
    // Measured large: plotters gives whole pixels.
    let scale = f64::from(OVERSAMPLING);
    font(look, scale, RASTER_EM)
        .box_size(text)
        .map_or(0.0, |(width, _)| f64::from(width) / scale)
}

/// Where the middle of something lies that should be at `x` and must stay between two ends; halfway where it does not fit.
pub fn centred(x: f64, half: f64, left: f64, right: f64) -> f64 {
    if 2.0 * half > right - left {
        (left + right) / 2.0
    } else {
        // No `clamp`: rounding may put the ends the other way round.
        x.max(left + half).min(right - half)
    }
}

/// The text, cut with an ellipsis to be at most `width` page pixels wide.
pub fn fitted(text: &str, look: &Type, width: f64) -> String {
    if text_width(text, look) <= width {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().collect();
    loop {
        kept.pop();
        let cut: String = kept.iter().collect::<String>().trim_end().to_owned() + "…";
        if kept.is_empty() || text_width(&cut, look) <= width {
            return cut;
        }
    }
}

/// The text in lines of at most `width` page pixels, at most `most` of them, the last one cut with an ellipsis.
pub fn wrapped(text: &str, look: &Type, width: f64, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let longer = lines.last().map(|line| format!("{line} {word}"));
        match longer {
            Some(longer) if text_width(&longer, look) <= width => {
                *lines.last_mut().expect("it was just read") = longer;
            }
            Some(longer) if lines.len() == most => {
                let rest: Vec<_> = words.collect();
                let whole = format!("{longer} {}", rest.join(" "));
                *lines.last_mut().expect("it was just read") =
                    fitted(whole.trim_end(), look, width);
                break;
            }
            _ => lines.push(fitted(word, look, width)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Type = Type {
        size: 20.0,
        bold: false,
        color: (0, 0, 0),
    };

    #[test]
    fn texts_are_cut_and_wrapped_to_a_width() {
        let text = "one two three four five six seven eight nine ten";
        assert_eq!(fitted("short", &LOOK, 200.0), "short");
        let cut = fitted(text, &LOOK, 200.0);
        assert!(
            cut.ends_with('…') && text_width(&cut, &LOOK) <= 200.0,
            "{cut}"
        );
        let lines = wrapped(text, &LOOK, 200.0, 2);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].ends_with('…'));
        assert!(lines.iter().all(|line| text_width(line, &LOOK) <= 200.0));
        assert_eq!(wrapped(text, &LOOK, 200.0, 9).join(" "), text);
        assert_eq!(wrapped("", &LOOK, 200.0, 2), Vec::<String>::new());
    }
}
