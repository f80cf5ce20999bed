//! parse -> run -> write -> exit code; nothing else knows exit codes.

use std::process::ExitCode;

use compat_audit::cli;
use compat_audit::commands::{self, Done};
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
        eprintln!(
            "error: compat-audit has a bug: {panic}\nhint: please report it with the command line"
        );
    }));
    let result = std::panic::catch_unwind(|| commands::run(&cli));
    match result {
        Ok(Ok(done)) => ExitCode::from(exit_code(&done)),
        Ok(Err(failure)) => {
            eprintln!("{failure}");
            ExitCode::from(ERROR)
        }
        Err(_) => ExitCode::from(ERROR),
    }
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
