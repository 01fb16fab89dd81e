//! What Pith keeps in step in a cluster, beside the answers that it gives: the Secret of each claim, what pods must know of file systems, pods that cannot end, pods that have
//! nothing left to do, and the events of pods that were left alone.
//!
//! There is no leader. Every replica looks at the same objects and does the same, and what one has done already the next finds
//! done: Secrets are applied, not edited, and the names of events and of cleaner pods follow from what they are about.

mod secrets;
mod file_systems;
mod pods;
mod cleaner;
mod completion;
mod exempt;
mod finalizer;
mod notes;
mod due;

use std::sync::Arc;

use kube::Client;

use crate::cluster::Mirror;
use crate::config::Controller;
use crate::juicefs::Workers;
use crate::metrics::Metrics;

/// Keeps everything in step. It ends only with a defect. Without workers, file systems are somebody else's to make.
pub async fn run(
    client: Client,
    mirror: Arc<Mirror>,
    workers: Option<Arc<Workers>>,
    options: Controller,
    driver: &str,
    metrics: &Metrics,
) {
    let pods = pods::Pods::default();
    let secrets = secrets::Reconciler::new(&client, &mirror, &pods, workers, &options, driver, metrics);
    let cleaner = async {
        match &options.cleaner {
            Some(cleaner) => cleaner::run(&client, &pods, cleaner, metrics).await,
            None => std::future::pending().await,
        }
    };
    let completion = async {
        if options.complete_jobs {
            completion::run(&client, metrics).await;
        }
        std::future::pending::<()>().await;
    };
    let said = async { tokio::join!(exempt::run(&client, metrics), notes::run(&client, &pods)) };
    let finalizers = finalizer::run(&client, &mirror, driver, options.resync);
    tokio::join!(pods.follow(&client, metrics), secrets.run(), cleaner, completion, said, finalizers);
}
