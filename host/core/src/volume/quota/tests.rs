//! What bounds a volume, and how that is written.

use proptest::prelude::*;

use super::*;
use crate::testing::entries;
use crate::volume::{Asked, NamedBy, State};

const GIB: u64 = 1 << 30;

fn record(capacity_bytes: u64, parameters: &[(&str, &str)]) -> Record {
    Record {
        cluster: "blue".into(),
        id: "pvc-1".into(),
        nonce: "n-1".into(),
        asked: Asked {
            name: "pvc-1".into(),
            required_bytes: None,
            limit_bytes: None,
            capabilities: Vec::new(),
            parameters: entries(parameters),
            mutable_parameters: Entries::new(),
            source: None,
        },
        modified: Entries::new(),
        origin: None,
        cut_at: None,
        claim: None,
        directory: "/t/a".parse().expect("a directory"),
        shared: true,
        named_by: NamedBy::PathPattern,
        quota: None,
        capacity_bytes,
        state: State::Ready,
        generation: 1,
    }
}

#[test]
fn a_class_says_whether_sizes_are_enforced() {
    for (value, expected) in [("on", Some(Quota::On)), ("off", Some(Quota::Off))] {
        assert_eq!(Quota::of(&entries(&[("quota", value)])), Ok(expected));
    }
    assert_eq!(Quota::of(&entries(&[("pool", "fast")])), Ok(None));
    for value in ["", "Off", "false", "true", "no"] {
        let refusal = Quota::of(&entries(&[("quota", value)])).expect_err("it is neither");
        assert_eq!(refusal.code(), "invalid-parameter");
        let sentence = format!(
            "the parameter quota is `{value}`: write `on` (the size is enforced) or `off` (it is not), in quotes: YAML \
             takes both for something else"
        );
        assert_eq!(refusal.to_string(), sentence);
    }
}

#[test]
fn a_volume_is_bound_by_its_size_unless_its_class_or_the_configuration_says_that_nothing_is() {
    let (off, on, wrong) = ([("quota", "off")], [("quota", "on")], [("quota", "maybe")]);
    for (size, parameters, [by_default_on, by_default_off]) in [
        (GIB, &[][..], [Some(GIB), None]),
        (0, &[][..], [None, None]),
        (GIB, &off[..], [None, None]),
        (GIB, &on[..], [Some(GIB), Some(GIB)]),
        (0, &on[..], [None, None]),
        (GIB, &wrong[..], [Some(GIB), None]),
    ] {
        let record = record(size, parameters);
        let found = [Quota::On, Quota::Off].map(|by_default| record.bound(by_default));
        assert_eq!(found, [by_default_on, by_default_off].map(bytes), "{size} {parameters:?}");
    }
}

fn bytes(bytes: Option<u64>) -> Option<Bound> {
    bytes.map(|bytes| Bound { bytes: Some(bytes), inodes: None })
}

#[test]
fn a_directory_of_several_volumes_is_bound_by_the_largest_and_by_none_where_one_has_no_bound() {
    let check = |records: &[Record], expected: Option<u64>| {
        assert_eq!(bound(records, Quota::On), bytes(expected), "{records:?}");
        assert_eq!(bound(records.iter().rev(), Quota::On), bytes(expected), "{records:?}");
    };
    check(&[record(GIB, &[])], Some(GIB));
    check(&[record(GIB, &[]), record(3 * GIB, &[])], Some(3 * GIB));
    check(&[record(GIB, &[]), record(0, &[])], None);
    check(&[record(GIB, &[]), record(3 * GIB, &[("quota", "off")])], None);
}

#[test]
fn files_are_bound_beside_the_space_and_by_themselves() {
    let of = |size: u64, inodes: &str| record(size, &[("inodes", inodes)]);
    let check = |records: &[Record], words: &str| {
        let found = bound(records, Quota::On).map(|bound| bound.written()).unwrap_or_default();
        assert_eq!(found, words, "{records:?}");
    };
    check(&[of(GIB, "5")], "1.0 GiB, 5 inodes");
    check(&[of(0, "1000000")], "1,000,000 inodes");
    check(&[of(GIB, "0")], "1.0 GiB");
    check(&[of(0, "0")], "");
    check(&[of(GIB, "999"), of(3 * GIB, "12345")], "3.0 GiB, 12,345 inodes");
    check(&[of(GIB, "5"), of(GIB, "0")], "1.0 GiB");
    check(&[of(GIB, "5"), of(0, "4")], "5 inodes");
    check(&[of(GIB, "5"), record(3 * GIB, &[("quota", "off")])], "");
}

#[test]
fn a_policy_is_above_the_class_and_the_configuration() {
    for (policy, class, by_default, expected) in [
        (None, "", Quota::On, true),
        (None, "off", Quota::On, false),
        (Some(Quota::On), "off", Quota::Off, true),
        (Some(Quota::Off), "on", Quota::On, false),
        (Some(Quota::Off), "", Quota::On, false),
    ] {
        let parameters = [("quota", class)];
        let record = Record { quota: policy, ..record(GIB, if class.is_empty() { &[] } else { &parameters }) };
        assert_eq!(record.bound(by_default).is_some(), expected, "{policy:?} {class} {by_default:?}");
    }
}

#[test]
fn a_client_that_counts_in_larger_units_gets_the_next_whole_one() {
    let whole = |bytes: u64, unit| Bound { bytes: Some(bytes), inodes: Some(1) }.whole(unit).bytes;
    for (bytes, expected) in [(1, GIB), (GIB, GIB), (GIB + 1, 2 * GIB), (u64::MAX, u64::MAX)] {
        assert_eq!(whole(bytes, GIB), Some(expected), "{bytes}");
        assert_eq!(whole(bytes, 1), Some(bytes));
    }
    assert_eq!(Bound { bytes: None, inodes: Some(1) }.whole(GIB), Bound { bytes: None, inodes: Some(1) });
}

#[test]
fn sizes_are_written_as_the_client_writes_them() {
    for (gib, expected) in [
        (1, "1.0 GiB"),
        (9, "9.0 GiB"),
        (10, "10 GiB"),
        (1023, "1023 GiB"),
        (1024, "1.0 TiB"),
        (1537, "1.5 TiB"),
        (10 << 10, "10 TiB"),
        (10752, "10 TiB"),
        (10803, "10 TiB"),
        (11776, "12 TiB"),
        (10200, "10 TiB"),
        (1 << 20, "1.0 PiB"),
        (1 << 30, "1.0 EiB"),
    ] {
        assert_eq!(written(gib * GIB), expected, "{gib}");
    }
    for (bytes, expected) in [
        (0, "0 B"),
        (9, "9 B"),
        (4096, "4.0 KiB"),
        (8 << 20, "8.0 MiB"),
        (500_002_816, "477 MiB"),
        (GIB + GIB / 2, "1.5 GiB"),
        (GIB + 4096, "1.0 GiB"),
        (u64::MAX, "16 EiB"),
    ] {
        assert_eq!(written(bytes), expected, "{bytes}");
    }
}

proptest! {
    #[test]
    fn a_larger_size_is_never_written_as_a_smaller_one(bytes: u64, more: u64) {
        let number = |bytes: u64| {
            let text = written(bytes);
            let (number, unit) = text.split_once(' ').expect("a unit");
            let power = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter().position(|it| *it == unit).expect("a known one");
            number.parse::<f64>().expect("a number") * 1024_f64.powi(i32::try_from(power).expect("a few"))
        };
        prop_assert!(number(bytes) <= number(bytes.saturating_add(more)));
    }
}
