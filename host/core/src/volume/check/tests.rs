//! Each thing that can be wrong with the volumes of a file system is found, and nothing where nothing is.

use super::*;
use crate::catalogue::{CATALOGUE, Place};
use crate::object::{Claim, Object as Kept};
use crate::testing::{claim, entries, secret, volume};
use crate::volume::{Asked, NamedBy};

const DRIVER: &str = "csi.juicefs.com";
const GIB: u64 = 1 << 30;

/// What every volume's name ends in, as provisioners have it. The cases leave it out.
const UID: &str = "-00000000-0000-4000-8000-000000000000";

/// What was read, to be changed by a test.
struct World {
    records: BTreeMap<String, Read<Record, Unusable>>,
    directories: Vec<&'static str>,
    entries: Vec<(&'static str, &'static str)>,
    quotas: Read<BTreeMap<String, String>>,
    quota: Quota,
    staged: BTreeMap<String, Staged>,
    objects: Read<Objects>,
    complete: bool,
}

/// A volume that is made, of 2 GiB, in this directory.
fn record(id: &str, directory: &str) -> Record {
    let id = format!("{id}{UID}");
    Record {
        cluster: "blue".into(),
        nonce: "n-1".into(),
        asked: Asked {
            name: id.clone(),
            required_bytes: Some(2 * GIB),
            limit_bytes: None,
            capabilities: Vec::new(),
            parameters: entries(&[]),
            mutable_parameters: entries(&[]),
            source: None,
        },
        claim: None,
        directory: directory.parse().expect("a directory"),
        shared: false,
        named_by: NamedBy::VolumeName,
        quota: None,
        capacity_bytes: 2 * GIB,
        modified: entries(&[]),
        origin: None,
        cut_at: None,
        state: State::Ready,
        generation: 1,
        id,
    }
}

fn creating(id: &str) -> Record {
    Record { state: State::Creating, ..record(id, "/t/half") }
}

/// A volume as a provisioner has made it.
fn provisioned(name: &str, path: &str) -> PersistentVolume {
    PersistentVolume {
        provisioned: true,
        goes_with_claim: true,
        volume_attributes: entries(&[("subPath", path)]).into(),
        secret: Some(secret("one")),
        ..volume(&format!("{name}{UID}"))
    }
}

impl World {
    fn with_volume(&mut self, volume: PersistentVolume) {
        self.objects.as_mut().expect("they were read").insert(Kept::PersistentVolume(volume));
    }

    fn with_claim(&mut self, uid: &str) {
        let claim = Claim { uid: format!("{uid}{UID}"), ..claim(uid) };
        self.objects.as_mut().expect("they were read").insert(Kept::Claim(claim));
    }

    fn with_record(&mut self, record: Record) {
        self.records.insert(record.id.clone(), Ok(record));
    }

    fn with_unusable(&mut self, problem: RecordProblem) {
        let unusable = Unusable { path: "/.pith/volumes/pvc-b/record".into(), problem };
        self.records.insert(format!("pvc-b{UID}"), Err(unusable));
    }

    fn findings(&self) -> Vec<Finding> {
        let components = |path: &str| path.split('/').map(String::from).collect::<Vec<_>>();
        check(&Observed {
            cluster: "blue",
            driver: DRIVER,
            records: self.records.clone(),
            directories: self.directories.iter().map(|path| components(path)).collect(),
            entries: self.entries.iter().map(|(path, id)| (components(path), format!("{id}{UID}"))).collect(),
            quotas: self.quotas.clone(),
            quota: self.quota,
            quota_unit: 1,
            staged: self.staged.clone(),
            objects: self.objects.as_ref().map_err(Clone::clone),
            complete: self.complete,
            secret: None,
        })
    }
}

/// One volume, `pvc-a` in `/t/a`, and all that belongs to it.
fn healthy() -> World {
    let mut objects = Objects::default();
    objects.insert(Kept::PersistentVolume(provisioned("pvc-a", "t/a")));
    World {
        records: BTreeMap::from([(format!("pvc-a{UID}"), Ok(record("pvc-a", "/t/a")))]),
        directories: vec!["t", "t/a"],
        entries: vec![("t/a", "pvc-a")],
        quotas: Ok(BTreeMap::from([("/t/a".into(), "2.0 GiB".into())])),
        quota: Quota::On,
        staged: BTreeMap::new(),
        objects: Ok(objects),
        complete: true,
    }
}

/// What is changed, and what is found then: level, code, object, and what repairing would do.
type Case = (&'static str, fn(&mut World), &'static [&'static str]);

const CASES: &[Case] = &[
    ("a healthy file system", |_| {}, &[]),
    (
        "a forged record is left alone",
        |it| it.with_unusable(RecordProblem::NotAuthentic),
        &["error volume-record-unusable Volume pvc-b"],
    ),
    (
        "a forged record of a known volume is left alone too",
        |it| {
            it.with_unusable(RecordProblem::NotAuthentic);
            it.with_volume(provisioned("pvc-b", "t/b"));
        },
        &["error volume-record-unusable Volume pvc-b"],
    ),
    (
        "a torn record of a volume that nobody knows",
        |it| it.with_unusable(RecordProblem::Malformed("x".into())),
        &["error volume-record-unusable Volume pvc-b"],
    ),
    (
        "a torn record of a volume that says where it lies",
        |it| {
            it.with_unusable(RecordProblem::Malformed("x".into()));
            it.with_volume(provisioned("pvc-b", "t/b"));
        },
        &[
            "error volume-record-unusable Volume pvc-b => set the record of volume `pvc-b` aside, in the trash, and write it again, as its PersistentVolume has it",
        ],
    ),
    (
        "the same in files, which may be old",
        |it| {
            it.with_unusable(RecordProblem::Missing);
            it.with_volume(provisioned("pvc-b", "t/b"));
            it.complete = false;
        },
        &["error volume-record-unusable Volume pvc-b"],
    ),
    (
        "a record of a newer Pith",
        |it| {
            it.with_unusable(RecordProblem::NewerFormat(9));
            it.with_volume(provisioned("pvc-b", "t/b"));
        },
        &["error volume-record-unusable Volume pvc-b"],
    ),
    (
        "another cluster's volume is nobody's business",
        |it| {
            let problem = RecordProblem::OtherCluster { owner: "green".into(), cluster: "blue".into() };
            it.with_unusable(problem);
            it.entries.push(("t/b", "pvc-b"));
            it.directories.push("t/b");
            it.with_volume(provisioned("pvc-b", "t/b"));
        },
        &[],
    ),
    ("a directory that is gone", |it| it.directories = vec!["t"], &["error volume-directory-missing Volume pvc-a"]),
    (
        "a volume that is not in the index",
        |it| it.entries.clear(),
        &["error volume-not-entered Volume pvc-a => enter volume `pvc-a` in the index"],
    ),
    (
        "an entry of nothing",
        |it| it.entries.push(("t/b", "pvc-b")),
        &[
            "warning volume-entry-stale Volume pvc-b => remove the empty entry of volume `pvc-b` for /t/b from the index",
        ],
    ),
    (
        "an entry of a directory without a record",
        |it| {
            it.entries.push(("t/b", "pvc-b"));
            it.directories.push("t/b");
        },
        &["warning volume-entry-stale Volume pvc-b"],
    ),
    (
        "an entry at another place than the record says",
        |it| it.entries.push(("t/b", "pvc-a")),
        &[
            "warning volume-entry-stale Volume pvc-a => remove the empty entry of volume `pvc-a` for /t/b from the index",
        ],
    ),
    (
        "a quota that is missing",
        |it| it.quotas = Ok(BTreeMap::new()),
        &["warning volume-quota-wrong Volume pvc-a => set the quota of volume `pvc-a` again"],
    ),
    (
        "a quota that differs",
        |it| it.quotas = Ok(BTreeMap::from([("/t/a".into(), "3.0 GiB".into())])),
        &["warning volume-quota-wrong Volume pvc-a => set the quota of volume `pvc-a` again"],
    ),
    (
        "a quota that bounds no files",
        |it| it.with_record(Record { modified: entries(&[("inodes", "5")]), ..record("pvc-a", "/t/a") }),
        &["warning volume-quota-wrong Volume pvc-a => set the quota of volume `pvc-a` again"],
    ),
    (
        "a volume that was adopted without a quota",
        |it| {
            it.quotas = Ok(BTreeMap::new());
            it.with_record(Record { named_by: NamedBy::PersistentVolume, ..record("pvc-a", "/t/a") });
        },
        &["info volume-quota-wrong Volume pvc-a"],
    ),
    (
        "a shared directory has the quota of any of its volumes",
        |it| {
            it.with_record(Record { capacity_bytes: 5 * GIB, ..record("pvc-b", "/t/a") });
            it.with_volume(provisioned("pvc-b", "t/a"));
            it.entries.push(("t/a", "pvc-b"));
        },
        &[],
    ),
    (
        "or that of the largest",
        |it| {
            it.with_record(Record { capacity_bytes: 5 * GIB, ..record("pvc-b", "/t/a") });
            it.with_volume(provisioned("pvc-b", "t/a"));
            it.entries.push(("t/a", "pvc-b"));
            it.quotas = Ok(BTreeMap::new());
        },
        &["warning volume-quota-wrong Volume pvc-b => set the quota of volume `pvc-b` again"],
    ),
    (
        "a volume whose class enforces no size has none",
        |it| {
            it.quotas = Ok(BTreeMap::new());
            let mut record = record("pvc-a", "/t/a");
            record.asked.parameters = entries(&[("quota", "off")]);
            it.with_record(record);
        },
        &[],
    ),
    (
        "where sizes are not enforced no volume has one",
        |it| {
            it.quotas = Ok(BTreeMap::new());
            it.quota = Quota::Off;
        },
        &[],
    ),
    (
        "the driver leaves out what is no whole GiB",
        |it| {
            let size = 2 * GIB + GIB / 2;
            it.with_record(Record {
                named_by: NamedBy::PersistentVolume,
                capacity_bytes: size,
                ..record("pvc-a", "/t/a")
            });
        },
        &[],
    ),
    (
        "and sets none for less than one",
        |it| {
            it.quotas = Ok(BTreeMap::new());
            let named_by = NamedBy::PersistentVolume;
            it.with_record(Record { named_by, capacity_bytes: GIB / 2, ..record("pvc-a", "/t/a") });
        },
        &[],
    ),
    (
        "a volume without a bound has no quota",
        |it| {
            it.quotas = Ok(BTreeMap::new());
            it.with_record(Record { capacity_bytes: 0, ..record("pvc-a", "/t/a") });
        },
        &[],
    ),
    ("quotas that were not read", |it| it.quotas = Err("no".into()), &["info not-looked-at Quota "]),
    (
        "a half-made volume whose claim waits",
        |it| {
            it.with_record(creating("pvc-u"));
            it.with_claim("u");
        },
        &["warning volume-unfinished Volume pvc-u => make what is missing of volume `pvc-u`"],
    ),
    (
        "a half-made volume that nobody waits for",
        |it| it.with_record(creating("pvc-u")),
        &[
            "warning volume-unfinished Volume pvc-u => move what is there of volume `pvc-u` to the trash, as nobody waits for it",
        ],
    ),
    (
        "a half-made volume of a name that says nothing",
        |it| it.with_record(creating("mine")),
        &["warning volume-unfinished Volume mine"],
    ),
    (
        "a half-made volume, and no cluster",
        |it| {
            it.with_record(creating("pvc-u"));
            it.objects = Err("no cluster was asked".into());
        },
        &["warning volume-unfinished Volume pvc-u", "info not-looked-at PersistentVolume "],
    ),
    (
        "a deletion that was cut off",
        |it| it.with_record(record("pvc-b", "/t/b").deleting("pvc-b.x", 0)),
        &["warning volume-deletion-unfinished Volume pvc-b => move what is left of volume `pvc-b` to the trash"],
    ),
    (
        "a return from the trash that was cut off",
        |it| it.with_record(record("pvc-b", "/t/b").deleting("pvc-b.x", 0).restoring().expect("it lies in the trash")),
        &["warning volume-unfinished Volume pvc-b => go on with bringing volume `pvc-b` back from the trash"],
    ),
    (
        "what is left in the staging area",
        |it| {
            it.staged.insert("1".into(), Staged::Empty);
            it.staged.insert("2".into(), Staged::Ours("pvc-z".into()));
            it.staged.insert("3".into(), Staged::NotOurs);
        },
        &[
            "info staged-record-left Directory /.pith/staging/1 => remove /.pith/staging/1",
            "info staged-record-left Directory /.pith/staging/2 => remove /.pith/staging/2",
            "info staged-record-left Directory /.pith/staging/3",
        ],
    ),
    (
        "a directory that is nobody's",
        |it| it.directories.extend(["t/b", "u", "t/a/inside"]),
        &["info directory-unrecorded Directory /t/b", "info directory-unrecorded Directory /u"],
    ),
    (
        "a volume of the driver",
        |it| {
            it.with_volume(provisioned("pvc-b", "t//b"));
            it.directories.push("t/b");
        },
        &[
            "info volume-unrecorded PersistentVolume pvc-b => write a record for volume `pvc-b`, as its PersistentVolume has it",
        ],
    ),
    (
        "a volume of the driver that may be anywhere",
        |it| it.with_volume(provisioned("pvc-b", "../b")),
        &["info volume-unrecorded PersistentVolume pvc-b"],
    ),
    (
        "volumes that were made by hand, of the whole file system and of a directory",
        |it| {
            it.with_volume(PersistentVolume { provisioned: false, ..provisioned("mine", "") });
            it.with_volume(PersistentVolume { provisioned: false, ..provisioned("lists", "t/lists") });
            it.directories.push("t/lists");
        },
        &[],
    ),
    (
        "volumes of another file system, and of another driver",
        |it| {
            it.with_volume(PersistentVolume { secret: Some(secret("two")), ..provisioned("pvc-b", "b") });
            it.with_volume(PersistentVolume { driver: Some("other".into()), ..provisioned("pvc-c", "c") });
        },
        &["info not-looked-at PersistentVolume "],
    ),
    ("a volume that nobody has", |it| it.objects = Ok(Objects::default()), &["info volume-unclaimed Volume pvc-a"]),
];

#[test]
fn each_thing_that_is_wrong_is_found_with_what_can_be_done_and_nothing_else() {
    let mut said = BTreeSet::new();
    for (name, change, expected) in CASES {
        let mut world = healthy();
        change(&mut world);
        let findings = world.findings();
        let mut lines = Vec::new();
        for Finding { found, repair } in &findings {
            let level = match found.level {
                Level::Error => "error",
                Level::Warning => "warning",
                Level::Info => "info",
            };
            let repair = repair.as_ref().map(|it| format!(" => {it}")).unwrap_or_default();
            let line = format!("{level} {} {} {}{repair}", found.code, found.object.kind, found.object.path());
            lines.push(line.replace(UID, ""));
            let place = Place::OfVolumes(found.level);
            assert!(
                found.code.entry().places.contains(&place),
                "the catalogue does not have `{}` as {place:?}",
                found.code
            );
            assert!(
                !found.message.ends_with('.') && !found.message.starts_with(char::is_uppercase),
                "{}",
                found.message
            );
            said.insert((found.code, found.level));
        }
        assert_eq!(lines, *expected, "{name}: {findings:#?}");
    }
    for entry in CATALOGUE {
        for place in entry.places {
            if let Place::OfVolumes(level) = place {
                assert!(said.contains(&(entry.code, *level)), "nothing is found as {place:?} `{}`", entry.word);
            }
        }
    }
}
