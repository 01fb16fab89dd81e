//! The PolicyBindings of a cluster and the versions of the ConfigMaps beside Pith, as the API server tells them.
//!
//! Of ConfigMaps only the metadata is kept: a module is read when it is loaded, and stays in memory nowhere.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::status::Status;
use super::{api_resource, module};
use crate::cluster::{events, in_time};
use crate::config::{self, ConfigMapKey, PolicyConfig};

/// The PolicyBindings, followed.
pub struct Resources {
    client: Client,
    runtime: Handle,
    namespace: String,
    state: RwLock<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    bindings: Listed<Arc<Object>>,
    /// The versions of ConfigMaps.
    config_maps: Listed<String>,
}

/// Objects by name, as far as they are known.
#[derive(Debug)]
struct Listed<T> {
    all: BTreeMap<String, T>,
    /// While they are listed: what has come so far.
    coming: HashSet<String>,
    is_listed: bool,
    problem: Option<String>,
}

/// A PolicyBinding.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::policy) struct Object {
    pub(in crate::policy) name: String,
    pub(in crate::policy) uid: String,
    pub(in crate::policy) generation: i64,
    pub(in crate::policy) spec: Value,
    pub(in crate::policy) status: Status,
}

impl std::fmt::Debug for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resources").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Listed<T> {
        Listed { all: BTreeMap::new(), coming: HashSet::new(), is_listed: false, problem: None }
    }
}

impl<T: PartialEq> Listed<T> {
    /// Takes one event. True where something is not as it was.
    fn take<K: ResourceExt>(&mut self, event: Event<K>, read: impl Fn(K) -> T) -> bool {
        match event {
            Event::Init => {
                self.coming.clear();
                false
            }
            Event::InitApply(it) | Event::Apply(it) => {
                let name = it.name_any();
                self.coming.insert(name.clone());
                let it = read(it);
                let is_new = self.all.get(&name) != Some(&it);
                self.all.insert(name, it);
                is_new
            }
            Event::Delete(it) => self.all.remove(&it.name_any()).is_some(),
            Event::InitDone => {
                let before = (self.all.len(), self.is_listed);
                let coming = std::mem::take(&mut self.coming);
                self.all.retain(|name, _| coming.contains(name));
                (self.is_listed, self.problem) = (true, None);
                before != (self.all.len(), true)
            }
        }
    }

    fn waiting(&self, what: &str) -> Option<String> {
        let problem = self.problem.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
        (!self.is_listed).then(|| format!("the API server has not listed yet: {what}{problem}"))
    }
}

impl Object {
    fn read(it: DynamicObject) -> Object {
        let name = it.name_any();
        let status = it.data["status"].clone();
        // What another version of Pith has written there is written anew.
        let status = serde_json::from_value(status).unwrap_or_default();
        let (uid, generation) = (it.metadata.uid.unwrap_or_default(), it.metadata.generation.unwrap_or_default());
        let mut data = it.data;
        Object { name, uid, generation, spec: data["spec"].take(), status }
    }

    /// What it asks for.
    pub(in crate::policy) fn wanted(&self) -> Result<PolicyConfig> {
        let (uid, generation) = (self.uid.clone(), self.generation);
        PolicyConfig::of_resource(&self.name, self.spec.clone(), config::Resource { uid, generation, digest: None })
    }

    /// What was in force last on every replica, and would be again with the very same module: as it is kept, and as it came.
    pub(in crate::policy) fn last_good(&self) -> Vec<PolicyConfig> {
        let Some(it) = self.status.latest_good().cloned() else { return Vec::new() };
        let of = config::Resource { uid: self.uid.clone(), generation: it.generation, digest: Some(it.digest) };
        let as_it_came = PolicyConfig::of_resource(&self.name, it.spec, of);
        // That module has passed its tests with these settings. Other tests may be in their place by now.
        let kept = |it: &PolicyConfig| {
            let module = config::Source::PolicyModule(self.name.clone());
            PolicyConfig { module, tests: None, ..it.clone() }
        };
        as_it_came.into_iter().flat_map(|it| [kept(&it), it]).collect()
    }
}

impl Resources {
    /// Those of a cluster, none of which are there before [`Resources::follow`] brings them.
    pub fn new(client: Client, runtime: Handle, namespace: String) -> Resources {
        Resources { client, runtime, namespace, state: RwLock::default(), changed: Notify::new() }
    }

    /// Those that there are now, for a command that follows nothing.
    pub async fn list(&self) -> Result<Vec<PolicyConfig>> {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &api_resource());
        let found = in_time(api.list(&ListParams::default())).await;
        let found = found.map_err(|why| anyhow!(why)).context("reading the PolicyBindings of the cluster")?;
        let one = |it| {
            let object = Object::read(it);
            object.wanted().with_context(|| format!("the PolicyBinding `{}`", object.name))
        };
        found.items.into_iter().map(one).collect()
    }

    /// Follows them. It ends only with a defect.
    pub async fn follow(&self) {
        let bindings = Api::<DynamicObject>::all_with(self.client.clone(), &api_resource());
        let config_maps = Api::<PartialObjectMeta<ConfigMap>>::namespaced(self.client.clone(), &self.namespace);
        let told = events(bindings, Config::default(), "policybindings", |event| {
            let mut state = self.write();
            let before: Vec<Arc<Object>> = state.bindings.all.values().cloned().collect();
            match event {
                Ok(event) => {
                    let was_listed = state.bindings.is_listed;
                    state.bindings.take(event, |it| Arc::new(Object::read(it)));
                    let same = |(a, b): (&Arc<Object>, &Arc<Object>)| (&a.uid, a.generation) == (&b.uid, b.generation);
                    let now = &state.bindings.all;
                    let is_same = before.len() == now.len() && before.iter().zip(now.values()).all(same);
                    // Replicas write their status all the time.
                    if !is_same || !was_listed {
                        self.changed.notify_one();
                    }
                }
                Err(problem) => state.bindings.problem = Some(problem.into()),
            }
        });
        let versions = events(config_maps, Config::default(), "configmaps", |event| {
            let mut state = self.write();
            let version = |it: PartialObjectMeta<ConfigMap>| {
                format!("{}:{}", it.uid().unwrap_or_default(), it.resource_version().unwrap_or_default())
            };
            match event {
                Ok(event) => {
                    if state.config_maps.take(event, version) {
                        self.changed.notify_one();
                    }
                }
                Err(problem) => state.config_maps.problem = Some(problem.into()),
            }
        });
        tokio::join!(told, versions);
    }

    /// What is still waited for, as a sentence.
    pub fn waiting(&self) -> Option<String> {
        let state = self.read();
        state.bindings.waiting("policybindings").or_else(|| state.config_maps.waiting("configmaps"))
    }

    /// Waits for a change of what they ask for.
    pub(in crate::policy) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All of them, by name.
    pub(in crate::policy) fn all(&self) -> Vec<Arc<Object>> {
        self.read().bindings.all.values().cloned().collect()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What changes when a ConfigMap does.
    pub(in crate::policy) fn version(&self, name: &str) -> String {
        let version = self.read().config_maps.all.get(name).cloned();
        format!("{name}:{}", version.unwrap_or_default())
    }

    /// Reads a module, or what stands beside one. Not to be called on a thread of the runtime.
    pub(in crate::policy) fn content(&self, ConfigMapKey { name, key, .. }: &ConfigMapKey) -> Result<Vec<u8>> {
        let namespace = &*self.namespace;
        let place = || format!("reading `{key}` of the ConfigMap `{namespace}/{name}`");
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let found =
            self.runtime.block_on(in_time(api.get_opt(name))).map_err(|why| anyhow!(why)).with_context(place)?;
        let found = found.with_context(|| format!("there is no ConfigMap `{namespace}/{name}`"))?;
        let text = found.data.and_then(|mut it| it.remove(key)).map(String::into_bytes);
        let bytes = found.binary_data.and_then(|mut it| it.remove(key)).map(|ByteString(bytes)| bytes);
        // An API server takes no larger one than any module may be.
        bytes.or(text).with_context(|| {
            format!(
                "the ConfigMap `{namespace}/{name}` has no `{key}`, as `kubectl create configmap --from-file` makes it"
            )
        })
    }

    /// Reads the module that was in force last for a PolicyBinding. Not to be called on a thread of the runtime.
    pub(in crate::policy) fn module(&self, of: &str) -> Result<Vec<u8>> {
        let found = self.runtime.block_on(module::read(&module::api(&self.client), of));
        let found = found.map_err(|why| anyhow!(why)).with_context(|| format!("reading the PolicyModule `{of}`"))?;
        let found = found.with_context(|| format!("there is no PolicyModule `{of}`"))?;
        Ok(found.module.0)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, generation: i64) -> DynamicObject {
        let metadata = json!({"name": name, "uid": "1", "generation": generation});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"module": {"file": "/a"}}})).expect("an object")
    }

    #[test]
    fn what_was_not_listed_again_is_gone() {
        let mut listed = Listed::default();
        let mut take = |event| listed.take(event, |it: DynamicObject| it.metadata.generation);
        assert!(!take(Event::Init));
        assert!(take(Event::InitApply(object("a", 1))));
        assert!(take(Event::InitApply(object("b", 1))));
        assert!(take(Event::InitDone), "everything is listed now");
        assert!(!take(Event::Apply(object("a", 1))), "it is the same");
        assert!(take(Event::Apply(object("a", 2))));
        take(Event::Init);
        take(Event::InitApply(object("a", 2)));
        assert!(take(Event::InitDone), "b went away unseen");
        assert!(take(Event::Delete(object("a", 2))));
        assert!(listed.all.is_empty());
    }

    #[test]
    fn an_object_asks_for_what_its_spec_says_and_remembers_what_was_good() {
        let mut it = Object::read(object("sizes", 3));
        let wanted = it.wanted().expect("it is well formed");
        assert_eq!((&*wanted.binding.name, wanted.resource.map(|it| it.generation)), ("sizes", Some(3)));
        assert_eq!(it.last_good(), []);
        let last_good = json!({"generation": 2, "digest": "d", "spec": {"module": {"file": "/b"}}});
        it.status = serde_json::from_value(json!({"lastGood": last_good})).expect("a status");
        let good = it.last_good();
        let sources: Vec<&config::Source> = good.iter().map(|it| &it.module).collect();
        assert_eq!(sources, [&config::Source::PolicyModule("sizes".into()), &config::Source::File("/b".into())]);
        for it in &good {
            let of = it.resource.as_ref().expect("it is of one");
            assert_eq!((of.generation, of.digest.as_deref()), (2, Some("d")));
        }
        it.spec = json!({"module": {"file": "/a"}, "colour": "red"});
        assert!(it.wanted().is_err_and(|error| format!("{error:#}").contains("unknown field `colour`")));
        it.spec = json!({"module": {"file": "/a"}, "settings": {"much": "x".repeat(64 << 10)}});
        assert!(it.wanted().is_err_and(|error| error.to_string().contains("at most 65536")));
    }
}
