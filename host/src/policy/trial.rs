//! A PolicyBinding before it is stored: what could never be used is refused while its author looks, and not found in a status later.
//!
//! It is tried again when it is loaded, so nothing rests on this: where there is no time or the module cannot be had, that is said in
//! a warning and the binding is stored.

use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use pith_core::binding::{self, shadows};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::reload::may_pass;
use super::{Policies, Sources, give_way, load_one};
use crate::config::{PolicyConfig, Resource};
use crate::wasm::Engine;

/// Tries bindings.
#[derive(Debug)]
pub struct Trial {
    engine: Engine,
    sources: Sources,
    /// One at a time: each may compile.
    turn: Arc<Semaphore>,
}

impl Trial {
    /// With this engine, whose compiled code what is loaded later finds again.
    pub fn new(engine: Engine, sources: Sources) -> Trial {
        Trial { engine, sources, turn: Arc::new(Semaphore::new(1)) }
    }

    /// What there is to say of a PolicyBinding beside those that are in force, or why it is refused.
    pub async fn check(&self, policies: &Policies, object: &Value, deadline: Instant) -> Result<Vec<String>, String> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let resource = Resource { uid: String::new(), generation: 0, digest: None };
        let config = PolicyConfig::of_resource(name, object["spec"].clone(), resource);
        let config = config.map_err(|why| format!("{why:#}"))?;
        let began = Instant::now();
        let (engine, sources) = (self.engine.clone(), self.sources.clone());
        let tried = async {
            let turn = self.turn.clone().acquire_owned().await?;
            let work = move || {
                // For as long as it works, also where nobody waits for it any more.
                let _turn = turn;
                give_way();
                sources.fetch([&config.module].into_iter());
                let tests = config.tests.as_ref().map(|it| sources.tests(it)).transpose();
                match (sources.read(&config.module), tests) {
                    (Ok(bytes), Ok(tests)) => Ok(load_one(&engine, &config, (&bytes, tests.as_deref()), began)),
                    (Err(why), _) | (_, Err(why)) => Err(why),
                }
            };
            spawn_blocking(work).await?
        };
        let tried = timeout_at(deadline.into(), tried).await;
        match tried.unwrap_or_else(|_| Err(anyhow!("it could not be tried in time"))) {
            Ok(Ok(loaded)) => {
                let mut bindings: Vec<_> = policies.bindings.iter().filter(|it| it.name != name).cloned().collect();
                bindings.push(loaded.binding);
                bindings.sort_by(binding::order);
                let about = |it: &&binding::Shadow<'_>| it.by == name || it.binding == name;
                let sentence = |it: &binding::Shadow<'_>| {
                    format!("where `{}` has an answer ({}), `{}` does not count", it.by, it.what, it.binding)
                };
                Ok(shadows(&bindings).iter().filter(about).map(sentence).collect())
            }
            Ok(Err(why)) if !may_pass(&why) => Err(format!("{why:#}")),
            Ok(Err(why)) | Err(why) => {
                Ok(vec![format!("it is in force once it can be loaded, which its status will say: {why:#}")])
            }
        }
    }
}
