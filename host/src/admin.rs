//! Health, readiness and metrics, on a listener of their own.
//!
//! `/livez` says that the process answers. `/readyz` is true from the moment when the webhook listens with every policy loaded
//! and every kind of object listed, until it begins to stop. `/metrics` is for Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::cluster::Mirror;
use crate::metrics::Metrics;

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

/// The routes.
pub fn router(metrics: Arc<Metrics>, readiness: Readiness, objects: Arc<Mirror>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state((readiness, objects.clone()))
        .merge(Router::new().route("/metrics", get(scrape)).with_state((metrics, objects)))
}

async fn ready(State((readiness, objects)): State<(Readiness, Arc<Mirror>)>) -> (StatusCode, String) {
    let waiting = if readiness.get() { objects.waiting() } else { Some("starting or stopping".into()) };
    match waiting {
        None => (StatusCode::OK, "ok\n".into()),
        Some(waiting) => (StatusCode::SERVICE_UNAVAILABLE, format!("{waiting}\n")),
    }
}

async fn scrape(State((metrics, objects)): State<(Arc<Metrics>, Arc<Mirror>)>) -> Response {
    metrics.objects(&objects.snapshot());
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match metrics.render() {
        Ok(text) => (kind, text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response(),
    }
}
