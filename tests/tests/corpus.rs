//! The corpus: pods as real software makes them, each injected, patched and looked at as a whole.
//!
//! A pod is a file in `fixtures/corpus/pods`, and what another webhook makes of an injected one is a file in
//! `fixtures/corpus/after`. What is decided about each is a snapshot, so that a change of the injector shows in every shape that it
//! concerns; what must hold for all of them is checked here. Policies are deliberately absent: they have tests of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use json_patch::Patch;
use pith::args::Overrides;
use pith::config::Config;
use pith::policy::{Moment, Policies};
use pith_core::Quantity;
use pith_core::admission::{self, Context, Decision, Verdict};
use pith_core::json::list;
use pith_core::object::Objects;
use pith_core::reason::{DONE_LABEL, STATUS_ANNOTATION, VCI_MOUNTS_ANNOTATION, VCI_PROPAGATION_ANNOTATION};
use pith_tests::cluster::{CLUSTER, Cluster};
use pith_tests::server::{self, Server};
use serde_json::{Value, json};

use crate::cluster::{to_be_made, without_chance, yaml};

const OBJECTS: &str = include_str!("../fixtures/corpus/objects.yaml");
/// Names that do not change with a release, a cache, and ceilings below what one claim asks for.
const CONFIG: &str = "
sidecar:
  image: registry.example/juicefs:1
  guardImage: registry.example/pith:1
  resources: {requests: {cpu: '1', memory: 1Gi}, limits: {cpu: '2', memory: 4Gi}}
  cache: {emptyDir: {sizeLimit: 10Gi}}
  ceilings: {cpu: '4', memory: 6Gi}
";
const CEILINGS: [(&str, &str); 2] = [("cpu", "4"), ("memory", "6Gi")];
/// The claims of the corpus that are for JuiceFS.
const JUICEFS: [&str; 6] = ["data", "enterprise", "fresh", "home", "models", "results"];
/// Where the pods and the objects name their namespace.
const NAMESPACE: &str = "corpus";

/// What decisions need beside a pod.
struct World {
    config: Config,
    objects: Objects,
}

impl World {
    /// As a server has it that runs in this folder.
    fn of(folder: &Path) -> World {
        World {
            config: Config::load(&folder.join("pith.yaml"), &Overrides::default()).expect("a configuration"),
            objects: pith::cluster::load(&folder.join("objects")).expect("objects"),
        }
    }

    fn decide(&self, pod: &Value) -> Decision {
        let context =
            Context { configuration: &self.config.sidecars, bindings: &[], objects: &self.objects, request: "" };
        let namespace = pod["metadata"]["namespace"].as_str().expect("every pod of the corpus names it");
        let moment = Moment { objects: &self.objects, time: SystemTime::now() };
        admission::decide(&context, namespace, pod, &Policies::none().evaluator(Instant::now(), moment))
    }

    /// The pod as the decision makes it.
    fn patched(&self, pod: &Value) -> Value {
        let patch = Patch(self.decide(pod).verdict.patch().to_vec());
        // The API server reads it from JSON, as is done here.
        let patch: Patch = serde_json::from_value(json!(patch)).expect("a patch is JSON");
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).expect("the patch fits the pod");
        patched
    }

    /// Every pod of the corpus by the name of its file, and those that another webhook has changed after us.
    fn pods(&self, namespace: &str) -> BTreeMap<String, Value> {
        let mut pods: BTreeMap<String, Value> = documents("fixtures/corpus/pods", namespace).collect();
        for (name, after) in documents("fixtures/corpus/after", namespace) {
            let pod = &pods[after["pod"].as_str().expect("it names a pod")];
            let mut changed = self.patched(pod);
            let patch: Patch = serde_json::from_value(after["patch"].clone()).expect("a patch");
            json_patch::patch(&mut changed, &patch).expect("it fits the injected pod");
            let metadata = changed["metadata"].as_object_mut().expect("metadata");
            metadata.remove("generateName");
            metadata.insert("name".into(), json!(format!("after-{name}")));
            pods.insert(format!("after-{name}"), changed);
        }
        pods
    }
}

/// The files of a folder below that of the tests, by name.
fn files(folder: &str) -> BTreeMap<String, PathBuf> {
    let entries = fs::read_dir(server::root().join("tests").join(folder)).expect("a folder");
    let paths = entries.map(|entry| entry.expect("a file").path());
    paths.map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path)).collect()
}

fn documents(folder: &str, namespace: &str) -> impl Iterator<Item = (String, Value)> {
    files(folder).into_iter().map(move |(name, path)| {
        let text = fs::read_to_string(path).expect("a file of the corpus");
        assert!(text.starts_with("# "), "{name} does not open with what is peculiar about it");
        (name, yaml_serde::from_str(&text.replace(NAMESPACE, namespace)).expect("YAML"))
    })
}

/// What a person looks at after a change of the injector.
fn summary(decision: &Decision) -> Value {
    let (verdict, reason, sentence) = match &decision.verdict {
        Verdict::Inject(_) => ("inject", "", String::new()),
        Verdict::Skip { why, .. } => ("skip", why.code().as_str(), why.sentence()),
        Verdict::Refuse(refusal) => ("refuse", refusal.code().as_str(), refusal.to_string()),
        Verdict::Fail(failure) => ("fail", "", failure.to_string()),
    };
    json!({
        "verdict": verdict, "reason": reason, "sentence": sentence,
        "warnings": decision.warnings, "patch": decision.verdict.patch(),
    })
}

/// Takes from the injected pod what the original has not, and gives the mounts of JuiceFS their own names again.
fn reverted(injected: &Value, original: &Value) -> Value {
    let mut pod = injected.clone();
    if let Some(mounts) = original["metadata"]["annotations"].get(VCI_MOUNTS_ANNOTATION) {
        let present = &mut pod["metadata"]["annotations"][VCI_MOUNTS_ANNOTATION];
        let behind = mounts.as_str().and_then(|it| it.strip_prefix('[')).expect("a list");
        assert!(present.as_str().expect("a text").ends_with(behind), "{present} has lost {mounts}");
        *present = mounts.clone();
    }
    for (parent, key, ours) in [
        ("labels", DONE_LABEL),
        ("annotations", STATUS_ANNOTATION),
        ("annotations", VCI_PROPAGATION_ANNOTATION),
        ("annotations", VCI_MOUNTS_ANNOTATION),
    ]
    .map(|(parent, key)| (parent, key, original["metadata"][parent].get(key).is_none()))
    {
        let metadata = pod["metadata"].as_object_mut().expect("metadata");
        if ours && let Some(entries) = metadata.get_mut(parent).and_then(Value::as_object_mut) {
            entries.remove(key);
        }
        if original["metadata"].get(parent).is_none() {
            metadata.remove(parent);
        }
    }
    let spec = pod["spec"].as_object_mut().expect("a spec");
    for key in ["volumes", "initContainers"] {
        let theirs: Vec<&Value> = list(&original["spec"][key]).iter().map(|item| &item["name"]).collect();
        if let Some(items) = spec.get_mut(key).and_then(Value::as_array_mut) {
            items.retain(|item| theirs.contains(&&item["name"]));
        }
        if original["spec"].get(key).is_none() {
            spec.remove(key);
        }
    }
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, was) in containers.zip(list(&original["spec"][key])) {
            let mounts = container.get_mut("volumeMounts").and_then(Value::as_array_mut).into_iter().flatten();
            for (mount, was) in mounts.zip(list(&was["volumeMounts"])) {
                revert_mount(mount, was, original);
            }
        }
    }
    pod
}

/// Whether a volume of the corpus is for JuiceFS. No ephemeral one is for anything else.
fn is_juicefs(volume: &Value) -> bool {
    let claim = volume["persistentVolumeClaim"]["claimName"].as_str();
    claim.is_some_and(|claim| JUICEFS.contains(&claim)) || volume["ephemeral"].is_object()
}

fn revert_mount(mount: &mut Value, was: &Value, original: &Value) {
    let volume = list(&original["spec"]["volumes"]).iter().find(|volume| volume["name"] == was["name"]);
    if !volume.is_some_and(is_juicefs) {
        return;
    }
    assert!(was["readOnly"] != true || mount["readOnly"] == true, "{was} became {mount}");
    for key in ["name", "mountPropagation", "readOnly"] {
        let mount = mount.as_object_mut().expect("a mount");
        match was.get(key) {
            Some(value) => mount.insert(key.into(), value.clone()),
            None => mount.remove(key),
        };
    }
}

#[track_caller]
fn check_ceilings(pod: &Value) {
    let is_client = |container: &&Value| container["name"].as_str().is_some_and(|name| name.starts_with("jfs-mount"));
    for container in list(&pod["spec"]["initContainers"]).iter().filter(is_client) {
        for (kind, (resource, ceiling)) in
            ["limits", "requests"].into_iter().flat_map(|kind| CEILINGS.map(|it| (kind, it)))
        {
            let Some(amount) = container["resources"][kind][resource].as_str() else { continue };
            let quantity = |text: &str| text.parse::<Quantity>().expect("a quantity");
            assert!(quantity(amount) <= quantity(ceiling), "{kind} of {resource}: {amount}");
        }
    }
}

#[test]
fn every_pod_of_the_corpus_is_decided_as_before_and_keeps_what_is_the_application_s() {
    let served = server::folder(CONFIG, OBJECTS).expect("a folder");
    let world = World::of(served.path());
    let pods = world.pods(NAMESPACE);
    for (name, pod) in &pods {
        let decision = world.decide(pod);
        insta::with_settings!({
            snapshot_path => "snapshots/corpus", prepend_module_to_snapshot => false, omit_expression => true,
        }, {
            insta::assert_yaml_snapshot!(name.as_str(), summary(&decision));
        });
        let patched = world.patched(pod);
        assert_eq!(reverted(&patched, pod), *pod, "{name} lost something");
        check_ceilings(&patched);
        if let Verdict::Inject(_) = decision.verdict {
            assert_eq!(world.decide(&patched).verdict, Verdict::Inject(Vec::new()), "{name}, a second time");
        }
        if name.starts_with("after-") {
            assert_eq!(
                decision.verdict,
                Verdict::Inject(Vec::new()),
                "{name}: a change of another webhook's was undone"
            );
        }
    }
    let kept = files("tests/snapshots/corpus").into_keys();
    assert_eq!(kept.collect::<Vec<_>>(), pods.into_keys().collect::<Vec<_>>(), "each snapshot has its pod");
}

/// What the API server calls a pod before it has chosen a name.
fn called(pod: &Value) -> &str {
    let metadata = &pod["metadata"];
    metadata["generateName"].as_str().or(metadata["name"].as_str()).expect("one of the two")
}

/// What the API server would make of each of these pods, and what it says of those that it would not.
fn dry_run(cluster: &Cluster, folder: &Path, pods: &[&Value]) -> (BTreeMap<String, Value>, String) {
    // From a file: kubectl prints while it reads, and a pipe that nobody empties would fill.
    let file = folder.join("pods.yaml");
    fs::write(&file, pods.iter().map(|pod| format!("---\n{pod}\n")).collect::<String>()).expect("a file");
    let file = file.to_str().expect("a path");
    let create = ["create", "--dry-run=server", "--output=json", "-f", file];
    let output = cluster.try_kubectl(&create, "").expect("kubectl runs");
    let made = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let without_status = |pod: Result<Value, _>| {
        let mut pod = pod.expect("JSON");
        // The API server's own, of the time of the creation: webhooks do not see it.
        pod.as_object_mut().expect("a pod").remove("status");
        (called(&pod).to_string(), pod)
    };
    (made.map(without_status).collect(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn warnings(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter(|line| line.starts_with("Warning: "))
}

#[test]
fn the_api_server_makes_of_every_pod_of_the_corpus_what_was_decided_without_it() {
    let cluster = &*CLUSTER;
    let namespace = cluster.namespace(NAMESPACE, &json!({})).expect("a namespace");
    let name = &*namespace.name;
    let objects = to_be_made(&OBJECTS.replace(NAMESPACE, name));
    cluster.apply(&yaml(&objects)).expect("the objects of the corpus");
    let server = Server::start_on(cluster, CONFIG, &cluster.objects().expect("objects")).expect("it serves");
    let folder = server.folder.path();
    let world = World::of(folder);
    let pods = world.pods(name);

    // As the API server hands them to webhooks: with defaults, and the token that every container gets.
    let (bare, said_of_bare) = dry_run(cluster, folder, &pods.values().collect::<Vec<_>>());
    let refused: Vec<&str> =
        pods.iter().filter(|(_, pod)| !bare.contains_key(called(pod))).map(|(name, _)| name.as_str()).collect();
    assert_eq!(refused, ["ephemeral-containers"], "{said_of_bare}");
    let of_bare: Vec<&str> = warnings(&said_of_bare).collect();

    let is_refused = |pod: &&Value| matches!(world.decide(pod).verdict, Verdict::Refuse(_));
    let patched: Vec<Value> = bare.values().filter(|pod| !is_refused(pod)).map(|pod| world.patched(pod)).collect();
    let (expected, said) = dry_run(cluster, folder, &patched.iter().collect::<Vec<_>>());
    assert_eq!(expected.len(), patched.len(), "what was injected is no pod any more: {said}");
    let ours: Vec<&str> = warnings(&said).filter(|warning| !of_bare.contains(warning)).collect();
    assert_eq!(ours, Vec::<&str>::new(), "the API server has no warning of what was injected");
    for (name, pod) in &expected {
        assert!(world.decide(pod).verdict.patch().is_empty(), "defaults of the API server are a change of {name}");
    }

    cluster.register(name, &server).expect("a webhook can be registered");
    cluster.kubectl(&["label", "namespace", name, &format!("pith.test/webhook={name}")]).expect("it is labelled");
    // The API server hears of it in a moment.
    let asked = || {
        let (made, _) = dry_run(cluster, folder, &[&pods["bare"]]);
        Ok(made.values().any(|pod| pod["metadata"]["labels"][DONE_LABEL] == "true").then_some(()))
    };
    cluster.until(name, "the first injection", asked).expect("the webhook is asked");
    let (made, said) = dry_run(cluster, folder, &pods.values().collect::<Vec<_>>());
    assert_eq!(made.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{said}");
    for (name, pod) in &made {
        assert_eq!(without_chance(pod), without_chance(&expected[name]), "{name}");
    }
    for pod in bare.values() {
        if let Verdict::Refuse(refusal) = world.decide(pod).verdict {
            assert!(said.contains(&refusal.to_string()), "{}: {said}", called(pod));
        }
    }

    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", &format!("pith-{name}")]).expect("it is deleted");
    cluster.kubectl_with(&["delete", "--wait=false", "-f", "-"], &yaml(&objects)).expect("they are deleted");
}
