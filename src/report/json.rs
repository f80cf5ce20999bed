//! report.json: the report as data, and back.

use std::path::Path;

use super::{
    AuditReport, RefreshSection, ReportError, SCHEMA_VERSION, ScoreHistogramSection, TOOL,
};

/// Renders the report as pretty JSON with a final newline, fields in the order of the types.
///
/// An [`Estimate`](crate::domain::Estimate) may be unbounded or undefined; its ends are then null, and read back
/// as what they were. Everywhere else a number is a number.
///
/// # Errors
/// [`ReportError::NotFinite`] when a field that must be a number is NaN or infinite.
pub fn to_json(report: &AuditReport) -> Result<String, ReportError> {
    let text =
        serde_json::to_string_pretty(report).map_err(ReportError::render("report.json"))? + "\n";
    // serde_json writes NaN and infinities as null: what cannot be read back was no number.
    match serde_json::from_str::<AuditReport>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(ReportError::NotFinite {
            field: field_at(&text, error.line()),
        }),
    }
}

/// The field name on a line of pretty JSON, else the nearest one above it (a list's elements have no name).
fn field_at(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().take(line).collect();
    lines
        .iter()
        .rev()
        .find_map(|line| line.trim().strip_prefix('"')?.split_once("\":"))
        .map_or_else(|| format!("line {line}"), |(name, _)| name.to_owned())
}

/// Reads a report that [`to_json`] wrote; `path` is for the errors.
///
/// # Errors
/// [`ReportError::NotAReport`] when it is no JSON or lacks a field, [`ReportError::SchemaVersion`] when another
/// version wrote it.
pub fn from_json(text: &str, path: &Path) -> Result<AuditReport, ReportError> {
    let not_a_report = |found: String| ReportError::NotAReport {
        path: path.to_owned(),
        found,
    };
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| not_a_report(format!("no JSON: {error}")))?;
    if value.get("tool").and_then(|tool| tool.as_str()) != Some(TOOL) {
        return Err(not_a_report(format!("no `\"tool\": \"{TOOL}\"`")));
    }
    let version = value
        .get("schema_version")
        .ok_or_else(|| not_a_report("no field `schema_version`".into()))?;
    if version.as_u64() != Some(u64::from(SCHEMA_VERSION)) {
        return Err(ReportError::SchemaVersion {
            path: path.to_owned(),
            expected: SCHEMA_VERSION,
            found: version.to_string(),
        });
    }
    // From the text, not the value: its errors name line and column.
    let report: AuditReport =
        serde_json::from_str(text).map_err(|error| not_a_report(error.to_string()))?;
    match torn(&report) {
        Some(found) => Err(not_a_report(found.into())),
        None => Ok(report),
    }
}

/// What no figure could be drawn of.
fn torn(report: &AuditReport) -> Option<&'static str> {
    let curves = report.refresh.iter();
    let is_torn = |refresh: &RefreshSection| refresh.curve.len() != refresh.random.len();
    if curves.clone().any(|refresh| refresh.curve.is_empty()) {
        return Some("no point in `refresh.curve`");
    }
    if curves.clone().any(is_torn) {
        return Some("`refresh.random` of another length than `refresh.curve`");
    }
    let verifications = report.pairings.iter().flat_map(|row| &row.verification);
    let mut scores = verifications.flat_map(|verification| &verification.scores);
    let is_torn = |scores: &ScoreHistogramSection| {
        scores.matches.len() != scores.non_matches.len()
            || scores.width.is_nan()
            || scores.width <= 0.0
    };
    scores
        .any(is_torn)
        .then_some("`matches` and `non_matches` that are no bins of one width")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_report_survives_the_round_trip() {
        for report in sample::all() {
            let text = to_json(&report).unwrap();
            assert!(text.ends_with("}\n"));
            let back = from_json(&text, Path::new("r.json")).unwrap();
            assert_eq!(back, report);
            assert_eq!(to_json(&back).unwrap(), text);
        }
    }

    #[test]
    fn unbounded_estimates_survive_and_other_non_finite_numbers_are_refused() {
        let mut report = sample::skip();
        let change = &mut report.compatibility.as_mut().unwrap().change[0].estimate;
        change.lower = f64::NEG_INFINITY;
        change.upper = f64::INFINITY;
        let text = to_json(&report).unwrap();
        assert_eq!(from_json(&text, Path::new("r.json")).unwrap(), report);

        report.structure.credibility.temperature = f64::NAN;
        let error = to_json(&report).unwrap_err();
        assert_eq!(
            error.to_string(),
            "report field `temperature`: expected a finite number, found NaN or an infinity"
        );
        assert!(error.hint().unwrap().contains("bug"));
    }

    #[test]
    fn a_curve_without_points_is_none() {
        let mut report = sample::skip();
        report.refresh.as_mut().unwrap().curve.clear();
        let text = to_json(&report).unwrap();
        let error = from_json(&text, Path::new("r.json")).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("found no point in `refresh.curve`")
        );
    }

    #[test]
    fn what_is_no_report_is_named() {
        let path = Path::new("some/report.json");
        let error = |text: &str| from_json(text, path).unwrap_err();
        let cases = [
            (
                error("{"),
                "some/report.json: expected a compat-audit report.json, found no JSON: EOF",
            ),
            (
                error("{}"),
                "some/report.json: expected a compat-audit report.json, found no `\"tool\": \"compat-audit\"`",
            ),
            (
                error(r#"{"tool": "compat-audit"}"#),
                "some/report.json: expected a compat-audit report.json, found no field `schema_version`",
            ),
            (
                error(r#"{"tool": "compat-audit", "schema_version": 999}"#),
                "some/report.json: expected schema_version 1, found 999",
            ),
            (
                error(r#"{"tool": "compat-audit", "schema_version": "1"}"#),
                "some/report.json: expected schema_version 1, found \"1\"",
            ),
            (
                error(r#"{"tool": "compat-audit", "schema_version": 1}"#),
                "some/report.json: expected a compat-audit report.json, found missing field `verdict`",
            ),
        ];
        for (error, expected) in cases {
            assert!(error.to_string().starts_with(expected), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn the_json_is_stable() {
        insta::assert_snapshot!(to_json(&sample::skip()).unwrap());
    }
}
