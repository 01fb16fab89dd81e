//! Says in events on injected pods what their makers did not see: a workload's controller gets the webhook's warnings, and keeps them
//! to itself.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use kube::Client;
use pith_core::catalogue::Code;
use pith_core::text::clean;

use super::pods::Pods;
use crate::cluster::event;

/// How long API servers remember an event, if nobody says otherwise: of a pod that is older it was said, and forgotten.
pub(super) const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// How much of a note is said, in bytes, and how many of one pod: they may be its author's word.
const NOTE: usize = 500;
const MOST: usize = 4;

/// Tells of pods as they come. It ends only with a defect.
pub(super) async fn run(client: &Client, pods: &Pods) {
    let mut changes = pods.changes();
    let mut told = BTreeSet::new();
    loop {
        changes.mark_unchanged();
        let mut noted = pods.snapshot().unwrap_or_default();
        noted.retain(|_, pod| !pod.notes.is_empty() && pod.made + REMEMBERED > SystemTime::now());
        told.retain(|uid| noted.values().any(|pod| pod.uid == *uid));
        for ((namespace, name), pod) in noted {
            if !told.insert(pod.uid.clone()) {
                continue;
            }
            for note in pod.notes.iter().take(MOST) {
                let (kind, reason, action) = ("Warning", Code::TemplateValueUnknown, "Inject");
                let happened = event::Happened { kind, reason, action, note: &clean(note, NOTE) };
                event::tell(client, event::about("Pod", &namespace, &name, &pod.uid), happened).await;
            }
        }
        let _ = changes.changed().await;
    }
}
