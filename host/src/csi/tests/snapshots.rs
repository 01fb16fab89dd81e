//! The calls about snapshots, and volumes that start with something.

use super::*;
use crate::csi::proto::volume_content_source::{SnapshotSource, Type};

fn cut(name: &str, volume: &str) -> CreateSnapshotRequest {
    CreateSnapshotRequest {
        name: name.into(),
        source_volume_id: volume.into(),
        secrets: secrets(),
        ..CreateSnapshotRequest::default()
    }
}

#[tokio::test]
async fn a_snapshot_is_made_once_listed_and_removed() {
    let server = Running::start().await;
    let mut controller = server.controller().await;
    controller.create_volume(creation("pvc-1", 1)).await.expect("it is made");
    controller.create_volume(creation("pvc-2", 1)).await.expect("it is made");
    let first = controller.create_snapshot(cut("s-1", "pvc-1")).await.expect("it is made").into_inner();
    let again = controller.create_snapshot(cut("s-1", "pvc-1")).await.expect("it is found").into_inner();
    assert!(first == again);
    let snapshot = first.snapshot.expect("a snapshot");
    let time = snapshot.creation_time.as_ref().map(|time| time.seconds);
    let said = (snapshot.snapshot_id.as_str(), snapshot.source_volume_id.as_str(), snapshot.size_bytes, time);
    assert_eq!((said, snapshot.ready_to_use), (("s-1", "pvc-1", GIB, Some(1_800_000_000)), true));
    let expected = "snapshot `s-1` exists already, and not as it is asked now: content_source is volume `pvc-1`, and volume \
                    `pvc-2` is asked";
    check_error(controller.create_snapshot(cut("s-1", "pvc-2")).await, Code::AlreadyExists, expected);
    let unknown = controller.create_snapshot(cut("s-2", "pvc-9")).await;
    check_error(unknown, Code::NotFound, "there is no volume `pvc-9`");

    for name in ["s-2", "s-3"] {
        controller.create_snapshot(cut(name, "pvc-1")).await.expect("it is made");
    }
    let mut page = async |max_entries, starting_token: &str, snapshot_id: &str| {
        let request = ListSnapshotsRequest {
            max_entries,
            starting_token: starting_token.into(),
            snapshot_id: snapshot_id.into(),
            ..ListSnapshotsRequest::default()
        };
        controller.list_snapshots(request).await.map(|answer| {
            let ListSnapshotsResponse { entries, next_token } = answer.into_inner();
            let ids = entries.into_iter().map(|it| it.snapshot.expect("a snapshot").snapshot_id);
            (ids.collect::<Vec<_>>(), next_token)
        })
    };
    let pages = [page(2, "", "").await, page(2, "after/s-2", "").await, page(0, "", "s-9").await];
    let expected = [(&["s-1", "s-2"][..], "after/s-2"), (&["s-3"], ""), (&[], "")];
    for (page, (ids, token)) in pages.into_iter().zip(expected) {
        assert_eq!(page.expect("a page"), (ids.iter().map(ToString::to_string).collect(), token.to_string()));
    }
    assert_eq!(page(0, "5", "").await.err().map(|it| it.code()), Some(Code::Aborted));

    let mut get = async |id: &str| {
        let request = GetSnapshotRequest { snapshot_id: id.into(), secrets: secrets() };
        controller.get_snapshot(request).await.map(|answer| answer.into_inner().snapshot)
    };
    assert!(get("s-1").await.expect("it is there") == Some(snapshot));
    check_error(get("s-9").await, Code::NotFound, "there is no snapshot `s-9`");
    check_error(get("").await, Code::InvalidArgument, "snapshot_id is missing");
    for id in ["s-1", "s-1", "../no/id"] {
        let request = DeleteSnapshotRequest { snapshot_id: id.into(), secrets: secrets() };
        controller.delete_snapshot(request).await.expect("it is removed");
    }
    check_error(
        controller.delete_snapshot(DeleteSnapshotRequest::default()).await,
        Code::InvalidArgument,
        "snapshot_id is missing",
    );
    server.stop().await;
}

#[tokio::test]
async fn what_is_missing_in_a_request_is_named() {
    let server = Running::start().await;
    let mut controller = server.controller().await;
    check_error(controller.create_snapshot(cut("", "pvc-1")).await, Code::InvalidArgument, "name is missing");
    let missing = "source_volume_id is missing";
    check_error(controller.create_snapshot(cut("s-1", "")).await, Code::InvalidArgument, missing);
    server.volumes.can_list.store(false, Ordering::Relaxed);
    let expected = "Pith has no ListSnapshots: its capabilities do not declare it";
    check_error(controller.list_snapshots(ListSnapshotsRequest::default()).await, Code::Unimplemented, expected);
    let expected = "Pith has no GetSnapshot: its capabilities do not declare it";
    check_error(controller.get_snapshot(GetSnapshotRequest::default()).await, Code::Unimplemented, expected);
    server.stop().await;
}

#[tokio::test]
async fn a_call_for_what_is_being_cloned_says_how_far_that_is() {
    let server = Running::start().await;
    let closed = server.volumes.gate.acquire().await.expect("it is open");
    let source = SnapshotSource { snapshot_id: "s-1".into() };
    let asked = CreateVolumeRequest {
        volume_content_source: Some(VolumeContentSource { r#type: Some(Type::Snapshot(source)) }),
        ..creation("pvc-clone", 1)
    };
    let mut controller = server.controller().await;
    let mut impatient = Request::new(asked.clone());
    impatient.set_timeout(Duration::from_millis(20));
    assert!(controller.create_volume(impatient).await.is_err(), "its time is over");
    let aborted = "an earlier CreateVolume for volume `pvc-clone` is not finished, and goes on: ask again (3 of 8 files and \
                   directories are cloned)";
    check_error(controller.create_volume(asked).await, Code::Aborted, aborted);
    drop(closed);
    server.stop().await;
}
