//! parse -> run -> write -> exit code; nothing else knows exit codes.

use std::io::Write;
use std::panic::UnwindSafe;
use std::process::ExitCode;

use compat_audit::cli;
use compat_audit::commands::{self, Done, Failure};
use compat_audit::judge::Verdict;

/// Usage, input or run-time error, and a panic.
const ERROR: u8 = 2;

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
        Done::Audited(Verdict::SkipBackfill) => 0,
        Done::Audited(Verdict::FullBackfill | Verdict::DoNotUpgrade) => 1,
        Done::Audited(Verdict::Inconclusive) => 3,
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
        let codes = [
            (Done::Nothing, 0),
            (Done::Audited(Verdict::SkipBackfill), 0),
            (Done::Audited(Verdict::FullBackfill), 1),
            (Done::Audited(Verdict::DoNotUpgrade), 1),
            (Done::Audited(Verdict::Inconclusive), 3),
        ];
        for (done, code) in codes {
            assert_eq!(exit_code(&done), code);
        }
    }
}
