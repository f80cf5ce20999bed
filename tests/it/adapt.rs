//! `compat-audit adapt`: what it writes is an ONNX model that does what its report says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::qrels::judgements_of_text;
use crate::run::{Audit, compat_audit, data, stderr, stdout};

/// A folder, and the arguments that write `new.onnx` and `report` there.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("adapted.onnx")
    }

    fn arguments(&self, probe: &str, old: &Path, new: &Path, more: &[&str]) -> Vec<String> {
        let text = |path: &Path| path.to_str().expect("a text").to_owned();
        let mut words = vec!["adapt".to_owned(), text(old), text(new), text(&data(probe))];
        words.extend(["--out".to_owned(), text(&self.model())]);
        words.extend([
            "--report".to_owned(),
            text(&self.folder.path().join("report")),
        ]);
        words.extend(more.iter().map(|&word| word.to_owned()));
        words
    }

    fn adapt(&self, probe: &str, old: &str, new: &str, more: &[&str]) -> Output {
        let [old, new] = [old, new].map(|name| data(probe).join(name));
        compat_audit(self.arguments(probe, &old, &new, more))
    }

    fn report(&self) -> serde_json::Value {
        let path = self.folder.path().join("report/report.json");
        let text = std::fs::read_to_string(path).expect("a report");
        serde_json::from_str(&text).expect("JSON")
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("readable");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

fn map_of(report: &serde_json::Value, pairing: &str) -> f64 {
    let pairings = report["pairings"].as_array().expect("pairings");
    let found = pairings
        .iter()
        .find(|found| found["pairing"] == pairing)
        .expect("tested");
    let measures = found["measures"].as_array().expect("measures");
    let map = measures
        .iter()
        .find(|row| row["measure"] == "mAP")
        .expect("mAP");
    map["estimate"]["value"].as_f64().expect("a number")
}

#[test]
fn a_rotated_model_is_cured_on_identities_it_has_not_seen() {
    let place = Place::new();
    let output = place.adapt("emoji", "old.onnx", "old_rotated.onnx", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("held out 40"),
        "{}",
        stderr(&output)
    );
    let report = place.report();
    let [today, skipped] = ["old->old", "new->old"].map(|pairing| map_of(&report, pairing));
    assert!((today - skipped).abs() <= 0.005, "{today} {skipped}");
    assert_eq!(report["verdict"]["verdict"], "skip-backfill");
    // It says what it is, on the first screen and in the provenance.
    let made = &report["new"]["adaptation"];
    assert_eq!(
        (&made["fitted"], &made["held_out"]),
        (&160.into(), &40.into())
    );
    assert_eq!(made["old_model"], report["old"]["hash"]);
    // An orthogonal head changes no angle between new embeddings.
    let own = &made["own_search"];
    let [before, after] = ["before", "after"].map(|name| own[name].as_f64().expect("a number"));
    let found = map_of(&report, "new->new");
    assert!((before - after).abs() < 1e-3 && (after - found).abs() < 1e-3);
    let html =
        std::fs::read_to_string(place.folder.path().join("report/report.html")).expect("a page");
    let first = &html[..html.find("<section id=\"checks\">").expect("checks")];
    assert!(
        first.contains("the new model is an adapted one"),
        "said first"
    );
    assert!(
        first.contains("when it was made, its head took ") && first.contains(" held-out queries"),
        "and how that changed"
    );
    assert!(html.contains("160 identities fitted and chosen on, 40 held out, seed 0"));
    assert!(
        stdout(&output).starts_with("READ FIRST: adapted-model"),
        "{}",
        stdout(&output)
    );
    assert_eq!(
        place.files(),
        ["adapted.onnx", "report"],
        "nothing else is left"
    );

    // Any later audit tests it on the same identities by itself.
    let emoji = data("emoji");
    let again = Audit::run(&emoji.join("old.onnx"), &place.model(), &emoji, &[]);
    for part in ["pairings", "checks", "verdict", "probe", "findings"] {
        assert_eq!(again.report[part], report[part], "{part}");
    }
    assert_eq!(again.report["probe"]["query_identities"], 40);

    // Under other names what the head has seen is known by its pictures.
    let manifest = std::fs::read_to_string(emoji.join("labels.csv")).expect("the manifest");
    let mut lines = manifest.lines();
    let header = lines.next().expect("a header");
    let columns: Vec<&str> = header.split(',').collect();
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let (path, identity) = column("path").zip(column("identity")).expect("columns");
    let renamed = lines.map(|line| {
        let mut cells: Vec<String> = line.split(',').map(str::to_owned).collect();
        cells[path] = emoji.join(&cells[path]).display().to_string();
        cells[identity].insert(0, 'x');
        cells.join(",") + "\n"
    });
    let manifest = format!("{header}\n{}", renamed.collect::<String>());
    let other = place.folder.path().join("renamed.csv");
    std::fs::write(&other, manifest).expect("written");
    let words =
        [emoji.join("old.onnx"), place.model(), other].map(|path| path.display().to_string());
    let [old, new, other] = words.map(PathBuf::from);
    let renamed = Audit::run(&old, &new, &other, &[]);
    assert_eq!(
        renamed.report["probe"]["queries"],
        report["probe"]["queries"]
    );
    assert_eq!(
        map_of(&renamed.report, "new->old"),
        map_of(&report, "new->old")
    );
    let findings = renamed.report["findings"].as_array().expect("findings");
    let said = findings
        .iter()
        .find(|finding| finding["code"] == "adapted-model")
        .expect("said");
    let message = said["message"].as_str().expect("a text");
    assert!(
        message.contains("are new to it, by name and by input"),
        "{message}"
    );
    assert_eq!(said["severity"], "warning");
}

#[test]
fn an_incompatible_model_gets_near_and_keeps_its_own_search() {
    let place = Place::new();
    let output = place.adapt(
        "emoji",
        "old.onnx",
        "new_incompatible.onnx",
        &["--head", "linear"],
    );
    let code = output.status.code();
    assert!(
        code == Some(1) || code == Some(3),
        "no cure, and it says so: {}",
        stderr(&output)
    );
    let adapted = place.report();
    let emoji = data("emoji");
    let raw = Audit::run(
        &emoji.join("old.onnx"),
        &emoji.join("new_incompatible.onnx"),
        &emoji,
        &[],
    );
    assert!(map_of(&raw.report, "new->old") < 0.05);
    assert!(
        map_of(&adapted, "new->old") > 0.4,
        "{}",
        map_of(&adapted, "new->old")
    );
    assert_eq!(
        adapted["new"]["adaptation"]["head"],
        "linear, trained with NCCL"
    );
    assert!(adapted["new"]["hash"] != raw.report["new"]["hash"]);
}

#[test]
fn models_of_every_kind_take_a_head() {
    // Each run compares what the file gives with the head in memory, to 1e-5, and fails where they differ.
    for (new, more) in [
        ("f16.onnx", &[][..]),
        ("any_size.onnx", &[]),
        ("fixed_batch_4.onnx", &[]),
        ("external_a/model.onnx", &[]),
    ] {
        let place = Place::new();
        let new = data("odd_models").join(new);
        let more = [&["--head", "closed-form", "--fail-on", "never"], more].concat();
        let old = data("emoji").join("old.onnx");
        let config = place.folder.path().join("audit.toml");
        let text = "[new]\nsize = 8\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n[old]\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n";
        std::fs::write(&config, text).expect("written");
        let mut words = place.arguments("emoji", &old, &new, &more);
        words.extend([
            "--config".to_owned(),
            config.to_str().expect("a text").to_owned(),
        ]);
        let output = compat_audit(words);
        assert!(
            output.status.success(),
            "{}: {}",
            new.display(),
            stderr(&output)
        );
        let report = place.report();
        assert_eq!(report["new"]["dim"], 64, "the old model's");
        let is_external = new.ends_with("model.onnx");
        assert_eq!(
            place.folder.path().join("weights.bin").is_file(),
            is_external
        );
    }
}

#[test]
fn token_states_are_pooled_inside_the_graph() {
    let place = Place::new();
    let output = place.adapt(
        "tiny_text",
        "old.onnx",
        "new.onnx",
        &["--head", "closed-form", "--fail-on", "never"],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(place.report()["new"]["adaptation"]["units"], "identities");
}

/// What says how texts are cut goes with the model.
#[test]
fn files_beside_a_text_model_are_written_beside_the_adapted_one() {
    let place = Place::new();
    let models = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(models.path().join("1_Pooling")).expect("made");
    for name in [
        "old.onnx",
        "new.onnx",
        "tokenizer.json",
        "1_Pooling/config.json",
    ] {
        let to = models.path().join(name);
        std::fs::copy(data("tiny_text").join(name), to).expect("copied");
    }
    let sidecar = "sentence_bert_config.json";
    std::fs::write(models.path().join(sidecar), r#"{"max_seq_length": 6}"#).expect("written");
    let [old, new] = ["old.onnx", "new.onnx"].map(|name| models.path().join(name));
    let more = ["--head", "closed-form", "--fail-on", "never"];
    let output = compat_audit(place.arguments("tiny_text", &old, &new, &more));
    assert!(output.status.success(), "{}", stderr(&output));
    let files = place.files();
    assert!(files.contains(&sidecar.to_owned()), "{files:?}");
    let settings = place.report()["settings"].clone();
    let settings = settings.as_array().expect("settings").iter();
    let lengths: Vec<_> = settings
        .filter(|setting| {
            setting["key"]
                .as_str()
                .is_some_and(|key| key.ends_with("max_length"))
        })
        .map(|setting| setting["value"].clone())
        .collect();
    assert_eq!(lengths, [6, 6]);
}

#[test]
fn without_labels_items_are_held_out() {
    let place = Place::new();
    let more = ["--profile", "label-free", "--fail-on", "never"];
    let output = place.adapt("emoji", "old.onnx", "old_rotated.onnx", &more);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = place.report();
    assert_eq!(report["new"]["adaptation"]["units"], "items");
    assert_eq!(report["verdict"]["verdict"], "skip-backfill");
    let codes: Vec<_> = report["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|finding| &finding["code"])
        .collect();
    assert!(codes.contains(&&"label-free".into()) && codes.contains(&&"adapted-model".into()));
    // Clusters choose; one identity for all would find everything.
    let said = stderr(&output);
    let chosen_by = "agreement mAP on 71 validation queries: old->old 0.";
    assert!(said.contains(chosen_by), "{said}");
    let own = report["new"]["adaptation"]["own_search"].clone();
    assert_eq!(own["measure"], "agreement mAP");
    assert!(
        own["before"].as_f64().is_some_and(|before| before < 0.99),
        "{own}"
    );
}

#[test]
fn judged_pairs_are_split_by_item() {
    let place = Place::new();
    let probe = tempfile::tempdir().expect("a folder");
    judgements_of_text(probe.path());
    let manifest = std::fs::read_to_string(data("text/labels.jsonl")).expect("the manifest");
    let unlabelled = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        row.as_object_mut().expect("an object").remove("label");
        format!("{row}\n")
    };
    let manifest: String = manifest.lines().map(unlabelled).collect();
    std::fs::write(probe.path().join("items.jsonl"), manifest).expect("written");
    std::fs::copy(data("text/tokens.npz"), probe.path().join("tokens.npz")).expect("copied");
    let [old, new] = ["wl64.onnx", "wl256.onnx"].map(|name| data("text").join(name));
    let mut words = place.arguments("text", &old, &new, &["--head", "linear"]);
    let path = |name: &str| probe.path().join(name).to_str().expect("a text").to_owned();
    words[3] = path("items.jsonl");
    words.extend(["--fail-on", "never", "--qrels"].map(str::to_owned));
    words.push(path("judged.txt"));
    let output = compat_audit(words);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = place.report();
    assert_eq!(report["new"]["adaptation"]["units"], "items");
    assert_eq!(
        report["probe"]["queries"],
        report["new"]["adaptation"]["own_search"]["queries"]
    );
    assert!(map_of(&report, "new->old") > 0.5 * map_of(&report, "old->old"));
}

#[test]
fn a_quantised_model_takes_a_head() {
    let place = Place::new();
    let more = ["--head", "closed-form", "--batch", "16", "--no-cache"];
    let output = place.adapt("emoji", "old.onnx", "old_int8.onnx", &more);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(place.report()["verdict"]["verdict"], "skip-backfill");
}

#[test]
fn bad_input_is_refused_before_anything_is_written() {
    let emoji = data("emoji");
    let [old, new] = ["old.onnx", "new_incompatible.onnx"].map(|name| emoji.join(name));
    let refused = |place: &Place, words: &[String], said: &[&str]| {
        let output = compat_audit(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let text = stderr(&output);
        said.iter()
            .for_each(|said| assert!(text.contains(said), "{said}: {text}"));
        assert!(text.contains("hint: "), "{text}");
        assert!(!place.model().is_file());
    };
    let place = Place::new();
    let ip = place.arguments("emoji", &old, &new, &["--similarity", "ip"]);
    refused(
        &place,
        &ip,
        &["a head is fitted for cosine similarity", "ip"],
    );
    let elsewhere = |out: &str| {
        let mut words = place.arguments("emoji", &old, &new, &[]);
        words[5] = out.to_owned();
        words
    };
    let missing = place.folder.path().join("no/such/new.onnx");
    refused(
        &place,
        &elsewhere(missing.to_str().expect("a text")),
        &["cannot create a file in", "no/such"],
    );
    // Nobody may write there, not even root.
    #[cfg(target_os = "linux")]
    refused(
        &place,
        &elsewhere("/proc/new.onnx"),
        &["cannot create a file in", "/proc"],
    );
    let folder = place.folder.path().to_str().expect("a text");
    refused(&place, &elsewhere(folder), &["is a folder"]);
    let copy = place.folder.path().join("copy.onnx");
    std::fs::copy(&new, &copy).expect("copied");
    let own = copy.to_str().expect("a text").to_owned();
    let mut words = elsewhere(&own);
    words[2].clone_from(&own);
    words.push("--force".into());
    refused(&place, &words, &["is one of the two models"]);
    refused(&place, &elsewhere(&own), &["exists already", "--force"]);
    let before = std::fs::read(&new).expect("there");
    assert!(std::fs::read(&copy).expect("there") == before, "untouched");

    // Ten identities: the first rows of the manifest, one identity after the other.
    let manifest = std::fs::read_to_string(emoji.join("labels.csv")).expect("there");
    let mut lines = manifest.lines();
    let head = lines.next().expect("a head");
    let mut seen = std::collections::BTreeSet::new();
    let few: Vec<String> = lines
        .filter(|line| {
            let identity = line.split(',').nth(1).expect("an identity").to_owned();
            seen.contains(&identity) || seen.len() < 10 && seen.insert(identity)
        })
        .map(|line| format!("{}/{line}", emoji.display()))
        .collect();
    let probe = place.folder.path().join("few.csv");
    std::fs::write(&probe, format!("{head}\n{}\n", few.join("\n"))).expect("written");
    let mut words = place.arguments("emoji", &old, &new, &[]);
    words[3] = probe.to_str().expect("a text").to_owned();
    refused(
        &place,
        &words,
        &["too few identities", "25 or more, found 10", "few.csv"],
    );
}

#[test]
fn an_adapted_model_is_not_adapted_again() {
    let place = Place::new();
    let more = ["--head", "closed-form", "--fail-on", "never"];
    let output = place.adapt("emoji", "old.onnx", "old_rotated.onnx", &more);
    assert!(output.status.success(), "{}", stderr(&output));
    let second = Place::new();
    let old = data("emoji").join("old.onnx");
    let output = compat_audit(second.arguments("emoji", &old, &place.model(), &more));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("it is an adapted model already"),
        "{}",
        stderr(&output)
    );
    assert_eq!(second.files(), Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn an_interrupted_training_goes_on_to_the_same_model() {
    let more = ["--head", "linear", "--fail-on", "never"];
    let whole = Place::new();
    let output = whole.adapt("emoji", "old.onnx", "new_incompatible.onnx", &more);
    assert!(output.status.success(), "{}", stderr(&output));

    let place = Place::new();
    let [old, new] = ["old.onnx", "new_incompatible.onnx"].map(|name| data("emoji").join(name));
    let words = place.arguments("emoji", &old, &new, &more);
    let mut running = Command::new(env!("CARGO_BIN_EXE_compat-audit"))
        .args(&words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let checkpoint = place.folder.path().join("adapted.onnx.checkpoint");
    let began = Instant::now();
    while !checkpoint.is_file() {
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint");
        assert!(
            running.try_wait().expect("it runs").is_none(),
            "it ended before"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = running.id().to_string();
    let killed = Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .expect("kill");
    assert!(killed.success());
    assert_eq!(running.wait().expect("it ends").code(), Some(130));
    assert_eq!(place.files(), ["adapted.onnx.checkpoint"]);

    let output = compat_audit(&words);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("taken up again"),
        "{}",
        stderr(&output)
    );
    assert_eq!(place.files(), ["adapted.onnx", "report"]);
    let read = |place: &Place| std::fs::read(place.model()).expect("written");
    assert!(read(&whole) == read(&place), "the same bytes");
}
