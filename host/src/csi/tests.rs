//! The server on a real socket, asked by the generated client, in front of volumes in memory.

mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Write;
use std::marker::PhantomData;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pith_core::object::Entries;
use pith_core::volume::{self, After, Asked, Directory, NamedBy, Place, Record};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::proto::controller_client::ControllerClient;
use super::proto::identity_client::IdentityClient;
use super::proto::node_client::NodeClient;
use super::proto::volume_capability::access_mode::Mode;
use super::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use super::proto::*;
use super::{Csi, server};
use crate::metrics::Metrics;
use crate::provisioner::{CreateRequest, Page, Secrets, SnapshotQuery, VolumeError, Volumes};

const CANARY: &str = "canary-5e1f0c";
const GIB: i64 = 1 << 30;

/// Volumes in memory. `gate` holds CreateVolume up, and a volume called `defect` panics.
#[derive(Debug)]
struct Memory {
    records: Mutex<BTreeMap<String, Record>>,
    snapshots: Mutex<BTreeMap<String, Record>>,
    gate: Semaphore,
    can_list: AtomicBool,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            records: Mutex::default(),
            snapshots: Mutex::default(),
            gate: Semaphore::new(1),
            can_list: AtomicBool::new(true),
        }
    }
}

impl Volumes for Memory {
    async fn create(&self, request: CreateRequest) -> Result<Record, VolumeError> {
        let CreateRequest { asked, claim, .. } = request;
        assert_ne!(asked.name, "defect");
        let _open = self.gate.acquire().await.expect("it is never closed");
        let mut records = self.records.lock().expect("no panic while it is held");
        if let Some(record) = records.get(&volume::id(&asked.name)) {
            volume::compare(record, &asked)?;
            return Ok(record.clone());
        }
        let directory = Directory::new(vec![volume::id(&asked.name)]).expect("an id is a plain name");
        let place = Place {
            directory,
            shared: false,
            named_by: NamedBy::VolumeName,
            quota: None,
            warnings: Vec::new(),
            notes: Vec::new(),
            monitored: Vec::new(),
        };
        let capacity = volume::capacity(asked.required_bytes, asked.limit_bytes)?;
        let record = Record::begin("test", "n-1".into(), asked, claim, place, capacity).ready();
        records.insert(record.id.clone(), record.clone());
        Ok(record)
    }

    async fn delete(&self, id: &str, secrets: Secrets) -> Result<(), VolumeError> {
        if secrets.reveal().is_empty() {
            return Err(VolumeError::FailedPrecondition("the Secret is missing".into()));
        }
        self.records.lock().expect("no panic while it is held").remove(id);
        Ok(())
    }

    async fn expand(
        &self,
        id: &str,
        required: Option<u64>,
        limit: Option<u64>,
        _: Secrets,
    ) -> Result<u64, VolumeError> {
        let mut records = self.records.lock().expect("no panic while it is held");
        let record = records.get_mut(id).ok_or_else(|| VolumeError::NotFound(id.into()))?;
        *record = record.resized(volume::capacity(required, limit)?.max(record.capacity_bytes));
        Ok(record.capacity_bytes)
    }

    async fn modify(&self, id: &str, parameters: Entries, _: Secrets) -> Result<(), VolumeError> {
        let mut records = self.records.lock().expect("no panic while it is held");
        let record = records.get_mut(id).ok_or_else(|| VolumeError::NotFound(id.into()))?;
        if let Some(modified) = record.modified(&parameters)? {
            *record = modified;
        }
        Ok(())
    }

    async fn find(&self, id: &str, _: Secrets) -> Result<Option<Record>, VolumeError> {
        Ok(self.records.lock().expect("no panic while it is held").get(id).cloned())
    }

    async fn snapshot(&self, asked: Asked, _: Secrets) -> Result<Record, VolumeError> {
        let source = asked.source.as_ref().map(|source| source.id().to_string()).unwrap_or_default();
        let origin = self.find(&source, Secrets::default()).await?.ok_or(VolumeError::NotFound(source))?;
        let mut snapshots = self.snapshots.lock().expect("no panic while it is held");
        if let Some(record) = snapshots.get(&volume::id(&asked.name)) {
            volume::compare(record, &asked)?;
            return Ok(record.clone());
        }
        let record = Record::snapshot("test", "n-2".into(), asked, &origin, 1_800_000_000).ready();
        snapshots.insert(record.id.clone(), record.clone());
        Ok(record)
    }

    async fn delete_snapshot(&self, id: &str, _: Secrets) -> Result<(), VolumeError> {
        self.snapshots.lock().expect("no panic while it is held").remove(id);
        Ok(())
    }

    async fn snapshots(&self, query: SnapshotQuery) -> Result<Page, VolumeError> {
        let snapshots = self.snapshots.lock().expect("no panic while it is held");
        let is_wanted = |it: &&Record| query.id.as_ref().is_none_or(|id| *id == it.id);
        let is_later = |it: &&Record| query.after.as_ref().is_none_or(|after| after.has(&it.id));
        let mut volumes: Vec<Record> = snapshots.values().filter(is_wanted).filter(is_later).cloned().collect();
        let most = query.most.unwrap_or(usize::MAX);
        let next = (volumes.len() > most).then(|| After::volume(&volumes[most - 1]));
        volumes.truncate(most);
        Ok(Page { volumes, next })
    }

    fn progress(&self, what: &str) -> Option<(u64, u64)> {
        (what == "volume `pvc-clone`").then_some((3, 8))
    }

    fn can_list(&self) -> bool {
        self.can_list.load(Ordering::Relaxed)
    }

    async fn page(&self, after: Option<After>, most: Option<usize>) -> Result<Page, VolumeError> {
        let records = self.records.lock().expect("no panic while it is held");
        let mut volumes: Vec<Record> =
            records.values().filter(|it| after.as_ref().is_none_or(|after| after.has(&it.id))).cloned().collect();
        let most = most.unwrap_or(usize::MAX);
        let next = (volumes.len() > most).then(|| After::volume(&volumes[most - 1]));
        volumes.truncate(most);
        Ok(Page { volumes, next })
    }

    async fn get(&self, id: &str) -> Result<Record, VolumeError> {
        self.find(id, Secrets::default()).await?.ok_or_else(|| VolumeError::NotFound(id.into()))
    }
}

/// A server that runs in a folder of its own.
pub(crate) struct Running {
    pub(crate) folder: TempDir,
    volumes: Arc<Memory>,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub(crate) async fn start() -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = server::bind(&folder.path().join("csi.sock")).await.expect("it listens");
        let (volumes, metrics) = (Arc::new(Memory::default()), Arc::new(Metrics::new()));
        let csi = Csi {
            driver: "csi.juicefs.com".into(),
            node_id: "node-1".into(),
            volumes: volumes.clone(),
            max_calls: 256,
            metrics: metrics.clone(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { stopped.await.unwrap_or_default() };
        let serving = tokio::spawn(server::serve(listener, csi, stopped, Duration::from_secs(20)));
        Running { folder, volumes, metrics, stop, serving }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("csi.sock")
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket().display())).expect("an address");
        endpoint.connect().await.expect("it answers")
    }

    async fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel().await)
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("it runs");
        self.serving.await.expect("no panic").expect("it ends well");
    }
}

fn secrets() -> BTreeMap<String, String> {
    [("metaurl".to_string(), format!("redis://:{CANARY}@host"))].into()
}

fn mount() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

fn bytes(required_bytes: i64) -> Option<CapacityRange> {
    Some(CapacityRange { required_bytes, limit_bytes: 0 })
}

fn creation(name: &str, gib: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        capacity_range: bytes(gib * GIB),
        volume_capabilities: vec![mount()],
        secrets: secrets(),
        ..CreateVolumeRequest::default()
    }
}

fn deletion(id: &str) -> DeleteVolumeRequest {
    DeleteVolumeRequest { volume_id: id.into(), secrets: secrets() }
}

#[track_caller]
fn check_error<T>(answer: Result<T, Status>, code: Code, message: &str) {
    let status = answer.err().expect("an error");
    assert_eq!((status.code(), status.message()), (code, message));
}

#[tokio::test]
async fn a_volume_is_made_once_and_removed_once() {
    let server = Running::start().await;
    let mut controller = server.controller().await;

    let first = controller.create_volume(creation("pvc-1", 1)).await.expect("it is made").into_inner();
    let again = controller.create_volume(creation("pvc-1", 1)).await.expect("it is found").into_inner();
    assert!(first == again);
    let volume = first.volume.expect("a volume");
    assert_eq!((volume.volume_id.as_str(), volume.capacity_bytes), ("pvc-1", GIB));
    assert_eq!(volume.volume_context["subPath"], "pvc-1");
    let other = controller.create_volume(creation("pvc-1", 2)).await;
    let expected = "volume `pvc-1` exists already, and not as it is asked now: capacity is 1073741824 bytes, and at least \
                    2147483648 bytes is asked";
    check_error(other, Code::AlreadyExists, expected);

    let expansion = |id: &str, gib: i64| ControllerExpandVolumeRequest {
        volume_id: id.into(),
        capacity_range: bytes(gib * GIB),
        ..ControllerExpandVolumeRequest::default()
    };
    let grown = controller.controller_expand_volume(expansion("pvc-1", 3)).await.expect("it grows").into_inner();
    assert_eq!((grown.capacity_bytes, grown.node_expansion_required), (3 * GIB, false));
    check_error(
        controller.controller_expand_volume(expansion("absent", 3)).await,
        Code::NotFound,
        "there is no volume `absent`",
    );
    check_error(
        controller.controller_expand_volume(expansion("../a", 3)).await,
        Code::NotFound,
        "there is no volume `../a`",
    );

    let validation = |id: &str| ValidateVolumeCapabilitiesRequest {
        volume_id: id.into(),
        volume_capabilities: vec![mount()],
        ..ValidateVolumeCapabilitiesRequest::default()
    };
    let valid = controller.validate_volume_capabilities(validation("pvc-1")).await.expect("it is there");
    assert!(valid.into_inner().confirmed.is_some());
    check_error(
        controller.validate_volume_capabilities(validation("absent")).await,
        Code::NotFound,
        "there is no volume `absent`",
    );

    let secretless = DeleteVolumeRequest { secrets: BTreeMap::new(), ..deletion("pvc-1") };
    check_error(controller.delete_volume(secretless).await, Code::FailedPrecondition, "the Secret is missing");
    controller.delete_volume(deletion("pvc-1")).await.expect("it is removed");
    controller.delete_volume(deletion("pvc-1")).await.expect("it stays removed");
    // Not even asked: it can be no volume.
    let strange = DeleteVolumeRequest { secrets: BTreeMap::new(), ..deletion("../../etc") };
    controller.delete_volume(strange).await.expect("what cannot be is not there");
    check_error(controller.delete_volume(deletion("")).await, Code::InvalidArgument, "volume_id is missing");
    server.stop().await;
}

#[tokio::test]
async fn any_name_has_an_id_that_is_a_file_name() {
    let server = Running::start().await;
    let mut controller = server.controller().await;
    for name in ["../../etc", "a/b", ".hidden", "größe", &"n".repeat(128)] {
        let volume = controller.create_volume(creation(name, 1)).await.expect("it is made").into_inner().volume;
        let id = volume.expect("a volume").volume_id;
        assert!(volume::is_id(&id), "{name} became {id}");
        controller.delete_volume(deletion(&id)).await.expect("it is removed");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_call_whose_caller_has_gone_is_carried_to_its_end() {
    let server = Running::start().await;
    let closed = server.volumes.gate.acquire().await.expect("it is open");
    let mut controller = server.controller().await;
    let mut impatient = Request::new(creation("pvc-1", 1));
    impatient.set_timeout(Duration::from_millis(20));
    let status = controller.create_volume(impatient).await.err().expect("its time is over");
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status}");

    let aborted = "an earlier CreateVolume for volume `pvc-1` is not finished, and goes on: ask again";
    check_error(controller.create_volume(creation("pvc-1", 1)).await, Code::Aborted, aborted);
    check_error(controller.delete_volume(deletion("pvc-1")).await, Code::Aborted, aborted);
    controller.delete_volume(deletion("pvc-2")).await.expect("another volume is free");

    drop(closed);
    while !server.volumes.records.lock().expect("no panic").contains_key("pvc-1") {
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_calls_that_were_begun_and_takes_no_more() {
    let server = Running::start().await;
    let Running { folder, volumes, stop, serving, .. } = server;
    let closed = volumes.gate.acquire().await.expect("it is open");
    let socket = folder.path().join("csi.sock");
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("an address");
    let mut controller = ControllerClient::new(endpoint.connect().await.expect("it answers"));
    let call = tokio::spawn(async move { controller.create_volume(creation("pvc-1", 1)).await });
    // The guard is the sign that it has begun.
    let mut second = ControllerClient::new(endpoint.connect().await.expect("it answers"));
    while second.delete_volume(deletion("pvc-1")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stop.send(()).expect("it runs");
    drop(second);
    drop(closed);
    call.await.expect("no panic").expect("it is answered");
    serving.await.expect("no panic").expect("it ends well");
    assert!(!socket.exists(), "the socket's file is left");
}

#[tokio::test]
async fn a_panic_is_the_error_of_its_own_call() {
    let server = Running::start().await;
    let mut controller = server.controller().await;
    let expected = "Pith failed while it handled this call, which is a defect: its log says where";
    for _ in 0..2 {
        // Twice: the volume is free again.
        check_error(controller.create_volume(creation("defect", 1)).await, Code::Internal, expected);
    }
    controller.create_volume(creation("pvc-1", 1)).await.expect("the server goes on");
    assert_eq!(server.metrics.panics.get(), 2);
    server.stop().await;
}

#[tokio::test]
async fn it_says_who_it_is_and_what_it_can() {
    let server = Running::start().await;
    let mut identity = IdentityClient::new(server.channel().await);
    let info = identity.get_plugin_info(GetPluginInfoRequest {}).await.expect("an answer").into_inner();
    assert_eq!((info.name.as_str(), info.vendor_version.as_str()), ("csi.juicefs.com", env!("CARGO_PKG_VERSION")));
    assert_eq!(identity.probe(ProbeRequest {}).await.expect("an answer").into_inner().ready, Some(true));

    let mut controller = server.controller().await;
    let declared = controller.controller_get_capabilities(ControllerGetCapabilitiesRequest {}).await;
    let declared = declared.expect("an answer").into_inner().capabilities.into_iter().filter_map(|it| {
        let controller_service_capability::Type::Rpc(rpc) = it.r#type?;
        Some(rpc.r#type)
    });
    assert_eq!(declared.collect::<Vec<_>>(), [1, 9, 13, 14, 5, 7, 3, 12, 6, 15]);
    server.stop().await;
}

#[tokio::test]
async fn a_volume_is_changed_in_what_its_attributes_class_says() {
    let server = Running::start().await;
    let mut controller = server.controller().await;
    let entries = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect()
    };
    let asked = CreateVolumeRequest { mutable_parameters: entries(&[("inodes", "5")]), ..creation("pvc-1", 1) };
    let made = controller.create_volume(asked.clone()).await.expect("it is made").into_inner();
    let modification = |id: &str, parameters: &[(&str, &str)]| ControllerModifyVolumeRequest {
        volume_id: id.into(),
        secrets: secrets(),
        mutable_parameters: entries(parameters),
    };
    let few = [("inodes", "3"), ("csi.storage.k8s.io/pvc/name", "data")];
    for _ in 0..2 {
        controller.controller_modify_volume(modification("pvc-1", &few)).await.expect("it is changed");
    }
    let generation = server.volumes.records.lock().expect("no panic")["pvc-1"].generation;
    assert_eq!(generation, 2, "the second one changed nothing");
    // It is the same volume to whoever asked for it.
    assert!(controller.create_volume(asked).await.expect("it is there").into_inner() == made);
    let other = CreateVolumeRequest { mutable_parameters: entries(&[("inodes", "3")]), ..creation("pvc-1", 1) };
    let expected =
        "volume `pvc-1` exists already, and not as it is asked now: mutable_parameters.inodes is `5`, and `3` is asked";
    check_error(controller.create_volume(other).await, Code::AlreadyExists, expected);
    let validation = |inodes: &str| ValidateVolumeCapabilitiesRequest {
        volume_id: "pvc-1".into(),
        volume_capabilities: vec![mount()],
        mutable_parameters: entries(&[("inodes", inodes)]),
        ..ValidateVolumeCapabilitiesRequest::default()
    };
    let confirmed = controller.validate_volume_capabilities(validation("3")).await.expect("an answer").into_inner();
    assert_eq!(confirmed.confirmed.expect("it is so").mutable_parameters, entries(&[("inodes", "3")]));
    let not = controller.validate_volume_capabilities(validation("5")).await.expect("an answer").into_inner();
    let expected = "mutable_parameters are not the ones that the volume has: `inodes` is another";
    assert_eq!((not.confirmed.is_none(), not.message.as_str()), (true, expected));

    for (id, parameters, code, expected) in [
        ("", &few[..], Code::InvalidArgument, "volume_id is missing"),
        ("pvc-1", &[], Code::InvalidArgument, "mutable_parameters is missing: say what is to be changed"),
        ("absent", &few, Code::NotFound, "there is no volume `absent`"),
        ("../a", &few, Code::NotFound, "there is no volume `../a`"),
        (
            "pvc-1",
            &[("inodes", "7"), ("size", "9")],
            Code::InvalidArgument,
            "the parameter `size` cannot be changed: `inodes`, `onDelete` and `trashDays` can, and a volume grows by the size of its \
             claim",
        ),
    ] {
        check_error(controller.controller_modify_volume(modification(id, parameters)).await, code, expected);
    }
    assert_eq!(server.volumes.records.lock().expect("no panic")["pvc-1"].inodes(), Some(3));
    server.stop().await;
}

#[tokio::test]
async fn volumes_are_listed_page_by_page_and_one_is_asked_for_by_its_id() {
    let server = Running::start().await;
    let mut controller = server.controller().await;
    for name in ["b", "d", "a", "c"] {
        controller.create_volume(creation(name, 1)).await.expect("it is made");
    }
    let mut page = async |most: i32, token: &str| {
        let request = ListVolumesRequest { max_entries: most, starting_token: token.into() };
        controller.list_volumes(request).await.map(|answer| {
            let ListVolumesResponse { entries, next_token } = answer.into_inner();
            let ids = entries.into_iter().filter_map(|entry| entry.volume).map(|volume| volume.volume_id);
            (ids.collect::<Vec<_>>().join(" "), next_token)
        })
    };
    let first = page(3, "").await.expect("a list");
    assert_eq!(first, ("a b c".into(), "after/c".into()));
    assert_eq!(page(3, &first.1).await.expect("the rest"), ("d".into(), String::new()));
    assert_eq!(page(4, "").await.expect("all"), ("a b c d".into(), String::new()));
    assert_eq!(page(0, "").await.expect("all"), ("a b c d".into(), String::new()));
    check_error(page(-1, "").await, Code::InvalidArgument, "max_entries is negative");
    let begin = "starting_token is none that a list answered with: begin without one";
    check_error(page(3, "c").await, Code::Aborted, begin);

    let of = |id: &str| ControllerGetVolumeRequest { volume_id: id.into() };
    let made = controller.create_volume(creation("c", 1)).await.expect("it is there").into_inner().volume;
    let found = controller.controller_get_volume(of("c")).await.expect("it is there").into_inner();
    assert!(found.volume == made && found.status.is_some());
    check_error(controller.controller_get_volume(of("e")).await, Code::NotFound, "there is no volume `e`");
    check_error(controller.controller_get_volume(of("../c")).await, Code::NotFound, "there is no volume `../c`");
    check_error(controller.controller_get_volume(of("")).await, Code::InvalidArgument, "volume_id is missing");
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_listed_where_nobody_says_which_file_systems_there_are() {
    let server = Running::start().await;
    server.volumes.can_list.store(false, Ordering::Relaxed);
    let mut controller = server.controller().await;
    let declared = controller.controller_get_capabilities(ControllerGetCapabilitiesRequest {}).await;
    assert_eq!(declared.expect("an answer").into_inner().capabilities.len(), 6);
    let expected = "Pith has no ListVolumes: its capabilities do not declare it";
    check_error(controller.list_volumes(ListVolumesRequest::default()).await, Code::Unimplemented, expected);
    let expected = "Pith has no ControllerGetVolume: its capabilities do not declare it";
    let request = ControllerGetVolumeRequest { volume_id: "a".into() };
    check_error(controller.controller_get_volume(request).await, Code::Unimplemented, expected);
    server.stop().await;
}

#[tokio::test]
async fn nothing_is_mounted_on_the_node() {
    let server = Running::start().await;
    let mut node = NodeClient::new(server.channel().await);
    let info = node.node_get_info(NodeGetInfoRequest {}).await.expect("an answer").into_inner();
    assert_eq!(info.node_id, "node-1");
    let declared = node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await.expect("an answer").into_inner();
    assert!(declared.capabilities.is_empty());

    let publish = |id: &str, path: &str, capability| NodePublishVolumeRequest {
        volume_id: id.into(),
        target_path: path.into(),
        volume_capability: capability,
        ..NodePublishVolumeRequest::default()
    };
    check_error(node.node_publish_volume(publish("", "", None)).await, Code::InvalidArgument, "volume_id is missing");
    check_error(
        node.node_publish_volume(publish("a", "", None)).await,
        Code::InvalidArgument,
        "target_path is missing",
    );
    check_error(
        node.node_publish_volume(publish("a", "/a", None)).await,
        Code::InvalidArgument,
        "volume_capability is missing",
    );
    let published = node.node_publish_volume(publish("a", "/a", Some(mount()))).await;
    assert_eq!(published.err().map(|it| it.code()), Some(Code::Unimplemented));
    let unpublish = |path: &str| NodeUnpublishVolumeRequest { volume_id: "a".into(), target_path: path.into() };
    check_error(node.node_unpublish_volume(unpublish("")).await, Code::InvalidArgument, "target_path is missing");
    let unpublished = node.node_unpublish_volume(unpublish("/a")).await;
    assert_eq!(unpublished.err().map(|it| it.code()), Some(Code::NotFound));
    server.stop().await;
}

/// The RPCs of the contract, as `/csi.v1.Controller/CreateVolume`.
fn rpcs() -> Vec<String> {
    let mut service = "";
    let mut found = Vec::new();
    for line in include_str!("../../../proto/csi/csi.proto").lines() {
        let mut words = line.split(|it: char| !it.is_alphanumeric()).filter(|word| !word.is_empty());
        match (line.starts_with("service"), words.next(), words.next()) {
            (true, _, Some(name)) => service = name,
            (_, Some("rpc"), Some(name)) => found.push(format!("/csi.v1.{service}/{name}")),
            _ => {}
        }
    }
    found
}

#[tokio::test]
async fn every_rpc_answers_and_is_measured_under_its_own_name() {
    let server = Running::start().await;
    let channel = server.channel().await;
    let mut answered = BTreeSet::new();
    // What is not in the contract is answered too.
    for path in rpcs().into_iter().chain(["/csi.v1.GroupController/Anything".to_string()]) {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.expect("it answers");
        let codec = tonic_prost::ProstCodec::<ProbeRequest, ProbeRequest>::default();
        let place = PathAndQuery::try_from(path.as_str()).expect("a path");
        // An empty message is one of any type.
        let answer = client.unary(Request::new(ProbeRequest {}), place, codec).await;
        answered.insert((path, super::code_name(answer.err().map_or(Code::Ok, |status| status.code()))));
    }
    let metrics = server.metrics.render().expect("text");
    assert!(answered.remove(&("/csi.v1.GroupController/Anything".into(), "Unimplemented")));
    assert_eq!(answered.len(), 26);
    for (path, code) in answered {
        let row = format!(
            "csi_plugin_operations_seconds_count{{driver_name=\"csi.juicefs.com\",method_name=\"{path}\",grpc_status_code=\"{code}\"}} 1"
        );
        assert!(metrics.contains(&row), "expected {row} in {metrics}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_socket_is_its_owners_alone() {
    let server = Running::start().await;
    let metadata = std::fs::symlink_metadata(server.socket()).expect("it is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let beside = std::fs::read_dir(server.folder.path()).expect("a folder").count();
    assert_eq!(beside, 1, "CSI wants no other file beside the socket");
    server.stop().await;
}

#[tokio::test]
async fn only_a_socket_that_nobody_answers_on_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("csi.sock");
    async fn error(path: &Path) -> String {
        format!("{:#}", server::bind(path).await.expect_err("it is in the way"))
    }

    std::fs::write(&path, "mine").expect("written");
    assert!(error(&path).await.contains("is in the way of the socket, and is none"));
    assert_eq!(std::fs::read_to_string(&path).expect("it is kept"), "mine");
    std::fs::remove_file(&path).expect("removed");

    let living = UnixListener::bind(&path).expect("it listens");
    assert!(error(&path).await.contains("another process listens on"));
    // Dead, its file left behind.
    drop(living);
    let listener = server::bind(&path).await.expect("it is replaced");

    // A file that another process has put there is not ours to remove.
    std::fs::remove_file(&path).expect("removed");
    let _other = UnixListener::bind(&path).expect("it listens");
    drop(listener);
    assert!(path.exists());

    let nowhere = folder.path().join("absent/csi.sock");
    assert!(error(&nowhere).await.starts_with(&format!("listening on the socket {}", nowhere.display())));
}

#[tokio::test]
async fn a_socket_is_taken_over_once_the_last_that_held_it_lets_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("csi.sock");
    // As what a process had forked when it was killed.
    let held = UnixListener::bind(&path).expect("it listens");
    let bound = tokio::spawn({
        let path = path.clone();
        async move { server::bind(&path).await }
    });
    let (connection, _) = held.accept().await.expect("it is asked who listens");
    drop(held);
    drop(connection);
    let listener = bound.await.expect("no panic").expect("it is taken over");
    assert!(path.exists());
    drop(listener);
}

/// Every line that anything logs, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while it is held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_call_is_one_line_and_no_line_has_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_max_level(tracing::Level::TRACE);
    // With one subscriber in the process, tracing lets whichever thread comes first switch a line off for all of them; other
    // tests have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _here = tracing::subscriber::set_default(lines.with_writer(move || writer.clone()).finish());
    let server = Running::start().await;
    let mut controller = server.controller().await;
    controller.create_volume(creation("pvc-1", 1)).await.expect("it is made");
    controller.create_volume(creation("defect", 1)).await.err().expect("a defect");
    controller.create_volume(creation("", 1)).await.err().expect("invalid");
    controller.delete_volume(deletion("pvc-1")).await.expect("it is removed");
    server.stop().await;

    let log = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
    assert!(log.contains("\"TRACE\""), "the log is not at its noisiest");
    assert!(!log.contains(CANARY), "a secret is in the log");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("pith::csi::call")).collect();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for part in
        ["\"method\":\"/csi.v1.Controller/CreateVolume\"", "\"volume\":\"pvc-1\"", "\"code\":\"OK\"", "\"micros\":"]
    {
        assert!(lines[0].contains(part), "expected {part} in {}", lines[0]);
    }
    assert!(lines[2].contains("\"error\":\"name is missing\""), "{}", lines[2]);
}

/// Whether a type can be printed: the inherent constant hides the trait's where it applies.
struct Printable<T>(PhantomData<T>);

trait Otherwise {
    const DEBUG: bool = false;
}

impl<T> Otherwise for Printable<T> {}

impl<T: Debug> Printable<T> {
    const DEBUG: bool = true;
}

#[test]
fn no_message_can_be_printed() {
    const {
        assert!(!Printable::<CreateVolumeRequest>::DEBUG);
        assert!(!Printable::<DeleteVolumeRequest>::DEBUG);
        assert!(!Printable::<ControllerExpandVolumeRequest>::DEBUG);
        assert!(!Printable::<ValidateVolumeCapabilitiesRequest>::DEBUG);
        assert!(!Printable::<ControllerModifyVolumeRequest>::DEBUG);
        assert!(!Printable::<NodePublishVolumeRequest>::DEBUG);
        assert!(Printable::<Secrets>::DEBUG, "the check itself works");
    }
    // And so for all of them, as the build script says.
    let generated = include_str!(concat!(env!("OUT_DIR"), "/csi.v1.rs"));
    let count = |needle: &str| generated.matches(needle).count();
    assert_eq!(count("#[prost(skip_debug)]"), count("::prost::Message)]") + count("::prost::Oneof)]"));
}
