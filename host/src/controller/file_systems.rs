//! The ConfigMap that says what pods must know of file systems: read by the webhook, which reads no Secret.
//!
//! Every replica writes the same. What cannot be known at the moment stays as it was said before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use pith_core::file_system::{key, write};
use pith_core::object::{FileSystemFacts, SecretRef};
use serde_json::{Value, json};

use crate::cluster::in_time;
use crate::config::ConfigMapRef;

/// How often it is looked whether it is still there.
const AGAIN: Duration = Duration::from_secs(60);

/// Where it is said.
pub(super) struct FileSystems {
    api: Api<ConfigMap>,
    at: ConfigMapRef,
    /// What was said last, and when.
    told: Option<(Instant, Known)>,
    /// What went wrong last, so that it is said once.
    problem: Option<String>,
}

/// By Secret; nothing for one that cannot be read.
type Known = BTreeMap<SecretRef, Option<FileSystemFacts>>;

impl FileSystems {
    pub(super) fn new(client: &Client, at: &ConfigMapRef) -> FileSystems {
        FileSystems { api: Api::namespaced(client.clone(), &at.namespace), at: at.clone(), told: None, problem: None }
    }

    /// Says this of these Secrets, and nothing of others. It is tried again with the next look.
    pub(super) async fn tell(&mut self, known: Known) {
        if self.told.as_ref().is_some_and(|(at, told)| *told == known && at.elapsed() < AGAIN) {
            return;
        }
        let problem = in_time(self.bring(&known)).await.err();
        if problem.is_some() && problem != self.problem {
            let (ConfigMapRef { namespace, name }, problem) = (&self.at, problem.as_deref().unwrap_or_default());
            tracing::warn!(%namespace, %name, %problem, "it cannot be said what pods must know of file systems");
        }
        self.told = problem.is_none().then(|| (Instant::now(), known));
        self.problem = problem;
    }

    async fn bring(&self, known: &Known) -> kube::Result<()> {
        let present = self.api.get(&self.at.name).await?.data.unwrap_or_default();
        let changes = changes(&present, known);
        if !changes.is_empty() {
            let patch = Patch::Merge(json!({"data": changes}));
            self.api.patch(&self.at.name, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }
}

/// What is to be changed; null for what is to go.
fn changes(present: &BTreeMap<String, String>, known: &Known) -> BTreeMap<String, Value> {
    let keys: BTreeMap<String, &Option<FileSystemFacts>> =
        known.iter().map(|(secret, facts)| (key(secret), facts)).collect();
    let gone = present.keys().filter(|key| !keys.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let said = keys.iter().filter_map(|(key, facts)| Some((key.clone(), write(facts.as_ref()?))));
    let new = said.filter(|(key, text)| present.get(key) != Some(text)).map(|(key, text)| (key, text.into()));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_written_and_what_cannot_be_known_stays() {
        let secret = |name: &str| SecretRef { namespace: "platform".into(), name: name.into() };
        let facts = |name: &str| Some(FileSystemFacts { name: name.into(), ..FileSystemFacts::default() });
        let text = |name: &str| write(&facts(name).expect("some"));
        let present = [("same", "shop"), ("old", "shop"), ("unreadable", "shop"), ("gone", "shop")];
        let present = present.map(|(key, name)| (format!("platform.{key}"), text(name))).into();
        let known = [("same", facts("shop")), ("old", facts("shop-2")), ("unreadable", None), ("new", facts("shop"))];
        let known = known.map(|(name, facts)| (secret(name), facts)).into();
        let expected = [
            ("platform.gone".to_string(), Value::Null),
            ("platform.new".to_string(), text("shop").into()),
            ("platform.old".to_string(), text("shop-2").into()),
        ];
        assert_eq!(changes(&present, &known), expected.into());
    }
}
