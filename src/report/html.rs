//! report.html: the view in one file that needs no network and no other file, and can be read without its script.

use std::collections::BTreeMap;

use base64::Engine;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use sha2::{Digest, Sha256};

use super::view::View;
use super::{ReportError, figures};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Renders the page. The template lays out the view's texts, escaped, and computes nothing.
///
/// # Errors
/// [`ReportError::Render`] when a figure or the template cannot be rendered.
pub fn to_html(view: &View) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(ReportError::render("report.html"))?,
    );
    environment
        .add_template("page.html", PAGE)
        .map_err(ReportError::render("report.html"))?;
    let page = environment
        .get_template("page.html")
        .map_err(ReportError::render("report.html"))?;
    let html = page
        .render(context! {
            view => Serde(view),
            policy => security_policy(),
            style => Value::from_safe_string(STYLE.to_owned()),
            script => Value::from_safe_string(SCRIPT.to_owned()),
            badge => Value::from_safe_string(figures::badge(view.headline.tone, 64).svg()?),
            figures => figures(view)?,
        })
        .map_err(ReportError::render("report.html"))?;
    Ok(keep_pairings_whole(&html))
}

/// The page may run this script and use this style sheet, by their hashes, and show pictures and play recordings that it carries; nothing else.
fn security_policy() -> String {
    let hash = |text: &str| base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// Browsers break lines after a hyphen; `new->old` must stay in one. Only texts are touched: no attribute, figure,
/// title or command.
fn keep_pairings_whole(html: &str) -> String {
    const PAIRINGS: [&str; 4] = ["old-&gt;old", "new-&gt;old", "new-&gt;new", "old-&gt;new"];
    const AS_THEY_ARE: [&str; 5] = ["svg", "title", "style", "script", "pre"];
    let mut whole = String::with_capacity(html.len() + html.len() / 50);
    let mut inside: Option<&str> = None;
    for (index, piece) in html.split('<').enumerate() {
        if index == 0 {
            whole.push_str(piece);
            continue;
        }
        // A script may compare with `<`.
        let Some((tag, text)) = piece.split_once('>') else {
            whole.push('<');
            whole.push_str(piece);
            continue;
        };
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        match inside {
            None => inside = AS_THEY_ARE.into_iter().find(|&known| known == name),
            Some(open) if name.strip_prefix('/') == Some(open) => inside = None,
            Some(_) => {}
        }
        whole.push('<');
        whole.push_str(tag);
        whole.push('>');
        if inside.is_some() || !text.contains("-&gt;") {
            whole.push_str(text);
            continue;
        }
        let mut text = text.to_owned();
        for pairing in PAIRINGS {
            text = text.replace(pairing, &format!("<span class=\"whole\">{pairing}</span>"));
        }
        whole.push_str(&text);
    }
    whole
}

/// Each figure for a page and for a telephone: a scaled-down SVG would have unreadable text.
fn figures(view: &View) -> Result<Value, ReportError> {
    // Strict templates want every name, also of a figure without evidence.
    let names = [
        "decision",
        "pairings",
        "slices",
        "refresh",
        "subclusters",
        "map",
        "credibility",
        "scores",
    ];
    let mut entries: BTreeMap<&str, Value> = names.map(|name| (name, Value::from(()))).into();
    let narrow = figures::all(view, figures::NARROW);
    for ((name, wide), (_, narrow)) in figures::all(view, figures::WIDE).into_iter().zip(narrow) {
        let figure = context! {
            wide => Value::from_safe_string(wide.svg()?),
            narrow => Value::from_safe_string(narrow.svg()?),
            description => wide.description,
        };
        entries.insert(name, figure);
    }
    Ok(Value::from(entries))
}

#[cfg(test)]
mod tests {
    use super::super::{sample, thumbnails::Thumbnails};
    use super::*;

    fn html(report: &super::super::AuditReport) -> String {
        to_html(&View::new(report, &mut Thumbnails::new(192))).unwrap()
    }

    #[test]
    fn every_sample_renders_and_needs_nothing_from_outside() {
        for report in sample::all() {
            let page = html(&report);
            assert!(page.starts_with("<!DOCTYPE html>"));
            assert!(page.contains("default-src &#x27;none&#x27;"));
            for outside in [
                "<script src",
                "<link",
                "<iframe",
                "@import",
                "url(",
                "src=\"http",
                "href=\"http",
                "onerror",
            ] {
                assert!(!page.contains(outside), "{outside}");
            }
            assert!(page.contains(&report.verdict.verdict.to_string()));
            assert_eq!(page.matches("<script").count(), 1);
            assert!(
                page.contains(&format!("<script>{SCRIPT}</script>")),
                "as it was hashed"
            );
            assert!(
                page.contains(&format!("<style>{STYLE}</style>")),
                "as it was hashed"
            );
            assert!(!page.contains(" style=\""), "the policy forbids it");
        }
    }

    #[test]
    fn the_answer_comes_first_and_what_was_not_tested_before_it() {
        let page = html(&sample::unsettled());
        let at = |text: &str| {
            page.find(text)
                .unwrap_or_else(|| panic!("{text} is missing"))
        };
        let body = at("<body");
        assert!(body < at("NOT TESTED"));
        assert!(at("NOT TESTED") < at("<h1"));
        assert!(at("<h1") < at("What do I do next?") && at("What do I do next?") < at("Checks"));
    }

    #[test]
    fn hostile_text_is_escaped_wherever_it_can_stand() {
        const EVIL: &str =
            "</text></svg><script>alert('x')</script>\"'><img src=x onerror=alert(1)>&";
        let evil = || EVIL.to_owned();
        let mut report = sample::unsettled();
        report.old.name = evil();
        report.new.name = evil();
        report.probe.origin = evil();
        report.verdict.reason = evil();
        report.verdict.not_tested = vec![evil()];
        report.verdict.next_steps = vec![evil()];
        report.run.command = vec![evil()];
        report.settings[0].value = EVIL.into();
        report.checks[1].message = evil();
        for finding in &mut report.findings {
            finding.message = evil();
            finding.items = vec![evil()];
        }
        for row in &mut report.structure.subclusters {
            row.name = evil();
            row.nearest_rival = Some((evil(), 0.5));
            let consensus = row.consensus.as_mut().unwrap();
            consensus.confused_with = Some((evil(), 1));
        }
        for flip in &mut report.worst_flips {
            flip.query.id = evil();
            flip.query.identity = evil();
            flip.query.text = Some(evil());
            flip.query.image = Some(evil().into());
        }
        for pairing in &mut report.pairings {
            pairing.pairing = evil();
        }
        report.probe.bad_items.push(super::super::BadItemRow {
            id: evil(),
            row: Some(2),
            error: evil(),
        });
        let page = html(&report);
        assert!(
            page.matches("<script").count() == 1
                && !page.contains("<img src=x")
                && !page.contains("</text></svg><")
        );
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn a_baseline_has_its_part_and_none_has_none() {
        let mut report = sample::full();
        report.baseline = Some(super::super::BaselineSection::compare(
            &sample::skip(),
            &report,
            std::path::Path::new("<b>/report.json"),
        ));
        let page = html(&report);
        assert!(page.contains("Against the baseline") && page.contains("newly failing"));
        assert!(page.contains("&lt;b&gt;"));
        assert!(!html(&sample::full()).contains("Against the baseline"));
    }

    #[test]
    fn pairings_stay_in_one_line_in_texts_only() {
        let page = "<p title=\"new-&gt;old\">a new-&gt;old b</p><pre>new-&gt;old</pre>\
                    <svg x><text>old-&gt;new</text></svg>old-&gt;new";
        assert_eq!(
            keep_pairings_whole(page),
            "<p title=\"new-&gt;old\">a <span class=\"whole\">new-&gt;old</span> b</p><pre>new-&gt;old</pre>\
             <svg x><text>old-&gt;new</text></svg><span class=\"whole\">old-&gt;new</span>"
        );
        assert_eq!(keep_pairings_whole("no tags"), "no tags");
        for report in sample::all() {
            assert!(html(&report).trim_end().ends_with("</html>"));
        }
    }

    #[test]
    fn pictures_are_embedded_and_missing_ones_have_a_placeholder() {
        let mut report = sample::skip();
        assert!(html(&report).contains("src=\"data:image/"));
        assert!(!html(&report).contains("not shown"));
        report.worst_flips[0].query.image = Some("gone.png".into());
        assert!(html(&report).contains("not shown"));
    }
}
