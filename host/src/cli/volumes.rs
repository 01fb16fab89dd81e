//! `pith volumes`: the records of a file system, read as the controller reads them.

mod check;
mod snapshots;
mod trash;

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pith_core::object::Objects;
use pith_core::volume::{Record, RecordProblem, State, quantity};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{csi, print};
use crate::args::{AnswerOutput, Overrides, Volumes, VolumesSource};
use crate::cluster::Mirror;
use crate::config::Config;
use crate::config::file::{Log, LogFormat};
use crate::juicefs::steps::Steps;
use crate::juicefs::store::StoreError;
use crate::metrics::Metrics;
use crate::policy::{InForce, Policies};
use crate::provisioner::{Provisioner, Secrets, VolumeError};
use crate::run::Provisioning;
use crate::{run, telemetry};

/// Reads and prints. The exit code is 1 if a record cannot be relied upon, the volume is not there, or something is wrong.
pub fn run(args: &Volumes) -> Result<ExitCode> {
    telemetry::start(&Log { format: LogFormat::Text, filter: "warn".into() })?;
    match args {
        Volumes::Ls(source) => list(source, None),
        Volumes::Show { id, source } => list(source, Some(id)),
        Volumes::Snapshots(source) => snapshots::ls(source),
        Volumes::Check(args) => runtime()?.block_on(check::run(args, false)),
        Volumes::Repair { check, apply } => runtime()?.block_on(check::run(check, *apply)),
        Volumes::Trash(source) => trash::ls(source),
        Volumes::RestoreFromTrash(args) => trash::restore(args),
    }
}

fn list(source: &VolumesSource, id: Option<&String>) -> Result<ExitCode> {
    let found = ask(source, Steps::default(), async |provisioner, secrets, _| {
        let mut found = provisioner.list(secrets).await?;
        let mut progress = None;
        if let Some(id) = id {
            found.retain(|(known, _)| known == id);
            if let Some((_, Ok(record))) = found.first() {
                progress = provisioner.noted_progress(secrets, record).await?;
            }
        }
        Ok::<_, VolumeError>((found, progress))
    });
    let (found, progress) = found?.context("reading the volumes")?;
    if let (Some(id), true) = (id, found.is_empty()) {
        bail!("there is no volume `{id}` in this file system");
    }
    let owner = |error: &StoreError| match error {
        StoreError::Record { problem: RecordProblem::OtherCluster { owner, .. }, .. } => Some(owner.clone()),
        _ => None,
    };
    let sound = found.iter().all(|(_, record)| record.as_ref().err().is_none_or(|error| owner(error).is_some()));
    let items: Vec<Value> = found
        .iter()
        .map(|(id, record)| match record {
            Ok(record) => item(record, progress),
            Err(error) if owner(error).is_some() => json!({"id": id, "cluster": owner(error)}),
            Err(error) => json!({"id": id, "problem": error.to_string()}),
        })
        .collect();
    let text = match (source.output, id) {
        (AnswerOutput::Text, None) => table(&items),
        (AnswerOutput::Text, Some(_)) | (AnswerOutput::Yaml, _) => yaml_serde::to_string(&items)?,
        (AnswerOutput::Json, _) => format!("{}\n", serde_json::to_string_pretty(&items)?),
    };
    print(&text)?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.context("starting the runtime")
}

/// A provisioner of the command's own, to which these objects are all that there are.
fn provisioner(config: &Config, objects: Mirror, steps: Steps) -> Result<Provisioner> {
    let csi = config.csi.as_ref();
    let csi = csi.context("the configuration has no `csi`: it says which cluster and which key records have")?;
    let workers = Arc::new(run::workers(&config.juicefs, &Metrics::new())?);
    let (driver, policies) = (&config.sidecars.driver, Arc::new(InForce::new(Policies::none())));
    run::provisioner(driver, Provisioning { csi, steps, decisions: None }, workers, policies, Arc::new(objects))
}

/// Asks a provisioner of this command's own, with the Secret and the configuration that it was given.
fn ask<T>(
    source: &VolumesSource,
    steps: Steps,
    question: impl AsyncFnOnce(&Provisioner, &Secrets, &Config) -> T,
) -> Result<T> {
    runtime()?.block_on(async {
        let config = Config::load(&source.config, &Overrides::default())?;
        let provisioner = provisioner(&config, Mirror::fixed(Objects::default()), steps)?;
        let secrets = Secrets::from(csi::read(&source.secrets)?);
        let answer = question(&provisioner, &secrets, &config).await;
        provisioner.stop().await;
        Ok(answer)
    })
}

/// How far a record has come.
fn state(record: &Record) -> &'static str {
    match &record.state {
        State::Creating => "creating",
        State::Ready => "ready",
        State::Deleting(_) => "deleting",
        State::Purging(_) => "purging",
        State::Restoring(_) => "restoring",
    }
}

fn item(record: &Record, progress: Option<(u64, u64)>) -> Value {
    let mut item = json!({
        "id": record.id,
        "name": record.asked.name,
        "directory": record.directory.to_string(),
        "shared": record.shared,
        "namedBy": record.named_by,
        "capacityBytes": record.capacity_bytes,
        "claim": record.claim.as_ref().map(ToString::to_string),
        "state": state(record),
        // What a policy said of it.
        "quota": record.quota,
        "generation": record.generation,
        "cluster": record.cluster,
        "context": record.volume_context(),
        "mutable": record.mutable(),
    });
    if let Some(source) = &record.asked.source {
        item["source"] = json!(source);
    }
    if let Some((done, total)) = progress {
        item["cloned"] = json!({"done": done, "of": total});
    }
    item
}

/// One line for each volume.
fn table(items: &[Value]) -> String {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or("-").to_string();
    let mut rows = vec![["ID", "SIZE", "STATE", "CLAIM", "DIRECTORY"].map(String::from)];
    for item in items {
        if let Some(problem) = item["problem"].as_str() {
            rows.push([text(item, "id"), "-".into(), "unreadable".into(), "-".into(), problem.into()]);
            continue;
        }
        if item["state"].is_null() {
            rows.push([text(item, "id"), "-".into(), format!("of {}", text(item, "cluster")), "-".into(), "-".into()]);
            continue;
        }
        let size = match item["capacityBytes"].as_u64() {
            Some(0) | None => "-".to_string(),
            Some(bytes) => quantity(bytes),
        };
        rows.push([text(item, "id"), size, text(item, "state"), text(item, "claim"), text(item, "directory")]);
    }
    columns(&rows)
}

/// Rows in columns as wide as their widest text.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}
