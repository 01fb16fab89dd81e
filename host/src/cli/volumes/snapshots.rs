//! `pith volumes snapshots`: the records of snapshots.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use humantime::format_rfc3339_seconds;
use pith_core::volume::{Record, Source, quantity};
use serde_json::{Value, json};

use super::{ask, columns, state};
use crate::args::{AnswerOutput, VolumesSource};
use crate::cli::print;
use crate::juicefs::steps::Steps;

/// Lists every snapshot. The exit code is 1 if a record cannot be relied upon.
pub(super) fn ls(source: &VolumesSource) -> Result<ExitCode> {
    let found =
        ask(source, Steps::default(), async |provisioner, secrets, _| provisioner.list_snapshots(secrets).await)?;
    let found = found.context("reading the snapshots")?;
    let items: Vec<Value> = found
        .iter()
        .map(|(id, record)| match record {
            Ok(record) => item(record),
            Err(error) => json!({"id": id, "problem": error.to_string()}),
        })
        .collect();
    print(&match source.output {
        AnswerOutput::Text => table(&items),
        AnswerOutput::Yaml => yaml_serde::to_string(&items)?,
        AnswerOutput::Json => format!("{}\n", serde_json::to_string_pretty(&items)?),
    })?;
    Ok(if found.iter().all(|(_, record)| record.is_ok()) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn item(record: &Record) -> Value {
    let begun = record.cut_at.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    json!({
        "id": record.id,
        "name": record.asked.name,
        "volume": record.asked.source.as_ref().map(Source::id),
        "directory": record.directory.to_string(),
        "capacityBytes": record.capacity_bytes,
        "begun": begun.map(|moment| format_rfc3339_seconds(moment).to_string()),
        "state": state(record),
        "generation": record.generation,
        "cluster": record.cluster,
    })
}

/// One line for each snapshot.
fn table(items: &[Value]) -> String {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or("-").to_string();
    let mut rows = vec![["ID", "VOLUME", "SIZE", "STATE", "BEGUN"].map(String::from)];
    for item in items {
        if let Some(problem) = item["problem"].as_str() {
            rows.push([text(item, "id"), "-".into(), "-".into(), "unreadable".into(), problem.into()]);
            continue;
        }
        let size = match item["capacityBytes"].as_u64() {
            Some(0) | None => "-".to_string(),
            Some(bytes) => quantity(bytes),
        };
        rows.push([text(item, "id"), text(item, "volume"), size, text(item, "state"), text(item, "begun")]);
    }
    columns(&rows)
}
