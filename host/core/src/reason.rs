//! The reasons of decisions: every skip, denial and failure has one.
//!
//! Its [`Code`] is a stable word for metrics, audit annotations and scripts; the sentence of a [`Refusal`] is for whoever creates the
//! pod. Neither knows HTTP.

use crate::catalogue::Code;
use crate::policy::Failure;
use crate::text::clean;

/// How much of a value stands in a sentence, in bytes: who wrote it will know it again.
const VALUE: usize = 120;
/// How much of what is wrong with it, which may repeat it.
const WHY: usize = 400;

/// Why a pod is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// The request is not about the creation of a pod.
    NotAPodCreation,
    /// No volume of the pod names a claim.
    NoClaims,
    /// No claim of the pod is a JuiceFS claim.
    NoJuiceFsClaims,
    /// The namespace did not opt in.
    NamespaceNotEnabled,
    /// The pod opted out by label.
    DisabledByLabel,
    /// A policy exempts it: the binding's name and the policy's words.
    Policy {
        /// The binding.
        binding: String,
        /// The policy's reason.
        reason: String,
    },
}

impl Skip {
    /// The stable word.
    pub fn code(&self) -> Code {
        match self {
            Skip::NotAPodCreation => Code::NotAPodCreation,
            Skip::NoClaims => Code::NoClaims,
            Skip::NoJuiceFsClaims => Code::NoJuicefsClaims,
            Skip::NamespaceNotEnabled => Code::NamespaceNotEnabled,
            Skip::DisabledByLabel => Code::DisabledByLabel,
            Skip::Policy { .. } => Code::ExemptByPolicy,
        }
    }

    /// The sentence for people.
    pub fn sentence(&self) -> String {
        match self {
            Skip::NotAPodCreation => "the request does not create a pod".into(),
            Skip::NoClaims => "no volume of the pod names a claim".into(),
            Skip::NoJuiceFsClaims => "no claim of the pod is for JuiceFS".into(),
            Skip::NamespaceNotEnabled => format!("the namespace has no label {ENABLE_LABEL}=true"),
            Skip::DisabledByLabel => format!("the pod has the label {DISABLE_LABEL}=true"),
            Skip::Policy { binding, reason } => {
                format!("policy `{binding}` exempts the pod: {reason}")
            }
        }
    }
}

/// The label by which a namespace opts in, as with the JuiceFS CSI driver.
pub const ENABLE_LABEL: &str = "juicefs.com/enable-injection";
/// The label by which a namespace opted in where there are no nodes to speak of. Pods get what they get everywhere: no folder of a
/// node has a part in it.
pub const SERVERLESS_LABEL: &str = "juicefs.com/enable-serverless-injection";
/// The label by which a pod opts out, as with the JuiceFS CSI driver.
pub const DISABLE_LABEL: &str = "disable.sidecar.juicefs.com/inject";
/// The label that says that a pod was injected, as with the JuiceFS CSI driver. Pith writes it and never trusts it.
pub const DONE_LABEL: &str = "done.sidecar.juicefs.com/inject";
/// The label by which Kubernetes' Pod Security admission knows what a namespace's pods may do.
pub const POD_SECURITY_LABEL: &str = "pod-security.kubernetes.io/enforce";
/// The annotations, one for each volume of the pod by its name, that say the StorageClass of a claim which does not exist yet. A prefix,
/// because a volume's name always fits behind it.
pub const CLAIM_CLASS_PREFIX: &str = "claim-class.pith.io/";
/// The annotation that records what was injected, as JSON.
pub const STATUS_ANNOTATION: &str = "pith.io/injected";
/// The annotation by which the controller tells a pod's guard that the application has ended, where its clients are containers like
/// the application's and would keep the pod from completing.
pub const FINISH_ANNOTATION: &str = "pith.io/finish";
/// The annotation that lets VCI, the virtual nodes of a cloud, carry mounts between containers; its value is its name.
pub const VCI_PROPAGATION_ANNOTATION: &str = "vke.al.vci-enable-bidirectional-mount-propagation";
/// The annotation that tells VCI which mounts: a JSON list of `{container, mountPath}`.
pub const VCI_MOUNTS_ANNOTATION: &str = "vci.vke.volcengine.com/config-bidirectional-mount-propagation";
/// The annotation that says why a policy exempted a pod, for people and for the controller's event.
pub const SKIPPED_ANNOTATION: &str = "pith.io/skipped";
/// The label of pods that a policy exempted, by which the controller finds them.
pub const SKIPPED_LABEL: &str = "pith.io/skipped";

/// Why a pod is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The pod itself is not well formed.
    #[error("the pod cannot be read: {0}")]
    Malformed(String),
    /// The namespace is not known.
    #[error("namespace `{0}` is not known to Pith yet: try again in a moment")]
    NamespaceUnknown(String),
    /// A claim does not exist, or is not known yet.
    #[error(
        "volume `{volume}` names the claim `{namespace}/{claim}`, which does not exist (or is not known to Pith yet): \
         create the claim, then the pod, or name the claim's StorageClass in the pod's annotation {CLAIM_CLASS_PREFIX}{volume}"
    )]
    ClaimNotFound {
        /// The pod's volume.
        volume: String,
        /// The namespace of the pod.
        namespace: String,
        /// The claim's name.
        claim: String,
    },
    /// A claim is bound to a PersistentVolume that is not known.
    #[error(
        "claim `{claim}` is bound to the PersistentVolume `{persistent_volume}`, which is not known to Pith yet: try again in a moment"
    )]
    PersistentVolumeUnknown {
        /// The claim's name.
        claim: String,
        /// The name in `spec.volumeName`.
        persistent_volume: String,
    },
    /// A form of volume that cannot be injected.
    #[error(
        "volume `{volume}` is {form}, which Pith does not support for JuiceFS: use a PersistentVolumeClaim, mounted with \
         `volumeMounts`"
    )]
    UnsupportedVolume {
        /// The pod's volume.
        volume: String,
        /// What it is.
        form: &'static str,
    },
    /// The pod asks for something that a FUSE sidecar cannot live with.
    #[error("a pod with {what} cannot have a JuiceFS sidecar: {why}")]
    UnsupportedPod {
        /// The setting.
        what: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// A setting of a class, volume, claim or file system is not usable.
    #[error("{origin} has {field} = `{}`, which is not usable: {}", clean(value, VALUE), clean(why, WHY))]
    Setting {
        /// The object that has it.
        origin: String,
        /// The key.
        field: String,
        /// The value.
        value: String,
        /// The reason.
        why: String,
    },
    /// A container that Pith did not make has the name of its sidecar.
    #[error(
        "the pod already has a container `{container}` that Pith did not inject: rename it, or set the label {DISABLE_LABEL}=true \
         on the pod to mount JuiceFS yourself"
    )]
    ForeignContainer {
        /// Its name.
        container: String,
    },
    /// A volume that Pith did not make has the name of its own.
    #[error("the pod already has a volume `{volume}` that Pith did not inject: rename it")]
    ForeignVolume {
        /// Its name.
        volume: String,
    },
    /// A policy refuses the pod.
    #[error("policy `{binding}` refuses the pod: {sentence}")]
    Policy {
        /// The binding.
        binding: String,
        /// The policy's sentence.
        sentence: String,
    },
}

impl Refusal {
    /// The stable word.
    pub fn code(&self) -> Code {
        match self {
            Refusal::Malformed(_) => Code::MalformedPod,
            Refusal::NamespaceUnknown(_) => Code::NamespaceUnknown,
            Refusal::ClaimNotFound { .. } => Code::ClaimNotFound,
            Refusal::PersistentVolumeUnknown { .. } => Code::PersistentVolumeUnknown,
            Refusal::UnsupportedVolume { .. } => Code::UnsupportedVolume,
            Refusal::UnsupportedPod { .. } => Code::UnsupportedPod,
            Refusal::Setting { .. } => Code::InvalidSetting,
            Refusal::ForeignContainer { .. } => Code::ForeignContainer,
            Refusal::ForeignVolume { .. } => Code::ForeignVolume,
            Refusal::Policy { .. } => Code::DeniedByPolicy,
        }
    }
}

/// A policy whose failure fails the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy `{binding}` failed, and its onFailure is `fail`: {failure}")]
pub struct PolicyFailure {
    /// The binding.
    pub binding: String,
    /// What happened.
    pub failure: Failure,
}

impl PolicyFailure {
    /// The stable word.
    pub fn code(&self) -> Code {
        self.failure.code()
    }
}

#[cfg(test)]
mod tests;
