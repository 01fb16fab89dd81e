//! One admission request: body → review → decision → answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Limited};
use pith_core::admission::{self, Context, Decision, Verdict};
use pith_core::catalogue::Code;
use pith_core::object::Objects;
use pith_core::reason::Skip;
use pith_core::validation::Checked;
use serde_json::Value;

use super::Webhook;
use super::review::{self, Answer, Subject};
use super::validate;
use crate::decisions::About;
use crate::policy::{Call, Moment, Policies};

/// Answers one review. Whatever goes wrong is an HTTP error with a sentence, so that the cluster's `failurePolicy` decides.
pub(super) async fn mutate(
    State(webhook): State<Arc<Webhook>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // Nobody queues: an API server has better things to wait for than a webhook that is behind.
    let Ok(_permit) = webhook.in_flight.try_acquire() else {
        let sentence = "Pith has as many requests in hand as it may (webhook.maxInFlight)";
        return refuse(&webhook, StatusCode::SERVICE_UNAVAILABLE, Code::Busy, sentence, Instant::now());
    };
    let deadline = Instant::now() + time_limit(webhook.timeout, query.as_deref());
    // One time for the whole review, also where it is decided a second time with what was missing.
    let time = SystemTime::now();
    // Without some of the objects a decision would be wrong rather than missing: a claim that is there would not be.
    if let Some(waiting) = webhook.objects.waiting() {
        return refuse(&webhook, StatusCode::SERVICE_UNAVAILABLE, Code::NotSynced, &waiting, Instant::now());
    }
    match read(&webhook, &headers, body, deadline).await {
        Ok(body) => {
            let policies = webhook.policies.snapshot();
            if let Some(waiting) = &policies.waiting {
                return refuse(&webhook, StatusCode::SERVICE_UNAVAILABLE, Code::NotSynced, waiting, Instant::now());
            }
            let decide = |context: &Context<'_>, namespace: &str, pod: &Value| {
                let recorded = webhook.decisions.as_ref().and_then(|it| it.wants(context.request));
                let moment = Moment { objects: context.objects, time };
                let evaluator = policies.evaluator(deadline, moment).about(namespace, name(pod)).recorded(recorded);
                let decision = admission::decide(context, namespace, pod, &evaluator);
                (decision, recorded.map(|_| evaluator.into_calls()))
            };
            guarded(&webhook, &policies, &body, deadline, decide).await
        }
        Err((status, sentence)) => refuse(&webhook, status, Code::UnreadableBody, &sentence, Instant::now()),
    }
}

/// The API server says in the query how long it waits (`timeout=10s`). An answer after that helps nobody, so a fifth is kept
/// for the way.
fn time_limit(configured: Duration, query: Option<&str>) -> Duration {
    let parameters = query.into_iter().flat_map(|query| query.split('&'));
    let said = parameters.filter_map(|parameter| parameter.strip_prefix("timeout=")).next();
    let said = said.and_then(|text| humantime::parse_duration(text).ok());
    said.map_or(configured, |said| configured.min(said.mul_f32(0.8)))
}

/// The whole body, within the bounds of size and time.
async fn read(
    webhook: &Webhook,
    headers: &HeaderMap,
    body: Body,
    deadline: Instant,
) -> Result<Bytes, (StatusCode, String)> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json".into()));
    }
    let body = Limited::new(body, webhook.max_body).collect();
    match tokio::time::timeout_at(deadline.into(), body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let sentence = format!("the body has more than {} bytes (webhook.maxBody)", webhook.max_body);
            Err((StatusCode::PAYLOAD_TOO_LARGE, sentence))
        }
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body ended early".into())),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not come in time (webhook.timeout)".into())),
    }
}

/// The answer, or an error where it panicked: a defect costs its own request only.
async fn guarded(
    webhook: &Webhook,
    policies: &Policies,
    body: &[u8],
    deadline: Instant,
    decide: impl Fn(&Context<'_>, &str, &Value) -> (Decision, Option<Vec<Call>>),
) -> Response {
    let started = Instant::now();
    let answered = AssertUnwindSafe(answer(webhook, policies, body, deadline, decide, started)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        webhook.metrics.panics.inc();
        let sentence = "Pith failed while it handled this review, which is a defect: its log says where";
        refuse(webhook, StatusCode::INTERNAL_SERVER_ERROR, Code::Panic, sentence, started)
    })
}

async fn answer(
    webhook: &Webhook,
    policies: &Policies,
    body: &[u8],
    deadline: Instant,
    decide: impl Fn(&Context<'_>, &str, &Value) -> (Decision, Option<Vec<Call>>),
    started: Instant,
) -> Response {
    let review = match review::parse(body) {
        Ok(review) => review,
        Err(error) => {
            return refuse(webhook, StatusCode::BAD_REQUEST, Code::UnreadableReview, &error.to_string(), started);
        }
    };
    let (namespace, pod) = match &review.subject {
        Subject::PodCreation { namespace, pod } => (namespace, pod),
        Subject::PersistentVolume(volume) => {
            let checked = validate::persistent_volume(webhook, volume);
            return checked_answer(webhook, &review.uid, volume, &checked, started);
        }
        Subject::Secret(secret) => {
            return checked_answer(webhook, &review.uid, secret, &validate::secret(secret), started);
        }
        Subject::Eviction { namespace, pod } => {
            return match validate::eviction(webhook, namespace, pod, deadline).await {
                Ok((pod, checked)) => checked_answer(webhook, &review.uid, &pod, &checked, started),
                Err(unanswered) => {
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    refuse(webhook, status, Code::Unanswered, &unanswered.to_string(), started)
                }
            };
        }
        Subject::PolicyBinding(binding) => {
            let checked = validate::policy_binding(webhook, policies, binding, deadline).await;
            return checked_answer(webhook, &review.uid, binding, &checked, started);
        }
        Subject::Other => {
            webhook.metrics.admission("skip", Some(Skip::NotAPodCreation.code()), started);
            return json(review::render_other(&review.uid));
        }
    };
    let decide = |objects: &Objects| {
        let bindings = &policies.bindings;
        let (mut decision, calls) = decide(
            &Context { configuration: &webhook.configuration, bindings, objects, request: &review.uid },
            namespace,
            pod,
        );
        let missing = std::mem::take(&mut decision.missing);
        ((decision, calls), missing)
    };
    let (decision, calls) = match webhook.objects.decide(deadline, decide).await {
        Ok(decided) => decided,
        Err(unanswered) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return refuse(webhook, status, Code::Unanswered, &unanswered.to_string(), started);
        }
    };
    if let Some((decisions, calls)) = webhook.decisions.as_ref().zip(calls) {
        let about = About { id: &review.uid, namespace, name: name(pod) };
        decisions.pod(about, &decision, calls, started.elapsed());
    }
    let answer = review::render(&review.uid, &decision);
    log(&review.uid, namespace, pod, &decision, started);
    policies.note(namespace, name(pod), &decision.monitored);
    webhook.metrics.admission(outcome(&decision), decision.verdict.code(), started);
    match answer {
        Answer::Review(review) => json(review),
        Answer::Failure(sentence) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{sentence}\n")).into_response(),
    }
}

/// The answer about an object that is only looked at.
fn checked_answer(webhook: &Webhook, uid: &str, object: &Value, checked: &Checked, started: Instant) -> Response {
    let (outcome, reason) = match checked {
        Ok(_) => ("allow", None),
        Err(problem) => ("deny", Some(problem.code())),
    };
    let name = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_string();
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    webhook.metrics.admission(outcome, reason, started);
    let reason = reason.map_or("", Code::as_str);
    tracing::info!(%uid, namespace = name("namespace"), name = name("name"), outcome, reason, micros, "object looked at");
    json(review::render_checked(uid, checked))
}

/// The outcome of a decision, as metrics and the log say it.
pub(crate) fn outcome(decision: &Decision) -> &'static str {
    match &decision.verdict {
        Verdict::Skip { .. } => "skip",
        Verdict::Inject(_) => "inject",
        Verdict::Refuse(_) => "deny",
        Verdict::Fail(_) => "fail",
    }
}

/// How a pod is called, if only by what its name begins with.
fn name(pod: &Value) -> &str {
    let metadata = &pod["metadata"];
    metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default()
}

/// One line for each request, with names and never with content.
fn log(uid: &str, namespace: &str, pod: &Value, decision: &Decision, started: Instant) {
    let (outcome, reason) = (outcome(decision), decision.verdict.code().map_or("", Code::as_str));
    let name = name(pod);
    let operations = if let Verdict::Inject(patch) = &decision.verdict { patch.len() } else { 0 };
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::info!(%uid, %namespace, %name, outcome, reason, operations, micros, "review answered");
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn refuse(webhook: &Webhook, status: StatusCode, reason: Code, sentence: &str, started: Instant) -> Response {
    webhook.metrics.admission("invalid", Some(reason), started);
    tracing::warn!(status = status.as_u16(), %reason, error = %sentence, "request refused");
    (status, format!("{}\n", reason.behind(sentence))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use axum::http::Request;
    use pith_core::binding::{Binding, Evaluate, Match, Mode, OnFailure};
    use pith_core::object::{Claim, Namespace, Object, StorageClass};
    use pith_core::policy::{
        self, Change, Exemption, Failure, Hook, Naming, NamingRequest, Quota, QuotaRequest, SidecarFacts, VolumeFacts,
    };
    use pith_core::reason::ENABLE_LABEL;
    use proptest::prelude::*;
    use serde_json::json;
    use tower::ServiceExt;

    use crate::cluster::Mirror;
    use crate::config::Config;
    use crate::metrics::Metrics;
    use crate::policy::InForce;

    /// A webhook that asks one policy about the claim `data` in the namespace `shop`.
    fn webhook() -> Arc<Webhook> {
        let mut objects = Objects::default();
        let labels = [(ENABLE_LABEL.to_string(), "true".to_string())].into_iter().collect();
        objects.insert(Object::Namespace(Namespace { name: "shop".into(), labels, ..Namespace::default() }));
        let provisioner = Config::built_in().sidecars.driver;
        objects.insert(Object::StorageClass(StorageClass { name: "c".into(), provisioner, ..StorageClass::default() }));
        let (namespace, name) = ("shop".into(), "data".into());
        objects.insert(Object::Claim(Claim { namespace, name, storage_class: Some("c".into()), ..Claim::default() }));
        let mut policies = Policies::none();
        policies.bindings.push(Binding {
            name: "defect".into(),
            hooks: BTreeSet::from([Hook::Exemption]),
            matches: Match::default(),
            percent: 100,
            mode: Mode::Enforce,
            on_failure: OnFailure::Fail,
            priority: 0,
            shape: None,
        });
        Arc::new(Webhook {
            policies: Arc::new(InForce::new(policies)),
            decisions: None,
            trial: None,
            objects: Arc::new(Mirror::fixed(objects)),
            configuration: Config::built_in().sidecars,
            metrics: Arc::new(Metrics::new()),
            max_body: 1 << 20,
            in_flight: tokio::sync::Semaphore::new(1),
            timeout: Duration::from_secs(10),
        })
    }

    fn review() -> Vec<u8> {
        let volume = json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}});
        let request = json!({
            "uid": "1", "operation": "CREATE", "namespace": "shop",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "object": {"spec": {"containers": [], "volumes": [volume]}},
        });
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        serde_json::to_vec(&review).expect("it is JSON")
    }

    /// A defect in the host: it panics when it is asked.
    struct Defect;

    impl Evaluate for Defect {
        fn exempt(&self, _: &Binding, _: &policy::Subject<'_>, _: &[VolumeFacts]) -> Result<Exemption, Failure> {
            panic!("a defect")
        }

        fn adjust(
            &self,
            _: &Binding,
            _: &policy::Subject<'_>,
            _: &VolumeFacts,
            _: &SidecarFacts,
        ) -> Result<Change, Failure> {
            panic!("a defect")
        }

        fn name(&self, _: &Binding, _: &NamingRequest, _: &Value) -> Result<Naming, Failure> {
            panic!("a defect")
        }

        fn quota(&self, _: &Binding, _: &QuotaRequest, _: &Value) -> Result<Option<Quota>, Failure> {
            panic!("a defect")
        }
    }

    /// The answer where a policy has a defect. With objects that do not change there is nothing to wait for.
    fn answered(webhook: &Webhook, body: &[u8]) -> Response {
        let decide = |context: &Context<'_>, namespace: &str, pod: &Value| {
            (admission::decide(context, namespace, pod, &Defect), None)
        };
        guarded(webhook, &webhook.policies.snapshot(), body, Instant::now(), decide)
            .now_or_never()
            .expect("it waits for nothing")
    }

    #[test]
    fn a_panic_is_the_error_of_its_own_request() {
        let webhook = webhook();
        let answer = answered(&webhook, &review());
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(webhook.metrics.panics.get(), 1);
    }

    #[tokio::test]
    async fn a_policy_that_fails_is_http_500_and_no_denial() {
        // The binding has no module, which is as good a failure as any.
        let request = Request::post("/mutate").header("content-type", "application/json").body(Body::from(review()));
        let answer = super::super::router(webhook()).oneshot(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let expected = "policy `defect` failed, and its onFailure is `fail`: the host could not run it: its module is not loaded (reason: host)\n";
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }

    #[test]
    fn the_shorter_of_two_time_limits_holds_with_a_fifth_kept_for_the_way() {
        let check = |query: Option<&str>, expected: Duration| {
            assert_eq!(time_limit(Duration::from_secs(10), query), expected, "{query:?}");
        };
        check(None, Duration::from_secs(10));
        check(Some("timeout=5s"), Duration::from_secs(4));
        check(Some("a=b&timeout=30s"), Duration::from_secs(10));
        check(Some("timeout=soon"), Duration::from_secs(10));
        check(Some("timeout="), Duration::from_secs(10));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let answer = answered(&webhook(), &body);
            prop_assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        }

        #[test]
        fn a_review_with_one_byte_changed_is_always_answered(place in 0..350_usize, byte in any::<u8>()) {
            let mut body = review();
            let place = place.min(body.len() - 1);
            if body[place] != byte {
                body[place] = byte;
                // Whatever it became, it is answered: as a review, or with a sentence.
                let answer = answered(&webhook(), &body);
                prop_assert!(answer.status().is_success() || answer.status().is_client_error() || answer.status() == 500);
            }
        }
    }
}
