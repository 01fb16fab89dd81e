//! The admission webhook: routes, bounds on size and time, and the panic boundary.

mod handler;
pub mod review;
mod strict_json;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use pith_core::settings::Configuration;
use tokio::sync::Semaphore;

use crate::cluster::Mirror;
use crate::decisions::Decisions;
use crate::metrics::Metrics;
use crate::policy::{InForce, Trial};

pub(crate) use handler::outcome;

/// What every request needs, shared.
#[derive(Debug)]
pub struct Webhook {
    /// The policies in force.
    pub policies: Arc<InForce>,
    /// Where decisions are recorded; absent for nowhere.
    pub decisions: Option<Arc<Decisions>>,
    /// How PolicyBindings are tried before they are stored; absent where there are none.
    pub trial: Option<Arc<Trial>>,
    /// The objects, of which each request takes a snapshot.
    pub objects: Arc<Mirror>,
    /// The configuration of sidecars.
    pub configuration: Configuration,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The largest body in bytes.
    pub max_body: usize,
    /// A permit for each request that may be in hand at once.
    pub in_flight: Semaphore,
    /// The most time for one request.
    pub timeout: Duration,
}

/// The routes. Anything but `POST /mutate` is 404 or 405.
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new().route("/mutate", post(handler::mutate)).with_state(webhook)
}
