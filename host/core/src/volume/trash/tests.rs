//! What a StorageClass may say of deletion, and what may follow from a record in the trash.

use super::*;
use crate::testing::entries;
use crate::volume::{Asked, NamedBy, Place};

const DAY: u64 = 86_400;

#[track_caller]
fn check(parameters: &[(&str, &str)], expected: Result<OnDelete, &str>) {
    let found = OnDelete::of(&entries(parameters)).map_err(|refusal| refusal.to_string());
    assert_eq!(found, expected.map_err(String::from), "{parameters:?}");
}

#[test]
fn a_class_says_what_becomes_of_a_deleted_volume() {
    check(&[], Ok(OnDelete::Delete(None)));
    check(&[("onDelete", "delete")], Ok(OnDelete::Delete(None)));
    check(&[("onDelete", "delete"), ("trashDays", "0")], Ok(OnDelete::Delete(Some(0))));
    check(&[("trashDays", "36500")], Ok(OnDelete::Delete(Some(36_500))));
    check(&[("onDelete", "retain")], Ok(OnDelete::Retain));
    check(&[("onDelete", "archive")], Ok(OnDelete::Archive));
    for bad in ["", "-1", "+1", " 7", "7d", "1.5", "36501", "99999999999999999999"] {
        let sentence = "write a whole number of days up to 36500, as in `7`; `0` keeps nothing";
        check(&[("trashDays", bad)], Err(&format!("the parameter trashDays is `{bad}`: {sentence}")));
    }
    for bad in ["", "Delete", "keep"] {
        let sentence =
            "write `delete` (to the trash), `retain` (it stays where it is) or `archive` (moved aside for good)";
        check(&[("onDelete", bad)], Err(&format!("the parameter onDelete is `{bad}`: {sentence}")));
    }
    for kept in ["retain", "archive"] {
        let sentence = "the parameter trashDays is `7`: it is for `onDelete: delete`, as nothing else is ever purged";
        check(&[("onDelete", kept), ("trashDays", "7")], Err(sentence));
    }
}

/// A volume of a class with these parameters.
fn volume(parameters: &[(&str, &str)]) -> Record {
    let asked = Asked {
        name: "pvc-1".into(),
        required_bytes: None,
        limit_bytes: None,
        capabilities: Vec::new(),
        parameters: entries(parameters),
        mutable_parameters: entries(&[]),
        source: None,
    };
    let directory = "/pvc-1".parse().expect("a directory");
    let place = Place {
        directory,
        shared: false,
        named_by: NamedBy::VolumeName,
        quota: None,
        warnings: Vec::new(),
        notes: Vec::new(),
        monitored: Vec::new(),
    };
    Record::begin("blue", "n".into(), asked, None, place, 0)
}

#[test]
fn a_place_in_the_trash_is_purged_when_its_time_is_over_and_not_before() {
    for (parameters, at, now, expected) in [
        // Of the configuration: seven days.
        (&[][..], 100, 100, Fate::Keep(100 + 7 * DAY)),
        (&[], 100, 99 + 7 * DAY, Fate::Keep(100 + 7 * DAY)),
        (&[], 100, 100 + 7 * DAY, Fate::Purge),
        // Of the class.
        (&[("trashDays", "1")], 100, 100 + DAY, Fate::Purge),
        (&[("trashDays", "30")], 100, 100 + 7 * DAY, Fate::Keep(100 + 30 * DAY)),
        (&[("trashDays", "0")], 100, 100, Fate::Purge),
        // A clock that was ahead when it was deleted.
        (&[("trashDays", "0")], 100, 50, Fate::Keep(100)),
        (&[("trashDays", "36500")], u64::MAX, u64::MAX - 1, Fate::Keep(u64::MAX)),
        (&[("onDelete", "retain")], 100, 100, Fate::Keep(100 + 7 * DAY)),
        (&[("onDelete", "archive")], 100, u64::MAX, Fate::KeepForever),
        // What no version would take now, and one that did not know it did.
        (&[("onDelete", "whatever")], 100, u64::MAX, Fate::KeepForever),
    ] {
        let deleting = volume(parameters).deleting("pvc-1.x", at);
        assert_eq!(deleting.fate("pvc-1.x", 7, now), Ok(expected), "{parameters:?} from {at}, at {now}");
    }
    let untimed = Record { state: State::Deleting(Trashed { trash: "pvc-1.x".into(), at: None }), ..volume(&[]) };
    assert_eq!(untimed.fate("pvc-1.x", 0, u64::MAX), Ok(Fate::KeepForever));
}

#[test]
fn a_record_speaks_for_its_own_place_in_the_trash_alone() {
    let deleting = volume(&[]).deleting("pvc-1.x", 0);
    let (purging, restoring) = (deleting.purging().expect("it waits"), deleting.restoring().expect("it waits"));
    assert_eq!(purging.fate("pvc-1.x", 7, 0), Ok(Fate::Purge));
    assert_eq!(restoring.fate("pvc-1.x", 0, u64::MAX), Ok(Fate::Restoring));
    for record in [volume(&[]), volume(&[]).ready(), deleting.clone(), purging.clone(), restoring.clone()] {
        let problem = RecordProblem::Misplaced { id: "pvc-1".into(), generation: record.generation };
        assert_eq!(record.fate("pvc-1.y", 0, u64::MAX), Err(problem), "{:?}", record.state);
    }
    assert!(volume(&[]).ready().fate("pvc-1.x", 0, u64::MAX).is_err());
}

#[test]
fn of_a_purge_and_a_restore_only_one_can_be_the_next_generation() {
    let ready = volume(&[]).ready();
    assert_eq!((ready.purging(), ready.restoring(), ready.deleting_after_all()), (None, None, None));
    let deleting = ready.deleting("pvc-1.x", 9);
    let purging = deleting.purging().expect("it waits");
    let restoring = deleting.restoring().expect("it waits");
    assert_eq!((deleting.generation, purging.generation, restoring.generation), (2, 3, 3));
    for (record, again) in [(&purging, None), (&restoring, Some(4))] {
        assert_eq!((record.purging(), record.restoring()), (None, None), "{record:?}");
        assert_eq!(record.deleting_after_all().map(|it| it.generation), again);
        assert_eq!(record.trashed(), deleting.trashed());
    }
    // It was deleted when it was deleted.
    assert_eq!(restoring.deleting_after_all().map(|it| it.state), Some(deleting.state.clone()));
    assert_eq!(restoring.restored(), Record { generation: 4, ..ready });
}
