//! What runs in a cluster, for `pith inject`: the pods of a workload as they are, and the objects that decisions about them read.

use anyhow::{Context as _, Result, bail};
use kube::api::ListParams;
use pith_core::json::entries;
use pith_core::object::Objects;
use pith_core::selector::LabelSelector;
use serde_json::Value;

use crate::args::Inject;
use crate::cluster::{self, Look};
use crate::config::{Config, ObjectSource};

/// The kinds that can be named, as kubectl has them: all names of one, its group and its kind.
const KINDS: [(&[&str], &str, &str); 6] = [
    (&["pod", "pods", "po"], "", "Pod"),
    (&["deployment", "deployments", "deploy"], "apps", "Deployment"),
    (&["statefulset", "statefulsets", "sts"], "apps", "StatefulSet"),
    (&["daemonset", "daemonsets", "ds"], "apps", "DaemonSet"),
    (&["replicaset", "replicasets", "rs"], "apps", "ReplicaSet"),
    (&["job", "jobs"], "batch", "Job"),
];

/// A workload or a pod that somebody named.
struct Named<'a> {
    text: &'a str,
    group: &'static str,
    kind: &'static str,
    name: &'a str,
}

/// The objects of a cluster, and the pods of what `args` names.
pub(super) async fn read(args: &Inject, config: &Config) -> Result<(Objects, Vec<Value>)> {
    let named = args.running.iter().map(|it| Named::read(it)).collect::<Result<Vec<_>>>()?;
    let kubeconfig = args.kubeconfig.as_deref().or(match &config.objects {
        Some(ObjectSource::Cluster { kubeconfig, .. }) => kubeconfig.as_deref(),
        _ => None,
    });
    let look = Look(cluster::connect_as_kubectl(kubeconfig).await?);
    let (objects, unread) = look.everything(Some(&args.namespace), config.file_systems()).await?;
    if let Some((kind, why)) = unread.into_iter().next() {
        return Err(anyhow::Error::msg(why).context(format!("reading {}", kind.plural())));
    }
    let mut pods = Vec::new();
    for named in named {
        pods.extend(named.pods(&look, &args.namespace).await?);
    }
    Ok((objects, pods))
}

impl<'a> Named<'a> {
    fn read(text: &'a str) -> Result<Named<'a>> {
        let known = text.split_once('/').filter(|(_, name)| !name.is_empty()).and_then(|(kind, name)| {
            let (_, group, kind) = KINDS.iter().find(|(names, ..)| names.contains(&kind))?;
            Some(Named { text, group, kind, name })
        });
        known.with_context(|| {
            format!("`{text}` is nothing that runs: name pods and what has them, as in pod/web-0, deployment/web or job/import")
        })
    }

    /// The pods that run, or the pod itself.
    async fn pods(&self, look: &Look, namespace: &str) -> Result<Vec<Value>> {
        let found = look.value((self.group, self.kind), namespace, self.name).await?;
        let found = found.map_err(anyhow::Error::msg).with_context(|| format!("reading {}", self.text))?;
        let Some(found) = found else { bail!("there is no {} in the namespace `{namespace}`", self.text) };
        if self.kind == "Pod" {
            return Ok(vec![bare(found)]);
        }
        let selector = LabelSelector::read(&found["spec"]["selector"]);
        let selected = |pod: Value| selector.matches(&entries(&pod["metadata"]["labels"])).then(|| bare(pod));
        let pods = look.values(("", "Pod"), Some(namespace), ListParams::default(), selected).await?;
        let pods = pods.map_err(anyhow::Error::msg).context("reading pods")?;
        if pods.is_empty() {
            bail!("{} has no pods in the namespace `{namespace}`", self.text);
        }
        Ok(pods)
    }
}

/// What the API server fills in where a container says nothing.
const FILLED_IN: [&str; 4] =
    ["imagePullPolicy", "successThreshold", "terminationMessagePath", "terminationMessagePolicy"];

/// Gives each container that was decided anew what the API server had filled in: it would do so again, and that is no change.
pub(super) fn fill_in(after: &mut Value, before: &Value) {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            for (key, value) in before {
                match after.get_mut(key) {
                    Some(present) => fill_in(present, value),
                    None if FILLED_IN.contains(&key.as_str()) => drop(after.insert(key.clone(), value.clone())),
                    None => {}
                }
            }
        }
        (Value::Array(after), Value::Array(before)) => {
            for item in after.iter_mut().filter(|item| item["name"].is_string()) {
                let was = before.iter().find(|it| it["name"] == item["name"]);
                was.into_iter().for_each(|was| fill_in(item, was));
            }
        }
        _ => {}
    }
}

/// Without its status, which no decision reads and nobody applies.
fn bare(mut pod: Value) -> Value {
    if let Some(pod) = pod.as_object_mut() {
        pod.remove("status");
    }
    // A list of one kind leaves both to the list.
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_server_fills_in_is_no_change() {
        let before = json!({"spec": {"containers": [
            {"name": "app", "image": "a"},
            {"name": "jfs-mount", "image": "a", "imagePullPolicy": "Always", "args": ["x"], "startupProbe": {"successThreshold": 1}},
        ]}});
        let mut after =
            json!({"spec": {"containers": [{"name": "jfs-mount", "image": "b", "startupProbe": {}}, {"name": "app"}]}});
        fill_in(&mut after, &before);
        let client = json!({"name": "jfs-mount", "image": "b", "imagePullPolicy": "Always", "startupProbe": {"successThreshold": 1}});
        assert_eq!(after, json!({"spec": {"containers": [client, {"name": "app"}]}}));
    }

    #[test]
    fn what_runs_is_named_as_for_kubectl() {
        for (text, expected) in [
            ("pod/web-0", Some(("", "Pod", "web-0"))),
            ("deploy/web", Some(("apps", "Deployment", "web"))),
            ("statefulsets/db", Some(("apps", "StatefulSet", "db"))),
            ("job/import", Some(("batch", "Job", "import"))),
            ("web", None),
            ("deployment/", None),
            ("cronjob/nightly", None),
            ("Deployment/web", None),
        ] {
            let read = Named::read(text).ok().map(|it| (it.group, it.kind, it.name));
            assert_eq!(read, expected, "{text}");
        }
    }
}
