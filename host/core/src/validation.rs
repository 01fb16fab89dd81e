//! What is wrong with a PersistentVolume, a Secret or a PolicyBinding, told to whoever writes it rather than to whoever runs a pod later.
//!
//! Only what can never be right is refused. What Pith could not use, and somebody else may, is a warning.

use serde_json::Value;

use crate::catalogue::Code;
use crate::mount_pod;
use crate::object::{Objects, PersistentVolume};
use crate::volume::whereabouts;

/// Sentences for whoever writes the object, or why it is refused.
pub type Checked = Result<Vec<String>, Problem>;

/// Why an object is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Two PersistentVolumes of one handle are one volume to the kubelet.
    #[error(
        "the PersistentVolume `{other}` has the volumeHandle `{handle}` already: give each one a handle of its own, such as its name"
    )]
    DuplicateHandle {
        /// The handle.
        handle: String,
        /// Who has it.
        other: String,
    },
    /// The applications on a mount pod would lose their files with it.
    #[error(
        "it is a mount pod of the JuiceFS CSI driver, and {users} of the pods on its node use what it has mounted: it can be evicted when \
         they are gone"
    )]
    MountPodInUse {
        /// How many pods use it.
        users: usize,
    },
    /// The Secret describes no file system; the sentence repeats none of its values.
    #[error("{0}")]
    Secret(String),
    /// The PolicyBinding cannot be used.
    #[error("{0}")]
    Binding(String),
}

impl Problem {
    /// The stable word.
    pub fn code(&self) -> Code {
        match self {
            Problem::DuplicateHandle { .. } => Code::DuplicateVolumeHandle,
            Problem::MountPodInUse { .. } => Code::MountPodInUse,
            Problem::Secret(_) => Code::UnusableSecret,
            Problem::Binding(_) => Code::UnusableBinding,
        }
    }
}

/// Looks at a PersistentVolume that is made. Those that a class makes have handles of their own.
pub fn persistent_volume(driver: &str, objects: &Objects, class: &str, volume: &PersistentVolume) -> Checked {
    if volume.driver.as_deref() != Some(driver) {
        return Ok(Vec::new());
    }
    let same = |other: &&PersistentVolume| {
        other.name != volume.name && other.driver == volume.driver && other.handle() == volume.handle()
    };
    if class.is_empty()
        && let Some(other) = objects.persistent_volumes().map(AsRef::as_ref).find(same)
    {
        return Err(Problem::DuplicateHandle { handle: volume.handle().into(), other: other.name.clone() });
    }
    let mut warnings = Vec::new();
    if volume.secret.is_none() {
        warnings.push(
            "it names no Secret of its file system, so no pod can mount it: set spec.csi.nodePublishSecretRef".into(),
        );
    }
    if let Err(problem) = whereabouts(volume) {
        warnings.push(format!("no pod can mount it: {problem}"));
    }
    Ok(warnings)
}

/// Looks at the eviction of a pod.
pub fn eviction(pod: &Value) -> Checked {
    let users = mount_pod::users(pod).len();
    match mount_pod::is_mount_pod(pod) && users > 0 {
        true => Err(Problem::MountPodInUse { users }),
        false => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Object;
    use crate::testing::{entries, secret, volume};

    const DRIVER: &str = "csi.juicefs.com";

    #[test]
    fn a_second_volume_with_a_handle_is_refused_where_no_class_has_made_it() {
        let mut objects = Objects::default();
        objects
            .insert(Object::PersistentVolume(PersistentVolume { other_handle: Some("h".into()), ..volume("first") }));
        objects.insert(Object::PersistentVolume(PersistentVolume { driver: None, ..volume("no-csi") }));
        let check = |name: &str, handle: Option<&str>, class: &str, refused: bool| {
            let handle = handle.map(String::from);
            let new = PersistentVolume { other_handle: handle, secret: Some(secret("shop")), ..volume(name) };
            let found = persistent_volume(DRIVER, &objects, class, &new);
            assert_eq!(found.is_err(), refused, "{name}: {found:?}");
        };
        check("second", None, "", false);
        check("second", Some("h"), "", true);
        check("second", Some("h"), "gold", false);
        check("h", None, "", true);
        check("first", Some("h"), "", false);
        check("no-csi", None, "", false);
        let foreign = PersistentVolume { driver: Some("other".into()), other_handle: Some("h".into()), ..volume("x") };
        assert_eq!(persistent_volume(DRIVER, &objects, "", &foreign), Ok(Vec::new()));
    }

    #[test]
    fn what_no_pod_could_mount_is_a_warning() {
        let attributes = entries(&[("subPath", "../other")]).into();
        let new = PersistentVolume { volume_attributes: attributes, ..volume("pv-1") };
        let warnings = persistent_volume(DRIVER, &Objects::default(), "", &new).expect("it is allowed");
        assert!(warnings[0].contains("nodePublishSecretRef") && warnings[1].contains("subPath"), "{warnings:?}");
    }

    #[test]
    fn a_mount_pod_that_is_used_is_not_evicted() {
        let path = "/var/lib/kubelet/pods/0b5e/volumes/kubernetes.io~csi/pv-1/mount";
        let check = |label: &str, annotation: &str, expected: Result<(), Problem>| {
            let labels = json!({"app.kubernetes.io/name": label});
            let pod = json!({"metadata": {"labels": labels, "annotations": {annotation: path}}});
            assert_eq!(eviction(&pod).map(|warnings| assert!(warnings.is_empty())), expected, "{pod}");
        };
        check("juicefs-mount", "juicefs-1f", Err(Problem::MountPodInUse { users: 1 }));
        check("juicefs-mount", "other", Ok(()));
        check("web", "juicefs-1f", Ok(()));
    }
}
