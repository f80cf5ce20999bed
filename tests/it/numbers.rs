//! Every number that report.html shows, in tables, sentences, facts and figures, is one of report.json, rounded.

use std::collections::BTreeSet;

use roxmltree::{Document, Node};
use serde_json::Value;

use crate::run::{Audit, data};

fn audit(new: &str) -> Audit {
    let emoji = data("emoji");
    Audit::run(&emoji.join("old.onnx"), &emoji.join(new), &emoji, &[])
}

/// A skip, a partial and a full backfill.
const NEW: [&str; 3] = [
    "new_l2_compatible.onnx",
    "new_bct_near.onnx",
    "new_incompatible.onnx",
];

/// A part of the page.
fn part_of<'a>(html: &'a str, part: &str) -> &'a str {
    let start = html
        .find(&format!("<section id=\"{part}\">"))
        .unwrap_or_else(|| panic!("no part {part}"));
    let end = html[start..].find("</section>").expect("it ends") + start;
    &html[start..end]
}

/// The tables of a part of the page: they are well-formed XML, the page around them is not.
fn tables(html: &str, part: &str) -> Vec<String> {
    let tables = part_of(html, part).split("<table").skip(1);
    tables
        .map(|table| {
            format!(
                "<table{}</table>",
                table.split("</table>").next().expect("split")
            )
        })
        .collect()
}

/// Rows of cells, each its text and the smaller text under it.
fn rows(table: &str) -> Vec<Vec<[String; 2]>> {
    let document = Document::parse(table).unwrap_or_else(|error| panic!("{error}: {table}"));
    let text = |node: Node<'_, '_>, small: bool| -> String {
        let is_small = |n: &Node<'_, '_>| n.ancestors().any(|a| a.has_tag_name("small"));
        let texts = node
            .descendants()
            .filter(|n| n.is_text() && is_small(n) == small);
        texts.filter_map(|n| n.text()).collect()
    };
    let body = document
        .descendants()
        .find(|n| n.has_tag_name("tbody"))
        .expect("a body");
    let rows = body.children().filter(|n| n.has_tag_name("tr"));
    rows.map(|row| {
        let cells = row.children().filter(Node::is_element);
        cells
            .map(|cell| [text(cell, false), text(cell, true)])
            .collect()
    })
    .collect()
}

fn four(value: &Value) -> String {
    format!("{:.4}", value.as_f64().expect("a number"))
}

fn signed(value: &Value) -> String {
    format!("{:+.4}", value.as_f64().expect("a number")).replace("-0.0000", "+0.0000")
}

fn ends(estimate: &Value, number: fn(&Value) -> String) -> String {
    format!(
        "[{}, {}]",
        number(&estimate["lower"]),
        number(&estimate["upper"])
    )
}

#[test]
fn pairings_cell_by_cell() {
    for new in ["new_l2_compatible.onnx", "new_incompatible.onnx"] {
        let audit = audit(new);
        let table = &tables(&audit.file("report.html"), "pairings")[0];
        let pairings = audit.report["pairings"].as_array().expect("pairings");
        let found = rows(table);
        let measures = pairings[0]["measures"].as_array().expect("measures");
        assert_eq!(found.len(), measures.len());
        for (row, cells) in found.iter().enumerate() {
            assert_eq!(
                cells[0][0],
                measures[row]["measure"].as_str().expect("a name")
            );
            assert_eq!(cells.len(), 1 + pairings.len());
            for (pairing, cell) in pairings.iter().zip(&cells[1..]) {
                let estimate = &pairing["measures"][row]["estimate"];
                assert_eq!(cell[0], four(&estimate["value"]));
                assert_eq!(cell[1], ends(estimate, four));
            }
        }
    }
}

#[test]
fn slices_and_checks_row_by_row() {
    let audit = audit("new_bct_near.onnx");
    let html = audit.file("report.html");
    let tested = audit.report["slices"]["tested"].as_array().expect("slices");
    let found = rows(&tables(&html, "slices")[0]);
    assert_eq!(found.len(), tested.len());
    for (cells, slice) in found.iter().zip(tested) {
        assert_eq!(cells[0][0], slice["name"].as_str().expect("a name"));
        assert_eq!(cells[1][0], slice["queries"].to_string());
        assert_eq!(cells[2][0], four(&slice["old_old"]));
        assert_eq!(cells[3][0], four(&slice["new_old"]));
        assert_eq!(
            cells[4],
            [
                signed(&slice["change"]["value"]),
                ends(&slice["change"], signed)
            ]
        );
    }
    let checks = audit.report["checks"].as_array().expect("checks");
    let found = rows(&tables(&html, "checks")[0]);
    assert_eq!(found.len(), checks.len());
    for (cells, check) in found.iter().zip(checks) {
        assert_eq!(cells[6][0], check["code"].as_str().expect("a code"));
        let state = check["state"].as_str().expect("a state");
        assert!(cells[0][0].ends_with(&state.replace('-', " ")), "{cells:?}");
        if ["cross-test-change", "upgrade-worth", "refresh"].contains(&&*cells[6][0]) {
            let estimate = &check["estimate"];
            assert_eq!(cells[2][0], signed(&estimate["value"]));
            assert_eq!(cells[3][0], ends(estimate, signed));
        }
    }
}

#[test]
fn the_line_of_the_first_screen_shows_the_number_that_decided() {
    for (new, code) in [
        ("new_l2_compatible.onnx", "cross-test-change"),
        ("new_bct_near.onnx", "excess-flips"),
        ("new_incompatible.onnx", "cross-test-change"),
    ] {
        let audit = audit(new);
        let estimate = &audit.check(code)["estimate"];
        let per_cent =
            |value: &Value| format!("{:.2} %", 100.0 * value.as_f64().expect("a number"));
        let said = match code {
            "excess-flips" => format!(
                "excess-flips = {} {}",
                per_cent(&estimate["value"]),
                ends(estimate, per_cent)
            ),
            _ => format!(
                "D = {} {}",
                signed(&estimate["value"]),
                ends(estimate, signed)
            ),
        };
        let html = audit.file("report.html");
        assert!(part_of(&html, "decision").contains(&said), "{new}: {said}");
    }
}

/// All numbers of a JSON value, less those that no table shows.
fn numbers(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Number(number) => found.push(number.as_f64().expect("a number")),
        Value::Array(list) => list.iter().for_each(|value| numbers(value, found)),
        Value::Object(fields) => {
            // Places and bins of figures, and seconds, are so many that any number would be among them.
            let shown = fields
                .iter()
                .filter(|(name, _)| !["map", "scores", "run"].contains(&name.as_str()));
            shown.for_each(|(_, value)| numbers(value, found));
        }
        _ => {}
    }
}

/// Numbers that the page derives from two of the JSON: what a share is of, and changes of two means.
fn derived(report: &Value, found: &mut Vec<f64>) {
    let number = |value: &Value| value.as_f64();
    let flips = &report["compatibility"]["flips"];
    let counts = ["right_right", "right_wrong", "wrong_right", "wrong_wrong"];
    let total: f64 = counts.iter().filter_map(|name| number(&flips[name])).sum();
    found.extend(
        counts
            .iter()
            .filter_map(|name| Some(number(&flips[name])? / total)),
    );
    let structure = &report["structure"];
    for row in structure["subclusters"].as_array().into_iter().flatten() {
        let pair = |a: &Value, b: &Value| Some(number(a)? - number(b)?);
        found.extend(pair(&row["new_old"], &row["old_old"]));
        found.extend(pair(
            &row["consensus"]["mass_new"],
            &row["consensus"]["mass_old"],
        ));
    }
    let credibility = &structure["credibility"];
    let share = number(&credibility["below_cutoff"]).zip(number(&credibility["assessable"]));
    found.extend(share.map(|(below, assessable)| below / assessable));
    let consensus = &structure["consensus"];
    for name in ["mass", "nccl"] {
        let at = |side: &str| number(&consensus[format!("{name}_{side}")]);
        found.extend(at("new").zip(at("old")).map(|(new, old)| new - old));
    }
    for pairing in report["pairings"].as_array().into_iter().flatten() {
        let points = pairing["verification"]["operating_points"].as_array();
        found.extend(
            points
                .into_iter()
                .flatten()
                .filter_map(|point| Some(1.0 - number(&point["tar"])?)),
        );
    }
    let what_if = &report["what_if"];
    let raw = number(&what_if["new_old"]).zip(number(&what_if["old_old"]));
    found.extend(raw.map(|(new, old)| new - old));
}

/// All that a page may show.
fn known(report: &Value) -> Vec<f64> {
    let mut known = Vec::new();
    numbers(report, &mut known);
    derived(report, &mut known);
    known
}

/// The texts of the cells that hold numbers.
fn number_cells(table: &str) -> Vec<String> {
    let document = Document::parse(table).unwrap_or_else(|error| panic!("{error}: {table}"));
    let is_number = |node: &Node<'_, '_>| {
        let classes = node.attribute("class").unwrap_or_default();
        ["td", "th"].contains(&node.tag_name().name())
            && node.ancestors().any(|above| above.has_tag_name("tbody"))
            && classes.split(' ').any(|class| class == "n")
    };
    let text = |node: Node<'_, '_>| {
        let texts = node
            .descendants()
            .filter_map(|n| n.is_text().then(|| n.text())?);
        texts.collect::<Vec<_>>().join(" ")
    };
    document.descendants().filter(is_number).map(text).collect()
}

/// The words of a part of the page, without its figures.
fn words(html: &str, part: &str) -> String {
    let mut words = String::new();
    let mut in_figure = false;
    for piece in part_of(html, part).split('<') {
        let (tag, text) = piece.split_once('>').unwrap_or_default();
        in_figure = match tag.split(' ').next() {
            Some("svg") => true,
            Some("/svg") => false,
            _ => in_figure,
        };
        if !in_figure {
            words += text;
            words.push(' ');
        }
    }
    words
}

#[test]
fn every_fraction_in_the_sentences_is_one_of_the_json() {
    for new in NEW {
        let audit = audit(new);
        let html = audit.file("report.html");
        let known = known(&audit.report);
        for part in ["decision", "breaks", "turning", "credibility", "thresholds"] {
            // Names hold digits and no fractions. A loss is said without its sign.
            let text = words(&html, part);
            let is_power = |word: &&str| word.contains("e-") && word.parse::<f64>().is_ok();
            let (powers, others): (Vec<&str>, Vec<&str>) =
                text.split_whitespace().partition(is_power);
            for power in powers {
                let is =
                    |value: &f64| format!("{value:.2e}") == power || format!("{value:e}") == power;
                assert!(known.iter().any(is), "{new}, {part}: {power}");
            }
            let fractions = tokens(&others.join(" "));
            let fractions = fractions
                .into_iter()
                .filter(|(_, decimals, _)| *decimals >= 2);
            let mut n = 0;
            for (token, decimals, is_percent) in fractions {
                n += 1;
                let scale = if is_percent { 100.0 } else { 1.0 };
                let wanted = token.trim_start_matches(['+', '-']);
                let is = |value: &f64| format!("{:.decimals$}", (scale * value).abs()) == wanted;
                assert!(known.iter().any(is), "{new}, {part}: {token}");
            }
            assert!(n > 0, "{new}, {part}");
        }
    }
}

/// The numbers in a text as (digits, decimals, whether a per cent sign follows).
fn tokens(text: &str) -> Vec<(String, usize, bool)> {
    let plain = text.replace(',', "");
    let mut tokens = Vec::new();
    let mut rest = plain.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let signed = rest[..start].chars().last().filter(|c| "+-".contains(*c));
        let tail = &rest[start..];
        let end = tail
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(tail.len());
        let digits = tail[..end].trim_end_matches('.');
        let decimals = digits
            .split_once('.')
            .map_or(0, |(_, decimals)| decimals.len());
        let sign = signed.map_or(String::new(), |c| c.to_string());
        tokens.push((sign + digits, decimals, tail[end..].starts_with(" %")));
        rest = &tail[end..];
    }
    tokens
}

/// Whether a value, rounded, is what a token of the page says.
fn is_shown_as(value: f64, token: &str, decimals: usize, is_percent: bool) -> bool {
    let scale = if is_percent { 100.0 } else { 1.0 };
    let wanted: f64 = token.parse().expect("digits");
    let rounded = format!("{:.decimals$}", (scale * value).abs());
    rounded == format!("{:.decimals$}", wanted.abs())
        && (wanted == 0.0 || (wanted < 0.0) == (value < 0.0))
}

#[test]
fn every_number_in_a_table_is_one_of_the_json() {
    for new in NEW {
        let audit = audit(new);
        let html = audit.file("report.html");
        let known = known(&audit.report);
        let mut checked = 0;
        let mut strangers = BTreeSet::new();
        // Names of sub-clusters and items are made of digits here, so only cells of numbers are read.
        for part in [
            "checks",
            "pairings",
            "slices",
            "refresh",
            "flips",
            "subclusters",
            "diagnostics",
        ] {
            for table in tables(&html, part) {
                for text in number_cells(&table) {
                    for (token, decimals, is_percent) in tokens(&text) {
                        checked += 1;
                        let is = |value: &f64| is_shown_as(*value, &token, decimals, is_percent);
                        if !known.iter().any(is) {
                            strangers.insert(format!(
                                "{part}: {token}{}",
                                if is_percent { " %" } else { "" }
                            ));
                        }
                    }
                }
            }
        }
        assert!(checked > 500, "{checked} numbers were found");
        assert!(strangers.is_empty(), "{new}: {strangers:?}");
    }
}

/// The figures of the page, each one document.
fn figures<'a>(html: &'a str, part: &str) -> Vec<Document<'a>> {
    let start = html
        .find(&format!("<section id=\"{part}\">"))
        .expect("the part");
    let part = &html[start..start + html[start..].find("</section>").expect("it ends")];
    let figures = part
        .split_inclusive("</svg>")
        .filter_map(|piece| Some(&piece[piece.find("<svg")?..]));
    let verdict_badge =
        |document: &Document<'_>| document.descendants().any(|n| n.has_tag_name("text"));
    figures
        .map(|svg| Document::parse(svg).unwrap_or_else(|error| panic!("{error}: {svg}")))
        .filter(verdict_badge)
        .collect()
}

/// What figures draw and no table shows: the cells of scores as shares of their pairing, their edges, and the map's variance.
fn drawn(report: &Value) -> Vec<f64> {
    let mut drawn = known(report);
    for pairing in report["pairings"].as_array().into_iter().flatten() {
        let scores = &pairing["verification"]["scores"];
        for kind in ["matches", "non_matches"] {
            let cells: Vec<f64> = scores[kind]
                .as_array()
                .expect("cells")
                .iter()
                .filter_map(Value::as_f64)
                .collect();
            let total: f64 = cells.iter().sum();
            drawn.extend(cells.iter().map(|n| n / total));
            let [lowest, width] =
                ["lowest", "width"].map(|name| scores[name].as_f64().expect("a number"));
            drawn.extend((0..=cells.len()).map(|edge| lowest + width * edge as f64));
        }
    }
    numbers(&report["structure"]["map"]["explained"], &mut drawn);
    drawn
}

#[test]
fn every_number_in_a_figure_is_one_of_the_json() {
    for new in NEW {
        let audit = audit(new);
        let html = audit.file("report.html");
        let known = drawn(&audit.report);
        for part in [
            "decision",
            "pairings",
            "slices",
            "refresh",
            "subclusters",
            "thresholds",
        ] {
            let figures = figures(&html, part);
            // Slices of an audit in which none is tested have no figure.
            assert!(figures.len() >= 2, "{new}, {part}: wide and narrow");
            let (mut n, mut strangers) = (0, BTreeSet::new());
            for figure in &figures {
                let texts = figure
                    .descendants()
                    .filter(|n| n.has_tag_name("text") || n.has_tag_name("title"));
                for text in texts.filter_map(|n| n.text()) {
                    // What stands before a colon or on its own at an axis is a name or a tick; measured is what has
                    // the four decimals of a measure or the two of a share.
                    for (token, decimals, is_percent) in tokens(text) {
                        if decimals < if is_percent { 2 } else { 4 } {
                            continue;
                        }
                        n += 1;
                        let is = |value: &f64| is_shown_as(*value, &token, decimals, is_percent);
                        if !known.iter().any(is) {
                            strangers.insert(format!("{token} of {text}"));
                        }
                    }
                }
            }
            assert!(n > 0, "{new}, {part}: no number");
            assert!(strangers.is_empty(), "{new}, {part}: {strangers:?}");
        }
        // The bars of credibility carry their counts.
        let bins = &audit.report["structure"]["credibility"]["histogram"];
        let bins: Vec<String> = bins
            .as_array()
            .expect("bins")
            .iter()
            .map(ToString::to_string)
            .collect();
        for figure in figures(&html, "credibility") {
            let texts: Vec<_> = figure
                .descendants()
                .filter(|n| n.has_tag_name("text"))
                .filter_map(|n| n.text())
                .map(str::trim)
                .collect();
            assert_eq!(texts[..bins.len()], bins, "{new}");
        }
    }
}

/// Labels and values of the facts in a part of the page.
fn facts(html: &str, part: &str) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    for list in part_of(html, part).split("<dl").skip(1) {
        let list = format!("<dl{}</dl>", list.split("</dl>").next().expect("split"));
        let list = Document::parse(&list).unwrap_or_else(|error| panic!("{error}: {list}"));
        let texts: Vec<_> = list
            .root_element()
            .children()
            .filter(Node::is_element)
            .map(|n| n.text().unwrap_or_default().to_owned())
            .collect();
        facts.extend(
            texts
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone())),
        );
    }
    facts
}

#[test]
fn provenance_says_what_the_json_says() {
    for new in NEW {
        let audit = audit(new);
        let (html, report) = (audit.file("report.html"), &audit.report);
        let known = known(report);
        let mut numeric = 0;
        for (label, value) in facts(&html, "provenance") {
            // Versions, hashes, dates and seconds are texts; all else that begins with a number is one.
            let (is_number, is_percent) = match value.strip_suffix(" %") {
                Some(share) => (share.parse::<f64>().is_ok(), true),
                None => (value.replace(',', "").parse::<f64>().is_ok(), false),
            };
            if is_number {
                numeric += 1;
                let (token, decimals, _) = tokens(&value).remove(0);
                let scale = if is_percent { 100.0 } else { 1.0 };
                let is = |value: &f64| format!("{:.decimals$}", scale * value) == token;
                // Seeds, threads and the schema's version stand outside what is counted as results.
                let run = [&report["run"]["threads"], &report["schema_version"]];
                assert!(
                    known.iter().any(is) || run.iter().any(|value| value.to_string() == token),
                    "{new}: {label} {value}"
                );
            }
        }
        assert!(numeric > 10, "{new}: {numeric} numbers");
        // Settings are written as the JSON has them.
        let settings = report["settings"].as_array().expect("settings");
        let provenance = tables(&html, "provenance");
        let shown = provenance
            .iter()
            .find(|table| table.contains("policy.margin"))
            .expect("settings");
        let shown = rows(shown);
        assert_eq!(shown.len(), settings.len());
        for (cells, setting) in shown.iter().zip(settings) {
            assert_eq!(cells[0][0], setting["key"].as_str().expect("a name"));
            let value = &setting["value"];
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(cells[1][0], text, "{new}");
        }
        // The two models' columns.
        let models = rows(&provenance[0]);
        let value = |label: &str| {
            let row = models
                .iter()
                .find(|cells| cells[0][0].contains(label))
                .unwrap_or_else(|| panic!("no row {label}"));
            [row[1][0].clone(), row[2][0].clone()]
        };
        for (label, name) in [
            ("dimensions", "dim"),
            ("model hash", "hash"),
            ("preprocessing hash", "preprocessing"),
        ] {
            let json = ["old", "new"].map(|side| {
                let value = &report[side][name];
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), |text| text[..16].to_owned())
            });
            assert_eq!(value(label), json, "{new}");
        }
    }
}
