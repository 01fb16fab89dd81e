//! Which claims have a Secret beside them, and what it is made of.
//!
//! A sidecar takes what is secret, or is known late, from a Secret in the claim's own namespace (see [`crate::sidecar`]). There is
//! one for each claim of our driver that is bound, in each namespace that opted in. What a claim's author could choose has no part
//! in it: the volume must say that it is bound to this very claim, and only volume and class name a file system's Secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::object::{Claim, Namespace, Objects, PersistentVolume, SecretRef};
use crate::reason::ENABLE_LABEL;
use crate::settings;
use crate::volume::whereabouts;

/// A claim that is bound to a volume of our driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The claim.
    pub claim: Arc<Claim>,
    /// What is to be beside it.
    pub secret: Wanted,
}

/// What is to be beside a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A Secret made of this.
    Made {
        /// The Secret of the file system.
        source: SecretRef,
        /// The volume's directory, from the root of the file system.
        directory: String,
    },
    /// A Secret that cannot be made, and the sentence that says why.
    Impossible(String),
    /// Nothing: the namespace did not opt in.
    Nothing,
}

/// Whether pods of a namespace are injected.
pub fn opted_in(namespace: &Namespace) -> bool {
    namespace.labels.get(ENABLE_LABEL).map(String::as_str) == Some("true")
}

/// Every claim that is bound to a volume of the driver, by its UID.
pub fn bound(objects: &Objects, driver: &str) -> BTreeMap<String, Bound> {
    let of = |claim: &Arc<Claim>| Some((claim.uid.clone(), one(objects, driver, claim)?));
    objects.claims().filter_map(of).collect()
}

fn one(objects: &Objects, driver: &str, claim: &Arc<Claim>) -> Option<Bound> {
    let volume = objects.persistent_volume(claim.volume_name.as_deref()?)?;
    let ours = volume.driver.as_deref() == Some(driver) && volume.claim_uid.as_deref() == Some(&claim.uid);
    ours.then(|| Bound { claim: claim.clone(), secret: wanted(objects, claim, volume) })
}

fn wanted(objects: &Objects, claim: &Claim, volume: &PersistentVolume) -> Wanted {
    if !objects.namespace(&claim.namespace).is_some_and(|namespace| opted_in(namespace)) {
        return Wanted::Nothing;
    }
    let class = claim.storage_class.as_deref().and_then(|class| objects.storage_class(class));
    let Some(source) = settings::secret(Some(volume), class.map(|class| &**class)) else {
        return Wanted::Impossible(format!(
            "the PersistentVolume `{}` names no Secret of its file system: set spec.csi.nodePublishSecretRef",
            volume.name
        ));
    };
    match whereabouts(volume) {
        Ok(directory) => Wanted::Made { source: source.clone(), directory },
        Err(problem) => {
            Wanted::Impossible(format!("the PersistentVolume `{}` cannot be mounted: {problem}", volume.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Entries, Object, StorageClass};
    use crate::testing::{NAMESPACE, claim, class, secret, volume};

    const DRIVER: &str = "csi.juicefs.com";

    struct Case {
        opted_in: bool,
        claim: Claim,
        volume: PersistentVolume,
        class: StorageClass,
    }

    /// A claim that is bound in a namespace that opted in.
    fn case() -> Case {
        Case {
            opted_in: true,
            claim: Claim { volume_name: Some("pv-1".into()), ..claim("orders") },
            volume: PersistentVolume {
                secret: Some(secret("shop")),
                claim_uid: Some("uid-of-orders".into()),
                ..volume("pv-1")
            },
            class: class("juicefs"),
        }
    }

    fn wanted_in(case: Case) -> Option<Wanted> {
        let mut objects = Objects::default();
        let labels: Entries = if case.opted_in {
            [(ENABLE_LABEL.to_string(), "true".to_string())].into_iter().collect()
        } else {
            Entries::new()
        };
        objects.insert(Object::Namespace(Namespace { name: NAMESPACE.into(), labels, ..Namespace::default() }));
        objects.insert(Object::Claim(case.claim));
        objects.insert(Object::PersistentVolume(case.volume));
        objects.insert(Object::StorageClass(case.class));
        bound(&objects, DRIVER).remove("uid-of-orders").map(|bound| bound.secret)
    }

    #[test]
    fn a_claim_has_a_secret_once_a_volume_of_ours_is_bound_to_it_in_a_namespace_that_opted_in() {
        let check = |name: &str, expected: bool, change: fn(&mut Case)| {
            let mut changed = case();
            change(&mut changed);
            let found = wanted_in(changed);
            assert_eq!(matches!(found, Some(Wanted::Made { .. })), expected, "{name}: {found:?}");
        };
        check("as it is", true, |_| {});
        check("no opt-in", false, |it| it.opted_in = false);
        let mut not_opted_in = case();
        not_opted_in.opted_in = false;
        assert_eq!(wanted_in(not_opted_in), Some(Wanted::Nothing));
        check("not bound", false, |it| it.claim.volume_name = None);
        check("a volume that is not there", false, |it| it.claim.volume_name = Some("pv-2".into()));
        check("a volume of another claim", false, |it| it.volume.claim_uid = Some("uid-of-invoices".into()));
        check("a volume that is not bound yet", false, |it| it.volume.claim_uid = None);
        check("a volume of another driver", false, |it| it.volume.driver = Some("ebs.csi.aws.com".into()));
        check("a volume that is not CSI", false, |it| it.volume.driver = None);
    }

    #[test]
    fn the_volume_says_where_it_lies_and_whose_secret_it_needs() {
        let attributes = |entries: &[(&str, &str)]| -> Arc<Entries> {
            Arc::new(entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
        };
        let check = |change: &dyn Fn(&mut Case), expected: Result<(&str, &str), &str>| {
            let mut changed = case();
            change(&mut changed);
            let found = wanted_in(changed).expect("a Secret is wanted");
            match (found, expected) {
                (Wanted::Made { source: found, directory: lies }, Ok((source, directory))) => {
                    assert_eq!((&*found.name, &*lies), (source, directory));
                }
                (Wanted::Impossible(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        };
        check(&|_| {}, Ok(("shop", "/")));
        check(
            &|it| it.volume.volume_attributes = attributes(&[("subPath", "web/orders")]),
            Ok(("shop", "/web/orders")),
        );
        check(&|it| it.volume.mount_options = vec!["ro,subdir=/team".into()], Ok(("shop", "/team")));
        check(
            &|it| {
                it.volume.volume_attributes = attributes(&[("subPath", "orders"), ("mountOptions", "subdir=team")]);
            },
            Ok(("shop", "/team/orders")),
        );
        check(&|it| (it.volume.secret, it.class.secret) = (None, Some(secret("of-class"))), Ok(("of-class", "/")));
        check(&|it| it.class.secret = Some(secret("of-class")), Ok(("shop", "/")));
        check(&|it| it.volume.secret = None, Err("`pv-1` names no Secret of its file system"));
        check(
            &|it| it.volume.volume_attributes = attributes(&[("subPath", "../other")]),
            Err("the attribute `subPath`"),
        );
        check(&|it| it.volume.mount_options = vec!["subdir=a".into(), "subdir=b".into()], Err("given twice"));
    }
}
