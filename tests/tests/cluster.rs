//! What Pith does on a real Kubernetes: a real API server asks the webhook, the real csi-provisioner and csi-resizer call the
//! controller, and a real kubelet runs what was injected.
//!
//! Namespaces and file names are those of the demo; every test has objects that no other one touches.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};

use json_patch::Patch;
use pith_tests::cluster::{ADDRESS, CLUSTER, Cluster, Namespace, static_volume};
use pith_tests::juicefs::{CLIENT, Scratch, VERSION};
use pith_tests::provisioner::Site;
use pith_tests::redis::Redis;
use pith_tests::server::{self, Server};
use pith_tests::wasm_builds;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::processes;
use crate::volumes::{directories, tree};

/// The image of the guard on a cluster's node, where there is none of the whole Pith.
pub(crate) const GUARD: &str = "docker.io/pith/guard:0.1.0";

static DRIVER: Mutex<()> = Mutex::new(());

/// Held by the test whose driver listens at the cluster's socket. What calls it there asks for the driver's name when it comes, and
/// may not notice that it has another one before it: it is ended, and the cluster starts it again.
pub(crate) fn driver_of(cluster: &Cluster) -> MutexGuard<'static, ()> {
    let alone = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = cluster.csi_socket().display().to_string();
    let callers = processes().into_iter().filter(|(.., line)| line.contains(&format!("--csi-address={socket}")));
    for process in callers.filter_map(|(process, ..)| Pid::from_raw(process)) {
        // It may have ended by itself.
        let _ = kill_process(process, Signal::KILL);
    }
    alone
}

/// The documents of a file of the demo, as the API server takes them.
fn demo(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(server::root().join("deploy/demo").join(file)).expect("a file of the demo");
    to_be_made(&text)
}

/// Objects that were written for use without a cluster, as the API server takes them: it chooses uids and sets statuses itself.
pub(crate) fn to_be_made(text: &str) -> Vec<Value> {
    let documents = yaml_serde::Deserializer::from_str(text);
    let mut objects: Vec<Value> = documents
        .map(|it| serde::Deserialize::deserialize(it).expect("YAML"))
        .filter(|it: &Value| !it.is_null())
        .collect();
    for object in &mut objects {
        let object = object.as_object_mut().expect("an object");
        object.remove("status");
        object["metadata"].as_object_mut().expect("metadata").remove("uid");
        if let Some(claim) = object.get_mut("spec").and_then(|spec| spec.get_mut("claimRef")?.as_object_mut()) {
            claim.remove("uid");
        }
    }
    objects
}

pub(crate) fn yaml(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// The demo's policies, as a configuration of their own.
fn demo_policies() -> String {
    let text = fs::read_to_string(server::root().join("deploy/demo/pith.yaml")).expect("a file of the demo");
    let mut config: Value = yaml_serde::from_str(&text).expect("YAML");
    for binding in config["policies"].as_array_mut().expect("bindings") {
        let file = binding["module"]["file"].as_str().expect("a file").rsplit('/').next().expect("a name");
        let name = file.strip_suffix(".wasm").expect("a module").to_string();
        binding["module"]["file"] = json!(wasm_builds::policy(&name));
    }
    ["sidecar", "fileSystems", "policies"].map(|key| format!("{key}: {}\n", config[key])).concat()
}

/// What the API server and its controllers choose at random for each pod, made the same.
pub(crate) fn without_chance(object: &Value) -> Value {
    let mut text = object.to_string();
    // The volume of a token, and the Secret of a claim that is not there yet.
    for (mark, length) in [("kube-api-access-", 5), ("pith-pod-", 32)] {
        let mut from = 0;
        while let Some(found) = text[from..].find(mark) {
            let start = from + found + mark.len();
            text.replace_range(start..start + length, "?????");
            from = start;
        }
    }
    let mut object: Value = serde_json::from_str(&text).expect("still JSON");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in ["uid", "creationTimestamp", "managedFields", "name", "resourceVersion"] {
            metadata.remove(key);
        }
    }
    object
}

pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What the API server wrote down of the creation by this field manager.
fn audited(cluster: &Cluster, manager: &str) -> Value {
    let log = cluster.folder().join("log/audit.log");
    let find = || {
        let text = fs::read_to_string(&log)?;
        let line = text.lines().rev().find(|line| line.contains(&format!("fieldManager={manager}")));
        Ok(line.map(serde_json::from_str).transpose()?)
    };
    cluster.until("default", "the audit log of the creation", find).expect("it is written")
}

#[test]
fn the_api_server_applies_the_patch_of_pith_inject_and_shows_what_a_policy_said() {
    let cluster = &*CLUSTER;
    let mut namespaces = demo("objects/namespaces.yaml");
    let apply = |objects: &[Value]| cluster.apply(&yaml(objects)).expect("objects of the demo");
    apply(&namespaces);
    apply(&demo("objects/storage-classes.yaml"));
    // One that a claim of an earlier run had would stay its own.
    let remove = ["delete", "pv", "price-lists", "--ignore-not-found"];
    cluster.kubectl(&remove).expect("it is deleted");
    apply(&demo("objects/persistent-volumes.yaml"));
    let mut claims = demo("objects/claims.yaml");
    // For a warning: a key of the JuiceFS driver that has no meaning here.
    claims[0]["metadata"]["annotations"]["juicefs/mount-image"] = json!("registry.shop.example/own:1");
    apply(&claims);
    let critical = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "shop-critical"}, "value": 1_000_000});
    apply(&[critical]);
    for name in ["storefront", "reporting"] {
        cluster.wait(name, "create", "serviceaccount/default").expect("the controllers run");
    }
    cluster
        .wait("storefront", "jsonpath={.status.phase}=Bound", "pvc/price-lists")
        .expect("a volume made by hand is bound");

    let server = Server::start_on(cluster, &demo_policies(), &cluster.objects().expect("objects")).expect("it serves");
    let pods = ["web", "node-agent", "batch-report"].map(|name| {
        let path = server::root().join(format!("deploy/demo/pods/{name}.yaml"));
        path.display().to_string()
    });
    let create = |pod: &str, more: &[&str]| {
        let arguments = [&["create", "-f", pod, "--output=json"], more].concat();
        cluster.try_kubectl(&arguments, "").expect("kubectl runs")
    };
    // As the API server hands it to webhooks: with defaults, and the token that every container gets.
    let bare = create(&pods[0], &["--dry-run=server"]);
    let bare = without_chance(&serde_json::from_slice(&bare.stdout).unwrap_or_else(|_| panic!("{}", said(&bare))));

    for namespace in &mut namespaces {
        namespace["metadata"]["labels"]["pith.test/webhook"] = json!("demo");
    }
    apply(&namespaces);
    cluster.register("demo", &server).expect("a webhook can be registered");
    // The API server hears of it in a moment.
    let injected = |object: &Value| object["metadata"]["labels"]["done.sidecar.juicefs.com/inject"] == "true";
    let first = cluster.until("storefront", "the first injection", || {
        let object: Value = serde_json::from_slice(&create(&pods[0], &["--dry-run=server"]).stdout).unwrap_or_default();
        Ok(injected(&object).then_some(object))
    });
    let first = without_chance(&first.expect("the webhook is asked"));

    // A dry run is the same run, and so is the creation.
    let second = create(&pods[0], &["--dry-run=server"]);
    assert_eq!(without_chance(&serde_json::from_slice(&second.stdout).expect("a pod")), first);
    let manager = format!("test-{}", std::process::id());
    let created = create(&pods[0], &[&format!("--field-manager={manager}")]);
    assert_eq!(without_chance(&serde_json::from_slice(&created.stdout).expect("a pod")), first, "{}", said(&created));
    let warning = "Warning: claim product-images has the annotation juicefs/mount-image, which claims may not set here: it has no effect";
    assert!(said(&created).contains(warning), "{}", String::from_utf8_lossy(&created.stderr));

    // The patch that was applied is the one of `pith inject`.
    let audit = audited(cluster, &manager);
    // The number of a webhook among all of them depends on which other tests have one.
    let annotation = |begin: &str| {
        let all = audit["annotations"].as_object().expect("annotations");
        let found = all.iter().find(|(key, _)| key.starts_with(begin));
        found.and_then(|(_, it)| it.as_str()).unwrap_or_else(|| panic!("no {begin} in {all:#?}"))
    };
    let patch = annotation("patch.webhook.admission.k8s.io/round_0_");
    let patch = without_chance(&serde_json::from_str::<Value>(patch).expect("JSON"));
    let patch: Patch = serde_json::from_value(patch["patch"].clone()).expect("a JSON patch");
    let mut patched = bare.clone();
    json_patch::patch(&mut patched, &patch).expect("it fits the pod that the webhook saw");
    let file = server.folder.path().join("pod.json");
    fs::write(&file, bare.to_string()).expect("a file");
    let inject = std::process::Command::new(&*server::PITH)
        .args(["inject", "-o", "json", "--config"])
        .arg(server.folder.path().join("pith.yaml"))
        .arg("-f")
        .arg(&file)
        .output()
        .expect("pith runs");
    let offline: Value = serde_json::from_slice(&inject.stdout).unwrap_or_else(|_| panic!("{}", said(&inject)));
    assert_eq!(offline["items"][0], patched);
    // The containers were given the token that the API server gives to every one, so it had no reason to ask again.
    let annotations = audit["annotations"].as_object().expect("annotations");
    assert!(!annotations.keys().any(|key| key.contains("webhook.admission.k8s.io/round_1_")), "{annotations:#?}");

    // Exempt: created as it is, with the reason where an administrator looks.
    let exempt = create(&pods[1], &[&format!("--field-manager={manager}-exempt")]);
    let object: Value = serde_json::from_slice(&exempt.stdout).unwrap_or_else(|_| panic!("{}", said(&exempt)));
    assert!(!injected(&object), "{object:#}");
    assert_eq!(object["metadata"]["labels"]["pith.io/skipped"], "true", "{object:#}");
    let audit = audited(cluster, &format!("{manager}-exempt"));
    assert_eq!(audit["annotations"]["inject.pith.dev/reason"], "exempt-by-policy", "{:#}", audit["annotations"]);

    // Refused: in the words of the policy, with the code of a denial.
    let refused = cluster.try_kubectl(&["create", "-f", &pods[2]], "").expect("kubectl runs");
    assert_eq!(refused.status.code(), Some(1));
    insta::assert_snapshot!("a_denial_as_kubectl_shows_it", said(&refused).replace(&pods[2], "batch-report.yaml"));

    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "pith-demo"]).expect("it is deleted");
    cluster.kubectl(&["delete", "namespace", "storefront", "reporting", "--wait=false"]).expect("they are deleted");
}

#[test]
fn a_claim_becomes_a_directory_that_a_policy_named_is_expanded_and_is_deleted() {
    let cluster = &*CLUSTER;
    let _alone = driver_of(cluster);
    let scratch = Scratch::new();
    let namespace = cluster.namespace("claims", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let class = |class: &str, secret: &str| {
        let mut parameters = json!({});
        for what in ["provisioner", "controller-expand", "node-publish"] {
            parameters[format!("csi.storage.k8s.io/{what}-secret-name")] = json!(secret);
            parameters[format!("csi.storage.k8s.io/{what}-secret-namespace")] = json!(name);
        }
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": format!("{name}-{class}")},
            "provisioner": "csi.juicefs.com", "parameters": parameters, "allowVolumeExpansion": true, "reclaimPolicy": "Delete",
        })
    };
    let secret = |secret: &str, values: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": name, "name": secret}, "stringData": values});
    let claim = |claim: &str, class: &str, project: Option<&str>| {
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"namespace": name, "name": claim, "labels": project.map(|project| json!({"project": project}))},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": format!("{name}-{class}"),
                "resources": {"requests": {"storage": "1Gi"}},
            },
        })
    };
    let objects = [
        secret("file-system", json!(scratch.secrets())),
        secret("half-a-secret", json!({"metaurl": scratch.meta_url()})),
        class("good", "file-system"),
        class("bad", "half-a-secret"),
        claim("photos", "good", Some("summer")),
        claim("nameless", "good", None),
        claim("broken", "bad", Some("summer")),
    ];
    cluster.apply(&yaml(&objects)).expect("objects");

    let config = json!({
        "csi": {"socket": cluster.csi_socket(), "cluster": "test"},
        "policies": [{
            "name": "by-project",
            "module": {"file": wasm_builds::policy("naming")},
            "settings": {"template": ["{labels.project}", "{claim}"], "missing": "deny"},
        }],
    });
    let config = format!("csi: {}\npolicies: {}\n", config["csi"], config["policies"]);
    let site = Site::new(&config, &cluster.objects().expect("objects"), &scratch.secrets()).expect("a site");
    cluster.show_log(&site.path().join("log"));
    let _serving = site.serve(&[]).expect("it serves");

    cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/photos").expect("csi-provisioner calls Pith");
    let bound = cluster.get(&["pvc", "photos", "--namespace", name]).expect("the claim");
    let volume = bound["spec"]["volumeName"].as_str().expect("a volume").to_string();
    let record = site.volumes().expect("the records can be read").remove(&volume).expect("there is a record");
    let directory = record["directory"].as_str().expect("a directory").trim_start_matches('/').to_string();
    assert!(directory.starts_with("summer/photos-"), "{directory}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let of_project = || directories(&runtime.block_on(tree(&scratch.secrets())), &["summer"]);
    assert!(of_project().contains(directory.trim_start_matches("summer/")));
    let made = cluster.get(&["pv", &volume]).expect("the volume");
    assert_eq!(made["spec"]["csi"]["volumeHandle"], *volume);
    assert_eq!(made["spec"]["csi"]["volumeAttributes"]["subPath"], *directory);

    // What a policy refuses is said on the claim, and so is what Pith finds wrong.
    for (claim, sentence) in [
        (
            "nameless",
            "policy `by-project` refuses the volume: the directory's name needs the label \"project\" of the claim",
        ),
        ("broken", "the Secret of the file system has no `name`"),
    ] {
        let told = || Ok(cluster.events(name, claim)?.iter().any(|event| event.contains(sentence)).then_some(()));
        cluster.until(name, sentence, told).expect("csi-provisioner reports it");
    }

    let larger = r#"{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}"#;
    cluster.kubectl(&["patch", "pvc", "photos", "--namespace", name, "--patch", larger]).expect("it is patched");
    cluster.wait(name, "jsonpath={.status.capacity.storage}=2Gi", "pvc/photos").expect("csi-resizer calls Pith");
    let records = site.volumes().expect("the records can be read");
    assert_eq!(records[&volume]["capacityBytes"], 2_u64 << 30, "{records:#?}");

    cluster.kubectl(&["delete", "pvc", "--all", "--namespace", name]).expect("they are deleted");
    cluster.wait(name, "delete", &format!("pv/{volume}")).expect("csi-provisioner calls Pith");
    assert!(site.volumes().expect("the records can be read").is_empty());
    assert!(of_project().is_empty());
    let classes = ["good", "bad"].map(|class| format!("{name}-{class}"));
    cluster.kubectl(&["delete", "storageclass", &classes[0], &classes[1]]).expect("they are deleted");
}

/// `sidecar` of a configuration, for pods that run on the node.
pub(crate) fn of_sidecar() -> Value {
    json!({
        "image": format!("docker.io/pith/juicefs:{}", *VERSION), "guardImage": GUARD,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    })
}

/// A file system that pods reach: metadata and data on a Redis at the node's address.
pub(crate) fn file_system_for_pods(cluster: &Cluster) -> Redis {
    let redis = Redis::start_on(cluster, ADDRESS).expect("a Redis");
    let secrets = redis.secrets();
    let mut format = cluster.command(&CLIENT);
    format.args(["format", "--no-update", "--storage", "redis", "--bucket", &secrets["bucket"]]);
    let output = format.args([&secrets["metaurl"], "pods"]).output().expect("the client runs");
    assert!(output.status.success(), "{}", said(&output));
    redis
}

/// A pod of one container, whose claim is mounted or not.
pub(crate) fn pod(namespace: &str, command: &str, mounts: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "app"},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "app", "image": "docker.io/pith/app:0.1.0", "imagePullPolicy": "Never",
                "command": ["sh", "-c", command], "volumeMounts": mounts,
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    })
}

#[test]
fn a_pod_whose_claim_no_container_mounts_runs_on_the_node() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace("unmounted", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    cluster.apply(&yaml(&[&static_volume(name, "data")[..], &[driver()]].concat())).expect("a volume");
    cluster.apply(&pod(name, "exec sleep 3600", &json!([])).to_string()).expect("a pod");
    cluster.wait(name, "condition=Ready", "pod/app").expect("the kubelet starts it");
    // The claim is in use all the same: it can't go away below a pod.
    let claim = cluster.get(&["pvc", "data", "--namespace", name]).expect("the claim");
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    cluster.kubectl(&["delete", "pvc", "data", "--namespace", name, "--wait=false"]).expect("it is asked for");
    let claim = cluster.get(&["pvc", "data", "--namespace", name]).expect("it is still there");
    assert!(claim["metadata"]["deletionTimestamp"].is_string());
    cluster.kubectl(&["delete", "pod", "app", "--namespace", name]).expect("it ends");
    cluster.wait(name, "delete", "pvc/data").expect("nothing holds it any more");
    cluster.kubectl(&["delete", "pv", &format!("{name}-data")]).expect("it is deleted");
}

/// A namespace whose pods are injected by a webhook of the test's own, with a claim `data` of a file system that they reach.
pub(crate) struct Injecting {
    cluster: &'static Cluster,
    pub(crate) namespace: Namespace,
    pub(crate) redis: Redis,
    _webhook: Server,
}

impl Injecting {
    /// `sidecar` and `config` are what is configured beside the images.
    pub(crate) fn start(about: &str, sidecar: &Value, config: &str) -> Injecting {
        let cluster = &*CLUSTER;
        let redis = file_system_for_pods(cluster);
        let namespace =
            cluster.namespace(about, &json!({"juicefs.com/enable-injection": "true"})).expect("a namespace");
        let name = &*namespace.name;
        cluster.apply(&yaml(&[&static_volume(name, "data")[..], &[driver()]].concat())).expect("a volume");
        cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/data").expect("it is bound");
        let claim = cluster.get(&["pvc", "data", "--namespace", name]).expect("the claim");
        // What Pith keeps itself once it runs in the cluster.
        let uid = claim["metadata"]["uid"].as_str().expect("a uid");
        let values = json!({"METAURL": redis.secrets()["metaurl"], "META_PASSWORD": "", "SUBDIR": "/"});
        let secret = json!({"namespace": name, "name": format!("pith-{uid}")});
        cluster
            .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": values}).to_string())
            .expect("a Secret");

        let mut of_sidecar = of_sidecar();
        json_patch::merge(&mut of_sidecar, sidecar);
        let config = format!("sidecar: {of_sidecar}\n{config}");
        let webhook = Server::start_on(cluster, &config, &cluster.objects().expect("objects")).expect("it serves");
        cluster.register(name, &webhook).expect("a webhook can be registered");
        cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("it is labelled");
        Injecting { cluster, namespace, redis, _webhook: webhook }
    }

    fn create(&self, pod: &Value, more: &[&str]) -> anyhow::Result<Value> {
        let arguments = [&["create", "-f", "-", "--output=json"], more].concat();
        Ok(serde_json::from_str(&self.cluster.kubectl_with(&arguments, &pod.to_string())?)?)
    }

    /// Creates a pod, once the API server has heard of the webhook, and waits until it is ready.
    pub(crate) fn run(&self, pod: &Value) -> Value {
        let name = &*self.namespace.name;
        self.cluster.until_injected(name, pod, "pith-guard").expect("it is asked");
        let created = self.create(pod, &[]).expect("a pod");
        assert_eq!(created["spec"]["initContainers"][0]["name"], "pith-guard");
        self.cluster.wait(name, "condition=Ready", "pod/app").expect("its mount is there, so it runs");
        created
    }

    /// What a command in a container of the pod says.
    pub(crate) fn exec(&self, container: &str, command: &[&str]) -> String {
        let name = &*self.namespace.name;
        let arguments = [&["exec", "app", "--namespace", name, "--container", container, "--"], command].concat();
        self.cluster.kubectl(&arguments).expect("the command runs")
    }

    /// Ends the pod, and removes what is in no namespace.
    pub(crate) fn end(self) {
        let name = &*self.namespace.name;
        let delete = |what: &[&str]| self.cluster.kubectl(&[&["delete"], what].concat()).expect("it is deleted");
        delete(&["pod", "app", "--namespace", name]);
        delete(&["mutatingwebhookconfiguration", &format!("pith-{name}")]);
        delete(&["pv", &format!("{name}-data"), "--wait=false"]);
    }
}

#[test]
fn an_injected_pod_starts_after_its_mount_is_there_and_writes() {
    let cluster = &*CLUSTER;
    let injecting = Injecting::start("injected", &json!({}), "");
    let name = &*injecting.namespace.name;
    // A bare directory would do for the writing: the client's own file says that it is not one.
    let command = "test -f /data/.config && echo written by the application > /data/file && exec sleep 3600";
    let pod = pod(name, command, &json!([{"name": "data", "mountPath": "/data"}]));
    injecting.run(&pod);
    assert_eq!(injecting.exec("jfs-mount", &["cat", "/jfs/data/file"]), "written by the application\n");
    let status = cluster.get(&["pod", "app", "--namespace", name]).expect("the pod");
    let started =
        |containers: &str| status["status"][containers][0]["state"]["running"]["startedAt"].as_str().map(String::from);
    assert!(started("initContainerStatuses") <= started("containerStatuses"), "{:#}", status["status"]);
    assert_eq!(status["status"]["containerStatuses"][0]["restartCount"], 0);
    // It lies in the file system, and not in a directory of the node.
    let mut dump = cluster.command(&CLIENT);
    let dump = dump.args(["dump", &injecting.redis.secrets()["metaurl"]]).output().expect("the client runs");
    let dump: Value = serde_json::from_slice(&dump.stdout).unwrap_or_else(|_| panic!("{}", said(&dump)));
    assert!(dump["FSTree"]["entries"]["file"].is_object(), "{:#}", dump["FSTree"]);

    injecting.end();
}

#[test]
fn a_pod_whose_sidecar_pod_security_refuses_comes_with_a_word_about_the_label() {
    let cluster = &*CLUSTER;
    let labels = json!({"juicefs.com/enable-injection": "true", "pod-security.kubernetes.io/enforce": "baseline"});
    let namespace = cluster.namespace("baseline", &labels).expect("a namespace");
    let name = &*namespace.name;
    cluster.apply(&yaml(&static_volume(name, "data"))).expect("a volume");
    cluster.wait(name, "jsonpath={.status.phase}=Bound", "pvc/data").expect("it is bound");
    let server = Server::start_on(cluster, "", &cluster.objects().expect("objects")).expect("it serves");
    cluster.register(name, &server).expect("a webhook can be registered");
    cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("it is labelled");
    let pod = pod(name, "exec sleep 3600", &json!([{"name": "data", "mountPath": "/data"}])).to_string();
    let refused = cluster.until(name, "a refusal", || {
        let output = cluster.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &pod)?;
        Ok((!output.status.success()).then(|| said(&output)))
    });
    let refused = refused.expect("the sidecar is privileged");
    let warning = format!(
        "Warning: JuiceFS is mounted by a privileged sidecar, which the label pod-security.kubernetes.io/enforce=baseline of \
         namespace `{name}` refuses: an administrator can set it to `privileged`"
    );
    assert!(refused.contains(&warning) && refused.contains("violates PodSecurity"), "{refused}");
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &format!("pith-{name}")]).expect("it is deleted");
    cluster.kubectl(&["delete", "pv", &format!("{name}-data"), "--wait=false"]).expect("it is deleted");
}

#[test]
fn a_pod_is_reached_through_its_service_from_the_api_server_s_network_and_from_pods() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace("service", &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let mut pod = pod(name, "echo from the pod > /tmp/index.html && exec httpd -f -p 8080 -h /tmp", &json!([]));
    pod["metadata"]["labels"] = json!({"app": "web"});
    pod["spec"].as_object_mut().expect("a spec").remove("volumes");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": name, "name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    cluster.apply(&yaml(&[pod, service])).expect("objects");
    cluster.wait(name, "condition=Ready", "pod/app").expect("it runs");
    let service = cluster.get(&["service", "web", "--namespace", name]).expect("the service");
    let url = format!("http://{}/", service["spec"]["clusterIP"].as_str().expect("an address"));
    // As the API server calls a webhook, once kube-proxy has heard of the endpoint. The time that wget itself can be given makes
    // BusyBox crash.
    let wget = ["timeout", "5", "wget", "-q", "-O", "-", &url];
    let outside = || cluster.command(Path::new("busybox")).args(wget).output();
    let answered = || Ok((outside()?.stdout == b"from the pod\n").then_some(()));
    cluster.until(name, "an answer through the Service", answered).expect("it answers");
    let inside = [&["exec", "app", "--namespace", name, "--"], &wget[..]].concat();
    assert_eq!(cluster.kubectl(&inside).expect("it answers"), "from the pod\n");
}

/// Volumes of the driver are not attached: nothing but the kubelet has to do with a node.
pub(crate) fn driver() -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "csi.juicefs.com"}, "spec": {"attachRequired": false}})
}
