//! What a record says, what its seal keeps out, and what a retry may ask.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::testing::{claim, entries};
use crate::volume::{Source, VolumeAccessMode};

const GIB: u64 = 1 << 30;

fn key() -> RecordKey {
    RecordKey::from([7; 32])
}

fn capability(access_mode: VolumeAccessMode, flags: &[&str]) -> Capability {
    Capability { access_mode, mount_flags: flags.iter().map(ToString::to_string).collect() }
}

fn asked() -> Asked {
    Asked {
        name: "pvc-1".into(),
        required_bytes: Some(GIB + 1),
        limit_bytes: None,
        capabilities: vec![capability(VolumeAccessMode::MultiNodeMultiWriter, &["writeback", "subdir=/t"])],
        parameters: entries(&[("pool", "fast")]),
        mutable_parameters: entries(&[]),
        source: None,
    }
}

fn place() -> Place {
    let directory = "/t/shop/orders".parse().expect("a directory");
    let named_by = NamedBy::Policy("teams".into());
    Place {
        directory,
        shared: true,
        named_by,
        quota: None,
        warnings: vec!["x".into()],
        notes: vec!["y".into()],
        monitored: vec![],
    }
}

/// Its size is whole GiB, as the first Pith made them.
fn begun(asked: Asked) -> Record {
    let size = capacity(asked.required_bytes, asked.limit_bytes).expect("a size").next_multiple_of(GIB);
    Record::begin("blue", "n-1".into(), asked, Some(ClaimName::from(&claim("orders"))), place(), size)
}

fn record() -> Record {
    begun(asked())
}

/// A record as it lies in the file system, in this format and under this seal.
fn written(format: u64, seal: &str) -> String {
    [
        &format!("pith-record {format} {seal}\n"),
        r#"{"format":"#,
        &format.to_string(),
        r#","record":{"cluster":"blue","id":"pvc-1","nonce":"n-1","asked":{"name":"pvc-1","#,
        r#""requiredBytes":1073741825,"limitBytes":null,"#,
        r#""capabilities":[{"accessMode":"MULTI_NODE_MULTI_WRITER","mountFlags":["writeback","subdir=/t"]}],"#,
        r#""parameters":{"pool":"fast"}},"claim":{"namespace":"shop","name":"orders"},"#,
        r#""directory":["t","shop","orders"],"#,
        r#""shared":true,"namedBy":{"policy":"teams"},"capacityBytes":2147483648,"state":"creating","generation":1}}"#,
    ]
    .concat()
}

/// To the byte: what one version wrote, every later one reads. The seals were made with another program.
#[test]
fn a_record_is_a_seal_and_json() {
    let old = written(1, "d2cc402c0e21a0a8699a404f0d203e2531b3704d69d7b791856c2e8b3d49c041");
    assert_eq!(Record::open(old.as_bytes(), &key()), Ok(record()));
    let written = written(2, "846e73e9ec8798ccdbf452f1fa97c2a04cdcd82a686baca1d842a7bf5fd96a7d");
    assert_eq!(String::from_utf8(record().seal(&key())).expect("text"), written);
    assert_eq!(Record::open(written.as_bytes(), &key()), Ok(record()));
    let other = Record { claim: None, named_by: NamedBy::VolumeName, ..record().deleting("pvc-1.x", 7) };
    let text = String::from_utf8(other.seal(&key())).expect("text");
    assert!(text.contains(r#""claim":null,"#) && text.contains(r#""namedBy":"volumeName","#), "{text}");
    assert!(text.contains(r#""state":{"deleting":{"trash":"pvc-1.x","at":7}},"generation":2"#), "{text}");
    // Written in the oldest format that has all of it.
    let changeable = Asked { mutable_parameters: entries(&[("inodes", "5")]), ..asked() };
    let changed =
        begun(changeable).ready().modified(&entries(&[("trashDays", "3")])).expect("it can be").expect("another");
    let text = String::from_utf8(changed.seal(&key())).expect("text");
    assert!(text.starts_with("pith-record 3 ") && text.contains(r#"{"format":3,"record":"#), "{text}");
    assert!(text.contains(r#""parameters":{"pool":"fast"},"mutableParameters":{"inodes":"5"}},"#), "{text}");
    assert!(text.contains(r#""capacityBytes":2147483648,"modified":{"trashDays":"3"},"state":"ready","#), "{text}");
    assert_eq!(Record::open(text.as_bytes(), &key()), Ok(changed));
    let unbounded = Record { quota: Some(Quota::Off), ..record() };
    let text = String::from_utf8(unbounded.seal(&key())).expect("text");
    assert!(text.starts_with("pith-record 3 ") && text.contains(r#","quota":"off","capacityBytes":"#), "{text}");
    assert_eq!(Record::open(text.as_bytes(), &key()), Ok(unbounded));
    // And of what it starts with.
    let source = Some(Source::Snapshot("s-1".into()));
    let snapshot = Record::snapshot("prod", "n-7".into(), asked_of_volume("s-1"), &record(), 9);
    let restored = begun(Asked { source, ..asked() }).starting_with(&snapshot);
    for (record, expected) in [
        (
            snapshot,
            r#""source":{"volume":"pvc-1"}},"claim":{"namespace":"shop","name":"orders"},"directory":["t","shop","orders"],"#,
        ),
        (
            restored,
            r#""source":{"snapshot":"s-1"}},"claim":{"namespace":"shop","name":"orders"},"directory":["t","shop","orders"],"#,
        ),
    ] {
        let text = String::from_utf8(record.seal(&key())).expect("text");
        assert!(text.starts_with("pith-record 4 ") && text.contains(expected), "{text}");
        assert_eq!(Record::open(text.as_bytes(), &key()), Ok(record));
    }
    // The first Pith did not say when.
    let untimed = Record { state: State::Deleting(Trashed { trash: "pvc-1.x".into(), at: None }), ..record() };
    let text = String::from_utf8(untimed.seal(&key())).expect("text");
    assert!(text.contains(r#""state":{"deleting":{"trash":"pvc-1.x"}},"#), "{text}");
    assert_eq!(Record::open(text.as_bytes(), &key()), Ok(untimed));
}

#[test]
fn each_change_is_the_next_generation_and_changes_one_thing() {
    let first = record();
    assert_eq!((first.generation, &first.state, first.id.as_str()), (1, &State::Creating, "pvc-1"));
    let ready = first.ready();
    assert_eq!(ready, Record { state: State::Ready, ..first.clone() });
    let resized = ready.resized(3 * GIB);
    assert_eq!(resized, Record { generation: 2, capacity_bytes: 3 * GIB, ..ready.clone() });
    let trash = State::Deleting(Trashed { trash: "pvc-1.x".into(), at: Some(7) });
    assert_eq!(resized.deleting("pvc-1.x", 7), Record { generation: 3, state: trash, ..resized.clone() });
    assert_eq!(begun(Asked { name: "a/b".into(), ..asked() }).id, id("a/b"));
}

#[track_caller]
fn check_open(bytes: &[u8], expected: &str) {
    let problem = Record::open(bytes, &key()).expect_err("a problem");
    assert_eq!(problem.to_string(), expected, "{}", String::from_utf8_lossy(bytes));
}

/// Whatever JSON, under a good seal.
fn sealed(json: &str) -> Vec<u8> {
    let mac = hex::encode(key().mac(json.as_bytes()).finalize().into_bytes());
    format!("pith-record 2 {mac}\n{json}").into_bytes()
}

#[test]
fn what_is_no_record_of_ours_says_why() {
    check_open(b"", "it is torn, or no record: it has no first line");
    check_open(b"pith-record 1", "it is torn, or no record: it has no first line");
    check_open(b"\n{}", "it is torn, or no record: its first line is not that of a record");
    check_open(b"\xff\n{}", "it is torn, or no record: its first line is not that of a record");
    check_open(b"pith-record 1\n{}", "it is torn, or no record: its first line is not that of a record");
    check_open(b"pith-record x 00\n{}", "it is torn, or no record: its format is no number");
    check_open(b"pith-record 0 00\n{}", "it is torn, or no record: its format is 0");
    check_open(b"pith-record 1 0\n{}", "it is torn, or no record: its seal is not written in hexadecimal");
    check_open(b"pith-record 1 AA\n{}", "it is torn, or no record: its seal is not written in hexadecimal");
    let newer = "it was made by a newer Pith, in the format 5: upgrade this one";
    check_open(b"pith-record 5 00\n{}", newer);
    check_open(&sealed(r#"{"format":5,"anything":[]}"#), newer);
    // The format in the first line is not sealed, so it must be that of what is.
    check_open(&sealed(r#"{"format":1,"record":{}}"#), "it is torn, or no record: its first line has another format");
    let unsealed = "its seal does not fit: somebody changed or cut it, or it was sealed with another key";
    check_open(b"pith-record 1 00\n{}", unsealed);
    check_open(b"pith-record 2 00\n{}", unsealed);
    check_open(&record().seal(&RecordKey::from([8; 32])), unsealed);
    check_open(&sealed("{}"), "it is torn, or no record: missing field `format` at line 1 column 2");
    let whole = String::from_utf8(record().seal(&key())).expect("text");
    let json = whole.split_once('\n').expect("two lines").1;
    assert_eq!(Record::open(&sealed(json), &key()), Ok(record()));
    for (from, to) in [
        (r#""cluster":"#, r#""color":1,"cluster":"#),
        (r#""format":2"#, r#""format":2,"color":1"#),
        (r#"["t","shop","orders"]"#, r#"["t",".."]"#),
        (r#"["t","shop","orders"]"#, "[]"),
        (r#""creating""#, r#""created""#),
        (r#""creating""#, r#"{"deleting":{"trash":"x","color":1}}"#),
        (r#""generation":1"#, r#""generation":-1"#),
        (r#","generation":1"#, ""),
    ] {
        let changed = json.replace(from, to);
        assert_ne!(changed, json, "{from}");
        let problem = Record::open(&sealed(&changed), &key()).expect_err("a problem");
        assert!(matches!(problem, RecordProblem::Malformed(_)), "{to}: {problem}");
    }
}

#[test]
fn a_record_counts_only_in_its_cluster_and_its_place() {
    let record = record();
    assert_eq!(record.check_owner("blue"), Ok(()));
    let problem = record.check_owner("green").expect_err("a problem").to_string();
    assert_eq!(problem, "it belongs to the cluster `blue`, and this is `green`");
    assert_eq!(record.check_place("pvc-1", 1), Ok(()));
    for (id, generation) in [("pvc-2", 1), ("pvc-1", 2)] {
        let problem = record.check_place(id, generation).expect_err("a problem").to_string();
        assert_eq!(problem, "it is generation 1 of volume `pvc-1`, and does not belong there");
    }
}

/// To the byte, as with records. The mark was made with another program.
#[test]
fn only_its_own_mark_makes_a_record_ready() {
    let mark = "abdf92d07634b17b44378458b01a16e037dda53b81a8e8418b6f6023c236f364";
    assert_eq!(record().mark(&key()), mark);
    let state = |record: Record, marks: &[&str]| record.marked(marks.iter().copied(), &key()).state;
    let garbage = ["", "x", "00", &mark[..62], &format!("{mark}00"), &format!("{mark}x")];
    assert_eq!(state(record(), &[mark]), State::Ready);
    assert_eq!(state(record(), &[&garbage[..], &[mark]].concat()), State::Ready);
    assert_eq!(state(record(), &garbage), State::Creating);

    let seal = String::from_utf8(record().seal(&key())).expect("text")["pith-record 2 ".len()..][..64].to_string();
    let others = [
        record().mark(&RecordKey::from([8; 32])),
        Record { cluster: "green".into(), ..record() }.mark(&key()),
        Record { id: "pvc-2".into(), ..record() }.mark(&key()),
        Record { nonce: "n-2".into(), ..record() }.mark(&key()),
        Record { generation: 2, ..record() }.mark(&key()),
        // What could be moved from one word to the next is another list.
        Record { cluster: "blue\",\"pvc".into(), id: "-1".into(), ..record() }.mark(&key()),
        seal,
    ];
    for other in &others {
        assert_eq!(state(record(), &[other.as_str()]), State::Creating, "{other}");
    }
    // A deleted volume stays deleted.
    let deleting = record().deleting("pvc-1.x", 7);
    let own = deleting.mark(&key());
    assert_eq!(state(deleting.clone(), &[mark, own.as_str()]), deleting.state);
}

#[test]
fn a_key_is_never_shown() {
    assert_eq!(format!("{:?}", key()), "RecordKey");
}

#[test]
fn a_node_is_told_the_parameters_and_where_the_volume_lies_below_subdir() {
    let check = |record: &Record, expected: &[(&str, &str)]| {
        assert_eq!(record.volume_context(), entries(expected));
    };
    let size = (2 * GIB).to_string();
    let expected = [("pool", "fast"), ("subPath", "shop/orders"), ("capacity", size.as_str())];
    check(&record(), &expected);
    // The same for as long as it lives.
    let whole = begun(Asked { required_bytes: Some(2 * GIB), ..asked() });
    check(&whole, &expected);
    check(&whole.ready().resized(9 * GIB), &expected);
    let parameters = entries(&[("subPath", "x"), ("capacity", "1"), ("mountOptions", "subdir=t/shop")]);
    let capabilities = Vec::new();
    let unbounded = Asked { required_bytes: None, parameters, capabilities, ..asked() };
    check(&begun(unbounded), &[("mountOptions", "subdir=t/shop"), ("subPath", "orders")]);
    let no_subdir = Asked { required_bytes: None, capabilities: vec![], ..asked() };
    check(&begun(no_subdir), &[("pool", "fast"), ("subPath", "t/shop/orders")]);
}

/// What is said about a volume of 2 GiB (or after `change`) of which this is asked.
#[track_caller]
fn check_compare(record: &Record, asked: Asked, expected: Option<(&str, &str)>) {
    let found = compare(record, &asked).err();
    let sentence = expected.map(|(field, rest)| {
        format!("volume `pvc-1` exists already, and not as it is asked now: {field} is {rest} is asked")
    });
    assert_eq!(found.as_ref().map(|it| it.field.as_str()), expected.map(|(field, _)| field));
    assert_eq!(found.map(|it| it.to_string()), sentence, "{asked:?}");
}

#[test]
fn the_same_request_always_fits() {
    for record in [record(), record().ready(), record().ready().resized(9 * GIB)] {
        check_compare(&record, asked(), None);
    }
    let limited = Asked { limit_bytes: Some(3 * GIB), ..asked() };
    check_compare(&begun(limited.clone()).resized(9 * GIB), limited, None);
    let unbounded = Asked { required_bytes: None, ..asked() };
    check_compare(&begun(unbounded.clone()), unbounded.clone(), None);
    check_compare(
        &begun(unbounded.clone()),
        Asked { required_bytes: Some(0), limit_bytes: Some(0), ..unbounded },
        None,
    );
}

/// What a snapshot of `pvc-1` is asked with.
fn asked_of_volume(name: &str) -> Asked {
    Asked {
        name: name.into(),
        required_bytes: None,
        limit_bytes: None,
        capabilities: Vec::new(),
        parameters: entries(&[]),
        mutable_parameters: entries(&[]),
        source: Some(Source::Volume("pvc-1".into())),
    }
}

#[test]
fn a_snapshot_is_no_volume_and_of_one_that_is_there() {
    let volume = record().ready();
    let snapshot = Record::snapshot("prod", "n-7".into(), asked_of_volume("pvc-1"), &volume, 9);
    assert_eq!((snapshot.is_snapshot(), volume.is_snapshot()), (true, false));
    let misplaced = "it is generation 1 of volume `pvc-1`, and does not belong there";
    for (record, of_snapshots, expected) in [
        (&snapshot, true, None),
        (&snapshot, false, Some(misplaced)),
        (&volume, false, None),
        (&volume, true, Some(misplaced)),
    ] {
        assert_eq!(record.check_kind(of_snapshots).err().map(|it| it.to_string()).as_deref(), expected);
    }
    assert!(volume.is_origin_of(&snapshot));
    assert!(!record().is_origin_of(&snapshot), "it is being made");
    assert!(!volume.deleting("x", 1).is_origin_of(&snapshot), "its data may be gone");
    assert!(
        !Record { nonce: "n-8".into(), ..volume.clone() }.is_origin_of(&snapshot),
        "it is another one of that name"
    );
    assert!(!volume.is_origin_of(&volume));
}

#[test]
fn a_clones_mark_is_for_one_clone_of_one_record() {
    let record = record();
    let mark = record.clone_mark("a", &key());
    assert!(record.is_clone_mark("a", &mark, &key()));
    assert!(!record.is_clone_mark("b", &mark, &key()));
    assert!(!Record { nonce: "n-8".into(), ..record.clone() }.is_clone_mark("a", &mark, &key()));
    assert!(!record.is_clone_mark("a", &record.mark(&key()), &key()));
    assert!(!record.is_clone_mark("a", "x", &key()));
}

#[test]
fn what_it_starts_with_must_be_the_same() {
    let with = |source| Asked { source, ..asked() };
    let of = |id: &str| Some(Source::Snapshot(id.into()));
    check_compare(&begun(with(of("s-1"))), with(of("s-1")), None);
    check_compare(
        &begun(with(of("s-1"))),
        with(of("s-2")),
        Some(("content_source", "snapshot `s-1`, and snapshot `s-2`")),
    );
    check_compare(&begun(with(of("s-1"))), with(None), Some(("content_source", "snapshot `s-1`, and nothing")));
    check_compare(
        &record(),
        with(Some(Source::Volume("v".into()))),
        Some(("content_source", "nothing, and volume `v`")),
    );
}

#[test]
fn parameters_must_be_the_same() {
    let with = |parameters: &[(&str, &str)]| Asked { parameters: entries(parameters), ..asked() };
    check_compare(&record(), with(&[("pool", "slow")]), Some(("parameters.pool", "`fast`, and `slow`")));
    check_compare(&record(), with(&[]), Some(("parameters.pool", "`fast`, and not there")));
    let more = [("pool", "fast"), ("a", "")];
    check_compare(&record(), with(&more), Some(("parameters.a", "not there, and ``")));
    // Those that can be changed as they were first asked, whatever they are now.
    let with = |mutable: &[(&str, &str)]| Asked { mutable_parameters: entries(mutable), ..asked() };
    let changed = begun(with(&[("inodes", "5")])).ready().modified(&entries(&[("inodes", "7")]));
    let changed = changed.expect("it can be").expect("another");
    check_compare(&changed, with(&[("inodes", "5")]), None);
    check_compare(&changed, with(&[("inodes", "7")]), Some(("mutable_parameters.inodes", "`5`, and `7`")));
    check_compare(&changed, with(&[]), Some(("mutable_parameters.inodes", "`5`, and not there")));
}

#[test]
fn capabilities_must_be_the_same_in_any_order_and_flags_are_not_shown() {
    use VolumeAccessMode::{MultiNodeMultiWriter as Many, SingleNodeWriter as One};
    let with = |capabilities: &[Capability]| Asked { capabilities: capabilities.to_vec(), ..asked() };
    let [many, one] = [capability(Many, &["a"]), capability(One, &["secret=1"])];
    let record = begun(with(&[many.clone(), one.clone()]));
    check_compare(&record, with(&[one.clone(), many.clone(), one.clone()]), None);
    let both = "MULTI_NODE_MULTI_WRITER and SINGLE_NODE_WRITER";
    let less = format!("{both}, and SINGLE_NODE_WRITER");
    check_compare(&record, with(std::slice::from_ref(&one)), Some(("capabilities", &less)));
    let flags = format!("{both}, and the same with other mount flags");
    check_compare(&record, with(&[many, capability(One, &["secret=2"])]), Some(("capabilities", &flags)));
}

#[test]
fn a_size_fits_where_the_volume_has_it() {
    let with = |required_bytes, limit_bytes| Asked { required_bytes, limit_bytes, ..asked() };
    let [g1, g2, g3] = [1, 2, 3].map(|size| Some(size * GIB));
    for (required, limit) in [(g1, None), (g2, None), (g2, g2), (None, g2), (g1, g3), (Some(1), Some(u64::MAX))] {
        check_compare(&record(), with(required, limit), None);
    }
    let differs = |required, limit, text: &str| {
        let rest = format!("2147483648 bytes, and {text}");
        check_compare(&record(), with(required, limit), Some(("capacity", &rest)));
    };
    differs(g3, None, "at least 3221225472 bytes");
    differs(None, g1, "at most 1073741824 bytes");
    differs(g3, g3, "3221225472 to 3221225472 bytes");
    differs(None, None, "no size");
    let unbounded = begun(with(None, None));
    check_compare(&unbounded, with(g1, None), Some(("capacity", "without bound, and at least 1073741824 bytes")));
    check_compare(&unbounded, with(None, g1), Some(("capacity", "without bound, and at most 1073741824 bytes")));
}

#[test]
fn names_of_one_id_are_still_two_names() {
    let other = Asked { name: "pvc-2".into(), ..asked() };
    check_compare(&record(), other, Some(("name", "`pvc-1`, and `pvc-2`")));
}

fn an_asked() -> impl Strategy<Value = Asked> {
    let text = || any::<String>();
    let mode = select(vec![VolumeAccessMode::SingleNodeWriter, VolumeAccessMode::SingleNodeMultiWriter]);
    let capability =
        (mode, vec(text(), 0..3)).prop_map(|(access_mode, mount_flags)| Capability { access_mode, mount_flags });
    let sizes = (any::<Option<u64>>(), any::<Option<u64>>());
    let parameters = || btree_map(text(), text(), 0..3);
    (text(), sizes, vec(capability, 0..3), parameters(), parameters()).prop_map(
        |(name, (required_bytes, limit_bytes), capabilities, parameters, mutable_parameters)| Asked {
            name,
            required_bytes,
            limit_bytes,
            capabilities,
            parameters: parameters.into_iter().collect(),
            mutable_parameters: mutable_parameters.into_iter().collect(),
            source: None,
        },
    )
}

fn a_record() -> impl Strategy<Value = Record> {
    let claim = option::of((any::<String>(), any::<String>()))
        .prop_map(|it| it.map(|(namespace, name)| ClaimName { namespace, name }));
    (an_asked(), claim, any::<u64>(), any::<String>()).prop_map(|(asked, claim, size, trash)| {
        let record = Record::begin("blue", "n-1".into(), asked, claim, place(), size);
        if trash.len() % 2 == 0 { record.deleting(&trash, 7) } else { record }
    })
}

proptest! {
    #[test]
    fn what_is_sealed_opens_as_it_was(record in a_record()) {
        prop_assert_eq!(Record::open(&record.seal(&key()), &key()), Ok(record.clone()));
        prop_assert_eq!(compare(&record, &record.asked), Ok(()));
    }

    #[test]
    fn one_changed_byte_is_refused(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = record().seal(&key());
        let place = place.index(bytes.len());
        if bytes[place] != byte {
            bytes[place] = byte;
            prop_assert!(Record::open(&bytes, &key()).is_err());
        }
    }

    #[test]
    fn a_record_cut_short_or_with_more_behind_is_refused(
        place in any::<prop::sample::Index>(),
        more in vec(any::<u8>(), 1..9),
    ) {
        let bytes = record().seal(&key());
        prop_assert!(Record::open(&bytes[..place.index(bytes.len())], &key()).is_err());
        prop_assert!(Record::open(&[bytes, more].concat(), &key()).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200), json in "\\PC{0,99}") {
        prop_assert!(Record::open(&bytes, &key()).is_err());
        prop_assert!(Record::open(&sealed(&json), &key()).is_err());
    }
}
