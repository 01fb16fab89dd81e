//! Whether the application of a pod has ended, and only its clients keep it from completing.
//!
//! That is so where clients are containers like the application's ([`Shape::Container`](crate::shape::Shape)), in pods that are to
//! end by themselves. Native sidecars are ended by the kubelet.

use serde_json::Value;

use crate::json::list;
use crate::pod::Pod;
use crate::reason::FINISH_ANNOTATION;
use crate::sidecar::{self, GUARD_NAME};

/// Whether it is time to tell the pod's guard that the application has ended: every container of it has, and none is started again.
pub fn is_due(pod: &Value) -> bool {
    let Ok(read) = Pod::read(pod) else { return false };
    let metadata = &pod["metadata"];
    if !read.runs_to_completion() || !metadata["deletionTimestamp"].is_null() {
        return false;
    }
    if read.annotation(FINISH_ANNOTATION) == Some("true") {
        return false;
    }
    // A failed container is started again unless the pod says never.
    let again = pod["spec"]["restartPolicy"] == "OnFailure";
    let statuses = list(&pod["status"]["containerStatuses"]);
    let state = |name: &Value| statuses.iter().find(|status| status["name"] == *name).map(|status| &status["state"]);
    let has_ended = |name: &Value| {
        let ended = state(name).and_then(|state| state.get("terminated"));
        ended.is_some_and(|it| it.is_object() && (!again || it["exitCode"] == 0))
    };
    let (ours, theirs): (Vec<&Value>, Vec<&Value>) = (list(&pod["spec"]["containers"]).iter())
        .map(|container| &container["name"])
        .partition(|name| name.as_str().is_some_and(sidecar::is_own_name));
    let guarded =
        ours.into_iter().any(|name| name == GUARD_NAME && state(name).is_some_and(|it| it["running"].is_object()));
    guarded && !theirs.is_empty() && theirs.into_iter().all(has_ended)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_over_when_only_its_clients_run() {
        let check = |name: &str, expected: bool, change: &dyn Fn(&mut Value)| {
            let container = |name: &str, state: Value| json!({"name": name, "state": state});
            let running = || json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
            let mut pod = json!({
                "metadata": {"name": "job-1"},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "jfs-mount"}, {"name": "pith-guard"}, {"name": "work"}, {"name": "more"}],
                },
                "status": {"containerStatuses": [
                    container("more", json!({"terminated": {"exitCode": 0}})),
                    container("work", json!({"terminated": {"exitCode": 1}})),
                    container("jfs-mount", running()),
                    container("pith-guard", running()),
                ]},
            });
            change(&mut pod);
            assert_eq!(is_due(&pod), expected, "{name}");
        };
        let state = |place: usize, state: Value| {
            move |pod: &mut Value| pod["status"]["containerStatuses"][place]["state"] = state.clone()
        };
        check("all ended, one with an error", true, &|_| {});
        check("a killed client", true, &state(2, json!({"terminated": {"exitCode": 137}})));
        check("a container runs", false, &state(0, json!({"running": {}})));
        check("a container waits", false, &state(1, json!({"waiting": {"reason": "PodInitializing"}})));
        check("a container without a status", false, &|pod| {
            pod["status"]["containerStatuses"].as_array_mut().expect("a list").remove(0);
        });
        check("it will be started again", false, &|pod| pod["spec"]["restartPolicy"] = json!("OnFailure"));
        check("it is done at last", true, &|pod| {
            pod["spec"]["restartPolicy"] = json!("OnFailure");
            pod["status"]["containerStatuses"][1]["state"] = json!({"terminated": {"exitCode": 0}});
        });
        check("it goes on for ever", false, &|pod| pod["spec"]["restartPolicy"] = json!("Always"));
        check("its guard has been told", false, &|pod| {
            pod["metadata"]["annotations"] = json!({"pith.io/finish": "true"});
        });
        check("its guard has ended", false, &state(3, json!({"terminated": {"exitCode": 0}})));
        check("it is being deleted", false, &|pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        check("native sidecars", false, &|pod| {
            let containers = pod["spec"]["containers"].as_array_mut().expect("a list");
            let sidecars = containers.drain(..2).collect::<Vec<_>>();
            pod["spec"]["initContainers"] = json!(sidecars);
        });
        check("no pod", false, &|pod| *pod = json!(5));
    }
}
