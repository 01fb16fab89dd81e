use super::*;

use pith_core::policy::Failure;
use pith_core::reason::PolicyFailure;
use pith_core::volume::{Difference, Directory, NamedBy, Place, SizeProblem};

use crate::csi::proto::volume_capability::{AccessMode, BlockVolume, MountVolume};
use crate::csi::proto::{VolumeContentSource, volume_content_source};

fn entries<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.map(|(key, value)| (key.to_string(), value.to_string())).into()
}

fn mount(mode: Mode) -> VolumeCapability {
    let mount =
        MountVolume { fs_type: "juicefs".into(), mount_flags: vec!["cache-size=1".into()], ..Default::default() };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

fn request() -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: "pvc-1".into(),
        volume_capabilities: vec![mount(Mode::MultiNodeMultiWriter)],
        parameters: entries([("juicefs/mount-cpu-limit", "2")]),
        secrets: entries([("metaurl", "redis://:canary@host")]),
        ..CreateVolumeRequest::default()
    }
}

fn record() -> Record {
    let asked = create(request()).expect("it is well formed").asked;
    let directory = Directory::new(vec!["pvc-1".into()]).expect("a plain name");
    let place = Place {
        directory,
        shared: false,
        named_by: NamedBy::VolumeName,
        quota: None,
        warnings: Vec::new(),
        notes: Vec::new(),
        monitored: Vec::new(),
    };
    Record::begin("test", "n-1".into(), asked, None, place, 0).ready()
}

#[track_caller]
fn check_invalid(change: impl FnOnce(&mut CreateVolumeRequest), expected: &str) {
    let mut request = request();
    change(&mut request);
    let status = Status::from(create(request).expect_err("it must be refused"));
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, expected));
}

#[test]
fn a_request_is_taken_apart() {
    let mut request = request();
    request.capacity_range = Some(CapacityRange { required_bytes: 5, limit_bytes: 0 });
    request.parameters.extend(entries([
        ("csi.storage.k8s.io/pvc/name", "data"),
        ("csi.storage.k8s.io/pvc/namespace", "shop"),
        ("csi.storage.k8s.io/pv/name", "pvc-1"),
        ("csi.storage.k8s.io/fstype", "ext4"),
        ("pathPattern", "a"),
    ]));
    let made = create(request).expect("it is well formed");
    assert_eq!(made.claim.map(|claim| claim.to_string()), Some("shop/data".to_string()));
    assert_eq!(
        made.asked.parameters,
        entries([("juicefs/mount-cpu-limit", "2"), ("pathPattern", "a")]).into_iter().collect()
    );
    assert_eq!((made.asked.name.as_str(), made.asked.required_bytes, made.asked.limit_bytes), ("pvc-1", Some(5), None));
    let (access_mode, mount_flags) = (VolumeAccessMode::MultiNodeMultiWriter, vec!["cache-size=1".to_string()]);
    assert_eq!(made.asked.capabilities, [Capability { access_mode, mount_flags }]);
    assert_eq!(made.secrets.reveal()["metaurl"], "redis://:canary@host");
}

#[test]
fn a_claim_that_is_half_named_is_none() {
    let mut request = request();
    request.parameters = entries([("csi.storage.k8s.io/pvc/name", "data")]);
    let made = create(request).expect("it is well formed");
    assert_eq!(made.claim, None);
    assert!(made.asked.parameters.is_empty());
}

#[test]
fn every_access_mode_is_taken() {
    for (mode, name) in (1..8).map(|number| (Mode::try_from(number).expect("it is known"), number)) {
        let capability = capability(mount(mode)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(capability.access_mode.as_str(), mode.as_str_name());
    }
}

#[test]
fn what_breaks_a_rule_of_csi_is_invalid() {
    check_invalid(|it| it.name.clear(), "name is missing");
    check_invalid(|it| it.name = "ä".repeat(65), "name has 130 bytes, and CSI allows 128");
    check_invalid(|it| it.name = "a\u{0}".into(), "name has the control character U+0000, which CSI forbids");
    check_invalid(|it| it.name = "a\u{85}".into(), "name has the control character U+0085, which CSI forbids");
    check_invalid(
        |it| it.volume_capabilities.clear(),
        "volume_capabilities is missing: say how the volume is to be used",
    );
    let alter =
        |it: &mut CreateVolumeRequest, change: &dyn Fn(&mut VolumeCapability)| change(&mut it.volume_capabilities[0]);
    check_invalid(|it| alter(it, &|it| it.access_mode = None), "a capability does not say its access mode");
    check_invalid(
        |it| alter(it, &|it| it.access_mode = Some(AccessMode { mode: 0 })),
        "a capability does not say its access mode",
    );
    check_invalid(
        |it| alter(it, &|it| it.access_mode = Some(AccessMode { mode: 99 })),
        "a capability has the unknown access mode 99",
    );
    check_invalid(
        |it| alter(it, &|it| it.access_type = None),
        "a capability does not say whether it is a mount or a block device",
    );
    let range = |required_bytes, limit_bytes| Some(CapacityRange { required_bytes, limit_bytes });
    check_invalid(|it| it.capacity_range = range(-1, 0), "capacity_range.required_bytes is negative");
    check_invalid(|it| it.capacity_range = range(0, i64::MIN), "capacity_range.limit_bytes is negative");
    check_invalid(
        |it| it.capacity_range = range(2, 1),
        "capacity_range asks for at least 2 and at most 1 bytes, which no size fits",
    );
    check_invalid(
        |it| it.parameters = entries([("a", "b".repeat(4096).as_str())]),
        "parameters have 4097 bytes, and CSI allows 4096",
    );
    let flags = MountVolume { mount_flags: vec!["f".repeat(2049), "g".repeat(2048)], ..MountVolume::default() };
    check_invalid(
        |it| alter(it, &|it| it.access_type = Some(AccessType::Mount(flags.clone()))),
        "mount_flags have 4097 bytes, and CSI allows 4096",
    );
    check_invalid(
        |it| it.mutable_parameters = entries([("a", "b".repeat(4096).as_str())]),
        "mutable_parameters have 4097 bytes, and CSI allows 4096",
    );
}

#[test]
fn what_is_not_declared_is_invalid() {
    check_invalid(
        |it| it.volume_capabilities[0].access_type = Some(AccessType::Block(BlockVolume {})),
        "JuiceFS has no block volumes: a claim needs volumeMode: Filesystem",
    );
    let grouped = MountVolume { volume_mount_group: "100".into(), ..MountVolume::default() };
    check_invalid(
        |it| it.volume_capabilities[0].access_type = Some(AccessType::Mount(grouped)),
        "volume_mount_group is not declared",
    );
}

#[test]
fn what_a_volume_starts_with_is_named_and_echoed() {
    use volume_content_source::{SnapshotSource, Type, VolumeSource};
    let of = |kind| Some(VolumeContentSource { r#type: kind });
    let nothing = "volume_content_source names neither a snapshot nor a volume";
    check_invalid(|it| it.volume_content_source = of(None), nothing);
    let [snapshot, volume] = ["", "x"].map(|id| {
        let snapshot = Type::Snapshot(SnapshotSource { snapshot_id: id.into() });
        (snapshot, Type::Volume(VolumeSource { volume_id: id.into() }))
    });
    let missing = "volume_content_source.snapshot.snapshot_id is missing";
    check_invalid(|it| it.volume_content_source = of(Some(snapshot.0)), missing);
    let missing = "volume_content_source.volume.volume_id is missing";
    check_invalid(|it| it.volume_content_source = of(Some(snapshot.1)), missing);
    for kind in [volume.0, volume.1] {
        let mut request = request();
        request.volume_content_source = of(Some(kind.clone()));
        let asked = create(request).expect("it is well formed").asked;
        let record = Record { asked, ..record() };
        assert!(created(&record).volume.expect("a volume").content_source == of(Some(kind)));
    }
}

#[test]
fn what_csi_allows_is_taken() {
    let check = |change: &dyn Fn(&mut CreateVolumeRequest)| {
        let mut request = request();
        change(&mut request);
        create(request).expect("it is well formed");
    };
    check(&|it| it.name = "../a/b\t\u{1F980}\n".into());
    check(&|it| it.name = "n".repeat(128));
    check(&|it| it.capacity_range = Some(CapacityRange { required_bytes: 0, limit_bytes: 0 }));
    check(&|it| it.capacity_range = Some(CapacityRange { required_bytes: 1, limit_bytes: 1 }));
    check(&|it| it.secrets.clear());
    check(&|it| it.accessibility_requirements = Some(Default::default()));
}

#[test]
fn a_record_becomes_the_same_answer_every_time() {
    let mut record = record();
    record.capacity_bytes = 3 << 30;
    let volume = created(&record).volume.expect("a volume");
    assert_eq!((volume.volume_id.as_str(), volume.capacity_bytes), ("pvc-1", 3 << 30));
    assert_eq!(volume.volume_context, entries([("juicefs/mount-cpu-limit", "2"), ("subPath", "pvc-1")]));
    assert!(volume.content_source.is_none() && volume.accessible_topology.is_empty());
    assert!(created(&record) == created(&record.resized(9 << 30).resized(3 << 30)));
}

#[test]
fn an_expansion_says_how_large() {
    let request = |range: Option<(i64, i64)>| ControllerExpandVolumeRequest {
        volume_id: "pvc-1".into(),
        capacity_range: range.map(|(required_bytes, limit_bytes)| CapacityRange { required_bytes, limit_bytes }),
        ..ControllerExpandVolumeRequest::default()
    };
    let bounds = |range| expand(request(range)).map(|it| (it.required, it.limit)).map_err(|error| error.to_string());
    let missing = Err("capacity_range is missing: say how large the volume is to be".to_string());
    assert_eq!(bounds(None), missing);
    assert_eq!(bounds(Some((0, 0))), missing);
    assert_eq!(bounds(Some((7, 0))), Ok((Some(7), None)));
    assert_eq!(bounds(Some((0, 7))), Ok((None, Some(7))));
    let unnamed = ControllerExpandVolumeRequest { volume_id: String::new(), ..request(Some((7, 0))) };
    assert_eq!(expand(unnamed).map_err(|error| error.to_string()), Err("volume_id is missing".into()));
    assert_eq!(expanded(7 << 30).capacity_bytes, 7 << 30);
    assert!(!expanded(7 << 30).node_expansion_required);
}

#[test]
fn what_fits_the_volume_is_confirmed_and_repeated() {
    let asked = ValidateVolumeCapabilitiesRequest {
        volume_id: "pvc-1".into(),
        volume_capabilities: vec![mount(Mode::SingleNodeWriter)],
        ..ValidateVolumeCapabilitiesRequest::default()
    };
    let check = |change: &dyn Fn(&mut ValidateVolumeCapabilitiesRequest), expected: &str| {
        let mut request = asked.clone();
        change(&mut request);
        let answer = validated(validate(request.clone()).expect("it is well formed"), &record());
        assert_eq!(answer.message, expected);
        match answer.confirmed {
            Some(confirmed) => {
                assert_eq!(expected, "");
                assert!(confirmed.volume_capabilities == request.volume_capabilities);
                assert_eq!(confirmed.volume_context, request.volume_context);
                assert_eq!(confirmed.parameters, request.parameters);
            }
            None => assert_ne!(expected, ""),
        }
    };
    check(&|_| {}, "");
    check(&|it| it.volume_context = record().volume_context().into_iter().collect(), "");
    check(&|it| it.parameters = request().parameters, "");
    check(
        &|it| it.volume_context = entries([("subPath", "elsewhere")]),
        "volume_context is not the one that CreateVolume answered with",
    );
    check(
        &|it| it.parameters = entries([("juicefs/mount-cpu-limit", "3")]),
        "parameters are not the ones that the volume was made with",
    );
    check(
        &|it| it.volume_capabilities[0].access_type = Some(AccessType::Block(BlockVolume {})),
        "JuiceFS has no block volumes: a claim needs volumeMode: Filesystem",
    );
    check(
        &|it| it.mutable_parameters = entries([("inodes", "5")]),
        "mutable_parameters are not the ones that the volume has: `inodes` is another",
    );
}

#[test]
fn a_question_about_nothing_is_invalid() {
    let error = |request| validate(request).map(drop).map_err(|error| error.to_string());
    let request = ValidateVolumeCapabilitiesRequest::default();
    assert_eq!(error(request.clone()), Err("volume_id is missing".into()));
    let request = ValidateVolumeCapabilitiesRequest { volume_id: "a".into(), ..request };
    let expected = "volume_capabilities is missing: say how the volume is to be used";
    assert_eq!(error(request), Err(expected.into()));
    assert_eq!(
        delete(DeleteVolumeRequest::default()).map_err(|error| error.to_string()),
        Err("volume_id is missing".into())
    );
}

#[test]
fn an_error_has_the_code_that_says_whether_something_may_exist() {
    let check = |error: VolumeError, expected: Code| {
        let status = Status::from(error);
        assert_eq!(status.code(), expected, "{}", status.message());
        assert!(status.details().is_empty(), "CSI wants no details");
    };
    let difference = Difference { what: "volume `a`".into(), field: "name".into(), was: "b".into(), is: "c".into() };
    check(difference.into(), Code::AlreadyExists);
    check(VolumeError::NotFound("a".into()), Code::NotFound);
    check(VolumeError::InvalidArgument("a".into()), Code::InvalidArgument);
    check(SizeProblem::TooLarge(1).into(), Code::OutOfRange);
    check(VolumeError::FailedPrecondition("a".into()), Code::FailedPrecondition);
    check(VolumeError::Internal("a".into()), Code::Internal);
    // The two that are asked again when the claim is gone.
    check(VolumeError::Aborted("a".into()), Code::Aborted);
    check(VolumeError::Unavailable("a".into()), Code::Unavailable);
    // Refusals: nothing was written.
    let refused = |refusal: VolumeRefusal, code| check(refusal.into(), code);
    refused(VolumeRefusal::Denied { binding: "a".into(), sentence: "b".into() }, Code::PermissionDenied);
    refused(VolumeRefusal::Subdir("a".into()), Code::InvalidArgument);
    refused(VolumeRefusal::Pattern { pattern: "a".into(), why: "b".into() }, Code::InvalidArgument);
    refused(SizeProblem::TooLarge(1).into(), Code::OutOfRange);
    let failure = PolicyFailure { binding: "a".into(), failure: Failure::Host("b".into()) };
    refused(failure.into(), Code::Internal);
}

#[test]
fn a_sentence_has_a_bound() {
    let status = Status::from(VolumeError::Internal("ä".repeat(1000)));
    assert_eq!(status.message(), "ä".repeat(400));
}
