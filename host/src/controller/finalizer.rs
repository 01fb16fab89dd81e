//! Keeps the Secrets of file systems for as long as volumes need them to be deleted, where their class says so (`secretFinalizer`).
//!
//! Which those are is a function of the objects (`pith_core::secret_finalizer`); here the finalizer is put on and taken off. Of a
//! Secret nothing but its metadata is read. The list is written as a whole, on the condition that nobody wrote the Secret meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use pith_core::object::SecretRef;
use pith_core::secret_finalizer::{FINALIZER, held, named};
use serde_json::json;

use crate::cluster::{Mirror, in_time};

/// How many Secrets are looked at at once.
const AT_ONCE: usize = 4;
/// Changes that come within this time are one.
const TOGETHER: Duration = Duration::from_millis(200);
/// How long it takes until what could not be done is tried again.
const PAUSE: Duration = Duration::from_secs(10);

/// What was done about a Secret.
struct Done {
    held: bool,
    /// Whether that could not be done, which is said once.
    failed: bool,
    /// When it is looked at again, whether or not something changed.
    due: Instant,
}

/// Puts finalizers on and takes them off. It ends only with a defect.
pub(super) async fn run(client: &Client, mirror: &Mirror, driver: &str, resync: Duration) {
    let mut changes = mirror.changes();
    let mut done: BTreeMap<SecretRef, Done> = BTreeMap::new();
    loop {
        // Before the look, so that what changes during it is seen by the next.
        changes.mark_unchanged();
        let mut next = Instant::now() + resync;
        // Before everything is listed, a Secret would look as if no volume held it.
        if mirror.waiting().is_none() {
            look(client, mirror, driver, resync, &mut done).await;
            next = done.values().map(|done| done.due).min().unwrap_or(next);
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
        tokio::time::sleep(TOGETHER).await;
    }
}

/// Looks at each Secret of which something may have changed.
async fn look(client: &Client, mirror: &Mirror, driver: &str, resync: Duration, done: &mut BTreeMap<SecretRef, Done>) {
    let objects = mirror.snapshot();
    let holding = held(objects.persistent_volumes().map(|volume| &**volume), driver);
    let known = done.iter().filter(|(_, done)| done.held).map(|(secret, _)| secret.clone());
    let all: BTreeSet<SecretRef> =
        named(&objects, driver).into_iter().chain(holding.iter().cloned()).chain(known).collect();
    done.retain(|secret, _| all.contains(secret));
    let now = Instant::now();
    let is_due = |secret: &SecretRef| {
        done.get(secret).is_none_or(|done| done.held != holding.contains(secret) || done.due <= now)
    };
    let due: Vec<(SecretRef, bool)> =
        all.into_iter().filter(is_due).map(|secret| (secret.clone(), holding.contains(&secret))).collect();
    let outcomes: Vec<_> = stream::iter(due)
        .map(|(secret, held)| async move {
            let outcome =
                if held { hold(client, &secret).await } else { let_go(client, mirror, driver, &secret).await };
            (secret, held, outcome)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for (secret, held, outcome) in outcomes {
        let failed = outcome.is_err();
        if let Err(why) = outcome
            && done.get(&secret).is_none_or(|before| !before.failed)
        {
            let SecretRef { namespace, name } = &secret;
            let what = if held { "put on" } else { "taken off" };
            tracing::warn!(%namespace, secret = %name, %why, "the finalizer of a file system's Secret cannot be {what}: it is tried again");
        }
        // Of one that could not be let go, it is remembered that it was held.
        let due = Instant::now() + if failed { PAUSE } else { resync };
        done.insert(secret, Done { held: held || failed, failed, due });
    }
}

/// Keeps a Secret from going.
async fn hold(client: &Client, secret: &SecretRef) -> Result<(), String> {
    let Some((api, found)) = read(client, secret).await? else {
        return Err("it does not exist, and volumes need it to be deleted".into());
    };
    let mut finalizers = found.finalizers().to_vec();
    if finalizers.iter().any(|it| it == FINALIZER) {
        return Ok(());
    }
    if found.meta().deletion_timestamp.is_some() {
        return Err("it is being deleted, and volumes need it to be deleted: make it anew".into());
    }
    finalizers.push(FINALIZER.into());
    write(&api, &found, finalizers).await
}

/// Lets a Secret go that no volume holds any more. What a watch has not brought yet is asked for: a Secret that is gone too early is
/// worse than one that stays for a moment.
async fn let_go(client: &Client, mirror: &Mirror, driver: &str, secret: &SecretRef) -> Result<(), String> {
    let Some((api, found)) = read(client, secret).await? else { return Ok(()) };
    let mut finalizers = found.finalizers().to_vec();
    let before = finalizers.len();
    finalizers.retain(|it| it != FINALIZER);
    if finalizers.len() == before {
        return Ok(());
    }
    let volumes = mirror.volumes_now().await?;
    if held(volumes.iter().map(|volume| &**volume), driver).contains(secret) {
        return Ok(());
    }
    write(&api, &found, finalizers).await
}

type Metadata = kube::core::PartialObjectMeta<Secret>;

async fn read(client: &Client, secret: &SecretRef) -> Result<Option<(Api<Secret>, Metadata)>, String> {
    let api = Api::<Secret>::namespaced(client.clone(), &secret.namespace);
    let found = in_time(api.get_metadata_opt(&secret.name)).await?;
    Ok(found.map(|found| (api, found)))
}

async fn write(api: &Api<Secret>, found: &Metadata, finalizers: Vec<String>) -> Result<(), String> {
    let metadata = json!({"resourceVersion": found.resource_version(), "finalizers": finalizers});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    in_time(api.patch_metadata(&found.name_any(), &PatchParams::default(), &patch)).await.map(drop)
}
