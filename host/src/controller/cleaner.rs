//! Frees pods that cannot end because a JuiceFS mount was left on their node.
//!
//! A pod's guard unmounts when the pod ends, whatever state the client is in. Only where every container of the pod is killed at
//! once is nobody left to do so: the kubelet then cannot remove the pod's volume, and the pod stays in Terminating. Such a pod is
//! seen here, and one short-lived pod on its node unmounts what is left in its folder.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use pith_core::catalogue::Code;
use serde_json::{Value, json};

use super::pods::{InjectedPod, PodName, Pods};
use crate::cluster::{self, event};
use crate::config::Cleaner;
use crate::metrics::Metrics;

/// How often it is looked whether a pod hangs, while any is ending.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a cleaner pod may run.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How long one that ended stays to be looked at, where the pod that it was for still hangs. Then another one tries.
const KEPT: Duration = Duration::from_secs(300);
/// The label of cleaner pods: the UID of the pod that one is for.
const FOR_POD: &str = "pith.io/cleans-up-after";
/// The program of the guard, in Pith's image.
const GUARD: &str = "/usr/local/bin/pith-guard";

/// Looks after pods that hang. It ends only with a defect.
pub(super) async fn run(client: &Client, pods: &Pods, options: &Cleaner, metrics: &Metrics) {
    let mut changes = pods.changes();
    // At the start there may be cleaner pods of a process before this one.
    let mut unsettled = true;
    loop {
        changes.mark_unchanged();
        // Before they are listed, a cleaner pod that is needed would look as if it were not.
        let Some(known) = pods.snapshot() else {
            let _ = changes.changed().await;
            continue;
        };
        let ending: BTreeMap<_, _> = known.into_iter().filter(|(_, pod)| pod.ends.is_some()).collect();
        // Pods come and go: with none that ends, and none that did before, the API server is not asked.
        if unsettled || !ending.is_empty() {
            unsettled = !ending.is_empty();
            if let Err(error) = look(client, &ending, options, metrics).await {
                unsettled = true;
                tracing::warn!(error = %cluster::cause(&error), "it cannot be seen to pods that hang; it is tried again");
            }
        }
        tokio::select! {
            // With nothing ending there is nothing to wait for but a change; cleaner pods that ended can wait, too.
            _ = changes.changed(), if ending.is_empty() => {}
            () = tokio::time::sleep(if ending.is_empty() { KEPT } else { INTERVAL }) => {}
        }
    }
}

async fn look(
    client: &Client,
    ending: &BTreeMap<PodName, InjectedPod>,
    options: &Cleaner,
    metrics: &Metrics,
) -> kube::Result<()> {
    let cleaners = Api::<Pod>::namespaced(client.clone(), &options.namespace);
    let present = cleaners.list(&ListParams::default().labels(FOR_POD)).await?;
    for cleaner in &present {
        let is_for = cleaner.labels().get(FOR_POD);
        let needed = ending.values().any(|pod| Some(&pod.uid) == is_for);
        if !needed || has_ended_before(cleaner, SystemTime::now() - KEPT) {
            cleaners.delete(&cleaner.name_any(), &DeleteParams::default()).await.map(drop).or_else(gone)?;
        }
    }
    for ((namespace, name), pod) in ending {
        let late = pod.ends.is_some_and(|ends| ends + options.after <= SystemTime::now());
        let helped = present.iter().any(|cleaner| cleaner.labels().get(FOR_POD) == Some(&pod.uid));
        if !late || helped {
            continue;
        }
        let Some(hanging) = Api::<Pod>::namespaced(client.clone(), namespace).get_opt(name).await? else { continue };
        let given_up = pod.ends.is_some_and(|ends| ends + options.after * 2 <= SystemTime::now());
        let Some(node) = node_to_clean(&hanging, &pod.uid, given_up) else { continue };
        let cleaner = serde_json::from_value(manifest(&pod.uid, node, options)).map_err(kube::Error::SerdeError)?;
        let created = cleaners.create(&PostParams::default(), &cleaner).await;
        match created {
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => continue,
            created => drop(created?),
        }
        metrics.cleaners.inc();
        tracing::warn!(%namespace, pod = %name, %node, "a pod hangs after its containers ended: a cleaner pod was started");
        let note = format!(
            "its time is over and the pod is still there: the pod `{}/{}` unmounts what JuiceFS left on the node",
            options.namespace,
            cleaner.name_any()
        );
        let happened =
            event::Happened { kind: "Warning", reason: Code::MountLeftBehind, action: "CleanUp", note: &note };
        event::tell(client, event::about("Pod", namespace, name, &pod.uid), happened).await;
    }
    Ok(())
}

/// What was to be deleted and is not there is as good as deleted.
fn gone(error: kube::Error) -> kube::Result<()> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        error => Err(error),
    }
}

/// The node of a pod whose containers have all ended. While one runs, its guard may still do its work, and a client may still
/// write what it has: then nothing is touched. Once the kubelet has been given up on, one that still runs was killed long ago and
/// cannot end: a client whose thread waits for its own mount does so only when that is aborted.
fn node_to_clean<'a>(pod: &'a Pod, uid: &str, given_up: bool) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let ended = containers.clone().all(|it| it.state.as_ref().is_some_and(|state| state.running.is_none()));
    let is_it = pod.metadata.uid.as_deref() == Some(uid) && pod.metadata.deletion_timestamp.is_some();
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    (is_it && (ended || given_up) && containers.count() > 0).then_some(node)
}

fn has_ended_before(pod: &Pod, before: SystemTime) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut ended = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ended.any(|ended| SystemTime::from(ended.0) < before)
}

/// A pod that unmounts every FUSE file system in the emptyDirs of another one. It is bound to the node by name, so that no
/// scheduler keeps it from there, and ends by itself.
fn manifest(uid: &str, node: &str, options: &Cleaner) -> Value {
    let folder = options.kubelet_dir.join("pods").join(uid).join("volumes/kubernetes.io~empty-dir");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("pith-cleaner-{uid}"),
            "namespace": options.namespace,
            "labels": {FOR_POD: uid, "app.kubernetes.io/name": "pith", "app.kubernetes.io/component": "cleaner"},
        },
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": TIME_LIMIT.as_secs(),
            "terminationGracePeriodSeconds": 1,
            "serviceAccountName": options.service_account,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "clean",
                "image": options.image,
                "command": [GUARD, "clean", folder],
                // Unmounting for the node is allowed to privileged containers only.
                "securityContext": {"privileged": true, "runAsUser": 0, "runAsNonRoot": false, "readOnlyRootFilesystem": true},
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"},
                },
                "volumeMounts": [{"name": "pod", "mountPath": folder, "mountPropagation": "Bidirectional"}],
            }],
            // Where there is no such folder any more there is nothing to unmount, and no folder is made.
            "volumes": [{"name": "pod", "hostPath": {"path": folder, "type": "Directory"}}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pod_whose_containers_have_all_ended_is_cleaned_up_after() {
        let check = |name: &str, change: &dyn Fn(&mut Value), expected: Option<&str>| {
            let ended = json!({"terminated": {"exitCode": 137}});
            let container = |name: &str| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": ended});
            let mut pod = json!({
                "metadata": {"name": "web", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": "node-1", "containers": []},
                "status": {
                    "containerStatuses": [container("app")],
                    "initContainerStatuses": [container("pith-guard"), container("jfs-mount")],
                },
            });
            change(&mut pod);
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            assert_eq!(node_to_clean(&pod, "1", false), expected, "{name}");
            let is_it = pod.metadata.uid.as_deref() == Some("1") && pod.metadata.deletion_timestamp.is_some();
            let seen = pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some());
            let node = (is_it && seen).then(|| pod.spec.as_ref()?.node_name.as_deref()).flatten();
            assert_eq!(node_to_clean(&pod, "1", true), node, "{name}, and given up");
        };
        check("all ended", &|_| {}, Some("node-1"));
        check(
            "never started",
            &|pod| pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {}}),
            Some("node-1"),
        );
        check(
            "the guard runs",
            &|pod| pod["status"]["initContainerStatuses"][0]["state"] = json!({"running": {}}),
            None,
        );
        check("state unknown", &|pod| pod["status"]["containerStatuses"][0]["state"] = Value::Null, None);
        check("no container was ever seen", &|pod| pod["status"] = json!({}), None);
        check("another pod of that name", &|pod| pod["metadata"]["uid"] = json!("2"), None);
        check("not deleted", &|pod| pod["metadata"]["deletionTimestamp"] = Value::Null, None);
        check("never scheduled", &|pod| pod["spec"]["nodeName"] = Value::Null, None);
    }

    #[test]
    fn a_cleaner_pod_reaches_the_folder_of_one_pod_and_nothing_else() {
        let options = Cleaner {
            namespace: "pith-system".into(),
            service_account: "pith-cleaner".into(),
            image: "docker.io/pith/pith:0.1.0".into(),
            after: Duration::from_secs(30),
            kubelet_dir: "/var/lib/kubelet".into(),
        };
        insta::assert_yaml_snapshot!(manifest("0a1b2c3d", "node-1", &options));
    }
}
