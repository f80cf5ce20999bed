//! The report in words: every number rounded, every label and tone chosen, once, for all renderers.
//!
//! A renderer lays out what it finds here and computes nothing; a number and its text can so never disagree
//! between the page, the picture and the terminal.

pub mod format;

mod answers;
mod baseline;
pub mod cases;
mod checks;
mod ci;
mod decision;
mod evidence;
mod gate;
mod pictures;
mod provenance;
mod structure;
mod top;

use serde::Serialize;

use super::AuditReport;
use super::thumbnails::Thumbnails;

pub use baseline::Baseline;
pub use ci::Ci;
pub use pictures::{Bar, Curve, Forest, ForestRow, MapDot, ScorePanel, Scores, SpaceMap};

/// What a mark or colour says; never said by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Proven on the safe side.
    Good,
    /// Proven on the bad side.
    Bad,
    /// Not settled, or worth a look.
    Unsure,
    /// Neither.
    #[default]
    Plain,
}

/// The whole report as text, in the order of the page.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// Window title.
    pub title: String,
    /// What the report answers.
    pub question: &'static str,
    /// The old model's file name.
    pub old: String,
    /// The new model's file name.
    pub new: String,
    /// What all measures are about: `Retrieval quality` or `Agreement with the old model`.
    pub quantity: String,
    /// The measure that decides.
    pub primary: String,
    /// The answer.
    pub headline: Headline,
    /// What could not be tested; shown first.
    pub not_tested: Vec<String>,
    /// Findings that must be seen before the verdict.
    pub cautions: Vec<String>,
    /// What this probe could have seen; stands before the verdict.
    pub sight: String,
    /// The number that decided against its limit; `None` when D was not tested and nothing else decided.
    pub decision: Option<Decision>,
    /// What to do next.
    pub next_steps: Vec<String>,
    /// What would break, and for whom, if the backfill were skipped.
    pub breaks: Vec<String>,
    /// What it would take to change the verdict.
    pub turning: Vec<String>,
    /// What the report was made without; empty when it shows all.
    pub left_out: &'static str,
    /// Label and value of the headline counts.
    pub counts: Vec<Fact>,
    /// The checks, most important columns first.
    pub checks: Vec<CheckLine>,
    /// How many gates and warnings end how.
    pub checks_tally: String,
    /// What was noticed beside the checks.
    pub findings: Vec<FindingLine>,
    /// How fine this probe can judge, one sentence each.
    pub assay: Vec<String>,
    /// The primary measure of each pairing.
    pub pairing_bars: Vec<Bar>,
    /// Every measure by pairing.
    pub pairings: Table,
    /// Verification by pairing, when there are enough pairs.
    pub verification: Option<Table>,
    /// D for every measure, G and W.
    pub changes: Option<Table>,
    /// What the tested slices cover.
    pub slice_notes: Vec<String>,
    /// The tested slices, failing first.
    pub slices: Option<Table>,
    /// The tested slices that lose most, for the figure.
    pub forest: Option<Forest>,
    /// Lowest points and areas of the refresh curve.
    pub refresh_notes: Vec<String>,
    /// The refresh curve, for its figure.
    pub refresh: Option<Curve>,
    /// The backfill plan in words.
    pub backfill_notes: Vec<String>,
    /// The shares that were tested.
    pub backfill_steps: Option<Table>,
    /// What each way costs.
    pub costs: Option<Table>,
    /// What a fitted map would recover.
    pub what_if: Option<Table>,
    /// What it was fitted and tested on.
    pub what_if_note: String,
    /// CMC@1 flips.
    pub flips: Option<Flips>,
    /// What is shown of the worst negative flips.
    pub worst_flips_note: String,
    /// The worst negative flips.
    pub worst_flips: Vec<FlipCard>,
    /// One sentence on the sub-clusters.
    pub subclusters_note: String,
    /// The sub-clusters with queries, worst change first.
    pub subclusters: Table,
    /// The worst changes, for the figure.
    pub subcluster_bars: Vec<Bar>,
    /// Consensus before and after.
    pub consensus: Option<Table>,
    /// Where old and new embeddings lie, for the figure.
    pub map: Option<SpaceMap>,
    /// Credibility of the old gallery.
    pub credibility: Credibility,
    /// How the scores are spread, for the figure.
    pub scores: Option<Scores>,
    /// Fixed thresholds under new queries.
    pub threshold_transfer: Option<Table>,
    /// Overlap of the rankings and alignment of the embeddings.
    pub agreement: Option<Table>,
    /// The two models.
    pub models: Table,
    /// The probe's counts.
    pub probe: Vec<Fact>,
    /// Items that could not be read.
    pub bad_items: Table,
    /// Profile and severities.
    pub profile: Vec<Fact>,
    /// Waivers and what became of them.
    pub waivers: Option<Table>,
    /// The policy's limits.
    pub policy: Vec<Fact>,
    /// Every setting with its origin.
    pub settings: Table,
    /// This run.
    pub run: Vec<Fact>,
    /// The command line, quoted for a shell.
    pub command: String,
    /// The comparison with an earlier audit.
    pub baseline: Option<Baseline>,
    /// What CI systems are told.
    pub ci: Ci,
}

/// The answer in words and shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Headline {
    /// `skip-backfill`, as in the JSON.
    pub code: String,
    /// The answer as an order.
    pub words: &'static str,
    /// What it means for the gallery.
    pub meaning: &'static str,
    /// Its tone.
    pub tone: Tone,
    /// Why, one sentence.
    pub reason: String,
    /// The rule that decided and the process's exit code.
    pub rule: String,
    /// `BCT-compatible`, `no gain proven`.
    pub tags: Vec<String>,
}

/// The number that decided, its interval and its limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// `D = mAP(new->old) - mAP(old->old)`, or another check's name.
    pub name: String,
    /// `D`, `W` or the check's code.
    pub symbol: &'static str,
    /// D in one sentence where another number decided, else nothing.
    pub beside: String,
    /// `+0.0207`.
    pub value_text: String,
    /// `[+0.0111, +0.0308]`.
    pub interval_text: String,
    /// How the interval was made.
    pub interval_note: String,
    /// `margin -0.01`.
    pub limit_text: String,
    /// `pass`.
    pub state: &'static str,
    /// What the line shows, in one sentence.
    pub sentence: String,
    /// Tone of the state.
    pub tone: Tone,
    /// Whether values above the limit are safe.
    pub safe_above: bool,
    /// Where to draw: the estimate.
    pub value: f64,
    /// The lower end, may be infinite.
    pub lower: f64,
    /// The upper end, may be infinite.
    pub upper: f64,
    /// The limit.
    pub limit: f64,
}

/// A labelled value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fact {
    /// What it is.
    pub label: String,
    /// The value.
    pub value: String,
}

impl Fact {
    fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            value: value.into(),
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckLine {
    /// Stable code.
    pub code: &'static str,
    /// What is checked, in words.
    pub name: String,
    /// The value.
    pub value: String,
    /// Its interval, or nothing.
    pub interval: String,
    /// The limit with its relation: `> -0.01`.
    pub limit: String,
    /// `pass`, `fail`, `unsettled`, `not tested`.
    pub state: &'static str,
    /// The state as a mark.
    pub mark: &'static str,
    /// Tone of the state; plain for a warning that passes.
    pub tone: Tone,
    /// `gate` or `warn`.
    pub severity: &'static str,
    /// What the value means, or what would settle it.
    pub detail: String,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FindingLine {
    /// Stable code.
    pub code: String,
    /// `warning` or `info`.
    pub severity: &'static str,
    /// Its tone.
    pub tone: Tone,
    /// One sentence.
    pub message: String,
    /// Item ids, joined.
    pub items: String,
    /// Whether it stands among the cautions already.
    pub said_first: bool,
}

/// A table of text.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Table {
    /// Column names.
    pub head: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            head: head.map(String::from).to_vec(),
            rows: Vec::new(),
        }
    }
}

/// A table's cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cell {
    /// The value.
    pub text: String,
    /// Smaller, under it.
    pub note: String,
    /// Its tone.
    pub tone: Tone,
    /// Whether it is a number, to be aligned right.
    pub number: bool,
}

impl Cell {
    fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    fn number(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            number: true,
            ..Self::default()
        }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// CMC@1 flips.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flips {
    /// Right and wrong under both, counted over queries.
    pub contingency: Table,
    /// Shares with intervals.
    pub rates: Table,
    /// Whether flips go one way more than the other.
    pub asymmetry: String,
}

/// An item as a reader recognises it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ItemCard {
    /// Item id.
    pub id: String,
    /// Identity.
    pub identity: String,
    /// Thumbnail as a data URI.
    pub thumbnail: Option<String>,
    /// Recording as a data URI.
    pub sound: Option<String>,
    /// Whether the item is an image or a recording that could not be shown.
    pub placeholder: bool,
    /// Its text, shortened.
    pub text: Option<String>,
}

/// A hit in a ranking.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HitCard {
    /// The gallery item.
    pub item: ItemCard,
    /// Its score.
    pub score: String,
    /// `relevant` or `wrong`.
    pub word: &'static str,
    /// The word as a mark.
    pub mark: &'static str,
    /// Tone of the word.
    pub tone: Tone,
}

/// A negative flip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlipCard {
    /// The query.
    pub query: ItemCard,
    /// `rank 1 -> 14`.
    pub ranks: String,
    /// Whether new->new finds it.
    pub blame: &'static str,
    /// Top hits, old->old.
    pub old_hits: Vec<HitCard>,
    /// Top hits, new->old.
    pub new_hits: Vec<HitCard>,
}

/// Credibility of the old gallery.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Credibility {
    /// What it shows, one sentence each.
    pub notes: Vec<String>,
    /// Items in each bin over [0, 1].
    pub histogram: Vec<usize>,
    /// Where to draw the cut-off.
    pub cutoff: f64,
    /// The cut-off as text.
    pub cutoff_text: String,
    /// The least credible items.
    pub least: Vec<CredibilityCard>,
}

/// A gallery item's credibility.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CredibilityCard {
    /// The item.
    pub item: ItemCard,
    /// Combined score.
    pub combined: String,
    /// The three scores behind it.
    pub scores: String,
}

impl View {
    /// Words for a report. `thumbnails` reads the pictures; with a limit of 0 it reads none.
    pub fn new(report: &AuditReport, thumbnails: &mut Thumbnails) -> Self {
        thumbnails.prepare(evidence::pictures(report));
        Self {
            title: format!(
                "{}: {} -> {}",
                report.verdict.verdict, report.old.name, report.new.name
            ),
            question: top::question(report),
            old: report.old.name.clone(),
            new: report.new.name.clone(),
            quantity: format::capital(report.primary.reference.quantity()),
            primary: report.primary.to_string(),
            headline: top::headline(report),
            not_tested: report.verdict.not_tested.clone(),
            cautions: [gate::weakened(report), top::cautions(report)].concat(),
            sight: top::sight(report),
            decision: decision::decision(report),
            next_steps: report.verdict.next_steps.clone(),
            breaks: answers::breaks(report),
            turning: answers::turning(report),
            left_out: match report.privacy {
                super::Privacy::Full => "",
                super::Privacy::Statistics => {
                    "Statistics only: items, pictures, texts, names and the tables of items were left out; #1, #2, ... stand in for names."
                }
            },
            counts: top::counts(report),
            checks: report
                .checks
                .iter()
                .map(|check| checks::check(check, report))
                .collect(),
            checks_tally: checks::tally(&report.checks),
            findings: report.findings.iter().map(top::finding).collect(),
            assay: top::assay(report),
            pairing_bars: evidence::pairing_bars(report),
            pairings: evidence::pairings(report),
            verification: evidence::verification(report),
            changes: evidence::changes(report),
            slice_notes: gate::slice_notes(report),
            slices: gate::slices(report),
            forest: pictures::forest(report),
            refresh_notes: gate::refresh_notes(report),
            refresh: gate::refresh_curve(report),
            backfill_notes: gate::backfill_notes(report),
            backfill_steps: gate::backfill_steps(report),
            costs: gate::costs(report),
            what_if: gate::what_if(report),
            what_if_note: gate::what_if_note(report),
            flips: evidence::flips(report),
            worst_flips_note: evidence::worst_flips_note(report),
            worst_flips: evidence::worst_flips(report, thumbnails),
            subclusters_note: structure::subclusters_note(report),
            subclusters: structure::subclusters(report),
            subcluster_bars: structure::subcluster_bars(report),
            consensus: structure::consensus(report),
            map: pictures::space_map(report),
            credibility: structure::credibility(report, thumbnails),
            scores: pictures::scores(report),
            threshold_transfer: evidence::threshold_transfer(report),
            agreement: evidence::agreement(report),
            models: provenance::models(report),
            probe: provenance::probe(report),
            bad_items: provenance::bad_items(report),
            profile: gate::profile(report),
            waivers: gate::waivers(report),
            policy: provenance::policy(report),
            settings: provenance::settings(report),
            run: provenance::run(report),
            command: format::shell(&report.run.command),
            baseline: baseline::baseline(report),
            ci: ci::ci(report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_view_is_stable() {
        let view = View::new(&sample::full(), &mut Thumbnails::new(0));
        insta::assert_json_snapshot!("view_full_backfill", view);
    }
}
