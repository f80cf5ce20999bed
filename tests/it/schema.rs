//! report.json files against `docs/report.schema.json`.
//!
//! The validator knows the part of JSON Schema 2020-12 that the schema uses and refuses any other keyword, so it
//! cannot pass what it does not understand.

use serde_json::{Map, Value};

use crate::run::{Audit, data, root};

struct Validator {
    root: Value,
}

impl Validator {
    fn new() -> Self {
        let path = root().join("docs/report.schema.json");
        let text = std::fs::read_to_string(path).expect("the schema is in the repository");
        Self {
            root: serde_json::from_str(&text).expect("the schema is JSON"),
        }
    }

    /// What is wrong, with the path to it; empty when nothing is.
    fn errors(&self, report: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        self.check(&self.root, report, "$", &mut errors);
        errors
    }

    fn holds(&self, schema: &Value, value: &Value) -> bool {
        let mut errors = Vec::new();
        self.check(schema, value, "", &mut errors);
        errors.is_empty()
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
        if *schema == Value::Bool(true) {
            return;
        }
        let keywords = schema.as_object().expect("a schema is an object or true");
        for (keyword, wanted) in keywords {
            let fits = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "format" | "default" => true,
                "$ref" => {
                    let pointer = wanted
                        .as_str()
                        .expect("a reference")
                        .trim_start_matches('#');
                    let target = self.root.pointer(pointer).expect("it points into $defs");
                    self.check(target, value, at, errors);
                    true
                }
                "type" => types(wanted).iter().any(|name| is_of_type(value, name)),
                "const" => value == wanted,
                "enum" => wanted.as_array().expect("a list").contains(value),
                "minimum" => value.as_f64().is_none_or(|it| it >= number(wanted)),
                "maximum" => value.as_f64().is_none_or(|it| it <= number(wanted)),
                "minItems" => length(value).is_none_or(|n| n >= number(wanted)),
                "maxItems" => length(value).is_none_or(|n| n <= number(wanted)),
                "uniqueItems" => {
                    let items = list(value);
                    let repeats = |(index, item)| items[..index].contains(item);
                    !items.iter().enumerate().any(repeats)
                }
                "oneOf" | "anyOf" => {
                    let fitting = wanted
                        .as_array()
                        .expect("a list")
                        .iter()
                        .filter(|option| self.holds(option, value))
                        .count();
                    fitting == 1 || (keyword == "anyOf" && fitting > 1)
                }
                "required" => wanted
                    .as_array()
                    .expect("a list")
                    .iter()
                    .all(|name| value.get(name.as_str().expect("a name")).is_some()),
                "properties" => {
                    for (name, schema) in wanted.as_object().expect("an object") {
                        if let Some(child) = value.get(name) {
                            self.check(schema, child, &format!("{at}.{name}"), errors);
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    assert!(!keywords.contains_key("properties"), "not known together");
                    for (name, child) in value.as_object().unwrap_or(&Map::new()) {
                        self.check(wanted, child, &format!("{at}.{name}"), errors);
                    }
                    true
                }
                "prefixItems" => {
                    let schemas = wanted.as_array().expect("a list");
                    for (index, (schema, child)) in schemas.iter().zip(list(value)).enumerate() {
                        self.check(schema, child, &format!("{at}[{index}]"), errors);
                    }
                    true
                }
                "items" => {
                    assert!(!keywords.contains_key("prefixItems"), "not known together");
                    for (index, child) in list(value).iter().enumerate() {
                        self.check(wanted, child, &format!("{at}[{index}]"), errors);
                    }
                    true
                }
                other => panic!("the schema uses `{other}`, which this validator does not know"),
            };
            if !fits {
                errors.push(format!("{at}: {keyword} {wanted}, found {value}"));
            }
        }
    }
}

/// Breaks a report.
type Edit<'a> = &'a dyn Fn(&mut Value);

fn types(wanted: &Value) -> Vec<&str> {
    match wanted {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => vec![name.as_str().expect("a type's name")],
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn length(value: &Value) -> Option<f64> {
    value.as_array().map(|items| items.len() as f64)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn real_reports_follow_the_schema() {
    let validator = Validator::new();
    let earlier = Audit::run(
        &data("emoji/old.onnx"),
        &data("emoji/old_int8.onnx"),
        &data("emoji"),
        &[],
    );
    let earlier_json = earlier.folder.path().join("report/report.json");
    let with_baseline = Audit::run(
        &data("emoji/old.onnx"),
        &data("emoji/new_incompatible.onnx"),
        &data("emoji"),
        &["--baseline", earlier_json.to_str().expect("UTF-8")],
    );
    assert!(with_baseline.report["baseline"].is_object());
    // Other dimensions: most optional parts are null.
    let dimensions = Audit::run(
        &data("text/wl64.onnx"),
        &data("text/wl256.onnx"),
        &data("text"),
        &[],
    );
    assert!(dimensions.report["compatibility"].is_null());
    for audit in [&earlier, &with_baseline, &dimensions] {
        let errors = validator.errors(&audit.report);
        assert!(errors.is_empty(), "{errors:#?}");
    }

    // The validator is not blind.
    let broken = |edit: Edit| {
        let mut report = with_baseline.report.clone();
        edit(&mut report);
        validator.errors(&report)
    };
    let edits: [(&str, Edit); 8] = [
        ("required", &|r| {
            r.as_object_mut().expect("an object").remove("probe");
        }),
        ("$.schema_version: const", &|r| {
            r["schema_version"] = 2.into()
        }),
        ("$.verdict.verdict: oneOf", &|r| {
            r["verdict"]["verdict"] = "fine".into()
        }),
        ("$.checks[0].code: oneOf", &|r| {
            r["checks"][0]["code"] = "luck".into()
        }),
        ("$.pairings[0].measures[0].estimate.level: type", &|r| {
            r["pairings"][0]["measures"][0]["estimate"]["level"] = Value::Null;
        }),
        ("$.probe.items: minimum", &|r| {
            r["probe"]["items"] = (-1).into()
        }),
        ("$.run.stage_seconds[0]: minItems", &|r| {
            r["run"]["stage_seconds"][0] = Value::Array(Vec::new());
        }),
        ("$.primary: enum", &|r| r["primary"] = "mAQ".into()),
    ];
    for (expected, edit) in edits {
        let errors = broken(edit);
        assert!(
            errors.iter().any(|error| error.contains(expected)),
            "{expected}: {errors:?}"
        );
    }
    // An end without a bound is null, a new field breaks no reader.
    assert_eq!(
        broken(&|r| {
            r["pairings"][0]["measures"][0]["estimate"]["lower"] = Value::Null;
            r["of_a_later_version"] = 1.into();
        }),
        Vec::<String>::new()
    );
}
