//! parse -> run -> write -> exit code; nothing else knows exit codes.

use std::io::Write;
use std::panic::UnwindSafe;
use std::process::ExitCode;

use compat_audit::cli;
use compat_audit::commands::{self, Done, Failure, GatePolicy};
use compat_audit::config::{FailOn, Inconclusive};
use compat_audit::judge::Verdict;

/// A backfill is needed, or the upgrade loses.
const STOP: u8 = 1;
/// Usage, input or run-time error, and a panic.
const ERROR: u8 = 2;
/// The probe cannot tell.
const UNDECIDED: u8 = 3;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help to stdout and errors to stderr; a closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { ERROR } else { 0 });
        }
    };
    std::panic::set_hook(Box::new(|panic| {
        say(&format!(
            "error: compat-audit has a bug: {panic}\nhint: please report it with the command line"
        ));
    }));
    ExitCode::from(exit_code_of(|| commands::run(&cli)))
}

/// Runs the work; an error and a panic end alike.
fn exit_code_of(work: impl FnOnce() -> Result<Done, Failure> + UnwindSafe) -> u8 {
    match std::panic::catch_unwind(work) {
        Ok(Ok(done)) => exit_code(&done),
        Ok(Err(failure)) => {
            say(&failure.to_string());
            ERROR
        }
        Err(_) => ERROR,
    }
}

/// A line on stderr; a closed stderr must not panic, least of all inside the panic hook.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn exit_code(done: &Done) -> u8 {
    match done {
        Done::Nothing => 0,
        Done::Audited { verdict, policy } => verdict_code(*verdict, policy),
    }
}

fn verdict_code(verdict: Verdict, policy: &GatePolicy) -> u8 {
    let stops = match verdict {
        Verdict::SkipBackfill => false,
        Verdict::PartialBackfill => policy.fail_on == FailOn::Partial,
        Verdict::FullBackfill | Verdict::DoNotUpgrade => policy.fail_on != FailOn::Never,
        Verdict::Inconclusive => {
            policy.fail_on != FailOn::Never && policy.inconclusive == Inconclusive::Fail
        }
    };
    match (stops, verdict) {
        (false, _) => 0,
        (true, Verdict::Inconclusive) => UNDECIDED,
        (true, _) => STOP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_exits_2() {
        assert_eq!(exit_code_of(|| panic!("a bug")), 2);
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        assert_eq!(exit_code(&Done::Nothing), 0);
        let verdicts = [
            Verdict::SkipBackfill,
            Verdict::PartialBackfill,
            Verdict::FullBackfill,
            Verdict::DoNotUpgrade,
            Verdict::Inconclusive,
        ];
        for (fail_on, inconclusive, codes) in [
            (FailOn::Partial, Inconclusive::Fail, [0, 1, 1, 1, 3]),
            (FailOn::Partial, Inconclusive::Pass, [0, 1, 1, 1, 0]),
            (FailOn::Full, Inconclusive::Fail, [0, 0, 1, 1, 3]),
            (FailOn::Never, Inconclusive::Fail, [0, 0, 0, 0, 0]),
        ] {
            let policy = GatePolicy {
                fail_on,
                inconclusive,
            };
            let found = verdicts.map(|verdict| exit_code(&Done::Audited { verdict, policy }));
            assert_eq!(found, codes, "{policy:?}");
        }
    }
}
