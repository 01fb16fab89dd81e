//! What one call of a policy costs, hook by hook and step by step.
//!
//! `cargo bench -p pith --bench policy_call`. The steps are nested, so each difference is the price of one: a store; a
//! store and an instance; a call of a policy that does nothing; a call of the first-party policy for resources, which reads
//! its settings. Everything that was made is dropped within the measured time.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pith::wasm::{Asking, Engine, EngineOptions, Grants, Level, Limits, Module};
use pith_core::object::{AccessMode, Claim, Entries, Namespace};
use pith_core::policy::{Cache, NamingRequest, Owner, PodFacts, SidecarFacts, Subject, VolumeFacts};

fn policy_call(criterion: &mut Criterion) {
    let engine = Engine::new(EngineOptions::default()).expect("an engine");
    let plain =
        load(&engine, &["--package", "pith-guests", "--example", "answers_plainly"], "examples/answers_plainly");
    let resources = load(&engine, &["--package", "pith-policy-resources"], "pith_policy_resources");
    let limits = Limits::default();
    let silent = |_: Level, _: &str| {};
    let asking = Asking { limits, settings: "{}", world: &(), log: &silent };
    let sized = Asking { settings: SETTINGS, ..asking };
    let object = serde_json::Value::Null;
    let (subject, volume, sidecar, naming) = (subject(&object), volume(), sidecar(), naming());

    let mut steps = criterion.benchmark_group("steps");
    steps.bench_function("store", |bench| bench.iter(|| plain.make_store(limits)));
    steps.bench_function("store_instance", |bench| bench.iter(|| plain.instantiate(limits)));
    steps.bench_function("store_instance_of_resources", |bench| bench.iter(|| resources.instantiate(limits)));
    steps.finish();

    let mut hooks = criterion.benchmark_group("call");
    hooks.bench_function("exemption", |bench| {
        bench.iter(|| black_box(plain.exempt(asking, &subject, std::slice::from_ref(&volume))));
    });
    hooks.bench_function("sidecar", |bench| {
        bench.iter(|| black_box(plain.adjust(asking, &subject, &volume, &sidecar)));
    });
    hooks.bench_function("naming", |bench| {
        bench.iter(|| black_box(plain.name(asking, &naming, &object)));
    });
    hooks.bench_function("sidecar_of_resources", |bench| {
        bench.iter(|| black_box(resources.adjust(sized, &subject, &volume, &sidecar)));
    });
    hooks.finish();
}

const SETTINGS: &str = r#"{"sizes":{"small":{"requests":{"cpu":"100m"}}},"default":"small"}"#;

/// Builds a guest with stock cargo and loads it.
fn load(engine: &Engine, package: &[&str], file: &str) -> Module {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    let target = ["build", "--quiet", "--release", "--target", "wasm32-unknown-unknown"];
    let status = Command::new("cargo").args(target).args(package).current_dir(root).status();
    assert!(status.is_ok_and(|status| status.success()), "cargo build {} failed: see above", package.join(" "));
    let file = root.join("target/wasm32-unknown-unknown/release").join(file).with_extension("wasm");
    engine.load(&std::fs::read(file).expect("cargo built it"), &Grants::default()).expect("a policy")
}

fn entries<const N: usize>(entries: [(&str, &str); N]) -> Entries {
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect()
}

/// A pod as a Deployment makes it.
fn subject(object: &serde_json::Value) -> Subject<'_> {
    let owner = Owner {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: "web-5d4f8c7b6d".to_owned(),
        controller: true,
    };
    let pod = PodFacts {
        generate_name: Some("web-5d4f8c7b6d-".to_owned()),
        labels: entries([("app", "web"), ("pod-template-hash", "5d4f8c7b6d"), ("team", "shop"), ("tier", "front")]),
        annotations: entries([("kubectl.kubernetes.io/restartedAt", "2026-11-22T00:00:00Z")]),
        owners: vec![owner],
        service_account: "default".to_owned(),
        ..PodFacts::default()
    };
    Subject { pod, namespace: Arc::new(namespace()), object }
}

fn namespace() -> Namespace {
    Namespace {
        name: "shop".to_owned(),
        labels: entries([("kubernetes.io/metadata.name", "shop"), ("team", "shop")]),
        annotations: Entries::new(),
    }
}

fn claim() -> Arc<Claim> {
    Arc::new(Claim {
        namespace: "shop".to_owned(),
        name: "data".to_owned(),
        labels: entries([("app", "web")]),
        annotations: entries([("volume.kubernetes.io/storage-provisioner", "csi.juicefs.com")]),
        storage_class: Some("juicefs".to_owned()),
        requested_bytes: Some(10 << 30),
        access_modes: vec![AccessMode::ReadWriteMany],
        ..Claim::default()
    })
}

fn volume() -> VolumeFacts {
    VolumeFacts {
        name: "data".to_owned(),
        claim: claim(),
        read_only: false,
        class_parameters: entries([("pathPattern", "${.PVC.namespace}/${.PVC.name}")]).into(),
        volume_attributes: entries([("capacity", "10Gi"), ("subPath", "pvc-1")]).into(),
    }
}

fn sidecar() -> SidecarFacts {
    SidecarFacts {
        requests: entries([("cpu", "100m"), ("memory", "256Mi")]),
        limits: entries([("cpu", "2"), ("memory", "1Gi")]),
        mount_options: vec![("cache-size".to_owned(), Some("1024".to_owned())), ("writeback".to_owned(), None)],
        env: Entries::new(),
        cache: Cache::EmptyDir { in_memory: false, size_limit: Some("2Gi".to_owned()) },
    }
}

fn naming() -> NamingRequest {
    NamingRequest {
        volume_name: "pvc-6f8e7d6c-5b4a-4938-8271-605f4e3d2c1b".to_owned(),
        required_bytes: Some(10 << 30),
        limit_bytes: None,
        claim: claim(),
        namespace: Arc::new(namespace()),
        origin: None,
        parameters: entries([("pathPattern", "${.PVC.namespace}/${.PVC.name}")]),
    }
}

criterion_group!(benches, policy_call);
criterion_main!(benches);
