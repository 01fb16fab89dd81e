//! The Secret beside each claim: written once the claim is bound, kept as it should be, removed where the namespace opts out.
//!
//! What there should be is a function of the objects (`pith_core::claim_secret`); here it is compared with what there is. The Secrets
//! of file systems are read by name, one `get` at a time, and their content stays in memory. The claim owns its Secret, so the
//! garbage collector removes the one with the other.
//!
//! So it is with the Secrets of pods whose claims were not there yet: a pod owns them, and they are never taken from another owner,
//! because what a pod says of their names may be its author's word.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use pith_core::catalogue::Code;
use pith_core::claim_secret::{self, Bound, Wanted};
use pith_core::object::{Claim, SecretRef};
use pith_core::registration::MANAGER;
use pith_core::secret_key;
use pith_core::sidecar::secret_name;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::file_systems::FileSystems;
use super::pods::{InjectedPod, PodName, Pods};
use crate::cluster::{self, Mirror, event, in_time};
use crate::config::Controller;
use crate::juicefs::{FileSystem, PodSource, Workers};
use crate::metrics::Metrics;

/// How many Secrets are looked at at once: the API server has other callers.
const AT_ONCE: usize = 8;
/// Changes that come within this time are one: a claim, its volume and its pod are often made together.
const TOGETHER: Duration = Duration::from_millis(50);
/// The pause after a first failure, which doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long an engine must be out of reach before its file system is the pods' to make.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// The label by which people and Pith itself tell these Secrets from others.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Keeps the Secrets.
pub(super) struct Reconciler<'a> {
    client: &'a Client,
    mirror: &'a Mirror,
    pods: &'a Pods,
    workers: Option<Arc<Workers>>,
    /// The file systems that are made, one after the other: an engine that does not answer is to keep no quota waiting. The answer is
    /// of which Secrets the engine was asked, and whether it could be reached.
    making: Option<JoinHandle<Vec<(SecretRef, bool)>>>,
    /// Of which Secrets the engine was asked, and since when it could not be reached; none where it could.
    unreached: HashMap<SecretRef, Option<Instant>>,
    /// Where it is said what pods must know of file systems.
    known: Option<FileSystems>,
    options: &'a Controller,
    driver: &'a str,
    metrics: &'a Metrics,
    /// What was done about each Secret.
    done: HashMap<Key, Done>,
    sources: HashMap<SecretRef, Source>,
    /// Pods that were seen, by UID.
    seen: HashSet<String>,
}

/// Which Secret: the UID of its owner, and its name.
type Key = (String, String);

/// What was done about a Secret.
struct Done {
    /// What it was done for; see [`Task::fingerprint`].
    fingerprint: [u8; 32],
    /// Whether there is now what there should be.
    written: bool,
    failures: u32,
    /// When it is looked at again, whether or not something changed.
    due: Instant,
}

/// The Secret of a file system, as it was when it was read.
struct Source {
    read: Instant,
    content: Result<PodSource, String>,
}

/// Who a Secret belongs to, and goes with.
#[derive(Clone)]
struct Owner {
    kind: &'static str,
    name: String,
    uid: String,
}

/// What is to be done about one Secret.
struct Task {
    name: String,
    owner: Owner,
    bound: Bound,
    /// What the Secret is to hold, why there can be none, or that there is to be none.
    content: Option<Result<Content, String>>,
    fingerprint: [u8; 32],
}

/// What a claim's Secret holds. No Debug: it is secret.
#[derive(Clone, PartialEq, Eq)]
struct Content(BTreeMap<String, String>);

impl<'a> Reconciler<'a> {
    pub(super) fn new(
        client: &'a Client,
        mirror: &'a Mirror,
        pods: &'a Pods,
        workers: Option<Arc<Workers>>,
        options: &'a Controller,
        driver: &'a str,
        metrics: &'a Metrics,
    ) -> Reconciler<'a> {
        Reconciler {
            client,
            mirror,
            pods,
            workers,
            making: None,
            unreached: HashMap::new(),
            known: options.file_systems.as_ref().map(|it| FileSystems::new(client, it)),
            options,
            driver,
            metrics,
            done: HashMap::new(),
            sources: HashMap::new(),
            seen: HashSet::new(),
        }
    }

    /// Looks at everything whenever something changed, and at what is due. It ends only with a defect.
    pub(super) async fn run(mut self) {
        let (mut objects, mut pods) = (self.mirror.changes(), self.pods.changes());
        loop {
            // Before the look, so that what changes during it is seen by the next.
            objects.mark_unchanged();
            pods.mark_unchanged();
            let next = match self.pods.snapshot() {
                // Before everything is listed, a Secret that is in use would look as if nobody needed it.
                Some(pods) if self.mirror.waiting().is_none() => self.look(&pods).await,
                _ => Instant::now() + LONGEST_PAUSE,
            };
            tokio::select! {
                _ = objects.changed() => {}
                _ = pods.changed() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
            tokio::time::sleep(TOGETHER).await;
        }
    }

    /// One look at everything; the answer is when the next is due.
    async fn look(&mut self, pods: &BTreeMap<PodName, InjectedPod>) -> Instant {
        let secrets = self.secrets(pods);
        self.done.retain(|key, _| secrets.contains_key(key));
        self.note_made().await;
        self.read_sources(secrets.values().map(|(_, bound)| bound)).await;
        self.tell_pods().await;
        let in_use = claims_of(pods.iter());
        // A pod that is new starts now, so what it needs is looked at now.
        let fresh = claims_of(pods.iter().filter(|(_, pod)| !self.seen.contains(&pod.uid)));
        self.seen = pods.values().map(|pod| pod.uid.clone()).collect();

        let now = Instant::now();
        let mut tasks = Vec::new();
        for (key, (owner, bound)) in secrets {
            let name = (bound.claim.namespace.clone(), bound.claim.name.clone());
            let task = self.task(key.1.clone(), owner, bound);
            if task.content.is_none() && in_use.contains(&name) {
                // Its containers may be started again, and cannot be without it. The pod's end is a change, so nothing is missed.
                self.done.entry(key).and_modify(|done| done.due = now + self.options.resync);
                continue;
            }
            let due = self.done.get(&key).is_none_or(|done| done.fingerprint != task.fingerprint || done.due <= now);
            if due || fresh.contains(&name) {
                tasks.push(task);
            }
        }
        let client = self.client;
        let outcomes: Vec<_> = stream::iter(tasks)
            .map(|task| async move {
                let outcome = carry_out(client, &task).await;
                (task, outcome)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (task, outcome) in outcomes {
            self.note(task, outcome, pods).await;
        }
        let missing = self.done.values().filter(|done| !done.written).count();
        self.metrics.claim_secrets(self.done.len() - missing, missing);
        let sources = self.sources.values().map(|source| source.read + self.options.source_interval);
        let due = self.done.values().map(|done| done.due).chain(sources).min();
        due.unwrap_or_else(|| Instant::now() + self.options.resync)
    }

    /// Every Secret that there is to be, or that may be left: those of claims, and those of pods.
    fn secrets(&self, pods: &BTreeMap<PodName, InjectedPod>) -> BTreeMap<Key, (Owner, Bound)> {
        let objects = self.mirror.snapshot();
        let mut secrets = BTreeMap::new();
        for (uid, bound) in claim_secret::bound(&objects, self.driver) {
            let owner = Owner { kind: "PersistentVolumeClaim", name: bound.claim.name.clone(), uid: uid.clone() };
            secrets.insert((uid, secret_name(&bound.claim)), (owner, bound));
        }
        for ((namespace, name), pod) in pods {
            let owner = Owner { kind: "Pod", name: name.clone(), uid: pod.uid.clone() };
            for injected in &pod.own {
                let bound = claim_secret::of_pod(&objects, self.driver, (namespace, name, &pod.uid), injected);
                let (Some(bound), Some(secret)) = (bound, injected.secret()) else { continue };
                // Two volumes of one Secret are nothing that Pith says of a pod.
                secrets.entry((pod.uid.clone(), secret.into())).or_insert_with(|| (owner.clone(), bound));
            }
        }
        secrets
    }

    /// Reads the Secrets of file systems that are needed and were not read lately.
    async fn read_sources(&mut self, bound: impl Iterator<Item = &Bound>) {
        let of_claims = bound.filter_map(|it| match &it.secret {
            Wanted::Made { source, .. } => Some(source),
            Wanted::Impossible(_) | Wanted::Nothing => None,
        });
        // Those of classes too: what pods must know is to be said before there are pods.
        let objects = self.mirror.snapshot();
        let classes = objects.storage_classes().filter(|class| class.provisioner == self.driver);
        let of_classes = classes.filter_map(|class| class.secret.as_ref()).filter(|_| self.known.is_some());
        // A name with a template in it is none before there is a claim.
        let of_classes = of_classes.filter(|it| !it.name.contains('$') && !it.namespace.contains('$'));
        let needed: HashSet<&SecretRef> = of_claims.chain(of_classes).collect();
        self.sources.retain(|source, _| needed.contains(source));
        let interval = self.options.source_interval;
        let old = |source: &&SecretRef| self.sources.get(source).is_none_or(|known| known.read.elapsed() >= interval);
        let old: Vec<SecretRef> = needed.into_iter().filter(old).cloned().collect();
        let client = self.client;
        let read: Vec<_> = stream::iter(old)
            .map(|source| async move {
                let content = read_source(client, &source).await;
                (source, Source { read: Instant::now(), content })
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        self.make(&read);
        self.sources.extend(read);
    }

    /// Makes the file systems of these Secrets where there is none: one whose volumes are made by hand has nobody else who would.
    /// Nothing waits for it, and it is tried again whenever the Secret is read again.
    fn make(&mut self, read: &[(SecretRef, Source)]) {
        let Some(workers) = self.workers.clone() else { return };
        let described = |(secret, source): &(SecretRef, Source)| {
            Some((secret.clone(), source.content.as_ref().ok()?.file_system()?.clone()))
        };
        let described: Vec<(SecretRef, FileSystem)> = read.iter().filter_map(described).collect();
        if described.is_empty() || self.making.is_some() {
            return;
        }
        self.making = Some(tokio::spawn(async move {
            let mut asked = Vec::new();
            for (secret, file_system) in described {
                let made = workers.make(&file_system).await;
                if let Err(error) = &made {
                    let SecretRef { namespace, name } = &secret;
                    tracing::warn!(%namespace, secret = %name, %error, "the file system of a Secret cannot be looked at: where there is none, none is made here");
                }
                asked.push((secret, made.is_ok()));
            }
            asked
        }));
    }

    /// Remembers what came of making file systems.
    async fn note_made(&mut self) {
        let Some(making) = self.making.take_if(|making| making.is_finished()) else { return };
        for (secret, reached) in making.await.unwrap_or_default() {
            let since = self.unreached.get(&secret).copied().flatten();
            self.unreached.insert(secret, (!reached).then(|| since.unwrap_or_else(Instant::now)));
        }
    }

    /// Says what pods must know of file systems.
    async fn tell_pods(&mut self) {
        self.unreached.retain(|source, _| self.sources.contains_key(source));
        let objects = self.mirror.snapshot();
        // Of a Secret that cannot be read, what was said stays.
        let facts = |source: &SecretRef| {
            let known = self.sources[source].content.as_ref().ok()?;
            let in_pods = match objects.file_system(source) {
                // The first word counts: every replica then says the same, and what pods rely on stays.
                Some(said) => said.is_made_in_pods(),
                None if known.file_system().is_none() => false,
                None if self.workers.is_none() => true,
                None => match self.unreached.get(source)? {
                    None => false,
                    Some(since) if since.elapsed() >= GIVEN_UP => true,
                    Some(_) => return None,
                },
            };
            Some(known.facts(in_pods))
        };
        let known = self.sources.keys().map(|source| (source.clone(), facts(source))).collect();
        if let Some(told) = &mut self.known {
            told.tell(known).await;
        }
    }

    fn task(&self, name: String, owner: Owner, bound: Bound) -> Task {
        let content = match &bound.secret {
            Wanted::Nothing => None,
            Wanted::Impossible(why) => Some(Err(why.clone())),
            Wanted::Made { source, directory } => Some(match self.sources.get(source).map(|it| &it.content) {
                Some(Ok(known)) => {
                    let in_pods = self.mirror.snapshot().file_system(source).is_some_and(|it| it.is_made_in_pods());
                    Content::of(known, in_pods, directory)
                }
                Some(Err(why)) => Err(why.clone()),
                None => Err(format!("the Secret `{}/{}` was not read yet", source.namespace, source.name)),
            }),
        };
        let fingerprint = fingerprint(content.as_ref());
        Task { name, owner, bound, content, fingerprint }
    }

    /// Remembers what came of a task, and says what could not be done on the claim and on the pods that wait for it.
    async fn note(&mut self, task: Task, outcome: Result<(), String>, pods: &BTreeMap<PodName, InjectedPod>) {
        let (claim, owner) = (&task.bound.claim, &task.owner);
        let key = (owner.uid.clone(), task.name);
        let before = self.done.get(&key).map_or(0, |done| done.failures);
        let (failures, wait) = match &outcome {
            Ok(()) => (0, spread(self.options.resync, &owner.uid)),
            Err(_) => (before + 1, (FIRST_PAUSE * 2_u32.saturating_pow(before)).min(LONGEST_PAUSE)),
        };
        let done =
            Done { fingerprint: task.fingerprint, written: outcome.is_ok(), failures, due: Instant::now() + wait };
        self.done.insert(key, done);
        let Err(problem) = outcome else { return };
        if before == 0 {
            tracing::warn!(namespace = %claim.namespace, claim = %claim.name, %problem, "a claim's Secret is not as it should be");
        }
        let note = format!("pods cannot mount the claim `{}` with JuiceFS: {problem}", claim.name);
        let happened =
            event::Happened { kind: "Warning", reason: Code::SecretNotWritten, action: "WriteSecret", note: &note };
        event::tell(self.client, event::about(owner.kind, &claim.namespace, &owner.name, &owner.uid), happened).await;
        let waiting = pods.iter().filter(|((namespace, _), pod)| {
            owner.uid == claim.uid
                && *namespace == claim.namespace
                && pod.claims.contains(&claim.name)
                && pod.ends.is_none()
        });
        for ((namespace, name), pod) in waiting {
            event::tell(self.client, event::about("Pod", namespace, name, &pod.uid), happened).await;
        }
    }
}

impl Content {
    fn of(source: &PodSource, in_pods: bool, directory: &str) -> Result<Content, String> {
        if source.file_system().is_none() && directory.contains(',') {
            return Err(format!(
                "the directory {directory} has a comma, behind which the Enterprise Edition's client would see another option"
            ));
        }
        let mut content = source.variables(in_pods);
        content.insert(secret_key::SUBDIR.into(), directory.into());
        Ok(Content(content))
    }

    /// Whether a Secret holds this, and nothing else.
    fn is_in(&self, secret: &Secret) -> bool {
        let held = secret.data.iter().flatten().map(|(key, ByteString(value))| (key.as_str(), value.as_slice()));
        held.eq(self.0.iter().map(|(key, value)| (key.as_str(), value.as_bytes())))
    }
}

/// The same only for two that ask for the same. A digest, so that no password is kept longer than it is needed.
fn fingerprint(content: Option<&Result<Content, String>>) -> [u8; 32] {
    let said = match content {
        None => Value::Null,
        Some(Ok(Content(values))) => json!(values),
        Some(Err(why)) => json!(why),
    };
    Sha256::digest(said.to_string()).into()
}

/// The claims that pods use, by namespace and name.
fn claims_of<'p>(pods: impl Iterator<Item = (&'p PodName, &'p InjectedPod)>) -> BTreeSet<(String, String)> {
    pods.flat_map(|((namespace, _), pod)| pod.claims.iter().map(|claim| (namespace.clone(), claim.clone()))).collect()
}

/// Between half of a span and all of it, so that ten thousand Secrets are not looked at in the same second.
fn spread(span: Duration, uid: &str) -> Duration {
    let byte = Sha256::digest(uid)[0];
    span / 2 + span * u32::from(byte) / 512
}

async fn carry_out(client: &Client, task: &Task) -> Result<(), String> {
    let (namespace, name) = (&task.bound.claim.namespace, &task.name);
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let what = |verb: &str| format!("the Secret `{namespace}/{name}` cannot be {verb}");
    match &task.content {
        None => remove(&api, name, &task.owner).await.map_err(|why| format!("{}: {why}", what("removed"))),
        Some(Err(why)) => Err(why.clone()),
        Some(Ok(content)) => write(&api, task, content).await.map_err(|why| format!("{}: {why}", what("written"))),
    }
}

async fn write(api: &Api<Secret>, task: &Task, content: &Content) -> Result<(), String> {
    let (name, owner) = (&*task.name, &task.owner);
    let present = in_time(api.get_opt(name)).await?;
    let is_owned = |present: &Secret| is_ours(present.labels()) && owner.owns(present);
    match present {
        Some(present) if is_owned(&present) && content.is_in(&present) => return Ok(()),
        Some(present) if owner.kind == "Pod" && !is_owned(&present) => {
            return Err("it is there and belongs to somebody else. Where the pod was copied from another one, make it again without \
                        its annotation pith.io/injected"
                .into());
        }
        // Applying takes no key away that somebody else put there, and a type cannot be changed.
        Some(present) if !only_keys_of(&present, content) || present.type_.as_deref() != Some("Opaque") => {
            delete(api, &present).await?;
        }
        _ => {}
    }
    let applied = PatchParams::apply(MANAGER).force();
    let claim = &*task.bound.claim;
    let manifest = Patch::Apply(manifest(name, owner, claim, content));
    in_time(api.patch(name, &applied, &manifest)).await?;
    tracing::info!(namespace = %claim.namespace, claim = %claim.name, secret = %name, "wrote the Secret of a claim");
    Ok(())
}

impl Owner {
    fn owns(&self, secret: &Secret) -> bool {
        secret.owner_references().iter().any(|owner| owner.uid == self.uid)
    }
}

fn manifest(name: &str, owner: &Owner, claim: &Claim, content: &Content) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": claim.namespace,
            "labels": {MANAGED_BY: MANAGER},
            "annotations": {"pith.io/claim": claim.name},
            "ownerReferences": [{"apiVersion": "v1", "kind": owner.kind, "name": owner.name, "uid": owner.uid}],
        },
        "type": "Opaque",
        "data": content.0.iter().map(|(key, value)| (key.as_str(), ByteString(value.clone().into_bytes()))).collect::<BTreeMap<_, _>>(),
    })
}

fn only_keys_of(present: &Secret, content: &Content) -> bool {
    present.data.iter().flatten().all(|(key, _)| content.0.contains_key(key.as_str()))
}

fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    labels.get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
}

/// Removes the Secret, if it is there and ours.
async fn remove(api: &Api<Secret>, name: &str, owner: &Owner) -> Result<(), String> {
    match in_time(api.get_opt(name)).await? {
        Some(present) if is_ours(present.labels()) && owner.owns(&present) => {
            delete(api, &present).await?;
            tracing::info!(secret = %name, "removed the Secret of a claim whose namespace opted out");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Deletes this very Secret, and no other that took its name meanwhile.
async fn delete(api: &Api<Secret>, present: &Secret) -> Result<(), String> {
    let preconditions = Some(Preconditions { uid: present.uid(), resource_version: None });
    let (name, params) = (present.name_any(), DeleteParams { preconditions, ..DeleteParams::default() });
    let deleted = async {
        match api.delete(&name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(|_| ()),
        }
    };
    in_time(deleted).await
}

/// The file system that a Secret describes, or the sentence that says why it describes none.
async fn read_source(client: &Client, source: &SecretRef) -> Result<PodSource, String> {
    let values = cluster::secret(client, source).await?;
    let SecretRef { namespace, name } = source;
    PodSource::from_secrets(&values).map_err(|problem| format!("{problem} (it is `{namespace}/{name}`)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let envs = r#"{"AWS_REGION": "moon-1", "SUBDIR": "/elsewhere"}"#;
        let secrets = [("name", "shop"), ("metaurl", "redis://:canary@redis:6379/1"), ("envs", envs), ("bucket", "b")];
        let secrets = secrets.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let source = PodSource::from_secrets(&secrets).expect("a file system");
        Content::of(&source, false, "/web/orders").expect("no comma")
    }

    #[test]
    fn a_secret_holds_the_address_the_password_the_directory_and_the_variables_and_no_more() {
        let expected = [
            ("AWS_REGION", "moon-1"),
            ("METAURL", "redis://:@redis:6379/1"),
            ("META_PASSWORD", "canary"),
            ("SUBDIR", "/web/orders"),
        ];
        assert_eq!(content().0, expected.map(|(key, value)| (key.to_string(), value.to_string())).into());
    }

    #[test]
    fn a_secret_is_right_only_with_these_keys_and_values() {
        let claim = Claim { namespace: "shop".into(), name: "orders".into(), uid: "1".into(), ..Claim::default() };
        let owner = Owner { kind: "PersistentVolumeClaim", name: "orders".into(), uid: "1".into() };
        let written = |change: &dyn Fn(&mut BTreeMap<String, ByteString>)| {
            let mut secret: Secret =
                serde_json::from_value(manifest("pith-1", &owner, &claim, &content())).expect("a Secret");
            change(secret.data.get_or_insert_default());
            content().is_in(&secret)
        };
        assert!(written(&|_| {}));
        assert!(!written(&|data| drop(data.remove("SUBDIR"))));
        assert!(!written(&|data| drop(data.insert("SUBDIR".into(), ByteString(b"/".to_vec())))));
        assert!(!written(&|data| drop(data.insert("token".into(), ByteString(Vec::new())))));
    }

    #[test]
    fn what_changed_has_another_fingerprint() {
        let (made, failed) = (Some(Ok(content())), Some(Err("why".to_string())));
        let all = [fingerprint(None), fingerprint(made.as_ref()), fingerprint(failed.as_ref())];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 3);
        assert_eq!(fingerprint(made.as_ref()), all[1]);
    }

    #[test]
    fn looks_are_spread_over_half_of_the_time() {
        for uid in ["a", "b", "c", "d", "e"] {
            let wait = spread(Duration::from_secs(600), uid);
            assert!((300..600).contains(&wait.as_secs()), "{wait:?}");
        }
    }
}
