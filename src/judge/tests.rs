use super::backfill::Plan;
use super::evidence::{Assay, Refresh};
use super::outcomes::{Change, Flip, Flips};
use super::slices::{Members, Slice};
use super::waivers::WaiverState;
use super::*;
use crate::config::{Profile, Waiver};
use crate::domain::{IntervalMethod, Measure, Reference};
use crate::stats::{CurveEstimates, SliceTest};

fn estimate(lower: f64, value: f64, upper: f64) -> Estimate {
    Estimate {
        value,
        lower,
        upper,
        level: 0.9,
        standard_error: (upper - lower) / 3.29,
        method: IntervalMethod::BcaByIdentity,
    }
}

fn change(lower: f64, value: f64, upper: f64) -> Option<Change> {
    let estimate = estimate(lower, value, upper);
    Some(Change {
        estimate,
        optimistic: estimate,
        identity_weighted: value,
        resolvable_margin: 0.01,
    })
}

fn flips(negative: Estimate, excess: Option<Estimate>) -> Option<Flips> {
    let none = Flip {
        old_old: true,
        after: true,
        new_new: None,
    };
    Some(Flips {
        per_query: vec![none; 300],
        negative,
        positive: negative,
        excess,
        most_negative: negative,
        most_excess: excess,
        asymmetry_p: 1.0,
    })
}

fn judged(evidence: &Evidence) -> Judgement {
    judge(evidence, &Policy::default(), Date::of_unix_day(0))
}

/// Everything passes.
fn passing() -> Evidence {
    let few = estimate(0.0, 0.01, 0.02);
    Evidence {
        primary: Reference::Labels.name(Measure::MeanAveragePrecision),
        n_queries: 300,
        n_query_identities: 100,
        dominant_share: 0.01,
        dims: [64, 64],
        same_model: false,
        adapted: false,
        assay: Assay {
            old_old: estimate(0.5, 0.55, 0.6),
            shuffled: 0.02,
            permutations: 200,
            p_value: 1.0 / 201.0,
            largest_margin: 0.096,
            blind_share: 0.03,
        },
        change: change(0.001, 0.01, 0.02),
        worth: Some(estimate(0.02, 0.05, 0.08)),
        gain: None,
        flips: flips(few, Some(few)),
        slice_columns: Vec::new(),
        slices: None,
        untestable_traffic: Vec::new(),
        refresh: None,
        plan: None,
        threshold: None,
        change_without_least_credible: None,
    }
}

fn verdict(edit: impl FnOnce(&mut Evidence)) -> (u8, Verdict) {
    let mut evidence = passing();
    edit(&mut evidence);
    let judgement = judged(&evidence);
    (judgement.rule, judgement.verdict)
}

const LOSS: Estimate = Estimate {
    value: -0.2,
    lower: -0.25,
    upper: -0.15,
    level: 0.9,
    standard_error: 0.03,
    method: IntervalMethod::BcaByIdentity,
};

#[test]
fn a_model_that_has_a_head_is_not_sent_for_one() {
    let mut evidence = passing();
    evidence.change = change(-0.2, -0.15, -0.1);
    let says_adapt = |evidence: &Evidence| {
        let steps = judged(evidence).next_steps;
        steps
            .iter()
            .any(|step| step.contains("`compat-audit adapt`"))
    };
    assert!(says_adapt(&evidence));
    evidence.adapted = true;
    assert!(!says_adapt(&evidence));
}

#[test]
fn each_line_of_the_table_matches_alone() {
    use Verdict::*;
    assert_eq!(verdict(|_| ()), (9, SkipBackfill));
    assert_eq!(verdict(|e| e.same_model = true), (2, SkipBackfill));
    assert_eq!(
        verdict(|e| (e.dims, e.change, e.flips) = ([64, 32], None, None)),
        (3, FullBackfill)
    );
    assert_eq!(
        verdict(|e| (e.dims, e.worth) = ([64, 32], Some(LOSS))),
        (3, DoNotUpgrade)
    );
    assert_eq!(verdict(|e| e.assay.p_value = 0.3), (4, Inconclusive));
    assert_eq!(
        verdict(|e| e.assay.largest_margin = 0.005),
        (4, Inconclusive)
    );
    assert_eq!(verdict(|e| e.n_query_identities = 19), (4, Inconclusive));
    assert_eq!(verdict(|e| e.worth = Some(LOSS)), (5, DoNotUpgrade));
    assert_eq!(
        verdict(|e| e.change = change(-0.3, -0.2, -0.1)),
        (6, FullBackfill)
    );
    let many = estimate(0.06, 0.08, 0.1);
    assert_eq!(
        verdict(|e| e.flips = flips(many, Some(many))),
        (7, FullBackfill)
    );
    assert_eq!(
        verdict(|e| e.change = change(-0.02, 0.0, 0.02)),
        (8, Inconclusive)
    );
}

#[test]
fn the_first_line_that_matches_wins() {
    use Verdict::*;
    // A probe that cannot judge must not call anything a failure.
    assert_eq!(
        verdict(|e| (e.assay.p_value, e.worth) = (0.3, Some(LOSS))),
        (4, Inconclusive)
    );
    assert_eq!(
        verdict(|e| (e.worth, e.change) = (Some(LOSS), change(-0.3, -0.2, -0.1))),
        (5, DoNotUpgrade)
    );
    // A failed gate outranks an unsettled one.
    let many = estimate(0.06, 0.08, 0.1);
    let both = |e: &mut Evidence| {
        e.change = change(-0.02, 0.0, 0.02);
        e.flips = flips(many, Some(many));
    };
    assert_eq!(verdict(both), (7, FullBackfill));
}

#[test]
fn a_bound_on_the_limit_settles_nothing() {
    let at = |lower: f64, upper: f64| {
        checks::state(
            &estimate(lower, (lower + upper) / 2.0, upper),
            -0.01,
            SafeSide::Above,
        )
    };
    assert_eq!(at(-0.01, 0.0), CheckState::Unsettled);
    assert_eq!(at(-0.02, -0.01), CheckState::Unsettled);
    assert_eq!(at(-0.009, 0.0), CheckState::Pass);
    assert_eq!(at(-0.02, -0.011), CheckState::Fail);
}

#[test]
fn ties_that_decide_leave_the_change_unsettled() {
    let tied = |e: &mut Evidence| {
        let mut both = change(-0.3, -0.2, -0.1).expect("some");
        both.optimistic = estimate(0.0, 0.01, 0.02);
        e.change = Some(both);
    };
    assert_eq!(verdict(tied), (8, Verdict::Inconclusive));
    // The curve begins at the same D and must not settle what ties leave open.
    let with_curve = |e: &mut Evidence| {
        tied(e);
        e.refresh = refresh(estimate(-0.3, -0.2, -0.1));
    };
    assert_eq!(verdict(with_curve), (8, Verdict::Inconclusive));
}

#[test]
fn one_identity_with_many_queries_leaves_it_unsettled() {
    assert_eq!(
        verdict(|e| e.dominant_share = 0.11),
        (8, Verdict::Inconclusive)
    );
    assert_eq!(
        verdict(|e| e.dominant_share = 0.10),
        (9, Verdict::SkipBackfill)
    );
}

#[test]
fn without_new_new_the_negative_flips_gate() {
    let many = estimate(0.06, 0.08, 0.1);
    let gone =
        |negative| move |e: &mut Evidence| (e.worth, e.flips) = (None, flips(negative, None));
    assert_eq!(verdict(gone(many)), (7, Verdict::FullBackfill));
    assert_eq!(
        verdict(gone(estimate(0.0, 0.01, 0.02))),
        (9, Verdict::SkipBackfill)
    );
    // With new->new they only warn.
    let warns = |e: &mut Evidence| e.flips = flips(many, Some(estimate(0.0, 0.01, 0.02)));
    assert_eq!(verdict(warns), (9, Verdict::SkipBackfill));
}

#[test]
fn no_gain_is_said_when_none_is_proven() {
    let mut evidence = passing();
    evidence.change = change(-0.3, -0.2, -0.1);
    let with_gain = judged(&evidence);
    assert!(
        !with_gain.reason.contains("No gain"),
        "{}",
        with_gain.reason
    );
    evidence.worth = Some(estimate(-0.005, 0.0, 0.005));
    let without = judged(&evidence);
    assert!(without.reason.contains("No gain"), "{}", without.reason);
    assert_eq!(without.gain_proven, Some(false));
}

#[test]
fn an_unsettled_verdict_says_what_is_missing() {
    let mut evidence = passing();
    evidence.change = change(-0.02, 0.0, 0.02);
    let judgement = judged(&evidence);
    assert!(
        judgement
            .next_steps
            .iter()
            .any(|step| step.contains("query identities"))
    );
    let mut checks = judgement.checks.iter();
    let open = checks.find(|check| check.state == CheckState::Unsettled);
    let open = open.expect("the change is not settled");
    assert_eq!(open.code, CheckCode::CrossTestChange);
    let said = format!("Not settled: {}; ", open.message);
    assert!(judgement.reason.starts_with(&said), "{}", judgement.reason);
}

fn refresh(lowest: Estimate) -> Option<Refresh> {
    let mut planned = vec![estimate(0.01, 0.02, 0.03); 21];
    planned[7] = lowest;
    Some(Refresh {
        planned: CurveEstimates {
            simultaneous: planned.clone(),
            pointwise: planned,
        },
        random: vec![0.02; 21],
        random_orders: 5,
    })
}

fn plan(beta_star: Option<f64>) -> Option<Plan> {
    Some(Plan {
        beta_star,
        steps: Vec::new(),
        split: [0, 300],
    })
}

/// A slice with this Holm-adjusted p.
fn slice(value: &str, p_holm: f64, change: Estimate) -> Slice {
    Slice {
        members: Members {
            column: "camera".into(),
            value: value.into(),
            queries: (0..30).collect(),
            is_one_sub_cluster: false,
        },
        n_identities: 30,
        test: Some(SliceTest {
            estimate: change,
            p: p_holm / 2.0,
            p_holm,
            q: p_holm,
            minimum_detectable_loss: 0.15,
        }),
    }
}

fn state_of(judgement: &Judgement, code: CheckCode) -> CheckState {
    judgement
        .checks
        .iter()
        .find(|check| check.code == code)
        .unwrap_or_else(|| panic!("{code} was not run"))
        .state
}

#[test]
fn a_failing_slice_stops_a_good_mean_and_is_named() {
    let mut evidence = passing();
    let lost = slice("north", 0.001, estimate(-0.5, -0.4, -0.3));
    let fine = slice("south", 1.0, estimate(0.0, 0.01, 0.02));
    evidence.slices = Some(vec![fine, lost]);
    let judgement = judged(&evidence);
    assert_eq!(
        (judgement.rule, judgement.verdict),
        (7, Verdict::FullBackfill)
    );
    assert!(
        judgement.reason.contains("camera=north (-0.400)"),
        "{}",
        judgement.reason
    );
}

#[test]
fn a_plan_within_the_limit_makes_the_backfill_partial() {
    let many = estimate(0.06, 0.08, 0.1);
    let with =
        |beta_star| verdict(|e| (e.flips, e.plan) = (flips(many, Some(many)), plan(beta_star)));
    assert_eq!(with(Some(0.3)), (7, Verdict::PartialBackfill));
    assert_eq!(with(Some(0.5)), (7, Verdict::PartialBackfill));
    assert_eq!(with(Some(0.55)), (7, Verdict::FullBackfill));
    assert_eq!(with(None), (7, Verdict::FullBackfill));
    // A loss of the mean itself is never partial: beta* is information.
    let lost = |e: &mut Evidence| (e.change, e.plan) = (change(-0.3, -0.2, -0.1), plan(Some(0.3)));
    assert_eq!(verdict(lost), (6, Verdict::FullBackfill));
}

#[test]
fn the_lowest_point_of_the_refresh_curve_decides() {
    let of = |lowest| {
        let mut evidence = passing();
        evidence.refresh = refresh(lowest);
        let judgement = judged(&evidence);
        (state_of(&judgement, CheckCode::Refresh), judgement.verdict)
    };
    assert_eq!(
        of(estimate(-0.005, 0.0, 0.005)),
        (CheckState::Pass, Verdict::SkipBackfill)
    );
    assert_eq!(
        of(estimate(-0.02, -0.005, 0.005)),
        (CheckState::Unsettled, Verdict::Inconclusive)
    );
    assert_eq!(
        of(estimate(-0.06, -0.05, -0.04)),
        (CheckState::Fail, Verdict::FullBackfill)
    );
}

#[test]
fn a_point_that_fails_only_on_its_own_leaves_the_curve_unsettled() {
    let mut evidence = passing();
    let wider = |upper| Estimate {
        level: 0.99,
        ..estimate(-0.09, -0.05, upper)
    };
    let mut with = |upper| {
        evidence.refresh = refresh(estimate(-0.06, -0.05, -0.04));
        evidence.refresh.as_mut().unwrap().planned.simultaneous[7] = wider(upper);
        let judgement = judged(&evidence);
        let mut checks = judgement.checks.into_iter();
        let check = checks.find(|check| check.code == CheckCode::Refresh);
        (check.unwrap(), judgement.verdict)
    };
    let (failed, verdict) = with(-0.02);
    assert_eq!(
        (failed.state, verdict),
        (CheckState::Fail, Verdict::FullBackfill)
    );
    assert_eq!(failed.estimate, Some(wider(-0.02)));
    assert!(
        failed.message.contains(
            "35 % refreshed, its ends widened for all shares at once, = -0.0500 [-0.0900,"
        ),
        "{}",
        failed.message
    );
    let (open, verdict) = with(0.0);
    assert_eq!(
        (open.state, verdict),
        (CheckState::Unsettled, Verdict::Inconclusive)
    );
    assert_eq!(open.estimate, Some(wider(0.0)));
    // The upper end is .05 away, the limit .04: (5/4)^2 of 100 identities, and one more.
    let settles = open.settles.unwrap();
    assert!(
        settles.starts_with(
            "on its own this share would prove a loss, as the worst of 21 it does not yet; about 157 query identities"
        ),
        "{settles}"
    );
}

#[test]
fn severities_decide_which_checks_are_run_and_which_stop() {
    let many = estimate(0.06, 0.08, 0.1);
    let mut evidence = passing();
    evidence.flips = flips(many, Some(many));
    let with = |severity| {
        let mut policy = Policy::default();
        policy.severity.insert(CheckCode::ExcessFlips, severity);
        judge(&evidence, &policy, Date::of_unix_day(0))
    };
    assert_eq!(with(CheckSeverity::Gate).verdict, Verdict::FullBackfill);
    assert_eq!(with(CheckSeverity::Warn).verdict, Verdict::SkipBackfill);
    let off = with(CheckSeverity::Off);
    assert_eq!(off.verdict, Verdict::SkipBackfill);
    let was_run = |check: &Check| check.code == CheckCode::ExcessFlips;
    assert!(!off.checks.iter().any(was_run));
}

#[test]
fn the_strict_profile_asks_for_an_improvement_and_for_sight() {
    let strict = |edit: fn(&mut Evidence)| {
        let mut evidence = passing();
        let little = estimate(0.0, 0.005, 0.01);
        evidence.flips = flips(little, Some(little));
        evidence.assay.blind_share = 0.015;
        edit(&mut evidence);
        judge(
            &evidence,
            &Policy::of(Profile::Strict),
            Date::of_unix_day(0),
        )
    };
    assert_eq!(strict(|_| ()).verdict, Verdict::SkipBackfill);
    let no_gain = strict(|e| e.change = change(-0.005, 0.005, 0.02));
    assert_eq!(
        state_of(&no_gain, CheckCode::BctCriterion),
        CheckState::Unsettled
    );
    assert_eq!(no_gain.verdict, Verdict::Inconclusive);
    let blind = strict(|e| e.assay.blind_share = 0.03);
    assert_eq!(
        (state_of(&blind, CheckCode::BlindShare), blind.verdict),
        (CheckState::Unsettled, Verdict::Inconclusive)
    );
    let unseen = strict(|e| {
        (e.slice_columns, e.untestable_traffic) = (vec!["camera".into()], vec![0.21]);
    });
    assert_eq!(
        (
            state_of(&unseen, CheckCode::UntestableTraffic),
            unseen.verdict
        ),
        (CheckState::Unsettled, Verdict::Inconclusive)
    );
    let unproven = strict(|e| {
        e.slices = Some(vec![slice("north", 1.0, estimate(-0.2, 0.0, 0.2))]);
    });
    assert_eq!(
        (state_of(&unproven, CheckCode::Slices), unproven.verdict),
        (CheckState::Unsettled, Verdict::Inconclusive)
    );
}

#[test]
fn a_waiver_turns_one_failure_into_a_warning_until_its_day() {
    let lost = |value: &str| slice(value, 0.001, estimate(-0.5, -0.4, -0.3));
    let waiver = |slice: &str, until: u64| Waiver {
        check: CheckCode::Slices,
        slice: Some(slice.into()),
        reason: "replaced next week".into(),
        until: Date::of_unix_day(until),
    };
    let audited = |values: &[&str], waivers: Vec<Waiver>| {
        let mut evidence = passing();
        evidence.slices = Some(values.iter().copied().map(lost).collect());
        let policy = Policy {
            waivers,
            ..Policy::default()
        };
        judge(&evidence, &policy, Date::of_unix_day(100))
    };
    let used = audited(&["north"], vec![waiver("camera=north", 100)]);
    assert_eq!(used.verdict, Verdict::SkipBackfill);
    assert_eq!(used.waivers[0].state, WaiverState::Used);
    let check = used
        .checks
        .iter()
        .find(|check| check.code == CheckCode::Slices);
    let check = check.expect("run");
    assert_eq!(
        (check.state, check.severity),
        (CheckState::Fail, CheckSeverity::Warn)
    );
    assert_eq!(
        check.waived.as_deref(),
        Some("camera=north: replaced next week (until 1970-04-11)")
    );
    // One waived slice does not cover another.
    let half = audited(&["north", "south"], vec![waiver("camera=north", 100)]);
    assert_eq!(half.verdict, Verdict::FullBackfill);
    let lapsed = audited(&["north"], vec![waiver("camera=north", 99)]);
    assert_eq!(
        (lapsed.verdict, lapsed.waivers[0].state),
        (Verdict::FullBackfill, WaiverState::Lapsed)
    );
    let idle = audited(&["north"], vec![waiver("camera=east", 100)]);
    assert_eq!(
        (idle.verdict, idle.waivers[0].state),
        (Verdict::FullBackfill, WaiverState::NotNeeded)
    );
}

#[test]
fn a_hard_wired_threshold_gates_when_its_rate_is_named() {
    use crate::retrieve::verification::ThresholdTransfer;
    let mut evidence = passing();
    evidence.threshold = Some(ThresholdTransfer {
        far: estimate(0.003, 0.004, 0.005),
        frr_rise: estimate(-0.02, 0.0, 0.02),
        threshold: 0.6,
        requested_far: 0.001,
    });
    let warned = judged(&evidence);
    assert_eq!(warned.verdict, Verdict::SkipBackfill);
    assert_eq!(
        (
            state_of(&warned, CheckCode::ThresholdFar),
            state_of(&warned, CheckCode::ThresholdFrr)
        ),
        (CheckState::Fail, CheckState::Pass)
    );
    let mut policy = Policy::default();
    policy
        .severity
        .insert(CheckCode::ThresholdFar, CheckSeverity::Gate);
    let gated = judge(&evidence, &policy, Date::of_unix_day(0));
    assert_eq!(gated.verdict, Verdict::FullBackfill);
}

#[test]
fn a_gate_that_is_asked_for_by_name_and_cannot_be_tested_is_no_pass() {
    let policy = Policy {
        asked_for: [CheckCode::ThresholdFar].into(),
        ..Policy::default()
    };
    let judgement = judge(&passing(), &policy, Date::of_unix_day(0));
    assert_eq!(
        (
            state_of(&judgement, CheckCode::ThresholdFar),
            judgement.verdict
        ),
        (CheckState::Unsettled, Verdict::Inconclusive)
    );
}

#[test]
fn an_untested_gate_stays_one_and_is_said() {
    // No slice has queries enough and there is no curve.
    let judgement = judged(&passing());
    assert_eq!(judgement.verdict, Verdict::SkipBackfill);
    assert!(
        judgement
            .reason
            .starts_with("Every gate that could be tested passes.")
    );
    let untested = judgement
        .checks
        .iter()
        .filter(|check| check.state == CheckState::NotTested);
    let severities: Vec<_> = untested.map(|check| (check.code, check.severity)).collect();
    assert!(severities.contains(&(CheckCode::Slices, CheckSeverity::Gate)));
    assert!(severities.contains(&(CheckCode::ThresholdFar, CheckSeverity::Warn)));
}

#[test]
fn a_waived_slice_hides_no_unproven_one() {
    let mut evidence = passing();
    evidence.slices = Some(vec![
        slice("north", 0.001, estimate(-0.5, -0.4, -0.3)),
        slice("south", 1.0, estimate(-0.21, -0.1, 0.0)),
    ]);
    let policy = Policy {
        slices_proven: true,
        waivers: vec![Waiver {
            check: CheckCode::Slices,
            slice: Some("camera=north".into()),
            reason: "replaced".into(),
            until: Date::of_unix_day(9),
        }],
        ..Policy::default()
    };
    let judgement = judge(&evidence, &policy, Date::of_unix_day(0));
    assert_eq!(
        (state_of(&judgement, CheckCode::Slices), judgement.verdict),
        (CheckState::Unsettled, Verdict::Inconclusive)
    );
}

#[test]
fn a_stand_in_is_no_looser_than_what_it_stands_in_for() {
    let many = estimate(0.06, 0.08, 0.1);
    let mut evidence = passing();
    (evidence.worth, evidence.flips) = (None, flips(many, None));
    let policy = Policy {
        negative_flips: Some(0.9),
        ..Policy::default()
    };
    let judgement = judge(&evidence, &policy, Date::of_unix_day(0));
    assert_eq!(judgement.verdict, Verdict::FullBackfill);
}

#[test]
fn a_plan_does_not_answer_for_what_no_share_was_tested_on() {
    use crate::retrieve::verification::ThresholdTransfer;
    let many = estimate(0.06, 0.08, 0.1);
    let mut evidence = passing();
    (evidence.flips, evidence.plan) = (flips(many, Some(many)), plan(Some(0.3)));
    evidence.threshold = Some(ThresholdTransfer {
        far: estimate(0.5, 0.6, 0.7),
        frr_rise: estimate(0.0, 0.0, 0.0),
        threshold: 0.6,
        requested_far: 0.01,
    });
    let policy = Policy {
        severity: {
            let mut severity = Policy::default().severity;
            severity.insert(CheckCode::ThresholdFar, CheckSeverity::Gate);
            severity
        },
        ..Policy::default()
    };
    let judged = |evidence: &Evidence, policy: &Policy| {
        let judgement = judge(evidence, policy, Date::of_unix_day(0));
        (judgement.verdict, judgement.reason)
    };
    let (verdict, reason) = judged(&evidence, &policy);
    assert_eq!(verdict, Verdict::FullBackfill);
    assert!(
        reason.ends_with("No share of the gallery answers for threshold-far."),
        "{reason}"
    );
    let without = judged(&evidence, &Policy::default());
    assert_eq!(without.0, Verdict::PartialBackfill);
    // It passes for the old gallery; what re-embedded items do to it is not known either.
    evidence.threshold = evidence.threshold.map(|transfer| ThresholdTransfer {
        far: estimate(0.003, 0.004, 0.005),
        ..transfer
    });
    assert_eq!(judged(&evidence, &policy).0, Verdict::FullBackfill);
    evidence.flips = passing().flips;
    let skip = judge(&evidence, &policy, Date::of_unix_day(0));
    assert_eq!(skip.verdict, Verdict::SkipBackfill);
    assert!(skip.next_steps[0].contains("threshold was not tested"));
}

#[test]
fn a_plan_does_not_answer_for_a_check_that_was_asked_for_and_cannot_be_tested() {
    let many = estimate(0.06, 0.08, 0.1);
    let mut evidence = passing();
    (evidence.flips, evidence.plan) = (flips(many, Some(many)), plan(Some(0.3)));
    let policy = Policy {
        asked_for: [CheckCode::Slices].into(),
        ..Policy::default()
    };
    let judgement = judge(&evidence, &policy, Date::of_unix_day(0));
    assert_eq!(
        (state_of(&judgement, CheckCode::Slices), judgement.verdict),
        (CheckState::Unsettled, Verdict::FullBackfill)
    );
}

#[test]
fn what_even_a_full_backfill_leaves_broken_is_said() {
    let lost = slice("north", 0.001, estimate(-0.5, -0.4, -0.3));
    let mut evidence = passing();
    evidence.slices = Some(vec![lost]);
    let step = |passes: bool| backfill::Step {
        beta: 1.0,
        change: estimate(0.0, 0.01, 0.02),
        excess: estimate(0.0, 0.01, 0.02),
        failing_slices: vec!["camera=north".into()],
        passes,
        fails: !passes,
    };
    for passes in [true, false] {
        evidence.plan = Some(Plan {
            steps: vec![step(passes)],
            ..plan(None).expect("some")
        });
        let judgement = judged(&evidence);
        assert_eq!(judgement.verdict, Verdict::FullBackfill);
        let said =
            "With the whole gallery re-embedded not every gate passes either (camera=north).";
        assert_eq!(judgement.reason.ends_with(said), !passes);
        let in_steps = |step: &String| step.starts_with(said);
        assert_eq!(judgement.next_steps.iter().any(in_steps), !passes);
    }
    let plan = evidence.plan.as_mut().expect("some");
    plan.steps[0].fails = false;
    let unproven = judged(&evidence);
    assert!(
        unproven
            .reason
            .contains("is not proven on these queries either")
    );
    assert!(unproven.next_steps[1].ends_with("More queries may settle it."));
    // A gallery of the new model is not meant to agree with the old one.
    evidence.primary = Reference::OldModel.name(Measure::MeanAveragePrecision);
    assert!(!judged(&evidence).reason.contains("either"));
}

#[test]
fn a_loss_that_only_warns_is_not_called_unsettled() {
    let many = estimate(0.06, 0.08, 0.1);
    let reason = |severity: CheckSeverity| {
        let mut evidence = passing();
        evidence.change = change(-0.3, -0.2, -0.1);
        evidence.flips = flips(many, Some(many));
        let mut policy = Policy::default();
        policy.severity.insert(CheckCode::CrossTestChange, severity);
        judge(&evidence, &policy, Date::of_unix_day(0)).reason
    };
    let warned = reason(CheckSeverity::Warn);
    assert!(
        warned.starts_with(
            "The mean loss is beyond the margin, which only warns here, and one gate fails: "
        ),
        "{warned}"
    );
    let off = reason(CheckSeverity::Off);
    assert!(
        off.starts_with("The mean loss is not held against the margin, and "),
        "{off}"
    );
}

#[test]
fn a_waived_loss_does_not_decide() {
    let mut evidence = passing();
    evidence.change = change(-0.3, -0.2, -0.1);
    let waived = Policy {
        waivers: vec![Waiver {
            check: CheckCode::CrossTestChange,
            slice: None,
            reason: "known".into(),
            until: Date::of_unix_day(9),
        }],
        ..Policy::default()
    };
    let judgement = judge(&evidence, &waived, Date::of_unix_day(0));
    assert_eq!(judgement.verdict, Verdict::SkipBackfill);
    assert_eq!(judged(&evidence).verdict, Verdict::FullBackfill);
}

#[test]
fn ties_that_could_hide_flips_leave_them_unsettled() {
    let few = estimate(0.0, 0.01, 0.02);
    let many = estimate(0.06, 0.08, 0.1);
    let mut tied = flips(few, Some(few)).expect("some");
    tied.most_excess = Some(many);
    let mut evidence = passing();
    evidence.flips = Some(tied);
    let judgement = judged(&evidence);
    assert_eq!(
        (
            state_of(&judgement, CheckCode::ExcessFlips),
            judgement.verdict
        ),
        (CheckState::Unsettled, Verdict::Inconclusive)
    );
}

#[test]
fn a_probe_that_cannot_judge_claims_nothing() {
    let claims = |evidence: &Evidence| {
        let judgement = judged(evidence);
        (judgement.bct_compatible, judgement.gain_proven)
    };
    let mut evidence = passing();
    evidence.worth = Some(estimate(0.1, 0.2, 0.3));
    assert_eq!(claims(&evidence), (true, Some(true)));
    evidence.dominant_share = 0.5;
    assert_eq!(claims(&evidence), (false, Some(false)));
    assert!(judged(&evidence).can_judge);
    evidence = Evidence {
        n_query_identities: 12,
        dominant_share: 0.01,
        ..evidence
    };
    assert_eq!(claims(&evidence), (false, Some(false)));
    assert!(!judged(&evidence).can_judge);
    // Where another line of the table comes first it cannot judge either.
    evidence.dims = [32, 64];
    evidence.worth = Some(LOSS);
    let judgement = judged(&evidence);
    assert_eq!(
        (judgement.rule, judgement.can_judge, judgement.verdict),
        (3, false, Verdict::FullBackfill)
    );
}
