//! The JSON schema of report.json, derived from the types that write it and kept in `docs/report.schema.json`.
//!
//! It says what this version writes: every field is there, what may be missing is null, and an interval's end
//! without a bound is null too. Fields that it does not name are allowed, so that a new one breaks no reader.

use std::borrow::Cow;
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::AuditReport;
use crate::domain::{Measure, NamedMeasure, Reference};

impl JsonSchema for Measure {
    fn schema_name() -> Cow<'static, str> {
        "Measure".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number per query whose mean is reported.",
            "type": "string",
            "enum": Measure::ALL.map(|measure| measure.to_string()),
        })
    }
}

impl JsonSchema for NamedMeasure {
    fn schema_name() -> Cow<'static, str> {
        "NamedMeasure".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let named = [Reference::Labels, Reference::OldModel]
            .map(|reference| Measure::ALL.map(|measure| reference.name(measure).to_string()));
        json_schema!({
            "description": "A measure; `agreement` where clusters of the old embeddings stand in for labels.",
            "type": "string",
            "enum": named.concat(),
        })
    }
}

fn schema() -> String {
    let mut schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<AuditReport>();
    schema.insert("title".into(), "report.json of compat-audit".into());
    schema.insert(
        "description".into(),
        "Same inputs give the same bytes outside `run`. JSON has no NaN and no infinity: a value without data, and \
         an interval's end that nothing bounds, are null."
            .into(),
    );
    serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n"
}

#[test]
fn the_schema_in_the_repository_is_the_one_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json");
    let schema = schema();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).expect("docs/ is writable");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == schema,
        "docs/report.schema.json is not what the report's types give. Read CONTRIBUTING.md on schema_version, then \
         run `UPDATE_SCHEMA=1 cargo test --release --locked --lib report::schema` and commit the file."
    );
}
