//! Numbers as text: every rounding of the report happens here.

use crate::domain::{Date, Estimate};

/// A measure in [0, 1], four decimals: `0.5465`.
pub fn measure(value: f64) -> String {
    finite(value, |value| format!("{value:.4}"))
}

/// A change of a measure, signed, four decimals: `+0.0207`.
pub fn change(value: f64) -> String {
    finite(value, |value| {
        let text = format!("{value:+.4}");
        // A change that rounds to nothing has no direction.
        if text == "-0.0000" {
            "+0.0000".into()
        } else {
            text
        }
    })
}

/// A share as a percentage, two decimals: `1.49 %`.
pub fn percent(share: f64) -> String {
    finite(share, |share| format!("{:.2} %", 100.0 * share))
}

/// A limit as the user wrote it, without an exponent or trailing zeros: `0.01`, `-0.01`.
pub fn plain(value: f64) -> String {
    finite(value, |value| {
        let text = format!("{value:.6}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        if text == "-0" {
            "0".into()
        } else {
            text.into()
        }
    })
}

/// A place on an axis whose neighbours are `step` away: as [`plain`], with an exponent where that would show no difference.
pub fn on_axis(value: f64, step: f64) -> String {
    if value != 0.0 && step < 1e-6 {
        finite(value, |value| format!("{value:.2e}"))
    } else {
        plain(value)
    }
}

/// A p-value after its sign: `= 0.302`, `< 0.001`.
pub fn p_value(p: f64) -> String {
    if p < 0.001 {
        "< 0.001".into()
    } else {
        format!("= {p:.3}")
    }
}

/// Both ends of an interval in brackets.
pub fn interval(estimate: &Estimate, number: fn(f64) -> String) -> String {
    format!("[{}, {}]", number(estimate.lower), number(estimate.upper))
}

/// A count with thousands separated by commas: `1,073`.
pub fn count(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun: `1 query`, `335 queries`.
pub fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A count and its share of a total: `12 (3.58 %)`.
pub fn count_of(n: usize, total: usize) -> String {
    if total == 0 {
        count(n)
    } else {
        format!("{} ({})", count(n), percent(n as f64 / total as f64))
    }
}

/// The start of a long text, with an ellipsis.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        text.to_owned()
    } else {
        text.chars()
            .take(most.saturating_sub(1))
            .chain(['…'])
            .collect()
    }
}

/// A command line that a POSIX shell reads as these words.
pub fn shell(words: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Seconds since the Unix epoch as `2025-01-31 12:00:00 UTC`.
pub fn utc(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    format!(
        "{} {:02}:{:02}:{:02} UTC",
        Date::of_unix_day(days),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn finite(value: f64, text: impl FnOnce(f64) -> String) -> String {
    if value.is_nan() {
        "undefined".into()
    } else if value.is_infinite() {
        if value > 0.0 {
            "+inf".into()
        } else {
            "-inf".into()
        }
    } else {
        text(value)
    }
}

/// The text with a capital first letter.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_they_should() {
        let cases = [
            (measure(0.54647), "0.5465"),
            (measure(f64::NAN), "undefined"),
            (change(0.0207), "+0.0207"),
            (change(-0.00001), "+0.0000"),
            (change(f64::NEG_INFINITY), "-inf"),
            (percent(0.01493), "1.49 %"),
            (p_value(0.302), "= 0.302"),
            (p_value(0.000_2), "< 0.001"),
            (plain(-0.01), "-0.01"),
            (plain(0.05), "0.05"),
            (plain(20.0), "20"),
            (plain(-0.0), "0"),
            (on_axis(3e-9, 1e-9), "3.00e-9"),
            (on_axis(0.25, 0.05), "0.25"),
            (count(1_073_u64), "1,073"),
            (count(999_usize), "999"),
            (count(1_000_000_usize), "1,000,000"),
            (counted(1, "query", "queries"), "1 query"),
            (count_of(12, 335), "12 (3.58 %)"),
            (count_of(0, 0), "0"),
            (shortened("abcdef", 4), "abc…"),
            (shortened("abcd", 4), "abcd"),
            (utc(0), "1970-01-01 00:00:00 UTC"),
            (utc(951_782_400), "2000-02-29 00:00:00 UTC"),
            (utc(1_735_689_599), "2024-12-31 23:59:59 UTC"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_replayed_command_survives_the_shell() {
        let words = ["compat-audit", "a b.onnx", "it's", "", "x/y.onnx"].map(String::from);
        assert_eq!(
            shell(&words),
            r"compat-audit 'a b.onnx' 'it'\''s' '' x/y.onnx"
        );
    }
}
