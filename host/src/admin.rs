//! Health, readiness, metrics and what is known of policies, on a listener of their own.
//!
//! `/livez` says that the process answers. `/readyz` is true from the moment when the webhook listens with every policy loaded
//! and every kind of object listed, until it begins to stop. `/metrics` is for Prometheus, and `/policies` for people and
//! scripts that have no PolicyBindings to read: which policies are in force, what cannot be, and how their calls went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::cluster::Mirror;
use crate::metrics::Metrics;
use crate::policy::InForce;

/// Whether the listeners are there and stay. It begins as no.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says yes or no from now on.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What is told.
#[derive(Debug, Clone)]
pub struct About {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the listeners are there.
    pub readiness: Readiness,
    /// The objects.
    pub objects: Arc<Mirror>,
    /// The policies in force.
    pub policies: Arc<InForce>,
}

/// The routes.
pub fn router(about: About) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .route("/policies", get(policies))
        .with_state(about)
}

async fn ready(State(about): State<About>) -> (StatusCode, String) {
    let waiting = match about.readiness.get() {
        true => about.objects.waiting().or_else(|| about.policies.snapshot().waiting.clone()),
        false => Some("starting or stopping".into()),
    };
    match waiting {
        None => (StatusCode::OK, "ok\n".into()),
        Some(waiting) => (StatusCode::SERVICE_UNAVAILABLE, format!("{waiting}\n")),
    }
}

async fn policies(State(about): State<About>) -> Response {
    let text = serde_json::to_string_pretty(&about.policies.snapshot().report()).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], format!("{text}\n")).into_response()
}

async fn scrape(State(About { metrics, objects, .. }): State<About>) -> Response {
    metrics.objects(&objects.snapshot());
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match metrics.render() {
        Ok(text) => (kind, text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response(),
    }
}
