//! From protobuf to what Pith means, and back. Every INVALID_ARGUMENT that a request can earn by itself is given here.

mod lists;
mod modify;
mod snapshots;

use std::collections::BTreeMap;

use pith_core::object::Entries;
use pith_core::volume::{Asked, Capability, ClaimName, Record, VolumeAccessMode, VolumeRefusal};
use tonic::{Code, Status};

use super::proto::volume_capability::AccessType;
use super::proto::volume_capability::access_mode::Mode;
use super::proto::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, CreateVolumeRequest,
    CreateVolumeResponse, DeleteVolumeRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, Volume, VolumeCapability,
    validate_volume_capabilities_response,
};
use crate::provisioner::{CreateRequest, Secrets, VolumeError};

pub(super) use lists::{get, got, list, listed};
pub(super) use modify::{Modify, modify};
pub(super) use snapshots::{
    cut, delete_snapshot, get_snapshot, got_snapshot, list_snapshots, listed_snapshots, was_cut,
};

/// CSI's bound for any text that has none of its own, in bytes.
const LONGEST_TEXT: usize = 128;
/// CSI's bound for a map from text to text, and for all mount flags of a capability, in bytes.
const LARGEST_MAP: usize = 4 << 10;
/// The bound for the sentence of an error, in bytes. An event holds 1024, and the sidecar puts words of its own before it.
const LONGEST_MESSAGE: usize = 800;
/// Parameters with this prefix are the CSI sidecars' own.
const SIDECAR_PREFIX: &str = "csi.storage.k8s.io/";

/// Why a request is refused before anything is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    /// It breaks a rule of CSI.
    #[error("{0}")]
    Malformed(String),
    /// It asks for what no volume here can do.
    #[error("{0}")]
    Unsupported(String),
}

fn malformed(sentence: impl Into<String>) -> Invalid {
    Invalid::Malformed(sentence.into())
}

/// What CreateVolume asks.
pub(super) fn create(request: CreateVolumeRequest) -> Result<CreateRequest, Invalid> {
    check_name(&request.name)?;
    let capabilities = capabilities(request.volume_capabilities)?;
    let (required_bytes, limit_bytes) = range(request.capacity_range.as_ref())?;
    check_map("parameters", &request.parameters)?;
    let source = snapshots::source(request.volume_content_source)?;
    // accessibility_requirements are met by every volume: it can be reached from everywhere.
    let (parameters, claim) = split_parameters(request.parameters);
    let mutable_parameters = modify::mutable_parameters(request.mutable_parameters)?;
    let name = request.name;
    let asked = Asked { name, required_bytes, limit_bytes, capabilities, parameters, mutable_parameters, source };
    Ok(CreateRequest { asked, claim, secrets: request.secrets.into() })
}

/// The volume that was made or found.
pub(super) fn created(record: &Record) -> CreateVolumeResponse {
    CreateVolumeResponse { volume: Some(volume(record)) }
}

/// The same in every answer for as long as the volume lives, but for its size.
fn volume(record: &Record) -> Volume {
    Volume {
        capacity_bytes: signed(record.capacity_bytes),
        volume_id: record.id.clone(),
        volume_context: record.volume_context().into_iter().collect(),
        content_source: record.asked.source.as_ref().map(snapshots::content_source),
        ..Volume::default()
    }
}

/// What DeleteVolume asks. The id is any text: one that no volume can have is no mistake of the caller.
pub(super) fn delete(request: DeleteVolumeRequest) -> Result<(String, Secrets), Invalid> {
    required("volume_id", &request.volume_id)?;
    Ok((request.volume_id, request.secrets.into()))
}

/// What ControllerExpandVolume asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expand {
    pub(super) id: String,
    pub(super) required: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) secrets: Secrets,
}

pub(super) fn expand(request: ControllerExpandVolumeRequest) -> Result<Expand, Invalid> {
    required("volume_id", &request.volume_id)?;
    let (required, limit) = range(request.capacity_range.as_ref())?;
    if required.or(limit).is_none() {
        return Err(malformed("capacity_range is missing: say how large the volume is to be"));
    }
    request.volume_capability.map(capability).transpose()?;
    Ok(Expand { id: request.volume_id, required, limit, secrets: request.secrets.into() })
}

/// A quota holds for every mount at once: no node has anything to do.
pub(super) fn expanded(capacity: u64) -> ControllerExpandVolumeResponse {
    ControllerExpandVolumeResponse { capacity_bytes: signed(capacity), node_expansion_required: false }
}

/// What ValidateVolumeCapabilities asks, with the request's own words to repeat.
pub(super) struct Validate {
    pub(super) id: String,
    pub(super) secrets: Secrets,
    /// Why no volume here can be used so.
    unsupported: Option<String>,
    words: validate_volume_capabilities_response::Confirmed,
}

pub(super) fn validate(request: ValidateVolumeCapabilitiesRequest) -> Result<Validate, Invalid> {
    required("volume_id", &request.volume_id)?;
    let unsupported = match capabilities(request.volume_capabilities.clone()) {
        Ok(_) => None,
        Err(Invalid::Unsupported(sentence)) => Some(sentence),
        Err(malformed) => return Err(malformed),
    };
    let words = validate_volume_capabilities_response::Confirmed {
        volume_context: request.volume_context,
        volume_capabilities: request.volume_capabilities,
        parameters: request.parameters,
        mutable_parameters: request.mutable_parameters,
    };
    Ok(Validate { id: request.volume_id, secrets: request.secrets.into(), unsupported, words })
}

/// Whether the volume is what the request takes it for. A file system takes any number of readers and writers, so the
/// capabilities of one volume are those of all.
pub(super) fn validated(request: Validate, record: &Record) -> ValidateVolumeCapabilitiesResponse {
    let words = request.words;
    let (parameters, _) = split_parameters(words.parameters.clone());
    let problem = if request.unsupported.is_some() {
        request.unsupported
    } else if !words.volume_context.is_empty() && !words.volume_context.iter().eq(&record.volume_context()) {
        Some("volume_context is not the one that CreateVolume answered with".to_string())
    } else if !words.parameters.is_empty() && parameters != record.asked.parameters {
        Some("parameters are not the ones that the volume was made with".to_string())
    } else {
        differs(&words.mutable_parameters, record)
            .map(|key| format!("mutable_parameters are not the ones that the volume has: `{key}` is another"))
    };
    match problem {
        None => ValidateVolumeCapabilitiesResponse { confirmed: Some(words), message: String::new() },
        Some(message) => ValidateVolumeCapabilitiesResponse { confirmed: None, message },
    }
}

/// Which of these parameters the volume has not, or not so.
fn differs<'a>(mutable_parameters: &'a BTreeMap<String, String>, record: &Record) -> Option<&'a String> {
    let has = record.mutable();
    let is_other = |(key, value): &(&String, &String)| has.get(key.as_str()) != Some(*value);
    mutable_parameters.iter().filter(|(key, _)| !key.starts_with(SIDECAR_PREFIX)).find(is_other).map(|(key, _)| key)
}

/// Checks what NodePublishVolume has to say.
pub(super) fn node_publish(request: &NodePublishVolumeRequest) -> Result<(), Invalid> {
    required("volume_id", &request.volume_id)?;
    required("target_path", &request.target_path)?;
    let capability_of = request.volume_capability.clone().ok_or_else(|| malformed("volume_capability is missing"))?;
    capability(capability_of).map(drop)
}

/// Checks what NodeUnpublishVolume has to say.
pub(super) fn node_unpublish(request: &NodeUnpublishVolumeRequest) -> Result<(), Invalid> {
    required("volume_id", &request.volume_id)?;
    required("target_path", &request.target_path)
}

fn required(field: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() { Err(malformed(format!("{field} is missing"))) } else { Ok(()) }
}

/// Any text that CSI allows; what becomes of it as a file name is for [`pith_core::volume::id`] to see to.
fn check_name(name: &str) -> Result<(), Invalid> {
    required("name", name)?;
    if name.len() > LONGEST_TEXT {
        return Err(malformed(format!("name has {} bytes, and CSI allows {LONGEST_TEXT}", name.len())));
    }
    // Tab and the ends of lines are not among those that CSI forbids.
    let forbidden = |it: &char| it.is_control() && !matches!(it, '\t' | '\n' | '\r');
    match name.chars().find(forbidden) {
        Some(it) => {
            Err(malformed(format!("name has the control character U+{:04X}, which CSI forbids", u32::from(it))))
        }
        None => Ok(()),
    }
}

fn check_map(field: &str, map: &BTreeMap<String, String>) -> Result<(), Invalid> {
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > LARGEST_MAP {
        return Err(malformed(format!("{field} have {bytes} bytes, and CSI allows {LARGEST_MAP}")));
    }
    Ok(())
}

/// The bounds of a size; CSI's zero is none.
fn range(range: Option<&CapacityRange>) -> Result<(Option<u64>, Option<u64>), Invalid> {
    let bound = |field: &str, bytes: i64| match u64::try_from(bytes) {
        Ok(bytes) => Ok(Some(bytes).filter(|bytes| *bytes > 0)),
        Err(_) => Err(malformed(format!("capacity_range.{field} is negative"))),
    };
    let (required, limit) = range.map_or((0, 0), |range| (range.required_bytes, range.limit_bytes));
    let (required, limit) = (bound("required_bytes", required)?, bound("limit_bytes", limit)?);
    match (required, limit) {
        (Some(least), Some(most)) if least > most => Err(malformed(format!(
            "capacity_range asks for at least {least} and at most {most} bytes, which no size fits"
        ))),
        bounds => Ok(bounds),
    }
}

fn capabilities(typed: Vec<VolumeCapability>) -> Result<Vec<Capability>, Invalid> {
    if typed.is_empty() {
        return Err(malformed("volume_capabilities is missing: say how the volume is to be used"));
    }
    typed.into_iter().map(capability).collect()
}

/// A way of using a volume. `fs_type` is not looked at: there is one kind, and StorageClasses name it as they like.
fn capability(typed: VolumeCapability) -> Result<Capability, Invalid> {
    let mount = match typed.access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            let sentence = "JuiceFS has no block volumes: a claim needs volumeMode: Filesystem";
            return Err(Invalid::Unsupported(sentence.into()));
        }
        None => return Err(malformed("a capability does not say whether it is a mount or a block device")),
    };
    let bytes: usize = mount.mount_flags.iter().map(String::len).sum();
    if bytes > LARGEST_MAP {
        return Err(malformed(format!("mount_flags have {bytes} bytes, and CSI allows {LARGEST_MAP}")));
    }
    if !mount.volume_mount_group.is_empty() {
        return Err(Invalid::Unsupported("volume_mount_group is not declared".into()));
    }
    let mode = typed.access_mode.map_or(Ok(Mode::Unknown), |it| Mode::try_from(it.mode));
    let access_mode = match mode {
        Ok(Mode::SingleNodeWriter) => VolumeAccessMode::SingleNodeWriter,
        Ok(Mode::SingleNodeReaderOnly) => VolumeAccessMode::SingleNodeReaderOnly,
        Ok(Mode::MultiNodeReaderOnly) => VolumeAccessMode::MultiNodeReaderOnly,
        Ok(Mode::MultiNodeSingleWriter) => VolumeAccessMode::MultiNodeSingleWriter,
        Ok(Mode::MultiNodeMultiWriter) => VolumeAccessMode::MultiNodeMultiWriter,
        Ok(Mode::SingleNodeSingleWriter) => VolumeAccessMode::SingleNodeSingleWriter,
        Ok(Mode::SingleNodeMultiWriter) => VolumeAccessMode::SingleNodeMultiWriter,
        Ok(Mode::Unknown) => return Err(malformed("a capability does not say its access mode")),
        Err(unknown) => return Err(malformed(format!("a capability has the unknown access mode {}", unknown.0))),
    };
    Ok(Capability { access_mode, mount_flags: mount.mount_flags })
}

/// The parameters that are Pith's business, and the claim that external-provisioner names with `--extra-create-metadata`.
fn split_parameters(mut parameters: BTreeMap<String, String>) -> (Entries, Option<ClaimName>) {
    let mut take = |key: &str| parameters.remove(&format!("{SIDECAR_PREFIX}{key}")).filter(|it| !it.is_empty());
    let claim = take("pvc/namespace").zip(take("pvc/name")).map(|(namespace, name)| ClaimName { namespace, name });
    parameters.retain(|key, _| !key.starts_with(SIDECAR_PREFIX));
    (parameters.into_iter().collect(), claim)
}

/// CSI's sizes are signed; `volume::capacity` gives none that does not fit.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Status {
        status(Code::InvalidArgument, &invalid)
    }
}

/// external-provisioner goes on asking for ever, also for a claim that is gone, after ABORTED and UNAVAILABLE: they are for
/// what may have left something behind. Every other code ends with the claim, so it is for what left nothing.
impl From<VolumeError> for Status {
    fn from(error: VolumeError) -> Status {
        let code = match &error {
            VolumeError::AlreadyExists(_) => Code::AlreadyExists,
            VolumeError::Refused(refusal) => refused(refusal),
            VolumeError::NotFound(_) | VolumeError::NoSnapshot(_) => Code::NotFound,
            VolumeError::InvalidArgument(_) => Code::InvalidArgument,
            VolumeError::OutOfRange(_) => Code::OutOfRange,
            VolumeError::FailedPrecondition(_) => Code::FailedPrecondition,
            VolumeError::Aborted(_) => Code::Aborted,
            VolumeError::Unavailable(_) | VolumeError::Unreached(_) => Code::Unavailable,
            VolumeError::Internal(_) => Code::Internal,
        };
        status(code, &error)
    }
}

fn refused(refusal: &VolumeRefusal) -> Code {
    match refusal {
        // A decision, and no mistake in the request: somebody may decide otherwise.
        VolumeRefusal::Denied { .. } => Code::PermissionDenied,
        // HTTP 500's counterpart. It is asked again for as long as the claim is there; UNAVAILABLE would outlive the claim,
        // and a policy that always fails would then be asked for ever.
        VolumeRefusal::PolicyFailed(_) => Code::Internal,
        VolumeRefusal::Size(_) => Code::OutOfRange,
        VolumeRefusal::Path { .. }
        | VolumeRefusal::Pattern { .. }
        | VolumeRefusal::Subdir(_)
        | VolumeRefusal::Parameter { .. }
        | VolumeRefusal::Immutable(_) => Code::InvalidArgument,
    }
}

/// Without details, as CSI wants it.
fn status(code: Code, sentence: &impl std::fmt::Display) -> Status {
    let mut message = sentence.to_string();
    message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
    Status::new(code, message)
}

#[cfg(test)]
mod tests;
