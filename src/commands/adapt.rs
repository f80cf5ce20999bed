//! `compat-audit adapt`: makes the model, then audits it like any other.

use std::sync::Arc;

use super::{
    Done, Failure, audit_into, default_out, limit_threads, log_to_stderr, notice, paths, tell,
};
use crate::adapt::{self, AdaptError, Adapted, Choice};
use crate::audit::Surroundings;
use crate::cli::progress::Bars;
use crate::cli::{self, AdaptArgs, Format, HeadArg};
use crate::config::{AuditConfig, Overrides};
use crate::report;
use crate::topk;

impl From<AdaptError> for Failure {
    fn from(error: AdaptError) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

pub fn adapt_command(args: &AdaptArgs) -> Result<Done, Failure> {
    log_to_stderr(args.verbose);
    limit_threads(args.runtime.threads());
    let inputs = [args.old.clone(), args.new.clone(), args.data.clone()];
    let overrides = Overrides {
        max_bad_items: args.max_bad_items,
        tensors: args.tensors.clone(),
        qrels: args.qrels.clone(),
        old_embeddings: args.old_embeddings.clone(),
        ..args.judging.overrides()
    };
    let file = cli::config_file(args.config.as_deref(), &args.data)?;
    let config = AuditConfig::resolve(inputs, file, overrides)?;
    paths::check(&config, args.runtime.onnxruntime.as_deref())?;
    if args.out.is_file() && !args.force {
        return Err(Failure {
            message: format!("{}: exists already", args.out.display()),
            hint: Some("--force replaces it, --out writes another file".into()),
        });
    }
    let folder = args.report.clone();
    let folder = folder.unwrap_or_else(|| default_out(&args.old, &args.out));
    report::check_out(&folder)?;
    if args.out.starts_with(&folder) {
        return Err(Failure {
            message: format!(
                "{}: lies in the report's folder, which is replaced as a whole",
                args.out.display()
            ),
            hint: Some("--report names another folder".into()),
        });
    }
    let bars = Arc::new(Bars::new(args.quiet));
    topk::tell(bars.clone());
    let notify = |line: &str| {
        if !args.quiet {
            bars.above(|| notice(line));
        }
    };
    let around = Surroundings {
        runtime: args.runtime.options(args.verbose),
        embedding_cache: Some(args.runtime.cache_dir()),
        progress: &*bars,
        notify: &notify,
        command: std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
    };
    let choice = match args.head {
        HeadArg::Auto => Choice::Auto,
        HeadArg::ClosedForm => Choice::ClosedForm,
        HeadArg::Linear => Choice::Linear,
        HeadArg::Mlp => Choice::Mlp,
    };
    let adapted = adapt::run(&config, choice, &args.out, &around)?;
    adapted_lines(&adapted, &config, args)
        .iter()
        .for_each(|line| notify(line));
    let audited = audit_into(&folder, &adapted.config, &around, None, args.privacy);
    bars.clear();
    tell(
        &audited?,
        &adapted.config,
        &folder,
        args.quiet,
        Format::Text,
    )
}

/// What was tried and taken, for stderr.
fn adapted_lines(adapted: &Adapted, config: &AuditConfig, args: &AdaptArgs) -> Vec<String> {
    let Adapted {
        split,
        candidates,
        chosen,
        without,
        ..
    } = adapted;
    let mut lines = vec![format!(
        "{}: fitted on {}, chosen by {}, held out {} (seed {})",
        split.unit, split.units[0], split.units[1], split.units[2], config.seed
    )];
    if adapted.resumed {
        lines.push("an interrupted training was taken up again".into());
    }
    lines.push(format!(
        "{} on {} validation queries: old->old {:.4}, new->new {:.4}; with a head:",
        adapted.primary, adapted.queries, without[0], without[1]
    ));
    for (index, candidate) in candidates.iter().enumerate() {
        let steps = match candidate.steps {
            0 => String::new(),
            steps => format!(", {steps} steps"),
        };
        lines.push(format!(
            "  {} new->old {:.4}  new->new {:.4}  {}{steps}",
            if index == *chosen { "->" } else { "  " },
            candidate.new_old,
            candidate.new_new,
            candidate.head.kind
        ));
    }
    let [items, doubtful] = adapted.fitted;
    lines.push(format!(
        "fitted again on {items} items ({doubtful} old embeddings are not credible): {}",
        args.out.display()
    ));
    lines
}
