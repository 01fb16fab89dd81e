//! ControllerModifyVolume, and mutable parameters wherever a request has them.

use std::collections::BTreeMap;

use pith_core::object::Entries;

use super::{Invalid, SIDECAR_PREFIX, check_map, malformed, required};
use crate::csi::proto::ControllerModifyVolumeRequest;
use crate::provisioner::Secrets;

/// What ControllerModifyVolume asks.
pub(in crate::csi) struct Modify {
    pub(in crate::csi) id: String,
    pub(in crate::csi) parameters: Entries,
    pub(in crate::csi) secrets: Secrets,
}

pub(in crate::csi) fn modify(request: ControllerModifyVolumeRequest) -> Result<Modify, Invalid> {
    required("volume_id", &request.volume_id)?;
    if request.mutable_parameters.is_empty() {
        return Err(malformed("mutable_parameters is missing: say what is to be changed"));
    }
    let parameters = mutable_parameters(request.mutable_parameters)?;
    Ok(Modify { id: request.volume_id, parameters, secrets: request.secrets.into() })
}

/// Those that are Pith's business: external-resizer adds the claim's name with `--extra-modify-metadata`.
pub(super) fn mutable_parameters(mut parameters: BTreeMap<String, String>) -> Result<Entries, Invalid> {
    check_map("mutable_parameters", &parameters)?;
    parameters.retain(|key, _| !key.starts_with(SIDECAR_PREFIX));
    Ok(parameters.into_iter().collect())
}
