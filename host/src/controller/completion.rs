//! Tells pods that run to completion that their application has ended.
//!
//! Where clients are plain containers, they would keep such a pod running for ever. Its guard reads one annotation of the pod by way
//! of a volume, and ends the clients when that is written here. Nothing is run in the pod, and what is written goes by way of its
//! status: neither its containers nor anything else of its spec can be changed so.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use pith_core::completion;
use pith_core::reason::{DONE_LABEL, FINISH_ANNOTATION};
use serde_json::{Value, json};

use super::due::Due;
use super::pods::PodName;
use crate::cluster;
use crate::metrics::Metrics;

/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// Looks after pods that are to complete. It ends only with a defect.
pub(super) async fn run(client: &Client, metrics: &Metrics) {
    let due = Due::new();
    let restarts = metrics.watch_restarts("jobs");
    // Untyped, because what decides reads it as it is; and only those that could ever be told.
    let api = Api::<DynamicObject>::all_with(client.clone(), &kube::api::ApiResource::erase::<Pod>(&()));
    let running = Config::default()
        .labels(&format!("{DONE_LABEL}=true"))
        .fields("status.phase=Running,spec.restartPolicy!=Always");
    let follow = cluster::events(api, running, "jobs", |event| match event {
        Ok(Event::InitApply(pod) | Event::Apply(pod)) if completion::is_due(&json!(pod)) => {
            due.add((pod.namespace().unwrap_or_default(), pod.name_any()));
        }
        Ok(_) => {}
        Err(_) => {
            restarts.inc();
        }
    });
    let tell = async {
        loop {
            let pod = due.first().await;
            match tell(client, &pod).await {
                Ok(()) => due.done(&pod),
                Err(error) => {
                    let ((namespace, pod), error) = (&pod, cluster::cause(&error));
                    tracing::warn!(%namespace, %pod, %error, "it cannot be told that its application has ended; it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::join!(follow, tell);
}

/// What is gone needs to be told nothing.
async fn tell(client: &Client, (namespace, name): &PodName) -> kube::Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let patch: Value = json!({"metadata": {"annotations": {FINISH_ANNOTATION: "true"}}});
    match pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            tracing::info!(%namespace, pod = %name, "its application has ended: its JuiceFS clients are to end too");
            Ok(())
        }
    }
}
