//! `pith check`: reads what can be read of a cluster, or of files, and prints what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use hyper::Uri;
use kube::api::ListParams;
use pith_core::admission::{self, Context};
use pith_core::catalogue::Level;
use pith_core::check::{
    self, DRIVER_PODS, Finding, Object, Observed, Read, Seen, Webhook, WebhookName, needed_secrets, ours,
};
use pith_core::json::list;
use pith_core::object::{Kind, Objects, SecretRef};
use pith_core::pod::Pod;
use pith_core::reason::STATUS_ANNOTATION;
use pith_core::registration::Manifest;
use pith_core::rotation::Validity;
use pith_core::workload::Workload;
use serde_json::{Value, json};

use super::{print, subjects};
use crate::args::{AnswerOutput, Check};
use crate::cluster::{self, Look};
use crate::config::file::{Log, LogFormat};
use crate::config::{Config, ConfigMapRef, ObjectSource};
use crate::policy::Moment;
use crate::tls::served;
use crate::{install_crypto, telemetry};

/// The most time for the decision about one pod: that of a webhook whose configuration says nothing else.
const TIME: Duration = Duration::from_secs(10);
/// The port of a webhook's Service where its registration names none.
const HTTPS: u64 = 443;
const WEBHOOKS: (&str, &str) = ("admissionregistration.k8s.io", "MutatingWebhookConfiguration");
const DRIVERS: (&str, &str) = ("storage.k8s.io", "CSIDriver");

/// What was read, before the Secrets that it needs.
struct Found {
    objects: Objects,
    unread: BTreeMap<Kind, String>,
    webhooks: Read<Vec<Value>>,
    seen: BTreeMap<WebhookName, Seen>,
    drivers: Read<BTreeSet<String>>,
    pods: Read<Vec<(Object, Value)>>,
    driver_pods: Read<Vec<Value>>,
}

/// Reads, decides and prints. The exit code is 1 where an error or a warning was found.
pub fn run(args: &Check) -> Result<ExitCode> {
    let mut config = Config::load_or_built_in(args.config.as_deref())?;
    telemetry::start(&Log { format: LogFormat::Text, filter: "warn".into() })?;
    install_crypto();
    let modules = match args.objects {
        Some(_) => subjects::Modules::default(),
        None => subjects::add_bindings(&mut config, args.kubeconfig.as_deref())?,
    };
    let policies = subjects::policies(&config, &modules)?;
    let registration = registration(&config)?;
    let (namespace, registration) = (args.namespace.as_deref(), registration.as_deref());
    let needed = |objects: &Objects| needed_secrets(&config.sidecars, objects, namespace);
    let (found, secrets, complete) = match (&args.objects, &args.kubeconfig, &config.objects) {
        (Some(path), ..) | (None, None, Some(ObjectSource::Directory(path))) => {
            let (found, secrets) = of_files(path, registration, needed)?;
            (found, secrets, false)
        }
        (None, kubeconfig, source) => {
            let kubeconfig = kubeconfig.as_deref().or(match source {
                Some(ObjectSource::Cluster { kubeconfig, .. }) => kubeconfig.as_deref(),
                _ => None,
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let (found, secrets) = runtime.context("starting the runtime")?.block_on(async {
                let look = Look(cluster::connect_as_kubectl(kubeconfig).await?);
                let found = of_cluster(&look, namespace, config.file_systems(), registration).await?;
                let secrets = look.secrets(needed(&found.objects)).await?;
                anyhow::Ok((found, secrets.into_iter().collect()))
            })?;
            (found, secrets, true)
        }
    };
    if let Some(name) = namespace
        && !found.unread.contains_key(&Kind::Namespace)
        && found.objects.namespace(name).is_none()
    {
        bail!("there is no namespace `{name}`");
    }
    let observed = Observed {
        configuration: &config.sidecars,
        objects: &found.objects,
        unread: found.unread,
        complete,
        namespace,
        registration,
        webhooks: found.webhooks,
        seen: found.seen,
        drivers: found.drivers,
        secrets,
        pods: found.pods,
        driver_pods: found.driver_pods,
    };
    let context = Context {
        configuration: &config.sidecars,
        bindings: &policies.bindings,
        objects: observed.objects,
        request: "",
    };
    let moment = Moment { objects: observed.objects, time: SystemTime::now() };
    let decide = |namespace: &str, pod: &Value| {
        admission::decide(&context, namespace, pod, &policies.evaluator(Instant::now() + TIME, moment))
    };
    let findings = check::check(&observed, moment.time, &decide);
    print(&match args.output {
        AnswerOutput::Text => text(findings.iter().map(|it| (it, None))),
        AnswerOutput::Json => format!("{}\n", serde_json::to_string_pretty(&findings)?),
        AnswerOutput::Yaml => yaml_serde::to_string(&findings)?,
    })?;
    let is_wrong = findings.iter().any(|it| it.level != Level::Info);
    Ok(if is_wrong { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// The name of the MutatingWebhookConfiguration that the configuration has.
fn registration(config: &Config) -> Result<Option<String>> {
    let Some(registration) = config.webhook.as_ref().and_then(|it| it.registration.as_ref()) else { return Ok(None) };
    let place = || format!("the webhook's configuration {}", registration.manifest.display());
    let text = std::fs::read_to_string(&registration.manifest).with_context(place)?;
    let manifest = Manifest::parse(yaml_serde::from_str(&text).with_context(place)?).with_context(place)?;
    Ok(Some(manifest.name().to_string()))
}

async fn of_cluster(
    look: &Look,
    namespace: Option<&str>,
    known: Option<&ConfigMapRef>,
    registration: Option<&str>,
) -> Result<Found> {
    let (objects, unread) = look.everything(namespace, known).await?;
    let mut webhooks = look.values(WEBHOOKS, None, ListParams::default(), Some).await?;
    if let (Err(_), Some(name)) = (&webhooks, registration) {
        // The right of the webhook itself is for its own only.
        let own = ListParams::default().fields(&format!("metadata.name={name}"));
        webhooks = look.values(WEBHOOKS, None, own, Some).await?;
    }
    let mut seen = BTreeMap::new();
    for webhook in webhooks.iter().flat_map(|it| ours(it, registration)) {
        seen.insert(webhook.key(), see(look, webhook).await?);
    }
    let drivers = look.values(DRIVERS, None, ListParams::default(), Some).await?;
    let pods = look.values(("", "Pod"), namespace, ListParams::default(), trimmed).await?;
    let mounting = ListParams::default().labels(DRIVER_PODS);
    let driver_pods = look.values(("", "Pod"), None, mounting, |pod| Some(without_status(pod))).await?;
    Ok(Found {
        objects,
        unread,
        webhooks,
        seen,
        drivers: drivers.map(|it| it.iter().filter_map(name).collect()),
        pods: pods.map(|it| it.into_iter().map(|pod| (called(&pod, "Pod"), pod)).collect()),
        driver_pods,
    })
}

/// What decisions read of a pod that may be ours; none of another.
fn trimmed(pod: Value) -> Option<Value> {
    let is_injected = pod["metadata"]["annotations"][STATUS_ANNOTATION].is_string();
    let is_ours = is_injected || Pod::read(&pod).is_ok_and(Pod::names_claims);
    is_ours.then(|| without_status(pod))
}

fn without_status(mut pod: Value) -> Value {
    let phase = pod["status"]["phase"].take();
    pod["status"] = json!({"phase": phase});
    pod
}

fn name(object: &Value) -> Option<String> {
    object["metadata"]["name"].as_str().map(str::to_string)
}

/// What a pod is called, or the workload that would make it.
fn called(object: &Value, kind: &str) -> Object {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str());
    Object {
        kind: kind.into(),
        namespace: Some(metadata["namespace"].as_str().unwrap_or("default").into()),
        name: name.map(str::to_string),
    }
}

/// Looks at a webhook from outside: what of it answers, and with which certificate.
async fn see(look: &Look, webhook: Webhook<'_>) -> Result<Seen> {
    let (bundle, authorities) = authorities(webhook);
    let client = &webhook.value["clientConfig"];
    let (asked_for, addresses) = if let Some(url) = client["url"].as_str() {
        let url: Uri = url.parse().with_context(|| format!("the url of the webhook `{}`", webhook.name))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
        let port = url.port_u16().map_or(HTTPS, u64::from);
        (host, Ok(Some(BTreeSet::from([format!("{}:{port}", url.host().unwrap_or_default())]))))
    } else {
        let service = &client["service"];
        let text = |key: &str| service[key].as_str().unwrap_or_default();
        let port = service["port"].as_u64().unwrap_or(HTTPS);
        (
            format!("{}.{}.svc", text("name"), text("namespace")),
            endpoints(look, text("namespace"), text("name"), port).await?,
        )
    };
    let addresses = match addresses {
        Ok(Some(addresses)) => {
            let ask = async |address: String| {
                let answer = served::served(&address, &asked_for, &bundle).await;
                (address, answer.map_err(|error| format!("{error:#}")))
            };
            Ok(Some(join_all(addresses.into_iter().map(ask)).await.into_iter().collect()))
        }
        Ok(None) => Ok(None),
        Err(why) => Err(why),
    };
    Ok(Seen { authorities, addresses })
}

/// The bundle of a webhook, and what is known of its CAs.
fn authorities(webhook: Webhook<'_>) -> (Vec<u8>, Read<Vec<Validity>>) {
    let encoded = webhook.value["clientConfig"]["caBundle"].as_str().unwrap_or_default();
    let bundle = STANDARD.decode(encoded).unwrap_or_default();
    let authorities = match encoded {
        "" => Err("there is none".to_string()),
        _ => served::authorities(&bundle).map_err(|error| format!("{error:#}")),
    };
    (bundle, authorities)
}

/// The addresses behind a port of a Service that are ready; none where there is no such Service or port.
async fn endpoints(look: &Look, namespace: &str, name: &str, port: u64) -> Result<Read<Option<BTreeSet<String>>>> {
    let service = match look.value(("", "Service"), namespace, name).await? {
        Ok(Some(service)) => service,
        Ok(None) => return Ok(Ok(None)),
        Err(why) => return Ok(Err(why)),
    };
    let Some(of_service) = list(&service["spec"]["ports"]).iter().find(|it| it["port"] == port) else {
        return Ok(Ok(None));
    };
    let of_service = of_service["name"].as_str().unwrap_or_default();
    let labels = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let slices = look.values(("discovery.k8s.io", "EndpointSlice"), Some(namespace), labels, Some).await?;
    Ok(slices.map(|slices| {
        let mut addresses = BTreeSet::new();
        for slice in &slices {
            let ports = list(&slice["ports"]).iter();
            let port = ports.filter(|it| it["name"].as_str().unwrap_or_default() == of_service);
            let Some(port) = port.filter_map(|it| u16::try_from(it["port"].as_u64()?).ok()).next() else { continue };
            let ready = list(&slice["endpoints"]).iter().filter(|it| it["conditions"]["ready"] != false);
            let ready =
                ready.flat_map(|it| list(&it["addresses"])).filter_map(|it| it.as_str()?.parse::<IpAddr>().ok());
            addresses.extend(ready.map(|address| SocketAddr::new(address, port).to_string()));
        }
        Some(addresses)
    }))
}

/// What the files have. A kind that they have nothing of is not looked at, as nobody can tell whether there is nothing.
fn of_files(
    path: &Path,
    registration: Option<&str>,
    needed: impl Fn(&Objects) -> BTreeSet<SecretRef>,
) -> Result<(Found, BTreeMap<SecretRef, Read<bool>>)> {
    let (mut objects, mut webhooks, mut drivers) = (Objects::default(), Vec::new(), BTreeSet::new());
    let (mut pods, mut driver_pods, mut secrets) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (file, document) in cluster::documents(path)? {
        let kind = document["kind"].as_str().unwrap_or_default();
        let place = || format!("{kind} `{}` in {}", name(&document).unwrap_or_default(), file.display());
        if let Some(known) = cluster::file_systems(&document) {
            objects.know(known);
        }
        if let Some(object) = cluster::object(&document).with_context(place)? {
            if objects.insert(object) {
                bail!("{} is there twice", place());
            }
            continue;
        }
        match kind {
            "Secret" => {
                let called = called(&document, kind);
                let (namespace, name) = (called.namespace.unwrap_or_default(), called.name.unwrap_or_default());
                secrets.insert(SecretRef { namespace, name });
            }
            "MutatingWebhookConfiguration" => webhooks.push(document),
            "CSIDriver" => drivers.extend(name(&document)),
            "Pod" => {
                let mounts = document["metadata"]["labels"]["app.kubernetes.io/name"].as_str();
                if matches!(mounts, Some("juicefs-mount" | "juicefs-csi-driver")) {
                    driver_pods.push(document.clone());
                }
                pods.push((called(&document, kind), document));
            }
            _ => pods.extend(Workload::read(&document).map(|it| (called(&document, kind), it.pod()))),
        }
    }
    fn known<T>(found: T, is_empty: bool) -> Read<T> {
        if is_empty { Err("the files have none".into()) } else { Ok(found) }
    }
    let seen = ours(&webhooks, registration).into_iter().map(|webhook| {
        let addresses = Err("files do not say".into());
        (webhook.key(), Seen { authorities: authorities(webhook).1, addresses })
    });
    let seen = seen.collect();
    let of_secret = |it: SecretRef| {
        let found = known(secrets.contains(&it), secrets.is_empty());
        (it, found)
    };
    let secrets = needed(&objects).into_iter().map(of_secret).collect();
    let (has_webhooks, has_drivers, has_pods) = (!webhooks.is_empty(), !drivers.is_empty(), !pods.is_empty());
    let absent = Kind::ALL.into_iter().filter(|kind| objects.count(*kind) == 0);
    let found = Found {
        unread: absent.map(|kind| (kind, "the files have none".to_string())).collect(),
        objects,
        webhooks: known(webhooks, !has_webhooks),
        seen,
        drivers: known(drivers, !has_drivers),
        pods: known(pods, !has_pods),
        driver_pods: known(driver_pods, !has_pods),
    };
    Ok((found, secrets))
}

/// For people: the worst first, each with a line more where there is one, and a line that counts.
pub(super) fn text<'a>(findings: impl Iterator<Item = (&'a Finding, Option<String>)>) -> String {
    let findings: Vec<(&Finding, Option<String>)> = findings.collect();
    let mut text = String::new();
    let mut counts = Vec::new();
    let width = findings.iter().map(|(it, _)| it.code.as_str().len()).max().unwrap_or_default();
    for (level, one, many) in
        [(Level::Error, "error", "errors"), (Level::Warning, "warning", "warnings"), (Level::Info, "note", "notes")]
    {
        let of_level: Vec<_> = findings.iter().filter(|(it, _)| it.level == level).collect();
        counts.push(format!("{} {}", of_level.len(), if of_level.len() == 1 { one } else { many }));
        if !of_level.is_empty() {
            let _ = writeln!(text, "{}", many.to_uppercase());
        }
        for (Finding { code, object, message, action, .. }, more) in of_level {
            let object = format!("{} {}", object.kind, object.path());
            let _ = writeln!(text, "  {code:width$}  {}", object.trim_end());
            let _ = writeln!(text, "  {:width$}  {message}", "");
            let _ = writeln!(text, "  {:width$}  -> {action}", "");
            if let Some(more) = more {
                let _ = writeln!(text, "  {:width$}  => {more}", "");
            }
            text.push('\n');
        }
    }
    let _ = writeln!(text, "{}", counts.join(", "));
    text
}
