//! `pith csi snapshot`, and what volumes start with.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Driver, plain};
use crate::args::{CsiCreate, CsiSecrets, CsiSnapshot};
use crate::cli::volumes::columns;
use crate::csi::proto::controller_client::ControllerClient;
use crate::csi::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::csi::proto::{
    CreateSnapshotRequest, DeleteSnapshotRequest, GetSnapshotRequest, ListSnapshotsRequest, Snapshot,
    VolumeContentSource,
};

/// What opens the file system that the question is about.
pub(super) fn secrets(command: &CsiSnapshot) -> &CsiSecrets {
    match command {
        CsiSnapshot::Create { secrets, .. }
        | CsiSnapshot::Delete { secrets, .. }
        | CsiSnapshot::List { secrets, .. }
        | CsiSnapshot::Get { secrets, .. } => secrets,
    }
}

pub(super) fn content_source(args: &CsiCreate) -> Option<VolumeContentSource> {
    let snapshot = args.from_snapshot.clone().map(|snapshot_id| Type::Snapshot(SnapshotSource { snapshot_id }));
    let volume = args.from_volume.clone().map(|volume_id| Type::Volume(VolumeSource { volume_id }));
    snapshot.or(volume).map(|kind| VolumeContentSource { r#type: Some(kind) })
}

pub(super) fn source(source: &Type) -> Value {
    match source {
        Type::Snapshot(SnapshotSource { snapshot_id }) => json!({"snapshot": snapshot_id}),
        Type::Volume(VolumeSource { volume_id }) => json!({"volume": volume_id}),
    }
}

impl Driver {
    pub(super) async fn ask_about_snapshots(
        &self,
        command: &CsiSnapshot,
        secrets: BTreeMap<String, String>,
    ) -> Result<Value> {
        let mut controller = ControllerClient::new(self.channel.clone());
        match command {
            CsiSnapshot::Create { name, volume, parameters, .. } => {
                let request = CreateSnapshotRequest {
                    name: name.clone(),
                    source_volume_id: volume.clone(),
                    parameters: parameters.iter().cloned().collect(),
                    secrets,
                    ..CreateSnapshotRequest::default()
                };
                described(controller.create_snapshot(self.request(request)).await?.into_inner().snapshot)
            }
            CsiSnapshot::Delete { id, .. } => {
                let request = DeleteSnapshotRequest { snapshot_id: id.clone(), secrets };
                controller.delete_snapshot(self.request(request)).await?;
                Ok(json!({"id": id, "deleted": true}))
            }
            CsiSnapshot::Get { id, .. } => {
                let request = GetSnapshotRequest { snapshot_id: id.clone(), secrets };
                described(controller.get_snapshot(self.request(request)).await?.into_inner().snapshot)
            }
            CsiSnapshot::List { volume, max_entries, starting_token, .. } => {
                let request = ListSnapshotsRequest {
                    max_entries: max_entries.unwrap_or_default(),
                    starting_token: starting_token.clone().unwrap_or_default(),
                    source_volume_id: volume.clone().unwrap_or_default(),
                    secrets,
                    ..ListSnapshotsRequest::default()
                };
                self.list_snapshots(request).await
            }
        }
    }

    /// One page, or all of them where nobody says how long one is to be.
    async fn list_snapshots(&self, mut request: ListSnapshotsRequest) -> Result<Value> {
        let mut controller = ControllerClient::new(self.channel.clone());
        let mut snapshots = Vec::new();
        loop {
            let page = controller.list_snapshots(self.request(request.clone())).await?.into_inner();
            let described = page.entries.into_iter().map(|entry| described(entry.snapshot));
            snapshots.extend(described.collect::<Result<Vec<_>>>()?);
            if request.max_entries > 0 || page.next_token.is_empty() {
                let next = Some(page.next_token).filter(|token| !token.is_empty());
                return Ok(json!({"snapshots": snapshots, "nextToken": next}));
            }
            request.starting_token = page.next_token;
        }
    }
}

fn described(snapshot: Option<Snapshot>) -> Result<Value> {
    let snapshot = snapshot.context("the driver answered without a snapshot")?;
    let created = snapshot.creation_time.map(|time| {
        let since = Duration::from_secs(u64::try_from(time.seconds).unwrap_or_default());
        humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
    });
    Ok(json!({
        "id": snapshot.snapshot_id,
        "volume": snapshot.source_volume_id,
        "bytes": snapshot.size_bytes,
        "created": created,
        "ready": snapshot.ready_to_use,
    }))
}

/// One line for each snapshot of a list, and where it goes on.
pub(super) fn table(list: &Value) -> String {
    let mut rows = vec![["ID", "VOLUME", "BYTES", "CREATED"].map(String::from)];
    for snapshot in list["snapshots"].as_array().into_iter().flatten() {
        rows.push(["id", "volume", "bytes", "created"].map(|key| plain(&snapshot[key])));
    }
    if let Some(token) = list["nextToken"].as_str() {
        rows.push([format!("… --starting-token {token}"), String::new(), String::new(), String::new()]);
    }
    columns(&rows)
}
