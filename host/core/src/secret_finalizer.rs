//! Which Secrets of file systems stay for as long as volumes need them to be deleted: `secretFinalizer: "true"` in a class.

use std::collections::BTreeSet;

use crate::object::{Entries, Objects, PersistentVolume, SecretRef};

/// What keeps a Secret from going, as with the JuiceFS driver.
pub const FINALIZER: &str = "juicefs.com/finalizer";

/// The parameter, which a volume has among its attributes.
const SECRET_FINALIZER: &str = "secretFinalizer";

/// Whether a class, or a volume of one, says that its Secret is to stay.
pub fn is_wanted(parameters: &Entries) -> bool {
    parameters.get(SECRET_FINALIZER).is_some_and(|value| value == "true")
}

/// The Secrets that volumes of the driver hold: those that are deleted with their claims, whoever has made them.
pub fn held<'a>(volumes: impl IntoIterator<Item = &'a PersistentVolume>, driver: &str) -> BTreeSet<SecretRef> {
    let holds = |volume: &&PersistentVolume| volume.goes_with_claim && volume.driver.as_deref() == Some(driver);
    volumes.into_iter().filter(holds).filter_map(|volume| volume.held_secret.as_deref().cloned()).collect()
}

/// The Secrets that classes of the driver name for their volumes: one of them may be left from a volume that is gone.
pub fn named(objects: &Objects, driver: &str) -> BTreeSet<SecretRef> {
    let classes = objects.storage_classes().filter(|class| class.provisioner == driver && is_wanted(&class.parameters));
    let secrets = classes.filter_map(|class| class.provisioner_secret.as_deref());
    secrets.filter(|secret| !secret.is_template()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::object::{Object, StorageClass};
    use crate::testing::{class, entries, secret, volume};

    #[test]
    fn nothing_but_the_driver_s_own_word_holds_a_secret() {
        for (value, expected) in [("true", true), ("True", false), ("1", false), ("", false)] {
            assert_eq!(is_wanted(&entries(&[("secretFinalizer", value)])), expected, "{value}");
        }
        assert!(!is_wanted(&entries(&[])));
    }

    #[test]
    fn a_secret_is_held_by_each_volume_of_the_driver_that_is_deleted_with_its_claim() {
        let held_by = |change: fn(&mut PersistentVolume)| {
            let mut volume =
                PersistentVolume { held_secret: Some(secret("one").into()), goes_with_claim: true, ..volume("pv-1") };
            change(&mut volume);
            held([&volume], "csi.juicefs.com").len()
        };
        assert_eq!(held_by(|_| {}), 1);
        assert_eq!(held_by(|it| it.released = true), 1);
        assert_eq!(held_by(|it| it.goes_with_claim = false), 0);
        assert_eq!(held_by(|it| it.driver = Some("other".into())), 0);
        assert_eq!(held_by(|it| it.held_secret = None), 0);
    }

    #[test]
    fn a_class_names_the_secret_of_its_volumes() {
        let mut objects = Objects::default();
        let wanted = Arc::new(entries(&[("secretFinalizer", "true")]));
        let holding = |name: &str| StorageClass {
            provisioner_secret: Some(secret(name).into()),
            parameters: wanted.clone(),
            ..class(name)
        };
        objects.insert(Object::StorageClass(holding("gold")));
        objects.insert(Object::StorageClass(StorageClass { parameters: Arc::default(), ..holding("silver") }));
        objects.insert(Object::StorageClass(StorageClass { provisioner_secret: None, ..holding("none") }));
        objects.insert(Object::StorageClass(holding("of-${pvc.name}")));
        objects.insert(Object::StorageClass(StorageClass { provisioner: "other".into(), ..holding("tin") }));
        assert_eq!(named(&objects, "csi.juicefs.com"), BTreeSet::from([secret("gold")]));
    }
}
