//! What one admission review costs without its policies, part by part, with the allocator of the `pith` binary.
//!
//! `cargo bench -p pith --bench review`. `value` is what any webhook in this language must at least do, for comparison.

use std::hint::black_box;
use std::path::Path;
use std::time::{Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use pith::config::Config;
use pith::policy::{Moment, Policies};
use pith::webhook::review::{self, Subject};
use pith_core::admission::{self, Context, Verdict};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn review(criterion: &mut Criterion) {
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").join("tests/fixtures");
    let body = std::fs::read(fixtures.join("reviews/web.json")).expect("the fixture is there");
    let objects = pith::cluster::load(&fixtures.join("objects")).expect("the objects are well formed");
    let (configuration, policies) = (Config::built_in().sidecars, Policies::none());
    let context = Context { configuration: &configuration, bindings: &[], objects: &objects, request: "review" };
    let parsed = review::parse(&body).expect("a review");
    let Subject::PodCreation { namespace, pod } = &parsed.subject else { panic!("the creation of a pod") };
    let moment = Moment { objects: &objects, time: SystemTime::now() };
    let evaluator = policies.evaluator(Instant::now(), moment);
    let decide = || admission::decide(&context, namespace, pod, &evaluator);
    let decision = decide();
    assert!(matches!(decision.verdict, Verdict::Inject(_)), "{decision:?}");

    let mut parts = criterion.benchmark_group("review");
    parts.bench_function("value", |bench| bench.iter(|| black_box(serde_json::from_slice::<serde_json::Value>(&body))));
    parts.bench_function("parse", |bench| bench.iter(|| black_box(review::parse(&body))));
    parts.bench_function("decide", |bench| bench.iter(|| black_box(decide())));
    parts.bench_function("render", |bench| bench.iter(|| black_box(review::render(&parsed.uid, &decision))));
    parts.finish();
}

criterion_group!(benches, review);
criterion_main!(benches);
