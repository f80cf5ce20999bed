//! `compat-audit adapt`: makes the model, then audits it like any other.

use std::path::Path;

use super::{
    Done, Failure, audit_into, check_report_folder, default_out, prepare, refuse_existing, tell,
    with_progress,
};
use crate::adapt::{self, AdaptError, Adapted, Choice};
use crate::cli::{AdaptArgs, Format, HeadArg};
use crate::domain::folder_of;

impl From<AdaptError> for Failure {
    fn from(error: AdaptError) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

pub fn adapt_command(args: &AdaptArgs) -> Result<Done, Failure> {
    let settings = &args.settings;
    let config = prepare(
        settings,
        [args.old.clone(), args.new.clone(), args.data.clone()],
    )?;
    refuse_existing(&args.out, args.force)?;
    let folder = args.report.clone();
    let folder = folder.unwrap_or_else(|| default_out(&args.old, &args.out));
    check_report_folder(&folder, &config)?;
    // Neither need be there yet; what is has one true path.
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path));
    let out_folder = real(folder_of(&args.out))?;
    if out_folder.starts_with(real(&folder)?) {
        return Err(Failure {
            message: format!(
                "{}: lies in the report's folder, which is replaced as a whole",
                args.out.display()
            ),
            hint: Some("--report names another folder".into()),
        });
    }
    let choice = match args.head {
        HeadArg::Auto => Choice::Auto,
        HeadArg::ClosedForm => Choice::ClosedForm,
        HeadArg::Linear => Choice::Linear,
        HeadArg::Mlp => Choice::Mlp,
    };
    let (config, report) = with_progress(settings, |around| {
        let adapted = adapt::run(&config, choice, &args.out, around)?;
        adapted_lines(&adapted, &args.out)
            .iter()
            .for_each(|line| (around.notify)(line));
        let report = audit_into(&folder, &adapted.config, around, None, settings.privacy)?;
        Ok((adapted.config, report))
    })?;
    tell(&report, &config, &folder, settings.quiet, Format::Text)
}

/// What was tried and taken, for stderr.
fn adapted_lines(adapted: &Adapted, out: &Path) -> Vec<String> {
    let Adapted { split, fitting, .. } = adapted;
    let mut lines = vec![format!(
        "{}: fitted on {}, chosen by {}, held out {} (seed {})",
        split.unit, split.units[0], split.units[1], split.units[2], adapted.config.seed
    )];
    if fitting.resumed {
        lines.push("an interrupted training was taken up again".into());
    }
    lines.push(format!(
        "{} on {} validation queries: old->old {:.4}, new->new {:.4}; with a head:",
        fitting.primary, fitting.queries, fitting.without[0], fitting.without[1]
    ));
    for (index, candidate) in fitting.candidates.iter().enumerate() {
        let steps = match candidate.steps {
            0 => String::new(),
            steps => format!(", {steps} steps"),
        };
        lines.push(format!(
            "  {} new->old {:.4}  new->new {:.4}  {}{steps}",
            if index == fitting.chosen { "->" } else { "  " },
            candidate.new_old,
            candidate.new_new,
            candidate.head.kind
        ));
    }
    let [items, doubtful] = fitting.fitted;
    lines.push(format!(
        "fitted again on {items} items ({doubtful} old embeddings are not credible): {}",
        out.display()
    ));
    lines
}
