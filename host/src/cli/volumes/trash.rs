//! `pith volumes trash` and `pith volumes restore-from-trash`: deleted volumes.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use humantime::format_rfc3339_seconds;
use pith_core::volume::{Fate, OnDelete, Record, State, persistent_volume};
use serde_json::{Value, json};

use super::{ask, columns};
use crate::args::{AnswerOutput, VolumesRestore, VolumesSource};
use crate::cli::{csi, print, report};
use crate::juicefs::steps::Steps;
use crate::juicefs::store::Bin;
use crate::provisioner::{Deleted, Found};

/// Lists what was deleted. The exit code is 1 if something is left alone.
pub(super) fn ls(source: &VolumesSource) -> Result<ExitCode> {
    let deleted = ask(source, Steps::default(), async |provisioner, secrets, _| provisioner.trash(secrets).await)?;
    let deleted = deleted.context("reading the trash")?;
    let text = match source.output {
        AnswerOutput::Text => table(&deleted),
        AnswerOutput::Yaml => yaml_serde::to_string(&items(&deleted))?,
        AnswerOutput::Json => format!("{}\n", serde_json::to_string_pretty(&items(&deleted))?),
    };
    print(&text)?;
    let sound = deleted.iter().all(|it| it.found.is_ok());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Brings a volume back. The exit code is 1 if it cannot be.
pub(super) fn restore(args: &VolumesRestore) -> Result<ExitCode> {
    let source = &args.source;
    let restored = ask(source, steps(args)?, async |provisioner, secrets, config| {
        Ok::<_, anyhow::Error>((provisioner.restore(&args.wanted, secrets).await?, config.sidecars.driver.clone()))
    })?;
    let (record, driver) = match restored {
        Ok(restored) => restored,
        Err(error) => {
            report(&error);
            return Ok(ExitCode::from(1));
        }
    };
    let manifest = persistent_volume(&record, &driver, csi::secret_name(&source.secrets)?.as_ref());
    print(&match source.output {
        AnswerOutput::Text => next_steps(&record),
        AnswerOutput::Yaml => yaml_serde::to_string(&manifest)?,
        AnswerOutput::Json => format!("{}\n", serde_json::to_string_pretty(&manifest)?),
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(debug_assertions)]
fn steps(args: &VolumesRestore) -> Result<Steps> {
    args.die_at.as_deref().map_or_else(|| Ok(Steps::default()), Steps::die_at)
}

#[cfg(not(debug_assertions))]
#[expect(clippy::unnecessary_wraps, reason = "a debug build can be told of a step that does not exist")]
fn steps(_: &VolumesRestore) -> Result<Steps> {
    Ok(Steps::default())
}

fn next_steps(record: &Record) -> String {
    let (id, directory) = (&record.id, &record.directory);
    format!(
        "volume {id} is back at {directory}\n\
         The cluster does not know it yet. The same command with `-o yaml` prints a PersistentVolume for it: look through that, and \
         apply it with `kubectl apply -f -`.\n"
    )
}

fn items(deleted: &[Deleted]) -> Vec<Value> {
    deleted.iter().map(item).collect()
}

fn item(deleted: &Deleted) -> Value {
    let path = deleted.bin.place(&deleted.place).map(|path| path.to_string()).unwrap_or_default();
    let Found { record, fate, left } = match &deleted.found {
        Ok(found) => found,
        Err(problem) => return json!({"place": deleted.place, "path": path, "problem": problem}),
    };
    let until = match fate {
        Fate::Keep(until) => Some(moment(*until)),
        _ => None,
    };
    let on_delete = match record.on_delete() {
        OnDelete::Delete(_) => "delete",
        OnDelete::Retain => "retain",
        OnDelete::Archive => "archive",
    };
    json!({
        "place": deleted.place,
        "path": path,
        "id": record.id,
        "directory": record.directory.to_string(),
        "capacityBytes": record.capacity_bytes,
        "claim": record.claim.as_ref().map(ToString::to_string),
        "onDelete": on_delete,
        "deletedAt": record.trashed().and_then(|trashed| trashed.at).map(moment),
        "keptUntil": until,
        "state": state(deleted.bin, record, *fate),
        "entriesLeft": left,
    })
}

/// In a word.
fn state(bin: Bin, record: &Record, fate: Fate) -> &'static str {
    match (bin, &record.state, fate) {
        (_, _, Fate::Restoring) => "restoring",
        (_, State::Purging(_), _) => "purging",
        (Bin::Archive, _, _) => "archived",
        (_, _, Fate::Purge) => "due",
        (_, _, Fate::Keep(_) | Fate::KeepForever) => "kept",
    }
}

/// One line for each place.
fn table(deleted: &[Deleted]) -> String {
    let mut rows = vec![["PLACE", "DELETED", "STATE", "CLAIM", "DIRECTORY"].map(String::from)];
    for it in deleted {
        let found = match &it.found {
            Ok(found) => found,
            Err(problem) => {
                rows.push([it.place.clone(), "-".into(), "left alone".into(), "-".into(), problem.clone()]);
                continue;
            }
        };
        let Found { record, fate, left } = found;
        let state = match (state(it.bin, record, *fate), fate, left) {
            (_, Fate::Keep(until), _) if record.on_delete() == OnDelete::Retain => {
                format!("retained, its record until {}", moment(*until))
            }
            (_, Fate::Keep(until), _) => format!("until {}", moment(*until)),
            ("purging", _, Some(usize::MAX)) => "purging, very many left".to_string(),
            ("purging", _, Some(left)) => format!("purging, {left} left"),
            (word, _, _) => word.to_string(),
        };
        let at = record.trashed().and_then(|trashed| trashed.at).map_or("-".to_string(), moment);
        let claim = record.claim.as_ref().map_or("-".to_string(), ToString::to_string);
        rows.push([it.place.clone(), at, state, claim, record.directory.to_string()]);
    }
    columns(&rows)
}

/// Seconds since 1970 as people write them, in UTC.
fn moment(seconds: u64) -> String {
    // As late as can be written: a record may say anything.
    const LAST: u64 = 253_402_300_799;
    format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))).to_string()
}
