//! What volumes start with, and the calls about snapshots.

use pith_core::object::Entries;
use pith_core::volume::{Asked, Record, Source};
use prost_types::Timestamp;

use super::{Invalid, Secrets, check_map, check_name, lists, malformed, required, signed, split_parameters};
use crate::csi::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::csi::proto::{
    CreateSnapshotRequest, CreateSnapshotResponse, DeleteSnapshotRequest, GetSnapshotRequest, GetSnapshotResponse,
    ListSnapshotsRequest, ListSnapshotsResponse, Snapshot, VolumeContentSource, list_snapshots_response,
};
use crate::provisioner::{Page, SnapshotQuery, VolumeError};

/// What a volume is to start with.
pub(super) fn source(asked: Option<VolumeContentSource>) -> Result<Option<Source>, Invalid> {
    let Some(asked) = asked else { return Ok(None) };
    match asked.r#type {
        Some(Type::Snapshot(SnapshotSource { snapshot_id })) => {
            required("volume_content_source.snapshot.snapshot_id", &snapshot_id)?;
            Ok(Some(Source::Snapshot(snapshot_id)))
        }
        Some(Type::Volume(VolumeSource { volume_id })) => {
            required("volume_content_source.volume.volume_id", &volume_id)?;
            Ok(Some(Source::Volume(volume_id)))
        }
        None => Err(malformed("volume_content_source names neither a snapshot nor a volume")),
    }
}

/// The same for an answer.
pub(super) fn content_source(source: &Source) -> VolumeContentSource {
    let kind = match source.clone() {
        Source::Snapshot(snapshot_id) => Type::Snapshot(SnapshotSource { snapshot_id }),
        Source::Volume(volume_id) => Type::Volume(VolumeSource { volume_id }),
    };
    VolumeContentSource { r#type: Some(kind) }
}

/// What CreateSnapshot asks.
pub(in crate::csi) fn cut(request: CreateSnapshotRequest) -> Result<(Asked, Secrets), Invalid> {
    check_name(&request.name)?;
    required("source_volume_id", &request.source_volume_id)?;
    check_map("parameters", &request.parameters)?;
    let (parameters, _) = split_parameters(request.parameters);
    let asked = Asked {
        name: request.name,
        required_bytes: None,
        limit_bytes: None,
        capabilities: Vec::new(),
        parameters,
        mutable_parameters: Entries::new(),
        source: Some(Source::Volume(request.source_volume_id)),
    };
    Ok((asked, request.secrets.into()))
}

pub(in crate::csi) fn was_cut(record: &Record) -> CreateSnapshotResponse {
    CreateSnapshotResponse { snapshot: Some(snapshot(record)) }
}

/// The same in every answer. A snapshot that is not complete is never answered with.
fn snapshot(record: &Record) -> Snapshot {
    let seconds = record.cut_at.map_or(0, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    Snapshot {
        size_bytes: signed(record.capacity_bytes),
        snapshot_id: record.id.clone(),
        source_volume_id: record.asked.source.as_ref().map(|source| source.id().to_string()).unwrap_or_default(),
        creation_time: Some(Timestamp { seconds, nanos: 0 }),
        ready_to_use: true,
        ..Snapshot::default()
    }
}

/// What DeleteSnapshot asks. The id is any text, as with DeleteVolume.
pub(in crate::csi) fn delete_snapshot(request: DeleteSnapshotRequest) -> Result<(String, Secrets), Invalid> {
    required("snapshot_id", &request.snapshot_id)?;
    Ok((request.snapshot_id, request.secrets.into()))
}

pub(in crate::csi) fn list_snapshots(request: ListSnapshotsRequest) -> Result<SnapshotQuery, VolumeError> {
    let (after, most) = lists::page(request.max_entries, &request.starting_token)?;
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(SnapshotQuery {
        id: said(request.snapshot_id),
        volume: said(request.source_volume_id),
        after,
        most,
        secrets: request.secrets.into(),
    })
}

pub(in crate::csi) fn listed_snapshots(page: &Page) -> ListSnapshotsResponse {
    let entry = |record| list_snapshots_response::Entry { snapshot: Some(snapshot(record)) };
    ListSnapshotsResponse {
        entries: page.volumes.iter().map(entry).collect(),
        next_token: page.next.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// What GetSnapshot asks: a list of one.
pub(in crate::csi) fn get_snapshot(request: GetSnapshotRequest) -> Result<SnapshotQuery, Invalid> {
    required("snapshot_id", &request.snapshot_id)?;
    Ok(SnapshotQuery { id: Some(request.snapshot_id), secrets: request.secrets.into(), ..SnapshotQuery::default() })
}

pub(in crate::csi) fn got_snapshot(record: &Record) -> GetSnapshotResponse {
    GetSnapshotResponse { snapshot: Some(snapshot(record)) }
}
