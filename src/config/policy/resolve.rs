//! Flags over file over the profile, checked.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use super::{Policy, Profile, Waiver};
use crate::config::file::{PolicyTable, WaiverTable};
use crate::config::{ConfigError, Overrides, pick};
use crate::domain::{CheckCode, CheckSeverity, Date, Origin, Setting, UnknownName};

/// The policy that flags, file and profile make together; each value's origin goes to `settings`.
///
/// # Errors
/// A value out of its range, an unknown name, a waiver that cannot be used.
pub fn resolve(
    table: PolicyTable,
    flags: &Overrides,
    settings: &mut Vec<Setting>,
) -> Result<Policy, ConfigError> {
    let profile = pick(
        settings,
        "policy.profile",
        flags.profile,
        table.profile,
        Profile::Default,
    );
    let profile_of_file = table.profile.filter(|&file| profile.is_looser_than(file));
    let own = Policy::of(profile);
    let mut number = |key: &str, flag: Option<f64>, file, default, (low, high): (f64, f64)| {
        let key = format!("policy.{key}");
        let is_flag = flag.is_some();
        let value: f64 = pick(settings, &key, flag, file, default);
        if value > low && value < high {
            Ok(value)
        } else {
            Err(ConfigError::OutOfRange {
                path: None,
                is_flag,
                key,
                low,
                high,
                found: value,
            })
        }
    };
    const SHARE: (f64, f64) = (0.0, 1.0);
    let margin = number("margin", flags.margin, table.margin, own.margin, SHARE)?;
    // Below a millionth no interval of 10,000 replicates means anything.
    let alpha = number("alpha", flags.alpha, table.alpha, own.alpha, (1e-6, 0.5))?;
    let excess_flips = number(
        "excess_flips",
        flags.excess_flips,
        table.excess_flips,
        own.excess_flips,
        SHARE,
    )?;
    let slice_margin = number(
        "slice_margin",
        flags.slice_margin,
        table.slice_margin,
        own.slice_margin,
        SHARE,
    )?;
    let untestable_traffic = number(
        "untestable_traffic",
        None,
        table.untestable_traffic,
        own.untestable_traffic,
        SHARE,
    )?;
    let refresh_margin = number(
        "refresh_margin",
        flags.refresh_margin,
        table.refresh_margin,
        own.refresh_margin,
        SHARE,
    )?;
    let max_partial = number(
        "max_partial",
        flags.max_partial,
        table.max_partial,
        own.max_partial,
        SHARE,
    )?;
    let threshold_far_factor = number(
        "threshold_far_factor",
        None,
        table.threshold_far_factor,
        own.threshold_far_factor,
        (0.0, f64::INFINITY),
    )?;
    let threshold_frr_rise = number(
        "threshold_frr_rise",
        None,
        table.threshold_frr_rise,
        own.threshold_frr_rise,
        SHARE,
    )?;
    let blind_share = number(
        "blind_share",
        None,
        table.blind_share,
        own.blind_share,
        SHARE,
    )?;
    // Without a value these gate nothing, so there is no default to show.
    let mut optional = |key: &str, flag: Option<f64>, file: Option<f64>| {
        flag.or(file)
            .map(|value| number(key, flag, file, value, SHARE))
            .transpose()
    };
    let negative_flips = optional("negative_flips", flags.negative_flips, table.negative_flips)?;
    let threshold_far = optional("threshold_far", flags.threshold_far, table.threshold_far)?;

    let primary = flags.primary.or(table.primary);
    if let Some(primary) = primary {
        pick(
            settings,
            "policy.primary",
            flags.primary,
            table.primary,
            primary,
        );
    }
    // Each column once: testing one twice would halve what Holm's correction leaves it.
    let slice_columns = flags
        .slice_columns
        .clone()
        .or(table.slice_columns.clone())
        .map(|columns| {
            let mut seen = BTreeSet::new();
            let first = |column: &String| seen.insert(column.clone());
            columns.into_iter().filter(first).collect::<Vec<_>>()
        });
    if let Some(columns) = &slice_columns {
        let default = columns.clone();
        pick(
            settings,
            "policy.slice_columns",
            flags.slice_columns.clone(),
            table.slice_columns,
            default,
        );
    }
    let slices_proven = pick(
        settings,
        "policy.slices_proven",
        None,
        table.slices_proven,
        own.slices_proven,
    );
    let inconclusive = pick(
        settings,
        "policy.inconclusive",
        flags.inconclusive,
        table.inconclusive,
        own.inconclusive,
    );
    let fail_on = pick(
        settings,
        "policy.fail_on",
        flags.fail_on,
        table.fail_on,
        own.fail_on,
    );

    let mut severity = own.severity;
    // A named limit is meant to bind; a severity that is named too has the last word.
    let mut asked_for = BTreeSet::new();
    if negative_flips.is_some() {
        asked_for.insert(CheckCode::NegativeFlips);
    }
    if threshold_far.is_some() {
        asked_for.extend([CheckCode::ThresholdFar, CheckCode::ThresholdFrr]);
    }
    severity.extend(asked_for.iter().map(|&code| (code, CheckSeverity::Gate)));
    let from_file = table
        .severity
        .into_iter()
        .map(|(code, level)| (code, level, Origin::File));
    let from_flags = flags
        .severity
        .iter()
        .cloned()
        .map(|(code, level)| (code, level, Origin::Flag));
    for (name, level, origin) in from_file.chain(from_flags) {
        let key = format!("policy.severity.{name}");
        let code: CheckCode = known(&key, &name)?;
        if code.is_precondition() {
            return Err(ConfigError::Precondition {
                key,
                check: code.name(),
            });
        }
        severity.insert(code, level);
        if level == CheckSeverity::Gate {
            asked_for.insert(code);
        } else {
            asked_for.remove(&code);
        }
        settings.retain(|setting| setting.key != key);
        settings.push(Setting {
            key,
            value: level.to_string().into(),
            origin,
        });
    }

    let waivers = table
        .waiver
        .into_iter()
        .enumerate()
        .map(|(index, waiver)| usable_waiver(index + 1, waiver))
        .collect::<Result<_, _>>()?;
    Ok(Policy {
        profile,
        primary,
        margin,
        alpha,
        excess_flips,
        negative_flips,
        slice_margin,
        slice_columns,
        slices_proven,
        untestable_traffic,
        refresh_margin,
        max_partial,
        threshold_far,
        threshold_far_factor,
        threshold_frr_rise,
        blind_share,
        severity,
        asked_for,
        profile_of_file,
        inconclusive,
        fail_on,
        waivers,
    })
}

fn known<T: FromStr<Err = UnknownName>>(key: &str, name: &str) -> Result<T, ConfigError> {
    name.parse().map_err(|source| ConfigError::Unknown {
        key: key.to_owned(),
        source,
    })
}

fn usable_waiver(number: usize, table: WaiverTable) -> Result<Waiver, ConfigError> {
    let key = format!("policy.waiver {number}");
    let check: CheckCode = known(&key, &table.check)?;
    if check.is_precondition() {
        return Err(ConfigError::Precondition {
            key,
            check: check.name(),
        });
    }
    let refused = |expected: &'static str, found: &dyn Display| ConfigError::Waiver {
        number,
        check: table.check.clone(),
        expected,
        found: found.to_string(),
    };
    let day = match &table.until {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let until = Date::try_from(day).map_err(|_| refused("until = YYYY-MM-DD", &table.until))?;
    if table.reason.trim().is_empty() {
        return Err(refused("a reason", &"an empty text"));
    }
    match (check, &table.slice) {
        // One named failure, not all slices at once.
        (CheckCode::Slices, None) => {
            return Err(refused("slice = \"column=value\"", &"no slice"));
        }
        (CheckCode::Slices, Some(_)) | (_, None) => {}
        (_, Some(slice)) => return Err(refused("no slice (only `slices` has them)", slice)),
    }
    Ok(Waiver {
        check,
        slice: table.slice,
        reason: table.reason,
        until,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{ConfigFile, FailOn, Inconclusive};
    use crate::domain::Measure;

    fn resolved(toml: &str, flags: Overrides) -> Result<(Policy, Vec<Setting>), ConfigError> {
        let file = ConfigFile::parse(toml, Path::new("audit.toml"))?;
        let mut settings = Vec::new();
        let policy = resolve(file.policy, &flags, &mut settings)?;
        Ok((policy, settings))
    }

    fn policy(toml: &str) -> Policy {
        resolved(toml, Overrides::default()).expect("usable").0
    }

    fn refused(toml: &str) -> ConfigError {
        resolved(toml, Overrides::default()).expect_err("refused")
    }

    #[test]
    fn every_key_is_read() {
        let found = policy(
            "[policy]\nprofile = \"strict\"\nprimary = \"nDCG@10\"\nmargin = 0.02\nslice_columns = [\"camera\"]\n\
             threshold_far = 0.001\ninconclusive = \"pass\"\nfail_on = \"full\"\n\
             [policy.severity]\nrefresh = \"warn\"\n\
             [[policy.waiver]]\ncheck = \"slices\"\nslice = \"camera=3\"\nreason = \"replaced next week\"\nuntil = 2026-12-31\n",
        );
        assert_eq!(
            (found.profile, found.primary),
            (Profile::Strict, Some(Measure::NdcgAt(10)))
        );
        assert_eq!((found.margin, found.excess_flips), (0.02, 0.02));
        assert_eq!(found.severity(CheckCode::Refresh), CheckSeverity::Warn);
        assert_eq!(found.severity(CheckCode::ThresholdFar), CheckSeverity::Gate);
        assert_eq!(
            (found.inconclusive, found.fail_on),
            (Inconclusive::Pass, FailOn::Full)
        );
        assert_eq!(found.waivers[0].slice.as_deref(), Some("camera=3"));
        assert_eq!(found.waivers[0].until.to_string(), "2026-12-31");
    }

    #[test]
    fn a_day_may_be_quoted() {
        let found = policy(
            "[[policy.waiver]]\ncheck = \"refresh\"\nreason = \"r\"\nuntil = \"2026-12-31\"\n",
        );
        assert_eq!(found.waivers[0].until.to_string(), "2026-12-31");
    }

    #[test]
    fn a_flag_wins_over_the_file_and_a_named_limit_gates() {
        let flags = Overrides {
            severity: vec![("refresh".into(), CheckSeverity::Off)],
            slice_margin: Some(0.2),
            ..Overrides::default()
        };
        let (found, settings) = resolved(
            "[policy]\nnegative_flips = 0.1\nslice_margin = 0.05\n[policy.severity]\nrefresh = \"warn\"\n",
            flags,
        )
        .expect("usable");
        assert_eq!(found.severity(CheckCode::Refresh), CheckSeverity::Off);
        assert_eq!(
            found.severity(CheckCode::NegativeFlips),
            CheckSeverity::Gate
        );
        assert_eq!(found.slice_margin, 0.2);
        let of = |key: &str| {
            settings
                .iter()
                .filter(|setting| setting.key == key)
                .collect::<Vec<_>>()
        };
        let [severity] = of("policy.severity.refresh")[..] else {
            panic!("{settings:?}")
        };
        assert_eq!(severity.origin, Origin::Flag);
    }

    #[test]
    fn unknown_names_are_refused_with_a_suggestion() {
        let error = refused("[policy.severity]\nexcess-flip = \"warn\"\n");
        assert!(
            error
                .to_string()
                .starts_with("policy.severity.excess-flip: unknown check"),
            "{error}"
        );
        assert_eq!(
            error.hint().as_deref(),
            Some("did you mean `excess-flips`?")
        );
        assert!(
            refused("[policy]\nprofile = \"strikt\"\n")
                .to_string()
                .contains("strict")
        );
        assert!(
            refused("[policy]\nprimary = \"map\"\n")
                .to_string()
                .contains("mAP")
        );
        let error =
            refused("[[policy.waiver]]\ncheck = \"refresh\"\nreson = \"r\"\nuntil = 2026-12-31\n");
        assert!(error.to_string().contains("reason"), "{error}");
    }

    #[test]
    fn preconditions_cannot_be_loosened_or_waived() {
        let error = refused("[policy.severity]\nassay-sensitivity = \"off\"\n");
        assert!(error.to_string().contains("always gates"), "{error}");
        let error = refused(
            "[[policy.waiver]]\ncheck = \"dimensions\"\nreason = \"r\"\nuntil = 2026-12-31\n",
        );
        assert!(error.to_string().contains("always gates"), "{error}");
    }

    #[test]
    fn a_waiver_names_one_failure_a_reason_and_a_day() {
        let waiver = |lines: &str| refused(&format!("[[policy.waiver]]\n{lines}\n")).to_string();
        let all_slices = waiver("check = \"slices\"\nreason = \"r\"\nuntil = 2026-12-31");
        assert!(
            all_slices.contains("expected slice = \"column=value\""),
            "{all_slices}"
        );
        let no_reason = waiver("check = \"refresh\"\nreason = \" \"\nuntil = 2026-12-31");
        assert!(no_reason.contains("expected a reason"), "{no_reason}");
        let no_day = waiver("check = \"refresh\"\nreason = \"r\"\nuntil = \"soon\"");
        assert!(no_day.contains("expected until = YYYY-MM-DD"), "{no_day}");
        let odd_slice =
            waiver("check = \"refresh\"\nslice = \"a=b\"\nreason = \"r\"\nuntil = 2026-12-31");
        assert!(odd_slice.contains("only `slices` has them"), "{odd_slice}");
    }
}
