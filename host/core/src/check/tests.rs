use super::*;

use std::fmt::Write;

use serde_json::json;

use crate::catalogue::{CATALOGUE, Place};
use crate::object::{Object as Kept, PersistentVolume};
use crate::policy::{Cache, Exemption, Failure};
use crate::reason::DISABLE_LABEL;
use crate::testing::{NAMESPACE, World, claim, class, entries, pod, secret, volume, world};

/// The end of the certificate that is served, in seconds since 1970; it was made 90 days before.
const ENDS: u64 = 200 * DAY;

/// Everything that is looked at.
struct Cluster {
    world: World,
    unread: BTreeMap<Kind, String>,
    complete: bool,
    namespace: Option<&'static str>,
    registration: Option<&'static str>,
    webhooks: Read<Vec<Value>>,
    seen: Seen,
    drivers: Read<BTreeSet<String>>,
    secrets: BTreeMap<SecretRef, Read<bool>>,
    pods: Read<Vec<(Object, Value)>>,
    driver_pods: Read<Vec<Value>>,
    now: u64,
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn running(mut pod: Value) -> (Object, Value) {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_string();
    pod["metadata"]["uid"] = json!(format!("uid-of-{name}"));
    pod["status"] = json!({"phase": "Running"});
    (Object::within("Pod", NAMESPACE, &name), pod)
}

/// A pod that is there as nobody has changed it.
fn bare() -> Value {
    pod().mounting("data", "orders").0
}

/// A configuration with one webhook, which selects namespaces as the chart's does.
fn registered(configuration: &str, webhook: &str) -> Value {
    let expressions = json!([
        {"key": ENABLE_LABEL, "operator": "In", "values": ["true"]},
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
    ]);
    json!({"metadata": {"name": configuration}, "webhooks": [{
        "name": webhook, "rules": [{"resources": ["pods"]}], "failurePolicy": "Fail", "namespaceSelector": {"matchExpressions": expressions},
        "clientConfig": {"service": {"namespace": "pith-system", "name": "pith-webhook"}},
    }]})
}

/// A pod of the JuiceFS CSI driver on the node `a`.
fn of_driver(labels: Value, users: &[&str]) -> Value {
    let target = |uid: &&str| {
        let path = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/pv-1/mount");
        (format!("juicefs-{uid}"), json!(path))
    };
    let mut annotations: serde_json::Map<String, Value> = users.iter().map(target).collect();
    annotations.insert("juicefs-uniqueid".into(), json!("pv-1"));
    let metadata =
        json!({"namespace": "kube-system", "name": "juicefs-a-pv-1", "labels": labels, "annotations": annotations});
    json!({"metadata": metadata, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}})
}

fn mount_pod(users: &[&str]) -> Value {
    of_driver(json!({"app.kubernetes.io/name": "juicefs-mount"}), users)
}

fn node_service() -> Value {
    of_driver(json!({"app.kubernetes.io/name": "juicefs-csi-driver", "app": "juicefs-csi-node"}), &[])
}

fn bound_volume() -> PersistentVolume {
    PersistentVolume { secret: Some(secret("shop")), claim_uid: Some("uid-of-orders".into()), ..volume("pv-1") }
}

fn with_class(world: World, class: StorageClass) -> World {
    world.with(Kept::StorageClass(class))
}

/// A namespace that opted in, with one claim and one pod that was injected.
fn healthy() -> Cluster {
    let world = with_class(world(), StorageClass { secret: Some(secret("shop")), ..class("juicefs") })
        .with_bound(claim("orders"), bound_volume());
    let needed = needed_secrets(&world.configuration, &world.objects, None);
    let valid = Validity { starts: at(ENDS - 90 * DAY), ends: at(ENDS) };
    let served = Served { validity: valid, trusted: true, named: true };
    Cluster {
        pods: Ok(vec![running(world.inject(&bare()))]),
        world,
        unread: BTreeMap::new(),
        complete: true,
        namespace: None,
        registration: None,
        webhooks: Ok(vec![registered("pith-webhook", WEBHOOK)]),
        seen: Seen {
            authorities: Ok(vec![valid]),
            addresses: Ok(Some([("10.0.0.7:9443".to_string(), Ok(served))].into())),
        },
        drivers: Ok(["csi.juicefs.com".to_string()].into()),
        secrets: needed.into_iter().map(|it| (it, Ok(true))).collect(),
        driver_pods: Ok(vec![node_service(), mount_pod(&["uid-of-one-that-is-gone"])]),
        now: ENDS - 60 * DAY,
    }
}

impl Cluster {
    fn findings(&self) -> Vec<Finding> {
        let observed = Observed {
            configuration: &self.world.configuration,
            objects: &self.world.objects,
            unread: self.unread.clone(),
            complete: self.complete,
            namespace: self.namespace,
            registration: self.registration,
            webhooks: self.webhooks.clone(),
            seen: [(("pith-webhook".to_string(), WEBHOOK.to_string()), self.seen.clone())].into(),
            drivers: self.drivers.clone(),
            secrets: self.secrets.clone(),
            pods: self.pods.clone(),
            driver_pods: self.driver_pods.clone(),
        };
        check(&observed, at(self.now), &|_, pod| self.world.decide(pod))
    }

    fn webhook(&mut self) -> &mut Value {
        &mut self.webhooks.as_mut().expect("they were read")[0]["webhooks"][0]
    }

    fn served(&mut self) -> &mut Served {
        let addresses = self.seen.addresses.as_mut().ok().and_then(Option::as_mut).expect("addresses");
        addresses.values_mut().next().and_then(|it| it.as_mut().ok()).expect("one that is served")
    }

    fn change_world(&mut self, change: impl FnOnce(World) -> World) {
        self.world = change(std::mem::replace(&mut self.world, world()));
    }

    fn pods_are(&mut self, pods: &[Value]) {
        self.pods = Ok(pods.iter().cloned().map(running).collect());
    }
}

fn labels_of_shop(labels: &[(&str, &str)]) -> Kept {
    Kept::Namespace(Namespace { name: NAMESPACE.into(), labels: entries(labels), ..Namespace::default() })
}

type Case = (&'static str, fn(&mut Cluster), &'static [&'static str]);

/// What is changed of a healthy cluster, and what is found then.
const CASES: &[Case] = &[
    ("as it is", |_| {}, &[]),
    // The registration.
    (
        "nobody has registered the webhook",
        |it| it.webhooks = Ok(Vec::new()),
        &["error webhook-not-registered MutatingWebhookConfiguration "],
    ),
    (
        "what the configuration names is not there",
        |it| it.registration = Some("pith-other"),
        &["error webhook-not-registered MutatingWebhookConfiguration pith-other"],
    ),
    ("what the configuration names is there", |it| it.registration = Some("pith-webhook"), &[]),
    (
        "pods are made while nobody answers",
        |it| it.webhook()["failurePolicy"] = json!("Ignore"),
        &["info webhook-fails-open MutatingWebhookConfiguration pith-webhook"],
    ),
    (
        "the webhook is not asked about a namespace, whose pods are then no finding",
        |it| {
            it.webhook()["namespaceSelector"]["matchExpressions"][1]["values"] = json!(["kube-system", NAMESPACE]);
            it.pods_are(&[bare()]);
        },
        &["error namespace-not-selected Namespace shop"],
    ),
    (
        "the webhook is not asked about a namespace, where the JuiceFS CSI driver still is",
        |it| {
            it.webhook()["namespaceSelector"]["matchExpressions"][1]["values"] = json!(["kube-system", NAMESPACE]);
            let mut other = registered("juicefs-admission-webhook", "sidecar.inject.juicefs.com");
            other["webhooks"][0]["namespaceSelector"] =
                json!({"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}});
            it.webhooks.as_mut().expect("read").push(other);
        },
        &[],
    ),
    (
        "a webhook for something else selects every namespace, and fails open",
        |it| {
            let secrets =
                json!({"name": "secrets.pith.dev", "rules": [{"resources": ["secrets"]}], "failurePolicy": "Ignore"});
            it.webhooks.as_mut().expect("read")[0]["webhooks"].as_array_mut().expect("webhooks").push(secrets);
            it.registration = Some("pith-webhook");
            it.webhook()["namespaceSelector"]["matchExpressions"][1]["values"] = json!(["kube-system", NAMESPACE]);
        },
        &["error namespace-not-selected Namespace shop"],
    ),
    (
        "the JuiceFS CSI driver injects there too",
        |it| {
            let other = registered("juicefs-admission-webhook", "sidecar.inject.juicefs.com");
            it.webhooks.as_mut().expect("read").push(other);
        },
        &["error two-injectors MutatingWebhookConfiguration juicefs-admission-webhook"],
    ),
    (
        "the JuiceFS CSI driver injects elsewhere",
        |it| {
            let mut other = registered("juicefs-admission-webhook", "sidecar.inject.juicefs.com");
            other["webhooks"][0]["namespaceSelector"] = json!({"matchLabels": {"storage": "juicefs-driver"}});
            it.webhooks.as_mut().expect("read").push(other);
        },
        &[],
    ),
    (
        "the registrations may not be read",
        |it| it.webhooks = Err("it is forbidden".into()),
        &["info not-looked-at MutatingWebhookConfiguration "],
    ),
    // What is behind it.
    (
        "there is no Service",
        |it| it.seen.addresses = Ok(None),
        &["error webhook-unreachable MutatingWebhookConfiguration pith-webhook"],
    ),
    (
        "no replica is ready",
        |it| it.seen.addresses = Ok(Some(BTreeMap::new())),
        &["error webhook-unreachable MutatingWebhookConfiguration pith-webhook"],
    ),
    (
        "a replica cannot be reached from here",
        |it| it.seen.addresses = Ok(Some([("10.0.0.7:9443".to_string(), Err("no route to host".into()))].into())),
        &["info not-looked-at MutatingWebhookConfiguration pith-webhook"],
    ),
    // Certificates.
    (
        "the bundle has another CA",
        |it| it.served().trusted = false,
        &["error webhook-ca-mismatch MutatingWebhookConfiguration pith-webhook"],
    ),
    (
        "there is no bundle",
        |it| {
            it.served().trusted = false;
            it.seen.authorities = Err("there is none".into());
        },
        &["error webhook-ca-mismatch MutatingWebhookConfiguration pith-webhook"],
    ),
    (
        "the certificate has another name",
        |it| it.served().named = false,
        &["error webhook-ca-mismatch MutatingWebhookConfiguration pith-webhook"],
    ),
    ("a third of the time is left, in which it is renewed", |it| it.now = ENDS - 30 * DAY, &[]),
    (
        "less than a quarter is left",
        |it| it.now = ENDS - 20 * DAY,
        &["warning certificate-expiring MutatingWebhookConfiguration pith-webhook"],
    ),
    (
        "it has ended",
        |it| it.now = ENDS + 5 * HOUR,
        &["error certificate-expired MutatingWebhookConfiguration pith-webhook"],
    ),
    (
        "only the CAs are known, and the last has ended",
        |it| {
            it.seen.addresses = Err("services is forbidden".into());
            it.now = ENDS + DAY;
        },
        &[
            "error certificate-expired MutatingWebhookConfiguration pith-webhook",
            "info not-looked-at MutatingWebhookConfiguration pith-webhook",
        ],
    ),
    (
        "a certificate for years is not spoken of for a year",
        |it| {
            it.served().validity.starts = at(0);
            it.served().validity.ends = at(ENDS + 2_000 * DAY);
        },
        &[],
    ),
    // The driver and its classes.
    (
        "there is no CSIDriver",
        |it| it.drivers = Ok(BTreeSet::new()),
        &["error csidriver-missing CSIDriver csi.juicefs.com"],
    ),
    ("CSIDrivers may not be read", |it| it.drivers = Err("it is forbidden".into()), &["info not-looked-at CSIDriver "]),
    (
        "a class names no Secret",
        |it| it.change_world(|world| with_class(world, class("bare"))),
        &["error class-without-secret StorageClass bare"],
    ),
    (
        "a class has a key that has no effect",
        |it| {
            it.change_world(|world| {
                let parameters = entries(&[("juicefs/mount-cpus", "3")]).into();
                with_class(world, StorageClass { parameters, secret: Some(secret("shop")), ..class("typo") })
            });
        },
        &["warning class-unknown-key StorageClass typo"],
    ),
    (
        "a class has templates, which are filled in for each claim",
        |it| {
            it.change_world(|mut world| {
                world.configuration.strict_templates = true;
                let mount_options = vec!["cache-dir=/c/${.pvc.labels.team}".to_string()];
                with_class(world, StorageClass { mount_options, secret: Some(secret("shop")), ..class("templates") })
            });
        },
        &[],
    ),
    (
        "a class has a value that cannot be used",
        |it| {
            it.change_world(|world| {
                let parameters = entries(&[("juicefs/mount-cpu-limit", "three")]).into();
                with_class(world, StorageClass { parameters, secret: Some(secret("shop")), ..class("typo") })
            });
        },
        &["error class-invalid-setting StorageClass typo"],
    ),
    (
        "a class of another driver is no business of ours",
        |it| {
            it.change_world(|world| {
                with_class(world, StorageClass { provisioner: "ebs.csi.aws.com".into(), ..class("other") })
            });
        },
        &[],
    ),
    // Claims and their Secrets.
    (
        "a claim has no Secret",
        |it| *it.secrets.get_mut(&beside(&claim("orders"))).expect("needed") = Ok(false),
        &["error claim-without-secret PersistentVolumeClaim shop/orders"],
    ),
    (
        "a claim can have no Secret",
        |it| {
            it.change_world(|world| {
                let volume_attributes = entries(&[("subPath", "../other")]).into();
                world.with(Kept::PersistentVolume(PersistentVolume { volume_attributes, ..bound_volume() }))
            });
        },
        &["error claim-secret-impossible PersistentVolumeClaim shop/orders"],
    ),
    (
        "a file system has no Secret",
        |it| *it.secrets.get_mut(&secret("shop")).expect("needed") = Ok(false),
        &["error file-system-secret-missing Secret kube-system/shop"],
    ),
    (
        "Secrets may not be read",
        |it| it.secrets.values_mut().for_each(|it| *it = Err("it is forbidden".into())),
        &["info not-looked-at Secret kube-system", "info not-looked-at Secret shop"],
    ),
    // Pods.
    (
        "a pod was made before its namespace opted in",
        |it| it.pods_are(&[bare()]),
        &["warning pod-missed Pod shop/web-0"],
    ),
    (
        "pods that are not ours, have opted out, or have ended",
        |it| {
            let mut ended = running(bare());
            ended.1["status"]["phase"] = json!("Succeeded");
            it.pods_are(&[pod().0, pod().mounting("data", "orders").labelled(DISABLE_LABEL, "true").0]);
            it.pods.as_mut().expect("read").push(ended);
        },
        &[],
    ),
    (
        "a pod that nobody has made yet",
        |it| it.pods = Ok(vec![(Object::within("Deployment", NAMESPACE, "web"), bare())]),
        &[],
    ),
    (
        "a pod that nobody has made yet, and that will be refused",
        |it| {
            let pod = pod().mounting("data", "orders").specifying("hostUsers", json!(false)).0;
            it.pods = Ok(vec![(Object::within("Deployment", NAMESPACE, "web"), pod)]);
        },
        &["warning pod-refused Deployment shop/web"],
    ),
    (
        "the configuration has another image now",
        |it| it.world.configuration.image = "juicefs:2".into(),
        &["warning injection-stale Pod shop/web-0"],
    ),
    (
        "the configuration has another cache now",
        |it| it.world.configuration.cache = Cache::EmptyDir { in_memory: true, size_limit: None },
        &["warning injection-stale Pod shop/web-0"],
    ),
    (
        "a policy exempts what it did not",
        |it| it.change_world(|world| world.exempting("no-web", Ok(Exemption::Skip("it is a cache".into())))),
        &["warning injection-stale Pod shop/web-0"],
    ),
    (
        "a policy refuses what it did not",
        |it| it.change_world(|world| world.exempting("no-web", Ok(Exemption::Deny("not here".into())))),
        &["warning injection-stale Pod shop/web-0"],
    ),
    (
        "a policy fails",
        |it| it.change_world(|world| world.exempting("broken", Err(Failure::Trap("unreachable".into())))),
        &["error policy-failed Pod shop/web-0"],
    ),
    (
        "the namespace opted out with pods in it",
        |it| it.change_world(|world| world.with(labels_of_shop(&[]))),
        &["warning injection-stale Pod shop/web-0"],
    ),
    (
        "files without the claim of a pod",
        |it| {
            it.complete = false;
            it.pods_are(&[pod().mounting("data", "elsewhere").0]);
        },
        &["info not-looked-at Pod shop/web-0"],
    ),
    (
        "a pod whose claim is not there",
        |it| it.pods_are(&[pod().mounting("data", "elsewhere").0]),
        &["warning pod-refused Pod shop/web-0"],
    ),
    ("pods may not be read", |it| it.pods = Err("it is forbidden".into()), &["info not-looked-at Pod "]),
    (
        "without the claims nothing is said of pods",
        |it| drop(it.unread.insert(Kind::Claim, "it is forbidden".into())),
        &["info not-looked-at PersistentVolumeClaim ", "info not-looked-at Pod "],
    ),
    (
        "what is in other namespaces is not looked at where one is named",
        |it| {
            it.namespace = Some("reporting");
            it.pods_are(&[bare()]);
            *it.secrets.get_mut(&beside(&claim("orders"))).expect("needed") = Ok(false);
        },
        &[],
    ),
    // Mount pods.
    (
        "a mount pod whose user's namespace opted in",
        |it| it.driver_pods = Ok(vec![node_service(), mount_pod(&["uid-of-web-0"])]),
        &["warning mount-pod-stranded Pod kube-system/juicefs-a-pv-1"],
    ),
    (
        "a mount pod whose user's namespace did not",
        |it| {
            it.change_world(|world| world.with(labels_of_shop(&[])));
            it.pods_are(&[bare()]);
            it.driver_pods = Ok(vec![node_service(), mount_pod(&["uid-of-web-0"])]);
        },
        &["info mount-pod-stranded Pod kube-system/juicefs-a-pv-1"],
    ),
    (
        "a mount pod that the driver has left",
        |it| it.driver_pods = Ok(vec![mount_pod(&["uid-of-web-0"])]),
        &["error mount-pod-stranded Pod kube-system/juicefs-a-pv-1"],
    ),
    (
        "a mount pod that ended after the driver had left",
        |it| {
            let mut ended = mount_pod(&["uid-of-web-0"]);
            ended["status"]["phase"] = json!("Failed");
            it.driver_pods = Ok(vec![ended]);
        },
        &["error mount-pod-stranded Pod kube-system/juicefs-a-pv-1"],
    ),
    (
        "a mount pod that ended, which the driver makes anew",
        |it| {
            let mut ended = mount_pod(&["uid-of-web-0"]);
            ended["status"]["phase"] = json!("Failed");
            it.driver_pods = Ok(vec![node_service(), ended]);
        },
        &[],
    ),
    (
        "mount pods may not be read",
        |it| it.driver_pods = Err("it is forbidden".into()),
        &["info not-looked-at Pod juicefs-*"],
    ),
];

#[test]
fn each_thing_that_is_wrong_is_found_and_a_healthy_cluster_has_none() {
    let mut said = Vec::new();
    for (name, change, expected) in CASES {
        let mut cluster = healthy();
        change(&mut cluster);
        let findings = cluster.findings();
        let level = |level: Level| format!("{level:?}").to_lowercase();
        let found: Vec<String> = findings
            .iter()
            .map(|it| format!("{} {} {} {}", level(it.level), it.code, it.object.kind, it.object.path()))
            .collect();
        assert_eq!(found, *expected, "{name}: {findings:#?}");
        said.extend(findings.iter().map(|it| (it.code, Place::Finding(it.level))));
    }
    for entry in CATALOGUE {
        let findings = entry.places.iter().filter(|it| matches!(it, Place::Finding(_)));
        let unsaid: Vec<_> = findings.filter(|it| !said.contains(&(entry.code, **it))).collect();
        assert!(unsaid.is_empty(), "nothing is found as {unsaid:?} `{}`", entry.word);
    }
    for (code, place) in said {
        assert!(code.entry().places.contains(&place), "the catalogue does not have `{code}` as {place:?}");
    }
}

#[test]
fn each_finding_says_what_is_wrong_and_what_to_do() {
    let mut text = String::new();
    for (name, change, _) in CASES {
        let mut cluster = healthy();
        change(&mut cluster);
        for Finding { code, message, action, .. } in cluster.findings() {
            writeln!(text, "{name}\n  {code}: {message}\n  -> {action}\n").expect("text");
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn needed_secrets_are_those_of_claims_and_file_systems_and_none_that_csi_provisioner_fills_in() {
    let names = |world: &World| -> Vec<String> {
        let needed = needed_secrets(&world.configuration, &world.objects, None);
        needed.into_iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect()
    };
    let world = healthy().world;
    assert_eq!(names(&world), ["kube-system/shop", "shop/pith-uid-of-orders"]);
    let template = SecretRef { namespace: "${pvc.namespace}".into(), name: "juicefs".into() };
    let world = with_class(world, StorageClass { secret: Some(template), ..class("own") });
    assert_eq!(names(&world), ["kube-system/shop", "shop/pith-uid-of-orders"]);
}
