//! Which claims have a Secret beside them, and what it is made of.
//!
//! A sidecar takes what is secret, or is known late, from a Secret in the claim's own namespace (see [`crate::sidecar`]). There is
//! one for each claim of our driver that is bound, in each namespace that opted in. What a claim's author could choose has no part
//! in it: the volume must say that it is bound to this very claim, and only volume and class name a file system's Secret.
//!
//! A pod whose claim was not there yet when it was admitted could name no Secret of that claim. It has one of its own, which is made
//! of the same and belongs to the pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::object::{AccessMode, Claim, Namespace, Objects, PersistentVolume, SecretRef};
use crate::reason::{ENABLE_LABEL, SERVERLESS_LABEL};
use crate::settings;
use crate::status::InjectedClaim;
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
    [ENABLE_LABEL, SERVERLESS_LABEL]
        .iter()
        .any(|label| namespace.labels.get(*label).is_some_and(|value| value == "true"))
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

/// The Secret of a pod's own for a claim that was not there when the pod was admitted; none while the claim is not bound, or where
/// the pod takes the claim's.
pub fn of_pod(
    objects: &Objects,
    driver: &str,
    (namespace, pod, pod_uid): (&str, &str, &str),
    injected: &InjectedClaim,
) -> Option<Bound> {
    injected.secret()?;
    let claim = objects.claim(namespace, &injected.name(pod))?;
    // Another pod of that name may have had a volume of that name, and its claim be about to go.
    if matches!(injected, InjectedClaim::Ephemeral { .. }) && claim.pod_uid.as_deref() != Some(pod_uid) {
        return None;
    }
    let volume = objects.persistent_volume(claim.volume_name.as_deref()?)?;
    let surprise = if volume.driver.as_deref() != Some(driver) {
        format!("is not of the driver {driver}")
    } else if matches!(injected, InjectedClaim::Awaited { .. }) && is_read_only(volume) {
        // The client was made to write, as nothing was known that forbids it.
        "is read-only".to_string()
    } else {
        return one(objects, driver, claim);
    };
    let why = format!(
        "it is bound to the PersistentVolume `{}`, which {surprise}: make the pod again, now that the claim is there",
        volume.name
    );
    Some(Bound { claim: claim.clone(), secret: Wanted::Impossible(why) })
}

/// Whether anything that a volume says of itself makes it one to read.
fn is_read_only(volume: &PersistentVolume) -> bool {
    let options = volume.mount_options.iter().chain(volume.volume_attributes.get("mountOptions"));
    let mut names = options.flat_map(|options| options.split(',')).map(|it| it.split('=').next().unwrap_or(it).trim());
    volume.read_only
        || AccessMode::only_read(&volume.access_modes)
        || names.any(|name| matches!(name, "ro" | "read-only"))
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
        bound(&objects_of(case), DRIVER).remove("uid-of-orders").map(|bound| bound.secret)
    }

    fn objects_of(case: Case) -> Objects {
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
        objects
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
    fn a_pod_has_a_secret_of_its_own_for_the_claim_that_was_made_for_it_and_is_bound() {
        let secret = || crate::sidecar::pod_secret_name("review", "data");
        let ephemeral = || InjectedClaim::Ephemeral { volume: "data".into(), secret: secret() };
        let awaited = |claim: &str| InjectedClaim::Awaited { claim: claim.into(), secret: secret() };
        let check = |name: &str, injected: InjectedClaim, expected: Option<Result<(), &str>>, change: fn(&mut Case)| {
            let mut case = case();
            (case.claim.name, case.claim.pod_uid) = ("web-0-data".into(), Some("uid-of-web-0".into()));
            change(&mut case);
            let found = of_pod(&objects_of(case), DRIVER, (NAMESPACE, "web-0", "uid-of-web-0"), &injected);
            match (found.map(|found| found.secret), expected) {
                (None, None) | (Some(Wanted::Made { .. }), Some(Ok(()))) => {}
                (Some(Wanted::Impossible(why)), Some(Err(expected))) => {
                    assert!(why.contains(expected), "{name}: {why}")
                }
                (found, expected) => panic!("{name}: {found:?} instead of {expected:?}"),
            }
        };
        check("its own", ephemeral(), Some(Ok(())), |_| {});
        check("of a pod that had its name before", ephemeral(), None, |it| {
            it.claim.pod_uid = Some("uid-of-old".into())
        });
        check("somebody's", ephemeral(), None, |it| it.claim.pod_uid = None);
        check("of another volume", ephemeral(), None, |it| it.claim.name = "web-0-other".into());
        check("not bound", ephemeral(), None, |it| it.claim.volume_name = None);
        check("the volume of another claim", ephemeral(), None, |it| it.volume.claim_uid = Some("uid-of-old".into()));
        let ebs = |it: &mut Case| it.volume.driver = Some("ebs.csi.aws.com".into());
        let not_ours = "bound to the PersistentVolume `pv-1`, which is not of the driver csi.juicefs.com";
        check("another driver's", awaited("web-0-data"), Some(Err(not_ours)), ebs);
        let read_only = "bound to the PersistentVolume `pv-1`, which is read-only: make the pod again";
        let ways: [fn(&mut Case); 4] = [
            |it| it.volume.read_only = true,
            |it| it.volume.access_modes = crate::testing::only_read(),
            |it| it.volume.mount_options = vec!["noatime,ro".into()],
            |it| it.volume.volume_attributes = Arc::new(crate::testing::entries(&[("mountOptions", "read-only")])),
        ];
        for way in ways {
            check("awaited, and not to be written", awaited("web-0-data"), Some(Err(read_only)), way);
            // What the pod's own claim allows was known.
            check("its own, and not to be written", ephemeral(), Some(Ok(())), way);
        }
        check("awaited", awaited("web-0-data"), Some(Ok(())), |it| it.claim.pod_uid = None);
        check("still awaited", awaited("orders"), None, |_| {});
        check("there from the start", InjectedClaim::Present("web-0-data".into()), None, |_| {});
    }

    #[test]
    fn a_namespace_opts_in_with_either_label_and_only_with_true() {
        let check = |label: &str, value: &str, expected: bool| {
            let labels = [(label.to_string(), value.to_string())].into_iter().collect();
            let namespace = Namespace { labels, ..Namespace::default() };
            assert_eq!(opted_in(&namespace), expected, "{label}={value}");
        };
        for label in [ENABLE_LABEL, SERVERLESS_LABEL] {
            check(label, "true", true);
            check(label, "True", false);
            check(label, "false", false);
        }
        check("juicefs.com/enable-other", "true", false);
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
