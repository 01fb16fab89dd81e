//! What commands decide about: pods, workloads and claims from files, or those that are in a cluster, and the objects that such
//! decisions read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use kube::api::ListParams;
use pith_core::binding;
use pith_core::json::entries;
use pith_core::object::{Claim, Namespace, Object, Objects};
use pith_core::selector::LabelSelector;
use serde_json::Value;
use tokio::runtime::{Handle, Runtime};

use crate::args::Subjects;
use crate::cluster::{self, Look};
use crate::config::{Config, ObjectSource};
use crate::install_crypto;
use crate::metrics::Metrics;
use crate::policy::{self, Policies, Resources, Sources};
use crate::run::load_policies;

/// The kinds that can be named, as kubectl has them: all names of one, its group and its kind.
const KINDS: [(&[&str], &str, &str); 6] = [
    (&["pod", "pods", "po"], "", "Pod"),
    (&["deployment", "deployments", "deploy"], "apps", "Deployment"),
    (&["statefulset", "statefulsets", "sts"], "apps", "StatefulSet"),
    (&["daemonset", "daemonsets", "ds"], "apps", "DaemonSet"),
    (&["replicaset", "replicasets", "rs"], "apps", "ReplicaSet"),
    (&["job", "jobs"], "batch", "Job"),
];
/// The same of claims.
const CLAIM: (&[&str], &str, &str) =
    (&["persistentvolumeclaim", "persistentvolumeclaims", "pvc"], "", "PersistentVolumeClaim");

/// A workload, a pod or a claim that somebody named.
struct Named<'a> {
    text: &'a str,
    group: &'static str,
    kind: &'static str,
    name: &'a str,
}

/// What can be named in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinds {
    /// Pods and what has them.
    Pods,
    /// Claims too.
    PodsAndClaims,
}

/// What modules are read from, and what the questions to a cluster run on.
#[derive(Debug, Default)]
pub(super) struct Modules {
    sources: Sources,
    _runtime: Option<Runtime>,
}

/// Adds the PolicyBindings of a cluster to the policies of a configuration which says that there are some, as its server would.
pub(super) fn add_bindings(config: &mut Config, kubeconfig: Option<&Path>) -> Result<Modules> {
    let Some(of_cluster) = &config.policy_bindings else { return Ok(Modules::default()) };
    install_crypto();
    // With a thread of its own: modules are read on others.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("starting the runtime")?;
    let (cluster, resources, bindings) = runtime.block_on(async {
        let client = cluster::connect_as_kubectl(kubeconfig.or(kubeconfig_of(config))).await?;
        let (runtime, namespace) = (Handle::current(), of_cluster.namespace.clone());
        let cluster = policy::Cluster::new(client.clone(), runtime.clone(), namespace.clone());
        let resources = Resources::new(client, runtime, namespace);
        let bindings = resources.list().await?;
        anyhow::Ok((cluster, resources, bindings))
    })?;
    config.policies.extend(bindings);
    config.policies.sort_by(|a, b| binding::order(&a.binding, &b.binding));
    Ok(Modules { sources: Sources::new(None, Some(cluster), Some(Arc::new(resources))), _runtime: Some(runtime) })
}

/// The same for what is named in a cluster. Files are decided about without asking one.
pub(super) fn add_bindings_where_it_runs(config: &mut Config, subjects: &Subjects) -> Result<Modules> {
    match subjects.filename {
        Some(_) => Ok(Modules::default()),
        None => add_bindings(config, subjects.kubeconfig.as_deref()),
    }
}

/// The policies by which is decided. Without any, nothing is made ready for them.
pub(super) fn policies(config: &Config, modules: &Modules) -> Result<Policies> {
    match config.policies.is_empty() {
        true => Ok(Policies::none()),
        false => load_policies(config, &modules.sources, Arc::new(Metrics::new())),
    }
}

/// The kubeconfig that a configuration names.
fn kubeconfig_of(config: &Config) -> Option<&Path> {
    match &config.objects {
        Some(ObjectSource::Cluster { kubeconfig, .. }) => kubeconfig.as_deref(),
        _ => None,
    }
}

/// What was named, with where it came from, and the objects that decisions about it read.
pub(super) fn read(subjects: &Subjects, config: &Config, kinds: Kinds) -> Result<(Objects, Vec<(PathBuf, Value)>)> {
    match &subjects.filename {
        Some(path) => Ok((of_files(subjects, config)?, cluster::documents(path)?)),
        None => {
            install_crypto();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("starting the runtime")?;
            let (objects, found) = runtime.block_on(of_cluster(subjects, config, kinds))?;
            let place = PathBuf::from("the cluster");
            Ok((objects, found.into_iter().map(|it| (place.clone(), it)).collect()))
        }
    }
}

/// How an object is called.
pub(super) struct Name {
    pub(super) kind: String,
    pub(super) namespace: String,
    /// What it begins with, where it has none yet.
    pub(super) name: String,
}

impl Name {
    /// Of an object that is in a namespace, this one where it names none.
    pub(super) fn of(object: &Value, default: &str) -> Name {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default();
        Name {
            kind: object["kind"].as_str().unwrap_or_default().into(),
            namespace: metadata["namespace"].as_str().unwrap_or(default).into(),
            name: name.into(),
        }
    }
}

/// A claim as decisions read it; nothing where it is no claim of theirs. The place is where it came from.
pub(super) fn claim(object: &Value, place: &Path) -> Result<Option<Arc<Claim>>> {
    let mut object = object.clone();
    if object["metadata"]["uid"].is_null() {
        // Which the API server gives it, and no binding asks for.
        object["metadata"]["uid"] = "-".into();
    }
    let read = cluster::object(&object).with_context(|| format!("a claim of {}", place.display()))?;
    Ok(match read {
        Some(Object::Claim(claim)) => Some(Arc::new(claim)),
        _ => None,
    })
}

/// The namespace of that name. One that is not known has no labels.
pub(super) fn namespace(objects: &Objects, name: &str) -> Arc<Namespace> {
    let unknown = || Arc::new(Namespace { name: name.into(), ..Namespace::default() });
    objects.namespace(name).cloned().unwrap_or_else(unknown)
}

/// The objects that decisions about files read.
fn of_files(subjects: &Subjects, config: &Config) -> Result<Objects> {
    match (&subjects.objects, &config.objects) {
        (Some(directory), _) | (None, Some(ObjectSource::Directory(directory))) => cluster::load(directory),
        (None, Some(ObjectSource::Cluster { .. })) => {
            bail!(
                "the configuration has objects.cluster, and for files this command asks no cluster: name a folder with --objects"
            )
        }
        (None, None) => Ok(Objects::default()),
    }
}

/// The objects of a cluster, and of what is named the pods, or the claim itself.
async fn of_cluster(subjects: &Subjects, config: &Config, kinds: Kinds) -> Result<(Objects, Vec<Value>)> {
    let named = subjects.running.iter().map(|it| Named::read(it, kinds)).collect::<Result<Vec<_>>>()?;
    let kubeconfig = subjects.kubeconfig.as_deref().or(kubeconfig_of(config));
    let look = Look(cluster::connect_as_kubectl(kubeconfig).await?);
    let (objects, unread) = look.everything(Some(&subjects.namespace), config.file_systems()).await?;
    if let Some((kind, why)) = unread.into_iter().next() {
        return Err(anyhow::Error::msg(why).context(format!("reading {}", kind.plural())));
    }
    let mut found = Vec::new();
    for named in named {
        found.extend(named.found(&look, &subjects.namespace).await?);
    }
    Ok((objects, found))
}

impl<'a> Named<'a> {
    fn read(text: &'a str, kinds: Kinds) -> Result<Named<'a>> {
        let claim = (kinds == Kinds::PodsAndClaims).then_some(&CLAIM);
        let known = text.split_once('/').filter(|(_, name)| !name.is_empty()).and_then(|(kind, name)| {
            let (_, group, kind) = KINDS.iter().chain(claim).find(|(names, ..)| names.contains(&kind))?;
            Some(Named { text, group, kind, name })
        });
        known.with_context(|| match kinds {
            Kinds::Pods => format!(
                "`{text}` is nothing that runs: name pods and what has them, as in pod/web-0, deployment/web or job/import"
            ),
            Kinds::PodsAndClaims => format!(
                "`{text}` is neither a claim nor what runs: name claims, pods and what has them, as in pvc/data, pod/web-0 or \
                 deployment/web"
            ),
        })
    }

    /// The pods that run, or the pod or the claim itself.
    async fn found(&self, look: &Look, namespace: &str) -> Result<Vec<Value>> {
        let found = look.value((self.group, self.kind), namespace, self.name).await?;
        let found = found.map_err(anyhow::Error::msg).with_context(|| format!("reading {}", self.text))?;
        let Some(found) = found else { bail!("there is no {} in the namespace `{namespace}`", self.text) };
        if matches!(self.kind, "Pod" | "PersistentVolumeClaim") {
            return Ok(vec![bare(found, self.kind)]);
        }
        let selector = LabelSelector::read(&found["spec"]["selector"]);
        let selected = |pod: Value| selector.matches(&entries(&pod["metadata"]["labels"])).then(|| bare(pod, "Pod"));
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
fn bare(mut object: Value, kind: &str) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    // A list of one kind leaves both to the list.
    object["apiVersion"] = "v1".into();
    object["kind"] = kind.into();
    object
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
            ("pvc/data", None),
        ] {
            let read = Named::read(text, Kinds::Pods).ok().map(|it| (it.group, it.kind, it.name));
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(Named::read("pvc/data", Kinds::PodsAndClaims).ok().map(|it| it.kind), Some("PersistentVolumeClaim"));
    }
}
