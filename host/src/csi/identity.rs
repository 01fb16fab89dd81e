//! The service Identity: who the plugin is, and that it can serve.

use std::sync::Arc;

use tonic::Request;

use super::call::{Answer, Calls};
use super::proto::identity_server;
use super::proto::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
use super::proto::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};

/// The service.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) driver: String,
    pub(super) calls: Calls,
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(self: Arc<Self>, _: Request<GetPluginInfoRequest>) -> Answer<GetPluginInfoResponse> {
        let answer = GetPluginInfoResponse {
            name: self.driver.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").into(),
            ..GetPluginInfoResponse::default()
        };
        self.calls.run("/csi.v1.Identity/GetPluginInfo", "", async { Ok(answer) }).await
    }

    async fn get_plugin_capabilities(
        self: Arc<Self>,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Answer<GetPluginCapabilitiesResponse> {
        let has = |it| PluginCapability { r#type: Some(it) };
        let capabilities = vec![
            has(Type::Service(Service { r#type: service::Type::ControllerService.into() })),
            // A quota holds for whoever has the volume mounted, so growing it needs nobody to unmount.
            has(Type::VolumeExpansion(VolumeExpansion { r#type: volume_expansion::Type::Online.into() })),
        ];
        let answer = async { Ok(GetPluginCapabilitiesResponse { capabilities }) };
        self.calls.run("/csi.v1.Identity/GetPluginCapabilities", "", answer).await
    }

    /// The socket is there only while it can serve. Whether a file system answers is the business of the calls for it.
    async fn probe(self: Arc<Self>, _: Request<ProbeRequest>) -> Answer<ProbeResponse> {
        self.calls.run("/csi.v1.Identity/Probe", "", async { Ok(ProbeResponse { ready: Some(true) }) }).await
    }
}
