//! What requests see while events come in, and what is asked of an API server, which is a function here.

use super::*;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use pith_core::object::{Claim, Namespace};
use serde_json::{Value, json};
use tower::service_fn;

use crate::metrics::Metrics;

fn claim(name: &str) -> Claim {
    Claim { namespace: "shop".into(), name: name.into(), uid: "1".into(), ..Claim::default() }
}

fn reference(name: &str) -> Reference {
    Object::Claim(claim(name)).reference()
}

fn json_of(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "shop", "name": name, "uid": "1"}})
}

/// A cluster whose API server answers each path so, and how often it was asked.
fn asking(answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static) -> (Arc<Mirror>, Arc<AtomicUsize>) {
    let (count, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counted = count.clone();
    let service = service_fn(move |request: Request<Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let (status, body) = answer(request.uri().path());
        async move {
            let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::from_u16(status).expect("a code");
            Ok::<_, Infallible>(answer)
        }
    });
    let live = Live::new(Client::new(service, "default"), Arc::new(Metrics::new()));
    (Arc::new(Mirror::followed(live, true)), count)
}

/// The API server has this claim and nothing else.
fn with_orders(path: &str) -> (u16, Value) {
    match path {
        "/api/v1/namespaces/shop/persistentvolumeclaims/orders" => (200, json_of("orders")),
        _ => (
            404,
            json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "absent", "code": 404}),
        ),
    }
}

/// Looks this claim up: whether it is there, and that it is missed where it is not.
fn looking_for(name: &str) -> impl Fn(&Objects) -> (bool, BTreeSet<Reference>) {
    let reference = reference(name);
    move |objects| match objects.contains(&reference) {
        true => (true, BTreeSet::new()),
        false => (false, [reference.clone()].into()),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn what_is_missed_is_asked_for_once_and_then_known() {
    let (mirror, asked) = asking(with_orders);
    assert_eq!(mirror.decide(soon(), looking_for("orders")).await, Ok(true));
    assert_eq!(mirror.decide(soon(), looking_for("orders")).await, Ok(true));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(mirror.snapshot().contains(&reference("orders")));
}

#[tokio::test]
async fn what_the_api_server_does_not_have_stays_missed() {
    let (mirror, asked) = asking(with_orders);
    assert_eq!(mirror.decide(soon(), looking_for("nowhere")).await, Ok(false));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(Mirror::fixed(Objects::default()).decide(soon(), looking_for("orders")).await, Ok(false));
}

#[tokio::test]
async fn a_question_without_an_answer_is_no_decision() {
    let forbidden = |_: &str| {
        (
            403,
            json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "not yours", "code": 403}),
        )
    };
    let (mirror, _) = asking(forbidden);
    let unanswered = mirror.decide(soon(), looking_for("orders")).await.expect_err("it is not known");
    let expected = "the API server did not say whether the claim `shop/orders` exists: not yours: Forbidden";
    assert_eq!(unanswered.to_string(), expected);

    let unreadable = |_: &str| {
        let mut claim = json_of("orders");
        claim["spec"] = json!({"accessModes": ["Sometimes"]});
        (200, claim)
    };
    let (mirror, _) = asking(unreadable);
    let unanswered = mirror.decide(soon(), looking_for("orders")).await.expect_err("it is not known");
    assert!(unanswered.to_string().ends_with("`Sometimes`, which Kubernetes does not know"), "{unanswered}");
}

#[tokio::test]
async fn a_decision_waits_a_second_for_the_api_server_and_no_longer_than_its_caller() {
    let service = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let mirror = Mirror::followed(Live::new(Client::new(service, "default"), Arc::new(Metrics::new())), false);
    let check = async |patience: Duration, expected: Duration| {
        let started = Instant::now();
        let unanswered = mirror.decide(started + patience, looking_for("orders")).await.expect_err("it is not known");
        assert!(unanswered.to_string().ends_with("it did not answer in time"), "{unanswered}");
        let took = started.elapsed();
        assert!((expected..expected * 3).contains(&took), "{took:?}");
    };
    let (second, caller) = (Duration::from_secs(1), Duration::from_millis(300));
    tokio::join!(check(Duration::from_secs(10), second), check(caller, caller));
}

/// What was asked for before a removal may be what was removed: no watch would say so again.
#[tokio::test]
async fn an_answer_that_a_removal_overtook_is_used_and_not_kept() {
    let slot: Arc<std::sync::OnceLock<Arc<Mirror>>> = Arc::default();
    let own = slot.clone();
    let (mirror, _) = asking(move |path| {
        let mut feed = Feed::of(Kind::Claim);
        own.get().expect("it is there").tell(&mut feed, Told::Gone(reference("orders")));
        with_orders(path)
    });
    slot.set(mirror.clone()).expect("it is set once");
    assert_eq!(mirror.decide(soon(), looking_for("orders")).await, Ok(true));
    assert!(!mirror.snapshot().contains(&reference("orders")));
}

#[tokio::test]
async fn what_a_watch_brought_is_not_replaced_by_an_answer() {
    let slot: Arc<std::sync::OnceLock<Arc<Mirror>>> = Arc::default();
    let own = slot.clone();
    let newer = || Object::Claim(Claim { uid: "2".into(), ..claim("orders") });
    let (mirror, _) = asking(move |path| {
        own.get().expect("it is there").tell(&mut Feed::of(Kind::Claim), Told::Is(newer()));
        with_orders(path)
    });
    slot.set(mirror.clone()).expect("it is set once");
    assert_eq!(mirror.decide(soon(), looking_for("orders")).await, Ok(true));
    assert_eq!(mirror.snapshot().claim("shop", "orders").map(|it| it.uid.clone()).as_deref(), Some("2"));
}

#[tokio::test]
async fn it_is_ready_when_every_kind_was_listed_once_and_the_version_is_known() {
    let (mirror, _) = asking(with_orders);
    mirror.failed(Kind::Namespace, "Connection refused");
    let expected = "the API server has not listed yet: namespaces (Connection refused), storageclasses, persistentvolumes, \
                    persistentvolumeclaims";
    assert_eq!(mirror.waiting().as_deref(), Some(expected));
    for (kind, last) in [
        (Kind::Claim, false),
        (Kind::Claim, false),
        (Kind::StorageClass, false),
        (Kind::PersistentVolume, false),
        (Kind::Namespace, true),
        (Kind::Namespace, false),
    ] {
        let mut feed = Feed::of(kind);
        assert!(!mirror.tell(&mut feed, Told::Listing));
        assert_eq!(mirror.tell(&mut feed, Told::Listed), last, "{kind:?}");
    }
    mirror.failed(Kind::Namespace, "Connection refused");
    assert_eq!(mirror.waiting().as_deref(), Some("the API server has not said its version yet"));
    assert!(!*mirror.listed.borrow());
    mirror.tell_version(true);
    let sentence = "the ConfigMap with what is known of file systems was not read yet";
    assert_eq!(mirror.waiting().as_deref(), Some(sentence));
    assert!(!*mirror.listed.borrow());
    mirror.tell_file_systems(BTreeMap::new());
    assert_eq!(mirror.waiting(), None);
    assert!(*mirror.listed.borrow() && mirror.snapshot().lacks_native_sidecars);
}

#[tokio::test]
async fn a_request_keeps_its_snapshot() {
    let (mirror, _) = asking(with_orders);
    let before = mirror.snapshot();
    let shop = Object::Namespace(Namespace { name: "shop".into(), ..Namespace::default() });
    mirror.tell(&mut Feed::of(Kind::Namespace), Told::Is(shop));
    assert_eq!((before.count(Kind::Namespace), mirror.snapshot().count(Kind::Namespace)), (0, 1));
}
