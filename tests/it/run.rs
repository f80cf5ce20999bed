//! Running the built binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file under fixtures/data.
pub fn data(name: &str) -> PathBuf {
    root().join("fixtures/data").join(name)
}

/// Runs `compat-audit` with the arguments.
pub fn compat_audit<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    compat_audit_in(args, &[])
}

/// Runs `compat-audit` with the arguments and, of what a CI system sets, these variables only.
pub fn compat_audit_in<S: AsRef<std::ffi::OsStr>>(
    args: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
) -> Output {
    Command::new(env!("CARGO_BIN_EXE_compat-audit"))
        .args(args)
        .env_remove("GITHUB_STEP_SUMMARY")
        .env_remove("GITHUB_ACTIONS")
        .envs(environment.iter().copied())
        .output()
        .expect("the binary starts")
}

/// stderr as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// stdout as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Audits and reads the report back.
pub struct Audit {
    /// What the process did.
    pub output: Output,
    /// report.json.
    pub report: serde_json::Value,
    /// The report's folder; removed when dropped.
    pub folder: tempfile::TempDir,
}

impl Audit {
    /// Runs an audit into a folder of its own; panics with its stderr when no report came out.
    pub fn run(old: &Path, new: &Path, data: &Path, extra: &[&str]) -> Self {
        Self::run_in(old, new, data, extra, &[])
    }

    /// The same with these variables of a CI system.
    pub fn run_in(
        old: &Path,
        new: &Path,
        data: &Path,
        extra: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("report");
        let mut args: Vec<&std::ffi::OsStr> =
            vec![old.as_os_str(), new.as_os_str(), data.as_os_str()];
        args.extend([std::ffi::OsStr::new("--out"), out.as_os_str()]);
        args.extend(extra.iter().map(std::ffi::OsStr::new));
        let output = compat_audit_in(args, environment);
        let text = std::fs::read_to_string(out.join("report.json"))
            .unwrap_or_else(|error| panic!("no report ({error}): {}", stderr(&output)));
        let report = serde_json::from_str(&text).expect("report.json is JSON");
        Self {
            output,
            report,
            folder,
        }
    }

    /// A file of the report's folder, as text.
    pub fn file(&self, name: &str) -> String {
        let path = self.folder.path().join("report").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The verdict's name.
    pub fn verdict(&self) -> &str {
        self.report["verdict"]["verdict"]
            .as_str()
            .expect("a verdict")
    }

    /// A measure's point estimate, ties against the query.
    pub fn measure(&self, pairing: &str, measure: &str) -> f64 {
        self.measure_and_optimistic(pairing, measure).0
    }

    /// A measure's point estimate, and the same with ties in the query's favour.
    pub fn measure_and_optimistic(&self, pairing: &str, measure: &str) -> (f64, f64) {
        let pairings = self.report["pairings"].as_array().expect("pairings");
        let pairing = pairings
            .iter()
            .find(|section| section["pairing"] == pairing)
            .unwrap_or_else(|| panic!("no {pairing}"));
        let row = pairing["measures"]
            .as_array()
            .expect("measures")
            .iter()
            .find(|row| row["measure"] == measure)
            .unwrap_or_else(|| panic!("no {measure}"));
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        (
            number(&row["estimate"]["value"]),
            number(&row["optimistic"]),
        )
    }

    /// A check by its code.
    pub fn check(&self, code: &str) -> &serde_json::Value {
        let checks = self.report["checks"].as_array().expect("checks");
        checks
            .iter()
            .find(|check| check["code"] == code)
            .unwrap_or_else(|| panic!("no {code}"))
    }

    /// Names of the failing slices, sorted.
    pub fn failing_slices(&self) -> Vec<&str> {
        let slices = self.report["slices"]["tested"].as_array().expect("slices");
        let mut names: Vec<&str> = slices
            .iter()
            .filter(|slice| slice["state"] == "fail")
            .map(|slice| slice["name"].as_str().expect("a name"))
            .collect();
        names.sort_unstable();
        names
    }

    /// Codes of the findings.
    pub fn findings(&self) -> Vec<&str> {
        let findings = self.report["findings"].as_array().expect("findings");
        findings
            .iter()
            .filter_map(|finding| finding["code"].as_str())
            .collect()
    }
}
