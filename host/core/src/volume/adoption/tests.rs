//! Which volumes without a record are adopted, and who counts as using a directory.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::object::{Object, StorageClass};
use crate::testing::{claim, class, entries, secret, volume};

const DRIVER: &str = "csi.juicefs.com";
/// A volume as provisioners call it.
const ID: &str = "pvc-00000000-0000-4000-8000-000000000001";

/// A volume that the driver has made with a pattern, of 5 GiB.
fn provisioned(name: &str, attributes: &[(&str, &str)]) -> PersistentVolume {
    PersistentVolume {
        provisioned: true,
        goes_with_claim: true,
        capacity_bytes: Some(5 << 30),
        access_modes: vec![AccessMode::ReadWriteMany],
        volume_attributes: entries(attributes).into(),
        secret: Some(secret("one")),
        ..volume(name)
    }
}

fn with_options(volume: PersistentVolume, options: &[&str]) -> PersistentVolume {
    PersistentVolume { mount_options: options.iter().map(ToString::to_string).collect(), ..volume }
}

fn adopted(volume: &PersistentVolume) -> Result<Record, NotAdopted> {
    adopt(volume, DRIVER, "blue", "n-1".into())
}

#[test]
fn what_the_driver_made_is_adopted_as_its_volume_says() {
    let attributes = [
        ("subPath", "shop-orders"),
        ("capacity", "1073741824"),
        ("pathPattern", "${.pvc.namespace}-${.pvc.name}"),
        ("storage.kubernetes.io/csiProvisionerIdentity", "1-8081-csi.juicefs.com"),
    ];
    let record = adopted(&with_options(provisioned(ID, &attributes), &["subdir=/t/", "writeback"]));
    let mount_flags = vec!["subdir=/t/".to_string(), "writeback".to_string()];
    let expected = Record {
        cluster: "blue".into(),
        id: ID.into(),
        nonce: "n-1".into(),
        asked: Asked {
            name: ID.into(),
            required_bytes: Some(5 << 30),
            limit_bytes: None,
            capabilities: vec![Capability { access_mode: VolumeAccessMode::MultiNodeMultiWriter, mount_flags }],
            parameters: entries(&[("pathPattern", "${.pvc.namespace}-${.pvc.name}")]),
            mutable_parameters: entries(&[]),
            source: None,
        },
        claim: None,
        directory: "/t/shop-orders".parse().expect("a directory"),
        shared: true,
        named_by: NamedBy::PersistentVolume,
        quota: None,
        capacity_bytes: 5 << 30,
        modified: entries(&[]),
        origin: None,
        cut_at: None,
        state: State::Creating,
        generation: 1,
    };
    assert_eq!(record, Ok(expected));
    let own = adopted(&provisioned(ID, &[("subPath", ID)])).expect("it is adopted");
    assert!(!own.shared, "a directory that is called by its volume is nobody else's");
}

/// Where an adopted volume lies, or why there is none.
#[track_caller]
fn check_adopted(volume: &PersistentVolume, expected: Result<&str, &str>) {
    let found = adopted(volume).map(|record| record.directory.to_string()).map_err(|why| why.to_string());
    assert_eq!(found, expected.map(String::from).map_err(String::from), "{volume:?}");
}

#[test]
fn what_is_made_by_hand_is_not_adopted_and_nothing_is_guessed() {
    let at = |path: &str| provisioned(ID, &[("subPath", path)]);
    for (path, place) in [
        ("a", "/a"),
        ("/a/", "/a"),
        ("./a//b/.", "/a/b"),
        ("größe/日本", "/größe/日本"),
        ("a b", "/a b"),
        ("%2e%2e", "/%2e%2e"),
    ] {
        check_adopted(&at(path), Ok(place));
    }
    let by_hand = Err(
        "it was made by hand: what a provisioner makes has the annotation `pv.kubernetes.io/provisioned-by`, and the UID of \
                       its claim in its name",
    );
    check_adopted(&PersistentVolume { provisioned: false, ..at("a") }, by_hand);
    check_adopted(&PersistentVolume { other_handle: Some("a".into()), ..at("a") }, by_hand);
    check_adopted(&PersistentVolume { driver: Some("other".into()), ..at("a") }, by_hand);
    check_adopted(&PersistentVolume { driver: None, ..at("a") }, by_hand);
    let called = |name: &str| provisioned(name, &[("subPath", "a")]);
    let uid = &ID[4..];
    for name in
        ["abc", "pvc-1", "pvc-", uid, &ID[..39], &format!("{ID}-copy"), &format!("pvc-{}", uid.replace('4', "g"))]
    {
        check_adopted(&called(name), by_hand);
    }
    for name in [&format!("pvc-{}", uid.to_uppercase()), &format!("a-b-{uid}")] {
        check_adopted(&called(name), Ok("/a"));
    }

    let unclear = |why: &str| format!("where it lies is not clear: {why}");
    let nothing = unclear("its attribute `subPath` names no directory");
    check_adopted(&provisioned(ID, &[]), Err(&nothing));
    for path in ["", "/", ".", "//./"] {
        check_adopted(&at(path), Err(&nothing));
        check_adopted(&with_options(at(path), &["subdir=a"]), Err(&nothing));
    }
    for (path, shown, why) in [
        ("a/../b", "..", "leads elsewhere in the tree"),
        ("..", "..", "leads elsewhere in the tree"),
        (".pith/volumes", ".pith", "begins with a dot: such names are kept for JuiceFS and Pith"),
        ("a/.trash", ".trash", "begins with a dot: such names are kept for JuiceFS and Pith"),
        ("a\0", "a\\0", "has a control character"),
    ] {
        check_adopted(&at(path), Err(&unclear(&format!("the component \"{shown}\" {why}"))));
    }
    check_adopted(&at("${.pvc.name}"), Err(&unclear("it has a template")));
    check_adopted(&with_options(at("a"), &["subdir=${.pvc.name}"]), Err(&unclear("it has a template")));
    check_adopted(&with_options(at("a"), &["subdir=/t", "subdir=t/"]), Ok("/t/a"));
    let twice = unclear("its mount options have `subdir` twice");
    check_adopted(&with_options(at("a"), &["subdir=t", "subdir=u"]), Err(&twice));
    let both = provisioned(ID, &[("subPath", "a"), ("mountOptions", "writeback,subdir=u")]);
    check_adopted(&both, Ok("/u/a"));
    check_adopted(&with_options(both, &["subdir=t"]), Err(&twice));
}

/// The volume `pvc-1` in `/t/app`, and objects that have nothing but it.
fn app() -> (PersistentVolume, Objects) {
    let own = provisioned(ID, &[("subPath", "t/app")]);
    let mut objects = Objects::default();
    objects.insert(Object::PersistentVolume(own.clone()));
    (own, objects)
}

/// Who uses `/t/app`, the directory of the adopted volume `pvc-1`, beside the volume itself.
#[track_caller]
fn check_users(others: &[PersistentVolume], expected: &[(&str, Relation)]) {
    let (own, objects) = app();
    let record = adopted(&own).expect("it is adopted");
    let found = users(&record, DRIVER, &objects, others.iter().chain([&own]));
    let found: Vec<(&str, Relation)> = found.iter().map(|it| (it.volume.as_str(), it.relation)).collect();
    assert_eq!(found, expected, "{others:?}");
}

#[test]
fn every_volume_that_lies_there_above_or_below_uses_a_directory_in_any_spelling() {
    use Relation::{Ancestor, Descendant, Same};
    let at = |path: &str| provisioned("pvc-2", &[("subPath", path)]);
    for path in ["t/app", "/t/app/", "t//app", "./t/./app", "u/../t/app", "../../t/app"] {
        check_users(&[at(path)], &[("pvc-2", Same)]);
        // Whoever made it, and of whatever class.
        check_users(&[PersistentVolume { provisioned: false, ..at(path) }], &[("pvc-2", Same)]);
    }
    for path in ["", "/", "t", "t/app/..", "../t"] {
        check_users(&[at(path)], &[("pvc-2", Ancestor)]);
    }
    check_users(&[at("t/app/deep/er")], &[("pvc-2", Descendant)]);
    for path in ["t/apple", "t/ap", "app", "T/app", "t/App", ID, "u/t/app"] {
        check_users(&[at(path)], &[]);
    }
    // By its mount options, in either place.
    check_users(&[with_options(at("app"), &["writeback,subdir=/t/"])], &[("pvc-2", Same)]);
    check_users(&[provisioned("pvc-2", &[("mountOptions", "subdir=t/app")])], &[("pvc-2", Same)]);
    check_users(&[with_options(at("app"), &["subdir=u"])], &[]);
    // What may be several places is the nearest of them, and what may be anywhere is there.
    check_users(&[with_options(at("app"), &["subdir=u", "subdir=t"])], &[("pvc-2", Same)]);
    check_users(&[with_options(at("app"), &["subdir=${x}"])], &[("pvc-2", Same)]);
    check_users(&[at("${.pvc.name}")], &[("pvc-2", Same)]);
    // Another one of the same handle is another one.
    let copy = PersistentVolume { name: "copy".into(), other_handle: Some(ID.into()), ..at("t/app") };
    check_users(&[copy], &[("copy", Same)]);
    check_users(&[at("t/app/x"), provisioned("a", &[]), at("x")], &[("a", Ancestor), ("pvc-2", Descendant)]);
}

#[test]
fn a_volume_of_another_driver_or_file_system_counts_by_its_secret() {
    let other = |driver: Option<&str>, name: Option<&str>| PersistentVolume {
        driver: driver.map(String::from),
        secret: name.map(secret),
        ..provisioned("pvc-2", &[("subPath", "t/app")])
    };
    let (own, objects) = app();
    let record = adopted(&own).expect("it is adopted");
    let check = |other: PersistentVolume, objects: &Objects, expected: Option<Option<SecretRef>>| {
        let found = users(&record, DRIVER, objects, [&other]);
        assert_eq!(found.first().map(|it| it.elsewhere.clone()), expected, "{other:?}");
    };
    check(other(Some(DRIVER), Some("one")), &objects, Some(None));
    check(other(Some(DRIVER), Some("two")), &objects, Some(Some(secret("two"))));
    check(other(Some(DRIVER), Some("one")), &Objects::default(), Some(Some(secret("one"))));
    check(other(Some("second.csi.juicefs.com"), Some("one")), &objects, Some(None));
    check(other(Some("second.csi.juicefs.com"), Some("two")), &objects, None);
    check(other(None, None), &objects, None);
    check(other(None, None), &Objects::default(), None);

    // Without one it is mounted by nobody, unless its claim is of a class that has one.
    check(other(Some(DRIVER), None), &objects, None);
    let claimed = PersistentVolume { claim_uid: Some("uid-of-orders".into()), ..other(Some(DRIVER), None) };
    check(claimed.clone(), &objects, Some(None));
    check(PersistentVolume { released: true, ..claimed.clone() }, &objects, None);
    let mut objects = objects;
    objects.insert(Object::Claim(claim("orders")));
    check(claimed.clone(), &objects, None);
    for (name, elsewhere) in [("one", None), ("two", Some(secret("two")))] {
        objects.insert(Object::StorageClass(StorageClass { secret: Some(secret(name)), ..class("juicefs") }));
        check(claimed.clone(), &objects, Some(elsewhere));
    }
}

#[test]
fn a_volume_that_pith_made_is_not_used_by_what_lies_above_it() {
    let (own, objects) = app();
    let made = Record { named_by: NamedBy::PathPattern, ..adopted(&own).expect("it is adopted") };
    let at = |name: &str, path: &str| provisioned(name, &[("subPath", path)]);
    let others = [at("root", "/"), at("same", "t/app"), at("inner", "t/app/x")];
    let found = users(&made, DRIVER, &objects, &others);
    let going = PersistentVolume { released: true, ..at("going", "t/app") };
    assert_eq!(named(&found), "`inner`, `same`");
    let found = users(&made, DRIVER, &objects, [&going]);
    assert_eq!((found[0].is_going, found[0].id.as_deref()), (true, Some("going")));
    for staying in [
        PersistentVolume { provisioned: false, ..going.clone() },
        PersistentVolume { goes_with_claim: false, ..going.clone() },
        PersistentVolume { released: false, ..going },
    ] {
        assert!(!users(&made, DRIVER, &objects, [&staying])[0].is_going, "{staying:?}");
    }
    let many: Vec<PersistentVolume> = (0..5).map(|it| at(&format!("v-{it}"), "t/app")).collect();
    assert_eq!(named(&users(&made, DRIVER, &objects, &many)), "`v-0`, `v-1`, `v-2` and 2 more");
}

proptest! {
    /// However a directory is spelled, it is the same one; and what is adopted lies where its users are looked for.
    #[test]
    fn a_spelling_makes_no_other_directory(noise in vec(select(vec!["", ".", "x/..", "../../.."]), 3)) {
        // What leads above the root ends there, so it may only stand in front.
        let inner: Vec<&str> = noise.iter().map(|it| if it.contains("../..") { "" } else { it }).collect();
        let spelled = format!("/{}/t/{}/app/{}", noise[0], inner[1], inner[2]);
        let (own, objects) = app();
        let record = adopted(&own).expect("it is adopted");
        let other = provisioned("pvc-2", &[("subPath", &spelled)]);
        let found = users(&record, DRIVER, &objects, [&other]);
        prop_assert_eq!(found.first().map(|it| it.relation), Some(Relation::Same), "{}", spelled);
        if let Ok(other) = adopted(&other) {
            prop_assert_eq!(other.directory, record.directory, "{}", spelled);
        }
    }

    #[test]
    fn no_volume_makes_it_panic_or_lie_outside(path in "\\PC{0,40}", option in "\\PC{0,40}") {
        let (own, objects) = app();
        let record = adopted(&own).expect("it is adopted");
        let other = with_options(provisioned("pvc-2", &[("subPath", &path)]), &[&format!("subdir={option}")]);
        users(&record, DRIVER, &objects, [&other]);
        if let Ok(other) = adopted(&other) {
            prop_assert!(other.directory.components().iter().all(|it| !it.starts_with('.')), "{}", other.directory);
            prop_assert_eq!(relation(other.directory.components(), &provisioned("pvc-2", &[("subPath", &other.directory.to_string())])), Some(Relation::Same));
        }
    }
}
