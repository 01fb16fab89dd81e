//! ListVolumes and ControllerGetVolume. Volumes are attached to no node, so their status says nothing.

use pith_core::volume::{After, Record};

use super::{Invalid, required, volume};
use crate::csi::proto::{
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ListVolumesRequest, ListVolumesResponse,
    controller_get_volume_response, list_volumes_response,
};
use crate::provisioner::{Page, VolumeError};

/// Where a list begins, and how many volumes it has at most.
pub(in crate::csi) fn list(request: &ListVolumesRequest) -> Result<(Option<After>, Option<usize>), VolumeError> {
    page(request.max_entries, &request.starting_token)
}

/// The same of any list.
pub(super) fn page(max_entries: i32, starting_token: &str) -> Result<(Option<After>, Option<usize>), VolumeError> {
    let most =
        usize::try_from(max_entries).map_err(|_| VolumeError::InvalidArgument("max_entries is negative".into()))?;
    let token = Some(starting_token).filter(|token| !token.is_empty());
    // CSI's code for it: the caller begins again.
    let unknown = || VolumeError::Aborted("starting_token is none that a list answered with: begin without one".into());
    let after = token.map(|token| After::parse(token).ok_or_else(unknown)).transpose()?;
    Ok((after, Some(most).filter(|most| *most > 0)))
}

pub(in crate::csi) fn listed(page: &Page) -> ListVolumesResponse {
    let entry = |record| list_volumes_response::Entry { volume: Some(volume(record)), status: None };
    ListVolumesResponse {
        entries: page.volumes.iter().map(entry).collect(),
        next_token: page.next.as_ref().map(After::to_string).unwrap_or_default(),
    }
}

/// The volume that ControllerGetVolume asks about.
pub(in crate::csi) fn get(request: ControllerGetVolumeRequest) -> Result<String, Invalid> {
    required("volume_id", &request.volume_id)?;
    Ok(request.volume_id)
}

pub(in crate::csi) fn got(record: &Record) -> ControllerGetVolumeResponse {
    let status = controller_get_volume_response::VolumeStatus::default();
    ControllerGetVolumeResponse { volume: Some(volume(record)), status: Some(status) }
}
