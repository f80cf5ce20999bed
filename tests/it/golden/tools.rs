//! ir_measures, ranx and scikit-learn on the rankings that trec_eval has judged.

use serde::Deserialize;

use super::{ByTool, assert_by_tool, golden, measure_named, pairing_named, read};

#[derive(Deserialize)]
struct Tools {
    expected: ByTool,
}

#[test]
fn every_query_agrees_with_ir_measures_ranx_and_scikit_learn() {
    let golden = golden();
    let found = golden.retrieve(&golden.probe());
    let compared = assert_by_tool(
        &read::<Tools>("measures_tools.json").expected,
        |pairing, measure| {
            found.evaluations[&pairing_named(pairing)].per_query(measure_named(measure))
        },
    );
    // Ten measures of ir_measures and of ranx, two of scikit-learn.
    assert_eq!(compared, 2 * 60 * (10 + 10 + 2));
}
