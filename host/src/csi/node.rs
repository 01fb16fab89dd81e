//! The service Node: who this node is, and that nothing is mounted here.
//!
//! Volumes are mounted by the sidecar that the webhook injects, in the pod itself. The service is there because the tools that
//! look at a CSI driver ask for it; it is not registered with a kubelet.

use std::pin::Pin;
use std::sync::Arc;

use pith_core::reason::ENABLE_LABEL;
use tonic::{Request, Status};

use super::call::{self, Answer, Calls};
use super::convert;
use super::proto::node_server;
use super::proto::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeStageVolumeRequest, NodeStageVolumeResponse,
    NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};

/// The service.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) node_id: String,
    pub(super) calls: Calls,
}

#[tonic::async_trait]
impl node_server::Node for Node {
    async fn node_publish_volume(
        self: Arc<Self>,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        let work = async move {
            convert::node_publish(&request)?;
            Err(Status::unimplemented(format!(
                "Pith mounts no volume on a node: its webhook gives pods a sidecar that does, in namespaces with the label \
                 {ENABLE_LABEL}=true"
            )))
        };
        self.calls.run("/csi.v1.Node/NodePublishVolume", &id, work).await
    }

    /// Nothing was published here, so there is nothing to undo. OK would tell a kubelet that a mount is gone, which another
    /// driver may have made.
    async fn node_unpublish_volume(
        self: Arc<Self>,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        let work = async move {
            convert::node_unpublish(&request)?;
            Err(Status::not_found("Pith has published no volume on this node, so there is none at the target path"))
        };
        self.calls.run("/csi.v1.Node/NodeUnpublishVolume", &id, work).await
    }

    async fn node_get_capabilities(
        self: Arc<Self>,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let answer = async { Ok(NodeGetCapabilitiesResponse::default()) };
        self.calls.run("/csi.v1.Node/NodeGetCapabilities", "", answer).await
    }

    async fn node_get_info(self: Arc<Self>, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        let answer = NodeGetInfoResponse { node_id: self.node_id.clone(), ..NodeGetInfoResponse::default() };
        self.calls.run("/csi.v1.Node/NodeGetInfo", "", async { Ok(answer) }).await
    }

    call::not_declared! {
        "csi.v1.Node":
        node_stage_volume, "NodeStageVolume": NodeStageVolumeRequest => NodeStageVolumeResponse;
        node_unstage_volume, "NodeUnstageVolume": NodeUnstageVolumeRequest => NodeUnstageVolumeResponse;
        node_get_volume_stats, "NodeGetVolumeStats": NodeGetVolumeStatsRequest => NodeGetVolumeStatsResponse;
        node_expand_volume, "NodeExpandVolume": NodeExpandVolumeRequest => NodeExpandVolumeResponse;
    }
}
