//! What is wrong with a cluster that Pith serves, or would be: from what was read of it to findings.
//!
//! What could not be read is a finding too, so that nobody takes silence for health. Whether a pod should have a sidecar is asked of
//! [`admission::decide`](crate::admission::decide), as the webhook asks it. Of Secrets only names come in here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use crate::admission::{Decision, Verdict};
use crate::catalogue::{Code, Level};
use crate::claim_secret::{self, Bound, Wanted};
use crate::json::list;
use crate::mount_pod;
use crate::object::{Claim, Entries, Kind, Namespace, Objects, SecretRef, StorageClass};
use crate::pod::Pod;
use crate::reason::{ENABLE_LABEL, STATUS_ANNOTATION};
use crate::rotation::Validity;
use crate::selector::LabelSelector;
use crate::settings::{self, Configuration, Layers, Usage};
use crate::sidecar::secret_name;

/// The webhook's name in its registration, as the chart has it.
pub const WEBHOOK: &str = "inject.pith.dev";
/// Its name for namespaces with the other label.
const SERVERLESS_WEBHOOK: &str = "serverless.inject.pith.dev";
/// Which pods of the JuiceFS CSI driver are read: those that mount, and those that tend them.
pub const DRIVER_PODS: &str = "app.kubernetes.io/name in (juicefs-mount, juicefs-csi-driver)";

/// What the names of the JuiceFS CSI driver's own injecting webhooks begin with.
const OTHER_INJECTOR: &str = "sidecar.inject.";
/// A certificate that lasts for years is spoken of this long before its end.
const LONGEST_NOTICE: Duration = Duration::from_secs(30 * DAY);
const DAY: u64 = 24 * HOUR;
const HOUR: u64 = 60 * 60;

/// What was read, or the reason why it was not.
pub type Read<T, E = String> = Result<T, E>;

/// Decides about one pod of a namespace.
pub type Decide<'a> = &'a dyn Fn(&str, &Value) -> Decision;

/// A webhook by the name of its configuration and its own.
pub type WebhookName = (String, String);

/// Everything that was read.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// The configuration of sidecars.
    pub configuration: &'a Configuration,
    /// The objects.
    pub objects: &'a Objects,
    /// The kinds of objects that were not read, and why.
    pub unread: BTreeMap<Kind, String>,
    /// Whether the objects are all that there are: files may lack some.
    pub complete: bool,
    /// The only namespace that is looked at; absent for all of them.
    pub namespace: Option<&'a str>,
    /// The MutatingWebhookConfiguration that the configuration names.
    pub registration: Option<&'a str>,
    /// The MutatingWebhookConfigurations.
    pub webhooks: Read<Vec<Value>>,
    /// What was seen of our webhooks beside their registration.
    pub seen: BTreeMap<WebhookName, Seen>,
    /// The names of the CSIDrivers.
    pub drivers: Read<BTreeSet<String>>,
    /// Whether the Secrets of [`needed_secrets`] are there.
    pub secrets: BTreeMap<SecretRef, Read<bool>>,
    /// The pods, and what each is called: one that a workload would make is called as the workload is, and has no status.
    pub pods: Read<Vec<(Object, Value)>>,
    /// The [`DRIVER_PODS`].
    pub driver_pods: Read<Vec<Value>>,
}

/// What was seen of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The CAs of its bundle.
    pub authorities: Read<Vec<Validity>>,
    /// The addresses that answer for it, and what each serves; absent where there is no Service of that name.
    pub addresses: Read<Option<BTreeMap<String, Read<Served>>>>,
}

/// A certificate that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// From when to when it is valid.
    pub validity: Validity,
    /// Whether the bundle of the registration has a CA that signed it.
    pub trusted: bool,
    /// Whether it is for the name by which API servers ask.
    pub named: bool,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The stable word.
    pub code: Code,
    /// What it is about.
    #[serde(flatten)]
    pub object: Object,
    /// What was found, in a sentence.
    pub message: String,
    /// What to do about it.
    pub action: &'static str,
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Object {
    /// As in `Pod`.
    pub kind: String,
    /// Absent where the kind has none.
    pub namespace: Option<String>,
    /// Absent where all of the kind are meant.
    pub name: Option<String>,
}

impl Object {
    pub(crate) fn of(kind: &str, name: &str) -> Object {
        Object { kind: kind.into(), namespace: None, name: Some(name.into()) }
    }

    fn within(kind: &str, namespace: &str, name: &str) -> Object {
        Object { namespace: Some(namespace.into()), ..Object::of(kind, name) }
    }

    pub(crate) fn all(kind: &str) -> Object {
        Object { kind: kind.into(), namespace: None, name: None }
    }

    /// As in `shop/web-0`; empty where all of the kind are meant.
    pub fn path(&self) -> String {
        let parts = [self.namespace.as_deref(), self.name.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    }
}

/// One webhook of a MutatingWebhookConfiguration.
#[derive(Debug, Clone, Copy)]
pub struct Webhook<'a> {
    /// The name of the configuration.
    pub configuration: &'a str,
    /// Its own name.
    pub name: &'a str,
    /// What is registered.
    pub value: &'a Value,
}

impl<'a> Webhook<'a> {
    fn all(configurations: &'a [Value]) -> impl Iterator<Item = Webhook<'a>> {
        configurations.iter().flat_map(|it| {
            let configuration = it["metadata"]["name"].as_str().unwrap_or_default();
            let webhook = move |value: &'a Value| Webhook {
                configuration,
                name: value["name"].as_str().unwrap_or_default(),
                value,
            };
            list(&it["webhooks"]).iter().map(webhook)
        })
    }

    /// Its key in [`Observed::seen`].
    pub fn key(self) -> WebhookName {
        (self.configuration.into(), self.name.into())
    }

    fn is_about_pods(self) -> bool {
        list(&self.value["rules"]).iter().flat_map(|rule| list(&rule["resources"])).any(|it| it == "pods" || it == "*")
    }

    fn selects(self, namespace: &str, labels: &Entries) -> bool {
        let mut labels = labels.clone();
        // API servers see to it; files may come from somebody who did not.
        labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
        LabelSelector::read(&self.value["namespaceSelector"]).matches(&labels)
    }

    fn object(self) -> Object {
        Object::of("MutatingWebhookConfiguration", self.configuration)
    }
}

/// Our webhooks for pods: those of the configuration that is named, else those that have our names.
pub fn ours<'a>(configurations: &'a [Value], registration: Option<&str>) -> Vec<Webhook<'a>> {
    let has_name = |it: &Webhook<'_>| it.name == WEBHOOK || it.name == SERVERLESS_WEBHOOK;
    let is_ours = |it: &Webhook<'_>| registration.map_or_else(|| has_name(it), |name| it.configuration == name);
    Webhook::all(configurations).filter(|it| is_ours(it) && it.is_about_pods()).collect()
}

/// The Secrets that must be there: those beside claims, and those of the file systems.
pub fn needed_secrets(
    configuration: &Configuration,
    objects: &Objects,
    namespace: Option<&str>,
) -> BTreeSet<SecretRef> {
    let mut needed: BTreeSet<SecretRef> = file_systems(configuration, objects, namespace).into_keys().collect();
    let claims = bound(configuration, objects, namespace);
    needed.extend(claims.filter(|it| matches!(it.secret, Wanted::Made { .. })).map(|it| beside(&it.claim)));
    needed
}

/// Everything that is wrong or would be, the worst first.
pub fn check(observed: &Observed<'_>, now: SystemTime, decide: Decide<'_>) -> Vec<Finding> {
    let mut check = Check { observed, now, findings: Vec::new() };
    for (kind, why) in &observed.unread {
        check.not_looked_at(Object::all(kind.name()), why);
    }
    check.registration();
    check.driver();
    check.classes();
    check.claims();
    check.secrets();
    check.pods(decide);
    check.mount_pods();
    check.findings.sort();
    // One configuration may have several webhooks of one fault.
    check.findings.dedup();
    check.findings
}

/// The findings so far.
struct Check<'a> {
    observed: &'a Observed<'a>,
    now: SystemTime,
    findings: Vec<Finding>,
}

impl<'a> Check<'a> {
    fn found(&mut self, level: Level, code: Code, object: Object, message: impl Into<String>) {
        let action = code.entry().action;
        self.findings.push(Finding { level, code, object, message: message.into(), action });
    }

    fn not_looked_at(&mut self, object: Object, why: &str) {
        self.found(Level::Info, Code::NotLookedAt, object, why);
    }

    fn in_scope(&self, namespace: &str) -> bool {
        self.observed.namespace.is_none_or(|only| only == namespace)
    }

    /// The namespaces in scope that opted in.
    fn namespaces(&self) -> Vec<&'a Arc<Namespace>> {
        let namespaces = self.observed.objects.namespaces();
        namespaces.filter(|it| self.in_scope(&it.name) && claim_secret::opted_in(it)).collect()
    }

    /// Whether API servers ask the webhook about pods of this namespace; yes, where that is not known.
    fn is_selected(&self, namespace: &str) -> bool {
        let Ok(configurations) = &self.observed.webhooks else { return true };
        let ours = ours(configurations, self.observed.registration);
        let labels = self.observed.objects.namespace(namespace).map(|it| it.labels.clone()).unwrap_or_default();
        ours.is_empty() || ours.iter().any(|it| it.selects(namespace, &labels))
    }

    /// Whether API servers call the webhook, and whether it can answer them.
    fn registration(&mut self) {
        let observed = self.observed;
        let configurations = match &observed.webhooks {
            Ok(configurations) => configurations,
            Err(why) => return self.not_looked_at(Object::all("MutatingWebhookConfiguration"), why),
        };
        let ours = ours(configurations, observed.registration);
        if ours.is_empty() {
            let name = observed.registration.map_or_else(
                || format!("no MutatingWebhookConfiguration has a webhook `{WEBHOOK}`"),
                |name| format!("there is no MutatingWebhookConfiguration `{name}` with a webhook"),
            );
            let object = observed.registration.map_or_else(
                || Object::all("MutatingWebhookConfiguration"),
                |name| Object::of("MutatingWebhookConfiguration", name),
            );
            let message = format!("{name}: no pod is injected");
            return self.found(Level::Error, Code::WebhookNotRegistered, object, message);
        }
        for webhook in &ours {
            if webhook.value["failurePolicy"] == "Ignore" {
                let message =
                    "its failurePolicy is Ignore: while no replica answers, pods are made without their volumes";
                self.found(Level::Info, Code::WebhookFailsOpen, webhook.object(), message);
            }
            match observed.seen.get(&webhook.key()) {
                Some(seen) => self.certificates(*webhook, seen),
                None => self.not_looked_at(webhook.object(), "its certificates were not looked at"),
            }
        }
        let of_driver: Vec<Webhook<'_>> = of_driver(configurations).collect();
        for namespace in self.namespaces() {
            let selected =
                |webhooks: &[Webhook<'_>]| webhooks.iter().any(|it| it.selects(&namespace.name, &namespace.labels));
            // In a cluster that moves, the driver injects into the others.
            if !selected(&ours) && !selected(&of_driver) {
                let message = "it opted in by its label, but the namespaceSelector of the webhook leaves it out: its pods are not injected";
                self.found(Level::Error, Code::NamespaceNotSelected, Object::of("Namespace", &namespace.name), message);
            }
        }
        self.other_injectors(configurations, &ours);
    }

    /// The JuiceFS CSI driver's own webhook, where it injects into pods that are ours.
    fn other_injectors(&mut self, configurations: &'a [Value], ours: &[Webhook<'a>]) {
        let mut namespaces: Vec<(String, Entries)> =
            self.namespaces().into_iter().map(|it| (it.name.clone(), it.labels.clone())).collect();
        namespaces.sort_by(|(name, _), (other, _)| name.cmp(other));
        // One that opts in tomorrow.
        namespaces.push((String::new(), [(ENABLE_LABEL.to_string(), "true".to_string())].into_iter().collect()));
        for other in of_driver(configurations) {
            let both = |(name, labels): &&(String, Entries)| {
                other.selects(name, labels) && ours.iter().any(|it| it.selects(name, labels))
            };
            let Some((namespace, _)) = namespaces.iter().find(both) else { continue };
            let example = if namespace.is_empty() { String::new() } else { format!(", such as `{namespace}`") };
            let message = format!(
                "its webhook `{}` is of the JuiceFS CSI driver, and is asked about pods of the same namespaces as Pith{example}: \
                 whichever is asked first mounts, and the other leaves the pod alone",
                other.name
            );
            self.found(Level::Error, Code::TwoInjectors, other.object(), message);
        }
    }

    fn certificates(&mut self, webhook: Webhook<'_>, seen: &Seen) {
        let authorities = match &seen.authorities {
            Ok(authorities) => authorities.as_slice(),
            Err(why) => {
                let message = format!("the caBundle of its webhook `{}` cannot be used: {why}", webhook.name);
                self.mismatch(webhook, message);
                &[]
            }
        };
        let mut served = Vec::new();
        match &seen.addresses {
            Err(why) => {
                self.not_looked_at(webhook.object(), &format!("the certificate that is served is not looked at: {why}"))
            }
            Ok(None) => self.unreachable(webhook, "there is no such Service, or it has not that port"),
            Ok(Some(addresses)) if addresses.is_empty() => {
                self.unreachable(webhook, "its Service has no address that is ready");
            }
            Ok(Some(addresses)) => {
                for (address, answer) in addresses {
                    match answer {
                        Ok(it) => served.push((address, it)),
                        Err(why) => {
                            let why = format!("the certificate that {address} serves is not looked at: {why}");
                            self.not_looked_at(webhook.object(), &why);
                        }
                    }
                }
            }
        }
        let places = |wrong: fn(&Served) -> bool| {
            let places: Vec<&str> =
                served.iter().filter(|(_, it)| wrong(it)).map(|(address, _)| address.as_str()).collect();
            (!places.is_empty()).then(|| places.join(", "))
        };
        if let Some(places) = places(|it| !it.trusted).filter(|_| seen.authorities.is_ok()) {
            let message = format!(
                "no CA in the caBundle of its webhook `{}` signed the certificate that is served at {places}: API servers \
                 refuse it",
                webhook.name
            );
            self.mismatch(webhook, message);
        }
        if let Some(places) = places(|it| !it.named) {
            let message = format!(
                "the certificate that is served at {places} is not for the name by which API servers ask for the webhook `{}`",
                webhook.name
            );
            self.mismatch(webhook, message);
        }
        // The served ones say it best. Where they are not known, the CAs do: one of Pith's ends with its only certificate.
        let ends = match served.is_empty() {
            false => served.iter().map(|(_, it)| it.validity).min_by_key(|it| it.ends),
            true => authorities.iter().copied().max_by_key(|it| it.ends),
        };
        let what = if served.is_empty() { "the last CA of its caBundle" } else { "the certificate that is served" };
        let Some(validity) = ends else { return };
        match validity.ends.duration_since(self.now) {
            Err(since) => {
                let message = format!("{what} ended {} ago: API servers refuse it", span(since.duration()));
                self.found(Level::Error, Code::CertificateExpired, webhook.object(), message);
            }
            Ok(left) if left < notice(validity) => {
                let message = format!("{what} ends in {}, and was to be renewed by now", span(left));
                self.found(Level::Warning, Code::CertificateExpiring, webhook.object(), message);
            }
            Ok(_) => {}
        }
    }

    fn mismatch(&mut self, webhook: Webhook<'_>, message: String) {
        self.found(Level::Error, Code::WebhookCaMismatch, webhook.object(), message);
    }

    fn unreachable(&mut self, webhook: Webhook<'_>, why: &str) {
        let service = &webhook.value["clientConfig"]["service"];
        let text = |key: &str| service[key].as_str().unwrap_or_default();
        let message = format!(
            "API servers call its webhook `{}` through the Service `{}/{}`: {why}",
            webhook.name,
            text("namespace"),
            text("name")
        );
        self.found(Level::Error, Code::WebhookUnreachable, webhook.object(), message);
    }

    fn driver(&mut self) {
        let driver = &self.observed.configuration.driver;
        match &self.observed.drivers {
            Err(why) => self.not_looked_at(Object::all("CSIDriver"), why),
            Ok(drivers) if drivers.contains(driver) => {}
            Ok(_) => {
                let message = "there is no such CSIDriver: Kubernetes waits for somebody to attach the volumes of its pods, and nobody does";
                self.found(Level::Error, Code::CsidriverMissing, Object::of("CSIDriver", driver), message);
            }
        }
    }

    fn classes(&mut self) {
        // What mountPodPatch says is no class's fault, and neither is what a claim lacks for a template.
        let strict_templates = false;
        let configuration =
            Configuration { patches: Vec::new(), strict_templates, ..self.observed.configuration.clone() };
        let nobody = json!({"spec": {}});
        let Ok(pod) = Pod::read(&nobody) else { return };
        for class in classes(self.observed.configuration, self.observed.objects) {
            let object = || Object::of("StorageClass", &class.name);
            if class.secret.is_none() {
                let message = "it names no Secret of a file system: its volumes can be neither made nor mounted";
                self.found(Level::Error, Code::ClassWithoutSecret, object(), message);
            }
            let mut warnings = Vec::new();
            let usage = Usage { pod, volumes: &[("data", false)] };
            let layers = Layers {
                claim: &Claim::default(),
                storage_class: Some(class),
                persistent_volume: None,
                file_system: None,
                usage,
            };
            match settings::resolve(&configuration, &layers, false, &mut warnings) {
                Ok(settings) => warnings.retain(|warning| !settings.notes.contains(warning)),
                Err(refusal) => self.found(Level::Error, Code::ClassInvalidSetting, object(), refusal.to_string()),
            }
            for warning in warnings {
                self.found(Level::Warning, Code::ClassUnknownKey, object(), warning);
            }
        }
    }

    fn claims(&mut self) {
        let Observed { configuration, objects, namespace, .. } = self.observed;
        for Bound { claim, secret } in bound(configuration, objects, *namespace) {
            let object = || Object::within("PersistentVolumeClaim", &claim.namespace, &claim.name);
            let name = beside(&claim);
            match secret {
                Wanted::Impossible(why) => {
                    self.found(Level::Error, Code::ClaimSecretImpossible, object(), why);
                }
                Wanted::Made { .. } if self.observed.secrets.get(&name) == Some(&Ok(false)) => {
                    let message =
                        format!("there is no Secret `{}` beside it: pods that use it wait for that Secret", name.name);
                    self.found(Level::Error, Code::ClaimWithoutSecret, object(), message);
                }
                Wanted::Made { .. } | Wanted::Nothing => {}
            }
        }
    }

    /// The Secrets of file systems, and those that nobody could look for.
    fn secrets(&mut self) {
        let Observed { configuration, objects, namespace, secrets, .. } = self.observed;
        for (secret, named_by) in file_systems(configuration, objects, *namespace) {
            if secrets.get(&secret) == Some(&Ok(false)) {
                let message = format!("there is no such Secret, which {named_by} names for its file system");
                let object = Object::within("Secret", &secret.namespace, &secret.name);
                self.found(Level::Error, Code::FileSystemSecretMissing, object, message);
            }
        }
        // One reason for each namespace is enough.
        let unread: BTreeMap<&String, &String> =
            secrets.iter().filter_map(|(secret, found)| Some((&secret.namespace, found.as_ref().err()?))).collect();
        for (namespace, why) in unread {
            self.not_looked_at(Object { namespace: Some(namespace.clone()), ..Object::all("Secret") }, why);
        }
    }

    fn pods(&mut self, decide: Decide<'_>) {
        let observed = self.observed;
        let pods = match &observed.pods {
            Ok(pods) => pods,
            Err(why) => return self.not_looked_at(Object::all("Pod"), why),
        };
        // What files lack is said of each pod that needs it.
        if let Some(kind) = observed.unread.keys().next().filter(|_| observed.complete) {
            let why = format!("no decision about a pod can be made without the {}", kind.plural());
            return self.not_looked_at(Object::all("Pod"), &why);
        }
        for (object, pod) in pods.iter().filter(|(_, pod)| !has_ended(pod)) {
            let namespace = object.namespace.as_deref().unwrap_or_default();
            if self.in_scope(namespace) {
                let decision = decide(namespace, pod);
                self.pod(object.clone(), pod, &decision);
            }
        }
    }

    fn pod(&mut self, object: Object, pod: &Value, decision: &Decision) {
        let is_there = pod["status"]["phase"].is_string();
        let is_injected = pod["metadata"]["annotations"][STATUS_ANNOTATION].is_string();
        match &decision.verdict {
            Verdict::Fail(failure) => {
                self.found(Level::Error, Code::PolicyFailed, object, failure.code().behind(failure));
            }
            Verdict::Refuse(_) if !self.observed.complete && !decision.missing.is_empty() => {
                let missing: Vec<String> = decision.missing.iter().map(ToString::to_string).collect();
                self.not_looked_at(object, &format!("the files do not have {}", missing.join(", ")));
            }
            Verdict::Inject(patch) if is_injected && patch.is_empty() => {}
            Verdict::Inject(_) if is_injected => {
                let message = "its sidecars are not those that it would get now: a policy, a class or the configuration has changed";
                self.found(Level::Warning, Code::InjectionStale, object, message);
            }
            Verdict::Skip { why, .. } if is_injected => {
                let message =
                    format!("it has sidecars that it would not get now: {}", why.code().behind(why.sentence()));
                self.found(Level::Warning, Code::InjectionStale, object, message);
            }
            Verdict::Refuse(refusal) if is_injected => {
                let message = format!("it has sidecars, and would be refused now: {}", refusal.code().behind(refusal));
                // Made anew, there would be none.
                let action = Code::PodRefused.entry().action;
                self.findings.push(Finding {
                    level: Level::Warning,
                    code: Code::InjectionStale,
                    object,
                    message,
                    action,
                });
            }
            // Where nobody asks about the namespace, that is the finding.
            Verdict::Inject(_) if is_there && self.is_selected(object.namespace.as_deref().unwrap_or_default()) => {
                let message = "it has no sidecar and would get one now: it was made before its namespace opted in, or while the \
                               webhook was not asked";
                self.found(Level::Warning, Code::PodMissed, object, message);
            }
            Verdict::Refuse(refusal) => {
                let message = format!("it would be refused if it were made now: {}", refusal.code().behind(refusal));
                self.found(Level::Warning, Code::PodRefused, object, message);
            }
            Verdict::Inject(_) | Verdict::Skip { .. } => {}
        }
    }

    /// Mount pods of the JuiceFS CSI driver: who uses one depends on it, and it depends on the driver's pod on its node.
    fn mount_pods(&mut self) {
        let (driver_pods, pods) = match (&self.observed.driver_pods, &self.observed.pods) {
            (Ok(driver_pods), Ok(pods)) => (driver_pods, pods),
            // Without the pods that is said already.
            (Err(why), Ok(_)) => {
                let object = Object { name: Some("juicefs-*".into()), ..Object::all("Pod") };
                return self.not_looked_at(object, &format!("mount pods are not looked at: {why}"));
            }
            (_, Err(_)) => return,
        };
        let live = pods.iter().filter(|(_, pod)| !has_ended(pod));
        let live: BTreeMap<&str, &Object> =
            live.filter_map(|(object, pod)| Some((pod["metadata"]["uid"].as_str()?, object))).collect();
        let is = |pod: &Value, label: &str, value: &str| pod["metadata"]["labels"][label] == value && !has_ended(pod);
        let tended: BTreeSet<&str> = driver_pods
            .iter()
            .filter(|pod| is(pod, "app", "juicefs-csi-node"))
            .filter_map(|pod| pod["spec"]["nodeName"].as_str())
            .collect();
        for pod in driver_pods.iter().filter(|pod| mount_pod::is_mount_pod(pod)) {
            let users: BTreeSet<&Object> =
                mount_pod::users(pod).iter().filter_map(|uid| live.get(uid.as_str()).copied()).collect();
            let opted_in = |user: &&Object| {
                let namespace = user.namespace.as_deref().and_then(|it| self.observed.objects.namespace(it));
                namespace.is_some_and(|it| claim_secret::opted_in(it))
            };
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            let (level, message) = match (tended.contains(node), users.iter().any(opted_in)) {
                _ if users.is_empty() => continue,
                // The driver makes it anew.
                (true, _) if has_ended(pod) => continue,
                (false, _) if has_ended(pod) => {
                    (Level::Error, "it has ended, and no pod of the JuiceFS CSI driver makes it anew on its node")
                }
                (false, _) => (Level::Error, "no pod of the JuiceFS CSI driver tends it on its node any more"),
                (true, true) => {
                    (Level::Warning, "the JuiceFS CSI driver tends it, and nobody will once that is taken away")
                }
                (true, false) => {
                    (Level::Info, "the JuiceFS CSI driver tends it, and nobody would if that were taken away")
                }
            };
            let names = users.iter().map(|it| format!("`{}`", it.path())).collect::<Vec<_>>().join(", ");
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
            let object = Object::within("Pod", text("namespace"), text("name"));
            let holds = if has_ended(pod) { "held" } else { "holds" };
            let message = format!("{message}: it {holds} the volume of {names}");
            self.found(level, Code::MountPodStranded, object, message);
        }
    }
}

/// The webhooks with which the JuiceFS CSI driver injects.
fn of_driver(configurations: &[Value]) -> impl Iterator<Item = Webhook<'_>> {
    Webhook::all(configurations).filter(|it| it.name.starts_with(OTHER_INJECTOR))
}

fn has_ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        || pod["metadata"]["deletionTimestamp"].is_string()
}

/// The classes of our driver.
fn classes<'a>(configuration: &Configuration, objects: &'a Objects) -> impl Iterator<Item = &'a Arc<StorageClass>> {
    objects.storage_classes().filter(|class| class.provisioner == configuration.driver)
}

/// The claims that are bound to a volume of our driver.
fn bound(configuration: &Configuration, objects: &Objects, namespace: Option<&str>) -> impl Iterator<Item = Bound> {
    let namespace = namespace.map(str::to_string);
    let bound = claim_secret::bound(objects, &configuration.driver).into_values();
    bound.filter(move |it| namespace.as_ref().is_none_or(|only| *only == it.claim.namespace))
}

/// The Secrets of file systems, each with one object that names it.
fn file_systems(
    configuration: &Configuration,
    objects: &Objects,
    namespace: Option<&str>,
) -> BTreeMap<SecretRef, String> {
    let of_claim = |it: Bound| match it.secret {
        Wanted::Made { source, .. } => {
            Some((source, format!("the volume of the claim `{}/{}`", it.claim.namespace, it.claim.name)))
        }
        Wanted::Impossible(_) | Wanted::Nothing => None,
    };
    let of_class = |it: &Arc<StorageClass>| Some((it.secret.clone()?, format!("the StorageClass `{}`", it.name)));
    let named = bound(configuration, objects, namespace).filter_map(of_claim);
    let named = named.chain(classes(configuration, objects).filter_map(of_class));
    // csi-provisioner fills in such a name for each claim.
    named.filter(|(secret, _)| !format!("{}{}", secret.namespace, secret.name).contains("${")).collect()
}

/// The Secret beside a claim.
fn beside(claim: &Claim) -> SecretRef {
    SecretRef { namespace: claim.namespace.clone(), name: secret_name(claim) }
}

/// How long before its end a certificate is spoken of. Pith renews when a third of the time is left, as cert-manager does.
fn notice(validity: Validity) -> Duration {
    (validity.ends.duration_since(validity.starts).unwrap_or_default() / 4).min(LONGEST_NOTICE)
}

fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        seconds if seconds >= 2 * HOUR => format!("{} hours", seconds / HOUR),
        seconds => format!("{} minutes", seconds / 60),
    }
}

#[cfg(test)]
mod tests;
