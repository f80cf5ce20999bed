//! metrics that must come out right on made-up spaces, through stored embeddings.

use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::run::Audit;

const DIM: usize = 32;

/// A probe of identities around random centres, as the old model sees it.
struct World {
    folder: tempfile::TempDir,
    ids: Vec<String>,
    identities: Vec<String>,
    roles: Vec<&'static str>,
    old: Vec<Vec<f64>>,
}

impl World {
    /// `spread` is the noise's norm relative to the centre's.
    fn new(identities: usize, queries: usize, gallery: usize, spread: f64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut ids, mut names, mut roles, mut old) = (vec![], vec![], vec![], vec![]);
        for identity in 0..identities {
            let centre = unit(normal(&mut rng));
            for item in 0..queries + gallery {
                let noise = normal(&mut rng);
                old.push(unit(add(&centre, &noise, spread / (DIM as f64).sqrt())));
                ids.push(format!("{identity}-{item}"));
                names.push(format!("id{identity}"));
                roles.push(if item < queries { "query" } else { "gallery" });
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            folder,
            ids,
            identities: names,
            roles,
            old,
        }
    }

    fn noisy(&self, of: &[Vec<f64>], spread: f64, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        of.iter()
            .map(|row| unit(add(row, &normal(&mut rng), spread / (DIM as f64).sqrt())))
            .collect()
    }

    fn audit(&self, new: &[Vec<f64>]) -> Audit {
        let mut manifest = "id,identity,role\n".to_owned();
        for ((id, identity), role) in self.ids.iter().zip(&self.identities).zip(&self.roles) {
            manifest += &format!("{id},{identity},{role}\n");
        }
        self.audit_with(new, &manifest, &[])
    }

    /// Nobody says what belongs together.
    fn audit_without_labels(&self, new: &[Vec<f64>]) -> Audit {
        let mut manifest = "id,role\n".to_owned();
        for (id, role) in self.ids.iter().zip(&self.roles) {
            manifest += &format!("{id},{role}\n");
        }
        self.audit_with(new, &manifest, &["--profile", "label-free"])
    }

    fn audit_with(&self, new: &[Vec<f64>], text: &str, extra: &[&str]) -> Audit {
        let old = self.store("old", &self.old);
        let new = self.store("new", new);
        let manifest = self.folder.path().join("manifest.csv");
        std::fs::write(&manifest, text).expect("written");
        Audit::run(&old, &new, &manifest, extra)
    }

    fn store(&self, name: &str, rows: &[Vec<f64>]) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.npy"));
        write_npy(&path, rows);
        std::fs::write(path.with_extension("ids.txt"), self.ids.join("\n") + "\n")
            .expect("written");
        path
    }
}

/// NumPy's format, version 1.0, little-endian f32, C order.
pub fn write_npy(path: &Path, rows: &[Vec<f64>]) {
    let values = rows.iter().flatten().map(|&value| value as f32);
    let values: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    let bytes = crate::embedding::npy("<f4", &[rows.len(), rows[0].len()], &values);
    std::fs::write(path, bytes).expect("written");
}

fn normal(rng: &mut ChaCha8Rng) -> Vec<f64> {
    // Sum of twelve uniforms: near enough to normal for a made-up space.
    (0..DIM)
        .map(|_| (0..12).map(|_| rng.gen_range(0.0..1.0)).sum::<f64>() - 6.0)
        .collect()
}

fn add(a: &[f64], b: &[f64], scale: f64) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x + scale * y).collect()
}

fn unit(row: Vec<f64>) -> Vec<f64> {
    let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
    row.into_iter().map(|v| v / norm).collect()
}

/// Rows times one random rotation (Gram-Schmidt of a random matrix).
fn rotated(rows: &[Vec<f64>], seed: u64) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut basis: Vec<Vec<f64>> = Vec::new();
    while basis.len() < DIM {
        let mut row = normal(&mut rng);
        for other in &basis {
            let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            row = add(&row, other, -dot);
        }
        basis.push(unit(row));
    }
    rows.iter()
        .map(|row| {
            basis
                .iter()
                .map(|axis| row.iter().zip(axis).map(|(a, b)| a * b).sum())
                .collect()
        })
        .collect()
}

#[test]
fn a_rotation_keeps_the_geometry_and_breaks_the_search() {
    let world = World::new(60, 4, 4, 1.2, 1);
    let audit = world.audit(&rotated(&world.old, 2));
    assert_eq!(
        audit.verdict(),
        "full-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
    let reason = audit.report["verdict"]["reason"]
        .as_str()
        .expect("a reason");
    assert!(reason.contains("No gain"), "{reason}");
    assert!(audit.measure("new->old", "CMC@1") < 0.1);
    let inside = audit.measure("new->new", "mAP") - audit.measure("old->old", "mAP");
    assert!(
        inside.abs() < 1e-3,
        "the geometry inside is the same: {inside}"
    );
}

/// A quantised copy whose quantiser negates an eighth of the channels: the geometry inside holds, so new->new is old->old
/// but for the rounding, and the old gallery is searched wrongly.
#[test]
fn a_quantised_copy_may_hold_inside_and_break_against_the_old_gallery() {
    const STEP: f64 = 1.0 / 64.0;
    let world = World::new(80, 4, 4, 1.2, 15);
    let quantised: Vec<Vec<f64>> = world
        .old
        .iter()
        .map(|row| {
            let channels = row.iter().enumerate();
            channels
                .map(|(channel, value)| {
                    let rounded = (value / STEP).round() * STEP;
                    if channel % 8 == 0 { -rounded } else { rounded }
                })
                .collect()
        })
        .collect();
    let audit = world.audit(&quantised);
    assert_eq!(
        audit.verdict(),
        "full-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
    assert_eq!(audit.check("upgrade-worth")["state"], "pass");
    assert_eq!(audit.check("cross-test-change")["state"], "fail");
    // It breaks, and not into nothing: queries still find something.
    assert!(audit.measure("new->old", "CMC@1") > 0.2);
}

#[test]
fn a_better_model_in_the_same_frame_may_skip() {
    let world = World::new(80, 4, 4, 1.2, 3);
    let audit = world.audit(&denoised(&world));
    assert_eq!(
        audit.verdict(),
        "skip-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
    assert_eq!(audit.report["verdict"]["bct_compatible"], true);
}

/// Each item moved towards its identity's mean: the same frame, less noise.
fn denoised(world: &World) -> Vec<Vec<f64>> {
    let n = world.old.len();
    (0..n)
        .map(|i| {
            let members = (0..n).filter(|&j| world.identities[j] == world.identities[i]);
            let sum = members.fold(vec![0.0; DIM], |sum, j| add(&sum, &world.old[j], 1.0));
            unit(add(&world.old[i], &unit(sum), 0.7))
        })
        .collect()
}

/// The mean improves while 3 of 60 identities move to another place: new->new finds them, new->old does not.
#[test]
fn a_better_mean_does_not_hide_identities_that_moved_away() {
    let world = World::new(60, 15, 4, 1.2, 4);
    let new = three_moved_away(&world);
    let audit = world.audit(&new);
    let change = audit.check("cross-test-change");
    assert!(
        change["value"].as_f64().expect("D") > 0.0,
        "the mean improves: {change}"
    );
    assert_ne!(
        audit.verdict(),
        "skip-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
    assert_ne!(audit.check("excess-flips")["state"], "pass");
    assert_eq!(audit.failing_slices(), COLLAPSED);
    assert!(
        audit.report["verdict"]["reason"]
            .as_str()
            .is_some_and(|reason| COLLAPSED.iter().all(|name| reason.contains(name))),
        "{}",
        audit.report["verdict"]["reason"]
    );
}

/// Less noise than the old model, but identities 0 to 2 at another place.
fn three_moved_away(world: &World) -> Vec<Vec<f64>> {
    let mut new = denoised(world);
    let moved = rotated(&new, 40);
    for (i, row) in new.iter_mut().enumerate() {
        if ["id0", "id1", "id2"].contains(&world.identities[i].as_str()) {
            row.clone_from(&moved[i]);
        }
    }
    new
}

/// The identities that are damaged below, as slices.
const COLLAPSED: [&str; 3] = ["identity=id0", "identity=id1", "identity=id2"];

/// The mean improves while 3 of 60 identities are lost by the new model itself: no backfill would heal them, so they are
/// no excess flips, and only their slices see them.
#[test]
fn a_better_mean_does_not_hide_identities_that_the_new_model_lost() {
    let world = World::new(60, 15, 4, 1.2, 4);
    let mut new = denoised(&world);
    let lost = world.noisy(&world.old, 12.0, 41);
    for (i, row) in new.iter_mut().enumerate() {
        if ["id0", "id1", "id2"].contains(&world.identities[i].as_str()) {
            row.clone_from(&lost[i]);
        }
    }
    let audit = world.audit(&new);
    assert!(
        audit.check("cross-test-change")["value"]
            .as_f64()
            .expect("D")
            > 0.0
    );
    assert_eq!(audit.check("excess-flips")["state"], "pass");
    assert_eq!(audit.failing_slices(), COLLAPSED);
    assert_ne!(
        audit.verdict(),
        "skip-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
}

/// What moved away in the frame comes back when its own rows are re-embedded: the plan finds them, in the right order.
#[test]
fn moved_identities_are_a_partial_backfill_that_starts_with_them() {
    let world = World::new(60, 15, 4, 1.2, 4);
    let new = three_moved_away(&world);
    let audit = world.audit(&new);
    assert_eq!(
        audit.verdict(),
        "partial-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
    let plan = &audit.report["backfill"];
    let first: std::collections::BTreeSet<&str> = plan["first_subclusters"]
        .as_array()
        .expect("names")
        .iter()
        .map(|name| name.as_str().expect("a name"))
        .map(|name| name.split('/').next().expect("an identity"))
        .collect();
    assert_eq!(first, ["id0", "id1", "id2"].into());
    let beta_star = plan["beta_star"].as_f64().expect("a beta*");
    assert!(beta_star <= 0.1, "12 of 240 rows are broken: {beta_star}");
    // The table lists them first, and no row is missing.
    let csv = std::fs::read_to_string(audit.folder.path().join("report/backfill.csv"))
        .expect("the plan is written");
    let rows: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(rows.len(), 240);
    for row in &rows[..12] {
        let identity = row.split(',').nth(2).expect("an identity");
        assert!(["id0", "id1", "id2"].contains(&identity), "{row}");
    }
}

#[test]
fn shuffled_labels_never_skip() {
    for share in [1.0, 0.8] {
        let mut world = World::new(60, 4, 4, 1.0, 5);
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let chosen: Vec<usize> = (0..world.ids.len())
            .filter(|_| rng.gen_range(0.0..1.0) < share)
            .collect();
        let mut labels: Vec<String> = chosen
            .iter()
            .map(|&i| world.identities[i].clone())
            .collect();
        labels.shuffle(&mut rng);
        for (&i, label) in chosen.iter().zip(labels) {
            world.identities[i] = label;
        }
        let audit = world.audit(&rotated(&world.old, 7));
        assert_eq!(
            audit.verdict(),
            "inconclusive",
            "{share}: {}",
            audit.report["verdict"]["reason"]
        );
        assert_eq!(audit.check("assay-sensitivity")["state"], "fail", "{share}");
        assert_eq!(audit.output.status.code(), Some(3));
    }
}

#[test]
fn a_model_that_loses_even_refreshed_is_no_upgrade() {
    let world = World::new(60, 4, 4, 1.0, 8);
    let audit = world.audit(&world.noisy(&world.old, 3.0, 9));
    assert_eq!(
        audit.verdict(),
        "do-not-upgrade",
        "{}",
        audit.report["verdict"]["reason"]
    );
}

#[test]
fn twelve_queries_decide_nothing() {
    let world = World::new(12, 1, 4, 1.0, 10);
    let audit = world.audit(&world.noisy(&world.old, 0.1, 11));
    assert_eq!(
        audit.verdict(),
        "inconclusive",
        "{}",
        audit.report["verdict"]["reason"]
    );
    assert_eq!(audit.check("query-identities")["state"], "fail");
}

#[test]
fn a_collapsed_new_model_is_named_and_never_skips() {
    let world = World::new(60, 4, 4, 1.0, 12);
    let audit = world.audit(&vec![world.old[0].clone(); world.old.len()]);
    assert_ne!(audit.verdict(), "skip-backfill");
    assert!(
        audit.findings().contains(&"collapsed-embeddings"),
        "{:?}",
        audit.findings()
    );
}

#[test]
fn a_collapsed_old_model_cannot_judge() {
    let mut world = World::new(60, 4, 4, 1.0, 13);
    let new = world.old.clone();
    world.old = vec![new[0].clone(); new.len()];
    let audit = world.audit(&new);
    assert_eq!(
        audit.verdict(),
        "inconclusive",
        "{}",
        audit.report["verdict"]["reason"]
    );
}

#[test]
fn recordings_play_in_the_report() {
    let world = World::new(60, 4, 4, 1.0, 15);
    let mut manifest = "id,path,identity,role\n".to_owned();
    for ((id, identity), role) in world.ids.iter().zip(&world.identities).zip(&world.roles) {
        std::fs::write(world.folder.path().join(format!("{id}.wav")), "RIFF").expect("written");
        manifest += &format!("{id},{id}.wav,{identity},{role}\n");
    }
    let new = rotated(&world.old, 16);
    let audit = world.audit_with(&new, &manifest, &[]);
    let html = audit.file("report.html");
    assert!(
        html.contains("<audio controls preload=\"none\" src=\"data:audio/wav;base64,UklGRg==\"")
    );
    assert!(!html.contains("not shown</span>"));
    let shown = &audit.report["worst_flips"][0]["query"];
    assert!(shown["sound"].as_str().expect("a path").ends_with(".wav"));
    assert!(shown["image"].is_null());
}

#[test]
fn scores_of_any_size_are_drawn() {
    let world = World::new(110, 2, 3, 1.0, 17);
    let new = world.noisy(&world.old, 0.3, 18);
    let labels = world.audit(&new);
    for scale in [1e-12, 1e6] {
        let scaled = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
            rows.iter()
                .map(|row| row.iter().map(|v| scale * v).collect())
                .collect()
        };
        let large = World {
            folder: tempfile::tempdir().expect("a folder"),
            old: scaled(&world.old),
            ids: world.ids.clone(),
            identities: world.identities.clone(),
            roles: world.roles.clone(),
        };
        let mut manifest = "id,identity,role\n".to_owned();
        for ((id, identity), role) in large.ids.iter().zip(&large.identities).zip(&large.roles) {
            manifest += &format!("{id},{identity},{role}\n");
        }
        let audit = large.audit_with(&scaled(&new), &manifest, &["--similarity", "ip"]);
        assert_eq!(audit.verdict(), labels.verdict(), "{scale}");
        assert!(audit.file("figures/scores.svg").contains("matching pairs"));
    }
}

#[test]
fn nan_and_zero_embeddings_are_errors_that_name_the_item() {
    let world = World::new(30, 2, 2, 1.0, 14);
    for bad in [f64::NAN, 0.0] {
        let mut rows = world.old.clone();
        rows[5] = vec![bad; DIM];
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.audit(&rows)));
        let message = *result
            .err()
            .expect("no report")
            .downcast::<String>()
            .expect("a message");
        assert!(message.contains("1-1"), "{message}");
    }
}

#[test]
fn without_labels_a_rotation_is_caught_and_little_noise_is_not() {
    let world = World::new(60, 4, 4, 0.8, 31);
    let audit = world.audit_without_labels(&rotated(&world.old, 32));
    let reason = &audit.report["verdict"]["reason"];
    assert_eq!(audit.verdict(), "full-backfill", "{reason}");
    assert!(audit.measure("new->old", "agreement CMC@1") < 0.1);
    let audit = world.audit_without_labels(&world.noisy(&world.old, 0.1, 33));
    let reason = &audit.report["verdict"]["reason"];
    assert_eq!(audit.verdict(), "skip-backfill", "{reason}");
}

/// Even where nothing clusters, neighbours are neighbours.
#[test]
fn without_labels_a_rotation_of_a_space_without_clusters_is_caught() {
    let world = World::new(600, 1, 1, 0.0, 34);
    let mut rng = ChaCha8Rng::seed_from_u64(35);
    let world = World {
        old: world.old.iter().map(|_| unit(normal(&mut rng))).collect(),
        ..world
    };
    let audit = world.audit_without_labels(&rotated(&world.old, 36));
    assert_ne!(
        audit.verdict(),
        "skip-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
    let audit = world.audit_without_labels(&world.noisy(&world.old, 6.0, 37));
    assert_ne!(
        audit.verdict(),
        "skip-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
}

#[test]
fn without_labels_clusters_that_moved_away_are_named() {
    let world = World::new(60, 15, 4, 0.8, 4);
    let audit = world.audit_without_labels(&three_moved_away(&world));
    assert_ne!(
        audit.verdict(),
        "skip-backfill",
        "{}",
        audit.report["verdict"]["reason"]
    );
    // A cluster is named after the item in its middle, here `0-17` of identity 0.
    let moved = |slice: &str| {
        let medoid = slice.strip_prefix("identity=around ");
        medoid.is_some_and(|id| ["0", "1", "2"].contains(&id.split('-').next().expect("a part")))
    };
    let failing = audit.failing_slices();
    assert_eq!(failing.len(), 3, "{failing:?}");
    assert!(failing.iter().all(|slice| moved(slice)), "{failing:?}");
}

#[test]
fn without_labels_too_little_to_judge_is_inconclusive() {
    // A dozen queries; a collapsed old model, which is one cluster.
    let few = World::new(12, 1, 4, 0.8, 38);
    let audit = few.audit_without_labels(&few.noisy(&few.old, 0.1, 39));
    let reason = &audit.report["verdict"]["reason"];
    assert_eq!(audit.verdict(), "inconclusive", "{reason}");
    let world = World::new(60, 4, 4, 0.8, 42);
    let collapsed = World {
        old: vec![world.old[0].clone(); world.old.len()],
        ..world
    };
    let audit = collapsed.audit_without_labels(&collapsed.noisy(&collapsed.old, 0.8, 43));
    let reason = &audit.report["verdict"]["reason"];
    assert_eq!(audit.verdict(), "inconclusive", "{reason}");
    assert_eq!(audit.report["clusters"]["n_clusters"], 1);
}
