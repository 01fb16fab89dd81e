//! Says in an event on each pod that a policy exempted why it has no sidecar, for whoever looks at events and not at annotations.
//!
//! The webhook writes no events: the pod that it answers about may never come to be. What it leaves on the pod is a label, by which
//! such pods are found here, and the reason. An author can write both too; what comes of that is an event on a pod of the author's own.

use std::collections::HashSet;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Pod;
use kube::core::{PartialObjectMeta, ResourceExt};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};
use pith_core::catalogue::Code;
use pith_core::reason::{DONE_LABEL, SKIPPED_ANNOTATION, SKIPPED_LABEL};
use pith_core::text::clean;

use super::due::Due;
use super::notes::REMEMBERED;
use crate::cluster::{self, event};
use crate::metrics::Metrics;

/// How much of a reason is said, in bytes.
const REASON: usize = 1000;

/// A pod that a policy exempted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Exempt {
    namespace: String,
    name: String,
    uid: String,
    reason: String,
}

/// Tells of exempt pods. It ends only with a defect.
pub(super) async fn run(client: &Client, metrics: &Metrics) {
    let due = Due::new();
    // By UID: a pod changes often, and its author may change the reason as often.
    let mut seen = HashSet::new();
    let restarts = metrics.watch_restarts("exempt");
    let api = Api::<PartialObjectMeta<Pod>>::all(client.clone());
    // A pod that was copied from an exempt one, and was injected after all, has both labels.
    let exempt = Config::default().labels(&format!("{SKIPPED_LABEL}=true,{DONE_LABEL}!=true"));
    let follow = cluster::events(api, exempt, "exempt", |event| match event {
        Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
            let pod = Exempt::read(&pod, SystemTime::now()).filter(|pod| seen.insert(pod.uid.clone()));
            pod.into_iter().for_each(|pod| due.add(pod));
        }
        Ok(Event::Delete(pod)) => drop(pod.uid().map(|uid| seen.remove(&uid))),
        // Some may have gone unseen. To say something again changes nothing.
        Ok(Event::Init) => seen.clear(),
        Ok(Event::InitDone) => {}
        Err(_) => drop(restarts.inc()),
    });
    let tell = async {
        loop {
            let pod = due.first().await;
            let about = event::about("Pod", &pod.namespace, &pod.name, &pod.uid);
            let (kind, reason, action) = ("Normal", Code::ExemptByPolicy, "Exempt");
            event::tell(client, about, event::Happened { kind, reason, action, note: &pod.reason }).await;
            due.done(&pod);
        }
    };
    tokio::join!(follow, tell);
}

impl Exempt {
    /// What there is to say of a pod; nothing where it has been said for long.
    fn read(pod: &PartialObjectMeta<Pod>, now: SystemTime) -> Option<Exempt> {
        let made = SystemTime::from(pod.creation_timestamp()?.0);
        let reason = pod.annotations().get(SKIPPED_ANNOTATION)?;
        (made + REMEMBERED > now).then(|| Exempt {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            reason: clean(reason, REASON),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_said_of_a_pod_is_its_reason_once_it_is_made_and_not_an_hour_later() {
        // 2026-01-01T00:00:00Z, when the pod was made.
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let check = |about: &str, annotations: Value, minutes: u64, expected: Option<&str>| {
            let metadata = json!({
                "namespace": "shop", "name": "web-0", "uid": "1", "annotations": annotations,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            });
            let pod = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
            let pod = serde_json::from_value(pod).expect("the metadata of a pod");
            let said = Exempt::read(&pod, made + Duration::from_secs(60 * minutes));
            assert_eq!(said.as_ref().map(|it| it.reason.as_str()), expected, "{about}");
            let named =
                |it: &Exempt| (it.namespace.as_str(), it.name.as_str(), it.uid.as_str()) == ("shop", "web-0", "1");
            assert!(said.is_none_or(|it| named(&it)), "{about}");
        };
        let reason = json!({SKIPPED_ANNOTATION: "policy `who` exempts the pod: batch (reason: exempt-by-policy)"});
        let sentence = reason[SKIPPED_ANNOTATION].as_str();
        check("just made", reason.clone(), 0, sentence);
        check("made a while ago", reason.clone(), 59, sentence);
        check("forgotten", reason.clone(), 60, None);
        check("the label alone", json!({"team": "web"}), 0, None);
        check("somebody's own words", json!({SKIPPED_ANNOTATION: "a\n\u{1b}[2Jb"}), 0, Some("a\\n\\u{1b}[2Jb"));
        let long = "x".repeat(REASON + 1);
        check(
            "too many",
            json!({SKIPPED_ANNOTATION: long}),
            0,
            Some(&format!("{}…", &long[..REASON - '…'.len_utf8()])),
        );
    }
}
