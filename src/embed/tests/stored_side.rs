//! Embeddings that were stored before, alone and beside the model that made them.

use super::*;

/// `<name>.npy` of rows of two, and its ids beside.
fn store(folder: &Path, name: &str, ids: &[&str], values: &[f32]) -> PathBuf {
    let path = folder.join(format!("{name}.npy"));
    std::fs::write(
        &path,
        Array::new::<f32>("", &[values.len() / 2, 2], values).1,
    )
    .expect("written");
    std::fs::write(folder.join(format!("{name}.ids.txt")), ids.join("\n")).expect("written");
    path
}

/// One query, one gallery item, and one that is both; no inputs.
fn stored_probe() -> Probe {
    let mut probe = probe_of(vec![Source::TensorRow(0); 3], Modality::Stored);
    probe.items.iter_mut().for_each(|item| item.source = None);
    probe.items[0].role = Role::Query;
    probe.items[1].role = Role::Gallery;
    probe
}

fn look_up(
    probe: &Probe,
    path: &Path,
    side: Side,
    config: &ModelConfig,
) -> Result<Embedded, EmbedError> {
    let options = EmbedOptions {
        side,
        ..options(config, None)
    };
    let source = ModelSource::from_path(path)?;
    embed(probe, &source, &options, None, &NoProgress)
}

#[test]
fn rows_are_found_by_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = stored_probe();
    let plain = ModelConfig::default();
    let ids = ["item2", "elsewhere", "item0", "item1"];
    let values = [5.0, 6.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0];
    let path = store(folder.path(), "a", &ids, &values);
    let embedded = look_up(&probe, &path, Side::Old, &plain).expect("found");
    assert_eq!(row(&embedded, 0), [1.0, 2.0]);
    assert_eq!(row(&embedded, 1), [3.0, 4.0]);
    assert_eq!(row(&embedded, 2), [5.0, 6.0]);
    assert_eq!(
        (embedded.model.name.as_str(), embedded.model.dim),
        ("a.npy", 2)
    );
    assert!(embedded.findings.is_empty());

    let cut = ModelConfig {
        dims: Some(1),
        ..ModelConfig::default()
    };
    let embedded = look_up(&probe, &path, Side::Old, &cut).expect("found");
    assert_eq!(row(&embedded, 1), [3.0]);
    assert_eq!(setting(&embedded.settings, "old.dims").value, 1);
    let too_many = ModelConfig {
        dims: Some(3),
        ..ModelConfig::default()
    };
    let message = look_up(&probe, &path, Side::Old, &too_many)
        .err()
        .expect("refused")
        .to_string();
    assert!(message.contains("dims = 3"), "{message}");
}

#[test]
fn equal_rows_under_other_ids_are_another_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = stored_probe();
    let hash = |name: &str, ids: &[&str], values: &[f32]| {
        let path = store(folder.path(), name, ids, values);
        let found = look_up(&probe, &path, Side::Old, &ModelConfig::default());
        found.expect("found").model.hash
    };
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let a = hash("a", &["item0", "item1", "item2"], &values);
    let exchanged = hash("b", &["item1", "item0", "item2"], &values);
    assert_ne!(a, exchanged);
    let renamed = hash(
        "d",
        &["item0", "item1", "item2", "z"],
        &[values.as_slice(), &[7.0, 8.0]].concat(),
    );
    let otherwise = hash(
        "e",
        &["item0", "item1", "item2", "w"],
        &[values.as_slice(), &[7.0, 8.0]].concat(),
    );
    assert_ne!(renamed, otherwise);
    let moved = [3.0, 4.0, 1.0, 2.0, 5.0, 6.0];
    assert_eq!(a, hash("c", &["item1", "item0", "item2"], &moved));
}

#[test]
fn each_side_must_cover_its_part() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = stored_probe();
    let plain = ModelConfig::default();
    // The gallery item is missing.
    let path = store(
        folder.path(),
        "a",
        &["item0", "item2"],
        &[1.0, 2.0, 5.0, 6.0],
    );
    let error = look_up(&probe, &path, Side::Old, &plain)
        .err()
        .expect("the old gallery");
    let message = error.to_string();
    assert!(
        message.contains("1 items of the probe have no stored embedding: item1"),
        "{message}"
    );
    let embedded = look_up(&probe, &path, Side::New, &plain).expect("not needed of the new model");
    assert!(!embedded.embeddings.has(1) && embedded.embeddings.has(2));
    let codes: Vec<FindingCode> = embedded.findings.iter().map(|f| f.code).collect();
    assert_eq!(codes, [FindingCode::InputsMissing]);
    // A query is missing.
    let path = store(
        folder.path(),
        "b",
        &["item1", "item2"],
        &[1.0, 2.0, 5.0, 6.0],
    );
    for side in [Side::Old, Side::New] {
        let message = look_up(&probe, &path, side, &plain)
            .err()
            .expect("a query")
            .to_string();
        assert!(message.contains("item0"), "{message}");
    }
}

#[test]
fn ids_and_rows_must_match() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = stored_probe();
    let message = |path: &Path| {
        let error = look_up(&probe, path, Side::Old, &ModelConfig::default());
        let error = error.err().expect("refused");
        assert!(error.hint().is_some());
        error.to_string()
    };
    let path = store(folder.path(), "a", &["item0"], &[1.0, 2.0, 3.0, 4.0]);
    assert!(message(&path).ends_with("expected 2 ids, one a row, found 1 ids"));
    std::fs::remove_file(folder.path().join("a.ids.txt")).expect("removed");
    assert!(message(&path).contains("a.ids.txt"));
    let path = folder.path().join("b.npy");
    std::fs::write(&path, Array::new::<i32>("", &[2, 2], &[1, 2, 3, 4]).1).expect("written");
    let found = message(&path);
    assert!(
        found.contains("integers") && found.contains("[2, 2]"),
        "{found}"
    );
    std::fs::write(&path, Array::new::<f32>("", &[4], &[1.0, 2.0, 3.0, 4.0]).1).expect("written");
    assert!(message(&path).contains("[4]"));
}

/// The old side with stored embeddings beside the model that gives back what it takes.
fn beside(stored: [f32; 6], missing: &[usize]) -> Result<Embedded, EmbedError> {
    let ids = match missing {
        [0, 1, 2] => &["item0", "item1", "item2"][..],
        _ => &["item1", "item2"],
    };
    beside_ids(ids, stored, missing)
}

/// `stored` are the last of the three, as many as there are ids.
fn beside_ids(ids: &[&str], stored: [f32; 6], missing: &[usize]) -> Result<Embedded, EmbedError> {
    let folder = tempfile::tempdir().expect("a folder");
    let x = Array::new::<f32>(
        "x",
        &[3, 4],
        &[1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 5.0, 6.0, 0.0, 0.0],
    );
    let mut probe = tensor_probe(folder.path(), 3, &[x]);
    probe.items[0].role = Role::Query;
    probe.items[1].role = Role::Gallery;
    probe.items[2].role = Role::Gallery;
    for &item in missing {
        probe.items[item].source = None;
    }
    let values = &stored[stored.len() - 2 * ids.len()..];
    let path = store(folder.path(), "gallery", ids, values);
    let config = ModelConfig {
        dims: Some(2),
        ..ModelConfig::default()
    };
    let model = fixture("data/odd_models/vectors.onnx");
    embed_with_stored(
        &probe,
        &model,
        &path,
        &options(&config, None),
        Some(runtime()),
        &NoProgress,
    )
}

#[test]
fn stored_gallery_rows_stand_beside_fresh_queries() {
    // Nearly what the model gives, so that it shows which was taken.
    let embedded = beside([0.0, 0.0, 3.001, 4.0, 5.001, 6.0], &[1]).expect("embedded");
    assert_eq!(row(&embedded, 0), [1.0, 2.0]);
    assert_eq!(row(&embedded, 1), [3.001, 4.0]);
    assert_eq!(row(&embedded, 2), [5.001, 6.0]);
    assert!(embedded.findings.is_empty());
    // The query and a sampled gallery item.
    assert_eq!(embedded.n_embedded, 2);
    // With nothing left to run, nothing runs.
    let embedded = beside([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[0, 1, 2]).expect("looked up");
    assert_eq!(embedded.n_embedded, 0);
    assert_eq!((row(&embedded, 0), embedded.model.dim), (vec![1.0, 2.0], 2));
    let error = beside([0.0, 0.0, 3.0, 4.0, 5.0, 6.0], &[0]).err();
    assert!(matches!(error, Some(EmbedError::InputGone { .. })));
}

/// The file is the old gallery's: what it holds of a query whose input is there is not what the query will be.
#[test]
fn stored_rows_of_queries_are_not_taken() {
    let ids = ["item0", "item1", "item2"];
    let stored = [-1.0, 7.0, 3.0, 4.0, 5.0, 6.0];
    let embedded = beside_ids(&ids, stored, &[]).expect("embedded");
    assert_eq!(row(&embedded, 0), [1.0, 2.0]);
    assert!(embedded.findings.is_empty());
    let gone = beside_ids(&ids, stored, &[0]).expect("embedded");
    assert_eq!(row(&gone, 0), [-1.0, 7.0]);
}

#[test]
fn stored_rows_of_another_length_are_a_finding_where_lengths_count() {
    let embedded = beside([0.0, 0.0, 3.0, 4.0, 10.0, 12.0], &[]).expect("embedded");
    let [finding] = embedded.findings.as_slice() else {
        panic!("one finding: {:?}", embedded.findings);
    };
    assert_eq!(finding.items, ["item2"]);
    assert!(
        finding
            .message
            .ends_with("or its length more than 1 % off)")
    );
}

#[test]
fn stored_rows_that_the_model_does_not_give_are_a_finding() {
    let embedded = beside([0.0, 0.0, 3.0, 4.0, 5.0, -6.0], &[]).expect("embedded");
    let [finding] = embedded.findings.as_slice() else {
        panic!("one finding: {:?}", embedded.findings);
    };
    assert_eq!(finding.code, FindingCode::StoredEmbeddingsDiffer);
    assert_eq!(finding.items, ["item2"]);
    assert!(
        finding.message.starts_with("1 of 2 sampled"),
        "{}",
        finding.message
    );
}
