//! Graded judgements: nDCG and the binary measures against four tools.

use compat_audit::domain::{Judgement, Qrels};
use serde::Deserialize;

use super::{ByTool, assert_by_tool, golden, measure_named, pairing_named, read};

#[derive(Deserialize)]
struct Graded {
    /// Query item, gallery item, grade.
    qrels: Vec<(usize, usize, i32)>,
    expected: ByTool,
}

#[test]
fn every_query_agrees_with_four_tools_on_graded_judgements() {
    let golden = golden();
    let graded: Graded = read("graded.json");
    let judgement = |&(query, item, grade): &(usize, usize, i32)| Judgement { query, item, grade };
    let judgements: Vec<Judgement> = graded.qrels.iter().map(judgement).collect();
    assert!(judgements.iter().any(|judgement| judgement.grade < 0));
    let mut probe = golden.probe();
    let n = probe.items.len();
    probe.qrels = Some(Qrels::new("graded.json".into(), n, &judgements, true));
    let found = golden.retrieve(&probe);
    assert!(found.protocol.is_graded());
    let compared = assert_by_tool(&graded.expected, |pairing, measure| {
        found.evaluations[&pairing_named(pairing)].per_query(measure_named(measure))
    });
    // Ten measures of trec_eval; nDCG at three depths of ir_measures, ranx and scikit-learn.
    assert_eq!(compared, 2 * 60 * (10 + 3 * 3));
}
