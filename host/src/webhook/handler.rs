//! One admission request: body → review → decision → answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use pith_core::admission::{self, Context, Decision, Verdict};
use pith_core::policy::Evaluate;
use serde_json::Value;

use super::Webhook;
use super::review::{self, Answer, Subject};

/// Answers one review. Whatever goes wrong is an HTTP error with a sentence, so that the cluster's `failurePolicy` decides.
pub(super) async fn mutate(
    State(webhook): State<Arc<Webhook>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let deadline = Instant::now() + time_limit(webhook.timeout, query.as_deref());
    match read(&webhook, &headers, body, deadline).await {
        Ok(body) => answer(&webhook, &body, deadline),
        Err((status, sentence)) => refuse(&webhook, status, "unreadable-body", &sentence, Instant::now()),
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

fn answer(webhook: &Webhook, body: &[u8], deadline: Instant) -> Response {
    let started = Instant::now();
    let review = match review::parse(body) {
        Ok(review) => review,
        Err(error) => {
            return refuse(webhook, StatusCode::BAD_REQUEST, "unreadable-review", &error.to_string(), started);
        }
    };
    let Subject::PodCreation { namespace, pod } = &review.subject else {
        webhook.metrics.admission("skip", "not-a-pod-creation", started);
        return json(review::render_other(&review.uid));
    };
    let evaluator = webhook.policies.evaluator(deadline);
    let Ok(decision) = decide(webhook, namespace, pod, &evaluator) else {
        webhook.metrics.panics.inc();
        tracing::error!(uid = %review.uid, %namespace, "handling the review panicked");
        let sentence = format!("Pith failed while it handled the review {}: its log says more", review.uid);
        return refuse(webhook, StatusCode::INTERNAL_SERVER_ERROR, "panic", &sentence, started);
    };
    let (outcome, reason) = summary(&decision);
    log(&review.uid, namespace, pod, &decision, started);
    match review::render(&review.uid, &decision) {
        Answer::Review(review) => {
            webhook.metrics.admission(outcome, reason, started);
            json(review)
        }
        Answer::Failure(sentence) => {
            webhook.metrics.admission(outcome, reason, started);
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{sentence}\n")).into_response()
        }
    }
}

/// The decision, or an error where it panicked: a defect costs its own request only.
fn decide(webhook: &Webhook, namespace: &str, pod: &Value, policies: &dyn Evaluate) -> std::thread::Result<Decision> {
    let context = Context {
        configuration: &webhook.configuration,
        bindings: &webhook.policies.bindings,
        objects: &webhook.objects,
    };
    catch_unwind(AssertUnwindSafe(|| admission::decide(&context, namespace, pod, policies)))
}

/// The outcome and the reason of a decision, as metrics and the log say them.
pub(crate) fn summary(decision: &Decision) -> (&'static str, &'static str) {
    match &decision.verdict {
        Verdict::Skip(skip) => ("skip", skip.code()),
        Verdict::Inject(_) => ("inject", ""),
        Verdict::Refuse(refusal) => ("deny", refusal.code()),
        Verdict::Fail(failure) => ("fail", failure.failure.kind()),
    }
}

/// One line for each request, with names and never with content.
fn log(uid: &str, namespace: &str, pod: &Value, decision: &Decision, started: Instant) {
    let (outcome, reason) = summary(decision);
    let metadata = &pod["metadata"];
    let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default();
    let operations = if let Verdict::Inject(patch) = &decision.verdict { patch.len() } else { 0 };
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::info!(%uid, %namespace, %name, outcome, reason, operations, micros, "review answered");
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn refuse(webhook: &Webhook, status: StatusCode, reason: &'static str, sentence: &str, started: Instant) -> Response {
    webhook.metrics.admission("invalid", reason, started);
    tracing::warn!(status = status.as_u16(), reason, error = %sentence, "request refused");
    (status, format!("{sentence}\n")).into_response()
}
