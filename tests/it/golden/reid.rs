//! The re-identification protocol of torchreid: same identity and same camera dropped.

use std::collections::BTreeMap;

use compat_audit::domain::Measure;
use serde::Deserialize;

use super::{assert_by_tool, golden, measure_named, pairing_named, read};

#[derive(Deserialize)]
struct ReId {
    cameras: Vec<u32>,
    expected: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    /// Items of the queries that torchreid evaluates.
    queries: Vec<usize>,
    per_query: BTreeMap<String, Vec<f64>>,
    mean: BTreeMap<String, f64>,
}

#[test]
fn every_query_agrees_with_torchreid() {
    let golden = golden();
    let reid: ReId = read("reid.json");
    let mut probe = golden.probe();
    probe.cameras = (0..3).map(|camera| camera.to_string()).collect();
    for (item, &camera) in probe.items.iter_mut().zip(&reid.cameras) {
        item.camera = camera.into();
    }
    let found = golden.retrieve(&probe);
    assert!(found.protocol.same_camera_pairs() > 0);
    assert!(found.protocol.n_excluded() > 0);
    let per_query = |pairing: &str, measure: Measure| {
        found.evaluations[&pairing_named(pairing)].per_query(measure)
    };
    let by_tool = reid
        .expected
        .iter()
        .map(|(pairing, expected)| {
            assert_eq!(found.protocol.query_items(), expected.queries);
            let torchreid = ("torchreid".to_owned(), expected.per_query.clone());
            (pairing.clone(), BTreeMap::from([torchreid]))
        })
        .collect();
    let compared = assert_by_tool(&by_tool, |pairing, measure| {
        per_query(pairing, measure_named(measure))
    });
    assert_eq!(compared, 2 * 5 * found.protocol.queries().len());
    for (pairing, expected) in &reid.expected {
        for (measure, theirs) in &expected.mean {
            let ours = per_query(pairing, measure_named(measure));
            let mean = ours.iter().sum::<f64>() / ours.len() as f64;
            // torchreid averages its curve in f32.
            assert!(
                (mean - theirs).abs() < 1e-6,
                "{pairing} {measure}: {mean} {theirs}"
            );
        }
    }
}
