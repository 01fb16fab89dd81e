//! What it costs to find out whether a binding is for a pod: by its selectors, and by conditions.
//!
//! `cargo bench -p pith-core --bench binding`.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pith_core::binding::{Binding, Match, Mode, OnFailure};
use pith_core::condition::Condition;
use pith_core::object::{Claim, Entries, Namespace};
use pith_core::policy::{Hook, Owner, PodFacts, Subject, VolumeFacts};
use pith_core::selector::LabelSelector;

fn entries<const N: usize>(entries: [(&str, &str); N]) -> Entries {
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect()
}

fn binding(env: &str, conditions: &[&str]) -> Binding {
    let conditions = conditions.iter().map(|it| Condition::parse("it", it).expect("it can be read")).collect();
    let namespaces = LabelSelector { labels: entries([("env", env)]), ..LabelSelector::default() };
    Binding {
        name: "it".into(),
        hooks: BTreeSet::from([Hook::Sidecar]),
        matches: Match { namespaces, conditions, ..Match::default() },
        percent: 100,
        mode: Mode::Enforce,
        on_failure: OnFailure::Fail,
        priority: 0,
        shape: None,
    }
}

fn benches(criterion: &mut Criterion) {
    let owner =
        Owner { api_version: "apps/v1".into(), kind: "ReplicaSet".into(), name: "web-5d4f".into(), controller: true };
    let pod = PodFacts {
        generate_name: Some("web-5d4f-".into()),
        labels: entries([("app", "web"), ("pod-template-hash", "5d4f"), ("team", "shop"), ("tier", "front")]),
        annotations: entries([("note", "two words")]),
        owners: vec![owner],
        service_account: "default".into(),
        ..PodFacts::default()
    };
    let namespace = Namespace { name: "shop".into(), labels: entries([("env", "prod")]), ..Namespace::default() };
    let subject = Subject { pod, namespace: Arc::new(namespace), object: &serde_json::Value::Null };
    let claim = Claim { name: "data".into(), requested_bytes: Some(10 << 30), ..Claim::default() };
    let volume = VolumeFacts {
        name: "data".into(),
        claim: Arc::new(claim),
        read_only: false,
        class_parameters: Arc::default(),
        volume_attributes: Arc::default(),
    };
    let label = "pod.labels['team'] == 'shop'";
    let several = "pod.serviceAccount != 'ci' && pod.owners.exists(it, it.controller && it.kind == 'ReplicaSet') && claim.requestedBytes > 1024 * 1024";
    let pattern = "pod.labels.app.matches('^(web|api)(-[a-z]+)*$')";
    let long: Vec<&str> = std::iter::repeat_n(several, 64).collect();
    let mut group = criterion.benchmark_group("binding");
    for (name, it) in [
        ("dropped by its selector", binding("test", &[])),
        ("dropped by its selector, with conditions", binding("test", &[label, several])),
        ("without conditions", binding("prod", &[])),
        ("one label", binding("prod", &[label])),
        ("owners and numbers", binding("prod", &[several])),
        ("a pattern", binding("prod", &[pattern])),
        ("64 conditions", binding("prod", &long)),
    ] {
        group.bench_function(name, |bench| bench.iter(|| black_box(it.meets_pod(&subject, [&volume].into_iter()))));
    }
    group.finish();
    criterion.bench_function("parse", |bench| bench.iter(|| black_box(Condition::parse("it", several))));
}

criterion_group!(all, benches);
criterion_main!(all);
