//! What is wrong with a PersistentVolume or a Secret, told to whoever writes it rather than to whoever runs a pod later.
//!
//! Only what can never be right is refused. What Pith could not use, and somebody else may, is a warning.

use crate::catalogue::Code;
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
    /// The Secret describes no file system; the sentence repeats none of its values.
    #[error("{0}")]
    Secret(String),
}

impl Problem {
    /// The stable word.
    pub fn code(&self) -> Code {
        match self {
            Problem::DuplicateHandle { .. } => Code::DuplicateVolumeHandle,
            Problem::Secret(_) => Code::UnusableSecret,
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

#[cfg(test)]
mod tests {
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
}
