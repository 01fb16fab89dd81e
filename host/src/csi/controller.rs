//! The service Controller: each RPC is converted, guarded, asked of [`Volumes`], and converted back.

use std::pin::Pin;
use std::sync::Arc;

use pith_core::volume;
use tonic::Request;

use super::call::{Answer, Calls};
use super::in_flight::{Busy, Guard, InFlight, named, nothing_made, snapshot_key};
use super::proto::controller_server;
use super::proto::controller_service_capability::{Rpc, Type, rpc};
use super::proto::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerGetCapabilitiesRequest,
    ControllerGetCapabilitiesResponse, ControllerGetVolumeRequest, ControllerGetVolumeResponse,
    ControllerModifyVolumeRequest, ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerServiceCapability, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse, CreateVolumeRequest,
    CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    GetCapacityRequest, GetCapacityResponse, GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse,
};
use super::{call, convert};
use crate::provisioner::{Secrets, VolumeError, Volumes};

/// The service.
#[derive(Debug)]
pub(super) struct Controller<V> {
    pub(super) volumes: Arc<V>,
    pub(super) in_flight: InFlight,
    pub(super) calls: Calls,
}

/// What is declared. The access modes for one workload of a node are kept by Kubernetes; the file system takes any number of
/// writers, so it can be used in all of them.
const DECLARED: [rpc::Type; 6] = [
    rpc::Type::CreateDeleteVolume,
    rpc::Type::ExpandVolume,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::ModifyVolume,
    rpc::Type::CreateDeleteSnapshot,
    rpc::Type::CloneVolume,
];

/// What is declared where it is known which file systems there are.
const OF_LISTS: [rpc::Type; 4] =
    [rpc::Type::ListVolumes, rpc::Type::GetVolume, rpc::Type::ListSnapshots, rpc::Type::GetSnapshot];

/// The call whose answer says whether anything was left.
const CREATE: &str = "CreateVolume";

/// What no volume can have as its id is not asked for: it may be anything, a path too.
fn check_id(id: &str) -> Result<(), VolumeError> {
    if volume::is_id(id) { Ok(()) } else { Err(VolumeError::NotFound(id.into())) }
}

impl<V: Volumes> Controller<V> {
    /// Keeps a second call away from a volume.
    fn begin(&self, method: &'static str, id: &str, secrets: &Secrets) -> Result<Guard, VolumeError> {
        self.in_flight.begin(method, id, secrets).map_err(|busy| match busy {
            Busy::Volume { .. } => VolumeError::Aborted(match self.volumes.progress(&named(id)) {
                Some((done, total)) => format!("{busy} ({done} of {total} files and directories are cloned)"),
                None => busy.to_string(),
            }),
            Busy::FileSystem(_) if method == CREATE && !self.in_flight.may_exist(id) => nothing_made(&busy.to_string()),
            Busy::FileSystem(_) => VolumeError::Unavailable(busy.to_string()),
        })
    }
}

#[tonic::async_trait]
impl<V: Volumes> controller_server::Controller for Controller<V> {
    async fn create_volume(self: Arc<Self>, request: Request<CreateVolumeRequest>) -> Answer<CreateVolumeResponse> {
        let request = request.into_inner();
        let id = volume::id(&request.name);
        let controller = self.clone();
        let work = async move {
            let request = convert::create(request)?;
            let guard = controller.begin(CREATE, &volume::id(&request.asked.name), &request.secrets)?;
            let made = controller.volumes.create(request).await;
            Ok(convert::created(&guard.created(made)?))
        };
        self.calls.run("/csi.v1.Controller/CreateVolume", &id, work).await
    }

    async fn delete_volume(self: Arc<Self>, request: Request<DeleteVolumeRequest>) -> Answer<DeleteVolumeResponse> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        let controller = self.clone();
        let work = async move {
            let (id, secrets) = convert::delete(request)?;
            // What cannot be an id is not there, and what is not there is deleted.
            if volume::is_id(&id) {
                let guard = controller.begin("DeleteVolume", &id, &secrets)?;
                guard.deleted(controller.volumes.delete(&id, secrets).await)?;
            }
            Ok(DeleteVolumeResponse {})
        };
        self.calls.run("/csi.v1.Controller/DeleteVolume", &id, work).await
    }

    async fn controller_expand_volume(
        self: Arc<Self>,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        let controller = self.clone();
        let work = async move {
            let convert::Expand { id, required, limit, secrets } = convert::expand(request)?;
            check_id(&id)?;
            let _guard = controller.begin("ControllerExpandVolume", &id, &secrets)?;
            Ok(convert::expanded(controller.volumes.expand(&id, required, limit, secrets).await?))
        };
        self.calls.run("/csi.v1.Controller/ControllerExpandVolume", &id, work).await
    }

    async fn validate_volume_capabilities(
        self: Arc<Self>,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        let controller = self.clone();
        let work = async move {
            let request = convert::validate(request)?;
            check_id(&request.id)?;
            let record = controller.volumes.find(&request.id, request.secrets.clone()).await?;
            let record = record.ok_or_else(|| VolumeError::NotFound(request.id.clone()))?;
            Ok(convert::validated(request, &record))
        };
        self.calls.run("/csi.v1.Controller/ValidateVolumeCapabilities", &id, work).await
    }

    async fn controller_modify_volume(
        self: Arc<Self>,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<ControllerModifyVolumeResponse> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        let controller = self.clone();
        let work = async move {
            let convert::Modify { id, parameters, secrets } = convert::modify(request)?;
            check_id(&id)?;
            let _guard = controller.begin("ControllerModifyVolume", &id, &secrets)?;
            controller.volumes.modify(&id, parameters, secrets).await?;
            Ok(ControllerModifyVolumeResponse {})
        };
        self.calls.run("/csi.v1.Controller/ControllerModifyVolume", &id, work).await
    }

    async fn create_snapshot(
        self: Arc<Self>,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        let request = request.into_inner();
        let key = snapshot_key(&volume::id(&request.name));
        let controller = self.clone();
        let work = async move {
            let (asked, secrets) = convert::cut(request)?;
            let _guard = controller.begin("CreateSnapshot", &snapshot_key(&volume::id(&asked.name)), &secrets)?;
            Ok(convert::was_cut(&controller.volumes.snapshot(asked, secrets).await?))
        };
        self.calls.run("/csi.v1.Controller/CreateSnapshot", &key, work).await
    }

    async fn delete_snapshot(
        self: Arc<Self>,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        let request = request.into_inner();
        let key = snapshot_key(&request.snapshot_id);
        let controller = self.clone();
        let work = async move {
            let (id, secrets) = convert::delete_snapshot(request)?;
            // As with volumes: what cannot be an id is not there.
            if volume::is_id(&id) {
                let _guard = controller.begin("DeleteSnapshot", &snapshot_key(&id), &secrets)?;
                controller.volumes.delete_snapshot(&id, secrets).await?;
            }
            Ok(DeleteSnapshotResponse {})
        };
        self.calls.run("/csi.v1.Controller/DeleteSnapshot", &key, work).await
    }

    async fn list_snapshots(self: Arc<Self>, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        const METHOD: &str = "/csi.v1.Controller/ListSnapshots";
        if !self.volumes.can_list() {
            return self.calls.not_declared(METHOD).await;
        }
        let controller = self.clone();
        let work = async move {
            let query = convert::list_snapshots(request.into_inner())?;
            Ok(convert::listed_snapshots(&controller.volumes.snapshots(query).await?))
        };
        self.calls.run(METHOD, "", work).await
    }

    async fn get_snapshot(self: Arc<Self>, request: Request<GetSnapshotRequest>) -> Answer<GetSnapshotResponse> {
        const METHOD: &str = "/csi.v1.Controller/GetSnapshot";
        if !self.volumes.can_list() {
            return self.calls.not_declared(METHOD).await;
        }
        let request = request.into_inner();
        let (id, key) = (request.snapshot_id.clone(), snapshot_key(&request.snapshot_id));
        let controller = self.clone();
        let work = async move {
            let page = controller.volumes.snapshots(convert::get_snapshot(request)?).await?;
            let record = page.volumes.first().ok_or(VolumeError::NoSnapshot(id))?;
            Ok(convert::got_snapshot(record))
        };
        self.calls.run(METHOD, &key, work).await
    }

    async fn list_volumes(self: Arc<Self>, request: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        const METHOD: &str = "/csi.v1.Controller/ListVolumes";
        if !self.volumes.can_list() {
            return self.calls.not_declared(METHOD).await;
        }
        let controller = self.clone();
        let work = async move {
            let (after, most) = convert::list(&request.into_inner())?;
            Ok(convert::listed(&controller.volumes.page(after, most).await?))
        };
        self.calls.run(METHOD, "", work).await
    }

    async fn controller_get_volume(
        self: Arc<Self>,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        const METHOD: &str = "/csi.v1.Controller/ControllerGetVolume";
        if !self.volumes.can_list() {
            return self.calls.not_declared(METHOD).await;
        }
        let request = request.into_inner();
        let id = request.volume_id.clone();
        let controller = self.clone();
        let work = async move {
            let id = convert::get(request)?;
            check_id(&id)?;
            Ok(convert::got(&controller.volumes.get(&id).await?))
        };
        self.calls.run(METHOD, &id, work).await
    }

    async fn controller_get_capabilities(
        self: Arc<Self>,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        let declared =
            |it: rpc::Type| ControllerServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: it.into() })) };
        let of_lists = OF_LISTS.into_iter().filter(|_| self.volumes.can_list());
        let capabilities = DECLARED.into_iter().chain(of_lists).map(declared).collect();
        let answer = ControllerGetCapabilitiesResponse { capabilities };
        self.calls.run("/csi.v1.Controller/ControllerGetCapabilities", "", async { Ok(answer) }).await
    }

    call::not_declared! {
        "csi.v1.Controller":
        controller_publish_volume, "ControllerPublishVolume": ControllerPublishVolumeRequest => ControllerPublishVolumeResponse;
        controller_unpublish_volume, "ControllerUnpublishVolume": ControllerUnpublishVolumeRequest => ControllerUnpublishVolumeResponse;
        get_capacity, "GetCapacity": GetCapacityRequest => GetCapacityResponse;
    }
}
