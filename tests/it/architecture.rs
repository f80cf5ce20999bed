//! The layout's rules, read off the sources.

use std::path::{Path, PathBuf};

use crate::run::root;

/// Where each heavy crate may be named.
const ALLOWED: [(&str, &[&str]); 6] = [
    ("ort", &["runtime.rs", "runtime/", "embed/session.rs"]),
    (
        "candle_core",
        &["adapt/nccl.rs", "adapt/trainer.rs", "adapt/error.rs"],
    ),
    (
        "linfa_linalg",
        &["retrieve/closed_form.rs", "structure/map.rs"],
    ),
    (
        "polars",
        &[
            "probe/manifest.rs",
            "probe/parquet.rs",
            "embed/stored/parquet.rs",
            "embed/stored/tests.rs",
            "report/tables.rs",
        ],
    ),
    ("plotters", &["report/figures.rs", "report/figures/"]),
    ("clap", &["cli.rs", "cli/", "main.rs", "commands.rs"]),
];

/// The stages in order; each may use the ones before it.
const STAGES: [&str; 7] = [
    "probe",
    "runtime",
    "embed",
    "structure",
    "retrieve",
    "judge",
    "report",
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("src is readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    assert!(files.len() > 20, "the sources were found");
    files
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&src)
                .expect("under src")
                .to_string_lossy()
                .replace('\\', "/");
            let text = std::fs::read_to_string(&path).expect("readable");
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .map(|line| format!("{line}\n"))
                .collect();
            // Unit tests may reach further than the code they test.
            let tests = ["mod tests", "pub mod tests"]
                .into_iter()
                .filter_map(|tests| code.find(&format!("#[cfg(test)]\n{tests}")))
                .min();
            (name, code[..tests.unwrap_or(code.len())].to_owned())
        })
        .collect()
}

#[test]
fn heavy_crates_are_named_only_where_they_belong() {
    let mut wrong = Vec::new();
    for (name, places) in ALLOWED {
        for place in places {
            let exists = root().join("src").join(place).exists();
            assert!(exists, "{name}: there is no {place}");
        }
    }
    for (file, code) in sources() {
        for (name, places) in ALLOWED {
            let named = code.match_indices(&format!("{name}::")).any(|(at, _)| {
                !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
            });
            if named && !places.iter().any(|place| file.starts_with(place)) {
                wrong.push(format!("{file} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_point_down_the_line() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let stage = file.split(['/', '.']).next().expect("a name");
        let Some(own) = STAGES.iter().position(|name| *name == stage) else {
            continue;
        };
        for later in STAGES
            .iter()
            .skip(own + 1)
            .chain(&["audit", "adapt", "cli", "commands"])
        {
            if code.contains(&format!("crate::{later}")) {
                wrong.push(format!("{file} imports {later}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_every_stage_uses_imports_no_stage() {
    for (file, code) in sources() {
        if [
            "domain.rs",
            "config.rs",
            "stats.rs",
            "topk.rs",
            "config/",
            "stats/",
            "topk/",
            "interrupt.rs",
        ]
        .iter()
        .any(|place| file.starts_with(place))
        {
            for stage in STAGES {
                assert!(
                    !code.contains(&format!("crate::{stage}")),
                    "{file} imports {stage}"
                );
            }
        }
    }
}

#[test]
fn nobody_imports_the_command_line() {
    for (file, code) in sources() {
        if !["cli.rs", "commands.rs", "main.rs"].contains(&file.as_str())
            && !file.starts_with("cli/")
            && !file.starts_with("commands/")
        {
            assert!(!code.contains("crate::cli"), "{file} imports cli");
        }
    }
}

#[test]
fn the_library_prints_only_in_commands() {
    for (file, code) in sources() {
        let may = ["commands.rs", "main.rs", "interrupt.rs"].contains(&file.as_str());
        assert!(
            may || !(code.contains("println!") || code.contains("eprint")),
            "{file} prints"
        );
    }
}

#[test]
fn main_is_under_80_lines_without_its_tests() {
    let main = sources()
        .into_iter()
        .find(|(file, _)| file == "main.rs")
        .expect("main.rs")
        .1;
    assert!(main.lines().count() < 80);
}

#[test]
fn unsafe_lives_in_the_kernels_and_in_the_mapping() {
    for (file, code) in sources() {
        let may = file.starts_with("topk/") || file == "domain/embeddings/mapped.rs";
        let has = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
        let has = has.iter().any(|words| code.contains(words));
        assert!(may || !has, "{file} has unsafe code");
    }
}
