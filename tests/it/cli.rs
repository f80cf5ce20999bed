//! The command line as its user meets it: errors, exit codes, what is left behind.

use std::path::Path;

use crate::run::{Audit, compat_audit, data, stderr, stdout};

/// Runs an audit that must end with exit 2, write nothing to `out`, and print one error with a hint.
fn refused(args: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("report");
    let mut all = args.to_vec();
    let out_text = out.to_str().expect("UTF-8").to_owned();
    all.extend(["--out", &out_text]);
    let output = compat_audit(&all);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(!out.exists(), "nothing is half-written");
    assert!(text.contains("error: "), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn path(name: &str) -> String {
    data(name).to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_probe_without_readable_files_is_refused_however_many_may_be_bad() {
    let folder = tempfile::tempdir().expect("a folder");
    let labels = std::fs::read_to_string(data("emoji/labels.csv")).expect("the labels");
    let manifest = folder.path().join("labels.csv");
    std::fs::write(&manifest, labels).expect("written");
    let probe = manifest.to_str().expect("UTF-8");
    let (old, new) = (path("emoji/old.onnx"), path("emoji/new_bct_near.onnx"));
    let text = refused(&[&old, &new, probe, "--max-bad-items", "2000"]);
    let said =
        "1073 items cannot be read, and without them there are 0 queries and 0 gallery items";
    assert!(text.contains(said) && text.contains("hint: "), "{text}");
}

#[test]
fn help_and_version_exit_0() {
    for args in [
        vec!["--help"],
        vec!["--version"],
        vec!["--version", "--verbose"],
        vec!["runtime", "--help"],
    ] {
        let output = compat_audit(&args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn usage_errors_exit_2() {
    for args in [
        vec![],
        vec!["a.onnx"],
        vec!["--no-such-flag"],
        vec!["rntime"],
    ] {
        assert_eq!(compat_audit(&args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_mistyped_path_never_exits_0() {
    let (old, new, probe) = (
        path("emoji/old.onnx"),
        path("emoji/old_int8.onnx"),
        path("emoji"),
    );
    for wrong in 0..3 {
        let mut paths = [old.clone(), new.clone(), probe.clone()];
        paths[wrong] = paths[wrong].replace("emoji", "emojy");
        let text = refused(&[&paths[0], &paths[1], &paths[2]]);
        assert!(text.contains("emojy"), "{text}");
    }
}

#[test]
fn unknown_config_keys_are_refused_with_a_suggestion() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("audit.toml");
    std::fs::write(&config, "[policy]\nmargn = 0.02\n").expect("written");
    let text = refused(&[
        &path("emoji/old.onnx"),
        &path("emoji/old.onnx"),
        &path("emoji"),
        "--config",
        config.to_str().expect("UTF-8"),
    ]);
    assert!(
        text.contains("policy.margn") && text.contains("hint: did you mean `policy.margin`?"),
        "{text}"
    );
}

#[test]
fn strict_refuses_assumed_preprocessing() {
    let folder = tempfile::tempdir().expect("a folder");
    let nothing = folder.path().join("nothing.toml");
    std::fs::write(&nothing, "").expect("written");
    let nothing = nothing.to_str().expect("UTF-8");
    let (old, new, probe) = (
        path("emoji/old.onnx"),
        path("emoji/old_int8.onnx"),
        path("emoji"),
    );
    let text = refused(&[&old, &new, &probe, "--strict", "--config", nothing]);
    assert!(
        text.contains("old model") && text.contains("preprocessing"),
        "{text}"
    );
    let audit = Audit::run(
        old.as_ref(),
        new.as_ref(),
        probe.as_ref(),
        &["--config", nothing],
    );
    assert!(audit.findings().contains(&"preprocessing-assumed"));
    // The data's own audit.toml says it.
    let audit = Audit::run(old.as_ref(), new.as_ref(), probe.as_ref(), &["--strict"]);
    assert!(!audit.findings().contains(&"preprocessing-assumed"));
}

#[cfg(unix)]
#[test]
fn an_interrupted_audit_leaves_nothing_half_written() {
    // A loaded machine may be slower to start or quicker to finish than the delay supposes; then another is tried.
    let stopped_after = |signal: &str, expected: i32, milliseconds: u64| {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("report");
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_compat-audit"))
            .args([
                path("emoji/old.onnx"),
                path("emoji/new_bct_near.onnx"),
                path("emoji"),
            ])
            .args([
                "--no-cache",
                "--threads",
                "1",
                "--out",
                out.to_str().expect("UTF-8"),
            ])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("started");
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        let pid = child.id().to_string();
        // It fails when the audit has ended already.
        let _ = std::process::Command::new("kill")
            .args([signal, &pid])
            .status()
            .expect("kill");
        let code = child.wait().expect("ended").code();
        if code == Some(expected) {
            // A report is moved to its place in one step; the interrupt may come after it and before the end.
            let left: Vec<_> = std::fs::read_dir(folder.path())
                .expect("readable")
                .map(|entry| entry.expect("readable").path())
                .collect();
            let whole = left == [out.clone()] && out.join("report.json").is_file();
            assert!(left.is_empty() || whole, "{left:?} is left");
        }
        code
    };
    for (signal, expected) in [("-INT", 130), ("-TERM", 143)] {
        let after = |milliseconds| stopped_after(signal, expected, milliseconds);
        let codes: Vec<Option<i32>> = [300, 800, 1500, 150].map(after).to_vec();
        assert!(codes.contains(&Some(expected)), "{signal}: {codes:?}");
    }
}

#[test]
fn an_impossible_device_ends_the_run() {
    let text = refused(&[
        &path("emoji/old.onnx"),
        &path("emoji/old_int8.onnx"),
        &path("emoji"),
        "--device",
        "tensorrt:7",
        "--no-cache",
    ]);
    assert!(text.to_lowercase().contains("tensorrt"), "{text}");
}

#[test]
fn a_device_that_is_named_is_not_passed_over_where_no_model_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new, manifest] = stored_probe(folder.path(), 3, 4);
    let text = refused(&[&old, &new, &manifest, "--device", "cuda:7"]);
    refused_with(&text, &["cuda:7"]);
}

/// A copy of a few emoji with a manifest.
fn small_probe(folder: &Path) -> std::path::PathBuf {
    let images = folder.join("images");
    std::fs::create_dir_all(&images).expect("a folder");
    let mut manifest = "path,identity,role\n".to_owned();
    for (index, line) in std::fs::read_to_string(data("emoji/labels.csv"))
        .expect("labels")
        .lines()
        .skip(1)
        .enumerate()
    {
        let mut cells = line.split(',');
        let (path, identity) = (cells.next().expect("path"), cells.next().expect("identity"));
        let role = cells.nth(1).expect("role");
        if index % 12 == 0 {
            std::fs::copy(data("emoji").join(path), folder.join(path)).expect("copied");
            manifest += &format!("{path},{identity},{role}\n");
        }
    }
    let file = folder.join("manifest.csv");
    std::fs::write(&file, manifest).expect("written");
    file
}

#[test]
fn a_corrupt_image_is_an_error_unless_tolerated() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = folder.path().join("probe");
    std::fs::create_dir(&probe).expect("a folder");
    for (identity, code) in [("a", "1f600"), ("b", "1f601")] {
        let own = probe.join(identity);
        std::fs::create_dir(&own).expect("a folder");
        let mut copied = 0;
        for entry in std::fs::read_dir(data("emoji/images")).expect("images") {
            let file = entry.expect("readable").path();
            if copied < 4 {
                let name = format!("{code}-{copied}.png");
                std::fs::copy(&file, own.join(name)).expect("copied");
                copied += 1;
            }
        }
    }
    std::fs::write(probe.join("a/broken.png"), b"\x89PNG\r\n\x1a\nnot really").expect("written");
    let args = [
        path("emoji/old.onnx"),
        path("emoji/old_int8.onnx"),
        probe.display().to_string(),
    ];
    let text = refused(&[&args[0], &args[1], &args[2]]);
    assert!(
        text.contains("broken.png") && text.contains("--max-bad-items"),
        "{text}"
    );

    let audit = Audit::run(
        Path::new(&args[0]),
        Path::new(&args[1]),
        &probe,
        &["--max-bad-items", "1"],
    );
    assert_eq!(audit.verdict(), "inconclusive");
    assert_eq!(audit.output.status.code(), Some(3));
    assert!(audit.findings().contains(&"bad-items"));
    assert_eq!(audit.report["probe"]["bad_items"][0]["id"], "a/broken.png");
}

#[test]
fn a_foreign_folder_is_never_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("thesis.tex"), "years of work").expect("written");
    let output = compat_audit([
        &path("emoji/old.onnx"),
        &path("emoji/old.onnx"),
        &path("emoji"),
        "--out",
        &folder.path().display().to_string(),
    ]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(
        std::fs::read_to_string(folder.path().join("thesis.tex")).expect("still there"),
        "years of work"
    );
}

#[test]
fn dry_run_infers_nothing_and_shows_what_would_be_done() {
    let output = compat_audit([
        &path("emoji/old.onnx"),
        &path("emoji/old_int8.onnx"),
        &path("emoji"),
        "--dry-run",
    ]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for expected in [
        "1073 items",
        "335 queries",
        "738 gallery",
        "images/noto__2195.png",
        "embedding",
        "old.mean",
    ] {
        assert!(text.contains(expected), "{expected} in:\n{text}");
    }
}

#[test]
fn init_writes_a_file_that_an_audit_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = small_probe(folder.path());
    let args = |extra: &[&str]| {
        let mut args = vec![
            "init".to_owned(),
            path("emoji/old.onnx"),
            path("emoji/old_int8.onnx"),
        ];
        args.push(manifest.display().to_string());
        args.extend(extra.iter().map(|&word| word.to_owned()));
        compat_audit(args)
    };
    let output = args(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = folder.path().join("audit.toml");
    let text = std::fs::read_to_string(&file).expect("written");
    assert!(text.contains("ASSUMED"), "{text}");
    compat_audit::config::ConfigFile::read(&file).expect("valid");
    assert_eq!(args(&[]).status.code(), Some(2), "an existing file is kept");
    assert_eq!(args(&["--force"]).status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_changes_no_exit_code() {
    for closed in ["stdout", "stderr"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_compat-audit"));
        command.args([
            path("emoji/old.onnx"),
            path("emoji/new_incompatible.onnx"),
            path("emoji"),
        ]);
        command.args([
            "--out",
            folder.path().join("report").to_str().expect("UTF-8"),
        ]);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        if closed == "stdout" {
            command.stdout(writer)
        } else {
            command.stderr(writer)
        };
        assert_eq!(command.status().expect("ran").code(), Some(1), "{closed}");
    }
}

#[test]
fn quiet_prints_the_verdict_alone() {
    let audit = Audit::run(
        &data("emoji/old.onnx"),
        &data("emoji/new_incompatible.onnx"),
        &data("emoji"),
        &["--quiet"],
    );
    assert_eq!(stdout(&audit.output), "full-backfill\n");
    assert_eq!(stderr(&audit.output), "");
}

#[test]
fn the_report_renders_again_from_its_json() {
    let audit = Audit::run(
        &data("emoji/old.onnx"),
        &data("emoji/old_int8.onnx"),
        &data("emoji"),
        &[],
    );
    let json = audit.folder.path().join("report/report.json");
    let again = audit.folder.path().join("again");
    let output = compat_audit([
        "report",
        json.to_str().expect("UTF-8"),
        "--out",
        again.to_str().expect("UTF-8"),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let read =
        |file: &Path| std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    for name in ["report.html", "report.png"] {
        let first = read(&audit.folder.path().join("report").join(name));
        assert!(first == read(&again.join(name)), "{name} differs");
    }
}

/// A probe of stored embeddings (old, new, manifest) with `identities` identities of `items` items each.
fn stored_probe(folder: &Path, identities: usize, items: usize) -> [String; 3] {
    let mut ids = String::new();
    let mut manifest = "id,identity\n".to_owned();
    let mut values = Vec::new();
    for identity in 0..identities {
        for item in 0..items {
            ids += &format!("{identity}-{item}\n");
            manifest += &format!("{identity}-{item},id{identity}\n");
            // Each identity around an axis of its own, each item a little off it.
            values.extend((0..8).map(|axis| {
                let own = if axis == identity % 8 { 1.0 } else { 0.0 };
                own + if axis == (identity + item) % 8 {
                    0.2_f32
                } else {
                    0.0
                }
            }));
        }
    }
    for (name, tilt) in [("old", 0.0), ("new", 0.01_f32)] {
        // Not quite the same model.
        let tilted = values.iter().enumerate();
        let bytes: Vec<u8> = tilted
            .flat_map(|(i, value)| (value + if i % 7 == 0 { tilt } else { 0.0 }).to_le_bytes())
            .collect();
        let npy = crate::embedding::npy("<f4", &[identities * items, 8], &bytes);
        std::fs::write(folder.join(format!("{name}.npy")), npy).expect("written");
        std::fs::write(folder.join(format!("{name}.ids.txt")), &ids).expect("written");
    }
    std::fs::write(folder.join("m.csv"), manifest).expect("written");
    ["old.npy", "new.npy", "m.csv"].map(|name| folder.join(name).display().to_string())
}

#[test]
fn one_or_two_identities_are_inconclusive_not_an_error() {
    for identities in [1, 2, 3] {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = stored_probe(folder.path(), identities, 4);
        let [old, new, probe] = paths.each_ref().map(Path::new);
        let audit = Audit::run(old, new, probe, &[]);
        assert_eq!(audit.verdict(), "inconclusive", "{identities}");
        assert_eq!(audit.output.status.code(), Some(3), "{identities}");
        // What was written can be read and rendered again.
        let json = audit.folder.path().join("report/report.json");
        let output = compat_audit(["report", json.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}

#[test]
fn another_tools_report_folder_is_never_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = stored_probe(folder.path(), 3, 4);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).expect("a folder");
    std::fs::write(out.join("report.json"), r#"{"schema_version":1,"lint":[]}"#).expect("written");
    std::fs::write(out.join("thesis.tex"), "years of work").expect("written");
    let mut args = paths.to_vec();
    args.extend(["--out".into(), out.display().to_string()]);
    let output = compat_audit(&args);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(out.join("thesis.tex").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn arguments_need_not_be_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let folder = tempfile::tempdir().expect("a folder");
    let paths = stored_probe(folder.path(), 3, 4);
    let mut out = folder.path().join("x").into_os_string().into_vec();
    out.push(0xff);
    let out = std::ffi::OsString::from_vec(out);
    let mut args: Vec<std::ffi::OsString> = paths.iter().map(Into::into).collect();
    args.extend(["--out".into(), out.clone()]);
    let output = compat_audit(&args);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(Path::new(&out).join("report.html").is_file());

    // Nor need the probe's folder, whose pictures stand in the report and which audit.toml's paths begin with.
    let mut data = folder.path().join("data").into_os_string().into_vec();
    data.push(0xff);
    let data = std::path::PathBuf::from(std::ffi::OsString::from_vec(data));
    for class in ["a", "b"] {
        std::fs::create_dir_all(data.join(class)).expect("made");
        for index in 0..2 {
            let name = format!("{class}/{index}.png");
            let picture =
                image::RgbImage::from_fn(9, 9, |x, y| image::Rgb([x as u8, y as u8, index]));
            picture.save(data.join(name)).expect("written");
        }
    }
    std::fs::write(data.join("audit.toml"), "[new]\ntokenizer = \"t.json\"\n").expect("written");
    let audit = |data: &Path| {
        let mut args: Vec<std::ffi::OsString> = ["emoji/old.onnx", "emoji/old.onnx"]
            .map(|model| path(model).into())
            .to_vec();
        args.push(data.into());
        args.extend(["--out", "--no-cache"].map(Into::into));
        args.insert(4, folder.path().join("y").into());
        compat_audit(&args)
    };
    let refused = audit(&data);
    refused_with(&stderr(&refused), &["tokenizer"]);
    std::fs::remove_file(data.join("audit.toml")).expect("removed");
    let output = audit(&data);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(folder.path().join("y/report.html").is_file());
}

fn refused_with(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(text.contains("\nhint: "), "{text}");
}

#[test]
fn given_files_and_keys_that_nothing_reads_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = |text: &str| {
        let file = folder.path().join("audit.toml");
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    };
    // The files are there, in a folder of their own (an .npz beside a manifest is read unasked): what is wrong is
    // that nothing would read them.
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    let there = ["there.npz", "there.json", "there.parquet"].map(|name| {
        let file = folder.path().join("files").join(name);
        std::fs::write(&file, "").expect("written");
        file.display().to_string()
    });
    let image = [path("emoji/old.onnx"), path("emoji/old.onnx")];
    let images = path("emoji/labels.csv");
    for (key, text) in [
        ("old.tensors", "[old]\ntensors = \"files/there.npz\"\n"),
        ("old.tokenizer", "[old]\ntokenizer = \"files/there.json\"\n"),
        ("new.prefix", "[new]\nprefix = \"query: \"\n"),
    ] {
        let file = config(text);
        let text = refused(&[&image[0], &image[1], &images, "--config", &file]);
        refused_with(&text, &[key, "image probe"]);
    }
    let file = config("[new]\nmean = [0.5, 0.5, 0.5]\n");
    let tiny = path("tiny_text/old.onnx");
    let text = refused(&[&tiny, &tiny, &path("tiny_text"), "--config", &file]);
    refused_with(&text, &["new.mean", "text probe"]);

    let stored = stored_probe(folder.path(), 3, 4);
    let [old, new, probe] = stored.each_ref();
    let text = refused(&[old, new, probe, "--old-embeddings", &there[2]]);
    refused_with(&text, &["old_embeddings", "old.npy"]);
    let text = refused(&[old, new, probe, "--tensors", &there[0]]);
    refused_with(&text, &["audit.tensors"]);
    let file = config("[old]\nmean = [0.5, 0.5, 0.5]\n");
    let text = refused(&[old, new, probe, "--config", &file]);
    refused_with(&text, &["old.mean", "stored embeddings", "dims"]);

    // A folder of images has no columns.
    let folders = folder.path().join("folders");
    crate::embedding::identity_folders(&folders, 3, 2);
    let file = config("[columns]\nidentity = \"sku\"\n");
    let text = refused(&[
        &image[0],
        &image[1],
        &folders.display().to_string(),
        "--config",
        &file,
    ]);
    refused_with(&text, &["columns.identity", "without a manifest"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_as_data_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("m.csv");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let text = refused(&[
        &path("emoji/old.onnx"),
        &path("emoji/old.onnx"),
        &pipe.display().to_string(),
    ]);
    refused_with(&text, &["m.csv", "found neither"]);
}

#[test]
fn a_library_that_cannot_be_loaded_says_the_loaders_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("libonnxruntime.so");
    std::fs::write(&library, "no library").expect("written");
    let text = refused(&[
        &path("emoji/old.onnx"),
        &path("emoji/old.onnx"),
        &path("emoji"),
        "--onnxruntime",
        library.to_str().expect("UTF-8"),
    ]);
    refused_with(&text, &["libonnxruntime.so"]);
    if cfg!(target_os = "linux") {
        refused_with(&text, &["too short"]);
    }
}

#[test]
fn a_report_is_replaced_under_the_shell_that_stands_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = stored_probe(folder.path(), 3, 4);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).expect("a folder");
    for _ in 0..2 {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_compat-audit"))
            .args(&paths)
            .args(["--out", "."])
            .current_dir(&out)
            .output()
            .expect("started");
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(out.join("report.html").is_file());
    }
}

#[test]
fn pictures_are_found_from_any_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    crate::embedding::identity_folders(&folder.path().join("data"), 6, 3);
    let run = |directory: &Path, args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_compat-audit"))
            .args(args)
            .current_dir(directory)
            .output()
            .expect("started");
        (output.status.code(), stderr(&output))
    };
    let (old, new) = (
        path("odd_models/plain.onnx"),
        path("odd_models/u8_nhwc.onnx"),
    );
    let args = [&old, &new, "data", "--no-cache", "--out", "reports/a"];
    let (code, text) = run(folder.path(), &args);
    assert!(matches!(code, Some(1 | 3)), "{text}");
    let moved = folder.path().join("moved");
    let page = |root: &Path| {
        let page = root.join("reports/a/report.html");
        std::fs::read_to_string(page).expect("written")
    };
    let first = page(folder.path());
    assert!(first.contains("data:image/png"), "there are pictures");
    let json = folder.path().join("reports/a/report.json");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let json = json.to_str().expect("UTF-8");
    assert_eq!(
        run(elsewhere.path(), &["report", json]),
        (Some(0), String::new())
    );
    assert!(page(folder.path()) == first, "the same page from anywhere");

    // The data is gone: the page in place is kept, another says what it lacks.
    std::fs::rename(folder.path().join("data"), &moved).expect("moved");
    let (code, text) = run(elsewhere.path(), &["report", json]);
    assert_eq!(code, Some(2), "{text}");
    refused_with(&text, &["report.html", "pictures"]);
    assert!(page(folder.path()) == first);
    let (code, text) = run(elsewhere.path(), &["report", json, "--out", "b"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("pictures of the report are not where"),
        "{text}"
    );
}

#[test]
fn numbers_that_no_machine_has_are_refused() {
    for threads in ["100000", "0", "many"] {
        let output = compat_audit(["a.onnx", "b.onnx", "c", "--threads", threads]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("1 to 1024"), "{}", stderr(&output));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("audit.toml");
    std::fs::write(&config, "[old]\nbatch_size = 100000000\n").expect("written");
    let text = refused(&[
        &path("emoji/old.onnx"),
        &path("emoji/old.onnx"),
        &path("emoji"),
        "--config",
        config.to_str().expect("UTF-8"),
    ]);
    refused_with(&text, &["old.batch_size", "4097"]);
}

#[test]
fn an_offline_install_names_what_is_there_or_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = compat_audit([
        "runtime",
        "install",
        "--offline",
        "--cache-dir",
        folder.path().to_str().expect("UTF-8"),
    ]);
    assert_eq!(output.status.code(), Some(2));
    refused_with(&stderr(&output), &["--offline forbids"]);
}

#[test]
fn a_dry_run_prints_no_escape_codes_of_ids() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new, probe] = stored_probe(folder.path(), 3, 4);
    let text = std::fs::read_to_string(&probe).expect("written");
    std::fs::write(&probe, text.replace("id0", "\u{1b}[31mred")).expect("written");
    let output = compat_audit([&old, &new, &probe, "--dry-run"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        !text.contains('\u{1b}') && text.contains("[31mred"),
        "{text}"
    );
}

#[test]
fn a_dry_run_opens_stored_files_and_shows_their_dimensions() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new, probe] = stored_probe(folder.path(), 3, 4);
    let output = compat_audit([&old, &new, &probe, "--dry-run"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        text.contains("embeddings of 12 of 12 items, 8 dimensions"),
        "{text}"
    );
    std::fs::write(folder.path().join("new.ids.txt"), "0-0\n").expect("written");
    let output = compat_audit([&old, &new, &probe, "--dry-run"]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    refused_with(&stderr(&output), &["new.npy", "12 ids"]);
}

/// Model and tokenizer in one folder, data in another: what init writes works without its marks.
#[test]
fn what_init_writes_finds_its_files_when_uncommented() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_folder = folder.path().join("data");
    std::fs::create_dir(&data_folder).expect("a folder");
    let probe = data_folder.join("labels.jsonl");
    std::fs::copy(data("tiny_text/labels.jsonl"), &probe).expect("copied");
    let (old, new) = (path("tiny_text/old.onnx"), path("tiny_text/new.onnx"));
    let probe = probe.display().to_string();
    let output = compat_audit(["init", &old, &new, &probe]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = data_folder.join("audit.toml");
    let text = std::fs::read_to_string(&file).expect("written");
    let active: String = text
        .lines()
        .map(|line| match line.strip_prefix("# tokenizer") {
            Some(rest) => format!("tokenizer{rest}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    assert_ne!(active, text);
    std::fs::write(&file, active).expect("written");
    let output = compat_audit([&old, &new, &probe, "--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("old.tokenizer = \"tokenizer.json\" (audit.toml)"));
}

#[test]
fn init_asks_what_only_the_user_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    crate::embedding::identity_folders(folder.path(), 3, 2);
    let probe = folder.path().display().to_string();
    let written = |model: &str| {
        let model = path(model);
        let output = compat_audit(["init", &model, &model, &probe, "--force"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let file = folder.path().join("audit.toml");
        compat_audit::config::ConfigFile::read(&file).expect("valid");
        std::fs::read_to_string(file).expect("written")
    };
    let several = written("odd_models/two_outputs.onnx");
    assert!(several.contains("# CHOOSE: the model gives"), "{several}");
    let dynamic = written("odd_models/any_size.onnx");
    assert!(
        dynamic.contains("# CHOOSE: the model takes images of any size"),
        "{dynamic}"
    );
}

/// Images of `odd_models/plain.onnx`'s size, in folders.
fn folder_probe(folder: &Path) -> [String; 3] {
    let probe = folder.join("probe");
    crate::embedding::identity_folders(&probe, 6, 3);
    [
        path("odd_models/plain.onnx"),
        path("odd_models/u8_nhwc.onnx"),
        probe.to_str().expect("UTF-8").to_owned(),
    ]
}

fn first_image(probe: &str) -> std::path::PathBuf {
    let mut names: Vec<_> = walk(Path::new(probe));
    names.sort();
    names.remove(0)
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("readable");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let below = paths.map(|path| {
        if path.is_dir() {
            walk(&path)
        } else {
            vec![path]
        }
    });
    below.flatten().collect()
}

#[cfg(unix)]
#[test]
fn a_pipe_among_the_images_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new, probe] = folder_probe(folder.path());
    let image = first_image(&probe);
    std::fs::remove_file(&image).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&image).status();
    assert!(made.expect("mkfifo runs").success());
    let text = refused(&[&old, &new, &probe, "--no-cache"]);
    refused_with(
        &text,
        &["expected a file, found a pipe", "1 items cannot be read"],
    );
}

#[test]
fn a_dry_run_misses_the_files_that_the_audit_would_miss() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new, probe] = folder_probe(folder.path());
    // A manifest: a folder lists what is there.
    let image = first_image(&probe);
    let images = walk(Path::new(&probe));
    // The line of the file, after its header.
    let row = 2 + images
        .iter()
        .position(|path| *path == image)
        .expect("listed");
    let mut manifest = "path,identity\n".to_owned();
    for image in images {
        let identity = image.parent().and_then(Path::file_name).expect("a folder");
        manifest += &format!("{},{}\n", image.display(), identity.display());
    }
    let probe = folder.path().join("m.csv").display().to_string();
    std::fs::write(&probe, manifest).expect("written");
    let paths = [old.as_str(), &new, &probe, "--no-cache"];
    let with = |more: &[&'static str]| [&paths[..], more].concat();
    assert_eq!(compat_audit(with(&["--dry-run"])).status.code(), Some(0));

    std::fs::remove_file(&image).expect("removed");
    let audit = refused(&paths);
    let dry = refused(&with(&["--dry-run"]));
    refused_with(
        &dry,
        &[
            &format!("1 items cannot be read (0 tolerated): row {row}, `"),
            "No such file",
        ],
    );
    assert_eq!(audit, dry);
    let tolerant = compat_audit(with(&["--dry-run", "--max-bad-items", "1"]));
    assert_eq!(tolerant.status.code(), Some(0), "{}", stderr(&tolerant));

    let output = compat_audit(with(&["--dry-run", "--format", "json"]));
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("'--dry-run' cannot be used with '--format <FORMAT>'"),
        "{text}"
    );
}

#[test]
fn a_report_does_not_become_part_of_its_probe() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new, probe] = folder_probe(folder.path());
    for name in ["report", "a/b"] {
        let out = format!("{probe}/{name}");
        let output = compat_audit([&old, &new, &probe, "--no-cache", "--out", &out]);
        assert_eq!(output.status.code(), Some(2));
        refused_with(
            &stderr(&output),
            &[name, "lies among the images of", "hint: "],
        );
        assert!(!Path::new(&out).exists());
    }
    // What no probe reads, and what lies beside.
    for out in [format!("{probe}/.report"), format!("{probe}-report")] {
        let output = compat_audit([&old, &new, &probe, "--no-cache", "--out", &out]);
        assert_ne!(output.status.code(), Some(2), "{}", stderr(&output));
    }
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_is_said_once_and_does_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new, probe] = folder_probe(folder.path());
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).expect("a folder");
    crate::embedding::cache::share_runtime(&cache);
    // Root may write to any folder, but not below a file.
    std::fs::write(cache.join("embeddings"), "in the way").expect("written");
    let out = folder.path().join("out").display().to_string();
    let cache = cache.to_str().expect("UTF-8");
    let output = compat_audit([&old, &new, &probe, "--cache-dir", cache, "--out", &out]);
    assert_ne!(output.status.code(), Some(2));
    let text = stderr(&output);
    let said = format!("warning: {cache}: embeddings cannot be kept");
    assert_eq!(text.matches(&said).count(), 1, "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_home_no_shared_folder_is_taken_for_the_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_compat-audit"))
            .args(args)
            .env_remove("HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("ORT_DYLIB_PATH")
            .env("TMPDIR", folder.path())
            .output()
            .expect("started")
    };
    let output = run(&["runtime", "install"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    refused_with(
        &text,
        &["neither HOME nor XDG_CACHE_HOME is set", "--cache-dir"],
    );
    let [old, new, probe] = stored_probe(folder.path(), 3, 4);
    let out = folder.path().join("out").display().to_string();
    let text = stderr(&run(&[&old, &new, &probe, "--out", &out]));
    assert!(text.contains("note: embeddings are not kept"), "{text}");
    assert!(!folder.path().join("compat-audit").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_library_that_is_cut_short_is_an_error_not_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    // A head as the linker writes it, and nothing after it.
    let mut head = [0; 128];
    head[..6].copy_from_slice(b"\x7fELF\x02\x01");
    head[41] = 1;
    head[58] = 64;
    head[60] = 20;
    let library = folder.path().join("libonnxruntime.so");
    std::fs::write(&library, head).expect("written");
    let library = library.to_str().expect("UTF-8");
    let [old, probe] = [path("emoji/old.onnx"), path("emoji")];
    let text = refused(&[&old, &old, &probe, "--onnxruntime", library]);
    refused_with(
        &text,
        &[
            "libonnxruntime.so",
            "the file is cut short",
            "runtime install",
        ],
    );
    let output = compat_audit(["runtime", "show", "--onnxruntime", library]);
    assert_eq!(output.status.code(), Some(2));
}
